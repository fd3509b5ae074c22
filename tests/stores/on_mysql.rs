//! Apps in a table of MariaDB.

use std::collections::BTreeMap;

use sockudo::bridge::apps::store::mysql::MysqlStore;
use sockudo::bridge::apps::store::{Store, StoreError};
use sockudo::config::app::EventType;

use crate::backend::PASSWORD;
use crate::certificates::Certificates;
use crate::mariadb::MariaDb;
use crate::{answers_again, configuration, found, id, ids, is_down, key, skip};

/// Starts MariaDB, or says why not and ends the test.
macro_rules! mariadb_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(server) => server,
            None => {
                skip::skip($test, "there is no mariadbd; `scripts/test` installs it");
                return;
            }
        }
    };
}

/// Where the store looks, before a test says otherwise.
struct Place(BTreeMap<String, String>);

impl Place {
    fn on(server: &MariaDb) -> Self {
        let mut place = Self(BTreeMap::new());
        place.set("HOST", server.address.ip());
        place.set("PORT", server.address.port());
        place.set("USERNAME", "sockudo");
        place.set("PASSWORD", PASSWORD);
        // The machine may have others to do; who tests deadlines says another one.
        place.set("TIMEOUT_MS", 20_000);
        place
    }

    fn set(&mut self, key: &str, value: impl ToString) {
        let name = format!("SOCKUDO__DATABASE__MYSQL__{key}");
        self.0.insert(name, value.to_string());
    }

    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.set(key, value);
        self
    }

    fn store(&self) -> Store {
        let store = MysqlStore::start(&configuration(&self.0));
        Store::Mysql(store.expect("a configuration that can be asked with"))
    }
}

/// A user that may read, and the table as Sockudo 2.9 makes it.
fn prepare(server: &MariaDb) {
    server.run(&[
        "CREATE DATABASE sockudo CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
        &format!("CREATE USER sockudo@'%' IDENTIFIED BY '{PASSWORD}'"),
        "GRANT SELECT ON sockudo.* TO sockudo@'%'",
        &format!("CREATE TABLE sockudo.applications ({COLUMNS})"),
    ]);
}

/// Of Sockudo 2.9's init script; its default collation thinks many names equal.
const COLUMNS: &str = "
    id VARCHAR(255) PRIMARY KEY, `key` VARCHAR(255) UNIQUE NOT NULL, secret VARCHAR(255) NOT NULL,
    max_connections INT UNSIGNED DEFAULT 1000, enable_client_messages BOOLEAN DEFAULT FALSE,
    enabled BOOLEAN DEFAULT TRUE, max_backend_events_per_second INT UNSIGNED DEFAULT 100,
    max_client_events_per_second INT UNSIGNED DEFAULT 100,
    max_read_requests_per_second INT UNSIGNED DEFAULT 100,
    max_presence_members_per_channel INT UNSIGNED DEFAULT 100,
    max_presence_member_size_in_kb INT UNSIGNED DEFAULT 2,
    max_channel_name_length INT UNSIGNED DEFAULT 200,
    max_event_channels_at_once INT UNSIGNED DEFAULT 100,
    max_event_name_length INT UNSIGNED DEFAULT 200,
    max_event_payload_in_kb INT UNSIGNED DEFAULT 100, max_event_batch_size INT UNSIGNED DEFAULT 10,
    enable_user_authentication BOOLEAN DEFAULT FALSE, enable_watchlist_events BOOLEAN DEFAULT FALSE,
    webhooks JSON, allowed_origins JSON,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP";

