//! Apps in a table of MariaDB or MySQL.
//!
//! Owns: `MysqlStore`: the deadline around each question, and cutting long lists into statements.
//! May depend on: `config`, tokio; below it the crate `mysql`, on threads of its own.
//! Invariants: nothing here waits longer than `database.mysql.timeout_ms` for one statement, even
//! where the server accepts and never answers; only SELECT is used.

mod fault;
mod pool;
mod row;
mod rows;
mod setup;
mod table;

pub use rows::MysqlRows;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use self::{
    pool::{Crowded, Pool, Question},
    setup::MysqlSetup,
};
use super::{AppName, FoundApps, StoreError, StoreSetupError, found::may_be_a_name};
use crate::{
    config::{App, AppDefaults, Config},
    metrics::backend::{Fault, Meter, Role},
};

/// A clone is the same store.
#[derive(Clone, Debug)]
pub struct MysqlStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: Arc<MysqlSetup>,
    meter: Meter,
    /// For apps that are known, and whether the server is there.
    of_known: Pool,
    of_others: Pool,
    /// Of the latest reload.
    defaults: watch::Sender<Arc<AppDefaults>>,
}

/// As far as can be told without the server.
pub(super) fn check(config: &Config) -> Result<(), StoreSetupError> {
    MysqlSetup::of(config).map(drop)
}

impl MysqlStore {
    pub fn start(config: &Config) -> Result<Self, StoreSetupError> {
        let setup = Arc::new(MysqlSetup::of(config)?);
        let defaults = Arc::new(config.app_manager.app_defaults.clone());
        let meter = Meter::new("mysql", Role::AppManager);
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
        if !may_be_a_name(name.as_str()) {
            return Ok(None);
        }
        let pool = &self.shared.of_others;
        self.ask(pool, |answer| Question::Find { name, answer })
            .await
    }

    pub async fn find_all(self, ids: Vec<Box<str>>) -> Result<FoundApps, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        let pool = &self.shared.of_known;
        if ids.is_empty() {
            // Whether it is there: no app has this name.
            let name = AppName::Id("".into());
            self.ask(pool, |answer| Question::Find { name, answer })
                .await?;
        }
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let ids = ids.iter().filter(|id| may_be_a_name(id)).cloned();
            let ids: Vec<Box<str>> = ids.collect();
            let found = self.ask(pool, |answer| Question::FindAll { ids, answer });
            all.extend(found.await?);
        }
        Ok(FoundApps::of(all))
    }

    async fn ask<T>(
        &self,
        pool: &Pool,
        question: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Question,
    ) -> Result<T, StoreError> {
        let Shared {
            setup, defaults, ..
        } = &*self.shared;
        let (answer, answered) = oneshot::channel();
        let defaults = Arc::clone(&defaults.borrow());
        if let Err(Crowded) = pool.ask(question(answer), defaults) {
            return Err(StoreError::Down(fault::crowded(setup), Fault::Timeout));
        }
        match timeout(setup.timeout, answered).await {
            Ok(Ok(answer)) => answer,
            // The deadline passed here, or on the thread before it came to the question.
            Ok(Err(_)) | Err(_) => Err(StoreError::Down(fault::silent(setup), Fault::Timeout)),
        }
    }
}

/// A power of two, as the statements' lengths are.
const IDS_PER_STATEMENT: usize = 256;
