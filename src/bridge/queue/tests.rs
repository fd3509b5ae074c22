//! The memory queue on a clock of the tests' own.
//!
//! Owns: the rules of batches, order, places, retries and bounds.
//! May depend on: `bridge::queue`.
//! Invariants: no test waits.

use std::sync::Arc;

use shards::application::Millis;

use super::{
    Job, QueueSettings, TargetId,
    memory::{Left, MemoryQueue, TargetChange},
};
use crate::protocol::app::AppIndex;
use crate::{
    bridge::webhook_event::{WebhookEvent, WebhookKind},
    config::sections::Retry,
    metrics::bridge::DeadReason,
};

const APP: AppIndex = AppIndex(0);
const ONE: TargetId = TargetId(1);
const TWO: TargetId = TargetId(2);

fn settings() -> QueueSettings {
    QueueSettings {
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
    }
}

fn event(channel: &str) -> Arc<WebhookEvent> {
    let kind = WebhookKind::ChannelOccupied;
    Arc::new(WebhookEvent {
        app: APP,
        time_ms: 7,
        channel: channel.into(),
        kind,
    })
}

fn event_of(app: AppIndex, channel: &str) -> Arc<WebhookEvent> {
    let event = event(channel);
    Arc::new(WebhookEvent {
        app,
        ..WebhookEvent::clone(&event)
    })
}

fn channels(job: &Job) -> Vec<&str> {
    job.events.iter().map(|event| &*event.channel).collect()
}

#[test]
fn a_batch_collects_for_its_window_and_keeps_the_order() {
    let mut queue = MemoryQueue::new(QueueSettings {
        batch_ms: Some(50),
        ..settings()
    });
    for (at, channel) in [(0, "a"), (10, "b"), (49, "a")] {
        queue.push(ONE, APP, event(channel), Millis(at));
    }
    assert!(queue.start(Millis(49)).is_none());
    assert_eq!(queue.next_due(), Some(Millis(50)));
    let (target, job) = queue.start(Millis(50)).expect("the window is over");
    assert_eq!((target, channels(&job)), (ONE, vec!["a", "b", "a"]));
    assert_eq!(queue.next_due(), None);
    assert_eq!(queue.delivered(ONE, &job, Millis(0)), TargetChange::None);
    assert!(queue.is_idle());
}

#[test]
fn a_full_batch_does_not_wait_for_its_window() {
    let mut queue = MemoryQueue::new(QueueSettings {
        batch_ms: Some(50),
        batch_events_max: 2,
        ..settings()
    });
    for channel in ["a", "b", "c"] {
        queue.push(ONE, APP, event(channel), Millis(0));
    }
    let (_, job) = queue.start(Millis(0)).expect("a full batch");
    assert_eq!(channels(&job), ["a", "b"]);
    assert!(queue.start(Millis(0)).is_none(), "the second batch is open");
}

#[test]
fn without_batching_each_event_is_a_job() {
    let mut queue = MemoryQueue::new(settings());
    queue.push(ONE, APP, event("a"), Millis(0));
    queue.push(ONE, APP, event("b"), Millis(0));
    let first = queue.start(Millis(0)).expect("first").1;
    let second = queue.start(Millis(0)).expect("second").1;
    assert_eq!(
        (channels(&first), channels(&second)),
        (vec!["a"], vec!["b"])
    );
}

#[test]
fn a_job_does_not_overtake_an_earlier_one_of_its_channel() {
    let mut queue = MemoryQueue::new(settings());
    for channel in ["a", "a", "b"] {
        queue.push(ONE, APP, event(channel), Millis(0));
    }
    let first = queue.start(Millis(0)).expect("first a").1;
    let other = queue.start(Millis(0)).expect("b overtakes the blocked a").1;
    assert_eq!((channels(&first), channels(&other)), (vec!["a"], vec!["b"]));
    assert!(
        queue.start(Millis(0)).is_none(),
        "the second a waits for the first"
    );
    queue.failed(ONE, first, Millis(1), 0.0);
    let second = queue
        .start(Millis(1))
        .expect("only first attempts are in order")
        .1;
    assert_eq!((channels(&second), second.attempts), (vec!["a"], 0));
}

