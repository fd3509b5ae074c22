//! Data path. TLS records of a connection whose handshake is done.
//!
//! Owns: `Records`: both directions' keys and numbers; what a record means.
//! May depend on: rustls, which agreed on the keys and makes the ciphers; `keys`.
//! Invariants: a number is used once per key; nothing is sealed beyond what a key may seal; what
//! cannot be opened ends the connection.

use super::{
    carried::CarriedKeys,
    keys::{OneWay, Overheard},
};
use rustls::{
    ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    crypto::cipher::{
        AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
        OutboundPlainMessage,
    },
    server::UnbufferedServerConnection,
};
use std::ops::Range;

/// Bytes before a record's own: kind, version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// Plain bytes of one record at most: RFC 8446, section 5.1.
pub(crate) const RECORD_BYTES_MAX: usize = 16_384;
/// What a record is longer than what it holds, with room to spare: header, explicit nonce, kind and
/// tag are 30 bytes.
pub(crate) const OVERHEAD_BYTES_MAX: usize = 64;
/// What a record's length may say: RFC 5246, section 6.2.3.
const SEALED_BYTES_MAX: usize = RECORD_BYTES_MAX + 2_048;

/// The codes of RFC 8446, section 6, that we send or act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert(pub(crate) u8);

impl Alert {
    pub(crate) const CLOSE_NOTIFY: Self = Self(0);
    pub(crate) const UNEXPECTED_MESSAGE: Self = Self(10);
    pub(crate) const BAD_RECORD_MAC: Self = Self(20);
    pub(crate) const RECORD_OVERFLOW: Self = Self(22);
    pub(crate) const INTERNAL_ERROR: Self = Self(80);
    const USER_CANCELED: Self = Self(90);
}

/// What the bytes at the front are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Part of a record, which is so long when it is whole.
    Part { whole: usize },
    /// A record of that length.
    Record { len: usize },
}

/// How long the record at the front is; `None` for what is none.
pub(crate) fn front(bytes: &[u8]) -> Result<Front, Alert> {
    let &[_kind, major, _minor, high, low, ..] = bytes else {
        return Ok(Front::Part {
            whole: HEADER_BYTES,
        });
    };
    if major != 3 {
        return Err(Alert::UNEXPECTED_MESSAGE);
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > SEALED_BYTES_MAX {
        return Err(Alert::RECORD_OVERFLOW);
    }
    let len = HEADER_BYTES + len;
    Ok(if bytes.len() < len {
        Front::Part { whole: len }
    } else {
        Front::Record { len }
    })
}

/// What an opened record was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// Bytes for the application, and where they are in the record.
    Plain(Range<usize>),
    /// Nothing for anybody else.
    Nothing,
    /// The peer has new keys; it wants us to have some too, or not.
    KeyUpdate { is_asked: bool },
    /// The peer sends no more.
    PeerEnded,
    /// The peer gave up.
    Alerted,
}

/// A connection's keys.
pub(super) struct Records {
    sealing: Box<dyn MessageEncrypter>,
    opening: Box<dyn MessageDecrypter>,
    sealed: u64,
    opened: u64,
    suite: SupportedCipherSuite,
    /// Boxed, so that a connection in its handshake is not as large.
    keys: Box<Keys>,
}

/// What the ciphers were made with.
struct Keys {
    sealing: OneWay,
    opening: OneWay,
}

impl Records {
    /// Takes over where a handshake ended.
    pub(super) fn of(
        handshake: UnbufferedServerConnection,
        overheard: Overheard,
    ) -> Result<Self, Error> {
        let (secrets, kernel) = handshake.dangerous_into_kernel_connection()?;
        let suite = kernel.negotiated_cipher_suite();
        let ((sealed, sealing), (opened, opening)) = (secrets.tx, secrets.rx);
        let sealing = OneWay::of(suite, sealing, overheard.sealing);
        let opening = OneWay::of(suite, opening, overheard.opening);
        let (sealing, opening) = sealing.zip(opening).ok_or(Error::HandshakeNotComplete)?;
        Self::from(suite, Keys { sealing, opening }, sealed, opened)
    }

