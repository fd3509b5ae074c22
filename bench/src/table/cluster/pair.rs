//! Nodes of one subject with a bus between them, mostly two, and what they and the bus use.
//!
//! Owns: `Pair`, `Reading`, what a node counts itself (`Counts`).
//! May depend on: `bus`, `subjects`, `cpu`, `rig`.
//! Invariants: nodes are numbered from 1 on the bus, from 0 here; the first is published to; a node that has
//! no bridge of ours has no reading of one.

use std::{io, net::SocketAddr, time::Duration};

use super::bus::{Bus, Engine, Signs};
use crate::{
    cpu::{self, Usage},
    rig::Rig,
    table::subjects::{Needs, Running, Subject, ask},
    target::Target,
};

/// How a pair is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) engine: Engine,
    pub(super) signs: Signs,
    pub(super) seconds: u64,
    pub(super) step: Duration,
}

impl Setup {
    pub(super) fn rig(&self, target: &Target) -> Rig {
        Rig {
            target: target.clone(),
            seconds: self.seconds,
            step: self.step,
            tag: "bus".to_owned(),
            in_bursts: false,
            is_traced: false,
        }
    }
}

/// The nodes that run; the bus outlives them.
pub(super) struct Pair {
    nodes: Vec<Running>,
    pub(super) bus: Bus,
}

/// What was used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) nodes: [Usage; 2],
    /// Threads that speak with the bus; of ours only.
    pub(super) bridges: Option<[Duration; 2]>,
    pub(super) bus: Usage,
}

impl Pair {
    /// So many nodes.
    pub(super) fn start(subject: &Subject, setup: &Setup, nodes: u8) -> Result<Self, String> {
        let bus = Bus::start(setup.engine).map_err(|error| error.to_string())?;
        let mut pair = Self {
            nodes: Vec::new(),
            bus,
        };
        for _ in 0..nodes {
            pair.add_node(subject, setup)?;
        }
        Ok(pair)
    }

    /// The next node, ready to be asked.
    pub(super) fn add_node(&mut self, subject: &Subject, setup: &Setup) -> Result<(), String> {
        let number = u8::try_from(self.nodes.len() + 1).map_err(|error| error.to_string())?;
        let needs = Needs {
            metrics: true,
            is_unlimited: true,
            seat: Some(self.bus.seat(number, setup.signs)),
            ..Needs::default()
        };
        let node = subject.start(needs).map_err(|error| error.to_string())?;
        self.nodes.push(node);
        Ok(())
    }

    pub(super) fn target(&self, node: usize) -> &Target {
        &self.nodes[node].target
    }

    pub(super) fn reading(&self) -> io::Result<Reading> {
        let pid = |node: usize| self.nodes[node].target.pid.unwrap_or_default();
        let bridge = |node: usize| cpu::cpu_of_thread(pid(node), "bridge");
        Ok(Reading {
            nodes: [Usage::of(pid(0))?, Usage::of(pid(1))?],
            bridges: bridge(0)
                .zip(bridge(1))
                .map(|(first, second)| [first, second]),
            bus: self.bus.usage()?,
        })
    }

    pub(super) fn usage_of(&self, node: usize) -> io::Result<Usage> {
        Usage::of(self.nodes[node].target.pid.unwrap_or_default())
    }

    /// What a node has counted itself; nothing of one that is not ours.
    pub(super) fn counts(&self, node: usize) -> io::Result<Option<Counts>> {
        let node = &self.nodes[node];
        node.metrics
            .map(|metrics| Counts::read(&node.target, metrics))
            .transpose()
    }
}

impl Reading {
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let node = |at: usize| self.nodes[at].since(&earlier.nodes[at]);
        let bridges = self.bridges.zip(earlier.bridges).map(|(late, early)| {
            let of = |at: usize| late[at].saturating_sub(early[at]);
            [of(0), of(1)]
        });
        Self {
            nodes: [node(0), node(1)],
            bridges,
            bus: self.bus.since(&earlier.bus),
        }
    }
}

/// Some of the metrics of a node of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) batches_out: f64,
    pub(super) bytes_out: f64,
    pub(super) bytes_in: f64,
    pub(super) deltas_in: f64,
    pub(super) snapshots_in: f64,
    /// Partitions of peers of which something is missing.
    pub(super) behind: f64,
    /// Nodes that live, itself included.
    pub(super) live: f64,
}

impl Counts {
    fn read(target: &Target, metrics: SocketAddr) -> io::Result<Self> {
        let (_, body) = ask(metrics, None, &target.plain_request("/metrics"))?;
        Ok(Self::parse(&String::from_utf8_lossy(&body)))
    }

    fn parse(text: &str) -> Self {
        let of = |name: &str, label: &str| {
            let is_it = |series: &str| {
                let labels = series.strip_prefix("sockudo_cluster_");
                let labels = labels.and_then(|rest| rest.strip_prefix(name));
                labels.is_some_and(|labels| labels.starts_with('{') && labels.contains(label))
            };
            let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
            let values = lines.filter(|(series, _)| is_it(series));
            values.filter_map(|(_, it)| it.parse::<f64>().ok()).sum()
        };
        let (out, into) = (r#"direction="out""#, r#"direction="in""#);
        Self {
            batches_out: of("batches_total", out),
            bytes_out: of("bytes_total", out),
            bytes_in: of("bytes_total", into),
            deltas_in: of("messages_total", r#"direction="in",kind="delta""#),
            snapshots_in: of("snapshots_total", into),
            behind: of("partitions_behind", ""),
            live: of("nodes", r#"state="live""#),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_their_direction() {
        let text = "# TYPE sockudo_cluster_batches_total counter\n\
            sockudo_cluster_batches_total{direction=\"in\",node=\"a\"} 7\n\
            sockudo_cluster_batches_total{direction=\"out\",node=\"a\"} 5\n\
            sockudo_cluster_bytes_total{direction=\"out\",node=\"a\"} 500\n\
            sockudo_cluster_nodes{node=\"a\",state=\"live\"} 2\n\
            sockudo_cluster_nodes{node=\"a\",state=\"suspect\"} 1\n\
            sockudo_cluster_partitions_behind{node=\"a\"} 3\n";
        let expected = Counts {
            batches_out: 5.0,
            bytes_out: 500.0,
            behind: 3.0,
            live: 2.0,
            ..Counts::default()
        };
        assert_eq!(Counts::parse(text), expected);
    }
}
