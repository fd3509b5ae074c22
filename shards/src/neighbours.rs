//! Other processes that listen where this node does.
//!
//! Owns: which listeners of the network namespace are not ours, and whose they are.
//! May depend on: std. Only the bridge's thread calls it, and a start that fails: it reads `/proc`.
//! Invariants: a listener of ours is never taken for another's; what is read grows with the
//! listeners, not with the connections; nothing here needs a right.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Somebody else's listener on a port of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose it is; `None` = of another user, or gone already.
    pub process: Option<Process>,
}

/// A process of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name as the kernel has it, without arguments.
    pub command: String,
}

/// Where this node listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Residence {
    /// The addresses with the ports really taken.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Of all listeners of ours.
    pub(crate) inodes: Vec<u64>,
}

impl Residence {
    /// Listeners of others that share connections with ours, or whose address holds ours or is
    /// held by it. One per address and process.
    pub(crate) fn neighbours(&self) -> Vec<Neighbour> {
        let meets = |other: &Listener| {
            let mut ours = self.addresses.iter();
            ours.any(|own| covers(other.address, *own) || covers(*own, other.address))
        };
        owners_of(self.others().filter(meets))
    }

    /// Whether all that ours give up would go to another process.
    pub(crate) fn is_succeeded(&self) -> bool {
        let others: Vec<Listener> = self.others().collect();
        is_succeeded(&self.addresses, &others)
    }

    fn others(&self) -> impl Iterator<Item = Listener> {
        let ours = |listener: &Listener| self.inodes.contains(&listener.inode);
        ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
            .into_iter()
            .filter_map(|path| File::open(path).ok())
            .flat_map(|file| listeners(BufReader::new(file)))
            .filter(move |listener| !ours(listener))
    }
}

/// Who listens on an address, or on one that holds it or is held by it: what keeps another from having it.
pub fn holders_of(address: SocketAddr) -> Vec<Neighbour> {
    let everywhere = Residence::default();
    // A listener on all of IPv6 mostly has all of IPv4, too.
    let meets = |other: SocketAddr| {
        let is_any = other.ip().is_unspecified() || address.ip().is_unspecified();
        other.port() == address.port() && (is_any || other.ip() == address.ip())
    };
    let rivals = everywhere.others().filter(|it| meets(it.address));
    owners_of(rivals.take(HOLDERS_MAX))
}

/// Whose they are: one per address and process.
fn owners_of(listeners: impl Iterator<Item = Listener>) -> Vec<Neighbour> {
    let mut found: Vec<Neighbour> = Vec::new();
    for listener in listeners {
        let neighbour = Neighbour {
            address: listener.address,
            process: owner_of(listener.inode),
        };
        if !found.contains(&neighbour) {
            found.push(neighbour);
        }
    }
    found
}

/// More listeners of one port are one server with many threads.
const HOLDERS_MAX: usize = 8;

/// The same as part of a sentence: "sockudo (pid 12) on 0.0.0.0:6001".
pub fn holders_told(address: SocketAddr) -> Option<String> {
    let told = |holder: &Neighbour| match &holder.process {
        Some(it) => format!("{} (pid {}) on {}", it.command, it.pid, holder.address),
        None => format!("a process of another user on {}", holder.address),
    };
    let all: Vec<String> = holders_of(address).iter().map(told).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// A row of the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    inode: u64,
}

fn is_succeeded(ours: &[SocketAddr], others: &[Listener]) -> bool {
    let has_heir = |own: &SocketAddr| others.iter().any(|it| covers(it.address, *own));
    !ours.is_empty() && ours.iter().all(has_heir)
}

/// Whether a listener on `wide` gets what comes to `narrow` when nobody else does.
fn covers(wide: SocketAddr, narrow: SocketAddr) -> bool {
    let is_any = wide.ip().is_unspecified() && wide.is_ipv4() == narrow.is_ipv4();
    wide.port() == narrow.port() && (wide.ip() == narrow.ip() || is_any)
}

// The kernel writes all listeners before it writes the first connection (tcp_seek_last_pos in
// net/ipv4/tcp_ipv4.c), so a node with 50 000 connections reads a few lines.
fn listeners(table: impl BufRead) -> Vec<Listener> {
    let rows = table.lines().map_while(Result::ok).skip(1);
    rows.map_while(|row| listener(&row)).collect()
}

/// `None` when the row is of no listener.
fn listener(row: &str) -> Option<Listener> {
    let mut fields = row.split_ascii_whitespace();
    let (host, port) = fields.nth(1)?.split_once(':')?;
    // The remote address stands before the state.
    let is_listening = fields.nth(1)? == LISTEN;
    let address = SocketAddr::new(ip(host)?, u16::from_str_radix(port, 16).ok()?);
    let inode = fields.nth(5)?.parse().ok()?;
    is_listening.then_some(Listener { address, inode })
}

