//! Where webhooks may go.
//!
//! Owns: `TargetPolicy` and the resolver that lets no other address through.
//! May depend on: `ipnet`, tokio's resolver, reqwest's resolver trait.
//! Invariants: the check is made on the very addresses that are connected to, so a name that
//! resolves differently a second time gains nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::config::sections::Targets;

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

    /// Whether a webhook may go to `address`.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = unwrapped(address);
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        is_in(&self.allow) || !is_in(&self.deny)
    }
}

/// The address that is really reached: a denied network must not be reachable under another
/// spelling (`::ffff:169.254.169.254`, NAT64's `64:ff9b::a9fe:a9fe`, `0.0.0.0` for loopback).
fn unwrapped(address: IpAddr) -> IpAddr {
    if address.is_unspecified() {
        return Ipv4Addr::LOCALHOST.into();
    }
    let IpAddr::V6(v6) = address.to_canonical() else {
        return address.to_canonical();
    };
    let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0).segments();
    let segments = v6.segments();
    if segments[..6] == nat64[..6] {
        let [.., a, b, c, d] = v6.octets();
        return IpAddr::from([a, b, c, d]);
    }
    address
}

/// Why a name has no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("{0} resolves to addresses that webhooks.targets denies")]
    Denied(String),
    #[error("{0} has no address")]
    Nothing(String),
}

/// Resolves names with the host's resolver and drops what the policy does not permit.
#[derive(Clone, Debug)]
pub struct GuardedResolver {
    pub policy: Arc<TargetPolicy>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            if found.is_empty() {
                return Err(ResolveError::Nothing(host.to_owned()).into());
            }
            let permitted: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| policy.permits(address.ip()))
                .collect();
            if permitted.is_empty() {
                return Err(ResolveError::Denied(host.to_owned()).into());
            }
            let permitted: Addrs = Box::new(permitted.into_iter());
            Ok(permitted)
        })
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
        ] {
            let address: IpAddr = address.parse().expect("address");
            assert_eq!(policy.permits(address), permitted, "{address}");
        }
    }
}
