//! Last events of channels that another node or the shared cache keeps: asked for when somebody subscribes.
//!
//! Owns: `KeptAsks`: subscriptions that wait for an answer.
//! May depend on: `bridge::message`, `channel`, `server::{home, message, topics}`.
//! Invariants: a subscription waits for half a second at most, and once, and no answer of the bus is waited
//! for while the node comes to rest; those that wait no longer begin in slices of a turn's work; while one waits
//! its topic is wanted, since the answer comes on it; what was published here since the question is newer than the
//! answer, also where it was evicted since; an event is in doubt while it was kept before its topic was live: others
//! may know a newer one, and the newest is the one that is kept for longest.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use shards::{
    application::{Millis, Waiter},
    work::Work,
};

use super::{ServerTurn, ShardServer, message::JoinQuestion, topics::JOINS_MAX};
use crate::{
    bridge::message::{Found, FoundEvent, KeepEvent, KeptEvent, KeptName, ToBridge},
    channel::{
        home::{Home, HomeRef, Rules},
        kept::Event,
        names::NameKey,
    },
    protocol::{app::AppIndex, name::ChannelKind, outgoing},
    ws::encode,
};

/// For so long a subscription waits for another node's answer.
const ASK_MS: u64 = 500;
/// For so long after another node's answer a third one's may be the newer one.
const ANSWERS_DIFFER_MS: u64 = 5_000;

/// Channels whose last event is asked for.
#[derive(Clone, Default)]
pub(super) struct KeptAsks {
    asked: BTreeMap<Name, Asked>,
    /// Until when each of them waits, in their order; may name some that were answered.
    order: VecDeque<(Millis, Name)>,
    /// Subscriptions that wait no longer and have not begun.
    ready: VecDeque<(Waiter, JoinQuestion)>,
    /// Subscriptions that wait, of all channels, ready ones too; at most `JOINS_MAX`.
    joins: usize,
}

/// A channel of an app.
type Name = (AppIndex, Arc<str>);

#[derive(Clone)]
struct Asked {
    until: Millis,
    /// The last event that was known here then.
    known: Option<Arc<[u8]>>,
    /// Of other nodes, as far as is known.
    answers_left: usize,
    joins: Vec<(Waiter, JoinQuestion)>,
}

impl KeptAsks {
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.ready.is_empty()
    }

    /// Some can begin at once.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Subscriptions that wait.
    pub(super) fn joins(&self) -> usize {
        self.joins
    }

    /// Who waits for a channel's last event, which is asked for since now or was before.
    fn waiting(
        &mut self,
        now: Millis,
        name: Name,
        known: Option<Arc<[u8]>>,
    ) -> &mut Vec<(Waiter, JoinQuestion)> {
        let order = &mut self.order;
        let asked = self.asked.entry(name).or_insert_with_key(|name| {
            let until = now.plus(ASK_MS);
            order.push_back((until, name.clone()));
            Asked {
                until,
                known,
                answers_left: 1,
                joins: Vec::new(),
            }
        });
        &mut asked.joins
    }

    /// Who waits for a channel's last event can begin. How many there are.
    fn release(&mut self, app: AppIndex, channel: &Arc<str>, is_answered: bool) -> usize {
        let asked = self.asked.remove(&(app, Arc::clone(channel)));
        let joins = asked.map(|asked| asked.joins).unwrap_or_default();
        let count = joins.len();
        self.ready
            .extend(joins.into_iter().map(|(to, mut question)| {
                question.is_unanswered = !is_answered;
                (to, question)
            }));
        count
    }

    fn pop_ready(&mut self) -> Option<(Waiter, JoinQuestion)> {
        let ready = self.ready.pop_front()?;
        self.joins -= 1;
        Some(ready)
    }

    /// The last event is still what it was when the channel was asked for.
    fn is_as_asked(&self, app: AppIndex, channel: &Arc<str>, now_known: &Arc<[u8]>) -> bool {
        let asked = self.asked.get(&(app, Arc::clone(channel)));
        let known = asked.and_then(|asked| asked.known.as_ref());
        known.is_some_and(|known| Arc::ptr_eq(known, now_known))
    }

    /// So many nodes were asked.
    fn awaits(&mut self, app: AppIndex, channel: &Arc<str>, answers: usize) {
        if let Some(asked) = self.asked.get_mut(&(app, Arc::clone(channel))) {
            asked.answers_left = answers;
        }
    }

    /// One more has answered. True: no other answer is awaited.
    fn is_answered(&mut self, app: AppIndex, channel: &Arc<str>) -> bool {
        let asked = self.asked.get_mut(&(app, Arc::clone(channel)));
        asked.is_none_or(|asked| {
            asked.answers_left = asked.answers_left.saturating_sub(1);
            asked.answers_left == 0
        })
    }

    /// Who has waited for longest, if that is long enough.
    fn late(&mut self, now: Millis) -> Option<Name> {
        while let Some((until, name)) = self.order.front() {
            if self.asked.get(name).is_some_and(|it| it.until == *until) {
                return (*until <= now).then(|| name.clone());
            }
            self.order.pop_front();
        }
        None
    }
}

