//! Taste that a machine can check: the sources are read as text, and each failure names file, line and rule.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Rooms that decide and never do: no runtime, socket, file, clock or chance.
const PURE_ROOMS: [&str; 6] = ["protocol", "ws", "http", "connection", "channel", "cluster"];

const IMPURE: [&str; 16] = [
    "glommio",
    "tokio",
    "io_uring",
    "libc",
    "socket2",
    "std::net",
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "getrandom",
    "rand::",
    "reqwest",
];

/// Impure names that only carry plain values: an address is data, a socket is not.
const PLAIN_VALUES: [&str; 7] = [
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
    "std::net::{IpAddr",
    "std::net::{Ipv4Addr",
    "std::net::{SocketAddr",
];

const BANNED_IN_NAMES: [&str; 17] = [
    "Manager",
    "Handler",
    "Helper",
    "Util",
    "Utils",
    "Factory",
    "Service",
    "Processor",
    "Wrapper",
    "Context",
    "Base",
    "Impl",
    "Common",
    "Misc",
    "Data",
    "Info",
    "Utility",
];

/// Names that the wire or another crate gives, in files that speak of it.
const ALLOWED_NAMES: [&str; 6] = [
    "ChannelData",
    "UserData",
    "UserInfo",
    "ClientData",
    "Info",
    "AppManager", // The section of the configuration.
];

/// What may stand where: by room, the rooms that it must not name.
const ARROWS: [(&str, &[&str]); 9] = [
    (
        "protocol",
        &[
            "ws",
            "http",
            "channel",
            "connection",
            "cluster",
            "server",
            "bridge",
            "config",
        ],
    ),
    (
        "ws",
        &[
            "http",
            "channel",
            "connection",
            "cluster",
            "server",
            "bridge",
            "config",
        ],
    ),
    (
        "http",
        &[
            "channel",
            "connection",
            "cluster",
            "server",
            "bridge",
            "config",
        ],
    ),
    (
        "channel",
        &[
            "connection",
            "cluster",
            "server",
            "bridge",
            "config",
            "ws",
            "http",
        ],
    ),
    ("connection", &["server", "bridge", "config", "channel"]),
    ("cluster", &["server", "bridge", "config"]),
    (
        "config",
        &[
            "server",
            "bridge",
            "ws",
            "http",
            "channel",
            "connection",
            "cluster",
        ],
    ),
    (
        "metrics",
        &[
            "server",
            "config",
            "ws",
            "http",
            "channel",
            "connection",
            "cluster",
        ],
    ),
    (
        "bridge",
        &["ws", "http", "channel", "connection", "cluster"],
    ),
];

const HEAD_LABELS: [&str; 3] = ["//! Owns:", "//! May depend on:", "//! Invariants:"];

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 1_000;
const LINE_COLUMNS: usize = 120;

/// A finding: where, and the rule that was broken.
struct Findings(BTreeSet<String>);

impl Findings {
    fn add(&mut self, file: &Path, line: usize, rule: impl AsRef<str>) {
        let file = file.strip_prefix(root()).unwrap_or(file).display();
        self.0.insert(format!("{file}:{line}: {}", rule.as_ref()));
    }

    #[track_caller]
    fn none(self) {
        let mut text = String::new();
        for finding in &self.0 {
            writeln!(text, "{finding}").expect("a string takes all");
        }
        assert!(self.0.is_empty(), "{} findings:\n{text}", self.0.len());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below the folder whose name ends so.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            let name = path
                .file_name()
                .expect("an entry has a name")
                .to_string_lossy();
            if path.is_dir() {
                if name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A source file whose tests, comments and strings are told apart from its code.
struct Source {
    path: PathBuf,
    text: String,
    /// The text with comments and the insides of strings blanked, line by line.
    code: Vec<String>,
    /// Lines before the file's own test module.
    product_lines: usize,
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
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .iter()
            .take(self.product_lines)
            .enumerate()
            .map(|(at, line)| (at + 1, &**line))
    }

    /// The room, which is the first folder or file below `src`.
    fn room(&self) -> String {
        let inside = self
            .path
            .strip_prefix(root().join("src"))
            .unwrap_or(Path::new(""));
        let first = inside
            .components()
            .next()
            .map(|part| part.as_os_str().to_string_lossy());
        first.unwrap_or_default().trim_end_matches(".rs").to_owned()
    }
}

/// Replaces comments and the insides of strings and characters by blanks, keeping the lines.
fn blank(text: &str) -> String {
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

fn sources(folders: &[&str]) -> Vec<Source> {
    folders
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(Source::read)
        .collect()
}

/// Whether the word stands in the line on its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let bounded_end = word.ends_with(':') || !is_part(line[at + word.len()..].chars().next());
        !is_part(line[..at].chars().next_back()) && bounded_end
    })
}

