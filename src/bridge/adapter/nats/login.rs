//! Who we are at a server of NATS.
//!
//! Owns: `Login`: what a server is told, and what is said of one that is refused.
//! May depend on: `nats::login_file`, `config::secret`, the crate `async-nats`.
//! Invariants: nothing here prints a secret; what is signed is what the server asks, and nothing where it
//! asks nothing.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_nats::Auth;

use super::login_file::Identity;
use crate::config::Secret;

/// What one attempt to connect says.
#[derive(Clone, Default)]
pub(super) enum Login {
    #[default]
    Nobody,
    User {
        username: String,
        password: Secret,
    },
    Token(Secret),
    /// Proven with a signature.
    Signed(Arc<Identity>),
}

impl Login {
    /// What is told to a server that asks for a signature of these bytes, or of none.
    pub(super) fn auth(&self, nonce: &[u8]) -> Auth {
        let mut auth = Auth::new();
        match self {
            Self::Nobody => {}
            Self::User { username, password } => {
                auth.username = Some(username.clone());
                auth.password = Some(password.expose().to_owned());
            }
            Self::Token(token) => auth.token = Some(token.expose().to_owned()),
            // A server that asks nothing knows no keys: what is signed for it would prove nothing.
            Self::Signed(_) if nonce.is_empty() => {}
            Self::Signed(identity) => {
                auth.signature = identity.sign(nonce);
                match &identity.jwt {
                    Some(jwt) => auth.jwt = Some(jwt.text.expose().to_owned()),
                    None => auth.nkey = Some(identity.public_key()),
                }
            }
        }
        auth
    }

    /// What a server that does not let us in says by it, and what to do. It follows the server's name.
    pub(super) fn refusal(&self, keys: &str) -> String {
        match self {
            Self::Nobody => format!(
                "wants a login: set {keys}, or adapter.nats.nkey_seed_file or adapter.nats.creds_file"
            ),
            Self::User { .. } | Self::Token(_) => format!("refuses this login: set {keys}"),
            Self::Signed(identity) => {
                let user = identity.public_key();
                match (&identity.jwt, identity.expired_for_s(now_s())) {
                    (_, Some(seconds)) => format!(
                        "refuses the user {user}: the JWT in the file of {keys} expired {seconds} s ago; \
                         a new file there is read at the next attempt"
                    ),
                    (Some(_), None) => format!(
                        "refuses the user {user} of {keys}: its JWT was revoked, is not valid here or now, \
                         or is of an account that this server does not know; a new file there is read at \
                         the next attempt"
                    ),
                    (None, None) => format!(
                        "refuses the user {user} of {keys}: allow it there (authorization: users: \
                         [{{ nkey: {user} }}]), or write another seed to the file, which is read at the \
                         next attempt"
                    ),
                }
            }
        }
    }

    /// Whether the text holds a secret.
    pub(super) fn is_leaked_by(&self, text: &str) -> bool {
        let secret = match self {
            Self::Nobody => None,
            Self::User { password, .. } => Some(password),
            Self::Token(token) => Some(token),
            // The seed is told to nobody; whoever has a JWT may need no more.
            Self::Signed(identity) => identity.jwt.as_ref().map(|jwt| &jwt.text),
        };
        secret.is_some_and(|it| !it.expose().is_empty() && text.contains(it.expose()))
    }
}

/// Seconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "a JWT says by the wall clock when it ends"
)]
fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use nkeys::{KeyPair, KeyPairType};

    use super::{super::login_file::FileKind, *};

    fn signed() -> (KeyPair, Login) {
        let key = KeyPair::new_from_raw(KeyPairType::User, [7; 32]).expect("32 bytes are a key");
        let seed = key.seed().expect("it was made of one");
        let identity = Identity::parse(FileKind::Nkey, &seed).expect("it is one");
        (key, Login::Signed(Arc::new(identity)))
    }

    #[test]
    fn what_a_server_asks_is_signed_and_nothing_else() {
        let (key, login) = signed();
        let auth = login.auth(b"nonce");
        assert_eq!(auth.nkey, Some(key.public_key()));
        let signature = auth.signature.expect("it is signed");
        key.verify(b"nonce", &signature).expect("it is the user's");
        let auth = login.auth(b"");
        assert_eq!((auth.nkey, auth.signature), (None, None));
    }

    #[test]
    fn a_refused_login_is_told_by_its_kind_and_holds_no_secret() {
        let user = Login::User {
            username: "u".to_owned(),
            password: Secret::from("hidden"),
        };
        for (login, says) in [
            (
                Login::Nobody,
                "wants a login: set KEYS, or adapter.nats.nkey_seed_file",
            ),
            (user, "refuses this login: set KEYS"),
            (
                Login::Token(Secret::from("hidden")),
                "refuses this login: set KEYS",
            ),
            (
                signed().1,
                "of KEYS: allow it there (authorization: users: [{ nkey: U",
            ),
        ] {
            let told = login.refusal("KEYS");
            assert!(told.contains(says), "{told}");
            assert!(
                !told.contains("hidden") && !login.is_leaked_by(&told),
                "{told}"
            );
        }
        assert!(Login::Token(Secret::from("hidden")).is_leaked_by("so hidden"));
        assert!(!Login::Token(Secret::default()).is_leaked_by("anything"));
    }
}
