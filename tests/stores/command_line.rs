//! `sockudo apps` on a table, and where the configuration keeps the apps.

use std::collections::BTreeMap;

use clap::Parser as _;
use serde_json::{Value, json};
use sockudo::cli::{Cli, Command, apps, config::Answer};
use sockudo::config::{Loaded, Sources, load};

use crate::backend::{Backend, Kind, Variables};

/// Who types the commands.
pub(crate) struct Operator {
    loaded: Loaded,
}

impl Operator {
    /// Of a table, as a user that may change it.
    pub(crate) fn on(backend: &Backend, user: &str) -> Self {
        Self::with(&backend.variables(user))
    }

    pub(crate) fn with(variables: &Variables) -> Self {
        let loaded = loaded(variables.all.clone());
        Self { loaded }
    }

    /// `sockudo migrate-db`.
    pub(crate) fn migrates(&self) -> Answer {
        let cli = Cli::try_parse_from(["sockudo", "migrate-db"]).expect("a command");
        match cli.command {
            Some(Command::MigrateDb(of)) => apps::migrate_db_of(&of, self.loaded.clone()),
            other => panic!("no command of a table: {other:?}"),
        }
    }

    pub(crate) fn types(&self, words: &[&str]) -> Answer {
        let cli = Cli::try_parse_from(["sockudo", "apps"].iter().chain(words));
        let command = match cli {
            Ok(cli) => cli.command,
            Err(error) => panic!("{words:?}: {error}"),
        };
        match command {
            Some(Command::Apps(command)) => apps::answer(&command, self.loaded.clone()),
            other => panic!("{words:?} is no command of apps: {other:?}"),
        }
    }

    /// The command must do what it says.
    #[track_caller]
    pub(crate) fn does(&self, words: &[&str]) -> String {
        let answer = self.types(words);
        assert_eq!(answer.exit, 0, "{words:?}: {}", answer.diagnostics);
        answer.out
    }

    /// The command must do nothing, and say so.
    #[track_caller]
    pub(crate) fn is_refused(&self, words: &[&str], part: &str) {
        let answer = self.types(words);
        assert_eq!(answer.exit, 1, "{words:?}: {answer:?}");
        assert!(answer.diagnostics.contains(part), "{words:?}: {answer:?}");
    }

    #[track_caller]
    pub(crate) fn shows(&self, id: &str) -> Value {
        let out = self.does(&["get", id, "--json", "--secrets"]);
        serde_json::from_str(&out).expect("JSON")
    }
}

fn loaded(environment: BTreeMap<String, String>) -> Loaded {
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    match load(&sources) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{errors}"),
    }
}

on_every_store!(
    an_app_is_added_changed_shown_and_removed,
    a_table_of_others_is_used_as_it_is_and_never_altered,
    what_is_exported_can_be_imported,
    an_import_that_cannot_begin_blames_no_app,
);

