//! Which cores we may use, and who gets which.
//!
//! Owns: the reading of affinity, cgroup quota and SMT siblings; the placement of the threads.
//! May depend on: `config`, `error`, libc, /proc and /sys.
//! Invariants: a thread is pinned only to a core in our affinity mask; no two shards share a
//! core when they are pinned.

use crate::{config::Config, error::StartError};
use std::{fs, io, path::Path};

/// What this process may run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    /// Logical cores of the affinity mask, grouped by physical core, both ascending.
    pub(crate) cores: Vec<Vec<usize>>,
    /// Cores' worth of time per period that the cgroup grants.
    pub(crate) quota_cores: Option<u32>,
}

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Per shard its core; `None` = not pinned.
    pub(crate) shards: Vec<Option<usize>>,
    pub(crate) bridge: Option<usize>,
}

impl Topology {
    pub(crate) fn read() -> io::Result<Self> {
        let allowed = allowed_cores()?;
        let mut cores: Vec<Vec<usize>> = Vec::new();
        for core in allowed.iter().copied() {
            let siblings = siblings_of(core);
            match cores.iter_mut().find(|group| siblings.contains(&group[0])) {
                Some(group) => group.push(core),
                None => cores.push(vec![core]),
            }
        }
        Ok(Self {
            cores,
            quota_cores: quota_cores(),
        })
    }

    fn allowed(&self) -> Vec<usize> {
        let mut allowed: Vec<usize> = self.cores.iter().flatten().copied().collect();
        allowed.sort_unstable();
        allowed
    }

    /// Physical cores, as far as the quota lets us use them.
    fn physical(&self) -> usize {
        let quota = self
            .quota_cores
            .map_or(usize::MAX, |quota| quota.max(1) as usize);
        self.cores.len().min(quota)
    }
}

/// Places shards and bridge.
pub(crate) fn place(config: &Config, topology: &Topology) -> Result<Placement, StartError> {
    let allowed = topology.allowed();
    if let Some(core) = config.bridge_core
        && !allowed.contains(&core)
    {
        return Err(StartError::Core { core, allowed });
    }
    let automatic = topology.physical().saturating_sub(1).max(1);
    let shards = config.shards.map_or(automatic, usize::from);
    // One of each physical core first, then their siblings.
    let first = topology.cores.iter().map(|group| group[0]);
    let rest = topology
        .cores
        .iter()
        .flat_map(|group| group[1..].iter().copied());
    let order: Vec<usize> = first.chain(rest).collect();
    let for_shards: Vec<usize> = order
        .iter()
        .copied()
        .filter(|&core| Some(core) != config.bridge_core)
        .collect();
    let usable = if for_shards.len() >= shards {
        &for_shards
    } else {
        &order
    };
    if !config.pin || usable.len() < shards {
        if config.pin {
            tracing::warn!(
                shards,
                cores = order.len(),
                "fewer cores than shards: not pinned"
            );
        }
        return Ok(Placement {
            shards: vec![None; shards],
            bridge: config.bridge_core,
        });
    }
    let taken = &usable[..shards];
    let spare = order.iter().copied().find(|core| !taken.contains(core));
    let bridge = config
        .bridge_core
        .or(spare)
        .or_else(|| order.last().copied());
    Ok(Placement {
        shards: taken.iter().copied().map(Some).collect(),
        bridge,
    })
}

/// Pins the calling thread.
pub(crate) fn pin_to(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `CPU_SET` checks the index against the set's size.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid for its own size; 0 means this thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The cores that this process may run on, ascending.
///
/// # Errors
/// When the system does not tell.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is a valid place of the size told; 0 means this thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let cores = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: the index is below the set's size.
    Ok(cores
        .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
        .collect())
}

fn siblings_of(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    fs::read_to_string(path).map_or_else(|_| vec![core], |text| core_list(&text))
}

/// Parses `0-3,8,10-11`. What cannot be read is left out.
fn core_list(text: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>())
            && last < libc::CPU_SETSIZE as usize
        {
            cores.extend(first..=last);
        }
    }
    cores
}

/// The smallest quota on the way from our cgroup to the root.
fn quota_cores() -> Option<u32> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(group.trim_start_matches('/'));
    let quotas = group.ancestors().take_while(|path| path.starts_with(root));
    quotas
        .filter_map(|path| cpu_max(&fs::read_to_string(path.join("cpu.max")).ok()?))
        .min()
}

/// Parses `cpu.max`: `quota period` in microseconds, or `max period`. Rounded up.
fn cpu_max(text: &str) -> Option<u32> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    u32::try_from(quota.div_ceil(period.max(1))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cores: &[&[usize]], quota_cores: Option<u32>) -> Topology {
        Topology {
            cores: cores.iter().map(|group| group.to_vec()).collect(),
            quota_cores,
        }
    }

    #[test]
    fn shards_get_physical_cores_and_the_bridge_the_first_that_is_left() {
        let smt: &[&[usize]] = &[&[0, 4], &[1, 5], &[2, 6], &[3, 7]];
        let single: &[&[usize]] = &[&[0]];
        let pair: &[&[usize]] = &[&[0], &[1]];
        let cases = [
            (
                "auto on four cores",
                host(smt, None),
                None,
                None,
                vec![0, 1, 2],
                3,
            ),
            (
                "auto under a quota",
                host(smt, Some(2)),
                None,
                None,
                vec![0],
                1,
            ),
            (
                "auto on one core",
                host(single, None),
                None,
                None,
                vec![0],
                0,
            ),
            (
                "siblings last",
                host(smt, None),
                Some(5),
                None,
                vec![0, 1, 2, 3, 4],
                5,
            ),
            (
                "bridge chosen",
                host(smt, None),
                None,
                Some(0),
                vec![1, 2, 3],
                0,
            ),
            (
                "all cores used",
                host(pair, None),
                Some(2),
                None,
                vec![0, 1],
                1,
            ),
        ];
        for (case, topology, shards, bridge_core, expected, bridge) in cases {
            let config = Config {
                shards,
                bridge_core,
                ..Config::default()
            };
            let placement = place(&config, &topology).expect(case);
            let expected: Vec<Option<usize>> = expected.into_iter().map(Some).collect();
            assert_eq!(
                placement,
                Placement {
                    shards: expected,
                    bridge: Some(bridge)
                },
                "{case}"
            );
        }
    }

    #[test]
    fn pinning_is_given_up_when_cores_are_too_few_or_when_it_is_off() {
        let two = host(&[&[0], &[1]], None);
        for config in [
            Config {
                shards: Some(3),
                ..Config::default()
            },
            Config {
                shards: Some(3),
                pin: false,
                ..Config::default()
            },
        ] {
            let placement = place(&config, &two).expect("placed");
            assert_eq!(
                placement,
                Placement {
                    shards: vec![None; 3],
                    bridge: None
                }
            );
        }
    }

    #[test]
    fn a_bridge_core_outside_the_mask_is_refused() {
        let config = Config {
            bridge_core: Some(9),
            ..Config::default()
        };
        let error = place(&config, &host(&[&[0], &[1]], None)).expect_err("core 9 is not ours");
        assert!(error.to_string().contains("[0, 1]"), "{error}");
    }

    #[test]
    fn kernel_lists_and_quotas_are_understood() {
        assert_eq!(core_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(core_list("junk"), []);
        for (text, cores) in [
            ("max 100000\n", None),
            ("150000 100000\n", Some(2)),
            ("100000 100000\n", Some(1)),
            ("5000 100000\n", Some(1)),
            ("", None),
        ] {
            assert_eq!(cpu_max(text), cores, "{text:?}");
        }
    }
}
