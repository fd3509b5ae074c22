//! Signatures. The bytes: lines, one field each: socket id, channel, data, method, path, query, body, forged auth.
//!
//! Owns: what is signed in each case, told a second time; what of a signed thing may change.
//! May depend on: `sockudo::protocol::{auth, request_auth}`; `hmac`, `sha2`, `md-5`.
//! Invariants: the secret has signed nothing that stands in an input, so whatever an input brings is forged.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use sockudo::protocol::{
    auth::{AuthError, Signer, verify_channel, verify_sign_in},
    request_auth::{HttpAuthError, RequestToVerify, verify_request},
};

pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut fields = text.splitn(8, '\n');
    let [socket, channel, data, method, path, query, body, forged] =
        std::array::from_fn(|_| fields.next().unwrap_or_default());
    subscription(socket, channel, None, forged);
    subscription(socket, channel, Some(data), forged);
    sign_in(socket, data, forged);
    request(method, path, query, body);
    forged_request(method, path, query, body, forged);
}

fn subscription(socket: &str, channel: &str, data: Option<&str>, forged: &str) {
    let signers = signers();
    let signed = match data {
        Some(data) => format!("{socket}:{channel}:{data}"),
        None => format!("{socket}:{channel}"),
    };
    let verify = |auth: &str| verify_channel(KEY, &signers, auth, socket, channel, data);
    only_the_right_one(&signed, forged, verify);
    let auth = format!("{KEY}:{}", signature(&signed));
    let elsewhere = |socket: &str, channel: &str, data: Option<&str>| {
        let refused = verify_channel(KEY, &signers, &auth, socket, channel, data);
        assert_eq!(refused, Err(AuthError::WrongSignature), "{signed:?}");
    };
    elsewhere(&format!("{socket}1"), channel, data);
    elsewhere(socket, &format!("{channel}x"), data);
    elsewhere(
        socket,
        channel,
        Some(&format!("{}x", data.unwrap_or_default())),
    );
    if data.is_some() {
        elsewhere(socket, channel, None);
    }
}

fn sign_in(socket: &str, data: &str, forged: &str) {
    let signers = signers();
    let signed = format!("{socket}::user::{data}");
    let verify = |auth: &str| verify_sign_in(KEY, &signers, auth, socket, data);
    only_the_right_one(&signed, forged, verify);
}

/// The right auth is believed; none that differs from it in a single character, and nothing forged.
fn only_the_right_one(signed: &str, forged: &str, verify: impl Fn(&str) -> Result<(), AuthError>) {
    let right = signature(signed);
    assert_eq!(verify(&format!("{KEY}:{right}")), Ok(()), "{signed:?}");
    // The first, the last, and one of the input's choice.
    for at in [0, right.len() - 1, signed.len() % right.len()] {
        let digit = if &right[at..=at] == "0" { "1" } else { "0" };
        let wrong = format!("{KEY}:{}{digit}{}", &right[..at], &right[at + 1..]);
        assert_eq!(verify(&wrong), Err(AuthError::WrongSignature), "{wrong}");
    }
    for wrong in [
        right[1..].to_owned(),
        right[..right.len() - 1].to_owned(),
        format!("{right}0"),
        format!(" {right}"),
        format!(":{right}"),
        String::new(),
        signature_by("another secret", signed),
    ] {
        let refused = verify(&format!("{KEY}:{wrong}"));
        assert_eq!(refused, Err(AuthError::WrongSignature), "{wrong}");
    }
    let upper = right.to_uppercase();
    assert_eq!(verify(&format!("{KEY}:{upper}")).is_ok(), upper == right);
    assert_eq!(verify(&format!("{KEY}x:{right}")), Err(AuthError::WrongKey));
    assert_eq!(verify(&format!(":{right}")), Err(AuthError::WrongKey));
    assert_eq!(verify(&right), Err(AuthError::NoColon));
    let judged = match forged.split_once(':') {
        None => Err(AuthError::NoColon),
        // Who sees what is compared, as a fuzzer does, finds the right one.
        Some((KEY, signature)) if signature == right => Ok(()),
        Some((KEY, _)) => Err(AuthError::WrongSignature),
        Some(_) => Err(AuthError::WrongKey),
    };
    assert_eq!(verify(forged), judged, "{forged:?}");
}

