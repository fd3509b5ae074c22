//! Jobs in SQS: a queue that any node takes from, and one of dead letters.
//!
//! Owns: `SqsStore`: what a turn says; `polls`, the tasks that fetch and lend; `jobs`, what they brought; `letters`.
//! May depend on: `bridge::{aws, queue}`, `config`, `metrics::backend`, tokio, the AWS crates.
//! Invariants: a message is deleted when its job is done or a letter, not before; what this node has is lent to it
//! again and again for as long as it lives; what is sent again after a fault is kept once by a FIFO queue.

mod calls;
mod fault;
mod jobs;
mod letters;
mod polls;
mod setup;
mod text;

pub use setup::SqsSetup;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, Notify, watch};

use self::{
    calls::{BATCH_MAX, Calls, Sent, Which},
    fault::Failed,
    jobs::{Jobs, Lend},
    text::{Message, Messages},
};
use super::{Again, Answer, Dead, Put, Receipt, StoreFault, StoreState, Take, Turn};
use crate::{
    bridge::{aws::NoCredentials, queue::dead::DeadLetter, webhook::wall_ms},
    metrics::backend::{Meter, Role},
};

/// The queue. A clone is the same.
#[derive(Clone, Debug)]
pub struct SqsStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    calls: Calls,
    /// Of this process and no other.
    node: Box<str>,
    jobs: Mutex<Jobs>,
    /// Of the latest put, which may have been sent in part.
    sending: Mutex<Sending>,
    /// Something waits to be taken.
    ready: Notify,
    /// There may be room again.
    room: Notify,
    /// What the tasks that fetch met last; `None` = they are well.
    fault: watch::Sender<Option<Failed>>,
    has_begun: AtomicBool,
    /// Once, to anything.
    has_answered: AtomicBool,
    is_closing: AtomicBool,
    counts: Counts,
    meter: Meter,
    /// Letters that were read, by their numbers.
    letters: Mutex<BTreeMap<u64, String>>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    dead: AtomicU64,
}

#[derive(Debug, Default)]
struct Sending {
    number: u64,
    /// What waits to be sent yet.
    left: Vec<Sent>,
    too_large: u64,
}

impl SqsStore {
    /// Looks for credentials; `node` is of this process and no other, before or after.
    ///
    /// # Errors
    /// When there are no credentials.
    pub fn start(setup: SqsSetup, node: &str) -> Result<Self, NoCredentials> {
        let client = setup.client()?;
        Ok(Self(Arc::new(Shared {
            calls: Calls::new(setup, client),
            node: node.into(),
            jobs: Mutex::default(),
            sending: Mutex::default(),
            ready: Notify::new(),
            room: Notify::new(),
            fault: watch::Sender::new(None),
            has_begun: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            counts: Counts::default(),
            meter: Meter::new("sqs", Role::Queue),
            letters: Mutex::default(),
        })))
    }

    pub(super) async fn reach(&self) -> Result<(), StoreFault> {
        let calls = &self.0.calls;
        let reached = calls.reach().await;
        reached.map_err(|failed| failed.told(&calls.setup))
    }

    /// Ends when there may be something to take.
    pub(super) async fn ready(&self) {
        self.0.ready.notified().await;
    }

    pub(super) async fn turn(&self, turn: &Turn) -> Result<Answer, StoreFault> {
        let shared = &self.0;
        // Who only looks at letters takes no jobs.
        if !shared.has_begun.swap(true, Ordering::Relaxed) {
            polls::begin(shared);
        }
        let answer = shared.turn(turn).await;
        answer.map_err(|failed| {
            shared.meter.failed(failed.kind());
            failed.told(&shared.calls.setup)
        })
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.0.meter
    }
}

impl Shared {
    async fn turn(self: &Arc<Self>, turn: &Turn) -> Result<Answer, Failed> {
        let is_closing = turn.take.room_per_target == 0;
        if is_closing && !self.is_closing.swap(true, Ordering::Relaxed) {
            self.room.notify_waiters();
            let back = self.jobs.lock().await.give_up();
            self.lend(&back).await?;
        }
        let mut answer = Answer::default();
        match &turn.put {
            None => {}
            Some(put) => match self.put(put).await {
                Ok(too_large) => answer.state.overflown = too_large,
                Err(failed) if failed.is_silence() => return Err(failed),
                // It answers, and refuses.
                Err(failed) => {
                    self.meter.failed(failed.kind());
                    answer.put_fault = Some(failed.told(&self.calls.setup));
                }
            },
        }
        self.finish(turn.done.iter()).await?;
        self.again(&turn.again).await?;
        self.back(&turn.back, &turn.take, is_closing).await?;
        self.bury(&turn.dead).await?;
        let has_said = turn.put.is_some() || !turn.done.is_empty() || !turn.dead.is_empty();
        self.has_answered.fetch_or(has_said, Ordering::Relaxed);
        answer.is_unheard = !self.has_answered.load(Ordering::Relaxed);
        let mut jobs = self.jobs.lock().await;
        let fault = self.fault.borrow().clone();
        if let (Some(failed), false, false) = (fault, has_said, jobs.has_waiting()) {
            return Err(failed);
        }
        if !is_closing {
            let (taken, unwanted) = jobs.take(&turn.take);
            answer.taken = taken;
            self.lend_soon(unwanted);
            self.room.notify_one();
        }
        let take = &turn.take;
        let asked = take.targets.iter().map(|it| &it.target);
        let asked = asked.chain(take.leave.iter().map(|(target, _)| target));
        let mut released: Vec<_> = asked.filter(|it| !jobs.has_any_of(**it)).copied().collect();
        released.sort_unstable();
        released.dedup();
        answer.released = released;
        answer.state = StoreState {
            waiting: self.counts.waiting.load(Ordering::Relaxed),
            dead: self.counts.dead.load(Ordering::Relaxed),
            ..answer.state
        };
        Ok(answer)
    }

