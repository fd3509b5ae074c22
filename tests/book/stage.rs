//! Where a page is played: name spaces, folders and programs that let it be run as it is printed.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

use crate::{page::Block, repository, settings::Setting};

pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

/// Begins each page. A page sees the repository as it is, and writes beside it; `/etc` and `/run` are its own.
const PRELUDE: &str = r#"
set -euo pipefail
ip link set lo up
mount -t tmpfs none /run
mkdir /run/sockudo
cp --archive /etc "$STAGE/etc" 2>/dev/null || true
mount --bind "$STAGE/etc" /etc
mkdir --parents /etc/sockudo
cd "$STAGE/work"

# Waits for a server that the page starts in a terminal of its own, and shows what it says.
stays() {
    for _ in $(seq 300); do
        ! grep --quiet --word-regexp ready "$1" && kill -0 $! || break
        sleep 0.1
    done
    cat "$1"
    grep --quiet --word-regexp ready "$1"
}
"#;

/// Programs that stand for what a page may take for granted.
const SHIMS: [(&str, &str); 3] = [
    // What the doctor finds is this host, and that a load was more than a busy machine could make is no fault of the page.
    (
        "sockudo",
        "case \"$1\" in doctor | bench) ;; *) exec \"$SOCKUDO\" \"$@\" ;; esac\n\"$SOCKUDO\" \"$@\"\ncase \"$1 $?\" in doctor\\ [012] | bench\\ [02]) ;; *) exit 1 ;; esac",
    ),
    ("sudo", "exec \"$@\""),
    // What it would build is there.
    ("cargo", "exit 0"),
];

impl Stage {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "work", "work/target/release", "shown", "tmp"] {
            fs::create_dir_all(at(name)).expect("ours");
        }
        for name in ["docs", "examples", "scripts", "systemd", "tests", "tuning"] {
            symlink(repository().join(name), at("work").join(name)).expect("ours");
        }
        let program = env!("CARGO_BIN_EXE_sockudo");
        symlink(program, at("work/target/release/sockudo")).expect("ours");
        for (name, script) in SHIMS {
            let file = at("bin").join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("ours");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("ours");
        }
        Self { folder }
    }

    /// What each block showed; nothing where no name spaces can be made. Panics with what was shown where one failed.
    pub(crate) fn play(&self, setting: &Setting, blocks: &[&Block]) -> Option<Vec<String>> {
        let at = |name: &str| self.folder.path().join(name);
        let mut script = PRELUDE.to_owned();
        writeln!(
            script,
            "exec >\"$STAGE/shown/before\" 2>&1\n{}",
            setting.before
        )
        .expect("a string");
        for (number, block) in blocks.iter().enumerate() {
            writeln!(script, "exec >\"$STAGE/shown/{number}\" 2>&1").expect("a string");
            script.push_str(&with_terminals(&block.code, number));
        }
        fs::write(at("page.sh"), script).expect("ours");

        let mut command = Command::new("timeout");
        command.args(["--kill-after", "5", "90", "unshare"]);
        if !is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args([
            "--net",
            "--pid",
            "--mount",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.arg("bash").arg(at("page.sh"));
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}:/usr/sbin:/sbin", at("bin").display());
        // The server reads variables too: those of who runs the tests are none of the page's.
        let of_login = ["HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG"];
        let of_login = of_login.map(|name| (name, std::env::var_os(name)));
        let of_login = of_login.into_iter();
        command.env_clear();
        command.envs(of_login.filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", path).env("STAGE", self.folder.path());
        command.env("SOCKUDO", env!("CARGO_BIN_EXE_sockudo"));
        command.env("TMPDIR", at("tmp"));
        command.env("NO_COLOR", "1");
        let ran = command.output().expect("unshare is there");
        let said = String::from_utf8_lossy(&ran.stderr);
        if said.contains("unshare failed") || said.contains("unshare: ") {
            return None;
        }
        let shown = |name: &str| fs::read_to_string(at("shown").join(name)).ok();
        let all: Vec<String> = (0..blocks.len())
            .map_while(|number| shown(&number.to_string()))
            .collect();
        if !ran.status.success() {
            let last = all
                .last()
                .cloned()
                .or_else(|| shown("before"))
                .unwrap_or_default();
            let line = all.len().checked_sub(1).map_or(0, |at| blocks[at].line);
            panic!(
                "the block of line {line} failed ({}): {said}{last}",
                ran.status
            );
        }
        Some(all)
    }
}

/// A server that the page starts takes the terminal; here it goes on beside what follows, once it is ready.
fn with_terminals(code: &str, number: usize) -> String {
    let mut script = String::new();
    for (at, line) in code.lines().enumerate() {
        let command = line.split(" #").next().expect("a part").trim_end();
        if is_server(command) {
            let log = format!("\"$STAGE/server-{number}-{at}\"");
            writeln!(script, "{command} >{log} 2>&1 &\nstays {log}").expect("a string");
        } else {
            writeln!(script, "{line}").expect("a string");
        }
    }
    script
}

/// Whether it is `sockudo`, `sockudo serve`, or `sockudo` with flags only.
fn is_server(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let is_ours = words.next() == Some("sockudo") && !command.ends_with(['&', '\\', ';']);
    let ends = ["--version", "--help", "|", ">", ";"];
    let first = words.next();
    is_ours && first.is_none_or(|it| it == "serve" || it.starts_with("--") && !ends.contains(&it))
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t"))
}

#[test]
fn servers_go_on_beside_what_follows() {
    for (command, server) in [
        ("sockudo", true),
        ("sockudo --config a.toml", true),
        ("sockudo serve -c a.toml", true),
        ("sockudo config check", false),
        ("sockudo --version", false),
        ("sockudo --config a.toml &", false),
        ("echo sockudo", false),
    ] {
        assert_eq!(is_server(command), server, "{command}");
    }
}
