//! Data path. Frames that the server sends: never masked, never fragmented, one message each.
//!
//! Owns: header sizes, the gap in front of text that is written in place, what a close frame may
//! hold.
//! May depend on: nothing.
//! Invariants: a control frame's payload has at most 125 bytes; a close reason is cut on a
//! character boundary.

/// Opens a text frame at the end of `out`: JSON is then written straight behind the gap. Hand what
/// this returns to `finish_text`.
#[must_use]
pub fn begin_text(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; GAP_BYTES]);
    start
}

/// Writes the header of the frame that began at `start`, everything behind it being its payload.
/// One move: of at most 125 bytes for a short frame, none up to 65 535 bytes, of the payload beyond
/// that.
pub fn finish_text(out: &mut Vec<u8>, start: usize) {
    let payload_bytes = out.len() - start - GAP_BYTES;
    let (header, header_bytes) = text_header(payload_bytes);
    let header = header.get(..header_bytes).unwrap_or_default();
    match out.get_mut(start..start + GAP_BYTES) {
        Some(gap) if gap.len() == header.len() => gap.copy_from_slice(header),
        _ => drop(out.splice(start..start + GAP_BYTES, header.iter().copied())),
    }
}

/// The payload of a whole frame of so many bytes: its header is the shortest that holds the length.
#[must_use]
pub const fn payload_bytes(frame_bytes: usize) -> usize {
    let header_bytes = match frame_bytes {
        0..=127 => 2,
        128..=65_539 => 4,
        _ => HEADER_BYTES_MAX,
    };
    frame_bytes.saturating_sub(header_bytes)
}

/// Appends a whole text frame.
pub fn text_frame(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let (header, header_bytes) = text_header(parts.iter().map(|part| part.len()).sum());
    out.extend_from_slice(header.get(..header_bytes).unwrap_or_default());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a whole binary frame.
pub fn binary_frame(out: &mut Vec<u8>, payload: &[u8]) {
    let start = out.len();
    text_frame(out, &[payload]);
    if let Some(first) = out.get_mut(start) {
        *first = FIN | BINARY;
    }
}

/// The header of a text frame and how many of its bytes count.
pub fn text_header(payload_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    let [first, second, long @ ..] = &mut header;
    *first = FIN | TEXT;
    let header_bytes = match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(bytes @ 0..=125), _) => {
            *second = bytes;
            2
        }
        (_, Ok(bytes)) => {
            let [high, low, ..] = long;
            *second = 126;
            [*high, *low] = bytes.to_be_bytes();
            4
        }
        _ => {
            *second = 127;
            *long = (payload_bytes as u64).to_be_bytes();
            10
        }
    };
    (header, header_bytes)
}

/// The text of a frame that is one whole unmasked text frame, as this file writes them; `None` for
/// any other bytes.
pub fn text_of(frame: &[u8]) -> Option<&str> {
    let (payload_bytes, header_bytes) = match frame.get(1)? {
        short @ 0..=125 => (usize::from(*short), 2),
        126 => (
            usize::from(u16::from_be_bytes(*frame.get(2..)?.first_chunk()?)),
            4,
        ),
        127 => {
            let bytes = u64::from_be_bytes(*frame.get(2..)?.first_chunk()?);
            (usize::try_from(bytes).ok()?, 10)
        }
        _ => return None,
    };
    let payload = frame.get(header_bytes..)?;
    let is_whole = frame.first() == Some(&(FIN | TEXT)) && payload.len() == payload_bytes;
    std::str::from_utf8(payload).ok().filter(|_| is_whole)
}

/// Appends a close frame: with a code and as much of the reason as fits, or empty.
pub fn close_frame(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code else {
        return control_frame(out, CLOSE, &[]);
    };
    let end = reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
    let (reason, _) = reason.split_at(end);
    control_frame(out, CLOSE, &[&code.to_be_bytes(), reason.as_bytes()]);
}

/// Appends the answer to a ping: the same payload.
pub fn pong_frame(out: &mut Vec<u8>, payload: &[u8]) {
    control_frame(out, PONG, &[payload]);
}

/// Appends a ping.
pub fn ping_frame(out: &mut Vec<u8>, payload: &[u8]) {
    control_frame(out, PING, &[payload]);
}

/// Only our own code chooses what goes in: the decoder hands out ping payloads of at most 125
/// bytes.
fn control_frame(out: &mut Vec<u8>, opcode: u8, parts: &[&[u8]]) {
    let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
    assert!(
        payload_bytes <= CONTROL_BYTES_MAX,
        "a control frame of {payload_bytes} bytes"
    );
    let payload_bytes = u8::try_from(payload_bytes).expect("at most 125: asserted above");
    out.extend_from_slice(&[FIN | opcode, payload_bytes]);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// What `begin_text` leaves free: the header of the sizes that need no move.
const GAP_BYTES: usize = 4;
pub const HEADER_BYTES_MAX: usize = 10;
pub const CONTROL_BYTES_MAX: usize = 125;
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
const FIN: u8 = 0x80;
const BINARY: u8 = 0x2;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_frame_has_the_shortest_header_that_holds_its_length() {
        for (bytes, header) in [
            (0, vec![0x81, 0]),
            (1, vec![0x81, 1]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xFF, 0xFF]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload: Vec<u8> = (0..bytes).map(|n| b'a' + (n % 26) as u8).collect();
            let expected = [b"before".to_vec(), header, payload.clone()].concat();

            let mut at_once = b"before".to_vec();
            text_frame(
                &mut at_once,
                &[&payload[..bytes / 3], &payload[bytes / 3..]],
            );
            assert!(at_once == expected, "{bytes} bytes at once");
            assert_eq!(payload_bytes(at_once.len() - b"before".len()), bytes);

            let mut in_place = b"before".to_vec();
            let start = begin_text(&mut in_place);
            in_place.extend_from_slice(&payload);
            finish_text(&mut in_place, start);
            assert!(in_place == expected, "{bytes} bytes in place");
        }
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        for (reason, kept) in [
            (String::new(), 0),
            ("x".repeat(122), 122),
            ("x".repeat(123), 123),
            ("x".repeat(124), 123),
            ("é".repeat(61), 122),
            ("é".repeat(62), 122),
            ("é".repeat(500), 122),
        ] {
            let mut out = Vec::new();
            close_frame(&mut out, Some(4201), &reason);
            assert_eq!(out[..4], [0x88, kept as u8 + 2, 0x10, 0x69]);
            assert_eq!(out.len(), 4 + kept);
            assert!(reason.as_bytes().starts_with(&out[4..]));
        }
        let mut empty = Vec::new();
        close_frame(&mut empty, None, "ignored");
        assert_eq!(empty, [0x88, 0]);
    }

    #[test]
    fn a_pong_carries_the_payload_of_its_ping() {
        for bytes in [0, 1, 125] {
            let mut out = Vec::new();
            pong_frame(&mut out, &vec![7; bytes]);
            assert_eq!(out, [vec![0x8A, bytes as u8], vec![7; bytes]].concat());
        }
        let mut out = Vec::new();
        ping_frame(&mut out, b"a");
        assert_eq!(out, [0x89, 1, b'a']);
    }
}
