//! Cores: enough of them, at their full rate, near their memory.
//!
//! Owns: the checks of group `cores`.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: none beyond the module's.

use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::{Host, cores::to_list},
    target::Needs,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Cores,
        why,
    }
}

pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    let mut findings = vec![count(host, needs), governor(host), nodes(host, needs)];
    findings.extend(balancing(host));
    findings
}

fn count(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "cores.count",
        "a shard has a physical core of its own, the bridge one more; with fewer they wait for each other",
    );
    let physical = host.cores.physical.len() as u64;
    let places = host.cores.places(needs.shards);
    let threads = needs.shards.saturating_add(1);
    let is = match (places.bridge, places.shards.is_empty()) {
        (Some(bridge), false) => format!(
            "{physical} physical; shards on {}, the bridge on {bridge}",
            to_list(&places.shards)
        ),
        _ => format!("{physical} physical; too few to give each thread its own"),
    };
    RULE.judge(
        physical >= threads,
        Severity::Warning,
        is,
        format!("at least {threads} for {} and the bridge", shards(needs.shards)),
        "more cores, or fewer shards (`shards` in the configuration); CPUAffinity= of a unit counts",
    )
}

pub(crate) fn shards(count: u64) -> String {
    match count {
        1 => "1 shard".to_owned(),
        count => format!("{count} shards"),
    }
}

fn governor(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "cores.governor",
        "a core that went slow while it had little to do answers the next burst late",
    );
    let should_be = "performance";
    if host.cores.governors.is_empty() {
        return RULE.fine("the kernel does not scale clock rates here", should_be);
    }
    let others: Vec<String> = host
        .cores
        .governors
        .iter()
        .filter(|(name, _)| *name != "performance")
        .map(|(name, cores)| format!("{name} on {}", to_list(cores)))
        .collect();
    let is = match others.is_empty() {
        true => "performance".to_owned(),
        false => others.join(", "),
    };
    RULE.judge(
        others.is_empty(),
        Severity::Warning,
        is,
        should_be,
        "for f in /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor; do echo performance > \"$f\"; done",
    )
}

fn nodes(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "cores.nodes",
        "a packet that comes in at one node of memory and is read at another crosses between them, twice as far",
    );
    let cores = &host.cores;
    if cores.nodes.len() < 2 {
        return RULE.fine("one node of memory", "shards on the node of their card");
    }
    let places = cores.places(needs.shards).shards;
    let used: std::collections::BTreeSet<usize> = places
        .iter()
        .filter_map(|&core| cores.node_of(core))
        .collect();
    let card = host
        .cards
        .iter()
        .filter(|card| card.is_up)
        .find_map(|card| Some((card, card.node?)));
    let is = |of_card: &str| {
        format!(
            "{} nodes; shards on node {}{of_card}",
            cores.nodes.len(),
            to_list(&Vec::from_iter(used.clone()))
        )
    };
    let Some((card, node)) = card else {
        return RULE.fine(is(""), "shards on the node of their card");
    };
    let of_node = cores
        .nodes
        .get(&node)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let physical = cores
        .physical
        .iter()
        .filter(|group| group.iter().any(|core| of_node.contains(core)))
        .count() as u64;
    let is = is(&format!(", {} on node {node}", card.name));
    // More shards than the card's node has cores have to be somewhere.
    let holds = needs.shards > physical || used.iter().all(|&it| it == node);
    RULE.judge(
        holds,
        Severity::Warning,
        is,
        format!("all shards on node {node}, whose cores would do"),
        format!(
            "CPUAffinity={} in the unit, then the server takes those only",
            to_list(of_node)
        ),
    )
}

fn balancing(host: &Host) -> Option<Finding> {
    const RULE: Rule = rule(
        "kernel.numa_balancing",
        "shards do not move, so there is nothing to balance; the kernel would unmap their pages again and again to see \
         who touches them",
    );
    if host.cores.nodes.len() < 2 {
        return None;
    }
    let value = host.cores.numa_balancing?;
    let mend = super::set_key(RULE.check, 0);
    Some(RULE.judge(value == 0, Severity::Warning, value.to_string(), "0", mend))
}
