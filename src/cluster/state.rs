//! Data path. The state of the cluster on this node: its own, told and asked for; the peers', merged.
//!
//! Owns: `State`, which leads what is heard of it to the ledger, the supply or the view.
//! May depend on: the rest of `cluster` but `node`, ahash, `Millis`.
//! Invariants: whatever peers say or ask, a step does no more work than the batch is long.

use ahash::RandomState;
use shards::application::Millis;

use super::{
    app_ids::AppIds,
    carrying::{Carrier, CarryError, Kind, read},
    drafts::Drafts,
    entry::{Entry, GROUPS, Group, Heartbeat, NumbersAsk, SnapshotAsk},
    figures::ByKind,
    holdings::{Departure, Place, Space, Text, ViewChange},
    identity::Identity,
    ledger::{Ledger, LedgerCounters, Own},
    retelling::Retold,
    supply::{Supply, SupplyCounters},
    tallies::Tallies,
    topic::Topic,
    view::{View, ViewCounters},
    wire::Entries,
};
use crate::protocol::partition::Partition;

/// What happened to the state, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounters {
    pub own: LedgerCounters,
    pub view: ViewCounters,
    pub supply: SupplyCounters,
    /// Own questions for which there was no room; they are asked again.
    pub asks_unsaid: u64,
}

#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    /// After so long without an answer a question is asked again.
    again_ms: u64,
    apps: AppIds,
    ledger: Ledger,
    supply: Supply,
    view: View,
    asks_unsaid: u64,
}

/// What stood in a batch of state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StateTally {
    pub(super) heard: ByKind,
    pub(super) broken: u64,
    pub(super) misplaced: u64,
}

impl State {
    pub(super) fn new(
        identity: Identity,
        lease_ms: u64,
        hasher: &RandomState,
        bytes_max: usize,
    ) -> Self {
        Self {
            identity,
            again_ms: lease_ms / 4,
            apps: AppIds::new(hasher.clone()),
            ledger: Ledger::new(hasher.clone()),
            supply: Supply::new(),
            view: View::new(hasher.clone(), bytes_max),
            asks_unsaid: 0,
        }
    }

    pub(super) fn report(&mut self, now: Millis, own: &Own<'_>, drafts: &mut Drafts) {
        self.ledger.report(now, &mut self.apps, own, drafts);
    }

    /// Ends what this node has of apps that are not known here.
    pub(super) fn end_unknown(
        &mut self,
        now: Millis,
        is_known: impl Fn(&str) -> bool,
        drafts: &mut Drafts,
    ) {
        let (ledger, apps) = (&mut self.ledger, &mut self.apps);
        ledger.end_unknown(now, apps, is_known, drafts);
    }

    pub(super) fn join(&mut self, peer: Identity) {
        self.view.join(peer);
    }

    pub(super) fn leave(&mut self, peer: Identity, why: Departure) {
        self.view.leave(peer, why);
    }

