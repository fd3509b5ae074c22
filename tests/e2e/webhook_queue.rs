//! Webhooks that wait in a Redis that nodes share: they arrive, whoever dies meanwhile.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockudo::bridge::queue::TargetName;

use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::support::config::{APP_ID, Config, KEY, SECRET};
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;
use crate::support::{DEADLINE, eventually};
use crate::webhook_letters::says;

/// Starts Redis as a queue wants it, or says why not.
pub(crate) fn redis(test: &str, arguments: &[&str]) -> Option<Redis> {
    let own = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Redis::start_with_arguments(None, &[&own[..], arguments].concat());
    if server.is_none() {
        skip(test, "there is no redis-server; `scripts/test` installs it");
    }
    server
}

/// A node with this queue and these targets.
pub(crate) fn config(redis: &Redis, hooks: Value) -> Config {
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    Config::new()
        .with(json!({
            "queue": {"driver": "redis", "lease_s": 1, "redis": {"concurrency": 32}},
            "webhooks": {"retry": {"backoff_ms": 50, "backoff_max_ms": 500}},
            "database": {"redis": {"host": host, "port": port}},
        }))
        .with_app(json!({"webhooks": hooks}))
}

/// An app whose targets are slow, and another one with a prompt target, in a queue that few jobs leave at once.
pub(crate) struct SlowAndPrompt {
    slow: WebhookSink,
    /// The target of `other`.
    pub(crate) prompt: WebhookSink,
    pub(crate) config: Config,
}

impl SlowAndPrompt {
    /// So many targets, none of which answers within the test.
    pub(crate) fn new(redis: &Redis, targets: u64) -> Self {
        let (slow, prompt) = (WebhookSink::start(), WebhookSink::start());
        slow.answers_after(DEADLINE * 10);
        let kinds = ["channel_occupied"];
        let hooks =
            (0..targets).map(|it| json!({"url": slow_url(&slow, it), "event_types": kinds}));
        let config = config(redis, Value::from_iter(hooks))
            .and_app("other", json!({"webhooks": [prompt.entry(&kinds)]}))
            .with(json!({"queue": {"redis": {"concurrency": 5}}}));
        Self {
            slow,
            prompt,
            config,
        }
    }

    /// One of the slow targets.
    pub(crate) fn slow_url(&self, number: u64) -> String {
        slow_url(&self.slow, number)
    }
}

fn slow_url(slow: &WebhookSink, number: u64) -> String {
    slow.url_at(&format!("/{number}"))
}

/// None of so many jobs has left Redis.
#[track_caller]
pub(crate) fn all_wait(redis: &mut Redis, jobs: u64) {
    let waiting = waits(redis);
    assert!(
        waiting >= jobs,
        "none of the slow app's was answered: {waiting}"
    );
}

pub(crate) const PREFIX: &str = "sockudo_queue::queue:webhooks";

/// One connection for many commands.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) fn to(redis: &Redis) -> Self {
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

/// Puts jobs as a node does.
pub(crate) fn puts(
    wire: &mut Wire,
    number: u64,
    target: TargetName,
    events: impl Iterator<Item = Value>,
) {
    puts_of((APP_ID, 0), wire, number, target, events);
}

/// Jobs of that app, so many milliseconds old.
pub(crate) fn puts_of(
    (app, age_ms): (&str, u64),
    wire: &mut Wire,
    number: u64,
    target: TargetName,
    events: impl Iterator<Item = Value>,
) {
    let since_ms = crate::support::sign::unix_now() * 1_000 - age_ms;
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
    for event in events {
        words.push(target.to_string().into());
        let job = format!(
            r#"{{"v":1,"app":"{app}","target":"{target}","since":{since_ms},"time_ms":{since_ms},"events":[{event}]}}"#
        );
        words.push(job.into());
    }
    wire.says(&words);
}

/// Of a room that is known by its number.
pub(crate) fn occupied(number: u64) -> Value {
    json!({"name": "channel_occupied", "channel": number.to_string()})
}

