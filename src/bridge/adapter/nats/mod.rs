//! The bus on servers of NATS: PUB and SUB, and a message to oneself as proof.
//!
//! Owns: `NatsBus`, `NatsSetup`; `server` (where to, as whom), `login` (who we are), `login_file` (what says so), `link` (one connection), `probe` (whether it
//! lives, and what it proves), `publisher`, `subscriber`, `witness` (whether other servers know), `fault` (what an
//! error means).
//! May depend on: the rest of `adapter`, `bridge::tls`, `cluster::topic`, `config::secret`, the crate
//! `async-nats`, tokio.
//! Invariants: each road has a publishing and a subscribing connection of its own; each is made anew by
//! us when it ends or is silent, for ever. The crate's own reconnecting is cut off: it sends what is old,
//! and says *connected* before anything is subscribed again.

mod fault;
mod link;
mod login;
mod login_file;
mod probe;
mod publisher;
mod server;
mod subscriber;
mod witness;

use std::{sync::Arc, time::Duration};

use async_nats::Subject;
use tokio::{task::JoinSet, time::timeout};

pub use self::login_file::LoginFileError;
use self::{server::Servers, witness::Witnesses};
use super::{BusError, roads::Roads};
use crate::{
    bridge::tls::TlsFiles,
    cluster::{
        identity::NodeId,
        topic::{Topic, TopicNames},
    },
    config::Secret,
};

/// What the configuration says of the bus.
#[derive(Clone, Debug)]
pub struct NatsSetup {
    /// `adapter.nats.servers`: URLs, or hosts with or without a port.
    pub servers: Vec<Secret>,
    /// `adapter.nats.prefix`.
    pub prefix: String,
    /// Used where the URL names nobody, and only both.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Used without the two.
    pub token: Option<Secret>,
    /// `adapter.nats.creds_file` and `adapter.nats.nkey_seed_file`: instead of those, and only one. Read at the
    /// start and before each connection.
    pub creds_file: Option<String>,
    pub nkey_seed_file: Option<String>,
    /// `adapter.nats.tls.required`: also of servers that do not ask for it.
    pub tls_required: bool,
    /// `adapter.nats.tls`.
    pub tls: TlsFiles,
    /// The cluster's name.
    pub cluster: String,
    /// Of this node.
    pub node: NodeId,
    /// Of each direction of each road. At least one batch fits.
    pub queue_bytes_max: usize,
    /// `adapter.nats.connection_timeout_ms`.
    pub connect_within: Duration,
    /// `adapter.nats.request_timeout_ms`: what was sent and not proven for so long is given up.
    pub timeout: Duration,
}

/// Our connections to servers of NATS.
#[derive(Debug)]
pub struct NatsBus {
    pub(super) roads: Roads,
    // Dropping a set ends its tasks.
    publishers: JoinSet<()>,
    subscribers: JoinSet<()>,
}

/// What one connection of a road works with.
#[derive(Clone)]
struct Duty {
    servers: Arc<Servers>,
    subjects: Arc<Subjects>,
    witnesses: Witnesses,
    timeout: Duration,
}

/// The names of all topics, as the crate wants them.
struct Subjects {
    names: TopicNames,
    /// By lane.
    subjects: Box<[Subject]>,
}

impl Subjects {
    fn new(names: TopicNames) -> Self {
        let subject = |topic| Subject::from(names.name(topic).to_owned());
        Self {
            subjects: Topic::all().map(subject).collect(),
            names,
        }
    }

    /// Costs a count of references.
    fn of(&self, topic: Topic) -> Subject {
        let subject = self.subjects.get(usize::from(topic.lane().0));
        subject.expect("every lane has a subject").clone()
    }

    fn topic(&self, subject: &str) -> Option<Topic> {
        self.names.topic(subject.as_bytes())
    }

    fn stem(&self) -> &str {
        self.names.stem()
    }
}

impl NatsBus {
    pub(super) fn check(setup: &NatsSetup) -> Result<(), BusError> {
        servers_and_names(setup).map(drop)
    }

    pub(super) fn start(setup: NatsSetup) -> Result<Self, BusError> {
        let (servers, names) = servers_and_names(&setup)?;
        let servers = Arc::new(servers);
        let witnesses = Witnesses::new(names.stem(), servers.count());
        let duty = Duty {
            servers,
            witnesses,
            subjects: Arc::new(Subjects::new(names)),
            timeout: setup.timeout,
        };
        let (roads, ends) = Roads::new("nats", setup.queue_bytes_max);
        let mut publishers = JoinSet::new();
        let mut subscribers = JoinSet::new();
        for ends in ends {
            publishers.spawn(publisher::run(duty.clone(), ends.publisher));
            subscribers.spawn(subscriber::run(duty.clone(), ends.subscriber));
        }
        for number in 0..duty.witnesses.count() {
            subscribers.spawn(witness::run(duty.clone(), number));
        }
        Ok(Self {
            roads,
            publishers,
            subscribers,
        })
    }

    pub(super) async fn close(self) {
        let Self {
            roads,
            mut publishers,
            subscribers,
        } = self;
        drop(subscribers);
        // Without the bridge's end a publisher sends what is queued, and ends.
        drop(roads);
        let all = async { while publishers.join_next().await.is_some() {} };
        if timeout(CLOSE_WITHIN, all).await.is_err() {
            tracing::warn!("the bus between nodes: not all that was queued could be sent");
        }
    }
}

fn servers_and_names(setup: &NatsSetup) -> Result<(Servers, TopicNames), BusError> {
    let servers = Servers::new(setup)?;
    let names = TopicNames::nats(&setup.prefix, &setup.cluster).of_node(setup.node);
    let bytes = names.stem().len();
    if bytes > STEM_BYTES_MAX {
        let max = STEM_BYTES_MAX;
        return Err(BusError::LongSubjects { bytes, max });
    }
    Ok((servers, names))
}

const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// A longer line than a server takes (4 096 bytes unless set) would end the connection.
const STEM_BYTES_MAX: usize = 512;
