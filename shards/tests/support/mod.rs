//! What the runtime's tests have in common: a scripted application and a way to run it.
//!
//! Owns: `Probe`, `Facts`, `serve`.
//! May depend on: shards, std, tokio.
//! Invariants: `Probe` checks on every call that the slot it is told of is open.

#![allow(dead_code, reason = "each test file uses a part of it")]

use shards::{
    Application, Closed, Config, Lane, Millis, Peer, Queued, RuntimeCounters, ShardId, Slot,
    TurnOf, run,
};
use std::{
    collections::HashMap,
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// What a test may learn of all shards.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) armed: AtomicU64,
    pub(crate) timers: AtomicU64,
    pub(crate) ticks: AtomicU64,
    pub(crate) early_timers: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) out_of_order: AtomicU64,
    /// Messages received out of how many hold.
    pub(crate) spilled_highest: AtomicU64,
    pub(crate) counters: Mutex<HashMap<u16, RuntimeCounters>>,
    pub(crate) ends: Mutex<Vec<Closed>>,
    /// Is told of moments on the shard's own thread, and may hold it there.
    pub(crate) watcher: OnceLock<Box<dyn Fn(Moment) + Send + Sync>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Bytes that begin with this one have come.
    Received(u8),
    TurnEnds,
}

impl Facts {
    fn watch(&self, moment: Moment) {
        if let Some(watcher) = self.watcher.get() {
            watcher(moment);
        }
    }
}

/// What a `Probe` does with the bytes that arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Sends them back.
    Echo,
    /// Answers the first byte with this many bytes of `pattern`, in frames of 8 000.
    Blast(usize),
    /// The same, then closes after the flush.
    BlastAndClose(usize),
    /// Queues shared frames of 1 000 bytes until the outbox is full, then says how many were
    /// taken and drops the oldest.
    Fill,
    /// Queues this many shared frames of 100 000 bytes at once, all of which must be taken.
    Burst(usize),
    /// Answers each chunk 300 ms later, also when the peer has ended its side by then.
    Later,
    /// Posts this many numbered messages to every other shard for each chunk.
    Relay(u32),
    /// Arms a timer with the delay that the chunk names in decimal milliseconds, and answers `!`
    /// when it fires.
    Timer,
    /// Answers with the shard's number.
    Who,
    /// Closes at once.
    CloseNow,
    /// Reads nothing for 300 ms after each chunk, and echoes.
    Pause,
}

pub(crate) struct Probe {
    pub(crate) shard: ShardId,
    pub(crate) mode: Mode,
    pub(crate) facts: Arc<Facts>,
    open: HashMap<Slot, Millis>,
    next_number: HashMap<u16, u64>,
    posted: u64,
}

impl Probe {
    pub(crate) fn new(shard: ShardId, mode: Mode, facts: Arc<Facts>) -> Self {
        Self {
            shard,
            mode,
            facts,
            open: HashMap::new(),
            next_number: HashMap::new(),
            posted: 0,
        }
    }

    fn blast<T: TurnOf<Self>>(turn: &mut T, slot: Slot, bytes: usize) {
        let all = pattern(bytes);
        for chunk in all.chunks(8_000) {
            turn.send(slot, chunk);
        }
    }

    fn fill<T: TurnOf<Self>>(&self, turn: &mut T, slot: Slot) {
        let frame = turn.add_frame(Arc::from(vec![b'x'; 1_000]));
        let mut taken = 0_u64;
        while turn.send_frame(slot, frame) == Queued::Accepted {
            taken += 1;
        }
        assert_eq!(turn.send_frame(slot, frame), Queued::Full);
        // What the kernel took counts for nobody: only what it refused waits.
        assert!((49_001..=50_000).contains(&turn.outbox_bytes(slot)));
        // Its own bytes still fit.
        turn.send(slot, b"own");
        let (frames, bytes) = turn.drop_oldest(slot, 2_500);
        assert_eq!(bytes, frames as usize * 1_000);
        assert_eq!(turn.send_frame(slot, frame), Queued::Accepted);
        self.facts.full.store(taken - u64::from(frames) + 1, SeqCst);
    }

    fn relay<T: TurnOf<Self>>(&mut self, turn: &mut T, count: u32) {
        for _ in 0..count {
            for to in (0..turn.shards())
                .map(ShardId)
                .filter(|&to| to != self.shard)
            {
                turn.post(to, self.posted);
            }
            self.posted += 1;
        }
        let spilled = turn
            .runtime_counters()
            .mesh_overflow_depths
            .iter()
            .sum::<u32>();
        self.facts
            .spilled_highest
            .fetch_max(u64::from(spilled), SeqCst);
    }

    fn arm<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &[u8]) {
        self.facts.armed.fetch_add(1, SeqCst);
        let delay: u64 = std::str::from_utf8(bytes)
            .expect("digits")
            .parse()
            .expect("a number");
        let at = turn.now().plus(delay);
        self.open.insert(slot, at);
        turn.arm_timer(slot, at);
    }
}

impl Application for Probe {
    type Message = u64;
    type ToBridge = Vec<u8>;
    type FromBridge = Vec<u8>;

