//! What is Redis's own.

use std::time::Duration;

use sockudo::bridge::adapter::{
    Bus, BusError, Setup,
    news::News,
    redis::{RedisServer, RedisSetup},
};
use sockudo::bridge::tls::{TlsFiles, TlsKeys};
use sockudo::cluster::identity::NodeId;
use sockudo::cluster::topic::{Road, Topic};
use sockudo::cluster::wire::Lane;
use sockudo::config::Secret;

use crate::redis::Redis;
use crate::{Node, events, eventually, setup, skip};

/// Starts Redis, or says why not and ends the test.
macro_rules! redis_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(redis) => redis,
            None => {
                skip::skip(
                    $test,
                    "there is no redis-server; `scripts/test` installs it",
                );
                return;
            }
        }
    };
}

#[tokio::test]
async fn all_topics_are_wished_for_in_one_command_per_road() {
    let mut redis = redis_or_skip!(
        "all_topics_are_wished_for_in_one_command_per_road",
        Redis::start()
    );
    let (mut alice, mut bob) = (Node::start(&redis), Node::start(&redis));
    bob.is_up().await;
    bob.subscribes(Topic::all()).await;
    assert_eq!(bob.road(Road::Events).topics_live, 1_025); // With the echo.
    assert_eq!(bob.road(Road::State).topics_live, 17);
    let statistics = redis.command(&["INFO", "commandstats"]);
    assert!(
        statistics.contains("cmdstat_subscribe:calls=2,"),
        "{statistics}"
    );
    alice.is_up().await;
    for (sent, topic) in Topic::all().enumerate() {
        alice.publishes(topic, sent);
        assert_eq!(bob.hears_until(topic, sent).await, [sent]);
    }
}

/// Whichever of its two connections a road loses, everything on it is told live again.
#[tokio::test]
async fn a_road_that_loses_one_connection_is_down_and_comes_back_whole() {
    let mut redis = redis_or_skip!(
        "a_road_that_loses_one_connection_is_down_and_comes_back_whole",
        Redis::start()
    );
    let mut bob = Node::start(&redis);
    let wanted = [events(1), events(2), Topic::Nodes];
    bob.subscribes(wanted).await;
    for (sent, lost) in ["normal", "pubsub", "normal", "pubsub"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            redis.command(&["CLIENT", "KILL", "TYPE", lost]),
            ":2",
            "{lost}"
        );
        bob.is_down().await;
        bob.is_up().await;
        bob.are_live(wanted).await;
        bob.publishes(events(2), sent);
        assert_eq!(bob.hears_until(events(2), sent).await, [sent], "{lost}");
    }
    assert_eq!(bob.road(Road::State).counts.reconnects, 4);
    assert_eq!(bob.road(Road::State).counts.connects_failed, 0);
}

#[tokio::test]
async fn a_wrong_password_is_told_and_mended_without_a_restart() {
    let mut redis = redis_or_skip!(
        "a_wrong_password_is_told_and_mended_without_a_restart",
        Redis::start_with_password("right-one")
    );
    let mut wrong = setup(&redis);
    wrong.server.password = Some(Secret::from("other-one"));
    let by_url = RedisSetup {
        publisher_url: Some(Secret::new(format!(
            "redis://:other-one@{}/0",
            redis.address
        ))),
        ..wrong.clone()
    };
    let none = setup(&redis);
    let mut nodes = Vec::new();
    for (setup, says) in [
        (wrong, "database.redis.password"),
        (by_url, "adapter.redis.redis_pub_options.url"),
        (
            none,
            "wants a password: set database.redis.username, database.redis.password",
        ),
    ] {
        let mut node = Node::with(Setup::Redis(setup));
        eventually(says, || {
            assert_eq!(node.bus.try_next(), None, "nothing is up");
            let trouble = node.road(Road::State).trouble.unwrap_or_default();
            assert!(!trouble.contains("other-one"), "{trouble}");
            trouble.contains(says)
        })
        .await;
        nodes.push(node);
    }
    redis.command(&["CONFIG", "SET", "requirepass", "other-one"]);
    for node in nodes.iter_mut().take(2) {
        node.is_up().await;
        assert_eq!(node.road(Road::State).trouble, None);
    }
}

#[tokio::test]
async fn a_user_who_may_not_use_the_channels_is_told_so_until_it_may() {
    let mut redis = redis_or_skip!(
        "a_user_who_may_not_use_the_channels_is_told_so_until_it_may",
        Redis::start()
    );
    redis.command(&["ACL", "SETUSER", "default", "resetchannels"]);
    let (mut alice, mut bob) = (Node::start(&redis), Node::start(&redis));
    alice.is_up().await;
    bob.bus.subscribe(Topic::Nodes);
    alice.publishes(Topic::Nodes, 1);
    for (node, what) in [(&mut alice, "publish"), (&mut bob, "subscribe")] {
        let says = format!("does not let this user {what} on sockudo_adapter:v1:0:test:*");
        eventually(&says, || {
            while node.bus.try_next().is_some() {}
            let trouble = node.road(Road::State).trouble;
            trouble.is_some_and(|it| it.contains(&says))
        })
        .await;
    }
    assert_eq!(alice.road(Road::State).counts.publish_denied, 1);
    bob.up.extend(Road::ALL);
    redis.command(&["ACL", "SETUSER", "default", "allchannels"]);
    bob.are_live([Topic::Nodes]).await;
    alice.publishes(Topic::Nodes, 2);
    assert_eq!(bob.hears_until(Topic::Nodes, 2).await, [2]);
    assert_eq!(bob.road(Road::State).trouble, None);
    eventually("the end of trouble", || {
        while alice.bus.try_next().is_some() {}
        alice.road(Road::State).trouble.is_none()
    })
    .await;
}

