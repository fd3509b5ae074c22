//! TOML text to the same tree as JSON.
//!
//! Owns: reading TOML and finding the line of each value.
//! May depend on: `toml_edit` (its document keeps positions), `tree`, `error`.
//! Invariants: a date, which no key takes, is refused here.

use toml_edit::{Document, Item, TableLike};

use super::error::Fault;
use super::tree::{Lines, Member, Node, Value};

/// Reads `text`; an error names the line it was found in.
pub(super) fn parse(text: &str) -> Result<Node, (u32, Fault)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    let document = Document::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| lines.line(span.start));
        (line, syntax(error.message().to_owned()))
    })?;
    Ok(Node::new(
        Value::Object(members(&lines, document.as_table(), 1)?),
        1,
    ))
}

fn members(
    lines: &Lines,
    table: &dyn TableLike,
    table_line: u32,
) -> Result<Vec<Member>, (u32, Fault)> {
    let mut members = Vec::with_capacity(table.len());
    for (name, item) in table.iter() {
        let span = table.key(name).and_then(|key| key.span());
        let line = span.map_or(table_line, |span| lines.line(span.start));
        members.push(Member {
            name: name.to_owned(),
            line,
            node: item_node(lines, item, line)?,
        });
    }
    Ok(members)
}

fn item_node(lines: &Lines, item: &Item, line: u32) -> Result<Node, (u32, Fault)> {
    let value = match item {
        Item::None => Value::Null,
        Item::Value(value) => return value_node(lines, value, line),
        Item::Table(table) => Value::Object(members(lines, table, line)?),
        Item::ArrayOfTables(tables) => {
            let mut nodes = Vec::with_capacity(tables.len());
            for table in tables {
                let line = table.span().map_or(line, |span| lines.line(span.start));
                nodes.push(Node::new(Value::Object(members(lines, table, line)?), line));
            }
            Value::List(nodes)
        }
    };
    Ok(Node::new(value, line))
}

fn value_node(lines: &Lines, value: &toml_edit::Value, line: u32) -> Result<Node, (u32, Fault)> {
    let line = value.span().map_or(line, |span| lines.line(span.start));
    let value = match value {
        toml_edit::Value::String(text) => Value::Text(text.value().clone()),
        toml_edit::Value::Integer(number) => Value::Number(number.value().to_string()),
        toml_edit::Value::Float(number) => Value::Number(number.value().to_string()),
        toml_edit::Value::Boolean(flag) => Value::Flag(*flag.value()),
        toml_edit::Value::Datetime(_) => {
            return Err((line, syntax("no key takes a date or time".to_owned())));
        }
        toml_edit::Value::Array(array) => Value::List(
            array
                .iter()
                .map(|value| value_node(lines, value, line))
                .collect::<Result<_, _>>()?,
        ),
        toml_edit::Value::InlineTable(table) => Value::Object(members(lines, table, line)?),
    };
    Ok(Node::new(value, line))
}

fn syntax(message: String) -> Fault {
    Fault::Syntax {
        format: "TOML",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_toml_gives_the_same_tree_as_json() {
        let text = "port = 6001\n[adapter.redis]\nprefix = \"x\"\n\n[[app_manager.array.apps]]\n\
                    id = \"a\"\nwebhooks = [\n  { url = \"u\" },\n]\n";
        let node = parse(text).expect("TOML");
        let Value::Object(members) = &node.value else {
            panic!("an object was written")
        };
        let names: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.line)).collect();
        assert_eq!(names, [("port", 1), ("adapter", 2), ("app_manager", 5)]);
        let Value::Object(array) = &members[2].node.value else {
            panic!("a table was written")
        };
        let Value::Object(apps) = &array[0].node.value else {
            panic!("a table was written")
        };
        let Value::List(apps) = &apps[0].node.value else {
            panic!("a list was written")
        };
        let Value::Object(app) = &apps[0].value else {
            panic!("a table was written")
        };
        assert_eq!((app[0].line, app[1].line), (6, 7));
        let Value::List(hooks) = &app[1].node.value else {
            panic!("a list was written")
        };
        assert_eq!(hooks[0].line, 8);
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        for (text, line) in [
            ("port = 1\nhost = ", 2),
            ("port = 1\nport = 2", 2),
            ("a = 1\nb = 2026-01-01\n", 2),
        ] {
            let (found_line, fault) = parse(text).expect_err(text);
            assert_eq!(found_line, line, "{text:?}: {fault}");
        }
    }
}
