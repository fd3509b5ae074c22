//! The role for Ansible: its syntax, and what ansible-lint thinks of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::skip::skip;

/// Where scripts/test installs it.
fn programs() -> Option<PathBuf> {
    let tools = PathBuf::from(std::env::var_os("SOCKUDO_TEST_TOOLS")?);
    let programs = tools.join("ansible/bin");
    programs.join("ansible-lint").is_file().then_some(programs)
}

#[test]
fn the_role_is_as_ansible_wants_it() {
    let Some(programs) = programs() else {
        skip(
            "the_role_is_as_ansible_wants_it",
            "ansible-lint is not installed (scripts/test installs it)",
        );
        return;
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let hosts = scratch.path().join("hosts");
    std::fs::write(&hosts, "[sockudo]\nlocalhost ansible_connection=local\n").expect("ours");
    let path = format!(
        "{}:{}",
        programs.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(programs.join(program))
            .args(arguments)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/ansible"))
            // It keeps caches at home, and looks for its own programs on the path.
            .env("HOME", scratch.path())
            .env("PATH", &path)
            .output()
            .expect("it is installed");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
    };
    let hosts = hosts.display().to_string();
    run(
        "ansible-playbook",
        &["--syntax-check", "--inventory", &hosts, "site.yml"],
    );
    run(
        "ansible-lint",
        &["--offline", "--profile", "production", "site.yml", "roles"],
    );
}
