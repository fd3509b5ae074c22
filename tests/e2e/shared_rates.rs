//! Rates that nodes count together in a Redis: exact over nodes and shards, and what holds while it is gone.

use serde_json::{Value, json};

use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::support::config::{Config, merge};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;

const NO_REDIS: &str = "there is no redis-server; `scripts/test` installs it";

/// So long that nothing comes back within a test.
const LONG_S: u64 = 86_400;

fn config(redis: &Redis, limiter: Value) -> Config {
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    let mut keys = json!({
        "rate_limiter": {"enabled": true, "driver": "redis"},
        "database": {"redis": {"host": host, "port": port}},
    });
    merge(&mut keys, json!({"rate_limiter": limiter}));
    Config::new().with(keys)
}

fn has_health(server: &Server, word: &str) {
    eventually(&format!("/up to say {word}"), || {
        let up = server.gets("/up");
        (up.status == 200 && up.header("x-health-check") == Some(word)).then_some(())
    });
}

fn statuses(server: &Server, count: usize) -> Vec<u16> {
    let mut api = server.api();
    let mut status = || api.get("/channels", &[]).status;
    (0..count).map(|_| status()).collect()
}

fn passed(statuses: &[u16]) -> usize {
    assert!(
        statuses.iter().all(|it| [200, 429].contains(it)),
        "{statuses:?}"
    );
    statuses.iter().filter(|it| **it == 200).count()
}

#[test]
fn two_nodes_together_let_as_many_in_as_one_may() {
    let Some(redis) = Redis::start() else {
        return skip("two_nodes_together_let_as_many_in_as_one_may", NO_REDIS);
    };
    let limits = json!({
        "api_rate_limit": {"max_requests": 30, "window_seconds": LONG_S},
        "websocket_rate_limit": {"max_requests": 5, "window_seconds": LONG_S},
    });
    let nodes = [1, 3].map(|shards| Server::start(&config(&redis, limits.clone()), shards));
    nodes.iter().for_each(|node| has_health(node, "OK"));
    let mut api = nodes[0].api();
    let first = api.get("/channels", &[]);
    let shown = |name: &str| first.header(name).expect("a header").to_owned();
    assert_eq!(
        (first.status, shown("x-ratelimit-limit")),
        (200, "30".to_owned())
    );
    assert_eq!(shown("x-ratelimit-remaining"), "29");
    let in_turn = (0..20).flat_map(|_| nodes.iter().map(|node| passed(&statuses(node, 1))));
    assert_eq!(in_turn.sum::<usize>(), 29);
    let refused = api.get("/channels", &[]);
    assert_eq!(refused.status, 429);
    let wait_s: u64 = refused
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1..=LONG_S / 30 + 1).contains(&wait_s), "{wait_s}");
    // New connections are counted apart.
    let _inside: Vec<_> = (0..5)
        .map(|n| nodes[n % 2].client(&n.to_string()))
        .collect();
    for node in &nodes {
        let mut wire = node.wire();
        wire.asks_upgrade("/app/app-key?protocol=7", "");
        assert_eq!(wire.reply().status, 429);
    }
}

