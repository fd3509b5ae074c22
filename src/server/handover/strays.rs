//! Connections that were taken over and cannot go on here.
//!
//! Owns: `Strays`: who is to be sent away, with which code, and how fast.
//! May depend on: `server::{close, drain}`.
//! Invariants: each is told why, as in a drain no more of them at once than its pace allows; until then what they say
//! waits.

use std::collections::VecDeque;

use shards::{
    application::{Millis, Slot},
    work::Work,
};

use super::super::{ServerTurn, ShardServer, drain::Pace};
use crate::protocol::code::CloseCode;

/// They go one after another: most of them come back.
#[derive(Clone)]
pub(in crate::server) struct Strays {
    list: VecDeque<(Slot, CloseCode)>,
    until: Millis,
    pace: Pace,
}

impl ShardServer {
    /// These go until then, each told its code.
    pub(in crate::server) fn send_away(
        &mut self,
        turn: &mut impl ServerTurn,
        list: VecDeque<(Slot, CloseCode)>,
        (until, rate_per_s): (Millis, u32),
    ) {
        if list.is_empty() {
            return;
        }
        let shard = (self.shard, self.shards);
        self.strays = Some(Strays {
            list,
            until,
            pace: Pace::new(rate_per_s, shard, u64::MAX),
        });
        turn.keep_ticking(true);
    }

    /// The node ends before they would all have gone.
    pub(in crate::server) fn hurry_strays(&mut self, now: Millis) {
        if let Some(strays) = &mut self.strays {
            strays.until = now;
        }
    }

    /// Adds this tick's share to those that go now, as `drain_some`.
    pub(in crate::server) fn send_some_away(&mut self, turn: &mut impl ServerTurn) {
        if let Some(strays) = &mut self.strays {
            let time_left_ms = strays.until.since(turn.now()) / 2;
            let left = strays.list.len() as u64;
            strays.pace.owe(time_left_ms, left);
            self.continue_strays(turn);
        }
    }

    /// Some of them are to go before the next tick.
    pub(in crate::server) fn owes_strays(&self) -> bool {
        let strays = self.strays.as_ref();
        strays.is_some_and(|strays| strays.pace.owes())
    }

    /// Sends away who is to go now, until this turn's work is done.
    pub(in crate::server) fn continue_strays(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some(strays) = &mut self.strays
            && strays.pace.take_one()
            && let Some((slot, code)) = strays.list.pop_front()
        {
            if strays.list.is_empty() {
                self.strays = None;
            }
            turn.spend(Work::MEMBERSHIP);
            self.close(turn, slot, code);
        }
    }
}
