//! How large a host a load needs: `sockudo bench plan`.
//!
//! Owns: the model, and the table of measured costs that it multiplies.
//! May depend on: clap, serde, `ranges`, `text`.
//! Invariants: every cost names the measurement that it comes from; more load never asks for less of a
//! host; nothing is measured or sent here.

use std::{fmt, io::Write as _, process::ExitCode};

use clap::Args;
use serde::Serialize;

use crate::{
    casts::whole_of,
    ranges::within,
    text::{bytes, number},
};

/// The load to plan for.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Connections that are open at once, 1..=1000000000
    #[arg(long, value_name = "COUNT", value_parser = within::<u64>(1..=1_000_000_000))]
    pub connections: u64,
    /// Messages delivered to clients per second, all together, 0..=1000000000
    #[arg(long, value_name = "MESSAGES_PER_S", value_parser = within::<u64>(0..=1_000_000_000))]
    pub rate: u64,
    /// Clients that get a message, on average, 1..=1000000. The default is the dearest case
    #[arg(long, value_name = "AVERAGE", default_value_t = 1.0, value_parser = fan_out)]
    pub fan_out: f64,
    /// Bytes of a message's data, 0..=1048576
    #[arg(long, value_name = "BYTES", default_value_t = 200,
        value_parser = within::<u64>(0..=1_048_576))]
    pub message_bytes: u64,
    /// API requests that publish, per second, 0..=1000000000 [default: one per message that is no client event]
    #[arg(long, value_name = "RATE", value_parser = within::<u64>(0..=1_000_000_000))]
    pub publishes_per_s: Option<u64>,
    /// Client events per second, 0..=1000000000
    #[arg(long, value_name = "RATE", default_value_t = 0,
        value_parser = within::<u64>(0..=1_000_000_000))]
    pub client_events_per_s: u64,
    /// Cores of one node, 1..=1024; one of them is the bridge's, if there are more than one
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = within::<u64>(1..=1_024))]
    pub cores: u64,
    /// How busy a shard may be, 0.1..=0.95; the rest is for bursts and for connections that come back
    #[arg(long, value_name = "SHARE", default_value_t = 0.6, value_parser = utilisation)]
    pub utilisation: f64,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What one of each costs. CPU in microseconds of one core, memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// docs/performance.md, `fan-out, 1 message per turn`: 200 B, each message sent alone.
    pub delivered_us: f64,
    /// docs/performance.md, `fan-out, 10 per turn`: 200 B, ten sent together.
    pub delivered_joined_us: f64,
    /// docs/performance.md, `fan-out, 1 message per turn`, once with 200 B and once with 2 200 B: the
    /// difference of 0.8 us, for each KiB beyond 200 B.
    pub delivered_us_per_kib: f64,
    /// docs/performance.md, `client event to nobody, in bursts`: its deliveries count as deliveries.
    pub client_event_us: f64,
    /// docs/performance.md, `client event to 1 other, in bursts`: one frame in, one out, as a ping and its pong.
    pub ping_us: f64,
    /// docs/performance.md, `HTTP publish, in bursts`: keep-alive, one event per request.
    pub publish_us: f64,
    /// docs/performance.md, "Shards": a message from one shard to another, which every third time sleeps.
    pub mesh_hop_us: f64,
    /// docs/performance.md, `connect to subscribed`.
    pub connect_us: f64,
    /// docs/performance.md, `memory, one channel`: 0.27 KiB.
    pub connection_bytes: f64,
    /// docs/performance.md, `memory, a channel each` (0.52 KiB), less `memory, one channel`.
    pub channel_bytes: f64,
    /// docs/capacity.md, *Kernel memory*: what the kernel's slabs grow by for each idle connection.
    pub connection_kernel_bytes: f64,
    /// docs/capacity.md, *A node before its first connection*: resident memory.
    pub process_bytes: f64,
    pub shard_bytes: f64,
    /// docs/capacity.md, *A node before its first connection*: open files.
    pub process_files: u64,
    pub shard_files: u64,
    /// docs/protocol.md: a client that has heard nothing for so long sends a ping.
    pub activity_timeout_s: f64,
    /// A frame's header (4), the JSON around the data (34), the names of event and channel (42).
    pub envelope_bytes: f64,
    /// A signed request's head, and its answer, as the HTTP libraries write them.
    pub request_head_bytes: f64,
    pub answer_bytes: f64,
    /// Ethernet with preamble, gap and checksum (38), IPv4 (20), TCP with time stamps (32).
    pub packet_head_bytes: f64,
    /// What of a TCP stream fits a packet of 1 500 B.
    pub packet_bytes: f64,
}

