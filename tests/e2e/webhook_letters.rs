//! Webhooks that were given up, or are sent by hand: what the commands for them say.

use serde_json::{Value, json};

use crate::support::config::{APP_ID, Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::webhook::WebhookSink;
use crate::webhook_queue::{PREFIX, config, redis};

/// What a command says, which must succeed.
#[track_caller]
pub(crate) fn says(output: &std::process::Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    let err = String::from_utf8_lossy(err);
    assert!(output.status.success(), "{}: {err}", output.status);
    String::from_utf8_lossy(out).into_owned()
}

/// Each command that wants a letter says that there is none of this name.
fn names_no_letter(node: &Server, id: &str) {
    for verb in ["show", "retry", "drop"] {
        let output = node.has_run(&["webhooks", "dead", verb, id]);
        let told = String::from_utf8_lossy(&output.stderr);
        let expected =
            format!("there is no dead letter {id:?}; `sockudo webhooks dead list` shows them\n");
        assert_eq!(
            (&*told, output.status.code()),
            (&*expected, Some(1)),
            "{verb}"
        );
        assert!(output.stdout.is_empty(), "{verb} {id:?}");
    }
}

/// Webhooks that were given up, found and called back by commands.
pub(crate) fn dead_letters_are_called_back(config: &Config, sink: &mut WebhookSink) {
    let keys = json!({"webhooks": {"retry": {"attempts": 2}, "batching": {"enabled": false}}});
    let node = Server::start(&config.clone().with(keys), 1);
    let mut alice = node.client("alice");
    assert_eq!(
        says(&node.has_run(&["webhooks", "dead", "list"])),
        "no dead letters\n"
    );
    // Both attempts of two events, one after the other.
    for room in ["one", "two"] {
        sink.answers_with(&[500, 500]);
        alice.subscribes(room);
        for _ in 0..2 {
            assert_eq!(sink.next()["channel"], room);
        }
    }
    let list = || {
        let json = says(&node.has_run(&["webhooks", "dead", "list", "--json"]));
        let report: Value = serde_json::from_str(&json).expect("JSON");
        report["letters"].as_array().expect("a list").clone()
    };
    let letters = eventually("two dead letters", || {
        Some(list()).filter(|it| it.len() == 2)
    });
    let (one, two) = (&letters[0], &letters[1]);
    assert_eq!(
        (&one["app_id"], &one["reason"]),
        (&json!(APP_ID), &json!("attempts"))
    );
    assert_eq!(one["attempts"], 2);
    assert!(
        one["error"].as_str().expect("words").contains("500"),
        "{one}"
    );
    assert_eq!(
        one["events"],
        json!([{"name": "channel_occupied", "channel": "one"}])
    );
    let shown = says(&node.has_run(&["webhooks", "dead", "list"]));
    assert!(shown.contains("channel_occupied two"), "{shown}");
    let (one, two) = (
        one["id"].as_str().expect("text"),
        two["id"].as_str().expect("text"),
    );
    names_no_letter(&node, "nope");
    for odd in ["0", "999999", "1.0", "1-x", "", "1;2", &format!("0{one}")] {
        names_no_letter(&node, odd);
    }
    assert_eq!(list(), letters, "nothing became of those that are there");
    let shown = says(&node.has_run(&["webhooks", "dead", "show", two]));
    assert!(shown.contains("\"two\""), "{shown}");
    assert_eq!(
        says(&node.has_run(&["webhooks", "dead", "retry", one])),
        "1 wait again\n"
    );
    let back = sink.next_delivery();
    back.is_signed_with(KEY, SECRET);
    assert_eq!(back.events()[0]["channel"], "one");
    assert_eq!(
        says(&node.has_run(&["webhooks", "dead", "drop", "--all"])),
        "1 dropped\n"
    );
    assert!(list().is_empty());
    let unknown = node.has_run(&["webhooks", "dead", "retry", one]);
    assert_eq!(unknown.status.code(), Some(1));
    let words = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(words.contains("there is no dead letter"), "{words}");
    assert_eq!(
        node.has_run(&["webhooks", "dead", "drop"]).status.code(),
        Some(2)
    );
    let text = format!("{} {}", node.log(), shown);
    assert!(
        !text.contains(SECRET) && !shown.contains(&sink.url()),
        "{text}"
    );
}

#[test]
fn dead_letters_in_redis_are_called_back() {
    let Some(redis) = redis("dead_letters_in_redis_are_called_back", &[]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    dead_letters_are_called_back(&config, &mut sink);
}

#[test]
fn a_job_in_redis_says_what_its_last_attempt_met() {
    let test = "a_job_in_redis_says_what_its_last_attempt_met";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let sink = WebhookSink::start();
    sink.answers_with(&[500, 404]);
    sink.answers_with(&[503; 500]);
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    let server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    alice.subscribes("room");
    let jobs = format!("{PREFIX}:v2:jobs");
    let text = eventually("the third attempt to be told", || {
        let text = redis.command(&["HVALS", &jobs]);
        text.contains("answered 503").then_some(text)
    });
    assert_eq!(text.matches("answered").count(), 1, "{text}");
    let state = format!("{PREFIX}:v2:state");
    let counted = redis.command(&["HGET", &state, "bytes"]);
    let bytes = counted.split_whitespace().last().expect("a number");
    assert!(text.contains(&format!("${bytes}")), "{text} has {bytes}");
}

#[test]
fn dead_letters_of_a_node_are_called_back() {
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    let keys = json!({"webhooks": {"retry": {"backoff_ms": 50}}});
    let config = Config::new()
        .with(keys)
        .with_app(json!({"webhooks": hooks}));
    dead_letters_are_called_back(&config, &mut sink);
}

#[test]
fn a_webhook_that_is_sent_by_hand_says_what_came_back() {
    let mut sink = WebhookSink::start();
    let mut other = sink.entry(&["member_added"]);
    other["url"] = json!(sink.url_at("/other?token=hidden"));
    let mut filtered = sink.entry(&["channel_occupied"]);
    filtered["filter"] = json!({"channel_prefix": "room-"});
    let hooks = json!([sink.entry(&["channel_occupied"]), other, filtered]);
    let node = Server::start(&Config::new().with_app(json!({"webhooks": hooks})), 1);
    let send = |more: &[&str]| {
        let own = ["webhooks", "send", "--app", APP_ID, "--event"];
        node.has_run(&[&own[..], more].concat())
    };
    let said = says(&send(&["channel_occupied", "--channel", "lobby"]));
    let delivery = sink.next_delivery();
    delivery.is_signed_with(KEY, SECRET);
    assert_eq!(
        delivery.events(),
        [json!({"name": "channel_occupied", "channel": "lobby"})]
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains(": 200 in "), "{said}");
    assert!(
        lines[1].ends_with("it does not ask for this event"),
        "{said}"
    );
    assert!(
        lines[2].ends_with("its filter leaves this channel out"),
        "{said}"
    );
    assert!(!said.contains("hidden"), "{said}");
    sink.answers_with(&[503]);
    let failed = send(&["member_added", "--json"]);
    assert_eq!(failed.status.code(), Some(1));
    let answers: Value = serde_json::from_slice(&failed.stdout).expect("JSON");
    assert_eq!(answers[1]["status"], 503, "{answers}");
    assert_eq!(sink.next_delivery().path, "/other?token=hidden");
    for (event, code) in [("cache_miss", 1), ("unheard_of", 2)] {
        assert_eq!(send(&[event]).status.code(), Some(code), "{event}");
    }
}
