//! The server's unit of systemd, with its drop-ins, as far as a server depends on it.
//!
//! Owns: `Unit`, the reading of unit files and of the manager's defaults.
//! May depend on: `limits`, `tree`.
//! Invariants: files count in systemd's order, a later line over an earlier one; an empty value goes back to
//! the manager's. What cannot be understood is left out.

use std::collections::BTreeMap;

use super::limits::Limit;
use crate::tree::Tree;

/// The unit's settings that matter; `None` is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The file that defines it.
    pub path: String,
    /// Drop-ins, in their order.
    pub drop_ins: Vec<String>,
    /// `Type=`.
    pub kind: Option<String>,
    /// `LimitNOFILE=`, else the manager's default, else systemd's own.
    pub files: Limit,
    /// `LimitMEMLOCK=`, else the manager's default; `None`: systemd's own, which differs between versions.
    pub locked_bytes: Option<Limit>,
    /// `TasksMax=`, if it is a number.
    pub threads: Option<u64>,
    /// `MemoryMax=`, if it is a size.
    pub memory_bytes: Option<u64>,
    /// `CPUQuota=`, thousandths of a core.
    pub cpu_millicores: Option<u64>,
    /// `TimeoutStopSec=` in milliseconds; `u64::MAX` is for ever.
    pub stop_ms: Option<u64>,
    /// The words of all `SystemCallFilter=`, those of a list that forbids each with its `~`; empty is no filter.
    pub calls: Vec<String>,
    /// `CPUAffinity=` or `AllowedCPUs=`, as written.
    pub affinity: Option<String>,
}

impl Unit {
    /// `None`: no unit of ours is installed.
    pub(super) fn read(tree: &Tree) -> Option<Self> {
        let (path, text) = NAMES.iter().find_map(|name| {
            FOLDERS.iter().find_map(|folder| {
                let path = format!("{folder}/{name}");
                Some((path.clone(), tree.text(&path).value()?.clone()))
            })
        })?;
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let mut settings = Settings::default();
        for manager in manager_files(tree) {
            settings.take(&tree.text(&manager).value().cloned().unwrap_or_default());
        }
        settings.take(&text);
        let drop_ins = drop_ins(tree, &name);
        for drop_in in &drop_ins {
            settings.take(&tree.text(drop_in).value().cloned().unwrap_or_default());
        }
        let files = settings
            .limit("LimitNOFILE")
            .or_else(|| settings.limit("DefaultLimitNOFILE"));
        let locked = settings.limit("LimitMEMLOCK");
        Some(Self {
            path,
            drop_ins,
            kind: settings.last("Type"),
            // systemd-system.conf(5).
            files: files.unwrap_or(Limit {
                soft: 1_024,
                hard: 524_288,
            }),
            locked_bytes: locked.or_else(|| settings.limit("DefaultLimitMEMLOCK")),
            threads: settings.last("TasksMax").and_then(|it| size(&it)),
            memory_bytes: settings.last("MemoryMax").and_then(|it| size(&it)),
            cpu_millicores: settings
                .last("CPUQuota")
                .and_then(|it| percent_of_core(&it)),
            stop_ms: settings
                .last("TimeoutStopSec")
                .or_else(|| settings.last("TimeoutSec"))
                .and_then(|it| span_ms(&it)),
            calls: settings.words("SystemCallFilter"),
            affinity: settings
                .last("CPUAffinity")
                .or_else(|| settings.last("AllowedCPUs")),
        })
    }
}

/// Values by key, in the order of the files.
#[derive(Default)]
struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    fn take(&mut self, text: &str) {
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().take(LINES_MAX) {
            let line = line.trim();
            if line.starts_with(['#', ';', '[']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let values = self.0.entry(key.trim().to_owned()).or_default();
            match value.trim() {
                "" => values.clear(),
                value => values.push(value.to_owned()),
            }
        }
    }

    fn last(&self, key: &str) -> Option<String> {
        self.0.get(key)?.last().cloned()
    }

    fn limit(&self, key: &str) -> Option<Limit> {
        let value = self.last(key)?;
        let (soft, hard) = value.split_once(':').unwrap_or((&value, &value));
        Some(Limit {
            soft: size(soft)?,
            hard: size(hard)?,
        })
    }

    /// A `~` before the first word of a line holds for all of them.
    fn words(&self, key: &str) -> Vec<String> {
        let lines = self.0.get(key).map(Vec::as_slice).unwrap_or_default();
        let words = |line: &String| {
            let (sign, words) = match line.strip_prefix('~') {
                Some(words) => ("~", words),
                None => ("", line.as_str()),
            };
            let words = words.split_whitespace();
            words
                .map(|word| format!("{sign}{word}"))
                .collect::<Vec<_>>()
        };
        lines.iter().flat_map(words).collect()
    }
}

