//! Strangers that ask: listings, bodies, pipelines, heads, and how requests end.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shards::application::Closed;
use sockudo::bridge::message::FromBridge;

use super::HELD_BYTES_MAX;
use super::answered_per_round;
use crate::{
    scene::{KEY, Scene, count_of, responses, subscribe},
    turn::Limits,
};

/// A node with so many channels, made by connections with 4 000 each.
fn with_channels(
    shards: u16,
    count: usize,
    name: impl Fn(usize) -> String,
    limits: Limits,
) -> Scene {
    const EACH: usize = 4_000;
    let keys = json!({"net": {"subscribe_rate_per_s": 0}});
    let mut scene = Scene::start_with(shards, &keys, &json!({}), limits);
    let wishes = |at: usize| {
        let numbers = at * EACH..count.min((at + 1) * EACH);
        numbers
            .flat_map(|number| subscribe(&name(number)))
            .collect()
    };
    let modulus = usize::from(shards);
    let all = scene.arrive(count.div_ceil(EACH), |at| at % modulus, wishes);
    let mut subscribed = 0;
    for visitor in &all {
        subscribed += scene.takes_count(visitor.link, "subscription_succeeded");
    }
    assert_eq!(subscribed, count);
    scene
}

/// The channels that a whole answer names.
fn channels_of(answer: &[u8]) -> BTreeSet<String> {
    let answers = responses(answer);
    assert_eq!(answers.len(), 1);
    let (status, body) = &answers[0];
    assert_eq!(*status, 200);
    // As text first: a map would hide a channel that is told twice.
    let told = count_of(body, b"\":{");
    let body: Value = serde_json::from_slice(body).expect("a body is JSON");
    let channels = body["channels"].as_object().expect("channels");
    assert_eq!(channels.len() + 1, told, "each is told once");
    channels.keys().cloned().collect()
}

#[test]
fn stranger_that_lists_200_000_channels_gets_each_once_over_many_turns() {
    const COUNT: usize = 200_000;
    let wanted: BTreeSet<String> = (0..COUNT)
        .map(|number| format!("channel-{number}"))
        .collect();
    let limits = Limits {
        burst_bytes_max: 1 << 20,
        ..Limits::USUAL
    };
    for shards in [1, 3] {
        let mut scene = with_channels(shards, COUNT, |number| format!("channel-{number}"), limits);
        let other = scene.arrives(0);
        // Bytes that the reader's socket holds, and takes per round.
        for (prefix, socket, bytes, rounds_min) in [
            ("channel-", 1 << 20, usize::MAX, 8),
            ("channel-", 8_192, 8_192, 300),
            ("no-such", 1 << 20, usize::MAX, 4),
        ] {
            let reader = scene.node.connect(0, socket);
            let parameters = [("filter_by_prefix", prefix)];
            scene.say(reader, &scene.request("/channels", &parameters, None));
            let (mut answer, mut rounds) = (Vec::new(), 0);
            while !answer.ends_with(b"\r\n0\r\n\r\n") && !answer.ends_with(b"{\"channels\":{}}") {
                rounds += scene.check_pong(&other);
                let to_client = &mut scene.node.links[reader].to_client;
                answer.extend(to_client.drain(..to_client.len().min(bytes)));
                assert!(rounds < 20_000, "{prefix}: {} bytes came", answer.len());
            }
            assert!(rounds >= rounds_min, "{prefix}: all in {rounds} rounds");
            let channels = channels_of(&answer);
            match prefix {
                "channel-" => assert!(channels == wanted, "{} are told", channels.len()),
                _ => assert!(channels.is_empty()),
            }
            scene.hangs_up(reader, Closed::ByPeer);
        }
    }
}

#[test]
fn stranger_to_short_names_an_answer_of_more_than_two_mebibytes_arrives_whole() {
    let name = |number| format!("{number:x<190}");
    let mut scene = with_channels(1, 12_000, name, Limits::USUAL);
    let reader = scene.node.connect(0, usize::MAX);
    for _ in 0..2 {
        scene.say(reader, &scene.request("/channels", &[], None));
        scene.rest();
        let answer = scene.takes(reader);
        assert!(answer.len() > 2 << 20);
        assert_eq!(channels_of(&answer).len(), 12_000);
    }
}

