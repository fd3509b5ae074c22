//! Data path. The bytes that outboxes refer to, known by a number.
//!
//! Owns: every frame of one shard: shared ones (`Arc<[u8]>`) and one connection's own.
//! May depend on: `application::FrameId` only.
//! Invariants: a frame lives until the end of the turn that made it, and as long as an outbox
//! refers to it; bytes handed out by `bytes` do not move until `end_turn` or the next `add`. A turn
//! adds what its budget of work pays for, some 20 MB at the most, and what one step may answer.

use crate::application::FrameId;
use std::sync::Arc;

/// Bytes of one `send` above which they get memory of their own instead of the turn's arena.
const ARENA_FRAME_BYTES_MAX: usize = 65_536;
/// An arena larger than this is given back at the end of a turn.
const ARENA_KEPT_BYTES_MAX: usize = 1_048_576;

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
                    len: bytes.len() as u32,
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
        *len += more.len() as u32;
        true
    }

    fn add(&mut self, bytes: Bytes) -> FrameId {
        let frame = Frame {
            bytes,
            references: 0,
            fresh: true,
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

#[cfg(test)]
mod tests {
    use super::*;

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
