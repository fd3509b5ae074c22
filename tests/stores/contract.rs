//! What every store of apps keeps to.

use std::time::Duration;

use serde_json::json;
use sockudo::bridge::apps::store::StoreError;
use sockudo::config::app::EventType;
use tokio::time::Instant;

use crate::backend::{Backend, Kind, PASSWORD};
use crate::{answers_again, found, id, ids, is_down, key, skip};

/// Each of them on every store.
macro_rules! on_every_store {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[tokio::test]
            async fn on_dynamodb() {
                super::started(stringify!($test), super::Kind::Dynamodb, super::$test).await;
            }
            #[tokio::test]
            async fn on_mysql() {
                super::started(stringify!($test), super::Kind::Mysql, super::$test).await;
            }
            #[tokio::test]
            async fn on_pgsql() {
                super::started(stringify!($test), super::Kind::Pgsql, super::$test).await;
            }
        }
    )+ };
}

async fn started(test: &str, kind: Kind, body: impl AsyncFnOnce(Backend)) {
    match Backend::start(kind) {
        Some(backend) => body(backend).await,
        None => skip::skip(test, "its database is missing; `scripts/test` installs it"),
    }
}

on_every_store!(
    an_app_is_found_by_exactly_its_key_or_id,
    a_row_that_is_no_app_is_told_and_spoils_no_other,
    a_refusal_names_the_key_and_what_to_do,
    a_server_that_was_killed_is_found_again,
    a_stopped_server_holds_nobody_beyond_the_deadline,
    a_server_that_accepts_and_never_answers_holds_nobody,
    many_apps_are_found_at_once,
);

async fn an_app_is_found_by_exactly_its_key_or_id(backend: Backend) {
    backend.makes_loose_table();
    backend.puts(&[
        json!({"id": "shop", "key": "app-key", "secret": "geheim \u{1f511}", "max_connections": 1000,
            "webhooks": [{"url": "http://h.example/", "event_types": ["member_added"]}],
            "allowed_origins": ["https://a.example", "*.b.example"]}),
        json!({"id": "\u{1f6d2}", "key": "k2", "secret": "s", "webhooks": "null"}),
        json!({"id": "q'uo\"te\\,{}", "key": "k3", "secret": "s"}),
    ]);
    let store = backend.variables("reader").store();
    for name in [key("app-key"), id("shop")] {
        let app = found(store.find(name).await);
        assert_eq!((&*app.id, &*app.key), ("shop", "app-key"));
        assert_eq!(app.secrets[0].expose(), "geheim \u{1f511}");
        assert_eq!((app.max_connections, app.enabled), (1000, true));
        assert_eq!(app.webhooks[0].event_types, [EventType::MemberAdded]);
        assert_eq!(app.allowed_origins, ["https://a.example", "*.b.example"]);
    }
    for name in ["\u{1f6d2}", "q'uo\"te\\,{}"] {
        let app = found(store.find(id(name)).await);
        assert!(
            app.webhooks.is_empty() && app.allowed_origins.is_empty(),
            "{name}"
        );
    }
    // What a database may think equal, and what a stranger may send.
    let long = "k".repeat(256);
    let strangers = [
        "APP-KEY",
        "app-key ",
        "\u{e4}pp-key",
        "app-ke\u{79}\u{301}",
        "app-key\0",
        "app_key",
        "%",
        "",
        "' OR 1=1 -- ",
        "$1",
        "{}",
        &long,
    ];
    for name in strangers {
        for name in [key(name), id(name)] {
            let answer = store.find(name.clone()).await;
            assert_eq!(answer.map(|it| it.is_none()), Ok(true), "{name:?}");
        }
    }
    let mut asked = ids(&strangers);
    asked.extend(ids(&["shop", "\u{1f6d2}", "q'uo\"te\\,{}"]));
    let apps = store.find_all(asked).await.expect("the others").apps;
    assert_eq!(apps.len(), 3, "{apps:?}");
}

