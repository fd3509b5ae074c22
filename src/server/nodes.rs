//! The other nodes, as a shard's homes see them: what they are told, what they have.
//!
//! Owns: events to and from them, news of this node's homes, changes of what the others have.
//! May depend on: `bridge::message`, `channel`, `server::home`.
//! Invariants: other nodes hear of each channel what is so by then, in the order in which it became so
//! per member; nothing is told while the lane is full, and nothing is lost by it.

use std::sync::Arc;

use shards::work::Work;

use super::{ServerTurn, ShardServer};
use crate::{
    bridge::message::{NodeEvent, NodeState, StateChange, ToBridge},
    channel::{
        home::{Elsewhere, Event, HomeRef, News},
        names::NameKey,
        roster::{Member, MemberNews},
    },
    protocol::{name::ChannelKind, outgoing},
    ws::encode,
};

impl ShardServer {
    /// Home: hands an event of this node to the bus, before anybody here gets it. False where there
    /// is no room.
    pub(super) fn tell_nodes(&mut self, turn: &mut impl ServerTurn, event: NodeEvent) -> bool {
        turn.spend(Work::MESSAGE);
        let is_taken = turn.to_bridge(ToBridge::Event(Box::new(event))).is_ok();
        self.counters.bridge_full[2] += u64::from(!is_taken);
        is_taken
    }

    /// Home: an event that another node has published.
    pub(super) fn on_node_event(&mut self, turn: &mut impl ServerTurn, event: NodeEvent) {
        turn.spend(Work::EVENT);
        let NodeEvent {
            app,
            partition,
            channel,
            except,
            frame,
            ..
        } = event;
        // Whatever a bus brings, clients get whole frames.
        let Some(text) = encode::text_of(&frame) else {
            self.counters.node_events_refused += 1;
            return;
        };
        let hash = self.name_hasher.hash(&channel);
        let key = NameKey { partition, hash };
        let keeps = ChannelKind::of(&channel).is_cache() && self.settings.keeps_events;
        let kept = (keeps && self.apps.get(app).is_some())
            .then(|| outgoing::data_of(text))
            .flatten();
        let at = match kept {
            Some(data) => {
                let at = self.homes.enter(app, &channel, key);
                let rules = self.apps.rules(app);
                let start = frame.len() - text.len() + data.start;
                let event = Event {
                    frame: Arc::clone(&frame),
                    data_start: u32::try_from(start).unwrap_or(u32::MAX),
                    data_bytes: u32::try_from(data.len()).unwrap_or(u32::MAX),
                };
                self.homes.keep(at, turn.now(), &rules, event);
                self.settle_home(turn, at);
                Some(at)
            }
            None => self.homes.find(app, &channel, hash),
        };
        if let Some(at) = at {
            let except = except.and_then(|id| self.socket_ids.place(id));
            self.deliver_all(turn, at, &frame, except, None);
        }
    }

    /// Tells other nodes what has changed here, as far as there is room and work left.
    // Per change: one message of some 60 B. Of a channel that changes faster than that, what is so
    // when its turn comes.
    pub(super) fn continue_news(&mut self, turn: &mut impl ServerTurn) {
        if let Some(state) = self.untold.take()
            && !self.tell_state(turn, state)
        {
            return;
        }
        while turn.work_left() > Work(0)
            && let Some((at, news)) = self.homes.next_news()
        {
            let state = news.and_then(|news| self.state_of(at, news));
            self.settle_home(turn, at);
            if let Some(state) = state
                && !self.tell_state(turn, state)
            {
                return;
            }
        }
    }

    /// There is news, and room for it as far as is known.
    pub(super) fn has_news(&self) -> bool {
        self.homes.has_news() && self.untold.is_none()
    }

    fn tell_state(&mut self, turn: &mut impl ServerTurn, state: Box<NodeState>) -> bool {
        turn.spend(Work::MESSAGE);
        let dropped = turn.to_bridge(ToBridge::State(state)).err();
        for message in dropped.into_iter().flat_map(|dropped| dropped.0) {
            if let ToBridge::State(state) = message {
                self.untold = Some(state);
            }
        }
        self.untold.is_none()
    }

    fn state_of(&self, at: HomeRef, news: News) -> Option<Box<NodeState>> {
        let home = self.homes.get(at)?;
        let change = match news {
            News::Subscriptions(count) => StateChange::Subscriptions(count),
            News::Member(MemberNews::Joined(Member { user_id, info })) => {
                StateChange::MemberJoined { user_id, info }
            }
            News::Member(MemberNews::Left { user_id }) => StateChange::MemberLeft { user_id },
        };
        Some(Box::new(NodeState {
            app: home.app,
            partition: home.key.partition,
            name: Arc::clone(&home.name),
            change,
        }))
    }

    /// Home: what the other nodes together have of a channel has changed.
    pub(super) fn on_node_state(&mut self, turn: &mut impl ServerTurn, state: NodeState) {
        turn.spend(Work::MEMBERSHIP);
        let NodeState {
            app,
            partition,
            name,
            change,
        } = state;
        let change = match change {
            StateChange::Subscriptions(count) => Elsewhere::Subscriptions(count),
            StateChange::MemberJoined { user_id, info } => {
                Elsewhere::MemberJoined(Member { user_id, info })
            }
            StateChange::MemberLeft { user_id } => Elsewhere::MemberLeft { user_id },
            StateChange::UserOnline | StateChange::UserOffline => return,
        };
        let hash = self.name_hasher.hash(&name);
        let at = self.homes.enter(app, &name, NameKey { partition, hash });
        let rules = self.apps.rules(app);
        let mut effects = std::mem::take(&mut self.effects);
        self.homes
            .change_elsewhere(at, turn.now(), &rules, change, &mut effects);
        for effect in effects.drain(..) {
            self.perform(turn, at, effect);
        }
        self.effects = effects;
        self.settle_home(turn, at);
    }
}
