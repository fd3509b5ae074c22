//! Telling another process what this shard holds.
//!
//! Owns: the walk over limits, homes, frames and connections, a part of it each turn.
//! May depend on: see `handover`.
//! Invariants: what is exported is read only; every connection is exported once, or counted as left behind; what
//! is told and has not gone on to the next process is bounded by what the bridge allows, and one part more; a part that
//! the bridge's lane has no room for is told later.

use shards::{
    FramesAs,
    application::{BridgeDropped, Millis, Slot},
    work::Work,
};

use super::super::{ServerTurn, ShardServer};
use crate::{
    bridge::message::{RateOf, ToBridge},
    connection::row::State,
    handover::record::{
        AppRatesRecord, BATCH_CONNECTIONS_MAX, ConnectionRecord, Exported, LeaseOf, LimitsRecord,
        StateRecord, SubscriptionRecord, UserOfNodesRecord, UserRecord, write,
    },
};

/// Where the walk goes on.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Export {
    are_limits_told: bool,
    /// The next row of homes; `None` = all are told.
    home: Option<u32>,
    are_homes_told: bool,
    /// As `home`, of users whom other nodes know or have.
    user: Option<u32>,
    are_users_told: bool,
    is_owned_told: bool,
    frames: FramesAs,
    /// The next frame to be looked at.
    frame: u32,
    /// All that belongs to no connection.
    is_state_told: bool,
    /// Of all shards.
    are_states_told: bool,
    connection: usize,
    /// Bytes that may be told; below 0 when the last part was longer.
    room_bytes: i64,
    /// What the lane to the bridge had no room for.
    untold: Option<Box<Exported>>,
}

/// Homes that are looked at in one step.
const HOMES_AT_ONCE: u32 = 256;
/// Bytes of state in one message, or one record more.
const STATE_BYTES: usize = 65_536;
/// Webhooks of others in one record.
const HOOKS_AT_ONCE: usize = 256;

impl Export {
    pub(super) fn new(room_bytes: usize, frames: FramesAs) -> Self {
        Self {
            frames,
            room_bytes: signed(room_bytes),
            ..Self::default()
        }
    }

