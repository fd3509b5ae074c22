//! Bodies of requests that come in pieces.
//!
//! Owns: whose body is kept, whose is thrown away, and how long it may take.
//! May depend on: `connection::body`, `http`, `protocol::auth`, `server::request`.
//! Invariants: a body is kept only for a route that wants one, of an app that is there, whose head
//! is signed; any other request is answered at once and its body is discarded as it comes.

use std::borrow::Cow;

use shards::{application::Slot, work::Work};

use super::{ServerTurn, ShardServer, request::Request};
use crate::{
    connection::body::{Body, Pace},
    http::{
        request::{Head, HttpError, parse_head},
        response,
        route::Route,
    },
    protocol::auth::{self, RequestToVerify},
};

impl ShardServer {
    pub(super) fn has_body_under_way(&self, slot: Slot) -> bool {
        let row = &self.connections[slot.index as usize];
        row.rare.as_ref().is_some_and(|rare| rare.body.is_some())
    }

    fn pace(&self) -> Pace {
        Pace {
            handshake_ms: self.settings.handshake_timeout_ms,
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
            // Where the frames would begin is unknown until the body has ended.
            let error = HttpError::Malformed("an upgrade has no body");
            return self.refuse_request(turn, slot, error, bytes);
        }
        let now = turn.now();
        let bytes_max = usize::try_from(self.settings.request_bytes_max).unwrap_or(usize::MAX);
        let head_bytes = bytes.get(..head.bytes).unwrap_or_default();
        if self.wants_body(turn, &head) {
            if head.expect_continue {
                turn.send(slot, response::CONTINUE);
            }
            let body = Body::kept(head_bytes, head.body, bytes_max, now);
            return self.put_body(turn, slot, body);
        }
        let body = Body::discarded(head.body, bytes_max, now);
        self.put_body(turn, slot, body);
        // Refused, or answered, without looking at what is still to come.
        let request = Request {
            head,
            body: Cow::Borrowed(b""),
            digest: None,
            bytes: 0,
        };
        self.dispatch(turn, slot, &request, bytes);
    }

    fn put_body(&mut self, turn: &mut impl ServerTurn, slot: Slot, body: Body) {
        let pace = self.pace();
        let row = self.held(slot);
        row.has_begun = true;
        row.until = body.deadline(pace);
        row.rare().body = Some(Box::new(body));
        turn.arm_timer(slot, row.until);
    }

    /// Whether it matters what the body is: for all others the answer is known.
    fn wants_body(&mut self, turn: &mut impl ServerTurn, head: &Head<'_>) -> bool {
        let route = Route::of(head.raw_path, &self.settings.path_prefix);
        if matches!(route, Route::WelcomeSign) {
            return self.settings.demo.is_some();
        }
        let app = route.api_app().and_then(|id| self.apps.by_id(id));
        let Some(app) = app.filter(|_| route.method() == Some(head.method)) else {
            return false;
        };
        turn.spend(Work::SIGNATURE);
        auth::is_head_signed(RequestToVerify {
            method: head.method,
            raw_path: head.raw_path,
            query: head.query,
            body: b"",
            app_key: &app.entry.app.key,
            signers: &app.entry.signers,
            now_s: turn.unix_ms() / 1_000,
            path_prefix: &self.settings.path_prefix,
        })
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
        turn.spend(Work::bytes_hashed(bytes.len()));
        let taken = match body.feed(bytes) {
            Ok(taken) => taken,
            Err(error) => {
                self.break_body(turn, slot, &body, error);
                return bytes.len();
            }
        };
        let row = self.held(slot);
        if !body.is_complete() {
            row.until = body.deadline(pace);
            row.rare().body = Some(body);
            return taken;
        }
        row.has_begun = false;
        row.shed_rare();
        if body.is_discarded() {
            return taken;
        }
        let (head, body, digest) = body.into_parts();
        if let Ok(Some(parsed)) = parse_head(&head) {
            let request = Request {
                head: parsed,
                body: Cow::Owned(body),
                digest: Some(digest),
                bytes: taken,
            };
            self.dispatch(turn, slot, &request, &head);
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
        if body.is_discarded() {
            // The request has its answer.
            return self.end(turn, slot);
        }
        let head = body.head.clone();
        self.refuse_request(turn, slot, error, &head);
    }
}
