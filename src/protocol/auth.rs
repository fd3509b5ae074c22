//! Signatures of subscriptions, sign-ins and webhooks.
//!
//! Owns: `Signer`, what is signed in each case, and the comparison.
//! May depend on: `hmac`, `sha2`, `subtle`.
//! Invariants: a signature is compared in constant time after a length check; no error and no
//! `Debug` output holds a secret or an expected signature.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac, block_api::HmacCore, digest::block_api::CoreProxy};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use thiserror::Error;

/// HMAC-SHA256 keyed with one app secret. The key schedule is done once; each signature clones the
/// keyed state.
// 80 bytes; with the buffer of a message that is being signed it would be 152.
#[derive(Clone)]
pub struct Signer {
    keyed: HmacCore<Sha256>,
}

impl Signer {
    pub fn new(secret: &str) -> Self {
        let keyed =
            HmacCore::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
        Self { keyed }
    }

    /// Lower-case hex signature of the parts, one after another.
    pub fn sign_hex(&self, parts: &[&[u8]]) -> [u8; 64] {
        let mut mac = Hmac::<Sha256>::compose(self.keyed.clone(), <_>::default());
        for part in parts {
            mac.update(part);
        }
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut hex = [0; 64];
        write_hex(&digest, &mut hex);
        hex
    }

    /// Whether the other one signs and verifies alike.
    pub fn is_same(&self, other: &Self) -> bool {
        self.sign_hex(&[]).ct_eq(&other.sign_hex(&[])).into()
    }

