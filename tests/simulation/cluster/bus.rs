//! A bus between nodes: topics, delays, doubles, and each way in which a bus may lose.
//!
//! It promises what the real ones do and no more. What one node publishes on one topic keeps its order;
//! all else may overtake each other. Nothing is lost while the connections stand. A subscription counts
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
    /// By node, and one more for a process that takes the place of a node's.
    seats: Vec<[Seat; 2]>,
    /// The node of that one.
    spare_of: usize,
    /// In the order of their landing.
    flights: BTreeMap<(Millis, u64), Flight>,
    launched: u64,
    /// Two groups of nodes do not hear each other, and nobody is told: by node, its group.
    split: Vec<bool>,
    /// It takes and gives nothing, though connections stand.
    is_wedged: bool,
    /// When the last flight of a way lands.
    latest: BTreeMap<Way, Millis>,
    pub(crate) delivered: u64,
    pub(crate) doubled: u64,
}

/// A node's connections on one road.
#[derive(Default)]
struct Seat {
    is_up: bool,
    /// Flights of an earlier one do not land.
    epoch: u32,
    /// By topic, what the node wishes, and the number of that wish.
    wishes: BTreeMap<Topic, (u32, bool)>,
    /// As the bus has it.
    subscribed: BTreeSet<Topic>,
    /// Topics that the bus has given up, and that are not subscribed anew yet.
    lost: BTreeSet<Topic>,
    /// Landed and not taken; reports are taken first.
    reports: VecDeque<Report>,
    batches: VecDeque<(Topic, Vec<u8>)>,
}

enum Report {
    Up,
    Down,
    Dropped(u64),
    Live(Topic, u32),
    Lost(Vec<Topic>),
}

