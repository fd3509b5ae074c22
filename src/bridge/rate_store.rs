//! Rates that nodes share, counted in a Redis.
//!
//! Owns: `RateStore`, the script that counts.
//! May depend on: `bridge::{adapter, apps, log_limit, message, redis_commands, run}`, `config`, `metrics`, tokio.
//! Invariants: who asks is answered within `ANSWER_WITHIN`, by a count or by nothing; all that was asked
//! in one turn of the bridge goes out together; that it does not count is believed no longer than it is true, whoever
//! asks.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock and hands it on"
)]

use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use shards::application::{Millis, ShardId};
use tokio::task::JoinSet;

use super::{
    adapter::BusError,
    apps::AppTable,
    link::ShardLink,
    log_limit::LogLimit,
    message::{FromBridge, RateGrant, RateOf, RateQuestion, RateTaken},
    redis_cluster_setup::cluster_redis,
    redis_commands::{Asked, CommandFault, Purpose, RedisCommands},
    redis_setup::one_redis,
    run::Bridge,
};
use crate::{
    config::{Config, sections::RateLimiterDriver},
    metrics::{
        backend::{BackendCounts, Operation, Role},
        sample::BackendSample,
    },
};

/// The rates of all nodes.
#[derive(Debug)]
pub(super) struct RateStore {
    commands: RedisCommands,
    prefix: String,
    backend: &'static str,
    /// Since the last load.
    asked: Vec<(ShardId, RateQuestion)>,
    loads: JoinSet<Reached>,
    /// The last question was not counted.
    trouble: Option<Trouble>,
    late: LogLimit,
    started: Instant,
}

#[derive(Debug)]
struct Trouble {
    why: Why,
    /// What was not counted.
    question: RateQuestion,
    /// When it is tried again although nobody asks; `None`: to be set, or it is on its way.
    due: Option<Instant>,
    is_tried: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Why {
    /// By an error of this code, told once.
    Refused(String),
    /// There was no answer in time.
    Late,
}

type Load = Vec<(ShardId, RateQuestion, Result<Value, CommandFault>)>;

/// What was heard of the server.
pub(super) enum Reached {
    Load(Load),
    /// Of what nobody had asked.
    Tried(Vec<Result<Value, CommandFault>>),
}

/// What is counted, by a cell rate: `limit` at once, and as many again over the window, evenly. Of
/// what is wanted the part is given that is there; more than the limit is given when all of it is there, and owed. One
/// time per run, since it moves on. What a longer window left there is cut to what this one can leave.
///
/// KEYS\[1\]: when all of the limit will be there again, in microseconds. ARGV: the limit, the window in
/// microseconds, what is wanted, and how far ahead of now that time may be. Answers what is given, what is left, and
/// milliseconds until all is there and until one is.
const SCRIPT: &str = "\
local t = redis.call('TIME') \
local now = t[1] * 1000000 + t[2] \
local limit, window, want, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]) \
local kept = tonumber(redis.call('GET', KEYS[1]) or '0') or 0 \
if kept ~= kept then kept = 0 end \
local full = math.min(math.max(kept, now), now + most) \
local there = math.max(0, math.floor((now + window - full) * limit / window + 0.000001)) \
local given = math.min(want, there) \
if want > limit then given = there >= limit and want or 0 end \
full = math.min(full + given * window / limit, now + most) \
if given > 0 or kept > now + most then \
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.max(1, math.ceil((full - now) / 1000))) \
end \
local wait = math.max(0, math.ceil((full + window / limit - window - now) / 1000)) \
return {given, math.max(0, there - given), math.ceil((full - now) / 1000), wait}";

/// The server of the limiter; of nobody where each node counts for itself.
pub(super) fn asked(config: &Config) -> Asked {
    let limiter = &config.rate_limiter;
    let url = limiter.redis.url_override.as_ref();
    let setup = match limiter.driver {
        _ if !limiter.is_on() => None,
        RateLimiterDriver::Redis => Some(one_redis(config, url)),
        RateLimiterDriver::RedisCluster => Some(cluster_redis(config, &[])),
        RateLimiterDriver::Memory | RateLimiterDriver::None => None,
    };
    Asked {
        setup,
        purpose: PURPOSE,
    }
}

impl RateStore {
    /// `None` where each node counts for itself.
    pub(super) fn start(config: &Config) -> Result<Option<Self>, BusError> {
        let Some((commands, backend)) = asked(config).start()? else {
            return Ok(None);
        };
        let prefix = &config.rate_limiter.redis.prefix;
        Ok(Some(Self::new(commands, prefix, backend)))
    }

