//! The table of apps for who changes it: every row, one connection, nothing in the background.
//!
//! Owns: the statements that write, the columns that are there, and the table that is made.
//! May depend on: `pgsql::{setup, link, table, fault}`, `config::app_key`, `serde_json`, tokio.
//! Invariants: every value is bound; a row is changed only if its id is byte for byte the one that
//! was given; a table that exists is altered by `complete` only.

use std::{fmt::Write as _, future::poll_fn, pin::pin, rc::Rc, sync::Arc};

use futures_core::Stream as _;
use serde_json::{Map, Value as Json};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_postgres::Row;

use super::{
    super::{
        RowsError, Standing, StoreError, StoreSetupError, Write,
        columns::{COLUMNS, Kind},
    },
    fault,
    link::{Failed, Link},
    setup::{PgsqlSetup, quoted},
    table,
};
use crate::{
    config::{Config, app_key},
    metrics::backend::Fault,
};

#[derive(Debug)]
pub struct PgsqlRows {
    setup: Arc<PgsqlSetup>,
    runtime: Runtime,
    link: Link,
    /// As they were when a transaction began: each write of it looks at them.
    known: Option<Rc<[Column]>>,
}

/// A column that says something about an app.
#[derive(Debug)]
struct Column {
    name: String,
    /// The key of an app that it holds.
    key: &'static str,
    /// As the database says it.
    kind: String,
    /// A new row must say it.
    is_required: bool,
}