/// What is on its way, from or to a node on a road.
struct Flight {
    node: usize,
    road: Road,
    epoch: u32,
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

impl Way {
    /// As it is when one seat has become another.
    fn moved(self, from: usize, to: usize) -> Self {
        let of = |node| if node == from { to } else { node };
        match self {
            Self::Wishes { node, road } => Self::Wishes {
                node: of(node),
                road,
            },
            Self::Publications { node, road } => Self::Publications {
                node: of(node),
                road,
            },
            Self::Confirmations { node, road } => Self::Confirmations {
                node: of(node),
                road,
            },
            Self::Whole { to, road } => Self::Whole { to: of(to), road },
            Self::Topic { from, to, topic } => Self::Topic {
                from: of(from),
                to: of(to),
                topic,
            },
        }
    }
}

/// Landings are brought together, so that a run has fewer moments.
const GRAIN_MS: u64 = 4;

impl Bus {
    /// With all connections up.
    pub(crate) fn new(nodes: usize, manners: Manners) -> Self {
        let seat = || Seat {
            is_up: true,
            ..Seat::default()
        };
        Self {
            manners,
            now: Millis(0),
            seats: (0..=nodes).map(|_| [seat(), seat()]).collect(),
            spare_of: 0,
            flights: BTreeMap::new(),
            launched: 0,
            split: vec![false; nodes],
            is_wedged: false,
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

    /// What has reached the bus has left it for all that are subscribed, and lands within so much.
    pub(super) fn way_ms_max(&self) -> u64 {
        self.manners.delay_ms_max + GRAIN_MS
    }

    /// Another process of this node connects; its seat.
    pub(super) fn is_joined(&mut self, node: usize) -> usize {
        self.spare_of = node;
        self.spare()
    }

    /// The seat of a process that takes the place of a node's.
    pub(crate) fn spare(&self) -> usize {
        self.seats.len() - 1
    }

    /// That process has ended.
    pub(super) fn spare_ends(&mut self) {
        let spare = self.spare();
        self.dies(spare);
        self.is_born(spare);
    }

    /// It is the node's only one from now on. What was published is on its way.
    pub(super) fn is_left_alone(&mut self, node: usize) {
        let spare = self.spare();
        self.seats.swap(node, spare);
        self.seats[spare] = [(); 2].map(|()| Seat {
            is_up: true,
            ..Seat::default()
        });
        let epochs = [Road::Events, Road::State].map(|road| self.seat(node, road).epoch);
        self.flights.retain(|_, flight| {
            let is_published = matches!(flight.load, Load::Publish { .. });
            if flight.node == node && is_published {
                flight.epoch = match flight.road {
                    Road::Events => epochs[0],
                    Road::State => epochs[1],
                };
            } else if flight.node == node {
                return false;
            }
            if flight.node == spare {
                flight.node = node;
            }
            true
        });
        let latest = std::mem::take(&mut self.latest);
        for (way, at) in latest {
            let latest = self.latest.entry(way.moved(spare, node)).or_default();
            *latest = at.max(*latest);
        }
    }

    /// Whose a seat is.
    fn node_of(&self, seat: usize) -> usize {
        match seat + 1 == self.seats.len() {
            true => self.spare_of,
            false => seat,
        }
    }

    /// Does what a node's bridge commands.
    pub(crate) fn obey(&mut self, node: usize, command: Command, dice: &mut Dice) {
        match command {
            Command::Subscribe(topic) => self.wish(node, topic, true, dice),
            Command::Unsubscribe(topic) => self.wish(node, topic, false, dice),
            Command::Publish { topic, batch } => {
                let road = topic.road();
                if self.seat(node, road).is_up {
                    let load = Load::Publish {
                        topic,
                        bytes: batch,
                    };
                    let way = Way::Publications { node, road };
                    self.launch(node, road, way, load, dice);
                }
            }
        }
    }

    fn wish(&mut self, node: usize, topic: Topic, is_wanted: bool, dice: &mut Dice) {
        let road = topic.road();
        let seat = self.seat(node, road);
        let wish = seat.wishes.entry(topic).or_default();
        *wish = (wish.0 + 1, is_wanted);
        let number = wish.0;
        seat.lost.remove(&topic);
        if seat.is_up {
            let load = Load::Wish {
                topic,
                number,
                is_wanted,
            };
            self.launch(node, road, Way::Wishes { node, road }, load, dice);
        }
    }

    fn launch(&mut self, node: usize, road: Road, way: Way, load: Load, dice: &mut Dice) {
        let delay_ms = dice.next() % (self.manners.delay_ms_max + 1);
        let at = self.now.0 + delay_ms;
        let latest = self.latest.entry(way).or_default();
        let at = Millis(at.next_multiple_of(GRAIN_MS)).max(*latest);
        *latest = at;
        let epoch = self.seat(node, road).epoch;
        let flight = Flight {
            node,
            road,
            epoch,
            load,
        };
        self.launched += 1;
        self.flights.insert((at, self.launched), flight);
    }

    /// A node's connections on a road end: what is under way on them is lost, what has landed is not.
    pub(crate) fn goes_down(&mut self, node: usize, road: Road) {
        let seat = self.seat(node, road);
        if std::mem::take(&mut seat.is_up) {
            seat.epoch += 1;
            seat.subscribed.clear();
            seat.lost.clear();
            seat.reports.push_back(Report::Down);
        }
    }

    /// A node has died: nothing of its life is left.
    pub(crate) fn dies(&mut self, node: usize) {
        for road in Road::ALL {
            self.goes_down(node, road);
            let seat = self.seat(node, road);
            let epoch = seat.epoch;
            *seat = Seat {
                epoch,
                ..Seat::default()
            };
        }
    }

    /// A new life connects.
    pub(crate) fn is_born(&mut self, node: usize) {
        for road in Road::ALL {
            self.seat(node, road).is_up = true;
        }
    }

    pub(crate) fn is_up(&self, node: usize, road: Road) -> bool {
        let [events, state] = &self.seats[node];
        match road {
            Road::Events => events.is_up,
            Road::State => state.is_up,
        }
    }

    /// The bus has given up some of its topics.
    pub(crate) fn is_deaf(&self, node: usize, road: Road) -> bool {
        let [events, state] = &self.seats[node];
        match road {
            Road::Events => !events.lost.is_empty(),
            Road::State => !state.lost.is_empty(),
        }
    }

    /// They stand again, and topics are subscribed anew.
    pub(crate) fn comes_up(&mut self, node: usize, road: Road, dice: &mut Dice) {
        let seat = self.seat(node, road);
        if std::mem::replace(&mut seat.is_up, true) {
            return;
        }
        seat.reports.push_back(Report::Up);
        let wishes = seat.wishes.iter().filter(|(_, (_, is_wanted))| *is_wanted);
        let wishes: Vec<_> = wishes
            .map(|(topic, (number, _))| (*topic, *number))
            .collect();
        for (topic, number) in wishes {
            let load = Load::Wish {
                topic,
                number,
                is_wanted: true,
            };
            self.launch(node, road, Way::Wishes { node, road }, load, dice);
        }
    }

    /// A node that is slow loses the newest of what it has not taken, and hears how much. True if that
    /// was anything.
    pub(crate) fn drops(&mut self, node: usize, road: Road, batches_max: usize) -> bool {
        let seat = self.seat(node, road);
        let kept = seat.batches.len().min(batches_max);
        let dropped = seat.batches.drain(kept..).count() as u64;
        if dropped > 0 {
            seat.reports.push_back(Report::Dropped(dropped));
        }
        dropped > 0
    }

    /// The bus gives up some of a node's topics, as one that moves them to another server does, and the
    /// node hears which. True if that was anything.
    pub(crate) fn loses_some(&mut self, node: usize, road: Road, dice: &mut Dice) -> bool {
        let seat = self.seat(node, road);
        let topics = std::mem::take(&mut seat.subscribed).into_iter();
        let (lost, kept): (Vec<_>, Vec<_>) = topics.partition(|_| dice.percent(50));
        seat.subscribed.extend(kept);
        seat.lost.extend(&lost);
        let is_any = !lost.is_empty();
        if is_any {
            seat.reports.push_back(Report::Lost(lost));
        }
        is_any
    }

    /// Subscribes anew what was lost.
    pub(crate) fn finds_again(&mut self, node: usize, road: Road, dice: &mut Dice) {
        for topic in std::mem::take(&mut self.seat(node, road).lost) {
            let (number, is_wanted) = self.seat(node, road).wishes[&topic];
            if is_wanted {
                let load = Load::Wish {
                    topic,
                    number,
                    is_wanted,
                };
                self.launch(node, road, Way::Wishes { node, road }, load, dice);
            }
        }
    }

    /// From now on nothing crosses between the two groups, in silence.
    pub(crate) fn splits(&mut self, groups: Vec<bool>) {
        self.split = groups;
    }

    pub(crate) fn heals(&mut self) {
        self.split.fill(false);
    }

    pub(crate) fn is_wedged(&mut self, is_wedged: bool) {
        self.is_wedged = is_wedged;
    }

    /// When the next flight lands.
    pub(crate) fn next_landing(&self) -> Option<Millis> {
        if self.is_wedged {
            return None;
        }
        self.flights.keys().next().map(|(at, _)| *at)
    }

    /// Lets land what has arrived by now.
    pub(crate) fn advance(&mut self, now: Millis, dice: &mut Dice) {
        while !self.is_wedged
            && let Some(entry) = self.flights.first_entry()
            && entry.key().0 <= now
        {
            self.now = self.now.max(entry.key().0);
            let flight = entry.remove();
            let seat = self.seat(flight.node, flight.road);
            if seat.is_up && seat.epoch == flight.epoch {
                self.land(flight, dice);
            }
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
                if seat.subscribed.contains(&topic) {
                    seat.reports.push_back(Report::Live(topic, number));
                }
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
            let nodes = (self.node_of(from), self.node_of(to));
            let is_for = topic != Topic::Echo || nodes.0 == nodes.1;
            let is_cut = self.split[nodes.0] != self.split[nodes.1];
            if is_cut || !is_for || !self.seat(to, road).subscribed.contains(&topic) {
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
                    Report::Up => return Some(News::Up(road)),
                    Report::Down => return Some(News::Down(road)),
                    Report::Dropped(batches) => return Some(News::Dropped { road, batches }),
                    Report::Lost(topics) => return Some(News::Lost(topics)),
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
