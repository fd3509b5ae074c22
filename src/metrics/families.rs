//! Collects rows into the metric families that the encoders write.
//!
//! Owns: `Families`, the growing set of one scrape.
//! May depend on: `metrics::catalogue`, the `prometheus` crate's data model.
//! Invariants: a row has exactly the labels of its family; families come out sorted by name and
//! rows in the order of adding, so that two scrapes of the same numbers are the same bytes.

use std::collections::BTreeMap;

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::catalogue::{Family, Kind};

/// The metric families of one scrape, under construction.
#[derive(Debug)]
pub(super) struct Families<'a> {
    prefix: &'a str,
    by_name: BTreeMap<&'static str, MetricFamily>,
}

impl<'a> Families<'a> {
    /// An empty set. `prefix` goes before each name.
    pub(super) fn new(prefix: &'a str) -> Self {
        Self {
            prefix,
            by_name: BTreeMap::new(),
        }
    }

    /// Adds one row of a counter or gauge. `values` are in the order of the family's labels.
    pub(super) fn add(&mut self, family: &'static Family, values: &[&str], value: f64) {
        let mut row = Metric::from_label(labels(family, values));
        match family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                row.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                row.set_gauge(gauge);
            }
            Kind::Histogram => panic!("{} is a histogram: use add_histogram", family.name),
        }
        self.push(family, row);
    }

    /// Adds one row of a histogram. `counts` has one more element than `bounds`: those above all.
    pub(super) fn add_histogram(
        &mut self,
        family: &'static Family,
        values: &[&str],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) {
        assert!(
            family.kind == Kind::Histogram,
            "{} is no histogram",
            family.name
        );
        assert!(
            counts.len() == bounds.len() + 1,
            "{}: one count per bucket",
            family.name
        );
        let mut below = 0;
        let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        let mut row = Metric::from_label(labels(family, values));
        row.set_histogram(histogram);
        self.push(family, row);
    }

    /// All families with at least one row, sorted, together with `others`.
    pub(super) fn finish(self, others: Vec<MetricFamily>) -> Vec<MetricFamily> {
        let mut families: Vec<_> = self.by_name.into_values().chain(others).collect();
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families
    }

    fn push(&mut self, family: &'static Family, row: Metric) {
        let entry = self.by_name.entry(family.name).or_insert_with(|| {
            let mut made = MetricFamily::default();
            made.set_name(format!("{}{}", self.prefix, family.name));
            made.set_help(family.help.to_owned());
            made.set_field_type(match family.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            made
        });
        entry.mut_metric().push(row);
    }
}

fn labels(family: &Family, values: &[&str]) -> Vec<LabelPair> {
    assert!(
        family.labels.len() == values.len(),
        "{}: one value per label",
        family.name
    );
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    family.labels.iter().zip(values).map(pair).collect()
}
