//! Apps in a table of PostgreSQL.

use sockudo::bridge::apps::store::pgsql::PgsqlStore;

use crate::backend::{PASSWORD, Variables};
use crate::certificates::Certificates;
use crate::postgres::{PgBouncer, Postgres};
use crate::{answers_again, configuration, found, id, ids, is_down, key, skip};

/// Starts PostgreSQL, or says why not and ends the test.
macro_rules! postgres_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(server) => server,
            None => return skip::skip($test, "there is no postgres; `scripts/test` installs it"),
        }
    };
}

/// A user that may read, and the table as Sockudo 2.9 makes it.
fn prepare(server: &Postgres) {
    server.run(&[
        &format!("CREATE USER reader PASSWORD '{PASSWORD}'"),
        "GRANT pg_read_all_data TO reader",
        &format!("CREATE TABLE applications ({COLUMNS})"),
    ]);
}

const COLUMNS: &str = "
    id VARCHAR(255) PRIMARY KEY, key VARCHAR(255) UNIQUE NOT NULL, secret VARCHAR(255) NOT NULL,
    max_connections INTEGER NOT NULL DEFAULT 1000, enable_client_messages BOOLEAN DEFAULT FALSE,
    enabled BOOLEAN DEFAULT TRUE, max_backend_events_per_second INTEGER DEFAULT 100,
    max_client_events_per_second INTEGER DEFAULT 100, max_event_payload_in_kb INTEGER DEFAULT 100,
    max_event_batch_size INTEGER DEFAULT 10, enable_user_authentication BOOLEAN DEFAULT FALSE,
    webhooks JSONB, allowed_origins JSONB, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP";

fn place(server: &Postgres) -> Variables {
    Variables::of_pgsql(server.address, "reader")
}

