//! Data path. JSON as it crosses the wire: one validating scan over borrowed text, and the writers.
//!
//! Values that nobody looks into stay raw text: an event's data is copied as the publisher spelled
//! it. The scan is written by hand because lazy parsers let pass in skipped parts what the contract
//! refuses: sonic-rs 0.5.10 accepts lone surrogates there, its object iterator accepts text behind
//! the object, and its nesting there is not bounded.
//!
//! Owns: string tokens and values, the nesting bound, the writers; `scanner` has the grammar, `compact` texts without what
//! nobody needs in them.
//! May depend on: nothing.
//! Invariants: a `JsonString` or a raw value handed out was validated completely; nothing here
//! recurses or allocates while scanning; what is written is valid JSON if the pieces given are.

pub mod compact;
mod scanner;

use std::borrow::Cow;

use thiserror::Error;

pub use self::scanner::{Bound, Container, Place, Scanner, Within};

/// A validated JSON string token, quotes included, as it stood in its text. Holding one proves that
/// it may be copied verbatim into any other JSON text, and that its decoded form is valid Unicode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonString<'a> {
    token: &'a str,
    /// Bytes that its escapes take beyond the characters that they spell; 0 only where there are none.
    spared: usize,
}

impl<'a> JsonString<'a> {
    /// Checks a whole token, e.g. one that came from another node.
    pub fn parse(token: &'a str) -> Result<Self, JsonError> {
        let mut scanner = Scanner::of(token);
        let string = scanner.string()?;
        if scanner.is_at_end() {
            Ok(string)
        } else {
            Err(JsonError::Malformed)
        }
    }

    /// The token with its quotes.
    pub fn token(self) -> &'a str {
        self.token
    }

    /// The string that the token spells. Allocates only when there are escapes.
    pub fn decoded(self) -> Cow<'a, str> {
        self.beginning(usize::MAX)
    }

    /// The same as far as anybody needs it who refuses more than so many bytes: all of it, or more than these.
    pub fn beginning(self, bytes_max: usize) -> Cow<'a, str> {
        let body = self.body();
        if self.spared == 0 {
            return Cow::Borrowed(body);
        }
        let mut decoded = String::with_capacity(self.decoded_bytes().min(bytes_max));
        for piece in pieces(body) {
            match piece {
                Piece::Run(run) => decoded.push_str(run),
                Piece::Char(c) => decoded.push(c),
            }
            if decoded.len() > bytes_max {
                break;
            }
        }
        Cow::Owned(decoded)
    }

    /// Length of the decoded string in bytes of UTF-8, which is known without a look at it.
    pub fn decoded_bytes(self) -> usize {
        self.body().len() - self.spared
    }

    /// Whether the decoded string is `text`. No more is looked at than may be it.
    pub fn is(self, text: &str) -> bool {
        if self.decoded_bytes() != text.len() {
            return false;
        }
        if self.spared == 0 {
            return self.body() == text;
        }
        let mut rest = text;
        pieces(self.body()).all(|piece| {
            let after = match piece {
                Piece::Run(run) => rest.strip_prefix(run),
                Piece::Char(c) => rest.strip_prefix(c),
            };
            rest = after.unwrap_or_default();
            after.is_some()
        })
    }

    fn body(self) -> &'a str {
        self.token
            .get(1..self.token.len() - 1)
            .expect("a token has two quotes: checked when made")
    }
}

/// Any validated JSON value, raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonValue<'a> {
    Text(JsonString<'a>),
    Object(&'a str),
    Array(&'a str),
    Number(&'a str),
    Bool(bool),
    Null,
}

impl<'a> JsonValue<'a> {
    /// Parses a whole text that holds one value of any type.
    pub fn parse(text: &'a str) -> Result<Self, JsonError> {
        let mut scanner = Scanner::of(text);
        let value = scanner.value()?;
        scanner.end()?;
        Ok(value)
    }

    /// The value as it stood in its text.
    pub fn raw(self) -> &'a str {
        match self {
            Self::Text(string) => string.token,
            Self::Object(raw) | Self::Array(raw) | Self::Number(raw) => raw,
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            Self::Null => "null",
        }
    }

    pub fn as_text(self) -> Option<JsonString<'a>> {
        match self {
            Self::Text(string) => Some(string),
            Self::Object(_) | Self::Array(_) | Self::Number(_) | Self::Bool(_) | Self::Null => None,
        }
    }
}

/// Why a text is not JSON for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JsonError {
    #[error("not valid JSON")]
    Malformed,
    #[error("JSON nested deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("not a JSON object")]
    NotAnObject,
    /// Only where there is a bound.
    #[error("more than {bytes_max} bytes of JSON beside its strings")]
    TooMuch { bytes_max: usize },
    /// As above.
    #[error("more than {count_max} escapes in its strings")]
    TooManyEscapes { count_max: usize },
}

