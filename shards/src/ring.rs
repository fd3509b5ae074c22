//! Data path. The net ring: one io_uring per shard that does all socket work.
//!
//! Owns: submission and completion queues, the ring's one deadline, the sorting of completions.
//! May depend on: io-uring, libc.
//! Invariants: a send's completion is in `sends` before `submit` of its batch returns to a caller
//! that waits for it (`settle_sends`); all other completions keep their order in `arrived`.

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use std::{collections::VecDeque, io, os::fd::RawFd, time::Duration};

/// What an operation was, carried in its `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept = 1,
    Recv = 2,
    Send = 3,
    Writable = 4,
    Cancel = 5,
    Deadline = 6,
    Wake = 7,
}

/// `user_data`: kind, low 24 bits of the generation, row (or listener) index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

impl Token {
    pub(crate) fn new(kind: Kind, index: u32, generation: u32) -> Self {
        Self((kind as u64) << 56 | u64::from(generation & 0xFF_FFFF) << 32 | u64::from(index))
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 >> 56 {
            1 => Kind::Accept,
            2 => Kind::Recv,
            3 => Kind::Send,
            4 => Kind::Writable,
            5 => Kind::Cancel,
            6 => Kind::Deadline,
            7 => Kind::Wake,
            other => unreachable!("a completion of unknown kind {other}"),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub(crate) fn index(self) -> u32 {
        self.0 as u32
    }

    /// Whether this operation was begun for that generation of its row.
    pub(crate) fn is_of(self, generation: u32) -> bool {
        (self.0 >> 32) as u32 & 0xFF_FFFF == generation & 0xFF_FFFF
    }
}

/// One completion, copied out of the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    pub(crate) result: i32,
    pub(crate) flags: u32,
}

impl Completion {
    /// Whether its multishot operation goes on.
    pub(crate) fn goes_on(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The receive buffer that it filled.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// One shard's io_uring.
pub(crate) struct NetRing {
    ring: IoUring,
    /// Completions of sends, not looked at yet.
    pub(crate) sends: Vec<Completion>,
    /// All other completions, in order.
    pub(crate) arrived: VecDeque<Completion>,
    /// Queued or submitted, and not completed.
    sends_in_flight: u32,
    entered: bool,
    /// When the ring's deadline falls, nanoseconds since the shard's start; `None` = not armed.
    deadline_ns: Option<u64>,
    /// The kernel reads it when the operation is submitted, which may be after `arm_deadline`.
    deadline_span: Box<types::Timespec>,
    /// Receive buffers named by completions that were reaped and not dealt with yet.
    pub(crate) buffers_reaped: u32,
    /// Times that the completion queue overflowed.
    pub(crate) overflows: u64,
    /// Times that the kernel refused what was submitted for want of memory.
    pub(crate) refusals: u64,
    /// Errors that the next entries answer with instead of going to the kernel.
    #[cfg(test)]
    refuses: VecDeque<i32>,
}

/// Submission queue entries: a fan-out to this many connections goes in with one system call.
const SUBMISSIONS: u32 = 2_048;
/// Completion queue entries.
const COMPLETIONS: u32 = 8_192;
/// The first pause after the kernel refused a submission; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_micros(100);
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// Refusals in a row after which the shard turns: some 70 ms of pauses.
const REFUSALS_MAX: u32 = 10;

impl NetRing {
    /// Makes the ring. The calling thread becomes its only user.
    pub(crate) fn open() -> io::Result<Self> {
        let ring = build(SUBMISSIONS, COMPLETIONS)?;
        Ok(Self {
            ring,
            sends: Vec::with_capacity(SUBMISSIONS as usize),
            arrived: VecDeque::with_capacity(COMPLETIONS as usize),
            sends_in_flight: 0,
            entered: false,
            deadline_ns: None,
            deadline_span: Box::new(types::Timespec::new()),
            buffers_reaped: 0,
            overflows: 0,
            refusals: 0,
            #[cfg(test)]
            refuses: VecDeque::new(),
        })
    }

    pub(crate) fn raw(&self) -> &IoUring {
        &self.ring
    }

    /// Queues an operation; it goes to the kernel with the next `submit`, or now if the queue is
    /// full.
    pub(crate) fn push(&mut self, entry: &squeue::Entry) {
        if self.ring.submission().is_full() {
            self.submit(0);
        }
        // SAFETY: what the entry points to stays valid until it is submitted (the deadline's span
        // is boxed in `self`) or completed (sends: their bytes stay until `settle_sends`); file
        // descriptors are closed only after the last completion of their operations.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(
            pushed.is_ok(),
            "the submission queue has room after a submit"
        );
    }

    pub(crate) fn push_send(&mut self, fd: RawFd, bytes: *const u8, len: u32, token: Token) {
        let send = opcode::Send::new(types::Fd(fd), bytes, len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build()
            .user_data(token.0);
        self.push(&send);
        self.sends_in_flight += 1;
    }

    pub(crate) fn push_recv(&mut self, fd: RawFd, group: u16, token: Token) {
        let recv = opcode::RecvMulti::new(types::Fd(fd), group)
            .build()
            .user_data(token.0);
        self.push(&recv);
    }

    pub(crate) fn push_accept(&mut self, fd: RawFd, token: Token) {
        let accept = opcode::AcceptMulti::new(types::Fd(fd))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(token.0);
        self.push(&accept);
    }

    pub(crate) fn push_writable(&mut self, fd: RawFd, token: Token) {
        let poll = opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32);
        self.push(&poll.build().user_data(token.0));
    }

    /// Completes each time that somebody writes `eventfd`. The eventfd need not be read: a poll
    /// that goes on tells of writes, not of a state.
    pub(crate) fn push_wake(&mut self, eventfd: RawFd) {
        let poll = opcode::PollAdd::new(types::Fd(eventfd), libc::POLLIN as u32).multi(true);
        self.push(&poll.build().user_data(Token::new(Kind::Wake, 0, 0).0));
    }

    pub(crate) fn push_cancel(&mut self, target: Token) {
        let token = Token::new(Kind::Cancel, target.index(), 0);
        self.push(
            &opcode::AsyncCancel::new(target.0)
                .build()
                .user_data(token.0),
        );
    }

    /// Sees to it that the ring completes something at `at_ns` at the latest.
    pub(crate) fn arm_deadline(&mut self, now_ns: u64, at_ns: u64) {
        if self.deadline_ns.is_some_and(|armed| armed <= at_ns) {
            return;
        }
        let span = Duration::from_nanos(at_ns.saturating_sub(now_ns).max(1));
        *self.deadline_span = types::Timespec::from(span);
        let token = Token::new(Kind::Deadline, 0, 0);
        let span: *const types::Timespec = &*self.deadline_span;
        let entry = if self.deadline_ns.is_some() {
            let moved = Token::new(Kind::Cancel, 0, 0);
            opcode::TimeoutUpdate::new(token.0, span)
                .build()
                .user_data(moved.0)
        } else {
            opcode::Timeout::new(span).build().user_data(token.0)
        };
        self.push(&entry);
        self.deadline_ns = Some(at_ns);
    }

    /// The deadline's completion was reaped.
    pub(crate) fn deadline_passed(&mut self) {
        self.deadline_ns = None;
    }

    /// True when operations wait to be submitted.
    pub(crate) fn has_unsubmitted(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// One `enter`: submits what is queued, runs deferred work, waits for that many completions,
    /// reaps what has completed.
    ///
    /// A kernel without memory for requests (a cgroup at its limit) refuses with EAGAIN or EBUSY:
    /// what has completed is reaped, which may be all that it wants, and after a pause it is tried
    /// again. After `REFUSALS_MAX` of that the rest stays queued, so that the shard turns and can
    /// shed; but sends are waited for, as their bytes may not move, for as long as it takes. A shard
    /// that waits does not turn, which health reports.
    pub(crate) fn submit(&mut self, mut wait_for: u32) {
        let (mut pause, mut refused) = (PAUSE_MIN, 0);
        loop {
            let entered = self.enter(wait_for);
            if self.reap() {
                // An interrupted wait must not go on over what it has brought already.
                wait_for = 0;
            }
            match entered {
                Ok(()) if self.ring.submission().is_empty() => return,
                Ok(()) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        self.refusals += 1;
                        refused += 1;
                        // The enter that was refused has run no deferred work, which completions
                        // come from.
                        self.run_deferred();
                        self.reap();
                        let may_stay = self.sends_in_flight == 0;
                        if refused >= REFUSALS_MAX && may_stay && !self.ring.submission().is_full()
                        {
                            return;
                        }
                        #[expect(
                            clippy::disallowed_methods,
                            reason = "the kernel refuses, and only time helps"
                        )]
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    _ => panic!("io_uring_enter: {error}"),
                },
            }
        }
    }

