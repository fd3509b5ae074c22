//! What nodes tell each other, and what each stores and hears, by the number of nodes: the pure part of the
//! cluster alone, on a bus that is there and loses nothing.
//!
//! The first node hears all others, and they hear only it: what one hears does not depend on what the others
//! hear of each other, and a hundred nodes cost a hundred times as much as one, not ten thousand.
//!
//! `SCALE` asks for the sizes of the tables in `docs/performance.md`; `scripts/soak --scale` does.

use std::{sync::Arc, time::Instant};

use shards::application::Millis;
use sockudo::{
    cluster::{
        identity::{ClusterTag, Identity, Incarnation, NodeId},
        ledger::{Own, OwnChange},
        mac::Secrets,
        membership::Times,
        node::{Node, Setup},
        topic::Topic,
        wire::Version,
    },
    protocol::partition::AppPartitions,
};

use crate::node::Node as Simulated;

const TIMES: Times = Times {
    lease_ms: 5_000,
    heartbeat_ms: 1_000,
    canary_ms: 1_000,
};
/// A bridge that is awake takes what its shards have said, at least so often while there is something.
const TURN_MS: u64 = 10;
/// Rows that a bridge looks at in one turn.
const WORK_MAX: usize = 4_096;

/// How much there is of everything, in the whole cluster.
#[derive(Clone, Copy, Debug)]
struct Size {
    nodes: usize,
    /// Each on one node.
    channels: usize,
    /// Each on all nodes.
    shared: usize,
    /// Of those on one node, so many come and as many go in a second.
    churn_per_s: usize,
    seconds: u64,
}

struct Scale {
    size: Size,
    now: u64,
    nodes: Vec<Node>,
    partitions: AppPartitions,
    /// What the first node heard of others, and said.
    heard: Tally,
    said: Tally,
    /// What others said while the first one was told nothing.
    comings: usize,
    goings: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tally {
    batches: u64,
    bytes: u64,
    /// Real time that it took.
    cpu_s: f64,
}

impl Tally {
    fn since(self, earlier: Self) -> Self {
        Self {
            batches: self.batches - earlier.batches,
            bytes: self.bytes - earlier.bytes,
            cpu_s: self.cpu_s - earlier.cpu_s,
        }
    }
}

fn node(number: usize, now: u64) -> Node {
    let name = format!("node-{number}");
    let setup = Setup {
        identity: Identity {
            node: NodeId::of_name(&name),
            incarnation: Incarnation(1),
        },
        name,
        program: "simulated".to_owned(),
        cluster: ClusterTag::of_name("scale"),
        secrets: Secrets::new(["between nodes"]),
        version: Version::OURS,
        times: TIMES,
        hasher: Simulated::homes(number as u64),
        view_bytes_max: 8 << 30,
    };
    Node::new(Millis(now), setup)
}

/// As long as names of channels often are.
fn name_of(channel: usize) -> Arc<str> {
    format!("private-orders.{channel:09}").into()
}

impl Scale {
    fn new(size: Size) -> Self {
        Self {
            nodes: (0..size.nodes).map(|number| node(number, 0)).collect(),
            size,
            now: 0,
            partitions: AppPartitions::of_app("app"),
            heard: Tally::default(),
            said: Tally::default(),
            comings: 0,
            goings: 0,
        }
    }

    fn counts(&mut self, node: usize, channel: usize, count: u32) {
        let name = name_of(channel);
        let own = Own {
            partition: self.partitions.of_channel(&name),
            app: "app",
            name: &name,
            change: OwnChange::Subscriptions(count),
        };
        self.nodes[node].report(Millis(self.now), &own);
    }

    /// On which node a channel is that is only on one.
    fn place(&self, channel: usize) -> usize {
        channel % self.size.nodes
    }

    /// All channels are there, and everybody knows of them.
    fn fill(&mut self) {
        self.turns(3_000);
        const AT_ONCE: usize = 5_000;
        for channel in 0..self.size.channels {
            self.counts(self.place(channel), channel, 1);
            if channel % AT_ONCE == 0 {
                self.turn();
            }
        }
        for channel in 0..self.size.shared {
            for node in 0..self.size.nodes {
                self.counts(node, usize::MAX - channel, 1);
            }
            self.turn();
        }
        (self.comings, self.goings) = (self.size.channels, 0);
        self.turns(3_000);
    }

