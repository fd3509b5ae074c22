//! What a person at a terminal reads.

use bench::summary::Summary;

use crate::specimen;

#[test]
fn a_clean_run_ends_with_that_word_and_shows_every_number() {
    let mut run = specimen::comparison();
    run.outcomes.truncate(1);
    let text = Summary(&run).to_string();
    for expected in [
        "fanout on ours, 20 s\n",
        "load        subscribers = 1000, publishes_per_s = 50, message_bytes = 200\n",
        "1 000 000 of 1 000 000: 0 lost, 0 duplicates, 0 out of order\n",
        "p99.99      max\n",
        "publish scheduled to event received       99 999    0.510",
        "CPU per delivered message        4.80 us\n",
        "reconnects                          0\n",
        "0.800 s user, 4 s system; switches: 12 345 waited, 67 pushed aside\n",
        "memory 24 MiB before, 31 MiB after\n",
        "250 000 system calls, 0.250 per message\n",
        "generator   42 % of a core; operations late by 0.310 ms (p99), 2.40 ms (max)\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(
        text.ends_with("clean: nothing lost, doubled or refused\n"),
        "{text}"
    );
}

#[test]
fn faults_and_void_stand_above_the_figures_and_at_the_end() {
    let text = Summary(&specimen::comparison()).to_string();
    let fault = text.find("FAULT: lost 3").expect("the fault is told");
    let figures = text.rfind("CPU per delivered").expect("figures");
    assert!(fault < figures, "{text}");
    assert!(text.ends_with("FAULTS in 1 of 2 runs\n"), "{text}");

    let text = Summary(&specimen::void()).to_string();
    assert!(
        text.contains("VOID: the load generator was the bottleneck"),
        "{text}"
    );
    assert!(text.ends_with("VOID: 1 of 1 runs; FAULTS in 1\n"), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "a target moved the cursor: {text}"
    );
}

#[test]
fn a_ramp_shows_each_step_and_the_highest_that_held() {
    let text = Summary(&specimen::ramp()).to_string();
    for expected in [
        "ramp: p99 of delivery within 20 ms\n",
        "160 000         870 MISSED\n",
        "80 000        6.40 held\n",
        "highest that held: 80 000 deliveries per second\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn no_values_are_not_a_latency_of_zero() {
    let text = Summary(&specimen::empty()).to_string();
    let row = text.lines().find(|line| line.contains("event received"));
    let row = row.expect("the latency has a row");
    assert!(
        row.ends_with("0        -        -        -        -        -        -"),
        "{row}"
    );
}
