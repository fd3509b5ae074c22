//! Data path. What a home does: gives events their order, keeps the roster, tells who is interested.
//!
//! Owns: routing to homes, the effects of a home's steps, leaving.
//! May depend on: `channel`, `protocol::outgoing`, `ws::encode`, `bridge::message`.
//! Invariants: what a home posts to a shard keeps its order; leavings collected for a shard go out
//! before anything else that is posted to it.

use std::{net::IpAddr, sync::Arc};

use shards::{
    application::{Millis, ShardId, Slot, Waiter},
    work::Work,
};

use super::{
    ServerTurn, ShardServer,
    message::{
        Answer, ClientEvent, Delivery, JoinQuestion, Joined, Leaving, Message, PublishQuestion,
    },
};
use crate::{
    bridge::message::NodeEvent,
    bridge::webhook_event::{WebhookEvent, WebhookInterest, WebhookKind},
    channel::{
        home::{HomeRef, Join, JoinRefused, Rules},
        home_effect::{Announcement, HomeEffect, Hook},
        local::LocalRef,
        names::NameKey,
    },
    cluster::entry::Origin,
    connection::{
        pending::{BusFull, Counts, ReportedCounts},
        subscriptions::Subscription,
    },
    protocol::{app::AppIndex, outgoing, partition::Partition, socket_id::SocketId},
    ws::encode,
};

/// A subscription that ends: taken from its connection, still in its channel's list.
pub(super) struct Departure {
    pub(super) slot: Slot,
    pub(super) subscription: Subscription,
    pub(super) user_id: Option<Arc<str>>,
}

/// Leavings of one message; more go in the next one.
const LEAVING_BATCH_MAX: usize = 1_024;

impl ShardServer {
    /// The shard that is the home of what belongs to a partition.
    pub(super) fn home_of(&self, partition: Partition) -> ShardId {
        ShardId(partition.number() % self.shards)
    }

    /// The shard that counts the node's quota.
    pub(super) fn home_of_node() -> ShardId {
        ShardId(0)
    }

    /// The shard that limits an address. Addresses are this node's own business, and nobody is to
    /// choose theirs by it.
    pub(super) fn home_of_address(&self, address: &IpAddr) -> ShardId {
        let number = self.address_hasher.hash_one(address) % u64::from(self.shards);
        ShardId(u16::try_from(number).expect("below the number of shards"))
    }

    /// Posts to another shard, after the leavings that were collected for it.
    pub(super) fn post(&mut self, turn: &mut impl ServerTurn, to: ShardId, message: Message) {
        self.post_leaving_to(turn, to);
        turn.post(to, message);
    }

    /// Posts all collected leavings.
    pub(super) fn post_leaving(&mut self, turn: &mut impl ServerTurn) {
        for shard in 0..self.shards {
            self.post_leaving_to(turn, ShardId(shard));
        }
    }

    fn post_leaving_to(&mut self, turn: &mut impl ServerTurn, to: ShardId) {
        let leaving = &mut self.leaving[usize::from(to.0)];
        if !leaving.is_empty() {
            turn.post(to, Message::Leave(std::mem::take(leaving)));
        }
    }

    /// Takes a subscription out of this shard's list and tells the channel's home.
    pub(super) fn leave_channel(&mut self, turn: &mut impl ServerTurn, departure: Departure) {
        let Departure {
            slot,
            subscription,
            user_id,
        } = departure;
        turn.spend(Work::MEMBERSHIP);
        let local = self.locals.reference(subscription.channel);
        let channel = self.locals.held(subscription.channel);
        let (app, kind, home) = (channel.app, channel.kind, channel.home);
        let home_ref = channel
            .home_ref
            .expect("a subscription follows its home's answer");
        assert_eq!(
            channel.subscribers()[subscription.position as usize].slot,
            slot
        );
        if let Some(moved) = channel.remove(subscription.position) {
            self.reposition(moved);
        }
        self.locals.release_if_idle(local);
        let counters = self.counters.app(app);
        counters.of_type_mut(kind.metric_column()).unsubscriptions += 1;
        self.tell_leaving(
            turn,
            home,
            Leaving {
                home: home_ref,
                user_id,
            },
        );
    }

    /// Tells a home that a subscription ended.
    pub(super) fn tell_leaving(
        &mut self,
        turn: &mut impl ServerTurn,
        home: ShardId,
        leaving: Leaving,
    ) {
        if home == self.shard {
            self.home_leave(turn, home, leaving);
            return;
        }
        let batch = &mut self.leaving[usize::from(home.0)];
        batch.push(leaving);
        if batch.len() >= LEAVING_BATCH_MAX {
            self.post_leaving_to(turn, home);
        }
    }