#[test]
fn a_target_has_several_places_only_while_half_of_the_node_is_free() {
    let mut queue = MemoryQueue::new(settings());
    for channel in ["a", "b", "c", "d"] {
        queue.push(ONE, APP, event(channel), Millis(0));
    }
    let started: Vec<TargetId> = std::iter::from_fn(|| queue.start(Millis(0)))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(
        started,
        [ONE, ONE],
        "two of four places are taken: one target has enough"
    );
    queue.push(TWO, APP, event("x"), Millis(0));
    let (target, _) = queue
        .start(Millis(0))
        .expect("a place for the other target");
    assert_eq!(target, TWO);
}

#[test]
fn targets_take_turns() {
    let mut queue = MemoryQueue::new(QueueSettings {
        in_flight_max: 1,
        ..settings()
    });
    for channel in ["a", "b"] {
        queue.push(ONE, APP, event(channel), Millis(0));
        queue.push(TWO, APP, event(channel), Millis(0));
    }
    let mut order = Vec::new();
    while let Some((target, job)) = queue.start(Millis(0)) {
        order.push(target);
        queue.delivered(target, &job, Millis(0));
    }
    assert_eq!(order, [ONE, TWO, ONE, TWO]);
}

#[test]
fn a_failed_job_comes_back_with_doubling_pauses_and_dies_of_age() {
    let mut queue = MemoryQueue::new(settings());
    queue.push(ONE, APP, event("a"), Millis(0));
    let mut now = Millis(0);
    let mut pauses = Vec::new();
    while let Some((_, job)) = queue.start(now) {
        assert_eq!(job.time_ms(), 7, "the time stays the first one's");
        queue.failed(ONE, job, now, 1.0);
        let Some(due) = queue.next_due() else { break };
        assert!(queue.start(Millis(due.0 - 1)).is_none());
        pauses.push(due.since(now));
        now = due;
    }
    assert_eq!(pauses[..5], [1_000, 2_000, 4_000, 8_000, 8_000]);
    assert!(now.0 <= 300_000, "no attempt later than five minutes");
    assert!(now.0 > 290_000, "attempts up to about five minutes");
    assert_eq!(queue.counters.app(APP).dead, [0, 1, 0, 0, 0]);
    assert!(queue.is_idle());
}

#[test]
fn jitter_takes_up_to_half_of_the_pause() {
    let mut queue = MemoryQueue::new(settings());
    queue.push(ONE, APP, event("a"), Millis(0));
    let job = queue.start(Millis(0)).expect("due").1;
    queue.failed(ONE, job, Millis(0), 0.0);
    assert_eq!(queue.next_due(), Some(Millis(500)));
}

#[test]
fn a_bounded_number_of_attempts_ends_before_the_age() {
    let retry = Retry {
        attempts: 2,
        ..settings().retry
    };
    let mut queue = MemoryQueue::new(QueueSettings {
        retry,
        ..settings()
    });
    queue.push(ONE, APP, event("a"), Millis(0));
    let job = queue.start(Millis(0)).expect("first attempt").1;
    queue.failed(ONE, job, Millis(0), 0.5);
    let job = queue.start(Millis(1_000)).expect("second attempt").1;
    queue.failed(ONE, job, Millis(1_000), 0.5);
    let counters = queue.counters.app(APP);
    assert_eq!((counters.retries, counters.dead), (1, [1, 0, 0, 0, 0]));
    assert_eq!(counters.deliveries[0], [0, 1, 1, 0]);
}

