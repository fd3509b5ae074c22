//! How many requests each address made in its window.
//!
//! Owns: `AddressTable`, and what counts as one address.
//! May depend on: `config`, `connection::pending`, `handover::record`.
//! Invariants: every request is counted, a stranger's too; at most `addresses_max` addresses are
//! remembered; a request costs a bounded number of steps.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr},
};

use ahash::AHashMap;
use shards::application::Millis;

use crate::{
    config::sections::RateLimit, connection::pending::RateState, handover::record::WindowRecord,
};

/// Fixed windows of addresses, for one limiter.
#[derive(Clone)]
pub(super) struct AddressTable {
    windows: AHashMap<IpAddr, Window>,
    /// Begun windows in the order of their ends; one whose address began a new one is stale.
    ends: VecDeque<(Millis, IpAddr)>,
    addresses_max: usize,
    /// Windows that had to go before their end.
    pub(super) evicted: u64,
}

/// Requests of one address.
#[derive(Clone)]
struct Window {
    ends_at: Millis,
    count: u32,
}

/// Windows looked at per request; more than the one that a request may begin, so that none of
/// those that have passed stay.
const FORGOTTEN_PER_REQUEST: usize = 4;

/// What a limiter counts as one address: of IPv6 the first 64 bits, since everyone who has one has
/// 2^64; IPv4 as itself, also where it comes as IPv6 (mapped, or through NAT64's own prefix).
pub(super) fn counted(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    let [a, b, c, d, rest @ ..] = v6.segments();
    if [a, b, c, d] == [0x64, 0xff9b, 0, 0] && rest[..2] == [0, 0] {
        let [.., a, b, c, d] = v6.octets();
        return IpAddr::from([a, b, c, d]);
    }
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
}

impl AddressTable {
    pub(super) fn new(addresses_max: usize) -> Self {
        assert!(addresses_max > 0, "the address that asks must be counted");
        Self {
            windows: AHashMap::new(),
            ends: VecDeque::new(),
            addresses_max,
            evicted: 0,
        }
    }

    /// Counts one request of an address, which `counted` has made.
    pub(super) fn take(
        &mut self,
        address: IpAddr,
        now: Millis,
        limit: &RateLimit,
    ) -> (bool, RateState) {
        self.forget_old(now, FORGOTTEN_PER_REQUEST);
        let window = self.windows.get(&address);
        if window.is_none_or(|window| window.ends_at <= now) {
            self.begin(address, now.plus(limit.window_s.saturating_mul(1_000)));
        }
        let window = self.windows.get_mut(&address).expect("begun above");
        let granted = window.count < limit.max_requests;
        window.count += u32::from(granted);
        let reset_s = u32::try_from(window.ends_at.since(now).div_ceil(1_000));
        let rate = RateState {
            limit: limit.max_requests,
            remaining: limit.max_requests.saturating_sub(window.count),
            reset_s: reset_s.unwrap_or(u32::MAX),
        };
        (granted, rate)
    }

    /// With every place taken, the window that ends first makes room. To win anything by it, one
    /// must come from as many addresses as are remembered; one bucket for all beyond the bound
    /// would instead let the same flood shut every stranger out.
    fn begin(&mut self, address: IpAddr, ends_at: Millis) {
        while self.ends.len() >= self.addresses_max {
            self.evicted += u64::from(self.forget_first());
        }
        self.windows.insert(address, Window { ends_at, count: 0 });
        self.ends.push_back((ends_at, address));
        assert!(self.windows.len() <= self.ends.len());
    }

    /// Forgets windows that have passed, a bounded number.
    pub(super) fn forget_old(&mut self, now: Millis, steps: usize) {
        for _ in 0..steps {
            if self.ends.front().is_none_or(|(ends_at, _)| *ends_at > now) {
                return;
            }
            self.forget_first();
        }
    }

    /// True unless it was stale.
    fn forget_first(&mut self) -> bool {
        let Some((ends_at, address)) = self.ends.pop_front() else {
            return false;
        };
        let window = self.windows.get(&address);
        let is_current = window.is_some_and(|window| window.ends_at == ends_at);
        if is_current {
            self.windows.remove(&address);
        }
        is_current
    }

