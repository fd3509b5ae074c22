//! Who a connection says it is: members of presence channels, and signed-in users.
//!
//! Owns: the rules of `channel_data` and `user_data`.
//! May depend on: `json`, `name` (the rule of user ids).
//! Invariants: a user id has 1..=128 characters; `user_info` is valid compact JSON, `null` when
//! none was given.

use thiserror::Error;

use crate::protocol::json::{
    self, JsonString, JsonValue,
    compact::{compact_bytes, compact_into, shortest_bytes},
};
use crate::protocol::name::{USER_ID_CHARACTERS_MAX, is_user_id};

/// A member of a presence channel, as its `channel_data` or its sign-in describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub user_id: String,
    /// Compact JSON of any type; number spelling and key order as received.
    pub user_info: String,
}

impl Member {
    /// Reads `channel_data`. The text must have been verified before: it is what the signature
    /// covers.
    pub fn parse(channel_data: &str, info_bytes_max: usize) -> Result<Self, MemberError> {
        let (mut user_id, mut user_info) = (None, None);
        json::for_each_member(channel_data, |key, value| {
            if key.is("user_id") {
                user_id = Some(value);
            } else if key.is("user_info") {
                user_info = Some(value);
            }
        })
        .map_err(|_| MemberError::NotAnObject)?;
        let user_id = user_id.and_then(member_id).ok_or(MemberError::UserId)?;
        let user_info = bounded_info(user_info, info_bytes_max)?;
        Ok(Self { user_id, user_info })
    }

    /// The member that a signed-in user is on a channel joined without `channel_data`.
    pub fn of_user(user: &User, info_bytes_max: usize) -> Result<Self, MemberError> {
        check_info(&user.user_info, info_bytes_max)?;
        Ok(Self {
            user_id: user.id.clone(),
            user_info: user.user_info.clone(),
        })
    }
}

/// Why somebody cannot be a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemberError {
    #[error("channel_data is not a JSON object")]
    NotAnObject,
    #[error("user_id must be a string of 1..=128 characters or an integer")]
    UserId,
    #[error("user_info has {bytes} bytes: at most {bytes_max} are allowed")]
    InfoTooLarge { bytes: usize, bytes_max: usize },
}

/// A signed-in user, as `user_data` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: String,
    /// Compact JSON of any type.
    pub user_info: String,
    /// At most 100 distinct ids, in the given order.
    pub watchlist: Vec<String>,
    /// More distinct ids were given than are kept: the client is told 4302.
    pub watchlist_cut: bool,
}

impl User {
    /// Reads `user_data`. A number is no id here: pusher-js rejects a success whose id is not a
    /// string.
    pub fn parse(user_data: &str) -> Result<Self, UserError> {
        let (mut id, mut user_info, mut watchlist) = (None, None, None);
        json::for_each_member(user_data, |key, value| {
            if key.is("id") {
                id = Some(value);
            } else if key.is("user_info") {
                user_info = Some(value);
            } else if key.is("watchlist") {
                watchlist = Some(value);
            }
        })
        .map_err(|_| UserError::NotAnObject)?;
        let id = id
            .and_then(JsonValue::as_text)
            .and_then(string_id)
            .ok_or(UserError::Id)?;
        let (watchlist, watchlist_cut) = match watchlist {
            Some(JsonValue::Array(raw)) => watched(raw),
            _ => (Vec::new(), false),
        };
        Ok(Self {
            id,
            user_info: compact_info(user_info),
            watchlist,
            watchlist_cut,
        })
    }
}

/// Why `user_data` describes no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UserError {
    #[error("user_data is not a JSON object")]
    NotAnObject,
    #[error("id must be a string of 1..=128 characters")]
    Id,
}

/// A string, or an integer that becomes its decimal string: `10` and `"10"` are the same user.
fn member_id(value: JsonValue<'_>) -> Option<String> {
    match value {
        JsonValue::Text(string) => string_id(string),
        // Floats and exponents do not parse as an integer.
        JsonValue::Number(raw) => {
            let number: i64 = raw.parse().ok()?;
            (number.unsigned_abs() <= INTEGER_ID_MAX).then(|| number.to_string())
        }
        JsonValue::Object(_) | JsonValue::Array(_) | JsonValue::Bool(_) | JsonValue::Null => None,
    }
}

fn string_id(string: JsonString<'_>) -> Option<String> {
    let id = string.beginning(4 * USER_ID_CHARACTERS_MAX);
    is_user_id(&id).then(|| id.into_owned())
}

fn compact_info(user_info: Option<JsonValue<'_>>) -> String {
    let raw = user_info.map_or("null", JsonValue::raw);
    let mut compact = String::new();
    compact_into(raw, &mut compact);
    compact
}

