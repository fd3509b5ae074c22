//! A few connections that stand, and the questions that wait for one.
//!
//! Owns: `Pool`.
//! May depend on: `store::crowd`, `pgsql::{link, setup, fault}`, tokio.
//! Invariants: there are at most `connections.max` connections, whatever the server does; a connection that may be out of step, or whose question was given up, is never asked
//! again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use tokio_postgres::Row;

use super::{
    super::crowd::{Connections, Crowd},
    fault,
    link::{Failed, Link},
    setup::PgsqlSetup,
};
use crate::metrics::backend::Meter;

#[derive(Debug)]
pub(super) struct Pool {
    setup: Arc<PgsqlSetup>,
    connections: Connections,
    crowd: Crowd,
    /// The one used last is the last. Nobody waits while it is locked.
    idle: Mutex<Vec<Link>>,
    /// Connections that have ended and were not made anew.
    ended: AtomicUsize,
    meter: Meter,
}

/// A connection that is used: it has ended, unless it is kept.
struct Used<'a> {
    pool: &'a Pool,
    /// `None`: it is kept.
    link: Option<Link>,
}

impl Pool {
    pub(super) fn new(setup: Arc<PgsqlSetup>, connections: Connections, meter: Meter) -> Self {
        Self {
            crowd: Crowd::new(connections.max),
            setup,
            connections,
            idle: Mutex::default(),
            ended: AtomicUsize::new(0),
            meter,
        }
    }

    /// The rows of a statement, over a new connection if the old one turns out to be gone. Who waits no longer drops
    /// this, and the connection with it.
    pub(super) async fn ask(&self, statement: &str, text: &str) -> Result<Vec<Row>, Failed> {
        let _place = self.crowd.enter().await.map_err(|_| Failed::Crowded)?;
        loop {
            let idle = self.take().await;
            let was_idle = idle.is_some();
            let link = match idle {
                Some(link) => link,
                None => self.connect().await?,
            };
            let used = Used {
                pool: self,
                link: Some(link),
            };
            match used.ask(statement, text).await {
                Ok(rows) => {
                    used.keep().await;
                    return Ok(rows);
                }
                Err(failed) if !fault::ends_connection(&failed) => {
                    used.keep().await;
                    return Err(failed);
                }
                // Each try uses one up.
                Err(_) if was_idle => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn connect(&self) -> Result<Link, Failed> {
        let link = Link::connect(&self.setup).await?;
        let one_less = |ended: usize| ended.checked_sub(1);
        let (order, ended) = (Ordering::Relaxed, &self.ended);
        if ended.fetch_update(order, order, one_less).is_ok() {
            self.meter.reconnected();
        }
        Ok(link)
    }

    async fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock().await;
        while let Some(link) = idle.pop() {
            if !link.is_closed() {
                return Some(link);
            }
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
        None
    }

    async fn keep(&self, mut link: Link) {
        let now = Instant::now();
        link.used_at = now;
        let mut idle = self.idle.lock().await;
        idle.push(link);
        let spare = idle.len().saturating_sub(self.connections.min.max(1));
        let old = idle.iter().take(spare);
        let old = old
            .take_while(|link| now.duration_since(link.used_at) > IDLE)
            .count();
        idle.drain(..old);
    }
}

impl Used<'_> {
    async fn ask(&self, statement: &str, text: &str) -> Result<Vec<Row>, Failed> {
        let link = self.link.as_ref().expect("it is not kept yet");
        link.ask(statement, text).await
    }

    async fn keep(mut self) {
        let pool = self.pool;
        if let Some(link) = self.link.take() {
            pool.keep(link).await;
        }
    }
}

impl Drop for Used<'_> {
    fn drop(&mut self) {
        let ended = usize::from(self.link.is_some());
        self.pool.ended.fetch_add(ended, Ordering::Relaxed);
    }
}

/// As Sockudo 2.9: shorter than what servers and firewalls put up with.
const IDLE: Duration = Duration::from_secs(180);
