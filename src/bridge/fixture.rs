//! What the bridge's tests share: apps, webhooks, and shards that exist in memory only.
//!
//! Owns: `FakeLink` and its other end.
//! May depend on: `bridge::{link, message}`, `config`.
//! Invariants: a fake queue holds as many messages as it was made for, as the real one does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use shards::application::{BridgeFull, PublishRoom, ShardId};
use tokio::sync::mpsc::{
    self, Receiver, Sender, UnboundedReceiver, UnboundedSender, error::TrySendError,
};
use tokio::{sync::Notify, time::timeout};

use super::{
    link::ShardLink,
    message::{FromBridge, ToBridge},
};
use crate::config::{
    Secret,
    app::{App, EventType, Webhook, WebhookFilter, WebhookTarget},
};

/// An app without limits; its key is `key-{id}`, its secret `secret-{id}`.
pub(super) fn app(id: &str) -> App {
    App {
        id: id.to_owned(),
        former_id: None,
        key: format!("key-{id}"),
        secrets: vec![Secret::new(format!("secret-{id}"))],
        enabled: true,
        max_connections: 0,
        enable_client_messages: true,
        max_client_events_per_second: 0,
        max_backend_events_per_second: 0,
        max_read_requests_per_second: 0,
        max_presence_members_per_channel: u32::MAX,
        presence_member_bytes_max: u32::MAX,
        channel_name_bytes_max: u32::MAX,
        event_channels_max: u32::MAX,
        event_name_bytes_max: u32::MAX,
        event_payload_bytes_max: u32::MAX,
        event_batch_max: u32::MAX,
        subscriptions_per_connection_max: 0,
        enable_user_authentication: false,
        enable_watchlist_events: false,
        enable_subscription_count: true,
        require_tls: false,
        webhooks: Vec::new(),
        allowed_origins: Vec::new(),
    }
}

/// A webhook for every channel.
pub(super) fn webhook(url: &str, event_types: &[&str]) -> Webhook {
    let parse = |name: &&str| EventType::parse(name).expect("a known event type");
    Webhook {
        target: WebhookTarget::Url(Secret::new(url)),
        event_types: event_types.iter().map(parse).collect(),
        filter: WebhookFilter::default(),
        headers: Vec::new(),
    }
}

/// Shards that exist in memory only: the bridge's end.
#[derive(Debug)]
pub(super) struct FakeLink {
    to_shards: Vec<Sender<FromBridge>>,
    messages: UnboundedReceiver<(ShardId, ToBridge)>,
    is_stopped: Arc<AtomicBool>,
    has_successor: Arc<AtomicBool>,
    port: Arc<FakePort>,
    news: Arc<Notify>,
    started: Instant,
    last_turn_ms: Arc<AtomicU64>,
}

/// What becomes of listening.
#[derive(Debug, Default)]
struct FakePort {
    is_others: AtomicBool,
    /// The kernel refuses to listen beside it.
    is_refused: AtomicBool,
}

/// The shards' end.
#[derive(Debug)]
pub(super) struct FakeShards {
    from_bridge: Vec<Receiver<FromBridge>>,
    messages: UnboundedSender<(ShardId, ToBridge)>,
    is_stopped: Arc<AtomicBool>,
    has_successor: Arc<AtomicBool>,
    port: Arc<FakePort>,
    news: Arc<Notify>,
    last_turn_ms: Arc<AtomicU64>,
}

impl FakeLink {
    /// `messages_max` per shard from the bridge; the other way is unbounded.
    pub(super) fn new(shards: u16, messages_max: usize) -> (Self, FakeShards) {
        let queues = (0..shards).map(|_| mpsc::channel(messages_max));
        let (to_shards, from_bridge) = queues.unzip();
        let (sender, messages) = mpsc::unbounded_channel();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let has_successor = Arc::new(AtomicBool::new(false));
        let port = Arc::new(FakePort::default());
        let news = Arc::new(Notify::new());
        let last_turn_ms = Arc::new(AtomicU64::new(u64::MAX));
        let link = Self {
            to_shards,
            messages,
            is_stopped: Arc::clone(&is_stopped),
            has_successor: Arc::clone(&has_successor),
            port: Arc::clone(&port),
            news: Arc::clone(&news),
            started: Instant::now() - UP_FOR,
            last_turn_ms: Arc::clone(&last_turn_ms),
        };
        (
            link,
            FakeShards {
                from_bridge,
                messages: sender,
                is_stopped,
                has_successor,
                port,
                news,
                last_turn_ms,
            },
        )
    }
}

