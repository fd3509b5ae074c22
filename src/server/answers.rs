//! Questions to homes and their answers: who asks, who is asked, who goes on.
//!
//! Owns: the exchange of `Question` and `Answer`, and the dispatch of every message.
//! May depend on: `server::message`, `connection::pending`, the other files of this room.
//! Invariants: an answer reaches the connection that awaits it, or is undone; a question to this
//! shard's own home is a plain call.

use shards::application::{ShardId, Slot, Waiter};

use super::{
    ServerTurn, ShardServer,
    errands::Errand,
    message::{Answer, Message, Question},
};
use crate::{
    bridge::message::FromBridge,
    channel::{home::HomeRef, user::Socket},
    connection::pending::{ChannelFacts, Pending},
    protocol::{app::AppIndex, partition::Partition},
};

impl ShardServer {
    /// Asks a home; the connection's input is held until the answer.
    pub(super) fn ask(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        home: ShardId,
        pending: Pending,
        question: Question,
    ) {
        *self.held(slot).pending() = Some(pending);
        let waiter = self.await_answer(slot);
        self.question(turn, home, waiter, question);
    }

    /// Makes a connection wait under a new operation number.
    pub(super) fn await_answer(&mut self, slot: Slot) -> Waiter {
        let operation = self.held(slot).await_answer();
        Waiter {
            shard: self.shard,
            slot,
            operation,
        }
    }

    /// What homes know a connection of this shard by.
    pub(super) fn socket(&self, slot: Slot) -> Socket {
        let shard = self.shard;
        Socket { shard, slot }
    }

    /// Ends a connection's waiting and gives back what it waited for.
    pub(super) fn answer_arrived(&mut self, slot: Slot) -> Option<Pending> {
        self.held(slot).on_answer()
    }

    /// Puts a question to a home without touching the connection.
    pub(super) fn question(
        &mut self,
        turn: &mut impl ServerTurn,
        home: ShardId,
        waiter: Waiter,
        question: Question,
    ) {
        self.send_home(turn, home, Message::Ask { waiter, question });
    }

    /// Home: answers an asker.
    pub(super) fn answer(&mut self, turn: &mut impl ServerTurn, to: Waiter, answer: Answer) {
        let waiter = to;
        self.send_home(turn, to.shard, Message::Answer { waiter, answer });
    }

    /// Sends a message to a shard, after what was sent to it before; to this one it is a plain call.
    pub(super) fn send_home(&mut self, turn: &mut impl ServerTurn, to: ShardId, message: Message) {
        if to == self.shard {
            self.perform_message(turn, to, message);
        } else {
            self.post(turn, to, message);
        }
    }

    /// A message of another shard arrived. Who waited for an answer goes on with its input.
    pub(super) fn hear(&mut self, turn: &mut impl ServerTurn, from: ShardId, message: Message) {
        let waiter = if let Message::Answer { waiter, .. } = &message {
            Some(*waiter)
        } else {
            None
        };
        self.perform_message(turn, from, message);
        if let Some(waiter) = waiter {
            self.resume(turn, waiter.slot);
        }
    }

    /// Does what a message says, wherever it comes from.
    fn perform_message(&mut self, turn: &mut impl ServerTurn, from: ShardId, message: Message) {
        match message {
            Message::Ask { waiter, question } => self.on_question(turn, waiter, question),
            Message::Answer { waiter, answer } => self.on_answer(turn, from, waiter, answer),
            Message::Leave(leavings) => {
                for leaving in leavings {
                    self.home_leave(turn, from, leaving);
                }
            }
            Message::ClientEvent(event) => self.home_client_event(turn, event),
            Message::Deliver(delivery) => self.on_delivery(turn, delivery),
            Message::Behind { home, is_behind } => self.on_behind(turn, home, is_behind),
            Message::HoldPublishers { local, hold } => self.on_hold_publishers(local, hold),
            Message::CountInApp { app } => self.count_in_app(app),
            Message::Release { app, connections } => self.quotas.release_app(app, connections),
            Message::ReleaseNode { connections } => self.quotas.release_node(connections),
            Message::SignOut {
                app,
                user_id,
                socket,
            } => self.on_user_sign_out(turn, app, &user_id, socket),
            Message::Unwatch {
                app,
                user_ids,
                socket,
            } => self.on_users_unwatched(turn, app, &user_ids, socket),
            Message::Watched {
                app,
                slots,
                user_id,
                online,
            } => self.on_watch_news(turn, app, slots, user_id, online),
            Message::Terminate { slots } => self.terminate(slots),
            Message::Restore(restored) => self.on_restore(turn, from, *restored),
            Message::HomeIs { local, home } => self.on_home_is(local, home),
            Message::RestoreEnds => self.send_home(turn, from, Message::RestoreTaken),
            Message::RestoreTaken => self.on_restore_taken(turn),
        }
    }

