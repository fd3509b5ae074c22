//! Data path. Frames that a client sends: bytes in, messages and control frames out.
//!
//! The caller hands in what it has received and not yet seen consumed, from a frame's first byte. A
//! frame is looked at again when more of it arrives, but only its header; its payload is unmasked
//! and validated once, when complete.
//!
//! Owns: header parsing, masking, fragments, UTF-8, the close codes that the RFC allows.
//! May depend on: `simdutf8`, `thiserror`.
//! Invariants: an unfragmented message is borrowed from the caller's bytes, not copied; a
//! fragmented one is held in one buffer of at most `message_bytes_max`; a message too large is
//! refused from a header, before its bytes are waited for; after a close or an error every further
//! byte is discarded.

use thiserror::Error;

/// What remains between two calls.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    held: Option<Box<Held>>,
}

// A connection has one for as long as it lives, and nearly always nothing in it.
const _: () = assert!(size_of::<Decoder>() == 8);

#[derive(Clone, Debug)]
enum Held {
    /// The message under construction.
    Part {
        kind: MessageKind,
        payload: Vec<u8>,
    },
    /// The one handed out last, until the next call.
    Text(String),
    Binary(Vec<u8>),
    /// A close was received or the peer broke the protocol: nothing more counts.
    Ended,
}

/// Doubles the buffer when it is full, as a vector does, but never beyond what a message may have.
fn append(message: &mut Vec<u8>, payload: &[u8], limits: &Limits) {
    // check_size has seen that both together are within the limit.
    let needed = message.len() + payload.len();
    if needed > message.capacity() {
        let doubled = (2 * message.capacity()).min(limits.message_bytes_max);
        message.reserve_exact(doubled.max(needed) - message.len());
    }
    message.extend_from_slice(payload);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Text,
    Binary,
}

/// Bounds that the connection's owner sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one message, all fragments together.
    pub message_bytes_max: usize,
}

/// What one call found.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes from the start are done with. Zero: the frame is incomplete, come back with
    /// more.
    pub consumed: usize,
    /// `None` also for a fragment that does not end its message.
    pub item: Option<Item<'a>>,
}

/// A whole message or a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// Code, if any, and reason.
    Close(Option<u16>, &'a str),
}

/// How a client broke the rules. The connection closes with `close_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WsError {
    #[error("client frame is not masked")]
    Unmasked,
    #[error("reserved bit without an extension")]
    ReservedBit,
    #[error("reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    #[error("continuation without a message")]
    UnexpectedContinuation,
    #[error("new message inside a fragmented one")]
    InterruptedMessage,
    #[error("control frame is fragmented")]
    FragmentedControl,
    #[error("control frame exceeds 125 bytes")]
    LongControl,
    #[error("close frame of one byte")]
    ShortClose,
    #[error("close code {0} is not allowed on the wire")]
    CloseCode(u16),
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("message exceeds {bytes_max} bytes")]
    TooBig { bytes_max: usize },
}

impl WsError {
    /// RFC 6455, section 7.4.1.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Unmasked
            | Self::ReservedBit
            | Self::ReservedOpcode(_)
            | Self::UnexpectedContinuation
            | Self::InterruptedMessage
            | Self::FragmentedControl
            | Self::LongControl
            | Self::ShortClose
            | Self::CloseCode(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig { .. } => 1009,
        }
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// A decoder that goes on with a message which another has begun: text or not, and its payload so
    /// far.
    pub fn inside_message(is_text: bool, payload: Vec<u8>) -> Self {
        let kind = if is_text {
            MessageKind::Text
        } else {
            MessageKind::Binary
        };
        let held = Some(Box::new(Held::Part { kind, payload }));
        Self { held }
    }

    /// The fragmented message that has begun and not ended; see `inside_message`.
    pub fn message_begun(&self) -> Option<(bool, &[u8])> {
        match self.held.as_deref()? {
            Held::Part { kind, payload } => Some((*kind == MessageKind::Text, payload)),
            Held::Text(_) | Held::Binary(_) | Held::Ended => None,
        }
    }

