//! Health answers: one word for load balancers, JSON for people.
//!
//! Owns: the words, statuses and header of `/up` and its kin.
//! May depend on: `response`, `protocol::{json, outgoing}` (writers).
//! Invariants: the body's word and the `X-Health-Check` header are the same.

use crate::http::response::{ContentType, Status};
use crate::protocol::json::write_json_string;
use crate::protocol::outgoing::write_list;

/// How the node, or one app on it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// Only the webhook queue is unhealthy.
    Degraded,
    /// A part that every request needs fails, or no app is configured, or the app is disabled.
    Error,
    /// The app is unknown.
    NotFound,
}

impl Health {
    pub fn status(self) -> Status {
        match self {
            Self::Ok | Self::Degraded => Status::Ok,
            Self::Error => Status::Unavailable,
            Self::NotFound => Status::NotFound,
        }
    }

    /// The plain body.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Degraded => "DEGRADED",
            Self::Error => "ERROR",
            Self::NotFound => "NOT_FOUND",
        }
    }

    /// The header line, with its CRLF.
    pub fn header(self) -> &'static [u8] {
        match self {
            Self::Ok => b"X-Health-Check: OK\r\n",
            Self::Degraded => b"X-Health-Check: DEGRADED\r\n",
            Self::Error => b"X-Health-Check: ERROR\r\n",
            Self::NotFound => b"X-Health-Check: NOT_FOUND\r\n",
        }
    }
}

/// What the JSON form tells in addition.
#[derive(Clone, Copy, Debug)]
pub struct HealthReport<'a> {
    pub health: Health,
    /// Why it is not `OK`; empty when it is.
    pub reasons: &'a [&'a str],
    pub node: &'a str,
    pub is_draining: bool,
}

impl HealthReport<'_> {
    /// Appends the body in the form that the `Accept` header asks for, and says which it was.
    pub fn write_body(&self, out: &mut Vec<u8>, accept: Option<&str>) -> ContentType {
        if !accept.is_some_and(|accept| accept.contains("application/json")) {
            out.extend_from_slice(self.health.word().as_bytes());
            return ContentType::Text;
        }
        out.extend_from_slice(br#"{"status":"#);
        write_json_string(out, &self.health.word().to_ascii_lowercase());
        out.extend_from_slice(br#","reasons":["#);
        write_list(out, self.reasons.iter(), |out, reason| {
            write_json_string(out, reason)
        });
        out.extend_from_slice(br#"],"node":"#);
        write_json_string(out, self.node);
        out.extend_from_slice(br#","draining":"#);
        out.extend_from_slice(if self.is_draining { b"true" } else { b"false" });
        out.push(b'}');
        ContentType::Json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_health_has_its_status_word_and_header() {
        for (health, status, word) in [
            (Health::Ok, 200, "OK"),
            (Health::Degraded, 200, "DEGRADED"),
            (Health::Error, 503, "ERROR"),
            (Health::NotFound, 404, "NOT_FOUND"),
        ] {
            assert_eq!(health.status().code(), status);
            assert_eq!(health.word(), word);
            assert_eq!(
                health.header(),
                format!("X-Health-Check: {word}\r\n").as_bytes()
            );
        }
    }

    #[test]
    fn a_body_is_a_word_unless_json_is_asked_for() {
        let reasons = ["canary late", "draining"];
        let report = HealthReport {
            health: Health::Error,
            reasons: &reasons,
            node: "n1",
            is_draining: true,
        };
        let json = r#"{"status":"error","reasons":["canary late","draining"],"node":"n1","draining":true}"#;
        for (accept, content_type, body) in [
            (None, ContentType::Text, "ERROR"),
            (Some("*/*"), ContentType::Text, "ERROR"),
            (Some("text/plain"), ContentType::Text, "ERROR"),
            (Some("application/json"), ContentType::Json, json),
            (
                Some("text/html, application/json;q=0.9"),
                ContentType::Json,
                json,
            ),
        ] {
            let mut out = Vec::new();
            assert_eq!(
                report.write_body(&mut out, accept),
                content_type,
                "{accept:?}"
            );
            assert_eq!(String::from_utf8_lossy(&out), body, "{accept:?}");
        }
    }
}
