//! A node, its clients, and the truth about both; what is checked at rest.

use std::collections::BTreeMap;

use serde_json::Value;
use shards::application::{Closed, Millis};
use sockudo::{bridge::message::ToBridge, channel::home_later::HOLD_LOOK_MS};

use crate::{
    api::{ApiClient, Ask, Reasons},
    client::{Client, Judge, Phase, is_presence},
    cluster::{self, ClusterPlan, is_for_nodes, is_of_cluster},
    dice::Dice,
    hooks::{GRACE_MS, Hooks},
    ledger::{Ledger, Moment, Place},
    node::Node,
    nodes::Nodes,
    plan::Plan,
    trouble::Troubles,
};

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) nodes: Nodes,
    pub(crate) step: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) apis: Vec<ApiClient>,
    pub(crate) ledger: Ledger,
    pub(crate) hooks: Hooks,
    /// Clients that a termination must have closed by the next rest.
    pub(crate) doomed: Vec<usize>,
    pub(crate) enabled: Vec<bool>,
    pub(crate) drains: bool,
    /// From when on the nodes hear each other.
    pub(crate) together_at: Millis,
    pub(crate) troubles: Troubles,
}

/// Turns after which a node with nothing new must be at rest.
const REST_TURNS_MAX: usize = 10_000;
/// Bytes of input that the server may hold for one connection: its bound and one receive.
const HELD_BYTES_MAX: usize = 64 * 1_024 + 16_384;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let plan = match is_of_cluster(seed) {
            true => Plan::of_cluster(seed, &mut dice),
            false => Plan::of(seed, &mut dice),
        };
        let nodes = match &plan.cluster {
            Some(it) => cluster::start(&plan, it, seed),
            None => Nodes::alone(Node::start(&plan.seed, plan.shards, plan.limits)),
        };
        let late = plan.cluster.as_ref().filter(|it| it.comes_at_once);
        let late_until = Millis(late.map_or(0, ClusterPlan::start_ms));
        let starts = plan.cluster.as_ref();
        let together_at = Millis(starts.map_or(0, ClusterPlan::start_ms));
        Self {
            troubles: Troubles::of(nodes.all.len(), together_at),
            dice,
            nodes,
            step: 0,
            clients: Vec::new(),
            apis: Vec::new(),
            ledger: Ledger::default(),
            hooks: Hooks::of(late_until),
            doomed: Vec::new(),
            enabled: vec![true; plan.apps.len()],
            drains: false,
            together_at,
            plan,
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment {
            step: self.step,
            at: self.nodes.now(),
        }
    }

    /// One turn of a shard, and what it told the bridge.
    pub(crate) fn turn(&mut self, node: usize, shard: usize, all: bool) -> bool {
        let quiet_ms = self.plan.cluster.as_ref().map_or(0, ClusterPlan::quiet_ms);
        if self.nodes.are_sharing(quiet_ms) {
            self.hooks.are_late(self.nodes.now().plus(1));
        }
        let it = &mut self.nodes.all[node];
        let moved = it.take_turn(shard, &mut self.dice, all);
        for (shard, at, message) in it.told.drain(..) {
            assert!(
                !matches!(message, ToBridge::Usage { .. }),
                "nobody asked for the usage"
            );
            match &mut self.nodes.cluster {
                Some(cluster) if is_for_nodes(&message) => {
                    cluster.tell(node, shard.0.into(), message);
                }
                Some(_) | None => self.hooks.hear((node, shard.0), at, &message),
            }
        }
        moved
    }

    /// What has a bound stays within it.
    pub(crate) fn check_bounds(&self) {
        for (it, shards) in self.nodes.occupancy_of_shards() {
            assert!(
                it.held_bytes_highest <= HELD_BYTES_MAX,
                "{} bytes held",
                it.held_bytes_highest
            );
            assert!(
                it.kept_events <= self.plan.kept_max.div_ceil(shards),
                "{} events kept",
                it.kept_events
            );
        }
    }

    /// A client reads what waits in its socket, up to `bytes_max`, and answers.
    pub(crate) fn client_reads(&mut self, at: usize, bytes_max: usize) -> bool {
        let now = self.moment();
        let client = &mut self.clients[at];
        let link = self.nodes.link(client.number);
        let count = bytes_max.min(link.to_client.len());
        let bytes: Vec<u8> = link.to_client.drain(..count).collect();
        client.is_lossy |= link.was_full;
        if !bytes.is_empty() {
            let mut judge = Judge {
                ledger: &mut self.ledger,
                now,
                keeping: self.plan.keeping,
                dice: &mut self.dice,
            };
            client.reads(&bytes, &mut judge);
        }
        let is_end = link.server_ended && link.to_client.is_empty();
        if is_end && client.phase != Phase::Ended && !matches!(client.phase, Phase::Closed(_)) {
            client.is_ended();
        }
        self.check_close(at);
        self.check_gone(at);
        self.check_joined(at);
        self.hand_over(at);
        count > 0
    }

    /// Closes have a reason in what happened.
    fn check_close(&self, at: usize) {
        let client = &self.clients[at];
        let Phase::Announced(code) = client.phase else {
            return;
        };
        match code {
            4200 => {
                let node = self.nodes.node_of(client.number);
                let drains = self.drains || self.troubles.was_drained(node);
                assert!(drains, "closed with 4200 without a drain");
            }
            4003 => assert!(
                self.plan.has_toggles,
                "closed with 4003 though the app is enabled"
            ),
            4100 => assert!(client.is_lossy, "client {} was not slow", client.number),
            4009 => assert!(client.signs_in, "client {} never signed in", client.number),
            4201 => {}
            code => panic!("client {} was closed with {code}", client.number),
        }
    }

    /// Puts what a client has written on its link.
    pub(crate) fn hand_over(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let bytes = std::mem::take(&mut client.output);
        self.nodes.link(client.number).to_server.extend(bytes);
    }

    pub(crate) fn api_reads(&mut self, at: usize, bytes_max: usize) -> bool {
        let now = self.moment();
        let api = &mut self.apis[at];
        let link = self.nodes.link(api.number);
        let count = bytes_max.min(link.to_client.len());
        let bytes: Vec<u8> = link.to_client.drain(..count).collect();
        let reasons = Reasons {
            has_toggles: self.plan.has_toggles,
            has_bus: self.plan.cluster.is_some(),
        };
        let doomed = api.reads(&bytes, &mut self.ledger, now, reasons);
        self.doomed.extend(doomed);
        if link.server_ended && link.to_client.is_empty() {
            api.is_ended();
        }
        count > 0
    }

    /// Lets everything arrive that is under way, while the clock stands still.
    pub(crate) fn comes_to_rest(&mut self) {
        for _ in 0..REST_TURNS_MAX {
            let mut moved = false;
            for node in self.nodes.live() {
                for shard in 0..self.nodes.shards(node) {
                    moved |= self.turn(node, shard, true);
                }
            }
            moved |= self.bridges_turn();
            for at in 0..self.clients.len() {
                moved |= self.client_reads(at, usize::MAX);
            }
            for at in 0..self.apis.len() {
                moved |= self.api_reads(at, usize::MAX);
            }
            self.step += 1;
            if !moved {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    /// One turn of each bridge, after which nothing waits there.
    fn bridges_turn(&mut self) -> bool {
        let apps = &self.plan.seed.apps;
        let mut moved = false;
        for node in self.nodes.live() {
            moved |= self.nodes.bridge_turn(node, apps, &mut self.dice, true);
        }
        moved
    }

    /// The nodes do not know each other yet.
    pub(crate) fn is_starting(&self) -> bool {
        self.nodes.now() < self.together_at
    }

    /// Lets everything arrive that is under way. Between nodes that takes time.
    pub(crate) fn comes_to_quiet(&mut self) {
        match &self.plan.cluster {
            // A node that was behind for a moment tells who has left when it looks again.
            Some(cluster) => self.passes(cluster.quiet_ms() + 2 * HOLD_LOOK_MS),
            None => self.comes_to_rest(),
        }
    }

    /// Lets the clock run on, from deadline to deadline.
    pub(crate) fn passes(&mut self, ms: u64) {
        let until = self.nodes.now().plus(ms);
        self.comes_to_rest();
        while let Some(at) = self.nodes.next_deadline().filter(|at| *at <= until) {
            self.nodes.is_now(self.nodes.now().max(at));
            self.comes_to_rest();
        }
        self.nodes.is_now(until);
        self.comes_to_rest();
    }

    /// At rest the server and its clients agree with the truth.
    pub(crate) fn check_rest(&mut self) {
        let now = self.moment();
        for client in &mut self.clients {
            if client.is_steady() {
                client.rests(&mut self.ledger, now);
            }
        }
        self.check_owed();
        self.check_wronged();
        for at in std::mem::take(&mut self.doomed) {
            assert!(
                self.clients[at].is_over(),
                "client {at} outlived the end of its user"
            );
        }
        for client in self.clients.iter().filter(|client| client.is_steady()) {
            assert!(
                self.enabled[client.app],
                "client {} is on a disabled app",
                client.number
            );
            assert!(!self.drains, "client {} outlived the drain", client.number);
        }
        self.check_clients();
        self.check_answers();
        self.ledger.check_order();
        for occupancy in self.nodes.occupancy() {
            assert_eq!(
                (
                    occupancy.jobs,
                    occupancy.leaving,
                    occupancy.behind,
                    occupancy.ready
                ),
                (0, 0, 0, 0),
                "work was left over"
            );
            assert!(
                occupancy.held_bytes_highest <= HELD_BYTES_MAX,
                "too much input is held"
            );
        }
    }

    /// Each request has its answer, unless the connection has ended. More answers than requests were
    /// refused when they came.
    fn check_answers(&self) {
        for api in self.apis.iter().filter(|api| !api.is_over) {
            let (number, expected) = (api.number, &api.expected);
            assert!(
                expected.is_empty(),
                "connection {number} has no answer to {expected:?}"
            );
        }
    }

    /// Whoever was subscribed for certain got what was published for certain.
    pub(crate) fn check_owed(&mut self) {
        for (at, epoch, number) in std::mem::take(&mut self.ledger.owed) {
            let (client, event) = (&self.clients[at], &self.ledger.events[number]);
            let subscription = client.channels.get(&event.place.1);
            let Some(subscription) = subscription.filter(|it| it.epoch == epoch && !it.ends) else {
                continue;
            };
            let must = client.is_steady() && !client.is_lossy && event.acknowledged.is_some();
            let here = self.nodes.node_of(client.number);
            let late_ms = self.plan.cluster.as_ref().map_or(0, ClusterPlan::quiet_ms);
            let is_excused = self.troubles.excuse(event.sent, event.node, here, late_ms);
            let must = must && !is_excused;
            assert!(
                !must || subscription.seen.contains(&number),
                "client {at} of node {here} never got event {number} of {:?} from node {} at {}; {}",
                event.place,
                event.node,
                event.sent.at.0,
                self.troubles
            );
        }
    }

    /// Subscriptions by channel, as the clients know them.
    pub(crate) fn subscriptions(&self) -> BTreeMap<Place, u64> {
        let mut counts = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.is_steady()) {
            for channel in client.channels.keys() {
                *counts.entry((client.app, channel.clone())).or_default() += 1;
            }
        }
        counts
    }

    /// Users of the presence channels, as the clients know them.
    pub(crate) fn members(&self) -> BTreeMap<Place, Vec<String>> {
        let mut members: BTreeMap<Place, Vec<String>> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.is_steady()) {
            for channel in client
                .channels
                .keys()
                .filter(|channel| is_presence(channel))
            {
                let place = (client.app, channel.clone());
                members
                    .entry(place)
                    .or_default()
                    .push(client.identity.clone());
            }
        }
        for users in members.values_mut() {
            users.sort_unstable();
            users.dedup();
        }
        members
    }

    fn check_clients(&self) {
        let (counts, members) = (self.subscriptions(), self.members());
        for client in self
            .clients
            .iter()
            .filter(|it| it.is_steady() && !it.is_lossy)
        {
            for (channel, subscription) in &client.channels {
                let place = (client.app, channel.clone());
                if is_presence(channel) {
                    let seen: Vec<String> = subscription.members.iter().cloned().collect();
                    let number = client.number;
                    assert_eq!(
                        seen, members[&place],
                        "members that client {number} sees in {place:?}"
                    );
                } else if !channel.starts_with('#') {
                    let number = client.number;
                    let count = subscription.count;
                    assert_eq!(
                        count,
                        Some(counts[&place]),
                        "count that {number} sees of {place:?}"
                    );
                }
            }
            self.check_watched(client);
        }
    }

    fn check_watched(&self, client: &Client) {
        let Some(user) = &client.user else { return };
        for (id, is_online) in &user.online {
            let signed_in = |it: &&Client| it.is_steady() && it.user.is_some();
            let there = self.clients.iter().filter(signed_in);
            let there = there
                .filter(|it| it.app == client.app)
                .any(|it| it.identity == *id);
            assert_eq!(
                *is_online, there,
                "client {} sees {id} online",
                client.number
            );
        }
    }

    /// What the HTTP API says at rest is the truth.
    pub(crate) fn check_api(&mut self) {
        for node in self.nodes.live() {
            self.check_api_of(node);
        }
    }

    fn check_api_of(&mut self, node: usize) {
        let (counts, members) = (self.subscriptions(), self.members());
        for app in 0..self.plan.apps.len() {
            if !self.enabled[app] {
                continue;
            }
            let told = self.probe(node, app, "/channels", &[("info", "subscription_count")]);
            let of_app = counts
                .iter()
                .filter(|(place, _)| place.0 == app && !place.1.starts_with('#'));
            let wanted: BTreeMap<&str, u64> =
                of_app.map(|(place, count)| (&*place.1, *count)).collect();
            let told = told["channels"].as_object().expect("channels are told");
            let told: BTreeMap<&str, u64> = told
                .iter()
                .map(|(name, it)| (&**name, it["subscription_count"].as_u64().unwrap_or(0)))
                .collect();
            assert_eq!(told, wanted, "channels that the API of node {node} tells");
            for (place, users) in members.iter().filter(|(place, _)| place.0 == app) {
                let path = format!("/channels/{}/users", place.1);
                let told = self.probe(node, app, &path, &[]);
                let told = told["users"].as_array().expect("users are told");
                let mut told: Vec<&str> = told.iter().filter_map(|it| it["id"].as_str()).collect();
                told.sort_unstable();
                assert_eq!(
                    told, *users,
                    "users that the API of node {node} tells of {place:?}"
                );
            }
        }
    }

    /// A connection for the API.
    pub(crate) fn connect_api(&mut self, node: usize, shard: usize, app: usize) -> ApiClient {
        let number = self.nodes.connect(node, shard, 1 << 16);
        ApiClient::new(number, app, &self.plan.credentials(app), self.moment())
    }

    /// Asks the API at rest, through any shard.
    fn probe(&mut self, node: usize, app: usize, path: &str, parameters: &[(&str, &str)]) -> Value {
        let shard = self.dice.below(self.nodes.shards(node));
        let mut api = self.connect_api(node, shard, app);
        let number = api.number;
        api.asks(self.moment(), ("GET", path), parameters, None, Ask::Probe);
        let link = self.nodes.link(number);
        link.to_server.extend(api.output.drain(..));
        self.apis.push(api);
        self.comes_to_rest();
        let api = self.apis.last_mut().expect("pushed above");
        let answer = api.probed.pop_front().expect("a request is answered");
        self.nodes.end_link(number, Closed::ByPeer);
        self.comes_to_rest();
        self.apis.pop();
        answer
    }

    /// After the grace the webhooks have told the truth, too.
    pub(crate) fn check_hooks(&self) {
        self.hooks
            .check(&self.subscriptions(), &self.members(), &self.ledger);
    }

    /// Everybody goes, in all manners; nothing of them stays.
    pub(crate) fn check_empty(&mut self) {
        for at in 0..self.clients.len() {
            let how = if self.dice.percent(50) {
                Closed::ByPeer
            } else {
                Closed::ByError
            };
            self.clients[at].leaves = true;
            self.nodes.end_link(self.clients[at].number, how);
        }
        for at in 0..self.apis.len() {
            self.nodes.end_link(self.apis[at].number, Closed::ByPeer);
        }
        self.passes(10_000 + GRACE_MS);
        self.check_hooks();
        self.passes(self.plan.keeping.kept_ms + 10_000);
        for (shard, occupancy) in self.nodes.occupancy().into_iter().enumerate() {
            assert_eq!(
                occupancy,
                Default::default(),
                "shard {shard} still holds something"
            );
        }
        // One that drains is about to end, and ticks until then.
        assert!(
            self.drains || !self.nodes.keep_ticking(),
            "an idle shard ticks"
        );
    }
}