    /// Channels come and go evenly, the oldest first.
    fn churn(&mut self) {
        let ends = self.now + self.size.seconds * 1_000;
        let began = self.now;
        let mut done = 0;
        while self.now < ends {
            let due = (self.now - began + TURN_MS) as usize * self.size.churn_per_s / 1_000;
            while done < due {
                done += 1;
                let (came, went) = (self.comings, self.goings);
                self.counts(self.place(came), came, 1);
                self.counts(self.place(went), went, 0);
                self.comings += 1;
                self.goings += 1;
            }
            self.turn();
        }
    }

    fn turns(&mut self, ms: u64) {
        let ends = self.now + ms;
        while self.now < ends {
            self.turn();
        }
    }

    /// Each node ticks if it is due, and all that was said is heard.
    fn turn(&mut self) {
        self.now += TURN_MS;
        let now = Millis(self.now);
        for number in 0..self.nodes.len() {
            let began = Instant::now();
            let node = &mut self.nodes[number];
            if node.next_tick() <= now {
                node.tick(now, &mut Vec::new());
            }
            node.next_views(WORK_MAX, |_| {});
            let mut batches = Vec::new();
            node.take_batches(|topic, bytes| batches.push((topic, bytes)));
            if number == 0 {
                self.said.cpu_s += began.elapsed().as_secs_f64();
                self.said.batches += batches.len() as u64;
                self.said.bytes += batches.iter().map(|(_, it)| it.len() as u64).sum::<u64>();
            }
            for (topic, bytes) in batches {
                self.carry(number, topic, &bytes);
            }
        }
    }

    fn carry(&mut self, from: usize, topic: Topic, bytes: &[u8]) {
        let now = Millis(self.now);
        if topic == Topic::Echo {
            return self.nodes[from].hear(now, topic, bytes, &mut Vec::new(), |_| {});
        }
        if from == 0 {
            for node in &mut self.nodes[1..] {
                node.hear(now, topic, bytes, &mut Vec::new(), |_| {});
            }
            return;
        }
        let began = Instant::now();
        self.nodes[0].hear(now, topic, bytes, &mut Vec::new(), |_| {});
        self.heard.cpu_s += began.elapsed().as_secs_f64();
        self.heard.batches += 1;
        self.heard.bytes += bytes.len() as u64;
    }

    /// Of the others: channels that the first node holds, and what they take.
    fn held(&self) -> (usize, usize) {
        let held = self.nodes[0].state_counters().view.held;
        (held.channels, held.bytes)
    }

    fn is_whole(&self) -> bool {
        let view = self.nodes[0].state_counters().view;
        view.wanted == 0 && view.snapshots_dropped == 0 && view.deltas_dropped == 0
    }
}

/// A second of churn, as the first node sees it.
struct Row {
    size: Size,
    calm: Tally,
    heard: Tally,
    said: Tally,
    channels: usize,
    bytes: usize,
}

fn measured(size: Size) -> Row {
    let mut scale = Scale::new(size);
    scale.fill();
    let quiet = scale.heard;
    scale.turns(size.seconds * 1_000);
    let calm = scale.heard.since(quiet);
    let (heard, said) = (scale.heard, scale.said);
    scale.churn();
    let (heard, said) = (scale.heard.since(heard), scale.said.since(said));
    let (channels, bytes) = scale.held();
    assert!(scale.is_whole(), "{size:?}");
    Row {
        size,
        calm,
        heard,
        said,
        channels,
        bytes,
    }
}

impl Row {
    /// On one node, what others have: all but its own.
    fn expected(&self) -> usize {
        let Size {
            nodes,
            channels,
            shared,
            ..
        } = self.size;
        channels - channels.div_ceil(nodes) + shared
    }

