//! Carry: so many connections, some of them published to: does the target carry them, and what was the limit?
//!
//! Owns: the `carry` scenario; its profiles; the verdict.
//! May depend on: what its siblings may, `sources`, `strain`.
//! Invariants: a target that is not on loopback is named twice; the first trouble ends the joining, so that a
//! server that refuses is not pressed; there is a verdict, also of a run that did not begin.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use super::{
    DELIVERED_CPU, count,
    fanout::{Load, Rooms},
    whole,
};
use crate::{
    casts::index,
    crowd::{Crowd, Heard, Kind, Subscription},
    outcome::{Limit, Outcome, Series, Setting, Verdict},
    pace::Pace,
    requests::Requests,
    rig::{self, Meter, Rig, RunError, cpu_figures, figure, setting},
    sources::{self, Sources},
    strain::{self, Strain},
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Carry {
    /// What the load is meant for; it says the defaults of --connections and --rate: laptop 1000 and 50,
    /// one-host 50000 and 200, two-hosts 200000 and 1000
    #[arg(long, value_enum, default_value_t = Profile::Laptop)]
    pub profile: Profile,
    /// Connections, 1..=1000000 [default: the profile's]
    #[arg(long, value_name = "COUNT", value_parser = count(1..=1_000_000))]
    pub connections: Option<usize>,
    /// Members of each channel that is published to, 1..=10000
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = count(1..=10_000))]
    pub members: usize,
    /// Publish requests per second, over all channels in turn, 1..=100000 [default: the profile's]
    #[arg(long, value_name = "RATE", value_parser = whole(1..=100_000))]
    pub rate: Option<u64>,
    /// Bytes of an event's data, 16..=10000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = count(16..=10_000))]
    pub message_bytes: usize,
    /// Milliseconds within which 99 % of deliveries must come, 1..=60000
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = whole(1..=60_000))]
    pub objective_ms: u64,
    /// Address of this host to connect from, once for each; on loopback they are found without it
    #[arg(long = "source", value_name = "ADDRESS")]
    pub sources: Vec<Ipv4Addr>,
    /// Connections of one source address, 1..=64000 [default: what the kernel's range of ports gives]
    #[arg(long, value_name = "COUNT", value_parser = count(1..=64_000))]
    pub ports_per_address: Option<usize>,
    /// The target's host again, if it is not on loopback: you own it, or may put load on it
    #[arg(long, value_name = "HOST")]
    pub i_own: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Server and clients on a machine that has other work
    Laptop,
    /// Server and clients share one host
    OneHost,
    /// Clients here, the server elsewhere
    TwoHosts,
}

/// Connections under way at once.
const WAVE: usize = 200;
/// So long nobody joins: the target takes no more.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// Below this part of its memory a host is about to end processes.
const LEAST_MEMORY: f64 = 0.03;
/// A server keeps so many files from its clients.
const SERVERS_OWN_FILES: u64 = 256 + 64;
/// A thread busier than this queues.
const BUSY: f64 = 0.85;
/// With less idle time than this, the host's cores are the limit.
const LEAST_IDLE: f64 = 0.03;
const PUBLISHERS: usize = 4;

/// Why it went no further.
struct Stop(Limit, String);

/// How the joining went.
struct Joined {
    count: usize,
    took: Duration,
    points: Vec<(f64, f64)>,
    stop: Option<Stop>,
}

