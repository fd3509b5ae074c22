//! Each shared backend killed and brought back under load: what clients and the API notice, how long it takes, what is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::mariadb::MariaDb;
use crate::moto::Moto;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::support::DEADLINE;
use crate::support::config::{Config, merge};
use crate::support::server::Server;
use crate::support::skip::skip;
use crate::support::webhook::WebhookSink;

const CREDENTIALS: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "a-secret-of-aws"),
];
/// How long the load goes on before the kill, and once the node has said that the backend is gone.
const WELL: Duration = Duration::from_millis(500);
const GONE: Duration = Duration::from_secs(2);

/// A node under load, with one backend that dies.
struct Load {
    server: Server,
    app: &'static str,
    sink: WebhookSink,
    rounds: u64,
    refused: u64,
    /// Between two rounds, for what stands in for a backend and is slower than it.
    pause: Duration,
}

/// Which webhook each round causes: a channel that is occupied.
fn hook(sink: &WebhookSink) -> Value {
    json!([sink.entry(&["channel_occupied"])])
}

impl Load {
    fn on(server: Server, app: &'static str, sink: WebhookSink) -> Self {
        Self {
            server,
            app,
            sink,
            rounds: 0,
            refused: 0,
            pause: Duration::ZERO,
        }
    }

    fn health(&self) -> String {
        let up = self.server.gets("/up");
        assert_eq!(
            up.status, 200,
            "a node that was ready stays in its balancer"
        );
        up.header("x-health-check").unwrap_or_default().to_owned()
    }

    /// Runs the load until the condition holds; how long that took.
    fn runs_until(
        &mut self,
        what: &str,
        mut is_so: impl FnMut(&Self, Duration) -> bool,
    ) -> Duration {
        let began = Instant::now();
        let mut api = self.server.api_of(self.app);
        let mut alice = self.server.client_of(self.app, "alice");
        alice.subscribes("cache-news");
        let first = alice.next();
        let is_cache = matches!(first["event"].as_str(), Some("n" | "pusher:cache_miss"));
        assert!(is_cache, "{first}");
        while !is_so(self, began.elapsed()) {
            assert!(began.elapsed() < 4 * DEADLINE, "{what} under load");
            let number = self.rounds.to_string();
            let event = json!({"name": "n", "channel": "cache-news", "data": number});
            let reply = api.post("/events", event.to_string().as_bytes());
            self.refused += u64::from(reply.status != 200);
            if reply.status == 200 {
                alice.expects_frame(json!({"event": "n", "channel": "cache-news", "data": number}));
            }
            let mut bob = self.server.client_of(self.app, "bob");
            bob.subscribes(&format!("room-{number}"));
            bob.subscribes_to_empty_cache(&format!("cache-room-{number}"));
            bob.expects_pong();
            self.rounds += 1;
            std::thread::sleep(self.pause);
        }
        alice.expects_pong();
        began.elapsed()
    }

    /// Kills the backend and starts it again under load; prints a row of figures.
    fn survives<B>(
        mut self,
        name: &str,
        mut backend: B,
        kill: fn(&mut B),
        start: fn(&mut B, &Server),
    ) {
        self.runs_until("a load", |_, passed| passed > WELL);
        kill(&mut backend);
        let told = self.runs_until("the death", |load, _| load.health() == "DEGRADED");
        self.runs_until("a load", |_, passed| passed > GONE);
        start(&mut backend, &self.server);
        let recovered = self.runs_until("the recovery", |load, _| load.health() == "OK");
        self.runs_until("a load", |_, passed| passed > WELL);
        let rooms =
            (0..self.rounds).flat_map(|it| [format!("room-{it}"), format!("cache-room-{it}")]);
        let mut missing: BTreeSet<String> = rooms.collect();
        missing.insert("cache-news".to_owned());
        let mut lost = missing.len();
        while lost > 0 {
            let Some(event) = self.sink.next_within(4 * DEADLINE) else {
                break;
            };
            missing.remove(event["channel"].as_str().unwrap_or_default());
            lost = missing.len();
        }
        let (rounds, refused) = (self.rounds, self.refused);
        println!(
            "{name}: {rounds} publishes and connections, {refused} refused, told after {told:?}, \
             well {recovered:?} after its start, {lost} webhooks lost"
        );
        assert_eq!((refused, lost), (0, 0), "{name}: {missing:?}");
    }
}

fn in_redis(redis: &Redis, more: Value) -> Config {
    let (host, port) = (redis.address.ip().to_string(), redis.address.port());
    let mut keys = json!({"database": {"redis": {"host": host, "port": port}}});
    merge(&mut keys, more);
    Config::new().with(keys)
}

fn redis_dies(name: &str, keys: Value) {
    // It keeps what it has: a queue that forgets is another test's.
    let Some(redis) = Redis::start_with_arguments(None, &["--appendonly", "yes"]) else {
        return skip(name, "there is no redis-server; `scripts/test` installs it");
    };
    let sink = WebhookSink::start();
    let config = in_redis(&redis, keys).with_app(json!({"webhooks": hook(&sink)}));
    let load = Load::on(Server::start(&config, 2), "app", sink);
    load.survives(name, redis, Redis::kill, |redis, _| redis.start_again());
}

#[test]
fn a_cache_in_redis_dies_under_load() {
    redis_dies("cache in Redis", json!({"cache": {"driver": "redis"}}));
}

