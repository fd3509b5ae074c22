//! Taking over what another process told.
//!
//! Owns: rows, subscriptions, sign-ins and counts that come to be as they were; the shards' agreement that all
//! of it stands.
//! May depend on: see `handover`.
//! Invariants: see `handover`.

use std::{os::fd::OwnedFd, sync::Arc};

use shards::{
    application::{Millis, ShardId, Slot},
    work::Work,
};

use super::{
    super::{
        ServerTurn, ShardServer,
        apps::ShardApp,
        errands::Errand,
        message::{Message, Restored, RestoredSubscription},
    },
    Unbegun,
};
use crate::{
    bridge::message::{ImportedPart, RateOf, ToBridge},
    channel::{
        home::HomeRef,
        local::{LocalRef, Subscriber},
        user::UserId,
    },
    connection::{
        row::{Connection, Hold, SignedIn, State},
        subscriptions::Subscription,
    },
    handover::record::{
        ConnectionRecord, HomeRecord, Import, LeaseOf, LimitsRecord, OwnedRecord, Stage,
        StateRecord, UserOfNodesRecord, UserRecord, read,
    },
    protocol::code::CloseCode,
};

impl ShardServer {
    /// A part of what another process held.
    pub(in crate::server) fn import(&mut self, turn: &mut impl ServerTurn, import: Import) {
        self.handover.imports = true;
        turn.adopt_frames(&import.frames);
        for state in import.state.iter() {
            match read(state) {
                Ok(StateRecord::Home(home)) => self.import_home(turn, home),
                Ok(StateRecord::Limits(limits)) => self.import_limits(turn.now(), &limits),
                Ok(StateRecord::User(user)) => self.import_user(turn.now(), &user),
                Ok(StateRecord::Owned(owned)) => self.import_owned(owned),
                Err(error) => tracing::warn!(%error, "a record of the process before"),
            }
        }
        let mut homes: Vec<Restored> = Vec::new();
        homes.resize_with(usize::from(self.shards), Restored::default);
        for (connection, record) in import.connections {
            let adopted = match read(&record) {
                Ok(record) => self.import_connection(turn, connection, record, &mut homes),
                Err(error) => {
                    tracing::warn!(%error, "a connection's record of the process before");
                    None
                }
            };
            match adopted {
                Some(slot) => self.handover.adopted.push(slot),
                None => self.handover.refused += 1,
            }
        }
        for (home, restored) in homes.into_iter().enumerate() {
            if !restored.is_empty() {
                let home = ShardId(u16::try_from(home).expect("a shard's number"));
                self.send_home(turn, home, Message::Restore(Box::new(restored)));
            }
        }
        if import.is_last {
            turn.forget_frames();
            self.handover.awaited = self.shards;
            for shard in 0..self.shards {
                self.send_home(turn, ShardId(shard), Message::RestoreEnds);
            }
        }
    }

    fn import_home(&mut self, turn: &mut impl ServerTurn, record: HomeRecord) {
        let Some(app) = self.apps.by_id(&record.app).map(std::rc::Rc::clone) else {
            return;
        };
        let key = self
            .name_hasher
            .channel_key(&app.entry.rules.partitions, &record.channel);
        if self.home_of(key.partition) != self.shard {
            return;
        }
        let channel: Arc<str> = record.channel.as_str().into();
        let at = self.homes.enter(app.entry.index, &channel, key);
        self.homes.restore(at, turn.now(), &app.rules, record);
        self.handover.restored.push(at);
    }

    /// Windows of addresses and rates of apps whose home is this shard.
    fn import_limits(&mut self, now: Millis, limits: &LimitsRecord) {
        for rates in &limits.apps {
            let Some(app) = self.apps.by_id(&rates.app) else {
                continue;
            };
            let (index, partition) = (app.entry.index, app.entry.rules.partitions.own());
            if self.home_of(partition) == self.shard {
                self.quotas.restore_rates(index, partition, rates);
            }
        }
        for window in &limits.addresses {
            if self.home_of_address(&window.address) == self.shard {
                self.quotas.restore_window(window);
            }
        }
        for lease in &limits.leases {
            if let Some(of) = self.rate_at_home(&lease.of) {
                self.leases.restore(now, of, lease);
            }
        }
    }

