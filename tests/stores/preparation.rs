//! What a node's start does to the store, where the configuration says so.

use std::collections::BTreeMap;

use sockudo::bridge::apps::store::{Foreseen, Imported, Preparation, Prepared};
use sockudo::config::{Sources, load};

use crate::backend::{Backend, Kind};
use crate::command_line::Operator;

on_every_store!(
    a_table_is_made_and_apps_are_written_once,
    a_table_that_lacks_something_is_completed,
    a_command_makes_a_table_or_completes_it_and_then_has_nothing_to_do,
    what_a_start_would_do_is_foreseen_and_not_done,
    who_may_not_write_is_told_which_key_wanted_it,
);

/// A start with one app, `shop`, as that user.
fn preparation(backend: &Backend, user: &str, keys: &[(&str, &str)]) -> Option<Preparation> {
    let mut environment: BTreeMap<String, String> = backend.variables(user).all;
    let app = [("ID", "shop"), ("KEY", "shop-key"), ("SECRET", "first")];
    for (name, value) in app {
        let name = format!("SOCKUDO_DEFAULT_APP_{name}");
        environment.insert(name, value.to_owned());
    }
    for (name, value) in keys {
        let name = format!("SOCKUDO__APP_MANAGER__{name}");
        environment.insert(name, (*value).to_owned());
    }
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    match load(&sources) {
        Ok(loaded) => Preparation::of(&loaded),
        Err(errors) => panic!("{errors}"),
    }
}

fn prepares(backend: &Backend, keys: &[(&str, &str)]) -> Prepared {
    let preparation = preparation(backend, "owner", keys).expect("something to do");
    runs(preparation).expect("a store that takes it")
}

fn runs(preparation: Preparation) -> Result<Prepared, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(preparation.run())
}

fn a_table_is_made_and_apps_are_written_once(backend: &Backend) {
    assert!(preparation(backend, "owner", &[]).is_none(), "by default");
    let both = |seed| [("CREATE_SCHEMA", "true"), ("SEED", seed)];
    let made = prepares(backend, &both("if_missing"));
    let expected = Prepared {
        has_made_table: true,
        apps: Imported {
            added: 1,
            ..Imported::default()
        },
        ..Prepared::default()
    };
    assert_eq!(made, expected);
    // What an operator changed is left, or overwritten, as it was said.
    let owner = Operator::on(backend, "owner");
    owner.does(&["set", "shop", "secret=second"]);
    owner.does(&["add", "other"]);
    let again = prepares(backend, &both("if_missing"));
    assert!(!again.has_made_table && !again.has_completed_table);
    assert_eq!((again.apps.added, again.apps.left), (0, 1));
    assert_eq!(owner.shows("shop")["secret"], "second");
    let over = prepares(backend, &[("SEED", "overwrite")]);
    assert_eq!((over.apps.added, over.apps.changed), (0, 1));
    assert_eq!(owner.shows("shop")["secret"], "first");
    owner.shows("other");
}

/// With less than an app may have, and the owner's.
fn makes_a_table_of_2_9_with_less(backend: &Backend) {
    let key = backend.quotes("key");
    match backend.kind {
        Kind::Dynamodb => backend.tells(
            "CreateTable",
            serde_json::json!({
                "TableName": "sockudo-applications",
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "BillingMode": "PAY_PER_REQUEST",
            }),
        ),
        Kind::Mysql | Kind::Pgsql => backend.run(&[&format!(
            "CREATE TABLE sockudo.applications (id VARCHAR(255) PRIMARY KEY, \
             {key} VARCHAR(255) UNIQUE, secret VARCHAR(255))"
        )]),
    }
    if backend.kind == Kind::Pgsql {
        // Nobody else may alter it there.
        backend.run(&["ALTER TABLE sockudo.applications OWNER TO owner"]);
    }
}

fn a_table_that_lacks_something_is_completed(backend: &Backend) {
    makes_a_table_of_2_9_with_less(backend);
    let keys = [("CREATE_SCHEMA", "true"), ("SEED", "if_missing")];
    let done = prepares(backend, &keys);
    assert!(done.has_completed_table && !done.has_made_table);
    assert_eq!(done.apps.added, 1);
    let owner = Operator::on(backend, "owner");
    assert_eq!(
        owner.does(&["init"]),
        "the table is there, with every column\n"
    );
    owner.does(&["rotate-secret", "shop"]);
}

