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
        empty_counts: false,
        status: Status::Keep,
        source: Source::Upstream,
        reloads: false,
        switch: None,
        doc: "",
    }
}

const fn bounds(min: u64, max: u64, unit: &'static str, negative: Option<u64>) -> Whole {
    Whole {
        min,
        max,
        unit,
        negative,
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) = $kind:expr;)+) => {$(
        $(#[$doc])*
        pub(in crate::config) const fn $name($($argument: $type),*) -> Key {
            of($kind)
        }
    )+};
}

kinds! {
    flag() = Kind::Flag;
    whole(min: u64, max: u64, unit: &'static str) = Kind::Whole(bounds(min, max, unit, None));
    /// A number that fits 32 bits.
    count(min: u64) = Kind::Whole(bounds(min, u32::MAX as u64, "", None));
    milliseconds(min: u64) = Kind::Whole(bounds(min, u32::MAX as u64, "milliseconds", None));
    seconds(min: u64) = Kind::Whole(bounds(min, SECONDS_MAX, "seconds", None));
    port() = Kind::Whole(bounds(0, 65_535, "", None));
    /// A number where a negative one means "no limit" and is held as 0.
    zero_is_unlimited() = Kind::Whole(bounds(0, u32::MAX as u64, "", Some(0)));
    /// The same beyond 32 bits.
    zero_is_unlimited_u64() = Kind::Whole(bounds(0, u64::MAX, "", Some(0)));
    /// A limit of at least one, or none.
    limit() = Kind::Whole(bounds(1, UNLIMITED - 1, "", Some(UNLIMITED)));
    /// A size of at least one byte, given in kilobytes.
    kilobytes() = Kind::Kilobytes(bounds(1, GIBIBYTE, "", None));
    /// The same, or none.
    kilobyte_limit() = Kind::Kilobytes(bounds(1, GIBIBYTE, "", Some(UNLIMITED)));
    auto_or(min: u64, max: u64) = Kind::WholeOrAuto(bounds(min, max, "", None));
    fraction() = Kind::Fraction;
    text(shape: Shape) = Kind::Text(shape);
    text_or_number(shape: Shape) = Kind::TextOrNumber(shape);
    texts(shape: Shape) = Kind::Texts(shape);
    choice(choices: &'static [Choice]) = Kind::Choice(choices);
    secret() = Kind::Secret;
    secrets() = Kind::Secrets;
    url() = Kind::Url;
    urls() = Kind::Urls;
    cidrs() = Kind::Cidrs;
    endpoints(host: &'static str, port: u16) = Kind::Endpoints { host, port };
    mode() = Kind::Mode;
    headers() = Kind::Headers;
    records(table: &'static Table) = Kind::Records(table);
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty)?) { $($field:ident = $value:expr),+ })+) => {$(
        $(#[$doc])*
        pub(in crate::config) const fn $name(mut self $(, $argument: $type)?) -> Self {
            $(self.$field = $value;)+
            self
        }
    )+};
}

impl Key {
    /// Gives a row its path and its words, as a doc comment has them.
    pub(in crate::config) const fn at(mut self, path: &'static str, doc: &'static str) -> Self {
        self.path = path;
        self.doc = doc.trim_ascii();
        self
    }

    // What each means is said at the fields of `Key`.
    changes! {
        default(text: &'static str) { default = Some(text), nulls = Nulls::Refused }
        upstream(text: &'static str) { upstream = Some(text) }
        env_app(text: &'static str) { env_app = Some(text) }
        inherits(path: &'static str) { inherits = Some(path), nulls = Nulls::Absent }
        derived(words: &'static str) { derived = Some(words) }
        env(names: &'static [&'static str]) { env = names }
        fallback_env(names: &'static [&'static str]) { fallback_env = names }
        nullable() { nulls = Nulls::Value }
        empty_counts() { empty_counts = true }
        null_is_absent() { nulls = Nulls::Absent }
        required() { required = true, nulls = Nulls::Refused }
        no_effect(why: &'static str) { status = Status::NoEffect(why) }
        ours() { source = Source::Ours }
        reloads() { reloads = true }
        matters_with(path: &'static str) { switch = Some(path) }
    }
}

/// A year: longer waits are mistakes, and timers need not hold them.
const SECONDS_MAX: u64 = 31_536_000;
pub(in crate::config) const GIBIBYTE: u64 = 1 << 30;

#[cfg(test)]
#[expect(
    unreachable_pub,
    reason = "records are public, those of a test reach nobody"
)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::config::settings::{Setting, Settings};

    section! {
        pub struct Room in "house.room" {
            /// How many chairs,
            /// at most.
            chairs: u32 = count(1).default("4").reloads();
            /// Its height.
            height_mm: Option<u16> as "height" = auto_or(1, 9_000);
            /// Nobody reads it.
            _ as "colour" = choice(Light::CHOICES);
            light: Light => light;
            visitors: u8;
        }
    }

    choices! {
        pub enum Light {
            Day = "day" | "sun",
            Lamp = "lamp" later,
        }
    }

    fn light(settings: &Settings) -> Light {
        settings.get("house.room.colour")
    }

    #[test]
    fn one_row_is_a_key_with_its_words_and_a_field_with_its_value() {
        let rows = Room::KEYS.iter().map(|key| (key.path, key.doc));
        let expected = [
            ("house.room.chairs", "How many chairs, at most."),
            ("house.room.height", "Its height."),
            ("house.room.colour", "Nobody reads it."),
        ];
        assert!(rows.eq(expected));
        assert!(Room::KEYS[0].reloads && Room::KEYS[0].default == Some("4"));
        let later = Light::CHOICES
            .iter()
            .map(|choice| (choice.name, choice.is_later));
        assert!(later.eq([("day", false), ("lamp", true)]));

        let table = &crate::config::keys::SERVER;
        let mut settings = Settings::new(table, Origin::Default, String::new());
        for (path, setting) in [
            ("house.room.chairs", Setting::Whole(3)),
            ("house.room.height", Setting::Auto),
            ("house.room.colour", Setting::Text("lamp".to_owned())),
        ] {
            settings.put(path, setting, Origin::Default);
        }
        let room = Room::read(&settings);
        assert_eq!((room.chairs, room.height_mm), (3, None));
        assert_eq!((room.light, room.visitors), (Light::Lamp, 0));
    }
}