impl Carry {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        self.check_target(&rig.target.authority, rig.target.address.ip())?;
        let meter = rig.start()?;
        let each = self.ports_per_address.unwrap_or_else(sources::ports_each);
        let connections = self.connections();
        let ip = rig.target.address.ip();
        let plan = match Sources::plan(ip, connections, each, &self.sources) {
            Ok(plan) => plan,
            Err(error) => {
                let stop = Stop(Limit::Ports, error.to_string());
                return self.stopped(rig, meter, 1, Joined::none(stop));
            }
        };
        let addresses = plan.count();
        let mut crowd = match rig.crowd(connections + PUBLISHERS) {
            Ok(crowd) => crowd.from(plan),
            Err(error @ RunError::Descriptors { .. }) => {
                let stop = Stop(Limit::Files, error.to_string());
                return self.stopped(rig, meter, addresses, Joined::none(stop));
            }
            Err(error) => return Err(error),
        };
        let rooms = self.rooms();
        let joined = self.join(rig, &mut crowd, rooms)?;
        if joined.stop.is_some() {
            return self.stopped(rig, meter, addresses, joined);
        }
        self.load(rig, crowd, rooms, addresses, joined)
    }

    fn connections(&self) -> usize {
        self.connections.unwrap_or(match self.profile {
            Profile::Laptop => 1_000,
            Profile::OneHost => 50_000,
            Profile::TwoHosts => 200_000,
        })
    }

    fn rate(&self) -> u64 {
        self.rate.unwrap_or(match self.profile {
            Profile::Laptop => 50,
            Profile::OneHost => 200,
            Profile::TwoHosts => 1_000,
        })
    }

    /// Channels of `members` each; who is left over has a channel that is silent.
    fn rooms(&self) -> Rooms {
        let members = self.members.min(self.connections());
        Rooms {
            count: (self.connections() / members) as u64,
            members: members as u64,
        }
    }

    fn check_target(&self, authority: &str, address: IpAddr) -> Result<(), RunError> {
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let said = match (address.is_loopback(), &self.i_own) {
            (true, _) if self.profile == Profile::TwoHosts => format!(
                "the profile two-hosts is for a server elsewhere, and {host} is this host; \
                 --target HOST:PORT --i-own HOST names one, --profile one-host stays here"
            ),
            (true, _) => return Ok(()),
            (false, Some(named)) if named == host => return Ok(()),
            (false, Some(named)) => format!("--i-own {named} is not the target's host, {host}"),
            (false, None) => format!(
                "{host} is not this host; if you own it or may put load on it, add --i-own {host}"
            ),
        };
        Err(RunError::Setting(said))
    }

    fn join(&self, rig: &Rig, crowd: &mut Crowd, rooms: Rooms) -> Result<Joined, RunError> {
        let all = self.connections();
        let members = index(rooms.count * rooms.members);
        let began = Instant::now();
        let mut joined = Joined::none_yet();
        let (mut opened, mut progress_at, mut looks_at) = (0, began, began);
        let mut is_reached = false;
        while joined.count < all && joined.stop.is_none() {
            while opened < all && opened - joined.count < WAVE && joined.stop.is_none() {
                let channel = match opened < members {
                    true => rig.channel(&format!("carry-{}", opened as u64 % rooms.count)),
                    false => rig.channel("carry-rest"),
                };
                match crowd.open(Kind::WebSocket, vec![Subscription::to(channel)]) {
                    Ok(_) => opened += 1,
                    Err(error) => joined.stop = Some(of_socket(&error, joined.count)),
                }
            }
            let before = joined.count;
            crowd.turn(Instant::now(), &mut |_, _, heard| match heard {
                Heard::Connected => is_reached = true,
                Heard::Subscribed => joined.count += 1,
                Heard::Refused(said) => joined.stops(of_refusal(rig, said)),
                Heard::Ended(reason) => joined.stops(of_end(rig, is_reached, reason)),
                Heard::Established | Heard::Event { .. } | Heard::Answer { .. } => {}
            })?;
            let now = Instant::now();
            if joined.count > before {
                progress_at = now;
            } else if now - progress_at > PATIENCE {
                joined.stops(Stop(
                    Limit::Stalled,
                    format!("nobody was subscribed for {} s", PATIENCE.as_secs()),
                ));
            }
            if now >= looks_at {
                looks_at = now + LOOKS_EVERY;
                joined.look(now - began, all);
            }
        }
        joined.took = began.elapsed();
        joined.look(joined.took, all);
        clear_progress();
        Ok(joined)
    }

    fn load(
        &self,
        rig: &Rig,
        mut crowd: Crowd,
        rooms: Rooms,
        addresses: usize,
        joined: Joined,
    ) -> Result<Outcome, RunError> {
        let memory = rig.usage()?.map(|usage| usage.rss_bytes);
        let requests = Requests::open(&mut crowd, PUBLISHERS)?;
        let strain = Strain::start(rig.target.pid);
        let meter = rig.start()?;
        let pace = Pace::new(rig::beginning(), self.rate(), rig.seconds);
        let mut load = Load::new(pace, requests, rooms, 1);
        load.run(rig, &mut crowd, self.message_bytes, |number| {
            rig.channel(&format!("carry-{}", number % rooms.count))
        })?;
        let late_ms = load.pace.late_ms();
        let mut outcome = meter.finish(rig, "carry", self.settings(rig, addresses), late_ms)?;
        outcome.figures = cpu_figures(&outcome, load.received(), DELIVERED_CPU);
        let mut outcome = load.complete(outcome);
        let busiest = strain.busiest_thread();
        outcome.figures.extend(busiest.map(|share| {
            let label = "CPU of the server's busiest thread, of a core";
            figure("busiest_thread_percent", label, "%", share * 100.0)
        }));
        outcome.figures.extend(memory.map(|bytes| {
            figure(
                "server_resident_bytes",
                "memory of the server",
                "B",
                bytes as f64,
            )
        }));
        let judged = self.judge(rig, &outcome, busiest, strain.host_idle());
        self.tell(&mut outcome, joined, judged);
        Ok(outcome)
    }

    /// What was the limit of a load that all had joined; none: it was carried.
    fn judge(
        &self,
        rig: &Rig,
        outcome: &Outcome,
        busiest: Option<f64>,
        host_idle: Option<f64>,
    ) -> Option<Stop> {
        if let Some(void) = &outcome.void {
            return Some(Stop(Limit::Generator, void.clone()));
        }
        if rig.target.pid.is_some_and(|pid| !strain::is_running(pid)) {
            let words = "the server's process has ended; its log says why".to_owned();
            return Some(Stop(Limit::ServerGone, words));
        }
        let latency = outcome.latencies.iter().find(|it| it.key == "delivery");
        let p99_ms = latency.map_or(0.0, |it| it.percentile_ms(99.0));
        let symptom = match outcome.faults.first() {
            Some(fault) => fault.clone(),
            None if p99_ms > self.objective_ms as f64 => format!(
                "99 % of deliveries within {p99_ms:.0} ms instead of {} ms",
                self.objective_ms
            ),
            None => return None,
        };
        let limit = match (busiest, host_idle) {
            (Some(busy), _) if busy >= BUSY => Limit::ServerCpu,
            (_, Some(idle)) if idle <= LEAST_IDLE => Limit::HostCpu,
            _ if outcome.faults.is_empty() => Limit::Latency,
            _ => Limit::Faults,
        };
        Some(Stop(limit, symptom))
    }

    /// The outcome of a load that did not begin.
    fn stopped(
        &self,
        rig: &Rig,
        meter: Meter,
        addresses: usize,
        mut joined: Joined,
    ) -> Result<Outcome, RunError> {
        let settings = self.settings(rig, addresses);
        let mut outcome = meter.finish(rig, "carry", settings, (0.0, 0.0))?;
        outcome.void = None; // It joined as fast as it could: nothing was scheduled.
        let stop = joined.stop.take();
        self.tell(&mut outcome, joined, stop);
        Ok(outcome)
    }

    fn tell(&self, outcome: &mut Outcome, joined: Joined, stop: Option<Stop>) {
        let seconds = joined.took.as_secs_f64().max(0.001);
        let per_s = joined.count as f64 / seconds;
        outcome.figures.extend([
            figure(
                "connections",
                "connections subscribed",
                "",
                joined.count as f64,
            ),
            figure("joined_per_s", "of them per second, joining", "1/s", per_s),
        ]);
        outcome.series.push(Series {
            key: "connections",
            label: "connections subscribed, while joining",
            unit: "",
            points: joined.points,
        });
        let (limit, words) = match stop {
            None => (None, String::new()),
            Some(Stop(limit, words)) => (Some(limit), words),
        };
        outcome.verdict = Some(Verdict {
            has_passed: limit.is_none(),
            limit,
            words,
            connections: joined.count,
            asked: self.connections(),
        });
    }

    fn settings(&self, rig: &Rig, addresses: usize) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("connections", self.connections()),
            setting("source-addresses", addresses),
            setting("members", self.rooms().members),
            setting("message-bytes", self.message_bytes),
            setting("rate", self.rate()),
            setting("objective-ms", self.objective_ms),
        ]
    }
}

