//! The bus between nodes against a real Redis: what is live, what arrives, what is told when it does not.
//!
//! Owns: `Node`, one end of the bus.
//! May depend on: `sockudo::{bridge::adapter, cluster::topic, config}`.
//! Invariants: every wait has a deadline ten times what is needed; nothing is left running.

#![expect(
    clippy::disallowed_methods,
    reason = "each wait has a deadline; a server's start is waited for"
)]

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use sockudo::bridge::adapter::{
    Bus, BusError, Setup,
    news::{News, Refused},
    redis::{RedisServer, RedisSetup},
    status::RoadStatus,
};
use sockudo::cluster::identity::NodeId;
use sockudo::cluster::topic::{Road, Topic};
use sockudo::cluster::wire::Lane;
use sockudo::config::Secret;

#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/skip.rs"]
mod skip;

use redis::Redis;

const DEADLINE: Duration = Duration::from_secs(30);

/// One end of the bus.
struct Node {
    bus: Bus,
    up: BTreeSet<Road>,
    live: BTreeSet<Topic>,
}

impl Node {
    fn start(redis: &Redis) -> Self {
        Self::with(setup(redis))
    }

    fn with(setup: RedisSetup) -> Self {
        Self {
            bus: Bus::start(Setup::Redis(setup)).expect("a setup that may work"),
            up: BTreeSet::new(),
            live: BTreeSet::new(),
        }
    }

    /// Takes the next news, and holds them against the order in which they may come.
    async fn next(&mut self) -> News {
        let news = within("news", self.bus.next()).await;
        match &news {
            News::Up(road) => assert!(self.up.insert(*road), "up twice: {road:?}"),
            News::Down(road) => {
                assert!(self.up.remove(road), "down twice: {road:?}");
                self.live.retain(|topic| topic.road() != *road);
            }
            News::Live(topics) => {
                for topic in topics {
                    assert!(
                        self.up.contains(&topic.road()),
                        "live and not up: {topic:?}"
                    );
                    self.live.insert(*topic);
                }
            }
            News::Batch { .. } | News::Dropped { .. } => {}
        }
        news
    }

    async fn is_up(&mut self) {
        while self.up.len() < Road::ALL.len() {
            self.next().await;
        }
    }

    /// Each road that is up goes down; it may be up again by then.
    async fn is_down(&mut self) {
        let mut standing = self.up.clone();
        while !standing.is_empty() {
            if let News::Down(road) = self.next().await {
                standing.remove(&road);
            }
        }
    }

    async fn subscribes(&mut self, topics: impl IntoIterator<Item = Topic>) {
        let topics: Vec<Topic> = topics.into_iter().collect();
        for topic in &topics {
            self.live.remove(topic);
            self.bus.subscribe(*topic);
        }
        self.are_live(topics).await;
    }

    async fn are_live(&mut self, topics: impl IntoIterator<Item = Topic>) {
        for topic in topics {
            while !self.live.contains(&topic) {
                self.next().await;
            }
        }
    }

    fn publishes(&mut self, topic: Topic, number: usize) {
        self.bus
            .publish(topic, bytes(number))
            .expect("there is room");
    }

    /// Numbers of batches on the topic, until the last one came; on other topics nothing may come.
    async fn hears_until(&mut self, topic: Topic, last: usize) -> Vec<usize> {
        let mut heard = Vec::new();
        while heard.last() != Some(&last) {
            if let News::Batch { topic: on, bytes } = self.next().await {
                assert_eq!(on, topic);
                heard.push(number(&bytes));
            }
        }
        heard
    }

    fn road(&self, road: Road) -> RoadStatus {
        self.bus.status().road(road).clone()
    }
}

