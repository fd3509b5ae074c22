//! Data path. What comes from the other nodes: a batch in, changes and effects out.
//!
//! Owns: `Node::hear`: whose batches are taken, and what becomes of their entries.
//! May depend on: the rest of `cluster`. Time is an argument.
//! Invariants: nothing is read of a batch before it is known to be whole, of this cluster, signed where there is a
//! secret, on the topic for which it was made, and new; what fails one of these changes a counter and nothing else.

use super::{
    Batch, BatchError, ByKind, Effect, Entries, Entry, Header, Heard, Hello, Identity, Millis,
    Node, NodeId, Partition, Road, Topic, Verdict, ViewChange,
};
use crate::cluster::{
    entry::KeptAsk,
    fault::{Fault, is_planted},
};

/// What stood in a batch.
#[derive(Clone, Copy, Debug, Default)]
struct Contents {
    events: u64,
    heard: ByKind,
    broken: u64,
    misplaced: u64,
}

impl Node {
    /// Takes what came on a topic, whatever the bytes. Events and changes of the view go to `take` in
    /// order, the rest becomes effects.
    // Per batch: one HMAC over it if there is a secret, two searches among at most 256 peers, one
    // index by lane. Per event: what reading its fields costs, and no allocation.
    pub fn hear(
        &mut self,
        now: Millis,
        topic: Topic,
        bytes: &[u8],
        effects: &mut Vec<Effect>,
        mut take: impl FnMut(Heard<'_>),
    ) {
        let batch = match self.read(topic, bytes) {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(error) => return self.counters.refuse(error),
        };
        if batch.header.sender == self.setup.identity {
            return self.hear_itself(now, topic, &batch);
        }
        if batch.header.sender.node == self.setup.identity.node {
            self.hear_double(now, topic, &batch, effects);
        }
        if !self.is_taken(now, topic, &batch.header, effects) {
            return;
        }
        let mut entries = batch.entries();
        let tally = match topic {
            Topic::Events(partition) => hear_events(partition, &mut entries, &mut take),
            Topic::State(group) => {
                let mut tell = |change: ViewChange<'_>| take(Heard::View(change));
                let (state, sender) = (&mut self.state, batch.header.sender);
                let tally = state.hear_group(now, sender, group, &mut entries, &mut tell);
                Contents {
                    heard: tally.heard,
                    broken: tally.broken,
                    misplaced: tally.misplaced,
                    events: 0,
                }
            }
            Topic::Nodes => {
                self.hear_news(now, batch.header.sender, &mut entries, effects, &mut take)
            }
            Topic::Echo => hear_nothing(&mut entries),
        };
        self.counters.events_heard += tally.events;
        self.counters.entries_broken += tally.broken;
        self.counters.entries_misplaced += tally.misplaced;
        self.counters.entries_heard.absorb(&tally.heard);
        let unknown = entries.unknown() as u64;
        if unknown > 0 {
            self.counters.entries_unknown += unknown;
            let tallies = self.state.tallies_mut();
            tallies.of(batch.header.sender.node).entries_unknown += unknown;
        }
        if let Some(row) = self.rows.get_mut(&batch.header.sender.node) {
            row.counters.events_heard += tally.events;
            row.counters.entries_broken += tally.broken;
        }
    }

    /// `None`: a batch that is not worth its MAC, or not where it belongs.
    fn read<'a>(&mut self, topic: Topic, bytes: &'a [u8]) -> Result<Option<Batch<'a>>, BatchError> {
        let is_ours = Header::peek(bytes)?.sender == self.setup.identity;
        self.counters.batches_own += u64::from(is_ours);
        let has_canaries = match topic {
            Topic::Nodes | Topic::Echo => true,
            Topic::Events(_) | Topic::State(_) => false,
        };
        // Most of what is heard on a topic of one's own events.
        if is_ours && !has_canaries {
            return Ok(None);
        }
        let batch = Batch::decode(bytes, self.setup.cluster, &self.setup.secrets)?;
        let is_at_home = batch.header.lane == topic.lane();
        let is_of_name = batch.header.sender.node == self.setup.identity.node;
        if !is_at_home || (topic == Topic::Echo && !is_of_name) {
            self.counters.batches_misplaced += 1;
            return Ok(None);
        }
        Ok(Some(batch))
    }

    /// A batch of this node came back, which says how the bus is.
    fn hear_itself(&mut self, now: Millis, topic: Topic, batch: &Batch<'_>) {
        for entry in batch.entries().flatten() {
            let Entry::Canary(token) = entry else {
                continue;
            };
            match topic.road() {
                Road::Events => self.echoes.heard(now, token),
                Road::State => self.membership.canary_heard(now, token),
            }
        }
    }

    /// A batch of another life under this node's name.
    fn hear_double(
        &mut self,
        now: Millis,
        topic: Topic,
        batch: &Batch<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(start) = &mut self.start else {
            return; // Membership watches from here on.
        };
        let theirs = batch.header.sender.incarnation;
        if batch.entries().flatten().any(|it| it == Entry::Goodbye) {
            start.hear_goodbye(theirs);
        } else if start.hear(now, topic, theirs) {
            effects.push(Effect::NameTaken);
        }
    }

    /// Whether a batch is new and of a peer that lives, or of one that left and had sent events before.
    fn is_taken(
        &mut self,
        now: Millis,
        topic: Topic,
        header: &Header,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let &Header { sender, lane, .. } = header;
        // Numbers begin with 1.
        if header.number == 0 {
            self.counters.batches_malformed += 1;
            return false;
        }
        let known = self.rows.get_mut(&sender.node);
        let same_life = known.filter(|row| row.identity == sender);
        // Before membership hears of it: a replay is no sign of life.
        if let Some(row) = same_life
            && row.lanes.has_heard(lane, header.number)
        {
            if is_planted(Fault::DoublesTaken) {
                return true;
            }
            row.counters.batches_doubled += 1;
            self.counters.batches_doubled += 1;
            return false;
        }
        let mut changes = Vec::new();
        let verdict = self.membership.hear(now, sender, &mut changes);
        self.apply(now, &changes, effects);
        self.counters.membership = self.membership.counters();
        let is_taken = match (verdict, topic) {
            (Verdict::Take, _) | (Verdict::TakeEvents, Topic::Events(_)) => true,
            (Verdict::TakeEvents | Verdict::Ignore, _) => false,
        };
        let row = self.rows.get_mut(&sender.node);
        let Some(row) = row.filter(|row| is_taken && row.identity == sender) else {
            assert!(verdict != Verdict::Take, "a peer that is there has a row");
            return false;
        };
        let lost = row.lanes.hear(lane, header.number);
        row.version = header.version;
        row.counters.batches_heard += 1;
        row.counters.batches_lost.add(topic.road(), lost);
        self.counters.batches_heard += 1;
        self.counters.batches_lost.add(topic.road(), lost);
        true
    }

    /// What nodes say of themselves.
    fn hear_news(
        &mut self,
        now: Millis,
        sender: Identity,
        entries: &mut Entries<'_>,
        effects: &mut Vec<Effect>,
        take: &mut impl FnMut(Heard<'_>),
    ) -> Contents {
        let mut tally = Contents::default();
        for entry in entries {
            if let Ok(entry) = &entry {
                tally.heard.add(entry);
            }
            match entry {
                Ok(Entry::Hello(hello)) if NodeId::of_name(hello.name) == sender.node => {
                    self.introduce(sender, &hello, effects);
                }
                // Another's name.
                Ok(Entry::Hello(_)) | Err(_) => tally.broken += 1,
                Ok(Entry::Goodbye) => {
                    let mut changes = Vec::new();
                    self.membership.end(now, sender, &mut changes);
                    self.apply(now, &changes, effects);
                }
                Ok(Entry::Heartbeat(heartbeat)) => {
                    if let Some(row) = self.rows.get_mut(&sender.node) {
                        row.connections = Some(heartbeat.connections);
                        if heartbeat.is_founded {
                            row.founded_at.get_or_insert(now);
                        }
                    }
                    let drafts = &mut self.drafts;
                    self.state.hear_heartbeat(now, sender, &heartbeat, drafts);
                }
                Ok(Entry::NumbersAsk(ask)) => self.state.hear_numbers_ask(&ask),
                Ok(Entry::SnapshotAsk(ask)) => {
                    self.state.hear_snapshot_ask(now, sender, &ask);
                }
                Ok(Entry::Terminate { app, user_id }) => take(Heard::Terminate { app, user_id }),
                Ok(Entry::Spent(spent)) => take(Heard::Spent(spent)),
                Ok(Entry::KeptAsk(KeptAsk { of, app, channel })) => {
                    if of == self.setup.identity {
                        take(Heard::KeptAsk { app, channel });
                    }
                }
                Ok(Entry::AppsChanged) => effects.push(Effect::AppsChanged),
                // A canary is its sender's.
                Ok(Entry::Canary(_) | Entry::Proof(_)) => {}
                Ok(
                    Entry::Event(_)
                    | Entry::Kept(_)
                    | Entry::Delta(_)
                    | Entry::Latest(_)
                    | Entry::Snapshot(_),
                ) => tally.misplaced += 1,
            }
        }
        tally
    }

    fn introduce(&mut self, sender: Identity, hello: &Hello<'_>, effects: &mut Vec<Effect>) {
        let Some(row) = self.rows.get_mut(&sender.node) else {
            return;
        };
        if *row.name != *hello.name || *row.program != *hello.program {
            row.name = hello.name.into();
            row.program = hello.program.into();
            effects.push(Effect::Introduced(sender));
        }
    }
}

// Per event: its fields read in place, one comparison, the call.
fn hear_events(
    partition: Partition,
    entries: &mut Entries<'_>,
    take: &mut impl FnMut(Heard<'_>),
) -> Contents {
    let mut tally = Contents::default();
    for entry in entries {
        match entry {
            // On another partition's topic its order would be that of nothing.
            Ok(Entry::Event(event)) if event.partition == partition => {
                tally.events += 1;
                take(Heard::Event(event));
            }
            Ok(Entry::Kept(kept)) if kept.partition == partition => {
                tally.heard.others += 1;
                take(Heard::Kept(kept));
            }
            Ok(_) => tally.misplaced += 1,
            Err(_) => tally.broken += 1,
        }
    }
    tally
}

/// Nobody here reads such a topic.
fn hear_nothing(entries: &mut Entries<'_>) -> Contents {
    let mut tally = Contents::default();
    for entry in entries {
        match entry {
            Ok(_) => tally.misplaced += 1,
            Err(_) => tally.broken += 1,
        }
    }
    tally
}
