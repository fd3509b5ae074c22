//! The bridge's end of both roads: what it asks of their connections, what they tell it.
//!
//! Owns: `Roads`, `RoadEnds` (what a driver's connections of one road hold), `Reporter`, what is logged of them.
//! May depend on: the rest of `adapter`, `metrics::backend`, tokio. Not on a driver.
//! Invariants: a road is told up when both of its connections stand and down when one ends, in turns;
//! topics are told live only while their road is up, and only for the last wish; one trouble of
//! several connections is one line.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use shards::application::PublishRoom;
use tokio::{sync::mpsc, time::Instant};

use super::{
    news::{End, News, Refused, Report, Trouble, TroubleKind, Wish},
    queue::{self, IncomingReceiver, IncomingSender, OutgoingReceiver, OutgoingSender, Taken},
    status::{RoadStatus, Status, Tally},
    wishes::{self, WishReceiver, WishSender},
};
use crate::{
    cluster::topic::{Road, Topic},
    metrics::backend::{Meter, Role},
};

/// Both roads, seen from the bridge.
#[derive(Debug)]
pub(super) struct Roads {
    meter: Meter,
    state: RoadLine,
    events: RoadLine,
}

/// What the connections of one road hold.
#[derive(Debug)]
pub(super) struct RoadEnds {
    pub(super) publisher: PublisherEnd,
    pub(super) subscriber: SubscriberEnd,
}

#[derive(Debug)]
pub(super) struct PublisherEnd {
    pub(super) outgoing: OutgoingReceiver,
    pub(super) reporter: Reporter,
    pub(super) tally: Arc<Tally>,
}

#[derive(Debug)]
pub(super) struct SubscriberEnd {
    pub(super) road: Road,
    pub(super) incoming: IncomingSender,
    pub(super) wishes: WishReceiver,
    pub(super) reporter: Reporter,
    pub(super) tally: Arc<Tally>,
}

/// How a connection tells what it is up to. A report that finds no room waits; the connection's
/// socket is read all the same, since that is another task.
#[derive(Debug)]
pub(super) struct Reporter {
    end: End,
    reports: mpsc::Sender<Report>,
    tally: Arc<Tally>,
    /// Told since it was last well.
    told: Option<TroubleKind>,
    has_been_up: bool,
}

impl Reporter {
    fn new(end: End, reports: &mpsc::Sender<Report>, tally: &Arc<Tally>) -> Self {
        Self {
            end,
            reports: reports.clone(),
            tally: Arc::clone(tally),
            told: None,
            has_been_up: false,
        }
    }

    pub(super) async fn up(&mut self) {
        if std::mem::replace(&mut self.has_been_up, true) {
            self.tally.reconnects.fetch_add(1, Ordering::Relaxed);
            self.tally.meter.reconnected();
        }
        self.told = None;
        self.report(Report::Up(self.end)).await;
    }

    /// An attempt to connect came to nothing.
    pub(super) async fn failed(&mut self, trouble: Trouble) {
        self.tally.connects_failed.fetch_add(1, Ordering::Relaxed);
        self.trouble(trouble).await;
    }

    pub(super) async fn down(&mut self, trouble: Trouble) {
        self.count(&trouble);
        self.told = Some(trouble.kind);
        self.report(Report::Down(self.end, trouble)).await;
    }

    fn count(&self, trouble: &Trouble) {
        let fault = trouble.kind.fault();
        fault.into_iter().for_each(|it| self.tally.meter.failed(it));
    }

    pub(super) async fn trouble(&mut self, trouble: Trouble) {
        self.count(&trouble);
        if self.told != Some(trouble.kind) {
            self.told = Some(trouble.kind);
            self.report(Report::Trouble(self.end, trouble)).await;
        }
    }

    pub(super) async fn cured(&mut self) {
        if self.told.take().is_some() {
            self.report(Report::Cured(self.end)).await;
        }
    }

    pub(super) async fn live(&mut self, confirmed: Vec<(Topic, Wish)>) {
        if !confirmed.is_empty() {
            self.report(Report::Live(confirmed)).await;
        }
    }

    pub(super) async fn lost(&mut self, topics: Vec<Topic>) {
        if !topics.is_empty() {
            self.report(Report::Lost(topics)).await;
        }
    }

    /// For one connection of several that are this end: what it tells goes to who watches over them.
    pub(super) fn part(&self) -> (Self, mpsc::Receiver<Report>) {
        let (reports, watched) = mpsc::channel(REPORTS_MAX);
        (Self::new(self.end, &reports, &self.tally), watched)
    }

