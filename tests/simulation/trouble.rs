//! What goes wrong in a cluster: nodes that die, stop and come again, a bus that fails; and what of
//! it excuses which loss.

use shards::application::Millis;
use sockudo::{bridge::message::FromBridge, cluster::topic::Road};

use crate::{
    client::Client,
    cluster::{Bus, ClusterPlan},
    ledger::Moment,
    nodes::Condition,
    world::World,
};

/// What was wrong so far, and what is.
#[derive(Default)]
pub(crate) struct Troubles {
    cuts: Vec<Cut>,
    /// Nodes that were started after the first ones.
    births: u64,
    /// From when on the others hear of each node's life.
    heard_from: Vec<Millis>,
    /// Nodes of which a life was drained.
    drained: Vec<usize>,
    /// Members of whom somebody heard that they are gone, though they seem to be there: connection,
    /// channel, epoch; and who heard it.
    wronged: Vec<((usize, String, u64), usize)>,
}

struct Cut {
    from: Millis,
    until: Option<Millis>,
    what: Wrong,
}

impl Cut {
    fn reaches(&self, at: Millis) -> bool {
        self.until.is_none_or(|until| until >= at)
    }

    fn lasted_ms(&self, now: Millis) -> u64 {
        self.until.unwrap_or(now).since(self.from)
    }
}

/// What is judged, and how long it takes until all have heard all when nothing is wrong.
#[derive(Clone, Copy)]
struct Judged {
    now: Millis,
    heard_ms: u64,
    /// After so much silence a node may be taken for dead.
    expelled_ms: u64,
}

impl Judged {
    fn since(self) -> Millis {
        self.before(self.now)
    }

    fn before(self, at: Millis) -> Millis {
        Millis(at.0.saturating_sub(self.heard_ms))
    }
}

/// Of what a node may lose something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    /// It has died or left.
    Gone(usize),
    Paused(usize),
    /// Its connections on a road are down.
    Down(usize, Road),
    /// The bus has given up some of its topics on a road.
    Deaf(usize, Road),
    /// Deaf on the road of state before it came: it speaks only when it hears the others.
    Unheard(usize),
    /// The process that took its place had been deaf on the road of state itself, less than a lease before: it
    /// gives everybody one more.
    Unsure(usize),
    /// Those of all nodes, at one stroke.
    AllDown,
    /// It was too slow, and lost events.
    Slow(usize),
    /// Two groups do not hear each other: by node, its group.
    Split(Vec<bool>),
    /// The bus takes and gives nothing.
    Wedged,
}

impl Wrong {
    /// Events may be lost between two nodes.
    fn parts(&self, from: usize, to: usize) -> bool {
        match self {
            Self::Gone(node) | Self::Down(node, Road::Events) => *node == from || *node == to,
            Self::Slow(node) | Self::Deaf(node, Road::Events) => *node == to,
            Self::AllDown => true,
            Self::Split(groups) => groups[from] != groups[to],
            // What waits is not lost.
            Self::Paused(_)
            | Self::Down(_, Road::State)
            | Self::Deaf(_, Road::State)
            | Self::Unheard(_)
            | Self::Unsure(_)
            | Self::Wedged => false,
        }
    }

    /// One node may take another for dead.
    fn silences(&self, node: usize, for_whom: usize) -> bool {
        match self {
            Self::Gone(it) | Self::Paused(it) | Self::Down(it, Road::State) => *it == node,
            Self::Split(groups) => groups[node] != groups[for_whom],
            // Whoever hears nothing takes nobody for dead.
            Self::AllDown | Self::Wedged | Self::Deaf(_, Road::State) => false,
            // It was not there yet, or is as before.
            Self::Unheard(_) | Self::Unsure(_) => false,
            Self::Slow(_) | Self::Down(_, Road::Events) | Self::Deaf(_, Road::Events) => false,
        }
    }