fn bounded_info(user_info: Option<JsonValue<'_>>, bytes_max: usize) -> Result<String, MemberError> {
    // A limit below 4 bytes is no reason to refuse a member who gives no info at all.
    if let Some(info) = user_info {
        check_info(info.raw(), bytes_max)?;
    }
    Ok(compact_info(user_info))
}

/// Whether `user_info` is within the limit, however its author spells it: PHP escapes each character beyond ASCII,
/// and slashes, unless it is told not to.
pub fn check_info(raw: &str, bytes_max: usize) -> Result<(), MemberError> {
    // What is short as it is need not be looked at.
    if compact_bytes(raw) <= bytes_max {
        return Ok(());
    }
    match shortest_bytes(raw) {
        bytes if bytes > bytes_max => Err(MemberError::InfoTooLarge { bytes, bytes_max }),
        _ => Ok(()),
    }
}

/// The first 100 distinct ids, and whether there were more. What can be nobody's id is ignored.
fn watched(raw: &str) -> (Vec<String>, bool) {
    let (mut ids, mut cut) = (Vec::<String>::new(), false);
    let read = json::for_each_item(raw, |item| {
        let Some(id) = item.as_text().filter(|_| !cut).and_then(string_id) else {
            return;
        };
        // At most 100 comparisons per id, and none once the list is cut: no set needed.
        if ids.contains(&id) {
        } else if ids.len() < WATCHLIST_IDS_MAX {
            ids.push(id);
        } else {
            cut = true;
        }
    });
    debug_assert!(read.is_ok(), "the array was validated with its document");
    (ids, cut)
}

