//! HTTP requests of one connection, one after another.
//!
//! Owns: reading a request whole, its route, answers that need no app, deadlines of requests.
//! May depend on: `http`, `ws::handshake`, `connection`, the other files of this room.
//! Invariants: a request is answered before the next one is looked at; a body is bounded before it
//! is read; what follows a request that broke the protocol is not read; every answer has the CORS
//! headers, and none to `HEAD` has a body.

use std::{borrow::Cow, net::IpAddr, rc::Rc};

use shards::{application::Slot, work::Work};
use smallvec::SmallVec;

use super::{ServerTurn, ShardServer, addresses::counted, forwarded::Trust};
use crate::{
    connection::{
        body::Body,
        deadline::KEEP_ALIVE_MS,
        pending::{Asked, Parts, RateState},
        row::{Awaited, PeerKind, State},
        upgrade::{Transport, Upgrade, UpgradeStep},
    },
    http::{
        api::ApiError,
        query::ClientQuery,
        request::{self, BodyFraming, Head, HttpError, Version},
        response::{self, BodyEnd, ContentType, Persistence, Response, Status},
        route::Route,
    },
    metrics::counters::ConnectionError,
    protocol::{json::write_json_string, request_auth::BodyDigest},
    ws::handshake::{self, UpgradeError, UpgradeRequest},
};

/// Where its frames would begin is a matter of opinion.
pub(super) const UPGRADE_WITH_BODY: HttpError = HttpError::Malformed("upgrade: it has a body");
/// What is kept of the room that answers are written in.
const SCRATCH_BYTES_MAX: usize = 262_144;

/// An answer, before it is known what follows on the connection.
#[derive(Clone, Copy)]
pub(super) struct Reply<'a> {
    pub(super) status: Status,
    pub(super) content_type: ContentType,
    /// Whole header lines.
    pub(super) headers: &'a [&'a [u8]],
    pub(super) body: &'a [u8],
}

impl<'a> Reply<'a> {
    pub(super) fn json(status: Status, headers: &'a [&'a [u8]], body: &'a [u8]) -> Self {
        Self {
            status,
            content_type: ContentType::Json,
            headers,
            body,
        }
    }

    pub(super) fn text(status: Status, headers: &'a [&'a [u8]], body: &'a str) -> Self {
        Self {
            status,
            content_type: ContentType::Text,
            headers,
            body: body.as_bytes(),
        }
    }
}

/// A whole request.
pub(super) struct Request<'a> {
    pub(super) head: Head<'a>,
    pub(super) body: Cow<'a, [u8]>,
    /// Of a body that came in pieces.
    pub(super) digest: Option<BodyDigest>,
    /// Bytes that it took from the input.
    pub(super) bytes: usize,
}