    /// Windows that are open, in the order of their ends.
    pub(super) fn windows(&self, now: Millis) -> impl Iterator<Item = WindowRecord> {
        self.ends.iter().filter_map(move |(ends_at, address)| {
            let window = self.windows.get(address)?;
            let is_open = window.ends_at == *ends_at && *ends_at > now;
            is_open.then_some(WindowRecord {
                address: *address,
                is_of_upgrades: false,
                count: window.count,
                ends_at_ms: ends_at.0,
            })
        })
    }

    /// A window that another process has begun; one that is restored later ends no earlier.
    pub(super) fn restore(&mut self, it: &WindowRecord) {
        let last = self.ends.back().map(|(last, _)| *last);
        self.begin(
            it.address,
            Millis(it.ends_at_ms).max(last.unwrap_or_default()),
        );
        if let Some(window) = self.windows.get_mut(&it.address) {
            window.count = it.count;
        }
    }

    /// Addresses remembered now.
    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> RateLimit {
        RateLimit {
            max_requests: 2,
            window_s: 10,
            trust_hops: 0,
        }
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn one_network_of_64_bits_is_one_address() {
        for (one, other, is_same) in [
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("64:ff9b::192.0.2.1", "192.0.2.1", true),
            ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", false),
            ("192.0.2.1", "192.0.2.2", false),
        ] {
            let [one, other] = [one, other].map(|text| counted(text.parse().expect("address")));
            assert_eq!(one == other, is_same, "{one} {other}");
        }
    }

    #[test]
    fn an_address_has_its_requests_once_per_window() {
        let mut table = AddressTable::new(10);
        let mut granted = Vec::new();
        for at in [0, 9_999, 9_999, 10_000, 10_001, 10_002] {
            granted.push(table.take(address(1), Millis(at), &limit()).0);
        }
        assert_eq!(granted, [true, true, false, true, true, false]);
        let rate = table.take(address(1), Millis(15_000), &limit()).1;
        assert_eq!((rate.limit, rate.remaining, rate.reset_s), (2, 0, 5));
    }

    #[test]
    fn a_stranger_is_counted_when_every_place_is_taken() {
        let mut table = AddressTable::new(100);
        for number in 0..100 {
            table.take(address(number), Millis(u64::from(number)), &limit());
        }
        let stranger = address(1_000);
        let granted: Vec<bool> = (0..3)
            .map(|_| table.take(stranger, Millis(200), &limit()).0)
            .collect();
        assert_eq!(granted, [true, true, false]);
        assert_eq!((table.len(), table.evicted), (100, 1));
        let left = |number| table.windows.contains_key(&address(number));
        assert!(!left(0), "the one whose window ended first");
        assert!(left(1));
    }

    #[test]
    fn what_has_passed_is_forgotten_in_slices() {
        let mut table = AddressTable::new(1_000);
        for number in 0..1_000 {
            table.take(address(number), Millis(0), &limit());
        }
        table.take(address(5_000), Millis(10_000), &limit());
        assert_eq!(table.len(), 1_000 - FORGOTTEN_PER_REQUEST + 1);
        table.forget_old(Millis(10_000), 100);
        assert_eq!(table.len(), 1_000 - FORGOTTEN_PER_REQUEST + 1 - 100);
        table.forget_old(Millis(10_000), 10_000);
        assert_eq!(table.len(), 1, "the one that asked last");
        assert_eq!(table.evicted, 0);
    }

    #[test]
    fn windows_begun_anew_leave_no_more_traces_than_there_are_places() {
        let mut table = AddressTable::new(50);
        let long = RateLimit {
            window_s: 1_000,
            ..limit()
        };
        // A reload has made windows shorter: the first end in the list is far away.
        table.take(address(0), Millis(0), &long);
        for round in 1..1_000 {
            table.take(address(1), Millis(round * 10_000), &limit());
            assert!(table.ends.len() <= 50);
        }
    }
}
