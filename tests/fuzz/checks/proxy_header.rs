//! Headers of the PROXY protocol. The bytes: cuts and a stream that begins with one, see `pieces`.
//!
//! Owns: that cuts change nothing, that a header ends and names as a reader sees who has all of it at once.
//! May depend on: `pieces`; `sockudo::http::proxy_header`.
//! Invariants: none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sockudo::http::proxy_header::{Source, parse_proxy_header};

use super::pieces;

pub fn check(bytes: &[u8]) {
    let (cuts, stream) = pieces::split(bytes);
    let whole = parse_proxy_header(stream);
    for pieces in pieces::ways(cuts, stream) {
        let mut bytes = 0;
        for piece in pieces.iter().take(STEPS_MAX) {
            bytes += piece.len();
            let early = parse_proxy_header(&stream[..bytes]);
            match (early, whole) {
                (Ok(None), Ok(Some(header))) => assert!(bytes < header.bytes, "{bytes} are enough"),
                (Ok(None), _) => assert!(bytes < HEADER_BYTES_MAX, "{bytes} are too many"),
                (early, whole) => assert_eq!(early, whole, "after {bytes} bytes"),
            }
        }
    }
    let read = whole.ok().flatten().map(|header| match header.source {
        Source::Client(address) => (header.bytes, Some(address)),
        Source::Proxy => (header.bytes, None),
    });
    assert_eq!(read, seen(stream));
}

/// How long the header is and whom it names, if it is one.
fn seen(stream: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    match stream.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        Some(rest) => seen_in_bytes(rest),
        None => seen_in_line(stream),
    }
}

fn seen_in_bytes(rest: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    let [command, family, high, low, rest @ ..] = rest else {
        return None;
    };
    let length = usize::from(*high) * 256 + usize::from(*low);
    if length > HEADER_BYTES_MAX - 16 || length > rest.len() {
        return None;
    }
    let source = match (command, family >> 4, family & 15, &rest[..length]) {
        (0x20, ..) | (0x21, 0, 0..=2, _) => None,
        (0x21, 1, 0..=2, [a, b, c, d, _, _, _, _, _, _, _, _, ..]) => {
            Some(Ipv4Addr::new(*a, *b, *c, *d).into())
        }
        (0x21, 2, 0..=2, addresses) if length >= 36 => {
            let words: Vec<u16> = addresses[..16]
                .chunks(2)
                .map(|pair| u16::from(pair[0]) << 8 | u16::from(pair[1]))
                .collect();
            let words: [u16; 8] = words.try_into().expect("16 bytes are 8 words");
            Some(Ipv6Addr::from(words).into())
        }
        (0x21, 3, 0..=2, _) if length >= 216 => None,
        _ => return None,
    };
    Some((16 + length, source))
}

fn seen_in_line(stream: &[u8]) -> Option<(usize, Option<IpAddr>)> {
    let line_bytes = stream.windows(2).position(|two| two == b"\r\n")?;
    if line_bytes + 2 > 107 {
        return None;
    }
    let line = std::str::from_utf8(&stream[..line_bytes]).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    let source = match &*words {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", source, destination, from, to] => {
            // There is one way to write them: who reads them and writes them again has the same line.
            let source: Ipv4Addr = source.parse().ok()?;
            let destination: Ipv4Addr = destination.parse().ok()?;
            let (from, to): (u16, u16) = (from.parse().ok()?, to.parse().ok()?);
            let again = format!("PROXY TCP4 {source} {destination} {from} {to}");
            if again != line {
                return None;
            }
            Some(source.into())
        }
        ["PROXY", "TCP6", source, destination, from, to] => {
            let source: Ipv6Addr = source.parse().ok()?;
            destination.parse::<Ipv6Addr>().ok()?;
            for port in [from, to] {
                if port.parse::<u16>().ok()?.to_string() != **port {
                    return None;
                }
            }
            Some(source.into())
        }
        _ => return None,
    };
    Some((line_bytes + 2, source))
}

const HEADER_BYTES_MAX: usize = 552;
/// Each step reads all so far again.
const STEPS_MAX: usize = 2_000;
