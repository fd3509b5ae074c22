//! Commands to a Redis that nodes share: of caches, limits and queues. The bus has roads of its own.
//!
//! Owns: `RedisCommands`, `CommandsSetup`, `Asked`, `CommandFault`; `kept` (one connection), `cluster` (masters by
//! slot).
//! May depend on: `adapter::{redis, redis_cluster}` for how connections are made and masters found,
//! `bridge::tls`, `config::secret`, `metrics::backend`, the crate `redis`, tokio.
//! Invariants: a question waits neither for a connection that is gone nor beyond its deadline; a
//! connection that ended or is silent is made anew, for ever; what may have been carried out is not
//! sent again.

mod cluster;
#[cfg(test)]
pub(super) mod fixture;
mod kept;

use std::{sync::Arc, time::Duration};

use redis::{Cmd, Pipeline, ServerError, Value};

use self::{cluster::Cluster, kept::Kept};
pub use super::adapter::redis_cluster::members::ClusterServers;
use super::adapter::{
    BusError,
    redis::{
        RedisServer,
        link::{Keys, Server, uses_tls},
        sentinel::{SentinelSetup, Sentinels},
    },
    redis_cluster::members::Members,
};
use crate::{
    bridge::tls::{TlsClient, TlsFiles},
    config::Secret,
    metrics::backend::{Fault, Meter, Role},
};

/// Whom to ask.
#[derive(Clone, Debug)]
pub enum CommandsSetup {
    One(OneServer),
    Cluster(ClusterServers),
}

/// One server, or the master that Sentinels name.
#[derive(Clone, Debug)]
pub struct OneServer {
    /// Where no URL says it.
    pub server: RedisServer,
    pub sentinels: Option<SentinelSetup>,
    pub url: Option<Secret>,
    pub tls: TlsFiles,
}

/// What a section of the configuration asks, if it asks anybody.
#[derive(Debug)]
pub struct Asked {
    pub setup: Option<CommandsSetup>,
    pub purpose: Purpose,
}

/// What is asked, for sentences and logs.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// `cache`, `rate limiter`, `webhook queue`.
    pub name: &'static str,
    /// The same for metrics.
    pub role: Role,
    /// The key of a URL of its own.
    pub url: &'static str,
    /// The key that names nodes of a cluster.
    pub nodes: &'static str,
    /// The key of the driver.
    pub driver: &'static str,
    /// What a user must be allowed.
    pub commands: &'static str,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// Nothing was sent.
    #[error("{0}")]
    Down(String),
    /// It was sent: it may have been carried out, or may yet be.
    #[error("{0}")]
    Unknown(String),
}

/// Connections for one purpose. A clone shares them; they end with the last one.
#[derive(Clone, Debug)]
pub struct RedisCommands {
    reach: Arc<Reach>,
    meter: Meter,
}

#[derive(Debug)]
enum Reach {
    One(Kept),
    Cluster(Cluster),
}

impl CommandsSetup {
    /// In labels and logs.
    pub const fn backend(&self) -> &'static str {
        match self {
            Self::One(_) => "redis",
            Self::Cluster(_) => "redis_cluster",
        }
    }

    /// Whether they could ever be sent, without connecting: what `RedisCommands::start` looks at first.
    ///
    /// # Errors
    /// As `RedisCommands::start`.
    pub fn check(&self, purpose: Purpose) -> Result<(), BusError> {
        match self {
            Self::One(setup) => server(setup, purpose).map(drop),
            Self::Cluster(servers) => Members::new(servers, Keys::of_cluster(purpose)).map(drop),
        }
    }
}

impl Asked {
    /// Starts to connect, and how the server is called; `None` where nobody is asked.
    ///
    /// # Errors
    /// As `RedisCommands::start`.
    pub fn start(&self) -> Result<Option<(RedisCommands, &'static str)>, BusError> {
        let start = |setup: &CommandsSetup| {
            let commands = RedisCommands::start(setup, self.purpose)?;
            Ok((commands, setup.backend()))
        };
        self.setup.as_ref().map(start).transpose()
    }

    /// Whether `start` could ever succeed.
    ///
    /// # Errors
    /// As `CommandsSetup::check`.
    pub fn check(&self) -> Result<(), BusError> {
        let setup = self.setup.as_ref();
        setup.map_or(Ok(()), |setup| setup.check(self.purpose))
    }
}

