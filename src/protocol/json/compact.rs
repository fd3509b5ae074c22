//! Data path. JSON texts without what nobody needs in them: whitespace between tokens, and how long they are so.
//!
//! Owns: compaction, the shortest spelling's length.
//! May depend on: `protocol::json`.
//! Invariants: each value that is given was validated before; numbers, key order and escapes stay as they were spelled.

use super::{plain_bytes, unescape, write_escaped};

/// Appends any raw JSON value as a JSON *string* token that holds its compact text, and returns the
/// length of the decoded string. Whitespace between tokens goes; numbers, key order and escapes
/// stay as they were spelled. `raw` must be a value that was validated before.
pub fn compact_into_string_token(raw: &str, out: &mut Vec<u8>) -> usize {
    out.push(b'"');
    let mut bytes = 0;
    for_each_compact_run(raw, |run| {
        bytes += run.len();
        write_escaped(out, run);
    });
    out.push(b'"');
    bytes
}

/// Appends the compact text of a validated raw JSON value.
pub fn compact_into(raw: &str, out: &mut String) {
    for_each_compact_run(raw, |run| out.push_str(run));
}

/// Length of the compact text of a validated raw JSON value.
pub fn compact_bytes(raw: &str) -> usize {
    let mut bytes = 0;
    for_each_compact_run(raw, |run| bytes += run.len());
    bytes
}

/// The same of the value in its shortest spelling: escapes that need not be are the characters that they stand for.
pub fn shortest_bytes(raw: &str) -> usize {
    let mut bytes = compact_bytes(raw);
    let (mut rest, mut written) = (raw, Vec::new());
    // A backslash stands in strings alone.
    while let Some((_, escape)) = rest.split_once('\\') {
        let unescaped = unescape(escape.as_bytes());
        let (character, spelled) = unescaped.expect("escapes were validated with the value");
        written.clear();
        match character {
            '\u{8}' => written.extend(b"\\b"),
            '\u{c}' => written.extend(b"\\f"),
            other => write_escaped(&mut written, other.encode_utf8(&mut [0; 4])),
        }
        bytes -= 1 + spelled - written.len();
        rest = escape.get(spelled..).expect("an escape is ASCII");
    }
    bytes
}

/// Shows the text between insignificant whitespace, in as few pieces as there are.
fn for_each_compact_run<'a>(raw: &'a str, mut show: impl FnMut(&'a str)) {
    let bytes = raw.as_bytes();
    let piece = |from, to| raw.get(from..to).expect("cut at ASCII characters");
    let (mut from, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1),
            b' ' | b'\n' | b'\r' | b'\t' => {
                if from < at {
                    show(piece(from, at));
                }
                at += 1;
                from = at;
            }
            _ => at += 1,
        }
    }
    if from < at {
        show(piece(from, at));
    }
}

/// Index behind the closing quote of a validated string whose inside begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at += plain_bytes(bytes.get(at..).unwrap_or_default());
        match bytes.get(at) {
            Some(b'\\') => at += 2,
            Some(_) => return at + 1,
            None => return bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{JsonString, JsonValue, tests::any_json},
        *,
    };

    #[test]
    fn compaction_drops_only_insignificant_whitespace() {
        for (raw, compact) in [
            ("null", "null"),
            (
                " { \"b\" : 1.50 ,\n\"a\":[ 1 , 2e3 ] } ",
                r#"{"b":1.50,"a":[1,2e3]}"#,
            ),
            (
                r#"{"a b" : " c \" d \\" , "e":"\u00e9" }"#,
                r#"{"a b":" c \" d \\","e":"\u00e9"}"#,
            ),
            (r#"" a ""#, r#"" a ""#),
            ("[\t\"x\\\\\" , \"y\"]", "[\"x\\\\\",\"y\"]"),
        ] {
            let mut text = String::new();
            compact_into(raw, &mut text);
            assert_eq!(text, compact);
            assert_eq!(compact_bytes(raw), compact.len());
            let mut token = Vec::new();
            assert_eq!(compact_into_string_token(raw, &mut token), compact.len());
            let token = String::from_utf8(token).expect("UTF-8");
            assert_eq!(JsonString::parse(&token).expect(&token).decoded(), compact);
        }
    }

    proptest! {
        #[test]
        fn what_the_judge_writes_is_accepted_and_compacts_to_the_same_value(value in any_json()) {
            let pretty = serde_json::to_string_pretty(&value).expect("valid");
            prop_assert!(JsonValue::parse(&pretty).is_ok());
            let mut compact = String::new();
            compact_into(&pretty, &mut compact);
            prop_assert_eq!(compact, serde_json::to_string(&value).expect("valid"));
        }
    }
}
