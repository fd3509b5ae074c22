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
    sync::{Arc, Weak},
    time::Duration,
};

/// A listening socket of one shard.
pub(crate) struct ShardListener {
    /// Others hold weak references at most: a listener is closed when its shard says so.
    pub(crate) socket: Arc<Socket>,
    /// A multishot accept is in flight.
    pub(crate) is_armed: bool,
}

impl ShardListener {
    fn of(socket: Socket) -> Self {
        Self {
            socket: Arc::new(socket),
            is_armed: false,
        }
    }
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

    /// References to the TCP sockets that keep none of them open.
    pub(crate) fn tcp(&self) -> Vec<Weak<Socket>> {
        let sockets = self.per_shard.iter().flatten().map(|it| &it.socket);
        let is_tcp = |it: &&Arc<Socket>| tcp_address(it).is_some();
        sockets.filter(is_tcp).map(Arc::downgrade).collect()
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

fn tcp_address(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

fn address_of(socket: &Socket) -> SocketAddr {
    tcp_address(socket).unwrap_or(UNKNOWN)
}

/// Listening sockets that another process had.
#[derive(Default)]
pub(crate) struct Inherited(Vec<(SocketAddr, Socket)>);

impl Inherited {
    /// Takes them over; what is no listening TCP socket is not kept.
    pub(crate) fn of(sockets: Vec<Arc<OwnedFd>>) -> io::Result<Self> {
        let mut kept = Vec::new();
        for socket in sockets {
            let own = Arc::try_unwrap(socket).or_else(|shared| shared.try_clone())?;
            let socket = Socket::from(own);
            let listens = socket.is_listener().unwrap_or(false);
            if let Some(address) = tcp_address(&socket).filter(|_| listens) {
                kept.push((address, socket));
            }
        }
        Ok(Self(kept))
    }

    fn take(&mut self, wanted: SocketAddr) -> Vec<Socket> {
        let all = std::mem::take(&mut self.0);
        let (taken, left) = all.into_iter().partition(|(address, _)| *address == wanted);
        self.0 = left;
        let taken: Vec<(SocketAddr, Socket)> = taken;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }
}

/// Binds every address once per shard, but on those that have an inherited socket of it; a shard may have
/// several of these. Nobody can connect to the others before `listen`. `local` and what of `inherited` is not wanted
/// is given up: a copy that were kept would listen for as long.
pub(crate) fn bind_all(
    wanted: &[SocketAddr],
    local: Option<Arc<UnixListener>>,
    shards: u16,
    mut inherited: Inherited,
) -> Result<Listeners, StartError> {
    let mut per_shard: Vec<Vec<ShardListener>> = (0..shards).map(|_| Vec::new()).collect();
    let mut residence = Residence::default();
    for &address in wanted {
        let mut taken = address;
        let given = inherited.take(address);
        let shards_given = given.len();
        let mut add = |listeners: &mut Vec<ShardListener>, socket: Socket| {
            let found = inode(&socket).map_err(|source| StartError::Bind { address, source })?;
            residence.inodes.push(found);
            listeners.push(ShardListener::of(socket));
            Ok::<(), StartError>(())
        };
        for (index, socket) in given.into_iter().enumerate() {
            add(&mut per_shard[index % usize::from(shards)], socket)?;
        }
        for listeners in per_shard.iter_mut().skip(shards_given) {
            let refused = |source| StartError::Bind {
                address: taken,
                source,
            };
            let socket = bind(taken).map_err(refused)?;
            // The first socket may have taken a free port: all others share that one.
            let bound = socket.local_addr().map_err(refused)?;
            add(listeners, socket)?;
            taken = bound.as_socket().unwrap_or(taken);
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
        listeners.push(ShardListener::of(Socket::from(local.try_clone()?)));
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
        let listeners = bind_all(&wanted, None, 3, Inherited::default()).expect("a free port");
        assert_ne!(listeners.residence.addresses[0].port(), 0);
        for shard in &listeners.per_shard {
            let bound = shard[0].socket.local_addr().expect("bound").as_socket();
            assert_eq!(bound, Some(listeners.residence.addresses[0]));
        }
    }

    #[test]
    fn inherited_sockets_are_dealt_round_and_shards_without_one_bind_their_own() {
        for (theirs, ours, expected) in [
            (2, 2, &[1, 1][..]),
            (1, 3, &[1, 1, 1]),
            (5, 2, &[3, 2]),
            (3, 1, &[3]),
        ] {
            let wanted = ["127.0.0.1:0".parse().expect("an address")];
            let old = bind_all(&wanted, None, theirs, Inherited::default()).expect("a free port");
            old.listen(16).expect("it is ours");
            let address = old.residence.addresses[0];
            let copies = old.copies().expect("copies").into_iter();
            let mut copies: Vec<_> = copies.map(|it| Arc::new(OwnedFd::from(it))).collect();
            // What listens elsewhere, or not at all, is not wanted.
            let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let file = File::open("/dev/null").expect("it is there");
            copies.extend([Arc::new(elsewhere.into()), Arc::new(file.into())]);
            let inherited = Inherited::of(copies).expect("no copy is made");
            let new = bind_all(&[address], None, ours, inherited).expect("shared");
            let counts: Vec<usize> = new.per_shard.iter().map(Vec::len).collect();
            assert_eq!(counts, expected, "{theirs} to {ours}");
            assert_eq!(new.residence.addresses, [address]);
            let of_old = |inode: &&u64| old.residence.inodes.contains(inode);
            let inherited = new.residence.inodes.iter().filter(of_old).count();
            assert_eq!(inherited, usize::from(theirs), "{theirs} to {ours}");
            let all = new.per_shard.iter().flatten();
            let listening = all.filter(|it| it.socket.is_listener().expect("a socket"));
            assert_eq!(listening.count(), usize::from(theirs), "the others wait");
            assert_eq!(new.residence.neighbours(), [], "the old process is none");
        }
    }

    #[test]
    fn an_address_that_is_not_ours_is_named_in_the_error() {
        let wanted = ["192.0.2.1:9".parse().expect("an address")];
        let error = bind_all(&wanted, None, 1, Inherited::default())
            .err()
            .expect("not our address");
        assert!(error.to_string().contains("192.0.2.1:9"), "{error}");
        assert!(!error.to_string().contains("one user"), "{error}");
    }

    #[test]
    fn a_port_that_another_holds_alone_says_who_may_share_one() {
        let alone = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let wanted = [alone.local_addr().expect("bound")];
        let error = bind_all(&wanted, None, 1, Inherited::default())
            .err()
            .expect("it is taken");
        assert!(error.to_string().contains("one user"), "{error}");
    }
}