impl Joined {
    fn none_yet() -> Self {
        Self {
            count: 0,
            took: Duration::ZERO,
            points: Vec::new(),
            stop: None,
        }
    }

    fn none(stop: Stop) -> Self {
        Self {
            stop: Some(stop),
            ..Self::none_yet()
        }
    }

    /// The first reason counts.
    fn stops(&mut self, stop: Stop) {
        self.stop.get_or_insert(stop);
    }

    /// Once a second: shows how far it is, and whether the host can go on.
    fn look(&mut self, passed: Duration, all: usize) {
        self.points.push((passed.as_secs_f64(), self.count as f64));
        let memory = strain::memory_left();
        if let Some(left) = memory.filter(|left| *left < LEAST_MEMORY) {
            let words = format!("this host has {:.1} % of its memory left", left * 100.0);
            self.stops(Stop(Limit::Memory, words));
        }
        show_progress(passed, self.count, all);
    }
}

/// On a terminal in one line; elsewhere a line per ten seconds.
fn show_progress(passed: Duration, joined: usize, all: usize) {
    let line = format!(
        "{:6.1} s  {joined} of {all} subscribed",
        passed.as_secs_f64()
    );
    let mut stderr = io::stderr();
    // A terminal that has gone away does not stop the run.
    let _ = match stderr.is_terminal() {
        true => write!(stderr, "\r{line}\x1b[K"),
        false if passed.as_secs().is_multiple_of(10) || joined == all => writeln!(stderr, "{line}"),
        false => Ok(()),
    };
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

fn of_socket(error: &io::Error, joined: usize) -> Stop {
    let limit = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Limit::Files,
        Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Limit::Ports,
        Some(libc::ENOBUFS | libc::ENOMEM) => Limit::Memory,
        _ => Limit::Unreachable,
    };
    Stop(
        limit,
        format!("a socket after {joined} connections: {error}"),
    )
}

