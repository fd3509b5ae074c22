//! Data path. The plain counters of one shard.
//!
//! Owns: `ShardCounters`, `AppCounters`, `TypeCounters`, `AppFaults`, and the snapshot that goes to the bridge.
//! May depend on: std, the runtime's counters. Not on `prometheus`.
//! Invariants: counters only grow, and leave with their app; gauges are never negative.

use shards::application::{RuntimeCounters, TURN_BUCKETS_US};

use super::packed::PackedApps;
use crate::protocol::app::{AppIndex, AppRows};

/// Columns of `channel_type` labels, in the order of `ChannelKind::metric_column`.
pub const CHANNEL_TYPES: [&str; 5] = [
    "public",
    "private",
    "presence",
    "private_encrypted",
    "cache",
];

/// `error_type` labels of `connection_errors_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ConnectionError {
    AppNotFound,
    AppDisabled,
    OriginNotAllowed,
    InvalidMessageFormat,
    AuthenticationFailed,
    OverQuota,
    OverCapacity,
    AcceptLimited,
    HandshakeTimeout,
    SlowConsumer,
    PongTimeout,
    UnauthorizedTimeout,
    ProtocolError,
    TooLarge,
    WebsocketUpgradeFailed,
    SocketFailed,
    /// What stores apps does not answer.
    AppValidationFailed,
    MissingEventName,
    /// A sign-in was refused.
    AuthenticationError,
}

impl ConnectionError {
    pub const COUNT: usize = 19;

    /// The label of each variant, by its number.
    pub const LABELS: [&str; Self::COUNT] = [
        "app_not_found",
        "app_disabled",
        "origin_not_allowed",
        "invalid_message_format",
        "authentication_failed",
        "over_quota",
        "over_capacity",
        "accept_limited",
        "handshake_timeout",
        "slow_consumer",
        "pong_timeout",
        "unauthorized_timeout",
        "protocol_error",
        "too_large",
        "websocket_upgrade_failed",
        "socket_handling_failed",
        "app_validation_failed",
        "missing_event_name",
        "authentication_error",
    ];
}

/// Upper bounds in microseconds of `broadcast_latency_ms` (buckets E of upstream).
pub const LATENCY_BUCKETS_US: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000,
];

/// `recipient_count_bucket` labels: 1–10, 11–100, 101–1000, 1001–10000, more.
pub const RECIPIENT_BUCKETS: [&str; 5] = ["xs", "sm", "md", "lg", "xl"];

/// A histogram with fixed buckets: counts per bucket (the last is above all) and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub buckets: [u64; 14],
    pub sum_us: u64,
}

/// What is counted per app: a row per app that this shard has worked for, so it is kept short.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppCounters {
    pub connected: u64,
    pub new_connections: u64,
    pub new_disconnections: u64,
    pub received_bytes: u64,
    pub transmitted_bytes: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    pub http_received_bytes: u64,
    pub http_transmitted_bytes: u64,
    pub http_calls: u64,
    pub client_event_checks: u64,
    pub client_event_limited: u64,
    /// `None` for a type of channels that the app has not used: most use one or two.
    pub(super) by_type: [Option<Box<TypeCounters>>; 5],
    /// What goes wrong; `None` until something did.
    pub(super) faults: Option<Box<AppFaults>>,
    /// [channel type][recipient bucket]; `None` until first used.
    pub broadcast_latency: Option<Box<[[Latency; 5]; 5]>>,
}

/// What is counted of an app's channels of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeCounters {
    pub subscriptions: u64,
    pub unsubscriptions: u64,
    /// Channels with at least one subscriber whose home is this shard.
    pub active: u64,
}

/// What goes wrong with an app's connections, frames and requests.
#[derive(Clone, Debug, PartialEq)]
pub struct AppFaults {
    pub connection_errors: [u64; ConnectionError::COUNT],
    pub slow_consumer_disconnects: u64,
    /// `slow_oldest`, `slow_newest`, `bridge_full`, `drain`.
    pub dropped_frames: [u64; 4],
    pub dropped_bytes: [u64; 4],
    /// Webhook events dropped on their way to the bridge.
    pub webhooks_dropped: u64,
    /// App-wide limits that refused: connections, backend events, reads.
    pub limit_denied: [u64; 3],
    /// Members removed because the lease of their node ran out.
    pub presence_lease_expiries: u64,
    pub http_errors: HttpErrors,
}

/// API answers >= 400: status and count; at most a dozen rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpErrors(Vec<(u16, u64)>);

