//! What proxies in front say of a request, and how far they are believed.
//!
//! Owns: the client's address and scheme behind proxies, and what looks wrong about their headers.
//! May depend on: `http::request`, `connection::{row, upgrade}`.
//! Invariants: without `trust_hops`, or from a peer that is no trusted proxy, no header counts.

use std::net::IpAddr;

use ipnet::IpNet;
use tracing::warn;

use crate::{
    connection::{row::PeerKind, upgrade::Transport},
    http::request::Head,
};

/// How many proxies stand in front, and which peers they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust<'a> {
    pub(super) hops: u32,
    /// Empty = every peer.
    pub(super) proxies: &'a [IpNet],
}

/// A request that does not look as the settings say it would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nobody is trusted, but somebody forwards.
    NotTrusted,
    /// Proxies are trusted, but this request tells of none.
    NoHeader,
    /// It tells of some, but the peer is none of those that are trusted.
    StrangePeer,
}

/// Doubts that were told; each is told once.
#[derive(Clone, Debug, Default)]
pub(super) struct ToldDoubts(Vec<Doubt>);

impl Trust<'_> {
    /// What a local peer forwards is believed, since only who may write to the socket's file is one.
    fn believes(self, peer: PeerKind) -> bool {
        let PeerKind::Address(peer) = peer else {
            return true;
        };
        let peer = peer.to_canonical();
        let is_trusted = || self.proxies.iter().any(|net| net.contains(&peer));
        self.hops > 0 && (self.proxies.is_empty() || is_trusted())
    }

    /// A local proxy is one, whether others are trusted or not.
    fn hops_from(self, peer: PeerKind) -> usize {
        self.hops.max(u32::from(peer == PeerKind::Local)) as usize
    }

    /// The address that a limiter counts: the peer's, or what trusted proxies say of it.
    pub(super) fn address(self, head: &Head<'_>, peer: PeerKind) -> (IpAddr, Option<Doubt>) {
        let is_forwarded = !head.x_forwarded_for.is_empty() || head.x_real_ip.is_some();
        if !self.believes(peer) {
            let doubt = match self.hops {
                0 => Doubt::NotTrusted,
                _ => Doubt::StrangePeer,
            };
            return (peer.address(), is_forwarded.then_some(doubt));
        }
        let parse = |text: &str| text.trim().parse().ok().map(|ip: IpAddr| ip.to_canonical());
        let forwarded = head.forwarded_entry(self.hops_from(peer)).and_then(parse);
        match forwarded.or_else(|| head.x_real_ip.and_then(parse)) {
            Some(address) => (address, None),
            None => (peer.address(), Some(Doubt::NoHeader)),
        }
    }

    /// Where this server itself speaks no TLS, a trusted proxy has to say so.
    pub(super) fn transport(
        self,
        head: &Head<'_>,
        peer: Option<PeerKind>,
        speaks_tls: bool,
    ) -> Transport {
        if speaks_tls {
            return Transport::Tls;
        }
        let Some(peer) = peer.filter(|peer| self.believes(*peer)) else {
            return Transport::Plain;
        };
        match head.forwarded_proto(self.hops_from(peer)) {
            // Traefik says "wss" of a WebSocket.
            Some(scheme)
                if scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss") =>
            {
                Transport::Tls
            }
            _ => Transport::Plain,
        }
    }
}

