//! Who of the cluster is there: leases of peers, and when one's own silence is to blame.
//!
//! Owns: `Membership`: peers with their incarnations and leases, the own canary, own pauses; `strays` tells two lives of one
//! name from one that has ended.
//! May depend on: `cluster::{canary, entry, fault, identity}`, serde, `Millis`. Time is an argument; what time is now never
//! goes back.
//! Invariants: a node has at most one living incarnation; each that joined ends at most once; while
//! views are stale nobody ends, and for one whole lease after the trouble nobody does.

mod carrying;
mod strays;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shards::application::Millis;

use self::strays::Strays;
use super::{
    canary::{CANARIES_MISSED, Canaries},
    entry::Token,
    fault::{Fault, is_planted},
    identity::{Identity, Incarnation, NodeId},
};

/// Times of a cluster, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
    /// How often the own canary flies; 0: never, and the bus is believed.
    pub canary_ms: u64,
}

impl Times {
    /// An echo that takes so long is late. A bus that is dead for a moment hides one heartbeat, the time
    /// to the next canary, and that one's echo: together less than a lease, so that no lease runs out
    /// before the bus is known to be at fault. Wants a `canary_ms` of at most a third of the lease.
    fn echo_ms(&self) -> u64 {
        let hidden_ms = self.heartbeat_ms + self.canary_ms;
        let rest_ms = self.lease_ms.saturating_sub(hidden_ms);
        let missed_ms = CANARIES_MISSED * self.canary_ms;
        missed_ms.min(rest_ms - rest_ms / 4).max(self.lease_ms / 4)
    }
}

/// What a step means for others, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A peer is there: what it holds is to be asked for.
    Joined(Identity),
    /// The node lives on in another incarnation: what the old one held goes, the new one's is to be
    /// asked for.
    Restarted {
        old: Identity,
        new: Identity,
    },
    /// What the peer held goes.
    Expelled(Identity, Reason),
    /// Two processes live under one `cluster.node_id`. Told once per incarnation that is heard.
    Conflict(NodeId),
    /// The own view may be behind: nothing of it may be announced.
    Stale,
    Fresh,
}

/// Why a peer was expelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    LeaseRanOut,
    Goodbye,
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Take,
    /// It said goodbye: events that were on their way are taken, and nothing else.
    TakeEvents,
    /// Our own, or of an incarnation that has ended, or of one peer too many.
    Ignore,
}

/// What happened, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches of incarnations that have ended.
    pub late_batches: u64,
    /// Batches of nodes beyond `PEERS_MAX`.
    pub refused_batches: u64,
    /// Times that this node was stopped for longer than a heartbeat.
    pub pauses: u64,
}

/// The peers of a node, as it sees them.
#[derive(Debug)]
pub struct Membership {
    own: Identity,
    times: Times,
    /// By node; at most `PEERS_MAX`.
    rows: BTreeMap<NodeId, Row>,
    /// Lives under the own name that are not ours.
    doubles: Strays,
    /// When a later one of them was heard: the others listen to that one alone.
    succeeded_at: Option<Millis>,
    canaries: Canaries,
    ticked_at: Millis,
    view: View,
    hears_peers: bool,
    /// It did not at some time since the last tick.
    was_deaf: bool,
    counters: Counters,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Row {
    incarnation: Incarnation,
    state: State,
    heard_at: Millis,
    strays: Strays,
}

// For the process that follows too, as the rest of a row is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum State {
    Live,
    /// Said goodbye while views were stale: it ends when they are fresh.
    Leaving,
    /// Said goodbye: what comes late is known for a lease.
    Gone {
        until: Millis,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum View {
    Fresh,
    /// The own canary is late, or a topic of the others is lost.
    Deaf,
    /// The trouble is over, and everybody gets a whole lease.
    Granting {
        until: Millis,
    },
}

/// What keeps a node from hearing the others.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    CanaryLate,
    /// This node was stopped for longer than a heartbeat.
    Pause,
}

impl Membership {
    /// Of a node that starts now and knows nobody.
    pub fn new(now: Millis, own: Identity, times: Times) -> Self {
        assert!(times.lease_ms >= 3 * times.heartbeat_ms);
        Self {
            own,
            times,
            rows: BTreeMap::new(),
            doubles: Strays::since(now, &times),
            succeeded_at: None,
            canaries: Canaries::new(now, times.echo_ms()),
            ticked_at: now,
            view: View::Fresh,
            hears_peers: true,
            was_deaf: false,
            counters: Counters::default(),
        }
    }

