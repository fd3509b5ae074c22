//! A server under load: where it listens, which app it serves, which process it is.
//!
//! Owns: addresses and credentials; signatures of channels and API requests.
//! May depend on: hmac, sha2, md-5, `tls`. Not on the server's own code, whose oracle this is.
//! Invariants: an API request is signed with the time at which it was made.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::tls::Tls;

/// One app's names and secret.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub id: String,
    pub key: String,
    pub secret: String,
}

/// A server that takes the load.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: String,
    pub address: SocketAddr,
    /// What requests name as their host.
    pub authority: String,
    pub app: Credentials,
    /// Its process, where it runs on this machine and is known.
    pub pid: Option<u32>,
    /// None = plain TCP.
    pub tls: Option<Tls>,
    /// Where it is asked to be replaced, where that is known.
    pub admin_socket: Option<PathBuf>,
}

impl Target {
    /// The `auth` of a subscription to a private channel.
    pub fn channel_auth(&self, socket_id: &str, channel: &str) -> String {
        format!(
            "{}:{}",
            self.app.key,
            self.sign(&format!("{socket_id}:{channel}"))
        )
    }

    /// A complete signed `POST` to the app's API, `call` being `events` or `batch_events`.
    pub fn api_request(&self, call: &str, body: &str) -> Vec<u8> {
        let path = format!("/apps/{}/{call}", self.app.id);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let query = format!(
            "auth_key={}&auth_timestamp={}&auth_version=1.0&body_md5={}",
            self.app.key,
            since_epoch.map_or(0, |time| time.as_secs()),
            hex(&Md5::digest(body.as_bytes())),
        );
        let signature = self.sign(&format!("POST\n{path}\n{query}"));
        format!(
            "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )
        .into_bytes()
    }

    /// A complete signed `GET` of the app's API; the parameters need no escapes.
    pub fn api_question(&self, call: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
        let path = format!("/apps/{}/{call}", self.app.id);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = since_epoch.map_or(0, |time| time.as_secs()).to_string();
        let mut all = vec![
            ("auth_key", &*self.app.key),
            ("auth_timestamp", &*timestamp),
            ("auth_version", "1.0"),
        ];
        all.extend(parameters);
        all.sort_unstable();
        let pairs: Vec<String> = all.iter().map(|(key, it)| format!("{key}={it}")).collect();
        let query = pairs.join("&");
        let signature = self.sign(&format!("GET\n{path}\n{query}"));
        format!(
            "GET {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.authority
        )
        .into_bytes()
    }

    /// A `GET` without a signature.
    pub fn plain_request(&self, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority).into_bytes()
    }

    /// The `auth` of a subscription to a presence channel, which signs who the member is.
    pub fn member_auth(&self, socket_id: &str, channel: &str, channel_data: &str) -> String {
        let signature = self.sign(&format!("{socket_id}:{channel}:{channel_data}"));
        format!("{}:{signature}", self.app.key)
    }

    fn sign(&self, text: &str) -> String {
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.app.secret.as_bytes())
            .expect("HMAC takes keys of any length");
        hmac.update(text.as_bytes());
        hex(&hmac.finalize().into_bytes())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_signed_as_in_pushers_example() {
        // https://pusher.com/docs/channels/library_auth_reference/auth-signatures/
        let target = Target {
            name: "example".to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 80)),
            authority: "localhost".to_owned(),
            app: Credentials {
                id: "3".to_owned(),
                key: "278d425bdf160c739803".to_owned(),
                secret: "7ad3773142a6692b25b8".to_owned(),
            },
            pid: None,
            tls: None,
            admin_socket: None,
        };
        assert_eq!(
            target.channel_auth("1234.1234", "private-foobar"),
            "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
    }
}
