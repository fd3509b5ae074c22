//! Whole files: the examples of the reference, what upstream ships, and the limits nobody set.

use std::path::Path;

use sockudo::config::keys::Key;
use sockudo::config::settings::Setting;
use sockudo::config::{Level, Origin, load};

use crate::{Given, env, file, in_an_app, plain_keys};

#[test]
fn limits_that_nobody_set_are_the_protocols_or_upstreams() {
    let limits = |text: &str| {
        let config = file(text).loaded().config;
        let app = config.app_manager.apps[0].clone();
        [
            app.max_client_events_per_second,
            app.max_presence_members_per_channel,
            app.presence_member_bytes_max,
            app.channel_name_bytes_max,
            app.event_channels_max,
            app.event_name_bytes_max,
            app.event_payload_bytes_max,
            app.event_batch_max,
            u32::try_from(config.channel_limits.cache_ttl_s).expect("small"),
            u32::from(config.rate_limiter.enabled),
        ]
    };
    let plain = in_an_app("enabled", "true");
    assert_eq!(
        limits(&plain),
        [10, 100, 1024, 200, 100, 200, 102_400, 10, 1800, 0]
    );
    let max = u32::MAX;
    let upstream = plain.replacen('{', "{\"limits_mode\": \"upstream\", ", 1);
    assert_eq!(
        limits(&upstream),
        [0, max, max, 200, max, 200, max, max, 3600, 1]
    );
    let server = plain.replacen('{', "{\"event_limits\": {\"max_batch_size\": 20}, ", 1);
    assert_eq!(limits(&server)[7], 20);
    let both = server.replace("\"enabled\"", "\"max_event_batch_size\": -1, \"enabled\"");
    assert_eq!(limits(&both)[7], max);
}

#[test]
fn the_examples_of_the_reference_load() {
    let read = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/files");
        std::fs::read_to_string(folder.join(name)).expect("the example is there")
    };
    let config = file(&read("minimal.json")).loaded().config;
    let app = &config.app_manager.apps[0];
    assert_eq!(
        (app.id.as_str(), app.max_client_events_per_second),
        ("shop", 100)
    );

    let loaded = file(&read("complete.json")).loaded();
    assert_eq!(
        (
            loaded.config.cluster.lease_ms,
            loaded.config.cluster.heartbeat_ms
        ),
        (30_000, 10_000)
    );
    let app = &loaded.config.app_manager.apps[0];
    assert_eq!(app.event_payload_bytes_max, 102_400);
    assert_eq!(app.webhooks[0].filter.prefix.as_deref(), Some("presence-"));
    assert!(
        loaded
            .notices
            .iter()
            .all(|notice| notice.level == Level::Note),
        "{:#?}",
        loaded.notices
    );

    let loaded = file(&read("extensions.json")).loaded();
    for key in plain_keys().filter(|key| key.derived.is_none()) {
        if let Origin::File { .. } = loaded.settings.origin(key.path) {
            let default = show_default(key);
            assert_eq!(loaded.settings.setting(key.path), &default, "{}", key.path);
        }
    }
}

fn show_default(key: &Key) -> Setting {
    load::defaults().setting(key.path).clone()
}

#[test]
fn what_upstreams_container_ships_loads_but_its_demo_app_may_not_face_the_network() {
    let shipped = r#"{
        "host": "127.0.0.1", "port": 6001,
        "queue": { "driver": "memory" }, "metrics": { "enabled": false },
        "rate_limiter": { "enabled": false, "driver": "redis" },
        "event_limits": { "max_payload_in_kb": 1000, "max_name_length": 2000 },
        "adapter": { "cluster": { "prefix": "sockudo_cluster:" } },
        "instance": { "process_id": "sockudo-docker-1" },
        "app_manager": { "array": { "apps": [
            { "id": "app-id", "key": "app-key", "secret": "app-secret", "enabled": true,
              "max_connections": 10000, "enable_client_messages": true,
              "max_client_events_per_second": 1000, "allowed_origins": ["*"] } ] } }
    }"#;
    let loaded = file(shipped).loaded();
    assert_eq!(loaded.config.cluster.node_id, None);
    assert_eq!(loaded.config.net.send_queue_bytes, 2 * 1000 * 1024);
    assert!(
        loaded
            .notices
            .iter()
            .any(|n| n.level == Level::Warning && n.key.ends_with("secret"))
    );

    let outside = Given {
        env: &[("HOST", "0.0.0.0")],
        ..file(shipped)
    };
    assert!(
        outside.errors()[0].contains("pass --allow-demo-app"),
        "{:?}",
        outside.errors()
    );
    Given {
        allow_demo_app: true,
        ..outside.clone()
    }
    .loaded();
    Given {
        env: &[("HOST", "0.0.0.0"), ("ENVIRONMENT", "dev")],
        ..file(shipped)
    }
    .loaded();
    Given {
        env: &[("HOST", "localhost,[::1]")],
        ..file(shipped)
    }
    .loaded();
    let demo = env(&[("HOST", "0.0.0.0")]).errors();
    assert!(demo[0].contains("pass --allow-demo-app"), "{demo:?}");
}
