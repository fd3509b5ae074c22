//! Budgets that belong to an app, an address or the node, counted at their home shard.
//!
//! Owns: `Quotas`.
//! May depend on: `connection::{pending, token_bucket}`, `handover::record`,
//! `server::{addresses, message, settings}`.
//! Invariants: a count is exact at its home; what was granted is returned once; what other nodes are
//! told of is what is so when they are told.

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
    handover::record::{AppRatesRecord, WindowRecord},
    protocol::{app::AppIndex, partition::Partition},
};

/// What this shard counts for the whole node.
#[derive(Clone)]
pub(super) struct Quotas {
    node_connections: u64,
    apps: AHashMap<AppIndex, AppQuota>,
    api_addresses: AddressTable,
    upgrade_addresses: AddressTable,
    /// Fills as the node's would, and each accept takes as many tokens as there are shards: so all of them
    /// together keep the node's rate, however low it is.
    accept: TokenBucket,
    accept_rate_per_s: u32,
    accept_burst: u32,
    accept_price: u32,
    /// Apps of which other nodes do not know what is so; without other nodes there is none.
    unsaid: Vec<AppIndex>,
    /// Apps whose rates were used since the last tick, which tells of them.
    spenders: Vec<AppIndex>,
    has_nodes: bool,
}

#[derive(Clone, Default)]
struct AppQuota {
    connections: u64,
    /// Of the app itself, since one that is taken away still has connections that end.
    partition: Option<Partition>,
    /// On the other nodes.
    elsewhere: u64,
    backend_events: TokenBucket,
    reads: TokenBucket,
    /// Used since other nodes were told.
    spent: [u32; 2],
    has_changed: bool,
    is_unsaid: bool,
}

/// What other nodes are to be told of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AppNews {
    pub(super) app: AppIndex,
    pub(super) partition: Option<Partition>,
    /// None: as many as they know of.
    pub(super) connections: Option<u64>,
    /// By `Budget`.
    pub(super) spent: [u32; 2],
}

/// Addresses remembered per shard and limiter: about 10 MB. Beyond it the one whose window ends
/// first makes room.
pub(super) const ADDRESSES_MAX: usize = 100_000;
/// Ten ticks per second: a full table is forgotten within 10 s.
const FORGOTTEN_PER_TICK: usize = 1_000;

impl Quotas {
    pub(super) fn new(settings: &Settings, shards: u16) -> Self {
        let mut quotas = Self::without_rates();
        quotas.rates_changed(settings, shards);
        quotas
    }

    fn without_rates() -> Self {
        Self {
            node_connections: 0,
            apps: AHashMap::new(),
            api_addresses: AddressTable::new(ADDRESSES_MAX),
            upgrade_addresses: AddressTable::new(ADDRESSES_MAX),
            accept: TokenBucket::default(),
            accept_rate_per_s: 0,
            accept_burst: 0,
            accept_price: 1,
            unsaid: Vec::new(),
            spenders: Vec::new(),
            has_nodes: false,
        }
    }

    /// From now on there are other nodes to tell.
    pub(super) fn with_nodes(self, has_nodes: bool) -> Self {
        Self { has_nodes, ..self }
    }

    /// The node's accept rate may have changed.
    pub(super) fn rates_changed(&mut self, settings: &Settings, shards: u16) {
        self.accept_rate_per_s = settings.accept_rate_per_s;
        let shards = u32::from(shards);
        // One accept of each shard more, since they do not come to all in turn.
        let more = if shards > 1 { shards } else { 0 };
        self.accept_burst = settings.accept_burst.max(shards).saturating_add(more);
        self.accept_price = shards;
    }

    /// Takes one accept of this shard's rate; always granted without a limit.
    pub(super) fn take_accept(&mut self, now: Millis) -> bool {
        let (burst, rate) = (self.accept_burst, self.accept_rate_per_s);
        rate == 0 || self.accept.take_of(now, burst, rate, self.accept_price)
    }

    pub(super) fn admit_to_node(&mut self, connections_max: u64) -> bool {
        let granted = connections_max == 0 || self.node_connections < connections_max;
        self.node_connections += u64::from(granted);
        granted
    }

    /// A connection counts that is there already: another process has admitted it, or the app had no limit
    /// when it came. Whatever the limit, it stays.
    pub(super) fn count_in_app(&mut self, app: AppIndex, partition: Option<Partition>) {
        _ = self.admit_to_app(app, partition, 0);
    }

    /// So many connections count that another process has admitted.
    pub(super) fn restore_in_node(&mut self, connections: u32) {
        self.node_connections += u64::from(connections);
    }

    /// What of the apps' rates is used up, and how many connections are elsewhere; ids are the caller's.
    pub(super) fn rates(&self) -> impl Iterator<Item = (AppIndex, AppRatesRecord)> {
        let used = self.apps.iter();
        used.map(|(app, it)| {
            let record = AppRatesRecord {
                app: String::new(),
                backend_events: it.backend_events.parts(),
                reads: it.reads.parts(),
                elsewhere: it.elsewhere,
                spent: it.spent,
            };
            (*app, record)
        })
    }

