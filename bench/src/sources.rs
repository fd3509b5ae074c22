//! Where a crowd's connections come from: one address of this host carries as many connections to one
//! target as it has free ports, the next one the next.
//!
//! Owns: the plan of source addresses; how many ports one has.
//! May depend on: nothing of ours.
//! Invariants: no address gets more connections than it may carry; a plan names an address for each
//! connection, or leaves all to the kernel, or is refused with what it lacks.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use thiserror::Error;

/// Which address each connection comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// None = whatever the kernel likes.
    addresses: Vec<Ipv4Addr>,
    /// Connections of each.
    each: usize,
}

/// Why there is no plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    #[error(
        "{connections} connections need {needed} source addresses of {each} ports each, and there are \
         {there}; give this host more addresses and name each with --source"
    )]
    TooFew {
        connections: usize,
        needed: usize,
        there: usize,
        each: usize,
    },
    #[error("the target {0} speaks IPv6, and source addresses are planned for IPv4 only")]
    Family(IpAddr),
}

/// Of an address's ports, those left to whatever else runs on this host.
const SPARE_PORTS: usize = 200;
/// 127.0.0.2 and what follows it.
const LOOPBACK_FIRST: u32 = 0x7F00_0002;
const LOOPBACK_MOST: usize = 60_000;

impl Sources {
    /// All from one address.
    pub fn one(address: Ipv4Addr) -> Self {
        Self {
            addresses: vec![address],
            each: usize::MAX,
        }
    }

    /// Plans so many connections to a target, of which one address carries `each`. Addresses that are
    /// named are taken in their order; on loopback there are enough without names.
    pub fn plan(
        target: IpAddr,
        connections: usize,
        each: usize,
        named: &[Ipv4Addr],
    ) -> Result<Self, PlanError> {
        let each = each.max(1);
        let needed = connections.div_ceil(each).max(1);
        let too_few = |there| PlanError::TooFew {
            connections,
            needed,
            there,
            each,
        };
        let addresses: Vec<Ipv4Addr> = match target {
            _ if needed == 1 && named.is_empty() => return Ok(Self::default()),
            IpAddr::V6(_) => return Err(PlanError::Family(target)),
            IpAddr::V4(_) if !named.is_empty() => named.iter().copied().take(needed).collect(),
            IpAddr::V4(target) if target.is_loopback() && needed <= LOOPBACK_MOST => {
                let all = (LOOPBACK_FIRST..).map(Ipv4Addr::from);
                all.filter(|it| *it != target).take(needed).collect()
            }
            IpAddr::V4(_) => return Err(too_few(1)),
        };
        if addresses.len() < needed {
            return Err(too_few(addresses.len()));
        }
        Ok(Self {
            addresses,
            each: connections.div_ceil(needed),
        })
    }

    /// The address of a connection by its number; those beyond the plan come from the last.
    pub fn of(&self, connection: usize) -> Option<Ipv4Addr> {
        let last = self.addresses.len().checked_sub(1)?;
        let at = (connection / self.each.max(1)).min(last);
        self.addresses.get(at).copied()
    }

    /// How many addresses are in use; the kernel chooses one.
    pub fn count(&self) -> usize {
        self.addresses.len().max(1)
    }
}

/// How many connections one address carries to one target here.
pub fn ports_each() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    ports_of(&range)
}

fn ports_of(range: &str) -> usize {
    /// The kernel's own, where it does not say.
    const USUAL: (usize, usize) = (32_768, 60_999);
    let mut numbers = range.split_whitespace().map(|number| number.parse().ok());
    let (from, to) = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(from), Some(to)) if from <= to => (from, to),
        _ => USUAL,
    };
    (to - from + 1).saturating_sub(SPARE_PORTS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    fn shares(sources: &Sources, connections: usize) -> Vec<(Option<Ipv4Addr>, usize)> {
        let mut shares: Vec<(Option<Ipv4Addr>, usize)> = Vec::new();
        for source in (0..connections).map(|number| sources.of(number)) {
            match shares.last_mut() {
                Some((last, count)) if *last == source => *count += 1,
                _ => shares.push((source, 1)),
            }
        }
        shares
    }

    #[test]
    fn as_many_as_one_address_carries_are_left_to_the_kernel() {
        for (target, connections) in [(LOCAL, 1), (LOCAL, 28_000), (FOREIGN, 28_000)] {
            let plan = Sources::plan(target, connections, 28_000, &[]);
            let plan = plan.expect("one address is enough");
            assert_eq!((plan.of(0), plan.count()), (None, 1));
        }
    }

    #[test]
    fn on_loopback_the_load_is_spread_evenly_over_as_few_addresses_as_carry_it() {
        let at = |last| Some(Ipv4Addr::new(127, 0, 0, last));
        let plan = Sources::plan(LOCAL, 19_000, 7_000, &[]).expect("loopback has enough");
        assert_eq!(plan.count(), 3);
        assert_eq!(
            shares(&plan, 19_000),
            [(at(2), 6_334), (at(3), 6_334), (at(4), 6_332)]
        );
        assert_eq!(plan.of(19_001), at(4), "beyond the plan");
        // The target's own address is left out.
        let target = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
        let plan = Sources::plan(target, 28_001, 28_000, &[]).expect("loopback has enough");
        assert_eq!(shares(&plan, 28_001), [(at(2), 14_001), (at(4), 14_000)]);
        let plan = Sources::plan(LOCAL, 1_000_000, 28_032, &[]).expect("loopback has enough");
        assert_eq!(plan.count(), 36);
        assert!(
            shares(&plan, 1_000_000)
                .iter()
                .all(|(_, share)| *share <= 28_032)
        );
    }

    #[test]
    fn elsewhere_addresses_must_be_named_and_be_enough() {
        let named = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let too_few = |needed, there| PlanError::TooFew {
            connections: 60_000,
            needed,
            there,
            each: 28_000,
        };
        assert_eq!(
            Sources::plan(FOREIGN, 60_000, 28_000, &[]),
            Err(too_few(3, 1))
        );
        assert_eq!(
            Sources::plan(FOREIGN, 60_000, 28_000, &named),
            Err(too_few(3, 2))
        );
        let plan = Sources::plan(FOREIGN, 56_000, 28_000, &named).expect("exactly enough");
        assert_eq!(
            shares(&plan, 56_000),
            [(Some(named[0]), 28_000), (Some(named[1]), 28_000)]
        );
        let plan = Sources::plan(FOREIGN, 10, 28_000, &named).expect("more than enough");
        assert_eq!(shares(&plan, 10), [(Some(named[0]), 10)]);
        let six = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        assert_eq!(
            Sources::plan(six, 28_001, 28_000, &[]),
            Err(PlanError::Family(six))
        );
        assert_eq!(
            Sources::plan(six, 28_000, 28_000, &[]),
            Ok(Sources::default())
        );
    }

    #[test]
    fn an_address_has_the_ports_that_the_kernel_gives_less_some() {
        for (range, ports) in [
            ("32768\t60999\n", 28_032),
            ("1024 65535", 64_312),
            ("5000 5100", 1),
            ("5100 5000", 28_032),
            ("", 28_032),
        ] {
            assert_eq!(ports_of(range), ports, "{range}");
        }
    }
}
