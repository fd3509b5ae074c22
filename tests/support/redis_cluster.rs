//! A Redis Cluster of the tests' own: masters, and replicas if wanted, each a server as in `redis`.

use std::time::{Duration, Instant};

use crate::certificates::Certificates;
use crate::redis::Redis;

/// Running servers. Dropping them kills the processes.
pub(crate) struct RedisCluster {
    pub(crate) masters: Vec<Redis>,
    /// The one with a number is the replica of the master with that number.
    pub(crate) replicas: Vec<Redis>,
}

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;
const MEETINGS_MAX: usize = 10;
const MET_WITHIN: Duration = Duration::from_secs(10);

impl RedisCluster {
    /// Three masters. `None` where the machine has no Redis.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[], 0)
    }

    /// Three masters with a replica each.
    pub(crate) fn start_with_replicas() -> Option<Self> {
        Self::start_with(&[], MASTERS)
    }

    /// Three masters that speak TLS to clients and to each other.
    pub(crate) fn start_with_tls(certificates: &Certificates) -> Option<Self> {
        Self::start_each(|| Redis::start_in_tls_cluster(certificates), 0)
    }

    /// Each server with more arguments.
    pub(crate) fn start_with(arguments: &[&str], replicas: usize) -> Option<Self> {
        Self::start_each(|| Redis::start_in_cluster(arguments), replicas)
    }

    fn start_each(start: impl Fn() -> Option<Redis>, replicas: usize) -> Option<Self> {
        let start = |_| start();
        let masters: Option<Vec<Redis>> = (0..MASTERS).map(start).collect();
        let replicas: Option<Vec<Redis>> = (0..replicas).map(start).collect();
        let mut cluster = Self {
            masters: masters?,
            replicas: replicas?,
        };
        cluster.form();
        Some(cluster)
    }

    fn form(&mut self) {
        for (number, master) in self.masters.iter_mut().enumerate() {
            let first = (SLOTS * number / MASTERS).to_string();
            let last = (SLOTS * (number + 1) / MASTERS - 1).to_string();
            master.command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        // By which they reach each other.
        let address = |it: &mut Redis| it.tls.unwrap_or(it.address);
        let addresses: Vec<_> = self.all().map(address).collect();
        for (number, server) in (1..).zip(self.all()) {
            // Without it they would settle by chance which epoch is whose.
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &number.to_string()]);
        }
        // A server forgets whom it is to meet if that takes longer than its time-out, as on a busy machine.
        for _ in 0..MEETINGS_MAX {
            for address in &addresses {
                let (host, port) = (address.ip().to_string(), address.port().to_string());
                self.masters[0].command(&["CLUSTER", "MEET", &host, &port]);
            }
            let until = Instant::now() + MET_WITHIN;
            while !self.is_whole() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            if self.is_whole() {
                break;
            }
        }
        self.is_well();
        let ids: Vec<String> = self.masters.iter_mut().map(id).collect();
        for (replica, master) in self.replicas.iter_mut().zip(&ids) {
            replica.command(&["CLUSTER", "REPLICATE", master]);
        }
        for replica in &mut self.replicas {
            until("a replica", || {
                replica
                    .command(&["INFO", "replication"])
                    .contains("master_link_status:up")
            });
        }
    }

    /// Waits until each server knows all others and believes that all slots are served.
    pub(crate) fn is_well(&mut self) {
        until("a cluster", || self.is_whole());
    }

    fn is_whole(&mut self) -> bool {
        let count = self.masters.len() + self.replicas.len();
        let known = format!("cluster_known_nodes:{count}\r");
        self.all().all(|server| {
            let info = server.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&known)
        })
    }

    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Redis> {
        self.masters.iter_mut().chain(&mut self.replicas)
    }

    /// Moves slots from one master to another, as `redis-cli --cluster reshard` does.
    pub(crate) fn moves(&mut self, slots: impl IntoIterator<Item = u16>, from: usize, to: usize) {
        let (source, target) = (id(&mut self.masters[from]), id(&mut self.masters[to]));
        for slot in slots {
            let slot = slot.to_string();
            let set = |server: &mut Redis, words: &[&str]| {
                server.command(&[&["CLUSTER", "SETSLOT", &slot], words].concat());
            };
            set(&mut self.masters[to], &["IMPORTING", &source]);
            set(&mut self.masters[from], &["MIGRATING", &target]);
            set(&mut self.masters[to], &["NODE", &target]);
            set(&mut self.masters[from], &["NODE", &target]);
        }
    }

    /// As `kill -9` of all.
    pub(crate) fn kill(&mut self) {
        self.all().for_each(Redis::kill);
    }

    /// After `kill`: the same cluster on the same ports.
    pub(crate) fn start_again(&mut self) {
        self.all().for_each(Redis::start_again);
        self.is_well();
    }

    /// `STOP` or `CONT` to all.
    pub(crate) fn signal(&self, signal: &str) {
        let all = self.masters.iter().chain(&self.replicas);
        all.for_each(|server| server.signal(signal));
    }
}

fn id(server: &mut Redis) -> String {
    let answer = server.command(&["CLUSTER", "MYID"]);
    answer.lines().last().expect("an id").to_owned()
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
