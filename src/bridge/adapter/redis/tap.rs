//! Data path. Takes messages out of what a server sends, before the crate reads the rest.
//!
//! Owns: `Tap` (a stream around another one), `Ear` (who gets the messages).
//! May depend on: `cluster::wire` for the bound of a batch, tokio. Not on the crate `redis`.
//! Invariants: what goes on to the crate is all that came but the messages that the ear took, in its order; what is
//! not understood, or longer than its bound, goes on with all that follows it. Nothing here trusts a length.

use std::{
    io,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::cluster::wire::BATCH_BYTES_MAX;

/// Who gets messages.
pub(super) trait Ear: Unpin {
    /// Takes a message by its topic's name, or leaves it to the crate.
    fn message(&self, name: &[u8], bytes: &[u8]) -> bool;
}

/// Reads ahead of the crate.
// The crate makes eight allocations and some hundred calls of its parser's parts of each message. Here it is a look
// at its head and one copy: a lone event wakes a thread whose caches are cold, and pays for code by the line.
pub(super) struct Tap<S, E> {
    stream: S,
    ear: E,
    buffer: Vec<u8>,
    /// What was read and not dealt with.
    unread: Range<usize>,
    /// So many bytes of it are the crate's.
    owed: usize,
    /// All that comes is the crate's from here on.
    is_shut: bool,
}

/// Room for what comes at once, as a rule.
const BUFFER_BYTES: usize = 32 << 10;
/// The longest message that is waited for: a batch, a name, the head.
const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + 4_096;
/// Of anything else; it is looked at from its start whenever more of it comes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

impl<S, E: Ear> Tap<S, E> {
    pub(super) fn new(stream: S, ear: E) -> Self {
        Self {
            stream,
            ear,
            buffer: vec![0; BUFFER_BYTES],
            unread: 0..0,
            owed: 0,
            is_shut: false,
        }
    }

    /// Gives the ear what is its, up to what is the crate's or has not come wholly.
    fn sort(&mut self) {
        while self.owed == 0 && !self.unread.is_empty() {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(message) = Message::read(unread)
                && self
                    .ear
                    .message(&unread[message.name], &unread[message.bytes])
            {
                self.unread.start += message.length;
                continue;
            }
            let bytes_max = match is_message(unread) {
                true => MESSAGE_BYTES_MAX,
                false => ANSWER_BYTES_MAX,
            };
            match frame_length(unread) {
                Frame::Whole(length) => self.owed = length,
                Frame::Part if unread.len() < bytes_max => return,
                Frame::Part | Frame::Strange => self.shut(),
            }
        }
    }

    fn shut(&mut self) {
        self.is_shut = true;
        self.owed = self.unread.len();
    }

    /// What the crate gets of what it is owed.
    fn pay(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.owed.min(out.remaining());
        let from = self.unread.start;
        out.put_slice(&self.buffer[from..from + count]);
        self.unread.start += count;
        self.owed -= count;
    }

    /// Room behind what is unread, which has not come wholly.
    fn make_room(&mut self) {
        let unread = self.unread.clone();
        if unread.is_empty() {
            self.unread = 0..0;
            if self.buffer.len() > BUFFER_BYTES {
                self.buffer = vec![0; BUFFER_BYTES];
            }
        } else if unread.end == self.buffer.len() {
            self.unread = 0..unread.len();
            self.buffer.copy_within(unread, 0);
            if self.unread.end > self.buffer.len() / 2 {
                let doubled = self.buffer.len() * 2;
                self.buffer.resize(doubled, 0);
            }
        }
    }
}

impl<S: AsyncRead + Unpin, E: Ear> AsyncRead for Tap<S, E> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tap = &mut *self;
        loop {
            if tap.owed > 0 {
                tap.pay(out);
                return Poll::Ready(Ok(()));
            }
            if tap.is_shut {
                return Pin::new(&mut tap.stream).poll_read(context, out);
            }
            tap.sort();
            if tap.owed > 0 {
                continue;
            }
            tap.make_room();
            let mut room = ReadBuf::new(&mut tap.buffer[tap.unread.end..]);
            // Pending from time to time, however much is there: the stream is tokio's, which sees to that.
            ready!(Pin::new(&mut tap.stream).poll_read(context, &mut room))?;
            let count = room.filled().len();
            tap.unread.end += count;
            if count == 0 {
                tap.shut(); // The end, behind what has not come wholly.
            }
        }
    }
}

impl<S: AsyncWrite + Unpin, E: Ear> AsyncWrite for Tap<S, E> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Where the parts of a published message are.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    name: Range<usize>,
    bytes: Range<usize>,
    length: usize,
}

