//! Connections to all masters as one end of a road.
//!
//! Owns: `Parts`.
//! May depend on: `adapter::{news, roads}`, `redis_cluster::{chart, slots}`, tokio.
//! Invariants: the end is told up when all masters are known and have a connection that stands, and down
//! when one of them ends; a master that comes while the end is up does not take it down unless it cannot
//! be reached; the end's trouble is that of a part, as long as it lasts.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        news::{Report, Trouble, TroubleKind, Wish},
        roads::Reporter,
    },
    chart::{Chart, KnownTopics},
    slots::{Address, SlotMap},
};
use crate::cluster::topic::Topic;

/// By address. What the road's end holds of each connection: `Line`.
pub(super) struct Parts<Line> {
    reporter: Reporter,
    chart: Chart,
    parts: BTreeMap<Address, Part<Line>>,
    /// All masters are known.
    is_whole: bool,
    /// Of who asks the cluster.
    trouble: Option<Trouble>,
    is_up: bool,
    ask_at: Instant,
}

struct Part<Line> {
    line: Line,
    reports: mpsc::Receiver<Report>,
    state: State,
    trouble: Option<Trouble>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was neither up nor did it fail.
    Fresh,
    Up,
    Down,
}

/// What happened.
pub(super) enum Turn {
    /// To be adopted.
    Known(KnownTopics),
    /// At one master.
    Heard(Address, Option<Heard>),
}

/// What is the road's own to follow.
pub(super) enum Heard {
    Live(Vec<(Topic, Wish)>),
    Lost(Vec<Topic>),
    /// Its connection is gone.
    Down,
}

impl<Line> Parts<Line> {
    pub(super) fn new(reporter: Reporter, chart: Chart) -> Self {
        Self {
            reporter,
            chart,
            parts: BTreeMap::new(),
            is_whole: false,
            trouble: None,
            is_up: false,
            ask_at: Instant::now(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn line(&self, at: &Address) -> Option<&Line> {
        self.parts.get(at).map(|part| &part.line)
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = (&Address, &Line)> {
        self.parts.iter().map(|(at, part)| (at, &part.line))
    }

    /// Takes what is known: begins connections, and gives back those of masters that are none any more.
    pub(super) fn adopt(
        &mut self,
        known: KnownTopics,
        mut begin: impl FnMut(&Address, Reporter) -> Line,
    ) -> Vec<(Address, Line)> {
        let masters = known.map.as_deref().map_or(&[][..], SlotMap::masters);
        self.is_whole = known.map.as_ref().is_some_and(|map| map.is_whole());
        self.trouble = match (&known.map, known.trouble) {
            (None, trouble) => trouble,
            (Some(_), _) if self.is_whole => None,
            (Some(_), trouble) => trouble.or_else(|| Some(uncovered())),
        };
        let gone = self.parts.extract_if(.., |at, _| !masters.contains(at));
        let gone = gone.map(|(at, part)| (at, part.line)).collect();
        for at in masters {
            if !self.parts.contains_key(at) {
                let (reporter, reports) = self.reporter.part();
                let part = Part {
                    line: begin(at, reporter),
                    reports,
                    state: State::Fresh,
                    trouble: None,
                };
                self.parts.insert(at.clone(), part);
            }
        }
        gone
    }

    /// Waits for something to follow. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Turn {
        loop {
            let (is_down, ask_at) = (!self.is_up, self.ask_at);
            let Self { parts, chart, .. } = &mut *self;
            tokio::select! {
                biased;
                (at, report) = poll_fn(|waker| poll(parts, waker)) => {
                    let heard = self.follow(&at, report);
                    return Turn::Heard(at, heard);
                }
                known = chart.next() => return Turn::Known(known),
                // Who takes over from a master that is gone is told by nobody.
                () = sleep_until(ask_at), if is_down => {
                    self.ask_at = Instant::now() + ASK_EVERY;
                    self.chart.ask();
                }
            }
        }
    }

    /// Follows a part's connection. What is left is the road's own.
    fn follow(&mut self, at: &Address, report: Report) -> Option<Heard> {
        let part = self.parts.get_mut(at)?;
        match report {
            Report::Up(_) => {
                part.state = State::Up;
                part.trouble = None;
                None
            }
            Report::Down(_, trouble) => {
                part.state = State::Down;
                part.trouble = Some(trouble);
                Some(Heard::Down)
            }
            Report::Trouble(_, trouble) => {
                if part.state == State::Fresh {
                    part.state = State::Down;
                }
                part.trouble = Some(trouble);
                None
            }
            Report::Cured(_) => {
                part.trouble = None;
                None
            }
            Report::Live(confirmed) => Some(Heard::Live(confirmed)),
            Report::Lost(topics) => Some(Heard::Lost(topics)),
        }
    }

    /// Tells what has become of the end. Whether it is up again.
    pub(super) async fn settle(&mut self) -> bool {
        let was_up = self.is_up;
        let will_do = |part: &Part<_>| match part.state {
            State::Up => true,
            State::Fresh => was_up,
            State::Down => false,
        };
        self.is_up = self.is_whole && self.parts.values().all(will_do);
        let troubles = self.parts.values().filter_map(|part| part.trouble.as_ref());
        let trouble = self.trouble.iter().chain(troubles).next().cloned();
        match (was_up, self.is_up, trouble) {
            (false, true, trouble) => {
                self.reporter.all_up().await;
                // What one of them is denied may have been heard before the last one stood.
                if let Some(trouble) = trouble {
                    self.reporter.trouble(trouble).await;
                }
            }
            (true, false, trouble) => {
                let trouble = trouble.unwrap_or_else(uncovered);
                self.reporter.down(trouble).await;
            }
            (_, _, Some(trouble)) => self.reporter.trouble(trouble).await,
            (_, _, None) => self.reporter.cured().await,
        }
        !was_up && self.is_up
    }

    pub(super) async fn tell(&mut self, report: Report) {
        self.reporter.pass(report).await;
    }
}

fn poll<Line>(
    parts: &mut BTreeMap<Address, Part<Line>>,
    waker: &mut Context<'_>,
) -> Poll<(Address, Report)> {
    for (at, part) in parts {
        if let Poll::Ready(Some(report)) = part.reports.poll_recv(waker) {
            return Poll::Ready((at.clone(), report));
        }
    }
    Poll::Pending
}

fn uncovered() -> Trouble {
    Trouble {
        kind: TroubleKind::Refused,
        sentence:
            "the Redis Cluster has slots that no master serves: look at `redis-cli --cluster check`"
                .to_owned(),
    }
}

const ASK_EVERY: Duration = Duration::from_millis(500);
