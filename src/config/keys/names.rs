//! Other names of keys: older and later spellings, Soketi's, variables that need a translation.
//!
//! Owns: what such a name is: where it may stand, which key it sets, how its value becomes the key's.
//! May depend on: `tree`, `error`.
//! Invariants: another name ranks below its key in the same kind of source, unless it says otherwise.

use super::soketi::SOKETI_PREFIX;
use crate::config::error::Level;
use crate::config::tree::{Node, Value};

/// Another name of a key.
#[derive(Debug)]
pub struct OtherName {
    /// Its path in a file, in snake case; "" where it is only a variable.
    pub path: &'static str,
    /// A variable after `prefix`; "" where there is none.
    variable: &'static str,
    prefix: &'static str,
    is_camel_case: bool,
    /// Only spelled otherwise: a file says one of the two.
    pub(in crate::config) is_spelling: bool,
    /// As a variable it ranks above everything but a flag.
    pub(in crate::config) is_top: bool,
    pub meaning: Meaning,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    Key {
        to: &'static str,
        #[doc(hidden)]
        convert: Convert,
    },
    /// It does nothing here, and why.
    NoEffect(&'static str),
}

/// How a value is turned into the key's.
#[derive(Clone, Copy, Debug)]
pub struct Convert(pub(in crate::config) fn(&Node) -> Converted);

/// What became of a value.
#[derive(Debug)]
pub(in crate::config) enum Converted {
    Same,
    /// The key's value instead.
    Text(String),
    Value(Value),
    /// The key's value instead, if any, and what the operator should know of it.
    Said {
        value: Option<Value>,
        level: Level,
        text: String,
    },
    /// No value: an object whose members have names of their own.
    Section,
    /// Nothing is said about the key.
    Nothing,
    Refused {
        wanted: &'static str,
    },
}

impl OtherName {
    pub(super) const fn new(
        path: &'static str,
        to: &'static str,
        convert: fn(&Node) -> Converted,
    ) -> Self {
        let convert = Convert(convert);
        Self {
            meaning: Meaning::Key { to, convert },
            ..Self::without_effect(path, "")
        }
    }

    pub(super) const fn without_effect(path: &'static str, why: &'static str) -> Self {
        Self {
            path,
            variable: "",
            prefix: "",
            is_camel_case: false,
            is_spelling: false,
            is_top: false,
            meaning: Meaning::NoEffect(why),
        }
    }

    /// A variable of that name.
    pub(super) const fn variable_named(mut self, variable: &'static str) -> Self {
        self.variable = variable;
        self
    }

    pub(super) const fn of_soketi(mut self, variable: &'static str) -> Self {
        self.prefix = SOKETI_PREFIX;
        self.variable_named(variable)
    }

    /// Only `camelCase` is meant: `snake_case` is our own key, with another unit.
    pub(super) const fn in_camel_case(mut self) -> Self {
        self.is_camel_case = true;
        self
    }

    pub(super) const fn spelled_otherwise(mut self) -> Self {
        self.is_spelling = true;
        self
    }

    pub(super) const fn above_all(mut self) -> Self {
        self.is_top = true;
        self
    }

    /// The variable's whole name.
    pub fn variable(&self) -> Option<String> {
        (!self.variable.is_empty()).then(|| format!("{}{}", self.prefix, self.variable))
    }

    /// The row is about the member that a file calls `written`, at `path`.
    pub(in crate::config) fn is_about(&self, path: &str, written: &str) -> bool {
        let is_camel_case = || written.contains(|c: char| c.is_ascii_uppercase());
        self.path == path && (!self.is_camel_case || is_camel_case())
    }

    /// The path as a file writes it, where no other spelling means the same.
    pub(in crate::config) fn spelled(&self) -> String {
        if self.is_camel_case {
            camel_case(self.path)
        } else {
            self.path.to_owned()
        }
    }
}

fn camel_case(path: &str) -> String {
    let mut after_underscore = false;
    let spelled = path.chars().filter_map(|c| {
        let is_capital = std::mem::replace(&mut after_underscore, c == '_');
        match c {
            '_' => None,
            _ if is_capital => Some(c.to_ascii_uppercase()),
            _ => Some(c),
        }
    });
    spelled.collect()
}
