//! The last events of cache channels in a Redis that nodes share.
//!
//! Owns: `KeptStore`, `Writes`.
//! May depend on: `bridge::{adapter, log_limit, message, redis_commands, run}`, `config`, tokio.
//! Invariants: of a channel what was said last is written last; what waits to be written has a bound in
//! bytes, and is what a question is answered with; a client never hears of the store's trouble: what
//! cannot be had is a miss.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock and hands it on"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Cmd, Pipeline, Value};
use shards::application::Millis;
use tokio::task::JoinSet;

use super::{
    adapter::BusError,
    apps::entry::AppEntry,
    link::ShardLink,
    log_limit::LogLimit,
    message::{Found, FoundEvent, FromBridge, KeepEvent, KeptName},
    nodes::told::{Told, home_of},
    redis_cluster_setup::cluster_redis,
    redis_commands::{Asked, CommandFault, Purpose, RedisCommands},
    redis_setup::one_redis,
    run::Bridge,
};
use crate::{
    config::{Config, sections::CacheDriver},
    metrics::{
        backend::{BackendCounts, Operation, Role},
        sample::{BackendSample, CacheSample},
    },
};

/// Reads and writes of the cache.
#[derive(Debug)]
pub(super) struct KeptStore {
    commands: RedisCommands,
    prefix: String,
    /// As in `cache.driver`.
    backend: &'static str,
    writes: Writes,
    /// The load that is on its way.
    writing: Vec<(String, Write)>,
    /// After a failure the next load waits until then.
    resumes: Option<Instant>,
    /// The last write was answered by an error: its code, told once.
    refuses: Option<String>,
    /// It answers questions with an error.
    refuses_reads: bool,
    late_reads: LogLimit,
    late_writes: LogLimit,
    started: Instant,
    asks: usize,
    tasks: JoinSet<Reached>,
    counters: KeptCounters,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
struct KeptCounters {
    hits: u64,
    misses: u64,
    /// Reads without an answer, each of which was a miss for its client.
    failures: u64,
    written: u64,
    /// Writes that the server refused, or that were given up for want of room.
    writes_lost: u64,
}

/// The store has answered, or could not be asked.
#[derive(Debug)]
pub(super) enum Reached {
    /// An answer to each of the load.
    Wrote(Vec<Result<Value, CommandFault>>),
    Read {
        name: Box<KeptName>,
        result: Result<Vec<Value>, CommandFault>,
    },
    /// To a server that had refused an event that has ended since.
    Tried(Result<Value, CommandFault>),
    /// It was not asked: this waits to be written there.
    Waiting { name: Box<KeptName>, write: Write },
}

/// The server of the cache; of nobody where the cache is this node's own.
pub(super) fn asked(config: &Config) -> Asked {
    let cache = &config.cache;
    let setup = match cache.driver {
        CacheDriver::Redis => Some(one_redis(config, cache.redis.url_override.as_ref())),
        CacheDriver::RedisCluster => Some(cluster_redis(config, &[])),
        CacheDriver::Memory | CacheDriver::None => None,
    };
    Asked {
        setup,
        purpose: PURPOSE,
    }
}

impl KeptStore {
    /// `None` where the cache is this node's own.
    pub(super) fn start(config: &Config) -> Result<Option<Self>, BusError> {
        let Some((commands, backend)) = asked(config).start()? else {
            return Ok(None);
        };
        let prefix = &config.cache.redis.prefix;
        Ok(Some(Self::new(commands, prefix, backend)))
    }

    fn new(commands: RedisCommands, prefix: &str, backend: &'static str) -> Self {
        Self {
            commands,
            prefix: prefix.to_owned(),
            backend,
            writes: Writes::default(),
            writing: Vec::new(),
            resumes: None,
            refuses: None,
            refuses_reads: false,
            late_reads: LogLimit::once_a_minute(),
            late_writes: LogLimit::once_a_minute(),
            started: Instant::now(),
            asks: 0,
            tasks: JoinSet::new(),
            counters: KeptCounters::default(),
        }
    }

    pub(super) fn backend(&self) -> BackendSample {
        BackendSample {
            backend: self.backend,
            role: "cache",
            is_up: !self.is_failing(),
        }
    }

    pub(super) fn backend_counts(&self) -> BackendCounts {
        self.commands.meter().counts()
    }