#[test]
fn a_failing_target_gets_one_place_until_it_answers() {
    let mut queue = MemoryQueue::new(QueueSettings {
        in_flight_max: 20,
        ..settings()
    });
    for channel in ["a", "b", "c", "d", "e"] {
        queue.push(ONE, APP, event(channel), Millis(0));
    }
    let jobs: Vec<Job> = std::iter::from_fn(|| queue.start(Millis(0)))
        .map(|(_, j)| j)
        .collect();
    assert_eq!(jobs.len(), 3);
    let changes: Vec<TargetChange> = jobs
        .into_iter()
        .map(|job| queue.failed(ONE, job, Millis(0), 1.0))
        .collect();
    assert_eq!(
        changes,
        [TargetChange::None, TargetChange::None, TargetChange::Fails]
    );
    assert!(queue.start(Millis(0)).is_none(), "it is left alone");
    assert_eq!(queue.next_due(), Some(Millis(1_000)));
    let (_, job) = queue.start(Millis(1_000)).expect("one place");
    assert!(queue.start(Millis(1_000)).is_none(), "no second one");
    let change = queue.delivered(ONE, &job, Millis(1_000));
    assert_eq!(change, TargetChange::Recovered);
    assert!(queue.start(Millis(1_000)).is_some());
}

#[test]
fn an_overflow_drops_the_oldest_job_of_all_targets_of_an_app_and_is_counted() {
    let mut queue = MemoryQueue::new(QueueSettings {
        bytes_max: event("oldest").approximate_bytes() * 2,
        ..settings()
    });
    queue.push(TWO, APP, event("oldest"), Millis(0));
    queue.push(ONE, APP, event("b"), Millis(1));
    assert!(!queue.is_failing(Millis(1)));
    queue.push(ONE, APP, event("c"), Millis(2));
    assert_eq!(queue.waiting_events(), 2);
    assert_eq!(queue.counters.app(APP).dead, [0, 0, 0, 1, 0]);
    assert!(queue.is_failing(Millis(2)));
    assert!(!queue.is_failing(Millis(20_000)));
    let started: Vec<TargetId> = std::iter::from_fn(|| queue.start(Millis(2)))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(started, [ONE, ONE]);
}

#[test]
fn the_bytes_of_waiting_events_are_bounded_too() {
    let one_event = event("channel").approximate_bytes();
    let mut queue = MemoryQueue::new(QueueSettings {
        bytes_max: one_event * 2,
        ..settings()
    });
    for at in 0..3 {
        queue.push(ONE, APP, event("channel"), Millis(at));
    }
    assert_eq!(queue.waiting_events(), 2);
}

#[test]
fn the_backlog_of_one_app_costs_no_other_app_an_event() {
    let noisy = AppIndex(1);
    let one_event = event("channel").approximate_bytes();
    let mut queue = MemoryQueue::new(QueueSettings {
        bytes_max: one_event * 10,
        ..settings()
    });
    // The quiet app's event is the oldest of all.
    queue.push(TWO, APP, event("channel"), Millis(0));
    for at in 1..=100 {
        queue.push(ONE, noisy, event_of(noisy, "channel"), Millis(at));
    }
    let lost: Vec<u64> = [APP, noisy]
        .into_iter()
        .map(|app| queue.counters.app(app).dead[3])
        .collect();
    assert_eq!(lost, [0, 91]);
    let mut oldest = Vec::new();
    while let Some((target, job)) = queue.start(Millis(100)) {
        oldest.push((target, job.created));
        queue.delivered(target, &job, Millis(0));
    }
    assert!(oldest.contains(&(TWO, Millis(0))));
    assert!(
        oldest.contains(&(ONE, Millis(92))),
        "the oldest ones went first"
    );
    assert!(!oldest.contains(&(ONE, Millis(91))));
}

#[test]
fn a_job_that_dies_has_the_error_of_its_own_last_attempt() {
    let other = AppIndex(1);
    let one_event = event("channel").approximate_bytes();
    let mut queue = MemoryQueue::new(QueueSettings {
        bytes_max: one_event * 2,
        ..settings()
    });
    let tried = |queue: &mut MemoryQueue, at| {
        let (target, mut job) = queue.start(at).expect("it is due");
        assert_eq!(target, ONE);
        job.met("answered 500");
        queue.failed(target, job, at, 0.5);
    };
    queue.push(ONE, APP, event("channel"), Millis(0));
    for _ in 0..2 {
        queue.push(TWO, other, event_of(other, "channel"), Millis(1));
    }
    // There is no room for it any more where it waits again.
    tried(&mut queue, Millis(2));
    let dead = |queue: &mut MemoryQueue| {
        let left = queue.take_left().into_iter();
        let dead = left.map(|left| match left {
            Left::Dead(target, job, reason) => (target, reason, job.error),
            Left::Again(..) => panic!("no store is there"),
        });
        dead.collect::<Vec<_>>()
    };
    assert_eq!(dead(&mut queue), [(TWO, DeadReason::Overflow, None)]);
    assert!(queue.start(Millis(400_000)).is_none());
    let error = Some("answered 500".into());
    let mut all = dead(&mut queue);
    all.sort_by_key(|it| it.0);
    assert_eq!(
        all,
        [(ONE, DeadReason::Age, error), (TWO, DeadReason::Age, None)]
    );
}