    /// So much of an app's rates is used up; see `rates`. Other nodes are told its connections once more.
    pub(super) fn restore_rates(
        &mut self,
        app: AppIndex,
        partition: Partition,
        rates: &AppRatesRecord,
    ) {
        let quota = self.apps.entry(app).or_default();
        quota.backend_events = TokenBucket::of_parts(rates.backend_events);
        quota.reads = TokenBucket::of_parts(rates.reads);
        quota.elsewhere = rates.elsewhere;
        quota.spent = rates.spent;
        quota.partition = Some(partition);
        quota.has_changed = true;
        self.owe(app);
    }

    /// Open windows of addresses.
    pub(super) fn windows(&self, now: Millis) -> Vec<WindowRecord> {
        let mut windows: Vec<WindowRecord> = self.api_addresses.windows(now).collect();
        windows.extend(self.upgrade_addresses.windows(now).map(|it| WindowRecord {
            is_of_upgrades: true,
            ..it
        }));
        windows
    }

    /// An address has an open window.
    pub(super) fn restore_window(&mut self, window: &WindowRecord) {
        let table = match window.is_of_upgrades {
            false => &mut self.api_addresses,
            true => &mut self.upgrade_addresses,
        };
        table.restore(window);
    }

    pub(super) fn release_node(&mut self, connections: u32) {
        let left = self.node_connections.checked_sub(u64::from(connections));
        self.node_connections = left.expect("what ends was admitted");
    }

    pub(super) fn admit_to_app(
        &mut self,
        app: AppIndex,
        partition: Option<Partition>,
        connections_max: u64,
    ) -> bool {
        let quota = self.apps.entry(app).or_default();
        quota.partition = partition.or(quota.partition);
        let all = quota.connections.saturating_add(quota.elsewhere);
        let granted = connections_max == 0 || all < connections_max;
        quota.connections += u64::from(granted);
        quota.has_changed |= granted;
        if granted {
            self.owe(app);
        }
        granted
    }

    /// Other nodes have so many connections of the app.
    pub(super) fn set_elsewhere(&mut self, app: AppIndex, connections: u64) {
        self.apps.entry(app).or_default().elsewhere = connections;
    }

    pub(super) fn release_app(&mut self, app: AppIndex, connections: u32) {
        let quota = self.apps.get_mut(&app).expect("what ends was admitted");
        let left = quota.connections.checked_sub(u64::from(connections));
        quota.connections = left.expect("what ends was admitted");
        quota.has_changed = true;
        self.owe(app);
    }

    /// Other nodes are to be told of the app.
    fn owe(&mut self, app: AppIndex) {
        let quota = self.apps.get_mut(&app).filter(|_| self.has_nodes);
        let Some(quota) = quota else { return };
        if !std::mem::replace(&mut quota.is_unsaid, true) {
            self.unsaid.push(app);
        }
    }

    /// What was used since the last tick is to be told.
    pub(super) fn tick(&mut self) {
        for app in std::mem::take(&mut self.spenders) {
            self.owe(app);
        }
    }

    /// A tick will have something to tell.
    pub(super) fn wants_tick(&self) -> bool {
        !self.spenders.is_empty()
    }

    /// There is something to tell other nodes.
    pub(super) fn has_news(&self) -> bool {
        !self.unsaid.is_empty()
    }

    /// The next thing to tell them; whoever takes it tells it.
    pub(super) fn next_news(&mut self) -> Option<AppNews> {
        let app = self.unsaid.pop()?;
        let quota = self.apps.get_mut(&app)?;
        quota.is_unsaid = false;
        let has_changed = std::mem::take(&mut quota.has_changed);
        Some(AppNews {
            app,
            partition: quota.partition,
            connections: has_changed.then_some(quota.connections),
            spent: std::mem::take(&mut quota.spent),
        })
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
        let granted = bucket.take_or_owe(now, rate_per_s, count);
        let remaining = bucket.left(now, rate_per_s);
        let wanted = if granted { rate_per_s } else { count };
        let reset_s = bucket.wait_ms(now, rate_per_s, wanted).div_ceil(1_000);
        if granted && self.has_nodes {
            if quota.spent == [0; 2] {
                self.spenders.push(app);
            }
            let spent = &mut quota.spent[budget as usize];
            *spent = spent.saturating_add(count);
        }
        (
            granted,
            RateState {
                limit: rate_per_s,
                remaining,
                reset_s: u32::try_from(reset_s.max(1)).unwrap_or(u32::MAX),
            },
        )
    }

