//! Memory: enough of it, in pages of the right size.
//!
//! Owns: the checks of group `memory`.
//! May depend on: `finding`, `host`, `target`.
//! Invariants: none beyond the module's.

use super::bytes;
use crate::{
    finding::{Finding, Group, Rule, Severity},
    host::Host,
    target::Needs,
    tree::Reading,
};

const fn rule(check: &'static str, why: &'static str) -> Rule {
    Rule {
        check,
        group: Group::Memory,
        why,
    }
}

pub(super) fn check(host: &Host, needs: &Needs) -> Vec<Finding> {
    vec![total(host, needs), huge_pages(host)]
}

fn total(host: &Host, needs: &Needs) -> Finding {
    const RULE: Rule = rule(
        "memory.total",
        "idle connections in the server and in the kernel (`sockudo bench plan` counts alike), at 90 % of the host, \
         where the server stops taking more",
    );
    let wanted = needs.memory_bytes.saturating_add(needs.memory_bytes / 9);
    let should_be = format!("at least {}", bytes(wanted));
    match &host.memory.total_bytes {
        Reading::Is(total) => RULE.judge(
            *total >= wanted,
            Severity::Blocking,
            bytes(*total),
            should_be,
            "more memory, or more hosts with fewer connections each",
        ),
        other => RULE.unread(other, should_be),
    }
}

fn huge_pages(host: &Host) -> Finding {
    const RULE: Rule = rule(
        "memory.huge_pages",
        "the server keeps itself from transparent huge pages; with `always` its neighbours get them, and compacting \
         memory for them stops threads for milliseconds",
    );
    let should_be = "madvise or never, or defrag without `always`";
    match (&host.memory.huge_pages, &host.memory.huge_page_defrag) {
        (Reading::Is(enabled), defrag) => {
            let defrag = defrag.value().map_or("", String::as_str);
            RULE.judge(
                enabled != "always" || defrag != "always",
                Severity::Warning,
                match defrag {
                    "" => enabled.clone(),
                    defrag => format!("{enabled}, defrag {defrag}"),
                },
                should_be,
                "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled; to keep it, transparent_hugepage=madvise \
                 on the kernel's command line",
            )
        }
        (Reading::Absent, _) => RULE.fine("this kernel has none", should_be),
        (other, _) => RULE.unread(other, should_be),
    }
}