    /// Something is to be told, and may be.
    pub(super) fn goes_on(&self) -> bool {
        let is_next_allowed = !self.is_state_told || self.are_states_told;
        self.untold.is_some() || (self.room_bytes > 0 && is_next_allowed)
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl ShardServer {
    /// The shard is still: it tells what it holds, from the beginning.
    pub(in crate::server) fn begin_export(&mut self, bytes: usize, frames: FramesAs) {
        self.handover.export = Some(Export::new(bytes, frames));
    }

    /// What was told has gone on to the next process, so many bytes of it.
    pub(in crate::server) fn export_more(&mut self, bytes: usize) {
        if let Some(export) = &mut self.handover.export {
            export.room_bytes = export.room_bytes.saturating_add(signed(bytes));
        }
    }

    /// What belongs to no connection is told by all shards.
    pub(in crate::server) fn export_connections_too(&mut self) {
        if let Some(export) = &mut self.handover.export {
            export.are_states_told = true;
        }
    }

    /// Goes on with telling until this turn's work is done, or the bridge has to pass on first what it was told.
    pub(in crate::server) fn continue_export(&mut self, turn: &mut impl ServerTurn) {
        while turn.work_left() > Work(0)
            && self.handover.is_exporting()
            && let Some(mut export) = self.handover.export.take()
        {
            let kept = export.untold.take();
            let part = kept.unwrap_or_else(|| Box::new(self.export_some(turn, &mut export)));
            let (is_last, bytes) = (part.is_last, part.bytes());
            let told = match part.is_empty() {
                true => Ok(()),
                false => turn.to_bridge(ToBridge::Exported(part)),
            };
            if let Err(BridgeDropped(back)) = told {
                // A lane of control gives back what it was given. The bridge empties it soon.
                export.untold = back.into_iter().find_map(|message| {
                    let ToBridge::Exported(part) = message else {
                        return None;
                    };
                    Some(part)
                });
                self.handover.export = Some(export);
                return;
            }
            export.room_bytes = export.room_bytes.saturating_sub(signed(bytes));
            if !is_last {
                self.handover.export = Some(export);
            }
        }
    }

    fn export_some(&self, turn: &mut impl ServerTurn, export: &mut Export) -> Exported {
        if !export.are_limits_told {
            export.are_limits_told = true;
            let limits = StateRecord::Limits(self.limits_record(turn));
            return Exported {
                state: write(&limits).into_iter().collect(),
                ..Exported::default()
            };
        }
        if !export.are_homes_told {
            return self.export_homes(turn, export);
        }
        if self.topics.has_bus() && !export.is_owned_told {
            export.is_owned_told = true;
            let state = self.owned_records(turn);
            return Exported {
                state,
                ..Exported::default()
            };
        }
        if self.topics.has_bus() && !export.are_users_told {
            return self.export_users(turn, export);
        }
        if !export.is_state_told {
            return Self::export_frames(turn, export);
        }
        self.export_connections(turn, export)
    }

    /// Frames that several connections wait for, and the end of all that belongs to none.
    fn export_frames(turn: &mut impl ServerTurn, export: &mut Export) -> Exported {
        let mut exported = Exported::default();
        while exported.bytes() < STATE_BYTES && turn.work_left() > Work(0) {
            let next = match export.frames {
                FramesAs::Numbers => turn.carry_frames(export.frame, &mut exported.frames),
                FramesAs::Bytes => None,
            };
            let Some(next) = next else {
                export.is_state_told = true;
                exported.is_state_told = true;
                break;
            };
            export.frame = next;
        }
        exported
    }

    fn export_homes(&self, turn: &mut impl ServerTurn, export: &mut Export) -> Exported {
        let (mut state, mut bytes) = (Vec::new(), 0);
        while !export.are_homes_told && bytes < STATE_BYTES && turn.work_left() > Work(0) {
            turn.spend(Work::ROW.times(HOMES_AT_ONCE as usize));
            let from = export.home.unwrap_or(0);
            export.home =
                self.homes
                    .records(turn.now(), from, HOMES_AT_ONCE, |home, mut record| {
                        let Some(app) = self.apps.get(home.app) else {
                            return; // Nobody will ask for it.
                        };
                        record.app.clone_from(&app.entry.app.id);
                        if let Ok(written) = write(&StateRecord::Home(record)) {
                            bytes += written.len();
                            state.push(written);
                        }
                    });
            export.are_homes_told = export.home.is_none();
        }
        turn.spend(Work::bytes_hashed(bytes));
        Exported {
            state,
            ..Exported::default()
        }
    }

    fn export_users(&self, turn: &mut impl ServerTurn, export: &mut Export) -> Exported {
        let (mut state, mut bytes) = (Vec::new(), 0);
        while !export.are_users_told && bytes < STATE_BYTES && turn.work_left() > Work(0) {
            turn.spend(Work::ROW.times(HOMES_AT_ONCE as usize));
            let from = export.user.unwrap_or(0);
            let told = |app, user_id: &str, is_told, is_elsewhere| {
                let Some(app) = self.apps.get(app) else {
                    return; // Nobody will ask for it.
                };
                let record = UserOfNodesRecord {
                    app: app.entry.app.id.clone(),
                    user_id: user_id.to_owned(),
                    is_told,
                    is_elsewhere,
                };
                if let Ok(written) = write(&StateRecord::User(record)) {
                    bytes += written.len();
                    state.push(written);
                }
            };
            export.user = self.users.of_nodes(from, HOMES_AT_ONCE, told);
            export.are_users_told = export.user.is_none();
        }
        turn.spend(Work::bytes_hashed(bytes));
        Exported {
            state,
            ..Exported::default()
        }
    }

    /// At most 4 MiB of them, which is what a shard keeps.
    fn owned_records(&self, turn: &mut impl ServerTurn) -> Vec<Vec<u8>> {
        let app_id = |app| Some(self.apps.get(app)?.entry.app.id.clone());
        let records = self.owned.records(HOOKS_AT_ONCE, app_id);
        let written = records.map(StateRecord::Owned).flat_map(|it| write(&it));
        let state: Vec<Vec<u8>> = written.collect();
        turn.spend(Work::bytes_hashed(state.iter().map(Vec::len).sum()));
        state
    }

    fn export_connections(&self, turn: &mut impl ServerTurn, export: &mut Export) -> Exported {
        let mut exported = Exported::default();
        let mut bytes = 0;
        while exported.connections.len() < BATCH_CONNECTIONS_MAX && bytes < STATE_BYTES {
            let Some(row) = self.connections.get(export.connection) else {
                exported.is_last = true;
                break;
            };
            let index = u32::try_from(export.connection).expect("slot indices are u32");
            let generation = row.generation;
            export.connection += 1;
            if row.state == State::Vacant {
                continue;
            }
            turn.spend(Work::MEMBERSHIP);
            let slot = Slot { index, generation };
            let carried = turn.carry(slot, export.frames);
            let record = carried
                .and_then(|(fd, carried)| Some((fd, self.record_of(turn.now(), slot, carried)?)));
            let Some((fd, record)) = record else {
                exported.left += 1;
                continue;
            };
            exported.stuck += u64::from(record.is_stuck);
            if let Ok(written) = write(&record) {
                bytes += written.len();
                exported.connections.push((fd, written));
            }
        }
        turn.spend(Work::bytes_hashed(bytes));
        exported
    }

    fn limits_record(&self, turn: &impl ServerTurn) -> LimitsRecord {
        let apps = self.quotas.rates().filter_map(|(app, rates)| {
            let app = self.apps.get(app)?.entry.app.id.clone();
            Some(AppRatesRecord { app, ..rates })
        });
        let name = |app| Some(self.apps.get(app)?.entry.app.id.clone());
        let leases = self.leases.records(turn.now(), |of| match of {
            RateOf::Api(address) => Some(LeaseOf::Api(address)),
            RateOf::Upgrade(address) => Some(LeaseOf::Upgrade(address)),
            RateOf::BackendEvents(app) => name(app).map(LeaseOf::BackendEvents),
            RateOf::Reads(app) => name(app).map(LeaseOf::Reads),
        });
        LimitsRecord {
            apps: apps.collect(),
            addresses: self.quotas.windows(turn.now()),
            leases: leases.collect(),
        }
    }

    fn record_of(
        &self,
        now: Millis,
        slot: Slot,
        carried: shards::Carried,
    ) -> Option<ConnectionRecord> {
        let row = &self.connections[slot.index as usize];
        let mut record = row.record(now, carried)?;
        let app = self.apps.get(row.app);
        record.app = app.map(|app| app.entry.app.id.clone());
        let subscriptions = row.subscriptions.iter();
        record.subscriptions = subscriptions
            .map(|it| SubscriptionRecord {
                channel: self.locals.at(it.channel).name.to_string(),
                user_id: row.membership(it.channel).map(ToString::to_string),
            })
            .collect();
        record.user = row.user().map(|user| UserRecord {
            user_id: user.user_id.text.to_string(),
            info: user.info.to_string(),
            watchlist: user
                .watchlist
                .iter()
                .map(|it| it.text.to_string())
                .collect(),
            is_known: user.is_known,
        });
        Some(record)
    }
}
