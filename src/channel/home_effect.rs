//! What the steps of a channel's home ask for: answers to joiners, frames for all, webhooks.
//!
//! Owns: `HomeEffect` and what its variants carry.
//! May depend on: `channel::home` (references and events), `channel::roster`. On nothing that performs.
//! Invariants: none of its own; the order of effects is that in which they are performed.

use std::sync::Arc;

use shards::application::Waiter;

use super::{kept::Event, roster::Member};

/// What a step of a home asks for, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum HomeEffect {
    /// The answer to the joiner: the roster on a presence channel, and the last event.
    Joined { to: Waiter, last: LastEvent },
    /// A frame for all subscribers.
    Announce(Announcement),
    /// An event for the app's webhooks.
    Hook(Hook),
    /// The first subscription came.
    Occupied,
    /// The last subscription went.
    Vacant,
}

/// What a cache channel has for a newcomer.
#[derive(Clone, Debug, PartialEq)]
pub enum LastEvent {
    NotCached,
    Miss,
    Hit(Event),
}

/// A frame that the home makes itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Announcement {
    MemberAdded(Member),
    MemberRemoved { user_id: Arc<str> },
    SubscriptionCount(u32),
}

/// An event for webhooks.
#[derive(Clone, Debug, PartialEq)]
pub enum Hook {
    ChannelOccupied,
    ChannelVacated,
    MemberAdded { user_id: Arc<str> },
    MemberRemoved { user_id: Arc<str> },
    CacheMiss,
    SubscriptionCount(u32),
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The effects as words, so that a table of them can be read.
    pub(in crate::channel) fn words(effects: &[HomeEffect]) -> Vec<String> {
        let word = |effect: &HomeEffect| match effect {
            HomeEffect::Joined { last, .. } => match last {
                LastEvent::NotCached => "joined".to_owned(),
                LastEvent::Miss => "joined, miss".to_owned(),
                LastEvent::Hit(event) => format!("joined, hit {}", event.frame[0]),
            },
            HomeEffect::Announce(Announcement::MemberAdded(member)) => {
                format!("tell +{}", member.user_id)
            }
            HomeEffect::Announce(Announcement::MemberRemoved { user_id }) => {
                format!("tell -{user_id}")
            }
            HomeEffect::Announce(Announcement::SubscriptionCount(count)) => format!("tell {count}"),
            HomeEffect::Hook(Hook::ChannelOccupied) => "hook occupied".to_owned(),
            HomeEffect::Hook(Hook::ChannelVacated) => "hook vacated".to_owned(),
            HomeEffect::Hook(Hook::MemberAdded { user_id }) => format!("hook +{user_id}"),
            HomeEffect::Hook(Hook::MemberRemoved { user_id }) => format!("hook -{user_id}"),
            HomeEffect::Hook(Hook::CacheMiss) => "hook miss".to_owned(),
            HomeEffect::Hook(Hook::SubscriptionCount(count)) => format!("hook {count}"),
            HomeEffect::Occupied => "occupied".to_owned(),
            HomeEffect::Vacant => "vacant".to_owned(),
        };
        effects.iter().map(word).collect()
    }
}
