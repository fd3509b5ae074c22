//! Which topic is whose: slots of names, and the masters that a cluster says it has.
//!
//! Owns: `Address`, `AllSlots`, `slot_of_key`; of topics `TopicSlots`, `SlotMap`, `Answer` (what one server
//! says of the cluster).
//! May depend on: `cluster::topic`, the crate `redis` for values.
//! Invariants: what a server says is malformed or a map, never a panic; a map names at most
//! `MASTERS_MAX` masters.

use std::collections::BTreeSet;

use redis::Value;

use super::chart::Map;
use crate::cluster::topic::{Topic, TopicNames};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::bridge) struct Address {
    pub(in crate::bridge) host: String,
    pub(in crate::bridge) port: u16,
}

/// The slot of each topic, by lane.
#[derive(Debug)]
pub(super) struct TopicSlots(Box<[u16]>);

impl TopicSlots {
    pub(super) fn new(names: &TopicNames) -> Self {
        Self(Topic::all().map(|it| slot(names.name(it))).collect())
    }
}

/// The slot of a key: of what its first braces hold, if that is anything.
pub(in crate::bridge) fn slot_of_key(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    let tag = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty());
    slot(tag.unwrap_or(key))
}

/// CRC16/XMODEM of a name without braces, as the specification of Redis Cluster has it.
fn slot(name: &str) -> u16 {
    let sum = name.bytes().fold(0u16, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(byte) << 8), |sum, _| {
            let is_carried = sum & 0x8000 != 0;
            (sum << 1) ^ if is_carried { 0x1021 } else { 0 }
        })
    });
    sum % SLOTS
}

const SLOTS: u16 = 16_384;

/// Which master a topic is to be looked for at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// Those that have slots of ours.
    masters: Vec<Address>,
    /// By lane: its number among the masters.
    owners: Box<[Option<u16>]>,
    /// Replicas and other masters too.
    pub(super) servers: BTreeSet<Address>,
}

impl SlotMap {
    pub(super) fn masters(&self) -> &[Address] {
        &self.masters
    }

    pub(super) fn owner(&self, topic: Topic) -> Option<&Address> {
        let owner = *self.owners.get(usize::from(topic.lane().0))?;
        self.masters.get(usize::from(owner?))
    }

    /// A slot of ours that no master has.
    pub(super) fn is_whole(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }
}

/// What one server says of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer<M = SlotMap> {
    pub(super) map: M,
    /// It believes that all slots are served.
    pub(super) is_ok: bool,
    /// Grows with each change of who has what.
    pub(super) epoch: u64,
}

impl<M> Answer<M> {
    /// Reads the answer to CLUSTER INFO.
    pub(super) fn read(info: &Value, map: M) -> Option<Self> {
        let info = text(info)?;
        let field = |name| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find_map(|(key, value)| (key == name).then(|| value.trim()))
        };
        let is_ok = field("cluster_state")? == "ok";
        let epoch = field("cluster_current_epoch")?.parse().ok()?;
        Some(Self { map, is_ok, epoch })
    }
}

impl Map for AllSlots {
    fn servers(&self) -> &BTreeSet<Address> {
        &self.servers
    }
}

impl Map for SlotMap {
    fn servers(&self) -> &BTreeSet<Address> {
        &self.servers
    }
}

/// Which master has which slot, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bridge) struct AllSlots {
    masters: Vec<Address>,
    /// By slot: the number of its master.
    owners: Box<[Option<u16>]>,
    /// Replicas too.
    pub(in crate::bridge) servers: BTreeSet<Address>,
}

impl AllSlots {
    pub(in crate::bridge) fn owner(&self, slot: u16) -> Option<&Address> {
        let owner = *self.owners.get(usize::from(slot))?;
        self.masters.get(usize::from(owner?))
    }

    pub(in crate::bridge) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// Reads the answer to CLUSTER SLOTS.
    pub(in crate::bridge) fn read(ranges: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = ranges else {
            return None;
        };
        let mut all = Self {
            masters: Vec::new(),
            owners: vec![None; usize::from(SLOTS)].into(),
            servers: BTreeSet::new(),
        };
        for range in ranges {
            all.take_range(range, asked)?;
            if all.masters.len() > MASTERS_MAX || all.servers.len() > SERVERS_MAX {
                return None;
            }
        }
        Some(all)
    }

