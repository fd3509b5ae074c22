//! HTTP requests of one connection, one after another.
//!
//! Owns: reading a request whole, its route, answers that need no app, deadlines of requests.
//! May depend on: `http`, `ws::handshake`, `connection`, the other files of this room.
//! Invariants: a request is answered before the next one is looked at; a body is bounded before it
//! is read; what follows a request that broke the protocol is not read.

use std::{borrow::Cow, net::IpAddr};

use shards::application::Slot;

use super::{ServerTurn, ShardServer};
use crate::{
    connection::{
        pending::{RateState, Upgrade, UpgradeStep},
        row::State,
    },
    http::{
        cors,
        query::ProtocolParam,
        request::{self, BodyProgress, ChunkedBody, Head, HttpError, Method},
        response::{self, Response, Status},
        route::Route,
    },
    ws::handshake,
};

/// How long a kept connection may wait for its next request.
const KEEP_ALIVE_MS: u64 = 75_000;

/// A whole request.
pub(super) struct Request<'a> {
    pub(super) head: Head<'a>,
    pub(super) body: Cow<'a, [u8]>,
    /// Bytes that it took from the input.
    bytes: usize,
}

impl ShardServer {
    /// Handles the request at the start of `bytes`; returns its length, 0 while it is not whole.
    pub(super) fn take_request(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        bytes: &[u8],
    ) -> usize {
        match self.read_request(turn, slot, bytes) {
            Ok(None) => 0,
            Ok(Some(request)) => {
                self.dispatch(turn, slot, &request, bytes);
                request.bytes
            }
            Err(error) => {
                self.refuse_request(turn, slot, error);
                bytes.len()
            }
        }
    }

