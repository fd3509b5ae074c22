//! What a key is, and what it may be called: parsing, variables, `config show`, hints, the reference
//! page and the tests are all driven from tables of keys.
//!
//! Owns: a key's path, kind, default, variables, status and words; the form of a row (`rows`); other
//! names of keys. The rows themselves stand in `sections`.
//! May depend on: `kind`, `shape`, `tree`.
//! Invariants: a default fits its own kind; no two keys share a variable by accident (tested).

pub(super) mod aliases;
mod convert;
pub(super) mod later;
pub(super) mod names;
pub(super) mod rows;
pub(super) mod soketi;

pub(super) use aliases::{LOWEST_ALIAS_HOLDS, TRANSLATIONS};
pub use later::Later;
pub(super) use names::Converted;
pub use names::{Convert, Meaning, OtherName};
pub(super) use soketi::{SOKETI_APP, SOKETI_PREFIX};

pub use super::sections::SERVER;
pub use super::sections::app::{APP, WEBHOOK};

use super::kind::Kind;

/// The keys of one kind of object.
#[derive(Debug)]
pub struct Table {
    pub keys: &'static [&'static [Key]],
    /// Other names of keys.
    pub aliases: &'static [OtherName],
    /// Soketi's names, where they are not ours in camelCase.
    pub soketi: &'static [OtherName],
    /// Names of later versions that have no meaning here.
    pub later: Later,
    /// Objects whose members count as if they stood outside.
    pub hoisted: &'static [&'static str],
}

impl Table {
    pub fn iter(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().flat_map(|keys| keys.iter())
    }

    pub fn find(&self, path: &str) -> Option<&'static Key> {
        self.iter().find(|key| key.path == path)
    }

    /// The key of a path that our own lists name.
    pub(super) fn key(&self, path: &str) -> &'static Key {
        self.find(path).unwrap_or_else(|| panic!("{path} is a key"))
    }

    /// Names in a file beside the keys' own.
    pub(super) fn other_names(&self) -> impl Iterator<Item = &'static OtherName> {
        self.soketi.iter().chain(self.aliases)
    }
}

/// Brings the keys of each section together: first those without one, then the sections in order
/// of their first appearance.
pub(super) fn gather_sections(keys: &mut [&Key], section_of: fn(&str) -> &str) {
    let sections: Vec<&str> = keys.iter().map(|key| section_of(key.path)).collect();
    keys.sort_by_key(|key| match section_of(key.path) {
        "" => None,
        name => sections.iter().position(|other| *other == name),
    });
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub path: &'static str,
    pub kind: Kind,
    /// In the form of a variable's value; `None` = unset.
    pub default: Option<&'static str>,
    /// The default where `limits_mode` is `upstream`.
    pub upstream: Option<&'static str>,
    /// The default in the app that `SOCKUDO_DEFAULT_APP_*` makes.
    pub env_app: Option<&'static str>,
    /// The server's key whose value is the default of this one of an app.
    pub inherits: Option<&'static str>,
    /// What the default follows from, in words.
    pub derived: Option<&'static str>,
    /// Variables that set it, lowest first.
    pub env: &'static [&'static str],
    /// Variables that rank below the file.
    pub fallback_env: &'static [&'static str],
    /// An app's key must be there.
    pub required: bool,
    pub nulls: Nulls,
    /// An empty text of a file or a flag is a value of its own, not the absence of one.
    pub empty_counts: bool,
    pub status: Status,
    pub source: Source,
    /// A reload gives it effect.
    pub reloads: bool,
    /// A flag that, when off, makes the choice irrelevant.
    pub switch: Option<&'static str>,
    pub doc: &'static str,
}

/// What `null` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    Refused,
    /// A value of its own: none.
    Value,
    /// The same as leaving the key out.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Keep,
    /// Accepted, does nothing, and why.
    NoEffect(&'static str),
}

/// Who else knows the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Upstream,
    Ours,
}

impl Key {
    /// The variables that set a key of the server, lowest first: its own, then the short form,
    /// then the general form. Those of `fallback_env`, below the file, are not among them.
    pub fn variables(&self) -> Vec<String> {
        let mut names: Vec<String> = self.env.iter().map(|name| (*name).to_owned()).collect();
        for name in [short_form(self.path), general_form(self.path)] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// The variables that set a key of the app that variables make, lowest first.
    pub fn app_variables(&self) -> Vec<String> {
        let mut names = vec![format!("{APP_PREFIX}{}", capitals(self.path, "_"))];
        names.extend(self.env.iter().map(|name| (*name).to_owned()));
        names
    }
}

/// `SOCKUDO_NET_SEND_QUEUE_BYTES`.
pub(super) fn short_form(path: &str) -> String {
    format!("SOCKUDO_{}", capitals(path, "_"))
}

/// `SOCKUDO__NET__SEND_QUEUE_BYTES`.
pub(super) fn general_form(path: &str) -> String {
    format!("SOCKUDO__{}", capitals(path, "__"))
}

fn capitals(path: &str, between: &str) -> String {
    path.to_ascii_uppercase().replace('.', between)
}

/// Before the name of each variable of the app that variables make.
pub(super) const APP_PREFIX: &str = "SOCKUDO_DEFAULT_APP_";
