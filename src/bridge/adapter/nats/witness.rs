//! Connections that hear what each server knows of us, one per server that is named.
//!
//! Owns: `Witnesses` (what they have heard), `run` (one of them); `Hearing`, which one subscribing
//! connection makes of it.
//! May depend on: the rest of `adapter` and `nats`, the crate `async-nats`, tokio.
//! Invariants: routes between servers keep order, so who hears a call at a server knows that it has every
//! subscription made before that call; a witness that hears nothing for `SILENCE` is not waited for until
//! it hears again, which proves all that was subscribed to meanwhile.

use std::time::Duration;

use async_nats::{Client, Subject};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    super::{
        backoff::Backoff,
        news::{Trouble, TroubleKind},
    },
    Duty,
    fault::Denial,
    link::{Link, chance, open},
    probe::{Death, next},
};
use crate::cluster::topic::Road;

/// What all witnesses have heard. None are needed where one server is named.
#[derive(Clone)]
pub(super) struct Witnesses {
    /// Nobody else's.
    subject: Subject,
    /// By number of the server.
    board: watch::Sender<Box<[Seat]>>,
}

#[derive(Clone, Default)]
struct Seat {
    /// Why there is no connection, once one was tried for in vain.
    trouble: Option<Trouble>,
    /// The last call, by road.
    heard: [Option<Call>; 2],
}

/// What a subscribing connection publishes behind its subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    road: Road,
    /// Which connection.
    caller: u64,
    number: u64,
}

