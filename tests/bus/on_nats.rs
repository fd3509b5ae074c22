//! What is NATS's own.

use std::time::Duration;

use sockudo::bridge::adapter::{Bus, Setup, nats::NatsSetup, news::News};
use sockudo::bridge::tls::{TlsFiles, TlsKeys};
use sockudo::cluster::identity::NodeId;
use sockudo::cluster::topic::{Road, Topic};
use sockudo::cluster::wire::{BATCH_BYTES_MAX, Lane};
use sockudo::config::Secret;

use crate::nats::Nats;
use crate::{Node, bytes, events, eventually, skip};

pub(crate) fn setup(servers: &[&Nats]) -> NatsSetup {
    let url = |server: &&Nats| Secret::new(format!("nats://{}", server.address));
    NatsSetup {
        servers: servers.iter().map(url).collect(),
        prefix: "sockudo".to_owned(),
        username: None,
        password: None,
        token: None,
        creds_file: None,
        nkey_seed_file: None,
        tls_required: false,
        tls: TlsFiles::none(TlsKeys::NATS),
        cluster: "test".to_owned(),
        node: NodeId::of_name("test"),
        queue_bytes_max: 64 << 20,
        connect_within: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
    }
}

/// Starts NATS, or says why not and ends the test.
macro_rules! nats_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(nats) => nats,
            None => {
                skip::skip($test, "there is no nats-server; `scripts/test` installs it");
                return;
            }
        }
    };
}

fn starts(servers: &[&Nats]) -> Node {
    Node::with(Setup::Nats(setup(servers)))
}

#[tokio::test]
async fn each_topic_is_a_subject_of_its_own() {
    let nats = nats_or_skip!("each_topic_is_a_subject_of_its_own", Nats::start());
    let (mut alice, mut bob) = (starts(&[&nats]), starts(&[&nats]));
    bob.is_up().await;
    bob.subscribes(Topic::all()).await;
    assert_eq!(bob.road(Road::Events).topics_live, 1_025); // With the echo.
    assert_eq!(bob.road(Road::State).topics_live, 17);
    alice.is_up().await;
    for (sent, topic) in Topic::all().enumerate() {
        alice.publishes(topic, sent);
        assert_eq!(bob.hears_until(topic, sent).await, [sent]);
    }
}

#[tokio::test]
async fn a_wrong_login_is_told_and_mended_without_a_restart() {
    let nats = nats_or_skip!(
        "a_wrong_login_is_told_and_mended_without_a_restart",
        Nats::start_with("authorization { user: sockudo, password: right-one }")
    );
    let by_keys = NatsSetup {
        username: Some("sockudo".to_owned()),
        password: Some(Secret::from("other-one")),
        ..setup(&[&nats])
    };
    let url = format!("nats://sockudo:other%2Done@{}", nats.address);
    let by_url = NatsSetup {
        servers: vec![Secret::new(url)],
        ..by_keys.clone()
    };
    let mut nodes = Vec::new();
    for (setup, says) in [
        (by_keys, "refuses this login: set adapter.nats.username"),
        (by_url, "set the user and password in adapter.nats.servers"),
        (
            setup(&[&nats]),
            "wants a login: set adapter.nats.username and adapter.nats.password",
        ),
    ] {
        let mut node = Node::with(Setup::Nats(setup));
        eventually(says, || {
            assert_eq!(node.bus.try_next(), None, "nothing is up");
            let trouble = node.road(Road::State).trouble.unwrap_or_default();
            assert!(!trouble.contains("other-one"), "{trouble}");
            trouble.contains(says)
        })
        .await;
        nodes.push(node);
    }
    nats.configure("authorization { user: sockudo, password: other-one }");
    for node in nodes.iter_mut().take(2) {
        node.is_up().await;
        assert_eq!(node.road(Road::State).trouble, None);
    }
}

#[tokio::test]
async fn a_token_is_a_login_too() {
    let nats = nats_or_skip!(
        "a_token_is_a_login_too",
        Nats::start_with("authorization { token: \"a b/c\" }")
    );
    let by_key = NatsSetup {
        token: Some(Secret::from("a b/c")),
        // Alone it is no login.
        username: Some("nobody".to_owned()),
        ..setup(&[&nats])
    };
    let by_url = NatsSetup {
        servers: vec![Secret::new(format!("nats://a%20b%2Fc@{}", nats.address))],
        ..setup(&[&nats])
    };
    for setup in [by_key, by_url] {
        let mut node = Node::with(Setup::Nats(setup));
        node.is_up().await;
    }
}