    /// Takes the header of a batch that was heard: any batch proves life.
    pub fn hear(&mut self, now: Millis, sender: Identity, effects: &mut Vec<Effect>) -> Verdict {
        if sender.node == self.own.node {
            self.hear_own_name(now, sender.incarnation, effects);
            return Verdict::Ignore;
        }
        let is_fresh = self.view == View::Fresh;
        let times = self.times;
        let strays = Strays::since(now, &times);
        let Some(row) = self.rows.get_mut(&sender.node) else {
            if self.rows.len() == PEERS_MAX {
                self.counters.refused_batches += 1;
                return Verdict::Ignore;
            }
            let row = Row {
                incarnation: sender.incarnation,
                state: State::Live,
                heard_at: now,
                strays,
            };
            self.rows.insert(sender.node, row);
            effects.push(Effect::Joined(sender));
            return Verdict::Take;
        };
        if sender.incarnation > row.incarnation {
            let old = identity(sender.node, row);
            effects.push(match row.state {
                State::Live | State::Leaving => Effect::Restarted { old, new: sender },
                State::Gone { .. } => Effect::Joined(sender),
            });
            *row = Row {
                incarnation: sender.incarnation,
                state: State::Live,
                heard_at: now,
                strays,
            };
            return Verdict::Take;
        }
        if sender.incarnation < row.incarnation {
            self.counters.late_batches += 1;
            // The bus may bring old batches late while it is in trouble: that is no sign of life.
            if is_fresh && row.state == State::Live && row.strays.hear(now, &times) {
                effects.push(Effect::Conflict(sender.node));
            }
            return Verdict::Ignore;
        }
        match row.state {
            State::Live => {
                row.heard_at = now;
                Verdict::Take
            }
            State::Leaving | State::Gone { .. } => {
                self.counters.late_batches += 1;
                Verdict::TakeEvents
            }
        }
    }

    fn hear_own_name(&mut self, now: Millis, theirs: Incarnation, effects: &mut Vec<Effect>) {
        if theirs == self.own.incarnation {
            return;
        }
        self.counters.late_batches += 1;
        if theirs > self.own.incarnation {
            self.succeeded_at = Some(now);
        }
        let is_fresh = self.view == View::Fresh;
        if is_fresh && self.doubles.hear(now, &self.times) {
            effects.push(Effect::Conflict(self.own.node));
        }
    }

    /// Another process lives under this node's name, and the others hear that one.
    pub fn is_succeeded(&self) -> bool {
        let lease_ms = self.times.lease_ms;
        let is_lately = |at| self.ticked_at.since(at) < lease_ms;
        self.succeeded_at.is_some_and(is_lately)
    }

    /// A peer says that its incarnation ends, which takes effect when views are fresh; after
    /// `hear` of the batch that says so.
    pub fn end(&mut self, now: Millis, peer: Identity, effects: &mut Vec<Effect>) {
        let Some(row) = self.rows.get_mut(&peer.node) else {
            return;
        };
        if row.incarnation != peer.incarnation || row.state != State::Live {
            return;
        }
        if is_planted(Fault::GoodbyeIgnored) {
            return;
        }
        if self.view != View::Fresh {
            row.state = State::Leaving;
            return;
        }
        let until = now.plus(self.times.lease_ms);
        row.state = State::Gone { until };
        effects.push(Effect::Expelled(peer, Reason::Goodbye));
    }

    /// The own canary was handed to the bus.
    pub fn canary_sent(&mut self, now: Millis, token: Token) {
        self.canaries.sent(now, token);
    }

    /// The own canary came back, and with it whatever was sent before it.
    pub fn canary_heard(&mut self, now: Millis, token: Token) {
        self.canaries.heard(now, token);
    }

