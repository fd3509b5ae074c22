//! A test that cannot run here says so aloud, and `scripts/test` counts it as skipped.

use std::io::Write as _;

/// Notes that the named test was skipped and why; the caller returns after it.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    let Some(file) = std::env::var_os("SOCKUDO_TEST_SKIPPED") else {
        return;
    };
    let line = format!("{test}: {reason}\n");
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the list of skipped tests can be written");
}
