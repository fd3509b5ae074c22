//! One connection with all that its steps look at, for the tests of this room.
//!
//! Owns: `Step`, rules that allow everything.
//! May depend on: the other files of this room, `channel`, `protocol`.
//! Invariants: signatures are made with the app's own secret, so that a test breaks one thing at a
//! time.

use std::sync::Arc;

use shards::application::{Millis, ShardId, Slot};

use super::{
    effect::{Effect, Publish, Tally, View},
    row::{Awaited, Connection, SignedIn, State},
    rules::NodeRules,
    subscriptions::Subscription,
};
use crate::{
    channel::{
        local::{LocalTable, Subscriber},
        names::{NameHasher, tests::hasher},
        user::UserId,
    },
    protocol::{
        app::AppIndex, auth::Signer, incoming::ClientData, name::ChannelKind,
        partition::AppPartitions, rules::AppRules, socket_id::SocketId,
    },
    ws::{
        codec::Item,
        handshake::{AcceptKey, accept_key},
    },
};

const SECRET: &str = "app-secret";

pub(super) fn node_rules() -> NodeRules {
    NodeRules {
        activity_timeout_ms: 120_000,
        authorize_within_ms: 30_000,
        requires_protocol: false,
        memberships_per_s: 0,
        memberships_burst: 0,
        limits_connections: false,
        message_within_ms: 200_000,
        age_max_ms: 0,
        frame_bytes_max: usize::MAX,
    }
}

pub(super) fn app_rules() -> AppRules {
    AppRules {
        index: AppIndex(0),
        key: "app-key".into(),
        partitions: AppPartitions::of_app("app-id"),
        signers: [Signer::new(SECRET)].into(),
        origins: [].into(),
        is_enabled: true,
        requires_tls: false,
        limits_connections: false,
        allows_client_events: true,
        client_events_per_s: 0,
        subscriptions_max: 0,
        channel_name_bytes_max: 200,
        event_name_bytes_max: 200,
        event_data_bytes_max: 10_240,
        member_bytes_max: 2_048,
        event_channels_max: 100,
        batch_events_max: 10,
        allows_sign_in: true,
        has_watchlists: true,
    }
}

pub(super) fn accept_key_of_test() -> AcceptKey {
    accept_key("dGhlIHNhbXBsZSBub25jZQ==")
}

/// A user of the app.
pub(super) fn user(id: &str) -> UserId {
    UserId::new(&hasher(), &app_rules().partitions, id)
}

pub(super) fn signed_in(user_id: &str) -> SignedIn {
    SignedIn {
        user_id: user(user_id),
        info: "null".into(),
        watchlist: Vec::new(),
        is_known: true,
    }
}

/// The data token of an event whose data is a string.
pub(super) fn data_of<'a>(publish: &Publish<'a>) -> &'a str {
    match publish.data {
        ClientData::Text(string) => string.token(),
        ClientData::Json(_) | ClientData::Absent => panic!("no string"),
    }
}

/// An open connection of an app, and what its next step looks at.
pub(super) struct Step {
    pub(super) app: AppRules,
    pub(super) node: NodeRules,
    pub(super) now: Millis,
    pub(super) connection: Connection,
    pub(super) channels: LocalTable,
    pub(super) names: NameHasher,
    pub(super) token: Vec<u8>,
    /// Of the last step.
    pub(super) tally: Tally,
    /// The channel of a client event.
    pub(super) channel: Option<&'static str>,
    /// The connection is to be in `private-room`.
    pub(super) subscribed: bool,
    pub(super) user_data: &'static str,
}

impl Step {
    pub(super) fn new(app: AppRules) -> Self {
        let mut connection = Connection::vacant();
        connection.state = State::Open(Awaited::Next);
        connection.app = app.index;
        connection.socket_id = SocketId::new(1_234, 5_678).expect("in range");
        Self {
            app,
            node: node_rules(),
            now: Millis(1_000_000),
            connection,
            channels: LocalTable::default(),
            names: hasher(),
            token: Vec::new(),
            tally: Tally::default(),
            channel: Some("private-room"),
            subscribed: true,
            user_data: r#"{"id":"ann"}"#,
        }
    }

    pub(super) fn on_text<'a>(&mut self, text: &'a str) -> Effect<'a> {
        let mut view = View {
            now: self.now,
            node: &self.node,
            app: Some(&self.app),
            channels: &self.channels,
            names: &self.names,
            token: &mut self.token,
            tally: Tally::default(),
        };
        let effect = self.connection.on_item(&mut view, Item::Text(text));
        self.tally = view.tally;
        effect
    }

    /// Puts the connection into a channel, as if its home had answered.
    pub(super) fn enter(&mut self, channel: &str, user_id: Option<&str>) {
        let key = self.names.channel_key(&self.app.partitions, channel);
        let app = self.app.index;
        let local = self.channels.enter(app, channel, key, ShardId(0));
        let slot = Slot {
            index: 0,
            generation: 0,
        };
        let subscription = self.connection.subscriptions.next_number();
        let position = self
            .channels
            .held(local.0.index)
            .add(Subscriber { slot, subscription });
        let subscription = Subscription {
            channel: local.0.index,
            position,
        };
        let user_id: Option<Arc<str>> = user_id.map(Into::into);
        let kind = ChannelKind::of(channel);
        self.connection.on_joined(subscription, kind, user_id);
    }

    /// The frame of a subscription; the auth `good` is signed as it must be.
    pub(super) fn subscription(
        &self,
        channel: &str,
        auth: Option<&str>,
        data: Option<&str>,
    ) -> String {
        let mut signed = format!("{}:{channel}", self.connection.socket_id);
        if let Some(data) = data {
            signed = format!("{signed}:{data}");
        }
        let auth = auth.map(|auth| match auth {
            "good" => sign(&signed),
            other => other.to_owned(),
        });
        let data = serde_json::json!({ "channel": channel, "auth": auth, "channel_data": data });
        serde_json::json!({ "event": "pusher:subscribe", "data": data }).to_string()
    }

    pub(super) fn sign_in(&self) -> String {
        let user_data = self.user_data;
        let auth = sign(&format!("{}::user::{user_data}", self.connection.socket_id));
        let data = serde_json::json!({ "auth": auth, "user_data": user_data });
        serde_json::json!({ "event": "pusher:signin", "data": data }).to_string()
    }
}

fn sign(text: &str) -> String {
    let hex = Signer::new(SECRET).sign_hex(&[text.as_bytes()]);
    format!("app-key:{}", String::from_utf8_lossy(&hex))
}
