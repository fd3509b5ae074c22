//! The link between the shards and the one bridge thread.
//!
//! Owns: a shard's lanes to the bridge and its queue from it, and how either side is woken.
//! May depend on: crossbeam-channel, socket2, tokio's `Notify`, `doorbell`, `lanes`, `listener`, `settling`,
//! `application`.
//! Invariants: neither side ever waits for room; messages to one shard, and those of one lane (of
//! events: of one source) to the bridge, keep their order; a side that has news to fetch is awake
//! or about to look.

use crate::{
    application::{Application, BridgeDropped, BridgeFull, PublishRoom, ShardId},
    config::Config,
    doorbell::Doorbell,
    lanes::{LaneReceiver, LaneSender, lanes},
    listener::listen,
    neighbours::{Neighbour, Residence},
    settling::{Freeze, OrderCell, Record, Watch},
};
use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::Socket;
use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// What the starting thread tells the shards. Written rarely, read once per turn.
#[derive(Default)]
pub(crate) struct Orders {
    /// The listeners listen.
    pub(crate) accept: AtomicBool,
    pub(crate) stop_accepting: AtomicBool,
    pub(crate) stop: AtomicBool,
    pub(crate) frost: OrderCell,
}

/// A shard's end of the link.
pub(crate) struct ShardLink<A: Application> {
    pub(crate) lanes: LaneSender<A::ToBridge>,
    from_bridge: Receiver<A::FromBridge>,
    news: Arc<Notify>,
}

impl<A: Application> ShardLink<A> {
    pub(crate) fn post(&mut self, message: A::ToBridge) -> Result<(), BridgeDropped<A::ToBridge>> {
        self.lanes.post(A::lane(&message), message)
    }

    pub(crate) fn receive(&self) -> Option<A::FromBridge> {
        self.from_bridge.try_recv().ok()
    }

    pub(crate) fn has_incoming(&self) -> bool {
        !self.from_bridge.is_empty()
    }

    /// Sends what waited for room, and wakes the bridge if something was posted; once per turn.
    pub(crate) fn notify(&mut self) {
        self.lanes.send_spilled();
        if self.lanes.take_posted() {
            self.news.notify_one();
        }
    }

    /// Messages waiting: to the bridge, from the bridge.
    pub(crate) fn depths(&self) -> (u32, u32) {
        let shown = |depth| u32::try_from(depth).unwrap_or(u32::MAX);
        (shown(self.lanes.depth()), shown(self.from_bridge.len()))
    }
}

/// One shard, as the bridge sees it.
struct Peer<A: Application> {
    to_shard: Sender<A::FromBridge>,
    from_shard: LaneReceiver<A::ToBridge>,
    bell: Arc<Doorbell>,
    /// Last turn, milliseconds of the node's clock; written at most once per 100 ms.
    turned_at: Arc<AtomicU64>,
    record: Arc<Record>,
}

/// What a shard lets be seen of itself.
#[derive(Clone, Default)]
pub(crate) struct Pulse {
    pub(crate) turned_at: Arc<AtomicU64>,
    pub(crate) record: Arc<Record>,
}

/// What the bridge knows of the node when it starts.
pub(crate) struct Node {
    pub(crate) residence: Residence,
    /// Copies of the listeners, until they listen.
    pub(crate) waiting: RefCell<Vec<Socket>>,
    /// The TCP listeners.
    pub(crate) listeners: Vec<Weak<Socket>>,
    /// They listen, as far as they do not yet, when the node thaws.
    pub(crate) sleeps: Cell<bool>,
    pub(crate) backlog: u32,
    pub(crate) cores: Vec<Option<usize>>,
    pub(crate) bridge_core: Option<usize>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) started: Instant,
}

/// The bridge's end of the link.
pub struct BridgeLink<A: Application> {
    peers: Arc<[Peer<A>]>,
    /// By shard, messages posted since its bell was rung.
    posts: Box<[Cell<u32>]>,
    news: Arc<Notify>,
    node: Node,
    watch: RefCell<Watch>,
}

impl<A: Application> BridgeLink<A> {
    /// Number of shards.
    pub fn shards(&self) -> u16 {
        u16::try_from(self.peers.len()).expect("`start::run` counted them in 16 bits")
    }