#[test]
fn rates_in_redis_die_under_load() {
    let limit = json!({"max_requests": 1_000_000, "window_seconds": 60});
    let keys = json!({"rate_limiter": {
        "enabled": true, "driver": "redis", "api_rate_limit": limit, "websocket_rate_limit": limit,
    }});
    redis_dies("rates in Redis", keys);
}

#[test]
fn a_queue_in_redis_dies_under_load() {
    redis_dies("queue in Redis", json!({"queue": {"driver": "redis"}}));
}

#[test]
fn apps_in_mariadb_die_under_load() {
    let Some(database) = MariaDb::start() else {
        return skip(
            "apps_in_mariadb_die",
            "there is no MariaDB; `scripts/test` installs it",
        );
    };
    let sink = WebhookSink::start();
    let hooks = hook(&sink);
    database.run(&[
        "CREATE DATABASE apps",
        "CREATE TABLE apps.applications (id VARCHAR(99) PRIMARY KEY, `key` VARCHAR(99), secret VARCHAR(99), webhooks JSON)",
        &format!("INSERT INTO apps.applications VALUES ('shop-id', 'shop-key', 'shop-secret', '{hooks}')"),
        "CREATE USER reader IDENTIFIED BY 'wanted'",
        "GRANT SELECT ON apps.applications TO reader",
    ]);
    let config = Config::new().with(json!({
        "app_manager": {"driver": "mysql", "array": {"apps": []}, "cache": {"ttl": 1}},
        "database": {"mysql": {
            "host": database.address.ip().to_string(), "port": database.address.port(),
            "username": "reader", "password": "wanted", "database": "apps", "timeout_ms": 1_000,
        }},
    }));
    let load = Load::on(Server::start(&config, 2), "shop", sink);
    load.survives("apps in MariaDB", database, MariaDb::kill, |database, _| {
        database.start_again()
    });
}

#[test]
fn apps_in_postgresql_die_under_load() {
    let Some(database) = Postgres::start() else {
        return skip(
            "apps_in_postgresql_die",
            "there is no postgres; `scripts/test` installs it",
        );
    };
    let sink = WebhookSink::start();
    let hooks = hook(&sink);
    database.run(&[
        "CREATE TABLE applications (id TEXT PRIMARY KEY, key TEXT, secret TEXT, webhooks JSONB)",
        &format!(
            "INSERT INTO applications VALUES ('shop-id', 'shop-key', 'shop-secret', '{hooks}')"
        ),
        "CREATE USER reader PASSWORD 'wanted'",
        "GRANT SELECT ON applications TO reader",
    ]);
    let config = Config::new().with(json!({
        "app_manager": {"driver": "pgsql", "array": {"apps": []}, "cache": {"ttl": 1}},
        "database": {"postgres": {
            "host": database.address.ip().to_string(), "port": database.address.port(),
            "username": "reader", "password": "wanted", "timeout_ms": 1_000,
        }},
    }));
    let load = Load::on(Server::start(&config, 2), "shop", sink);
    load.survives(
        "apps in PostgreSQL",
        database,
        Postgres::kill,
        |database, _| database.start_again(),
    );
}

/// moto keeps nothing over its death.
fn is_filled(server: &Server, hooks: &str) {
    let hooks = format!("webhooks={hooks}");
    for words in [
        &["apps", "init"][..],
        &[
            "apps",
            "add",
            "shop-id",
            "--key",
            "shop-key",
            "secret=shop-secret",
            &hooks,
        ],
    ] {
        let output = server.has_run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
}

#[test]
fn apps_in_dynamodb_die_under_load() {
    let Some(moto) = Moto::start() else {
        return skip(
            "apps_in_dynamodb_die",
            "there is no moto; `scripts/test` installs it",
        );
    };
    let sink = WebhookSink::start();
    let hooks = hook(&sink).to_string();
    let config = Config::new()
        .with(json!({
            "app_manager": {"driver": "dynamodb", "array": {"apps": []}, "cache": {"ttl": 1}},
            "database": {"dynamodb": {"endpoint_url": moto.url()}},
        }))
        .with_environment(&CREDENTIALS);
    let server = Server::spawn(&config, 2);
    is_filled(&server, &hooks);
    let load = Load::on(server, "shop", sink);
    crate::support::eventually("the table", || {
        let up = load.server.gets("/up");
        (up.header("x-health-check") == Some("OK")).then_some(())
    });
    let backend = (moto, hooks);
    let again = |(moto, hooks): &mut (Moto, String), server: &Server| {
        moto.start_again();
        is_filled(server, hooks);
    };
    load.survives(
        "apps in DynamoDB (moto)",
        backend,
        |(moto, _)| moto.kill(),
        again,
    );
}

#[test]
fn a_queue_in_sqs_that_hangs_under_load_loses_nothing() {
    let Some(moto) = Moto::start() else {
        return skip(
            "a_queue_in_sqs_that_hangs",
            "there is no moto; `scripts/test` installs it",
        );
    };
    let sink = WebhookSink::start();
    let config = Config::new()
        .with(json!({"queue": {"driver": "sqs", "sqs": {
            "endpoint_url": moto.url(), "wait_time_seconds": 1, "visibility_timeout": 4,
        }}}))
        .with_app(json!({"webhooks": hook(&sink)}))
        .with_environment(&CREDENTIALS);
    let mut load = Load::on(Server::start(&config, 2), "app", sink);
    load.pause = Duration::from_millis(25);
    // moto has no disk: what it had when it was killed would be gone, as it never is in SQS.
    load.survives(
        "queue in SQS (moto, stopped)",
        moto,
        |moto| moto.signal("STOP"),
        |moto, _| moto.signal("CONT"),
    );
}