    fn read_request<'a>(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        bytes: &'a [u8],
    ) -> Result<Option<Request<'a>>, HttpError> {
        let body_max = usize::try_from(self.settings.request_bytes_max).unwrap_or(usize::MAX);
        let Some(head) = request::parse_head(bytes)? else { return Ok(None) };
        let rest = bytes.get(head.head_bytes..).unwrap_or_default();
        let head_bytes = head.head_bytes;
        if head.chunked {
            return self.read_chunked(slot, head, rest, body_max);
        }
        let length = usize::try_from(head.content_length.unwrap_or(0)).unwrap_or(usize::MAX);
        if length > body_max {
            return Err(HttpError::BodyTooLarge);
        }
        if let Some(body) = rest.get(..length) {
            let bytes = head_bytes + length;
            return Ok(Some(Request { head, body: Cow::Borrowed(body), bytes }));
        }
        let until = turn.now().plus(self.settings.handshake_timeout_ms);
        let row = self.held(slot);
        let begins = row.input_wanted == 0;
        row.input_wanted = u32::try_from(head_bytes + length).unwrap_or(u32::MAX);
        // A body that comes in pieces has the same time again for each.
        row.until = until;
        if begins && head.expect_continue {
            let _ = turn.send(slot, response::CONTINUE);
        }
        Ok(None)
    }

    fn read_chunked<'a>(
        &mut self,
        slot: Slot,
        head: Head<'a>,
        rest: &'a [u8],
        body_max: usize,
    ) -> Result<Option<Request<'a>>, HttpError> {
        let row = self.held(slot);
        let mut chunked = match row.rare().chunked.take() {
            Some(chunked) => chunked,
            None => Box::new(ChunkedBody::new(body_max)),
        };
        match chunked.advance(rest)? {
            BodyProgress::Incomplete => {
                row.rare().chunked = Some(chunked);
                Ok(None)
            }
            BodyProgress::Complete { wire_bytes } => {
                row.shed_rare();
                let bytes = head.head_bytes + wire_bytes;
                let body = Cow::Owned(chunked.into_body());
                Ok(Some(Request { head, body, bytes }))
            }
        }
    }

    fn dispatch(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        request: &Request<'_>,
        bytes: &[u8],
    ) {
        self.held(slot).input_wanted = 0;
        let head = &request.head;
        let prefix = self.settings.path_prefix.clone();
        let route = Route::of(head.raw_path, &prefix);
        if head.method == Method::Options && !matches!(route, Route::Unknown) {
            let headers = self.cors_preflight(head);
            let answer = Response::new(Status::OK).headers(&headers);
            return self.respond(turn, slot, answer, head.keep_alive);
        }
        if !route.allows(head.method) {
            let headers = route.allow_header();
            let answer = Response::error(Status::METHOD_NOT_ALLOWED).headers(headers);
            return self.respond(turn, slot, answer, head.keep_alive);
        }
        match route {
            Route::App { .. } | Route::AppBadPath => self.take_upgrade(turn, slot, head, &route),
            Route::Events { .. }
            | Route::BatchEvents { .. }
            | Route::Channels { .. }
            | Route::Channel { .. }
            | Route::Users { .. }
            | Route::Terminate { .. } => self.take_api_request(turn, slot, request, &route, bytes),
            Route::Up => self.answer_up(turn, slot, head, None),
            Route::UpApp { app } => self.answer_up(turn, slot, head, Some(&app)),
            Route::Ready | Route::AcceptTraffic => self.answer_ready(turn, slot, head),
            Route::Live => {
                let answer = Response::new(Status::OK).text("OK");
                self.respond(turn, slot, answer, head.keep_alive);
            }
            Route::Usage => self.ask_usage(turn, slot, head),
            Route::Root | Route::WelcomeSign if self.settings.demo.is_some() => {
                self.welcome(turn, slot, request, &route);
            }
            Route::Root | Route::WelcomeSign | Route::Unknown => {
                let answer = Response::error(Status::NOT_FOUND);
                self.respond(turn, slot, answer, head.keep_alive);
            }
        }
    }

    fn take_upgrade(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        route: &Route<'_>,
    ) {
        let accept = match handshake::check_upgrade(&head.upgrade_request()) {
            Ok(accept) => accept,
            Err(error) => {
                self.counters.handshake_failures[2] += 1;
                let status = Status(error.status());
                let headers: &[u8] = if status == Status::UPGRADE_REQUIRED {
                    b"Sec-WebSocket-Version: 13\r\n"
                } else {
                    b""
                };
                let answer = Response::error(status).headers(headers);
                return self.respond(turn, slot, answer, head.keep_alive);
            }
        };
        let key = if let Route::App { key } = route { &**key } else { "" };
        let upgrade = Upgrade {
            key: key.into(),
            path_is_bad: matches!(route, Route::AppBadPath),
            protocol: ProtocolParam::of(head.query),
            origin: head.origin.map(Into::into),
            accept,
            step: UpgradeStep::AddressLimit,
        };
        let hops = self.settings.upgrade_limit.as_ref().map_or(0, |limit| limit.trust_hops);
        let address = self.client_address(slot, head, hops);
        self.upgrade(turn, slot, address, upgrade);
    }

    /// The address that a limiter counts: the peer's, or what trusted proxies say of it.
    pub(super) fn client_address(
        &mut self,
        slot: Slot,
        head: &Head<'_>,
        trust_hops: u32,
    ) -> Option<IpAddr> {
        let peer = self.held(slot).rare.as_ref().and_then(|rare| rare.peer)?;
        let proxies = &self.settings.trusted_proxies;
        let trusted = proxies.is_empty() || proxies.iter().any(|net| net.contains(&peer));
        if trust_hops == 0 || !trusted {
            return Some(peer);
        }
        let forwarded = head.x_forwarded_for.and_then(|list| {
            let hops: Vec<&str> = list.split(',').map(str::trim).collect();
            let at = hops.len().checked_sub(trust_hops as usize)?;
            hops.get(at)?.parse().ok()
        });
        let real = || head.x_real_ip.and_then(|address| address.trim().parse().ok());
        Some(forwarded.or_else(real).unwrap_or(peer))
    }

    /// Sends an answer; the connection stays open for the next request if both sides want that.
    pub(super) fn respond(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        answer: Response<'_>,
        keep_alive: bool,
    ) {
        self.scratch.clear();
        answer.write(&mut self.scratch, keep_alive);
        let _ = turn.send(slot, &self.scratch);
        if !keep_alive {
            return self.end(turn, slot);
        }
        let until = turn.now().plus(KEEP_ALIVE_MS);
        self.held(slot).until = until;
        turn.arm_timer(slot, until);
    }

    /// 429, with when to come back.
    pub(super) fn respond_limited(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        rate: RateState,
        keep_alive: bool,
    ) {
        let mut headers = Vec::new();
        response::rate_headers(&mut headers, rate.limit, rate.remaining, rate.reset_s);
        response::retry_after(&mut headers, rate.reset_s);
        let answer = Response::rate_limited().headers(&headers);
        self.respond(turn, slot, answer, keep_alive);
    }

    fn cors_preflight(&self, head: &Head<'_>) -> Vec<u8> {
        let mut headers = self.cors_headers(head.origin);
        let settings = &self.settings;
        cors::preflight_headers(&mut headers, &settings.cors_methods, &settings.cors_headers);
        headers
    }

    /// The CORS headers for an answer to a page of `origin`.
    pub(super) fn cors_headers(&self, origin: Option<&str>) -> Vec<u8> {
        let mut headers = Vec::new();
        let settings = &self.settings;
        let listed = match &settings.cors_origins {
            crate::config::sections::CorsOrigin::Any => None,
            crate::config::sections::CorsOrigin::Listed(list) => Some(list.as_slice()),
        };
        cors::simple_headers(&mut headers, listed, settings.cors_credentials, origin);
        headers
    }

    fn refuse_request(&mut self, turn: &mut impl ServerTurn, slot: Slot, error: HttpError) {
        let column = match error {
            HttpError::HeadTooLarge => 1,
            _ => 2,
        };
        self.counters.handshake_failures[column] += 1;
        let answer = Response::error(Status(error.status()));
        self.respond(turn, slot, answer, false);
    }

    /// The connection's timer fell due while it speaks HTTP.
    pub(super) fn check_request_deadline(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let now = turn.now();
        let row = self.held(slot);
        if now < row.until {
            let until = row.until;
            turn.arm_timer(slot, until);
            return;
        }
        if row.waiting {
            // Homes answer in microseconds; a bridge that is gone must not keep connections.
            turn.close_now(slot);
            return;
        }
        if row.input.is_empty() {
            self.counters.handshake_failures[0] += u64::from(row.operation == 0);
            self.end(turn, slot);
            return;
        }
        self.counters.handshake_failures[0] += 1;
        self.respond(turn, slot, Response::error(Status::REQUEST_TIMEOUT), false);
    }

    /// True while the slot still speaks HTTP.
    pub(super) fn is_http(&mut self, slot: Slot) -> bool {
        self.row(slot).is_some_and(|row| row.state == State::Http)
    }
}
