//! The client's side of the wire: masked frames out, frames and HTTP responses in.

use serde_json::Value;

use crate::ledger::Moment;

/// From accept to the last byte of the first request, from the first to the last of another, by default.
const REQUEST_MS: u64 = 10_000;

/// A frame of the server.
#[derive(Debug)]
pub(crate) enum Frame {
    Text(Value),
    Close(u16),
    /// Beside `pusher:ping`, which is the one that is answered.
    Ping,
    Pong,
}

/// A response of the server.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// Appends a masked frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: u32) {
    out.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => out.push(0x80 | length as u8),
        Ok(length) => {
            out.push(0x80 | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    out.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

/// A request is given up only when it had its time, which may pass while it lies on its link.
pub(crate) fn check_timeout(awaited: Moment, now: Moment) {
    assert!(
        now.at.0 >= awaited.at.0 + REQUEST_MS,
        "a request awaited since {awaited:?} was given up by {now:?}"
    );
}

/// The request that opens a WebSocket.
pub(crate) fn upgrade_request(key: &str) -> String {
    format!(
        "GET /app/{key}?protocol=7 HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Takes a whole frame from the front of `input`.
pub(crate) fn take_frame(input: &mut Vec<u8>) -> Option<Frame> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    assert_eq!(
        first & 0xF0,
        0x80,
        "the server sends whole frames without extensions"
    );
    let (start, length) = match second {
        126 => (
            4,
            usize::from(u16::from_be_bytes(*input.get(2..4)?.first_chunk()?)),
        ),
        127 => (
            10,
            u64::from_be_bytes(*input.get(2..10)?.first_chunk()?) as usize,
        ),
        length => {
            assert!(length < 126, "the server's frames are not masked");
            (2, usize::from(length))
        }
    };
    let payload = input.get(start..start + length)?;
    let frame = match first & 0x0F {
        1 => Frame::Text(serde_json::from_slice(payload).unwrap_or_else(|error| {
            let text = String::from_utf8_lossy(payload);
            panic!("the server sends JSON: {error}: {text:?}")
        })),
        8 => Frame::Close(
            payload
                .first_chunk()
                .map_or(1005, |code| u16::from_be_bytes(*code)),
        ),
        9 => Frame::Ping,
        10 => Frame::Pong,
        opcode => panic!("the server sent opcode {opcode}"),
    };
    input.drain(..start + length);
    Some(frame)
}

/// Takes a whole response from the front of `input`. A 101 has no body.
pub(crate) fn take_response(input: &mut Vec<u8>) -> Option<Response> {
    let end = input.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&input[..end]).expect("a head is text");
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let status = status.expect("a response begins with its status");
    let mut lines = head.lines();
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let length: usize = length.unwrap_or(0);
    let body = input.get(end..end + length)?.to_vec();
    input.drain(..end + length);
    Some(Response { status, body })
}