impl Call {
    fn bytes(self) -> Vec<u8> {
        let road = [u8::from(self.road == Road::State)];
        let (caller, number) = (self.caller.to_be_bytes(), self.number.to_be_bytes());
        [&road[..], &caller, &number].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (road, rest) = bytes.split_first()?;
        let (caller, number) = rest.split_first_chunk()?;
        let road = match road {
            0 => Road::Events,
            1 => Road::State,
            _ => return None,
        };
        Some(Self {
            road,
            caller: u64::from_be_bytes(*caller),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

impl Witnesses {
    pub(super) fn new(stem: &str, servers: usize) -> Self {
        let count = if servers > 1 { servers } else { 0 };
        let seats = vec![Seat::default(); count].into_boxed_slice();
        Self {
            subject: format!("{stem}w.{:016x}", chance()).into(),
            board: watch::Sender::new(seats),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.board.borrow().len()
    }

    fn seat(&self, number: usize, change: impl FnOnce(&mut Seat)) {
        self.board.send_modify(|seats| {
            if let Some(seat) = seats.get_mut(number) {
                change(seat);
            }
        });
    }
}

/// Keeps the witness at one server, until the bus is closed, which drops this.
pub(super) async fn run(duty: Duty, number: usize) {
    let witnesses = duty.witnesses.clone();
    let mut backoff = Backoff::default();
    loop {
        let trouble = match open(&duty, number, None).await {
            Ok(mut link) => {
                witnesses.seat(number, |seat| seat.trouble = None);
                let trouble = listen(&duty, number, &mut link).await;
                link.ended(&mut backoff).await;
                trouble
            }
            Err(trouble) => Some(trouble),
        };
        if trouble.is_some() {
            witnesses.seat(number, |seat| seat.trouble = trouble);
            sleep(backoff.pause()).await;
        }
    }
}

/// Hears until the connection ends. The trouble is one that a new connection would have too.
async fn listen(duty: &Duty, number: usize, link: &mut Link) -> Option<Trouble> {
    let witnesses = &duty.witnesses;
    let subject = witnesses.subject.clone();
    let mut calls = link.client.subscribe(subject).await.ok()?;
    loop {
        tokio::select! {
            biased;
            Some(denial) = link.denials.recv() => {
                if let Denial::Subscribe(_) = denial {
                    return Some(denial.trouble(duty.subjects.stem(), link.server()));
                }
            }
            () = link.left.wait() => return None,
            call = next(&mut calls) => {
                let call = Call::read(&call?.payload);
                let Some(call) = call else {
                    continue; // A stranger's.
                };
                witnesses.seat(number, |seat| {
                    let [events, state] = &mut seat.heard;
                    *match call.road {
                        Road::Events => events,
                        Road::State => state,
                    } = Some(call);
                });
            }
            heard = link.probe.next() => match heard {
                Ok(_) => {}
                Err(Death::Closed | Death::Silent) => return None,
            },
        }
    }
}

/// What witnesses have heard of one subscribing connection.
pub(super) struct Hearing {
    board: watch::Receiver<Box<[Seat]>>,
    subject: Subject,
    road: Road,
    caller: u64,
    /// Of the last call.
    number: u64,
    call_at: Instant,
    witnesses: Vec<Witness>,
}

#[derive(Clone, Copy)]
struct Witness {
    /// The last number.
    heard: u64,
    /// It is waited for.
    counts: bool,
    /// Since when it has heard nothing of what it should.
    silent_since: Instant,
}

impl Hearing {
    pub(super) fn new(witnesses: &Witnesses, road: Road) -> Self {
        let witness = Witness {
            heard: 0,
            counts: true,
            silent_since: Instant::now(),
        };
        let mut board = witnesses.board.subscribe();
        board.mark_changed();
        Self {
            board,
            subject: witnesses.subject.clone(),
            road,
            caller: chance(),
            number: 0,
            call_at: Instant::now(),
            witnesses: vec![witness; witnesses.count()],
        }
    }

    /// Calls behind all that was sent on the connection; the call's number.
    pub(super) async fn call(&mut self, client: &Client) -> Result<u64, Death> {
        if self.witnesses.is_empty() {
            return Ok(0);
        }
        let call = Call {
            road: self.road,
            caller: self.caller,
            number: self.number + 1,
        };
        let sent = client.publish(self.subject.clone(), call.bytes().into());
        sent.await.map_err(|_| Death::Closed)?;
        let now = Instant::now();
        for witness in &mut self.witnesses {
            if witness.heard == self.number {
                witness.silent_since = now;
            }
        }
        self.number = call.number;
        let is_awaited = self.witnesses.iter().any(|it| it.counts);
        self.call_at = now + if is_awaited { AGAIN_AFTER } else { EVERY };
        Ok(call.number)
    }

    /// Whether all that are waited for have heard the call.
    pub(super) fn is_heard(&self, number: u64) -> bool {
        let mut waited_for = self.witnesses.iter().filter(|it| it.counts);
        waited_for.all(|it| it.heard >= number)
    }

    /// Waits for something to be heard, or not to be. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, client: &Client) -> Result<(), Death> {
        if self.witnesses.is_empty() {
            return std::future::pending().await;
        }
        let is_behind = |it: &&Witness| it.counts && it.heard < self.number;
        let behind = self.witnesses.iter().filter(is_behind);
        let silent_at = behind.map(|it| it.silent_since + SILENCE).min();
        let wake = silent_at.map_or(self.call_at, |at| at.min(self.call_at));
        tokio::select! {
            biased;
            changed = self.board.changed() => {
                if changed.is_err() {
                    return std::future::pending().await; // The bus is closed, and this dropped.
                }
                self.hear();
            }
            () = sleep_until(wake) => {
                self.expire();
                if Instant::now() >= self.call_at {
                    self.call(client).await?;
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self) {
        let now = Instant::now();
        let seats = self.board.borrow_and_update();
        for (witness, seat) in self.witnesses.iter_mut().zip(seats.iter()) {
            let [events, state] = seat.heard;
            let heard = match self.road {
                Road::Events => events,
                Road::State => state,
            };
            let heard = heard.filter(|call| call.caller == self.caller);
            let number = heard.map_or(0, |call| call.number.min(self.number));
            if number > witness.heard {
                witness.heard = number;
                witness.silent_since = now;
                witness.counts = true;
            }
            // What was heard before it was lost is proven all the same.
            witness.counts &= seat.trouble.is_none();
        }
        drop(seats);
        let is_awaited = |it: &Witness| it.counts && it.heard < self.number;
        if !self.witnesses.iter().any(is_awaited) {
            self.call_at = self.call_at.max(now + EVERY);
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for witness in &mut self.witnesses {
            if witness.heard < self.number && now >= witness.silent_since + SILENCE {
                witness.counts = false;
            }
        }
    }

    /// How many are waited for.
    pub(super) fn counting(&self) -> u64 {
        self.witnesses.iter().filter(|it| it.counts).count() as u64
    }

    /// Why one of them is not waited for.
    pub(super) fn trouble(&self, duty: &Duty, link: &Link) -> Option<Trouble> {
        let number = self.witnesses.iter().position(|it| !it.counts)?;
        let seats = self.board.borrow();
        let trouble = seats.get(number).and_then(|seat| seat.trouble.as_ref());
        let because = trouble.map_or_else(
            || {
                let (here, there) = (link.server(), duty.servers.server(number));
                format!(
                    "what is said at {} is not heard at {}: look at the routes between these servers \
                     (adapter.nats.servers)",
                    here.address(),
                    there.address()
                )
            },
            |trouble| trouble.sentence.clone(),
        );
        let sentence = format!(
            "subscriptions are not proven at all servers of NATS, and what is published there right \
             after one may be missed: {because}"
        );
        let kind = TroubleKind::Unproven;
        Some(Trouble { kind, sentence })
    }
}

/// How long a witness is waited for that hears nothing.
const SILENCE: Duration = Duration::from_secs(2);
/// When nobody subscribes, so that one that is back, or gone, is noticed.
const EVERY: Duration = Duration::from_secs(1);
/// While one is waited for: a call is lost that came before a server knew of the witness elsewhere.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_was_written_and_nothing_else_is() {
        for road in Road::ALL {
            let call = Call {
                road,
                caller: u64::MAX - 1,
                number: 3,
            };
            assert_eq!(Call::read(&call.bytes()), Some(call));
        }
        for wrong in [&[][..], &[0; 16], &[0; 18], &[2; 17], b"12345678901234567"] {
            assert_eq!(Call::read(wrong), None, "{wrong:?}");
        }
    }
}