    /// Addresses listened on, with the ports really taken, in the order of `Config::listen`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.node.residence.addresses
    }

    /// The core of each shard; `None` = not pinned.
    pub fn cores(&self) -> &[Option<usize>] {
        &self.node.cores
    }

    /// The bridge's core; `None` = not pinned.
    pub fn bridge_core(&self) -> Option<usize> {
        self.node.bridge_core
    }

    /// Start of the clock of which `Millis` tells the milliseconds.
    pub fn started(&self) -> Instant {
        self.node.started
    }

    /// Queues a message to a shard and wakes it if it is parked.
    ///
    /// # Errors
    /// Gives the message back when the queue is full.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn send(
        &self,
        to: ShardId,
        message: A::FromBridge,
    ) -> Result<(), BridgeFull<A::FromBridge>> {
        let peer = &self.peers[usize::from(to.0)];
        match peer.to_shard.try_send(message) {
            Ok(()) => {
                peer.bell.ring();
                Ok(())
            }
            Err(refused) => Err(BridgeFull(refused.into_inner())),
        }
    }

    /// Queues a message to a shard, which is woken by `ring`, or when `POSTS_PER_RING` wait.
    ///
    /// # Errors
    /// Gives the message back when the queue is full.
    ///
    /// # Panics
    /// When there is no such shard.
    // A shard that is woken for each of many messages parks in between: one bell for what came together.
    pub fn post(
        &self,
        to: ShardId,
        message: A::FromBridge,
    ) -> Result<(), BridgeFull<A::FromBridge>> {
        let peer = &self.peers[usize::from(to.0)];
        if let Err(refused) = peer.to_shard.try_send(message) {
            return Err(BridgeFull(refused.into_inner()));
        }
        let owed = &self.posts[usize::from(to.0)];
        owed.set(owed.get() + 1);
        if owed.get() == POSTS_PER_RING {
            owed.set(0);
            peer.bell.ring();
        }
        Ok(())
    }

    /// Wakes the shards for which something was posted. To be called before the bridge waits.
    pub fn ring(&self) {
        for (peer, owed) in self.peers.iter().zip(&self.posts) {
            if owed.take() > 0 {
                peer.bell.ring();
            }
        }
    }

    /// Waits until a shard has sent something, then takes what all have sent, of events a bounded
    /// part. Nothing is lost when the future is dropped before it is ready.
    pub async fn receive(&mut self, into: &mut Vec<(ShardId, A::ToBridge)>) {
        loop {
            let before = into.len();
            let mut is_more = false;
            for (shard, peer) in (0..).map(ShardId).zip(self.peers.iter()) {
                let taken = peer.from_shard.take(|message| into.push((shard, message)));
                if taken.ring {
                    peer.bell.ring();
                }
                is_more |= taken.has_more;
            }
            if is_more {
                self.news.notify_one();
            }
            if into.len() > before {
                return;
            }
            self.news.notified().await;
        }
    }

    /// Tells all shards, without a message, what room there is behind the bridge for what they would publish.
    /// What is on its way is at most what their lanes hold, and one publish more of each.
    pub fn set_publish_room(&self, room: PublishRoom) {
        self.peers
            .iter()
            .for_each(|peer| peer.from_shard.set_publish_room(room));
    }

    /// Tells all shards, without a message, that what they hand over for others reaches nobody, or does again.
    pub fn set_cut_off(&self, is_cut_off: bool) {
        self.peers
            .iter()
            .for_each(|peer| peer.from_shard.set_cut_off(is_cut_off));
    }

    /// Tells all shards, without a message, that others may have told what is not heard here yet, or that all of it is.
    pub fn set_behind(&self, is_behind: bool) {
        self.peers
            .iter()
            .for_each(|peer| peer.from_shard.set_behind(is_behind));
    }

    /// Whether this node listens nowhere yet, since another process did when it started.
    pub fn waits_to_accept(&self) -> bool {
        !self.node.waiting.borrow().is_empty()
    }

    /// Listens, where that was left to another process so far.
    ///
    /// # Errors
    /// What the kernel says; the next call tries again.
    pub fn begin_accepting(&self) -> io::Result<()> {
        let mut waiting = self.node.waiting.borrow_mut();
        for socket in &*waiting {
            listen(socket, self.node.backlog)?;
        }
        // A copy that stays would listen on when the shards have closed theirs.
        waiting.clear();
        self.node.orders.accept.store(true, Ordering::SeqCst);
        self.peers.iter().for_each(|peer| peer.bell.ring());
        Ok(())
    }

    /// Closes all listeners; connections stay. Takes effect with each shard's next turn.
    pub fn stop_accepting(&self) {
        self.node.waiting.borrow_mut().clear();
        self.node
            .orders
            .stop_accepting
            .store(true, Ordering::SeqCst);
        self.peers.iter().for_each(|peer| peer.bell.ring());
    }

    /// Begins to freeze all shards: they stop reading and accepting, fire no timers, and finish what was
    /// begun. Listeners go on listening, and peers wait in the kernel. Nothing of it is final: `thaw`
    /// undoes it.
    pub fn freeze(&self) {
        self.watch.borrow_mut().freeze(&self.node.orders.frost);
        self.peers.iter().for_each(|peer| peer.bell.ring());
    }

    /// Moves the freezing on; to be called every millisecond or so after `freeze` (before it, nothing
    /// settles), while messages of shards are received as ever. Once it says `Still` it does so until the
    /// next `thaw`. A node that does not settle is to be thawed: what goes on in it cannot be handed over.
    pub fn freeze_step(&self) -> Freeze {
        let peers = self.peers.iter();
        let has_posted = peers.clone().any(|peer| !peer.to_shard.is_empty());
        let records = peers.clone().map(|peer| &*peer.record);
        let orders = &self.node.orders.frost;
        let before = orders.get();
        let freeze = self.watch.borrow_mut().step(orders, records, has_posted);
        if orders.get() != before {
            peers.for_each(|peer| peer.bell.ring());
        }
        freeze
    }

    /// Ends a freezing, however far it is, or the frozen start: everything goes on. A node that started
    /// frozen listens from now on where it inherited no listeners.
    pub fn thaw(&self) {
        if self.node.sleeps.take() {
            let sockets = self.node.listeners.iter().filter_map(Weak::upgrade);
            for socket in sockets {
                if let Err(error) = listen(&socket, self.node.backlog) {
                    tracing::error!(%error, "a listener stays closed");
                }
            }
        }
        self.watch.borrow_mut().thaw(&self.node.orders.frost);
        self.peers.iter().for_each(|peer| peer.bell.ring());
    }

    /// Ends a freezing for good when another process has all that this node had: each shard closes its copies of
    /// the listeners and of the connections that could be carried, which live on there. Only a node that is still may
    /// do so, and it does not thaw any more.
    pub fn let_go(&self) {
        self.node.waiting.borrow_mut().clear();
        self.watch.borrow_mut().let_go(&self.node.orders.frost);
        self.peers.iter().for_each(|peer| peer.bell.ring());
    }

    /// Copies of the listening TCP sockets, for another process. Whoever keeps one listens on. None while this node
    /// listens nowhere.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn listening(&self) -> io::Result<Vec<OwnedFd>> {
        let sockets = self.node.listeners.iter().filter_map(Weak::upgrade);
        let listening = sockets.filter(|socket| socket.is_listener().unwrap_or(false));
        let copies = listening.map(|socket| socket.try_clone().map(OwnedFd::from));
        copies.collect()
    }

    /// Other processes that listen where this node does. Reads `/proc` now.
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.node.residence.neighbours()
    }

    /// Whether another process listens on each of our addresses too, so that nobody is turned away
    /// when ours are closed. Reads `/proc` now.
    pub fn is_succeeded(&self) -> bool {
        self.node.residence.is_succeeded()
    }

    /// When the shard last turned, milliseconds of the node's clock, 100 ms coarse. A shard that
    /// is parked with nothing to do is well: it counts as turning now.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn last_turn_ms(&self, shard: ShardId) -> u64 {
        let peer = &self.peers[usize::from(shard.0)];
        if peer.bell.is_parked() {
            let elapsed = self.node.started.elapsed();
            return u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        }
        peer.turned_at.load(Ordering::Relaxed)
    }
}

