//! Two connections and the homes of their channels, joined in memory: the first level at which a
//! whole conversation is tested.
//!
//! Owns: `Pair`, which performs effects by plain calls.
//! May depend on: the other files of this room, `channel`, `protocol`.
//! Invariants: an effect is performed before the next step; what a connection is told is kept in
//! its order, as words.

use std::sync::Arc;

use shards::application::{Millis, ShardId, Slot, Waiter};

use super::{
    deadline::Due,
    effect::{Effect, Left, Publish, Reply},
    fixture::{Step, app_rules},
    subscriptions::Subscription,
};
use crate::{
    channel::{
        home::{Home, HomeRef, Join, Rules},
        home_effect::{Announcement, HomeEffect},
        home_table::{HomeTable, KeptMax},
        local::{LocalRef, LocalTable, Subscriber},
        names::NameKey,
        roster::Member,
    },
    protocol::socket_id::SocketId,
};

/// Both on one shard, which is the home of all channels.
struct Pair {
    sides: [Side; 2],
    channels: LocalTable,
    homes: HomeTable,
    rules: Rules,
}

struct Side {
    step: Step,
    told: Vec<String>,
}

const ANN: usize = 0;
const BOB: usize = 1;

fn slot(side: usize) -> Slot {
    Slot {
        index: u32::try_from(side).expect("two sides"),
        generation: 0,
    }
}

impl Pair {
    fn new() -> Self {
        let side = |low| {
            let mut step = Step::new(app_rules());
            step.connection.socket_id = SocketId::new(1, low).expect("in range");
            let told = Vec::new();
            Side { step, told }
        };
        Self {
            sides: [side(1), side(2)],
            channels: LocalTable::default(),
            homes: HomeTable::new(KeptMax {
                events: 10,
                bytes: 10_000,
            }),
            rules: Rules {
                members_max: 1,
                count_frames: false,
                hook_occupancy: false,
                hook_members: false,
                hook_counts: false,
                hook_misses: false,
                kept_ms: 1_000,
                grace_ms: 0,
                is_behind: false,
            },
        }
    }

    /// A side sends a text, and everything that follows happens.
    fn says(&mut self, side: usize, text: &str) {
        std::mem::swap(&mut self.sides[side].step.channels, &mut self.channels);
        let effect = self.sides[side].step.on_text(text);
        std::mem::swap(&mut self.sides[side].step.channels, &mut self.channels);
        match effect {
            Effect::Nothing => {}
            Effect::Reply(reply) => self.sides[side].told.push(word(&reply)),
            Effect::Join {
                channel,
                key,
                member,
            } => self.joins(side, &channel, key, member),
            Effect::Publish(publish) => self.publishes(side, &publish),
            Effect::Leave(left) => self.leaves(side, left),
            other => panic!("{other:?} is not part of these conversations"),
        }
    }

    fn joins(&mut self, side: usize, channel: &str, key: NameKey, member: Option<Member>) {
        let app = self.sides[side].step.app.index;
        let local = self.channels.enter(app, channel, key, ShardId(0));
        let at = self.homes.enter(app, &Arc::from(channel), key);
        let user_id = member.as_ref().map(|member| Arc::clone(&member.user_id));
        let to = Waiter {
            shard: ShardId(0),
            slot: slot(side),
            operation: self.sides[side].step.connection.await_answer(),
        };
        let join = Join { to, local, member };
        let mut effects = Vec::new();
        let rules = self.rules;
        let joined = self.homes.join(at, Millis(0), &rules, &join, &mut effects);
        assert!(self.sides[side].step.connection.awaits(to.operation));
        self.sides[side].step.connection.on_answer();
        if joined.is_err() {
            self.homes.release_if_idle(at, Millis(0));
            self.channels.release_if_idle(local);
            return self.sides[side].told.push(format!("full {channel}"));
        }
        for effect in effects {
            match effect {
                HomeEffect::Joined { .. } => self.joined(side, local, at, &user_id),
                other => self.announces(at, &other),
            }
        }
    }

    fn joined(&mut self, side: usize, local: LocalRef, at: HomeRef, user_id: &Option<Arc<str>>) {
        let connection = &mut self.sides[side].step.connection;
        let channel = self.channels.held(local.0.index);
        channel.home_ref = Some(at);
        let position = channel.add(Subscriber {
            slot: slot(side),
            subscription: connection.subscriptions.next_number(),
        });
        let subscription = Subscription {
            channel: local.0.index,
            position,
        };
        let (kind, name) = (channel.kind, Arc::clone(&channel.name));
        connection.on_joined(subscription, kind, user_id.clone());
        self.sides[side].told.push(format!("in {name}"));
    }

    fn publishes(&mut self, side: usize, publish: &Publish<'_>) {
        let from = publish.user_id.as_deref().unwrap_or("somebody");
        let word = format!("{} from {from}", publish.event_token);
        let subscribers = self.channels.at(publish.channel).subscribers();
        for it in subscribers.iter().filter(|it| it.slot != slot(side)) {
            self.sides[it.slot.index as usize].told.push(word.clone());
        }
    }

