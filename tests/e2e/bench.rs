//! The load generator, `sockudo bench`, against the server that it ships with.
//!
//! A busy machine can make the generator late, in which case it must say so and nothing else is wrong: a
//! void run passes unless the test is about time.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::support::config::{Config, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::{Server, next_port, own_address};
use crate::support::skip::skip;

/// Client events without limit.
fn server() -> Server {
    let config = Config::new().with_app(json!({"max_client_events_per_second": 0}));
    Server::start(&config, 1)
}

/// Starts `sockudo bench` with flags, words between blanks.
fn bench(target: &str, key: &str, secret: &str, flags: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sockudo"))
        .arg("bench")
        .args(flags.split(' '))
        .args(["--target", target, "--key", key, "--json"])
        .env("SOCKUDO_BENCH_SECRET", secret)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

fn runs(server: &Server, flags: &str) -> Output {
    let flags = format!("{flags} --pid {}", server.pid());
    let bench = bench(&server.address.to_string(), KEY, SECRET, &flags);
    bench.wait_with_output().expect("its output can be read")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", words(output));
    })
}

fn latency(outcome: &Value, key: &str, percentile: &str) -> f64 {
    let latencies = outcome["latencies"].as_array().expect("a list");
    let named = latencies.iter().find(|latency| latency["key"] == key);
    let value = named.and_then(|latency| latency[percentile].as_f64());
    value.unwrap_or_else(|| panic!("no {percentile} of {key} in {latencies:?}"))
}

/// Runs a scenario and checks that it is clean (or void), with these figures and latencies.
#[track_caller]
fn is_clean(flags: &str, figures: &[&str], latencies: &[&str]) -> Value {
    is_clean_on(&server(), flags, figures, latencies)
}

#[track_caller]
fn is_clean_on(server: &Server, flags: &str, figures: &[&str], latencies: &[&str]) -> Value {
    let output = runs(server, flags);
    let json = json_of(&output);
    for outcome in json["outcomes"].as_array().expect("a list") {
        assert_eq!(outcome["faults"], json!([]), "{flags}");
        let lost = &outcome["deliveries"]["lost"];
        assert!(lost.is_null() || lost == 0, "{flags}: {lost} lost");
        for key in figures {
            let all = outcome["figures"].as_array().expect("a list");
            let figure = all.iter().find(|figure| figure["key"] == *key);
            let value = figure.and_then(|figure| figure["value"].as_f64());
            assert!(value.is_some(), "{flags}: no {key} in {all:?}");
        }
        for key in latencies {
            assert!(
                latency(outcome, key, "max_ms") > 0.0,
                "{flags}: {key} is empty"
            );
        }
    }
    let void = &json["outcomes"]
        .as_array()
        .and_then(|all| all.last())
        .expect("one")["void"];
    let expected = if void.is_null() { 0 } else { 2 };
    assert_eq!(output.status.code(), Some(expected), "{flags}: {void}");
    json
}

#[test]
fn fanout_delivers_all_and_knows_its_price() {
    let json = is_clean(
        "fanout --seconds 1 --subscribers 20 --rate 50",
        &["cpu_per_delivered_us", "deliveries_per_s", "reconnects"],
        &["delivery", "answer"],
    );
    assert_eq!(json["outcomes"][0]["scenario"], "fanout");
    assert_eq!(json["outcomes"][0]["deliveries"]["expected"], 1_000);
}

#[test]
fn batches_are_numbered_through() {
    let json = is_clean(
        "fanout --seconds 1 --subscribers 5 --rate 20 --batch 10",
        &["cpu_per_delivered_us"],
        &["delivery"],
    );
    assert_eq!(json["outcomes"][0]["deliveries"]["received"], 1_000);
}

#[test]
fn chatter_reaches_every_other_member() {
    let json = is_clean(
        "chatter --seconds 1 --channels 5 --members 3 --rate 100",
        &["cpu_per_client_event_us"],
        &["client_event"],
    );
    assert_eq!(json["outcomes"][0]["deliveries"]["expected"], 200);
}

#[test]
fn members_hear_of_each_join_and_leave() {
    let json = is_clean(
        "presence --seconds 1 --channels 4 --members 5 --rate 100",
        &["cpu_per_roster_change_us"],
        &["member_added", "member_removed"],
    );
    // 50 joins, and as many leaves but for the 4 who are still there.
    assert_eq!(json["outcomes"][0]["deliveries"]["expected"], (50 + 46) * 5);
}

#[test]
fn publishes_are_answered_one_by_one_and_in_batches() {
    for flags in [
        "publish --seconds 1 --rate 100",
        "publish --seconds 1 --rate 50 --batch 10",
    ] {
        is_clean(flags, &["cpu_per_request_us", "reconnects"], &["answer"]);
    }
}

