//! The page that `sockudo bench --report` writes, of a real run and in a real browser.

#[path = "../../bench/tests/reports/browser.rs"]
mod browser;
#[path = "../../bench/tests/reports/look.rs"]
mod look;
#[path = "../../bench/tests/reports/picture.rs"]
mod picture;

use std::process::{Command, Stdio};

use crate::support::config::{Config, KEY, SECRET};
use crate::support::server::Server;
use crate::support::skip;
use browser::Scheme;

// A busy machine can make the run void or end it after one step: its page is looked at all the same.
#[test]
fn a_ramp_is_a_page_whose_plots_are_drawn() {
    let name = "a_ramp_is_a_page_whose_plots_are_drawn";
    let server = Server::start(&Config::new(), 1);
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("ramp.html");
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .args(["bench", "ramp", "--key", KEY, "--seconds", "1"])
        .args(["--subscribers", "50", "--from", "5", "--to", "40"])
        .args(["--target", &server.address.to_string()])
        .args(["--pid", &server.pid().to_string(), "--report"])
        .arg(&page)
        .env("SOCKUDO_BENCH_SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ramp: p99 of delivery"), "{output:?}");

    let html = std::fs::read_to_string(&page).expect("the page was written");
    for (width, scheme) in [(1_200, Scheme::Light), (360, Scheme::Dark)] {
        let Some(view) = look::at(name, &html, width, scheme) else {
            return;
        };
        let [ramp, .., last] = &view.layout.plots[..] else {
            panic!("the page has no plots: {}", view.layout.text);
        };
        assert_eq!(ramp.title, "Load against p99 of delivery");
        look::lines_are_drawn(&view, ramp);
        assert!(last.title.starts_with("Over time"), "{}", last.title);
    }
}
