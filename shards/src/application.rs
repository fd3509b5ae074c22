//! The two traits between the runtime and what runs on it.
//!
//! Owns: `Application` (what a program supplies per shard) and `Turn` (what a shard offers it).
//! May depend on: `work`, `carried`, the plain types of `wire` and std only, so that a simulator can
//! implement `Turn` without a ring.
//! Invariants: every accepted slot gets exactly one `on_closed`, and no call names it afterwards;
//! messages of one pair of shards arrive in the order in which they were posted.

use crate::{
    carried::{Carried, FramesAs, SharedFrame},
    wire::{TlsCounters, TlsPort},
    work::Work,
};
use std::{
    fmt,
    net::SocketAddr,
    os::fd::{OwnedFd, RawFd},
    sync::Arc,
};

/// Number of a shard on this node, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Milliseconds of the node's monotonic clock since the process started.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    serde::Deserialize,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// This many milliseconds later.
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// In units of 16 ms, so that half the room does; wraps after two years.
    #[expect(clippy::cast_possible_truncation, reason = "it wraps")]
    pub(crate) const fn coarse(self) -> u32 {
        (self.0 >> 4) as u32
    }

    /// Milliseconds from `earlier` to this; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A connection on one shard. `generation` tells a reused index from its former owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Dense row number; an application may index its own tables with it.
    pub index: u32,
    /// Moves on each reuse of the index.
    pub generation: u32,
}

/// A connection that waits for an answer, wherever that comes from. `operation` is its own number
/// for what it waits for: it tells a late answer from the awaited one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter {
    /// Where the connection is, and so where the answer goes.
    pub shard: ShardId,
    /// The connection.
    pub slot: Slot,
    /// Its number for the question.
    pub operation: u32,
}

/// An immutable run of bytes known to one shard, alive at least until the end of the turn, and as
/// long as an outbox refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameId(pub u32);

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer ended its side (end of file).
    ByPeer,
    /// `Turn::close_now` or `Turn::close_after_flush` asked for it.
    ByUs,
    /// A receive or send failed (reset, broken pipe, timed out).
    ByError,
}

/// What became of bytes handed to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Queued {
    /// They will be sent, in order.
    Accepted,
    /// The peer is too slow: the kernel takes nothing, and the outbox is at its byte bound. Nothing
    /// was queued, nothing was dropped.
    Full,
    /// The slot is gone or closing: nothing was queued.
    Gone,
}

/// The queue to a shard is full: the message comes back to the bridge.
#[derive(Debug)]
pub struct BridgeFull<M>(pub M);

/// Messages that the bridge will not get: the one that was handed over, or older ones of the source
/// that holds the most.
#[derive(Debug)]
pub struct BridgeDropped<M>(pub Vec<M>);

/// What room there is for what is published, on its way to the bridge and behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PublishRoom {
    /// Enough for everybody.
    #[default]
    Free,
    /// What is left is for those who publish little.
    Scarce,
    /// What is on its way still has room.
    None,
}

/// How a message travels to the bridge. No lane is held up by what fills another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What the bridge asked for or waits for: overtakes the others.
    Control,
    /// What a client wants to know; refused when too many wait.
    Question {
        /// What it holds on the heap.
        bytes: usize,
    },
    /// What is so now of something; whoever says it can say it later, and then only what is so by
    /// then. Given back when too many wait.
    State {
        /// What it holds on the heap.
        bytes: usize,
    },
    /// One of many, about so many bytes on the heap, whose sender can be told that there is no room:
    /// given back then, and nothing that waits is touched. Keeps its order.
    Publish {
        /// What it holds on the heap.
        bytes: usize,
    },
    /// One of many, about so many bytes. Sources share the lane: each keeps its order, they take
    /// turns, and when there is no room the one that holds the most loses its oldest.
    Event {
        /// Who caused it.
        source: u32,
        /// What it holds on the heap.
        bytes: usize,
    },
    /// Behind all events posted before, and not dropped for them.
    AfterEvents,
}

/// Who a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client, or a proxy, over TCP.
    Address(SocketAddr),
    /// A process of this host, over the Unix socket.
    Local,
    /// It has ended already.
    Gone,
}

