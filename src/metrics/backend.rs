//! What a node counts of each server that it asks: how long answers took, what failed, what was connected anew.
//!
//! Owns: `Role` with its operations, `Fault`, `Meter` (shared by whoever asks), `BackendCounts` (its numbers at one moment) and
//! their rows.
//! May depend on: `metrics::{bridge, catalogue, families}`. Not on who asks.
//! Invariants: counters only grow; nothing here waits or locks, so that connections, pools and the bridge count into one
//! meter; each configured backend has a row for each operation and fault, from 0 on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    bridge::Seconds,
    catalogue as name,
    catalogue::{BUCKETS_S, bucket_of},
    families::Families,
};

/// What a backend is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Adapter,
    AppManager,
    Cache,
    Queue,
    RateLimiter,
}

impl Role {
    /// As in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::AppManager => "app_manager",
            Self::Cache => "cache",
            Self::Queue => "queue",
            Self::RateLimiter => "rate_limiter",
        }
    }

    /// What is asked of it.
    pub const fn operations(self) -> &'static [Operation] {
        match self {
            Self::Adapter => &[Operation::Publish, Operation::Subscribe],
            Self::AppManager => &[Operation::Lookup, Operation::Refresh],
            Self::Cache => &[Operation::Get, Operation::Set],
            Self::Queue => &[Operation::Put, Operation::Turn],
            Self::RateLimiter => &[Operation::Take],
        }
    }
}

/// What is asked, as the roles have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A batch, from its queue to the server's answer.
    Publish,
    /// A topic, until it is confirmed.
    Subscribe,
    /// An app by its key or id.
    Lookup,
    /// Apps that are known, once more.
    Refresh,
    /// The last event of a channel.
    Get,
    Set,
    /// New jobs, with all else that was to be said.
    Put,
    /// Jobs that are wanted, and what became of others.
    Turn,
    /// Some of a rate.
    Take,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Lookup => "lookup",
            Self::Refresh => "refresh",
            Self::Get => "get",
            Self::Set => "set",
            Self::Put => "put",
            Self::Turn => "turn",
            Self::Take => "take",
        }
    }
}

/// Why there was no answer, or none that is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Fault {
    /// Not in time.
    Timeout,
    /// No connection, or one that broke.
    Io,
    /// It does not know us, or does not let us.
    Auth,
    /// An answer that is an error, or cannot be understood.
    Protocol,
}

impl Fault {
    /// The label of each variant, by its number.
    pub const LABELS: [&str; 4] = ["timeout", "io", "auth", "protocol"];
}

/// The counters of one backend in one role. A clone counts into the same.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    backend: &'static str,
    role: Role,
    /// By `Role::operations`.
    taken: [Taken; OPERATIONS_MAX],
    /// By `Fault`.
    errors: [AtomicU64; 4],
    reconnects: AtomicU64,
}

/// A histogram with the bounds `BUCKETS_S`.
#[derive(Debug, Default)]
struct Taken {
    buckets: [AtomicU64; 17],
    sum_us: AtomicU64,
}

/// Of one role at most.
const OPERATIONS_MAX: usize = 2;

/// The numbers of one backend in one role at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendCounts {
    pub backend: &'static str,
    pub role: Role,
    /// By `Role::operations`.
    pub requests: Vec<Seconds>,
    /// By `Fault`.
    pub errors: [u64; 4],
    pub reconnects: u64,
}