    fn told(&self) -> String {
        let seconds = self.size.seconds as f64;
        let per_s = |count: u64| count as f64 / seconds;
        let share = |tally: Tally| tally.cpu_s * 100.0 / seconds;
        format!(
            "| {} | {} | {:.1} | {:.0} | {:.1} | {:.0} | {:.1} | {:.2} | {:.0} | {:.1} | {:.2} |",
            self.size.nodes,
            self.channels,
            self.bytes as f64 / 1e6,
            per_s(self.calm.batches),
            per_s(self.calm.bytes) / 1e3,
            per_s(self.heard.batches),
            per_s(self.heard.bytes) / 1e3,
            share(self.heard),
            per_s(self.said.batches),
            per_s(self.said.bytes) / 1e3,
            share(self.said),
        )
    }
}

const HEAD: &str = "\
| nodes | channels held | MB | calm: heard, batches/s | kB/s | churn: heard, batches/s | kB/s | % of a core \
| said, batches/s | kB/s | % of a core |
|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

/// However many nodes the same channels are spread over, one hears of as many changes and holds as much; what
/// grows is the number of batches that they come in, and the heartbeats.
#[test]
fn scale_of_a_cluster_grows_in_batches_and_heartbeats_only() {
    let asked = std::env::var("SCALE").is_ok();
    let sizes: &[usize] = if asked { &[3, 10, 30, 100] } else { &[3, 12] };
    let rows: Vec<Row> = sizes
        .iter()
        .map(|nodes| {
            let size = Size {
                nodes: *nodes,
                channels: if asked { 200_000 } else { 2_400 },
                shared: if asked { 1_000 } else { 10 },
                churn_per_s: if asked { 2_000 } else { 240 },
                seconds: if asked { 10 } else { 2 },
            };
            measured(size)
        })
        .collect();
    println!("{HEAD}");
    for row in &rows {
        println!("{}", row.told());
        assert_eq!(row.channels, row.expected());
        // A heartbeat and a canary's word now and then, of each other node.
        let others = row.size.nodes as u64 - 1;
        let calm = row.calm.batches;
        assert!(calm >= others * (row.size.seconds - 1), "{calm}");
        assert!(calm <= others * (row.size.seconds + 1) * 2, "{calm}");
    }
    let (few, many) = (&rows[0], &rows[rows.len() - 1]);
    let changes = |row: &Row| row.heard.bytes - row.calm.bytes;
    let share =
        |row: &Row| changes(row) as f64 * row.size.nodes as f64 / (row.size.nodes - 1) as f64;
    // Most of a small batch is its head.
    assert!(
        share(many) < 4.0 * share(few),
        "{} {}",
        share(few),
        share(many)
    );
}

/// A node comes to another one that holds many channels: it asks for all, and has all.
#[test]
fn scale_of_a_coming_is_what_the_other_holds() {
    let asked = std::env::var("SCALE").is_ok();
    let channels = if asked { 1_000_000 } else { 3_000 };
    let size = Size {
        nodes: 2,
        channels: 0,
        shared: 0,
        churn_per_s: 0,
        seconds: 0,
    };
    let mut scale = Scale::new(size);
    for channel in 0..channels {
        scale.counts(1, channel, 1);
        if channel % 5_000 == 0 {
            // The first node is not there yet.
            scale.nodes[1].take_batches(|_, _| {});
        }
    }
    scale.nodes[1].take_batches(|_, _| {});
    let (came_at, said) = (scale.now, scale.said);
    let teller = Instant::now();
    while scale.held().0 < channels || !scale.is_whole() {
        scale.turn();
        assert!(scale.now - came_at < 60_000, "{:?}", scale.held());
    }
    let all_s = teller.elapsed().as_secs_f64();
    let (heard, said) = (scale.heard, scale.said.since(said));
    let of_channel = |bytes: u64| bytes as f64 / channels as f64;
    println!(
        "{channels} channels: whole after {} ms of the bus' time; heard {} batches, {:.1} MB, {:.1} B for a \
         channel; {:.2} s of CPU time to hear, {:.2} s of its own turns, {:.2} s in all with the other's; held \
         {:.1} B for a channel",
        scale.now - came_at,
        heard.batches,
        heard.bytes as f64 / 1e6,
        of_channel(heard.bytes),
        heard.cpu_s,
        said.cpu_s,
        all_s,
        of_channel(scale.held().1 as u64),
    );
    // A name of 24 bytes, its app, a count, lengths.
    assert!(
        of_channel(heard.bytes) < 48.0,
        "{}",
        of_channel(heard.bytes)
    );
}
