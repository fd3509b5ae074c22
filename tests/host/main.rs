//! The commands that look at the host, as an operator runs them.
//!
//! Owns: exit codes and output of the built program on whole trees and on this host; the units of systemd.
//! May depend on: the built program, bash, systemd and its own tools, name spaces; root rights where a test says so.
//! Invariants: nothing of this host is changed; each test writes only into a temporary folder of its own.

#![expect(clippy::disallowed_methods, reason = "each wait has a deadline")]

mod ansible;
mod booted;
mod monitoring;
mod package;
#[path = "../support/skip.rs"]
mod skip;
mod tune;
mod units;

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use skip::skip;

fn sockudo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockudo"));
    command
        .args(arguments)
        .output()
        .expect("the program was built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/trees")
}

/// Writes a tree that is made by hand.
fn synthetic(name: &str, folder: &Path) {
    let made = Command::new(trees().join("synthetic"))
        .arg(name)
        .arg(folder)
        .status();
    assert!(made.expect("bash is there").success());
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"))
}

const NOBODY: u32 = 65_534;

#[test]
fn the_exit_code_says_how_bad_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["tuned", "hardened"] {
        synthetic(name, &folder.path().join(name));
    }
    let tree = |name: &str| match trees().join(name) {
        recorded if recorded.is_dir() => recorded.display().to_string(),
        _ => folder.path().join(name).display().to_string(),
    };
    for (name, arguments, exit) in [
        (
            "tuned",
            &["--connections", "1000000", "--shards", "12"][..],
            0,
        ),
        ("root", &[], 1),
        ("root", &["--connections", "1000000"], 2),
        ("hardened", &[], 2),
        ("none", &[], 2),
    ] {
        let root = tree(name);
        let arguments: Vec<&str> = ["doctor", "--root", &root]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let answer = sockudo(&arguments);
        assert_eq!(
            answer.status.code(),
            Some(exit),
            "{name}: {}",
            text(&answer.stdout)
        );
    }
    let answer = sockudo(&["doctor", "--connections", "0"]);
    assert_eq!(answer.status.code(), Some(2));
    assert!(
        text(&answer.stderr).contains("1..=1000000000") || text(&answer.stderr).contains("not in")
    );
}

#[test]
fn json_has_every_finding_and_the_page_no_colours_in_a_pipe() {
    let root = trees().join("root").display().to_string();
    let answer = sockudo(&["doctor", "--json", "--root", &root]);
    let report: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("one object");
    assert_eq!(report["connections"], 10_000);
    assert_eq!(report["verdict"], "warning");
    let findings = report["findings"].as_array().expect("a list");
    assert!(findings.len() > 25, "{findings:?}");
    for finding in findings {
        for field in ["check", "group", "severity", "is", "should_be", "why"] {
            assert!(finding[field].is_string(), "{field} of {finding}");
        }
        assert_eq!(
            finding["mend"].is_null(),
            finding["severity"] == "fine",
            "{finding}"
        );
    }
    let answer = sockudo(&["doctor", "--root", &root]);
    assert!(!text(&answer.stdout).contains('\u{1b}'));
}

#[test]
fn an_ordinary_user_is_told_what_cannot_be_read() {
    if !is_root() {
        skip(
            "an_ordinary_user_is_told_what_cannot_be_read",
            "needs root, to become another user",
        );
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let tree = folder.path().join("tuned");
    synthetic("tuned", &tree);
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    open(folder.path(), 0o755).expect("ours");
    open(&tree.join("proc/sys/net/core/somaxconn"), 0o000).expect("ours");
    open(&tree.join("proc/irq/100/effective_affinity_list"), 0o000).expect("ours");
    open(&tree.join("proc/irq/100/smp_affinity_list"), 0o000).expect("ours");
    // The program may lie where that user cannot look.
    let program = folder.path().join("sockudo");
    fs::copy(env!("CARGO_BIN_EXE_sockudo"), &program).expect("copied");
    open(&program, 0o755).expect("ours");
    let answer = Command::new(&program)
        .args([
            "doctor",
            "--connections",
            "1000000",
            "--shards",
            "12",
            "--root",
        ])
        .arg(&tree)
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("started");
    let page = text(&answer.stdout);
    assert_eq!(
        answer.status.code(),
        Some(1),
        "{page}{}",
        text(&answer.stderr)
    );
    assert_eq!(
        page.matches("cannot be read as this user").count(),
        2,
        "{page}"
    );
    assert!(page.contains("run `sockudo doctor` as root"), "{page}");
    // And this host, for real.
    let answer = Command::new(&program)
        .arg("doctor")
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let answer = answer.expect("started");
    assert!(
        matches!(answer.status.code(), Some(0..=2)),
        "{}",
        text(&answer.stderr)
    );
    assert!(
        text(&answer.stdout).contains("kernel.version"),
        "{}",
        text(&answer.stderr)
    );
}

#[test]
fn a_recording_of_this_host_is_judged_as_this_host_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    let recorded = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/record"))
        .arg(&copy)
        .status();
    assert!(recorded.expect("bash is there").success());
    let copy = copy.display().to_string();
    let checks = |arguments: &[&str]| -> Vec<String> {
        let answer = sockudo(arguments);
        let report: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("one object");
        let findings = report["findings"].as_array().expect("a list").iter();
        // Other processes are not recorded, and other tests start servers; a copy has no rings.
        const LEFT_OUT: [&str; 2] = ["kernel.io_uring", "cards.irqbalance"];
        let of_host = findings.filter(|finding| {
            finding["group"] != "limits" && !LEFT_OUT.iter().any(|it| finding["check"] == *it)
        });
        of_host
            .map(|finding| format!("{} {}", finding["severity"], finding["check"]))
            .collect()
    };
    let mut live = checks(&["doctor", "--json"]);
    let mut copied = checks(&["doctor", "--json", "--root", &copy]);
    live.sort();
    copied.sort();
    assert_eq!(live, copied);
}
