//! Burst: very many events at once on one large channel. Does somebody else notice, and does all arrive?
//!
//! Owns: the `burst` scenario, the account of what each subscriber got.
//! May depend on: what its siblings may, and `bystander`.
//! Invariants: all requests are there at once, so the server is to hold publishers back; everybody must get
//! everything, in one order for all, and each batch in its own.

use std::time::{Duration, Instant};

use clap::Args;

use super::{
    DELIVERED_CPU,
    bystander::{BESIDE, Bystander},
    count, publication, whole,
};
use crate::{
    casts::index,
    crowd::{Crowd, Heard, Subscription},
    outcome::{Outcome, Setting},
    requests::Requests,
    rig::{Rig, RunError, cpu_figures, figure, setting},
    wire,
};

#[derive(Clone, Debug, Args)]
pub struct Burst {
    /// Subscribers of the one channel, 1..=1000000
    #[arg(long, value_name = "COUNT", default_value_t = 4_000, value_parser = count(1..=1_000_000))]
    pub subscribers: usize,
    /// Events at once, 10..=1000000, in batches of ten; again and again while the time lasts
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = whole(10..=1_000_000))]
    pub events: u64,
    /// Bytes of an event's data, 16..=100000
    #[arg(long, value_name = "BYTES", default_value_t = 120, value_parser = count(16..=100_000))]
    pub message_bytes: usize,
    /// Connections of the publisher, 1..=1000, each with one request under way
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = count(1..=1_000))]
    pub publishers: usize,
}

const BATCH: u64 = 10;
/// For which the bystander is watched alone.
const CALM: Duration = Duration::from_secs(1);
/// Without any delivery for so long, the rest is lost.
const PATIENCE: Duration = Duration::from_secs(10);

impl Burst {
    pub fn run(&self, rig: &Rig) -> Result<Outcome, RunError> {
        let channel = rig.channel("burst");
        let mut crowd = rig.crowd(self.subscribers + self.publishers + 2)?;
        let wish = Subscription::to(&*channel);
        rig.join(&mut crowd, self.subscribers, |_| vec![wish.clone()])?;
        let mut requests = Requests::open(&mut crowd, self.publishers)?;
        let mut bystander = Bystander::arrive(rig)?;
        let alone = bystander.alone(CALM)?;

        let meter = rig.start()?;
        let ends = Instant::now() + Duration::from_secs(rig.seconds);
        let (beside, (account, bursts)) = bystander.beside(BESIDE, || {
            let mut account = Account::new(self.subscribers);
            let mut bursts = 0;
            while bursts == 0 || Instant::now() < ends && account.faults.is_empty() {
                let numbers = bursts * self.batches()..(bursts + 1) * self.batches();
                self.burst(
                    rig,
                    &channel,
                    &mut crowd,
                    &mut requests,
                    &mut account,
                    numbers,
                )?;
                bursts += 1;
            }
            Ok((account, bursts))
        })?;
        let p99_ms = [alone.p99_ms(), beside.p99_ms()];
        let mut outcome = beside.finish(meter, rig, "burst", self.settings(rig))?;
        alone.add_to(&mut outcome);
        let asked = bursts * self.batches();
        outcome.faults.extend(requests.faults(asked));
        outcome.faults.extend(account.faults);
        outcome.figures = cpu_figures(&outcome, account.delivered, DELIVERED_CPU);
        outcome.figures.extend([
            figure("ping_alone_p99_ms", "p99 of a ping, alone", "ms", p99_ms[0]),
            figure(
                "ping_p99_ms",
                "p99 of a ping, beside bursts",
                "ms",
                p99_ms[1],
            ),
            figure("bursts", "bursts", "", bursts as f64),
            figure(
                "delivered",
                "events delivered",
                "",
                account.delivered as f64,
            ),
        ]);
        Ok(outcome)
    }

    fn batches(&self) -> u64 {
        self.events / BATCH
    }

    /// Publishes batches of these numbers at once, and waits until all was answered and has arrived.
    fn burst(
        &self,
        rig: &Rig,
        channel: &str,
        crowd: &mut Crowd,
        requests: &mut Requests,
        account: &mut Account,
        numbers: std::ops::Range<u64>,
    ) -> Result<(), RunError> {
        let bodies: Vec<Vec<u8>> = numbers
            .clone()
            .map(|batch| {
                let events = batch * BATCH..(batch + 1) * BATCH;
                publication(&rig.target, channel, events, self.message_bytes)
            })
            .collect();
        (0..numbers.end - numbers.start).for_each(|number| requests.ask(number));
        let events = (numbers.end - numbers.start) * BATCH;
        let (mut left, mut progress_at) = (events * self.subscribers as u64, Instant::now());
        while left > 0 || !requests.is_done() {
            let now = Instant::now();
            if now > progress_at + PATIENCE {
                account.fault(format!("{left} deliveries of a burst never came"));
                break;
            }
            requests.pump(crowd, now, |number| &*bodies[index(number)])?;
            crowd.turn(now + rig.step, &mut |now, client, heard| {
                if requests.owns(client) {
                    requests.hear(now, client, &heard);
                } else if account.hear(client, &heard) {
                    left -= 1;
                    progress_at = now;
                }
            })?;
            if account.has_closed {
                break;
            }
        }
        account.check_order(numbers);
        Ok(())
    }

