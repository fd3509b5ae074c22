//! Frames of a WebSocket. The bytes: cuts and a client's stream, see `pieces`.
//!
//! Owns: that cuts change nothing, that tungstenite understands the same, that what is written is read back.
//! May depend on: `pieces`, `said`; `sockudo::ws`, `tungstenite`.
//! Invariants: none.

use sockudo::ws::encode;
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::coding::CloseCode;

use super::pieces;
use super::said::{self, MESSAGE_BYTES_MAX, Said};

pub fn check(bytes: &[u8]) {
    let (cuts, stream) = pieces::split(bytes);
    let [whole, cut, byte_for_byte] = pieces::ways(cuts, stream).map(said::ours);
    assert_eq!(cut, whole, "cut");
    assert_eq!(byte_for_byte, whole, "byte for byte");
    beside_tungstenite(&whole, stream);
    round_trip(cuts, stream);
}

/// Some differences are not worth an argument. Ours refuses a frame from its header, theirs may wait for the whole of
/// it; a close code that may not travel is refused by ours, replaced by theirs, for which 1014 is one of them; and a
/// control frame whose length stands in the long form, which none needs, is refused by ours only.
fn beside_tungstenite(ours: &[Said], stream: &[u8]) {
    let theirs = said::theirs(stream, Role::Server);
    let before_refusal = match ours.split_last() {
        Some((Said::Refused(_), before)) => before,
        _ => ours,
    };
    let waits = before_refusal == theirs;
    let replaces = match (ours.split_last(), theirs.split_last()) {
        (Some((Said::Refused(1002 | 1007), same)), Some((Said::Close(..), before))) => {
            same == before
        }
        (Some((Said::Close(Some(code), _), same)), Some((Said::Close(..), before))) => {
            assert!(matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999));
            !CloseCode::from(*code).is_allowed() && same == before
        }
        _ => false,
    };
    let permits = ours.last() == Some(&Said::Refused(1002))
        && has_long_control(stream)
        && theirs.starts_with(before_refusal);
    if !waits && !replaces && !permits {
        said::assert_alike(ours, &theirs);
    }
}

/// Whether a control frame is among the frames whose length stands behind the second byte.
fn has_long_control(stream: &[u8]) -> bool {
    let mut rest = stream;
    while let [first, second, after @ ..] = rest {
        let (length_bytes, payload_bytes) = match (second & 0x7F, after) {
            (126 | 127, _) if first & 0x08 != 0 => return true,
            (126, [high, low, ..]) => (2, u16::from_be_bytes([*high, *low]).into()),
            (127, _) => (
                8,
                after
                    .first_chunk()
                    .map_or(u64::MAX, |length| u64::from_be_bytes(*length)),
            ),
            (short, _) => (0, short.into()),
        };
        let frame_bytes = usize::try_from(payload_bytes).unwrap_or(usize::MAX);
        let frame_bytes = frame_bytes.saturating_add(2 + length_bytes + 4);
        rest = rest.get(frame_bytes..).unwrap_or_default();
    }
    false
}

/// What the server writes, masked as a client would, is read back by our decoder however it is cut.
fn round_trip(cuts: &[u8], payload: &[u8]) {
    let text = String::from_utf8_lossy(payload);
    let mut frames = Vec::new();
    let start = encode::begin_text(&mut frames);
    frames.extend_from_slice(text.as_bytes());
    encode::finish_text(&mut frames, start);
    let mut at_once = Vec::new();
    encode::text_frame(&mut at_once, &[text.as_bytes()]);
    assert!(frames == at_once, "a text of {} bytes", text.len());

    let mut binary = Vec::new();
    encode::binary_frame(&mut binary, payload);
    let control = &payload[..payload.len().min(encode::CONTROL_BYTES_MAX)];
    let (mut ping, mut pong, mut close) = (Vec::new(), Vec::new(), Vec::new());
    encode::ping_frame(&mut ping, control);
    encode::pong_frame(&mut pong, control);
    encode::close_frame(&mut close, Some(4201), &text);

    let mut expected = vec![
        Said::Ping(control.to_vec()),
        Said::Pong(control.to_vec()),
        Said::Binary(payload.to_vec()),
        Said::Text(text.to_string()),
    ];
    let is_within = |said: &Said| match said {
        Said::Binary(bytes) => bytes.len() <= MESSAGE_BYTES_MAX,
        Said::Text(text) => text.len() <= MESSAGE_BYTES_MAX,
        _ => true,
    };
    match expected.iter().position(|said| !is_within(said)) {
        Some(at) => {
            expected.truncate(at);
            expected.push(Said::Refused(1009));
        }
        None => {
            let kept = text.floor_char_boundary(encode::CLOSE_REASON_BYTES_MAX);
            expected.push(Said::Close(Some(4201), text[..kept].to_owned()));
        }
    }
    let stream: Vec<u8> = [ping, pong, binary, frames, close]
        .iter()
        .flat_map(|frame| masked(frame))
        .collect();
    for pieces in pieces::ways(cuts, &stream) {
        assert_eq!(said::ours(pieces), expected);
    }
}

/// A server's frame as a client would have sent it.
fn masked(frame: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let header_bytes = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let (header, payload) = frame.split_at(header_bytes);
    let mut out = header.to_vec();
    out[1] |= 0x80;
    out.extend(MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}