    /// All parts stand, each of which has counted itself.
    pub(super) async fn all_up(&mut self) {
        self.told = None;
        self.report(Report::Up(self.end)).await;
    }

    /// What the parts tell, as one end.
    pub(super) async fn pass(&self, report: Report) {
        self.report(report).await;
    }

    async fn report(&self, report: Report) {
        _ = self.reports.send(report).await; // Who closes the bus hears no more.
    }
}

/// Reports that wait for the bridge.
const REPORTS_MAX: usize = 256;

impl Roads {
    /// Makes the roads; each direction of each holds at most so many bytes. `backend` is the bus in labels.
    pub(super) fn new(backend: &'static str, queue_bytes_max: usize) -> (Self, [RoadEnds; 2]) {
        let meter = Meter::new(backend, Role::Adapter);
        let (state, state_ends) = RoadLine::new(Road::State, queue_bytes_max, &meter);
        let (events, events_ends) = RoadLine::new(Road::Events, queue_bytes_max, &meter);
        let roads = Self {
            meter,
            state,
            events,
        };
        (roads, [state_ends, events_ends])
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(super) fn publish(&mut self, topic: Topic, batch: Vec<u8>) -> Result<(), Refused> {
        self.line(topic.road()).outgoing.send(topic, batch)
    }

    /// The queue to a road has room for so much beyond its mark that is on its way then.
    pub(super) fn widen(&mut self, road: Road, bytes: usize) {
        self.line(road).outgoing.widen(bytes);
    }

    /// What room the queue to a road has.
    pub(super) fn publish_room(&mut self, road: Road) -> PublishRoom {
        self.line(road).outgoing.publish_room()
    }

    pub(super) fn subscribe(&mut self, topic: Topic) {
        self.line(topic.road()).wishes.set(topic, true);
    }

    pub(super) fn unsubscribe(&mut self, topic: Topic) {
        self.line(topic.road()).wishes.set(topic, false);
    }

    fn line(&mut self, road: Road) -> &mut RoadLine {
        match road {
            Road::State => &mut self.state,
            Road::Events => &mut self.events,
        }
    }

    pub(super) async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.owed() {
                return news;
            }
            let (road, heard) = tokio::select! {
                biased;
                heard = self.state.hear() => (Road::State, heard),
                heard = self.events.hear() => (Road::Events, heard),
            };
            if let Some(news) = self.understand(road, heard) {
                return news;
            }
        }
    }

    pub(super) fn try_next(&mut self) -> Option<News> {
        if let Some(news) = self.owed() {
            return Some(news);
        }
        for road in [Road::State, Road::Events] {
            while let Some(heard) = self.line(road).try_hear() {
                if let Some(news) = self.understand(road, heard) {
                    return Some(news);
                }
            }
        }
        None
    }

    fn owed(&mut self) -> Option<News> {
        self.state.owed().or_else(|| self.events.owed())
    }

    fn understand(&mut self, road: Road, heard: Heard) -> Option<News> {
        let report = match heard {
            Heard::Taken(Taken::Batch { topic, bytes }) => {
                return Some(News::Batch { topic, bytes });
            }
            Heard::Taken(Taken::Dropped { batches }) => {
                return Some(News::Dropped { road, batches });
            }
            Heard::Report(report) => report,
        };
        match report {
            Report::Up(end) => {
                self.cure(road, end);
                self.line(road).up(end)
            }
            Report::Down(end, trouble) => {
                self.tell(road, end, trouble);
                self.line(road).down(end)
            }
            Report::Trouble(end, trouble) => {
                self.tell(road, end, trouble);
                None
            }
            Report::Cured(end) => {
                self.cure(road, end);
                None
            }
            Report::Live(confirmed) => self.line(road).live(confirmed),
            Report::Lost(topics) => self.line(road).lost(&topics),
        }
    }

    /// One server that is gone is the same trouble on each connection to it, however it shows there:
    /// that is one line.
    fn tell(&mut self, road: Road, end: End, trouble: Trouble) {
        if !self.troubles().any(|told| told.kind.is_like(trouble.kind)) {
            let (road, connection) = (road.name(), end.name());
            tracing::warn!(
                road,
                connection,
                "the bus between nodes: {}",
                trouble.sentence
            );
        }
        self.line(road).end(end).trouble = Some(trouble);
    }

    fn cure(&mut self, road: Road, end: End) {
        let trouble = self.line(road).end(end).trouble.take();
        if trouble.is_some() && self.troubles().next().is_none() {
            tracing::info!("the bus between nodes is well again");
        }
    }

    fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        let ends = self.state.ends.iter().chain(&self.events.ends);
        ends.filter_map(|end| end.trouble.as_ref())
    }

    pub(super) fn is_up(&self) -> bool {
        self.events.is_up && self.state.is_up
    }

    pub(super) fn status(&self, driver: &'static str) -> Status {
        Status {
            driver,
            events: self.events.status(),
            state: self.state.status(),
        }
    }
}

