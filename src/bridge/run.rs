//! The bridge's loop: messages of shards, requests of operators, signals, time.
//!
//! Owns: `Setup`, `Bridge`, `Exit`; `readiness`, `reload` and `stop` have what else the bridge does as a whole.
//! May depend on: all of `bridge`, `config`, `metrics`, tokio. Generic over the link.
//! Invariants: the loop waits in one place only; whatever takes long runs beside it.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock here and hands it on"
)]

use std::{
    io,
    net::TcpListener,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use shards::application::ShardId;
use tokio::sync::mpsc;

use super::{
    adapter::{BusError, news::News},
    admin::{self, AdminRequest, Status, socket::AdminSocket},
    alarm::Alarm,
    app_source::{AppSource, Reached},
    apps::{
        AppTable,
        openings::Openings,
        store::{Preparation, Store},
    },
    busy::BusyWindow,
    drain::Drain,
    gather::Gathering,
    handover::{Giving, Handover, Legacy, Said, Speaker},
    health::Health,
    kept_store::{self, KeptStore},
    largest::LargestChannels,
    link::ShardLink,
    message::{FromBridge, ToBridge},
    nodes::{NodeOf, Nodes, Told},
    notify::Supervisor,
    outbox::Outbox,
    port_tls::PortTls,
    publish_hold::{self, PublishHold, Sight},
    queue_setup,
    rate_store::{self, RateStore},
    reload::{Reload, Reloaded},
    signals::Signal,
    usage::MemoryGauge,
    webhook::{Webhooks, shared::Keeping},
};
use crate::{
    config::{Config, Loaded},
    metrics::{
        exposition::Exposition,
        sample::{AppLabels, Build},
    },
};

/// What the bridge needs to start.
pub struct Setup {
    pub loaded: Loaded,
    /// The table that the shards were started with.
    pub apps: AppTable,
    /// Where other apps are looked for.
    pub store: Option<Store>,
    pub node_id: String,
    pub build: Build,
    /// From `admin::bind`.
    pub metrics: Option<TcpListener>,
    /// From `AdminSocket::bind`.
    pub admin: Option<AdminSocket>,
    /// From `signals::listen`.
    pub signals: mpsc::Receiver<Signal>,
    pub reload: Reload,
    /// TLS as the shards were started with.
    pub tls: Option<PortTls>,
    /// Who started this process, and wants to know how it goes.
    pub supervisor: Supervisor,
    /// Who came before this process, and how another one may follow.
    pub legacy: Legacy,
    /// `/`; tests have a root of their own.
    pub memory_root: PathBuf,
}

impl Setup {
    fn of_node(&self) -> NodeOf<'_> {
        NodeOf {
            name: &self.node_id,
            program: self.build.version,
            followed: self.legacy.welcome(),
        }
    }
}

/// How the bridge ended. Both are a success of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Connections were closed and webhooks sent, or the deadline came.
    Drained,
    /// A second signal asked to stop at once.
    Interrupted,
    /// Another process has all connections. This one must end without closing anything.
    HandedOver,
}

/// Why the bridge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(
        "cluster.node_id = {name:?}: a node that runs already has this name; give each node of a \
         cluster its own, or leave the key out and chance names it"
    )]
    NameTaken { name: String },
    #[error("nothing was taken over: {reason}")]
    Predecessor { reason: String },
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the metrics listener cannot be served: {0}")]
    Admin(#[from] io::Error),
}

/// Runs until a signal ends it. Needs a tokio runtime with time and I/O.
///
/// # Errors
/// When something that the configuration asks for cannot be set up; nothing runs then. Or when the
/// bus shows that it cannot be.
pub async fn run<L: ShardLink>(link: L, setup: Setup) -> Result<Exit, BridgeError> {
    let keeping = queue_setup::keeping(&setup.loaded.config).await?;
    let mut bridge = Bridge::new(link, setup, keeping)?;
    let exit = bridge.run().await?;
    bridge.link.ring();
    if let Some(nodes) = bridge.handover.nodes.take() {
        nodes.leave().await;
    }
    if let Some(nodes) = bridge.nodes.take() {
        nodes.close().await;
    }
    Ok(exit)
}

