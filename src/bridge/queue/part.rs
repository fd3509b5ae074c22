//! One part of a queue that nodes share, as this node sees it.
//!
//! Owns: `Part`: events that are not in the store yet, the jobs this node has of it, what the store is to be
//! told, and when.
//! May depend on: `bridge::queue`, `metrics::bridge`. Time is an argument; who speaks to the store does so
//! elsewhere.
//! Invariants: one turn is under way at a time; what a turn said is said again until it was answered; jobs that the
//! store refuses hold nothing up that it does not refuse; what waits here has the bound of the memory queue, and its
//! policy; a target that fails has one job here; what an app has of the room leaves a third of it to others.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shards::application::Millis;

use super::{
    Job, QueueSettings, TargetId, TargetName, between_half_and_all,
    memory::{Left, MemoryQueue, OVERFLOW_REMEMBERED_MS},
    owned::Owned,
    record::Record,
    store::{Again, Answer, Dead, NewJob, Put, Receipt, StoreFault, StoreState, Take, Taken, Turn},
};
use crate::{
    bridge::webhook_event::WebhookEvent, metrics::bridge::WebhookCounters, protocol::app::AppIndex,
};

/// Bounds of what this node has of a part.
#[derive(Clone, Copy, Debug)]
pub struct PartBounds {
    /// Jobs of targets that answer.
    pub jobs_max: usize,
    /// Jobs of one of them.
    pub jobs_per_target_max: usize,
}

/// One part.
#[derive(Debug)]
pub struct Part {
    bounds: PartBounds,
    /// Not in the store yet.
    backlog: MemoryQueue,
    /// Said to the store and not answered.
    sending: Option<Sending>,
    put_number: u64,
    turn_number: u64,
    /// Each job that this node has.
    held: BTreeSet<Receipt>,
    /// Targets that this node has, and how many jobs of them.
    owned: Owned,
    say: Say,
    under_way: Option<UnderWay>,
    rhythm: Rhythm,
    /// The store has answered a turn.
    is_heard: bool,
    /// What the store said last of its beginning.
    born: Option<Arc<str>>,
    /// When the store has given up jobs for want of room.
    overflowed_at: Option<Millis>,
    is_closing: bool,
    pub counters: PartCounters,
}

#[derive(Debug)]
struct Sending {
    put: Arc<Put>,
    jobs: Vec<(TargetId, Job)>,
}

/// What the store is to be told, in its order.
#[derive(Debug, Default)]
struct Say {
    done: Vec<Receipt>,
    again: Vec<(Receipt, Millis, Option<Arc<str>>)>,
    back: Vec<Receipt>,
    dead: Vec<Dead>,
    leave: Vec<(TargetName, u64)>,
}

/// What the turn under way says of it, and asks for.
#[derive(Debug)]
struct UnderWay {
    room: usize,
    wanted: BTreeMap<TargetName, usize>,
    done: usize,
    again: usize,
    back: usize,
    dead: usize,
    leave: usize,
    has_put: bool,
}

#[derive(Debug, Default)]
struct Rhythm {
    /// When the last turn ended.
    ended: Millis,
    /// Since when something waits to be called done.
    done_since: Option<Millis>,
    /// The last turn gave all that was asked for: there may be more.
    is_hungry: bool,
    /// Turns that failed.
    turns: Pause,
    /// Puts that were refused while the rest of their turn was done: the next turns are without.
    puts: Pause,
    /// A turn may have given jobs that were never heard of.
    is_unsure: bool,
}

/// How often something failed in a row, and until when it is not tried again.
#[derive(Debug, Default)]
struct Pause {
    failures: u32,
    resumes: Millis,
}

impl Pause {
    /// `jitter` is in 0..1.
    fn failed(&mut self, now: Millis, jitter: f64) {
        let doublings = self.failures.min(5);
        self.failures = self.failures.saturating_add(1);
        let full = (POLL_MS << doublings).min(PAUSE_MAX_MS);
        self.resumes = now.plus(between_half_and_all(full, jitter));
    }

    fn is_over(&self, now: Millis) -> bool {
        self.resumes <= now
    }
}

/// What a part counts, and the latest of the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartCounters {
    pub put: u64,
    pub taken: u64,
    /// Turns that had no answer, and puts that were refused.
    pub faults: u64,
    /// Times that the store had lost what it knew.
    pub forgot: u64,
    /// What the store said last; what only grows is summed.
    pub store: StoreState,
}

