//! The start of a node: nobody hears of it until it knows that no other lives under its name.
//!
//! Owns: `Name`; within the room `Start`: how long to listen, what was heard of others of the own name, the probes.
//! May depend on: `cluster::{drafts, entry, identity, mac, topic}`, serde, `Millis`. Time is an argument.
//! Invariants: of two that start at once the later incarnation gives way; whoever has started never does.

use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::{
    drafts::Drafts,
    entry::{Entry, Token},
    identity::{ClusterTag, Identity, Incarnation},
    mac::Secrets,
    topic::Topic,
};

/// Whose word a node's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The operator's, who may have given it twice.
    Given,
    /// No other has it.
    Chance,
}

/// A node that listens before it speaks: a word of it would make the others believe that the one
/// before it has ended.
#[derive(Debug)]
pub(super) struct Start {
    own: Incarnation,
    heartbeat_ms: u64,
    /// So long it listens.
    listens_ms: u64,
    /// Since when it hears all that is said; `None`: it does not.
    since: Option<Millis>,
    double: Option<Double>,
    /// The probes, which go to the echo: only nodes of the own name hear them.
    drafts: Drafts,
}

/// For the process that follows. Probes are repeated.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StartRecord {
    listens_ms: u64,
    since: Option<Millis>,
    double: Option<Double>,
    /// Batches of probes that were made.
    probes: u64,
}

/// Another life under the own name.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Double {
    incarnation: Incarnation,
    heard_at: Millis,
}

impl Start {
    pub(super) fn new(
        own: Identity,
        cluster: ClusterTag,
        secrets: Secrets,
        heartbeat_ms: u64,
        name: Name,
    ) -> Self {
        // One that lives is heard twice in that time.
        let listens_ms = match name {
            Name::Given => 2 * heartbeat_ms + heartbeat_ms / 4,
            Name::Chance => 0,
        };
        Self {
            own: own.incarnation,
            heartbeat_ms,
            listens_ms,
            since: None,
            double: None,
            drafts: Drafts::new(own, cluster, secrets),
        }
    }

    pub(super) fn carry(&self) -> StartRecord {
        StartRecord {
            listens_ms: self.listens_ms,
            since: self.since,
            double: self.double,
            probes: self.drafts.number(Topic::Echo),
        }
    }

    /// Goes on as the one that was carried.
    pub(super) fn go_on(&mut self, record: &StartRecord) {
        self.listens_ms = record.listens_ms;
        self.since = record.since;
        self.double = record.double;
        self.drafts.begin_behind(Topic::Echo, record.probes);
    }

    /// The bus brings all that is said from now on, or does not any more.
    pub(super) fn listens(&mut self, now: Millis, does: bool) {
        self.since = does.then_some(now);
        self.double = None;
    }

    /// A batch of the own name and another incarnation was heard. True: that one lives, and stays.
    pub(super) fn hear(&mut self, now: Millis, topic: Topic, theirs: Incarnation) -> bool {
        // On the echo it may be at its start too.
        if topic == Topic::Echo && theirs > self.own {
            return false;
        }
        let double = Double {
            incarnation: theirs,
            heard_at: now,
        };
        let first = self.double.filter(|it| it.incarnation == theirs);
        let first = *self.double.insert(first.unwrap_or(double));
        // What a dead one left on the way comes at once; a living one speaks again.
        now.since(first.heard_at) >= self.heartbeat_ms / 2
    }

    /// That life has said goodbye.
    pub(super) fn hear_goodbye(&mut self, theirs: Incarnation) {
        self.double.take_if(|it| it.incarnation == theirs);
    }

    pub(super) fn is_listening(&self) -> bool {
        self.since.is_some()
    }

    /// Whether it has listened for long enough.
    pub(super) fn is_over(&self, now: Millis) -> bool {
        self.ends_at().is_some_and(|at| now >= at)
    }

    pub(super) fn ends_at(&self) -> Option<Millis> {
        self.since.map(|since| since.plus(self.listens_ms))
    }

    pub(super) fn probe(&mut self, token: Token) {
        // Nothing else is in these drafts, so there is room.
        _ = self.drafts.push(Topic::Echo, &Entry::Canary(token));
    }

    pub(super) fn take_probes(&mut self, put: impl FnMut(Topic, Vec<u8>)) {
        self.drafts.take(put);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::identity::NodeId;

    fn start() -> Start {
        let own = Identity {
            node: NodeId(1),
            incarnation: Incarnation(5),
        };
        let mut start = Start::new(own, ClusterTag(1), Secrets::default(), 1_000, Name::Given);
        start.listens(Millis(0), true);
        start
    }

    #[test]
    fn one_that_lives_is_told_from_what_a_dead_one_left() {
        for (name, heard, is_taken) in [
            (
                "a burst",
                &[(0, Topic::Nodes, 4), (499, Topic::Nodes, 4)][..],
                false,
            ),
            (
                "it lives",
                &[(0, Topic::Nodes, 4), (500, Topic::Nodes, 4)],
                true,
            ),
            (
                "it lives, and its clock is ahead",
                &[(0, Topic::Nodes, 6), (500, Topic::Nodes, 6)],
                true,
            ),
            (
                "two lives that have ended",
                &[(0, Topic::Nodes, 3), (500, Topic::Nodes, 4)],
                false,
            ),
            (
                "one that starts, and was earlier",
                &[(0, Topic::Echo, 4), (500, Topic::Echo, 4)],
                true,
            ),
            (
                "one that starts, and was later",
                &[(0, Topic::Echo, 6), (500, Topic::Echo, 6)],
                false,
            ),
        ] {
            let mut start = start();
            let mut last = false;
            for (now, topic, theirs) in heard {
                last = start.hear(Millis(*now), *topic, Incarnation(*theirs));
            }
            assert_eq!(last, is_taken, "{name}");
        }
    }

    #[test]
    fn who_said_goodbye_is_no_double() {
        let mut start = start();
        assert!(!start.hear(Millis(0), Topic::Nodes, Incarnation(4)));
        start.hear_goodbye(Incarnation(4));
        assert!(!start.hear(Millis(600), Topic::Nodes, Incarnation(4)));
    }

    #[test]
    fn a_bus_that_goes_meanwhile_begins_it_anew() {
        let mut start = start();
        assert!(!start.is_over(Millis(2_249)));
        assert!(start.is_over(Millis(2_250)));
        start.listens(Millis(1_000), false);
        assert!(!start.is_over(Millis(9_000)));
        start.listens(Millis(9_000), true);
        assert!(!start.is_over(Millis(11_249)));
        assert!(start.is_over(Millis(11_250)));
    }
}