pub(crate) fn waits(redis: &mut Redis) -> u64 {
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
        puts(
            &mut wire,
            number as u64 + 1,
            target,
            (first..first + 500).map(occupied),
        );
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

/// A node whose queue does not take jobs is degraded, and goes on.
pub(crate) fn is_degraded(node: &Server, is_so: bool) {
    let word = if is_so { "DEGRADED" } else { "OK" };
    eventually(&format!("/up to say {word}"), || {
        let up = node.gets("/up");
        (up.status == 200 && up.header("x-health-check") == Some(word)).then_some(())
    });
}

/// Reads deliveries until all these channels were there.
pub(crate) fn arrive(sink: &mut WebhookSink, channels: impl Iterator<Item = String>) {
    let mut missing: BTreeSet<String> = channels.collect();
    while !missing.is_empty() {
        let Some(event) = sink.next_within(Duration::from_secs(30)) else {
            panic!("these did not arrive: {missing:?}");
        };
        missing.remove(event["channel"].as_str().expect("a name"));
    }
}

pub(crate) fn rooms(name: &str, count: usize) -> impl Iterator<Item = String> + use<> {
    let name = name.to_owned();
    (0..count).map(move |number| format!("{name}-{number}"))
}

#[test]
fn nothing_is_lost_while_redis_is_killed_stopped_or_full() {
    let test = "nothing_is_lost_while_redis_is_killed_stopped_or_full";
    let Some(mut redis) = redis(test, &["--maxmemory-policy", "noeviction"]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    let each_alone = json!({"webhooks": {"batching": {"enabled": false}}});
    let node = Server::start(&config.with(each_alone), 1);
    let mut alice = node.client("alice");
    rooms("before", 20).for_each(|room| alice.subscribes(&room));
    redis.kill();
    rooms("killed", 200).for_each(|room| alice.subscribes(&room));
    is_degraded(&node, true);
    redis.start_again();
    arrive(&mut sink, rooms("before", 20).chain(rooms("killed", 200)));
    is_degraded(&node, false);
    // It accepts and does not answer.
    redis.signal("STOP");
    rooms("stopped", 200).for_each(|room| alice.subscribes(&room));
    is_degraded(&node, true);
    redis.signal("CONT");
    arrive(&mut sink, rooms("stopped", 200));
    is_degraded(&node, false);
    // It takes nothing, and gives what it has.
    sink.answers_after(Duration::from_secs(3));
    rooms("waiting", 60).for_each(|room| alice.subscribes(&room));
    eventually("jobs to wait", || (waits(&mut redis) == 60).then_some(()));
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    rooms("full", 60).for_each(|room| alice.subscribes(&room));
    is_degraded(&node, true);
    sink.answers_after(Duration::ZERO);
    arrive(&mut sink, rooms("waiting", 60));
    eventually("a full queue to empty", || {
        (waits(&mut redis) == 0).then_some(())
    });
    assert!(node.log().contains("Redis is full"), "{}", node.log());
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    arrive(&mut sink, rooms("full", 60));
    is_degraded(&node, false);
    let lost = node.metric("sockudo_webhook_dead_letters_total");
    assert_eq!(lost.unwrap_or(0.0), 0.0);
}

#[test]
fn a_queue_in_redis_that_drops_jobs_at_its_bound_says_so() {
    let test = "a_queue_in_redis_that_drops_jobs_at_its_bound_says_so";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    let node = Server::start(&config.with(json!({"queue": {"bytes": 1 << 20}})), 1);
    is_degraded(&node, false);
    // Of an app that this node does not know: they wait.
    let target = TargetName::of("other-id", "http://127.0.0.1:9/", 0);
    let name = "x".repeat(10_000);
    let large = (0..110).map(|_| json!({"name": "channel_occupied", "channel": name}));
    puts_of(("other-id", 0), &mut Wire::to(&redis), 1, target, large);
    let mut alice = node.client("alice");
    alice.subscribes("room");
    arrive(&mut sink, ["room".to_owned()].into_iter());
    is_degraded(&node, true);
    let overflows = "the webhook queue overflows: its oldest jobs are dropped";
    assert_eq!(node.log().matches(overflows).count(), 1);
    let dropped = node.metric_with("sockudo_webhook_store_events_total", "overflow");
    assert_eq!(dropped, Some(110.0 - waits(&mut redis) as f64));
}

#[test]
fn a_full_redis_gives_out_what_it_has_as_fast_as_an_empty_one() {
    const JOBS: u64 = 1_000;
    let test = "a_full_redis_gives_out_what_it_has_as_fast_as_an_empty_one";
    let Some(mut redis) = redis(test, &["--maxmemory-policy", "noeviction"]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    let target = TargetName::of(APP_ID, &sink.url(), 0);
    puts(&mut Wire::to(&redis), 1, target, (0..JOBS).map(occupied));
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    sink.answers_after(Duration::from_secs(2));
    let node = Server::start(&config, 1);
    let mut alice = node.client("alice");
    alice.subscribes("full");
    let refused = || {
        let faults = node.metric_with("sockudo_webhook_store_events_total", r#"event="fault""#);
        faults.unwrap_or(0.0) as u64
    };
    eventually("a put to be refused", || (refused() > 0).then_some(()));
    sink.answers_after(Duration::ZERO);
    arrive(&mut sink, (0..JOBS).map(|it| it.to_string()));
    eventually("the full queue to be empty", || {
        (waits(&mut redis) == 0).then_some(())
    });
    // A target has a quarter of 32 places and as many jobs in advance: so many turns, at least. That what is new is
    // refused pauses only itself.
    let (turns, refused) = (JOBS / 16, refused());
    assert!(refused * 2 < turns, "{refused} refusals in {turns} turns");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    arrive(&mut sink, ["full".to_owned()].into_iter());
    is_degraded(&node, false);
}

#[test]
fn a_redis_that_does_not_let_it_in_or_forgets_is_said_with_what_to_do() {
    let test = "a_redis_that_does_not_let_it_in_or_forgets_is_said_with_what_to_do";
    let Some(mut server) = Redis::start_with_password("wanted") else {
        return skip(test, "there is no redis-server; `scripts/test` installs it");
    };
    let mut sink = WebhookSink::start();
    let config = config(&server, json!([sink.entry(&["channel_occupied"])]));
    let of = |password: &str| json!({"database": {"redis": {"password": password}}});
    let wrong = Server::start(&config.clone().with(of("guessed")), 1);
    wrong.client("alice").subscribes("one");
    is_degraded(&wrong, true);
    eventually("a sentence with the key", || {
        wrong
            .log()
            .contains("database.redis.password")
            .then_some(())
    });
    assert!(!wrong.log().contains("guessed"), "{}", wrong.log());
    let node = Server::start(&config.with(of("wanted")), 1);
    let mut alice = node.client("alice");
    alice.subscribes("two");
    arrive(&mut sink, ["two".to_owned()].into_iter());
    eventually("a warning", || {
        node.log().contains("set appendonly yes").then_some(())
    });
    // Jobs of a target that does not answer wait; then the server forgets them.
    server.command(&["FLUSHALL"]);
    eventually("the loss to be counted", || {
        let seen = node.log().contains("the webhook queue has lost its jobs");
        seen.then_some(())
    });
    alice.subscribes("three");
    arrive(&mut sink, ["three".to_owned()].into_iter());
}

#[test]
fn webhooks_of_a_user_that_may_only_publish_wait_in_memory_unless_somebody_chose_redis() {
    let test =
        "webhooks_of_a_user_that_may_only_publish_wait_in_memory_unless_somebody_chose_redis";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let user = "ACL SETUSER shouter on >hunter-2 resetkeys resetchannels -@all +hello +select +ping \
                +publish +subscribe +unsubscribe &*";
    redis.command(&user.split_whitespace().collect::<Vec<_>>());
    let mut sink = WebhookSink::start();
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    let mut config = Config::new()
        .with(json!({"database": {"redis": {
            "host": host, "port": port, "username": "shouter", "password": "hunter-2",
        }}}))
        .with_app(json!({"webhooks": [sink.entry(&["channel_occupied"])]}));
    let keys = config.json.as_object_mut().expect("keys");
    keys.remove("queue");
    let node = Server::start(&config, 1);
    node.client("alice").subscribes("one");
    assert_eq!(sink.next()["channel"], "one");
    is_degraded(&node, false);
    let log = node.log();
    for words in ["+evalsha", r#"queue.driver = "memory""#] {
        assert!(log.contains(words), "{log}");
    }
    assert!(!log.contains("hunter-2"), "{log}");
    let letters = node.has_run(&["webhooks", "dead", "list"]);
    assert_eq!(says(&letters), "no dead letters\n");
    let checked = says(&node.has_run(&["config", "check", "--online"]));
    let line = "backend: queue (redis): answers; this user may not keep webhooks there";
    assert!(checked.contains(line), "{checked}");
    // Who chose it waits for the rights.
    let chosen = config.with(json!({"queue": {"driver": "redis"}}));
    let node = Server::start(&chosen, 1);
    let mut alice = node.client("alice");
    alice.subscribes("two");
    is_degraded(&node, true);
    let checked = node.has_run(&["config", "check", "--online"]);
    assert_eq!(checked.status.code(), Some(1));
    redis.command(&["ACL", "SETUSER", "shouter", "+@all", "~*"]);
    assert_eq!(sink.next()["channel"], "two");
}

#[test]
fn a_node_that_is_killed_in_mid_delivery_leaves_its_jobs_to_others() {
    let test = "a_node_that_is_killed_in_mid_delivery_leaves_its_jobs_to_others";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])]));
    let dying = Server::start(&config, 1);
    sink.answers_after(Duration::from_secs(5));
    dying.client("alice").subscribes("room");
    assert_eq!(sink.next()["channel"], "room");
    dying.signal(libc::SIGKILL);
    sink.answers_after(Duration::ZERO);
    let heir = Server::start(&config, 1);
    assert_eq!(sink.next()["channel"], "room");
    eventually("the queue to be empty", || {
        (waits(&mut redis) == 0).then_some(())
    });
    assert_eq!(heir.metric("sockudo_webhook_store_jobs"), Some(0.0));
    // One that ends in order leaves nothing to wait for.
    let mut heir = heir;
    sink.answers_after(Duration::from_secs(1));
    heir.client("alice").subscribes("last");
    assert_eq!(sink.next()["channel"], "last");
    heir.drains();
    assert!(heir.exits().success());
    assert_eq!(waits(&mut redis), 0);
    assert!(
        redis
            .command(&["ZCARD", &format!("{PREFIX}:v2:owned")])
            .ends_with(":0")
    );
}

