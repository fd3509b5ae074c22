//! From an HTTP upgrade to an established connection.
//!
//! Owns: the questions between its checks (`connection::upgrade`), and `connection_established`.
//! May depend on: `http`, `ws::handshake`, `protocol`, `connection`, `server::{answers, notices, quota}`.
//! Invariants: a refusal after the 101 is an error frame and a close of the same code; a refused
//! connection gets no socket id and counts in no quota.

use std::net::IpAddr;

use shards::application::{Millis, ShardId, Slot};

use super::{
    ServerTurn, ShardServer,
    message::{AddressLimit, Question},
    request::limited,
};
use crate::{
    connection::{
        keep_alive::KeepAlive,
        pending::{Asked, Pending, RateState},
        row::State,
        upgrade::{Gate, Lookup, NodeState, Upgrade, UpgradeNext, UpgradeRefusal, UpgradeStep},
    },
    http::response::Content,
    metrics::counters::ConnectionError,
    protocol::{app::AppIndex, outgoing},
    ws::handshake,
};

impl ShardServer {
    /// A valid upgrade request arrived for `/app/...`.
    pub(super) fn upgrade(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        address: Option<IpAddr>,
        upgrade: Upgrade,
    ) {
        if let (Some(address), Some(_)) = (address, &self.settings.upgrade_limit) {
            let limit = AddressLimit::Upgrade;
            self.counters.ip_limit_checks[0] += 1;
            let home = self.home_of_address(&address);
            let question = Question::AddressLimit { address, limit };
            self.ask(
                turn,
                slot,
                home,
                Pending::Upgrade(Box::new(upgrade)),
                question,
            );
            return;
        }
        self.switch_protocols(turn, slot, upgrade);
    }

    /// The address limiter has answered: 429 comes before the 101.
    pub(super) fn on_upgrade_limit(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        upgrade: Upgrade,
        granted: bool,
        rate: RateState,
    ) {
        if granted {
            self.switch_protocols(turn, slot, upgrade);
            return;
        }
        self.counters.ip_limit_triggered[0] += 1;
        self.refused_early(3, ConnectionError::AcceptLimited);
        self.tell_unswitched(slot, limited(rate));
        let asked = Asked::last(Content::Whole, upgrade.origin);
        self.respond_limited(turn, slot, rate, &asked);
    }

    /// Sends the 101; from here on refusals are frames, which browsers can see.
    fn switch_protocols(&mut self, turn: &mut impl ServerTurn, slot: Slot, mut upgrade: Upgrade) {
        self.scratch.clear();
        handshake::write_switching_protocols(&mut self.scratch, &upgrade.accept, b"");
        turn.send(slot, &self.scratch);
        let row = self.held(slot);
        row.state = State::Upgrading;
        row.keep_alive = KeepAlive::new(turn.now());
        upgrade.step = UpgradeStep::Node;
        self.advance_upgrade(turn, slot, upgrade);
    }

    /// Takes an upgrade as far as it goes without an answer.
    fn advance_upgrade(&mut self, turn: &mut impl ServerTurn, slot: Slot, mut upgrade: Upgrade) {
        let state = NodeState {
            is_draining: self.drain.is_some(),
            is_out_of_files: self.is_out_of_files(),
            is_memory_high: self.health.memory_above_threshold,
        };
        let now = turn.now();
        let found = match self.look_up_key(now, &upgrade.key) {
            Lookup::Known(app) => Lookup::Known(app.entry.index),
            Lookup::Absent => Lookup::Absent,
            Lookup::Unavailable => Lookup::Unavailable,
        };
        let (apps, quotas) = (&self.apps, &mut self.quotas);
        let lookups = &mut self.counters.app_lookups;
        let app = apps.get(self.connections[slot.index as usize].app);
        let next = upgrade.advance(&mut Gate {
            node: &self.settings.connections,
            state,
            take_accept: &mut || quotas.take_accept(now),
            app_by_key: &mut |_| {
                let known = match found {
                    Lookup::Known(index) => apps.get(index).map(|app| &app.entry.rules),
                    Lookup::Absent | Lookup::Unavailable => None,
                };
                lookups[usize::from(known.is_none())] += 1;
                match (known, found) {
                    (Some(rules), _) => Lookup::Known(rules),
                    (None, Lookup::Unavailable) => Lookup::Unavailable,
                    (None, _) => Lookup::Absent,
                }
            },
            app: app.map(|app| &app.entry.rules),
        });
        match next {
            UpgradeNext::AskNode => {
                let pending = Pending::Upgrade(Box::new(upgrade));
                let home = Self::home_of_node();
                self.ask(turn, slot, home, pending, Question::AdmitToNode);
            }
            UpgradeNext::AskApp(rules) => {
                let (app, partition) = (rules.index, rules.partitions.own());
                self.held(slot).app = app;
                let pending = Pending::Upgrade(Box::new(upgrade));
                let home = self.home_of(partition);
                self.ask(turn, slot, home, pending, Question::AdmitToApp { app });
            }
            UpgradeNext::Open(rules) => {
                let (app, needs_user) = (rules.index, rules.allows_sign_in);
                self.held(slot).app = app;
                self.establish(turn, slot, needs_user);
            }
            UpgradeNext::Refuse(refusal, rules) => {
                if let Some(app) = rules.map(|rules| rules.index) {
                    self.held(slot).app = app;
                }
                self.refuse_upgrade(turn, slot, refusal);
            }
        }
    }