/// What runs on a shard. One value per shard; it is called by that shard's thread only.
pub trait Application: Sized + 'static {
    /// Travels between shards.
    type Message: Send + 'static;
    /// Travels from a shard to the bridge.
    type ToBridge: Send + 'static;
    /// Travels from the bridge to a shard.
    type FromBridge: Send + 'static;

    /// The lane that a message takes to the bridge.
    fn lane(message: &Self::ToBridge) -> Lane {
        let _ = message;
        Lane::Control
    }
    /// Called once, before the first connection.
    fn on_started<T: TurnOf<Self>>(&mut self, turn: &mut T);
    /// A connection was accepted. Reading has begun.
    fn on_accepted<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, peer: Peer);
    /// Bytes arrived. They may be changed in place and are gone after the call.
    fn on_received<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &mut [u8]);
    /// The peer ended its side and may still read. Whoever has nothing more to say ends the
    /// connection, now or later: nobody else does.
    fn on_peer_ended<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        turn.close_after_flush(slot);
    }
    /// Few answers wait in the outbox (see `Turn::await_drained`).
    fn on_drained<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot) {
        let _ = (turn, slot);
    }
    /// The connection ended; the slot may be reused after this call.
    fn on_closed<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, how: Closed);
    /// A message of another shard arrived.
    fn on_message<T: TurnOf<Self>>(&mut self, turn: &mut T, from: ShardId, message: Self::Message);
    /// A message of the bridge arrived.
    fn on_bridge_message<T: TurnOf<Self>>(&mut self, turn: &mut T, message: Self::FromBridge);
    /// The slot's one timer fell due (see `Turn::arm_timer`); it is disarmed before the call.
    fn on_timer<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot);
    /// Called about every 100 ms, also on an idle shard that asked for it with `Turn::keep_ticking`; not while it is
    /// frozen.
    fn on_tick<T: TurnOf<Self>>(&mut self, turn: &mut T);
    /// Last call of each turn before the outboxes are flushed. Returns true when work was left
    /// over, which keeps the shard from parking.
    fn on_turn_end<T: TurnOf<Self>>(&mut self, turn: &mut T) -> bool;
    /// Looked at after each turn of a shard that freezes: nothing that the application began goes on (no slices of a
    /// fan-out, no answers awaited of other shards …). It is waited for, up to a bound.
    fn is_settled(&self) -> bool {
        true
    }
}

/// A `Turn` whose messages are those of application `A`.
pub trait TurnOf<A: Application>: Turn<Message = A::Message, ToBridge = A::ToBridge> {}

impl<A: Application, T: Turn<Message = A::Message, ToBridge = A::ToBridge>> TurnOf<A> for T {}

/// What a shard offers the application during a turn. Nothing here blocks.
pub trait Turn {
    /// See `Application::Message`.
    type Message;
    /// See `Application::ToBridge`.
    type ToBridge;

    /// This shard.
    fn shard(&self) -> ShardId;
    /// Number of shards on this node.
    fn shards(&self) -> u16;
    /// The turn's time; read once per turn.
    fn now(&self) -> Millis;
    /// The turn's wall clock, milliseconds since the Unix epoch.
    fn unix_ms(&self) -> u64;

    /// The node's monotonic clock, microseconds, read now: for measuring, never for deciding.
    fn clock_us(&self) -> u64;

    /// Takes work off the turn's budget. The runtime takes off what it does itself: receives,
    /// sends, messages, timers, closes.
    fn spend(&mut self, work: Work);
    /// What may still be done in this turn. At 0 whoever loops leaves a cursor and goes on in the
    /// next turn, which follows at once when `on_turn_end` says so.
    fn work_left(&self) -> Work;