    /// A node does not hear who comes to another one.
    fn conceals(&self, node: usize, for_whom: usize) -> bool {
        match self {
            Self::AllDown | Self::Wedged => true,
            Self::Gone(it)
            | Self::Paused(it)
            | Self::Down(it, Road::State)
            | Self::Deaf(it, Road::State) => *it == for_whom || self.silences(node, for_whom),
            Self::Unheard(it) => *it == node,
            Self::Split(_) => self.silences(node, for_whom),
            // The process before has heard it.
            Self::Unsure(_) => false,
            Self::Slow(_) | Self::Down(_, Road::Events) | Self::Deaf(_, Road::Events) => false,
        }
    }

    /// Nodes may differ in who tells webhooks.
    fn divides(&self) -> bool {
        match self {
            Self::Gone(_)
            | Self::Paused(_)
            | Self::Down(_, Road::State)
            | Self::Deaf(_, Road::State)
            | Self::Split(_) => true,
            Self::AllDown
            | Self::Wedged
            | Self::Unheard(_)
            | Self::Unsure(_)
            | Self::Slow(_)
            | Self::Down(_, Road::Events)
            | Self::Deaf(_, Road::Events) => false,
        }
    }
}

impl Troubles {
    pub(crate) fn of(nodes: usize, together_at: Millis) -> Self {
        Self {
            heard_from: vec![together_at; nodes],
            ..Self::default()
        }
    }

    /// Whether what was published then on one node may be lost for another.
    pub(crate) fn excuse(&self, sent: Moment, from: usize, to: usize, late_ms: u64) -> bool {
        if from == to {
            return false;
        }
        let is_early = sent.at < self.heard_from[from].max(self.heard_from[to]);
        is_early || self.any_since(sent.at, late_ms, |what| what.parts(from, to))
    }

    /// Whether one of two nodes may not know the last event that was published then on the other one. What it could not
    /// hear itself it asks for; what the other one could not say is lost.
    pub(crate) fn hides(&self, sent: Moment, from: usize, to: usize) -> bool {
        let is_early = sent.at < self.heard_from[from].max(self.heard_from[to]);
        is_early
            || self.any_since(sent.at, 0, |what| match what {
                Wrong::Gone(_) | Wrong::Paused(_) | Wrong::Split(_) | Wrong::Wedged => true,
                Wrong::Down(node, _) | Wrong::Deaf(node, _) => *node == from,
                Wrong::Slow(_) | Wrong::AllDown | Wrong::Unheard(_) | Wrong::Unsure(_) => false,
            })
    }

    /// Whether one node may have taken another for dead since then.
    fn may_be_dead(&self, since: Millis, node: usize, for_whom: usize) -> bool {
        self.any_since(since, 0, |what| what.silences(node, for_whom))
    }

    /// Whether a node may not know yet who came to another one then: since then it was never without
    /// trouble for so long that it has heard all there is. Whom it once knew it knows until its life ends,
    /// or until it took that node for dead, by right, and has not heard all of it since.
    fn may_be_unknown(&self, came: Millis, node: usize, for_whom: usize, judged: Judged) -> bool {
        let mut from = judged.since();
        loop {
            let cuts = self.cuts.iter();
            let mut conceal = cuts.filter(|cut| {
                let is_before = judged.before(cut.from) < from;
                cut.reaches(from) && is_before && cut.what.conceals(node, for_whom)
            });
            match conceal.next() {
                Some(cut) if cut.what == Wrong::Gone(for_whom) => return true,
                Some(cut) => from = judged.before(cut.from),
                None => break,
            }
        }
        let cuts = self.cuts.iter().filter(|cut| cut.reaches(from));
        let silent = cuts.filter(|cut| cut.what.silences(node, for_whom));
        let silent_ms: u64 = silent.map(|cut| cut.lasted_ms(judged.now)).sum();
        came >= from || silent_ms >= judged.expelled_ms
    }

    fn any_since(&self, since: Millis, late_ms: u64, is_so: impl Fn(&Wrong) -> bool) -> bool {
        let mut cuts = self.cuts.iter().filter(|cut| is_so(&cut.what));
        cuts.any(|cut| cut.until.is_none_or(|until| until.plus(late_ms) >= since))
    }