#[test]
fn what_is_taken_in_advance_is_a_fiftieth_and_never_beyond_the_limit() {
    let name = "what_is_taken_in_advance_is_a_fiftieth_and_never_beyond_the_limit";
    let Some(redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let limits = json!({"api_rate_limit": {"max_requests": 500, "window_seconds": LONG_S}});
    let nodes = [2, 2].map(|shards| Server::start(&config(&redis, limits.clone()), shards));
    nodes.iter().for_each(|node| has_health(node, "OK"));
    let all: usize = std::thread::scope(|scope| {
        let crowd = |node| scope.spawn(move || passed(&statuses(node, 400)));
        let crowds: Vec<_> = nodes.iter().map(crowd).collect();
        let passed = crowds.into_iter().map(|it| it.join().expect("it ends"));
        passed.sum()
    });
    assert!((480..=500).contains(&all), "{all}");
}

#[test]
fn an_apps_rates_hold_over_all_nodes() {
    let Some(redis) = Redis::start() else {
        return skip("an_apps_rates_hold_over_all_nodes", NO_REDIS);
    };
    let limits = json!({"api_rate_limit": {"max_requests": 100_000, "window_seconds": 1}});
    let config = config(&redis, limits).with_app(json!({"max_read_requests_per_second": 1}));
    let nodes = [1, 2].map(|shards| Server::start(&config, shards));
    nodes.iter().for_each(|node| has_health(node, "OK"));
    // One per second of both together: of twenty at once from each at most those of the time that passed.
    let began = std::time::Instant::now();
    let all: usize = nodes.iter().map(|node| passed(&statuses(node, 20))).sum();
    let seconds = began.elapsed().as_secs() as usize;
    assert!(all >= 1 && all <= 2 + seconds, "{all} in {seconds} s");
}

#[test]
fn what_a_request_takes_beyond_an_apps_rate_is_owed_on_every_node() {
    let name = "what_a_request_takes_beyond_an_apps_rate_is_owed_on_every_node";
    let Some(redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let limits = json!({"api_rate_limit": {"max_requests": 100_000, "window_seconds": 1}});
    let config = config(&redis, limits).with_app(json!({"max_backend_events_per_second": 1}));
    let nodes = [1, 2].map(|shards| Server::start(&config, shards));
    nodes.iter().for_each(|node| has_health(node, "OK"));
    let event_on = |node: &Server, channels: usize| {
        let channels: Vec<String> = (0..channels).map(|n| format!("c{n}")).collect();
        let event = json!({"name": "e", "channels": channels, "data": "x"}).to_string();
        node.api().post("/events", event.as_bytes())
    };
    assert_eq!(event_on(&nodes[0], 100).status, 200);
    for node in &nodes {
        let refused = event_on(node, 1);
        assert_eq!(refused.status, 429);
        let wait_s = refused.header("retry-after").expect("a time");
        let wait_s: u64 = wait_s.parse().expect("seconds");
        // A hundred are owed, of which one comes back each second.
        assert!((2..=100).contains(&wait_s), "{wait_s}");
    }
}

#[test]
fn while_redis_is_gone_each_node_counts_for_itself_or_nothing_passes() {
    let name = "while_redis_is_gone_each_node_counts_for_itself_or_nothing_passes";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let limits = |on_error: &str| {
        json!({
            "on_error": on_error,
            "api_rate_limit": {"max_requests": 10, "window_seconds": LONG_S},
        })
    };
    let [lenient, strict] =
        ["allow", "deny"].map(|it| Server::start(&config(&redis, limits(it)), 2));
    for node in [&lenient, &strict] {
        has_health(node, "OK");
    }
    redis.kill();
    for node in [&lenient, &strict] {
        has_health(node, "DEGRADED");
    }
    assert_eq!(passed(&statuses(&lenient, 15)), 10);
    let refused = strict.api().get("/channels", &[]);
    assert_eq!((refused.status, refused.header("retry-after")), (500, None));
    redis.start_again();
    for node in [&lenient, &strict] {
        has_health(node, "OK");
    }
    assert_eq!(statuses(&strict, 1), [200]);
    // One that does not answer is no answer, after a quarter of a second.
    redis.signal("STOP");
    assert_eq!(statuses(&strict, 1), [500]);
    strict.client("nobody waits for it").expects_pong();
    redis.signal("CONT");
    has_health(&strict, "OK");
    assert_eq!(statuses(&strict, 1), [200]);
}

#[test]
fn a_limit_that_a_reload_raises_holds_for_who_was_refused() {
    let name = "a_limit_that_a_reload_raises_holds_for_who_was_refused";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let limits = json!({"api_rate_limit": {"max_requests": 1, "window_seconds": LONG_S}});
    let server = Server::start(&config(&redis, limits), 2);
    has_health(&server, "OK");
    assert_eq!(statuses(&server, 3), [200, 429, 429]);
    server.reloads(|keys| {
        keys["rate_limiter"]["api_rate_limit"] = json!({"max_requests": 600, "window_seconds": 60});
    });
    eventually("a request to pass", || {
        (statuses(&server, 1) == [200]).then_some(())
    });
    // Whatever is there instead of a count delays nobody for ever.
    let cells = redis.command(&["KEYS", "sockudo_rl::cell:api:*"]);
    let cell = cells.lines().last().expect("one address asked");
    for strange in ["inf", "nan", "1e400", "words", "-5"] {
        redis.command(&["SET", cell, strange]);
        eventually(strange, || (statuses(&server, 1) == [200]).then_some(()));
    }
    // What cannot be counted is said.
    redis.command(&["DEL", cell]);
    redis.command(&["RPUSH", cell, "x"]);
    eventually("/up to be degraded", || {
        statuses(&server, 1);
        (server.gets("/up").header("x-health-check") == Some("DEGRADED")).then_some(())
    });
    redis.command(&["DEL", cell]);
    eventually("/up to be well", || {
        statuses(&server, 1);
        (server.gets("/up").header("x-health-check") == Some("OK")).then_some(())
    });
}

#[test]
fn a_cluster_counts_as_one_server_does() {
    let Some(cluster) = RedisCluster::start() else {
        return skip("a_cluster_counts_as_one_server_does", NO_REDIS);
    };
    let node = &cluster.masters[0].address;
    let nodes = json!([{"host": node.ip().to_string(), "port": node.port()}]);
    let config = Config::new().with(json!({
        "rate_limiter": {
            "enabled": true, "driver": "redis-cluster",
            "api_rate_limit": {"max_requests": 20, "window_seconds": LONG_S},
        },
        "database": {"redis": {"cluster_nodes": nodes}},
    }));
    let nodes = [2, 2].map(|shards| Server::start(&config, shards));
    nodes.iter().for_each(|node| has_health(node, "OK"));
    let all: usize = nodes.iter().map(|node| passed(&statuses(node, 15))).sum();
    assert_eq!(all, 20);
}

#[test]
fn a_redis_that_counts_again_is_known_though_nobody_asks() {
    let name = "a_redis_that_counts_again_is_known_though_nobody_asks";
    let Some(mut redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    let limits = json!({"api_rate_limit": {"max_requests": 600, "window_seconds": LONG_S}});
    let server = Server::start(&config(&redis, limits), 2);
    has_health(&server, "OK");
    // A full one: what is tried meanwhile is refused too.
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(statuses(&server, 1), [200]);
    has_health(&server, "DEGRADED");
    let refused = |redis: &mut Redis| {
        let said = redis.command(&["INFO", "errorstats"]);
        let line = said
            .lines()
            .find_map(|it| it.strip_prefix("errorstat_OOM:count="));
        line.map_or(0, |it| it.trim().parse::<u64>().expect("a count"))
    };
    let before = refused(&mut redis);
    eventually("it to be tried again twice", || {
        (refused(&mut redis) > before + 1).then_some(())
    });
    has_health(&server, "DEGRADED");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    has_health(&server, "OK");
    let cells = redis.command(&["KEYS", "sockudo_rl::cell:api:*"]);
    assert_eq!(cells, "*0", "nothing was taken of anybody");
}

#[test]
fn a_redis_that_answers_too_late_is_told_and_known_though_nobody_asks() {
    let name = "a_redis_that_answers_too_late_is_told_and_known_though_nobody_asks";
    let Some(redis) = Redis::start() else {
        return skip(name, NO_REDIS);
    };
    // Nothing is taken in advance.
    let limits = json!({"api_rate_limit": {"max_requests": 40, "window_seconds": LONG_S}});
    let server = Server::start(&config(&redis, limits), 2);
    has_health(&server, "OK");
    let too_late = "the rate limiter's Redis answers too late";
    for _ in 0..2 {
        redis.signal("STOP");
        assert_eq!(statuses(&server, 1), [200], "each node counts for itself");
        has_health(&server, "DEGRADED");
        redis.signal("CONT");
        has_health(&server, "OK");
        assert_eq!(server.log().matches(too_late).count(), 1, "once a minute");
    }
}
