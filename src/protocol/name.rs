//! Names: which channel names exist and what each kind of channel allows; which event names a
//! publisher may use.
//!
//! Owns: the grammar of channel names, the kinds and their attributes, the reserved event prefixes.
//! May depend on: nothing.
//! Invariants: auth, presence and cache are independent attributes of a kind, and only the start of
//! a name decides its kind: `my-cache-x` is public.

use thiserror::Error;

/// What a channel is, decided by the start of its name (first matching prefix wins).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    Public,
    PublicCache,
    Private,
    PrivateCache,
    Encrypted,
    EncryptedCache,
    Presence,
    PresenceCache,
    /// `#server-to-user-{user_id}`: reaches one signed-in user.
    User,
}

impl ChannelKind {
    /// Every value that `metric_label` can give.
    pub const ALL_METRIC_LABELS: [&'static str; 5] = [
        "public",
        "private",
        "presence",
        "private_encrypted",
        "cache",
    ];

    /// The kind that a name of this spelling has. Total: it does not check the name.
    pub fn of(name: &str) -> Self {
        // Public names are the commonest: most leave after one comparison.
        match name.as_bytes().first() {
            Some(b'p' | b'c' | b'#') => {}
            _ => return Self::Public,
        }
        PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Public, |(_, kind)| *kind)
    }

    /// A subscription carries a signature. A user channel does not: it asks for a signed-in user
    /// instead.
    pub fn needs_auth(self) -> bool {
        match self {
            Self::Private
            | Self::PrivateCache
            | Self::Encrypted
            | Self::EncryptedCache
            | Self::Presence
            | Self::PresenceCache => true,
            Self::Public | Self::PublicCache | Self::User => false,
        }
    }

    /// The channel keeps a roster of members.
    pub fn is_presence(self) -> bool {
        match self {
            Self::Presence | Self::PresenceCache => true,
            Self::Public
            | Self::PublicCache
            | Self::Private
            | Self::PrivateCache
            | Self::Encrypted
            | Self::EncryptedCache
            | Self::User => false,
        }
    }

    /// The channel keeps its last event for newcomers.
    pub fn is_cache(self) -> bool {
        match self {
            Self::PublicCache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache => {
                true
            }
            Self::Public | Self::Private | Self::Encrypted | Self::Presence | Self::User => false,
        }
    }

    /// Payloads are ciphertext that the server cannot read.
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Encrypted | Self::EncryptedCache => true,
            Self::Public
            | Self::PublicCache
            | Self::Private
            | Self::PrivateCache
            | Self::Presence
            | Self::PresenceCache
            | Self::User => false,
        }
    }

    /// `#server-to-user-…`: never listed, counted, cached or told to webhooks.
    pub fn is_user(self) -> bool {
        self == Self::User
    }

    /// Subscribers may send `client-*` events to each other.
    pub fn allows_client_events(self) -> bool {
        match self {
            Self::Private | Self::PrivateCache | Self::Presence | Self::PresenceCache => true,
            Self::Public
            | Self::PublicCache
            | Self::Encrypted
            | Self::EncryptedCache
            | Self::User => false,
        }
    }

    /// Joins and leaves may raise `subscription_count`.
    pub fn counts_subscriptions(self) -> bool {
        match self {
            Self::Public
            | Self::PublicCache
            | Self::Private
            | Self::PrivateCache
            | Self::Encrypted
            | Self::EncryptedCache => true,
            Self::Presence | Self::PresenceCache | Self::User => false,
        }
    }

    /// The `channel_type` label of the metrics; dashboards made for 2.9.2 know these five.
    pub fn metric_column(self) -> usize {
        match self {
            Self::Public | Self::User => 0,
            Self::Private => 1,
            Self::Presence => 2,
            Self::Encrypted => 3,
            Self::PublicCache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache => {
                4
            }
        }
    }

    /// The label of this kind in metrics.
    pub fn metric_label(self) -> &'static str {
        match self {
            Self::Public | Self::User => "public",
            Self::Private => "private",
            Self::Presence => "presence",
            Self::Encrypted => "private_encrypted",
            Self::PublicCache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache => {
                "cache"
            }
        }
    }
}

