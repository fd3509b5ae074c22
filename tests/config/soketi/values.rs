//! Values of Soketi: its usual file, units, what is refused, numbers as names.

use sockudo::config::Level;
use sockudo::config::sections::RateLimiterDriver;

use super::{app, usual};
use crate::{Given, env, file, in_an_app, nested};

#[test]
fn the_usual_file_of_soketi_loads_and_says_what_has_no_effect() {
    let loaded = file(usual()).loaded();
    let config = &loaded.config;
    assert!(!config.demo);
    assert_eq!((&*config.path_prefix, &*config.mode), ("", "production"));
    assert_eq!(
        (
            config.user_authentication_timeout_s,
            config.drain.deadline_s
        ),
        (5, 3)
    );
    let app = app(config);
    assert_eq!((&*app.id, app.max_connections), ("1", 0));
    assert_eq!(app.max_client_events_per_second, 0);
    assert_eq!(app.webhooks[0].filter.prefix.as_deref(), Some("presence-"));
    assert_eq!(config.rate_limiter.driver, RateLimiterDriver::Memory);
    assert!(!config.rate_limiter.enabled);
    let warned: Vec<&str> = loaded
        .notices
        .iter()
        .filter(|notice| notice.level == Level::Warning)
        .map(|notice| notice.key.as_str())
        .collect();
    assert_eq!(
        warned,
        [
            "enableStatistics",
            "adapter.cluster.requestsTimeout",
            "appManager.mysql.version",
            "appManager.mysql.useMysql2",
            "appManager.postgres.version",
            "cluster.hostname",
            "cluster.helloInterval",
            "cluster.checkInterval",
            "cluster.nodeTimeout",
            "cluster.masterTimeout",
            "cluster.port",
            "cluster.ignoreProcess",
            "cluster.broadcast",
            "instance.process_id",
            "queue.sqs.processBatch",
            "appManager.array.apps[0].enableStatistics",
        ]
    );
    let said = |key: &str, words: &str| {
        let is_said = loaded
            .notices
            .iter()
            .any(|notice| notice.key == key && notice.text.contains(words));
        assert!(is_said, "{key}: {words}: {:#?}", loaded.notices);
    };
    said("shutdownGracePeriod", "3000 milliseconds");
    said("userAuthenticationTimeout", "are 5 s here");
}

#[test]
fn seconds_are_ours_and_milliseconds_soketis_by_the_spelling_of_the_key() {
    for (key, value, expected) in [
        ("user_authentication_timeout", "5000", 5000),
        ("userAuthenticationTimeout", "5000", 5),
        ("userAuthenticationTimeout", "\"1001\"", 2),
        ("userAuthenticationTimeout", "1", 1),
    ] {
        let config = file(&nested(key, value)).loaded().config;
        assert_eq!(
            config.user_authentication_timeout_s, expected,
            "{key} {value}"
        );
    }
    for (key, value, expected) in [
        ("shutdown_grace_period", "30", 30),
        ("shutdownGracePeriod", "3000", 3),
        ("shutdownGracePeriod", "3001", 4),
        ("shutdownGracePeriod", "0", 0),
    ] {
        let config = file(&nested(key, value)).loaded().config;
        assert_eq!(config.drain.deadline_s, expected, "{key} {value}");
    }
    assert_eq!(
        file(&nested("shutdownGracePeriod", "\"3s\"")).errors(),
        [
            "config.json:2: shutdownGracePeriod: \"3s\" is not a whole number of milliseconds >= 0 \
             (Soketi's unit)"
        ]
    );
    for (variables, expected) in [
        (&[("USER_AUTHENTICATION_TIMEOUT", "30")][..], 30),
        (&[("SOKETI_USER_AUTHENTICATION_TIMEOUT", "30000")], 30),
        (
            &[
                ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "30000"),
                ("USER_AUTHENTICATION_TIMEOUT", "40"),
            ],
            40,
        ),
    ] {
        let config = env(variables).loaded().config;
        assert_eq!(
            config.user_authentication_timeout_s, expected,
            "{variables:?}"
        );
    }
}

#[test]
fn what_soketi_has_and_this_release_has_not_is_refused_with_a_way_out() {
    for (text, part) in [
        (
            nested("adapter.driver", "\"cluster\""),
            "nodes do not look for each other by UDP",
        ),
        (
            nested("ssl.certPath", "\"/c.pem\""),
            "ssl.key_path: is empty, and ssl.enabled = true",
        ),
        (
            nested("ssl.keyPath", "\"/k.pem\""),
            "ssl.cert_path: is empty, and ssl.enabled = true",
        ),
        (
            nested("appManager.driver", "\"scylla\""),
            "not in this release, which has \"memory\"",
        ),
        (
            nested("queue.sqs.pollingWaitTimeMs", "\"soon\""),
            "milliseconds",
        ),
        (
            nested("cache.redis.redisOptions", "\"h:1\""),
            "an object of options",
        ),
    ] {
        let errors = file(&text).errors();
        assert!(
            errors.len() == 1 && errors[0].contains(part),
            "{part}: {errors:?}"
        );
    }
    // In our own spelling a certificate may lie ready without being used.
    file(&nested("ssl.cert_path", "\"/c.pem\"")).loaded();
}

#[test]
fn ids_and_keys_that_are_numbers_are_taken_as_text() {
    for (id, expected) in [
        ("123456", "123456"),
        ("0", "0"),
        ("18446744073709551616", "18446744073709551616"),
        ("\"7\"", "7"),
    ] {
        let loaded = file(&in_an_app("id", id)).loaded();
        assert_eq!(app(&loaded.config).id, expected);
        let loaded = file(&in_an_app("key", id)).loaded();
        assert_eq!(app(&loaded.config).key, expected);
    }
    let toml = "[[app_manager.array.apps]]\nid = 42\nkey = 43\nsecret = \"s\"\n";
    let given = Given {
        file: Some(("c.toml", toml)),
        ..Given::default()
    };
    assert_eq!(app(&given.loaded().config).id, "42");
    let errors = file(&in_an_app("id", "1.5")).errors();
    assert!(errors[0].contains("apps[0].id: 1.5 is not"), "{errors:?}");
}
