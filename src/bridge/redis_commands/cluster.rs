//! Commands to a Redis Cluster: each to the master of its key.
//!
//! Owns: `Cluster`.
//! May depend on: `redis_commands::kept`, `adapter::news`, `adapter::redis_cluster::{chart, members, slots}`, the crate
//! `redis`, tokio.
//! Invariants: a command that a server redirected was not carried out there, and only such a one is sent
//! again; masters that are no more have no connection left.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    CommandFault,
    kept::{Kept, count},
};
use crate::{
    bridge::adapter::{
        news::Trouble,
        redis_cluster::{
            chart::{self, Known},
            members::Members,
            slots::{Address, AllSlots, slot_of_key},
        },
    },
    metrics::backend::Meter,
};

/// The masters of a cluster.
pub(super) struct Cluster {
    masters: watch::Receiver<Masters>,
    /// What is known may be wrong.
    asked: Arc<Notify>,
    // Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
enum Masters {
    /// Nobody has answered so far.
    Begun,
    Known(Arc<Connected>),
    Unknown(Trouble),
}

/// A connection to each of them.
struct Connected {
    map: Arc<AllSlots>,
    /// Each slot has a master.
    is_whole: bool,
    kept: BTreeMap<Address, Arc<Kept>>,
}

impl Connected {
    fn new(map: Arc<AllSlots>, kept: BTreeMap<Address, Arc<Kept>>) -> Self {
        let is_whole = (0..SLOTS).all(|slot| map.owner(slot).is_some());
        Self {
            map,
            is_whole,
            kept,
        }
    }

    fn trouble(&self) -> Option<String> {
        let of_master = self.kept.values().find_map(|kept| kept.trouble());
        of_master.or_else(|| (!self.is_whole).then(|| NO_MASTER.to_owned()))
    }
}

impl Masters {
    fn has_hole(&self) -> bool {
        matches!(self, Self::Known(it) if !it.is_whole)
    }
}

impl Cluster {
    pub(super) fn start(members: Members, purpose: &'static str, meter: Meter) -> Self {
        let members = Arc::new(members);
        let (sender, known) = watch::channel(Known::default());
        let (connected, masters) = watch::channel(Masters::Begun);
        let asked = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(chart::keep(
            Arc::clone(&members),
            AllSlots::read,
            sender,
            Arc::clone(&asked),
        ));
        tasks.spawn(follow(members, purpose, meter, known, connected));
        Self {
            masters,
            asked,
            _tasks: tasks,
        }
    }

    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.masters.borrow() {
            Masters::Begun => Some("not connected yet".to_owned()),
            Masters::Unknown(trouble) => Some(trouble.sentence.clone()),
            Masters::Known(it) => it.trouble(),
        }
    }

    /// Why it does not answer, where another try will not mend that.
    pub(super) fn refusal(&self) -> Option<String> {
        match &*self.masters.borrow() {
            Masters::Begun => None,
            Masters::Unknown(trouble) => trouble.refusal(),
            Masters::Known(it) => it.kept.values().find_map(|kept| kept.refusal()),
        }
    }

