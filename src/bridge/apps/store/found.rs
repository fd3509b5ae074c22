//! What a row or an item of a store was found to be.
//!
//! Owns: `Found`, `Malformed`; the app that stands in for one that cannot be read; which names are worth asking for; what
//! many finds come to.
//! May depend on: `config`.
//! Invariants: of several rows with one name none is taken; no fault holds a secret.

use serde_json::{Map, Value as Json};

use super::{FoundApps, MalformedApp, StoreError};
use crate::config::{App, AppDefaults, app_key, app_of_record};

pub(super) type Found = Result<App, Malformed>;

/// Why a row cannot be an app.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) id: String,
    pub(super) faults: Vec<String>,
    /// In its place, where it has an id and a key that can be.
    pub(super) stand_in: Option<Box<App>>,
}

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        let Malformed {
            id,
            faults,
            stand_in,
        } = malformed;
        Self::Malformed {
            id,
            faults,
            stand_in,
        }
    }
}

/// A record as an app, or the fault with which it could not even be read.
pub(super) fn app(
    id: &str,
    record: Result<Map<String, Json>, String>,
    defaults: &AppDefaults,
) -> Found {
    let malformed = |faults, stand_in: Option<App>| Malformed {
        id: id.to_owned(),
        faults,
        stand_in: stand_in.map(Box::new),
    };
    let record = record.map_err(|fault| malformed(vec![fault], None))?;
    let app = app_of_record(defaults, &record);
    app.map_err(|faults| malformed(faults, stand_in(&record, defaults)))
}

/// An app that is there and serves nobody: what else its row says is not believed.
fn stand_in(record: &Map<String, Json>, defaults: &AppDefaults) -> Option<App> {
    let disabled = |members: &[&str]| {
        let is_one = |name: &str| app_key(name).is_some_and(|key| members.contains(&key));
        let kept = record.iter().filter(|(name, _)| is_one(name));
        let mut kept: Map<String, Json> = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
        kept.insert("enabled".to_owned(), false.into());
        kept
    };
    let named = app_of_record(defaults, &disabled(&["id", "key", "secret", "secrets"]));
    let without_secret = || {
        let mut named = disabled(&["id", "key"]);
        let chance = [getrandom::u64().ok()?, getrandom::u64().ok()?];
        let nobodys = format!("{:016x}{:016x}", chance[0], chance[1]);
        named.insert("secret".to_owned(), nobodys.into());
        app_of_record(defaults, &named).ok()
    };
    named.ok().or_else(without_secret)
}

/// The one that has the name; `column` is what was asked by.
pub(super) fn the_only_one(
    mut found: Vec<Found>,
    column: &str,
    asked: &str,
) -> Result<Option<App>, StoreError> {
    match (found.pop(), found.is_empty()) {
        (None, _) => Ok(None),
        (Some(found), true) => Ok(Some(found?)),
        (Some(_), false) => Err(StoreError::Malformed {
            id: asked.to_owned(),
            faults: vec![format!("{column}: several rows have this one")],
            stand_in: None,
        }),
    }
}

impl FoundApps {
    pub(super) fn of(found: impl IntoIterator<Item = Found>) -> Self {
        let mut all = Self::default();
        for found in found {
            match found {
                Ok(app) => all.apps.push(app),
                Err(Malformed { id, faults, .. }) => {
                    all.malformed.push(MalformedApp::new(id, &faults));
                }
            }
        }
        all
    }
}

impl MalformedApp {
    pub fn new(id: String, faults: &[String]) -> Self {
        Self {
            id: id.into(),
            faults: told(faults),
        }
    }
}

/// The first of a row's faults, as many as find room, and how many there are beside them: a row of megabytes may
/// have as many, and what is wrong with it is remembered as long as it is there.
fn told(faults: &[String]) -> String {
    let mut told = String::new();
    for (number, fault) in faults.iter().enumerate() {
        if number > 0 && told.len() + 2 + fault.len() > FAULTS_BYTES_MAX {
            return format!("{told}; and {} more", faults.len() - number);
        }
        if number > 0 {
            told.push_str("; ");
        }
        told.push_str(&fault[..fault.floor_char_boundary(FAULTS_BYTES_MAX)]);
    }
    told
}