/// One road, seen from the bridge.
#[derive(Debug)]
struct RoadLine {
    road: Road,
    outgoing: OutgoingSender,
    incoming: IncomingReceiver,
    wishes: WishSender,
    reports: mpsc::Receiver<Report>,
    tally: Arc<Tally>,
    /// By `End`.
    ends: [EndState; 2],
    /// Confirmed on the connection that stands, each with the wish that was answered; at most one
    /// per topic.
    live: BTreeMap<Topic, Wish>,
    /// The road is up again, and what is live on it was not told since.
    owes_live: bool,
    is_up: bool,
    since: Instant,
}

#[derive(Debug, Default)]
struct EndState {
    is_up: bool,
    trouble: Option<Trouble>,
}

enum Heard {
    Report(Report),
    Taken(Taken),
}

impl RoadLine {
    fn new(road: Road, queue_bytes_max: usize, meter: &Meter) -> (Self, RoadEnds) {
        let tally = Arc::new(Tally::new(meter.clone()));
        let (outgoing, outgoing_end) = queue::outgoing(queue_bytes_max, Arc::clone(&tally));
        let (incoming_end, incoming) = queue::incoming(queue_bytes_max, Arc::clone(&tally));
        let (wishes, wishes_end) = wishes::wishes();
        let (reports_end, reports) = mpsc::channel(REPORTS_MAX);
        let ends = RoadEnds {
            publisher: PublisherEnd {
                outgoing: outgoing_end,
                reporter: Reporter::new(End::Publisher, &reports_end, &tally),
                tally: Arc::clone(&tally),
            },
            subscriber: SubscriberEnd {
                road,
                incoming: incoming_end,
                wishes: wishes_end,
                reporter: Reporter::new(End::Subscriber, &reports_end, &tally),
                tally: Arc::clone(&tally),
            },
        };
        let line = Self {
            road,
            outgoing,
            incoming,
            wishes,
            reports,
            tally,
            ends: Default::default(),
            live: BTreeMap::new(),
            owes_live: false,
            is_up: false,
            since: Instant::now(),
        };
        (line, ends)
    }

    /// Nothing is lost when the future is dropped. Reports come first: they are few, and say what
    /// the batches behind them are worth.
    async fn hear(&mut self) -> Heard {
        tokio::select! {
            biased;
            Some(report) = self.reports.recv() => Heard::Report(report),
            taken = self.incoming.take() => Heard::Taken(taken),
        }
    }

    fn try_hear(&mut self) -> Option<Heard> {
        match self.reports.try_recv() {
            Ok(report) => Some(Heard::Report(report)),
            Err(_) => self.incoming.try_take().map(Heard::Taken),
        }
    }

    fn end(&mut self, end: End) -> &mut EndState {
        let [publisher, subscriber] = &mut self.ends;
        match end {
            End::Publisher => publisher,
            End::Subscriber => subscriber,
        }
    }

    fn up(&mut self, end: End) -> Option<News> {
        self.end(end).is_up = true;
        if self.is_up || !self.ends.iter().all(|end| end.is_up) {
            return None;
        }
        self.is_up = true;
        self.owes_live = !self.live.is_empty();
        self.since = Instant::now();
        Some(News::Up(self.road))
    }

    fn down(&mut self, end: End) -> Option<News> {
        self.end(end).is_up = false;
        if end == End::Subscriber {
            self.live.clear();
        }
        if !self.is_up {
            return None;
        }
        self.is_up = false;
        self.owes_live = false;
        self.since = Instant::now();
        Some(News::Down(self.road))
    }

