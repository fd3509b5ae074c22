//! Bodies of requests that come in pieces.
//!
//! Owns: whose body is kept, whose is thrown away, and how long it may take.
//! May depend on: `connection::{api, body}`, `http`, `protocol::request_auth`, `server::request`.
//! Invariants: a body is kept only for a route that wants one, of an app that is there, whose head
//! is signed; any other is discarded as it comes. Where it cannot matter who asks (no such route or
//! app, wrong method) the answer does not wait for its end.

use std::borrow::Cow;

use shards::{application::Slot, work::Work};

use super::{
    ServerTurn, ShardServer,
    request::{Request, UPGRADE_WITH_BODY},
};
use crate::{
    connection::{
        api::cost_of_check,
        body::{Body, Pace},
        pending::{ApiStep, Pending},
        row::{Awaited, State},
    },
    http::{
        request::{Head, HttpError, parse_head},
        response,
        route::Route,
    },
    protocol::{
        app::AppIndex,
        request_auth::{self, RequestToVerify},
    },
};

/// What becomes of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Kept,
    /// The answer does not depend on it, and is given when it has ended.
    Discarded,
    /// The answer is given at once.
    Unread,
}

/// Stands for a body that was thrown away: it is not empty, so it must be signed for, and it is not.
const NOT_KEPT: &[u8] = b"\0";

impl ShardServer {
    pub(super) fn has_body_under_way(&self, slot: Slot) -> bool {
        let row = &self.connections[slot.index as usize];
        row.rare.as_ref().is_some_and(|rare| rare.body.is_some())
    }

    fn pace(&self) -> Pace {
        Pace {
            grace_ms: self.settings.handshake_timeout_ms,
            bytes_per_s_min: self.settings.body_rate_min_bytes_per_s,
        }
    }

    /// A request's head is whole, its body is still to come; `bytes` begin with the head.
    pub(super) fn begin_body(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: Head<'_>,
        bytes: &[u8],
    ) {
        if head.upgrade_websocket {
            return self.refuse_request(turn, slot, UPGRADE_WITH_BODY, bytes);
        }
        let now = turn.now();
        let bytes_max = usize::try_from(self.settings.request_bytes_max).unwrap_or(usize::MAX);
        let head_bytes = bytes.get(..head.bytes).unwrap_or_default();
        let use_of_body = self.use_of_body(turn, &head);
        if use_of_body == Use::Kept {
            if head.expect_continue {
                turn.send(slot, response::CONTINUE);
            }
            let body = Body::kept(head_bytes, head.body, bytes_max, now);
            return self.put_body(turn, slot, body);
        }
        if use_of_body == Use::Discarded && !head.expect_continue {
            let body = Body::discarded(head_bytes, head.body, bytes_max, now);
            return self.put_body(turn, slot, body);
        }
        let body = Body::discarded(b"", head.body, bytes_max, now);
        self.put_body(turn, slot, body);
        let mut head = head;
        // Whether the body comes after such an answer is not known.
        head.keep_alive &= !head.expect_continue;
        let request = Request {
            head,
            body: Cow::Borrowed(NOT_KEPT),
            digest: None,
            bytes: 0,
        };
        self.dispatch(turn, slot, request, bytes);
    }

    /// Whose request the body in a slot belongs to.
    pub(super) fn app_of_body(&self, slot: Slot) -> AppIndex {
        let rare = self.connections[slot.index as usize].rare.as_ref();
        let call = rare.and_then(|rare| match &rare.pending {
            Some(Pending::Api(call)) => Some(&**call),
            _ => None,
        });
        let head = match call.map(|call| (&call.step, call.exchange.app)) {
            Some((ApiStep::AddressLimit { head, .. }, _)) => Some(&**head),
            Some((_, app)) => return app,
            None => rare.and_then(|rare| Some(&*rare.body.as_ref()?.head)),
        };
        let head = head.and_then(|head| parse_head(head).ok().flatten());
        let app = head.and_then(|head| {
            let route = Route::of(head.raw_path, &self.settings.path_prefix);
            Some(self.apps.by_id(route.api_app()?)?.entry.index)
        });
        app.unwrap_or(AppIndex::NONE)
    }

    fn put_body(&mut self, turn: &mut impl ServerTurn, slot: Slot, body: Body) {
        let pace = self.pace();
        let row = self.held(slot);
        row.state = State::Http(Awaited::Rest);
        row.until = body.deadline(pace);
        row.rare().body = Some(Box::new(body));
        turn.arm_timer(slot, row.until);
    }

    fn use_of_body(&mut self, turn: &mut impl ServerTurn, head: &Head<'_>) -> Use {
        let route = Route::of(head.raw_path, &self.settings.path_prefix);
        if head.method != "OPTIONS" && !route.takes(head.method) {
            return Use::Unread;
        }
        if matches!(route, Route::WelcomeSign) {
            let is_demo = self.settings.demo.is_some();
            return if is_demo { Use::Kept } else { Use::Unread };
        }
        let Some(id) = route.api_app() else {
            return Use::Discarded;
        };
        let Some(app) = self.apps.by_id(id) else {
            return Use::Unread; // Whoever may be there was waited for.
        };
        let request = RequestToVerify {
            method: head.method,
            raw_path: head.raw_path,
            query: head.query,
            body: b"",
            app_key: &app.entry.rules.key,
            signers: &app.entry.rules.signers,
            now_s: turn.unix_ms() / 1_000,
            path_prefix: &self.settings.path_prefix,
        };
        turn.spend(cost_of_check(&request));
        if request_auth::is_head_signed(request) {
            Use::Kept
        } else {
            Use::Discarded
        }
    }

    /// More of a body arrived; returns how many bytes it took.
    pub(super) fn take_body(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        bytes: &[u8],
    ) -> usize {
        let pace = self.pace();
        let row = self.held(slot);
        let Some(mut body) = row.rare().body.take() else {
            return 0;
        };
        let body_bytes = body.bytes();
        let taken = match body.feed(bytes) {
            Ok(taken) => taken,
            Err(error) => {
                turn.spend(Work::bytes_hashed(bytes.len()));
                self.break_body(turn, slot, &body, error);
                return bytes.len();
            }
        };
        // The coding is looked at byte by byte: a peer that sends little else pays for it.
        let coding = taken - (body.bytes() - body_bytes);
        turn.spend(Work::bytes_hashed(
            taken.saturating_add(coding.saturating_mul(5)),
        ));
        let row = self.held(slot);
        if !body.is_complete() {
            row.until = body.deadline(pace);
            row.rare().body = Some(body);
            return taken;
        }
        row.state = State::Http(Awaited::Next);
        row.shed_rare();
        if body.is_answered() {
            return taken;
        }
        let is_lost = body.is_discarded() && !body.is_empty();
        let (head, body, digest) = body.into_parts();
        let body = if is_lost {
            NOT_KEPT.into()
        } else {
            Cow::Owned(body)
        };
        if let Ok(Some(parsed)) = parse_head(&head) {
            let request = Request {
                head: parsed,
                body,
                digest: Some(digest),
                bytes: taken,
            };
            self.dispatch(turn, slot, request, &head);
        }
        taken
    }

    /// A body broke its coding or its bound: where the next request would begin is unknown.
    fn break_body(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        body: &Body,
        error: HttpError,
    ) {
        if body.is_answered() {
            return self.end(turn, slot);
        }
        let head = body.head.clone();
        self.refuse_request(turn, slot, error, &head);
    }
}
