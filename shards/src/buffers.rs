//! Data path. Receive buffers that the kernel picks from when bytes arrive.
//!
//! Owns: the shard's provided-buffer ring and the memory behind it.
//! May depend on: io-uring, libc.
//! Invariants: a buffer is either the kernel's or ours, never both; an idle connection holds none.

use io_uring::{IoUring, types::BufRingEntry};
use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

/// The group number under which receives ask for a buffer.
pub(crate) const GROUP: u16 = 0;

/// Anonymous memory from `mmap`: page aligned, zeroed, there from the start: the ring hands buffers
/// out in turn, so all of them are touched soon, and what a connection costs shall not depend on it.
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    fn map(bytes: usize) -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping has no precondition; the result is checked below.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `map` made. Whoever owns `Pages` keeps it until the
        // ring that knows the memory is gone (field order in `RingTurn`).
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Provided receive buffers of one shard.
pub(crate) struct RecvBuffers {
    entries: Pages,
    memory: Pages,
    count: u16,
    bytes_each: u32,
    tail: u16,
    /// Buffers that are not in a `Filled`.
    free: u16,
}

/// A buffer that the kernel filled and that is ours until it is given back.
pub(crate) struct Filled {
    buffer: u16,
    start: NonNull<u8>,
    len: usize,
}

impl Filled {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `start..start + len` lies within one buffer, which the kernel does not touch
        // until `give_back` consumes this value; a buffer is in at most one `Filled`, because the
        // kernel names a buffer in one completion per time that we provide it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl RecvBuffers {
    /// Maps the memory and makes it known to the ring. `count` is a power of two.
    pub(crate) fn register(ring: &IoUring, count: u16, bytes_each: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = Pages::map(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Pages::map(usize::from(count) * bytes_each as usize)?;
        let address = entries.start.as_ptr() as u64;
        // SAFETY: the mapping is page aligned, has room for `count` entries and outlives the ring
        // (see `Pages::drop`).
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, GROUP, 0)?
        };
        let mut buffers = Self {
            entries,
            memory,
            count,
            bytes_each,
            tail: 0,
            free: 0,
        };
        for buffer in 0..count {
            buffers.push(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Takes a buffer over from the kernel, as a completion names it.
    pub(crate) fn take(&mut self, buffer: u16, len: usize) -> Filled {
        assert!(buffer < self.count);
        assert!(len <= self.bytes_each as usize);
        assert!(self.free > 0);
        self.free -= 1;
        Filled {
            buffer,
            start: self.start_of(buffer),
            len,
        }
    }

    /// Hands a buffer to the kernel again; it sees it after `publish`.
    pub(crate) fn give_back(&mut self, filled: Filled) {
        self.push(filled.buffer);
    }

    /// Lets the kernel see what was given back.
    pub(crate) fn publish(&mut self) {
        let first: *const BufRingEntry = self.entries.start.as_ptr().cast();
        // SAFETY: `first` is the ring's first entry; its reserved field is the tail, shared with
        // the kernel, and is written through an atomic of the same size and alignment.
        let tail = unsafe { &*BufRingEntry::tail(first).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// All buffers, whoever has them.
    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    fn push(&mut self, buffer: u16) {
        assert!(self.free < self.count);
        let address = self.start_of(buffer).as_ptr() as u64;
        let index = usize::from(self.tail & (self.count - 1));
        let first: *mut BufRingEntry = self.entries.start.as_ptr().cast();
        // SAFETY: `index < count`, and the kernel does not read an entry before the tail passes it.
        let entry = unsafe { &mut *first.add(index) };
        entry.set_addr(address);
        entry.set_len(self.bytes_each);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    fn start_of(&self, buffer: u16) -> NonNull<u8> {
        let offset = usize::from(buffer) * self.bytes_each as usize;
        assert!(offset < self.memory.bytes);
        // SAFETY: within the mapping: `buffer < count` by the callers, asserted above as bytes.
        unsafe { self.memory.start.add(offset) }
    }
}
