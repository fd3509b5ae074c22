//! The settled values of one table of keys, each with its origin.
//!
//! Owns: the values between reading and building: what `config show` prints and `Config` is built
//! from.
//! May depend on: `keys`, `origin`, `secret`.
//! Invariants: every key of the table has an entry, and its setting is of the key's kind; asking
//! for another kind or an unknown key is a bug and panics.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::backends::Endpoint;
use super::keys::Table;
use super::origin::Origin;
use super::secret::Secret;

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
        self.entries.insert(path, Entry { setting, origin });
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

    /// Somebody set it: in a file, the environment or by a flag.
    pub(super) fn is_explicit(&self, path: &str) -> bool {
        *self.origin(path) != Origin::Default
    }

    pub(super) fn is_null(&self, path: &str) -> bool {
        *self.setting(path) == Setting::Null
    }

    /// The key as an error names it.
    pub(super) fn name(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        match self.setting(path) {
            Setting::Flag(flag) => *flag,
            other => panic!("{path} is a flag, not {other:?}"),
        }
    }

    pub(super) fn u64(&self, path: &str) -> u64 {
        match self.setting(path) {
            Setting::Whole(number) | Setting::Bytes(number) => *number,
            other => panic!("{path} is a number, not {other:?}"),
        }
    }

    /// The key's bounds keep it within a `u32`.
    pub(super) fn u32(&self, path: &str) -> u32 {
        u32::try_from(self.u64(path)).unwrap_or_else(|_| panic!("{path} is bounded to 32 bits"))
    }

    /// The key's bounds keep it within a `u16`.
    pub(super) fn u16(&self, path: &str) -> u16 {
        u16::try_from(self.u64(path)).unwrap_or_else(|_| panic!("{path} is bounded to 16 bits"))
    }

    /// `None` for null and for "auto".
    pub(super) fn optional_u32(&self, path: &str) -> Option<u32> {
        match self.setting(path) {
            Setting::Null | Setting::Auto => None,
            _ => Some(self.u32(path)),
        }
    }

    /// `None` for null and for "auto".
    pub(super) fn optional_u16(&self, path: &str) -> Option<u16> {
        match self.setting(path) {
            Setting::Null | Setting::Auto => None,
            _ => Some(self.u16(path)),
        }
    }

    pub(super) fn fraction(&self, path: &str) -> f64 {
        match self.setting(path) {
            Setting::Fraction(number) => *number,
            other => panic!("{path} is a fraction, not {other:?}"),
        }
    }

    pub(super) fn text(&self, path: &str) -> &str {
        match self.setting(path) {
            Setting::Text(text) => text,
            other => panic!("{path} is a text, not {other:?}"),
        }
    }

    pub(super) fn optional_text(&self, path: &str) -> Option<String> {
        match self.setting(path) {
            Setting::Null => None,
            _ => Some(self.text(path).to_owned()),
        }
    }

    pub(super) fn texts(&self, path: &str) -> &[String] {
        match self.setting(path) {
            Setting::Texts(texts) => texts,
            other => panic!("{path} is a list of texts, not {other:?}"),
        }
    }

    /// A secret or a URL.
    pub(super) fn secret(&self, path: &str) -> Secret {
        match self.setting(path) {
            Setting::Secret(secret) | Setting::Url(secret) => secret.clone(),
            other => panic!("{path} is a secret, not {other:?}"),
        }
    }

    /// A secret or a URL, or none.
    pub(super) fn optional_secret(&self, path: &str) -> Option<Secret> {
        match self.setting(path) {
            Setting::Null => None,
            _ => Some(self.secret(path)),
        }
    }

    pub(super) fn secrets(&self, path: &str) -> Vec<Secret> {
        match self.setting(path) {
            Setting::Secrets(secrets) | Setting::Urls(secrets) => secrets.clone(),
            other => panic!("{path} is a list of secrets, not {other:?}"),
        }
    }

    pub(super) fn cidrs(&self, path: &str) -> Vec<IpNet> {
        match self.setting(path) {
            Setting::Cidrs(networks) => networks.clone(),
            other => panic!("{path} is a list of networks, not {other:?}"),
        }
    }

    pub(super) fn endpoints(&self, path: &str) -> Vec<Endpoint> {
        match self.setting(path) {
            Setting::Endpoints(endpoints) => endpoints.clone(),
            other => panic!("{path} is a list of endpoints, not {other:?}"),
        }
    }

    pub(super) fn mode(&self, path: &str) -> u32 {
        match self.setting(path) {
            Setting::Mode(mode) => *mode,
            other => panic!("{path} is a file mode, not {other:?}"),
        }
    }

    pub(super) fn headers(&self, path: &str) -> Vec<(String, Secret)> {
        match self.setting(path) {
            Setting::Headers(headers) => headers.clone(),
            Setting::Null => Vec::new(),
            other => panic!("{path} is a list of headers, not {other:?}"),
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
