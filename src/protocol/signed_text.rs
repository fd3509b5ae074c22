//! What of an API request may have been signed: libraries and proxies differ in how they write paths and queries.
//!
//! Owns: `QueryForm`, which forms count, and the texts that they give.
//! May depend on: `query` (the parameters of a request line); `memchr`, `smallvec`.
//! Invariants: what was decoded and could be split at other places than the wire was counts for nothing: the signature
//! of one request does not do for another.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use smallvec::SmallVec;

use super::query;

/// How the values of a request's query were written when they were signed, and so how they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryForm {
    /// Escapes are decoded, `+` is a space.
    Decoded,
    /// They stand on the wire as they are meant.
    Raw,
    /// Escapes are decoded, `+` is itself: the library escaped only what a URL may not hold.
    PlusKept,
}

impl QueryForm {
    /// What a value of the wire means.
    pub fn read<'a>(self, raw_value: &'a str) -> Cow<'a, [u8]> {
        match self {
            Self::Decoded => query::decode(raw_value),
            Self::Raw => raw_value.as_bytes().into(),
            Self::PlusKept => query::decode_percent(raw_value).into(),
        }
    }
}

/// One parameter of a signed request: key decoded and in lower case, value decoded and as it stood
/// on the wire.
pub(super) struct SignedParameter<'a> {
    pub(super) key: Cow<'a, [u8]>,
    pub(super) value: Cow<'a, [u8]>,
    raw_value: &'a str,
}

/// A request has four or five, and few more ask for something.
pub(super) type SignedParameters<'a> = SmallVec<[SignedParameter<'a>; 8]>;

/// All parameters, sorted by key, ties in wire order.
pub(super) fn signed_parameters(query: &str) -> SignedParameters<'_> {
    let mut parameters: SignedParameters<'_> = query::pairs(query)
        .map(|pair| SignedParameter {
            key: lower_case(if pair.key_is_escaped {
                query::decode(pair.key)
            } else {
                pair.key.as_bytes().into()
            }),
            value: if pair.value_is_escaped {
                query::decode(pair.value)
            } else {
                pair.value.as_bytes().into()
            },
            raw_value: pair.value,
        })
        .collect();
    // Stable, and nothing to do where the library has sorted already.
    parameters.sort_by(|one, other| one.key.cmp(&other.key));
    parameters
}

fn lower_case(key: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if key.iter().any(u8::is_ascii_uppercase) {
        key.to_ascii_lowercase().into()
    } else {
        key
    }
}

/// The paths that may have been signed. With a prefix, a proxy may have taken it away, or the
/// library may not have signed it (PHP's signs `/apps/...` whatever its `path` is).
pub(super) fn signed_paths<'a>(raw_path: &'a str, prefix: &str) -> SmallVec<[Cow<'a, [u8]>; 6]> {
    let prefix = prefix.trim_end_matches('/');
    let mut paths = SmallVec::<[Cow<'a, [u8]>; 6]>::new();
    paths.push(raw_path.as_bytes().into());
    if !prefix.is_empty() {
        paths.push(match raw_path.strip_prefix(prefix) {
            Some(local) => local.as_bytes().into(),
            None => [prefix.as_bytes(), raw_path.as_bytes()].concat().into(),
        });
    }
    let as_sent = paths.len();
    if raw_path.contains('%') {
        // Libraries sign the unescaped path while their HTTP stack escapes it. A line feed would
        // end the path elsewhere in what was signed.
        let decoded = paths.clone().into_iter().filter_map(|path| {
            let path = query::decode_percent_bytes(&path);
            (!path.contains(&b'\n')).then_some(Cow::Owned(path))
        });
        paths.extend(decoded);
    }
    if may_have_been_escaped(raw_path) {
        // Others sign what they escaped, and a proxy sends it on as it means.
        let escaped: SmallVec<[Vec<u8>; 2]> =
            paths.iter().take(as_sent).map(|it| escape(it)).collect();
        paths.extend(escaped.into_iter().map(Cow::Owned));
    }
    paths
}

/// A path holds what a library may escape.
pub(super) fn may_have_been_escaped(path: &str) -> bool {
    !path.bytes().all(stays_in_paths)
}

/// What no library escapes within a path, and the escapes that are there.
const fn stays_in_paths(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/' | b'%')
}

fn escape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 16);
    for &byte in path {
        if stays_in_paths(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// The queries that may have been signed, each with its form; the usual one first.
pub(super) fn signed_queries<'p>(
    parameters: &'p [SignedParameter<'_>],
) -> impl Iterator<Item = (QueryForm, Vec<u8>)> + use<'p> {
    let values = |byte| parameters.iter().any(|p| p.raw_value.contains(byte));
    let (has_escapes, has_pluses) = (values('%'), values('+'));
    let raw = has_escapes || has_pluses;
    let forms = [
        Some(QueryForm::Decoded),
        raw.then_some(QueryForm::Raw),
        (has_escapes && has_pluses).then_some(QueryForm::PlusKept),
    ];
    forms
        .into_iter()
        .flatten()
        .filter_map(|form| Some((form, canonical_query(parameters, form)?)))
}

/// `None` when what was decoded could be split at other places than the wire was: then the
/// signature of one request would do for another.
fn canonical_query(parameters: &[SignedParameter<'_>], form: QueryForm) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    for parameter in parameters.iter().filter(|p| *p.key != *b"auth_signature") {
        let value = match form {
            QueryForm::Decoded => Cow::Borrowed(&*parameter.value),
            QueryForm::Raw | QueryForm::PlusKept => form.read(parameter.raw_value),
        };
        if memchr2(b'&', b'=', &parameter.key).is_some() || memchr(b'&', &value).is_some() {
            return None;
        }
        if !out.is_empty() {
            out.push(b'&');
        }
        out.extend_from_slice(&parameter.key);
        out.push(b'=');
        out.extend_from_slice(&value);
    }
    Some(out)
}
