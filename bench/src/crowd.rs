//! Many non-blocking connections on one thread: WebSocket clients, and HTTP clients that stay connected.
//!
//! Owns: the numbers of connections; the thread's wait for readiness.
//! May depend on: mio, socket2, `conversation`, `line`, `sources`, `target`, `wire`.
//! Invariants: each ready socket is read until the kernel has no more; nothing is heard of a connection
//! after its end, nor after it was dropped from this side.

use std::{
    io::{self, ErrorKind},
    mem,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{conversation::Conversation, line::Line, sources::Sources, target::Target, wire};

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
        /// The server said that it closes now.
        is_last: bool,
    },
    /// The server closed it, with a reason in words.
    Ended(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    Http,
}

/// The connections of one thread.
pub struct Crowd {
    target: Target,
    sources: Sources,
    step: Duration,
    /// The least that it sleeps: what falls due meanwhile is sent together.
    step_min: Duration,
    poll: Poll,
    events: Events,
    clients: Vec<Conversation>,
    resumed: Vec<usize>,
    buffer: Box<[u8]>,
    /// The last look filled its list.
    has_more: bool,
}

const READ_BYTES: usize = 65_536;
const EVENTS: usize = 1_024;

impl Crowd {
    /// Nobody yet. `step` is how long the thread sleeps between two looks at its sockets.
    pub fn new(target: Target, step: Duration) -> io::Result<Self> {
        Ok(Self {
            target,
            sources: Sources::default(),
            step,
            // So that a fast pace does not cost a system call per operation.
            step_min: step / 4,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            clients: Vec::new(),
            resumed: Vec::new(),
            buffer: vec![0; READ_BYTES].into(),
            has_more: false,
        })
    }

    /// Always sleeps the whole step, so that what falls due in one is sent at once.
    pub fn sends_in_bursts(mut self) -> Self {
        self.step_min = self.step;
        self
    }

    /// Comes from an address of its own on loopback: with tens of thousands of connections from one, the
    /// kernel's search for a free port takes a new one milliseconds. Elsewhere it changes nothing.
    pub fn from_elsewhere(self) -> Self {
        const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
        match self.target.address {
            SocketAddr::V4(address) if address.ip().is_loopback() => {
                self.from(Sources::one(ELSEWHERE))
            }
            _ => self,
        }
    }

    /// Connections come from these addresses, by their numbers.
    pub fn from(mut self, sources: Sources) -> Self {
        self.sources = sources;
        self
    }

    /// From now on connections go elsewhere, to a server with the same apps.
    pub fn turns_to(&mut self, target: &Target) {
        self.target = target.clone();
    }

    /// Begins a connection with a new number.
    pub fn open(&mut self, kind: Kind, wishes: Vec<Subscription>) -> io::Result<usize> {
        let client = self.clients.len();
        let stream = self.connect(client)?;
        self.clients.push(Conversation::new(stream, kind, wishes));
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
        self.clients[client] = Conversation::new(stream, kind, wishes);
        Ok(())
    }

    fn connect(&self, client: usize) -> io::Result<Line> {
        let mut stream = match self.sources.of(client) {
            None => TcpStream::connect(self.target.address)?,
            Some(source) => connect_from(source, self.target.address)?,
        };
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(client), interest)?;
        Ok(Line::new(stream, self.target.tls.as_ref()))
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

    /// Whether its TLS went on with an earlier session.
    pub fn has_resumed(&self, client: usize) -> bool {
        let stream = self.clients[client].stream.as_ref();
        stream.is_some_and(Line::has_resumed)
    }

    /// Drops the connection as a client that lost its network does: the server gets a reset.
    pub fn reset(&mut self, client: usize) {
        if let Some(stream) = self.clients[client].stream.take() {
            // Without it the server gets an orderly end instead, which is no reason to stop.
            let _ = SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO));
        }
    }

    /// Stops reading, with a receive window so small that the server notices.
    pub fn pause(&mut self, client: usize) {
        const SMALL_BYTES: usize = 4_096;
        let client = &mut self.clients[client];
        client.is_paused = true;
        if let Some(stream) = &client.stream {
            // A larger window only makes the server notice later.
            let _ = SockRef::from(stream.tcp()).set_recv_buffer_size(SMALL_BYTES);
        }
    }

    /// Reads again, beginning with the next turn.
    pub fn resume(&mut self, client: usize) {
        const LARGE_BYTES: usize = 4 << 20;
        let paused = &mut self.clients[client];
        if mem::take(&mut paused.is_paused) {
            if let Some(stream) = &paused.stream {
                // With the small one, what waits on the server's side would come in drops.
                let _ = SockRef::from(stream.tcp()).set_recv_buffer_size(LARGE_BYTES);
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
            let pause = until.saturating_duration_since(Instant::now());
            thread::sleep(pause.clamp(self.step_min, self.step));
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
}

/// Begins a connection from one of this host's addresses.
fn connect_from(source: Ipv4Addr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    leave_the_port_to_connect(&socket);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// A port chosen by `bind` must be free of all targets, one chosen by `connect` of this one only, and the
/// search for it is shorter. Where the kernel refuses that, `bind` chooses.
fn leave_the_port_to_connect(socket: &Socket) {
    let on: libc::c_int = 1;
    let bytes = libc::socklen_t::try_from(size_of_val(&on)).expect("an int is short");
    // SAFETY: the descriptor is open, and the value is an int that outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            bytes,
        );
    }
}
