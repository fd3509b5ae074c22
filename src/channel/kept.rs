//! A cache channel's last event, at the channel's home: kept for newcomers, for a time.
//!
//! Owns: `Event`, `Kept`, and what a home says of the last event and does with it.
//! May depend on: `channel::{home, home_effect}`, plain ids. Not on connections, queues, clocks.
//! Invariants: only cache channels keep an event, one each; what is kept is told to nobody once its time is over; an
//! event is known to be the last one since it was kept, or confirmed by an answer; of one that was evicted is still
//! known when it was kept, so that no older one takes its place.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use ahash::AHasher;
use shards::application::Millis;

use super::{
    home::{Home, Rules},
    home_effect::{HomeEffect, Hook, LastEvent},
};

/// An encoded event: its WebSocket frame, and where in it the JSON string token of `data` stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub frame: Arc<[u8]>,
    pub data_start: u32,
    pub data_bytes: u32,
}

impl Event {
    /// Tells it from the channel's others on this node.
    fn fingerprint(&self) -> u64 {
        let mut hasher = AHasher::default();
        self.frame.hash(&mut hasher);
        hasher.finish()
    }
}

/// A cache channel's last event.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    held: Held,
    expires_at: Millis,
    number: u64,
    /// When it was known to be the last one.
    known_at: Millis,
    /// From another's answer: who answers later may know a newer one.
    is_answer: bool,
}

/// What there is of a last event.
#[derive(Clone, Debug)]
enum Held {
    Whole(Event),
    /// It was evicted; its fingerprint.
    Evicted(u64),
}

impl Kept {
    fn event(&self) -> Option<&Event> {
        match &self.held {
            Held::Whole(event) => Some(event),
            Held::Evicted(_) => None,
        }
    }

    /// About the bytes that the event holds; 0 of an evicted one.
    fn bytes(&self) -> usize {
        let event = self.event();
        event.map_or(0, |event| KEPT_FIXED_BYTES + event.frame.len())
    }
}

impl Home {
    /// The last event and its remaining life in whole seconds.
    pub fn kept(&self, now: Millis) -> Option<(&Event, u64)> {
        let (event, left_ms) = self.kept_for(now)?;
        Some((event, left_ms / 1_000))
    }

    /// The last event is not here, though this is a channel that has one.
    pub fn misses_kept(&self, now: Millis) -> bool {
        self.kind.is_cache() && self.kept(now).is_none()
    }

    /// Another node has said that it keeps the last event.
    pub fn is_kept_elsewhere(&self) -> bool {
        self.kept_elsewhere
    }

    /// The last event, and for how many milliseconds it is kept.
    pub fn kept_for(&self, now: Millis) -> Option<(&Event, u64)> {
        let kept = self.kept.as_ref().filter(|kept| kept.expires_at > now)?;
        Some((kept.event()?, kept.expires_at.since(now)))
    }

    /// A last event is here, be its time over or not.
    pub(super) fn has_kept(&self) -> bool {
        self.kept
            .as_ref()
            .is_some_and(|kept| kept.event().is_some())
    }

    /// The last event was evicted here, and this one, which is kept for so long elsewhere, is an older one.
    pub fn has_evicted_newer(&self, now: Millis, event: &Event, left_ms: u64) -> bool {
        let Some(kept) = &self.kept else {
            return false;
        };
        let Held::Evicted(fingerprint) = kept.held else {
            return false;
        };
        left_ms <= kept.expires_at.since(now) && event.fingerprint() != fingerprint
    }

