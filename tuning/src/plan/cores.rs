//! Interrupts, queues and cores: the script.
//!
//! Owns: which queue goes to which core.
//! May depend on: `host`, `target`.
//! Invariants: only shards' cores get packets; names of interfaces are quoted for the shell.

use std::fmt::Write as _;

use super::comment;
use crate::{
    host::{
        Host,
        cards::{Card, Interrupt},
        cores::{to_list, to_mask},
    },
    target::Needs,
    tree::Reading,
};

/// What the script writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Assignment {
    cards: Vec<CardAssignment>,
    /// Cores that are not to go slow.
    performance: Vec<usize>,
    /// Whether huge pages are to be asked for.
    huge_pages: bool,
    /// A clock that takes no system call.
    clock: Option<String>,
}

#[derive(Clone, Debug)]
struct CardAssignment {
    name: String,
    /// Number, name, core.
    interrupts: Vec<(u64, String, usize)>,
    /// Name of the queue, cores.
    receive: Vec<(String, Vec<usize>)>,
    transmit: Vec<(String, Vec<usize>)>,
}

impl Assignment {
    pub(super) fn of(host: &Host, needs: &Needs) -> Self {
        let shards = host.cores.places(needs.shards).shards;
        let up = host.cards.iter().filter(|card| card.is_up);
        let cards = match shards.is_empty() {
            true => Vec::new(),
            false => up
                .map(|card| CardAssignment::of(host, card, &shards))
                .collect(),
        };
        let others = host
            .cores
            .governors
            .iter()
            .filter(|(name, _)| *name != "performance");
        let is_always =
            |reading: &Reading<String>| reading.value().is_some_and(|it| it == "always");
        let clock = host
            .kernel
            .clock
            .value()
            .filter(|clock| !crate::check::is_fast_clock(clock));
        let better = host
            .kernel
            .clocks
            .iter()
            .find(|clock| crate::check::is_fast_clock(clock));
        Self {
            cards,
            performance: others.flat_map(|(_, cores)| cores).copied().collect(),
            huge_pages: is_always(&host.memory.huge_pages)
                && is_always(&host.memory.huge_page_defrag),
            clock: clock.and(better).cloned(),
        }
    }

    /// The host as if the script had run.
    pub(super) fn set(&self, host: &mut Host) {
        for assigned in &self.cards {
            let Some(card) = host
                .cards
                .iter_mut()
                .find(|card| card.name == assigned.name)
            else {
                continue;
            };
            for (number, _, core) in &assigned.interrupts {
                let mut interrupts = card.interrupts.iter_mut();
                if let Some(interrupt) = interrupts.find(|it| it.number == *number) {
                    interrupt.cores = Reading::Is(vec![*core]);
                }
            }
            for (name, cores) in &assigned.receive {
                let mut queues = card.receive.iter_mut();
                if let Some(queue) = queues.find(|it| it.name == *name) {
                    queue.cores = Reading::Is(cores.clone());
                }
            }
            for (name, cores) in &assigned.transmit {
                let mut queues = card.transmit.iter_mut();
                if let Some(queue) = queues.find(|it| it.name == *name) {
                    queue.cores = Reading::Is(cores.clone());
                }
            }
        }
        if !self.performance.is_empty() {
            host.cores.governors = [("performance".to_owned(), self.performance.clone())].into();
        }
        if self.huge_pages {
            host.memory.huge_pages = Reading::Is("madvise".to_owned());
        }
        if let Some(clock) = &self.clock {
            host.kernel.clock = Reading::Is(clock.clone());
        }
    }
}

impl CardAssignment {
    fn of(host: &Host, card: &Card, shards: &[usize]) -> Self {
        // Those beside the card first, so that as many queues as can be stay on its node.
        let mut cores = shards.to_vec();
        if let Some(node) = card.node {
            cores.sort_by_key(|&core| host.cores.node_of(core) != Some(node));
        }
        let core_of = |index: usize| cores[index % cores.len()];
        let interrupt = |(position, interrupt): (usize, &Interrupt)| {
            let index = queue_of(&interrupt.name).unwrap_or(position);
            (interrupt.number, interrupt.name.clone(), core_of(index))
        };
        let is_steered = card.receive.len() < cores.len() && cores.len() > 1;
        // Queues that the kernel does not steer have no such file, or one that cannot be read.
        let steered = card
            .receive
            .iter()
            .filter(|queue| queue.cores.value().is_some());
        let receive = steered.map(|queue| {
            let cores = if is_steered {
                cores.clone()
            } else {
                Vec::new()
            };
            (queue.name.clone(), cores)
        });
        let queues = card.transmit.len();
        let used = card
            .transmit
            .iter()
            .enumerate()
            .filter(|(_, queue)| queues > 1 && queue.cores.value().is_some());
        let transmit = used.map(|(index, queue)| {
            let of_queue: Vec<usize> = cores.iter().copied().skip(index).step_by(queues).collect();
            let of_queue = if of_queue.is_empty() {
                vec![core_of(index)]
            } else {
                of_queue
            };
            (queue.name.clone(), of_queue)
        });
        Self {
            name: card.name.clone(),
            interrupts: card.interrupts.iter().enumerate().map(interrupt).collect(),
            receive: receive.collect(),
            transmit: transmit.collect(),
        }
    }
}

