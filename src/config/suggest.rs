//! "Did you mean": the nearest known name to an unknown one.
//!
//! Owns: the choice of a hint.
//! May depend on: `strsim`, `keys`.
//! Invariants: no hint is better than a far-fetched one.

use super::keys::Table;

/// The key that the operator probably meant: a neighbour in the same section, else a key with that
/// name elsewhere.
pub(super) fn key(table: &'static Table, path: &str) -> Option<String> {
    let (section, name) = match path.rsplit_once('.') {
        Some((section, name)) => (format!("{section}."), name),
        None => (String::new(), path),
    };
    let paths = || {
        table
            .iter()
            .map(|key| key.path)
            .chain(table.aliases.iter().map(|a| a.path))
    };
    let neighbours = paths().filter_map(|path| path.strip_prefix(&*section)?.split('.').next());
    if let Some(neighbour) = nearest(name, neighbours) {
        return Some(format!("{section}{neighbour}"));
    }
    // The right name in the wrong place.
    let last = |path: &'static str| path.rsplit('.').next().unwrap_or(path);
    let same_name = table
        .iter()
        .find(|key| last(key.path) == name)
        .map(|key| key.path);
    let squeezed = name.replace('_', ".");
    same_name
        .or_else(|| paths().find(|path| *path == squeezed))
        .map(str::to_owned)
}

/// The name with the fewest mistakes in `name`, at most one in three letters.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mistakes_max = (name.len() / 3).max(1);
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(mistakes, _)| *mistakes <= mistakes_max)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::SERVER;

    #[test]
    fn a_hint_names_a_neighbour_or_the_right_place() {
        for (path, expected) in [
            ("databse", Some("database")),
            ("adapter.drivr", Some("adapter.driver")),
            ("prot", Some("port")),
            ("max_payload_in_kb", Some("event_limits.max_payload_in_kb")),
            ("net.busypollus", Some("net.busy_poll_us")),
            ("completely_else", None),
        ] {
            assert_eq!(key(&SERVER, path).as_deref(), expected, "{path}");
        }
    }
}
