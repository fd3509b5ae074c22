//! The bus between nodes against real servers: what is live, what arrives, what is told when it does not.
//!
//! Owns: `Node`, one end of the bus; setups of a `BusServer`, with which each property of all drivers is tested; what is a
//! driver's own stands under `on_redis`, `on_redis_cluster` and `on_nats`.
//! May depend on: `sockudo::{bridge::adapter, cluster::topic, config}`.
//! Invariants: every wait has a deadline ten times what is needed; nothing is left running.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; a server's start is waited for; a gate is a thread"
)]

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use sockudo::bridge::adapter::{
    Bus, Setup,
    nats::NatsSetup,
    news::{News, Refused},
    redis::{RedisServer, RedisSetup},
    redis_cluster::RedisClusterSetup,
    status::RoadStatus,
};
use sockudo::bridge::tls::{TlsFiles, TlsKeys};
use sockudo::cluster::entry::{Entry, Token};
use sockudo::cluster::identity::{ClusterTag, Identity, Incarnation, NodeId};
use sockudo::cluster::mac::Secrets;
use sockudo::cluster::topic::{Road, Topic};
use sockudo::cluster::wire::{BatchWriter, Header, Lane, Version};

#[path = "../support/bus.rs"]
mod bus;
#[path = "../support/certificates.rs"]
mod certificates;
mod commands;
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
#[path = "../support/gate.rs"]
mod gate;
#[path = "../support/nats.rs"]
mod nats;
mod on_nats;
mod on_redis;
mod on_redis_cluster;
mod on_sentinels;
mod over_tls;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/redis_cluster.rs"]
mod redis_cluster;
#[path = "../support/sentinel.rs"]
mod sentinel;
#[path = "../support/signal.rs"]
mod signal;
#[path = "../support/skip.rs"]
mod skip;

use bus::BusServer;
use redis::Redis;

const DEADLINE: Duration = Duration::from_secs(30);

/// One end of the bus.
struct Node {
    bus: Bus,
    up: BTreeSet<Road>,
    live: BTreeSet<Topic>,
}

impl BusServer {
    fn setup(&self) -> Setup {
        match self {
            Self::Redis(redis) => Setup::Redis(setup(redis)),
            Self::RedisCluster(cluster) => Setup::RedisCluster(on_redis_cluster::setup(cluster)),
            Self::Nats(nats) => Setup::Nats(on_nats::setup(&[nats])),
        }
    }

    fn setup_with_queues(&self, bytes_max: usize) -> Setup {
        let mut setup = self.setup();
        match &mut setup {
            Setup::Redis(RedisSetup {
                queue_bytes_max, ..
            })
            | Setup::RedisCluster(RedisClusterSetup {
                queue_bytes_max, ..
            })
            | Setup::Nats(NatsSetup {
                queue_bytes_max, ..
            }) => *queue_bytes_max = bytes_max,
        }
        setup
    }

    /// What a trouble says of it.
    fn shown(&self) -> &'static str {
        match self {
            Self::Redis(_) | Self::RedisCluster(_) => "Redis at 127.",
            Self::Nats(_) => "NATS at 127.",
        }
    }

    fn address_key(&self) -> &'static str {
        match self {
            Self::Redis(_) => "cannot be reached (database.redis.host",
            Self::RedisCluster(_) => "cannot be reached (adapter.cluster.nodes",
            Self::Nats(_) => "cannot be reached (adapter.nats.servers",
        }
    }
}

impl Node {
    fn start(redis: &Redis) -> Self {
        Self::with(Setup::Redis(setup(redis)))
    }

    fn on(server: &BusServer) -> Self {
        Self::with(server.setup())
    }

