//! A request body that comes in pieces: kept and hashed as it arrives, or discarded.
//!
//! Owns: `Body`, how much of a body is still to come, and until when.
//! May depend on: `http::body`, `handover::record`, `protocol::request_auth` (digests), plain ids.
//! Invariants: raw bytes are dropped as they are decoded; each byte is hashed once; a discarded body
//! holds its request's head at most; a request has one deadline, which only bytes of its body move, and only by the
//! time that they may take.

use shards::application::Millis;

use crate::{
    handover::record::{BodyRecord, CodingRecord},
    http::{
        body::ChunkedBody,
        request::{BodyFraming, HttpError},
    },
    protocol::request_auth::BodyDigest,
};

/// A body under way.
#[derive(Clone, Debug)]
pub struct Body {
    /// The request's head as it came; empty when the request has its answer.
    pub head: Box<[u8]>,
    coding: Coding,
    kept: Option<Kept>,
    began_at: Millis,
    received_bytes: u64,
    /// Without its coding, kept or not.
    body_bytes: usize,
}

#[derive(Clone, Debug)]
enum Coding {
    Length { left: usize },
    Chunked(ChunkedBody),
}

#[derive(Clone, Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    digest: BodyDigest,
}

/// How fast a request's body, or a message on a WebSocket, must arrive.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the rate counts: what a request's head may take, or a client's silence.
    pub grace_ms: u64,
    /// 0 = none: it may take an hour.
    pub bytes_per_s_min: u32,
}

/// What a body or message may take when no rate is asked for.
const UNHURRIED_MS: u64 = 3_600_000;

impl Pace {
    /// How long so many bytes may take.
    pub fn within_ms(self, bytes: u64) -> u64 {
        let at_rate_ms = match u64::from(self.bytes_per_s_min) {
            0 => UNHURRIED_MS,
            rate => bytes.saturating_mul(1_000) / rate,
        };
        self.grace_ms + at_rate_ms
    }
}

impl Body {
    /// A body that is kept, of a request whose head is `head`.
    pub fn kept(head: &[u8], framing: BodyFraming, bytes_max: usize, now: Millis) -> Self {
        Self {
            kept: Some(Kept::default()),
            ..Self::discarded(head, framing, bytes_max, now)
        }
    }

    /// A body that nobody wants: it is read, so that the next request can be found. `head` is empty
    /// if the answer is given before.
    pub fn discarded(head: &[u8], framing: BodyFraming, bytes_max: usize, now: Millis) -> Self {
        let coding = match framing {
            BodyFraming::Empty => Coding::Length { left: 0 },
            BodyFraming::Length(bytes) => Coding::Length {
                left: usize::try_from(bytes).unwrap_or(usize::MAX),
            },
            BodyFraming::Chunked => Coding::Chunked(ChunkedBody::new(bytes_max)),
        };
        Self {
            head: head.into(),
            coding,
            kept: None,
            began_at: now,
            received_bytes: 0,
            body_bytes: 0,
        }
    }

