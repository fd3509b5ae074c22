//! The book: what stands in a block of its pages is run as an operator would type it, and shows what the page says.
//!
//! Owns: README.md, docs/index.md and docs/playbooks/, read as lists of commands; the rules of marking.
//! May depend on: the built program, bash, and the servers and tools that the pages name.
//! Invariants: a page runs in name spaces of its own (network, processes, mounts) with a folder of its own, so that it
//! may use the ports and paths that it prints, and ends with all that it started.

#![expect(
    clippy::disallowed_methods,
    reason = "tools are looked for where the path says"
)]

mod page;
mod settings;
#[path = "../support/skip.rs"]
mod skip;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use page::{Block, Page};
use skip::skip;
use stage::Stage;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Each page by itself, so that they run beside each other.
macro_rules! pages {
    ($($test:ident: $path:literal,)*) => {
        const PAGES: &[&str] = &[$($path),*];
        mod run {
            $(#[test] fn $test() { super::run(stringify!($test), $path); })*
        }
    };
}

pages! {
    readme: "README.md",
    index: "docs/index.md",
    add_a_node: "docs/playbooks/add-a-node.md",
    alerts: "docs/playbooks/alerts.md",
    capacity: "docs/playbooks/capacity.md",
    migrate: "docs/playbooks/migrate.md",
    one_million: "docs/playbooks/one-million.md",
    replace_redis: "docs/playbooks/replace-redis.md",
    restart: "docs/playbooks/restart.md",
}

fn run(test: &str, path: &str) {
    let page = Page::read(path);
    let blocks: Vec<&Block> = page.blocks.iter().filter(|it| it.is_run()).collect();
    if blocks.is_empty() {
        return;
    }
    let setting = settings::of(path);
    if let Some(missing) = setting.missing() {
        skip(test, &format!("{missing} is not installed"));
        return;
    }
    let Some(shown) = Stage::new().play(&setting, &blocks) else {
        skip(test, "this host lets nobody make name spaces");
        return;
    };
    for (block, shown) in blocks.iter().zip(&shown) {
        if let Some(missing) = block.missing_in(shown) {
            panic!(
                "{path}:{}: `{missing}` was not shown; what was:\n{shown}",
                block.line
            );
        }
    }
}

#[test]
fn every_page_of_the_book_is_run() {
    let mut there = BTreeSet::from(["README.md".to_owned(), "docs/index.md".to_owned()]);
    for entry in
        std::fs::read_dir(repository().join("docs/playbooks")).expect("the folder is there")
    {
        let name = entry.expect("it can be listed").file_name();
        there.insert(format!("docs/playbooks/{}", name.to_string_lossy()));
    }
    let listed: BTreeSet<String> = PAGES.iter().map(|&it| it.to_owned()).collect();
    assert_eq!(there, listed);
}

#[test]
fn a_block_is_run_or_marked_with_a_known_reason() {
    for path in PAGES {
        let page = Page::read(path);
        for block in &page.blocks {
            let place = format!("{path}:{}", block.line);
            assert!(
                !["console", "bash", "shell", ""].contains(&&*block.language),
                "{place}: commands stand in a block `sh`, what is seen in a block `text`"
            );
            let Some(reason) = &block.needs else { continue };
            assert_eq!(block.language, "sh", "{place}: only commands are marked");
            let known = page::REASONS.iter().any(|known| reason.contains(known));
            assert!(
                known,
                "{place}: it needs `{reason}`; reasons are {:?}",
                page::REASONS
            );
        }
    }
}

/// A marked block runs nowhere, so at least its words are looked up, as those within a sentence are.
#[test]
fn commands_that_are_only_named_have_the_words_that_the_program_has() {
    let mut helps = BTreeMap::new();
    for path in PAGES {
        let page = Page::read(path);
        for (line, command) in page.named() {
            let unknown = unknown_word(&mut helps, &command);
            assert_eq!(unknown, None, "{path}:{line}: of `{command}`");
        }
        for block in page.blocks.iter().filter(|it| it.language == "sh") {
            let ran = Command::new("bash")
                .args(["-n", "-c", &block.code])
                .output();
            let ran = ran.expect("bash is there");
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{path}:{}: {said}", block.line);
        }
    }
}

/// The first word of a command of ours that its help does not know.
fn unknown_word(helps: &mut BTreeMap<String, String>, command: &str) -> Option<String> {
    let words = command
        .split_whitespace()
        .skip(1)
        .take_while(|it| !["|", ">", "&", "&&", "#", "2>"].contains(it));
    let words: Vec<&str> = words.collect();
    let mut name = String::new();
    let mut commands = true;
    for word in words {
        let flag = word.split('=').next().expect("a word");
        if commands
            && word.bytes().all(|it| it.is_ascii_lowercase() || it == b'-')
            && !word.starts_with('-')
        {
            let help = help(helps, &name);
            // What follows a command that has no commands is its argument.
            commands = help.contains("Commands:\n") || help.contains("Scenarios:\n");
            if commands && !help.contains(&format!("\n  {word} ")) {
                return Some(word.to_owned());
            }
            if commands {
                name = format!("{name} {word}");
            }
        } else if flag.starts_with("--") || (flag.len() == 2 && flag.starts_with('-')) {
            commands = false;
            let help = help(helps, &name);
            let ends = [" ", ",", "\n", "=", "["];
            if !ends
                .iter()
                .any(|end| help.contains(&format!("{flag}{end}")))
            {
                return Some(flag.to_owned());
            }
        } else {
            commands = false;
        }
    }
    None
}

fn help<'a>(helps: &'a mut BTreeMap<String, String>, name: &str) -> &'a str {
    helps.entry(name.to_owned()).or_insert_with(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockudo"));
        let said = command.args(name.split_whitespace()).arg("--help").output();
        let said = said.expect("the program was built");
        assert!(said.status.success(), "sockudo{name} --help");
        String::from_utf8_lossy(&said.stdout).into_owned()
    })
}

