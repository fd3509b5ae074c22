//! JSON as somebody else reads it: serde_json, with the two rules that our contract adds to the grammar.
//!
//! Owns: what valid JSON is for us, told without our scanner.
//! May depend on: `serde_json`.
//! Invariants: nothing here calls `sockudo::protocol::json`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Valid for us: RFC 8259, no string with half a surrogate pair, at most 128 objects and arrays around a value.
pub(crate) fn accepts(text: &str) -> bool {
    // A raw value is skipped whole: no bound on nesting, none on the range of numbers, and no look at surrogates.
    serde_json::from_str::<&RawValue>(text).is_ok()
        && depth(text) <= 128
        && strings(text).all(|token| serde_json::from_str::<String>(token).is_ok())
}

/// The members of an object in order, repeated keys included; `None` for anything else, valid or not.
pub(crate) fn members(text: &str) -> Option<Members<'_>> {
    accepts(text).then(|| serde_json::from_str(text).ok())?
}

/// The items of an array; `None` for anything else.
pub(crate) fn items(text: &str) -> Option<Vec<&RawValue>> {
    accepts(text).then(|| serde_json::from_str(text).ok())?
}

/// The string that a value spells; `None` where it is none.
pub(crate) fn string(value: &str) -> Option<String> {
    serde_json::from_str(value).ok()
}

/// The value without the whitespace between its tokens.
pub(crate) fn compact(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(first) = rest.chars().next() {
        let token = match first {
            '"' => string_token(rest),
            _ => &rest[..first.len_utf8()],
        };
        if !matches!(first, ' ' | '\t' | '\n' | '\r') {
            out.push_str(token);
        }
        rest = &rest[token.len()..];
    }
    out
}

/// Bytes of the same with each string as short as it can be spelled.
pub(crate) fn shortest_bytes(value: &str) -> usize {
    let saved = strings(value).map(|token| {
        let text: String = serde_json::from_str(token).expect("it was accepted");
        let shortest = serde_json::to_string(&text).expect("a string");
        token.len() - shortest.len()
    });
    compact(value).len() - saved.sum::<usize>()
}

/// What an object's text holds.
pub(crate) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Of repeated keys the last counts.
    pub(crate) fn last(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(name, _)| name == key)?;
        Some(found.1.get())
    }

    /// As `last`, but `null` is as good as nothing.
    pub(crate) fn last_but_null(&self, key: &str) -> Option<&'a str> {
        self.last(key).filter(|value| *value != "null")
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// The string tokens of a valid text.
fn strings(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = &rest[rest.find('"')?..];
        let token = string_token(rest);
        rest = &rest[token.len()..];
        Some(token)
    })
}

/// The string token that a text begins with.
fn string_token(text: &str) -> &str {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return &text[..=at],
            _ => {}
        }
    }
    text
}

/// The most objects and arrays that are open at once in a valid text.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for byte in outside_strings(text) {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

fn outside_strings(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while rest.starts_with('"') {
            rest = &rest[string_token(rest).len()..];
        }
        let byte = *rest.as_bytes().first()?;
        let mut characters = rest.chars();
        characters.next();
        rest = characters.as_str();
        Some(byte)
    })
}
