//! What can be wrong with a configuration, and what an operator should know about a good one.
//!
//! Owns: the errors and notices of a load, their words, and the report in which one load gathers
//! them.
//! May depend on: `origin`.
//! Invariants: no text here holds a secret; who makes an error masks the value first.

use std::fmt;

use super::origin::Origin;

/// One thing that is wrong. Prints as `PLACE: KEY: FAULT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{fault}", head(.origin), name(.key))]
pub struct ConfigError {
    pub origin: Origin,
    /// The key as the operator wrote it; empty when the whole file is meant.
    pub key: String,
    pub fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{shown} is not {wanted}")]
    Value { shown: String, wanted: String },
    #[error("must not be empty: {wanted}")]
    Empty { wanted: String },
    #[error("is required")]
    Missing,
    #[error("no such key{}", hint(.nearest))]
    UnknownKey { nearest: Option<String> },
    #[error("given twice in one object (first in line {first_line})")]
    Twice { first_line: u32 },
    #[error("{shown} is not in this release, which has {available}")]
    NotInThisRelease { shown: String, available: String },
    #[error(
        "variable {variable} is not set and has no default; \
             set it, or write ${{{variable}:-default}}"
    )]
    VariableUnset { variable: String },
    #[error("not valid {format}: {message}")]
    Syntax {
        format: &'static str,
        message: String,
    },
    #[error("cannot be read: {message}")]
    Unreadable { message: String },
    /// A value that is fine by itself but not beside another one.
    #[error("{0}")]
    Conflict(String),
}

/// All errors of one load, in the order of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know; `config check` prints it.
    Note,
    /// Probably not what was meant; `serve` logs it, `config check --strict` fails on it.
    Warning,
}

/// Something an operator should know about a configuration that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub level: Level,
    pub origin: Origin,
    pub key: String,
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}{}{}",
            head(&self.origin),
            name(&self.key),
            self.text
        )
    }
}

/// What one load has found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) errors: Vec<ConfigError>,
    pub(super) notices: Vec<Notice>,
    /// An unknown key is a warning, not an error.
    pub(super) lenient: bool,
    /// A key that a file gives under two names is an error: a table, or another server's file, may have both.
    pub(super) wants_one_name: bool,
}

impl Report {
    pub(super) fn error(&mut self, origin: &Origin, key: impl Into<String>, fault: Fault) {
        self.errors.push(ConfigError {
            origin: origin.clone(),
            key: key.into(),
            fault,
        });
    }

    pub(super) fn note(&mut self, origin: &Origin, key: impl Into<String>, text: String) {
        self.push(Level::Note, origin, key.into(), text);
    }

    pub(super) fn warn(&mut self, origin: &Origin, key: impl Into<String>, text: String) {
        self.push(Level::Warning, origin, key.into(), text);
    }

    /// Something was given for this key, and refused.
    pub(super) fn is_refused(&self, key: &str) -> bool {
        self.errors.iter().any(|error| error.key.starts_with(key))
    }

    /// An error, or a warning for a lenient load.
    pub(super) fn unknown_key(&mut self, origin: &Origin, key: String, nearest: Option<String>) {
        let fault = Fault::UnknownKey { nearest };
        if self.lenient {
            self.warn(origin, key, format!("{fault}; ignored"));
        } else {
            self.error(origin, key, fault);
        }
    }

    fn push(&mut self, level: Level, origin: &Origin, key: String, text: String) {
        self.notices.push(Notice {
            level,
            origin: origin.clone(),
            key,
            text,
        });
    }
}

fn head(origin: &Origin) -> String {
    origin
        .place()
        .map_or_else(String::new, |place| format!("{place}: "))
}

fn name(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key}: ")
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |name| format!("; did you mean {name}?"))
}
