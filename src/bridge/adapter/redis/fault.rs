//! What an error of a Redis server means for an operator.
//!
//! Owns: the sentences.
//! May depend on: `adapter::news`, `redis::link`, the crate `redis`.
//! Invariants: a sentence names the key and what to do; a server's own words are shown only where
//! they cannot hold the password, bounded and escaped.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{
    super::news::{Trouble, TroubleKind},
    link::Server,
};

/// Of a connection that was not made, or has ended.
pub(in crate::bridge::adapter) fn fault(error: &RedisError, server: &Server) -> Trouble {
    let (at, keys) = (server.address(), server.keys());
    let (kind, sentence) = match (error.kind(), error.code()) {
        (_, Some("WRONGPASS")) => (
            TroubleKind::Login,
            format!(
                "Redis at {at} refuses this user and password: set {}",
                keys.login
            ),
        ),
        (_, Some("NOAUTH")) => (
            TroubleKind::Login,
            format!("Redis at {at} wants a password: set {}", keys.login),
        ),
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => (
            TroubleKind::Permission,
            format!(
                "Redis at {at} does not let this user do all that is needed: allow it {}, or set \
                 another one ({})",
                keys.commands, keys.login
            ),
        ),
        _ if is_without_hello(error) => (
            TroubleKind::Protocol,
            format!(
                "Redis at {at} does not speak RESP3: needs Redis {} or later ({})",
                keys.release, keys.address
            ),
        ),
        (ErrorKind::Server(ServerErrorKind::ResponseError), _) if is_select(error) => (
            TroubleKind::Database,
            format!(
                "Redis at {at} does not give us database {}: set {} ({})",
                server.database(),
                keys.database,
                words(error, server)
            ),
        ),
        (ErrorKind::Io | ErrorKind::InvalidClientConfig, _) => (
            TroubleKind::Unreachable,
            format!(
                "Redis at {at} cannot be reached ({}): {}",
                keys.address,
                words(error, server)
            ),
        ),
        _ => (
            TroubleKind::Refused,
            format!(
                "Redis at {at} refuses us ({}): {}",
                keys.address,
                words(error, server)
            ),
        ),
    };
    Trouble { kind, sentence }
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

/// The crate says it in words only.
fn is_select(error: &RedisError) -> bool {
    error.to_string().contains("switch database")
}

/// Of a command that was not allowed, on a connection that stands.
pub(in crate::bridge::adapter) fn denied(
    what: &str,
    stem: &str,
    error: &RedisError,
    server: &Server,
) -> Trouble {
    let (at, login) = (server.address(), server.keys().login);
    let sentence = if is_unknown_command(error) {
        let release = server.keys().release;
        format!("Redis at {at} does not know {what}: needs Redis {release} or later")
    } else if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
        format!(
            "Redis at {at} does not let this user {what} on {stem}*: allow it (ACL SETUSER … \
             +{what} &{stem}*), or set another one ({login})"
        )
    } else {
        format!("Redis at {at} refuses to {what}: {}", words(error, server))
    };
    Trouble {
        kind: TroubleKind::Permission,
        sentence,
    }
}

pub(in crate::bridge::adapter) fn closed(server: &Server) -> Trouble {
    Trouble {
        kind: TroubleKind::Closed,
        sentence: format!("Redis at {} has closed the connection", server.address()),
    }
}

pub(in crate::bridge::adapter) fn silent(server: &Server) -> Trouble {
    Trouble {
        kind: TroubleKind::Silent,
        sentence: format!("Redis at {} does not answer", server.address()),
    }
}

pub(in crate::bridge::adapter) fn words(error: &RedisError, server: &Server) -> String {
    let words = error.to_string();
    if server.is_leaked_by(&words) {
        return "its words hold the password".to_owned();
    }
    let words: String = words.chars().take(WORDS_MAX).collect();
    words.escape_debug().to_string()
}

const WORDS_MAX: usize = 200;
