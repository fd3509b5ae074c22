//! `GET /channels`, a part at a time: homes walk their channels in slices, and what is told goes out
//! while the rest is still looked for.
//!
//! Owns: how a listing goes on from slice to slice and from shard to shard, and its answer in parts.
//! May depend on: `http::{answer, response}`, `connection::pending`, `server::{answers, request}`.
//! Invariants: a channel that is occupied throughout is told once; no slice is longer than a turn's
//! work; at most two parts of a listing are in memory, however long it gets: HTTP/1.0
//! gets them until the connection ends, of those for `HEAD` only the length is kept.

use std::sync::Arc;

use shards::{
    application::{ShardId, Slot, Waiter},
    work::Work,
};

use super::{
    ServerTurn, ShardServer,
    errands::Errand,
    message::{Answer, Question},
};
use crate::{
    connection::{
        pending::{
            ApiCall, ApiStep, ChannelPart, ChannelsQuestion, Counts, Exchange, Listing, Parts,
            Pending,
        },
        row::Hold,
    },
    http::{
        answer,
        info::Info,
        response::{BodyEnd, Status},
    },
};

/// Rows that a slice walks at most, and bytes of names that it gathers.
const SLICE_ROWS: u32 = 4_096;
const SLICE_BYTES: usize = 65_536;
/// A longer answer is sent in parts of about this size.
const PART_BYTES: usize = 131_072;
/// A client that takes nothing of a part for so long, and for the time that any answer may be
/// waited for, is given up: 40 s in all.
const TAKEN_WITHIN_MS: u64 = 10_000;

impl ShardServer {
    /// Begins to list an app's channels.
    pub(super) fn list(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: Exchange,
        prefix: Box<str>,
        info: Info,
    ) {
        let mut listing = Box::new(Listing {
            prefix: prefix.into(),
            info,
            shard: 0,
            cursor: 0,
            entries: 0,
            body: Vec::new(),
            counted_bytes: 0,
            in_parts: false,
        });
        answer::begin_channels(&mut listing.body);
        let step = ApiStep::List(listing);
        *self.held(slot).pending() = Some(Pending::Api(Box::new(ApiCall { exchange, step })));
        let waiter = self.await_answer(slot);
        self.list_more(turn, waiter);
    }

    fn listing(&mut self, slot: Slot) -> Option<&mut ApiCall> {
        let pending = self.row(slot)?.rare.as_mut()?.pending.as_mut()?;
        let Pending::Api(call) = pending else {
            return None;
        };
        matches!(call.step, ApiStep::List(_)).then_some(&mut **call)
    }

    /// Asks for the next slice, if the connection still waits for it.
    pub(super) fn list_more(&mut self, turn: &mut impl ServerTurn, waiter: Waiter) {
        if !self.awaits(waiter) {
            return;
        }
        let until = turn.now().plus(TAKEN_WITHIN_MS);
        let row = self.held(waiter.slot);
        row.until = until;
        turn.arm_timer(waiter.slot, until);
        let Some(call) = self.listing(waiter.slot) else {
            return;
        };
        let app = call.exchange.app;
        let ApiStep::List(listing) = &call.step else {
            return;
        };
        let question = ChannelsQuestion {
            app,
            prefix: Arc::clone(&listing.prefix),
            cursor: listing.cursor,
        };
        let home = ShardId(listing.shard);
        self.question(turn, home, waiter, Question::Channels(question));
    }

    /// Home: walks a slice of its channels.
    pub(super) fn list_slice(
        &mut self,
        turn: &mut impl ServerTurn,
        question: &ChannelsQuestion,
    ) -> ChannelPart {
        let paid = turn.work_left().0 / Work::ROW.0;
        let rows_max = paid.clamp(64, SLICE_ROWS);
        let mut part = ChannelPart::default();
        let mut bytes = 0;
        let walked = self
            .homes
            .walk(question.app, question.cursor, rows_max, |home| {
                if home.name.starts_with(&*question.prefix) && !home.kind.is_user() {
                    let users = u32::try_from(home.users()).unwrap_or(u32::MAX);
                    let counts = Counts {
                        subscriptions: home.total(),
                        users,
                    };
                    bytes += home.name.len() + 16;
                    part.channels.push((Arc::clone(&home.name), counts));
                }
                bytes < SLICE_BYTES
            });
        // The rows, and the sorting of what was found.
        let rows = walked.rows as usize + 2 * part.channels.len();
        turn.spend(Work::ROW.times(rows).and(Work::bytes(bytes)));
        // The same whatever the index's order; the answer as a whole has none.
        part.channels
            .sort_unstable_by(|one, other| one.0.cmp(&other.0));
        part.next = walked.next;
        part
    }

