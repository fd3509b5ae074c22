//! One channel with more subscribers than a turn may send to, while people come and go, and a small
//! channel whose events must keep flowing beside it.

use std::cell::Cell;

use shards::application::Closed;

use crate::{client::Client, nodes::Nodes, world::World};

/// More than a turn sends to.
const AUDIENCE: usize = 4_700;
/// What the server's budget of work pays for in one turn at the most.
const SENDS_PER_TURN: usize = 560;
const STADIUM: &str = "news";
const SMALL: &str = "other-news";
/// Rounds of turns within which the small channel's event must have arrived.
const ROUNDS_MAX: usize = 4;

/// Fills the stadium, publishes to it without a pause, and checks that nothing stalls or is lost.
pub(crate) fn run(seed: u64, step: &Cell<u64>) -> u64 {
    let mut world = World::new(seed);
    world.plan.channels = vec![STADIUM.to_owned(), SMALL.to_owned()];
    world.plan.has_toggles = false;
    let limits = crate::turn::Limits::USUAL;
    let node = crate::node::Node::start(&roomy(&world), world.plan.shards, limits);
    world.nodes = Nodes::alone(node);
    world.plan.keeping.kept_ms = 1_800_000;
    for number in 0..AUDIENCE {
        world.arrives(number % 16 / 15, STADIUM);
    }
    for _ in 0..10 {
        world.arrives(0, SMALL);
    }
    world.settles_in();
    let publisher = world.connect_api(0, world.nodes.shards(0) - 1, 0);
    world.apis.push(publisher);
    let mut jobs_seen = 0;
    for round in 0..24 {
        step.set(round);
        world.publishes_to(STADIUM);
        world.comes_and_goes();
        let small = world.publishes_to(SMALL);
        jobs_seen += usize::from(world.flows(small));
    }
    world.passes(6_000);
    world.check_rest();
    world.check_api();
    assert!(
        jobs_seen > 6,
        "only {jobs_seen} fan-outs took more than a turn"
    );
    assert!(
        world.nodes.all[0].sends_highest <= SENDS_PER_TURN,
        "{} sends in a turn",
        world.nodes.all[0].sends_highest
    );
    world.check_empty();
    world.nodes.trace()
}

/// The node's seed as the configuration says it.
fn roomy(world: &World) -> sockudo::server::NodeSeed {
    let mut seed = world.plan.seed.clone();
    seed.settings.connections_max = 0;
    seed.settings.kept_ms = 1_800_000;
    let mut apps = world.plan.apps.clone();
    apps[0].max_connections = 0;
    seed.apps = std::sync::Arc::new(sockudo::bridge::apps::AppTable::build(&apps, None));
    seed
}

impl World {
    fn arrives(&mut self, shard: usize, channel: &str) {
        let shard = shard % self.nodes.shards(0);
        let number = self.nodes.connect(0, shard, 1 << 20);
        let credentials = self.plan.credentials(0);
        let credentials = (&*credentials.key, &*credentials.secret);
        let now = self.moment();
        let mut client = Client::new(number, 0, credentials, "u0", now);
        client.subscribes(&mut self.dice, now, channel, false);
        self.clients.push(client);
        self.hand_over(self.clients.len() - 1);
    }

    /// Everybody is subscribed, and the last count was told.
    fn settles_in(&mut self) {
        self.passes(6_000);
        self.check_rest();
    }

    /// Publishes one event and returns its number.
    fn publishes_to(&mut self, channel: &str) -> usize {
        let number = self.ledger.events.len();
        let at = self.apis.len() - 1;
        self.publishes_event(at, channel);
        let api = &mut self.apis[at];
        let link = self.nodes.link(api.number);
        link.to_server.extend(api.output.drain(..));
        number
    }

    /// Some leave the stadium, some hang up, some come.
    fn comes_and_goes(&mut self) {
        for _ in 0..8 {
            let at = self.dice.below(self.clients.len());
            if !self.clients[at].is_steady() {
                continue;
            }
            match self.dice.below(4) {
                0 => {
                    self.clients[at].leaves = true;
                    self.nodes
                        .end_link(self.clients[at].number, Closed::ByError);
                }
                1 => self.clients[at].unsubscribes(&mut self.dice, STADIUM),
                2 => {
                    let now = self.moment();
                    self.clients[at].unsubscribes(&mut self.dice, STADIUM);
                    self.clients[at].subscribes(&mut self.dice, now, STADIUM, false);
                }
                _ => self.arrives(0, STADIUM),
            }
            self.hand_over(at);
        }
    }

    /// Takes turns until the small channel's event has arrived everywhere; true if the stadium's
    /// fan-out was still under way then or before.
    fn flows(&mut self, small: usize) -> bool {
        let mut is_busy = false;
        for _ in 0..ROUNDS_MAX {
            self.step += 1;
            for shard in 0..self.nodes.shards(0) {
                self.turn(0, shard, true);
                is_busy |= self.nodes.occupancy().iter().any(|it| it.jobs > 0);
            }
            for at in 0..self.clients.len() {
                if self.clients[at].channels.contains_key(SMALL) {
                    self.client_reads(at, usize::MAX);
                }
            }
            if self.heard_by_all(small) {
                return is_busy;
            }
        }
        panic!("event {small} of the small channel took more than {ROUNDS_MAX} rounds");
    }

    fn heard_by_all(&self, number: usize) -> bool {
        let steady = self.clients.iter().filter(|client| client.is_steady());
        let mut small = steady.filter_map(|client| client.channels.get(SMALL));
        small.all(|subscription| subscription.seen.contains(&number))
    }
}