    pub(super) async fn run(
        &self,
        key: &str,
        commands: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, CommandFault> {
        let until = Instant::now() + within;
        let slot = slot_of_key(key);
        let mut answers = self.ask(slot, commands, until).await?;
        loop {
            let indices = 0..answers.len();
            let astray: Vec<usize> = indices.filter(|it| is_astray(&answers[*it])).collect();
            if astray.is_empty() || Instant::now() >= until {
                return Ok(answers);
            }
            self.look_again(until).await;
            let mut again = Pipeline::new();
            for (index, command) in commands.cmd_iter().enumerate() {
                if astray.contains(&index) {
                    again.add_command(command.clone());
                }
            }
            let others = self.ask(slot, &again, until).await?;
            for (index, answer) in astray.into_iter().zip(others) {
                answers[index] = answer;
            }
        }
    }

    pub(super) async fn run_each(
        &self,
        commands: &[(String, Cmd)],
        within: Duration,
    ) -> Vec<Result<Value, CommandFault>> {
        let until = Instant::now() + within;
        let mut answers: Vec<Option<Result<Value, CommandFault>>> = vec![None; commands.len()];
        // By master, known by its connection.
        let mut groups: BTreeMap<usize, (Arc<Kept>, Vec<usize>)> = BTreeMap::new();
        for (index, (key, _)) in commands.iter().enumerate() {
            match self.master(slot_of_key(key), until).await {
                Ok(master) => {
                    let group = groups.entry(Arc::as_ptr(&master).addr());
                    group.or_insert_with(|| (master, Vec::new())).1.push(index);
                }
                Err(fault) => answers[index] = Some(Err(fault)),
            }
        }
        let mut asking = JoinSet::new();
        for (master, indices) in groups.into_values() {
            let commands: Vec<_> = indices.iter().map(|it| commands[*it].clone()).collect();
            let left = until.saturating_duration_since(Instant::now());
            asking.spawn(async move { (indices, master.run_each(&commands, left).await) });
        }
        while let Some(Ok((indices, said))) = asking.join_next().await {
            for (index, answer) in indices.into_iter().zip(said) {
                answers[index] = Some(answer);
            }
        }
        let mut all = Vec::with_capacity(commands.len());
        for ((key, command), answer) in commands.iter().zip(answers) {
            let lost = || Err(CommandFault::Unknown("the question was lost".to_owned()));
            let mut answer = answer.unwrap_or_else(lost);
            match &answer {
                Ok(value) if is_astray(value) => answer = self.again(key, command, until).await,
                Ok(_) => {}
                Err(_) => self.asked.notify_one(),
            }
            all.push(answer);
        }
        all
    }

    /// Sends one again that a server redirected.
    async fn again(&self, key: &str, command: &Cmd, until: Instant) -> Result<Value, CommandFault> {
        self.look_again(until).await;
        let mut pipeline = Pipeline::new();
        pipeline.add_command(command.clone());
        let left = until.saturating_duration_since(Instant::now());
        let mut answers = self.run(key, &pipeline, left).await?;
        let lost = || CommandFault::Unknown("the question was lost".to_owned());
        answers.pop().ok_or_else(lost)
    }

    async fn ask(
        &self,
        slot: u16,
        commands: &Pipeline,
        until: Instant,
    ) -> Result<Vec<Value>, CommandFault> {
        let master = self.master(slot, until).await?;
        let left = until.saturating_duration_since(Instant::now());
        let answers = master.run(commands, left).await;
        if answers.is_err() {
            self.asked.notify_one();
        }
        answers
    }

    /// The master of the slot; waits while none was found out so far.
    async fn master(&self, slot: u16, until: Instant) -> Result<Arc<Kept>, CommandFault> {
        let mut masters = self.masters.clone();
        let begun = masters.wait_for(|it| !matches!(it, Masters::Begun));
        let masters = match timeout_at(until, begun).await {
            Ok(Ok(masters)) => masters.clone(),
            Ok(Err(_)) | Err(_) => Masters::Begun,
        };
        match masters {
            Masters::Known(it) => {
                let kept = it.map.owner(slot).and_then(|at| it.kept.get(at));
                kept.cloned().ok_or_else(|| {
                    self.asked.notify_one();
                    CommandFault::Down(NO_MASTER.to_owned())
                })
            }
            Masters::Unknown(trouble) => Err(CommandFault::Down(trouble.sentence)),
            Masters::Begun => Err(CommandFault::Down("not connected yet".to_owned())),
        }
    }

    /// Waits for what may be better than what is known, a moment.
    async fn look_again(&self, until: Instant) {
        let mut masters = self.masters.clone();
        masters.mark_unchanged();
        self.asked.notify_one();
        _ = timeout_at(until, timeout(LOOK_AGAIN_WITHIN, masters.changed())).await;
    }
}

/// Keeps a connection to each master, for as long as somebody may ask.
async fn follow(
    members: Arc<Members>,
    purpose: &'static str,
    meter: Meter,
    mut known: watch::Receiver<Known<AllSlots>>,
    masters: watch::Sender<Masters>,
) {
    let mut kept: BTreeMap<Address, Arc<Kept>> = BTreeMap::new();
    while known.changed().await.is_ok() {
        let Known { map, trouble } = known.borrow_and_update().clone();
        let now = match (map, trouble) {
            (Some(map), _) => {
                kept.retain(|at, _| map.masters().contains(at));
                for at in map.masters() {
                    let start =
                        || Arc::new(Kept::start(members.server(at), purpose, meter.clone()));
                    kept.entry(at.clone()).or_insert_with(start);
                }
                let kept = kept.clone();
                Masters::Known(Arc::new(Connected::new(map, kept)))
            }
            (None, Some(trouble)) => {
                count(&meter, &trouble);
                Masters::Unknown(trouble)
            }
            (None, None) => continue,
        };
        if let Masters::Unknown(Trouble { sentence, .. }) = &now
            && !matches!(&*masters.borrow(), Masters::Unknown(said) if said.sentence == *sentence)
        {
            tracing::warn!(purpose, "{sentence}");
        }
        if now.has_hole() && !masters.borrow().has_hole() {
            tracing::warn!(purpose, "{NO_MASTER}");
        }
        masters.send_replace(now);
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("trouble", &self.trouble())
            .finish()
    }
}

/// The slot is another server's, or on its way to it.
fn is_astray(answer: &Value) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
    let Value::ServerError(error) = answer else {
        return false;
    };
    let error: RedisError = error.clone().into();
    matches!(
        error.kind(),
        ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown)
    )
}

const LOOK_AGAIN_WITHIN: Duration = Duration::from_millis(250);
const SLOTS: u16 = 16_384;
const NO_MASTER: &str = "the Redis Cluster has no master for a slot";

#[cfg(test)]
mod tests {
    use super::*;

    /// What one server says of its cluster: a master of each range.
    fn map(ranges: &[(i64, i64)]) -> AllSlots {
        let master = Value::Array(vec![Value::BulkString(b"h".to_vec()), Value::Int(1)]);
        let range = |(first, last): &(i64, i64)| {
            Value::Array(vec![Value::Int(*first), Value::Int(*last), master.clone()])
        };
        let asked = Address {
            host: "h".to_owned(),
            port: 1,
        };
        let ranges = Value::Array(ranges.iter().map(range).collect());
        AllSlots::read(&ranges, &asked).expect("a map")
    }

    #[tokio::test]
    async fn a_cluster_with_a_slot_that_no_master_has_is_in_trouble_until_one_has_it() {
        let (sender, masters) = watch::channel(Masters::Begun);
        let cluster = Cluster {
            masters,
            asked: Arc::default(),
            _tasks: JoinSet::new(),
        };
        let cases: [(&[(i64, i64)], bool); 5] = [
            (&[(0, 16_383)], false),
            (&[(0, 8_000), (8_002, 16_383)], true),
            (&[(0, 8_001), (8_002, 16_383)], false),
            (&[(1, 16_383)], true),
            (&[(0, 16_382)], true),
        ];
        for (ranges, has_hole) in cases {
            let known = Connected::new(Arc::new(map(ranges)), BTreeMap::new());
            sender.send_replace(Masters::Known(Arc::new(known)));
            let trouble = cluster.trouble();
            assert_eq!(
                trouble.as_deref(),
                has_hole.then_some(NO_MASTER),
                "{ranges:?}"
            );
        }
    }
}
