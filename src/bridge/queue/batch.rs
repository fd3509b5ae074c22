//! Events of one target on their way into one request.
//!
//! Owns: `Batch`, the open one.
//! May depend on: `bridge::{message, queue}`. Not on who delivers it.
//! Invariants: events keep their order; a batch has at most `batch_events_max` of them.

use std::sync::Arc;

use shards::application::Millis;

use super::{Job, QueueSettings};
use crate::{bridge::webhook_event::WebhookEvent, protocol::app::AppIndex};

/// Events that wait for their batch to close; empty when none is open.
#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<Arc<WebhookEvent>>,
    opened: Option<Millis>,
}

impl Batch {
    /// Adds an event; true when the batch is to be closed now.
    pub(super) fn push(
        &mut self,
        event: Arc<WebhookEvent>,
        now: Millis,
        settings: &QueueSettings,
    ) -> bool {
        self.opened.get_or_insert(now);
        self.events.push(event);
        self.events.len() >= settings.batch_events_max || settings.batch_ms.is_none()
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    pub(super) fn opened(&self) -> Option<Millis> {
        self.opened
    }

    /// When its time is over.
    pub(super) fn closes(&self, settings: &QueueSettings) -> Option<Millis> {
        let window = settings.batch_ms.unwrap_or(0);
        Some(self.opened?.plus(window))
    }

    /// Makes a job of it, however young it is.
    pub(super) fn close(&mut self, app: AppIndex) -> Option<Job> {
        let opened = self.opened.take()?;
        Some(Job::new(app, std::mem::take(&mut self.events), opened))
    }
}
