//! Very many clients that come back as pusher-js does, a publisher that numbers its events, and newcomers:
//! what all of them suffer while servers stop and start.
//!
//! The sockets are the load generator's, which shares no code with the server.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bench::crowd::{Crowd, Heard, Kind, Subscription};
use bench::target::{Credentials, Target};
use bench::{cpu, wire};

use crate::support::config::{APP_ID, KEY, SECRET};

/// How many there are of everything.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) clients: usize,
    /// Members of each presence channel, and of each private one.
    pub(crate) members: usize,
    pub(crate) newcomers_per_s: u64,
    /// Events on the channel that all have, and on each of the private ones in turn.
    pub(crate) news_per_s: u64,
    pub(crate) rooms_per_s: u64,
}

/// The clients at work, on a thread of their own.
pub(crate) struct Returning {
    shared: Arc<Shared>,
    thread: JoinHandle<Suffered>,
}

#[derive(Default)]
struct Shared {
    /// Clients that have all their channels.
    joined: AtomicUsize,
    ends: AtomicBool,
}

/// What they went through.
#[derive(Debug, Default)]
pub(crate) struct Suffered {
    /// Why newcomers did not get what they asked for; at most some.
    pub(crate) refused: Vec<String>,
    /// Why requests of the API failed.
    pub(crate) unanswered: Vec<String>,
    /// What no client may see: events lost or doubled within a subscription, members that come twice.
    pub(crate) faults: Vec<String>,
    pub(crate) newcomers: u64,
    /// Newcomers who were told 4200 first, and served when they came again.
    pub(crate) sent_on: u64,
    pub(crate) published: u64,
    pub(crate) received: u64,
    /// Events that came after a later one: publishers on two nodes have no common order.
    pub(crate) late: u64,
    /// How often clients heard that a member left.
    pub(crate) removed: u64,
    /// How often clients were closed, by the reason.
    pub(crate) closes: BTreeMap<String, u64>,
    /// From a close to all subscriptions being back.
    pub(crate) offline: Vec<Duration>,
}

/// The crowd that must not notice an upgrade.
pub(crate) const TEN_THOUSAND: Size = Size {
    clients: 10_000,
    members: 20,
    newcomers_per_s: 20,
    news_per_s: 1,
    rooms_per_s: 50,
};

impl Suffered {
    /// Nobody was closed, refused or left without an answer, and nothing was lost, doubled or out of order.
    #[track_caller]
    pub(crate) fn is_nothing(&self) {
        assert!(self.closes.is_empty(), "{:?}", self.closes);
        assert!(self.refused.is_empty(), "{:#?}", self.refused);
        assert!(self.unanswered.is_empty(), "{:#?}", self.unanswered);
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
        assert_eq!(self.late, 0, "order is kept");
        assert_eq!(self.removed, 0, "nobody is told that somebody left");
    }

    pub(crate) fn longest_offline(&self) -> Duration {
        self.offline.iter().copied().max().unwrap_or_default()
    }

    /// One line for a person.
    pub(crate) fn summary(&self) -> String {
        let mut offline = self.offline.clone();
        offline.sort_unstable();
        let at = |part: usize| offline.get(offline.len() * part / 100).copied();
        format!(
            "{} newcomers, {} sent on, {} refused; {} events published, {} unanswered, {} received, {} late; closes {:?}; \
             offline half {:?}, 99 % {:?}, longest {:?}; {} faults",
            self.newcomers,
            self.sent_on,
            self.refused.len(),
            self.published,
            self.unanswered.len(),
            self.received,
            self.late,
            self.closes,
            at(50).unwrap_or_default(),
            at(99).unwrap_or_default(),
            self.longest_offline(),
            self.faults.len(),
        )
    }
}

impl Returning {
    /// Opens them all at this address and begins to publish.
    pub(crate) fn start(address: SocketAddr, size: Size) -> Self {
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(address, size, Arc::clone(&shared));
        let thread = std::thread::spawn(move || worker.run());
        Self { shared, thread }
    }

    pub(crate) fn joined(&self) -> usize {
        self.shared.joined.load(Ordering::Relaxed)
    }

