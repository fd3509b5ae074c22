//! Webhooks that wait in a Redis that nodes share: they arrive, whoever dies meanwhile.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockudo::bridge::queue::TargetName;

use crate::redis::Redis;
use crate::support::config::{APP_ID, Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;

/// Starts Redis as a queue wants it, or says why not.
fn redis(test: &str, arguments: &[&str]) -> Option<Redis> {
    let own = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Redis::start_with_arguments(None, &[&own[..], arguments].concat());
    if server.is_none() {
        skip(test, "there is no redis-server; `scripts/test` installs it");
    }
    server
}

/// A node with this queue and these targets.
fn config(redis: &Redis, hooks: Value) -> Config {
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    Config::new()
        .with(json!({
            "queue": {"driver": "redis", "lease_s": 1, "redis": {"concurrency": 32}},
            "webhooks": {"retry": {"backoff_ms": 50, "backoff_max_ms": 500}},
            "database": {"redis": {"host": host, "port": port}},
        }))
        .with_app(json!({"webhooks": hooks}))
}

const PREFIX: &str = "sockudo_queue::queue:webhooks";

/// One connection for many commands.
struct Wire(BufReader<TcpStream>);

impl Wire {
    fn to(redis: &Redis) -> Self {
        let stream = TcpStream::connect(redis.address).expect("Redis listens");
        let limit = Some(Duration::from_secs(30));
        stream.set_read_timeout(limit).expect("a limit");
        Self(BufReader::new(stream))
    }

    /// The first line of the answer.
    #[track_caller]
    fn says(&mut self, words: &[Vec<u8>]) -> String {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).into_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0
            .get_mut()
            .write_all(&request)
            .expect("it can be sent");
        let line = self.line();
        assert!(!line.starts_with('-'), "{line}");
        if let Some(count) = line.strip_prefix('*') {
            for _ in 0..count.parse::<usize>().expect("a number") {
                self.line(); // Numbers only.
            }
        }
        line
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }
}

/// Puts jobs as a node does: `channel` of each is its number.
fn puts(wire: &mut Wire, number: u64, target: TargetName, channels: std::ops::Range<u64>) {
    let now_ms = crate::support::sign::unix_now() * 1_000;
    let script = include_str!("../../src/bridge/queue/store/redis/put.lua");
    let mut words: Vec<Vec<u8>> = vec!["EVAL".into(), script.into(), "10".into()];
    for key in [
        "jobs",
        "ready",
        "targets",
        "later",
        "failed",
        "state",
        "bytes",
        "dead",
        "dead:order",
        "put:test",
    ] {
        words.push(format!("{PREFIX}:v2:{key}").into());
    }
    let bounds = [number, 1 << 40, 1_000, 1_000_000];
    words.extend(bounds.map(|it| it.to_string().into_bytes()));
    for channel in channels {
        words.push(target.to_string().into());
        words.push(
            format!(
                r#"{{"v":1,"app":"{APP_ID}","target":"{target}","since":{now_ms},"time_ms":{now_ms},"events":[{{"name":"channel_occupied","channel":"{channel}"}}]}}"#
            )
            .into(),
        );
    }
    wire.says(&words);
}

fn waits(redis: &mut Redis) -> u64 {
    let answer = redis.command(&["HLEN", &format!("{PREFIX}:v2:jobs")]);
    answer.trim_start_matches(':').parse().expect("a number")
}

#[test]
fn webhooks_of_two_nodes_arrive_once_and_nothing_is_left() {
    let test = "webhooks_of_two_nodes_arrive_once_and_nothing_is_left";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    let nodes = [Server::start(&config, 1), Server::start(&config, 2)];
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
    eventually("the queue to be empty", || {
        (waits(&mut redis) == 0).then_some(())
    });
    for node in &nodes {
        assert_eq!(node.gets("/up").header("x-health-check"), Some("OK"));
    }
}

#[test]
fn no_job_is_lost_over_dying_nodes() {
    const JOBS: u64 = 100_000;
    let test = "no_job_is_lost_over_dying_nodes";
    let Some(mut redis) = redis(test, &["--appendfsync", "no"]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let urls: Vec<String> = (0..8)
        .map(|path| sink.url_at(&format!("/{path}")))
        .collect();
    let hooks = urls
        .iter()
        .map(|url| json!({"url": url, "event_types": ["channel_occupied"]}));
    let config = config(&redis, Value::from_iter(hooks));
    let mut wire = Wire::to(&redis);
    for (number, first) in (0..JOBS).step_by(500).enumerate() {
        let url = &urls[number % urls.len()];
        let target = TargetName::of(APP_ID, url, 0);
        puts(&mut wire, number as u64 + 1, target, first..first + 500);
    }
    assert_eq!(waits(&mut redis), JOBS);
    let began = Instant::now();
    let mut nodes = vec![Server::start(&config, 1), Server::start(&config, 1)];
    let (mut seen, mut deliveries, mut deaths) = (BTreeSet::new(), 0_u64, 0);
    while (seen.len() as u64) < JOBS {
        for event in sink.next_delivery().events() {
            let channel = event["channel"].as_str().expect("a name");
            seen.insert(channel.parse::<u64>().expect("a number"));
        }
        deliveries += 1;
        if deliveries.is_multiple_of(JOBS / 10) {
            let dying = nodes.remove(0);
            dying.signal(libc::SIGKILL);
            deaths += 1;
            nodes.push(Server::start(&config, 1));
        }
    }
    let took = began.elapsed();
    println!("{JOBS} jobs in {took:?}, {deliveries} deliveries, {deaths} deaths");
    eventually("the queue to be empty", || {
        (waits(&mut redis) == 0).then_some(())
    });
    // A delivery that was under way when its node died is made again, and no other.
    assert!(deliveries - JOBS <= deaths * 64, "{deliveries}");
}
