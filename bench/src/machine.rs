//! The machine on which a run takes place, as far as it tells.
//!
//! Owns: the reading of `/proc` for what does not change during a run; the date.
//! May depend on: libc, `outcome`.
//! Invariants: what cannot be read is empty or zero, never an error: a run does not fail for it.

use std::{
    fs,
    num::NonZero,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::outcome::Machine;

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let cpu = line_of("/proc/cpuinfo", "model name");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kib = line_of("/proc/meminfo", "MemTotal")
            .trim_end_matches(" kB")
            .parse::<u64>();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            cpu,
            cores: thread::available_parallelism().map_or(0, NonZero::get),
            kernel: kernel.trim().to_owned(),
            memory_bytes: kib.unwrap_or(0) * 1_024,
            date: date(since_epoch.map_or(0, |time| time.as_secs())),
        }
    }
}

/// The value of a `name: value` line.
fn line_of(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let values = text.lines().filter_map(|line| line.split_once(':'));
    let mut named = values.filter(|(key, _)| key.trim() == name);
    named
        .next()
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// UTC, `2026-01-31 12:00`. Days to a date: Howard Hinnant, "chrono-compatible low-level date algorithms".
fn date(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    let minutes = unix_s / 60;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        minutes / 60 % 24,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_399, "2000-02-28 23:59"),
            (951_782_400, "2000-02-29 00:00"),
            (951_868_800, "2000-03-01 00:00"),
            (1_769_860_800, "2026-01-31 12:00"),
        ] {
            assert_eq!(date(unix_s), expected);
        }
    }

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let machine = Machine::here();
        assert!(!machine.kernel.is_empty() && machine.memory_bytes > 0 && machine.cores > 0);
    }
}