    /// `None`: its home is another shard, or its app is no more.
    fn rate_at_home(&self, of: &LeaseOf) -> Option<RateOf> {
        let at_home = |id: &str| {
            let app = self.apps.by_id(id)?;
            let home = self.home_of(app.entry.rules.partitions.own());
            (home == self.shard).then_some(app.entry.index)
        };
        let is_here = |address| self.home_of_address(address) == self.shard;
        match of {
            LeaseOf::Api(address) => is_here(address).then_some(RateOf::Api(*address)),
            LeaseOf::Upgrade(address) => is_here(address).then_some(RateOf::Upgrade(*address)),
            LeaseOf::BackendEvents(id) => at_home(id).map(RateOf::BackendEvents),
            LeaseOf::Reads(id) => at_home(id).map(RateOf::Reads),
        }
    }

    fn import_user(&mut self, now: Millis, record: &UserOfNodesRecord) {
        let Some(app) = self.apps.by_id(&record.app) else {
            return;
        };
        let (index, partitions) = (app.entry.index, &app.entry.rules.partitions);
        let user_id = UserId::new(&self.name_hasher, partitions, record.user_id.as_str());
        if self.home_of(user_id.key.partition) == self.shard {
            let (is_told, is_elsewhere) = (record.is_told, record.is_elsewhere);
            self.users
                .restore(now, index, &user_id, is_told, is_elsewhere);
        }
    }

    /// Each shard knows all that is the node's; what fell due is that of its own channels.
    fn import_owned(&mut self, record: OwnedRecord) {
        if !self.topics.has_bus() {
            return;
        }
        let (shard, shards) = (self.shard, self.shards);
        let apps = &self.apps;
        self.owned.restore(record, |kept| {
            let app = apps.by_id(&kept.app)?.entry.index;
            (kept.partition % shards == shard.0).then_some(app)
        });
    }

    /// One connection; `None`: it cannot be taken over.
    fn import_connection(
        &mut self,
        turn: &mut impl ServerTurn,
        connection: OwnedFd,
        mut record: ConnectionRecord,
        homes: &mut [Restored],
    ) -> Option<Slot> {
        let app = record.app.as_ref();
        let app = app.and_then(|id| self.apps.by_id(id).map(std::rc::Rc::clone));
        let is_homeless = app.is_none() && record.app.is_some() && forget_app(&mut record);
        let carried = std::mem::take(&mut record.carried);
        let awaits_drained = carried.awaits_drained;
        let (is_paused, peer_ended) = (carried.is_paused, carried.peer_ended);
        let slot = turn.adopt(connection, carried)?;
        self.connections.grow_to(slot.index as usize);
        let mut row = Connection::restored(
            turn.now(),
            slot,
            &mut record,
            (is_paused, peer_ended, awaits_drained),
        );
        // It has its turn when all that it may refer to goes on.
        row.holds.add(Hold::Turn);
        let is_open = matches!(row.state, State::Open(_));
        if let Some(app) = &app {
            row.app = app.entry.index;
        }
        let id = row.socket_id;
        self.connections[slot.index as usize] = row;
        self.connections_held += 1;
        if let Some(app) = &app {
            self.count_restored(slot, app, &record, homes);
        }
        if is_open && let Some(app) = &app {
            self.socket_ids.carry(id, slot.index);
            self.counters.websockets += 1;
            self.counters.app(app.entry.index).connected += 1;
            for it in &record.subscriptions {
                let user_id = it.user_id.as_deref().map(Arc::from);
                self.restore_subscription(slot, app, &it.channel, user_id, homes);
            }
            if let Some(user) = record.user.take() {
                self.restore_user(slot, app, user, homes);
            }
        }
        self.note_stray(slot, app.as_deref(), (is_homeless, record.is_stuck));
        Some(slot)
    }