/// So many messages to a shard wait for the bridge's own pace.
const POSTS_PER_RING: u32 = 64;

/// Makes both ends, one shard's end per bell.
pub(crate) fn link<A: Application>(
    bells: &[Arc<Doorbell>],
    pulses: &[Pulse],
    config: &Config,
    node: Node,
) -> (BridgeLink<A>, Vec<ShardLink<A>>) {
    let news = Arc::new(Notify::new());
    let mut shards = Vec::new();
    let mut peers = Vec::new();
    let messages_max = config.bridge_messages_max as usize;
    let bytes_max = config.bridge_event_bytes_max as usize;
    for (bell, pulse) in bells.iter().zip(pulses) {
        let (lanes, from_shard) = lanes(messages_max, bytes_max);
        let (to_shard, from_bridge) = bounded(messages_max);
        let news = news.clone();
        shards.push(ShardLink {
            lanes,
            from_bridge,
            news,
        });
        peers.push(Peer {
            to_shard,
            from_shard,
            bell: bell.clone(),
            turned_at: pulse.turned_at.clone(),
            record: pulse.record.clone(),
        });
    }
    (
        BridgeLink {
            posts: peers.iter().map(|_| Cell::new(0)).collect(),
            peers: peers.into(),
            news,
            node,
            watch: RefCell::default(),
        },
        shards,
    )
}
