//! The HTTP API: from a checked request to its answer.
//!
//! Owns: the limits around it, asking homes, gathering their answers.
//! May depend on: `http`, `connection::{api, pending}`, `server::{answers, notices, request}`.
//! Invariants: nothing is published, kept or counted before every check of the whole request has
//! passed (`connection::api`); the answer is sent once all homes concerned took the events over.

use std::{borrow::Cow, net::IpAddr};

use shards::{
    application::{Millis, ShardId, Slot, Waiter},
    work::Work,
};

use super::{
    ServerTurn, ShardServer,
    message::{AddressLimit, Answer, Budget, PublishQuestion, Question},
    request::{Reply, Request, limited, write_rate},
};
use crate::{
    connection::{
        api::{ApiRequest, Checked},
        pending::{
            Action, ApiCall, ApiRoute, ApiStep, Asked, BusFull, Counts, Exchange, Gathered,
            GatheredParts, Pending, PublicEvent, Publication, RateState, ReportedCounts,
        },
        publication::PublicationUnderWay,
        row::{Awaited, State},
    },
    http::{
        answer::{self, CacheAnswer},
        api::ApiError,
        info::Info,
        request::{Head, HttpError, parse_head},
        response::{Content, Status},
        route::Route,
    },
    protocol::{app::AppIndex, name::ChannelKind, request_auth::BodyDigest},
};

impl ShardServer {
    /// A whole API request arrived.
    pub(super) fn take_api_request(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        request: Request<'_>,
        route: &Route<'_>,
        bytes: &[u8],
    ) {
        let Request {
            head, body, digest, ..
        } = request;
        let mut exchange = exchange_of(turn, route, Asked::of(&head));
        let Some(address) = self.limited_address(slot, &head) else {
            return self.run_api(turn, slot, &mut exchange, &head, (body, digest), route);
        };
        let step = ApiStep::AddressLimit {
            head: bytes.get(..head.bytes).unwrap_or_default().into(),
            body: body.into_owned(),
            digest,
        };
        self.ask_address_limit(turn, slot, address, ApiCall { exchange, step });
    }

    /// A request's body is too large: where the API's limit per address holds for it, that is asked first, and
    /// counts the request. False where it does not hold.
    pub(super) fn asks_address_limit_first(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        route: &Route<'_>,
        asked: &Asked,
        error: HttpError,
    ) -> bool {
        if route.api_app().is_none() || !route.takes(head.method) {
            return false;
        }
        let Some(address) = self.limited_address(slot, head) else {
            return false;
        };
        self.held(slot).state = State::Http(Awaited::Next);
        let exchange = exchange_of(turn, route, asked.clone());
        let step = ApiStep::TooLarge(error);
        self.ask_address_limit(turn, slot, address, ApiCall { exchange, step });
        true
    }

    /// Whom the API's limit per address counts, if there is one.
    fn limited_address(&mut self, slot: Slot, head: &Head<'_>) -> Option<IpAddr> {
        let hops = self.settings.api_limit.as_ref()?.trust_hops;
        self.client_address(slot, head, hops)
    }

    fn ask_address_limit(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        address: IpAddr,
        call: ApiCall,
    ) {
        self.counters.ip_limit_checks[1] += 1;
        let pending = Pending::Api(Box::new(call));
        let question = Question::AddressLimit {
            address,
            limit: AddressLimit::Api,
        };
        let home = self.home_of_address(&address);
        self.ask(turn, slot, home, pending, question);
    }

