//! How reports write numbers, and words that strangers chose.
//!
//! Owns: digits, thousands, units of bytes; what of a stranger's text may reach a terminal or a page.
//! May depend on: nothing.
//! Invariants: a number has three significant digits or is whole; a stranger's text can neither move a
//! terminal's cursor nor leave the element of a page that it stands in.

use std::fmt::{self, Write as _};

/// Three significant digits, or all of a whole number in groups of three; `–` for what is no number.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size >= 100.0 || (value.fract() == 0.0 && size < 1e15) {
        return grouped(value.round());
    }
    let decimals = match size {
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.01.. => 4,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

/// `1234567` -> `1 234 567`, as in the documentation.
fn grouped(whole: f64) -> String {
    let digits = format!("{:.0}", whole.abs());
    let mut text = if whole < 0.0 { "-" } else { "" }.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// As short as it can be said, for the ticks of an axis: `0.002`, `15`, `20k`, `1.5M`.
pub fn tick(value: f64) -> String {
    let (divisor, suffix) = match value.abs() {
        1e9.. => (1e9, "G"),
        1e6.. => (1e6, "M"),
        1e4.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    // Rounded, so that a tick's binary fraction does not show.
    let rounded = format!("{:.6}", value / divisor);
    let short = rounded.trim_end_matches('0').trim_end_matches('.');
    format!("{short}{suffix}")
}

/// `1536` -> `1.50 KiB`.
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value.abs() >= 1_024.0 && unit + 1 < units.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{} {}", number(value), units[unit])
}

/// A stranger's text on a terminal: what could move the cursor or turn the writing round is named instead.
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_invisible(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// A stranger's text inside an element or a quoted attribute of a page.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if is_invisible(c) => f.write_char(char::REPLACEMENT_CHARACTER)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Control characters, and those that change the direction of writing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_group_thousands() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.000_4, "-0.00040"),
            (0.012_34, "0.0123"),
            (0.5, "0.500"),
            (4.813, "4.81"),
            (48.13, "48.1"),
            (481.3, "481"),
            (999.6, "1 000"),
            (5.0, "5"),
            (1_234_567.0, "1 234 567"),
            (-12_345.6, "-12 346"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(number(value), expected, "{value}");
        }
    }

    #[test]
    fn ticks_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.1 + 0.2, "0.3"),
            (0.001, "0.001"),
            (9_000.0, "9000"),
            (20_000.0, "20k"),
            (1_500_000.0, "1.5M"),
            (2e9, "2G"),
        ] {
            assert_eq!(tick(value), expected, "{value}");
        }
    }

    #[test]
    fn bytes_are_told_in_the_largest_unit_that_fits() {
        for (value, expected) in [
            (0.0, "0 B"),
            (1_023.0, "1 023 B"),
            (1_536.0, "1.50 KiB"),
            (64.0 * 1024.0 * 1024.0 * 1024.0, "64 GiB"),
        ] {
            assert_eq!(bytes(value), expected, "{value}");
        }
    }

    #[test]
    fn a_strangers_text_stays_text() {
        let text = "<b a='1' c=\"2\">&\u{1b}[2J\u{202e}é";
        assert_eq!(
            Plain(text).to_string(),
            "<b a='1' c=\"2\">&\\u{1b}[2J\\u{202e}é"
        );
        let escaped = "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{fffd}[2J\u{fffd}é";
        assert_eq!(Escaped(text).to_string(), escaped);
    }
}
