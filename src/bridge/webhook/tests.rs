//! Webhooks against real HTTP servers on loopback.
//!
//! Owns: `Endpoint`, a server that records requests and answers as it is told.
//! May depend on: `bridge::webhook`, tokio.
//! Invariants: every wait has a deadline; no test sleeps to be right.

mod heritage;
mod shared;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};

use super::{Webhooks, shared::Keeping};
use crate::metrics::bridge::AppWebhooks;
use crate::protocol::app::AppIndex;
use crate::{
    bridge::{
        apps::AppTable,
        fixture::{self, PATIENCE},
        webhook_event::{ClientEventOfWebhook, WebhookEvent, WebhookKind},
    },
    config::{
        Secret,
        app::{App, WebhookFilter},
        sections::{Retry, Targets, Webhooks as Settings},
    },
    protocol::auth::Signer,
};

const ALL: &[&str] = &["channel_occupied", "channel_vacated", "client_event"];

#[tokio::test]
async fn a_request_has_the_exact_headers_and_a_signature_over_its_bytes() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let mut app = fixture::app("a");
    app.webhooks = vec![fixture::webhook(&endpoint.url, ALL)];
    app.webhooks[0].headers = [
        ("X-Extra", "yes"),
        ("x-pusher-key", "forged"),
        ("Content-type", "text/plain"),
        ("HOST", "elsewhere"),
        ("bad name", "x"),
    ]
    .map(|(name, value)| (name.to_owned(), Secret::new(value)))
    .to_vec();
    let mut webhooks = webhooks(&[app], &settings());
    webhooks.accept(WebhookEvent {
        kind: WebhookKind::ClientEvent(Box::new(ClientEventOfWebhook {
            event: "\"client-x\"".into(),
            data: "\"{\\\"é\\\":1}\"".into(),
            socket_id: "1.2".into(),
            user_id: Some("7".into()),
        })),
        ..event("presence-a", 1_700)
    });
    let request = endpoint.next(&mut webhooks).await;
    let body = "{\"time_ms\":1700,\"events\":[{\"name\":\"client_event\",\
                \"channel\":\"presence-a\",\"event\":\"client-x\",\
                \"data\":\"{\\\"é\\\":1}\",\"socket_id\":\"1.2\",\"user_id\":\"7\"}]}";
    assert_eq!(request.body, body);
    assert_eq!(request.line, "POST /hook?x=1 HTTP/1.1");
    let signer = Signer::new("secret-a");
    let signature = request.header("X-Pusher-Signature");
    assert!(signer.verify_hex(&[request.body.as_bytes()], &signature[0]));
    assert_eq!(request.header("Content-Type"), ["application/json"]);
    assert_eq!(request.header("X-Pusher-Key"), ["key-a"]);
    assert_eq!(request.header("X-Extra"), ["yes"]);
    assert_eq!(request.header("Host"), [endpoint.authority.clone()]);
}

#[tokio::test]
async fn events_of_one_window_travel_in_one_request_in_order() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(204)]).await;
    let mut webhooks = webhooks(&[app_for(&endpoint)], &settings());
    for (index, channel) in ["a", "b", "a"].into_iter().enumerate() {
        webhooks.accept(event(channel, 1_000 + index as u64));
    }
    webhooks.start();
    let request = endpoint.next(&mut webhooks).await;
    assert_eq!(request.channels(), ["a", "b", "a"]);
    assert!(
        request.body.starts_with("{\"time_ms\":1000,"),
        "{}",
        request.body
    );
}

#[tokio::test]
async fn without_batching_each_event_is_a_request_and_a_channel_stays_in_order() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let off = Settings {
        batching_enabled: false,
        ..settings()
    };
    let mut webhooks = webhooks(&[app_for(&endpoint)], &off);
    for time_ms in 1..=5 {
        webhooks.accept(event("a", time_ms));
    }
    webhooks.start();
    for time_ms in 1..=5 {
        let request = endpoint.next(&mut webhooks).await;
        assert_eq!(request.channels(), ["a"]);
        assert!(
            request
                .body
                .starts_with(&format!("{{\"time_ms\":{time_ms},"))
        );
    }
}