    /// The address limiter has answered, for an upgrade or an API request.
    pub(super) fn on_address_limit(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        granted: bool,
        rate: RateState,
    ) {
        match self.answer_arrived(slot) {
            Some(Pending::Upgrade(upgrade)) => {
                self.on_upgrade_limit(turn, slot, *upgrade, granted, rate);
            }
            Some(Pending::Api(call)) => {
                let ApiCall { mut exchange, step } = *call;
                exchange.rate = Some(rate);
                if !granted {
                    self.counters.ip_limit_triggered[1] += 1;
                    self.tell_request_refused(exchange.app, limited(rate));
                    return self.respond_limited(turn, slot, rate, &exchange.asked);
                }
                let (head, body, digest) = match step {
                    ApiStep::AddressLimit { head, body, digest } => (head, body, digest),
                    ApiStep::TooLarge(error) => {
                        let mut headers = Vec::new();
                        write_rate(&mut headers, rate, None);
                        let asked = &exchange.asked;
                        return self.respond_unread(turn, slot, error, &[&headers], asked);
                    }
                    ApiStep::Read(_)
                    | ApiStep::AppLimit(_)
                    | ApiStep::Gather(_)
                    | ApiStep::List(_) => return,
                };
                let Ok(Some(parsed)) = parse_head(&head) else {
                    return;
                };
                let prefix = self.settings.path_prefix.clone();
                let route = Route::of(parsed.raw_path, &prefix);
                let body = (body.into(), digest);
                self.run_api(turn, slot, &mut exchange, &parsed, body, &route);
            }
            _ => {}
        }
    }

