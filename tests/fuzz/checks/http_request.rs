//! Requests. The bytes: cuts and a stream that begins with a head, see `pieces`; a stream that is no head is read as a
//! chunked body, and as a query.
//!
//! Owns: that cuts change nothing, the framing rules told over the head's lines, a chunked coding that is read whole.
//! May depend on: `pieces`; `sockudo::http::{body, query, request}`, `sockudo::protocol::query`.
//! Invariants: none.

use std::borrow::Cow;

use sockudo::http::body::ChunkedBody;
use sockudo::http::query::{ChannelsQuery, ClientQuery, ProtocolParam};
use sockudo::http::request::{
    BodyFraming, HEAD_BYTES_MAX, HEADERS_MAX, Head, HttpError, Version, parse_head,
};
use sockudo::protocol::query;

use super::pieces;

pub fn check(bytes: &[u8]) {
    let (cuts, stream) = pieces::split(bytes);
    let whole = parse_head(stream);
    for pieces in pieces::ways(cuts, stream) {
        head_in(&pieces, stream, &whole);
    }
    match whole {
        Ok(Some(head)) => {
            head_rules(&head, stream);
            chunked(cuts, &stream[head.bytes..]);
            query_rules(head.query);
        }
        Ok(None) | Err(_) => {
            chunked(cuts, stream);
            query_rules(&String::from_utf8_lossy(stream));
        }
    }
}

/// More bytes never change an answer: nothing until the head has ended, then always the same.
fn head_in(pieces: &[&[u8]], stream: &[u8], whole: &Result<Option<Head<'_>>, HttpError>) {
    let mut bytes = 0;
    // Each step reads all so far again: where there are too many, those around the beginning must do.
    for piece in pieces.iter().take(STEPS_MAX) {
        bytes += piece.len();
        match (parse_head(&stream[..bytes]), whole) {
            (Ok(None), Ok(Some(head))) => assert!(bytes < head.bytes, "{bytes} are enough"),
            (Ok(None), _) => {}
            (Ok(Some(early)), Ok(Some(head))) => {
                assert_eq!(format!("{early:?}"), format!("{head:?}"));
            }
            // What makes a head too large may hide what else is wrong with it.
            (Err(HttpError::HeadTooLarge), Err(_)) => {}
            (Err(early), Err(error)) => assert_eq!(early, *error),
            (early, whole) => panic!("after {bytes} bytes {early:?}, in the end {whole:?}"),
        }
    }
}

/// The head's limits; and what its lines, looked at one by one, say of the body.
fn head_rules(head: &Head<'_>, stream: &[u8]) {
    let text = &stream[..head.bytes];
    assert!(head.bytes <= HEAD_BYTES_MAX, "{} bytes", head.bytes);
    assert!(text.ends_with(b"\r\n\r\n"));
    let line_feeds = text.iter().filter(|byte| **byte == b'\n').count();
    let pairs = text.windows(2).filter(|two| two == b"\r\n").count();
    assert_eq!(line_feeds, pairs, "a line feed alone");
    assert!(head.raw_path.starts_with('/') || head.raw_path == "*");
    assert!(!head.raw_path.contains('?') && !head.method.is_empty());
    let lines: Vec<(String, &[u8])> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = String::from_utf8_lossy(&line[..colon]).to_lowercase();
            Some((name, line[colon + 1..].trim_ascii()))
        })
        .collect();
    // The request line may have a colon as well.
    assert!(lines.len() <= HEADERS_MAX + 1, "{} headers", lines.len());
    let values = |name: &str| -> Vec<&[u8]> {
        let named = lines.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| *value).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.is_empty() || codings.is_empty(), "two lengths");
    match head.body {
        BodyFraming::Chunked => {
            assert!(codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
        }
        BodyFraming::Empty | BodyFraming::Length(_) => {
            assert!(codings.is_empty(), "a coding that was not seen");
            let told = match head.body {
                BodyFraming::Length(bytes) => bytes,
                BodyFraming::Empty | BodyFraming::Chunked => 0,
            };
            for length in lengths {
                let length = std::str::from_utf8(length).expect("digits");
                assert!(length.bytes().all(|byte| byte.is_ascii_digit()));
                assert_eq!(length.parse(), Ok(told));
            }
        }
    }
    let hosts = values("host").len();
    let needs_host = head.version == Version::Http11;
    assert!(hosts == 1 || hosts == 0 && !needs_host, "{hosts} hosts");
    let keys = values("sec-websocket-key");
    assert!(head.ws_key.is_none() || keys == [head.ws_key.unwrap_or_default().as_bytes()]);
    for bytes_max in [0, 1, BODY_BYTES_MAX] {
        let is_within =
            !matches!(head.body, BodyFraming::Length(bytes) if bytes > bytes_max as u64);
        assert_eq!(head.check_body_bytes(bytes_max).is_ok(), is_within);
    }
}

