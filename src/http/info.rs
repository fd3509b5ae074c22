//! Which attributes of a channel a request asks for, and where each applies.
//!
//! Owns: the table of `info` attributes.
//! May depend on: `api` (errors), `protocol::name`.
//! Invariants: an attribute is matched exactly; one that does not apply to the request is refused,
//! save that a publish leaves out what its channel has none of; a user's channel is never counted.

use crate::http::api::ApiError;
use crate::protocol::name::ChannelKind;

/// The attributes asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub user_count: bool,
    pub subscription_count: bool,
    pub cache: bool,
}

impl Info {
    /// Reads a comma list. Spaces around an item and empty items do not count.
    pub fn parse(list: &str) -> Result<Self, ApiError> {
        let mut info = Self::default();
        for item in list.split(',').map(|item| item.trim_matches(' ')) {
            match item {
                "" => {}
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ => return Err(ApiError::UnknownInfo),
            }
        }
        Ok(info)
    }

    /// Nothing is asked for.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// The rule of `/events` and `/batch_events`.
    pub fn for_events(self) -> Result<Self, ApiError> {
        if self.cache {
            Err(ApiError::InfoNotApplicable("cache"))
        } else {
            Ok(self)
        }
    }

    /// The rule of `/channels`.
    pub fn for_channels(self, only_presence: bool) -> Result<Self, ApiError> {
        if self.cache {
            return Err(ApiError::InfoNotApplicable("cache"));
        }
        if self.user_count && !only_presence {
            return Err(ApiError::InfoNotApplicable("user_count"));
        }
        Ok(self)
    }

    /// The rule of `/channels/{channel}`.
    pub fn for_channel(self, kind: ChannelKind) -> Result<Self, ApiError> {
        if self.user_count && !kind.is_presence() {
            return Err(ApiError::InfoNotApplicable("user_count"));
        }
        if self.subscription_count && kind.is_user() {
            return Err(ApiError::InfoNotApplicable("subscription_count"));
        }
        if self.cache && !kind.is_cache() {
            return Err(ApiError::InfoNotApplicable("cache"));
        }
        Ok(self)
    }

    /// What of it a publish reports for a channel of this kind.
    pub fn applicable_to(self, kind: ChannelKind) -> Self {
        Self {
            user_count: self.user_count && kind.is_presence(),
            subscription_count: self.subscription_count && !kind.is_user(),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER_COUNT: Info = Info {
        user_count: true,
        subscription_count: false,
        cache: false,
    };
    const SUBSCRIPTION_COUNT: Info = Info {
        user_count: false,
        subscription_count: true,
        cache: false,
    };
    const CACHE: Info = Info {
        user_count: false,
        subscription_count: false,
        cache: true,
    };

    #[test]
    fn a_list_names_attributes_exactly() {
        let both = Info {
            user_count: true,
            subscription_count: true,
            cache: false,
        };
        for (list, expected) in [
            ("", Info::default()),
            ("user_count", USER_COUNT),
            ("subscription_count", SUBSCRIPTION_COUNT),
            ("cache", CACHE),
            ("user_count,subscription_count", both),
            (" subscription_count , user_count ", both),
            ("user_count,user_count,", USER_COUNT),
        ] {
            assert_eq!(Info::parse(list), Ok(expected), "{list}");
        }
        for list in [
            "x",
            "user_counts",
            "User_count",
            "user_count;cache",
            "user count",
            "user_count,x",
        ] {
            assert_eq!(Info::parse(list), Err(ApiError::UnknownInfo), "{list}");
        }
    }

    #[test]
    fn an_attribute_applies_where_the_table_says() {
        use ChannelKind::*;
        // Columns: events, channels, channels with a presence prefix.
        for (info, events, channels, presence_channels) in [
            (Info::default(), true, true, true),
            (USER_COUNT, true, false, true),
            (SUBSCRIPTION_COUNT, true, true, true),
            (CACHE, false, false, false),
        ] {
            assert_eq!(info.for_events().is_ok(), events, "{info:?}");
            assert_eq!(info.for_channels(false).is_ok(), channels, "{info:?}");
            assert_eq!(
                info.for_channels(true).is_ok(),
                presence_channels,
                "{info:?}"
            );
        }
        for (info, kind, accepted) in [
            (USER_COUNT, Presence, true),
            (USER_COUNT, PresenceCache, true),
            (USER_COUNT, Public, false),
            (USER_COUNT, Private, false),
            (USER_COUNT, EncryptedCache, false),
            (SUBSCRIPTION_COUNT, Public, true),
            (SUBSCRIPTION_COUNT, Presence, true),
            (SUBSCRIPTION_COUNT, EncryptedCache, true),
            (SUBSCRIPTION_COUNT, User, false),
            (USER_COUNT, User, false),
            (CACHE, User, false),
            (Info::default(), User, true),
            (CACHE, PublicCache, true),
            (CACHE, PresenceCache, true),
            (CACHE, EncryptedCache, true),
            (CACHE, Public, false),
            (CACHE, Presence, false),
        ] {
            assert_eq!(
                info.for_channel(kind).is_ok(),
                accepted,
                "{info:?} {kind:?}"
            );
        }
        assert_eq!(USER_COUNT.applicable_to(Public), Info::default());
        assert_eq!(USER_COUNT.applicable_to(Presence), USER_COUNT);
        assert_eq!(SUBSCRIPTION_COUNT.applicable_to(Public), SUBSCRIPTION_COUNT);
        assert_eq!(SUBSCRIPTION_COUNT.applicable_to(User), Info::default());
    }
}