fn permits(publish: &str, subscribe: &str) -> String {
    format!(
        "authorization {{ users: [{{ user: sockudo, password: p, permissions: {{ \
         publish: {publish}, subscribe: {subscribe} }} }}] }}"
    )
}

fn as_user(nats: &Nats) -> Node {
    Node::with(Setup::Nats(NatsSetup {
        username: Some("sockudo".to_owned()),
        password: Some(Secret::from("p")),
        ..setup(&[nats])
    }))
}

#[tokio::test]
async fn a_user_who_may_not_use_the_subjects_is_told_so_until_it_may() {
    let inbox = "[\"sockudo.v1.test.i.>\", \"sockudo.v1.test.s.0\"]";
    let nats = nats_or_skip!(
        "a_user_who_may_not_use_the_subjects_is_told_so_until_it_may",
        Nats::start_with(&permits(inbox, inbox))
    );
    let (mut alice, mut bob) = (as_user(&nats), as_user(&nats));
    let allowed = Topic::from_lane(Lane(1_024)).expect("a group");
    alice.is_up().await;
    bob.is_up().await;
    bob.bus.subscribe(Topic::Nodes);
    // What is allowed is live all the same, and does not end the trouble of what is not.
    bob.bus.subscribe(allowed);
    bob.are_live([allowed]).await;
    for round in 1..=3 {
        alice.publishes(Topic::Nodes, 1);
        alice.publishes(allowed, 1);
        eventually("both answers", || {
            let counts = alice.road(Road::State).counts;
            (counts.publish_denied, counts.published) == (round, round)
        })
        .await;
    }
    for (node, what) in [(&mut alice, "publish"), (&mut bob, "subscribe")] {
        let says = format!("does not let this user {what} on sockudo.v1.test.>");
        eventually(&says, || {
            while node.bus.try_next().is_some() {}
            let trouble = node.road(Road::State).trouble;
            trouble.is_some_and(|it| it.contains(&says))
        })
        .await;
    }
    assert!(!bob.live.contains(&Topic::Nodes));
    // What an operator copies, with the name of this cluster.
    let pattern = "\"sockudo.v1.test.>\"";
    nats.configure(&permits(pattern, pattern));
    // The server ends connections whose rights have changed, or does not.
    let mut carol = as_user(&nats);
    carol.is_up().await;
    carol.subscribes([Topic::Nodes]).await;
    carol.publishes(Topic::Nodes, 2);
    assert_eq!(carol.hears_until(Topic::Nodes, 2).await, [2]);
    assert_eq!(carol.road(Road::State).trouble, None);
}

#[tokio::test]
async fn a_user_who_may_not_even_write_to_itself_is_not_up() {
    let nats = nats_or_skip!(
        "a_user_who_may_not_even_write_to_itself_is_not_up",
        Nats::start_with(&permits("\"other.>\"", "\"other.>\""))
    );
    let mut node = as_user(&nats);
    eventually("the reason", || {
        assert_eq!(node.bus.try_next(), None, "nothing is up");
        let trouble = node.road(Road::State).trouble;
        trouble.is_some_and(|it| it.contains("does not let this user"))
    })
    .await;
}

#[tokio::test]
async fn a_server_that_takes_less_than_a_batch_is_told_and_the_rest_goes_on() {
    let nats = nats_or_skip!(
        "a_server_that_takes_less_than_a_batch_is_told_and_the_rest_goes_on",
        Nats::start_with("max_payload: 1000")
    );
    let (mut alice, mut bob) = (starts(&[&nats]), starts(&[&nats]));
    bob.subscribes([Topic::Nodes]).await;
    bob.is_up().await;
    alice.is_up().await;
    let long = vec![0; 1_001];
    alice
        .bus
        .publish(Topic::Nodes, long)
        .expect("there is room");
    alice.publishes(Topic::Nodes, 1);
    assert_eq!(bob.hears_until(Topic::Nodes, 1).await, [1]);
    eventually("both counts", || {
        let counts = alice.road(Road::State).counts;
        (counts.publish_denied, counts.published) == (1, 1)
    })
    .await;
    eventually("the trouble", || {
        assert_eq!(alice.bus.try_next(), None);
        let trouble = alice.road(Road::State).trouble;
        trouble
            .is_some_and(|it| it.contains("takes 1000 bytes at once") && it.contains("max_payload"))
    })
    .await;
    assert_eq!(alice.road(Road::State).outgoing_bytes, 0);
}