    /// Counts a refusal that came before the app was known: its column of `accept_limited`.
    fn refused_early(&mut self, column: usize, error: ConnectionError) {
        self.counters.accept_limited[column] += 1;
        self.counters.unknown_app_errors[error as usize] += 1;
    }

    /// True when this shard holds its part of the sockets that the open-file limit allows. Parts
    /// overlap by a quarter, since the kernel does not spread evenly.
    fn is_out_of_files(&self) -> bool {
        let part = self.settings.sockets_max / u64::from(self.shards);
        let part = if self.shards == 1 {
            part
        } else {
            part + part / 4
        };
        self.counters.websockets >= part
    }

    /// The node's quota has answered.
    pub(super) fn on_node_quota(&mut self, turn: &mut impl ServerTurn, slot: Slot, granted: bool) {
        let Some(Pending::Upgrade(upgrade)) = self.answer_arrived(slot) else {
            return;
        };
        if granted {
            self.held(slot).counted.by_node = true;
            self.advance_upgrade(turn, slot, *upgrade);
        } else {
            self.refuse_upgrade(turn, slot, UpgradeRefusal::NodeFull);
        }
    }

    /// The app's quota has answered: the home that counts the connection, or none.
    pub(super) fn on_app_quota(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        counted_at: Option<ShardId>,
    ) {
        let Some(Pending::Upgrade(upgrade)) = self.answer_arrived(slot) else {
            return;
        };
        if counted_at.is_some() {
            self.held(slot).counted.by_app = counted_at;
            self.advance_upgrade(turn, slot, *upgrade);
        } else {
            self.refuse_upgrade(turn, slot, UpgradeRefusal::AppFull);
        }
    }

    fn establish(&mut self, turn: &mut impl ServerTurn, slot: Slot, needs_user: bool) {
        let now = turn.now();
        let socket_id = self.socket_ids.fresh(slot.index);
        let rules = &self.settings.connections;
        let (timeout_s, within_ms) = (rules.activity_timeout_ms / 1_000, rules.authorize_within_ms);
        let row = self.held(slot);
        row.open(now, socket_id);
        if needs_user {
            row.rare().authorize_by = Some(now.plus(within_ms));
        }
        let peer = row.rare.as_mut().and_then(|rare| rare.peer.take());
        row.shed_rare();
        let app = row.app;
        self.tell_opened(slot, peer);
        self.counters.websockets += 1;
        let counters = self.counters.app(app);
        counters.connected += 1;
        counters.new_connections += 1;
        self.reply(turn, slot, |out| {
            outgoing::connection_established(out, socket_id, timeout_s);
        });
        self.arm_deadline(turn, slot);
    }

    fn refuse_upgrade(&mut self, turn: &mut impl ServerTurn, slot: Slot, refusal: UpgradeRefusal) {
        let app = self.held(slot).app;
        match refusal {
            UpgradeRefusal::AcceptRate => self.refused_early(0, ConnectionError::AcceptLimited),
            UpgradeRefusal::OutOfFiles | UpgradeRefusal::NodeFull => {
                self.refused_early(1, ConnectionError::OverCapacity);
            }
            UpgradeRefusal::MemoryHigh => self.refused_early(2, ConnectionError::OverCapacity),
            UpgradeRefusal::AppUnavailable => {
                let errors = &mut self.counters.unknown_app_errors;
                errors[ConnectionError::AppValidationFailed as usize] += 1;
            }
            UpgradeRefusal::AppUnknown => {
                let errors = &mut self.counters.unknown_app_errors;
                errors[ConnectionError::AppNotFound as usize] += 1;
            }
            UpgradeRefusal::AppDisabled => self.refused_by_app(app, ConnectionError::AppDisabled),
            UpgradeRefusal::OriginNotAllowed => {
                self.refused_by_app(app, ConnectionError::OriginNotAllowed);
            }
            UpgradeRefusal::AppFull => {
                self.counters.app(app).faults_mut().limit_denied[0] += 1;
                self.refused_by_app(app, ConnectionError::OverQuota);
            }
            UpgradeRefusal::PathNotFound
            | UpgradeRefusal::VersionMissing
            | UpgradeRefusal::VersionInvalid
            | UpgradeRefusal::VersionUnsupported => {
                let errors = &mut self.counters.unknown_app_errors;
                errors[ConnectionError::ProtocolError as usize] += 1;
            }
            UpgradeRefusal::TlsRequired => self.refused_by_app(app, ConnectionError::ProtocolError),
            // It is no error of anybody's: the client comes back elsewhere.
            UpgradeRefusal::Draining => {}
        }
        self.tell_refused(slot, refusal);
        self.close_saying(turn, slot, refusal.code(), refusal.reason());
    }

    fn refused_by_app(&mut self, app: AppIndex, error: ConnectionError) {
        self.counters.app(app).faults_mut().connection_errors[error as usize] += 1;
    }

    /// Counts one request of an address at its home.
    pub(super) fn limit_address(
        &mut self,
        now: Millis,
        address: IpAddr,
        which: AddressLimit,
    ) -> (bool, RateState) {
        let limit = match which {
            AddressLimit::Api => &self.settings.api_limit,
            AddressLimit::Upgrade => &self.settings.upgrade_limit,
        };
        let Some(limit) = limit else {
            return (true, RateState::UNKNOWN);
        };
        self.quotas.limit_address(which, address, now, limit)
    }
}
