//! Data path. One timer per connection, on a coarse wheel.
//!
//! Owns: the wheel of one shard: which row falls due in which tick of 100 ms.
//! May depend on: `application::Millis` only. Not on a clock: the time is an argument.
//! Invariants: a row is on at most one list; a timer never fires before its time; insertion and
//! removal touch at most three nodes, however many timers are armed.

use crate::application::Millis;

/// Length of a tick, milliseconds.
pub(crate) const TICK_MS: u64 = 100;

/// Lists on the wheel: one rotation is 409.6 s, so that common deadlines (10 s, 30 s, 120 s) are
/// looked at once. A later one is passed over once per rotation.
const BUCKETS: usize = ROTATION as usize;
/// The same as ticks are counted.
const ROTATION: u32 = 4_096;
const WORDS: usize = BUCKETS / 64;

const NONE: u32 = u32::MAX;
/// `Node::due` of a row without a timer.
const UNARMED: u32 = u32::MAX;
/// `Node::due` of a row that waits on the list of fired timers.
const FIRED: u32 = u32::MAX - 1;
/// Latest tick that can be named: 13 years.
const TICK_MAX: u32 = u32::MAX - 2;

#[derive(Clone, Copy)]
struct Node {
    next: u32,
    previous: u32,
    due: u32,
}

/// Timers of one shard, indexed by row.
pub(crate) struct Wheel {
    nodes: Vec<Node>,
    heads: Box<[u32; BUCKETS]>,
    /// One bit per bucket that has a list.
    occupied: [u64; WORDS],
    /// All ticks up to this one have been looked at.
    passed: u32,
    armed: u32,
    /// Rows that fell due and were not taken yet.
    fired: std::collections::VecDeque<u32>,
}

impl Wheel {
    pub(crate) fn starting_at(now: Millis) -> Self {
        Self {
            nodes: Vec::new(),
            heads: Box::new([NONE; BUCKETS]),
            occupied: [0; WORDS],
            passed: tick_at(now),
            armed: 0,
            fired: std::collections::VecDeque::new(),
        }
    }

    /// Arms the row's timer; a former one is replaced.
    pub(crate) fn arm(&mut self, row: u32, at: Millis) {
        self.cancel(row);
        let index = row as usize;
        if index >= self.nodes.len() {
            let free = Node {
                next: NONE,
                previous: NONE,
                due: UNARMED,
            };
            self.nodes.resize(index + 1, free);
        }
        let wanted = nameable(at.0.div_ceil(TICK_MS));
        // The current tick has passed already: a timer in the past fires with the next one.
        let due = wanted.max(self.passed.saturating_add(1)).min(TICK_MAX);
        let bucket = due as usize % BUCKETS;
        let first = self.heads[bucket];
        self.nodes[index] = Node {
            next: first,
            previous: NONE,
            due,
        };
        if first != NONE {
            self.nodes[first as usize].previous = row;
        }
        self.heads[bucket] = row;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.armed += 1;
    }

    /// Disarms the row's timer, also when it fell due and was not taken yet.
    pub(crate) fn cancel(&mut self, row: u32) {
        let Some(node) = self.nodes.get(row as usize).copied() else {
            return;
        };
        match node.due {
            UNARMED => {}
            FIRED => self.nodes[row as usize].due = UNARMED,
            _ => self.unlink(row, node, UNARMED),
        }
    }

    /// When the row's timer falls due, or did so without having been taken.
    pub(crate) fn due_at(&self, row: u32) -> Option<Millis> {
        let tick = match self.nodes.get(row as usize)?.due {
            UNARMED => return None,
            FIRED => self.passed,
            due => due,
        };
        Some(Millis(u64::from(tick) * TICK_MS))
    }

    /// Moves on to `now`; what fell due can then be taken with `take_fired`.
    pub(crate) fn advance(&mut self, now: Millis) {
        let current = tick_at(now);
        if current <= self.passed {
            return;
        }
        // A full rotation sees every list once: more steps would see nothing new.
        let steps = (current - self.passed).min(ROTATION);
        let first = current - steps + 1;
        self.passed = current;
        if self.armed == 0 {
            return;
        }
        for tick in first..=current {
            let bucket = tick as usize % BUCKETS;
            if self.occupied[bucket / 64] & (1 << (bucket % 64)) != 0 {
                self.fire_bucket(bucket, current);
            }
        }
    }

    fn fire_bucket(&mut self, bucket: usize, current: u32) {
        let mut row = self.heads[bucket];
        while row != NONE {
            let node = self.nodes[row as usize];
            if node.due <= current {
                self.unlink(row, node, FIRED);
                self.fired.push_back(row);
            }
            row = node.next;
        }
    }

    /// The next row whose timer fell due; it is disarmed.
    pub(crate) fn take_fired(&mut self) -> Option<u32> {
        while let Some(row) = self.fired.pop_front() {
            let node = &mut self.nodes[row as usize];
            // Cancelled or armed anew since it fired: not due any more.
            if node.due == FIRED {
                node.due = UNARMED;
                return Some(row);
            }
        }
        None
    }

