//! Arrays of PHP, as far as they can be read without running PHP.
//!
//! Owns: the grammar: arrays, texts, numbers, `env('NAME', default)`, casts, `explode(',', …)`.
//! May depend on: `dotenv`'s lines.
//! Invariants: any other expression becomes `Php::Expression` and is stepped over; depth and
//! length are bounded; an error names its line, never a value.

use crate::config::dotenv::Line;
use crate::config::tree::{Node, Value};

/// A value and the line in which it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) value: Php,
    pub(super) line: u32,
    /// The variable that `env()` asked for.
    pub(super) variable: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Php {
    Null,
    Flag(bool),
    Number(String),
    Text(String),
    /// Keys in order; an element without one has none.
    Array(Vec<(Option<String>, Item)>),
    /// What only PHP can evaluate.
    Expression,
}

impl Item {
    fn new(value: Php, line: u32) -> Self {
        Self {
            value,
            line,
            variable: None,
        }
    }

    /// What stands under a key.
    pub(super) fn at(&self, name: &str) -> Option<&Self> {
        let Php::Array(items) = &self.value else {
            return None;
        };
        let mut found = items.iter().rev();
        found.find_map(|(key, item)| (key.as_deref() == Some(name)).then_some(item))
    }

    pub(super) fn elements(&self) -> &[(Option<String>, Self)] {
        match &self.value {
            Php::Array(items) => items,
            _ => &[],
        }
    }

    /// The value as our trees have it; nothing where it says nothing or cannot be known.
    pub(super) fn node(&self) -> Option<Node> {
        let value = match &self.value {
            Php::Null | Php::Expression => return None,
            Php::Flag(flag) => Value::Flag(*flag),
            Php::Number(digits) => Value::Number(digits.clone()),
            Php::Text(text) => Value::Text(text.clone()),
            Php::Array(items) => {
                Value::List(items.iter().filter_map(|(_, item)| item.node()).collect())
            }
        };
        Some(Node::new(value, self.line))
    }

    /// A single word, as a person would write it.
    pub(super) fn word(&self) -> Option<String> {
        match &self.value {
            Php::Flag(flag) => Some(flag.to_string()),
            Php::Number(text) | Php::Text(text) => Some(text.clone()),
            Php::Null | Php::Array(_) | Php::Expression => None,
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match &self.value {
            Php::Flag(flag) => *flag,
            Php::Number(text) | Php::Text(text) => !matches!(text.as_str(), "" | "0"),
            Php::Null | Php::Expression => false,
            Php::Array(items) => !items.is_empty(),
        }
    }
}

/// What was read, and which variables it asked for.
pub(super) struct Read {
    pub(super) array: Item,
    pub(super) asked: Vec<String>,
}

/// Reads the array that the file returns. A variable's line counts instead of the text's where
/// `text` is our own.
pub(super) fn read(text: &str, variables: &[Line], is_ours: bool) -> Result<Read, (u32, String)> {
    let mut reader = Reader {
        rest: text,
        line: 1,
        variables,
        is_ours,
        asked: Vec::new(),
    };
    if !reader.skip_to_return() {
        return Err((1, "it returns no array".to_owned()));
    }
    let array = reader.item(0)?;
    match array.value {
        Php::Array(_) => Ok(Read {
            array,
            asked: reader.asked,
        }),
        _ => Err((
            array.line,
            "it returns no array that can be read".to_owned(),
        )),
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    variables: &'a [Line],
    is_ours: bool,
    asked: Vec<String>,
}

type Fallible<T> = Result<T, (u32, String)>;

impl Reader<'_> {
    fn step(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        let breaks = passed.matches('\n').count();
        self.line = self
            .line
            .saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
        self.rest = rest;
    }

    /// Steps over white space and comments.
    fn space(&mut self) {
        loop {
            let blank = self.rest.len() - self.rest.trim_start().len();
            self.step(blank);
            let end = if self.rest.starts_with("/*") {
                self.rest.find("*/").map(|at| at + 2)
            } else if self.rest.starts_with("//") || self.rest.starts_with('#') {
                self.rest.find('\n')
            } else {
                return;
            };
            self.step(end.unwrap_or(self.rest.len()));
        }
    }

    /// Steps over `token`, if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        let is_next = self.rest.starts_with(token);
        if is_next {
            self.step(token.len());
        }
        is_next
    }

