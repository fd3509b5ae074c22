//! Stores of apps against real servers: what is found, what is not, and what is said when they are gone.
//!
//! Owns: a store with its server, and the words of its tests; what all keep to stands in `contract`, what is a driver's
//! own under `on_mysql`, `on_pgsql`, `on_dynamodb`, what a node's start writes under `preparation`.
//! May depend on: `sockudo::{bridge::apps::store, config}`.
//! Invariants: every wait has a deadline ten times what is needed; nothing is left running.

#![expect(
    clippy::disallowed_methods,
    reason = "each wait has a deadline; a server's start is waited for"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use sockudo::bridge::apps::store::{AppName, Store, StoreError};
use sockudo::config::{App, Config, Sources, load};

use crate::backend::{Backend, Kind};

/// Each of them on every store.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[test]
            fn on_dynamodb() {
                $crate::started(stringify!($test), $crate::backend::Kind::Dynamodb, super::$test);
            }
            #[test]
            fn on_mysql() {
                $crate::started(stringify!($test), $crate::backend::Kind::Mysql, super::$test);
            }
            #[test]
            fn on_pgsql() {
                $crate::started(stringify!($test), $crate::backend::Kind::Pgsql, super::$test);
            }
        }
    )+ };
}

mod backend;
#[path = "../support/certificates.rs"]
mod certificates;
mod command_line;
mod contract;
#[path = "../support/mariadb.rs"]
mod mariadb;
#[path = "../support/moto.rs"]
mod moto;
mod on_dynamodb;
mod on_mysql;
mod on_pgsql;
#[path = "../support/postgres.rs"]
mod postgres;
mod preparation;
#[path = "../support/signal.rs"]
mod signal;
#[path = "../support/skip.rs"]
mod skip;

const DEADLINE: Duration = Duration::from_secs(60);

fn started(test: &str, kind: Kind, body: impl FnOnce(&Backend)) {
    match Backend::start(kind) {
        Some(backend) => body(&backend),
        None => skip::skip(test, "its database is missing; `scripts/test` installs it"),
    }
}

fn key(name: &str) -> AppName {
    AppName::Key(name.into())
}

fn id(name: &str) -> AppName {
    AppName::Id(name.into())
}

fn ids(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| (*name).into()).collect()
}

/// A configuration from variables alone.
fn configuration(variables: &BTreeMap<String, String>) -> Config {
    let sources = Sources {
        environment: variables.clone(),
        ..Sources::default()
    };
    match load(&sources) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{errors}"),
    }
}

/// The app that must be there.
#[track_caller]
fn found(answer: Result<Option<App>, StoreError>) -> App {
    match answer {
        Ok(Some(app)) => app,
        other => panic!("an app should be found: {other:?}"),
    }
}

/// Asks until it is answered.
async fn answers_again(store: &Store, name: AppName) -> Option<App> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match store.find(name.clone()).await {
            Ok(app) => return app,
            Err(error) => {
                let is_late = tokio::time::Instant::now() > deadline;
                assert!(!is_late, "it does not come back: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// `Down`, with each of the parts in its sentence, and never the password.
#[track_caller]
fn is_down(answer: Result<impl std::fmt::Debug, StoreError>, parts: &[&str]) {
    match answer {
        Err(StoreError::Down(sentence, _)) => {
            for part in parts {
                assert!(sentence.contains(part), "{sentence:?} lacks {part:?}");
            }
            assert!(!sentence.contains(backend::PASSWORD), "{sentence}");
        }
        other => panic!("the store should be down: {other:?}"),
    }
}
