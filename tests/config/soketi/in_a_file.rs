//! Names of a file of Soketi: each has its effect, or says that it has none.

use std::collections::BTreeSet;

use sockudo::config::Level;
use sockudo::config::keys::{APP, Meaning, SERVER};
use sockudo::config::sections::DynamodbLayout;
use sockudo::config::settings::Setting;

use super::{Effect, secret};
use crate::{file, in_an_app, nested};

/// Names of a file: path, value, effect, expected.
pub(in super::super) const IN_A_FILE: &[(&str, &str, Effect, &str)] = &[
    (
        "userAuthenticationTimeout",
        "5000",
        |c| c.user_authentication_timeout_s.to_string(),
        "5",
    ),
    (
        "shutdownGracePeriod",
        "3000",
        |c| c.drain.deadline_s.to_string(),
        "3",
    ),
    (
        "appManager.cache.ttl",
        "-1",
        |c| c.app_manager.cache_ttl_s.to_string(),
        "86400",
    ),
    (
        "appManager.cache.ttl",
        "60",
        |c| c.app_manager.cache_ttl_s.to_string(),
        "60",
    ),
    (
        "queue.sqs.pollingWaitTimeMs",
        "1500",
        |c| c.queue.sqs.wait_time_s.to_string(),
        "2",
    ),
    (
        "adapter.driver",
        "\"local\"",
        |c| format!("{:?}", c.adapter.driver),
        "Local",
    ),
    (
        "rateLimiter.driver",
        "\"local\"",
        |c| format!("{:?}", c.rate_limiter.driver),
        "Memory",
    ),
    (
        "rateLimiter.driver",
        "\"cluster\"",
        |c| format!("{:?}", c.rate_limiter.driver),
        "Memory",
    ),
    ("mode", "\"full\"", |c| c.mode.clone(), "production"),
    ("mode", "\"worker\"", |c| c.mode.clone(), "production"),
    ("mode", "\"staging\"", |c| c.mode.clone(), "staging"),
    (
        "instance.process_id",
        "4711",
        |c| format!("{:?}", c.cluster.node_id),
        "None",
    ),
    (
        "instance.process_id",
        "\"n1\"",
        |c| format!("{:?}", c.cluster.node_id),
        "Some(\"n1\")",
    ),
    (
        "queue.sqs.queueUrl",
        "\"https://sqs.example/1/webhooks\"",
        |c| format!("{:?}", c.queue.sqs.queue_url_prefix),
        "Some(\"https://sqs.example/1/\")",
    ),
    ("pathPrefix", "\"\"", |c| c.path_prefix.clone(), ""),
    ("pathPrefix", "\"/ws/\"", |c| c.path_prefix.clone(), "/ws"),
    (
        "appManager.dynamodb.table",
        "\"apps\"",
        |c| {
            let is_soketi = c.database.dynamodb.layout == DynamodbLayout::Soketi;
            format!("{} {is_soketi}", c.database.dynamodb.table_name)
        },
        "apps true",
    ),
    (
        "appManager.dynamodb.region",
        "\"eu\"",
        |c| c.database.dynamodb.region.clone(),
        "eu",
    ),
    (
        "appManager.dynamodb.endpoint",
        "\"http://h\"",
        |c| format!("{:?}", c.database.dynamodb.endpoint_url),
        "Some(\"http://h\")",
    ),
    (
        "appManager.mysql.table",
        "\"apps\"",
        |c| c.database.mysql.table_name.clone(),
        "apps",
    ),
    (
        "appManager.postgres.table",
        "\"apps\"",
        |c| c.database.postgres.table_name.clone(),
        "apps",
    ),
    (
        "database.mysql.user",
        "\"u\"",
        |c| c.database.mysql.username.clone(),
        "u",
    ),
    (
        "database.postgres.user",
        "\"u\"",
        |c| c.database.postgres.username.clone(),
        "u",
    ),
    (
        "adapter.redis.redisPubOptions",
        r#"{"host": "h", "port": 1, "username": "u", "password": "p@/", "db": 2, "tls": {}}"#,
        |c| secret(&c.adapter.redis.pub_url),
        "rediss://u:p%40%2F@h:1/2",
    ),
    (
        "adapter.redis.redisSubOptions",
        r#"{"host": "::1", "password": "p"}"#,
        |c| secret(&c.adapter.redis.sub_url),
        "redis://:p@[::1]:6379",
    ),
    (
        "adapter.redis.redisPubOptions",
        r#"{"url": "redis://h"}"#,
        |c| secret(&c.adapter.redis.pub_url),
        "redis://h",
    ),
    (
        "adapter.redis.redisPubOptions",
        "{}",
        |c| secret(&c.adapter.redis.pub_url),
        "none",
    ),
    (
        "cache.redis.redisOptions",
        r#"{"host": "h", "enableAutoPipelining": true}"#,
        |c| secret(&c.cache.redis.url_override),
        "redis://h:6379",
    ),
    (
        "queue.redis.redisOptions",
        r#"{"host": "h"}"#,
        |c| secret(&c.queue.redis.url_override),
        "redis://h:6379",
    ),
    (
        "rateLimiter.redis.redisOptions",
        r#"{"host": "h"}"#,
        |c| secret(&c.rate_limiter.redis.url_override),
        "redis://h:6379",
    ),
    (
        "adapter.nats.user",
        "\"u\"",
        |c| format!("{:?}", c.adapter.nats.username),
        "Some(\"u\")",
    ),
    (
        "adapter.nats.pass",
        "\"p\"",
        |c| secret(&c.adapter.nats.password),
        "p",
    ),
    (
        "adapter.nats.timeout",
        "10000",
        |c| c.adapter.nats.connection_timeout_ms.to_string(),
        "10000",
    ),
    (
        "adapter.nats.requestsTimeout",
        "6000",
        |c| c.adapter.nats.request_timeout_ms.to_string(),
        "6000",
    ),
    (
        "queue.sqs.endpoint",
        "\"http://h\"",
        |c| format!("{:?}", c.queue.sqs.endpoint_url),
        "Some(\"http://h\")",
    ),
    (
        "queue.sqs.batchSize",
        "3",
        |c| c.queue.sqs.max_messages.to_string(),
        "3",
    ),
    (
        "httpApi.requestLimitInMb",
        "100",
        |c| c.http_api.request_bytes_max.to_string(),
        "104857600",
    ),
    (
        "httpApi.acceptTraffic.memoryThreshold",
        "85",
        |c| c.http_api.memory_threshold.to_string(),
        "0.85",
    ),
    (
        "database.redis.keyPrefix",
        "\"\"",
        |c| c.database.redis.key_prefix.clone(),
        "sockudo:",
    ),
    (
        "database.redis.sentinels",
        r#"[{"host": "s", "port": 1}]"#,
        |c| format!("{:?}", c.database.redis.sentinels[0].host),
        "\"s\"",
    ),
    (
        "channelLimits.cacheTtl",
        "3600",
        |c| c.channel_limits.cache_ttl_s.to_string(),
        "3600",
    ),
    (
        "databasePooling.max",
        "7",
        |c| c.database_pooling.max.to_string(),
        "7",
    ),
    (
        "queue.driver",
        "\"sync\"",
        |c| format!("{:?}", c.queue.driver),
        "Memory",
    ),
    (
        "appManager.driver",
        "\"array\"",
        |c| format!("{:?}", c.app_manager.driver),
        "Memory",
    ),
    (
        "cors.allowedHeaders",
        "[\"X-CSRF-TOKEN\"]",
        |c| c.cors.allowed_headers.join(" "),
        "X-CSRF-TOKEN",
    ),
    (
        "webhooks.batching.duration",
        "70",
        |c| c.webhooks.batching_ms.to_string(),
        "70",
    ),
];