    /// Waits until so many have all their channels.
    pub(crate) fn are_joined(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.joined() != count {
            assert!(!self.thread.is_finished(), "their thread has ended");
            let (joined, now) = (self.joined(), Instant::now());
            assert!(now < deadline, "{joined} of {count} are subscribed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lets all come back, publishes a last time and looks what everybody has got.
    pub(crate) fn end(self) -> Suffered {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("the clients' thread ends well")
    }
}

/// One client's subscription to a channel of numbered events.
#[derive(Default)]
struct Heeded {
    /// Of the present session; 0 = nothing yet.
    first: u64,
    last: u64,
    missing: Vec<u64>,
    /// When the subscription was confirmed, this was the next number.
    next_at_start: u64,
}

impl Heeded {
    fn receives(&mut self, number: u64) -> Result<Option<Late>, &'static str> {
        if self.first == 0 {
            (self.first, self.last) = (number, number);
        } else if number > self.last {
            self.missing.extend(self.last + 1..number);
            self.last = number;
        } else if let Some(at) = self.missing.iter().position(|it| *it == number) {
            self.missing.swap_remove(at);
            return Ok(Some(Late));
        } else if number < self.first && self.first - number < 3 {
            // A later one of another node came before the first.
            self.missing.extend(number + 1..self.first);
            self.first = number;
            return Ok(Some(Late));
        } else {
            return Err("twice");
        }
        Ok(None)
    }
}

struct Late;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Joining,
    Joined,
    /// Comes back then.
    Away(Instant),
    /// Told never to come back.
    Gone,
}

struct Client {
    state: State,
    /// Since when it lacks a channel, after it had all.
    offline_since: Option<Instant>,
    news: Heeded,
    room: Heeded,
    /// Whether this session last heard of a member that it came.
    members: HashMap<String, bool>,
}

/// A channel with numbered events.
struct Published {
    channel: String,
    next: u64,
    /// The last is not answered yet.
    is_under_way: bool,
    /// Nobody knows whether these were published.
    doubtful: Vec<u64>,
}

enum Part {
    Client,
    Newcomer {
        is_served: bool,
        was_sent_on: bool,
    },
    /// A request with an event of this channel.
    Request(usize),
    Free,
}

struct Worker {
    crowd: Crowd,
    size: Size,
    shared: Arc<Shared>,
    target: Target,
    clients: Vec<Client>,
    /// Of every connection's number, the clients' first.
    parts: Vec<Part>,
    free: Vec<usize>,
    /// The channel that all have, then the rooms.
    channels: Vec<Published>,
    next_room: usize,
    suffered: Suffered,
}

const NEWS: &str = "news";
/// How many connect at once in the beginning.
const WAVE: usize = 200;
const FAULTS_MAX: usize = 50;
const PATIENCE: Duration = Duration::from_secs(150);

impl Worker {
    fn new(address: SocketAddr, size: Size, shared: Arc<Shared>) -> Self {
        cpu::raise_descriptor_limit();
        let app = Credentials {
            id: APP_ID.to_owned(),
            key: KEY.to_owned(),
            secret: SECRET.to_owned(),
        };
        let target = Target {
            name: "servers".to_owned(),
            address,
            authority: address.to_string(),
            app,
            pid: None,
            tls: None,
            admin_socket: None,
        };
        let crowd = Crowd::new(target.clone(), Duration::from_millis(2)).expect("epoll is there");
        let rooms = size.clients.div_ceil(size.members);
        let names = (0..rooms).map(|room| format!("private-room-{room}"));
        let channels = std::iter::once(NEWS.to_owned()).chain(names);
        let channels = channels.map(|channel| Published {
            channel,
            next: 1,
            is_under_way: false,
            doubtful: Vec::new(),
        });
        Self {
            crowd,
            size,
            shared,
            target,
            clients: Vec::new(),
            parts: Vec::new(),
            free: Vec::new(),
            channels: channels.collect(),
            next_room: 0,
            suffered: Suffered::default(),
        }
    }

    fn run(mut self) -> Suffered {
        self.join_all();
        let began = Instant::now();
        let (mut news, mut rooms, mut newcomers) = (0, 0, 0);
        while !self.shared.ends.load(Ordering::Relaxed) {
            #[expect(clippy::cast_possible_truncation, reason = "it runs for seconds")]
            let due = |per_s: u64| (began.elapsed().as_secs_f64() * per_s as f64) as u64;
            while news < due(self.size.news_per_s) {
                self.publish(0);
                news += 1;
            }
            while rooms < due(self.size.rooms_per_s) {
                self.next_room = self.next_room % (self.channels.len() - 1) + 1;
                self.publish(self.next_room);
                rooms += 1;
            }
            while newcomers < due(self.size.newcomers_per_s) {
                self.let_one_come();
                newcomers += 1;
            }
            self.turn();
        }
        self.finish();
        self.suffered
    }