#[tokio::test]
async fn a_failed_request_is_sent_again_with_the_same_bytes() {
    for first in [
        Answer::Status(500),
        Answer::Status(302),
        Answer::Hangup,
        Answer::Status(404),
    ] {
        let mut endpoint = Endpoint::start(vec![first, Answer::Status(201)]).await;
        let mut webhooks = webhooks(&[app_for(&endpoint)], &settings());
        webhooks.accept(event("a", 42));
        let one = endpoint.next(&mut webhooks).await;
        let two = endpoint.next(&mut webhooks).await;
        assert_eq!(one.body, two.body, "{first:?}");
        assert!(one.body.starts_with("{\"time_ms\":42,"));
        assert_eq!(
            one.header("X-Pusher-Signature"),
            two.header("X-Pusher-Signature")
        );
        until(&mut webhooks, Webhooks::is_idle).await;
        let counters = counted(&webhooks, 0);
        assert_eq!(
            (counters.retries, counters.deliveries[0]),
            (1, [1, 1, 0, 0]),
            "{first:?}"
        );
    }
}

#[tokio::test]
async fn the_head_of_a_2xx_is_a_success_whatever_becomes_of_its_body() {
    for answer in [Answer::Endless, Answer::Cut] {
        let mut endpoint = Endpoint::start(vec![answer]).await;
        let mut webhooks = webhooks(&[app_for(&endpoint)], &settings());
        for time_ms in 1..=2 {
            webhooks.accept(event("a", time_ms));
            webhooks.start();
            endpoint.next(&mut webhooks).await;
            until(&mut webhooks, Webhooks::is_idle).await;
        }
        let deliveries = counted(&webhooks, 0).deliveries[0];
        assert_eq!(deliveries, [2, 0, 0, 0], "{answer:?}");
    }
}

