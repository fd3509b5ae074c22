//! Upgrade: another process of the server takes over, again and again, while its connections are published to. For
//! how long does any of them hear nothing?
//!
//! Owns: the `upgrade` scenario; its two requests on the admin socket.
//! May depend on: what its siblings may, and `fanout`.
//! Invariants: the load before and meanwhile is the same, and at least one upgrade is whole within it; who is in the
//! middle of one is waited for; what was lost, came twice or was closed is a fault.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Deserialize;

use super::{
    count,
    fanout::{Load, Rooms},
    whole,
};
use crate::{
    casts::index,
    crowd::{Crowd, Subscription},
    outcome::{Outcome, Setting},
    pace::Pace,
    requests::Requests,
    rig::{self, Rig, RunError, figure, setting},
    target::Target,
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Upgrade {
    /// The server's admin.socket
    #[arg(long, value_name = "PATH")]
    pub admin_socket: PathBuf,
    /// Connections that are carried over, ten in each channel, 10..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = count(10..=1_000_000))]
    pub connections: usize,
    /// Bytes of an event's data, 16..=100000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=100_000))]
    pub message_bytes: usize,
    /// Publish requests per second, over all channels in turn, 1..=100000
    #[arg(long, value_name = "RATE", default_value_t = 500, value_parser = whole(1..=100_000))]
    pub rate: u64,
}

const MEMBERS: u64 = 10;
const PUBLISHERS: usize = 4;
/// Between two upgrades.
const REST: Duration = Duration::from_millis(200);
/// Between two looks whether one is over.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// An upgrade that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server says of its last upgrade.
#[derive(Debug, Deserialize)]
struct Report {
    number: u64,
    state: String,
    reason: Option<String>,
    silence_ms: f64,
}

/// Those of a run.
#[derive(Debug, Default)]
struct Upgrades {
    count: u64,
    longest_silence_ms: f64,
}

impl Upgrade {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let mut crowd = rig.crowd(self.connections + PUBLISHERS)?;
        let rooms = Rooms {
            count: self.connections as u64 / MEMBERS,
            members: MEMBERS,
        };
        rig.join(&mut crowd, index(rooms.count * MEMBERS), |client| {
            vec![Subscription::to(channel(rig, rooms, client as u64))]
        })?;

        // The first half: nobody takes over.
        let before = self.publish(rig, &mut crowd, rooms)?;
        let (before, faults) = before.into_baseline(&mut crowd);

        // No one process serves for the whole of the second one.
        let unread = Rig {
            target: Target {
                pid: None,
                ..rig.target.clone()
            },
            ..rig.clone()
        };
        let meter = unread.start()?;
        let is_over = AtomicBool::new(false);
        let (load, upgrades) = thread::scope(|threads| {
            let upgrading = threads.spawn(|| self.upgrade(&is_over));
            let load = self.publish(rig, &mut crowd, rooms);
            is_over.store(true, Ordering::Relaxed);
            let upgrades = upgrading.join().map_err(|_| RunError::Thread)??;
            Ok::<_, RunError>((load?, upgrades))
        })?;
        let late_ms = load.pace.late_ms();
        let mut outcome = meter.finish(&unread, "upgrade", self.settings(rig), late_ms)?;
        outcome.faults = faults;
        outcome = load.complete(outcome);
        outcome.figures.extend([
            figure("upgrades", "upgrades", "", upgrades.count as f64),
            figure(
                "upgrade_silence_ms",
                "longest silence, as the server says",
                "ms",
                upgrades.longest_silence_ms,
            ),
        ]);
        outcome.latencies.push(before);
        Ok(outcome)
    }

    /// Publishes for half of the time.
    fn publish(&self, rig: &Rig, crowd: &mut Crowd, rooms: Rooms) -> Result<Load, RunError> {
        let requests = Requests::open(crowd, PUBLISHERS)?;
        let pace = Pace::new(rig::beginning(), self.rate, rig.seconds.div_ceil(2));
        let mut load = Load::new(pace, requests, rooms, 1);
        load.run(rig, crowd, self.message_bytes, |number| {
            channel(rig, rooms, number)
        })?;
        Ok(load)
    }

    fn upgrade(&self, is_over: &AtomicBool) -> Result<Upgrades, RunError> {
        let mut upgrades = Upgrades::default();
        loop {
            let report = one_upgrade(&self.admin_socket)?;
            upgrades.count += 1;
            upgrades.longest_silence_ms = upgrades.longest_silence_ms.max(report.silence_ms);
            thread::sleep(REST);
            if is_over.load(Ordering::Relaxed) {
                return Ok(upgrades);
            }
        }
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections),
            setting("rate", self.rate),
            setting("message-bytes", self.message_bytes),
        ]
    }
}

/// The channel of a connection, or of a publish.
fn channel(rig: &Rig, rooms: Rooms, number: u64) -> String {
    rig.channel(&format!("upgrade-{}", number % rooms.count))
}

/// Has another process take over and waits until it serves.
fn one_upgrade(socket: &Path) -> Result<Report, RunError> {
    let refused = |reason: &str| RunError::Refused(format!("an upgrade: {reason}"));
    let begun = ask(socket, "POST")?;
    let ends = Instant::now() + PATIENCE;
    while Instant::now() < ends {
        thread::sleep(LOOKS_EVERY);
        // The socket changes hands meanwhile.
        let Ok(report) = ask(socket, "GET") else {
            continue;
        };
        match report.state.as_str() {
            "done" if report.number >= begun.number => return Ok(report),
            "failed" => return Err(refused(report.reason.as_deref().unwrap_or_default())),
            _ => {}
        }
    }
    let seconds = PATIENCE.as_secs();
    Err(refused(&format!("it was not over after {seconds} s")))
}

fn ask(socket: &Path, method: &str) -> Result<Report, RunError> {
    let named = |error: io::Error| {
        RunError::Setting(format!("--admin-socket {}: {error}", socket.display()))
    };
    let stream = UnixStream::connect(socket).map_err(named)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request =
        format!("{method} /upgrade HTTP/1.1\r\nHost: sockudo\r\nContent-Length: 0\r\n\r\n");
    let (status, body) = wire::exchange(stream, request.as_bytes()).map_err(named)?;
    serde_json::from_slice(&body).map_err(|_| {
        let body = String::from_utf8_lossy(&body);
        RunError::Refused(format!("an upgrade: {status} {body}"))
    })
}
