//! Webhooks that wait in SQS, for which moto stands in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockudo::bridge::queue::TargetName;

use crate::moto::Moto;
use crate::support::config::{APP_ID, Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;
use crate::webhook_letters::dead_letters_are_called_back;
use crate::webhook_queue::{arrive, is_degraded, rooms};

const CREDENTIALS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws"),
];

macro_rules! moto_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(server) => server,
            None => return skip($test, "there is no moto; `scripts/test` installs it"),
        }
    };
}

/// A node with this queue and these targets.
fn config(server: &Moto, hooks: Value, sqs: Value) -> Config {
    Config::new()
        .with(json!({
            "queue": {"driver": "sqs", "sqs": {
                "endpoint_url": server.url(), "wait_time_seconds": 1, "visibility_timeout": 4,
            }},
            "webhooks": {"retry": {"backoff_ms": 50, "backoff_max_ms": 500}},
        }))
        .with(json!({"queue": {"sqs": sqs}}))
        .with_app(json!({"webhooks": hooks}))
        .with_environment(&CREDENTIALS)
}

fn tells(server: &Moto, operation: &str, body: &Value) -> Value {
    server.does("sqs", &format!("AmazonSQS.{operation}"), body)
}

/// Makes the queue, or finds it; its URL.
fn queue(server: &Moto, name: &str) -> String {
    let answer = tells(server, "CreateQueue", &json!({"QueueName": name}));
    answer["QueueUrl"].as_str().expect("a URL").to_owned()
}

fn messages(server: &Moto, url: &str) -> u64 {
    let body = json!({"QueueUrl": url, "AttributeNames": ["All"]});
    let answer = tells(server, "GetQueueAttributes", &body);
    let count = |name: &str| {
        let text = answer["Attributes"][name].as_str().unwrap_or("0");
        text.parse::<u64>().expect("a number")
    };
    count("ApproximateNumberOfMessages") + count("ApproximateNumberOfMessagesNotVisible")
}

fn is_empty(server: &Moto, name: &str) {
    let answer = tells(server, "GetQueueUrl", &json!({"QueueName": name}));
    let url = answer["QueueUrl"].as_str().expect("a URL").to_owned();
    eventually("the queue to be empty", || {
        (messages(server, &url) == 0).then_some(())
    });
}

#[test]
fn webhooks_of_two_nodes_arrive_once_over_sqs() {
    webhooks_of_two_nodes_arrive_once("webhooks", json!({}));
}

#[test]
fn webhooks_of_two_nodes_arrive_once_over_a_fifo_queue() {
    webhooks_of_two_nodes_arrive_once("webhooks.fifo", json!({"fifo": true}));
}

fn webhooks_of_two_nodes_arrive_once(queue: &str, sqs: Value) {
    let server = moto_or_skip!("webhooks_of_two_nodes_arrive_once", Moto::start());
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    let config = config(&server, hooks, sqs);
    let mut nodes = [Server::start(&config, 1), Server::start(&config, 2)];
    let mut clients: Vec<_> = nodes.iter().map(|node| node.client("alice")).collect();
    for number in 0..50 {
        for (node, client) in clients.iter_mut().enumerate() {
            client.subscribes(&format!("room-{node}-{number}"));
        }
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 100 {
        let delivery = sink.next_delivery();
        delivery.is_signed_with(KEY, SECRET);
        for event in delivery.events() {
            assert_eq!(event["name"], "channel_occupied");
            let channel = event["channel"].as_str().expect("a name").to_owned();
            assert!(seen.insert(channel), "{event} came twice");
        }
    }
    is_empty(&server, queue);
    for node in &mut nodes {
        assert_eq!(node.gets("/up").header("x-health-check"), Some("OK"));
        node.drains();
        assert!(node.exits().success());
        assert!(!node.log().contains("a-secret-of-aws"), "{}", node.log());
    }
}

#[test]
fn a_fifo_queue_keeps_the_order_of_each_channel() {
    const ROUNDS: u64 = 20;
    let server = moto_or_skip!(
        "a_fifo_queue_keeps_the_order_of_each_channel",
        Moto::start()
    );
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["client_event"])]);
    // moto hands out a group twice when two polls wait.
    let sqs = json!({"fifo": true, "message_group_id": "per_channel", "concurrency": 1});
    let each_alone = json!({"webhooks": {"batching": {"enabled": false}}});
    let config = config(&server, hooks, sqs).with(each_alone);
    let config = config.with_app(json!({
        "enable_client_messages": true, "max_client_events_per_second": 1_000,
    }));
    let node = Server::start(&config, 1);
    let mut alice = node.client("alice");
    let channels = ["private-a", "private-b", "private-c"];
    channels.iter().for_each(|it| alice.subscribes(it));
    for number in 0..ROUNDS {
        for channel in channels {
            alice.triggers("client-x", channel, json!(number.to_string()));
        }
    }
    let mut heard: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while heard.values().map(Vec::len).sum::<usize>() < channels.len() * ROUNDS as usize {
        for event in sink.next_delivery().events() {
            let channel = event["channel"].as_str().expect("a name").to_owned();
            let number = event["data"].as_str().expect("a text");
            let number = number.parse().expect("a number");
            heard.entry(channel).or_default().push(number);
        }
    }
    let in_order: Vec<u64> = (0..ROUNDS).collect();
    assert!(
        heard.values().all(|numbers| *numbers == in_order),
        "{heard:?}"
    );
    is_empty(&server, "webhooks.fifo");
}

