//! Webhooks whose jobs are in a store of several parts, with answers made by hand.
//!
//! Owns: what a word of one part does to jobs; what a node does with jobs that it alone has; old jobs of unknown apps.
//! May depend on: `webhook::tests`, `bridge::{queue, redis_commands}`.
//! Invariants: as there; no store is there, and what a server would say is not heard.

use std::collections::BTreeSet;

use hyper::StatusCode;
use shards::application::Millis;

use super::*;
use crate::bridge::{
    queue::{
        Job, TargetId, TargetName,
        record::Record,
        store::{
            Answer as Said, Receipt, Store, StoreFault, Taken,
            redis::{Keys, REDIS_PURPOSE, RedisBounds, RedisStore, old::OldList},
        },
    },
    redis_commands::fixture::to_nobody,
    webhook::{Attempted, attempt::AttemptError, old, shared::SharedSetup, wall_ms},
};
use crate::metrics::bridge::{DeadReason, DeliveryResult, StrangeReason};

const PARTS: usize = 2;

fn in_parts(table: &AppTable) -> Webhooks {
    let commands = to_nobody(REDIS_PURPOSE);
    let store = |part| {
        let bounds = RedisBounds {
            lease: Duration::from_secs(30),
            bytes_max: 1 << 20,
            dead_max: 10,
            dead_bytes_max: 1 << 20,
            timeout: Duration::from_secs(1),
        };
        let keys = Keys::new("test", Some(part));
        Store::Redis(RedisStore::new(commands.clone(), keys, "node", bounds))
    };
    let setup = SharedSetup {
        driver: "redis-cluster",
        stores: (0..PARTS).map(store).collect(),
        old: Some(OldList::new(commands.clone(), "test", "node")),
        in_flight_max: 8,
    };
    let mut webhooks = Webhooks::new(Keeping::Shared(setup), &settings(), Instant::now());
    webhooks.begin(table);
    webhooks
}

/// An app with a target of each part, and what they are called.
fn app_of_all_parts() -> (App, Vec<TargetName>) {
    let mut app = fixture::app("a");
    let mut names = Vec::new();
    for part in 0..PARTS {
        let mut urls = (0..).map(|number| format!("http://127.0.0.1:9/{number}"));
        let is_its = |url: &String| TargetName::of("a", url, 0).part(PARTS) == part;
        let url = urls.find(is_its).expect("one of some is");
        app.webhooks.push(fixture::webhook(&url, ALL));
        names.push(TargetName::of("a", &url, 0));
    }
    (app, names)
}

/// So many jobs of one channel.
fn taken(target: TargetName, count: u64) -> Vec<Taken> {
    let job = |number| {
        let mut text = Vec::new();
        let job = Job::new(AppIndex(0), vec![Arc::new(event("a", number))], Millis(0));
        Record::write(&mut text, "a", target, wall_ms(), &job);
        Taken {
            receipt: Receipt {
                target,
                text: format!("{target}/{number}").into(),
            },
            attempts: 0,
            text,
        }
    };
    (0..count).map(job).collect()
}

/// A part answers the turn under way.
fn says(webhooks: &mut Webhooks, part: usize, said: Said) {
    webhooks.start();
    webhooks.hear((part, Ok(said)));
}

fn born(word: &str) -> Said {
    Said {
        born: Some(word.into()),
        ..Said::default()
    }
}

fn only_target(webhooks: &Webhooks) -> TargetId {
    webhooks.targets.of_app(AppIndex(0))[0]
}

#[tokio::test]
async fn a_part_that_gave_this_nodes_jobs_away_speaks_of_no_other_parts() {
    for (word, alone) in [("x", 0), ("y", 2)] {
        let (app, targets) = app_of_all_parts();
        let mut webhooks = in_parts(&AppTable::build(&[app], None));
        for (part, target) in targets.iter().enumerate() {
            let taken = taken(*target, 3);
            says(&mut webhooks, part, Said { taken, ..born("x") });
        }
        webhooks.start();
        // The first of each is under way.
        assert_eq!(webhooks.queue.waiting_events(), 4);
        let was_dead = true;
        says(
            &mut webhooks,
            0,
            Said {
                was_dead,
                ..born(word)
            },
        );
        let left = webhooks.queue.take_all_untried(webhooks.now());
        let receipts = || left.iter().map(|(_, job)| job.receipt.as_ref());
        let of_other = receipts().flatten().filter(|it| it.target == targets[1]);
        assert_eq!(of_other.count(), 2, "{word}");
        assert_eq!(receipts().filter(Option::is_none).count(), alone, "{word}");
        assert_eq!(left.len(), 2 + alone, "{word}");
    }
}