impl ShardServer {
    /// Home: a subscription to a channel whose last event may be elsewhere waits for it: where nodes share
    /// a cache also if there is one here, since while nobody was subscribed others may have published
    /// unheard. Gives back one that need not.
    pub(super) fn await_kept(
        &mut self,
        turn: &mut impl ServerTurn,
        to: Waiter,
        mut question: JoinQuestion,
    ) -> Option<(Waiter, JoinQuestion)> {
        let JoinQuestion { app, key, .. } = question;
        let at = self.homes.find(app, &question.channel, key.hash);
        let home = at.and_then(|at| self.homes.get(at));
        let is_elsewhere = home.is_some_and(|home| home.is_kept_elsewhere());
        let is_cache = ChannelKind::of(&question.channel).is_cache();
        let is_missing = home.map_or(is_cache, |home| home.misses_kept(turn.now()));
        let is_unheard = home.is_none_or(|home| home.subscriptions() == 0);
        let is_doubted = home.is_some_and(|home| self.doubts_kept(home));
        let is_shared = self.settings.shares_events && self.apps.get(app).is_some();
        let may_be_newer = is_shared && is_cache && (is_missing || is_unheard || is_doubted);
        let is_elsewhere = is_elsewhere && (is_missing || is_doubted);
        let is_asked_for = may_be_newer || is_elsewhere;
        if question.has_asked || !is_asked_for {
            return Some((to, question));
        }
        if self.kept_asks.joins == JOINS_MAX {
            question.is_unanswered = true;
            return Some((to, question));
        }
        question.has_asked = true;
        let name = KeptName {
            app,
            partition: key.partition,
            channel: Arc::clone(&question.channel),
            is_elsewhere,
            is_doubted,
        };
        let Some(waiting) = self.ask_kept(turn, name, at) else {
            question.is_unanswered = true;
            return Some((to, question));
        };
        waiting.push((to, question));
        self.kept_asks.joins += 1;
        self.topics.used(key.partition, true);
        turn.keep_ticking(true);
        None
    }

    /// Asks for a channel's last event, unless it is asked for already; `None` where there is no room.
    fn ask_kept(
        &mut self,
        turn: &mut impl ServerTurn,
        name: KeptName,
        at: Option<HomeRef>,
    ) -> Option<&mut Vec<(Waiter, JoinQuestion)>> {
        let known = at.and_then(|at| self.homes.get(at)?.kept(turn.now()));
        let known = known.map(|(event, _)| Arc::clone(&event.frame));
        let of = (name.app, Arc::clone(&name.channel));
        if !self.kept_asks.asked.contains_key(&of) {
            let is_doubted = name.is_doubted;
            turn.to_bridge(ToBridge::KeptAsk(Box::new(name))).ok()?;
            self.counters.kept_doubted += u64::from(is_doubted);
        }
        Some(self.kept_asks.waiting(turn.now(), of, known))
    }

    /// Subscriptions to the channel wait no longer: `continue_kept` begins them.
    pub(super) fn release_kept(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        channel: &Arc<str>,
        is_answered: bool,
    ) {
        let count = self.kept_asks.release(app, channel, is_answered);
        turn.spend(Work::ROW.times(1 + count));
    }

    /// Begins subscriptions that wait no longer, as many as the turn has work for.
    pub(super) fn continue_kept(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some((to, question)) = self.kept_asks.pop_ready()
        {
            self.begin_join(turn, to, question);
        }
    }

    /// Goes on with subscriptions whose answer did not come.
    pub(super) fn release_late_kept(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && let Some((app, channel)) = self.kept_asks.late(turn.now())
        {
            self.release_kept(turn, app, &channel, false);
        }
    }

    /// The node comes to rest: what the bus brings waits by now, and a shared cache has had its time. Whoever
    /// subscribes is told that there is no last event, as it would be of one that comes too late.
    pub(super) fn release_kept_at_rest(&mut self, turn: &mut impl ServerTurn) {
        if self.settings.shares_events && !self.handover.gives_up_waiting() {
            return;
        }
        while turn.work_left() > Work(0)
            && let Some((app, channel)) = self.kept_asks.late(Millis(u64::MAX))
        {
            self.release_kept(turn, app, &channel, false);
        }
    }

