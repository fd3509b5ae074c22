//! What shards know of the bus without asking: when they may publish nothing to the other nodes, since the bus
//! takes less than they do; when the others hear nothing of this node, or it may not hear all of theirs.
//!
//! Owns: `PublishHold` and what is logged of it; `Sight`.
//! May depend on: `bridge::{link, log_limit, nodes, run}`.
//! Invariants: shards are told each change at once, beside their queues; a line that it begins has one that
//! it is over.

use std::time::Duration;

use shards::application::{Millis, PublishRoom};

use super::{link::ShardLink, log_limit::LogLimit, nodes::Nodes, run::Bridge};

/// While it lasts it is looked at so often: the bus says nothing when it has taken something.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whether publishes are held, and whose.
#[derive(Debug)]
pub(super) struct PublishHold {
    room: PublishRoom,
    lines: LogLimit,
    /// The log says that they are.
    is_told: bool,
}

impl Default for PublishHold {
    fn default() -> Self {
        Self {
            room: PublishRoom::Free,
            lines: LogLimit::once_a_minute(),
            is_told: false,
        }
    }
}

impl PublishHold {
    /// Somebody's are.
    pub(super) fn holds(&self) -> bool {
        self.room != PublishRoom::Free
    }

    /// Follows the queue to the bus. True where shards are to be told of a change.
    fn follow(&mut self, now: Millis, room: PublishRoom) -> bool {
        if room == self.room {
            return false;
        }
        self.room = room;
        let words = match room {
            PublishRoom::Free => {
                if std::mem::take(&mut self.is_told) {
                    tracing::info!("the queue to the bus has room again: events are taken");
                }
                return true;
            }
            PublishRoom::Scarce => {
                "the queue to the bus is nearly full: POST /events answers 503 to apps that publish the most, \
                 whose client events stay on this node"
            }
            PublishRoom::None => {
                "the queue to the bus is full: POST /events answers 503, client events stay on this node"
            }
        };
        if let Some(unsaid) = self.lines.allow(now) {
            self.is_told = true;
            tracing::warn!(unsaid, "{words}");
        }
        true
    }
}

/// What shards were told last.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// `/up` says that the bus fails.
    is_cut_off: bool,
    is_behind: bool,
}

impl<L: ShardLink> Bridge<L> {
    /// Tells shards what has changed of how this node sees the others, and they it.
    fn follow_sight(&mut self) {
        let Some(nodes) = &self.nodes else { return };
        let (is_cut_off, is_behind) = (nodes.is_failing(), nodes.is_behind());
        if self.sight.is_cut_off != is_cut_off {
            self.link.set_cut_off(is_cut_off);
        }
        if self.sight.is_behind != is_behind {
            self.link.set_behind(is_behind);
        }
        self.sight = Sight {
            is_cut_off,
            is_behind,
        };
    }

    /// Behind whatever was published.
    pub(super) fn follow_bus(&mut self) {
        let nodes = self.nodes.as_mut();
        let room = nodes.map_or(PublishRoom::Free, Nodes::publish_room);
        let now_ms = self.link.started().elapsed().as_millis();
        let now = Millis(u64::try_from(now_ms).unwrap_or(u64::MAX));
        if self.publish_hold.follow(now, room) {
            self.link.set_publish_room(room);
        }
        self.follow_sight();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_the_log_has_one_pair_of_lines_a_minute() {
        let mut hold = PublishHold::default();
        let (free, scarce, none) = (PublishRoom::Free, PublishRoom::Scarce, PublishRoom::None);
        for (second, room, changes, is_told) in [
            (0, free, false, false),
            (1, scarce, true, true),
            (2, scarce, false, true),
            (2, none, true, true),
            (3, free, true, false),
            (4, none, true, false),
            (5, free, true, false),
            (61, none, true, true),
            (62, free, true, false),
        ] {
            let changed = hold.follow(Millis(second * 1_000), room);
            let found = (changed, hold.holds(), hold.is_told);
            assert_eq!(found, (changes, room != free, is_told), "{second} s");
        }
    }
}