    fn enter(&mut self, wait_for: u32) -> io::Result<()> {
        #[cfg(test)]
        if let Some(code) = self.refuses.pop_front() {
            return Err(io::Error::from_raw_os_error(code));
        }
        let queued = self.ring.submission().len();
        self.entered = true;
        let queued = u32::try_from(queued).expect("the queue has room for `SUBMISSIONS`");
        self.enter_with(queued, wait_for)
    }

    fn enter_with(&self, submitted: u32, wait_for: u32) -> io::Result<()> {
        let flags = EnterFlags::GETEVENTS.bits();
        let submitter = self.ring.submitter();
        // SAFETY: no argument is passed; entries are valid by the contract of `push`.
        unsafe { submitter.enter::<libc::sigset_t>(submitted, wait_for, flags, None) }.map(|_| ())
    }

    /// Lets operations that are done complete, without submitting or waiting.
    fn run_deferred(&self) {
        // What goes wrong here goes wrong with the next `enter` too, which says so.
        self.enter_with(0, 0).ok();
    }

    /// Whether the ring was entered since the last call: what had arrived by then is known.
    pub(crate) fn take_entered(&mut self) -> bool {
        std::mem::take(&mut self.entered)
    }

    /// Submits what is queued and returns when every send has completed. Sends do not wait for
    /// room, so this is one `enter` in all but odd cases.
    pub(crate) fn settle_sends(&mut self) {
        self.submit(0);
        while self.sends_in_flight > 0 {
            self.submit(1);
        }
    }