    /// The name that is next, if any.
    fn name(&mut self) -> Option<String> {
        self.space();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_\\".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let name = self.rest.get(..end)?;
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let name = name.to_owned();
        self.step(end);
        Some(name)
    }

    fn skip_to_return(&mut self) -> bool {
        loop {
            self.space();
            let Some(c) = self.rest.chars().next() else {
                return false;
            };
            if let Some(name) = self.name() {
                if name == "return" {
                    return true;
                }
            } else if c == '\'' || c == '"' {
                if self.text(c).is_err() {
                    return false;
                }
            } else {
                self.step(c.len_utf8());
            }
        }
    }

    /// One value up to the `,`, `)`, `]`, `=>` or `;` after it.
    fn item(&mut self, depth: u32) -> Fallible<Item> {
        if depth > DEPTH_MAX {
            return Err((self.line, "arrays are nested too deeply".to_owned()));
        }
        self.space();
        let line = self.line;
        let mut item = match self.simple(depth)? {
            Some(item) => item,
            None => Item::new(Php::Expression, line),
        };
        self.space();
        if !self.is_at_end_of_item() {
            self.skip_expression()?;
            item = Item::new(Php::Expression, line);
        }
        Ok(item)
    }

    fn is_at_end_of_item(&self) -> bool {
        let ends = [",", ")", "]", "=>", ";"];
        self.rest.is_empty() || ends.iter().any(|end| self.rest.starts_with(end))
    }

    /// A value that needs no PHP; `None` where it is of another kind.
    fn simple(&mut self, depth: u32) -> Fallible<Option<Item>> {
        let line = self.line;
        let Some(c) = self.rest.chars().next() else {
            return Err((line, "the file ends within an array".to_owned()));
        };
        let value = match c {
            '\'' | '"' => match self.text(c)? {
                Some(text) => Php::Text(text),
                None => Php::Expression,
            },
            '[' => {
                self.step(1);
                self.array("]", depth)?
            }
            '(' => return self.cast(depth),
            '-' | '+' | '0'..='9' => Php::Number(self.number()),
            _ => return self.named(depth),
        };
        Ok(Some(Item::new(value, line)))
    }

    /// `(int) …`, or a value in parentheses.
    fn cast(&mut self, depth: u32) -> Fallible<Option<Item>> {
        self.step(1);
        let before = (self.rest, self.line);
        let kind = self.name().map(|name| name.to_ascii_lowercase());
        let is_kind = kind.as_deref().is_some_and(|kind| CASTS.contains(&kind));
        if !is_kind || !self.take(")") {
            (self.rest, self.line) = before;
            let inner = self.item(depth + 1)?;
            return Ok(self.take(")").then_some(inner));
        }
        self.space();
        let Some(mut item) = self.simple(depth + 1)? else {
            return Ok(None);
        };
        let is_flag = kind.as_deref().is_some_and(|kind| kind.starts_with("bool"));
        if is_flag && item.value != Php::Expression {
            item.value = Php::Flag(item.is_true());
        }
        Ok(Some(item))
    }