    /// Whether the connection can go on is known: if not, what it has to say waits until it is told so.
    fn note_stray(
        &mut self,
        slot: Slot,
        app: Option<&ShardApp>,
        (is_homeless, is_stuck): (bool, bool),
    ) {
        let state = self.held(slot).state;
        let code = match (is_homeless, is_stuck) {
            // In a store there may be apps that the process before has found since it said which it knew: who comes
            // back has them looked for, and hears then whether they are no more.
            (true, _) if self.settings.asks_for_apps => CloseCode::RECONNECT,
            (true, _) => CloseCode::APP_UNKNOWN,
            (false, true) => CloseCode::OVER_CAPACITY,
            (false, false) => {
                // An errand closes them, as where an app is disabled while the node runs.
                let is_open = matches!(state, State::Open(_));
                let is_disabled = is_open && app.is_some_and(|app| !app.entry.rules.is_enabled);
                self.handover.disabled += u64::from(is_disabled);
                return;
            }
        };
        self.held(slot).holds.add(Hold::Answer);
        self.handover.stuck += u64::from(is_stuck);
        match state {
            State::Upgrading | State::Open(_) => self.handover.strays.push_back((slot, code)),
            State::Vacant
            | State::ProxyHeader
            | State::Http(_)
            | State::Closing
            | State::Ending => self.handover.cut.push(slot),
        }
    }

    /// The quotas that the connection counts in go on counting it.
    fn count_restored(
        &mut self,
        slot: Slot,
        app: &ShardApp,
        record: &ConnectionRecord,
        homes: &mut [Restored],
    ) {
        let index = app.entry.index;
        if record.is_counted_by_app {
            let home = self.home_of(app.entry.rules.partitions.own());
            self.held(slot).counted.by_app = Some(home);
            homes[usize::from(home.0)].of_apps.push(index);
        }
        if record.is_counted_by_node {
            self.held(slot).counted.by_node = true;
            homes[usize::from(Self::home_of_node().0)].of_node += 1;
        }
    }

    fn restore_subscription(
        &mut self,
        slot: Slot,
        app: &ShardApp,
        channel: &str,
        user_id: Option<Arc<str>>,
        homes: &mut [Restored],
    ) {
        let index = app.entry.index;
        let key = self
            .name_hasher
            .channel_key(&app.entry.rules.partitions, channel);
        let local = self.enter_local(index, channel, key);
        let row = &mut self.connections[slot.index as usize];
        if row.subscriptions.find(local.0.index).is_some() {
            return; // The record says it twice.
        }
        let number = row.subscriptions.next_number();
        let channel = self.locals.held(local.0.index);
        let position = channel.add(Subscriber {
            slot,
            subscription: number,
        });
        row.subscriptions.add(Subscription {
            channel: local.0.index,
            position,
        });
        if let Some(user_id) = &user_id {
            let memberships = &mut row.rare().memberships;
            memberships.insert(local.0.index, Arc::clone(user_id));
        }
        homes[usize::from(channel.home.0)]
            .subscriptions
            .push(RestoredSubscription {
                app: index,
                channel: Arc::clone(&channel.name),
                key,
                local,
                user_id,
            });
    }

    fn restore_user(
        &mut self,
        slot: Slot,
        app: &ShardApp,
        user: UserRecord,
        homes: &mut [Restored],
    ) {
        let (index, socket) = (app.entry.index, self.socket(slot));
        let user_of =
            |it: &Self, id: &str| UserId::new(&it.name_hasher, &app.entry.rules.partitions, id);
        let user_id = user_of(self, &user.user_id);
        let watchlist: Vec<UserId> = user.watchlist.iter().map(|id| user_of(self, id)).collect();
        if user.is_known {
            let home = self.home_of(user_id.key.partition);
            homes[usize::from(home.0)]
                .signed_in
                .push((index, user_id.clone(), socket));
        }
        for watched in &watchlist {
            let home = self.home_of(watched.key.partition);
            homes[usize::from(home.0)]
                .watched
                .push((index, watched.clone(), socket));
        }
        self.held(slot).rare().user = Some(SignedIn {
            user_id,
            info: user.info.into(),
            watchlist,
            is_known: user.is_known,
        });
    }

    /// Home: what a shard had in another process.
    pub(in crate::server) fn on_restore(
        &mut self,
        turn: &mut impl ServerTurn,
        from: ShardId,
        restored: Restored,
    ) {
        for it in restored.subscriptions {
            let at = self.homes.enter(it.app, &it.channel, it.key);
            let mut effects = std::mem::take(&mut self.effects);
            let user_id = it.user_id.as_ref();
            let is_first =
                self.homes
                    .restore_subscription(at, from, it.local, user_id, &mut effects);
            // Its topic is wished for when all stands.
            if is_first && self.topics.has_bus() {
                self.handover.restored.push(at);
            }
            for effect in effects.drain(..) {
                self.perform(turn, at, effect);
            }
            self.effects = effects;
            if is_first {
                let (local, home) = (it.local, at);
                self.send_home(turn, from, Message::HomeIs { local, home });
            }
        }
        for app in restored.of_apps {
            let partition = self
                .apps
                .get(app)
                .map(|app| app.entry.rules.partitions.own());
            self.quotas.count_in_app(app, partition);
        }
        self.quotas.restore_in_node(restored.of_node);
        for (app, user_id, socket) in restored.signed_in {
            _ = self.users.sign_in(app, &user_id, socket);
        }
        for (app, user_id, socket) in restored.watched {
            self.users.watch(app, &user_id, socket);
        }
    }

