//! Subscribing and unsubscribing one connection.
//!
//! Owns: a subscription's checks in their order, and what follows the home's answer.
//! May depend on: `protocol`, `channel`, `connection`, `server::{home, replies}`.
//! Invariants: a refused subscription changes nothing; the channel's first frame to a connection is
//! `subscription_succeeded`.

use std::{rc::Rc, sync::Arc};

use shards::{application::Slot, work::Work};

use super::{
    ServerTurn, ShardServer,
    apps::ShardApp,
    home::Departure,
    message::{JoinQuestion, Leaving, Question},
};
use crate::{
    channel::{
        home::JoinRefused,
        home_effect::{Joined, LastEvent},
        local::{LocalRef, Subscriber},
        roster::Member,
    },
    connection::{pending::Pending, subscriptions::Subscription},
    protocol::{
        auth,
        code::{CloseCode, SubscriptionRefusal},
        incoming::ChannelData,
        name::{ChannelKind, ChannelName},
        outgoing,
        presence::{self, MemberError},
    },
};

/// How long input is held when its rate is used up: what the rate gives back meanwhile passes at
/// once. The timers' resolution.
const THROTTLE_MS: u64 = 100;

impl ShardServer {
    /// A client wants to subscribe.
    pub(super) fn subscribe(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        channel: &str,
        auth: Option<&str>,
        channel_data: &ChannelData<'_>,
    ) {
        turn.spend(Work::MEMBERSHIP);
        self.throttle_memberships(turn, slot);
        if let Err(refusal) = self.subscribe_checked(turn, slot, channel, auth, channel_data) {
            self.refuse(turn, slot, channel, refusal);
        }
    }

    fn subscribe_checked(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        channel: &str,
        auth: Option<&str>,
        channel_data: &ChannelData<'_>,
    ) -> Result<(), SubscriptionRefusal> {
        let app_index = self.held(slot).app;
        let Some(app) = self.apps.get(app_index).map(Rc::clone) else {
            self.close(turn, slot, CloseCode::APP_UNKNOWN);
            return Ok(());
        };
        let bytes_max = app.entry.app.channel_name_bytes_max as usize;
        let name = ChannelName::parse(channel, bytes_max)
            .map_err(|_| SubscriptionRefusal::InvalidChannel)?;
        let kind = name.kind();
        self.check_auth(turn, slot, &app, name, auth, channel_data)?;
        let member = self.member_of(slot, &app, kind, channel_data)?;
        let existing = self.locals.find(app_index, channel);
        let existing =
            existing.filter(|at| self.held(slot).subscriptions.find(at.0.index).is_some());
        if let Some(local) = existing {
            return self.subscribe_again(turn, slot, local, member);
        }
        let channels_max = app.entry.app.subscriptions_per_connection_max as usize;
        if channels_max > 0 && self.held(slot).subscriptions.len() >= channels_max {
            return Err(SubscriptionRefusal::TooManyChannels);
        }
        let local = self.enter_local(app_index, channel);
        let row = self.locals.get_mut(local).expect("just entered");
        row.join_begins();
        let (home, channel) = (row.home, Arc::clone(&row.name));
        let question = JoinQuestion {
            app: app_index,
            channel,
            local,
            member,
        };
        let question = Question::Join(Box::new(question));
        self.ask(turn, slot, home, Pending::Join { local }, question);
        Ok(())
    }

    /// Counts a subscribe, unsubscribe or sign-in, whatever becomes of it. Beyond its rate the connection's
    /// further input is held for a tick; nothing is refused.
    pub(super) fn throttle_memberships(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        let (burst, rate) = (
            self.settings.subscribe_burst,
            self.settings.subscribe_rate_per_s,
        );
        let now = turn.now();
        let row = self.held(slot);
        if rate == 0 || row.memberships_rate.take_of(now, burst, rate, 1) {
            return;
        }
        row.throttled = true;
        row.rare().throttled_until = Some(now.plus(THROTTLE_MS));
        self.counters.inputs_throttled += 1;
        self.arm_silence(turn, slot);
    }