#[tokio::test]
async fn an_app_is_found_by_exactly_its_key_or_id() {
    // It ignores in which character set its clients say they speak.
    let server = mariadb_or_skip!(
        "an_app_is_found_by_exactly_its_key_or_id",
        MariaDb::start_with_arguments(&["--skip-character-set-client-handshake"])
    );
    prepare(&server);
    server.run(&[
        "SET NAMES utf8mb4",
        "INSERT INTO sockudo.applications (id, `key`, secret, webhooks, allowed_origins) VALUES
            ('shop', 'app-key', 'geheim \u{1f511}',
             '[{\"url\": \"http://h.example/\", \"event_types\": [\"member_added\"]}]',
             '[\"https://a.example\", \"*.b.example\"]'),
            ('\u{1f6d2}', 'k2', 's', 'null', 'null'), ('3', 'k3', 's', NULL, NULL)",
        "CREATE TABLE sockudo.numbers (id INT PRIMARY KEY, `key` VARCHAR(9) CHARACTER SET latin1,
            secret TEXT)",
        "INSERT INTO sockudo.numbers VALUES (7, 'k7', 's'), (8, 'twice', 's'), (9, 'twice', 's')",
    ]);
    let store = Place::on(&server).store();
    for name in [key("app-key"), id("shop")] {
        let app = found(store.find(name).await);
        assert_eq!((&*app.id, &*app.key), ("shop", "app-key"));
        assert_eq!(app.secrets[0].expose(), "geheim \u{1f511}");
        assert_eq!((app.max_connections, app.enabled), (1000, true));
        assert_eq!(app.webhooks[0].event_types, [EventType::MemberAdded]);
        assert_eq!(app.allowed_origins, ["https://a.example", "*.b.example"]);
    }
    // Rows that carry JSON's null, SQL's NULL, and a name that three bytes cannot say.
    for name in ["\u{1f6d2}", "3"] {
        let app = found(store.find(id(name)).await);
        assert!(
            app.webhooks.is_empty() && app.allowed_origins.is_empty(),
            "{name}"
        );
    }
    // What the collation thinks equal, and what a stranger may send.
    let long = "k".repeat(256);
    for name in [
        "APP-KEY",
        "app-key ",
        "\u{e4}pp-key",
        "app-ke\u{79}\u{301}",
        "app-key\0",
        "app_key",
        "%",
        "",
        "' OR 1=1 -- ",
        "?",
        &long,
    ] {
        assert_eq!(
            store.find(key(name)).await.map(|it| it.is_none()),
            Ok(true),
            "{name:?}"
        );
        assert_eq!(
            store.find(id(name)).await.map(|it| it.is_none()),
            Ok(true),
            "{name:?}"
        );
    }
    let store = Place::on(&server)
        .with("TABLE_NAME", "sockudo.numbers")
        .store();
    assert_eq!(found(store.find(id("7")).await).key, "k7");
    for name in [
        id("7 "),
        id("7x"),
        id("07"),
        key("\u{1f6d2}"),
        key("\u{107}"),
    ] {
        assert_eq!(
            store.find(name.clone()).await.map(|it| it.is_none()),
            Ok(true),
            "{name:?}"
        );
    }
    let twice = store.find(key("twice")).await.expect_err("which one?");
    assert_eq!(
        twice.to_string(),
        "the app \"twice\" cannot be used: key: several rows have this one"
    );
}

