//! What a node missed of another one is counted, and what it did not want is not.
//!
//! Owns: nothing.
//! May depend on: `carrying_tests::Scene`.
//! Invariants: none.

use super::carrying_tests::{NEW, OLD as NODE, PEER, Scene};
use crate::{
    bridge::adapter::news::News,
    cluster::topic::{Road, Topic},
};

impl Scene {
    /// Batches of the peer's events that the node counts as lost.
    fn lost(&self, at: usize) -> u64 {
        let mut peers = self.exchanges[at].node().peers();
        let peer = peers.next().expect("the peer is there");
        peer.counters.batches_lost.events
    }

    /// The peer publishes so many events, each in a batch of its own, which pass the node by.
    fn misses(&mut self, at: usize, count: usize) {
        let topic = Topic::Events(self.partition);
        self.subscribed[at].remove(&topic);
        for _ in 0..count {
            self.publishes(PEER, b"missed");
        }
        self.subscribed[at].insert(topic);
    }

    /// It wishes for the topic no more, and hears a last one, since the bus is not as quick.
    fn leaves(&mut self, at: usize) {
        self.wishes(at, false);
        self.passes(5_000);
        assert_eq!(self.exchanges[at].subscribed().next(), None);
        self.misses(at, 0);
        self.publishes(PEER, b"left over");
        self.subscribed[at].remove(&Topic::Events(self.partition));
    }
}

#[test]
fn what_passed_while_the_bus_was_gone_is_lost() {
    let mut scene = Scene::new();
    let topic = Topic::Events(scene.partition);
    scene.publishes(PEER, b"before");
    scene.brings(NODE, News::Down(Road::Events));
    scene.misses(NODE, 2);
    scene.brings(NODE, News::Up(Road::Events));
    scene.brings(NODE, News::Live(vec![topic, Topic::Echo]));
    scene.publishes(PEER, b"after");
    assert_eq!(scene.lost(NODE), 2);
    scene.brings(NODE, News::Lost(vec![topic]));
    scene.misses(NODE, 3);
    scene.brings(NODE, News::Live(vec![topic]));
    scene.publishes(PEER, b"after");
    assert_eq!(scene.lost(NODE), 5);
    assert_eq!(scene.heard(NODE).0, [&b"before"[..], b"after", b"after"]);
}

#[test]
fn what_passed_while_nobody_here_wished_for_it_is_no_loss() {
    let mut scene = Scene::new();
    scene.publishes(PEER, b"before");
    for _ in 0..2 {
        scene.leaves(NODE);
        scene.misses(NODE, 4);
        scene.wishes(NODE, true);
        // Its road went before the bus had confirmed it.
        scene.brings(NODE, News::Down(Road::Events));
        let topics = vec![Topic::Events(scene.partition), Topic::Echo];
        scene.brings(NODE, News::Live(topics));
        scene.publishes(PEER, b"after");
        assert_eq!(scene.lost(NODE), 0);
    }
    scene.misses(NODE, 1);
    scene.publishes(PEER, b"after");
    assert_eq!(scene.lost(NODE), 1);
}

#[test]
fn what_passed_while_the_process_before_did_not_wish_for_it_is_no_loss() {
    let mut scene = Scene::new();
    scene.publishes(PEER, b"before");
    scene.leaves(NODE);
    scene.is_followed(2);
    let records = scene.carries();
    scene.takes_over(&records).expect("the records are whole");
    scene.misses(NEW, 4);
    scene.wishes(NEW, true);
    scene.publishes(PEER, b"after");
    assert_eq!(scene.lost(NEW), 0);
    scene.misses(NEW, 1);
    scene.publishes(PEER, b"after");
    assert_eq!(scene.lost(NEW), 1);
}