    /// Sends what was not sent of it yet; the number of parts that no message can hold.
    async fn put(&self, put: &Put) -> Result<u64, Failed> {
        let mut sending = self.sending.lock().await;
        if sending.number != put.number {
            let bytes_max = self.calls.queue(Which::Jobs).await?.bytes_max;
            *sending = self.messages(put, bytes_max).await?;
        }
        while !sending.left.is_empty() {
            let sent = self.calls.send(Which::Jobs, &sending.left).await?;
            sending.left.drain(..sent);
        }
        Ok(std::mem::take(&mut sending.too_large))
    }

    async fn messages(&self, put: &Put, bytes_max: usize) -> Result<Sending, Failed> {
        let groups = self.calls.setup.groups.as_ref();
        let (mut left, mut too_large) = (Vec::with_capacity(put.jobs.len()), Vec::new());
        for job in &put.jobs {
            let messages = Messages::of(job, groups, bytes_max);
            too_large.extend(messages.too_large);
            for message in messages.all {
                let number = format!("{}-{}-{}", self.node, put.number, left.len());
                left.push(Sent { message, number });
            }
        }
        let letters = too_large.iter().map(|bytes| {
            let fault = format!("{bytes} bytes are more than a message of the queue may have");
            DeadLetter::of_malformed(wall_ms(), &fault)
        });
        let letters: Vec<Vec<u8>> = letters.collect();
        self.write_letters(letters.iter().map(|it| &**it)).await?;
        Ok(Sending {
            number: put.number,
            left,
            too_large: too_large.len() as u64,
        })
    }

    async fn write_letters(&self, texts: impl Iterator<Item = &[u8]>) -> Result<(), Failed> {
        let sent = |text| Sent {
            message: Message {
                text: text::plain(text),
                group: None,
            },
            number: String::new(),
        };
        let mut left: Vec<Sent> = texts.map(sent).collect();
        while !left.is_empty() {
            let sent = self.calls.send(Which::Letters, &left).await?;
            left.drain(..sent);
        }
        Ok(())
    }

    /// Deletes what is done.
    async fn finish(&self, receipts: impl Iterator<Item = &Receipt>) -> Result<(), Failed> {
        let jobs = self.jobs.lock().await;
        let all: Vec<Lend> = receipts.filter_map(|it| jobs.lend(&it.text, 0)).collect();
        drop(jobs);
        for some in all.chunks(BATCH_MAX) {
            let handles: Vec<String> = some.iter().map(|it| it.handle.clone()).collect();
            self.calls.delete(Which::Jobs, &handles).await?;
            let mut jobs = self.jobs.lock().await;
            some.iter().for_each(|it| jobs.let_go(&it.id));
        }
        Ok(())
    }

    async fn again(&self, again: &[Again]) -> Result<(), Failed> {
        let jobs = self.jobs.lock().await;
        let lend = |it: &Again| {
            let seconds = i32::try_from(it.ms.div_ceil(1_000)).unwrap_or(i32::MAX);
            jobs.lend(&it.receipt.text, seconds)
        };
        let all: Vec<Lend> = again.iter().filter_map(lend).collect();
        drop(jobs);
        for some in all.chunks(BATCH_MAX) {
            self.calls.lend(Which::Jobs, some).await?;
            let mut jobs = self.jobs.lock().await;
            for lend in some {
                jobs.was_tried(&lend.id);
                jobs.let_go(&lend.id);
            }
        }
        Ok(())
    }

    async fn back(&self, back: &[Receipt], take: &Take, is_closing: bool) -> Result<(), Failed> {
        let jobs = self.jobs.lock().await;
        let lend = |receipt: &Receipt| {
            let left = take.leave.iter().find(|(it, _)| *it == receipt.target);
            let left = left.map(|(_, ms)| i32::try_from(ms.div_ceil(1_000)).unwrap_or(i32::MAX));
            let seconds = match is_closing {
                true => 0,
                false => left.unwrap_or_else(|| jobs.rest_s(receipt)),
            };
            jobs.lend(&receipt.text, seconds)
        };
        let all: Vec<Lend> = back.iter().filter_map(lend).collect();
        drop(jobs);
        self.lend(&all).await?;
        let mut jobs = self.jobs.lock().await;
        all.iter().for_each(|it| jobs.let_go(&it.id));
        Ok(())
    }

    /// Writes letters, and deletes the jobs of which they are.
    async fn bury(&self, dead: &[Dead]) -> Result<(), Failed> {
        for some in dead.chunks(BATCH_MAX) {
            let jobs = self.jobs.lock().await;
            // One that was said before is a letter already.
            let is_new = |it: &&Dead| match &it.receipt {
                Some(receipt) => jobs.lend(&receipt.text, 0).is_some(),
                None => true,
            };
            let new: Vec<&Dead> = some.iter().filter(is_new).collect();
            drop(jobs);
            self.write_letters(new.iter().map(|it| &*it.text)).await?;
            self.finish(new.iter().filter_map(|it| it.receipt.as_ref()))
                .await?;
        }
        Ok(())
    }

    async fn lend(&self, lends: &[Lend]) -> Result<(), Failed> {
        for some in lends.chunks(BATCH_MAX) {
            self.calls.lend(Which::Jobs, some).await?;
        }
        Ok(())
    }

    /// What fails to go back is free by itself after a while.
    fn lend_soon(self: &Arc<Self>, lends: Vec<Lend>) {
        if !lends.is_empty() {
            let shared = Arc::clone(self);
            tokio::spawn(async move { _ = shared.lend(&lends).await });
        }
    }
}
