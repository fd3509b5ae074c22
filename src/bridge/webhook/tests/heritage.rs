//! What one process gives the next, between two `Webhooks` of one node.
//!
//! Owns: the order and the number of deliveries over a change of processes.
//! May depend on: `webhook::tests`.
//! Invariants: as there.

use super::*;
use crate::handover::{
    packet::Verdict,
    record::{self, WebhookRecord},
};

/// As two processes of one node have it: the same clock, and records as bytes.
struct Pair {
    endpoint: Endpoint,
    old: Webhooks,
    new: Webhooks,
}

impl Pair {
    async fn with(answers: Vec<Answer>, settings: &Settings) -> Self {
        let endpoint = Endpoint::start(answers).await;
        let started = Instant::now();
        let of_node = || {
            let mut webhooks = Webhooks::new(Keeping::Memory, settings, started);
            webhooks.begin(&AppTable::build(&[app_for(&endpoint)], None));
            webhooks
        };
        let (old, new) = (of_node(), of_node());
        Self { endpoint, old, new }
    }

    /// The old process has so many events of one channel, the first of which is on its way.
    async fn with_waiting(answers: Vec<Answer>, events: u64) -> Self {
        let mut pair = Self::with(answers, &one_by_one()).await;
        for time_ms in 1..=events {
            pair.old.accept(event("a", time_ms));
        }
        let first = pair.endpoint.next(&mut pair.old).await;
        assert_eq!(time_of(&first), 1);
        pair
    }

    fn pass_on(&mut self) {
        self.new.expect_heritage();
        for record in self.old.give() {
            self.new.inherit(sent(&record));
        }
    }
}

fn one_by_one() -> Settings {
    Settings {
        batching_enabled: false,
        ..settings()
    }
}

fn sent(record: &WebhookRecord) -> WebhookRecord {
    let bytes = record::write(record).expect("plain fields");
    record::read(&bytes).expect("as it was written")
}

fn time_of(request: &Request) -> u64 {
    let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
    body["time_ms"].as_u64().expect("a number")
}

/// The attempt under way is answered; what is told of it.
async fn verdicts_of(endpoint: &Endpoint, old: &mut Webhooks) -> Vec<Verdict> {
    endpoint.gate.notify_one();
    let mut verdicts = Vec::new();
    let wait = async {
        while verdicts.is_empty() {
            old.progress().await;
            verdicts = old.take_verdicts();
        }
    };
    timeout(PATIENCE, wait).await.expect("the attempt ends");
    verdicts
}

#[tokio::test]
async fn what_waits_is_delivered_by_the_next_process_in_order_behind_what_is_under_way() {
    let mut pair = Pair::with_waiting(vec![Answer::Held(200), Answer::Status(200)], 3).await;
    pair.new.expect_heritage();
    pair.new.accept(event("a", 4));
    pair.new.start();
    assert_eq!(pair.new.state().in_flight, 0, "older ones are on their way");
    for record in pair.old.give() {
        pair.new.inherit(sent(&record));
    }
    assert_eq!(pair.new.has_inherited(), 3);
    let state = pair.new.state();
    assert_eq!((state.in_flight, state.waiting_events), (1, 3));
    let verdicts = verdicts_of(&pair.endpoint, &mut pair.old).await;
    let delivered = Verdict {
        number: 1,
        error: None,
    };
    assert_eq!(verdicts, [delivered]);
    assert!(pair.old.is_idle());
    verdicts.into_iter().for_each(|it| pair.new.is_told(it));
    for time_ms in 2..=4 {
        let request = pair.endpoint.next(&mut pair.new).await;
        assert_eq!(time_of(&request), time_ms);
    }
    until(&mut pair.new, Webhooks::is_idle).await;
    assert_eq!(counted(&pair.new, 0).deliveries[0], [4, 0, 0, 0]);
    assert_eq!(pair.old.abandon(), 0);
}

