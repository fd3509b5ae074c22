//! An item as a record, and a record as the attributes of an item.
//!
//! Owns: `Item`: what each type of an attribute is in JSON, and the names of both layouts.
//! May depend on: `dynamodb::setup`, `config::app_key`, `serde_json`, the crate `aws-sdk-dynamodb`.
//! Invariants: an attribute that cannot be read is a fault of its item, never of another one.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Number, Value as Json};

use super::setup::Names;
use crate::config::{app_key, sections::DynamodbLayout};

#[derive(Debug)]
pub(super) struct Item {
    names: Names,
    attributes: Vec<(String, AttributeValue)>,
}

impl Item {
    pub(super) fn of(
        attributes: impl IntoIterator<Item = (String, AttributeValue)>,
        names: Names,
    ) -> Self {
        Self {
            names,
            attributes: attributes.into_iter().collect(),
        }
    }

    /// The text of one attribute; a number's digits are one too.
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        match attributes.find(|(name, _)| name == attribute) {
            Some((_, AttributeValue::S(text) | AttributeValue::N(text))) => Some(text),
            _ => None,
        }
    }

    /// Nothing if it cannot be read.
    pub(super) fn id(&self) -> &str {
        self.text(self.names.id).unwrap_or_default()
    }

    /// The attributes that say something about an app; or the fault of one, behind its name.
    pub(super) fn record(&self) -> Result<Map<String, Json>, String> {
        let mut record = Map::new();
        for (attribute, value) in &self.attributes {
            let name = self.names.member(attribute);
            if app_key(name).is_none() {
                continue;
            }
            match json(value, DEPTH_MAX) {
                Ok(Json::Null) => {}
                Ok(json) => _ = record.insert(name.to_owned(), json),
                Err(fault) => return Err(format!("{attribute}: {fault}")),
            }
        }
        Ok(record)
    }
}

impl Names {
    /// What an attribute is called in a record.
    fn member(self, attribute: &str) -> &str {
        match (self.layout, attribute) {
            (DynamodbLayout::Soketi, "AppId") => "id",
            (DynamodbLayout::Soketi, "AppKey") => "key",
            (DynamodbLayout::Soketi, "AppSecret") => "secret",
            _ => attribute,
        }
    }

    /// What a key of an app is called in an item.
    pub(super) fn attribute(self, key: &str) -> String {
        match (self.layout, key) {
            (DynamodbLayout::Sockudo, _) => key.to_owned(),
            (DynamodbLayout::Soketi, "id" | "key" | "secret") => format!("App{}", pascal(key)),
            (DynamodbLayout::Soketi, _) => pascal(key),
        }
    }
}

fn pascal(key: &str) -> String {
    let words = key.split('_').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the service may have other types one day; none of them says anything about an app"
)]
fn json(value: &AttributeValue, depth: usize) -> Result<Json, &'static str> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err("is nested too deep");
    };
    let texts = |texts: &[String]| Json::from_iter(texts.iter().cloned());
    Ok(match value {
        AttributeValue::Null(_) => Json::Null,
        AttributeValue::Bool(flag) => (*flag).into(),
        AttributeValue::S(text) => text.clone().into(),
        AttributeValue::N(digits) => number(digits)?,
        AttributeValue::Ss(elements) => texts(elements),
        AttributeValue::Ns(elements) => texts(elements),
        AttributeValue::L(elements) => {
            let elements = elements.iter().map(|element| json(element, depth));
            Json::Array(elements.collect::<Result<_, _>>()?)
        }
        AttributeValue::M(members) => {
            let member = |(name, value): (&String, &AttributeValue)| {
                json(value, depth).map(|value| (name.clone(), value))
            };
            Json::Object(members.iter().map(member).collect::<Result<_, _>>()?)
        }
        _ => return Err("is of a type that nothing about an app has"),
    })
}

/// The service says numbers as `1E+6`, `25.00`, or as digits.
fn number(digits: &str) -> Result<Json, &'static str> {
    if let Ok(whole) = digits.parse::<i64>() {
        return Ok(whole.into());
    }
    let float = digits.parse::<f64>().ok().and_then(Number::from_f64);
    float.map(Json::Number).ok_or("is no number")
}

/// The value of a key as Sockudo 2.9 reads it: webhooks as a text of JSON, other lists as lists. `None` takes it away.
pub(super) fn value(key: &str, value: &Json) -> Option<AttributeValue> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(flag) => AttributeValue::Bool(*flag),
        Json::Number(number) => AttributeValue::N(number.to_string()),
        Json::String(text) => AttributeValue::S(text.clone()),
        Json::Array(elements) if key != "webhooks" => {
            let text = |element: &Json| {
                let text = element.as_str().map(str::to_owned);
                AttributeValue::S(text.unwrap_or_else(|| element.to_string()))
            };
            AttributeValue::L(elements.iter().map(text).collect())
        }
        Json::Array(_) | Json::Object(_) => AttributeValue::S(value.to_string()),
    })
}

/// Of lists in maps; a webhook's headers are the fourth.
const DEPTH_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_however_the_service_says_them() {
        for (digits, wanted) in [
            ("7", json!(7)),
            ("-1", json!(-1)),
            ("1E+6", json!(1e6)),
            ("25.00", json!(25.0)),
            ("9007199254740993", json!(9_007_199_254_740_993_i64)),
        ] {
            assert_eq!(number(digits), Ok(wanted), "{digits}");
        }
        for digits in ["", "x", "1E+999", "NaN"] {
            assert_eq!(number(digits), Err("is no number"), "{digits}");
        }
    }

    #[test]
    fn a_list_in_a_list_without_end_is_a_fault_and_no_overflow() {
        let mut value = AttributeValue::L(Vec::new());
        for _ in 0..100 {
            value = AttributeValue::L(vec![value]);
        }
        assert_eq!(json(&value, DEPTH_MAX), Err("is nested too deep"));
    }
}
