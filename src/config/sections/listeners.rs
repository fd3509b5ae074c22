//! Listeners beside plain TCP.
//!
//! Owns: `ssl`, `unix_socket`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::Secret;
use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Ssl in "ssl" {
        /// TLS on `port`.
        enabled: bool = flag().default("false").env(&["SSL_ENABLED"]);
        /// Certificate chain, PEM: the key's own certificate first.
        cert_path: String = text(shape::ANY).default("").env(&["SSL_CERT_PATH"]).reloads();
        /// Private key, PEM.
        key_path: String = text(shape::ANY).default("").env(&["SSL_KEY_PATH"]).reloads();
        /// Opens the private keys that are encrypted.
        passphrase: Option<Secret> = secret().env(&["SSL_PASS"]).reloads();
        /// More certificate chains, PEM, each for the names in it; `ssl.cert_path` is for the rest.
        extra_cert_paths: Vec<String> = texts(shape::NOT_EMPTY).default("").ours().reloads();
        /// Their private keys, in the same order.
        extra_key_paths: Vec<String> = texts(shape::NOT_EMPTY).default("").ours().reloads();
        /// CA of client certificates, PEM; clients are asked for one then.
        ca_path: Option<String> = text(shape::ANY).env(&["SSL_CA"]).reloads();
        /// What follows when a client that is asked shows none.
        client_certificates: ClientCertificates = choice(ClientCertificates::CHOICES)
            .default("required").ours().reloads();
        /// Keys of the tickets by which sessions are resumed, for nodes that share them: a key on each line, the first
        /// one seals. Without it each node makes its own.
        ticket_keys_path: Option<String> = text(shape::ANY).ours().reloads();
        /// A second listener that redirects to https.
        redirect_http: bool = flag().default("false").env(&["SSL_REDIRECT_HTTP"]);
        /// Its port.
        http_port: Option<u16> = port().default("80").nullable().env(&["SSL_HTTP_PORT"]);
    }
}

choices! {
    pub enum ClientCertificates {
        Required = "required",
        Optional = "optional",
    }
}

section! {
    pub struct UnixSocket in "unix_socket" {
        /// Listen on a Unix socket instead of TCP.
        enabled: bool = flag().default("false").env(&["UNIX_SOCKET_ENABLED"]);
        /// Its path.
        path: String = text(shape::ABSOLUTE_PATH).default("/var/run/sockudo/sockudo.sock")
            .env(&["UNIX_SOCKET_PATH"]);
        /// Its mode, octal.
        permission_mode: u32 = mode().default("660").env(&["UNIX_SOCKET_PERMISSION_MODE"]);
        /// User whose file it is, a name of /etc/passwd or a number; unset = the server's.
        owner: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Its group, a name of /etc/group or a number; unset = the server's.
        group: Option<String> = text(shape::NOT_EMPTY).ours();
        /// Listen on TCP as well.
        also_tcp: bool = flag().default("false").ours();
    }
}
