//! Who of the cluster is there, for the process that follows.
//!
//! Owns: `MembershipRecord`.
//! May depend on: `cluster::{canary, carrying, fault, identity}`, serde.
//! Invariants: no more peers are taken than may be known, and never this node itself.

use serde::{Deserialize, Serialize};
use shards::application::Millis;

use super::{Membership, PEERS_MAX, Row, View, strays::Strays};
use crate::cluster::{
    canary::CanariesRecord,
    carrying::CarryError,
    fault::{Fault, is_planted},
    identity::NodeId,
};

/// For the process that follows.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::cluster) struct MembershipRecord {
    rows: Vec<(NodeId, Row)>,
    doubles: Strays,
    canaries: CanariesRecord,
    ticked_at: Millis,
    view: View,
    hears_peers: bool,
    was_deaf: bool,
}

impl Membership {
    pub(in crate::cluster) fn carry(&self) -> MembershipRecord {
        let rows = self.rows.iter();
        MembershipRecord {
            rows: rows.map(|(node, row)| (*node, row.clone())).collect(),
            doubles: self.doubles,
            canaries: self.canaries.carry(),
            ticked_at: self.ticked_at,
            view: self.view,
            hears_peers: self.hears_peers,
            was_deaf: self.was_deaf,
        }
    }

    /// Goes on as the one that was carried; what is counted begins anew.
    pub(in crate::cluster) fn go_on(&mut self, record: MembershipRecord) -> Result<(), CarryError> {
        self.rows = record.rows.into_iter().collect();
        if self.rows.len() > PEERS_MAX || self.rows.contains_key(&self.own.node) {
            return Err(CarryError::Inconsistent("peers that cannot be"));
        }
        if is_planted(Fault::CarriedLeaseForgotten) {
            let rows = self.rows.values_mut();
            rows.for_each(|row| row.heard_at = Millis(u64::MAX));
        }
        self.doubles = record.doubles;
        self.canaries.go_on(record.canaries);
        self.ticked_at = record.ticked_at;
        self.view = record.view;
        self.hears_peers = record.hears_peers;
        self.was_deaf = record.was_deaf;
        Ok(())
    }
}
