//! Who speaks on the bus: a node, one life of it, and the cluster to which it belongs.
//!
//! Owns: `NodeId`, `Incarnation`, `Identity`, `ClusterTag`, and how names become them.
//! May depend on: `sha2`, serde.
//! Invariants: a name gives the same id on every node and in every version.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A node, through all of its lives: what is left of `cluster.node_id` on the wire.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NodeId(pub u128);

impl NodeId {
    /// Of the node with this name.
    pub fn of_name(name: &str) -> Self {
        Self(u128::from_be_bytes(digest(b"sockudo node\0", name)))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One life of a node, between a start and an end. A later life has a greater number, so that what
/// an earlier one left on the bus is known for what it is. Whoever starts a node makes it from the
/// clock.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Incarnation(pub u64);

/// A node in one of its lives.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Identity {
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// Tells clusters that share a bus apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterTag(pub u64);

impl ClusterTag {
    /// Of the cluster with this name, which may be empty.
    pub fn of_name(name: &str) -> Self {
        Self(u64::from_be_bytes(digest(b"sockudo cluster\0", name)))
    }
}

/// The start of the digest. What the name is of stands in front, so that a node and a cluster of one
/// name have nothing in common.
fn digest<const N: usize>(of: &[u8], name: &str) -> [u8; N] {
    let digest = Sha256::new_with_prefix(of).chain_update(name).finalize();
    let (start, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    *start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_ids_that_they_have_always_had() {
        // printf 'sockudo node\0a' | sha256sum, and so on.
        assert_eq!(
            NodeId::of_name("a").to_string(),
            "bb7da91c857661223938d22109525f46"
        );
        assert_eq!(ClusterTag::of_name("").0, 0x6258_3131_C7CB_DCBA);
        assert_eq!(ClusterTag::of_name("a").0, 0x462B_A961_3F99_D44C);
    }
}
