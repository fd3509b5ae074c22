//! The store of apps that nodes share: a database that is asked for one app at a time.
//!
//! Owns: the closed set of stores, what is asked, and what a store answers.
//! May depend on: `config`, `metrics::backend`; each driver its crate. Not on who asks.
//! Invariants: an app is found by exactly the name that was asked, byte for byte, whatever the
//! database thinks equal; each answer comes within the driver's deadline; no error holds a secret.

mod columns;
mod crowd;
pub mod dynamodb;
mod found;
mod import;
pub mod mysql;
pub mod pgsql;
mod prepare;

use std::{future::Future, time::Duration};

use dynamodb::{DynamodbRows, DynamodbStore};
use mysql::{MysqlRows, MysqlStore};
use pgsql::{PgsqlRows, PgsqlStore};
use serde_json::{Map, Value as Json};

pub use super::AppName;
pub use import::{ImportError, Imported, with_first_secret};
pub use prepare::{Foreseen, Preparation, Prepared};

use crate::{
    config::{App, Config, sections::AppStoreDriver},
    metrics::backend::{Fault, Meter},
};

/// Where apps are kept, beside the configuration. A clone is the same store.
#[derive(Clone, Debug)]
pub enum Store {
    Mysql(MysqlStore),
    Pgsql(PgsqlStore),
    Dynamodb(DynamodbStore),
}

/// Of the ids that were asked for, those that are there.
#[derive(Clone, Debug, Default)]
pub struct FoundApps {
    pub apps: Vec<App>,
    pub malformed: Vec<MalformedApp>,
}

/// One that is there and cannot be an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedApp {
    pub id: Box<str>,
    /// Each begins with its column.
    pub faults: String,
}

/// Why a store gives no answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, too late, a login refused: a sentence that names the key and what to do, and how it is counted.
    #[error("{0}")]
    Down(String, Fault),
    /// It is there and cannot be an app. Each fault begins with its column.
    #[error("the app {id:?} cannot be used: {}", faults.join("; "))]
    Malformed {
        id: String,
        faults: Vec<String>,
        /// In its place, where it has an id and a key that can be: an app that is disabled.
        stand_in: Option<Box<App>>,
    },
}

/// Why a store cannot even be asked: a key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {fault}")]
pub struct StoreSetupError {
    pub key: &'static str,
    pub fault: String,
    /// This user may not read a file: whether the server can use it is not known.
    pub is_forbidden: bool,
}

/// The apps as who changes them sees them: rows, one connection, whoever waits.
#[derive(Debug)]
pub enum Rows {
    Mysql(MysqlRows),
    Pgsql(PgsqlRows),
    Dynamodb(Box<DynamodbRows>),
}

/// Why a row was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the table has no column for {key}; this adds it:\n{statement};")]
    NoColumn { key: String, statement: String },
    #[error("an app with this id or key is there already, or one that the database takes for it")]
    Taken,
    #[error("{0}: its column is unsigned and cannot hold -1: give it a large number instead")]
    Unsigned(String),
    #[error("{0}: its column holds whole numbers only, and would round it")]
    Fraction(String),
}

/// How the table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Missing,
    Whole,
    /// This statement completes it.
    Lacks(String),
}

/// What somebody is about to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    Table,
    /// What the table lacks.
    Columns,
    NewApps,
    ChangedApps,
}

/// What became of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    Made,
    /// It was there, with a column for everything.
    Whole,
    /// It was there; this statement completes it.
    Lacks(String),
}

impl Rows {
    /// `None` where apps stand in the configuration.
    pub fn open(config: &Config) -> Result<Option<Result<Self, StoreError>>, StoreSetupError> {
        match config.app_manager.driver {
            AppStoreDriver::Mysql => {
                let opened = MysqlRows::open(config)?;
                Ok(Some(opened.map(Self::Mysql)))
            }
            AppStoreDriver::Pgsql => {
                let opened = PgsqlRows::open(config)?;
                Ok(Some(opened.map(Self::Pgsql)))
            }
            AppStoreDriver::Dynamodb => {
                let opened = DynamodbRows::open(config)?;
                Ok(Some(opened.map(|rows| Self::Dynamodb(Box::new(rows)))))
            }
            AppStoreDriver::Memory | AppStoreDriver::Scylladb => Ok(None),
        }
    }