/// What the caller does with an answer.
#[derive(Debug, Default)]
pub struct Heard {
    pub taken: Vec<Taken>,
    /// The store gave this node's jobs away: those that were not tried are to be let go.
    pub was_dead: bool,
    /// The store has lost them: nobody else has what this node has.
    pub has_forgotten: bool,
}

/// A store is asked so often although there is nothing to say: for what others left, and to live.
const POLL_MS: u64 = 250;
/// What is done waits so long for company, unless it is one of so many parts of all the jobs that may be here.
const DONE_MS: u64 = 15;
const DONE_PART: usize = 4;
/// Jobs and bytes of one turn.
const PUT_JOBS_MAX: usize = 512;
const PUT_BYTES_MAX: usize = 1024 * 1024;
/// Of letters that wait for the store, beside `PUT_JOBS_MAX` of them, and as much again in the turn under way.
const LETTERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of a target that this node did not have: with the next turn come more.
const FIRST_JOBS: usize = 1;
/// Targets asked for in one turn.
const ASKED_MAX: usize = 128;
/// A store that does not answer, or refuses jobs, is asked again after so long at most.
const PAUSE_MAX_MS: u64 = 2_000;

impl Part {
    pub fn new(settings: QueueSettings, bounds: PartBounds) -> Self {
        assert!(
            bounds.jobs_max > 0,
            "a part that may have no job delivers none"
        );
        Self {
            bounds,
            backlog: MemoryQueue::new(settings),
            sending: None,
            put_number: 0,
            turn_number: 0,
            held: BTreeSet::new(),
            owned: Owned::default(),
            say: Say::default(),
            under_way: None,
            rhythm: Rhythm::default(),
            is_heard: false,
            born: None,
            overflowed_at: None,
            is_closing: false,
            counters: PartCounters::default(),
        }
    }

    pub fn reconfigure(&mut self, settings: QueueSettings, now: Millis) {
        self.backlog.reconfigure(settings, now);
    }

    pub fn push(&mut self, target: TargetId, app: AppIndex, event: Arc<WebhookEvent>, now: Millis) {
        self.backlog.push(target, app, event, now);
    }

    /// Drops what waits here for targets that are no more.
    pub fn retain(&mut self, is_there: impl Fn(TargetId) -> bool) {
        self.backlog.retain(is_there);
    }

    /// Jobs of the backlog that were given up, and what was counted of them.
    pub fn take_left(&mut self) -> (Vec<Left>, WebhookCounters) {
        let counters = std::mem::take(&mut self.backlog.counters);
        (self.backlog.take_left(), counters)
    }

    /// A job of this node's was delivered.
    pub fn done(&mut self, receipt: &Receipt, now: Millis) {
        self.let_go(receipt);
        self.say.done.push(receipt.clone());
        self.rhythm.done_since.get_or_insert(now);
    }

    /// A job of this node's is to be tried again. `error` is what its attempt met.
    pub fn again(&mut self, receipt: &Receipt, due: Millis, error: Option<Arc<str>>) {
        self.let_go(receipt);
        self.say.again.push((receipt.clone(), due, error));
    }

    /// A job that was not tried is free for all.
    pub fn back(&mut self, receipt: &Receipt) {
        self.let_go(receipt);
        self.say.back.push(receipt.clone());
    }

    /// A job is given up.
    pub fn dead(&mut self, dead: Dead) {
        if let Some(receipt) = &dead.receipt {
            self.let_go(receipt);
        }
        self.say.dead.push(dead);
        self.bound_letters();
    }

    /// While the store is away letters gather; they have a bound there, and here. Beyond it the oldest go of
    /// those that the turn under way does not say.
    fn bound_letters(&mut self) {
        let said = self.under_way.as_ref().map_or(0, |it| it.dead);
        let unsaid = self.say.dead.iter().skip(said);
        let (mut count, mut bytes) = unsaid.fold((0, 0), |(count, bytes), it| {
            (count + 1, bytes + it.text.len())
        });
        if count <= PUT_JOBS_MAX && bytes <= LETTERS_BYTES_MAX {
            return;
        }
        let (mut place, mut dropped) = (0, 0);
        self.say.dead.retain(|it| {
            place += 1;
            let is_over = count > PUT_JOBS_MAX || bytes > LETTERS_BYTES_MAX;
            let goes = place > said && is_over && it.receipt.is_none();
            if goes {
                count -= 1;
                bytes -= it.text.len();
                dropped += 1;
            }
            !goes
        });
        self.counters.store.dead_dropped += dropped;
    }

