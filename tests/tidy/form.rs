//! What a file must have and must not hold: its head, `SAFETY:`, lengths, leftovers, somebody who includes it.

use crate::{
    Findings, files, root,
    source::{as_text, blank, functions, has_word, sources},
};

const HEAD_LABELS: [&str; 3] = ["//! Owns:", "//! May depend on:", "//! Invariants:"];

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 1_000;
const LINE_COLUMNS: usize = 120;

#[test]
fn every_module_begins_with_its_contract() {
    let mut findings = Findings::default();
    for source in sources(&["src", "shards/src", "tuning/src"]) {
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
    let mut findings = Findings::default();
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
fn functions_fit_a_screen_and_files_a_sitting() {
    let mut findings = Findings::default();
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

/// `Turn::send` answers nothing, so that no answer is lost by not looking; that of others counts.
#[test]
fn what_a_turn_answers_is_looked_at() {
    let mut findings = Findings::default();
    for source in sources(&["src/server", "src/bridge", "tests/simulation", "examples"]) {
        for (at, code) in source.code.iter().enumerate() {
            if code.contains("let _ = turn.") || code.contains("let _ = self.turn.") {
                findings.add(&source.path, at + 1, "what a turn answers is looked at");
            }
        }
    }
    findings.none();
}

#[test]
fn nothing_unfinished_and_nothing_of_one_machine_is_left() {
    let mut findings = Findings::default();
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
            "src", "shards", "tests", "examples", "bench", "tuning", "docs", "systemd", "findings",
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
    let mut findings = Findings::default();
    for folder in ["src", "shards/src", "tests", "bench/src", "tuning/src"] {
        let sources = sources(&[folder]);
        for source in &sources {
            let stem = as_text(source.path.file_stem());
            let parent = source.path.parent().expect("a folder");
            let top = parent == root().join(folder);
            let is_root = ["main", "lib"].contains(&&*stem)
                || (top && folder == "tests")
                || (folder != "tests" && parent.ends_with("bin"))
                // Programs that tests/fuzz/Cargo.toml names; tests/corpus.rs holds it to that.
                || parent.ends_with("tests/fuzz/targets");
            let name = if stem == "mod" {
                as_text(parent.file_name())
            } else {
                stem
            };
            let by_path = format!("{}\"]", as_text(source.path.file_name()));
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
