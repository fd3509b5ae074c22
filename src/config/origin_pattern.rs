//! The patterns of an app's `allowed_origins`: which are refused at load.
//!
//! Owns: the grammar of one pattern.
//! May depend on: nothing.
//! Invariants: a pattern that passes has at most one star and names a host.

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginPatternError {
    #[error("the pattern is empty")]
    Empty,
    #[error("more than one *")]
    ManyStars,
    #[error("nothing stands before ://")]
    NoScheme,
    #[error("no host is named")]
    NoHost,
    #[error("the domain after *. begins or ends with a dot, or has two in a row")]
    BadDomain,
}

/// Checks one pattern.
pub fn check(pattern: &str) -> Result<(), OriginPatternError> {
    if pattern == "*" {
        return Ok(());
    }
    if pattern.trim().is_empty() {
        return Err(OriginPatternError::Empty);
    }
    if pattern.matches('*').count() > 1 {
        return Err(OriginPatternError::ManyStars);
    }
    if let Some((scheme, host)) = pattern.split_once("://") {
        if scheme.is_empty() {
            return Err(OriginPatternError::NoScheme);
        }
        if host.is_empty() {
            return Err(OriginPatternError::NoHost);
        }
    }
    match pattern.strip_prefix("*.") {
        Some("") => Err(OriginPatternError::NoHost),
        Some(domain) if domain.contains("..") || domain.starts_with('.') => {
            Err(OriginPatternError::BadDomain)
        }
        Some(domain) if domain.ends_with('.') => Err(OriginPatternError::BadDomain),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_refused_where_it_could_only_be_a_mistake() {
        use OriginPatternError::{BadDomain, Empty, ManyStars, NoHost, NoScheme};
        for (pattern, expected) in [
            ("*", Ok(())),
            ("https://a.example:8443", Ok(())),
            ("a.example", Ok(())),
            ("a.example:3000", Ok(())),
            ("*.example.com", Ok(())),
            ("https://*.example.com", Ok(())),
            ("http://prefix*", Ok(())),
            ("", Err(Empty)),
            ("  ", Err(Empty)),
            ("**", Err(ManyStars)),
            ("*.a.*", Err(ManyStars)),
            ("://a", Err(NoScheme)),
            ("https://", Err(NoHost)),
            ("*.", Err(NoHost)),
            ("*.a..b", Err(BadDomain)),
            ("*..a", Err(BadDomain)),
            ("*.a.", Err(BadDomain)),
        ] {
            assert_eq!(check(pattern), expected, "{pattern:?}");
        }
    }
}