    fn run_api(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: &mut Exchange,
        head: &Head<'_>,
        (body, digest): (Cow<'_, [u8]>, Option<BodyDigest>),
        route: &Route<'_>,
    ) {
        let checked = match self.check_api(turn, exchange, head, (&body, digest), route) {
            Ok(checked) => checked,
            Err(error) => return self.respond_error(turn, slot, exchange, error),
        };
        let exchange = Exchange {
            asked: exchange.asked.clone(),
            ..*exchange
        };
        let (publication, body) = match checked {
            Checked::Action(action) => return self.admit(turn, slot, exchange, action),
            Checked::Event(instead) => (
                PublicationUnderWay::event(),
                instead.map_or(body, Cow::Owned),
            ),
            Checked::Batch => (PublicationUnderWay::batch(), body),
        };
        self.begin_reading(turn, slot, exchange, publication, body);
    }

    /// A request that waits for others gives way to them.
    pub(super) fn give_up_api_call(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        if let Some(Pending::Api(call)) = self.answer_arrived(slot) {
            self.respond_error(turn, slot, &call.exchange, ApiError::Unavailable);
            self.queue_input(slot);
        }
    }

    /// Asks whether the app may do so much, of a request that is as it must be.
    pub(super) fn admit(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: Exchange,
        action: Action,
    ) {
        let app = exchange.app;
        let (budget, count) = match &action {
            Action::Publish(publication) => (Budget::BackendEvents, publication.events.len()),
            Action::Channels { .. } | Action::Channel { .. } | Action::Users { .. } => {
                (Budget::Reads, 1)
            }
            Action::Terminate { .. } => return self.act(turn, slot, exchange, action),
        };
        if self.app_rate(app, budget) == 0 {
            return self.act(turn, slot, exchange, action);
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let call = ApiCall {
            exchange,
            step: ApiStep::AppLimit(action),
        };
        let Some(rules) = self.apps.get(app) else {
            return self.respond_error(turn, slot, &call.exchange, ApiError::AppUnknown);
        };
        let home = self.home_of(rules.entry.rules.partitions.own());
        let question = Question::Spend { app, budget, count };
        self.ask(turn, slot, home, Pending::Api(Box::new(call)), question);
    }

    /// Counts what an app uses of a rate, for this node.
    pub(super) fn spend_here(
        &mut self,
        now: Millis,
        app: AppIndex,
        budget: Budget,
        count: u32,
    ) -> (bool, RateState) {
        match self.app_rate(app, budget) {
            0 => (true, RateState::UNKNOWN), // It has gone meanwhile, or has no limit any more.
            rate => self.quotas.spend(app, budget, now, rate, count),
        }
    }

    /// A rate that belongs to a whole app, per second; 0 = unlimited.
    pub(super) fn app_rate(&self, app: AppIndex, budget: Budget) -> u32 {
        let Some(app) = self.apps.get(app) else {
            return 0;
        };
        match budget {
            Budget::BackendEvents => app.entry.app.max_backend_events_per_second,
            Budget::Reads => app.entry.app.max_read_requests_per_second,
        }
    }

    /// Finds the request's app, and checks it.
    fn check_api(
        &mut self,
        turn: &mut impl ServerTurn,
        exchange: &mut Exchange,
        head: &Head<'_>,
        (body, digest): (&[u8], Option<BodyDigest>),
        route: &Route<'_>,
    ) -> Result<Checked, ApiError> {
        let id = route.api_app().ok_or(ApiError::NotFound)?;
        let app = self.app_by_id(turn.now(), id)?;
        let index = app.entry.index;
        exchange.app = index;
        let request = ApiRequest {
            head,
            route,
            body,
            digest,
            names: &self.name_hasher,
            path_prefix: &self.settings.path_prefix,
            now_s: turn.unix_ms() / 1_000,
        };
        let mut work = Work::default();
        let checked = request.check(&app.entry.rules, &mut work);
        turn.spend(work);
        let checked = checked?;
        // Whoever cannot sign moves no numbers of an app but those of refusals.
        self.counters.app(index).http_received_bytes += body.len() as u64;
        Ok(checked)
    }

    /// The app's budget has answered.
    pub(super) fn on_app_rate(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        granted: bool,
        rate: RateState,
    ) {
        let Some(Pending::Api(call)) = self.answer_arrived(slot) else {
            return;
        };
        let ApiCall { exchange, step } = *call;
        let ApiStep::AppLimit(action) = step else {
            return;
        };
        if granted {
            return self.act(turn, slot, exchange, action);
        }
        let column = if matches!(action, Action::Publish(_)) {
            1
        } else {
            2
        };
        let counters = self.counters.app(exchange.app);
        counters.faults_mut().limit_denied[column] += 1;
        counters.http_error(Status::TooManyRequests.code());
        self.tell_request_refused(exchange.app, limited(rate));
        self.respond_limited(turn, slot, rate, &exchange.asked);
    }

    /// Performs a request that passed everything.
    fn act(&mut self, turn: &mut impl ServerTurn, slot: Slot, exchange: Exchange, action: Action) {
        // What came of its body is no longer here: from now on it gives way to nobody's.
        self.bodies.forget(slot.index);
        let app = exchange.app;
        match action {
            Action::Publish(publication) => self.publish(turn, slot, exchange, publication),
            Action::Channels { prefix, info } => self.list(turn, slot, exchange, prefix, info),
            Action::Channel { name, key, info } => {
                let home = self.home_of(key.partition);
                let waiter = self.gather(slot, exchange, 1, GatheredParts::Channel { info });
                self.question(turn, home, waiter, Question::Channel { app, name, key });
            }
            Action::Users { name, key } => {
                let home = self.home_of(key.partition);
                let waiter = self.gather(slot, exchange, 1, GatheredParts::Users);
                self.question(turn, home, waiter, Question::Users { app, name, key });
            }
            Action::Terminate { user_id } => {
                let home = self.home_of(user_id.key.partition);
                let waiter = self.gather(slot, exchange, 1, GatheredParts::Terminated);
                self.question(turn, home, waiter, Question::Terminate { app, user_id });
            }
        }
    }

    fn publish(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: Exchange,
        publication: Publication,
    ) {
        let Publication {
            events,
            reports,
            is_batch,
        } = publication;
        // All of it or nothing, as far as that is known by now.
        if !self.has_bus_room(turn, exchange.app) {
            self.counters.bridge_full[2] += events.len() as u64;
            return self.respond_published(turn, slot, &exchange, &reports, is_batch, Err(BusFull));
        }
        let app = exchange.app;
        let began_us = exchange.began_us;
        let wants_counts = reports.iter().any(|info| !info.is_empty());
        let mut by_home: Vec<Vec<PublicEvent>> = Vec::new();
        by_home.resize_with(usize::from(self.shards), Vec::new);
        for event in events {
            by_home[usize::from(self.home_of(event.key.partition).0)].push(event);
        }
        let mine = std::mem::take(&mut by_home[usize::from(self.shard.0)]);
        let others = by_home.iter().filter(|events| !events.is_empty()).count();
        let (mut counts, mut behind) = (Ok(Vec::new()), None);
        if !mine.is_empty() {
            let question = PublishQuestion {
                app,
                events: mine,
                wants_counts,
                began_us,
            };
            (counts, behind) = self.home_publish(turn, question);
        }
        if others == 0 && behind.is_none() {
            return self.respond_published(turn, slot, &exchange, &reports, is_batch, counts);
        }
        let answers = others + usize::from(behind.is_some());
        let answers = u16::try_from(answers).expect("at most one per shard");
        let parts = GatheredParts::Published {
            reports,
            is_batch,
            counts,
        };
        let waiter = self.gather(slot, exchange, answers, parts);
        if let Some(at) = behind {
            let answer = Answer::Published(Ok(Vec::new()));
            self.keep_answer_back(at, waiter, answer);
        }
        for (home, events) in by_home.into_iter().enumerate() {
            if !events.is_empty() {
                let home = ShardId(u16::try_from(home).expect("a shard's number"));
                let question = PublishQuestion {
                    app,
                    events,
                    wants_counts,
                    began_us,
                };
                self.question(turn, home, waiter, Question::Publish(Box::new(question)));
            }
        }
    }

    /// Makes the connection wait for `answers` answers.
    fn gather(
        &mut self,
        slot: Slot,
        exchange: Exchange,
        answers: u16,
        parts: GatheredParts,
    ) -> Waiter {
        let step = ApiStep::Gather(Gathered {
            answers_pending: answers,
            parts,
        });
        *self.held(slot).pending() = Some(Pending::Api(Box::new(ApiCall { exchange, step })));
        self.await_answer(slot)
    }

    /// One more answer of a home; with the last one the request is answered.
    pub(super) fn on_gathered(&mut self, turn: &mut impl ServerTurn, slot: Slot, answer: Answer) {
        let Some(Pending::Api(call)) = self.held(slot).pending() else {
            return;
        };
        let ApiStep::Gather(gathered) = &mut call.step else {
            return;
        };
        gathered.answers_pending -= 1;
        let is_last = gathered.answers_pending == 0;
        if let (GatheredParts::Published { counts, .. }, Answer::Published(more)) =
            (&mut gathered.parts, &answer)
        {
            match (&mut *counts, more) {
                (Ok(counts), Ok(more)) => counts.extend_from_slice(more),
                (_, Err(full)) => *counts = Err(*full),
                (Err(_), Ok(_)) => {}
            }
        }
        if !is_last {
            return;
        }
        let Some(Pending::Api(call)) = self.answer_arrived(slot) else {
            return;
        };
        let ApiCall { exchange, step } = *call;
        let ApiStep::Gather(Gathered { parts, .. }) = step else {
            return;
        };
        let mut body = Vec::new();
        match (parts, answer) {
            (
                GatheredParts::Published {
                    reports,
                    is_batch,
                    counts,
                },
                _,
            ) => {
                return self.respond_published(turn, slot, &exchange, &reports, is_batch, counts);
            }
            (GatheredParts::Channel { info }, Answer::Channel(facts)) => {
                let cache = match &facts.cached {
                    _ if !info.cache => CacheAnswer::NotAsked,
                    None => CacheAnswer::Empty,
                    Some((data_token, ttl_s)) => CacheAnswer::Event {
                        data_token,
                        ttl_s: *ttl_s,
                    },
                };
                let occupied = facts.counts.subscriptions > 0;
                answer::channel(&mut body, occupied, told(info, facts.counts), cache);
            }
            (GatheredParts::Users, Answer::Users(users)) => {
                answer::users(&mut body, users.iter().map(|user| &**user));
            }
            (GatheredParts::Terminated, Answer::Terminated { everywhere: false }) => {
                return self.respond_error(turn, slot, &exchange, ApiError::Unavailable);
            }
            (_, _) => body.extend_from_slice(answer::EMPTY),
        }
        self.respond_api(turn, slot, &exchange, Status::Ok, &body);
    }

    fn respond_published(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: &Exchange,
        reports: &[Info],
        is_batch: bool,
        counts: Result<Vec<ReportedCounts>, BusFull>,
    ) {
        let Ok(counts) = counts else {
            return self.respond_error(turn, slot, exchange, ApiError::Unavailable);
        };
        let wanted = reports.iter().any(|info| !info.is_empty());
        if !wanted {
            return self.respond_api(turn, slot, exchange, Status::Ok, b"{}");
        }
        let mut body = Vec::new();
        if is_batch {
            let items = reports.iter().enumerate().map(|(item, info)| {
                let reported = counts
                    .iter()
                    .find(|it| it.item as usize == item && it.is_first);
                reported.map_or_else(answer::Counts::default, |it| {
                    told(info.applicable_to(ChannelKind::of(&it.channel)), it.counts)
                })
            });
            answer::batch(&mut body, items);
        } else {
            let info = reports.first().copied().unwrap_or_default();
            let entries = counts.iter().map(|it| {
                let info = info.applicable_to(ChannelKind::of(&it.channel));
                (&*it.channel, told(info, it.counts))
            });
            answer::channels(&mut body, entries);
        }
        self.respond_api(turn, slot, exchange, Status::Ok, &body);
    }

    pub(super) fn respond_error(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: &Exchange,
        error: ApiError,
    ) {
        self.tell_request_refused(exchange.app, error);
        let mut body = Vec::new();
        error.write_body(&mut body);
        self.respond_api(turn, slot, exchange, error.status(), &body);
    }

    /// Counts an answered request; `bytes` of its body are new.
    pub(super) fn count_api(
        &mut self,
        turn: &impl ServerTurn,
        exchange: &Exchange,
        status: Status,
        bytes: usize,
    ) {
        let took_us = turn.clock_us().saturating_sub(exchange.began_us);
        self.counters.http_request(exchange.route as usize, took_us);
        let is_refused = status.code() >= 400;
        if exchange.app == AppIndex::NONE {
            if is_refused {
                self.counters.unknown_http_errors.add(status.code(), 1);
            }
            return;
        }
        let counters = self.counters.app(exchange.app);
        if is_refused {
            return counters.http_error(status.code());
        }
        counters.http_calls += 1;
        if exchange.asked.content == Content::Whole {
            counters.http_transmitted_bytes += bytes as u64;
        }
    }

    pub(super) fn respond_api(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        exchange: &Exchange,
        status: Status,
        body: &[u8],
    ) {
        self.count_api(turn, exchange, status, body.len());
        let mut rate_headers = Vec::new();
        if let Some(rate) = exchange.rate {
            write_rate(&mut rate_headers, rate, None);
        }
        let headers = [&*rate_headers];
        let reply = Reply::json(status, &headers, body);
        self.respond(turn, slot, reply, &exchange.asked);
    }
}

/// A request that begins to be answered, of whichever app.
fn exchange_of(turn: &impl ServerTurn, route: &Route<'_>, asked: Asked) -> Exchange {
    Exchange {
        app: AppIndex::NONE,
        asked,
        route: route_of(route),
        began_us: turn.clock_us(),
        rate: None,
    }
}

/// The kind of an API request, for metrics.
fn route_of(route: &Route<'_>) -> ApiRoute {
    match route {
        Route::Events { .. } => ApiRoute::Events,
        Route::BatchEvents { .. } => ApiRoute::BatchEvents,
        Route::Channels { .. } => ApiRoute::Channels,
        Route::Channel { .. } => ApiRoute::Channel,
        Route::Users { .. } => ApiRoute::Users,
        Route::Terminate { .. } => ApiRoute::Terminate,
        // `dispatch` takes none of these for an API request.
        Route::App { .. }
        | Route::AppBadPath
        | Route::Up
        | Route::UpApp { .. }
        | Route::Usage
        | Route::Live
        | Route::Ready
        | Route::AcceptTraffic
        | Route::Root
        | Route::WelcomeSign
        | Route::Unknown => ApiRoute::Events,
    }
}

/// What of a channel's counts was asked for.
pub(super) fn told(info: Info, counts: Counts) -> answer::Counts {
    answer::Counts {
        user_count: info.user_count.then_some(counts.users.into()),
        subscription_count: info
            .subscription_count
            .then_some(counts.subscriptions.into()),
    }
}
