//! Apps in a table of DynamoDB.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockudo::bridge::apps::store::Store;

use crate::backend::{Backend, Kind, Variables};
use crate::command_line::Operator;
use crate::moto::Moto;
use crate::{configuration, found, id, ids, is_down, key, skip};

/// Starts the server, or says why not and ends the test.
macro_rules! moto_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(server) => server,
            None => return skip::skip($test, "there is no moto; `scripts/test` installs it"),
        }
    };
}

/// For tests that also run commands, which have one of their own.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

fn puts(backend: &Backend, item: &Value) {
    let table = "sockudo-applications";
    backend.tells("PutItem", json!({"TableName": table, "Item": item}));
}

#[tokio::test]
async fn attributes_of_any_type_are_read() {
    let backend = moto_or_skip!(
        "attributes_of_any_type_are_read",
        Backend::start(Kind::Dynamodb)
    );
    backend.makes_loose_table();
    puts(
        &backend,
        &json!({
            "id": {"S": "odd"}, "key": {"S": "odd-key"}, "secret": {"S": "first"}, "enabled": {"N": "0"},
            "enable_client_messages": {"S": "yes"}, "max_connections": {"N": "1E+6"},
            "max_client_events_per_second": {"S": "12"}, "max_event_payload_in_kb": {"N": "0.50"},
            "max_presence_members_per_channel": {"NULL": true}, "logo": {"B": "AAAA"},
            "webhooks": {"L": [{"M": {"url": {"S": "http://h.example/"},
                "event_types": {"L": [{"S": "member_added"}]}, "headers": {"M": {"a": {"S": "b"}}}}}]},
            "allowed_origins": {"SS": ["https://a.example"]}, "secrets": {"L": [{"S": "second"}]},
        }),
    );
    for name in ["1", "2"] {
        let twice = json!({"id": {"S": name}, "key": {"S": "twice"}, "secret": {"S": "s"}});
        puts(&backend, &twice);
    }
    puts(
        &backend,
        &json!({
            "id": {"S": "wrong"}, "key": {"S": "wrong"}, "secret": {"S": "s"}, "webhooks": {"B": "AAAA"},
        }),
    );
    let store = backend.variables("reader").store();
    for name in [key("odd-key"), id("odd")] {
        let app = found(store.find(name).await);
        assert_eq!((app.enabled, app.enable_client_messages), (false, true));
        assert_eq!(app.max_connections, 1_000_000);
        assert_eq!(app.max_client_events_per_second, 12);
        assert_eq!(app.event_payload_bytes_max, 512);
        assert_eq!(app.max_presence_members_per_channel, 100);
        assert_eq!((app.webhooks.len(), app.allowed_origins.len()), (1, 1));
        let secrets: Vec<&str> = app.secrets.iter().map(|it| it.expose()).collect();
        assert_eq!(secrets, ["first", "second"]);
    }
    let twice = store.find(key("twice")).await.expect_err("which one?");
    assert!(twice.to_string().contains("several rows have this one"));
    let wrong = store.find(id("wrong")).await.expect_err("no webhooks");
    assert!(
        wrong.to_string().contains("webhooks: is of a type"),
        "{wrong}"
    );
    let all = store.find_all(ids(&["odd", "odd", "1", "wrong"])).await;
    let all = all.expect("an answer");
    assert_eq!((all.apps.len(), all.malformed.len()), (2, 1));
}

#[test]
fn a_table_of_soketi_is_read_and_written_by_its_own_names() {
    let runtime = runtime();
    let backend = moto_or_skip!("a_table_of_soketi", Backend::start(Kind::Dynamodb));
    let variables = backend.variables("owner").with("TABLE_NAME", "apps");
    let variables = variables.with("LAYOUT", "soketi");
    let owner = Operator::with(&variables);
    assert_eq!(owner.does(&["init"]), "made the table\n");
    backend.tells("PutItem", json!({"TableName": "apps", "Item": {
        "AppId": {"S": "a"}, "AppKey": {"S": "a-key"}, "AppSecret": {"S": "s"},
        "MaxConnections": {"N": "-1"}, "EnableClientMessages": {"BOOL": true}, "Enabled": {"BOOL": true},
        "MaxBackendEventsPerSecond": {"N": "-1"}, "Webhooks": {"S": "[]"},
    }}));
    let store = variables.store();
    for name in [key("a-key"), id("a")] {
        let app = found(runtime.block_on(store.find(name)));
        assert_eq!((&*app.key, app.max_connections), ("a-key", 0));
        assert!(app.enable_client_messages);
    }
    assert_eq!(
        runtime
            .block_on(store.find_all(ids(&["a"])))
            .expect("one")
            .apps
            .len(),
        1
    );
    owner.does(&["set", "a", "max_connections=5"]);
    owner.does(&["add", "b", "--key", "b-key"]);
    owner.is_refused(&["add", "c", "--key", "b-key"], "is there already");
    assert_eq!(owner.shows("a")["max_connections"], 5);
    assert_eq!(found(runtime.block_on(store.find(key("b-key")))).id, "b");
    assert_eq!(owner.does(&["list"]).lines().count(), 3);
}