#[test]
fn pure_rooms_name_no_runtime_socket_clock_or_chance() {
    let mut findings = Findings(BTreeSet::new());
    for source in sources(&["src"]) {
        let room = source.room();
        if !PURE_ROOMS.contains(&&*room) {
            continue;
        }
        for (line, code) in source.product() {
            let plain = PLAIN_VALUES.iter().any(|value| code.contains(value));
            for impure in IMPURE {
                if has_word(code, impure) && !(plain && impure == "std::net") {
                    let rule = format!("`{room}` is a pure room and may not name `{impure}`");
                    findings.add(&source.path, line, rule);
                }
            }
        }
    }
    findings.none();
}

#[test]
fn dependencies_between_rooms_point_one_way() {
    let mut findings = Findings(BTreeSet::new());
    for source in sources(&["src"]) {
        let room = source.room();
        let Some((_, forbidden)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            continue;
        };
        for (line, code) in source.product() {
            for other in *forbidden {
                // The messages are what the bridge and the server share.
                let message = *other == "bridge" && code.contains("bridge::message");
                if code.contains(&format!("crate::{other}::")) && !message {
                    let rule = format!("`{room}` may not depend on `{other}`");
                    findings.add(&source.path, line, rule);
                }
            }
        }
    }
    for source in sources(&["shards/src"]) {
        for (line, code) in source.product() {
            for word in [
                "sockudo",
                "pusher",
                "Pusher",
                "httparse",
                "tungstenite",
                "serde_json",
            ] {
                if has_word(code, word) {
                    findings.add(
                        &source.path,
                        line,
                        format!("`shards` knows nothing of {word}"),
                    );
                }
            }
        }
    }
    findings.none();
}

#[test]
fn every_module_begins_with_its_contract() {
    let mut findings = Findings(BTreeSet::new());
    for source in sources(&["src", "shards/src"]) {
        if !source.text.starts_with("//! ") {
            findings.add(
                &source.path,
                1,
                "a module begins with a line of `//!` that says what it is",
            );
        }
        let is_crate = source.path.ends_with("src/main.rs") || source.path.ends_with("src/lib.rs");
        let tests = source.product_lines == 0;
        if is_crate || tests {
            continue;
        }
        for label in HEAD_LABELS {
            if !source.text.lines().any(|line| line.starts_with(label)) {
                findings.add(
                    &source.path,
                    1,
                    format!("the head of a module has `{label}`"),
                );
            }
        }
    }
    findings.none();
}

#[test]
fn every_unsafe_says_why_it_is_safe() {
    let mut findings = Findings(BTreeSet::new());
    for source in sources(&[
        "src",
        "shards/src",
        "tests",
        "examples",
        "bench/src",
        "tuning/src",
    ]) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, code) in source.code.iter().enumerate() {
            let block = has_word(code, "unsafe")
                && !code.contains("unsafe fn")
                && !code.contains("unsafe extern")
                && !code.contains("unsafe_");
            if !block {
                continue;
            }
            let above = lines[..at].iter().rev().take(12);
            let mut comment = above
                .take_while(|line| {
                    let line = line.trim();
                    // A statement that began on lines above may stand between.
                    line.starts_with("//") || line.starts_with("#[") || !line.ends_with([';', '}'])
                })
                .map(|line| line.trim());
            if !comment.any(|line| line.starts_with("// SAFETY:")) {
                findings.add(
                    &source.path,
                    at + 1,
                    "`// SAFETY:` stands above each unsafe block",
                );
            }
        }
    }
    findings.none();
}