/// The state of the loop. Its views (scrapes, status) are in `view.rs`.
pub struct Bridge<L> {
    pub(super) link: L,
    /// What `config` was made from, to tell what a reload changes.
    pub(super) loaded: Loaded,
    pub(super) config: Arc<Config>,
    pub(super) apps: AppTable,
    pub(super) openings: Openings,
    pub(super) source: Option<AppSource>,
    /// Where nodes share last events.
    pub(super) kept_store: Option<KeptStore>,
    /// Where nodes share rates.
    pub(super) rate_store: Option<RateStore>,
    pub(super) node_id: String,
    pub(super) build: Build,
    pub(super) exposition: Arc<Exposition>,
    pub(super) app_labels: AppLabels,
    /// Port of the admin listener, as the label `port` has it.
    pub(super) port: String,
    pub(super) outbox: Outbox,
    pub(super) gathering: Gathering,
    pub(super) largest: LargestChannels,
    pub(super) webhooks: Webhooks,
    /// None on a node that is alone.
    pub(super) nodes: Option<Nodes>,
    pub(super) publish_hold: PublishHold,
    pub(super) sight: Sight,
    pub(super) health: Health,
    pub(super) drain: Option<Drain>,
    pub(super) reloaded: Reloaded,
    pub(super) handover: Handover,
    pub(super) busy: BusyWindow,
    pub(super) memory: MemoryGauge,
    requests: mpsc::Receiver<AdminRequest>,
    /// So that the queue is open on a node without listeners.
    _requests: mpsc::Sender<AdminRequest>,
    signals: mpsc::Receiver<Signal>,
    pub(super) reload: Reload,
    pub(super) tls: Option<PortTls>,
    pub(super) supervisor: Supervisor,
    alarm: Alarm,
    health_due: Instant,
    sample_due: Instant,
    pub(super) is_announced: bool,
    /// Why the port could not be listened on, as the log was told last.
    pub(super) listen_fault: Option<String>,
}

/// What woke the loop.
enum Wake {
    Shards,
    Admin(AdminRequest),
    Signal(Signal),
    Bus(News),
    Webhooks,
    Store(Reached),
    Cache(kept_store::Reached),
    Rates(rate_store::Reached),
    Process(Said),
    Time,
}

const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Shards are asked for numbers so often without a scrape, for busy ratios and the drain's gauge.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// A full queue to a shard is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_millis(5);

impl<L: ShardLink> Bridge<L> {
    fn new(link: L, setup: Setup, keeping: Keeping) -> Result<Self, BridgeError> {
        let config = Arc::new(setup.loaded.config.clone());
        let exposition = Arc::new(Exposition::new(&config.metrics.prefix)?);
        let mut webhooks = Webhooks::new(keeping, &config.webhooks, link.started());
        webhooks.begin(&setup.apps);
        let inherited = setup.legacy.inherited_apps();
        let (started, shards) = (link.started(), link.shards());
        let nodes = Nodes::start(&config, &setup.of_node(), started, shards)?;
        let handover = Handover::new(setup.legacy)?;
        let mut port = config.metrics.port;
        let (asked, requests) = admin::requests();
        if let Some(listener) = setup.metrics {
            let address = listener.local_addr()?;
            port = address.port();
            tracing::info!(node = setup.node_id, %address, "listening for metrics");
            let gate = handover.doors.gate();
            admin::serve(listener, Arc::clone(&exposition), asked.clone(), gate)?;
        }
        if let Some(socket) = setup.admin {
            socket.serve(asked.clone(), handover.doors.gate());
        }
        let mut supervisor = setup.supervisor;
        if handover.taking.is_some() {
            supervisor.hold();
        }
        let (preparation, now) = (Preparation::of(&setup.loaded), Instant::now());
        let source = setup
            .store
            .map(|store| AppSource::new(&config, store, preparation, started, inherited));
        let (kept_store, rate_store) = (KeptStore::start(&config)?, RateStore::start(&config)?);
        Ok(Self {
            outbox: Outbox::new(link.shards()),
            gathering: Gathering::new(shards),
            largest: LargestChannels::new(shards),
            link,
            loaded: setup.loaded,
            config,
            apps: setup.apps,
            openings: Openings::new(shards),
            source,
            kept_store,
            rate_store,
            node_id: setup.node_id,
            build: setup.build,
            exposition,
            app_labels: AppLabels::default(),
            port: port.to_string(),
            webhooks,
            nodes,
            publish_hold: PublishHold::default(),
            sight: Sight::default(),
            health: Health::UNKNOWN,
            drain: None,
            reloaded: Reloaded::at_start(),
            busy: BusyWindow::default(),
            memory: MemoryGauge::new(setup.memory_root),
            requests,
            _requests: asked,
            signals: setup.signals,
            reload: setup.reload,
            tls: setup.tls,
            supervisor,
            handover,
            alarm: Alarm::default(),
            health_due: now,
            sample_due: now,
            is_announced: false,
            listen_fault: None,
        })
    }