    fn live(&mut self, confirmed: Vec<(Topic, Wish)>) -> Option<News> {
        let wishes = &self.wishes;
        self.live.retain(|topic, wish| wishes.of(*topic) == *wish);
        let is_last = |&(topic, wish): &(Topic, Wish)| wishes.of(topic) == wish;
        let confirmed: Vec<_> = confirmed.into_iter().filter(is_last).collect();
        self.live.extend(confirmed.iter().copied());
        // What was confirmed while the other connection is gone is told when the road is up.
        let is_told = self.is_up && !self.owes_live && !confirmed.is_empty();
        is_told.then(|| News::Live(confirmed.into_iter().map(|(topic, _)| topic).collect()))
    }

    fn lost(&mut self, topics: &[Topic]) -> Option<News> {
        let wishes = &self.wishes;
        let mut lost = Vec::new();
        for topic in topics {
            if let Some(wish) = self.live.remove(topic)
                && wishes.of(*topic) == wish
            {
                lost.push(*topic);
            }
        }
        let was_told = self.is_up && !self.owes_live && !lost.is_empty();
        was_told.then_some(News::Lost(lost))
    }

    /// A road that lost its publisher alone kept its subscriptions: they are told again like others.
    fn owed(&mut self) -> Option<News> {
        if !std::mem::take(&mut self.owes_live) {
            return None;
        }
        let wishes = &self.wishes;
        self.live.retain(|topic, wish| wishes.of(*topic) == *wish);
        (!self.live.is_empty()).then(|| News::Live(self.live.keys().copied().collect()))
    }

