//! What a node's start does to its store of apps, where the configuration says so.
//!
//! Owns: `Preparation`: the table that is made or completed, the apps of the configuration that are written.
//! May depend on: `config`, the rows of `store`, tokio.
//! Invariants: nothing is written that `app_manager.create_schema` or `app_manager.seed` did not ask for;
//! a second run finds everything done.

use std::{fmt, sync::Arc};

use super::{Created, Imported, Rows};
use crate::config::{Config, Loaded, sections::Seed, settings::Settings};

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

    fn work(&self) -> Result<Prepared, String> {
        let opened = Rows::open(&self.config).map_err(|error| error.to_string())?;
        let Some(rows) = opened else {
            return Ok(Prepared::default());
        };
        let mut rows = rows.map_err(|error| error.to_string())?;
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
