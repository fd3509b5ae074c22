//! Medians, and how far the rounds lie apart.
//!
//! Owns: the arithmetic of medians and ratios.
//! May depend on: nothing.
//! Invariants: a ratio is of medians, and its spread is that of the rounds' own ratios, since what disturbs
//! a machine for longer than a run disturbs both sides of a round.

use serde::Serialize;

/// Median and range of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self {
            median,
            least,
            most,
        })
    }

    /// Of what is divided by what, round by round; a round without one of the two says nothing.
    pub fn of_ratio(over: &[Option<f64>], under: &[Option<f64>]) -> Option<Self> {
        let pairs: Vec<(f64, f64)> = over
            .iter()
            .zip(under)
            .filter_map(|(over, under)| Some(((*over)?, (*under)?)))
            .filter(|(_, under)| *under > 0.0)
            .collect();
        let (over, under): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let rounds: Vec<f64> = pairs.iter().map(|(over, under)| over / under).collect();
        Some(Self {
            median: Self::of(&over)?.median / Self::of(&under)?.median,
            ..Self::of(&rounds)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_between_the_two_middle_values_of_an_even_count() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 10.0]).expect("there are values");
        assert_eq!((spread.median, spread.least, spread.most), (3.0, 1.0, 10.0));
        assert_eq!(Spread::of(&[7.0, 5.0, 6.0]).map(|it| it.median), Some(6.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_range_is_that_of_the_rounds() {
        let over = [Some(10.0), Some(30.0), Some(24.0), Some(1.0)];
        let under = [Some(5.0), Some(10.0), Some(12.0), None];
        let ratio = Spread::of_ratio(&over, &under).expect("there are rounds");
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.4, 2.0, 3.0));
        assert_eq!(Spread::of_ratio(&over, &[None; 4]), None);
        assert_eq!(Spread::of_ratio(&over, &[Some(0.0); 4]), None);
    }
}