#[tokio::test]
async fn a_slow_target_does_not_delay_another() {
    let slow = Endpoint::start(vec![Answer::Never]).await;
    let mut quick = Endpoint::start(vec![Answer::Status(200)]).await;
    let off = Settings {
        batching_enabled: false,
        ..settings()
    };
    let mut slow_app = app_for(&slow);
    slow_app.id = "slow".to_owned();
    let mut webhooks = webhooks(&[slow_app, app_for(&quick)], &off);
    let began = Instant::now();
    for index in 0..100 {
        webhooks.accept(event(&format!("channel-{index}"), 1));
    }
    webhooks.start();
    for index in 0..20 {
        webhooks.accept(WebhookEvent {
            app: AppIndex(1),
            ..event("a", index)
        });
        webhooks.start();
        quick.next(&mut webhooks).await;
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_app_with_many_slow_targets_does_not_delay_another_app() {
    let mut slow = Endpoint::start(vec![Answer::Never]).await;
    let mut prompt = Endpoint::start(vec![Answer::Status(200)]).await;
    let off = Settings {
        batching_enabled: false,
        ..settings()
    };
    let mut slow_app = app_for(&slow);
    slow_app.id = "slow".to_owned();
    slow_app.webhooks = vec![slow_app.webhooks[0].clone(); 70];
    let mut webhooks = webhooks(&[slow_app, app_for(&prompt)], &off);
    for index in 0..3 {
        webhooks.accept(event(&format!("channel-{index}"), 1));
    }
    webhooks.start();
    // Two thirds of the places.
    for _ in 0..43 {
        slow.next(&mut webhooks).await;
    }
    for index in 0..200 {
        webhooks.accept(WebhookEvent {
            app: AppIndex(1),
            ..event(&format!("channel-{index}"), index)
        });
    }
    webhooks.start();
    for _ in 0..200 {
        prompt.next(&mut webhooks).await;
    }
    assert!(
        slow.requests.try_recv().is_err(),
        "none of the slow app's second round came between"
    );
}

#[tokio::test]
async fn each_webhook_gets_the_events_that_its_types_and_its_filter_want() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let mut app = app_for(&endpoint);
    app.webhooks[0]
        .event_types
        .retain(|kind| kind.as_str() == "channel_occupied");
    app.webhooks[0].filter = WebhookFilter {
        prefix: Some("room-".to_owned()),
        suffix: Some("-x".to_owned()),
        pattern: Some(regex::Regex::new("[0-9]").expect("a pattern")),
    };
    let mut webhooks = webhooks(&[app], &settings());
    for channel in ["room-1-x", "room-1-y", "room-a-x", "other-1-x", "room-2-x"] {
        webhooks.accept(event(channel, 1));
    }
    webhooks.accept(WebhookEvent {
        kind: WebhookKind::ChannelVacated,
        ..event("room-1-x", 1)
    });
    webhooks.accept(WebhookEvent {
        app: AppIndex(9),
        ..event("room-1-x", 1)
    });
    let request = endpoint.next(&mut webhooks).await;
    assert_eq!(request.channels(), ["room-1-x", "room-2-x"]);
    until(&mut webhooks, Webhooks::is_idle).await;
    assert_eq!(counted(&webhooks, 0).deliveries[0], [2, 0, 0, 3]);
}

#[tokio::test]
async fn two_webhooks_with_one_url_are_two_deliveries() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let mut app = app_for(&endpoint);
    app.webhooks.push(app.webhooks[0].clone());
    for (hook, name) in app.webhooks.iter_mut().zip(["one", "two"]) {
        hook.headers = vec![("X-Hook".to_owned(), Secret::new(name))];
    }
    let mut webhooks = webhooks(&[app], &settings());
    webhooks.accept(event("a", 1));
    let mut names = vec![
        endpoint.next(&mut webhooks).await.header("X-Hook").concat(),
        endpoint.next(&mut webhooks).await.header("X-Hook").concat(),
    ];
    names.sort();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let mut elsewhere = Endpoint::start(vec![Answer::Status(200)]).await;
    let redirect = Answer::Redirect(elsewhere.url.clone().leak());
    let mut endpoint = Endpoint::start(vec![redirect]).await;
    let once = Settings {
        retry: Retry {
            attempts: 1,
            ..settings().retry
        },
        ..settings()
    };
    let mut webhooks = webhooks(&[app_for(&endpoint)], &once);
    webhooks.accept(event("a", 1));
    endpoint.next(&mut webhooks).await;
    until(&mut webhooks, Webhooks::is_idle).await;
    assert!(
        elsewhere.requests.try_recv().is_err(),
        "the redirect was followed"
    );
    assert_eq!(counted(&webhooks, 0).dead[0], 1);
}

#[tokio::test]
async fn a_denied_target_is_never_connected_to_by_address_or_by_name() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let by_name = endpoint.url.replace("127.0.0.1", "localhost");
    let deny = ["127.0.0.0/8", "::1/128"]
        .map(|net| net.parse().expect("a network"))
        .to_vec();
    let denied = Settings {
        targets: Targets {
            deny,
            allow: Vec::new(),
        },
        retry: Retry {
            attempts: 1,
            ..settings().retry
        },
        ..settings()
    };
    let mut app = app_for(&endpoint);
    app.webhooks.push(fixture::webhook(&by_name, ALL));
    let mut webhooks = webhooks(&[app], &denied);
    webhooks.accept(event("a", 1));
    until(&mut webhooks, Webhooks::is_idle).await;
    assert_eq!(counted(&webhooks, 0).dead[0], 2);
    assert!(
        endpoint.requests.try_recv().is_err(),
        "a denied target was asked"
    );
    webhooks.reconfigure(&settings());
    webhooks.accept(event("a", 2));
    endpoint.next(&mut webhooks).await;
    endpoint.next(&mut webhooks).await;
}

