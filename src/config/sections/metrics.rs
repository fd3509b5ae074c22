//! The metrics listener.
//!
//! Owns: `metrics`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Metrics in "metrics" {
        /// A listener of its own for `/metrics`.
        enabled: bool = flag().default("true").env(&["METRICS_ENABLED"]);
        /// Form of the metrics.
        _ as "driver" = choice(MetricsDriver::CHOICES).default("prometheus")
            .env(&["METRICS_DRIVER"]);
        /// Address to listen on.
        host: String = text(shape::HOSTS).default("0.0.0.0").derived("127.0.0.1 in demo mode")
            .env(&["METRICS_HOST"]);
        /// Port to listen on; 0 = any free port.
        port: u16 = port().default("9601").env(&["METRICS_PORT"]);
        /// Put before every name.
        prefix: String as "prometheus.prefix" = text(shape::METRIC_PREFIX).default("sockudo_")
            .env(&["METRICS_PROMETHEUS_PREFIX"]);
        /// Do not start when the port cannot be had.
        required: bool = flag().default("true").ours();
        /// Apps with series of their own; the rest is summed.
        max_apps: u32 = count(1).default("1000").ours();
    }
}

choices! {
    pub enum MetricsDriver {
        Prometheus = "prometheus",
    }
}