#[tokio::test]
async fn the_longest_batch_fits_a_server_as_it_comes() {
    let nats = nats_or_skip!("the_longest_batch_fits_a_server_as_it_comes", Nats::start());
    let (mut alice, mut bob) = (starts(&[&nats]), starts(&[&nats]));
    bob.subscribes([Topic::Nodes]).await;
    alice.is_up().await;
    let long = vec![b'\n'; BATCH_BYTES_MAX];
    for _ in 0..20 {
        alice
            .bus
            .publish(Topic::Nodes, long.clone())
            .expect("there is room");
    }
    for _ in 0..20 {
        let News::Batch { bytes, .. } = bob.next_but_up().await else {
            panic!("nothing else happens");
        };
        assert!(bytes == long);
    }
    assert_eq!(alice.road(Road::State).trouble, None);
}

#[tokio::test]
async fn of_several_servers_any_may_die() {
    let name = "of_several_servers_any_may_die";
    let mut servers: [Nats; 3] =
        nats_or_skip!("of_several_servers_any_may_die", Nats::start_cluster());
    let (mut alice, mut bob) = {
        let all = servers.each_ref();
        (starts(&all), starts(&all))
    };
    let topic = events(7);
    bob.subscribes([topic, Topic::Nodes]).await;
    alice.is_up().await;
    let mut sent = 0;
    for dies in [0, 1, 2] {
        servers[dies].kill();
        // Whoever was there finds another; what was on its way may be lost.
        let mut heard = 0;
        let mut rounds = 0;
        while heard < 20 {
            sent += 1;
            if alice.bus.publish(topic, bytes(sent)).is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while alice.bus.try_next().is_some() {}
            while let Some(news) = bob.bus.try_next() {
                heard += usize::from(matches!(news, News::Batch { .. }));
            }
            rounds += 1;
            assert!(
                rounds < 600,
                "{name}: nothing is heard without server {dies}"
            );
        }
        servers[dies].start_again();
    }
}

/// Waits until so many witnesses hear of both roads.
async fn is_heard_by(node: &mut Node, count: u64) {
    eventually("the witnesses", || {
        while node.bus.try_next().is_some() {}
        let roads = Road::ALL.map(|road| node.road(road));
        roads
            .iter()
            .all(|it| it.witnesses_heard == count && it.witnesses == 2)
    })
    .await;
}

/// Bob's connections are to the first server, which knows the second; Alice's to the second.
async fn at_two_servers(near: &Nats, far: &mut Nats) -> (Node, Node) {
    far.kill();
    let mut bob = starts(&[near, far]);
    bob.is_up().await;
    bob.subscribes([Topic::Nodes, events(1_000)]).await;
    eventually("what is said of the other", || {
        while bob.bus.try_next().is_some() {}
        let trouble = bob.road(Road::Events).trouble.unwrap_or_default();
        trouble.contains("not proven at all servers") && trouble.contains("cannot be reached")
    })
    .await;
    far.start_again();
    is_heard_by(&mut bob, 2).await;
    assert_eq!(bob.road(Road::Events).trouble, None);
    bob.up.extend(Road::ALL);
    let mut alice = starts(&[far]);
    alice.is_up().await;
    assert_eq!(alice.road(Road::Events).witnesses, 0);
    (alice, bob)
}

#[tokio::test]
async fn what_is_published_at_another_server_right_after_live_is_heard() {
    let name = "what_is_published_at_another_server_right_after_live_is_heard";
    let Some([near, mut far]) = Nats::start_cluster::<2>() else {
        return skip::skip(name, "there is no nats-server; `scripts/test` installs it");
    };
    let (mut alice, mut bob) = at_two_servers(&near, &mut far).await;
    for partition in 0..1_000 {
        let topic = events(partition);
        bob.subscribes([topic]).await;
        alice.publishes(topic, 1);
        assert_eq!(bob.hears_until(topic, 1).await, [1]);
    }
    // All at once are proven in groups.
    for topic in (0..1_000).map(events) {
        bob.bus.unsubscribe(topic);
    }
    bob.subscribes((0..1_000).map(events)).await;
    for topic in (0..1_000).map(events) {
        alice.publishes(topic, 2);
        assert_eq!(bob.hears_until(topic, 2).await, [2]);
    }
    assert_eq!(bob.road(Road::Events).trouble, None);
}