/// No app has another name (`config::shape::PATH_SEGMENT`), so the database need not be asked.
pub(super) fn may_be_a_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0')
}

pub(super) const NAME_BYTES_MAX: usize = 255;
/// Of the faults of a row that are told.
const FAULTS_BYTES_MAX: usize = 1_024;
/// A row with its webhooks; more cannot be meant.
pub(super) const ROW_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn in_place_of_a_row_that_cannot_be_an_app_stands_one_that_is_disabled() {
        let app_of = [("ID", "a"), ("KEY", "k"), ("SECRET", "s")];
        let named = app_of.map(|(name, it)| (format!("SOCKUDO_DEFAULT_APP_{name}"), it.to_owned()));
        let loaded = load(&Sources {
            environment: named
                .into_iter()
                .chain([("HOST".to_owned(), "0.0.0.0".to_owned())])
                .collect(),
            ..Sources::default()
        });
        let defaults = loaded.expect("an app").config.app_manager.app_defaults;
        // The id and key of the stand-in, and whether the row's secret is its own.
        for (row, expected) in [
            (
                json!({"id": "1", "key": "k", "secret": "s", "allowed_origins": "[\"https://*.*.a\"]"}),
                Some(("1", "k", true)),
            ),
            (
                json!({"id": "1", "Key": "k", "secret": "s", "enabled": "maybe", "max_connections": "lots"}),
                Some(("1", "k", true)),
            ),
            (
                json!({"id": "1", "key": "k", "secret": null, "secrets": ["s"], "webhooks": "{"}),
                Some(("1", "k", true)),
            ),
            (
                json!({"id": "1", "key": "k", "secret": null}),
                Some(("1", "k", false)),
            ),
            // Public credentials.
            (
                json!({"id": "1", "key": "app-key", "secret": "app-secret"}),
                Some(("1", "app-key", false)),
            ),
            (json!({"id": "1", "key": "with space", "secret": "s"}), None),
            (json!({"id": null, "key": "k", "secret": "s"}), None),
        ] {
            let Json::Object(record) = &row else {
                panic!("a row is an object")
            };
            let malformed = app("1", Ok(record.clone()), &defaults).expect_err("no app");
            assert!(!malformed.faults.is_empty(), "{row}");
            let stand_in = malformed.stand_in.as_deref();
            let found = stand_in.map(|app| {
                let secrets: Vec<&str> = app.secrets.iter().map(|it| it.expose()).collect();
                assert!(!app.enabled && app.webhooks.is_empty(), "{row}");
                assert!(!secrets.contains(&"app-secret"), "{row}");
                (&*app.id, &*app.key, secrets == ["s"])
            });
            assert_eq!(found, expected, "{row}");
        }
        let unread = app("1", Err("id: is no UTF-8".to_owned()), &defaults);
        assert!(unread.expect_err("no app").stand_in.is_none());
    }

    #[test]
    fn of_a_rows_faults_the_first_are_told_and_how_many_there_are_beside_them() {
        let fault = |bytes: usize| "x".repeat(bytes);
        let half = FAULTS_BYTES_MAX / 2;
        for (faults, expected) in [
            (vec![fault(3), fault(4)], "xxx; xxxx".to_owned()),
            (
                vec![fault(half); 2],
                format!("{0}; and 1 more", fault(half)),
            ),
            (
                vec![fault(half - 2); 2],
                format!("{0}; {0}", fault(half - 2)),
            ),
            (
                vec![fault(200); 10_000],
                format!("{0}; {0}; {0}; {0}; {0}; and 9995 more", fault(200)),
            ),
            (vec![fault(4 << 20)], fault(FAULTS_BYTES_MAX)),
            (vec!["é".repeat(1_000)], "é".repeat(FAULTS_BYTES_MAX / 2)),
        ] {
            let (id, count) = ("a".to_owned(), faults.len());
            let stand_in = None;
            let found = FoundApps::of([Err(Malformed {
                id,
                faults,
                stand_in,
            })]);
            let told = &*found.malformed[0].faults;
            assert!(told == expected, "{count} faults: {} bytes", told.len());
        }
    }
}