fn an_app_is_added_changed_shown_and_removed(backend: &Backend) {
    let (owner, reader) = (
        Operator::on(backend, "owner"),
        Operator::on(backend, "reader"),
    );
    owner.is_refused(&["list"], "`sockudo apps init` creates it");
    let knows_users = backend.kind != Kind::Dynamodb;
    if knows_users {
        reader.is_refused(&["init"], "does not let reader");
    }
    assert_eq!(owner.does(&["init"]), "made the table\n");
    assert_eq!(
        owner.does(&["init"]),
        "the table is there, with every column\n"
    );

    let hook = "webhooks=[{\"url\": \"http://h.example/in?token=hidden\", \"event_types\": [\"member_added\"]}]";
    owner.does(&[
        "add",
        "shop",
        "--key",
        "shop-key",
        "max_connections=5",
        hook,
        "secret=first",
    ]);
    for (words, json) in [
        (
            &["init"][..],
            json!({"done": "the table is there, with every column"}),
        ),
        (&["remove", "gone"], json!({"removed": "gone"})),
    ] {
        owner.types(&["add", "gone"]);
        let out = owner.does(&[words, &["--json"]].concat());
        let shown: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(shown, json, "{words:?}");
    }
    // In a webhook that has a URL no region is shown.
    let shown = owner.does(&["get", "shop"]);
    assert!(
        shown.contains("http://h.example/") && !shown.contains("region"),
        "{shown}"
    );
    let told = owner.does(&[
        "add",
        "Shop",
        "maxPresenceMembersPerChannel=7",
        "enabled=no",
    ]);
    let key = &owner.shows("Shop")["key"];
    assert_eq!(told, format!("added Shop\nkey = {key}\n"));
    let shop = owner.shows("shop");
    assert_eq!(
        (&shop["key"], &shop["max_connections"]),
        (&"shop-key".into(), &5.into())
    );
    assert_eq!(shop["webhooks"][0]["event_types"][0], "member_added");
    let other = reader.shows("Shop");
    assert_eq!(other["max_presence_members_per_channel"], 7);
    let secret = other["secret"].as_str().expect("one was made");
    assert_eq!(secret.len(), 40);
    let url = "http://h.example/in?token=hidden";
    assert_eq!(reader.shows("shop")["webhooks"][0]["url"], url);
    for words in [
        &["get", "shop"][..],
        &["get", "shop", "--json"],
        &["list", "--json"],
    ] {
        let masked = reader.does(words);
        let is_masked = masked.contains("\"http://h.example/***\"") && !masked.contains("hidden");
        assert!(is_masked, "{words:?}: {masked}");
    }
    let masked = reader.does(&["get", "Shop"]) + &reader.does(&["list", "--json"]);
    assert!(
        !masked.contains(secret) && masked.contains("***"),
        "{masked}"
    );

    for (words, part) in [
        (&["add", "shop"][..], "there is an app \"shop\" already"),
        (
            &["add", "new", "--key", "shop-key"],
            "this id or key is there already",
        ),
        (
            &["add", "with space"],
            "id: \"with space\" is not 1..=255 bytes",
        ),
        (&["set", "none", "enabled=no"], "there is no app \"none\""),
        (&["set", "SHOP", "enabled=no"], "there is no app \"SHOP\""),
        (&["set", "shop ", "enabled=no"], "there is no app \"shop \""),
        (
            &["set", "shop", "max_conections=1"],
            "did you mean max_connections?",
        ),
        (
            &["set", "shop", "max_connections=many"],
            "max_connections: \"many\" is not",
        ),
        (&["set", "shop", "id=x"], "id names the app"),
        (&["set", "shop", "secret="], "secret: is required"),
        (&["set", "shop", "enabled"], "is no KEY=VALUE"),
        (&["remove", "shoP"], "there is no app"),
    ] {
        owner.is_refused(words, part);
    }
    if backend.kind == Kind::Mysql {
        let words = ["set", "shop", "max_event_batch_size=-1"];
        owner.is_refused(&words, "its column is unsigned");
        let words = ["set", "shop", "max_event_payload_in_kb=1.5"];
        owner.is_refused(&words, "its column holds whole numbers only");
    }
    if knows_users {
        reader.is_refused(&["set", "shop", "enabled=no"], "does not let reader");
    }
    assert_eq!(owner.shows("shop"), shop, "nothing was written");

    owner.does(&[
        "set",
        "shop",
        "max_connections=-1",
        "webhooks=",
        "max_client_events_per_sec=9",
    ]);
    for words in [
        &["disable", "shop"][..],
        &["enable", "shop"],
        &["disable", "shop", "--json"],
    ] {
        let said = owner.types(words).diagnostics;
        let later = "running nodes follow within 300 s, or at once: sockudo apps reload\n";
        assert_eq!(said, later, "{words:?}");
    }
    let shop = owner.shows("shop");
    assert_eq!(
        (&shop["max_connections"], &shop["webhooks"]),
        (&0.into(), &Value::Null)
    );
    assert_eq!(
        (&shop["max_client_events_per_second"], &shop["enabled"]),
        (&9.into(), &false.into())
    );
    owner.does(&["enable", "shop"]);
    assert_eq!(owner.shows("shop")["enabled"], true);

    let answer = owner.types(&["rotate-secret", "shop"]);
    assert!(
        answer.diagnostics.contains("apps set shop secrets=")
            && answer
                .diagnostics
                .contains("running nodes follow within 300 s"),
        "{answer:?}"
    );
    let rotated = owner.shows("shop");
    assert_eq!(rotated["secrets"], json!(["first"]));
    assert_ne!(rotated["secret"], "first");
    owner.does(&["set", "shop", "secrets="]);
    assert_eq!(owner.shows("shop")["secrets"], Value::Null);

    let listed = reader.does(&["list"]);
    let first: Vec<&str> = listed
        .lines()
        .map(|line| line.split(' ').next().unwrap_or(""))
        .collect();
    assert_eq!(first, ["ID", "Shop", "shop"], "{listed}");
    let said = owner.types(&["remove", "Shop"]).diagnostics;
    assert!(
        said.starts_with("running nodes follow within 300 s"),
        "{said}"
    );
    let said = owner.types(&["add", "Shop"]).diagnostics;
    let later = "running nodes find the app when it is used; those that have just missed it, within 10 s, or at once";
    assert!(said.starts_with(later), "{said}");
    owner.does(&["remove", "Shop"]);
    owner.is_refused(&["get", "Shop"], "there is no app \"Shop\"");
    owner.does(&["get", "shop"]);
}

