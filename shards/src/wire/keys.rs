//! Data path. The keys behind a connection's ciphers, as far as more than the ciphers needs them.
//!
//! Owns: `OneWay`: one direction's keys, those after them, and how they go to another process; how the secrets that
//! TLS 1.3 makes keys of are got from rustls.
//! May depend on: rustls, `carried`.
//! Invariants: no cryptography of our own: HKDF is the provider's; a secret that does not give the key which rustls
//! has agreed on is not used; secrets are overwritten when they are dropped (as those of rustls are).

use super::carried::{CarriedKeys, Secret};
use rustls::{
    ConnectionTrafficSecrets,
    KeyLog,
    ServerConfig,
    SupportedCipherSuite,
    crypto::{
        aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384},
        cipher::{AeadKey, Iv, NONCE_LEN},
        tls13::{HkdfExpander, OkmBlock, OutputLengthError},
    },
    // Not of rustls's stable interface, and the only way to a key of 16 bytes: were they gone, this would
    // not compile.
    internal::{derive_traffic_iv, derive_traffic_key},
};
use std::{cell::RefCell, sync::Arc};

/// One direction's keys.
pub(super) enum OneWay {
    /// TLS 1.3: the traffic secret, of which keys are made, and the next secret: RFC 8446, section 7.
    Renewable(OkmBlock),
    /// TLS 1.2.
    Fixed(AeadKey, Iv),
}

impl OneWay {
    /// Those that a handshake agreed on. `None` in TLS 1.3 when the secret is not theirs.
    pub(super) fn of(
        suite: SupportedCipherSuite,
        agreed: ConnectionTrafficSecrets,
        secret: Option<OkmBlock>,
    ) -> Option<Self> {
        let (key, iv) = key_and_iv(agreed);
        if suite.tls13().is_none() {
            return Some(Self::Fixed(key, iv));
        }
        let renewable = Self::Renewable(secret?);
        let (own_key, own_iv) = renewable.make(suite)?;
        let is_same = own_key.as_ref() == key.as_ref() && own_iv.as_ref() == iv.as_ref();
        is_same.then_some(renewable)
    }

    /// What a cipher is made with.
    pub(super) fn make(&self, suite: SupportedCipherSuite) -> Option<(AeadKey, Iv)> {
        match self {
            Self::Renewable(secret) => {
                let suite = suite.tls13()?;
                let expander = suite.hkdf_provider.expander_for_okm(secret);
                let key = derive_traffic_key(&*expander, suite.aead_alg);
                Some((key, derive_traffic_iv(&*expander)))
            }
            Self::Fixed(key, iv) => Some((key_of(key.as_ref())?, Iv::copy(iv.as_ref()))),
        }
    }

    /// The keys after these; TLS 1.2 has none.
    pub(super) fn next(&self, suite: SupportedCipherSuite) -> Option<Self> {
        let Self::Renewable(secret) = self else {
            return None;
        };
        let expander = suite.tls13()?.hkdf_provider.expander_for_okm(secret);
        // HkdfLabel with an empty context: RFC 8446, sections 7.1 and 7.2.
        let bytes = u16::try_from(expander.hash_len()).ok()?.to_be_bytes();
        let label = b"tls13 traffic upd";
        let label_bytes = u8::try_from(label.len()).ok()?;
        let info: [&[u8]; 4] = [&bytes, &[label_bytes], label, &[0]];
        Some(Self::Renewable(expander.expand_block(&info)))
    }

    pub(super) fn carry(&self, number: u64) -> CarriedKeys {
        let mut carried = CarriedKeys {
            number,
            ..CarriedKeys::default()
        };
        match self {
            Self::Renewable(secret) => carried.secret = Secret::of(secret.as_ref()),
            Self::Fixed(key, iv) => {
                carried.key = Secret::of(key.as_ref());
                carried.iv = Secret::of(iv.as_ref());
            }
        }
        carried
    }

