//! The names, types and labels that were promised beside those of Sockudo 2.9, on a node without a bus and on one with
//! everything.
//!
//! Owns: an independent copy of that promise.
//! May depend on: `metrics::tests`.
//! Invariants: a row of it is changed only together with whoever relies on it.

use self::Node::{Any, WithBus};
use super::*;
use crate::metrics::{
    backend::{BackendCounts, Fault, Meter, Operation, Role},
    sample::StoreSample,
};

/// Which nodes have it.
#[derive(Clone, Copy, PartialEq)]
enum Node {
    Any,
    WithBus,
}

struct Promise {
    of: Node,
    kind: &'static str,
    name: &'static str,
    /// In alphabetical order.
    labels: &'static str,
    /// A label, and values of it that are all there.
    values: &'static str,
}

const fn row(
    of: Node,
    kind: &'static str,
    name: &'static str,
    labels: &'static str,
    values: &'static str,
) -> Promise {
    Promise {
        of,
        kind,
        name,
        labels,
        values,
    }
}

const PROMISED: &[Promise] = &[
    row(
        Any,
        "gauge",
        "build_info",
        "commit features node version",
        "",
    ),
    row(Any, "gauge", "config_last_reload_success", "node", ""),
    row(
        Any,
        "gauge",
        "config_last_reload_timestamp_seconds",
        "node",
        "",
    ),
    row(Any, "gauge", "ready", "node reason", ""),
    row(Any, "gauge", "shard_connections", "node shard", ""),
    row(Any, "gauge", "shard_channels", "node shard", ""),
    row(Any, "counter", "shard_accepted_total", "node shard", ""),
    row(Any, "counter", "shard_handed_over_total", "node shard", ""),
    row(Any, "gauge", "shard_loop_busy_ratio", "node shard", ""),
    row(Any, "histogram", "shard_turn_seconds", "node shard", ""),
    row(Any, "counter", "shard_turn_stalls_total", "node shard", ""),
    row(
        Any,
        "counter",
        "shard_ring_overflows_total",
        "node shard",
        "",
    ),
    row(Any, "gauge", "shard_recv_buffers_free", "node shard", ""),
    row(
        Any,
        "counter",
        "shard_recv_buffers_exhausted_total",
        "node shard",
        "",
    ),
    row(Any, "gauge", "mesh_queue_depth", "node peer shard", ""),
    row(Any, "gauge", "mesh_overflow_depth", "node peer shard", ""),
    row(
        Any,
        "counter",
        "mesh_backpressure_seconds_total",
        "node shard",
        "",
    ),
    row(Any, "histogram", "mesh_hop_seconds", "node", ""),
    row(Any, "gauge", "send_queue_bytes", "node shard", ""),
    row(Any, "gauge", "send_queue_max_bytes", "node shard", ""),
    row(
        Any,
        "counter",
        "slow_consumer_disconnects_total",
        "app_id node",
        "",
    ),
    row(
        Any,
        "counter",
        "dropped_frames_total",
        "app_id node reason",
        "reason=slow_oldest,slow_newest,bridge_full,drain",
    ),
    row(
        Any,
        "counter",
        "dropped_bytes_total",
        "app_id node reason",
        "",
    ),
    row(
        Any,
        "counter",
        "accept_rate_limited_total",
        "node reason shard",
        "reason=rate,max_connections,memory,ip",
    ),
    row(
        Any,
        "counter",
        "handshake_failures_total",
        "node reason",
        "reason=timeout,too_large,bad_request,tls",
    ),
    row(
        Any,
        "counter",
        "http_errors_total",
        "app_id node status",
        "",
    ),
    row(
        Any,
        "histogram",
        "http_request_seconds",
        "node route",
        "route=events,batch_events,channels,channel,users,terminate",
    ),
    row(
        Any,
        "gauge",
        "bridge_queue_depth",
        "direction node shard",
        "direction=to_bridge,from_bridge",
    ),
    row(
        Any,
        "counter",
        "bridge_queue_full_total",
        "node request shard",
        "",
    ),
    row(Any, "gauge", "bridge_busy_ratio", "node", ""),
    row(WithBus, "gauge", "backend_up", "backend node role", ""),
    row(
        WithBus,
        "histogram",
        "backend_request_seconds",
        "backend node op role",
        "",
    ),
    row(
        WithBus,
        "counter",
        "backend_errors_total",
        "backend kind node role",
        "kind=timeout,io,auth,protocol",
    ),
    row(
        WithBus,
        "counter",
        "backend_reconnects_total",
        "backend node role",
        "",
    ),
    row(
        Any,
        "counter",
        "app_lookup_total",
        "node result",
        "result=shard_hit,bridge_hit,negative_hit,store,error",
    ),
    row(WithBus, "histogram", "adapter_canary_seconds", "node", ""),
    row(
        WithBus,
        "gauge",
        "adapter_canary_last_success_timestamp_seconds",
        "node",
        "",
    ),
    row(
        WithBus,
        "counter",
        "adapter_canary_failures_total",
        "node",
        "",
    ),
    row(
        WithBus,
        "gauge",
        "cluster_nodes",
        "node state",
        "state=live,suspect,expired",
    ),
    row(
        WithBus,
        "counter",
        "cluster_messages_total",
        "direction kind node",
        "kind=event,delta,heartbeat,snapshot,request",
    ),
    row(
        WithBus,
        "counter",
        "cluster_bytes_total",
        "direction node",
        "",
    ),
    row(
        WithBus,
        "counter",
        "cluster_sequence_gaps_total",
        "node peer",
        "",
    ),
    row(
        WithBus,
        "counter",
        "cluster_snapshots_total",
        "direction node peer",
        "",
    ),
    row(
        WithBus,
        "counter",
        "cluster_unknown_messages_total",
        "node peer",
        "",
    ),
    row(
        WithBus,
        "counter",
        "cluster_lease_expiries_total",
        "node peer",
        "",
    ),
    row(
        WithBus,
        "counter",
        "presence_lease_expiries_total",
        "app_id node",
        "",
    ),
    row(WithBus, "gauge", "cluster_topics", "node", ""),
    row(
        WithBus,
        "histogram",
        "cluster_subscribe_seconds",
        "node",
        "",
    ),
    row(
        WithBus,
        "counter",
        "horizontal_transport_messages_dropped_total",
        "node transport",
        "",
    ),
    row(Any, "gauge", "webhook_queue_depth", "driver node", ""),
    row(Any, "gauge", "webhook_in_flight", "node", ""),
    row(
        Any,
        "counter",
        "webhook_deliveries_total",
        "app_id event node result",
        "result=ok,retry,dead,filtered",
    ),
    row(Any, "histogram", "webhook_delivery_seconds", "node", ""),
    row(Any, "counter", "webhook_retries_total", "app_id node", ""),
    row(
        Any,
        "counter",
        "webhook_dead_letters_total",
        "app_id node reason",
        "reason=attempts,age,gone",
    ),
    row(Any, "gauge", "webhook_dead_letters", "node", ""),
    row(Any, "gauge", "webhook_oldest_job_seconds", "node", ""),
    row(Any, "gauge", "drain_connections_remaining", "node", ""),
    row(
        Any,
        "counter",
        "limit_lease_denied_total",
        "app_id limit node",
        "",
    ),
];

