//! The process that follows: it gets ready behind the old one's back, takes everything, and serves.
//!
//! Owns: `Taking`: how far that is.
//! May depend on: `handover`, `bridge::run`'s state.
//! Invariants: nothing of what was taken is read, sent or closed with a word before `Yours`, or before the old
//! process died with everything handed over; if it ends earlier, so does this one.

use std::{io, os::fd::OwnedFd, sync::Arc};

use serde_bytes::ByteBuf;
use shards::application::ShardId;

use super::UpgradeReport;
use crate::{
    bridge::{
        link::ShardLink,
        message::FromBridge,
        run::{Bridge, BridgeError},
    },
    handover::{
        link::{Link, LinkError, Received, Waiting},
        packet::{
            Connections, Empty, End, Imported, Packet, Refused, State, Taken, Welcome, Yours,
        },
        record::Import,
    },
};

/// A take-over under way.
#[derive(Debug)]
pub(in crate::bridge) struct Taking {
    link: Waiting,
    welcome: Welcome,
    is_ready: bool,
    came: End,
    /// Shards that have not put everything in its place yet, once all has come.
    awaited: Option<u16>,
    imported: Imported,
    is_imported: bool,
}

impl Taking {
    pub(super) fn new(link: Arc<Link>, welcome: Welcome) -> io::Result<Self> {
        Ok(Self {
            link: Waiting::new(link)?,
            welcome,
            is_ready: false,
            came: End::default(),
            awaited: None,
            imported: Imported::default(),
            is_imported: false,
        })
    }

    pub(super) fn link(&self) -> &Waiting {
        &self.link
    }

    pub(super) fn upgrades(&self) -> [u64; 2] {
        self.welcome.upgrades
    }

    fn send(&self, packet: &Packet) -> Result<(), LinkError> {
        Ok(self.link.try_send(packet, &[])?)
    }
}

impl<L: ShardLink> Bridge<L> {
    /// This process could serve now: the old one may begin.
    pub(in crate::bridge) fn ready_to_take(&mut self) {
        let Some(taking) = &mut self.handover.taking else {
            return;
        };
        if !std::mem::replace(&mut taking.is_ready, true) {
            let pid = taking.welcome.pid;
            tracing::info!(
                node = self.node_id,
                pid,
                "ready to take over from the process before"
            );
            // If it cannot be said the link has ended, which is heard next.
            _ = taking.send(&Packet::Ready(Empty {}));
        }
    }

    /// What the old process says.
    pub(in crate::bridge) fn hear_predecessor(
        &mut self,
        heard: Result<Received, LinkError>,
    ) -> Result<(), BridgeError> {
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        let refused = |reason: String| BridgeError::Predecessor { reason };
        match heard {
            Ok((Packet::State(state), _)) => self.take_state(state),
            Ok((Packet::Connections(part), sockets)) => self.take_connections(part, sockets),
            Ok((Packet::End(end), _)) if taking.awaited.is_none() => self.take_end(&end),
            Ok((Packet::Yours(yours), _)) if taking.is_imported => {
                self.take_over(&yours);
                Ok(())
            }
            Ok((Packet::Refused(Refused { reason }), _)) => Err(refused(reason)),
            Ok((packet, _)) => Err(refused(format!("{} came out of turn", packet.name()))),
            // It died with everything handed over: nobody else serves.
            Err(_) if taking.is_imported => {
                tracing::warn!(
                    node = self.node_id,
                    "the process before died while it handed over"
                );
                self.take_over(&Yours::default());
                Ok(())
            }
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// Goes to all shards: each takes what is its own.
    fn take_state(&mut self, state: State) -> Result<(), BridgeError> {
        let count = state.records.len();
        let records: Arc<[Vec<u8>]> = state.records.into_iter().map(ByteBuf::into_vec).collect();
        self.broadcast(|| {
            FromBridge::Import(Box::new(Import {
                state: Arc::clone(&records),
                ..Import::default()
            }))
        });
        self.taken(count, |came, count| came.states += count)
    }

    fn take_connections(
        &mut self,
        part: Connections,
        sockets: Vec<OwnedFd>,
    ) -> Result<(), BridgeError> {
        let count = part.records.len();
        if sockets.len() != count {
            let reason = format!("{count} connections came with {} sockets", sockets.len());
            return Err(BridgeError::Predecessor { reason });
        }
        let records = part.records.into_iter().map(ByteBuf::into_vec);
        let connections = sockets.into_iter().zip(records).collect();
        let shard = ShardId(part.shard % self.link.shards());
        let import = Import {
            connections,
            ..Import::default()
        };
        let message = FromBridge::Import(Box::new(import));
        self.outbox.send(&self.link, shard, message);
        self.taken(count, |came, count| came.connections += count)
    }

    fn taken(&mut self, count: usize, add: impl Fn(&mut End, u64)) -> Result<(), BridgeError> {
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        add(&mut taking.came, count as u64);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        taking.send(&Packet::Taken(Taken { count })).map_err(lost)
    }

    fn take_end(&mut self, end: &End) -> Result<(), BridgeError> {
        let shards = self.link.shards();
        let Some(taking) = &mut self.handover.taking else {
            return Ok(());
        };
        if taking.came != *end {
            let reason = format!("{end:?} was sent, {:?} has come", taking.came);
            return Err(BridgeError::Predecessor { reason });
        }
        taking.awaited = Some(shards);
        self.broadcast(|| {
            FromBridge::Import(Box::new(Import {
                is_last: true,
                ..Import::default()
            }))
        });
        Ok(())
    }

    /// A shard has put everything in its place.
    pub(in crate::bridge) fn imported(&mut self, connections: u64, refused: u64) {
        let Some(taking) = &mut self.handover.taking else {
            return;
        };
        let Some(awaited) = &mut taking.awaited else {
            return;
        };
        *awaited = awaited.saturating_sub(1);
        taking.imported.connections += connections;
        taking.imported.refused += refused;
        if *awaited == 0 && !std::mem::replace(&mut taking.is_imported, true) {
            // If it cannot be said the old process has died, which is heard next.
            _ = taking.send(&Packet::Imported(taking.imported.clone()));
        }
    }

    /// This process serves from now on.
    fn take_over(&mut self, yours: &Yours) {
        let Some(taking) = self.handover.taking.take() else {
            return;
        };
        let Taking {
            welcome, imported, ..
        } = taking;
        self.handover.doors.files.set(true);
        self.broadcast(|| FromBridge::TakenOver);
        self.link.ring();
        self.link.thaw();
        self.handover.doors.set_open(true);
        self.supervisor.release();
        self.handover.counts[0] += 1;
        let silence_ms = yours.silence_us as f64 / 1_000.0;
        let closed = yours.left + imported.refused;
        tracing::info!(
            node = self.node_id,
            from = welcome.pid,
            connections = imported.connections,
            closed,
            silence_ms,
            "taken over"
        );
        self.handover.last = Some(UpgradeReport {
            number: self.handover.counts.iter().sum(),
            state: "done".to_owned(),
            reason: None,
            from_version: welcome.version,
            to_version: self.build.version.to_owned(),
            pid: std::process::id(),
            connections: imported.connections,
            closed,
            silence_ms,
        });
        self.announce();
    }
}

fn lost(error: LinkError) -> BridgeError {
    BridgeError::Predecessor {
        reason: error.to_string(),
    }
}
