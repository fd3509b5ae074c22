//! Webhooks that wait in Redis for apps that are in a database: whoever takes them has to look for their app first.

use serde_json::{Value, json};
use sockudo::bridge::queue::TargetName;

use crate::stores::{database, keys};
use crate::support::config::{Config, merge};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::webhook::WebhookSink;
use crate::webhook_queue::{Wire, arrive, puts_of, redis, waits};

/// Longer than it takes until nobody's jobs are given up, shorter than `webhooks.retry.max_age_s`.
const AGE_MS: u64 = 120_000;
const JOBS: u64 = 20;

fn rooms(name: &str) -> impl Iterator<Item = String> {
    (0..JOBS).map(move |number| format!("{name}-{number}"))
}

fn events(name: &str) -> impl Iterator<Item = Value> {
    rooms(name).map(|channel| json!({"name": "channel_occupied", "channel": channel}))
}

#[test]
fn old_webhooks_of_apps_in_a_database_are_delivered_by_a_node_that_has_to_look_for_the_app() {
    let test = "old_webhooks_of_apps_in_a_database_are_delivered";
    let (Some(mut database), Some(mut redis)) = (database(test), redis(test, &[])) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    database.run(&[&format!(
        "UPDATE apps.applications SET webhooks = '{hooks}' WHERE id = 'shop-id'"
    )]);
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    let mut own = json!({
        "queue": {"driver": "redis", "lease_s": 1},
        "database": {"redis": {"host": host, "port": port}},
    });
    merge(&mut own, keys(&database, json!({})));
    let config = Config::new().with(own);
    let (mut wire, target) = (Wire::to(&redis), TargetName::of("shop-id", &sink.url(), 0));
    let shop = ("shop-id", AGE_MS);
    let nobodys = TargetName::of("nobody-id", &sink.url(), 0);

    puts_of(shop, &mut wire, 1, target, events("known"));
    puts_of(
        ("nobody-id", AGE_MS),
        &mut wire,
        2,
        nobodys,
        events("nobody"),
    );
    let node = Server::start(&config, 1);
    arrive(&mut sink, rooms("known"));
    drop(node);

    // A node that cannot ask yet keeps them.
    puts_of(shop, &mut wire, 3, target, events("late"));
    database.kill();
    let node = Server::spawn(&config, 1);
    eventually("the node to have ports", || {
        node.log().contains("listening for metrics").then_some(())
    });
    eventually("the node to take a job", || {
        let taken = node.metric_with("sockudo_webhook_store_events_total", "taken");
        taken.filter(|it| *it >= 1.0)
    });
    database.start_again();
    arrive(&mut sink, rooms("late"));

    // One that knows the app as it was looks at it again.
    let other = sink.url_at("/other");
    database.run(&[&format!(
        "UPDATE apps.applications SET webhooks = JSON_SET(webhooks, '$[0].url', '{other}')"
    )]);
    let target = TargetName::of("shop-id", &other, 0);
    puts_of(shop, &mut wire, 4, target, events("moved"));
    arrive(&mut sink, rooms("moved"));

    eventually("those of nobody to be left", || {
        (waits(&mut redis) == JOBS).then_some(())
    });
    let letters = redis.command(&["HLEN", "sockudo_queue::queue:webhooks:v2:dead"]);
    assert_eq!(letters.trim(), ":0", "they are nobody's for a minute first");
}