#[test]
fn webhooks_wait_in_a_redis_cluster_whose_masters_die() {
    let test = "webhooks_wait_in_a_redis_cluster_whose_masters_die";
    let keep = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut cluster) = RedisCluster::start_with(&keep, 0) else {
        return skip(test, "there is no redis-server; `scripts/test` installs it");
    };
    let mut sink = WebhookSink::start();
    // Targets of many parts.
    let urls: Vec<String> = (0..12)
        .map(|path| sink.url_at(&format!("/{path}")))
        .collect();
    let hooks = urls
        .iter()
        .map(|url| json!({"url": url, "event_types": ["channel_occupied"]}));
    let seed = cluster.masters[1].address.to_string();
    let config = Config::new()
        .with(json!({
            "queue": {
                "driver": "redis-cluster", "lease_s": 1,
                "redis_cluster": {"concurrency": 32, "nodes": [seed], "request_timeout_ms": 2_000},
            },
            "webhooks": {"retry": {"backoff_ms": 50, "backoff_max_ms": 500}},
        }))
        .with_app(json!({"webhooks": Value::from_iter(hooks)}));
    let nodes = [Server::start(&config, 1), Server::start(&config, 1)];
    let mut clients: Vec<_> = nodes.iter().map(|node| node.client("alice")).collect();
    let mut occupies = |name: &str| {
        for (node, client) in clients.iter_mut().enumerate() {
            rooms(&format!("{name}-{node}"), 20).for_each(|room| client.subscribes(&room));
        }
    };
    // Every target hears of every room.
    let hear = |sink: &mut WebhookSink, name: &str| {
        let all = (0..2).flat_map(|node| rooms(&format!("{name}-{node}"), 20));
        let all: Vec<String> = all.collect();
        let paths = (0..12).map(|path| format!("/{path}"));
        let mut missing: BTreeSet<(String, String)> = paths
            .flat_map(|path| all.iter().map(move |room| (path.clone(), room.clone())))
            .collect();
        while !missing.is_empty() {
            let delivery = sink.next_delivery_within(Duration::from_secs(30));
            let Some(delivery) = delivery else {
                panic!("{name}: {} did not arrive: {missing:?}", missing.len());
            };
            for event in delivery.events() {
                let room = event["channel"].as_str().expect("a name").to_owned();
                missing.remove(&(delivery.path.clone(), room));
            }
        }
    };
    occupies("well");
    hear(&mut sink, "well");
    // One master of three: what belongs to the others goes on.
    cluster.masters[2].kill();
    occupies("killed");
    is_degraded(&nodes[0], true);
    cluster.masters[2].start_again();
    cluster.is_well();
    hear(&mut sink, "killed");
    is_degraded(&nodes[0], false);
    // All of them.
    cluster.kill();
    occupies("dark");
    is_degraded(&nodes[1], true);
    cluster.start_again();
    hear(&mut sink, "dark");
    eventually("the parts to be empty", || {
        cluster_has_jobs_nowhere(&mut cluster).then_some(())
    });
    for node in &nodes {
        let lost = node.metric("sockudo_webhook_dead_letters_total");
        assert_eq!(lost.unwrap_or(0.0), 0.0);
    }
}

