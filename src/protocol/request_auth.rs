//! Signatures of API requests.
//!
//! Owns: the order of checks, the body's digest, how far a clock may be off; `signed_text` has what may have been signed.
//! May depend on: `auth`, `query` (the parameters of a request line), `signed_text`; `md-5`, `memchr`.
//! Invariants: a body is hashed only for whoever has signed its digest; the clock is an argument.

use md5::{Digest, Md5};
use memchr::memchr;
use thiserror::Error;

use super::{
    auth::{Signer, write_hex},
    query,
    signed_text::{
        QueryForm, SignedParameter, may_have_been_escaped, signed_parameters, signed_paths,
        signed_queries,
    },
};

/// An API request as it stood on the wire.
#[derive(Clone, Copy, Debug)]
pub struct RequestToVerify<'a> {
    pub method: &'a str,
    /// The path of the request line, neither decoded nor stripped of a prefix.
    pub raw_path: &'a str,
    /// What follows `?`, not decoded.
    pub query: &'a str,
    pub body: &'a [u8],
    /// Key of the app that the path names.
    pub app_key: &'a str,
    pub signers: &'a [Signer],
    /// Seconds since the epoch.
    pub now_s: u64,
    /// `/` or empty means none.
    pub path_prefix: &'a str,
}

/// Verifies an API request, and says in which form its parameters were signed. Cheap checks come
/// first: a valid request costs one HMAC over its query and one MD5 over its body, a forged one
/// some HMACs over its query (at most 12 per secret, 24 for `HEAD`) and nothing over its body.
pub fn verify_request(request: RequestToVerify<'_>) -> Result<QueryForm, HttpAuthError> {
    verify_request_hashing(request, md5_hex)
}

/// As `verify_request`, for a body that was hashed as it arrived.
pub fn verify_hashed_request(
    request: RequestToVerify<'_>,
    digest: BodyDigest,
) -> Result<QueryForm, HttpAuthError> {
    verify_request_hashing(request, |_| digest.hex())
}

/// Whether the head of a request is signed and names its body's digest, before the body is read:
/// whose is not, is refused whatever the body. `request.body` does not matter.
pub fn is_head_signed(request: RequestToVerify<'_>) -> bool {
    // A digest that is no digest differs from what is named, if that is looked at.
    let verified = verify_request_hashing(request, |_| [0; 32]);
    matches!(verified, Err(HttpAuthError::BodyMd5))
}

/// What the check of a head hashes at the most: how often, and how many bytes each time.
pub fn hashing_max(request: &RequestToVerify<'_>) -> (usize, usize) {
    let has = |text: &str, byte| memchr(byte, text.as_bytes()).is_some();
    let escapes = has(request.query, b'%');
    let queries = 1 + usize::from(escapes || has(request.query, b'+')) + usize::from(escapes);
    let local = 1 + usize::from(!request.path_prefix.trim_end_matches('/').is_empty());
    let is_escaped = usize::from(may_have_been_escaped(request.raw_path));
    let paths = local * (1 + usize::from(has(request.raw_path, b'%')) + is_escaped);
    let methods = 1 + usize::from(request.method.eq_ignore_ascii_case("HEAD"));
    let tries = queries * paths * methods * request.signers.len();
    (tries, request.raw_path.len() + request.query.len())
}

/// The MD5 of a body, taken piece by piece.
#[derive(Clone, Debug, Default)]
pub struct BodyDigest(Md5);

impl BodyDigest {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In lower-case hexadecimal digits.
    pub fn hex(self) -> [u8; 32] {
        let digest: [u8; 16] = self.0.finalize().into();
        let mut hex = [0; 32];
        write_hex(&digest, &mut hex);
        hex
    }
}

