//! Logins to NATS by files: the seed of an nkey, and the JWT and seed of a user.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

use crate::nats::Nats;
use crate::scale_out::{BusKeys, is_ready, node_config, starts};
use crate::support::config::merge;
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;

fn key(kind: KeyPairType, byte: u8) -> KeyPair {
    KeyPair::new_from_raw(kind, [byte; 32]).expect("32 bytes are a key")
}

fn user(byte: u8) -> KeyPair {
    key(KeyPairType::User, byte)
}

fn seed(key: &KeyPair) -> String {
    key.seed().expect("it was made of one")
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, more: Value) -> String {
    let mut claims = json!({
        "jti": "test", "iat": 1, "name": "test", "iss": issuer.public_key(), "sub": subject.public_key(),
        "nats": {"version": 2},
    });
    merge(&mut claims, more);
    let parts = [json!({"typ": "JWT", "alg": "ed25519-nkey"}), claims];
    let signed = parts
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()))
        .join(".");
    let signature = issuer.sign(signed.as_bytes()).expect("it has a seed");
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// An operator with one account.
struct Operator {
    key: KeyPair,
    account: KeyPair,
}

impl Operator {
    fn new(byte: u8) -> Self {
        Self {
            key: key(KeyPairType::Operator, byte),
            account: key(KeyPairType::Account, byte),
        }
    }

    /// Lines of a server that trusts it.
    fn trusted(&self) -> String {
        let own = jwt(&self.key, &self.key, json!({"nats": {"type": "operator"}}));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1,
        });
        let account = json!({"nats": {"type": "account", "limits": limits}});
        let (name, account) = (
            self.account.public_key(),
            jwt(&self.key, &self.account, account),
        );
        format!(
            "operator: \"{own}\"\nresolver: MEMORY\nresolver_preload: {{ {name}: \"{account}\" }}"
        )
    }

    /// A file as `nsc` writes it.
    fn creds(&self, user: &KeyPair, more: Value) -> String {
        let mut claims = json!({"nats": {"type": "user", "subs": -1, "data": -1, "payload": -1}});
        merge(&mut claims, more);
        let (jwt, seed) = (jwt(&self.account, user, claims), seed(user));
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

/// A file that nodes log in with, and the server that they do it at.
struct Login<'a> {
    nats: &'a Nats,
    key: &'static str,
    folder: tempfile::TempDir,
}

impl<'a> Login<'a> {
    fn new(nats: &'a Nats, key: &'static str) -> Self {
        Self {
            nats,
            key,
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("login")
    }

    /// Nobody reads half of it.
    fn holds(&self, text: &str, mode: u32) {
        write(&self.path(), text, mode);
    }
}

fn write(path: &std::path::Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("it can be written");
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&new, mode).expect("it is ours");
    std::fs::rename(&new, path).expect("one folder");
}

impl BusKeys for Login<'_> {
    fn keys(&self) -> Value {
        let mut keys = self.nats.keys();
        merge(
            &mut keys,
            json!({"adapter": {"nats": {self.key: self.path()}}}),
        );
        keys
    }
}

/// Waits for the sentence; the node is not ready with it.
fn is_refused(node: &Server, says: &str) {
    eventually(says, || node.log().contains(says).then_some(()));
    eventually("503", || (node.gets("/up").status == 503).then_some(()));
}

fn hear_each_other(nodes: &[Server; 2]) {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut client = nodes[to].client("client");
        client.subscribes("news");
        nodes[from].api().publishes("n", "news", "x");
        client.expects_frame(json!({"event": "n", "channel": "news", "data": "x"}));
    }
}