    async fn run(&mut self) -> Result<Exit, BridgeError> {
        let mut inbox = Vec::new();
        loop {
            match self.wait(&mut inbox).await {
                Wake::Shards => self.handle_messages(&mut inbox),
                Wake::Admin(request) => self.answer(request),
                Wake::Signal(Signal::Stop) if self.drain.is_some() => {
                    tracing::info!(node = self.node_id, "stopped at once by a second signal");
                    return Ok(Exit::Interrupted);
                }
                Wake::Signal(Signal::Stop) if self.handover.departing.is_some() => {
                    if self.is_ending_at_once() {
                        return Ok(self.has_handed_over());
                    }
                }
                Wake::Signal(Signal::Stop) if self.handover.taking.is_some() => {
                    self.stop_taking()?;
                }
                Wake::Signal(Signal::Stop) if self.is_yielding() => {
                    self.handover.stop_waits = true;
                }
                Wake::Signal(Signal::Stop) => self.begin_drain(),
                Wake::Signal(Signal::Reload) => self.reload(),
                Wake::Signal(Signal::DumpStats) => self.log_stats(),
                Wake::Signal(Signal::Upgrade) => {
                    if let Err(reason) = self.begin_upgrade(None) {
                        tracing::error!(reason, "no upgrade begins");
                    }
                }
                Wake::Process((speaker, heard)) => match speaker {
                    Speaker::Successor => self.hear_successor(heard),
                    Speaker::Heir => self.hear_heir(heard),
                    Speaker::Predecessor => self.hear_predecessor(heard)?,
                    Speaker::Testator => self.hear_testator(heard),
                },
                Wake::Bus(news) => self.hear_nodes(news),
                Wake::Store(reached) => self.reached_store(reached),
                Wake::Cache(reached) => self.reached_cache(reached),
                Wake::Rates(reached) => self.reached_rates(reached),
                Wake::Webhooks => self.find_apps_of_webhooks(),
                Wake::Time => {}
            }
            self.do_what_is_due();
            if self.step_drain() {
                return Ok(Exit::Drained);
            }
            self.step_heir();
            self.step_taking();
            if self.step_upgrade() {
                return Ok(self.has_handed_over());
            }
            if self.nodes.as_ref().is_some_and(Nodes::is_name_taken) {
                let name = self.node_id.clone();
                return Err(BridgeError::NameTaken { name });
            }
        }
    }

    /// The one place where the bridge waits.
    async fn wait(&mut self, inbox: &mut Vec<(ShardId, ToBridge)>) -> Wake {
        self.link.ring();
        let wake_at = self.wake_at();
        // What shards do not keep up with waits on the bus, which has its bounds.
        let giving = self.handover.giving.as_ref();
        let hears = !self.outbox.is_behind() && !giving.is_some_and(Giving::is_deaf);
        let news = async {
            match self
                .nodes
                .as_mut()
                .filter(|nodes| hears && !nodes.is_full())
            {
                Some(nodes) => Some(nodes.next().await),
                None => None,
            }
        };
        let reached = async {
            match &mut self.source {
                Some(source) => Some(source.reached().await),
                None => None,
            }
        };
        let cached = async {
            match &mut self.kept_store {
                Some(store) => Some(store.reached().await),
                None => None,
            }
        };
        let rates = async {
            match &mut self.rate_store {
                Some(store) => Some(store.reached().await),
                None => None,
            }
        };
        tokio::select! {
            () = self.link.receive(inbox) => Wake::Shards,
            Some(request) = self.requests.recv() => Wake::Admin(request),
            Some(news) = news => Wake::Bus(news),
            Some(signal) = self.signals.recv() => Wake::Signal(signal),
            () = self.webhooks.progress() => Wake::Webhooks,
            Some(reached) = reached => Wake::Store(reached),
            Some(reached) = cached => Wake::Cache(reached),
            Some(reached) = rates => Wake::Rates(reached),
            said = self.handover.hear() => Wake::Process(said),
            () = self.alarm.until(Some(wake_at.into())) => Wake::Time,
        }
    }