    pub(super) const fn sample(&self) -> CacheSample {
        let KeptCounters {
            hits,
            misses,
            failures,
            written,
            writes_lost,
        } = self.counters;
        CacheSample {
            operations: [hits, misses, failures, written, writes_lost],
            waiting_bytes: self.writes.bytes,
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.commands.trouble().is_some() || self.refuses.is_some()
    }

    /// The names that Sockudo 2.9 uses, so that what it kept is found.
    fn key(&self, app_id: &str, channel: &str) -> String {
        let prefix = &self.prefix;
        format!("{prefix}:app:{app_id}:channel:{channel}:cache_miss")
    }

    /// Writes an event, as soon as the one before it is written.
    pub(super) fn keep(&mut self, now: Instant, app_id: &str, event: &KeepEvent) {
        let key = self.key(app_id, &event.channel);
        let write = Write {
            frame: Arc::clone(&event.frame),
            text_from: event.text_from,
            until: now + Duration::from_millis(event.left_ms),
            since: now,
        };
        self.counters.writes_lost += self.writes.put(key, write);
        self.write(now);
    }

    /// When something is to be done that nobody will say.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.resumes
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if self.resumes.is_some_and(|at| at <= now) {
            self.resumes = None;
            self.write(now);
        }
    }

    /// Sends what waits, unless a load is on its way.
    fn write(&mut self, now: Instant) {
        if !self.writing.is_empty() || self.resumes.is_some() {
            return;
        }
        self.writing = self.writes.take(now);
        if self.writing.is_empty() {
            return self.try_again();
        }
        let commands = self.commands.clone();
        let load = self.writing.iter();
        let load = load.map(|(key, write)| (key.clone(), write.command(key, now)));
        let load = load.collect();
        self.tasks
            .spawn(async move { Reached::Wrote(commands.run_each(load, WRITE_WITHIN).await) });
    }

    /// Whether a server still refuses, of which nothing that waits would tell: what it refused has ended.
    fn try_again(&mut self) {
        if self.refuses.is_none() {
            return;
        }
        // A name of no app.
        let key = self.key("", "");
        let mut command = redis::cmd("SET");
        command.arg(&key).arg("").arg("PX").arg(1);
        let (commands, load) = (self.commands.clone(), vec![(key, command)]);
        self.tasks.spawn(async move {
            let answers = commands.run_each(load, WRITE_WITHIN).await;
            let answer = answers.into_iter().next();
            Reached::Tried(answer.unwrap_or(Ok(Value::Okay)))
        });
    }

    fn takes_again(&mut self) {
        if self.refuses.take().is_some() {
            tracing::info!("the cache's Redis takes events again");
        }
    }

    /// What is not written yet of a channel.
    fn unwritten(&self, key: &str) -> Option<&Write> {
        let waiting = self.writes.waiting.get(key);
        let writing = || self.writing.iter().find(|(other, _)| other == key);
        waiting.or_else(|| writing().map(|(_, write)| write))
    }

    /// Looks for a channel's last event; false where too many are looked for already.
    pub(super) fn ask(&mut self, app: &AppEntry, name: KeptName) -> bool {
        if self.asks == ASKS_MAX {
            self.counters.failures += 1;
            return false;
        }
        self.asks += 1;
        let key = self.key(&app.app.id, &name.channel);
        let bytes_max = text_bytes_max(app.rules.event_data_bytes_max);
        let (commands, name) = (self.commands.clone(), Box::new(name));
        if let Some(write) = self.unwritten(&key).cloned() {
            self.tasks
                .spawn(async move { Reached::Waiting { name, write } });
            return true;
        }
        let since = tokio::time::Instant::now();
        self.tasks.spawn(async move {
            let mut question = Pipeline::new();
            question.cmd("STRLEN").arg(&key);
            // Whoever put it there may have had other limits, or none.
            question.cmd("GETRANGE").arg(&key).arg(0).arg(bytes_max);
            question.cmd("PTTL").arg(&key);
            let result = commands.run(&key, &question, ASK_WITHIN).await;
            commands.meter().observe(Operation::Get, since.elapsed());
            Reached::Read { name, result }
        });
        true
    }