/// `virtio2-output.1` and `mlx5_comp1@pci:0000:81:00.0` are the second queue's.
fn queue_of(name: &str) -> Option<usize> {
    let name = name.split('@').next()?;
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}

/// A script that says what it could not write and goes on.
pub(super) fn script(assignment: &Assignment, needs: &Needs) -> String {
    let mut out = String::from("#!/bin/sh\n");
    out.push_str(&comment(&format!(
        "Written by `sockudo tune` for {} on this host's cards and cores. Run by sockudo-host.service; all of it is gone \
         with the next boot. ROOT=DIR writes below DIR instead.",
        crate::check::shards(needs.shards)
    )));
    out.push_str(
        "set -u\nstatus=0\nput() {\n    printf '%s\\n' \"$1\" >\"${ROOT:-}$2\" || { echo \"not written: $1 to $2\" >&2; \
         status=1; }\n}\n",
    );
    for card in &assignment.cards {
        push_card(&mut out, card);
    }
    if !assignment.performance.is_empty() {
        out.push('\n');
        out.push_str(&comment(
            "A core that went slow while it had little to do answers the next burst late.",
        ));
        let _ = writeln!(out, "# Cores {}.", to_list(&assignment.performance));
        for core in &assignment.performance {
            let _ = writeln!(
                out,
                "put performance /sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"
            );
        }
    }
    if assignment.huge_pages {
        out.push('\n');
        out.push_str(&comment("Compacting memory for huge pages that nobody asked for stops threads for milliseconds."));
        out.push_str("put madvise /sys/kernel/mm/transparent_hugepage/enabled\n");
    }
    if let Some(clock) = &assignment.clock {
        out.push('\n');
        out.push_str(&comment("Reading this clock takes no system call."));
        let clock = quoted(clock);
        let _ = writeln!(
            out,
            "put {clock} /sys/devices/system/clocksource/clocksource0/current_clocksource"
        );
    }
    out.push_str("exit \"$status\"\n");
    out
}

fn push_card(out: &mut String, card: &CardAssignment) {
    let name = &card.name;
    if !card.interrupts.is_empty() {
        out.push('\n');
        out.push_str(&comment(&format!(
            "{name}: each queue's interrupt comes to the core of a shard, nearest to the card first. irqbalance would \
             move them again: `systemctl disable --now irqbalance`."
        )));
    }
    for (number, name, core) in &card.interrupts {
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(
            out,
            "put {core} /proc/irq/{number}/smp_affinity_list # {name}"
        );
    }
    let folder = format!("/sys/class/net/{name}/queues");
    if !card.receive.is_empty() {
        out.push('\n');
        out.push_str(&comment(
            match card.receive.iter().all(|(_, cores)| cores.is_empty()) {
                true => {
                    "As many queues as shards, or more: packets stay where they come in (no RPS)."
                }
                false => {
                    "Fewer queues than shards: the kernel passes packets on to all of them (RPS)."
                }
            },
        ));
    }
    for (queue, cores) in &card.receive {
        let _ = writeln!(
            out,
            "put {} {}",
            to_mask(cores),
            quoted(&format!("{folder}/{queue}/rps_cpus"))
        );
    }
    if !card.transmit.is_empty() {
        out.push('\n');
        out.push_str(&comment(
            "A core sends through a queue that few others use (XPS).",
        ));
    }
    for (queue, cores) in &card.transmit {
        let _ = writeln!(
            out,
            "put {} {}",
            to_mask(cores),
            quoted(&format!("{folder}/{queue}/xps_cpus"))
        );
    }
}

/// One word for the shell, whatever an interface is called.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_known_by_the_queue_in_their_name() {
        for (name, expected) in [
            ("virtio2-output.1", Some(1)),
            ("mlx5_comp12@pci:0000:81:00.0", Some(12)),
            ("i40e-eth0-TxRx-3", Some(3)),
            ("virtio3-rx", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(queue_of(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_is_one_word_for_the_shell() {
        assert_eq!(quoted("eth0"), "eth0");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("a'$(x)"), "'a'\\''$(x)'");
    }
}
