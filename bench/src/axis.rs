//! One axis of a plot: which values it spans, where it has ticks, and where a value lies on it.
//!
//! Owns: the scales and their round numbers.
//! May depend on: `text`.
//! Invariants: an axis has at least two ticks, at round values, the first at its start and the last at its
//! end; every finite value that it was made around (positive, on a logarithmic scale) lies on it.

use crate::{
    casts::{index, whole_of},
    text::tick,
};

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero, so that heights compare as values do.
    Linear,
    Log,
    /// Percentages by their number of nines, 50 to 99.99, and the maximum at the end.
    Nines,
}

/// A scale around some values.
#[derive(Clone, Debug)]
pub struct Axis {
    scale: Scale,
    ticks: Vec<f64>,
}

impl Axis {
    /// None where no value can be shown.
    pub fn around(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let shown = values.filter(|&value| scale.shows(value));
        let (least, most) = shown.fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(least, most), value| (least.min(value), most.max(value)),
        );
        if least > most {
            return None;
        }
        let ticks = match scale {
            Scale::Linear => linear_ticks(least.min(0.0), most.max(0.0)),
            Scale::Log => log_ticks(least, most),
            Scale::Nines => NINES.map(|(percentile, _)| percentile).to_vec(),
        };
        assert!(ticks.len() >= 2);
        Some(Self { scale, ticks })
    }

    /// Where a value lies, 0 = start and 1 = end; None where the scale cannot show it.
    pub fn place(&self, value: f64) -> Option<f64> {
        let [first, .., last] = self.ticks[..] else {
            return None;
        };
        let (from, to) = (self.scale.height(first), self.scale.height(last));
        let at = (self.scale.height(value) - from) / (to - from);
        self.scale.shows(value).then_some(at.clamp(0.0, 1.0))
    }

    /// The ticks' places and texts, in order.
    pub fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let text_of = |value: f64| match self.scale {
            Scale::Linear | Scale::Log => tick(value),
            Scale::Nines => {
                let known = NINES.iter().find(|(percentile, _)| *percentile == value);
                known.map_or(String::new(), |(_, name)| (*name).to_owned())
            }
        };
        let ticks = self.ticks.iter();
        ticks.filter_map(move |&value| Some((self.place(value)?, text_of(value))))
    }
}

impl Scale {
    fn shows(self, value: f64) -> bool {
        match self {
            Self::Linear => value.is_finite(),
            Self::Log => value.is_finite() && value > 0.0,
            Self::Nines => (50.0..=100.0).contains(&value),
        }
    }

    fn height(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
            // One step for each nine; the maximum stands one step after 99.99.
            Self::Nines => (-(1.0 - value / 100.0).log10()).min(5.0),
        }
    }
}

const NINES: [(f64, &str); 6] = [
    (50.0, "50"),
    (90.0, "90"),
    (99.0, "99"),
    (99.9, "99.9"),
    (99.99, "99.99"),
    (100.0, "max"),
];

/// More would be written over each other.
const TICKS_MAX: u32 = 9;

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_ticks(from: f64, to: f64) -> Vec<f64> {
    let span = if to > from { to - from } else { 1.0 };
    let step = round_up(span / 5.0);
    let (first, last) = ((from / step).floor(), (to / step - 1e-9).ceil());
    let last = last.max(first + 1.0);
    let count = index(whole_of((last - first).round()));
    (0..=count).map(|at| (first + at as f64) * step).collect()
}

/// 1, 2 and 5 in each power of ten; fewer where there are many, but always the two ends.
fn log_ticks(least: f64, most: f64) -> Vec<f64> {
    let (mut from, mut to) = (round_down(least), round_up(most));
    if from >= to {
        (from, to) = (round_down(least / 1.1), round_up(most * 1.1));
    }
    let mut ticks = vec![from];
    while let Some(&last) = ticks.last()
        && last < to / 1.01
    {
        ticks.push(round_up(last * 1.1));
    }
    if ticks.len() <= TICKS_MAX as usize {
        return ticks;
    }
    let (first, last) = (power(from.log10().floor()), power(to.log10().ceil()));
    let step = (last - first).unsigned_abs().div_ceil(TICKS_MAX - 1);
    let steps = (last - first).unsigned_abs().div_ceil(step);
    let powers = (0..=steps).map(|at| first + (at * step) as i32);
    powers.map(|power| 10_f64.powi(power)).collect()
}