    /// A slice arrived: it is written, and the next one asked for.
    pub(super) fn listed(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        part: &ChannelPart,
    ) {
        let slot = waiter.slot;
        let shards = self.shards;
        let Some(call) = self.listing(slot) else {
            return;
        };
        let ApiStep::List(listing) = &mut call.step else {
            return;
        };
        let before = listing.body.len();
        for (name, counts) in &part.channels {
            let counts = super::api::told(listing.info, *counts);
            answer::add_channel(&mut listing.body, listing.entries == 0, name, counts);
            listing.entries += 1;
        }
        turn.spend(Work::bytes_hashed(listing.body.len() - before));
        match part.next {
            Some(next) => listing.cursor = next,
            None => (listing.shard, listing.cursor) = (listing.shard + 1, 0),
        }
        if listing.shard == shards {
            return self.list_ends(turn, slot);
        }
        if listing.body.len() >= PART_BYTES {
            self.send_part(turn, slot);
            if turn.is_congested(slot) {
                turn.await_drained(slot);
                return;
            }
        }
        // Not at once: a listing that has all its channels here would be one long turn.
        self.errands.push(Errand::List(waiter));
    }

    /// The outbox has drained: on with the listing that waited for it.
    pub(super) fn list_on(&mut self, slot: Slot) {
        if self.listing(slot).is_some() {
            let operation = self.held(slot).operation;
            let shard = self.shard;
            let waiter = Waiter {
                shard,
                slot,
                operation,
            };
            self.errands.push(Errand::List(waiter));
        }
    }

    fn send_part(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let is_draining = self.is_draining();
        let Some(call) = self.listing(slot) else {
            return;
        };
        let ApiCall { exchange, step } = call;
        let ApiStep::List(listing) = step else {
            return;
        };
        let begins = !std::mem::replace(&mut listing.in_parts, true);
        if begins && is_draining {
            exchange.asked.keep_alive = false;
        }
        let part = std::mem::take(&mut listing.body);
        let end = match exchange.asked.parts {
            Parts::Chunked => BodyEnd::Chunked,
            Parts::Plain => {
                exchange.asked.keep_alive = false;
                BodyEnd::Connection
            }
            Parts::Counted => {
                listing.counted_bytes += part.len();
                return;
            }
        };
        let (app, rate, asked) = (exchange.app, exchange.rate, exchange.asked.clone());
        self.counters.app(app).http_transmitted_bytes += part.len() as u64;
        if begins {
            self.begin_parts(turn, slot, &asked, rate, end);
        }
        self.add_part(turn, slot, &asked, &part);
    }

    fn list_ends(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let Some(Pending::Api(call)) = self.answer_arrived(slot) else {
            return;
        };
        let ApiCall { mut exchange, step } = *call;
        let ApiStep::List(mut listing) = step else {
            return;
        };
        answer::end_channels(&mut listing.body);
        if !listing.in_parts {
            return self.respond_api(turn, slot, &exchange, Status::Ok, &listing.body);
        }
        if exchange.asked.parts == Parts::Counted && self.is_draining() {
            exchange.asked.keep_alive = false;
        }
        let asked = &exchange.asked;
        self.count_api(turn, &exchange, Status::Ok, listing.body.len());
        if asked.parts == Parts::Counted {
            let end = BodyEnd::Length(listing.counted_bytes + listing.body.len());
            self.begin_parts(turn, slot, asked, exchange.rate, end);
        }
        self.add_part(turn, slot, asked, &listing.body);
        self.end_parts(turn, slot, asked);
    }

    /// A slice's answer, to whoever waits for it.
    pub(super) fn on_slice(&mut self, turn: &mut impl ServerTurn, waiter: Waiter, answer: &Answer) {
        if let Answer::Channels(part) = answer {
            self.listed(turn, waiter, part);
            if self
                .row(waiter.slot)
                .is_some_and(|row| !row.holds.has(Hold::Answer))
            {
                self.queue_input(waiter.slot);
            }
        }
    }
}