    fn is(&self, what: &Wrong) -> bool {
        let mut cuts = self.cuts.iter();
        cuts.any(|cut| cut.until.is_none() && cut.what == *what)
    }

    fn is_split(&self) -> bool {
        let mut cuts = self.cuts.iter();
        cuts.any(|cut| cut.until.is_none() && matches!(cut.what, Wrong::Split(_)))
    }

    /// What is published on a node that the others do not hear of yet is lost for them.
    pub(crate) fn is_unheard(&mut self, node: usize, now: Millis) {
        self.heard_from[node] = self.heard_from[node].max(now.plus(1));
    }

    pub(crate) fn was_drained(&self, node: usize) -> bool {
        self.drained.contains(&node)
    }
}

impl std::fmt::Display for Troubles {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for cut in &self.cuts {
            let until = cut.until.map(|it| it.0);
            write!(out, "{:?} {}..{until:?}, ", cut.what, cut.from.0)?;
        }
        Ok(())
    }
}

/// Of a hundred steps.
const STRIKES_PERCENT: usize = 3;
/// What was read late is not judged: within so much of a run's time everybody has read.
const READS_WITHIN_MS: u64 = 3_000;

impl World {
    fn times(&self) -> ClusterPlan {
        let cluster = self.plan.cluster.clone();
        cluster.expect("troubles are those of a cluster")
    }

    pub(crate) fn bus(&mut self) -> &mut Bus {
        let cluster = self.nodes.cluster.as_mut();
        &mut cluster.expect("troubles are those of a cluster").bus
    }

    fn begins(&mut self, what: Wrong) {
        let from = self.nodes.now();
        if what.divides() {
            self.hooks.are_late(Millis(u64::MAX));
        }
        if let Wrong::Deaf(node, Road::State) = what
            && self.nodes.is_starting(node)
        {
            self.begins(Wrong::Unheard(node));
        }
        self.troubles.cuts.push(Cut {
            from,
            until: None,
            what,
        });
    }

    fn ends(&mut self, what: &Wrong) {
        if let Wrong::Deaf(node, Road::State) = what {
            self.ends(&Wrong::Unheard(*node));
        }
        let now = self.nodes.now();
        for cut in &mut self.troubles.cuts {
            if cut.until.is_none() && cut.what == *what {
                cut.until = Some(now);
            }
        }
    }

    /// One of its troubles is told as it is now.
    fn is(&mut self, what: Wrong, so: bool) {
        match so {
            true if !self.troubles.is(&what) => self.begins(what),
            true => {}
            false => self.ends(&what),
        }
    }

    /// A node's connections are those of another process, or are again its own.
    pub(crate) fn is_connected_anew(&mut self, node: usize) {
        // With those of all others they come again.
        let are_all_down = self.troubles.is(&Wrong::AllDown);
        for road in Road::ALL {
            let is_down = !self.bus().is_up(node, road) && !are_all_down;
            self.is(Wrong::Down(node, road), is_down);
            let is_deaf = self.bus().is_deaf(node, road);
            self.is(Wrong::Deaf(node, road), is_deaf);
        }
    }

    /// Whether the process that is to take a node's place did not hear the others within the last lease.
    pub(crate) fn follower_was_deaf(&self) -> bool {
        let times = self.times();
        let lately_ms = times.times.lease_ms + times.quiet_ms();
        let deaf_at = self.nodes.follower_deaf_at();
        deaf_at.is_some_and(|at| at.plus(lately_ms) > self.nodes.now())
    }

    /// It has taken it.
    pub(crate) fn is_unsure(&mut self, node: usize) {
        self.begins(Wrong::Unsure(node));
        self.ends(&Wrong::Unsure(node));
    }

