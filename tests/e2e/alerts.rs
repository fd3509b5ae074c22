//! The rules of `tuning/monitoring/` in a real Prometheus that scrapes a running node: alerts fire when there is trouble
//! and end with it. Their lengths of time are cut short, and nothing else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::redis::Redis;
use crate::scale_out::{is_ready, starts};
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;
use crate::support::wire::{Reply, Wire};

/// A running Prometheus. Dropping it ends the process.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

/// How far back a rule looks that says `[5m]` or `[15m]`: some scrapes, on a machine that is late with them.
const RANGE: &str = "[15s]";

/// The rules with their waits cut: what they compare is untouched.
fn hasty_rules() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/monitoring/rules.yml");
    let rules = std::fs::read_to_string(file).expect("the rules are there");
    let lines = rules
        .lines()
        .map(|line| match line.trim_start().strip_prefix("for: ") {
            Some(_) => line
                .split("for: ")
                .next()
                .map_or_else(String::new, |indent| format!("{indent}for: 1s")),
            None => line.replace("[5m]", RANGE).replace("[15m]", RANGE),
        });
    lines.collect::<Vec<_>>().join("\n")
}

impl Prometheus {
    /// `None` where the machine has none.
    fn start(node: &Server) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from((own_address(), next_port()));
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {"job_name": "realtime", "static_configs": [{"targets": [node.metrics.to_string()]}]},
            ],
        });
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("prometheus.yml"), config.to_string()).expect("ours");
        std::fs::write(at("rules.yml"), hasty_rules()).expect("ours");
        let log = std::fs::File::create(at("log")).expect("ours");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", at("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", at("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .ok()?;
        let prometheus = Self {
            child,
            address,
            folder,
        };
        prometheus.waits_for("the first scrape", || {
            std::net::TcpStream::connect(address).is_ok()
                && prometheus.gets("/-/ready").status == 200
                && prometheus.knows("sockudo_ready == 1")
        });
        Some(prometheus)
    }

    fn waits_for(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            let log =
                || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for {what}: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn gets(&self, path: &str) -> Reply {
        let mut wire = Wire::connect(self.address);
        wire.sends(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address
        ));
        wire.reply()
    }

    fn asks(&self, path: &str) -> serde_json::Value {
        let answer = self.gets(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()["data"].clone()
    }

    /// Whether the expression has a row now.
    fn knows(&self, expression: &str) -> bool {
        let query: String = expression
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let found = &self.asks(&format!("/api/v1/query?query={query}"))["result"];
        found.as_array().is_some_and(|rows| !rows.is_empty())
    }

    /// Alerts that fire.
    fn firing(&self) -> BTreeSet<String> {
        let data = self.asks("/api/v1/alerts");
        let alerts = data["alerts"].as_array().expect("a list").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| {
                alert["labels"]["alertname"]
                    .as_str()
                    .expect("a name")
                    .to_owned()
            })
            .collect()
    }

    fn fires(&self, alerts: &[&str]) {
        self.waits_for(&format!("{alerts:?} to fire"), || {
            let firing = self.firing();
            alerts.iter().all(|alert| firing.contains(*alert))
        });
    }

    /// Waits until those alerts are over.
    fn ends(&self, alerts: &[&str]) {
        self.waits_for(&format!("{alerts:?} to end"), || {
            let firing = self.firing();
            !alerts.iter().any(|alert| firing.contains(*alert))
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For one alert: some scrapes, the hasty `for`, and ten times as much for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn alerts_fire_on_a_running_node_and_end() {
    let name = "alerts_fire_on_a_running_node_and_end";
    let Some(mut redis) = Redis::start() else {
        skip(name, "no redis-server");
        return;
    };
    let node = starts(&redis, "watched", json!({}));
    is_ready(&node);
    let Some(prometheus) = Prometheus::start(&node) else {
        skip(name, "no prometheus (Debian's package of that name)");
        return;
    };

    let bus = ["SockudoBackendDown", "SockudoNotReady"];
    prometheus.ends(&bus);
    redis.kill();
    prometheus.fires(&bus);
    redis.start_again();
    prometheus.ends(&bus);

    let reload = ["SockudoReloadRefused"];
    node.reloads(|json| json["no_such_key"] = json!(1));
    prometheus.fires(&reload);
    node.reloads(|json| {
        json.as_object_mut()
            .expect("an object")
            .remove("no_such_key");
    });
    prometheus.ends(&reload);

    let slow_consumers = ["SockudoSlowConsumers"];
    let mut slow = node.client("slow");
    socket2::SockRef::from(&slow.wire.stream)
        .set_recv_buffer_size(16 * 1024)
        .expect("the receive buffer can be made small");
    slow.subscribes("news");
    let (mut api, large) = (node.api(), "x".repeat(60 * 1024));
    prometheus.waits_for("the slow client to be closed", || {
        for _ in 0..50 {
            api.publishes("hello", "news", &large);
        }
        node.metric("sockudo_slow_consumer_disconnects_total") > Some(0.0)
    });
    prometheus.fires(&slow_consumers);
    drop(slow);
    prometheus.ends(&slow_consumers);

    let gone = ["SockudoGone"];
    node.signal(libc::SIGSTOP);
    prometheus.fires(&gone);
    node.signal(libc::SIGCONT);
    prometheus.ends(&gone);
}
