//! What the node says of itself: `/up`, `/usage`, and the counters for a scrape.
//!
//! Owns: which health route asks what; the judgement is `bridge::message`'s, for both ports.
//! May depend on: `http`, `bridge::message`, `metrics::counters`.
//! Invariants: health routes need no authentication and meet no limiter; no part of a report is longer than a
//! thousand apps' rows.

use std::rc::Rc;

use shards::{application::Slot, work::Work};

use super::{ServerTurn, ShardServer, errands::Errand, request::Reply};
use crate::{
    bridge::health::{Grade, Health as NodeHealth, Judgement},
    bridge::message::{ToBridge, USAGES_ASKED_MAX},
    connection::{
        pending::{Asked, Pending},
        upgrade::Lookup,
    },
    http::{
        api::ApiError,
        health::{Health, HealthReport},
        request::Head,
        response::{Content, Status},
        route::Route,
    },
    metrics::{counters::ShardSnapshot, packed::PackedApps},
};

/// A report to the bridge under way.
#[derive(Clone, Debug)]
pub(super) struct Report {
    token: u64,
    apps: PackedApps,
}

/// Rows of apps that are packed at once: 0.1 us each.
const REPORTED_AT_ONCE: usize = 1_024;

impl ShardServer {
    /// What load balancers ask for.
    pub(super) fn answer_health(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        route: &Route<'_>,
    ) {
        match route {
            Route::Up => self.answer_up(turn, slot, head, None),
            Route::UpApp { app } => self.answer_up(turn, slot, head, Some(app)),
            Route::Ready | Route::AcceptTraffic => self.answer_ready(turn, slot, head),
            Route::App { .. }
            | Route::AppBadPath
            | Route::Events { .. }
            | Route::BatchEvents { .. }
            | Route::Channels { .. }
            | Route::Channel { .. }
            | Route::Users { .. }
            | Route::Terminate { .. }
            | Route::Usage
            | Route::Live
            | Route::Root
            | Route::WelcomeSign
            | Route::Unknown => {
                let reply = Reply::text(Status::Ok, &[], "OK");
                self.respond(turn, slot, reply, &Asked::of(head));
            }
        }
    }

    /// `/up` and `/up/{app}`.
    pub(super) fn answer_up(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        app: Option<&str>,
    ) {
        let mut counted = None;
        let judgement = match app.map(|id| self.look_up_id(turn.now(), id)) {
            None => {
                self.counters.system_http_calls += 1;
                let has_apps = self.settings.asks_for_apps || !self.apps.is_empty();
                self.node_health().judge(has_apps)
            }
            Some(Lookup::Unavailable) => {
                self.respond_health(turn, slot, head, Health::Error, &["app_store"]);
                return;
            }
            Some(Lookup::Absent) => {
                self.respond_health(turn, slot, head, Health::NotFound, &["no_such_app"]);
                return;
            }
            Some(Lookup::Known(app)) => {
                let index = app.entry.index;
                let enabled = app.entry.rules.is_enabled;
                self.counters.app(index).http_calls += 1;
                counted = Some(index);
                if enabled {
                    self.node_health().judge(true)
                } else {
                    Judgement {
                        grade: Grade::Unready,
                        reasons: vec!["app_disabled"],
                    }
                }
            }
        };
        let bytes = self.respond_judgement(turn, slot, head, &judgement);
        if let Some(app) = counted {
            self.counters.app(app).http_transmitted_bytes += bytes as u64;
        }
    }

    /// `/ready` and `/accept-traffic`: `/up` without the rule that there is an app.
    fn answer_ready(&mut self, turn: &mut impl ServerTurn, slot: Slot, head: &Head<'_>) {
        self.counters.system_http_calls += 1;
        let judgement = self.node_health().judge(true);
        self.respond_judgement(turn, slot, head, &judgement);
    }

    /// What the bridge has said last; a drain is known here as soon.
    fn node_health(&self) -> NodeHealth {
        NodeHealth {
            draining: self.is_draining(),
            ..self.health
        }
    }