#[test]
fn newcomers_are_timed_at_each_step() {
    is_clean(
        "connect --seconds 1 --rate 50",
        &["cpu_per_connection_us"],
        &["connected", "established", "subscribed"],
    );
}

#[test]
fn idle_connections_have_a_price_in_memory() {
    for flags in [
        "idle --seconds 1 --connections 200",
        "idle --seconds 1 --connections 200 --channel-each",
    ] {
        let memory = [
            "resident_per_connection_bytes",
            "kernel_slab_per_connection_bytes",
            "idle_cpu_percent",
        ];
        is_clean(flags, &memory, &[]);
    }
}

#[test]
fn after_a_storm_all_are_back() {
    is_clean(
        "storm --seconds 2 --connections 200",
        &["storms", "rejoined_all_s", "turned_away"],
        &["rejoined", "canary", "up"],
    );
}

#[test]
fn who_stays_while_all_reconnect_is_timed_alone_and_beside_them() {
    is_clean(
        "reconnect --seconds 1 --connections 200",
        &["storms", "rejoined_all_s", "cpu_per_connection_us"],
        &["rejoined", "ping", "ping_alone"],
    );
}

#[test]
fn a_load_over_tls_trusts_the_named_certificate_and_no_other() {
    let Some(files) = Certificates::make(own_address().into()) else {
        return skip(
            "a_load_over_tls_trusts_the_named_certificate_and_no_other",
            "openssl is not installed: run scripts/test",
        );
    };
    let ssl = json!({
        "enabled": true, "cert_path": files.certificate("server"), "key_path": files.key("server"),
    });
    let config = Config::new().with(json!({"ssl": ssl}));
    let server = Server::start(&config, 1);
    let trusting = |flags: &str, ca| format!("{flags} --seconds 1 --ca {}", files.certificate(ca));
    // More than one record of TLS, and more than one read.
    let flags = "fanout --subscribers 20 --rate 20 --message-bytes 60000 --batch 2";
    let json = is_clean_on(&server, &trusting(flags, "ca"), &[], &["delivery"]);
    assert_eq!(json["outcomes"][0]["deliveries"]["received"], 800);
    for (flags, figure, latency) in [
        ("connect --rate 50", "resumed_percent", "subscribed"),
        ("reconnect --connections 100", "storms", "ping"),
    ] {
        is_clean_on(&server, &trusting(flags, "ca"), &[figure], &[latency]);
    }
    let idle = trusting("idle --connections 100", "ca");
    is_clean_on(&server, &idle, &["resident_per_connection_bytes"], &[]);
    for (flags, expected) in [
        (
            trusting("connect", "other-ca"),
            "invalid peer certificate: unknownissuer",
        ),
        (trusting("hostile", "ca"), "hostile speaks no TLS"),
        ("connect --ca /dev/null".to_owned(), "no certificate in PEM"),
    ] {
        let output = runs(&server, &flags);
        assert_eq!(output.status.code(), Some(1), "{flags}");
        let words = words(&output);
        assert!(words.contains(expected), "{flags}: {words}");
    }
}

#[test]
fn a_mixed_day_is_clean() {
    is_clean(
        "mixed --seconds 1 --connections 40 --rooms 4 --client-event-rate 100",
        &["cpu_per_delivered_us"],
        &["delivery", "client_event", "subscribed"],
    );
}

#[test]
fn the_neighbours_of_a_large_channel_are_timed() {
    is_clean(
        "neighbour --seconds 1 --subscribers 50 --neighbours 3",
        &["cpu_per_delivered_us"],
        &["neighbour", "delivery"],
    );
}

#[test]
fn slow_readers_cost_the_others_no_message() {
    is_clean(
        "slow --seconds 2 --subscribers 10 --message-bytes 1000",
        &["slow_readers", "slow_closed", "delivery_p99_before_ms"],
        &["delivery", "delivery_before"],
    );
}

#[test]
fn processes_that_take_over_lose_nothing_and_the_longest_wait_is_told() {
    let mut server = server();
    let socket = server.folder().join("admin.sock");
    let flags = format!(
        "upgrade --seconds 2 --connections 50 --rate 100 --admin-socket {}",
        socket.display()
    );
    let json = is_clean_on(
        &server,
        &flags,
        &["upgrade_silence_ms"],
        &["delivery", "delivery_before"],
    );
    assert_eq!(json["outcomes"][0]["deliveries"]["received"], 1_000);
    let figures = json["outcomes"][0]["figures"].as_array().expect("a list");
    let upgrades = figures.iter().find(|figure| figure["key"] == "upgrades");
    let upgrades = upgrades.expect("a figure")["value"].as_f64();
    let next = server.is_upgraded()["number"].as_f64();
    assert_eq!(upgrades.map(|count| count + 1.0), next);
    let failed = bench(
        &server.address.to_string(),
        KEY,
        SECRET,
        "upgrade --seconds 2 --admin-socket /nowhere/admin.sock",
    );
    let failed = failed.wait_with_output().expect("its output can be read");
    assert_eq!(failed.status.code(), Some(1));
    let (said, error) = (words(&failed), json_of(&failed)["error"].to_string());
    for told in [said, error] {
        assert!(
            told.contains("--admin-socket /nowhere/admin.sock"),
            "{told}"
        );
    }
}

