//! Tickets by which clients of the port resume their TLS sessions.
//!
//! Owns: `TicketKeys`, plain data that one process can hand to the next; what seals and opens with
//! them; how a file of keys is read.
//! May depend on: aws-lc-rs, rustls for its trait, serde, base64, `tls` for errors of files. Time is an argument.
//! Invariants: the first key seals and all open; a key that was made here seals for `SEALS_S` and
//! opens for as long again, whatever the host's clock does; a ticket opens only where clients are
//! asked for the same; no key stands in a log or in an error.

use std::{fmt, io, os::unix::fs::PermissionsExt as _, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{Error, server::ProducesTickets};
use serde::{Deserialize, Serialize};

use super::tls::{TlsError, file, unread};

/// Keys of tickets, the one that seals first. Whoever is given them can open what they sealed:
/// they go from a process to its successor, and nowhere else.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKeys(Vec<TicketKey>);

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TicketKey {
    /// Stands in front of each ticket, for all to see.
    name: [u8; NAME_BYTES],
    secret: [u8; SECRET_BYTES],
    /// When it was made, in seconds of Unix; 0 if it stands in a file.
    since_s: u64,
}

const NAME_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
const LINE_BYTES: usize = NAME_BYTES + SECRET_BYTES;
const TAG_BYTES: usize = 16;

/// A key seals for so long, and opens for as long again: whoever has a ticket may come back so long
/// after at least, and what a key has sealed stays sealed for ever twice as long after it was made.
const SEALS_S: u64 = 6 * 60 * 60;
/// Two are enough of our own; in a file there may be those that come next, too.
const KEYS_MAX: usize = 8;

/// How clients are asked who they are, hashed.
pub(super) type Asked = [u8; 32];

impl fmt::Debug for TicketKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TicketKeys({})", self.0.len())
    }
}