fn tells_no(node: &Server, secrets: &[&str]) {
    let log = node.log();
    for secret in secrets {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_node_logs_in_with_the_seed_of_an_nkey() {
    let (known, unknown) = (user(1), user(2));
    let lines = format!(
        "authorization {{ users: [{{ nkey: {} }}] }}",
        known.public_key()
    );
    let Some(nats) = Nats::start_with(&lines) else {
        return skip("a_node_logs_in_with_the_seed_of_an_nkey", "no nats-server");
    };
    let login = Login::new(&nats, "nkey_seed_file");
    login.holds(&format!("{}\n", seed(&known)), 0o640);
    let nodes = ["a", "b"].map(|name| starts(&login, name, json!({})));
    hear_each_other(&nodes);
    for node in &nodes {
        tells_no(node, &["the bus between nodes", "async_nats"]);
    }
    let other = Login::new(&nats, "nkey_seed_file");
    other.holds(&seed(&unknown), 0o644);
    let node = Server::spawn(&node_config(&other, "c", json!({})), 2);
    let refused = format!(
        "refuses the user {} of adapter.nats.nkey_seed_file: allow it there",
        unknown.public_key()
    );
    is_refused(&node, &refused);
    // The next attempt reads it again.
    other.holds(&seed(&known), 0o644);
    is_ready(&node);
    let log = node.log();
    for says in [
        "everybody on this host can read it (mode 644)",
        "has changed, and is used from now on",
        "the bus between nodes is well again",
    ] {
        assert_eq!(log.matches(says).count(), 1, "{says}: {log}");
    }
    tells_no(&node, &[&seed(&known), &seed(&unknown)]);
}

#[test]
fn a_node_logs_in_with_the_jwt_of_a_user_until_it_has_expired() {
    let operator = Operator::new(1);
    let Some(nats) = Nats::start_with(&operator.trusted()) else {
        return skip(
            "a_node_logs_in_with_the_jwt_of_a_user_until_it_has_expired",
            "no nats-server",
        );
    };
    let login = Login::new(&nats, "creds_file");
    login.holds(&operator.creds(&user(1), json!({})), 0o600);
    let nodes = ["a", "b"].map(|name| starts(&login, name, json!({})));
    hear_each_other(&nodes);
    for node in &nodes {
        tells_no(node, &["the bus between nodes", "async_nats"]);
    }
    let expired = Login::new(&nats, "creds_file");
    expired.holds(&operator.creds(&user(2), json!({"exp": 1_000_000})), 0o600);
    let node = Server::spawn(&node_config(&expired, "c", json!({})), 2);
    let refused = format!(
        "refuses the user {}: the JWT in the file of adapter.nats.creds_file expired ",
        user(2).public_key()
    );
    is_refused(&node, &refused);
    expired.holds(&operator.creds(&user(2), json!({})), 0o600);
    is_ready(&node);
    tells_no(&node, &[&seed(&user(2)), "eyJ"]);
}

#[test]
fn a_rotated_creds_file_is_used_when_a_connection_is_made_anew() {
    let name = "a_rotated_creds_file_is_used_when_a_connection_is_made_anew";
    let [before, after] = [1, 2].map(Operator::new);
    let Some(mut nats) = Nats::start_with(&before.trusted()) else {
        return skip(name, "no nats-server");
    };
    let login = Login::new(&nats, "creds_file");
    login.holds(&before.creds(&user(1), json!({})), 0o600);
    let nodes = ["a", "b"].map(|name| starts(&login, name, json!({})));
    let path = login.path();
    let _folder = login.folder;
    // Nobody that the first one knows is known to the next.
    nats.configure(&after.trusted());
    nats.kill();
    nats.start_again();
    let is_unknown = "or is of an account that this server does not know";
    let kept = "holds no user's JWT: wants one below -----BEGIN NATS USER JWT-----, as \
                `nsc generate creds` writes it; what it held before is used";
    for node in &nodes {
        is_refused(node, is_unknown);
    }
    write(&path, "damaged", 0o600);
    for node in &nodes {
        is_refused(node, kept);
    }
    write(&path, &after.creds(&user(2), json!({})), 0o600);
    for node in &nodes {
        is_ready(node);
        let log = node.log();
        for says in [kept, "has changed, and is used from now on"] {
            assert_eq!(log.matches(says).count(), 1, "{says}: {log}");
        }
        tells_no(node, &[&seed(&user(1)), &seed(&user(2)), "eyJ"]);
    }
    hear_each_other(&nodes);
}

#[test]
fn a_file_without_a_login_ends_the_start_with_its_key() {
    let Some(nats) = Nats::start() else {
        return skip(
            "a_file_without_a_login_ends_the_start_with_its_key",
            "no nats-server",
        );
    };
    for (key, text, says) in [
        (
            "nkey_seed_file",
            seed(&user(1)).replace("SU", "SA"),
            "holds a seed whose checksum is wrong",
        ),
        ("creds_file", seed(&user(1)), "holds no user's JWT"),
    ] {
        let login = Login::new(&nats, key);
        login.holds(&text, 0o600);
        let mut node = Server::spawn(&node_config(&login, "a", json!({})), 2);
        assert_eq!(node.exits().code(), Some(78), "{}", node.log());
        let (log, path) = (node.log(), login.path());
        let told = format!("adapter.nats.{key}: {path:?}: {says}");
        // A log escapes quotes.
        assert!(log.replace('\\', "").contains(&told), "{told}: {log}");
        tells_no(&node, &[&text]);
    }
}
