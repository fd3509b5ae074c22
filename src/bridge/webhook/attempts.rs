//! Attempts under way.
//!
//! Owns: `Attempts`.
//! May depend on: tokio's `Notify`.
//! Invariants: an attempt is polled when it was woken, by who waits for them, and never while nobody does; none
//! is lost when that wait is dropped.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::sync::Notify;

type Attempt<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// They run within the bridge's own task: one of their own would be woken, run and joined for each, where an
/// attempt is a write and a read. As many places as there ever were attempts at once, which the queue bounds.
pub(super) struct Attempts<T, L> {
    places: Vec<Place<T, L>>,
    /// Where the last look began.
    first: usize,
    news: Arc<Notify>,
}

struct Place<T, L> {
    /// Beside what it is of.
    attempt: Option<(L, Attempt<T>)>,
    call: Arc<Call>,
    /// Sets `call`.
    waker: Waker,
}

/// How an attempt says that it can go on.
struct Call {
    is_due: AtomicBool,
    news: Arc<Notify>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.news.notify_one();
    }
}

impl<T, L> fmt::Debug for Attempts<T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.places.iter().filter(|it| it.attempt.is_some());
        write!(f, "Attempts({})", under_way.count())
    }
}

impl<T, L> Default for Attempts<T, L> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            first: 0,
            news: Arc::default(),
        }
    }
}

impl<T, L> Attempts<T, L> {
    /// Takes one over; it begins when `next` is waited for.
    pub(super) fn begin(&mut self, of: L, attempt: impl Future<Output = T> + Send + 'static) {
        let free = self.places.iter().position(|it| it.attempt.is_none());
        let free = free.unwrap_or_else(|| self.add_place());
        let place = &mut self.places[free];
        place.attempt = Some((of, Box::pin(attempt)));
        place.call.is_due.store(true, Ordering::Relaxed);
    }

    fn add_place(&mut self) -> usize {
        let call = Arc::new(Call {
            is_due: AtomicBool::new(false),
            news: Arc::clone(&self.news),
        });
        self.places.push(Place {
            attempt: None,
            waker: Waker::from(Arc::clone(&call)),
            call,
        });
        self.places.len() - 1
    }

    /// Lets them go on until one ends.
    pub(super) async fn next(&mut self) -> T {
        loop {
            // What is woken from here on leaves a note in `news`. Each look begins with
            // another one: what one uses up of the runtime's budget the others lack.
            let count = self.places.len();
            self.first = (self.first + 1) % count.max(1);
            for step in 0..count {
                let place = &mut self.places[(self.first + step) % count];
                if let Some(ended) = place.go_on() {
                    return ended;
                }
            }
            self.news.notified().await;
        }
    }

    /// What they are of that have not ended.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &L> {
        let attempts = self.places.iter().filter_map(|it| it.attempt.as_ref());
        attempts.map(|(of, _)| of)
    }

    /// Ends them all where they are.
    pub(super) fn abort(&mut self) {
        self.places.clear();
    }
}

impl<T, L> Place<T, L> {
    fn go_on(&mut self) -> Option<T> {
        let (_, attempt) = self.attempt.as_mut()?;
        let is_due = &self.call.is_due;
        // Most are not: a look is cheaper than a swap.
        if !is_due.load(Ordering::Relaxed) || !is_due.swap(false, Ordering::Acquire) {
            return None;
        }
        let mut context = Context::from_waker(&self.waker);
        match attempt.as_mut().poll(&mut context) {
            Poll::Pending => None,
            Poll::Ready(ended) => {
                self.attempt = None;
                Some(ended)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicU32, time::Duration};

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn next<T, L>(attempts: &mut Attempts<T, L>) -> T {
        let next = timeout(PATIENCE, attempts.next());
        next.await.expect("one ends in time")
    }

    /// Polls `next` once.
    async fn look<T, L>(attempts: &mut Attempts<T, L>) -> Option<T> {
        tokio::select! {
            biased;
            ended = attempts.next() => Some(ended),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn each_ends_once_in_the_order_in_which_they_can() {
        let mut attempts = Attempts::default();
        let mut ends = Vec::new();
        for number in 0..4 {
            let (end, ended) = oneshot::channel();
            ends.push(end);
            attempts.begin(number, async move {
                _ = ended.await;
                number
            });
        }
        assert_eq!(look(&mut attempts).await, None);
        for (number, end) in ends.into_iter().enumerate().rev() {
            // Woken while nobody waits, and after a wait that was dropped.
            _ = end.send(());
            assert_eq!(next(&mut attempts).await, number);
            let under_way = attempts.under_way().copied();
            assert_eq!(under_way.collect::<Vec<_>>(), Vec::from_iter(0..number));
        }
        assert_eq!(look(&mut attempts).await, None);
        attempts.begin(9, async { 9 });
        assert_eq!(next(&mut attempts).await, 9);
        assert_eq!(attempts.places.len(), 4, "places are used again");
    }

    #[tokio::test]
    async fn only_who_was_woken_is_polled() {
        let polls = Arc::new(AtomicU32::new(0));
        let mut attempts = Attempts::default();
        let counted = Arc::clone(&polls);
        attempts.begin(
            (),
            poll_fn(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Poll::<u32>::Pending
            }),
        );
        let (end, ended) = oneshot::channel();
        attempts.begin((), async { ended.await.expect("it is sent") });
        assert_eq!(look(&mut attempts).await, None);
        _ = end.send(7);
        assert_eq!(next(&mut attempts).await, 7);
        assert_eq!(look(&mut attempts).await, None);
        assert_eq!(polls.load(Ordering::Relaxed), 1);
    }
}