fn setup(redis: &Redis) -> RedisSetup {
    RedisSetup {
        server: RedisServer {
            host: redis.address.ip().to_string(),
            port: redis.address.port(),
            database: 0,
            username: None,
            password: None,
        },
        publisher_url: None,
        subscriber_url: None,
        prefix: "sockudo_adapter:".to_owned(),
        cluster: "test".to_owned(),
        node: NodeId::of_name("test"),
        queue_bytes_max: 64 << 20,
        timeout: Duration::from_secs(5),
    }
}

fn events(partition: u16) -> Topic {
    let topic = Topic::from_lane(Lane(partition)).expect("a partition");
    assert_eq!(topic.road(), Road::Events);
    topic
}

/// A number with something behind it.
fn bytes(number: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(100 + number % 900, b'\r');
    bytes
}

#[track_caller]
fn number(bytes: &[u8]) -> usize {
    let number = usize::from_be_bytes(*bytes.first_chunk().expect("a number"));
    assert_eq!(bytes, self::bytes(number), "a batch came changed");
    number
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timeout = tokio::time::timeout(DEADLINE, future).await;
    timeout.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}"))
}

/// Polls until it is so, while the connections work.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, until).await;
}

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
async fn what_is_published_after_live_arrives_once_and_in_order() {
    let redis = redis_or_skip!(
        "what_is_published_after_live_arrives_once_and_in_order",
        Redis::start()
    );
    for topic in [events(300), Topic::Nodes] {
        let (mut alice, mut bob) = (Node::start(&redis), Node::start(&redis));
        bob.subscribes([topic]).await;
        alice.is_up().await;
        let mut sent = 0;
        for burst in [1, 9_000, 10, 500, 489] {
            for _ in 0..burst {
                alice.publishes(topic, sent);
                sent += 1;
            }
            let heard = bob.hears_until(topic, sent - 1).await;
            assert_eq!(heard, (sent - burst..sent).collect::<Vec<_>>());
        }
        assert_eq!(sent, 10_000);
        let counts = alice.road(topic.road()).counts;
        eventually("all answers", || {
            alice.road(topic.road()).counts.published == 10_000
        })
        .await;
        assert_eq!((counts.publish_unknown, counts.lost_while_down), (0, 0));
        assert_eq!(bob.road(topic.road()).counts.received, 10_000);
        assert_eq!(alice.road(topic.road()).outgoing_bytes, 0);
        assert_eq!(bob.road(topic.road()).incoming_bytes, 0);
    }
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

#[tokio::test]
async fn a_topic_that_is_given_up_is_silent_and_may_be_wished_for_again() {
    let redis = redis_or_skip!(
        "a_topic_that_is_given_up_is_silent_and_may_be_wished_for_again",
        Redis::start()
    );
    let (mut alice, mut bob) = (Node::start(&redis), Node::start(&redis));
    let (given_up, kept) = (events(1), events(2));
    bob.subscribes([given_up, kept]).await;
    alice.is_up().await;
    bob.bus.unsubscribe(given_up);
    eventually("the topic's end", || {
        bob.road(Road::Events).topics_live == 1
    })
    .await;
    // The subscription of the kept one was confirmed on the same connection, later.
    bob.bus.subscribe(events(3));
    bob.are_live([events(3)]).await;
    alice.publishes(given_up, 1);
    alice.publishes(kept, 2);
    assert_eq!(bob.hears_until(kept, 2).await, [2]);

    // Each wish is answered, whatever happened to the ones before it.
    for _ in 0..100 {
        bob.bus.unsubscribe(kept);
        bob.subscribes([kept]).await;
        bob.subscribes([kept]).await;
        bob.bus.unsubscribe(kept);
        tokio::task::yield_now().await;
        bob.subscribes([kept]).await;
    }
    alice.publishes(kept, 3);
    assert_eq!(bob.hears_until(kept, 3).await, [3]);
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let mut redis = redis_or_skip!(
        "a_server_that_was_killed_is_used_again_when_it_is_back",
        Redis::start()
    );
    let (mut alice, mut bob) = (Node::start(&redis), Node::start(&redis));
    let wanted: Vec<Topic> = Topic::all().step_by(3).collect();
    let topic = wanted[7];
    bob.subscribes(wanted.clone()).await;
    alice.is_up().await;
    for round in 1..=2 {
        redis.kill();
        bob.is_down().await;
        alice.is_down().await;
        let trouble = alice.road(Road::Events).trouble;
        assert!(trouble.is_some_and(|it| it.contains("Redis at 127.")));
        let lost = alice.road(Road::Events).counts.lost_while_down;
        for number in 0..10 {
            alice.publishes(topic, number);
        }
        eventually("the losses", || {
            alice.road(Road::Events).counts.lost_while_down == lost + 10
        })
        .await;
        redis.start_again();
        bob.is_up().await;
        bob.are_live(wanted.clone()).await;
        alice.is_up().await;
        alice.publishes(topic, 100 + round);
        let heard = bob.hears_until(topic, 100 + round).await;
        assert_eq!(heard, [100 + round], "what was lost stays lost");
        assert!(alice.road(Road::Events).counts.reconnects >= 1);
        assert_eq!(alice.road(Road::Events).trouble, None);
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
async fn a_stopped_server_does_not_hold_up_the_end() {
    let redis = redis_or_skip!("a_stopped_server_does_not_hold_up_the_end", Redis::start());
    let mut alice = Node::start(&redis);
    alice.is_up().await;
    redis.signal("STOP");
    for number in 0..1_000 {
        alice.publishes(Topic::Nodes, number);
    }
    within("the end", alice.bus.close()).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_no_error() {
    let mut redis = redis_or_skip!("a_server_that_is_not_there_yet_is_no_error", Redis::start());
    redis.kill();
    let mut bob = Node::start(&redis);
    bob.bus.subscribe(Topic::Nodes);
    eventually("the reason", || {
        _ = bob.bus.try_next();
        let trouble = bob.road(Road::State).trouble;
        trouble.is_some_and(|it| it.contains("cannot be reached (database.redis.host"))
    })
    .await;
    redis.start_again();
    bob.is_up().await;
    bob.are_live([Topic::Nodes]).await;
}

#[tokio::test]
async fn a_stopped_server_is_down_and_blocks_nothing() {
    let redis = redis_or_skip!(
        "a_stopped_server_is_down_and_blocks_nothing",
        Redis::start()
    );
    let mut alice = Node::with(RedisSetup {
        queue_bytes_max: 2 << 20,
        ..setup(&redis)
    });
    let mut bob = Node::start(&redis);
    bob.subscribes([events(5), Topic::Nodes]).await;
    alice.is_up().await;

    redis.signal("STOP");
    let mut queued = 0;
    let refused = loop {
        match alice.bus.publish(events(5), bytes(queued)) {
            Ok(()) => queued += 1,
            Err(refused) => break refused,
        }
        if queued % 100 == 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(matches!(refused, Refused::Full { max, .. } if max == 2 << 20));
    assert!(alice.road(Road::Events).outgoing_bytes <= 2 << 20);
    alice.is_down().await;
    bob.is_down().await;
    // What was on its way is unknown, and not kept.
    eventually("an empty queue", || {
        alice.road(Road::Events).outgoing_bytes == 0
    })
    .await;
    let counts = alice.road(Road::Events).counts;
    assert!(counts.publish_unknown > 0);
    assert_eq!(
        counts.publish_unknown + counts.lost_while_down,
        u64::try_from(queued).expect("few")
    );
    assert_eq!(counts.refused, 1);

    redis.signal("CONT");
    bob.is_up().await;
    bob.are_live([events(5), Topic::Nodes]).await;
    alice.is_up().await;
    alice.publishes(events(5), 1_000_000);
    let heard = bob.hears_until(events(5), 1_000_000).await;
    let in_order = heard.is_sorted_by(|earlier, later| earlier < later);
    assert!(in_order, "twice or out of order: {heard:?}");
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
        let mut node = Node::with(setup);
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
    let mut node = Node::with(setup);
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
    let mut node = Node::with(setup);
    eventually("the reason", || {
        assert_eq!(node.bus.try_next(), None);
        let trouble = node.road(Road::State).trouble.unwrap_or_default();
        assert!(!trouble.contains("my-own-one"), "{trouble}");
        trouble.contains("does not speak RESP3: needs Redis 6 or later")
    })
    .await;
}

#[tokio::test]
async fn who_does_not_take_what_comes_loses_the_newest_and_hears_how_many() {
    let redis = redis_or_skip!(
        "who_does_not_take_what_comes_loses_the_newest_and_hears_how_many",
        Redis::start()
    );
    let mut alice = Node::start(&redis);
    let mut bob = Node::with(RedisSetup {
        queue_bytes_max: 2 << 20,
        ..setup(&redis)
    });
    let topic = events(9);
    bob.subscribes([topic, Topic::Nodes]).await;
    alice.is_up().await;
    for number in 0..10_000 {
        alice.publishes(topic, number);
    }
    eventually("all batches", || {
        bob.road(Road::Events).counts.received == 10_000
    })
    .await;
    alice.publishes(Topic::Nodes, 0);
    eventually("the state", || bob.road(Road::State).counts.received == 1).await;
    let status = bob.road(Road::Events);
    assert!(status.incoming_bytes <= 2 << 20);
    assert!(status.counts.dropped > 0);

    // The state did not wait behind the flood.
    assert_eq!(bob.hears_until(Topic::Nodes, 0).await, [0]);
    let kept = 10_000 - status.counts.dropped;
    for number in 0..usize::try_from(kept).expect("few") {
        let News::Batch { bytes, .. } = bob.next().await else {
            panic!("batch {number} was kept");
        };
        assert_eq!(self::number(&bytes), number);
    }
    let dropped = News::Dropped {
        road: Road::Events,
        batches: status.counts.dropped,
    };
    assert_eq!(bob.next().await, dropped);
    assert_eq!(bob.road(Road::Events).incoming_bytes, 0);
    alice.publishes(topic, 10_000);
    assert_eq!(bob.hears_until(topic, 10_000).await, [10_000]);
}

#[tokio::test]
async fn what_is_queued_is_sent_before_the_end() {
    let redis = redis_or_skip!("what_is_queued_is_sent_before_the_end", Redis::start());
    let (mut alice, mut bob) = (Node::start(&redis), Node::start(&redis));
    bob.subscribes([Topic::Nodes]).await;
    alice.is_up().await;
    for number in 0..1_000 {
        alice.publishes(Topic::Nodes, number);
    }
    within("the end", alice.bus.close()).await;
    let heard = bob.hears_until(Topic::Nodes, 999).await;
    assert_eq!(heard, (0..1_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_strangers_publish_hurts_nobody() {
    let mut redis = redis_or_skip!("what_strangers_publish_hurts_nobody", Redis::start());
    let mut bob = Node::start(&redis);
    bob.subscribes([Topic::Nodes]).await;
    let long = "x".repeat(3 << 20);
    for bytes in ["", "\r\n", &long] {
        redis.command(&["PUBLISH", "sockudo_adapter:v1:0:test:n", bytes]);
        let News::Batch { topic, bytes: came } = bob.next().await else {
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
        database: 0,
        username: None,
        password: None,
    };
    let start = |publisher: Option<&str>, subscriber: Option<&str>| {
        let bus = Bus::start(Setup::Redis(RedisSetup {
            server: server.clone(),
            publisher_url: publisher.map(Secret::from),
            subscriber_url: subscriber.map(Secret::from),
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
    let error = start(Some("rediss://h"), None).expect_err("TLS");
    assert!(matches!(error, BusError::Tls { .. }), "{error}");
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