fn a_command_makes_a_table_or_completes_it_and_then_has_nothing_to_do(backend: &Backend) {
    let owner = Operator::on(backend, "owner");
    let whole = "the table is there, with every column\n";
    let says = |expected: &str| {
        let answer = owner.migrates();
        assert_eq!((answer.exit, &*answer.out), (0, expected), "{answer:?}");
        answer.diagnostics
    };
    if backend.kind != Kind::Dynamodb {
        let answer = Operator::on(backend, "reader").migrates();
        assert_eq!(answer.exit, 1, "{answer:?}");
        assert!(answer.diagnostics.contains("does not let reader"));
    }
    says("made the table\n");
    says(whole);
    match backend.kind {
        // Each of these tests has a server of its own.
        Kind::Dynamodb => return,
        Kind::Mysql | Kind::Pgsql => backend.run(&["DROP TABLE sockudo.applications"]),
    }
    makes_a_table_of_2_9_with_less(backend);
    let statement = owner.types(&["init"]).out;
    let diagnostics = says("completed the table\n");
    assert!(diagnostics.contains(statement.trim_end()), "{diagnostics}");
    says(whole);
    owner.does(&["add", "shop"]);
    owner.does(&["rotate-secret", "shop"]);
}

fn who_may_not_write_is_told_which_key_wanted_it(backend: &Backend) {
    let refusal = |user, keys: &[(&str, &str)]| {
        let preparation = preparation(backend, user, keys).expect("something to do");
        runs(preparation).expect_err("a refusal")
    };
    let seed = [("SEED", "if_missing")];
    let said = refusal("owner", &seed);
    assert!(
        said.starts_with("app_manager.seed: ") && said.contains("`sockudo apps init` creates it"),
        "{said}"
    );
    if backend.kind == Kind::Dynamodb {
        return; // Here it knows no users.
    }
    let said = refusal("reader", &[("CREATE_SCHEMA", "true")]);
    assert!(
        said.starts_with("app_manager.create_schema: ") && said.contains("does not let reader"),
        "{said}"
    );
    Operator::on(backend, "owner").does(&["init"]);
    let said = refusal("reader", &seed);
    assert!(
        said.starts_with("app_manager.seed: ") && said.contains("does not let reader"),
        "{said}"
    );
    assert!(!said.contains("first"), "{said}");
}

fn what_a_start_would_do_is_foreseen_and_not_done(backend: &Backend) {
    let foresees = |user: &str, keys: &[(&str, &str)]| {
        let preparation = preparation(backend, user, keys).expect("something to do");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(preparation.foresee())
    };
    let foreseen = |makes_table, completes_table| {
        Ok(Foreseen {
            makes_table,
            completes_table,
        })
    };
    let both = |seed| [("CREATE_SCHEMA", "true"), ("SEED", seed)];
    let seed = [("SEED", "if_missing")];
    let refused = |answer: Result<Foreseen, String>, key: &str, part: &str| {
        let said = answer.expect_err("a refusal");
        assert!(said.starts_with(key) && said.contains(part), "{said}");
    };
    let has_users = backend.kind != Kind::Dynamodb;
    for _ in 0..2 {
        assert_eq!(
            foresees("owner", &both("if_missing")),
            foreseen(true, false)
        );
    }
    refused(foresees("owner", &seed), "app_manager.seed: ", "apps init");
    if has_users {
        let answer = foresees("reader", &both("if_missing"));
        refused(answer, "app_manager.create_schema: ", "does not let reader");
    }
    backend.makes_loose_table();
    if backend.kind == Kind::Pgsql {
        let answer = foresees("owner", &both("if_missing"));
        refused(answer, "app_manager.create_schema: ", "to own it");
        backend.run(&["ALTER TABLE sockudo.applications OWNER TO owner"]);
    }
    let lacks = has_users; // An item needs no columns.
    assert_eq!(
        foresees("owner", &both("if_missing")),
        foreseen(false, lacks)
    );
    if has_users {
        refused(
            foresees("reader", &seed),
            "app_manager.seed: ",
            "does not let reader",
        );
    }
    Operator::on(backend, "owner").does(&["add", "shop", "key=k", "secret=s"]);
    // Nothing is to be written any more; or what is there already.
    assert_eq!(foresees("reader", &seed), foreseen(false, false));
    if has_users {
        let answer = foresees("reader", &[("SEED", "overwrite")]);
        refused(answer, "app_manager.seed: ", "does not let reader");
    }
}