#[tokio::test]
async fn an_attempt_that_failed_or_of_which_nothing_is_told_is_made_again_by_the_next_process() {
    for answer in [Answer::Held(500), Answer::Never] {
        let mut pair = Pair::with_waiting(vec![answer, Answer::Status(200)], 1).await;
        pair.pass_on();
        assert_eq!(pair.new.has_inherited(), 1);
        if matches!(answer, Answer::Never) {
            assert_eq!(pair.old.abandon(), 0, "the next process has it");
            pair.new.is_orphaned();
        } else {
            let verdicts = verdicts_of(&pair.endpoint, &mut pair.old).await;
            assert!(
                verdicts[0]
                    .error
                    .as_ref()
                    .is_some_and(|it| it.contains("500"))
            );
            verdicts.into_iter().for_each(|it| pair.new.is_told(it));
        }
        let again = pair.endpoint.next(&mut pair.new).await;
        assert_eq!(time_of(&again), 1);
        until(&mut pair.new, Webhooks::is_idle).await;
        assert_eq!(counted(&pair.new, 0).deliveries[0], [1, 1, 0, 0]);
    }
}

#[tokio::test]
async fn what_the_next_process_does_not_take_is_delivered_by_the_old_one() {
    let mut pair = Pair::with_waiting(vec![Answer::Held(200), Answer::Status(200)], 3).await;
    let records = pair.old.give();
    pair.old.accept(event("a", 4));
    assert!(pair.old.has_more_to_give());
    let later = pair.old.give();
    assert_eq!((records.len(), later.len()), (3, 1));
    pair.old
        .take_back(records.into_iter().chain(later).collect());
    pair.endpoint.gate.notify_one();
    for time_ms in 2..=4 {
        let request = pair.endpoint.next(&mut pair.old).await;
        assert_eq!(time_of(&request), time_ms);
    }
    until(&mut pair.old, Webhooks::is_idle).await;
    assert_eq!(
        pair.old.take_verdicts(),
        [],
        "it is this process' own again"
    );
    assert_eq!(counted(&pair.old, 0).deliveries[0], [4, 0, 0, 0]);
}

#[tokio::test]
async fn a_failed_attempt_whose_verdict_nobody_heard_is_made_again_by_the_old_process() {
    let answers = vec![Answer::Held(500), Answer::Status(200)];
    let mut pair = Pair::with_waiting(answers, 1).await;
    let records = pair.old.give();
    verdicts_of(&pair.endpoint, &mut pair.old).await;
    pair.old.take_back(records);
    let again = pair.endpoint.next(&mut pair.old).await;
    assert_eq!(time_of(&again), 1);
    until(&mut pair.old, Webhooks::is_idle).await;
}

#[tokio::test]
async fn a_failing_target_and_what_is_to_be_tried_again_stay_what_they_are() {
    let mut settings = one_by_one();
    settings.retry.backoff_ms = 60_000;
    settings.retry.backoff_max_ms = 60_000;
    let mut pair = Pair::with(vec![Answer::Status(503)], &settings).await;
    for time_ms in 1..=5 {
        pair.old
            .accept(event(&format!("channel-{time_ms}"), time_ms));
    }
    until(&mut pair.old, |it| it.state().targets_failing == 1).await;
    until(&mut pair.old, |it| it.state().in_flight == 0).await;
    let before = pair.old.state();
    pair.pass_on();
    pair.new.has_inherited();
    let after = pair.new.state();
    assert_eq!((after.targets_failing, after.in_flight), (1, 0));
    assert_eq!(after.waiting_events, before.waiting_events);
    assert_eq!(after.waiting_bytes, before.waiting_bytes);
    assert!(after.oldest_s >= before.oldest_s);
    let old = pair.old.state();
    assert_eq!((old.waiting_events, old.targets_failing), (0, 0));
    assert!(pair.old.is_idle());
}

