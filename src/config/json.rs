//! JSON text to a tree with lines.
//!
//! Owns: reading strict JSON: no comments, no trailing commas, no name twice in an object.
//! May depend on: `jsonc-parser` (its tree keeps positions), `tree`, `error`.
//! Invariants: what this accepts, every JSON parser accepts.

use jsonc_parser::{CollectOptions, ParseOptions, ast, common::Ranged, parse_to_ast};

use super::error::Fault;
use super::tree::{Lines, Member, Node, Value};

/// Reads `text`; an error names the line it was found in.
pub(super) fn parse(text: &str) -> Result<Node, (u32, Fault)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        let line = u32::try_from(error.line_display()).unwrap_or(u32::MAX);
        (
            line,
            syntax(format!(
                "{} (column {})",
                error.kind(),
                error.column_display()
            )),
        )
    })?;
    match parsed.value {
        Some(value) => node(&Lines::of(text), &value),
        None => Err((1, syntax("the file is empty".to_owned()))),
    }
}

fn node(lines: &Lines, value: &ast::Value<'_>) -> Result<Node, (u32, Fault)> {
    let line = lines.line(value.range().start);
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(literal) => Value::Flag(literal.value),
        ast::Value::NumberLit(literal) => Value::Number(literal.value.to_owned()),
        ast::Value::StringLit(literal) => Value::Text(literal.value.as_ref().to_owned()),
        ast::Value::Array(array) => Value::List(
            array
                .elements
                .iter()
                .map(|element| node(lines, element))
                .collect::<Result<_, _>>()?,
        ),
        ast::Value::Object(object) => Value::Object(members(lines, object)?),
    };
    Ok(Node::new(value, line))
}

fn members(lines: &Lines, object: &ast::Object<'_>) -> Result<Vec<Member>, (u32, Fault)> {
    let mut members: Vec<Member> = Vec::with_capacity(object.properties.len());
    for property in &object.properties {
        let name = property.name.as_str();
        let line = lines.line(property.range.start);
        if members.iter().any(|member| member.name == name) {
            return Err((
                line,
                syntax(format!("{name:?} is given twice in one object")),
            ));
        }
        members.push(Member {
            name: name.to_owned(),
            line,
            node: node(lines, &property.value)?,
        });
    }
    Ok(members)
}

fn syntax(message: String) -> Fault {
    Fault::Syntax {
        format: "JSON",
        message,
    }
}

const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_strict_json_is_refused_with_its_line() {
        for (text, line, part) in [
            ("", 1, "empty"),
            ("{\n  \"port\": 1,\n}", 2, "Trailing commas"),
            ("{\n  // no\n  \"port\": 1 }", 2, "Comments"),
            ("{\"port\": 1\n\"host\": 2}", 1, "comma"),
            ("{\"port\":\n 0x10}", 2, "Hexadecimal"),
            ("{\"port\": 1", 1, "Unterminated object"),
            ("{\"a\": 1,\n\"a\": 2}", 2, "\"a\" is given twice"),
            ("{\"a\": 1} {}", 1, "more than one"),
        ] {
            let (found_line, fault) = parse(text).expect_err(text);
            assert_eq!(found_line, line, "{text:?}: {fault}");
            assert!(fault.to_string().contains(part), "{text:?}: {fault}");
        }
    }

    #[test]
    fn numbers_keep_their_digits_and_values_their_lines() {
        let node = parse("\u{feff}{\n \"a\": 18446744073709551615,\n \"b\": [true, null]}")
            .expect("strict JSON");
        let Value::Object(members) = node.value else {
            panic!("an object was written")
        };
        let [a, b] = &members[..] else {
            panic!("two members were written")
        };
        assert_eq!(
            a.node,
            Node::new(Value::Number("18446744073709551615".to_owned()), 2)
        );
        assert_eq!(b.line, 3);
    }
}