    /// Home: adds a subscription and answers.
    pub(super) fn home_join(
        &mut self,
        turn: &mut impl ServerTurn,
        to: Waiter,
        question: JoinQuestion,
    ) {
        let Some((to, question)) = self.await_topic(turn, to, question) else {
            return;
        };
        let Some((to, question)) = self.await_kept(turn, to, question) else {
            return;
        };
        let JoinQuestion {
            app,
            channel,
            key,
            local,
            member,
            is_unanswered,
            ..
        } = question;
        turn.spend(Work::MEMBERSHIP);
        let mut rules = self.apps.rules(app);
        // What is missed for want of an answer is told to the client alone.
        rules.hook_misses &= !is_unanswered;
        let now = turn.now();
        let at = self.homes.enter(app, &channel, key);
        let mut user_id = member.as_ref().map(|member| Arc::clone(&member.user_id));
        let join = Join { to, local, member };
        let mut effects = std::mem::take(&mut self.effects);
        let joined = match self.apps.get(app) {
            Some(_) => self.homes.join(at, now, &rules, &join, &mut effects),
            None => Err(JoinRefused::AppUnknown),
        };
        if let Err(refused) = joined {
            self.effects = effects;
            self.settle_home(turn, at);
            let answer = Answer::Joined {
                local,
                user_id,
                result: Err(refused),
            };
            return self.answer(turn, to, answer);
        }
        for effect in effects.drain(..) {
            if let HomeEffect::Joined { to, last } = effect {
                let joined = Joined {
                    home: at,
                    roster: self.roster_frame(turn, at),
                    last,
                };
                let answer = Answer::Joined {
                    local,
                    user_id: user_id.take(),
                    result: Ok(Box::new(joined)),
                };
                self.answer(turn, to, answer);
            } else {
                self.perform(turn, at, effect);
            }
        }
        self.effects = effects;
        self.settle_home(turn, at);
        self.hold_if_behind(turn, at, to.shard, local);
    }

    /// Home: the frame with a presence channel's members, encoded if they have changed.
    // A roster that has changed is written as JSON and then as a string of it; any other costs
    // nothing, however many join.
    pub(super) fn roster_frame(
        &mut self,
        turn: &mut impl ServerTurn,
        at: HomeRef,
    ) -> Option<Arc<[u8]>> {
        let scratch = &mut self.scratch;
        let mut written = 0;
        let frame = self.homes.roster_frame(at, |channel, roster| {
            let snapshot = roster.snapshot();
            scratch.clear();
            let start = encode::begin_text(scratch);
            outgoing::subscription_succeeded(scratch, channel, Some(&snapshot));
            encode::finish_text(scratch, start);
            written = snapshot.len() + scratch.len();
            Arc::from(scratch.as_slice())
        });
        turn.spend(Work::bytes_hashed(written));
        frame
    }

    /// What the app's settings mean, where somebody may go.
    pub(super) fn rules_of_going(&self, turn: &impl ServerTurn, app: AppIndex) -> Rules {
        Rules {
            is_behind: self.topics.has_bus() && turn.is_behind() && !self.tells_last(),
            ..self.apps.rules(app)
        }
    }

    /// Home: takes a subscription away.
    pub(super) fn home_leave(
        &mut self,
        turn: &mut impl ServerTurn,
        from: ShardId,
        leaving: Leaving,
    ) {
        turn.spend(Work::MEMBERSHIP);
        let at = leaving.home;
        let app = self.homes.get(at).expect("who leaves has joined").app;
        let rules = self.rules_of_going(turn, app);
        let mut effects = std::mem::take(&mut self.effects);
        let user_id = leaving.user_id.as_ref();
        self.homes
            .leave(at, turn.now(), &rules, from, user_id, &mut effects);
        for effect in effects.drain(..) {
            self.perform(turn, at, effect);
        }
        self.effects = effects;
        self.settle_home(turn, at);
    }

    /// Home: does what is due in entries with deadlines.
    pub(super) fn settle_homes(&mut self, turn: &mut impl ServerTurn) {
        let now = self.homes_due(turn.now());
        while turn.work_left() > Work(0)
            && let Some(at) = self.homes.pop_due(now)
        {
            turn.spend(Work::MEMBERSHIP);
            let app = self
                .homes
                .get(at)
                .expect("pop_due gives entries that are there")
                .app;
            let rules = self.rules_of_going(turn, app);
            let mut effects = std::mem::take(&mut self.effects);
            self.homes.settle(at, now, &rules, &mut effects);
            turn.spend(Work::MESSAGE.times(effects.len()));
            for effect in effects.drain(..) {
                self.perform(turn, at, effect);
            }
            self.effects = effects;
            self.settle_home(turn, at);
        }
    }