impl FakeShards {
    /// Takes what the bridge has sent to a shard.
    pub(super) fn told(&mut self, shard: usize) -> Vec<FromBridge> {
        std::iter::from_fn(|| self.from_bridge[shard].try_recv().ok()).collect()
    }

    /// Waits for the next message to a shard.
    pub(super) async fn next(&mut self, shard: usize) -> FromBridge {
        let next = timeout(PATIENCE, self.from_bridge[shard].recv());
        next.await
            .expect("a message in time")
            .expect("the bridge runs")
    }

    pub(super) fn count(&self) -> usize {
        self.from_bridge.len()
    }

    /// Waits until some shard may have a message.
    pub(super) async fn wait(&self) {
        self.news.notified().await;
    }

    pub(super) fn send(&self, shard: u16, message: ToBridge) {
        self.messages
            .send((ShardId(shard), message))
            .expect("the bridge runs");
    }

    /// No shard has turned since the start.
    pub(super) fn stall(&self) {
        self.last_turn_ms.store(0, Ordering::SeqCst);
    }

    /// Another process listens on the node's port from now on.
    pub(super) fn succeed(&self) {
        self.has_successor.store(true, Ordering::SeqCst);
    }

    /// Another process has the port from the start on, and listening beside it is refused.
    pub(super) fn refuse_to_listen(&self) {
        self.port.is_others.store(true, Ordering::SeqCst);
        self.port.is_refused.store(true, Ordering::SeqCst);
    }

    /// From now on it is not refused.
    pub(super) fn let_listen(&self) {
        self.port.is_refused.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_listening(&self) -> bool {
        !self.port.is_others.load(Ordering::SeqCst)
    }

    pub(super) fn is_accepting(&self) -> bool {
        !self.is_stopped.load(Ordering::SeqCst)
    }
}

/// How long the shards have run when a test begins: long enough for one to have stalled.
const UP_FOR: Duration = Duration::from_secs(10);
/// No test waits longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

impl ShardLink for FakeLink {
    fn shards(&self) -> u16 {
        u16::try_from(self.to_shards.len()).expect("made from a u16")
    }

    fn started(&self) -> Instant {
        self.started
    }

    fn send(&self, to: ShardId, message: FromBridge) -> Result<(), BridgeFull<FromBridge>> {
        self.news.notify_one();
        self.to_shards[usize::from(to.0)]
            .try_send(message)
            .map_err(|refused| match refused {
                TrySendError::Full(message) | TrySendError::Closed(message) => BridgeFull(message),
            })
    }

    fn ring(&self) {}

    async fn receive(&mut self, into: &mut Vec<(ShardId, ToBridge)>) {
        match self.messages.recv().await {
            Some(message) => into.push(message),
            None => std::future::pending().await,
        }
    }

    fn waits_to_accept(&self) -> bool {
        self.port.is_others.load(Ordering::SeqCst)
    }

    fn begin_accepting(&self) -> std::io::Result<()> {
        if self.port.is_refused.load(Ordering::SeqCst) {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        self.port.is_others.store(false, Ordering::SeqCst);
        Ok(())
    }

    // Its shards publish nothing.
    fn set_publish_room(&self, _: PublishRoom) {}

    fn set_cut_off(&self, _: bool) {}

    fn set_behind(&self, _: bool) {}

    fn stop_accepting(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
    }

    fn is_succeeded(&self) -> bool {
        self.has_successor.load(Ordering::SeqCst)
    }

    fn last_turn_ms(&self, _: ShardId) -> u64 {
        self.last_turn_ms.load(Ordering::SeqCst)
    }

    fn freeze(&self) {}

    fn freeze_step(&self) -> shards::Freeze {
        shards::Freeze::Still
    }

    fn thaw(&self) {}

    fn let_go(&self) {}

    fn listening(&self) -> std::io::Result<Vec<std::os::fd::OwnedFd>> {
        Ok(Vec::new())
    }
}
