//! Where a value came from.
//!
//! Owns: the origin of a value and the two ways to print it: for `config show` (`Display`), and as
//! the head of an error (`place`).
//! May depend on: nothing.
//! Invariants: lines count from 1.

use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// Line `line` of the file `path`.
    File {
        path: Arc<str>,
        line: u32,
    },
    /// An environment variable.
    Env {
        name: Arc<str>,
    },
    /// A variable of the `--env-file`.
    EnvFile {
        name: Arc<str>,
        path: Arc<str>,
        line: u32,
    },
    /// A command-line flag.
    Cli {
        flag: &'static str,
    },
}

impl Origin {
    /// The head of an error or notice, or `None` where there is no place to name.
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Default => None,
            Self::File { path, line } => Some(format!("{path}:{line}")),
            Self::Env { name } => Some(format!("env {name}")),
            Self::EnvFile { name, path, line } => Some(format!("{path}:{line}: {name}")),
            Self::Cli { flag } => Some((*flag).to_owned()),
        }
    }

    /// The variable's name, if it is one.
    pub(super) fn variable(&self) -> Option<&str> {
        match self {
            Self::Env { name } | Self::EnvFile { name, .. } => Some(name),
            Self::Default | Self::File { .. } | Self::Cli { .. } => None,
        }
    }

    /// The same source at another line; only a file has lines inside one value.
    pub(super) fn at_line(&self, line: u32) -> Self {
        match self {
            Self::File { path, .. } => Self::File {
                path: Arc::clone(path),
                line,
            },
            Self::Default | Self::Env { .. } | Self::EnvFile { .. } | Self::Cli { .. } => {
                self.clone()
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "file:{path}:{line}"),
            Self::Env { name } => write!(out, "env:{name}"),
            Self::EnvFile { name, path, line } => write!(out, "env:{name} ({path}:{line})"),
            Self::Cli { .. } => out.write_str("cli"),
        }
    }
}
