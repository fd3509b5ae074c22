//! Who publishes how much to the other nodes: while there is little room on that way, whoever publishes the most
//! leaves it to the others.
//!
//! Owns: bytes by app, of this second and of the one before.
//! May depend on: `protocol::app`, the runtime's time.
//! Invariants: a row is never of a later second than the sum; who published little is never heavy.

use shards::application::Millis;

use crate::protocol::app::{AppIndex, AppRows};

/// What apps publish.
#[derive(Clone, Default)]
pub(super) struct Published {
    apps: AppRows<Bytes>,
    all: Bytes,
}

/// Of a second, and of the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    second: u64,
    now: u64,
    before: u64,
}

/// With less in two seconds nobody is heavy.
const LITTLE_BYTES: u64 = 262_144;
/// Who has such a part of all is.
const HEAVY_PART: u64 = 16;

impl Bytes {
    fn at(self, now: Millis) -> Self {
        let second = now.0 / 1_000;
        match second.saturating_sub(self.second) {
            0 => self,
            1 => Self {
                second,
                now: 0,
                before: self.now,
            },
            _ => Self {
                second,
                ..Self::default()
            },
        }
    }

    fn add(&mut self, now: Millis, bytes: u64) {
        *self = self.at(now);
        self.now += bytes;
    }

    fn sum(self) -> u64 {
        self.now + self.before
    }
}

impl Published {
    /// An app has published so much.
    // Per event: a row of two loads, some additions.
    pub(super) fn add(&mut self, now: Millis, app: AppIndex, bytes: usize) {
        let bytes = bytes as u64;
        self.all.add(now, bytes);
        self.apps.enter(app, Bytes::default).add(now, bytes);
    }

    /// An app has published a sixteenth of all lately, or more, and no little.
    pub(super) fn is_heavy(&self, now: Millis, app: AppIndex) -> bool {
        let of_app = self.apps.get(app).map_or(0, |bytes| bytes.at(now).sum());
        of_app >= LITTLE_BYTES && of_app.saturating_mul(HEAVY_PART) >= self.all.at(now).sum()
    }

    /// Forgets apps that are gone.
    pub(super) fn forget_apps(&mut self, is_known: impl Fn(AppIndex) -> bool) {
        self.apps.retain(|app, _| is_known(app));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1_024;

    #[test]
    fn who_published_a_sixteenth_of_the_last_two_seconds_is_heavy_and_who_published_little_is_not()
    {
        let [one, other, small] = [AppIndex(1), AppIndex(70), AppIndex(3)];
        let mut published = Published::default();
        let heavy = |published: &Published, now| {
            [one, other, small].map(|app| published.is_heavy(Millis(now), app))
        };
        assert_eq!(heavy(&published, 0), [false; 3]);
        published.add(Millis(10_000), one, 255 * KIB);
        published.add(Millis(10_000), small, KIB);
        assert_eq!(heavy(&published, 10_000), [false; 3], "all is little");
        published.add(Millis(10_999), one, KIB);
        assert_eq!(heavy(&published, 10_999), [true, false, false]);
        published.add(Millis(11_000), other, 3_840 * KIB);
        assert_eq!(heavy(&published, 11_000), [false, true, false], "of 4 097");
        published.add(Millis(11_000), one, KIB);
        assert_eq!(heavy(&published, 11_999), [true, true, false], "of 4 098");
        assert_eq!(
            heavy(&published, 12_000),
            [false, true, false],
            "one is left"
        );
        assert_eq!(heavy(&published, 13_000), [false; 3]);
        published.add(Millis(13_000), small, 300 * KIB);
        assert_eq!(heavy(&published, 13_000), [false, false, true]);
        published.forget_apps(|app| app != small);
        assert_eq!(heavy(&published, 13_000), [false; 3]);
    }
}