    fn wishes(&self, client: usize) -> Vec<Subscription> {
        let group = client / self.size.members;
        let presence = Subscription {
            channel: format!("presence-team-{group}"),
            user: Some(format!("user-{client}")),
        };
        let room = Subscription::to(format!("private-room-{group}"));
        vec![Subscription::to(NEWS), room, presence]
    }

    fn join_all(&mut self) {
        let began = Instant::now();
        while self.joined() < self.size.clients {
            while self.clients.len() < self.size.clients
                && self.clients.len() - self.joined() < WAVE
            {
                let wishes = self.wishes(self.clients.len());
                let number = self.crowd.open(Kind::WebSocket, wishes).expect("a socket");
                assert_eq!(number, self.clients.len(), "clients are numbered first");
                self.parts.push(Part::Client);
                self.clients.push(Client {
                    state: State::Joining,
                    offline_since: None,
                    news: Heeded::default(),
                    room: Heeded::default(),
                    members: HashMap::new(),
                });
            }
            self.turn();
            assert!(
                began.elapsed() < PATIENCE,
                "{} have joined: {:?}",
                self.joined(),
                self.suffered
            );
        }
    }

    fn joined(&self) -> usize {
        self.shared.joined.load(Ordering::Relaxed)
    }

    /// A connection in a place that is free, with the wishes of a newcomer or for a request.
    fn open(&mut self, kind: Kind, part: Part) {
        let wishes = match kind {
            Kind::WebSocket => vec![Subscription::to(NEWS)],
            Kind::Http => Vec::new(),
        };
        match self.free.pop() {
            Some(number) => {
                let opened = self.crowd.reopen(number, kind, wishes);
                opened.expect("a socket");
                self.parts[number] = part;
            }
            None => {
                self.crowd.open(kind, wishes).expect("a socket");
                self.parts.push(part);
            }
        }
    }

    fn let_one_come(&mut self) {
        self.suffered.newcomers += 1;
        self.open(
            Kind::WebSocket,
            Part::Newcomer {
                is_served: false,
                was_sent_on: false,
            },
        );
    }

    /// Begins a request; the event's number is taken when it is sent.
    fn publish(&mut self, channel: usize) {
        if !std::mem::replace(&mut self.channels[channel].is_under_way, true) {
            self.suffered.published += 1;
            self.open(Kind::Http, Part::Request(channel));
        }
    }

    fn turn(&mut self) {
        self.let_those_return_who_are_due();
        let mut news = News::default();
        let Self {
            crowd,
            clients,
            parts,
            channels,
            suffered,
            shared,
            size,
            ..
        } = self;
        let mut hearing = Hearing {
            channels,
            suffered,
            shared,
            size,
        };
        let until = Instant::now() + Duration::from_millis(2);
        let turned = crowd.turn(until, &mut |now, number, heard| match &mut parts[number] {
            Part::Client => hearing.client(now, number, &mut clients[number], &heard),
            part => hearing.passer_by(number, part, &heard, &mut news),
        });
        turned.expect("epoll answers");
        for (number, channel) in news.connected {
            let request = self.request(channel);
            self.crowd.send(number, &request);
        }
        for number in news.served {
            self.crowd.say_goodbye(number);
        }
        for number in news.sent_on {
            let wishes = vec![Subscription::to(NEWS)];
            let opened = self.crowd.reopen(number, Kind::WebSocket, wishes);
            opened.expect("a socket");
        }
        for number in news.answered {
            self.crowd.reset(number);
            self.free.push(number);
        }
        self.free.extend(news.ended);
    }

    fn let_those_return_who_are_due(&mut self) {
        let now = Instant::now();
        for client in 0..self.clients.len() {
            if matches!(self.clients[client].state, State::Away(until) if now >= until) {
                let wishes = self.wishes(client);
                let opened = self.crowd.reopen(client, Kind::WebSocket, wishes);
                opened.expect("a socket");
                self.clients[client].state = State::Joining;
            }
        }
    }