    pub(super) fn canaries(&self) -> &Canaries {
        &self.canaries
    }

    /// Whether this node is subscribed to all that the others say of themselves: a bus may bring its canaries
    /// and not their heartbeats.
    pub fn hears_peers(&mut self, does: bool) {
        self.hears_peers = does;
        self.was_deaf |= !does;
    }

    /// Time went on: at least each half heartbeat, after what waited on the bus was heard.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let pause_ms = now.since(self.ticked_at);
        self.ticked_at = now;
        let is_paused = pause_ms > self.times.heartbeat_ms;
        self.counters.pauses += u64::from(is_paused);
        let was_fresh = self.view == View::Fresh;
        // Where it was known, a late echo is the end of the trouble.
        let was_late = self.canaries.take_was_late() && self.view != View::Deaf;
        let was_deaf = std::mem::replace(&mut self.was_deaf, !self.hears_peers);
        let is_late = was_late || was_deaf || self.canaries.is_late(now);
        let trouble = match (is_late, is_paused) {
            (true, _) => Some(Trouble::CanaryLate),
            (false, true) => Some(Trouble::Pause),
            (false, false) => None,
        };
        self.view = self.view_after(now, trouble);
        match (was_fresh, self.view == View::Fresh) {
            (true, false) => effects.push(Effect::Stale),
            (false, true) => effects.push(Effect::Fresh),
            (true, true) | (false, false) => {}
        }
        if self.view == View::Fresh || is_planted(Fault::LeaseWhileLate) {
            self.expel(now, effects);
        }
    }

    fn view_after(&self, now: Millis, trouble: Option<Trouble>) -> View {
        let granting = View::Granting {
            until: now.plus(self.times.lease_ms),
        };
        match (trouble, self.view) {
            (Some(Trouble::CanaryLate), _) => View::Deaf,
            (Some(Trouble::Pause), _) | (None, View::Deaf) => granting,
            (None, View::Granting { until }) if now >= until => View::Fresh,
            (None, view @ (View::Granting { .. } | View::Fresh)) => view,
        }
    }

    /// Ends who has been silent for a lease. Silence counts up to the last echo only: of what came
    /// after it nobody knows whether the peer or the bus is silent.
    fn expel(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let times = self.times;
        let proved_at = match times.canary_ms {
            0 => now,
            _ if is_planted(Fault::LeaseWhileLate) => now,
            _ if is_planted(Fault::LeaseForEver) => Millis(0),
            _ => self.canaries.echoed_at(),
        };
        self.rows.retain(|node, row| match row.state {
            State::Live if proved_at.since(row.heard_at) >= times.lease_ms => {
                effects.push(Effect::Expelled(identity(*node, row), Reason::LeaseRanOut));
                false
            }
            State::Leaving => {
                effects.push(Effect::Expelled(identity(*node, row), Reason::Goodbye));
                let until = now.plus(times.lease_ms);
                row.state = State::Gone { until };
                true
            }
            State::Gone { until } => now < until,
            State::Live => true,
        });
    }

    /// Peers that are there, and when each was heard last, by node.
    pub fn peers(&self) -> impl Iterator<Item = (Identity, Millis)> {
        let present = self.rows.iter().filter(|(_, row)| match row.state {
            State::Live | State::Leaving => true,
            State::Gone { .. } => false,
        });
        present.map(|(node, row)| (identity(*node, row), row.heard_at))
    }

    /// False while nothing of the view may be announced.
    pub fn is_fresh(&self) -> bool {
        self.view == View::Fresh
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }
}

fn identity(node: NodeId, row: &Row) -> Identity {
    Identity {
        node,
        incarnation: row.incarnation,
    }
}

