//! Jobs in Redis, of one server or a cluster: one part of the queue, all keys of which have one slot.
//!
//! Owns: `RedisStore`, the names of its keys; the scripts `put` and `turn`, which are the queue; `old`, the list
//! of Sockudo 2.9.
//! May depend on: `bridge::{queue, redis_commands}`, `metrics::backend`, `protocol::json`, the crate `redis`.
//! Invariants: a target belongs to one node at a time, which has its jobs in their order; a node that says
//! nothing for its lease is dead, and what it had is free; a full Redis refuses jobs and gives them away
//! all the same; nothing is ever trimmed unseen: a bound says what goes, counts it and keeps it as a dead
//! letter.

pub mod look;
pub mod old;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, Script, ServerErrorKind, Value};

use super::{Answer, Put, Receipt, SettledLetter, StoreFault, StoreState, Take, Taken, Turn};
use crate::{
    bridge::{
        queue::TargetName,
        redis_commands::{Purpose, RedisCommands, is_forbidden},
    },
    metrics::backend::{Meter, Role},
    protocol::json::write_escaped,
};

/// Bounds and times of the queue in Redis.
#[derive(Clone, Debug)]
pub struct RedisBounds {
    /// A node that says nothing for so long is dead.
    pub lease: Duration,
    /// Bytes of jobs in one part; beyond it the target with the most loses its oldest.
    pub bytes_max: u64,
    /// Dead letters of one part.
    pub dead_max: u64,
    pub dead_bytes_max: u64,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

/// One part of the queue.
#[derive(Clone, Debug)]
pub struct RedisStore(Arc<Part>);

#[derive(Debug)]
struct Part {
    commands: RedisCommands,
    keys: Keys,
    node: Box<str>,
    bounds: RedisBounds,
    scripts: Scripts,
    /// This node has been heard.
    was_there: AtomicBool,
}

#[derive(Debug)]
struct Scripts {
    put: Source,
    turn: Source,
    letters: Source,
}

/// A script and what a server calls it.
#[derive(Debug)]
struct Source {
    code: &'static str,
    digest: String,
}

impl Source {
    fn new(code: &'static str) -> Self {
        let digest = Script::new(code).get_hash().to_owned();
        Self { code, digest }
    }
}

/// The names of a part's keys.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: Box<str>,
}

/// What the queue asks of Redis, for sentences.
pub const REDIS_PURPOSE: Purpose = Purpose {
    name: "webhook queue",
    role: Role::Queue,
    url: "queue.redis.url_override",
    nodes: "queue.redis_cluster.nodes",
    driver: "queue.driver",
    commands: "+eval +evalsha +@hash +@sortedset +@string +@list +time +info on the keys of the queue",
};

/// Apps that one turn looks at for targets that are nobody's.
const APPS_MAX: usize = 64;

impl Keys {
    /// `part` is a hash tag: all keys have its slot. `None` where there is one server.
    pub fn new(prefix: &str, part: Option<usize>) -> Self {
        let mut name = format!("{prefix}:queue:webhooks:v2");
        if let Some(part) = part {
            _ = write!(name, ":{{webhooks-{part}}}");
        }
        Self {
            prefix: name.into(),
        }
    }

    /// Where Sockudo 2.9 has its jobs.
    fn old_list(prefix: &str) -> String {
        format!("{prefix}:queue:webhooks")
    }

    pub fn of(&self, what: &str) -> String {
        format!("{}:{what}", self.prefix)
    }

    fn all(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.of(name)).collect()
    }
}

/// In the order of the scripts.
const SHARED_KEYS: [&str; 9] = [
    "jobs",
    "ready",
    "targets",
    "later",
    "failed",
    "state",
    "bytes",
    "dead",
    "dead:order",
];

impl RedisStore {
    /// `node` is of this process and no other, before or after.
    pub fn new(commands: RedisCommands, keys: Keys, node: &str, bounds: RedisBounds) -> Self {
        Self(Arc::new(Part {
            commands,
            keys,
            node: node.into(),
            bounds,
            scripts: Scripts {
                put: Source::new(include_str!("put.lua")),
                turn: Source::new(include_str!("turn.lua")),
                letters: Source::new(include_str!("letters.lua")),
            },
            was_there: AtomicBool::new(false),
        }))
    }

