//! The cores: which a server may use, their siblings, nodes and governors; who would get which.
//!
//! Owns: `Cores`, lists and masks of cores, the places of shards and bridge.
//! May depend on: `tree`.
//! Invariants: core numbers are below `CORES_MAX`; shards and bridge get the cores that the server gives them
//! (`shards/src/topology.rs`), which a test of the server holds.

use std::collections::{BTreeMap, BTreeSet};

use super::kernel::status;
use crate::tree::{Reading, Tree};

/// Which cores a server may use.
#[derive(Clone, Debug, Default)]
pub struct Cores {
    /// Logical cores that this process may run on, grouped by physical core, both ascending.
    pub physical: Vec<Vec<usize>>,
    /// Cores of each node of memory, by its number.
    pub nodes: BTreeMap<usize, Vec<usize>>,
    /// Cores by their governor; empty where the kernel does not scale clock rates.
    pub governors: BTreeMap<String, Vec<usize>>,
    /// `kernel.numa_balancing`.
    pub numa_balancing: Option<u64>,
}

/// Which thread runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// One core per shard; empty if there are fewer cores than shards, when nothing is pinned.
    pub shards: Vec<usize>,
    /// The bridge's.
    pub bridge: Option<usize>,
}

impl Cores {
    pub(super) fn read(tree: &Tree) -> Self {
        let allowed = status(tree, "Cpus_allowed_list:").parsed(|text| Some(core_list(text)));
        let online = || {
            tree.text("/sys/devices/system/cpu/online")
                .parsed(|text| Some(core_list(text)))
        };
        let allowed = match allowed {
            Reading::Is(cores) if !cores.is_empty() => cores,
            _ => online().value().cloned().unwrap_or_default(),
        };
        let mut cores = Self {
            numa_balancing: tree
                .number("/proc/sys/kernel/numa_balancing")
                .value()
                .copied(),
            ..Self::default()
        };
        for core in allowed {
            let folder = format!("/sys/devices/system/cpu/cpu{core}");
            let siblings = tree.text(&format!("{folder}/topology/thread_siblings_list"));
            let siblings = siblings
                .value()
                .map_or_else(|| vec![core], |text| core_list(text));
            match cores
                .physical
                .iter_mut()
                .find(|group| group.first().is_some_and(|core| siblings.contains(core)))
            {
                Some(group) => group.push(core),
                None => cores.physical.push(vec![core]),
            }
            if let Reading::Is(governor) = tree.text(&format!("{folder}/cpufreq/scaling_governor"))
            {
                cores.governors.entry(governor).or_default().push(core);
            }
        }
        for name in tree.names("/sys/devices/system/node") {
            let Some(node) = name.strip_prefix("node").and_then(|it| it.parse().ok()) else {
                continue;
            };
            let list = tree.text(&format!("/sys/devices/system/node/{name}/cpulist"));
            let list = list.value().map_or_else(Vec::new, |text| core_list(text));
            if !list.is_empty() {
                cores.nodes.insert(node, list);
            }
        }
        cores
    }

    /// Shards that the server would start by itself.
    pub fn shards(&self, quota_cores: Option<u64>) -> u64 {
        let physical = self.physical.len() as u64;
        let usable = quota_cores.map_or(physical, |quota| physical.min(quota.max(1)));
        usable.saturating_sub(1).max(1)
    }

    /// Where the server would put so many shards: first of each physical core, then their siblings.
    pub fn places(&self, shards: u64) -> Places {
        let first = self.physical.iter().filter_map(|group| group.first());
        let rest = self.physical.iter().flat_map(|group| group.iter().skip(1));
        let order: Vec<usize> = first.chain(rest).copied().collect();
        let count = usize::try_from(shards).unwrap_or(usize::MAX);
        if order.len() < count {
            return Places {
                shards: Vec::new(),
                bridge: None,
            };
        }
        Places {
            shards: order[..count].to_vec(),
            bridge: order.get(count).or_else(|| order.last()).copied(),
        }
    }

    /// The node of memory that a core belongs to.
    pub fn node_of(&self, core: usize) -> Option<usize> {
        let mut nodes = self.nodes.iter();
        nodes
            .find(|(_, cores)| cores.contains(&core))
            .map(|(node, _)| *node)
    }
}

/// Parses `0-3,8,10-11`. What cannot be read is left out.
pub(super) fn core_list(text: &str) -> Vec<usize> {
    let mut cores = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>())
            && last < CORES_MAX
        {
            cores.extend(first..=last);
        }
    }
    cores.into_iter().collect()
}

/// Parses `00000000,0000000f`, words of 32 cores with the highest first.
pub(super) fn core_mask(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for (word, hex) in text.trim().rsplit(',').enumerate() {
        let bits = u32::from_str_radix(hex, 16).ok()?;
        let first = word * 32;
        if first + 32 > CORES_MAX && bits != 0 {
            return None;
        }
        cores.extend(
            (0..32)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| first + bit),
        );
    }
    Some(cores)
}

/// Writes what `core_mask` reads.
pub fn to_mask(cores: &[usize]) -> String {
    let words = cores.iter().max().map_or(1, |last| last / 32 + 1);
    let word = |index: usize| {
        let of_word = cores.iter().filter(|&&core| core / 32 == index);
        of_word.fold(0u32, |bits, core| bits | 1 << (core % 32))
    };
    let words: Vec<String> = (0..words)
        .rev()
        .map(|it| format!("{:08x}", word(it)))
        .collect();
    words.join(",")
}

/// Writes `0-3,8`.
pub fn to_list(cores: &[usize]) -> String {
    let sorted: BTreeSet<usize> = cores.iter().copied().collect();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in sorted {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let range = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// More than the largest kernel has (`CONFIG_NR_CPUS`).
const CORES_MAX: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_masks_are_read_and_written() {
        assert_eq!(core_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(core_list("junk,4-,0-99999999"), [0usize; 0]);
        assert_eq!(
            core_mask("00000001,8000000f"),
            Some(vec![0, 1, 2, 3, 31, 32])
        );
        assert_eq!(core_mask("0"), Some(vec![]));
        assert_eq!(core_mask("x"), None);
        assert_eq!(core_mask(&"f,".repeat(400)), None);
        for cores in [vec![], vec![0], vec![0, 1, 2, 3, 31, 32, 95]] {
            assert_eq!(core_mask(&to_mask(&cores)), Some(cores.clone()));
            assert_eq!(core_list(&to_list(&cores)), cores);
        }
    }

    #[test]
    fn shards_get_physical_cores_and_the_bridge_the_first_that_is_left() {
        let cores = Cores {
            physical: vec![vec![0, 4], vec![1, 5], vec![2, 6], vec![3, 7]],
            ..Cores::default()
        };
        for (quota, shards, expected, bridge) in [
            (None, 3, vec![0, 1, 2], 3),
            (Some(2), 1, vec![0], 1),
            (Some(0), 1, vec![0], 1),
        ] {
            assert_eq!(cores.shards(quota), shards, "{quota:?}");
            let places = cores.places(shards);
            assert_eq!((places.shards, places.bridge), (expected, Some(bridge)));
        }
        assert_eq!(cores.places(8).bridge, Some(7));
        assert_eq!(cores.places(9).shards, [0usize; 0]);
        assert_eq!(Cores::default().shards(None), 1);
        assert_eq!(Cores::default().places(0).bridge, None);
    }
}