    /// Others may have a target that this node cannot serve, after so many milliseconds.
    pub fn leave(&mut self, target: TargetName, ms: u64) {
        self.say.leave.push((target, ms));
    }

    /// A target that fails gets one job at a time.
    pub fn set_failing(&mut self, target: TargetName, is_failing: bool) {
        self.owned.set_failing(target, is_failing);
    }

    fn let_go(&mut self, receipt: &Receipt) {
        if self.held.remove(receipt) {
            self.owned.let_go(receipt.target);
        }
    }

    /// What is to be said now; `None` if nothing is, or something is under way. `name_of` tells the app's id
    /// and the target's name, `app_of` the app of a target.
    pub fn begin<'a>(
        &mut self,
        now: Millis,
        wall_ms: u64,
        name_of: impl Fn(TargetId) -> Option<(&'a str, TargetName)>,
        app_of: impl Fn(TargetName) -> Option<&'a str>,
    ) -> Option<Turn> {
        if self.due(now).is_none_or(|due| due > now) {
            return None;
        }
        let may_put = self.rhythm.puts.is_over(now);
        if self.sending.is_none() && may_put {
            self.sending = self.next_put(now, wall_ms, name_of);
        }
        let sending = self.sending.as_ref().filter(|_| may_put);
        let put = sending.map(|it| Arc::clone(&it.put));
        let take = self.take(app_of);
        let under_way = UnderWay {
            room: take.room,
            wanted: take.targets.iter().map(|it| (it.target, it.jobs)).collect(),
            done: self.say.done.len(),
            again: self.say.again.len(),
            back: self.say.back.len(),
            dead: self.say.dead.len(),
            leave: self.say.leave.len(),
            has_put: put.is_some(),
        };
        let again = self.say.again.iter();
        self.turn_number += 1;
        let turn = Turn {
            number: self.turn_number,
            put,
            done: self.say.done.clone(),
            again: again
                .map(|(receipt, due, error)| Again {
                    receipt: receipt.clone(),
                    ms: due.since(now),
                    error: error.clone(),
                })
                .collect(),
            back: self.say.back.clone(),
            dead: self.say.dead.clone(),
            take,
            holds: self
                .rhythm
                .is_unsure
                .then(|| self.held.iter().cloned().collect()),
        };
        self.under_way = Some(under_way);
        self.rhythm.done_since = None;
        Some(turn)
    }

    fn next_put<'a>(
        &mut self,
        now: Millis,
        wall_ms: u64,
        name_of: impl Fn(TargetId) -> Option<(&'a str, TargetName)>,
    ) -> Option<Sending> {
        let (mut jobs, mut new, mut bytes) = (Vec::new(), Vec::new(), 0);
        while new.len() < PUT_JOBS_MAX
            && bytes < PUT_BYTES_MAX
            && let Some((id, job)) = self.backlog.pop(now)
        {
            // `retain` has emptied the lanes of those that are no more.
            let Some((app_id, target)) = name_of(id) else {
                continue;
            };
            let mut text = Vec::with_capacity(256);
            let since_ms = wall_ms.saturating_sub(now.since(job.created));
            Record::write(&mut text, app_id, target, since_ms, &job);
            bytes += text.len();
            let channel = job.channels.first().copied().unwrap_or(0);
            new.push(NewJob {
                target,
                channel,
                text,
            });
            jobs.push((id, job));
        }
        if new.is_empty() {
            return None;
        }
        self.put_number += 1;
        let put = Arc::new(Put {
            number: self.put_number,
            jobs: new,
        });
        Some(Sending { put, jobs })
    }

