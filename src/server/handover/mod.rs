//! A shard's part in the replacement of its process.
//!
//! Owns: `Handover`, what a shard notes while it exports and imports.
//! May depend on: `handover::record`, the tables of the shard, the turn.
//! Invariants: an export changes nothing, so that the process can go on as if there had been none; an import
//! says nothing to anybody and handles no input before `FromBridge::TakenOver`; a connection that is not taken
//! over is counted.
//!
//! The order of an import: state of homes, frames, connections, `RestoreEnds` to all shards, `RestoreTaken` by all
//! shards, `ToBridge::Imported`. Records of homes and subscriptions may come in any order; a frame comes before whoever
//! waits for it.

mod export;
mod import;
mod strays;

pub(super) use self::strays::Strays;

use std::{collections::VecDeque, vec::IntoIter};

use shards::application::{Millis, Slot};

use crate::{channel::home::HomeRef, protocol::code::CloseCode};

/// What a shard notes of the replacement.
#[derive(Clone, Default)]
pub(super) struct Handover {
    /// Since when the shard is frozen.
    frozen_at: Option<Millis>,
    /// Answers of the bridge have been waited for long enough: who waits for one is told to come back.
    gives_up_waiting: bool,
    export: Option<export::Export>,
    /// What another process held is being taken over: nobody is told anything.
    imports: bool,
    /// Homes that have a record of another process.
    restored: Vec<HomeRef>,
    /// Connections that were taken over.
    adopted: Vec<Slot>,
    /// Those of them that cannot go on here and speak no WebSocket.
    cut: Vec<Slot>,
    /// The others that cannot, and what they are told.
    strays: VecDeque<(Slot, CloseCode)>,
    /// Those of the strays that waited for an answer: the other process has counted them.
    stuck: u64,
    /// Connections of apps that are disabled here.
    disabled: u64,
    refused: u64,
    /// Shards that have not said `RestoreTaken`.
    awaited: u16,
}

/// What was imported and is not gone on with yet.
#[derive(Clone)]
pub(super) struct Unbegun {
    homes: IntoIter<HomeRef>,
    cut: IntoIter<Slot>,
    connections: IntoIter<Slot>,
}

/// For so long a frozen shard waits for what the bridge was asked.
const ANSWERED_WITHIN_MS: u64 = 250;

impl Handover {
    /// The shard has turned, frozen or not. One that is not exports nothing: what of an export was left is of a
    /// replacement that was given up, and another begins from the beginning.
    pub(super) fn turns(&mut self, now: Millis, is_frozen: bool) {
        if !is_frozen {
            self.export = None;
        }
        self.frozen_at = is_frozen.then(|| self.frozen_at.unwrap_or(now));
        let waited_ms = self.frozen_at.map_or(0, |since| now.since(since));
        self.gives_up_waiting = waited_ms >= ANSWERED_WITHIN_MS;
    }

    /// See `ANSWERED_WITHIN_MS`.
    pub(super) fn gives_up_waiting(&self) -> bool {
        self.gives_up_waiting
    }

    /// Nothing may be said to the bridge or other nodes of what is here.
    pub(super) fn is_importing(&self) -> bool {
        self.imports
    }

    /// Something is to be exported now.
    pub(super) fn is_exporting(&self) -> bool {
        self.export.as_ref().is_some_and(export::Export::goes_on)
    }
}

#[cfg(test)]
mod tests {
    use shards::FramesAs;

    use super::*;

    #[test]
    fn an_export_that_was_given_up_midway_does_not_go_on_in_the_next_replacement() {
        let mut handover = Handover::default();
        handover.turns(Millis(1), true);
        handover.export = Some(export::Export::new(1, FramesAs::Bytes));
        handover.turns(Millis(2), true);
        assert!(handover.is_exporting());
        handover.turns(Millis(3), false);
        handover.turns(Millis(4), true);
        assert!(!handover.is_exporting(), "nobody has asked for another");
        assert!(!handover.gives_up_waiting());
        handover.turns(Millis(4 + ANSWERED_WITHIN_MS), true);
        assert!(handover.gives_up_waiting());
    }
}