async fn a_row_that_is_no_app_is_told_and_spoils_no_other(backend: Backend) {
    backend.makes_loose_table();
    let hook = json!([{"url": "ftp://u:hunter@h", "event_types": []}]);
    let cases = [
        (
            json!({"id": "hook", "secret": "s", "webhooks": hook}),
            "webhooks[0].url: ",
        ),
        (
            json!({"id": "text", "secret": "s", "webhooks": "{]"}),
            "webhooks: ",
        ),
        (
            json!({"id": "secret", "secret": null}),
            "secret: is required",
        ),
        (
            json!({"id": "origin", "secret": "s", "allowed_origins": ["https://*.*.a"]}),
            "allowed_origins[0]: ",
        ),
        (
            json!({"id": "count", "secret": "s", "max_connections": "many"}),
            "max_connections: \"many\" is not",
        ),
        (
            json!({"id": "with space", "secret": "s"}),
            "id: \"with space\" is not 1..=255 bytes without spaces",
        ),
    ];
    let mut rows = vec![json!({"id": "good", "key": "good", "secret": "s"})];
    for (mut row, _) in cases.clone() {
        let name = row["id"].as_str().expect("an id").replace(' ', "-");
        row["key"] = format!("key-of-{name}").into();
        rows.push(row);
    }
    backend.puts(&rows);
    let store = backend.variables("reader").store();
    for (row, fault) in &cases {
        let name = row["id"].as_str().expect("an id");
        match store.find(id(name)).await {
            Err(StoreError::Malformed { id, faults, .. }) => {
                assert_eq!(id, name);
                assert!(faults[0].starts_with(fault), "{faults:?}");
                assert!(!faults[0].contains("hunter"), "{faults:?}");
            }
            other => panic!("{name} should be malformed: {other:?}"),
        }
    }
    let all = rows
        .iter()
        .flat_map(|row| row["id"].as_str())
        .chain(["none"]);
    let all: Vec<&str> = all.collect();
    let looked_at = store.find_all(ids(&all)).await.expect("the others");
    assert_eq!(looked_at.apps.len(), 1);
    assert_eq!(looked_at.apps[0].id, "good");
    assert_eq!(looked_at.malformed.len(), cases.len());
}

async fn a_refusal_names_the_key_and_what_to_do(backend: Backend) {
    if backend.kind == Kind::Dynamodb {
        return; // Its refusals are others: `on_dynamodb`.
    }
    let section = backend.kind.section();
    let variables = backend.variables("reader");
    for (member, value, parts) in [
        ("PASSWORD", "wrong", &[".password", "refuses this user"][..]),
        ("USERNAME", "nobody", &[".username", "refuses this user"]),
        ("PORT", "1", &[".port", "cannot be reached"]),
        (
            "HOST",
            "nowhere.invalid",
            &[".host", "nowhere.invalid is not known"],
        ),
        ("TLS__ENABLED", "true", &[".tls.enabled", "has no TLS"]),
        (
            "TABLE_NAME",
            "sockudo.none",
            &[".table_name", "sockudo apps init"],
        ),
    ] {
        let store = variables.clone().with(member, value).store();
        let key_of = format!("database.{section}{}", parts[0]);
        let mut parts = parts.to_vec();
        parts[0] = &key_of;
        is_down(store.find(key("app")).await, &parts);
        is_down(store.find_all(ids(&["app"])).await, &parts);
        is_down(store.find_all(Vec::new()).await, &parts);
    }
    // The first connection finds what was refused before, once it is there.
    let store = variables.store();
    is_down(store.find(key("app")).await, &["no table"]);
    backend.makes_loose_table();
    let answer = store.find(key("app")).await;
    assert_eq!(answer.map(|it| it.is_none()), Ok(true));
}

