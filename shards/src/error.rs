//! Why the runtime could not start, and what to do about it.
//!
//! Owns: `StartError`; the reading of the facts that explain a refused io_uring or address.
//! May depend on: `config`, `neighbours`, libc.
//! Invariants: every variant names what is wrong, what is needed, and where to change it.

use crate::{config::ConfigError, neighbours::holders_told};
use std::{fs, io, net::SocketAddr};
use thiserror::Error;

/// The runtime could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel is too old.
    #[error("kernel {found} is too old: 6.1 or newer is needed (io_uring deferred task work)")]
    KernelTooOld {
        /// What `uname -r` says.
        found: String,
    },
    /// The kernel does not know io_uring, or a filter says so.
    #[error(
        "io_uring is not there (ENOSYS): the kernel was built without CONFIG_IO_URING, or a \
         seccomp filter hides it; with containers use a profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register"
    )]
    RingMissing,
    /// The administrator turned io_uring off.
    #[error(
        "io_uring is forbidden by kernel.io_uring_disabled = {setting}: set it to 0 \
         (`sysctl -w kernel.io_uring_disabled=0`), or 1 with this user in kernel.io_uring_group"
    )]
    RingDisabled {
        /// The sysctl's value.
        setting: String,
    },
    /// A filter forbids io_uring.
    #[error(
        "io_uring is forbidden (EPERM) though kernel.io_uring_disabled is {setting}: a seccomp \
         filter or security module refuses io_uring_setup; with Docker or Podman use a seccomp \
         profile that allows io_uring, with systemd add io_uring_setup, io_uring_enter and \
         io_uring_register to SystemCallFilter (systemd/sockudo.service)"
    )]
    RingFiltered {
        /// The sysctl's value.
        setting: String,
    },
    /// Not enough memory may be locked.
    #[error(
        "the rings need more locked memory than RLIMIT_MEMLOCK = {limit_bytes} bytes allow: \
         set LimitMEMLOCK=8M (systemd) or `ulimit -l 8192`"
    )]
    LockedMemory {
        /// The soft limit, after raising it as far as we may.
        limit_bytes: u64,
    },
    /// Any other failure of io_uring.
    #[error("io_uring could not be set up")]
    Ring(#[source] io::Error),
    /// An address could not be listened on.
    #[error("cannot listen on {address}: {source}{}", advice(*address, source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The wanted core may not be used.
    #[error("bridge core {core} may not be used: allowed are {allowed:?}")]
    Core {
        /// The core asked for.
        core: usize,
        /// The cores that this process may run on.
        allowed: Vec<usize>,
    },
    /// The executor of a shard could not be made.
    #[error("shard {shard}: the executor could not start: {reason}")]
    Executor {
        /// The shard.
        shard: u16,
        /// What glommio said.
        reason: String,
    },
    /// The system refused a thread, an eventfd, or a fact about the host.
    #[error("the system refused {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Explains why a ring could not be set up.
    pub(crate) fn of_ring(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::RingMissing,
            Some(libc::EPERM | libc::EACCES) => {
                let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
                    .map_or_else(|_| "absent".to_owned(), |text| text.trim().to_owned());
                match setting.as_str() {
                    "1" | "2" => Self::RingDisabled { setting },
                    _ => Self::RingFiltered { setting },
                }
            }
            Some(libc::ENOMEM) => Self::LockedMemory {
                limit_bytes: memlock_bytes(),
            },
            _ => Self::Ring(error),
        }
    }
}

/// What else there is to say about an address that cannot be had.
pub fn advice(address: SocketAddr, source: &io::Error) -> String {
    if source.kind() != io::ErrorKind::AddrInUse {
        return String::new();
    }
    match holders_told(address) {
        Some(holders) => format!(
            "; it is held by {holders} (two servers share a port only when both run as one user: \
             SO_REUSEPORT, effective user)"
        ),
        None => {
            "; nobody listens there: an outgoing connection of this host has the port, also for a \
                 minute after its end: net.ipv4.ip_local_reserved_ports keeps it for the server"
                .to_owned()
        }
    }
}

/// The soft limit of locked memory.
pub(crate) fn memlock_bytes() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_io_uring_says_what_to_do() {
        for (code, advice) in [
            (libc::ENOSYS, "seccomp"),
            (libc::EPERM, "SystemCallFilter"),
            (libc::ENOMEM, "LimitMEMLOCK"),
            (libc::EMFILE, "io_uring"),
        ] {
            let error = StartError::of_ring(io::Error::from_raw_os_error(code));
            assert!(error.to_string().contains(advice), "{code}: {error}");
            // systemd knows no such group, and a filter that names one forbids what it should not.
            assert!(!error.to_string().contains("@io-uring"), "{error}");
        }
    }
}
