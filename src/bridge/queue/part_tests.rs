//! A part of a shared queue on a clock of the tests' own, with answers made by hand.
//!
//! Owns: the rules of turns: what is said, when, and how often.
//! May depend on: `bridge::queue`.
//! Invariants: no test waits, and no store is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shards::application::Millis;

use super::{
    QueueSettings, TargetId, TargetName,
    owned::{Asked, Owned},
    part::{Part, PartBounds},
    record::Record,
    store::{Again, Answer, Dead, Receipt, StoreFault, Taken, Turn, Wanted},
};
use crate::{
    bridge::webhook_event::{WebhookEvent, WebhookKind},
    config::sections::Retry,
    protocol::app::AppIndex,
};

const ONE: TargetId = TargetId(1);

fn name() -> TargetName {
    TargetName::of("a", "http://x/", 0)
}

const APPS: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

/// The only target of an app.
fn named(app: &str) -> TargetName {
    TargetName::of(app, "http://y/", 0)
}

fn of_app(app: usize) -> TargetName {
    named(APPS[app])
}

/// So many jobs of each.
fn taken_of(targets: &[(TargetName, usize)]) -> Answer {
    let jobs = targets.iter().flat_map(|(target, count)| {
        (0..*count).map(move |number| Taken {
            receipt: Receipt {
                target: *target,
                text: format!("{target}/{number}").into(),
            },
            attempts: 0,
            text: Vec::new(),
        })
    });
    Answer {
        taken: jobs.collect(),
        ..Answer::default()
    }
}

fn part() -> Part {
    let settings = QueueSettings {
        bytes_max: 1_000_000,
        in_flight_max: 4,
        in_flight_per_target_max: 3,
        batch_ms: None,
        batch_events_max: 50,
        retry: Retry {
            attempts: 0,
            backoff_ms: 1_000,
            backoff_max_ms: 8_000,
            max_age_s: 300,
        },
    };
    let bounds = PartBounds {
        jobs_max: 8,
        jobs_per_target_max: 6,
    };
    Part::new(settings, bounds)
}

fn push(part: &mut Part, channel: &str, at: u64) {
    let event = WebhookEvent {
        app: AppIndex(0),
        time_ms: 7,
        channel: channel.into(),
        kind: WebhookKind::ChannelOccupied,
    };
    part.push(ONE, AppIndex(0), Arc::new(event), Millis(at));
}

fn begin(part: &mut Part, at: u64) -> Option<Turn> {
    let app_of = |target| APPS.into_iter().find(|app| named(app) == target);
    part.begin(Millis(at), 1_000_000 + at, |_| Some(("a", name())), app_of)
}

/// Targets asked for, and how many jobs of each.
fn asked(turn: &Turn) -> Vec<(TargetName, usize)> {
    let targets = turn.take.targets.iter();
    targets.map(|it| (it.target, it.jobs)).collect()
}

fn channels(turn: &Turn) -> Vec<String> {
    let jobs = turn.put.iter().flat_map(|put| &put.jobs);
    let records = jobs.map(|job| Record::read(&job.text).expect("our own"));
    records.map(|it| it.events[0].channel.to_string()).collect()
}

fn receipt(text: &str) -> Receipt {
    Receipt {
        target: name(),
        text: text.into(),
    }
}

fn taken(count: usize) -> Answer {
    let job = |number: usize| Taken {
        receipt: receipt(&number.to_string()),
        attempts: 0,
        text: Vec::new(),
    };
    Answer {
        taken: (0..count).map(job).collect(),
        ..Answer::default()
    }
}

fn fault() -> StoreFault {
    StoreFault("away".to_owned())
}

#[test]
fn what_was_not_answered_is_said_again_with_the_same_number_and_nothing_with_it() {
    let mut part = part();
    push(&mut part, "a", 1_000);
    push(&mut part, "b", 1_000);
    let turn = begin(&mut part, 1_000).expect("something to say");
    assert_eq!(channels(&turn), ["a", "b"]);
    assert!(begin(&mut part, 1_000).is_none(), "one turn at a time");
    push(&mut part, "c", 1_001);
    assert!(part.ended(Err(fault()), Millis(1_002), 0.0).is_err());
    assert!(begin(&mut part, 1_002).is_none(), "it rests after a fault");
    let again = begin(&mut part, 3_000).expect("again");
    assert_eq!(channels(&again), ["a", "b"]);
    let number = |turn: &Turn| turn.put.as_ref().map(|put| put.number);
    assert_eq!(number(&again), number(&turn));
    assert_eq!(
        again.holds,
        Some(Vec::new()),
        "jobs may have been given unheard"
    );
    assert_eq!(part.waiting_events(), 3);
    part.ended(Ok(Answer::default()), Millis(3_001), 0.0)
        .expect("it answered");
    let next = begin(&mut part, 3_001).expect("the rest");
    assert_eq!(
        (channels(&next), next.holds.is_none()),
        (vec!["c".to_owned()], true)
    );
    assert_ne!(number(&next), number(&turn));
    part.ended(Ok(Answer::default()), Millis(3_002), 0.0)
        .expect("it answered");
    assert_eq!((part.waiting_events(), part.is_idle()), (0, true));
}

