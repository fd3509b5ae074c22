//! What shards tell of what they hold, on its way to the next process.
//!
//! Owns: `Parcels`: packets that wait to be sent, how much of them may, and what each shard may tell yet.
//! May depend on: `handover::{packet, record}`. Not on the link: who sends is an argument.
//! Invariants: what belongs to no connection goes before all connections; a frame goes once, however many shards tell
//! it; at most `WINDOW` packets wait to be acknowledged; of what a shard has told at most its share waits to be sent,
//! and one part more.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
    sync::Arc,
};

use ahash::AHashMap;
use serde_bytes::ByteBuf;
use shards::{SharedFrame, application::ShardId};

use super::Waits;
use crate::handover::{
    packet::{Connections, DESCRIPTORS_MAX, End, Frames, Packet, State},
    record::Exported,
};

/// Packets with sockets or state that wait for their acknowledgement.
pub(super) const WINDOW: usize = 4;
/// Bytes that wait to be sent, of all shards together.
const WAITING_BYTES: usize = 16 << 20;
/// A shard may tell so much at least before it waits.
const SHARE_BYTES_MIN: usize = 256 << 10;

/// Between the shards and the next process.
#[derive(Debug)]
pub(super) struct Parcels {
    waits: Waits<Outgoing>,
    in_flight: usize,
    tellers: Vec<Teller>,
    /// Connections were let come.
    has_let_connections_come: bool,
    /// Frames that were told, held so that nobody else gets their numbers.
    frames: AHashMap<u64, Arc<[u8]>>,
    sent: End,
    sent_bytes: u64,
    left: u64,
}

/// A shard that tells what it holds.
#[derive(Clone, Debug, Default)]
struct Teller {
    has_told_state: bool,
    has_told_all: bool,
    /// Bytes that have gone on, for which it may tell others.
    gone_bytes: usize,
}

/// A packet with sockets of shards that are still, which nobody closes before they thaw.
#[derive(Debug)]
struct Outgoing {
    packet: Packet,
    sockets: Vec<RawFd>,
    /// Whose it is, by its number, and what of its share it takes; of the node, nobody's.
    teller: Option<usize>,
    bytes: usize,
}

