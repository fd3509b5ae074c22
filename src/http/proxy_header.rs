//! The header of the PROXY protocol: a proxy's word, before a client's first byte, whose connection
//! this is.
//!
//! Owns: versions 1 and 2 of it, as HAProxy's `proxy-protocol.txt` has them.
//! May depend on: `memchr`, `thiserror`.
//! Invariants: a header of version 1 has at most 107 bytes, one of version 2 at most 552; bytes that
//! are none are known from the first that differs; more bytes never change an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::memmem;
use thiserror::Error;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// How many bytes it took; the client's own follow.
    pub bytes: usize,
    pub source: Source,
}

/// Whom a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Who connected to the proxy.
    Client(IpAddr),
    /// The proxy itself, which looks whether we live, or somebody without an IP address.
    Proxy,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header has a wrong {0}")]
    Malformed(&'static str),
    #[error("the PROXY header is longer than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
}

/// Parses the header at the start of `bytes`. `Ok(None)`: it has not ended yet, come back with more.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if begins(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

/// As far as there are bytes, they are those of the signature.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, other)| one == other)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let within = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(line_bytes) = memmem::find(within, b"\r\n") else {
        return match bytes.len() < V1_BYTES_MAX {
            true => Ok(None),
            false => Err(ProxyHeaderError::TooLong {
                bytes_max: V1_BYTES_MAX,
            }),
        };
    };
    let line = within.get(V1_SIGNATURE.len()..line_bytes);
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    Ok(Some(ProxyHeader {
        bytes: line_bytes + 2,
        source: v1_source(line.ok_or(ProxyHeaderError::Malformed("line"))?)?,
    }))
}

/// What stands between `PROXY ` and the end of the line.
fn v1_source(line: &str) -> Result<Source, ProxyHeaderError> {
    let mut fields = line.split(' ');
    let family = fields.next();
    if family == Some("UNKNOWN") {
        return Ok(Source::Proxy); // Whatever follows on the line is to be passed over.
    }
    let [Some(source), Some(destination), Some(from), Some(to), None] =
        [(); 5].map(|()| fields.next())
    else {
        return Err(ProxyHeaderError::Malformed("number of fields"));
    };
    let parse = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            Some(_) | None => None,
        }
    };
    let (Some(source), Some(_)) = (parse(source), parse(destination)) else {
        return Err(ProxyHeaderError::Malformed("address"));
    };
    match is_port(from) && is_port(to) {
        true => Ok(Source::Client(source)),
        false => Err(ProxyHeaderError::Malformed("port")),
    }
}

/// In decimal, without leading zeros.
fn is_port(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    is_plain && is_short && text.parse::<u16>().is_ok()
}

// Each check needs the bytes up to its own only, so that an early answer is the last one.
fn parse_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    let Some(version_command) = bytes.get(V2_SIGNATURE.len()) else {
        return Ok(None);
    };
    let command = match version_command {
        0x20 => Command::Local,
        0x21 => Command::Proxy,
        0x22..=0x2F => return Err(ProxyHeaderError::Malformed("command")),
        _ => return Err(ProxyHeaderError::Malformed("version")),
    };
    let Some(family_protocol) = bytes.get(V2_SIGNATURE.len() + 1) else {
        return Ok(None);
    };
    // The proxy's own connection is as it is, whatever a header says of it.
    let family = match (command, family_protocol) {
        (Command::Local, _) | (Command::Proxy, 0x00..=0x02) => Family::None,
        (Command::Proxy, 0x10..=0x12) => Family::Inet,
        (Command::Proxy, 0x20..=0x22) => Family::Inet6,
        (Command::Proxy, 0x30..=0x32) => Family::Unix,
        (Command::Proxy, _) => return Err(ProxyHeaderError::Malformed("family")),
    };
    let Some(&[_, _, high, low]) = bytes
        .get(V2_SIGNATURE.len()..)
        .and_then(<[u8]>::first_chunk)
    else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_LENGTH_MAX {
        let bytes_max = V2_HEAD_BYTES + V2_LENGTH_MAX;
        return Err(ProxyHeaderError::TooLong { bytes_max });
    }
    if length < family.addresses_bytes() {
        return Err(ProxyHeaderError::Malformed("length"));
    }
    let Some(addresses) = bytes.get(V2_HEAD_BYTES..V2_HEAD_BYTES + length) else {
        return Ok(None);
    };
    // What follows the addresses is more about the connection, of which nothing is used.
    let source = match family {
        Family::None | Family::Unix => None,
        Family::Inet => addresses.first_chunk::<4>().map(|it| IpAddr::from(*it)),
        Family::Inet6 => addresses.first_chunk::<16>().map(|it| IpAddr::from(*it)),
    };
    Ok(Some(ProxyHeader {
        bytes: V2_HEAD_BYTES + length,
        source: source.map_or(Source::Proxy, Source::Client),
    }))
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

