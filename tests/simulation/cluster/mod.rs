//! Several nodes: what a seed decides of them, their bridges, and the bus between them.

mod bridge;
mod bus;
mod replaced;
mod silence;

use std::time::Duration;

use shards::application::Millis;
use sockudo::{
    bridge::{apps::AppTable, message::ToBridge, nodes::exchange::Setup},
    cluster::{
        identity::{ClusterTag, Identity, Incarnation, NodeId},
        mac::Secrets,
        membership::Times,
        node::Setup as NodeSetup,
        start::Name,
        wire::Version,
    },
    server::{NodeSeed, SocketIdKey},
};

use self::{bridge::Bridge, replaced::Follower};
pub(crate) use self::{
    bridge::is_for_nodes,
    bus::{Bus, Manners},
};
use crate::{
    dice::Dice,
    node::Node,
    nodes::{Condition, Nodes},
    plan::Plan,
};

pub(crate) struct Cluster {
    pub(crate) bus: Bus,
    bridges: Vec<Bridge>,
    /// The process that takes the place of a node's, once it hears all that this one hears.
    follower: Option<Follower>,
    /// Nodes whose process was replaced.
    pub(crate) replaced: u64,
    /// Those that were to be, and had come to rest for it, when the other process ended.
    pub(crate) left: u64,
}

/// What a seed decides of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan {
    /// Of each node.
    pub(crate) shards: Vec<u16>,
    pub(crate) times: Times,
    pub(crate) linger_ms: u64,
    pub(crate) manners: Manners,
    pub(crate) has_secret: bool,
    /// Clients come before the nodes know each other.
    pub(crate) comes_at_once: bool,
    /// Who subscribes may wait for other nodes' last events.
    pub(crate) has_caches: bool,
}

impl ClusterPlan {
    pub(crate) fn of(dice: &mut Dice) -> Self {
        let heartbeat_ms = *dice.pick(&[300, 1_000]);
        let times = Times {
            lease_ms: 5 * heartbeat_ms,
            heartbeat_ms,
            canary_ms: heartbeat_ms,
        };
        Self {
            shards: (0..dice.between(2, 4))
                .map(|_| *dice.pick(&[1, 2, 3]))
                .collect(),
            times,
            linger_ms: *dice.pick(&[0, 200, 5_000]),
            manners: Manners {
                delay_ms_max: *dice.pick(&[0, 5, 40]),
                doubles_percent: *dice.pick(&[0, 10]),
                keeps_whole_order: dice.percent(50),
            },
            has_secret: dice.percent(50),
            comes_at_once: dice.percent(30),
            has_caches: false,
        }
    }

    /// After which the nodes know each other, and whose webhooks are whose.
    pub(crate) fn start_ms(&self) -> u64 {
        2 * self.times.lease_ms + 3 * self.times.heartbeat_ms
    }

    /// After which everybody has heard everything, on a bus that loses nothing.
    pub(crate) fn quiet_ms(&self) -> u64 {
        let asking_ms = if self.has_caches { 700 } else { 0 };
        500 + asking_ms + 10 * self.manners.delay_ms_max
    }
}

impl Cluster {
    /// A shard says something for the other nodes.
    pub(crate) fn tell(&mut self, node: usize, shard: usize, message: ToBridge) {
        self.bridges[node].tell(shard, message);
    }

    /// The process that follows may not have heard what the one before did.
    pub(crate) fn hears_anew(&mut self) {
        if let Some(follower) = &mut self.follower {
            follower.proven_at = None;
        }
    }

    /// Nor what the others said of themselves.
    pub(crate) fn follower_is_deaf(&mut self, now: Millis) {
        if let Some(follower) = &mut self.follower {
            follower.deaf_at = Some(now);
        }
    }

    /// Of the bus and these nodes.
    pub(crate) fn next_deadline(&self, nodes: impl Iterator<Item = usize>) -> Option<Millis> {
        let bridges = nodes.map(|node| self.bridges[node].due());
        bridges.chain(self.bus.next_landing()).min()
    }
}

/// Seeds from here on are those of clusters.
pub(crate) const FIRST: u64 = 1_000_000_000_000;
/// And from here on of those in which something goes wrong.
pub(crate) const FIRST_OF_TROUBLE: u64 = 2_000_000_000_000;
/// From here on both again, with cache channels.
pub(crate) const FIRST_WITH_CACHES: u64 = 3_000_000_000_000;
pub(crate) const FIRST_OF_TROUBLE_WITH_CACHES: u64 = 4_000_000_000_000;

pub(crate) fn is_of_cluster(seed: u64) -> bool {
    seed >= FIRST
}

pub(crate) fn has_troubles(seed: u64) -> bool {
    [FIRST_OF_TROUBLE, FIRST_OF_TROUBLE_WITH_CACHES].contains(&(seed / FIRST * FIRST))
}

