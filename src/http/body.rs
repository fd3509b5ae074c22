//! A chunked request body, taken apart as it arrives.
//!
//! Owns: the chunked coding (RFC 9112, section 7.1), strictly: what a lenient parser would read
//! differently is refused.
//! May depend on: `request` (errors), serde.
//! Invariants: the body never exceeds its limit; extensions and trailers are bounded and dropped;
//! nothing is held.

use serde::{Deserialize, Serialize};

use crate::http::request::{CHUNK_FRAMING_BYTES_MAX, HttpError};

/// Where in a body its reader is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ChunkedBody {
    /// Of the body so far.
    body_bytes: usize,
    body_bytes_max: usize,
    /// Bytes of size lines' extensions and of trailers so far: what is read but not kept.
    dropped_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum State {
    Size { bytes: u64, digits: u8 },
    Extension { bytes: u64 },
    SizeEnd { bytes: u64 },
    Data { left: usize },
    DataReturn,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    Complete,
}

impl ChunkedBody {
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            body_bytes: 0,
            body_bytes_max,
            dropped_bytes: 0,
            state: START,
        }
    }

    /// Takes what it can of `bytes` and returns how much that was: all, unless the body ended
    /// before. What is of the body itself goes to `keep`, in order.
    ///
    /// # Errors
    /// The coding is broken, or the body is longer than it may be.
    pub fn feed(&mut self, bytes: &[u8], mut keep: impl FnMut(&[u8])) -> Result<usize, HttpError> {
        let mut rest = bytes;
        while self.state != State::Complete
            && let Some((&byte, after)) = rest.split_first()
        {
            if let State::Data { left } = self.state {
                let (data, after) = rest.split_at(left.min(rest.len()));
                keep(data);
                self.body_bytes += data.len();
                rest = after;
                self.state = match left - data.len() {
                    0 => State::DataReturn,
                    left => State::Data { left },
                };
                continue;
            }
            self.state = self.step(byte)?;
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }

    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, HttpError> {
        Ok(match (self.state, byte) {
            (State::Size { bytes, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == SIZE_DIGITS_MAX {
                    return Err(MALFORMED);
                }
                let digit = char::from(byte).to_digit(16).ok_or(MALFORMED)?;
                State::Size {
                    bytes: bytes << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(MALFORMED),
            (State::Size { bytes, .. }, b'\r') => State::SizeEnd { bytes },
            (State::Size { bytes, .. }, b';') => State::Extension { bytes },
            (State::Extension { bytes }, b'\r') => State::SizeEnd { bytes },
            (State::Extension { bytes }, _) if byte != b'\n' => {
                self.drop_byte()?;
                State::Extension { bytes }
            }
            (State::SizeEnd { bytes: 0 }, b'\n') => State::TrailerStart,
            (State::SizeEnd { bytes }, b'\n') => State::Data {
                left: self.room_for(bytes)?,
            },
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => START,
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::TrailerStart | State::Trailer, _) if byte != b'\r' && byte != b'\n' => {
                self.drop_byte()?;
                State::Trailer
            }
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastEnd, b'\n') => State::Complete,
            _ => return Err(MALFORMED),
        })
    }

    fn room_for(&self, bytes: u64) -> Result<usize, HttpError> {
        let room = self.body_bytes_max.saturating_sub(self.body_bytes);
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= room)
            .ok_or(HttpError::BodyTooLarge {
                bytes_max: self.body_bytes_max,
            })
    }

    fn drop_byte(&mut self) -> Result<(), HttpError> {
        self.dropped_bytes += 1;
        if self.dropped_bytes > CHUNK_FRAMING_BYTES_MAX {
            Err(HttpError::ChunkFraming)
        } else {
            Ok(())
        }
    }
}

const START: State = State::Size {
    bytes: 0,
    digits: 0,
};
const MALFORMED: HttpError = HttpError::Malformed("chunked body");
/// As many as a u64 holds.
const SIZE_DIGITS_MAX: u8 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<(Vec<u8>, usize, bool), HttpError> {
        let mut body = ChunkedBody::new(100);
        let mut kept = Vec::new();
        let consumed = body.feed(bytes, |data| kept.extend_from_slice(data))?;
        Ok((kept, consumed, body.is_complete()))
    }

    #[test]
    fn chunks_make_one_body_and_what_follows_is_left() {
        for (text, body, left) in [
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
            (
                "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /",
                "hello world",
                "GET /",
            ),
            ("00A;x=\"y\"\r\n0123456789\r\n0\r\n\r\n", "0123456789", ""),
            (
                "1\r\n\r\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\nrest",
                "\r",
                "rest",
            ),
        ] {
            let decoded = decoded(text.as_bytes());
            assert_eq!(
                decoded,
                Ok((body.into(), text.len() - left.len(), true)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn framing_that_another_parser_may_read_differently_is_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "1 \r\n",
            "0x1\r\n",
            "1\n",
            "1\ra",
            "1;a\n",
            ";\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\rb",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\rx",
            "00000000000000001\r\n",
            "10000000000000000\r\n",
        ] {
            assert_eq!(decoded(text.as_bytes()), Err(MALFORMED), "{text:?}");
        }
    }

    #[test]
    fn a_body_may_have_exactly_the_limit_in_bytes() {
        for (bytes, accepted) in [(99, true), (100, true), (101, false)] {
            let one = format!("{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes));
            let two = format!(
                "a\r\n0123456789\r\n{:x}\r\n{}\r\n0\r\n\r\n",
                bytes - 10,
                "x".repeat(bytes - 10)
            );
            for text in [one, two] {
                match decoded(text.as_bytes()) {
                    Ok((body, _, complete)) => assert!(accepted && complete && body.len() == bytes),
                    Err(error) => {
                        assert!(!accepted);
                        assert_eq!(error, HttpError::BodyTooLarge { bytes_max: 100 });
                    }
                }
            }
        }
        // Refused from the size, before the data.
        assert!(decoded(b"FFFFFFFFFFFFFFFF\r\n").is_err());
    }

    #[test]
    fn extensions_and_trailers_are_bounded_in_all_and_the_refusal_says_by_what() {
        for (bytes, accepted) in [(4095, true), (4096, true), (4097, false)] {
            let extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(bytes));
            let trailer = format!("0\r\n{}\r\n\r\n", "x".repeat(bytes));
            let ninety = format!("1;{}\r\na\r\n", "x".repeat(bytes / 90)).repeat(90);
            let both = format!("{ninety}0\r\n{}\r\n\r\n", "x".repeat(bytes % 90));
            for text in [extension, trailer, both] {
                let error = decoded(text.as_bytes()).err();
                assert_eq!(error.is_none(), accepted, "{bytes} bytes");
                if let Some(error) = error {
                    let text = "chunk extensions and trailers exceed 4096 bytes";
                    assert_eq!((&*error.to_string(), error.status().code()), (text, 400));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn splitting_the_bytes_anywhere_changes_nothing(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..5),
            piece_bytes in 1_usize..9,
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend(format!("{:X}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            let mut body = ChunkedBody::new(1000);
            let mut kept = Vec::new();
            let mut feed = |body: &mut ChunkedBody, bytes: &[u8]| {
                body.feed(bytes, |data| kept.extend_from_slice(data))
            };
            for piece in bytes.chunks(piece_bytes) {
                prop_assert!(!body.is_complete());
                prop_assert_eq!(feed(&mut body, piece), Ok(piece.len()));
            }
            prop_assert!(body.is_complete());
            prop_assert_eq!(feed(&mut body, b"more"), Ok(0));
            prop_assert_eq!(kept, chunks.concat());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decoded(&bytes);
        }
    }
}