#[derive(Clone, Copy)]
enum Family {
    None,
    Inet,
    Inet6,
    Unix,
}

impl Family {
    /// Of both ends, with their ports.
    fn addresses_bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Inet => 12,
            Self::Inet6 => 36,
            Self::Unix => 216,
        }
    }
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// With its line end: the longest that the protocol knows.
const V1_BYTES_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Up to and with the length of the rest.
const V2_HEAD_BYTES: usize = 16;
/// Two Unix addresses, and 320 bytes about the connection.
const V2_LENGTH_MAX: usize = 536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(address: &str) -> Source {
        Source::Client(address.parse().expect("an address"))
    }

    /// A header of version 2 around this.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("it fits");
        let head = [V2_SIGNATURE, &[command, family], &length.to_be_bytes()];
        [&head.concat(), rest].concat()
    }

    const INET: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x1F, 0x90, 0x17, 0x71];

    fn inet6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().expect("an address");
        [&source.octets()[..], &[0; 20]].concat()
    }

    #[test]
    fn a_line_of_version_1_names_the_client_or_nobody() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(107 - 16));
        for (line, source) in [
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 8080 6001\r\n",
                client("192.0.2.7"),
            ),
            (
                "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
                client("0.0.0.0"),
            ),
            ("PROXY TCP6 2001:db8::7 ::1 1 2\r\n", client("2001:db8::7")),
            (
                "PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n",
                client("::ffff:192.0.2.7"),
            ),
            ("PROXY UNKNOWN\r\n", Source::Proxy),
            ("PROXY UNKNOWN ::1 nonsense  \r\n", Source::Proxy),
            (&longest, Source::Proxy),
        ] {
            let bytes = line.len();
            assert_eq!(
                parse_proxy_header(line.as_bytes()),
                Ok(Some(ProxyHeader { bytes, source }))
            );
            let followed = [line.as_bytes(), b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(
                parse_proxy_header(&followed),
                Ok(Some(ProxyHeader { bytes, source }))
            );
        }
    }

    #[test]
    fn a_line_that_is_not_quite_one_is_refused() {
        let malformed = ProxyHeaderError::Malformed;
        let too_long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(108 - 16));
        for (line, error) in [
            ("PROXY \r\n", malformed("number of fields")),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 8080\r\n",
                malformed("number of fields"),
            ),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 8080 6001 \r\n",
                malformed("number of fields"),
            ),
            (
                "PROXY TCP4  192.0.2.7 198.51.100.1 8080 6001\r\n",
                malformed("number of fields"),
            ),
            (
                "PROXY UNKNOWNS 192.0.2.7 198.51.100.1 1 2\r\n",
                malformed("address"),
            ),
            (
                "PROXY tcp4 192.0.2.7 198.51.100.1 1 2\r\n",
                malformed("address"),
            ),
            (
                "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
                malformed("address"),
            ),
            (
                "PROXY TCP4 192.0.2.007 198.51.100.1 1 2\r\n",
                malformed("address"),
            ),
            (
                "PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n",
                malformed("address"),
            ),
            ("PROXY TCP4 192.0.2.7 host 1 2\r\n", malformed("address")),
            ("PROXY TCP4 2001:db8::7 ::1 1 2\r\n", malformed("address")),
            (
                "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
                malformed("address"),
            ),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
                malformed("port"),
            ),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 1 +2\r\n",
                malformed("port"),
            ),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
                malformed("port"),
            ),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1  2\r\n",
                malformed("port"),
            ),
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n\r\n",
                malformed("port"),
            ),
            (&too_long, ProxyHeaderError::TooLong { bytes_max: 107 }),
        ] {
            assert_eq!(parse_proxy_header(line.as_bytes()), Err(error), "{line:?}");
        }
        let not_text = b"PROXY TCP4 \xFF\r\n";
        assert_eq!(parse_proxy_header(not_text), Err(malformed("line")));
    }

    #[test]
    fn version_2_names_the_client_of_a_proxy_and_the_proxy_of_its_own() {
        let with_more = |addresses: &[u8]| [addresses, &[0x04, 0, 1, b'x']].concat();
        for (name, header, source) in [
            ("TCP over IPv4", v2(0x21, 0x11, &INET), client("192.0.2.7")),
            ("UDP over IPv4", v2(0x21, 0x12, &INET), client("192.0.2.7")),
            (
                "with more",
                v2(0x21, 0x11, &with_more(&INET)),
                client("192.0.2.7"),
            ),
            ("IPv6", v2(0x21, 0x21, &inet6()), client("2001:db8::7")),
            (
                "IPv6 with more",
                v2(0x21, 0x21, &with_more(&inet6())),
                client("2001:db8::7"),
            ),
            ("Unix", v2(0x21, 0x31, &[b'/'; 216]), Source::Proxy),
            ("unspecified", v2(0x21, 0x00, b""), Source::Proxy),
            (
                "unspecified with more",
                v2(0x21, 0x00, b"more"),
                Source::Proxy,
            ),
            ("local", v2(0x20, 0x00, b""), Source::Proxy),
            ("local with addresses", v2(0x20, 0x11, &INET), Source::Proxy),
            ("local of no family", v2(0x20, 0xFF, b"x"), Source::Proxy),
            ("longest", v2(0x21, 0x31, &[0; 536]), Source::Proxy),
        ] {
            let bytes = header.len();
            let expected = Ok(Some(ProxyHeader { bytes, source }));
            assert_eq!(parse_proxy_header(&header), expected, "{name}");
            let followed = [&header[..], b"PROXY"].concat();
            assert_eq!(parse_proxy_header(&followed), expected, "{name}");
        }
    }

    #[test]
    fn version_2_is_refused_at_the_first_byte_that_is_wrong() {
        let malformed = ProxyHeaderError::Malformed;
        for (name, header, wrong_at, error) in [
            ("version 1", v2(0x11, 0x11, &INET), 12, malformed("version")),
            ("version 3", v2(0x31, 0x11, &INET), 12, malformed("version")),
            ("command 2", v2(0x22, 0x11, &INET), 12, malformed("command")),
            ("family 4", v2(0x21, 0x41, &INET), 13, malformed("family")),
            ("protocol 3", v2(0x21, 0x13, &INET), 13, malformed("family")),
            (
                "IPv4 cut",
                v2(0x21, 0x11, &INET[..11]),
                15,
                malformed("length"),
            ),
            (
                "IPv6 cut",
                v2(0x21, 0x21, &inet6()[..35]),
                15,
                malformed("length"),
            ),
            (
                "Unix cut",
                v2(0x21, 0x31, &[b'/'; 215]),
                15,
                malformed("length"),
            ),
            (
                "too long",
                v2(0x21, 0x11, &[0; 537]),
                15,
                ProxyHeaderError::TooLong { bytes_max: 552 },
            ),
            (
                "too long though local",
                v2(0x20, 0x00, &[0; 537]),
                15,
                ProxyHeaderError::TooLong { bytes_max: 552 },
            ),
        ] {
            assert_eq!(parse_proxy_header(&header[..wrong_at]), Ok(None), "{name}");
            assert_eq!(
                parse_proxy_header(&header[..=wrong_at]),
                Err(error),
                "{name}"
            );
            assert_eq!(parse_proxy_header(&header), Err(error), "{name}");
        }
    }

    #[test]
    fn what_begins_otherwise_is_no_header_from_the_first_byte_that_differs() {
        for (bytes, wrong_at) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], 0),
            (b"POST / HTTP/1.1\r\n\r\n", 1),
            (b"PROXX TCP4", 4),
            (b"PROXY\tTCP4", 5),
            (b"proxy TCP4", 0),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 4),
            (b"\x16\x03\x01", 0),
            (b"\r\n\r\n\0\r\nQUIT\r", 11),
        ] {
            assert_eq!(parse_proxy_header(&bytes[..wrong_at]), Ok(None));
            assert_eq!(
                parse_proxy_header(&bytes[..=wrong_at]),
                Err(ProxyHeaderError::Missing)
            );
            assert_eq!(parse_proxy_header(bytes), Err(ProxyHeaderError::Missing));
        }
    }

    fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
        let v1 = "PROXY (TCP4|TCP6|UNKNOWN|TCP) ?[0-9a-f:. ]{0,120}(\r\n)?[a-z]{0,4}";
        let rest = proptest::collection::vec(any::<u8>(), 0..600);
        let v2 = (0x1Fu8..0x23, any::<u8>(), rest.clone())
            .prop_map(|(command, family, rest)| v2(command, family & 0x33, &rest));
        prop_oneof![v1.prop_map(String::into_bytes), v2, rest]
    }

    proptest! {
        #[test]
        fn more_bytes_change_no_answer_and_a_header_is_as_long_as_it_says(bytes in some_bytes()) {
            let whole = parse_proxy_header(&bytes);
            for end in 0..bytes.len() {
                match (parse_proxy_header(&bytes[..end]), whole) {
                    (Ok(None), Ok(Some(header))) => prop_assert!(end < header.bytes),
                    (Ok(None), _) => prop_assert!(end < V2_HEAD_BYTES + V2_LENGTH_MAX),
                    (early, whole) => prop_assert_eq!(early, whole),
                }
            }
            if let Ok(Some(header)) = whole {
                prop_assert!(header.bytes <= bytes.len());
            }
        }
    }
}