    /// Goes on with keys of which some numbers were used.
    fn from(
        suite: SupportedCipherSuite,
        keys: Keys,
        sealed: u64,
        opened: u64,
    ) -> Result<Self, Error> {
        let both = keys.sealing.make(suite).zip(keys.opening.make(suite));
        let (sealing, opening_with) = both.ok_or(Error::EncryptError)?;
        Ok(Self {
            sealing: sealing_from(suite, sealed, sealing)?,
            opening: opening(suite, opening_with),
            sealed,
            opened,
            suite,
            keys: Box::new(keys),
        })
    }

    /// What another process needs: the suite, how the peer seals, how we do.
    pub(super) fn carry(&self) -> (u16, CarriedKeys, CarriedKeys) {
        let opening = self.keys.opening.carry(self.opened);
        let sealing = self.keys.sealing.carry(self.sealed);
        (self.suite.suite().into(), opening, sealing)
    }

    /// `None` for what is no key of this suite.
    pub(super) fn adopt(
        suite: SupportedCipherSuite,
        opening: &CarriedKeys,
        sealing: &CarriedKeys,
    ) -> Option<Self> {
        let keys = Keys {
            sealing: OneWay::adopt(suite, sealing)?,
            opening: OneWay::adopt(suite, opening)?,
        };
        Self::from(suite, keys, sealing.number, opening.number).ok()
    }

    /// Appends a record of these bytes. False when the key is worn and there is no other.
    pub(super) fn seal(&mut self, kind: ContentType, plain: &[u8], into: &mut Vec<u8>) -> bool {
        debug_assert!(plain.len() <= RECORD_BYTES_MAX);
        if self.sealed >= self.sealed_max() && !self.renew_sealing(into) {
            return false;
        }
        self.seal_with_key(kind, plain, into)
    }

    // One allocation and one copy in rustls, one copy here: some 100 ns beside the cipher's work.
    fn seal_with_key(&mut self, kind: ContentType, plain: &[u8], into: &mut Vec<u8>) -> bool {
        let message = OutboundPlainMessage {
            typ: kind,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(plain),
        };
        let Ok(sealed) = self.sealing.encrypt(message, self.sealed) else {
            return false;
        };
        self.sealed += 1;
        into.extend_from_slice(&sealed.encode());
        true
    }

    pub(super) fn alert(&mut self, alert: Alert, into: &mut Vec<u8>) {
        let is_warning = alert == Alert::CLOSE_NOTIFY;
        let level = if is_warning { 1 } else { 2 };
        self.seal_with_key(ContentType::Alert, &[level, alert.0], into);
    }

    /// Tells the peer of a new key, and takes it. False in TLS 1.2.
    pub(super) fn renew_sealing(&mut self, into: &mut Vec<u8>) -> bool {
        let Some(next) = self.keys.sealing.next(self.suite) else {
            return false;
        };
        let Some(made) = next.make(self.suite) else {
            return false;
        };
        let is_told = self.seal_with_key(ContentType::Handshake, &KEY_UPDATE, into);
        self.sealing = sealing(self.suite, made);
        self.keys.sealing = next;
        self.sealed = 0;
        is_told
    }

    /// So many records a key may seal, but for the one that says what follows: its last.
    fn sealed_max(&self) -> u64 {
        let of_suite = match self.suite {
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
        };
        of_suite.min(SEALED_MAX) - 1
    }

