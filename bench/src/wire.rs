//! The bytes of the client's side: WebSocket frames, HTTP answers, and where they end.
//!
//! Owns: masking, the two splitters, the upgrade request, one request and its answer.
//! May depend on: serde_json, for what errors say.
//! Invariants: a splitter looks at bytes and keeps none; it says nothing until the unit is complete.

use std::io::{self, Read, Write};

use serde_json::Value;

/// A complete frame or answer at the beginning of some bytes.
pub struct Unit<'a> {
    /// A frame's payload, or an answer's body.
    pub payload: &'a [u8],
    /// Bytes of the whole unit.
    pub len: usize,
    /// A frame's opcode, or an answer's status.
    pub code: u16,
    /// An answer after which the server closes.
    pub is_last: bool,
}

/// How a stream is cut into units.
pub type Splitter = fn(&[u8]) -> Option<Unit<'_>>;

/// The server's frames: unmasked, never fragmented by the servers that we know.
pub fn frame(bytes: &[u8]) -> Option<Unit<'_>> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (start, payload_bytes): (usize, usize) = match second & 0x7F {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (10, usize::try_from(u64::from_be_bytes(length)).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let len = start.checked_add(payload_bytes)?;
    let payload = bytes.get(start..len)?;
    Some(Unit {
        payload,
        len,
        code: u16::from(first & 0x0F),
        is_last: false,
    })
}

/// An HTTP answer with a `Content-Length` or no body.
pub fn answer(bytes: &[u8]) -> Option<Unit<'_>> {
    let head_bytes = find(bytes, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_bytes]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body_bytes = content_length(head)?;
    let is_last = field(head, "connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
    let body_bytes = if status == 101 { 0 } else { body_bytes };
    let len = head_bytes.checked_add(body_bytes)?;
    let payload = bytes.get(head_bytes..len)?;
    Some(Unit {
        payload,
        len,
        code: status,
        is_last,
    })
}

