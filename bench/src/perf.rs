//! What the kernel counts and samples of another process, where it lets us: system calls, and which part of
//! its time is in user space.
//!
//! Owns: perf events, one or two per thread of the process, and the samples' memory.
//! May depend on: libc.
//! Invariants: what cannot be had whole is None: a thread that refuses makes the answer None. Threads that
//! start later are not sampled. Neither is free, so that they are asked for: counting costs every process of
//! the machine a little at each system call; sampling sets a timer at each context switch of the target,
//! which made publishes 20 % dearer on a virtual machine (`sockudo bench publish --rate 4000`).

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _, RawFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU64, Ordering},
};

/// The count since it was made. Threads that start later are counted with the one that started them.
pub struct SystemCalls(Vec<File>);

/// Looks at where each thread is, 1 999 times per second of its CPU time.
pub struct Sampler(Vec<Ring>);

/// The first version of the kernel's `perf_event_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period_or_rate: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

const SOFTWARE: u32 = 1;
const TRACEPOINT: u32 = 2;
const CPU_CLOCK: u64 = 0;
const INHERIT: u64 = 1 << 1;
const PERIOD_IS_RATE: u64 = 1 << 10;
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
const SAMPLES_PER_S: u64 = 1_999;
/// Samples of half a minute of CPU time; what comes later is not taken, and the share is of what was.
const RING_PAGES: usize = 128;
/// Fewer say nothing.
const LEAST_SAMPLES: u64 = 30;
const ID: &str = "tracing/events/raw_syscalls/sys_enter/id";

impl SystemCalls {
    /// Begins to count; None without tracefs, or without the right to it.
    pub fn of(pid: u32) -> Option<Self> {
        let mut ids = ["/sys/kernel", "/sys/kernel/debug"].iter();
        let id = ids.find_map(|folder| fs::read_to_string(format!("{folder}/{ID}")).ok())?;
        let attributes = Attributes {
            kind: TRACEPOINT,
            config: id.trim().parse().ok()?,
            flags: INHERIT,
            ..Attributes::default()
        };
        let counters = threads(pid)?
            .into_iter()
            .map(|thread| open(&attributes, thread));
        Some(Self(counters.collect::<io::Result<_>>().ok()?))
    }

    /// Calls so far.
    pub fn count(&mut self) -> Option<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            let mut value = [0; 8];
            counter.read_exact(&mut value).ok()?;
            sum += u64::from_ne_bytes(value);
        }
        Some(sum)
    }
}

impl Sampler {
    /// Begins to sample; None without the right to it.
    pub fn of(pid: u32) -> Option<Self> {
        let attributes = Attributes {
            kind: SOFTWARE,
            config: CPU_CLOCK,
            sample_period_or_rate: SAMPLES_PER_S,
            flags: PERIOD_IS_RATE,
            ..Attributes::default()
        };
        let ring = |thread| Ring::new(open(&attributes, thread)?);
        let rings = threads(pid)?.into_iter().map(ring);
        Some(Self(rings.collect::<io::Result<_>>().ok()?))
    }

    /// User space's part of the time so far; None of too few samples.
    pub fn user_share(&self) -> Option<f64> {
        let (mut user, mut all) = (0, 0);
        for ring in &self.0 {
            let (ring_user, ring_all) = count_user(ring.records());
            user += ring_user;
            all += ring_all;
        }
        (all >= LEAST_SAMPLES).then(|| user as f64 / all as f64)
    }
}

/// The samples of one thread, in memory that the kernel writes to.
struct Ring {
    start: NonNull<u8>,
    _event: File,
}

impl Ring {
    fn new(event: File) -> io::Result<Self> {
        let (length, access) = (Self::bytes(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            _event: event,
        })
    }

    fn page_bytes() -> usize {
        // SAFETY: takes a number, returns a number.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).unwrap_or(4_096)
    }

    /// The kernel's page, then the samples.
    fn bytes() -> usize {
        Self::page_bytes() * (1 + RING_PAGES)
    }