    fn check_auth(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        app: &Rc<ShardApp>,
        name: ChannelName<'_>,
        auth: Option<&str>,
        channel_data: &ChannelData<'_>,
    ) -> Result<(), SubscriptionRefusal> {
        let socket_low = self.held(slot).socket_low;
        let user = self.held(slot).user().map(|user| Arc::clone(&user.user_id));
        if let Some(owner) = name.user_id() {
            let user = user.ok_or(SubscriptionRefusal::Unauthorized)?;
            return if *user == *owner {
                Ok(())
            } else {
                Err(SubscriptionRefusal::OtherUser)
            };
        }
        if !name.kind().needs_auth() {
            return Ok(());
        }
        let socket_id = self.socket_ids.of(slot.index, socket_low).to_string();
        let auth = auth.ok_or(SubscriptionRefusal::Unauthorized)?;
        let text = channel_data.text();
        let entry = &app.entry;
        let hashed = Work::bytes_hashed(text.map_or(0, str::len));
        turn.spend(Work::SIGNATURE.and(hashed).times(entry.signers.len()));
        let key = &entry.app.key;
        auth::verify_channel(key, &entry.signers, auth, &socket_id, name.as_str(), text)
            .map_err(|_| SubscriptionRefusal::Unauthorized)?;
        let lacks_user = name.kind().is_presence()
            && matches!(channel_data, ChannelData::Absent)
            && user.is_none();
        if lacks_user {
            Err(SubscriptionRefusal::Unauthorized)
        } else {
            Ok(())
        }
    }

    /// Who subscribes, on a presence channel: from its data, or the signed-in user without any.
    fn member_of(
        &mut self,
        slot: Slot,
        app: &Rc<ShardApp>,
        kind: ChannelKind,
        channel_data: &ChannelData<'_>,
    ) -> Result<Option<Member>, SubscriptionRefusal> {
        if !kind.is_presence() {
            return Ok(None);
        }
        let bytes_max = app.entry.app.presence_member_bytes_max as usize;
        let member = match channel_data {
            ChannelData::Text(text) => {
                let member = presence::Member::parse(text, bytes_max).map_err(refusal_of)?;
                Member {
                    user_id: member.user_id.into(),
                    info: member.user_info.into(),
                }
            }
            ChannelData::NotText => return Err(SubscriptionRefusal::InvalidChannelData),
            ChannelData::Absent => {
                let user = self
                    .held(slot)
                    .user()
                    .ok_or(SubscriptionRefusal::Unauthorized)?;
                let (user_id, info) = (Arc::clone(&user.user_id), Arc::clone(&user.info));
                if info.len() > bytes_max {
                    return Err(SubscriptionRefusal::MemberTooLarge);
                }
                Member { user_id, info }
            }
        };
        Ok(Some(member))
    }

    /// The connection is in the channel already: the success is told again, nothing else.
    fn subscribe_again(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        local: LocalRef,
        member: Option<Member>,
    ) -> Result<(), SubscriptionRefusal> {
        let Some(member) = member else {
            let name = Arc::clone(&self.locals.held(local.0.index).name);
            self.reply(turn, slot, |out| {
                outgoing::subscription_succeeded(out, &name, None)
            });
            return Ok(());
        };
        let present = self
            .held(slot)
            .membership(local.0.index)
            .expect("a member has its id");
        if *present != member.user_id {
            return Err(SubscriptionRefusal::OtherMember);
        }
        let channel = self.locals.held(local.0.index);
        let home_ref = channel
            .home_ref
            .expect("a subscription follows its home's answer");
        let home = channel.home;
        let question = Question::Snapshot { home: home_ref };
        self.ask(turn, slot, home, Pending::Snapshot { local }, question);
        Ok(())
    }

