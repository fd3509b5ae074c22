//! The frame codec beside tungstenite, an implementation that is not ours: what one side says, the other understands,
//! and both refuse the same streams.
//!
//! Owns: the differential test of `ws::codec` and `ws::encode`.
//! May depend on: `sockudo::ws`, `tungstenite`, `proptest`.
//! Invariants: none.

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use sockudo::ws::codec::{Decoded, Decoder, Item, Limits, WsError};
use sockudo::ws::encode;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const MESSAGE_BYTES_MAX: usize = 1024;
const LIMITS: Limits = Limits {
    message_bytes_max: MESSAGE_BYTES_MAX,
};

/// What a stream of bytes says, up to its end, a close, or the first broken rule.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Refused(u16),
}

fn ours(bytes: &[u8]) -> Vec<Said> {
    let (mut decoder, mut bytes, mut said, mut from) =
        (Decoder::new(), bytes.to_vec(), Vec::new(), 0);
    loop {
        let (consumed, item) = match decoder.decode(&mut bytes[from..], &LIMITS) {
            Ok(Decoded { consumed, item }) => (consumed, item),
            Err(error) => {
                said.push(Said::Refused(error.close_code()));
                return said;
            }
        };
        let Some(item) = item else {
            if consumed == 0 {
                return said;
            }
            from += consumed;
            continue;
        };
        said.push(match item {
            Item::Text(text) => Said::Text(text.to_owned()),
            Item::Binary(bytes) => Said::Binary(bytes.to_vec()),
            Item::Ping(bytes) => Said::Ping(bytes.to_vec()),
            Item::Pong(bytes) => Said::Pong(bytes.to_vec()),
            Item::Close(code, reason) => Said::Close(code, reason.to_owned()),
        });
        if let Some(Said::Close(..)) = said.last() {
            return said;
        }
        from += consumed;
    }
}

/// Reads what was prepared and swallows what is answered.
struct Prepared(Cursor<Vec<u8>>);

impl Read for Prepared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for Prepared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn theirs(bytes: &[u8], role: Role) -> Vec<Said> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let stream = Prepared(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, role, Some(config));
    let mut said = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => said.push(Said::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => said.push(Said::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => said.push(Said::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => said.push(Said::Pong(bytes.to_vec())),
            Ok(Message::Close(close)) => {
                let code = close.as_ref().map(|close| close.code.into());
                let reason = close
                    .map(|close| close.reason.to_string())
                    .unwrap_or_default();
                said.push(Said::Close(code, reason));
                return said;
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(_)) => return said,
            Err(error) => {
                said.push(Said::Refused(match error {
                    Error::Utf8(_) => 1007,
                    Error::Capacity(_) => 1009,
                    Error::Protocol(_) => 1002,
                    other => panic!("unexpected: {other:?}"),
                }));
                return said;
            }
        }
    }
}

/// A client's frame, written by tungstenite.
fn masked(opcode: OpCode, fin: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = Frame::message(payload.to_vec(), opcode, fin);
    frame.header_mut().mask = Some(mask);
    let mut out = Vec::new();
    frame.format(&mut out).expect("a vector takes all");
    out
}

fn opcode() -> impl Strategy<Value = OpCode> {
    prop_oneof![
        4 => Just(OpCode::Data(Data::Text)),
        2 => Just(OpCode::Data(Data::Binary)),
        4 => Just(OpCode::Data(Data::Continue)),
        1 => Just(OpCode::Control(Control::Ping)),
        1 => Just(OpCode::Control(Control::Pong)),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "\\PC{0,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..130),
        1 => (0_usize..600).prop_map(|bytes| vec![b'x'; bytes]),
    ]
}

