//! Who finds out which master has which slot, and tells both roads.
//!
//! Owns: `Known`, `Chart` (the same for topics), `keep` (the task that asks).
//! May depend on: `adapter::news`, `redis::{fault, link}`, `redis_cluster::{members, slots}`, the crate `redis`,
//! tokio.
//! Invariants: all servers that are known are asked each time, at once, and the newest answer counts,
//! so that one that was cut off cannot lead us back; a stopped one holds it up for `ANSWER_WITHIN`;
//! what is known stays until there is something better.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use redis::{ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    super::{
        news::{Trouble, TroubleKind},
        redis::{
            Way,
            fault::{fault, silent, words},
            link::{Server, Standing},
        },
    },
    members::Members,
    slots::{Address, Answer, SlotMap},
};

/// What is known of the cluster.
#[derive(Clone)]
pub(in crate::bridge) struct Known<M> {
    pub(in crate::bridge) map: Option<Arc<M>>,
    /// Why nothing newer is known.
    pub(in crate::bridge) trouble: Option<Trouble>,
}

impl<M> Default for Known<M> {
    fn default() -> Self {
        let (map, trouble) = (None, None);
        Self { map, trouble }
    }
}

pub(super) type KnownTopics = Known<SlotMap>;

/// As much of a cluster's slots as somebody needs.
pub(in crate::bridge) trait Map:
    Clone + PartialEq + Send + Sync + 'static
{
    /// Replicas too.
    fn servers(&self) -> &BTreeSet<Address>;
}

/// Reads the answer to CLUSTER SLOTS of the server at that address.
pub(in crate::bridge) trait Read<M>:
    Fn(&Value, &Address) -> Option<M> + Clone + Send + Sync + 'static
{
}

impl<M, F> Read<M> for F where F: Fn(&Value, &Address) -> Option<M> + Clone + Send + Sync + 'static {}

/// What is known, for who needs it.
#[derive(Clone)]
pub(super) struct Chart {
    known: watch::Receiver<KnownTopics>,
    asked: Arc<Notify>,
}

impl Chart {
    pub(super) fn new(known: watch::Receiver<KnownTopics>) -> Self {
        Self {
            known,
            asked: Arc::new(Notify::new()),
        }
    }

    /// Waits for something that was not seen here yet. Never ready again once nobody asks.
    pub(super) async fn next(&mut self) -> KnownTopics {
        match self.known.changed().await {
            Ok(()) => self.known.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// What is known may be wrong.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    pub(super) fn way(&self) -> Way {
        Way::Sharded(self.asked())
    }

    pub(super) fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }
}

/// Asks, again and again and whenever it is `asked`, until this is dropped.
pub(in crate::bridge) async fn keep<M: Map>(
    members: Arc<Members>,
    read: impl Read<M>,
    known: watch::Sender<Known<M>>,
    asked: Arc<Notify>,
) {
    let mut connections = BTreeMap::new();
    loop {
        let current = known.borrow().map.clone();
        let (answers, troubles) =
            ask_all(&members, &read, current.as_deref(), &mut connections).await;
        let trouble = match answers.is_empty() {
            true => worst(troubles),
            false => None,
        };
        let map = newest(answers, current.as_deref()).map(Arc::new);
        let pause = match map {
            Some(_) => EVERY,
            None => AGAIN_AFTER,
        };
        known.send_if_modified(|known| {
            let is_new = map.is_some() && map != known.map;
            let is_other = trouble.is_some() || known.trouble.is_some();
            if is_new {
                known.map = map;
            }
            known.trouble = trouble;
            is_new || is_other
        });
        // However often it is asked for, there is a pause.
        sleep(PAUSE).await;
        _ = timeout(pause, asked.notified()).await;
    }
}

type Asked<M> = (Address, Result<(Answer<M>, Standing), Trouble>);