    /// Takes the first frame of `bytes`, unmasking it in place. Call again with what `consumed`
    /// leaves over (were it nothing: that gives back the buffer of a fragmented message) until it
    /// is zero, then with more bytes appended.
    ///
    /// Per payload byte: an eighth of a word operation to unmask, one pass for UTF-8, of SIMD unless
    /// the message is fragmented; no copy and no allocation unless it is, or the last one.
    pub fn decode<'a>(
        &'a mut self,
        bytes: &'a mut [u8],
        limits: &Limits,
    ) -> Result<Decoded<'a>, WsError> {
        match self.held.as_deref() {
            Some(Held::Ended) => {
                return Ok(Decoded {
                    consumed: bytes.len(),
                    item: None,
                });
            }
            // What was handed out by the call before is no longer borrowed.
            Some(Held::Text(_) | Held::Binary(_)) => self.held = None,
            Some(Held::Part { .. }) | None => {}
        }
        let (frame, consumed) = match self.decode_frame(bytes, limits) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Ok(Decoded {
                    consumed: 0,
                    item: None,
                });
            }
            Err(error) => return Err(self.ended(error)),
        };
        let item = self.item_of(frame, limits)?;
        Ok(Decoded { consumed, item })
    }

    /// Nothing more counts. What was held goes.
    fn ended(&mut self, error: WsError) -> WsError {
        self.held = Some(Box::new(Held::Ended));
        error
    }

    /// What a frame means, given the fragments before it.
    fn item_of<'a>(
        &'a mut self,
        frame: Frame<'a>,
        limits: &Limits,
    ) -> Result<Option<Item<'a>>, WsError> {
        let Frame {
            opcode,
            fin,
            payload,
        } = frame;
        let kind = match opcode {
            Opcode::Ping => return Ok(Some(Item::Ping(payload))),
            Opcode::Pong => return Ok(Some(Item::Pong(payload))),
            Opcode::Close => {
                self.held = Some(Box::new(Held::Ended));
                return close(payload).map(Some);
            }
            Opcode::Continuation => return self.go_on(payload, fin, limits),
            Opcode::Text => MessageKind::Text,
            Opcode::Binary => MessageKind::Binary,
        };
        if !fin {
            let payload = payload.to_vec();
            self.held = Some(Box::new(Held::Part { kind, payload }));
            return Ok(None);
        }
        match kind {
            MessageKind::Binary => Ok(Some(Item::Binary(payload))),
            MessageKind::Text => match text(payload) {
                Ok(text) => Ok(Some(Item::Text(text))),
                Err(error) => Err(self.ended(error)),
            },
        }
    }

    /// A fragment that is not its message's first.
    fn go_on(
        &mut self,
        fragment: &[u8],
        fin: bool,
        limits: &Limits,
    ) -> Result<Option<Item<'_>>, WsError> {
        // check_order has seen the beginning of this message.
        let Some(Held::Part { kind, payload }) = self.held.as_deref_mut() else {
            return Err(self.ended(WsError::UnexpectedContinuation));
        };
        append(payload, fragment, limits);
        if !fin {
            return Ok(None);
        }
        let whole = std::mem::take(payload);
        let whole = match kind {
            MessageKind::Binary => Held::Binary(whole),
            // Kept as a `String`, so that one pass will do.
            MessageKind::Text => match String::from_utf8(whole) {
                Ok(text) => Held::Text(text),
                Err(_) => return Err(self.ended(WsError::NotUtf8)),
            },
        };
        let held = self.held.get_or_insert_with(|| Box::new(Held::Ended));
        **held = whole;
        Ok(match &**held {
            Held::Text(text) => Some(Item::Text(text)),
            Held::Binary(bytes) => Some(Item::Binary(bytes)),
            Held::Part { .. } | Held::Ended => None,
        })
    }

    /// A fragmented message has begun and not ended.
    pub fn is_inside_message(&self) -> bool {
        self.message_begun().is_some()
    }

    /// Bytes held for a fragmented message.
    pub fn held_bytes(&self) -> usize {
        match self.held.as_deref() {
            Some(Held::Part { payload, .. } | Held::Binary(payload)) => payload.capacity(),
            Some(Held::Text(text)) => text.capacity(),
            Some(Held::Ended) | None => 0,
        }
    }

    /// Checks the first frame as far as it is there; unmasks and returns it when it is complete.
    fn decode_frame<'a>(
        &self,
        bytes: &'a mut [u8],
        limits: &Limits,
    ) -> Result<Option<(Frame<'a>, usize)>, WsError> {
        let Some(header) = Header::parse(bytes)? else {
            return Ok(None);
        };
        self.check_order(&header)?;
        self.check_size(&header, limits)?;
        let Ok(payload_bytes) = usize::try_from(header.payload_bytes) else {
            return Ok(None);
        };
        let Some((head, rest)) = bytes.split_at_mut_checked(header.bytes) else {
            return Ok(None);
        };
        let (Some(payload), Some(mask)) = (rest.get_mut(..payload_bytes), head.last_chunk::<4>())
        else {
            return Ok(None);
        };
        unmask(payload, *mask);
        let frame = Frame {
            opcode: header.opcode,
            fin: header.fin,
            payload,
        };
        Ok(Some((frame, header.bytes + payload_bytes)))
    }

    fn check_order(&self, header: &Header) -> Result<(), WsError> {
        match (header.opcode, self.is_inside_message()) {
            (Opcode::Continuation, false) => Err(WsError::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, true) => Err(WsError::InterruptedMessage),
            (Opcode::Continuation, true)
            | (Opcode::Text | Opcode::Binary, false)
            | (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => Ok(()),
        }
    }

    fn check_size(&self, header: &Header, limits: &Limits) -> Result<(), WsError> {
        let bytes_max = limits.message_bytes_max;
        if header.opcode.is_control() {
            return Ok(());
        }
        let held = self.message_begun().map_or(0, |(_, payload)| payload.len());
        match (held as u64).checked_add(header.payload_bytes) {
            Some(bytes) if bytes <= bytes_max as u64 => Ok(()),
            Some(_) | None => Err(WsError::TooBig { bytes_max }),
        }
    }
}