/// What one shard counts.
#[derive(Clone, Debug, Default)]
pub struct ShardCounters {
    apps: AppRows<Box<AppCounters>>,
    /// The same rows in a report; empty on the shard.
    packed: PackedApps,
    /// Connections refused before an app was known.
    pub unknown_app_errors: [u64; ConnectionError::COUNT],
    /// Of API requests that were refused before an app was known.
    pub unknown_http_errors: HttpErrors,
    /// `/up` calls without an app.
    pub system_http_calls: u64,
    /// Checks and refusals of the IP limiter: websocket_upgrade, http_api.
    pub ip_limit_checks: [u64; 2],
    pub ip_limit_triggered: [u64; 2],
    /// Addresses that limiters remember, and those that they forgot before their window's end.
    pub addresses: u64,
    pub addresses_evicted: u64,
    /// `timeout`, `too_large`, `bad_request`; those of TLS are the runtime's.
    pub handshake_failures: [u64; 3],
    /// Proxies' connections that did not begin as they must: `timeout`, `missing`, `malformed`,
    /// `too_long`.
    pub proxy_header_failures: [u64; 4],
    /// `rate`, `max_connections`, `memory`, `ip`.
    pub accept_limited: [u64; 4],
    /// API requests by route (`ApiRoute`): counts per bucket of `TURN_BUCKETS_US`, and their sums.
    pub http_request_us_buckets: [[u64; 17]; 6],
    pub http_request_us_sum: [u64; 6],
    /// Look-ups of an app by key or id: found on the shard, unknown.
    pub app_lookups: [u64; 2],
    /// Messages to the bridge that met a full queue: webhook, other, publish.
    pub bridge_full: [u64; 3],
    /// Subscriptions refused since too many waited for the bus.
    pub joins_refused: u64,
    /// Joins that wait for it now.
    pub joins_waiting: u64,
    /// Events of other nodes that are no frames, and members that cannot be.
    pub node_events_refused: u64,
    /// Questions for last events that were in doubt.
    pub kept_doubted: u64,
    /// Last events in whose place an answer has put another one.
    pub kept_replaced: u64,
    /// Times that a channel fell so far behind with its fan-out that its publishers were held.
    pub publishers_held: u64,
    /// Times that a connection's input was held for its rate of subscribes and unsubscribes.
    pub inputs_throttled: u64,
    /// Peers sent away since too much input was held for strangers.
    pub inputs_shed: u64,
    /// Bodies of signed requests that gave way to others'.
    pub bodies_shed: u64,
    /// Times that a publication went on alone, all others waiting, since too much was held of those that are read.
    pub reads_alone: u64,
    /// Connections closed for their age.
    pub connections_aged: u64,
    /// Open WebSocket connections.
    pub websockets: u64,
    /// Channels whose home is here.
    pub home_channels: u64,
    /// Bytes of the last events that are kept here.
    pub kept_bytes: u64,
}

/// One shard's numbers at one moment.
#[derive(Clone, Debug)]
pub struct ShardSnapshot {
    pub counters: ShardCounters,
    pub runtime: RuntimeCounters,
    /// Connections left to close while draining; `None` when not draining.
    pub draining: Option<u64>,
}

impl ShardCounters {
    /// The counters of an app; made when first asked for (bounded by the number of apps).
    pub fn app(&mut self, app: AppIndex) -> &mut AppCounters {
        self.apps.enter(app, Box::default)
    }

    /// Forgets apps that are gone. What still counts something stays until the next time.
    pub fn forget_apps(&mut self, is_known: impl Fn(AppIndex) -> bool) {
        self.apps.retain(|app, counters| {
            let is_active = |number| counters.of_type(number).active > 0;
            counters.connected > 0 || (0..5).any(is_active) || is_known(app)
        });
    }

    /// Packs the rows of some more apps; returns how many there were, and whether there are more.
    pub fn pack_apps(&self, packed: &mut PackedApps) -> (usize, bool) {
        packed.pack_more(&self.apps)
    }

    /// All that is counted now, with the apps' rows as they were packed.
    pub fn with_apps(&mut self, packed: PackedApps) -> Self {
        let apps = std::mem::take(&mut self.apps);
        let rest = self.clone();
        self.apps = apps;
        Self { packed, ..rest }
    }

    /// The apps' counters in a report, by their index.
    pub fn reported_apps(&self) -> impl Iterator<Item = (AppIndex, AppCounters)> {
        let plain = self.apps().map(|(app, counters)| (app, counters.clone()));
        self.packed.iter().chain(plain)
    }