    /// Opens one whole record in its place.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the kinds and errors are rustls's, and what is not expected ends the connection"
    )]
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, Alert> {
        let start = record.as_ptr() as usize;
        let bytes = record.len();
        let Some((header, sealed)) = record.split_at_mut_checked(HEADER_BYTES) else {
            return Err(Alert::INTERNAL_ERROR);
        };
        let kind = ContentType::from(header[0]);
        let is_tls13 = self.suite.tls13().is_some();
        if is_tls13 && kind != ContentType::ApplicationData {
            return Err(Alert::UNEXPECTED_MESSAGE);
        }
        let message = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, sealed);
        let opened = self.opening.decrypt(message, self.opened);
        let opened = opened.map_err(|error| match error {
            Error::PeerSentOversizedRecord => Alert::RECORD_OVERFLOW,
            Error::PeerMisbehaved(_) | Error::InvalidMessage(_) => Alert::UNEXPECTED_MESSAGE,
            _ => Alert::BAD_RECORD_MAC,
        })?;
        // Nobody can make so many; an overflow would use a number twice.
        self.opened = self.opened.checked_add(1).ok_or(Alert::INTERNAL_ERROR)?;
        match opened.typ {
            ContentType::ApplicationData if opened.payload.is_empty() => Ok(Opened::Nothing),
            ContentType::ApplicationData => {
                // It was opened in its place, behind the header and what a cipher has there.
                let first = opened.payload.as_ptr() as usize - start;
                let range = first..first + opened.payload.len();
                assert!(range.end <= bytes);
                Ok(Opened::Plain(range))
            }
            ContentType::Alert => alerted(opened.payload, is_tls13),
            ContentType::Handshake if is_tls13 => self.updated(opened.payload.try_into().ok()),
            // Also the wish of TLS 1.2 to begin anew.
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }

    /// A key update, which stands alone in its record: RFC 8446, sections 4.6.3 and 5.1.
    fn updated(&mut self, message: Option<[u8; 5]>) -> Result<Opened, Alert> {
        let Some([24, 0, 0, 1, asked @ 0..=1]) = message else {
            return Err(Alert::UNEXPECTED_MESSAGE);
        };
        let next = self.keys.opening.next(self.suite);
        let next = next.ok_or(Alert::INTERNAL_ERROR)?;
        let made = next.make(self.suite).ok_or(Alert::INTERNAL_ERROR)?;
        self.opening = opening(self.suite, made);
        self.keys.opening = next;
        self.opened = 0;
        let is_asked = asked == 1;
        Ok(Opened::KeyUpdate { is_asked })
    }
}

fn alerted(message: &[u8], is_tls13: bool) -> Result<Opened, Alert> {
    let &[level, code] = message else {
        return Err(Alert::UNEXPECTED_MESSAGE);
    };
    Ok(match Alert(code) {
        Alert::CLOSE_NOTIFY => Opened::PeerEnded,
        Alert::USER_CANCELED => Opened::Nothing,
        _ if level == 1 && !is_tls13 => Opened::Nothing,
        _ => Opened::Alerted,
    })
}

/// What seals with a key that a handshake agreed on.
fn sealing(suite: SupportedCipherSuite, (key, iv): (AeadKey, Iv)) -> Box<dyn MessageEncrypter> {
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let shape = suite.aead_alg.key_block_shape();
            let (fixed, explicit) = iv.as_ref().split_at(shape.fixed_iv_len);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    }
}

/// The same for a key that somebody has sealed with already.
///
/// AES-GCM of aws-lc learns from the first number that it sees how numbers are hidden in nonces, and takes that
/// for 0; then it refuses what does not grow. So it seals an empty record with number 0, which goes
/// nowhere: nobody sees two texts under one nonce.
fn sealing_from(
    suite: SupportedCipherSuite,
    number: u64,
    made: (AeadKey, Iv),
) -> Result<Box<dyn MessageEncrypter>, Error> {
    let mut sealing = sealing(suite, made);
    if number > 0 {
        let nothing = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(&[]),
        };
        drop(sealing.encrypt(nothing, 0)?);
    }
    Ok(sealing)
}

fn opening(suite: SupportedCipherSuite, (key, iv): (AeadKey, Iv)) -> Box<dyn MessageDecrypter> {
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let shape = suite.aead_alg.key_block_shape();
            let (fixed, _explicit) = iv.as_ref().split_at(shape.fixed_iv_len);
            suite.aead_alg.decrypter(key, fixed)
        }
    }
}

/// "I have a new key, and you need none": RFC 8446, section 4.6.3.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// No suite's own limit is beyond this that matters: its number has room left for a last alert.
const SEALED_MAX: u64 = 1 << 60;