    /// Something happens to the process that is to take a node's place: what is lost to it is lost to the
    /// node if it does so by now.
    pub(crate) fn follower_is_struck(&mut self, node: usize, is_silent: bool) {
        let spare = self.bus().spare();
        let road = *self.dice.pick(&Road::ALL);
        let (number, kept) = (self.dice.below(5), self.dice.below(4));
        let now = self.nodes.now();
        let cluster = self.nodes.cluster.as_mut().expect("it is one");
        let (bus, dice) = (&mut cluster.bus, &mut self.dice);
        let what = match number {
            _ if self.troubles.is(&Wrong::AllDown) => return,
            0 | 1 if bus.is_up(spare, road) => {
                bus.goes_down(spare, road);
                Wrong::Down(node, road)
            }
            0 | 1 => return bus.comes_up(spare, road, dice),
            2 | 3 if bus.is_deaf(spare, road) => return bus.finds_again(spare, road, dice),
            2 | 3 if bus.loses_some(spare, road, dice) => Wrong::Deaf(node, road),
            4 if bus.drops(spare, road, kept) && road == Road::Events => {
                self.begins(Wrong::Slow(node));
                return self.ends(&Wrong::Slow(node));
            }
            _ => return,
        };
        cluster.hears_anew();
        if road == Road::State {
            cluster.follower_is_deaf(now);
        }
        if is_silent {
            self.is(what, true);
        }
    }

    /// Now and then something goes wrong, or well again.
    pub(crate) fn may_be_struck(&mut self) {
        // The first start of a cluster is left in peace.
        if !self.plan.has_troubles || self.is_starting() || !self.dice.percent(STRIKES_PERCENT) {
            return;
        }
        let waits = |what: &Wrong| matches!(what, Wrong::Paused(_) | Wrong::Wedged);
        let mut cuts = self.troubles.cuts.iter();
        let is_late = cuts.any(|cut| cut.until.is_none() && waits(&cut.what));
        if !is_late && self.dice.percent(40) {
            // What was published so far has arrived: nothing of it is excused by what comes.
            self.comes_to_quiet();
            self.check_owed();
        }
        self.strikes();
        let times = self.times().times;
        match self.dice.below(4) {
            0 => self.passes_some(times.heartbeat_ms, 2 * times.lease_ms),
            1 => self.passes_some(10, times.heartbeat_ms),
            _ => {}
        }
    }

    fn passes_some(&mut self, low_ms: u64, high_ms: u64) {
        let ms = self.dice.between(low_ms as usize, high_ms as usize);
        self.passes(ms as u64);
    }

    pub(crate) fn strikes(&mut self) {
        let node = self.dice.below(self.nodes.all.len());
        let has_others = self.has_others(node);
        let followed = self.nodes.followed();
        let silent = followed.filter(|it| self.nodes.condition(*it) == Condition::Silent);
        if let (Some(of), None) = (followed, silent)
            && self.dice.percent(20)
        {
            return match self.dice.percent(30) {
                true => self.follower_ends(),
                false => self.follower_is_struck(of, false),
            };
        }
        let road = *self.dice.pick(&Road::ALL);
        match (self.dice.below(10), self.nodes.condition(node)) {
            (0..2, Condition::Absent) => self.is_born(node),
            (0..2, Condition::Paused) => self.goes_on(node),
            (0, Condition::Live) if has_others => self.dies(node),
            (1, Condition::Live) if has_others => self.pauses(node),
            (2, Condition::Live) if has_others && silent.is_none() => self.leaves(node),
            (3, Condition::Live | Condition::Paused) => self.road_changes(node, road),
            (4, _) => self.bus_changes(),
            (5, _) => self.splits_or_heals(),
            (6, _) => self.wedges_or_not(),
            (7, Condition::Live | Condition::Paused) => {
                let kept = self.dice.below(4);
                if self.bus().drops(node, Road::Events, kept) {
                    self.begins(Wrong::Slow(node));
                    self.ends(&Wrong::Slow(node));
                }
            }
            (8, Condition::Live | Condition::Paused) => {
                let kept = self.dice.below(4);
                self.bus().drops(node, Road::State, kept);
            }
            (9, Condition::Live | Condition::Paused) => self.hearing_changes(node, road),
            _ => {}
        }
    }

    /// Some other node does something.
    pub(crate) fn has_others(&self, node: usize) -> bool {
        self.nodes.live().iter().any(|it| *it != node)
    }

