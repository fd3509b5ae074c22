//! A text that must not be seen: keys' secrets, passwords, URLs that may carry credentials.
//!
//! Owns: the wrapper that prints `***`.
//! May depend on: nothing.
//! Invariants: neither `Debug` nor `Display` shows the text; only `expose` gives it out.

use std::fmt;

/// A secret text. Printing it gives `***`; `expose` is the only way to the text itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. A caller hands it to a signature or a login, never to a log or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A URL as it may be shown: user and password, which stand before the last `@` of the authority,
/// are masked.
pub fn masked_url(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = url.split_at(start);
    // A password may itself hold an unescaped slash or `@`: everything before the last `@` goes.
    match rest.rfind('@') {
        Some(at) => format!("{scheme}{MASK}{}", &rest[at..]),
        None => url.to_owned(),
    }
}

/// The same of a webhook's target, whose path and query too may hold a credential.
pub fn masked_target(url: &str) -> String {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = url.split_at(start);
    let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = match authority.rfind('@') {
        Some(at) => format!("{MASK}{}", &authority[at..]),
        None => authority.to_owned(),
    };
    match path {
        "" | "/" => format!("{scheme}{host}{path}"),
        _ => format!("{scheme}{host}/{MASK}"),
    }
}

/// The same of a text that may be no URL at all: what stands where a password may be is masked too.
pub fn masked_text(text: &str) -> String {
    let masked = masked_url(text);
    let start = masked.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = masked.split_at(start);
    if rest.contains('@') {
        return masked;
    }
    if rest.starts_with(':') || rest.contains('#') {
        return format!("{scheme}{MASK}");
    }
    // A word alone may be anything: a password in the wrong place, too.
    if scheme.is_empty() && !rest.is_empty() && !rest.contains(':') {
        return MASK.to_owned();
    }
    match rest.split_once('?') {
        Some((before, _)) => format!("{scheme}{before}?{MASK}"),
        None => masked,
    }
}

/// What is shown in place of a secret.
pub const MASK: &str = "***";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_three_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_url_loses_its_user_and_password_only() {
        for (url, shown) in [
            ("redis://h:6379", "redis://h:6379"),
            ("redis://u:p@h:6379/1", "redis://***@h:6379/1"),
            ("nats://u:p/q@r@h", "nats://***@h"),
            ("u:p@h", "***@h"),
        ] {
            assert_eq!(masked_url(url), shown, "{url}");
        }
    }

    #[test]
    fn of_a_webhooks_target_only_the_host_is_shown() {
        for (url, shown) in [
            ("https://h.example", "https://h.example"),
            ("https://h.example:8443/", "https://h.example:8443/"),
            ("https://h.example/in", "https://h.example/***"),
            ("https://h.example?token=t", "https://h.example/***"),
            ("https://h.example/#t", "https://h.example/***"),
            (
                "https://u:p@h.example/in@t?a=b@c",
                "https://***@h.example/***",
            ),
            ("https://h.example\\in", "https://h.example/***"),
        ] {
            assert_eq!(masked_target(url), shown, "{url}");
        }
    }

    #[test]
    fn what_may_be_no_url_shows_nothing_that_may_be_a_password() {
        for (text, shown) in [
            ("localhost:6379", "localhost:6379"),
            ("redis://h:abc", "redis://h:abc"),
            ("redis://h:1/x", "redis://h:1/x"),
            ("redis://", "redis://"),
            ("", ""),
            ("redis://u:p#a@h", "redis://***@h"),
            ("redis://:secret", "redis://***"),
            ("redis://u:p#a", "redis://***"),
            (":secret", "***"),
            ("secret", "***"),
            ("unix:///run/r?pass=secret", "unix:///run/r?***"),
            ("redis://h?a=u:p@b", "redis://***@b"),
        ] {
            assert_eq!(masked_text(text), shown, "{text}");
        }
    }
}