    /// Takes what a peer says on the topic of a group.
    pub(super) fn hear_group(
        &mut self,
        now: Millis,
        sender: Identity,
        group: Group,
        entries: &mut Entries<'_>,
        tell: &mut impl FnMut(ViewChange<'_>),
    ) -> StateTally {
        let mut tally = StateTally::default();
        let again_at = now.plus(self.again_ms);
        let is_here = |partition| Group::of(partition) == group;
        let view = &mut self.view;
        for entry in entries {
            if let Ok(entry) = &entry {
                tally.heard.add(entry);
            }
            match entry {
                // On another group's topic its order would be that of nothing.
                Ok(Entry::Delta(delta)) if is_here(delta.partition) => {
                    view.hear_delta(now, sender, &mut self.apps, &delta, tell);
                }
                Ok(Entry::Snapshot(snapshot)) if is_here(snapshot.partition) => {
                    view.hear_snapshot(sender, &snapshot, again_at);
                }
                Ok(Entry::Latest(latest)) if is_here(latest.partition) => {
                    view.hear_latest(now, sender, latest);
                }
                Ok(_) => tally.misplaced += 1,
                Err(_) => tally.broken += 1,
            }
        }
        tally
    }

    pub(super) fn hear_heartbeat(
        &mut self,
        now: Millis,
        sender: Identity,
        heartbeat: &Heartbeat,
        drafts: &mut Drafts,
    ) {
        let (view, unsaid) = (&mut self.view, &mut self.asks_unsaid);
        view.hear_heartbeat(now, sender, heartbeat, self.again_ms, |entry| {
            *unsaid += u64::from(drafts.push(Topic::Nodes, &entry).is_err());
        });
    }

    pub(super) fn hear_numbers_ask(&mut self, ask: &NumbersAsk) {
        if ask.of == self.identity {
            self.supply.ask_numbers(ask.group);
        }
    }

    pub(super) fn hear_snapshot_ask(&mut self, now: Millis, asker: Identity, ask: &SnapshotAsk) {
        if ask.of == self.identity {
            let (partition, from) = (ask.partition, ask.from);
            self.supply.ask_snapshot(now, asker.node, partition, from);
        }
    }

    /// Says and asks what is due.
    pub(super) fn tick(&mut self, now: Millis, drafts: &mut Drafts) {
        self.ledger.tick(now, &self.apps, drafts);
        let unsaid = &mut self.asks_unsaid;
        self.view.ask(now, self.again_ms, |entry| {
            *unsaid += u64::from(drafts.push(Topic::Nodes, &entry).is_err());
        });
        let tallies = self.view.tallies_mut();
        let (apps, ledger) = (&self.apps, &mut self.ledger);
        self.supply.tick(now, apps, ledger, drafts, |asker| {
            tallies.of(asker).snapshots_sent += 1;
        });
    }

    /// When `tick` is due.
    pub(super) fn due(&self, ticked_at: Millis) -> Option<Millis> {
        let pace = ticked_at.plus(PACE_MS);
        let supply = self.supply.is_busy().then_some(pace);
        let dues = [self.ledger.due(), self.view.due(), supply];
        // What is left of a tick waits for the next one.
        dues.into_iter().flatten().min().map(|due| due.max(pace))
    }

    /// What the others have of an app is told once more, or that they have nothing.
    pub(super) fn retell(&mut self, app: &str, retold: Retold) {
        if let Some(number) = self.apps.find(app) {
            self.view.retell(number, retold);
        }
    }

    /// Goes on with what is long. True: more is left.
    pub(super) fn work(&mut self, limit: usize, tell: &mut impl FnMut(ViewChange<'_>)) -> bool {
        self.view.work(&mut self.apps, limit, tell)
    }

    /// So many at most of the peers that keep the last event of a channel.
    pub(super) fn keepers(
        &mut self,
        partition: Partition,
        app: &str,
        channel: &str,
        count_max: usize,
    ) -> Vec<Identity> {
        let Some(app) = self.apps.intern(app) else {
            return Vec::new();
        };
        let place = Place {
            partition,
            space: Space::Kept,
            app,
            name: Text::Plain(channel),
        };
        self.view.keepers(place).take(count_max).collect()
    }

    /// Partitions of a peer of which something is missing here.
    pub(super) fn behind(&self, peer: Identity) -> usize {
        self.view.behind(peer)
    }

    pub(super) fn carry(&self, carrier: &mut Carrier<'_>) {
        carrier.rows(Kind::APPS, self.apps.all());
        self.ledger.carry(carrier);
        self.supply.carry(carrier);
        self.view.carry(carrier);
    }

    /// Takes an item of what was carried; those of kinds that are not known are skipped.
    pub(super) fn take_item(&mut self, kind: Kind, item: &[u8]) -> Result<(), CarryError> {
        match kind {
            Kind::APPS => {
                for id in read::<Vec<&str>>(item)? {
                    self.apps.intern(id).ok_or(CarryError::NO_SUCH_APP)?;
                }
            }
            Kind::LEDGER => self.ledger.take_record(&self.apps, item)?,
            Kind::LEDGER_ROWS => self.ledger.take_rows(&self.apps, item)?,
            Kind::SUPPLY => self.supply = Supply::carried(item)?,
            Kind::SUPPLY_PART => self.supply.take_part(item)?,
            _ => self.view.take_item(&self.apps, kind, item)?,
        }
        Ok(())
    }

    /// All items were taken. Whether the peers that hold something are just those.
    pub(super) fn settle(&mut self, peers: impl Iterator<Item = Identity>) -> bool {
        self.view.settle(peers)
    }

    /// What is counted of each peer.
    pub(super) fn tallies(&self) -> &Tallies {
        self.view.tallies()
    }

    pub(super) fn tallies_mut(&mut self) -> &mut Tallies {
        self.view.tallies_mut()
    }

    /// What has been told: by group the sum of the latest numbers.
    pub(super) fn sums(&self) -> [u64; GROUPS] {
        self.ledger.sums()
    }

    pub(super) fn counters(&self) -> StateCounters {
        StateCounters {
            own: self.ledger.counters(),
            view: self.view.counters(),
            supply: self.supply.counters(),
            asks_unsaid: self.asks_unsaid,
        }
    }
}

/// Between two ticks with much to say.
const PACE_MS: u64 = 20;