    /// Returns the bytes of the answer's body.
    fn respond_judgement(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        judgement: &Judgement,
    ) -> usize {
        let word = match judgement.grade {
            Grade::Well => Health::Ok,
            Grade::Degraded => Health::Degraded,
            Grade::Unready => Health::Error,
        };
        self.respond_health(turn, slot, head, word, &judgement.reasons)
    }

    fn respond_health(
        &mut self,
        turn: &mut impl ServerTurn,
        slot: Slot,
        head: &Head<'_>,
        health: Health,
        reasons: &[&str],
    ) -> usize {
        let settings = Rc::clone(&self.settings);
        let mut body = Vec::new();
        let report = HealthReport {
            health,
            reasons,
            node: &settings.node,
            is_draining: self.node_health().draining,
        };
        let content_type = report.write_body(&mut body, head.accept);
        let reply = Reply {
            status: health.status(),
            content_type,
            headers: &[health.header()],
            body: &body,
        };
        let asked = Asked::of(head);
        self.respond(turn, slot, reply, &asked);
        if asked.content == Content::Whole {
            body.len()
        } else {
            0
        }
    }

    /// `/usage`: the bridge reads the memory, a shard reads no files.
    pub(super) fn ask_usage(&mut self, turn: &mut impl ServerTurn, slot: Slot, asked: Asked) {
        if !self.settings.usage_enabled {
            return self.respond_fault(turn, slot, ApiError::NotFound, &[], &asked);
        }
        let waiter = self.await_answer(slot);
        // Each question has an answer, and so many have room on their way back.
        let is_asked = self.usages_asked < USAGES_ASKED_MAX
            && turn.to_bridge(ToBridge::Usage { waiter }).is_ok();
        if !is_asked {
            self.answer_arrived(slot);
            self.counters.bridge_full[1] += 1;
            return self.respond_fault(turn, slot, ApiError::Unavailable, &[], &asked);
        }
        self.usages_asked += 1;
        *self.held(slot).pending() = Some(Pending::Usage(asked));
    }

    pub(super) fn on_usage(&mut self, turn: &mut impl ServerTurn, slot: Slot, body: &str) {
        let Some(Pending::Usage(asked)) = self.answer_arrived(slot) else {
            return;
        };
        let reply = Reply::json(Status::Ok, &[], body.as_bytes());
        self.respond(turn, slot, reply, &asked);
    }

    /// The bridge wants this shard's numbers. Where an older question is not answered yet, the answer to that is
    /// one to this.
    pub(super) fn on_scrape(&mut self, turn: &mut impl ServerTurn, token: u64) {
        if let Some(report) = &mut self.report {
            report.token = token;
            return;
        }
        let apps = PackedApps::default();
        self.report = Some(Report { token, apps });
        if self.report_more(turn) {
            self.errands.push(Errand::Report);
        }
    }

    /// Packs what is counted, a part at a time, since thousands of apps take long; false when all has gone to
    /// the bridge.
    pub(super) fn report_more(&mut self, turn: &mut impl ServerTurn) -> bool {
        let report = self.report.as_mut().expect("the errand is for a report");
        let mut rows = 0;
        let mut has_more = true;
        while has_more && rows < REPORTED_AT_ONCE {
            let count;
            (count, has_more) = self.counters.pack_apps(&mut report.apps);
            rows += count.max(1);
        }
        turn.spend(Work::ROW.times(3 * rows));
        if has_more {
            return true;
        }
        let Report { token, apps } = self.report.take().expect("it was there above");
        self.send_report(turn, token, apps);
        false
    }

    /// Sends this shard's numbers to the bridge.
    fn send_report(&mut self, turn: &mut impl ServerTurn, token: u64, apps: PackedApps) {
        let draining = self.drain.is_some().then_some(self.counters.websockets);
        (self.counters.addresses, self.counters.addresses_evicted) = self.quotas.addresses();
        self.counters.addresses += self.leases.len() as u64;
        self.counters.kept_bytes = self.homes.kept_bytes() as u64;
        let joins = self.topics.joins() + self.kept_asks.joins();
        self.counters.joins_waiting = joins as u64;
        let snapshot = ShardSnapshot {
            counters: self.counters.with_apps(apps),
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