    fn new(commands: RedisCommands, prefix: &str, backend: &'static str) -> Self {
        Self {
            commands,
            prefix: prefix.to_owned(),
            backend,
            asked: Vec::new(),
            loads: JoinSet::new(),
            trouble: None,
            late: LogLimit::once_a_minute(),
            started: Instant::now(),
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.commands.trouble().is_some() || !self.is_counting()
    }

    /// As far as the server was reached.
    const fn is_counting(&self) -> bool {
        self.trouble.is_none()
    }

    pub(super) fn backend(&self) -> BackendSample {
        BackendSample {
            backend: self.backend,
            role: "rate_limiter",
            is_up: !self.is_failing(),
        }
    }

    pub(super) fn backend_counts(&self) -> BackendCounts {
        self.commands.meter().counts()
    }

    /// The prefix of Sockudo 2.9 with names of our own, since the values differ.
    fn key(&self, apps: &AppTable, of: RateOf) -> Option<String> {
        let prefix = &self.prefix;
        Some(match of {
            RateOf::Api(address) => format!("{prefix}:cell:api:{address}"),
            RateOf::Upgrade(address) => format!("{prefix}:cell:ws:{address}"),
            RateOf::BackendEvents(app) => {
                format!("{prefix}:cell:events:{}", apps.get(app)?.app.id)
            }
            RateOf::Reads(app) => format!("{prefix}:cell:reads:{}", apps.get(app)?.app.id),
        })
    }

    /// Sends what was asked; gives back what cannot be.
    fn flush(&mut self, apps: &AppTable) -> Vec<(ShardId, RateQuestion)> {
        let mut load = std::mem::take(&mut self.asked);
        // What nobody asked may be under way beside them.
        if self.loads.len() >= LOADS_MAX {
            return load;
        }
        let mut refused = Vec::new();
        let mut commands = Vec::with_capacity(load.len());
        load.retain(|(shard, question)| match self.key(apps, question.of) {
            Some(key) => {
                commands.push((key.clone(), command(&key, question)));
                true
            }
            None => {
                refused.push((*shard, *question));
                false
            }
        });
        if !load.is_empty() {
            let asked = self.commands.clone();
            let since = tokio::time::Instant::now();
            self.loads.spawn(async move {
                let answers = asked.run_each(commands, ANSWER_WITHIN).await;
                let taken = since.elapsed();
                let meter = asked.meter();
                load.iter()
                    .for_each(|_| meter.observe(Operation::Take, taken));
                let said = load.into_iter().zip(answers);
                let said = said.map(|((shard, question), answer)| (shard, question, answer));
                Reached::Load(said.collect())
            });
        }
        refused
    }

    /// The next answers. Nothing is lost when the future is dropped.
    pub(super) async fn reached(&mut self) -> Reached {
        loop {
            match self.loads.join_next().await {
                Some(Ok(reached)) => return reached,
                // Nobody is answered then; but nothing there can panic.
                Some(Err(error)) => tracing::error!(%error, "a question of rates broke"),
                None => std::future::pending().await,
            }
        }
    }

    /// When something is to be tried that nobody asks for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.trouble.as_ref()?.due
    }

    /// A server that did not count may count again, and nobody might ask for long.
    pub(super) fn tick(&mut self, now: Instant, apps: &AppTable) {
        let Some(trouble) = self.trouble.as_mut().filter(|it| !it.is_tried) else {
            return;
        };
        let due = *trouble.due.get_or_insert(now + TRIED_AFTER);
        if due > now {
            return;
        }
        (trouble.due, trouble.is_tried) = (None, true);
        // Nothing is taken of what was not counted. What is written is a name of nobody.
        let asked = RateQuestion {
            count: 0,
            ..trouble.question
        };
        let own = RateQuestion {
            count: 1,
            limit: 1,
            window_ms: 1,
            ..asked
        };
        let own_key = format!("{}:cell:probe", self.prefix);
        let asked = self.key(apps, asked.of).map(|key| (key, asked));
        let all = asked.into_iter().chain([(own_key, own)]);
        let load = all.map(|(key, it)| (key.clone(), command(&key, &it)));
        let (commands, load) = (self.commands.clone(), load.collect());
        self.loads
            .spawn(async move { Reached::Tried(commands.run_each(load, ANSWER_WITHIN).await) });
    }