    /// A message of the bridge.
    pub(super) fn hear_bridge(&mut self, turn: &mut impl ServerTurn, message: FromBridge) {
        match message {
            FromBridge::Scrape { token } => self.on_scrape(turn, token),
            FromBridge::Largest { token } => self.on_largest_asked(token),
            FromBridge::Usage { waiter, body } => {
                assert!(self.usages_asked > 0, "an answer to no question");
                self.usages_asked -= 1;
                if self.awaits(waiter) {
                    self.on_usage(turn, waiter.slot, &body);
                    self.resume(turn, waiter.slot);
                }
            }
            FromBridge::Apps { number, changes } => self.on_apps(turn, number, &changes),
            FromBridge::AppsOpen { number } => self.apps.open(number),
            FromBridge::ForgetMissing => self.lookups.forget_missing(),
            FromBridge::AppFound { name, found } => self.on_app_found(turn, *name, found),
            FromBridge::Config(config) => self.on_settings(turn, &config),
            FromBridge::Tls(port) => turn.offer_tls(*port),
            FromBridge::Health(health) => self.health = health,
            FromBridge::Drain {
                deadline,
                rate_per_s,
            } => {
                self.begin_drain(turn, deadline, rate_per_s);
            }
            FromBridge::Shed {
                connections,
                until,
                rate_per_s,
            } => self.begin_shed(turn, connections, until, rate_per_s),
            FromBridge::Settle => self.begin_settling(),
            FromBridge::Event(event) => self.on_node_event(turn, *event),
            FromBridge::State(state) => self.on_node_state(turn, *state),
            FromBridge::KeptAsk(name) => self.on_kept_ask(turn, *name),
            FromBridge::Kept(kept) => self.on_kept(turn, *kept),
            FromBridge::Found(found) => self.on_found(turn, *found),
            FromBridge::RateTaken(taken) => self.on_rate_taken(turn, &taken),
            FromBridge::Spent(spent) => self.on_spent_elsewhere(turn.now(), spent),
            FromBridge::Terminate(user) => self.on_node_terminates(turn, *user),
            FromBridge::Owned(owned) => self.on_owned(turn, *owned),
            FromBridge::TopicsLive(topics) => self.on_topics_live(turn.now(), &topics),
            FromBridge::TopicsLost => self.on_topics_lost(),
            FromBridge::Export { bytes, frames } => self.begin_export(bytes, frames),
            FromBridge::ExportMore { bytes } => self.export_more(bytes),
            FromBridge::ExportConnections => self.export_connections_too(),
            FromBridge::Import(import) => self.import(turn, *import),
            FromBridge::TakenOver { until, rate_per_s } => {
                self.on_taken_over(turn, (until, rate_per_s));
            }
        }
    }

    pub(super) fn awaits(&mut self, waiter: Waiter) -> bool {
        self.row(waiter.slot)
            .is_some_and(|row| row.awaits(waiter.operation))
    }

    /// Home: a question arrived.
    fn on_question(&mut self, turn: &mut impl ServerTurn, waiter: Waiter, question: Question) {
        let now = turn.now();
        let answer = match question {
            Question::Join(join) => return self.home_join(turn, waiter, *join),
            Question::SignIn { app, user_id } => {
                return self.on_user_sign_in(turn, waiter, app, user_id);
            }
            Question::Watch { app, user_ids } => {
                return self.on_users_watched(turn, waiter, app, user_ids);
            }
            Question::Snapshot { home } => Answer::Snapshot(self.roster_frame(turn, home)),
            Question::Publish(publish) => {
                let (counts, behind) = self.home_publish(turn, *publish);
                let answer = Answer::Published(counts);
                if let Some(at) = behind {
                    return self.keep_answer_back(at, waiter, answer);
                }
                answer
            }
            Question::Channels(question) => Answer::Channels(self.list_slice(turn, &question)),
            Question::Channel { app, name, key } => {
                let at = self.homes.find(app, &name, key.hash);
                Answer::Channel(Box::new(self.channel_facts(turn, at)))
            }
            Question::Users { app, name, key } => {
                let at = self.homes.find(app, &name, key.hash);
                let home = at.and_then(|at| self.homes.get(at));
                Answer::Users(home.map_or(Vec::new(), |home| home.user_ids().cloned().collect()))
            }
            Question::Terminate { app, user_id } => {
                self.on_user_terminate(turn, app, &user_id);
                let everywhere = self.terminate_elsewhere(turn, app, user_id);
                Answer::Terminated { everywhere }
            }
            Question::AdmitToApp { app } => {
                let partition = self.partition_of(app);
                let app_there = self.apps.get(app);
                let max = app_there.map_or(0, |it| it.entry.app.max_connections);
                let granted = self.quotas.admit_to_app(app, partition, max);
                Answer::AdmittedToApp { app, granted }
            }
            Question::AdmitToNode => {
                let granted = self.quotas.admit_to_node(self.settings.connections_max);
                Answer::AdmittedToNode { granted }
            }
            Question::Spend { app, budget, count } if self.settings.shares_rates => {
                return self.spend_shared(turn, waiter, app, budget, count);
            }
            Question::AddressLimit { address, limit } if self.settings.shares_rates => {
                return self.limit_address_shared(turn, waiter, address, limit);
            }
            Question::Spend { app, budget, count } => {
                let (granted, rate) = self.spend_here(now, app, budget, count);
                Answer::Spent { granted, rate }
            }
            Question::AddressLimit { address, limit } => {
                let (granted, rate) = self.limit_address(now, address, limit);
                Answer::AddressLimited { granted, rate }
            }
        };
        self.answer(turn, waiter, answer);
    }

