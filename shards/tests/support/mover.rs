//! An application whose connections can move to another node, and the steps of such a move.
//!
//! Owns: `Mover`, `Parcel`, `Moves`.
//! May depend on: shards, std.
//! Invariants: what a connection does is told by the first byte that came over it; nothing of a
//! connection is known beside its `Parcel`.

#![allow(dead_code, reason = "each test file uses a part of it")]

use crate::support::pattern;
use shards::{
    Application, BridgeLink, Carried, Closed, FramesAs, Freeze, Peer, Queued, ShardId, SharedFrame,
    Slot, TurnOf,
};
use std::{
    collections::HashMap,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Bytes of the answer to `b`, without what follows when they have drained.
pub(crate) const BLAST_BYTES: usize = 8_000_000;
/// Bound of an outbox on nodes of movers.
pub(crate) const OUTBOX_BYTES_MAX: u32 = 9_000_000;
pub(crate) const DRAINED: &[u8] = b"drained";
pub(crate) const LATER: &[u8] = b"later";
/// Bytes of a message that `h` collects before it answers.
pub(crate) const MESSAGE_BYTES: usize = 100;
/// After so many milliseconds `t` answers.
pub(crate) const TIMER_MS: u64 = 700;

/// What a test may learn of a node.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) accepted: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) ticks: AtomicU64,
}

/// A connection on its way.
pub(crate) struct Parcel {
    socket: OwnedFd,
    pub(crate) carried: Carried,
    known: Known,
    /// Those of its shard that several connections wait for.
    pub(crate) frames: Arc<[SharedFrame]>,
}

/// What each of the `s` gets of a fan-out: shared frames, and bytes of its own between them.
pub(crate) const FAN_OUT_FRAMES: usize = 1_000;
/// So many shared frames lie between two own ones.
pub(crate) const OWN_EVERY: usize = 50;

/// The shared frame of this number.
pub(crate) fn fanned_out(number: usize) -> Vec<u8> {
    (number as u64).to_le_bytes().repeat(1_000)
}

/// The own bytes behind the shared frame of this number, for who has said `name`.
pub(crate) fn own_behind(number: usize, name: &[u8]) -> Vec<u8> {
    [name, number.to_string().as_bytes(), b";"].concat()
}

impl Parcel {
    pub(crate) fn awaits_drained(&self) -> bool {
        self.carried.awaits_drained
    }

    /// Whether part of a frame, or of a record, is with the kernel and part of it is not.
    pub(crate) fn is_half_sent(&self) -> bool {
        let first = self.carried.unsent.first();
        let is_record = self
            .carried
            .tls
            .as_ref()
            .is_some_and(|tls| !tls.unsent.is_empty());
        is_record || first.is_some_and(|first| first.bytes.len() % 8_000 != 0 || first.sent > 0)
    }

    /// What it said first.
    pub(crate) fn name(&self) -> &[u8] {
        &self.known.part
    }
}

/// What `Mover` knows of a connection.
#[derive(Clone, Default)]
struct Known {
    kind: Option<u8>,
    part: Vec<u8>,
}

pub(crate) enum Ask {
    /// Pack up all connections.
    Export,
    Adopt(Vec<Parcel>),
    /// Who paused reads again, who is late answers.
    Resume,
    /// Send shared frames to all `s`.
    FanOut,
    /// Drop so many bytes of shared frames of each `s`; the bytes that wait then are told.
    Drop(usize),
    /// Never settles from now on, or may again.
    Restless(bool),
    /// Answer.
    Ping,
}

pub(crate) enum Told {
    Parcels(Vec<Parcel>),
    Adopted(usize),
    Waiting(Vec<(Vec<u8>, usize)>),
    Pong,
}

/// A connection's bytes on the way over another shard and back.
pub(crate) struct Detour {
    slot: Slot,
    bytes: Vec<u8>,
    is_back: bool,
}

pub(crate) struct Mover {
    shard: ShardId,
    seen: Arc<Seen>,
    known: HashMap<Slot, Known>,
    /// Answers of other shards that are awaited.
    awaited: u64,
    is_restless: bool,
}

impl Mover {
    pub(crate) fn new(shard: ShardId, seen: Arc<Seen>) -> Self {
        Self {
            shard,
            seen,
            known: HashMap::new(),
            awaited: 0,
            is_restless: false,
        }
    }

