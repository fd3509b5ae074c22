//! The rows of the backends that a node uses beside the bus.
//!
//! Owns: an independent copy of that table.
//! May depend on: `metrics::tests`.
//! Invariants: as in `tests`.

use super::*;

/// Only where nodes share a cache.
const CACHE: &[Row] = &[
    (
        "cache_operations_total",
        "counter",
        &["node", "result"],
        &[],
    ),
    ("cache_waiting_bytes", "gauge", &["node"], &[]),
    ("backend_up", "gauge", &["backend", "node", "role"], &[]),
];

#[test]
fn a_redis_cluster_has_one_name_whichever_role_it_has() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    sample.cluster = Some(ClusterSample {
        driver: "redis-cluster",
        is_up: true,
        ..ClusterSample::default()
    });
    sample.webhook_state.driver = "redis-cluster";
    sample.webhook_state.store = Some(WebhookStoreSample::default());
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(&sample, &mut AppLabels::default());
    let body = text(&families).expect("valid families");
    for line in [
        "sockudo_backend_up{backend=\"redis_cluster\",node=\"n1\",role=\"adapter\"} 1",
        "sockudo_backend_up{backend=\"redis_cluster\",node=\"n1\",role=\"queue\"} 0",
        "sockudo_webhook_queue_depth{driver=\"redis-cluster\",node=\"n1\"} 0",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}

#[test]
fn a_node_with_a_shared_cache_shows_it() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    let alone = sample_names(&sample);
    sample.backends = vec![BackendSample {
        backend: "redis",
        role: "cache",
        is_up: false,
    }];
    sample.cache = Some(CacheSample {
        operations: [1, 2, 3, 4, 5],
        waiting_bytes: 6,
    });
    let exposition = Exposition::new("sockudo_").expect("collector");
    let families = exposition.families(&sample, &mut AppLabels::default());
    for row in CACHE {
        assert_row(&families, row);
    }
    let added: BTreeSet<String> = &sample_names(&sample) - &alone;
    let names = CACHE.iter().map(|row| format!("sockudo_{}", row.0));
    assert_eq!(added, names.collect());
    let body = text(&families).expect("valid families");
    for line in [
        "sockudo_backend_up{backend=\"redis\",node=\"n1\",role=\"cache\"} 0",
        "sockudo_cache_operations_total{node=\"n1\",result=\"error\"} 3",
        "sockudo_cache_operations_total{node=\"n1\",result=\"lost\"} 5",
        "sockudo_cache_waiting_bytes{node=\"n1\"} 6",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}
