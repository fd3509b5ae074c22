//! Whole numbers on the command line, each with its range.
//!
//! Owns: what is said of one that is none, or out of range: the range.
//! May depend on: nothing.
//! Invariants: a number beyond its type is out of range, and nothing wraps.

use std::ops::RangeInclusive;

/// Checks a whole number, as clap wants it checked. `range` lies in `T`.
pub(crate) fn within<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok();
        let number = number.filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        let (least, most) = (range.start(), range.end());
        number.ok_or_else(|| format!("not a whole number {least}..={most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_range_is_told_the_range() {
        let parse = within::<u16>(2..=512);
        for (text, expected) in [
            ("1", None),
            ("2", Some(2)),
            ("512", Some(512)),
            ("513", None),
            ("70000", None),
            ("18446744073709551616", None),
            ("-2", None),
            ("2.5", None),
            ("two", None),
            ("", None),
        ] {
            let wrong = || "not a whole number 2..=512".to_owned();
            assert_eq!(parse(text), expected.ok_or_else(wrong), "{text:?}");
        }
    }
}
