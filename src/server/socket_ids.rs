//! Socket ids: unique by construction, and readable by the node that gave them.
//!
//! Owns: `SocketIds`, the scheme behind the two numbers.
//! May depend on: `protocol::socket_id`, ahash, getrandom.
//! Invariants: two live sockets of a node never share an id, since the first part is a keyed
//! permutation of (shard, slot index); the second part is random, so nobody guesses another's id. An id that
//! another process has given is kept, and never given again.

use ahash::AHashMap;
use shards::application::ShardId;

use crate::protocol::socket_id::SocketId;

/// The key of the permutation; one per process, the same on all shards.
#[derive(Clone, Copy)]
pub struct SocketIdKey {
    rounds: [u64; 4],
    /// Second parts follow from this seed instead of the system's random source.
    simulated: Option<u64>,
}

impl SocketIdKey {
    /// A fresh key from the system's random source.
    ///
    /// # Errors
    /// The system has no random source.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut rounds = [0; 4];
        for word in &mut rounds {
            *word = getrandom::u64()?;
        }
        Ok(Self {
            rounds,
            simulated: None,
        })
    }

    /// A key made from a seed, for simulations: all ids that it gives follow from the seed.
    pub fn from_seed(seed: u64) -> Self {
        Self {
            rounds: [1, 2, 3, 4].map(|round: u64| mix(seed ^ mix(round))),
            simulated: Some(seed),
        }
    }
}

/// Makes the socket ids of one shard's slots, and reads those of the whole node.
#[derive(Clone)]
pub(super) struct SocketIds {
    key: SocketIdKey,
    shard: ShardId,
    random: [u8; 256],
    used: usize,
    /// Ids of another process whose connections are here, and their slots.
    carried: AHashMap<SocketId, u32>,
}

/// Bits of a slot index in the first part; the rest are the shard's.
const INDEX_BITS: u32 = 23;
/// Slot indices that fit in the first part of an id.
pub(super) const SLOTS_MAX: u32 = 1 << INDEX_BITS;
/// Bound of the second part (docs/decisions/0005).
const LOW_BOUND: u64 = 10_000_000_000;

impl SocketIds {
    pub(super) fn new(key: SocketIdKey, shard: ShardId) -> Self {
        assert!(
            u32::from(shard.0) < 1 << (32 - INDEX_BITS),
            "at most 512 shards"
        );
        Self {
            key,
            shard,
            random: [0; 256],
            used: 256,
            carried: AHashMap::new(),
        }
    }

    /// A fresh second part. Panics if the system's random source fails, which it does only before
    /// it is seeded at boot.
    fn fresh_low(&mut self) -> u64 {
        loop {
            if self.used + 8 > self.random.len() {
                self.refill();
            }
            let (_, rest) = self.random.split_at(self.used);
            let bytes = rest.first_chunk::<8>().expect("eight bytes are left");
            self.used += 8;
            // 34 random bits; more than half of them are below the bound.
            let low = u64::from_le_bytes(*bytes) >> 30;
            if low < LOW_BOUND {
                return low;
            }
        }
    }

    fn refill(&mut self) {
        self.used = 0;
        let Some(seed) = &mut self.key.simulated else {
            getrandom::fill(&mut self.random).expect("the random source is seeded");
            return;
        };
        for word in self.random.chunks_exact_mut(8) {
            *seed = mix(*seed ^ u64::from(self.shard.0));
            word.copy_from_slice(&seed.to_le_bytes());
        }
    }

    /// A fresh id for a slot of this shard.
    pub(super) fn fresh(&mut self, slot_index: u32) -> SocketId {
        loop {
            let low = self.fresh_low();
            let id = self.of(slot_index, low);
            if self.carried.is_empty() || !self.carried.contains_key(&id) {
                return id;
            }
        }
    }

    /// The id of a slot of this shard.
    fn of(&self, slot_index: u32, low: u64) -> SocketId {
        assert!(slot_index < SLOTS_MAX);
        let place = u32::from(self.shard.0) << INDEX_BITS | slot_index;
        SocketId::new(u64::from(permute(self.key, place)), low).expect("both parts are in range")
    }

    /// The slot of this shard that an id of this process names.
    pub(super) fn slot_index(&self, id: SocketId) -> Option<u32> {
        let place = unpermute(self.key, u32::try_from(id.high()).ok()?);
        (place >> INDEX_BITS == u32::from(self.shard.0)).then_some(place & (SLOTS_MAX - 1))
    }

    /// A connection here has an id that another process has given.
    pub(super) fn carry(&mut self, id: SocketId, slot_index: u32) {
        self.carried.insert(id, slot_index);
    }

    /// The slot of such a connection.
    pub(super) fn carried(&self, id: SocketId) -> Option<u32> {
        self.carried.get(&id).copied()
    }

    /// The connection has ended.
    pub(super) fn forget(&mut self, id: SocketId) {
        if !self.carried.is_empty() {
            self.carried.remove(&id);
        }
    }
}

/// A Feistel network of four rounds over 16-bit halves.
fn permute(key: SocketIdKey, value: u32) -> u32 {
    let (mut left, mut right) = halves(value);
    for round in key.rounds {
        (left, right) = (right, left ^ scramble(round, right));
    }
    u32::from(left) << 16 | u32::from(right)
}

fn unpermute(key: SocketIdKey, value: u32) -> u32 {
    let (mut left, mut right) = halves(value);
    for round in key.rounds.into_iter().rev() {
        (left, right) = (right ^ scramble(round, left), left);
    }
    u32::from(left) << 16 | u32::from(right)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
fn halves(value: u32) -> (u16, u16) {
    ((value >> 16) as u16, value as u16)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "sixteen mixed bits are meant"
)]
fn scramble(round: u64, half: u16) -> u16 {
    mix(round ^ u64::from(half)) as u16
}

/// The finaliser of splitmix64.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_slot_and_no_two_slots_share_one() {
        let key = SocketIdKey::from_seed(7);
        let mut seen = std::collections::BTreeSet::new();
        for shard in [0, 1, 511] {
            let mut ids = SocketIds::new(key, ShardId(shard));
            for index in (0..1_000).chain([SLOTS_MAX - 1]) {
                let low = ids.fresh_low();
                assert!(low <= 10_000_000_000);
                let id = ids.of(index, low);
                assert_eq!(ids.slot_index(id), Some(index));
                assert!(seen.insert(id.high()), "shard {shard} slot {index}");
            }
        }
    }
}