    /// Takes over what has completed; true if anything had.
    fn reap(&mut self) -> bool {
        let before = self.sends.len() + self.arrived.len();
        if self.ring.submission().cq_overflow() {
            self.overflows += 1;
        }
        for entry in self.ring.completion() {
            let completion = Completion {
                token: Token(entry.user_data()),
                result: entry.result(),
                flags: entry.flags(),
            };
            if completion.token.kind() == Kind::Send {
                self.sends_in_flight -= 1;
                self.sends.push(completion);
            } else {
                self.buffers_reaped += u32::from(cqueue::buffer_select(completion.flags).is_some());
                self.arrived.push_back(completion);
            }
        }
        self.sends.len() + self.arrived.len() > before
    }
}

/// Builds a ring with all the flags we like, without those that this kernel refuses.
pub(crate) fn build(submissions: u32, completions: u32) -> io::Result<IoUring> {
    let mut result = Err(io::Error::from_raw_os_error(libc::EINVAL));
    for (deferred, cooperative) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut builder = IoUring::builder();
        builder
            .setup_clamp()
            .setup_submit_all()
            .setup_cqsize(completions);
        if deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if cooperative {
            builder.setup_coop_taskrun();
        }
        result = builder.build(submissions);
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            _ => break,
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    #[test]
    fn a_kernel_that_refuses_submissions_for_a_while_is_waited_for() {
        let mut ring = NetRing::open().expect("a ring");
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        ring.refuses = [libc::EAGAIN, libc::EBUSY, libc::EINTR, libc::EAGAIN].into();
        let bytes = b"late but there";
        let token = Token::new(Kind::Send, 3, 1);
        ring.push_send(ours.as_raw_fd(), bytes.as_ptr(), bytes.len() as u32, token);
        ring.settle_sends();
        assert_eq!(ring.refusals, 3);
        assert_eq!(ring.sends.len(), 1);
        assert_eq!(ring.sends[0].result, bytes.len() as i32);
        let mut read = [0; 64];
        let count = io::Read::read(&mut &theirs, &mut read).expect("the bytes are there");
        assert_eq!(&read[..count], bytes);
    }

    #[test]
    fn a_shard_whose_kernel_goes_on_refusing_hears_what_has_completed_and_may_turn() {
        let mut ring = NetRing::open().expect("a ring");
        // SAFETY: a plain call; the descriptor is closed with the pair's owner below.
        let bell = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        ring.push_wake(bell.as_raw_fd());
        ring.submit(0);
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        ring.push_writable(ours.as_raw_fd(), Token::new(Kind::Writable, 5, 1));
        ring.refuses = [libc::EAGAIN; 64].into();
        io::Write::write_all(
            &mut std::fs::File::from(bell.try_clone().expect("a copy")),
            &[1; 8],
        )
        .expect("an eventfd takes eight bytes");
        ring.submit(1);
        assert_eq!(ring.refusals, u64::from(REFUSALS_MAX));
        let kinds: Vec<Kind> = ring.arrived.iter().map(|it| it.token.kind()).collect();
        assert_eq!(
            kinds,
            [Kind::Wake],
            "it completed while submissions were refused"
        );
        assert!(ring.has_unsubmitted(), "what was refused is not lost");

        // Sends are not left in the queue: their bytes would move.
        ring.refuses = [libc::EBUSY; 12].into();
        let token = Token::new(Kind::Send, 3, 1);
        ring.push_send(ours.as_raw_fd(), b"late".as_ptr(), 4, token);
        ring.settle_sends();
        assert_eq!(ring.sends.len(), 1);
        assert_eq!(ring.refusals, u64::from(REFUSALS_MAX) + 12);
        let kinds: Vec<Kind> = ring.arrived.iter().map(|it| it.token.kind()).collect();
        assert_eq!(kinds, [Kind::Wake, Kind::Writable]);
        io::Read::read_exact(&mut theirs, &mut [0; 4]).expect("it was sent");
    }

    #[test]
    fn a_token_gives_back_what_it_was_made_of() {
        for kind in [
            Kind::Accept,
            Kind::Recv,
            Kind::Send,
            Kind::Writable,
            Kind::Deadline,
        ] {
            for (index, generation) in [(0, 0), (u32::MAX, 7), (5, 0x1FF_FFFF)] {
                let token = Token::new(kind, index, generation);
                assert_eq!(token.kind(), kind);
                assert_eq!(token.index(), index);
                assert!(token.is_of(generation));
                assert!(!token.is_of(generation + 1));
            }
        }
    }
}
