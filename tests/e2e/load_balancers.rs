//! The files of `examples/load-balancer/` in front of two nodes, as an operator runs them.

use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use crate::clients::node_at;
use crate::proxy::{Proxy, example};
use crate::redis::Redis;
use crate::scale_out::{is_ready, starts};
use crate::support::client::Client;
use crate::support::config::{KEY, SECRET, merge};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::wire::Wire;

const TARGET: &str = "/app/app-key?protocol=7";
/// Clients' addresses, two of many on loopback.
const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// How a proxy hands on a client's address.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Forwarded,
    ProxyHeader,
}

/// Two nodes, and a proxy in front of them.
struct Balanced {
    proxy: Proxy,
    nodes: [Server; 2],
    /// Dropped last.
    redis: Redis,
}

impl Balanced {
    fn start(example: &str, says: Says, keys: Value) -> Option<Self> {
        let redis = Redis::start().or_else(|| {
            skip(example, "no redis-server");
            None
        })?;
        let hops = if says == Says::Forwarded { 1 } else { 0 };
        let mut all = json!({
            "rate_limiter": {
                "enabled": true, "trusted_proxies": ["127.0.0.1"],
                "api_rate_limit": {"max_requests": 1_000_000, "trust_hops": hops},
                "websocket_rate_limit": {"max_requests": 1_000_000, "trust_hops": hops},
            },
            "drain": {"lb_wait_s": 300, "deadline_s": 600},
        });
        merge(&mut all, keys);
        let nodes = ["a", "b"].map(|name| starts(&redis, name, all.clone()));
        for node in &nodes {
            is_ready(node);
            if says == Says::ProxyHeader {
                asks_for_headers(node);
            }
        }
        let proxy = Proxy::start(example, [&nodes[0], &nodes[1]]).or_else(|| {
            skip(example, "the proxy is not installed");
            None
        })?;
        let balanced = Self {
            proxy,
            nodes,
            redis,
        };
        eventually("the proxy to have found a node", || {
            (balanced.up() == Some(200)).then_some(())
        });
        Some(balanced)
    }

    /// What `/up` is answered by way of the proxy; none: the connection ends.
    fn up(&self) -> Option<u16> {
        let mut wire = Wire::connect(self.proxy.plain);
        wire.sends("GET /up HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        wire.try_reply().map(|reply| reply.status)
    }

    #[track_caller]
    fn client(&self, name: &str) -> Client {
        Client::over(Wire::connect(self.proxy.plain), TARGET, name, KEY, SECRET)
    }

    /// The status of an upgrade's answer; none: the connection ends.
    fn upgrade(&self, from: Ipv4Addr) -> Option<u16> {
        let mut wire = Wire::connect_from(from, self.proxy.plain);
        wire.asks_upgrade(TARGET, "");
        wire.try_reply().map(|reply| reply.status)
    }

    /// How many connections each node has opened so far.
    fn opened(&self) -> [f64; 2] {
        let count = |node: &Server| node.metric("sockudo_new_connections_total");
        [&self.nodes[0], &self.nodes[1]].map(|node| count(node).unwrap_or(0.0))
    }
}

/// Nodes that are looked at from the proxy's own address are started without headers.
fn asks_for_headers(node: &Server) {
    node.reloads(|json| json["net"] = json!({"proxy_protocol": "v1v2"}));
    eventually("a header to be asked for", || {
        let mut wire = node.wire();
        wire.sends("GET /live HTTP/1.1\r\nHost: test\r\n\r\n");
        wire.try_reply().is_none().then_some(())
    });
}

fn clients_and_publishers_find_one_server(example: &str, says: Says) {
    let Some(balanced) = Balanced::start(example, says, json!({})) else {
        return;
    };
    let mut clients: Vec<Client> = (0..8).map(|n| balanced.client(&n.to_string())).collect();
    // All have one address, and nothing ties them to one node.
    let opened = balanced.opened();
    assert!(opened.iter().all(|count| *count > 0.0), "{opened:?}");
    for client in &mut clients {
        client.subscribes("news");
    }
    let mut api = balanced.nodes[0].api().by_way_of(balanced.proxy.plain);
    for number in 0..20 {
        api.publishes("n", "news", &number.to_string());
    }
    for client in &mut clients {
        // Requests go to one node or the other: two publishers, whose events have no order between them.
        let mut heard: Vec<u32> = (0..20)
            .map(|_| {
                client.expects("n", "news")["data"]
                    .as_str()
                    .expect("text")
                    .parse()
            })
            .map(|number| number.expect("a number"))
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..20).collect::<Vec<_>>());
        client.expects_nothing();
    }
}