#[test]
fn a_dead_target_is_tried_now_and_then_however_many_events_come() {
    let mut queue = MemoryQueue::new(QueueSettings {
        bytes_max: 100_000_000,
        ..settings()
    });
    let mut attempts = 0;
    for at in 0..60_000 {
        queue.push(ONE, APP, event(&format!("channel-{at}")), Millis(at));
        while let Some((target, job)) = queue.start(Millis(at)) {
            attempts += 1;
            queue.failed(target, job, Millis(at), 0.5);
        }
    }
    assert_eq!(queue.waiting_events(), 60_000);
    assert!(
        attempts <= 40,
        "{attempts} attempts in a minute, for 60 000 events"
    );
    assert!(
        queue.looks() <= 100,
        "{} looks at the lane, for 60 000 events",
        queue.looks()
    );
}

#[test]
fn targets_that_hang_leave_half_of_the_places_to_others() {
    let mut queue = with_places(6);
    let hanging: Vec<TargetId> = (10..14).map(TargetId).collect();
    for target in &hanging {
        for channel in ["a", "b", "c", "d"] {
            queue.push(*target, APP, event(channel), Millis(0));
        }
    }
    let mut now = Millis(0);
    let mut failures = 0;
    while failures < 100 {
        while let Some((target, job)) = queue.start(now) {
            failures += 1;
            queue.failed(target, job, now, 1.0);
        }
        now = queue.next_due().expect("attempts to come");
    }
    now = now.plus(5_000);
    let mut under_way: Vec<(TargetId, Job)> = std::iter::from_fn(|| queue.start(now)).collect();
    assert_eq!(under_way.len(), 2, "an app leaves one of three");
    queue.push(TWO, APP, event("a"), now);
    assert_eq!(queue.start(now).expect("a place for another").0, TWO);
    let (target, job) = under_way.remove(0);
    queue.failed(target, job, now, 1.0);
    let next = queue.start(now).expect("the turn of the next one").0;
    assert!(next != target && next != under_way[0].0 && hanging.contains(&next));
    assert!(queue.start(now).is_none());
}

#[test]
fn jobs_of_a_removed_target_are_given_up() {
    let mut queue = MemoryQueue::new(QueueSettings {
        batch_ms: Some(50),
        ..settings()
    });
    queue.push(ONE, APP, event("a"), Millis(0));
    let running = queue.start(Millis(50)).expect("due").1;
    queue.push(ONE, APP, event("b"), Millis(60));
    queue.push(TWO, APP, event("c"), Millis(60));
    queue.retain(|id| id == TWO);
    assert_eq!(queue.waiting_events(), 1);
    queue.gone(ONE, &running);
    assert_eq!(queue.counters.app(APP).dead, [0, 0, 2, 0, 0]);
    assert_eq!(queue.start(Millis(200)).expect("the other target's").0, TWO);
}

#[test]
fn a_stop_makes_everything_due_and_counts_what_is_left() {
    let mut queue = MemoryQueue::new(QueueSettings {
        batch_ms: Some(50),
        ..settings()
    });
    queue.push(ONE, APP, event("a"), Millis(0));
    let job = queue.start(Millis(50)).expect("due").1;
    queue.failed(ONE, job, Millis(50), 1.0);
    queue.push(ONE, APP, event("b"), Millis(60));
    assert!(queue.start(Millis(60)).is_none());
    queue.hurry(Millis(60));
    assert!(queue.start(Millis(60)).is_some());
    assert_eq!(queue.abandon(), 2, "one in flight, one waiting");
    assert_eq!(queue.waiting_events(), 0);
    assert_eq!(queue.counters.app(APP).dead[4], 1);
}

