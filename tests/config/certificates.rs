//! What a check says of the port's certificates: dates, order, and whose key it is.

use std::{fs, path::Path, process::Command};

use serde_json::json;

/// For `openssl ca`, which alone gives a certificate any dates.
const SETTINGS: &str = "\
[req]\ndistinguished_name = name\n[name]\n\
[ca]\ndefault_ca = ours\n\
[ours]\ndatabase = database\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = policy\n\
unique_subject = no\n\
[policy]\ncommonName = supplied\n\
[authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
[own]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = DNS:own.test\n";

const NOW: [&str; 2] = ["250101000000Z", "490101000000Z"];
const LONG_AGO: [&str; 2] = ["200101000000Z", "210101000000Z"];
const SOME_DAY: [&str; 2] = ["480101000000Z", "490101000000Z"];

/// Certificates that vouch for each other; `None` without openssl.
fn make(folder: &Path) -> Option<()> {
    fs::write(folder.join("settings"), SETTINGS).expect("it is ours");
    fs::write(folder.join("database"), "").expect("it is ours");
    fs::write(folder.join("serial"), "1000\n").expect("it is ours");
    for (name, section, [starts, ends], signer) in [
        ("root", "authority", NOW, None),
        ("middle", "authority", NOW, Some("root")),
        ("old-middle", "authority", LONG_AGO, Some("root")),
        ("leaf", "own", NOW, Some("middle")),
        ("old-leaf", "own", LONG_AGO, Some("middle")),
        ("next-leaf", "own", SOME_DAY, Some("middle")),
        ("leaf-of-old", "own", NOW, Some("old-middle")),
    ] {
        let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
        let subject = format!("/CN={name}");
        let asks = [
            "req",
            "-new",
            "-nodes",
            "-config",
            "settings",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &request,
        ];
        openssl(folder, &asks)?;
        let out = format!("{name}.crt");
        let signer = signer.map(|it| (format!("{it}.crt"), format!("{it}.key")));
        let mut signs = vec![
            "ca",
            "-batch",
            "-notext",
            "-config",
            "settings",
            "-in",
            &request,
            "-out",
            &out,
            "-startdate",
            starts,
            "-enddate",
            ends,
            "-extensions",
            section,
        ];
        match &signer {
            Some((cert, key)) => signs.extend(["-cert", cert, "-keyfile", key]),
            None => signs.extend(["-selfsign", "-keyfile", &key]),
        }
        openssl(folder, &signs)?;
    }
    Some(())
}

fn openssl(folder: &Path, arguments: &[&str]) -> Option<()> {
    let made = Command::new("openssl")
        .args(arguments)
        .current_dir(folder)
        .output()
        .ok()?;
    let words = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{arguments:?}: {words}");
    Some(())
}

/// Exit status and words of a strict check of this chain and this key.
fn checked(folder: &Path, chain: &[&str], key: &str) -> (Option<i32>, String) {
    let read = |name: &&str| fs::read_to_string(folder.join(format!("{name}.crt")));
    let chain = chain.iter().map(|name| read(name).expect("it was made"));
    fs::write(folder.join("chain.pem"), chain.collect::<String>()).expect("it is ours");
    let ssl = json!({
        "enabled": true,
        "cert_path": folder.join("chain.pem"),
        "key_path": folder.join(format!("{key}.key")),
    });
    let app = json!({"id": "a", "key": "k", "secret": "a secret of its own"});
    let config = json!({"ssl": ssl, "app_manager": {"array": {"apps": [app]}}});
    fs::write(folder.join("c.json"), config.to_string()).expect("it is ours");
    let output = Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .args(["config", "check", "--strict", "-c", "c.json"])
        .env_clear()
        .current_dir(folder)
        .output()
        .expect("the program was built");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), out)
}

#[test]
fn a_check_says_what_clients_will_not_like_in_a_chain() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    if make(folder).is_none() {
        return eprintln!("skipped: there is no openssl");
    }
    for (chain, key, told) in [
        (&["leaf"][..], "leaf", None),
        (&["leaf", "middle"], "leaf", None),
        (&["leaf", "middle", "root"], "leaf", None),
        (
            &["old-leaf", "middle"],
            "old-leaf",
            Some("it: the certificate ran out at 2021-01-01T00:00:00Z"),
        ),
        (
            &["next-leaf"],
            "next-leaf",
            Some("the certificate is not valid before 2048-01-01T00:00:00Z"),
        ),
        (
            &["leaf-of-old", "old-middle"],
            "leaf-of-old",
            Some("it: number 2 (CN=old-middle) ran out at 2021-01-01T00:00:00Z"),
        ),
        (
            &["leaf", "root"],
            "leaf",
            Some(
                "missing in the chain, and many clients will refuse it: number 1 (CN=leaf) is vouched for by CN=middle, and followed by number 2 (CN=root)",
            ),
        ),
        (
            &["leaf", "root", "middle"],
            "leaf",
            Some(
                "in the wrong order, and many clients will refuse it: number 1 (CN=leaf) is vouched for by number 3 (CN=middle), and followed by number 2 (CN=root)",
            ),
        ),
        (
            &["leaf", "middle", "root", "middle"],
            "leaf",
            Some(
                "too long: number 3 (CN=root) vouches for itself, and number 4 (CN=middle) follows it",
            ),
        ),
    ] {
        let (status, out) = checked(folder, chain, key);
        let warning = out.lines().find(|line| line.starts_with("warning: "));
        match told {
            None => assert_eq!((status, warning), (Some(0), None), "{chain:?}: {out}"),
            Some(told) => {
                let warning = warning.unwrap_or_default();
                assert!(
                    warning.contains("ssl.cert_path") && warning.contains(told),
                    "{out}"
                );
                assert_eq!(status, Some(1), "{chain:?}: {out}");
            }
        }
    }
    // A key of another certificate, and a chain that does not begin with the key's own.
    for chain in [&["next-leaf", "middle"][..], &["middle", "leaf"]] {
        let (status, out) = checked(folder, chain, "leaf");
        assert!(out.contains("does not go with ssl.key_path"), "{out}");
        assert_eq!(status, Some(78), "{chain:?}: {out}");
    }
}
