//! The bridge on the real runtime, with an application that does only what the bridge needs.
//!
//! Owns: `Echo`, whose connections talk to the bridge line by line.
//! May depend on: `sockudo::bridge`, `shards`.
//! Invariants: every wait has a deadline; nothing is left running.

#![expect(clippy::disallowed_methods, reason = "each wait has a deadline")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::mpsc,
    time::{Duration, Instant},
};

use shards::{Application, BridgeLink, Closed, Peer, ShardId, Slot, TurnOf, application::Waiter};
use sockudo::{
    bridge::{
        admin,
        apps::AppTable,
        handover::Legacy,
        message::{FromBridge, ToBridge},
        notify::Supervisor,
        run::{Exit, Setup, run},
        signals,
        webhook_event::{WebhookEvent, WebhookKind},
    },
    config::{Loaded, Sources, load},
    metrics::{
        counters::{ShardCounters, ShardSnapshot},
        sample::Build,
    },
    protocol::app::AppIndex,
};

#[test]
fn a_node_scrapes_reloads_delivers_webhooks_and_drains_on_sigterm() {
    let hook = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hook_address = hook.local_addr().expect("bound");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.json");
    std::fs::write(&file, configuration(hook_address, &["a"])).expect("a file");
    let node = Node::start(&file);

    // Two connections, on whatever shards the kernel chose.
    let mut connections: Vec<TcpStream> = (0..2).map(|_| node.connect()).collect();
    for (index, connection) in connections.iter_mut().enumerate() {
        writeln!(connection, "occupied channel-{index}").expect("open");
        let mut usage = String::new();
        writeln!(connection, "usage").expect("open");
        BufReader::new(&mut *connection)
            .read_line(&mut usage)
            .expect("an answer");
        assert!(usage.starts_with("{\"memory\":{\"free\":"), "{usage}");
    }

    let mut delivered = Vec::new();
    while delivered.len() < 2 {
        let body = receive_webhook(&hook);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let events = body["events"].as_array().expect("a list").clone();
        delivered.extend(
            events
                .iter()
                .map(|event| event["channel"].as_str().map(str::to_owned)),
        );
    }
    delivered.sort();
    assert_eq!(
        delivered,
        ["channel-0", "channel-1"].map(|channel| Some(channel.to_owned()))
    );

    let metrics = node.until("/metrics", |body| {
        body.contains("event=\"channel_occupied\",node=\"n1\",result=\"ok\"} 2")
    });
    let port = node.admin.port();
    let connected = format!("sockudo_connected{{app_id=\"a\",port=\"{port}\"}} 2");
    assert!(metrics.contains(&connected), "{metrics}");
    assert!(
        metrics.contains("sockudo_shard_connections{node=\"n1\",shard=\"1\"}"),
        "{metrics}"
    );

    std::fs::write(&file, configuration(hook_address, &["a", "b"])).expect("a file");
    raise(libc::SIGHUP);
    node.until("/metrics", |body| {
        body.contains("sockudo_connected{app_id=\"b\"")
    });
    assert!(
        node.get("/up").starts_with("HTTP/1.1 200"),
        "{}",
        node.get("/up")
    );

    raise(libc::SIGTERM);
    for connection in &mut connections {
        let mut rest = String::new();
        connection
            .read_to_string(&mut rest)
            .expect("closed in order");
        assert_eq!(rest, "bye\n");
    }
    let exit = node
        .ended
        .recv_timeout(PATIENCE)
        .expect("the node ends in time");
    assert_eq!(exit, Exit::Drained);
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A node of two shards on its own threads.
struct Node {
    public: SocketAddr,
    admin: SocketAddr,
    ended: mpsc::Receiver<Exit>,
}

impl Node {
    fn start(file: &std::path::Path) -> Self {
        let sources = sources(file.to_owned());
        let loaded = load(&sources).expect("a valid configuration");
        let listener = admin::bind(&loaded.config.metrics)
            .expect("a port")
            .expect("enabled");
        let admin = listener.local_addr().expect("bound");
        let (tell_address, address) = mpsc::channel();
        let (tell_end, ended) = mpsc::channel();
        let start = move |link: BridgeLink<Echo>| async move {
            tell_address
                .send(link.addresses()[0])
                .expect("the test waits");
            let setup = setup(loaded, listener, sources);
            run(link, setup).await.expect("the bridge starts")
        };
        std::thread::spawn(move || {
            let exit = shards::run(runtime(), |_| Echo::default(), start).expect("a fit host");
            _ = tell_end.send(exit);
        });
        let public = address.recv_timeout(PATIENCE).expect("a node that starts");
        Self {
            public,
            admin,
            ended,
        }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.public).expect("the node listens");
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket");
        connection
    }

    /// The whole answer of the admin listener.
    fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(self.admin).expect("the admin port listens");
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket");
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        .expect("open");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Asks again until the answer is as wanted.
    fn until(&self, path: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if is_wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} stays {answer}");
        }
    }
}

