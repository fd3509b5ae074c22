//! Answers of webhook targets. The bytes: cuts and a stream, see `pieces`.
//!
//! Owns: that cuts change nothing, and a naive reading of the same answer, with which an accepted one must agree.
//! May depend on: `pieces`; `sockudo::bridge::webhook::answer`.
//! Invariants: none.

use sockudo::bridge::webhook::answer::{Answer, Done, Fault};

use super::pieces;

pub fn check(bytes: &[u8]) {
    let (cuts, stream) = pieces::split(bytes);
    let [whole, cut, byte_for_byte] = pieces::ways(cuts, stream).map(|pieces| read(&pieces));
    assert_eq!(cut, whole, "cut");
    assert_eq!(byte_for_byte, whole, "byte for byte");
    let told = Told::of(stream);
    match whole {
        Ok(done) => agrees(&done, &told.expect("a head that is whole"), stream),
        Err(Fault::Closed) => assert!(told.is_none(), "a status that was not seen"),
        Err(_) => {}
    }
}

/// What becomes of a stream that comes so and then ends. Who is done before its end closes the connection.
fn read(pieces: &[&[u8]]) -> Result<Done, Fault> {
    let mut answer = Answer::new(KEPT_BYTES);
    for (index, piece) in pieces.iter().enumerate() {
        let had_status = answer.has_status();
        if let Some(mut done) = answer.take(piece)? {
            let rest = &pieces[index + 1..];
            done.stays &= rest.iter().all(|it| it.is_empty());
            return Ok(done);
        }
        assert!(!had_status || answer.has_status(), "a status was lost");
    }
    answer.end()
}

fn agrees(done: &Done, told: &Told, stream: &[u8]) {
    assert_eq!(done.status.as_u16(), told.status);
    assert!(done.body.len() <= KEPT_BYTES);
    let body = told.body(stream);
    if let Some((body, _)) = &body {
        assert!(body.starts_with(&done.body), "another body");
    }
    let is_whole = body.is_some_and(|(_, end)| end == stream.len());
    assert!(
        is_whole || !done.stays,
        "a connection is kept that has not come to the answer's end"
    );
    // No bound is near.
    if is_whole && told.is_plain() && stream.len() < 1_000 {
        assert!(done.stays, "a whole answer was not believed");
    }
}

/// The last head, read line by line, without a care for limits and for what is no header.
#[derive(Debug)]
struct Told {
    status: u16,
    is_http_11: bool,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the body begins.
    body: usize,
}

impl Told {
    fn of(stream: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            while matches!(stream.get(at), Some(b'\r' | b'\n')) {
                at += 1;
            }
            let mut lines: Vec<Vec<u8>> = Vec::new();
            loop {
                let length = stream[at..].iter().position(|byte| *byte == b'\n')?;
                let line = &stream[at..at + length];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                at += length + 1;
                match (line.first(), lines.last_mut()) {
                    (None, _) => break,
                    (Some(b' ' | b'\t'), Some(folded)) => folded.extend_from_slice(line),
                    _ => lines.push(line.to_vec()),
                }
            }
            let told = Self::of_lines(&lines, at)?;
            if told.status >= 200 || told.status == 101 {
                return Some(told);
            }
        }
    }

    fn of_lines(lines: &[Vec<u8>], body: usize) -> Option<Self> {
        let (first, headers) = lines.split_first()?;
        let mut words = first.split(|it| *it == b' ').filter(|it| !it.is_empty());
        let is_http_11 = words.next()? == b"HTTP/1.1";
        let status = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let headers = headers.iter().filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = line[..colon].trim_ascii().to_ascii_lowercase();
            Some((
                name,
                line[colon + 1..].trim_ascii_start().to_ascii_lowercase(),
            ))
        });
        Some(Self {
            status,
            is_http_11,
            headers: headers.collect(),
            body,
        })
    }

    fn values(&self, name: &str) -> Vec<&[u8]> {
        let named = self.headers.iter().filter(|it| it.0 == name.as_bytes());
        named.map(|(_, value)| value.trim_ascii()).collect()
    }

    /// Nothing of it speaks against another request.
    fn is_plain(&self) -> bool {
        let codings = self.values("transfer-encoding");
        let is_one = codings.is_empty() || self.values("content-length").is_empty();
        let may_stay = self.is_http_11 && self.values("connection").is_empty();
        may_stay && is_one && self.status != 101
    }

    /// The body without framing, and where it ends; `None` while that has not come, or where only the end of the
    /// connection tells.
    fn body(&self, stream: &[u8]) -> Option<(Vec<u8>, usize)> {
        let rest = &stream[self.body..];
        let (body, bytes) = if [101, 204, 304].contains(&self.status) {
            (Vec::new(), 0)
        } else if let Some(coding) = self.values("transfer-encoding").last() {
            let last = coding.rsplit(|byte| *byte == b',').next()?;
            (last.trim_ascii() == b"chunked").then_some(())?;
            chunks(rest)?
        } else {
            let length = *self.values("content-length").first()?;
            let length = std::str::from_utf8(length).ok()?.parse().ok()?;
            (rest.get(..length)?.to_vec(), length)
        };
        Some((body, self.body + bytes))
    }
}

/// RFC 9112, section 7.1: the body, and how many bytes it took.
fn chunks(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut rest) = (Vec::new(), stream);
    loop {
        let line = take_line(&mut rest)?;
        let size = trim_blanks(line.split(|byte| *byte == b';').next()?);
        let is_size = (1..=16).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        if line.iter().any(|byte| b"\r\n".contains(byte)) || !is_size {
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

/// Without the blanks at the end that HTTP knows: other white space makes a chunk's size none.
fn trim_blanks(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A line without its end.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

const KEPT_BYTES: usize = 8;