    fn settings(&self, rig: &Rig) -> Vec<Setting> {
        vec![
            setting("seconds", rig.seconds),
            setting("subscribers", self.subscribers),
            setting("events", self.events),
            setting("message-bytes", self.message_bytes),
            setting("publishers", self.publishers),
        ]
    }
}

/// What subscribers got. All must get one sequence, of which only the first one's is kept.
struct Account {
    /// By subscriber: how much came in this burst, and a hash of its order.
    heard: Vec<(u64, u64)>,
    first: Vec<u64>,
    delivered: u64,
    has_closed: bool,
    faults: Vec<String>,
}

impl Account {
    fn new(subscribers: usize) -> Self {
        Self {
            heard: vec![(0, 0); subscribers],
            first: Vec::new(),
            delivered: 0,
            has_closed: false,
            faults: Vec::new(),
        }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Whether it is a delivery.
    // Per delivery: one number parsed, one multiplication.
    fn hear(&mut self, client: usize, heard: &Heard<'_>) -> bool {
        match heard {
            Heard::Event { payload, .. } => {
                let Some(number) = wire::number_of(payload) else {
                    return false;
                };
                let (count, hash) = &mut self.heard[client];
                *count += 1;
                *hash = (*hash ^ number)
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                    .rotate_left(23);
                if client == 0 {
                    self.first.push(number);
                }
                self.delivered += 1;
                true
            }
            Heard::Ended(reason) => {
                self.has_closed = true;
                self.fault(format!("a subscriber was cut off: {reason}"));
                false
            }
            _ => false,
        }
    }

    /// Everybody got the batches of these numbers, each once and whole, in one order; begins anew.
    fn check_order(&mut self, batches: std::ops::Range<u64>) {
        let first = std::mem::take(&mut self.first);
        let others = self
            .heard
            .iter()
            .filter(|heard| **heard != self.heard[0])
            .count();
        if others > 0 {
            self.fault(format!(
                "{others} subscribers got another sequence than the first"
            ));
        }
        let mut begun: Vec<u64> = Vec::new();
        for batch in first.chunks(index(BATCH)) {
            let number = batch[0] / BATCH;
            let whole = (number * BATCH..(number + 1) * BATCH).eq(batch.iter().copied());
            if !whole {
                self.fault(format!(
                    "batch {number} was not delivered in its order: {batch:?}"
                ));
                break;
            }
            begun.push(number);
        }
        begun.sort_unstable();
        if self.faults.is_empty() && !batches.eq(begun) {
            self.fault("a batch was lost, or delivered twice".to_owned());
        }
        self.heard.fill((0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(account: &mut Account, client: usize, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            let payload = format!(r##"{{"event":"bench","data":"#{number:08}#"}}"##);
            let heard = Heard::Event {
                name: b"bench",
                payload: payload.as_bytes(),
            };
            assert!(account.hear(client, &heard));
        }
    }

    #[test]
    fn everybody_must_get_every_batch_once_in_one_order() {
        let all: Vec<u64> = (10..20).chain(0..10).collect();
        let mut swapped = all.clone();
        swapped.swap(3, 4);
        let halves: Vec<u64> = (0..5).chain(10..20).chain(5..10).collect();
        for (one, other, fault) in [
            (all.clone(), all.clone(), None),
            (all, (0..20).collect(), Some("another sequence")),
            (swapped.clone(), swapped, Some("not delivered in its order")),
            (halves.clone(), halves, Some("not delivered in its order")),
            (
                (0..10).collect(),
                (0..10).collect(),
                Some("a batch was lost"),
            ),
        ] {
            let mut account = Account::new(2);
            told(&mut account, 0, one);
            told(&mut account, 1, other);
            account.check_order(0..2);
            let said = account.faults.join("; ");
            match fault {
                None => assert_eq!(said, ""),
                Some(fault) => assert!(said.contains(fault), "{fault}: {said}"),
            }
        }
    }
}