/// Validates a whole text that must be an object, and shows each of its members in order. A
/// repeated key is shown again: who assigns on each call lets the last one win.
///
/// Per byte of a string: an eighth of a word operation; no allocation.
pub fn for_each_member<'a>(
    text: &'a str,
    member: impl FnMut(JsonString<'a>, JsonValue<'a>),
) -> Result<(), JsonError> {
    let mut scanner = Scanner::of(text);
    scanner.check_object()?;
    scanner.members(member)?;
    scanner.end()
}

/// Shows each item of an array in order.
pub fn for_each_item<'a>(
    text: &'a str,
    mut item: impl FnMut(JsonValue<'a>),
) -> Result<(), JsonError> {
    let mut scanner = Scanner::of(text);
    let mut is_item = scanner.enter(Container::Array)?;
    while is_item {
        item(scanner.value()?);
        is_item = scanner.another(Container::Array)?;
    }
    scanner.end()
}

/// Appends `text` as a JSON string token.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` as the inside of a JSON string token, without the quotes.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let clean = plain_bytes(rest);
        let (run, after) = rest.split_at(clean);
        out.extend_from_slice(run);
        let Some((&special, after)) = after.split_first() else {
            return;
        };
        match special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                let hex = |nibble: u8| {
                    if nibble < 10 {
                        b'0' + nibble
                    } else {
                        b'a' + nibble - 10
                    }
                };
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex(control >> 4), hex(control & 15)]);
            }
        }
        rest = after;
    }
}

/// Appends a decimal number.
pub fn write_u64(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let (_, written) = digits.split_at(digits.len() - count);
    out.extend_from_slice(written);
}

/// Cuts `text` to at most `bytes_max` bytes without splitting a character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .expect("cut at a character boundary")
}

/// How many bytes from the start need no attention in a string: neither quote, nor backslash, nor
/// control.
///
/// Eight bytes per step. The three tests may flag a byte wrongly only above a byte flagged rightly
/// (a borrow travels upwards), so the lowest flag is exact.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut rest = bytes;
    let mut count = 0;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quotes = word ^ (ONES * b'"' as u64);
        let slashes = word ^ (ONES * b'\\' as u64);
        let flags = ((quotes.wrapping_sub(ONES) & !quotes)
            | (slashes.wrapping_sub(ONES) & !slashes)
            | (word.wrapping_sub(ONES * 0x20) & !word))
            & HIGHS;
        if flags != 0 {
            return count + (flags.trailing_zeros() / 8) as usize;
        }
        count += 8;
        rest = after;
    }
    count
        + rest
            .iter()
            .take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\')
            .count()
}

/// Bytes of one `Piece::Run`, at most: who needs the beginning only has little of the rest.
const RUN_BYTES_MAX: usize = 1_024;

/// A part of a string's inside: text without escapes, or the character of one escape.
enum Piece<'a> {
    Run(&'a str),
    Char(char),
}

/// The inside of a validated string token.
fn pieces(body: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if let Some(escape) = rest.strip_prefix('\\') {
            let (character, bytes) = unescape(escape.as_bytes())
                .expect("escapes were validated when the token was made");
            rest = escape.get(bytes..).expect("an escape is ASCII");
            return Some(Piece::Char(character));
        }
        let (near, _) = rest.split_at(rest.floor_char_boundary(RUN_BYTES_MAX));
        let (run, after) = rest.split_at(near.find('\\').unwrap_or(near.len()));
        rest = after;
        (!run.is_empty()).then_some(Piece::Run(run))
    })
}

/// Reads what follows a backslash: the character and how many bytes spelled it.
fn unescape(escape: &[u8]) -> Option<(char, usize)> {
    let character = match escape.first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_unicode(escape.get(1..)?),
        _ => return None,
    };
    Some((character, 1))
}

