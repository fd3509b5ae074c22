//! Numbers in another type, where `From` is not for them.
//!
//! Owns: what becomes of a number that does not fit.
//! May depend on: nothing.
//! Invariants: nothing here wraps.

/// A number of things that are in memory, or the index of one of them.
///
/// # Panics
/// When it is more than memory could hold.
pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).expect("what is in memory can be counted there")
}

/// A float without its fraction; 0 if it is negative or no number, the largest if it is too large.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float goes to the nearest end"
)]
pub(crate) const fn whole_of(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_that_no_whole_number_fits_becomes_the_nearest_end() {
        for (value, whole) in [
            (-1.5, 0),
            (f64::NAN, 0),
            (0.9, 0),
            (1.0, 1),
            (1e30, u64::MAX),
            (f64::INFINITY, u64::MAX),
        ] {
            assert_eq!(whole_of(value), whole, "{value}");
        }
    }
}