impl Message {
    /// The one that stands at the start, if one stands there wholly.
    fn read(bytes: &[u8]) -> Option<Self> {
        let head = HEADS.into_iter().find(|head| bytes.starts_with(head))?;
        let name = bulk(bytes, head.len())?;
        let payload = bulk(bytes, name.end + LINE_END.len())?;
        Some(Self {
            length: payload.end + LINE_END.len(),
            name,
            bytes: payload,
        })
    }
}

/// Whether this is, or may become, the start of one.
fn is_message(bytes: &[u8]) -> bool {
    let is_head = |head: &&[u8]| bytes.starts_with(head) || head.starts_with(bytes);
    HEADS.iter().any(is_head)
}

/// Pushes of three, as SUBSCRIBE and SSUBSCRIBE bring them (redis.io, "Redis serialization protocol specification").
const HEADS: [&[u8]; 2] = [b">3\r\n$7\r\nmessage\r\n", b">3\r\n$8\r\nsmessage\r\n"];

/// Where the text of a bulk string is that begins there and is there wholly.
fn bulk(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let line = line(bytes, at)?;
    let (b'$', digits) = bytes[line.clone()].split_first()? else {
        return None;
    };
    let start = line.end + LINE_END.len();
    let end = start.checked_add(number(digits)?)?;
    let is_ended = bytes.get(end..)?.starts_with(LINE_END);
    is_ended.then_some(start..end)
}

/// Where the line is that begins there, without its end.
fn line(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = bytes.get(at..)?;
    let length = rest.iter().position(|byte| *byte == b'\r')?;
    let is_ended = rest[length..].starts_with(LINE_END);
    is_ended.then_some(at..at + length)
}

const LINE_END: &[u8] = b"\r\n";

/// Of at most nine digits.
fn number(digits: &[u8]) -> Option<usize> {
    let is_number = (1..10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value = |value, digit: &u8| value * 10 + usize::from(digit - b'0');
    is_number.then(|| digits.iter().fold(0, value))
}

/// What stands at the start.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Whole(usize),
    /// More is to come.
    Part,
    /// Nothing whose end we could find.
    Strange,
}

