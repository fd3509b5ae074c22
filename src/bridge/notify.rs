//! What the supervisor that started this process is told: systemd's protocol of notifications.
//!
//! Owns: the socket of `NOTIFY_SOCKET`, the watchdog's times, the words (sd_notify(3)).
//! May depend on: libc (the clock that a reload is stamped with), Unix datagrams. Time is an argument.
//! Invariants: nothing waits for the supervisor: what it does not take is lost; the watchdog is fed only by
//! who says that the shards turn; `READY=1` comes once, and again after a reload.

use std::{
    collections::BTreeMap,
    io,
    os::{linux::net::SocketAddrExt as _, unix::net},
    path::Path,
    time::{Duration, Instant},
};

/// The supervisor, if there is one.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<Socket>,
    watchdog: Option<Watchdog>,
    is_ready: bool,
    /// It hears of another process.
    is_held: bool,
    /// The last status, which is not said twice.
    status: String,
}

#[derive(Debug)]
struct Socket {
    from: net::UnixDatagram,
    to: net::SocketAddr,
}

/// When to feed next.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    every: Duration,
    due: Instant,
}

impl Supervisor {
    /// Finds the supervisor in the environment of a process with this number. Whatever is wrong there is logged,
    /// and the node goes on without.
    pub fn find(environment: &BTreeMap<String, String>, pid: u32, now: Instant) -> Self {
        let Some(name) = environment.get("NOTIFY_SOCKET").filter(|it| !it.is_empty()) else {
            return Self::default();
        };
        let socket = match Socket::open(name) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "the supervisor's socket (NOTIFY_SOCKET) cannot be used");
                return Self::default();
            }
        };
        Self {
            socket: Some(socket),
            watchdog: Watchdog::find(environment, pid, now),
            ..Self::default()
        }
    }

    /// Clients may come.
    pub(super) fn ready(&mut self) {
        self.is_ready = true;
        self.say("READY=1");
    }

    /// A reload begins; `reloaded` ends it.
    pub(super) fn reloading(&self) {
        // Before it is ready a unit has nothing to reload.
        if self.is_ready {
            self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
        }
    }

    pub(super) fn reloaded(&self) {
        if self.is_ready {
            self.say("READY=1");
        }
    }

    /// Nothing is said until `named`: it listens to another process. systemd would complain of each word.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// It listens to this process from now on.
    pub(super) fn named(&mut self) {
        if std::mem::take(&mut self.is_held) {
            self.status.clear();
            if self.is_ready {
                self.say("READY=1");
            }
        }
    }

    /// The service is another process from now on, which says the rest. Only the main process is believed, so the
    /// one that goes says it.
    pub(super) fn main_is(&mut self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
        self.hold();
    }

    /// A drain begins.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub(super) fn status(&mut self, status: String) {
        if self.socket.is_some() && !self.is_held && self.status != status {
            self.say(&format!("STATUS={status}"));
            self.status = status;
        }
    }

    /// When `feed` is to be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.watchdog.map(|watchdog| watchdog.due)
    }

    /// Feeds the watchdog if it is time and everything turns; else it looks again soon.
    pub(super) fn feed(&mut self, now: Instant, everything_turns: impl FnOnce() -> bool) {
        let Some(watchdog) = &mut self.watchdog else {
            return;
        };
        if now >= watchdog.due && watchdog.step(now, everything_turns()) {
            self.say("WATCHDOG=1");
        }
    }

    /// A supervisor that is slow or gone must not stop the bridge.
    fn say(&self, state: &str) {
        let Some(Socket { from, to }) = self.socket.as_ref().filter(|_| !self.is_held) else {
            return;
        };
        if let Err(error) = from.send_to_addr(state.as_bytes(), to) {
            tracing::debug!(%error, state, "the supervisor was not told");
        }
    }
}

impl Socket {
    fn open(name: &str) -> io::Result<Self> {
        let to = match name.strip_prefix('@') {
            Some(name) => net::SocketAddr::from_abstract_name(name)?,
            None if Path::new(name).is_absolute() => net::SocketAddr::from_pathname(name)?,
            None => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        };
        let from = net::UnixDatagram::unbound()?;
        from.set_nonblocking(true)?;
        Ok(Self { from, to })
    }
}

impl Watchdog {
    fn find(environment: &BTreeMap<String, String>, pid: u32, now: Instant) -> Option<Self> {
        let of_another = |text: &String| text.parse() != Ok(pid);
        if environment.get("WATCHDOG_PID").is_some_and(of_another) {
            return None;
        }
        let period_us: u64 = environment.get("WATCHDOG_USEC")?.parse().ok()?;
        let every = Duration::from_micros(period_us) / 2;
        (!every.is_zero()).then_some(Self { every, due: now })
    }

    /// Whether to feed now.
    fn step(&mut self, now: Instant, everything_turns: bool) -> bool {
        let next = match everything_turns {
            true => self.every,
            false => self.every.min(LOOKS_AGAIN_AFTER),
        };
        self.due = now + next;
        everything_turns
    }
}

/// A stall that just ended should not look like one that lasts.
const LOOKS_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The clock that systemd compares a reload with.
fn monotonic_us() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000 + nanoseconds / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn the_watchdog_is_fed_at_half_its_time_by_whoever_it_is_meant_for() {
        let now = Instant::now();
        for (pairs, every_us) in [
            (&[("WATCHDOG_USEC", "30000000")][..], Some(15_000_000)),
            (
                &[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "7")],
                Some(15_000_000),
            ),
            (
                &[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "8")],
                None,
            ),
            (
                &[("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "x")],
                None,
            ),
            (&[("WATCHDOG_USEC", "0")], None),
            (&[("WATCHDOG_USEC", "-1")], None),
            (&[], None),
        ] {
            let found = Watchdog::find(&environment(pairs), 7, now);
            assert_eq!(
                found.map(|it| it.every),
                every_us.map(Duration::from_micros),
                "{pairs:?}"
            );
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn a_stall_starves_the_watchdog_until_it_ends() {
        let now = Instant::now();
        let every = Duration::from_secs(15);
        let mut watchdog = Watchdog { every, due: now };
        assert!(watchdog.step(now, true));
        assert_eq!(watchdog.due, now + every);
        assert!(!watchdog.step(watchdog.due, false));
        assert_eq!(watchdog.due, now + every + LOOKS_AGAIN_AFTER);
        assert!(watchdog.step(watchdog.due, true));
        // A period shorter than the wait is kept.
        let every = Duration::from_millis(10);
        let mut watchdog = Watchdog { every, due: now };
        assert!(!watchdog.step(now, false));
        assert_eq!(watchdog.due, now + every);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a moment to count from")]
    fn a_socket_that_cannot_be_used_is_done_without() {
        let long = format!("/{}", "x".repeat(200));
        for name in ["", "relative", &long, "@\0\0", "vsock:2:1234"] {
            let environment = environment(&[("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "1000")]);
            let mut supervisor = Supervisor::find(&environment, 1, Instant::now());
            supervisor.ready();
            assert!(
                supervisor.due().is_none() || name.starts_with('@'),
                "{name:?}"
            );
        }
        // Nobody listens there: nothing waits, nothing fails.
        let environment = environment(&[("NOTIFY_SOCKET", "/none/such")]);
        Supervisor::find(&environment, 1, Instant::now()).ready();
    }
}
