//! The settled values of one table of keys, each with its origin.
//!
//! Owns: the values between reading and building: what `config show` prints and `Config` is built
//! from.
//! May depend on: `keys`, `origin`, `secret`.
//! Invariants: every key of the table has an entry, and its setting is of the key's kind; asking
//! for another kind or an unknown key is a bug and panics.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::keys::Table;
use super::origin::Origin;
use super::secret::Secret;
use super::sections::Endpoint;

/// One value of some kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    Null,
    Flag(bool),
    Whole(u64),
    Auto,
    Bytes(u64),
    Fraction(f64),
    Text(String),
    Texts(Vec<String>),
    Secret(Secret),
    Secrets(Vec<Secret>),
    Url(Secret),
    Urls(Vec<Secret>),
    Cidrs(Vec<IpNet>),
    Endpoints(Vec<Endpoint>),
    Mode(u32),
    Headers(Vec<(String, Secret)>),
    Records(Vec<Settings>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub setting: Setting,
    pub origin: Origin,
    said: Said,
}

/// Whether a source speaks of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Not,
    ByItsName,
    /// By a name of other versions, whose value means something near.
    ByAnother,
    /// Of another key, from which its value follows.
    InPassing,
}

/// The entries of one table: of the server, of one app, of one webhook.
#[derive(Clone, Debug)]
pub struct Settings {
    pub table: &'static Table,
    /// Where the record begins.
    pub origin: Origin,
    /// What stands before a key's path in errors: "" or "app_manager.array.apps[2].".
    pub prefix: String,
    entries: BTreeMap<&'static str, Entry>,
}

impl PartialEq for Settings {
    /// Equal values; where they came from does not count.
    fn eq(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.entries.iter().all(|(path, entry)| {
                other
                    .entries
                    .get(path)
                    .is_some_and(|other| other.setting == entry.setting)
            })
    }
}

impl Settings {
    pub(super) fn new(table: &'static Table, origin: Origin, prefix: String) -> Self {
        Self {
            table,
            origin,
            prefix,
            entries: BTreeMap::new(),
        }
    }

    pub(super) fn put(&mut self, path: &'static str, setting: Setting, origin: Origin) {
        let said = match origin {
            Origin::Default => Said::Not,
            _ => Said::ByItsName,
        };
        self.put_said(path, setting, origin, said);
    }

    pub(super) fn put_said(
        &mut self,
        path: &'static str,
        setting: Setting,
        origin: Origin,
        said: Said,
    ) {
        let entry = Entry {
            setting,
            origin,
            said,
        };
        self.entries.insert(path, entry);
    }

    /// Replaces a value by what follows from others; its origin stays.
    pub(super) fn derive(&mut self, path: &'static str, setting: Setting) {
        let entry = self.entries.get_mut(path);
        entry
            .unwrap_or_else(|| panic!("{path} has an entry"))
            .setting = setting;
    }

    pub fn entry(&self, path: &str) -> &Entry {
        self.entries
            .get(path)
            .unwrap_or_else(|| panic!("{path} has an entry"))
    }

    pub fn setting(&self, path: &str) -> &Setting {
        &self.entry(path).setting
    }

    pub fn origin(&self, path: &str) -> &Origin {
        &self.entry(path).origin
    }

    /// A source speaks of it, be it only what held silently in a former server.
    pub(super) fn is_said(&self, path: &str) -> bool {
        self.entry(path).said != Said::Not
    }

    /// Somebody set it: in a file, the environment or by a flag.
    pub(super) fn is_explicit(&self, path: &str) -> bool {
        *self.origin(path) != Origin::Default
    }

    /// Somebody set it by a name of other versions.
    pub(super) fn is_translated(&self, path: &str) -> bool {
        self.entry(path).said == Said::ByAnother
    }

    /// Nobody chose it: it follows from a key of something else.
    pub(super) fn is_in_passing(&self, path: &str) -> bool {
        self.entry(path).said == Said::InPassing
    }

    pub(super) fn is_null(&self, path: &str) -> bool {
        *self.setting(path) == Setting::Null
    }

    /// The key as an error names it.
    pub(super) fn name(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The value as a field holds it.
    pub(super) fn get<T: FromSetting>(&self, path: &str) -> T {
        let setting = self.setting(path);
        T::from_setting(setting).unwrap_or_else(|| panic!("{path} is no such value: {setting:?}"))
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.get(path)
    }

    pub(super) fn u64(&self, path: &str) -> u64 {
        self.get(path)
    }

    pub(super) fn text(&self, path: &str) -> &str {
        match self.setting(path) {
            Setting::Text(text) => text,
            other => panic!("{path} is a text, not {other:?}"),
        }
    }

    pub fn records(&self, path: &str) -> &[Self] {
        match self.setting(path) {
            Setting::Records(records) => records,
            other => panic!("{path} is a list of records, not {other:?}"),
        }
    }

    pub(super) fn records_mut(&mut self, path: &str) -> &mut Vec<Self> {
        match self.entries.get_mut(path).map(|entry| &mut entry.setting) {
            Some(Setting::Records(records)) => records,
            other => panic!("{path} is a list of records, not {other:?}"),
        }
    }
}

/// What a field can hold of a setting; `None` where the key is of another kind, or its bounds do
/// not fit the field: a bug in the row.
pub trait FromSetting: Sized {
    fn from_setting(setting: &Setting) -> Option<Self>;
}

/// Null and "auto" are both the absence of a value.
impl<T: FromSetting> FromSetting for Option<T> {
    fn from_setting(setting: &Setting) -> Option<Self> {
        match setting {
            Setting::Null | Setting::Auto => Some(None),
            _ => T::from_setting(setting).map(Some),
        }
    }
}

macro_rules! from_setting {
    ($($type:ty { $($pattern:pat => $value:expr),+ })+) => {$(
        impl FromSetting for $type {
            fn from_setting(setting: &Setting) -> Option<Self> {
                match setting {
                    $($pattern => $value,)+
                    _ => None,
                }
            }
        }
    )+};
}

from_setting! {
    bool { Setting::Flag(flag) => Some(*flag) }
    u64 { Setting::Whole(number) | Setting::Bytes(number) => Some(*number) }
    u32 {
        Setting::Whole(number) | Setting::Bytes(number) => (*number).try_into().ok(),
        Setting::Mode(mode) => Some(*mode)
    }
    u16 { Setting::Whole(number) => (*number).try_into().ok() }
    f64 { Setting::Fraction(number) => Some(*number) }
    String { Setting::Text(text) => Some(text.clone()) }
    Vec<String> { Setting::Texts(texts) => Some(texts.clone()) }
    Secret { Setting::Secret(secret) | Setting::Url(secret) => Some(secret.clone()) }
    Vec<Secret> { Setting::Secrets(secrets) | Setting::Urls(secrets) => Some(secrets.clone()) }
    Vec<IpNet> { Setting::Cidrs(networks) => Some(networks.clone()) }
    Vec<Endpoint> { Setting::Endpoints(endpoints) => Some(endpoints.clone()) }
    Vec<(String, Secret)> {
        Setting::Headers(headers) => Some(headers.clone()),
        Setting::Null => Some(Vec::new())
    }
}
