//! When a connection may subscribe to a channel, and how it leaves one.
//!
//! Owns: a subscription's checks in their order, the rate of subscribes, unsubscribes and sign-ins.
//! May depend on: `protocol`, `channel::{local, roster}`, the other files of this room.
//! Invariants: a refused subscription changes nothing but the rate; beyond its rate a connection's
//! further input is held, nothing is refused.

use std::{borrow::Cow, sync::Arc};

use shards::work::Work;

use super::{
    effect::{Effect, Left, Reply, View},
    row::{Connection, Hold},
    subscriptions::Subscription,
};
use crate::{
    channel::roster::Member,
    protocol::{
        auth,
        code::{CloseCode, SubscriptionRefusal},
        incoming::ChannelData,
        name::{ChannelKind, ChannelName},
        presence::{self, MemberError},
        rules::AppRules,
    },
};

/// How long input is held when its rate is used up: what the rate gives back meanwhile passes at
/// once. The timers' resolution.
const THROTTLE_MS: u64 = 100;

impl Connection {
    /// A client wants to subscribe.
    pub(super) fn subscribe<'a>(
        &mut self,
        view: &mut View<'_>,
        channel: Cow<'a, str>,
        auth: Option<&str>,
        channel_data: &ChannelData<'_>,
    ) -> Effect<'a> {
        view.tally.work = view.tally.work.and(Work::MEMBERSHIP);
        self.throttle_memberships(view);
        let Some(app) = view.app else {
            return Effect::Close {
                code: CloseCode::APP_UNKNOWN,
                reason: CloseCode::APP_UNKNOWN.reason(),
            };
        };
        let member = match self.check_subscription(view, app, &channel, auth, channel_data) {
            Ok(member) => member,
            Err(refusal) => return refused(view, channel, refusal),
        };
        let key = view.names.channel_key(&app.partitions, &channel);
        let at = view.channels.find(self.app, &channel, key.hash);
        let row = at.map(|at| at.0.index);
        if let Some(row) = row.filter(|row| self.subscriptions.find(*row).is_some()) {
            // In the channel already: the success is told again, nothing else.
            let Some(member) = member else {
                return Effect::Reply(Reply::Subscribed { channel });
            };
            let present = self.membership(row).expect("a member has its id");
            if *present != member.user_id {
                return refused(view, channel, SubscriptionRefusal::OtherMember);
            }
            return Effect::Snapshot { channel: row };
        }
        let subscriptions_max = app.subscriptions_max as usize;
        if subscriptions_max > 0 && self.subscriptions.len() >= subscriptions_max {
            return refused(view, channel, SubscriptionRefusal::TooManyChannels);
        }
        Effect::Join {
            channel,
            key,
            member,
        }
    }

    fn check_subscription(
        &mut self,
        view: &mut View<'_>,
        app: &AppRules,
        channel: &str,
        auth: Option<&str>,
        channel_data: &ChannelData<'_>,
    ) -> Result<Option<Member>, SubscriptionRefusal> {
        let name = ChannelName::parse(channel, app.channel_name_bytes_max as usize)
            .map_err(|_| SubscriptionRefusal::InvalidChannel)?;
        self.check_auth(view, app, name, auth, channel_data)?;
        self.member_of(app, name.kind(), channel_data)
    }

    fn check_auth(
        &self,
        view: &mut View<'_>,
        app: &AppRules,
        name: ChannelName<'_>,
        auth: Option<&str>,
        channel_data: &ChannelData<'_>,
    ) -> Result<(), SubscriptionRefusal> {
        if let Some(owner) = name.user_id() {
            let user = self.user().ok_or(SubscriptionRefusal::Unauthorized)?;
            return if *user.user_id.text == *owner {
                Ok(())
            } else {
                Err(SubscriptionRefusal::OtherUser)
            };
        }
        if !name.kind().needs_auth() {
            return Ok(());
        }
        let auth = auth.ok_or(SubscriptionRefusal::Unauthorized)?;
        let text = channel_data.text();
        let hashed = Work::bytes_hashed(text.map_or(0, str::len));
        let signed = Work::SIGNATURE.and(hashed).times(app.signers.len());
        view.tally.work = view.tally.work.and(signed);
        let socket_id = self.socket_id.to_string();
        auth::verify_channel(
            &app.key,
            &app.signers,
            auth,
            &socket_id,
            name.as_str(),
            text,
        )
        .map_err(|_| SubscriptionRefusal::Unauthorized)?;
        let lacks_user = name.kind().is_presence()
            && matches!(channel_data, ChannelData::Absent)
            && self.user().is_none();
        if lacks_user {
            Err(SubscriptionRefusal::Unauthorized)
        } else {
            Ok(())
        }
    }

    /// Who subscribes, on a presence channel: from its data, or the signed-in user without any.
    fn member_of(
        &self,
        app: &AppRules,
        kind: ChannelKind,
        channel_data: &ChannelData<'_>,
    ) -> Result<Option<Member>, SubscriptionRefusal> {
        if !kind.is_presence() {
            return Ok(None);
        }
        let member = match channel_data {
            ChannelData::Text(text) => {
                let member = presence::Member::parse(text, app.member_bytes_max as usize);
                let member = member.map_err(refusal_of)?;
                Member {
                    user_id: member.user_id.into(),
                    info: member.user_info.into(),
                }
            }
            ChannelData::NotText => return Err(SubscriptionRefusal::InvalidChannelData),
            ChannelData::Absent => {
                let user = self.user().ok_or(SubscriptionRefusal::Unauthorized)?;
                let info = presence::check_info(&user.info, app.member_bytes_max as usize);
                info.map_err(refusal_of)?;
                Member {
                    user_id: Arc::clone(&user.user_id.text),
                    info: Arc::clone(&user.info),
                }
            }
        };
        Ok(Some(member))
    }

    /// Counts a subscribe, unsubscribe or sign-in, whatever becomes of it.
    pub(super) fn throttle_memberships(&mut self, view: &mut View<'_>) {
        let (burst, rate) = (view.node.memberships_burst, view.node.memberships_per_s);
        if rate == 0 || self.memberships_rate.take_of(view.now, burst, rate, 1) {
            return;
        }
        self.holds.add(Hold::Rate);
        self.rare().throttled_until = Some(view.now.plus(THROTTLE_MS));
        view.tally.throttled += 1;
    }

    /// A client wants to leave a channel; no frame answers, whatever it names.
    pub(super) fn unsubscribe(&mut self, view: &mut View<'_>, channel: &str) -> Effect<'static> {
        self.throttle_memberships(view);
        let hash = view.names.hash(channel);
        let row = view.channels.find(self.app, channel, hash);
        let number = row.and_then(|row| self.subscriptions.find(row.0.index));
        let Some(number) = number else {
            return Effect::Nothing;
        };
        let (subscription, renumbered) = self.subscriptions.remove(number);
        let user_id = self.end_membership(subscription.channel);
        self.shed_rare();
        Effect::Leave(Left {
            subscription,
            renumbered: renumbered.map(|other| (other, number)),
            user_id,
        })
    }

    /// Its channel's home has taken a subscription in.
    pub fn on_joined(
        &mut self,
        subscription: Subscription,
        kind: ChannelKind,
        user_id: Option<Arc<str>>,
    ) {
        self.subscriptions.add(subscription);
        if let Some(user_id) = user_id {
            self.rare()
                .memberships
                .insert(subscription.channel, user_id);
        }
        if kind.needs_auth() {
            self.authorize();
        }
    }
}

