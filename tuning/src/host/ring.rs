//! Whether this process can have a ring of io_uring, found out by making one and closing it.
//!
//! Owns: `Ring`.
//! May depend on: libc.
//! Invariants: nothing is left behind: the ring's descriptor is closed before `probe` returns.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// What became of making a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// It works.
    Works,
    /// The error's number: ENOSYS, EPERM, EINVAL (too old), ENOMEM (locked memory).
    Refused(i32),
}

impl Ring {
    /// Makes a small ring with the flags that the server's rings have. The only way to see what a filter of
    /// system calls does.
    pub fn probe() -> Self {
        // struct io_uring_params: 30 words of 32 bits; the third is the flags.
        let mut parameters = [0u32; 30];
        parameters[2] = SINGLE_ISSUER | DEFER_TASKRUN;
        // SAFETY: the structure is as long as the kernel's, and lives across the call.
        let answer =
            unsafe { libc::syscall(libc::SYS_io_uring_setup, 2u32, parameters.as_mut_ptr()) };
        let Ok(descriptor) = i32::try_from(answer) else {
            return Self::Refused(0);
        };
        if descriptor < 0 {
            return Self::Refused(io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        Self::Works
    }
}

const SINGLE_ISSUER: u32 = 1 << 12;
const DEFER_TASKRUN: u32 = 1 << 13;
