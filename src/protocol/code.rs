//! Codes: with which number and words a connection ends, and how a subscription is refused.
//!
//! Owns: every close code, error code and refusal of the wire contract, with its text.
//! May depend on: nothing.
//! Invariants: a `CloseCode` of Pusher's own is below 4300, since clients take 4300 and above as
//! "never return".

use std::fmt;

/// A WebSocket close code. pusher-js reacts by class: 4000..=4099 never returns, 4100..=4199
/// returns after a second, 4200..=4299 returns at once
/// (`src/core/connection/protocol/protocol.ts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    // RFC 6455, section 7.4.1.
    pub const NORMAL: Self = Self(1000);
    pub const GOING_AWAY: Self = Self(1001);
    pub const PROTOCOL_ERROR: Self = Self(1002);
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    pub const INVALID_PAYLOAD: Self = Self(1007);
    pub const TOO_BIG: Self = Self(1009);

    // Pusher's own: the client does not come back.
    pub const TLS_REQUIRED: Self = Self(4000);
    pub const APP_UNKNOWN: Self = Self(4001);
    pub const APP_DISABLED: Self = Self(4003);
    pub const OVER_QUOTA: Self = Self(4004);
    pub const PATH_NOT_FOUND: Self = Self(4005);
    pub const VERSION_INVALID: Self = Self(4006);
    pub const VERSION_UNSUPPORTED: Self = Self(4007);
    pub const VERSION_MISSING: Self = Self(4008);
    pub const UNAUTHORIZED: Self = Self(4009);
    // The client comes back after a while.
    pub const OVER_CAPACITY: Self = Self(4100);
    // The client comes back at once.
    pub const RECONNECT: Self = Self(4200);
    pub const PONG_NOT_RECEIVED: Self = Self(4201);
    pub const INACTIVE: Self = Self(4202);

    pub fn value(self) -> u16 {
        self.0
    }

    /// A 4xxx close is announced by a `pusher:error` frame of the same code; an RFC close is not.
    pub fn is_announced(self) -> bool {
        self.0 >= 4000
    }

    /// The words that go with the code when the place that closes has no better ones.
    pub fn reason(self) -> &'static str {
        match self {
            Self::PROTOCOL_ERROR => "Protocol error",
            Self::UNSUPPORTED_DATA => "Binary messages are not supported",
            Self::INVALID_PAYLOAD => "Invalid UTF-8",
            Self::TOO_BIG => "Message too big",
            Self::TLS_REQUIRED => {
                "Application only accepts SSL connections, reconnect using wss://"
            }
            Self::APP_UNKNOWN => "Application does not exist",
            Self::APP_DISABLED => "Application disabled",
            Self::OVER_QUOTA => "Application is over connection quota",
            Self::PATH_NOT_FOUND => "Path not found",
            Self::VERSION_INVALID => "Invalid version string format",
            Self::VERSION_UNSUPPORTED => "Unsupported protocol version",
            Self::VERSION_MISSING => "No protocol version supplied",
            Self::UNAUTHORIZED => "Connection is unauthorized",
            Self::OVER_CAPACITY => "Over capacity",
            Self::RECONNECT => "Reconnect immediately",
            Self::PONG_NOT_RECEIVED => "Pong reply not received in time",
            Self::INACTIVE => "Closed after inactivity",
            _ => "",
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Error frame only: a frame that lacks what its event needs.
pub const GENERIC_ERROR: u16 = 4300;
/// Error frame only: a client event was not relayed.
pub const CLIENT_EVENT_REJECTED: u16 = 4301;
/// Error frame only: the watchlist was cut.
pub const WATCHLIST_LIMIT: u16 = 4302;

// Texts that clients or the contract fix.
pub const ORIGIN_NOT_ALLOWED: &str = "Origin not allowed";
pub const MESSAGE_NOT_IN_TIME: &str = "Message not received in time";
pub const NOT_AUTHORIZED_IN_TIME: &str = "Connection not authorized within timeout.";
pub const USER_TERMINATED: &str = "User terminated by app.";
pub const INVALID_MESSAGE_FORMAT: &str = "Invalid message format";
pub const CLIENT_EVENT_RATE_LIMITED: &str = "Client event rejected due to rate limit";
pub const WATCHLIST_CUT: &str =
    "Watchlist limit exceeded. Only the first 100 user IDs are accepted.";

/// Why a subscription was refused. The connection stays open and unaffected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionRefusal {
    /// No, malformed or wrong signature; or a signed-in user is required.
    Unauthorized,
    /// The `#server-to-user-` channel of somebody else.
    OtherUser,
    InvalidChannel,
    /// `channel_data` is no JSON object.
    InvalidChannelData,
    /// `channel_data` has no usable `user_id`.
    InvalidUserId,
    /// Another user of this connection is in.
    OtherMember,
    /// `user_info` is larger than allowed.
    MemberTooLarge,
    /// The presence channel has as many members as it may have.
    ChannelFull,
    /// The connection has as many subscriptions as it may have.
    TooManyChannels,
    Internal,
}