/// Integers beyond 2^53 are not the same number in every language.
const INTEGER_ID_MAX: u64 = 1 << 53;
pub const WATCHLIST_IDS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_id_is_a_string_or_an_integer() {
        let long = |characters| format!("\"{}\"", "é".repeat(characters));
        for (user_id, expected) in [
            (r#""10""#, Some("10")),
            ("10", Some("10")),
            ("0", Some("0")),
            ("-0", Some("0")),
            ("-7", Some("-7")),
            ("9007199254740991", Some("9007199254740991")),
            ("9007199254740992", Some("9007199254740992")),
            ("-9007199254740992", Some("-9007199254740992")),
            ("9007199254740993", None),
            ("-9007199254740993", None),
            ("99999999999999999999", None),
            (r#""\u00e9""#, Some("é")),
            (r#"" ""#, Some(" ")),
            (&long(127), Some(&*"é".repeat(127))),
            (&long(128), Some(&*"é".repeat(128))),
            (&long(129), None),
            (r#""""#, None),
            ("null", None),
            ("true", None),
            ("false", None),
            ("1.5", None),
            ("1.0", None),
            ("1e2", None),
            ("[]", None),
            ("{}", None),
        ] {
            let parsed = Member::parse(&format!("{{\"user_id\":{user_id}}}"), 1024);
            match expected {
                Some(id) => assert_eq!(parsed.expect(user_id).user_id, id),
                None => assert_eq!(parsed, Err(MemberError::UserId), "{user_id}"),
            }
        }
        assert_eq!(Member::parse("{}", 1024), Err(MemberError::UserId));
        let twice = Member::parse(r#"{"user_id":null,"user_id":"2"}"#, 1024);
        assert_eq!(twice.expect("last wins").user_id, "2");
    }

    #[test]
    fn channel_data_must_be_a_json_object() {
        for channel_data in [
            "",
            "x",
            "[]",
            "\"x\"",
            "1",
            "{",
            r#"{"user_id":"1"} x"#,
            r#"{"user_id":"\ud800"}"#,
        ] {
            assert_eq!(
                Member::parse(channel_data, 1024),
                Err(MemberError::NotAnObject),
                "{channel_data}"
            );
        }
    }

    #[test]
    fn user_info_is_kept_as_compact_json() {
        for (user_info, expected) in [
            (r#"{"name":"Ann"}"#, r#"{"name":"Ann"}"#),
            (r#"{ "b" : 1.0 , "a" : "x y" }"#, r#"{"b":1.0,"a":"x y"}"#),
            ("null", "null"),
            (r#""text""#, r#""text""#),
            ("[1, 2]", "[1,2]"),
        ] {
            let channel_data = format!(r#"{{"user_id":1,"user_info":{user_info}}}"#);
            assert_eq!(
                Member::parse(&channel_data, 1024)
                    .expect(user_info)
                    .user_info,
                expected
            );
        }
        assert_eq!(
            Member::parse(r#"{"user_id":1}"#, 0)
                .expect("no info")
                .user_info,
            "null"
        );
    }

    #[test]
    fn user_info_may_have_exactly_the_limit_in_bytes() {
        for (bytes, accepted) in [(1023, true), (1024, true), (1025, false)] {
            let info = format!("\"{}\"", "x".repeat(bytes - 2));
            let member = Member::parse(
                &format!("{{\"user_id\":1, \"user_info\" :  {info}  }}"),
                1024,
            );
            assert_eq!(member.is_ok(), accepted, "{bytes} bytes");
            let user =
                User::parse(&format!("{{\"id\":\"1\",\"user_info\":{info}}}")).expect("a user");
            assert_eq!(
                Member::of_user(&user, 1024).is_ok(),
                accepted,
                "{bytes} bytes"
            );
            if !accepted {
                assert_eq!(
                    member,
                    Err(MemberError::InfoTooLarge {
                        bytes,
                        bytes_max: 1024
                    })
                );
            }
        }
        // What is wrong with the id is told before what is wrong with the size.
        let both = format!("{{\"user_id\":[],\"user_info\":\"{}\"}}", "x".repeat(2000));
        assert_eq!(Member::parse(&both, 1024), Err(MemberError::UserId));
    }

    #[test]
    fn user_info_is_as_long_as_its_characters_however_they_are_spelled() {
        for (character, spelled, bytes) in [
            ("é", r"\u00e9", 2),
            ("ж", r"\u0436", 2),
            ("日", r"\u65e5", 3),
            ("😀", r"\ud83d\ude00", 4),
            ("/", r"\/", 1),
            ("a", r"\u0061", 1),
            ("\\n", r"\n", 2),
            ("\\\"", r"\u0022", 2),
            ("\\\\", r"\\", 2),
            (r"\u0001", r"\u0001", 6),
            (r"\b", r"\u0008", 2),
            (r"\f", r"\u000C", 2),
            ("\u{7f}", r"\u007F", 1),
        ] {
            let most = 1022 / bytes;
            for spelling in [character, spelled] {
                for (count, accepted) in [(most, true), (most + 1, false)] {
                    let info = spelling.repeat(count);
                    let data = format!(r#"{{"user_id":1,"user_info":"{info}"}}"#);
                    let member = Member::parse(&data, 1024);
                    assert_eq!(member.is_ok(), accepted, "{count} times {spelling}");
                    let user = format!(r#"{{"id":"1","user_info":"{info}"}}"#);
                    let user = User::parse(&user).expect("a user");
                    let member = Member::of_user(&user, 1024);
                    assert_eq!(member.is_ok(), accepted, "{count} times {spelling}");
                }
            }
        }
    }

    #[test]
    fn a_signed_in_user_has_a_string_id() {
        for (user_data, expected) in [
            (r#"{"id":"42"}"#, Ok("42")),
            (r#"{"id":"é","watchlist":"x"}"#, Ok("é")),
            (r#"{"id":42}"#, Err(UserError::Id)),
            (r#"{"id":""}"#, Err(UserError::Id)),
            (r#"{"id":null}"#, Err(UserError::Id)),
            ("{}", Err(UserError::Id)),
            (r#"{"user_id":"42"}"#, Err(UserError::Id)),
            ("[]", Err(UserError::NotAnObject)),
            ("", Err(UserError::NotAnObject)),
            ("\"42\"", Err(UserError::NotAnObject)),
        ] {
            let parsed = User::parse(user_data);
            assert_eq!(
                parsed.as_ref().map(|user| &*user.id),
                expected.as_ref().map(|id| *id),
                "{user_data}"
            );
        }
        for (characters, accepted) in [(127, true), (128, true), (129, false)] {
            let user_data = format!(r#"{{"id":"{}"}}"#, "日".repeat(characters));
            assert_eq!(User::parse(&user_data).is_ok(), accepted, "{characters}");
        }
    }

    #[test]
    fn a_watchlist_keeps_distinct_strings_in_order() {
        let user = User::parse(r#"{"id":"1","watchlist":["7",8,"é","7",null,["9"],"","\u0038"]}"#);
        assert_eq!(user.expect("a user").watchlist, ["7", "é", "8"]);
        for watchlist in ["[]", "null", "{}", "\"7\"", "7"] {
            let user =
                User::parse(&format!(r#"{{"id":"1","watchlist":{watchlist}}}"#)).expect("a user");
            assert!(user.watchlist.is_empty());
            assert!(!user.watchlist_cut);
        }
    }

    #[test]
    fn a_watchlist_may_have_exactly_100_ids() {
        for (count, kept, cut) in [
            (99, 99, false),
            (100, 100, false),
            (101, 100, true),
            (5_000, 100, true),
        ] {
            let mut ids: Vec<String> = (0..count).map(|id| format!("\"{id}\"")).collect();
            // A repetition is not one more.
            ids.push("\"0\"".to_owned());
            let user_data = format!(r#"{{"id":"1","watchlist":[{}]}}"#, ids.join(","));
            let user = User::parse(&user_data).expect("a user");
            assert_eq!(
                (user.watchlist.len(), user.watchlist_cut),
                (kept, cut),
                "{count} ids"
            );
            assert_eq!(user.watchlist[98], "98");
        }
    }
}
