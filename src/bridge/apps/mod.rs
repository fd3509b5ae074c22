//! Apps as the server uses them: numbered, with their signers and patterns prepared.
//!
//! Owns: `AppIndex`, `App` made ready (`AppEntry`), the table that shards read (`AppTable`).
//! May depend on: `config::app`, `protocol::{auth, origin}`, `bridge::message::WebhookInterest`.
//! Invariants: an index is given once per app id and process and never to another app; a table is
//! immutable, so a change is a new table.

use std::sync::Arc;

use ahash::AHashMap;

use super::message::WebhookInterest;
use crate::{
    config::app::App,
    protocol::{auth::Signer, origin::OriginPattern},
};

/// Number of an app on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppIndex(pub u32);

/// An app with all that is prepared once and used per message.
#[derive(Debug)]
pub struct AppEntry {
    pub index: AppIndex,
    pub app: App,
    /// One per secret; the first one signs.
    pub signers: Vec<Signer>,
    pub origins: Vec<OriginPattern>,
    pub webhook_interest: WebhookInterest,
}

/// All apps of this node.
#[derive(Debug, Default)]
pub struct AppTable {
    entries: Vec<Option<Arc<AppEntry>>>,
    by_key: AHashMap<String, AppIndex>,
    by_id: AHashMap<String, AppIndex>,
    /// Ids of all apps that ever had an index.
    indices: AHashMap<String, AppIndex>,
}