    /// An answer arrived: its connection goes on, or what was done for it is undone.
    fn on_answer(
        &mut self,
        turn: &mut impl ServerTurn,
        from: ShardId,
        waiter: Waiter,
        answer: Answer,
    ) {
        let slot = waiter.slot;
        if !self.awaits(waiter) {
            self.undo(turn, from, slot, answer);
            return;
        }
        match answer {
            Answer::Joined {
                local,
                user_id,
                result,
            } => {
                self.answer_arrived(slot);
                self.on_home_joined(turn, slot, local, user_id, result);
            }
            Answer::Snapshot(snapshot) => {
                if let Some(Pending::Snapshot { local }) = self.answer_arrived(slot) {
                    self.on_snapshot(turn, slot, local, snapshot);
                }
            }
            Answer::SignedIn { .. } => self.on_sign_in_known(turn, slot),
            Answer::Watched(users) if self.errands.is_empty() => self.on_watched(turn, slot, users),
            Answer::Watched(users) => {
                let answer = Errand::SignInAnswer { waiter, users };
                self.errands.push(answer);
            }
            Answer::AdmittedToApp { granted, .. } => {
                self.on_app_quota(turn, slot, granted.then_some(from));
            }
            Answer::AdmittedToNode { granted } => self.on_node_quota(turn, slot, granted),
            Answer::AddressLimited { granted, rate } => {
                self.on_address_limit(turn, slot, granted, rate);
            }
            Answer::Spent { granted, rate } => self.on_app_rate(turn, slot, granted, rate),
            Answer::Channels(_) => self.on_slice(turn, waiter, &answer),
            Answer::Published(_)
            | Answer::Channel(_)
            | Answer::Users(_)
            | Answer::Terminated { .. } => self.on_gathered(turn, slot, answer),
        }
    }

    /// The asker is gone: what its question did at the home that answers is taken back.
    fn undo(&mut self, turn: &mut impl ServerTurn, from: ShardId, slot: Slot, answer: Answer) {
        match answer {
            Answer::Joined {
                local,
                user_id,
                result,
            } => {
                self.undo_join(turn, local, user_id, result);
            }
            Answer::SignedIn { app, user_id } => {
                let socket = self.socket(slot);
                let message = Message::SignOut {
                    app,
                    user_id,
                    socket,
                };
                self.send_home(turn, from, message);
            }
            Answer::AdmittedToApp { app, granted: true } => self.release_app(turn, from, app),
            Answer::AdmittedToNode { granted: true } => self.release_node(turn),
            // A watch was taken back by the clean-up, which followed it on the same road.
            Answer::AdmittedToApp { granted: false, .. }
            | Answer::AdmittedToNode { granted: false }
            | Answer::Snapshot(_)
            | Answer::Published(_)
            | Answer::Channels(_)
            | Answer::Channel(_)
            | Answer::Users(_)
            | Answer::Watched(_)
            | Answer::Terminated { .. }
            | Answer::Spent { .. }
            | Answer::AddressLimited { .. } => {}
        }
    }

    /// Home of an app's quota: a connection counts that has long been there.
    fn count_in_app(&mut self, app: AppIndex) {
        let partition = self.partition_of(app);
        self.quotas.count_in_app(app, partition);
    }

    /// Where an app's quota is counted; `None` of one that has gone.
    fn partition_of(&self, app: AppIndex) -> Option<Partition> {
        self.apps.get(app).map(|it| it.entry.rules.partitions.own())
    }

    fn channel_facts(&self, turn: &impl ServerTurn, at: Option<HomeRef>) -> ChannelFacts {
        let Some((at, home)) = at.and_then(|at| Some((at, self.homes.get(at)?))) else {
            return ChannelFacts::default();
        };
        let cached = home.kept(turn.now()).map(|(event, ttl_s)| {
            let start = event.data_start as usize;
            let token = &event.frame[start..start + event.data_bytes as usize];
            (String::from_utf8_lossy(token).into(), ttl_s)
        });
        ChannelFacts {
            counts: self.counts_of(at),
            cached,
        }
    }
}
