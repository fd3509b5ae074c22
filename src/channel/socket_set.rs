//! Data path. A set of sockets in which a crowd may come and go.
//!
//! Owns: `SocketSet`.
//! May depend on: `channel::user::Socket`, ahash.
//! Invariants: a socket stands in the list once; past a handful each one's place is in the index, so
//! that neither coming nor going looks at the others; the order of the list depends on the calls only.

use ahash::AHashMap;

use super::user::Socket;

/// Sockets, in no order that means anything.
#[derive(Clone, Debug, Default)]
pub struct SocketSet {
    list: Vec<Socket>,
    /// Places in the list; made past `SCANNED_MAX` and dropped with the last one.
    places: Option<Box<AHashMap<Socket, u32>>>,
}

/// So many are found faster by looking at all of them: two cache lines.
const SCANNED_MAX: usize = 8;

impl SocketSet {
    /// Adds a socket; false if it is there already.
    pub fn insert(&mut self, socket: Socket) -> bool {
        if self.place(&socket).is_some() {
            return false;
        }
        let place = u32::try_from(self.list.len()).expect("sockets are numbered in 32 bits");
        self.list.push(socket);
        if let Some(places) = &mut self.places {
            places.insert(socket, place);
        } else if self.list.len() > SCANNED_MAX {
            let all = self.list.iter().copied().zip(0..);
            self.places = Some(Box::new(all.collect()));
        }
        true
    }

    /// Takes a socket out; false if it is not there.
    pub fn remove(&mut self, socket: &Socket) -> bool {
        let Some(place) = self.place(socket) else {
            return false;
        };
        self.list.swap_remove(place);
        if let Some(places) = &mut self.places {
            places.remove(socket);
            if let Some(moved) = self.list.get(place) {
                let place = u32::try_from(place).expect("it was a place before");
                places.insert(*moved, place);
            }
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
        true
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Socket] {
        &self.list
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn place(&self, socket: &Socket) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(socket).map(|place| *place as usize),
            None => self.list.iter().position(|it| it == socket),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use shards::application::{ShardId, Slot};

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_what_was_put_in_and_not_taken_out(
            steps in prop::collection::vec((any::<bool>(), 0_u32..40), 1..300)
        ) {
            let mut set = SocketSet::default();
            let mut model = BTreeSet::new();
            for (comes, index) in steps {
                let slot = Slot { index, generation: 1 };
                let socket = Socket { shard: ShardId(0), slot };
                if comes {
                    prop_assert_eq!(set.insert(socket), model.insert(socket));
                } else {
                    prop_assert_eq!(set.remove(&socket), model.remove(&socket));
                }
                let all: BTreeSet<Socket> = set.as_slice().iter().copied().collect();
                prop_assert_eq!(&all, &model);
                prop_assert_eq!(set.len(), model.len());
            }
        }
    }
}
