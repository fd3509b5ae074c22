//! The number that stands for an app inside one process.
//!
//! Owns: `AppIndex`.
//! May depend on: std.
//! Invariants: an index is given once per app id and process and never to another app.

/// Number of an app on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppIndex(pub u32);
