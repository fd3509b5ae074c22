//! Limits: the unit's drop-in, those of sessions, and the unit that runs the script at the boot.
//!
//! Owns: these files.
//! May depend on: `host`, `target`.
//! Invariants: a drop-in sets limits only; what else the unit says is the operator's.

use crate::{
    check,
    host::{Host, limits::Limit, unit::Unit},
    target::Needs,
};

/// The unit that the drop-in is for.
pub(super) fn name(host: &Host) -> String {
    let name = host
        .unit
        .as_ref()
        .and_then(|unit| unit.path.rsplit('/').next());
    name.unwrap_or("sockudo.service").to_owned()
}

/// Limits of the unit: what is needed, and never less than it has.
struct UnitLimits {
    files: u64,
    locked_bytes: u64,
    threads: u64,
}

impl UnitLimits {
    fn of(unit: Option<&Unit>, needs: &Needs) -> Self {
        let files = unit.map_or(FILES_OF_OURS, |unit| unit.files.hard);
        let locked = unit.map_or(Some(LOCKED_OF_OURS), |unit| Some(unit.locked_bytes?.hard));
        let threads = unit.and_then(|unit| unit.threads).unwrap_or(TASKS_USUAL);
        Self {
            files: files.max(needs.files),
            locked_bytes: locked.unwrap_or(0).max(needs.locked_bytes),
            threads: threads.max(needs.threads),
        }
    }
}

fn written(value: u64) -> String {
    match value {
        u64::MAX => "infinity".to_owned(),
        value => value.to_string(),
    }
}

pub(super) fn drop_in(host: &Host, needs: &Needs) -> String {
    let limits = UnitLimits::of(host.unit.as_ref(), needs);
    format!(
        "# Written by `sockudo tune` for {connections} connections.\n[Service]\n\
         # An open file for each connection, and for requests, rings and backends (docs/host.md).\n\
         LimitNOFILE={files}\n\
         # What the rings of {shards} register.\n\
         LimitMEMLOCK={locked}\n\
         # A thread per shard, and some beside.\n\
         TasksMax={threads}\n",
        connections = needs.connections,
        files = written(limits.files),
        shards = check::shards(needs.shards),
        locked = written(limits.locked_bytes),
        threads = written(limits.threads),
    )
}

pub(super) fn limits(host: &Host, needs: &Needs) -> String {
    // What sessions may have already is never made less.
    let there = host.limits.value();
    let files = there.map_or(0, |it| it.files.hard).max(needs.files);
    let locked = there
        .map_or(0, |it| it.locked_bytes.hard)
        .max(needs.locked_bytes);
    let shown = |value: u64, unit: u32| match value {
        u64::MAX => "unlimited".to_owned(),
        value => (value >> unit).to_string(),
    };
    format!(
        "# Written by `sockudo tune`: for a server or a load generator that a person starts in a\n\
         # session of the user sockudo or of root. The unit has its own limits. limits.conf(5)\n\
         sockudo - nofile {files}\nsockudo - memlock {locked}\nroot - nofile {files}\n",
        // There is no such word for files.
        files = shown(files.min(FILES_MOST.max(needs.files)), 0),
        locked = shown(locked, 10),
    )
}

/// The kernel gives no process more, unless fs.nr_open says so.
const FILES_MOST: u64 = 1 << 20;

/// The unit of this release, or the one that is there, with the drop-in.
pub(super) fn applied(unit: Option<&Unit>, needs: &Needs) -> Unit {
    let whole = |value| Limit {
        soft: value,
        hard: value,
    };
    let ours = || Unit {
        path: "/etc/systemd/system/sockudo.service".to_owned(),
        kind: Some("notify".to_owned()),
        stop_ms: Some(40_000),
        ..Unit::default()
    };
    let limits = UnitLimits::of(unit, needs);
    Unit {
        files: whole(limits.files),
        locked_bytes: Some(whole(limits.locked_bytes)),
        threads: Some(limits.threads),
        ..unit.cloned().unwrap_or_else(ours)
    }
}

/// systemd/sockudo.service.
const FILES_OF_OURS: u64 = 1_048_576;
const LOCKED_OF_OURS: u64 = 64 << 20;
/// More than a server ever starts, for what an operator attaches to the unit.
const TASKS_USUAL: u64 = 4_096;

pub(super) const OF_SCRIPT: &str = "\
# Written by `sockudo tune`: what is lost with each boot is set again before the server starts.
[Unit]
Description=Interrupts, packet queues and cores as Sockudo wants them
After=network.target
Before=sockudo.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/sockudo-host

[Install]
WantedBy=multi-user.target
";