#[tokio::test]
async fn columns_of_any_type_are_read_and_found_by_their_own_index() {
    let server = postgres_or_skip!("columns_of_any_type_are_read", Postgres::start());
    prepare(&server);
    server.run(&[
        "INSERT INTO applications (id, key, secret, webhooks, allowed_origins) VALUES
            ('a', 'a-key', 's', '[{\"url\": \"http://h.example/\", \"event_types\": [\"member_added\"]}]',
             '[\"https://a.example\"]'), ('b', 'b-key', 's', 'null', 'null')",
        // Everything in another type than it should have.
        "CREATE SCHEMA shop",
        "CREATE TABLE shop.odd (id CHAR(20) PRIMARY KEY, key CHAR(20), secret TEXT, enabled SMALLINT,
            \"enableClientMessages\" TEXT, max_connections NUMERIC(10, 2), \"select\" TEXT,
            max_client_events_per_second VARCHAR(9), max_event_payload_in_kb DOUBLE PRECISION,
            enable_watchlist_events BIT(1), secrets TEXT, logo BYTEA, allowed_origins TEXT[],
            max_backend_events_per_second BIGINT, webhooks TEXT)",
        "INSERT INTO shop.odd VALUES ('odd', 'odd-key', 'first', 0, 'yes', 25.00, 'x', ' 12 ', 0.5, B'1',
            '[\"second\"]', '\\xff00', '{https://a.example,b.example}', -1, '[]')",
        "CREATE TABLE shop.numbers (id INTEGER PRIMARY KEY, key UUID UNIQUE, secret TEXT)",
        "INSERT INTO shop.numbers SELECT n, md5(n::text)::uuid, 's' FROM generate_series(1, 5000) n",
        "ANALYZE shop.numbers",
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE shop.blind (id TEXT COLLATE blind PRIMARY KEY, key TEXT COLLATE blind, secret TEXT)",
        "INSERT INTO shop.blind VALUES ('one', 'same', 's')",
        "CREATE TABLE shop.twice (id TEXT, key TEXT, secret TEXT)",
        "INSERT INTO shop.twice VALUES ('1', 'k', 's'), ('2', 'k', 's')",
    ]);
    let store = place(&server).store();
    let app = found(store.find(key("a-key")).await);
    assert_eq!((app.webhooks.len(), app.allowed_origins.len()), (1, 1));
    assert_eq!((app.max_connections, app.enabled), (1000, true));
    assert!(found(store.find(id("b")).await).webhooks.is_empty());

    let store = place(&server).with("TABLE_NAME", "Shop.ODD").store();
    let app = found(store.find(key("odd-key")).await);
    assert_eq!(
        (&*app.id, &*app.key, app.enabled),
        ("odd", "odd-key", false)
    );
    assert_eq!(
        (app.enable_client_messages, app.max_connections),
        (true, 25)
    );
    assert_eq!(app.max_client_events_per_second, 12);
    assert_eq!(app.event_payload_bytes_max, 512);
    assert_eq!(app.max_backend_events_per_second, 0);
    let secrets: Vec<&str> = app.secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(secrets, ["first", "second"]);
    assert_eq!(app.allowed_origins, ["https://a.example", "b.example"]);
    let padded = store.find(id("odd ")).await;
    assert_eq!(padded.map(|it| it.is_none()), Ok(true));

    let store = place(&server).with("TABLE_NAME", "shop.numbers").store();
    let by_key = store
        .find(key("c4ca4238-a0b9-2382-0dcc-509a6f75849b"))
        .await;
    assert_eq!(found(by_key).id, "1");
    for name in [id("7 "), id("7x"), id("07"), id("99999999999"), key("x")] {
        let answer = store.find(name.clone()).await;
        assert_eq!(answer.map(|it| it.is_none()), Ok(true), "{name:?}");
    }
    let some = store.find_all(ids(&["7", "7x", "8", "07"])).await;
    assert_eq!(some.expect("two").apps.len(), 2);
    let scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'numbers'";
    let before = server.says(scans);
    for number in 1..50 {
        found(store.find(id(&number.to_string())).await);
    }
    assert_eq!(server.says(scans), before, "the index is used");

    let store = place(&server).with("TABLE_NAME", "shop.blind").store();
    assert_eq!(found(store.find(key("same")).await).id, "one");
    for name in [key("SAME"), id("ONE")] {
        let answer = store.find(name.clone()).await;
        assert_eq!(answer.map(|it| it.is_none()), Ok(true), "{name:?}");
    }
    let store = place(&server).with("TABLE_NAME", "shop.twice").store();
    let twice = store.find(key("k")).await.expect_err("which one?");
    assert!(twice.to_string().contains("several rows have this one"));
}

#[tokio::test]
async fn a_table_may_change_under_a_connection_that_stands() {
    let server = postgres_or_skip!("a_table_may_change", Postgres::start());
    prepare(&server);
    server.run(&["INSERT INTO applications (id, key, secret) VALUES ('a', 'a', 's')"]);
    let variables = place(&server);
    let store = variables.store();
    assert_eq!(found(store.find(id("a")).await).event_batch_max, 10);
    server.run(&[
        "ALTER TABLE applications DROP secret, ADD secrets TEXT, ALTER id TYPE TEXT,
            ALTER max_event_batch_size TYPE TEXT",
        "UPDATE applications SET max_event_batch_size = '4', secrets = '[\"t\"]'",
    ]);
    let app = found(store.find(id("a")).await);
    assert_eq!((app.event_batch_max, app.secrets[0].expose()), (4, "t"));
    // What an app takes over follows a reload.
    let mut again = variables.clone();
    let limit = "SOCKUDO__PRESENCE__MAX_MEMBERS_PER_CHANNEL".to_owned();
    again.all.insert(limit, "7".to_owned());
    store.reload(&configuration(&again.all));
    let app = found(store.find(id("a")).await);
    assert_eq!(app.max_presence_members_per_channel, 7);
    // Its session is ended behind our back: the question that finds out is asked again.
    server
        .run(&["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'reader'"]);
    assert_eq!(found(store.find(key("a")).await).id, "a");
    server.run(&["ALTER TABLE applications RENAME key TO keyword"]);
    is_down(store.find(key("a")).await, &["lacks a column", "key"]);
    server.run(&["ALTER TABLE applications RENAME keyword TO key"]);
    // Larger than any row may be: it does not come over, and spoils no other.
    server.run(&[
        "INSERT INTO applications (id, key, secrets, webhooks) VALUES
            ('large', 'large', '[\"t\"]', to_jsonb(repeat('x', 5000000)))",
    ]);
    let large = store.find(key("large")).await.expect_err("too large");
    assert!(
        large
            .to_string()
            .contains("the row has more than 4194304 bytes")
    );
    let both = store.find_all(ids(&["a", "large"])).await.expect("one");
    assert_eq!((both.apps.len(), both.malformed.len()), (1, 1));
    // Over the socket of this host.
    let folder = server.folder().display();
    let store = place(&server).with("HOST", folder).store();
    assert_eq!(found(store.find(key("a")).await).id, "a");
}