/// How long the value is that stands at the start.
fn frame_length(bytes: &[u8]) -> Frame {
    let mut at = 0;
    let mut values: usize = 1;
    while values > 0 {
        let Some(line) = line(bytes, at) else {
            return Frame::Part;
        };
        let Some((kind, rest)) = bytes[line.clone()].split_first() else {
            return Frame::Strange;
        };
        at = line.end + LINE_END.len();
        values -= 1;
        let count = number(rest);
        let inner = match (kind, count) {
            (b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(', _) => 0,
            (b'$' | b'*', None) if rest == b"-1" => 0,
            (b'$' | b'!' | b'=', Some(count)) => {
                at += count + LINE_END.len();
                if at > bytes.len() {
                    return Frame::Part;
                }
                0
            }
            (b'*' | b'~' | b'>', Some(count)) => count,
            (b'%', Some(count)) => count * 2,
            // What it belongs to comes behind it.
            (b'|', Some(count)) => count * 2 + 1,
            _ => return Frame::Strange,
        };
        values += inner;
    }
    Frame::Whole(at)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use super::*;

    /// What comes, read by read; then the end.
    struct Reads(VecDeque<Vec<u8>>);

    impl AsyncRead for Reads {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(read) = self.0.front_mut() {
                let rest = read.split_off(read.len().min(out.remaining()));
                out.put_slice(read);
                *read = rest;
                if read.is_empty() {
                    self.0.pop_front();
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// Names and what was said.
    type Messages = Vec<(Vec<u8>, Vec<u8>)>;

    #[derive(Default)]
    struct Heard(RefCell<Messages>);

    impl Ear for Heard {
        fn message(&self, name: &[u8], bytes: &[u8]) -> bool {
            let is_ours = name != b"other";
            if is_ours {
                self.0.borrow_mut().push((name.to_vec(), bytes.to_vec()));
            }
            is_ours
        }
    }

    /// What the ear and what the crate gets, which takes so many bytes at a time.
    fn sorted(reads: impl IntoIterator<Item = Vec<u8>>, taken: usize) -> (Messages, Vec<u8>) {
        let reads = reads.into_iter().filter(|read| !read.is_empty());
        let mut tap = Tap::new(Reads(reads.collect()), Heard::default());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut passed = Vec::new();
        let mut room = vec![0; taken];
        loop {
            let mut room = ReadBuf::new(&mut room);
            let Poll::Ready(read) = Pin::new(&mut tap).poll_read(&mut context, &mut room) else {
                panic!("nothing of this waits");
            };
            read.expect("nothing of this fails");
            if room.filled().is_empty() {
                return (tap.ear.0.into_inner(), passed);
            }
            passed.extend_from_slice(room.filled());
        }
    }

    fn message(kind: &str, name: &str, bytes: &[u8]) -> Vec<u8> {
        let (kind_length, name_length, length) = (kind.len(), name.len(), bytes.len());
        let head =
            format!(">3\r\n${kind_length}\r\n{kind}\r\n${name_length}\r\n{name}\r\n${length}\r\n");
        [head.as_bytes(), bytes, b"\r\n"].concat()
    }

    /// One of each kind of value, as the protocol's description has them.
    const OTHERS: [&[u8]; 17] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-12\r\n",
        b"$-1\r\n",
        b"$0\r\n\r\n",
        b"$9\r\n>3\r\n$7\r\nm\r\n",
        b"*-1\r\n",
        b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        b"_\r\n",
        b",1.5\r\n",
        b"#t\r\n",
        b"(349\r\n",
        b"!3\r\nERR\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n",
        b"~1\r\n+a\r\n",
        b"|1\r\n+ttl\r\n:5\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nn\r\n:1\r\n",
    ];

    #[test]
    fn the_ear_gets_messages_and_the_crate_the_rest_wherever_reads_end() {
        let mut all = Vec::new();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (number, other) in OTHERS.iter().enumerate() {
            let kind = ["message", "smessage"][number % 2];
            let bytes = format!("\r\n>3\r\n${number}");
            all.extend(message(kind, "name", bytes.as_bytes()));
            ours.push((b"name".to_vec(), bytes.into_bytes()));
            all.extend_from_slice(other);
            theirs.extend_from_slice(other);
        }
        let not_ours = message("message", "other", b"x");
        all.extend_from_slice(&not_ours);
        theirs.extend_from_slice(&not_ours);
        let expected = (ours, theirs);
        for taken in [1, 7, 4_096] {
            for cut in 0..=all.len() {
                let (start, end) = all.split_at(cut);
                let reads = [start.to_vec(), end.to_vec()];
                assert_eq!(sorted(reads, taken), expected, "cut at {cut}");
            }
            for bytes in [1, 2, 3, 5, 64] {
                let reads = all.chunks(bytes).map(<[u8]>::to_vec);
                assert_eq!(sorted(reads, taken), expected, "reads of {bytes}");
            }
        }
    }

    #[test]
    fn a_message_as_long_as_a_batch_is_heard_and_the_buffer_shrinks_again() {
        for bytes in [BUFFER_BYTES - 40, BUFFER_BYTES, BATCH_BYTES_MAX] {
            let long = message("message", "long", &vec![b'x'; bytes]);
            let short = message("message", "short", b"y");
            let reads = [long, short.clone(), b"+OK\r\n".to_vec(), short];
            let (heard, passed) = sorted(reads, 4_096);
            let lengths: Vec<usize> = heard.iter().map(|(_, bytes)| bytes.len()).collect();
            assert_eq!((lengths, &passed[..]), (vec![bytes, 1, 1], &b"+OK\r\n"[..]));
        }
        let mut tap = Tap::new(Reads(VecDeque::new()), Heard::default());
        tap.buffer.resize(BUFFER_BYTES * 4, 0);
        tap.make_room();
        assert_eq!(tap.buffer.len(), BUFFER_BYTES);
    }

    #[test]
    fn what_is_not_understood_or_too_long_goes_on_with_all_behind_it() {
        let short = message("message", "name", b"x");
        let long = |head: &str, bytes| [head.as_bytes(), &vec![b'x'; bytes][..]].concat();
        for strange in [
            b"?\r\n".to_vec(),
            b"\r\n".to_vec(),
            b"$?\r\n;1\r\n".to_vec(),
            b"*x\r\n".to_vec(),
            b"$9999999999\r\n".to_vec(),
            b">3\r\n$7\r\nmessage\r\n$-5\r\n".to_vec(),
            long("+", ANSWER_BYTES_MAX),
            long("$999999999\r\n", ANSWER_BYTES_MAX),
            long(
                ">3\r\n$7\r\nmessage\r\n$4\r\nname\r\n$999999999\r\n",
                MESSAGE_BYTES_MAX,
            ),
        ] {
            let reads = [short.clone(), strange.clone(), short.clone()];
            let (heard, passed) = sorted(reads, 4_096);
            let shown = String::from_utf8_lossy(&strange[..strange.len().min(50)]);
            assert_eq!(heard.len(), 1, "{shown}: before it");
            assert_eq!(passed, [strange.clone(), short.clone()].concat(), "{shown}");
        }
    }

    #[test]
    fn what_ends_in_the_middle_goes_on_as_it_is() {
        let whole = message("message", "name", b"bytes");
        for length in 1..whole.len() {
            let part = &whole[..length];
            let (heard, passed) = sorted([part.to_vec()], 4_096);
            assert_eq!((heard.len(), &passed[..]), (0, part));
        }
    }
}