fn each_address_of_a_client_has_limits_of_its_own(example: &str, says: Says) {
    let limit = json!({"rate_limiter": {"websocket_rate_limit": {
        "max_requests": 1, "window_seconds": 3_600,
    }}});
    let Some(balanced) = Balanced::start(example, says, limit) else {
        return;
    };
    // Each node counts for itself.
    let statuses: Vec<Option<u16>> = (0..6).map(|_| balanced.upgrade(ONE)).collect();
    let granted = statuses
        .iter()
        .filter(|status| **status == Some(101))
        .count();
    assert!((1..=2).contains(&granted), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&Some(429)), "{statuses:?}");
    assert_eq!(balanced.upgrade(OTHER), Some(101));
}

fn whoever_cannot_be_reached_is_passed_over(example: &str, says: Says) {
    let Some(mut balanced) = Balanced::start(example, says, json!({})) else {
        return;
    };
    balanced.nodes[0].signal(libc::SIGKILL);
    balanced.nodes[0].exits();
    // The kernel closes what a ring held a moment later.
    eventually("its port to be closed", || {
        TcpStream::connect(balanced.nodes[0].address).err()
    });
    for number in 0..8 {
        let mut client = balanced.client(&number.to_string());
        client.expects_pong();
    }
}

/// No new client of eight comes to the first node.
fn is_passed_over(balanced: &Balanced) -> bool {
    let before = balanced.opened()[0];
    for number in 0..8 {
        balanced.client(&number.to_string()).expects_pong();
    }
    balanced.opened()[0] == before
}

fn a_node_that_is_not_ready_gets_nobody_new(example: &str, says: Says) {
    let Some(balanced) = Balanced::start(example, says, json!({})) else {
        return;
    };
    let mut clients: Vec<Client> = (0..8).map(|n| balanced.client(&n.to_string())).collect();
    balanced.nodes[0].drains();
    eventually("a draining node to be passed over", || {
        // By this nginx learns it; HAProxy asks by itself.
        let is_up = balanced.up() == Some(200);
        (is_up && is_passed_over(&balanced)).then_some(())
    });
    balanced.nodes[1].drains();
    eventually("the proxy to know of no node", || match example {
        "haproxy.cfg" => (balanced.upgrade(ONE) == Some(503)).then_some(()),
        // It can give no answer of its own.
        "haproxy-proxy-protocol.cfg" => balanced.upgrade(ONE).is_none().then_some(()),
        // 502 where no node is left to be asked.
        _ => matches!(balanced.up(), Some(502 | 503)).then_some(()),
    });
    // Who is there stays.
    for client in &mut clients {
        client.expects_pong();
    }
}

/// Seconds, in either program's words.
fn seconds(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
    let value = line
        .unwrap_or_else(|| panic!("{key} is set"))
        .trim()
        .trim_end_matches(';');
    let (number, unit) = value.split_at(value.len() - 1);
    let number: u64 = number.parse().expect("a number and a unit");
    match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3_600,
        _ => panic!("{value}"),
    }
}

#[test]
fn no_proxy_cuts_a_connection_that_a_ping_keeps() {
    // The defaults: a ping after so much silence, and the time for its answer.
    const QUIET_S: u64 = 120 + 30;
    for (name, keys) in [
        ("haproxy.cfg", &["timeout tunnel"][..]),
        (
            "haproxy-proxy-protocol.cfg",
            &["timeout client ", "timeout server "],
        ),
        ("nginx.conf", &["proxy_read_timeout", "proxy_send_timeout"]),
        ("nginx-proxy-protocol.conf", &["proxy_timeout"]),
    ] {
        let text = example(name);
        for key in keys {
            assert!(seconds(&text, key) >= 10 * QUIET_S, "{name}: {key}");
        }
    }
}

// A node pings whoever is quiet, and the proxy lets that through.
#[test]
fn a_quiet_client_hears_the_node_s_ping() {
    for (example, says) in EXAMPLES {
        let Some(balanced) = Balanced::start(example, says, json!({"activity_timeout": 1})) else {
            continue;
        };
        let mut client = balanced.client("quiet");
        assert_eq!(client.next()["event"], "pusher:ping", "{example}");
    }
}

// Whatever a client says of itself, a proxy of ours says how it came.
#[test]
fn an_app_that_requires_tls_is_closed_to_whoever_comes_without() {
    for example in ["haproxy.cfg", "nginx.conf"] {
        let Some(balanced) = Balanced::start(example, Says::Forwarded, requires_tls()) else {
            continue;
        };
        let mut wire = Wire::connect(balanced.proxy.plain);
        wire.upgrades(TARGET, "X-Forwarded-Proto: https\r\n");
        wire.is_closed_with(4_000);
    }
}

