//! How the bridge ends: what it does at each step of a drain, and for what is left when another process has the rest.
//!
//! Owns: what the steps of `Drain` do.
//! May depend on: `bridge::{drain, link, message, run}`.
//! Invariants: readiness goes off before anything else happens; what is lost with the process is counted and said.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock here and hands it on"
)]

use std::time::Instant;

use shards::application::Millis;

use super::{
    drain::{Drain, Step},
    link::ShardLink,
    message::FromBridge,
    run::{Bridge, Exit},
};

impl<L: ShardLink> Bridge<L> {
    /// The other process has all but the webhooks that waited here, which had their time.
    pub(super) fn has_handed_over(&mut self) -> Exit {
        self.stop_bequest();
        let lost = self.webhooks.abandon();
        if lost > 0 {
            tracing::warn!(
                node = self.node_id,
                webhook_events_lost = lost,
                "targets did not take what waited for them within drain.deadline_s"
            );
        }
        Exit::HandedOver
    }

    /// On the node's clock, as shards have it.
    pub(super) fn millis_of(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.link.started());
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn begin_drain(&mut self) {
        self.end_upgrade("this node drains".to_owned());
        self.handover.doors.forget();
        let now = Instant::now();
        let settings = &self.config.drain;
        let (node, lb_wait_s) = (&self.node_id, settings.lb_wait_s);
        tracing::info!(
            node,
            lb_wait_s,
            deadline_s = settings.deadline_s,
            "draining"
        );
        self.drain = Some(Drain::begin(settings, self.link.shards(), now));
        self.check_health(); // Readiness goes off before anything else happens.
        self.supervisor.stopping();
    }

    /// Goes on with a stop; true when it is done.
    pub(super) fn step_drain(&mut self) -> bool {
        loop {
            let webhooks_idle = self.webhooks.is_idle();
            let Some(drain) = &mut self.drain else {
                return false;
            };
            match drain.step(Instant::now(), webhooks_idle) {
                Step::Wait => return false,
                Step::Look => {
                    if self.link.is_succeeded() {
                        drain.succeeded();
                        self.link.stop_accepting();
                        tracing::info!("another process listens here: accepting stops");
                    }
                }
                Step::Close { by, rate_per_s } => {
                    let deadline = self.millis_of(by);
                    self.broadcast(|| FromBridge::Drain {
                        deadline,
                        rate_per_s,
                    });
                }
                Step::Settle => {
                    // Not earlier: whoever comes while others are closed is told 4200, which a
                    // closed port would not say.
                    self.link.stop_accepting();
                    self.broadcast(|| FromBridge::Settle);
                }
                Step::Flush => self.webhooks.hurry(),
                Step::Done => {
                    let lost = self.webhooks.abandon();
                    tracing::info!(node = self.node_id, webhook_events_lost = lost, "stopped");
                    return true;
                }
            }
        }
    }
}