    /// Whether `hex` is the signature of the parts. Upper case is refused, as Pusher's libraries
    /// never send it.
    pub fn verify_hex(&self, parts: &[&[u8]], hex: &str) -> bool {
        // ct_eq on slices compares lengths first.
        self.sign_hex(parts).as_slice().ct_eq(hex.as_bytes()).into()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}

/// Verifies the `auth` of a subscription. `channel_data` takes part exactly as received; pass
/// `None` when it is absent or empty. Several signers are the secrets of a rotation: any may have
/// signed.
///
/// ```
/// use sockudo::protocol::auth::{Signer, verify_channel};
///
/// let signers = [Signer::new("app-secret")];
/// let auth = "app-key:18679908115f43a0872c55d35b9731250f5480e854f0b2d5f753d2e10c327c22";
/// assert!(verify_channel("app-key", &signers, auth, "1234.5678", "private-foobar", None).is_ok());
/// assert!(verify_channel("app-key", &signers, auth, "9.9", "private-foobar", None).is_err());
/// ```
pub fn verify_channel(
    app_key: &str,
    signers: &[Signer],
    auth: &str,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> Result<(), AuthError> {
    let signed = [
        socket_id,
        ":",
        channel,
        ":",
        channel_data.unwrap_or_default(),
    ]
    .map(str::as_bytes);
    let (without_data, _) = signed.split_at(3);
    verify_keyed(
        app_key,
        signers,
        auth,
        if channel_data.is_some() {
            &signed
        } else {
            without_data
        },
    )
}

/// Verifies the `auth` of a sign-in.
pub fn verify_sign_in(
    app_key: &str,
    signers: &[Signer],
    auth: &str,
    socket_id: &str,
    user_data: &str,
) -> Result<(), AuthError> {
    let signed = [socket_id, "::user::", user_data].map(str::as_bytes);
    verify_keyed(app_key, signers, auth, &signed)
}

fn verify_keyed(
    app_key: &str,
    signers: &[Signer],
    auth: &str,
    signed: &[&[u8]],
) -> Result<(), AuthError> {
    let (key, signature) = auth.split_once(':').ok_or(AuthError::NoColon)?;
    if key != app_key {
        return Err(AuthError::WrongKey);
    }
    match signers
        .iter()
        .any(|signer| signer.verify_hex(signed, signature))
    {
        true => Ok(()),
        false => Err(AuthError::WrongSignature),
    }
}

/// Why the `auth` of a subscription or sign-in was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("auth has no colon between key and signature")]
    NoColon,
    #[error("auth names another app key")]
    WrongKey,
    #[error("auth has a wrong signature")]
    WrongSignature,
}

/// Writes lower-case hex; `hex` has two places for each byte.
pub(super) fn write_hex(bytes: &[u8], hex: &mut [u8]) {
    let digit = |nibble: u8| {
        if nibble < 10 {
            b'0' + nibble
        } else {
            b'a' + nibble - 10
        }
    };
    for (byte, places) in bytes.iter().zip(hex.as_chunks_mut::<2>().0) {
        *places = [digit(byte >> 4), digit(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "app-key";
    const SOCKET: &str = "1234.5678";

    fn signers() -> Vec<Signer> {
        vec![Signer::new("app-secret")]
    }

    fn hex(signer: &Signer, text: &str) -> String {
        String::from_utf8(signer.sign_hex(&[text.as_bytes()]).to_vec()).expect("hex")
    }

    #[test]
    fn subscriptions_of_the_published_vectors_are_believed() {
        // V1 to V4, V6 to V9: channel, channel_data, signature.
        for (channel, channel_data, signature) in [
            (
                "private-foobar",
                None,
                "18679908115f43a0872c55d35b9731250f5480e854f0b2d5f753d2e10c327c22",
            ),
            (
                "presence-foobar",
                Some(r#"{"user_id":"10","user_info":{"name":"Ann"}}"#),
                "d951abf59ca0e1708bbdb944df3ac9527e3f02eb501e56d4386a0dc2f9303883",
            ),
            (
                "presence-foobar",
                Some(r#"{"user_id":10,"user_info":{"name":"Ann"}}"#),
                "6b848d2d7afa33d41d6ec86a80c49ea08ef440cf7ca64dcde0786de62d7df6ac",
            ),
            (
                "private-encrypted-foobar",
                None,
                "164490eeca3c4f0d31cf6f5cb569d825c6bff9e6472f1e9587aa2f9bbd9ada6f",
            ),
            (
                "private-cache-foobar",
                None,
                "2b4cfbef8899ba634b7791a8b117e64e10b102f0368761695847e5701e01d6ac",
            ),
            (
                "private-encrypted-cache-foobar",
                None,
                "1ed1943d311d276806b11bab49a8219085e40f3867b601b63840a00732efc346",
            ),
            (
                "presence-foobar",
                Some(r#"{"user_id":"é","user_info":{"n":"日本"}}"#),
                "2b791966953627818295d7e146718b25e369d6d49d67489e0b3e4a1a09c57bc0",
            ),
            (
                "presence-foobar",
                None,
                "4d0e8219b7642cbef7e335eddcbd513694fce06298c347c4869a23c52027a2cc",
            ),
        ] {
            let auth = format!("{KEY}:{signature}");
            let verify = |auth: &str, socket, channel, data| {
                verify_channel(KEY, &signers(), auth, socket, channel, data)
            };
            assert_eq!(
                verify(&auth, SOCKET, channel, channel_data),
                Ok(()),
                "{channel} {channel_data:?}"
            );

            let wrong = Err(AuthError::WrongSignature);
            let flipped = match auth.strip_suffix('2') {
                Some(start) => format!("{start}3"),
                None => format!("{}2", &auth[..auth.len() - 1]),
            };
            assert_eq!(verify(&flipped, SOCKET, channel, channel_data), wrong);
            let upper = format!("{KEY}:{}", signature.to_uppercase());
            assert_eq!(verify(&upper, SOCKET, channel, channel_data), wrong);
            assert_eq!(
                verify(&format!("{auth}0"), SOCKET, channel, channel_data),
                wrong
            );
            assert_eq!(
                verify(&auth[..auth.len() - 1], SOCKET, channel, channel_data),
                wrong
            );
            assert_eq!(verify(&auth, "1234.5679", channel, channel_data), wrong);
            assert_eq!(verify(&auth, SOCKET, "private-other", channel_data), wrong);
            assert_eq!(verify(&auth, SOCKET, channel, Some("{}")), wrong);
            assert_eq!(
                verify(signature, SOCKET, channel, channel_data),
                Err(AuthError::NoColon)
            );
            let other_key = format!("App-key:{signature}");
            assert_eq!(
                verify(&other_key, SOCKET, channel, channel_data),
                Err(AuthError::WrongKey)
            );
            assert_eq!(verify("app-key:", SOCKET, channel, channel_data), wrong);
            assert_eq!(
                verify("", SOCKET, channel, channel_data),
                Err(AuthError::NoColon)
            );
        }
    }

    #[test]
    fn the_sign_in_of_the_published_vector_is_believed() {
        // V5.
        let user_data = r#"{"id":"42","watchlist":["7","8"]}"#;
        let auth = "app-key:1313db5311758696b61a598b5dd494655a81637f08c2e831b6a311b96460ff82";
        assert_eq!(
            verify_sign_in(KEY, &signers(), auth, SOCKET, user_data),
            Ok(())
        );
        let spaced = r#"{"id": "42","watchlist":["7","8"]}"#;
        for (auth, socket, data, error) in [
            (auth, SOCKET, spaced, AuthError::WrongSignature),
            (auth, "1.1", user_data, AuthError::WrongSignature),
            ("app-key:13", SOCKET, user_data, AuthError::WrongSignature),
            ("other:13", SOCKET, user_data, AuthError::WrongKey),
            ("app-key", SOCKET, user_data, AuthError::NoColon),
        ] {
            assert_eq!(
                verify_sign_in(KEY, &signers(), auth, socket, data),
                Err(error)
            );
        }
    }

    #[test]
    fn the_documentation_of_pusher_cross_checks() {
        let signer = Signer::new("7ad3773142a6692b25b8");
        for (signed, signature) in [
            (
                "1234.1234:private-foobar",
                "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
            ),
            (
                r#"1234.1234::user::{"id":"12345"}"#,
                "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
            ),
            (
                r#"1234.1234:presence-foobar:{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#,
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
        ] {
            assert_eq!(hex(&signer, signed), signature, "{signed}");
        }
    }

    #[test]
    fn during_a_rotation_either_secret_may_have_signed() {
        let both = [Signer::new("new"), Signer::new("app-secret")];
        let auth = "app-key:18679908115f43a0872c55d35b9731250f5480e854f0b2d5f753d2e10c327c22";
        assert_eq!(
            verify_channel(KEY, &both, auth, SOCKET, "private-foobar", None),
            Ok(())
        );
        let new_alone = &both[..1];
        let refused = verify_channel(KEY, new_alone, auth, SOCKET, "private-foobar", None);
        assert_eq!(refused, Err(AuthError::WrongSignature));
        let none = verify_channel(KEY, &[], auth, SOCKET, "private-foobar", None);
        assert_eq!(none, Err(AuthError::WrongSignature));
    }

    #[test]
    fn a_signer_never_prints_its_secret() {
        assert_eq!(format!("{:?}", Signer::new("app-secret")), "Signer(***)");
    }

    /// Signs what a library would, so that the wire form can be looked at alone.
    fn signed(string: &str) -> String {
        hex(&signers()[0], string)
    }

    #[test]
    fn webhook_bodies_of_the_published_vectors_are_signed_alike() {
        // V23, V24.
        for (body, signature) in [
            (
                r#"{"time_ms":1700000000000,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#,
                "fec9fff324b82111ea03affc886e951bec5ee7a9e365bfd05cf254414c990a1a",
            ),
            (
                r#"{"time_ms":1700000000000,"events":[{"name":"member_added","channel":"presence-foobar","user_id":"10"},{"name":"cache_miss","channel":"cache-foo"}]}"#,
                "7d99a9e22fdf464a28e6407a74fc1249cb19fa2cec9abebb594dd22c130d4af2",
            ),
        ] {
            assert_eq!(signed(body), signature);
        }
    }
}
