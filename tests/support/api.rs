//! The HTTP API over one kept-alive connection, signed as the server libraries sign.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::server::Server;
use super::sign::{api_query, unix_now};
use super::wire::{Reply, Wire};

pub(crate) struct Api {
    address: SocketAddr,
    pub(crate) prefix: String,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    wire: Option<Wire>,
}

impl Api {
    pub(crate) fn new(server: &Server, id: &str, key: &str, secret: &str) -> Self {
        Self {
            address: server.address,
            prefix: server.prefix.clone(),
            id: id.to_owned(),
            key: key.to_owned(),
            secret: secret.to_owned(),
            wire: None,
        }
    }

    /// The same by way of a proxy.
    pub(crate) fn by_way_of(self, address: SocketAddr) -> Self {
        Self {
            address,
            wire: None,
            ..self
        }
    }

    /// The path of this app's resource, e.g. `path("/events")`.
    pub(crate) fn path(&self, resource: &str) -> String {
        format!("{}/apps/{}{resource}", self.prefix, self.id)
    }

    /// The signed query of a request now.
    pub(crate) fn query(
        &self,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        api_query(
            (&self.key, &self.secret),
            method,
            path,
            parameters,
            body,
            unix_now(),
        )
    }

    /// The target of a request of this app's resource, signed now.
    pub(crate) fn signed(
        &self,
        method: &str,
        resource: &str,
        parameters: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        let path = self.path(resource);
        format!("{path}?{}", self.query(method, &path, parameters, body))
    }

    #[track_caller]
    pub(crate) fn get(&mut self, resource: &str, parameters: &[(&str, &str)]) -> Reply {
        let target = self.signed("GET", resource, parameters, b"");
        self.sends("GET", &target, b"")
    }

    #[track_caller]
    pub(crate) fn post(&mut self, resource: &str, body: &[u8]) -> Reply {
        let target = self.signed("POST", resource, &[], body);
        self.sends("POST", &target, body)
    }

    /// One request with any target, on the kept connection or, where the server ended that, a new one.
    #[track_caller]
    pub(crate) fn sends(&mut self, method: &str, target: &str, body: &[u8]) -> Reply {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        if let Some(mut wire) = self.wire.take() {
            wire.sends([head.as_bytes(), body].concat());
            if let Some(reply) = wire.try_reply() {
                self.keeps(wire, &reply);
                return reply;
            }
        }
        let mut wire = Wire::connect(self.address);
        wire.sends([head.as_bytes(), body].concat());
        let reply = wire.reply();
        self.keeps(wire, &reply);
        reply
    }

    fn keeps(&mut self, wire: Wire, reply: &Reply) {
        let closing = reply
            .header("connection")
            .is_some_and(|value| value == "close");
        self.wire = (!closing).then_some(wire);
    }

    /// GET that must succeed; gives the JSON.
    #[track_caller]
    pub(crate) fn reads(&mut self, resource: &str, parameters: &[(&str, &str)]) -> Value {
        let reply = self.get(resource, parameters);
        assert_eq!(reply.status, 200, "{resource}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        reply.json()
    }

    /// POST /events with this JSON, which must succeed; gives the answer.
    #[track_caller]
    pub(crate) fn posts_event(&mut self, event: &Value) -> Value {
        let reply = self.post("/events", event.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{event}: {}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        reply.json()
    }

    /// Publishes a string to one channel.
    #[track_caller]
    pub(crate) fn publishes(&mut self, event: &str, channel: &str, data: &str) {
        let answer = self.posts_event(&json!({"name": event, "channels": [channel], "data": data}));
        assert_eq!(
            answer,
            json!({}),
            "an event without info is answered with an empty object"
        );
    }

    #[track_caller]
    pub(crate) fn terminates(&mut self, user_id: &str) {
        let reply = self.post(&format!("/users/{user_id}/terminate_connections"), b"{}");
        assert_eq!((reply.status, reply.text()), (200, "{}".to_owned()));
    }
}