/// How long the first frame of `bytes` is, if it is whole; `None` also where its header breaks a rule.
pub fn whole_frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = Header::parse(bytes).ok()??;
    let payload_bytes = usize::try_from(header.payload_bytes).ok()?;
    let frame_bytes = header.bytes.checked_add(payload_bytes)?;
    (frame_bytes <= bytes.len()).then_some(frame_bytes)
}

/// A complete frame, unmasked.
struct Frame<'a> {
    opcode: Opcode,
    fin: bool,
    payload: &'a [u8],
}

fn text(payload: &[u8]) -> Result<&str, WsError> {
    simdutf8::basic::from_utf8(payload).map_err(|_| WsError::NotUtf8)
}

/// The payload of a close frame: nothing, or a code and a reason.
fn close(payload: &[u8]) -> Result<Item<'_>, WsError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(Item::Close(None, ""))
        } else {
            Err(WsError::ShortClose)
        };
    };
    // RFC 6455, section 7.4; 1012..=1014 were registered later.
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => {
            Ok(Item::Close(Some(code), text(reason)?))
        }
        code => Err(WsError::CloseCode(code)),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

/// The header of a frame. One that was parsed keeps every rule that a header alone can break.
#[derive(Debug)]
struct Header {
    opcode: Opcode,
    fin: bool,
    /// Of the header itself, mask included.
    bytes: usize,
    payload_bytes: u64,
}

impl Header {
    /// `None` when there is not enough of it to know the payload's length.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, WsError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(WsError::ReservedBit);
        }
        let opcode = match first & 0x0F {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xA => Opcode::Pong,
            reserved => return Err(WsError::ReservedOpcode(reserved)),
        };
        let fin = first & 0x80 != 0;
        if second & 0x80 == 0 {
            return Err(WsError::Unmasked);
        }
        let short = second & 0x7F;
        if opcode.is_control() && !fin {
            return Err(WsError::FragmentedControl);
        }
        if opcode.is_control() && short > 125 {
            return Err(WsError::LongControl);
        }
        let (length_bytes, payload_bytes) = match short {
            126 => match rest.first_chunk() {
                Some(length) => (2, u16::from_be_bytes(*length).into()),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (8, u64::from_be_bytes(*length)),
                None => return Ok(None),
            },
            short => (0, short.into()),
        };
        Ok(Some(Self {
            opcode,
            fin,
            bytes: 2 + length_bytes + MASK_BYTES,
            payload_bytes,
        }))
    }
}