fn a_table_of_others_is_used_as_it_is_and_never_altered(backend: &Backend) {
    if backend.kind == Kind::Dynamodb {
        return; // It has no columns: `on_dynamodb`.
    }
    let key = backend.quotes("key");
    backend.run(&[
        &format!(
            "CREATE TABLE sockudo.applications (id VARCHAR(255), {key} VARCHAR(255) UNIQUE, \
             secret VARCHAR(255), max_connections INT NOT NULL, enabled SMALLINT NOT NULL, \
             max_client_events_per_sec INT)"
        ),
        "INSERT INTO sockudo.applications VALUES ('a', 'a', 's', -1, 1, NULL),
            ('A', 'other', 's', 0, 1, NULL),
            ('broken', 'b b', 's', 0, 1, NULL)",
    ]);
    let in_quotes = |text: &str| text.replace('"', &key[..1]);
    let list = match backend.kind {
        Kind::Mysql => "JSON",
        Kind::Pgsql | Kind::Dynamodb => "JSONB",
    };
    let owner = Operator::on(backend, "owner");
    let answer = owner.types(&["init"]);
    assert_eq!(answer.exit, 1);
    let as_json = owner.types(&["init", "--json"]);
    let shown: Value = serde_json::from_str(&as_json.out).expect("JSON");
    assert_eq!((as_json.exit, &shown["done"]), (1, &Value::Null));
    assert_eq!(shown["lacks"], answer.out.trim_end_matches([';', '\n']));
    assert!(
        answer
            .out
            .starts_with(&in_quotes("ALTER TABLE \"applications\"\n  ADD COLUMN \"")),
        "{}",
        answer.out
    );
    assert!(
        !answer.out.contains("max_client_events_per_second"),
        "{}",
        answer.out
    );
    owner.is_refused(
        &["rotate-secret", "a"],
        &in_quotes(&format!(
            "ALTER TABLE \"applications\" ADD COLUMN \"secrets\" {list} NULL"
        )),
    );
    owner.is_refused(
        &["set", "a", "require_tls=yes"],
        &in_quotes("ADD COLUMN \"require_tls\" BOOLEAN NULL"),
    );
    owner.does(&["set", "a", "max_client_events_per_second=3"]);
    assert_eq!(owner.shows("a")["max_client_events_per_second"], 3);
    assert_eq!(owner.shows("a")["secret"], "s");
    // The database takes these two for one.
    assert_eq!(
        owner.shows("A")["max_client_events_per_second"],
        Value::Null
    );
    owner.does(&["remove", "A"]);
    assert_eq!(owner.shows("a")["key"], "a");
    // What columns want that the operator did not say.
    owner.does(&["add", "c"]);
    assert_eq!(owner.shows("c")["enabled"], true);

    // One that cannot be is said, and can be mended or removed.
    let answer = owner.types(&["list"]);
    assert_eq!((answer.exit, answer.out.lines().count()), (1, 3));
    assert!(
        answer
            .diagnostics
            .contains("\"broken\" cannot be used: key: "),
        "{answer:?}"
    );
    owner.is_refused(&["get", "broken"], "key: ");
    owner.does(&["set", "broken", "key=whole"]);
    assert_eq!(owner.shows("broken")["key"], "whole");
    owner.does(&["remove", "broken"]);

    // The statement completes the table.
    let statement = owner.types(&["init"]).out;
    let statement = statement.replacen("applications", &in_quotes("sockudo\".\"applications"), 1);
    backend.run(&[statement.trim_end_matches(['\n', ';'])]);
    assert_eq!(
        owner.does(&["init"]),
        "the table is there, with every column\n"
    );
}

fn an_import_that_cannot_begin_blames_no_app(backend: &Backend) {
    let owner = Operator::on(backend, "owner");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("apps.toml");
    let text = "[[app_manager.array.apps]]\nid = 'd'\nkey = 'd'\nsecret = 's'\n";
    std::fs::write(&path, text).expect("a file");
    let answer = owner.types(&["import", &path.to_string_lossy()]);
    let said = &answer.diagnostics;
    assert_eq!(answer.exit, 1, "{said}");
    assert!(
        said.starts_with("no app was imported: ")
            && said.contains("`sockudo apps init` creates it"),
        "{said}"
    );
    assert!(!said.contains("the app \""), "{said}");
}

