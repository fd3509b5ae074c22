//! A node for the process that follows: all that it knows and has said.
//!
//! Owns: `Node::{carry, carried, end_unknown, knows_since}`; the records of the node itself and of its peers.
//! May depend on: `cluster`, serde.
//! Invariants: to carry a node changes nothing of it; the one that was carried does what the other would
//! have done, but that what is counted begins anew; secrets, names and bounds are those of its own setup.

use serde::{Deserialize, Serialize};
use serde_bytes::Bytes;

use super::{
    BusState, Header, Identity, Millis, NAME_BYTES_MAX, Node, RoadState, Row, Setup, Start, Version,
};
use crate::cluster::{
    canary::CanariesRecord,
    carrying::{Carried, Carrier, CarryError, Items, Kind, read},
    owner::Owners,
    replay::{LanesHeard, LanesRecord},
    start::{Name, StartRecord},
};

#[derive(Debug, Deserialize, Serialize)]
struct NodeRecord {
    identity: Identity,
    start: Option<StartRecord>,
    echoes: CanariesRecord,
    /// Of both roads, as of the last tick: whether they are late, and the round trip.
    events: (bool, Option<u64>),
    state: (bool, Option<u64>),
    connections: u64,
    is_founded: bool,
    event_ids: u64,
    tokens: u64,
    heartbeats: u64,
    heartbeat_at: Millis,
    canary_at: Millis,
    ticked_at: Millis,
    owes_hello: bool,
    has_left: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct PeerRecord<'a> {
    identity: Identity,
    name: &'a str,
    program: &'a str,
    version: u8,
    connections: Option<u64>,
    founded_at: Option<Millis>,
    lanes: LanesRecord,
    left_at: Option<Millis>,
    #[serde(default)]
    since: Option<Millis>,
}

impl Node {
    /// Writes all that the next process needs to go on as this node, with whose partitions are whose. What
    /// waits is carried too, and what is given along. Records are of at most `RECORD_BYTES_MAX`.
    pub fn carry(&self, owners: &Owners, beside: &[u8], put: &mut impl FnMut(Vec<u8>)) {
        let mut carrier = Carrier::new(put);
        carrier.item(Kind::NODE, &self.carry_itself());
        carrier.item(Kind::BESIDE, &Bytes::new(beside));
        owners.carry(&mut carrier);
        carrier.item(Kind::MEMBERSHIP, &self.membership.carry());
        for row in self.rows.values() {
            let record = PeerRecord {
                identity: row.identity,
                name: &row.name,
                program: &row.program,
                version: row.version.0,
                connections: row.connections,
                founded_at: row.founded_at,
                lanes: row.lanes.carry(),
                left_at: row.left_at,
                since: Some(row.since),
            };
            carrier.item(Kind::PEER, &record);
        }
        self.drafts.carry(&mut carrier);
        self.state.carry(&mut carrier);
        carrier.finish();
    }

    fn carry_itself(&self) -> NodeRecord {
        let of = |road: RoadState| (road.is_late, road.round_trip_ms);
        NodeRecord {
            identity: self.setup.identity,
            start: self.start.as_ref().map(Start::carry),
            echoes: self.echoes.carry(),
            events: of(self.bus.events),
            state: of(self.bus.state),
            connections: self.connections,
            is_founded: self.is_founded,
            event_ids: self.event_ids,
            tokens: self.tokens,
            heartbeats: self.heartbeats,
            heartbeat_at: self.heartbeat_at,
            canary_at: self.canary_at,
            ticked_at: self.ticked_at,
            owes_hello: self.owes_hello,
            has_left: self.has_left,
        }
    }

