//! The bridge's loop between shards that exist in memory only and real HTTP requests.
//!
//! Owns: `Node`, a bridge under test with the shards' end and an operator's tools.
//! May depend on: `bridge`, `config`.
//! Invariants: every wait has a deadline.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use shards::application::{Millis, RuntimeCounters, ShardId, Slot, Waiter};
use tokio::{sync::mpsc, time::timeout};

use super::{
    admin,
    apps::{AppChange, AppTable},
    fixture::{FakeLink, FakeShards, PATIENCE},
    handover::Legacy,
    message::{FromBridge, ToBridge},
    notify::Supervisor,
    run::{Exit, Setup, run},
    signals::Signal,
};
use crate::protocol::app::AppIndex;
use crate::{
    config::{Loaded, Sources, load},
    metrics::{
        counters::{ShardCounters, ShardSnapshot},
        sample::Build,
    },
};

#[tokio::test]
async fn a_scrape_asks_every_shard_and_adds_their_numbers_up() {
    let node = Node::new(2, &[]);
    node.run(async |node| {
        let answer = node.ask_answering_scrapes("/metrics", "").await;
        assert_eq!(
            answer.content_type,
            "text/plain; version=0.0.4; charset=utf-8"
        );
        let port = node.admin.port();
        let line = format!("sockudo_connected{{app_id=\"app-id\",port=\"{port}\"}} 6\n");
        assert!(answer.body.contains(&line), "{}", answer.body);
    })
    .await;
}