#[tokio::test]
async fn a_target_that_a_reload_denies_is_not_asked_over_a_connection_that_was_in_use() {
    let mut endpoint = Endpoint::start(vec![Answer::Held(200), Answer::Status(200)]).await;
    let once = Settings {
        retry: Retry {
            attempts: 1,
            ..settings().retry
        },
        ..settings()
    };
    let mut webhooks = webhooks(&[app_for(&endpoint)], &once);
    webhooks.accept(event("a", 1));
    endpoint.next(&mut webhooks).await;
    let denied = Settings {
        targets: Targets {
            deny: vec!["127.0.0.0/8".parse().expect("a network")],
            allow: Vec::new(),
        },
        ..once
    };
    webhooks.reconfigure(&denied);
    endpoint.gate.notify_one();
    until(&mut webhooks, Webhooks::is_idle).await;
    assert_eq!(counted(&webhooks, 0).deliveries[0], [1, 0, 0, 0]);
    webhooks.accept(event("a", 2));
    until(&mut webhooks, Webhooks::is_idle).await;
    assert_eq!(counted(&webhooks, 0).dead[0], 1);
    assert!(
        endpoint.requests.try_recv().is_err(),
        "a denied target was asked"
    );
}

#[tokio::test]
async fn a_reload_keeps_what_waits_for_a_webhook_that_stays_and_signs_with_the_new_secret() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let long = Settings {
        batching_ms: 60_000,
        ..settings()
    };
    let mut gone = fixture::app("gone");
    gone.webhooks = vec![fixture::webhook("http://127.0.0.1:9/", ALL)];
    let apps = [app_for(&endpoint), gone];
    let mut table = AppTable::build(&apps, None);
    let mut webhooks = webhooks(&apps, &long);
    webhooks.accept(event("a", 1));
    webhooks.accept(WebhookEvent {
        app: AppIndex(1),
        ..event("b", 1)
    });
    let mut app = app_for(&endpoint);
    app.secrets = vec![Secret::new("rotated")];
    webhooks.change_apps(&table.replace(&[app]));
    webhooks.hurry();
    let request = endpoint.next(&mut webhooks).await;
    let signature = request.header("X-Pusher-Signature").concat();
    assert!(Signer::new("rotated").verify_hex(&[request.body.as_bytes()], &signature));
    assert_eq!(
        counted(&webhooks, 1).dead[2],
        1,
        "the removed app's job is gone"
    );
    until(&mut webhooks, Webhooks::is_idle).await;
}

#[tokio::test]
async fn without_a_queue_nothing_is_sent() {
    let mut endpoint = Endpoint::start(vec![Answer::Status(200)]).await;
    let table = AppTable::build(&[app_for(&endpoint)], None);
    let mut webhooks = Webhooks::new(Keeping::Nowhere, &settings(), Instant::now());
    webhooks.begin(&table);
    webhooks.accept(event("a", 1));
    assert!(webhooks.is_idle());
    assert!(endpoint.requests.try_recv().is_err());
}

fn settings() -> Settings {
    Settings {
        batching_enabled: true,
        batching_ms: 20,
        batching_size: 50,
        grace_ms: 3_000,
        queue_bytes: 1_048_576,
        shard_queue_bytes: 1_048_576,
        lambda_endpoint_url: None,
        retry: Retry {
            attempts: 0,
            backoff_ms: 20,
            backoff_max_ms: 1_000,
            max_age_s: 300,
        },
        targets: Targets {
            deny: Vec::new(),
            allow: Vec::new(),
        },
    }
}

fn webhooks(apps: &[App], settings: &Settings) -> Webhooks {
    let mut webhooks = Webhooks::new(Keeping::Memory, settings, Instant::now());
    webhooks.begin(&AppTable::build(apps, None));
    webhooks
}

fn counted(webhooks: &Webhooks, app: u32) -> AppWebhooks {
    let mut all = webhooks.counters().apps();
    let found = all.find(|(index, _)| index.0 == app);
    found.expect("something was counted").1.clone()
}

