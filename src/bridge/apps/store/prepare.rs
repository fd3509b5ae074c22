//! What a node's start does to its store of apps, where the configuration says so.
//!
//! Owns: `Preparation`: the table that is made or completed, the apps of the configuration that are written; what of
//! it can be foreseen.
//! May depend on: `config`, the rows of `store`, tokio.
//! Invariants: nothing is written that `app_manager.create_schema` or `app_manager.seed` did not ask for;
//! a second run finds everything done.

use std::{fmt, sync::Arc};

use super::{Created, Imported, Rows, RowsError, Standing, Write};
use crate::config::{Config, Loaded, record_of_settings, sections::Seed, settings::Settings};

/// A clone is the same work.
#[derive(Clone)]
pub struct Preparation {
    config: Arc<Config>,
    /// Those of the configuration.
    apps: Arc<[Settings]>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    pub has_made_table: bool,
    /// Columns, or an index, that were not there.
    pub has_completed_table: bool,
    pub apps: Imported,
}

/// What would be done to the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    pub makes_table: bool,
    pub completes_table: bool,
}

impl Foreseen {
    /// For an operator.
    pub fn words(&self) -> Option<&'static str> {
        match (self.makes_table, self.completes_table) {
            (true, _) => Some("the start makes the table"),
            (false, true) => Some("the start completes the table"),
            (false, false) => None,
        }
    }
}

// Apps hold secrets.
impl fmt::Debug for Preparation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let apps = self.apps.len();
        formatter
            .debug_struct("Preparation")
            .field("apps", &apps)
            .finish_non_exhaustive()
    }
}

impl Preparation {
    /// `None` where there is nothing to do.
    pub fn of(loaded: &Loaded) -> Option<Self> {
        let app_manager = &loaded.config.app_manager;
        let apps = match app_manager.seed {
            Seed::Never => &[][..],
            Seed::IfMissing | Seed::Overwrite => loaded.settings.records("app_manager.array.apps"),
        };
        (app_manager.create_schema || !apps.is_empty()).then(|| Self {
            config: Arc::new(loaded.config.clone()),
            apps: apps.into(),
        })
    }

    /// Does it, on a thread that may wait.
    ///
    /// # Errors
    /// A sentence that names the key and what to do. What was written before stays so.
    pub async fn run(self) -> Result<Prepared, String> {
        let done = tokio::task::spawn_blocking(move || self.work()).await;
        done.unwrap_or_else(|error| Err(format!("it broke: {error}")))
    }

    /// What `run` would do to the table, on a thread that may wait; nothing is written.
    ///
    /// # Errors
    /// As those of `run`, as far as they are known without writing.
    pub async fn foresee(self) -> Result<Foreseen, String> {
        let done = tokio::task::spawn_blocking(move || self.look_ahead()).await;
        done.unwrap_or_else(|error| Err(format!("it broke: {error}")))
    }

    fn open(&self) -> Result<Option<Rows>, String> {
        let opened = Rows::open(&self.config).map_err(|error| error.to_string())?;
        opened.transpose().map_err(|error| error.to_string())
    }

    fn look_ahead(&self) -> Result<Foreseen, String> {
        let mut foreseen = Foreseen::default();
        let Some(mut rows) = self.open()? else {
            return Ok(foreseen);
        };
        let create = |error| format!("app_manager.create_schema: {error}");
        let seed = |error| format!("app_manager.seed: {error}");
        let creates = self.config.app_manager.create_schema;
        match rows.look().map_err(|error| error.to_string())? {
            Standing::Missing if creates => {
                rows.rehearse(Write::Table).map_err(create)?;
                foreseen.makes_table = true;
                // Who makes a table may write to it.
                return Ok(foreseen);
            }
            Standing::Lacks(_) if creates => {
                rows.rehearse(Write::Columns).map_err(create)?;
                foreseen.completes_table = true;
            }
            Standing::Missing | Standing::Whole | Standing::Lacks(_) => {}
        }
        for write in self.writes_of_apps(&mut rows).map_err(seed)? {
            rows.rehearse(write).map_err(seed)?;
        }
        Ok(foreseen)
    }

    /// Whether apps would be added, and whether some would be changed.
    fn writes_of_apps(&self, rows: &mut Rows) -> Result<Vec<Write>, RowsError> {
        let overwrites = self.config.app_manager.seed == Seed::Overwrite;
        let mut writes = Vec::new();
        for app in &*self.apps {
            let given = record_of_settings(app);
            let id = given.get("id").and_then(|id| id.as_str());
            let write = match rows.read(id.unwrap_or_default())? {
                None => Write::NewApps,
                Some(_) if overwrites => Write::ChangedApps,
                Some(_) => continue,
            };
            if !writes.contains(&write) {
                writes.push(write);
            }
        }
        Ok(writes)
    }

    fn work(&self) -> Result<Prepared, String> {
        let Some(mut rows) = self.open()? else {
            return Ok(Prepared::default());
        };
        let app_manager = &self.config.app_manager;
        let mut prepared = Prepared::default();
        if app_manager.create_schema {
            let create = |error| format!("app_manager.create_schema: {error}");
            match rows.create().map_err(create)? {
                Created::Made => prepared.has_made_table = true,
                Created::Whole => {}
                Created::Lacks(statement) => {
                    rows.complete(&statement).map_err(create)?;
                    prepared.has_completed_table = true;
                }
            }
        }
        if !self.apps.is_empty() {
            let overwrite = app_manager.seed == Seed::Overwrite;
            let seeded = rows.import(&self.apps, overwrite);
            prepared.apps = seeded.map_err(|error| format!("app_manager.seed: {error}"))?;
        }
        Ok(prepared)
    }
}