fn requires_tls() -> Value {
    json!({"app_manager": {"array": {"apps": [{
        "id": "app-id", "key": KEY, "secret": SECRET, "require_tls": true,
        "enable_client_messages": true,
    }]}}})
}

// The usual map says "close" for what is no upgrade: a connection for each publish.
#[test]
fn nginx_keeps_its_connections_to_nodes() {
    let Some(balanced) = Balanced::start("nginx.conf", Says::Forwarded, json!({})) else {
        return;
    };
    let accepted = || -> f64 {
        let count = |node: &Server| node.metric("sockudo_shard_accepted_total");
        balanced.nodes.iter().filter_map(count).sum()
    };
    let before = accepted();
    let mut api = balanced.nodes[0].api().by_way_of(balanced.proxy.plain);
    for _ in 0..100 {
        api.publishes("n", "news", "x");
    }
    let more = accepted() - before;
    assert!(more < 50.0, "{more} connections for 100 events");
}

#[test]
fn a_browser_comes_with_tls_and_by_http_2_where_the_proxy_has_it() {
    let name = "a_browser_comes_with_tls_and_by_http_2_where_the_proxy_has_it";
    if !std::path::Path::new("/usr/bin/chromium").exists() {
        return skip(name, "chromium is not installed");
    }
    for (example, says) in EXAMPLES {
        let keys = match says {
            Says::Forwarded => requires_tls(),
            // Nobody says that there was TLS.
            Says::ProxyHeader => json!({}),
        };
        let Some(balanced) = Balanced::start(example, says, keys) else {
            continue;
        };
        let found = match example {
            // WebSockets are streams of the one connection.
            "haproxy.cfg" => ["h2", "200"],
            "nginx.conf" => ["h2", "101"],
            _ => ["http/1.1", "101"],
        };
        let Some(script) = node_at(name, balanced.proxy.tls, "balanced.mjs", &found) else {
            return;
        };
        script.succeeds();
        let opened = balanced.opened();
        assert!(
            opened.iter().all(|count| *count > 0.0),
            "{example}: {opened:?}"
        );
    }
}

#[test]
fn whoever_waits_for_the_bus_is_not_asked_and_comes_back_by_itself() {
    let Some(mut balanced) = Balanced::start("haproxy.cfg", Says::Forwarded, json!({})) else {
        return;
    };
    let mut client = balanced.client("before");
    balanced.redis.kill();
    eventually("HAProxy to refuse", || {
        (balanced.upgrade(ONE) == Some(503)).then_some(())
    });
    client.expects_pong();
    balanced.redis.start_again();
    eventually("HAProxy to have found a node again", || {
        (balanced.upgrade(ONE) == Some(101)).then_some(())
    });
    client.expects_pong();
}

const EXAMPLES: [(&str, Says); 4] = [
    ("haproxy.cfg", Says::Forwarded),
    ("haproxy-proxy-protocol.cfg", Says::ProxyHeader),
    ("nginx.conf", Says::Forwarded),
    ("nginx-proxy-protocol.conf", Says::ProxyHeader),
];

/// Declares the scenarios of each example as tests.
macro_rules! behind {
    ($($module:ident: $at:literal { $($scenario:ident),+ })+) => {
        $(mod $module {
            $(#[test]
            fn $scenario() {
                let (example, says) = super::EXAMPLES[$at];
                super::$scenario(example, says);
            })+
        })+
    };
}

behind! {
    haproxy: 0 {
        clients_and_publishers_find_one_server,
        each_address_of_a_client_has_limits_of_its_own,
        whoever_cannot_be_reached_is_passed_over,
        a_node_that_is_not_ready_gets_nobody_new
    }
    haproxy_with_proxy_protocol: 1 {
        clients_and_publishers_find_one_server,
        each_address_of_a_client_has_limits_of_its_own,
        whoever_cannot_be_reached_is_passed_over,
        a_node_that_is_not_ready_gets_nobody_new
    }
    nginx: 2 {
        clients_and_publishers_find_one_server,
        each_address_of_a_client_has_limits_of_its_own,
        whoever_cannot_be_reached_is_passed_over,
        a_node_that_is_not_ready_gets_nobody_new
    }
    // It hears nothing of what a node says of itself.
    nginx_with_proxy_protocol: 3 {
        clients_and_publishers_find_one_server,
        each_address_of_a_client_has_limits_of_its_own,
        whoever_cannot_be_reached_is_passed_over
    }
}
