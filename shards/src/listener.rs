//! Listening sockets: one per shard and address, all on the same port; one Unix socket for all.
//!
//! Owns: how a listener is made.
//! May depend on: socket2, `error`.
//! Invariants: all shards of a node listen on the same addresses; accepted sockets inherit
//! `TCP_NODELAY` and keep-alive, so that accepting costs no further system call.

use crate::{error::StartError, neighbours::Residence};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    os::unix::{fs::MetadataExt, net::UnixListener},
    sync::Arc,
    time::Duration,
};

/// A listening socket of one shard.
pub(crate) struct ShardListener {
    pub(crate) socket: Socket,
    /// A multishot accept is in flight.
    pub(crate) is_armed: bool,
}

/// The listeners of a node.
pub(crate) struct Listeners {
    /// Per shard, one per address.
    pub(crate) per_shard: Vec<Vec<ShardListener>>,
    pub(crate) residence: Residence,
}

/// Idle time after which the kernel probes a peer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

impl Listeners {
    /// Takes part in what comes to the addresses from now on.
    pub(crate) fn listen(&self, backlog: u32) -> Result<(), StartError> {
        for listener in self.per_shard.iter().flatten() {
            listen(&listener.socket, backlog).map_err(|source| StartError::Bind {
                address: address_of(&listener.socket),
                source,
            })?;
        }
        Ok(())
    }

    /// The same sockets again, for who lets them listen later.
    pub(crate) fn copies(&self) -> io::Result<Vec<Socket>> {
        let sockets = self.per_shard.iter().flatten();
        sockets.map(|it| it.socket.try_clone()).collect()
    }
}

pub(crate) fn listen(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

fn address_of(socket: &Socket) -> SocketAddr {
    let address = socket.local_addr().ok().and_then(|it| it.as_socket());
    address.unwrap_or(UNKNOWN)
}

/// Binds every address once per shard. Nobody can connect before `listen`. `local` is given up: a copy that
/// were kept would listen for as long.
pub(crate) fn bind_all(
    wanted: &[SocketAddr],
    local: Option<Arc<UnixListener>>,
    shards: u16,
) -> Result<Listeners, StartError> {
    let mut per_shard: Vec<Vec<ShardListener>> = (0..shards).map(|_| Vec::new()).collect();
    let mut residence = Residence::default();
    for &address in wanted {
        let mut taken = address;
        for listeners in &mut per_shard {
            let asked = taken;
            let refused = |source| StartError::Bind {
                address: asked,
                source,
            };
            let socket = bind(taken).map_err(refused)?;
            // The first socket may have taken a free port: all others share that one.
            let bound = socket.local_addr().map_err(refused)?;
            taken = bound.as_socket().unwrap_or(taken);
            residence.inodes.push(inode(&socket).map_err(refused)?);
            listeners.push(ShardListener {
                socket,
                is_armed: false,
            });
        }
        residence.addresses.push(taken);
    }
    if let Some(local) = local {
        let shared = share(&local, &mut per_shard);
        shared.map_err(|source| StartError::System {
            what: "a copy of the Unix socket",
            source,
        })?;
    }
    Ok(Listeners {
        per_shard,
        residence,
    })
}

/// Gives each shard its own descriptor of one socket: whichever is idle accepts.
fn share(local: &UnixListener, per_shard: &mut [Vec<ShardListener>]) -> io::Result<()> {
    for listeners in per_shard {
        listeners.push(ShardListener {
            socket: Socket::from(local.try_clone()?),
            is_armed: false,
        });
    }
    Ok(())
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Blocking on purpose: an io_uring receive on a non-blocking socket would not wait.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != std::net::Ipv6Addr::UNSPECIFIED)?;
    }
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    socket.set_tcp_keepalive(&keepalive.with_interval(KEEPALIVE_INTERVAL))?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// What the kernel's tables call the socket.
fn inode(socket: &Socket) -> io::Result<u64> {
    let copy = File::from(OwnedFd::from(socket.try_clone()?));
    Ok(copy.metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_becomes_one_port_for_all_shards() {
        let wanted = ["127.0.0.1:0".parse().expect("an address")];
        let listeners = bind_all(&wanted, None, 3).expect("a free port");
        assert_ne!(listeners.residence.addresses[0].port(), 0);
        for shard in &listeners.per_shard {
            let bound = shard[0].socket.local_addr().expect("bound").as_socket();
            assert_eq!(bound, Some(listeners.residence.addresses[0]));
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_named_in_the_error() {
        let wanted = ["192.0.2.1:9".parse().expect("an address")];
        let error = bind_all(&wanted, None, 1).err().expect("not our address");
        assert!(error.to_string().contains("192.0.2.1:9"), "{error}");
        assert!(!error.to_string().contains("one user"), "{error}");
    }

    #[test]
    fn a_port_that_another_holds_alone_says_who_may_share_one() {
        let alone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let wanted = [alone.local_addr().expect("bound")];
        let error = bind_all(&wanted, None, 1).err().expect("it is taken");
        assert!(error.to_string().contains("one user"), "{error}");
    }
}