impl TicketKeys {
    /// The keys to go on with if these are not they: with a new one to seal, without those that are
    /// too old. Of none at all, the first.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn renewed(&self, now_s: u64) -> Result<Option<Self>, Error> {
        // A clock that was set back makes a key no younger.
        let is_younger = |key: &TicketKey, s| now_s.abs_diff(key.since_s) < s;
        let is_first_good = self.0.first().is_some_and(|key| is_younger(key, SEALS_S));
        let good = self.0.iter().filter(|key| is_younger(key, 2 * SEALS_S));
        let mut keys: Vec<_> = good.cloned().collect();
        if is_first_good && keys.len() == self.0.len() {
            return Ok(None);
        }
        if !is_first_good {
            keys.insert(0, TicketKey::random(now_s)?);
        }
        keys.truncate(KEYS_MAX);
        Ok(Some(Self(keys)))
    }

    /// Reads a file that nodes share: a key on each line, 48 bytes in base64 or in hexadecimal.
    ///
    /// # Errors
    /// With `key`, which names the file, when it cannot be used.
    pub(super) fn read(key: &'static str, path: &str) -> Result<Self, TlsError> {
        let read = |path| -> io::Result<(u32, String)> {
            let mode = std::fs::metadata(path)?.permissions().mode();
            Ok((mode, std::fs::read_to_string(path)?))
        };
        let (mode, text) = read(path).map_err(|error| unread(key, path, &error))?;
        if mode & 0o007 != 0 {
            let mode = mode & 0o777;
            let reason = format!(
                "everybody on this host can read or change it (mode {mode:o}), and whoever has a key \
                 can read what its tickets protect: chmod 640"
            );
            return Err(file(key, path, &reason));
        }
        Self::parse(&text).map_err(|reason| file(key, path, &reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<TicketKey> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let (number, line) = (number + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = TicketKey::parse(line).ok_or_else(|| {
                format!(
                    "line {number} is no key: 48 bytes as `openssl rand -base64 48` writes them, or \
                     `openssl rand -hex 48`"
                )
            })?;
            if keys.iter().any(|other| other.name == key.name) {
                return Err(format!(
                    "line {number} begins as another key does: give it a new one"
                ));
            }
            if keys.len() == KEYS_MAX {
                return Err(format!("holds more than {KEYS_MAX} keys"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("holds no key: `openssl rand -base64 48` writes one".to_owned());
        }
        Ok(Self(keys))
    }

    /// What seals with the first of them, and opens with all.
    pub(super) fn ticketer(&self, asked: Asked) -> Result<Arc<dyn ProducesTickets>, Error> {
        let keys = self.0.iter().map(|key| {
            let made = RandomizedNonceKey::new(&AES_256_GCM_SIV, &key.secret);
            let made = made.map_err(|_| Error::General("a key of tickets is none".to_owned()))?;
            Ok((key.name, made))
        });
        let keys = keys.collect::<Result<_, Error>>()?;
        Ok(Arc::new(Ticketer { keys, asked }))
    }
}

impl TicketKey {
    fn random(now_s: u64) -> Result<Self, Error> {
        let mut line = [0; LINE_BYTES];
        getrandom::fill(&mut line).map_err(|_| Error::FailedToGetRandomBytes)?;
        Ok(Self::new(&line, now_s))
    }

    fn new(line: &[u8; LINE_BYTES], since_s: u64) -> Self {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; SECRET_BYTES]);
        name.copy_from_slice(&line[..NAME_BYTES]);
        secret.copy_from_slice(&line[NAME_BYTES..]);
        Self {
            name,
            secret,
            since_s,
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let bytes = if line.len() == 2 * LINE_BYTES {
            unhex(line)?
        } else {
            STANDARD.decode(line).ok()?
        };
        Some(Self::new(bytes.as_slice().try_into().ok()?, 0))
    }
}

fn unhex(line: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let pairs = line.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

// AES-GCM-SIV, since nodes that share a key draw their nonces apart: two that are the same tell that two
// tickets hold the same, and no more (RFC 8452, section 1).
struct Ticketer {
    keys: Vec<([u8; NAME_BYTES], RandomizedNonceKey)>,
    asked: Asked,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Ticketer").finish_non_exhaustive()
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(SEALS_S).expect("some hours")
    }

    /// The key's name, the nonce, what is sealed, its tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        let mut sealed = Vec::with_capacity(plain.len() + TAG_BYTES);
        sealed.extend_from_slice(plain);
        let nonce = key.seal_in_place_append_tag(Aad::from(self.asked), &mut sealed);
        let nonce = nonce.ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (named, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk()?;
        let (_, key) = self.keys.iter().find(|(name, _)| name == named)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.open_in_place(nonce, Aad::from(self.asked), &mut plain);
        let bytes = opened.ok()?.len();
        plain.truncate(bytes);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn keys(now_s: u64) -> TicketKeys {
        let made = TicketKeys::default().renewed(now_s);
        made.expect("random numbers").expect("there were none")
    }

    fn later(keys: &TicketKeys, now_s: u64) -> TicketKeys {
        let renewed = keys.renewed(now_s).expect("random numbers");
        renewed.unwrap_or_else(|| keys.clone())
    }

    fn seal(keys: &TicketKeys) -> Vec<u8> {
        let ticket = ticketer(keys).encrypt(b"a session");
        ticket.expect("sealed")
    }

    fn ticketer(keys: &TicketKeys) -> Arc<dyn ProducesTickets> {
        keys.ticketer([7; 32]).expect("keys")
    }

    fn opens(keys: &TicketKeys, ticket: &[u8]) -> bool {
        let opened = ticketer(keys).decrypt(ticket);
        assert!(opened.as_ref().is_none_or(|plain| plain == b"a session"));
        opened.is_some()
    }

    #[test]
    fn a_key_seals_for_six_hours_and_opens_for_twelve() {
        let first = keys(NOW_S);
        let ticket = seal(&first);
        for (age_s, seals, opens_then) in [
            (0, true, true),
            (SEALS_S - 1, true, true),
            (SEALS_S, false, true),
            (2 * SEALS_S - 1, false, true),
            (2 * SEALS_S, false, false),
        ] {
            for now_s in [NOW_S + age_s, NOW_S - age_s] {
                let then = later(&first, now_s);
                assert_eq!(opens(&then, &ticket), opens_then, "{age_s}");
                assert_eq!(opens(&first, &seal(&then)), seals, "{age_s}");
                assert_eq!(then.renewed(now_s), Ok(None), "{age_s}");
            }
        }
        let mut all = first;
        for hour in 1..100 {
            all = later(&all, NOW_S + hour * 3_600);
            assert!(all.0.len() <= 3, "{all:?} after {hour} hours");
        }
    }

    #[test]
    fn keys_that_were_written_and_read_again_open_what_they_sealed() {
        let own = later(&keys(NOW_S), NOW_S + SEALS_S);
        let ticket = seal(&own);
        let written = serde_json::to_string(&own).expect("plain data");
        let read: TicketKeys = serde_json::from_str(&written).expect("plain data");
        assert!(read == own);
        assert!(opens(&read, &ticket));
        assert!(!opens(&keys(NOW_S), &ticket), "another process's keys");
        assert_eq!(format!("{own:?}"), "TicketKeys(2)");
    }

    #[test]
    fn a_ticket_that_was_changed_cut_or_sealed_for_others_does_not_open() {
        let own = keys(NOW_S);
        let ticket = seal(&own);
        let elsewhere = own.ticketer([8; 32]).expect("keys");
        assert_eq!(elsewhere.decrypt(&ticket), None, "clients are asked others");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert!(!opens(&own, &changed), "byte {at}");
            assert!(!opens(&own, &ticket[..at]), "cut at {at}");
        }
        assert!(opens(&own, &ticket));
    }

    #[test]
    fn a_file_holds_keys_in_two_forms_and_nothing_else() {
        let line = |first: u8| STANDARD.encode([&[first][..], &[0; 47]].concat());
        let hex = format!("03{}", "0".repeat(94));
        let text = format!("# shared\n{}\n\n  {}\n{hex}\n", line(1), line(2));
        let keys = TicketKeys::parse(&text).expect("three keys");
        assert_eq!(
            keys.0.iter().map(|key| key.name[0]).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let only = |first| TicketKeys::parse(&line(first)).expect("a key");
        assert!(opens(&keys, &seal(&only(2))));
        assert!(opens(&only(1), &seal(&keys)), "the first seals");
        let many: String = (0..9).map(|first| line(first) + "\n").collect();
        for (text, part) in [
            ("", "holds no key"),
            ("# nothing", "holds no key"),
            ("AAAA", "line 1 is no key"),
            (&hex[1..], "line 1 is no key"),
            (&format!("{hex}0"), "line 1 is no key"),
            (&hex.replace('3', "g"), "line 1 is no key"),
            (&format!("{hex}\n{hex}"), "line 2 begins as another"),
            (&many, "more than 8 keys"),
        ] {
            let error = TicketKeys::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("000"), "a key in {error}");
        }
    }
}
