//! The table of apps for who changes it: every row, one connection, nothing in the background.
//!
//! Owns: the statements that write, the columns that are there, and the table that is made.
//! May depend on: `mysql::{setup, table, row, fault}`, `config::app_key`, `serde_json`.
//! Invariants: every value is bound; a row is changed only if its id is byte for byte the one that
//! was given; a table that exists is altered by `complete` only.

use std::{fmt::Write as _, rc::Rc, sync::Arc};

use mysql::{Conn, Value, prelude::Queryable as _};
use serde_json::{Map, Value as Json};

use super::{
    super::{
        RowsError, Standing, StoreError, StoreSetupError, Write,
        columns::{COLUMNS, Kind},
    },
    fault, row,
    setup::MysqlSetup,
    table,
};
use crate::config::{Config, app_key};

#[derive(Debug)]
pub struct MysqlRows {
    setup: Arc<MysqlSetup>,
    connection: Conn,
    /// As they were when a transaction began: each write of it looks at them.
    known: Option<Rc<[Column]>>,
}

/// A column that says something about an app.
#[derive(Debug)]
struct Column {
    name: String,
    /// The key of an app that it holds.
    key: &'static str,
    is_unsigned: bool,
    /// It rounds what is not.
    is_whole: bool,
    /// A new row must say it.
    is_required: bool,
}

impl MysqlRows {
    pub fn open(config: &Config) -> Result<Result<Self, StoreError>, StoreSetupError> {
        let setup = Arc::new(MysqlSetup::of(config)?);
        let connected = table::connect(&setup);
        let connected = connected.map_err(|failed| table::down(&failed, &setup));
        Ok(connected.and_then(|mut connection| {
            // Else a server may cut what it is given, and say nothing.
            let strict = connection.query_drop(STRICT);
            strict.map_err(|error| {
                let kind = fault::kind(&error, &setup);
                StoreError::Down(fault::sentence(&error, &setup), kind)
            })?;
            Ok(Self {
                setup,
                connection,
                known: None,
            })
        }))
    }

    /// Every row as a record, by id; one that cannot even be read is a fault beside its id.
    pub fn list(
        &mut self,
        mut each: impl FnMut(Result<Map<String, Json>, (String, String)>),
    ) -> Result<(), RowsError> {
        let statement = format!("SELECT * FROM {} ORDER BY `id`", self.setup.table_quoted);
        let rows = self.connection.exec_iter(statement, ());
        let rows = rows.map_err(|error| down(&error, &self.setup))?;
        for row in rows {
            let row = row.map_err(|error| down(&error, &self.setup))?;
            let id = row::text(&row, "id").unwrap_or_default();
            each(row::record(&row).map_err(|fault| (id, fault)));
        }
        Ok(())
    }