#[tokio::test]
async fn tables_of_others_and_columns_of_any_type_are_read() {
    let server = mariadb_or_skip!(
        "tables_of_others_and_columns_of_any_type_are_read",
        MariaDb::start()
    );
    prepare(&server);
    server.run(&[
        // Soketi's own.
        "CREATE TABLE sockudo.apps (id VARCHAR(255) PRIMARY KEY, `key` VARCHAR(255),
            secret VARCHAR(255), max_connections INT(10) NOT NULL, enable_client_messages TINYINT(1),
            enabled TINYINT(1) NOT NULL, max_backend_events_per_sec INT(10),
            max_client_events_per_sec INT(10), max_read_req_per_sec INT(10), webhooks TEXT,
            max_presence_members_per_channel TINYINT(1), max_presence_member_size_in_kb TINYINT(1),
            max_channel_name_length TINYINT(1), max_event_channels_at_once TINYINT(1),
            max_event_name_length TINYINT(1), max_event_payload_in_kb TINYINT(1),
            max_event_batch_size TINYINT(1), enable_user_authentication TINYINT(1))",
        "INSERT INTO sockudo.apps VALUES ('1', 'soketi', 's', -1, 1, 1, -1, -1, -1, '[]',
            NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0)",
        // Everything in another type than it should have, and a column that is no UTF-8.
        "CREATE TABLE sockudo.odd (id CHAR(20) PRIMARY KEY, `key` VARBINARY(20), Secret BLOB,
            enabled BIT(1), enableClientMessages ENUM('yes', 'no'), max_connections DECIMAL(10,2),
            max_client_events_per_second VARCHAR(9), max_event_payload_in_kb DOUBLE,
            enable_watchlist_events BIT(9), secrets TEXT, logo BLOB, allowed_origins VARCHAR(99))",
        "INSERT INTO sockudo.odd VALUES ('odd', 'odd-key', 'first', b'0', 'yes', 25.00, ' 12 ',
            0.5, b'100000000', '[\"second\"]', x'ff00', 'https://a.example, b.example')",
        "CREATE TABLE sockudo.least (id TEXT, `key` TEXT, secret TEXT)",
        "INSERT INTO sockudo.least VALUES ('least', 'least-key', 's')",
    ]);
    let place = |table: &str| Place::on(&server).with("TABLE_NAME", table);
    let app = found(place("apps").store().find(key("soketi")).await);
    assert_eq!(
        (app.max_connections, app.max_client_events_per_second),
        (0, 0)
    );
    assert_eq!((app.max_backend_events_per_second, app.enabled), (0, true));
    assert_eq!(
        (app.enable_client_messages, app.event_batch_max),
        (true, 10)
    );

    let app = found(place("odd").store().find(key("odd-key")).await);
    assert_eq!((app.enabled, app.enable_client_messages), (false, true));
    assert_eq!(
        (app.max_connections, app.max_client_events_per_second),
        (25, 12)
    );
    assert_eq!(
        (app.event_payload_bytes_max, app.enable_watchlist_events),
        (512, true)
    );
    let secrets: Vec<&str> = app.secrets.iter().map(|secret| secret.expose()).collect();
    assert_eq!(secrets, ["first", "second"]);
    assert_eq!(app.allowed_origins, ["https://a.example", "b.example"]);

    // A column that comes later counts from then on, on a connection that stands.
    let mut place = place("least");
    let store = place.store();
    assert_eq!(found(store.find(id("least")).await).event_batch_max, 10);
    server.run(&[
        "ALTER TABLE sockudo.least ADD max_event_batch_size INT, DROP secret, ADD secrets TEXT",
        "UPDATE sockudo.least SET max_event_batch_size = 4, secrets = '[\"t\"]'",
    ]);
    let app = found(store.find(id("least")).await);
    assert_eq!((app.event_batch_max, app.secrets[0].expose()), (4, "t"));
    // And what an app takes over follows a reload.
    assert_eq!(app.max_presence_members_per_channel, 100);
    place.0.insert(
        "SOCKUDO__PRESENCE__MAX_MEMBERS_PER_CHANNEL".to_owned(),
        "7".to_owned(),
    );
    store.reload(&configuration(&place.0));
    let app = found(store.find(id("least")).await);
    assert_eq!(app.max_presence_members_per_channel, 7);
}

