//! A channel's home as another process is told of it, and how it comes to be there again.
//!
//! Owns: the two ways between a home and `HomeRecord`; subscriptions that are restored without a word.
//! May depend on: `handover::record` and the other files of this room.
//! Invariants: restoring announces nothing, whatever comes first, the record or the subscriptions; who is in
//! the record and has no connection when all are restored leaves as anybody does.

use std::sync::Arc;

use shards::application::{Millis, ShardId};

use super::{
    home::{Event, Home, HomeRef, Rules},
    home_effect::HomeEffect,
    home_table::HomeTable,
    local::LocalRef,
    roster::Member,
};
use crate::handover::record::{HomeRecord, KeptRecord};

impl Home {
    /// What another process is told beside the subscriptions; `None`: nothing.
    pub fn record(&self, now: Millis) -> Option<HomeRecord> {
        let members = self.roster.as_ref().map(|roster| roster.here());
        let kept = self.kept(now).map(|(event, _)| KeptRecord {
            frame: event.frame.to_vec(),
            data_start: event.data_start,
            data_bytes: event.data_bytes,
            expires_at_ms: now.0 + self.kept_for(now).map_or(0, |(_, ms)| ms),
        });
        let mut record = HomeRecord {
            channel: self.name.to_string(),
            members: members.unwrap_or_default(),
            kept,
            ..HomeRecord::default()
        };
        if let Some(later) = &self.later {
            record.vacate_at_ms = later.vacate_at.map(|at| at.0);
            record.departures = later.departures.list();
            record.miss_quiet_until_ms = later.miss_quiet_until.0;
            record.count_at_ms = later.count_at.map(|at| at.0);
            record.count_quiet_until_ms = later.count_quiet_until.0;
        }
        let is_plain = record.members.is_empty() && record.kept.is_none() && self.later.is_none();
        (!is_plain).then_some(record)
    }

    fn restore(&mut self, record: &HomeRecord) {
        if self.kind.is_presence() && !record.members.is_empty() {
            let roster = self.roster_mut();
            for (user_id, info) in &record.members {
                roster.restore_member(&Member {
                    user_id: user_id.as_str().into(),
                    info: info.as_str().into(),
                });
            }
        }
        let is_quiet = record.vacate_at_ms.is_none()
            && record.count_at_ms.is_none()
            && record.departures.is_empty()
            && record.miss_quiet_until_ms == 0
            && record.count_quiet_until_ms == 0;
        if is_quiet {
            return;
        }
        let later = self.later.get_or_insert_default();
        later.vacate_at = record.vacate_at_ms.map(Millis);
        for (user_id, at) in &record.departures {
            later.departures.add(user_id.as_str().into(), Millis(*at));
        }
        later.miss_quiet_until = Millis(record.miss_quiet_until_ms);
        later.count_at = record.count_at_ms.map(Millis);
        later.count_quiet_until = Millis(record.count_quiet_until_ms);
    }
}

impl HomeTable {
    /// What another process is told of each home, from a row on, until `rows_max` were looked at; where it
    /// goes on.
    pub fn records(
        &self,
        now: Millis,
        from: u32,
        rows_max: u32,
        mut told: impl FnMut(&Home, HomeRecord),
    ) -> Option<u32> {
        let end = self.rows.bound().min(from.saturating_add(rows_max));
        for row in from..end {
            if let Some((_, home)) = self.rows.at(row)
                && let Some(record) = home.record(now)
            {
                told(home, record);
            }
        }
        (end < self.rows.bound()).then_some(end)
    }

    /// Takes over what the record says of an entered home.
    pub fn restore(&mut self, at: HomeRef, now: Millis, rules: &Rules, record: HomeRecord) {
        let Some(home) = self.rows.get_mut(at.0) else {
            return;
        };
        home.restore(&record);
        let is_cache = home.kind.is_cache();
        let kept = record
            .kept
            .filter(|kept| is_cache && kept.expires_at_ms > now.0);
        if let Some(kept) = kept {
            let rules = Rules {
                kept_ms: kept.expires_at_ms - now.0,
                ..*rules
            };
            let event = Event {
                frame: kept.frame.into(),
                data_start: kept.data_start,
                data_bytes: kept.data_bytes,
            };
            self.keep(at, now, &rules, event);
        }
        self.arm(at);
    }

    /// A subscription that another process had. True: the shard has its first here.
    pub fn restore_subscription(
        &mut self,
        at: HomeRef,
        shard: ShardId,
        local: LocalRef,
        user_id: Option<&Arc<str>>,
        effects: &mut Vec<HomeEffect>,
    ) -> bool {
        let Some(home) = self.rows.get_mut(at.0) else {
            return false;
        };
        let is_first = home.restore_subscription(shard, local, effects);
        if let Some(user_id) = user_id.filter(|_| home.kind.is_presence()) {
            home.roster_mut().restore_connection(user_id);
        }
        self.occupied += usize::from(home.subscriptions() == 1);
        is_first
    }

    /// All subscriptions are restored: members without any leave. `release_if_idle` follows once the effects
    /// are performed.
    pub fn settle_restored(
        &mut self,
        at: HomeRef,
        now: Millis,
        rules: &Rules,
        effects: &mut Vec<HomeEffect>,
    ) {
        let Some(home) = self.rows.get_mut(at.0) else {
            return;
        };
        let absent = home.roster.as_mut().map(|it| it.take_absent());
        for user_id in absent.into_iter().flatten() {
            home.member_went(now, rules, user_id, effects);
        }
        self.arm(at);
    }
}

impl Home {
    fn restore_subscription(
        &mut self,
        shard: ShardId,
        local: LocalRef,
        effects: &mut Vec<HomeEffect>,
    ) -> bool {
        self.add_interest(shard, local);
        self.subscriptions += 1;
        if self.subscriptions == 1 {
            effects.push(HomeEffect::Occupied);
        }
        let interest = self.interests().iter().find(|it| it.shard == shard);
        interest.is_some_and(|it| it.is_first())
    }
}
