//! A Pusher client that does exactly what a test says, no more: it answers no ping and retries nothing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::Server;
use super::wire::{CLOSE, Frame, PING, PONG, TEXT, Wire};
use super::{DEADLINE, SILENCE, sign};

pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) wire: Wire,
    pub(crate) socket_id: String,
    key: String,
    secret: String,
}

impl Client {
    /// Connects with protocol 7 and reads `connection_established`.
    #[track_caller]
    pub(crate) fn connect(server: &Server, name: &str, key: &str, secret: &str) -> Self {
        let target = format!("{}/app/{key}?protocol=7&client=test", server.prefix);
        Self::over(server.wire(), &target, name, key, secret)
    }

    /// The same over a connection that leads to a server, past whatever stands between.
    #[track_caller]
    pub(crate) fn over(mut wire: Wire, target: &str, name: &str, key: &str, secret: &str) -> Self {
        wire.upgrades(target, "");
        let mut client = Self {
            name: name.to_owned(),
            wire,
            socket_id: String::new(),
            key: key.to_owned(),
            secret: secret.to_owned(),
        };
        client.reads_established();
        client
    }

    #[track_caller]
    fn reads_established(&mut self) {
        let first = self.next();
        assert_eq!(
            first["event"], "pusher:connection_established",
            "{}'s first frame",
            self.name
        );
        let data: Value = serde_json::from_str(first["data"].as_str().expect("data is a string"))
            .expect("data holds JSON");
        self.socket_id = data["socket_id"].as_str().expect("a socket id").to_owned();
    }

    pub(crate) fn sends(&mut self, frame: Value) {
        self.wire.sends_text(&frame.to_string());
    }

