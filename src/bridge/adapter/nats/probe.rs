//! What a connection proves: a message to itself that comes back says that the server has done all
//! that was sent before it.
//!
//! Owns: `Probe`.
//! May depend on: the crate `async-nats`, tokio.
//! Invariants: a stopped server is noticed within `EVERY` and `ANSWER_WITHIN`; a slow one that still
//! sends anything is not taken for dead before `timeout`. The crate's flush asks the server nothing,
//! and its pings cannot be heard.

use std::{
    collections::VecDeque, future::poll_fn, pin::Pin, sync::atomic::Ordering, time::Duration,
};

use async_nats::{Client, Message, Subject, Subscriber};
use futures_core::Stream as _;
use tokio::time::{Instant, sleep_until};

pub(super) struct Probe {
    client: Client,
    inbox: Subscriber,
    subject: Subject,
    timeout: Duration,
    /// When those that are on their way were sent.
    flying: VecDeque<Instant>,
    /// Number of the last one that came back.
    heard: u64,
    /// When the next one is due, if none is sent before.
    due: Instant,
    /// When the connection was last heard, or asked after a silence.
    heard_at: Instant,
    /// What had come by then.
    received: u64,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    Closed,
    Silent,
}

impl Probe {
    /// The subject must be nobody else's.
    pub(super) async fn new(
        client: Client,
        subject: Subject,
        timeout: Duration,
    ) -> Result<Self, Death> {
        let inbox = client.subscribe(subject.clone()).await;
        let now = Instant::now();
        Ok(Self {
            client,
            inbox: inbox.map_err(|_| Death::Closed)?,
            subject,
            timeout,
            flying: VecDeque::new(),
            heard: 0,
            due: now,
            heard_at: now,
            received: 0,
        })
    }

    /// Sends one behind all that was sent; its number.
    pub(super) async fn send(&mut self) -> Result<u64, Death> {
        let number = self.heard + self.flying.len() as u64 + 1;
        let payload = number.to_be_bytes().to_vec().into();
        let sent = self.client.publish(self.subject.clone(), payload).await;
        sent.map_err(|_| Death::Closed)?;
        let now = Instant::now();
        if self.flying.is_empty() {
            self.heard_at = now;
            self.received = self.received();
        }
        self.flying.push_back(now);
        self.due = now + EVERY;
        Ok(number)
    }

    /// Waits for one that comes back; its number. Sends one itself where none was sent for a while.
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<u64, Death> {
        loop {
            let wake = match self.flying.front() {
                Some(oldest) => (self.heard_at + ANSWER_WITHIN).min(*oldest + self.timeout),
                None => self.due,
            };
            tokio::select! {
                biased;
                message = next(&mut self.inbox) => {
                    let Some(message) = message else {
                        return Err(Death::Closed);
                    };
                    if let Some(number) = self.hear(&message) {
                        return Ok(number);
                    }
                }
                () = sleep_until(wake) => self.wake().await?,
            }
        }
    }

    /// They come back in order; what else comes was sent by somebody else.
    fn hear(&mut self, message: &Message) -> Option<u64> {
        let number = u64::from_be_bytes(message.payload.as_ref().try_into().ok()?);
        let steps = usize::try_from(number.checked_sub(self.heard)?).ok()?;
        if steps == 0 || steps > self.flying.len() {
            return None;
        }
        self.flying.drain(..steps);
        self.heard = number;
        self.heard_at = Instant::now();
        self.received = self.received();
        Some(number)
    }

    async fn wake(&mut self) -> Result<(), Death> {
        let Some(oldest) = self.flying.front() else {
            return self.send().await.map(drop);
        };
        let received = self.received();
        if received == self.received || oldest.elapsed() >= self.timeout {
            return Err(Death::Silent);
        }
        self.received = received;
        self.heard_at = Instant::now();
        Ok(())
    }

    /// Bytes, of anything.
    fn received(&self) -> u64 {
        self.client.statistics().in_bytes.load(Ordering::Relaxed)
    }
}

/// The next message of a subscription; `None` when the connection has ended.
pub(super) async fn next(subscriber: &mut Subscriber) -> Option<Message> {
    poll_fn(|waker| Pin::new(&mut *subscriber).poll_next(waker)).await
}

const EVERY: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