    /// Makes bytes known to this shard, once per turn and frame, for `send_frame`.
    fn add_frame(&mut self, bytes: Arc<[u8]>) -> FrameId;
    /// Queues a shared frame. An outbox at its bound is first offered to the kernel; `Full` means
    /// that the kernel has taken nothing for a second, or that what it left waiting is beyond
    /// the bound of a burst.
    fn send_frame(&mut self, slot: Slot, frame: FrameId) -> Queued;
    /// Queues bytes of this connection alone: an answer. It cannot be refused, it is sent or the
    /// connection ends; so whoever answers takes no more input from a connection that
    /// `is_congested`.
    fn send(&mut self, slot: Slot, bytes: &[u8]);
    /// True while answers of more than half of the outbox's bound wait, though they were offered to
    /// the kernel. Shared frames do not count: who is slow for those is still listened to.
    fn is_congested(&mut self, slot: Slot) -> bool;
    /// Asks for one `Application::drained`, which comes when the answers that wait are below a
    /// quarter of the outbox's bound.
    fn await_drained(&mut self, slot: Slot);
    /// Drops queued, not yet started frames, oldest first, until `bytes` fit; returns frames and
    /// bytes dropped. Frames queued with `send` are never dropped.
    fn drop_oldest(&mut self, slot: Slot, bytes: usize) -> (u32, usize);
    /// The connection speaks TLS from here on; these of its bytes have come already. False if the
    /// node has none: then they are what they seem. From now on the application sees what they hold.
    fn begin_tls(&mut self, slot: Slot, bytes: &[u8]) -> bool {
        let _ = (slot, bytes);
        false
    }
    /// New connections are offered this TLS from now on; the others keep theirs. Only where the node
    /// was started with some.
    fn offer_tls(&mut self, port: TlsPort) {
        let _ = port;
    }
    /// Bytes waiting in the outbox.
    fn outbox_bytes(&self, slot: Slot) -> usize;

    /// Refuses shared frames from now on, as `Gone`: the application has said its last to the
    /// connection, and may take it off its lists later.
    fn seal(&mut self, slot: Slot);
    /// Sends what is queued, then ends the connection. Bytes received from now on are discarded.
    fn close_after_flush(&mut self, slot: Slot);
    /// Ends the connection at once; what is queued is lost.
    fn close_now(&mut self, slot: Slot);
    /// Stops reading this connection, so that TCP holds its peer back. Bytes that the ring has
    /// received already still arrive (bounded by its buffers).
    fn pause_reading(&mut self, slot: Slot);
    /// Takes reading up again.
    fn resume_reading(&mut self, slot: Slot);

    /// Arms the slot's one timer, replacing its former time. Resolution: 100 ms, never early.
    fn arm_timer(&mut self, slot: Slot, at: Millis);
    /// Disarms the slot's timer.
    fn cancel_timer(&mut self, slot: Slot);
    /// While true, `Application::tick` comes every 100 ms even when nothing else happens.
    fn keep_ticking(&mut self, on: bool);

    /// Posts a message to another shard (not to this one: that is a plain call). Never fails:
    /// a full queue spills to a list and stops this shard's reading until it is empty.
    fn post(&mut self, to: ShardId, message: Self::Message);
    /// Hands a message to the bridge, in the lane that `Application::lane` says.
    ///
    /// # Errors
    /// Gives back what the lane had no room for: this message, or older ones.
    fn to_bridge(&mut self, message: Self::ToBridge) -> Result<(), BridgeDropped<Self::ToBridge>>;

    /// What room the bridge has behind it for what is published (`BridgeLink::set_publish_room`). Its
    /// lane may have room all the same: whoever would be answered as if it were taken asks here first.
    fn publish_room(&self) -> PublishRoom {
        PublishRoom::Free
    }

    /// True while what is handed to the bridge for others reaches nobody (`BridgeLink::set_cut_off`).
    fn is_cut_off(&self) -> bool {
        false
    }

    /// True while others may have told what the bridge has not heard yet (`BridgeLink::set_behind`).
    fn is_behind(&self) -> bool {
        false
    }

