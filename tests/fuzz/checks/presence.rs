//! Who somebody says to be. The bytes: a `channel_data` or a `user_data`, read as both.
//!
//! Owns: the rules of both, told over serde_json's view of them.
//! May depend on: `judge`; `sockudo::protocol::presence`.
//! Invariants: none.

use sockudo::protocol::presence::{Member, MemberError, User, UserError};

use super::judge;

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parsed = Member::parse(text, INFO_BYTES_MAX);
    assert_eq!(parsed, member(text), "{text}");
    if let Ok(member) = parsed {
        let bytes = judge::shortest_bytes(&member.user_info);
        assert!(bytes <= INFO_BYTES_MAX.max("null".len()));
        assert!(judge::accepts(&member.user_info), "{text}");
    }
    let parsed = User::parse(text);
    assert_eq!(parsed, user(text), "{text}");
    if let Ok(user) = parsed {
        let member = Member::of_user(&user, INFO_BYTES_MAX);
        let bytes = judge::shortest_bytes(&user.user_info);
        assert_eq!(member.is_ok(), bytes <= INFO_BYTES_MAX);
        if let Ok(member) = member {
            assert_eq!(
                (member.user_id, member.user_info),
                (user.id, user.user_info)
            );
        }
    }
}

fn member(text: &str) -> Result<Member, MemberError> {
    let fields = judge::members(text).ok_or(MemberError::NotAnObject)?;
    let user_id = fields.last("user_id").and_then(|value| {
        let id = judge::string(value).or_else(|| integer(value))?;
        is_id(&id).then_some(id)
    });
    let user_id = user_id.ok_or(MemberError::UserId)?;
    let user_info = fields.last("user_info").map(judge::compact);
    let bytes = user_info.as_deref().map_or(0, judge::shortest_bytes);
    if bytes > INFO_BYTES_MAX {
        let bytes_max = INFO_BYTES_MAX;
        return Err(MemberError::InfoTooLarge { bytes, bytes_max });
    }
    let user_info = user_info.unwrap_or_else(|| "null".to_owned());
    Ok(Member { user_id, user_info })
}

fn user(text: &str) -> Result<User, UserError> {
    let fields = judge::members(text).ok_or(UserError::NotAnObject)?;
    let id = fields.last("id").and_then(judge::string);
    let mut watchlist: Vec<String> = Vec::new();
    for item in fields
        .last("watchlist")
        .and_then(judge::items)
        .unwrap_or_default()
    {
        match judge::string(item.get()) {
            Some(id) if is_id(&id) && !watchlist.contains(&id) => watchlist.push(id),
            Some(_) | None => {}
        }
    }
    let watchlist_cut = watchlist.len() > WATCHLIST_IDS_MAX;
    watchlist.truncate(WATCHLIST_IDS_MAX);
    Ok(User {
        id: id.filter(|id| is_id(id)).ok_or(UserError::Id)?,
        user_info: fields
            .last("user_info")
            .map_or_else(|| "null".to_owned(), judge::compact),
        watchlist,
        watchlist_cut,
    })
}

/// The decimal string of an integer that every language can hold.
fn integer(value: &str) -> Option<String> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = value.parse().ok()?;
    (number.unsigned_abs() <= 1 << 53).then(|| number.to_string())
}

fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.chars().count())
}

const WATCHLIST_IDS_MAX: usize = 100;
/// Small, so that inputs on both sides of it are short.
const INFO_BYTES_MAX: usize = 48;
