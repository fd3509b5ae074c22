//! What of a connection's TLS goes to another process.
//!
//! Owns: `CarriedTls`, `Secret`.
//! May depend on: serde.
//! Invariants: no `Debug` shows a key or a byte; keys are overwritten when they are dropped.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The TLS of a connection whose handshake is done, or has not begun. It may be gone on with in one
/// process only: two that seal with one key would use numbers twice, which gives the key away.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CarriedTls {
    /// Nothing was said yet: `unopened` is all there is.
    pub is_fresh: bool,
    /// The cipher suite's number in TLS.
    pub suite: u16,
    /// How the peer seals.
    pub opening: CarriedKeys,
    /// How we seal.
    pub sealing: CarriedKeys,
    /// Received and not opened: the first part of a record, or of a handshake.
    #[serde(with = "serde_bytes")]
    pub unopened: Vec<u8>,
    /// Sealed and not taken by the kernel.
    #[serde(with = "serde_bytes")]
    pub unsent: Vec<u8>,
    /// Our last alert is sealed.
    pub has_ended: bool,
}

impl fmt::Debug for CarriedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarriedTls")
            .field("is_fresh", &self.is_fresh)
            .field("suite", &self.suite)
            .field("opened", &self.opening.number)
            .field("sealed", &self.sealing.number)
            .field("unopened", &self.unopened.len())
            .field("unsent", &self.unsent.len())
            .field("has_ended", &self.has_ended)
            .finish()
    }
}

/// One direction's keys. Those of TLS 1.3 follow from its traffic secret, and so do the ones after
/// them; TLS 1.2 has but these.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CarriedKeys {
    /// Number of the next record.
    pub number: u64,
    /// TLS 1.3: the traffic secret (RFC 8446, section 7.2); empty in TLS 1.2.
    pub secret: Secret,
    /// TLS 1.2: the key; empty in TLS 1.3.
    pub key: Secret,
    /// TLS 1.2: what nonces are made with; empty in TLS 1.3.
    pub iv: Secret,
}

impl fmt::Debug for CarriedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarriedKeys")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Bytes that nobody else may see.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "serde_bytes")] Vec<u8>);

impl Secret {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // What is read afterwards must have been written.
        std::hint::black_box(&self.0);
    }
}
