//! The forms in which others write a configuration: JSON, a JavaScript module, TOML, variables, PHP.
//!
//! Owns: telling them apart, and the lines of a `.env` that is only in part about us.
//! May depend on: `json`, `toml`, `dotenv`.
//! Invariants: lines keep their numbers; an error names line and variable, never a value.

use std::sync::Arc;

use super::{Text, refusal};
use crate::config::dotenv::{self, Line};
use crate::config::environment::Variables;
use crate::config::error::{ConfigError, Fault};
use crate::config::origin::Origin;
use crate::config::tree::{Member, Node, Value};
use crate::config::{json, toml};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// `module.exports = {…}`.
    Module,
    Toml,
    Variables,
    Php,
}

/// Told by how the text begins.
pub(super) fn form_of(text: &str) -> Form {
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().map(str::trim);
    let Some(first) = lines.find(|line| !is_comment(line)) else {
        return Form::Variables;
    };
    if first.starts_with("<?php") || first.starts_with("return [") {
        Form::Php
    } else if first.starts_with('{') || first.starts_with('[') && !is_table_head(first) {
        Form::Json
    } else if MODULE_HEADS.iter().any(|head| first.starts_with(head)) {
        Form::Module
    } else if first.split_once('=').is_some_and(|(name, _)| {
        let name = name.trim_end().trim_start_matches("export ");
        !name.is_empty() && !name.contains(|c: char| c.is_ascii_lowercase() || c.is_whitespace())
    }) {
        Form::Variables
    } else {
        Form::Toml
    }
}

fn is_comment(line: &str) -> bool {
    let starts = ["#", "//", "/*", "*"];
    line.is_empty() || starts.iter().any(|start| line.starts_with(start))
}

fn is_table_head(line: &str) -> bool {
    line.trim_matches(['[', ']'])
        .starts_with(|c: char| c.is_ascii_alphabetic())
        && line.ends_with(']')
}

const MODULE_HEADS: [&str; 2] = ["module.exports", "export default"];

pub(super) fn source(text: Text<'_>) -> Origin {
    Origin::File {
        path: Arc::from(text.name),
        line: 1,
    }
}

/// The members of a file of JSON or TOML, or of a JavaScript module that holds only values.
pub(super) fn members(text: Text<'_>) -> Result<Vec<Member>, ConfigError> {
    let parsed = match form_of(text.text) {
        Form::Json => json::parse(text.text),
        Form::Module => json::parse_loose(&without_head(text.text)),
        Form::Toml => toml::parse(text.text),
        Form::Variables | Form::Php => Err((1, not(OBJECT_WANTED))),
    };
    let wrong = |(line, fault)| refusal(&source(text).at_line(line), fault);
    let Node { value, line, .. } = parsed.map_err(wrong)?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(wrong((line, not(OBJECT_WANTED)))),
    }
}

const OBJECT_WANTED: &str = "an object of keys is wanted here";

pub(super) fn not(message: &str) -> Fault {
    Fault::Syntax {
        format: "configuration",
        message: message.to_owned(),
    }
}

/// The object that a module exports, its lines where they were.
fn without_head(text: &str) -> String {
    let head = MODULE_HEADS.iter().filter_map(|head| {
        let at = text.find(head)?;
        Some(at + head.len())
    });
    let from = head.min().unwrap_or_default();
    let object = text.get(from..).unwrap_or_default();
    let object = object.trim_start().trim_start_matches('=');
    let lines = text.len() - object.len();
    let breaks = text.get(..lines).unwrap_or_default().matches('\n').count();
    let object = object.trim_end().trim_end_matches(';');
    format!("{}{object}", "\n".repeat(breaks))
}

/// The lines of a `.env`. One that is not about a `wanted` name may be anything.
pub(super) fn lines(
    text: Text<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Line>, ConfigError> {
    let mut all: Vec<Line> = Vec::new();
    for (number, line) in (1..).zip(text.text.trim_start_matches('\u{feff}').lines()) {
        let name = line.trim().trim_start_matches("export ");
        let name = name.split_once('=').map_or("", |(name, _)| name.trim());
        match dotenv::parse(line) {
            Ok(mut parsed) => {
                for found in &mut parsed {
                    found.line = number;
                    found.value = expanded(&found.value, &all);
                }
                all.append(&mut parsed);
            }
            Err((_, fault)) if wanted(name) => {
                return Err(refusal(&source(text).at_line(number), fault));
            }
            Err(_) => {}
        }
    }
    Ok(all)
}

/// `${NAME}` of a name that stands above.
fn expanded(value: &str, above: &[Line]) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let named = after.split_once('}').and_then(|(name, end)| {
            let line = above.iter().rev().find(|line| line.name == name)?;
            Some((line, end))
        });
        match named {
            Some((line, end)) => {
                out.push_str(&line.value);
                rest = end;
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out + rest
}

/// The `wanted` variables of a `.env`.
pub(super) fn variables(
    text: Text<'_>,
    wanted: impl Fn(&str) -> bool,
) -> Result<Variables, ConfigError> {
    let mut variables = Variables::default();
    let lines = lines(text, &wanted)?;
    let lines = lines.into_iter().filter(|line| wanted(&line.name));
    variables.add_file(&Arc::from(text.name), lines.collect());
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_told_by_its_first_line() {
        for (text, form) in [
            ("{\"port\": 1}", Form::Json),
            ("\u{feff}\n{", Form::Json),
            ("// c\nmodule.exports = {", Form::Module),
            ("export default {", Form::Module),
            ("<?php\nreturn [", Form::Php),
            ("return [", Form::Php),
            ("# c\nA_B=1", Form::Variables),
            ("export A_B=1", Form::Variables),
            ("", Form::Variables),
            ("port = 1", Form::Toml),
            ("[adapter]", Form::Toml),
            ("[[app_manager.array.apps]]", Form::Toml),
        ] {
            assert_eq!(form_of(text), form, "{text:?}");
        }
    }

    #[test]
    fn a_line_about_others_may_be_anything_and_names_above_are_filled_in() {
        let text = Text {
            name: ".env",
            text: "KEY=\"-----BEGIN\nabc\n-----END\"\nHOST=h\nREVERB_HOST=\"${HOST}:${NONE}\"\n",
        };
        let found = lines(text, |name| name.starts_with("REVERB_")).expect("an env file");
        let last = found.last().expect("a line");
        assert_eq!((&*last.value, last.line), ("h:${NONE}", 5));
        let text = Text {
            name: ".env",
            text: "A=1\nREVERB_KEY='open",
        };
        let error = lines(text, |name| name.starts_with("REVERB_")).expect_err("an open quote");
        assert_eq!(
            error.to_string(),
            ".env:2: not valid env file: a quote is not closed"
        );
    }
}