#[test]
fn the_age_of_the_oldest_event_is_known() {
    let mut queue = MemoryQueue::new(QueueSettings {
        batch_ms: Some(50),
        ..settings()
    });
    assert_eq!(queue.oldest_ms(Millis(9)), 0);
    queue.push(ONE, APP, event("a"), Millis(10));
    queue.push(TWO, APP, event("a"), Millis(20));
    assert_eq!(queue.oldest_ms(Millis(30)), 20);
}

/// Queues `jobs` of channels of their own for each of `targets`.
fn fill(
    queue: &mut MemoryQueue,
    app: AppIndex,
    targets: std::ops::Range<u32>,
    jobs: usize,
    now: Millis,
) {
    for target in targets {
        for job in 0..jobs {
            queue.push(
                TargetId(target),
                app,
                event_of(app, &format!("channel-{job}")),
                now,
            );
        }
    }
}

/// Begins all that may begin.
fn begin(queue: &mut MemoryQueue, now: Millis) -> Vec<(TargetId, Job)> {
    std::iter::from_fn(|| queue.start(now)).collect()
}

fn of_app(under_way: &[(TargetId, Job)], app: AppIndex) -> usize {
    under_way.iter().filter(|(_, job)| job.app == app).count()
}

fn with_places(in_flight_max: usize) -> MemoryQueue {
    MemoryQueue::new(QueueSettings {
        in_flight_max,
        ..settings()
    })
}

#[test]
fn an_app_leaves_a_third_of_the_places_and_at_least_one_to_those_that_come_and_they_do_so_too() {
    for (places, expected) in [
        (1, [1, 0, 0, 0]),
        (2, [1, 1, 0, 0]),
        (3, [2, 1, 0, 0]),
        (4, [3, 1, 0, 0]),
        (5, [4, 1, 0, 0]),
        (6, [4, 1, 1, 0]),
        (20, [14, 4, 1, 1]),
        (64, [43, 14, 5, 1]),
    ] {
        let mut queue = with_places(places);
        let mut under_way = Vec::new();
        let mut held = Vec::new();
        for app in 0..4 {
            let first = app * 100;
            fill(&mut queue, AppIndex(app), first..first + 100, 9, Millis(0));
            under_way.extend(begin(&mut queue, Millis(0)));
            held.push(of_app(&under_way, AppIndex(app)));
        }
        assert_eq!(held, expected, "{places} places");
    }
}

#[test]
fn of_few_places_the_last_free_one_is_for_an_app_that_has_none() {
    let (slow, another, prompt) = (AppIndex(1), AppIndex(2), AppIndex(3));
    let mut queue = with_places(5);
    fill(&mut queue, slow, 100..200, 9, Millis(0));
    let mut under_way = begin(&mut queue, Millis(0));
    fill(&mut queue, another, 200..300, 9, Millis(0));
    under_way.extend(begin(&mut queue, Millis(0)));
    let held = [slow, another].map(|app| of_app(&under_way, app));
    assert_eq!(held, [4, 1]);
    // One of the four answers: the place stays free for whoever comes.
    let (target, job) = under_way.remove(0);
    queue.delivered(target, &job, Millis(1));
    assert!(begin(&mut queue, Millis(1)).is_empty());
    fill(&mut queue, prompt, 1..2, 200, Millis(1));
    for _ in 0..200 {
        let mut begun = begin(&mut queue, Millis(1));
        assert_eq!((begun.len(), of_app(&begun, prompt)), (1, 1));
        let (target, job) = begun.remove(0);
        queue.delivered(target, &job, Millis(1));
    }
    assert!(begin(&mut queue, Millis(1)).is_empty());
}

