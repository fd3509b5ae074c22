//! What the node says of itself: `/up`, `/usage`, and the counters for a scrape.
//!
//! Owns: the words and codes of health.
//! May depend on: `http`, `bridge::message`, `metrics::counters`.
//! Invariants: health routes need no authentication and meet no limiter.

use std::rc::Rc;

use shards::application::Slot;

use super::{ServerTurn, ShardServer, request::Reply};
use crate::{
    bridge::message::ToBridge,
    connection::pending::Pending,
    http::{
        api::ApiError,
        health::{Health, HealthReport},
        request::Head,
        response::Status,
    },
    metrics::counters::ShardSnapshot,
};

/// A state of health and why.
struct Verdict {
    health: Health,
    reasons: Vec<&'static str>,
}

impl ShardServer {
    /// `/up` and `/up/{app}`.
    pub(super) fn answer_up(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        app: Option<&str>,
    ) {
        let verdict = match app.map(|id| self.apps.by_id(id)) {
            None => {
                self.counters.system_http_calls += 1;
                self.verdict(self.apps.is_empty())
            }
            Some(None) => {
                let reasons = vec!["no such app"];
                Verdict {
                    health: Health::NotFound,
                    reasons,
                }
            }
            Some(Some(app)) => {
                let index = app.entry.index;
                let enabled = app.entry.app.enabled;
                self.counters.app(index).http_calls += 1;
                if enabled {
                    self.verdict(false)
                } else {
                    error(vec!["the app is disabled"])
                }
            }
        };
        self.respond_verdict(turn, slot, head, &verdict);
    }

    /// `/ready` and `/accept-traffic`: `/up` without the rule that there is an app.
    pub(super) fn answer_ready(&mut self, turn: &mut impl ServerTurn, slot: Slot, head: &Head<'_>) {
        self.counters.system_http_calls += 1;
        let verdict = self.verdict(false);
        self.respond_verdict(turn, slot, head, &verdict);
    }

    fn verdict(&self, lacks_apps: bool) -> Verdict {
        let checks = [
            (lacks_apps, "no app is configured"),
            (self.drain.is_some() || self.health.draining, "draining"),
            (self.health.backend_failing, "a backend is failing"),
            (
                self.health.memory_above_threshold,
                "memory is above its threshold",
            ),
        ];
        let reasons: Vec<_> = checks
            .into_iter()
            .filter(|(failing, _)| *failing)
            .map(|(_, why)| why)
            .collect();
        if !reasons.is_empty() {
            return error(reasons);
        }
        if self.health.queue_failing {
            let reasons = vec!["the webhook queue is failing"];
            return Verdict {
                health: Health::Degraded,
                reasons,
            };
        }
        Verdict {
            health: Health::Ok,
            reasons: Vec::new(),
        }
    }

    fn respond_verdict(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        verdict: &Verdict,
    ) {
        let settings = Rc::clone(&self.settings);
        let health = verdict.health;
        let headers = [health.header(), settings.cors.headers(head.origin)];
        let mut body = Vec::new();
        let report = HealthReport {
            health,
            reasons: &verdict.reasons,
            node: &settings.node,
            is_draining: self.drain.is_some() || self.health.draining,
        };
        let content_type = report.write_body(&mut body, head.accept);
        let status = health.status();
        let reply = Reply {
            status,
            content_type,
            headers: &headers,
            body: &body,
        };
        self.respond(turn, slot, reply, head.keep_alive);
    }

    /// `/usage`: the bridge reads the memory, a shard reads no files.
    pub(super) fn ask_usage(&mut self, turn: &mut impl ServerTurn, slot: Slot, head: &Head<'_>) {
        if !self.settings.usage_enabled {
            let fault = ApiError::NotFound;
            return self.respond_fault(turn, slot, fault, &[], head.keep_alive);
        }
        let waiter = self.await_answer(slot);
        *self.held(slot).pending() = Some(Pending::Usage {
            keep_alive: head.keep_alive,
        });
        if turn.to_bridge(ToBridge::Usage { waiter }).is_err() {
            self.answer_arrived(slot);
            self.counters.bridge_full[1] += 1;
            self.respond_fault(turn, slot, ApiError::Unavailable, &[], head.keep_alive);
        }
    }

    pub(super) fn usage_arrived(&mut self, turn: &mut impl ServerTurn, slot: Slot, body: &str) {
        let Some(Pending::Usage { keep_alive }) = self.answer_arrived(slot) else {
            return;
        };
        self.respond(
            turn,
            slot,
            Reply::json(Status::Ok, &[], body.as_bytes()),
            keep_alive,
        );
    }

    /// Sends this shard's numbers to the bridge.
    pub(super) fn report(&mut self, turn: &mut impl ServerTurn, token: u64) {
        let draining = self.drain.is_some().then_some(self.counters.websockets);
        (self.counters.addresses, self.counters.addresses_evicted) = self.quotas.addresses();
        let snapshot = ShardSnapshot {
            counters: self.counters.clone(),
            runtime: turn.runtime_counters(),
            draining,
        };
        let message = ToBridge::Snapshot {
            token,
            snapshot: Box::new(snapshot),
        };
        if turn.to_bridge(message).is_err() {
            self.counters.bridge_full[1] += 1;
        }
    }
}

fn error(reasons: Vec<&'static str>) -> Verdict {
    Verdict {
        health: Health::Error,
        reasons,
    }
}