fn what_is_exported_can_be_imported(backend: &Backend) {
    let owner = Operator::on(backend, "owner");
    owner.does(&["init"]);
    owner.does(&[
        "add",
        "a",
        "secret=s-a",
        "allowed_origins=https://a.example,*.b.example",
    ]);
    owner.does(&["add", "b", "secret=s-b", "max_event_payload_in_kb=7"]);
    let masked = owner.types(&["export"]);
    assert!(
        !masked.out.contains("s-a") && masked.diagnostics.contains("--secrets"),
        "{masked:?}"
    );
    let exported = owner.does(&["export", "--secrets"]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("apps.json");
    std::fs::write(&path, &exported).expect("a file");
    let path = path.to_string_lossy().into_owned();
    owner.does(&["remove", "a"]);
    owner.does(&["set", "b", "max_event_payload_in_kb=8"]);
    let out = owner.does(&["import", &path]);
    assert_eq!(
        out,
        "1 added, 0 changed, 1 left as they were (--overwrite changes them too)\n"
    );
    let answer = owner.types(&["import", &path]);
    assert_eq!(answer.diagnostics, "", "nothing was changed");
    let answer = owner.types(&["import", &path, "--overwrite"]);
    assert_eq!(answer.out, "0 added, 2 changed, 0 left as they were\n");
    assert!(
        answer
            .diagnostics
            .starts_with("running nodes follow within 300 s"),
        "{answer:?}"
    );
    let out = owner.does(&["import", &path, "--json"]);
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(shown, json!({"added": 0, "changed": 0, "left": 2}));
    assert_eq!(owner.does(&["export", "--secrets"]), exported);

    // Nothing is written where one does not hold.
    let toml = folder.path().join("apps.toml");
    let text = "[[app_manager.array.apps]]\nid = 'd'\nkey = 'd'\nsecret = 's'\n\
                [[app_manager.array.apps]]\nid = 'e'\nkey = 'e'\n";
    std::fs::write(&toml, text).expect("a file");
    let toml = toml.to_string_lossy().into_owned();
    owner.is_refused(
        &["import", &toml],
        "the app \"e\" would not hold:\nsecret: is required",
    );
    owner.is_refused(&["get", "d"], "there is no app");

    // Nor, in a database with transactions, where one meets another's key.
    if backend.kind != Kind::Dynamodb {
        let one = |id: &str, key: &str| {
            format!("[[app_manager.array.apps]]\nid = '{id}'\nkey = '{key}'\nsecret = 's'\n")
        };
        let doubled = [
            one("a", "key-of-a"),
            one("d", "d"),
            one("e", &owner.shows("b")["key"].to_string().replace('"', "")),
        ];
        std::fs::write(&toml, doubled.concat()).expect("a file");
        owner.is_refused(
            &["import", &toml, "--overwrite"],
            "the app \"e\" was not imported: an app with this id or key is there already",
        );
        owner.is_refused(&["get", "d"], "there is no app");
        assert_eq!(owner.does(&["export", "--secrets"]), exported);
    }
    owner.is_refused(&["import", "/nowhere.json"], "/nowhere.json: ");
}

#[test]
fn where_the_configuration_keeps_the_apps_lines_are_printed_and_nothing_is_written() {
    let variables = [("ID", "v"), ("KEY", "v-key"), ("SECRET", "v-secret")];
    let variable =
        |(name, value): (&str, &str)| (format!("SOCKUDO_DEFAULT_APP_{name}"), value.to_owned());
    let operator = Operator {
        loaded: loaded(variables.map(variable).into()),
    };
    assert!(operator.does(&["list"]).contains("v-key"));
    assert!(!operator.does(&["get", "v"]).contains("v-secret"));
    // A secret that was made for it stands nowhere else.
    for (words, shows) in [
        (&["add", "n", "max_connections=3"][..], true),
        (&["set", "v", "max_connections=3"], false),
        (&["rotate-secret", "v"], true),
    ] {
        let answer = operator.types(words);
        assert_eq!(answer.exit, 0, "{answer:?}");
        assert!(
            answer.diagnostics.contains("nothing was written"),
            "{answer:?}"
        );
        let app: Value = serde_json::from_str(&answer.out).expect("lines of a file");
        assert!(app["id"].is_string(), "{app}");
        assert_eq!(app["secret"] != "***", shows, "{app}");
    }
    let answer = operator.types(&["remove", "v"]);
    assert!(
        answer.diagnostics.contains("take the app v out of it"),
        "{answer:?}"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("apps.toml");
    let app = "[[app_manager.array.apps]]\nid = 'd'\nkey = 'd'\nsecret = 's'\n";
    let two = [app, &app.replace("'d'", "'e'")].concat();
    std::fs::write(&path, two).expect("a file");
    for (words, count) in [
        (&["import", &*path.to_string_lossy(), "--json"][..], Some(2)),
        (&["remove", "v", "--json"], None),
        (&["init", "--json"], None),
    ] {
        let answer = operator.types(words);
        let shown: Value = serde_json::from_str(&answer.out).expect("JSON");
        assert_eq!(shown.as_array().map(Vec::len), count, "{words:?}: {shown}");
        assert!(!answer.diagnostics.contains("running nodes"), "{answer:?}");
    }
    operator.is_refused(&["get", "w"], "there is no app \"w\"");
    assert_eq!(operator.types(&["init"]).exit, 0);
}
