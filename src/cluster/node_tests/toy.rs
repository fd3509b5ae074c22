//! Nodes that are joined in memory.
//!
//! Owns: `Toy`, a bus with delay, loss, doubles, disorder and silence by a seeded dice.
//! May depend on: `cluster`.
//! Invariants: the same seed gives the same run.

use super::*;

/// Nodes and what connects them.
pub(super) struct Toy {
    pub(super) now: u64,
    pub(super) dice: u64,
    pub(super) stations: Vec<Station>,
    pub(super) flights: Vec<Flight>,
    /// Batches left the bus's hand so far.
    pub(super) order: u64,
    pub(super) faults: Faults,
    /// Rows that a node looks at in one step.
    pub(super) work_limit: usize,
    /// All that was sent.
    pub(super) sent: Vec<(usize, Topic, Vec<u8>)>,
}

pub(super) struct Station {
    /// `None`: killed.
    pub(super) node: Option<Node>,
    /// Neither hears nor speaks, and what comes waits.
    pub(super) is_stopped: bool,
    /// Partition and frame.
    pub(super) heard: Vec<(u16, Vec<u8>)>,
    pub(super) effects: Vec<(u64, Effect)>,
    /// What it was told of the others' state.
    pub(super) view: Watched,
    /// What it reported of its own.
    pub(super) own: Watched,
    /// Users whose connections are to be closed.
    pub(super) terminated: Vec<String>,
}

pub(super) struct Flight {
    pub(super) due: u64,
    pub(super) order: u64,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) topic: Topic,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    pub(super) delay_ms_max: u64,
    /// Of a thousand.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    /// Comes out of order, of a thousand.
    pub(super) disordered: u64,
    pub(super) events_are_silent: bool,
    pub(super) state_is_silent: bool,
}