    /// Another node has spent so much, by `Budget`, of rates that are not 0 where there is one.
    pub(super) fn spent_elsewhere(
        &mut self,
        app: AppIndex,
        now: Millis,
        rates_per_s: [u32; 2],
        spent: [u32; 2],
    ) {
        let quota = self.apps.entry(app).or_default();
        let buckets = [&mut quota.backend_events, &mut quota.reads];
        for ((bucket, rate_per_s), spent) in buckets.into_iter().zip(rates_per_s).zip(spent) {
            bucket.taken_elsewhere(now, rate_per_s, spent);
        }
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
            .retain(|app, quota| quota.connections > 0 || quota.is_unsaid || is_known(*app));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: AppIndex = AppIndex(0);

    fn quotas(has_nodes: bool) -> Quotas {
        Quotas::without_rates().with_nodes(has_nodes)
    }

    fn admits(quotas: &mut Quotas, connections_max: u64) -> bool {
        let partition = Partition::from_number(7);
        quotas.admit_to_app(APP, partition, connections_max)
    }

    #[test]
    fn connections_of_all_nodes_count() {
        let mut quotas = quotas(true);
        quotas.set_elsewhere(APP, 2);
        assert!(admits(&mut quotas, 3));
        assert!(!admits(&mut quotas, 3));
        quotas.set_elsewhere(APP, 0);
        assert!(admits(&mut quotas, 3));
        quotas.set_elsewhere(APP, u64::from(u32::MAX));
        assert!(!admits(&mut quotas, 3));
        assert!(admits(&mut quotas, 0), "no limit");
        quotas.release_app(APP, 2);
        let news = quotas.next_news().expect("it has changed");
        assert_eq!(news.connections, Some(1), "what is so now, once");
        assert_eq!(quotas.next_news(), None);
    }

    #[test]
    fn who_is_there_already_counts_whatever_the_limit_and_leaves_a_place() {
        let mut quotas = quotas(true);
        for _ in 0..4 {
            quotas.count_in_app(APP, Partition::from_number(7));
        }
        let news = quotas.next_news().expect("other nodes count them too");
        assert_eq!(news.connections, Some(4));
        assert!(!admits(&mut quotas, 3));
        quotas.release_app(APP, 1);
        assert!(!admits(&mut quotas, 3));
        quotas.release_app(APP, 1);
        assert!(admits(&mut quotas, 3));
    }

    #[test]
    fn what_is_used_is_told_by_the_tick_and_what_others_used_is_missing() {
        let mut quotas = quotas(true);
        for count in [3, 4] {
            assert!(quotas.spend(APP, Budget::Reads, Millis(0), 10, count).0);
        }
        assert!(!quotas.has_news() && quotas.wants_tick());
        quotas.tick();
        let news = quotas.next_news().expect("it was used");
        assert_eq!((news.connections, news.spent), (None, [0, 7]));
        quotas.tick();
        assert!(!quotas.has_news() && !quotas.wants_tick());
        quotas.spent_elsewhere(APP, Millis(0), [10, 10], [0, 3]);
        assert!(!quotas.spend(APP, Budget::Reads, Millis(0), 10, 1).0);
        assert!(
            quotas
                .spend(APP, Budget::BackendEvents, Millis(0), 10, 10)
                .0
        );
    }

    #[test]
    fn a_request_beyond_the_rate_is_paid_by_those_that_come_after_it() {
        let mut quotas = quotas(true);
        let mut spend = |now, count| {
            let (granted, rate) = quotas.spend(APP, Budget::BackendEvents, Millis(now), 10, count);
            (granted, rate.remaining, rate.reset_s)
        };
        assert_eq!(spend(0, 35), (true, 0, 4), "whole again in 3.5 s");
        assert_eq!(spend(0, 1), (false, 0, 3), "one in 2.6 s");
        assert_eq!(spend(2_600, 1), (true, 0, 1));
        assert_eq!(spend(2_600, 35), (false, 0, 1));
        quotas.tick();
        let news = quotas.next_news().expect("it was used");
        assert_eq!(news.spent, [36, 0]);
    }

    #[test]
    fn what_was_used_before_a_hand_over_is_told_after_it() {
        let mut before = quotas(true);
        assert!(before.spend(APP, Budget::Reads, Millis(0), 10, 4).0);
        let (_, record) = before.rates().next().expect("the app is counted");
        let mut after = quotas(true);
        let partition = Partition::from_number(7).expect("there are more");
        after.restore_rates(APP, partition, &record);
        let news = after.next_news().expect("others do not know");
        assert_eq!(news.spent, [0, 4]);
        assert!(!after.spend(APP, Budget::Reads, Millis(0), 10, 7).0);
    }

    #[test]
    fn a_node_that_is_alone_tells_nobody() {
        let mut quotas = quotas(false);
        assert!(admits(&mut quotas, 3));
        assert!(quotas.spend(APP, Budget::Reads, Millis(0), 10, 1).0);
        quotas.tick();
        assert!(!quotas.has_news() && !quotas.wants_tick());
    }
}