impl Meter {
    /// `backend` is its name in labels.
    pub fn new(backend: &'static str, role: Role) -> Self {
        Self(Arc::new(Counters {
            backend,
            role,
            taken: Default::default(),
            errors: Default::default(),
            reconnects: AtomicU64::new(0),
        }))
    }

    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// An answer has come, or will not, after so long. Panics where the role has no such operation.
    // Per answer: a search among 16 bounds, two atomic additions.
    pub fn observe(&self, operation: Operation, taken: Duration) {
        let mut operations = self.0.role.operations().iter();
        let index = operations.position(|it| *it == operation);
        let row = index.and_then(|index| self.0.taken.get(index));
        let row = row.expect("the role has the operation");
        let bucket = row.buckets.get(bucket_of(taken.as_secs_f64()));
        let bucket = bucket.expect("the last one has no bound");
        bucket.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(taken.as_micros()).unwrap_or(u64::MAX);
        row.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn failed(&self, fault: Fault) {
        let [timeout, io, auth, protocol] = &self.0.errors;
        let count = match fault {
            Fault::Timeout => timeout,
            Fault::Io => io,
            Fault::Auth => auth,
            Fault::Protocol => protocol,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection stands in the place of one that had ended.
    pub fn reconnected(&self) {
        self.0.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> BackendCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counters {
            backend,
            role,
            taken,
            errors,
            reconnects,
        } = &*self.0;
        let requests = taken.iter().take(role.operations().len());
        let requests = requests.map(|taken| Seconds {
            buckets: taken.buckets.each_ref().map(read),
            sum_s: read(&taken.sum_us) as f64 / 1e6,
        });
        BackendCounts {
            backend,
            role: *role,
            requests: requests.collect(),
            errors: errors.each_ref().map(read),
            reconnects: read(reconnects),
        }
    }
}

/// Adds the rows of one backend in one role.
pub(super) fn add(families: &mut Families<'_>, node: &str, counts: &BackendCounts) {
    let (backend, role) = (counts.backend, counts.role.name());
    for (operation, taken) in counts.role.operations().iter().zip(&counts.requests) {
        let labels = [backend, node, operation.name(), role];
        let (buckets, sum_s) = (&taken.buckets, taken.sum_s);
        let family = &name::BACKEND_REQUEST_SECONDS;
        families.add_histogram(family, &labels, &BUCKETS_S, buckets, sum_s);
    }
    for (kind, count) in Fault::LABELS.into_iter().zip(counts.errors) {
        let labels = [backend, kind, node, role];
        families.add(&name::BACKEND_ERRORS, &labels, count as f64);
    }
    let reconnects = counts.reconnects as f64;
    families.add(
        &name::BACKEND_RECONNECTS,
        &[backend, node, role],
        reconnects,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_of_a_meter_count_into_one() {
        let meter = Meter::new("redis", Role::Cache);
        let clone = meter.clone();
        for (operation, ms) in [
            (Operation::Get, 1),
            (Operation::Set, 2),
            (Operation::Set, 20_000),
        ] {
            clone.observe(operation, Duration::from_millis(ms));
        }
        meter.failed(Fault::Auth);
        clone.failed(Fault::Auth);
        clone.failed(Fault::Timeout);
        clone.reconnected();
        let counts = meter.counts();
        let [get, set] = &counts.requests[..] else {
            panic!("a cache has two operations");
        };
        let at = |seconds: &Seconds| -> Vec<usize> {
            let buckets = seconds.buckets.iter().enumerate();
            let counted = buckets.filter(|(_, count)| **count > 0);
            counted.map(|(at, _)| at).collect()
        };
        assert_eq!((at(get), get.sum_s), (vec![3], 0.001));
        assert_eq!((at(set), set.sum_s), (vec![4, 16], 20.002));
        assert_eq!(counts.errors, [1, 0, 2, 0]);
        assert_eq!(counts.reconnects, 1);
    }

    #[test]
    fn no_role_has_more_operations_than_a_meter_has_places() {
        for role in [
            Role::Adapter,
            Role::AppManager,
            Role::Cache,
            Role::Queue,
            Role::RateLimiter,
        ] {
            let meter = Meter::new("any", role);
            for operation in role.operations() {
                meter.observe(*operation, Duration::ZERO);
            }
            let counted = meter.counts().requests.len();
            assert_eq!(counted, role.operations().len(), "{role:?}");
        }
    }
}
