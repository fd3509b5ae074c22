//! What a seed decides before its run begins: the node's size and configuration, and the pace.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use sockudo::{
    bridge::apps::AppTable,
    config::{self, Config, Sources, app::App},
    server::{NodeSeed, Settings, SocketIdKey},
};

use shards::{application::Millis, work::Work};

use crate::{
    api::Credentials,
    client::is_cache,
    cluster::{self, ClusterPlan, FIRST_WITH_CACHES},
    dice::Dice,
    hooks::GRACE_MS,
    ledger::Moment,
    node::Node,
    turn::Limits,
};

pub(crate) const SHARD_COUNTS: [u16; 4] = [1, 2, 3, 7];

/// What is promised of last events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    pub(crate) kept_ms: u64,
    /// So few are kept that some are evicted: a miss proves nothing.
    pub(crate) evicts: bool,
    /// After which every node that is to know of an event does; 0 where there is one.
    pub(crate) spread_ms: u64,
    /// Until then nodes that start together do not know each other.
    pub(crate) together_at: Millis,
    /// A newcomer may miss the last one, or get an older one: nodes die and the bus fails.
    pub(crate) is_troubled: bool,
}

impl Keeping {
    /// When every node that is to know has heard of what was known on one: what is published before they know each
    /// other waits for that.
    pub(crate) fn heard_by(self, known: Moment) -> Millis {
        match self.spread_ms {
            0 => known.at,
            spread_ms => known.at.max(self.together_at).plus(spread_ms),
        }
    }
}

pub(crate) struct Plan {
    pub(crate) shards: u16,
    /// None where a node is alone.
    pub(crate) cluster: Option<ClusterPlan>,
    pub(crate) keeping: Keeping,
    /// Last events that the node keeps at most, each shard its part.
    pub(crate) kept_max: usize,
    pub(crate) limits: Limits,
    /// Some clients read rarely.
    pub(crate) has_slow: bool,
    /// Apps are disabled and enabled while it runs.
    pub(crate) has_toggles: bool,
    /// Nodes die and the bus fails while it runs.
    pub(crate) has_troubles: bool,
    pub(crate) ends_with_drain: bool,
    pub(crate) clients_max: usize,
    pub(crate) steps: usize,
    pub(crate) padding_max: usize,
    pub(crate) users: Vec<String>,
    pub(crate) channels: Vec<String>,
    pub(crate) apps: Vec<App>,
    pub(crate) seed: NodeSeed,
}

impl Plan {
    /// The seed also names the number of shards, so that one number replays a run.
    pub(crate) fn of(seed: u64, dice: &mut Dice) -> Self {
        let shards = SHARD_COUNTS[(seed % 4) as usize];
        Self::with(seed, dice, shards, &json!({}))
    }

    /// Of several nodes.
    pub(crate) fn of_cluster(seed: u64, dice: &mut Dice) -> Self {
        let mut cluster = ClusterPlan::of(dice);
        let keys = json!({
            "adapter": {"driver": "redis"},
            "cluster": {
                "lease_ms": cluster.times.lease_ms,
                "heartbeat_ms": cluster.times.heartbeat_ms,
                "canary_ms": cluster.times.canary_ms,
            },
        });
        let shards = cluster.shards.iter().copied().max().unwrap_or(1);
        let mut plan = Self::with(seed, dice, shards, &keys);
        if seed >= FIRST_WITH_CACHES {
            // A last event that is answered comes behind the events before it, as it does from one server.
            cluster.manners.keeps_whole_order = true;
            cluster.has_caches = true;
            plan.channels.push(CACHED.to_owned());
        } else {
            plan.channels.retain(|channel| !is_cache(channel));
        }
        if plan.channels.is_empty() {
            plan.channels.push("news".to_owned());
        }
        plan.ends_with_drain = false;
        plan.has_troubles = cluster::has_troubles(seed);
        plan.keeping.spread_ms = cluster.quiet_ms();
        plan.keeping.together_at = Millis(cluster.start_ms());
        plan.keeping.is_troubled = plan.has_troubles;
        Self {
            cluster: Some(cluster),
            ..plan
        }
    }

