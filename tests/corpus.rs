//! Replays the fuzz targets' corpus: every input that was worth keeping is checked with each run of the tests.
//!
//! Owns: the list of targets, as tests.
//! May depend on: `tests/fuzz/checks/`, which the fuzzer shares.
//! Invariants: a target has a check, a corpus that is not empty, and a test here.

#![expect(
    clippy::print_stdout,
    reason = "the input that fails is the last one named"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[path = "fuzz/checks/mod.rs"]
pub mod checks;

/// Declares one test per target, and the list of them.
macro_rules! targets {
    ($($target:ident: $sentence:ident),+ $(,)?) => {
        $(#[test]
        fn $sentence() {
            replay(stringify!($target), checks::$target::check);
        })+

        const TARGETS: &[&str] = &[$(stringify!($target)),+];
    };
}

targets! {
    api_body: a_body_is_accepted_by_its_rules_alone,
    auth: nothing_but_the_right_signature_is_believed,
    channel_name: a_name_is_accepted_by_its_rules_alone,
    client_frame: a_frame_means_what_serde_json_reads_in_it,
    cluster_batch: a_batch_between_nodes_means_what_was_written,
    http_request: a_request_is_the_same_however_it_is_cut,
    presence: a_member_is_who_serde_json_reads,
    proxy_header: a_proxy_s_header_is_the_same_however_it_is_cut,
    webhook_answer: an_answer_is_the_same_however_it_is_cut,
    ws_codec: a_stream_of_frames_is_the_same_however_it_is_cut,
}

/// Hands every file of the target's corpus to its check; the name of one that fails stands above its panic.
fn replay(target: &str, check: fn(&[u8])) {
    let files = listed(&fuzz_folder().join("corpus").join(target));
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    for file in files {
        println!("{}", file.display());
        check(&std::fs::read(&file).expect("an input can be read"));
    }
}

#[test]
fn every_target_has_a_test_a_program_and_a_corpus() {
    let listed_here: BTreeSet<String> = TARGETS.iter().map(|name| (*name).to_owned()).collect();
    for folder in ["targets", "corpus"] {
        let there: BTreeSet<String> = listed(&fuzz_folder().join(folder))
            .iter()
            .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
            .collect();
        assert_eq!(there, listed_here, "tests/fuzz/{folder}");
    }
    let manifest = std::fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("a manifest");
    for target in TARGETS {
        let program = format!("path = \"targets/{target}.rs\"");
        assert!(
            manifest.contains(&program),
            "tests/fuzz/Cargo.toml: {program}"
        );
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{} cannot be listed: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}