fn setup(loaded: Loaded, admin: TcpListener, sources: Sources) -> Setup {
    Setup {
        apps: AppTable::build(&loaded.config.app_manager.apps, None),
        store: None,
        loaded,
        node_id: "n1".to_owned(),
        build: Build {
            version: "0.1.0",
            commit: "",
            features: "",
        },
        metrics: Some(admin),
        admin: None,
        signals: signals::listen().expect("signal handlers"),
        reload: Box::new(move || load(&sources)),
        tls: None,
        supervisor: Supervisor::default(),
        legacy: Legacy::default(),
        memory_root: "/".into(),
    }
}

fn runtime() -> shards::Config {
    shards::Config {
        shards: Some(2),
        pin: false,
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        ..shards::Config::default()
    }
}

fn sources(file: PathBuf) -> Sources {
    let variables = [("METRICS_HOST", "127.0.0.1"), ("METRICS_PORT", "0")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Sources {
        config: Some(file),
        env_file: None,
        search: Vec::new(),
        environment: BTreeMap::from(variables),
        flags: Vec::new(),
        lenient: false,
        allow_demo_app: true,
    }
}

fn configuration(hook: SocketAddr, apps: &[&str]) -> String {
    let apps: Vec<serde_json::Value> = apps
        .iter()
        .map(|id| {
            serde_json::json!({
                "id": id,
                "key": format!("key-{id}"),
                "secret": "a-secret-of-the-tests",
                "webhooks": [{
                    "url": format!("http://{hook}/"),
                    "event_types": ["channel_occupied"],
                }],
            })
        })
        .collect();
    let drain = serde_json::json!({ "deadline_s": 5 });
    let apps = serde_json::json!({ "array": { "apps": apps } });
    serde_json::json!({ "app_manager": apps, "drain": drain }).to_string()
}

/// Accepts one request, answers 200, and returns its body.
fn receive_webhook(listener: &TcpListener) -> String {
    let (stream, _) = listener.accept().expect("a webhook");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    (&stream)
        .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .expect("open");
    stream.shutdown(Shutdown::Write).expect("open");
    String::from_utf8(body).expect("UTF-8")
}

fn raise(signal: libc::c_int) {
    // SAFETY: kill takes plain numbers; the process is ours and has handlers for the signal.
    let result = unsafe { libc::kill(libc::getpid(), signal) };
    assert_eq!(result, 0, "a signal to ourselves");
}

/// Each line is a command: `occupied CHANNEL`, `usage`.
#[derive(Default)]
struct Echo {
    slots: Vec<Slot>,
    /// By slot index: bytes after the last line's end.
    unfinished: BTreeMap<u32, Vec<u8>>,
    counters: ShardCounters,
    is_draining: bool,
}

impl Echo {
    fn snapshot(&mut self) -> ShardCounters {
        let open = self.slots.len() as u64;
        self.counters.app(AppIndex(0)).connected = open;
        self.counters.websockets = open;
        self.counters.clone()
    }

    fn command<T: TurnOf<Self>>(&self, turn: &mut T, slot: Slot, line: &str) {
        let message = match line.strip_prefix("occupied ") {
            Some(channel) => ToBridge::Webhook(WebhookEvent {
                app: AppIndex(0),
                time_ms: turn.unix_ms(),
                channel: channel.into(),
                kind: WebhookKind::ChannelOccupied,
            }),
            None => ToBridge::Usage {
                waiter: Waiter {
                    shard: ShardId(0),
                    slot,
                    operation: 0,
                },
            },
        };
        turn.to_bridge(message).expect("an empty queue");
    }
}

impl Application for Echo {
    type Message = ();
    type ToBridge = ToBridge;
    type FromBridge = FromBridge;

    fn on_started<T: TurnOf<Self>>(&mut self, _: &mut T) {}

    fn on_accepted<T: TurnOf<Self>>(&mut self, _: &mut T, slot: Slot, _: Peer) {
        self.slots.push(slot);
    }

    fn on_received<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, bytes: &mut [u8]) {
        let unfinished = self.unfinished.entry(slot.index).or_default();
        unfinished.extend_from_slice(bytes);
        let end = unfinished
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let lines: Vec<u8> = unfinished.drain(..end).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            self.command(turn, slot, line);
        }
    }

    fn on_closed<T: TurnOf<Self>>(&mut self, turn: &mut T, slot: Slot, _: Closed) {
        self.slots.retain(|other| *other != slot);
        self.unfinished.remove(&slot.index);
        if self.is_draining && self.slots.is_empty() {
            turn.to_bridge(ToBridge::Drained).expect("an empty queue");
        }
    }

    fn on_message<T: TurnOf<Self>>(&mut self, _: &mut T, _: ShardId, (): ()) {}

    fn on_bridge_message<T: TurnOf<Self>>(&mut self, turn: &mut T, message: FromBridge) {
        match message {
            FromBridge::Scrape { token } => {
                let counters = self.snapshot();
                let runtime = turn.runtime_counters();
                let snapshot = Box::new(ShardSnapshot {
                    counters,
                    runtime,
                    draining: None,
                });
                turn.to_bridge(ToBridge::Snapshot { token, snapshot })
                    .expect("an empty queue");
            }
            FromBridge::Largest { token } => {
                let channels = Vec::new();
                turn.to_bridge(ToBridge::Largest { token, channels })
                    .expect("an empty queue");
            }
            FromBridge::Usage { waiter, body } => {
                let line = format!("{body}\n");
                turn.send(waiter.slot, line.as_bytes());
            }
            FromBridge::Drain { .. } => {
                self.is_draining = true;
                for slot in self.slots.clone() {
                    turn.send(slot, b"bye\n");
                    turn.close_after_flush(slot);
                }
                if self.slots.is_empty() {
                    turn.to_bridge(ToBridge::Drained).expect("an empty queue");
                }
            }
            FromBridge::Settle => turn.to_bridge(ToBridge::Settled).expect("an empty queue"),
            FromBridge::Config(_)
            | FromBridge::Tls(_)
            | FromBridge::Shed { .. }
            | FromBridge::Apps { .. }
            | FromBridge::AppsOpen { .. }
            | FromBridge::ForgetMissing
            | FromBridge::AppFound { .. }
            | FromBridge::Health(_)
            | FromBridge::Event(_)
            | FromBridge::State(_)
            | FromBridge::Spent(_)
            | FromBridge::KeptAsk(_)
            | FromBridge::Found(_)
            | FromBridge::RateTaken(_)
            | FromBridge::Kept(_)
            | FromBridge::Owned(_)
            | FromBridge::Terminate(_)
            | FromBridge::TopicsLive(_)
            | FromBridge::TopicsLost
            | FromBridge::Export { .. }
            | FromBridge::ExportMore { .. }
            | FromBridge::ExportConnections
            | FromBridge::Import(_)
            | FromBridge::TakenOver { .. } => {}
        }
    }

    fn on_timer<T: TurnOf<Self>>(&mut self, _: &mut T, _: Slot) {}

    fn on_tick<T: TurnOf<Self>>(&mut self, _: &mut T) {}

    fn on_turn_end<T: TurnOf<Self>>(&mut self, _: &mut T) -> bool {
        false
    }
}