#[tokio::test]
async fn what_is_allowed_does_not_end_the_trouble_of_what_is_not() {
    let mut redis = redis_or_skip!(
        "what_is_allowed_does_not_end_the_trouble_of_what_is_not",
        Redis::start()
    );
    let allowed = "&sockudo_adapter:v1:0:test:n";
    redis.command(&["ACL", "SETUSER", "default", "resetchannels", allowed]);
    let mut alice = Node::start(&redis);
    alice.is_up().await;
    let state = Topic::from_lane(Lane(1_024)).expect("a group");
    for round in 1..=3 {
        alice.publishes(state, 0);
        alice.publishes(Topic::Nodes, 0);
        eventually("both answers", || {
            let counts = alice.road(Road::State).counts;
            (counts.publish_denied, counts.published) == (round, round)
        })
        .await;
        assert_eq!(alice.bus.try_next(), None);
        assert!(alice.road(Road::State).trouble.is_some());
    }
    redis.command(&["ACL", "SETUSER", "default", "allchannels"]);
    alice.publishes(state, 0);
    eventually("the end of trouble", || {
        assert_eq!(alice.bus.try_next(), None);
        alice.road(Road::State).trouble.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told() {
    let redis = redis_or_skip!("a_database_that_is_not_there_is_told", Redis::start());
    let mut setup = setup(&redis);
    setup.server.database = 99;
    let mut node = Node::with(Setup::Redis(setup));
    eventually("the reason", || {
        assert_eq!(node.bus.try_next(), None);
        let trouble = node.road(Road::State).trouble;
        trouble.is_some_and(|it| it.contains("does not give us database 99: set database.redis.db"))
    })
    .await;
}

#[tokio::test]
async fn a_server_without_resp3_is_told_and_the_password_is_not() {
    let redis = redis_or_skip!(
        "a_server_without_resp3_is_told_and_the_password_is_not",
        Redis::start_with_arguments(None, &["--rename-command", "HELLO", ""])
    );
    let mut setup = setup(&redis);
    setup.server.password = Some(Secret::from("my-own-one"));
    let mut node = Node::with(Setup::Redis(setup));
    eventually("the reason", || {
        assert_eq!(node.bus.try_next(), None);
        let trouble = node.road(Road::State).trouble.unwrap_or_default();
        assert!(!trouble.contains("my-own-one"), "{trouble}");
        trouble.contains("does not speak RESP3: needs Redis 6 or later")
    })
    .await;
}

#[tokio::test]
async fn what_strangers_publish_hurts_nobody() {
    let mut redis = redis_or_skip!("what_strangers_publish_hurts_nobody", Redis::start());
    let mut bob = Node::start(&redis);
    bob.subscribes([Topic::Nodes]).await;
    let long = "x".repeat(3 << 20);
    for bytes in ["", "\r\n", &long] {
        redis.command(&["PUBLISH", "sockudo_adapter:v1:0:test:n", bytes]);
        let News::Batch { topic, bytes: came } = bob.next_but_up().await else {
            panic!("a batch comes as it is");
        };
        assert_eq!((topic, came.len()), (Topic::Nodes, bytes.len()));
    }
    // Another database, another cluster, another prefix.
    for name in [
        "sockudo_adapter:v1:1:test:n",
        "sockudo_adapter:v1:0:live:n",
        "other:v1:0:test:n",
    ] {
        assert_eq!(redis.command(&["PUBLISH", name, "x"]), ":0", "{name}");
    }
}

#[tokio::test]
async fn a_setup_that_can_never_work_is_refused_and_says_the_key() {
    let server = RedisServer {
        host: "127.0.0.1".to_owned(),
        port: 1,
        uses_tls: false,
        database: 0,
        username: None,
        password: None,
    };
    let start = |publisher: Option<&str>, subscriber: Option<&str>| {
        let bus = Bus::start(Setup::Redis(RedisSetup {
            server: server.clone(),
            sentinels: None,
            publisher_url: publisher.map(Secret::from),
            subscriber_url: subscriber.map(Secret::from),
            tls: TlsFiles::none(TlsKeys::REDIS),
            prefix: "p".to_owned(),
            cluster: "c".to_owned(),
            node: NodeId::of_name("c"),
            queue_bytes_max: 1,
            timeout: Duration::from_secs(5),
        }));
        bus.map(drop)
    };
    for url in [
        "",
        "secret",
        "http://u:secret@h",
        "redis://",
        "redis://u:secret@h:99999",
        "redis://u:secret@h/minus",
        "redis://u:secret@h/-1",
        "rediss://u:secret@h#insecure",
        "rediss://u:secret@h/minus",
    ] {
        let error = start(None, Some(url)).expect_err(url);
        assert!(matches!(error, BusError::Url { .. }), "{url}: {error}");
        let error = error.to_string();
        assert!(
            error.contains("adapter.redis.redis_sub_options.url"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
    let error = start(Some("redis://h/1"), Some("redis://h/2")).expect_err("two databases");
    assert!(matches!(
        error,
        BusError::Databases {
            publish: 1,
            subscribe: 2
        }
    ));
    start(Some("redis://u:secret@h/3"), Some("redis://h/3")).expect("a server that may come");
}