impl ToldDoubts {
    /// Says what looks wrong, the first time.
    pub(super) fn tell(&mut self, doubt: Doubt, peer: IpAddr) {
        if self.0.contains(&doubt) {
            return;
        }
        self.0.push(doubt);
        let what = match doubt {
            Doubt::NotTrusted => {
                "a request came with X-Forwarded-For or X-Real-IP, but trust_hops is 0: if a proxy \
                 sent it, all its clients count as one address"
            }
            Doubt::NoHeader => {
                "a request came without the X-Forwarded-For that trust_hops expects: its peer's \
                 address was counted; does the proxy set the header, or did a client come past it?"
            }
            Doubt::StrangePeer => {
                "a request with X-Forwarded-For came from a peer that is not among \
                 rate_limiter.trusted_proxies: the peer's own address was counted"
            }
        };
        warn!(%peer, "limits by address: {what}; said once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::parse_head;

    fn trust(hops: u32, proxies: &[&str]) -> (u32, Vec<IpNet>) {
        let proxies = proxies.iter().map(|net| net.parse().expect("a network"));
        (hops, proxies.collect())
    }

    fn peer_of(text: &str) -> PeerKind {
        match text {
            "local" => PeerKind::Local,
            address => PeerKind::Address(address.parse().expect("an address")),
        }
    }

    #[test]
    fn only_as_many_hops_as_are_trusted_and_only_trusted_peers_are_believed() {
        let forwarded = "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n";
        for (hops, proxies, peer, headers, address, doubt) in [
            (0, &[][..], "9.9.9.9", "", "9.9.9.9", None),
            (
                0,
                &[],
                "9.9.9.9",
                forwarded,
                "9.9.9.9",
                Some(Doubt::NotTrusted),
            ),
            (
                0,
                &[],
                "9.9.9.9",
                "X-Real-IP: 1.1.1.1\r\n",
                "9.9.9.9",
                Some(Doubt::NotTrusted),
            ),
            (1, &[], "9.9.9.9", forwarded, "2.2.2.2", None),
            (2, &[], "9.9.9.9", forwarded, "1.1.1.1", None),
            (
                3,
                &[],
                "9.9.9.9",
                forwarded,
                "9.9.9.9",
                Some(Doubt::NoHeader),
            ),
            (1, &[], "9.9.9.9", "", "9.9.9.9", Some(Doubt::NoHeader)),
            (1, &[], "9.9.9.9", "X-Real-IP: 1.1.1.1\r\n", "1.1.1.1", None),
            (1, &["9.0.0.0/8"], "9.9.9.9", forwarded, "2.2.2.2", None),
            // As a dual-stack listener sees the same proxy.
            (
                1,
                &["9.0.0.0/8"],
                "::ffff:9.9.9.9",
                forwarded,
                "2.2.2.2",
                None,
            ),
            (
                1,
                &["8.0.0.0/8"],
                "9.9.9.9",
                forwarded,
                "9.9.9.9",
                Some(Doubt::StrangePeer),
            ),
            (1, &["8.0.0.0/8"], "9.9.9.9", "", "9.9.9.9", None),
            (
                1,
                &[],
                "9.9.9.9",
                "X-Forwarded-For: ::ffff:1.1.1.1\r\n",
                "1.1.1.1",
                None,
            ),
            (
                1,
                &[],
                "9.9.9.9",
                "X-Forwarded-For: unknown\r\n",
                "9.9.9.9",
                Some(Doubt::NoHeader),
            ),
            // Over the Unix socket, whatever is trusted.
            (0, &["8.0.0.0/8"], "local", forwarded, "2.2.2.2", None),
            // Whom a header named so is not that.
            (0, &[], "::", forwarded, "::", Some(Doubt::NotTrusted)),
            (
                1,
                &["8.0.0.0/8"],
                "::",
                forwarded,
                "::",
                Some(Doubt::StrangePeer),
            ),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            let head = parse_head(bytes.as_bytes()).expect("valid").expect("whole");
            let (hops, proxies) = trust(hops, proxies);
            let trust = Trust {
                hops,
                proxies: &proxies,
            };
            let found = trust.address(&head, peer_of(peer));
            let expected = (address.parse().expect("an address"), doubt);
            assert_eq!(found, expected, "{trust:?} {peer} {headers:?}");
        }
    }

    #[test]
    fn a_connection_counts_as_encrypted_when_a_trusted_proxy_says_so() {
        for (hops, proxies, headers, expected) in [
            (0, &[][..], "X-Forwarded-Proto: https\r\n", Transport::Plain),
            (1, &[], "X-Forwarded-Proto: https\r\n", Transport::Tls),
            (1, &[], "X-Forwarded-Proto: WSS\r\n", Transport::Tls),
            (1, &[], "X-Forwarded-Proto: http\r\n", Transport::Plain),
            (1, &[], "", Transport::Plain),
            (
                1,
                &["8.0.0.0/8"],
                "X-Forwarded-Proto: https\r\n",
                Transport::Plain,
            ),
            (
                1,
                &["9.0.0.0/8"],
                "X-Forwarded-Proto: https\r\n",
                Transport::Tls,
            ),
            // The client's own word stands before the nearest proxy's.
            (
                1,
                &[],
                "X-Forwarded-Proto: https, http\r\n",
                Transport::Plain,
            ),
            (2, &[], "X-Forwarded-Proto: https, http\r\n", Transport::Tls),
            (
                1,
                &[],
                "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
                Transport::Plain,
            ),
            // Two proxies, the nearer one of which wrote over what the other said.
            (2, &[], "X-Forwarded-Proto: https\r\n", Transport::Tls),
        ] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            let head = parse_head(bytes.as_bytes()).expect("valid").expect("whole");
            let (hops, proxies) = trust(hops, proxies);
            let trust = Trust {
                hops,
                proxies: &proxies,
            };
            let peer = peer_of("9.9.9.9");
            let found = trust.transport(&head, Some(peer), false);
            assert_eq!(found, expected, "{trust:?} {headers:?}");
        }
    }

    #[test]
    fn a_doubt_is_told_once() {
        let mut told = ToldDoubts::default();
        let peer = "9.9.9.9".parse().expect("an address");
        for _ in 0..3 {
            told.tell(Doubt::NoHeader, peer);
            told.tell(Doubt::NotTrusted, peer);
        }
        assert_eq!(told.0, [Doubt::NoHeader, Doubt::NotTrusted]);
    }
}
