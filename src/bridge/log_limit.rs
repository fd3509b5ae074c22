//! How often a line about a trouble that lasts is written.
//!
//! Owns: `LogLimit`.
//! May depend on: the time of `shards`.
//! Invariants: no more lines than allowed in any window, however often the trouble comes; each line that is
//! written says how many were not.

use shards::application::Millis;

/// Keeps what goes wrong again and again from filling the disk.
#[derive(Debug)]
pub(super) struct LogLimit {
    lines_max: u32,
    window_ms: u64,
    /// When the window began, of which lines were written.
    window: Option<Millis>,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// The first line of a trouble begins a window.
    pub(super) const fn new(lines_max: u32, window_ms: u64) -> Self {
        Self {
            lines_max,
            window_ms,
            window: None,
            lines: 0,
            suppressed: 0,
        }
    }

    /// One line a minute.
    pub(super) const fn once_a_minute() -> Self {
        Self::new(1, 60_000)
    }

    /// `Some` if a line may be written now, with how many were left out before it.
    pub(super) fn allow(&mut self, now: Millis) -> Option<u64> {
        let is_over = |began: Millis| now.since(began) >= self.window_ms;
        if self.window.is_none_or(is_over) {
            self.window = Some(now);
            self.lines = 0;
        }
        if self.lines == self.lines_max {
            self.suppressed += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_allows(mut limit: LogLimit, expected: &[(u64, Option<u64>)]) {
        for &(second, expected) in expected {
            assert_eq!(limit.allow(Millis(second * 1_000)), expected, "{second} s");
        }
    }

    #[test]
    fn one_line_a_minute_says_how_many_were_left_out() {
        assert_allows(
            LogLimit::once_a_minute(),
            &[
                (0, Some(0)),
                (1, None),
                (59, None),
                (60, Some(2)),
                (119, None),
                (240, Some(1)),
            ],
        );
    }

    #[test]
    fn a_window_has_room_for_its_lines_from_the_first_of_them_on() {
        assert_allows(
            LogLimit::new(2, 10_000),
            &[
                (9, Some(0)),
                (11, Some(0)),
                (12, None),
                (18, None),
                (19, Some(2)),
                (20, Some(0)),
                (21, None),
            ],
        );
    }
}
