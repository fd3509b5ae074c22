//! Data path. The bytes that outboxes refer to, known by a number.
//!
//! Owns: every frame of one shard: shared ones (`Arc<[u8]>`) and one connection's own.
//! May depend on: `application::FrameId`, `carried::SharedFrame` and `connections::row_bytes` only.
//! Invariants: a frame lives until the end of the turn that made it, and as long as an outbox
//! refers to it; bytes handed out by `bytes` do not move until `end_turn` or the next `add`. A turn
//! adds what its budget of work pays for, some 20 MB at the most, and what one step may answer.

use crate::{application::FrameId, carried::SharedFrame, connections::row_bytes};
use std::sync::Arc;

/// Bytes of one `send` above which they get memory of their own instead of the turn's arena.
const ARENA_FRAME_BYTES_MAX: usize = 65_536;
/// An arena larger than this is given back at the end of a turn.
const ARENA_KEPT_BYTES_MAX: usize = 1_048_576;
/// Frames that are looked at in one step of telling.
pub(crate) const LOOKED_AT_ONCE: u32 = 256;
/// Bytes of frames that are told in one step, or one frame more.
const TOLD_BYTES: usize = 65_536;

enum Bytes {
    Free {
        next: u32,
    },
    Shared(Arc<[u8]>),
    Own(Box<[u8]>),
    /// In the turn's arena; moved to `Own` at the end of the turn if it is still wanted.
    Arena {
        offset: u32,
        len: u32,
    },
}

struct Frame {
    bytes: Bytes,
    /// Outbox entries that name this frame. Plain: a frame never leaves its shard.
    references: u32,
    /// Made in this turn: it is freed at the turn's end at the earliest.
    fresh: bool,
    /// It was told to another process: connections may be carried with its number.
    told: bool,
}

const NONE: u32 = u32::MAX;

/// All frames of one shard.
pub(crate) struct FrameTable {
    frames: Vec<Frame>,
    first_free: u32,
    /// Frames made in this turn.
    fresh: Vec<u32>,
    arena: Vec<u8>,
}

impl FrameTable {
    pub(crate) fn new() -> Self {
        Self {
            frames: Vec::new(),
            first_free: NONE,
            fresh: Vec::new(),
            arena: Vec::with_capacity(65_536),
        }
    }

    pub(crate) fn add_shared(&mut self, bytes: Arc<[u8]>) -> FrameId {
        self.add(Bytes::Shared(bytes))
    }

    /// Takes a copy of bytes that one connection alone sends.
    // One copy into the turn's arena; no allocation when they leave within the turn.
    pub(crate) fn add_own(&mut self, bytes: &[u8]) -> FrameId {
        if bytes.len() > ARENA_FRAME_BYTES_MAX {
            return self.add(Bytes::Own(Box::from(bytes)));
        }
        match u32::try_from(self.arena.len()) {
            Ok(offset) if offset < u32::MAX / 2 => {
                self.arena.extend_from_slice(bytes);
                self.add(Bytes::Arena {
                    offset,
                    len: row_bytes(bytes.len()),
                })
            }
            _ => self.add(Bytes::Own(Box::from(bytes))),
        }
    }

    /// Takes bytes that somebody has put together already.
    pub(crate) fn add_boxed(&mut self, bytes: Box<[u8]>) -> FrameId {
        self.add(Bytes::Own(bytes))
    }

    /// Appends to `frame` when it is the arena's last and nobody else refers to it.
    pub(crate) fn extend_own(&mut self, frame: FrameId, more: &[u8]) -> bool {
        let Frame {
            bytes: Bytes::Arena { offset, len },
            references: 1,
            ..
        } = &mut self.frames[frame.0 as usize]
        else {
            return false;
        };
        let ends = *offset as usize + *len as usize;
        if ends != self.arena.len() || *len as usize + more.len() > ARENA_FRAME_BYTES_MAX {
            return false;
        }
        self.arena.extend_from_slice(more);
        *len += row_bytes(more.len());
        true
    }

