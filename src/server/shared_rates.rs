//! Rates that nodes count together: who waits for a count, and what becomes of it.
//!
//! Owns: the home's part of such a question.
//! May depend on: `bridge::message`, `connection::{pending, token_bucket}`, `server::{leases, message, quota}`.
//! Invariants: a question of a rate is answered once, by the store's count or by `rate_limiter.on_error`.

use std::net::IpAddr;

use shards::{application::Waiter, work::Work};

use super::{
    ServerTurn, ShardServer,
    leases::{Answered, Rate, Taken},
    message::{AddressLimit, Answer, Budget},
};
use crate::{
    bridge::message::{RateOf, RateQuestion, RateTaken, ToBridge},
    connection::{pending::RateState, token_bucket::DEBT_S_MAX},
    protocol::app::AppIndex,
};

impl ShardServer {
    /// Home: an address makes one more request.
    pub(super) fn limit_address_shared(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        address: IpAddr,
        which: AddressLimit,
    ) {
        let (of, limit) = match which {
            AddressLimit::Api => (RateOf::Api(address), &self.settings.api_limit),
            AddressLimit::Upgrade => (RateOf::Upgrade(address), &self.settings.upgrade_limit),
        };
        let rate = limit.as_ref().map(|limit| Rate {
            limit: limit.max_requests,
            window_ms: limit.window_s.saturating_mul(1_000),
            // An address makes one request after the other.
            debt_ms_max: 0,
        });
        match rate {
            Some(rate) => self.take_shared(turn, waiter, of, rate, 1),
            None => self.answer_rate(turn, waiter, of, (true, RateState::UNKNOWN)),
        }
    }

    /// Home: an app uses some of a rate, which may have gone meanwhile.
    pub(super) fn spend_shared(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        app: AppIndex,
        budget: Budget,
        count: u32,
    ) {
        let of = match budget {
            Budget::BackendEvents => RateOf::BackendEvents(app),
            Budget::Reads => RateOf::Reads(app),
        };
        match self.app_rate(app, budget) {
            0 => self.answer_rate(turn, waiter, of, (true, RateState::UNKNOWN)),
            limit => {
                let rate = Rate {
                    limit,
                    window_ms: 1_000,
                    debt_ms_max: DEBT_S_MAX * 1_000,
                };
                self.take_shared(turn, waiter, of, rate, count);
            }
        }
    }

    fn take_shared(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        of: RateOf,
        rate: Rate,
        count: u32,
    ) {
        match self.leases.take(turn.now(), of, rate, waiter, count) {
            Taken::Granted(state) => self.answer_rate(turn, waiter, of, (true, state)),
            Taken::Denied(state) => self.answer_rate(turn, waiter, of, (false, state)),
            Taken::Waits(None) => {}
            Taken::Waits(Some(question)) => self.ask_store(turn, question),
            Taken::Full => self.answer_uncounted(turn, waiter, of, count),
        }
    }

    fn ask_store(&mut self, turn: &mut impl ServerTurn, question: RateQuestion) {
        if turn.to_bridge(ToBridge::TakeRate(question)).is_err() {
            self.counters.bridge_full[0] += 1;
            let grant = None;
            self.on_rate_taken(turn, &RateTaken { question, grant });
        }
    }

    /// Home: the store has answered, or could not be asked.
    pub(super) fn on_rate_taken(&mut self, turn: &mut impl ServerTurn, taken: &RateTaken) {
        let of = taken.question.of;
        let Answered { served, next } =
            self.leases
                .on_answer(turn.now(), &taken.question, taken.grant);
        turn.spend(Work::MESSAGE.times(served.len()));
        for (waiter, count, said) in served {
            match said {
                Some(said) => self.answer_rate(turn, waiter, of, said),
                None => self.answer_uncounted(turn, waiter, of, count),
            }
            // What it has sent meanwhile was held; nobody else goes on with it here.
            if waiter.shard == self.shard {
                self.queue_input(waiter.slot);
            }
        }
        if let Some(question) = next {
            self.ask_store(turn, question);
        }
    }

    /// Nobody could count together: this node does for itself, or nothing passes.
    fn answer_uncounted(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        of: RateOf,
        count: u32,
    ) {
        let now = turn.now();
        let said = match of {
            _ if self.settings.denies_uncounted => (false, RateState::UNKNOWN),
            RateOf::Api(address) => self.limit_address(now, address, AddressLimit::Api),
            RateOf::Upgrade(address) => self.limit_address(now, address, AddressLimit::Upgrade),
            RateOf::BackendEvents(app) => self.spend_here(now, app, Budget::BackendEvents, count),
            RateOf::Reads(app) => self.spend_here(now, app, Budget::Reads, count),
        };
        self.answer_rate(turn, waiter, of, said);
    }

    fn answer_rate(
        &mut self,
        turn: &mut impl ServerTurn,
        waiter: Waiter,
        of: RateOf,
        (granted, rate): (bool, RateState),
    ) {
        let answer = match of {
            RateOf::Api(_) | RateOf::Upgrade(_) => Answer::AddressLimited { granted, rate },
            RateOf::BackendEvents(_) | RateOf::Reads(_) => Answer::Spent { granted, rate },
        };
        self.answer(turn, waiter, answer);
    }
}