    /// It is killed: no goodbye.
    pub(crate) fn dies(&mut self, node: usize) {
        self.begins(Wrong::Gone(node));
        self.is_gone(node);
    }

    fn is_gone(&mut self, node: usize) {
        for road in Road::ALL {
            self.ends(&Wrong::Down(node, road));
            self.ends(&Wrong::Deaf(node, road));
        }
        self.ends(&Wrong::Paused(node));
        self.bus().dies(node);
        self.nodes.all[node].dies();
        self.nodes.becomes(node, Condition::Absent);
        if self.nodes.followed() == Some(node) {
            self.follower_ends();
        }
        for client in &mut self.clients {
            client.leaves |= self.nodes.node_of(client.number) == node;
        }
        for api in &mut self.apis {
            if self.nodes.node_of(api.number) == node {
                api.is_ended();
            }
        }
        self.hooks.forget_node(node);
    }

    /// A new life under the old name.
    fn is_born(&mut self, node: usize) {
        self.troubles.births += 1;
        self.ends(&Wrong::Gone(node));
        self.hooks.are_late(Millis(u64::MAX));
        let heard_from = self.nodes.now().plus(self.times().start_ms());
        self.troubles.heard_from[node] = heard_from;
        self.nodes.is_born(&self.plan, node, self.troubles.births);
        self.nodes.becomes(node, Condition::Live);
        if self.troubles.is(&Wrong::AllDown) {
            for road in Road::ALL {
                self.bus().goes_down(node, road);
            }
        }
    }

    fn pauses(&mut self, node: usize) {
        self.begins(Wrong::Paused(node));
        self.nodes.becomes(node, Condition::Paused);
    }

    fn goes_on(&mut self, node: usize) {
        self.ends(&Wrong::Paused(node));
        self.nodes.becomes(node, Condition::Live);
    }

    /// It drains, says goodbye, and is gone.
    fn leaves(&mut self, node: usize) {
        if self.nodes.followed() == Some(node) {
            self.follower_ends();
        }
        self.troubles.drained.push(node);
        self.hooks.node_settles(node);
        let deadline = self.nodes.now().plus(2_000);
        let rate_per_s = *self.dice.pick(&[0, 100]);
        self.nodes.all[node].tell_all(|| FromBridge::Drain {
            deadline,
            rate_per_s,
        });
        for _ in 0..self.dice.below(30) {
            self.step += 1;
            self.acts();
        }
        let shards = self.nodes.shards(node);
        for _ in 0..100 {
            if self.hooks.drained_of(node) < shards {
                self.passes(100);
            }
        }
        assert_eq!(self.hooks.drained_of(node), shards, "shards that drained");
        self.nodes.all[node].tell_all(|| FromBridge::Settle);
        self.passes(300);
        let said_at = self.nodes.now();
        self.nodes.says_goodbye(node);
        self.begins(Wrong::Gone(node));
        self.comes_to_quiet();
        self.check_goodbye(node, said_at);
        self.is_gone(node);
    }

    /// Who hears all others waits for no lease to know that one has left which they had heard of.
    fn check_goodbye(&self, node: usize, said_at: Millis) {
        let cuts = self.troubles.cuts.iter();
        let mut others = cuts.filter(|cut| cut.what != Wrong::Gone(node));
        let times = &self
            .plan
            .cluster
            .as_ref()
            .expect("nodes leave clusters")
            .times;
        let healed_ms = 3 * times.lease_ms;
        let now = self.nodes.now().0;
        let has_trouble = others.any(|cut| cut.until.is_none_or(|it| it.0 + healed_ms > now));
        if has_trouble || said_at < self.troubles.heard_from[node] {
            return;
        }
        for other in self.nodes.live().into_iter().filter(|it| *it != node) {
            assert!(
                !self.nodes.knows(other, node),
                "node {other} did not hear the goodbye of {node}"
            );
        }
    }