async fn a_server_that_was_killed_is_found_again(mut backend: Backend) {
    backend.makes_loose_table();
    backend.puts(&[json!({"id": "a", "key": "a", "secret": "s"})]);
    let store = backend.variables("reader").store();
    assert_eq!(found(store.find(key("a")).await).id, "a");
    for round in 0..3 {
        // Look-ups that are under way, some of them over connections of their own.
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..60 {
            asked.spawn(store.find(key("a")));
        }
        asked.join_next().await;
        backend.kill();
        while let Some(answer) = asked.join_next().await {
            if let Err(error) = answer.expect("no panic") {
                is_down(Err::<(), _>(error), &[]);
            }
        }
        for _ in 0..5 {
            is_down(store.find(key("a")).await, &["cannot be reached"]);
        }
        is_down(store.find_all(ids(&["a"])).await, &["cannot be reached"]);
        is_down(store.find_all(Vec::new()).await, &["cannot be reached"]);
        backend.start_again();
        let app = store.find(key("a")).await;
        assert_eq!(found(app).id, "a", "round {round}");
    }
}

async fn a_stopped_server_holds_nobody_beyond_the_deadline(backend: Backend) {
    backend.makes_loose_table();
    backend.puts(&[json!({"id": "a", "key": "a", "secret": "s"})]);
    let store = backend.variables("reader").with("TIMEOUT_MS", 500).store();
    assert_eq!(found(store.find(key("a")).await).id, "a");
    backend.signal("STOP");
    let begun = Instant::now();
    let mut asked = Vec::new();
    for number in 0..3_000 {
        asked.push(tokio::spawn(store.find(key(&format!("k{number}")))));
    }
    let (mut late, mut crowded) = (0, 0);
    for asked in asked {
        match asked.await.expect("no panic") {
            Err(StoreError::Down(sentence, _)) if sentence.contains("within 500 ms") => late += 1,
            Err(StoreError::Down(sentence, _)) if sentence.contains("too slow") => crowded += 1,
            other => panic!("nothing can answer: {other:?}"),
        }
    }
    // Those that wait for a connection are bounded; up to 32 have theirs.
    assert!((1_024..=1_056).contains(&late), "{late}");
    assert_eq!(late + crowded, 3_000);
    let lasted = begun.elapsed();
    assert!(lasted < Duration::from_secs(20), "{lasted:?}");
    is_down(store.find_all(ids(&["a"])).await, &[]);
    backend.signal("CONT");
    let app = answers_again(&store, key("a")).await;
    assert_eq!(app.expect("it is there").id, "a");
}

async fn a_server_that_accepts_and_never_answers_holds_nobody(backend: Backend) {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = mute.local_addr().expect("bound");
    let variables = backend.variables("reader").with("TIMEOUT_MS", 300);
    let variables = variables.at(address);
    let with_tls = match backend.kind {
        Kind::Mysql | Kind::Pgsql => variables.clone().with("TLS__ENABLED", true),
        Kind::Dynamodb => variables
            .clone()
            .with("ENDPOINT_URL", format!("https://{address}")),
    };
    for variables in [variables, with_tls] {
        let store = variables.store();
        for _ in 0..3 {
            is_down(
                store.find(key("a")).await,
                &["does not answer within 300 ms"],
            );
        }
        is_down(store.find_all(ids(&["a", "b"])).await, &["within 300 ms"]);
    }
}

async fn many_apps_are_found_at_once(backend: Backend) {
    backend.makes_loose_table();
    let rows: Vec<_> = (0..300)
        .map(|number| json!({"id": format!("{number}"), "key": format!("key-{number}"), "secret": "s"}))
        .collect();
    backend.puts(&rows);
    let store = backend.variables("reader").store();
    let all: Vec<Box<str>> = (0..320).map(|it| it.to_string().into()).collect();
    let mut apps = store.find_all(all).await.expect("they are there").apps;
    apps.sort_unstable_by_key(|app| app.id.parse::<u32>().expect("a number"));
    assert_eq!(apps.len(), 300);
    assert_eq!((&*apps[299].id, &*apps[299].key), ("299", "key-299"));
    // Side by side.
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..100 {
        let name = key(&format!("key-{number}"));
        let found_one = store.find(name);
        asked.spawn(async move { (number, found_one.await) });
    }
    while let Some(answer) = asked.join_next().await {
        let (number, answer) = answer.expect("no panic");
        assert_eq!(found(answer).id, number.to_string());
    }
    assert!(!format!("{store:?}").contains(PASSWORD));
}
