//! How sources are read: what of their text is code, what is product, what is a function.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::{files, root};

/// A source file whose tests, comments and strings are told apart from its code.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// The text with comments and the insides of strings blanked, line by line.
    pub(super) code: Vec<String>,
    /// Lines before the file's own test module.
    pub(super) product_lines: usize,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).expect("a source is UTF-8");
        let code: Vec<String> = blank(&text).lines().map(str::to_owned).collect();
        let is_tests = |line: &String| line.trim() == "#[cfg(test)]";
        let product_lines = code.iter().position(is_tests).unwrap_or(code.len());
        let whole = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name == "tests.rs" || name.ends_with("_tests.rs") || name.ends_with("_test.rs")
        });
        let product_lines = if whole { 0 } else { product_lines };
        Self {
            path,
            text,
            code,
            product_lines,
        }
    }

    /// The code lines outside tests, numbered from one.
    pub(super) fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .iter()
            .take(self.product_lines)
            .enumerate()
            .map(|(at, line)| (at + 1, &**line))
    }

    /// The code outside tests, line by line; of an import each whole path, as if nothing were grouped.
    pub(super) fn ungrouped(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        // What stands before the braces that are open; none outside of an import.
        let mut prefixes: Vec<String> = Vec::new();
        let mut path = String::new();
        for (line, code) in self.product() {
            let import = if prefixes.is_empty() {
                after_use(code)
            } else {
                Some(code)
            };
            let Some(import) = import else {
                found.push((line, code.to_owned()));
                continue;
            };
            if prefixes.is_empty() {
                prefixes.push(String::new());
            }
            for c in import.chars().filter(|c| !c.is_whitespace()) {
                match c {
                    '{' => prefixes.push(std::mem::take(&mut path)),
                    ',' | '}' | ';' => {
                        if !path.is_empty() {
                            found.push((line, prefixes.concat() + &std::mem::take(&mut path)));
                        }
                        if c != ',' {
                            prefixes.pop();
                        }
                    }
                    c => path.push(c),
                }
            }
        }
        found
    }

    /// The room, which is the first folder or file below `src`.
    pub(super) fn room(&self) -> String {
        let inside = self
            .path
            .strip_prefix(root().join("src"))
            .unwrap_or_else(|_| Path::new(""));
        let first = inside
            .components()
            .next()
            .map(|part| part.as_os_str().to_string_lossy());
        first.unwrap_or_default().trim_end_matches(".rs").to_owned()
    }
}

/// What an import names, if the line begins one.
fn after_use(code: &str) -> Option<&str> {
    let (before, after) = code.trim().split_once("use ")?;
    (before.is_empty() || before.starts_with("pub")).then_some(after)
}

pub(super) fn sources(folders: &[&str]) -> Vec<Source> {
    folders
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(Source::read)
        .collect()
}

/// Replaces comments and the insides of strings and characters by blanks, keeping the lines.
pub(super) fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let skipped = skip_length(rest);
        if skipped == 0 {
            let first = rest.chars().next().expect("not empty");
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let keep = |c: char| if c == '\n' { '\n' } else { ' ' };
            out.extend(rest[..skipped].chars().map(keep));
            rest = &rest[skipped..];
        }
    }
    out
}

/// The bytes of the comment, string or character that starts here; 0 if none does.
fn skip_length(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with("r\"") || text.starts_with("r#") {
        let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
        let opening = 1 + hashes;
        if text[opening..].starts_with('"') {
            let closing = format!("\"{}", "#".repeat(hashes));
            let end = text[opening + 1..].find(&closing);
            return end.map_or(text.len(), |end| opening + 1 + end + closing.len());
        }
        return 0;
    }
    if let Some(inside) = text.strip_prefix('"') {
        let mut escaped = false;
        for (at, byte) in inside.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return at + 2,
                _ => {}
            }
        }
        return text.len();
    }
    if let Some(inside) = text.strip_prefix('\'') {
        // A character, unless it is a lifetime.
        if let Some(escape) = inside.strip_prefix('\\') {
            return escape
                .char_indices()
                .skip(1)
                .find(|(_, c)| *c == '\'')
                .map_or(0, |(at, _)| at + 3);
        }
        let mut chars = inside.char_indices();
        if chars.next().is_some() && chars.next().is_some_and(|(_, c)| c == '\'') {
            return inside.chars().next().map_or(0, |c| c.len_utf8() + 2);
        }
    }
    0
}

/// A part of a path, which has one.
pub(super) fn as_text(part: Option<&OsStr>) -> String {
    part.expect("a name").to_string_lossy().into_owned()
}

/// Whether the word stands in the line on its own.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let bounded_end = word.ends_with(':') || !is_part(line[at + word.len()..].chars().next());
        !is_part(line[..at].chars().next_back()) && bounded_end
    })
}

/// `ChannelData` -> `Channel`, `Data`.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        if c.is_uppercase() || words.is_empty() {
            words.push(String::new());
        }
        words.last_mut().expect("pushed above").push(c);
    }
    words
}

/// Each function outside tests: its first line and its number of lines.
pub(super) fn functions(source: &Source) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        let starts = has_word(code, "fn") && code.contains('(') && !code.trim().ends_with(';');
        if !starts || code.trim_start().starts_with("type ") {
            continue;
        }
        let mut depth = 0usize;
        let mut opened = false;
        for (inner, code) in source.code.iter().enumerate().skip(line - 1) {
            let before = depth;
            for c in code.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                opened |= c == '{';
            }
            let declared_only = !opened && before == 0 && code.trim_end().ends_with(';');
            if (opened && depth == 0) || declared_only {
                found.push((line, inner + 2 - line));
                break;
            }
        }
    }
    found
}

#[test]
fn the_reader_of_sources_tells_code_from_text() {
    let text = "let a = \"unsafe // {\"; // unsafe\nlet c = '{'; let l: &'static str = r#\"fn x(\"#;\n/* unsafe\n*/ b";
    let blanked = blank(text);
    assert_eq!(blanked.lines().count(), text.lines().count());
    for hidden in ["unsafe", "{", "fn x("] {
        assert!(!blanked.contains(hidden), "{hidden} in {blanked}");
    }
    assert!(blanked.contains("&'static str"), "{blanked}");
    assert_eq!(words("ChannelDataV2"), ["Channel", "Data", "V2"]);
    assert!(has_word("use libc::x;", "libc") && !has_word("use mylibc::x;", "libc"));
}

#[test]
fn the_reader_of_sources_ungroups_imports() {
    let text = "use std::{\n    net::{IpAddr, TcpStream},\n    sync::Arc,\n};\npub(super) use a::b;\nlet c = a::d;";
    let source = Source {
        path: PathBuf::new(),
        text: text.to_owned(),
        code: text.lines().map(str::to_owned).collect(),
        product_lines: 6,
    };
    let paths: Vec<(usize, String)> = source.ungrouped();
    let expected = [
        (2, "std::net::IpAddr"),
        (2, "std::net::TcpStream"),
        (3, "std::sync::Arc"),
        (5, "a::b"),
        (6, "let c = a::d;"),
    ];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
}
