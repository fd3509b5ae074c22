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
                    faults: told(&faults),
                }),
            }
        }
        all
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
    use super::*;

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
            let found = FoundApps::of([Err(Malformed { id, faults })]);
            let told = &*found.malformed[0].faults;
            assert!(told == expected, "{count} faults: {} bytes", told.len());
        }
    }
}