impl PgsqlRows {
    pub fn open(config: &Config) -> Result<Result<Self, StoreError>, StoreSetupError> {
        let setup = Arc::new(PgsqlSetup::of(config)?);
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                return Ok(Err(StoreError::Down(
                    format!("no runtime: {error}"),
                    Fault::Io,
                )));
            }
        };
        let connected = runtime.block_on(within(&setup, Link::connect(&setup)));
        let connected = connected.map_err(|failed| fault::down(&failed, &setup));
        Ok(connected.map(|link| Self {
            setup,
            runtime,
            link,
            known: None,
        }))
    }

    /// Every row as a record, by id; one that cannot even be read is a fault beside its id.
    pub fn list(
        &mut self,
        mut each: impl FnMut(Result<Map<String, Json>, (String, String)>),
    ) -> Result<(), RowsError> {
        let statement = table::all(&self.setup);
        let listed = self.runtime.block_on(async {
            let setup = &self.setup;
            let mut rows = pin!(within(setup, self.link.stream(&statement)).await?);
            let mut next = async || {
                let row = poll_fn(|context| rows.as_mut().poll_next(context));
                within(setup, async { Ok(row.await.transpose()?) }).await
            };
            while let Some(row) = next().await? {
                let record = table::record(&row);
                each(record.map_err(|fault| (table::id(&row).to_owned(), fault)));
            }
            Ok(())
        });
        listed.map_err(|failed| down(&failed, &self.setup))
    }

    /// The row of an id.
    pub fn read(&mut self, id: &str) -> Result<Option<Map<String, Json>>, RowsError> {
        let statement = table::by("id", &self.setup);
        let rows = match self.ask(&statement, id) {
            Ok(rows) => rows,
            Err(failed) if fault::is_of_no_row(&failed) => return Ok(None),
            Err(failed) => return Err(down(&failed, &self.setup)),
        };
        let Some(row) = rows.iter().find(|row| table::id(row) == id) else {
            return Ok(None);
        };
        let record = table::record(row).map_err(|fault| StoreError::Malformed {
            id: id.to_owned(),
            faults: vec![fault],
            stand_in: None,
        });
        Ok(Some(record?))
    }

    /// A new row of what was given; `resolved` says what columns want that must be said.
    pub fn insert(
        &mut self,
        given: &Map<String, Json>,
        resolved: &Map<String, Json>,
    ) -> Result<(), RowsError> {
        let columns = self.columns()?;
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (key, value) in given {
            let column = self.column(&columns, key)?;
            names.push(quoted(&column.name));
            values.push(column.value(value));
        }
        let left = columns
            .iter()
            .filter(|it| it.is_required && !given.contains_key(it.key));
        for column in left {
            if let Some(value) = resolved.get(column.key) {
                names.push(quoted(&column.name));
                values.push(column.value(value));
            }
        }
        let marks: Vec<String> = (1..=names.len()).map(|at| format!("${at}")).collect();
        let (table, names, marks) = (&self.setup.table_quoted, names.join(", "), marks.join(", "));
        self.write(
            &format!("INSERT INTO {table} ({names}) VALUES ({marks})"),
            &values,
        )
    }

    /// Changes columns of the row of an id; null is the column's NULL.
    pub fn update(&mut self, id: &str, changes: &Map<String, Json>) -> Result<(), RowsError> {
        let columns = self.columns()?;
        let (mut names, mut values) = (Vec::new(), vec![Some(id.to_owned()); 2]);
        for (key, value) in changes {
            let column = self.column(&columns, key)?;
            values.push(column.value(value));
            names.push(format!("{} = ${}", quoted(&column.name), values.len()));
        }
        let (table, names) = (&self.setup.table_quoted, names.join(", "));
        let statement = format!("UPDATE {table} SET {names} WHERE {THIS_ID}");
        self.write(&statement, &values)
    }

    /// What is written from now on is kept with `commit`, or not at all.
    pub fn begin(&mut self) -> Result<(), RowsError> {
        self.known = Some(self.columns()?);
        self.write("BEGIN", &[])
    }

    /// Keeps what was written since `begin`.
    pub fn commit(&mut self) -> Result<(), RowsError> {
        self.known = None;
        self.write("COMMIT", &[])
    }

    pub fn remove(&mut self, id: &str) -> Result<(), RowsError> {
        let statement = format!("DELETE FROM {} WHERE {THIS_ID}", self.setup.table_quoted);
        self.write(&statement, &vec![Some(id.to_owned()); 2])
    }

    pub(in super::super) fn make(&mut self) -> Result<(), RowsError> {
        let table = &self.setup.table_quoted;
        let columns = COLUMNS.map(|it| format!("  {} {}", quoted(it.name), definition(it.kind)));
        let statement = format!("CREATE TABLE {table} (\n{}\n)", columns.join(",\n"));
        self.write(&statement, &[])
    }

    /// By what the server says of rights, and of itself.
    pub(in super::super) fn rehearse(&mut self, write: Write) -> Result<(), RowsError> {
        let schema = self.setup.table.to_lowercase();
        let schema = schema.split_once('.').map_or("", |(schema, _)| schema);
        let table = &*self.setup.table_quoted;
        let (of, right, may) = match write {
            Write::Table => (schema, "CREATE on its schema", MAY_CREATE),
            Write::Columns => (table, "to own it", MAY_ALTER),
            Write::NewApps => (table, "INSERT", MAY_INSERT),
            Write::ChangedApps => (table, "UPDATE", MAY_UPDATE),
        };
        let statement = format!("SELECT ({MAY_WRITE})::text, (SELECT {may})::text");
        let rows = self.ask(&statement, of);
        let rows = rows.map_err(|failed| down(&failed, &self.setup))?;
        let says = |at| {
            let told = rows.first().map(|row| row.try_get::<_, String>(at));
            told.is_some_and(|it| it.is_ok_and(|text| text == "true"))
        };
        match (says(0), says(1)) {
            (false, _) => {
                Err(StoreError::Down(fault::read_only(&self.setup), Fault::Protocol).into())
            }
            (true, false) => {
                Err(StoreError::Down(fault::lacks(right, &self.setup), Fault::Auth).into())
            }
            (true, true) => Ok(()),
        }
    }

    pub(in super::super) fn look(&mut self) -> Result<Standing, RowsError> {
        let table = self.setup.table_quoted.clone();
        match self.run(&format!("SELECT FROM {table} LIMIT 0"), &[]) {
            Ok(_) => {}
            Err(failed) if fault::is_of_no_table(&failed) => return Ok(Standing::Missing),
            Err(failed) => return Err(down(&failed, &self.setup)),
        }
        let there = self.columns()?;
        let missing = COLUMNS.iter().filter(|column| {
            app_key(column.name).is_some_and(|key| there.iter().all(|it| it.key != key))
        });
        let mut statement = String::new();
        for made in missing {
            let before = match statement.is_empty() {
                true => format!("ALTER TABLE {table}"),
                false => ",".to_owned(),
            };
            // A row that is there already says nothing of it.
            let kind = definition(made.kind).replace("NOT NULL", "NULL");
            let name = quoted(made.name);
            _ = write!(statement, "{before}\n  ADD COLUMN {name} {kind}");
        }
        Ok(match statement.is_empty() {
            true => Standing::Whole,
            false => Standing::Lacks(statement),
        })
    }

    /// Runs what `look` said is lacking.
    pub fn complete(&mut self, statement: &str) -> Result<(), RowsError> {
        self.write(statement, &[])
    }

    /// The column of a key, or the statement that adds it.
    fn column<'a>(&self, columns: &'a [Column], key: &str) -> Result<&'a Column, RowsError> {
        if let Some(column) = columns.iter().find(|column| column.key == key) {
            return Ok(column);
        }
        let kind = COLUMNS.iter().find(|made| made.name == key);
        let kind = kind.map_or("TEXT NULL", |made| definition(made.kind));
        let (table, column) = (&self.setup.table_quoted, quoted(key));
        Err(RowsError::NoColumn {
            key: key.to_owned(),
            statement: format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"),
        })
    }

    fn columns(&mut self) -> Result<Rc<[Column]>, RowsError> {
        if let Some(known) = &self.known {
            return Ok(Rc::clone(known));
        }
        let rows = self.ask(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), \
             (a.attnotnull AND NOT a.atthasdef AND a.attidentity = '')::text \
             FROM pg_catalog.pg_attribute a WHERE a.attrelid = to_regclass($1) \
             AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &self.setup.table_quoted,
        );
        let rows = rows.map_err(|failed| down(&failed, &self.setup))?;
        let column = |row: &Row| {
            let text = |at| row.try_get::<_, String>(at).unwrap_or_default();
            let name = text(0);
            Some(Column {
                key: app_key(&name)?,
                name,
                kind: text(1),
                is_required: text(2) == "true",
            })
        };
        Ok(rows.iter().filter_map(column).collect())
    }

    fn ask(&self, statement: &str, text: &str) -> Result<Vec<Row>, Failed> {
        let asked = within(&self.setup, self.link.ask(statement, text));
        self.runtime.block_on(asked)
    }

    fn run(&self, statement: &str, values: &[Option<String>]) -> Result<u64, Failed> {
        let run = within(&self.setup, self.link.run(statement, values));
        self.runtime.block_on(run)
    }

    fn write(&self, statement: &str, values: &[Option<String>]) -> Result<(), RowsError> {
        match self.run(statement, values) {
            Ok(_) => Ok(()),
            Err(failed) if fault::is_of_a_double(&failed) => Err(RowsError::Taken),
            Err(failed) => Err(down(&failed, &self.setup)),
        }
    }
}

