//! Taste that a machine can check: the sources are read as text, and each failure names file, line and rule.

mod form;
mod names;
mod pages;
mod rooms;
mod source;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A finding: where, and the rule that was broken.
#[derive(Default)]
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