#[test]
fn a_refused_put_is_said_again_and_the_rest_is_not() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    part.ended(Ok(taken(1)), Millis(1_000), 0.0)
        .expect("it answered");
    part.done(&receipt("0"), Millis(1_001));
    push(&mut part, "a", 1_001);
    let turn = begin(&mut part, 1_001).expect("a put");
    assert_eq!(turn.done, [receipt("0")]);
    let answer = Answer {
        put_fault: Some(fault()),
        ..taken(0)
    };
    part.ended(Ok(answer), Millis(1_002), 0.0)
        .expect("it answered");
    let again = begin(&mut part, 9_000).expect("again");
    assert_eq!(
        (channels(&again), again.done.len()),
        (vec!["a".to_owned()], 0)
    );
}

#[test]
fn jobs_that_a_full_store_refuses_hold_up_nothing_that_it_has() {
    const JOBS: usize = 200;
    let mut part = part();
    push(&mut part, "a", 1_000);
    let (mut now, mut put, mut turns) = (1_000, 0, 0);
    let (mut number, mut held): (usize, Vec<Receipt>) = (0, Vec::new());
    while number < JOBS || !held.is_empty() {
        // Each is delivered at once.
        for receipt in held.drain(..) {
            part.done(&receipt, Millis(now));
        }
        let due = part.due(Millis(now)).expect("nothing is under way");
        now = now.max(due.0);
        let turn = begin(&mut part, now).expect("it is due");
        turns += 1;
        put += usize::from(turn.put.is_some());
        let count = turn.take.room.min(6).min(JOBS - number);
        held.extend((number..number + count).map(|it| receipt(&it.to_string())));
        number += count;
        let job = |receipt: &Receipt| Taken {
            receipt: receipt.clone(),
            attempts: 0,
            text: Vec::new(),
        };
        let answer = Answer {
            put_fault: turn.put.is_some().then(fault),
            taken: held.iter().map(job).collect(),
            ..Answer::default()
        };
        part.ended(Ok(answer), Millis(now), 0.0)
            .expect("it answered");
    }
    assert!(turns <= JOBS.div_ceil(6) + put + 1, "{turns} of {put}");
    assert!(put <= 2 && part.is_refused(), "a pause is a pause: {put}");
    assert_eq!(part.waiting_events(), 1);
    // What was refused is put as soon as its own pause is over.
    let turn = begin(&mut part, now + 2_000).expect("it is due");
    assert_eq!(channels(&turn), ["a"]);
    let end = Millis(now + 2_001);
    part.ended(Ok(Answer::default()), end, 0.0)
        .expect("it answered");
    assert_eq!((part.waiting_events(), part.is_refused()), (0, false));
}

#[test]
fn what_is_done_waits_for_company_unless_there_is_no_room() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    part.ended(Ok(taken(6)), Millis(1_000), 0.0)
        .expect("it answered");
    // All that one target may have came: there may be more.
    let hungry = begin(&mut part, 1_000).expect("more is asked for");
    assert_eq!((hungry.take.room, hungry.take.targets.len()), (2, 0));
    assert_eq!(hungry.take.apps, [("".into(), 6)]);
    part.ended(Ok(taken(0)), Millis(1_001), 0.0)
        .expect("it answered");
    part.done(&receipt("0"), Millis(1_002));
    assert!(begin(&mut part, 1_003).is_none());
    part.done(&receipt("1"), Millis(1_017));
    let turn = begin(&mut part, 1_017).expect("they waited");
    assert_eq!(asked(&turn), [(name(), 2)]);
}

#[test]
fn a_target_that_fails_has_one_job_and_others_keep_their_room() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    part.ended(Ok(taken(6)), Millis(1_000), 0.0)
        .expect("it answered");
    part.set_failing(name(), true);
    for number in 1..6 {
        part.back(&receipt(&number.to_string()));
    }
    let turn = begin(&mut part, 1_001).expect("jobs to give back");
    assert_eq!(turn.back.len(), 5);
    assert_eq!((turn.take.room, turn.take.targets.len()), (8, 0));
    part.ended(Ok(taken(0)), Millis(1_002), 0.0)
        .expect("it answered");
    part.again(&receipt("0"), Millis(1_500), Some("answered 500".into()));
    let turn = begin(&mut part, 1_003).expect("a job to be tried again");
    let again = Again {
        receipt: receipt("0"),
        ms: 497,
        error: Some("answered 500".into()),
    };
    assert_eq!(turn.again, [again]);
    assert_eq!((turn.take.room, asked(&turn)), (8, vec![(name(), 1)]));
    assert_eq!(turn.take.targets[0].app, None, "whatever its app has");
}

