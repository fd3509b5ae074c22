//! The built program: exit codes, stdout and stderr.

use std::process::Command;

#[test]
fn the_program_exits_with_78_for_a_bad_configuration_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cut.json"), "{\"port\": 6001, ").expect("ours");
    std::fs::write(folder.path().join("warn.json"), "{\"history\": {}}").expect("ours");
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(arguments)
            .env_clear()
            .envs(variables.iter().copied())
            .current_dir(folder.path())
            .output()
            .expect("the program was built");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    for (arguments, variables, part) in [
        (
            &["-c", "cut.json"][..],
            &[][..],
            "cut.json:1: not valid JSON",
        ),
        (
            &["serve", "-c", "cut.json"],
            &[],
            "cut.json:1: not valid JSON",
        ),
        (&["-c", "none.json"], &[], "none.json: cannot be read"),
        (&[], &[("PORT", "abc")], "env PORT: port: \"abc\""),
        (
            &[],
            &[("ADAPTER_DRIVER", "reddis")],
            "env ADAPTER_DRIVER: adapter.driver: \"reddis\"",
        ),
        (&["--port", "abc"], &[], "--port: port: \"abc\""),
        (
            &["config", "show", "-c", "cut.json"],
            &[],
            "cut.json:1: not valid JSON",
        ),
    ] {
        let (code, out, diagnostics) = run(arguments, variables);
        assert_eq!(code, Some(78), "{arguments:?}: {diagnostics}");
        assert!(diagnostics.contains(part), "{arguments:?}: {diagnostics}");
        assert_eq!(out, "", "{arguments:?}");
    }
    let (code, out, _) = run(&["config", "check", "-c", "cut.json"], &[]);
    assert!(code == Some(78) && out.contains("1 error found"), "{out}");
    let (code, out, _) = run(&["config", "check", "-c", "warn.json"], &[]);
    assert!(
        code == Some(0) && out.contains("warning: warn.json:1: history: not supported"),
        "{out}"
    );
    let (code, out, _) = run(
        &["config", "check", "--strict", "--json", "-c", "warn.json"],
        &[],
    );
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &answer["ok"]),
        (Some(1), &serde_json::Value::Bool(true))
    );
    assert_eq!(
        run(&["--prot"], &[]).0,
        Some(2),
        "a flag that does not exist is wrong usage"
    );
}