    /// What was written so far. Nothing is taken away, so that the kernel stops when the ring is full.
    fn records(&self) -> &[u8] {
        const HEAD_AT: usize = 1_024; // `data_head` in `perf_event_mmap_page`.
        // SAFETY: the mapping is at least a page long and page-aligned, so that the eight bytes at
        // `HEAD_AT` are in it and aligned; the kernel writes them whole.
        let head = unsafe { &*self.start.as_ptr().add(HEAD_AT).cast::<AtomicU64>() };
        let written = usize::try_from(head.load(Ordering::Acquire)).unwrap_or(0);
        let written = written.min(Self::page_bytes() * RING_PAGES);
        // SAFETY: `written` bytes behind the first page are in the mapping, which lives as long as
        // `self`; below the head the kernel writes no more, as the tail stays at 0.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(Self::page_bytes()), written) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, with its length; no reference to it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), Self::bytes()) };
    }
}

/// Samples in user space, and all. A record begins with its kind (4 bytes), where it was (2), its length (2).
fn count_user(mut records: &[u8]) -> (u64, u64) {
    const SAMPLE: [u8; 4] = 9_u32.to_ne_bytes();
    const PLACE: u16 = 7;
    const USER: u16 = 2;
    let (mut user, mut all) = (0, 0);
    while let [k0, k1, k2, k3, place0, place1, length0, length1, ..] = *records {
        if [k0, k1, k2, k3] == SAMPLE {
            all += 1;
            user += u64::from(u16::from_ne_bytes([place0, place1]) & PLACE == USER);
        }
        let length = usize::from(u16::from_ne_bytes([length0, length1]));
        match records.get(length..) {
            Some(rest) if length > 0 => records = rest,
            _ => break,
        }
    }
    (user, all)
}

fn threads(pid: u32) -> Option<Vec<libc::pid_t>> {
    let id = |thread: io::Result<fs::DirEntry>| thread.ok()?.file_name().to_str()?.parse().ok();
    let folder = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    folder.map(id).collect()
}

fn open(attributes: &Attributes, thread: libc::pid_t) -> io::Result<File> {
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).expect("a few words"),
        ..*attributes
    };
    let (any_cpu, no_group): (libc::c_int, libc::c_int) = (-1, -1);
    // SAFETY: the call reads `attributes`, which is valid and as long as its `size` says, and no other
    // memory of ours.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = RawFd::try_from(descriptor).expect("descriptors are ints");
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn calls_are_counted_where_the_kernel_lets_us() {
        let Some(mut calls) = SystemCalls::of(std::process::id()) else {
            return; // No tracefs, or not for us.
        };
        let before = calls.count().expect("it can be read");
        for _ in 0..100 {
            // SAFETY: takes nothing and cannot fail.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        assert!(calls.count().expect("it can be read") >= before + 100);
    }

    #[test]
    fn a_loop_without_system_calls_is_in_user_space() {
        let Some(sampler) = Sampler::of(std::process::id()) else {
            return; // Not for us.
        };
        let ends = Instant::now() + Duration::from_secs(10);
        let mut share = None;
        while share.is_none() && Instant::now() < ends {
            std::hint::black_box((0..1_000_000_u64).fold(0, |sum, next| sum ^ next.pow(2)));
            share = sampler.user_share();
        }
        let share = share.expect("samples come while it computes");
        assert!(share > 0.5, "{share}");
    }

    #[test]
    fn samples_are_told_from_other_records() {
        let record = |kind: u32, place: u16, length: u16| {
            let mut bytes = kind.to_ne_bytes().to_vec();
            bytes.extend(place.to_ne_bytes());
            bytes.extend(length.to_ne_bytes());
            bytes.resize(usize::from(length), 0);
            bytes
        };
        let records = [
            record(9, 2, 8),
            record(5, 2, 24),
            record(9, 1, 8),
            record(9, 0x4002, 16),
        ];
        assert_eq!(count_user(&records.concat()), (2, 3));
        assert_eq!(count_user(&record(9, 2, 8)[..7]), (0, 0));
        assert_eq!(count_user(&[0; 32]), (0, 0));
    }
}