    /// Where a channel stands at its home.
    pub(in crate::server) fn on_home_is(&mut self, local: LocalRef, home: HomeRef) {
        if let Some(channel) = self.locals.get_mut(local) {
            channel.home_ref = Some(home);
        }
    }

    /// A shard has all that this one restores, and has said all about it.
    pub(in crate::server) fn on_restore_taken(&mut self, turn: &mut impl ServerTurn) {
        self.handover.awaited = self.handover.awaited.saturating_sub(1);
        if self.handover.awaited > 0 {
            return;
        }
        let strays = (self.handover.strays.len() + self.handover.cut.len()) as u64;
        let imported = ToBridge::Imported(Box::new(ImportedPart {
            connections: self.handover.adopted.len() as u64,
            refused: self.handover.refused,
            closing: strays + self.handover.disabled,
            stuck: self.handover.stuck,
        }));
        // Its lane refuses nothing.
        _ = turn.to_bridge(imported);
    }

    /// The other process has let go: what was imported goes on.
    pub(in crate::server) fn on_taken_over(
        &mut self,
        turn: &mut impl ServerTurn,
        pace: (Millis, u32),
    ) {
        let handover = std::mem::take(&mut self.handover);
        self.send_away(turn, handover.strays, pace);
        self.errands.push(Errand::GoOn(Box::new(Unbegun {
            homes: handover.restored.into_iter(),
            cut: handover.cut.into_iter(),
            connections: handover.adopted.into_iter(),
        })));
        // This process' configuration may have disabled one of theirs, or given it its first limit.
        self.errands.push(Errand::CheckApps { next: 0 });
        turn.keep_ticking(true);
    }

    /// Goes on with what was imported until this turn's work is done; what is left of it comes back.
    pub(in crate::server) fn go_on(
        &mut self,
        turn: &mut impl ServerTurn,
        mut left: Box<Unbegun>,
    ) -> Option<Box<Unbegun>> {
        while turn.work_left() > Work(0) {
            // What they say may be about any of the channels.
            if let Some(at) = left.homes.next() {
                turn.spend(Work::MEMBERSHIP);
                self.go_on_with_home(turn, at);
            } else if let Some(slot) = left.cut.next() {
                turn.spend(Work::MEMBERSHIP);
                if self.row(slot).is_some() {
                    turn.close_now(slot);
                }
            } else {
                let slot = left.connections.next()?;
                turn.spend(Work::ROW.times(8));
                self.count_held(turn, slot);
                // What is whole of its input, or its end, is looked at in its turn.
                if self.row(slot).is_some() {
                    self.ready.push_back(slot);
                }
            }
        }
        Some(left)
    }

    fn go_on_with_home(&mut self, turn: &mut impl ServerTurn, at: HomeRef) {
        let Some(app) = self.homes.get(at).map(|home| home.app) else {
            return;
        };
        let rules = self.rules_of_going(turn, app);
        let mut effects = std::mem::take(&mut self.effects);
        self.homes
            .settle_restored(at, turn.now(), &rules, &mut effects);
        for effect in effects.drain(..) {
            self.perform(turn, at, effect);
        }
        self.effects = effects;
        self.settle_home(turn, at);
    }
}

/// This process knows no such app. True: a WebSocket, which is told so.
fn forget_app(record: &mut ConnectionRecord) -> bool {
    record.subscriptions.clear();
    record.user = None;
    let is_websocket = matches!(record.stage, Stage::Upgrading | Stage::Open(_));
    if is_websocket {
        record.stage = Stage::Upgrading;
    }
    is_websocket
}

impl Restored {
    fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
            && self.of_apps.is_empty()
            && self.of_node == 0
            && self.signed_in.is_empty()
            && self.watched.is_empty()
    }
}