/// Measured on two shared virtual cores with Linux 6.18 (docs/performance.md, docs/capacity.md).
pub const MEASURED: Costs = Costs {
    delivered_us: 4.4,
    delivered_joined_us: 0.6,
    delivered_us_per_kib: 0.4,
    client_event_us: 5.6,
    ping_us: 9.2,
    publish_us: 10.7,
    mesh_hop_us: 4.0,
    connect_us: 23.6,
    connection_bytes: 275.0,
    channel_bytes: 262.0,
    connection_kernel_bytes: 4_200.0,
    process_bytes: 12e6,
    shard_bytes: 7.2e6,
    process_files: 10,
    shard_files: 7,
    activity_timeout_s: 120.0,
    envelope_bytes: 80.0,
    request_head_bytes: 500.0,
    answer_bytes: 200.0,
    packet_head_bytes: 90.0,
    packet_bytes: 1_448.0,
};

/// The size of `Costs::delivered_us`.
const MEASURED_MESSAGE_BYTES: f64 = 200.0;

/// What a load needs. Everything but `nodes` and `work` is of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub nodes: u64,
    pub shards: u64,
    /// Shards and the bridge.
    pub cores: u64,
    /// Of all nodes.
    pub work: Work,
    pub shard_busy_share: f64,
    pub connections: u64,
    pub connections_per_shard: u64,
    pub messages_per_s_per_shard: f64,
    pub memory: Memory,
    pub network: Network,
    /// `LimitNOFILE` must be this at least.
    pub files: u64,
    /// All connections again after a restart, if the shards did nothing else.
    pub reconnect_s: f64,
}

/// CPU time per second, in cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    pub deliveries: f64,
    /// The deliveries, if ten to one client always came in one turn.
    pub deliveries_joined: f64,
    pub publishes: f64,
    pub client_events: f64,
    pub pings: f64,
    pub mesh: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Connections, subscriptions and channels.
    pub user_bytes: f64,
    /// The same connections in the kernel.
    pub kernel_bytes: f64,
    /// Code, buffers and queues, before the first connection.
    pub process_bytes: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Network {
    pub packets_in_per_s: f64,
    pub packets_out_per_s: f64,
    pub bits_in_per_s: f64,
    pub bits_out_per_s: f64,
    /// In and out, for each network queue if each shard has one.
    pub packets_per_s_per_shard: f64,
}

