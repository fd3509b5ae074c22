//! The Debian package: installed, upgraded, removed and purged by dpkg, below a root of the test's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{skip::skip, text};

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it can be run");
    let said = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said:?}");
    output
}

pub(crate) fn can_pack() -> bool {
    let mut tools = ["dpkg-deb", "strip"].iter();
    tools.all(|it| Path::new("/usr/bin").join(it).exists())
}

/// Packs the built program as that version; the package.
pub(crate) fn packed(folder: &Path, version: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/package-deb");
    let output = folder.join(version);
    let binary = env!("CARGO_BIN_EXE_sockudo");
    let mut command = Command::new(script);
    // For the time that it takes.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip");
    command.env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    command.args(["--binary", binary, "--version", version, "--output"]);
    let printed = text(&run(command.arg(&output)).stdout);
    run(Command::new("sha256sum")
        .args(["--check", "SHA256SUMS"])
        .current_dir(&output));
    let packed = printed.lines().find(|line| line.ends_with(".deb"));
    PathBuf::from(packed.expect("it says which"))
}

/// A root in which nothing is installed.
fn root(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    for part in ["info", "updates", "triggers"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(part)).expect("a folder");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("a file");
    root
}

fn dpkg(root: &Path, what: &[&str]) -> String {
    let mut command = Command::new("dpkg");
    command.arg(format!("--root={}", root.display()));
    // The C library of this host is not that root's.
    command.args(["--force-script-chrootless", "--force-depends"]);
    command.args(["--force-not-root", "--log=/dev/null"]);
    text(&run(command.args(what)).stdout)
}

#[test]
fn the_package_installs_upgrades_and_leaves_nothing_when_it_is_purged() {
    let name = "the_package_installs_upgrades_and_leaves_nothing_when_it_is_purged";
    if !can_pack() {
        return skip(name, "there is no dpkg-deb or strip");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = ["1.0~test1", "1.0~test2"].map(|it| packed(folder.path(), it));
    let root = root(folder.path());
    let shown = |path: &Path| path.to_str().expect("a plain name").to_owned();
    dpkg(&root, &["--install", &shown(&first)]);
    let program = root.join("usr/bin/sockudo");
    let config = root.join("etc/sockudo/sockudo.toml");
    let role = root.join("usr/share/sockudo/ansible/roles/sockudo_host/files");
    for (path, mode) in [
        (program.clone(), 0o755),
        (config.clone(), 0o600),
        (root.join("usr/lib/systemd/system/sockudo.service"), 0o644),
        (root.join("usr/lib/systemd/system/sockudo@.service"), 0o644),
        (root.join("usr/lib/sysusers.d/sockudo.conf"), 0o644),
        (root.join("usr/lib/tmpfiles.d/sockudo.conf"), 0o644),
        (root.join("usr/share/doc/sockudo/copyright"), 0o644),
        (root.join("usr/share/sockudo/monitoring/rules.yml"), 0o644),
        // What the role for Ansible installs lies in it.
        (role.join("sockudo.service"), 0o644),
        (role.join("sockudo@.service"), 0o644),
        (role.join("sysusers.d/sockudo.conf"), 0o644),
        (role.join("tmpfiles.d/sockudo.conf"), 0o644),
    ] {
        let found = fs::metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{path:?}");
    }
    // What it made for itself is a configuration, and no other installation's.
    let checked = run(Command::new(&program)
        .args(["config", "check", "--config"])
        .arg(&config));
    assert!(!text(&checked.stdout).contains("demo"), "{checked:?}");
    let made = fs::read_to_string(&config).expect("text");
    let secret = made.lines().find_map(|line| line.strip_prefix("secret = "));
    assert_eq!(secret.map(str::len), Some(42), "{made}");
    let changed = format!("{made}# an operator was here\n");
    fs::write(&config, &changed).expect("it can be written");
    dpkg(&root, &["--install", &shown(&second)]);
    let status = dpkg(&root, &["--status", "sockudo"]);
    assert!(status.contains("Version: 1.0~test2"), "{status}");
    assert_eq!(fs::read_to_string(&config).expect("text"), changed);
    dpkg(&root, &["--remove", "sockudo"]);
    assert!(!program.exists() && config.exists());
    fs::write(root.join("etc/sockudo/shop.toml"), "").expect("a file");
    dpkg(&root, &["--purge", "sockudo"]);
    assert!(!config.exists());
    assert!(
        root.join("etc/sockudo/shop.toml").exists(),
        "it is an operator's"
    );
    assert!(!root.join("usr").exists());
}

#[test]
fn a_wrong_use_of_the_script_is_said() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/package-deb");
    for (arguments, part) in [
        (
            &["--version", "not a version"][..],
            "no version of a Debian package",
        ),
        (&["--output"], "needs a value"),
        (&["now"], "unknown argument now"),
        (
            &["--binary", "/nowhere", "--version", "1"],
            "/nowhere cannot be run",
        ),
    ] {
        let output = Command::new(script).args(arguments).output();
        let output = output.expect("it can be run");
        assert!(!output.status.success(), "{arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}