#[test]
fn a_ramp_names_the_highest_load_that_held() {
    let json = is_clean(
        "ramp --seconds 1 --of publish --from 50 --to 100 --objective-ms 5000",
        &["cpu_per_request_us"],
        &["answer"],
    );
    let steps = json["ramp"]["steps"].as_array().expect("a list");
    let held: Vec<_> = steps
        .iter()
        .filter(|step| step["has_held"] == true)
        .collect();
    let highest = held.last().map_or(Value::Null, |step| step["load"].clone());
    assert_eq!(json["ramp"]["highest_held"], highest);
}

/// Waits until the load has begun to flow.
fn is_under_load(server: &Server) {
    eventually("the load", || {
        let sent = server.metric("sockudo_ws_messages_sent_total")?;
        (sent > 500.0).then_some(())
    });
}

#[test]
fn what_a_stalled_server_keeps_waiting_is_in_the_latency_and_not_lost() {
    let server = server();
    let target = server.address.to_string();
    let flags = "fanout --seconds 4 --subscribers 20 --rate 100";
    let bench = bench(&target, KEY, SECRET, flags);
    is_under_load(&server);
    server.signal(libc::SIGSTOP);
    // Longer than what is asserted by more than one interval of the publishes.
    std::thread::sleep(Duration::from_millis(340));
    server.signal(libc::SIGCONT);
    let output = bench.wait_with_output().expect("its output can be read");
    let outcome = &json_of(&output)["outcomes"][0];
    assert_eq!(outcome["deliveries"]["lost"], 0);
    assert_eq!(outcome["faults"], json!([]));
    // A tenth of the publishes were scheduled while nobody worked: they waited 150 ms on average.
    let [p99, max] = ["p99_ms", "max_ms"].map(|name| latency(outcome, "delivery", name));
    assert!(p99 >= 200.0 && max >= 290.0, "p99 {p99} ms, max {max} ms");
}

#[test]
fn a_run_whose_generator_stalled_is_void() {
    let server = server();
    let flags = "fanout --seconds 4 --subscribers 20 --rate 100";
    let bench = bench(&server.address.to_string(), KEY, SECRET, flags);
    is_under_load(&server);
    let pid = i32::try_from(bench.id()).expect("a pid fits");
    for signal in [libc::SIGSTOP, libc::SIGCONT] {
        // SAFETY: `kill` takes no pointers. The pid is our child's, which is not reaped before the
        // wait below, so it cannot name another process.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "our child can be signalled");
        std::thread::sleep(Duration::from_millis(400));
    }
    let output = bench.wait_with_output().expect("its output can be read");
    let void = json_of(&output)["outcomes"][0]["void"].clone();
    let void = void.as_str().expect("a sentence");
    assert!(
        void.contains("the load generator was the bottleneck"),
        "{void}"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn what_makes_a_run_impossible_is_a_sentence() {
    let config = Config::new()
        .with_app(json!({"max_client_events_per_second": 0}))
        .and_app("quiet", json!({"enable_client_messages": false}))
        .and_app("small", json!({"max_connections": 3}));
    let server = Server::start(&config, 1);
    let open = server.address.to_string();
    let closed = format!("{}:{}", own_address(), next_port());
    let cases = [
        (&closed, KEY, SECRET, "connect", "cannot be reached"),
        (&open, "unknown", SECRET, "connect", "4001"),
        (&open, KEY, "wrong", "publish", "status 401"),
        (&open, KEY, "wrong", "chatter", "refused a subscription"),
        (
            &open,
            "quiet-key",
            "quiet-secret",
            "chatter",
            "client events",
        ),
        (
            &open,
            "small-key",
            "small-secret",
            "idle",
            "over connection quota",
        ),
        (
            &open,
            KEY,
            SECRET,
            "idle --connections 1000000",
            "open files",
        ),
    ];
    for (target, key, secret, flags, expected) in cases {
        let flags = format!("{flags} --seconds 1");
        let bench = bench(target, key, secret, &flags);
        let output = bench.wait_with_output().expect("its output can be read");
        let said = words(&output);
        assert!(said.contains(expected), "{flags}: {said}");
        assert!(
            !said.contains("panicked") && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(output.status.code(), Some(1), "{flags}: {said}");
        assert!(!said.contains(secret), "a secret was printed: {said}");
    }
}