    fn add(&mut self, bytes: Bytes) -> FrameId {
        let frame = Frame {
            bytes,
            references: 0,
            fresh: true,
            told: false,
        };
        let index = if self.first_free == NONE {
            let index = u32::try_from(self.frames.len()).expect("fewer than 2^32 frames");
            self.frames.push(frame);
            index
        } else {
            let index = self.first_free;
            let Bytes::Free { next } = self.frames[index as usize].bytes else {
                unreachable!("the free list holds free frames only")
            };
            self.first_free = next;
            self.frames[index as usize] = frame;
            index
        };
        self.fresh.push(index);
        FrameId(index)
    }

    /// The frame's bytes.
    pub(crate) fn bytes(&self, frame: FrameId) -> &[u8] {
        match &self.frames[frame.0 as usize].bytes {
            Bytes::Shared(bytes) => bytes,
            Bytes::Own(bytes) => bytes,
            Bytes::Arena { offset, len } => {
                &self.arena[*offset as usize..*offset as usize + *len as usize]
            }
            Bytes::Free { .. } => unreachable!("a freed frame was named"),
        }
    }

    /// Tells those of some frames, `from` being the first, that somebody else waits for too; where the next ones
    /// begin, `None` behind the last. Whoever was told before and is not now is forgotten as told.
    // Per frame a cache line and one of its count; no copy.
    pub(crate) fn tell_shared(&mut self, from: u32, into: &mut Vec<SharedFrame>) -> Option<u32> {
        let (mut bytes_told, mut looked_at) = (0, 0);
        for frame in self.frames.iter_mut().skip(from as usize) {
            if looked_at == LOOKED_AT_ONCE || bytes_told >= TOLD_BYTES {
                break;
            }
            looked_at += 1;
            frame.told = false;
            let Bytes::Shared(bytes) = &frame.bytes else {
                continue;
            };
            if frame.references == 0 || frame.references == 1 && Arc::strong_count(bytes) == 1 {
                continue;
            }
            frame.told = true;
            bytes_told += bytes.len();
            into.push(SharedFrame {
                number: number_of(bytes),
                bytes: Arc::clone(bytes),
            });
        }
        let next = from + looked_at;
        ((next as usize) < self.frames.len()).then_some(next)
    }

    /// The number under which a frame was told.
    pub(crate) fn told_as(&self, frame: FrameId) -> Option<u64> {
        match &self.frames[frame.0 as usize] {
            Frame {
                bytes: Bytes::Shared(bytes),
                told: true,
                ..
            } => Some(number_of(bytes)),
            _ => None,
        }
    }

    pub(crate) fn retain(&mut self, frame: FrameId) {
        self.frames[frame.0 as usize].references += 1;
    }

    pub(crate) fn release(&mut self, frame: FrameId) {
        let held = &mut self.frames[frame.0 as usize];
        assert!(held.references > 0);
        held.references -= 1;
        if held.references == 0 && !held.fresh {
            self.free(frame.0);
        }
    }

    /// Frees this turn's frames that no outbox wants; moves those that must stay out of the arena.
    pub(crate) fn end_turn(&mut self) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for index in fresh.drain(..) {
            let frame = &mut self.frames[index as usize];
            frame.fresh = false;
            if frame.references == 0 {
                self.free(index);
            } else if let Bytes::Arena { offset, len } = frame.bytes {
                let (offset, len) = (offset as usize, len as usize);
                frame.bytes = Bytes::Own(Box::from(&self.arena[offset..offset + len]));
            }
        }
        self.fresh = fresh;
        self.arena.clear();
        if self.arena.capacity() > ARENA_KEPT_BYTES_MAX {
            self.arena.shrink_to(ARENA_KEPT_BYTES_MAX);
        }
    }

    fn free(&mut self, index: u32) {
        self.frames[index as usize].bytes = Bytes::Free {
            next: self.first_free,
        };
        self.first_free = index;
    }
}