/// The next 1, 2 or 5 times a power of ten, upwards.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powi(power(value.log10().floor()));
    let rounds = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let fits = |round: &f64| *round >= value * (1.0 - 1e-9);
    rounds.into_iter().find(fits).unwrap_or(power * 10.0)
}

fn round_down(value: f64) -> f64 {
    let power = 10_f64.powi(power(value.log10().floor()));
    let rounds = [5.0, 2.0, 1.0].map(|digit| digit * power);
    let fits = |round: &f64| *round <= value * (1.0 + 1e-9);
    rounds.into_iter().find(fits).unwrap_or(power)
}

/// A logarithm without a fraction.
#[expect(
    clippy::cast_possible_truncation,
    reason = "between -324 and 308; of 0 and of infinity the nearest end"
)]
const fn power(logarithm: f64) -> i32 {
    logarithm as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        for (scale, values, expected) in [
            (Scale::Linear, vec![0.0, 20.0], "0 5 10 15 20"),
            (
                Scale::Linear,
                vec![48_000.0, 50_000.0],
                "0 10k 20k 30k 40k 50k",
            ),
            (Scale::Linear, vec![-3.0, 7.0], "-4 -2 0 2 4 6 8"),
            (Scale::Linear, vec![0.0], "0 0.2"),
            (Scale::Linear, vec![0.3, f64::NAN], "0 0.1 0.2 0.3"),
            (Scale::Log, vec![0.4, 22.0], "0.2 0.5 1 2 5 10 20 50"),
            (Scale::Log, vec![0.6, 19.0], "0.5 1 2 5 10 20"),
            (Scale::Log, vec![1.0, 870.0], "1 10 100 1000"),
            (
                Scale::Log,
                vec![0.001, 1e9],
                "0.001 0.1 10 1000 100k 10M 1G",
            ),
            (Scale::Log, vec![3.1, 3.2, 0.0, -1.0], "2 5"),
            (Scale::Log, vec![2.0], "1 2 5"),
            (Scale::Nines, vec![50.0], "50 90 99 99.9 99.99 max"),
        ] {
            let axis = Axis::around(scale, values.iter().copied()).expect("values can be shown");
            let ticks: Vec<String> = axis.ticks().map(|(_, text)| text).collect();
            assert_eq!(ticks.join(" "), expected, "{scale:?} around {values:?}");
            let places: Vec<f64> = axis.ticks().map(|(place, _)| place).collect();
            assert_eq!((places[0], places[places.len() - 1]), (0.0, 1.0));
            assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        }
    }

    #[test]
    fn nothing_to_show_is_no_axis() {
        for (scale, values) in [
            (Scale::Linear, vec![]),
            (Scale::Linear, vec![f64::NAN, f64::INFINITY]),
            (Scale::Log, vec![0.0, -1.0]),
            (Scale::Nines, vec![10.0, 101.0]),
        ] {
            assert!(
                Axis::around(scale, values.iter().copied()).is_none(),
                "{scale:?} {values:?}"
            );
        }
    }

    #[test]
    fn each_nine_takes_the_same_room() {
        let axis = Axis::around(Scale::Nines, [99.0].into_iter()).expect("a percentage");
        let place = |percentile| axis.place(percentile).expect("a percentage");
        let nine = place(99.0) - place(90.0);
        for (from, to) in [(99.0, 99.9), (99.9, 99.99), (99.99, 100.0)] {
            assert!(
                (place(to) - place(from) - nine).abs() < 1e-9,
                "{from} to {to}"
            );
        }
        assert_eq!(axis.place(49.0), None);
    }
}