fn app_for(endpoint: &Endpoint) -> App {
    let mut app = fixture::app("a");
    app.webhooks = vec![fixture::webhook(&endpoint.url, ALL)];
    app
}

fn event(channel: &str, time_ms: u64) -> WebhookEvent {
    let kind = WebhookKind::ChannelOccupied;
    WebhookEvent {
        app: AppIndex(0),
        time_ms,
        channel: Arc::from(channel),
        kind,
    }
}

/// Lets webhooks go on until `condition` holds.
async fn until(webhooks: &mut Webhooks, condition: impl Fn(&Webhooks) -> bool) {
    let wait = async {
        while !condition(webhooks) {
            webhooks.progress().await;
        }
    };
    timeout(PATIENCE, wait)
        .await
        .expect("the condition holds in time");
}

/// How an endpoint answers one request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    /// Once the endpoint's gate is opened, which is then closed again.
    Held(u16),
    Redirect(&'static str),
    /// The connection ends without an answer.
    Hangup,
    Never,
    /// With a body that never ends.
    Endless,
    /// With a body that is cut off.
    Cut,
}

/// One recorded request.
struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Vec<String> {
        let named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.clone()).collect()
    }

    fn channels(&self) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        let events = body["events"].as_array().expect("a list");
        events
            .iter()
            .map(|e| e["channel"].as_str().expect("a channel").to_owned())
            .collect()
    }
}

/// A server on loopback. Answers are given in turn over all connections, the last one for ever.
struct Endpoint {
    url: String,
    authority: String,
    gate: Arc<Notify>,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl Endpoint {
    async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let authority = listener.local_addr().expect("bound").to_string();
        let (sender, requests) = mpsc::unbounded_channel();
        let (give, answers) = answer_in_turn(answers);
        let gate = Arc::new(Notify::new());
        let held = Arc::clone(&gate);
        tokio::spawn(async move {
            let _give = give;
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, gate) = (Arc::clone(&answers), Arc::clone(&held));
                tokio::spawn(serve(stream, sender.clone(), answers, gate));
            }
        });
        Self {
            url: format!("http://{authority}/hook?x=1"),
            authority,
            gate,
            requests,
        }
    }

    /// The next request, while webhooks go on.
    async fn next(&mut self, webhooks: &mut Webhooks) -> Request {
        let wait = async {
            loop {
                tokio::select! {
                    Some(request) = self.requests.recv() => return request,
                    () = webhooks.progress() => {}
                }
            }
        };
        timeout(PATIENCE, wait).await.expect("a request in time")
    }
}

type Answers = Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Answer>>>;

fn answer_in_turn(answers: Vec<Answer>) -> (mpsc::UnboundedSender<Answer>, Answers) {
    let (give, take) = mpsc::unbounded_channel();
    let last = *answers.last().expect("at least one answer");
    for answer in answers.into_iter().chain(std::iter::repeat_n(last, 1_000)) {
        give.send(answer).expect("the receiver is below");
    }
    (give, Arc::new(tokio::sync::Mutex::new(take)))
}

async fn serve(
    stream: TcpStream,
    sender: mpsc::UnboundedSender<Request>,
    answers: Answers,
    gate: Arc<Notify>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await {
        _ = sender.send(request);
        let answer = answers.lock().await.recv().await.expect("answers last");
        if let Answer::Held(_) = answer {
            gate.notified().await;
        }
        let text = match answer {
            Answer::Status(code) | Answer::Held(code) => {
                format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Redirect(to) => {
                format!("HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Hangup => return,
            Answer::Never => std::future::pending().await,
            Answer::Endless => {
                "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n9\r\nx".to_owned()
            }
            Answer::Cut => "HTTP/1.1 202 X\r\ncontent-length: 9\r\n\r\nshort".to_owned(),
        };
        if stream.write_all(text.as_bytes()).await.is_err() || matches!(answer, Answer::Cut) {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).expect("UTF-8");
    Some(Request {
        line: lines[0].clone(),
        headers,
        body,
    })
}