    pub(super) async fn turn(&self, turn: &Turn) -> Result<Answer, StoreFault> {
        let part = &self.0;
        let mut calls = Vec::new();
        if let Some(put) = &turn.put {
            calls.push(part.put_call(put));
        }
        calls.push(part.turn_call(turn));
        let mut answers = part.run(&calls).await?.into_iter();
        let put = match &turn.put {
            None => Ok((0, 0)),
            Some(_) => part.read_put(answers.next().ok_or_else(odd)?),
        };
        let answer = part.hold(answers.next().ok_or_else(odd)?)?;
        let mut answer = part.read(answer)?;
        match put {
            Ok((overflown, dropped)) => {
                answer.state.overflown = overflown;
                answer.is_full = overflown > 0;
                answer.state.dead_dropped += dropped;
            }
            Err(fault) => answer.put_fault = Some(fault),
        }
        part.was_there.store(true, Ordering::Relaxed);
        Ok(answer)
    }
}

impl RedisStore {
    pub(super) async fn reach(&self) -> Result<(), StoreFault> {
        let part = &self.0;
        let key = part.keys.of("dead");
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HLEN").arg(&key);
        let answers = part.commands.run(&key, &pipeline, LETTERS_WITHIN).await;
        let answers = answers.map_err(|fault| StoreFault(fault.to_string()))?;
        part.hold(answers.into_iter().next().ok_or_else(odd)?)
            .map(drop)
    }

    pub(super) fn meter(&self) -> &Meter {
        self.0.commands.meter()
    }

    pub(super) fn refusal(&self) -> Option<String> {
        self.0.commands.refusal()
    }

    /// Says a turn that comes too late to be heard: it reads, and changes nothing.
    pub(super) async fn forbids(&self) -> Option<StoreFault> {
        let part = &self.0;
        let answers = part.run(&[part.turn_call(&Turn::default())]).await;
        let answer = answers.ok()?.into_iter().next()?;
        if !matches!(&answer, Value::ServerError(error) if is_forbidden(error)) {
            return None;
        }
        part.hold(answer).err()
    }

    pub(super) async fn letters(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreFault> {
        let part = &self.0;
        let key = part.keys.of("dead");
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HGETALL").arg(&key);
        let answers = part.commands.run(&key, &pipeline, LETTERS_WITHIN).await;
        let answers = answers.map_err(|fault| StoreFault(fault.to_string()))?;
        let answer = part.hold(answers.into_iter().next().ok_or_else(odd)?)?;
        let flat: Vec<(u64, Vec<u8>)> = redis::from_redis_value(answer).map_err(|_| odd())?;
        let mut letters = flat;
        letters.sort_unstable_by_key(|(id, _)| *id);
        Ok(letters)
    }

    pub(super) async fn settle_letters(
        &self,
        letters: &[SettledLetter],
    ) -> Result<u64, StoreFault> {
        let part = &self.0;
        let mut call = Call {
            script: &part.scripts.letters,
            keys: part.keys.all(&SHARED_KEYS),
            words: Vec::new(),
        };
        for letter in letters {
            call.say(letter.id);
            match &letter.again {
                Some(job) => {
                    call.say(job.target);
                    call.words.push(job.text.clone());
                }
                None => {
                    call.say("");
                    call.say("");
                }
            }
        }
        let answer = part.run(&[call]).await?.into_iter().next();
        number(Some(&part.hold(answer.ok_or_else(odd)?)?))
    }
}

/// They may be many bytes.
const LETTERS_WITHIN: Duration = Duration::from_secs(30);

/// A script with its keys and arguments.
struct Call<'a> {
    script: &'a Source,
    keys: Vec<String>,
    words: Vec<Vec<u8>>,
}

