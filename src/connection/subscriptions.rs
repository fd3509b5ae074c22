//! Data path. The channels that one connection is subscribed to.
//!
//! Owns: `Subscriptions`, each entry naming a channel's row on this shard and the connection's
//! position in its list.
//! May depend on: std. It knows rows by number only.
//! Invariants: a channel stands at most once in the list.

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
        let position = self.list.iter().position(|it| it.channel == channel)?;
        u32::try_from(position).ok()
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
        self.list.push(subscription);
    }

    /// Takes a subscription out. The one that took its number is returned, to be renumbered.
    pub fn remove(&mut self, number: u32) -> (Subscription, Option<Subscription>) {
        let removed = self.list.swap_remove(number as usize);
        (removed, self.list.get(number as usize).copied())
    }

    /// The connection's place in a channel's list changed.
    pub fn reposition(&mut self, number: u32, position: u32) {
        self.list[number as usize].position = position;
    }

    /// Takes any one out; for a connection that ends.
    pub fn pop(&mut self) -> Option<Subscription> {
        let last = self.list.pop();
        if self.list.is_empty() {
            self.list = SmallVec::new();
        }
        last
    }
}