    /// Every row as a record, by id; of one that cannot be read its id and the fault.
    pub fn list(
        &mut self,
        each: impl FnMut(Result<Map<String, Json>, (String, String)>),
    ) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.list(each),
            Self::Pgsql(rows) => rows.list(each),
            Self::Dynamodb(rows) => rows.list(each),
        }
    }

    /// The row of an id.
    pub fn read(&mut self, id: &str) -> Result<Option<Map<String, Json>>, RowsError> {
        match self {
            Self::Mysql(rows) => rows.read(id),
            Self::Pgsql(rows) => rows.read(id),
            Self::Dynamodb(rows) => rows.read(id),
        }
    }

    /// A new row of what was given; `resolved` has what a column wants that nobody gave.
    pub fn insert(
        &mut self,
        given: &Map<String, Json>,
        resolved: &Map<String, Json>,
    ) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.insert(given, resolved),
            Self::Pgsql(rows) => rows.insert(given, resolved),
            Self::Dynamodb(rows) => rows.insert(given),
        }
    }

    /// Changes members of the row of an id; null takes one away.
    pub fn update(&mut self, id: &str, changes: &Map<String, Json>) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.update(id, changes),
            Self::Pgsql(rows) => rows.update(id, changes),
            Self::Dynamodb(rows) => rows.update(id, changes),
        }
    }

    /// What is written from now on is kept with `commit`, all of it or nothing; false where the store has no
    /// transactions. Whoever goes without committing has written nothing.
    pub fn begin(&mut self) -> Result<bool, RowsError> {
        match self {
            Self::Mysql(rows) => rows.begin().map(|()| true),
            Self::Pgsql(rows) => rows.begin().map(|()| true),
            Self::Dynamodb(_) => Ok(false),
        }
    }

    /// Keeps what was written since `begin`.
    pub fn commit(&mut self) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.commit(),
            Self::Pgsql(rows) => rows.commit(),
            Self::Dynamodb(_) => Ok(()),
        }
    }

    pub fn remove(&mut self, id: &str) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.remove(id),
            Self::Pgsql(rows) => rows.remove(id),
            Self::Dynamodb(rows) => rows.remove(id),
        }
    }

    /// Makes the table where it is not; one that is there is left as it is.
    pub fn create(&mut self) -> Result<Created, RowsError> {
        Ok(match self.look()? {
            Standing::Whole => Created::Whole,
            Standing::Lacks(statement) => Created::Lacks(statement),
            Standing::Missing => {
                match self {
                    Self::Mysql(rows) => rows.make()?,
                    Self::Pgsql(rows) => rows.make()?,
                    Self::Dynamodb(rows) => rows.make()?,
                }
                Created::Made
            }
        })
    }

    /// How the table stands; nothing is written.
    fn look(&mut self) -> Result<Standing, RowsError> {
        match self {
            Self::Mysql(rows) => rows.look(),
            Self::Pgsql(rows) => rows.look(),
            Self::Dynamodb(rows) => rows.look(),
        }
    }

    /// Refused if the server is known to refuse such a write; nothing is written. What cannot be known so is
    /// allowed.
    fn rehearse(&mut self, write: Write) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.rehearse(write),
            Self::Pgsql(rows) => rows.rehearse(write),
            Self::Dynamodb(_) => Ok(()), // Whoever signs may do what the service says then.
        }
    }

    /// Gives a table what it lacks, as `create` said it.
    pub fn complete(&mut self, statement: &str) -> Result<(), RowsError> {
        match self {
            Self::Mysql(rows) => rows.complete(statement),
            Self::Pgsql(rows) => rows.complete(statement),
            Self::Dynamodb(rows) => rows.add_index(),
        }
    }
}