#[test]
fn a_node_that_ends_leaves_its_targets_and_takes_nothing() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    part.ended(Ok(taken(2)), Millis(1_000), 0.0)
        .expect("it answered");
    part.close(Millis(1_001));
    part.back(&receipt("0"));
    let turn = begin(&mut part, 1_001).expect("a job to give back");
    assert_eq!(
        (turn.take.room, turn.take.leave.len()),
        (0, 0),
        "one is under way"
    );
    part.ended(Ok(taken(0)), Millis(1_002), 0.0)
        .expect("it answered");
    assert!(!part.is_idle());
    part.done(&receipt("1"), Millis(1_003));
    let turn = begin(&mut part, 1_003).expect("the last word");
    assert_eq!((turn.done.len(), turn.take.leave), (1, vec![(name(), 0)]));
    part.ended(Ok(taken(0)), Millis(1_004), 0.0)
        .expect("it answered");
    assert!(part.is_idle());
}

#[test]
fn a_turn_whose_jobs_a_stop_has_taken_back_ends_as_any_other() {
    let mut part = part();
    push(&mut part, "a", 1_000);
    begin(&mut part, 1_000).expect("a put");
    part.close(Millis(1_001));
    assert_eq!(part.take_backlog(Millis(1_001)).len(), 1);
    part.ended(Ok(Answer::default()), Millis(1_002), 0.0)
        .expect("it answered");
    assert_eq!((part.waiting_events(), part.is_idle()), (0, true));
}

#[test]
fn letters_that_gather_while_a_turn_is_under_way_have_their_bound() {
    let mut part = part();
    let letter = |number: usize, receipt: Option<Receipt>| Dead {
        receipt,
        text: number.to_string().into_bytes(),
    };
    part.dead(letter(0, Some(receipt("0"))));
    part.dead(letter(1, None));
    let turn = begin(&mut part, 1_000).expect("two letters");
    assert_eq!(turn.dead.len(), 2);
    (2..3_000).for_each(|number| part.dead(letter(number, None)));
    part.dead(letter(3_000, Some(receipt("3000"))));
    assert!(part.ended(Err(fault()), Millis(6_000), 0.0).is_err());
    let turn = begin(&mut part, 9_000).expect("the letters again");
    let texts = turn.dead.iter().map(|it| String::from_utf8_lossy(&it.text));
    let texts: Vec<String> = texts.map(String::from).collect();
    assert_eq!(texts.len(), 512);
    assert_eq!((&*texts[0], &*texts[1]), ("0", "2490"), "the oldest went");
    assert_eq!(
        (&*texts[511], part.counters.store.dead_dropped),
        ("3000", 2_489)
    );
    // What was said stays while it may be heard.
    (3_001..4_000).for_each(|number| part.dead(letter(number, None)));
    part.ended(Ok(Answer::default()), Millis(9_001), 0.0)
        .expect("it answered");
    let turn = begin(&mut part, 9_001).expect("more letters");
    assert_eq!((turn.dead.len(), &*turn.dead[0].text), (512, &b"3488"[..]));
}

#[test]
fn a_store_that_began_anew_is_noticed() {
    let mut part = part();
    for (born, forgot) in [("x", 0), ("x", 0), ("y", 1), ("y", 1)] {
        part.close(Millis(0)); // Always due.
        let at = 10_000 + part.counters.taken;
        let turn = part.begin(Millis(1 << 30), at, |_| None, |_| None);
        turn.expect("a poll");
        let answer = Answer {
            born: Some(born.into()),
            ..Answer::default()
        };
        part.ended(Ok(answer), Millis(0), 0.0).expect("it answered");
        assert_eq!(part.counters.forgot, forgot, "{born}");
    }
}

#[test]
fn where_room_is_scarce_only_apps_with_few_jobs_are_asked_for_and_the_fewest_first() {
    for prompt in 0..4 {
        let mut part = part();
        begin(&mut part, 1_000).expect("the first turn");
        let others = (0..4).filter(|app| *app != prompt);
        let mut all: Vec<(TargetName, usize)> = others.map(|app| (of_app(app), 1)).collect();
        all.push((of_app(4), 3));
        all.push((of_app(prompt), 1));
        part.ended(Ok(taken_of(&all)), Millis(1_000), 0.0)
            .expect("it answered");
        let receipt = Receipt {
            target: of_app(prompt),
            text: format!("{}/0", of_app(prompt)).into(),
        };
        part.done(&receipt, Millis(1_001));
        let turn = begin(&mut part, 2_000).expect("it waited");
        let asked: Vec<TargetName> = asked(&turn).iter().map(|it| it.0).collect();
        assert_eq!((asked[0], asked.len()), (of_app(prompt), 4));
        assert!(!asked.contains(&of_app(4)), "it has more than is left");
        assert_eq!(turn.take.room, 2);
        let known: Vec<usize> = turn.take.apps.iter().map(|it| it.1).collect();
        assert_eq!(known, [0, 1, 1, 1, 3], "the store knows of all");
    }
}