fn cluster_has_jobs_nowhere(cluster: &mut RedisCluster) -> bool {
    cluster.masters.iter_mut().all(|master| {
        let keys = master.command(&["KEYS", &format!("{PREFIX}:v2:*:jobs")]);
        keys == "*0"
    })
}

#[test]
fn of_one_channel_a_target_hears_in_order_whichever_node_delivers() {
    let test = "of_one_channel_a_target_hears_in_order_whichever_node_delivers";
    let Some(redis) = redis(test, &[]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(&redis, json!([sink.entry(&["subscription_count"])]));
    let _nodes = [Server::start(&config, 1), Server::start(&config, 1)];
    let mut wire = Wire::to(&redis);
    let target = TargetName::of(APP_ID, &sink.url(), 0);
    for put in 0..30 {
        let event = |count| json!({"name": "subscription_count", "channel": "a", "subscription_count": count});
        puts(
            &mut wire,
            put + 1,
            target,
            (put * 10..put * 10 + 10).map(event),
        );
    }
    for count in 0..300 {
        assert_eq!(sink.next()["subscription_count"], count);
    }
}

#[test]
fn an_app_with_many_slow_targets_does_not_keep_the_jobs_of_another_in_redis() {
    let test = "an_app_with_many_slow_targets_does_not_keep_the_jobs_of_another_in_redis";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let mut apps = SlowAndPrompt::new(&redis, 60);
    let config = apps
        .config
        .with(json!({"webhooks": {"batching": {"enabled": false}}}));
    let server = Server::start(&config, 1);
    let mut alice = server.client("alice");
    for number in 0..10 {
        alice.subscribes(&format!("slow-{number}"));
    }
    eventually("all jobs to be in Redis", || {
        (waits(&mut redis) == 600).then_some(())
    });
    let mut bob = server.client_of("other", "bob");
    for number in 0..50 {
        let channel = format!("news-{number}");
        bob.subscribes(&channel);
        let occupied = json!({"name": "channel_occupied", "channel": channel});
        apps.prompt.expects(occupied);
    }
    all_wait(&mut redis, 600);
}
