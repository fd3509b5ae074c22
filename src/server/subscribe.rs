//! Subscribing and unsubscribing one connection.
//!
//! Owns: the way to the channel's home, and what follows its answer.
//! May depend on: `protocol`, `channel`, `connection`, `server::{home, notices, replies}`.
//! Invariants: every check was made in `connection::subscribe`; the channel's first frame to a
//! connection is `subscription_succeeded`.

use std::sync::Arc;

use shards::{
    application::{ShardId, Slot},
    work::Work,
};

use super::{
    ServerTurn, ShardServer,
    home::Departure,
    message::{JoinQuestion, Joined, Leaving, Question},
};
use crate::{
    channel::{
        home::JoinRefused,
        home_effect::LastEvent,
        local::{LocalRef, Subscriber},
        names::NameKey,
        roster::Member,
    },
    connection::{
        effect::{Left, Reply},
        pending::Pending,
        subscriptions::Subscription,
    },
    protocol::{
        code::{CloseCode, SubscriptionRefusal},
        outgoing,
    },
};

impl ShardServer {
    /// Asks a channel's home to add a subscription.
    pub(super) fn join(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        channel: &str,
        key: NameKey,
        member: Option<Member>,
    ) {
        let app = self.held(slot).app;
        let local = self.enter_local(app, channel, key);
        let row = self.locals.get_mut(local).expect("just entered");
        row.join_begins();
        let home = row.home;
        let question = JoinQuestion {
            app,
            channel: Arc::clone(&row.name),
            key,
            local,
            member,
            has_asked: false,
            is_unanswered: false,
        };
        let question = Question::Join(Box::new(question));
        self.ask(turn, slot, home, Pending::Join { local }, question);
    }

    /// Asks a channel's home for its roster, for a member who is in it already.
    pub(super) fn ask_snapshot(&mut self, turn: &mut impl ServerTurn, slot: Slot, channel: u32) {
        let local = self.locals.reference(channel);
        let channel = self.locals.at(channel);
        let home_ref = channel.home_ref;
        let question = Question::Snapshot {
            home: home_ref.expect("a subscription follows its home's answer"),
        };
        self.ask(
            turn,
            slot,
            channel.home,
            Pending::Snapshot { local },
            question,
        );
    }

    /// The home has answered a join of this connection.
    pub(super) fn on_home_joined(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        local: LocalRef,
        user_id: Option<Arc<str>>,
        result: Result<Box<Joined>, JoinRefused>,
    ) {
        let channel = self
            .locals
            .get_mut(local)
            .expect("a pending join keeps its row");
        channel.join_ends();
        let name = Arc::clone(&channel.name);
        let joined = match result {
            Ok(joined) => joined,
            // It passes, and pusher-js never asks again after a refusal: it comes back instead.
            Err(JoinRefused::AppUnknown | JoinRefused::TooManyWait) => {
                self.locals.release_if_idle(local);
                self.close(turn, slot, CloseCode::OVER_CAPACITY);
                return;
            }
            Err(JoinRefused::ChannelFull) => {
                self.locals.release_if_idle(local);
                let refused = Reply::Refused {
                    channel: (&*name).into(),
                    refusal: SubscriptionRefusal::ChannelFull,
                };
                self.tell_answer(slot, &refused);
                self.reply(turn, slot, |out| refused.write(out));
                return;
            }
        };
        channel.home_ref = Some(joined.home);
        let (app, kind) = (channel.app, channel.kind);
        let row = &mut self.connections[slot.index as usize];
        let number = row.subscriptions.next_number();
        let position = channel.add(Subscriber {
            slot,
            subscription: number,
        });
        let subscription = Subscription {
            channel: local.0.index,
            position,
        };
        row.on_joined(subscription, kind, user_id);
        let counters = self.counters.app(app);
        counters.of_type_mut(kind.metric_column()).subscriptions += 1;
        self.tell_subscribed(turn, slot, &name, joined.roster);
        match joined.last {
            LastEvent::NotCached => {}
            LastEvent::Miss => self.reply(turn, slot, |out| outgoing::cache_miss(out, &name)),
            LastEvent::Hit(event) => self.reply_frame(turn, slot, &event.frame),
        }
    }

    /// The home's fresh roster for a repeated subscription.
    pub(super) fn on_snapshot(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        local: LocalRef,
        roster: Option<Arc<[u8]>>,
    ) {
        // Members whose coming or going still waits in a fan-out are in the snapshot already.
        if let Some(subscription) = self.held(slot).subscriptions.of(local.0.index) {
            self.catch_up(turn, local, subscription.position);
        }
        let name = Arc::clone(&self.locals.held(local.0.index).name);
        self.tell_subscribed(turn, slot, &name, roster);
    }

    /// Sends the home's frame of a roster as it is; without one, the success alone.
    fn tell_subscribed(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        channel: &str,
        roster: Option<Arc<[u8]>>,
    ) {
        let Some(frame) = roster else {
            return self.reply(turn, slot, |out| {
                outgoing::subscription_succeeded(out, channel, None);
            });
        };
        turn.spend(Work::bytes(frame.len()));
        self.reply_frame(turn, slot, &frame);
    }

    /// A join was answered after its connection had gone: what it did is undone.
    pub(super) fn undo_join(
        &mut self,
        turn: &mut impl ServerTurn,
        local: LocalRef,
        user_id: Option<Arc<str>>,
        result: Result<Box<Joined>, JoinRefused>,
    ) {
        let home = self.forget_join(local);
        if let Ok(joined) = result {
            self.tell_leaving(
                turn,
                home,
                Leaving {
                    home: joined.home,
                    user_id,
                },
            );
        }
    }

    /// A join whose connection has gone is not pending any more. Returns its home.
    pub(super) fn forget_join(&mut self, local: LocalRef) -> ShardId {
        let channel = self
            .locals
            .get_mut(local)
            .expect("a pending join keeps its row");
        channel.join_ends();
        let home = channel.home;
        self.locals.release_if_idle(local);
        home
    }

    /// Takes a subscription that its connection has given up out of the channel.
    pub(super) fn leave(&mut self, turn: &mut impl ServerTurn, slot: Slot, left: Left) {
        if let Some((other, number)) = left.renumbered {
            self.locals
                .held(other.channel)
                .renumber(other.position, number);
        }
        self.leave_channel(
            turn,
            Departure {
                slot,
                subscription: left.subscription,
                user_id: left.user_id,
            },
        );
    }
}
