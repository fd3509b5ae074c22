//! The bodies of successful answers.
//!
//! Owns: the JSON of each API answer and of `/usage`.
//! May depend on: `protocol::{json, outgoing}` (writers).
//! Invariants: an attribute that was not asked for or does not apply is left out; an entry may be
//! empty.

use crate::protocol::json::{write_json_string, write_u64};
use crate::protocol::outgoing::write_list;

/// Success with nothing to say. PHP's library needs JSON even then.
pub const EMPTY: &[u8] = b"{}";

/// What is told about one channel; `None` is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Distinct users, cluster-wide.
    pub user_count: Option<u64>,
    /// Sockets, cluster-wide.
    pub subscription_count: Option<u64>,
}

/// The last event of a cache channel, as `/channels/{channel}` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheAnswer<'a> {
    NotAsked,
    Empty,
    /// `data_token` is the event's data as a JSON string token; `ttl_s` whole seconds that it will
    /// still be kept.
    Event {
        data_token: &'a str,
        ttl_s: u64,
    },
}

/// `/events` with `info`: one entry per channel.
pub fn channels<'a>(out: &mut Vec<u8>, entries: impl Iterator<Item = (&'a str, Counts)>) {
    begin_channels(out);
    for (number, (channel, counts)) in entries.enumerate() {
        add_channel(out, number == 0, channel, counts);
    }
    end_channels(out);
}

/// Begins `/channels`, which may be written in parts: `add_channel` for each, then `end_channels`.
pub fn begin_channels(out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"channels":{"#);
}

/// See `begin_channels`.
pub fn add_channel(out: &mut Vec<u8>, is_first: bool, channel: &str, counts: Counts) {
    if !is_first {
        out.push(b',');
    }
    write_json_string(out, channel);
    out.push(b':');
    write_counts(out, counts);
}

/// See `begin_channels`.
pub fn end_channels(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}}");
}

