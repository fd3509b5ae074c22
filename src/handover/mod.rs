//! What one process hands to the next when it is replaced while it runs.
//!
//! Owns: the records of connections, channels and limits (`record`).
//! May depend on: plain ids, `http::body`, serde.
//! Invariants: a record is plain data that names its fields, so that another version of this program can
//! read it: a field that it does not know is skipped, one that is missing has a default.

pub mod record;