    /// Others may have published unheard since it was kept.
    fn doubts_kept(&self, home: &Home) -> bool {
        home.doubts_kept(self.topics.live_since(home.key.partition))
    }

    /// Home: another node asks for the last event.
    pub(super) fn on_kept_ask(&mut self, turn: &mut impl ServerTurn, name: KeptName) {
        turn.spend(Work::MESSAGE);
        let KeptName {
            app,
            partition,
            channel,
            ..
        } = name;
        let hash = self.name_hasher.hash(&channel);
        let at = self.homes.find(app, &channel, hash);
        let home = at.and_then(|at| self.homes.get(at));
        let Some((event, left_ms)) = home.and_then(|home| home.kept_for(turn.now())) else {
            return; // It has just gone, which the other one hears.
        };
        let kept = KeptEvent {
            app,
            partition,
            channel,
            left_ms,
            frame: Arc::clone(&event.frame),
        };
        // Without room it is not told, and whoever asked waits no longer than for any answer.
        let has_room = self.has_bus_room(turn, app);
        let is_told = has_room && turn.to_bridge(ToBridge::Kept(Box::new(kept))).is_ok();
        self.counters.bridge_full[2] += u64::from(!is_told);
    }

    /// Home: a last event that somebody has asked for. Whoever has one that is in no doubt keeps that: it came
    /// with the channel's other events.
    pub(super) fn on_kept(&mut self, turn: &mut impl ServerTurn, kept: KeptEvent) {
        turn.spend(Work::EVENT);
        let KeptEvent {
            app,
            partition,
            channel,
            left_ms,
            frame,
        } = kept;
        // Whatever a bus brings, clients get whole frames.
        let Some(event) = event_of(&frame) else {
            self.counters.node_events_refused += 1;
            return;
        };
        let keeps = ChannelKind::of(&channel).is_cache() && self.settings.keeps_events;
        let is_wanted = keeps && self.apps.get(app).is_some();
        let hash = self.name_hasher.hash(&channel);
        let at = self.homes.find(app, &channel, hash).filter(|_| is_wanted);
        let is_newer = at.is_some_and(|at| self.is_newer(turn.now(), at, left_ms, &event));
        if let Some(at) = at.filter(|_| is_newer) {
            let key = NameKey { partition, hash };
            debug_assert_eq!(self.homes.get(at).map(|it| it.key), Some(key));
            self.keep_for(turn, app, at, event, left_ms);
        }
        if let Some(at) = at
            && let Some(home) = self.homes.get(at)
            && (is_newer || self.doubts_kept(home))
        {
            self.homes.confirm_kept(at, turn.now());
        }
        if self.kept_asks.is_answered(app, &channel) {
            self.release_kept(turn, app, &channel, true);
        }
    }

    /// Another node's last event is to be kept here. Of several that answer each may know a newer one.
    fn is_newer(&self, now: Millis, at: HomeRef, left_ms: u64, event: &Event) -> bool {
        let Some(home) = self.homes.get(at) else {
            return false;
        };
        let Some((known, known_left_ms)) = home.kept_for(now) else {
            return home.misses_kept(now) && !home.has_evicted_newer(now, event, left_ms);
        };
        let asked_since = Millis(now.0.saturating_sub(ANSWERS_DIFFER_MS));
        let is_open = self.doubts_kept(home) || home.is_answer_since(asked_since);
        is_open && left_ms > known_left_ms && known.frame != event.frame
    }

    /// Keeps an event of somebody's answer.
    fn keep_for(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        at: HomeRef,
        event: Event,
        left_ms: u64,
    ) {
        let home = self.homes.get(at);
        let known = home.and_then(|home| home.kept(turn.now()));
        let is_another = known.is_some_and(|(known, _)| known.frame != event.frame);
        self.counters.kept_replaced += u64::from(is_another);
        let rules = self.apps.rules(app);
        let rules = Rules {
            kept_ms: left_ms.min(rules.kept_ms),
            ..rules
        };
        self.homes.keep(at, turn.now(), &rules, event);
        self.settle_home(turn, at);
    }