    fn leaves(&mut self, side: usize, left: Left) {
        if let Some((other, number)) = left.renumbered {
            self.channels
                .held(other.channel)
                .renumber(other.position, number);
        }
        let channel = self.channels.held(left.subscription.channel);
        let at = channel.home_ref.expect("who leaves was in");
        assert_eq!(
            channel.subscribers()[left.subscription.position as usize].slot,
            slot(side)
        );
        if let Some(moved) = channel.remove(left.subscription.position) {
            let mover = &mut self.sides[moved.subscriber.slot.index as usize];
            let subscriptions = &mut mover.step.connection.subscriptions;
            subscriptions.reposition(moved.subscriber.subscription, moved.position);
        }
        let mut effects = Vec::new();
        let (rules, user_id) = (self.rules, left.user_id.as_ref());
        self.homes
            .leave(at, Millis(0), &rules, ShardId(0), user_id, &mut effects);
        for effect in effects {
            self.announces(at, &effect);
        }
    }

    fn announces(&mut self, at: HomeRef, effect: &HomeEffect) {
        let word = match effect {
            HomeEffect::Announce(Announcement::MemberAdded(member)) => {
                format!("+{}", member.user_id)
            }
            HomeEffect::Announce(Announcement::MemberRemoved { user_id }) => format!("-{user_id}"),
            _ => return,
        };
        let interests = self.homes.get(at).map(Home::interests).unwrap_or_default();
        for interest in interests {
            let subscribers = self.channels.at(interest.local.0.index).subscribers();
            for it in subscribers {
                self.sides[it.slot.index as usize].told.push(word.clone());
            }
        }
    }

    fn subscribes(&mut self, side: usize, channel: &str, data: Option<&str>) {
        let text = self.sides[side]
            .step
            .subscription(channel, Some("good"), data);
        self.says(side, &text);
    }

    /// What a side was told since it was asked last.
    fn told(&mut self, side: usize) -> Vec<String> {
        std::mem::take(&mut self.sides[side].told)
    }
}

fn word(reply: &Reply<'_>) -> String {
    match reply {
        Reply::Error { text, .. } => format!("error {text}"),
        Reply::Refused { channel, refusal } => format!("refused {channel} {refusal:?}"),
        Reply::Subscribed { channel } => format!("in {channel}"),
        Reply::Pong => "pong".to_owned(),
        Reply::SignedIn { .. } => "signed in".to_owned(),
        Reply::Watched { .. } => "watched".to_owned(),
    }
}

fn typing(channel: &str) -> String {
    format!(r#"{{"event":"client-typing","channel":"{channel}","data":"{{}}"}}"#)
}

#[test]
fn an_event_reaches_the_other_and_not_its_sender_and_nobody_after_leaving() {
    let mut pair = Pair::new();
    pair.subscribes(ANN, "private-room", None);
    pair.says(ANN, &typing("private-room"));
    pair.subscribes(BOB, "private-room", None);
    assert_eq!(pair.told(ANN), ["in private-room"]);
    pair.says(BOB, &typing("private-room"));
    assert_eq!(pair.told(BOB), ["in private-room"]);
    assert_eq!(pair.told(ANN), ["\"client-typing\" from somebody"]);
    let leave = r#"{"event":"pusher:unsubscribe","data":{"channel":"private-room"}}"#;
    pair.says(ANN, leave);
    pair.says(BOB, &typing("private-room"));
    pair.says(ANN, &typing("private-room"));
    assert!(pair.told(BOB).is_empty());
    assert_eq!(pair.told(ANN), ["error Not subscribed to the channel"]);
}

#[test]
fn members_come_and_go_in_one_order_and_who_is_one_too_many_is_refused() {
    let (ann, bob) = (r#"{"user_id":"ann"}"#, r#"{"user_id":"bob"}"#);
    let mut pair = Pair::new();
    pair.subscribes(ANN, "presence-room", Some(ann));
    pair.subscribes(BOB, "presence-room", Some(bob));
    assert_eq!(pair.told(ANN), ["in presence-room"]);
    assert_eq!(pair.told(BOB), ["full presence-room"]);
    pair.rules.members_max = 2;
    pair.subscribes(BOB, "presence-room", Some(bob));
    pair.says(BOB, &typing("presence-room"));
    assert_eq!(pair.told(ANN), ["+bob", "\"client-typing\" from bob"]);
    pair.says(
        BOB,
        r#"{"event":"pusher:unsubscribe","data":{"channel":"presence-room"}}"#,
    );
    assert_eq!(pair.told(ANN), ["-bob"]);
    assert_eq!(pair.told(BOB), ["in presence-room"]);
}

#[test]
fn the_next_deadline_leads_to_the_next_ping_without_any_waiting() {
    let mut pair = Pair::new();
    let node = pair.sides[ANN].step.node.clone();
    let connection = &mut pair.sides[ANN].step.connection;
    for _ in 0..3 {
        let (at, _) = connection.next_deadline(&node).expect("it may fall silent");
        assert_eq!(connection.on_timer(at, &node, 0), Due::Ping);
        let (given_up_at, _) = connection.next_deadline(&node).expect("a pong is due");
        assert!(connection.keep_alive.heard(Millis(given_up_at.0 - 1)));
    }
}
