//! Apps of a configuration or a file, written into a store.
//!
//! Owns: `Imported`, `ImportError`, the order in which apps are looked at and written.
//! May depend on: `config`, `serde_json`, the rows of `store`.
//! Invariants: every app has passed the rules of a file before; where the store has transactions all of
//! them are written, or none.

use serde_json::{Map, Value};

use super::{Rows, RowsError, StoreError};
use crate::config::{
    record_of_settings,
    settings::Settings,
    show::{self, Secrets},
};

/// What became of the apps, in numbers of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub added: usize,
    pub changed: usize,
    /// They were there, and were to be left.
    pub left: usize,
}

/// Why not all of them are there.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store is at fault, and no app in particular.
    #[error("no app was imported: {0}")]
    NotBegun(RowsError),
    #[error("the app {id:?} was not imported: {source}\n{}", kept(*written))]
    OfApp {
        id: String,
        /// Those before it that stay written.
        written: usize,
        source: RowsError,
    },
    /// It may have been heard, and the answer lost.
    #[error(
        "all of the apps were written or none: {0}\nthe same command again says which, and writes them"
    )]
    NotEnded(RowsError),
}

fn kept(written: usize) -> String {
    match written {
        0 => "nothing was written".to_owned(),
        written => format!("{written} apps before it were"),
    }
}

impl Rows {
    /// Adds those that are not there; of the others nothing is touched, or with `overwrite` what is given of them
    /// here.
    pub fn import(&mut self, apps: &[Settings], overwrite: bool) -> Result<Imported, ImportError> {
        let mut written = 0;
        let mut imported = Imported::default();
        let mut all = Vec::with_capacity(apps.len());
        let fault = |id: &str, written, source| ImportError::OfApp {
            id: id.to_owned(),
            written,
            source,
        };
        let not_read = |id: &str, source| {
            let is_malformed = matches!(source, RowsError::Store(StoreError::Malformed { .. }));
            if is_malformed {
                fault(id, 0, source)
            } else {
                ImportError::NotBegun(source)
            }
        };
        // Before the first is written: a database may end a transaction in which a question failed.
        for app in apps {
            let given = with_first_secret(record_of_settings(app));
            let id = given.get("id").and_then(Value::as_str).unwrap_or_default();
            let is_there = self.read(id).map_err(|it| not_read(id, it))?.is_some();
            all.push((id.to_owned(), app, given, is_there));
        }
        let is_whole = self.begin().map_err(ImportError::NotBegun)?;
        for (id, app, given, is_there) in &all {
            let done = match (is_there, overwrite) {
                (false, _) => {
                    imported.added += 1;
                    self.insert(given, &show::all(app, Secrets::Shown))
                }
                (true, true) => {
                    imported.changed += 1;
                    self.update(id, given)
                }
                (true, false) => {
                    imported.left += 1;
                    continue;
                }
            };
            done.map_err(|source| fault(id, written, source))?;
            written += usize::from(!is_whole);
        }
        self.commit().map_err(ImportError::NotEnded)?;
        Ok(imported)
    }

    /// A row of an app that is new.
    pub fn add(&mut self, app: &Settings) -> Result<(), RowsError> {
        let given = with_first_secret(record_of_settings(app));
        self.insert(&given, &show::all(app, Secrets::Shown))
    }
}

/// A table's `secret` is never NULL: where only a list is given, its first one signs.
pub fn with_first_secret(mut record: Map<String, Value>) -> Map<String, Value> {
    if record.contains_key("secret") {
        return record;
    }
    if let Some(Value::Array(secrets)) = record.get_mut("secrets")
        && !secrets.is_empty()
    {
        let first = secrets.remove(0);
        record.insert("secret".to_owned(), first);
    }
    record
}