#[test]
fn names_say_the_noun_and_not_a_layer() {
    let mut findings = Findings(BTreeSet::new());
    for source in sources(&["src", "shards/src", "tests", "bench/src", "tuning/src"]) {
        let stem = source
            .path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let layers = [
            "types", "common", "helpers", "helper", "utils", "util", "misc", "base",
        ];
        if layers.contains(&&*stem) {
            findings.add(
                &source.path,
                1,
                "a file is named for the noun that it defines",
            );
        }
        for (at, code) in source.code.iter().enumerate() {
            for keyword in ["struct ", "enum ", "trait ", "type "] {
                let declared = code.trim_start().trim_start_matches("pub").trim_start();
                let declared = declared.strip_prefix("(crate) ").unwrap_or(declared);
                let declared = declared.strip_prefix("(super) ").unwrap_or(declared);
                let Some(rest) = declared.strip_prefix(keyword) else {
                    continue;
                };
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let banned = words(&name)
                    .into_iter()
                    .find(|word| BANNED_IN_NAMES.contains(&&**word));
                if let Some(word) = banned
                    && !ALLOWED_NAMES.contains(&&*name)
                {
                    let rule = format!("`{name}`: `{word}` hides the noun");
                    findings.add(&source.path, at + 1, rule);
                }
            }
            let is_getter = code.contains("fn get_") && !code.contains("fn get_mut(");
            if is_getter && at < source.product_lines {
                findings.add(
                    &source.path,
                    at + 1,
                    "functions are verbs of the domain: no `get_`",
                );
            }
        }
    }
    findings.none();
}

/// `ChannelData` -> `Channel`, `Data`.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        if c.is_uppercase() || words.is_empty() {
            words.push(String::new());
        }
        words.last_mut().expect("pushed above").push(c);
    }
    words
}

#[test]
fn functions_fit_a_screen_and_files_a_sitting() {
    let mut findings = Findings(BTreeSet::new());
    for source in sources(&["src", "shards/src", "bench/src", "tuning/src", "examples"]) {
        let is_table = source
            .text
            .lines()
            .take(20)
            .any(|line| line.contains("tidy: table"));
        if source.product_lines > FILE_LINES && !is_table {
            let rule = format!(
                "{} lines: at most {FILE_LINES}, split by concept",
                source.product_lines
            );
            findings.add(&source.path, 1, rule);
        }
        for (line, length) in functions(&source) {
            let above = source.text.lines().take(line - 1).collect::<Vec<_>>();
            let is_table = above
                .iter()
                .rev()
                .take(4)
                .any(|line| line.contains("tidy: table"));
            if length > FUNCTION_LINES && !is_table {
                let rule = format!("a function of {length} lines: at most {FUNCTION_LINES}");
                findings.add(&source.path, line, rule);
            }
        }
    }
    findings.none();
}

