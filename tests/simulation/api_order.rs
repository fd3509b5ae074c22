//! In which order a request of the API is refused (docs/http-api.md): of two faults the one that is looked for first is told.

use serde_json::json;
use shards::application::Peer;

use crate::{
    scene::{KEY, Scene, responses},
    sign,
    turn::UNIX_MS,
};

/// A request whose parts can be broken one by one; it is signed when that is done.
struct Asks {
    path: &'static str,
    method: &'static str,
    /// The address has used up what it may ask.
    is_limited: bool,
    /// Bytes that are said to follow.
    body_bytes: Option<usize>,
    app: &'static str,
    secret: &'static str,
    is_enabled: bool,
    is_json: bool,
    data_bytes: usize,
    /// The app has used up what it may publish.
    is_spent: bool,
}

type Fault = fn(&mut Asks);

/// What is wrong, the status, and a part of what is said, in the order of the documentation.
const FAULTS: [(&str, u16, &str, Fault); 10] = [
    ("path", 404, "not found", |asks| asks.path = "nothing"),
    ("method", 405, "method", |asks| asks.method = "PUT"),
    ("address", 429, "", |asks| asks.is_limited = true),
    ("size", 413, "request body", |asks| {
        asks.body_bytes = Some(11_000_000)
    }),
    ("app", 404, "app", |asks| asks.app = "nobody"),
    ("signature", 401, "signature", |asks| {
        asks.secret = "guessed"
    }),
    ("disabled", 403, "", |asks| asks.is_enabled = false),
    ("json", 400, "", |asks| asks.is_json = false),
    ("data", 413, "data", |asks| asks.data_bytes = 2_000),
    ("rate", 429, "", |asks| asks.is_spent = true),
];

impl Asks {
    fn with(faults: &[Fault]) -> Self {
        let mut asks = Self {
            path: "events",
            method: "POST",
            is_limited: false,
            body_bytes: None,
            app: "scene-id",
            secret: KEY.1,
            is_enabled: true,
            is_json: true,
            data_bytes: 10,
            is_spent: false,
        };
        faults.iter().for_each(|fault| fault(&mut asks));
        asks
    }

    /// Status and body.
    fn is_told(&self, shards: u16) -> (u16, String) {
        let limit = json!({"max_requests": 1, "window_seconds": 60});
        let keys = json!({"rate_limiter": {"enabled": true, "api_rate_limit": limit}});
        let app = json!({
            "enabled": self.is_enabled, "max_event_payload_in_kb": 1, "max_backend_events_per_second": 1,
        });
        let mut scene = Scene::start(shards, &keys, &app);
        let [own, other] = ["192.0.2.1:1024", "192.0.2.2:1024"];
        if self.is_limited {
            let get = scene.request("/channels", &[], None);
            asks(&mut scene, own, &get);
        }
        if self.is_spent {
            let one = json!({"name": "e", "channel": "c", "data": "x"});
            let post = scene.request("/events", &[], Some(&one));
            asks(&mut scene, other, &post);
        }
        let data = "x".repeat(self.data_bytes);
        let body = json!({"name": "e", "channel": "c", "data": data}).to_string();
        let body = if self.is_json { &*body } else { "{" };
        let (method, path) = (self.method, format!("/apps/{}/{}", self.app, self.path));
        let time = (UNIX_MS + scene.node.now.0) / 1_000;
        let login = (KEY.0, self.secret);
        let query = sign::api_query(login, method, &path, &[], body.as_bytes(), time);
        let bytes = self.body_bytes.unwrap_or(body.len());
        let head = format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: node\r\nContent-Length: {bytes}\r\n\r\n"
        );
        asks(&mut scene, own, (head + body).as_bytes())
    }
}

/// Of that address, on a connection of its own.
fn asks(scene: &mut Scene, address: &str, bytes: &[u8]) -> (u16, String) {
    let link = scene.node.connect(0, 1 << 16);
    let address = address.parse().expect("an address");
    scene.node.links[link].peer = Peer::Address(address);
    scene.say(link, bytes);
    scene.rest();
    let mut answers = responses(&scene.takes(link));
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (status, body) = answers.remove(0);
    (status, String::from_utf8(body).expect("text"))
}

#[test]
fn of_two_faults_of_an_api_request_the_one_that_is_looked_for_first_is_told() {
    for shards in [1, 3] {
        assert_eq!(Asks::with(&[]).is_told(shards), (200, "{}".to_owned()));
        for (index, (name, status, words, fault)) in FAULTS.iter().enumerate() {
            let alone = Asks::with(&[*fault]).is_told(shards);
            assert_eq!(alone.0, *status, "{name}: {alone:?}");
            assert!(alone.1.to_lowercase().contains(words), "{name}: {alone:?}");
            for (other, _, _, later) in &FAULTS[index + 1..] {
                let both = Asks::with(&[*fault, *later]).is_told(shards);
                assert_eq!(both, alone, "{name} beside {other}");
            }
        }
    }
}