#[tokio::test]
async fn a_job_under_way_that_its_store_forgets_is_tried_again_here() {
    for (word, waiting) in [("x", 0), ("y", 1)] {
        let (app, targets) = app_of_all_parts();
        let mut webhooks = in_parts(&AppTable::build(&[app], None));
        let taken = taken(targets[0], 1);
        says(&mut webhooks, 0, Said { taken, ..born("x") });
        let was_dead = true;
        says(
            &mut webhooks,
            0,
            Said {
                was_dead,
                ..born(word)
            },
        );
        let under_way = webhooks.attempts.under_way().next().cloned();
        let (target, job) = under_way.expect("it has a place");
        webhooks.settle(Attempted {
            target,
            job,
            result: Err(AttemptError::Status(StatusCode::BAD_GATEWAY)),
            took: Duration::ZERO,
            kept: None,
            policy: 0,
        });
        assert_eq!(webhooks.queue.waiting_events(), waiting, "{word}");
        assert!(webhooks.forgotten.is_empty());
    }
}

#[tokio::test]
async fn a_store_is_up_when_each_part_has_answered_and_none_is_failing() {
    let mut webhooks = in_parts(&AppTable::build(&[app_of_all_parts().0], None));
    let shared = webhooks.shared.as_mut().expect("it has parts");
    assert!(!shared.sample().is_up, "nothing was asked");
    let mut now = Millis(0);
    let mut after = |part, answer| {
        now = now.plus(60_000); // Whatever pause there was is over.
        shared.begin(now, wall_ms(), |_| None, |_| None);
        shared.hear((part, answer), now, 0.0);
        shared.sample().is_up
    };
    let fault = || Err(StoreFault("no answer".to_owned()));
    assert!(!after(0, fault()), "one turn has failed");
    let is_unheard = true;
    let unheard = Said {
        is_unheard,
        ..Said::default()
    };
    assert!(!after(0, Ok(unheard)), "nothing was asked of it");
    assert!(!after(1, Ok(born("x"))), "the other part has answered");
    assert!(after(0, Ok(born("x"))), "both have");
    assert!(after(0, fault()), "one failure may be chance");
    assert!(!after(0, fault()), "two are none");
    assert!(after(0, Ok(born("x"))), "it is back");
}

/// A job of that app for that target, so old.
fn job_of(app_id: &str, target: TargetName, age_ms: u64) -> Taken {
    let [mut job] = taken(target, 1).try_into().expect("one");
    let mut record = Record::read(&job.text).expect("it is one");
    record.app_id = app_id.into();
    record.since_ms = wall_ms() - age_ms;
    job.text = record.to_bytes();
    job
}

#[tokio::test]
async fn a_job_of_a_store_that_is_none_or_nobodys_is_counted_when_it_is_given_up() {
    const OLD_MS: u64 = 61_000;
    let gone = DeadReason::Gone as usize;
    // The target's name is another one than that of any here.
    let (mut app, targets) = app_of_all_parts();
    app.webhooks.truncate(1);
    let mut none = job_of("a", targets[0], OLD_MS);
    none.text.truncate(20);
    for (case, job, strange, of_app) in [
        ("no job", none, [0, 1], 0),
        (
            "an app that nobody knows",
            job_of("b", targets[0], OLD_MS),
            [1, 0],
            0,
        ),
        (
            "a target of an app that is known",
            job_of("a", targets[1], OLD_MS),
            [0, 0],
            1,
        ),
        ("it may be known yet", job_of("b", targets[0], 0), [0, 0], 0),
        (
            "it is delivered",
            job_of("a", targets[0], OLD_MS),
            [0, 0],
            0,
        ),
    ] {
        let mut webhooks = in_parts(&AppTable::build(std::slice::from_ref(&app), None));
        match case {
            "no job" => sees(&mut webhooks, &job), // At once.
            _ => sees_for_a_minute(&mut webhooks, &job),
        }
        let counters = &mut webhooks.queue.counters;
        assert_eq!(counters.strange, strange, "{case}");
        let its = counters.app(AppIndex(0));
        assert_eq!(its.dead[gone], of_app, "{case}");
        let dead = its.deliveries.map(|row| row[DeliveryResult::Dead as usize]);
        assert_eq!(dead.iter().sum::<u64>(), of_app, "{case}: its one event");
    }
}

