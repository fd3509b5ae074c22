//! A bus between nodes: topics, delays, doubles.
//!
//! It promises what the real ones do and no more. What one node publishes on one topic keeps its order;
//! all else may overtake each other. Nothing is lost. A subscription counts
//! from a moment between its asking and its confirmation, and the confirmation may overtake batches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use shards::application::Millis;
use sockudo::{
    bridge::{adapter::news::News, nodes::exchange::Command},
    cluster::topic::{Road, Topic},
};

use crate::dice::Dice;

/// What a seed decides of a bus.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    /// The longest that one step of a way takes.
    pub(crate) delay_ms_max: u64,
    /// Of a hundred deliveries, so many come twice.
    pub(crate) doubles_percent: usize,
    /// A subscriber hears everything in one order, as on one connection to one server.
    pub(crate) keeps_whole_order: bool,
}

pub(crate) struct Bus {
    manners: Manners,
    now: Millis,
    seats: Vec<[Seat; 2]>,
    /// In the order of their landing.
    flights: BTreeMap<(Millis, u64), Flight>,
    launched: u64,
    /// When the last flight of a way lands.
    latest: BTreeMap<Way, Millis>,
    pub(crate) delivered: u64,
    pub(crate) doubled: u64,
}

/// A node's connections on one road.
#[derive(Default)]
struct Seat {
    /// By topic, what the node wishes, and the number of that wish.
    wishes: BTreeMap<Topic, (u32, bool)>,
    /// As the bus has it.
    subscribed: BTreeSet<Topic>,
    /// Landed and not taken; reports are taken first.
    reports: VecDeque<Report>,
    batches: VecDeque<(Topic, Vec<u8>)>,
}

enum Report {
    Live(Topic, u32),
}

/// What is on its way, from or to a node on a road.
struct Flight {
    node: usize,
    road: Road,
    load: Load,
}

#[derive(Clone)]
enum Load {
    /// To the bus.
    Wish {
        topic: Topic,
        number: u32,
        is_wanted: bool,
    },
    Publish {
        topic: Topic,
        bytes: Vec<u8>,
    },
    /// From the bus.
    Confirm {
        topic: Topic,
        number: u32,
    },
    Batch {
        topic: Topic,
        bytes: Vec<u8>,
    },
}

/// On which nothing overtakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Wishes {
        node: usize,
        road: Road,
    },
    Publications {
        node: usize,
        road: Road,
    },
    Confirmations {
        node: usize,
        road: Road,
    },
    Whole {
        to: usize,
        road: Road,
    },
    Topic {
        from: usize,
        to: usize,
        topic: Topic,
    },
}

/// Landings are brought together, so that a run has fewer moments.
const GRAIN_MS: u64 = 4;

impl Bus {
    /// With all connections up.
    pub(crate) fn new(nodes: usize, manners: Manners) -> Self {
        let seat = Seat::default;
        Self {
            manners,
            now: Millis(0),
            seats: (0..nodes).map(|_| [seat(), seat()]).collect(),
            flights: BTreeMap::new(),
            launched: 0,
            latest: BTreeMap::new(),
            delivered: 0,
            doubled: 0,
        }
    }

    fn seat(&mut self, node: usize, road: Road) -> &mut Seat {
        let [events, state] = &mut self.seats[node];
        match road {
            Road::Events => events,
            Road::State => state,
        }
    }

    /// Does what a node's bridge commands.
    pub(crate) fn obey(&mut self, node: usize, command: Command, dice: &mut Dice) {
        match command {
            Command::Subscribe(topic) => self.wish(node, topic, true, dice),
            Command::Unsubscribe(topic) => self.wish(node, topic, false, dice),
            Command::Publish { topic, batch } => {
                let road = topic.road();
                let load = Load::Publish {
                    topic,
                    bytes: batch,
                };
                let way = Way::Publications { node, road };
                self.launch(node, road, way, load, dice);
            }
        }
    }

