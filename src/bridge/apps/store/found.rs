//! What a row or an item of a store was found to be.
//!
//! Owns: `Found`, `Malformed`; which names are worth asking for; what many finds come to.
//! May depend on: `config`.
//! Invariants: of several rows with one name none is taken; no fault holds a secret.

use serde_json::{Map, Value as Json};

use super::{FoundApps, MalformedApp, StoreError};
use crate::config::{App, AppDefaults, app_of_record};

pub(super) type Found = Result<App, Malformed>;

/// Why a row cannot be an app.
#[derive(Debug)]
pub(super) struct Malformed {
    pub(super) id: String,
    pub(super) faults: Vec<String>,
}

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        let Malformed { id, faults } = malformed;
        Self::Malformed { id, faults }
    }
}

/// A record as an app, or the fault with which it could not even be read.
pub(super) fn app(
    id: &str,
    record: Result<Map<String, Json>, String>,
    defaults: &AppDefaults,
) -> Found {
    let record = record.map_err(|fault| vec![fault]);
    let app = record.and_then(|record| app_of_record(defaults, &record));
    app.map_err(|faults| Malformed {
        id: id.to_owned(),
        faults,
    })
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
        }),
    }
}

impl FoundApps {
    pub(super) fn of(found: impl IntoIterator<Item = Found>) -> Self {
        let mut all = Self::default();
        for found in found {
            match found {
                Ok(app) => all.apps.push(app),
                Err(Malformed { id, faults }) => all.malformed.push(MalformedApp {
                    id: id.into(),
                    faults: faults.join("; "),
                }),
            }
        }
        all
    }
}

/// No app has another name (`config::shape::PATH_SEGMENT`), so the database need not be asked.
pub(super) fn may_be_a_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0')
}

pub(super) const NAME_BYTES_MAX: usize = 255;
/// A row with its webhooks; more cannot be meant.
pub(super) const ROW_BYTES_MAX: usize = 4 << 20;