/// A checked channel name. Holding one proves: 1..=`bytes_max` bytes of `A-Z a-z 0-9 _ - = @ , .
/// ;`, or `#server-to-user-` followed by 1..=128 characters without control characters. It does not
/// prove that the channel exists, nor that anybody may join it.
///
/// ```
/// use sockudo::protocol::name::{ChannelKind, ChannelName};
///
/// let name = ChannelName::parse("presence-room", 200)?;
/// assert_eq!(name.kind(), ChannelKind::Presence);
/// assert!(ChannelName::parse("room:1", 200).is_err());
/// # Ok::<(), sockudo::protocol::name::ChannelNameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelName<'a> {
    name: &'a str,
    kind: ChannelKind,
}

impl<'a> ChannelName<'a> {
    /// Checks a name. `bytes_max` counts the prefix too; a user channel is bounded by its own rule
    /// instead.
    pub fn parse(name: &'a str, bytes_max: usize) -> Result<Self, ChannelNameError> {
        if name.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if let Some(user_id) = name.strip_prefix(USER_PREFIX) {
            return if is_user_id(user_id) && !user_id.chars().any(char::is_control) {
                Ok(Self {
                    name,
                    kind: ChannelKind::User,
                })
            } else {
                Err(ChannelNameError::UserId)
            };
        }
        if name.len() > bytes_max {
            return Err(ChannelNameError::TooLong {
                bytes: name.len(),
                bytes_max,
            });
        }
        match name.chars().find(|c| !is_name_character(*c)) {
            None => Ok(Self {
                name,
                kind: ChannelKind::of(name),
            }),
            Some(character) => Err(ChannelNameError::Character { character }),
        }
    }

    pub fn as_str(self) -> &'a str {
        self.name
    }

    pub fn kind(self) -> ChannelKind {
        self.kind
    }

    /// Whose channel this is, if it is a user channel.
    pub fn user_id(self) -> Option<&'a str> {
        self.name.strip_prefix(USER_PREFIX)
    }
}

/// Why a channel name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChannelNameError {
    #[error("channel name is empty")]
    Empty,
    #[error("channel name has {bytes} bytes: at most {bytes_max} are allowed")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("channel name contains {character:?}: allowed are letters, digits and _-=@,.;")]
    Character { character: char },
    #[error("channel name #server-to-user- must be followed by a user id of 1..=128 characters")]
    UserId,
}

/// Checks the name of an event that arrives by the HTTP API.
pub fn check_event_name(name: &str, bytes_max: usize) -> Result<(), EventNameError> {
    if name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
        return Err(EventNameError::Reserved);
    }
    check_event_name_length(name, bytes_max)
}

/// Checks the name of a client event: some text must follow `client-`.
pub fn check_client_event_name(name: &str, bytes_max: usize) -> Result<(), EventNameError> {
    match name.strip_prefix(CLIENT_EVENT_PREFIX) {
        None | Some("") => Err(EventNameError::NotAClientEvent),
        Some(_) => check_event_name_length(name, bytes_max),
    }
}

fn check_event_name_length(name: &str, bytes_max: usize) -> Result<(), EventNameError> {
    match name.len() {
        0 => Err(EventNameError::Empty),
        bytes if bytes > bytes_max => Err(EventNameError::TooLong { bytes, bytes_max }),
        _ => Ok(()),
    }
}

/// Why an event name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventNameError {
    #[error("event name is empty")]
    Empty,
    #[error("event name has {bytes} bytes: at most {bytes_max} are allowed")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("event names starting with pusher: or pusher_internal: are reserved")]
    Reserved,
    #[error("client event names start with client- and have a name behind it")]
    NotAClientEvent,
}