    fn with(setup: Setup) -> Self {
        Self {
            bus: Bus::start(setup).expect("a setup that may work"),
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
            News::Lost(topics) => {
                for topic in topics {
                    assert!(self.live.remove(topic), "lost and not live: {topic:?}");
                }
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

    /// The next news but that a road is up: the other one may come later than all that is asked of one.
    async fn next_but_up(&mut self) -> News {
        loop {
            match self.next().await {
                News::Up(_) => {}
                news => return news,
            }
        }
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
            uses_tls: false,
            database: 0,
            username: None,
            password: None,
        },
        sentinels: None,
        publisher_url: None,
        subscriber_url: None,
        tls: TlsFiles::none(TlsKeys::REDIS),
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

/// A batch as nodes write them.
fn batch_of_three(topic: Topic) -> Vec<u8> {
    let header = Header {
        version: Version::OURS,
        lane: topic.lane(),
        cluster: ClusterTag(1),
        sender: Identity {
            node: NodeId(1),
            incarnation: Incarnation(1),
        },
        number: 1,
    };
    let secrets = Secrets::default();
    let mut batch = BatchWriter::begin(&header, &secrets, Vec::new());
    for token in 0..3 {
        let pushed = batch.push(&Entry::Canary(Token(token)));
        assert_eq!(pushed, Ok(()));
    }
    batch.finish(&secrets)
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

#[tokio::test]
async fn what_is_published_after_live_arrives_once_and_in_order() {
    for server in BusServer::start_each("what_is_published_after_live_arrives_once_and_in_order") {
        for topic in [events(300), Topic::Nodes] {
            let (mut alice, mut bob) = (Node::on(&server), Node::on(&server));
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
}

#[tokio::test]
async fn a_topic_that_is_given_up_is_silent_and_may_be_wished_for_again() {
    for server in
        BusServer::start_each("a_topic_that_is_given_up_is_silent_and_may_be_wished_for_again")
    {
        let (mut alice, mut bob) = (Node::on(&server), Node::on(&server));
        let (given_up, kept) = (events(1), events(2));
        bob.subscribes([given_up, kept]).await;
        alice.is_up().await;
        bob.bus.unsubscribe(given_up);
        eventually("the topic's end", || {
            bob.road(Road::Events).topics_live == 1
        })
        .await;
        // These were confirmed on the same connection, later; where there are several, on each.
        bob.subscribes((3..40).map(events)).await;
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
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    for mut server in
        BusServer::start_each("a_server_that_was_killed_is_used_again_when_it_is_back")
    {
        let (mut alice, mut bob) = (Node::on(&server), Node::on(&server));
        let wanted: Vec<Topic> = Topic::all().step_by(3).collect();
        let topic = wanted[7];
        bob.subscribes(wanted.clone()).await;
        alice.is_up().await;
        for round in 1..=2 {
            server.kill();
            bob.is_down().await;
            alice.is_down().await;
            let trouble = alice.road(Road::Events).trouble;
            assert!(trouble.is_some_and(|it| it.contains(server.shown())));
            let lost = alice.road(Road::Events).counts.lost_while_down;
            for number in 0..10 {
                alice.publishes(topic, number);
            }
            eventually("the losses", || {
                alice.road(Road::Events).counts.lost_while_down == lost + 10
            })
            .await;
            // Of a batch each entry counts.
            assert_eq!(alice.bus.publish(topic, batch_of_three(topic)), Ok(()));
            eventually("the losses", || {
                alice.road(Road::Events).counts.lost_while_down == lost + 13
            })
            .await;
            server.start_again();
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
}

#[tokio::test]
async fn a_stopped_server_does_not_hold_up_the_end() {
    for server in BusServer::start_each("a_stopped_server_does_not_hold_up_the_end") {
        let mut alice = Node::on(&server);
        alice.is_up().await;
        server.signal("STOP");
        for number in 0..1_000 {
            alice.publishes(Topic::Nodes, number);
        }
        within("the end", alice.bus.close()).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_no_error() {
    for mut server in BusServer::start_each("a_server_that_is_not_there_yet_is_no_error") {
        server.kill();
        let mut bob = Node::on(&server);
        bob.bus.subscribe(Topic::Nodes);
        eventually("the reason", || {
            _ = bob.bus.try_next();
            let trouble = bob.road(Road::State).trouble;
            trouble.is_some_and(|it| it.contains(server.address_key()))
        })
        .await;
        server.start_again();
        bob.is_up().await;
        bob.are_live([Topic::Nodes]).await;
    }
}

#[tokio::test]
async fn a_stopped_server_is_down_and_blocks_nothing() {
    for server in BusServer::start_each("a_stopped_server_is_down_and_blocks_nothing") {
        let mut alice = Node::with(server.setup_with_queues(2 << 20));
        let mut bob = Node::on(&server);
        bob.subscribes([events(5), Topic::Nodes]).await;
        alice.is_up().await;

        server.signal("STOP");
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

        server.signal("CONT");
        bob.is_up().await;
        bob.are_live([events(5), Topic::Nodes]).await;
        alice.is_up().await;
        alice.publishes(events(5), 1_000_000);
        let heard = bob.hears_until(events(5), 1_000_000).await;
        let in_order = heard.is_sorted_by(|earlier, later| earlier < later);
        assert!(in_order, "twice or out of order: {heard:?}");
    }
}

#[tokio::test]
async fn who_does_not_take_what_comes_loses_the_newest_and_hears_how_many() {
    for server in
        BusServer::start_each("who_does_not_take_what_comes_loses_the_newest_and_hears_how_many")
    {
        let mut alice = Node::on(&server);
        let mut bob = Node::with(server.setup_with_queues(2 << 20));
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
            let News::Batch { bytes, .. } = bob.next_but_up().await else {
                panic!("batch {number} was kept");
            };
            assert_eq!(self::number(&bytes), number);
        }
        let dropped = News::Dropped {
            road: Road::Events,
            batches: status.counts.dropped,
        };
        assert_eq!(bob.next_but_up().await, dropped);
        assert_eq!(bob.road(Road::Events).incoming_bytes, 0);
        alice.publishes(topic, 10_000);
        assert_eq!(bob.hears_until(topic, 10_000).await, [10_000]);
    }
}

#[tokio::test]
async fn what_is_queued_is_sent_before_the_end() {
    for server in BusServer::start_each("what_is_queued_is_sent_before_the_end") {
        let (mut alice, mut bob) = (Node::on(&server), Node::on(&server));
        bob.subscribes([Topic::Nodes]).await;
        alice.is_up().await;
        for number in 0..1_000 {
            alice.publishes(Topic::Nodes, number);
        }
        within("the end", alice.bus.close()).await;
        let heard = bob.hears_until(Topic::Nodes, 999).await;
        assert_eq!(heard, (0..1_000).collect::<Vec<_>>());
    }
}
