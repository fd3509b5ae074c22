//! What clients do in a run: every step is one throw of the dice.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};
use shards::application::{Closed, Millis};
use sockudo::{
    bridge::{apps::AppTable, message::FromBridge},
    server::{NodeSeed, SocketIdKey},
};

use crate::{
    api::Ask,
    client::{Client, Phase, is_presence},
    cluster::ClusterPlan,
    ledger::Event,
    node::Node,
    plan::{CACHED, SHARD_COUNTS},
    world::World,
};

/// Runs a seed from beginning to end and returns the hash of its trace.
pub(crate) fn run(seed: u64, step: &Cell<u64>) -> u64 {
    run_with(seed, step, |_, _| {})
}

/// The same, with shards that are stopped again and again: each goes on as it was put down.
pub(crate) fn run_restored(seed: u64, step: &Cell<u64>) -> u64 {
    run_with(seed, step, |world, step| {
        if throw(seed, step) >> 60 == 0 {
            world.nodes.all.iter_mut().for_each(Node::restores_all);
        }
    })
}

/// The same, with a node whose process is replaced again and again, by one of more or fewer shards.
pub(crate) fn run_replaced(seed: u64, step: &Cell<u64>) -> u64 {
    run_with(seed, step, |world, step| {
        let number = throw(seed, step);
        if number >> 58 != 0 || !may_be_replaced(world) {
            return;
        }
        let seed = NodeSeed {
            homes: Node::homes(number),
            socket_ids: SocketIdKey::from_seed(number),
            ..world.plan.seed.clone()
        };
        let shards = SHARD_COUNTS[(number % 4) as usize];
        world.nodes.all[0].is_replaced(&seed, world.plan.limits, shards);
    })
}

/// The same of one node of several after the other; how often that was.
pub(crate) fn run_replaced_in_cluster(seed: u64, step: &Cell<u64>) -> u64 {
    let world = world_of(seed, step, |world, step| {
        let number = throw(seed, step);
        if number >> 59 == 0 && may_be_replaced(world) {
            let shards = SHARD_COUNTS[(number % 4) as usize];
            world.is_followed_or_replaced(number, shards);
        }
    });
    world.nodes.cluster.map_or(0, |it| it.replaced)
}

/// The same while nodes die and the bus fails; how often it was, and how often it came to nothing.
pub(crate) fn run_replaced_in_trouble(seed: u64, step: &Cell<u64>) -> [u64; 2] {
    let world = world_of(seed, step, |world, step| {
        let number = throw(seed, step);
        if number >> 62 == 0 && !world.is_starting() && may_be_replaced(world) {
            let shards = SHARD_COUNTS[(number % 4) as usize];
            world.is_followed_or_silent(number, shards);
        }
    });
    let cluster = world.nodes.cluster.as_ref();
    cluster.map_or([0; 2], |it| [it.replaced, it.left])
}

/// Another process would read what is enabled by now.
fn may_be_replaced(world: &World) -> bool {
    !world.drains && !world.enabled.contains(&false)
}

