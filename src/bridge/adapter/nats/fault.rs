//! What an error of a NATS server means for an operator.
//!
//! Owns: the sentences; `Denial` (what a server does not let us do).
//! May depend on: `adapter::news`, `nats::{login, server}`, `bridge::tls`, the crate `async-nats`.
//! Invariants: a sentence names the key and what to do; a server's own words are shown only where
//! they hold no secret, bounded and escaped.

use std::error::Error as _;

use async_nats::{ConnectError, ConnectErrorKind};

use super::{
    super::news::{Trouble, TroubleKind},
    login::Login,
    server::Server,
};
use crate::bridge::tls::TlsWords;

/// Of a connection that was not made.
pub(super) fn fault(
    error: &ConnectError,
    server: &Server,
    login: &Login,
    tls: TlsWords,
) -> Trouble {
    let at = server.address();
    if let Some(meaning) = tls.meaning_of(error) {
        let (kind, sentence) = (TroubleKind::Tls, format!("NATS at {at} {meaning}"));
        return Trouble { kind, sentence };
    }
    let (kind, sentence) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            let refusal = login.refusal(server.login_keys());
            let sentence = format!("NATS at {at} {refusal}");
            (TroubleKind::Login, sentence)
        }
        ConnectErrorKind::TimedOut => (
            TroubleKind::Unreachable,
            format!(
                "NATS at {at} cannot be reached (adapter.nats.servers): no answer within \
                 adapter.nats.connection_timeout_ms"
            ),
        ),
        ConnectErrorKind::Tls => (
            TroubleKind::Tls,
            format!(
                "NATS at {at}: TLS does not come about (adapter.nats.servers, adapter.nats.tls): {}",
                words(error, server)
            ),
        ),
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Dns
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => (
            TroubleKind::Unreachable,
            format!(
                "NATS at {at} cannot be reached (adapter.nats.servers): {}",
                words(error, server)
            ),
        ),
    };
    Trouble { kind, sentence }
}

/// What a server says while the connection stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// With the subject.
    Publish(String),
    Subscribe(String),
    /// Anything else, in its words.
    Other(String),
}

impl Denial {
    pub(super) fn new(words: &str) -> Self {
        let subject = |verb: &str| {
            let rest = words.strip_prefix("Permissions Violation for ")?;
            let rest = rest.strip_prefix(verb)?.strip_prefix(" to \"")?;
            rest.split('"').next().map(str::to_owned)
        };
        if let Some(subject) = subject("Publish") {
            return Self::Publish(subject);
        }
        if let Some(subject) = subject("Subscription") {
            return Self::Subscribe(subject);
        }
        Self::Other(words.to_owned())
    }

    pub(super) fn trouble(&self, stem: &str, server: &Server) -> Trouble {
        let (at, login) = (server.address(), server.login_keys());
        let denied = |verb: &str| {
            let sentence = format!(
                "NATS at {at} does not let this user {verb} on {stem}>: allow it (permissions: \
                 {verb}: \"{stem}>\"), or set another one ({login})"
            );
            (TroubleKind::Permission, sentence)
        };
        let (kind, sentence) = match self {
            Self::Publish(_) => denied("publish"),
            Self::Subscribe(_) => denied("subscribe"),
            Self::Other(words) => (
                TroubleKind::Refused,
                format!("NATS at {at} complains: {}", masked(words, server)),
            ),
        };
        Trouble { kind, sentence }
    }
}

/// The server takes less at once than a batch may have.
pub(super) fn short_payload(bytes_max: usize, wanted: usize, server: &Server) -> Trouble {
    let at = server.address();
    Trouble {
        kind: TroubleKind::Refused,
        sentence: format!(
            "NATS at {at} takes {bytes_max} bytes at once, and a batch may have {wanted}: set its \
             max_payload to at least that; longer batches are lost until then"
        ),
    }
}

pub(super) fn closed(server: &Server) -> Trouble {
    Trouble {
        kind: TroubleKind::Closed,
        sentence: format!("NATS at {} has closed the connection", server.address()),
    }
}

pub(super) fn silent(server: &Server) -> Trouble {
    Trouble {
        kind: TroubleKind::Silent,
        sentence: format!("NATS at {} does not answer", server.address()),
    }
}

fn words(error: &ConnectError, server: &Server) -> String {
    let text = error
        .source()
        .map_or_else(|| error.kind().to_string(), ToString::to_string);
    masked(&text, server)
}

fn masked(words: &str, server: &Server) -> String {
    if server.is_leaked_by(words) {
        return "its words hold a secret".to_owned();
    }
    let words: String = words.chars().take(WORDS_MAX).collect();
    words.escape_debug().to_string()
}

const WORDS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_told_from_other_complaints() {
        for (words, denial) in [
            (
                "Permissions Violation for Publish to \"p.v1.c.n\"",
                Denial::Publish("p.v1.c.n".to_owned()),
            ),
            (
                "Permissions Violation for Subscription to \"p.v1.c.n\" using queue \"q\"",
                Denial::Subscribe("p.v1.c.n".to_owned()),
            ),
            ("", Denial::Other(String::new())),
            (
                "Permissions Violation for Publish",
                Denial::Other("Permissions Violation for Publish".to_owned()),
            ),
            (
                "maximum subscriptions exceeded",
                Denial::Other("maximum subscriptions exceeded".to_owned()),
            ),
        ] {
            assert_eq!(Denial::new(words), denial);
        }
    }
}