/// Eight bytes per step; the compiler makes wider ones of it.
fn unmask(payload: &mut [u8], mask: [u8; MASK_BYTES]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c, d]) {
        *byte ^= key;
    }
}

const MASK_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        message_bytes_max: 65_536,
    };
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            bytes @ 0..=125 => out.push(0x80 | bytes as u8),
            bytes @ 126..=0xFFFF => {
                out.push(0x80 | 126);
                out.extend((bytes as u16).to_be_bytes());
            }
            bytes => {
                out.push(0x80 | 127);
                out.extend((bytes as u64).to_be_bytes());
            }
        }
        out.extend(MASK);
        out.extend(
            payload
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, key)| byte ^ key),
        );
        out
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>, String),
        Error(WsError),
    }

    impl Seen {
        fn of(item: Item<'_>) -> Self {
            match item {
                Item::Text(text) => Self::Text(text.to_owned()),
                Item::Binary(bytes) => Self::Binary(bytes.to_vec()),
                Item::Ping(bytes) => Self::Ping(bytes.to_vec()),
                Item::Pong(bytes) => Self::Pong(bytes.to_vec()),
                Item::Close(code, reason) => Self::Close(code, reason.to_owned()),
            }
        }
    }

    /// Feeds the bytes in pieces, as a connection does: what is not consumed is kept and comes
    /// again.
    fn decode_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Seen> {
        let (mut decoder, mut pending, mut seen) = (Decoder::new(), Vec::new(), Vec::new());
        for piece in pieces {
            pending.extend_from_slice(piece);
            let mut from = 0;
            while from < pending.len() {
                match decoder.decode(&mut pending[from..], &LIMITS) {
                    Ok(Decoded { consumed: 0, item }) => {
                        assert_eq!(item, None);
                        break;
                    }
                    Ok(Decoded { consumed, item }) => {
                        seen.extend(item.map(Seen::of));
                        from += consumed;
                    }
                    Err(error) => {
                        seen.push(Seen::Error(error));
                        from = pending.len();
                    }
                }
            }
            pending.drain(..from);
        }
        seen
    }

    fn decode(bytes: &[u8]) -> Vec<Seen> {
        decode_pieces([bytes])
    }

    fn text(text: &str) -> Seen {
        Seen::Text(text.to_owned())
    }

    #[test]
    fn the_length_of_a_frame_is_known_when_it_is_whole() {
        for payload_bytes in [0, 125, 126, 65_535, 65_536] {
            let opcode = if payload_bytes > 125 { 0x82 } else { 0x8A };
            let mut bytes = frame(opcode, &vec![b'x'; payload_bytes]);
            let frame_bytes = bytes.len();
            for there in [0, 1, 2, 5, frame_bytes - 1] {
                assert_eq!(whole_frame_bytes(&bytes[..there]), None, "{payload_bytes}");
            }
            assert_eq!(whole_frame_bytes(&bytes), Some(frame_bytes));
            bytes.extend_from_slice(&[0x81, 0x85]);
            assert_eq!(whole_frame_bytes(&bytes), Some(frame_bytes));
        }
        let longest = [&[0x82, 0xFF][..], &[0xFF; 12]].concat();
        for bytes in [&frame(0xC1, b"reserved")[..], &[0x81, 0x00], &longest] {
            assert_eq!(whole_frame_bytes(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn messages_and_control_frames_are_told_apart() {
        for (bytes, expected) in [
            // RFC 6455, section 5.7: a masked "Hello".
            (
                vec![
                    0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58,
                ],
                text("Hello"),
            ),
            (frame(0x81, b""), text("")),
            (frame(0x81, "é日😀".as_bytes()), text("é日😀")),
            (
                frame(0x81, "x".repeat(126).as_bytes()),
                text(&"x".repeat(126)),
            ),
            (frame(0x82, &[0xFF, 0]), Seen::Binary(vec![0xFF, 0])),
            (frame(0x89, b"abc"), Seen::Ping(b"abc".to_vec())),
            (frame(0x89, &[0xFF; 125]), Seen::Ping(vec![0xFF; 125])),
            (frame(0x8A, b""), Seen::Pong(vec![])),
            (frame(0x88, b""), Seen::Close(None, String::new())),
            (
                frame(0x88, b"\x03\xE8bye"),
                Seen::Close(Some(1000), "bye".to_owned()),
            ),
        ] {
            assert_eq!(decode(&bytes), [expected], "{bytes:x?}");
        }
    }

    #[test]
    fn a_broken_rule_has_its_error_and_its_close_code() {
        use WsError::*;
        let start = frame(0x01, b"a");
        for (bytes, error, code) in [
            (vec![0x81, 0x05], Unmasked, 1002),
            (frame(0xC1, b"a"), ReservedBit, 1002),
            (frame(0xA1, b"a"), ReservedBit, 1002),
            (frame(0x91, b"a"), ReservedBit, 1002),
            (frame(0x83, b"a"), ReservedOpcode(3), 1002),
            (frame(0x87, b"a"), ReservedOpcode(7), 1002),
            (frame(0x8B, b"a"), ReservedOpcode(11), 1002),
            (frame(0x8F, b"a"), ReservedOpcode(15), 1002),
            (frame(0x80, b"a"), UnexpectedContinuation, 1002),
            (frame(0x00, b"a"), UnexpectedContinuation, 1002),
            (
                [start.clone(), frame(0x81, b"b")].concat(),
                InterruptedMessage,
                1002,
            ),
            (
                [start.clone(), frame(0x02, b"b")].concat(),
                InterruptedMessage,
                1002,
            ),
            (frame(0x09, b"a"), FragmentedControl, 1002),
            (frame(0x08, b""), FragmentedControl, 1002),
            (frame(0x89, &[0; 126]), LongControl, 1002),
            (frame(0x88, b"\x03"), ShortClose, 1002),
            (frame(0x88, b"\x03\xE8\xFF"), NotUtf8, 1007),
            (frame(0x81, b"\xFF"), NotUtf8, 1007),
            (frame(0x81, b"\xC3"), NotUtf8, 1007),
            (frame(0x81, b"\xED\xA0\x80"), NotUtf8, 1007),
            ([start, frame(0x80, b"\xC3")].concat(), NotUtf8, 1007),
            (
                vec![0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
                TooBig { bytes_max: 65_536 },
                1009,
            ),
        ] {
            assert_eq!(decode(&bytes), [Seen::Error(error)], "{bytes:x?}");
            assert_eq!(error.close_code(), code);
        }
    }

    #[test]
    fn only_codes_that_may_travel_are_accepted_in_a_close() {
        let accepted = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        for code in (0..=1020)
            .chain(2990..=3010)
            .chain(3990..=4310)
            .chain(4990..=5010)
            .chain([u16::MAX])
        {
            let expected = match accepted(code) {
                true => Seen::Close(Some(code), String::new()),
                false => Seen::Error(WsError::CloseCode(code)),
            };
            assert_eq!(
                decode(&frame(0x88, &code.to_be_bytes())),
                [expected],
                "{code}"
            );
        }
    }

    #[test]
    fn fragments_make_one_message_and_control_frames_pass_between_them() {
        let bytes = [
            frame(0x01, b"a\xC3"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x00, b"\xA9b"),
            frame(0x8A, b""),
            frame(0x80, b"c"),
            frame(0x81, b"next"),
            frame(0x02, b"\xFF"),
            frame(0x80, b"\xFE"),
        ]
        .concat();
        let expected = [
            Seen::Ping(b"ping".to_vec()),
            Seen::Pong(vec![]),
            text("aébc"),
            text("next"),
            Seen::Binary(vec![0xFF, 0xFE]),
        ];
        assert_eq!(decode(&bytes), expected);
        assert_eq!(decode_pieces(bytes.chunks(1)), expected);
    }

    #[test]
    fn a_message_may_have_exactly_the_limit_in_bytes() {
        let limits = Limits {
            message_bytes_max: 200,
        };
        for (bytes, accepted) in [(199, true), (200, true), (201, false)] {
            let whole = frame(0x81, &vec![b'x'; bytes]);
            let fragments = [
                frame(0x01, &[b'x'; 100]),
                frame(0x00, b""),
                frame(0x80, &vec![b'x'; bytes - 100]),
            ];
            for mut pieces in [vec![whole], fragments.to_vec()] {
                let mut decoder = Decoder::new();
                let (last, first) = pieces.split_last_mut().expect("pieces");
                for piece in first {
                    let bytes = piece.len();
                    let decoded = decoder.decode(piece, &limits);
                    assert_eq!(
                        decoded,
                        Ok(Decoded {
                            consumed: bytes,
                            item: None
                        })
                    );
                }
                let decoded = decoder.decode(last, &limits);
                match accepted {
                    true => assert!(matches!(
                        decoded,
                        Ok(Decoded {
                            item: Some(Item::Text(_)),
                            ..
                        })
                    )),
                    false => assert_eq!(decoded, Err(WsError::TooBig { bytes_max: 200 })),
                }
                assert!(decoder.held_bytes() <= 200);
            }
        }
    }

    #[test]
    fn fragments_are_held_in_no_more_than_the_limit() {
        let limits = Limits {
            message_bytes_max: 200,
        };
        for fragments in [
            &[150, 49][..],
            &[150, 50],
            &[199, 1],
            &[90, 20, 90],
            &[1; 200],
        ] {
            let mut decoder = Decoder::new();
            for (at, bytes) in fragments.iter().enumerate() {
                let first = if at == 0 { 0x01 } else { 0x00 };
                let decoded = decoder
                    .decode(&mut frame(first, &vec![b'x'; *bytes]), &limits)
                    .map(|_| ());
                assert_eq!(decoded, Ok(()));
                assert!(
                    decoder.held_bytes() <= 200,
                    "{} bytes for {fragments:?}",
                    decoder.held_bytes()
                );
            }
        }
    }

    #[test]
    fn a_message_too_large_is_refused_from_its_header() {
        let limits = Limits {
            message_bytes_max: 1000,
        };
        let mut header = frame(0x81, &[b'x'; 1001]);
        header.truncate(4);
        assert_eq!(
            Decoder::new().decode(&mut header, &limits),
            Err(WsError::TooBig { bytes_max: 1000 })
        );
        let mut fits = frame(0x81, &[b'x'; 1000]);
        fits.truncate(4);
        assert_eq!(
            Decoder::new().decode(&mut fits, &limits),
            Ok(Decoded {
                consumed: 0,
                item: None
            })
        );
    }

    #[test]
    fn after_a_close_or_an_error_everything_is_discarded() {
        for (first, expected) in [
            (frame(0x88, b""), Seen::Close(None, String::new())),
            (frame(0x83, b""), Seen::Error(WsError::ReservedOpcode(3))),
        ] {
            let later = [frame(0x81, b"late"), vec![0xFF; 100], frame(0x88, b"")].concat();
            assert_eq!(decode_pieces([&*first, &*later, &*later]), [expected]);
        }
    }

    #[test]
    fn the_buffer_of_a_fragmented_message_is_given_back() {
        let mut decoder = Decoder::new();
        for mut bytes in [frame(0x01, &[b'x'; 5000]), frame(0x80, b"end")] {
            assert!(decoder.decode(&mut bytes, &LIMITS).is_ok());
        }
        assert!(decoder.held_bytes() >= 5003);
        assert!(!decoder.is_inside_message());
        let decoded = decoder.decode(&mut [], &LIMITS);
        assert_eq!(
            decoded,
            Ok(Decoded {
                consumed: 0,
                item: None
            })
        );
        assert_eq!(decoder.held_bytes(), 0);
    }

    proptest! {
        #[test]
        fn unmasking_is_a_byte_wise_xor(
            payload in prop::collection::vec(any::<u8>(), 0..70),
            mask in any::<[u8; 4]>(),
        ) {
            let naive: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k).collect();
            let mut fast = payload;
            unmask(&mut fast, mask);
            prop_assert_eq!(fast, naive);
        }

        #[test]
        fn splitting_the_bytes_anywhere_changes_nothing(
            frames in prop::collection::vec((0_usize..14, prop::collection::vec(any::<u8>(), 0..200)), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            // Valid openings are more likely than broken ones.
            const FIRSTS: [u8; 14] =
                [0x81, 0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x80, 0x89, 0x8A, 0x88, 0x83, 0xC1, 0x09];
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(first, payload)| frame(FIRSTS[*first], payload)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            prop_assert_eq!(decode_pieces(pieces), decode(&bytes));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode(&bytes);
        }
    }
}