/// `/batch_events` when some item has `info`: one entry per item, in order.
pub fn batch(out: &mut Vec<u8>, entries: impl Iterator<Item = Counts>) {
    out.extend_from_slice(br#"{"batch":["#);
    write_list(out, entries, write_counts);
    out.extend_from_slice(b"]}");
}

/// `/channels/{channel}`.
pub fn channel(out: &mut Vec<u8>, is_occupied: bool, counts: Counts, cache: CacheAnswer<'_>) {
    out.extend_from_slice(br#"{"occupied":"#);
    out.extend_from_slice(if is_occupied { b"true" } else { b"false" });
    for (name, count) in named(counts) {
        out.push(b',');
        write_count(out, name, count);
    }
    match cache {
        CacheAnswer::NotAsked => {}
        CacheAnswer::Empty => out.extend_from_slice(br#","cache":null"#),
        CacheAnswer::Event { data_token, ttl_s } => {
            out.extend_from_slice(br#","cache":{"data":"#);
            out.extend_from_slice(data_token.as_bytes());
            out.extend_from_slice(br#","ttl":"#);
            write_u64(out, ttl_s);
            out.push(b'}');
        }
    }
    out.push(b'}');
}

/// `/channels/{channel}/users`: distinct ids.
pub fn users<'a>(out: &mut Vec<u8>, user_ids: impl Iterator<Item = &'a str>) {
    out.extend_from_slice(br#"{"users":["#);
    write_list(out, user_ids, |out, user_id| {
        out.extend_from_slice(br#"{"id":"#);
        write_json_string(out, user_id);
        out.push(b'}');
    });
    out.extend_from_slice(b"]}");
}

/// `/usage`, in bytes; percent with one decimal.
pub fn usage(out: &mut Vec<u8>, used_bytes: u64, total_bytes: u64) {
    let used_bytes = used_bytes.min(total_bytes);
    let permille = match total_bytes {
        0 => 0,
        total => {
            let permille = u128::from(used_bytes) * 1000 / u128::from(total);
            u64::try_from(permille).expect("1000 at most: no more is used than there is")
        }
    };
    out.extend_from_slice(br#"{"memory":{"free":"#);
    write_u64(out, total_bytes - used_bytes);
    out.extend_from_slice(br#","used":"#);
    write_u64(out, used_bytes);
    out.extend_from_slice(br#","total":"#);
    write_u64(out, total_bytes);
    out.extend_from_slice(br#","percent":"#);
    write_u64(out, permille / 10);
    out.push(b'.');
    write_u64(out, permille % 10);
    out.extend_from_slice(b"}}");
}

fn write_counts(out: &mut Vec<u8>, counts: Counts) {
    out.push(b'{');
    write_list(out, named(counts), |out, (name, count)| {
        write_count(out, name, count)
    });
    out.push(b'}');
}

fn named(counts: Counts) -> impl Iterator<Item = (&'static str, u64)> {
    let user_count = counts.user_count.map(|count| ("user_count", count));
    let subscription_count = counts
        .subscription_count
        .map(|count| ("subscription_count", count));
    user_count.into_iter().chain(subscription_count)
}

fn write_count(out: &mut Vec<u8>, name: &str, count: u64) {
    write_json_string(out, name);
    out.push(b':');
    write_u64(out, count);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn each_answer_has_exactly_the_bytes_of_the_contract() {
        let counts = |user_count, subscription_count| Counts {
            user_count,
            subscription_count,
        };
        let none = Counts::default();
        let cached = CacheAnswer::Event {
            data_token: r#""{\"hello\":\"world\"}""#,
            ttl_s: 1740,
        };
        for (answer, golden) in [
            (
                written(|out| {
                    let entries = [
                        ("my-channel", counts(None, Some(13))),
                        ("presence-foobar", counts(Some(42), Some(51))),
                    ];
                    channels(out, entries.into_iter());
                }),
                r#"{"channels":{"my-channel":{"subscription_count":13},"presence-foobar":{"user_count":42,"subscription_count":51}}}"#,
            ),
            (
                written(|out| channels(out, [("a", none)].into_iter())),
                r#"{"channels":{"a":{}}}"#,
            ),
            (
                written(|out| channels(out, [].into_iter())),
                r#"{"channels":{}}"#,
            ),
            (
                written(|out| batch(out, [counts(None, Some(3)), none].into_iter())),
                r#"{"batch":[{"subscription_count":3},{}]}"#,
            ),
            (
                written(|out| {
                    channel(out, true, counts(Some(42), Some(51)), CacheAnswer::NotAsked)
                }),
                r#"{"occupied":true,"user_count":42,"subscription_count":51}"#,
            ),
            (
                written(|out| channel(out, true, none, cached)),
                r#"{"occupied":true,"cache":{"data":"{\"hello\":\"world\"}","ttl":1740}}"#,
            ),
            (
                written(|out| channel(out, false, counts(Some(0), Some(0)), CacheAnswer::NotAsked)),
                r#"{"occupied":false,"user_count":0,"subscription_count":0}"#,
            ),
            (
                written(|out| channel(out, false, none, CacheAnswer::Empty)),
                r#"{"occupied":false,"cache":null}"#,
            ),
            (
                written(|out| channel(out, false, none, CacheAnswer::NotAsked)),
                r#"{"occupied":false}"#,
            ),
            (
                written(|out| users(out, ["7", "10", "é\""].into_iter())),
                r#"{"users":[{"id":"7"},{"id":"10"},{"id":"é\""}]}"#,
            ),
            (written(|out| users(out, [].into_iter())), r#"{"users":[]}"#),
            (
                written(|out| usage(out, 123, 1000)),
                r#"{"memory":{"free":877,"used":123,"total":1000,"percent":12.3}}"#,
            ),
            (
                written(|out| usage(out, 5, 0)),
                r#"{"memory":{"free":0,"used":0,"total":0,"percent":0.0}}"#,
            ),
        ] {
            assert_eq!(answer, golden);
        }
    }
}
