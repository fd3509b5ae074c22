//! Signatures as an application's own server would make them.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha2::Sha256;

/// Lower-case hex HMAC-SHA256.
pub(crate) fn hmac_hex(secret: &str, message: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    mac.update(message);
    hex(&mac.finalize().into_bytes())
}

pub(crate) fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `auth` of a private channel, or of a presence channel when `channel_data` is given.
pub(crate) fn channel_auth(
    key: &str,
    secret: &str,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> String {
    let text = match channel_data {
        Some(channel_data) => format!("{socket_id}:{channel}:{channel_data}"),
        None => format!("{socket_id}:{channel}"),
    };
    format!("{key}:{}", hmac_hex(secret, text.as_bytes()))
}

/// `auth` of a sign-in.
pub(crate) fn signin_auth(key: &str, secret: &str, socket_id: &str, user_data: &str) -> String {
    format!(
        "{key}:{}",
        hmac_hex(secret, format!("{socket_id}::user::{user_data}").as_bytes())
    )
}

/// The query of a signed API request. `parameters` are signed as given and go on the wire as given.
pub(crate) fn api_query(
    (key, secret): (&str, &str),
    method: &str,
    path: &str,
    parameters: &[(&str, &str)],
    body: &[u8],
    timestamp: u64,
) -> String {
    let mut all: Vec<(String, String)> = vec![
        ("auth_key".into(), key.into()),
        ("auth_timestamp".into(), timestamp.to_string()),
        ("auth_version".into(), "1.0".into()),
    ];
    if !body.is_empty() {
        all.push(("body_md5".into(), md5_hex(body)));
    }
    all.extend(
        parameters
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into())),
    );
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let query = all
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("&");
    let signature = hmac_hex(secret, format!("{method}\n{path}\n{query}").as_bytes());
    format!("{query}&auth_signature={signature}")
}

pub(crate) fn unix_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs()
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..4 {
            if index <= chunk.len() {
                text.push(char::from(
                    ALPHABET[(word >> (18 - 6 * index) & 63) as usize],
                ));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[test]
fn the_helpers_sign_as_the_published_examples_say() {
    assert_eq!(
        channel_auth(
            "278d425bdf160c739803",
            "7ad3773142a6692b25b8",
            "1234.1234",
            "private-foobar",
            None
        ),
        "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    );
    let body = br#"{"name":"my-event","channels":["my-channel"],"data":"{\"hello\":\"world\"}"}"#;
    let query = api_query(
        ("app-key", "app-secret"),
        "POST",
        "/apps/app-id/events",
        &[],
        body,
        1_700_000_000,
    );
    assert!(
        query.ends_with("=9b1548d1fed48d2437f0a82a6ea33b43d1fbcdfb998be18906e5e17e3de7c9e1"),
        "{query}"
    );
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}