fn refused<'a>(
    view: &mut View<'_>,
    channel: Cow<'a, str>,
    refusal: SubscriptionRefusal,
) -> Effect<'a> {
    view.tally.unauthorized += u32::from(refusal == SubscriptionRefusal::Unauthorized);
    Effect::Reply(Reply::Refused { channel, refusal })
}

fn refusal_of(error: MemberError) -> SubscriptionRefusal {
    match error {
        MemberError::NotAnObject => SubscriptionRefusal::InvalidChannelData,
        MemberError::UserId => SubscriptionRefusal::InvalidUserId,
        MemberError::InfoTooLarge { .. } => SubscriptionRefusal::MemberTooLarge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::fixture::{Step, app_rules, signed_in};

    /// A subscription, signed or not, and how it is answered.
    fn refusal_of(
        step: &mut Step,
        channel: &str,
        auth: Option<&str>,
        data: Option<&str>,
    ) -> Option<SubscriptionRefusal> {
        let text = step.subscription(channel, auth, data);
        match step.on_text(&text) {
            Effect::Reply(Reply::Refused { refusal, .. }) => Some(refusal),
            Effect::Join { .. }
            | Effect::Snapshot { .. }
            | Effect::Reply(Reply::Subscribed { .. }) => None,
            other => panic!("{other:?}"),
        }
    }

    const ANN: &str = r#"{"user_id":"ann"}"#;

    #[test]
    fn each_refusal_has_its_place_in_the_order() {
        use SubscriptionRefusal as Refusal;
        type Set = fn(&mut Step);
        let as_it_is: Set = |_| {};
        let in_room: Set = |step| step.enter("presence-room", Some("ann"));
        let full: Set = |step| {
            step.app.subscriptions_max = 1;
            step.enter("other", None);
        };
        let small: Set = |step| step.app.member_bytes_max = 4;
        let signed: Set = |step| step.connection.rare().user = Some(signed_in("ann"));
        let (good, bad) = (Some("good"), Some("app-key:00"));
        for (channel, auth, data, set, expected) in [
            ("room", None, None, as_it_is, None),
            ("room one", None, None, full, Some(Refusal::InvalidChannel)),
            (
                "private-room",
                None,
                None,
                full,
                Some(Refusal::Unauthorized),
            ),
            ("private-room", bad, None, full, Some(Refusal::Unauthorized)),
            (
                "private-room",
                good,
                None,
                full,
                Some(Refusal::TooManyChannels),
            ),
            ("private-room", good, None, as_it_is, None),
            (
                "presence-room",
                bad,
                Some("[]"),
                full,
                Some(Refusal::Unauthorized),
            ),
            (
                "presence-room",
                good,
                None,
                full,
                Some(Refusal::Unauthorized),
            ),
            (
                "presence-room",
                good,
                Some("[]"),
                full,
                Some(Refusal::InvalidChannelData),
            ),
            (
                "presence-room",
                good,
                Some("{}"),
                full,
                Some(Refusal::InvalidUserId),
            ),
            (
                "presence-room",
                good,
                Some(r#"{"user_id":"ann","user_info":"long"}"#),
                small,
                Some(Refusal::MemberTooLarge),
            ),
            (
                "presence-room",
                good,
                Some(ANN),
                full,
                Some(Refusal::TooManyChannels),
            ),
            ("presence-room", good, Some(ANN), as_it_is, None),
            ("presence-room", good, None, signed, None),
            ("presence-room", good, Some(ANN), in_room, None),
            (
                "presence-room",
                good,
                Some(r#"{"user_id":"bob"}"#),
                in_room,
                Some(Refusal::OtherMember),
            ),
            (
                "#server-to-user-ann",
                None,
                None,
                full,
                Some(Refusal::Unauthorized),
            ),
            (
                "#server-to-user-bob",
                None,
                None,
                signed,
                Some(Refusal::OtherUser),
            ),
            ("#server-to-user-ann", None, None, signed, None),
        ] {
            let mut step = Step::new(app_rules());
            set(&mut step);
            let refusal = refusal_of(&mut step, channel, auth, data);
            assert_eq!(refusal, expected, "{channel} {auth:?} {data:?}");
        }
    }

    #[test]
    fn beyond_its_rate_a_connection_is_held_for_a_tick_and_nothing_is_refused() {
        let mut step = Step::new(app_rules());
        step.node.memberships_per_s = 10;
        step.node.memberships_burst = 2;
        for (number, throttled) in [(1, 0), (2, 0), (3, 1)] {
            let text = step.subscription(&format!("room-{number}"), None, None);
            let effect = step.on_text(&text);
            assert!(matches!(effect, Effect::Join { .. }), "{effect:?}");
            assert_eq!(step.tally.throttled, throttled);
        }
        assert!(step.connection.is_held());
        assert_eq!(
            step.connection.rare().throttled_until,
            Some(step.now.plus(100))
        );
    }

    #[test]
    fn who_leaves_is_not_in_the_channel_any_more_and_a_stranger_leaves_nothing() {
        let mut step = Step::new(app_rules());
        step.enter("presence-room", Some("ann"));
        let leave = r#"{"event":"pusher:unsubscribe","data":{"channel":"presence-room"}}"#;
        let effect = step.on_text(leave);
        let Effect::Leave(left) = effect else {
            panic!("{effect:?}");
        };
        assert_eq!(left.user_id.as_deref(), Some("ann"));
        assert!(step.connection.subscriptions.is_empty());
        assert_eq!(step.on_text(leave), Effect::Nothing);
    }
}
