//! Files that say who we are: a seed of an nkey, or a user's JWT with its seed.
//!
//! Owns: `LoginFile` (what was read last), `Identity` (what stands in it), `LoginFileError`.
//! May depend on: `config::secret`, the crate `nkeys`, tokio.
//! Invariants: no seed and no JWT stands in an error or a log; what cannot be used replaces nothing that
//! could; a remark on a file is told once while it stays the same.

use std::{fs, io, io::Read as _, os::unix::fs::PermissionsExt as _, sync::Arc};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::{KeyPair, KeyPairType, error::ErrorKind};
use serde::Deserialize;
use tokio::{sync::watch, task::spawn_blocking};

use crate::config::Secret;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {path:?}: {reason}")]
pub struct LoginFileError {
    pub(in crate::bridge) key: &'static str,
    path: String,
    reason: String,
    /// This user may not read it.
    pub(in crate::bridge) is_forbidden: bool,
}

/// Which key names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Nkey,
    Creds,
}

impl FileKind {
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Nkey => "adapter.nats.nkey_seed_file",
            Self::Creds => "adapter.nats.creds_file",
        }
    }
}

/// One that could be read at least once.
pub(super) struct LoginFile {
    pub(super) kind: FileKind,
    path: String,
    /// All connections share it; nobody waits for it.
    held: watch::Sender<Held>,
}

struct Held {
    identity: Arc<Identity>,
    /// The last remark, until the file deserves none.
    told: Option<String>,
}

/// A user who can sign.
#[derive(Debug)]
pub(super) struct Identity {
    key: KeyPair,
    /// Without one a server knows the public key by itself.
    pub(super) jwt: Option<Jwt>,
}

/// What an account says of its user.
#[derive(Debug)]
pub(super) struct Jwt {
    pub(super) text: Secret,
    /// When it ends, in seconds since the Unix epoch; 0: never.
    expires_s: u64,
}

/// What we read of one.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    exp: u64,
}

impl Identity {
    /// `None`: the key has no seed, which cannot be.
    pub(super) fn sign(&self, nonce: &[u8]) -> Option<Vec<u8>> {
        self.key.sign(nonce).ok()
    }

    pub(super) fn public_key(&self) -> String {
        self.key.public_key()
    }

    /// `None` while it may still be valid.
    pub(super) fn expired_for_s(&self, now_s: u64) -> Option<u64> {
        let expires_s = self.jwt.as_ref()?.expires_s;
        (expires_s > 0 && now_s >= expires_s).then(|| now_s - expires_s)
    }

    fn is_like(&self, other: &Self) -> bool {
        let text = |it: &Self| it.jwt.as_ref().map(|jwt| jwt.text.clone());
        self.public_key() == other.public_key() && text(self) == text(other)
    }

    /// # Errors
    /// In words, when the text holds none.
    pub(super) fn parse(kind: FileKind, text: &str) -> Result<Self, String> {
        let (seed, jwt) = match kind {
            FileKind::Nkey => (seed_of_nkey(text)?, None),
            FileKind::Creds => {
                let jwt = block(text, "USER JWT").ok_or(
                    "holds no user's JWT: wants one below -----BEGIN NATS USER JWT-----, as \
                     `nsc generate creds` writes it",
                )?;
                let seed = block(text, "NKEY SEED")
                    .ok_or("holds no seed: wants one below -----BEGIN USER NKEY SEED-----")?;
                (seed, Some(jwt))
            }
        };
        let key = user_key(&seed)?;
        let jwt = jwt.map(|jwt| Jwt::parse(&jwt, &key.public_key()));
        let jwt = jwt.transpose()?;
        Ok(Self { key, jwt })
    }
}

impl Jwt {
    /// Whether its signature is good is known to the server alone.
    fn parse(text: &str, user: &str) -> Result<Self, String> {
        let claims = claims(text).ok_or("its JWT is damaged: wants three parts in base64url")?;
        if !claims.sub.starts_with('U') {
            return Err("its JWT is of no user: wants one whose `sub` begins with U".to_owned());
        }
        if claims.sub != user {
            return Err("its JWT and its seed do not belong together".to_owned());
        }
        Ok(Self {
            text: Secret::new(text),
            expires_s: claims.exp,
        })
    }
}

