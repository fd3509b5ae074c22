//! A store with its server, as what is the same for all of them is tested.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use sockudo::bridge::apps::store::Store;

use crate::configuration;
use crate::mariadb::MariaDb;
use crate::moto::Moto;
use crate::postgres::Postgres;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mysql,
    Pgsql,
    Dynamodb,
}

impl Kind {
    /// As `app_manager.driver` has it.
    fn driver(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Pgsql => "postgresql",
            Self::Dynamodb => "dynamodb",
        }
    }

    /// Its section under `database`.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Mysql => "mysql",
            Self::Pgsql => "postgres",
            Self::Dynamodb => "dynamodb",
        }
    }
}

enum Server {
    Mysql(MariaDb),
    Pgsql(Postgres),
    Dynamodb(Moto),
}

/// With a database or schema `sockudo`, which `owner` may change and `reader` may read.
pub(crate) struct Backend {
    pub(crate) kind: Kind,
    server: Server,
    /// What a server that only remembers is told again.
    told: RefCell<Vec<(&'static str, Value)>>,
}

pub(crate) const PASSWORD: &str = "hunter-2-hunter";

impl Backend {
    /// `None` where the machine has no such server.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let server = match kind {
            Kind::Mysql => Server::Mysql(MariaDb::start()?),
            Kind::Pgsql => Server::Pgsql(Postgres::start()?),
            Kind::Dynamodb => Server::Dynamodb(Moto::start()?),
        };
        let told = RefCell::default();
        let backend = Self { kind, server, told };
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
            Kind::Dynamodb => {}
        }
        Some(backend)
    }

    /// Statements in the database's own words.
    #[track_caller]
    pub(crate) fn run(&self, statements: &[&str]) {
        match &self.server {
            Server::Mysql(server) => server.run(statements),
            Server::Pgsql(server) => server.run(statements),
            Server::Dynamodb(_) => panic!("it knows no statements: {statements:?}"),
        }
    }

    /// A table in which every column may be anything, so that rows may be wrong.
    pub(crate) fn makes_loose_table(&self) {
        if self.kind == Kind::Dynamodb {
            return self.tells("CreateTable", dynamodb_table());
        }
        let key = self.quotes("key");
        self.run(&[&format!(
            "CREATE TABLE sockudo.applications (id VARCHAR(255) PRIMARY KEY, {key} VARCHAR(255) UNIQUE, \
             secret VARCHAR(255), max_connections VARCHAR(255), webhooks TEXT, allowed_origins TEXT)"
        )]);
    }

    /// Rows of that table.
    pub(crate) fn puts(&self, rows: &[Value]) {
        if self.kind == Kind::Dynamodb {
            for rows in rows.chunks(25) {
                let put = |row| json!({"PutRequest": {"Item": attributes(row)}});
                let puts: Vec<Value> = rows.iter().map(put).collect();
                let items = json!({"RequestItems": {"sockudo-applications": puts}});
                self.tells("BatchWriteItem", items);
            }
            return;
        }
        let statements = rows.iter().map(|row| {
            let row = row.as_object().expect("a row is an object");
            let names: Vec<String> = row.keys().map(|name| self.quotes(name)).collect();
            let values = row.values().map(|value| match value {
                Value::String(text) => {
                    let text = match self.kind {
                        Kind::Mysql => text.replace('\\', "\\\\"),
                        Kind::Pgsql | Kind::Dynamodb => text.clone(),
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
            Kind::Pgsql | Kind::Dynamodb => format!("\"{name}\""),
        }
    }

    /// The variables with which that user is let in.
    pub(crate) fn variables(&self, user: &str) -> Variables {
        let address = match &self.server {
            Server::Mysql(server) => server.address,
            Server::Pgsql(server) => server.address,
            Server::Dynamodb(server) => server.address,
        };
        Variables::of(self.kind, address, user)
    }

    pub(crate) fn kill(&mut self) {
        match &mut self.server {
            Server::Mysql(server) => server.kill(),
            Server::Pgsql(server) => server.kill(),
            Server::Dynamodb(server) => server.kill(),
        }
    }

    /// After `kill`, with the same rows.
    pub(crate) fn start_again(&mut self) {
        match &mut self.server {
            Server::Mysql(server) => server.start_again(),
            Server::Pgsql(server) => server.start_again(),
            Server::Dynamodb(server) => {
                server.start_again();
                for (operation, body) in self.told.borrow().iter() {
                    server.does("dynamodb", &target(operation), body);
                }
            }
        }
    }

    /// `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        match &self.server {
            Server::Mysql(server) => server.signal(signal),
            Server::Pgsql(server) => server.signal(signal),
            Server::Dynamodb(server) => server.signal(signal),
        }
    }

    /// Calls an operation of DynamoDB.
    pub(crate) fn tells(&self, operation: &'static str, body: Value) {
        if let Server::Dynamodb(server) = &self.server {
            server.does("dynamodb", &target(operation), &body);
            self.told.borrow_mut().push((operation, body));
        }
    }
}

fn target(operation: &str) -> String {
    format!("DynamoDB_20120810.{operation}")
}

/// As Sockudo 2.9 makes it.
fn dynamodb_table() -> Value {
    let throughput = json!({"ReadCapacityUnits": 5, "WriteCapacityUnits": 5});
    json!({
        "TableName": "sockudo-applications",
        "AttributeDefinitions": [
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "key", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [{
            "IndexName": "KeyIndex",
            "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "ALL"},
            "ProvisionedThroughput": throughput,
        }],
        "ProvisionedThroughput": throughput,
    })
}

/// A row as Sockudo 2.9 writes it: lists as texts of JSON.
fn attributes(row: &Value) -> Value {
    let members = row.as_object().expect("a row is an object").iter();
    let attribute = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::Null => return None,
            Value::String(text) => json!({"S": text}),
            Value::Number(number) => json!({"N": number.to_string()}),
            Value::Bool(flag) => json!({"BOOL": flag}),
            other => json!({"S": other.to_string()}),
        };
        Some((name.clone(), value))
    };
    Value::Object(members.filter_map(attribute).collect())
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
        let variables = Self { kind, all }.at(address);
        // The machine may have others to do; who tests deadlines says another one.
        let variables = variables.with("TIMEOUT_MS", 20_000);
        match kind {
            Kind::Mysql | Kind::Pgsql => {
                variables.with("USERNAME", user).with("PASSWORD", PASSWORD)
            }
            Kind::Dynamodb => variables
                .with("AWS_ACCESS_KEY_ID", user)
                .with("AWS_SECRET_ACCESS_KEY", PASSWORD),
        }
    }

    /// Where the server is.
    pub(crate) fn at(self, address: SocketAddr) -> Self {
        match self.kind {
            Kind::Mysql | Kind::Pgsql => {
                self.with("HOST", address.ip()).with("PORT", address.port())
            }
            Kind::Dynamodb => self.with("ENDPOINT_URL", format!("http://{address}")),
        }
    }

    pub(crate) fn of_dynamodb(address: SocketAddr) -> Self {
        Self::of(Kind::Dynamodb, address, "reader")
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