    fn with(seed: u64, dice: &mut Dice, shards: u16, keys: &Value) -> Self {
        let has_slow = dice.percent(40);
        let kept_s = *dice.pick(&[2, 20, 1_800]);
        let slow_consumer = *dice.pick(&["disconnect", "drop_oldest", "drop_newest"]);
        let quota = *dice.pick(&[0, 1_000]);
        let app = |name: &str| {
            json!({
                "id": format!("{name}-id"), "key": format!("{name}-key"),
                "secret": format!("{name}-secret"),
                "enabled": true, "max_connections": quota, "enable_client_messages": true,
                "max_client_events_per_second": 0, "enable_user_authentication": true,
                "max_backend_events_per_second": quota * 1_000,
                "max_read_requests_per_second": quota * 1_000,
                "enable_watchlist_events": true, "enable_subscription_count": true,
                "webhooks": [{"url": "http://127.0.0.1:9/hook", "event_types": [
                    "channel_occupied", "channel_vacated", "member_added", "member_removed",
                    "client_event", "cache_miss", "subscription_count",
                ]}],
            })
        };
        let evicts = dice.percent(20);
        let capacity = if evicts { usize::from(shards) } else { 100_000 };
        let members_max = *dice.pick(&[3, 100]);
        let mut config = json!({
            "rate_limiter": {"enabled": false},
            "webhooks": {"grace_ms": GRACE_MS},
            "channel_limits": {"cache_ttl": kept_s},
            "presence": {"max_members_per_channel": members_max},
            "admission": {"max_connections": quota},
            "cache": {"memory": {"max_capacity": capacity}},
            "net": {"slow_consumer": slow_consumer},
            "app_manager": {"driver": "memory", "array": {"apps": [app("one"), app("two")]}},
        });
        for (key, value) in keys.as_object().expect("keys are an object") {
            config[key] = value.clone();
        }
        let config = loaded(&config);
        let node_seed = node_seed(&config, seed);
        let mut limits = Limits::USUAL;
        if dice.percent(50) {
            // Turns so short that fan-outs take several even with few subscribers.
            limits.turn_work = Work::SEND.times(*dice.pick(&[1, 2, 3, 8, 30]));
        }
        if has_slow {
            limits.outbox_bytes_max = dice.between(3_000, 12_000);
            limits.burst_bytes_max = limits.outbox_bytes_max * *dice.pick(&[1, 2, 5]);
        }
        let channel_count = dice.between(3, CHANNELS.len());
        let mut channels: Vec<String> = CHANNELS.iter().map(|it| (*it).to_owned()).collect();
        dice.shuffle(&mut channels);
        channels.truncate(channel_count);
        Self {
            shards,
            cluster: None,
            keeping: Keeping {
                kept_ms: kept_s * 1_000,
                evicts,
                spread_ms: 0,
                together_at: Millis(0),
                is_troubled: false,
            },
            kept_max: capacity,
            limits,
            has_slow,
            has_toggles: dice.percent(30),
            has_troubles: false,
            ends_with_drain: dice.percent(30),
            clients_max: dice.between(4, 16),
            steps: dice.between(150, 500),
            padding_max: *dice.pick(&[0, 20, 400]),
            users: (0..dice.between(2, 6))
                .map(|number| format!("u{number}"))
                .collect(),
            channels,
            apps: config.app_manager.apps,
            seed: node_seed,
        }
    }

    pub(crate) fn credentials(&self, app: usize) -> Credentials {
        let app = &self.apps[app];
        Credentials {
            id: app.id.clone(),
            key: app.key.clone(),
            secret: app.secrets[0].expose().to_owned(),
        }
    }
}

/// The seed of a node with a configuration.
pub(crate) fn node_seed(config: &Config, seed: u64) -> NodeSeed {
    NodeSeed {
        settings: Settings::from_config(config, "node".to_owned(), 1_000_000)
            .expect("no CORS is configured"),
        apps: Arc::new(AppTable::build(&config.app_manager.apps, None)),
        homes: Node::homes(seed),
        socket_ids: SocketIdKey::from_seed(seed),
    }
}

/// A configuration from its JSON.
pub(crate) fn loaded(json: &Value) -> Config {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.json");
    std::fs::write(&file, json.to_string()).expect("the configuration can be written");
    let sources = Sources {
        config: Some(file),
        environment: BTreeMap::new(),
        ..Sources::default()
    };
    config::load(&sources)
        .expect("the configuration holds")
        .config
}

/// A cache channel of each run of a cluster that has any.
pub(crate) const CACHED: &str = "cache-rates";

const CHANNELS: [&str; 11] = [
    "news",
    "other-news",
    "private-room",
    "private-encrypted-vault",
    "presence-lobby",
    "presence-hall",
    "cache-prices",
    "private-cache-orders",
    "private-encrypted-cache-safe",
    "presence-cache-board",
    "presence-cache-table",
];