/// The state's number in the table.
const LISTEN: &str = "0A";

/// Words of 32 bits, each as this machine has it in memory.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// The process that holds a socket, if we may see it.
fn owner_of(inode: u64) -> Option<Process> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.find(|pid| holds(*pid, &wanted))?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Process {
        pid,
        command: command.trim_end().to_owned(),
    })
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .take(FILES_SEEN_MAX)
        .filter_map(Result::ok)
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str() == socket)
}

/// Of one process. Listeners are opened early, so they are among the first of many thousand.
const FILES_SEEN_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Inherited, bind_all};
    use std::net::TcpListener;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_table_gives_listeners_up_to_the_first_connection() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";
        let row = |local: &str, state: &str, inode: u64| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  \
                 1000        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
            )
        };
        let table = [
            head.to_owned(),
            row("0100007F:1771", "0A", 7),
            row("00000000000000000000000001000000:2329", "0A", 8),
            row("0100007F:1771", "01", 9),
            row("00000000:1771", "0A", 10),
        ];
        let found = listeners(table.concat().as_bytes());
        let expected = [("127.0.0.1:6001", 7), ("[::1]:9001", 8)];
        let expected = expected.map(|(address, inode)| Listener {
            address: address.parse().expect("an address"),
            inode,
        });
        assert_eq!(found, expected);
        for broken in [
            "",
            "   0: 0100007F",
            "   0: 01:1 00000000:0000 0A 0 0 0 0 0 x",
        ] {
            assert_eq!(listener(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn who_holds_a_port_is_told_with_process_and_address() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(host) else {
                continue; // A host without IPv6.
            };
            let address = listener.local_addr().expect("it is bound");
            let told = holders_told(address).expect("it is ours");
            let pid = std::process::id();
            assert!(
                told.contains(&format!("(pid {pid}) on {address}")),
                "{told}"
            );
        }
    }

    #[test]
    fn a_node_is_succeeded_when_each_of_its_addresses_has_another_listener() {
        for (ours, others, expected) in [
            (&["10.0.0.1:6001"][..], &["10.0.0.1:6001"][..], true),
            (&["10.0.0.1:6001"], &["0.0.0.0:6001"], true),
            (&["10.0.0.1:6001"], &["10.0.0.2:6001"], false),
            (&["10.0.0.1:6001"], &["10.0.0.1:6002"], false),
            (&["0.0.0.0:6001"], &["10.0.0.1:6001"], false),
            (&["0.0.0.0:6001"], &["[::]:6001"], false),
            (&["0.0.0.0:6001", "[::1]:6001"], &["0.0.0.0:6001"], false),
            (
                &["0.0.0.0:6001", "[::1]:6001"],
                &["0.0.0.0:6001", "[::1]:6001"],
                true,
            ),
            (&["10.0.0.1:6001"], &[], false),
            (&[], &["10.0.0.1:6001"], false),
        ] {
            let parsed = |text: &&str| text.parse::<SocketAddr>().expect("an address");
            let others: Vec<Listener> = others
                .iter()
                .map(|text| Listener {
                    address: parsed(text),
                    inode: 1,
                })
                .collect();
            let addresses: Vec<SocketAddr> = ours.iter().map(parsed).collect();
            assert_eq!(is_succeeded(&addresses, &others), expected, "{ours:?}");
        }
    }

    #[test]
    fn another_listener_on_our_port_is_seen_with_its_process_and_our_own_are_not() {
        let wanted = ["127.0.0.1:0".parse().expect("an address")];
        let ours = bind_all(&wanted, None, 3, Inherited::default()).expect("a free port");
        ours.listen(16).expect("it is ours");
        assert_eq!(ours.residence.inodes.len(), 3);
        assert_eq!(ours.residence.neighbours(), []);
        assert!(!ours.residence.is_succeeded());
        let theirs =
            bind_all(&ours.residence.addresses, None, 2, Inherited::default()).expect("shared");
        assert!(
            !ours.residence.is_succeeded(),
            "bound, and not listening yet"
        );
        theirs.listen(16).expect("shared");
        let neighbours = ours.residence.neighbours();
        assert_eq!(neighbours.len(), 1, "two listeners of one process");
        assert_eq!(neighbours[0].address, ours.residence.addresses[0]);
        let process = neighbours[0].process.as_ref().expect("it is this one");
        assert_eq!(process.pid, std::process::id());
        assert!(!process.command.is_empty());
        assert!(ours.residence.is_succeeded());
        drop(theirs);
        assert!(!ours.residence.is_succeeded());
        let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
        assert_eq!(ours.residence.neighbours(), [], "{elsewhere:?}");
    }
}