#[test]
fn a_refusal_names_the_key_and_what_to_do() {
    let runtime = runtime();
    let server = moto_or_skip!("a_refusal_names_the_key", Moto::start());
    let variables = Variables::of_dynamodb(server.address);
    let store = variables.store();
    let parts = [
        &*server.url(),
        "no table",
        "sockudo apps init",
        "database.dynamodb.table_name",
    ];
    is_down(runtime.block_on(store.find(key("app"))), &parts);
    is_down(runtime.block_on(store.find(id("app"))), &parts);
    is_down(runtime.block_on(store.find_all(ids(&["app"]))), &parts);
    is_down(runtime.block_on(store.find_all(Vec::new())), &parts);
    // A table without the index by which keys are found.
    server.does(
        "dynamodb",
        "DynamoDB_20120810.CreateTable",
        &json!({
            "TableName": "sockudo-applications", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        }),
    );
    is_down(runtime.block_on(store.find(key("app"))), &["KeyIndex"]);
    let owner = Operator::with(&variables);
    let answer = owner.types(&["init"]);
    assert_eq!(answer.exit, 1, "{answer:?}");
    assert!(
        answer.out.starts_with("aws dynamodb update-table"),
        "{answer:?}"
    );

    let nowhere = variables.clone().with("ENDPOINT_URL", "http://127.0.0.1:1");
    let parts = [
        "cannot be reached",
        "database.dynamodb.endpoint_url",
        "refused",
    ];
    is_down(runtime.block_on(nowhere.store().find(key("app"))), &parts);
    let nowhere = variables.with("ENDPOINT_URL", "http://nowhere.invalid");
    is_down(
        runtime.block_on(nowhere.store().find(key("app"))),
        &["cannot be reached"],
    );
}

#[tokio::test]
async fn credentials_that_are_not_known_are_named() {
    let server = moto_or_skip!(
        "credentials_that_are_not_known",
        Moto::start_knowing_nobody()
    );
    let store = Variables::of_dynamodb(server.address).store();
    let parts = [
        "refuses our credentials",
        "database.dynamodb.aws_access_key_id",
    ];
    is_down(store.find(key("app")).await, &parts);
}

/// Runs alone in its process, as every test here does: what it takes away from the environment nobody else needs.
#[test]
fn without_credentials_the_start_says_so_within_three_seconds() {
    // Something listens where the metadata service should be, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.json");
    let text = json!({"app_manager": {"driver": "dynamodb"}, "host": "127.0.0.1", "port": 0});
    std::fs::write(&config, text.to_string()).expect("a file");
    let begun = Instant::now();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .arg("--config")
        .arg(&config)
        .env_clear()
        .env("HOME", folder.path())
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let lasted = begun.elapsed();
    let said = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
    assert!(!done.status.success(), "{said}");
    assert!(
        said.contains("database.dynamodb.aws_access_key_id"),
        "{said}"
    );
    assert!(said.contains("there are no AWS credentials"), "{said}");
    // Two and a half of its own; the rest is for a machine that has others to do.
    assert!(lasted < Duration::from_secs(10), "{lasted:?}");
}

#[test]
fn a_blank_variable_of_aws_is_as_good_as_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join(".aws");
    std::fs::create_dir(&files).expect("a folder");
    let keys = "[default]\naws_access_key_id = a\naws_secret_access_key = s\n";
    std::fs::write(files.join("credentials"), keys).expect("a file");
    for (name, value) in [
        ("AWS_PROFILE", ""),
        ("AWS_PROFILE", " "),
        ("AWS_CONFIG_FILE", ""),
        ("AWS_SHARED_CREDENTIALS_FILE", ""),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", ""),
        ("AWS_REGION", ""),
        ("AWS_ACCESS_KEY_ID", ""),
    ] {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_sockudo"))
            .args(["apps", "list"])
            .env_clear()
            .env("HOME", folder.path())
            .env("APP_MANAGER_DRIVER", "dynamodb")
            .env(
                "SOCKUDO__DATABASE__DYNAMODB__ENDPOINT_URL",
                "http://127.0.0.1:1",
            )
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env(name, value)
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(
            said.contains("cannot be reached"),
            "{name}={value:?}: {said}"
        );
    }
}

#[test]
fn half_of_the_credentials_is_refused() {
    let address = "127.0.0.1:1".parse().expect("an address");
    let mut variables = Variables::of_dynamodb(address);
    variables
        .all
        .remove("SOCKUDO__DATABASE__DYNAMODB__AWS_SECRET_ACCESS_KEY");
    let sources = sockudo::config::Sources {
        environment: variables.all.clone(),
        ..Default::default()
    };
    let errors = sockudo::config::load(&sources)
        .expect_err("half")
        .to_string();
    assert!(
        errors.contains("database.dynamodb.aws_access_key_id: needs"),
        "{errors}"
    );
    let whole = configuration(&Variables::of_dynamodb(address).all);
    assert!(matches!(Store::start(&whole), Ok(Some(Store::Dynamodb(_)))));
}
