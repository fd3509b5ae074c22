//! Whether clients may come, and how the node is: said once, and then each time that it changes.
//!
//! Owns: when the node listens and is announced; what health is judged by; who hears of it.
//! May depend on: `bridge::{app_source, kept_store, link, message, nodes, rate_store, run}`.
//! Invariants: shards know of a change before the log says it; a node that listens nowhere is not announced.

#![expect(
    clippy::disallowed_methods,
    reason = "the bridge reads the clock here and hands it on"
)]

use std::time::Instant;

use shards::application::ShardId;

use super::{
    app_source::AppSource, health::Health, kept_store::KeptStore, link::ShardLink,
    message::FromBridge, nodes::Nodes, rate_store::RateStore, run::Bridge,
};

impl<L: ShardLink> Bridge<L> {
    pub(super) fn is_announced(&self) -> bool {
        self.is_announced
    }

    /// Says once that clients may come.
    pub(super) fn announce(&mut self) {
        if self.is_announced {
            return;
        }
        let is_in_cluster = |nodes: &Nodes| !nodes.is_starting() && !nodes.is_failing();
        let is_ready = self.gathering.is_complete()
            && !self.source.as_ref().is_some_and(AppSource::is_failing)
            && self.nodes.as_ref().is_none_or(is_in_cluster);
        if self.handover.taking.is_some() {
            let has_apps = self.source.as_ref().is_none_or(AppSource::has_inherited);
            if is_ready && has_apps && self.openings.are_all_open() {
                self.check_health(); // The shards know when they wake.
                self.ready_to_take();
            }
            return;
        }
        self.accept_when(is_ready);
        // Where it cannot listen it is not ready, and tries again with the next numbers of the shards.
        if is_ready && !self.link.waits_to_accept() {
            self.is_announced = true;
            self.check_health(); // The shards know before the log says it.
            tracing::info!(node = self.node_id, shards = self.link.shards(), "ready");
            self.supervisor.ready();
            self.tell_status();
        }
    }

    /// Leaves all that comes to the process that it succeeds, as long as that listens and this one is not
    /// ready: an event that is published on a node without its bus reaches nobody elsewhere.
    fn accept_when(&mut self, is_ready: bool) {
        if !self.link.waits_to_accept() {
            return;
        }
        let is_alone = || !self.link.is_succeeded();
        if !is_ready && !is_alone() {
            return;
        }
        match self.link.begin_accepting() {
            Ok(()) => tracing::info!(is_ready, "listening, beside or after another process"),
            Err(error) => {
                let fault = error.to_string();
                if self.listen_fault.as_ref() != Some(&fault) {
                    tracing::error!(error = fault, "cannot listen: not ready, and tried again");
                    self.listen_fault = Some(fault);
                }
            }
        }
    }

    pub(super) fn check_health(&mut self) {
        let health = self.health();
        if health == self.health {
            return;
        }
        let overflows = self.webhooks.is_overflowing();
        if health.queue_failing && !self.health.queue_failing && overflows {
            tracing::warn!("the webhook queue overflows: its oldest jobs are dropped");
        }
        if health.app_store_failing && !self.health.app_store_failing {
            tracing::warn!("the store of apps does not answer: apps that are known go on");
        }
        if health.bus_failing && !self.health.bus_failing && self.is_announced {
            tracing::warn!("the bus does not work: not ready");
        }
        if health.memory_above_threshold && !self.health.memory_above_threshold {
            tracing::warn!("memory is above its threshold: not ready");
        }
        if health.shard_stalled && !self.health.shard_stalled {
            tracing::warn!("a shard has not turned for {STALL_MS} ms: not ready");
        }
        self.health = health;
        self.tell_status();
        self.broadcast(|| FromBridge::Health(health));
    }

    /// For who asks the supervisor how it goes.
    pub(super) fn tell_status(&mut self) {
        let unready = self.health.unready();
        let shards = self.link.shards();
        let status = match (self.is_announced, unready.is_empty()) {
            (true, true) => {
                let connections: u64 = self.connections_by_shard().iter().sum();
                format!("connections {connections}, shards {shards}")
            }
            (false, true) => "waiting for what it needs to start".to_owned(),
            (_, false) => format!("not ready: {}", unready.join(", ")),
        };
        self.supervisor.status(status);
    }

    pub(super) fn is_shard_stalled(&self) -> bool {
        let now_ms = u64::try_from(self.link.started().elapsed().as_millis()).unwrap_or(u64::MAX);
        let last_turns = (0..self.link.shards()).map(|it| self.link.last_turn_ms(ShardId(it)));
        last_turns
            .min()
            .is_some_and(|ms| ms.saturating_add(STALL_MS) < now_ms)
    }

    /// What both ports judge by; the shards are told when it changes.
    pub(super) fn health(&mut self) -> Health {
        let now = Instant::now();
        let is_store_failing = self.source.as_ref().is_some_and(AppSource::is_failing);
        Health {
            starting: !self.gathering.is_complete()
                || self.link.waits_to_accept()
                || self.nodes.as_ref().is_some_and(Nodes::is_starting),
            shard_stalled: self.is_shard_stalled(),
            queue_failing: self.webhooks.is_failing(),
            backend_failing: is_store_failing && !self.is_announced,
            app_store_failing: is_store_failing && self.is_announced,
            cache_failing: self.kept_store.as_ref().is_some_and(KeptStore::is_failing),
            rate_limiter_failing: self.rate_store.as_ref().is_some_and(RateStore::is_failing),
            bus_failing: self.nodes.as_ref().is_some_and(Nodes::is_failing),
            memory_above_threshold: self.memory.read(now).fraction()
                > self.config.http_api.memory_threshold,
            draining: self.drain.is_some(),
        }
    }
}

/// A shard that has not turned for so long makes the node unready.
const STALL_MS: u64 = 5_000;
