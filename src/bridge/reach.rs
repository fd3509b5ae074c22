//! Whether what a configuration names outside of this host answers, asked once.
//!
//! Owns: `reach`, `Backend`; the drivers' names.
//! May depend on: `config`, the stores and buses of `bridge`, tokio.
//! Invariants: nothing is written there; every answer comes within `ANSWER_WITHIN`, what is closed behind it included, and
//! at once where another try would hear the same; no text holds a secret.

use std::{fmt, time::Duration};

use ::redis::cmd;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    adapter::{Bus, BusError},
    apps::store::{Foreseen, Preparation, Store},
    handover::adapter_name,
    kept_store,
    nodes::bus_setup,
    queue_setup, rate_store,
    redis_commands::RedisCommands,
};
use crate::config::{
    Config, Loaded,
    sections::{AppStoreDriver, QueueDriver},
};

/// What of a configuration is elsewhere.
#[derive(Clone, Debug)]
pub struct Backend {
    /// The section that names it.
    pub section: &'static str,
    pub driver: &'static str,
    /// What a start does there before it serves.
    pub start: Option<&'static str>,
    /// A sentence that names the key and what to do.
    pub answer: Result<(), String>,
}

/// A server that is slower is as good as gone, and who cannot be reached is tried again until then. Of all together.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// All that the configuration names, at once. Needs a tokio runtime with time and I/O.
pub async fn reach(loaded: &Loaded) -> Vec<Backend> {
    let config = &loaded.config;
    let until = Instant::now() + ANSWER_WITHIN;
    let (apps, bus, cache, rates, queue) = tokio::join!(
        apps(loaded, until),
        bus(config, until),
        redis("cache", kept_store::asked(config).start(), until),
        redis("rate_limiter", rate_store::asked(config).start(), until),
        queue(config, until),
    );
    [apps, bus, cache, rates, queue]
        .into_iter()
        .flatten()
        .collect()
}

async fn apps(loaded: &Loaded, until: Instant) -> Option<Backend> {
    let asked = match Store::start(&loaded.config) {
        Ok(None) => return None,
        Ok(Some(store)) => timeout_at(until, foreseen(loaded, store)).await,
        Err(error) => Ok(Err(text(error))),
    };
    let asked = asked.unwrap_or_else(|_| Err(silence()));
    Some(Backend {
        section: "app_manager",
        driver: store_name(loaded.config.app_manager.driver),
        start: asked.as_ref().ok().and_then(Foreseen::words),
        answer: asked.map(drop),
    })
}

/// What a start would do, and whether a node would be answered then.
async fn foreseen(loaded: &Loaded, store: Store) -> Result<Foreseen, String> {
    let foreseen = match Preparation::of(loaded) {
        Some(preparation) => preparation.foresee().await?,
        None => Foreseen::default(),
    };
    if !foreseen.makes_table {
        // It connects with the question, and waits for that.
        store.find_all(Vec::new()).await.map_err(text)?;
    }
    Ok(foreseen)
}

async fn bus(config: &Config, until: Instant) -> Option<Backend> {
    let setup = bus_setup(config, "check")?;
    let answer = match Bus::start(setup) {
        Ok(bus) => up(bus, until).await,
        Err(error) => Err(text(error)),
    };
    Some(Backend {
        section: "adapter",
        driver: adapter_name(config.adapter.driver),
        start: None,
        answer,
    })
}

async fn up(mut bus: Bus, until: Instant) -> Result<(), String> {
    let settled = async {
        while !bus.status().is_up() && bus.status().refusal().is_none() {
            // A trouble is no news: it is noted while they are waited for.
            _ = timeout(AGAIN_AFTER, bus.next()).await;
        }
    };
    _ = timeout_at(until, settled).await;
    let status = bus.status();
    let answer = match status.is_up() {
        true => Ok(()),
        false => {
            let trouble = status.refusal().map(str::to_owned);
            let trouble = trouble.or(status.events.trouble).or(status.state.trouble);
            Err(trouble.unwrap_or_else(silence))
        }
    };
    // Nothing is queued there.
    _ = timeout_at(until, bus.close()).await;
    answer
}

async fn redis(
    section: &'static str,
    commands: Result<Option<(RedisCommands, &'static str)>, BusError>,
    until: Instant,
) -> Option<Backend> {
    let (driver, answer) = match commands {
        Ok(None) => return None,
        Ok(Some((commands, driver))) => {
            let ask = async || pong(&commands).await.map_err(|it| (it, commands.refusal()));
            (driver, again(ask, until).await)
        }
        Err(error) => ("redis", Err(text(error))),
    };
    Some(Backend {
        section,
        driver,
        start: None,
        answer,
    })
}

async fn pong(commands: &RedisCommands) -> Result<(), String> {
    let ping = vec![(String::new(), cmd("PING"))];
    let answers = commands.run_each(ping, ANSWER_WITHIN).await;
    let answer = answers.into_iter().next();
    answer.map_or(Ok(()), |answer| answer.map(drop).map_err(text))
}

async fn queue(config: &Config, until: Instant) -> Option<Backend> {
    let mut start = None;
    let answer = match queue_setup::stores(config) {
        Ok(stores) if stores.is_empty() => return None,
        Ok(stores) => {
            let declined = timeout_at(until, queue_setup::declined(config, &stores)).await;
            let is_declined = declined.is_ok_and(|fault| fault.is_some());
            start = is_declined.then_some(DECLINED);
            let ask = async || {
                if is_declined {
                    return Ok(());
                }
                for store in &stores {
                    let reached = store.reach().await;
                    reached.map_err(|fault| (text(&fault), store.refusal(&fault)))?;
                }
                Ok(())
            };
            again(ask, until).await
        }
        Err(error) => Err(text(error)),
    };
    Some(Backend {
        section: "queue",
        driver: queue_name(config.queue.driver),
        start,
        answer,
    })
}

const DECLINED: &str = "this user may not keep webhooks there: nobody set queue.driver, so they wait in each node's memory";

fn silence() -> String {
    "does not answer".to_owned()
}

fn text(fault: impl fmt::Display) -> String {
    fault.to_string()
}

/// Asks until there is an answer, or the last fault: a connection may be on its way yet. Beside a fault stands
/// the refusal after which nobody need ask again.
async fn again(
    mut ask: impl AsyncFnMut() -> Result<(), (String, Option<String>)>,
    until: Instant,
) -> Result<(), String> {
    let mut last = silence();
    let asking = async {
        loop {
            match ask().await {
                Ok(()) => return Ok(()),
                Err((_, Some(refusal))) => return Err(refusal),
                Err((fault, None)) => last = fault,
            }
            sleep(AGAIN_AFTER).await;
        }
    };
    let asked = timeout_at(until, asking).await;
    asked.unwrap_or(Err(last))
}

/// As the configuration has it.
pub const fn store_name(driver: AppStoreDriver) -> &'static str {
    match driver {
        AppStoreDriver::Memory => "memory",
        AppStoreDriver::Mysql => "mysql",
        AppStoreDriver::Dynamodb => "dynamodb",
        AppStoreDriver::Pgsql => "pgsql",
        AppStoreDriver::Scylladb => "scylladb",
    }
}

/// As the configuration has it.
pub const fn queue_name(driver: QueueDriver) -> &'static str {
    match driver {
        QueueDriver::Memory => "memory",
        QueueDriver::Redis => "redis",
        QueueDriver::RedisCluster => "redis-cluster",
        QueueDriver::Sqs => "sqs",
        QueueDriver::None => "none",
    }
}