/// A body is the same however it is cut, and the same that a reader of the whole finds.
fn chunked(cuts: &[u8], stream: &[u8]) {
    let [whole, cut, byte_for_byte] = pieces::ways(cuts, stream).map(|pieces| {
        let (mut body, mut consumed) = (ChunkedBody::new(BODY_BYTES_MAX), 0);
        let mut kept = Vec::new();
        for piece in pieces {
            let taken = body.feed(piece, |data| kept.extend_from_slice(data))?;
            assert!(
                taken == piece.len() || body.is_complete(),
                "bytes left over"
            );
            assert!(kept.len() <= BODY_BYTES_MAX, "too large a body");
            consumed += taken;
        }
        Ok::<_, HttpError>((body.is_complete(), consumed, kept))
    });
    assert_eq!(cut, whole, "cut");
    assert_eq!(byte_for_byte, whole, "byte for byte");
    match (whole, chunks(stream)) {
        (Ok((true, consumed, body)), Some(read)) => assert_eq!((body, consumed), read),
        (Ok((true, ..)), None) => panic!("a body that has not ended"),
        (Ok((false, ..)), read) => assert_eq!(read, None, "a body that has ended"),
        (Err(HttpError::Malformed(_)), read) => assert_eq!(read, None, "a good body"),
        (Err(HttpError::BodyTooLarge { .. }), Some((body, _))) => {
            assert!(body.len() > BODY_BYTES_MAX);
        }
        (Err(_), _) => {}
    }
}

/// RFC 9112, section 7.1, without a care for limits: the body, and how many bytes it took.
fn chunks(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut rest) = (Vec::new(), stream);
    loop {
        let line = take_line(&mut rest)?;
        let size = line.split(|byte| *byte == b';').next()?;
        if size.is_empty() || size.len() > 16 || !size.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let bytes = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if bytes == 0 {
            while !take_line(&mut rest)?.is_empty() {}
            return Some((body, stream.len() - rest.len()));
        }
        let (data, after) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        body.extend_from_slice(data);
        rest = after.strip_prefix(b"\r\n")?;
    }
}

/// A line without its end, in which no other control of lines stands.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let (line, after) = rest.split_at(end);
    *rest = after.strip_prefix(b"\r\n")?;
    Some(line)
}

/// A query is split at `&` and the first `=`, decoded once, and of repeated parameters the first counts.
fn query_rules(query: &str) {
    let naive: Vec<(&str, &str)> = query
        .split('&')
        .filter(|segment| !segment.is_empty())
        .map(|segment| segment.split_once('=').unwrap_or((segment, "")))
        .collect();
    let pairs: Vec<query::Pair<'_>> = query::pairs(query).collect();
    let split: Vec<(&str, &str)> = pairs.iter().map(|pair| (pair.key, pair.value)).collect();
    assert_eq!(split, naive, "{query:?}");
    for pair in pairs {
        for (text, is_escaped) in [
            (pair.key, pair.key_is_escaped),
            (pair.value, pair.value_is_escaped),
        ] {
            assert_eq!(is_escaped, text.contains(['%', '+']), "{text:?}");
            assert_eq!(*query::decode(text), *decoded(text), "{text:?}");
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            assert_eq!(*query::decode(&escaped), *text.as_bytes());
            assert_eq!(query::decode_percent(&escaped), text.as_bytes());
        }
    }
    let first = |name: &str| {
        let found = naive
            .iter()
            .find(|(key, _)| decoded(key).eq_ignore_ascii_case(name.as_bytes()))?;
        Some(String::from_utf8_lossy(&decoded(found.1)).into_owned())
    };
    let client = ClientQuery::parse(query);
    assert_eq!(
        client.protocol,
        protocol(first("protocol").as_deref()),
        "{query:?}"
    );
    for (label, name) in [(client.client, "client"), (client.version, "version")] {
        let value = first(name);
        let kept = value
            .as_ref()
            .map(|text| &text[..text.floor_char_boundary(64)]);
        assert_eq!(label.as_deref(), kept, "{query:?}");
    }
    if let Ok(channels) = ChannelsQuery::parse(query) {
        let prefix = first("filter_by_prefix").unwrap_or_default();
        assert_eq!(
            channels.filter_by_prefix,
            Cow::Borrowed(&*prefix),
            "{query:?}"
        );
        assert!(!channels.info.cache, "{query:?}");
        assert!(!channels.info.user_count || prefix.starts_with("presence-"));
    }
}

fn protocol(value: Option<&str>) -> ProtocolParam {
    match value {
        None => ProtocolParam::Absent,
        Some(text) if text.is_empty() || text.contains(|c: char| !c.is_ascii_digit()) => {
            ProtocolParam::Invalid
        }
        Some(digits) => match digits.trim_start_matches('0') {
            "5" => ProtocolParam::Accepted(5),
            "6" => ProtocolParam::Accepted(6),
            "7" => ProtocolParam::Accepted(7),
            _ => ProtocolParam::Unsupported,
        },
    }
}

/// `+` is a space, `%` with two digits a byte, and any other `%` stands for itself.
fn decoded(text: &str) -> Vec<u8> {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let digits = digits.filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        match (bytes[at], digits) {
            (b'%', Some(two)) => {
                let two = std::str::from_utf8(two).expect("digits");
                out.push(u8::from_str_radix(two, 16).expect("two digits"));
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    out
}

const BODY_BYTES_MAX: usize = 64;
const STEPS_MAX: usize = 512;