    fn handle<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &[u8]) {
        let known = self.known.get_mut(&slot).expect("it is open");
        match *known.kind.get_or_insert(bytes[0]) {
            b'e' => turn.send(slot, bytes),
            b'm' if turn.shards() > 1 => {
                self.awaited += 1;
                let next = ShardId((self.shard.0 + 1) % turn.shards());
                let bytes = bytes.to_vec();
                let is_back = false;
                turn.post(
                    next,
                    Detour {
                        slot,
                        bytes,
                        is_back,
                    },
                );
            }
            b'm' => turn.send(slot, bytes),
            b'b' => {
                let all = pattern(BLAST_BYTES);
                for (number, chunk) in all.chunks(8_000).enumerate() {
                    if number % 4 != 3 {
                        turn.send(slot, chunk);
                    } else {
                        let frame = turn.add_frame(chunk.into());
                        let queued = turn.send_frame(slot, frame);
                        assert_eq!(queued, Queued::Accepted);
                    }
                }
                turn.await_drained(slot);
            }
            b'h' => {
                known.part.extend_from_slice(bytes);
                while known.part.len() >= MESSAGE_BYTES {
                    let message: Vec<u8> = known.part.drain(..MESSAGE_BYTES).collect();
                    turn.send(slot, &message);
                }
            }
            b'p' => {
                turn.pause_reading(slot);
                turn.send(slot, bytes);
            }
            b't' => turn.arm_timer(slot, turn.now().plus(TIMER_MS)),
            b's' => known.part.extend_from_slice(bytes),
            b'l' => {}
            other => panic!("no such kind: {other}"),
        }
    }

    fn export<T: TurnOf<Self>>(&self, turn: &mut T) -> Vec<Parcel> {
        assert!(turn.is_frozen());
        let (mut parcels, mut frames, mut from) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = turn.carry_frames(from, &mut frames) {
            from = next;
        }
        let frames: Arc<[SharedFrame]> = frames.into();
        for (&slot, known) in &self.known {
            let Some((socket, carried)) = turn.carry(slot, FramesAs::Numbers) else {
                continue;
            };
            // SAFETY: the shard is still, and nothing ended the connection since `carry`.
            let socket = unsafe { BorrowedFd::borrow_raw(socket) };
            let carried = written_and_read(carried);
            parcels.push(Parcel {
                socket: socket.try_clone_to_owned().expect("a descriptor"),
                carried,
                known: known.clone(),
                frames: Arc::clone(&frames),
            });
        }
        parcels
    }

    fn fan_out<T: TurnOf<Self>>(&self, turn: &mut T) {
        for number in 0..FAN_OUT_FRAMES {
            let frame = turn.add_frame(fanned_out(number).into());
            for (slot, name) in self.listeners() {
                assert_eq!(turn.send_frame(slot, frame), Queued::Accepted);
                if number % OWN_EVERY == 0 {
                    turn.send(slot, &own_behind(number, name));
                }
            }
        }
    }

    fn listeners(&self) -> impl Iterator<Item = (Slot, &[u8])> {
        let all = self.known.iter();
        let listeners = all.filter(|(_, known)| known.kind == Some(b's'));
        listeners.map(|(slot, known)| (*slot, known.part.as_slice()))
    }

    fn resume<T: TurnOf<Self>>(&self, turn: &mut T) {
        for (&slot, known) in &self.known {
            match known.kind {
                Some(b'p') => turn.resume_reading(slot),
                Some(b'l') => {
                    turn.send(slot, LATER);
                    turn.close_after_flush(slot);
                }
                _ => {}
            }
        }
    }
}

/// As it goes from process to process; long ones are spared the form that is read by people.
fn written_and_read(carried: Carried) -> Carried {
    let bytes: usize = carried.unsent.iter().map(|frame| frame.bytes.len()).sum();
    if bytes > 4_000 {
        return carried;
    }
    let text = serde_json::to_string(&carried).expect("it can be written");
    let read = serde_json::from_str(&text).expect("and read");
    assert_eq!(carried, read);
    read
}

impl Application for Mover {
    type Message = Detour;
    type ToBridge = Told;
    type FromBridge = Ask;

    fn on_started<T: TurnOf<Self>>(&mut self, turn: &mut T) {
        turn.keep_ticking(true);
    }

