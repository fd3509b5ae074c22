//! Data path. The channels that one connection is subscribed to.
//!
//! Owns: `Subscriptions`, each entry naming a channel's row on this shard and the connection's
//! position in its list.
//! May depend on: hashbrown. It knows rows by number only.
//! Invariants: a channel stands at most once in the list; past a handful each one's number is in the
//! index, so that no step looks at the others.

use hashbrown::HashTable;

/// One subscription: the channel's row on this shard, and the place in its subscriber list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub channel: u32,
    pub position: u32,
}

/// A connection's subscriptions, in no order. Two fit in the row itself.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions(List);

// The vector's capacity, which never has all its bits set, tells which variant it is.
const _: () = assert!(size_of::<Subscriptions>() == 24);

#[derive(Clone, Debug, Default)]
enum List {
    #[default]
    None,
    One([Subscription; 1]),
    Two([Subscription; 2]),
    /// Once there were more than two; until the last one ends.
    Scanned(Vec<Subscription>),
    /// Once there were more than `SCANNED_MAX`; until the last one ends.
    Indexed(Box<Indexed>),
}

#[derive(Clone, Debug, Default)]
struct Indexed {
    list: Vec<Subscription>,
    /// Numbers by channel.
    numbers: HashTable<u32>,
}

/// So many are found faster by looking at all of them.
const SCANNED_MAX: usize = 16;

/// Rows are numbered by this shard, densely: nobody outside can choose them to collide.
fn hash(channel: u32) -> u64 {
    u64::from(channel).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Indexed {
    fn of(list: Vec<Subscription>) -> Box<Self> {
        let numbers = HashTable::with_capacity(list.len() + 1);
        let mut all = Self { list, numbers };
        (0..all.list.len()).for_each(|number| all.index(number));
        Box::new(all)
    }

    fn find(&self, channel: u32) -> Option<u32> {
        let is_it = |number: &u32| self.list[*number as usize].channel == channel;
        self.numbers.find(hash(channel), is_it).copied()
    }

    fn add(&mut self, subscription: Subscription) {
        self.list.push(subscription);
        self.index(self.list.len() - 1);
    }

    fn index(&mut self, number: usize) {
        let list = &self.list;
        let channel_of = |number: &u32| hash(list[*number as usize].channel);
        let number = number_of(number);
        self.numbers
            .insert_unique(channel_of(&number), number, channel_of);
    }

    fn unindex(&mut self, number: usize) {
        let (channel, number) = (self.list[number].channel, number_of(number));
        let entry = self.numbers.find_entry(hash(channel), |it| *it == number);
        entry.expect("each subscription is in the index").remove();
    }

    fn swap_remove(&mut self, number: usize) {
        let last = self.list.len() - 1;
        self.unindex(number);
        if number != last {
            self.unindex(last);
        }
        self.list.swap_remove(number);
        if number != last {
            self.index(number);
        }
    }
}

fn number_of(index: usize) -> u32 {
    u32::try_from(index).expect("bounded by the channels of this shard")
}

impl List {
    fn push(self, added: Subscription) -> Self {
        match self {
            Self::None => Self::One([added]),
            Self::One([first]) => Self::Two([first, added]),
            Self::Two([first, second]) => {
                let mut list = Vec::with_capacity(4);
                list.extend([first, second, added]);
                Self::Scanned(list)
            }
            Self::Scanned(mut list) if list.len() < SCANNED_MAX => {
                list.push(added);
                Self::Scanned(list)
            }
            Self::Scanned(list) => Self::Indexed(Indexed::of(list)).push(added),
            Self::Indexed(mut all) => {
                all.add(added);
                Self::Indexed(all)
            }
        }
    }

    fn swap_remove(self, number: usize) -> Self {
        match self {
            Self::Two([first, second]) => Self::One([if number == 0 { second } else { first }]),
            Self::Scanned(mut list) if list.len() > 1 => {
                list.swap_remove(number);
                Self::Scanned(list)
            }
            Self::Indexed(mut all) if all.list.len() > 1 => {
                all.swap_remove(number);
                Self::Indexed(all)
            }
            Self::None | Self::One(_) | Self::Scanned(_) | Self::Indexed(_) => Self::None,
        }
    }
}

impl Subscriptions {
    fn list(&self) -> &[Subscription] {
        match &self.0 {
            List::None => &[],
            List::One(list) => list,
            List::Two(list) => list,
            List::Scanned(list) => list,
            List::Indexed(all) => &all.list,
        }
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.list().len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// The subscriptions, each at its number.
    pub fn iter(&self) -> impl Iterator<Item = Subscription> {
        self.list().iter().copied()
    }

    /// The number of the subscription to a channel.
    pub fn find(&self, channel: u32) -> Option<u32> {
        if let List::Indexed(all) = &self.0 {
            return all.find(channel);
        }
        let position = self.list().iter().position(|it| it.channel == channel)?;
        u32::try_from(position).ok()
    }

    /// The subscription to a channel.
    pub fn of(&self, channel: u32) -> Option<Subscription> {
        self.find(channel)
            .map(|number| self.list()[number as usize])
    }

    /// The number that the next `add` gives.
    pub fn next_number(&self) -> u32 {
        number_of(self.len())
    }

    /// Adds a subscription at `next_number`.
    pub fn add(&mut self, subscription: Subscription) {
        assert!(
            self.find(subscription.channel).is_none(),
            "a channel is subscribed to once"
        );
        self.0 = std::mem::take(&mut self.0).push(subscription);
    }

    /// Takes a subscription out. The one that took its number is returned, to be renumbered.
    pub fn remove(&mut self, number: u32) -> (Subscription, Option<Subscription>) {
        let removed = self.list()[number as usize];
        self.0 = std::mem::take(&mut self.0).swap_remove(number as usize);
        (removed, self.list().get(number as usize).copied())
    }

    /// The connection's place in a channel's list changed.
    pub fn reposition(&mut self, number: u32, position: u32) {
        let list: &mut [Subscription] = match &mut self.0 {
            List::None => &mut [],
            List::One(list) => list,
            List::Two(list) => list,
            List::Scanned(list) => list,
            List::Indexed(all) => &mut all.list,
        };
        list[number as usize].position = position;
    }

    /// Takes any one out; for a connection that ends.
    pub fn pop(&mut self) -> Option<Subscription> {
        let last = self.len().checked_sub(1)?;
        Some(self.remove(number_of(last)).0)
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

    /// At each bound between two forms: one below, exactly, one above.
    #[test]
    fn subscriptions_come_and_go_across_every_form() {
        for count in [0, 1, 2, 3, 4, 15, 16, 17, 18, 40] {
            let mut subscriptions = Subscriptions::default();
            (0..count).for_each(|channel| subscriptions.add(subscription(channel)));
            assert_eq!(subscriptions.len(), count as usize);
            let form = match &subscriptions.0 {
                List::None => 0..=0,
                List::One(_) => 1..=1,
                List::Two(_) => 2..=2,
                List::Scanned(_) => 3..=16,
                List::Indexed(_) => 17..=u32::MAX,
            };
            assert!(form.contains(&count), "{count} in {form:?}");
            for channel in 0..count {
                assert_eq!(subscriptions.of(channel), Some(subscription(channel)));
            }
            assert_eq!(subscriptions.of(count), None);
            // The first goes each time, and the last one takes its number.
            let mut next = 0;
            for left in (0..count).rev() {
                let expected = (left > 0).then(|| subscription(left));
                assert_eq!(subscriptions.remove(0), (subscription(next), expected));
                next = left;
            }
            assert!(matches!(subscriptions.0, List::None), "{count}");
        }
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