#[test]
fn stranger_that_ends_its_side_after_a_request_gets_the_answer_from_any_shard() {
    let mut scene = Scene::start(3, &json!({}), &json!({}));
    for number in 0..60 {
        let link = scene.node.connect(number % 3, 1 << 16);
        let body = json!({"name": "e", "channel": format!("channel-{number}"), "data": "{}"});
        scene.say(link, &scene.request("/events", &[], Some(&body)));
        scene.hangs_up(link, Closed::ByPeer);
        scene.rest();
        let answers = responses(&scene.takes(link));
        let told: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(told, [200], "channel {number}");
        assert!(scene.node.links[link].server_ended, "channel {number}");
    }
}

#[test]
fn stranger_that_asks_on_and_reads_nothing_is_not_read_and_later_gets_every_answer() {
    const COUNT: usize = 20_000;
    for shards in [1_u16, 3] {
        let mut scene = Scene::start(shards, &json!({}), &json!({}));
        let other = scene.arrives(0);
        let asker = scene.node.connect(0, 1 << 16);
        let request = scene.request("/channels/some-channel", &[], None);
        scene.say(asker, &request.repeat(COUNT));
        for _ in 0..50 {
            scene.check_pong(&other);
        }
        scene.rest();
        let waiting = scene.node.links[asker].to_server.len();
        let taken = COUNT * request.len() - waiting;
        // Half of its outbox, of answers that are no longer than the requests, and what is held.
        let taken_max = (1 << 20) + (1 << 16) + HELD_BYTES_MAX;
        assert!(taken <= 3 * taken_max, "{taken} bytes were taken");
        assert!(waiting > 0, "all was taken");
        let mut input = Vec::new();
        let mut is_moving = true;
        while is_moving {
            is_moving = scene.round();
            let bytes = scene.takes(asker);
            is_moving |= !bytes.is_empty();
            input.extend(bytes);
        }
        let answers = responses(&input);
        assert!(answers.iter().all(|(status, _)| *status == 200));
        assert_eq!(answers.len(), COUNT, "{shards} shards");
    }
}

#[test]
fn strangers_that_pipeline_get_a_share_each_of_a_turn_and_leave_the_rest_to_others() {
    const COUNT: usize = 3;
    /// What a tenth of a turn pays for, of the cheapest request that there is.
    const ANSWERS_OF_A_SHARE: usize = 500;
    let mut scene = Scene::start(2, &json!({}), &json!({}));
    let other = scene.arrives(0);
    let cheap = b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n";
    let links: Vec<usize> = (0..COUNT)
        .map(|_| scene.node.connect(0, usize::MAX))
        .collect();
    for link in &links {
        // Some of these wait for the other shard, while as much is held as may be.
        for channel in 0..8 {
            let request = scene.request(&format!("/channels/channel-{channel}"), &[], None);
            scene.say(*link, &request);
        }
        scene.say(*link, &cheap.repeat(20_000));
    }
    for _ in 0..10 {
        scene.turn_of(0);
    }
    let (highest, all) = answered_per_round(&mut scene, &links, "HTTP/1.1 ", 200);
    assert!(
        highest <= COUNT * ANSWERS_OF_A_SHARE,
        "{highest} in one turn"
    );
    assert_eq!(all, COUNT * (8 + 20_000));
    scene.check_pong(&other);
}

/// A head that is whole, of so many bytes, for a body that does not come.
fn long_head(path_and_query: &str, bytes: usize) -> Vec<u8> {
    let head =
        format!("POST {path_and_query} HTTP/1.1\r\nHost: node\r\nContent-Length: 9000000\r\n");
    let padding = "x".repeat(bytes - head.len() - "X-Long: \r\n\r\n".len());
    format!("{head}X-Long: {padding}\r\n\r\n").into_bytes()
}

