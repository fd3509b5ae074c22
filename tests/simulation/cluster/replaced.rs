//! A node of several whose process is replaced: the next one first hears all that this one hears, then takes
//! its place in the middle of everything. The others notice nothing.

use shards::application::Millis;
use sockudo::{
    bridge::{
        apps::AppTable,
        nodes::{exchange::Exchange, told::Told},
    },
    server::{NodeSeed, SocketIdKey},
};

use super::{
    bridge::{Bridge, is_for_nodes, since_start},
    seed_of, setup,
};
use crate::{dice::Dice, node::Node, nodes::Nodes, plan::Plan, world::World};

/// A process that takes the place of a node's.
pub(super) struct Follower {
    pub(super) node: usize,
    pub(super) bridge: Bridge,
    shards: u16,
    /// Since when it hears all that the process before hears.
    proven_at: Option<Millis>,
}

/// In which a node settles that waits for nobody.
const ROUNDS_MAX: usize = 1_000;

impl World {
    /// Another process begins to follow a node's, or takes its place.
    pub(crate) fn is_followed_or_replaced(&mut self, number: u64, shards: u16) {
        let nodes = &mut self.nodes;
        let cluster = nodes.cluster.as_mut().expect("nodes have others");
        if cluster.follower.is_none() {
            let node = (number >> 8) as usize % nodes.all.len();
            return nodes.is_followed(&self.plan, node, number, shards);
        }
        let apps = &self.plan.seed.apps;
        nodes.may_be_replaced(&self.plan, number, apps, &mut self.dice);
    }
}

impl Nodes {
    fn is_followed(&mut self, plan: &Plan, node: usize, number: u64, shards: u16) {
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
        });
    }

    /// If it hears all by now, the process that follows takes over.
    fn may_be_replaced(&mut self, plan: &Plan, number: u64, apps: &AppTable, dice: &mut Dice) {
        let cluster = self.cluster.as_mut().expect("nodes have others");
        let mut follower = cluster.follower.take().expect("it follows");
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
            cluster.follower = Some(follower);
            return;
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
                cluster.follower = Some(follower);
                return;
            }
            if is_quiet && !is_told {
                break;
            }
        }
        before.holds(it.now, apps, bus);
        let mut records = Vec::new();
        before
            .exchange
            .carry(apps, &mut |record| records.push(record));
        let seed = NodeSeed {
            homes: Node::homes(number),
            socket_ids: SocketIdKey::from_seed(number),
            ..seed_of(plan, node, number)
        };
        it.is_replaced_at_rest(&seed, plan.limits, follower.shards);
        let (now, mut told) = (since_start(it.now), Told::new());
        let exchange = &mut follower.bridge.exchange;
        let taken = exchange.take_records(now, &records);
        taken.expect("the records are whole");
        exchange.take_over(now, apps, &mut told);
        for (shard, message) in told {
            it.tell(usize::from(shard.0), message);
        }
        bus.is_left_alone(node);
        follower.bridge.number = node;
        follower.bridge.shared_at = cluster.bridges[node].shared_at;
        cluster.bridges[node] = follower.bridge;
        cluster.replaced += 1;
    }
}
