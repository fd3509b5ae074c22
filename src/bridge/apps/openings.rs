//! Changes of apps on their way to all shards: a client finds a new app only when each of them has it, since
//! any may be the home of its channels.
//!
//! Owns: `Openings`.
//! May depend on: `shards::application` for ids.
//! Invariants: numbers only grow; one is open when every shard has taken it.

use shards::application::ShardId;

#[derive(Debug)]
pub struct Openings {
    /// The number of the latest change.
    latest: u64,
    /// By shard, the latest that it has taken.
    taken: Vec<u64>,
    opened: u64,
}

impl Openings {
    pub fn new(shards: u16) -> Self {
        Self {
            latest: 0,
            taken: vec![0; usize::from(shards)],
            opened: 0,
        }
    }

    /// The number of the latest change.
    pub fn latest(&self) -> u64 {
        self.latest
    }

    /// All shards have taken all changes.
    pub fn are_all_open(&self) -> bool {
        self.opened == self.latest
    }

    /// The number of a change that is sent now.
    pub fn begin(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    /// A shard has taken the changes up to this number. The number up to which all have, if that has grown.
    pub fn taken(&mut self, shard: ShardId, number: u64) -> Option<u64> {
        let taken = self.taken.get_mut(usize::from(shard.0))?;
        *taken = number.max(*taken);
        let by_all = self.taken.iter().min().copied()?;
        (by_all > self.opened).then(|| {
            self.opened = by_all;
            by_all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_open_when_the_last_shard_has_it() {
        let mut openings = Openings::new(3);
        assert_eq!(
            (openings.begin(), openings.begin(), openings.latest()),
            (1, 2, 2)
        );
        for (shard, number, opened) in [
            (0, 2, None),
            (2, 1, None),
            (1, 1, Some(1)),
            (1, 2, None),
            (2, 2, Some(2)),
            (2, 1, None),
        ] {
            assert_eq!(
                openings.taken(ShardId(shard), number),
                opened,
                "{shard} {number}"
            );
        }
    }
}
