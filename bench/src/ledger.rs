//! Accounts of numbered messages: what came, what came twice, what came after a later one.
//!
//! Owns: the gaps of each receiver's sequence.
//! May depend on: `outcome`.
//! Invariants: received + lost = expected; a sequence remembers at most `GAPS_MAX` gaps, and what fell into
//! a forgotten one counts as lost, then as doubled.

use crate::outcome::Deliveries;

/// The accounts of many receivers, each of whom must see 0, 1, 2, …
#[derive(Default)]
pub struct Ledger {
    sequences: Vec<Sequence>,
    received: u64,
    duplicates: u64,
    out_of_order: u64,
}

/// One receiver's account.
#[derive(Clone, Default)]
struct Sequence {
    next: u64,
    /// Numbers below `next` that have not come: from, to (not included); ascending.
    gaps: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    AfterALater,
    Twice,
}

const GAPS_MAX: usize = 1_024;

impl Ledger {
    pub fn new(receivers: usize) -> Self {
        Self {
            sequences: vec![Sequence::default(); receivers],
            ..Self::default()
        }
    }

    /// Distinct messages that came to anybody.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Notes a number that came; whether it is the first time.
    pub fn note(&mut self, receiver: usize, number: u64) -> bool {
        let arrival = self.sequences[receiver].note(number);
        match arrival {
            Arrival::InOrder => self.received += 1,
            Arrival::AfterALater => {
                self.received += 1;
                self.out_of_order += 1;
            }
            Arrival::Twice => self.duplicates += 1,
        }
        arrival != Arrival::Twice
    }

    /// The account, if so many were to come.
    pub fn deliveries(&self, expected: u64) -> Deliveries {
        Deliveries {
            expected,
            received: self.received,
            lost: expected.saturating_sub(self.received),
            duplicates: self.duplicates,
            out_of_order: self.out_of_order,
        }
    }
}

impl Sequence {
    fn note(&mut self, number: u64) -> Arrival {
        if number >= self.next {
            if number > self.next {
                if self.gaps.len() == GAPS_MAX {
                    self.gaps.remove(0);
                }
                self.gaps.push((self.next, number));
            }
            self.next = number + 1;
            return Arrival::InOrder;
        }
        let at = self.gaps.partition_point(|&(_, to)| to <= number);
        let Some(&(from, to)) = self.gaps.get(at).filter(|&&(from, _)| from <= number) else {
            return Arrival::Twice;
        };
        let rest = [(from, number), (number + 1, to)];
        self.gaps
            .splice(at..=at, rest.into_iter().filter(|(from, to)| from < to));
        Arrival::AfterALater
    }
}

/// The faults in an account, in words.
pub fn faults(deliveries: &Deliveries, is_ordered: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if deliveries.lost > 0 {
        let (lost, expected) = (deliveries.lost, deliveries.expected);
        faults.push(format!("{lost} of {expected} deliveries were lost"));
    }
    if deliveries.duplicates > 0 {
        faults.push(format!("{} messages came twice", deliveries.duplicates));
    }
    if is_ordered && deliveries.out_of_order > 0 {
        let count = deliveries.out_of_order;
        faults.push(format!("{count} messages came after a later one"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: &[u64], expected: u64) -> Deliveries {
        let mut ledger = Ledger::new(1);
        for &number in numbers {
            ledger.note(0, number);
        }
        ledger.deliveries(expected)
    }

    #[test]
    fn lost_doubled_and_late_messages_are_told_apart() {
        // numbers, expected; received, lost, duplicates, out of order
        let cases: [(&[u64], u64, [u64; 4]); 7] = [
            (&[0, 1, 2], 3, [3, 0, 0, 0]),
            (&[0, 2], 3, [2, 1, 0, 0]),
            (&[0, 1], 3, [2, 1, 0, 0]),
            (&[0, 0, 1], 2, [2, 0, 1, 0]),
            (&[1, 0], 2, [2, 0, 0, 1]),
            (&[4, 2, 2, 0, 3, 1, 1], 5, [5, 0, 2, 4]),
            (&[9, 5, 4, 6, 5], 10, [4, 6, 1, 3]),
        ];
        for (numbers, expected, [received, lost, duplicates, out_of_order]) in cases {
            let account = account(numbers, expected);
            let wanted = Deliveries {
                expected,
                received,
                lost,
                duplicates,
                out_of_order,
            };
            assert_eq!(account, wanted, "{numbers:?}");
        }
    }

    #[test]
    fn receivers_have_accounts_of_their_own_and_gaps_are_bounded() {
        let mut ledger = Ledger::new(2);
        assert!(ledger.note(0, 0) && ledger.note(1, 0) && !ledger.note(1, 0));
        for number in 1..5_000 {
            ledger.note(0, number * 2);
        }
        assert_eq!(ledger.sequences[0].gaps.len(), GAPS_MAX);
        assert_eq!(ledger.deliveries(0).received, 2 + 4_999);
    }
}
