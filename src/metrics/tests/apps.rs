//! The rows of apps: from 0 on, summed beyond the bound, and kept when an app goes.
//!
//! Owns: nothing.
//! May depend on: `metrics::tests`.
//! Invariants: as in `tests`.

use super::*;

#[test]
fn what_goes_wrong_with_an_app_is_there_from_0_on_so_that_its_first_time_is_an_increase() {
    let families = scrape(&[], &["app-1"], 1_000, &WebhookCounters::default());
    let body = text(&families).expect("valid families");
    for (name, rows) in [
        ("connection_errors_total", 19),
        ("slow_consumer_disconnects_total", 1),
        ("dropped_frames_total", 4),
        ("dropped_bytes_total", 4),
        ("limit_lease_denied_total", 3),
        ("webhook_events_dropped_total", 1),
        ("webhook_retries_total", 1),
        ("webhook_dead_letters_total", 5),
    ] {
        let begin = format!("sockudo_{name}{{app_id=\"app-1\",");
        let of_name = body.lines().filter(|line| line.starts_with(&begin));
        let zeros = of_name.filter(|line| line.ends_with(" 0"));
        assert_eq!(zeros.count(), rows, "{name}");
    }
}

#[test]
fn jobs_of_a_shared_store_that_are_nobodys_are_counted_under_no_app_from_0_on() {
    let mut webhooks = WebhookCounters::default();
    webhooks.gave_up_strange(StrangeReason::Malformed);
    let mut sample = sample(&[], &[], 10, &webhooks);
    let rows = |sample: &Sample<'_>| -> Vec<String> {
        let exposition = Exposition::new("sockudo_").expect("collector");
        let families = exposition.families(sample, &mut AppLabels::default());
        let body = text(&families).expect("valid families");
        let name = "sockudo_webhook_dead_letters_total{app_id=\"unknown\",";
        let lines = body.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(rows(&sample), [""; 0], "nobody else puts jobs there");
    sample.webhook_state.store = Some(WebhookStoreSample::default());
    let expected = ["gone", "malformed"].map(|it| format!("node=\"n1\",reason=\"{it}\"}} "));
    let [gone, malformed] = expected;
    assert_eq!(rows(&sample), [gone + "0", malformed + "1"]);
}

#[test]
fn apps_beyond_the_bound_share_a_row_named_other() {
    let mut shard = idle_shard();
    for index in 0..4 {
        shard.counters.app(AppIndex(index)).new_connections = u64::from(index) + 1;
    }
    let families = scrape(
        &[shard],
        &["a", "b", "c", "d"],
        2,
        &WebhookCounters::default(),
    );
    let body = text(&families).expect("valid families");
    for (id, count) in [("a", 1), ("b", 2), ("other", 7)] {
        let line =
            format!("sockudo_new_connections_total{{app_id=\"{id}\",port=\"9601\"}} {count}");
        assert!(body.contains(&line), "{line}");
    }
    assert!(!body.contains("app_id=\"c\""));
}

#[test]
fn a_forgotten_app_takes_nothing_away_from_other_and_no_app_leaves_it() {
    let all = ["a", "b", "c", "d", "e"];
    let mut labels = AppLabels::default();
    let mut shown = |shard: &ShardSnapshot, webhooks: &WebhookCounters, known: &[u32]| {
        let shards = [shard.clone()];
        let mut sample = sample(&shards, &[], 2, webhooks);
        let known = known
            .iter()
            .map(|index| (AppIndex(*index), all[*index as usize]));
        sample.apps = known.collect();
        let rows = sample.app_rows(&mut labels);
        let row = |row: &AppRow<'_>| {
            let counters = &row.counters;
            let counted = [
                counters.new_connections,
                counters.connected,
                row.webhooks.retries,
            ];
            format!(
                "{} {counted:?} {:?}",
                row.id,
                counters.faults().http_errors.iter().collect::<Vec<_>>()
            )
        };
        rows.iter().map(row).collect::<Vec<String>>()
    };
    let (mut shard, mut webhooks) = (idle_shard(), WebhookCounters::default());
    for index in 0..4 {
        let counters = shard.counters.app(AppIndex(index));
        counters.new_connections = 10;
        counters.connected = 1;
        counters.http_error(404);
        webhooks.app(AppIndex(index)).retries = 1;
    }
    let first = shown(&shard, &webhooks, &[0, 1, 2, 3]);
    let own = |id: &str| format!("{id} [10, 1, 1] [(404, 1)]");
    assert_eq!(
        first,
        [own("a"), own("b"), "other [20, 2, 2] [(404, 2)]".to_owned()]
    );
    // The table is new before the shards have forgotten.
    let other = "other [20, 1, 2] [(404, 2)]".to_owned();
    assert_eq!(shown(&shard, &webhooks, &[1, 2]), [own("b"), other.clone()]);
    shard
        .counters
        .forget_apps(|app| app != AppIndex(0) && app != AppIndex(3));
    webhooks.forget_apps(|app| app != AppIndex(0) && app != AppIndex(3));
    assert_eq!(shown(&shard, &webhooks, &[1, 2]), [own("b"), other]);
    // A new app takes the free place; the one in `other` stays there and is counted on.
    shard.counters.app(AppIndex(2)).new_connections += 5;
    shard.counters.app(AppIndex(4)).new_connections = 1;
    let last = shown(&shard, &webhooks, &[1, 2, 4]);
    let other = "other [25, 1, 2] [(404, 2)]".to_owned();
    assert_eq!(last, [own("b"), "e [1, 0, 0] []".to_owned(), other]);
}
