//! Query strings: splitting and decoding, for signatures and for whoever reads parameters.
//!
//! Owns: how `?a=b&c` becomes pairs, percent-decoding.
//! May depend on: memchr.
//! Invariants: decoding happens once; an escape that is none stays as it stands; of repeated
//! parameters the first counts.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// One parameter of a raw query. `a` without `=` is `a` with an empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Not decoded.
    pub key: &'a str,
    /// Not decoded.
    pub value: &'a str,
    /// Decoding would change the key.
    pub key_is_escaped: bool,
    /// Decoding would change the value.
    pub value_is_escaped: bool,
}

/// The parameters of a raw query; empty segments are skipped.
pub fn pairs(query: &str) -> impl Iterator<Item = Pair<'_>> {
    let mut rest = query;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('&');
        let (pair, after) = first_pair(rest)?;
        rest = after;
        Some(pair)
    })
}

/// Cuts the first pair off a query that does not begin with `&`.
// Requests are signed over some 200 bytes of query: the searches look at many bytes at once.
fn first_pair(query: &str) -> Option<(Pair<'_>, &str)> {
    if query.is_empty() {
        return None;
    }
    let end = memchr(b'&', query.as_bytes()).unwrap_or(query.len());
    let (segment, rest) = query.split_at_checked(end)?;
    let equals = memchr(b'=', segment.as_bytes());
    let (key, value) = match equals {
        Some(at) => (segment.get(..at)?, segment.get(at + 1..)?),
        None => (segment, ""),
    };
    let is_escaped = |text: &str| memchr2(b'%', b'+', text.as_bytes()).is_some();
    let pair = Pair {
        key,
        value,
        key_is_escaped: is_escaped(key),
        value_is_escaped: is_escaped(value),
    };
    Some((pair, rest))
}

/// Decodes a key or value: percent escapes, and `+` as a space.
pub fn decode(text: &str) -> Cow<'_, [u8]> {
    if memchr2(b'%', b'+', text.as_bytes()).is_some() {
        Cow::Owned(decoded(text.as_bytes(), b' '))
    } else {
        Cow::Borrowed(text.as_bytes())
    }
}

/// Decodes percent escapes only, as in paths.
pub fn decode_percent(text: &str) -> Vec<u8> {
    decode_percent_bytes(text.as_bytes())
}

/// The same of bytes.
pub fn decode_percent_bytes(bytes: &[u8]) -> Vec<u8> {
    decoded(bytes, b'+')
}

fn decoded(bytes: &[u8], plus: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, escaped_byte(after)) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => out.push(plus),
            (plain, _) => out.push(plain),
        }
    }
    out
}

fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let [high, low] = *digits.first_chunk::<2>()?;
    let value = char::from(high).to_digit(16)? << 4 | char::from(low).to_digit(16)?;
    u8::try_from(value).ok()
}

/// The first value of a parameter, decoded; its name without regard to ASCII case, since names are
/// signed in lower case: who saw a signed query must not be able to hide a parameter of it. Bytes
/// that are no UTF-8 become U+FFFD, which no name contains.
pub fn first<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let is_named = |pair: &Pair<'_>| decode(pair.key).eq_ignore_ascii_case(name.as_bytes());
    let pair = pairs(query).find(is_named)?;
    Some(match decode(pair.value) {
        Cow::Borrowed(_) => Cow::Borrowed(pair.value),
        Cow::Owned(bytes) => Cow::Owned(match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_split_and_decoded() {
        let split: Vec<_> = pairs("a=1&&b&c=&=d&e=f=g&")
            .map(|pair| (pair.key, pair.value))
            .collect();
        assert_eq!(
            split,
            [("a", "1"), ("b", ""), ("c", ""), ("", "d"), ("e", "f=g")]
        );
        assert_eq!((pairs("").count(), pairs("&&").count()), (0, 0));
        let escaped: Vec<_> = pairs("a=1&b%20=1&c=%&d+=+&é=é")
            .map(|pair| (pair.key_is_escaped, pair.value_is_escaped))
            .collect();
        let (yes, no) = (true, false);
        assert_eq!(
            escaped,
            [(no, no), (yes, no), (no, yes), (yes, yes), (no, no)]
        );
        for (text, decoded) in [
            ("abc", "abc"),
            ("a%20b+c", "a b c"),
            ("%C3%a9", "é"),
            ("%", "%"),
            ("%4", "%4"),
            ("%4g", "%4g"),
            ("%%41", "%A"),
            ("%2541", "%41"),
            ("100%+", "100% "),
        ] {
            assert_eq!(&*decode(text), decoded.as_bytes(), "{text}");
        }
        assert_eq!(decode_percent("a+b%40c"), b"a+b@c");
    }

    #[test]
    fn the_first_of_repeated_parameters_counts() {
        assert_eq!(first("a=1&b=2&a=3", "a").as_deref(), Some("1"));
        assert_eq!(first("a=1", "b"), None);
        assert_eq!(first("A=1", "a").as_deref(), Some("1"));
        assert_eq!(first("ab=1", "a"), None);
        assert_eq!(first("%61=x%20y", "a").as_deref(), Some("x y"));
        assert_eq!(first("a=%ff", "a").as_deref(), Some("\u{fffd}"));
    }
}
