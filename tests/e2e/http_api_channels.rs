//! What the HTTP API tells of channels and of who is there.

use serde_json::json;

use crate::on_one_and_three_shards;
use crate::support::config::Config;
use crate::support::eventually;
use crate::support::server::Server;

// P-097
fn occupied_channels_are_listed_by_prefix(shards: usize) {
    let server = Server::start(&Config::new().with_users(), shards);
    let mut api = server.api();
    assert_eq!(api.reads("/channels", &[]), json!({"channels": {}}));
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.subscribes("news");
    bob.subscribes("news");
    alice.joins("presence-a", "1");
    bob.joins("presence-a", "1");
    bob.joins("presence-b", "2");
    alice.signs_in("42");
    assert_eq!(
        api.reads("/channels", &[]),
        json!({"channels": {"news": {}, "presence-a": {}, "presence-b": {}}})
    );
    assert_eq!(
        api.reads(
            "/channels",
            &[("filter_by_prefix", "presence-"), ("info", "user_count")]
        ),
        json!({"channels": {"presence-a": {"user_count": 1}, "presence-b": {"user_count": 1}}})
    );
    assert_eq!(
        api.reads("/channels", &[("info", "subscription_count")]),
        json!({"channels": {
            "news": {"subscription_count": 2},
            "presence-a": {"subscription_count": 2},
            "presence-b": {"subscription_count": 1},
        }})
    );
    assert_eq!(
        api.reads("/channels", &[("filter_by_prefix", "nothing")]),
        json!({"channels": {}})
    );
    for parameters in [
        &[("info", "user_count")][..],
        &[("filter_by_prefix", "presence"), ("info", "user_count")],
        &[("info", "nonsense")],
        &[("info", "cache")],
    ] {
        assert_eq!(
            api.get("/channels", parameters).status,
            400,
            "{parameters:?}"
        );
    }
}

/// The parameter that asks for so much of a channel; none, if that is nothing.
fn info(asked: &str) -> Vec<(&str, &str)> {
    let asks = (!asked.is_empty()).then_some(("info", asked));
    asks.into_iter().collect()
}

// P-098
fn one_channel_tells_its_state(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.joins("presence-a", "1");
    bob.joins("presence-a", "1");
    alice.subscribes_to_empty_cache("cache-x");
    for (channel, asked, told) in [
        (
            "presence-a",
            "user_count,subscription_count",
            json!({"occupied": true, "user_count": 1, "subscription_count": 2}),
        ),
        ("presence-a", "", json!({"occupied": true})),
        (
            "presence-z",
            "user_count,subscription_count",
            json!({"occupied": false, "user_count": 0, "subscription_count": 0}),
        ),
        ("unknown", "", json!({"occupied": false})),
        ("cache-x", "cache", json!({"occupied": true, "cache": null})),
    ] {
        let state = api.reads(&format!("/channels/{channel}"), &info(asked));
        assert_eq!(state, told, "{channel} {asked}");
    }
    api.publishes("e", "cache-x", r#"{"hello":"world"}"#);
    let answer = api.reads("/channels/cache-x", &[("info", "cache")]);
    assert_eq!(answer["cache"]["data"], r#"{"hello":"world"}"#);
    let ttl = answer["cache"]["ttl"].as_u64().expect("whole seconds");
    assert!((1_790..=1_800).contains(&ttl), "{ttl}");
    eventually("the ttl to decrease", || {
        let answer = api.reads("/channels/cache-x", &[("info", "cache")]);
        (answer["cache"]["ttl"].as_u64()? < ttl).then_some(())
    });
    for (resource, asked) in [
        ("/channels/news", "user_count"),
        ("/channels/news", "cache"),
        ("/channels/presence-a", "cache"),
        ("/channels/presence-a", "nonsense"),
        ("/channels/a:b", ""),
        ("/channels/a%3Ab", ""),
        ("/channels/%FF", ""),
        ("/channels/a%FF/users", ""),
    ] {
        let reply = api.get(resource, &info(asked));
        assert_eq!(reply.status, 400, "{resource} {asked}");
    }
}

// P-099
fn the_users_of_a_presence_channel_are_listed_once_each(shards: usize) {
    let server = Server::start(&Config::new(), shards);
    let mut api = server.api();
    assert_eq!(
        api.reads("/channels/presence-a/users", &[]),
        json!({"users": []})
    );
    let mut clients: Vec<_> = (0..3)
        .map(|n| server.client(&format!("client {n}")))
        .collect();
    clients[0].asks_to_join("presence-a", r#"{"user_id":10}"#);
    clients[0].expects_snapshot("presence-a");
    clients[1].joins("presence-a", "10");
    clients[2].joins("presence-a", "7");
    let mut users = api.reads("/channels/presence-a/users", &[])["users"].clone();
    users
        .as_array_mut()
        .expect("a list")
        .sort_by_key(|user| user["id"].to_string());
    assert_eq!(users, json!([{"id": "10"}, {"id": "7"}]));
    assert_eq!(api.get("/channels/news/users", &[]).status, 400);
}

on_one_and_three_shards! {
    occupied_channels_are_listed_by_prefix,
    one_channel_tells_its_state,
    the_users_of_a_presence_channel_are_listed_once_each,
}