    fn tried(&mut self, answers: &[Result<Value, CommandFault>]) {
        if answers.iter().all(|it| matches!(it, Ok(Value::Array(_)))) {
            self.counts_again();
        } else if let Some(trouble) = &mut self.trouble {
            trouble.is_tried = false;
        }
    }

    fn counts_again(&mut self) {
        match self.trouble.take().map(|it| it.why) {
            Some(Why::Refused(_)) => tracing::info!("the rate limiter's Redis counts again"),
            // Of one that is late again and again a line a minute is enough.
            Some(Why::Late) => tracing::debug!("the rate limiter's Redis answers in time again"),
            None => {}
        }
    }

    fn refused(&mut self, code: &str, question: RateQuestion) {
        let why = Why::Refused(code.to_owned());
        if self.trouble.as_ref().is_none_or(|it| it.why != why) {
            let prefix = &self.prefix;
            tracing::warn!(code, prefix, "the rate limiter's Redis refuses to count");
        }
        self.note_trouble(why, question);
    }

    /// A server that is slow is not gone: nobody else says so.
    fn note_late(&mut self, now: Instant, error: &str, question: RateQuestion) {
        let since = now.saturating_duration_since(self.started).as_millis();
        let since = Millis(u64::try_from(since).unwrap_or(u64::MAX));
        if let Some(suppressed) = self.late.allow(since) {
            let (role, backend, key) = ("rate_limiter", self.backend, "rate_limiter.driver");
            let within_ms = ANSWER_WITHIN.as_millis();
            tracing::warn!(
                role,
                backend,
                key,
                within_ms,
                suppressed,
                error,
                "the rate limiter's Redis answers too late: rate_limiter.on_error decides"
            );
        }
        self.note_trouble(Why::Late, question);
    }

    fn note_trouble(&mut self, why: Why, question: RateQuestion) {
        let is_tried = self.trouble.as_ref().is_some_and(|it| it.is_tried);
        self.trouble = Some(Trouble {
            why,
            question,
            due: None,
            is_tried,
        });
    }

