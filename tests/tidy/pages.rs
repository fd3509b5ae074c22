//! Pages that speak of the code: the walks of the architecture, the metrics.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::{Findings, root};

#[test]
fn the_walks_of_the_architecture_name_functions_that_exist() {
    let page = PathBuf::from("docs/architecture.md");
    let text = std::fs::read_to_string(root().join(&page)).expect("the page is there");
    let mut findings = Findings::default();
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
