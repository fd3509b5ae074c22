//! A timer that is set anew whenever the bridge waits.
//!
//! Owns: `Alarm`.
//! May depend on: tokio's time.
//! Invariants: it never ends before it is due, nor later than a timer of its own for that time would.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Most waits end before their time, and the next one is due later: the timer of the first stays, and is
/// moved when it ends or is too late.
// A timer made and dropped for each wait is two changes of the runtime's wheel; this one has none.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Waits until then; for ever if there is no time. May be dropped at any time.
    pub(super) async fn until(&mut self, due: Option<Instant>) {
        poll_fn(|context| match due {
            Some(due) => self.poll(due, context),
            None => Poll::Pending,
        })
        .await;
    }

    fn poll(&mut self, due: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if due <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn it_ends_when_it_is_due_whatever_it_was_set_to_before() {
        let mut alarm = Alarm::default();
        // Those that are left at once, and the one that is waited for.
        for (left, due) in [
            (&[][..], 10),
            (&[60_000], 20),
            (&[5], 30),
            (&[60_000, 15, 50_000, 20], 40),
            (&[60_001], 0),
        ] {
            let began = Instant::now();
            let at = |ms| Some(began + Duration::from_millis(ms));
            for left in left {
                let waited = timeout(Duration::ZERO, alarm.until(at(*left))).await;
                assert!(waited.is_err() || began.elapsed() >= Duration::from_millis(*left));
            }
            let waited = timeout(PATIENCE, alarm.until(at(due))).await;
            assert!(waited.is_ok(), "{left:?}, {due}");
            assert!(
                began.elapsed() >= Duration::from_millis(due),
                "{left:?}, {due}"
            );
        }
    }

    #[tokio::test]
    async fn without_a_time_it_never_ends() {
        let mut alarm = Alarm::default();
        alarm.until(Some(Instant::now())).await;
        let waited = timeout(Duration::ZERO, alarm.until(None)).await;
        assert!(waited.is_err());
    }
}
