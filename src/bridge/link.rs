//! The bridge's end of the link to the shards, as the bridge uses it.
//!
//! Owns: `ShardLink`, and its implementation by the runtime's own link.
//! May depend on: `shards`, `bridge::message`.
//! Invariants: nothing here blocks; a full queue gives the message back.

use std::{future::Future, os::fd::OwnedFd, time::Instant};

use shards::{
    Freeze,
    application::{Application, BridgeFull, PublishRoom, ShardId},
};

use super::message::{FromBridge, ToBridge};

/// What the bridge asks of the runtime. The second implementation is the one of the tests.
pub trait ShardLink {
    /// Number of shards.
    fn shards(&self) -> u16;

    /// Start of the node's clock.
    fn started(&self) -> Instant;

    /// Queues a message to a shard, which is woken by `ring` at the latest.
    ///
    /// # Errors
    /// Gives the message back when the queue is full.
    fn send(&self, to: ShardId, message: FromBridge) -> Result<(), BridgeFull<FromBridge>>;

    /// Wakes the shards for which something is queued. To be called before the bridge waits.
    fn ring(&self);

    /// Waits for messages of shards. Nothing is lost when the future is dropped.
    fn receive(&mut self, into: &mut Vec<(ShardId, ToBridge)>) -> impl Future<Output = ()>;

    /// Tells shards at once what room the bus has for what they would publish.
    fn set_publish_room(&self, room: PublishRoom);

    /// Tells shards at once that the other nodes hear nothing of this one, or do again.
    fn set_cut_off(&self, is_cut_off: bool);

    /// Tells shards at once that this node may not have heard all that the others have told, or that it has.
    fn set_behind(&self, is_behind: bool);

    /// Whether this node listens nowhere yet, since another process did when it started.
    fn waits_to_accept(&self) -> bool;

    /// Listens, where that was left to another process so far.
    ///
    /// # Errors
    /// What the kernel says; the next call tries again.
    fn begin_accepting(&self) -> std::io::Result<()>;

    /// Closes all listeners; connections stay.
    fn stop_accepting(&self);

    /// Whether another process listens on each of our addresses too.
    fn is_succeeded(&self) -> bool;

    /// When the shard last turned, milliseconds of the node's clock.
    fn last_turn_ms(&self, shard: ShardId) -> u64;

    /// Begins to freeze all shards; `thaw` undoes it.
    fn freeze(&self);

    /// Moves the freezing on.
    fn freeze_step(&self) -> Freeze;

    /// Everything goes on, however far the freezing was; also after a frozen start.
    fn thaw(&self);

    /// Closes the copies of all that another process has, which goes on with it: nothing thaws any more.
    fn let_go(&self);

    /// Copies of the port's listening sockets.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    fn listening(&self) -> std::io::Result<Vec<OwnedFd>>;
}

impl<A> ShardLink for shards::bridge::BridgeLink<A>
where
    A: Application<ToBridge = ToBridge, FromBridge = FromBridge>,
{
    fn shards(&self) -> u16 {
        self.shards()
    }

    fn started(&self) -> Instant {
        self.started()
    }

    fn send(&self, to: ShardId, message: FromBridge) -> Result<(), BridgeFull<FromBridge>> {
        self.post(to, message)
    }

    fn ring(&self) {
        self.ring();
    }

    fn receive(&mut self, into: &mut Vec<(ShardId, ToBridge)>) -> impl Future<Output = ()> {
        self.receive(into)
    }

    fn set_publish_room(&self, room: PublishRoom) {
        self.set_publish_room(room);
    }

    fn set_cut_off(&self, is_cut_off: bool) {
        self.set_cut_off(is_cut_off);
    }

    fn set_behind(&self, is_behind: bool) {
        self.set_behind(is_behind);
    }

    fn waits_to_accept(&self) -> bool {
        self.waits_to_accept()
    }

    fn begin_accepting(&self) -> std::io::Result<()> {
        self.begin_accepting()
    }

    fn stop_accepting(&self) {
        self.stop_accepting();
    }

    fn is_succeeded(&self) -> bool {
        self.is_succeeded()
    }

    fn last_turn_ms(&self, shard: ShardId) -> u64 {
        self.last_turn_ms(shard)
    }

    fn freeze(&self) {
        self.freeze();
    }

    fn freeze_step(&self) -> Freeze {
        self.freeze_step()
    }

    fn thaw(&self) {
        self.thaw();
    }

    fn let_go(&self) {
        self.let_go();
    }

    fn listening(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.listening()
    }
}