    fn lane(message: &Vec<u8>) -> Lane {
        if message.starts_with(b"event") {
            let bytes = message.len();
            return Lane::Event { source: 1, bytes };
        }
        Lane::Control
    }

    fn on_started<T: TurnOf<Self>>(&mut self, turn: &mut T) {
        assert_eq!(turn.shard(), self.shard);
    }

    fn on_accepted<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, peer: Peer) {
        turn.begin_tls(slot, &[]);
        self.facts.accepted.fetch_add(1, SeqCst);
        assert!(self.open.insert(slot, Millis(0)).is_none());
        assert!(match peer {
            Peer::Address(peer) => peer.ip().is_loopback(),
            Peer::Gone => true,
            Peer::Local => false,
        });
    }

    fn on_received<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &mut [u8]) {
        assert!(self.open.contains_key(&slot));
        self.facts.watch(Moment::Received(bytes[0]));
        match self.mode {
            Mode::Echo => turn.send(slot, bytes),
            Mode::Blast(count) => Self::blast(turn, slot, count),
            Mode::BlastAndClose(count) => {
                Self::blast(turn, slot, count);
                turn.close_after_flush(slot);
                turn.send(slot, b"late");
            }
            Mode::Fill => self.fill(turn, slot),
            Mode::Burst(count) => {
                let frame = turn.add_frame(pattern(100_000).into());
                for _ in 0..count {
                    assert_eq!(turn.send_frame(slot, frame), Queued::Accepted);
                }
            }
            Mode::Later => turn.arm_timer(slot, turn.now().plus(300)),
            Mode::Relay(count) => self.relay(turn, count),
            Mode::Timer => self.arm(turn, slot, bytes),
            Mode::Who => turn.send(slot, &[u8::try_from(self.shard.0).expect("few shards")]),
            Mode::CloseNow => {
                turn.close_now(slot);
                turn.close_now(slot);
                turn.close_after_flush(slot);
            }
            Mode::Pause => {
                turn.send(slot, bytes);
                turn.pause_reading(slot);
                turn.arm_timer(slot, turn.now().plus(300));
            }
        }
    }

    fn on_peer_ended<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        assert!(self.open.contains_key(&slot));
        if self.mode != Mode::Later {
            turn.close_after_flush(slot);
        }
    }

    fn on_closed<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, how: Closed) {
        assert!(
            self.open.remove(&slot).is_some(),
            "closed twice or never accepted"
        );
        turn.send(slot, b"x");
        self.facts.ends.lock().expect("unpoisoned").push(how);
        self.facts.closed.fetch_add(1, SeqCst);
    }

    fn on_message<T: TurnOf<Self>>(&mut self, _: &mut T, from: ShardId, number: u64) {
        let next = self.next_number.entry(from.0).or_default();
        if *next != number {
            self.facts.out_of_order.fetch_add(1, SeqCst);
        }
        *next = number + 1;
        self.facts.messages.fetch_add(1, SeqCst);
    }

    fn on_bridge_message<T: TurnOf<Self>>(&mut self, turn: &mut T, message: Vec<u8>) {
        match message.as_slice() {
            b"counters" => {
                let counters = turn.runtime_counters();
                self.facts
                    .counters
                    .lock()
                    .expect("unpoisoned")
                    .insert(self.shard.0, counters);
            }
            b"tick" => turn.keep_ticking(true),
            _ => turn.to_bridge(message).expect("room to the bridge"),
        }
    }

    fn on_timer<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        assert!(self.open.contains_key(&slot));
        if self.mode == Mode::Pause {
            turn.resume_reading(slot);
            return;
        }
        if self.mode == Mode::Later {
            turn.send(slot, b"later");
            turn.close_after_flush(slot);
            return;
        }
        if turn.now() < self.open[&slot] {
            self.facts.early_timers.fetch_add(1, SeqCst);
        }
        self.facts.timers.fetch_add(1, SeqCst);
        turn.send(slot, b"!");
    }

    fn on_tick<T: TurnOf<Self>>(&mut self, _: &mut T) {
        self.facts.ticks.fetch_add(1, SeqCst);
    }

    fn on_turn_end<T: TurnOf<Self>>(&mut self, _: &mut T) -> bool {
        self.facts.watch(Moment::TurnEnds);
        false
    }
}

/// A configuration for tests: unpinned, a free port of loopback.
pub(crate) fn config(shards: u16) -> Config {
    Config {
        shards: Some(shards),
        pin: false,
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        ..Config::default()
    }
}

/// Runs probes while `client` runs on a thread of its own; gives back its value.
pub(crate) fn serve<R: Send + 'static>(
    config: Config,
    mode: Mode,
    facts: &Arc<Facts>,
    client: impl FnOnce(SocketAddr) -> R + Send + 'static,
) -> R {
    let made = facts.clone();
    run(
        config,
        move |shard| Probe::new(shard, mode, made.clone()),
        |link| async move {
            let address = link.addresses()[0];
            tokio::task::spawn_blocking(move || client(address))
                .await
                .expect("the client is well")
        },
    )
    .expect("the runtime starts")
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the listener is there");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Bytes that no shift or loss leaves looking right.
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|n| (n * 7 + n / 251 + n / 65_521) as u8)
        .collect()
}

pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    all
}

/// Waits until `holds`, at most 20 s.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
