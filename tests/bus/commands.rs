//! Commands beside the bus: of one server, and of a cluster.

use std::time::{Duration, Instant};

use ::redis::{Pipeline, Value};
use sockudo::bridge::adapter::redis::RedisServer;
use sockudo::bridge::redis_commands::{
    ClusterServers, CommandFault, CommandsSetup, OneServer, Purpose, RedisCommands,
};
use sockudo::bridge::tls::{TlsFiles, TlsKeys};
use sockudo::config::Secret;
use sockudo::metrics::backend::Role;

use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::{DEADLINE, skip};

const PURPOSE: Purpose = Purpose {
    name: "test",
    role: Role::Cache,
    url: "cache.redis.url_override",
    nodes: "database.redis.cluster_nodes",
    driver: "cache.driver",
    commands: "GET and SET",
};

fn commands_of(redis: &Redis, password: Option<&str>) -> RedisCommands {
    let setup = OneServer {
        server: RedisServer {
            host: redis.address.ip().to_string(),
            port: redis.address.port(),
            uses_tls: false,
            database: 3,
            username: None,
            password: password.map(Secret::from),
        },
        sentinels: None,
        url: None,
        tls: TlsFiles::none(TlsKeys::REDIS),
    };
    RedisCommands::start(&CommandsSetup::One(setup), PURPOSE).expect("a setup")
}

fn set_and_get(key: &str, value: &str) -> Pipeline {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("SET").arg(key).arg(value);
    pipeline.cmd("GET").arg(key);
    pipeline
}

/// As often as it takes.
async fn answers(commands: &RedisCommands, key: &str) {
    let until = Instant::now() + DEADLINE;
    let asked = set_and_get(key, "v");
    let mut last = None;
    while Instant::now() < until {
        match commands.run(key, &asked, Duration::from_secs(2)).await {
            Ok(answers) if answers == [Value::Okay, Value::BulkString(b"v".to_vec())] => return,
            other => last = Some(other),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no answer for {key}: {last:?}");
}

#[tokio::test]
async fn a_server_that_goes_comes_back_and_nobody_waits_for_it() {
    let Some(mut redis) = Redis::start() else {
        skip::skip(
            "commands",
            "there is no redis-server; `scripts/test` installs it",
        );
        return;
    };
    let commands = commands_of(&redis, None);
    answers(&commands, "a").await;
    assert_eq!(commands.trouble(), None);
    redis.kill();
    let asked = set_and_get("a", "v");
    let until = Instant::now() + DEADLINE;
    let sentence = loop {
        match commands.run("a", &asked, Duration::from_secs(5)).await {
            Err(CommandFault::Down(sentence)) => break sentence,
            _ => assert!(Instant::now() < until, "it is not noticed"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(sentence.contains("Redis at"), "{sentence}");
    redis.start_again();
    answers(&commands, "a").await;
    // One that is stopped may have carried it out, and is found out by its silence.
    redis.signal("STOP");
    let stopped = commands.run("a", &asked, Duration::from_millis(300)).await;
    assert!(
        matches!(stopped, Err(CommandFault::Unknown(_))),
        "{stopped:?}"
    );
    let until = Instant::now() + DEADLINE;
    while commands.trouble().is_none() {
        assert!(Instant::now() < until, "the silence is not noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    redis.signal("CONT");
    answers(&commands, "a").await;
}

#[tokio::test]
async fn a_wrong_password_is_said_with_its_key() {
    let Some(redis) = Redis::start_with_password("right") else {
        skip::skip(
            "commands",
            "there is no redis-server; `scripts/test` installs it",
        );
        return;
    };
    let commands = commands_of(&redis, Some("wrong"));
    let asked = set_and_get("a", "v");
    let refused = commands.run("a", &asked, DEADLINE).await;
    let sentence = refused.expect_err("nobody may").to_string();
    assert!(sentence.contains("database.redis.password"), "{sentence}");
    assert!(!sentence.contains("wrong"), "{sentence}");
    answers(&commands_of(&redis, Some("right")), "a").await;
}

#[tokio::test]
async fn each_key_of_a_cluster_is_its_masters_also_when_its_slot_moves() {
    let Some(mut cluster) = RedisCluster::start() else {
        skip::skip(
            "commands",
            "there is no redis-server; `scripts/test` installs it",
        );
        return;
    };
    let url = |redis: &Redis| Secret::new(format!("redis://{}", redis.address));
    let servers = ClusterServers {
        nodes: cluster.masters.iter().take(1).map(url).collect(),
        username: None,
        password: None,
        uses_tls: false,
        tls: TlsFiles::none(TlsKeys::REDIS),
    };
    let commands =
        RedisCommands::start(&CommandsSetup::Cluster(servers), PURPOSE).expect("a setup");
    for number in 0..100 {
        answers(&commands, &format!("key-{number}")).await;
    }
    // `foo` is in slot 12182, which a third master has; nothing is in it yet.
    cluster.moves([12_182], 2, 0);
    answers(&commands, "foo").await;
    cluster.moves([12_182 + 1], 2, 1);
    for number in 0..100 {
        answers(&commands, &format!("key-{number}")).await;
    }
    assert_eq!(commands.trouble(), None);
}