#[test]
fn every_name_and_unit_of_a_soketi_file_has_its_effect() {
    for &(path, value, effect, expected) in IN_A_FILE {
        let text = nested(path, value);
        assert_eq!(effect(&file(&text).loaded().config), expected, "{text}");
        // Soketi also takes the whole path as one name.
        let flat = format!("{{{path:?}: {value}}}");
        assert_eq!(effect(&file(&flat).loaded().config), expected, "{flat}");
    }
    let limits = file(&nested("eventLimits.maxPayloadInKb", "0.5"))
        .loaded()
        .settings;
    assert_eq!(
        *limits.setting("event_limits.max_payload_in_kb"),
        Setting::Bytes(512)
    );
    let snake = |path: &str| {
        let mut out = String::new();
        for c in path.chars() {
            if c.is_ascii_uppercase() {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    };
    let shown: BTreeSet<String> = IN_A_FILE.iter().map(|row| snake(row.0)).collect();
    for row in SERVER.soketi.iter().filter(|row| !row.path.is_empty()) {
        match row.meaning {
            // Its effect is a refusal: see below.
            Meaning::Key { .. } if row.path.starts_with("ssl.") => {}
            Meaning::Key { .. } => assert!(shown.contains(row.path), "{} has a case", row.path),
            Meaning::NoEffect(why) => {
                let loaded = file(&nested(row.path, "1")).loaded();
                let about = loaded.notices.iter().find(|n| n.key == row.path);
                let about = about.unwrap_or_else(|| panic!("{} is told", row.path));
                assert_eq!(about.level, Level::Warning);
                assert_eq!(about.text, format!("has no effect: {why}"));
                let asked_for_nothing = file(&nested(row.path, "null")).loaded();
                assert!(asked_for_nothing.notices.iter().all(|n| n.key != row.path));
            }
        }
    }
    for row in APP.soketi {
        let loaded = file(&in_an_app(row.path, "true")).loaded();
        let about = |n: &&sockudo::config::Notice| n.key.ends_with(row.path);
        assert!(loaded.notices.iter().any(|n| about(&n)), "{}", row.path);
    }
}
