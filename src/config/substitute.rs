//! `${VAR}` and `${VAR:-default}` in a file's texts.
//!
//! Owns: the replacement of variables in a tree.
//! May depend on: `tree`, `error`; the variables are an argument.
//! Invariants: a replaced text keeps what was written, so that an error can show that instead.

use super::environment::Variables;
use super::error::{Fault, Report};
use super::origin::Origin;
use super::tree::{Node, Value};

/// Replaces the variables in every text below `node`.
pub(super) fn substitute(
    node: &mut Node,
    path: &str,
    source: &Origin,
    variables: &Variables,
    report: &mut Report,
) {
    let line = node.line;
    match &mut node.value {
        Value::Null | Value::Flag(_) | Value::Number(_) => {}
        Value::Text(text) => match substituted(text, variables) {
            Ok(None) => {}
            Ok(Some(replaced)) => node.written = Some(std::mem::replace(text, replaced)),
            Err(fault) => report.error(&source.at_line(line), path, fault),
        },
        Value::List(nodes) => {
            for (index, node) in nodes.iter_mut().enumerate() {
                substitute(node, &format!("{path}[{index}]"), source, variables, report);
            }
        }
        Value::Object(members) => {
            for member in members {
                let path = match path {
                    "" => member.name.clone(),
                    _ => format!("{path}.{}", member.name),
                };
                substitute(&mut member.node, &path, source, variables, report);
            }
        }
    }
}

/// The text with its variables replaced, or `None` where it has none.
fn substituted(text: &str, variables: &Variables) -> Result<Option<String>, Fault> {
    let mut out = String::new();
    let mut rest = text;
    let mut replaced = false;
    while let Some(start) = rest.find("${") {
        let after = &rest[start + 2..];
        let Some(end) = after.find('}') else { break };
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        out.push_str(&rest[..start]);
        rest = &after[end + 1..];
        if !is_variable_name(name) {
            // Not ours: a secret may well hold "${!}".
            out.push_str("${");
            out.push_str(&after[..=end]);
            continue;
        }
        // As in a shell: `:-` also covers a variable that is set but empty.
        match (
            variables
                .value(name)
                .filter(|v| default.is_none() || !v.is_empty()),
            default,
        ) {
            (Some(value), _) => out.push_str(value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(Fault::VariableUnset {
                    variable: name.to_owned(),
                });
            }
        }
        replaced = true;
    }
    out.push_str(rest);
    Ok(replaced.then_some(out))
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_a_shell_would() {
        let variables = Variables::of(&[("A", "1"), ("EMPTY", "")]);
        for (text, expected) in [
            ("plain", Ok(None)),
            ("${A}", Ok(Some("1"))),
            ("x${A}y${A}z", Ok(Some("x1y1z"))),
            ("${EMPTY}", Ok(Some(""))),
            ("${EMPTY:-d}", Ok(Some("d"))),
            ("${NONE:-}", Ok(Some(""))),
            ("${NONE:-a:-b}", Ok(Some("a:-b"))),
            ("${A", Ok(None)),
            ("${!}${A}", Ok(Some("${!}1"))),
            ("${NONE}", Err(())),
        ] {
            let found = substituted(text, &variables).map_err(|_| ());
            assert_eq!(
                found,
                expected.map(|some| some.map(str::to_owned)),
                "{text}"
            );
        }
    }
}
