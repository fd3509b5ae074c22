//! What a script may rely on.

use bench::json;
use serde_json::{Value, json};

use crate::specimen;

#[test]
fn a_run_keeps_its_shape() {
    let value = json::of(&specimen::comparison());
    assert_eq!(keys(&value), ["machine", "outcomes", "ramp"]);
    let machine = ["cores", "cpu", "date", "kernel", "memory_bytes"];
    assert_eq!(keys(&value["machine"]), machine);
    assert_eq!(value["ramp"], Value::Null);
    let [ours, _] = &value["outcomes"].as_array().expect("a list")[..] else {
        panic!("two outcomes went in: {value}");
    };
    assert_eq!(
        keys(ours),
        [
            "began_unix_s",
            "deliveries",
            "faults",
            "figures",
            "generator",
            "latencies",
            "scenario",
            "seconds",
            "series",
            "settings",
            "target",
            "used",
            "verdict",
            "void"
        ]
    );
    let settings = json!({"subscribers": "1000", "publishes_per_s": "50", "message_bytes": "200"});
    assert_eq!(ours["settings"], settings);
    assert_eq!(
        keys(&ours["latencies"][0]),
        [
            "count",
            "key",
            "label",
            "max_ms",
            "mean_ms",
            "p50_ms",
            "p90_ms",
            "p99_99_ms",
            "p99_9_ms",
            "p99_ms"
        ]
    );
    let figure = json!({
        "key": "cpu_per_delivered_us", "label": "CPU per delivered message", "unit": "us", "value": 4.8,
    });
    assert_eq!(ours["figures"][0], figure);
    assert_eq!(ours["series"][0]["points"][0], json!([1.0, 50_000.0]));
    assert_eq!(ours["used"]["system_calls"], 250_000);
    assert_eq!((&ours["faults"], &ours["void"]), (&json!([]), &Value::Null));
}

#[test]
fn percentiles_are_milliseconds() {
    let value = json::of(&specimen::comparison());
    let delivery = &value["outcomes"][0]["latencies"][0];
    assert_eq!(delivery["count"], 99_999);
    let p99 = delivery["p99_ms"].as_f64().expect("a number");
    assert!((p99 - 2.0).abs() < 0.05, "0.4 ms * 100 ^ 0.35 is not {p99}");
}

#[test]
fn what_is_not_known_is_null_and_what_is_void_says_why() {
    let value = json::of(&specimen::void());
    let outcome = &value["outcomes"][0];
    assert_eq!(outcome["target"], specimen::HOSTILE);
    assert_eq!(outcome["used"], Value::Null);
    let void = outcome["void"].as_str().expect("a reason");
    assert!(void.contains("97 % of a core"), "{void}");
}

#[test]
fn a_ramp_has_its_steps_and_what_held() {
    let value = json::of(&specimen::ramp());
    let ramp = &value["ramp"];
    assert_eq!(ramp["highest_held"], 80_000.0);
    assert_eq!(
        ramp["steps"][4],
        json!({"load": 160_000.0, "reached_ms": 870.0, "has_held": false})
    );
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}
