//! Data path. Where a name belongs: one of 1 024 partitions, the same on every node and after every
//! start.
//!
//! Owns: `Partition`, `AppPartitions`, the hash that makes the one with the other.
//! May depend on: siphasher.
//! Invariants: the partition of a name never changes, whatever the machine, its shards or the version;
//! an app's channels and its users have name spaces of their own.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// One of the parts into which all names of all apps are divided. Whoever knows a name can compute
/// it, so it decides where something lives and never where it stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(u16);

/// How many there are: enough that shares of a few hundred shards or nodes are even.
pub const PARTITIONS: u16 = 1_024;

impl Partition {
    /// Its number, below `PARTITIONS`.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The one with this number, which came from another node; `None` where there is none.
    pub const fn from_number(number: u16) -> Option<Self> {
        if number < PARTITIONS {
            Some(Self(number))
        } else {
            None
        }
    }

    fn of(hasher: &SipHasher13) -> Self {
        let number = hasher.finish() % u64::from(PARTITIONS);
        Self(u16::try_from(number).expect("below the number of partitions"))
    }
}

/// The partitions of one app's names. The hash of the app's id is kept, so that a name costs its own
/// bytes.
// Per name: one copy of the state (72 B) and SipHash-1-3 of the name; no allocation.
#[derive(Clone, Debug)]
pub struct AppPartitions {
    own: Partition,
    channels: SipHasher13,
    users: SipHasher13,
}

/// The key is public and fixed for ever: a node that used another would look for names elsewhere.
const KEY: &[u8; 16] = b"sockudopartition";
/// Stands between an app's id and a name; text holds no such byte.
const SEPARATOR: u8 = 0xFF;
const CHANNEL: u8 = b'c';
const USER: u8 = b'u';

impl AppPartitions {
    /// Of the app with this id.
    pub fn of_app(id: &str) -> Self {
        let mut of_id = SipHasher13::new_with_key(KEY);
        of_id.write(id.as_bytes());
        let space = |tag| {
            let mut hasher = of_id;
            hasher.write(&[SEPARATOR, tag]);
            hasher
        };
        Self {
            own: Partition::of(&of_id),
            channels: space(CHANNEL),
            users: space(USER),
        }
    }

    /// Of the app itself: of what is counted for it as a whole.
    pub const fn own(&self) -> Partition {
        self.own
    }

    /// Of one of its channels.
    pub fn of_channel(&self, name: &str) -> Partition {
        Self::of_name(&self.channels, name)
    }

    /// Of one of its users.
    pub fn of_user(&self, id: &str) -> Partition {
        Self::of_name(&self.users, id)
    }

    fn of_name(space: &SipHasher13, name: &str) -> Partition {
        let mut hasher = *space;
        hasher.write(name.as_bytes());
        Partition::of(&hasher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with an implementation of SipHash-1-3 that shares no code with ours. If this test fails,
    /// the hash is wrong: nodes and stores that know these numbers cannot be told others.
    #[test]
    fn names_belong_where_they_have_always_belonged() {
        let long = "x".repeat(200);
        for (app, own, names) in [
            (
                "app-id",
                237,
                [
                    ("news", 98, 32),
                    ("private-room", 755, 631),
                    ("presence-lobby", 317, 948),
                    ("42", 251, 620),
                    ("", 735, 455),
                    (&*long, 707, 489),
                    ("é", 368, 17),
                ],
            ),
            (
                "1",
                436,
                [
                    ("news", 989, 648),
                    ("private-room", 0, 482),
                    ("presence-lobby", 383, 489),
                    ("42", 221, 698),
                    ("", 22, 147),
                    (&*long, 303, 715),
                    ("é", 746, 162),
                ],
            ),
        ] {
            let partitions = AppPartitions::of_app(app);
            assert_eq!(partitions.own().number(), own, "app {app}");
            for (name, channel, user) in names {
                let found = (partitions.of_channel(name), partitions.of_user(name));
                let found = (found.0.number(), found.1.number());
                assert_eq!(found, (channel, user), "{name} of app {app}");
            }
        }
    }

    #[test]
    fn ordinary_names_are_spread_evenly() {
        const EACH: usize = 200;
        let partitions = AppPartitions::of_app("app-id");
        let mut counts = [0; PARTITIONS as usize];
        for number in 0..EACH * counts.len() {
            let partition = partitions.of_channel(&format!("private-user-{number}"));
            counts[usize::from(partition.number())] += 1;
        }
        // Five times the deviation of chance, which is the root of what is expected.
        let (low, high) = (EACH - 71, EACH + 71);
        for (number, count) in counts.iter().enumerate() {
            assert!((low..=high).contains(count), "{count} in {number}");
        }
        for shards in 1..=64 {
            let mut homes = vec![0; shards];
            for (number, count) in counts.iter().enumerate() {
                homes[number % shards] += count;
            }
            let fair = EACH * counts.len() / shards;
            let most = homes.iter().max().expect("there is a shard");
            assert!(
                most * 100 <= fair * 110,
                "{most} of {fair}, {shards} shards"
            );
        }
    }
}