    fn request(&mut self, channel: usize) -> Vec<u8> {
        let published = &mut self.channels[channel];
        let data = wire::numbered(published.next, 32);
        published.next += 1;
        let channel = &published.channel;
        let body = format!(r#"{{"name":"n","channel":"{channel}","data":"{data}"}}"#);
        self.target.api_request("events", &body)
    }

    /// All are back and have heard the last event of each of their channels.
    fn finish(&mut self) {
        self.waits("everybody to be back", |worker| {
            let is_busy = worker.channels.iter().any(|it| it.is_under_way);
            worker.joined() == worker.size.clients && !is_busy
        });
        // The second follows the first's answer, so that whoever lacks the first shows a hole.
        for _ in 0..2 {
            for wave in 0..self.channels.len().div_ceil(WAVE) {
                let ends = ((wave + 1) * WAVE).min(self.channels.len());
                for channel in wave * WAVE..ends {
                    self.publish(channel);
                }
                self.waits("the last events to be taken", |worker| {
                    !worker.channels.iter().any(|it| it.is_under_way)
                });
            }
        }
        self.waits("everybody to hear the last events", |worker| {
            let last = |channel: usize| worker.channels[channel].next - 1;
            let mut clients = worker.clients.iter().enumerate();
            clients.all(|(number, client)| {
                let room = number / worker.size.members + 1;
                client.news.last == last(0) && client.room.last == last(room)
            })
        });
        let mut clients = std::mem::take(&mut self.clients);
        for (number, client) in clients.iter_mut().enumerate() {
            let mut hearing = Hearing {
                channels: &mut self.channels,
                suffered: &mut self.suffered,
                shared: &self.shared,
                size: &self.size,
            };
            hearing.session_ends(number, client);
        }
    }

    fn waits(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            self.turn();
            if began.elapsed() > PATIENCE {
                let joined = self.joined();
                let text = format!("waited {PATIENCE:?} for {what}: {joined} joined");
                note(&mut self.suffered.faults, &text);
                return;
            }
        }
    }
}

/// The parts of the worker that hearing changes, while the crowd is busy.
struct Hearing<'a> {
    channels: &'a mut [Published],
    suffered: &'a mut Suffered,
    shared: &'a Shared,
    size: &'a Size,
}

/// Of connections that are no client's: what is to be done once the crowd has turned.
#[derive(Default)]
struct News {
    /// Requests that can be sent, with their channels.
    connected: Vec<(usize, usize)>,
    /// Newcomers who have what they came for.
    served: Vec<usize>,
    /// Newcomers who are told 4200, and come again.
    sent_on: Vec<usize>,
    /// Requests that are done.
    answered: Vec<usize>,
    ended: Vec<usize>,
}

