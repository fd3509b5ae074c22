//! Data path. The channels that one connection is subscribed to.
//!
//! Owns: `Subscriptions`, each entry naming a channel's row on this shard and the connection's
//! position in its list.
//! May depend on: hashbrown. It knows rows by number only.
//! Invariants: a channel stands at most once in the list; past a handful each one's number is in the
//! index, so that no step looks at the others.

use hashbrown::HashTable;
use smallvec::SmallVec;

/// One subscription: the channel's row on this shard, and the place in its subscriber list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub channel: u32,
    pub position: u32,
}

/// A connection's subscriptions, in no order. Two fit in the row itself.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    list: SmallVec<[Subscription; 2]>,
    /// Numbers by channel; made past `SCANNED_MAX`, dropped with the last subscription.
    numbers: Option<Box<HashTable<u32>>>,
}

/// So many are found faster by looking at all of them.
const SCANNED_MAX: usize = 16;

/// Rows are numbered by this shard, densely: nobody outside can choose them to collide.
fn hash(channel: u32) -> u64 {
    u64::from(channel).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Subscriptions {
    /// Number of channels.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The subscriptions, each at its number.
    pub fn iter(&self) -> impl Iterator<Item = Subscription> {
        self.list.iter().copied()
    }

    /// The number of the subscription to a channel.
    pub fn find(&self, channel: u32) -> Option<u32> {
        if let Some(numbers) = &self.numbers {
            let is_it = |number: &u32| self.list[*number as usize].channel == channel;
            return numbers.find(hash(channel), is_it).copied();
        }
        let position = self.list.iter().position(|it| it.channel == channel)?;
        u32::try_from(position).ok()
    }

    /// The subscription to a channel.
    pub fn of(&self, channel: u32) -> Option<Subscription> {
        self.find(channel).map(|number| self.list[number as usize])
    }

    /// The number that the next `add` gives.
    pub fn next_number(&self) -> u32 {
        u32::try_from(self.list.len()).expect("bounded by the channels of this shard")
    }

    /// Adds a subscription at `next_number`.
    pub fn add(&mut self, subscription: Subscription) {
        assert!(
            self.find(subscription.channel).is_none(),
            "a channel is subscribed to once"
        );
        let number = self.next_number();
        self.list.push(subscription);
        if self.numbers.is_none() && self.list.len() > SCANNED_MAX {
            self.numbers = Some(Box::default());
            (0..number).for_each(|number| self.index(number));
        }
        if self.numbers.is_some() {
            self.index(number);
        }
    }

    fn index(&mut self, number: u32) {
        let list = &self.list;
        let channel_of = |number: &u32| hash(list[*number as usize].channel);
        if let Some(numbers) = &mut self.numbers {
            numbers.insert_unique(channel_of(&number), number, channel_of);
        }
    }

    fn unindex(&mut self, channel: u32, number: u32) {
        if let Some(numbers) = &mut self.numbers {
            let entry = numbers.find_entry(hash(channel), |it| *it == number);
            entry.expect("each subscription is in the index").remove();
        }
    }

    /// Takes a subscription out. The one that took its number is returned, to be renumbered.
    pub fn remove(&mut self, number: u32) -> (Subscription, Option<Subscription>) {
        let (removed, last) = (self.list[number as usize], self.next_number() - 1);
        self.unindex(removed.channel, number);
        if number != last {
            self.unindex(self.list[last as usize].channel, last);
        }
        self.list.swap_remove(number as usize);
        if number != last {
            self.index(number);
        }
        (removed, self.list.get(number as usize).copied())
    }

    /// The connection's place in a channel's list changed.
    pub fn reposition(&mut self, number: u32, position: u32) {
        self.list[number as usize].position = position;
    }

    /// Takes any one out; for a connection that ends.
    pub fn pop(&mut self) -> Option<Subscription> {
        let last = self.list.pop();
        if let Some(last) = last {
            self.unindex(last.channel, self.next_number());
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn subscription(channel: u32) -> Subscription {
        Subscription {
            channel,
            position: channel * 10,
        }
    }

    #[test]
    fn the_last_subscription_takes_the_number_of_one_that_ends() {
        let mut subscriptions = Subscriptions::default();
        for channel in 0..4 {
            assert_eq!(subscriptions.next_number(), channel);
            subscriptions.add(subscription(channel));
        }
        let (removed, renumbered) = subscriptions.remove(1);
        assert_eq!(
            (removed, renumbered),
            (subscription(1), Some(subscription(3)))
        );
        assert_eq!(subscriptions.find(3), Some(1));
        let (removed, renumbered) = subscriptions.remove(2);
        assert_eq!(
            (removed, renumbered),
            (subscription(2), None),
            "the last one"
        );
    }

    #[test]
    #[should_panic = "a channel is subscribed to once"]
    fn a_channel_cannot_stand_in_the_list_twice() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(subscription(1));
        subscriptions.add(subscription(1));
    }

    proptest! {
        #[test]
        fn who_follows_the_renumbering_always_knows_each_number(
            steps in prop::collection::vec((0_u32..40, 0_u32..100), 1..200)
        ) {
            let mut subscriptions = Subscriptions::default();
            // Number and position by channel, as channels remember them.
            let mut known: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
            for (channel, position) in steps {
                match known.get(&channel).copied() {
                    None => {
                        let number = subscriptions.next_number();
                        subscriptions.add(Subscription { channel, position });
                        known.insert(channel, (number, position));
                    }
                    Some((number, _)) if position % 3 == 0 => {
                        subscriptions.reposition(number, position);
                        known.insert(channel, (number, position));
                    }
                    Some((number, position)) => {
                        let (removed, renumbered) = subscriptions.remove(number);
                        prop_assert_eq!(removed, Subscription { channel, position });
                        known.remove(&channel);
                        if let Some(other) = renumbered {
                            known.insert(other.channel, (number, other.position));
                        }
                    }
                }
                prop_assert_eq!(subscriptions.len(), known.len());
                for (channel, (number, position)) in &known {
                    prop_assert_eq!(subscriptions.find(*channel), Some(*number));
                    let at = subscriptions.iter().nth(*number as usize);
                    prop_assert_eq!(at.map(|it| it.position), Some(*position));
                }
            }
            while let Some(last) = subscriptions.pop() {
                prop_assert!(known.remove(&last.channel).is_some());
            }
            prop_assert!(known.is_empty() && subscriptions.is_empty());
        }
    }
}