/// The store gives a job as often as it comes back, over one minute.
fn sees_for_a_minute(webhooks: &mut Webhooks, job: &Taken) {
    for _ in 0..2 {
        sees(webhooks, job);
        pass(webhooks, 30);
    }
    sees(webhooks, job);
}

fn sees(webhooks: &mut Webhooks, job: &Taken) {
    let part = job.receipt.target.part(PARTS);
    let taken = vec![job.clone()];
    says(webhooks, part, Said { taken, ..born("x") });
}

/// On this node's clock.
fn pass(webhooks: &mut Webhooks, seconds: u64) {
    webhooks.started -= Duration::from_secs(seconds);
}

fn counts_gone(webhooks: &Webhooks) -> u64 {
    webhooks.queue.counters.strange[StrangeReason::Gone as usize]
}

#[tokio::test]
async fn an_old_job_of_an_app_in_a_database_is_looked_for_and_delivered() {
    let (app, targets) = app_of_all_parts();
    let job = job_of("a", targets[0], 3_600_000);
    let mut table = AppTable::of_store();
    let mut webhooks = in_parts(&table);
    sees(&mut webhooks, &job);
    assert_eq!(webhooks.take_wanted_apps(), BTreeSet::from(["a".into()]));
    assert_eq!(counts_gone(&webhooks), 0, "nobody was asked");
    let change = table.put(&app);
    webhooks.change_apps(&Vec::from_iter(change));
    webhooks.store_said("a");
    sees(&mut webhooks, &job);
    let taken = webhooks.queue.waiting_events() + webhooks.queue.in_flight();
    assert_eq!(taken, 1);
    assert!(webhooks.take_wanted_apps().is_empty());
}

#[tokio::test]
async fn no_job_is_given_up_while_the_database_of_its_app_does_not_answer() {
    let (_, targets) = app_of_all_parts();
    let job = job_of("a", targets[0], 3_600_000);
    let mut webhooks = in_parts(&AppTable::of_store());
    for _ in 0..10 {
        sees_for_a_minute(&mut webhooks, &job);
        assert_eq!(webhooks.take_wanted_apps(), BTreeSet::from(["a".into()]));
        assert_eq!(counts_gone(&webhooks), 0);
    }
    // It answers: there is none.
    webhooks.store_said("a");
    sees(&mut webhooks, &job);
    assert_eq!(counts_gone(&webhooks), 1);
    // What others put a moment ago waits though.
    sees(&mut webhooks, &job_of("a", targets[0], 1_000));
    assert_eq!(counts_gone(&webhooks), 1);
}

#[tokio::test]
async fn an_app_that_its_database_does_not_have_is_waited_for_a_minute() {
    let (_, targets) = app_of_all_parts();
    let job = job_of("a", targets[0], 3_600_000);
    let mut webhooks = in_parts(&AppTable::of_store());
    // An answer of before counts no more; some real time passes beside.
    for (step, passed, gone) in [(0, 0, 0), (30, 30, 0), (20, 50, 0), (10, 60, 0), (1, 61, 1)] {
        pass(&mut webhooks, step);
        sees(&mut webhooks, &job);
        assert_eq!(counts_gone(&webhooks), gone, "{passed} s");
        webhooks.store_said("a");
    }
}

