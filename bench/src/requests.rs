//! Requests to the HTTP API: numbered, in their order, on connections that stay.
//!
//! Owns: which connection is idle, which request is under way on it, which wait.
//! May depend on: `crowd`.
//! Invariants: a connection has one request under way at most; a request that a closed connection leaves
//! unanswered is asked again, and the reconnect is counted.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    crowd::{Crowd, Heard, Kind},
    wire::shortened,
};

pub struct Requests {
    clients: Range<usize>,
    idle: Vec<usize>,
    /// By connection: whether it has answered since it was opened.
    has_answered: Vec<bool>,
    under_way: Vec<Option<u64>>,
    waiting: VecDeque<u64>,
    /// Connections to open again, and when.
    closed: Vec<(usize, Instant)>,
    pub answered: u64,
    /// Times that a connection was opened again because the server had closed it.
    pub reconnects: u64,
    pub refused: u64,
    pub first_refusal: Option<String>,
}

/// How long after its end a connection that said nothing is tried again.
const RETRY: Duration = Duration::from_millis(20);

impl Requests {
    /// Begins so many connections, with the next numbers of the crowd.
    pub fn open(crowd: &mut Crowd, count: usize) -> io::Result<Self> {
        let mut clients = 0..0;
        for number in 0..count {
            let client = crowd.open(Kind::Http, Vec::new())?;
            if number == 0 {
                clients.start = client;
            }
            clients.end = client + 1;
        }
        Ok(Self {
            under_way: vec![None; count],
            has_answered: vec![false; count],
            clients,
            idle: Vec::with_capacity(count),
            waiting: VecDeque::new(),
            closed: Vec::new(),
            answered: 0,
            reconnects: 0,
            refused: 0,
            first_refusal: None,
        })
    }

    /// Drops its connections, of which nothing more is heard.
    pub fn close(self, crowd: &mut Crowd) {
        for client in self.clients {
            crowd.reset(client);
        }
    }

    pub fn owns(&self, client: usize) -> bool {
        self.clients.contains(&client)
    }

    /// Asks for a request to be made as soon as a connection is idle.
    pub fn ask(&mut self, number: u64) {
        self.waiting.push_back(number);
    }

    /// Whether each request was answered.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way.iter().all(Option::is_none)
    }

    /// Hears of one of its connections; the number of the request that was answered, if one was.
    pub fn hear(&mut self, now: Instant, client: usize, heard: &Heard<'_>) -> Option<u64> {
        let at = client - self.clients.start;
        match heard {
            Heard::Connected => self.idle.push(client),
            Heard::Answer {
                status,
                body,
                is_last,
            } => {
                let number = self.under_way[at].take()?;
                self.answered += 1;
                if *status != 200 {
                    self.refused += 1;
                    self.first_refusal
                        .get_or_insert_with(|| format!("status {status}: {}", shortened(body)));
                }
                self.has_answered[at] = true;
                if *is_last {
                    self.reconnect(client, now);
                } else {
                    self.idle.push(client);
                }
                return Some(number);
            }
            Heard::Ended(_) => {
                self.idle.retain(|&idle| idle != client);
                // A server may close at any time between two requests, also while one is on its way.
                if let Some(number) = self.under_way[at].take() {
                    self.waiting.push_front(number);
                }
                self.reconnect(client, now);
            }
            Heard::Established | Heard::Subscribed | Heard::Event { .. } | Heard::Refused(_) => {}
        }
        None
    }

    fn reconnect(&mut self, client: usize, now: Instant) {
        if self.closed.iter().any(|&(closed, _)| closed == client) {
            return; // Its last answer said that this end would come.
        }
        let has_answered = &mut self.has_answered[client - self.clients.start];
        let wait = match std::mem::take(has_answered) {
            true => Duration::ZERO,
            false => RETRY,
        };
        self.closed.push((client, now + wait));
        self.reconnects += 1;
    }

    /// Sends what waits on what is idle. `bytes_of` makes a request when its turn has come.
    pub fn pump<B: AsRef<[u8]>>(
        &mut self,
        crowd: &mut Crowd,
        now: Instant,
        mut bytes_of: impl FnMut(u64) -> B,
    ) -> io::Result<()> {
        while let Some(at) = self.closed.iter().position(|&(_, when)| when <= now) {
            let (client, _) = self.closed.swap_remove(at);
            crowd.reopen(client, Kind::Http, Vec::new())?;
        }
        while !self.waiting.is_empty()
            && let Some(client) = self.idle.pop()
            && let Some(number) = self.waiting.pop_front()
        {
            self.under_way[client - self.clients.start] = Some(number);
            crowd.send(client, bytes_of(number).as_ref());
        }
        Ok(())
    }

    /// What went wrong, in words.
    pub fn faults(&self, asked: u64) -> Vec<String> {
        let mut faults = Vec::new();
        if self.refused > 0 {
            let first = self.first_refusal.as_deref().unwrap_or_default();
            faults.push(format!(
                "{} requests were refused, the first with {first}",
                self.refused
            ));
        }
        if self.answered < asked {
            faults.push(format!(
                "{} of {asked} requests got no answer",
                asked - self.answered
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::target::{Credentials, Target};

    /// Answers each request with some lines of head, and closes after it if told so.
    fn fake_server(head: &'static str, closes: bool) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                thread::spawn(move || {
                    let mut request = [0; 1_024];
                    while stream.read(&mut request).is_ok_and(|count| count > 0) {
                        let answer =
                            format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 2\r\n\r\n{{}}");
                        if stream.write_all(answer.as_bytes()).is_err() || closes {
                            return;
                        }
                    }
                });
            }
        });
        Target {
            name: address.to_string(),
            address,
            authority: address.to_string(),
            app: Credentials {
                id: String::new(),
                key: String::new(),
                secret: String::new(),
            },
            pid: None,
            tls: None,
            admin_socket: None,
        }
    }

    #[test]
    fn each_request_is_answered_once_whether_the_server_closes_or_not() {
        for (head, closes) in [("", false), ("Connection: close\r\n", true), ("", true)] {
            let target = fake_server(head, closes);
            let mut crowd = Crowd::new(target.clone(), Duration::from_micros(100)).expect("epoll");
            let mut requests = Requests::open(&mut crowd, 2).expect("sockets");
            let asked = 20;
            (0..asked).for_each(|number| requests.ask(number));
            let mut answered = Vec::new();
            let ends = Instant::now() + Duration::from_secs(10);
            while !requests.is_done() && Instant::now() < ends {
                let bytes = target.plain_request("/");
                requests
                    .pump(&mut crowd, Instant::now(), |_| &*bytes)
                    .expect("sockets");
                let mut hear = |now, client, heard: Heard<'_>| {
                    answered.extend(requests.hear(now, client, &heard));
                };
                crowd.turn(ends, &mut hear).expect("epoll");
            }
            answered.sort_unstable();
            assert_eq!(
                answered,
                (0..asked).collect::<Vec<_>>(),
                "{head:?} {closes}"
            );
            assert!(requests.faults(asked).is_empty());
            let least = if closes { asked - 2 } else { 0 };
            assert!(requests.reconnects >= least, "{}", requests.reconnects);
            assert!(closes || requests.reconnects == 0);
        }
    }
}