impl RedisCommands {
    /// Starts to connect in the background. Needs a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// When the configuration cannot be right: a URL that is none, a certificate that cannot be read.
    pub fn start(setup: &CommandsSetup, purpose: Purpose) -> Result<Self, BusError> {
        let meter = Meter::new(setup.backend(), purpose.role);
        let reach = match setup {
            CommandsSetup::One(setup) => {
                let server = server(setup, purpose)?;
                Reach::One(Kept::start(server, purpose.name, meter.clone()))
            }
            CommandsSetup::Cluster(servers) => {
                let members = Members::new(servers, Keys::of_cluster(purpose))?;
                Reach::Cluster(Cluster::start(members, purpose.name, meter.clone()))
            }
        };
        let reach = Arc::new(reach);
        Ok(Self { reach, meter })
    }

    /// What is counted of the server. How long answers take whoever asks says.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What the server says to each of the commands, which all concern keys of the slot of `key`. An
    /// answer may be an error of its own.
    ///
    /// # Errors
    /// When they cannot be sent, or are not answered `within`.
    pub async fn run(
        &self,
        key: &str,
        commands: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Value>, CommandFault> {
        let answers = match &*self.reach {
            Reach::One(kept) => kept.run(commands, within).await,
            Reach::Cluster(cluster) => cluster.run(key, commands, within).await,
        };
        answers.iter().flatten().for_each(|it| self.count(it));
        answers
    }

    /// What is said to commands that concern a key each, in as few round trips as there are servers.
    /// They are carried out in any order.
    pub async fn run_each(
        &self,
        commands: Vec<(String, Cmd)>,
        within: Duration,
    ) -> Vec<Result<Value, CommandFault>> {
        let answers = match &*self.reach {
            Reach::One(kept) => kept.run_each(&commands, within).await,
            Reach::Cluster(cluster) => cluster.run_each(&commands, within).await,
        };
        answers.iter().flatten().for_each(|it| self.count(it));
        answers
    }

    /// Of an answer that is an error, what it is.
    fn count(&self, answer: &Value) {
        let Value::ServerError(error) = answer else {
            return;
        };
        match error.code() {
            "NOSCRIPT" => {} // It is sent whole then.
            "NOAUTH" | "WRONGPASS" => self.meter.failed(Fault::Auth),
            _ if is_forbidden(error) => self.meter.failed(Fault::Auth),
            _ => self.meter.failed(Fault::Protocol),
        }
    }

    /// Why it does not answer; `None` while it does.
    pub fn trouble(&self) -> Option<String> {
        match &*self.reach {
            Reach::One(kept) => kept.trouble(),
            Reach::Cluster(cluster) => cluster.trouble(),
        }
    }

    /// Why it does not answer, where another try will not mend that: who we are, how we come, what we ask for.
    pub fn refusal(&self) -> Option<String> {
        match &*self.reach {
            Reach::One(kept) => kept.refusal(),
            Reach::Cluster(cluster) => cluster.refusal(),
        }
    }
}

fn server(setup: &OneServer, purpose: Purpose) -> Result<Server, BusError> {
    let (url, keys) = (setup.url.as_ref(), Keys::of_one(purpose));
    let is_tls = uses_tls(url, &setup.server);
    let tls = is_tls.then(|| TlsClient::read(&setup.tls)).transpose()?;
    let server = Server::new(url, &setup.server, keys, tls.as_ref())?;
    let sentinels = setup.sentinels.as_ref();
    let sentinels = sentinels.filter(|it| !it.sentinels.is_empty() && url.is_none());
    let Some(sentinels) = sentinels else {
        return Ok(server);
    };
    let sentinels = Sentinels::new(sentinels, &setup.server, keys, tls.as_ref())?;
    Ok(server.by(sentinels))
}

/// The user lacks a right. Where a script finds that out it is said in words alone: the first of Redis 7.0, the second of
/// later ones.
pub fn is_forbidden(error: &ServerError) -> bool {
    let words = ["The user executing the script can't", "ACL failure"];
    let details = error.details().unwrap_or_default();
    error.code() == "NOPERM" || words.iter().any(|it| details.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_known_by_its_code_and_in_the_words_of_a_script() {
        for (line, is_expected) in [
            (
                "NOPERM this user has no permissions to run the 'evalsha' command",
                true,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 71923a30, on \
                 @user_script:1.",
                true,
            ),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned in the \
                 command arguments script: 0c2b09c0, on @user_script:1.",
                true,
            ),
            (
                "ERR ACL failure in script: No permissions to access a key",
                true,
            ),
            ("NOAUTH Authentication required.", false),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                false,
            ),
            ("ERR value is not an integer or out of range", false),
        ] {
            let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
            let Ok(Value::ServerError(error)) = answer else {
                panic!("{line}: {answer:?}");
            };
            assert_eq!(is_forbidden(&error), is_expected, "{line}");
        }
    }
}