    fn number(&mut self) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let digits = self.rest.get(..end).unwrap_or_default().replace('_', "");
        self.step(end);
        digits
    }

    fn named(&mut self, depth: u32) -> Fallible<Option<Item>> {
        let line = self.line;
        let Some(name) = self.name() else {
            return Ok(None);
        };
        let value = match name.to_ascii_lowercase().trim_start_matches('\\') {
            "null" => Php::Null,
            "true" => Php::Flag(true),
            "false" => Php::Flag(false),
            "array" if self.take("(") => self.array(")", depth)?,
            "env" if self.take("(") => return self.env(depth, line),
            "explode" if self.take("(") => return self.explode(depth, line),
            _ => return Ok(None),
        };
        Ok(Some(Item::new(value, line)))
    }

    fn array(&mut self, end: &str, depth: u32) -> Fallible<Php> {
        let mut items = Vec::new();
        loop {
            if self.take(end) {
                return Ok(Php::Array(items));
            }
            let first = self.item(depth + 1)?;
            if self.take("=>") {
                let mut value = self.item(depth + 1)?;
                while self.take("=>") {
                    // The value was the head of a short function, this is its body.
                    self.item(depth + 1)?;
                    value.value = Php::Expression;
                }
                items.push((first.word(), value));
            } else {
                items.push((None, first));
            }
            if !self.take(",") && !self.rest.starts_with(end) {
                return Err((self.line, format!("an array goes on without , or {end}")));
            }
        }
    }

    /// After `env(`: as Laravel reads a variable.
    fn env(&mut self, depth: u32, line: u32) -> Fallible<Option<Item>> {
        let name = self.item(depth + 1)?.word();
        let mut default = Item::new(Php::Null, line);
        if self.take(",") && !self.rest.trim_start().starts_with(')') {
            default = self.item(depth + 1)?;
            self.take(",");
        }
        let (true, Some(name)) = (self.take(")"), name) else {
            return Ok(None);
        };
        let set = self.variables.iter().rev().find(|line| line.name == name);
        let mut item = match set {
            Some(set) => {
                let line = if self.is_ours { set.line } else { line };
                Item::new(laravels(&set.value), line)
            }
            None => Item { line, ..default },
        };
        item.variable = Some(name.clone());
        self.asked.push(name);
        Ok(Some(item))
    }

    /// After `explode(`: texts between commas.
    fn explode(&mut self, depth: u32, line: u32) -> Fallible<Option<Item>> {
        let between = self.item(depth + 1)?.word();
        if !self.take(",") {
            return Ok(None);
        }
        let of = self.item(depth + 1)?;
        let (true, Some(between), Some(text)) = (self.take(")"), between, of.word()) else {
            return Ok(None);
        };
        if between.is_empty() {
            return Ok(None);
        }
        let parts = text.split(&between);
        let parts = parts.map(|part| (None, Item::new(Php::Text(part.trim().to_owned()), of.line)));
        Ok(Some(Item {
            variable: of.variable.clone(),
            ..Item::new(Php::Array(parts.collect()), line)
        }))
    }

    /// A quoted text; `None` where PHP would put a variable into it.
    fn text(&mut self, quote: char) -> Fallible<Option<String>> {
        let begun = self.line;
        self.step(1);
        let mut out = String::new();
        let mut is_plain = true;
        loop {
            let mut chars = self.rest.chars();
            let (c, next) = (chars.next(), chars.next());
            match (c, next) {
                (None, _) | (Some('\\'), None) => {
                    return Err((begun, "a quote is not closed".to_owned()));
                }
                (Some(c), _) if c == quote => {
                    self.step(1);
                    return Ok(is_plain.then_some(out));
                }
                (Some('\\'), Some(next)) => {
                    out.push_str(&unescaped(next, quote));
                    self.step(1 + next.len_utf8());
                }
                (Some(c), _) => {
                    is_plain &= !(c == '$' && quote == '"');
                    out.push(c);
                    self.step(c.len_utf8());
                }
            }
        }
    }

    /// Steps over what only PHP can read, to the end of the item.
    fn skip_expression(&mut self) -> Fallible<()> {
        let mut open: Vec<char> = Vec::new();
        loop {
            self.space();
            let Some(c) = self.rest.chars().next() else {
                return Err((self.line, "the file ends within an expression".to_owned()));
            };
            if open.is_empty() && self.is_at_end_of_item() {
                return Ok(());
            }
            match c {
                '\'' | '"' => {
                    self.text(c)?;
                    continue;
                }
                '(' | '[' | '{' => open.push(c),
                ')' | ']' | '}' => {
                    open.pop();
                }
                _ => {}
            }
            self.step(c.len_utf8());
        }
    }
}

const CASTS: [&str; 7] = [
    "int", "integer", "bool", "boolean", "string", "float", "array",
];
/// Of arrays within arrays; a configuration has six.
const DEPTH_MAX: u32 = 64;