    /// The last event was kept before `since`, up to which others may have published unheard.
    pub fn doubts_kept(&self, since: Millis) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| kept.event().is_some() && kept.known_at < since)
    }

    /// The last event is what another node has answered, at `since` or later.
    pub fn is_answer_since(&self, since: Millis) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| kept.is_answer && kept.known_at >= since)
    }

    /// When the kept event's time is over.
    pub(super) fn kept_until(&self) -> Option<Millis> {
        self.kept.as_ref().map(|kept| kept.expires_at)
    }

    /// Keeps an event, under its number, as the last one; returns the bytes of the one before it.
    pub(super) fn keep(
        &mut self,
        now: Millis,
        rules: &Rules,
        event: Event,
        number: u64,
    ) -> Option<usize> {
        assert!(self.kind.is_cache(), "only cache channels keep an event");
        let kept = Kept {
            held: Held::Whole(event),
            expires_at: now.plus(rules.kept_ms),
            number,
            known_at: now,
            is_answer: false,
        };
        let before = self.kept.replace(Box::new(kept))?;
        before.event().map(|_| before.bytes())
    }

    /// Another node has answered, or no other keeps an event: the one that is kept now is the newest of which
    /// is known. Who answers later may know a newer one: see `is_answer_since`.
    pub(super) fn confirm_kept(&mut self, now: Millis) {
        if let Some(kept) = &mut self.kept {
            (kept.known_at, kept.is_answer) = (now, true);
        }
    }

    /// About the bytes that the kept event holds; 0 without one.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes())
    }

    /// The kept event is the one with this number.
    pub(super) fn keeps(&self, number: u64) -> bool {
        let kept = self.kept.as_ref();
        kept.is_some_and(|kept| kept.event().is_some() && kept.number == number)
    }

    /// Forgets the kept event, but not when it was kept; returns its bytes.
    pub(super) fn evict_kept(&mut self) -> Option<usize> {
        let kept = self.kept.as_mut()?;
        let (bytes, fingerprint) = (kept.bytes(), kept.event()?.fingerprint());
        kept.held = Held::Evicted(fingerprint);
        Some(bytes)
    }

    /// Forgets the kept event if its time is over; returns its bytes, of one that was there.
    pub(super) fn expire_kept(&mut self, now: Millis) -> Option<usize> {
        let expired = self.kept.take_if(|kept| kept.expires_at <= now)?;
        expired.event().map(|_| expired.bytes())
    }

    /// What a newcomer gets.
    pub(super) fn last_event(
        &mut self,
        now: Millis,
        rules: &Rules,
        effects: &mut Vec<HomeEffect>,
    ) -> LastEvent {
        if !self.kind.is_cache() {
            return LastEvent::NotCached;
        }
        if let Some((event, _)) = self.kept(now) {
            return LastEvent::Hit(event.clone());
        }
        // It is somewhere, and did not come in time: that is no miss of the app's.
        if rules.hook_misses && !self.kept_elsewhere {
            let later = self.later.get_or_insert_default();
            if now >= later.miss_quiet_until {
                later.miss_quiet_until = now.plus(MISS_QUIET_MS);
                effects.push(HomeEffect::Hook(Hook::CacheMiss));
            }
        }
        LastEvent::Miss
    }
}

/// What keeping an event takes beside its frame: the home's row, its name, its places in tables.
const KEPT_FIXED_BYTES: usize = 512;
/// One `cache_miss` webhook per channel and this time.
const MISS_QUIET_MS: u64 = 10_000;

#[cfg(test)]
pub(super) mod tests {
    use super::{
        super::{
            home::tests::{Channel, RULES},
            home_effect::tests::words,
        },
        *,
    };

    pub(in crate::channel) fn event(number: u8) -> Event {
        Event {
            frame: Arc::from([number].as_slice()),
            data_start: 0,
            data_bytes: 1,
        }
    }

    #[test]
    fn a_newcomer_gets_the_kept_event_until_its_time_is_over() {
        for (now, last) in [
            (1_049, "joined, hit 7"),
            (1_050, "joined, miss"),
            (1_051, "joined, miss"),
        ] {
            let mut channel = Channel::new("cache-prices");
            channel.0.keep(Millis(0), &RULES, event(6), 1);
            channel.0.keep(Millis(50), &RULES, event(7), 2);
            let effects = words(&channel.join(now, None));
            assert!(
                effects.contains(&last.to_owned()),
                "at {now} ms: {effects:?}"
            );
        }
    }

    #[test]
    fn misses_have_one_webhook_in_ten_seconds() {
        let mut channel = Channel::new("cache-prices");
        for (now, hooked) in [(0, true), (5, false), (9_999, false), (10_000, true)] {
            let effects = channel.join(now, None);
            let miss = HomeEffect::Hook(Hook::CacheMiss);
            assert_eq!(effects.contains(&miss), hooked, "at {now} ms");
            channel.settle(now);
        }
    }

    #[test]
    fn an_evicted_event_gives_way_to_no_older_one_and_its_home_keeps_nothing() {
        let mut home = Channel::new("cache-prices").0;
        home.keep(Millis(50), &RULES, event(7), 1);
        assert!(
            !home.has_evicted_newer(Millis(60), &event(6), 1),
            "it is here"
        );
        assert_eq!(home.evict_kept(), Some(KEPT_FIXED_BYTES + 1));
        assert_eq!(home.evict_kept(), None);
        assert!(home.misses_kept(Millis(60)));
        assert!(!home.has_kept() && !home.keeps(1) && !home.doubts_kept(Millis(60)));
        assert!(home.is_idle(Millis(60)), "it holds no home");
        let left_ms = 50 + RULES.kept_ms - 60;
        for (number, left_ms, is_older) in [
            (6, left_ms - 1, true),
            (6, left_ms, true),
            (8, left_ms + 1, false),
            // The event itself, which the other node heard sooner.
            (7, left_ms - 1, false),
        ] {
            let told = home.has_evicted_newer(Millis(60), &event(number), left_ms);
            assert_eq!(told, is_older, "event {number} for {left_ms} ms");
        }
        assert_eq!(home.expire_kept(Millis(1_050)), None, "no bytes are free");
        assert!(!home.has_evicted_newer(Millis(1_050), &event(6), 0));
        home.keep(Millis(2_000), &RULES, event(9), 2);
        home.evict_kept();
        assert_eq!(home.keep(Millis(2_000), &RULES, event(10), 3), None);
        assert!(home.keeps(3));
    }
}
