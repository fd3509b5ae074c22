//! What the API publishes is read and written: as far as a turn may, and then by and by.
//!
//! Owns: how much of one is read at once, what an errand reads.
//! May depend on: `connection::{pending, publication}`, `server::{bodies, reads}`.
//! Invariants: nothing is published before the whole publication was read and admitted; what is not read to its end
//! in its turn waits in `reads`, and its connection with it.

use std::borrow::Cow;

use shards::{
    application::{Slot, Waiter},
    work::Work,
};

use super::{ServerTurn, ShardServer, errands::Errand};
use crate::{
    connection::{
        pending::{Action, ApiCall, ApiStep, Exchange, Pending, Publication, Reading},
        publication::{Keys, PublicationUnderWay},
        row::Hold,
    },
    http::api::{self, ApiError},
    protocol::app::AppIndex,
};

/// At least so much is read at once, however little a turn may still do: most bodies are no larger.
const READ_AT_ONCE_BYTES: usize = 16_384;

impl ShardServer {
    /// Reads what is to be published as far as this turn may, or makes it wait for its turn.
    pub(super) fn begin_reading(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: Exchange,
        publication: PublicationUnderWay,
        body: Cow<'_, [u8]>,
    ) {
        turn.spend(Work::bytes(body.len()));
        let body = match api::text_of(body) {
            Ok(body) => body,
            Err(error) => return self.respond_error(turn, slot, &exchange, error),
        };
        let app = exchange.app;
        let has_room = self.bodies.goes_on_alone(self.bodies_max()).is_none();
        let waiter = if !has_room && body.len() > READ_AT_ONCE_BYTES {
            // It holds no more than its body until there is room.
            Some(self.await_reading(slot, exchange, publication, body))
        } else {
            // Where others wait already it begins with little: what each has begun is in memory.
            let enough = match has_room && self.reads.is_empty() {
                true => turn.work_left(),
                false => Work(0),
            };
            if enough > Work(0) {
                self.bodies.begin_reading(slot.index);
            }
            self.read(turn, slot, exchange, publication, body, enough)
        };
        if let Some(waiter) = waiter {
            self.reads.push(app, waiter);
            self.list_reads();
        }
    }

    /// Whose slice of a publication is next, of those that may go on.
    pub(super) fn next_read(&mut self) -> Option<Waiter> {
        let alone = self.bodies.goes_on_alone(self.bodies_max());
        let begins = self.reads.goes_on_alone(alone.map(|(_, slot)| slot));
        self.counters.reads_alone += u64::from(begins);
        match alone {
            Some((app, slot)) if self.reads.is_next_of(app, slot) => self.reads.pop_of(app),
            // Its frames wait for a limit, and all others for their going.
            Some(_) => None,
            None => self.reads.pop(),
        }
    }

    /// Has the next slice of a publication done, where there is one that may go on.
    // Per turn: some compares and, where publications are read over several turns, two look-ups.
    pub(super) fn list_reads(&mut self) {
        if self.reads.is_empty() || self.reads.is_listed {
            return;
        }
        let may_go_on = match self.bodies.goes_on_alone(self.bodies_max()) {
            Some((app, slot)) => self.reads.is_next_of(app, slot),
            None => true,
        };
        if may_go_on {
            self.reads.is_listed = true;
            self.errands.push(Errand::Read);
        }
    }

    /// Makes a connection wait until its publication is read on.
    fn await_reading(
        &mut self,
        slot: Slot,
        exchange: Exchange,
        publication: PublicationUnderWay,
        body: Cow<'_, str>,
    ) -> Waiter {
        let body = body.into_owned();
        let step = ApiStep::Read(Box::new(Reading { publication, body }));
        let call = Box::new(ApiCall { exchange, step });
        *self.held(slot).pending() = Some(Pending::Api(call));
        self.await_answer(slot)
    }

    /// Reads events and writes their frames; they are admitted when that is done. Gives back who waits if that
    /// takes more than `enough`.
    fn read(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: Exchange,
        mut publication: PublicationUnderWay,
        body: Cow<'_, str>,
        enough: Work,
    ) -> Option<Waiter> {
        let read = self.read_some(turn, exchange.app, &mut publication, &body, enough);
        match read {
            Err(error) => self.respond_error(turn, slot, &exchange, error),
            Ok(Some(publication)) => {
                self.admit(turn, slot, exchange, Action::Publish(publication));
            }
            Ok(None) => {
                return Some(self.await_reading(slot, exchange, publication, body));
            }
        }
        None
    }

    fn read_some(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        publication: &mut PublicationUnderWay,
        body: &str,
        enough: Work,
    ) -> Result<Option<Publication>, ApiError> {
        let app = self.apps.get(app).ok_or(ApiError::AppUnknown)?;
        let rules = &app.entry.rules;
        if !rules.is_enabled {
            return Err(ApiError::AppDisabled);
        }
        let keys = Keys {
            names: &self.name_hasher,
            app: &rules.partitions,
            frame_bytes_max: self.settings.connections.frame_bytes_max,
        };
        let enough = enough.max(Work::bytes_hashed(READ_AT_ONCE_BYTES));
        let mut work = Work::default();
        let room = (&mut work, &mut self.scratch);
        let read = publication.go_on(rules, keys, body, enough, room);
        turn.spend(work);
        read
    }

    /// Goes on with a publication, if its connection still waits for that.
    pub(super) fn read_more(&mut self, turn: &mut impl ServerTurn, waiter: Waiter) {
        let slot = waiter.slot;
        if !self.awaits(waiter) {
            return;
        }
        let Some(Pending::Api(call)) = self.answer_arrived(slot) else {
            return;
        };
        let ApiCall { exchange, step } = *call;
        let ApiStep::Read(reading) = step else {
            return;
        };
        let Reading { publication, body } = *reading;
        let app = exchange.app;
        self.bodies.begin_reading(slot.index);
        let enough = turn.work_left();
        let waiter = self.read(turn, slot, exchange, publication, body.into(), enough);
        if let Some(waiter) = waiter {
            self.reads.put_back(app, waiter);
        } else if let Some(row) = self.row(slot)
            && !row.holds.has(Hold::Answer)
        {
            self.queue_input(slot);
        }
        self.count_held(turn, slot);
    }
}
