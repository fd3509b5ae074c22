//! From an HTTP upgrade to an established connection.
//!
//! Owns: the order of checks (docs/protocol.md), and `connection_established`.
//! May depend on: `http`, `ws::handshake`, `protocol`, `connection`, `server::{answers, quota}`.
//! Invariants: a refusal after the 101 is an error frame and a close of the same code; a refused
//! connection gets no socket id and counts in no quota.

use std::{net::IpAddr, rc::Rc};

use shards::application::{Millis, Slot};

use super::{
    ServerTurn, ShardServer,
    message::{AddressLimit, Question},
};
use crate::{
    connection::{
        keep_alive::KeepAlive,
        pending::{Asked, Pending, RateState, Transport, Upgrade, UpgradeStep},
        row::State,
    },
    http::{query::ProtocolParam, response::Content},
    metrics::counters::ConnectionError,
    protocol::{code, code::CloseCode, origin, outgoing},
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
            let home = self.home_of(&address);
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
    pub(super) fn upgrade_limited(
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
        let asked = Asked::last(Content::Whole, upgrade.origin);
        self.respond_limited(turn, slot, rate, &asked);
    }

    /// Sends the 101; from here on refusals are frames, which browsers can see.
    fn switch_protocols(&mut self, turn: &mut impl ServerTurn, slot: Slot, mut upgrade: Upgrade) {
        self.scratch.clear();
        handshake::write_switching_protocols(&mut self.scratch, &upgrade.accept, b"");
        turn.send(slot, &self.scratch);
        let row = self.held(slot);
        row.state = State::Open;
        row.rare().peer = None;
        row.keep_alive = KeepAlive::new(turn.now());
        if self.drain.is_some() {
            return self.refuse_upgrade(turn, slot, CloseCode::RECONNECT, None);
        }
        if self.is_out_of_files() {
            self.refused_early(1, ConnectionError::OverCapacity);
            return self.refuse_upgrade(turn, slot, CloseCode::OVER_CAPACITY, None);
        }
        if self.health.memory_above_threshold {
            self.refused_early(2, ConnectionError::OverCapacity);
            return self.refuse_upgrade(turn, slot, CloseCode::OVER_CAPACITY, None);
        }
        if !self.quotas.take_accept(turn.now()) {
            self.refused_early(0, ConnectionError::AcceptLimited);
            return self.refuse_upgrade(turn, slot, CloseCode::OVER_CAPACITY, None);
        }
        if self.settings.connections_max > 0 {
            upgrade.step = UpgradeStep::NodeQuota;
            let pending = Pending::Upgrade(Box::new(upgrade));
            return self.ask(
                turn,
                slot,
                Self::home_of_node(),
                pending,
                Question::AdmitToNode,
            );
        }
        self.check_upgrade(turn, slot, upgrade);
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
    pub(super) fn admitted_to_node(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        granted: bool,
    ) {
        let Some(Pending::Upgrade(upgrade)) = self.answer_arrived(slot) else {
            return;
        };
        if granted {
            self.held(slot).in_node_quota = true;
            self.check_upgrade(turn, slot, *upgrade);
        } else {
            self.refused_early(1, ConnectionError::OverCapacity);
            self.refuse_upgrade(turn, slot, CloseCode::OVER_CAPACITY, None);
        }
    }

    fn check_upgrade(&mut self, turn: &mut impl ServerTurn, slot: Slot, mut upgrade: Upgrade) {
        if upgrade.path_is_bad {
            return self.refuse_upgrade(turn, slot, CloseCode::PATH_NOT_FOUND, None);
        }
        let protocol_code = match upgrade.protocol {
            ProtocolParam::Accepted(_) => None,
            ProtocolParam::Absent => self
                .settings
                .require_protocol
                .then_some(CloseCode::VERSION_MISSING),
            ProtocolParam::Invalid => Some(CloseCode::VERSION_INVALID),
            ProtocolParam::Unsupported => Some(CloseCode::VERSION_UNSUPPORTED),
        };
        if let Some(code) = protocol_code {
            return self.refuse_upgrade(turn, slot, code, None);
        }
        let Some(app) = self.app_by_key(&upgrade.key) else {
            let errors = &mut self.counters.unknown_app_errors;
            errors[ConnectionError::AppNotFound as usize] += 1;
            return self.refuse_upgrade(turn, slot, CloseCode::APP_UNKNOWN, None);
        };
        let index = app.entry.index;
        self.held(slot).app = index;
        if !app.entry.app.enabled {
            let error = Some(ConnectionError::AppDisabled);
            return self.refuse_upgrade(turn, slot, CloseCode::APP_DISABLED, error);
        }
        if app.entry.app.require_tls && upgrade.transport == Transport::Plain {
            return self.refuse_upgrade(turn, slot, CloseCode::TLS_REQUIRED, None);
        }
        if !origin::origin_allowed(&app.entry.origins, upgrade.origin.as_deref()) {
            let error = Some(ConnectionError::OriginNotAllowed);
            return self.refuse_upgrade(turn, slot, CloseCode::UNAUTHORIZED, error);
        }
        if app.entry.app.max_connections > 0 {
            upgrade.step = UpgradeStep::AppQuota;
            let pending = Pending::Upgrade(Box::new(upgrade));
            let home = self.home_of_app(index);
            return self.ask(
                turn,
                slot,
                home,
                pending,
                Question::AdmitToApp { app: index },
            );
        }
        self.establish(turn, slot);
    }

    /// The app's quota has answered.
    pub(super) fn admitted_to_app(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        granted: bool,
    ) {
        self.answer_arrived(slot);
        let row = self.held(slot);
        if granted {
            row.in_app_quota = true;
            self.establish(turn, slot);
        } else {
            let app = row.app;
            self.counters.app(app).limit_denied[0] += 1;
            let error = Some(ConnectionError::OverQuota);
            self.refuse_upgrade(turn, slot, CloseCode::OVER_QUOTA, error);
        }
    }

    fn establish(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        // While the quotas were asked a drain may have begun, or the app been taken away: both
        // close what is established then, and do not look at this connection again.
        if self.drain.is_some() {
            return self.refuse_upgrade(turn, slot, CloseCode::RECONNECT, None);
        }
        let app = self.held(slot).app;
        match self.apps.get(app).map(Rc::as_ref) {
            Some(app) if app.entry.app.enabled => {}
            Some(_) => {
                let error = Some(ConnectionError::AppDisabled);
                return self.refuse_upgrade(turn, slot, CloseCode::APP_DISABLED, error);
            }
            None => return self.refuse_upgrade(turn, slot, CloseCode::APP_UNKNOWN, None),
        }
        let now = turn.now();
        let low = self.socket_ids.fresh_low();
        let socket_id = self.socket_ids.of(slot.index, low);
        let timeout_ms = self.settings.user_authentication_timeout_ms;
        let needs_user = self
            .apps
            .get(app)
            .is_some_and(|app| app.entry.app.enable_user_authentication);
        let row = self.held(slot);
        row.established = true;
        row.socket_low = low;
        row.keep_alive = KeepAlive::new(now);
        if needs_user {
            row.rare().authorize_by = Some(now.plus(timeout_ms));
        }
        row.shed_rare();
        self.counters.websockets += 1;
        let counters = self.counters.app(app);
        counters.connected += 1;
        counters.new_connections += 1;
        let timeout_s = self.settings.activity_timeout_s;
        self.reply(turn, slot, |out| {
            outgoing::connection_established(out, socket_id, timeout_s);
        });
        self.arm_silence(turn, slot);
    }

    fn refuse_upgrade(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        code: CloseCode,
        error: Option<ConnectionError>,
    ) {
        let app = self.held(slot).app;
        if let Some(error) = error {
            self.counters.app(app).connection_errors[error as usize] += 1;
        }
        let reason = match error {
            Some(ConnectionError::OriginNotAllowed) => code::ORIGIN_NOT_ALLOWED,
            _ => code.reason(),
        };
        self.close_saying(turn, slot, code, reason);
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
        let unlimited = RateState {
            limit: 0,
            remaining: 0,
            reset_s: 0,
        };
        let Some(limit) = limit else {
            return (true, unlimited);
        };
        self.quotas.limit_address(which, address, now, limit)
    }
}
