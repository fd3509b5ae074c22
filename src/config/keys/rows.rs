//! The words in which a section says its keys: one row is a key, its field and its value.
//!
//! Owns: `section!`, which makes a record and its rows of the table from one declaration; `choices!`,
//! which makes an enum and the names of its values; a function for each kind of value.
//! May depend on: `keys`, `kind`, `settings`.
//! Invariants: a row's doc comment is the key's text in the reference; a field is named as its key
//! unless the row says `as`.
//!
//! Five kinds of rows; those of a key have a doc comment:
//!
//! ```text
//! backlog: u32 = whole(1, 65_535, "").default("4096");        a key and its field
//! max_payload_bytes: u32 as "max_payload_kb" = kilobytes();   the key has another name
//! _ as "driver" = choice(MetricsDriver::CHOICES);             a key without a field
//! retry: Retry => Retry::read;                                a field made from several keys
//! demo: bool;                                                 a field that the loader sets
//! ```

use crate::config::keys::{Key, Nulls, Source, Status, Table};
use crate::config::kind::{Choice, Kind, UNLIMITED, Whole};
use crate::config::shape::Shape;

/// A record and its keys. The key of a row stands below the path after `in`.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $Name:ident $(in $path:literal)? { $($rows:tt)* }) => {
        section!(@row [settings [$($path, ".",)?]] [$(#[$meta])* $Name] [] [] [] $($rows)*);
    };
    // Keys without a record.
    (const $NAME:ident in $path:literal { $($(#[doc = $doc:literal])+ $name:literal = $key:expr;)* }) => {
        pub(in crate::config) const $NAME: &[$crate::config::keys::Key] =
            &[$($key.at(concat!($path, ".", $name), concat!($($doc),+)),)*];
    };
    (@row [$settings:ident [$($at:tt)*]] $head:tt [$($fields:tt)*] [$($keys:tt)*] [$($reads:tt)*]
        $(#[doc = $doc:literal])+ $field:ident: $type:ty $(as $name:literal)? = $key:expr; $($rest:tt)*
    ) => {
        section!(@row [$settings [$($at)*]] $head
            [$($fields)* $(#[doc = $doc])+ pub $field: $type,]
            [$($keys)* $key.at(concat!($($at)* section!(@name $field $($name)?)), concat!($($doc),+)),]
            [$($reads)* $field: $settings.get(concat!($($at)* section!(@name $field $($name)?))),]
            $($rest)*);
    };
    (@row [$settings:ident [$($at:tt)*]] $head:tt $fields:tt [$($keys:tt)*] $reads:tt
        $(#[doc = $doc:literal])+ _ as $name:literal = $key:expr; $($rest:tt)*
    ) => {
        section!(@row [$settings [$($at)*]] $head $fields
            [$($keys)* $key.at(concat!($($at)* $name), concat!($($doc),+)),]
            $reads $($rest)*);
    };
    (@row [$settings:ident $at:tt] $head:tt [$($fields:tt)*] $keys:tt [$($reads:tt)*]
        $(#[doc = $doc:literal])* $field:ident: $type:ty => $read:path; $($rest:tt)*
    ) => {
        section!(@row [$settings $at] $head
            [$($fields)* $(#[doc = $doc])* pub $field: $type,]
            $keys
            [$($reads)* $field: $read($settings),]
            $($rest)*);
    };
    (@row $state:tt $head:tt [$($fields:tt)*] $keys:tt [$($reads:tt)*]
        $(#[doc = $doc:literal])* $field:ident: $type:ty; $($rest:tt)*
    ) => {
        section!(@row $state $head
            [$($fields)* $(#[doc = $doc])* pub $field: $type,]
            $keys
            [$($reads)* $field: Default::default(),]
            $($rest)*);
    };
    (@row [$settings:ident $at:tt] [$(#[$meta:meta])* $Name:ident]
        [$($fields:tt)*] [$($keys:tt)*] [$($reads:tt)*]
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $Name { $($fields)* }

        impl $Name {
            pub(in crate::config) const KEYS: &'static [$crate::config::keys::Key] = &[$($keys)*];

            pub(in crate::config) fn read($settings: &$crate::config::settings::Settings) -> Self {
                Self { $($reads)* }
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}

/// A closed set of values: its names, other names after `|`, and `later` for what this release
/// knows but does not have.
macro_rules! choices {
    ($(#[$meta:meta])* pub enum $Name:ident {
        $($(#[$doc:meta])* $Variant:ident = $name:literal $(| $alias:literal)* $($later:ident)?,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Name { $($(#[$doc])* $Variant,)+ }

        impl $Name {
            pub(in crate::config) const CHOICES: &'static [$crate::config::kind::Choice] =
                &[$($crate::config::kind::Choice {
                    name: $name,
                    aliases: &[$($alias),*],
                    is_later: choices!(@is_later $($later)?),
                },)+];
        }

        impl $crate::config::settings::FromSetting for $Name {
            fn from_setting(setting: &$crate::config::settings::Setting) -> Option<Self> {
                match setting {
                    $($crate::config::settings::Setting::Text(text) if text == $name => Some(Self::$Variant),)+
                    _ => None,
                }
            }
        }
    };
    (@is_later) => { false };
    (@is_later later) => { true };
}

pub(in crate::config) use {choices, section};

/// A key of some kind; `section!` gives it its path and its words.
const fn of(kind: Kind) -> Key {
    Key {
        path: "",
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
        later: None,
        switch: None,
        doc: "",
    }
}

pub(in crate::config) const fn flag() -> Key {
    of(Kind::Flag)
}

const fn bounds(min: u64, max: u64, unit: &'static str, negative: Option<u64>) -> Whole {
    Whole {
        min,
        max,
        unit,
        negative,
    }
}

pub(in crate::config) const fn whole(min: u64, max: u64, unit: &'static str) -> Key {
    of(Kind::Whole(bounds(min, max, unit, None)))
}

/// A number that fits 32 bits.
pub(in crate::config) const fn count(min: u64) -> Key {
    whole(min, u32::MAX as u64, "")
}

pub(in crate::config) const fn milliseconds(min: u64) -> Key {
    whole(min, u32::MAX as u64, "milliseconds")
}

pub(in crate::config) const fn seconds(min: u64) -> Key {
    whole(min, SECONDS_MAX, "seconds")
}

pub(in crate::config) const fn port() -> Key {
    whole(0, 65_535, "")
}

/// A number where a negative one means "no limit" and is held as 0.
pub(in crate::config) const fn zero_is_unlimited() -> Key {
    of(Kind::Whole(bounds(0, u32::MAX as u64, "", Some(0))))
}

/// The same beyond 32 bits.
pub(in crate::config) const fn zero_is_unlimited_u64() -> Key {
    of(Kind::Whole(bounds(0, u64::MAX, "", Some(0))))
}

/// A limit of at least one, or none.
pub(in crate::config) const fn limit() -> Key {
    of(Kind::Whole(bounds(1, UNLIMITED - 1, "", Some(UNLIMITED))))
}

/// A size of at least one byte, given in kilobytes.
pub(in crate::config) const fn kilobytes() -> Key {
    of(Kind::Kilobytes(bounds(1, GIBIBYTE, "", None)))
}

/// The same, or none.
pub(in crate::config) const fn kilobyte_limit() -> Key {
    of(Kind::Kilobytes(bounds(1, GIBIBYTE, "", Some(UNLIMITED))))
}

pub(in crate::config) const fn auto_or(min: u64, max: u64) -> Key {
    of(Kind::WholeOrAuto(bounds(min, max, "", None)))
}

pub(in crate::config) const fn fraction() -> Key {
    of(Kind::Fraction)
}

pub(in crate::config) const fn text(shape: Shape) -> Key {
    of(Kind::Text(shape))
}

pub(in crate::config) const fn text_or_number(shape: Shape) -> Key {
    of(Kind::TextOrNumber(shape))
}

pub(in crate::config) const fn texts(shape: Shape) -> Key {
    of(Kind::Texts(shape))
}

pub(in crate::config) const fn choice(choices: &'static [Choice]) -> Key {
    of(Kind::Choice(choices))
}

pub(in crate::config) const fn secret() -> Key {
    of(Kind::Secret)
}

pub(in crate::config) const fn secrets() -> Key {
    of(Kind::Secrets)
}

pub(in crate::config) const fn url() -> Key {
    of(Kind::Url)
}

pub(in crate::config) const fn urls() -> Key {
    of(Kind::Urls)
}

pub(in crate::config) const fn cidrs() -> Key {
    of(Kind::Cidrs)
}

pub(in crate::config) const fn endpoints(host: &'static str, port: u16) -> Key {
    of(Kind::Endpoints { host, port })
}

pub(in crate::config) const fn mode() -> Key {
    of(Kind::Mode)
}

pub(in crate::config) const fn headers() -> Key {
    of(Kind::Headers)
}

pub(in crate::config) const fn records(table: &'static Table) -> Key {
    of(Kind::Records(table))
}

impl Key {
    /// Gives a row its path and its words, as a doc comment has them.
    pub(in crate::config) const fn at(mut self, path: &'static str, doc: &'static str) -> Self {
        self.path = path;
        self.doc = doc.trim_ascii();
        self
    }

    pub(in crate::config) const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self.nulls = Nulls::Refused;
        self
    }

    pub(in crate::config) const fn upstream(mut self, default: &'static str) -> Self {
        self.upstream = Some(default);
        self
    }

    pub(in crate::config) const fn env_app(mut self, default: &'static str) -> Self {
        self.env_app = Some(default);
        self
    }

    pub(in crate::config) const fn inherits(mut self, path: &'static str) -> Self {
        self.inherits = Some(path);
        self.nulls = Nulls::Absent;
        self
    }

    pub(in crate::config) const fn derived(mut self, words: &'static str) -> Self {
        self.derived = Some(words);
        self
    }

    pub(in crate::config) const fn env(mut self, names: &'static [&'static str]) -> Self {
        self.env = names;
        self
    }

    pub(in crate::config) const fn fallback_env(mut self, names: &'static [&'static str]) -> Self {
        self.fallback_env = names;
        self
    }

    pub(in crate::config) const fn nullable(mut self) -> Self {
        self.nulls = Nulls::Value;
        self
    }

    pub(in crate::config) const fn null_is_absent(mut self) -> Self {
        self.nulls = Nulls::Absent;
        self
    }

    pub(in crate::config) const fn required(mut self) -> Self {
        self.required = true;
        self.nulls = Nulls::Refused;
        self
    }

    pub(in crate::config) const fn no_effect(mut self, why: &'static str) -> Self {
        self.status = Status::NoEffect(why);
        self
    }

    pub(in crate::config) const fn ours(mut self) -> Self {
        self.source = Source::Ours;
        self
    }

    pub(in crate::config) const fn reloads(mut self) -> Self {
        self.reloads = true;
        self
    }

    /// A flag that this release cannot turn on, and what there is instead.
    pub(in crate::config) const fn later(mut self, available: &'static str) -> Self {
        self.later = Some(available);
        self
    }

    /// What is chosen does not matter while the flag `path` is off.
    pub(in crate::config) const fn matters_with(mut self, path: &'static str) -> Self {
        self.switch = Some(path);
        self
    }
}

/// A year: longer waits are mistakes, and timers need not hold them.
const SECONDS_MAX: u64 = 31_536_000;
pub(in crate::config) const GIBIBYTE: u64 = 1 << 30;