/// Each function outside tests: its first line and its number of lines.
fn functions(source: &Source) -> Vec<(usize, usize)> {
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
fn nothing_unfinished_and_nothing_of_one_machine_is_left() {
    let mut findings = Findings(BTreeSet::new());
    let marks = [
        "to".to_owned() + "do!",
        "unimple".to_owned() + "mented!",
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
    ];
    let places = [
        "/wo".to_owned() + "rk/",
        "/ro".to_owned() + "ot/",
        "/ho".to_owned() + "me/",
    ];
    let mut paths = Vec::new();
    for ending in [
        ".rs", ".toml", ".md", ".mjs", ".html", ".yml", ".service", ".sh", ".json",
    ] {
        for folder in [
            "src", "shards", "tests", "examples", "bench", "tuning", "docs", "systemd",
        ] {
            paths.extend(files(folder, ending));
        }
    }
    paths.extend(files("scripts", ""));
    for path in paths {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let rust = path.extension().is_some_and(|ending| ending == "rs");
        for (at, line) in text.lines().enumerate() {
            for mark in &marks {
                if line.contains(mark) && (rust || mark.ends_with(['O', 'E'])) {
                    findings.add(&path, at + 1, format!("`{mark}`: do it, or open an issue"));
                }
            }
            for place in &places {
                if line.contains(place) && !line.contains(&format!("${{HOME}}{place}")) {
                    findings.add(
                        &path,
                        at + 1,
                        format!("`{place}` exists on one machine only"),
                    );
                }
            }
            // A long literal, such as a frame's exact bytes, reads best in one piece; the argument of a
            // property is inside a macro, where rustfmt does not go.
            let code_columns: usize = blank(line)
                .split_whitespace()
                .map(|word| word.len() + 1)
                .sum();
            let is_breakable = code_columns > LINE_COLUMNS / 2
                && !line.contains(" in any")
                && !line.contains(" in prop::");
            if rust && line.chars().count() > LINE_COLUMNS && is_breakable {
                findings.add(
                    &path,
                    at + 1,
                    format!("a line has at most {LINE_COLUMNS} columns"),
                );
            }
        }
    }
    findings.none();
}

#[test]
fn every_source_file_is_included_by_another() {
    let mut findings = Findings(BTreeSet::new());
    for folder in ["src", "shards/src", "tests", "bench/src", "tuning/src"] {
        let sources = sources(&[folder]);
        for source in &sources {
            let stem = source
                .path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let parent = source.path.parent().expect("a folder");
            let top = parent == root().join(folder);
            let is_root = ["main", "lib"].contains(&&*stem)
                || (top && folder == "tests")
                || (folder != "tests" && parent.ends_with("bin"))
                // Programs that tests/fuzz/Cargo.toml names; tests/corpus.rs holds it to that.
                || parent.ends_with("tests/fuzz/targets");
            let name = if stem == "mod" {
                parent
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            } else {
                stem
            };
            let by_path = format!(
                "{}\"]",
                source.path.file_name().expect("a name").to_string_lossy()
            );
            let included = sources.iter().any(|other| {
                let declares = |line: &String| {
                    has_word(line, "mod") && has_word(line, &name) && line.trim().ends_with(';')
                };
                other.path != source.path
                    && (other.code.iter().any(declares) || other.text.contains(&by_path))
            });
            if !is_root && !included {
                findings.add(&source.path, 1, "no module includes this file");
            }
        }
    }
    findings.none();
}

#[test]
fn the_walks_of_the_architecture_name_functions_that_exist() {
    let page = PathBuf::from("docs/architecture.md");
    let text = std::fs::read_to_string(root().join(&page)).expect("the page is there");
    let mut findings = Findings(BTreeSet::new());
    let mut steps = 0;
    for (at, line) in text.lines().enumerate() {
        // | shard | `function` | `file` | what happens |
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, shard, function, file, ..] = cells[..] else {
            continue;
        };
        if shard.is_empty() || !shard.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        steps += 1;
        let (function, file) = (function.trim_matches('`'), file.trim_matches('`'));
        let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        let is_there = ['(', '<']
            .iter()
            .any(|next| source.contains(&format!("fn {function}{next}")));
        if !is_there {
            findings.add(
                &page,
                at + 1,
                format!("`{file}` has no `fn {function}`: mend the walk"),
            );
        }
    }
    assert!(steps > 40, "only {steps} steps were found");
    findings.none();
}

#[test]
fn every_metric_stands_on_its_page_and_no_other() {
    let catalogue = std::fs::read_to_string(root().join("src/metrics/catalogue.rs"));
    let catalogue = catalogue.expect("the catalogue is there");
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page is there");
    let mut counted = BTreeSet::new();
    for kind in ["counter(", "gauge(", "histogram("] {
        for (at, _) in catalogue.match_indices(kind) {
            let rest = catalogue[at + kind.len()..].trim_start();
            if let Some(name) = rest
                .strip_prefix('"')
                .and_then(|rest| rest.split('"').next())
            {
                counted.insert(name.to_owned());
            }
        }
    }
    let kinds = ["counter", "gauge", "histogram"];
    let mut told = BTreeSet::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.get(2).is_some_and(|kind| kinds.contains(kind)) {
            told.insert(cells[1].trim_matches('`').to_owned());
        }
    }
    assert!(
        counted.len() > 40,
        "only {} metrics were found",
        counted.len()
    );
    assert_eq!(told, counted);
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
