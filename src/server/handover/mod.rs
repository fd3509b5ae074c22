//! A shard's part in the replacement of its process.
//!
//! Owns: `Handover`, what a shard notes while it exports and imports.
//! May depend on: `handover::record`, the tables of the shard, the turn.
//! Invariants: an export changes nothing, so that the process can go on as if there had been none; an import
//! says nothing to anybody and handles no input before `FromBridge::TakenOver`; a connection that is not taken
//! over is counted.
//!
//! The order of an import: state of homes, connections, `RestoreEnds` to all shards, `RestoreTaken` by all
//! shards, `ToBridge::Imported`. Records of homes and subscriptions may come in any order.

mod export;
mod import;

use shards::application::Slot;

use crate::channel::home::HomeRef;

/// What a shard notes of the replacement.
#[derive(Clone, Default)]
pub(super) struct Handover {
    export: Option<export::Export>,
    /// Homes that have a record of another process.
    restored: Vec<HomeRef>,
    /// Connections that were taken over.
    adopted: Vec<Slot>,
    /// Those of them that waited for an answer.
    stuck: Vec<Slot>,
    refused: u64,
    /// Shards that have not said `RestoreTaken`.
    awaited: u16,
}

impl Handover {
    /// Something is to be exported.
    pub(super) fn is_exporting(&self) -> bool {
        self.export.is_some()
    }
}
