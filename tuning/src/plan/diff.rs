//! Two texts, line by line.
//!
//! Owns: `diff`.
//! May depend on: std.
//! Invariants: the lines with a blank or `-` are the old text, those with a blank or `+` the new one.

/// Every line with its sign: `-` only in the old text, `+` only in the new one. Empty if they are alike.
pub fn diff(old: &str, new: &str) -> String {
    if old == new {
        return String::new();
    }
    let old: Vec<&str> = old.lines().take(LINES_MAX).collect();
    let new: Vec<&str> = new.lines().take(LINES_MAX).collect();
    let kept = kept(&old, &new);
    let mut out = String::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let is_same = i < old.len() && j < new.len() && old[i] == new[j];
        let takes_old = j == new.len() || (i < old.len() && kept[i + 1][j] >= kept[i][j + 1]);
        let (sign, line) = match (is_same, takes_old) {
            (true, _) => {
                (i, j) = (i + 1, j + 1);
                (' ', old[i - 1])
            }
            (false, true) => {
                i += 1;
                ('-', old[i - 1])
            }
            (false, false) => {
                j += 1;
                ('+', new[j - 1])
            }
        };
        out.push(sign);
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// How many lines of the rests, from each pair of places on, can stay.
fn kept(old: &[&str], new: &[&str]) -> Vec<Vec<u32>> {
    let mut kept = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            kept[i][j] = match old[i] == new[j] {
                true => kept[i + 1][j + 1] + 1,
                false => kept[i + 1][j].max(kept[i][j + 1]),
            };
        }
    }
    kept
}

/// A plan's files have some hundred lines; a file in their place may be anything.
const LINES_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_stay_have_no_sign() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), " a\n-b\n+x\n c\n+d\n");
        assert_eq!(diff("", "a\n"), "+a\n");
        assert_eq!(diff("a\n", ""), "-a\n");
        assert_eq!(diff("a\n", "a\n"), "");
    }
}
