//! The table of apps: what is asked, and rows as apps.
//!
//! Owns: the statements that read, and a row as a record.
//! May depend on: `pgsql::setup`, `config`, `serde_json`, the crate `tokio-postgres`.
//! Invariants: no value stands in a statement's text; a row is taken only if its key or id is byte for byte
//! one that was asked for; a row of more than `ROW_BYTES_MAX` does not come over.
//!
//! The database says a whole row as JSON: a column that is missing is as good as NULL, one that an operator adds
//! counts from the next question on, and other spellings and types of a column need no list here.

use serde_json::{Map, Value as Json};
use tokio_postgres::Row;

use super::{
    super::found::{self, Found, ROW_BYTES_MAX},
    setup::PgsqlSetup,
};
use crate::config::{AppDefaults, app_key};

/// The rows whose column is a value, or that the database takes for it.
pub(super) fn by(column: &str, setup: &PgsqlSetup) -> String {
    where_(&format!("t.{column} = $1 LIMIT {ALIKE_MAX}"), setup)
}

/// The rows whose id is in an array.
pub(super) fn by_ids(setup: &PgsqlSetup) -> String {
    where_("t.id = ANY($1)", setup)
}

/// All rows, by id.
pub(super) fn all(setup: &PgsqlSetup) -> String {
    where_("true ORDER BY t.id", setup)
}

/// Texts that a fixed width fills up with blanks come without them.
fn where_(condition: &str, setup: &PgsqlSetup) -> String {
    let table = &setup.table_quoted;
    format!(
        "SELECT r.id, r.key, CASE WHEN octet_length(r.record) <= {ROW_BYTES_MAX} THEN r.record END \
         FROM (SELECT t.id::text AS id, t.key::text AS key, to_jsonb(t)::text AS record \
         FROM {table} t WHERE {condition}) r"
    )
}

/// Those rows whose column is one of the wanted.
pub(super) fn apps(
    rows: &[Row],
    column: &str,
    wanted: &[&str],
    defaults: &AppDefaults,
) -> Vec<Found> {
    let at = usize::from(column == "key");
    let is_wanted = |row: &&Row| text(row, at).is_some_and(|text| wanted.contains(&text));
    let rows = rows.iter().filter(is_wanted);
    rows.map(|row| found::app(id(row), record(row), defaults))
        .collect()
}

/// The id of a row; nothing if it cannot be read.
pub(super) fn id(row: &Row) -> &str {
    text(row, 0).unwrap_or_default()
}

/// The columns that say something about an app; or why they cannot be read.
pub(super) fn record(row: &Row) -> Result<Map<String, Json>, String> {
    let record: Option<&str> = row
        .try_get(2)
        .map_err(|_| "the row is no UTF-8".to_owned())?;
    let record = record.ok_or_else(|| format!("the row has more than {ROW_BYTES_MAX} bytes"))?;
    let record: Map<String, Json> =
        serde_json::from_str(record).map_err(|error| format!("the row is no JSON: {error}"))?;
    let mut record: Map<String, Json> = record
        .into_iter()
        .filter(|(name, value)| !value.is_null() && app_key(name).is_some())
        .collect();
    for (at, name) in ["id", "key"].into_iter().enumerate() {
        if let Some(text) = text(row, at) {
            record.insert(name.to_owned(), text.into());
        }
    }
    Ok(record)
}

fn text(row: &Row, at: usize) -> Option<&str> {
    row.try_get(at).ok().flatten()
}

/// Texts as the database's own text of an array.
pub(super) fn array(texts: &[&str]) -> String {
    let quoted = texts.iter().map(|text| {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{escaped}\"")
    });
    let quoted: Vec<String> = quoted.collect();
    format!("{{{}}}", quoted.join(","))
}

/// Rows that the database thinks equal to one name; the table's unique index allows one.
const ALIKE_MAX: usize = 64;
