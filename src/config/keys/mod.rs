//! The table of all keys: the one place that knows what a Sockudo configuration may hold.
//!
//! Owns: each key's path, kind, default, variables, status and words; the tables of the server, of
//! an app and of a webhook. Parsing, variables, `config show`, hints, the reference page and the
//! tests are all driven from here.
//! May depend on: `kind`.
//! Invariants: a default fits its own kind; no two keys share a variable by accident (tested).

mod alias;
mod app;
mod backends;
mod convert;
mod delivery;
mod edges;
mod later;
mod server;
mod soketi;

pub use alias::Alias;
pub(super) use alias::{Converted, LOWEST_ALIAS_HOLDS, TRANSLATIONS, TranslationRank};
pub use app::{APP, WEBHOOK};
pub use later::Later;
pub use soketi::{Meaning, Soketi};
pub(super) use soketi::{SOKETI_APP, SOKETI_PREFIX};

use super::kind::{Kind, UNLIMITED, Whole};
use super::shape::Shape;

/// The keys of one kind of object.
#[derive(Debug)]
pub struct Table {
    pub keys: &'static [&'static [Key]],
    /// Other names of keys.
    pub aliases: &'static [Alias],
    /// Soketi's names, where they are not ours in camelCase.
    pub soketi: &'static [Soketi],
    /// Names of later versions that have no meaning here.
    pub later: &'static [Later],
    /// Objects whose members count as if they stood outside.
    pub hoisted: &'static [&'static str],
}

/// The keys of the server.
pub static SERVER: Table = Table {
    keys: &[
        server::KEYS,
        edges::KEYS,
        edges::APP_KEYS,
        delivery::KEYS,
        delivery::CLEANUP,
        backends::KEYS,
        backends::DATABASE,
    ],
    aliases: alias::SERVER,
    soketi: soketi::SERVER,
    later: later::SERVER,
    hoisted: &[],
};

impl Table {
    pub fn iter(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().flat_map(|keys| keys.iter())
    }

    pub fn find(&self, path: &str) -> Option<&'static Key> {
        self.iter().find(|key| key.path == path)
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
    pub status: Status,
    pub source: Source,
    /// A reload gives it effect.
    pub reloads: bool,
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

const fn key(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: None,
        upstream: None,
        env_app: None,
        inherits: None,
        derived: None,
        env: &[],
        fallback_env: &[],
        required: false,
        nulls: Nulls::Value,
        status: Status::Keep,
        source: Source::Upstream,
        reloads: false,
        doc,
    }
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

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self.nulls = Nulls::Refused;
        self
    }

    const fn upstream(mut self, default: &'static str) -> Self {
        self.upstream = Some(default);
        self
    }

    const fn env_app(mut self, default: &'static str) -> Self {
        self.env_app = Some(default);
        self
    }

    const fn inherits(mut self, path: &'static str) -> Self {
        self.inherits = Some(path);
        self.nulls = Nulls::Absent;
        self
    }

    const fn derived(mut self, words: &'static str) -> Self {
        self.derived = Some(words);
        self
    }

    const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    const fn fallback_env(mut self, names: &'static [&'static str]) -> Self {
        self.fallback_env = names;
        self
    }

    const fn nullable(mut self) -> Self {
        self.nulls = Nulls::Value;
        self
    }

    const fn null_is_absent(mut self) -> Self {
        self.nulls = Nulls::Absent;
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self.nulls = Nulls::Refused;
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.status = Status::NoEffect(why);
        self
    }

    const fn ours(mut self) -> Self {
        self.source = Source::Ours;
        self
    }

    const fn reloads(mut self) -> Self {
        self.reloads = true;
        self
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

const fn whole(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Whole(Whole {
        min,
        max,
        unit,
        negative: None,
    })
}

/// A number that fits 32 bits.
const fn count(min: u64) -> Kind {
    whole(min, u32::MAX as u64, "")
}

const fn milliseconds(min: u64) -> Kind {
    whole(min, u32::MAX as u64, "milliseconds")
}

const fn seconds(min: u64) -> Kind {
    whole(min, SECONDS_MAX, "seconds")
}

const fn port() -> Kind {
    whole(0, 65_535, "")
}

/// A number where a negative one means "no limit" and is held as 0.
const fn zero_is_unlimited() -> Kind {
    Kind::Whole(Whole {
        min: 0,
        max: u32::MAX as u64,
        unit: "",
        negative: Some(0),
    })
}

/// A limit of at least one, or none.
const fn limit() -> Kind {
    Kind::Whole(Whole {
        min: 1,
        max: UNLIMITED - 1,
        unit: "",
        negative: Some(UNLIMITED),
    })
}

/// A size of at least one byte, or none, given in kilobytes.
const fn kilobyte_limit() -> Kind {
    Kind::Kilobytes(Whole {
        min: 1,
        max: GIBIBYTE,
        unit: "",
        negative: Some(UNLIMITED),
    })
}

const fn auto_or(min: u64, max: u64) -> Kind {
    Kind::WholeOrAuto(Whole {
        min,
        max,
        unit: "",
        negative: None,
    })
}

const fn text(shape: Shape) -> Kind {
    Kind::Text(shape)
}

const fn choice(choices: &'static [super::kind::Choice]) -> Kind {
    Kind::Choice(choices)
}

const fn named(name: &'static str) -> super::kind::Choice {
    super::kind::Choice { name, aliases: &[] }
}

const fn named_also(name: &'static str, aliases: &'static [&'static str]) -> super::kind::Choice {
    super::kind::Choice { name, aliases }
}

/// Before the name of each variable of the app that variables make.
pub(super) const APP_PREFIX: &str = "SOCKUDO_DEFAULT_APP_";

/// A year: longer waits are mistakes, and timers need not hold them.
const SECONDS_MAX: u64 = 31_536_000;
const GIBIBYTE: u64 = 1 << 30;
