//! What a check found: what is, what should be, why, and the mend.
//!
//! Owns: `Finding`, its groups and severities, the rules that findings are made from, their order.
//! May depend on: serde, `tree`.
//! Invariants: a finding that is not fine has a mend.

use serde::Serialize;

use crate::tree::Reading;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Fine,
    /// It works, and worse than it could; or nobody can tell.
    Warning,
    /// The server does not start, or cannot carry the wanted connections.
    Blocking,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Version, io_uring, clock.
    Kernel,
    /// Open files and locked memory of a process, and of the host.
    Limits,
    /// The unit of systemd.
    Service,
    /// TCP, ports, connection tracking.
    Network,
    /// Memory and its pages.
    Memory,
    /// Cores, their nodes and their clock rate.
    Cores,
    /// Network cards: their interrupts and queues.
    Cards,
    /// What a cgroup leaves.
    Cgroup,
}

impl Group {
    /// As a heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Limits => "limits",
            Self::Service => "service",
            Self::Network => "network",
            Self::Memory => "memory",
            Self::Cores => "cores",
            Self::Cards => "cards",
            Self::Cgroup => "cgroup",
        }
    }
}

/// One check's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name: a sysctl's own, else `group.what`.
    pub check: String,
    /// What it is about.
    pub group: Group,
    /// How bad it is.
    pub severity: Severity,
    /// What was read.
    pub is: String,
    /// What it should be for the target.
    pub should_be: String,
    /// What it is good for, and what happens without.
    pub why: &'static str,
    /// The command or the line of a file that mends it; none if nothing is wrong.
    pub mend: Option<String>,
}

/// A check's constant part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) check: &'static str,
    pub(crate) group: Group,
    pub(crate) why: &'static str,
}

impl Rule {
    pub(crate) fn fine(&self, is: impl Into<String>, should_be: impl Into<String>) -> Finding {
        self.finding(Severity::Fine, is.into(), should_be.into(), None)
    }

    /// Fine if it holds, else of this severity.
    pub(crate) fn judge(
        &self,
        holds: bool,
        otherwise: Severity,
        is: impl Into<String>,
        should_be: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        if holds {
            return self.fine(is, should_be);
        }
        self.finding(otherwise, is.into(), should_be.into(), Some(mend.into()))
    }

    /// Of a key that a network namespace other than the host's own does not show.
    pub(crate) fn unread_here<T>(
        &self,
        reading: &Reading<T>,
        should_be: impl Into<String>,
    ) -> Finding {
        match reading {
            Reading::Absent => self.fine(
                "not shown in this network namespace; `sockudo doctor` on the host sees it",
                should_be,
            ),
            Reading::Is(_) | Reading::Denied | Reading::Strange(_) => {
                self.unread(reading, should_be)
            }
        }
    }

    /// Of a value that could not be had.
    pub(crate) fn unread<T>(&self, reading: &Reading<T>, should_be: impl Into<String>) -> Finding {
        let (is, mend) = match reading {
            Reading::Is(_) | Reading::Absent => (
                "not there".to_owned(),
                "look at the host itself if this is a container".to_owned(),
            ),
            Reading::Denied => (
                "cannot be read as this user".to_owned(),
                "run `sockudo doctor` as root".to_owned(),
            ),
            Reading::Strange(text) => (
                format!("not understood: {text:?}"),
                "look at it by hand".to_owned(),
            ),
        };
        self.finding(Severity::Warning, is, should_be.into(), Some(mend))
    }

    fn finding(
        &self,
        severity: Severity,
        is: String,
        should_be: String,
        mend: Option<String>,
    ) -> Finding {
        Finding {
            check: self.check.to_owned(),
            group: self.group,
            severity,
            is,
            should_be,
            why: self.why,
            mend,
        }
    }
}

/// The worst of all.
pub fn verdict(findings: &[Finding]) -> Severity {
    let severities = findings.iter().map(|finding| finding.severity);
    severities.max().unwrap_or(Severity::Fine)
}

/// Groups with the worst first, and in each the worst first; what is alike keeps the order of the checks.
pub(crate) fn sort(findings: &mut [Finding]) {
    let worst: Vec<(Group, Severity)> = findings.iter().map(|it| (it.group, it.severity)).collect();
    let worst_of = |group: Group| {
        let of_group = worst.iter().filter(|(it, _)| *it == group);
        of_group.map(|(_, severity)| *severity).max()
    };
    findings.sort_by(|a, b| {
        let groups = worst_of(b.group)
            .cmp(&worst_of(a.group))
            .then(a.group.cmp(&b.group));
        groups.then(b.severity.cmp(&a.severity))
    });
}