proptest! {
    #[test]
    fn a_stream_of_frames_is_understood_alike(
        frames in prop::collection::vec((opcode(), prop::bool::weighted(0.6), payload(), any::<[u8; 4]>()), 0..8),
    ) {
        let bytes: Vec<u8> = frames
            .iter()
            .flat_map(|(opcode, fin, payload, mask)| masked(*opcode, *fin, payload, *mask))
            .collect();
        let (ours, theirs) = (ours(&bytes), theirs(&bytes, Role::Server));
        match (ours.last(), theirs.last()) {
            // Theirs refuses the first fragment that cannot become UTF-8; ours the whole message,
            // if it ends. Only control frames and another broken rule can come between.
            (_, Some(Said::Refused(1007))) => {
                let agreed = theirs.len() - 1;
                prop_assert_eq!(&ours[..agreed.min(ours.len())], &theirs[..agreed]);
                prop_assert!(
                    ours[agreed..]
                        .iter()
                        .all(|said| matches!(said, Said::Ping(_) | Said::Pong(_) | Said::Refused(_)))
                );
            }
            // Where a frame breaks two rules, either may be named.
            (Some(Said::Refused(_)), Some(Said::Refused(_))) => {
                prop_assert_eq!(&ours[..ours.len() - 1], &theirs[..theirs.len() - 1]);
            }
            _ => prop_assert_eq!(ours, theirs),
        }
    }

    #[test]
    fn a_close_is_understood_alike(code in any::<u16>(), reason in "\\PC{0,30}", mask in any::<[u8; 4]>()) {
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        let bytes = masked(OpCode::Control(Control::Close), true, &payload, mask);
        let is_allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let expected = [match is_allowed {
            true => Said::Close(Some(code), reason),
            false => Said::Refused(1002),
        }];
        prop_assert_eq!(&ours(&bytes)[..], &expected);
        // Theirs hands out a code that may not travel after replacing it; only the allowed ones can be compared.
        if CloseCode::from(code).is_allowed() {
            prop_assert_eq!(&theirs(&bytes, Role::Server)[..], &expected);
        }
    }

    #[test]
    fn what_we_send_is_understood(
        texts in prop::collection::vec("\\PC{0,300}", 0..5),
        ping in prop::collection::vec(any::<u8>(), 0..=125),
    ) {
        let mut bytes = Vec::new();
        for text in &texts {
            let start = encode::begin_text(&mut bytes);
            bytes.extend_from_slice(text.as_bytes());
            encode::finish_text(&mut bytes, start);
        }
        encode::ping_frame(&mut bytes, &ping);
        encode::pong_frame(&mut bytes, &ping);
        encode::close_frame(&mut bytes, Some(4201), "Pong reply not received in time");
        let mut expected: Vec<Said> = texts
            .iter()
            .map(|text| match text.len() <= MESSAGE_BYTES_MAX {
                true => Said::Text(text.clone()),
                false => Said::Refused(1009),
            })
            .collect();
        expected.extend([
            Said::Ping(ping.clone()),
            Said::Pong(ping),
            Said::Close(Some(4201), "Pong reply not received in time".to_owned()),
        ]);
        if let Some(refused) = expected.iter().position(|said| matches!(said, Said::Refused(_))) {
            expected.truncate(refused + 1);
        }
        prop_assert_eq!(theirs(&bytes, Role::Client), expected);
    }
}

#[test]
fn an_empty_close_is_understood() {
    let mut bytes = Vec::new();
    encode::close_frame(&mut bytes, None, "");
    assert_eq!(
        theirs(&bytes, Role::Client),
        [Said::Close(None, String::new())]
    );
    let close = Frame::close(None::<CloseFrame>);
    assert_eq!(close.payload(), b"");
}

#[test]
fn both_refuse_the_same_broken_frames() {
    for (bytes, code) in [
        (vec![0x81, 0x01, b'a'], 1002),
        (vec![0xC1, 0x81, 0, 0, 0, 0, b'a'], 1002),
        (vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x8B, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x80, 0x80, 0, 0, 0, 0], 1002),
        (vec![0x09, 0x80, 0, 0, 0, 0], 1002),
        (
            [vec![0x89, 0xFE, 0, 126, 0, 0, 0, 0], vec![0; 126]].concat(),
            1002,
        ),
        (vec![0x88, 0x81, 0, 0, 0, 0, 3], 1002),
        (vec![0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),
        (vec![0x81, 0xFE, 0x04, 0x01, 0, 0, 0, 0], 1009),
    ] {
        assert_eq!(ours(&bytes), [Said::Refused(code)], "{bytes:x?}");
        assert_eq!(
            theirs(&bytes, Role::Server),
            [Said::Refused(code)],
            "{bytes:x?}"
        );
    }
    assert_eq!(WsError::NotUtf8.close_code(), 1007);
}