    /// `None` for what is no key of this suite.
    pub(super) fn adopt(suite: SupportedCipherSuite, carried: &CarriedKeys) -> Option<Self> {
        match suite {
            SupportedCipherSuite::Tls13(suite) => {
                let secret = carried.secret.bytes();
                let is_whole = secret.len() == suite.common.hash_provider.output_len();
                is_whole.then(|| Self::Renewable(OkmBlock::new(secret)))
            }
            SupportedCipherSuite::Tls12(suite) => {
                let (key, iv) = (carried.key.bytes(), carried.iv.bytes());
                let shape = suite.aead_alg.key_block_shape();
                let is_whole = key.len() == shape.enc_key_len && iv.len() == NONCE_LEN;
                if !is_whole {
                    return None;
                }
                Some(Self::Fixed(key_of(key)?, Iv::copy(iv)))
            }
        }
    }
}

fn key_and_iv(secrets: ConnectionTrafficSecrets) -> (AeadKey, Iv) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
        _ => unreachable!("the provider has these three ciphers"),
    }
}

/// Bytes as a key of rustls: it makes shorter ones than the longest only out of what HKDF says.
fn key_of(bytes: &[u8]) -> Option<AeadKey> {
    let suites = [TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    let all = suites.iter().filter_map(SupportedCipherSuite::tls13);
    let mut ciphers = all.map(|suite| suite.aead_alg);
    let cipher = ciphers.find(|cipher| cipher.key_len() == bytes.len())?;
    Some(derive_traffic_key(&Given(bytes), cipher))
}

/// Says the same whatever it is asked.
struct Given<'a>(&'a [u8]);

impl HkdfExpander for Given<'_> {
    fn expand_slice(&self, _: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        let place = output.get_mut(..self.0.len()).ok_or(OutputLengthError)?;
        place.copy_from_slice(self.0);
        Ok(())
    }

    fn expand_block(&self, _: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.0)
    }

    fn hash_len(&self) -> usize {
        self.0.len()
    }
}

/// The traffic secrets of one handshake of TLS 1.3.
#[derive(Default)]
pub(super) struct Overheard {
    pub(super) opening: Option<OkmBlock>,
    pub(super) sealing: Option<OkmBlock>,
}

impl Overheard {
    /// What the handshake that was just taken a step further has said, beside what it said before.
    pub(super) fn hear(&mut self) {
        HEARD.with_borrow_mut(|heard| {
            self.opening = heard.opening.take().or_else(|| self.opening.take());
            self.sealing = heard.sealing.take().or_else(|| self.sealing.take());
        });
    }
}

// rustls gives these secrets to a `KeyLog` alone, which knows no connection; a step of a handshake is one
// call on one thread.
thread_local! {
    static HEARD: RefCell<Overheard> = RefCell::default();
}

/// Hears the secrets, and lets another hear what it wants to.
#[derive(Debug)]
struct Ear(Arc<dyn KeyLog>);

/// Labels of the file that browsers and servers write for tools that look at traffic.
const OPENING: &str = "CLIENT_TRAFFIC_SECRET_0";
const SEALING: &str = "SERVER_TRAFFIC_SECRET_0";

impl KeyLog for Ear {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if secret.len() <= OkmBlock::MAX_LEN {
            HEARD.with_borrow_mut(|heard| match label {
                OPENING => heard.opening = Some(OkmBlock::new(secret)),
                SEALING => heard.sealing = Some(OkmBlock::new(secret)),
                _ => {}
            });
        }
        if self.0.will_log(label) {
            self.0.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, OPENING | SEALING) || self.0.will_log(label)
    }
}

/// The same, with what is needed to hear the secrets of its handshakes.
pub(super) fn overheard(config: &Arc<ServerConfig>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(config);
    config.key_log = Arc::new(Ear(config.key_log));
    Arc::new(config)
}