#[tokio::test]
async fn an_old_job_that_is_none_or_nobodys_is_counted_when_it_leaves_the_list() {
    let (app, _) = app_of_all_parts();
    let its = |app: &str| {
        let event = r#"{"name":"channel_occupied","channel":"c"}"#;
        format!(r#"{{"app_id":"{app}","payload":{{"time_ms":5,"events":[{event}]}}}}"#).into_bytes()
    };
    let mut webhooks = in_parts(&AppTable::build(&[app], None));
    let jobs = vec![its("a"), its("b"), b"{}".to_vec(), its("b")];
    webhooks.hear_old(old::Heard::Jobs(Ok(jobs)));
    assert_eq!(webhooks.queue.counters.strange, [2, 1]);
    assert_eq!(webhooks.state().waiting_events, 2, "of two targets");
}

#[tokio::test]
async fn a_target_that_failed_and_comes_back_has_not_failed() {
    let (mut app, targets) = app_of_all_parts();
    app.webhooks.truncate(1);
    let mut table = AppTable::build(std::slice::from_ref(&app), None);
    let mut webhooks = in_parts(&table);
    let taken = taken(targets[0], 1);
    says(&mut webhooks, 0, Said { taken, ..born("x") });
    webhooks.fails(only_target(&webhooks));
    let failing = |webhooks: &mut Webhooks, later_ms: u64| {
        let at = webhooks.now().plus(later_ms);
        let shared = webhooks.shared.as_mut().expect("in parts");
        let part = shared.parts_mut().next().expect("the first");
        let turn = part.begin(at, 0, |_| None, |_| None).expect("it is due");
        part.ended(Ok(born("x")), at, 0.0).expect("it answered");
        turn.take.failing.iter().copied().collect::<Vec<_>>()
    };
    assert_eq!(failing(&mut webhooks, 10_000), [targets[0]]);
    webhooks.change_apps(&table.replace(&[]));
    webhooks.change_apps(&table.replace(&[app]));
    assert!(failing(&mut webhooks, 20_000).is_empty());
}

#[tokio::test]
async fn what_this_process_alone_has_is_lost_with_it_also_once_it_was_tried() {
    let (app, targets) = app_of_all_parts();
    let mut webhooks = in_parts(&AppTable::build(&[app], None));
    let taken = taken(targets[0], 3);
    says(&mut webhooks, 0, Said { taken, ..born("x") });
    let (target, now) = (only_target(&webhooks), webhooks.now());
    let job = |attempts| {
        let mut job = Job::new(AppIndex(0), vec![Arc::new(event("b", 1))], now);
        job.attempts = attempts;
        job
    };
    webhooks.queue.push_job(target, job(0), now);
    webhooks.queue.push_job(target, job(0), now);
    webhooks
        .queue
        .push_retry(target, job(1), now.plus(60_000), now);
    webhooks.start();
    assert_eq!(webhooks.queue.in_flight(), 2);
    assert_eq!(webhooks.abandon(), 3, "the store has its own");
}

#[tokio::test]
async fn two_texts_of_one_url_are_two_targets_with_a_name_each() {
    let mut app = fixture::app("a");
    let texts = ["http://127.0.0.1:9", "http://127.0.0.1:9/"];
    app.webhooks = texts.map(|url| fixture::webhook(url, ALL)).to_vec();
    let webhooks = webhooks(&[app], &settings());
    let targets = &webhooks.targets;
    for id in targets.of_app(AppIndex(0)) {
        let name = targets.target(*id).expect("it is listed").name;
        assert_eq!(targets.of_name(name).map(|(of_name, _)| of_name), Some(*id));
    }
}

#[tokio::test]
async fn an_app_that_its_database_may_know_is_looked_for_before_old_jobs_go() {
    let (app, _) = app_of_all_parts();
    let job = br#"{"app_id":"a","payload":{"time_ms":5,"events":[{"name":"channel_occupied","channel":"c"}]}}"#;
    let jobs = || old::Heard::Jobs(Ok(vec![job.to_vec()]));
    let mut table = AppTable::of_store();
    let mut webhooks = in_parts(&table);
    webhooks.hear_old(jobs());
    assert_eq!(webhooks.take_wanted_apps(), BTreeSet::from(["a".into()]));
    assert_eq!(webhooks.state().waiting_events, 0);
    let change = table.put(&app);
    webhooks.change_apps(&Vec::from_iter(change));
    webhooks.hear_old(jobs());
    assert_eq!(webhooks.state().waiting_events, 2, "of two targets");
    assert!(webhooks.take_wanted_apps().is_empty());
    // Where all apps are known it belongs to nobody.
    let mut webhooks = in_parts(&AppTable::build(&[], None));
    webhooks.hear_old(jobs());
    assert!(webhooks.take_wanted_apps().is_empty());
}

#[tokio::test]
async fn an_old_job_of_an_app_that_nobody_knows_leaves_the_list_when_its_database_has_said_so() {
    let job = br#"{"app_id":"a","payload":{"time_ms":5,"events":[{"name":"channel_occupied","channel":"c"}]}}"#;
    let mut webhooks = in_parts(&AppTable::of_store());
    let hears = |webhooks: &mut Webhooks| {
        webhooks.hear_old(old::Heard::Jobs(Ok(vec![job.to_vec()])));
        counts_gone(webhooks)
    };
    for _ in 0..10 {
        assert_eq!(hears(&mut webhooks), 0);
        pass(&mut webhooks, 30);
    }
    webhooks.store_said("a");
    assert_eq!(hears(&mut webhooks), 1);
}
