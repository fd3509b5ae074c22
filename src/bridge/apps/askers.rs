//! Who asks often for apps that nobody knows: how much strangers together may ask of the store, and how much each address
//! before it has to leave something to others. It decides, and does nothing: time comes in.
//!
//! Owns: `Askers`.
//! May depend on: `bridge::apps::line` for ranks.
//! Invariants: no more is asked than the node may ask; a flood from a few addresses leaves half of what may be asked at
//! once to those that have not asked much; what is remembered of addresses is bounded.

use std::{net::IpAddr, time::Duration};

use ahash::AHashMap;

use super::{finder::millis, line::Rank};

#[derive(Debug)]
pub(super) struct Askers {
    /// Questions that may be put to the store now.
    allowance: Allowance,
    addresses: Addresses,
}

/// What may still be asked, in thousandths of a question.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: u64,
    since: Duration,
}

/// What each address may ask before it has to leave something to others; one that is not there has all of it.
#[derive(Debug, Default)]
struct Addresses(AHashMap<IpAddr, Allowance>);

/// Of an allowance.
const ONE: u64 = 1_000;
/// An address is modest up to so many questions a second, and twice as many at once.
const MODEST_PER_S: u32 = 10;
/// Addresses of which it is known that they have asked. Each has spent of the node's allowance within two seconds, so that
/// 800 can be there.
const ADDRESSES_MAX: usize = 1_024;

impl Askers {
    /// Nobody has asked yet; `per_s` is what the node may ask.
    pub(super) fn new(now: Duration, per_s: u32) -> Self {
        Self {
            allowance: Allowance {
                left: burst(per_s),
                since: now,
            },
            addresses: Addresses::default(),
        }
    }

    /// Spends one of what strangers may ask; `None`: it may not be asked. Half of what may be asked at once is kept for
    /// addresses that have not asked much: a flood from a few delays no other's first look-up.
    pub(super) fn ask(
        &mut self,
        now: Duration,
        per_s: u32,
        address: Option<IpAddr>,
    ) -> Option<Rank> {
        let left = self.allowance.refilled(now, per_s, burst(per_s));
        let rank = match address {
            _ if left < ONE => return None,
            Some(address) => self.addresses.take(now, address),
            None => Rank::First,
        };
        let floor = match rank {
            Rank::First | Rank::Modest => 0,
            Rank::Other => burst(per_s) / 2,
        };
        let may = left >= ONE + floor;
        self.allowance = Allowance {
            left: left - if may { ONE } else { 0 },
            since: now,
        };
        may.then_some(rank)
    }
}

impl Allowance {
    fn refilled(self, now: Duration, per_s: u32, most: u64) -> u64 {
        let earned = millis(now.saturating_sub(self.since)).saturating_mul(per_s.into());
        self.left.saturating_add(earned).min(most)
    }
}

impl Addresses {
    /// Spends one, and says what that makes of whoever asks.
    fn take(&mut self, now: Duration, address: IpAddr) -> Rank {
        let most = burst(MODEST_PER_S);
        let left = |it: &Allowance| it.refilled(now, MODEST_PER_S, most);
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, it| left(it) < most);
        }
        let before = self.0.get(&address).map_or(most, left);
        if before < ONE || self.0.len() >= ADDRESSES_MAX {
            return Rank::Other;
        }
        let allowance = Allowance {
            left: before - ONE,
            since: now,
        };
        self.0.insert(address, allowance);
        match before == most {
            true => Rank::First,
            false => Rank::Modest,
        }
    }
}

/// What may be asked at once after a quiet time.
fn burst(per_s: u32) -> u64 {
    2 * ONE * u64::from(per_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const PER_S: u32 = 100;

    #[test]
    fn a_flood_from_one_address_leaves_half_of_what_may_be_asked_at_once_to_the_others() {
        let mut askers = Askers::new(at(0), PER_S);
        let mut asks = |second: u64, address: [u8; 4], names: usize| {
            let ranks = (0..names).map(|_| askers.ask(at(second), PER_S, Some(address.into())));
            ranks.flatten().count()
        };
        let (flood, other) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        // What is its own, and half of the 200 of all.
        assert_eq!(asks(1, flood, 1_000), 100);
        assert_eq!(asks(1, flood, 1), 0);
        assert_eq!(asks(1, other, 1), 1);
        // Alone it may ask as often as anybody.
        assert_eq!(asks(2, flood, 1_000), 100 - 1);
        // More than modest counts as a flood as well.
        assert_eq!(asks(2, other, 100), 20);
        let last_of_many = (3..=250).map(|last| asks(2, [192, 0, 2, last], 1));
        assert_eq!(last_of_many.sum::<usize>(), 80, "what was left");
        let known = askers.addresses.0.len();
        assert!(known <= ADDRESSES_MAX, "{known}");
    }

    #[test]
    fn addresses_that_have_all_of_it_again_are_forgotten_when_there_are_many() {
        let mut addresses = Addresses::default();
        for number in 0..2_000_u32 {
            let second = 10 + u64::from(number);
            let rank = addresses.take(at(second), IpAddr::from(number.to_be_bytes()));
            assert_eq!(rank, Rank::First, "{number}");
        }
        assert!(addresses.0.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn who_asks_for_the_first_time_is_told_from_who_is_modest_and_who_is_not() {
        let mut askers = Askers::new(at(0), PER_S);
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let mut asks = |second| askers.ask(at(second), PER_S, address);
        assert_eq!(asks(0), Some(Rank::First));
        for _ in 1..20 {
            assert_eq!(asks(0), Some(Rank::Modest));
        }
        assert_eq!(asks(0), Some(Rank::Other));
        assert_eq!(asks(1), Some(Rank::Modest), "half of it is back");
        assert_eq!(asks(4), Some(Rank::First), "all of it is");
        assert_eq!(askers.ask(at(4), PER_S, None), Some(Rank::First));
    }
}
