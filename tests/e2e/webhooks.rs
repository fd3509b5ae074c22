//! What the application's server is told, and when.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::on_one_and_three_shards;
use crate::support::config::{APP_ID, Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::{Server, own_address};
use crate::support::sign::hex;
use crate::support::skip::skip;
use crate::support::webhook::{Delivery, WebhookSink};

/// Longer than the three seconds that a vacated channel has for coming back.
const PAST_GRACE: Duration = Duration::from_millis(4_500);

fn with_hooks(hooks: Value) -> Config {
    Config::new().with_app(json!({"webhooks": hooks}))
}

// P-105, P-106
fn a_webhook_is_signed_over_its_exact_body(shards: usize) {
    let mut sink = WebhookSink::start();
    let mut entry = sink.entry(&["channel_occupied"]);
    entry["headers"] = json!({"X-Env": "test"});
    let server = Server::start(&with_hooks(json!([entry])), shards);
    let before = crate::support::sign::unix_now() * 1000;
    server.client("alice").subscribes("my-channel");
    let delivery = sink.next_delivery();
    delivery.is_signed_with(KEY, SECRET);
    assert_eq!(delivery.path, "/");
    assert_eq!(delivery.header("x-env"), Some("test"));
    let mut body = delivery.json();
    let time = body["time_ms"].take().as_u64().expect("milliseconds");
    assert!(
        (before..before + 60_000).contains(&time),
        "{time} against {before}"
    );
    assert_eq!(
        body,
        json!({"time_ms": null, "events": [{"name": "channel_occupied", "channel": "my-channel"}]})
    );
}

#[test]
fn webhooks_go_over_tls_on_one_connection_and_to_nobody_without_a_certificate_for_the_address() {
    let Some(certificates) = Certificates::make(own_address().into()) else {
        return skip("webhooks", "there is no openssl");
    };
    let sink = |name: &str| {
        WebhookSink::start_with_tls(&certificates.certificate(name), &certificates.key(name))
    };
    let (mut known, mut foreign) = (sink("server"), sink("foreign"));
    let hooks = [&known, &foreign].map(|sink| sink.entry(&["channel_occupied"]));
    let authority = certificates.certificate("ca");
    let config = with_hooks(json!(hooks)).with_environment(&[("SSL_CERT_FILE", &authority)]);
    let server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    let long = "x".repeat(180);
    for number in 0..5 {
        alice.subscribes(&format!("{number}-{long}"));
        let delivery = known.next_delivery();
        delivery.is_signed_with(KEY, SECRET);
        assert_eq!(delivery.events()[0]["channel"], format!("{number}-{long}"));
    }
    assert_eq!(known.connections(), 1);
    eventually("the log to say what is wrong with the other one", || {
        let has_tried = foreign.connections() > 0;
        (has_tried && server.log().contains("certificate")).then_some(())
    });
    foreign.expects_nothing_for(Duration::from_millis(300));
}

// P-106
fn a_channel_is_occupied_once_and_vacated_after_the_grace(shards: usize) {
    let mut sink = WebhookSink::start();
    let entry = sink.entry(&["channel_occupied", "channel_vacated"]);
    let server = Server::start(&with_hooks(json!([entry])), shards);
    let occupied = json!({"name": "channel_occupied", "channel": "news"});
    let vacated = json!({"name": "channel_vacated", "channel": "news"});
    let mut clients: Vec<_> = (0..4).map(|n| server.client(&n.to_string())).collect();
    for client in &mut clients {
        client.subscribes("news");
    }
    sink.expects(occupied.clone());
    sink.expects_nothing_for(Duration::from_millis(300));
    // All leave and one returns within the grace: nobody is told.
    drop(clients);
    let mut back = server.client("back");
    back.subscribes("news");
    sink.expects_nothing_for(PAST_GRACE);
    let left = Instant::now();
    back.unsubscribes("news");
    sink.expects(vacated);
    let waited = left.elapsed();
    assert!(waited > Duration::from_millis(2_500), "{waited:?}");
    assert!(waited < Duration::from_secs(6), "{waited:?}");
    back.subscribes("news");
    sink.expects(occupied);
}

// P-107
fn members_are_announced_per_user_and_leave_after_the_grace(shards: usize) {
    let mut sink = WebhookSink::start();
    let entry = sink.entry(&["member_added", "member_removed"]);
    let server = Server::start(&with_hooks(json!([entry])), shards);
    let event = |name: &str| json!({"name": name, "channel": "presence-room", "user_id": "alice"});
    let mut one = server.client("one tab");
    one.joins("presence-room", "alice");
    sink.expects(event("member_added"));
    let mut two = server.client("another tab");
    two.joins("presence-room", "alice");
    one.leaves();
    sink.expects_nothing_for(Duration::from_millis(500));
    two.unsubscribes("presence-room");
    two.joins("presence-room", "alice");
    sink.expects_nothing_for(PAST_GRACE);
    two.leaves();
    sink.expects(event("member_removed"));
}

// P-108
fn accepted_client_events_are_told_with_their_sender(shards: usize) {
    let mut sink = WebhookSink::start();
    let entry = sink.entry(&["client_event"]);
    let server = Server::start(&with_hooks(json!([entry])), shards);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    alice.joins("presence-x", "10");
    alice.triggers("client-a", "private-x", json!({"on": true}));
    sink.expects(json!({
        "name": "client_event", "channel": "private-x", "event": "client-a",
        "data": r#"{"on":true}"#, "socket_id": alice.socket_id,
    }));
    alice.triggers("client-b", "presence-x", json!("text"));
    sink.expects(json!({
        "name": "client_event", "channel": "presence-x", "event": "client-b", "data": "text",
        "socket_id": alice.socket_id, "user_id": "10",
    }));
    alice.triggers("client-c", "private-other", json!(1));
    alice.expects_error(4301);
    alice.triggers("ignored", "private-x", json!(1));
    sink.expects_nothing_for(Duration::from_millis(500));
}

// P-109
fn subscription_counts_are_integers_and_not_for_presence(shards: usize) {
    let mut sink = WebhookSink::start();
    let entry = sink.entry(&["subscription_count"]);
    let server = Server::start(&with_hooks(json!([entry])), shards);
    let count = |count: u64| json!({"name": "subscription_count", "channel": "news", "subscription_count": count});
    let mut alice = server.client("alice");
    let mut bob = server.client("bob");
    alice.joins("presence-x", "1");
    alice.subscribes("news");
    sink.expects(count(1));
    bob.subscribes("news");
    sink.expects(count(2));
    bob.unsubscribes("news");
    sink.expects(count(1));
    sink.expects_nothing_for(Duration::from_millis(300));
}

// P-110
fn each_entry_gets_what_it_asked_for_and_no_more(shards: usize) {
    let mut sink = WebhookSink::start();
    let hook = |path: &str, types: &[&str], filter: Value| {
        let url = sink.url_at(path);
        json!({"url": url, "event_types": types, "filter": filter})
    };
    let occupied = ["channel_occupied"];
    let server = Server::start(
        &with_hooks(json!([
            hook("/prefix", &occupied, json!({"channel_prefix": "private-"})),
            hook("/suffix", &occupied, json!({"channel_suffix": "-eu"})),
            hook(
                "/pattern",
                &occupied,
                json!({"channel_pattern": "^room-[0-9]+$"})
            ),
            hook(
                "/both",
                &occupied,
                json!({"channel_prefix": "private-", "channel_suffix": "-eu"})
            ),
            hook(
                "/soketi",
                &occupied,
                json!({"channel_name_starts_with": "room"})
            ),
            hook("/none", &[], json!(null)),
            hook("/other", &["member_added"], json!(null)),
            hook("/same", &occupied, json!({"channel_prefix": "same"})),
            hook(
                "/same",
                &["member_added", "channel_occupied"],
                json!({"channel_prefix": "same"})
            ),
        ])),
        shards,
    );
    let mut alice = server.client("alice");
    for (channel, expected) in [
        ("private-a-eu", &["/both", "/prefix", "/suffix"][..]),
        ("room-17", &["/pattern", "/soketi"]),
        ("room-x", &["/soketi"]),
        ("same", &["/same", "/same"]),
        ("nobody-asked", &[]),
    ] {
        alice.subscribes(channel);
        let mut paths = Vec::new();
        for _ in expected {
            let delivery = sink.next_delivery();
            assert_eq!(
                delivery.events(),
                [json!({"name": "channel_occupied", "channel": channel})]
            );
            paths.push(delivery.path);
        }
        paths.sort();
        assert_eq!(paths, expected, "{channel}");
        let more = sink.next_delivery_within(Duration::from_millis(200));
        assert!(more.is_none(), "{channel}: {more:?}");
    }
}

// P-111
fn a_failed_delivery_is_tried_again_with_the_same_body(shards: usize) {
    let mut sink = WebhookSink::start();
    let server = Server::start(
        &with_hooks(json!([sink.entry(&["channel_occupied"])])),
        shards,
    );
    sink.answers_with(&[500, 302, 404]);
    server.client("alice").subscribes("news");
    let first = sink.next_delivery();
    for _ in 0..3 {
        let again = sink.next_delivery();
        assert_eq!(again.body, first.body);
        again.is_signed_with(KEY, SECRET);
    }
    let more = sink.next_delivery_within(Duration::from_secs(2));
    assert!(more.is_none(), "delivered is done: {more:?}");
}

// P-111
fn a_slow_endpoint_does_not_delay_sockets(shards: usize) {
    let mut sink = WebhookSink::start();
    let server = Server::start(
        &with_hooks(json!([sink.entry(&["channel_occupied", "client_event"])])),
        shards,
    );
    sink.answers_after(Duration::from_secs(5));
    let mut alice = server.client("alice");
    let start = Instant::now();
    for number in 0..100 {
        alice.subscribes(&format!("private-{number}"));
    }
    alice.expects_pong();
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    sink.next_delivery();
}

// P-112
fn events_of_one_window_travel_together_in_order(shards: usize) {
    let mut sink = WebhookSink::start();
    let config = with_hooks(json!([sink.entry(&["client_event"])]))
        .with(json!({"webhooks": {"batching": {"enabled": true, "duration": 500}}}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    for number in 0..8 {
        alice.triggers("client-x", "private-x", json!(number));
    }
    alice.expects_pong();
    let deliveries = all_of(&mut sink, 8);
    assert!(
        deliveries.len() <= 2,
        "{} requests for one window",
        deliveries.len()
    );
    assert_eq!(
        numbers(&deliveries),
        ["0", "1", "2", "3", "4", "5", "6", "7"]
    );
}

// P-112
fn without_batching_each_event_travels_alone(shards: usize) {
    let mut sink = WebhookSink::start();
    let config = with_hooks(json!([sink.entry(&["client_event"])]))
        .with(json!({"webhooks": {"batching": {"enabled": false}}}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    for number in 0..8 {
        alice.triggers("client-x", "private-x", json!(number));
    }
    let deliveries = all_of(&mut sink, 8);
    assert_eq!(deliveries.len(), 8);
    assert_eq!(
        numbers(&deliveries),
        ["0", "1", "2", "3", "4", "5", "6", "7"]
    );
}

// What one app's target cannot take is that app's trouble.
fn a_dead_target_and_a_flood_to_it_cost_another_app_nothing(shards: usize) {
    let mut sink = WebhookSink::start();
    let nobody = TcpListener::bind((own_address(), 0)).expect("a free port");
    let dead = nobody.local_addr().expect("it is bound");
    drop(nobody);
    let hook = json!({"url": format!("http://{dead}/"), "event_types": ["client_event"]});
    let config = with_hooks(json!([hook]))
        .with_app(json!({"max_client_events_per_second": 0}))
        .and_app(
            "other",
            json!({"webhooks": [sink.entry(&["channel_occupied"])]}),
        )
        .with(json!({"webhooks": {"queue_bytes": 1_048_576, "shard_queue_bytes": 65_536}}));
    let server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("private-x");
    let mut bob = server.client_of("other", "bob");
    let text = "x".repeat(1_000);
    for number in 0..20 {
        for _ in 0..150 {
            alice.triggers("client-x", "private-x", json!(text));
        }
        let channel = format!("news-{number}");
        bob.subscribes(&channel);
        sink.expects(json!({"name": "channel_occupied", "channel": channel}));
    }
    alice.subscribes("still-here");
}

fn all_of(sink: &mut WebhookSink, events: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while numbers(&deliveries).len() < events {
        deliveries.push(sink.next_delivery());
    }
    deliveries
}

fn numbers(deliveries: &[Delivery]) -> Vec<String> {
    let events = deliveries.iter().flat_map(Delivery::events);
    events
        .map(|event| event["data"].as_str().expect("a string").to_owned())
        .collect()
}

// Section 10.3: what belongs to users stays between them.
fn a_users_own_channel_is_in_no_webhook(shards: usize) {
    let mut sink = WebhookSink::start();
    let entry = sink.entry(&[
        "channel_occupied",
        "channel_vacated",
        "subscription_count",
        "cache_miss",
    ]);
    let server = Server::start(&with_hooks(json!([entry])).with_users(), shards);
    let mut alice = server.client("alice");
    alice.signs_in("42");
    alice.sends(json!({"event": "pusher:subscribe", "data": {
        "auth": "", "channel": "#server-to-user-42",
    }}));
    alice.expects(
        "pusher_internal:subscription_succeeded",
        "#server-to-user-42",
    );
    sink.expects_nothing_for(Duration::from_millis(700));
}

// Section 9 of the design: what was accepted is delivered before the process ends.
fn a_drain_flushes_the_webhooks(shards: usize) {
    let mut sink = WebhookSink::start();
    let config = with_hooks(json!([sink.entry(&["channel_occupied"])]))
        .with(json!({"webhooks": {"batching": {"enabled": true, "duration": 1000}}}));
    let mut server = Server::start(&config, shards);
    let mut alice = server.client("alice");
    alice.subscribes("news");
    server.drains();
    alice.is_closed_with(4200);
    assert_eq!(server.exits().code(), Some(0));
    sink.expects(json!({"name": "channel_occupied", "channel": "news"}));
}

// Section 9 of the design: nobody is taken for present on a node that has ended.
fn a_drain_tells_who_left_without_waiting_for_a_return(shards: usize) {
    let mut sink = WebhookSink::start();
    let entry = sink.entry(&["channel_vacated", "member_removed"]);
    let config = with_hooks(json!([entry])).with(json!({"webhooks": {"grace_ms": 60_000}}));
    let mut server = Server::start(&config, shards);
    let mut early = server.client("early");
    early.subscribes("news");
    early.leaves();
    let mut alice = server.client("alice");
    alice.joins("presence-room", "alice");
    server.drains();
    alice.is_closed_with(4200);
    assert_eq!(server.exits().code(), Some(0));
    let mut told: Vec<Value> = (0..3).map(|_| sink.next()).collect();
    told.sort_by_key(ToString::to_string);
    let mut expected = [
        json!({"name": "channel_vacated", "channel": "news"}),
        json!({"name": "channel_vacated", "channel": "presence-room"}),
        json!({"name": "member_removed", "channel": "presence-room", "user_id": "alice"}),
    ];
    expected.sort_by_key(ToString::to_string);
    assert_eq!(told, expected);
}

on_one_and_three_shards! {
    a_webhook_is_signed_over_its_exact_body,
    a_channel_is_occupied_once_and_vacated_after_the_grace,
    members_are_announced_per_user_and_leave_after_the_grace,
    accepted_client_events_are_told_with_their_sender,
    subscription_counts_are_integers_and_not_for_presence,
    each_entry_gets_what_it_asked_for_and_no_more,
    a_failed_delivery_is_tried_again_with_the_same_body,
    a_slow_endpoint_does_not_delay_sockets,
    events_of_one_window_travel_together_in_order,
    without_batching_each_event_travels_alone,
    a_dead_target_and_a_flood_to_it_cost_another_app_nothing,
    a_users_own_channel_is_in_no_webhook,
    a_drain_flushes_the_webhooks,
    a_drain_tells_who_left_without_waiting_for_a_return,
}

#[test]
fn a_function_of_lambda_is_called_by_a_signed_request_and_called_again_when_it_was_not_taken() {
    let mut sink = WebhookSink::start();
    let hook = json!({
        "lambda": {"function_name": "notify:live", "region": "eu-central-1"},
        "event_types": ["channel_occupied"],
    });
    let config = with_hooks(json!([hook])).with(json!({"webhooks": {
        "lambda": {"endpoint_url": sink.url()}, "retry": {"backoff_ms": 50},
    }}));
    // A call that was waited for, and may have failed, is none of ours.
    sink.answers_with(&[404, 200, 202]);
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", AWS_SECRET),
        ("AWS_SESSION_TOKEN", "a-token"),
    ];
    let server = Server::start(&config.with_environment(&environment), 2);
    server.client("alice").subscribes("my-channel");
    for _ in 0..3 {
        let delivery = sink.next_delivery();
        assert_eq!(
            delivery.path,
            "/2015-03-31/functions/notify:live/invocations"
        );
        assert_eq!(delivery.header("x-amz-invocation-type"), Some("Event"));
        assert_eq!(delivery.header("x-amz-security-token"), Some("a-token"));
        assert_eq!(delivery.header("x-pusher-signature"), None);
        let occupied = json!({"name": "channel_occupied", "channel": "my-channel"});
        assert_eq!(delivery.events(), [occupied]);
        assert_eq!(
            delivery.header("authorization"),
            Some(&*aws_authorization(&delivery))
        );
    }
    sink.expects_nothing_for(Duration::from_millis(500));
    let log = server.log();
    assert!(
        !log.contains(AWS_SECRET) && !log.contains("a-token"),
        "{log}"
    );
}

#[test]
fn a_function_that_is_called_by_hand_is_called_where_the_settings_say_and_has_to_take_it() {
    let mut sink = WebhookSink::start();
    let hook = json!({
        "lambda": {"function_name": "notify", "region": "eu-central-1"},
        "event_types": ["channel_occupied"],
    });
    let endpoint = json!({"webhooks": {"lambda": {"endpoint_url": sink.url()}}});
    let environment = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", AWS_SECRET),
    ];
    let config = with_hooks(json!([hook])).with(endpoint);
    let node = Server::start(&config.with_environment(&environment), 1);
    // One that was waited for may have failed.
    for (status, is_taken) in [(202, true), (200, false), (404, false)] {
        sink.answers_with(&[status]);
        let own = [
            "webhooks",
            "send",
            "--app",
            APP_ID,
            "--event",
            "channel_occupied",
        ];
        let output = node.has_run(&[&own[..], &["--json"]].concat());
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let shown = (said[0]["status"].clone(), said[0]["is_taken"].clone());
        assert_eq!(shown, (json!(status), json!(is_taken)), "{said}");
        assert_eq!(output.status.code(), Some(i32::from(!is_taken)), "{said}");
        let path = sink.next_delivery().path;
        assert_eq!(path, "/2015-03-31/functions/notify/invocations");
    }
}

const AWS_SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// As AWS describes it, "Signature Version 4 signing process", for a path whose only odd sign is a colon.
fn aws_authorization(delivery: &Delivery) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::{Digest as _, Sha256};
    let hmac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let header = |name: &str| delivery.header(name).expect(name);
    let given = header("authorization");
    let names = given
        .split("SignedHeaders=")
        .nth(1)
        .expect("signed headers");
    let names = names.split(',').next().expect("their names");
    let headers: String = names
        .split(';')
        .map(|name| format!("{name}:{}\n", header(name)))
        .collect();
    let path = delivery.path.replace(':', "%3A");
    let body = hex(&Sha256::digest(&delivery.body));
    let canonical = format!("POST\n{path}\n\n{headers}\n{names}\n{body}");
    let (date, scope) = (header("x-amz-date"), "eu-central-1/lambda/aws4_request");
    let day = &date[..8];
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{day}/{scope}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let mut key = hmac(format!("AWS4{AWS_SECRET}").as_bytes(), day);
    for part in scope.split('/') {
        key = hmac(&key, part);
    }
    let signature = hex(&hmac(&key, &text));
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{day}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
}
