//! The server's own histograms, from its `/metrics`.
//!
//! Owns: the reading of Prometheus' text form, as far as histograms of one name go.
//! May depend on: nothing.
//! Invariants: all series of a name are summed; a percentile lies in the bucket that holds it, as if the
//! bucket's values were spread evenly.

/// A histogram: upper bounds, ascending, and how many values are at most that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    pub fn parse(text: &str, name: &str) -> Self {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for line in text.lines() {
            let Some((bound, count)) = bucket(line, name) else {
                continue;
            };
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(buckets)
    }

    /// The value below which that percentage lies; none of an empty histogram.
    pub fn percentile(&self, percentile: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, count)| *count)?;
        let wanted = total * percentile / 100.0;
        let mut below = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= wanted && count > below.1 {
                let part = (wanted - below.1) / (count - below.1);
                return Some(match bound.is_finite() {
                    true => below.0 + (bound - below.0) * part,
                    false => below.0,
                });
            }
            below = (bound, count);
        }
        None
    }
}

/// Bound and count of a line that is one of the histogram's buckets.
fn bucket(line: &str, name: &str) -> Option<(f64, f64)> {
    let labels = line.strip_prefix(name)?.strip_prefix("_bucket{")?;
    let (labels, count) = labels.rsplit_once("} ")?;
    let (_, bound) = labels.split_once("le=\"")?;
    let (bound, _) = bound.split_once('"')?;
    let bound = match bound {
        "+Inf" => f64::INFINITY,
        number => number.parse().ok()?,
    };
    Some((bound, count.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP turn_seconds Length of a turn
# TYPE turn_seconds histogram
turn_seconds_bucket{shard=\"0\",le=\"0.001\"} 50
turn_seconds_bucket{shard=\"0\",le=\"0.002\"} 90
turn_seconds_bucket{shard=\"0\",le=\"+Inf\"} 90
turn_seconds_bucket{shard=\"1\",le=\"0.001\"} 0
turn_seconds_bucket{shard=\"1\",le=\"0.002\"} 5
turn_seconds_bucket{shard=\"1\",le=\"+Inf\"} 10
turn_seconds_sum{shard=\"1\"} 3
return_seconds_bucket{le=\"1\"} 3
";

    #[test]
    fn series_are_summed_and_percentiles_lie_within_their_bucket() {
        let buckets = Buckets::parse(TEXT, "turn_seconds");
        let expected = vec![(0.001, 50.0), (0.002, 95.0), (f64::INFINITY, 100.0)];
        assert_eq!(buckets, Buckets(expected));
        assert_eq!(buckets.percentile(25.0), Some(0.0005));
        assert_eq!(buckets.percentile(95.0), Some(0.002));
        // Of what is above all bounds one knows no more than the last of them.
        assert_eq!(buckets.percentile(99.0), Some(0.002));
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(Buckets::parse(TEXT, "hop_seconds").percentile(99.0), None);
        let empty = "x_bucket{le=\"1\"} 0\nx_bucket{le=\"+Inf\"} 0\n";
        assert_eq!(Buckets::parse(empty, "x").percentile(99.0), None);
    }
}
