//! A store with its server, as what is the same for all of them is tested.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use sockudo::bridge::apps::store::Store;

use crate::configuration;
use crate::mariadb::MariaDb;
use crate::postgres::Postgres;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mysql,
    Pgsql,
}

impl Kind {
    /// As `app_manager.driver` has it.
    fn driver(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Pgsql => "postgresql",
        }
    }

    /// Its section under `database`.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Pgsql => "postgres",
        }
    }
}

enum Server {
    Mysql(MariaDb),
    Pgsql(Postgres),
}

/// With a database or schema `sockudo`, which `owner` may change and `reader` may read.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    server: Server,
}

pub(crate) const PASSWORD: &str = "hunter-2-hunter";

impl Backend {
    /// `None` where the machine has no such server.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let server = match kind {
            Kind::Mysql => Server::Mysql(MariaDb::start()?),
            Kind::Pgsql => Server::Pgsql(Postgres::start()?),
        };
        let backend = Self { kind, server };
        match kind {
            Kind::Mysql => backend.run(&[
                "CREATE DATABASE sockudo CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
                &format!("CREATE USER owner@'%' IDENTIFIED BY '{PASSWORD}'"),
                &format!("CREATE USER reader@'%' IDENTIFIED BY '{PASSWORD}'"),
                "GRANT ALL ON sockudo.* TO owner@'%'",
                "GRANT SELECT ON sockudo.* TO reader@'%'",
            ]),
            Kind::Pgsql => backend.run(&[
                &format!("CREATE USER owner PASSWORD '{PASSWORD}'"),
                &format!("CREATE USER reader PASSWORD '{PASSWORD}'"),
                "CREATE SCHEMA sockudo AUTHORIZATION owner",
                "GRANT USAGE ON SCHEMA sockudo TO reader",
                "ALTER DATABASE sockudo SET search_path = sockudo",
                "ALTER DEFAULT PRIVILEGES FOR ROLE owner, postgres IN SCHEMA sockudo
                    GRANT SELECT ON TABLES TO reader",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA sockudo GRANT ALL ON TABLES TO owner",
            ]),
        }
        Some(backend)
    }

    /// Statements in the database's own words.
    #[track_caller]
    pub(crate) fn run(&self, statements: &[&str]) {
        match &self.server {
            Server::Mysql(server) => server.run(statements),
            Server::Pgsql(server) => server.run(statements),
        }
    }

    /// A table in which every column may be anything, so that rows may be wrong.
    pub(crate) fn makes_loose_table(&self) {
        let key = self.quotes("key");
        self.run(&[&format!(
            "CREATE TABLE sockudo.applications (id VARCHAR(255) PRIMARY KEY, {key} VARCHAR(255) UNIQUE, \
             secret VARCHAR(255), max_connections VARCHAR(255), webhooks TEXT, allowed_origins TEXT)"
        )]);
    }

    /// Rows of that table.
    pub(crate) fn puts(&self, rows: &[Value]) {
        let statements = rows.iter().map(|row| {
            let row = row.as_object().expect("a row is an object");
            let names: Vec<String> = row.keys().map(|name| self.quotes(name)).collect();
            let values = row.values().map(|value| match value {
                Value::String(text) => {
                    let text = match self.kind {
                        Kind::Mysql => text.replace('\\', "\\\\"),
                        Kind::Pgsql => text.clone(),
                    };
                    format!("'{}'", text.replace('\'', "''"))
                }
                Value::Null => "NULL".to_owned(),
                other => format!("'{other}'"),
            });
            let values: Vec<String> = values.collect();
            let (names, values) = (names.join(", "), values.join(", "));
            format!("INSERT INTO sockudo.applications ({names}) VALUES ({values})")
        });
        let mut all = vec!["SET NAMES utf8mb4".to_owned()];
        all.truncate(usize::from(self.kind == Kind::Mysql));
        all.extend(statements);
        self.run(&all.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// A name that may be a reserved word.
    pub(crate) fn quotes(&self, name: &str) -> String {
        match self.kind {
            Kind::Mysql => format!("`{name}`"),
            Kind::Pgsql => format!("\"{name}\""),
        }
    }

    /// The variables with which that user is let in.
    pub(crate) fn variables(&self, user: &str) -> Variables {
        let address = match &self.server {
            Server::Mysql(server) => server.address,
            Server::Pgsql(server) => server.address,
        };
        Variables::of(self.kind, address, user)
    }

    pub(crate) fn kill(&mut self) {
        match &mut self.server {
            Server::Mysql(server) => server.kill(),
            Server::Pgsql(server) => server.kill(),
        }
    }

    /// After `kill`, with the same rows.
    pub(crate) fn start_again(&mut self) {
        match &mut self.server {
            Server::Mysql(server) => server.start_again(),
            Server::Pgsql(server) => server.start_again(),
        }
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        match &self.server {
            Server::Mysql(server) => server.signal(signal),
            Server::Pgsql(server) => server.signal(signal),
        }
    }
}

/// What the configuration says of the store.
#[derive(Clone, Debug)]
pub(crate) struct Variables {
    kind: Kind,
    pub(crate) all: BTreeMap<String, String>,
}

impl Variables {
    fn of(kind: Kind, address: SocketAddr, user: &str) -> Self {
        let driver = ("APP_MANAGER_DRIVER".to_owned(), kind.driver().to_owned());
        let all = BTreeMap::from([driver]);
        Self { kind, all }
            .with("HOST", address.ip())
            .with("PORT", address.port())
            .with("USERNAME", user)
            .with("PASSWORD", PASSWORD)
    }

    pub(crate) fn of_pgsql(address: SocketAddr, user: &str) -> Self {
        Self::of(Kind::Pgsql, address, user)
    }

    /// A key of the store's section.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        let section = self.kind.section().to_uppercase();
        let name = format!("SOCKUDO__DATABASE__{section}__{key}");
        self.all.insert(name, value.to_string());
        self
    }

    pub(crate) fn store(&self) -> Store {
        let store = Store::start(&configuration(&self.all));
        let store = store.expect("a configuration that can be asked with");
        store.expect("a store that is no file")
    }
}