    /// The next answer. Nothing is lost when the future is dropped.
    pub(super) async fn reached(&mut self) -> Reached {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(reached)) => return reached,
                Some(Err(error)) => tracing::error!(%error, "a question to the cache broke"),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes an answer; gives what is to be told to the channel's home.
    pub(super) fn take(
        &mut self,
        now: Instant,
        reached: Reached,
    ) -> Option<(KeptName, FoundEvent)> {
        match reached {
            Reached::Wrote(answers) => {
                let load = std::mem::take(&mut self.writing);
                for ((key, write), answer) in load.into_iter().zip(answers) {
                    match answer {
                        // A full one may have room later, and a user more rights.
                        Ok(Value::ServerError(error)) => {
                            self.refused(error.code());
                            self.resumes = Some(now + REFUSED_FOR);
                            self.counters.writes_lost += self.writes.put_back(key, write);
                        }
                        Ok(_) => {
                            let taken = now.saturating_duration_since(write.since);
                            self.commands.meter().observe(Operation::Set, taken);
                            self.counters.written += 1;
                            self.takes_again();
                        }
                        Err(fault) => {
                            self.tell_late_write(now, &fault);
                            self.resumes = Some(now + AGAIN_AFTER);
                            self.counters.writes_lost += self.writes.put_back(key, write);
                        }
                    }
                }
                self.write(now);
                None
            }
            Reached::Tried(answer) => {
                match answer {
                    Ok(Value::ServerError(_)) => self.resumes = Some(now + REFUSED_FOR),
                    Ok(_) => self.takes_again(),
                    Err(_) => self.resumes = Some(now + AGAIN_AFTER),
                }
                None
            }
            Reached::Read { name, result } => {
                self.asks -= 1;
                if let Err(fault) = &result {
                    self.tell_late_read(now, fault);
                }
                let found = self.read(result);
                Some(found_event(*name, found))
            }
            Reached::Waiting { name, write } => {
                self.asks -= 1;
                let left = write.until.saturating_duration_since(now);
                let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
                let found = match left_ms {
                    0 => Found::Nothing,
                    _ => Found::Text(Box::from(write.text()), left_ms),
                };
                Some(found_event(*name, found))
            }
        }
    }

    /// A server that is slow is not gone: nobody else says so.
    fn tell_late_read(&mut self, now: Instant, fault: &CommandFault) {
        if let CommandFault::Unknown(error) = fault
            && let Some(suppressed) = self.late_reads.allow(self.since_start(now))
        {
            let what = "the cache answers too late: events that it has are missed";
            self.tell_late(what, ASK_WITHIN, suppressed, error);
        }
    }

    fn tell_late_write(&mut self, now: Instant, fault: &CommandFault) {
        if let CommandFault::Unknown(error) = fault
            && let Some(suppressed) = self.late_writes.allow(self.since_start(now))
        {
            let what = "the cache answers too late: events wait to be written";
            self.tell_late(what, WRITE_WITHIN, suppressed, error);
        }
    }

    fn tell_late(&self, what: &str, within: Duration, suppressed: u64, error: &str) {
        let (role, backend, key) = ("cache", self.backend, "cache.driver");
        let within_ms = within.as_millis();
        tracing::warn!(role, backend, key, within_ms, suppressed, error, "{what}");
    }