/// How far a request has arrived.
enum Step<'a> {
    /// Its head is not whole.
    Wants,
    Whole(Request<'a>),
    /// Its head is, its body is not.
    Body(Head<'a>),
}

impl ShardServer {
    /// Handles the request at the start of `bytes`; returns its length, 0 while it is not whole.
    pub(super) fn take_request(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        bytes: &[u8],
    ) -> usize {
        let step = self.read_request(turn, bytes);
        let head = match &step {
            Ok(Step::Whole(request)) => Some(&request.head),
            Ok(Step::Body(head)) => Some(head),
            Ok(Step::Wants) | Err(_) => None,
        };
        if let Some(head) = head
            && self.awaits_app(turn, slot, head)
        {
            return 0; // It is looked at again when that is known.
        }
        match step {
            Ok(Step::Wants) => 0,
            Ok(Step::Whole(request))
                if request.head.upgrade_websocket && !request.body.is_empty() =>
            {
                self.refuse_request(turn, slot, UPGRADE_WITH_BODY, bytes);
                bytes.len()
            }
            Ok(Step::Whole(request)) => {
                let request_bytes = request.bytes;
                self.dispatch(turn, slot, request, bytes);
                request_bytes
            }
            Ok(Step::Body(head)) => {
                let head_bytes = head.bytes;
                self.begin_body(turn, slot, head, bytes);
                head_bytes
            }
            Err(error) => {
                self.refuse_request(turn, slot, error, bytes);
                bytes.len()
            }
        }
    }

    /// The request at the start of `bytes`, if it is whole. A body that is not goes on in `body`.
    fn read_request<'a>(
        &self,
        turn: &mut impl ServerTurn,
        bytes: &'a [u8],
    ) -> Result<Step<'a>, HttpError> {
        let parsed = request::parse_head(bytes);
        // Of a pipeline only what was looked at.
        let parsed_bytes = match &parsed {
            Ok(Some(head)) => head.bytes,
            Ok(None) | Err(_) => bytes.len().min(request::HEAD_BYTES_MAX),
        };
        turn.spend(Work::TEXT.and(Work::bytes_hashed(parsed_bytes)));
        let body_max = usize::try_from(self.settings.request_bytes_max).unwrap_or(usize::MAX);
        let Some(head) = parsed? else {
            return Ok(Step::Wants);
        };
        head.check_body_bytes(body_max)?;
        let head_bytes = head.bytes;
        let length = match head.body {
            BodyFraming::Empty => 0,
            BodyFraming::Length(length) => usize::try_from(length).unwrap_or(usize::MAX),
            BodyFraming::Chunked => usize::MAX,
        };
        let rest = bytes.get(head_bytes..).unwrap_or_default();
        if let Some(body) = rest.get(..length) {
            return Ok(Step::Whole(Request {
                head,
                body: Cow::Borrowed(body),
                digest: None,
                bytes: head_bytes + length,
            }));
        }
        Ok(Step::Body(head))
    }

    pub(super) fn dispatch(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        request: Request<'_>,
        bytes: &[u8],
    ) {
        self.held(slot).state = State::Http(Awaited::Next);
        let head = &request.head;
        let prefix = self.settings.path_prefix.clone();
        let route = Route::of(head.raw_path, &prefix);
        let asked = Asked::of(head);
        let checked = route.check(head.method);
        // A balancer that names no method asks OPTIONS; it is no browser's question then.
        let asks_health = route.is_health()
            && head.origin.is_none()
            && head.access_control_request_method.is_none();
        if head.method == "OPTIONS" && checked != Err(ApiError::NotFound) {
            return if !asks_health {
                self.answer_preflight(turn, slot, &asked)
            } else if matches!(route, Route::Root) {
                self.answer_up(turn, slot, head, None)
            } else {
                self.answer_health(turn, slot, head, &route)
            };
        }
        if let Err(fault) = checked {
            return self.refuse_route(turn, slot, &route, fault, &asked);
        }
        match &route {
            Route::App { .. } | Route::AppBadPath => self.take_upgrade(turn, slot, head, &route),
            Route::Events { .. }
            | Route::BatchEvents { .. }
            | Route::Channels { .. }
            | Route::Channel { .. }
            | Route::Users { .. }
            | Route::Terminate { .. } => self.take_api_request(turn, slot, request, &route, bytes),
            Route::Usage => self.ask_usage(turn, slot, asked),
            Route::Root | Route::WelcomeSign if self.may_welcome(slot, head) => {
                self.welcome(turn, slot, &request, &route);
            }
            Route::Up
            | Route::UpApp { .. }
            | Route::Ready
            | Route::AcceptTraffic
            | Route::Live
            | Route::Root => self.answer_health(turn, slot, head, &route),
            Route::WelcomeSign | Route::Unknown => {
                self.respond_fault(turn, slot, ApiError::NotFound, &[], &asked);
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
        let accept = match handshake::check_upgrade(&UpgradeRequest {
            is_get_1_1: head.method == "GET" && head.version == Version::Http11,
            upgrade_websocket: head.upgrade_websocket,
            connection_upgrade: head.connection_upgrade,
            key: head.ws_key,
            version: head.ws_version,
        }) {
            Ok(accept) => accept,
            Err(error) => return self.refuse_upgrade_request(turn, slot, head, error),
        };
        let key = if let Route::App { key } = route {
            &**key
        } else {
            ""
        };
        let upgrade = Upgrade {
            key: key.into(),
            path_is_bad: matches!(route, Route::AppBadPath),
            protocol: ClientQuery::parse(head.query).protocol,
            origin: head.origin.map(Into::into),
            transport: self.transport(slot, head),
            accept,
            step: UpgradeStep::AddressLimit,
        };
        let hops = self.settings.upgrade_limit.as_ref();
        let hops = hops.map(|limit| limit.trust_hops);
        let address = hops.and_then(|hops| self.client_address(slot, head, hops));
        self.upgrade(turn, slot, address, upgrade);
    }

    /// What a limiter counts as the address; says once what looks wrong about it.
    pub(super) fn client_address(
        &mut self,
        slot: Slot,
        head: &Head<'_>,
        trust_hops: u32,
    ) -> Option<IpAddr> {
        let peer = self.held(slot).rare.as_ref().and_then(|rare| rare.peer)?;
        let trust = self.trust(trust_hops);
        let (address, doubt) = trust.address(head, peer);
        if let Some(doubt) = doubt {
            self.doubts.tell(doubt, peer.address());
        }
        Some(counted(address))
    }

    /// The same where it is only to be fair: nobody has to set anything for that, so that nothing is said.
    pub(super) fn address_of_asker(&mut self, slot: Slot, head: &Head<'_>) -> Option<IpAddr> {
        let peer = self.held(slot).rare.as_ref().and_then(|rare| rare.peer)?;
        let trust = self.trust(self.settings.upgrade_trust_hops);
        Some(counted(trust.address(head, peer).0))
    }

    fn trust(&self, hops: u32) -> Trust<'_> {
        let proxies = &self.settings.trusted_proxies;
        Trust { hops, proxies }
    }

    fn transport(&mut self, slot: Slot, head: &Head<'_>) -> Transport {
        let peer = self.held(slot).rare.as_ref().and_then(|rare| rare.peer);
        let trust = self.trust(self.settings.upgrade_trust_hops);
        let speaks_tls = self.settings.speaks_tls && peer != Some(PeerKind::Local);
        trust.transport(head, peer, speaks_tls)
    }

    fn refuse_upgrade_request(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        error: UpgradeError,
    ) {
        self.counters.handshake_failures[2] += 1;
        let errors = &mut self.counters.unknown_app_errors;
        errors[ConnectionError::WebsocketUpgradeFailed as usize] += 1;
        let (status, headers): (_, &[&[u8]]) = match error {
            UpgradeError::Version => (Status::UpgradeRequired, &[response::WS_VERSION_13]),
            UpgradeError::NotAnUpgrade | UpgradeError::Key => (Status::BadRequest, &[]),
        };
        self.tell_unswitched(slot, error);
        let mut body = b"{\"error\":".to_vec();
        write_json_string(&mut body, &error.to_string());
        body.push(b'}');
        let reply = Reply::json(status, headers, &body);
        self.respond(turn, slot, reply, &Asked::of(head));
    }

    /// Whether an answer that begins now leaves the connection open for the next request: not while
    /// the node drains, since whoever reuses the connection would lose a request with it.
    fn keeps_alive(&self, asked: &Asked) -> bool {
        asked.keep_alive && !self.is_draining()
    }

    /// Sends an answer; the connection stays open for the next request if both sides want that.
    pub(super) fn respond(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        reply: Reply<'_>,
        asked: &Asked,
    ) {
        let settings = Rc::clone(&self.settings);
        let keep_alive = self.keeps_alive(asked);
        self.scratch.clear();
        let Reply {
            status,
            content_type,
            headers,
            body,
        } = reply;
        let mut lines = SmallVec::<[&[u8]; 4]>::new();
        lines.push(settings.cors.headers(asked.origin.as_deref()));
        lines.extend_from_slice(headers);
        Response {
            status,
            content_type,
            persistence: Persistence::of(keep_alive),
            headers: &lines,
            body,
            content: asked.content,
        }
        .write(&mut self.scratch);
        turn.send(slot, &self.scratch);
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_MAX);
        self.answered_request(turn, slot, keep_alive);
    }

    /// Sends the head of an answer whose body follows in parts, or is not sent. What it says of the
    /// connection's end holds for `end_parts`.
    pub(super) fn begin_parts(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        asked: &Asked,
        rate: Option<RateState>,
        end: BodyEnd,
    ) {
        let settings = Rc::clone(&self.settings);
        let mut rate_headers = Vec::new();
        if let Some(rate) = rate {
            write_rate(&mut rate_headers, rate, None);
        }
        self.scratch.clear();
        let cors = settings.cors.headers(asked.origin.as_deref());
        Response {
            status: Status::Ok,
            content_type: ContentType::Json,
            persistence: Persistence::of(asked.keep_alive),
            headers: &[cors, &rate_headers],
            body: b"",
            content: asked.content,
        }
        .write_head(&mut self.scratch, end);
        turn.send(slot, &self.scratch);
    }

    /// Sends a part of a body.
    pub(super) fn add_part(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        asked: &Asked,
        bytes: &[u8],
    ) {
        match asked.parts {
            Parts::Chunked => {
                self.scratch.clear();
                response::write_part(&mut self.scratch, bytes);
                turn.send(slot, &self.scratch);
            }
            Parts::Plain => turn.send(slot, bytes),
            Parts::Counted => {}
        }
    }

    /// Ends a body of parts.
    pub(super) fn end_parts(&mut self, turn: &mut impl ServerTurn, slot: Slot, asked: &Asked) {
        if asked.parts == Parts::Chunked {
            turn.send(slot, response::LAST_PART);
        }
        self.answered_request(turn, slot, asked.keep_alive);
    }

    /// What follows an answer: the connection's end, or the wait for its next request.
    fn answered_request(&mut self, turn: &mut impl ServerTurn, slot: Slot, keep_alive: bool) {
        // What comes next waits for its own turn, though nobody has counted between.
        self.bodies.forget(slot.index);
        if !keep_alive {
            return self.end(turn, slot);
        }
        if self.has_body_under_way(slot) {
            return; // The answer came before the request's end, which has its deadline.
        }
        let until = turn.now().plus(KEEP_ALIVE_MS);
        self.held(slot).until = until;
        turn.arm_timer(slot, until);
    }

    /// 429, with when to come back; 500 where nobody could count.
    pub(super) fn respond_limited(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        rate: RateState,
        asked: &Asked,
    ) {
        let mut headers = Vec::new();
        if rate != RateState::UNKNOWN {
            write_rate(&mut headers, rate, Some(rate.reset_s));
        }
        self.respond_fault(turn, slot, limited(rate), &[&headers], asked);
    }

    /// Answers with a fault's status and JSON.
    pub(super) fn respond_fault(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        fault: ApiError,
        headers: &[&[u8]],
        asked: &Asked,
    ) {
        let mut body = Vec::new();
        fault.write_body(&mut body);
        let reply = Reply::json(fault.status(), headers, &body);
        self.respond(turn, slot, reply, asked);
    }

    /// There is nothing there, or nothing for this method.
    fn refuse_route(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        route: &Route<'_>,
        fault: ApiError,
        asked: &Asked,
    ) {
        let allow: &[&[u8]] = match route.method() {
            Some("GET") => &[response::ALLOW_GET],
            Some(_) => &[response::ALLOW_POST],
            None => &[],
        };
        self.respond_fault(turn, slot, fault, allow, asked);
    }

    fn answer_preflight(&mut self, turn: &mut impl ServerTurn, slot: Slot, asked: &Asked) {
        let settings = Rc::clone(&self.settings);
        let content_type = ContentType::None;
        let reply = Reply {
            status: Status::Ok,
            content_type,
            headers: &[settings.cors.preflight_headers()],
            body: b"",
        };
        self.respond(turn, slot, reply, asked);
    }

    /// `bytes` begin with the request.
    pub(super) fn refuse_request(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        error: HttpError,
        bytes: &[u8],
    ) {
        let asked = asked_last(bytes);
        if let HttpError::BodyTooLarge { .. } = error
            && let Ok(Some(head)) = request::parse_head(bytes)
        {
            let prefix = self.settings.path_prefix.clone();
            let route = Route::of(head.raw_path, &prefix);
            if head.method != "OPTIONS"
                && let Err(fault) = route.check(head.method)
            {
                return self.refuse_route(turn, slot, &route, fault, &asked);
            }
            if self.asks_address_limit_first(turn, slot, &head, &route, &asked, error) {
                return;
            }
        }
        self.respond_unread(turn, slot, error, &[], &asked);
    }

    /// Answers a request that is not read any further.
    pub(super) fn respond_unread(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        error: HttpError,
        headers: &[&[u8]],
        asked: &Asked,
    ) {
        let is_too_large = error.status() == Status::HeadTooLarge;
        let column = if is_too_large { 1 } else { 2 };
        self.counters.handshake_failures[column] += 1;
        let mut body = b"{\"error\":".to_vec();
        write_json_string(&mut body, &error.to_string());
        body.push(b'}');
        let reply = Reply::json(error.status(), headers, &body);
        self.respond(turn, slot, reply, asked);
    }

    /// The body of a request must give way to others'.
    pub(super) fn refuse_body(&mut self, turn: &mut impl ServerTurn, slot: Slot, body: &Body) {
        self.respond_fault(
            turn,
            slot,
            ApiError::Unavailable,
            &[],
            &asked_last(&body.head),
        );
    }

    /// A request that has begun did not come in time.
    pub(super) fn refuse_late_request(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let body = self
            .held(slot)
            .rare
            .as_mut()
            .and_then(|rare| rare.body.take());
        self.counters.handshake_failures[0] += 1;
        let errors = &mut self.counters.unknown_app_errors;
        errors[ConnectionError::HandshakeTimeout as usize] += 1;
        let asked = match &body {
            Some(body) => asked_last(&body.head),
            None => asked_last(&self.held(slot).input),
        };
        let body = br#"{"error":"the request did not arrive in time"}"#;
        let reply = Reply::json(Status::RequestTimeout, &[], body);
        self.respond(turn, slot, reply, &asked);
    }
}

/// What can be known of a request that begins `bytes` and will not be read further.
fn asked_last(bytes: &[u8]) -> Asked {
    let head = request::parse_head(bytes).ok().flatten();
    let origin = head.and_then(|head| head.origin).map(Into::into);
    Asked::last(request::content_asked(bytes), origin)
}

/// Why what is beyond a limit is refused: where nobody could count, that is a fault of ours.
pub(super) fn limited(rate: RateState) -> ApiError {
    if rate == RateState::UNKNOWN {
        ApiError::Internal
    } else {
        ApiError::RateLimited
    }
}

/// Appends the header lines of a rate limit; `retry_after_s` on a refusal only.
pub(super) fn write_rate(headers: &mut Vec<u8>, rate: RateState, retry_after_s: Option<u32>) {
    response::write_rate_limit_headers(
        headers,
        rate.limit.into(),
        rate.remaining.into(),
        rate.reset_s.into(),
        retry_after_s.map(u64::from),
    );
}
