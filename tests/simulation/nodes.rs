//! The nodes of a run: one that is alone, or several with a bus between them. Time is theirs together.

use shards::application::{Closed, Millis};
use sockudo::{bridge::message::FromBridge, server::Occupancy};

use crate::{
    cluster::Cluster,
    node::{Link, Node},
};

/// Whether a node does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Live,
    /// Stopped in the middle of whatever it did: to its peers it is there, and silent.
    Paused,
    /// Its process hands over to another one.
    Silent,
    /// It has died or left.
    Absent,
}

pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
    /// By node.
    conditions: Vec<Condition>,
    /// None where a node is alone.
    pub(crate) cluster: Option<Cluster>,
    /// Node and link of each connection, by its number.
    places: Vec<(usize, usize)>,
}

impl Nodes {
    pub(crate) fn alone(node: Node) -> Self {
        Self {
            all: vec![node],
            conditions: vec![Condition::Live],
            cluster: None,
            places: Vec::new(),
        }
    }

    pub(crate) fn together(all: Vec<Node>, cluster: Cluster) -> Self {
        Self {
            conditions: vec![Condition::Live; all.len()],
            all,
            cluster: Some(cluster),
            places: Vec::new(),
        }
    }

    pub(crate) fn condition(&self, node: usize) -> Condition {
        self.conditions[node]
    }

    pub(crate) fn is_live(&self, node: usize) -> bool {
        self.conditions[node] == Condition::Live
    }

    pub(crate) fn becomes(&mut self, node: usize, condition: Condition) {
        self.conditions[node] = condition;
    }

    /// Nodes that do something.
    pub(crate) fn live(&self) -> Vec<usize> {
        let all = 0..self.all.len();
        all.filter(|node| self.is_live(*node)).collect()
    }

    pub(crate) fn now(&self) -> Millis {
        self.all[0].now
    }

    pub(crate) fn is_now(&mut self, now: Millis) {
        for node in &mut self.all {
            node.now = now;
        }
    }

    /// Of one node.
    pub(crate) fn shards(&self, node: usize) -> usize {
        self.all[node].shards()
    }

    /// Of all nodes.
    pub(crate) fn shard_count(&self) -> usize {
        self.all.iter().map(Node::shards).sum()
    }

    /// The number of a new connection.
    pub(crate) fn connect(&mut self, node: usize, shard: usize, socket_bytes_max: usize) -> usize {
        let link = self.all[node].connect(shard, socket_bytes_max);
        self.places.push((node, link));
        self.places.len() - 1
    }

    pub(crate) fn link(&mut self, number: usize) -> &mut Link {
        let (node, link) = self.places[number];
        &mut self.all[node].links[link]
    }

    /// To which a connection goes.
    pub(crate) fn node_of(&self, number: usize) -> usize {
        self.places[number].0
    }

    pub(crate) fn end_link(&mut self, number: usize, how: Closed) {
        let (node, link) = self.places[number];
        self.all[node].end_link(link, how);
    }

    /// Sends a message of the bridge to every shard of every node.
    pub(crate) fn tell_all(&mut self, message: impl Fn() -> FromBridge) {
        for node in &mut self.all {
            node.tell_all(&message);
        }
    }

    /// What each shard of each node holds.
    pub(crate) fn occupancy(&self) -> Vec<Occupancy> {
        let of_shards = self.occupancy_of_shards();
        of_shards.into_iter().map(|(it, _)| it).collect()
    }

    /// The same, each with the number of its node's shards.
    pub(crate) fn occupancy_of_shards(&self) -> Vec<(Occupancy, usize)> {
        let there = self.all.iter().zip(&self.conditions);
        let there = there.filter(|(_, it)| **it != Condition::Absent);
        let of_node = |node: &Node| {
            let shards = node.shards();
            node.occupancy().into_iter().map(move |it| (it, shards))
        };
        there.flat_map(|(node, _)| of_node(node)).collect()
    }

    /// When something next falls due on its own.
    pub(crate) fn next_deadline(&self) -> Option<Millis> {
        let live = || (0..self.all.len()).filter(|node| self.is_live(*node));
        let shards = live().filter_map(|node| self.all[node].next_deadline());
        let cluster = self.cluster.as_ref();
        let cluster = cluster.and_then(|it| it.next_deadline(live()));
        shards.chain(cluster).min()
    }

    pub(crate) fn keep_ticking(&self) -> bool {
        let live = self.live();
        live.iter().any(|node| self.all[*node].keeps_ticking())
    }

    /// Everything that left the nodes.
    pub(crate) fn trace(&self) -> u64 {
        let hashes = self.all.iter().map(|node| node.trace.hash());
        hashes.fold(0, |whole: u64, hash| whole.rotate_left(7) ^ hash)
    }
}