    fn on_accepted<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, _: Peer) {
        turn.begin_tls(slot, &[]);
        self.seen.accepted.fetch_add(1, SeqCst);
        assert!(self.known.insert(slot, Known::default()).is_none());
    }

    fn on_received<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &mut [u8]) {
        self.seen.received.fetch_add(bytes.len() as u64, SeqCst);
        self.handle(turn, slot, bytes);
    }

    fn on_peer_ended<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        if self.known[&slot].kind != Some(b'l') {
            turn.close_after_flush(slot);
        }
    }

    fn on_drained<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        turn.send(slot, DRAINED);
    }

    fn on_closed<T: TurnOf<Self>>(&mut self, _: &mut T, slot: Slot, _: Closed) {
        assert!(self.known.remove(&slot).is_some());
        self.seen.closed.fetch_add(1, SeqCst);
    }

    fn on_message<T: TurnOf<Self>>(&mut self, turn: &mut T, from: ShardId, detour: Detour) {
        self.seen.messages.fetch_add(1, SeqCst);
        if detour.is_back {
            self.awaited -= 1;
            turn.send(detour.slot, &detour.bytes);
        } else {
            let is_back = true;
            turn.post(from, Detour { is_back, ..detour });
        }
    }

    fn on_bridge_message<T: TurnOf<Self>>(&mut self, turn: &mut T, ask: Ask) {
        let told = match ask {
            Ask::Export => Told::Parcels(self.export(turn)),
            Ask::Adopt(parcels) => {
                let mut count = 0;
                for parcel in parcels {
                    turn.adopt_frames(&parcel.frames);
                    if let Some(slot) = turn.adopt(parcel.socket, parcel.carried) {
                        count += 1;
                        assert!(self.known.insert(slot, parcel.known).is_none());
                    }
                }
                turn.forget_frames();
                Told::Adopted(count)
            }
            Ask::FanOut => {
                self.fan_out(turn);
                Told::Pong
            }
            Ask::Drop(bytes) => {
                let told = self.listeners().map(|(slot, name)| {
                    let wanted = turn.outbox_bytes(slot);
                    let room = (OUTBOX_BYTES_MAX as usize).saturating_sub(wanted);
                    turn.drop_oldest(slot, room + bytes);
                    (name.to_vec(), turn.outbox_bytes(slot))
                });
                Told::Waiting(told.collect())
            }
            Ask::Resume => return self.resume(turn),
            Ask::Restless(on) => {
                self.is_restless = on;
                Told::Pong
            }
            Ask::Ping => Told::Pong,
        };
        assert!(turn.to_bridge(told).is_ok(), "there is room");
    }

    fn on_timer<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        assert!(!turn.is_frozen());
        turn.send(slot, b"!");
    }

    fn on_tick<T: TurnOf<Self>>(&mut self, turn: &mut T) {
        assert!(!turn.is_frozen());
        self.seen.ticks.fetch_add(1, SeqCst);
    }

    fn on_turn_end<T: TurnOf<Self>>(&mut self, _: &mut T) -> bool {
        false
    }

    fn is_settled(&self) -> bool {
        self.awaited == 0 && !self.is_restless
    }
}

/// What a test does with a node of movers.
pub(crate) trait Moves {
    /// Freezes the node, and comes back when it is still.
    fn come_to_rest(&self) -> impl Future<Output = ()>;
    /// Asks every shard, and gives back what they say.
    fn ask_all(&mut self, ask: impl FnMut() -> Ask) -> impl Future<Output = Vec<Told>>;
    fn export(&mut self) -> impl Future<Output = Vec<Parcel>>;
    /// Deals parcels to the shards.
    fn adopt(&mut self, parcels: Vec<Parcel>) -> impl Future<Output = usize>;
}

impl Moves for BridgeLink<Mover> {
    async fn come_to_rest(&self) {
        self.freeze();
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.freeze_step() != Freeze::Still {
            assert!(Instant::now() < deadline, "it does not settle");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn ask_all(&mut self, mut ask: impl FnMut() -> Ask) -> Vec<Told> {
        for shard in 0..self.shards() {
            assert!(self.send(ShardId(shard), ask()).is_ok(), "there is room");
        }
        answers(self).await
    }

    async fn export(&mut self) -> Vec<Parcel> {
        let told = self.ask_all(|| Ask::Export).await;
        let parcels = told.into_iter().flat_map(|told| match told {
            Told::Parcels(parcels) => parcels,
            Told::Adopted(_) | Told::Waiting(_) | Told::Pong => {
                panic!("not what was asked for")
            }
        });
        parcels.collect()
    }

    async fn adopt(&mut self, parcels: Vec<Parcel>) -> usize {
        let shards = usize::from(self.shards());
        let mut dealt: Vec<Vec<Parcel>> = (0..shards).map(|_| Vec::new()).collect();
        for (number, parcel) in parcels.into_iter().enumerate() {
            dealt[number % shards].push(parcel);
        }
        let mut dealt = dealt.into_iter();
        let told = self.ask_all(|| Ask::Adopt(dealt.next().expect("one each")));
        let counts = told.await.into_iter().map(|told| match told {
            Told::Adopted(count) => count,
            Told::Parcels(_) | Told::Waiting(_) | Told::Pong => {
                panic!("not what was asked for")
            }
        });
        counts.sum()
    }
}

async fn answers(link: &mut BridgeLink<Mover>) -> Vec<Told> {
    let shards = usize::from(link.shards());
    let mut told = Vec::new();
    let all = async {
        while told.len() < shards {
            link.receive(&mut told).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), all).await;
    in_time.expect("every shard answers");
    told.into_iter().map(|(_, told)| told).collect()
}
