//! What a stranger or a crowd may do to a node, while somebody else's ping is answered in the next turns.
//!
//! Work is counted and time stands still unless a test lets it pass: nothing here depends on a clock.

mod fan_out;
mod membership;
mod messages;
mod rates;
mod requests;

use crate::scene::{Scene, Visitor, count_of};

/// Rounds within which a ping is answered, whoever else is there.
const PONG_ROUNDS_MAX: usize = 3;
/// Subscribes and unsubscribes that pass at once, and per second, unless configured.
const BURST: usize = 1_000;
const RATE: usize = 500;
/// Input that a shard holds for one connection: its bound and one receive.
const HELD_BYTES_MAX: usize = 64 * 1_024 + 16_384;

impl Scene {
    /// The rounds that a ping took.
    fn check_pong(&mut self, visitor: &Visitor) -> usize {
        let rounds = self.rounds_to_pong(visitor);
        assert!(
            rounds <= PONG_ROUNDS_MAX,
            "a ping was answered after {rounds} rounds"
        );
        rounds
    }

    /// Takes what is on a link and counts a text in it.
    fn takes_count(&mut self, link: usize, needle: &str) -> usize {
        count_of(&self.takes(link), needle.as_bytes())
    }
}

/// The most answers of one kind that came in a round, and how many in all, while another is served.
fn answered_per_round(
    scene: &mut Scene,
    links: &[usize],
    needle: &str,
    rounds: usize,
) -> (usize, usize) {
    let (mut highest, mut all) = (0, 0);
    for _ in 0..rounds {
        scene.round();
        let mut now = 0;
        for link in links {
            now += scene.takes_count(*link, needle);
        }
        highest = highest.max(now);
        all += now;
    }
    (highest, all)
}