fn claims(jwt: &str) -> Option<Claims> {
    let mut parts = jwt.split('.');
    let [_, payload, _] = [parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_some() {
        return None;
    }
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// What stands between a line `---BEGIN … title---` and the next of dashes.
fn block(text: &str, title: &str) -> Option<String> {
    let is_frame = |line: &&str| line.starts_with("---");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| is_frame(line) && line.contains("BEGIN") && line.contains(title))?;
    let inside: String = lines.take_while(|line| !is_frame(line)).collect();
    (!inside.is_empty()).then_some(inside)
}

/// Alone on the first line that is no comment, or framed.
fn seed_of_nkey(text: &str) -> Result<String, String> {
    if block(text, "USER JWT").is_some() {
        let creds = FileKind::Creds.key();
        return Err(format!("is a .creds file, which {creds} takes"));
    }
    let is_one = |line: &&str| !line.is_empty() && !line.starts_with(['#', '-']);
    let seed = block(text, "NKEY SEED");
    let seed = seed.or_else(|| text.lines().map(str::trim).find(is_one).map(str::to_owned));
    seed.ok_or_else(|| "holds no seed: wants a user's, which begins with SU".to_owned())
}

/// The crate's own words may tell what stands where in the seed.
fn user_key(seed: &str) -> Result<KeyPair, String> {
    let key = KeyPair::from_seed(seed).map_err(|error| match error.kind() {
        ErrorKind::InvalidKeyLength if seed.starts_with('U') => {
            "holds a public key: wants the seed, which begins with SU".to_owned()
        }
        ErrorKind::InvalidKeyLength => {
            let characters = seed.chars().count();
            format!("holds no seed: one has 58 characters, and this {characters}")
        }
        ErrorKind::ChecksumFailure => {
            "holds a seed whose checksum is wrong: some character of it is not what it was"
                .to_owned()
        }
        ErrorKind::CodecFailure
        | ErrorKind::InvalidPrefix
        | ErrorKind::VerifyError
        | ErrorKind::SignatureError
        | ErrorKind::IncorrectKeyType
        | ErrorKind::InvalidPayload
        | ErrorKind::InvalidSignatureLength => {
            "holds no seed: one begins with SU, and has only A to Z and 2 to 7".to_owned()
        }
    })?;
    let kind = key.key_pair_type();
    if kind != KeyPairType::User {
        return Err(format!(
            "holds a seed of another kind ({kind:?}): wants a user's, which begins with SU"
        ));
    }
    Ok(key)
}

/// What was found in a file.
struct Found {
    identity: Identity,
    remark: Option<String>,
}

fn read(kind: FileKind, path: &str) -> Result<Found, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let found = fs::metadata(path).map_err(unreadable)?;
    // Another kind may keep its reader waiting for ever.
    if !found.is_file() {
        return Err("is no regular file".to_owned());
    }
    let mode = found.permissions().mode();
    let mut text = String::new();
    let file = fs::File::open(path).map_err(unreadable)?;
    let bytes = file.take(BYTES_MAX + 1).read_to_string(&mut text);
    if bytes.map_err(unreadable)? as u64 > BYTES_MAX {
        return Err(format!("has more than {BYTES_MAX} bytes: no such file has"));
    }
    let remark = (mode & 0o004 != 0).then(|| {
        let mode = mode & 0o777;
        format!(
            "everybody on this host can read it (mode {mode:o}), and whoever does can log in: \
             chmod 640"
        )
    });
    let identity = Identity::parse(kind, &text)?;
    Ok(Found { identity, remark })
}

fn is_forbidden(path: &str) -> bool {
    let error = fs::File::open(path).err();
    error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

impl LoginFile {
    /// # Errors
    /// When it cannot be used.
    pub(super) fn open(kind: FileKind, path: &str) -> Result<Self, LoginFileError> {
        let found = read(kind, path).map_err(|reason| LoginFileError {
            key: kind.key(),
            path: path.to_owned(),
            reason,
            is_forbidden: is_forbidden(path),
        })?;
        let held = Held {
            identity: Arc::new(found.identity),
            told: None,
        };
        let file = Self {
            kind,
            path: path.to_owned(),
            held: watch::Sender::new(held),
        };
        file.remark(found.remark);
        Ok(file)
    }

    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.held.borrow().identity)
    }

    /// As the file is now, or as it was when it could last be used.
    pub(super) async fn renewed(&self) -> Arc<Identity> {
        let (kind, path) = (self.kind, self.path.clone());
        // It fails where the process ends.
        if let Ok(found) = spawn_blocking(move || read(kind, &path)).await {
            self.take(found);
        }
        self.identity()
    }

    fn take(&self, found: Result<Found, String>) {
        match found {
            Ok(Found { identity, remark }) => {
                if !identity.is_like(&self.identity()) {
                    let (key, path) = (self.kind.key(), &self.path);
                    tracing::info!(
                        "the bus between nodes: {key} = {path:?} has changed, and is used from now on"
                    );
                    let identity = Arc::new(identity);
                    self.held.send_modify(|held| held.identity = identity);
                }
                self.remark(remark);
            }
            Err(reason) => self.remark(Some(format!("{reason}; what it held before is used"))),
        }
    }

    fn remark(&self, remark: Option<String>) {
        if remark == self.held.borrow().told {
            return;
        }
        if let Some(remark) = &remark {
            let (key, path) = (self.kind.key(), &self.path);
            tracing::warn!("the bus between nodes: {key} = {path:?}: {remark}");
        }
        self.held.send_modify(|held| held.told = remark);
    }
}