#[tokio::test]
async fn a_row_that_is_no_app_is_told_with_its_columns_and_spoils_no_other() {
    let server = mariadb_or_skip!(
        "a_row_that_is_no_app_is_told_with_its_columns_and_spoils_no_other",
        MariaDb::start_with_arguments(&["--max-allowed-packet=64M"])
    );
    prepare(&server);
    server.run(&[
        "ALTER TABLE sockudo.applications MODIFY webhooks LONGTEXT, ADD secrets TEXT,
            MODIFY secret VARBINARY(255) NULL, DROP CONSTRAINT IF EXISTS webhooks",
        "INSERT INTO sockudo.applications (id, `key`, secret, webhooks, allowed_origins) VALUES
            ('good', 'good', 's', NULL, NULL), ('bytes', 'bytes', x'fffe', NULL, NULL),
            ('hook', 'hook', 's', '[{\"url\": \"ftp://u:hunter@h\", \"event_types\": []}]', NULL),
            ('text', 'text', 's', '{]', NULL), ('secret', 'secret', NULL, NULL, NULL),
            ('origin', 'origin', 's', NULL, '[\"https://*.*.a\"]'),
            ('large', 'large', 's', REPEAT(' ', 5000000), NULL), ('with space', 'k', 's', NULL, NULL)",
    ]);
    let store = Place::on(&server).store();
    for (name, fault) in [
        ("bytes", "secret: is no UTF-8"),
        ("hook", "webhooks[0].url: "),
        ("text", "webhooks: "),
        ("secret", "secret: is required"),
        ("origin", "allowed_origins[0]: "),
        ("large", "the row has more than 4194304 bytes"),
        (
            "with space",
            "id: \"with space\" is not 1..=255 bytes without spaces",
        ),
    ] {
        match store.find(id(name)).await {
            Err(StoreError::Malformed { id, faults, .. }) => {
                assert_eq!(id, name);
                assert!(faults[0].starts_with(fault), "{faults:?}");
                assert!(!faults[0].contains("hunter"), "{faults:?}");
            }
            other => panic!("{name} should be malformed: {other:?}"),
        }
    }
    let all = ids(&[
        "good", "bytes", "hook", "text", "secret", "origin", "large", "none",
    ]);
    let looked_at = store.find_all(all).await.expect("the others");
    let apps = looked_at.apps;
    assert!(!looked_at.malformed.is_empty());
    assert_eq!(apps.len(), 1);
    assert_eq!(apps[0].id, "good");
}

#[tokio::test]
async fn a_refusal_names_the_key_and_what_to_do() {
    let server = mariadb_or_skip!(
        "a_refusal_names_the_key_and_what_to_do",
        MariaDb::start_with_arguments(&["--plugin-load-add=auth_ed25519"])
    );
    prepare(&server);
    server.run(&[
        "CREATE DATABASE empty",
        "GRANT SELECT ON empty.* TO sockudo@'%'",
        "GRANT SELECT ON nowhere.* TO sockudo@'%'",
        "CREATE TABLE empty.keyless (id TEXT, secret TEXT)",
        "CREATE USER modern@'%' IDENTIFIED VIA ed25519 USING PASSWORD('hunter-2-hunter')",
        "CREATE USER local@'%' IDENTIFIED VIA unix_socket",
        "CREATE USER nothing@'%' IDENTIFIED BY 'hunter-2-hunter'",
        "GRANT USAGE ON *.* TO nothing@'%'",
        "CREATE USER safe@'%' IDENTIFIED BY 'hunter-2-hunter' REQUIRE SSL",
        "GRANT SELECT ON sockudo.* TO modern@'%', safe@'%'",
    ]);
    let at = format!("the database at {}", server.address);
    for (member, value, parts) in [
        ("PASSWORD", "wrong", &[&*at, "database.mysql.password"][..]),
        ("USERNAME", "nobody", &[&at, "database.mysql.username"]),
        ("USERNAME", "safe", &[&at, "database.mysql.tls.enabled"]),
        (
            "USERNAME",
            "local",
            &["Unix socket of its own host", "database.mysql.username"],
        ),
        (
            "USERNAME",
            "nothing",
            &["does not let nothing into the database sockudo"],
        ),
        (
            "DATABASE",
            "nowhere",
            &["no database nowhere", "database.mysql.database"],
        ),
        (
            "DATABASE",
            "empty",
            &["no table applications in empty", "sockudo apps init"],
        ),
        ("TABLE_NAME", "mysql.user", &["GRANT SELECT"]),
        (
            "HOST",
            "nowhere.invalid",
            &["nowhere.invalid is not known", "database.mysql.host"],
        ),
        ("PORT", "1", &["cannot be reached", "database.mysql.port"]),
        (
            "TLS__ENABLED",
            "true",
            &["has no TLS", "database.mysql.tls.enabled"],
        ),
    ] {
        let store = Place::on(&server).with(member, value).store();
        is_down(store.find(key("app")).await, parts);
        is_down(store.find_all(ids(&["app"])).await, parts);
    }
    let store = Place::on(&server)
        .with("TABLE_NAME", "empty.keyless")
        .store();
    let parts = ["empty.keyless", "lacks a column", "'key'"];
    is_down(store.find(key("app")).await, &parts);
    let store = Place::on(&server).with("USERNAME", "modern").store();
    assert_eq!(
        store.find(key("app")).await.map(|it| it.is_none()),
        Ok(true)
    );
    // The first connection finds what was refused before, once it is there.
    let store = Place::on(&server).with("DATABASE", "empty").store();
    is_down(store.find(key("app")).await, &["no table"]);
    server.run(&["CREATE TABLE empty.applications LIKE sockudo.applications"]);
    assert_eq!(
        store.find(key("app")).await.map(|it| it.is_none()),
        Ok(true)
    );
}

