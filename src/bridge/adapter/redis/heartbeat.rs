//! Whether a connection lives: a PING each second, and an answer within two; ROLE where it must be a master.
//!
//! Owns: `Heartbeat`.
//! May depend on: `redis::{fault, link, sentinel}`, the crate `redis`, tokio.
//! Invariants: a stopped server is noticed within `EVERY` and `ANSWER_WITHIN`; a slow one that still
//! answers anything is not taken for dead.

use std::{future::Future, pin::Pin, time::Duration};

use redis::{RedisResult, Value, aio::MultiplexedConnection, cmd};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    super::news::Trouble,
    fault::{closed, silent},
    link::Server,
    sentinel::{is_master, no_master, role},
};

pub(in crate::bridge) struct Heartbeat {
    connection: MultiplexedConnection,
    ping: Option<Pin<Box<dyn Future<Output = RedisResult<Value>> + Send>>>,
    due: Instant,
    /// When it was last heard, or asked after a silence.
    heard_at: Instant,
    /// What had come unasked by then.
    received: u64,
}

impl Heartbeat {
    pub(in crate::bridge) fn new(connection: MultiplexedConnection) -> Self {
        let now = Instant::now();
        Self {
            connection,
            ping: None,
            due: now + EVERY,
            heard_at: now,
            received: 0,
        }
    }

    /// Something else was answered, which proves the same.
    pub(in crate::bridge) fn heard(&mut self) {
        self.heard_at = Instant::now();
    }

    /// Beats until the connection is dead. `received` grows with whatever comes unasked. The future
    /// may be dropped at any time, and another be made.
    pub(in crate::bridge) async fn until_dead(
        &mut self,
        server: &Server,
        received: impl Fn() -> u64,
    ) -> Trouble {
        loop {
            let Some(ping) = &mut self.ping else {
                sleep_until(self.due).await;
                let mut connection = self.connection.clone();
                let question = match server.is_master() {
                    true => role(),
                    false => cmd("PING"),
                };
                let ping = async move { connection.send_packed_command(&question).await };
                self.ping = Some(Box::pin(ping));
                self.heard();
                self.due = self.heard_at + EVERY;
                self.received = received();
                continue;
            };
            match timeout_at(self.heard_at + ANSWER_WITHIN, ping).await {
                Ok(Err(error)) if error.is_unrecoverable_error() => return closed(server),
                Ok(Ok(answer)) if server.is_master() && !is_master(&answer) => {
                    return no_master(server);
                }
                // An error, such as of a server that loads its data, is an answer.
                Ok(_) => {
                    self.ping = None;
                    self.heard();
                }
                Err(_) if received() == self.received => return silent(server),
                Err(_) => {
                    self.received = received();
                    self.heard();
                }
            }
        }
    }
}

const EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
