//! Whether a Redis keeps what it is given.
//!
//! Owns: `warn_of_loss`.
//! May depend on: `bridge::redis_commands`, the crate `redis`, tokio.
//! Invariants: it only reads; what this user may not ask is left out.

use std::time::Duration;

use redis::{Pipeline, Value};

use crate::bridge::redis_commands::RedisCommands;

/// Looks once the server answers, and says what a queue should not find.
pub async fn warn_of_loss(commands: RedisCommands, key: String) {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("INFO").arg("persistence");
    pipeline.cmd("INFO").arg("memory");
    let answers = loop {
        match commands.run(&key, &pipeline, WITHIN).await {
            Ok(answers) => break answers,
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    };
    let texts: Vec<String> = answers.into_iter().filter_map(text).collect();
    let says = |line: &str| texts.iter().any(|text| text.lines().any(|it| it == line));
    if says("aof_enabled:0") {
        tracing::warn!(
            "the webhook queue's Redis has appendonly off: when it is started again, webhooks that wait are \
             lost; set appendonly yes"
        );
    }
    let policy = texts.iter().flat_map(|text| text.lines());
    let policy = policy.filter_map(|line| line.strip_prefix("maxmemory_policy:"));
    for policy in policy.filter(|it| *it != "noeviction" && !it.starts_with("volatile")) {
        tracing::warn!(
            policy,
            "the webhook queue's Redis may evict webhooks that wait: set maxmemory-policy noeviction"
        );
    }
}

const WITHIN: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

fn text(answer: Value) -> Option<String> {
    redis::from_redis_value(answer.extract_error().ok()?).ok()
}