/// Prints the plan.
pub fn run(arguments: Arguments) -> ExitCode {
    let plan = compute(&arguments, &MEASURED);
    let text = match arguments.json {
        true => format!("{:#}\n", serde_json::json!(plan)),
        false => plan.to_string(),
    };
    // A reader that closed the pipe, such as `head`, has what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The least shards and nodes that are busy no more than asked, and what they need.
pub fn compute(arguments: &Arguments, costs: &Costs) -> Plan {
    let load = Load::of(arguments, costs);
    let shards_max = (arguments.cores - 1).max(1);
    let is_enough = |nodes: u64, shards: u64| {
        let room = (nodes * shards) as f64 * arguments.utilisation;
        load.work(shards, costs).total() <= room * (1.0 + 1e-9)
    };
    let whole = load.work(shards_max, costs).total() / shards_max as f64;
    let nodes = whole_of((whole / arguments.utilisation - 1e-9).ceil().max(1.0));
    let shards = (1..=shards_max).find(|&shards| is_enough(nodes, shards));
    let shards = shards.unwrap_or(shards_max);

    let work = load.work(shards, costs);
    let all_shards = (nodes * shards) as f64;
    let connections = arguments.connections.div_ceil(nodes);
    let share = 1.0 / nodes as f64;
    Plan {
        nodes,
        shards,
        cores: (shards + 1).min(arguments.cores),
        work,
        shard_busy_share: work.total() / all_shards,
        connections,
        connections_per_shard: connections.div_ceil(shards),
        messages_per_s_per_shard: load.deliveries / all_shards,
        memory: Memory {
            user_bytes: share * load.user_bytes(costs),
            kernel_bytes: share * load.connections * costs.connection_kernel_bytes,
            process_bytes: costs.process_bytes + shards as f64 * costs.shard_bytes,
        },
        network: load.network(share, shards, costs),
        files: connections + costs.process_files + shards * costs.shard_files,
        reconnect_s: load.connections * costs.connect_us / 1e6 / all_shards,
    }
}

/// What all nodes do per second, and for how many connections.
struct Load {
    connections: f64,
    deliveries: f64,
    message_bytes: f64,
    publishes: f64,
    client_events: f64,
    pings: f64,
    fan_out: f64,
}

impl Load {
    fn of(arguments: &Arguments, costs: &Costs) -> Self {
        let connections = arguments.connections as f64;
        let deliveries = arguments.rate as f64;
        let client_events = arguments.client_events_per_s as f64;
        let others = (deliveries / arguments.fan_out - client_events).max(0.0);
        Self {
            connections,
            deliveries,
            message_bytes: arguments.message_bytes as f64,
            publishes: arguments.publishes_per_s.map_or(others, |rate| rate as f64),
            client_events,
            pings: connections / costs.activity_timeout_s,
            fan_out: arguments.fan_out,
        }
    }

    fn work(&self, shards: u64, costs: &Costs) -> Work {
        let beyond = (self.message_bytes - MEASURED_MESSAGE_BYTES).max(0.0);
        let copied_us = beyond / 1_024.0 * costs.delivered_us_per_kib;
        let cores = |per_s: f64, each_us: f64| per_s * each_us / 1e6;
        let messages = self.publishes + self.client_events;
        Work {
            deliveries: cores(self.deliveries, costs.delivered_us + copied_us),
            deliveries_joined: cores(self.deliveries, costs.delivered_joined_us + copied_us),
            publishes: cores(self.publishes, costs.publish_us),
            client_events: cores(self.client_events, costs.client_event_us),
            pings: cores(self.pings, costs.ping_us),
            mesh: cores(messages * self.hops(shards), costs.mesh_hop_us),
        }
    }

    /// From where a message came in to its home, and from there to every other shard on which one of its
    /// clients is, if clients are spread evenly.
    fn hops(&self, shards: u64) -> f64 {
        let shards = shards as f64;
        let has_none = (1.0 - 1.0 / shards).powf(self.fan_out);
        (shards - 1.0) / shards + (shards - 1.0) * (1.0 - has_none)
    }

    /// A message's clients share its channel: there are as many channels as audiences.
    fn user_bytes(&self, costs: &Costs) -> f64 {
        self.connections * (costs.connection_bytes + costs.channel_bytes / self.fan_out)
    }

    fn network(&self, share: f64, shards: u64, costs: &Costs) -> Network {
        let packets = |bytes: f64| (bytes / costs.packet_bytes).ceil();
        // A receiver acknowledges every second packet, and the last.
        let acknowledged = |packets: f64| (packets / 2.0).ceil();
        let message = self.message_bytes + costs.envelope_bytes;
        let request = self.message_bytes + costs.request_head_bytes;
        // (per second, bytes in, bytes out), each answered or acknowledged by the other side.
        let flows = [
            (self.deliveries, 0.0, message),
            (self.client_events, message, 0.0),
            (self.publishes, request, costs.answer_bytes),
            (self.pings, costs.envelope_bytes, costs.envelope_bytes),
        ];
        let mut network = Network::default();
        for (per_s, bytes_in, bytes_out) in flows {
            let per_s = per_s * share;
            let packets_in = packets(bytes_in) + acknowledged(packets(bytes_out));
            let packets_out = packets(bytes_out) + acknowledged(packets(bytes_in));
            network.packets_in_per_s += per_s * packets_in;
            network.packets_out_per_s += per_s * packets_out;
            let head = costs.packet_head_bytes;
            network.bits_in_per_s += per_s * 8.0 * (bytes_in + packets_in * head);
            network.bits_out_per_s += per_s * 8.0 * (bytes_out + packets_out * head);
        }
        let all = network.packets_in_per_s + network.packets_out_per_s;
        network.packets_per_s_per_shard = all / shards as f64;
        network
    }
}

impl Work {
    pub fn total(&self) -> f64 {
        self.deliveries + self.publishes + self.client_events + self.pings + self.mesh
    }
}

impl Memory {
    pub fn total(&self) -> f64 {
        self.user_bytes + self.kernel_bytes + self.process_bytes
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: u64| number(count as f64);
        let nodes = if self.nodes == 1 { "node" } else { "nodes" };
        let (shards, cores) = (self.shards, self.cores);
        let whose = if cores > shards {
            " and a core for the bridge"
        } else {
            ""
        };
        writeln!(f, "{} {nodes} of {shards} shards{whose}", self.nodes)?;
        let busy = number(self.shard_busy_share * 100.0);
        writeln!(f, "\na shard")?;
        writeln!(f, "  busy            {busy} %")?;
        writeln!(f, "  connections     {}", count(self.connections_per_shard))?;
        let messages = number(self.messages_per_s_per_shard);
        writeln!(f, "  messages        {messages} per second")?;
        writeln!(
            f,
            "  packets         {} per second",
            number(self.network.packets_per_s_per_shard)
        )?;
        writeln!(f, "\na node")?;
        writeln!(f, "  connections     {}", count(self.connections))?;
        writeln!(f, "  open files      {}", count(self.files))?;
        self.write_memory(f)?;
        self.write_network(f)?;
        writeln!(f, "\nCPU time, in cores, of all nodes")?;
        self.write_work(f)?;
        let reconnect = number(self.reconnect_s);
        writeln!(
            f,
            "\nall connections again after a restart: {reconnect} s of all shards' time"
        )
    }
}

impl Plan {
    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = &self.memory;
        writeln!(f, "  memory          {}", bytes(memory.total()))?;
        writeln!(f, "    connections   {}", bytes(memory.user_bytes))?;
        writeln!(f, "    kernel        {}", bytes(memory.kernel_bytes))?;
        writeln!(f, "    process       {}", bytes(memory.process_bytes))
    }

    fn write_network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = &self.network;
        for (way, packets, bits) in [
            ("out", network.packets_out_per_s, network.bits_out_per_s),
            ("in", network.packets_in_per_s, network.bits_in_per_s),
        ] {
            let (packets, megabits) = (number(packets.round()), number(bits / 1e6));
            writeln!(
                f,
                "  network {way:<7} {packets} packets and {megabits} Mbit per second"
            )?;
        }
        Ok(())
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = &self.work;
        for (name, cores) in [
            ("deliveries", work.deliveries),
            ("publishes", work.publishes),
            ("client events", work.client_events),
            ("pings", work.pings),
            ("between shards", work.mesh),
            ("together", work.total()),
        ] {
            writeln!(f, "  {name:<15} {}", number(cores))?;
        }
        let joined = work.total() - work.deliveries + work.deliveries_joined;
        writeln!(
            f,
            "  together, if ten to one client always came in one turn: {}",
            number(joined)
        )
    }
}