    /// Home: an event was published here that is the channel's last.
    pub(super) fn share_kept(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        channel: &Arc<str>,
        frame: &Arc<[u8]>,
    ) {
        let text = encode::text_of(frame).filter(|_| self.settings.shares_events);
        let Some(text) = text else { return };
        let keep = KeepEvent {
            app,
            channel: Arc::clone(channel),
            left_ms: self.apps.rules(app).kept_ms,
            frame: Arc::clone(frame),
            text_from: frame.len() - text.len(),
        };
        // Without room the cache has the event before, until the next one.
        let is_told = turn.to_bridge(ToBridge::Keep(Box::new(keep))).is_ok();
        self.counters.bridge_full[2] += u64::from(!is_told);
    }

    /// Home: what the shared cache has of a channel, or how many nodes were asked. Whoever wrote it, clients get
    /// an event of this channel.
    pub(super) fn on_found(&mut self, turn: &mut impl ServerTurn, found: FoundEvent) {
        turn.spend(Work::EVENT);
        let FoundEvent {
            app,
            partition,
            channel,
            found,
        } = found;
        if let Found::Asked(count) = found {
            return self.kept_asks.awaits(app, &channel, count);
        }
        let hash = self.name_hasher.hash(&channel);
        let at = self.homes.find(app, &channel, hash);
        let home = at.and_then(|at| self.homes.get(at));
        let known = home.and_then(|home| home.kept(turn.now()));
        let is_newest =
            known.is_none_or(|(event, _)| self.kept_asks.is_as_asked(app, &channel, &event.frame));
        let is_wanted = is_newest && self.settings.shares_events && self.apps.get(app).is_some();
        let is_answered = found != Found::Unknown;
        let is_alone = found == Found::Nothing && home.is_some_and(|home| self.doubts_kept(home));
        if let Some(at) = at.filter(|_| is_alone) {
            self.homes.confirm_kept(at, turn.now());
        }
        if let Found::Text(text, left_ms) = found
            && is_wanted
        {
            match event_of_text(&text, &channel) {
                Some(event) => {
                    let home = at.and_then(|at| self.homes.get(at));
                    let is_older =
                        |home: &Home| home.has_evicted_newer(turn.now(), &event, left_ms);
                    if !home.is_some_and(is_older) {
                        let key = NameKey { partition, hash };
                        let at = self.homes.enter(app, &channel, key);
                        self.keep_for(turn, app, at, event, left_ms);
                    }
                }
                None => self.counters.node_events_refused += 1,
            }
        }
        self.release_kept(turn, app, &channel, is_answered);
    }
}

/// The event that a shared cache has as JSON; `None` where it is none.
fn event_of_text(text: &[u8], channel: &str) -> Option<Event> {
    let text = std::str::from_utf8(text).ok()?;
    let mut frame = Vec::with_capacity(text.len() + 16);
    let start = encode::begin_text(&mut frame);
    outgoing::stored_event(&mut frame, text, channel)?;
    encode::finish_text(&mut frame, start);
    event_of(&frame.into())
}

/// The event in a frame of another node; `None` where it is none.
pub(super) fn event_of(frame: &Arc<[u8]>) -> Option<Event> {
    let text = encode::text_of(frame)?;
    let data = outgoing::data_of(text)?;
    let start = frame.len() - text.len() + data.start;
    Some(Event {
        frame: Arc::clone(frame),
        data_start: u32::try_from(start).ok()?,
        data_bytes: u32::try_from(data.len()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_for_longest_is_late_first_and_who_was_answered_is_not() {
        let mut asks = KeptAsks::default();
        let app = AppIndex(0);
        let names = ["cache-c", "cache-a", "cache-b"].map(Arc::<str>::from);
        for (name, now) in names.iter().zip([0, 10, 20]) {
            for now in [now, now + 1] {
                asks.waiting(Millis(now), (app, Arc::clone(name)), None);
            }
        }
        assert_eq!(asks.late(Millis(ASK_MS - 1)), None);
        let [first, second, third] = names;
        assert_eq!(
            asks.late(Millis(2 * ASK_MS)),
            Some((app, Arc::clone(&first)))
        );
        asks.release(app, &second, true);
        asks.release(app, &first, true);
        assert_eq!(
            asks.late(Millis(2 * ASK_MS)),
            Some((app, Arc::clone(&third)))
        );
        // Asked for anew it waits anew.
        asks.waiting(Millis(30), (app, Arc::clone(&first)), None);
        asks.release(app, &third, true);
        assert_eq!(asks.late(Millis(29 + ASK_MS)), None);
        assert_eq!(
            asks.late(Millis(30 + ASK_MS)),
            Some((app, Arc::clone(&first)))
        );
        asks.release(app, &first, true);
        assert_eq!((asks.late(Millis(u64::MAX)), asks.order.len()), (None, 0));
    }
}
