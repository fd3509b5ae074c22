//! Who may speak: the MAC of a batch, made with `cluster.secret`.
//!
//! Owns: `Secrets`, `Tag`, the comparison.
//! May depend on: `hmac`, `sha2`, `subtle`.
//! Invariants: tags are compared in constant time; no `Debug` output holds a secret.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// The secrets of a cluster: the first one signs, each is believed. Two while one is rolled.
#[derive(Clone, Default)]
pub struct Secrets {
    keyed: Vec<Hmac<Sha256>>,
}

/// The first half of an HMAC-SHA256.
pub(super) type Tag = [u8; TAG_BYTES];

impl Secrets {
    /// At most `SECRETS_MAX`, the one that signs first; none is a cluster that believes everybody.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let keyed = |secret: &str| {
            Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length")
        };
        let keyed: Vec<_> = secrets.into_iter().map(keyed).collect();
        assert!(keyed.len() <= SECRETS_MAX, "each costs a try per batch");
        Self { keyed }
    }

    /// No secret: nothing is signed, everything is believed.
    pub fn is_empty(&self) -> bool {
        self.keyed.is_empty()
    }

    pub(super) fn sign(&self, signed: &[u8]) -> Option<Tag> {
        self.keyed.first().map(|keyed| tag(keyed, signed))
    }

    pub(super) fn verify(&self, signed: &[u8], found: &Tag) -> bool {
        let mut tags = self.keyed.iter().map(|keyed| tag(keyed, signed));
        tags.any(|tag| tag.ct_eq(found).into())
    }
}

fn tag(keyed: &Hmac<Sha256>, signed: &[u8]) -> Tag {
    let digest = keyed.clone().chain_update(signed).finalize().into_bytes();
    let (start, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    *start
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} ***)", self.keyed.len())
    }
}

pub(super) const TAG_BYTES: usize = 16;
/// The one in use and the one that it replaces.
pub const SECRETS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_start_of_the_published_hmac() {
        // RFC 4231, test case 2.
        let secrets = Secrets::new(["Jefe"]);
        let tag = secrets.sign(b"what do ya want for nothing?");
        let expected = 0x5BDC_C146_BF60_754E_6A04_2426_0895_75C7_u128;
        assert_eq!(tag.map(u128::from_be_bytes), Some(expected));
    }

    #[test]
    fn while_a_secret_is_rolled_either_is_believed_and_the_first_signs() {
        let (old, new) = (Secrets::new(["old"]), Secrets::new(["new"]));
        let both = Secrets::new(["new", "old"]);
        let signed_by = |secrets: &Secrets| secrets.sign(b"x").expect("a secret signs");
        assert_eq!(signed_by(&both), signed_by(&new));
        for (secrets, believes_old, believes_new) in [
            (&old, true, false),
            (&new, false, true),
            (&both, true, true),
        ] {
            assert_eq!(secrets.verify(b"x", &signed_by(&old)), believes_old);
            assert_eq!(secrets.verify(b"x", &signed_by(&new)), believes_new);
            assert!(!secrets.verify(b"y", &signed_by(secrets)));
        }
    }

    #[test]
    fn secrets_are_never_printed() {
        assert_eq!(format!("{:?}", Secrets::new(["hidden"])), "Secrets(1 ***)");
    }
}
