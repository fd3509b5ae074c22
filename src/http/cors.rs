//! Cross-origin headers of the main HTTP routes. They never decide about a WebSocket upgrade.
//!
//! Owns: what `cors.*` means, the header lines, prepared once.
//! May depend on: nothing.
//! Invariants: credentials are never allowed for any origin at once; what is echoed is the
//! configured text, not the client's.

use thiserror::Error;

/// The prepared policy.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    origins: Origins,
    /// Header lines that a preflight gets in addition.
    preflight: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    /// Each with the lines that it gets.
    Listed(Vec<(String, Vec<u8>)>),
}

impl CorsPolicy {
    /// `*`, `Any` or `any` among the origins means all of them.
    pub fn new(
        origins: &[String],
        methods: &[String],
        allowed_headers: &[String],
        credentials: bool,
    ) -> Result<Self, CorsError> {
        for (key, values) in [
            ("cors.origin", origins),
            ("cors.methods", methods),
            ("cors.allowed_headers", allowed_headers),
        ] {
            if values.iter().any(|value| !is_header_text(value)) {
                return Err(CorsError { key });
            }
        }
        let is_any = |origin: &String| matches!(&**origin, "*" | "Any" | "any");
        let origins = if origins.iter().any(is_any) {
            Origins::Any
        } else {
            let allow = if credentials { ALLOW_CREDENTIALS } else { "" };
            let lines = |origin: &String| {
                format!("Access-Control-Allow-Origin: {origin}\r\n{VARY}{allow}").into_bytes()
            };
            Origins::Listed(
                origins
                    .iter()
                    .map(|origin| (origin.clone(), lines(origin)))
                    .collect(),
            )
        };
        let preflight = format!(
            "Access-Control-Allow-Methods: {}\r\nAccess-Control-Allow-Headers: {}\r\n",
            methods.join(", "),
            allowed_headers.join(", ")
        );
        Ok(Self {
            origins,
            preflight: preflight.into_bytes(),
        })
    }

    /// The header lines of an ordinary answer.
    pub fn headers(&self, origin: Option<&str>) -> &[u8] {
        match &self.origins {
            Origins::Any => ALLOW_ANY.as_bytes(),
            Origins::Listed(listed) => origin
                .and_then(|origin| {
                    listed
                        .iter()
                        .find(|(one, _)| one.eq_ignore_ascii_case(origin))
                })
                .map_or(VARY.as_bytes(), |(_, lines)| lines),
        }
    }

    /// The additional header lines of a preflight's answer, which is 200 with an empty body.
    pub fn preflight_headers(&self) -> &[u8] {
        &self.preflight
    }
}

/// A configured value cannot stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{key} must hold visible ASCII text")]
pub struct CorsError {
    pub key: &'static str,
}

fn is_header_text(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic())
}

const ALLOW_ANY: &str = "Access-Control-Allow-Origin: *\r\n";
const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials: true\r\n";
/// Caches must not serve one origin's answer to another, refused ones included.
const VARY: &str = "Vary: Origin\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: &[&str], credentials: bool) -> CorsPolicy {
        let owned = |texts: &[&str]| {
            texts
                .iter()
                .map(|&text| text.to_owned())
                .collect::<Vec<_>>()
        };
        let (methods, headers) = (
            owned(&["GET", "POST", "OPTIONS"]),
            owned(&["Authorization", "Accept"]),
        );
        CorsPolicy::new(&owned(origins), &methods, &headers, credentials).expect("valid")
    }

    #[test]
    fn the_origin_decides_the_headers() {
        let listed = ["https://a.org", "https://b.org"];
        let echo_b = "Access-Control-Allow-Origin: https://b.org\r\nVary: Origin\r\n";
        let echo_b_credentials = format!("{echo_b}Access-Control-Allow-Credentials: true\r\n");
        for (origins, credentials, origin, expected) in [
            (&["*"][..], true, Some("https://b.org"), ALLOW_ANY),
            (&["*"], true, None, ALLOW_ANY),
            (&["Any"], false, None, ALLOW_ANY),
            (
                &["https://a.org", "any"],
                true,
                Some("https://b.org"),
                ALLOW_ANY,
            ),
            (&listed, false, Some("https://b.org"), echo_b),
            (&listed, true, Some("https://b.org"), &echo_b_credentials),
            (&listed, true, Some("HTTPS://B.org"), &echo_b_credentials),
            (&listed, true, Some("https://c.org"), VARY),
            (&listed, true, Some("https://b.org.evil"), VARY),
            (&listed, true, None, VARY),
            (&[], true, Some("https://b.org"), VARY),
        ] {
            let policy = policy(origins, credentials);
            let headers = String::from_utf8_lossy(policy.headers(origin));
            assert_eq!(headers, expected, "{origins:?} {origin:?}");
        }
    }

    #[test]
    fn a_preflight_is_told_methods_and_headers() {
        assert_eq!(
            String::from_utf8_lossy(policy(&["*"], false).preflight_headers()),
            "Access-Control-Allow-Methods: GET, POST, OPTIONS\r\nAccess-Control-Allow-Headers: Authorization, Accept\r\n"
        );
    }

    #[test]
    fn a_value_that_could_split_a_header_is_refused() {
        for origin in ["https://a.org\r\nX: y", "a b", "", "é"] {
            let refused = CorsPolicy::new(&[origin.to_owned()], &[], &[], true);
            assert_eq!(refused.expect_err(origin), CorsError { key: "cors.origin" });
        }
        let refused = CorsPolicy::new(&[], &["GET\n".to_owned()], &[], true);
        assert_eq!(refused.expect_err("methods").key, "cors.methods");
    }
}