fn fan_out(text: &str) -> Result<f64, String> {
    between(text, 1.0, 1_000_000.0)
}

fn utilisation(text: &str) -> Result<f64, String> {
    between(text, 0.1, 0.95)
}

fn between(text: &str, least: f64, most: f64) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok();
    value
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("must be {least}..={most}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(name = "sockudo bench plan")]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// The arguments after the command's name.
    fn parse(flags: &str) -> Arguments {
        let words = flags.split_whitespace();
        let line = Line::try_parse_from(["plan"].into_iter().chain(words));
        line.unwrap_or_else(|error| panic!("{flags}: {error}"))
            .arguments
    }

    fn plan(flags: &str) -> Plan {
        compute(&parse(flags), &MEASURED)
    }

    fn near(got: f64, expected: f64) {
        assert!(
            (got - expected).abs() <= expected.abs() * 1e-6,
            "{got} is not {expected}"
        );
    }

    #[test]
    fn a_small_load_is_what_a_person_computes() {
        let plan = plan("--connections 120000 --rate 100000 --fan-out 100");
        assert_eq!((plan.nodes, plan.shards, plan.cores), (1, 1, 2));
        near(plan.work.deliveries, 100_000.0 * 4.4e-6);
        near(plan.work.publishes, 1_000.0 * 10.7e-6);
        near(plan.work.pings, 1_000.0 * 9.2e-6);
        near(plan.work.total(), 0.44 + 0.0107 + 0.0092);
        near(plan.shard_busy_share, 0.4599);
        near(plan.memory.user_bytes, 120_000.0 * 277.62);
        near(plan.memory.kernel_bytes, 120_000.0 * 4_200.0);
        near(plan.memory.process_bytes, 19.2e6);
        assert_eq!(plan.files, 120_017);
        near(plan.reconnect_s, 2.832);
        // A delivery is a packet out and an acknowledgement in; a publish and a ping are one in and one out,
        // each acknowledged besides.
        near(
            plan.network.packets_out_per_s,
            100_000.0 + 2_000.0 + 2_000.0,
        );
        near(plan.network.packets_in_per_s, 100_000.0 + 2_000.0 + 2_000.0);
        let bytes_out = 100_000.0 * 370.0 + 1_000.0 * (200.0 + 180.0) + 1_000.0 * (80.0 + 180.0);
        near(plan.network.bits_out_per_s, 8.0 * bytes_out);
    }

    #[test]
    fn hops_lead_home_and_to_each_shard_with_clients() {
        let hops = |fan_out: &str, shards| {
            let flags = format!("--connections 1 --rate 1 --fan-out {fan_out}");
            Load::of(&parse(&flags), &MEASURED).hops(shards)
        };
        near(hops("1", 1), 0.0);
        // Half of the messages come in elsewhere, and half of the clients are elsewhere.
        near(hops("1", 2), 1.0);
        near(hops("1000000", 4), 3.75);
    }

    #[test]
    fn more_of_anything_never_needs_less() {
        // While one node suffices: with a second one, each gets smaller.
        let base = "--connections 500000 --rate 300000 --fan-out 10 --client-events-per-s 1000";
        for (flag, values) in [
            ("--connections", ["500000", "600000", "1500000", "9000000"]),
            ("--rate", ["300000", "300001", "900000", "3000000"]),
            ("--message-bytes", ["200", "201", "4000", "65536"]),
            ("--publishes-per-s", ["0", "30000", "40000", "100000"]),
            (
                "--client-events-per-s",
                ["30000", "50000", "60000", "200000"],
            ),
        ] {
            let with = |value: &str| {
                let mut words: Vec<&str> = base.split(' ').collect();
                match words.iter().position(|word| *word == flag) {
                    Some(at) => words[at + 1] = value,
                    None => words.extend([flag, value]),
                }
                plan(&words.join(" "))
            };
            for pair in values.windows(2) {
                let (less, more) = (with(pair[0]), with(pair[1]));
                let case = format!("{flag} {pair:?}");
                assert_eq!((less.nodes, more.nodes), (1, 1), "{case}");
                assert!(less.shards <= more.shards, "{case}");
                assert!(less.work.total() <= more.work.total(), "{case}");
                assert!(less.memory.total() <= more.memory.total(), "{case}");
                assert!(
                    less.network.bits_out_per_s <= more.network.bits_out_per_s,
                    "{case}"
                );
                assert!(
                    less.network.bits_in_per_s <= more.network.bits_in_per_s,
                    "{case}"
                );
                assert!(less.files <= more.files, "{case}");
            }
        }
    }

    #[test]
    fn more_room_and_larger_audiences_never_need_more() {
        for (flag, values) in [
            ("--cores", ["1", "2", "3", "16", "64", "128"]),
            ("--utilisation", ["0.1", "0.3", "0.5", "0.6", "0.9", "0.95"]),
            ("--fan-out", ["1", "1.5", "2", "10", "1000", "1000000"]),
        ] {
            let with = |value| {
                plan(&format!(
                    "--connections 1000000 --rate 9000000 {flag} {value}"
                ))
            };
            for pair in values.windows(2) {
                let (less, more) = (with(pair[0]), with(pair[1]));
                assert!(less.nodes >= more.nodes, "{flag} {pair:?}");
                assert!(
                    less.memory.total() * less.nodes as f64
                        >= more.memory.total() * more.nodes as f64 * 0.98
                );
            }
        }
    }

    #[test]
    fn shards_are_never_busier_than_asked() {
        for rate in [0, 1, 124_999, 125_000, 10_000_000, 1_000_000_000] {
            for cores in [1, 2, 3, 64] {
                let plan = plan(&format!(
                    "--connections 1000 --rate {rate} --cores {cores} --fan-out 50"
                ));
                assert!(
                    plan.shard_busy_share <= 0.6 + 1e-6,
                    "{rate} on {cores}: {plan}"
                );
                assert!(
                    plan.cores <= cores && plan.shards >= 1,
                    "{rate} on {cores}: {plan}"
                );
            }
        }
    }

    #[test]
    fn flags_out_of_range_are_refused() {
        for flags in [
            "--connections 0 --rate 1",
            "--connections 1",
            "--connections 1 --rate 1 --fan-out 0.5",
            "--connections 1 --rate 1 --fan-out NaN",
            "--connections 1 --rate 1 --utilisation 1",
            "--connections 1 --rate 1 --cores 0",
            "--connections 1 --rate -1",
        ] {
            let words = flags.split_whitespace();
            assert!(
                Line::try_parse_from(["plan"].into_iter().chain(words)).is_err(),
                "{flags}"
            );
        }
    }

    #[test]
    fn the_page_shows_what_the_program_prints() {
        let page = include_str!("../../docs/capacity.md");
        let mut examples = 0;
        for block in page.split("```console\n$ sockudo bench plan ").skip(1) {
            let (block, _) = block.split_once("```").expect("the block ends");
            let (flags, output) = block.split_once('\n').expect("the output follows");
            assert_eq!(output, plan(flags).to_string(), "the output of {flags}");
            examples += 1;
        }
        assert!(examples > 0, "the page has no example");
    }

    #[test]
    fn the_page_has_every_cost_and_its_value() {
        let page = include_str!("../../docs/capacity.md");
        // | `name` | 1 234.5 | where it comes from |
        let (_, section) = page.split_once("## The costs").expect("the section");
        let (table, _) = section.split_once("###").expect("the next section");
        let told: Vec<String> = table
            .lines()
            .filter_map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
                let value: f64 = cells.get(2)?.replace(' ', "").parse().ok()?;
                Some(format!("{name}: {value}"))
            })
            .collect();
        let costs = format!("{MEASURED:?}")
            .replace(".0,", ",")
            .replace(".0 ", " ");
        let fields = costs.trim_start_matches("Costs { ").trim_end_matches(" }");
        let known: Vec<&str> = fields.split(", ").collect();
        assert_eq!(told, known);
    }
}