fn of_refusal(rig: &Rig, said: &[u8]) -> Stop {
    let words = wire::error_words(said);
    let words = format!("the server refused a connection: {words}");
    of_files(rig, &words).unwrap_or(Stop(Limit::ServerRefused, words))
}

fn of_end(rig: &Rig, is_reached: bool, reason: &str) -> Stop {
    if rig.target.pid.is_some_and(|pid| !strain::is_running(pid)) {
        let words = format!("the server's process has ended; its log says why ({reason})");
        return Stop(Limit::ServerGone, words);
    }
    if !is_reached {
        return Stop(Limit::Unreachable, format!("the server: {reason}"));
    }
    let words = format!("a connection ended before it was subscribed: {reason}");
    of_files(rig, &words).unwrap_or(Stop(Limit::ServerClosed, words))
}

/// Whatever the server said: it has hardly a file left.
fn of_files(rig: &Rig, words: &str) -> Option<Stop> {
    let (open, limit) = rig.target.pid.and_then(strain::files)?;
    let words = || format!("{words}; it has {open} of {limit} files open");
    (open + SERVERS_OWN_FILES >= limit).then(|| Stop(Limit::ServerFiles, words()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry(profile: Profile, i_own: Option<&str>) -> Carry {
        Carry {
            profile,
            connections: None,
            members: 20,
            rate: None,
            message_bytes: 200,
            objective_ms: 200,
            sources: Vec::new(),
            ports_per_address: None,
            i_own: i_own.map(str::to_owned),
        }
    }

    #[test]
    fn a_host_that_is_not_this_one_must_be_named_twice() {
        let (here, there) = (IpAddr::from([127, 0, 0, 9]), IpAddr::from([10, 0, 0, 7]));
        for (profile, i_own, authority, address, is_allowed) in [
            (Profile::Laptop, None, "127.0.0.9:6001", here, true),
            (Profile::OneHost, None, "localhost:6001", here, true),
            (Profile::TwoHosts, None, "localhost:6001", here, false),
            (Profile::Laptop, None, "ws.shop.test:80", there, false),
            (Profile::TwoHosts, None, "ws.shop.test:80", there, false),
            (
                Profile::TwoHosts,
                Some("ws.shop.test"),
                "ws.shop.test:80",
                there,
                true,
            ),
            (
                Profile::TwoHosts,
                Some("shop.test"),
                "ws.shop.test:80",
                there,
                false,
            ),
            (
                Profile::Laptop,
                Some("10.0.0.7"),
                "10.0.0.7:6001",
                there,
                true,
            ),
        ] {
            let checked = carry(profile, i_own).check_target(authority, address);
            assert_eq!(
                checked.is_ok(),
                is_allowed,
                "{profile:?} {i_own:?} {authority}"
            );
        }
    }

    #[test]
    fn rooms_hold_all_whom_they_can_and_are_never_larger_than_the_crowd() {
        for (connections, members, rooms) in [
            (1_000, 20, (50, 20)),
            (19, 20, (1, 19)),
            (50, 20, (2, 20)),
            (1, 20, (1, 1)),
        ] {
            let carry = Carry {
                connections: Some(connections),
                members,
                ..carry(Profile::Laptop, None)
            };
            let planned = carry.rooms();
            assert_eq!((planned.count, planned.members), rooms, "{connections}");
        }
    }

    #[test]
    fn what_a_socket_lacks_is_named() {
        for (code, limit) in [
            (libc::EMFILE, Limit::Files),
            (libc::EADDRNOTAVAIL, Limit::Ports),
            (libc::ENOBUFS, Limit::Memory),
            (libc::ENETUNREACH, Limit::Unreachable),
        ] {
            let Stop(found, _) = of_socket(&io::Error::from_raw_os_error(code), 7);
            assert_eq!(found, limit);
        }
    }
}