    fn status(&self) -> RoadStatus {
        let troubles = self.ends.iter().filter_map(|end| end.trouble.as_ref());
        let trouble = troubles.min_by_key(|it| !it.kind.is_lasting());
        RoadStatus {
            is_up: self.is_up,
            since: self.since.into_std(),
            trouble: trouble.map(|it| it.sentence.clone()),
            is_lasting: trouble.is_some_and(|it| it.kind.is_lasting()),
            topics_wanted: self.wishes.wanted(),
            topics_live: self.tally.topics_live.load(Ordering::Relaxed),
            witnesses: self.tally.witnesses.load(Ordering::Relaxed),
            witnesses_heard: self.tally.witnesses_heard.load(Ordering::Relaxed),
            outgoing_bytes: self.outgoing.queued_bytes(),
            incoming_bytes: self.incoming.queued_bytes(),
            counts: self.tally.counts(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc as lines};

    use super::*;

    fn trouble(kind: TroubleKind, sentence: &str) -> Trouble {
        let sentence = sentence.to_owned();
        Trouble { kind, sentence }
    }

    fn all_news(roads: &mut Roads) -> Vec<News> {
        std::iter::from_fn(|| roads.try_next()).collect()
    }

    #[tokio::test]
    async fn a_confirmation_of_an_older_wish_is_not_told() {
        let (mut roads, [mut state, _events]) = Roads::new("bus", 0);
        state.publisher.reporter.up().await;
        state.subscriber.reporter.up().await;
        let mut wish = |roads: &mut Roads, is_wanted| {
            match is_wanted {
                true => roads.subscribe(Topic::Nodes),
                false => roads.unsubscribe(Topic::Nodes),
            }
            state.subscriber.wishes.borrow_and_update().of(Topic::Nodes)
        };
        let first = wish(&mut roads, true);
        wish(&mut roads, false);
        let last = wish(&mut roads, true);
        let reporter = &mut state.subscriber.reporter;
        reporter.live(vec![(Topic::Nodes, first)]).await;
        assert_eq!(all_news(&mut roads), [News::Up(Road::State)]);
        reporter.live(vec![(Topic::Nodes, last)]).await;
        assert_eq!(all_news(&mut roads), [News::Live(vec![Topic::Nodes])]);
        roads.unsubscribe(Topic::Nodes);
        reporter.live(vec![(Topic::Nodes, last)]).await;
        assert_eq!(all_news(&mut roads), []);
    }

    #[tokio::test]
    async fn topics_are_live_only_while_both_connections_stand() {
        let (mut roads, [mut state, _events]) = Roads::new("bus", 0);
        let (publisher, subscriber) = (&mut state.publisher, &mut state.subscriber);
        roads.subscribe(Topic::Nodes);
        let wish = subscriber.wishes.borrow_and_update().of(Topic::Nodes);
        let live = || News::Live(vec![Topic::Nodes]);
        let gone = || trouble(TroubleKind::Closed, "gone");

        subscriber.reporter.up().await;
        subscriber.reporter.live(vec![(Topic::Nodes, wish)]).await;
        assert_eq!(all_news(&mut roads), [], "the publisher is not there");
        publisher.reporter.up().await;
        assert_eq!(all_news(&mut roads), [News::Up(Road::State), live()]);
        publisher.reporter.down(gone()).await;
        publisher.reporter.up().await;
        let told = [News::Down(Road::State), News::Up(Road::State), live()];
        assert_eq!(all_news(&mut roads), told);
        subscriber.reporter.down(gone()).await;
        subscriber.reporter.up().await;
        let told = [News::Down(Road::State), News::Up(Road::State)];
        assert_eq!(all_news(&mut roads), told, "the new connection has nothing");
        let counts = roads.status("").state.counts;
        assert_eq!(counts.reconnects, 2);
    }

    #[tokio::test]
    async fn a_lost_topic_is_told_once_while_the_road_stands_and_the_wish_too() {
        let (mut roads, [mut state, _events]) = Roads::new("bus", 0);
        roads.subscribe(Topic::Nodes);
        let wish = state.subscriber.wishes.borrow_and_update().of(Topic::Nodes);
        let reporter = &mut state.subscriber.reporter;
        reporter.up().await;
        reporter.live(vec![(Topic::Nodes, wish)]).await;
        reporter.lost(vec![Topic::Nodes]).await;
        state.publisher.reporter.up().await;
        assert_eq!(all_news(&mut roads), [News::Up(Road::State)]);
        let live = || News::Live(vec![Topic::Nodes]);
        reporter.live(vec![(Topic::Nodes, wish)]).await;
        reporter.lost(vec![Topic::Nodes]).await;
        reporter.lost(vec![Topic::Nodes]).await;
        let lost = News::Lost(vec![Topic::Nodes]);
        assert_eq!(all_news(&mut roads), [live(), lost]);
        reporter.live(vec![(Topic::Nodes, wish)]).await;
        assert_eq!(all_news(&mut roads), [live()]);
        roads.unsubscribe(Topic::Nodes);
        reporter.lost(vec![Topic::Nodes]).await;
        assert_eq!(all_news(&mut roads), [], "nobody wishes for it");
    }

    #[test]
    fn one_server_that_is_gone_is_one_line_and_one_more_when_it_is_well() {
        let (sender, lines) = lines::channel();
        let log = tracing_subscriber::fmt()
            .with_writer(move || Line(sender.clone()))
            .with_ansi(false)
            .without_time()
            .finish();
        let run = async {
            let (mut roads, [mut state, mut events]) = Roads::new("bus", 0);
            for ends in [&mut state, &mut events] {
                let gone = trouble(TroubleKind::Closed, "Redis has closed the connection");
                ends.publisher.reporter.down(gone.clone()).await;
                ends.subscriber.reporter.down(gone).await;
            }
            for _ in 0..3 {
                let gone = trouble(TroubleKind::Unreachable, "Redis cannot be reached");
                state.publisher.reporter.failed(gone).await;
            }
            let wrong = trouble(TroubleKind::Login, "Redis refuses the password");
            state.publisher.reporter.failed(wrong).await;
            all_news(&mut roads);
            let status = roads.status("");
            let says = |text: &str| Some(text.to_owned());
            assert_eq!(status.state.trouble, says("Redis refuses the password"));
            assert_eq!(
                status.events.trouble,
                says("Redis has closed the connection")
            );
            assert_eq!(status.state.counts.connects_failed, 4);
            for ends in [&mut state, &mut events] {
                ends.publisher.reporter.up().await;
                ends.subscriber.reporter.up().await;
            }
            let up = [News::Up(Road::State), News::Up(Road::Events)];
            assert_eq!(all_news(&mut roads), up);
            assert_eq!(roads.status("").state.trouble, None);
        };
        tracing::subscriber::with_default(log, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(run);
        });
        let lines: Vec<String> = lines.iter().collect();
        let expected = [
            " WARN sockudo::bridge::adapter::roads: the bus between nodes: Redis has closed the connection \
             road=\"state\" connection=\"publisher\"\n",
            " WARN sockudo::bridge::adapter::roads: the bus between nodes: Redis refuses the password \
             road=\"state\" connection=\"publisher\"\n",
            " INFO sockudo::bridge::adapter::roads: the bus between nodes is well again\n",
        ];
        assert_eq!(lines, expected);
    }

    /// Takes what is logged, line by line.
    struct Line(lines::Sender<String>);

    impl io::Write for Line {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(line).into_owned();
            self.0.send(text).map_err(io::Error::other)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
