//! The two ends of a socket pair over which packets and descriptors go from one process to the other.
//!
//! Owns: `Link`: how a packet travels, its bounds; `Waiting`, the same within a tokio runtime.
//! May depend on: rustix, tokio's `AsyncFd`, `packet`.
//! Invariants: a packet comes whole with all of its descriptors, or is an error; every descriptor that comes is closed
//! with a program that is started here; nothing that was received is lost when a future is dropped.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
        sendmsg, socketpair, sockopt,
    },
};
use tokio::io::unix::AsyncFd;

use super::packet::{DESCRIPTORS_MAX, Packet};

/// A packet beyond it travels in memory that is passed beside the descriptors.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// What one packet may hold: 64 connections with all that a connection may have unsent, and more.
const PACKET_BYTES_MAX: u64 = 1 << 30;

/// First byte of a datagram: the packet follows, or it is in the last descriptor.
const HERE: u8 = 0;
const BESIDE: u8 = 1;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("the link failed: {0}")]
    Io(#[from] io::Error),
    #[error("nothing came for {} s", .0.as_secs())]
    Late(Duration),
    #[error("the other process ended the link")]
    Ended,
    #[error("a packet was cut short")]
    Truncated,
    #[error("descriptors were lost: too many open files")]
    DescriptorsLost,
    #[error("a packet is not understood: {0}")]
    Packet(#[from] rmp_serde::decode::Error),
    #[error("a packet of {0} bytes is more than {PACKET_BYTES_MAX}")]
    TooLong(u64),
}

impl From<rustix::io::Errno> for LinkError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A packet and the descriptors that came with it.
pub type Received = (Packet, Vec<OwnedFd>);

/// One end.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Both ends: ours, and the socket for another process.
    ///
    /// # Errors
    /// When there is no room for more files.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// # Errors
    /// When it is not such a socket.
    pub fn of(socket: OwnedFd) -> io::Result<Self> {
        let is_packets = sockopt::socket_type(&socket)? == SocketType::SEQPACKET;
        let is_local = sockopt::socket_domain(&socket)? == AddressFamily::UNIX;
        match is_packets && is_local {
            true => Ok(Self(socket)),
            false => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    /// Sends now, or says that there is no room.
    ///
    /// # Errors
    /// `WouldBlock` without room; else what the kernel says.
    ///
    /// # Panics
    /// When there are more descriptors than `DESCRIPTORS_MAX`.
    pub fn try_send(&self, packet: &Packet, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.try_send_bytes(&packet.encode(), descriptors)
    }

    fn try_send_bytes(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        assert!(descriptors.len() <= DESCRIPTORS_MAX);
        let mut descriptors = descriptors.to_vec();
        let beside;
        let body = if bytes.len() <= DATAGRAM_BYTES_MAX {
            [IoSlice::new(&[HERE]), IoSlice::new(bytes)]
        } else {
            beside = in_memory(bytes)?;
            descriptors.push(beside.as_fd());
            [IoSlice::new(&[BESIDE]), IoSlice::new(&[])]
        };
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let has_room = ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            assert!(has_room, "the space is for as many as may be");
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.0, &body, &mut ancillary, flags)?;
        Ok(())
    }

    /// What has come; `WouldBlock` if nothing has.
    ///
    /// # Errors
    /// See `LinkError`; the link is of no use afterwards unless nothing has come.
    pub fn try_receive(&self) -> Result<Received, LinkError> {
        let mut datagram = vec![0; 1 + DATAGRAM_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut into = [IoSliceMut::new(&mut datagram)];
        let received = recvmsg(&self.0, &mut into, &mut ancillary, flags)?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                descriptors.extend(came);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(LinkError::DescriptorsLost);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(LinkError::Truncated);
        }
        datagram.truncate(received.bytes);
        let packet = match datagram.split_first() {
            None => return Err(LinkError::Ended),
            Some((&HERE, body)) => Packet::decode(body)?,
            Some((&BESIDE, [])) => {
                let beside = descriptors.pop().ok_or(LinkError::Truncated)?;
                Packet::decode(&out_of_memory(beside)?)?
            }
            Some(_) => return Err(LinkError::Truncated),
        };
        Ok((packet, descriptors))
    }

    /// Sends, and waits for room for so long. Blocks.
    ///
    /// # Errors
    /// See `LinkError`.
    pub fn send_within(&self, within: Duration, packet: &Packet) -> Result<(), LinkError> {
        loop {
            match self.try_send(packet, &[]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, within)?;
                }
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits for a packet for so long. Blocks.
    ///
    /// # Errors
    /// See `LinkError`.
    pub fn receive_within(&self, within: Duration) -> Result<Received, LinkError> {
        loop {
            match self.try_receive() {
                Err(LinkError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN, within)?;
                }
                received => return received,
            }
        }
    }

    fn wait(&self, flags: PollFlags, within: Duration) -> Result<(), LinkError> {
        let mut polled = [PollFd::new(&self.0, flags)];
        let limit = Timespec::try_from(within).map_err(|_| LinkError::Late(within))?;
        match poll(&mut polled, Some(&limit)) {
            Ok(0) => Err(LinkError::Late(within)),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// For the descriptors of a packet, and one for the packet itself.
const SPACE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1));

/// Memory that can be passed on: whoever reads it finds it as it is now.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let memory = memfd_create(
        "sockudo-handover",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let file = File::from(memory);
    file.write_all_at(bytes, 0)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

fn out_of_memory(memory: OwnedFd) -> Result<Vec<u8>, LinkError> {
    let file = File::from(memory);
    if !fcntl_get_seals(&file)?.contains(SEALS) {
        return Err(LinkError::Truncated);
    }
    let length = file.metadata()?.len();
    if length > PACKET_BYTES_MAX {
        return Err(LinkError::TooLong(length));
    }
    let length = usize::try_from(length).map_err(|_| LinkError::TooLong(length))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// One end within a tokio runtime.
#[derive(Debug)]
pub struct Waiting(AsyncFd<LinkFd>);

/// So that `AsyncFd` sees the descriptor.
#[derive(Debug)]
struct LinkFd(Arc<Link>);

impl std::os::fd::AsRawFd for LinkFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.0.as_raw_fd()
    }
}

impl Waiting {
    /// # Errors
    /// When the runtime cannot watch it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(link: Arc<Link>) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the link, which is never taken out again nor given another one.
        let registered = unsafe { AsyncFd::register(LinkFd(link)) };
        Ok(Self(registered.map_err(io::Error::from)?))
    }

    /// Sends now, or says that there is no room.
    ///
    /// # Errors
    /// As of `Link::try_send`.
    pub fn try_send(&self, packet: &Packet, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.get_ref().0.try_send(packet, descriptors)
    }

    /// What has come; `WouldBlock` if nothing has.
    ///
    /// # Errors
    /// As of `Link::try_receive`.
    pub fn try_receive(&self) -> Result<Received, LinkError> {
        self.0.get_ref().0.try_receive()
    }

    /// Waits for a packet. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// See `LinkError`.
    pub async fn receive(&self) -> Result<Received, LinkError> {
        loop {
            let mut guard = self.0.readable().await?;
            match self.try_receive() {
                Err(LinkError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                }
                received => return received,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use serde_bytes::ByteBuf;

    use super::*;
    use crate::handover::packet::{Connections, State, Taken};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn pair() -> (Link, Link) {
        let (ours, theirs) = Link::pair().expect("there is room for files");
        (ours, Link::of(theirs).expect("a socket of packets"))
    }

    fn state(bytes: usize) -> Packet {
        let records = vec![ByteBuf::from(vec![7; bytes])];
        Packet::State(State { records })
    }

    #[test]
    fn a_packet_of_any_size_comes_whole_and_in_its_order() {
        let (ours, theirs) = pair();
        let sizes = [0, 1, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX + 1, 5 << 20];
        for bytes in sizes {
            ours.send_within(PATIENCE, &state(bytes)).expect("room");
        }
        for bytes in sizes {
            let (packet, descriptors) = theirs.receive_within(PATIENCE).expect("it was sent");
            assert_eq!(packet, state(bytes), "{bytes}");
            assert!(descriptors.is_empty(), "{bytes}");
        }
        for length in [DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX + 1] {
            let sent = ours.try_send_bytes(&vec![0xc0; length], &[]);
            sent.expect("room");
            let error = theirs.receive_within(PATIENCE).expect_err("no packet");
            assert!(matches!(error, LinkError::Packet(_)), "{error}");
        }
    }

    #[test]
    fn sixty_four_descriptors_travel_beside_a_packet_small_or_large() {
        for bytes in [0, 1 << 20] {
            let (ours, theirs) = pair();
            let (mut near, far): (Vec<_>, Vec<_>) = (0..DESCRIPTORS_MAX)
                .map(|_| UnixStream::pair().expect("room for files"))
                .unzip();
            let records = vec![ByteBuf::from(vec![1; bytes])];
            let packet = Packet::Connections(Connections { shard: 0, records });
            let borrowed: Vec<_> = far.iter().map(AsFd::as_fd).collect();
            ours.try_send(&packet, &borrowed).expect("room");
            drop(far);
            let (read, came) = theirs.receive_within(PATIENCE).expect("it was sent");
            assert_eq!(read, packet);
            assert_eq!(came.len(), DESCRIPTORS_MAX);
            for (number, (near, far)) in near.iter_mut().zip(came).enumerate() {
                let flags = rustix::io::fcntl_getfd(&far).expect("open");
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
                let number = u8::try_from(number).expect("few");
                near.write_all(&[number]).expect("room");
                let mut byte = [0];
                UnixStream::from(far).read_exact(&mut byte).expect("sent");
                assert_eq!(byte, [number]);
            }
        }
    }

    #[test]
    fn silence_and_an_end_are_told_apart() {
        let (ours, theirs) = pair();
        let within = Duration::from_millis(1);
        let late = ours.receive_within(within).expect_err("nothing was sent");
        assert!(matches!(late, LinkError::Late(_)), "{late}");
        let taken = Packet::Taken(Taken { count: 1 });
        theirs.send_within(PATIENCE, &taken).expect("room");
        drop(theirs);
        assert_eq!(ours.receive_within(PATIENCE).expect("sent").0, taken);
        let ended = ours.receive_within(PATIENCE).expect_err("it is closed");
        assert!(matches!(ended, LinkError::Ended), "{ended}");
        let refused = ours.send_within(PATIENCE, &taken);
        assert!(refused.is_err(), "nobody is there");
    }

    #[test]
    fn what_does_not_hold_to_the_form_is_refused() {
        let (ours, theirs) = pair();
        for bytes in [&b"\x01more"[..], b"\x01", b"\x02", b"hello"] {
            let mut none = SendAncillaryBuffer::default();
            let flags = SendFlags::empty();
            sendmsg(&ours.0, &[IoSlice::new(bytes)], &mut none, flags).expect("room");
            let error = theirs.receive_within(PATIENCE).expect_err("no form");
            assert!(matches!(error, LinkError::Truncated), "{error}");
        }
        let stream = UnixStream::pair().expect("room").0;
        assert!(Link::of(stream.into()).is_err(), "a stream");
        let file = File::open("/dev/null").expect("it is there");
        assert!(Link::of(file.into()).is_err(), "no socket");
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let (ours, theirs) = pair();
        let theirs = Waiting::new(Arc::new(theirs)).expect("in a runtime");
        let taken = Packet::Taken(Taken { count: 3 });
        tokio::select! {
            biased;
            _ = theirs.receive() => panic!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        ours.send_within(PATIENCE, &taken).expect("room");
        let received = tokio::time::timeout(PATIENCE, theirs.receive()).await;
        assert_eq!(received.expect("in time").expect("sent").0, taken);
    }
}
