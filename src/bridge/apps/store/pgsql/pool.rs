//! A few connections that stand, and the questions that wait for one.
//!
//! Owns: `Pool`.
//! May depend on: `pgsql::{link, setup, fault}`, tokio.
//! Invariants: there are at most `connections_max` connections and `WAITING_MAX` questions, whatever the
//! server does; a connection that may be out of step, or whose question was given up, is never asked
//! again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tokio_postgres::Row;

use super::{
    fault,
    link::{Failed, Link},
    setup::PgsqlSetup,
};

#[derive(Debug)]
pub(super) struct Pool {
    setup: Arc<PgsqlSetup>,
    places: Semaphore,
    /// Questions that are not answered.
    open: AtomicUsize,
    /// The one used last is the last. Nobody waits while it is locked.
    idle: Mutex<Vec<Link>>,
}

/// A question is open, however it ends.
struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(super) fn new(setup: Arc<PgsqlSetup>) -> Self {
        Self {
            places: Semaphore::new(setup.connections_max.get()),
            setup,
            open: AtomicUsize::new(0),
            idle: Mutex::default(),
        }
    }

    /// The rows of a statement, over a new connection if the old one turns out to be gone. Who waits no longer drops
    /// this, and the connection with it.
    pub(super) async fn ask(&self, statement: &str, text: &str) -> Result<Vec<Row>, Failed> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let _open = Open(&self.open);
        if open >= WAITING_MAX + self.setup.connections_max.get() {
            return Err(Failed::Crowded);
        }
        // Never closed.
        let _place = self.places.acquire().await;
        loop {
            let idle = self.take().await;
            let was_idle = idle.is_some();
            let link = match idle {
                Some(link) => link,
                None => Link::connect(&self.setup).await?,
            };
            match link.ask(statement, text).await {
                Ok(rows) => {
                    self.keep(link).await;
                    return Ok(rows);
                }
                Err(failed) if !fault::ends_connection(&failed) => {
                    self.keep(link).await;
                    return Err(failed);
                }
                // Each try uses one up.
                Err(_) if was_idle => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock().await;
        while let Some(link) = idle.pop() {
            if !link.is_closed() {
                return Some(link);
            }
        }
        None
    }

    async fn keep(&self, mut link: Link) {
        let now = Instant::now();
        link.used_at = now;
        let mut idle = self.idle.lock().await;
        idle.push(link);
        let spare = idle.len().saturating_sub(self.setup.connections_min.max(1));
        let old = idle.iter().take(spare);
        let old = old
            .take_while(|link| now.duration_since(link.used_at) > IDLE)
            .count();
        idle.drain(..old);
    }
}

/// Shards ask once per app, whoever waits for it: more than these is a flood of unknown names.
const WAITING_MAX: usize = 1_024;
/// As Sockudo 2.9: shorter than what servers and firewalls put up with.
const IDLE: Duration = Duration::from_secs(180);