    fn road_changes(&mut self, node: usize, road: Road) {
        if self.troubles.is(&Wrong::AllDown) {
            return;
        }
        let what = Wrong::Down(node, road);
        match self.bus().is_up(node, road) {
            true => {
                self.begins(what);
                self.bus().goes_down(node, road);
            }
            false => {
                self.ends(&what);
                self.comes_up(node, road);
            }
        }
    }

    fn comes_up(&mut self, node: usize, road: Road) {
        let cluster = self.nodes.cluster.as_mut();
        let bus = &mut cluster.expect("it is one").bus;
        bus.comes_up(node, road, &mut self.dice);
    }

    /// Some of a node's topics are lost to it, or found again.
    fn hearing_changes(&mut self, node: usize, road: Road) {
        let what = Wrong::Deaf(node, road);
        let cluster = self.nodes.cluster.as_mut();
        let bus = &mut cluster.expect("it is one").bus;
        if self.troubles.is(&what) {
            bus.finds_again(node, road, &mut self.dice);
            self.ends(&what);
        } else if bus.loses_some(node, road, &mut self.dice) {
            self.begins(what);
        }
    }

    /// The whole bus goes, or comes again.
    fn bus_changes(&mut self) {
        let there = 0..self.nodes.all.len();
        let there: Vec<usize> = there
            .filter(|node| self.nodes.condition(*node) != Condition::Absent)
            .collect();
        if self.troubles.is(&Wrong::AllDown) {
            self.ends(&Wrong::AllDown);
            let spare = self.bus().spare();
            let all = there.iter().chain([&spare]);
            for (node, road) in all.flat_map(|it| Road::ALL.map(|road| (*it, road))) {
                self.comes_up(node, road);
            }
            return;
        }
        let roads = || {
            there
                .iter()
                .flat_map(|it| Road::ALL.map(|road| (*it, road)))
        };
        if !roads().all(|(node, road)| self.bus().is_up(node, road)) {
            return;
        }
        self.begins(Wrong::AllDown);
        for (node, road) in roads() {
            self.bus().goes_down(node, road);
        }
        let followed = self.nodes.followed();
        if followed.is_some() {
            let spare = self.bus().spare();
            for road in Road::ALL {
                self.bus().goes_down(spare, road);
            }
        }
    }

    fn splits_or_heals(&mut self) {
        if self.troubles.is_split() {
            return self.heals();
        }
        let groups: Vec<bool> = (0..self.nodes.all.len())
            .map(|_| self.dice.percent(50))
            .collect();
        self.begins(Wrong::Split(groups.clone()));
        self.bus().splits(groups);
    }

    fn heals(&mut self) {
        self.bus().heals();
        let now = self.nodes.now();
        for cut in &mut self.troubles.cuts {
            if matches!(cut.what, Wrong::Split(_)) {
                cut.until.get_or_insert(now);
            }
        }
    }

    fn wedges_or_not(&mut self) {
        let was_wedged = self.troubles.is(&Wrong::Wedged);
        match was_wedged {
            true => self.ends(&Wrong::Wedged),
            false => self.begins(Wrong::Wedged),
        }
        self.bus().is_wedged(!was_wedged);
    }

    /// All is well again, though some nodes may stay away; after this all of them agree.
    pub(crate) fn calms_down(&mut self) {
        if !self.plan.has_troubles {
            return;
        }
        for node in 0..self.nodes.all.len() {
            match self.nodes.condition(node) {
                Condition::Paused => self.goes_on(node),
                Condition::Absent if self.dice.percent(70) => self.is_born(node),
                Condition::Absent | Condition::Live => {}
                Condition::Silent => panic!("no silence outlasts its step"),
            }
        }
        if self.troubles.is(&Wrong::Wedged) {
            self.wedges_or_not();
        }
        self.heals();
        if self.troubles.is(&Wrong::AllDown) {
            self.bus_changes();
        }
        for node in 0..self.nodes.all.len() {
            for road in Road::ALL {
                if self.troubles.is(&Wrong::Deaf(node, road)) {
                    self.hearing_changes(node, road);
                }
                let is_there = self.nodes.condition(node) != Condition::Absent;
                if is_there && !self.bus().is_up(node, road) {
                    self.road_changes(node, road);
                }
            }
        }
        let times = self.times();
        self.passes(times.start_ms() + times.times.lease_ms + times.quiet_ms());
    }