/// Nodes that are known at once, with those that have just gone. Beyond: ignored and counted.
pub const PEERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMES: Times = Times {
        lease_ms: 5_000,
        heartbeat_ms: 1_000,
        canary_ms: 1_000,
    };

    fn peer(node: u128, incarnation: u64) -> Identity {
        Identity {
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
        }
    }

    /// A node with a bus that echoes as long as it is told to, ticking each 500 ms.
    struct Node {
        membership: Membership,
        now: u64,
        bus_works: bool,
        tokens: u64,
    }

    impl Node {
        fn new() -> Self {
            Self {
                membership: Membership::new(Millis(0), peer(0, 5), TIMES),
                now: 0,
                bus_works: true,
                tokens: 0,
            }
        }

        fn hears(&mut self, sender: Identity) -> Vec<Effect> {
            let mut effects = Vec::new();
            let _ = self.membership.hear(Millis(self.now), sender, &mut effects);
            effects
        }

        fn is_left_by(&mut self, sender: Identity) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.membership.end(Millis(self.now), sender, &mut effects);
            effects
        }

        fn ticks(&mut self) -> Vec<Effect> {
            let mut effects = Vec::new();
            if self.now.is_multiple_of(1_000) {
                self.tokens += 1;
                let token = Token(self.tokens);
                self.membership.canary_sent(Millis(self.now), token);
            }
            if self.bus_works {
                self.membership
                    .canary_heard(Millis(self.now), Token(self.tokens));
            }
            self.membership.tick(Millis(self.now), &mut effects);
            effects
        }

        /// Goes on until then, while these peers are heard; what happened, and when.
        fn until(&mut self, end: u64, heard: &[Identity]) -> Vec<(u64, Effect)> {
            let mut all = Vec::new();
            while self.now < end {
                self.now += 500;
                let mut effects = Vec::new();
                for sender in heard {
                    effects.extend(self.hears(*sender));
                }
                effects.extend(self.ticks());
                all.extend(effects.into_iter().map(|effect| (self.now, effect)));
            }
            all
        }
    }

    #[test]
    fn a_silent_peer_is_expelled_once_its_lease_ran_out() {
        let mut node = Node::new();
        let (a, b) = (peer(1, 1), peer(2, 1));
        assert_eq!(node.hears(a), [Effect::Joined(a)]);
        assert_eq!(node.hears(a), []);
        assert_eq!(node.until(4_500, &[b]), [(500, Effect::Joined(b))]);
        let gone = Effect::Expelled(a, Reason::LeaseRanOut);
        assert_eq!(node.until(20_000, &[b]), [(5_000, gone)]);
        let peers: Vec<_> = node.membership.peers().collect();
        assert_eq!(peers, [(b, Millis(20_000))]);
        // It was there all the time, and comes back whole.
        assert_eq!(node.hears(a), [Effect::Joined(a)]);
    }

    #[test]
    fn whoever_says_goodbye_goes_at_once_and_what_comes_late_is_ignored() {
        let mut node = Node::new();
        let (old, new) = (peer(1, 1), peer(1, 2));
        let _ = node.hears(old);
        assert_eq!(
            node.is_left_by(old),
            [Effect::Expelled(old, Reason::Goodbye)]
        );
        assert_eq!(node.is_left_by(old), []);
        assert_eq!(node.hears(old), []);
        assert_eq!(node.membership.counters().late_batches, 1);
        assert_eq!(node.hears(new), [Effect::Joined(new)]);
        assert_eq!(node.hears(old), []);
        assert_eq!(node.membership.counters().late_batches, 2);
    }

    #[test]
    fn a_new_life_replaces_the_old_one_at_one_stroke() {
        let mut node = Node::new();
        let (old, new) = (peer(1, 1), peer(1, 2));
        let _ = node.hears(old);
        assert_eq!(node.hears(new), [Effect::Restarted { old, new }]);
        assert_eq!(node.hears(old), []);
        assert_eq!(node.is_left_by(old), []);
        let mut effects = Vec::new();
        let verdict = node.membership.hear(Millis(0), old, &mut effects);
        assert_eq!(verdict, Verdict::Ignore);
        assert_eq!(node.membership.peers().count(), 1);
    }

    #[test]
    fn while_the_own_canary_is_late_nobody_ends() {
        let mut node = Node::new();
        let (a, b) = (peer(1, 1), peer(2, 1));
        let _ = node.until(2_000, &[a, b]);
        node.bus_works = false;
        // The canary of 3 000 is the first one that is late.
        assert_eq!(node.until(60_000, &[]), [(5_500, Effect::Stale)]);
        assert_eq!(node.is_left_by(b), []);
        node.bus_works = true;
        // At 60 500 the bus is back, and a whole lease is granted; only a uses it.
        let fresh = (65_500, Effect::Fresh);
        let gone = (65_500, Effect::Expelled(b, Reason::Goodbye));
        assert_eq!(node.until(80_000, &[a]), [fresh, gone]);
    }

    #[test]
    fn while_topics_of_the_others_are_lost_nobody_ends() {
        let mut node = Node::new();
        let a = peer(1, 1);
        let _ = node.until(2_000, &[a]);
        node.membership.hears_peers(false);
        assert_eq!(node.until(60_000, &[]), [(2_500, Effect::Stale)]);
        node.membership.hears_peers(true);
        let gone = Effect::Expelled(a, Reason::LeaseRanOut);
        let expected = [(66_000, Effect::Fresh), (66_000, gone)];
        assert_eq!(node.until(80_000, &[]), expected);
        // Lost for a moment between two ticks is lost too.
        node.membership.hears_peers(false);
        node.membership.hears_peers(true);
        assert_eq!(node.until(80_500, &[]), [(80_500, Effect::Stale)]);
    }

    #[test]
    fn whoever_stays_silent_after_the_trouble_ends_with_the_granted_lease() {
        let mut node = Node::new();
        let _ = node.until(2_000, &[peer(1, 1)]);
        node.bus_works = false;
        let _ = node.until(30_000, &[]);
        node.bus_works = true;
        let gone = Effect::Expelled(peer(1, 1), Reason::LeaseRanOut);
        let expected = [(35_500, Effect::Fresh), (35_500, gone)];
        assert_eq!(node.until(50_000, &[]), expected);
    }

    /// Whatever the bus loses and for how long, a peer that lives comes back before its lease is judged.
    #[test]
    fn no_outage_of_the_bus_ends_a_peer_that_lives() {
        for (lease_ms, canary_ms) in [
            (3_000, 1_000),
            (5_000, 1_000),
            (5_000, 500),
            (30_000, 1_000),
        ] {
            let times = Times {
                lease_ms,
                heartbeat_ms: 1_000,
                canary_ms,
            };
            for (phase, outage) in (0..1_000).step_by(250).flat_map(|phase| {
                (0..2 * lease_ms)
                    .step_by(250)
                    .map(move |outage| (phase, outage))
            }) {
                let (mut membership, mut effects) =
                    (Membership::new(Millis(0), peer(0, 1), times), Vec::new());
                let begin = 10_000 + 1;
                for now in (0..begin + outage + 2 * lease_ms).step_by(50) {
                    let (at, bus_works) = (Millis(now), now < begin || now > begin + outage);
                    if bus_works && now % 1_000 == phase {
                        let _ = membership.hear(at, peer(1, 1), &mut effects);
                    }
                    if now % canary_ms == 0 {
                        membership.canary_sent(at, Token(now));
                        if bus_works {
                            membership.canary_heard(at, Token(now));
                        }
                    }
                    if now % 500 == 100 {
                        membership.tick(at, &mut effects);
                    }
                }
                let ends = effects
                    .iter()
                    .any(|effect| matches!(effect, Effect::Expelled(..)));
                assert!(!ends, "{times:?}, {outage} ms at {phase}: {effects:?}");
            }
        }
    }

    #[test]
    fn whoever_was_stopped_expels_nobody_for_one_lease() {
        let mut node = Node::new();
        let a = peer(1, 1);
        let _ = node.until(2_000, &[a]);
        node.now += 60_000;
        assert_eq!(node.ticks(), [Effect::Stale]);
        assert_eq!(node.membership.counters().pauses, 1);
        assert_eq!(node.until(80_000, &[a]), [(67_000, Effect::Fresh)]);
        // A heartbeat is no pause.
        node.now += 1_000;
        assert_eq!(node.ticks(), []);
    }

    #[test]
    fn two_processes_of_one_name_are_told() {
        let mut node = Node::new();
        let (older, newer) = (peer(1, 1), peer(1, 2));
        let found = node.until(4_000, &[older, newer]);
        let restarted = Effect::Restarted {
            old: older,
            new: newer,
        };
        assert_eq!(found, [(500, Effect::Joined(older)), (500, restarted)]);
        let conflict = Effect::Conflict(NodeId(1));
        assert_eq!(node.until(20_000, &[older, newer]), [(7_500, conflict)]);

        let mut node = Node::new();
        let conflict = Effect::Conflict(NodeId(0));
        let other = peer(0, 6);
        assert_eq!(
            node.until(20_000, &[other, peer(0, 5)]),
            [(7_000, conflict)]
        );
    }

    #[test]
    fn whose_name_a_later_life_has_is_not_heard_and_knows_it() {
        let mut node = Node::new();
        let own = node.membership.own;
        let of = |incarnation| Identity {
            incarnation: Incarnation(incarnation),
            ..own
        };
        let (earlier, later) = (of(own.incarnation.0 - 1), of(own.incarnation.0 + 1));
        let _ = node.until(6_000, &[earlier]);
        assert!(!node.membership.is_succeeded());
        let _ = node.until(8_000, &[later]);
        assert!(node.membership.is_succeeded());
        // It may have ended.
        let _ = node.until(20_000, &[]);
        assert!(!node.membership.is_succeeded());
    }

    #[test]
    fn peers_are_bounded() {
        let mut node = Node::new();
        for number in 1..=PEERS_MAX as u128 {
            assert_eq!(node.hears(peer(number, 1)).len(), 1);
        }
        assert_eq!(node.hears(peer(1_000, 1)), []);
        assert_eq!(node.membership.counters().refused_batches, 1);
    }

    proptest! {
        #[test]
        fn each_that_joined_ends_at_most_once_and_never_in_trouble(
            steps in prop::collection::vec((0_u8..6, 1_u128..4, 1_u64..4, 0_u64..1_500), 1..400),
        ) {
            let mut membership = Membership::new(Millis(0), peer(0, 1), TIMES);
            let mut live: BTreeMap<NodeId, Identity> = BTreeMap::new();
            let mut fresh = true;
            let (mut now, mut sent, mut echoed) = (0, 0, 0);
            let mut unanswered_at = None;
            for (action, node, incarnation, ms) in steps {
                now += ms;
                let (at, sender) = (Millis(now), peer(node, incarnation));
                let mut effects = Vec::new();
                match action {
                    0 | 1 => {
                        let _ = membership.hear(at, sender, &mut effects);
                    }
                    2 if ms < 200 => membership.end(at, sender, &mut effects),
                    3 => {
                        sent += 1;
                        unanswered_at.get_or_insert(now);
                        membership.canary_sent(at, Token(sent));
                    }
                    4 if sent > echoed => {
                        echoed = sent;
                        unanswered_at = None;
                        membership.canary_heard(at, Token(sent));
                    }
                    _ => membership.tick(at, &mut effects),
                }
                for effect in effects {
                    match effect {
                        Effect::Joined(peer) => prop_assert_eq!(live.insert(peer.node, peer), None),
                        Effect::Restarted { old, new } => {
                            prop_assert_eq!(live.insert(new.node, new), Some(old));
                        }
                        Effect::Expelled(peer, reason) => {
                            prop_assert_eq!(live.remove(&peer.node), Some(peer));
                            prop_assert!(fresh);
                            let is_late = unanswered_at.is_some_and(|at| now - at >= TIMES.echo_ms());
                            prop_assert!(reason == Reason::Goodbye || !is_late);
                        }
                        Effect::Conflict(_) => {}
                        Effect::Stale => fresh = false,
                        Effect::Fresh => fresh = true,
                    }
                }
                prop_assert_eq!(membership.is_fresh(), fresh);
                let peers: Vec<_> = membership.peers().map(|(peer, _)| peer).collect();
                prop_assert_eq!(peers, live.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
