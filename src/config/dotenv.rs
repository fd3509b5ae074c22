//! The `--env-file`: lines `NAME=value`.
//!
//! Owns: its grammar: comments, `export`, single and double quotes.
//! May depend on: `error`.
//! Invariants: an error names the line and the variable, never the value.

use super::error::Fault;

/// One variable of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) line: u32,
}

/// Reads the text of an `--env-file`; the error names the first line that is none.
pub(super) fn parse(text: &str) -> Result<Vec<Line>, (u32, Fault)> {
    let mut lines = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let text = text.strip_prefix("export ").unwrap_or(text);
        let wrong = |message: &str| {
            (
                line,
                Fault::Syntax {
                    format: "env file",
                    message: message.to_owned(),
                },
            )
        };
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| wrong("a line is NAME=value"))?;
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong("a line is NAME=value"));
        }
        let value = unquoted(value.trim()).ok_or_else(|| wrong("a quote is not closed"))?;
        lines.push(Line {
            name: name.to_owned(),
            value,
            line,
        });
    }
    Ok(lines)
}

fn unquoted(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.split_once('\'').map(|(inside, _)| inside.to_owned());
    }
    if let Some(rest) = value.strip_prefix('"') {
        return double_quoted(rest);
    }
    // A comment begins after white space, so that a secret may hold a hash sign.
    let end = value.find(" #").unwrap_or(value.len());
    Some(value.get(..end).unwrap_or(value).trim_end().to_owned())
}

fn double_quoted(rest: &str) -> Option<String> {
    let mut out = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read() {
        let text =
            "# c\n\nA=1\nexport B = two words # c\nC='x # y'\nD=\"a\\\"b\\nc\" # c\nE=\nF=a#b\n";
        let lines = parse(text).expect("an env file");
        let found: Vec<_> = lines
            .iter()
            .map(|l| (l.name.as_str(), l.value.as_str(), l.line))
            .collect();
        assert_eq!(
            found,
            [
                ("A", "1", 3),
                ("B", "two words", 4),
                ("C", "x # y", 5),
                ("D", "a\"b\nc", 6),
                ("E", "", 7),
                ("F", "a#b", 8)
            ]
        );
    }

    #[test]
    fn a_broken_line_is_named_without_its_value() {
        for (text, line) in [
            ("A=1\nnonsense", 2),
            ("A='hunter2", 1),
            ("=x", 1),
            ("A B=x", 1),
        ] {
            let (found, fault) = parse(text).expect_err(text);
            assert_eq!(found, line, "{text:?}");
            assert!(!fault.to_string().contains("hunter2"), "{fault}");
        }
    }
}