#[tokio::test]
async fn each_format_has_its_content_type_and_shape() {
    let node = Node::new(1, &[]);
    node.run(async |node| {
        for (path, accept, content_type, beginning) in [
            (
                "/metrics?format=json",
                "",
                "application/json",
                "{\"formatted\":{",
            ),
            (
                "/metrics?json=1",
                "",
                "application/json",
                "{\"formatted\":{",
            ),
            ("/metrics.json", "", "application/json", "{\"formatted\":{"),
            ("/debug/shards", "", "application/json", "[{"),
            (
                "/metrics",
                "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                "# HELP ",
            ),
        ] {
            let answer = node.ask_answering_scrapes(path, accept).await;
            assert_eq!(answer.content_type, content_type, "{path}");
            assert!(
                answer.body.starts_with(beginning),
                "{path}: {}",
                answer.body
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_shard_that_does_not_answer_is_shown_with_its_last_numbers() {
    let node = Node::new(1, &[]);
    node.run(async |node| {
        let first = node.ask_answering_scrapes("/metrics", "").await;
        let began = Instant::now();
        let second = get(&node.url("/metrics"), "").await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the deadline is a second"
        );
        let line = |answer: &Answer| {
            let line = answer
                .body
                .lines()
                .find(|line| line.starts_with("sockudo_connected{"));
            line.expect("the app is known").to_owned()
        };
        assert_eq!(line(&first), line(&second));
    })
    .await;
}

#[tokio::test]
async fn health_follows_apps_and_start() {
    let node = Node::new(1, &[]);
    node.run(async |node| {
        let starting = get(&node.url("/ready"), "application/json").await;
        assert_eq!(starting.code, 503);
        let body = "{\"draining\":false,\"node\":\"n1\",\"reasons\":[\"starting\"],\
                    \"status\":\"error\"}";
        assert_eq!(json(&starting.body), json(body));
        node.ask_answering_scrapes("/metrics", "").await;
        for path in ["/up", "/ready", "/live"] {
            let answer = get(&node.url(path), "").await;
            assert_eq!((answer.code, answer.body.as_str()), (200, "OK"), "{path}");
            assert_eq!(answer.health, "OK");
        }
        assert_eq!(get(&node.url("/elsewhere"), "").await.code, 404);
    })
    .await;
    let without_apps = Node::of(1, AppTable::default(), &[]);
    without_apps
        .run(async |node| {
            node.ask_answering_scrapes("/metrics", "").await;
            let answer = get(&node.url("/up"), "").await;
            assert_eq!((answer.code, answer.health.as_str()), (503, "ERROR"));
            assert_eq!(get(&node.url("/ready"), "").await.code, 200);
        })
        .await;
}

#[tokio::test]
async fn a_node_that_may_not_listen_yet_is_not_ready_and_tries_again() {
    let node = Node::new(1, &[]);
    node.shards.refuse_to_listen();
    node.run(async |node| {
        for _ in 0..2 {
            node.ask_answering_scrapes("/metrics", "").await;
            assert!(!node.shards.is_listening());
            let answer = get(&node.url("/ready"), "application/json").await;
            assert_eq!(answer.code, 503, "nobody would be served");
            let reasons = &json(&answer.body)["reasons"];
            assert_eq!(*reasons, serde_json::json!(["starting"]));
        }
        node.shards.let_listen();
        node.ask_answering_scrapes("/metrics", "").await;
        assert!(node.shards.is_listening());
        assert_eq!(get(&node.url("/ready"), "").await.code, 200);
    })
    .await;
}

#[tokio::test]
async fn the_watchdog_is_fed_while_all_shards_turn_and_no_longer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).expect("the folder is ours");
    let (sender, mut heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.recv(&mut buffer).await {
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if sender.send(said).is_err() {
                return;
            }
        }
    });
    let environment = [
        ("NOTIFY_SOCKET", path.to_str().expect("UTF-8")),
        ("WATCHDOG_USEC", "200000"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut node = Node::new(1, &[]);
    let (_, setup) = node.start.as_mut().expect("not started yet");
    setup.supervisor = Supervisor::find(&environment.into(), 1, Instant::now());
    node.run(async |node| {
        node.ask_answering_scrapes("/metrics", "").await;
        for word in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
            let hears = async { while heard.recv().await.expect("open") != word {} };
            timeout(PATIENCE, hears).await.expect(word);
        }
        node.shards.stall();
        let word = "STATUS=not ready: shard_stalled";
        let hears = async { while heard.recv().await.expect("open") != word {} };
        timeout(PATIENCE, hears).await.expect(word);
        // Twenty times the time after which it was fed before.
        let fed = async { while heard.recv().await.expect("open") != "WATCHDOG=1" {} };
        let fed = timeout(Duration::from_secs(2), fed).await;
        assert!(fed.is_err(), "fed though a shard does not turn");
    })
    .await;
}

#[tokio::test]
async fn the_shards_are_told_what_the_metrics_port_knows_of_start_and_stall() {
    let node = Node::new(2, &[]);
    node.run(async |node| {
        node.ask_answering_scrapes("/metrics", "").await;
        node.shards.stall();
        for shard in 0..2 {
            let stalled = |message: FromBridge| match message {
                FromBridge::Health(health) if health.shard_stalled => Some(health.starting),
                _ => None,
            };
            assert!(!node.find(shard, stalled).await, "the start is over");
        }
        let answer = get(&node.url("/up"), "application/json").await;
        assert_eq!(answer.code, 503);
        assert_eq!(
            json(&answer.body)["reasons"],
            serde_json::json!(["shard_stalled"])
        );
    })
    .await;
}

#[tokio::test]
async fn a_stop_turns_readiness_off_then_closes_and_ends_when_all_shards_have() {
    let node = Node::new(2, &[("SOCKUDO__DRAIN__LB_WAIT_S", "1")]);
    let exit = node
        .run_to_the_end(async |node| {
            node.ask_answering_scrapes("/metrics", "").await;
            node.signal(Signal::Stop).await;
            for shard in 0..2 {
                let draining = |message: FromBridge| match message {
                    FromBridge::Health(health) => Some(health.draining),
                    _ => None,
                };
                assert!(node.find(shard, draining).await, "shard {shard} is unready");
            }
            let answer = get(&node.url("/ready"), "application/json").await;
            assert_eq!(answer.code, 503);
            assert_eq!(json(&answer.body)["draining"], true);
            assert!(
                node.shards.is_accepting(),
                "the load balancer has a second to see it"
            );
            for shard in 0..2 {
                assert!(
                    node.shards.is_accepting(),
                    "who comes while others are closed is told to come back"
                );
                let order = |message: FromBridge| match message {
                    FromBridge::Drain {
                        deadline,
                        rate_per_s,
                    } => Some((deadline, rate_per_s)),
                    _ => None,
                };
                let (deadline, rate_per_s) = node.find(shard, order).await;
                assert_eq!(rate_per_s, 0);
                // The shards had run for ten seconds.
                assert!(
                    deadline > Millis(11_000) && deadline < Millis(25_000),
                    "{deadline:?}"
                );
                node.shards
                    .send(u16::try_from(shard).expect("few"), ToBridge::Drained);
            }
            for shard in 0..2 {
                let settle = |message| matches!(message, FromBridge::Settle).then_some(());
                node.find(shard, settle).await;
                assert!(
                    !node.shards.is_accepting(),
                    "there is nobody left to wait for"
                );
                node.shards
                    .send(u16::try_from(shard).expect("few"), ToBridge::Settled);
            }
        })
        .await;
    assert_eq!(exit, Exit::Drained);
}

#[tokio::test]
async fn a_drain_leaves_new_connections_to_another_process_on_the_port_as_soon_as_it_is_there() {
    let node = Node::new(1, &[("SOCKUDO__DRAIN__LB_WAIT_S", "600")]); // Its deadline is later still.
    node.run(async |node| {
        node.signal(Signal::Stop).await;
        let draining = |message: FromBridge| match message {
            FromBridge::Health(health) => health.draining.then_some(()),
            _ => None,
        };
        node.find(0, draining).await;
        assert!(node.shards.is_accepting(), "nobody else is there");
        node.shards.succeed();
        let stopped = async {
            while node.shards.is_accepting() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let stopped = timeout(PATIENCE, stopped).await;
        stopped.expect("the successor is seen while the drain waits");
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let node = Node::new(1, &[]);
    let exit = node
        .run_to_the_end(async |node| {
            node.signal(Signal::Stop).await;
            node.signal(Signal::Stop).await;
        })
        .await;
    assert_eq!(exit, Exit::Interrupted);
}

#[tokio::test]
async fn shards_that_never_drain_do_not_hold_the_stop_beyond_its_deadline() {
    let node = Node::new(1, &[("SOCKUDO__DRAIN__DEADLINE_S", "1")]);
    let began = Instant::now();
    let exit = node
        .run_to_the_end(async |node| {
            node.signal(Signal::Stop).await;
        })
        .await;
    assert_eq!(exit, Exit::Drained);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_reload_gives_all_shards_the_new_apps_and_a_refused_one_changes_nothing() {
    let mut node = Node::new(1, &[]);
    node.reloads = vec![
        loaded(&[
            ("SOCKUDO_DEFAULT_APP_KEY", "new-key"),
            ("PORT", "7001"),
            ("ACTIVITY_TIMEOUT", "77"),
        ]),
        load(&sources(&[("PORT", "nonsense")])),
    ];
    node.run(async |node| {
        node.signal(Signal::Reload).await;
        let config = |message: FromBridge| match message {
            FromBridge::Config(config) => Some((config.activity_timeout_s, config.port)),
            _ => None,
        };
        let expected = (77, 6_001);
        assert_eq!(
            node.find(0, config).await,
            expected,
            "a port needs a restart"
        );
        let apps = |message: FromBridge| match message {
            FromBridge::Apps { number: 1, changes } => Some(changes),
            _ => None,
        };
        let changes = node.find(0, apps).await;
        let [AppChange::Put(entry)] = &*changes else {
            panic!("{changes:?}");
        };
        assert_eq!(&*entry.rules.key, "new-key");
        assert_eq!(entry.index, AppIndex(0), "the same app, the same index");
        let scrape = node.ask_answering_scrapes("/metrics", "").await;
        assert!(
            scrape
                .body
                .contains("sockudo_config_last_reload_success{node=\"n1\"} 1\n")
        );
        node.signal(Signal::Reload).await;
        let scrape = node.ask_answering_scrapes("/metrics", "").await;
        assert!(
            scrape
                .body
                .contains("sockudo_config_last_reload_success{node=\"n1\"} 0\n")
        );
        assert!(scrape.body.contains("app_id=\"app-id\""));
    })
    .await;
}

#[tokio::test]
async fn usage_is_answered_to_the_connection_that_asked() {
    let node = Node::new(1, &[]);
    node.run(async |node| {
        let waiter = Waiter {
            shard: ShardId(0),
            slot: Slot {
                index: 4,
                generation: 2,
            },
            operation: 9,
        };
        node.shards.send(0, ToBridge::Usage { waiter });
        let usage = |message: FromBridge| match message {
            FromBridge::Usage { waiter, body } => Some((waiter, body)),
            _ => None,
        };
        let (answered, body) = node.find(0, usage).await;
        assert_eq!(answered, waiter);
        let memory = json(&body)["memory"].clone();
        let field = |name: &str| memory[name].as_u64().expect("bytes");
        let fields = ["free", "used", "total"].map(field);
        assert_eq!(fields, [6_144_000, 2_048_000, 8_192_000], "bytes, not KiB");
    })
    .await;
}

const MEMINFO: &str = "MemTotal: 8000 kB\nMemAvailable: 6000 kB\n";

/// A bridge under test.
struct Node {
    /// Its memory does not depend on the machine's.
    _host: tempfile::TempDir,
    shards: FakeShards,
    signals: mpsc::Sender<Signal>,
    admin: SocketAddr,
    reloads: Vec<Result<Loaded, crate::config::ConfigErrors>>,
    start: Option<(FakeLink, Setup)>,
}

impl Node {
    fn new(shards: u16, variables: &[(&str, &str)]) -> Self {
        let apps = loaded(variables)
            .expect("a valid configuration")
            .config
            .app_manager
            .apps;
        Self::of(shards, AppTable::build(&apps, None), variables)
    }

    fn of(shards: u16, apps: AppTable, variables: &[(&str, &str)]) -> Self {
        let loaded = loaded(variables).expect("a valid configuration");
        let listener = admin::bind(&loaded.config.metrics)
            .expect("a port")
            .expect("enabled");
        let admin = listener.local_addr().expect("bound");
        let (signals, receiver) = mpsc::channel(4);
        let (link, shards) = FakeLink::new(shards, 64);
        let host = tempfile::tempdir().expect("a temporary folder");
        let proc = host.path().join("proc");
        std::fs::create_dir(&proc).expect("the folder is ours");
        std::fs::write(proc.join("meminfo"), MEMINFO).expect("the folder is ours");
        let setup = Setup {
            loaded,
            apps,
            store: None,
            node_id: "n1".to_owned(),
            build: Build {
                version: "0.1.0",
                commit: "",
                features: "",
            },
            metrics: Some(listener),
            admin: None,
            signals: receiver,
            reload: Box::new(|| panic!("no reload was prepared")),
            tls: None,
            supervisor: Supervisor::default(),
            legacy: Legacy::default(),
            memory_root: host.path().into(),
        };
        Self {
            _host: host,
            shards,
            signals,
            admin,
            reloads: Vec::new(),
            start: Some((link, setup)),
        }
    }

    async fn signal(&self, signal: Signal) {
        let sent = self.signals.send(signal).await;
        sent.expect("the bridge runs");
    }

    /// Runs the bridge while `script` goes on.
    async fn run(self, script: impl AsyncFnOnce(&mut Self)) {
        self.run_to_the_end(async |node| {
            script(node).await;
            for _ in 0..2 {
                node.signal(Signal::Stop).await;
            }
        })
        .await;
    }

    /// Runs the bridge until it ends by itself, which `script` sees to.
    async fn run_to_the_end(mut self, script: impl AsyncFnOnce(&mut Self)) -> Exit {
        let (link, mut setup) = self.start.take().expect("a node runs once");
        let mut reloads = std::mem::take(&mut self.reloads).into_iter();
        if reloads.len() > 0 {
            setup.reload = Box::new(move || reloads.next().expect("another reload"));
        }
        let both = async { tokio::join!(run(link, setup), script(&mut self)) };
        let (exit, ()) = timeout(PATIENCE * 2, both)
            .await
            .expect("the bridge ends in time");
        exit.expect("the bridge starts")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    /// The next message to a shard of which `pick` makes something; others are dropped.
    async fn find<T>(&mut self, shard: usize, pick: impl Fn(FromBridge) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.shards.next(shard).await) {
                return found;
            }
        }
    }

    /// Answers a scrape for a shard with so many connections of app 0.
    fn answer(&self, shard: usize, token: u64, connected: u64) {
        let mut counters = ShardCounters::default();
        counters.app(AppIndex(0)).connected = connected;
        let snapshot = ShardSnapshot {
            counters,
            runtime: RuntimeCounters::default(),
            draining: None,
        };
        let snapshot = Box::new(snapshot);
        let shard = u16::try_from(shard).expect("few shards");
        self.shards
            .send(shard, ToBridge::Snapshot { token, snapshot });
    }

    async fn ask_answering_scrapes(&mut self, path: &str, accept: &str) -> Answer {
        let url = self.url(path);
        let mut request = std::pin::pin!(get(&url, accept));
        loop {
            let shards = self.shards.count();
            let messages: Vec<_> = (0..shards)
                .map(|shard| (shard, self.shards.told(shard)))
                .collect();
            for (shard, messages) in messages {
                for token in messages.iter().filter_map(token) {
                    self.answer(shard, token, 3);
                }
            }
            tokio::select! {
                answer = &mut request => return answer,
                () = self.shards.wait() => {}
            }
        }
    }
}

fn token(message: &FromBridge) -> Option<u64> {
    match message {
        FromBridge::Scrape { token } => Some(*token),
        _ => None,
    }
}

fn loaded(variables: &[(&str, &str)]) -> Result<Loaded, crate::config::ConfigErrors> {
    load(&sources(variables))
}

fn sources(variables: &[(&str, &str)]) -> Sources {
    let defaults = [
        ("SOCKUDO_DEFAULT_APP_ID", "app-id"),
        ("SOCKUDO_DEFAULT_APP_KEY", "app-key"),
        ("SOCKUDO_DEFAULT_APP_SECRET", "a-secret-of-the-tests"),
        ("METRICS_HOST", "127.0.0.1"),
        ("METRICS_PORT", "0"),
    ];
    let environment = defaults.iter().chain(variables);
    Sources {
        config: None,
        env_file: None,
        search: Vec::new(),
        environment: environment
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        flags: Vec::new(),
        lenient: false,
        allow_demo_app: true,
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

/// An HTTP answer.
struct Answer {
    code: u16,
    content_type: String,
    health: String,
    body: String,
}

async fn get(url: &str, accept: &str) -> Answer {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let request = client.get(url).timeout(PATIENCE).header("Accept", accept);
    let answer = request.send().await.expect("an answer");
    let header = |name: &str| {
        let value = answer
            .headers()
            .get(name)
            .map(|value| value.to_str().expect("ASCII"));
        value.unwrap_or_default().to_owned()
    };
    Answer {
        code: answer.status().as_u16(),
        content_type: header("content-type"),
        health: header("x-health-check"),
        body: answer.text().await.expect("a body"),
    }
}