impl Hearing<'_> {
    fn passer_by(&mut self, number: usize, part: &mut Part, heard: &Heard<'_>, news: &mut News) {
        match (&mut *part, heard) {
            (Part::Newcomer { is_served, .. }, Heard::Subscribed) => {
                *is_served = true;
                news.served.push(number);
            }
            // Accepted in the moment of the stop: it comes again at once, as all of them do.
            (
                Part::Newcomer {
                    is_served: false,
                    was_sent_on,
                },
                Heard::Ended(reason),
            ) if !*was_sent_on && reason.starts_with("closed with 4200") => {
                *was_sent_on = true;
                self.suffered.sent_on += 1;
                news.sent_on.push(number);
            }
            (Part::Newcomer { is_served, .. }, Heard::Ended(reason)) => {
                if !*is_served {
                    note(&mut self.suffered.refused, reason);
                }
                *part = Part::Free;
                news.ended.push(number);
            }
            (Part::Request(channel), Heard::Connected) => news.connected.push((number, *channel)),
            (Part::Request(channel), Heard::Answer { status, body, .. }) => {
                let answer = match status {
                    200 => Ok(()),
                    _ => Err(format!("{status} {}", wire::shortened(body))),
                };
                self.answer(*channel, answer);
                *part = Part::Free;
                news.answered.push(number);
            }
            (Part::Request(channel), Heard::Ended(reason)) => {
                self.answer(*channel, Err((*reason).to_owned()));
                *part = Part::Free;
                news.ended.push(number);
            }
            _ => {}
        }
    }

    fn client(&mut self, now: Instant, number: usize, client: &mut Client, heard: &Heard<'_>) {
        match heard {
            Heard::Subscribed if client.state == State::Joining => {
                client.state = State::Joined;
                self.shared.joined.fetch_add(1, Ordering::Relaxed);
                client.news.next_at_start = self.channels[0].next;
                client.room.next_at_start = self.channels[number / self.size.members + 1].next;
                if let Some(since) = client.offline_since.take() {
                    self.suffered.offline.push(now - since);
                }
            }
            Heard::Event {
                name: b"n",
                payload,
            } => self.event(number, client, payload),
            Heard::Event { name, payload } => self.member(number, client, name, payload),
            Heard::Refused(_) => {} // The close that follows says why.
            Heard::Ended(reason) => self.ended(now, number, client, reason),
            _ => {}
        }
    }

    fn event(&mut self, number: usize, client: &mut Client, payload: &[u8]) {
        let is_news = wire::find(payload, br#""channel":"news""#).is_some();
        let heeded = if is_news {
            &mut client.news
        } else {
            &mut client.room
        };
        let Some(event) = wire::number_of(payload) else {
            return note(&mut self.suffered.faults, &wire::shortened(payload));
        };
        self.suffered.received += 1;
        match heeded.receives(event) {
            Ok(late) => self.suffered.late += u64::from(late.is_some()),
            Err(how) => {
                let (first, last) = (heeded.first, heeded.last);
                note(
                    &mut self.suffered.faults,
                    &format!("client {number} heard {event} {how}, of {first} to {last}"),
                );
            }
        }
    }

    /// Who is here comes and goes in turn.
    fn member(&mut self, number: usize, client: &mut Client, name: &[u8], payload: &[u8]) {
        let has_come = match name {
            b"pusher_internal:member_added" => true,
            b"pusher_internal:member_removed" => false,
            _ => return,
        };
        let frame: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        let data = frame["data"].as_str().unwrap_or_default();
        let data: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
        let user = data["user_id"].as_str().unwrap_or_default().to_owned();
        self.suffered.removed += u64::from(!has_come);
        if client.members.insert(user.clone(), has_come) == Some(has_come) {
            let what = String::from_utf8_lossy(name);
            note(
                &mut self.suffered.faults,
                &format!("client {number} heard {what} of {user} twice"),
            );
        }
    }

    /// As pusher-js: at once after 4200 to 4299, never after 4000 to 4099, else after a second.
    fn ended(&mut self, now: Instant, number: usize, client: &mut Client, reason: &str) {
        *self.suffered.closes.entry(reason.to_owned()).or_default() += 1;
        if client.state == State::Joined {
            self.shared.joined.fetch_sub(1, Ordering::Relaxed);
            client.offline_since = Some(now);
        }
        self.session_ends(number, client);
        let code = reason.strip_prefix("closed with ");
        let code = code.and_then(|text| text.get(..4)?.parse::<u16>().ok());
        client.state = match code {
            Some(4_200..=4_299) => State::Away(now),
            Some(4_000..=4_099) => State::Gone,
            _ => State::Away(now + Duration::from_secs(1)),
        };
        if client.state == State::Gone {
            note(
                &mut self.suffered.faults,
                &format!("client {number}: {reason}"),
            );
        }
    }

    fn session_ends(&mut self, number: usize, client: &mut Client) {
        client.members.clear();
        let room = number / self.size.members + 1;
        for (channel, heeded) in [(0, &mut client.news), (room, &mut client.room)] {
            let published = &self.channels[channel];
            let heeded = std::mem::take(heeded);
            let is_known = |event: &u64| !published.doubtful.contains(event);
            let lost: Vec<u64> = heeded.missing.into_iter().filter(is_known).collect();
            let began_late = heeded.first > heeded.next_at_start
                && (heeded.next_at_start..heeded.first).any(|event| is_known(&event));
            if !lost.is_empty() || (began_late && heeded.next_at_start > 0) {
                let text = format!(
                    "client {number} on {}: lost {lost:?} of {} to {}, subscribed before {}",
                    published.channel, heeded.first, heeded.last, heeded.next_at_start
                );
                note(&mut self.suffered.faults, &text);
            }
        }
    }

    fn answer(&mut self, channel: usize, answer: Result<(), String>) {
        let published = &mut self.channels[channel];
        published.is_under_way = false;
        if let Err(reason) = answer {
            published.doubtful.push(published.next - 1);
            note(&mut self.suffered.unanswered, &reason);
        }
    }
}

fn note(list: &mut Vec<String>, text: &str) {
    if list.len() < FAULTS_MAX {
        list.push(text.to_owned());
    }
}
