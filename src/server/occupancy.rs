//! What a shard holds at this moment, as plain numbers.
//!
//! Owns: `Occupancy`.
//! May depend on: the tables of this shard.
//! Invariants: a shard without clients, kept events and pending deadlines holds nothing.

use super::ShardServer;
use crate::connection::row::State;

/// Entries in each of a shard's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Slots that hold a connection.
    pub connections: usize,
    /// Established WebSocket connections.
    pub websockets: u64,
    /// Channels that connections of this shard subscribe to.
    pub local_channels: usize,
    /// Channels that have their home here.
    pub home_channels: usize,
    /// Those of them with subscribers.
    pub occupied_channels: usize,
    /// Last events of cache channels.
    pub kept_events: usize,
    /// Users whose home is here.
    pub users: usize,
    /// Connections that this shard has admitted to the node's and the apps' quotas.
    pub admitted: u64,
    /// Ended subscriptions that their homes were not told yet.
    pub leaving: usize,
    /// Fan-outs under way.
    pub jobs: usize,
    /// Channels that are behind with their fan-out, and channels whose publishers wait for that.
    pub behind: usize,
    /// Connections whose held input waits for its share of a turn, work for many connections,
    /// connections that have ended and are still listed in channels, and those to be closed.
    pub ready: usize,
    /// Subscriptions that wait for the bus.
    pub joins_waiting: usize,
    /// The most input that one connection holds, bytes.
    pub held_bytes_highest: usize,
    /// Bytes of signed bodies that come or wait, and of publications that are read.
    pub body_bytes: u64,
    pub reading_bytes: u64,
}

impl ShardServer {
    /// What this shard holds now. Walks all its connections.
    pub fn occupancy(&self) -> Occupancy {
        let rows = self.connections.iter();
        let connections = rows.filter(|row| row.state != State::Vacant).count();
        let held = self.connections.iter().map(|row| row.input.len());
        Occupancy {
            connections,
            websockets: self.counters.websockets,
            local_channels: self.locals.len(),
            home_channels: self.homes.len(),
            occupied_channels: self.homes.occupied(),
            kept_events: self.homes.kept_events(),
            users: self.users.len(),
            admitted: self.quotas.admitted(),
            leaving: self.leaving.iter().map(Vec::len).sum(),
            jobs: self.jobs.len(),
            behind: self.pressure.len(),
            ready: self.ready.len() + self.errands.len() + self.departing.len() + self.slow.len(),
            joins_waiting: self.topics.joins() + self.kept_asks.joins(),
            held_bytes_highest: held.max().unwrap_or(0),
            body_bytes: self.bodies.bytes(),
            reading_bytes: self.bodies.reading_bytes(),
        }
    }
}
