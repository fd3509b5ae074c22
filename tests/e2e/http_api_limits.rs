//! How often one address, and one app, may ask the HTTP API.

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;

// P-101
fn the_limit_per_address_refuses_with_headers_and_spares_health(shards: usize) {
    let config = Config::new().with(json!({"rate_limiter": {
        "enabled": true, "driver": "memory",
        "api_rate_limit": {"max_requests": 3, "window_seconds": 2, "trust_hops": 0},
    }}));
    let server = Server::start(&config, shards);
    let mut api = server.api();
    for left in [2, 1, 0] {
        let reply = api.get("/channels", &[]);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(
            reply.header("x-ratelimit-remaining"),
            Some(&*left.to_string())
        );
        assert!(reply.header("x-ratelimit-reset").is_some());
        assert_eq!(reply.header("retry-after"), None);
    }
    let reply = api.get("/channels", &[]);
    assert_eq!(reply.status, 429);
    assert_eq!(
        reply.json(),
        json!({
            "error": "Too Many Requests",
            "message": "Rate limit exceeded. Please try again later.",
        })
    );
    for header in [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after",
    ] {
        let value = reply.header(header).unwrap_or_else(|| panic!("{header}"));
        assert!(value.parse::<u32>().is_ok(), "{header}: {value}");
    }
    for _ in 0..10 {
        assert_eq!(server.gets("/up").status, 200);
    }
    server.client("sockets are counted apart").expects_pong();
    eventually("the next window", || {
        (api.get("/channels", &[]).status == 200).then_some(())
    });
}

// Section 9.9: upgrades per address.
fn upgrades_per_address_can_be_limited(shards: usize) {
    let config = Config::new().with(json!({"rate_limiter": {
        "enabled": true, "driver": "memory",
        "websocket_rate_limit": {"max_requests": 3, "window_seconds": 60},
    }}));
    let server = Server::start(&config, shards);
    let _inside: Vec<_> = (0..3).map(|n| server.client(&n.to_string())).collect();
    let mut wire = server.wire();
    wire.asks_upgrade("/app/app-key?protocol=7", "");
    assert_eq!(wire.reply().status, 429);
}

// Section 9.9: what an app may publish and read per second.
fn an_apps_budget_of_events_and_reads_is_kept(shards: usize) {
    let config = Config::new().with_app(
        json!({"max_backend_events_per_second": "5", "max_read_requests_per_second": "5"}),
    );
    let server = Server::start(&config, shards);
    let mut api = server.api();
    let body = br#"{"name":"e","channels":["a"],"data":"x"}"#;
    let statuses: Vec<u16> = (0..30).map(|_| api.post("/events", body).status).collect();
    let accepted = statuses.iter().filter(|status| **status == 200).count();
    assert!((5..=15).contains(&accepted), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let statuses: Vec<u16> = (0..30).map(|_| api.get("/channels", &[]).status).collect();
    let accepted = statuses.iter().filter(|status| **status == 200).count();
    assert!((5..=15).contains(&accepted), "{statuses:?}");
    // Each channel of an event counts, and a request that does not fit publishes nothing.
    eventually("a new second", || {
        (api.post("/events", body).status == 200).then_some(())
    });
    let channels: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    let event = json!({"name": "e", "channels": channels, "data": "x"}).to_string();
    let reply = api.post("/events", event.as_bytes());
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").is_some());
    // More than there ever is passes when nothing is used up, and those that come after it pay.
    let channels: Vec<String> = (0..100).map(|n| format!("c{n}")).collect();
    let event = json!({"name": "e", "channels": channels, "data": "x"}).to_string();
    eventually("all of the rate to be there", || {
        (api.post("/events", event.as_bytes()).status == 200).then_some(())
    });
    let reply = api.post("/events", body);
    assert_eq!(reply.status, 429);
    let wait_s = reply.header("retry-after").expect("a time");
    let wait_s: u64 = wait_s.parse().expect("seconds");
    assert!((2..=20).contains(&wait_s), "{wait_s}");
}

on_one_and_three_shards! {
    the_limit_per_address_refuses_with_headers_and_spares_health,
    upgrades_per_address_can_be_limited,
    an_apps_budget_of_events_and_reads_is_kept,
}
