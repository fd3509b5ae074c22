//! The upgrade: is this request one, and what is answered.
//!
//! Owns: the rules of RFC 6455, section 4.2, and the bytes of the 101 answer.
//! May depend on: `tungstenite` (the accept key). Not on `http`: the caller copies five fields of
//! its request head.
//! Invariants: no subprotocol and no extension is ever accepted, whatever a client offers.

use thiserror::Error;
use tungstenite::handshake::derive_accept_key;

/// What a request says about an upgrade.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'a> {
    /// GET with HTTP/1.1.
    pub is_get_1_1: bool,
    /// `Upgrade` lists `websocket`.
    pub upgrade_websocket: bool,
    /// `Connection` lists `upgrade`.
    pub connection_upgrade: bool,
    /// `Sec-WebSocket-Key`, `None` when missing or repeated.
    pub key: Option<&'a str>,
    /// `Sec-WebSocket-Version`.
    pub version: Option<&'a str>,
}

/// Checks a request and derives the accept value.
pub fn check_upgrade(request: &UpgradeRequest<'_>) -> Result<AcceptKey, UpgradeError> {
    if !(request.is_get_1_1 && request.upgrade_websocket && request.connection_upgrade) {
        return Err(UpgradeError::NotAnUpgrade);
    }
    let key = request
        .key
        .filter(|key| is_key(key))
        .ok_or(UpgradeError::Key)?;
    match request.version {
        Some("13") => Ok(accept_key(key)),
        Some(_) | None => Err(UpgradeError::Version),
    }
}

/// Why a request is not upgraded. The status follows from it: 426 for the version (with the header
/// `Sec-WebSocket-Version: 13`), 400 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UpgradeError {
    #[error("not a WebSocket upgrade")]
    NotAnUpgrade,
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
}

/// The value of `Sec-WebSocket-Accept`: base64 of a SHA-1 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptKey(pub [u8; 28]);

/// Derives the accept value of a key.
pub fn accept_key(key: &str) -> AcceptKey {
    let derived = derive_accept_key(key.as_bytes());
    AcceptKey(
        *derived
            .as_bytes()
            .first_chunk()
            .expect("20 bytes are 28 in base64"),
    )
}

/// Appends the answer to a valid upgrade. `extra_headers` are whole lines, each with its CRLF.
pub fn write_switching_protocols(out: &mut Vec<u8>, accept: &AcceptKey, extra_headers: &[u8]) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept.0);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(extra_headers);
    out.extend_from_slice(b"\r\n");
}

/// Base64 of exactly 16 bytes: 22 characters and two of padding.
fn is_key(key: &str) -> bool {
    let is_digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24
        && key
            .strip_suffix("==")
            .is_some_and(|digits| digits.as_bytes().iter().all(is_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: UpgradeRequest<'_> = UpgradeRequest {
        is_get_1_1: true,
        upgrade_websocket: true,
        connection_upgrade: true,
        key: Some("dGhlIHNhbXBsZSBub25jZQ=="),
        version: Some("13"),
    };

    #[test]
    fn the_sample_key_of_the_rfc_gives_its_sample_answer() {
        let accept = check_upgrade(&VALID).expect("valid");
        assert_eq!(&accept.0, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_switching_protocols(&mut out, &accept, b"X-A: b\r\n");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-A: b\r\n\r\n"
        );
    }

    #[test]
    fn an_invalid_upgrade_is_refused_for_its_first_fault() {
        use UpgradeError::*;
        for (request, error) in [
            (
                UpgradeRequest {
                    is_get_1_1: false,
                    ..VALID
                },
                NotAnUpgrade,
            ),
            (
                UpgradeRequest {
                    upgrade_websocket: false,
                    ..VALID
                },
                NotAnUpgrade,
            ),
            (
                UpgradeRequest {
                    connection_upgrade: false,
                    ..VALID
                },
                NotAnUpgrade,
            ),
            (
                UpgradeRequest {
                    upgrade_websocket: false,
                    version: Some("8"),
                    ..VALID
                },
                NotAnUpgrade,
            ),
            (UpgradeRequest { key: None, ..VALID }, Key),
            (
                UpgradeRequest {
                    key: Some(""),
                    ..VALID
                },
                Key,
            ),
            (
                UpgradeRequest {
                    key: Some("dGhlIHNhbXBsZSBub25jZQ="),
                    ..VALID
                },
                Key,
            ),
            (
                UpgradeRequest {
                    key: Some("dGhlIHNhbXBsZSBub25jZQAA=="),
                    ..VALID
                },
                Key,
            ),
            (
                UpgradeRequest {
                    key: Some("dGhlIHNhbXBsZSBub25jZQAA"),
                    ..VALID
                },
                Key,
            ),
            (
                UpgradeRequest {
                    key: Some("dGhlIHNhbXBs*SBub25jZQ=="),
                    ..VALID
                },
                Key,
            ),
            (
                UpgradeRequest {
                    version: None,
                    ..VALID
                },
                Version,
            ),
            (
                UpgradeRequest {
                    version: Some("8"),
                    ..VALID
                },
                Version,
            ),
            (
                UpgradeRequest {
                    version: Some("13, 8"),
                    ..VALID
                },
                Version,
            ),
        ] {
            assert_eq!(check_upgrade(&request), Err(error), "{request:?}");
        }
    }
}