impl Store {
    /// `None` where apps stand in the configuration. Reads the files that the configuration names,
    /// and opens no connection: the first question does, and every one after a loss.
    pub fn start(config: &Config) -> Result<Option<Self>, StoreSetupError> {
        match config.app_manager.driver {
            AppStoreDriver::Mysql => MysqlStore::start(config).map(|it| Some(Self::Mysql(it))),
            AppStoreDriver::Pgsql => PgsqlStore::start(config).map(|it| Some(Self::Pgsql(it))),
            AppStoreDriver::Dynamodb => {
                DynamodbStore::start(config).map(|it| Some(Self::Dynamodb(it)))
            }
            AppStoreDriver::Memory | AppStoreDriver::Scylladb => Ok(None),
        }
    }

    /// Whether it could ever start, as far as the files tell that the configuration names. Credentials of AWS are looked
    /// for over the network, so not here.
    ///
    /// # Errors
    /// As `start`.
    pub fn check(config: &Config) -> Result<(), StoreSetupError> {
        match config.app_manager.driver {
            AppStoreDriver::Mysql => mysql::check(config),
            AppStoreDriver::Pgsql => pgsql::check(config),
            AppStoreDriver::Dynamodb | AppStoreDriver::Memory | AppStoreDriver::Scylladb => Ok(()),
        }
    }

    /// As `app_manager.driver` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mysql(_) => "mysql",
            Self::Pgsql(_) => "pgsql",
            Self::Dynamodb(_) => "dynamodb",
        }
    }

    /// Questions for one app (`find`) that it works on at once; more wait for each other. Those for known
    /// apps (`find_all`) wait for none of them.
    pub fn places(&self) -> usize {
        match self {
            Self::Mysql(store) => store.places(),
            Self::Pgsql(store) => store.places(),
            Self::Dynamodb(store) => store.places(),
        }
    }

    /// How long each of them may take.
    pub fn timeout(&self) -> Duration {
        match self {
            Self::Mysql(store) => store.timeout(),
            Self::Pgsql(store) => store.timeout(),
            Self::Dynamodb(store) => store.timeout(),
        }
    }

    /// What is counted of the server. How long answers take, and what failed, whoever asks says.
    pub fn meter(&self) -> &Meter {
        match self {
            Self::Mysql(store) => store.meter(),
            Self::Pgsql(store) => store.meter(),
            Self::Dynamodb(store) => store.meter(),
        }
    }

    /// After a reload: what apps found from now on take over from the server.
    pub fn reload(&self, config: &Config) {
        match self {
            Self::Mysql(store) => store.reload(config),
            Self::Pgsql(store) => store.reload(config),
            Self::Dynamodb(store) => store.reload(config),
        }
    }

    /// The app of that name; `None` where there is none.
    pub fn find(
        &self,
        name: AppName,
    ) -> impl Future<Output = Result<Option<App>, StoreError>> + Send + use<> {
        let store = self.clone();
        async move {
            match store {
                Self::Mysql(store) => store.find(name).await,
                Self::Pgsql(store) => store.find(name).await,
                Self::Dynamodb(store) => store.find(name).await,
            }
        }
    }

    /// Those of the ids that are there, in any order; of none, whether the store answers. The deadline is that of each
    /// of its statements, of which the first that fails ends it.
    pub fn find_all(
        &self,
        ids: Vec<Box<str>>,
    ) -> impl Future<Output = Result<FoundApps, StoreError>> + Send + use<> {
        let store = self.clone();
        async move {
            match store {
                Self::Mysql(store) => store.find_all(ids).await,
                Self::Pgsql(store) => store.find_all(ids).await,
                Self::Dynamodb(store) => store.find_all(ids).await,
            }
        }
    }
}