    fn read(
        &mut self,
        now: Instant,
        question: RateQuestion,
        answer: Result<Value, CommandFault>,
    ) -> Option<RateGrant> {
        let numbers = match answer {
            Ok(Value::Array(numbers)) => numbers,
            Ok(Value::ServerError(error)) => {
                self.refused(error.code(), question);
                return None;
            }
            Err(CommandFault::Unknown(error)) => {
                self.note_late(now, &error, question);
                return None;
            }
            // What is gone says so itself.
            Ok(_) | Err(CommandFault::Down(_)) => return None,
        };
        let number = |index: usize| match numbers.get(index) {
            Some(Value::Int(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let grant = RateGrant {
            granted: u32::try_from(number(0)?).ok()?,
            remaining: u32::try_from(number(1)?).ok()?,
            whole_in_ms: number(2)?,
            wait_ms: number(3)?,
        };
        self.counts_again();
        Some(grant)
    }
}

fn command(key: &str, question: &RateQuestion) -> Cmd {
    let mut command = redis::cmd("EVAL");
    let window_us = question.window_ms.saturating_mul(1_000);
    let debt_us = question.debt_ms_max.saturating_mul(1_000);
    command.arg(SCRIPT).arg(1).arg(key);
    command
        .arg(question.limit)
        .arg(window_us)
        .arg(question.count)
        .arg(window_us.saturating_add(debt_us));
    command
}

impl<L: ShardLink> Bridge<L> {
    /// A shard wants some of a rate.
    pub(super) fn ask_rate(&mut self, shard: ShardId, question: RateQuestion) {
        match &mut self.rate_store {
            Some(store) => store.asked.push((shard, question)),
            None => self.tell_rate(shard, question, None),
        }
    }

    /// What was asked since the last time goes out.
    pub(super) fn flush_rates(&mut self) {
        let Some(store) = self.rate_store.as_mut().filter(|it| !it.asked.is_empty()) else {
            return;
        };
        for (shard, question) in store.flush(&self.apps) {
            self.tell_rate(shard, question, None);
        }
    }

    pub(super) fn reached_rates(&mut self, reached: Reached) {
        let load = match (reached, &mut self.rate_store) {
            (Reached::Load(load), _) => load,
            (Reached::Tried(answers), Some(store)) => return store.tried(&answers),
            (Reached::Tried(_), None) => return,
        };
        let now = Instant::now();
        for (shard, question, answer) in load {
            let Some(store) = &mut self.rate_store else {
                return;
            };
            let grant = store.read(now, question, answer);
            self.tell_rate(shard, question, grant);
        }
    }

    fn tell_rate(&mut self, shard: ShardId, question: RateQuestion, grant: Option<RateGrant>) {
        let taken = Box::new(RateTaken { question, grant });
        let message = FromBridge::RateTaken(taken);
        self.outbox.send(&self.link, shard, message);
    }
}

const PURPOSE: Purpose = Purpose {
    name: "rate limiter",
    role: Role::RateLimiter,
    url: "rate_limiter.redis.url_override",
    nodes: "database.redis.cluster_nodes",
    driver: "rate_limiter.driver",
    commands: "HELLO, SELECT, PING, EVAL, TIME, GET and SET",
};

/// Who waits is a request, which `rate_limiter.on_error` decides about afterwards.
const ANSWER_WITHIN: Duration = Duration::from_millis(250);
/// After trouble, as long as nobody asks.
const TRIED_AFTER: Duration = Duration::from_secs(1);
/// Loads on their way; each has all that was asked in one turn.
const LOADS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::bridge::redis_commands::fixture::to_nobody;

    const QUESTION: RateQuestion = RateQuestion {
        of: RateOf::Api(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        limit: 40,
        window_ms: 60_000,
        debt_ms_max: 0,
        count: 1,
        least: 1,
    };

    /// Its answers are made by hand.
    fn store() -> RateStore {
        RateStore::new(to_nobody(PURPOSE), "test", "redis")
    }

    fn counted() -> Result<Value, CommandFault> {
        Ok(Value::Array([1, 2, 3, 4].map(Value::Int).to_vec()))
    }

    fn late() -> Result<Value, CommandFault> {
        Err(CommandFault::Unknown("no answer".to_owned()))
    }

    #[tokio::test]
    async fn a_question_without_an_answer_is_trouble_until_one_is_answered() {
        let mut store = store();
        let now = Instant::now();
        let down = || Err(CommandFault::Down("nobody listens".to_owned()));
        for (step, (answer, counts)) in [
            (counted(), true),
            // The connection says that by itself.
            (down(), true),
            (late(), false),
            (late(), false),
            (down(), false),
            (counted(), true),
        ]
        .into_iter()
        .enumerate()
        {
            let is_granted = answer.is_ok();
            assert_eq!(store.read(now, QUESTION, answer).is_some(), is_granted);
            assert_eq!(store.is_counting(), counts, "{step}");
        }
    }

    #[tokio::test]
    async fn one_that_was_late_is_tried_though_nobody_asks() {
        let (mut store, apps) = (store(), AppTable::default());
        let now = Instant::now();
        store.read(now, QUESTION, late());
        store.tick(now, &apps);
        assert_eq!(store.due(), Some(now + TRIED_AFTER));
        store.tick(now + TRIED_AFTER, &apps);
        assert_eq!(store.due(), None, "it is on its way");
        store.tried(&[late()]);
        assert!(!store.is_counting());
        store.tick(now + TRIED_AFTER, &apps);
        assert_eq!(store.due(), Some(now + 2 * TRIED_AFTER));
        store.tick(now + 2 * TRIED_AFTER, &apps);
        store.tried(&[counted()]);
        assert!(store.is_counting());
    }
}