#[tokio::test]
async fn a_connection_that_was_dropped_is_not_missed() {
    let server = mariadb_or_skip!("a_connection_that_was_dropped", MariaDb::start());
    prepare(&server);
    server.run(&["INSERT INTO sockudo.applications (id, `key`, secret) VALUES ('a', 'a', 's')"]);
    let store = Place::on(&server).store();
    assert_eq!(found(store.find(key("a")).await).id, "a");
    // It is gone behind our back: the question that finds out is asked again.
    server.run(&[
        "SET @kill = (SELECT CONCAT('KILL ', id) FROM information_schema.processlist
            WHERE user = 'sockudo')",
        "EXECUTE IMMEDIATE @kill",
    ]);
    assert_eq!(found(store.find(key("a")).await).id, "a");
}

#[tokio::test]
async fn a_stopped_server_is_not_asked_for_who_has_gone() {
    let server = mariadb_or_skip!("a_stopped_server_is_not_asked", MariaDb::start());
    prepare(&server);
    let store = Place::on(&server).with("TIMEOUT_MS", 500).store();
    store.find(key("a")).await.expect("an answer");
    let executed = server.counter("Com_stmt_execute");
    server.signal("STOP");
    let names = (0..1_000).map(|number| key(&format!("k{number}")));
    let asked: Vec<_> = names.map(|name| tokio::spawn(store.find(name))).collect();
    for asked in asked {
        is_down(asked.await.expect("no panic"), &[]);
    }
    server.signal("CONT");
    answers_again(&store, key("a")).await;
    let executed = server.counter("Com_stmt_execute") - executed;
    assert!(executed < 100, "{executed}");
}