#[tokio::test]
async fn a_server_that_hears_nothing_holds_nobody_up_and_is_waited_for_again() {
    let name = "a_server_that_hears_nothing_holds_nobody_up_and_is_waited_for_again";
    let Some(([near, mut far], gate)) = Nats::start_pair() else {
        return skip::skip(name, "there is no nats-server; `scripts/test` installs it");
    };
    let (mut alice, mut bob) = at_two_servers(&near, &mut far).await;
    for round in 0..2 {
        gate.shut();
        // Both servers stand, and nobody tells bob.
        for partition in 0..100 {
            bob.subscribes([events(100 * round + partition)]).await;
        }
        is_heard_by(&mut bob, 1).await;
        let trouble = bob.road(Road::Events).trouble.unwrap_or_default();
        let says = format!("is not heard at {}: look at the routes", far.address);
        assert!(trouble.contains(&says), "{trouble}");
        gate.open_again();
        is_heard_by(&mut bob, 2).await;
        assert_eq!(bob.road(Road::Events).trouble, None);
        for partition in 0..100 {
            let topic = events(100 * round + partition);
            alice.publishes(topic, 1);
            assert_eq!(bob.hears_until(topic, 1).await, [1]);
        }
        for partition in 300..400 {
            let topic = events(100 * round + partition);
            bob.subscribes([topic]).await;
            alice.publishes(topic, 1);
            assert_eq!(bob.hears_until(topic, 1).await, [1]);
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_holds_joins_up_for_its_silence_only() {
    let name = "a_server_that_hangs_holds_joins_up_for_its_silence_only";
    let Some([near, mut far]) = Nats::start_cluster::<2>() else {
        return skip::skip(name, "there is no nats-server; `scripts/test` installs it");
    };
    let (_alice, mut bob) = at_two_servers(&near, &mut far).await;
    far.signal("STOP");
    for partition in 0..20 {
        bob.subscribes([events(partition)]).await;
    }
    is_heard_by(&mut bob, 1).await;
    let trouble = bob.road(Road::Events).trouble.unwrap_or_default();
    assert!(trouble.contains(&far.address.to_string()), "{trouble}");
    assert_eq!(bob.road(Road::Events).counts.reconnects, 0);
    far.signal("CONT");
    is_heard_by(&mut bob, 2).await;
    assert_eq!(bob.road(Road::Events).trouble, None);
}

#[tokio::test]
async fn what_strangers_publish_hurts_nobody() {
    let nats = nats_or_skip!("what_strangers_publish_hurts_nobody", Nats::start());
    let mut bob = starts(&[&nats]);
    bob.subscribes([Topic::Nodes]).await;
    let long = vec![b'x'; BATCH_BYTES_MAX];
    for bytes in [b"", &b"\r\n"[..], &long] {
        nats.publish("sockudo.v1.test.n", bytes);
        let News::Batch { topic, bytes: came } = bob.next_but_up().await else {
            panic!("a batch comes as it is");
        };
        assert_eq!((topic, came.len()), (Topic::Nodes, bytes.len()));
    }
    // Another cluster, another prefix, another topic.
    for subject in [
        "sockudo.v1.live.n",
        "other.v1.test.n",
        "sockudo.v1.test.s.1",
    ] {
        nats.publish(subject, b"x");
    }
    nats.publish("sockudo.v1.test.n", b"last");
    let last = bob.next_but_up().await;
    assert!(matches!(last, News::Batch { bytes, .. } if bytes == b"last"));
}

#[tokio::test]
async fn a_setup_that_can_never_work_is_refused_and_says_the_key() {
    let start = |servers: &[&str], prefix: &str| {
        let bus = Bus::start(Setup::Nats(NatsSetup {
            servers: servers.iter().map(|it| Secret::from(*it)).collect(),
            prefix: prefix.to_owned(),
            ..setup(&[])
        }));
        bus.map(drop)
    };
    for url in [
        "",
        "http://u:secret@h",
        "ws://u:secret@h",
        "nats://",
        "nats://u:secret@h:99999",
        "nats://u:%FFsecret@h",
    ] {
        let error = start(&["nats://h", url], "p").expect_err(url).to_string();
        let is_named = error.starts_with("adapter.nats.servers: \"")
            && error.contains("is no URL of a NATS server");
        assert!(is_named, "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = start(&[], "p").expect_err("no server").to_string();
    assert!(
        error.contains("adapter.nats.servers names no server"),
        "{error}"
    );
    let error = start(&["h"], &"ä".repeat(100))
        .expect_err("long")
        .to_string();
    assert!(
        error.contains("adapter.nats.prefix and cluster.name: 609 bytes"),
        "{error}"
    );
    start(&["h", "h:1", "nats://u:secret@h", "nats://[::1]:4222"], "p")
        .expect("servers that may come");
}
