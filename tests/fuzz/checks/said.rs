//! What a stream of WebSocket bytes says, to our codec and to tungstenite, an implementation that is not ours.
//!
//! Owns: both readings in one form, and when they agree.
//! May depend on: `sockudo::ws`, `tungstenite`.
//! Invariants: none.

use std::io::{Cursor, Read, Write};

use sockudo::ws::codec::{Decoded, Decoder, Item, Limits};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;
pub(crate) const LIMITS: Limits = Limits {
    message_bytes_max: MESSAGE_BYTES_MAX,
};

/// What a stream of bytes says, up to its end, a close, or the first broken rule.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Refused(u16),
}

/// Feeds the pieces as a connection does: what is not consumed is kept and comes again.
pub(crate) fn ours<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
    let (mut decoder, mut pending, mut said) = (Decoder::new(), Vec::new(), Vec::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        let mut from = 0;
        loop {
            let (consumed, item) = match decoder.decode(&mut pending[from..], &LIMITS) {
                Ok(Decoded { consumed, item }) => (consumed, item),
                Err(error) => {
                    said.push(Said::Refused(error.close_code()));
                    return said;
                }
            };
            assert!(consumed > 0 || item.is_none(), "an item out of nothing");
            from += consumed;
            said.extend(item.map(|item| match item {
                Item::Text(text) => Said::Text(text.to_owned()),
                Item::Binary(bytes) => Said::Binary(bytes.to_vec()),
                Item::Ping(bytes) => Said::Ping(bytes.to_vec()),
                Item::Pong(bytes) => Said::Pong(bytes.to_vec()),
                Item::Close(code, reason) => Said::Close(code, reason.to_owned()),
            }));
            if let Some(Said::Close(..)) = said.last() {
                return said;
            }
            assert!(decoder.held_bytes() <= MESSAGE_BYTES_MAX, "holds too much");
            if consumed == 0 {
                break;
            }
        }
        pending.drain(..from);
    }
    said
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

pub(crate) fn theirs(bytes: &[u8], role: Role) -> Vec<Said> {
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

/// Where a frame breaks two rules, either may be named; the rest is understood alike.
#[track_caller]
pub(crate) fn assert_alike(ours: &[Said], theirs: &[Said]) {
    match (ours.last(), theirs.last()) {
        // Theirs refuses the first fragment that cannot become UTF-8; ours the whole message, if it ends. Only
        // control frames and another broken rule can come between.
        (_, Some(Said::Refused(1007))) => {
            let agreed = (theirs.len() - 1).min(ours.len());
            let (same, rest) = ours.split_at(agreed);
            assert_eq!(same, &theirs[..agreed]);
            let may_come = |said: &Said| {
                matches!(
                    said,
                    Said::Ping(_) | Said::Pong(_) | Said::Refused(_) | Said::Close(..)
                )
            };
            assert!(rest.iter().all(may_come), "{ours:?}\n{theirs:?}");
        }
        (Some(Said::Refused(_)), Some(Said::Refused(_))) => {
            assert_eq!(ours[..ours.len() - 1], theirs[..theirs.len() - 1]);
        }
        _ => assert_eq!(ours, theirs),
    }
}
