//! Turns a sample into metric families, and families into the three formats that we serve.
//!
//! Owns: `Exposition`, the registry of the process collector, the three encoders.
//! May depend on: `metrics::*`, `prometheus`, `serde_json`.
//! Invariants: the text format is the `prometheus` crate's; the other two show the same names and
//! numbers.

use std::fmt::Write;

use prometheus::{
    Registry, TextEncoder,
    process_collector::ProcessCollector,
    proto::{Histogram, Metric, MetricFamily, MetricType},
};
use serde_json::{Map, Value, json};

use super::{
    families::Families,
    node,
    sample::{AppLabels, Sample},
    upstream,
};

/// Makes scrapes. One per process.
#[derive(Debug)]
pub struct Exposition {
    prefix: String,
    process: Registry,
}

impl Exposition {
    /// `prefix` goes before every name of ours; the `process_*` names have none.
    ///
    /// # Errors
    /// When the process collector is refused by the registry.
    pub fn new(prefix: &str) -> Result<Self, prometheus::Error> {
        let process = Registry::new();
        process.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self {
            prefix: prefix.to_owned(),
            process,
        })
    }

    /// All families of one scrape, sorted by name.
    pub fn families(&self, sample: &Sample<'_>, labels: &mut AppLabels) -> Vec<MetricFamily> {
        let rows = sample.app_rows(labels);
        let mut families = Families::new(&self.prefix);
        upstream::add(&mut families, sample, &rows);
        node::add(&mut families, sample, &rows);
        families.finish(self.process.gather())
    }

    /// The JSON variant: upstream's shape, whose `formatted` part is filled here.
    pub fn json(&self, families: &[MetricFamily], timestamp: &str) -> Value {
        json!({
            "formatted": formatted(&self.prefix, families),
            "raw": raw(families),
            "timestamp": timestamp,
        })
    }
}

/// `Content-Type` of `text`.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Prometheus' text format.
///
/// # Errors
/// When a family has no name or no row, which `Families` does not make.
pub fn text(families: &[MetricFamily]) -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(families)
}

/// `Content-Type` of `open_metrics`.
pub const OPEN_METRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// OpenMetrics 1.0. A counter whose name lacks `_total` is shown as `unknown`, since OpenMetrics
/// would rename it and dashboards know the old name.
pub fn open_metrics(families: &[MetricFamily]) -> String {
    let mut out = String::new();
    for family in families {
        let name = family.name();
        let (shown, kind) = match family.get_field_type() {
            MetricType::COUNTER => match name.strip_suffix("_total") {
                Some(stem) => (stem, "counter"),
                None => (name, "unknown"),
            },
            MetricType::GAUGE => (name, "gauge"),
            MetricType::HISTOGRAM => (name, "histogram"),
            MetricType::SUMMARY | MetricType::UNTYPED => continue, // We make none.
        };
        let help = escape(family.help());
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {shown} {help}\n# TYPE {shown} {kind}");
        for row in family.get_metric() {
            open_metrics_row(&mut out, name, family.get_field_type(), row);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn open_metrics_row(out: &mut String, name: &str, kind: MetricType, row: &Metric) {
    let labels: Vec<String> = row
        .get_label()
        .iter()
        .map(|pair| format!("{}=\"{}\"", pair.name(), escape(pair.value())))
        .collect();
    let labels = labels.join(",");
    let braced = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    if kind != MetricType::HISTOGRAM {
        let _ = writeln!(out, "{name}{braced} {}", value_of(kind, row));
        return;
    }
    let histogram = row.get_histogram();
    let comma = if labels.is_empty() { "" } else { "," };
    for bucket in histogram.get_bucket() {
        let (bound, count) = (bucket.upper_bound(), bucket.cumulative_count());
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
        );
    }
    let (count, sum) = (histogram.get_sample_count(), histogram.get_sample_sum());
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    let _ = writeln!(
        out,
        "{name}_sum{braced} {sum}\n{name}_count{braced} {count}"
    );
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

fn value_of(kind: MetricType, row: &Metric) -> f64 {
    match kind {
        MetricType::COUNTER => row.get_counter().get_value(),
        MetricType::GAUGE => row.get_gauge().get_value(),
        MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => 0.0,
    }
}

/// Metric name to rows of `{labels…, value}`.
fn raw(families: &[MetricFamily]) -> Value {
    let mut all = Map::new();
    for family in families {
        let kind = family.get_field_type();
        let rows = family.get_metric().iter().map(|row| {
            let labels = row.get_label().iter();
            let mut shown: Map<String, Value> = labels
                .map(|pair| (pair.name().to_owned(), pair.value().into()))
                .collect();
            let value = match kind {
                MetricType::HISTOGRAM => histogram_json(row.get_histogram()),
                MetricType::COUNTER
                | MetricType::GAUGE
                | MetricType::SUMMARY
                | MetricType::UNTYPED => number(value_of(kind, row)),
            };
            shown.insert("value".to_owned(), value);
            Value::Object(shown)
        });
        all.insert(family.name().to_owned(), rows.collect());
    }
    Value::Object(all)
}

fn histogram_json(histogram: &Histogram) -> Value {
    let bucket = |bucket: &prometheus::proto::Bucket| {
        json!({
            "upper_bound": bucket.upper_bound(),
            "cumulative_count": bucket.cumulative_count(),
        })
    };
    json!({
        "sample_count": histogram.get_sample_count(),
        "sample_sum": histogram.get_sample_sum(),
        "buckets": histogram.get_bucket().iter().map(bucket).collect::<Value>(),
    })
}

/// A whole number without a fraction, so that a reader of counts needs no rounding.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number below 2^53 is exact"
)]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    Value::from(value)
}

/// A moment as RFC 3339 in UTC, e.g. `2026-01-17T10:00:00Z`.
pub fn rfc3339(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Howard Hinnant's civil_from_days, for days since 0000-03-01 in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let leaps = day_of_era / 1_460;
    let year_of_era = (day_of_era - leaps + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second % 3_600 / 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The totals that upstream's JSON variant names, summed over all apps.
fn formatted(prefix: &str, families: &[MetricFamily]) -> Value {
    let total = |name: &str| {
        let full = format!("{prefix}{name}");
        let family = families.iter().find(|family| family.name() == full);
        let kind = family.map_or(MetricType::COUNTER, MetricFamily::get_field_type);
        let rows = family.map_or(&[][..], MetricFamily::get_metric);
        number(rows.iter().map(|row| value_of(kind, row)).sum())
    };
    json!({
        "connections": {
            "total": total("new_connections_total"),
            "current": total("connected"),
        },
        "messages": {
            "received": {
                "total": total("ws_messages_received_total"),
                "bytes": total("socket_received_bytes"),
            },
            "transmitted": {
                "total": total("ws_messages_sent_total"),
                "bytes": total("socket_transmitted_bytes"),
            },
        },
        "api": {
            "requests": {
                "total": total("http_calls_received_total"),
                "received_bytes": total("http_received_bytes"),
                "transmitted_bytes": total("http_transmitted_bytes"),
            },
        },
        "horizontal_adapter": {
            "requests": {
                "sent": total("horizontal_adapter_sent_requests"),
                "received": total("horizontal_adapter_received_requests"),
                "responses_received": total("horizontal_adapter_received_responses"),
            },
            "promises": {
                "resolved": total("horizontal_adapter_resolved_promises"),
                "unresolved": total("horizontal_adapter_uncomplete_promises"),
            },
        },
    })
}