#[tokio::test]
async fn dead_letters_keep_their_numbers_and_a_job_that_nobody_wants_becomes_one() {
    let mut settings = one_by_one();
    settings.retry.attempts = 1;
    let mut pair = Pair::with(vec![Answer::Status(500)], &settings).await;
    for time_ms in 1..=2 {
        pair.old.accept(event("a", time_ms));
    }
    until(&mut pair.old, Webhooks::is_idle).await;
    pair.old.accept(event("a", 3));
    let letters = |webhooks: &Webhooks| {
        let letters = webhooks.report_letters().expect("they are here").letters;
        let letters = letters.into_iter();
        letters.map(|it| (it.id, it.reason)).collect::<Vec<_>>()
    };
    assert_eq!(letters(&pair.old).len(), 2);
    let known = letters(&pair.old);
    pair.new = webhooks(&[fixture::app("other")], &settings);
    pair.pass_on();
    assert_eq!(letters(&pair.old), []);
    let mut of_new = letters(&pair.new);
    assert_eq!(of_new.len(), 3);
    let gone = of_new.iter().position(|(_, reason)| reason == "gone");
    of_new.remove(gone.expect("its app is not there"));
    let reasons = |them: &[(String, String)]| {
        let them = them.iter();
        them.map(|(_, reason)| reason.clone()).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&of_new), reasons(&known));
}

/// Of a process that has no such app.
fn letters_of(webhooks: &Webhooks) -> Vec<(String, u32)> {
    let letters = webhooks.report_letters().expect("they are here").letters;
    let letters = letters.into_iter();
    letters.map(|it| (it.reason, it.attempts)).collect()
}

#[tokio::test]
async fn an_attempt_for_a_target_that_is_no_more_is_told_through_a_process_in_between() {
    let gone = [("gone".to_owned(), 1)];
    for (status, expected) in [(200, &[][..]), (500, &gone[..])] {
        let mut pair = Pair::with_waiting(vec![Answer::Held(status)], 1).await;
        let other = || webhooks(&[fixture::app("other")], &one_by_one());
        let (mut third, mut fourth) = (other(), other());
        pair.new = other();
        pair.pass_on();
        assert_eq!(letters_of(&pair.new), []);
        // It is given to one that does not take it, then to one that does.
        let records = pair.new.give();
        pair.new.take_back(records);
        assert!(pair.new.is_idle(), "it has no attempt of its own");
        let records = pair.new.give();
        assert!(!pair.new.is_idle(), "the third process waits for its word");
        records.iter().for_each(|it| third.inherit(sent(it)));
        // That nobody tells what came of it is as if it had failed.
        records.iter().for_each(|it| fourth.inherit(sent(it)));
        fourth.is_orphaned();
        assert_eq!(letters_of(&fourth), gone);
        for verdict in verdicts_of(&pair.endpoint, &mut pair.old).await {
            pair.new.is_told(verdict);
        }
        let verdicts = pair.new.take_verdicts();
        assert_eq!(verdicts.len(), 1);
        verdicts.into_iter().for_each(|it| third.is_told(it));
        assert!(pair.new.is_idle());
        assert_eq!(letters_of(&third), expected, "{status}");
        assert_eq!(letters_of(&pair.new), []);
    }
}

#[tokio::test]
async fn what_occurred_meanwhile_has_a_letter_if_its_target_goes() {
    let mut pair = Pair::with(vec![Answer::Never], &one_by_one()).await;
    pair.new.expect_heritage();
    pair.new.accept(event("a", 1));
    let mut table = AppTable::build(&[app_for(&pair.endpoint)], None);
    pair.new.change_apps(&table.replace(&[]));
    assert_eq!(pair.new.has_inherited(), 0);
    let letters = pair.new.report_letters().expect("they are here").letters;
    assert_eq!(letters.len(), 1);
    assert_eq!(counted(&pair.new, 0).dead[2], 1);
}
