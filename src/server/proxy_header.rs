//! Connections of proxies that say first whose they are.
//!
//! Owns: which connections must begin with a PROXY header, and what follows a wrong one.
//! May depend on: `http::proxy_header`, `connection::row`, `config`.
//! Invariants: nobody's header is read but a trusted proxy's, and nothing of a trusted proxy's
//! connection is before its header is whole; whom it names counts as the peer in all that follows.

use shards::{application::Slot, work::Work};
use tracing::debug;

use super::{ServerTurn, ShardServer};
use crate::{
    config::sections::ProxyProtocol,
    connection::row::{Awaited, PeerKind, State},
    http::proxy_header::{ProxyHeaderError, parse_proxy_header},
};

/// Columns of `proxy_header_failures`.
const LATE: usize = 0;
const MISSING: usize = 1;
const MALFORMED: usize = 2;
const TOO_LONG: usize = 3;

impl ShardServer {
    /// What is expected first of a connection that comes now.
    pub(super) fn state_of_newcomer(&self, peer: Option<PeerKind>) -> State {
        match (self.settings.proxy_protocol, peer) {
            (ProxyProtocol::V1V2, Some(peer)) if self.is_trusted_proxy(peer) => State::ProxyHeader,
            (ProxyProtocol::Off | ProxyProtocol::V1V2, _) => State::Http(Awaited::Rest),
        }
    }

    fn is_trusted_proxy(&self, peer: PeerKind) -> bool {
        let PeerKind::Address(peer) = peer else {
            return true;
        };
        let peer = peer.to_canonical();
        let mut proxies = self.settings.trusted_proxies.iter();
        proxies.any(|net| net.contains(&peer))
    }

    /// Takes the header at the start of `bytes`; returns its length, 0 while it is not whole.
    pub(super) fn take_proxy_header(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        bytes: &[u8],
    ) -> usize {
        turn.spend(Work::TEXT);
        match parse_proxy_header(bytes) {
            Ok(None) => 0,
            Ok(Some(header)) => {
                let rare = self.held(slot).rare.as_ref();
                let is_local = rare.and_then(|rare| rare.peer) == Some(PeerKind::Local);
                self.held(slot).on_proxy_header(header.source);
                // The header itself is never sealed; what follows it is, where the port has TLS.
                let rest = bytes.get(header.bytes..).unwrap_or_default();
                if !is_local && turn.begin_tls(slot, rest) {
                    bytes.len()
                } else {
                    header.bytes
                }
            }
            Err(error) => {
                let column = match error {
                    ProxyHeaderError::Missing => MISSING,
                    ProxyHeaderError::Malformed(_) => MALFORMED,
                    ProxyHeaderError::TooLong { .. } => TOO_LONG,
                };
                debug!(%error, "a proxy's connection is closed");
                self.refuse_proxy(turn, slot, column);
                bytes.len()
            }
        }
    }

    /// The header did not come in time.
    pub(super) fn refuse_late_proxy(&mut self, turn: &mut impl ServerTurn, slot: Slot) {
        self.refuse_proxy(turn, slot, LATE);
    }

    // Without an answer: nothing was asked, and a proxy would pass it on to a client.
    fn refuse_proxy(&mut self, turn: &mut impl ServerTurn, slot: Slot, column: usize) {
        self.counters.proxy_header_failures[column] += 1;
        self.end(turn, slot);
    }
}