    /// Counts one answered API request.
    pub fn http_request(&mut self, route: usize, took_us: u64) {
        let bucket = TURN_BUCKETS_US.partition_point(|&bound| bound < took_us);
        self.http_request_us_buckets[route][bucket] += 1;
        self.http_request_us_sum[route] += took_us;
    }

    /// All apps' counters, by their index.
    pub fn apps(&self) -> impl Iterator<Item = (AppIndex, &AppCounters)> {
        self.apps.iter().map(|(app, counters)| (app, &**counters))
    }
}

impl AppCounters {
    /// Adds what another shard, or another app, counted.
    pub fn absorb(&mut self, other: &Self) {
        self.connected += other.connected;
        self.new_connections += other.new_connections;
        self.new_disconnections += other.new_disconnections;
        self.received_bytes += other.received_bytes;
        self.transmitted_bytes += other.transmitted_bytes;
        self.messages_received += other.messages_received;
        self.messages_sent += other.messages_sent;
        self.http_received_bytes += other.http_received_bytes;
        self.http_transmitted_bytes += other.http_transmitted_bytes;
        self.http_calls += other.http_calls;
        self.client_event_checks += other.client_event_checks;
        self.client_event_limited += other.client_event_limited;
        for (number, theirs) in other.by_type.iter().enumerate() {
            if let Some(theirs) = theirs {
                self.of_type_mut(number).absorb(theirs);
            }
        }
        if let Some(theirs) = &other.faults {
            self.faults_mut().absorb(theirs);
        }
        if let Some(theirs) = &other.broadcast_latency {
            let ours = self.broadcast_latency.get_or_insert_with(Box::default);
            for (ours, theirs) in ours.iter_mut().flatten().zip(theirs.iter().flatten()) {
                absorb_all(&mut ours.buckets, &theirs.buckets);
                ours.sum_us += theirs.sum_us;
            }
        }
    }

    /// By how much the counters have fallen below `before`; gauges may fall.
    pub(super) fn shortfall(&self, before: &Self) -> Self {
        let one = |now: u64, before: u64| before.saturating_sub(now);
        let none = Box::default();
        let latency = before.broadcast_latency.as_ref().map(|before| {
            let mut lost = before.clone();
            let now = self.broadcast_latency.as_ref().unwrap_or(&none);
            for (lost, now) in lost.iter_mut().flatten().zip(now.iter().flatten()) {
                lost.buckets = fallen(&now.buckets, &lost.buckets);
                lost.sum_us = one(now.sum_us, lost.sum_us);
            }
            lost
        });
        Self {
            connected: 0,
            new_connections: one(self.new_connections, before.new_connections),
            new_disconnections: one(self.new_disconnections, before.new_disconnections),
            received_bytes: one(self.received_bytes, before.received_bytes),
            transmitted_bytes: one(self.transmitted_bytes, before.transmitted_bytes),
            messages_received: one(self.messages_received, before.messages_received),
            messages_sent: one(self.messages_sent, before.messages_sent),
            http_received_bytes: one(self.http_received_bytes, before.http_received_bytes),
            http_transmitted_bytes: one(self.http_transmitted_bytes, before.http_transmitted_bytes),
            http_calls: one(self.http_calls, before.http_calls),
            client_event_checks: one(self.client_event_checks, before.client_event_checks),
            client_event_limited: one(self.client_event_limited, before.client_event_limited),
            by_type: std::array::from_fn(|number| {
                let before = before.by_type[number].as_ref()?;
                Some(Box::new(self.of_type(number).shortfall(before)))
            }),
            faults: before
                .faults
                .as_ref()
                .map(|before| Box::new(self.faults().shortfall(before))),
            broadcast_latency: latency,
        }
    }

    /// Of channels of one type, by the column of its label.
    pub fn of_type(&self, number: usize) -> TypeCounters {
        self.by_type[number].as_deref().copied().unwrap_or_default()
    }

    pub fn of_type_mut(&mut self, number: usize) -> &mut TypeCounters {
        self.by_type[number].get_or_insert_default()
    }

    pub fn faults(&self) -> &AppFaults {
        self.faults.as_deref().unwrap_or(&NO_FAULTS)
    }

    pub fn faults_mut(&mut self) -> &mut AppFaults {
        let faults = &mut self.faults;
        faults.get_or_insert_with(|| Box::new(AppFaults::NONE))
    }

    /// Counts one API answer of `status` >= 400.
    pub fn http_error(&mut self, status: u16) {
        self.faults_mut().http_errors.add(status, 1);
    }
}