    /// Some home has something due now.
    pub(super) fn homes_are_due(&self, now: Millis) -> bool {
        let now = self.homes_due(now);
        self.homes.next_due().is_some_and(|at| at <= now)
    }

    /// Home: passes a client event on.
    pub(super) fn home_client_event(&mut self, turn: &mut impl ServerTurn, event: ClientEvent) {
        let ClientEvent {
            home,
            frame,
            except,
            hook,
        } = event;
        if self.topics.has_bus()
            && let Some(channel) = self.homes.get(home)
        {
            let event = NodeEvent {
                app: channel.app,
                partition: channel.key.partition,
                channel: Arc::clone(&channel.name),
                origin: Origin::Client,
                // Who sent it is on this node.
                except: None,
                frame: Arc::clone(&frame),
            };
            // Where there is no room it still reaches those who are here, and is counted: a client
            // event has no answer that could refuse it.
            self.tell_nodes(turn, event);
        }
        if let Some(hook) = hook {
            self.hook(turn, home, WebhookKind::ClientEvent(hook));
        }
        self.deliver_all(turn, home, &frame, Some(except), None);
    }

    /// Home: takes the events of an API request over. Returns a channel of theirs that is behind
    /// with its fan-out: the publisher's answer waits for it.
    pub(super) fn home_publish(
        &mut self,
        turn: &mut impl ServerTurn,
        question: PublishQuestion,
    ) -> (Result<Vec<ReportedCounts>, BusFull>, Option<HomeRef>) {
        let PublishQuestion {
            app,
            events,
            wants_counts,
            began_us,
        } = question;
        let now = turn.now();
        let rules = self.apps.rules(app);
        let mut reported = Vec::new();
        let mut behind = None;
        turn.spend(Work::EVENT.times(events.len()));
        for it in events {
            if self.topics.has_bus() {
                let event = NodeEvent {
                    app,
                    partition: it.key.partition,
                    channel: Arc::clone(&it.channel),
                    origin: Origin::Api,
                    except: it.except,
                    frame: Arc::clone(&it.event.frame),
                };
                if !self.tell_nodes(turn, event) {
                    return (Err(BusFull), behind);
                }
            }
            let kind = crate::protocol::name::ChannelKind::of(&it.channel);
            let at = if kind.is_cache() && self.settings.keeps_events {
                let entered = self.homes.enter(app, &it.channel, it.key);
                self.homes.keep(entered, now, &rules, it.event.clone());
                self.share_kept(turn, app, &it.channel, &it.event.frame);
                self.settle_home(turn, entered);
                Some(entered)
            } else {
                self.homes.find(app, &it.channel, it.key.hash)
            };
            let mut counts = Counts::default();
            if let Some(at) = at {
                counts = self.counts_of(at);
                self.deliver_all(turn, at, &it.event.frame, it.except, Some(began_us));
                behind = behind.or_else(|| self.pressure.is_behind(at).then_some(at));
            }
            if wants_counts {
                let (item, is_first, channel) = (it.item, it.is_first, it.channel);
                reported.push(ReportedCounts {
                    item,
                    is_first,
                    channel,
                    counts,
                });
            }
        }
        (Ok(reported), behind)
    }

    pub(super) fn counts_of(&self, at: HomeRef) -> Counts {
        self.homes
            .get(at)
            .map_or_else(Counts::default, |home| Counts {
                subscriptions: home.total(),
                users: u32::try_from(home.users()).unwrap_or(u32::MAX),
            })
    }

    /// Sends a frame to every interested shard.
    pub(super) fn deliver_all(
        &mut self,
        turn: &mut impl ServerTurn,
        at: HomeRef,
        frame: &Arc<[u8]>,
        except: Option<SocketId>,
        began_us: Option<u64>,
    ) {
        let mut next = 0;
        // By index: a fan-out on this shard may not hold on to the entry.
        while let Some(home) = self.homes.get(at) {
            let Some(interest) = home.interests().get(next).copied() else {
                return;
            };
            next += 1;
            let local = interest.local;
            let delivery = Delivery {
                local,
                frame: Arc::clone(frame),
                except,
                began_us,
            };
            self.send_home(turn, interest.shard, Message::Deliver(delivery));
        }
    }