    /// Takes what it can of `bytes` and returns how much that was: all, unless the body ended
    /// before.
    ///
    /// # Errors
    /// The chunked coding is broken, or the body is longer than it may be.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        let (kept, body_bytes) = (&mut self.kept, &mut self.body_bytes);
        let mut keep = |bytes: &[u8]| {
            *body_bytes += bytes.len();
            if let Some(kept) = kept {
                kept.bytes.extend_from_slice(bytes);
                kept.digest.update(bytes);
            }
        };
        let taken = match &mut self.coding {
            Coding::Length { left } => {
                let taken = bytes.len().min(*left);
                keep(bytes.get(..taken).unwrap_or_default());
                *left -= taken;
                taken
            }
            Coding::Chunked(chunks) => chunks.feed(bytes, keep)?,
        };
        self.received_bytes += taken as u64;
        Ok(taken)
    }

    /// What another process is told of it.
    pub fn record(&self) -> BodyRecord {
        BodyRecord {
            head: self.head.to_vec(),
            coding: match &self.coding {
                Coding::Length { left } => CodingRecord::Length(*left as u64),
                Coding::Chunked(chunks) => CodingRecord::Chunked(chunks.clone()),
            },
            kept: self.kept.as_ref().map(|kept| kept.bytes.clone().into()),
            began_at_ms: self.began_at.0,
            received_bytes: self.received_bytes,
            body_bytes: self.body_bytes as u64,
        }
    }

    /// The body of a record; what is kept of it is hashed again.
    pub fn restored(record: BodyRecord) -> Self {
        let kept = record.kept.map(|bytes| {
            let mut digest = BodyDigest::default();
            digest.update(&bytes);
            Kept {
                bytes: bytes.into_vec(),
                digest,
            }
        });
        Self {
            head: record.head.into(),
            coding: match record.coding {
                CodingRecord::Length(left) => Coding::Length {
                    left: usize::try_from(left).unwrap_or(usize::MAX),
                },
                CodingRecord::Chunked(chunks) => Coding::Chunked(chunks),
            },
            kept,
            began_at: Millis(record.began_at_ms),
            received_bytes: record.received_bytes,
            body_bytes: usize::try_from(record.body_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Bytes of the body so far, without its coding.
    pub fn bytes(&self) -> usize {
        self.body_bytes
    }

    pub fn is_complete(&self) -> bool {
        match &self.coding {
            Coding::Length { left } => *left == 0,
            Coding::Chunked(chunks) => chunks.is_complete(),
        }
    }

    /// Nothing of the body has come, its coding apart.
    pub fn is_empty(&self) -> bool {
        self.body_bytes == 0
    }

    /// What arrives is thrown away.
    pub fn is_discarded(&self) -> bool {
        self.kept.is_none()
    }

    /// The request has its answer: only its end is looked for.
    pub fn is_answered(&self) -> bool {
        self.head.is_empty()
    }

    /// When the rest must have arrived: each byte gives the time that it may take.
    pub fn deadline(&self, pace: Pace) -> Millis {
        self.began_at.plus(pace.within_ms(self.received_bytes))
    }

    /// What is in memory of the body itself, beside the head.
    pub fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.len())
    }

    /// The head, the body and its digest.
    pub fn into_parts(self) -> (Box<[u8]>, Vec<u8>, BodyDigest) {
        let kept = self.kept.unwrap_or_default();
        (self.head, kept.bytes, kept.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        grace_ms: 10_000,
        bytes_per_s_min: 1_000,
    };

    #[test]
    fn a_byte_now_and_then_does_not_keep_a_request_alive() {
        for framing in [BodyFraming::Length(50_000), BodyFraming::Chunked] {
            let mut body = Body::kept(b"head", framing, 100_000, Millis(5_000));
            assert_eq!(body.deadline(PACE), Millis(15_000));
            let bytes: &[u8] = if framing == BodyFraming::Chunked {
                b"c350\r\nx"
            } else {
                b"1234567"
            };
            for byte in bytes {
                assert_eq!(body.feed(&[*byte]), Ok(1));
            }
            assert_eq!(body.deadline(PACE), Millis(15_007), "a millisecond each");
            assert!(!body.is_complete());
        }
    }

    #[test]
    fn a_body_that_comes_at_the_rate_has_all_the_time_that_it_takes() {
        let mut body = Body::kept(b"head", BodyFraming::Length(1_000_000), 1 << 20, Millis(0));
        for second in 0..1_000 {
            assert!(body.deadline(PACE) > Millis(1_000 * second));
            assert_eq!(body.feed(&[b'x'; 1_000]), Ok(1_000));
        }
        assert!(body.is_complete());
        assert_eq!(body.feed(b"POST"), Ok(0), "the next request is not touched");
    }

    #[test]
    fn a_body_in_any_pieces_is_the_same_and_one_that_is_discarded_holds_nothing() {
        let whole = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\nGET";
        for piece in 1..whole.len() {
            let mut kept = Body::kept(b"head", BodyFraming::Chunked, 11, Millis(0));
            let mut discarded = Body::discarded(b"", BodyFraming::Chunked, 11, Millis(0));
            let mut taken = 0;
            for bytes in whole.chunks(piece) {
                taken += kept.feed(bytes).expect("a sound body");
                discarded.feed(bytes).expect("a sound body");
                assert_eq!(discarded.kept_bytes(), 0);
            }
            assert_eq!(taken, whole.len() - 3, "in pieces of {piece}");
            assert!(kept.is_complete() && discarded.is_complete());
            assert_eq!(kept.kept_bytes(), "hello world".len());
            let (head, body, digest) = kept.into_parts();
            assert_eq!((&*head, &*body), (&b"head"[..], &b"hello world"[..]));
            assert_eq!(&digest.hex(), b"5eb63bbbe01eeed093cb22bb8f5acdc3");
            assert!(discarded.into_parts().1.is_empty());
        }
        let mut body = Body::discarded(b"", BodyFraming::Chunked, 10, Millis(0));
        assert!(
            body.feed(whole).is_err(),
            "also what is discarded has its bound"
        );
    }
}
