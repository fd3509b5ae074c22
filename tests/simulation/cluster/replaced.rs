//! A node of several whose process is replaced: the next one first hears all that this one hears, then takes
//! its place in the middle of everything. The others notice nothing.

use shards::application::Millis;
use sockudo::{
    bridge::{
        apps::AppTable,
        nodes::{exchange::Exchange, told::Told},
    },
    cluster::topic::Road,
    handover::record::Exported,
    server::{NodeSeed, SocketIdKey},
};

use super::{
    bridge::{Bridge, is_for_nodes, since_start},
    seed_of, setup,
};
use crate::{
    dice::Dice,
    node::Node,
    nodes::{Condition, Nodes},
    plan::Plan,
    world::World,
};

/// A process that takes the place of a node's.
pub(super) struct Follower {
    pub(super) node: usize,
    pub(super) bridge: Bridge,
    shards: u16,
    /// Since when it hears all that the process before hears.
    pub(super) proven_at: Option<Millis>,
    /// When it heard the others not, or not yet again, of what it had heard.
    pub(super) deaf_at: Option<Millis>,
    /// What it was told by that one, which is still.
    given: Option<Given>,
}

struct Given {
    exported: Vec<Exported>,
    /// Of the other nodes; that process hears the bus no more.
    records: Option<Vec<Vec<u8>>>,
}

/// In which a node settles that waits for nobody.
const ROUNDS_MAX: usize = 1_000;

impl Follower {
    /// After a turn of it.
    pub(super) fn notes_what_it_hears(&mut self, now: Millis) {
        if !self.bridge.exchange.is_proven([]) {
            self.deaf_at = self.deaf_at.map(|_| now);
        }
    }
}

impl World {
    /// Another process begins to follow a node's, or takes its place at one stroke.
    pub(crate) fn is_followed_or_replaced(&mut self, number: u64, shards: u16) {
        let nodes = &mut self.nodes;
        if nodes.followed().is_none() {
            let node = (number >> 8) as usize % nodes.all.len();
            return nodes.is_followed(&self.plan, node, number, shards);
        }
        if nodes.falls_silent(&self.plan.seed.apps, &mut self.dice) {
            nodes.gives(&self.plan.seed.apps);
            nodes.is_taken_over(&self.plan, number);
        }
    }
}

impl Nodes {
    /// The node of which another process is about to take the place.
    pub(crate) fn followed(&self) -> Option<usize> {
        Some(self.cluster.as_ref()?.follower.as_ref()?.node)
    }

    /// It is silent: another process is being told all that it knows.
    pub(crate) fn has_silent(&self) -> bool {
        let followed = self.followed();
        followed.is_some_and(|node| self.condition(node) == Condition::Silent)
    }

    /// When the process that follows heard the others not, or not yet again.
    pub(crate) fn follower_deaf_at(&self) -> Option<Millis> {
        self.cluster.as_ref()?.follower.as_ref()?.deaf_at
    }

    /// Whether another process may begin to: the node serves, and its bus works.
    pub(crate) fn may_be_followed(&self, node: usize) -> bool {
        let cluster = self.cluster.as_ref().expect("nodes have others");
        let exchange = &cluster.bridges[node].exchange;
        let is_up = Road::ALL.iter().all(|road| cluster.bus.is_up(node, *road));
        self.is_live(node) && is_up && !exchange.is_starting() && !exchange.is_failing()
    }

    pub(crate) fn is_followed(&mut self, plan: &Plan, node: usize, number: u64, shards: u16) {
        let (Some(of), Some(cluster)) = (&plan.cluster, &mut self.cluster) else {
            return;
        };
        let before = &cluster.bridges[node].exchange;
        let mut setup = setup(of, node, shards, before.incarnation().0);
        setup.node.hasher = Node::homes(number);
        let now = since_start(self.all[node].now);
        let exchange = Exchange::following(now, setup, before.subscribed());
        let seat = cluster.bus.is_joined(node);
        cluster.follower = Some(Follower {
            node,
            bridge: Bridge::follow(seat, shards, exchange),
            shards,
            proven_at: None,
            deaf_at: None,
            given: None,
        });
    }