    /// The home has answered a join of this connection.
    pub(super) fn joined(
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
            Err(JoinRefused::AppUnknown) => {
                self.locals.release_if_idle(local);
                self.close(turn, slot, CloseCode::OVER_CAPACITY);
                return;
            }
            Err(JoinRefused::ChannelFull) => {
                self.locals.release_if_idle(local);
                self.refuse(turn, slot, &name, SubscriptionRefusal::ChannelFull);
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
        row.subscriptions.add(Subscription {
            channel: local.0.index,
            position,
        });
        if let Some(user_id) = user_id {
            row.rare().memberships.insert(local.0.index, user_id);
        }
        if kind.needs_auth() {
            row.authorized = true;
            row.rare().authorize_by = None;
        }
        self.counters.app(app).channel_subscriptions[kind.metric_column()] += 1;
        let snapshot = joined.snapshot.as_deref();
        turn.spend(Work::bytes_hashed(snapshot.map_or(0, str::len)));
        self.reply(turn, slot, |out| {
            outgoing::subscription_succeeded(out, &name, snapshot)
        });
        match joined.last {
            LastEvent::NotCached => {}
            LastEvent::Miss => self.reply(turn, slot, |out| outgoing::cache_miss(out, &name)),
            LastEvent::Hit(event) => self.reply_frame(turn, slot, &event.frame),
        }
    }

    /// The home's fresh roster for a repeated subscription.
    pub(super) fn snapshot_arrived(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        local: LocalRef,
        snapshot: Option<&str>,
    ) {
        // Members whose coming or going still waits in a fan-out are in the snapshot already.
        if let Some(subscription) = self.held(slot).subscriptions.of(local.0.index) {
            self.catch_up(turn, local, subscription.position);
        }
        let name = Arc::clone(&self.locals.held(local.0.index).name);
        self.reply(turn, slot, |out| {
            outgoing::subscription_succeeded(out, &name, snapshot)
        });
    }

    /// A join was answered after its connection had gone: what it did is undone.
    pub(super) fn undo_join(
        &mut self,
        turn: &mut impl ServerTurn,
        local: LocalRef,
        user_id: Option<Arc<str>>,
        result: Result<Box<Joined>, JoinRefused>,
    ) {
        let channel = self
            .locals
            .get_mut(local)
            .expect("a pending join keeps its row");
        channel.join_ends();
        let home = channel.home;
        self.locals.release_if_idle(local);
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

    /// A client wants to leave a channel; no frame answers, whatever it names.
    pub(super) fn unsubscribe(&mut self, turn: &mut impl ServerTurn, slot: Slot, channel: &str) {
        self.throttle_memberships(turn, slot);
        let app = self.held(slot).app;
        let Some(local) = self.locals.find(app, channel) else {
            return;
        };
        let row = self.held(slot);
        let Some(number) = row.subscriptions.find(local.0.index) else {
            return;
        };
        let (subscription, renumbered) = row.subscriptions.remove(number);
        let user_id = row.end_membership(local.0.index);
        row.shed_rare();
        if let Some(other) = renumbered {
            self.locals
                .held(other.channel)
                .renumber(other.position, number);
        }
        self.leave_channel(
            turn,
            Departure {
                slot,
                subscription,
                user_id,
            },
        );
    }

    fn refuse(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        channel: &str,
        refusal: SubscriptionRefusal,
    ) {
        if refusal == SubscriptionRefusal::Unauthorized {
            let app = self.held(slot).app;
            let errors = &mut self.counters.app(app).connection_errors;
            errors[crate::metrics::counters::ConnectionError::AuthenticationFailed as usize] += 1;
        }
        self.reply(turn, slot, |out| {
            outgoing::subscription_error(out, channel, refusal)
        });
    }
}

fn refusal_of(error: MemberError) -> SubscriptionRefusal {
    match error {
        MemberError::NotAnObject => SubscriptionRefusal::InvalidChannelData,
        MemberError::UserId => SubscriptionRefusal::InvalidUserId,
        MemberError::InfoTooLarge { .. } => SubscriptionRefusal::MemberTooLarge,
    }
}