/// Dice of a step's own: the run's are thrown as ever.
fn throw(seed: u64, step: u64) -> u64 {
    let mixed = (step ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 29
}

fn run_with(seed: u64, step: &Cell<u64>, between: impl Fn(&mut World, u64)) -> u64 {
    world_of(seed, step, between).nodes.trace()
}

fn world_of(seed: u64, step: &Cell<u64>, between: impl Fn(&mut World, u64)) -> World {
    let mut world = World::new(seed);
    if let Some(cluster) = world.plan.cluster.clone().filter(|it| !it.comes_at_once) {
        world.passes(cluster.start_ms());
    }
    for _ in 0..world.dice.between(1, 3) {
        for _ in 0..world.plan.steps {
            world.step += 1;
            step.set(world.step);
            let now = world.step;
            between(&mut world, now);
            world.acts();
            world.may_be_struck();
            world.check_bounds();
        }
        world.calms_down();
        if world.is_starting() {
            world.passes(world.plan.cluster.as_ref().map_or(0, ClusterPlan::start_ms));
        }
        world.comes_to_quiet();
        step.set(world.step);
        world.check_rest();
        world.hooks_begin_anew();
        world.check_newcomers();
        world.check_api();
        if world.dice.percent(50) {
            world.passes(crate::hooks::GRACE_MS + 200);
            world.check_rest();
            world.check_hooks();
        }
    }
    if world.plan.ends_with_drain {
        world.drain();
        world.check_rest();
    }
    step.set(world.step);
    world.check_empty();
    world
}

impl World {
    /// One step.
    pub(crate) fn acts(&mut self) {
        if self.plan.cluster.is_some() {
            return self.acts_in_cluster();
        }
        match self.dice.below(100) {
            0..48 => {
                let (node, shard) = self.any_shard();
                self.turn(node, shard, false);
            }
            48..64 => self.somebody_reads(),
            64..90 => self.somebody_acts(),
            90..96 => self.api_acts(),
            96..99 => self.time_passes(),
            _ => self.operator_acts(),
        }
    }

    /// One step of a node, its bridge, the clock, or somebody.
    fn acts_in_cluster(&mut self) {
        match self.dice.below(100) {
            0..34 => {
                let (node, shard) = self.any_shard();
                self.turn(node, shard, false);
            }
            34..52 => {
                let node = self.any_node();
                let apps = &self.plan.seed.apps;
                self.nodes.bridge_turn(node, apps, &mut self.dice, false);
            }
            52..62 => self.somebody_reads(),
            62..82 => self.somebody_acts(),
            82..88 => self.api_acts(),
            88..99 => match self.dice.below(40) {
                0 => {
                    let ms = self.dice.between(100, 4_000);
                    self.passes(ms as u64);
                }
                _ => {
                    let ms = self.dice.between(1, 20);
                    self.nodes.is_now(self.nodes.now().plus(ms as u64));
                }
            },
            _ => self.operator_acts(),
        }
    }

    fn time_passes(&mut self) {
        let ms = match self.dice.below(20) {
            0 => self.dice.between(1_000, 4_000),
            1..4 => self.dice.between(50, 500),
            _ => self.dice.between(1, 20),
        };
        self.nodes.is_now(self.nodes.now().plus(ms as u64));
    }

    pub(crate) fn somebody_reads(&mut self) {
        let bytes_max = if self.dice.percent(50) {
            usize::MAX
        } else {
            self.dice.between(1, 400)
        };
        if !self.apis.is_empty() && self.dice.percent(25) {
            let at = self.dice.below(self.apis.len());
            self.api_reads(at, bytes_max);
        } else if !self.clients.is_empty() {
            let at = self.dice.below(self.clients.len());
            if !self.clients[at].reads_rarely || self.dice.percent(4) {
                self.client_reads(at, bytes_max);
            }
        }
    }

    pub(crate) fn somebody_acts(&mut self) {
        let there = |it: &(usize, &Client)| !it.1.is_over();
        let clients: Vec<usize> = self
            .clients
            .iter()
            .enumerate()
            .filter(there)
            .map(|(at, _)| at)
            .collect();
        let wanted = clients.len() < self.plan.clients_max;
        if clients.is_empty() || wanted && self.dice.percent(20) {
            return self.somebody_comes();
        }
        let at = *self.dice.pick(&clients);
        if self.dice.percent(4) {
            return self.goes(at);
        }
        if self.clients[at].phase != Phase::Open {
            return;
        }
        for _ in 0..self.dice.between(1, 3) {
            self.says(at);
        }
        self.hand_over(at);
    }

    fn somebody_comes(&mut self) {
        let (node, shard) = self.any_shard();
        let is_slow = self.plan.has_slow && self.dice.percent(25);
        let socket_bytes_max = if is_slow { 300 } else { 1 << 16 };
        let number = self.nodes.connect(node, shard, socket_bytes_max);
        let app = usize::from(self.dice.percent(25));
        let mut client = self.client(number, app);
        client.reads_rarely = is_slow;
        if self.dice.percent(20) {
            // Frames right behind the request.
            client.subscribes(&mut self.dice, client.came, "news", false);
        }
        self.clients.push(client);
        self.hand_over(self.clients.len() - 1);
    }

    fn client(&mut self, number: usize, app: usize) -> Client {
        let credentials = self.plan.credentials(app);
        let credentials = (&*credentials.key, &*credentials.secret);
        let now = self.moment();
        let user = self.dice.pick(&self.plan.users);
        Client::new(number, app, credentials, user, now)
    }

    /// At rest a newcomer gets the same last event on each of two nodes. Of more a node that has none asks one other,
    /// which may have missed what was said last.
    fn check_newcomers(&mut self) {
        let has_caches = self.plan.cluster.as_ref().is_some_and(|it| it.has_caches);
        let [0, 1] = self.nodes.live()[..] else {
            return;
        };
        if !has_caches || self.plan.keeping.evicts || !self.enabled[0] || self.nodes.all.len() != 2
        {
            return;
        }
        let asked = self.moment();
        let newcomers = [0, 1].map(|node| {
            let shard = self.dice.below(self.nodes.shards(node));
            let number = self.nodes.connect(node, shard, 1 << 16);
            let mut client = self.client(number, 0);
            client.subscribes(&mut self.dice, client.came, CACHED, false);
            self.clients.push(client);
            self.hand_over(self.clients.len() - 1);
            self.clients.len() - 1
        });
        self.passes(2_000);
        let given = newcomers.map(|at| {
            let subscription = self.clients[at].channels.get(CACHED);
            let cached = subscription.and_then(|it| it.cached);
            cached.expect("a newcomer hears of a last event, or that there is none")
        });
        let troubles = &self.troubles;
        let hides = |sent, from, to| troubles.hides(sent, from, to);
        self.ledger
            .check_same(given, asked, self.plan.keeping, hides);
    }

    fn goes(&mut self, at: usize) {
        let number = self.clients[at].number;
        let is_open = self.clients[at].phase == Phase::Open;
        match self.dice.below(3) {
            0 if is_open => {
                self.clients[at].closes(&mut self.dice);
                return self.hand_over(at);
            }
            0 | 1 => self.nodes.end_link(number, Closed::ByPeer),
            _ => self.nodes.end_link(number, Closed::ByError),
        }
        self.clients[at].leaves = true;
    }

    fn says(&mut self, at: usize) {
        let channel = self.dice.pick(&self.plan.channels).clone();
        let now = self.moment();
        let client = &mut self.clients[at];
        match self.dice.below(100) {
            0..40 => {
                let is_bad = self.dice.percent(5);
                client.subscribes(&mut self.dice, now, &channel, is_bad);
            }
            40..55 => client.unsubscribes(&mut self.dice, &channel),
            55..61 => {
                client.subscribes(&mut self.dice, now, &channel, false);
                client.unsubscribes(&mut self.dice, &channel);
                client.subscribes(&mut self.dice, now, &channel, false);
            }
            61..68 => self.signs_in(at),
            68..71 => client.pings(&mut self.dice),
            71 if self.dice.percent(20) => {
                client.subscribes(&mut self.dice, now, &channel, false);
                client.floods(&mut self.dice);
            }
            71..75 if client.signs_in => {
                let channel = format!("#server-to-user-{}", client.identity);
                client.subscribes(&mut self.dice, now, &channel, false);
            }
            _ => self.says_event(at, &channel),
        }
    }

    fn signs_in(&mut self, at: usize) {
        let mut watchlist: Vec<String> = self.plan.users.clone();
        self.dice.shuffle(&mut watchlist);
        watchlist.truncate(self.dice.below(watchlist.len() + 1));
        self.clients[at].signs_in(&mut self.dice, watchlist);
    }

    fn says_event(&mut self, at: usize, channel: &str) {
        let allows = channel.starts_with("private-") || is_presence(channel);
        if !allows || channel.starts_with("private-encrypted-") {
            return;
        }
        let client = &self.clients[at];
        let (number, app) = (client.number, client.app);
        let event = Event {
            place: (app, channel.to_owned()),
            data_number: self.ledger.events.len(),
            publisher: number,
            node: self.nodes.node_of(number),
            sender: Some(at),
            except: Some(client.socket_id.clone()),
            user_id: is_presence(channel).then(|| client.identity.clone()),
            sent: self.moment(),
            acknowledged: None,
            is_refused: false,
        };
        let event = self.published(event);
        let padding = self.dice.below(self.plan.padding_max + 1);
        self.clients[at].sends(&mut self.dice, channel, event, padding);
    }

    /// Notes an event, and who must get it.
    fn published(&mut self, event: Event) -> usize {
        let (place, sender) = (event.place.clone(), event.sender);
        let except = event.except.clone();
        if self.nodes.is_starting(event.node) {
            self.troubles.is_unheard(event.node, event.sent.at);
        }
        let number = self.ledger.publish(event);
        for (at, client) in self.clients.iter().enumerate() {
            let is_left_out = Some(at) == sender || except.as_deref() == Some(&client.socket_id);
            if client.app != place.0 || is_left_out || !client.is_steady() {
                continue;
            }
            if let Some(subscription) = client.channels.get(&place.1).filter(|it| !it.ends) {
                self.ledger.owed.push((at, subscription.epoch, number));
            }
        }
        number
    }

    pub(crate) fn api_acts(&mut self) {
        let there: Vec<usize> = (0..self.apis.len())
            .filter(|at| !self.apis[*at].is_over)
            .collect();
        if there.is_empty() || there.len() < 4 && self.dice.percent(20) {
            let (node, shard) = self.any_shard();
            let app = usize::from(self.dice.percent(25));
            let api = self.connect_api(node, shard, app);
            return self.apis.push(api);
        }
        let at = *self.dice.pick(&there);
        if self.dice.percent(5) {
            let how = if self.dice.percent(50) {
                Closed::ByPeer
            } else {
                Closed::ByError
            };
            self.nodes.end_link(self.apis[at].number, how);
            self.apis[at].is_over = true;
            return;
        }
        for _ in 0..self.dice.between(1, 3) {
            self.api_asks(at);
        }
        let api = &mut self.apis[at];
        let link = self.nodes.link(api.number);
        link.to_server.extend(api.output.drain(..));
    }

    fn api_asks(&mut self, at: usize) {
        let now = self.moment();
        let api = &mut self.apis[at];
        match self.dice.below(100) {
            0..45 => self.publishes(at),
            45..75 => self.publishes_batch(at),
            75..83 => api.asks(now, ("GET", "/channels"), &[], None, Ask::Channels),
            83..90 => {
                let mut channels = self.plan.channels.iter().filter(|it| is_presence(it));
                if let Some(channel) = channels.next() {
                    let path = format!("/channels/{channel}/users");
                    api.asks(now, ("GET", &path), &[], None, Ask::Users);
                }
            }
            _ => self.terminates(at),
        }
    }

    fn terminates(&mut self, at: usize) {
        let (app, user) = (self.apis[at].app, self.dice.pick(&self.plan.users).clone());
        let here = self.nodes.node_of(self.apis[at].number);
        let clients = self.clients.iter().enumerate();
        let signed_in = clients.filter(|(_, it)| {
            // An order may be lost on a bus that fails.
            let is_reached = !self.plan.has_troubles || self.nodes.node_of(it.number) == here;
            it.app == app
                && it.identity == user
                && it.user.is_some()
                && it.is_steady()
                && is_reached
        });
        let clients = signed_in.map(|(at, _)| at).collect();
        let path = format!("/users/{user}/terminate_connections");
        let ask = Ask::Terminate { clients };
        let now = self.moment();
        self.apis[at].asks(now, ("POST", &path), &[], Some(&json!({})), ask);
    }

    /// One that does something.
    pub(crate) fn any_node(&mut self) -> usize {
        *self.dice.pick(&self.nodes.live())
    }

    /// A shard of any node.
    pub(crate) fn any_shard(&mut self) -> (usize, usize) {
        let node = match self.nodes.all.len() {
            1 => 0,
            _ => self.any_node(),
        };
        (node, self.dice.below(self.nodes.shards(node)))
    }

    /// A socket to leave out now and then.
    fn except(&mut self) -> Option<String> {
        let open = self.clients.iter().filter(|it| it.phase == Phase::Open);
        let ids: Vec<String> = open.map(|it| it.socket_id.clone()).collect();
        (!ids.is_empty() && self.dice.percent(30)).then(|| self.dice.pick(&ids).clone())
    }

    fn api_event(
        &mut self,
        at: usize,
        channel: &str,
        data: usize,
        except: &Option<String>,
    ) -> usize {
        let event = Event {
            place: (self.apis[at].app, channel.to_owned()),
            data_number: data,
            publisher: self.apis[at].number,
            node: self.nodes.node_of(self.apis[at].number),
            sender: None,
            except: except.clone(),
            user_id: None,
            sent: self.moment(),
            acknowledged: None,
            is_refused: false,
        };
        self.published(event)
    }

    fn data(&mut self, number: usize) -> String {
        let padding = self.dice.below(self.plan.padding_max + 1);
        json!({"id": number, "pad": "x".repeat(padding)}).to_string()
    }

    /// One event for some channels, one of them perhaps a user's.
    fn publishes(&mut self, at: usize) {
        let mut channels = self.plan.channels.clone();
        self.dice.shuffle(&mut channels);
        channels.truncate(self.dice.between(1, 4));
        if self.dice.percent(15) {
            channels.push(format!(
                "#server-to-user-{}",
                self.dice.pick(&self.plan.users)
            ));
        }
        let encrypted = channels
            .iter()
            .any(|it| it.starts_with("private-encrypted-"));
        if encrypted {
            // The API takes an encrypted channel alone only.
            channels.truncate(1);
        }
        let except = self.except();
        let first = self.ledger.events.len();
        let mut events = Vec::new();
        for channel in &channels {
            events.push(self.api_event(at, channel, first, &except));
        }
        let mut body = json!({"name": "api-said", "channels": channels, "data": self.data(first)});
        if let Some(except) = except {
            body["socket_id"] = except.into();
        }
        let asks_info = self.dice.percent(30);
        if asks_info {
            body["info"] = "subscription_count".into();
        }
        let told = asks_info.then(|| channels.into_iter().collect::<BTreeSet<_>>());
        let (now, ask) = (self.moment(), Ask::Publish { events, told });
        self.apis[at].asks(now, ("POST", "/events"), &[], Some(&body), ask);
    }

    /// One event for one channel.
    pub(crate) fn publishes_event(&mut self, at: usize, channel: &str) {
        let number = self.ledger.events.len();
        let event = self.api_event(at, channel, number, &None);
        let body = json!({"name": "api-said", "channel": channel, "data": self.data(number)});
        let ask = Ask::Publish {
            events: vec![event],
            told: None,
        };
        let now = self.moment();
        self.apis[at].asks(now, ("POST", "/events"), &[], Some(&body), ask);
    }

    fn publishes_batch(&mut self, at: usize) {
        let asks_info = self.dice.percent(30);
        let (mut events, mut items) = (Vec::new(), Vec::<Value>::new());
        for _ in 0..self.dice.between(1, 6) {
            let channel = self.dice.pick(&self.plan.channels).clone();
            let except = self.except();
            let number = self.ledger.events.len();
            events.push(self.api_event(at, &channel, number, &except));
            let mut item =
                json!({"name": "api-said", "channel": channel, "data": self.data(number)});
            if let Some(except) = except {
                item["socket_id"] = except.into();
            }
            if asks_info {
                item["info"] = "subscription_count".into();
            }
            items.push(item);
        }
        let told = asks_info.then_some(items.len());
        let (now, ask) = (self.moment(), Ask::Batch { events, told });
        let body = json!({"batch": items});
        self.apis[at].asks(now, ("POST", "/batch_events"), &[], Some(&body), ask);
    }

    /// The second app is switched off or on.
    fn operator_acts(&mut self) {
        if !self.plan.has_toggles || !self.dice.percent(60) {
            return;
        }
        self.enabled[1] = !self.enabled[1];
        self.plan.apps[1].enabled = self.enabled[1];
        let mut table = AppTable::clone(&self.plan.seed.apps);
        let changes = table.replace(&self.plan.apps).into();
        self.plan.seed.apps = Arc::new(table);
        self.nodes.tell_all(|| FromBridge::Apps {
            number: 1,
            changes: Arc::clone(&changes),
        });
    }

    /// The node drains while its clients go on.
    fn drain(&mut self) {
        self.drains = true;
        let deadline = Millis(self.nodes.now().0 + 5_000);
        let rate_per_s = *self.dice.pick(&[0, 10, 100]);
        self.nodes.tell_all(|| FromBridge::Drain {
            deadline,
            rate_per_s,
        });
        for _ in 0..self.plan.steps / 3 {
            self.step += 1;
            self.acts();
        }
        for _ in 0..100 {
            if self.hooks.drained.len() < self.nodes.shard_count() {
                self.passes(100);
            }
        }
        assert_eq!(
            self.hooks.drained.len(),
            self.nodes.shard_count(),
            "shards that said they drained"
        );
        self.settle();
    }

    /// Nobody will return: what webhooks were spared until then comes now.
    fn settle(&mut self) {
        self.hooks.settles = true;
        self.nodes.tell_all(|| FromBridge::Settle);
        for _ in 0..self.dice.below(20) {
            let (node, shard) = self.any_shard();
            self.turn(node, shard, false);
        }
        self.passes(300);
        assert_eq!(
            self.hooks.settled.len(),
            self.nodes.shard_count(),
            "shards that said they settled"
        );
        self.check_hooks();
    }
}
