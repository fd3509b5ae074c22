//! The tasks beside the turns: they fetch messages while there is room, and lend again what is here.
//!
//! Owns: `begin`.
//! May depend on: `sqs`, tokio.
//! Invariants: no more messages are asked for than there is room; each pauses when SQS gives no answer; they end with
//! the process, or when the node closes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared,
    calls::{BATCH_MAX, Which},
    fault::Failed,
};

pub(super) fn begin(shared: &Arc<Shared>) {
    for number in 0..shared.calls.setup.pollers {
        tokio::spawn(fetch(Arc::clone(shared), number));
    }
    tokio::spawn(lend_again(Arc::clone(shared)));
    tokio::spawn(count(Arc::clone(shared)));
}

async fn fetch(shared: Arc<Shared>, number: usize) {
    let messages_max = shared.calls.setup.messages_max;
    let mut failures = 0;
    while !shared.is_closing.load(Ordering::Relaxed) {
        if !expects(&shared, messages_max).await {
            _ = timeout(LOOK_AGAIN, shared.room.notified()).await;
            continue;
        }
        let wait = (shared.calls.setup.wait_s, messages_max);
        let received = shared.calls.receive(Which::Jobs, wait).await;
        let now = Instant::now();
        let mut jobs = shared.jobs.lock().await;
        match received {
            Ok(messages) => {
                shared.has_answered.store(true, Ordering::Relaxed);
                let is_empty = messages.is_empty();
                let unwanted = jobs.receive(messages_max, messages, now);
                let back = match shared.is_closing.load(Ordering::Relaxed) {
                    true => jobs.give_up(),
                    false => Vec::new(),
                };
                let has_waiting = jobs.has_waiting();
                drop(jobs);
                let mut lends = unwanted;
                lends.extend(back);
                shared.lend_soon(lends);
                if has_waiting {
                    shared.ready.notify_one();
                }
                let was_down = shared.fault.send_replace(None).is_some();
                if was_down {
                    shared.ready.notify_one();
                }
                failures = 0;
                if is_empty && shared.calls.setup.wait_s == 0 {
                    sleep(LOOK_AGAIN).await;
                }
            }
            Err(failed) => {
                jobs.receive(messages_max, Vec::new(), now);
                drop(jobs);
                failures += 1;
                // The first may be a connection that the other side had closed.
                if failures > 1 {
                    shared.fault.send_replace(Some(failed));
                }
                sleep(pause(failures, number)).await;
            }
        }
    }
}

async fn expects(shared: &Shared, messages_max: usize) -> bool {
    let waiting_max = shared.calls.setup.in_flight_max().max(messages_max);
    let mut jobs = shared.jobs.lock().await;
    jobs.expect(messages_max, waiting_max)
}

/// Doubles; those that poll are apart.
fn pause(failures: u32, number: usize) -> Duration {
    let full = Duration::from_millis(250 << failures.min(4)).min(PAUSE_MAX);
    full + Duration::from_millis(37 * (number as u64 % 16))
}

/// A delivery may last longer than a message is lent.
async fn lend_again(shared: Arc<Shared>) {
    let lease = shared.calls.setup.visibility;
    loop {
        sleep(lease / 8).await;
        let now = Instant::now();
        let Some(half_ago) = now.checked_sub(lease / 2) else {
            continue;
        };
        let old = shared.jobs.lock().await.lent_before(half_ago, lease);
        for some in old.chunks(BATCH_MAX) {
            let lent: Result<(), Failed> = shared.calls.lend(Which::Jobs, some).await;
            match lent {
                Ok(()) => shared.jobs.lock().await.was_lent(some, now),
                // The next round tries again.
                Err(_) => break,
            }
        }
    }
}

async fn count(shared: Arc<Shared>) {
    loop {
        if let Ok(waiting) = shared.calls.count(Which::Jobs).await {
            shared.has_answered.store(true, Ordering::Relaxed);
            shared.counts.waiting.store(waiting, Ordering::Relaxed);
        }
        if let Ok(dead) = shared.calls.count(Which::Letters).await {
            shared.counts.dead.store(dead, Ordering::Relaxed);
        }
        sleep(COUNT_EVERY).await;
    }
}

const LOOK_AGAIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A request costs money.
const COUNT_EVERY: Duration = Duration::from_secs(15);
