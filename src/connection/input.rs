//! Data path. What a peer has sent and nobody has handled yet.
//!
//! Owns: `Input`.
//! May depend on: nothing.
//! Invariants: without bytes there is no buffer, and none is kept for later.

use std::ops::{Deref, DerefMut, RangeTo};

/// Unfinished or held input of one connection. Nearly always there is none: it takes eight bytes of the row then.
///
/// Whole frames are handled where they were received, and never come here. What does costs two allocations,
/// of the buffer and of its head, which last until all of it is handled: neither more bytes behind it nor the
/// handling of those before cost another, save that the buffer grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::box_collection,
    reason = "a row has eight bytes for it, not 24"
)]
pub struct Input(Option<Box<Vec<u8>>>);

const _: () = assert!(size_of::<Input>() == 8);

impl Input {
    /// More bytes have come.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.get_or_insert_default().extend_from_slice(bytes);
        }
    }

    /// The first bytes have been handled. Panics if there are not so many.
    pub fn drain(&mut self, handled: RangeTo<usize>) {
        if handled.end == self.len() {
            self.0 = None;
        } else if let Some(bytes) = &mut self.0 {
            bytes.drain(handled);
        } else {
            panic!("{} bytes of none were handled", handled.end);
        }
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().map_or(&mut [], Vec::as_mut_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bytes_there_is_no_buffer() {
        let mut input = Input::default();
        input.extend_from_slice(b"");
        assert_eq!((&*input, &input), (&b""[..], &Input(None)));
        input.drain(..0);
        assert_eq!(input, Input::from(Vec::with_capacity(100)));
        input.extend_from_slice(b"ab");
        input.extend_from_slice(b"");
        input.extend_from_slice(b"cde");
        assert_eq!(&*input, b"abcde");
        input[1] = b'x';
        input.drain(..0);
        input.drain(..1);
        assert_eq!(&*input, b"xcde");
        input.drain(..3);
        assert_eq!(input, Input::from(b"e".to_vec()));
        input.drain(..1);
        assert_eq!(input, Input(None));
    }

    #[test]
    fn its_head_stays_where_it_is_until_all_is_handled() {
        let head = |input: &Input| input.0.as_deref().map(std::ptr::from_ref);
        let mut input = Input::from(b"abc".to_vec());
        let first = head(&input);
        assert!(first.is_some());
        for _ in 0..10 {
            let mut taken = std::mem::take(&mut input);
            taken.drain(..2);
            taken.extend_from_slice(b"de");
            input = taken;
            assert_eq!(head(&input), first);
        }
    }

    #[test]
    #[should_panic = "1 bytes of none were handled"]
    fn what_is_not_there_cannot_be_handled() {
        Input::default().drain(..1);
    }
}
