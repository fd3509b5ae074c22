//! One connection to a target: a request out, its answer in, and then the next.
//!
//! Owns: `Kept`, which may be used again; `Asked`, a request under way; `Unanswered`.
//! May depend on: `webhook::answer`, tokio.
//! Invariants: it is driven by who waits for its answer, and by nobody while it is kept; one that is not
//! known to be whole is not kept.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;

use super::answer::{Answer, Done, Fault};

/// A connection on which no request is under way.
pub(in crate::bridge) struct Kept {
    stream: Stream,
    since: Instant,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// Nothing of it was sent.
    #[error("closed at once")]
    Unsent,
    #[error(transparent)]
    Broken(#[from] io::Error),
    #[error(transparent)]
    NoAnswer(#[from] Fault),
}

/// One that lay idle for longer is not used again.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);
/// Read at once.
const READ_BYTES: usize = 4_096;
/// An attempt that goes on reading leaves the rest of the runtime's budget to others.
const READS_PER_TURN: usize = 4;

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("since", &self.since).finish()
    }
}

impl Kept {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::of(Stream::Plain(stream))
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::of(Stream::Tls(Box::new(stream)))
    }

    fn of(stream: Stream) -> Self {
        let since = Instant::now();
        Self { stream, since }
    }

    /// Since when it lies idle.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// One that the peer has neither closed nor written to meanwhile, as far as that is known here.
    // While nothing has come, no system call: the runtime knows.
    pub(super) fn standing(mut self) -> Option<Self> {
        let mut context = Context::from_waker(Waker::noop());
        let mut space = [0; 1];
        let mut space = ReadBuf::new(&mut space);
        let heard = self.stream.poll_read(&mut context, &mut space);
        (heard.is_pending() && self.since.elapsed() < KEPT_FOR).then_some(self)
    }

    /// Sends a request, whole with its head, until the status of an answer has come; of its body so many bytes
    /// are to be kept.
    ///
    /// # Errors
    /// When there is no status.
    // A write and a read where both are short; no allocation but for what the answer has.
    pub(super) async fn ask<'a>(
        &mut self,
        request: &'a [u8],
        keep_bytes: usize,
    ) -> Result<Asked<'a>, Unanswered> {
        let mut asked = Asked {
            request,
            sending: Sending::default(),
            answer: Answer::new(keep_bytes),
            done: None,
        };
        let heard = poll_fn(|context| match self.go_on(context, &mut asked) {
            Poll::Ready(done) => Poll::Ready(done.map(Some)),
            Poll::Pending if asked.answer.has_status() => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
        });
        asked.done = heard.await?;
        Ok(asked)
    }

    /// The rest of the answer, or what has come of it in that time. Then the connection can be used again if the
    /// answer says so, and is whole.
    pub(super) async fn rest(&mut self, mut asked: Asked<'_>, within: Duration) -> Done {
        let mut done = match asked.done.take() {
            Some(done) => done,
            None => {
                let rest = poll_fn(|context| self.go_on(context, &mut asked));
                let rest = timeout(within, rest).await;
                let came = rest.ok().and_then(Result::ok);
                came.unwrap_or_else(|| asked.answer.end().expect("it has a status"))
            }
        };
        done.stays &= asked.sending.is_over;
        self.since = Instant::now();
        done
    }

    fn go_on(
        &mut self,
        context: &mut Context<'_>,
        asked: &mut Asked<'_>,
    ) -> Poll<Result<Done, Unanswered>> {
        // An answer may come before all is sent, and is one.
        self.send(context, asked.request, &mut asked.sending)?;
        self.hear(context, &mut asked.answer)
    }

    fn send(
        &mut self,
        context: &mut Context<'_>,
        request: &[u8],
        sending: &mut Sending,
    ) -> Result<(), Unanswered> {
        while !sending.has_failed && sending.bytes < request.len() {
            match self.stream.poll_write(context, &request[sending.bytes..]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(bytes)) if bytes > 0 => sending.bytes += bytes,
                // TLS may have sent some of what it did not take over.
                Poll::Ready(_) if sending.bytes == 0 && self.stream.is_plain() => {
                    return Err(Unanswered::Unsent);
                }
                // The peer may have answered before it closed.
                Poll::Ready(_) => sending.has_failed = true,
            }
        }
        if !sending.has_failed && !sending.is_over {
            match self.stream.poll_flush(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => sending.is_over = true,
                Poll::Ready(Err(_)) => sending.has_failed = true,
            }
        }
        Ok(())
    }

    fn hear(
        &mut self,
        context: &mut Context<'_>,
        answer: &mut Answer,
    ) -> Poll<Result<Done, Unanswered>> {
        let mut space = [0; READ_BYTES];
        // Each round reads something, and an answer has a bound; the others have their turn in between.
        for _ in 0..READS_PER_TURN {
            let mut space = ReadBuf::new(&mut space);
            let heard = match self.stream.poll_read(context, &mut space) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => space.filled(),
                Poll::Ready(Err(error)) => match answer.end() {
                    Ok(done) => return Poll::Ready(Ok(done)),
                    Err(_) => return Poll::Ready(Err(error.into())),
                },
            };
            if heard.is_empty() {
                return Poll::Ready(answer.end().map_err(Unanswered::from));
            }
            if let Some(done) = answer.take(heard)? {
                return Poll::Ready(Ok(done));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A request whose answer has a status.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    request: &'a [u8],
    sending: Sending,
    answer: Answer,
    /// All of it has come.
    done: Option<Done>,
}

/// How far a request is out.
#[derive(Debug, Default)]
struct Sending {
    bytes: usize,
    is_over: bool,
    has_failed: bool,
}

impl Stream {
    fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())), // A socket keeps nothing back.
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// A connection, and its peer's end.
    async fn pair() -> (Kept, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (peer, _) = listener.accept().await.expect("one came");
        (Kept::plain(stream), peer)
    }

    /// Reads so many bytes, then answers.
    async fn answer(peer: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut request = vec![0; bytes];
        peer.read_exact(&mut request).await.expect("it comes");
        peer.write_all(ANSWER).await.expect("it is read");
        request
    }

    /// Sends a request, and hears all of its answer.
    async fn exchange(
        kept: &mut Kept,
        request: &[u8],
        keep_bytes: usize,
    ) -> Result<Done, Unanswered> {
        let asked = kept.ask(request, keep_bytes).await?;
        Ok(kept.rest(asked, PATIENCE).await)
    }

    /// Whether it still stands, once what the peer did has come here.
    async fn stands_after_news(kept: Kept) -> bool {
        let Stream::Plain(stream) = &kept.stream else {
            unreachable!("these tests speak no TLS")
        };
        let heard = timeout(PATIENCE, stream.readable()).await;
        heard.expect("in time").expect("it is heard of");
        kept.standing().is_some()
    }

    #[tokio::test]
    async fn requests_travel_over_one_connection_one_after_the_other() {
        let (mut kept, mut peer) = pair().await;
        for request in [&b"first"[..], b"the second one"] {
            let exchanged = timeout(PATIENCE, exchange(&mut kept, request, 1));
            let (done, heard) = tokio::join!(exchanged, answer(&mut peer, request.len()));
            let done = done.expect("in time").expect("it is answered");
            assert_eq!(
                (done.status, &*done.body, done.stays),
                (StatusCode::OK, &b"o"[..], true)
            );
            assert_eq!(heard, request);
            kept = kept.standing().expect("nothing happened meanwhile");
        }
    }

    #[tokio::test]
    async fn a_connection_that_the_peer_closed_or_wrote_to_is_not_used_again() {
        let (kept, peer) = pair().await;
        drop(peer);
        assert!(!stands_after_news(kept).await);
        let (kept, mut peer) = pair().await;
        peer.write_all(b"HTTP/1.1 408 X\r\n\r\n")
            .await
            .expect("sent");
        assert!(!stands_after_news(kept).await);
    }

    #[tokio::test]
    async fn an_answer_before_the_request_is_whole_counts_and_ends_the_connection() {
        let (mut kept, mut peer) = pair().await;
        // More than the buffers of both ends have room for.
        let request = vec![b'x'; 64 << 20];
        let exchanged = timeout(PATIENCE, exchange(&mut kept, &request, 0));
        let (done, _) = tokio::join!(exchanged, answer(&mut peer, 10));
        let done = done.expect("in time").expect("it is answered");
        assert_eq!((done.status, done.stays), (StatusCode::OK, false));
    }

    #[tokio::test]
    async fn a_status_is_known_before_its_body_which_keeps_the_connection_if_it_comes() {
        for comes in [true, false] {
            let (mut kept, mut peer) = pair().await;
            let (head, body) = ANSWER.split_at(ANSWER.len() - 2);
            peer.write_all(head).await.expect("sent");
            let asked = timeout(PATIENCE, kept.ask(b"POST", 2)).await;
            let asked = asked.expect("in time").expect("it has a status");
            let (within, body) = match comes {
                true => (PATIENCE, body),
                false => (Duration::ZERO, &body[..1]),
            };
            peer.write_all(body).await.expect("sent");
            let done = kept.rest(asked, within).await;
            assert_eq!((done.status, done.stays), (StatusCode::OK, comes));
        }
    }

    #[tokio::test]
    async fn a_request_that_nobody_answers_is_told_from_one_that_was_not_sent() {
        let (mut kept, mut peer) = pair().await;
        let close = async move {
            let mut request = [0; 4];
            peer.read_exact(&mut request).await.expect("it comes");
        };
        let exchanged = timeout(PATIENCE, exchange(&mut kept, b"POST", 0));
        let (done, ()) = tokio::join!(exchanged, close);
        let unanswered = done.expect("in time").expect_err("it was closed");
        assert!(
            matches!(unanswered, Unanswered::NoAnswer(Fault::Closed)),
            "{unanswered}"
        );
    }
}