    pub(super) fn perform(&mut self, turn: &mut impl ServerTurn, at: HomeRef, effect: HomeEffect) {
        match effect {
            HomeEffect::Joined { .. } => unreachable!("only a join answers, and it does so itself"),
            HomeEffect::Announce(announcement) => {
                let Some(home) = self.homes.get(at) else {
                    return;
                };
                let frame = announcement_frame(&mut self.scratch, &home.name, &announcement);
                self.deliver_all(turn, at, &frame, None, None);
            }
            HomeEffect::Hook(hook) => self.hook(turn, at, webhook_kind(hook)),
            HomeEffect::Occupied => {
                let Some(home) = self.homes.get(at) else {
                    return;
                };
                let (app, column) = (home.app, home.kind.metric_column());
                self.counters.app(app).of_type_mut(column).active += 1;
                self.counters.home_channels += 1;
            }
            HomeEffect::Vacant => {
                let Some(home) = self.homes.get(at) else {
                    return;
                };
                let (app, column) = (home.app, home.kind.metric_column());
                self.counters.app(app).of_type_mut(column).active -= 1;
                self.counters.home_channels -= 1;
            }
        }
    }

    /// Hands an event to the app's webhooks, if one wants it and this node is the one to tell it.
    fn hook(&mut self, turn: &mut impl ServerTurn, at: HomeRef, kind: WebhookKind) {
        let Some(home) = self.homes.get(at) else {
            return;
        };
        let Some(app) = self.apps.get(home.app) else {
            return;
        };
        // `#server-to-user-` channels have no webhooks.
        if home.kind.is_user() || !app.entry.webhook_interest.any(interest_of(&kind)) {
            return;
        }
        let (app, partition) = (home.app, home.key.partition);
        let channel = Arc::clone(&home.name);
        let event = WebhookEvent {
            app,
            time_ms: turn.unix_ms(),
            channel,
            kind,
        };
        match event.kind {
            WebhookKind::ClientEvent(_) | WebhookKind::CacheMiss => self.tell_webhook(turn, event),
            WebhookKind::ChannelOccupied
            | WebhookKind::ChannelVacated
            | WebhookKind::MemberAdded { .. }
            | WebhookKind::MemberRemoved { .. }
            | WebhookKind::SubscriptionCount { .. } => self.tell_owned(turn, partition, event),
        }
    }

    /// The shard's row for a channel, made with its home's number if it is not there.
    pub(super) fn enter_local(&mut self, app: AppIndex, channel: &str, key: NameKey) -> LocalRef {
        let home = self.home_of(key.partition);
        self.locals.enter(app, channel, key, home)
    }
}

fn announcement_frame(scratch: &mut Vec<u8>, channel: &str, it: &Announcement) -> Arc<[u8]> {
    scratch.clear();
    let start = encode::begin_text(scratch);
    match it {
        Announcement::MemberAdded(member) => {
            outgoing::member_added(scratch, channel, &member.user_id, &member.info);
        }
        Announcement::MemberRemoved { user_id } => {
            outgoing::member_removed(scratch, channel, user_id);
        }
        Announcement::SubscriptionCount(count) => {
            outgoing::subscription_count(scratch, channel, u64::from(*count));
        }
    }
    encode::finish_text(scratch, start);
    Arc::from(scratch.as_slice())
}

fn webhook_kind(hook: Hook) -> WebhookKind {
    match hook {
        Hook::ChannelOccupied => WebhookKind::ChannelOccupied,
        Hook::ChannelVacated => WebhookKind::ChannelVacated,
        Hook::MemberAdded { user_id } => WebhookKind::MemberAdded { user_id },
        Hook::MemberRemoved { user_id } => WebhookKind::MemberRemoved { user_id },
        Hook::CacheMiss => WebhookKind::CacheMiss,
        Hook::SubscriptionCount(count) => WebhookKind::SubscriptionCount {
            count: count.into(),
        },
    }
}

fn interest_of(kind: &WebhookKind) -> u8 {
    match kind {
        WebhookKind::ChannelOccupied => WebhookInterest::CHANNEL_OCCUPIED,
        WebhookKind::ChannelVacated => WebhookInterest::CHANNEL_VACATED,
        WebhookKind::MemberAdded { .. } => WebhookInterest::MEMBER_ADDED,
        WebhookKind::MemberRemoved { .. } => WebhookInterest::MEMBER_REMOVED,
        WebhookKind::ClientEvent(_) => WebhookInterest::CLIENT_EVENT,
        WebhookKind::CacheMiss => WebhookInterest::CACHE_MISS,
        WebhookKind::SubscriptionCount { .. } => WebhookInterest::SUBSCRIPTION_COUNT,
    }
}