fn verify_request_hashing(
    request: RequestToVerify<'_>,
    md5_hex: impl FnOnce(&[u8]) -> [u8; 32],
) -> Result<QueryForm, HttpAuthError> {
    if query::pairs(request.query).nth(PARAMETERS_MAX).is_some() {
        return Err(HttpAuthError::TooManyParameters);
    }
    let parameters = signed_parameters(request.query);
    let only = |name| only_value(&parameters, name);
    let key = only("auth_key")?;
    let timestamp = only("auth_timestamp")?;
    let version = only("auth_version")?;
    let signature = only("auth_signature")?;
    let body_md5 = match only("body_md5") {
        Err(HttpAuthError::Missing(_)) => None,
        present => Some(present?),
    };
    if version != b"1.0" {
        return Err(HttpAuthError::Version);
    }
    if key != request.app_key.as_bytes() {
        return Err(HttpAuthError::WrongKey);
    }
    verify_timestamp(timestamp, request.now_s)?;
    if body_md5.is_none() && !request.body.is_empty() {
        return Err(HttpAuthError::Missing("body_md5"));
    }
    let signature = std::str::from_utf8(signature).map_err(|_| HttpAuthError::WrongSignature)?;
    let form = verify_request_signature(&request, &parameters, signature)?;
    // Only now, as the digest itself is signed: a stranger's body costs nothing.
    match body_md5 {
        Some(digest) if digest != md5_hex(request.body) => Err(HttpAuthError::BodyMd5),
        Some(_) | None => Ok(form),
    }
}

/// Why an API request is not believed. All are answered 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HttpAuthError {
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    #[error("{0} is given more than once")]
    Repeated(&'static str),
    #[error("auth_version must be 1.0")]
    Version,
    #[error("auth_key is not the key of this app")]
    WrongKey,
    #[error("the query has more than {PARAMETERS_MAX} parameters")]
    TooManyParameters,
    #[error("auth_timestamp must be whole seconds since the epoch")]
    Timestamp,
    #[error("auth_timestamp is more than {SKEW_MAX_S} seconds off")]
    Skew,
    #[error("body_md5 does not match the body")]
    BodyMd5,
    #[error("Invalid API signature")]
    WrongSignature,
}

/// The value of a parameter that must be there exactly once and not be empty.
fn only_value<'p>(
    parameters: &'p [SignedParameter<'_>],
    name: &'static str,
) -> Result<&'p [u8], HttpAuthError> {
    let mut values = parameters
        .iter()
        .filter(|p| *p.key == *name.as_bytes())
        .map(|p| &*p.value);
    match (values.next(), values.next()) {
        (None, _) => Err(HttpAuthError::Missing(name)),
        (Some(_), Some(_)) => Err(HttpAuthError::Repeated(name)),
        // An empty body_md5 is a wrong one, not an absent one.
        (Some(b""), None) if name != "body_md5" => Err(HttpAuthError::Missing(name)),
        (Some(value), None) => Ok(value),
    }
}

fn verify_timestamp(timestamp: &[u8], now_s: u64) -> Result<(), HttpAuthError> {
    if !timestamp.iter().all(u8::is_ascii_digit) {
        return Err(HttpAuthError::Timestamp);
    }
    let timestamp_s: u64 = std::str::from_utf8(timestamp)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(HttpAuthError::Timestamp)?;
    if timestamp_s.abs_diff(now_s) <= SKEW_MAX_S {
        Ok(())
    } else {
        Err(HttpAuthError::Skew)
    }
}

fn md5_hex(bytes: &[u8]) -> [u8; 32] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    let mut hex = [0; 32];
    write_hex(&digest, &mut hex);
    hex
}

