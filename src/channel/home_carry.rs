//! A channel's home as another process is told of it, and how it comes to be there again.
//!
//! Owns: the two ways between a home and `HomeRecord`; subscriptions that are restored without a word.
//! May depend on: `handover::record` and the other files of this room.
//! Invariants: restoring announces nothing, whatever comes first, the record or the subscriptions; who is in
//! the record and has no connection when all are restored leaves as anybody does.

use std::sync::Arc;

use shards::application::{Millis, ShardId};

use super::{
    home::{Home, HomeRef, Rules},
    home_effect::HomeEffect,
    home_table::HomeTable,
    kept::Event,
    local::LocalRef,
    roster::Member,
};
use crate::handover::record::{HomeOfNodesRecord, HomeRecord, KeptRecord};

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
        record.nodes = self.has_nodes.then(|| self.nodes_record());
        let is_plain = record.members.is_empty()
            && record.kept.is_none()
            && record.nodes.is_none()
            && self.later.is_none();
        (!is_plain).then_some(record)
    }

    fn nodes_record(&self) -> HomeOfNodesRecord {
        let roster = self.roster.as_ref();
        HomeOfNodesRecord {
            told: self.told,
            is_kept_told: self.told_kept,
            elsewhere: self.elsewhere,
            is_kept_elsewhere: self.kept_elsewhere,
            members: roster.map_or_else(Vec::new, |roster| roster.elsewhere()),
        }
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
        if let Some(nodes) = record.nodes.as_ref().filter(|_| self.has_nodes) {
            self.restore_nodes(nodes);
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

    fn restore_nodes(&mut self, nodes: &HomeOfNodesRecord) {
        self.told = nodes.told;
        self.told_kept = nodes.is_kept_told;
        self.elsewhere = nodes.elsewhere;
        self.kept_elsewhere = nodes.is_kept_elsewhere;
        if !self.kind.is_presence() {
            return;
        }
        for (user_id, info) in &nodes.members {
            self.roster_mut().restore_elsewhere(&Member {
                user_id: user_id.as_str().into(),
                info: info.as_str().into(),
            });
        }
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

    /// All subscriptions are restored: members without any leave, and other nodes are told what is not as it
    /// was. `release_if_idle` follows once the effects
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
        let gone = home.roster.as_mut().map(|it| it.restored(rules.tell()));
        for (user_id, change) in gone.into_iter().flatten() {
            home.member_left(now, rules, &user_id, change, effects);
        }
        if home.told > 0 && home.total() == 0 {
            home.occupied_or_vacant(now, rules, home.told, effects);
        }
        self.note_news(at);
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            home::{
                Elsewhere, News,
                tests::{APP, RULES, join_from},
            },
            home_effect::tests::words,
            home_table::KeptMax,
            kept::tests::event,
            names::tests::key,
            roster::MemberNews,
        },
        *,
    };

    fn table() -> HomeTable {
        let mut table = HomeTable::new(KeptMax {
            events: 10,
            bytes: 1 << 20,
        });
        table.tell_nodes();
        table
    }

    fn member(user_id: &str, info: &str) -> Member {
        Member {
            user_id: user_id.into(),
            info: info.into(),
        }
    }

    /// What the other nodes are told of it now.
    fn news(table: &mut HomeTable) -> Vec<News> {
        let mut all = Vec::new();
        while let Some((_, news)) = table.next_news() {
            all.extend(news);
        }
        all
    }

    fn join(table: &mut HomeTable, name: &str, user: Option<&str>) -> HomeRef {
        let at = table.enter(APP, &name.into(), key(name));
        let join = join_from(0, user);
        let joined = table.join(at, Millis(0), &RULES, &join, &mut Vec::new());
        joined.expect("there is room");
        at
    }

    fn changes(table: &mut HomeTable, at: HomeRef, change: Elsewhere) -> Vec<String> {
        let mut effects = Vec::new();
        table.change_elsewhere(at, Millis(1), &RULES, change, &mut effects);
        words(&effects)
    }

    /// Another process has what this one has, but of the named subscriptions only so many.
    fn follows(table: &HomeTable, subscriptions: &[(&str, Option<&str>)]) -> HomeTable {
        let mut next = self::table();
        let mut records = Vec::new();
        let rest = table.records(Millis(2), 0, u32::MAX, |_, record| records.push(record));
        assert_eq!(rest, None);
        let mut effects = Vec::new();
        for (name, user) in subscriptions {
            let at = next.enter(APP, &(*name).into(), key(name));
            let join = join_from(0, *user);
            let user_id = user.map(Arc::from);
            let (shard, local) = (join.to.shard, join.local);
            next.restore_subscription(at, shard, local, user_id.as_ref(), &mut effects);
        }
        for record in records {
            let name: Arc<str> = record.channel.as_str().into();
            let at = next.enter(APP, &name, key(&name));
            next.restore(at, Millis(2), &RULES, record);
        }
        next
    }

    fn settles(table: &mut HomeTable, name: &str) -> Vec<String> {
        let at = table
            .find(APP, name, key(name).hash)
            .expect("it was restored");
        let mut effects = Vec::new();
        table.settle_restored(at, Millis(2), &RULES, &mut effects);
        words(&effects)
    }

    #[test]
    fn a_channel_of_several_nodes_is_as_it_was_and_nobody_is_told_anything() {
        let mut table = table();
        let at = join(&mut table, "presence-room", Some("ann"));
        join(&mut table, "presence-room", Some("ann"));
        for change in [
            Elsewhere::Subscriptions(3),
            Elsewhere::MemberJoined(member("ann", "1")),
            Elsewhere::MemberJoined(member("bob", "2")),
            Elsewhere::EventKept(true),
        ] {
            changes(&mut table, at, change);
        }
        assert_eq!(news(&mut table).len(), 2, "a count and a member");
        let all = [
            ("presence-room", Some("ann")),
            ("presence-room", Some("ann")),
        ];
        let mut next = follows(&table, &all);
        assert!(settles(&mut next, "presence-room").is_empty());
        assert!(news(&mut next).is_empty());
        let at = next.find(APP, "presence-room", key("presence-room").hash);
        let at = at.expect("it was restored");
        let home = next.get(at).expect("it is there");
        assert_eq!(
            (home.subscriptions(), home.total(), home.users()),
            (2, 5, 2)
        );
        assert!(home.is_kept_elsewhere());
        // Views that are told once more change nothing, and what changes is told once.
        for change in [
            Elsewhere::Subscriptions(3),
            Elsewhere::MemberJoined(member("bob", "2")),
        ] {
            assert!(changes(&mut next, at, change).is_empty());
        }
        let left = |user: &str| Elsewhere::MemberLeft {
            user_id: user.into(),
        };
        assert!(changes(&mut next, at, left("ann")).is_empty());
        assert_eq!(changes(&mut next, at, left("bob")), ["tell -bob"]);
    }

    #[test]
    fn what_did_not_follow_is_told_to_the_other_nodes_and_here() {
        let mut table = table();
        let at = join(&mut table, "presence-room", Some("ann"));
        join(&mut table, "presence-room", Some("eve"));
        join(&mut table, "news", None);
        let change = Elsewhere::MemberJoined(member("eve", "2"));
        changes(&mut table, at, change);
        news(&mut table);
        let mut next = follows(&table, &[]);
        // Eve is on another node still.
        let told = ["tell -ann"];
        assert_eq!(settles(&mut next, "presence-room"), told);
        settles(&mut next, "news");
        let left = |user: &str| {
            News::Member(MemberNews::Left {
                user_id: user.into(),
            })
        };
        let expected = [
            News::Subscriptions(0),
            left("ann"),
            left("eve"),
            News::Subscriptions(0),
        ];
        assert_eq!(news(&mut next), expected);
        let hooks = |table: &mut HomeTable| {
            let mut effects = Vec::new();
            while let Some(at) = table.pop_due(Millis(60_000)) {
                table.settle(at, Millis(60_000), &RULES, &mut effects);
            }
            words(&effects)
        };
        let mut told = hooks(&mut next);
        told.sort_unstable();
        assert_eq!(told, ["hook -ann", "hook vacated", "hook vacated"]);
    }

    #[test]
    fn a_last_event_that_was_told_and_is_gone_is_told_to_be_gone() {
        let mut table = table();
        let at = join(&mut table, "cache-prices", None);
        table.keep(at, Millis(0), &RULES, event(7));
        assert_eq!(news(&mut table).len(), 2);
        let mut next = follows(&table, &[("cache-prices", None)]);
        settles(&mut next, "cache-prices");
        assert!(news(&mut next).is_empty());
        let gone = HomeTable::records(&table, Millis(5_000), 0, u32::MAX, |_, record| {
            assert_eq!(record.kept, None, "its time is over");
            let mut last = self::table();
            let at = last.enter(APP, &"cache-prices".into(), key("cache-prices"));
            last.restore(at, Millis(5_000), &RULES, record);
            settles(&mut last, "cache-prices");
            let told = [News::Subscriptions(0), News::EventKept(false)];
            assert_eq!(news(&mut last), told);
        });
        assert_eq!(gone, None);
    }
}
