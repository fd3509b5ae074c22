//! The tree that a configuration file, or a text in a variable, is read into.
//!
//! Owns: values with the line they stand in, before anyone knows what they mean.
//! May depend on: `secret`, for what an error may show.
//! Invariants: a number keeps its digits as written, so that no precision is lost before its key
//! says what it is; an object's names are unique as written.

use super::secret::masked_url;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) line: u32,
    /// The text as it stood before `${VAR}` was replaced. Errors show this: a variable's value may
    /// be a secret that landed in the wrong key.
    pub(super) written: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn new(value: Value, line: u32) -> Self {
        Self {
            value,
            line,
            written: None,
        }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new(Value::Text(text.into()), 1)
    }

    /// The value as an error shows it: short, quoted when it is a text. Whoever puts a URL where none belongs does not
    /// read its password there.
    pub(super) fn shown(&self) -> String {
        if let Some(written) = &self.written {
            return quoted(written);
        }
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Flag(flag) => flag.to_string(),
            Value::Number(digits) => shortened(digits),
            Value::Text(text) => quoted(text),
            Value::List(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }

    /// The same where keys are expected, some of which are secrets: a text may hold any of them.
    pub(super) fn shown_for_keys(&self) -> String {
        match &self.value {
            Value::Text(_) => "a text".to_owned(),
            Value::Null | Value::Flag(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => {
                self.shown()
            }
        }
    }
}

/// Where the lines of a text begin, so that any place's line is found without reading it again.
pub(super) struct Lines {
    /// Of each break, in order.
    breaks_at: Vec<usize>,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let bytes = text.bytes().enumerate();
        let breaks = bytes.filter(|(_, byte)| *byte == b'\n');
        Self {
            breaks_at: breaks.map(|(at, _)| at).collect(),
        }
    }

    /// The number of the line that holds byte `at`, from 1.
    pub(super) fn line(&self, at: usize) -> u32 {
        let breaks = self.breaks_at.partition_point(|it| *it < at);
        u32::try_from(breaks).map_or(u32::MAX, |breaks| breaks.saturating_add(1))
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", shortened(&masked_url(text)))
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    text.chars()
        .take(SHOWN_CHARS_MAX)
        .chain(['\u{2026}'])
        .collect()
}

/// Longest piece of a wrong value that an error repeats.
const SHOWN_CHARS_MAX: usize = 60;
