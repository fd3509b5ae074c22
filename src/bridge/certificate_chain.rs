//! What clients will not like in a chain of certificates that the port can show.
//!
//! Owns: `doubts`: dates, and whether each certificate is followed by the one that vouches for it.
//! May depend on: rustls, webpki, `metrics::exposition` for dates.
//! Invariants: no key is read here, and nobody is asked; whom clients trust is not known, so a chain may end anywhere.

use rustls::{
    CertificateError, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};
use webpki::EndEntityCert;

use crate::metrics::exposition::rfc3339;

/// A sentence for each, without the file's name. The first certificate is the key's own.
pub(super) fn doubts(chain: &[CertificateDer<'_>], now: UnixTime) -> Vec<String> {
    let dates = chain.iter().enumerate().filter_map(|(index, certificate)| {
        let wrong = of_dates(certificate, now)?;
        let which = match index {
            0 => "the certificate".to_owned(),
            _ => named(index, certificate),
        };
        Some(format!("clients will refuse it: {which} {wrong}"))
    });
    dates.chain(of_order(chain)).collect()
}

/// Dates are looked at before who vouches for it is looked for.
fn of_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<String> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let nobody = RootCertStore::empty();
    let looked_at =
        verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], now, algorithms.all);
    let Err(rustls::Error::InvalidCertificate(error)) = looked_at else {
        return None;
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are not about dates"
    )]
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            Some(format!("ran out at {}", rfc3339(not_after.as_secs())))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let from = rfc3339(not_before.as_secs());
            Some(format!("is not valid before {from}"))
        }
        CertificateError::Expired => Some("has run out".to_owned()),
        CertificateError::NotValidYet => Some("is not valid yet".to_owned()),
        _ => None,
    }
}

/// What of the chain is missing or elsewhere, at the first place where it breaks: the rest follows from that.
fn of_order(chain: &[CertificateDer<'_>]) -> Option<String> {
    let read = chain.iter().map(|it| EndEntityCert::try_from(it).ok());
    let read: Vec<EndEntityCert<'_>> = read.collect::<Option<_>>()?;
    let breaks = |pair: &[EndEntityCert<'_>]| match pair {
        [one, next] => one.issuer() != next.subject(),
        _ => false,
    };
    let index = read.windows(2).position(breaks)?;
    let (one, issuer) = (named(index, &chain[index]), read[index].issuer());
    let next = named(index + 1, &chain[index + 1]);
    if issuer == read[index].subject() {
        return Some(format!(
            "the chain is too long: {one} vouches for itself, and {next} follows it"
        ));
    }
    let elsewhere = read.iter().position(|it| it.subject() == issuer);
    let issuer = common_name(issuer);
    Some(match elsewhere {
        Some(at) => format!(
            "the chain is in the wrong order, and many clients will refuse it: {one} is vouched for by {}, and followed \
             by {next}",
            named(at, &chain[at])
        ),
        None => format!(
            "a certificate is missing in the chain, and many clients will refuse it: {one} is vouched for by {issuer}, \
             and followed by {next}"
        ),
    })
}

/// As its place in the file and its subject say.
fn named(index: usize, certificate: &CertificateDer<'_>) -> String {
    let read = EndEntityCert::try_from(certificate);
    let name = read.map_or_else(|_| NAMELESS.to_owned(), |it| common_name(it.subject()));
    format!("number {} ({name})", index + 1)
}

/// Of an X.501 name, in DER; for people.
fn common_name(name: &[u8]) -> String {
    let begins = |place: &[u8]| place == COMMON_NAME;
    let place = name.windows(COMMON_NAME.len()).position(begins);
    let text = place.and_then(|at| {
        let [_kind, len, rest @ ..] = name.get(at + COMMON_NAME.len()..)? else {
            return None;
        };
        // 64 characters at most (RFC 5280, ub-common-name): a length of one byte, as a rule.
        rest.get(..usize::from(*len)).filter(|_| *len < 0x80)
    });
    let text = text.map(|text| String::from_utf8_lossy(text).escape_debug().to_string());
    text.map_or_else(|| NAMELESS.to_owned(), |text| format!("CN={text}"))
}

/// The type of the attribute, an object identifier: 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
const NAMELESS: &str = "of no common name";