#[test]
fn a_place_that_becomes_free_goes_to_the_app_with_the_fewest() {
    let mut queue = with_places(20);
    let mut under_way = Vec::new();
    for app in 0..4 {
        let first = app * 100;
        fill(&mut queue, AppIndex(app), first..first + 100, 9, Millis(0));
        under_way.extend(begin(&mut queue, Millis(0)));
    }
    // All are as slow as the others: the one that has most gives places up until they have the same.
    for _ in 0..100 {
        let apps = (0..4).map(AppIndex);
        let most = apps.max_by_key(|app| of_app(&under_way, *app));
        let at = under_way
            .iter()
            .position(|(_, job)| Some(job.app) == most)
            .expect("one is under way");
        let (target, job) = under_way.remove(at);
        queue.delivered(target, &job, Millis(1));
        under_way.extend(begin(&mut queue, Millis(1)));
    }
    let held: Vec<usize> = (0..4)
        .map(|app| of_app(&under_way, AppIndex(app)))
        .collect();
    assert!(
        held.iter().all(|it| (4..=5).contains(it)),
        "20 places over four apps: {held:?}"
    );
}

#[test]
fn a_prompt_app_is_served_between_two_answers_of_a_slow_app_with_many_targets() {
    let (slow, prompt) = (AppIndex(1), AppIndex(2));
    let mut queue = with_places(20);
    fill(&mut queue, slow, 100..200, 9, Millis(0));
    let first_round = begin(&mut queue, Millis(0)).len();
    fill(&mut queue, prompt, 1..2, 200, Millis(0));
    let mut delivered = 0;
    let mut under_way = begin(&mut queue, Millis(0));
    while let Some((target, job)) = under_way.pop() {
        assert_eq!(job.app, prompt, "the slow app has its part: {first_round}");
        queue.delivered(target, &job, Millis(0));
        delivered += 1;
        under_way.extend(begin(&mut queue, Millis(0)));
    }
    assert_eq!(delivered, 200);
}

#[test]
fn apps_take_turns_however_many_targets_each_has() {
    let mut queue = with_places(1);
    fill(&mut queue, AppIndex(1), 100..150, 1, Millis(0));
    fill(&mut queue, AppIndex(2), 1..2, 3, Millis(0));
    let mut order = Vec::new();
    while let Some((target, job)) = queue.start(Millis(0)) {
        order.push(job.app.0);
        queue.delivered(target, &job, Millis(0));
    }
    assert_eq!(order[..7], [1, 2, 1, 2, 1, 2, 1]);
    assert_eq!(order.len(), 53);
}

#[test]
fn dead_targets_of_an_app_leave_places_for_those_of_another() {
    let (many, one) = (AppIndex(1), AppIndex(2));
    let mut queue = with_places(20);
    fill(&mut queue, many, 100..140, 9, Millis(0));
    fill(&mut queue, one, 1..2, 9, Millis(0));
    let mut now = Millis(0);
    while queue.targets_failing() < 41 {
        for (target, job) in begin(&mut queue, now) {
            queue.failed(target, job, now, 1.0);
        }
        now = queue.next_due().expect("attempts to come").max(now);
    }
    now = now.plus(5_000);
    let under_way = begin(&mut queue, now);
    let held = [many, one].map(|app| of_app(&under_way, app));
    assert_eq!(held, [6, 1], "of the ten places for those that fail");
}

#[test]
fn what_waits_costs_an_attempt_that_ends_nothing() {
    let mut queue = MemoryQueue::new(QueueSettings {
        bytes_max: 1_000_000_000,
        in_flight_max: 20,
        ..settings()
    });
    for app in 0..500 {
        let first = app * 10;
        fill(&mut queue, AppIndex(app), first..first + 10, 3, Millis(0));
    }
    let mut under_way = begin(&mut queue, Millis(0));
    let before = queue.looks();
    for _ in 0..1_000 {
        let (target, job) = under_way.remove(0);
        queue.delivered(target, &job, Millis(1));
        under_way.extend(begin(&mut queue, Millis(1)));
    }
    let looks = queue.looks() - before;
    assert!(
        looks <= 2_000,
        "{looks} looks at lanes for 1 000 attempts, with 5 000 lanes that wait"
    );
}
