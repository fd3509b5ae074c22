//! Findings as text for a person.
//!
//! Owns: the page that `sockudo doctor` prints.
//! May depend on: `check`, `finding`, `host`, `target`.
//! Invariants: without ink there is no escape sequence, and no byte from a file of the host that could be one.

use std::fmt::Write as _;

use crate::{
    check::number,
    finding::{Finding, Severity, verdict},
    host::Host,
    target::Target,
};

/// Whether the page has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// For a file, a pipe, or `NO_COLOR`.
    None,
    /// For a terminal.
    Colours,
}

impl Ink {
    fn paint(self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Fine => "32",
            Severity::Warning => "33",
            Severity::Blocking => "1;31",
        };
        match self {
            Self::None => text.to_owned(),
            Self::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The page, worst first.
pub fn text(host: &Host, target: &Target, findings: &[Finding], ink: Ink) -> String {
    let needs = target.needs(host);
    let shards = crate::check::shards(needs.shards);
    let mut out = format!(
        "This host for {} connections on {shards}\n",
        number(needs.connections)
    );
    let mut group = None;
    for finding in findings {
        if group != Some(finding.group) {
            let _ = write!(out, "\n{}\n", finding.group.name());
            group = Some(finding.group);
        }
        push(&mut out, finding, ink);
    }
    let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
    let (blocking, warnings, fine) = (
        count(Severity::Blocking),
        count(Severity::Warning),
        count(Severity::Fine),
    );
    let worst = verdict(findings);
    let summary = format!("{blocking} blocking, {warnings} to mend, {fine} fine");
    let _ = write!(out, "\n{}\n", ink.paint(worst, &summary));
    out
}

fn push(out: &mut String, finding: &Finding, ink: Ink) {
    let word = match finding.severity {
        Severity::Fine => "fine",
        Severity::Warning => "warning",
        Severity::Blocking => "blocking",
    };
    let word = ink.paint(finding.severity, &format!("{word:8}"));
    let (check, is) = (plain(&finding.check), plain(&finding.is));
    let Some(mend) = &finding.mend else {
        let _ = writeln!(out, "  {word}  {check}: {is}");
        return;
    };
    let _ = writeln!(out, "  {word}  {check}");
    for (label, text) in [
        ("is", &*is),
        ("should", &*plain(&finding.should_be)),
        ("why", finding.why),
        ("mend", &*plain(mend)),
    ] {
        let _ = writeln!(out, "            {label:7} {text}");
    }
}

/// What stands in a file could steer a terminal.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