impl Call<'_> {
    fn say(&mut self, word: impl ToString) {
        self.words.push(word.to_string().into_bytes());
    }

    /// As it stands in the text of a job.
    fn say_escaped(&mut self, text: &str) {
        let mut word = Vec::with_capacity(text.len());
        write_escaped(&mut word, text);
        self.words.push(word);
    }

    fn say_take(&mut self, take: &Take) {
        self.say(take.leave.len());
        for (target, ms) in &take.leave {
            self.say(target);
            self.say(ms);
        }
        self.say(take.room);
        self.say(take.room_per_new_target);
        self.say(APPS_MAX);
        self.say(u8::from(take.is_new_first));
        self.say(take.apps.len());
        for (app, jobs) in &take.apps {
            self.say_escaped(app);
            self.say(jobs);
        }
        self.say(take.targets.len());
        for wanted in &take.targets {
            self.say(wanted.target);
            self.say(wanted.jobs);
            self.say(wanted.app.map_or(0, |it| it + 1));
        }
    }

    /// By its digest, or whole where the server does not know it.
    fn command(&self, is_known: bool) -> Cmd {
        let (name, script) = match is_known {
            true => ("EVALSHA", &*self.script.digest),
            false => ("EVAL", self.script.code),
        };
        let mut command = redis::cmd(name);
        command.arg(script);
        command.arg(self.keys.len()).arg(&self.keys);
        for word in &self.words {
            command.arg(&**word);
        }
        command
    }
}

impl Part {
    fn put_call(&self, put: &Put) -> Call<'_> {
        let mut keys = self.keys.all(&SHARED_KEYS);
        keys.push(self.keys.of(&format!("put:{}", self.node)));
        let (script, words) = (&self.scripts.put, Vec::new());
        let mut call = Call {
            script,
            keys,
            words,
        };
        call.say(put.number);
        call.say(self.bounds.bytes_max);
        call.say(self.bounds.dead_max);
        call.say(self.bounds.dead_bytes_max);
        for job in &put.jobs {
            call.say(job.target);
            call.words.push(job.text.clone());
        }
        call
    }

    fn turn_call(&self, turn: &Turn) -> Call<'_> {
        let mut keys = self.keys.all(&SHARED_KEYS);
        keys.extend(self.keys.all(&["held", "owned", "nodes"]));
        keys.push(self.keys.of(&format!("turn:{}", self.node)));
        keys.push(self.keys.of("apps"));
        let (script, words) = (&self.scripts.turn, Vec::new());
        let mut call = Call {
            script,
            keys,
            words,
        };
        call.say(&self.node);
        call.say(turn.number);
        call.say(self.bounds.lease.as_millis());
        call.say(u8::from(self.was_there.load(Ordering::Relaxed)));
        call.say(self.bounds.dead_max);
        call.say(self.bounds.dead_bytes_max);
        call.say(turn.done.len());
        turn.done.iter().for_each(|it| call.say(&it.text));
        call.say(turn.again.len());
        for again in &turn.again {
            call.say(&again.receipt.text);
            call.say(again.ms);
            call.say_escaped(again.error.as_deref().unwrap_or_default());
        }
        call.say(turn.back.len());
        turn.back.iter().for_each(|it| call.say(&it.text));
        call.say(turn.dead.len());
        for dead in &turn.dead {
            call.say(dead.receipt.as_ref().map_or("", |it| &it.text));
            call.words.push(dead.text.clone());
        }
        match &turn.holds {
            None => call.say(-1),
            Some(holds) => {
                call.say(holds.len());
                holds.iter().for_each(|it| call.say(&it.text));
            }
        }
        call.say_take(&turn.take);
        call
    }

    /// Both scripts in one round trip; in a second one whole what the server did not know.
    async fn run(&self, calls: &[Call<'_>]) -> Result<Vec<Value>, StoreFault> {
        let key = self.keys.of(SHARED_KEYS[0]);
        let all: Vec<&Call<'_>> = calls.iter().collect();
        let mut answers = self.ask(&key, &all, true).await?;
        if answers.len() != calls.len() {
            return Err(odd());
        }
        let unknown = |answer: &&mut Value| is_unknown_script(answer);
        let again: Vec<&Call<'_>> = answers
            .iter()
            .zip(&all)
            .filter(|(answer, _)| is_unknown_script(answer))
            .map(|(_, call)| *call)
            .collect();
        if !again.is_empty() {
            let heard = self.ask(&key, &again, false).await?;
            for (place, answer) in answers.iter_mut().filter(unknown).zip(heard) {
                *place = answer;
            }
        }
        Ok(answers)
    }

    async fn ask(
        &self,
        key: &str,
        calls: &[&Call<'_>],
        is_known: bool,
    ) -> Result<Vec<Value>, StoreFault> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.command(is_known));
        }
        let answers = self.commands.run(key, &pipeline, self.bounds.timeout).await;
        answers.map_err(|fault| StoreFault(fault.to_string()))
    }

    /// What a command answered, unless that is an error.
    fn hold(&self, answer: Value) -> Result<Value, StoreFault> {
        let Value::ServerError(error) = answer else {
            return Ok(answer);
        };
        let is_forbidden = is_forbidden(&error);
        let error = RedisError::from(error);
        let says = error.detail().unwrap_or_default();
        let code = error.code().unwrap_or_default();
        Err(StoreFault(match code {
            "OOM" => "Redis is full (maxmemory) and takes no jobs; they wait here".to_owned(),
            _ if is_forbidden => format!(
                "Redis does not let this user work with the webhook queue ({says}): it needs {}",
                REDIS_PURPOSE.commands
            ),
            _ => format!("Redis refuses the webhook queue's script: {code} {says}"),
        }))
    }

    /// Jobs that were buried for want of room, and letters that were dropped.
    fn read_put(&self, answer: Value) -> Result<(u64, u64), StoreFault> {
        let words = words(self.hold(answer)?)?;
        Ok((number(words.first())?, number(words.get(1))?))
    }

    fn read(&self, answer: Value) -> Result<Answer, StoreFault> {
        let mut words = words(answer)?.into_iter();
        let mut next = || words.next().ok_or_else(odd);
        let was_dead = number(Some(&next()?))? > 0;
        let born = text(&next()?)?;
        let state = StoreState {
            recovered: number(Some(&next()?))?,
            dead_dropped: number(Some(&next()?))?,
            waiting: number(Some(&next()?))?,
            waiting_bytes: number(Some(&next()?))?,
            dead: number(Some(&next()?))?,
            ..StoreState::default()
        };
        let released = self::words(next()?)?;
        let released = released.iter().map(target).collect::<Result<_, _>>()?;
        let mut flat = self::words(next()?)?.into_iter();
        let mut taken = Vec::new();
        while let (Some(member), Some(attempts), Some(job)) =
            (flat.next(), flat.next(), flat.next())
        {
            let receipt = text(&member)?;
            let name = receipt.split('/').next().and_then(TargetName::parse);
            taken.push(Taken {
                receipt: Receipt {
                    target: name.ok_or_else(odd)?,
                    text: receipt.into(),
                },
                attempts: u32::try_from(number(Some(&attempts))?).unwrap_or(u32::MAX),
                text: bytes(job)?,
            });
        }
        Ok(Answer {
            is_unheard: false,
            taken,
            released,
            was_dead,
            born: Some(born.into()),
            put_fault: None,
            is_full: false,
            state,
        })
    }
}