    fn wish(&mut self, node: usize, topic: Topic, is_wanted: bool, dice: &mut Dice) {
        let road = topic.road();
        let seat = self.seat(node, road);
        let wish = seat.wishes.entry(topic).or_default();
        *wish = (wish.0 + 1, is_wanted);
        let number = wish.0;
        let load = Load::Wish {
            topic,
            number,
            is_wanted,
        };
        self.launch(node, road, Way::Wishes { node, road }, load, dice);
    }

    fn launch(&mut self, node: usize, road: Road, way: Way, load: Load, dice: &mut Dice) {
        let delay_ms = dice.next() % (self.manners.delay_ms_max + 1);
        let at = self.now.0 + delay_ms;
        let latest = self.latest.entry(way).or_default();
        let at = Millis(at.next_multiple_of(GRAIN_MS)).max(*latest);
        *latest = at;
        let flight = Flight { node, road, load };
        self.launched += 1;
        self.flights.insert((at, self.launched), flight);
    }

    /// When the next flight lands.
    pub(crate) fn next_landing(&self) -> Option<Millis> {
        self.flights.keys().next().map(|(at, _)| *at)
    }

    /// Lets land what has arrived by now.
    pub(crate) fn advance(&mut self, now: Millis, dice: &mut Dice) {
        while let Some(entry) = self.flights.first_entry()
            && entry.key().0 <= now
        {
            self.now = self.now.max(entry.key().0);
            let flight = entry.remove();
            self.land(flight, dice);
        }
        self.now = now;
    }

    fn land(&mut self, flight: Flight, dice: &mut Dice) {
        let Flight { node, road, .. } = flight;
        match flight.load {
            Load::Wish {
                topic,
                number,
                is_wanted,
            } => {
                let seat = self.seat(node, road);
                if !is_wanted {
                    seat.subscribed.remove(&topic);
                    return;
                }
                seat.subscribed.insert(topic);
                let load = Load::Confirm { topic, number };
                self.launch(node, road, Way::Confirmations { node, road }, load, dice);
            }
            Load::Publish { topic, bytes } => self.spread(node, topic, &bytes, dice),
            Load::Confirm { topic, number } => {
                let seat = self.seat(node, road);
                seat.reports.push_back(Report::Live(topic, number));
            }
            Load::Batch { topic, bytes } => {
                self.delivered += 1;
                self.seat(node, road).batches.push_back((topic, bytes));
            }
        }
    }

    /// Sends a batch to all that are subscribed now.
    fn spread(&mut self, from: usize, topic: Topic, bytes: &[u8], dice: &mut Dice) {
        let road = topic.road();
        for to in 0..self.seats.len() {
            // Each node has an echo of its own.
            let is_for = topic != Topic::Echo || to == from;
            if !is_for || !self.seat(to, road).subscribed.contains(&topic) {
                continue;
            }
            let way = match self.manners.keeps_whole_order {
                true => Way::Whole { to, road },
                false => Way::Topic { from, to, topic },
            };
            let load = Load::Batch {
                topic,
                bytes: bytes.to_vec(),
            };
            self.launch(to, road, way, load.clone(), dice);
            if dice.percent(self.manners.doubles_percent) {
                self.doubled += 1;
                self.launch(to, road, way, load, dice);
            }
        }
    }

    /// What a node's bridge finds when it looks: reports before batches, the state before events.
    pub(crate) fn next_news(&mut self, node: usize) -> Option<News> {
        for road in [Road::State, Road::Events] {
            let seat = self.seat(node, road);
            while let Some(report) = seat.reports.pop_front() {
                match report {
                    // Only the last wish is answered.
                    Report::Live(topic, number) if seat.wishes[&topic] == (number, true) => {
                        return Some(News::Live(vec![topic]));
                    }
                    Report::Live(..) => {}
                }
            }
            if let Some((topic, bytes)) = seat.batches.pop_front() {
                return Some(News::Batch { topic, bytes });
            }
        }
        None
    }
}