    fn take_range(&mut self, range: &Value, asked: &Address) -> Option<()> {
        let Value::Array(range) = range else {
            return None;
        };
        let [first, last, servers @ ..] = range.as_slice() else {
            return None;
        };
        // The first one is the master: a replica is none, though it alone says where it is.
        let master = &server(servers.first()?, asked)?;
        let servers = servers.iter().filter_map(|it| server(it, asked));
        let known = self.masters.iter().position(|it| it == master);
        let number = known.unwrap_or_else(|| {
            self.masters.push(master.clone());
            self.masters.len() - 1
        });
        let number = u16::try_from(number).ok()?;
        let range = number_of(first)?..=number_of(last)?;
        self.owners.get_mut(range)?.fill(Some(number));
        self.servers.extend(servers);
        Some(())
    }
}

/// Reads the answer to CLUSTER SLOTS. A server may call itself by an empty host.
pub(super) fn read_map(ranges: &Value, asked: &Address, slots: &TopicSlots) -> Option<SlotMap> {
    let AllSlots {
        masters,
        owners: by_slot,
        servers,
    } = AllSlots::read(ranges, asked)?;
    let owner = |slot: &u16| by_slot.get(usize::from(*slot)).copied().flatten();
    let owners: Vec<Option<u16>> = slots.0.iter().map(owner).collect();
    Some(only_ours(masters, &owners, servers))
}

/// Without masters that have no slot of ours, which are no loss when they are gone.
fn only_ours(masters: Vec<Address>, owners: &[Option<u16>], servers: BTreeSet<Address>) -> SlotMap {
    let used: BTreeSet<u16> = owners.iter().copied().flatten().collect();
    let renumbered = |old: u16| u16::try_from(used.range(..old).count()).ok();
    let owners = owners.iter().map(|it| it.and_then(renumbered)).collect();
    let numbered = (0u16..).zip(masters);
    let masters = numbered.filter_map(|(number, it)| used.contains(&number).then_some(it));
    SlotMap {
        masters: masters.collect(),
        owners,
        servers,
    }
}

fn server(value: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(server) = value else {
        return None;
    };
    let [host, port, ..] = server.as_slice() else {
        return None;
    };
    let host = match host == &Value::Nil {
        true => "",
        false => text(host)?,
    };
    let host = match host {
        "" => asked.host.clone(),
        // A server whose own name is not known.
        "?" => return None,
        host => host.to_owned(),
    };
    let port = u16::try_from(number_of(port)?).ok()?;
    Some(Address { host, port })
}

fn number_of(value: &Value) -> Option<usize> {
    let Value::Int(number) = value else {
        return None;
    };
    usize::try_from(*number).ok()
}

fn text(value: &Value) -> Option<&str> {
    if let Value::VerbatimString { text, .. } | Value::SimpleString(text) = value {
        return Some(text);
    }
    let Value::BulkString(bytes) = value else {
        return None;
    };
    str::from_utf8(bytes).ok()
}