impl TypeCounters {
    fn absorb(&mut self, other: &Self) {
        self.subscriptions += other.subscriptions;
        self.unsubscriptions += other.unsubscriptions;
        self.active += other.active;
    }

    fn shortfall(&self, before: &Self) -> Self {
        let one = |now: u64, before: u64| before.saturating_sub(now);
        Self {
            subscriptions: one(self.subscriptions, before.subscriptions),
            unsubscriptions: one(self.unsubscriptions, before.unsubscriptions),
            active: 0,
        }
    }
}

static NO_FAULTS: AppFaults = AppFaults::NONE;

impl AppFaults {
    const NONE: Self = Self {
        connection_errors: [0; ConnectionError::COUNT],
        slow_consumer_disconnects: 0,
        dropped_frames: [0; 4],
        dropped_bytes: [0; 4],
        webhooks_dropped: 0,
        limit_denied: [0; 3],
        presence_lease_expiries: 0,
        http_errors: HttpErrors(Vec::new()),
    };

    fn absorb(&mut self, other: &Self) {
        absorb_all(&mut self.connection_errors, &other.connection_errors);
        self.slow_consumer_disconnects += other.slow_consumer_disconnects;
        absorb_all(&mut self.dropped_frames, &other.dropped_frames);
        absorb_all(&mut self.dropped_bytes, &other.dropped_bytes);
        self.webhooks_dropped += other.webhooks_dropped;
        absorb_all(&mut self.limit_denied, &other.limit_denied);
        self.presence_lease_expiries += other.presence_lease_expiries;
        for (status, count) in other.http_errors.iter() {
            self.http_errors.add(status, count);
        }
    }

    fn shortfall(&self, before: &Self) -> Self {
        let one = |now: u64, before: u64| before.saturating_sub(now);
        let status = |(status, count)| {
            let now = self.http_errors.iter().find(|row| row.0 == status);
            (status, one(now.map_or(0, |row| row.1), count))
        };
        Self {
            connection_errors: fallen(&self.connection_errors, &before.connection_errors),
            slow_consumer_disconnects: one(
                self.slow_consumer_disconnects,
                before.slow_consumer_disconnects,
            ),
            dropped_frames: fallen(&self.dropped_frames, &before.dropped_frames),
            dropped_bytes: fallen(&self.dropped_bytes, &before.dropped_bytes),
            webhooks_dropped: one(self.webhooks_dropped, before.webhooks_dropped),
            limit_denied: fallen(&self.limit_denied, &before.limit_denied),
            presence_lease_expiries: one(
                self.presence_lease_expiries,
                before.presence_lease_expiries,
            ),
            http_errors: before.http_errors.iter().map(status).collect(),
        }
    }
}

impl FromIterator<(u16, u64)> for HttpErrors {
    fn from_iter<I: IntoIterator<Item = (u16, u64)>>(rows: I) -> Self {
        Self(rows.into_iter().collect())
    }
}

impl HttpErrors {
    /// Each status that was answered, and how often.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u16, u64)> {
        self.0.iter().copied()
    }

    /// Counts so many answers of `status`.
    pub fn add(&mut self, status: u16, count: u64) {
        match self.0.iter_mut().find(|row| row.0 == status) {
            Some(row) => row.1 += count,
            None => self.0.push((status, count)),
        }
    }
}

impl Latency {
    /// Records one observation.
    pub fn observe(&mut self, took_us: u64) {
        let bucket = LATENCY_BUCKETS_US.partition_point(|&bound| bound < took_us);
        self.buckets[bucket] += 1;
        self.sum_us += took_us;
    }
}

/// By how much each number has fallen.
pub(super) fn fallen<const N: usize>(now: &[u64; N], before: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|index| before[index].saturating_sub(now[index]))
}

fn absorb_all(ours: &mut [u64], theirs: &[u64]) {
    for (ours, theirs) in ours.iter_mut().zip(theirs) {
        *ours += theirs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_is_gone_is_forgotten_once_nothing_of_it_is_counted() {
        let mut counters = ShardCounters::default();
        let (gone, connected, known) = (AppIndex(0), AppIndex(1), AppIndex(2));
        for app in [gone, connected, known] {
            counters.app(app).messages_sent += 1;
        }
        counters.app(connected).connected += 1;
        counters.forget_apps(|app| app == known);
        let left = |counters: &ShardCounters| counters.apps().map(|it| it.0).collect::<Vec<_>>();
        assert_eq!(left(&counters), [connected, known]);
        counters.app(connected).connected -= 1;
        counters.forget_apps(|app| app == known);
        assert_eq!(left(&counters), [known]);
    }
}
