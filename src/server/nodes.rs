//! The other nodes, as a shard's homes see them: what they are told, what they have.
//!
//! Owns: events to and from them, news of this node's homes, changes of what the others have.
//! May depend on: `bridge::message`, `channel`, `server::home`.
//! Invariants: other nodes hear of each channel what is so by then, in the order in which it became so
//! per member; nothing is told while the lane is full, and nothing is lost by it.

use std::sync::Arc;

use shards::{
    application::{Millis, PublishRoom},
    work::Work,
};

use super::{ServerTurn, ShardServer, kept::event_of, message::Budget, quota::AppNews};
use crate::{
    bridge::message::{NodeEvent, NodeState, Spent, StateChange, ToBridge, UserOfNodes},
    channel::{
        home::{Elsewhere, HomeRef, News},
        home_effect::{Announcement, HomeEffect},
        names::NameKey,
        roster::{Member, MemberNews},
        user::UserId,
    },
    cluster::{entry::Origin, holdings::Departure},
    protocol::{app::AppIndex, json::JsonValue, name::ChannelKind, partition::Partition},
    ws::encode,
};

/// Orders of the API that wait for room; more are counted, refused, and reach this node alone.
const UNTOLD_MAX: usize = 65_536;

impl ShardServer {
    /// Whether the bus has room for events of an app; always where there is none. The last of it is for apps
    /// that publish little.
    pub(super) fn has_bus_room(&self, turn: &impl ServerTurn, app: AppIndex) -> bool {
        if !self.topics.has_bus() {
            return true;
        }
        match turn.publish_room() {
            PublishRoom::Free => true,
            PublishRoom::Scarce => !self.published.is_heavy(turn.now(), app),
            PublishRoom::None => false,
        }
    }

