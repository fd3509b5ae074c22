//! Data path. Timed frames of a fan-out that takes several turns: how far each of them has come.
//!
//! Owns: `TimedFrames`, `TimedAt`, `Timed`.
//! May depend on: std. The moments are numbers of whoever asks.
//! Invariants: a frame has a row iff some part of its audience is still to get it, so that it is
//! reported once, with the last part.

use std::num::NonZeroU32;

/// How far a timed frame has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timed {
    /// When its event had arrived, microseconds of the node's clock.
    pub began_us: u64,
    /// Subscribers that it was queued for.
    pub sent: u64,
}

/// Where a timed frame stands. One more than its index, so that it takes no room where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedAt(NonZeroU32);

/// The timed frames of a job; as many as frames wait in it, which back pressure bounds.
#[derive(Clone, Debug, Default)]
pub(super) struct TimedFrames {
    rows: Vec<Row>,
    free: Vec<TimedAt>,
}

#[derive(Clone, Debug)]
struct Row {
    timed: Timed,
    /// Parts of the audience that are still to get the frame, those that get it now among them.
    parts: usize,
}

impl TimedFrames {
    /// Adds a frame that so many parts are to get.
    pub(super) fn add(&mut self, began_us: u64, parts: usize) -> TimedAt {
        assert!(parts > 0, "somebody is to get it");
        let timed = Timed { began_us, sent: 0 };
        let row = Row { timed, parts };
        if let Some(at) = self.free.pop() {
            *self.row(at) = row;
            return at;
        }
        self.rows.push(row);
        let number = u32::try_from(self.rows.len())
            .ok()
            .and_then(NonZeroU32::new);
        TimedAt(number.expect("fewer than 2^32 frames wait"))
    }

    /// One of the parts became so many more.
    pub(super) fn split(&mut self, at: TimedAt, more: usize) {
        self.row(at).parts += more;
    }

    /// One part has got the frame; returns what is known of it when that was the last one.
    pub(super) fn sent(&mut self, at: TimedAt, count: u64) -> Option<Timed> {
        let row = self.row(at);
        row.timed.sent += count;
        row.parts = row.parts.checked_sub(1).expect("a part gets a frame once");
        if row.parts > 0 {
            return None;
        }
        let timed = row.timed;
        self.free.push(at);
        Some(timed)
    }

    /// No frame is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == self.free.len()
    }

    fn row(&mut self, at: TimedAt) -> &mut Row {
        &mut self.rows[at.0.get() as usize - 1]
    }
}
