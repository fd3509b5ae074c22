//! A row as a record: columns as members, NULL left out.
//!
//! Owns: what each type of a column is in JSON.
//! May depend on: `config::app_key`, the crate `mysql`, `serde_json`.
//! Invariants: no value of a row is converted by anything that panics; a text that is no UTF-8 is
//! never mended.

use mysql::{Row, Value, consts::ColumnType};
use serde_json::{Map, Number, Value as Json};

use crate::config::app_key;

/// The columns that say something about an app; or the fault of one, behind its name.
pub(super) fn record(row: &Row) -> Result<Map<String, Json>, String> {
    let mut record = Map::new();
    for (at, column) in row.columns_ref().iter().enumerate() {
        let name = column.name_str();
        let value = row.as_ref(at).unwrap_or(&Value::NULL);
        if *value == Value::NULL || app_key(&name).is_none() {
            continue;
        }
        match json(value, column.column_type()) {
            Ok(json) => _ = record.insert(name.into_owned(), json),
            Err(fault) => return Err(format!("{name}: {fault}")),
        }
    }
    Ok(record)
}

/// The text of one column; a number's digits are one too.
pub(super) fn text(row: &Row, name: &str) -> Option<String> {
    let mut columns = row.columns_ref().iter();
    let at = columns.position(|column| column.name_str().eq_ignore_ascii_case(name))?;
    match row.as_ref(at)? {
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::NULL | Value::Float(_) | Value::Double(_) | Value::Date(..) | Value::Time(..) => {
            None
        }
    }
}

fn json(value: &Value, column: ColumnType) -> Result<Json, &'static str> {
    let float = |number: f64| {
        Number::from_f64(number)
            .map(Json::Number)
            .ok_or("is no number")
    };
    match value {
        Value::NULL => Ok(Json::Null),
        Value::Int(number) => Ok((*number).into()),
        Value::UInt(number) => Ok((*number).into()),
        Value::Float(number) => float((*number).into()),
        Value::Double(number) => float(*number),
        Value::Bytes(bytes) if column == ColumnType::MYSQL_TYPE_BIT => bits(bytes),
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "is no UTF-8")?;
            match DECIMAL.contains(&column) {
                true => float(text.parse().map_err(|_| "is no number")?),
                false => Ok(text.into()),
            }
        }
        Value::Date(..) | Value::Time(..) => Err("is a date"),
    }
}

/// BIT(n) comes as bytes, the highest first.
fn bits(bytes: &[u8]) -> Result<Json, &'static str> {
    if bytes.len() > size_of::<u64>() {
        return Err("is too wide");
    }
    let number = bytes
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Ok(number.into())
}

const DECIMAL: [ColumnType; 2] = [
    ColumnType::MYSQL_TYPE_DECIMAL,
    ColumnType::MYSQL_TYPE_NEWDECIMAL,
];