/// Where its bytes are: the same on all shards, and nobody else's as long as they are held.
fn number_of(bytes: &Arc<[u8]>) -> u64 {
    bytes.as_ptr().addr() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_shared(frames: &mut FrameTable) -> (Vec<SharedFrame>, usize) {
        let (mut told, mut steps, mut from) = (Vec::new(), 1, 0);
        while let Some(next) = frames.tell_shared(from, &mut told) {
            assert!(next > from, "it gets on");
            (from, steps) = (next, steps + 1);
        }
        (told, steps)
    }

    #[test]
    fn only_frames_that_somebody_else_waits_for_too_are_told_and_each_once() {
        let mut frames = FrameTable::new();
        let elsewhere: Arc<[u8]> = Arc::from(&b"elsewhere"[..]);
        let (twice, once) = (
            frames.add_shared(Arc::from(&b"twice"[..])),
            frames.add_shared(Arc::from(&b"once"[..])),
        );
        let (far, own) = (frames.add_shared(elsewhere.clone()), frames.add_own(b"own"));
        let unwanted = frames.add_shared(elsewhere.clone());
        for frame in [twice, twice, once, far, own] {
            frames.retain(frame);
        }
        frames.end_turn();
        let (told, _) = all_shared(&mut frames);
        let bytes: Vec<_> = told.iter().map(|it| it.bytes.to_vec()).collect();
        assert_eq!(bytes, [b"twice".to_vec(), b"elsewhere".to_vec()]);
        assert_eq!(frames.told_as(twice), Some(told[0].number));
        assert_eq!(frames.told_as(far), Some(told[1].number));
        assert_ne!(told[0].number, told[1].number);
        assert_eq!((frames.told_as(once), frames.told_as(own)), (None, None));
        drop((told, elsewhere));
        frames.release(twice);
        assert_eq!(frames.add_shared(Arc::from(&b"new"[..])), unwanted);
        assert_eq!(frames.told_as(unwanted), None, "another one has its place");
        assert_eq!(all_shared(&mut frames).0, [], "now each waits once");
        assert_eq!((frames.told_as(twice), frames.told_as(far)), (None, None));
    }

    #[test]
    fn a_step_of_telling_is_bounded_by_bytes_and_by_frames() {
        for (count, bytes, steps) in [(1_000, 10, 4), (1_000, 10_000, 143), (3, 100_000, 3)] {
            let mut frames = FrameTable::new();
            for _ in 0..count {
                let frame = frames.add_shared(vec![7; bytes].into());
                frames.retain(frame);
                frames.retain(frame);
            }
            let (told, taken) = all_shared(&mut frames);
            assert_eq!((told.len(), taken), (count, steps), "of {bytes} bytes");
        }
    }

    #[test]
    fn a_frame_that_nobody_wants_is_gone_after_its_turn_and_its_number_is_used_again() {
        let mut frames = FrameTable::new();
        let bytes: Arc<[u8]> = Arc::from(&b"hello"[..]);
        let first = frames.add_shared(bytes.clone());
        frames.retain(first);
        frames.release(first);
        assert_eq!(frames.bytes(first), b"hello");
        frames.end_turn();
        assert_eq!(Arc::strong_count(&bytes), 1);
        assert_eq!(frames.add_own(b"again"), first);
    }

    #[test]
    fn own_bytes_outlive_the_turn_while_an_outbox_refers_to_them() {
        let mut frames = FrameTable::new();
        let frame = frames.add_own(b"pong");
        frames.retain(frame);
        frames.end_turn();
        let other = frames.add_own(b"else");
        assert_ne!(frame, other);
        assert_eq!(frames.bytes(frame), b"pong");
        frames.release(frame);
        frames.end_turn();
        assert_eq!(frames.add_own(b"1"), other);
        assert_eq!(frames.add_own(b"2"), frame);
    }

    #[test]
    fn only_the_arenas_last_frame_can_be_extended() {
        let mut frames = FrameTable::new();
        let (one, two) = (frames.add_own(b"one"), frames.add_own(b"two"));
        frames.retain(one);
        frames.retain(two);
        assert!(!frames.extend_own(one, b"!"));
        assert!(frames.extend_own(two, b"!"));
        assert_eq!(frames.bytes(one), b"one");
        assert_eq!(frames.bytes(two), b"two!");
    }
}