#[test]
fn each_target_is_asked_for_first_in_turn() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    let all: Vec<(TargetName, usize)> = (0..4).map(|app| (of_app(app), 1)).collect();
    part.ended(Ok(taken_of(&all)), Millis(1_000), 0.0)
        .expect("it answered");
    let mut first = BTreeSet::new();
    for turn in 1..=4 {
        let turn = begin(&mut part, 1_000 + turn * 1_000).expect("a poll");
        first.insert(turn.take.targets[0].target);
        part.ended(Ok(taken(0)), turn_at(turn.number), 0.0)
            .expect("it answered");
    }
    assert_eq!(first.len(), 4);
}

#[test]
fn each_target_of_an_app_and_each_app_of_many_is_asked_for_in_turn() {
    let mut owned = Owned::default();
    let target = |app: usize, number| TargetName::of(&app.to_string(), "http://z/", number);
    let of: BTreeMap<TargetName, String> = (0..300)
        .flat_map(|app| (0..2).map(move |number| (target(app, number), app.to_string())))
        .collect();
    for name in of.keys() {
        owned.took(*name);
        owned.let_go(*name);
    }
    let app_of = |name| of.get(&name).map(String::as_str);
    let mut seen: BTreeSet<TargetName> = BTreeSet::new();
    for _ in 0..6 {
        let asked = owned.ask((9, 3, 128), app_of);
        assert_eq!((asked.targets.len(), asked.apps.len()), (128, 128));
        for it in &asked.targets {
            let (app, jobs) = &asked.apps[it.app.expect("none fails")];
            assert_eq!((Some(&**app), *jobs), (app_of(it.target), 0));
        }
        seen.extend(asked.targets.iter().map(|it| it.target));
    }
    assert_eq!(seen.len(), 600, "six times 128 are more than 600");
}

#[test]
fn jobs_of_targets_that_fail_take_no_room_from_their_app() {
    let mut owned = Owned::default();
    let targets: Vec<TargetName> = (0..9).map(|it| TargetName::of("a", "x", it)).collect();
    for target in &targets {
        owned.took(*target);
    }
    assert_eq!(owned.busy(), 9);
    for target in &targets[1..] {
        owned.set_failing(*target, true);
    }
    assert_eq!(owned.busy(), 1);
    let asked = owned.ask((7, 3, 128), |_| Some("a"));
    assert_eq!(asked.apps, [("a".into(), 1)]);
    let (target, jobs, app) = (targets[0], 2, Some(0));
    assert_eq!(asked.targets, [Wanted { target, jobs, app }]);
    owned.let_go(targets[5]);
    owned.set_failing(targets[0], true);
    let asked = owned.ask((8, 3, 128), |_| Some("a"));
    let (target, jobs, app) = (targets[5], 1, None);
    assert_eq!(asked.targets, [Wanted { target, jobs, app }]);
    assert_eq!((asked.apps.len(), owned.busy()), (0, 0));
    for target in &targets {
        owned.set_failing(*target, false);
    }
    assert_eq!(owned.busy(), 8);
    targets.iter().for_each(|target| owned.remove(*target));
    assert_eq!((owned.busy(), owned.is_empty()), (0, true));
    assert_eq!(owned.ask((8, 3, 128), |_| Some("a")), Asked::default());
}

fn turn_at(number: u64) -> Millis {
    Millis(1_000 + (number - 1) * 1_000)
}

#[test]
fn a_store_that_gives_jobs_up_for_want_of_room_overflows_for_a_while() {
    let mut part = part();
    let mut answers = |at: u64, is_full: bool| {
        let turn = part.begin(Millis(at), 0, |_| None, |_| None);
        turn.expect("it is due");
        let answer = Answer {
            is_full,
            ..Answer::default()
        };
        part.ended(Ok(answer), Millis(at), 0.0).expect("an answer");
        [0, 9_999, 10_000].map(|later| part.is_overflowing(Millis(at + later)))
    };
    assert_eq!(answers(1_000, false), [false; 3]);
    assert_eq!(answers(2_000, true), [true, true, false]);
    // The next answer takes nothing back.
    assert_eq!(answers(3_000, false), [true, false, false]);
}