/// A request that is signed as the protocol says is believed in each spelling of its query; changed, it is not.
fn request(method: &str, path: &str, query: &str, body: &str) {
    // Of the input's parameters only names and values count; which spelling they have is chosen here.
    let mut parameters: BTreeMap<String, &str> = query
        .split('&')
        .map(|segment| segment.split_once('=').unwrap_or((segment, "")))
        .filter(|(key, value)| !format!("{key}{value}").contains(['%', '+']))
        .filter(|(key, value)| !(key.is_empty() && value.is_empty()))
        .map(|(key, value)| (key.to_ascii_lowercase(), value))
        .filter(|(key, _)| !OURS.contains(&&**key))
        .collect();
    let (now, digest) = (NOW_S.to_string(), hex(&Md5::digest(body)));
    parameters.insert("auth_key".to_owned(), KEY);
    parameters.insert("auth_timestamp".to_owned(), &now);
    parameters.insert("auth_version".to_owned(), "1.0");
    if !body.is_empty() {
        parameters.insert("body_md5".to_owned(), &digest);
    }
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let canonical = pairs.join("&");
    let method_signed = method.to_ascii_uppercase();
    let right = signature(&format!("{method_signed}\n{path}\n{canonical}"));

    let backwards: Vec<&str> = pairs.iter().rev().map(|pair| &**pair).collect();
    let escaped: Vec<String> = parameters
        .iter()
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect();
    for wire in [
        format!("{canonical}&auth_signature={right}"),
        format!("auth_signature={right}&{}", backwards.join("&")),
        format!("&{}&&AUTH_signature={right}&", escaped.join("&")),
    ] {
        assert_eq!(verify(method, path, &wire, body), Ok(()), "{wire}");
    }

    let wire = format!("{canonical}&auth_signature={right}");
    let wrong = Err(HttpAuthError::WrongSignature);
    assert_eq!(verify(&format!("{method}X"), path, &wire, body), wrong);
    assert_eq!(verify(method, &format!("{path}x"), &wire, body), wrong);
    assert_eq!(verify(method, path, &format!("{wire}&more=1"), body), wrong);
    let other_body = verify(method, path, &wire, &format!("{body} "));
    assert!(other_body.is_err(), "{wire}");
    let unsigned = verify(method, path, &canonical, body);
    assert_eq!(unsigned, Err(HttpAuthError::Missing("auth_signature")));
    let twice = verify(
        method,
        path,
        &format!("{wire}&auth_signature={right}"),
        body,
    );
    assert_eq!(twice, Err(HttpAuthError::Repeated("auth_signature")));
}

/// Whatever an input makes up is refused, also behind the parameters that let it come as far as the signature.
fn forged_request(method: &str, path: &str, query: &str, body: &str, forged: &str) {
    assert!(verify(method, path, query, body).is_err(), "{query:?}");
    let digest = hex(&Md5::digest(body));
    let far = format!(
        "{query}&auth_key={KEY}&auth_timestamp={NOW_S}&auth_version=1.0&body_md5={digest}&auth_signature={forged}"
    );
    assert!(verify(method, path, &far, body).is_err(), "{far:?}");
}

fn verify(method: &str, raw_path: &str, query: &str, body: &str) -> Result<(), HttpAuthError> {
    verify_request(RequestToVerify {
        method,
        raw_path,
        query,
        body: body.as_bytes(),
        app_key: KEY,
        signers: &signers(),
        now_s: NOW_S,
        path_prefix: "/realtime",
    })
    .map(|_| ())
}

/// Two, as during a rotation; the second signs.
fn signers() -> [Signer; 2] {
    ["the next secret", SECRET].map(Signer::new)
}

fn signature(signed: &str) -> String {
    signature_by(SECRET, signed)
}

fn signature_by(secret: &str, signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(signed.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes all");
        out
    })
}

/// Every byte as an escape, in upper and lower case by turns.
fn escape(text: &str) -> String {
    text.bytes()
        .enumerate()
        .fold(String::new(), |mut out, (at, byte)| {
            let written = match at % 2 {
                0 => write!(out, "%{byte:02X}"),
                _ => write!(out, "%{byte:02x}"),
            };
            written.expect("a string takes all");
            out
        })
}

const KEY: &str = "app-key";
const SECRET: &str = "a secret that has signed no input";
const NOW_S: u64 = 1_700_000_000;
const OURS: [&str; 5] = [
    "auth_key",
    "auth_timestamp",
    "auth_version",
    "auth_signature",
    "body_md5",
];
