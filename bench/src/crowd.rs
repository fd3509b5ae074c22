//! Many non-blocking connections on one thread: WebSocket clients, and HTTP clients that stay connected.
//!
//! Owns: sockets, each one's stage, what of its input and output is incomplete, the thread's wait.
//! May depend on: mio, socket2, `target`, `wire`.
//! Invariants: a unit is handed over once, in order; what a socket does not take is kept, at most
//! `OUTGOING_MAX`; pings are answered; `Ended` is the last that is heard of a connection, and is not heard
//! of one that was dropped from this side.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    mem,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::SockRef;

use crate::{
    target::Target,
    wire::{self, Unit, shortened},
};

/// What a WebSocket client asks for as soon as it may.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub channel: String,
    /// The member's id, of a presence channel.
    pub user: Option<String>,
}

impl Subscription {
    pub fn to(channel: impl Into<String>) -> Self {
        Self {
            channel: channel.into(),
            user: None,
        }
    }
}

/// What is heard of a connection.
#[derive(Debug)]
pub enum Heard<'a> {
    /// TCP is there.
    Connected,
    /// `pusher:connection_established`.
    Established,
    /// All that was asked for so far is subscribed to.
    Subscribed,
    Event {
        name: &'a [u8],
        payload: &'a [u8],
    },
    /// An error event, or a subscription's.
    Refused(&'a [u8]),
    Answer {
        status: u16,
        body: &'a [u8],
    },
    /// The server closed it, with a reason in words.
    Ended(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    Http,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting(Kind),
    Upgrading,
    Greeting,
    Open,
    Http,
}

struct Client {
    /// None = ended or dropped.
    stream: Option<TcpStream>,
    stage: Stage,
    unfinished: Vec<u8>,
    outgoing: Vec<u8>,
    socket_id: String,
    wishes: Vec<Subscription>,
    /// Subscriptions that are not confirmed.
    awaited: usize,
    is_paused: bool,
    /// The server may have sent its last byte: read until nothing is left.
    is_ending: bool,
}

/// The connections of one thread.
pub struct Crowd {
    target: Target,
    step: Duration,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    resumed: Vec<usize>,
    buffer: Box<[u8]>,
    /// The last look filled its list.
    has_more: bool,
}

const READ_BYTES: usize = 65_536;
const EVENTS: usize = 1_024;
const OUTGOING_MAX: usize = 1 << 20;

impl Crowd {
    /// Nobody yet. `step` is how long the thread sleeps between two looks at its sockets.
    pub fn new(target: Target, step: Duration) -> io::Result<Self> {
        Ok(Self {
            target,
            step,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            clients: Vec::new(),
            resumed: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            has_more: false,
        })
    }

    /// Begins a connection with a new number.
    pub fn open(&mut self, kind: Kind, wishes: Vec<Subscription>) -> io::Result<usize> {
        let client = self.clients.len();
        let stream = self.connect(client)?;
        self.clients.push(Client::new(stream, kind, wishes));
        Ok(client)
    }

    /// Begins a connection in the place of one that is gone.
    pub fn reopen(
        &mut self,
        client: usize,
        kind: Kind,
        wishes: Vec<Subscription>,
    ) -> io::Result<()> {
        self.clients[client].stream = None;
        let stream = self.connect(client)?;
        self.clients[client] = Client::new(stream, kind, wishes);
        Ok(())
    }

    fn connect(&self, client: usize) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.target.address)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(client), interest)?;
        Ok(stream)
    }

    pub fn is_open(&self, client: usize) -> bool {
        self.clients[client].stream.is_some()
    }

    /// Sends bytes as they are; what the socket does not take now follows when it can.
    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].send(bytes);
    }

    /// Sends an event.
    pub fn send_text(&mut self, client: usize, text: &str) {
        self.clients[client].send(&wire::masked_text(text.as_bytes()));
    }

    pub fn subscribe(&mut self, client: usize, wish: &Subscription) {
        let target = &self.target;
        self.clients[client].subscribe(target, wish);
    }

    pub fn unsubscribe(&mut self, client: usize, channel: &str) {
        let text = format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{channel}"}}}}"#);
        self.send_text(client, &text);
    }

    /// Asks the server to close, as a client that says goodbye does.
    pub fn say_goodbye(&mut self, client: usize) {
        const NORMAL: [u8; 2] = 1_000_u16.to_be_bytes();
        self.clients[client].send(&wire::masked_control(wire::CLOSE, &NORMAL));
    }

    /// Drops the connection as a client that lost its network does: the server gets a reset.
    pub fn reset(&mut self, client: usize) {
        if let Some(stream) = self.clients[client].stream.take() {
            // Without it the server gets an orderly end instead, which is no reason to stop.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Stops reading, with a receive window so small that the server notices.
    pub fn pause(&mut self, client: usize) {
        const SMALL_BYTES: usize = 4_096;
        let client = &mut self.clients[client];
        client.is_paused = true;
        if let Some(stream) = &client.stream {
            // A larger window only makes the server notice later.
            let _ = SockRef::from(stream).set_recv_buffer_size(SMALL_BYTES);
        }
    }

    /// Reads again, beginning with the next turn.
    pub fn resume(&mut self, client: usize) {
        const LARGE_BYTES: usize = 4 << 20;
        let paused = &mut self.clients[client];
        if mem::take(&mut paused.is_paused) {
            if let Some(stream) = &paused.stream {
                // With the small one, what waits on the server's side would come in drops.
                let _ = SockRef::from(stream).set_recv_buffer_size(LARGE_BYTES);
            }
            self.resumed.push(client);
        }
    }

    /// Sleeps a step, less if `until` is near, then hands over what has come.
    ///
    /// Clients never wait in epoll: over loopback the sender would pay for waking them, which no
    /// server pays for a client behind a network (2 to 3 us per message on a virtual machine).
    pub fn turn(
        &mut self,
        until: Instant,
        hear: &mut dyn FnMut(Instant, usize, Heard<'_>),
    ) -> io::Result<()> {
        if !self.has_more {
            // A quarter at least, so that a fast pace does not cost a system call per operation.
            let pause = until.saturating_duration_since(Instant::now());
            thread::sleep(pause.clamp(self.step / 4, self.step));
        }
        while let Err(error) = self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            if error.kind() != ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let mut seen = 0;
        for event in &self.events {
            seen += 1;
            let number = event.token().0;
            let client = &mut self.clients[number];
            let mut hear = |now, heard: Heard<'_>| hear(now, number, heard);
            client.is_ending |= event.is_read_closed();
            client.advance(&self.target, &mut self.buffer, &mut hear);
        }
        self.has_more = seen == EVENTS;
        for number in mem::take(&mut self.resumed) {
            let client = &mut self.clients[number];
            let mut hear = |now, heard: Heard<'_>| hear(now, number, heard);
            client.is_ending = true; // Whether it is, its missed events may have said.
            client.advance(&self.target, &mut self.buffer, &mut hear);
        }
        Ok(())
    }

    pub fn address(&self) -> SocketAddr {
        self.target.address
    }
}

type Hear<'a> = dyn FnMut(Instant, Heard<'_>) + 'a;

impl Client {
    fn new(stream: TcpStream, kind: Kind, wishes: Vec<Subscription>) -> Self {
        Self {
            stream: Some(stream),
            stage: Stage::Connecting(kind),
            unfinished: Vec::new(),
            outgoing: Vec::new(),
            socket_id: String::new(),
            wishes,
            awaited: 0,
            is_paused: false,
            is_ending: false,
        }
    }

    /// Does what the socket is ready for; ends the connection if that is over.
    fn advance(&mut self, target: &Target, buffer: &mut [u8], hear: &mut Hear<'_>) {
        let advanced = self
            .connect(target, hear)
            .and_then(|()| self.flush())
            .and_then(|()| self.read(target, buffer, hear));
        if let Err(reason) = advanced {
            self.stream = None;
            hear(Instant::now(), Heard::Ended(&reason));
        }
    }

    /// Begins the conversation once TCP is there.
    fn connect(&mut self, target: &Target, hear: &mut Hear<'_>) -> Result<(), String> {
        let (Stage::Connecting(kind), Some(stream)) = (self.stage, &self.stream) else {
            return Ok(());
        };
        if let Some(error) = stream.take_error().map_err(|error| words(&error))? {
            return Err(words(&error));
        }
        if stream.peer_addr().is_err() {
            return Ok(()); // An early event: not connected yet.
        }
        hear(Instant::now(), Heard::Connected);
        match kind {
            Kind::Http => self.stage = Stage::Http,
            Kind::WebSocket => {
                self.stage = Stage::Upgrading;
                self.send(wire::upgrade(&target.authority, &target.app.key).as_bytes());
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.outgoing.len() + bytes.len() > OUTGOING_MAX {
            self.outgoing.truncate(OUTGOING_MAX + 1); // The next flush ends the connection.
            self.outgoing.resize(OUTGOING_MAX + 1, 0);
            return;
        }
        self.outgoing.extend_from_slice(bytes);
        // An error comes back with the next event of the socket.
        let _ = self.flush();
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        if matches!(self.stage, Stage::Connecting(_)) {
            return Ok(());
        }
        if self.outgoing.len() > OUTGOING_MAX {
            return Err(format!("the server left {OUTGOING_MAX} bytes unread"));
        }
        while !self.outgoing.is_empty() {
            match stream.write(&self.outgoing) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(words(&error)),
            }
        }
        Ok(())
    }

    // Per message: one recv, no allocation, no copy unless a unit is cut in two.
    fn read(
        &mut self,
        target: &Target,
        buffer: &mut [u8],
        hear: &mut Hear<'_>,
    ) -> Result<(), String> {
        while let Some(stream) = &mut self.stream
            && !self.is_paused
        {
            match stream.read(buffer) {
                Ok(0) => return Err("the server ended the connection".to_owned()),
                Ok(count) => {
                    let now = Instant::now();
                    self.digest(target, &buffer[..count], now, hear)?;
                    // A short read empties the socket: a later byte is a new edge. An end that
                    // came with these bytes is none.
                    if count < buffer.len() && !self.is_ending {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(words(&error)),
            }
        }
        Ok(())
    }

    /// Takes the complete units and keeps the rest.
    fn digest(
        &mut self,
        target: &Target,
        bytes: &[u8],
        now: Instant,
        hear: &mut Hear<'_>,
    ) -> Result<(), String> {
        if self.unfinished.is_empty() {
            let used = self.take_units(target, bytes, now, hear)?;
            self.unfinished.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut input = mem::take(&mut self.unfinished);
        input.extend_from_slice(bytes);
        let used = self.take_units(target, &input, now, hear)?;
        input.drain(..used);
        self.unfinished = input;
        Ok(())
    }

    /// The bytes of the complete units that were taken.
    fn take_units(
        &mut self,
        target: &Target,
        bytes: &[u8],
        now: Instant,
        hear: &mut Hear<'_>,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let unit = match self.stage {
                Stage::Upgrading | Stage::Http => wire::answer(rest),
                Stage::Greeting | Stage::Open => wire::frame(rest),
                Stage::Connecting(_) => None,
            };
            let Some(unit) = unit else {
                return Ok(used);
            };
            used += unit.len;
            match self.stage {
                Stage::Upgrading if unit.code == 101 => self.stage = Stage::Greeting,
                Stage::Upgrading => {
                    let (code, body) = (unit.code, shortened(unit.payload));
                    return Err(format!("status {code} instead of an upgrade: {body}"));
                }
                Stage::Http => hear(
                    now,
                    Heard::Answer {
                        status: unit.code,
                        body: unit.payload,
                    },
                ),
                Stage::Connecting(_) | Stage::Greeting | Stage::Open => {
                    self.take_frame(target, &unit, now, hear)?;
                }
            }
        }
    }

    fn take_frame(
        &mut self,
        target: &Target,
        frame: &Unit<'_>,
        now: Instant,
        hear: &mut Hear<'_>,
    ) -> Result<(), String> {
        let payload = frame.payload;
        match u8::try_from(frame.code).unwrap_or_default() {
            wire::CLOSE => return Err(closing(payload)),
            wire::PING => self.send(&wire::masked_control(wire::PONG, payload)),
            wire::PONG => {}
            _ => match wire::event_name(payload) {
                b"pusher:connection_established" => {
                    self.greet(payload)?;
                    hear(now, Heard::Established);
                    for wish in mem::take(&mut self.wishes) {
                        self.subscribe(target, &wish);
                    }
                    if self.awaited == 0 {
                        hear(now, Heard::Subscribed);
                    }
                }
                b"pusher_internal:subscription_succeeded" => {
                    self.awaited = self.awaited.saturating_sub(1);
                    if self.awaited == 0 {
                        hear(now, Heard::Subscribed);
                    }
                }
                b"pusher:ping" => self.send(&wire::masked_text(PONG_EVENT)),
                b"pusher:error" | b"pusher:subscription_error" => {
                    hear(now, Heard::Refused(payload))
                }
                name => hear(now, Heard::Event { name, payload }),
            },
        }
        Ok(())
    }

    fn greet(&mut self, payload: &[u8]) -> Result<(), String> {
        let socket_id = wire::socket_id(payload);
        self.socket_id = socket_id
            .ok_or_else(|| format!("a greeting without a socket id: {}", shortened(payload)))?;
        self.stage = Stage::Open;
        Ok(())
    }

    fn subscribe(&mut self, target: &Target, wish: &Subscription) {
        let (channel, id) = (&*wish.channel, &*self.socket_id);
        let mut proof = String::new();
        if let Some(user) = &wish.user {
            let channel_data = format!(r#"{{"user_id":"{user}"}}"#);
            let auth = target.member_auth(id, channel, &channel_data);
            let quoted = channel_data.replace('"', "\\\"");
            proof = format!(r#","auth":"{auth}","channel_data":"{quoted}""#);
        } else if channel.starts_with("private-") {
            proof = format!(r#","auth":"{}""#, target.channel_auth(id, channel));
        }
        let text =
            format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{proof}}}}}"#);
        self.awaited += 1;
        self.send(&wire::masked_text(text.as_bytes()));
    }
}

const PONG_EVENT: &[u8] = br#"{"event":"pusher:pong","data":{}}"#;

/// A close frame's code and reason.
fn closing(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("closed with {code}: {}", shortened(reason))
        }
        _ => "closed without a code".to_owned(),
    }
}

fn words(error: &io::Error) -> String {
    // The library adds the number, which says nothing more.
    let text = error.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    text[..cut].to_lowercase()
}