#[tokio::test]
async fn who_may_not_come_in_or_read_is_told_what_to_do() {
    let access = [
        "hostssl all safe all scram-sha-256",
        "host all reader,poor all scram-sha-256",
    ];
    let server = postgres_or_skip!("who_may_not_come_in", Postgres::start_with(&access, &[]));
    prepare(&server);
    server.run(&[
        &format!("CREATE USER safe PASSWORD '{PASSWORD}'"),
        &format!("CREATE USER poor PASSWORD '{PASSWORD}' CONNECTION LIMIT 0"),
        &format!("ALTER USER poor PASSWORD '{PASSWORD}'"),
        "REVOKE pg_read_all_data FROM reader",
    ]);
    let at = format!("the database at {}", server.address);
    for (member, value, parts) in [
        (
            "USERNAME",
            "safe",
            &[
                &*at,
                "does not let safe in",
                "database.postgres.tls.enabled",
            ][..],
        ),
        (
            "USERNAME",
            "poor",
            &["no connection left", "database_pooling.max"],
        ),
        (
            "PASSWORD",
            "",
            &["wants a password", "database.postgres.password"],
        ),
        (
            "DATABASE",
            "none",
            &["no database none", "database.postgres.database"],
        ),
        (
            "TABLE_NAME",
            "none.apps",
            &["no table none.apps", "sockudo apps init"],
        ),
        (
            "TABLE_NAME",
            "applications",
            &["GRANT SELECT", "does not let reader"],
        ),
    ] {
        let store = place(&server).with(member, value).store();
        is_down(store.find(key("app")).await, parts);
        is_down(store.find_all(Vec::new()).await, parts);
    }
}

