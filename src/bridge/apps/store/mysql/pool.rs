//! A few threads that may wait for the database, since its crate blocks.
//!
//! Owns: `Pool`: its threads, and the questions that wait for one.
//! May depend on: `store::crowd`, `mysql::{table, setup}`, `config`, crossbeam-channel, tokio's oneshot.
//! Invariants: there are at most `threads.max` threads and `WAITING_MAX` questions, whatever the
//! server does; a question whose asker went away is not put; a thread ends with the pool, or when
//! it was idle for long and more than `threads.min` are there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use super::{
    super::{
        AppName, StoreError,
        crowd::{Connections, WAITING_MAX},
        found::Found,
    },
    setup::MysqlSetup,
    table::Table,
};
use crate::{
    config::{App, AppDefaults},
    metrics::backend::Meter,
};

pub(super) enum Question {
    Find {
        name: AppName,
        answer: oneshot::Sender<Result<Option<App>, StoreError>>,
    },
    FindAll {
        ids: Vec<Box<str>>,
        answer: oneshot::Sender<Result<Vec<Found>, StoreError>>,
    },
}

struct Job {
    question: Question,
    defaults: Arc<AppDefaults>,
    until: Instant,
}

/// The question was not taken: as many wait as may.
#[derive(Debug)]
pub(super) struct Crowded;

#[derive(Debug)]
pub(super) struct Pool {
    setup: Arc<MysqlSetup>,
    /// Each thread has one.
    threads: Connections,
    meter: Meter,
    waiting: Sender<Job>,
    taken: Receiver<Job>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    threads: AtomicUsize,
    /// Questions that were taken and are not answered.
    open: AtomicUsize,
}

impl Pool {
    pub(super) fn new(setup: Arc<MysqlSetup>, threads: Connections, meter: Meter) -> Self {
        let (waiting, taken) = bounded(WAITING_MAX);
        Self {
            setup,
            threads,
            meter,
            waiting,
            taken,
            counts: Arc::default(),
        }
    }

    pub(super) fn ask(
        &self,
        question: Question,
        defaults: Arc<AppDefaults>,
    ) -> Result<(), Crowded> {
        let job = Job {
            question,
            defaults,
            until: now() + self.setup.timeout,
        };
        // Before it can be answered.
        let open = self.counts.open.fetch_add(1, Ordering::Relaxed) + 1;
        if self.waiting.try_send(job).is_err() {
            self.counts.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Crowded);
        }
        let threads = self.counts.threads.load(Ordering::Relaxed);
        if open > threads && threads < self.threads.max {
            self.add_thread();
        }
        Ok(())
    }

    /// The new thread runs where its maker does: on the bridge's core.
    fn add_thread(&self) {
        self.counts.threads.fetch_add(1, Ordering::Relaxed);
        let there = There(Arc::clone(&self.counts));
        let table = Table::new(Arc::clone(&self.setup), self.meter.clone());
        let (min, taken) = (self.threads.min, self.taken.clone());
        let thread = thread::Builder::new()
            .name("apps-mysql".to_owned())
            .stack_size(STACK_BYTES);
        // Without a new one the others answer, or nobody does and the deadline says so.
        _ = thread.spawn(move || run(&there, min, table, &taken));
    }
}

/// A thread is there, however it ends.
struct There(Arc<Counts>);

impl Drop for There {
    fn drop(&mut self) {
        self.0.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A question is open, however it ends.
struct Open<'a>(&'a Counts);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run(there: &There, threads_min: usize, mut table: Table, taken: &Receiver<Job>) {
    let counts = &there.0;
    loop {
        match taken.recv_timeout(IDLE) {
            Ok(job) => {
                job.put(&mut table, Open(counts));
            }
            Err(error) if error.is_disconnected() => return,
            Err(_) if counts.threads.load(Ordering::Relaxed) > threads_min => return,
            Err(_) => {}
        }
    }
}

impl Job {
    /// Closes the question before it is answered: who asks the next one at once finds a thread that
    /// is free.
    fn put(self, table: &mut Table, open: Open<'_>) {
        let (defaults, until) = (&*self.defaults, self.until);
        let may_retry = || now() < until;
        if !may_retry() || !self.question.is_wanted() {
            return;
        }
        // Who asked may have gone meanwhile.
        match self.question {
            Question::Find { name, answer } => {
                let found = table.find(&name, defaults, &may_retry);
                drop(open);
                _ = answer.send(found);
            }
            Question::FindAll { ids, answer } => {
                let found = table.find_all(&ids, defaults, &may_retry);
                drop(open);
                _ = answer.send(found);
            }
        }
    }
}

impl Question {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Find { answer, .. } => !answer.is_closed(),
            Self::FindAll { answer, .. } => !answer.is_closed(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "these threads wait in real time, and no simulation runs them"
)]
fn now() -> Instant {
    Instant::now()
}

/// As Sockudo 2.9: shorter than what servers and firewalls put up with.
const IDLE: Duration = Duration::from_secs(180);
/// A TLS handshake and the fold of one row need a fraction of it.
const STACK_BYTES: usize = 512 << 10;