    /// When this wheel next needs `advance`; not later than the earliest timer.
    pub(crate) fn next_at(&self) -> Option<Millis> {
        if !self.fired.is_empty() {
            return Some(Millis(u64::from(self.passed) * TICK_MS));
        }
        if self.armed == 0 {
            return None;
        }
        let first = self.passed.saturating_add(1);
        let start = first as usize % BUCKETS;
        let bucket = self.occupied_from(start)?;
        let ahead = (bucket + BUCKETS - start) % BUCKETS;
        Some(Millis((u64::from(first) + ahead as u64) * TICK_MS))
    }

    /// The first bucket with a list, from `start` on and around.
    fn occupied_from(&self, start: usize) -> Option<usize> {
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            if bits != 0 {
                return Some(word * 64 + bits.trailing_zeros() as usize);
            }
        }
        None
    }

    fn unlink(&mut self, row: u32, node: Node, due: u32) {
        let bucket = node.due as usize % BUCKETS;
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if node.previous == NONE {
            assert!(self.heads[bucket] == row);
            self.heads[bucket] = node.next;
            if node.next == NONE {
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        self.nodes[row as usize] = Node {
            next: NONE,
            previous: NONE,
            due,
        };
        assert!(self.armed > 0);
        self.armed -= 1;
    }
}

fn tick_at(now: Millis) -> u32 {
    nameable(now.0 / TICK_MS)
}

/// The tick with this number, or the latest that can be named.
fn nameable(tick: u64) -> u32 {
    u32::try_from(tick).map_or(TICK_MAX, |tick| tick.min(TICK_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        wheel.advance(Millis(now));
        let mut rows: Vec<u32> = std::iter::from_fn(|| wheel.take_fired()).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_timer_fires_at_its_time_and_never_before() {
        for (at, last_quiet, first_due) in [
            (1, 99, 100),
            (100, 99, 100),
            (101, 199, 200),
            (120_000, 119_999, 120_000),
            (409_600, 409_599, 409_600),
            (1_000_050, 1_000_099, 1_000_100),
        ] {
            let mut wheel = Wheel::starting_at(Millis(0));
            wheel.arm(3, Millis(at));
            for quiet in [last_quiet / 3, last_quiet / 2, last_quiet] {
                assert_eq!(fired(&mut wheel, quiet), [0_u32; 0], "{at} at {quiet} ms");
            }
            assert_eq!(fired(&mut wheel, first_due), [3], "{at} at {first_due} ms");
            assert_eq!(
                fired(&mut wheel, first_due * 3),
                [0_u32; 0],
                "{at} fired twice"
            );
        }
    }

    #[test]
    fn a_timer_in_the_past_fires_with_the_next_tick() {
        let mut wheel = Wheel::starting_at(Millis(5_000));
        wheel.arm(0, Millis(10));
        assert_eq!(fired(&mut wheel, 5_099), [0_u32; 0]);
        assert_eq!(fired(&mut wheel, 5_100), [0]);
    }

    #[test]
    fn cancelling_any_of_a_list_leaves_the_others() {
        for gone in 0..4 {
            let mut wheel = Wheel::starting_at(Millis(0));
            (0..4).for_each(|row| wheel.arm(row, Millis(300)));
            wheel.cancel(gone);
            wheel.cancel(gone);
            let left: Vec<u32> = (0..4).filter(|&row| row != gone).collect();
            assert_eq!(fired(&mut wheel, 300), left);
            assert_eq!(wheel.next_at(), None);
        }
    }

    #[test]
    fn arming_again_replaces_even_a_timer_that_fired_and_was_not_taken() {
        let mut wheel = Wheel::starting_at(Millis(0));
        wheel.arm(1, Millis(100));
        wheel.advance(Millis(100));
        wheel.arm(1, Millis(500));
        assert_eq!(wheel.take_fired(), None);
        assert_eq!(fired(&mut wheel, 499), [0_u32; 0]);
        assert_eq!(fired(&mut wheel, 500), [1]);
    }

    #[test]
    fn the_next_deadline_is_the_earliest_timer_of_this_rotation() {
        let mut wheel = Wheel::starting_at(Millis(0));
        assert_eq!(wheel.next_at(), None);
        wheel.arm(0, Millis(100_000));
        assert_eq!(wheel.next_at(), Some(Millis(100_000)));
        wheel.arm(1, Millis(7_301));
        assert_eq!(wheel.next_at(), Some(Millis(7_400)));
        wheel.advance(Millis(50_000));
        assert_eq!(wheel.take_fired(), Some(1));
        assert_eq!(wheel.next_at(), Some(Millis(100_000)));
        wheel.arm(2, Millis(450_000));
        assert_eq!(wheel.next_at(), Some(Millis(100_000)));
    }

    #[test]
    fn a_long_sleep_fires_all_that_fell_due_meanwhile() {
        let mut wheel = Wheel::starting_at(Millis(0));
        (0..5_000).for_each(|row| wheel.arm(row, Millis(u64::from(row) * 100)));
        assert_eq!(fired(&mut wheel, 10_000_000).len(), 5_000);
    }
}
