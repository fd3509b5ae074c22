//! Limits of apps that set none of their own.
//!
//! Owns: `channel_limits`, `event_limits`, `presence`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;

section! {
    pub struct ChannelLimits in "channel_limits" {
        /// Longest channel name, in bytes.
        _ as "max_name_length" = limit().default("200").env(&["CHANNEL_LIMITS_MAX_NAME_LENGTH"])
            .reloads();
        /// How long a cache channel keeps its last event.
        cache_ttl_s: u64 as "cache_ttl" = seconds(0).default("1800").upstream("3600")
            .env(&["CHANNEL_CACHE_TTL"]).reloads();
    }
}

section! {
    const EVENT_LIMITS in "event_limits" {
        /// Channels of one event of the API.
        "max_channels_at_once" = limit().default("100").upstream("-1").reloads();
        /// Longest event name, in bytes.
        "max_name_length" = limit().default("200").reloads();
        /// Largest `data` of an event.
        "max_payload_in_kb" = kilobyte_limit().default("100").upstream("-1").reloads();
        /// Events of one batch of the API.
        "max_batch_size" = limit().default("10").upstream("-1").reloads();
    }
}

section! {
    const PRESENCE in "presence" {
        /// Users of one presence channel.
        "max_members_per_channel" = limit().default("100").upstream("-1").reloads();
        /// Largest `user_info`.
        "max_member_size_in_kb" = kilobyte_limit().default("1").upstream("-1").reloads();
    }
}
