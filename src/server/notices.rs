//! What the log says of single connections and requests, at debug alone.
//!
//! Owns: those lines and the names of their fields.
//! May depend on: `connection`, `http::api`, `tracing`.
//! Invariants: without debug a line costs one look at the log's level; nothing is said of what goes well but that
//! connections come and go; a line holds no secret, key, signature or payload, and of what clients send the names of
//! channels alone, cut.

use std::fmt;

use shards::application::{Closed, Slot};
use tracing::{Level, debug, enabled};

use super::ShardServer;
use crate::{
    connection::{
        effect::Reply,
        row::{Connection, PeerKind},
        upgrade::UpgradeRefusal,
    },
    http::api::ApiError,
    protocol::{
        app::AppIndex,
        code::{CLIENT_EVENT_REJECTED, CloseCode},
    },
};

/// Of a channel's name, which may be as long as a message, so much is shown.
const NAME_BYTES_MAX: usize = 200;

/// A peer as a line has it.
struct Shown(PeerKind);

impl fmt::Display for Shown {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PeerKind::Address(address) => write!(out, "{}", address.to_canonical()),
            PeerKind::Local => out.write_str("unix"),
        }
    }
}

impl ShardServer {
    /// Peers' addresses are kept until their connections are established.
    pub(super) fn keeps_peers(&self) -> bool {
        self.settings.wants_peers || enabled!(Level::DEBUG)
    }

    /// A connection was established.
    pub(super) fn tell_opened(&self, slot: Slot, peer: Option<PeerKind>) {
        debug!(
            shard = self.shard.0,
            app_id = self.app_id(self.told_of(slot).app),
            socket_id = %self.told_of(slot).socket_id,
            peer = peer.map(|peer| display(Shown(peer))),
            "connection opened"
        );
    }

    /// A connection is about to end; of one that was not established nothing is said.
    pub(super) fn tell_closed(&self, slot: Slot, code: Option<u16>, reason: &str) {
        if !enabled!(Level::DEBUG) || !self.told_of(slot).is_open() {
            return;
        }
        debug!(
            shard = self.shard.0,
            app_id = self.app_id(self.told_of(slot).app),
            socket_id = %self.told_of(slot).socket_id,
            close_code = code,
            reason,
            "connection closed"
        );
    }

    /// The runtime says that a connection is gone, which had not been closed.
    pub(super) fn tell_ended(&self, slot: Slot, how: Closed) {
        let reason = match how {
            Closed::ByPeer => "the client hung up",
            Closed::ByError => "the socket failed",
            Closed::ByUs => "cut",
        };
        self.tell_closed(slot, None, reason);
    }

    /// A client is refused by an error frame.
    pub(super) fn tell_refused(&self, slot: Slot, refusal: UpgradeRefusal) {
        debug!(
            shard = self.shard.0,
            app_id = self.app_id(self.told_of(slot).app),
            peer = self.shown_peer(slot).map(display),
            close_code = refusal.code().value(),
            reason = refusal.reason(),
            "connection refused"
        );
    }

    /// A client is refused by an answer of HTTP.
    pub(super) fn tell_unswitched(&self, slot: Slot, reason: impl fmt::Display) {
        debug!(
            shard = self.shard.0,
            peer = self.shown_peer(slot).map(display),
            %reason,
            "connection refused"
        );
    }

    /// A connection is answered; that is told of when it is refused something.
    pub(super) fn tell_answer(&self, slot: Slot, reply: &Reply<'_>) {
        if !enabled!(Level::DEBUG) {
            return;
        }
        let row = self.told_of(slot);
        let (shard, app_id, socket_id) = (self.shard.0, self.app_id(row.app), row.socket_id);
        match reply {
            Reply::Refused { channel, refusal } => {
                let (channel, (_, error, _)) = (cut(channel), refusal.parts());
                debug!(shard, app_id, %socket_id, channel, error, "subscription refused");
            }
            Reply::Error {
                code: Some(code),
                text: error,
                ..
            } if *code == CloseCode::UNAUTHORIZED.value() => {
                debug!(shard, app_id, %socket_id, error, "sign-in refused");
            }
            Reply::Error {
                code: Some(CLIENT_EVENT_REJECTED),
                text: error,
                channel,
            } => {
                let channel = channel.as_deref().map(cut);
                debug!(shard, app_id, %socket_id, channel, error, "client event refused");
            }
            Reply::Error { text: error, .. } => {
                debug!(shard, app_id, %socket_id, error, "message refused");
            }
            Reply::Pong
            | Reply::Subscribed { .. }
            | Reply::SignedIn { .. }
            | Reply::Watched { .. } => {}
        }
    }

    /// A request of the API is refused.
    pub(super) fn tell_request_refused(&self, app: AppIndex, error: ApiError) {
        debug!(
            shard = self.shard.0,
            app_id = self.app_id(app),
            status = error.status().code(),
            %error,
            "API request refused"
        );
    }

    fn told_of(&self, slot: Slot) -> &Connection {
        &self.connections[slot.index as usize]
    }

    fn shown_peer(&self, slot: Slot) -> Option<Shown> {
        let rare = self.told_of(slot).rare.as_ref()?;
        rare.peer.map(Shown)
    }

    /// `None` before an app is known, and of one that is gone.
    fn app_id(&self, app: AppIndex) -> Option<&str> {
        self.apps.get(app).map(|app| &*app.entry.app.id)
    }
}

fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channels_name_is_cut_between_characters() {
        for (name, bytes) in [
            ("x".repeat(NAME_BYTES_MAX), NAME_BYTES_MAX),
            ("x".repeat(NAME_BYTES_MAX + 1), NAME_BYTES_MAX),
            ("€".repeat(67), 198),
            (String::new(), 0),
        ] {
            assert_eq!(cut(&name).len(), bytes, "{name}");
        }
    }
}
