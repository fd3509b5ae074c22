//! A part of a shared queue on a clock of the tests' own, with answers made by hand.
//!
//! Owns: the rules of turns: what is said, when, and how often.
//! May depend on: `bridge::queue`.
//! Invariants: no test waits, and no store is there.

use std::sync::Arc;

use shards::application::Millis;

use super::{
    QueueSettings, TargetId, TargetName,
    part::{Part, PartBounds},
    record::Record,
    store::{Answer, Receipt, StoreFault, Taken, Turn},
};
use crate::{
    bridge::message::{WebhookEvent, WebhookKind},
    config::sections::Retry,
    protocol::app::AppIndex,
};

const ONE: TargetId = TargetId(1);

fn name() -> TargetName {
    TargetName::of("a", "http://x/", 0)
}

/// The only target of an app.
fn of_app(app: u32) -> TargetName {
    TargetName::of(&app.to_string(), "http://y/", 0)
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
    let app_of = |target| (0..99).find(|app| of_app(*app) == target).map(AppIndex);
    part.begin(Millis(at), 1_000_000 + at, |_| Some(("a", name())), app_of)
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
fn what_is_done_waits_for_company_unless_there_is_no_room() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    part.ended(Ok(taken(6)), Millis(1_000), 0.0)
        .expect("it answered");
    // All that one target may have came: there may be more.
    let hungry = begin(&mut part, 1_000).expect("more is asked for");
    assert_eq!((hungry.take.room, hungry.take.targets.len()), (2, 0));
    part.ended(Ok(taken(0)), Millis(1_001), 0.0)
        .expect("it answered");
    part.done(&receipt("0"), Millis(1_002));
    assert!(begin(&mut part, 1_003).is_none());
    let turn = begin(&mut part, 1_017).expect("they waited");
    assert_eq!(turn.take.targets, [(name(), 1)]);
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
    part.again(&receipt("0"), Millis(1_500));
    let turn = begin(&mut part, 1_003).expect("a job to be tried again");
    assert_eq!(turn.again, [(receipt("0"), 497)]);
    assert_eq!((turn.take.room, turn.take.targets), (9, vec![(name(), 1)]));
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
        let asked: Vec<TargetName> = turn.take.targets.iter().map(|it| it.0).collect();
        assert_eq!((asked[0], asked.len()), (of_app(prompt), 4));
        assert!(!asked.contains(&of_app(4)), "it has more than is left");
        assert_eq!((turn.take.room, turn.take.reserve), (2, 2));
    }
}

#[test]
fn each_target_is_asked_for_first_in_turn() {
    let mut part = part();
    begin(&mut part, 1_000).expect("the first turn");
    let all: Vec<(TargetName, usize)> = (0..4).map(|app| (of_app(app), 1)).collect();
    part.ended(Ok(taken_of(&all)), Millis(1_000), 0.0)
        .expect("it answered");
    let mut first = std::collections::BTreeSet::new();
    for turn in 1..=4 {
        let turn = begin(&mut part, 1_000 + turn * 1_000).expect("a poll");
        first.insert(turn.take.targets[0].0);
        part.ended(Ok(taken(0)), turn_at(turn.number), 0.0)
            .expect("it answered");
    }
    assert_eq!(first.len(), 4);
}

fn turn_at(number: u64) -> Millis {
    Millis(1_000 + (number - 1) * 1_000)
}