impl Parcels {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            waits: Waits::new(),
            in_flight: 0,
            tellers: vec![Teller::default(); usize::from(shards)],
            has_let_connections_come: false,
            frames: AHashMap::new(),
            sent: End::default(),
            sent_bytes: 0,
            left: 0,
        }
    }

    /// What a shard may tell at first.
    pub(super) fn share_bytes(&self) -> usize {
        (WAITING_BYTES / self.tellers.len().max(1)).max(SHARE_BYTES_MIN)
    }

    /// What was sent, once all is.
    pub(super) fn sent(&self) -> &End {
        &self.sent
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Connections that end with this process.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// All shards have told everything.
    pub(super) fn are_told(&self) -> bool {
        self.tellers.iter().all(|it| it.has_told_all)
    }

    /// All that was told has gone on, and come.
    pub(super) fn are_done(&self) -> bool {
        self.are_told() && self.waits.is_empty() && self.in_flight == 0
    }

    /// True once: all shards have told what belongs to no connection.
    pub(super) fn let_connections_come(&mut self) -> bool {
        let has_state = self.tellers.iter().all(|it| it.has_told_state);
        has_state && !std::mem::replace(&mut self.has_let_connections_come, true)
    }

    /// Shards that may tell so many bytes more, since so many have gone on.
    pub(super) fn take_room(&mut self) -> Vec<(ShardId, usize)> {
        let few = self.share_bytes() / 4;
        let mut room = Vec::new();
        for (number, teller) in (0..).zip(&mut self.tellers) {
            if teller.gone_bytes >= few && !teller.has_told_all {
                room.push((ShardId(number), std::mem::take(&mut teller.gone_bytes)));
            }
        }
        room
    }

    /// A packet has come whole.
    pub(super) fn acknowledged(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// What is known of the other nodes.
    pub(super) fn add_nodes(&mut self, records: Vec<Vec<u8>>) {
        for record in records {
            self.sent.states += 1;
            let records = vec![ByteBuf::from(record)];
            let packet = Packet::Nodes(State { records });
            self.wait(packet, Vec::new(), None, 0);
        }
    }

    /// A part of what a shard holds.
    pub(super) fn add(&mut self, shard: ShardId, exported: Exported) {
        let Exported {
            connections,
            state,
            frames,
            is_state_told,
            left,
            stuck,
            is_last,
        } = exported;
        let teller = usize::from(shard.0);
        self.left += left + stuck;
        if !state.is_empty() {
            self.sent.states += state.len() as u64;
            let bytes = state.iter().map(Vec::len).sum();
            let records = state.into_iter().map(ByteBuf::from).collect();
            let packet = Packet::State(State { records });
            self.wait(packet, Vec::new(), Some(teller), bytes);
        }
        self.add_frames(teller, frames);
        for part in connections.chunks(DESCRIPTORS_MAX) {
            self.sent.connections += part.len() as u64;
            let (sockets, records) = part
                .iter()
                .cloned()
                .unzip::<_, _, Vec<RawFd>, Vec<Vec<u8>>>();
            let bytes = records.iter().map(Vec::len).sum();
            let records = records.into_iter().map(ByteBuf::from).collect();
            let shard = shard.0;
            let packet = Packet::Connections(Connections { shard, records });
            self.wait(packet, sockets, Some(teller), bytes);
        }
        self.tellers[teller].has_told_state |= is_state_told;
        self.tellers[teller].has_told_all |= is_last;
    }

    /// Those that no shard has told before.
    fn add_frames(&mut self, teller: usize, frames: Vec<SharedFrame>) {
        let (mut packet, mut bytes) = (Frames::default(), 0);
        for SharedFrame {
            number,
            bytes: frame,
        } in frames
        {
            if self.frames.contains_key(&number) {
                self.tellers[teller].gone_bytes += frame.len();
                continue;
            }
            bytes += frame.len();
            packet.numbers.push(number);
            packet.frames.push(ByteBuf::from(frame.to_vec()));
            self.frames.insert(number, frame);
        }
        if !packet.numbers.is_empty() {
            self.sent.states += packet.numbers.len() as u64;
            self.wait(Packet::Frames(packet), Vec::new(), Some(teller), bytes);
        }
    }

    fn wait(&mut self, packet: Packet, sockets: Vec<RawFd>, teller: Option<usize>, bytes: usize) {
        self.waits.push_back(Outgoing {
            packet,
            sockets,
            teller,
            bytes,
        });
    }

    /// Sends what the window allows.
    ///
    /// # Errors
    /// What `send` says, unless acknowledgements will make room.
    pub(super) fn push(
        &mut self,
        mut send: impl FnMut(&Packet, &[BorrowedFd<'_>]) -> io::Result<()>,
    ) -> Result<(), String> {
        while self.in_flight < WINDOW {
            let Some(next) = self.waits.front() else {
                break;
            };
            let borrow = |socket: &RawFd| {
                // SAFETY: a shard that is still exported it, which keeps it open until the next thaw; that
                // comes when this packet has gone, or with `waits` dropped.
                unsafe { BorrowedFd::borrow_raw(*socket) }
            };
            let sockets: Vec<_> = next.sockets.iter().map(borrow).collect();
            match send(&next.packet, &sockets) {
                Ok(()) => {}
                // Its acknowledgements make room.
                Err(error) if is_full(&error) && self.in_flight > 0 => break,
                Err(error) => {
                    return Err(format!("{} was not sent: {error}", next.packet.name()));
                }
            }
            if let Some(teller) = next.teller {
                self.tellers[teller].gone_bytes += next.bytes;
            }
            self.sent_bytes += next.bytes as u64;
            self.in_flight += 1;
            self.waits.pop_front();
        }
        Ok(())
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that the next process has got: how many records or frames of which kind.
    type Got = Vec<(&'static str, usize)>;

    fn push(parcels: &mut Parcels, got: &mut Got) {
        let sent = parcels.push(|packet, sockets| {
            let count = match packet {
                Packet::State(it) | Packet::Nodes(it) => it.records.len(),
                Packet::Frames(it) => it.numbers.len(),
                Packet::Connections(it) => {
                    assert_eq!(it.records.len(), sockets.len());
                    sockets.len()
                }
                other => panic!("{other:?}"),
            };
            got.push((packet.name(), count));
            Ok(())
        });
        sent.expect("there is room");
    }

    fn drain(parcels: &mut Parcels) -> Got {
        let mut got = Got::new();
        while !parcels.waits.is_empty() || parcels.in_flight > 0 {
            push(parcels, &mut got);
            assert!(parcels.in_flight <= WINDOW);
            parcels.acknowledged();
        }
        got
    }

    fn waiting(parcels: &Parcels) -> usize {
        parcels.waits.iter().map(|it| it.bytes).sum()
    }

    fn state(bytes: usize) -> Exported {
        Exported {
            state: vec![vec![1; bytes]],
            ..Exported::default()
        }
    }

    fn connections(count: usize, bytes: usize) -> Exported {
        let socket = 0; // Nobody closes it, and nobody sends it.
        Exported {
            connections: vec![(socket, vec![1; bytes]); count],
            ..Exported::default()
        }
    }

    fn frames(frames: &[(u64, &Arc<[u8]>)]) -> Exported {
        let frames = frames.iter().map(|(number, bytes)| SharedFrame {
            number: *number,
            bytes: Arc::clone(bytes),
        });
        Exported {
            frames: frames.collect(),
            ..Exported::default()
        }
    }

    #[test]
    fn connections_come_when_all_shards_have_told_what_belongs_to_none() {
        let mut parcels = Parcels::new(2);
        let told = || Exported {
            is_state_told: true,
            ..state(10)
        };
        parcels.add(ShardId(0), told());
        assert!(!parcels.let_connections_come());
        parcels.add(ShardId(1), state(10));
        assert!(!parcels.let_connections_come());
        parcels.add(ShardId(1), told());
        assert!(parcels.let_connections_come());
        assert!(!parcels.let_connections_come(), "once");
        parcels.add(ShardId(0), connections(70, 5));
        parcels.add_nodes(vec![vec![1; 3]; 2]);
        for shard in [0, 1] {
            assert!(!parcels.are_told());
            let last = Exported {
                is_last: true,
                left: 1,
                stuck: 1,
                ..Exported::default()
            };
            parcels.add(ShardId(shard), last);
        }
        assert!(parcels.are_told() && !parcels.are_done());
        let expected = [
            ("State", 1),
            ("State", 1),
            ("State", 1),
            ("Connections", 64),
            ("Connections", 6),
            ("Nodes", 1),
            ("Nodes", 1),
        ];
        assert_eq!(drain(&mut parcels), expected);
        assert!(parcels.are_done());
        let sent = End {
            connections: 70,
            states: 5,
        };
        assert_eq!((parcels.sent(), parcels.left()), (&sent, 4));
        assert_eq!(parcels.sent_bytes(), 30 + 70 * 5);
    }

    #[test]
    fn a_frame_that_two_shards_tell_goes_once_and_the_second_may_tell_something_else_for_it() {
        let mut parcels = Parcels::new(2);
        let bytes: Arc<[u8]> = vec![7; parcels.share_bytes()].into();
        let small: Arc<[u8]> = vec![8; 10].into();
        parcels.add(ShardId(0), frames(&[(5, &bytes), (6, &small)]));
        assert_eq!(parcels.take_room(), []);
        parcels.add(ShardId(1), frames(&[(5, &bytes), (7, &small)]));
        assert_eq!(parcels.take_room(), [(ShardId(1), bytes.len())]);
        assert_eq!(drain(&mut parcels), [("Frames", 2), ("Frames", 1)]);
        assert_eq!(parcels.sent().states, 3);
        assert_eq!(parcels.sent_bytes(), bytes.len() as u64 + 20);
        assert_eq!(parcels.take_room(), [(ShardId(0), bytes.len() + 10)]);
        assert_eq!(Arc::strong_count(&bytes), 2, "its number stays its own");
    }

    #[test]
    fn what_waits_is_bounded_however_much_shards_have_to_tell() {
        const PART: usize = 1 << 20;
        const PARTS: usize = 20;
        for shards in [1, 3, 128] {
            let mut parcels = Parcels::new(shards);
            let mut room = vec![parcels.share_bytes() as i64; usize::from(shards)];
            let mut left = vec![PARTS; usize::from(shards)];
            let bound = WAITING_BYTES.max(usize::from(shards) * SHARE_BYTES_MIN);
            let bound = bound + usize::from(shards) * PART;
            let (mut got, mut highest) = (Got::new(), 0);
            for _ in 0..10_000 {
                for shard in 0..shards {
                    let at = usize::from(shard);
                    while room[at] > 0 && left[at] > 0 {
                        room[at] -= PART as i64;
                        left[at] -= 1;
                        let is_last = left[at] == 0;
                        let part = Exported {
                            is_last,
                            ..connections(1, PART)
                        };
                        parcels.add(ShardId(shard), part);
                    }
                }
                highest = highest.max(waiting(&parcels));
                push(&mut parcels, &mut got);
                parcels.acknowledged();
                for (shard, bytes) in parcels.take_room() {
                    room[usize::from(shard.0)] += bytes as i64;
                }
            }
            assert!(highest <= bound, "{shards}: {highest} of {bound}");
            assert!(parcels.are_done(), "{shards}: nobody stops midway");
            assert_eq!(got.len(), PARTS * usize::from(shards));
        }
    }

    #[test]
    fn a_link_that_is_full_is_tried_again_and_one_that_fails_ends_it() {
        let full = || io::Error::from(io::ErrorKind::WouldBlock);
        let mut parcels = Parcels::new(1);
        (0..3).for_each(|_| parcels.add(ShardId(0), state(9)));
        let mut sent = 0;
        let pushed = parcels.push(|_, _| {
            sent += 1;
            if sent == 2 { Err(full()) } else { Ok(()) }
        });
        assert_eq!(pushed, Ok(()));
        assert_eq!((parcels.in_flight, parcels.waits.len()), (1, 2));
        assert_eq!(parcels.sent_bytes(), 9);
        let failed = parcels.push(|_, _| Err(io::Error::from(io::ErrorKind::BrokenPipe)));
        assert!(failed.is_err());
        parcels.acknowledged();
        let stuck = parcels.push(|_, _| Err(full()));
        assert!(stuck.is_err(), "nobody will make room");
    }
}