/// A cluster has at most a thousand servers by its specification; each master is four connections here.
const MASTERS_MAX: usize = 256;
const SERVERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> TopicNames {
        TopicNames::redis("p", 0, "c")
    }

    fn asked() -> Address {
        address("asked", 1)
    }

    fn address(host: &str, port: u16) -> Address {
        let host = host.to_owned();
        Address { host, port }
    }

    fn bytes(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn server(host: Value, port: i64) -> Value {
        Value::Array(vec![
            host,
            Value::Int(port),
            bytes("id"),
            Value::Array(vec![]),
        ])
    }

    fn range(first: i64, last: i64, servers: Vec<Value>) -> Value {
        let bounds = [Value::Int(first), Value::Int(last)];
        Value::Array(bounds.into_iter().chain(servers).collect())
    }

    fn read(ranges: Vec<Value>) -> Option<SlotMap> {
        read_map(&Value::Array(ranges), &asked(), &TopicSlots::new(&names()))
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // The first is the specification's check value, the others are what CLUSTER KEYSLOT of 7.0.15 says.
        for (name, expected) in [
            ("123456789", 0x31C3),
            ("", 0),
            ("foo", 12_182),
            ("somekey", 11_058),
        ] {
            assert_eq!(slot(name), expected % SLOTS, "{name}");
        }
    }

    #[test]
    fn what_the_first_braces_hold_decides_if_it_is_anything() {
        for (key, same) in [
            ("a{foo}b{c}", "foo"),
            ("{foo", "{foo"),
            ("{}foo", "{}foo"),
            ("foo", "foo"),
        ] {
            assert_eq!(slot_of_key(key), slot(same), "{key}");
        }
    }

    #[test]
    fn a_topic_is_its_slots_masters() {
        let map = read(vec![
            range(0, 8_191, vec![server(bytes("a"), 1), server(bytes("c"), 3)]),
            range(8_192, 16_383, vec![server(Value::Nil, 2)]),
        ]);
        let map = map.expect("a map");
        assert!(map.is_whole());
        let masters = [address("a", 1), address("asked", 2)];
        assert_eq!(map.masters(), masters);
        assert!(map.servers.contains(&address("c", 3)));
        for topic in Topic::all() {
            let half = usize::from(slot(names().name(topic)) >= 8_192);
            assert_eq!(map.owner(topic), masters.get(half), "{topic:?}");
        }
    }

    #[test]
    fn a_master_without_a_slot_of_ours_is_none_of_ours() {
        let nodes = slot(names().name(Topic::Nodes));
        let ours: BTreeSet<u16> = Topic::all().map(|it| slot(names().name(it))).collect();
        let foreign = (0..SLOTS)
            .find(|slot| !ours.contains(slot))
            .expect("few are");
        let at = |slot: u16| (i64::from(slot), i64::from(slot));
        let ((foreign, _), (nodes, _)) = (at(foreign), at(nodes));
        let map = read(vec![
            range(foreign, foreign, vec![server(bytes("a"), 1)]),
            range(nodes, nodes, vec![server(bytes("b"), 2)]),
        ]);
        let map = map.expect("a map");
        assert!(!map.is_whole());
        assert_eq!(map.masters(), [address("b", 2)]);
        assert_eq!(map.owner(Topic::Nodes), Some(&address("b", 2)));
        assert_eq!(map.owner(Topic::Echo), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let good = || server(bytes("a"), 1);
        for (what, ranges) in [
            ("no range", vec![Value::Int(1)]),
            ("a short range", vec![Value::Array(vec![Value::Int(1)])]),
            ("no server", vec![range(0, 1, vec![])]),
            (
                "an unknown server",
                vec![range(0, 1, vec![server(bytes("?"), 1)])],
            ),
            (
                "an unknown master, and a replica",
                vec![range(0, 1, vec![server(bytes("?"), 1), good()])],
            ),
            (
                "a bad port",
                vec![range(0, 1, vec![server(bytes("a"), 65_536)])],
            ),
            ("a bad slot", vec![range(0, 16_384, vec![good()])]),
            ("backwards", vec![range(2, 0, vec![good()])]),
            ("below", vec![range(-1, 2, vec![good()])]),
            ("far", vec![range(0, i64::MAX, vec![good()])]),
            (
                "crowded",
                (0..300)
                    .map(|n| range(n, n, vec![server(bytes("a"), n)]))
                    .collect(),
            ),
        ] {
            assert_eq!(read(ranges), None, "{what}");
        }
        assert_eq!(read(vec![]).map(|map| map.is_whole()), Some(false));
    }

    #[test]
    fn what_a_server_knows_is_read_with_its_map() {
        let read = |info: &str| Answer::read(&bytes(info), ());
        let answer = read("cluster_state:fail\r\nx:1\r\ncluster_current_epoch:7\r\n");
        let answer = answer.expect("an answer");
        assert_eq!((answer.is_ok, answer.epoch), (false, 7));
        for info in [
            "",
            "cluster_state:ok\r\n",
            "cluster_state:ok\r\ncluster_current_epoch:x\r\n",
        ] {
            assert_eq!(read(info), None, "{info}");
        }
    }
}