/// Alerts of the rules, and the place on the page where each says that help is.
#[test]
fn every_alert_has_its_heading_and_every_heading_its_alert() {
    let rules = std::fs::read_to_string(repository().join("tuning/monitoring/rules.yml"));
    let rules = rules.expect("the rules are there");
    let of = |label: &str| -> Vec<String> {
        let lines = rules.lines().filter_map(|it| it.trim().strip_prefix(label));
        lines.map(|it| it.trim_matches('"').to_owned()).collect()
    };
    let (alerts, runbooks) = (of("- alert: "), of("runbook: "));
    assert!(alerts.len() > 20, "{alerts:?}");
    let expected: Vec<String> = alerts
        .iter()
        .map(|alert| format!("docs/playbooks/alerts.md#{}", alert.to_lowercase()))
        .collect();
    assert_eq!(runbooks, expected);
    let page = std::fs::read_to_string(repository().join("docs/playbooks/alerts.md"));
    let page = page.expect("the page is there");
    let headings = page.lines().filter_map(|it| it.strip_prefix("### "));
    let headings: Vec<&str> = headings.collect();
    assert_eq!(headings, alerts);
}

/// Links between pages of the book lead somewhere, headings included.
#[test]
fn links_of_the_book_lead_somewhere() {
    for path in PAGES {
        let text = std::fs::read_to_string(repository().join(path)).expect("a page");
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|it| it.split(')').next())
        {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let from = repository().join(path);
            let to: PathBuf = match file {
                "" => from,
                _ => from.parent().expect("a folder").join(file),
            };
            assert!(to.exists(), "{path}: {link} leads nowhere");
            if heading.is_empty() {
                continue;
            }
            let target = std::fs::read_to_string(&to).expect("a page");
            let headings = target.lines().filter(|it| it.starts_with('#'));
            let found = headings.map(page::anchor).any(|it| it == heading);
            assert!(found, "{path}: {link}: there is no such heading");
        }
    }
}