#[test]
fn stranger_whose_body_nobody_wants_is_counted_with_its_head() {
    let keys = json!({"net": {"input_held_bytes": 1_048_576}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let head = long_head("/apps/scene-id/events?auth_key=forged", 15_000);
    let links: Vec<usize> = (0..80).map(|_| scene.node.connect(0, 1 << 16)).collect();
    for link in &links {
        scene.say(*link, &head);
    }
    scene.rest();
    let is_open = |link: &&usize| !scene.node.links[**link].server_ended;
    assert_eq!(links.iter().filter(is_open).count(), 1_048_576 / 15_000);
}

#[test]
fn stranger_that_repeats_a_signed_head_is_held_to_a_few_bodies_and_one_alone_passes() {
    let keys = json!({"net": {"input_held_bytes": 1_048_576}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let signed = scene.request("/events", &[], Some(&json!("x".repeat(9_000_000))));
    let most = &signed[..signed.len() - 1];
    let links: Vec<usize> = (0..6).map(|_| scene.node.connect(0, 1 << 16)).collect();
    for (number, link) in links.iter().enumerate() {
        scene.say(*link, most);
        scene.rest();
        let open = links
            .iter()
            .filter(|it| !scene.node.links[**it].server_ended);
        assert_eq!(
            open.count(),
            if number < 4 { 6 } else { 6 - (number - 3) },
            "{number}"
        );
    }
    for link in links {
        scene.hangs_up(link, Closed::ByError);
    }
    scene.rest();
    assert!(scene.is_empty(), "{:?}", scene.node.occupancy());
}

/// Key and secret of another app.
const OTHER: (&str, &str) = ("other-key", "other-secret");
/// Bytes of bodies that a node of one shard keeps.
const KEPT_BYTES_MAX: usize = 4 * 10_485_760;

/// A node with two apps that keeps so little input that bodies have their least bound.
fn with_two_apps() -> Scene {
    let of_app = |id: &str, key: (&str, &str)| json!({"id": id, "key": key.0, "secret": key.1, "enabled": true});
    let apps = json!([of_app("scene-id", KEY), of_app("other-id", OTHER)]);
    let keys = json!({
        "app_manager": {"array": {"apps": apps}},
        "net": {"input_held_bytes": 1_048_576},
    });
    Scene::start(1, &keys, &json!({}))
}

/// So many bytes of each of some bodies of one app, none of which is whole.
fn sends_parts(scene: &mut Scene, sizes: &[usize]) -> Vec<usize> {
    let signed = scene.request("/events", &[], Some(&json!("x".repeat(9_999_000))));
    let head_bytes = signed.len() - 9_999_002;
    let sends_part = |body_bytes: &usize| {
        let link = scene.node.connect(0, 1 << 16);
        scene.say(link, &signed[..head_bytes + body_bytes]);
        scene.rest();
        link
    };
    sizes.iter().map(sends_part).collect()
}

/// The other app begins to send an event with data of so many bytes: where, and what is still to come.
fn other_begins(scene: &mut Scene, data_bytes: usize) -> (usize, Vec<u8>) {
    let body = json!({"name": "e", "channel": "c", "data": "x".repeat(data_bytes)});
    let asks = scene.request_of(("other-id", OTHER), "/events", &[], Some(&body));
    let (head, tail) = asks.split_at(asks.len() - 5_000);
    let link = scene.node.connect(0, 1 << 16);
    scene.say(link, head);
    scene.rest();
    (link, tail.to_vec())
}

/// How it is answered.
fn other_ends(scene: &mut Scene, (link, tail): (usize, Vec<u8>)) -> Vec<u16> {
    scene.say(link, &tail);
    scene.rest();
    answered(scene, &[link])
}

fn answered(scene: &mut Scene, links: &[usize]) -> Vec<u16> {
    let answers = links.iter().map(|link| responses(&scene.takes(*link)));
    answers.flatten().map(|(status, _)| status).collect()
}

#[test]
fn stranger_that_fills_what_is_kept_of_signed_bodies_gives_way_to_the_requests_of_another_app() {
    let mut scene = with_two_apps();
    // All but the last bytes of four bodies, and of a fifth what fills the bound but for a thousand.
    let brim = KEPT_BYTES_MAX - 4 * 9_999_001 - 1_000;
    let sizes = [9_999_001, 9_999_001, 9_999_001, 9_999_001, brim];
    let greedy = sends_parts(&mut scene, &sizes);
    for round in 0..3 {
        let begun = other_begins(&mut scene, 9_000);
        assert_eq!(other_ends(&mut scene, begun), [200], "{round}");
    }
    let refused = answered(&mut scene, &greedy);
    assert_eq!(refused, [503], "one made room for all");
}

#[test]
fn stranger_whose_batch_is_within_its_limits_and_dear_to_read_leaves_the_others_their_turns() {
    let mut scene = Scene::start(2, &json!({}), &json!({}));
    let other = scene.arrives(0);
    // As much as an event's data may have, of the smallest tokens, ten times.
    let data = vec![1; 51_000];
    let event = |number: usize| {
        let channel = format!("c-{number}");
        json!({"name": "e", "channel": channel, "data": data, "z": vec![1; 40_000]})
    };
    let events: Vec<Value> = (0..10).map(event).collect();
    let mut bad = events.clone();
    bad[9]["name"] = json!("");
    let channels: Vec<String> = (0..100).map(|number| format!("c-{number}")).collect();
    let many = json!({"name": "e", "channels": channels, "data": "x".repeat(102_000)});
    let lone = many.clone();
    let unread = "x".repeat(10_000_000);
    let beside = json!({"name": "e", "channel": "c", "data": "x", "z": unread});
    for (path, body, status, rounds_min) in [
        ("/batch_events", json!({"batch": events}), 200, 4),
        ("/batch_events", json!({"batch": bad}), 400, 4),
        ("/events", lone, 200, 2),
        ("/batch_events", json!({"batch": [many, many]}), 200, 4),
        ("/batch_events", json!({"batch": [beside]}), 200, 0),
        ("/events", beside, 200, 0),
    ] {
        let link = scene.node.connect(0, 1 << 16);
        scene.say(link, &scene.request(path, &[], Some(&body)));
        while !scene.node.links[link].to_server.is_empty() {
            scene.check_pong(&other);
        }
        let mut rounds = 0;
        while scene.node.links[link].to_client.is_empty() {
            rounds += scene.check_pong(&other);
        }
        assert!(
            (rounds_min..100).contains(&rounds),
            "{path}: read in {rounds} rounds"
        );
        let answers = responses(&scene.takes(link));
        let answered: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        assert_eq!(answered, [status], "{path}");
        scene.hangs_up(link, Closed::ByPeer);
    }
    // Who goes while it is read leaves nothing behind.
    let link = scene.node.connect(0, 1 << 16);
    let asked = scene.request("/batch_events", &[], Some(&json!({"batch": events})));
    scene.say(link, &asked);
    while !scene.node.links[link].to_server.is_empty() {
        scene.round();
    }
    scene.hangs_up(link, Closed::ByPeer);
    scene.rest();
    scene.hangs_up(other.link, Closed::ByPeer);
    scene.rest();
    assert!(scene.is_empty(), "{:?}", scene.node.occupancy());
}

#[test]
fn stranger_with_many_bodies_gives_way_to_larger_ones_of_another_app() {
    let mut scene = with_two_apps();
    let greedy = sends_parts(&mut scene, &[1_000_000; 40]);
    // The first fits, the second does not.
    let begun = [(); 2].map(|()| other_begins(&mut scene, 1_300_000));
    for begun in begun {
        let told = other_ends(&mut scene, begun);
        assert_eq!(
            told,
            [413],
            "it was read, and is more than an event may have"
        );
    }
    let refused = answered(&mut scene, &greedy);
    assert_eq!(refused, [503], "one made room");
}

#[test]
fn stranger_whose_next_request_begins_while_it_waits_has_ten_seconds_for_the_rest() {
    let mut scene = Scene::start(3, &json!({}), &json!({}));
    let links: Vec<usize> = (0..12)
        .map(|number| scene.node.connect(number % 3, 1 << 16))
        .collect();
    for (number, link) in links.iter().enumerate() {
        let path = format!("/channels/channel-{number}");
        scene.say(*link, &scene.request(&path, &[], None));
        scene.say(*link, b"GET /up HTTP/1.1\r\n");
    }
    scene.passes(9_000);
    for link in &links {
        let answers = responses(&scene.takes(*link));
        assert_eq!(answers.iter().map(|it| it.0).collect::<Vec<_>>(), [200]);
    }
    scene.passes(1_500);
    for (number, link) in links.iter().enumerate() {
        let answers = responses(&scene.takes(*link));
        assert_eq!(
            answers.iter().map(|it| it.0).collect::<Vec<_>>(),
            [408],
            "{number}"
        );
    }
}

#[test]
fn stranger_that_lets_long_queries_be_signed_many_times_pays_for_each() {
    const COUNT: usize = 400;
    let mut scene = Scene::start(1, &json!({"path_prefix": "/ws"}), &json!({}));
    let links: Vec<usize> = (0..COUNT).map(|_| scene.node.connect(0, 1 << 16)).collect();
    let (now_s, signature) = (crate::turn::UNIX_MS / 1_000, "0".repeat(64));
    let forged = format!(
        "GET /apps/scene-id/channels/a%20b?auth_key={}&auth_timestamp={now_s}&auth_version=1.0&\
         auth_signature={signature}&x=a%20b+{} HTTP/1.1\r\nHost: node\r\n\r\n",
        KEY.0,
        "x".repeat(14_000)
    );
    for link in &links {
        scene.say(*link, forged.as_bytes());
    }
    let (highest, all) = answered_per_round(&mut scene, &links, "HTTP/1.1 401", 400);
    assert_eq!(all, COUNT);
    assert!(highest <= 10, "{highest} in one turn");
}

/// A `GET` of all channels, with another method and version.
fn listing_request(scene: &Scene, method: &str, version: &str) -> Vec<u8> {
    let request = scene.request("/channels", &[], None);
    let request = String::from_utf8(request).expect("a request is text");
    let request = request.replacen("GET", method, 1);
    request.replacen("HTTP/1.1", version, 1).into_bytes()
}

#[test]
fn stranger_or_not_who_knows_no_chunks_gets_all_channels_in_parts_and_head_gets_their_length() {
    const COUNT: usize = 20_000;
    let name = |number| format!("channel-{number}-{}", "x".repeat(100));
    let mut scene = with_channels(1, COUNT, name, Limits::USUAL);
    let other = scene.arrives(0);
    let reader = scene.node.connect(0, 1 << 16);
    scene.say(reader, &listing_request(&scene, "GET", "HTTP/1.0"));
    let mut answer = Vec::new();
    while !scene.node.links[reader].server_ended {
        scene.check_pong(&other);
        answer.extend(scene.takes(reader));
    }
    let head_bytes = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(head_bytes.expect("a head ends") + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    assert!(head.contains("connection: close"), "{head}");
    assert!(
        !head.contains("content-length") && !head.contains("transfer-encoding"),
        "{head}"
    );
    assert_eq!(count_of(body, b"\":{"), COUNT + 1);
    let told: Value = serde_json::from_slice(body).expect("a body is JSON");
    assert_eq!(told["channels"].as_object().map(|it| it.len()), Some(COUNT));
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let asker = scene.node.connect(0, 1 << 16);
        scene.say(asker, &listing_request(&scene, "HEAD", version));
        for _ in 0..100 {
            scene.check_pong(&other);
        }
        let answer = String::from_utf8(scene.takes(asker)).expect("a head is text");
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(answer.contains(&length), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn stranger_that_takes_its_answers_slowly_gets_them_all_and_one_that_takes_none_is_let_go() {
    const COUNT: usize = 20_000;
    for reads in [true, false] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let asker = scene.node.connect(0, 1 << 14);
        let request = b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n";
        scene.say(asker, &request.repeat(COUNT));
        let mut input = Vec::new();
        for _ in 0..8 {
            scene.passes(40_000);
            if reads {
                input.extend(scene.takes(asker));
            }
        }
        assert_eq!(scene.node.links[asker].server_ended, !reads);
        let mut is_moving = reads;
        while is_moving {
            is_moving = scene.round();
            let bytes = scene.takes(asker);
            is_moving |= !bytes.is_empty();
            input.extend(bytes);
        }
        let answers = responses(&input);
        assert!(answers.iter().all(|(status, _)| *status != 408));
        assert_eq!(answers.len(), if reads { COUNT } else { 0 });
    }
}

#[test]
fn stranger_or_not_whose_request_has_arrived_when_a_kept_connection_ends_is_answered() {
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let link = scene.node.connect(0, 1 << 16);
    let request = b"GET /up HTTP/1.1\r\nHost: node\r\n\r\n";
    for _ in 0..3 {
        scene.say(link, request);
        scene.rest();
        assert_eq!(responses(&scene.takes(link)).len(), 1);
        scene.passes(75_000);
    }
    scene.passes(1_000);
    assert!(scene.node.links[link].server_ended, "kept for ever");
}

#[test]
fn stranger_or_not_who_asked_and_says_no_more_is_no_failure_and_who_never_asked_is_one() {
    for (request, failures) in [
        ("", 1),
        ("GET /up HTTP/1.1\r\nHost: node\r\n\r\n", 0),
        ("GET /nothing HTTP/1.1\r\nHost: node\r\n\r\n", 0),
    ] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let link = scene.node.connect(0, 1 << 16);
        scene.say(link, request.as_bytes());
        scene.passes(80_000);
        assert!(scene.node.links[link].server_ended, "kept for ever");
        let counted = scene.counted().remove(0).handshake_failures;
        assert_eq!(counted, [failures, 0, 0], "{request:?}");
    }
}

#[test]
fn a_head_of_too_many_bytes_or_headers_is_counted_as_too_large() {
    for (headers, status, counted) in [
        ("x: y\r\n".repeat(60), 200, [0, 0, 0]),
        ("x: y\r\n".repeat(65), 431, [0, 1, 0]),
        (format!("x: {}\r\n", "y".repeat(20_000)), 431, [0, 1, 0]),
        ("x y\r\n".to_owned(), 400, [0, 0, 1]),
    ] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let link = scene.node.connect(0, 1 << 16);
        let asked = format!("GET / HTTP/1.1\r\nHost: node\r\n{headers}\r\n");
        scene.say(link, asked.as_bytes());
        scene.rest();
        let answers = responses(&scene.takes(link));
        assert_eq!(answers.iter().map(|it| it.0).collect::<Vec<_>>(), [status]);
        assert_eq!(scene.counted().remove(0).handshake_failures, counted);
    }
}

#[test]
fn stranger_or_not_who_asks_while_a_node_drains_is_told_to_go_and_gets_no_second_answer() {
    for (case, method, version, extra, api) in [
        ("kept", "GET", "HTTP/1.1", "", false),
        (
            "kept, HTTP/1.0",
            "GET",
            "HTTP/1.0",
            "Connection: keep-alive\r\n",
            false,
        ),
        ("head only", "HEAD", "HTTP/1.1", "", false),
        ("a listing", "GET", "HTTP/1.1", "", true),
        ("a listing's head", "HEAD", "HTTP/1.1", "", true),
    ] {
        let mut scene = Scene::start(3, &json!({}), &json!({}));
        let request = if api {
            String::from_utf8(listing_request(&scene, method, version)).expect("a request is text")
        } else {
            format!("{method} /up {version}\r\nHost: node\r\n{extra}\r\n")
        };
        let link = scene.node.connect(0, 1 << 16);
        for drains in [false, true] {
            if drains {
                let deadline = scene.node.now.plus(60_000);
                for shard in 0..3 {
                    let rate_per_s = 1;
                    let order = FromBridge::Drain {
                        deadline,
                        rate_per_s,
                    };
                    scene.node.tell(shard, order);
                }
                scene.rest();
            }
            // The second is for nobody once the first was told to be the last.
            scene.say(link, request.repeat(2).as_bytes());
            scene.rest();
            let told = String::from_utf8(scene.takes(link)).expect("answers are text");
            let (answers, closes) = if drains { (1, 1) } else { (2, 0) };
            assert_eq!(told.matches("HTTP/1.1 ").count(), answers, "{case}: {told}");
            assert_eq!(
                told.matches("Connection: close").count(),
                closes,
                "{case}: {told}"
            );
            assert_eq!(scene.node.links[link].server_ended, drains, "{case}");
        }
    }
}