    /// The next text frame as JSON. WebSocket pings and pongs are passed over.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        match self.next_within(DEADLINE) {
            Some(value) => value,
            None => panic!(
                "{} waited {DEADLINE:?} for a frame or the connection ended",
                self.name
            ),
        }
    }

    #[track_caller]
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wire.try_frame(left)? {
                Frame {
                    opcode: TEXT,
                    payload,
                } => {
                    let parsed = serde_json::from_slice(&payload);
                    return Some(parsed.unwrap_or_else(|error| {
                        panic!("{error} in {:?}", String::from_utf8_lossy(&payload))
                    }));
                }
                Frame {
                    opcode: PING | PONG,
                    ..
                } => {}
                frame if frame.opcode == CLOSE => {
                    panic!("{} was closed: {:?}", self.name, frame.close_code())
                }
                frame => panic!("{} got {frame:?}", self.name),
            }
        }
    }

    /// The next frame, which must be this event on this channel; gives it whole.
    #[track_caller]
    pub(crate) fn expects(&mut self, event: &str, channel: &str) -> Value {
        let frame = self.next();
        assert_eq!(
            (frame["event"].as_str(), frame["channel"].as_str()),
            (Some(event), Some(channel)),
            "{} got {frame}",
            self.name
        );
        frame
    }

    /// As `expects`, and gives the JSON inside the `data` string.
    #[track_caller]
    pub(crate) fn expects_data(&mut self, event: &str, channel: &str) -> Value {
        let frame = self.expects(event, channel);
        let text = frame["data"]
            .as_str()
            .unwrap_or_else(|| panic!("data is a string in {frame}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// The next frame is exactly this JSON, key order apart.
    #[track_caller]
    pub(crate) fn expects_frame(&mut self, frame: Value) {
        let got = self.next();
        assert_eq!(got, frame, "{}", self.name);
    }

    /// The next frame is `pusher:error` with this code; gives it whole.
    #[track_caller]
    pub(crate) fn expects_error(&mut self, code: impl Into<Value>) -> Value {
        let frame = self.next();
        assert_eq!(frame["event"], "pusher:error", "{} got {frame}", self.name);
        assert_eq!(
            frame["data"]["code"],
            code.into(),
            "{} got {frame}",
            self.name
        );
        assert!(frame["data"]["message"].is_string(), "{frame}");
        frame
    }

    /// The next frame refuses a subscription with this type and status.
    #[track_caller]
    pub(crate) fn expects_refusal(&mut self, channel: &str, kind: &str, status: u16) {
        let frame = self.next();
        assert_eq!(
            frame["event"], "pusher:subscription_error",
            "{} got {frame}",
            self.name
        );
        assert_eq!(frame["channel"], channel, "{frame}");
        assert_eq!(frame["data"]["type"], kind, "{frame}");
        assert_eq!(frame["data"]["status"], status, "{frame}");
        assert!(frame["data"]["error"].is_string(), "{frame}");
    }

    /// All that the server has answered on this socket so far is read: the next frame is a pong.
    #[track_caller]
    pub(crate) fn expects_pong(&mut self) {
        self.sends(json!({"event": "pusher:ping", "data": {}}));
        self.expects_frame(json!({"event": "pusher:pong", "data": "{}"}));
    }

    /// Nothing comes for a while, and the socket still answers.
    #[track_caller]
    pub(crate) fn expects_nothing(&mut self) {
        self.expects_nothing_for(SILENCE);
    }

    #[track_caller]
    pub(crate) fn expects_nothing_for(&mut self, limit: Duration) {
        if let Some(frame) = self.next_within(limit) {
            panic!("{} expected nothing and got {frame}", self.name);
        }
        self.expects_pong();
    }

    /// Error frame, then close frame, both with this code, then the end.
    #[track_caller]
    pub(crate) fn is_closed_with(&mut self, code: u16) {
        let texts = self.wire.is_closed_with(code);
        let last = texts
            .last()
            .unwrap_or_else(|| panic!("{}: an error frame first", self.name));
        assert_eq!(last["event"], "pusher:error", "{}: {texts:?}", self.name);
        assert_eq!(last["data"]["code"], code, "{}: {texts:?}", self.name);
    }

    /// Whatever comes, then the end, without a word or with one.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        self.wire.frames_until_end();
    }

    /// Asks for a channel with whatever authorisation its prefix needs (private only; presence has its own verb).
    pub(crate) fn asks_for(&mut self, channel: &str) {
        let frame = if channel.starts_with("private-") {
            let auth = self.channel_auth(channel, None);
            json!({"event": "pusher:subscribe", "data": {"auth": auth, "channel": channel}})
        } else {
            json!({"event": "pusher:subscribe", "data": {"auth": "", "channel": channel}})
        };
        self.sends(frame);
    }

    /// Subscribes to a public or private channel and reads the success.
    #[track_caller]
    pub(crate) fn subscribes(&mut self, channel: &str) {
        self.asks_for(channel);
        self.expects_frame(json!({
            "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": "{}",
        }));
    }

    /// Subscribes to a cache channel that holds nothing, and reads success and miss.
    #[track_caller]
    pub(crate) fn subscribes_to_empty_cache(&mut self, channel: &str) {
        self.subscribes(channel);
        self.expects_frame(json!({"event": "pusher:cache_miss", "channel": channel}));
    }

    pub(crate) fn channel_auth(&self, channel: &str, channel_data: Option<&str>) -> String {
        sign::channel_auth(
            &self.key,
            &self.secret,
            &self.socket_id,
            channel,
            channel_data,
        )
    }

    /// Asks for a presence channel with this text as `channel_data`.
    pub(crate) fn asks_to_join(&mut self, channel: &str, channel_data: &str) {
        let auth = self.channel_auth(channel, Some(channel_data));
        self.sends(json!({"event": "pusher:subscribe", "data": {
            "auth": auth, "channel_data": channel_data, "channel": channel,
        }}));
    }

    /// Joins a presence channel as a user and gives the snapshot.
    #[track_caller]
    pub(crate) fn joins(&mut self, channel: &str, user_id: &str) -> Snapshot {
        self.joins_with(channel, user_id, json!({"name": user_id}))
    }

    #[track_caller]
    pub(crate) fn joins_with(
        &mut self,
        channel: &str,
        user_id: &str,
        user_info: Value,
    ) -> Snapshot {
        let channel_data = json!({"user_id": user_id, "user_info": user_info}).to_string();
        self.asks_to_join(channel, &channel_data);
        self.expects_snapshot(channel)
    }

    #[track_caller]
    pub(crate) fn expects_snapshot(&mut self, channel: &str) -> Snapshot {
        let data = self.expects_data("pusher_internal:subscription_succeeded", channel);
        Snapshot::parse(&data)
    }

    #[track_caller]
    pub(crate) fn expects_member_added(&mut self, channel: &str, user_id: &str) {
        let data = self.expects_data("pusher_internal:member_added", channel);
        assert_eq!(data["user_id"], user_id, "{}", self.name);
        assert!(data.get("user_info").is_some(), "{data}");
    }

    #[track_caller]
    pub(crate) fn expects_member_removed(&mut self, channel: &str, user_id: &str) {
        let data = self.expects_data("pusher_internal:member_removed", channel);
        assert_eq!(data, json!({"user_id": user_id}), "{}", self.name);
    }

    /// Unsubscribes; there is no answer, so a pong stands for it having been read.
    #[track_caller]
    pub(crate) fn unsubscribes(&mut self, channel: &str) {
        self.sends(json!({"event": "pusher:unsubscribe", "data": {"channel": channel}}));
        self.expects_pong();
    }

    pub(crate) fn triggers(&mut self, event: &str, channel: &str, data: Value) {
        self.sends(json!({"event": event, "channel": channel, "data": data}));
    }

    pub(crate) fn asks_to_sign_in(&mut self, user_data: &str) {
        let auth = sign::signin_auth(&self.key, &self.secret, &self.socket_id, user_data);
        self.sends(
            json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}}),
        );
    }

    /// Signs in with this `user_data` and reads the success, which echoes it.
    #[track_caller]
    pub(crate) fn signs_in_with(&mut self, user_data: &str) {
        self.asks_to_sign_in(user_data);
        self.expects_frame(
            json!({"event": "pusher:signin_success", "data": {"user_data": user_data}}),
        );
    }

    #[track_caller]
    pub(crate) fn signs_in(&mut self, id: &str) {
        self.signs_in_with(&json!({"id": id}).to_string());
    }

    /// Closes as a browser does: close frame, then waits for the answer and the end.
    #[track_caller]
    pub(crate) fn leaves(mut self) {
        self.wire.sends_frame(CLOSE, &1000u16.to_be_bytes());
        while let Some(frame) = self.wire.try_frame(DEADLINE) {
            if frame.opcode == CLOSE {
                assert_eq!(
                    frame.close_code(),
                    Some(1000),
                    "{}'s close is echoed",
                    self.name
                );
                return;
            }
        }
        panic!("{}'s close frame is answered", self.name);
    }
}

/// What a presence channel's success says.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) ids: Vec<String>,
    pub(crate) hash: Value,
}

impl Snapshot {
    /// Checks that ids, hash and count agree. The ids are sorted, since their order is not promised.
    #[track_caller]
    fn parse(data: &Value) -> Self {
        let presence = &data["presence"];
        let ids = presence["ids"]
            .as_array()
            .unwrap_or_else(|| panic!("ids in {data}"));
        let mut ids: Vec<String> = ids
            .iter()
            .map(|id| id.as_str().expect("ids are strings").to_owned())
            .collect();
        ids.sort();
        let hash = presence["hash"].clone();
        let mut keys: Vec<String> = hash
            .as_object()
            .unwrap_or_else(|| panic!("hash in {data}"))
            .keys()
            .cloned()
            .collect();
        keys.sort();
        assert_eq!(ids, keys, "ids and hash name the same users");
        assert_eq!(presence["count"], ids.len(), "count is that of the ids");
        Self { ids, hash }
    }
}
