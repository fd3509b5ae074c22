//! Cards: interrupts and packets go to the cores of the shards.
//!
//! Owns: the checks of group `cards`.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: a card whose link is down is not judged.

use std::collections::BTreeSet;

use super::cores::shards;
use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::{
        Host,
        cards::{Card, Queue},
        cores::{to_list, to_mask},
    },
    target::Needs,
    tree::Reading,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Cards,
        why,
    }
}

pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    const RULE: Rule = rule(
        "cards.found",
        "interrupts and queues belong to cards; a container has none of its own",
    );
    let cards: Vec<&Card> = host.cards.iter().filter(|card| card.is_up).collect();
    if cards.is_empty() {
        return vec![RULE.fine("no card here", "cards are looked at on the host itself")];
    }
    let mut findings = Vec::new();
    let cores = host.cores.places(needs.shards).shards;
    for card in cards {
        findings.extend(interrupts(host, card, &cores));
        findings.push(receive(card, &cores));
        findings.extend(transmit(card));
    }
    findings
}

/// Each queue's interrupt comes to a core of its own.
fn interrupts(host: &Host, card: &Card, shards: &[usize]) -> Vec<Finding> {
    const SPREAD: Rule = rule(
        "cards.interrupts",
        "the core that an interrupt comes to does TCP's work for the packets of that queue; one core for all is the \
         first to be full",
    );
    const MOVED: Rule = rule(
        "cards.irqbalance",
        "irqbalance moves interrupts that were given their cores",
    );
    if card.interrupts.is_empty() {
        return Vec::new();
    }
    let mut used = BTreeSet::new();
    for interrupt in &card.interrupts {
        match &interrupt.cores {
            // One that may come anywhere comes to the first of its cores, mostly.
            Reading::Is(cores) => used.extend(cores.first().copied()),
            other => return vec![SPREAD.unread(other, "a core of its own for each queue")],
        }
    }
    let queues = card.receive.len().max(1);
    let wanted = queues.min(shards.len().max(1));
    let list: Vec<usize> = used.iter().copied().collect();
    let is = format!(
        "{}: {} of {} come to cores {}",
        card.name,
        interrupts_in_words(card.interrupts.len()),
        queues_in_words(queues),
        to_list(&list)
    );
    let mut findings = vec![SPREAD.judge(
        used.len() >= wanted,
        Severity::Warning,
        is,
        format!(
            "{wanted} different cores at least, those of {}",
            super::cores::shards(shards.len() as u64)
        ),
        to_cores(card, shards),
    )];
    if queues > 1 {
        findings.push(MOVED.judge(
            !host.processes.has_irqbalance,
            Severity::Warning,
            match host.processes.has_irqbalance {
                true => "runs",
                false => "does not run",
            },
            "off, once interrupts have their cores",
            "systemctl disable --now irqbalance",
        ));
    }
    findings
}

fn interrupts_in_words(count: usize) -> String {
    match count {
        1 => "1 interrupt".to_owned(),
        count => format!("{count} interrupts"),
    }
}

/// The commands, the first of them at least.
fn to_cores(card: &Card, cores: &[usize]) -> String {
    if cores.is_empty() {
        return "`shards` in the configuration, so that each thread has a core".to_owned();
    }
    let each = card.interrupts.iter().zip(cores.iter().cycle());
    let commands: Vec<String> = each
        .take(COMMANDS_SHOWN)
        .map(|(interrupt, core)| {
            format!(
                "echo {core} > /proc/irq/{}/smp_affinity_list",
                interrupt.number
            )
        })
        .collect();
    let more = card.interrupts.len().saturating_sub(COMMANDS_SHOWN);
    match more {
        0 => commands.join("; "),
        more => format!(
            "{}; and {more} more, which `sockudo tune` writes",
            commands.join("; ")
        ),
    }
}

/// With fewer queues than shards the kernel spreads packets by itself, if it is told to.
fn receive(card: &Card, cores: &[usize]) -> Finding {
    const RULE: Rule = rule(
        "cards.rps",
        "a card with fewer queues than shards leaves cores without packets to handle, unless the kernel passes them on \
         (RPS)",
    );
    let queues = card.receive.len();
    let is = format!("{}: {}", card.name, queues_in_words(queues));
    if queues >= cores.len() || cores.len() < 2 {
        return RULE.fine(
            format!("{is} for {}", shards(cores.len() as u64)),
            "no RPS needed",
        );
    }
    let wanted = to_mask(cores);
    let mut steered = BTreeSet::new();
    for queue in &card.receive {
        match &queue.cores {
            Reading::Is(cores) => steered.extend(cores.iter().copied()),
            other => return RULE.unread(other, format!("{wanted} in each rps_cpus")),
        }
    }
    let commands = card.receive.iter().map(|Queue { name, .. }| {
        format!(
            "echo {wanted} > /sys/class/net/{}/queues/{name}/rps_cpus",
            card.name
        )
    });
    let list: Vec<usize> = steered.iter().copied().collect();
    RULE.judge(
        cores.iter().all(|core| steered.contains(core)),
        Severity::Warning,
        match list.is_empty() {
            true => format!("{is}, packets stay where they come in"),
            false => format!("{is}, passed on to cores {}", to_list(&list)),
        },
        format!("passed on to cores {}", to_list(cores)),
        commands.take(COMMANDS_SHOWN).collect::<Vec<_>>().join("; "),
    )
}

fn queues_in_words(count: usize) -> String {
    match count {
        1 => "1 queue".to_owned(),
        count => format!("{count} queues"),
    }
}

/// With several transmit queues each core has one of its own.
fn transmit(card: &Card) -> Option<Finding> {
    const RULE: Rule = rule(
        "cards.xps",
        "a core that sends through a queue of its own waits for no other's lock (XPS); most drivers set it themselves",
    );
    if card.transmit.len() < 2 {
        return None;
    }
    let steered = card
        .transmit
        .iter()
        .filter(|queue| queue.cores.value().is_some_and(|cores| !cores.is_empty()));
    let steered = steered.count();
    // Some drivers choose the queue themselves and have no such file.
    if card
        .transmit
        .iter()
        .all(|queue| queue.cores.value().is_none())
    {
        return Some(RULE.fine(
            format!("{}: the driver chooses", card.name),
            "a core or more for each transmit queue",
        ));
    }
    Some(RULE.judge(
        steered == card.transmit.len(),
        Severity::Warning,
        format!(
            "{}: {steered} of {} transmit queues have cores",
            card.name,
            card.transmit.len()
        ),
        "a core or more for each transmit queue",
        "sockudo tune --connections N --write DIR writes a script with a line for each queue",
    ))
}

const COMMANDS_SHOWN: usize = 4;