    /// Who asked and has gone meanwhile needs no answer.
    fn answer(&mut self, request: AdminRequest) {
        match request {
            AdminRequest::Scrape(waiter) => {
                self.gathering.wait(waiter);
                self.sample();
            }
            AdminRequest::Status(waiter) => _ = waiter.send(self.status()),
            AdminRequest::Top(waiter) => self.ask_top(Instant::now(), waiter),
            AdminRequest::Cluster(waiter) => _ = waiter.send(self.cluster()),
            AdminRequest::Rebalance(waiter) => _ = waiter.send(self.rebalance()),
            AdminRequest::Letters(waiter) => _ = waiter.send(self.webhooks.report_letters()),
            AdminRequest::SettleLetters {
                ids,
                settle,
                waiter,
            } => _ = waiter.send(self.webhooks.settle_letters(ids, settle)),
            AdminRequest::ReloadApps(waiter) => self.look_at_apps(waiter),
            AdminRequest::BeginUpgrade { binary, waiter } => {
                let begun = self.begin_upgrade(binary.as_deref());
                _ = waiter.send(begun.map(|_| self.handover.last.clone().unwrap_or_default()));
            }
            AdminRequest::Upgrade(waiter) => {
                _ = waiter.send(self.handover.last.clone().unwrap_or_default());
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let has_views = self.nodes.as_ref().is_some_and(Nodes::has_views);
        let has_views = has_views && !self.outbox.is_behind();
        let is_silent = self.is_silent();
        let timers = [
            Some(self.health_due),
            Some(self.sample_due),
            self.gathering.deadline(),
            self.largest.deadline(),
            self.drain.as_ref().map(Drain::due),
            self.nodes.as_ref().filter(|_| !is_silent).map(Nodes::due),
            self.supervisor.due(),
            self.source.as_ref().and_then(AppSource::due),
            self.kept_store.as_ref().and_then(KeptStore::due),
            self.rate_store.as_ref().and_then(RateStore::due),
            self.handover.due(Instant::now()),
            has_views.then(Instant::now),
            self.publish_hold
                .holds()
                .then(|| Instant::now() + publish_hold::LOOK_EVERY),
            (!self.outbox.is_empty()).then(|| Instant::now() + RETRY_AFTER),
        ];
        timers
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.health_due)
    }

    pub(super) fn handle_messages(&mut self, inbox: &mut Vec<(ShardId, ToBridge)>) {
        let mut told = Told::new();
        for (shard, message) in inbox.drain(..) {
            match message {
                ToBridge::Snapshot { token, snapshot } => {
                    self.gathering.answer(shard, token, snapshot);
                }
                ToBridge::Largest { token, channels } => self.largest.hear(shard, token, channels),
                ToBridge::Webhook(event) => self.webhooks.accept(event),
                ToBridge::Usage { waiter } => {
                    let body = self.memory.read(Instant::now()).json().into_boxed_str();
                    self.outbox
                        .send(&self.link, shard, FromBridge::Usage { waiter, body });
                }
                ToBridge::Event(event) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.publish(&self.apps, &event);
                    }
                }
                ToBridge::State(state) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.report(&self.apps, &state);
                    }
                }
                ToBridge::Terminate(user) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.terminate(&self.apps, &user);
                    }
                }
                ToBridge::KeptAsk(name) => self.ask_kept(*name),
                ToBridge::Keep(event) => self.keep_event(&event),
                ToBridge::TakeRate(question) => self.ask_rate(shard, question),
                ToBridge::Kept(kept) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.answer_kept(&self.apps, &kept);
                    }
                }
                ToBridge::Spent(spent) => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.spend(&self.apps, &spent);
                    }
                }
                ToBridge::Topic { partition, wish } => {
                    if let Some(nodes) = &mut self.nodes {
                        nodes.wish(partition, wish, &mut told);
                    }
                }
                ToBridge::Drained => {
                    if let Some(drain) = &mut self.drain {
                        drain.drained(shard);
                    }
                }
                ToBridge::Exported(part) => self.take_exported(shard, *part),
                ToBridge::Imported(part) => self.take_imported(*part),
                ToBridge::FindApp(wanted) => self.find_app(shard, *wanted),
                ToBridge::AppsTaken { number } => self.apps_taken(shard, number),
                ToBridge::Settled => {
                    if let Some(drain) = &mut self.drain {
                        drain.settled(shard);
                    }
                }
            }
        }
        self.flush_rates();
        self.webhooks.start();
        if let Some(nodes) = &mut self.nodes {
            nodes.flush();
        }
        self.tell(told);
    }

    /// Ticks, and goes on with what is long as far as the shards keep up.
    fn do_what_nodes_want(&mut self, now: Instant) {
        let (is_behind, is_silent) = (self.outbox.is_behind(), self.is_silent());
        let Some(nodes) = &mut self.nodes else { return };
        let mut told = Told::new();
        let is_due = !is_silent && now >= nodes.due();
        if is_due {
            nodes.tick(&mut told);
        }
        if nodes.has_views() && !is_behind {
            nodes.tell_views(&self.apps, &mut told);
        }
        self.tell(told);
        if is_due {
            self.announce();
        }
    }

    /// Another process is about to be this node for the others, or was not that yet.
    fn is_silent(&self) -> bool {
        let giving = self.handover.giving.as_ref();
        giving.is_some_and(Giving::is_silent) || self.handover.taking.is_some()
    }

    /// Another process may serve already.
    fn is_yielding(&self) -> bool {
        let giving = self.handover.giving.as_ref();
        giving.is_some_and(Giving::is_yielding)
    }

    fn hear_nodes(&mut self, news: News) {
        let mut told = Told::new();
        if let Some(nodes) = &mut self.nodes {
            nodes.take(&self.apps, news, &mut told);
        }
        self.tell(told);
        self.hear_of_apps();
        self.announce();
        self.say_proven();
    }

    pub(super) fn tell(&mut self, told: Told) {
        for (shard, message) in told {
            self.outbox.send(&self.link, shard, message);
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        self.follow_bus();
        self.outbox.retry(&self.link);
        if now >= self.health_due {
            self.health_due = now + HEALTH_EVERY;
            self.check_health();
            self.renew_tickets();
        }
        if self.supervisor.due().is_some_and(|due| now >= due) {
            let is_stalled = self.is_shard_stalled();
            self.supervisor.feed(now, || !is_stalled);
        }
        if now >= self.sample_due {
            self.sample();
        }
        self.do_what_nodes_want(now);
        self.tick_apps();
        if let Some(store) = &mut self.kept_store {
            store.tick(now);
        }
        if let Some(store) = &mut self.rate_store {
            store.tick(now, &self.apps);
        }
        if self.gathering.is_due(now) {
            self.finish_sample();
        }
        self.serve_top(now);
    }

    fn renew_tickets(&mut self) {
        let Some(tls) = &mut self.tls else {
            return;
        };
        match tls.renew_tickets(unix_s()) {
            Ok(false) => {}
            Ok(true) => {
                let port = tls.port.clone();
                self.broadcast(|| FromBridge::Tls(Box::new(port.clone())));
            }
            Err(error) => tracing::error!(%error, "tickets of TLS sessions keep an old key"),
        }
    }

    /// Asks all shards for their numbers, unless that is under way.
    fn sample(&mut self) {
        let now = Instant::now();
        self.sample_due = now + SAMPLE_EVERY;
        if let Some(token) = self.gathering.begin(now) {
            self.broadcast(|| FromBridge::Scrape { token });
        }
    }

    fn finish_sample(&mut self) {
        let (waiters, late) = self.gathering.finish();
        for shard in late {
            let shard = shard.0;
            tracing::warn!(
                shard,
                "a shard did not tell its numbers in time; the last ones count"
            );
        }
        let connections = self.connections_by_shard().iter().sum();
        if let Some(nodes) = &mut self.nodes {
            nodes.set_connections(connections);
        }
        if !waiters.is_empty() {
            let scrape = self.scrape();
            for waiter in waiters {
                _ = waiter.send(scrape.clone()); // Who has gone meanwhile needs no answer.
            }
        }
        self.announce();
        self.tell_status();
    }

    pub(super) fn broadcast(&mut self, message: impl Fn() -> FromBridge) {
        for shard in 0..self.link.shards() {
            self.outbox.send(&self.link, ShardId(shard), message());
        }
    }

    fn status(&mut self) -> Status {
        Status {
            node: self.node_id.clone(),
            health: self.health(),
            has_apps: self.source.is_some() || !self.apps.is_empty(),
        }
    }
}

pub fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