impl SubscriptionRefusal {
    /// The frame's `type`, `error` and `status`.
    pub fn parts(self) -> (&'static str, &'static str, u16) {
        match self {
            Self::Unauthorized => ("AuthError", "The connection is unauthorized.", 401),
            Self::OtherUser => ("AuthError", "The channel belongs to another user.", 403),
            Self::InvalidChannel => ("InvalidChannel", "The channel name is invalid.", 400),
            Self::InvalidChannelData => (
                "InvalidChannelData",
                "The channel_data must be a JSON object, without half a surrogate pair in its text.",
                400,
            ),
            Self::InvalidUserId => (
                "InvalidChannelData",
                "The user_id in channel_data must be a string of 1 to 128 characters or an integer \
                 of at most 9007199254740992.",
                400,
            ),
            Self::OtherMember => (
                "InvalidChannelData",
                "The user_id in channel_data is not that of this connection's first subscription.",
                400,
            ),
            Self::MemberTooLarge => ("LimitReached", "The user_info is too large.", 413),
            Self::ChannelFull => (
                "LimitReached",
                "The channel has reached its member limit.",
                4100,
            ),
            Self::TooManyChannels => (
                "LimitReached",
                "The connection has reached its channel limit.",
                4100,
            ),
            Self::Internal => ("ServerError", "The subscription failed, try again.", 500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pusher_code_says_why_and_stays_below_4300() {
        for code in [
            4000, 4001, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4100, 4200, 4201, 4202,
        ] {
            let code = CloseCode(code);
            assert!(code.is_announced());
            assert!(!code.reason().is_empty(), "{code}");
            assert!(code.reason().len() <= 123, "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1009] {
            assert!(!CloseCode(code).is_announced());
        }
        assert_eq!(
            CloseCode::PONG_NOT_RECEIVED.reason(),
            "Pong reply not received in time"
        );
    }

    #[test]
    fn each_refusal_has_the_type_and_status_of_the_table() {
        for (refusal, kind, status) in [
            (SubscriptionRefusal::Unauthorized, "AuthError", 401),
            (SubscriptionRefusal::OtherUser, "AuthError", 403),
            (SubscriptionRefusal::InvalidChannel, "InvalidChannel", 400),
            (
                SubscriptionRefusal::InvalidChannelData,
                "InvalidChannelData",
                400,
            ),
            (
                SubscriptionRefusal::InvalidUserId,
                "InvalidChannelData",
                400,
            ),
            (SubscriptionRefusal::OtherMember, "InvalidChannelData", 400),
            (SubscriptionRefusal::MemberTooLarge, "LimitReached", 413),
            (SubscriptionRefusal::ChannelFull, "LimitReached", 4100),
            (SubscriptionRefusal::TooManyChannels, "LimitReached", 4100),
            (SubscriptionRefusal::Internal, "ServerError", 500),
        ] {
            let (is_kind, text, is_status) = refusal.parts();
            assert_eq!((is_kind, is_status), (kind, status), "{refusal:?}");
            assert!(!text.is_empty());
        }
    }
}