fn webhooks() -> WebhookCounters {
    let mut webhooks = WebhookCounters::default();
    let app = webhooks.app(AppIndex(0));
    app.count(&[1, 0, 0, 0, 0, 0, 0], DeliveryResult::Ok);
    webhooks
}

/// Of each role one.
fn backend_counts() -> Vec<BackendCounts> {
    [
        ("redis_cluster", Role::Adapter),
        ("mysql", Role::AppManager),
        ("redis", Role::Cache),
        ("sqs", Role::Queue),
        ("redis", Role::RateLimiter),
    ]
    .map(|(backend, role)| Meter::new(backend, role).counts())
    .into()
}

fn with_everything(sample: &mut Sample<'_>) {
    sample.store = Some(StoreSample {
        backend: "mysql",
        is_up: true,
        lookups: [1, 2, 3],
    });
    sample.backend_counts = backend_counts();
    let peer = || "n2".to_owned();
    sample.cluster = Some(ClusterSample {
        driver: "redis-cluster",
        canary: Some(CanarySample::default()),
        peers: vec![PeerSample {
            name: peer(),
            ..PeerSample::default()
        }],
        tallies: vec![PeerTally {
            name: peer(),
            ..PeerTally::default()
        }],
        ..ClusterSample::default()
    });
}

fn families(sample: &Sample<'_>) -> Vec<MetricFamily> {
    let exposition = Exposition::new("sockudo_").expect("collector");
    exposition.families(sample, &mut AppLabels::default())
}