/// All nodes of a plan, each as its own process would begin.
pub(crate) fn start(plan: &Plan, cluster: &ClusterPlan, seed: u64) -> Nodes {
    let (mut nodes, mut bridges) = (Vec::new(), Vec::new());
    for (number, shards) in cluster.shards.iter().enumerate() {
        let node_seed = seed_of(plan, number, seed);
        nodes.push(Node::start(&node_seed, *shards, plan.limits));
        // No two nodes begin at once, to the microsecond.
        let setup = setup(cluster, number, *shards, 1_000 + number as u64);
        bridges.push(Bridge::start(number, Millis(0), setup));
    }
    let bus = Bus::new(nodes.len(), cluster.manners);
    let cluster = Cluster {
        bus,
        bridges,
        follower: None,
        replaced: 0,
        left: 0,
    };
    Nodes::together(nodes, cluster)
}

fn seed_of(plan: &Plan, number: usize, seed: u64) -> NodeSeed {
    let of_node = seed ^ (number as u64 + 1) << 40;
    NodeSeed {
        homes: Node::homes(of_node),
        socket_ids: SocketIdKey::from_seed(of_node),
        ..plan.seed.clone()
    }
}

fn setup(cluster: &ClusterPlan, number: usize, shards: u16, incarnation: u64) -> Setup {
    let name = format!("node-{number}");
    let secret = cluster.has_secret.then_some("between nodes");
    let node = NodeSetup {
        identity: Identity {
            node: NodeId::of_name(&name),
            incarnation: Incarnation(incarnation),
        },
        name,
        program: "simulated".to_owned(),
        cluster: ClusterTag::of_name("simulated"),
        secrets: Secrets::new(secret),
        // With each life of a node the other one of two neighbours.
        version: Version(Version::OURS.0 + u8::from((incarnation + number as u64) % 2 == 1)),
        times: cluster.times,
        hasher: Node::homes(number as u64),
        view_bytes_max: 1 << 30,
    };
    Setup {
        node,
        name: Name::Given,
        linger: Duration::from_millis(cluster.linger_ms),
        shards,
    }
}

impl Nodes {
    /// A node begins its next life, as the cluster's `birth`th after the first ones.
    pub(crate) fn is_born(&mut self, plan: &Plan, node: usize, birth: u64) {
        let (Some(of), Some(cluster)) = (&plan.cluster, &mut self.cluster) else {
            return;
        };
        let seed = seed_of(plan, node, birth);
        self.all[node].restarts(&seed, plan.limits);
        // The process before may have had another number than the first one.
        let shards = u16::try_from(self.all[node].shards()).expect("few shards");
        let setup = setup(of, node, shards, 2_000 + birth);
        cluster.bridges[node] = Bridge::start(node, self.all[node].now, setup);
        cluster.bus.is_born(node);
    }

    /// The others do not hear of it yet.
    pub(crate) fn is_starting(&self, node: usize) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_some_and(|it| it.bridges[node].exchange.is_starting())
    }

    /// Whether one node takes another to be there.
    pub(crate) fn knows(&self, node: usize, other: usize) -> bool {
        let cluster = self.cluster.as_ref().expect("nodes have others");
        let other = NodeId::of_name(&format!("node-{other}"));
        let mut peers = cluster.bridges[node].exchange.node().peers();
        peers.any(|peer| peer.identity.node == other)
    }

    /// A node has not had its share of webhooks for so long that what it tells with it was told.
    pub(crate) fn are_sharing(&self, told_ms: u64) -> bool {
        let bridges = self.cluster.iter().flat_map(|it| &it.bridges);
        let mut there = (0..).zip(bridges);
        there.any(|(node, bridge)| {
            let is_there = self.condition(node) != Condition::Absent;
            let has_told = |at: Millis| self.now() >= at.plus(told_ms);
            is_there && !bridge.shared_at.is_some_and(has_told)
        })
    }

    /// Says to the others that this life ends.
    pub(crate) fn says_goodbye(&mut self, node: usize) {
        if let Some(cluster) = &mut self.cluster {
            cluster.bridges[node].exchange.say_goodbye();
        }
    }

    /// One turn of a node's bridge. True if anything happened.
    pub(crate) fn bridge_turn(
        &mut self,
        node: usize,
        apps: &AppTable,
        dice: &mut Dice,
        all: bool,
    ) -> bool {
        let Some(cluster) = &mut self.cluster else {
            return false;
        };
        let (bus, it) = (&mut cluster.bus, &mut self.all[node]);
        bus.advance(it.now, dice);
        let follower = cluster.follower.as_mut().filter(|it| it.node == node);
        let has_followed = follower.is_some_and(|follower| {
            let has_moved = follower.bridge.turn(it, apps, bus, dice, all);
            follower.notes_what_it_hears(it.now);
            has_moved
        });
        cluster.bridges[node].turn(it, apps, bus, dice, all) || has_followed
    }
}