#[tokio::test]
async fn ten_thousand_apps_take_forty_statements() {
    let server = mariadb_or_skip!("ten_thousand_apps_take_forty_statements", MariaDb::start());
    prepare(&server);
    server.run(&["INSERT INTO sockudo.applications (id, `key`, secret)
            SELECT seq, CONCAT('key-', seq), 's' FROM sockudo.seq_1_to_10000"]);
    let store = Place::on(&server).store();
    assert_eq!(found(store.find(key("key-77")).await).id, "77");
    let all: Vec<Box<str>> = (1..=10_020).map(|it| it.to_string().into()).collect();
    let (executed, prepared) = (
        server.counter("Com_stmt_execute"),
        server.counter("Com_stmt_prepare"),
    );
    let mut apps = store.find_all(all).await.expect("they are there").apps;
    assert_eq!(server.counter("Com_stmt_execute") - executed, 40);
    // One for the full length, one for the rest.
    assert_eq!(server.counter("Com_stmt_prepare") - prepared, 2);
    apps.sort_unstable_by_key(|app| app.id.parse::<u32>().expect("a number"));
    assert_eq!(apps.len(), 10_000);
    assert_eq!(
        (&*apps[9_999].id, &*apps[9_999].key),
        ("10000", "key-10000")
    );

    // One by one, over a connection that stands: one statement each, prepared once.
    let executed = server.counter("Com_stmt_execute");
    let connections = server.counter("Connections");
    for number in 1..=100 {
        found(store.find(key(&format!("key-{number}"))).await);
    }
    assert_eq!(server.counter("Com_stmt_execute") - executed, 100);
    // Only those of the counters.
    assert!(server.counter("Connections") - connections <= 3);
}

#[tokio::test]
async fn tls_is_verified_and_lets_in_who_must_use_it() {
    const TEST: &str = "tls_is_verified_and_lets_in_who_must_use_it";
    let Some(files) = Certificates::make(MariaDb::host().into()) else {
        return skip::skip(TEST, "there is no openssl; `scripts/test` installs it");
    };
    let option = |name: &str, file: String| format!("--{name}={file}");
    let options = [
        option("ssl-ca", files.certificate("ca")),
        option("ssl-cert", files.certificate("server")),
        option("ssl-key", files.key("server")),
    ];
    let server = mariadb_or_skip!(
        "tls_is_verified_and_lets_in_who_must_use_it",
        MariaDb::start_with_arguments(&options.each_ref().map(|it| it.as_str()))
    );
    prepare(&server);
    server.run(&[
        "CREATE USER safe@'%' IDENTIFIED BY 'hunter-2-hunter' REQUIRE SSL",
        "CREATE USER known@'%' IDENTIFIED BY 'hunter-2-hunter' REQUIRE X509",
        "GRANT SELECT ON sockudo.* TO safe@'%', known@'%'",
        "INSERT INTO sockudo.applications (id, `key`, secret) VALUES ('a', 'a', 's')",
    ]);
    let place = |user: &str, authority: &str| {
        let place = Place::on(&server).with("USERNAME", user);
        let place = place.with("TLS__CA_PATH", files.certificate(authority));
        place.with("TLS__ENABLED", true)
    };
    let with_client = |place: Place| {
        let place = place.with("TLS__CERT_PATH", files.certificate("client"));
        place.with("TLS__KEY_PATH", files.key("client"))
    };
    assert_eq!(
        found(place("safe", "ca").store().find(key("a")).await).id,
        "a"
    );
    let known = with_client(place("known", "ca")).store();
    assert_eq!(found(known.find(key("a")).await).id, "a");
    is_down(
        place("known", "ca").store().find(key("a")).await,
        &["refuses this user"],
    );
    let words = [
        "no TLS with the database at",
        "UnknownIssuer",
        "database.mysql.tls.ca_path",
    ];
    is_down(
        place("safe", "other-ca").store().find(key("a")).await,
        &words,
    );

    // A certificate of the same authority for another host, taken up by the running server.
    for (from, to) in [
        (files.certificate("foreign"), files.certificate("server")),
        (files.key("foreign"), files.key("server")),
    ] {
        std::fs::copy(from, to).expect("both are ours");
    }
    server.run(&["FLUSH SSL"]);
    let words = ["no TLS with the database at", "database.mysql.host"];
    is_down(place("safe", "ca").store().find(key("a")).await, &words);

    let nowhere = place("safe", "ca").with("TLS__CA_PATH", "/nowhere/ca.pem");
    let error = MysqlStore::start(&configuration(&nowhere.0)).expect_err("no such file");
    assert_eq!(error.key, "database.mysql.tls.ca_path");
    assert!(
        error
            .fault
            .starts_with("\"/nowhere/ca.pem\" cannot be read"),
        "{error}"
    );
}