impl Column {
    /// As the column's type reads it.
    fn value(&self, value: &Json) -> Option<String> {
        let is_array = self.kind.ends_with("[]");
        Some(match value {
            Json::Null => return None,
            Json::Bool(flag) if self.holds_words() => flag.to_string(),
            Json::Bool(flag) => u8::from(*flag).to_string(),
            Json::String(text) => text.clone(),
            Json::Array(elements) if is_array => {
                let texts = elements.iter().map(|element| {
                    let text = element.as_str().map(str::to_owned);
                    text.unwrap_or_else(|| element.to_string())
                });
                let texts: Vec<String> = texts.collect();
                table::array(&texts.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
        })
    }

    /// Numbers and bits have no word for true.
    fn holds_words(&self) -> bool {
        ["bool", "text", "char", "citext", "json"]
            .iter()
            .any(|word| self.kind.contains(word))
    }
}

/// Nobody waits longer for a step of a statement.
async fn within<T>(
    setup: &PgsqlSetup,
    step: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let done = timeout(setup.timeout, step).await;
    done.unwrap_or(Err(Failed::Silent))
}

fn down(failed: &Failed, setup: &PgsqlSetup) -> RowsError {
    fault::down(failed, setup).into()
}

const MAY_WRITE: &str =
    "NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'";
/// Of a schema; of an empty name the one in which a table would be made.
const MAY_CREATE: &str = "has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace \
                          WHERE nspname = coalesce(nullif($1, ''), current_schema())";
/// Of a table, as the others.
const MAY_ALTER: &str =
    "pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = to_regclass($1)";
const MAY_INSERT: &str = "has_any_column_privilege(to_regclass($1), 'INSERT')";
const MAY_UPDATE: &str = "has_any_column_privilege(to_regclass($1), 'UPDATE')";

/// The first half finds the row by the index, the second knows it from those that are only alike.
const THIS_ID: &str = "id = $1 AND id::text = $2";

/// How a table says what a column holds.
const fn definition(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "VARCHAR(255) NOT NULL PRIMARY KEY",
        Kind::Key => "VARCHAR(255) NOT NULL UNIQUE",
        Kind::Text => "VARCHAR(255) NOT NULL",
        Kind::Count => "INTEGER NOT NULL",
        Kind::CountOrNone => "INTEGER NULL",
        Kind::Flag(true) => "BOOLEAN NOT NULL DEFAULT TRUE",
        Kind::Flag(false) => "BOOLEAN NOT NULL DEFAULT FALSE",
        Kind::FlagOrNone => "BOOLEAN NULL",
        Kind::List => "JSONB NULL",
        Kind::CreatedAt | Kind::UpdatedAt => "TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP",
    }
}