    /// This shard is frozen, or freezes: it reads and accepts nothing, and fires no timer.
    fn is_frozen(&self) -> bool {
        false
    }
    /// Of a shard that is still (see `Freeze::Still`): tells frames for which several outboxes of the node wait, some
    /// at a time, `from` being 0 first and then what was answered. `None`: those were the last.
    fn carry_frames(&mut self, from: u32, into: &mut Vec<SharedFrame>) -> Option<u32> {
        let _ = (from, into);
        None
    }
    /// Of an open connection of a shard that is still: its socket, and what another process
    /// needs beside to go on with it. The descriptor stays this process'; it is valid until the next
    /// thaw, as long as nothing ends the connection. `None`: it is not open, it is within its TLS
    /// handshake, or the shard is not still. Frames go as numbers only if all of `carry_frames` has been told
    /// since the shard became still.
    fn carry(&mut self, slot: Slot, frames: FramesAs) -> Option<(RawFd, Carried)> {
        let _ = (slot, frames);
        None
    }
    /// Keeps frames that another process told, for connections that refer to them, until `forget_frames`.
    fn adopt_frames(&mut self, frames: &[SharedFrame]) {
        let _ = frames;
    }
    /// No connection that was carried follows.
    fn forget_frames(&mut self) {}
    /// Takes over a connection that another process carried; `Application::on_accepted` is not called
    /// for it. While the node is frozen nothing of it is read or sent. `None`: what was carried cannot be
    /// gone on with (TLS that this node does not have, a frame that nobody told): the descriptor is closed.
    fn adopt(&mut self, connection: OwnedFd, carried: Carried) -> Option<Slot> {
        let _ = (connection, carried);
        None
    }

    /// The runtime's own counters of this shard.
    fn runtime_counters(&self) -> RuntimeCounters;
}

/// What the runtime counts on one shard. Plain numbers, read on the shard itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeCounters {
    /// Connections accepted by this shard's listener.
    pub accepted: u64,
    /// Accepted connections given to another shard.
    pub handed_over: u64,
    /// Accepts that failed for want of file descriptors or memory; the next try is 100 ms later.
    pub accept_failures: u64,
    /// Connections closed right after their accept, since the node has as many as it may.
    pub accepts_refused: u64,
    /// Turns that ended with their budget of work spent and work left over.
    pub turns_cut: u64,
    /// Outboxes at their bound that were offered to the kernel within a turn.
    pub outbox_presses: u64,
    /// Times that the kernel refused submissions for want of memory.
    pub submit_refusals: u64,
    /// Times that accepting rested for a second because of that.
    pub accept_rests: u64,
    /// Open connections.
    pub connections: u64,
    /// Bytes in all outboxes.
    pub outbox_bytes: u64,
    /// The fullest outbox now, bytes.
    pub outbox_bytes_highest: u64,
    /// Turns taken.
    pub turns: u64,
    /// Turns longer than 100 ms.
    pub turn_stalls: u64,
    /// Time spent in turns, nanoseconds; with `since_start_ns` it gives the busy ratio.
    pub busy_ns: u64,
    /// Time since the shard started, nanoseconds.
    pub since_start_ns: u64,
    /// Length of turns: counts per bucket of `TURN_BUCKETS_US`, the last one is above all.
    pub turn_us_buckets: [u64; 17],
    /// Sum of all turns' length, microseconds.
    pub turn_us_sum: u64,
    /// Sampled time from a message's sending to its handling: counts per bucket as for turns.
    pub mesh_hop_us_buckets: [u64; 17],
    /// Sum of the sampled times, microseconds.
    pub mesh_hop_us_sum: u64,
    /// The completion queue overflowed.
    pub ring_overflows: u64,
    /// Provided receive buffers not in use.
    pub recv_buffers_free: u64,
    /// A receive found no buffer.
    pub recv_buffers_exhausted: u64,
    /// Messages waiting to each peer shard.
    pub mesh_depths: Vec<u32>,
    /// Messages on the overflow list to each peer shard.
    pub mesh_overflow_depths: Vec<u32>,
    /// Time during which reading was stopped for the mesh, milliseconds.
    pub mesh_backpressure_ms: u64,
    /// Messages waiting to the bridge.
    pub to_bridge_depth: u32,
    /// Bytes of the events among them.
    pub to_bridge_bytes: u64,
    /// Messages waiting from the bridge.
    pub from_bridge_depth: u32,
    /// Messages to the bridge that were dropped or given back.
    pub to_bridge_full: u64,
    /// What TLS did.
    pub tls: TlsCounters,
}

/// Upper bounds of `RuntimeCounters::turn_us_buckets`, microseconds.
pub const TURN_BUCKETS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
