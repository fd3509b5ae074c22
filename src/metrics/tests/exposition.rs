//! The formats in which a scrape is written.
//!
//! Owns: nothing.
//! May depend on: `metrics::tests`.
//! Invariants: as in `tests`.

use super::*;

#[test]
fn open_metrics_ends_with_eof_and_keeps_the_names_of_samples() {
    let families = scrape(
        &[busy_shard()],
        &["a\"b\\c"],
        10,
        &WebhookCounters::default(),
    );
    let body = open_metrics(&families);
    for line in [
        "# TYPE sockudo_new_connections counter",
        "# TYPE sockudo_socket_received_bytes unknown",
        "sockudo_new_connections_total{app_id=\"a\\\"b\\\\c\",port=\"9601\"} 3",
        "sockudo_webhook_delivery_seconds_bucket{node=\"n1\",le=\"+Inf\"} 0",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
    assert!(body.ends_with("# EOF\n"));
}

#[test]
fn the_json_variant_lists_rows_with_labels_and_totals() {
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = scrape(&[busy_shard()], &["a"], 10, &WebhookCounters::default());
    let json = exposition.json(&families, "2026-01-01T00:00:00Z");
    assert_eq!(json["timestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(json["formatted"]["connections"]["current"], 3);
    let row = &json["raw"]["sockudo_connected"][0];
    assert_eq!((&row["app_id"], &row["value"]), (&"a".into(), &3.into()));
    let histogram = &json["raw"]["sockudo_horizontal_adapter_resolve_time"][0]["value"];
    assert_eq!(histogram["sample_count"], 0);
    assert_eq!(histogram["buckets"][0]["upper_bound"], 0.005);
    assert_eq!(histogram["buckets"][0]["cumulative_count"], 0);
}

#[test]
fn a_moment_is_written_as_rfc_3339() {
    for (unix_s, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_700_000_000, "2023-11-14T22:13:20Z"),
        (4_102_444_800, "2100-01-01T00:00:00Z"),
    ] {
        assert_eq!(rfc3339(unix_s), text);
    }
}