    /// Webhooks are judged again, when all are at rest and agree.
    pub(crate) fn hooks_begin_anew(&mut self) {
        let (counts, members) = (self.subscriptions(), self.members());
        let (now, events) = (self.nodes.now(), self.ledger.events.len());
        self.hooks.begin_anew(now, &counts, &members, events);
    }

    /// Nobody hears that a member has gone who was there all the time, unless its node could be taken
    /// for dead, or who hears it could not know of this connection yet when another one ended.
    pub(crate) fn check_gone(&mut self, at: usize) {
        let gone = std::mem::take(&mut self.clients[at].gone);
        let client = &self.clients[at];
        let Some(cluster) = &self.plan.cluster else {
            return;
        };
        if gone.is_empty() || client.is_lossy || client.reads_rarely {
            return;
        }
        let times = cluster.times;
        let judged = Judged {
            now: self.nodes.now(),
            heard_ms: times.lease_ms + 3 * times.heartbeat_ms + READS_WITHIN_MS,
            // It was heard last up to a heartbeat and a way before.
            expelled_ms: times.lease_ms - 2 * times.heartbeat_ms,
        };
        let since = judged.since();
        let here = self.nodes.node_of(client.number);
        for (channel, user) in gone {
            let is_there = |it: &&Client| {
                let subscription = it.channels.get(&channel).filter(|it| !it.ends);
                it.app == client.app
                    && it.identity == user
                    && it.is_steady()
                    && subscription.is_some_and(|it| it.since < since)
            };
            for member in self.clients.iter().filter(is_there) {
                let there = self.nodes.node_of(member.number);
                let came = member.channels[&channel].since;
                let troubles = &self.troubles;
                let is_excused = troubles.may_be_dead(since, there, here)
                    || troubles.may_be_unknown(came, there, here, judged);
                if !is_excused {
                    let epoch = member.channels[&channel].epoch;
                    let wronged = (member.number, channel.clone(), epoch);
                    self.troubles.wronged.push((wronged, client.number));
                }
            }
        }
    }

    /// Nobody is told to be subscribed by a node that cannot hear what others publish.
    pub(crate) fn check_joined(&mut self, at: usize) {
        let joined = std::mem::take(&mut self.clients[at].joined);
        let node = self.nodes.node_of(self.clients[at].number);
        let is_deaf = |cut: &Cut, asked: Millis| {
            let is_down = cut.what == Wrong::AllDown || cut.what == Wrong::Down(node, Road::Events);
            is_down && cut.until.is_none() && cut.from.plus(READS_WITHIN_MS) <= asked
        };
        for asked in joined {
            // One that was stopped may not have heard yet that its bus is gone.
            let since = Millis(asked.0.saturating_sub(READS_WITHIN_MS));
            let what = Wrong::Paused(node);
            let was_stopped = self.troubles.any_since(since, 0, |it| *it == what);
            assert!(
                was_stopped || !self.troubles.cuts.iter().any(|cut| is_deaf(cut, asked)),
                "client {at} was subscribed by node {node}, which is without its bus; {}",
                self.troubles
            );
        }
    }

    /// Whoever was said to have gone has gone: the server knew of an end before the client did.
    pub(crate) fn check_wronged(&mut self) {
        for ((number, channel, epoch), teller) in std::mem::take(&mut self.troubles.wronged) {
            let found = self.clients.iter().find(|it| it.number == number);
            let client = found.expect("clients stay known");
            let subscription = client.channels.get(&channel);
            let is_there = subscription.is_some_and(|it| it.epoch == epoch && !it.ends);
            assert!(
                !is_there || !client.is_steady() || client.is_lossy,
                "client {teller} heard that {} left {channel}, where client {number} is; {}",
                client.identity,
                self.troubles
            );
        }
    }
}
