//! Rules and dashboard: they name metrics that exist, and alerts fire when they should and not else.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::skip::skip;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    repository().join("tuning/monitoring")
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(repository().join(path)).expect("the file is there")
}

/// Names in the page's tables of metrics; another test holds the page to the program.
fn metrics() -> BTreeSet<String> {
    let page = read("docs/metrics.md");
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let of_kind = |rest: &str| {
        ["gauge", "counter", "histogram"]
            .iter()
            .any(|kind| rest.starts_with(kind))
    };
    let mut names = BTreeSet::new();
    for (name, rest) in rows.filter(|(_, rest)| of_kind(rest)) {
        names.insert(format!("sockudo_{name}"));
        if rest.starts_with("histogram") {
            names.extend(["bucket", "sum", "count"].map(|part| format!("sockudo_{name}_{part}")));
        }
    }
    assert!(names.len() > 80, "only {} metrics were found", names.len());
    // What Prometheus' own libraries name so, which the page says are there.
    let process = [
        "cpu_seconds_total",
        "max_fds",
        "open_fds",
        "resident_memory_bytes",
    ];
    names.extend(process.map(|name| format!("process_{name}")));
    names
}

/// The metrics in an expression, those that rules record left out.
fn named(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = expression.split(|c| !is_part(c));
    let metrics = words.filter(|word| word.starts_with("sockudo_") || word.starts_with("process_"));
    metrics.map(str::to_owned).collect()
}

/// Every `expr` of the rules, in one piece each, without a YAML library: a key that is followed by its value or by
/// deeper lines.
fn expressions(rules: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(value) = line.trim_start().strip_prefix("expr:") else {
            continue;
        };
        let mut expression = value.trim_start_matches([' ', '>']).to_owned();
        let depth = line.len() - line.trim_start().len();
        while let Some(next) = lines.next_if(|next| next.len() - next.trim_start().len() > depth) {
            expression.push(' ');
            expression.push_str(next.trim());
        }
        found.push(expression);
    }
    found
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let metrics = metrics();
    let rules = read("tuning/monitoring/rules.yml");
    let mut all = expressions(&rules);
    assert_eq!(
        all.len(),
        rules.matches("- alert: ").count() + rules.matches("- record: ").count()
    );

    let dashboard: Value =
        serde_json::from_str(&read("tuning/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    all.extend(targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()));
    let variables = dashboard["templating"]["list"]
        .as_array()
        .expect("variables");
    all.extend(
        variables
            .iter()
            .filter_map(|it| it["query"]["query"].as_str().map(str::to_owned)),
    );
    assert!(all.len() > 60, "{}", all.len());
    for expression in &all {
        let names = named(expression);
        // An expression of nothing of ours is a typing error.
        assert!(!names.is_empty(), "{expression}");
        for name in names {
            assert!(metrics.contains(&name), "{name} of {expression}");
        }
    }
}

#[test]
fn panels_have_numbers_of_their_own_and_do_not_overlap() {
    let dashboard: Value =
        serde_json::from_str(&read("tuning/monitoring/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels {
        assert!(
            ids.insert(panel["id"].as_u64().expect("a number")),
            "{panel}"
        );
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        assert!(side("x") + side("w") <= 24, "{panel}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_alert_is_explained_and_tested() {
    let (rules, tests) = (
        read("tuning/monitoring/rules.yml"),
        read("tuning/monitoring/rules-test.yml"),
    );
    let page = read("docs/metrics.md");
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in alerts {
        assert!(
            tests.contains(&format!("- name: {alert}\n")),
            "{alert} is never fired"
        );
        assert!(
            page.contains(&format!("| `{alert}` | ")),
            "{alert} has no row on the page"
        );
    }
}

#[test]
fn prometheus_takes_the_rules_and_fires_each_alert() {
    let name = "prometheus_takes_the_rules_and_fires_each_alert";
    for arguments in [
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules-test.yml"],
    ] {
        let ran = Command::new("promtool")
            .args(arguments)
            .current_dir(folder())
            .output();
        let Ok(output) = ran else {
            skip(
                name,
                "promtool is not installed (Debian's package prometheus)",
            );
            return;
        };
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}
