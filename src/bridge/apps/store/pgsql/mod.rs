//! Apps in a table of PostgreSQL, asked itself or through pgbouncer.
//!
//! Owns: `PgsqlStore`: the deadline around each question, and cutting long lists into statements.
//! May depend on: `config`, `bridge::tls`, tokio, the crate `tokio-postgres`.
//! Invariants: nothing here waits longer than `database.postgres.timeout_ms` for one statement, even
//! where the server accepts and never answers; only SELECT is used; no statement outlives its
//! question, so that it matters not which connection of a pooler is behind ours.

mod fault;
mod link;
mod pool;
mod rows;
mod setup;
mod table;

pub use rows::PgsqlRows;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

use self::{pool::Pool, setup::PgsqlSetup};
use super::{
    AppName, FoundApps, StoreError, StoreSetupError,
    found::{self, Found, may_be_a_name},
};
use crate::{
    config::{App, AppDefaults, Config},
    metrics::backend::{Fault, Meter, Role},
};

/// A clone is the same store.
#[derive(Clone, Debug)]
pub struct PgsqlStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: Arc<PgsqlSetup>,
    meter: Meter,
    /// For apps that are known, and whether the server is there.
    of_known: Pool,
    of_others: Pool,
    /// Of the latest reload.
    defaults: watch::Sender<Arc<AppDefaults>>,
}

/// As far as can be told without the server.
pub(super) fn check(config: &Config) -> Result<(), StoreSetupError> {
    PgsqlSetup::of(config).map(drop)
}

impl PgsqlStore {
    pub fn start(config: &Config) -> Result<Self, StoreSetupError> {
        let setup = Arc::new(PgsqlSetup::of(config)?);
        let defaults = Arc::new(config.app_manager.app_defaults.clone());
        let meter = Meter::new("pgsql", Role::AppManager);
        let shared = Shared {
            of_known: Pool::new(Arc::clone(&setup), setup.of_known, meter.clone()),
            of_others: Pool::new(Arc::clone(&setup), setup.of_others, meter.clone()),
            meter,
            setup,
            defaults: watch::Sender::new(defaults),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    pub(super) fn places(&self) -> usize {
        self.shared.setup.of_others.max
    }

    pub(super) fn timeout(&self) -> Duration {
        self.shared.setup.timeout
    }

    pub fn reload(&self, config: &Config) {
        let defaults = Arc::new(config.app_manager.app_defaults.clone());
        self.shared.defaults.send_replace(defaults);
    }

    pub async fn find(self, name: AppName) -> Result<Option<App>, StoreError> {
        let asked = name.as_str();
        if !may_be_a_name(asked) {
            return Ok(None);
        }
        let column = match name {
            AppName::Key(_) => "key",
            AppName::Id(_) => "id",
        };
        let statement = table::by(column, &self.shared.setup);
        let wanted = [asked];
        let pool = &self.shared.of_others;
        let found = self.within(self.look(pool, &statement, asked, (column, &wanted)));
        found::the_only_one(found.await?, column, asked)
    }

    pub async fn find_all(self, ids: Vec<Box<str>>) -> Result<FoundApps, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            // Whether it is there: no app has this name.
            let statement = table::by("id", &self.shared.setup);
            let asked = self.look(&self.shared.of_known, &statement, "-", ("id", &[]));
            self.within(asked).await?;
        }
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let ids = ids.iter().map(|id| &**id).filter(|id| may_be_a_name(id));
            let ids: Vec<&str> = ids.collect();
            let statement = table::by_ids(&self.shared.setup);
            let list = table::array(&ids);
            let found = self.within(self.look_or_reject(&statement, &list, &ids));
            match found.await? {
                Some(found) => all.extend(found),
                // One of them spoils the statement.
                None => all.extend(self.find_each(&ids).await?),
            }
        }
        Ok(FoundApps::of(all))
    }

    async fn find_each(&self, ids: &[&str]) -> Result<Vec<Found>, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        let statement = table::by("id", &self.shared.setup);
        for id in ids {
            let wanted = ("id", &[*id][..]);
            let found = self.look(&self.shared.of_known, &statement, id, wanted);
            all.extend(self.within(found).await?);
        }
        Ok(all)
    }

    /// The rows whose column is one of the wanted.
    async fn look(
        &self,
        pool: &Pool,
        statement: &str,
        text: &str,
        (column, wanted): (&str, &[&str]),
    ) -> Result<Vec<Found>, StoreError> {
        let setup = &self.shared.setup;
        match pool.ask(statement, text).await {
            Ok(rows) => Ok(table::apps(&rows, column, wanted, &self.defaults())),
            Err(failed) if fault::is_of_no_row(&failed) => Ok(Vec::new()),
            Err(failed) => Err(fault::down(&failed, setup)),
        }
    }

    /// The same of many ids; `None` if the database cannot even compare one of them.
    async fn look_or_reject(
        &self,
        statement: &str,
        list: &str,
        wanted: &[&str],
    ) -> Result<Option<Vec<Found>>, StoreError> {
        let Shared {
            of_known, setup, ..
        } = &*self.shared;
        match of_known.ask(statement, list).await {
            Ok(rows) => Ok(Some(table::apps(&rows, "id", wanted, &self.defaults()))),
            Err(failed) if fault::is_of_no_row(&failed) => Ok(None),
            Err(failed) => Err(fault::down(&failed, setup)),
        }
    }

    fn defaults(&self) -> Arc<AppDefaults> {
        Arc::clone(&self.shared.defaults.borrow())
    }

    /// A connection whose question is given up is closed: its answer would be taken for the next one's.
    async fn within<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let setup = &self.shared.setup;
        let answer = timeout(setup.timeout, question).await;
        answer.unwrap_or_else(|_| {
            let silent = fault::silent(setup);
            Err(StoreError::Down(silent, Fault::Timeout))
        })
    }
}

const IDS_PER_STATEMENT: usize = 256;