fn is_unknown_script(answer: &Value) -> bool {
    let Value::ServerError(error) = answer else {
        return false;
    };
    RedisError::from(error.clone()).kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn odd() -> StoreFault {
    StoreFault("Redis answers the webhook queue's script as no Redis does".to_owned())
}

fn words(value: Value) -> Result<Vec<Value>, StoreFault> {
    let Value::Array(words) = value else {
        return Err(odd());
    };
    let words = words.into_iter();
    words
        .map(|it| it.extract_error().map_err(|_| odd()))
        .collect()
}

fn number(value: Option<&Value>) -> Result<u64, StoreFault> {
    let parsed: i64 = redis::from_redis_value_ref(value.ok_or_else(odd)?).map_err(|_| odd())?;
    Ok(u64::try_from(parsed).unwrap_or(0))
}

fn text(value: &Value) -> Result<String, StoreFault> {
    redis::from_redis_value_ref(value).map_err(|_| odd())
}

fn bytes(value: Value) -> Result<Vec<u8>, StoreFault> {
    let Value::BulkString(bytes) = value else {
        return Err(odd());
    };
    Ok(bytes)
}

fn target(value: &Value) -> Result<TargetName, StoreFault> {
    TargetName::parse(&text(value)?).ok_or_else(odd)
}
