//! Where webhooks may go.
//!
//! Owns: `TargetPolicy` and the resolver that lets no other address through.
//! May depend on: `ipnet`, tokio's resolver.
//! Invariants: the check is made on the very addresses that are connected to, so a name that
//! resolves differently a second time gains nothing.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::config::sections::Targets;
use ipnet::IpNet;

/// Which addresses webhooks may go to: `allow` wins over `deny`, and what is in neither is allowed.
#[derive(Debug)]
pub struct TargetPolicy {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
}

impl TargetPolicy {
    pub fn of(targets: &Targets) -> Self {
        Self {
            deny: targets.deny.clone(),
            allow: targets.allow.clone(),
        }
    }

    /// Whether a webhook may go to `address`, and to everything that is reached under it.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.allow.iter().any(|net| net.contains(&address)) {
            return true;
        }
        let is_in = |nets: &[IpNet], it: &IpAddr| nets.iter().any(|net| net.contains(it));
        let mut reached = reached(address).into_iter().chain([address]);
        reached.all(|it| is_in(&self.allow, &it) || !is_in(&self.deny, &it))
    }
}

/// The addresses that a host or a gateway may really connect to: a denied network must not be
/// reachable under another spelling.
fn reached(address: IpAddr) -> Vec<IpAddr> {
    if address.is_unspecified() {
        // Linux connects to itself.
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let IpAddr::V6(v6) = address else {
        return Vec::new();
    };
    let bytes = v6.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| bytes[place]));
    let last = at([12, 13, 14, 15]);
    let found: Vec<Ipv4Addr> = match v6.segments() {
        // IPv4-compatible, but for ::1 (RFC 4291, 2.5.5.1); IPv4-translated (RFC 2765, 2.1).
        [0, 0, 0, 0, 0, 0, ..] if !v6.is_loopback() => vec![last],
        [0, 0, 0, 0, 0xffff, 0, ..] => vec![last],
        // NAT64 (RFC 6052, 2.1), and its prefix for local use (RFC 8215), which may be cut into
        // longer ones: then the address stands elsewhere, around an octet of zeros (RFC 6052, 2.2).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        [0x64, 0xff9b, 1, ..] => {
            let cut = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]].map(at);
            let cut = cut.into_iter().filter(|it| !it.is_unspecified());
            cut.chain([last]).collect()
        }
        // 6to4 (RFC 3056, 2).
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Teredo (RFC 4380, 4): its server, and the client with all bits turned.
        [0x2001, 0, ..] => vec![at([4, 5, 6, 7]), Ipv4Addr::from_bits(!last.to_bits())],
        // ISATAP (RFC 5214, 6.1), in any network.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![last],
        _ => Vec::new(),
    };
    found
        .into_iter()
        .flat_map(|it| match it.is_unspecified() {
            true => vec![it, Ipv4Addr::LOCALHOST],
            false => vec![it],
        })
        .map(IpAddr::from)
        .collect()
}

/// Why a name has no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{0} resolves to addresses that webhooks.targets denies")]
    Denied(String),
    #[error("{0} has no address")]
    Nothing(String),
    #[error("{0} has no address: {1}")]
    Failed(String, io::Error),
}

/// Addresses of a name by the host's resolver, without those that the policy does not permit.
pub(super) async fn resolve(
    policy: &TargetPolicy,
    host: &str,
    port: u16,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> = found
        .map_err(|error| ResolveError::Failed(host.to_owned(), error))?
        .collect();
    if found.is_empty() {
        return Err(ResolveError::Nothing(host.to_owned()));
    }
    let permitted = found.into_iter().filter(|it| policy.permits(it.ip()));
    let permitted: Vec<SocketAddr> = permitted.collect();
    match permitted.is_empty() {
        true => Err(ResolveError::Denied(host.to_owned())),
        false => Ok(permitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_network_is_denied_in_every_spelling_and_allow_wins() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().expect("net")).collect();
        let policy = TargetPolicy {
            deny: nets(&["169.254.0.0/16", "fe80::/10", "127.0.0.1/32"]),
            allow: nets(&["169.254.7.0/24"]),
        };
        for (address, permitted) in [
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::a9fe:a9fe", false),
            ("fe80::1", false),
            ("169.254.7.9", true),
            ("0.0.0.0", false),
            ("::", false),
            ("127.1.0.1", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("169.255.0.1", true),
            // IPv4-compatible, IPv4-translated.
            ("::169.254.169.254", false),
            ("::169.254.7.9", true),
            ("::ffff:0:169.254.169.254", false),
            // NAT64's own prefix, and the one for local use with prefixes of 96, 64, 56, 48 bits.
            ("64:ff9b::169.255.0.1", true),
            ("64:ff9b:1::169.254.169.254", false),
            ("64:ff9b:1:abcd:a9:fea9:fe00:0", false),
            ("64:ff9b:1:aba9:fe:a9fe::", false),
            ("64:ff9b:1:a9fe:a9:fe00::", false),
            ("64:ff9b:1::169.255.0.1", true),
            ("64:ff9b:2::169.254.169.254", true),
            // 6to4.
            ("2002:a9fe:a9fe::1", false),
            ("2002:a9ff:1::1", true),
            ("2002:0:0::1", false),
            // Teredo: the server, the client.
            ("2001:0:a9fe:a9fe::", false),
            ("2001:0:5ef5:79fd:0:0:5601:5601", false),
            ("2001:0:a9fe:709:0:0:5601:5601", false),
            ("2001:0:5ef5:79fd:0:0:5600:fffe", true),
            ("2001:1::5601:5601", true),
            // ISATAP.
            ("2001:db8::5efe:169.254.169.254", false),
            ("2001:db8::200:5efe:169.254.169.254", false),
            ("2001:db8::5efe:169.254.7.9", true),
            ("2001:db8::1", true),
        ] {
            let address: IpAddr = address.parse().expect("address");
            assert_eq!(policy.permits(address), permitted, "{address}");
        }
    }

    #[test]
    fn a_network_that_is_allowed_as_written_is_allowed_whatever_it_leads_to() {
        let net = |text: &str| vec![text.parse().expect("net")];
        let policy = TargetPolicy {
            deny: net("0.0.0.0/0"),
            allow: net("64:ff9b::/96"),
        };
        for (address, permitted) in [("64:ff9b::10.0.0.1", true), ("64:ff9b:1::10.0.0.1", false)] {
            let address: IpAddr = address.parse().expect("address");
            assert_eq!(policy.permits(address), permitted, "{address}");
        }
    }
}
