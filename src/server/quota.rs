//! Budgets that belong to an app, an address or the node, counted at their home shard.
//!
//! Owns: `Quotas`.
//! May depend on: `connection::{pending, token_bucket}`, `server::{addresses, message, settings}`.
//! Invariants: a count is exact at its home; what was granted is returned once.

use std::net::IpAddr;

use ahash::AHashMap;
use shards::application::Millis;

use super::{
    addresses::AddressTable,
    message::{AddressLimit, Budget},
    settings::Settings,
};
use crate::{
    config::sections::RateLimit,
    connection::{pending::RateState, token_bucket::TokenBucket},
    protocol::app::AppIndex,
};

/// What this shard counts for the whole node.
#[derive(Clone)]
pub(super) struct Quotas {
    node_connections: u64,
    apps: AHashMap<AppIndex, AppQuota>,
    api_addresses: AddressTable,
    upgrade_addresses: AddressTable,
    /// This shard's part of the node's accept rate.
    accept: TokenBucket,
    accept_rate_per_s: u32,
    accept_burst: u32,
}

#[derive(Clone, Default)]
struct AppQuota {
    connections: u64,
    backend_events: TokenBucket,
    reads: TokenBucket,
}

/// Addresses remembered per shard and limiter: about 10 MB. Beyond it the one whose window ends
/// first makes room.
const ADDRESSES_MAX: usize = 100_000;
/// Ten ticks per second: a full table is forgotten within 10 s.
const FORGOTTEN_PER_TICK: usize = 1_000;

impl Quotas {
    pub(super) fn new(settings: &Settings, shards: u16) -> Self {
        Self {
            node_connections: 0,
            apps: AHashMap::new(),
            api_addresses: AddressTable::new(ADDRESSES_MAX),
            upgrade_addresses: AddressTable::new(ADDRESSES_MAX),
            accept: TokenBucket::default(),
            accept_rate_per_s: settings.accept_rate_per_s.div_ceil(u32::from(shards)),
            accept_burst: settings.accept_burst.div_ceil(u32::from(shards)),
        }
    }

    /// The node's accept rate may have changed.
    pub(super) fn rates_changed(&mut self, settings: &Settings, shards: u16) {
        self.accept_rate_per_s = settings.accept_rate_per_s.div_ceil(u32::from(shards));
        self.accept_burst = settings.accept_burst.div_ceil(u32::from(shards));
    }

    /// Takes one accept of this shard's rate; always granted without a limit.
    pub(super) fn take_accept(&mut self, now: Millis) -> bool {
        let (burst, rate) = (self.accept_burst, self.accept_rate_per_s);
        rate == 0 || self.accept.take_of(now, burst, rate, 1)
    }

    pub(super) fn admit_to_node(&mut self, connections_max: u64) -> bool {
        let granted = connections_max == 0 || self.node_connections < connections_max;
        self.node_connections += u64::from(granted);
        granted
    }

    pub(super) fn release_node(&mut self, connections: u32) {
        let left = self.node_connections.checked_sub(u64::from(connections));
        self.node_connections = left.expect("what ends was admitted");
    }

    pub(super) fn admit_to_app(&mut self, app: AppIndex, connections_max: u64) -> bool {
        let quota = self.apps.entry(app).or_default();
        let granted = connections_max == 0 || quota.connections < connections_max;
        quota.connections += u64::from(granted);
        granted
    }

    pub(super) fn release_app(&mut self, app: AppIndex, connections: u32) {
        let quota = self.apps.get_mut(&app).expect("what ends was admitted");
        let left = quota.connections.checked_sub(u64::from(connections));
        quota.connections = left.expect("what ends was admitted");
    }

    /// Connections counted here now, for the node and for all apps together.
    pub(super) fn admitted(&self) -> u64 {
        let of_apps: u64 = self.apps.values().map(|quota| quota.connections).sum();
        self.node_connections + of_apps
    }

    /// Spends `count` of an app's rate; `rate_per_s` is not 0.
    pub(super) fn spend(
        &mut self,
        app: AppIndex,
        budget: Budget,
        now: Millis,
        rate_per_s: u32,
        count: u32,
    ) -> (bool, RateState) {
        let quota = self.apps.entry(app).or_default();
        let bucket = match budget {
            Budget::BackendEvents => &mut quota.backend_events,
            Budget::Reads => &mut quota.reads,
        };
        // A request of more events than the rate passes when the bucket is full, or it never would.
        let granted = bucket.take(now, rate_per_s, count.min(rate_per_s));
        let remaining = bucket.left(now, rate_per_s);
        (
            granted,
            RateState {
                limit: rate_per_s,
                remaining,
                reset_s: 1,
            },
        )
    }

    /// Counts one request of an address, as `addresses::counted` gives it.
    pub(super) fn limit_address(
        &mut self,
        which: AddressLimit,
        address: IpAddr,
        now: Millis,
        limit: &RateLimit,
    ) -> (bool, RateState) {
        let table = match which {
            AddressLimit::Api => &mut self.api_addresses,
            AddressLimit::Upgrade => &mut self.upgrade_addresses,
        };
        table.take(address, now, limit)
    }

    /// Forgets addresses whose window has passed, a slice of them.
    pub(super) fn forget_old(&mut self, now: Millis) {
        for table in [&mut self.api_addresses, &mut self.upgrade_addresses] {
            table.forget_old(now, FORGOTTEN_PER_TICK);
        }
    }

    /// Addresses remembered, and windows that had to go before their end.
    pub(super) fn addresses(&self) -> (u64, u64) {
        let tables = [&self.api_addresses, &self.upgrade_addresses];
        let count: usize = tables.iter().map(|table| table.len()).sum();
        (count as u64, tables.iter().map(|table| table.evicted).sum())
    }

    /// Forgets apps that are gone and have no connection left.
    pub(super) fn forget_apps(&mut self, is_known: impl Fn(AppIndex) -> bool) {
        self.apps
            .retain(|app, quota| quota.connections > 0 || is_known(*app));
    }
}
