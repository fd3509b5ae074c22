//! Network cards: their queues, and which cores their interrupts and packets go to.
//!
//! Owns: `Card` and its parts.
//! May depend on: `cores`, `tree`.
//! Invariants: only interfaces with hardware (or a hypervisor's) behind them are cards; interrupts that carry no
//! queue, by their name, are left out.

use super::cores::{core_list, core_mask};
use crate::tree::{Reading, Tree};

/// One network card.
#[derive(Clone, Debug)]
pub struct Card {
    /// As `ip link` says it.
    pub name: String,
    /// Whether its link is up.
    pub is_up: bool,
    /// The node of memory that it is attached to, where the host has several.
    pub node: Option<usize>,
    /// Receive queues, with the cores that share a queue's packets (`rps_cpus`).
    pub receive: Vec<Queue>,
    /// Transmit queues, with the cores that use it (`xps_cpus`).
    pub transmit: Vec<Queue>,
    /// Of its queues.
    pub interrupts: Vec<Interrupt>,
}

/// A queue of a card.
#[derive(Clone, Debug)]
pub struct Queue {
    /// `rx-0`.
    pub name: String,
    /// Absent or strange where the kernel does not steer, such as with a single queue.
    pub cores: Reading<Vec<usize>>,
}

/// An interrupt of a card.
#[derive(Clone, Debug)]
pub struct Interrupt {
    /// As in `/proc/irq`.
    pub number: u64,
    /// What the driver calls it.
    pub name: String,
    /// Where it comes in fact.
    pub cores: Reading<Vec<usize>>,
}

pub(super) fn read(tree: &Tree) -> Vec<Card> {
    let names = tree.names("/sys/class/net");
    let with_hardware = names
        .into_iter()
        .filter(|name| tree.has(&format!("/sys/class/net/{name}/device")));
    with_hardware
        .take(CARDS_MAX)
        .map(|name| card(tree, name))
        .collect()
}

fn card(tree: &Tree, name: String) -> Card {
    let folder = format!("/sys/class/net/{name}");
    // A virtual card's function of PCI is the parent of its device.
    let devices = [format!("{folder}/device"), format!("{folder}/device/..")];
    let node = devices.iter().find_map(|device| {
        let node = tree.text(&format!("{device}/numa_node"));
        node.value().and_then(|text| text.parse().ok()) // -1: no node.
    });
    let numbers = devices
        .iter()
        .map(|device| tree.names(&format!("{device}/msi_irqs")));
    let numbers = numbers
        .into_iter()
        .find(|it| !it.is_empty())
        .unwrap_or_default();
    let numbers = numbers.iter().filter_map(|it| it.parse().ok());
    let queues = |kind: &str, file: &str| {
        let names = tree.names(&format!("{folder}/queues")).into_iter();
        let of_kind = names.filter(|queue| queue.starts_with(kind));
        let queue = |name: String| Queue {
            cores: tree
                .text(&format!("{folder}/queues/{name}/{file}"))
                .parsed(core_mask),
            name,
        };
        of_kind.map(queue).collect()
    };
    Card {
        is_up: tree
            .text(&format!("{folder}/operstate"))
            .value()
            .is_none_or(|state| state != "down"),
        node,
        receive: queues("rx-", "rps_cpus"),
        transmit: queues("tx-", "xps_cpus"),
        interrupts: numbers
            .filter_map(|number| interrupt(tree, number))
            .collect(),
        name,
    }
}

/// `None`: it carries no queue.
fn interrupt(tree: &Tree, number: u64) -> Option<Interrupt> {
    let name = tree.text(&format!("/sys/kernel/irq/{number}/actions"));
    let name = name.value().cloned().unwrap_or_default();
    let folded = name.to_lowercase();
    // A vector without an action is not in use.
    if name.is_empty() || NOT_QUEUES.iter().any(|word| folded.contains(word)) {
        return None;
    }
    let folder = format!("/proc/irq/{number}");
    let list = |file: &str| {
        tree.text(&format!("{folder}/{file}"))
            .parsed(|text| Some(core_list(text)))
    };
    let cores = match list("effective_affinity_list") {
        Reading::Is(cores) if !cores.is_empty() => Reading::Is(cores),
        _ => list("smp_affinity_list"),
    };
    Some(Interrupt {
        number,
        name,
        cores,
    })
}

/// Names of vectors that carry no packets, of virtio, mlx5, ice, ixgbe, ena, bnxt.
const NOT_QUEUES: [&str; 8] = [
    "config", "event", "async", "control", "mgmnt", "misc", "cmd", "adminq",
];
const CARDS_MAX: usize = 64;
