//! Which server is the master, as Sentinels have it.
//!
//! Owns: `SentinelSetup`, `Sentinels`; what a server says of its own role.
//! May depend on: `redis::{fault, link}`, `adapter`, `bridge::tls`, `config::secret`, the crate `redis`, tokio.
//! Invariants: each of our connections is to a server that called itself master after a Sentinel named it,
//! and is left within a heartbeat when it does not any more: a replica takes what is published, and
//! nobody but its own subscribers hears it.

use std::time::Duration;

use redis::{Cmd, Value, cmd};
use tokio::time::timeout;

use super::{
    super::{
        BusError,
        news::{Trouble, TroubleKind},
    },
    RedisServer,
    fault::{denied_command, fault, silent},
    link::{Keys, Server, Standing},
};
use crate::{bridge::tls::TlsClient, config::Secret};

/// What the configuration says of Sentinels.
#[derive(Clone, Debug)]
pub struct SentinelSetup {
    /// `database.redis.sentinels`, by host and port. Asked in this order.
    pub sentinels: Vec<(String, u16)>,
    /// `database.redis.sentinel_password`.
    pub password: Option<Secret>,
    /// `database.redis.name`: what they call the master.
    pub name: String,
}

/// Whom to ask for the master, and who we are there.
pub(in crate::bridge) struct Sentinels {
    sentinels: Vec<Server>,
    name: String,
    /// But for host and port.
    master: RedisServer,
    keys: Keys,
    tls: Option<TlsClient>,
}

impl Sentinels {
    pub(in crate::bridge) fn new(
        setup: &SentinelSetup,
        master: &RedisServer,
        keys: Keys,
        tls: Option<&TlsClient>,
    ) -> Result<Self, BusError> {
        let sentinel = |(host, port): &(String, u16)| {
            let server = RedisServer {
                host: host.clone(),
                port: *port,
                uses_tls: master.uses_tls,
                database: 0,
                username: None,
                password: setup.password.clone(),
            };
            Server::new(None, &server, Keys::SENTINEL, tls)
        };
        let sentinels: Result<Vec<_>, _> = setup.sentinels.iter().map(sentinel).collect();
        Ok(Self {
            sentinels: sentinels?,
            name: setup.name.clone(),
            master: master.clone(),
            keys: keys.of_sentinels(),
            tls: tls.cloned(),
        })
    }

    /// A connection to the master. Each turn begins with another Sentinel, since one that was cut off names
    /// the master that was.
    pub(super) async fn connect(
        &self,
        turn: usize,
        on_push: impl super::link::OnPush,
    ) -> Result<Standing, Trouble> {
        let server = self.master(turn).await?;
        let mut standing = server.attempt(on_push).await?;
        let question = role();
        let asked = standing.connection.send_packed_command(&question);
        let answer = timeout(ANSWER_WITHIN, asked).await;
        let answer = answer.map_err(|_| silent(&server))?;
        let answer = answer.map_err(|error| denied_command("role", &error, &server))?;
        match is_master(&answer) {
            true => Ok(standing),
            false => Err(no_master(&server)),
        }
    }

    async fn master(&self, turn: usize) -> Result<Server, Trouble> {
        let (before, after) = self.sentinels.split_at(turn % self.sentinels.len());
        let mut told: Option<Trouble> = None;
        for sentinel in after.iter().chain(before) {
            let asked = timeout(ANSWER_WITHIN, self.ask(sentinel)).await;
            match asked.unwrap_or_else(|_| Err(silent(sentinel))) {
                Ok((host, port)) => return self.server(host, port),
                Err(trouble) => {
                    // That one is gone says less than that another does not let us in.
                    let is_gone = trouble.kind.is_like(TroubleKind::Unreachable);
                    if told.is_none() || !is_gone {
                        told = Some(trouble);
                    }
                }
            }
        }
        let mut trouble = told.expect("there is one at least");
        if trouble.kind.is_like(TroubleKind::Unreachable) {
            trouble.sentence = format!("no Sentinel answers: {}", trouble.sentence);
        }
        Err(trouble)
    }

    async fn ask(&self, sentinel: &Server) -> Result<(String, u16), Trouble> {
        let mut standing = sentinel.attempt(|_| Ok(())).await?;
        let mut question = cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.name);
        let asked = standing.connection.send_packed_command(&question).await;
        let answer = asked.map_err(|error| fault(&error, sentinel))?;
        let (at, name) = (sentinel.address(), &self.name);
        let refused = |sentence| Trouble {
            kind: TroubleKind::Refused,
            sentence,
        };
        if answer == Value::Nil {
            return Err(refused(format!(
                "{at} knows no master {name:?}: set database.redis.name"
            )));
        }
        let strange = || {
            refused(format!(
                "{at} says nothing that we understand of the master (database.redis.sentinels)"
            ))
        };
        read_address(&answer).ok_or_else(strange)
    }

    fn server(&self, host: String, port: u16) -> Result<Server, Trouble> {
        let server = RedisServer {
            host,
            port,
            ..self.master.clone()
        };
        let server = Server::new(None, &server, self.keys, self.tls.as_ref());
        // What a Sentinel calls a host may be none.
        let server = server.map_err(|error| Trouble {
            kind: TroubleKind::Refused,
            sentence: format!("a Sentinel names no server as master: {error}"),
        })?;
        Ok(server.into_master())
    }
}

pub(super) fn role() -> Cmd {
    cmd("ROLE")
}

/// By the answer to `role`.
pub(super) fn is_master(answer: &Value) -> bool {
    let Value::Array(parts) = answer else {
        return false;
    };
    parts.first().and_then(text) == Some("master")
}

pub(super) fn no_master(server: &Server) -> Trouble {
    let at = server.address();
    Trouble {
        // Another one takes its place.
        kind: TroubleKind::Closed,
        sentence: format!("{at} is no master: the Sentinels are asked again"),
    }
}

fn read_address(answer: &Value) -> Option<(String, u16)> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let [host, port] = parts.as_slice() else {
        return None;
    };
    let host = text(host)?;
    let port = text(port)?.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

fn text(value: &Value) -> Option<&str> {
    let Value::BulkString(bytes) = value else {
        return None;
    };
    str::from_utf8(bytes).ok()
}

/// Of each Sentinel, its connection included, and of the master when it is asked for its role.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn an_address_is_a_host_and_a_port_and_nothing_else() {
        let read = |parts: &[Value]| read_address(&Value::Array(parts.to_vec()));
        let at = |host: &str| Some((host.to_owned(), 6_379));
        assert_eq!(read(&[bytes("10.0.0.5"), bytes("6379")]), at("10.0.0.5"));
        assert_eq!(read(&[bytes("::1"), bytes("6379")]), at("::1"));
        for wrong in [
            &[][..],
            &[bytes("h")],
            &[bytes(""), bytes("1")],
            &[bytes("h"), bytes("0")],
            &[bytes("h"), bytes("65536")],
            &[bytes("h"), bytes("-1")],
            &[bytes("h"), Value::Nil],
            &[Value::BulkString(vec![0xFF]), bytes("1")],
            &[bytes("h"), bytes("1"), bytes("2")],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(read_address(&Value::Nil), None);
    }

    #[test]
    fn only_who_says_master_is_one() {
        let said = |word: &str| Value::Array(vec![bytes(word), Value::Int(1)]);
        assert!(is_master(&said("master")));
        for other in [
            said("slave"),
            said("sentinel"),
            Value::Okay,
            Value::Array(vec![]),
        ] {
            assert!(!is_master(&other), "{other:?}");
        }
    }
}