fn unescaped(c: char, quote: char) -> String {
    match (quote, c) {
        (_, '\\') => "\\".to_owned(),
        (_, c) if c == quote => c.to_string(),
        ('"', 'n') => "\n".to_owned(),
        ('"', 't') => "\t".to_owned(),
        ('"', '$') => "$".to_owned(),
        (_, c) => format!("\\{c}"),
    }
}

/// The value of a variable as Laravel's `env()` gives it.
fn laravels(value: &str) -> Php {
    match value.to_ascii_lowercase().as_str() {
        "true" | "(true)" => Php::Flag(true),
        "false" | "(false)" => Php::Flag(false),
        "null" | "(null)" => Php::Null,
        "empty" | "(empty)" => Php::Text(String::new()),
        _ => Php::Text(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, value: &str) -> Line {
        Line {
            name: name.to_owned(),
            value: value.to_owned(),
            line: 7,
        }
    }

    #[test]
    fn values_are_read_and_expressions_stepped_over() {
        let text = r#"<?php
            use Some\Thing; // return ['x'];
            $note = 'return [1]';
            return [
                'a' => env('A', 'no'), "b" => (int) env('B', 10_000), 'c' => ['*', 'x',],
                'd' => array('e' => null, 'f' => TRUE),
                # comment, with ] and '
                'g' => env('G') === 'https', 'h' => fn () => [1, 2], /* ' */
                'i' => explode(',', env('I', '')), 'j' => "a $b", 'k' => 'it\'s',
                'l' => (bool) env('L', false), 'm' => Foo::bar('x', ['y']), 'n' => ('z'),
            ];"#;
        let variables = [line("A", "yes"), line("I", "p, q"), line("L", "true")];
        let read = read(text, &variables, false).expect("an array");
        let word = |name: &str| read.array.at(name).and_then(Item::word);
        let words = [
            ("a", Some("yes")),
            ("b", Some("10000")),
            ("g", None),
            ("h", None),
            ("j", None),
            ("k", Some("it's")),
            ("l", Some("true")),
            ("m", None),
            ("n", Some("z")),
        ];
        for (name, expected) in words {
            assert_eq!(word(name).as_deref(), expected, "{name}");
        }
        let count = |name: &str| read.array.at(name).map(|item| item.elements().len());
        assert_eq!(
            (count("c"), count("i"), count("d")),
            (Some(2), Some(2), Some(2))
        );
        let expression = |name: &str| read.array.at(name).map(|item| &item.value);
        assert_eq!(expression("m"), Some(&Php::Expression));
        assert_eq!(expression("g"), Some(&Php::Expression));
        assert_eq!(read.array.at("a").map(|item| item.line), Some(5));
        assert_eq!(read.asked, ["A", "B", "G", "I", "L"]);
    }

    #[test]
    fn what_is_no_array_is_refused_with_its_line() {
        let deep = format!("return {}", "[".repeat(10_000));
        for (text, line, part) in [
            ("", 1, "returns no array"),
            ("<?php\n$x = 1;", 1, "returns no array"),
            ("<?php\nreturn 'x';", 2, "returns no array that"),
            ("<?php\nreturn [\n'a' => 'open", 3, "quote is not closed"),
            ("<?php\nreturn [\n'a' => 1;\n", 3, "goes on without"),
            ("<?php\nreturn ['a' => 1", 2, "goes on without"),
            (&deep, 1, "nested too deeply"),
            ("return [env(", 1, "ends within"),
            ("return [(", 1, "ends within"),
            ("return [\"\\", 1, "quote is not closed"),
            ("return [explode(',', 'a,b'", 1, ""),
        ] {
            let (found, message) = read(text, &[], false).err().expect(part);
            assert_eq!(found, line, "{text:.40?}: {message}");
            assert!(message.contains(part), "{text:.40?}: {message}");
        }
    }

    #[test]
    fn no_cut_of_a_file_panics() {
        let text =
            "<?php return ['a' => env('A', (int) '1'), \"ü\" => explode(',', 'b'), 3 => x()];";
        for end in 0..=text.len() {
            if let Some(cut) = text.get(..end) {
                let _ = read(cut, &[], false);
            }
        }
    }
}
