//! The frame codec beside tungstenite, an implementation that is not ours: what one side says, the other understands,
//! and both refuse the same streams.
//!
//! Owns: the differential test of `ws::codec` and `ws::encode`.
//! May depend on: `sockudo::ws`, `tungstenite`, `proptest`; how both are asked stands with the fuzz targets' checks.
//! Invariants: none.

use proptest::prelude::*;
use sockudo::ws::codec::WsError;
use sockudo::ws::encode;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::protocol::{CloseFrame, Role};

use said::{MESSAGE_BYTES_MAX, Said, assert_alike, theirs};

#[path = "fuzz/checks/said.rs"]
mod said;

fn ours(bytes: &[u8]) -> Vec<Said> {
    said::ours([bytes])
}

/// A client's frame, written by tungstenite.
fn masked(opcode: OpCode, fin: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader {
        is_final: fin,
        opcode,
        mask: Some(mask),
        ..FrameHeader::default()
    };
    // Control frames too, of any length and in pieces.
    let frame = Frame::from_payload(header, payload.to_vec().into());
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
        assert_alike(&ours(&bytes), &theirs(&bytes, Role::Server));
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
