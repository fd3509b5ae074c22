//! Which web origins may open connections for an app.
//!
//! Owns: the patterns of `allowed_origins`.
//! May depend on: nothing.
//! Invariants: a pattern holds lower-case text and at most one `*`; matching ignores ASCII case.

use thiserror::Error;

/// One checked entry of `allowed_origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// `https://example.com`: the whole origin.
    Exact(String),
    /// `example.com:3000`: host and port, any scheme.
    Host(String),
    /// `*.example.com`: the domain itself and what is below it, any scheme. Holds `example.com`.
    Domain(String),
    /// `https://*.example.com`, `prefix*suffix`: the whole origin.
    Around { prefix: String, suffix: String },
}

impl OriginPattern {
    pub fn parse(pattern: &str) -> Result<Self, OriginPatternError> {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.matches('*').count() {
            0 | 1 => {}
            _ => return Err(OriginPatternError::ManyWildcards),
        }
        let (scheme, host) = match pattern.split_once("://") {
            Some((scheme, host)) => (Some(scheme), host),
            None => (None, &*pattern),
        };
        match (scheme, host) {
            (None, "") => return Err(OriginPatternError::Empty),
            (None, "*") => return Ok(Self::Any),
            (Some(""), _) => return Err(OriginPatternError::NoScheme),
            (_, "") => return Err(OriginPatternError::NoHost),
            _ => {}
        }
        if let Some(domain) = host.strip_prefix("*.") {
            if domain.is_empty() || domain.contains("..") || domain.ends_with('.') {
                return Err(OriginPatternError::Domain);
            }
            if scheme.is_none() {
                return Ok(Self::Domain(domain.to_owned()));
            }
        }
        Ok(match (pattern.split_once('*'), scheme) {
            (Some((prefix, suffix)), _) => Self::Around {
                prefix: prefix.to_owned(),
                suffix: suffix.to_owned(),
            },
            (None, Some(_)) => Self::Exact(pattern),
            (None, None) => Self::Host(pattern),
        })
    }

    /// Whether the value of an `Origin` header fits.
    pub fn matches(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let host = origin.split_once("://").map(|(_, host)| host);
        match self {
            Self::Any => true,
            Self::Exact(whole) => origin == *whole,
            Self::Host(wanted) => host == Some(wanted),
            Self::Domain(domain) => host.is_some_and(|host| {
                host.strip_suffix(domain.as_str())
                    .is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }),
            // The suffix is looked for behind the prefix: they must not overlap.
            Self::Around { prefix, suffix } => origin
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.ends_with(suffix.as_str())),
        }
    }
}

/// Whether a connection with this `Origin` header may use the app. No patterns: everybody may.
pub fn origin_allowed(patterns: &[OriginPattern], origin: Option<&str>) -> bool {
    patterns.is_empty()
        || patterns.contains(&OriginPattern::Any)
        || origin.is_some_and(|origin| patterns.iter().any(|pattern| pattern.matches(origin)))
}

/// Why an entry of `allowed_origins` is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OriginPatternError {
    #[error("origin pattern is empty")]
    Empty,
    #[error("origin pattern has more than one *")]
    ManyWildcards,
    #[error("origin pattern has no scheme before ://")]
    NoScheme,
    #[error("origin pattern has no host after ://")]
    NoHost,
    #[error("origin pattern *. must be followed by a domain without empty labels")]
    Domain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_the_table_says() {
        for (pattern, origin, expected) in [
            ("*", "https://example.com", true),
            ("*", "", true),
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "HTTPS://Example.COM", true),
            ("HTTPS://EXAMPLE.com", "https://example.com", true),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com", "https://example.com.evil.org", false),
            ("example.com", "https://example.com", true),
            ("example.com", "http://example.com", true),
            ("example.com", "capacitor://EXAMPLE.com", true),
            ("example.com", "https://example.com:3000", false),
            ("example.com", "https://www.example.com", false),
            ("example.com", "https://badexample.com", false),
            ("example.com", "example.com", false),
            ("example.com:3000", "https://example.com:3000", true),
            ("example.com:3000", "https://example.com", false),
            ("*.example.com", "https://example.com", true),
            ("*.example.com", "https://a.example.com", true),
            ("*.example.com", "http://a.b.example.com", true),
            ("*.example.com", "https://badexample.com", false),
            ("*.example.com", "https://example.com.evil.org", false),
            ("*.example.com", "https://a.example.com:8443", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "http://a.example.com", false),
            ("https://*.example.com", "https://example.com", false),
            (
                "https://app-*.example.com",
                "https://app-7.example.com",
                true,
            ),
            (
                "https://app-*.example.com",
                "https://app.example.com",
                false,
            ),
            ("https://ab*ba.com", "https://ab.ba.com", true),
            ("https://ab*ba.com", "https://aba.com", false),
            ("https://ab*ba.com", "https://abba.com", true),
            ("http*", "https://anything", true),
            ("http*", "ftp://anything", false),
        ] {
            let parsed = OriginPattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(origin), expected, "{pattern} on {origin}");
            assert_eq!(
                origin_allowed(&[parsed], Some(origin)),
                expected,
                "{pattern} on {origin}"
            );
        }
    }

    #[test]
    fn a_pattern_that_could_never_be_meant_is_refused() {
        for (pattern, error) in [
            ("", OriginPatternError::Empty),
            ("**", OriginPatternError::ManyWildcards),
            ("https://*.*.com", OriginPatternError::ManyWildcards),
            ("://example.com", OriginPatternError::NoScheme),
            ("https://", OriginPatternError::NoHost),
            ("*.", OriginPatternError::Domain),
            ("*.a..b", OriginPatternError::Domain),
            ("*.example.", OriginPatternError::Domain),
            ("https://*.", OriginPatternError::Domain),
        ] {
            assert_eq!(OriginPattern::parse(pattern), Err(error), "{pattern}");
        }
    }

    #[test]
    fn a_missing_origin_is_allowed_only_without_a_rule() {
        let some = OriginPattern::parse("example.com").expect("a pattern");
        for (patterns, origin, expected) in [
            (vec![], None, true),
            (vec![], Some("https://x.org"), true),
            (vec![OriginPattern::Any], None, true),
            (vec![some.clone(), OriginPattern::Any], None, true),
            (vec![some.clone()], None, false),
            (vec![some.clone()], Some(""), false),
            (vec![some.clone()], Some("null"), false),
            (vec![some], Some("https://example.com"), true),
        ] {
            assert_eq!(
                origin_allowed(&patterns, origin),
                expected,
                "{patterns:?} {origin:?}"
            );
        }
    }
}