/// The rule for user ids everywhere: 1..=128 characters (Unicode scalar values, not bytes).
pub fn is_user_id(text: &str) -> bool {
    // A character takes at most 4 bytes: the length alone settles hostile sizes.
    !text.is_empty()
        && text.len() <= 4 * USER_ID_CHARACTERS_MAX
        && text.chars().count() <= USER_ID_CHARACTERS_MAX
}

fn is_name_character(c: char) -> bool {
    matches!(c, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '-' | '=' | '@' | ',' | '.' | ';')
}

/// Longest first where one is the start of another.
const PREFIXES: [(&str, ChannelKind); 8] = [
    ("private-encrypted-cache-", ChannelKind::EncryptedCache),
    ("private-encrypted-", ChannelKind::Encrypted),
    ("private-cache-", ChannelKind::PrivateCache),
    ("private-", ChannelKind::Private),
    ("presence-cache-", ChannelKind::PresenceCache),
    ("presence-", ChannelKind::Presence),
    ("cache-", ChannelKind::PublicCache),
    (USER_PREFIX, ChannelKind::User),
];

pub const CLIENT_EVENT_PREFIX: &str = "client-";
pub const USER_PREFIX: &str = "#server-to-user-";
pub const USER_ID_CHARACTERS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_name_decides_its_kind() {
        use ChannelKind::*;
        for (name, kind) in [
            ("private-encrypted-cache-a", EncryptedCache),
            ("private-encrypted-a", Encrypted),
            ("private-encrypted-cache", Encrypted),
            ("private-encrypted", Private),
            ("private-cache-a", PrivateCache),
            ("private-cache", Private),
            ("private-a", Private),
            ("private-my-cache-x", Private),
            ("presence-cache-a", PresenceCache),
            ("presence-x-cache-y", Presence),
            ("presence-a", Presence),
            ("cache-a", PublicCache),
            ("cache", Public),
            ("my-cache-x", Public),
            ("private", Public),
            ("privatefoo", Public),
            ("presence", Public),
            ("Private-a", Public),
            ("#server-to-user-1", User),
            ("", Public),
        ] {
            assert_eq!(ChannelKind::of(name), kind, "{name}");
        }
    }

    #[test]
    fn each_kind_has_the_attributes_of_the_table() {
        use ChannelKind::*;
        // kind, auth, presence, cache, client events, subscription_count, metric label
        for (kind, auth, presence, cache, client_events, counts, label) in [
            (EncryptedCache, true, false, true, false, true, "cache"),
            (
                Encrypted,
                true,
                false,
                false,
                false,
                true,
                "private_encrypted",
            ),
            (PrivateCache, true, false, true, true, true, "cache"),
            (Private, true, false, false, true, true, "private"),
            (PresenceCache, true, true, true, true, false, "cache"),
            (Presence, true, true, false, true, false, "presence"),
            (PublicCache, false, false, true, false, true, "cache"),
            (User, false, false, false, false, false, "public"),
            (Public, false, false, false, false, true, "public"),
        ] {
            assert_eq!(kind.needs_auth(), auth, "{kind:?} auth");
            assert_eq!(kind.is_presence(), presence, "{kind:?} presence");
            assert_eq!(kind.is_cache(), cache, "{kind:?} cache");
            assert_eq!(
                kind.allows_client_events(),
                client_events,
                "{kind:?} client events"
            );
            assert_eq!(kind.counts_subscriptions(), counts, "{kind:?} counts");
            assert_eq!(kind.metric_label(), label, "{kind:?} label");
            assert!(ChannelKind::ALL_METRIC_LABELS.contains(&label));
            assert_eq!(
                kind.is_encrypted(),
                matches!(kind, Encrypted | EncryptedCache)
            );
            assert_eq!(kind.is_user(), matches!(kind, User));
        }
    }

    #[test]
    fn a_channel_name_has_only_the_allowed_characters() {
        for name in [
            "a",
            "A-Z_0-9=@,.;",
            "my-channel",
            "presence-a@b",
            "-",
            ";",
            "private-",
        ] {
            let parsed = ChannelName::parse(name, 200).expect(name);
            assert_eq!(parsed.as_str(), name);
            assert_eq!(parsed.user_id(), None);
        }
        for (name, character) in [
            ("a b", ' '),
            ("a:b", ':'),
            ("a/b", '/'),
            ("a#b", '#'),
            ("#private-a", '#'),
            ("#server-to-use", '#'),
            ("é", 'é'),
            ("a\n", '\n'),
            ("a\0", '\0'),
            ("a+b", '+'),
            ("a%20b", '%'),
            ("a\"b", '"'),
        ] {
            let refused = ChannelName::parse(name, 200);
            assert_eq!(
                refused,
                Err(ChannelNameError::Character { character }),
                "{name:?}"
            );
        }
        assert_eq!(ChannelName::parse("", 200), Err(ChannelNameError::Empty));
    }

    #[test]
    fn a_channel_name_may_have_exactly_the_limit_in_bytes() {
        for (bytes, accepted) in [(199, true), (200, true), (201, false)] {
            let name = "a".repeat(bytes);
            assert_eq!(
                ChannelName::parse(&name, 200).is_ok(),
                accepted,
                "{bytes} bytes"
            );
        }
        let refused = ChannelName::parse("abcd", 3);
        assert_eq!(
            refused,
            Err(ChannelNameError::TooLong {
                bytes: 4,
                bytes_max: 3
            })
        );
    }

    #[test]
    fn a_user_channel_is_bounded_by_its_user_id_alone() {
        for (user_id, accepted) in [
            ("42".to_owned(), true),
            ("é ü:#/".to_owned(), true),
            ("x".repeat(127), true),
            ("é".repeat(128), true),
            ("😀".repeat(128), true),
            ("x".repeat(129), false),
            ("é".repeat(129), false),
            (String::new(), false),
            ("a\nb".to_owned(), false),
            ("a\u{85}".to_owned(), false),
        ] {
            let name = format!("#server-to-user-{user_id}");
            let parsed = ChannelName::parse(&name, 20);
            assert_eq!(parsed.is_ok(), accepted, "{user_id:?}");
            match parsed {
                Ok(channel) => {
                    assert_eq!(channel.user_id(), Some(user_id.as_str()));
                    assert_eq!(channel.kind(), ChannelKind::User);
                }
                Err(error) => assert_eq!(error, ChannelNameError::UserId),
            }
        }
    }

    #[test]
    fn publishers_may_not_use_reserved_event_names() {
        for (name, expected) in [
            ("e", Ok(())),
            ("client-typing", Ok(())),
            ("pusher", Ok(())),
            ("my pusher: event", Ok(())),
            (&"x".repeat(9), Ok(())),
            (&"x".repeat(10), Ok(())),
            (
                &"x".repeat(11),
                Err(EventNameError::TooLong {
                    bytes: 11,
                    bytes_max: 10,
                }),
            ),
            ("", Err(EventNameError::Empty)),
            ("pusher:", Err(EventNameError::Reserved)),
            ("pusher:subscribe", Err(EventNameError::Reserved)),
            ("pusher_internal:x", Err(EventNameError::Reserved)),
        ] {
            let bytes_max = if name.contains("pusher:") || name == "client-typing" {
                200
            } else {
                10
            };
            assert_eq!(check_event_name(name, bytes_max), expected, "{name}");
        }
    }

    #[test]
    fn a_client_event_has_a_name_behind_its_prefix() {
        for (name, accepted) in [
            ("client-a", true),
            ("client-abc", true),
            ("client-abcd", false),
            ("client-", false),
            ("client", false),
            ("Client-a", false),
            ("", false),
        ] {
            assert_eq!(
                check_client_event_name(name, 10).is_ok(),
                accepted,
                "{name}"
            );
        }
    }
}