/// Reads what follows `\u`. A surrogate counts only as half of a pair: alone it is no character.
fn unescape_unicode(digits: &[u8]) -> Option<(char, usize)> {
    let unit = hex4(digits)?;
    if !(0xD800..0xE000).contains(&unit) {
        return Some((char::from_u32(unit)?, 5));
    }
    let low = digits.get(4..)?.strip_prefix(b"\\u").and_then(hex4)?;
    if unit >= 0xDC00 || !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    Some((
        char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00))?,
        11,
    ))
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits
        .first_chunk::<4>()?
        .iter()
        .try_fold(0, |value, &digit| {
            Some(value << 4 | char::from(digit).to_digit(16)?)
        })
}

/// How many objects and arrays may enclose a value, the outermost included.
pub const DEPTH_MAX: u32 = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_of_another_type_is_told_from_text_that_is_no_json() {
        for text in ["[]", "\"x\"", "1", " null "] {
            assert_eq!(
                for_each_member(text, |_, _| ()),
                Err(JsonError::NotAnObject),
                "{text}"
            );
        }
        for text in ["", "x", "[", "{", "{} {}", "{\"a\":1,}"] {
            assert_eq!(
                for_each_member(text, |_, _| ()),
                Err(JsonError::Malformed),
                "{text}"
            );
        }
    }

    #[test]
    fn strings_are_decoded_and_measured() {
        for (token, decoded) in [
            (r#""""#, ""),
            (r#""plain""#, "plain"),
            (r#""a\"b\\c\/d""#, "a\"b\\c/d"),
            (r#""\b\f\n\r\t""#, "\u{8}\u{c}\n\r\t"),
            (r#""\u0041\u00e9\u65E5\ud83d\uDE00""#, "Aé日😀"),
            (r#""\ud7ff\ue000\uffff""#, "\u{d7ff}\u{e000}\u{ffff}"),
            (r#""12345678\u0000""#, "12345678\0"),
        ] {
            let string = JsonString::parse(token).expect(token);
            assert_eq!(string.decoded(), decoded);
            assert_eq!(string.decoded_bytes(), decoded.len());
            assert!(string.is(decoded));
            assert!(!string.is("other"));
            for other in [format!("{decoded}x"), decoded.replace('A', "B")] {
                assert_eq!(string.is(&other), other == decoded, "{token}: {other}");
            }
            assert_eq!(string.token(), token);
            for bytes_max in 0..decoded.len() {
                let beginning = string.beginning(bytes_max);
                assert!(beginning.len() > bytes_max, "{token}, {bytes_max}");
                assert!(decoded.starts_with(&*beginning), "{token}, {bytes_max}");
            }
            assert_eq!(string.beginning(decoded.len()), decoded);
        }
        let long = format!(r#""é\u00e9{}\u00e9""#, "é".repeat(5_000));
        let string = JsonString::parse(&long).expect("a string");
        assert_eq!(string.decoded(), "é".repeat(5_003));
        assert!(string.is(&"é".repeat(5_003)));
        assert!(string.beginning(100).len() <= 100 + RUN_BYTES_MAX);
        for token in ["", "a", "\"a\" ", " \"a\"", "1", "\"a"] {
            assert!(JsonString::parse(token).is_err(), "{token}");
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 1, 9, 10, 99, 100, 1_700_000_000_000, u64::MAX] {
            let mut out = Vec::new();
            write_u64(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        for (text, bytes_max, expected) in [
            ("abc", 2, "ab"),
            ("abc", 3, "abc"),
            ("abc", 4, "abc"),
            ("aé", 2, "a"),
            ("aé", 3, "aé"),
            ("é", 0, ""),
        ] {
            assert_eq!(cut(text, bytes_max), expected);
        }
    }

    /// Any value, as the judge has it.
    pub(super) fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|members| members
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_written_string_is_read_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_json_string(&mut out, &text);
            let token = String::from_utf8(out).expect("UTF-8");
            prop_assert_eq!(serde_json::from_str::<String>(&token).expect("the judge"), text.as_str());
            let string = JsonString::parse(&token).expect("our own");
            prop_assert_eq!(string.decoded_bytes(), text.len());
            prop_assert_eq!(string.decoded(), text);
        }

        #[test]
        fn plain_bytes_stops_at_the_first_special_byte(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let naive = bytes.iter().take_while(|&&b| b >= 0x20 && b != b'"' && b != b'\\').count();
            prop_assert_eq!(plain_bytes(&bytes), naive);
        }

    }
}
