//! Data path. The connections of a shard, their deadlines, and their ends that are still to be told.
//!
//! Owns: `Rows`.
//! May depend on: `connections`, `timers`, `application`.
//! Invariants: each connection's end is queued once; a timer is armed for rows in use only, one each.

use crate::{
    application::{Closed, Millis, Slot},
    connections::{Connections, Ended, Row, Spares},
    timers::Wheel,
};
use std::{collections::VecDeque, os::fd::RawFd};

/// All rows of a shard.
pub(crate) struct Rows {
    connections: Connections,
    wheel: Wheel,
    /// Ends to tell, one per connection.
    ended: VecDeque<Ended>,
}

impl Rows {
    pub(crate) fn starting_at(now: Millis) -> Self {
        Self {
            connections: Connections::new(),
            wheel: Wheel::starting_at(now),
            ended: VecDeque::new(),
        }
    }

    /// Gives a connection its row.
    pub(crate) fn insert(&mut self, fd: RawFd) -> Slot {
        self.connections.insert(fd)
    }

    /// Frees a row; returns the descriptor, which is the caller's to close.
    pub(crate) fn remove(&mut self, index: u32) -> RawFd {
        self.connections.remove(index)
    }

    pub(crate) fn row(&self, index: u32) -> &Row {
        self.connections.row(index)
    }

    pub(crate) fn row_mut(&mut self, index: u32) -> &mut Row {
        self.connections.row_mut(index)
    }

    /// The row and the spare lists, for changes of the outbox.
    pub(crate) fn outbox_mut(&mut self, index: u32) -> (&mut Row, &mut Spares) {
        self.connections.outbox_mut(index)
    }

    /// The row that the application means, while it is open.
    pub(crate) fn open_row(&self, slot: Slot) -> Option<&Row> {
        self.connections.open_row(slot)
    }

    /// The row's slot as the application knows it.
    pub(crate) fn slot(&self, index: u32) -> Slot {
        let generation = self.row(index).generation;
        Slot { index, generation }
    }

    /// Indices of all rows in use.
    pub(crate) fn used_rows(&self) -> Vec<u32> {
        self.connections.used_rows()
    }

    /// Rows there are, in use or not.
    pub(crate) fn capacity(&self) -> u32 {
        self.connections.capacity()
    }

    /// Rows in use, those included that only wait for their last completions.
    pub(crate) fn used(&self) -> u32 {
        self.connections.used
    }

    /// Connections of which the application was not told that they ended.
    pub(crate) fn open(&self) -> u32 {
        self.connections.open
    }

    /// Queues a connection's end for the application, the first time.
    pub(crate) fn end(&mut self, index: u32, how: Closed) {
        if self.connections.end(index) {
            let slot = self.slot(index);
            self.ended.push_back(Ended { slot, how });
        }
    }

    /// The next end to tell.
    pub(crate) fn take_ended(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    /// Ends wait to be told.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Arms the row's one timer.
    pub(crate) fn arm(&mut self, index: u32, at: Millis) {
        self.wheel.arm(index, at);
    }

    pub(crate) fn disarm(&mut self, index: u32) {
        self.wheel.cancel(index);
    }

    /// When the row's timer falls due.
    pub(crate) fn due_at(&self, index: u32) -> Option<Millis> {
        self.wheel.due_at(index)
    }

    /// Time has come this far.
    pub(crate) fn advance(&mut self, now: Millis) {
        self.wheel.advance(now);
    }

    /// A row whose timer has fired.
    pub(crate) fn take_fired(&mut self) -> Option<u32> {
        self.wheel.take_fired()
    }

    /// When the next timer may fire.
    pub(crate) fn next_timer_at(&self) -> Option<Millis> {
        self.wheel.next_at()
    }
}