fn holds(families: &[MetricFamily], promise: &Promise) {
    let labels: Vec<&'static str> = promise.labels.split(' ').collect();
    let buckets = match promise.kind {
        "histogram" => L,
        _ => &[],
    };
    assert_family(families, promise.name, promise.kind, &labels, buckets);
    let Some((label, values)) = promise.values.split_once('=') else {
        return;
    };
    let full = format!("sockudo_{}", promise.name);
    let family = families.iter().find(|family| family.name() == full);
    let rows = family.expect("it was found").get_metric().iter();
    let pairs = rows.flat_map(|row| row.get_label());
    let shown: BTreeSet<&str> = pairs
        .filter(|pair| pair.name() == label)
        .map(|pair| pair.value())
        .collect();
    for value in values.split(',') {
        assert!(
            shown.contains(value),
            "{full}: {label}={value} of {shown:?}"
        );
    }
}

#[test]
fn a_node_without_a_bus_has_what_was_promised_of_every_node_and_nothing_of_a_bus() {
    let (shards, webhooks) = ([busy_shard(), busy_shard()], webhooks());
    let sample = sample(&shards, &["app-1"], 1_000, &webhooks);
    let families = families(&sample);
    for promise in PROMISED {
        let full = format!("sockudo_{}", promise.name);
        match (promise.of, promise.name) {
            (WithBus, _) => assert!(families.iter().all(|it| it.name() != full), "{full}"),
            // Three of its results are questions to a store.
            (Any, "app_lookup_total") => {}
            (Any, _) => holds(&families, promise),
        }
    }
}

#[test]
fn a_node_with_everything_has_all_that_was_promised() {
    let (shards, webhooks) = ([busy_shard(), busy_shard()], webhooks());
    let mut sample = sample(&shards, &["app-1"], 1_000, &webhooks);
    with_everything(&mut sample);
    let families = families(&sample);
    assert_eq!(PROMISED.len(), 59, "rows of the promise");
    for promise in PROMISED {
        holds(&families, promise);
    }
}

#[test]
fn each_backend_has_its_operations_and_faults_from_0_on() {
    let webhooks = WebhookCounters::default();
    let mut sample = sample(&[], &[], 10, &webhooks);
    let meter = Meter::new("redis", Role::Cache);
    meter.observe(Operation::Set, std::time::Duration::from_millis(3));
    meter.failed(Fault::Auth);
    meter.reconnected();
    sample.backend_counts = backend_counts();
    sample.backend_counts[2] = meter.counts();
    let body = text(&families(&sample)).expect("valid families");
    let of = |name: &str| {
        let begin = format!("sockudo_backend_{name}{{");
        let lines = body.lines().filter_map(|line| line.strip_prefix(&*begin));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    let counts = of("request_seconds_count");
    let operations: Vec<&str> = counts
        .iter()
        .filter_map(|line| line.split("op=\"").nth(1)?.split('"').next())
        .collect();
    assert_eq!(
        operations,
        [
            "publish",
            "subscribe",
            "lookup",
            "refresh",
            "get",
            "set",
            "put",
            "turn",
            "take"
        ]
    );
    let is_0 = |line: &&String| line.ends_with(" 0");
    assert_eq!(counts.iter().filter(is_0).count(), 8);
    assert_eq!(
        (of("errors_total").len(), of("reconnects_total").len()),
        (20, 5)
    );
    assert_eq!(of("errors_total").iter().filter(is_0).count(), 19);
    for line in [
        "sockudo_backend_request_seconds_bucket{backend=\"redis\",node=\"n1\",op=\"set\",role=\"cache\",\
         le=\"0.0025\"} 0",
        "sockudo_backend_request_seconds_bucket{backend=\"redis\",node=\"n1\",op=\"set\",role=\"cache\",\
         le=\"0.005\"} 1",
        "sockudo_backend_request_seconds_sum{backend=\"redis\",node=\"n1\",op=\"set\",role=\"cache\"} 0.003",
        "sockudo_backend_errors_total{backend=\"redis\",kind=\"auth\",node=\"n1\",role=\"cache\"} 1",
        "sockudo_backend_errors_total{backend=\"sqs\",kind=\"io\",node=\"n1\",role=\"queue\"} 0",
        "sockudo_backend_reconnects_total{backend=\"redis\",node=\"n1\",role=\"cache\"} 1",
    ] {
        assert!(body.lines().any(|l| l == line), "no line {line}\n{body}");
    }
}