impl Toy {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let mut toy = Self {
            now: 0,
            dice: seed | 1,
            stations: Vec::new(),
            flights: Vec::new(),
            order: 0,
            faults: Faults::default(),
            work_limit: 1_000,
            sent: Vec::new(),
        };
        for at in 0..nodes {
            toy.stations.push(Station {
                node: Some(node_of(0, at, 1, secret())),
                is_stopped: false,
                heard: Vec::new(),
                effects: Vec::new(),
                view: Watched::default(),
                own: Watched::default(),
                terminated: Vec::new(),
            });
        }
        toy
    }

    /// Below `sides`.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    pub(super) fn node(&mut self, at: usize) -> &mut Node {
        self.stations[at].node.as_mut().expect("it lives")
    }

    /// What the node at `at` counts.
    pub(super) fn counters(&mut self, at: usize) -> Counters {
        *self.node(at).counters()
    }

    pub(super) fn publish(&mut self, at: usize, number: u16, frame: &[u8]) {
        let published = self.node(at).publish(&event(number, frame));
        assert_eq!(published, Ok(()));
    }

    /// Gives the bus what waits in a node.
    pub(super) fn send(&mut self, from: usize) {
        let mut batches = Vec::new();
        self.node(from)
            .take_batches(|topic, bytes| batches.push((topic, bytes)));
        for (topic, bytes) in batches {
            self.sent.push((from, topic, bytes.clone()));
            for to in 0..self.stations.len() {
                if topic != Topic::Echo || to == from {
                    self.send_to(from, to, topic, &bytes);
                }
            }
        }
    }

    pub(super) fn send_to(&mut self, from: usize, to: usize, topic: Topic, bytes: &[u8]) {
        let is_silent = match topic.road() {
            Road::Events => self.faults.events_are_silent,
            Road::State => self.faults.state_is_silent,
        };
        let is_lost = self.roll(1_000) < self.faults.lost;
        if is_silent || is_lost {
            return;
        }
        let copies = 1 + u64::from(self.roll(1_000) < self.faults.doubled);
        for _ in 0..copies {
            let due = self.now + self.roll(self.faults.delay_ms_max + 1);
            let behind = self
                .flights
                .iter()
                .filter(|flight| flight.from == from && flight.to == to && flight.topic == topic);
            let behind = behind.map(|flight| flight.due).max().unwrap_or(0);
            let is_disordered = self.roll(1_000) < self.faults.disordered;
            self.order += 1;
            self.flights.push(Flight {
                due: if is_disordered { due } else { due.max(behind) },
                order: self.order,
                from,
                to,
                topic,
                bytes: bytes.to_vec(),
            });
        }
    }

    /// Delivers what is due, lets those tick whose time has come, and sends what they have to say.
    pub(super) fn step(&mut self) {
        let mut due = Vec::new();
        let now = self.now;
        let stations = &self.stations;
        let is_due = |flight: &Flight| flight.due <= now && !stations[flight.to].is_stopped;
        let (arrived, waiting) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition::<Vec<_>, _>(is_due);
        due.extend(arrived);
        self.flights = waiting;
        due.sort_by_key(|flight| (flight.due, flight.order));
        for flight in due {
            self.hear(flight.to, flight.topic, &flight.bytes);
        }
        for at in 0..self.stations.len() {
            let station = &mut self.stations[at];
            let Some(node) = station.node.as_mut().filter(|_| !station.is_stopped) else {
                continue;
            };
            if node.next_tick() <= Millis(now) {
                let mut effects = Vec::new();
                node.tick(Millis(now), &mut effects);
                station.note(now, effects);
            }
            self.work(at);
            self.send(at);
        }
    }

    /// Goes on with what is long. True: more is left.
    pub(super) fn work(&mut self, at: usize) -> bool {
        let station = &mut self.stations[at];
        let node = station.node.as_mut().expect("it lives");
        let (view, limit) = (&mut station.view, self.work_limit);
        let mut changes = 0;
        let is_left = node.next_views(limit, |change| {
            changes += 1;
            view.take(&change);
        });
        assert!(changes <= limit);
        is_left
    }

    pub(super) fn hear(&mut self, at: usize, topic: Topic, bytes: &[u8]) {
        let now = self.now;
        let station = &mut self.stations[at];
        let Some(node) = &mut station.node else {
            return;
        };
        let (mut effects, heard) = (Vec::new(), &mut station.heard);
        let (view, terminated) = (&mut station.view, &mut station.terminated);
        node.hear(Millis(now), topic, bytes, &mut effects, |it| match it {
            Heard::Event(event) => heard.push((event.partition.number(), event.frame.to_vec())),
            Heard::View(change) => view.take(&change),
            Heard::Terminate { user_id, .. } => terminated.push(user_id.to_owned()),
            Heard::Spent(_) | Heard::KeptAsk { .. } | Heard::Kept(_) => {}
        });
        station.note(now, effects);
    }

    pub(super) fn until(&mut self, end: u64) {
        for at in 0..self.stations.len() {
            if self.stations[at].node.is_some() && !self.stations[at].is_stopped {
                self.send(at);
            }
        }
        while self.now < end {
            self.now += 10;
            self.step();
        }
    }

    pub(super) fn effects_of(&mut self, at: usize) -> Vec<(u64, Effect)> {
        std::mem::take(&mut self.stations[at].effects)
    }

    /// Whom the node knows by name.
    pub(super) fn known_to(&mut self, at: usize) -> Vec<String> {
        let peers = self.node(at).peers();
        let mut known: Vec<_> = peers.map(|peer| peer.name.to_owned()).collect();
        known.sort();
        known
    }

    pub(super) fn restart(&mut self, at: usize, incarnation: u64) {
        let station = &mut self.stations[at];
        station.node = Some(node_of(self.now, at, incarnation, secret()));
        station.view = Watched::default();
        station.own = Watched::default();
    }
}

impl Station {
    /// What one life heard of each sender and lane: numbers that grow, so that nothing is twice there.
    pub(super) fn ends_in_order(&mut self) {
        let mut latest: BTreeMap<(u16, u8), Vec<u8>> = BTreeMap::new();
        for (lane, frame) in self.heard.drain(..) {
            let before = latest.insert((lane, frame[0]), frame.clone());
            assert!(before.is_none_or(|before| before < frame), "{frame:?}");
        }
    }

    pub(super) fn note(&mut self, now: u64, effects: Vec<Effect>) {
        let timed = effects.into_iter().map(|effect| (now, effect));
        self.effects.extend(timed);
    }
}