    fn since_start(&self, now: Instant) -> Millis {
        let since = now.saturating_duration_since(self.started);
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn refused(&mut self, code: &str) {
        if self.refuses.as_deref() != Some(code) {
            let prefix = &self.prefix;
            tracing::warn!(code, prefix, "the cache's Redis refuses events: they wait");
            self.refuses = Some(code.to_owned());
        }
    }

    fn read(&mut self, result: Result<Vec<Value>, CommandFault>) -> Found {
        let answers = result.unwrap_or_default();
        let refusal = answers.iter().find_map(|it| {
            let Value::ServerError(error) = it else {
                return None;
            };
            Some(error.code())
        });
        match refusal {
            Some(code) if !self.refuses_reads => {
                let prefix = &self.prefix;
                tracing::warn!(
                    code,
                    prefix,
                    "the cache's Redis refuses to be read: events that it has are missed"
                );
                self.refuses_reads = true;
            }
            Some(_) => {}
            None => self.refuses_reads &= answers.is_empty(),
        }
        let counters = &mut self.counters;
        let (text, left_ms) = match <[Value; 3]>::try_from(answers) {
            Ok([Value::Int(0), _, _]) => {
                counters.misses += 1;
                return Found::Nothing;
            }
            Ok(
                [
                    Value::Int(bytes),
                    Value::BulkString(text),
                    Value::Int(left_ms),
                ],
            ) if usize::try_from(bytes).is_ok_and(|bytes| bytes == text.len()) => (text, left_ms),
            // Too long for any event.
            Ok([Value::Int(_), Value::BulkString(_), _]) => {
                counters.failures += 1;
                return Found::Nothing;
            }
            Ok(_) | Err(_) => {
                counters.failures += 1;
                return Found::Unknown;
            }
        };
        // It has no end, or has just gone.
        let left_ms = match left_ms {
            -1 => u64::MAX,
            gone if gone <= 0 => {
                counters.misses += 1;
                return Found::Nothing;
            }
            left_ms => left_ms.unsigned_abs(),
        };
        counters.hits += 1;
        Found::Text(text.into_boxed_slice(), left_ms)
    }
}

fn found_event(name: KeptName, found: Found) -> (KeptName, FoundEvent) {
    let event = FoundEvent {
        app: name.app,
        partition: name.partition,
        channel: Arc::clone(&name.channel),
        found,
    };
    (name, event)
}

/// Bytes of an event's text whose data an app may publish: each may be escaped.
fn text_bytes_max(data_bytes_max: u32) -> u64 {
    u64::from(data_bytes_max).saturating_mul(6).min(64 << 20) + 16_384
}

/// An event that is to be written.
#[derive(Clone, Debug)]
pub(super) struct Write {
    frame: Arc<[u8]>,
    text_from: usize,
    until: Instant,
    /// When it came.
    since: Instant,
}

impl Write {
    fn text(&self) -> &[u8] {
        self.frame.get(self.text_from..).unwrap_or_default()
    }

    fn command(&self, key: &str, now: Instant) -> Cmd {
        let left_ms = self.until.saturating_duration_since(now).as_millis().max(1);
        let mut command = redis::cmd("SET");
        let left_ms = u64::try_from(left_ms).unwrap_or(u64::MAX / 2);
        command.arg(key).arg(self.text()).arg("PX").arg(left_ms);
        command
    }
}

/// What waits to be written: the last event of each channel, the one that waits longest first.
#[derive(Debug, Default)]
struct Writes {
    waiting: BTreeMap<String, Write>,
    /// Each key of `waiting` once.
    order: VecDeque<String>,
    bytes: usize,
}

impl Writes {
    /// Returns how many had to go for it.
    fn put(&mut self, key: String, write: Write) -> u64 {
        self.bytes += bytes_of(&key, &write);
        match self.waiting.insert(key.clone(), write) {
            Some(before) => self.bytes -= bytes_of(&key, &before),
            None => self.order.push_back(key),
        }
        let mut lost = 0;
        while self.bytes > WAITING_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            lost += u64::from(self.remove(&oldest).is_some());
        }
        lost
    }

    /// After a load that failed: unless there is a newer one.
    fn put_back(&mut self, key: String, write: Write) -> u64 {
        match self.waiting.contains_key(&key) {
            true => 0,
            false => self.put(key, write),
        }
    }

    fn remove(&mut self, key: &str) -> Option<Write> {
        let write = self.waiting.remove(key)?;
        self.bytes -= bytes_of(key, &write);
        Some(write)
    }

    /// The next load; what nobody would find any more is left out.
    fn take(&mut self, now: Instant) -> Vec<(String, Write)> {
        let (mut load, mut load_bytes) = (Vec::new(), 0);
        while load.len() < LOAD_MAX
            && load_bytes < LOAD_BYTES_MAX
            && let Some(key) = self.order.pop_front()
        {
            let write = self.remove(&key).filter(|write| write.until > now);
            if let Some(write) = write {
                load_bytes += write.frame.len();
                load.push((key, write));
            }
        }
        load
    }
}

fn bytes_of(key: &str, write: &Write) -> usize {
    2 * key.len() + write.frame.len() + size_of::<Write>() + 64
}

impl<L: ShardLink> Bridge<L> {
    /// A shard wants a channel's last event.
    pub(super) fn ask_kept(&mut self, name: KeptName) {
        if let Some(store) = &mut self.kept_store
            && let Some(app) = self.apps.get(name.app)
            && store.ask(app, name.clone())
        {
            return;
        }
        self.ask_nodes_for_kept(name, Found::Unknown);
    }