/// Sorted by their names, whichever folder they are in, as systemd does; of one name the first folder's.
fn drop_ins(tree: &Tree, name: &str) -> Vec<String> {
    let mut found = BTreeMap::new();
    for folder in FOLDERS {
        let folder = format!("{folder}/{name}.d");
        for file in tree.names(&folder) {
            if file.ends_with(".conf") {
                found
                    .entry(file.clone())
                    .or_insert_with(|| format!("{folder}/{file}"));
            }
        }
    }
    found.into_values().collect()
}

fn manager_files(tree: &Tree) -> Vec<String> {
    let mut files = vec!["/etc/systemd/system.conf".to_owned()];
    let drop_ins = tree.names("/etc/systemd/system.conf.d").into_iter();
    let drop_ins = drop_ins.filter(|file| file.ends_with(".conf"));
    files.extend(drop_ins.map(|file| format!("/etc/systemd/system.conf.d/{file}")));
    files
}

/// `8M`, `1048576`, `infinity`. Suffixes are powers of 1 024 (systemd.syntax(7)).
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// `200%` is two cores.
fn percent_of_core(text: &str) -> Option<u64> {
    text.strip_suffix('%')?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(10)
}

/// `40`, `40s`, `1min 30s`, `500ms`, `infinity`.
fn span_ms(text: &str) -> Option<u64> {
    if text == "infinity" {
        return Some(u64::MAX);
    }
    let mut total = 0u64;
    let spaced = text.replace(' ', "");
    let mut rest = spaced.as_str();
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "" | "s" | "sec" | "second" | "seconds" => 1_000,
            "ms" | "msec" => 1,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = after;
    }
    Some(total)
}

const NAMES: [&str; 2] = ["sockudo.service", "sockudo@.service"];
/// systemd.unit(5), highest first.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const LINES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let place = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().expect("a folder")).expect("made");
        fs::write(place, text).expect("written");
    }

    #[test]
    fn drop_ins_come_over_the_unit_and_the_unit_over_the_manager() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        assert_eq!(Unit::read(&Tree::new(root)), None);
        write(
            root,
            "/etc/systemd/system.conf",
            "[Manager]\n#DefaultLimitNOFILE=9\nDefaultLimitMEMLOCK=4M\n",
        );
        let unit = "[Service]\nType=notify\nLimitNOFILE=1000:2000\nSystemCallFilter=@system-service \\\n  io_uring_setup\n\
                    SystemCallFilter=~@mount @swap\nTimeoutStopSec=1min 30s\nTasksMax=10%\nCPUQuota=150%\n";
        write(root, "/usr/lib/systemd/system/sockudo.service", unit);
        write(
            root,
            "/usr/lib/systemd/system/sockudo.service.d/10-a.conf",
            "[Service]\nLimitNOFILE=5\n",
        );
        write(
            root,
            "/etc/systemd/system/sockudo.service.d/90-b.conf",
            "[Service]\nLimitNOFILE=1M\nMemoryMax=2G\n",
        );
        let unit = Unit::read(&Tree::new(root)).expect("installed");
        assert_eq!(unit.path, "/usr/lib/systemd/system/sockudo.service");
        assert_eq!(unit.drop_ins.len(), 2);
        let whole = |value| Limit {
            soft: value,
            hard: value,
        };
        assert_eq!(unit.files, whole(1 << 20));
        assert_eq!(unit.locked_bytes, Some(whole(4 << 20)));
        assert_eq!(
            unit.calls,
            ["@system-service", "io_uring_setup", "~@mount", "~@swap"]
        );
        assert_eq!((unit.stop_ms, unit.threads), (Some(90_000), None));
        assert_eq!(
            (unit.cpu_millicores, unit.memory_bytes),
            (Some(1_500), Some(2 << 30))
        );
        write(
            root,
            "/etc/systemd/system/sockudo.service.d/99-c.conf",
            "[Service]\nLimitNOFILE=\n",
        );
        let unit = Unit::read(&Tree::new(root)).expect("installed");
        assert_eq!(
            unit.files,
            Limit {
                soft: 1_024,
                hard: 524_288
            }
        );
    }

    #[test]
    fn sizes_and_spans_are_understood_or_left_out() {
        for (text, expected) in [
            ("8M", Some(8 << 20)),
            ("infinity", Some(u64::MAX)),
            ("12", Some(12)),
            ("", None),
            ("99999999999T", None),
            ("8é", None),
        ] {
            assert_eq!(size(text), expected, "{text:?}");
        }
        for (text, expected) in [
            ("40", Some(40_000)),
            ("1min30s", Some(90_000)),
            ("500ms", Some(500)),
            ("s", None),
            ("1é", None),
        ] {
            assert_eq!(span_ms(text), expected, "{text:?}");
        }
    }
}
