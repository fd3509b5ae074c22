//! Data path. Between rows and the ring: what a connection sends and receives.
//!
//! Owns: the ring and its receive buffers; how an operation of a row begins and what is noted of it.
//! May depend on: `ring`, `buffers`, `connections`; its own rooms on rustls, which nothing else of
//! this crate names. Not on outboxes, lists or the application.
//! Invariants: at most one receive, one send and one wait for room of a row are in flight, each with
//! its flag; a completion of a row names its generation. Whatever changes bytes on their way (as TLS
//! does) is here.

mod carried;
mod keys;
mod records;
mod sessions;
mod tls;

use crate::{
    buffers::{Filled, GROUP, RecvBuffers},
    connections::{Flag, Row, row_bytes},
    ring::{Completion, Kind, NetRing, Token},
};
use std::{io, os::fd::RawFd};

pub use carried::{CarriedKeys, CarriedTls, Secret};
pub(crate) use records::{Opened, RECORD_BYTES_MAX};
pub(crate) use sessions::{HOLDERS_LOOKED_AT, Sessions};
pub use sessions::{TlsCounters, TlsPort};
pub(crate) use tls::Progress;

/// A shard's road to the kernel.
pub(crate) struct Wire {
    // The ring goes first at the end of life: then nothing uses the buffers any more.
    ring: NetRing,
    buffers: RecvBuffers,
    /// The rows that speak TLS.
    pub(crate) sessions: Sessions,
}

impl Wire {
    pub(crate) fn open(buffers: u16, buffer_bytes: u32, tls: Option<TlsPort>) -> io::Result<Self> {
        let ring = NetRing::open()?;
        let buffers = RecvBuffers::register(ring.raw(), buffers, buffer_bytes)?;
        Ok(Self {
            ring,
            buffers,
            sessions: Sessions::new(tls),
        })
    }

    /// Begins to receive.
    pub(crate) fn receive(&mut self, index: u32, row: &mut Row) {
        assert!(!row.mark(Flag::RECV, true));
        let token = Token::new(Kind::Recv, index, row.generation);
        self.ring.push_recv(row.fd, GROUP, token);
    }

    /// Stops receiving, if it does; what the ring has received already still arrives.
    pub(crate) fn stop_receiving(&mut self, index: u32, row: &Row) {
        if row.is(Flag::RECV) {
            let token = Token::new(Kind::Recv, index, row.generation);
            self.ring.push_cancel(token);
        }
    }

    /// Sends bytes, which must stay where they are until `settle`.
    pub(crate) fn send(&mut self, index: u32, row: &mut Row, bytes: *const u8, len: usize) {
        assert!(len > 0);
        assert!(!row.mark(Flag::SEND, true));
        row.sending = row_bytes(len);
        let token = Token::new(Kind::Send, index, row.generation);
        self.ring.push_send(row.fd, bytes, row.sending, token);
    }

    /// Asks for one completion when the socket has room. False if it is asked for already.
    pub(crate) fn await_room(&mut self, index: u32, row: &mut Row) -> bool {
        if row.mark(Flag::WRITABLE, true) {
            return false;
        }
        let token = Token::new(Kind::Writable, index, row.generation);
        self.ring.push_writable(row.fd, token);
        true
    }

    /// Cancels whatever is in flight on a row.
    pub(crate) fn cancel(&mut self, index: u32, row: &Row) {
        for (flag, kind) in [(Flag::RECV, Kind::Recv), (Flag::WRITABLE, Kind::Writable)] {
            if row.is(flag) {
                let token = Token::new(kind, index, row.generation);
                self.ring.push_cancel(token);
            }
        }
    }

    pub(crate) fn accept(&mut self, listener: u32, fd: RawFd) {
        let token = Token::new(Kind::Accept, listener, 0);
        self.ring.push_accept(fd, token);
    }

    pub(crate) fn cancel_accept(&mut self, listener: u32) {
        self.ring.push_cancel(Token::new(Kind::Accept, listener, 0));
    }

    /// Completes each time that somebody writes the eventfd.
    pub(crate) fn hear_bell(&mut self, eventfd: RawFd) {
        self.ring.push_wake(eventfd);
    }

    /// Fetches what has completed, unless that was done since the last call.
    pub(crate) fn fetch(&mut self) {
        if !self.ring.take_entered() {
            self.ring.submit(0);
        }
    }

    /// Waits for a completion, until `deadline_ns` of the node's clock at the latest.
    pub(crate) fn wait(&mut self) {
        self.ring.submit(1);
    }

    /// Sees to it that a wait ends in time.
    pub(crate) fn arm_deadline(&mut self, now_ns: u64, at_ns: u64) {
        self.ring.arm_deadline(now_ns, at_ns);
    }

    pub(crate) fn deadline_passed(&mut self) {
        self.ring.deadline_passed();
    }

    /// Operations wait to be handed to the kernel.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        self.ring.has_unsubmitted()
    }

    /// Hands over what waits and returns the completions of all sends.
    pub(crate) fn settle(&mut self) -> Vec<Completion> {
        self.ring.settle_sends();
        std::mem::take(&mut self.ring.sends)
    }

    /// Takes an emptied list of `settle` back, for its memory.
    pub(crate) fn reuse(&mut self, settled: Vec<Completion>) {
        assert!(settled.is_empty());
        self.ring.sends = settled;
    }

    /// Completions that wait, but those of sends.
    pub(crate) fn arrived(&self) -> usize {
        self.ring.arrived.len()
    }

    pub(crate) fn take_arrived(&mut self) -> Option<Completion> {
        self.ring.arrived.pop_front()
    }

    /// Puts a completion before all others.
    pub(crate) fn put_back(&mut self, completion: Completion) {
        self.ring.arrived.push_front(completion);
    }

    /// The bytes that a receive has brought.
    pub(crate) fn take_bytes(&mut self, completion: Completion) -> Option<Filled> {
        let buffer = completion.buffer()?;
        self.ring.buffers_reaped -= 1;
        let bytes = completion.result.max(0) as usize;
        Some(self.buffers.take(buffer, bytes))
    }

    pub(crate) fn give_back(&mut self, filled: Filled) {
        self.buffers.give_back(filled);
    }

    /// Lets the kernel fill what was given back.
    pub(crate) fn publish_buffers(&mut self) {
        self.buffers.publish();
    }

    /// Buffers that nobody has filled, as far as is known.
    pub(crate) fn free_buffers(&self) -> u32 {
        u32::from(self.buffers.count()).saturating_sub(self.ring.buffers_reaped)
    }

    /// Times that the completion queue overflowed.
    pub(crate) fn overflows(&self) -> u64 {
        self.ring.overflows
    }

    /// Times that the kernel refused operations for want of memory.
    pub(crate) fn refusals(&self) -> u64 {
        self.ring.refusals
    }
}