    /// The node that was carried, and its owners: of the same life, on the same clock.
    ///
    /// # Errors
    /// The records are not those of such a node, or not all of them.
    pub fn carried(
        now: Millis,
        setup: Setup,
        records: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Carried, CarryError> {
        let mut owners = Owners::new(setup.identity, setup.times.lease_ms);
        let mut node = Self::new(now, setup);
        let mut beside = Vec::new();
        let mut items = Items::of(records);
        match items.take()? {
            (Kind::NODE, item) => node.take_itself(item)?,
            _ => return Err(CarryError::Inconsistent("the first one is of no node")),
        }
        loop {
            let (kind, item) = items.take()?;
            match kind {
                Kind::END => break,
                Kind::BESIDE => beside = read::<&Bytes>(item)?.to_vec(),
                Kind::OWNERS => owners.go_on(item)?,
                Kind::MEMBERSHIP => node.membership.go_on(read(item)?)?,
                Kind::PEER => node.take_peer(&read(item)?)?,
                Kind::LANES => node.drafts.take_numbers(item)?,
                Kind::DRAFT => node.drafts.take_draft(item)?,
                _ => node.state.take_item(kind, item)?,
            }
        }
        items.end()?;
        node.settle()?;
        Ok(Carried {
            node,
            owners,
            beside,
        })
    }

    /// Ends for the others what the process before had of apps that are not known here: their connections did not
    /// follow, and nobody is left who would say so.
    pub fn end_unknown(&mut self, now: Millis, is_known: impl Fn(&str) -> bool) {
        if !self.has_left {
            self.state.end_unknown(now, is_known, &mut self.drafts);
        }
    }

    /// Since when the sender of a batch is known, whatever the bytes; `None` where it is not. What it said long
    /// before that was heard, and forgotten with what it was before.
    pub fn knows_since(&self, bytes: &[u8]) -> Option<Millis> {
        let sender = Header::peek(bytes).ok()?.sender;
        let row = self.rows.get(&sender.node)?;
        (row.identity == sender).then_some(row.since)
    }

    fn take_itself(&mut self, item: &[u8]) -> Result<(), CarryError> {
        let record: NodeRecord = read(item)?;
        if record.identity != self.setup.identity {
            return Err(CarryError::OtherNode);
        }
        self.start = record.start.map(|start| {
            let (secrets, times) = (self.setup.secrets.clone(), self.setup.times);
            let (own, cluster) = (self.setup.identity, self.setup.cluster);
            let mut ours = Start::new(own, cluster, secrets, times.heartbeat_ms, Name::Given);
            ours.go_on(&start);
            ours
        });
        self.echoes.go_on(record.echoes);
        let of = |(is_late, round_trip_ms)| RoadState {
            is_late,
            round_trip_ms,
        };
        self.bus = BusState {
            events: of(record.events),
            state: of(record.state),
        };
        self.connections = record.connections;
        self.is_founded = record.is_founded;
        self.event_ids = record.event_ids;
        self.tokens = record.tokens;
        self.heartbeats = record.heartbeats;
        self.heartbeat_at = record.heartbeat_at;
        self.canary_at = record.canary_at;
        self.ticked_at = record.ticked_at;
        self.owes_hello = record.owes_hello;
        self.has_left = record.has_left;
        Ok(())
    }

    fn take_peer(&mut self, record: &PeerRecord<'_>) -> Result<(), CarryError> {
        let longest = record.name.len().max(record.program.len());
        if longest > NAME_BYTES_MAX {
            return Err(CarryError::Inconsistent("a name that is too long"));
        }
        let since = record.since.unwrap_or(Millis(0));
        let mut row = Row::new(since, record.identity);
        row.name = record.name.into();
        row.program = record.program.into();
        row.version = Version(record.version);
        row.connections = record.connections;
        row.founded_at = record.founded_at;
        row.lanes = LanesHeard::carried(&record.lanes);
        row.left_at = record.left_at;
        self.rows.insert(record.identity.node, row);
        Ok(())
    }

    /// All items were taken: whether they fit together.
    fn settle(&mut self) -> Result<(), CarryError> {
        let peers = self.membership.peers().map(|(peer, _)| peer);
        if !self.state.settle(peers) {
            return Err(CarryError::Inconsistent(
                "peers are not those that hold something",
            ));
        }
        let present: Vec<Identity> = self.membership.peers().map(|(peer, _)| peer).collect();
        for peer in present {
            self.state.tallies_mut().came(peer.node);
        }
        let has_row = |peer: Identity| {
            let row = self.rows.get(&peer.node);
            row.is_some_and(|row| row.identity == peer)
        };
        let mut peers = self.membership.peers();
        match peers.all(|(peer, _)| has_row(peer)) && self.rows.len() <= super::PEERS_MAX {
            true => Ok(()),
            false => Err(CarryError::NO_SUCH_PEER),
        }
    }
}