    /// Home: hands an event of this node to the bus, before anybody here gets it. False where there
    /// is no room.
    pub(super) fn tell_nodes(&mut self, turn: &mut impl ServerTurn, event: NodeEvent) -> bool {
        turn.spend(Work::MESSAGE);
        let (app, bytes) = (event.app, event.frame.len());
        let has_room = self.has_bus_room(turn, app);
        let is_taken = has_room && turn.to_bridge(ToBridge::Event(Box::new(event))).is_ok();
        if is_taken {
            self.published.add(turn.now(), app, bytes);
        }
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
            origin,
            except,
            frame,
        } = event;
        // Whatever a bus brings, clients get whole frames.
        if encode::text_of(&frame).is_none() {
            self.counters.node_events_refused += 1;
            return;
        }
        let hash = self.name_hasher.hash(&channel);
        let key = NameKey { partition, hash };
        let is_cached = origin == Origin::Api && ChannelKind::of(&channel).is_cache();
        let keeps = is_cached && self.settings.keeps_events;
        let kept = (keeps && self.apps.get(app).is_some())
            .then(|| event_of(&frame))
            .flatten();
        let at = match kept {
            Some(event) => {
                let at = self.homes.enter(app, &channel, key);
                let rules = self.apps.rules(app);
                self.homes.keep(at, turn.now(), &rules, event);
                self.settle_home(turn, at);
                Some(at)
            }
            None => self.homes.find(app, &channel, hash),
        };
        if let Some(at) = at {
            self.deliver_all(turn, at, &frame, except, None);
        }
    }

    /// Tells other nodes what has changed here, as far as there is room and work left.
    // Per change: one message of some 60 B. Of a channel that changes faster than that, what is so
    // when its turn comes.
    pub(super) fn continue_news(&mut self, turn: &mut impl ServerTurn) {
        if self.handover.is_importing() {
            return; // The process before has told them, and tells them still.
        }
        while let Some(message) = self.untold.pop_front() {
            if !self.tell(turn, message) {
                return;
            }
        }
        while turn.work_left() > Work(0)
            && let Some((at, news)) = self.homes.next_news()
        {
            let state = news.and_then(|news| self.state_of(at, news));
            self.settle_home(turn, at);
            if let Some(state) = state
                && !self.tell(turn, ToBridge::State(state))
            {
                return;
            }
        }
        while turn.work_left() > Work(0)
            && let Some(news) = self.quotas.next_news()
        {
            if !self.tell_of_app(turn, news) {
                return;
            }
        }
        while turn.work_left() > Work(0)
            && let Some((app, user, news)) = self.users.next_news()
        {
            self.users.release_if_idle(app, &user);
            let Some(is_here) = news else { continue };
            let change = match is_here {
                true => StateChange::UserOnline,
                false => StateChange::UserOffline,
            };
            let state = NodeState {
                app,
                partition: user.key.partition,
                name: user.text,
                change,
            };
            if !self.tell(turn, ToBridge::State(Box::new(state))) {
                return;
            }
        }
    }

    /// There is news, and room for it as far as is known.
    pub(super) fn has_news(&self) -> bool {
        let has_news = self.homes.has_news() || self.users.has_news() || self.quotas.has_news();
        has_news && self.untold.is_empty() && !self.handover.is_importing()
    }

    /// Tells of an app's connections and of what was used of its rates. False where there is no room.
    fn tell_of_app(&mut self, turn: &mut impl ServerTurn, news: AppNews) -> bool {
        let AppNews {
            app,
            partition,
            connections,
            spent: [backend_events, reads],
        } = news;
        if backend_events > 0 || reads > 0 {
            let spent = Spent {
                app,
                backend_events,
                reads,
            };
            // Without room they hear less of it; it is no state.
            _ = turn.to_bridge(ToBridge::Spent(spent));
        }
        let (Some(partition), Some(connections)) = (partition, connections) else {
            return true;
        };
        let connections = u32::try_from(connections).unwrap_or(u32::MAX);
        let state = NodeState {
            app,
            partition,
            name: Arc::from(""),
            change: StateChange::Connections(connections),
        };
        self.tell(turn, ToBridge::State(Box::new(state)))
    }

    /// Home: another node has used some of an app's rates.
    pub(super) fn on_spent_elsewhere(&mut self, now: Millis, spent: Spent) {
        let rates = [Budget::BackendEvents, Budget::Reads];
        let rates = rates.map(|budget| self.app_rate(spent.app, budget));
        let counts = [spent.backend_events, spent.reads];
        self.quotas.spent_elsewhere(spent.app, now, rates, counts);
    }

    /// False where there is no room: it is kept, and comes first when there is some.
    fn tell(&mut self, turn: &mut impl ServerTurn, message: ToBridge) -> bool {
        turn.spend(Work::MESSAGE);
        let Err(dropped) = turn.to_bridge(message) else {
            return true;
        };
        for message in dropped.0.into_iter().rev() {
            self.untold.push_front(message);
        }
        false
    }

    /// Home: the API has ended a user's connections here; the other nodes are to do so too. False where some may
    /// not hear of it.
    pub(super) fn terminate_elsewhere(
        &mut self,
        turn: &mut impl ServerTurn,
        app: AppIndex,
        user: UserId,
    ) -> bool {
        if !self.topics.has_bus() {
            return true;
        }
        let message = ToBridge::Terminate(Box::new(UserOfNodes {
            app,
            partition: user.key.partition,
            id: user.text,
        }));
        if self.untold.is_empty() {
            self.tell(turn, message);
        } else if self.untold.len() < UNTOLD_MAX {
            self.untold.push_back(message);
        } else {
            self.counters.bridge_full[1] += 1;
            return false;
        }
        // One of two roads may stand all the same: it was said, and who says it twice ends nobody twice.
        !turn.is_cut_off()
    }

    /// Home: another node's API has ended a user's connections.
    pub(super) fn on_node_terminates(&mut self, turn: &mut impl ServerTurn, user: UserOfNodes) {
        let user_id = self.user_of_nodes(user.partition, user.id);
        self.on_user_terminate(turn, user.app, &user_id);
    }

    fn user_of_nodes(&self, partition: Partition, text: Arc<str>) -> UserId {
        let hash = self.name_hasher.hash(&text);
        let key = NameKey { partition, hash };
        UserId { text, key }
    }

    fn state_of(&self, at: HomeRef, news: News) -> Option<Box<NodeState>> {
        let home = self.homes.get(at)?;
        let change = match news {
            News::Subscriptions(count) => StateChange::Subscriptions(count),
            News::Member(MemberNews::Joined(Member { user_id, info })) => {
                StateChange::MemberJoined { user_id, info }
            }
            News::Member(MemberNews::Left { user_id }) => StateChange::MemberLeft {
                user_id,
                why: Departure::Told,
            },
            News::EventKept(is_kept) => StateChange::EventKept(is_kept),
        };
        Some(Box::new(NodeState {
            app: home.app,
            partition: home.key.partition,
            name: Arc::clone(&home.name),
            change,
        }))
    }

    /// Home: what the other nodes together have of a channel or user has changed.
    pub(super) fn on_node_state(&mut self, turn: &mut impl ServerTurn, state: NodeState) {
        turn.spend(Work::MEMBERSHIP);
        let NodeState {
            app,
            partition,
            name,
            change,
        } = state;
        let mut has_expired = false;
        let change = match change {
            StateChange::Subscriptions(count) => Elsewhere::Subscriptions(count),
            // Whatever a bus brings, a roster is one of a presence channel, and valid JSON.
            StateChange::MemberJoined { user_id, info } => {
                let is_roster = ChannelKind::of(&name).is_presence();
                if !is_roster || JsonValue::parse(&info).is_err() {
                    self.counters.node_events_refused += 1;
                    return;
                }
                Elsewhere::MemberJoined(Member { user_id, info })
            }
            StateChange::MemberLeft { user_id, why } => {
                has_expired = why == Departure::LeaseRanOut;
                Elsewhere::MemberLeft { user_id }
            }
            StateChange::EventKept(is_kept) => Elsewhere::EventKept(is_kept),
            StateChange::Connections(count) => {
                return self.quotas.set_elsewhere(app, count.into());
            }
            StateChange::UserOnline | StateChange::UserOffline => {
                let user_id = self.user_of_nodes(partition, name);
                let is_elsewhere = change == StateChange::UserOnline;
                return self.on_user_elsewhere(turn, app, &user_id, is_elsewhere);
            }
        };
        let is_forgotten = matches!(change, Elsewhere::EventKept(false));
        let hash = self.name_hasher.hash(&name);
        let at = self.homes.enter(app, &name, NameKey { partition, hash });
        let rules = self.rules_of_going(turn, app);
        let mut effects = std::mem::take(&mut self.effects);
        self.homes
            .change_elsewhere(at, turn.now(), &rules, change, &mut effects);
        // A member who is here too, or on a third node, stays.
        if has_expired && effects.iter().any(is_removal) {
            self.counters.app(app).faults_mut().presence_lease_expiries += 1;
        }
        for effect in effects.drain(..) {
            self.perform(turn, at, effect);
        }
        self.effects = effects;
        self.settle_home(turn, at);
        if is_forgotten {
            self.release_kept(turn, app, &name, true);
        }
    }
}

fn is_removal(effect: &HomeEffect) -> bool {
    matches!(
        effect,
        HomeEffect::Announce(Announcement::MemberRemoved { .. })
    )
}