/// Sends a request, and gives the answer's status and body.
pub fn exchange(mut stream: impl Read + Write, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    stream.write_all(request)?;
    let mut input = Vec::new();
    let mut buffer = [0; 16_384];
    loop {
        if let Some(unit) = answer(&input) {
            return Ok((unit.code, unit.payload.to_vec()));
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => input.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The value of a head's field.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let field = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
    field.map(|(_, value)| value.trim())
}

/// The length of the body that a head announces; 0 if it says nothing, none if it says no number.
pub fn content_length(head: &str) -> Option<usize> {
    field(head, "content-length").map_or(Some(0), |value| value.parse().ok())
}

/// A masked text frame.
pub fn masked_text(payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![0x81];
    if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
        frame.push(0x80 | short);
    } else {
        let long = u16::try_from(payload.len()).expect("the load's frames are small");
        frame.push(0x80 | 126);
        frame.extend_from_slice(&long.to_be_bytes());
    }
    frame.extend_from_slice(&MASK);
    frame.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

/// What an error event says: code and message of a connection's, status and error of a subscription's.
pub fn error_words(payload: &[u8]) -> String {
    let event: Value = serde_json::from_slice(payload).unwrap_or_default();
    let data = match &event["data"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        object => object.clone(),
    };
    let number = data["code"].as_u64().or_else(|| data["status"].as_u64());
    let text = data["message"].as_str().or_else(|| data["error"].as_str());
    match (number, text) {
        (Some(number), Some(text)) => format!("{number} {text}"),
        (None, Some(text)) => text.to_owned(),
        _ => shortened(payload),
    }
}

/// The beginning of what a server said.
pub fn shortened(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    text.trim().to_owned()
}

pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// The `socket_id` in `connection_established`, whose data is JSON in a JSON string.
pub fn socket_id(payload: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("socket_id")?;
    let begins = rest.find(|c: char| c.is_ascii_digit())?;
    let id = &rest[begins..];
    let ends = id.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some(id[..ends].to_owned())
}

/// A masked control frame; servers compare a pong's payload with their ping's.
pub fn masked_control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = masked_text(&payload[..payload.len().min(125)]);
    frame[0] = 0x80 | opcode;
    frame
}

/// The number that a payload carries between number signs, as `numbered` wrote it.
pub fn number_of(payload: &[u8]) -> Option<u64> {
    let begins = payload.iter().position(|&byte| byte == b'#')? + 1;
    let digits = payload[begins..].iter().position(|&byte| byte == b'#')?;
    std::str::from_utf8(&payload[begins..begins + digits])
        .ok()?
        .parse()
        .ok()
}

/// Text of that many bytes, or a few more, that carries a number.
pub fn numbered(number: u64, bytes: usize) -> String {
    format!("{:x<bytes$}", format!("#{number:08}#"))
}

/// The name of the event that a payload is.
pub fn event_name(payload: &[u8]) -> &[u8] {
    const KEY: &[u8] = b"\"event\":\"";
    // All servers that we know write the name first.
    let begins = match payload.get(1..=KEY.len()) {
        Some(KEY) => 1 + KEY.len(),
        _ => find(payload, KEY).map_or(payload.len(), |at| at + KEY.len()),
    };
    let name = &payload[begins..];
    let ends = name.iter().position(|&byte| byte == b'"');
    &name[..ends.unwrap_or(name.len())]
}

/// A client's upgrade request.
pub fn upgrade(host: &str, key: &str) -> String {
    format!(
        "GET /app/{key}?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\nHost: {host}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Where a needle begins.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_out_of_an_event() {
        for number in [0, 7, 123_456_789_012] {
            let data = numbered(number, 32);
            assert_eq!(data.len(), 32);
            let event = format!(r#"{{"event":"bench","channel":"c","data":"{data}"}}"#);
            assert_eq!(number_of(event.as_bytes()), Some(number));
            assert_eq!(event_name(event.as_bytes()), b"bench");
        }
        for other in ["", "#", "#12", "##", "#x#", "{}"] {
            assert_eq!(number_of(other.as_bytes()), None, "{other}");
        }
        assert_eq!(
            event_name(br#"{"data":"x","event":"pusher:ping"}"#),
            b"pusher:ping"
        );
        assert_eq!(event_name(b"{}"), b"");
    }

    #[test]
    fn an_error_is_told_by_its_number_and_text() {
        let cases = [
            (
                r#"{"event":"pusher:error","data":{"code":4004,"message":"over quota"}}"#,
                "4004 over quota",
            ),
            (
                r#"{"event":"pusher:error","data":"{\"code\":4001,\"message\":\"no app\"}"}"#,
                "4001 no app",
            ),
            (
                r#"{"event":"pusher:subscription_error","data":{"type":"AuthError","error":"no","status":401}}"#,
                "401 no",
            ),
            (
                r#"{"event":"pusher:error","data":{"message":"what"}}"#,
                "what",
            ),
            ("no JSON", "no JSON"),
        ];
        for (event, expected) in cases {
            assert_eq!(error_words(event.as_bytes()), expected);
        }
    }

    #[test]
    fn a_unit_is_not_seen_before_its_last_byte() {
        let mut long = vec![0x81, 126, 1, 0];
        long.extend([b'x'; 256]);
        let answer_bytes = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\n{}".to_vec();
        let short = vec![0x81, 3, b'a', b'b', b'c'];
        let cases: [(&str, Splitter, Vec<u8>, usize); 3] = [
            ("long frame", frame, long, 256),
            ("short frame", frame, short, 3),
            ("answer", answer, answer_bytes, 2),
        ];
        for (name, split, bytes, payload) in cases {
            for end in 0..bytes.len() {
                assert!(split(&bytes[..end]).is_none(), "{name} at {end}");
            }
            let mut more = bytes.clone();
            more.extend(b"next");
            let unit = split(&more).expect(name);
            assert_eq!(
                (unit.len, unit.payload.len()),
                (bytes.len(), payload),
                "{name}"
            );
        }
    }
}