    /// `found` is what is known without them.
    fn ask_nodes_for_kept(&mut self, name: KeptName, found: Found) {
        if let Some(nodes) = self.nodes.as_mut().filter(|_| name.is_elsewhere) {
            let mut told = Told::new();
            nodes.ask_kept(&self.apps, &name, &mut told);
            self.tell(told);
        } else {
            let (_, found) = found_event(name, found);
            self.tell_found(found);
        }
    }

    /// A shard has published a channel's last event.
    pub(super) fn keep_event(&mut self, event: &KeepEvent) {
        if let Some(store) = &mut self.kept_store
            && let Some(app) = self.apps.get(event.app)
        {
            store.keep(Instant::now(), &app.app.id, event);
        }
    }

    pub(super) fn reached_cache(&mut self, reached: Reached) {
        let Some(store) = &mut self.kept_store else {
            return;
        };
        let Some((name, found)) = store.take(Instant::now(), reached) else {
            return;
        };
        match found.found {
            Found::Text(..) | Found::Asked(_) => self.tell_found(found),
            Found::Nothing | Found::Unknown => self.ask_nodes_for_kept(name, found.found),
        }
    }

    fn tell_found(&mut self, found: FoundEvent) {
        let home = home_of(found.partition, self.link.shards());
        let found = FromBridge::Found(Box::new(found));
        self.outbox.send(&self.link, home, found);
    }
}

const PURPOSE: Purpose = Purpose {
    name: "cache",
    role: Role::Cache,
    url: "cache.redis.url_override",
    nodes: "database.redis.cluster_nodes",
    driver: "cache.driver",
    commands: "HELLO, SELECT, PING, STRLEN, GETRANGE, PTTL and SET",
};

/// A subscription waits no longer either.
const ASK_WITHIN: Duration = Duration::from_millis(500);
const WRITE_WITHIN: Duration = Duration::from_secs(2);
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Channels that are looked for at the same time.
const ASKS_MAX: usize = 4_096;
const LOAD_MAX: usize = 256;
const LOAD_BYTES_MAX: usize = 2 << 20;
/// Beyond it the one that waits longest is given up, and the cache keeps what it had before.
const WAITING_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str, until: Instant) -> Write {
        Write {
            frame: format!("..{text}").into_bytes().into(),
            text_from: 2,
            until,
            since: until,
        }
    }

    #[test]
    fn of_a_channel_the_last_event_is_written_and_a_failure_does_not_undo_a_newer_one() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut writes = Writes::default();
        for (key, text) in [("a", "1"), ("b", "2"), ("a", "3")] {
            assert_eq!(writes.put(key.to_owned(), write(text, later)), 0);
        }
        let load = writes.take(now);
        let packed: Vec<_> = load
            .iter()
            .map(|(key, write)| write.command(key, now).get_packed_command())
            .collect();
        assert!(packed[0].ends_with(b"$1\r\na\r\n$1\r\n3\r\n$2\r\nPX\r\n$5\r\n10000\r\n"));
        assert_eq!((load.len(), writes.bytes), (2, 0));
        writes.put("b".to_owned(), write("4", later));
        for (key, write) in load {
            assert_eq!(writes.put_back(key, write), 0);
        }
        let texts = writes.take(now);
        let texts: Vec<_> = texts
            .iter()
            .map(|(key, write)| (key.as_str(), &write.frame[2..]))
            .collect();
        assert_eq!(texts, [("b", &b"4"[..]), ("a", &b"3"[..])]);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_over_is_not_written() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut writes = Writes::default();
        let big = "x".repeat(1 << 20);
        let lost: u64 = (0..20)
            .map(|number| writes.put(number.to_string(), write(&big, later)))
            .sum();
        assert_eq!(lost, 5);
        assert!(writes.bytes <= WAITING_BYTES_MAX);
        let first = writes.take(now);
        assert_eq!(first[0].0, "5");
        assert!(writes.take(later).is_empty());
        assert_eq!(writes.bytes, 0);
    }
}