#[tokio::test]
async fn behind_a_pooler_each_look_up_gets_its_own_answer() {
    let server = postgres_or_skip!("behind_a_pooler", Postgres::start());
    prepare(&server);
    server.run(&["INSERT INTO applications (id, key, secret)
        SELECT n, 'key-' || n, 'secret-' || n FROM generate_series(1, 200) n"]);
    let users = [("reader", PASSWORD)];
    let Some(pooler) = PgBouncer::start(&server, &users, 2) else {
        return skip::skip("behind_a_pooler", "there is no pgbouncer");
    };
    let variables = Variables::of_pgsql(pooler.address, "reader");
    // Two nodes, whose connections share the two behind the pooler.
    let stores = [variables.store(), variables.store()];
    for round in 0..3 {
        let mut asked = tokio::task::JoinSet::new();
        for number in 1..=200 {
            for store in &stores {
                let name = match number % 2 {
                    0 => key(&format!("key-{number}")),
                    _ => id(&number.to_string()),
                };
                let answer = store.find(name);
                asked.spawn(async move { (number, answer.await) });
            }
        }
        while let Some(answer) = asked.join_next().await {
            let (number, answer) = answer.expect("no panic");
            let app = found(answer);
            assert_eq!(app.id, number.to_string(), "round {round}");
            assert_eq!(app.secrets[0].expose(), format!("secret-{number}"));
        }
        // Other statements, and other columns, between them.
        let all: Vec<Box<str>> = (1..=200).map(|it| it.to_string().into()).collect();
        let all = stores[round % 2].find_all(all).await.expect("all");
        assert_eq!(all.apps.len(), 200);
        server.run(&[&format!("ALTER TABLE applications ADD note_{round} TEXT")]);
    }
    // The server behind it is ended under look-ups, and comes back.
    let mut server = server;
    server.kill();
    let hasty = variables.clone().with("TIMEOUT_MS", 500).store();
    for _ in 0..3 {
        is_down(hasty.find(key("key-1")).await, &[]);
    }
    server.start_again();
    for store in stores.iter().chain([&hasty]) {
        let app = answers_again(store, key("key-1")).await;
        assert_eq!(app.expect("it is there").id, "1");
    }
    let store = variables.with("PASSWORD", "wrong").store();
    is_down(store.find(key("k")).await, &["database.postgres.password"]);
}

#[tokio::test]
async fn tls_is_verified_and_lets_in_who_must_use_it() {
    const TEST: &str = "tls_is_verified_and_lets_in_who_must_use_it";
    let Some(files) = Certificates::make(Postgres::host().into()) else {
        return skip::skip(TEST, "there is no openssl; `scripts/test` installs it");
    };
    let access = [
        "hostssl all known all cert map=any",
        "hostssl all reader all scram-sha-256",
    ];
    let mut server = postgres_or_skip!("tls_is_verified", Postgres::start_with(&access, &[]));
    server.run(&["CREATE USER known"]);
    prepare(&server);
    server.run(&[
        "GRANT pg_read_all_data TO known",
        "INSERT INTO applications (id, key, secret) VALUES ('a', 'a', 's')",
    ]);
    server.encrypts(&files, "server");
    let place = |user: &str, authority: &str| {
        let place = Variables::of_pgsql(server.address, user);
        let place = place.with("TLS__CA_PATH", files.certificate(authority));
        place.with("TLS__ENABLED", true)
    };
    let with_client = |place: Variables| {
        let place = place.with("TLS__CERT_PATH", files.certificate("client"));
        place.with("TLS__KEY_PATH", files.key("client"))
    };
    let app = place("reader", "ca").store().find(key("a")).await;
    assert_eq!(found(app).id, "a");
    let used = "SELECT count(*) FROM pg_stat_ssl WHERE ssl AND version = 'TLSv1.3'";
    assert_ne!(server.says(used), "0");
    let app = with_client(place("known", "ca"))
        .store()
        .find(key("a"))
        .await;
    assert_eq!(found(app).id, "a");
    let stranger = place("known", "ca").store().find(key("a")).await;
    is_down(
        stranger,
        &["does not let known in", "database.postgres.tls.cert_path"],
    );
    let stranger = place("reader", "other-ca").store().find(key("a")).await;
    is_down(
        stranger,
        &["no CA in the file", "database.postgres.tls.ca_path"],
    );
    let plain = Variables::of_pgsql(server.address, "reader").store();
    is_down(
        plain.find(key("a")).await,
        &["database.postgres.tls.enabled"],
    );

    let nowhere = place("reader", "ca").with("TLS__CA_PATH", "/nowhere/ca.pem");
    let error = PgsqlStore::start(&configuration(&nowhere.all)).expect_err("no such file");
    assert_eq!(error.key, "database.postgres.tls.ca_path");
    assert!(
        error
            .fault
            .starts_with("\"/nowhere/ca.pem\": cannot be read"),
        "{error}"
    );
    let address = server.address;
    // The certificate of another host.
    server.encrypts(&files, "foreign");
    let other = Variables::of_pgsql(address, "reader").with("TLS__ENABLED", true);
    let other = other.with("TLS__CA_PATH", files.certificate("ca")).store();
    is_down(
        other.find(key("a")).await,
        &["a certificate for another name"],
    );
}