/// Puts jobs as a node does: `channel` of each is its number.
fn puts(server: &Moto, url: &str, target: TargetName, first: u64) {
    let now_ms = crate::support::sign::unix_now() * 1_000;
    let entry = |channel: u64| {
        let text = format!(
            r#"{{"v":1,"app":"{APP_ID}","target":"{target}","since":{now_ms},"time_ms":{now_ms},"events":[{{"name":"channel_occupied","channel":"{channel}"}}]}}"#
        );
        json!({"Id": channel.to_string(), "MessageBody": text})
    };
    let entries: Vec<Value> = (first..first + 10).map(entry).collect();
    let answer = tells(
        server,
        "SendMessageBatch",
        &json!({"QueueUrl": url, "Entries": entries}),
    );
    assert_eq!(
        answer["Successful"].as_array().map(Vec::len),
        Some(10),
        "{answer}"
    );
}

#[test]
fn no_job_in_sqs_is_lost_over_dying_nodes() {
    const JOBS: u64 = 5_000;
    const AHEAD: u64 = 300;
    const PATIENCE: Duration = Duration::from_secs(90);
    let server = moto_or_skip!("no_job_in_sqs_is_lost_over_dying_nodes", Moto::start());
    let mut sink = WebhookSink::start();
    let urls: Vec<String> = (0..8)
        .map(|path| sink.url_at(&format!("/{path}")))
        .collect();
    let hooks = urls
        .iter()
        .map(|url| json!({"url": url, "event_types": ["channel_occupied"]}));
    let config = config(&server, Value::from_iter(hooks), json!({"concurrency": 3}));
    let queue = queue(&server, "webhooks");
    let began = Instant::now();
    let mut nodes = vec![Server::start(&config, 1), Server::start(&config, 1)];
    let (mut seen, mut deliveries, mut deaths) = (BTreeSet::new(), 0_u64, 0);
    let mut longest = Duration::ZERO;
    let mut put = (0..JOBS).step_by(10).enumerate().peekable();
    while (seen.len() as u64) < JOBS {
        // moto looks through all that waits, at each request.
        while let Some((number, first)) =
            put.next_if(|(_, first)| *first < seen.len() as u64 + AHEAD)
        {
            let target = TargetName::of(APP_ID, &urls[number % urls.len()], 0);
            puts(&server, &queue, target, first);
        }
        // What a killed node had is seen again after its time, which moto looks after when it can.
        let waits = Instant::now();
        let delivery = sink.next_delivery_within(PATIENCE);
        let delivery = delivery.unwrap_or_else(|| {
            let left: Vec<u64> = (0..JOBS).filter(|it| !seen.contains(it)).collect();
            let waiting = messages(&server, &queue);
            panic!("{waiting} messages wait, and these did not come: {left:?}")
        });
        longest = longest.max(waits.elapsed());
        for event in delivery.events() {
            let channel = event["channel"].as_str().expect("a name");
            seen.insert(channel.parse::<u64>().expect("a number"));
        }
        deliveries += 1;
        if deliveries.is_multiple_of(JOBS / 5) {
            nodes.remove(0).signal(libc::SIGKILL);
            deaths += 1;
            nodes.push(Server::start(&config, 1));
        }
    }
    let took = began.elapsed();
    println!(
        "{JOBS} jobs in {took:?}, {deliveries} deliveries, {deaths} deaths, once nothing for {longest:?}"
    );
    is_empty(&server, "webhooks");
    let lost = |node: &Server| node.metric("sockudo_webhook_dead_letters_total");
    for node in &nodes {
        assert_eq!(lost(node).unwrap_or(0.0), 0.0);
    }
}

