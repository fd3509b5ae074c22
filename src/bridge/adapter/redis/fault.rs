//! What an error of a Redis server means for an operator.
//!
//! Owns: the sentences.
//! May depend on: `adapter::news`, `redis::link`, `bridge::tls`, the crate `redis`.
//! Invariants: a sentence names the key and what to do; a server's own words are shown only where
//! they cannot hold the password, bounded and escaped.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{
    super::news::{Trouble, TroubleKind},
    link::Server,
};
use crate::bridge::tls::{Failure, TlsClient};

/// Of a connection that was not made, or has ended.
pub(in crate::bridge) fn fault(error: &RedisError, server: &Server) -> Trouble {
    let (at, keys) = (server.address(), server.keys());
    if let Some(meaning) = server.tls().and_then(|tls| tls.words.meaning_of(error)) {
        return tls_trouble(at, &meaning);
    }
    let (kind, sentence) = match (error.kind(), error.code()) {
        (_, Some("WRONGPASS")) => (
            TroubleKind::Login,
            format!("{at} refuses this user and password: set {}", keys.login),
        ),
        (_, Some("NOAUTH")) => (
            TroubleKind::Login,
            format!("{at} wants a password: set {}", keys.login),
        ),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => (
            TroubleKind::Permission,
            format!(
                "{at} does not let this user do all that is needed: allow it {}, or set \
                 another one ({})",
                keys.commands, keys.login
            ),
        ),
        (ErrorKind::Parse, _) => (
            TroubleKind::Protocol,
            format!(
                "{at} does not speak the protocol of Redis: is another server's port set? ({})",
                keys.address
            ),
        ),
        _ if is_without_hello(error) => (
            TroubleKind::Protocol,
            format!(
                "{at} does not speak RESP3: needs Redis {} or later ({})",
                keys.release, keys.address
            ),
        ),
        (ErrorKind::Server(ServerErrorKind::ResponseError), _) if is_select(error) => (
            TroubleKind::Database,
            format!(
                "{at} does not give us database {}: set {} ({})",
                server.database(),
                keys.database,
                words(error, server)
            ),
        ),
        (ErrorKind::Io | ErrorKind::InvalidClientConfig, _) => (
            TroubleKind::Unreachable,
            format!(
                "{at} cannot be reached ({}): {}",
                keys.address,
                words(error, server)
            ),
        ),
        _ => (
            TroubleKind::Refused,
            format!(
                "{at} refuses us ({}): {}",
                keys.address,
                words(error, server)
            ),
        ),
    };
    Trouble { kind, sentence }
}

/// TLS did not come about.
pub(super) fn tls_fault(failure: &Failure, tls: &TlsClient, server: &Server) -> Trouble {
    let (at, key) = (server.address(), server.keys().address);
    if let Some(meaning) = tls.words.meaning(failure) {
        return tls_trouble(at, &meaning);
    }
    match failure {
        Failure::Unreachable(error) | Failure::Handshake(error) => Trouble {
            kind: TroubleKind::Unreachable,
            sentence: format!("{at} cannot be reached ({key}): {error}"),
        },
        Failure::Unanswered | Failure::Mute => unanswered(server),
    }
}

fn tls_trouble(at: &str, meaning: &str) -> Trouble {
    let kind = TroubleKind::Tls;
    let sentence = format!("{at} {meaning}");
    Trouble { kind, sentence }
}

pub(super) fn unanswered(server: &Server) -> Trouble {
    let (at, key) = (server.address(), server.keys().address);
    Trouble {
        kind: TroubleKind::Unreachable,
        sentence: format!("{at} cannot be reached ({key}): no answer in time"),
    }
}

/// A server that ends a connection at its first bytes, which were plain, may speak TLS only.
pub(super) fn wants_tls(error: &RedisError, server: &Server) -> Trouble {
    let Trouble { kind, sentence } = fault(error, server);
    let hint = "if it speaks TLS there: rediss:// in a URL, or database.redis.tls.enabled";
    Trouble {
        kind,
        sentence: format!("{sentence}; {hint}"),
    }
}

/// The server's words repeat the command with its arguments, of which one is the password.
fn is_without_hello(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || is_unknown_command(error)
}

fn is_unknown_command(error: &RedisError) -> bool {
    let is_unknown = |detail: &str| detail.to_ascii_lowercase().starts_with("unknown command");
    error.detail().is_some_and(is_unknown)
}

/// Of a command that each connection begins with.
pub(super) fn denied_command(what: &str, error: &RedisError, server: &Server) -> Trouble {
    if error.kind() != ErrorKind::Server(ServerErrorKind::NoPerm) {
        return fault(error, server);
    }
    let (at, login) = (server.address(), server.keys().login);
    Trouble {
        kind: TroubleKind::Permission,
        sentence: format!(
            "{at} does not let this user {what}: allow it (ACL SETUSER … +{what}), or set another one \
             ({login})"
        ),
    }
}

/// The crate says it in words only.
fn is_select(error: &RedisError) -> bool {
    error.to_string().contains("switch database")
}

/// Of a command that was not allowed, on a connection that stands.
pub(in crate::bridge) fn denied(
    what: &str,
    stem: &str,
    error: &RedisError,
    server: &Server,
) -> Trouble {
    let (at, login) = (server.address(), server.keys().login);
    let sentence = if is_unknown_command(error) {
        let release = server.keys().release;
        format!("{at} does not know {what}: needs Redis {release} or later")
    } else if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
        format!(
            "{at} does not let this user {what} on {stem}*: allow it (ACL SETUSER … \
             +{what} &{stem}*), or set another one ({login})"
        )
    } else {
        format!("{at} refuses to {what}: {}", words(error, server))
    };
    Trouble {
        kind: TroubleKind::Permission,
        sentence,
    }
}

pub(in crate::bridge) fn closed(server: &Server) -> Trouble {
    Trouble {
        kind: TroubleKind::Closed,
        sentence: format!("{} has closed the connection", server.address()),
    }
}

pub(in crate::bridge) fn silent(server: &Server) -> Trouble {
    Trouble {
        kind: TroubleKind::Silent,
        sentence: format!(
            "{} does not answer ({})",
            server.address(),
            server.keys().address
        ),
    }
}

pub(in crate::bridge) fn words(error: &RedisError, server: &Server) -> String {
    let words = error.to_string();
    if server.is_leaked_by(&words) {
        return "its words hold the password".to_owned();
    }
    let words: String = words.chars().take(WORDS_MAX).collect();
    words.escape_debug().to_string()
}

const WORDS_MAX: usize = 200;