    fn take<'a>(&mut self, app_of: impl Fn(TargetName) -> Option<&'a str>) -> Take {
        if self.is_closing {
            let idle = self.owned.idle().map(|target| (target, 0));
            let leave = idle.chain(self.say.leave.iter().copied());
            return Take {
                leave: leave.collect(),
                ..Take::default()
            };
        }
        let room = self.room();
        let most = self.bounds.jobs_per_target_max;
        let asked = self.owned.ask((room, most, ASKED_MAX), app_of);
        Take {
            room,
            room_per_target: most,
            room_per_new_target: FIRST_JOBS,
            apps: asked.apps,
            targets: asked.targets,
            is_new_first: self.turn_number.is_multiple_of(2),
            leave: self.say.leave.clone(),
            failing: Arc::clone(self.owned.failing()),
        }
    }

    /// The store has jobs: the next turn is due if there is room.
    pub fn is_offered(&mut self) {
        self.rhythm.is_hungry = true;
    }

    /// When something is to be said; `None` while something is under way.
    pub fn due(&self, now: Millis) -> Option<Millis> {
        if self.under_way.is_some() {
            return None;
        }
        let rhythm = &self.rhythm;
        let say = &self.say;
        let is_urgent = !say.again.is_empty()
            || !say.back.is_empty()
            || !say.dead.is_empty()
            || !say.leave.is_empty()
            || (rhythm.is_hungry && self.has_room())
            || (self.is_closing && self.owned.idle().next().is_some());
        let is_much = say.done.len() >= self.bounds.jobs_max.div_ceil(DONE_PART);
        let done = rhythm
            .done_since
            .map(|since| match is_much || !self.has_room() {
                true => now,
                false => since.plus(DONE_MS),
            });
        let put = match &self.sending {
            Some(_) => Some(now),
            None => self.backlog.next_due(),
        };
        let put = put.map(|due| due.max(rhythm.puts.resumes));
        let poll = rhythm.ended.plus(POLL_MS);
        let due = [is_urgent.then_some(now), done, put, Some(poll)];
        let due = due.into_iter().flatten().min()?;
        Some(due.max(rhythm.turns.resumes))
    }

    /// For jobs of targets that answer.
    fn room(&self) -> usize {
        self.bounds.jobs_max.saturating_sub(self.owned.busy())
    }

    fn has_room(&self) -> bool {
        !self.is_closing && self.room() > 0
    }

    /// The turn under way has ended. `jitter` is in 0..1.
    pub fn ended(
        &mut self,
        answer: Result<Answer, StoreFault>,
        now: Millis,
        jitter: f64,
    ) -> Result<Heard, StoreFault> {
        let under_way = self.under_way.take().expect("a turn ends once");
        self.rhythm.ended = now;
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                self.counters.faults += 1;
                self.rhythm.is_unsure = true;
                self.rhythm.turns.failed(now, jitter);
                self.bound_letters();
                return Err(fault);
            }
        };
        self.is_heard |= !answer.is_unheard;
        self.rhythm.is_unsure = false;
        self.rhythm.turns.failures = 0;
        self.say.done.drain(..under_way.done);
        self.say.again.drain(..under_way.again);
        self.say.back.drain(..under_way.back);
        self.say.dead.drain(..under_way.dead);
        self.say.leave.drain(..under_way.leave);
        if !self.say.done.is_empty() {
            self.rhythm.done_since.get_or_insert(now);
        }
        self.count(&answer.state);
        if answer.is_full {
            self.overflowed_at = Some(now);
        }
        match answer.put_fault.take() {
            Some(fault) => {
                self.counters.faults += 1;
                self.rhythm.puts.failed(now, jitter);
                tracing::debug!(%fault, "jobs are not kept");
            }
            None if under_way.has_put => {
                // A stop may have taken them back meanwhile: they are delivered twice.
                let sent = self.sending.take().map_or(0, |it| it.jobs.len());
                self.counters.put += sent as u64;
                self.rhythm.puts.failures = 0;
            }
            None => {}
        }
        let has_forgotten = self.born.is_some() && self.born != answer.born;
        self.counters.forgot += u64::from(has_forgotten);
        self.born = answer.born.take();
        let mut heard = self.hear(answer, &under_way);
        heard.has_forgotten = has_forgotten;
        if self.is_closing {
            self.owned.remove_idle();
        }
        Ok(heard)
    }

    fn hear(&mut self, answer: Answer, asked: &UnderWay) -> Heard {
        if answer.was_dead {
            self.owned.let_go_all();
            self.held.clear();
        }
        for target in &answer.released {
            // What came back meanwhile is counted again when it is taken.
            self.owned.remove(*target);
        }
        let mut got: BTreeMap<TargetName, usize> = BTreeMap::new();
        let mut taken = Vec::with_capacity(answer.taken.len());
        for job in answer.taken {
            if self.held.insert(job.receipt.clone()) {
                let target = job.receipt.target;
                self.owned.took(target);
                *got.entry(target).or_default() += 1;
                taken.push(job);
            }
        }
        self.counters.taken += taken.len() as u64;
        // Who was given all that was asked for may be given more.
        let wanted = |name: &TargetName| asked.wanted.get(name);
        let mut got = got.iter();
        self.rhythm.is_hungry = taken.len() >= asked.room.max(1)
            || got.any(|(name, count)| *count >= wanted(name).copied().unwrap_or(FIRST_JOBS));
        self.owned.forget_failing();
        Heard {
            taken,
            was_dead: answer.was_dead,
            has_forgotten: false,
        }
    }

    fn count(&mut self, state: &StoreState) {
        let sum = &mut self.counters.store;
        *sum = StoreState {
            recovered: sum.recovered + state.recovered,
            overflown: sum.overflown + state.overflown,
            dead_dropped: sum.dead_dropped + state.dead_dropped,
            ..*state
        };
    }

    /// The store does not answer, or takes no jobs.
    pub fn is_failing(&self) -> bool {
        self.is_away() || self.rhythm.puts.failures > 1
    }

    /// The store has answered, and does.
    pub fn is_up(&self) -> bool {
        self.is_heard && !self.is_failing()
    }

    fn is_away(&self) -> bool {
        self.rhythm.turns.failures > 1
    }

    /// It took no jobs when it was last given some.
    pub fn is_refused(&self) -> bool {
        self.rhythm.puts.failures > 0
    }

    /// The backlog overflowed a short while ago, or the store with what it was given.
    pub fn is_overflowing(&self, now: Millis) -> bool {
        let is_near = |at: Millis| now.since(at) < OVERFLOW_REMEMBERED_MS;
        self.backlog.is_failing(now) || self.overflowed_at.is_some_and(is_near)
    }

    /// Closes all batches, and takes no more jobs: the process is about to stop.
    pub fn close(&mut self, now: Millis) {
        self.is_closing = true;
        self.backlog.hurry(now);
        self.rhythm.turns.resumes = now;
        self.rhythm.puts.resumes = now;
    }

    /// All that was pushed is in the store, or was given up.
    pub fn is_put(&self) -> bool {
        self.backlog.is_idle() && self.sending.is_none()
    }

    /// Nothing waits here, this node has no job, and the store knows all of it, unless it is away.
    pub fn is_idle(&self) -> bool {
        let say = &self.say;
        let nothing_to_say = say.done.is_empty()
            && say.again.is_empty()
            && say.back.is_empty()
            && say.dead.is_empty();
        let is_known = nothing_to_say && self.owned.is_empty();
        self.is_put() && self.held.is_empty() && (is_known || self.is_away())
    }

    /// Gives out what the store has not taken, for a last try without it.
    pub fn take_backlog(&mut self, now: Millis) -> Vec<(TargetId, Job)> {
        let sent = self.sending.take().map_or_else(Vec::new, |it| it.jobs);
        let mut all = sent;
        while let Some(job) = self.backlog.pop(now) {
            all.push(job);
        }
        all
    }

    /// Counts what never reached the store as dead; returns how many events are lost with it.
    pub fn abandon(&mut self) -> usize {
        let sent = self.sending.take().map_or_else(Vec::new, |it| it.jobs);
        let sent: usize = sent.iter().map(|(_, job)| job.events.len()).sum();
        self.backlog.abandon() + sent
    }

    pub fn waiting_events(&self) -> usize {
        let sending = self.sending.iter().flat_map(|it| &it.jobs);
        let sending: usize = sending.map(|(_, job)| job.events.len()).sum();
        self.backlog.waiting_events() + sending
    }

    pub fn waiting_bytes(&self) -> usize {
        let sending = self.sending.iter().flat_map(|it| &it.jobs);
        let sending: usize = sending.map(|(_, job)| job.bytes).sum();
        self.backlog.waiting_bytes() + sending
    }

    pub fn oldest_ms(&self, now: Millis) -> u64 {
        let sending = self.sending.iter().flat_map(|it| &it.jobs);
        let sending = sending.map(|(_, job)| now.since(job.created)).max();
        self.backlog.oldest_ms(now).max(sending.unwrap_or(0))
    }
}