    /// The row of an id.
    pub fn read(&mut self, id: &str) -> Result<Option<Map<String, Json>>, RowsError> {
        let table = &self.setup.table_quoted;
        let statement = format!("SELECT * FROM {table} WHERE `id` = ?");
        let rows = self.connection.exec_iter(statement, (id,));
        let rows = rows.map_err(|error| down(&error, &self.setup))?;
        let mut found = None;
        for row in rows {
            let row = row.map_err(|error| down(&error, &self.setup))?;
            if row::text(&row, "id").is_some_and(|text| text == id) {
                let faults = |fault| StoreError::Malformed {
                    id: id.to_owned(),
                    faults: vec![fault],
                    stand_in: None,
                };
                found = Some(row::record(&row).map_err(faults)?);
            }
        }
        Ok(found)
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
            values.push(column.value(value)?);
        }
        let left = columns
            .iter()
            .filter(|it| it.is_required && !given.contains_key(it.key));
        for column in left {
            if let Some(value) = resolved.get(column.key) {
                names.push(quoted(&column.name));
                values.push(column.value(value)?);
            }
        }
        let marks = vec!["?"; names.len()].join(", ");
        let (table, names) = (&self.setup.table_quoted, names.join(", "));
        let statement = format!("INSERT INTO {table} ({names}) VALUES ({marks})");
        self.write(&statement, values)
    }

    /// Changes columns of the row of an id; null is the column's NULL.
    pub fn update(&mut self, id: &str, changes: &Map<String, Json>) -> Result<(), RowsError> {
        let columns = self.columns()?;
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (key, value) in changes {
            let column = self.column(&columns, key)?;
            names.push(format!("{} = ?", quoted(&column.name)));
            values.push(column.value(value)?);
        }
        let (table, names) = (&self.setup.table_quoted, names.join(", "));
        let statement = format!("UPDATE {table} SET {names} WHERE {THIS_ID}");
        values.extend([Value::from(id), Value::from(id)]);
        self.write(&statement, values)
    }

    /// What is written from now on is kept with `commit`, or not at all.
    pub fn begin(&mut self) -> Result<(), RowsError> {
        self.known = Some(self.columns()?);
        self.order("START TRANSACTION")
    }

    /// Keeps what was written since `begin`.
    pub fn commit(&mut self) -> Result<(), RowsError> {
        self.known = None;
        self.order("COMMIT")
    }

    pub fn remove(&mut self, id: &str) -> Result<(), RowsError> {
        let statement = format!("DELETE FROM {} WHERE {THIS_ID}", self.setup.table_quoted);
        self.write(&statement, vec![Value::from(id), Value::from(id)])
    }

    pub(in super::super) fn make(&mut self) -> Result<(), RowsError> {
        let statement = self.table();
        self.order(&statement)
    }

    /// The server looks at the rights that a statement needs when it prepares it (MariaDB; MySQL at some). Of a
    /// change of the table it does not.
    pub(in super::super) fn rehearse(&mut self, write: Write) -> Result<(), RowsError> {
        let table = &self.setup.table_quoted;
        let statement = match write {
            Write::Table => self.table(),
            Write::Columns => return Ok(()),
            Write::NewApps => format!("INSERT INTO {table} (`id`) VALUES (?)"),
            Write::ChangedApps => format!("UPDATE {table} SET `secret` = ? WHERE `id` = ?"),
        };
        match self.connection.prep(statement) {
            Ok(_) => Ok(()),
            Err(error) if fault::is_of_no_prepare(&error) => Ok(()),
            Err(error) => Err(down(&error, &self.setup)),
        }
    }

    /// The statement that makes it.
    fn table(&self) -> String {
        let columns = COLUMNS.map(|it| format!("  {} {}", quoted(it.name), definition(it.kind)));
        let (table, columns) = (&self.setup.table_quoted, columns.join(",\n"));
        format!(
            "CREATE TABLE {table} (\n{columns}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 \
             COLLATE=utf8mb4_bin"
        )
    }

    pub(in super::super) fn look(&mut self) -> Result<Standing, RowsError> {
        let table = self.setup.table_quoted.clone();
        let probe = format!("SELECT * FROM {table} LIMIT 0");
        match self.connection.exec_drop(probe, ()) {
            Ok(()) => {}
            Err(error) if fault::is_of_no_table(&error) => return Ok(Standing::Missing),
            Err(error) => return Err(down(&error, &self.setup)),
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
        self.order(statement)
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
        let (database, table) = match self.setup.table.split_once('.') {
            Some((database, table)) => (database, table),
            None => (&*self.setup.database, &*self.setup.table),
        };
        let rows: Result<Vec<mysql::Row>, _> = self.connection.exec(
            "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT IS NULL \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? \
             ORDER BY ORDINAL_POSITION",
            (database, table),
        );
        let rows = rows.map_err(|error| down(&error, &self.setup))?;
        let column = |row: &mysql::Row| {
            let text = |at| match row.as_ref(at) {
                Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                _ => String::new(),
            };
            let name = text(0);
            let is_without_default = matches!(row.as_ref(3), Some(Value::Int(1)));
            Some(Column {
                key: app_key(&name)?,
                name,
                is_unsigned: text(1).contains("unsigned"),
                is_whole: text(1).contains("int"),
                is_required: text(2) == "NO" && is_without_default,
            })
        };
        Ok(rows.iter().filter_map(column).collect())
    }

    /// As text: MySQL prepares no `START TRANSACTION`.
    fn order(&mut self, statement: &str) -> Result<(), RowsError> {
        let done = self.connection.query_drop(statement);
        done.map_err(|error| down(&error, &self.setup))
    }

    fn write(&mut self, statement: &str, values: Vec<Value>) -> Result<(), RowsError> {
        match self.connection.exec_drop(statement, values) {
            Ok(()) => Ok(()),
            Err(error) if fault::is_of_a_double(&error) => Err(RowsError::Taken),
            Err(error) => Err(down(&error, &self.setup)),
        }
    }
}

impl Column {
    fn value(&self, value: &Json) -> Result<Value, RowsError> {
        Ok(match value {
            Json::Null => Value::NULL,
            Json::Bool(flag) => Value::Int((*flag).into()),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) if number < 0 && self.is_unsigned => {
                    return Err(RowsError::Unsigned(self.name.clone()));
                }
                (Some(number), _) => Value::Int(number),
                (None, Some(number)) => Value::UInt(number),
                (None, None) if self.is_whole => {
                    return Err(RowsError::Fraction(self.name.clone()));
                }
                (None, None) => Value::from(number.as_f64()),
            },
            Json::String(text) => Value::from(text),
            Json::Array(_) | Json::Object(_) => Value::from(value.to_string()),
        })
    }
}

fn down(error: &mysql::Error, setup: &MysqlSetup) -> RowsError {
    StoreError::Down(fault::sentence(error, setup), fault::kind(error, setup)).into()
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

const STRICT: &str = "SET SESSION sql_mode = CONCAT_WS(',', @@sql_mode, 'STRICT_ALL_TABLES')";

/// The first half finds the row by the index, the second knows it from those that are only alike.
const THIS_ID: &str =
    "`id` = ? AND CAST(CONVERT(`id` USING utf8mb4) AS BINARY) = CAST(? AS BINARY)";

/// How a table says what a column holds.
const fn definition(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "VARCHAR(255) NOT NULL PRIMARY KEY",
        Kind::Key => "VARCHAR(255) NOT NULL UNIQUE",
        Kind::Text => "VARCHAR(255) NOT NULL",
        Kind::Count => "INT UNSIGNED NOT NULL",
        Kind::CountOrNone => "INT UNSIGNED NULL",
        Kind::Flag(true) => "BOOLEAN NOT NULL DEFAULT TRUE",
        Kind::Flag(false) => "BOOLEAN NOT NULL DEFAULT FALSE",
        Kind::FlagOrNone => "BOOLEAN NULL",
        Kind::List => "JSON NULL",
        Kind::CreatedAt => "TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP",
        Kind::UpdatedAt => "TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
    }
}