#[test]
fn nothing_is_lost_while_sqs_is_killed_or_silent() {
    let mut server = moto_or_skip!(
        "nothing_is_lost_while_sqs_is_killed_or_silent",
        Moto::start()
    );
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    let each_alone = json!({"webhooks": {"batching": {"enabled": false}}});
    let node = Server::start(&config(&server, hooks, json!({})).with(each_alone), 1);
    let mut alice = node.client("alice");
    rooms("before", 20).for_each(|room| alice.subscribes(&room));
    arrive(&mut sink, rooms("before", 20));
    // What waits there would be forgotten: moto has no disk.
    is_empty(&server, "webhooks");
    server.kill();
    rooms("killed", 100).for_each(|room| alice.subscribes(&room));
    is_degraded(&node, true);
    server.start_again();
    arrive(&mut sink, rooms("killed", 100));
    is_degraded(&node, false);
    // It accepts and does not answer.
    server.signal("STOP");
    rooms("silent", 100).for_each(|room| alice.subscribes(&room));
    is_degraded(&node, true);
    server.signal("CONT");
    arrive(&mut sink, rooms("silent", 100));
    is_degraded(&node, false);
    let log = node.log();
    assert!(log.contains("queue.sqs.endpoint_url"), "{log}");
    let lost = node.metric("sockudo_webhook_dead_letters_total");
    assert_eq!(lost.unwrap_or(0.0), 0.0);
}

#[test]
fn a_slow_delivery_is_not_made_twice_and_a_job_that_cannot_fit_is_a_letter() {
    let server = moto_or_skip!("a_slow_delivery_is_not_made_twice", Moto::start());
    let url = queue(&server, "webhooks");
    let small = json!({"QueueUrl": url, "Attributes": {"MaximumMessageSize": "1024"}});
    tells(&server, "SetQueueAttributes", &small);
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied", "client_event"])]);
    let slow = json!({"visibility_timeout": 2});
    let config = config(&server, hooks, slow);
    let config = config.with_app(json!({
        "enable_client_messages": true, "max_client_events_per_second": 1_000,
    }));
    let node = Server::start(&config, 1);
    let mut alice = node.client("alice");
    sink.answers_after(Duration::from_secs(7));
    alice.subscribes("private-room");
    assert_eq!(sink.next()["channel"], "private-room");
    sink.expects_nothing_for(Duration::from_secs(9));
    is_empty(&server, "webhooks");
    sink.answers_after(Duration::ZERO);
    alice.triggers("client-long", "private-room", json!("x".repeat(2_000)));
    eventually("a dead letter", || {
        let said = node.has_run(&["webhooks", "dead", "list"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.contains("malformed").then_some(())
    });
}

#[test]
fn dead_letters_in_sqs_are_called_back() {
    let server = moto_or_skip!("dead_letters_in_sqs_are_called_back", Moto::start());
    let mut sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    let config = config(&server, hooks, json!({}));
    dead_letters_are_called_back(&config, &mut sink);
}

#[test]
fn an_sqs_that_does_not_know_us_is_said_with_what_to_do() {
    let server = moto_or_skip!(
        "an_sqs_that_does_not_know_us_is_said_with_what_to_do",
        Moto::start_knowing_nobody()
    );
    let sink = WebhookSink::start();
    let hooks = json!([sink.entry(&["channel_occupied"])]);
    let node = Server::start(&config(&server, hooks, json!({})), 1);
    node.client("alice").subscribes("room");
    is_degraded(&node, true);
    eventually("a sentence with the key", || {
        let log = node.log();
        (log.contains("refuses our credentials") && log.contains("AWS_ACCESS_KEY_ID")).then_some(())
    });
    assert!(!node.log().contains("a-secret-of-aws"), "{}", node.log());
}

#[test]
fn without_credentials_the_start_says_so() {
    // Something listens where the metadata service should be, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("bound"));
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.json");
    let text = json!({"queue": {"driver": "sqs"}, "host": "127.0.0.1", "port": 0});
    std::fs::write(&config, text.to_string()).expect("a file");
    let begun = Instant::now();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .arg("--config")
        .arg(&config)
        .env_clear()
        .env("HOME", folder.path())
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let lasted = begun.elapsed();
    let said = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
    assert!(!done.status.success(), "{said}");
    assert!(
        said.contains("queue.driver: there are no AWS credentials"),
        "{said}"
    );
    assert!(lasted < Duration::from_secs(10), "{lasted:?}");
}