/// Tries method, path and query as they stood, then the forms that libraries and proxies are known
/// to sign.
fn verify_request_signature(
    request: &RequestToVerify<'_>,
    parameters: &[SignedParameter<'_>],
    signature: &str,
) -> Result<QueryForm, HttpAuthError> {
    let upper_case = request.method.to_ascii_uppercase();
    // Whoever asks for the head alone may have signed what it stands for.
    let methods: &[&str] = match &*upper_case {
        "HEAD" => &["HEAD", "GET"],
        method => &[method],
    };
    let paths = signed_paths(request.raw_path, request.path_prefix);
    for (form, query) in signed_queries(parameters) {
        for path in &paths {
            for method in methods {
                let signed: [&[u8]; 5] = [method.as_bytes(), b"\n", path, b"\n", &query];
                if request
                    .signers
                    .iter()
                    .any(|signer| signer.verify_hex(&signed, signature))
                {
                    return Ok(form);
                }
            }
        }
    }
    Err(HttpAuthError::WrongSignature)
}

/// Parameters of a request: `channels[]` stands once per channel, an event has 100 at most unless
/// configured.
const PARAMETERS_MAX: usize = 256;

/// How far a request's clock may be off; exactly this much is accepted.
const SKEW_MAX_S: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "app-key";
    const NOW_S: u64 = 1_700_000_000;
    const B1: &str =
        r#"{"name":"my-event","channels":["my-channel"],"data":"{\"hello\":\"world\"}"}"#;
    const B2: &str = r#"{"batch":[{"name":"e1","channel":"a","data":"1"},{"name":"e2","channel":"b","data":"2","socket_id":"1234.5678"}]}"#;
    const AUTH: &str = "auth_key=app-key&auth_timestamp=1700000000&auth_version=1.0";

    fn signers() -> Vec<Signer> {
        vec![Signer::new("app-secret")]
    }

    fn hex(signer: &Signer, text: &str) -> String {
        String::from_utf8(signer.sign_hex(&[text.as_bytes()]).to_vec()).expect("hex")
    }

    #[test]
    fn a_query_of_more_parameters_than_anybody_sends_is_refused_before_any_is_looked_at() {
        let query = |count| vec!["x=1"; count].join("&");
        let verdict = |count| verify("GET", "/apps/1/channels", &query(count), "");
        assert_eq!(verdict(256), Err(HttpAuthError::Missing("auth_key")));
        assert_eq!(verdict(257), Err(HttpAuthError::TooManyParameters));
    }

    #[test]
    fn what_a_check_may_hash_is_known_beforehand() {
        let (one, two) = (signers(), [signers(), signers()].concat());
        for (method, raw_path, query, path_prefix, signers, tries) in [
            ("POST", "/apps/1/events", "a=b", "/", &one, 1),
            ("GET", "/apps/1/events", "a=b+c", "", &two, 4),
            ("GET", "/apps/1/events", "a=b%20c", "/ws", &one, 6),
            ("HEAD", "/apps/1/channels/a%20b", "a=b%20c", "/ws", &two, 48),
            (
                "HEAD",
                "/apps/1/channels/a%20b@",
                "a=b%20c",
                "/ws",
                &two,
                72,
            ),
        ] {
            let request = RequestToVerify {
                method,
                raw_path,
                query,
                body: b"",
                app_key: KEY,
                signers,
                now_s: NOW_S,
                path_prefix,
            };
            let bytes = raw_path.len() + query.len();
            assert_eq!(hashing_max(&request), (tries, bytes), "{method} {raw_path}");
        }
    }

    fn verify(method: &str, raw_path: &str, query: &str, body: &str) -> Result<(), HttpAuthError> {
        verify_at(NOW_S, "/realtime", method, raw_path, query, body)
    }

    fn verify_at(
        now_s: u64,
        path_prefix: &str,
        method: &str,
        raw_path: &str,
        query: &str,
        body: &str,
    ) -> Result<(), HttpAuthError> {
        let signers = signers();
        let body = body.as_bytes();
        let app_key = KEY;
        verify_request(RequestToVerify {
            method,
            raw_path,
            query,
            body,
            app_key,
            signers: &signers,
            now_s,
            path_prefix,
        })
        .map(|_| ())
    }

    /// V10 to V22 as wire forms: method, path, parameters but the signature, body, signature.
    fn vectors() -> Vec<(
        &'static str,
        &'static str,
        String,
        &'static str,
        &'static str,
    )> {
        let events = "/apps/app-id/events";
        let channels = "/apps/app-id/channels";
        let terminate = "/apps/app-id/users/42/terminate_connections";
        let v19 = "6bdea0fa29d900fa1e42fdbf7af587f00a6218c4a35223b28b9a48a2533f96f1";
        let v20 = "2de66ebc2dfbd821d20d7649da3a6ec258f3e266b5b122d6c6fb44a737302396";
        let v21 = "0cf124e0769fefda66da43cec2add37d172f02b02391510d1ae79ee4bb434cbf";
        let v22 = "99418450dbad1684bd36a2a8e49fcfe82a5778973a3a91a3405091cde39212aa";
        vec![
            (
                "POST",
                events,
                format!("{AUTH}&body_md5=4a2297b34d32420d05955925447cdaf7"),
                B1,
                "9b1548d1fed48d2437f0a82a6ea33b43d1fbcdfb998be18906e5e17e3de7c9e1",
            ),
            (
                "POST",
                "/apps/app-id/batch_events",
                format!("{AUTH}&body_md5=8803cfbb02a898cc6e3f3af6466554cf"),
                B2,
                "9d438203eb69a93046d6111cc1617c75209443d3adb4104fe49fae3342476d6b",
            ),
            (
                "GET",
                channels,
                AUTH.to_owned(),
                "",
                "f5cc9dde83ebbd9328d72e076c2b869cdffad888c45f61285077cfc4ca1eca65",
            ),
            (
                "GET",
                channels,
                format!("info=user_count&filter_by_prefix=presence-&{AUTH}"),
                "",
                "fd5a1b38d92aee2b7913a8cf43136cffab888ee5a097536910d6239f08eb68a2",
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-foobar",
                format!("{AUTH}&info=user_count,subscription_count"),
                "",
                "20386ecd1ac1534b32780a0235a1bbf38cc6fa21a4076a0be1074d982e2336e7",
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-foobar",
                format!("{AUTH}&info=user_count%2Csubscription_count"),
                "",
                "20386ecd1ac1534b32780a0235a1bbf38cc6fa21a4076a0be1074d982e2336e7",
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-foobar/users",
                AUTH.to_owned(),
                "",
                "4114ca317e61bd6ddd19673842f1697bc16975fc04521bf62d36c41b1d65aefa",
            ),
            (
                "POST",
                terminate,
                format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b"),
                "{}",
                "5c90601b7ede27346da725838a3837f982e9712e07d793968f91dbc6d56670ac",
            ),
            (
                "POST",
                terminate,
                AUTH.to_owned(),
                "",
                "5cc3ead47d8429d1ac4e02ab1f0bbf2c699b482cb8f9acfc18cfb79ab8833aea",
            ),
            // V18, seen with the prefix and behind a proxy that strips it.
            (
                "POST",
                "/realtime/apps/app-id/users/42/terminate_connections",
                format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b"),
                "{}",
                "69023b021a775289caed0598bd3dffe2ad9b2f59872d23a3cc7edb5148a65b6f",
            ),
            (
                "POST",
                terminate,
                format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b"),
                "{}",
                "69023b021a775289caed0598bd3dffe2ad9b2f59872d23a3cc7edb5148a65b6f",
            ),
            (
                "GET",
                channels,
                format!("filter_by_prefix=a%20b%40c&{AUTH}"),
                "",
                v19,
            ),
            (
                "GET",
                channels,
                format!("filter_by_prefix=a+b%40c&{AUTH}"),
                "",
                v19,
            ),
            (
                "GET",
                channels,
                format!("&&FILTER_by_Prefix=a%20b@c&{AUTH}&"),
                "",
                v19,
            ),
            ("GET", channels, format!("x[]=1&x[]=2&{AUTH}"), "", v20),
            (
                "GET",
                channels,
                format!("x%5B%5D=1&{AUTH}&X%5b%5d=2"),
                "",
                v20,
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-a@b",
                AUTH.to_owned(),
                "",
                v21,
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-a%40b",
                AUTH.to_owned(),
                "",
                v21,
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-a%40b",
                AUTH.to_owned(),
                "",
                v22,
            ),
            (
                "GET",
                "/apps/app-id/channels/presence-a@b",
                AUTH.to_owned(),
                "",
                v22,
            ),
            (
                "get",
                "/apps/app-id/channels/presence-a%40b",
                AUTH.to_owned(),
                "",
                v22,
            ),
        ]
    }

    #[test]
    fn requests_of_the_published_vectors_are_believed() {
        for (method, path, query, body, signature) in vectors() {
            let signed = format!("{query}&auth_signature={signature}");
            assert_eq!(
                verify(method, path, &signed, body),
                Ok(()),
                "{method} {path}?{signed}"
            );
            let first = format!("auth_signature={signature}&{query}");
            assert_eq!(
                verify(method, path, &first, body),
                Ok(()),
                "{method} {path}?{first}"
            );
        }
    }

    #[test]
    fn any_altered_part_of_a_request_is_refused() {
        for (method, path, query, body, signature) in vectors() {
            let signed = format!("{query}&auth_signature={signature}");
            let other_method = if method == "POST" { "GET" } else { "POST" };
            let wrong = Err(HttpAuthError::WrongSignature);
            assert_eq!(verify(other_method, path, &signed, body), wrong, "{path}");
            assert_eq!(
                verify(method, &format!("{path}x"), &signed, body),
                wrong,
                "{path}"
            );
            assert_eq!(
                verify(method, path, &format!("{signed}&a=b"), body),
                wrong,
                "{path}"
            );
            assert_eq!(
                verify(method, path, &format!("{query}&auth_signature=00"), body),
                wrong
            );
            let upper = format!("{query}&auth_signature={}", signature.to_uppercase());
            assert_eq!(verify(method, path, &upper, body), wrong);
            assert!(
                verify(method, path, &signed, &format!("{body} ")).is_err(),
                "{path}"
            );
        }
    }

    /// Signs what a library would, so that the wire form can be looked at alone.
    fn signed(string: &str) -> String {
        hex(&signers()[0], string)
    }

    #[test]
    fn a_prefix_counts_only_when_it_is_configured() {
        let signature = "69023b021a775289caed0598bd3dffe2ad9b2f59872d23a3cc7edb5148a65b6f";
        let query =
            format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b&auth_signature={signature}");
        let path = "/apps/app-id/users/42/terminate_connections";
        for (prefix, believed) in [
            ("/realtime", true),
            ("/realtime/", true),
            ("/", false),
            ("", false),
            ("/real", false),
        ] {
            let verified = verify_at(NOW_S, prefix, "POST", path, &query, "{}");
            assert_eq!(verified.is_ok(), believed, "{prefix}");
        }
    }

    #[test]
    fn values_that_a_library_left_unescaped_are_believed_as_they_stand() {
        let path = "/apps/app-id/channels";
        for value in ["a+b", "100%", "a%zz", "%41", "é"] {
            let signature = signed(&format!("GET\n{path}\n{AUTH}&filter_by_prefix={value}"));
            let query = format!("filter_by_prefix={value}&{AUTH}&auth_signature={signature}");
            assert_eq!(verify("GET", path, &query, ""), Ok(()), "{value}");
        }
        let signature = signed(&format!("GET\n{path}\na=&{AUTH}&b="));
        for query in [format!("b&a=&{AUTH}"), format!("a&{AUTH}&b=")] {
            let query = format!("{query}&auth_signature={signature}");
            assert_eq!(verify("GET", path, &query, ""), Ok(()), "{query}");
        }
        let signature = signed(&format!("GET\n{path}\na=b=c&{AUTH}"));
        let query = format!("a=b=c&{AUTH}&auth_signature={signature}");
        assert_eq!(verify("GET", path, &query, ""), Ok(()));
    }

    /// Method, what the library has signed as path and parameters, what its HTTP stack sends.
    const LIBRARIES: [(&str, &str, &str, &str, &str); 18] = [
        // Node: signs all as it is; the URL class escapes a space but not a plus.
        ("node", "GET", "/c", "p=a b+c", "/c?p=a%20b+c"),
        ("node", "GET", "/c", "p=é, é", "/c?p=%C3%A9,%20%C3%A9"),
        ("node", "GET", "/c/a@b", "info=a,b", "/c/a@b?info=a,b"),
        // PHP: signs all as it is; 6 and before write it so too, 7 escapes by RFC 3986.
        ("php 6", "GET", "/c", "p=a+b", "/c?p=a+b"),
        ("php 6", "GET", "/c", "p=a b+c", "/c?p=a%20b+c"),
        ("php 7", "GET", "/c", "p=a b+c", "/c?p=a%20b%2Bc"),
        ("php 7", "GET", "/c", "info=a,b", "/c?info=a%2Cb"),
        // PHP: an option `path` stands in the URL and not in what is signed.
        (
            "php",
            "POST",
            "/apps/1/events",
            "p=1",
            "/realtime/apps/1/events?p=1",
        ),
        // Python: signs all as it is; requests escapes what a URL may not hold.
        ("python", "GET", "/c", "p=a b+c,d", "/c?p=a%20b+c,d"),
        ("python", "GET", "/c", "p=100%", "/c?p=100%25"),
        // Ruby: keys in lower case; a space is written as plus.
        ("ruby", "GET", "/c", "p=a b+c,d", "/c?p=a+b%2Bc%2Cd"),
        ("ruby", "GET", "/c", "p=a", "/c?P=a"),
        // Go: unescapes what it escaped, signs that and sends it.
        ("go", "GET", "/c", "p=a+b,c", "/c?p=a+b,c"),
        // Java: signs all as it is; a space is written as plus, a path is escaped.
        ("java", "GET", "/c", "p=a b+c,d", "/c?p=a+b%2Bc%2Cd"),
        ("java", "GET", "/c/a@b;c", "p=a", "/c/a%40b%3Bc?p=a"),
        // .NET: signs all as it is; the URI class escapes a space but not a plus.
        ("dotnet", "GET", "/c", "p=a b+c", "/c?p=a%20b+c"),
        // Any, behind a proxy that strips the prefix.
        (
            "proxy",
            "POST",
            "/realtime/apps/1/events",
            "p=1",
            "/apps/1/events?p=1",
        ),
        (
            "proxy",
            "GET",
            "/realtime/c/a@b",
            "p=a b+c",
            "/c/a%40b?p=a%20b+c",
        ),
    ];

    #[test]
    fn what_each_official_library_signs_and_sends_is_believed() {
        for (library, method, path, parameters, target) in LIBRARIES {
            // `auth_...` sorts before the parameters of the table.
            let signature = signed(&format!("{method}\n{path}\n{AUTH}&{parameters}"));
            let (raw_path, query) = target.split_once('?').expect("a query");
            let query = format!("{AUTH}&{query}&auth_signature={signature}");
            assert_eq!(
                verify(method, raw_path, &query, ""),
                Ok(()),
                "{library}: {target}"
            );
        }
    }

    #[test]
    fn a_prefix_may_be_signed_or_not_and_arrive_or_not_but_only_the_configured_one() {
        for (signed_path, raw_path, believed) in [
            ("/realtime/apps/1/x", "/realtime/apps/1/x", true),
            ("/realtime/apps/1/x", "/apps/1/x", true),
            ("/apps/1/x", "/realtime/apps/1/x", true),
            ("/apps/1/x", "/apps/1/x", true),
            ("/other/apps/1/x", "/apps/1/x", false),
            ("/apps/1/x", "/other/apps/1/x", false),
            ("/realtime/realtime/apps/1/x", "/realtime/apps/1/x", false),
        ] {
            let signature = signed(&format!("POST\n{signed_path}\n{AUTH}"));
            let query = format!("{AUTH}&auth_signature={signature}");
            let verified = verify("POST", raw_path, &query, "");
            assert_eq!(verified.is_ok(), believed, "{signed_path} as {raw_path}");
        }
    }

    #[test]
    fn a_signature_of_one_request_does_not_do_for_another() {
        let wrong = Err(HttpAuthError::WrongSignature);
        for (parameters, other) in [
            ("p=1&q=2", "p=1%26q%3D2"),
            ("p=1&q=2", "p=1%26q=2"),
            ("p=1&q=2", "p%3D1&q=2"),
            ("p=1&q=2", "p=1&%71%3D2"),
            ("p=q=r", "p%3Dq=r"),
            ("p=x&q=+%20", "p=x%26q=%2B%2520"),
        ] {
            let signature = signed(&format!("GET\n/c\n{AUTH}&{parameters}"));
            let query = |it: &str| format!("{AUTH}&{it}&auth_signature={signature}");
            assert_eq!(
                verify("GET", "/c", &query(parameters), ""),
                Ok(()),
                "{parameters}"
            );
            assert_eq!(verify("GET", "/c", &query(other), ""), wrong, "{other}");
        }
        // Where the path ends is told by a line feed.
        let signature = signed(&format!("GET\n/c\na=\n{AUTH}"));
        let query = format!("{AUTH}&auth_signature={signature}");
        assert_eq!(verify("GET", "/c%0Aa=", &query, ""), wrong);
    }

    #[test]
    fn a_head_request_is_signed_as_head_or_as_what_it_stands_for() {
        for (signed_method, method, believed) in [
            ("HEAD", "HEAD", true),
            ("GET", "HEAD", true),
            ("HEAD", "GET", false),
            ("POST", "HEAD", false),
        ] {
            let signature = signed(&format!("{signed_method}\n/c\n{AUTH}"));
            let query = format!("{AUTH}&auth_signature={signature}");
            let verified = verify(method, "/c", &query, "");
            assert_eq!(verified.is_ok(), believed, "{signed_method} as {method}");
        }
    }

    #[test]
    fn a_clock_may_be_off_by_exactly_600_seconds() {
        let query = format!(
            "{AUTH}&auth_signature=f5cc9dde83ebbd9328d72e076c2b869cdffad888c45f61285077cfc4ca1eca65"
        );
        for (now_s, expected) in [
            (NOW_S - 601, Err(HttpAuthError::Skew)),
            (NOW_S - 600, Ok(())),
            (NOW_S - 599, Ok(())),
            (NOW_S + 599, Ok(())),
            (NOW_S + 600, Ok(())),
            (NOW_S + 601, Err(HttpAuthError::Skew)),
            (0, Err(HttpAuthError::Skew)),
            (u64::MAX, Err(HttpAuthError::Skew)),
        ] {
            assert_eq!(
                verify_at(now_s, "/", "GET", "/apps/app-id/channels", &query, ""),
                expected,
                "{now_s}"
            );
        }
    }

    #[test]
    fn each_auth_parameter_is_needed_once_and_in_form() {
        use HttpAuthError::*;
        let time = "auth_timestamp=1700000000";
        for (query, error) in [
            (String::new(), Missing("auth_key")),
            (format!("{time}&auth_version=1.0&auth_signature=x"), Missing("auth_key")),
            ("auth_key=app-key&auth_version=1.0&auth_signature=x".to_owned(), Missing("auth_timestamp")),
            (format!("auth_key=app-key&{time}&auth_signature=x"), Missing("auth_version")),
            (AUTH.to_owned(), Missing("auth_signature")),
            (format!("{AUTH}&auth_signature="), Missing("auth_signature")),
            (format!("{AUTH}&auth_signature"), Missing("auth_signature")),
            (format!("auth_key=&{time}&auth_version=1.0&auth_signature=x"), Missing("auth_key")),
            (format!("{AUTH}&auth_signature=x&auth_key=app-key"), Repeated("auth_key")),
            (format!("{AUTH}&auth_signature=x&AUTH_KEY=other"), Repeated("auth_key")),
            (format!("{AUTH}&auth_signature=x&auth_signature=x"), Repeated("auth_signature")),
            (format!("{AUTH}&auth_signature=x&body_md5=a&body_md5=a"), Repeated("body_md5")),
            (format!("auth_key=app-key&{time}&auth_version=2.0&auth_signature=x"), Version),
            (format!("auth_key=app-key&{time}&auth_version=1&auth_signature=x"), Version),
            (format!("auth_key=other&{time}&auth_version=1.0&auth_signature=x"), WrongKey),
            ("auth_key=app-key&auth_timestamp=1e9&auth_version=1.0&auth_signature=x".to_owned(), Timestamp),
            ("auth_key=app-key&auth_timestamp=-1&auth_version=1.0&auth_signature=x".to_owned(), Timestamp),
            (
                "auth_key=app-key&auth_timestamp=99999999999999999999&auth_version=1.0&auth_signature=x"
                    .to_owned(),
                Timestamp,
            ),
            ("auth_key=app-key&auth_timestamp=17&auth_version=1.0&auth_signature=x".to_owned(), Skew),
            (format!("{AUTH}&auth_signature=%ff"), WrongSignature),
        ] {
            assert_eq!(verify("GET", "/apps/app-id/channels", &query, ""), Err(error), "{query}");
        }
    }

    #[test]
    fn a_forged_request_is_refused_before_its_body_is_looked_at() {
        let (path, wrong) = ("/apps/app-id/x", Err(HttpAuthError::WrongSignature));
        let forged = format!("{AUTH}&body_md5=00&auth_signature={}", "0".repeat(64));
        assert_eq!(verify("POST", path, &forged, "{}"), wrong);

        let signature = signed(&format!("POST\n{path}\n{AUTH}&body_md5=00"));
        let signed = format!("{AUTH}&body_md5=00&auth_signature={signature}");
        for (query, hashed, error) in [
            (&forged, 0, HttpAuthError::WrongSignature),
            (&signed, 1, HttpAuthError::BodyMd5),
        ] {
            let mut hashes = 0;
            let verified = verify_request_hashing(
                RequestToVerify {
                    method: "POST",
                    raw_path: path,
                    query,
                    body: b"{}",
                    app_key: KEY,
                    signers: &signers(),
                    now_s: NOW_S,
                    path_prefix: "",
                },
                |body| {
                    hashes += 1;
                    md5_hex(body)
                },
            );
            assert_eq!((verified, hashes), (Err(error), hashed), "{query}");
        }
    }

    #[test]
    fn the_digest_of_the_body_is_needed_when_there_is_a_body() {
        let of_empty = "d41d8cd98f00b204e9800998ecf8427e";
        let of_object = "99914b932bd37a50b983c5e7c90ae93b";
        for (method, body, md5, expected) in [
            ("POST", "", None, Ok(())),
            ("POST", "", Some(of_empty), Ok(())),
            ("GET", "", Some(of_empty), Ok(())),
            ("GET", "{}", Some(of_object), Ok(())),
            ("POST", "{}", Some(of_object), Ok(())),
            ("POST", "{}", None, Err(HttpAuthError::Missing("body_md5"))),
            ("GET", "{}", None, Err(HttpAuthError::Missing("body_md5"))),
            ("POST", "{}", Some(of_empty), Err(HttpAuthError::BodyMd5)),
            (
                "POST",
                "{}",
                Some(&of_object.to_uppercase()),
                Err(HttpAuthError::BodyMd5),
            ),
            ("POST", "", Some(of_object), Err(HttpAuthError::BodyMd5)),
            ("POST", "", Some(""), Err(HttpAuthError::BodyMd5)),
            ("POST", "{}", Some(""), Err(HttpAuthError::BodyMd5)),
        ] {
            let path = "/apps/app-id/x";
            let query = md5.map_or_else(|| AUTH.to_owned(), |md5| format!("{AUTH}&body_md5={md5}"));
            let signature = signed(&format!("{method}\n{path}\n{query}"));
            let query = format!("{query}&auth_signature={signature}");
            assert_eq!(
                verify(method, path, &query, body),
                expected,
                "{method} {body} {md5:?}"
            );
        }
    }
}