/// What all servers say that answer in time.
async fn ask_all<M: Map>(
    members: &Arc<Members>,
    read: &impl Read<M>,
    map: Option<&M>,
    connections: &mut BTreeMap<Address, Standing>,
) -> (Vec<Answer<M>>, Vec<Trouble>) {
    let seeds = members.seeds.iter();
    let servers: BTreeSet<&Address> = seeds
        .chain(map.iter().flat_map(|it| it.servers()))
        .collect();
    let mut asking = JoinSet::new();
    // What does not answer in time has no connection left.
    let mut standing = std::mem::take(connections);
    for at in servers.iter().copied().take(ASKED_MAX) {
        let (members, read, at) = (Arc::clone(members), read.clone(), at.clone());
        let connection = standing.remove(&at);
        asking.spawn(async move {
            let server = members.server(&at);
            let asked = ask(&server, &at, &read, connection);
            let result = timeout(ANSWER_WITHIN, asked).await;
            (at, result.unwrap_or_else(|_| Err(silent(&server))))
        });
    }
    let many = asking.len() / 2;
    let mut until = Instant::now() + 2 * ANSWER_WITHIN;
    let (mut answers, mut troubles) = (Vec::new(), Vec::new());
    while let Ok(Some(asked)) = timeout_at(until, asking.join_next()).await {
        let Ok(asked): Result<Asked<M>, _> = asked else {
            continue;
        };
        match asked {
            (at, Ok((answer, connection))) => {
                connections.insert(at, connection);
                answers.push(answer);
            }
            (_, Err(trouble)) => troubles.push(trouble),
        }
        if answers.len() > many {
            until = until.min(Instant::now() + OTHERS_WITHIN);
        }
    }
    (answers, troubles)
}

async fn ask<M>(
    server: &Server,
    at: &Address,
    read: &impl Read<M>,
    standing: Option<Standing>,
) -> Result<(Answer<M>, Standing), Trouble> {
    let mut standing = match standing {
        Some(standing) => standing,
        None => server.attempt(|_| Ok(())).await?,
    };
    let mut commands = Pipeline::new();
    commands.cmd("CLUSTER").arg("INFO");
    commands.cmd("CLUSTER").arg("SLOTS");
    let connection = &mut standing.connection;
    let answers = connection.send_packed_commands(&commands, 0, 2).await;
    let answers = answers.map_err(|error| fault(&error, server))?;
    let answer = match answers.as_slice() {
        [Value::ServerError(error), _] | [_, Value::ServerError(error)] => {
            return Err(refused(&error.clone().into(), server));
        }
        [info, ranges] => read(ranges, at).and_then(|map| Answer::read(info, map)),
        _ => None,
    };
    let answer = answer.ok_or_else(|| {
        let sentence = format!(
            "{} says nothing that we understand of its cluster ({})",
            server.address(),
            server.keys().address
        );
        let kind = TroubleKind::Protocol;
        Trouble { kind, sentence }
    })?;
    Ok((answer, standing))
}

fn refused(error: &RedisError, server: &Server) -> Trouble {
    let (at, keys) = (server.address(), server.keys());
    if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
        return fault(error, server);
    }
    let is_single = error
        .detail()
        .is_some_and(|it| it.contains("cluster support disabled"));
    let sentence = match is_single {
        true => format!(
            "{at} is not part of a cluster: set {} to \"redis\", or {} to servers of a cluster",
            keys.driver, keys.address
        ),
        false => format!(
            "{at} does not tell its cluster ({}): {}",
            keys.address,
            words(error, server)
        ),
    };
    Trouble {
        kind: TroubleKind::Refused,
        sentence,
    }
}

/// What an operator can mend comes before a server that is gone.
fn worst(troubles: Vec<Trouble>) -> Option<Trouble> {
    let is_gone = |it: &Trouble| it.kind.is_like(TroubleKind::Unreachable);
    troubles.into_iter().min_by_key(is_gone)
}

/// The answer of who knows most; among equals what most say.
fn newest<M: Map>(answers: Vec<Answer<M>>, current: Option<&M>) -> Option<M> {
    let rank = |answer: &Answer<M>| {
        let same = answers.iter().filter(|it| it.map == answer.map);
        let knows = same.clone().map(|it| (it.is_ok, it.epoch)).max();
        (knows, same.count(), current == Some(&answer.map))
    };
    let best = answers.iter().max_by_key(|it| rank(it))?;
    Some(best.map.clone())
}

/// As a net: what changes is heard of otherwise, too.
const EVERY: Duration = Duration::from_secs(5);
/// While nobody has answered.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);
/// Of each server, its connection included.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Of the rest, when most have answered.
const OTHERS_WITHIN: Duration = Duration::from_millis(200);
const ASKED_MAX: usize = 64;
