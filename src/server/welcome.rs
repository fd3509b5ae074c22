//! The welcome page of the demo mode, and the signature that it asks for.
//!
//! Owns: the page at `/` and `/welcome/sign`, both for loopback peers only; others get `OK` and 404.
//! May depend on: `http`, `connection::pending`, `protocol::{auth, json}`, `server::request`.
//! Invariants: nothing but publishing to the demo app is signed, and only for a page that this
//! server itself served: the peer is loopback, and Host and Origin name this machine.

use md5::{Digest, Md5};
use shards::application::Slot;

use super::{
    ServerTurn, ShardServer,
    request::{Reply, Request},
};
use crate::{
    connection::pending::Asked,
    http::{
        api::ApiError,
        request::Head,
        response::{ContentType, Status},
        route::Route,
    },
    protocol::json::{self, JsonValue, write_json_string},
};

const PAGE: &str = include_str!("welcome.html");

impl ShardServer {
    /// In demo mode, for a page that was asked of this machine by its own name.
    pub(super) fn may_welcome(&mut self, slot: Slot, head: &Head<'_>) -> bool {
        let peer = self.held(slot).rare.as_ref().and_then(|rare| rare.peer);
        self.settings.demo.is_some()
            && peer.is_some_and(|peer| peer.address().is_loopback())
            && names_this_machine(head)
    }

    pub(super) fn welcome(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        request: &Request<'_>,
        route: &Route<'_>,
    ) {
        let asked = Asked::of(&request.head);
        if matches!(route, Route::Root) {
            let headers: &[&[u8]] = &[b"Content-Type: text/html; charset=utf-8\r\n"];
            let (status, content_type) = (Status::Ok, ContentType::None);
            let reply = Reply {
                status,
                content_type,
                headers,
                body: PAGE.as_bytes(),
            };
            return self.respond(turn, slot, reply, &asked);
        }
        let now_s = turn.unix_ms() / 1_000;
        match self.sign_for_page(&request.body, now_s) {
            Some(query) => {
                let mut body = b"{\"query\":".to_vec();
                write_json_string(&mut body, &query);
                body.push(b'}');
                let reply = Reply::json(Status::Ok, &[], &body);
                self.respond(turn, slot, reply, &asked);
            }
            None => {
                let fault = ApiError::WrongType("path");
                self.respond_fault(turn, slot, fault, &[], &asked);
            }
        }
    }

    /// The query that signs a publication of the demo app.
    fn sign_for_page(&self, body: &[u8], now_s: u64) -> Option<String> {
        let app = self.apps.get(self.settings.demo?)?;
        let text = std::str::from_utf8(body).ok()?;
        let (mut path, mut event) = (None, None);
        json::for_each_member(text, |key, value| {
            if let JsonValue::Text(value) = value {
                match &*key.decoded() {
                    "path" => path = Some(value.decoded()),
                    "body" => event = Some(value.decoded()),
                    _ => {}
                }
            }
        })
        .ok()?;
        let path = path?;
        let ids = [Some(&*app.entry.app.id), app.entry.app.former_id];
        let prefix = &self.settings.path_prefix;
        let mut allowed = ids.iter().flatten();
        if !allowed.any(|id| path == format!("{prefix}/apps/{id}/events")) {
            return None;
        }
        let md5 = Md5::digest(event?.as_bytes());
        let md5: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
        let query = format!(
            "auth_key={}&auth_timestamp={now_s}&auth_version=1.0&body_md5={md5}",
            app.entry.rules.key
        );
        let to_sign = format!("POST\n{path}\n{query}");
        let signature = app
            .entry
            .rules
            .signers
            .first()?
            .sign_hex(&[to_sign.as_bytes()]);
        let signature = std::str::from_utf8(&signature).ok()?.to_owned();
        Some(format!("{query}&auth_signature={signature}"))
    }
}

/// A page of another site that was pointed at this address must not get signatures.
fn names_this_machine(head: &Head<'_>) -> bool {
    let is_local = |host: &str| {
        let name = host.rsplit_once(':').map_or(host, |(name, port)| {
            if port.bytes().all(|byte| byte.is_ascii_digit()) {
                name
            } else {
                host
            }
        });
        matches!(name, "localhost" | "127.0.0.1" | "[::1]")
    };
    let origin_is_local = |origin: &str| {
        let schemes = ["http://", "https://"];
        let rests = schemes.iter().filter_map(|it| origin.strip_prefix(it));
        rests.into_iter().any(is_local)
    };
    head.host.is_some_and(is_local) && head.origin.is_none_or(origin_is_local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::parse_head;

    #[test]
    fn only_a_page_of_this_machine_gets_signatures_over_http_or_https() {
        for (host, origin, expected) in [
            ("localhost:6001", "", true),
            ("127.0.0.1", "Origin: http://127.0.0.1\r\n", true),
            ("[::1]:6001", "Origin: http://[::1]:6001\r\n", true),
            ("localhost:6001", "Origin: https://localhost:6001\r\n", true),
            ("evil.test", "", false),
            ("localhost", "Origin: https://evil.test\r\n", false),
            ("localhost", "Origin: http://evil.test\r\n", false),
            ("localhost", "Origin: null\r\n", false),
            ("localhost", "Origin: localhost\r\n", false),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
            let head = parse_head(bytes.as_bytes()).expect("valid").expect("whole");
            assert_eq!(names_this_machine(&head), expected, "{host} {origin:?}");
        }
    }
}
