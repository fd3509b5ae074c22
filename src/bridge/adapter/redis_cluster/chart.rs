//! Who finds out which master has which slot, and tells both roads.
//!
//! Owns: `Chart` (what is known), `keep` (the task that asks).
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
    slots::{Address, Answer, SlotMap, TopicSlots},
};

/// What is known of the cluster.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) map: Option<Arc<SlotMap>>,
    /// Why nothing newer is known.
    pub(super) trouble: Option<Trouble>,
}

/// What is known, for who needs it.
#[derive(Clone)]
pub(super) struct Chart {
    known: watch::Receiver<Known>,
    asked: Arc<Notify>,
}

impl Chart {
    pub(super) fn new(known: watch::Receiver<Known>) -> Self {
        Self {
            known,
            asked: Arc::new(Notify::new()),
        }
    }

    /// Waits for something that was not seen here yet. Never ready again once nobody asks.
    pub(super) async fn next(&mut self) -> Known {
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
        Way::Sharded(Arc::clone(&self.asked))
    }
}

/// Asks, again and again, until the bus is closed, which drops this.
pub(super) async fn keep(
    members: Arc<Members>,
    slots: TopicSlots,
    known: watch::Sender<Known>,
    chart: Chart,
) {
    let slots = Arc::new(slots);
    let mut connections = BTreeMap::new();
    loop {
        let current = known.borrow().map.clone();
        let (answers, troubles) =
            ask_all(&members, &slots, current.as_deref(), &mut connections).await;
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
        _ = timeout(pause, chart.asked.notified()).await;
    }
}

type Asked = (Address, Result<(Answer, Standing), Trouble>);

/// What all servers say that answer in time.
async fn ask_all(
    members: &Arc<Members>,
    slots: &Arc<TopicSlots>,
    map: Option<&SlotMap>,
    connections: &mut BTreeMap<Address, Standing>,
) -> (Vec<Answer>, Vec<Trouble>) {
    let seeds = members.seeds.iter();
    let servers: BTreeSet<&Address> = seeds.chain(map.iter().flat_map(|it| &it.servers)).collect();
    let mut asking = JoinSet::new();
    // What does not answer in time has no connection left.
    let mut standing = std::mem::take(connections);
    for at in servers.iter().copied().take(ASKED_MAX) {
        let (members, slots, at) = (Arc::clone(members), Arc::clone(slots), at.clone());
        let connection = standing.remove(&at);
        asking.spawn(async move {
            let server = members.server(&at);
            let asked = ask(&server, &at, &slots, connection);
            let result = timeout(ANSWER_WITHIN, asked).await;
            (at, result.unwrap_or_else(|_| Err(silent(&server))))
        });
    }
    let many = asking.len() / 2;
    let mut until = Instant::now() + 2 * ANSWER_WITHIN;
    let (mut answers, mut troubles) = (Vec::new(), Vec::new());
    while let Ok(Some(asked)) = timeout_at(until, asking.join_next()).await {
        let Ok(asked): Result<Asked, _> = asked else {
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

async fn ask(
    server: &Server,
    at: &Address,
    slots: &TopicSlots,
    standing: Option<Standing>,
) -> Result<(Answer, Standing), Trouble> {
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
        [info, ranges] => Answer::read(info, ranges, at, slots),
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
            "{at} is not part of a cluster: set adapter.driver to \"redis\", or {} to servers \
             of a cluster",
            keys.address
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
fn newest(answers: Vec<Answer>, current: Option<&SlotMap>) -> Option<SlotMap> {
    let rank = |answer: &Answer| {
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
