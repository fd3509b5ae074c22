//! Peers that have not shown what they are: how long one may take for its first request.
//!
//! Owns: that time.
//! May depend on: `server` for its counts and settings.
//! Invariants: however many say nothing, once they hold most of the places that WebSockets leave,
//! whoever comes then and says nothing holds its place for a second at most; who came before has its
//! usual time.

use super::ShardServer;

impl ShardServer {
    /// Milliseconds that a connection which comes now has for its first request.
    pub(super) fn first_request_ms(&self) -> u64 {
        let websockets = self.counters.websockets;
        let places = Places {
            all: self.settings.sockets_max / u64::from(self.shards),
            websockets,
            strangers: self.connections_held.saturating_sub(websockets),
        };
        first_request_ms(self.settings.handshake_timeout_ms, places)
    }
}

/// The places of one shard.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// For connections of any kind.
    all: u64,
    /// Taken by WebSockets.
    websockets: u64,
    /// Taken by others.
    strangers: u64,
}

fn first_request_ms(usual_ms: u64, places: Places) -> u64 {
    let left = places.all.saturating_sub(places.websockets);
    let is_crowded = places.strangers > left - left / 8;
    if is_crowded {
        usual_ms.min(CROWDED_MS)
    } else {
        usual_ms
    }
}

/// Enough for whoever means it.
const CROWDED_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_on_most_of_the_free_places_leave_a_newcomer_a_second() {
        for (all, websockets, strangers, usual_ms, expected_ms) in [
            (800, 0, 1, 10_000, 10_000),
            (800, 0, 700, 10_000, 10_000),
            (800, 0, 701, 10_000, 1_000),
            (800, 0, 701, 400, 400),
            (800, 720, 70, 10_000, 10_000),
            (800, 720, 71, 10_000, 1_000),
            (800, 800, 1, 10_000, 1_000),
            (800, 900, 1, 10_000, 1_000),
            (u64::MAX, 0, 2_000_000, 10_000, 10_000),
        ] {
            let places = Places {
                all,
                websockets,
                strangers,
            };
            let within_ms = first_request_ms(usual_ms, places);
            assert_eq!(within_ms, expected_ms, "{places:?}");
        }
    }
}