    /// If the process that follows hears all by now, the one before comes to rest, and tells it what its shards
    /// hold. True: so it is.
    pub(crate) fn falls_silent(&mut self, apps: &AppTable, dice: &mut Dice) -> bool {
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let follower = cluster.follower.as_mut().expect("it follows");
        let (bus, node) = (&mut cluster.bus, follower.node);
        let (before, it) = (&mut cluster.bridges[node], &mut self.all[node]);
        let subscribed: Vec<_> = before.exchange.subscribed().collect();
        follower.bridge.exchange.follow(subscribed.iter().copied());
        let is_proven = follower.bridge.exchange.is_proven(subscribed);
        let proven_at = *follower.proven_at.get_or_insert(it.now);
        if !is_proven {
            follower.proven_at = None;
        }
        // What the bus has sent before is on its way to the process before only.
        if !is_proven || it.now < proven_at.plus(bus.way_ms_max()) {
            return false;
        }
        loop {
            let is_settled = it.may_freeze(ROUNDS_MAX);
            let (for_nodes, others): (Vec<_>, Vec<_>) = std::mem::take(&mut it.told)
                .into_iter()
                .partition(|(_, _, message)| is_for_nodes(message));
            it.told = others;
            let is_quiet = for_nodes.is_empty();
            for (shard, _, message) in for_nodes {
                before.tell(shard.0.into(), message);
            }
            let is_told = before.comes_to_rest(it, apps, bus, dice);
            // A shard's last words may have been a wish; it may wait for what the bus brings.
            let subscribed = before.exchange.subscribed();
            if !is_settled || !follower.bridge.exchange.is_proven(subscribed) {
                it.thaws();
                follower.proven_at = follower.proven_at.filter(|_| !is_settled);
                return false;
            }
            if is_quiet && !is_told {
                break;
            }
        }
        before.holds(it.now, apps, bus);
        let (exported, records) = (it.exports(), None);
        follower.given = Some(Given { exported, records });
        self.becomes(node, Condition::Silent);
        true
    }

    /// What the bus has brought to both processes is kept.
    pub(super) fn hear_in_silence(&mut self, apps: &AppTable, dice: &mut Dice) {
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let follower = cluster.follower.as_mut().expect("it follows");
        let (bus, node) = (&mut cluster.bus, follower.node);
        let it = &mut self.all[node];
        bus.advance(it.now, dice);
        follower.bridge.turn(it, apps, bus, dice, false);
        follower.notes_what_it_hears(it.now);
        if follower
            .given
            .as_ref()
            .is_some_and(|it| it.records.is_none())
        {
            cluster.bridges[node].hears_in_silence(it.now, apps, bus);
        }
    }

    /// The process before tells what it knows of the other nodes, and hears nothing any more.
    pub(crate) fn gives(&mut self, apps: &AppTable) {
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let follower = cluster.follower.as_mut().expect("it follows");
        let given = follower.given.as_mut().expect("it was told the rest");
        let exchange = &cluster.bridges[follower.node].exchange;
        given.records.get_or_insert_with(|| {
            let mut records = Vec::new();
            exchange.carry(apps, &mut |record| records.push(record));
            records
        });
    }

    /// The process that follows is the node from now on.
    pub(crate) fn is_taken_over(&mut self, plan: &Plan, number: u64) {
        let apps = &plan.seed.apps;
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let mut follower = cluster.follower.take().expect("it follows");
        let node = follower.node;
        let it = &mut self.all[node];
        let given = follower.given.take().expect("it was told everything");
        let seed = NodeSeed {
            homes: Node::homes(number),
            socket_ids: SocketIdKey::from_seed(number),
            ..seed_of(plan, node, number)
        };
        it.is_replaced_by(&seed, plan.limits, follower.shards, given.exported);
        let (now, mut told) = (since_start(it.now), Told::new());
        let exchange = &mut follower.bridge.exchange;
        let records = given.records.expect("it was told of the others");
        let taken = exchange.take_records(now, &records);
        taken.expect("the records are whole");
        exchange.take_over(now, apps, &mut told);
        for (shard, message) in told {
            it.tell(usize::from(shard.0), message);
        }
        cluster.bus.is_left_alone(node);
        follower.bridge.number = node;
        follower.bridge.shared_at = cluster.bridges[node].shared_at;
        cluster.bridges[node] = follower.bridge;
        cluster.replaced += 1;
        self.becomes(node, Condition::Live);
    }

    /// The process that follows ends. The one before, if it lives, goes on.
    pub(super) fn is_left(&mut self, apps: &AppTable) {
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let follower = cluster.follower.take().expect("it follows");
        cluster.bus.spare_ends();
        let node = follower.node;
        if self.condition(node) != Condition::Silent {
            return;
        }
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let it = &mut self.all[node];
        let (now, mut told) = (since_start(it.now), Told::new());
        let exchange = &mut cluster.bridges[node].exchange;
        exchange.release(now, apps, &mut told);
        for (shard, message) in told {
            it.tell(usize::from(shard.0), message);
        }
        it.thaws();
        cluster.left += 1;
        self.becomes(node, Condition::Live);
    }
}