/// A file of two keys has less than a tenth; a JWT with very many permissions fits.
const BYTES_MAX: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: KeyPairType, byte: u8) -> KeyPair {
        KeyPair::new_from_raw(kind, [byte; 32]).expect("32 bytes are a key")
    }

    fn user() -> KeyPair {
        key(KeyPairType::User, 7)
    }

    fn seed(key: &KeyPair) -> String {
        key.seed().expect("it was made of one")
    }

    fn jwt(claims: &str) -> String {
        let parts = ["{\"alg\":\"ed25519-nkey\"}", claims, "signature"];
        parts
            .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part))
            .join(".")
    }

    fn jwt_of(user: &KeyPair) -> String {
        jwt(&format!(
            "{{\"sub\":\"{}\",\"exp\":100}}",
            user.public_key()
        ))
    }

    fn creds(jwt: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn a_seed_stands_alone_or_framed() {
        let (user, seed) = (user().public_key(), seed(&user()));
        let framed = format!(
            "-----BEGIN USER NKEY SEED-----\r\n{seed}\r\n------END USER NKEY SEED------\r\n"
        );
        for text in [
            seed.clone(),
            format!("{seed}\n"),
            format!("# of the nodes\n\n  {seed} \r\n"),
            framed,
        ] {
            let identity = Identity::parse(FileKind::Nkey, &text).expect("it is one");
            assert_eq!(identity.public_key(), user, "{text}");
            assert!(identity.jwt.is_none());
            assert_eq!(identity.expired_for_s(u64::MAX), None);
        }
    }

    #[test]
    fn a_jwt_and_its_seed_are_read_and_the_jwt_ends_when_it_says() {
        let (user, jwt) = (user(), jwt_of(&user()));
        let text = creds(&jwt, &seed(&user));
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let identity = Identity::parse(FileKind::Creds, &text).expect("it is one");
            let signature = identity.sign(b"nonce").expect("it has a seed");
            user.verify(b"nonce", &signature).expect("it is the user's");
            let held = identity.jwt.as_ref().expect("it stands there");
            assert_eq!(held.text.expose(), jwt);
            for (now_s, expired) in [(99, None), (100, Some(0)), (101, Some(1))] {
                assert_eq!(identity.expired_for_s(now_s), expired);
            }
        }
    }

    #[test]
    fn a_jwt_that_names_no_end_has_none() {
        let user = user();
        let jwt = jwt(&format!("{{\"sub\":\"{}\"}}", user.public_key()));
        let identity = Identity::parse(FileKind::Creds, &creds(&jwt, &seed(&user)));
        assert_eq!(identity.expect("it is one").expired_for_s(u64::MAX), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_by_what_is_wrong_and_without_its_seed() {
        let (user, other) = (user(), key(KeyPairType::User, 8));
        let account = key(KeyPairType::Account, 9);
        let (own, own_jwt) = (seed(&user), jwt_of(&user));
        let changed = own.replace(&own[20..21], if &own[20..21] == "A" { "B" } else { "A" });
        let of_account = jwt(&format!("{{\"sub\":\"{}\"}}", account.public_key()));
        let framed_jwt =
            format!("-----BEGIN NATS USER JWT-----\n{own_jwt}\n------END NATS USER JWT------\n");
        let (nkey, with_jwt) = (FileKind::Nkey, FileKind::Creds);
        for (kind, text, says) in [
            (nkey, String::new(), "holds no seed: wants a user's"),
            (
                nkey,
                "# nothing\n".to_owned(),
                "holds no seed: wants a user's",
            ),
            (
                nkey,
                own[..57].to_owned(),
                "one has 58 characters, and this 57",
            ),
            (
                nkey,
                format!("{own}A"),
                "one has 58 characters, and this 59",
            ),
            (nkey, own.to_lowercase(), "has only A to Z and 2 to 7"),
            (nkey, "é".repeat(29), "has only A to Z and 2 to 7"),
            (nkey, changed.clone(), "checksum is wrong"),
            (nkey, user.public_key(), "holds a public key"),
            (nkey, seed(&account), "a seed of another kind (Account)"),
            (
                nkey,
                creds(&own_jwt, &own),
                "which adapter.nats.creds_file takes",
            ),
            (with_jwt, String::new(), "holds no user's JWT"),
            (with_jwt, own.clone(), "holds no user's JWT"),
            (with_jwt, creds("", &own), "holds no user's JWT"),
            (with_jwt, framed_jwt, "holds no seed: wants one below"),
            (
                with_jwt,
                creds(&own_jwt, ""),
                "holds no seed: wants one below",
            ),
            (with_jwt, creds(&own_jwt, &changed), "checksum is wrong"),
            (with_jwt, creds("a.b", &own), "JWT is damaged"),
            (
                with_jwt,
                creds(&format!("{own_jwt}.x"), &own),
                "JWT is damaged",
            ),
            (with_jwt, creds(&jwt("{\"sub\":7}"), &own), "JWT is damaged"),
            (with_jwt, creds(&of_account, &own), "is of no user"),
            (
                with_jwt,
                creds(&own_jwt, &seed(&other)),
                "do not belong together",
            ),
        ] {
            let reason = Identity::parse(kind, &text).expect_err(says);
            assert!(reason.contains(says), "{says}: {reason}");
            for secret in [&own, &changed, &seed(&other), &seed(&account), &own_jwt] {
                assert!(!reason.contains(&secret[2..12]), "{reason}");
            }
        }
    }

    struct Written(tempfile::TempDir);

    impl Written {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary folder"))
        }

        fn path(&self) -> String {
            self.0.path().join("login").display().to_string()
        }

        fn holds(&self, text: &str, mode: u32) {
            fs::write(self.path(), text).expect("it can be written");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(self.path(), mode).expect("it is ours");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_used_and_one_that_cannot_be_used_is_not() {
        let (user, other) = (user(), key(KeyPairType::User, 8));
        let written = Written::new();
        written.holds(&seed(&user), 0o640);
        let file = LoginFile::open(FileKind::Nkey, &written.path()).expect("it is good");
        let told = || file.held.borrow().told.clone().unwrap_or_default();
        assert_eq!(told(), "");
        for (text, mode, is_now, says) in [
            (seed(&user), 0o640, &user, ""),
            (
                "damaged".to_owned(),
                0o640,
                &user,
                "what it held before is used",
            ),
            (seed(&other), 0o640, &other, ""),
            (seed(&other), 0o644, &other, "mode 644"),
            (String::new(), 0o644, &other, "what it held before is used"),
            (seed(&user), 0o600, &user, ""),
        ] {
            written.holds(&text, mode);
            assert_eq!(file.renewed().await.public_key(), is_now.public_key());
            assert!(
                told().contains(says) && told().is_empty() == says.is_empty(),
                "{}",
                told()
            );
        }
        fs::remove_file(written.path()).expect("it is there");
        assert_eq!(file.renewed().await.public_key(), user.public_key());
        assert!(
            told().contains("cannot be read: No such file"),
            "{}",
            told()
        );
    }

    #[test]
    fn what_is_no_file_of_keys_is_refused_with_the_key_that_names_it() {
        let written = Written::new();
        let opened = |kind, path: &str| match LoginFile::open(kind, path) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let path = written.path();
        for (kind, key) in [
            (FileKind::Nkey, "adapter.nats.nkey_seed_file"),
            (FileKind::Creds, "adapter.nats.creds_file"),
        ] {
            let says = format!("{key} = {path:?}: cannot be read: No such file");
            let told = opened(kind, &path);
            assert!(told.starts_with(&says), "{told}");
        }
        let folder = written.0.path().display().to_string();
        assert!(opened(FileKind::Nkey, &folder).ends_with("is no regular file"));
        let most = usize::try_from(BYTES_MAX).expect("it fits");
        for (comment, says) in [(most - 59, ""), (most - 58, "more than 262144 bytes")] {
            written.holds(
                &format!("#{}\n{}", "x".repeat(comment - 1), seed(&user())),
                0o600,
            );
            let told = opened(FileKind::Nkey, &path);
            assert!(
                told.contains(says) && told.is_empty() == says.is_empty(),
                "{told}"
            );
        }
    }
}
