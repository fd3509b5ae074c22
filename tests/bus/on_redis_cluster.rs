//! What is Redis Cluster's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use sockudo::bridge::adapter::{
    Bus, BusError, Setup, news::News, redis_cluster::RedisClusterSetup, status::Counts,
};
use sockudo::bridge::tls::{TlsFiles, TlsKeys};
use sockudo::cluster::identity::NodeId;
use sockudo::cluster::topic::{Road, Topic};
use sockudo::config::Secret;

use crate::redis::Redis;
use crate::redis_cluster::RedisCluster;
use crate::{Node, events, eventually, number, skip};

pub(crate) fn setup(cluster: &RedisCluster) -> RedisClusterSetup {
    setup_of(cluster.masters.iter().map(|it| it.address))
}

fn setup_of(masters: impl IntoIterator<Item = SocketAddr>) -> RedisClusterSetup {
    let url = |address| Secret::new(format!("redis://{address}"));
    RedisClusterSetup {
        nodes: masters.into_iter().map(url).collect(),
        username: None,
        password: None,
        uses_tls: false,
        tls: TlsFiles::none(TlsKeys::REDIS),
        prefix: "sockudo".to_owned(),
        cluster: "test".to_owned(),
        node: NodeId::of_name("test"),
        queue_bytes_max: 64 << 20,
        timeout: Duration::from_secs(5),
    }
}

/// Starts a cluster, or says why not and ends the test.
macro_rules! cluster_or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(cluster) => cluster,
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

fn start(cluster: &RedisCluster) -> Node {
    Node::with(Setup::RedisCluster(setup(cluster)))
}

/// One batch on each topic, of which each arrives.
async fn each_topic_arrives(alice: &mut Node, bob: &mut Node) {
    for (sent, topic) in Topic::all().enumerate() {
        alice.publishes(topic, sent);
        assert_eq!(bob.hears_until(topic, sent).await, [sent], "{topic:?}");
    }
}

#[tokio::test]
async fn each_topic_is_asked_for_once_at_the_master_of_its_slot() {
    let mut cluster = cluster_or_skip!(
        "each_topic_is_asked_for_once_at_the_master_of_its_slot",
        RedisCluster::start()
    );
    let (mut alice, mut bob) = (start(&cluster), start(&cluster));
    bob.is_up().await;
    bob.subscribes(Topic::all()).await;
    assert_eq!(bob.road(Road::Events).topics_live, 1_025); // With the echo.
    assert_eq!(bob.road(Road::State).topics_live, 17);
    alice.is_up().await;
    each_topic_arrives(&mut alice, &mut bob).await;
    let mut asked = Vec::new();
    for master in &mut cluster.masters {
        let statistics = master.command(&["INFO", "commandstats"]);
        let calls = |command: &str| -> usize {
            let (_, rest) = statistics
                .split_once(&format!("cmdstat_{command}:calls="))
                .unwrap_or_else(|| panic!("no {command} in {statistics}"));
            let (count, _) = rest.split_once(',').expect("more follows");
            count.parse().expect("a count")
        };
        asked.push(calls("ssubscribe"));
        assert_eq!(calls("ssubscribe"), calls("spublish"));
        assert!(!statistics.contains("cmdstat_publish"), "{statistics}");
    }
    assert_eq!(asked.iter().sum::<usize>(), 1_042);
    assert!(asked.iter().all(|count| *count > 200), "{asked:?}");
}

#[tokio::test]
async fn a_replica_takes_over_from_a_master_that_was_killed() {
    let mut cluster = cluster_or_skip!(
        "a_replica_takes_over_from_a_master_that_was_killed",
        RedisCluster::start_with_replicas()
    );
    let (mut alice, mut bob) = (start(&cluster), start(&cluster));
    bob.subscribes(Topic::all()).await;
    alice.is_up().await;
    each_topic_arrives(&mut alice, &mut bob).await;

    cluster.masters[0].kill();
    bob.is_down().await;
    alice.is_down().await;
    let before = alice.road(Road::Events).counts;
    for (number, topic) in Topic::all().enumerate() {
        alice.publishes(topic, number);
    }
    bob.is_up().await;
    bob.are_live(Topic::all()).await;
    alice.is_up().await;
    eventually("the fate of each", || {
        alice.road(Road::Events).outgoing_bytes == 0
    })
    .await;
    let after = alice.road(Road::Events).counts;
    assert_eq!(after.publish_denied, before.publish_denied);
    let known = |it: Counts| it.published + it.publish_unknown + it.lost_while_down;
    assert_eq!(known(after) - known(before), 1_025);
    // What was for the other masters has arrived.
    while bob.bus.try_next().is_some() {}
    each_topic_arrives(&mut alice, &mut bob).await;

    // It comes back as a replica of the one that was its own.
    cluster.masters[0].start_again();
    cluster.is_well();
    each_topic_arrives(&mut alice, &mut bob).await;
    assert_eq!(bob.up.len(), 2);
}

#[tokio::test]
async fn a_planned_change_of_masters_takes_no_road_down() {
    let mut cluster = cluster_or_skip!(
        "a_planned_change_of_masters_takes_no_road_down",
        RedisCluster::start_with_replicas()
    );
    let (mut alice, mut bob) = (start(&cluster), start(&cluster));
    bob.subscribes(Topic::all()).await;
    alice.is_up().await;
    cluster.replicas[1].takes(&["CLUSTER", "FAILOVER"]);
    let mut lost = BTreeSet::new();
    while lost.is_empty() || bob.live.len() < 1_042 {
        match bob.next_but_up().await {
            News::Lost(topics) => lost.extend(topics),
            News::Live(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(lost.len() > 200, "{lost:?}");
    converges(&mut alice, &mut bob).await;
    assert_eq!(alice.up.len(), 2);
}

/// Publishes on all topics until each batch of a round arrives: both have found every slot.
async fn converges(alice: &mut Node, bob: &mut Node) {
    for round in 1_000_000.. {
        for topic in Topic::all() {
            alice.publishes(topic, round);
        }
        let mut missing: BTreeSet<Topic> = Topic::all().collect();
        let deadline = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(deadline);
        while !missing.is_empty() {
            tokio::select! {
                news = bob.next() => match news {
                    News::Batch { topic, bytes } if number(&bytes) == round => {
                        assert!(missing.remove(&topic), "twice: {topic:?}");
                    }
                    News::Down(_) => panic!("{news:?}"),
                    _ => {}
                },
                () = &mut deadline => break,
            }
        }
        while let Some(news) = alice.bus.try_next() {
            assert_eq!(news, News::Up(Road::State), "alice hears nothing");
        }
        if missing.is_empty() {
            return;
        }
        assert!(round < 1_000_030, "not there: {missing:?}");
    }
}

#[tokio::test]
async fn while_slots_move_what_arrives_is_in_order_and_once_and_all_does_in_the_end() {
    let mut cluster = cluster_or_skip!(
        "while_slots_move_what_arrives_is_in_order_and_once_and_all_does_in_the_end",
        RedisCluster::start()
    );
    let (mut alice, mut bob) = (start(&cluster), start(&cluster));
    bob.subscribes(Topic::all()).await;
    alice.is_up().await;
    let moving = std::thread::spawn(move || {
        // There and back, so that each of these slots is lost twice.
        cluster.moves(0..1_000, 0, 1);
        cluster.moves(0..1_000, 1, 0);
        cluster.moves(8_000..8_300, 1, 2);
        cluster
    });
    let topics: Vec<Topic> = Topic::all().collect();
    let mut heard: BTreeMap<Topic, usize> = BTreeMap::new();
    let (mut received, mut lost) = (0, BTreeSet::new());
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while !moving.is_finished() || sent < 5_000 {
        tokio::select! {
            news = bob.next() => match news {
                News::Batch { topic, bytes } => {
                    let number = number(&bytes);
                    let last = heard.insert(topic, number);
                    assert!(last < Some(number), "{topic:?}: {number} after {last:?}");
                    received += 1;
                }
                News::Lost(topics) => lost.extend(topics),
                News::Live(_) => {}
                other => panic!("{other:?}"),
            },
            _ = tick.tick() => for _ in 0..5 {
                alice.publishes(topics[sent % topics.len()], sent);
                sent += 1;
            },
        }
    }
    let _cluster = moving.join().expect("slots have moved");
    assert!(lost.len() > 60, "{lost:?}");
    // Those whose slots stayed missed nothing.
    assert!(received > sent * 3 / 4, "{received} of {sent}");
    converges(&mut alice, &mut bob).await;
    let road = bob.road(Road::Events);
    assert_eq!((road.counts.reconnects, road.topics_live), (0, 1_025));
    assert_eq!(road.trouble, None);
    assert_eq!(alice.road(Road::Events).trouble, None);
}

#[tokio::test]
async fn one_master_that_hangs_is_noticed_while_the_others_go_on() {
    let cluster = cluster_or_skip!(
        "one_master_that_hangs_is_noticed_while_the_others_go_on",
        RedisCluster::start()
    );
    let (mut alice, mut bob) = (start(&cluster), start(&cluster));
    bob.subscribes(Topic::all()).await;
    alice.is_up().await;
    cluster.masters[2].signal("STOP");
    // Traffic of the others does not hide it.
    let mut standing = Road::ALL.len();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    // A machine that is busy must not be given all at once what it was late for.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent = 0;
    while standing > 0 {
        tokio::select! {
            news = bob.next() => standing -= usize::from(matches!(news, News::Down(_))),
            // What the one that hangs holds back must fit the queue meanwhile.
            _ = tick.tick() => for topic in Topic::all().step_by(8) {
                alice.publishes(topic, sent);
                sent += 1;
            },
        }
        assert!(sent < 1_000_000);
    }
    alice.is_down().await;
    let trouble = alice.road(Road::Events).trouble.unwrap_or_default();
    let at = cluster.masters[2].address.to_string();
    assert!(trouble.contains(&at), "{trouble}");
    let received = bob.road(Road::Events).counts.received;
    eventually("the others", || {
        (0..8).for_each(|partition| alice.publishes(events(partition), 0));
        bob.road(Road::Events).counts.received > received
    })
    .await;
    cluster.masters[2].signal("CONT");
    bob.is_up().await;
    bob.are_live(Topic::all()).await;
    alice.is_up().await;
}

/// The trouble of a node that cannot come up.
async fn is_told(setup: RedisClusterSetup, says: &str) -> Node {
    let mut node = Node::with(Setup::RedisCluster(setup));
    eventually(says, || {
        assert_eq!(node.bus.try_next(), None, "nothing is up");
        let trouble = node.road(Road::State).trouble.unwrap_or_default();
        assert!(!trouble.contains("other-one"), "{trouble}");
        trouble.contains(says)
    })
    .await;
    node
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_told() {
    let test = "a_server_that_is_no_cluster_is_told";
    let Some(redis) = Redis::start() else {
        return skip::skip(test, "there is no redis-server; `scripts/test` installs it");
    };
    is_told(
        setup_of([redis.address]),
        "is not part of a cluster: set adapter.driver to \"redis\"",
    )
    .await;
}

#[tokio::test]
async fn a_cluster_without_sharded_publish_subscribe_is_told() {
    let cluster = cluster_or_skip!(
        "a_cluster_without_sharded_publish_subscribe_is_told",
        RedisCluster::start_with(&["--rename-command", "SSUBSCRIBE", ""], 0)
    );
    let mut bob = start(&cluster);
    bob.is_up().await;
    bob.bus.subscribe(Topic::Nodes);
    eventually("the reason", || {
        assert_eq!(bob.bus.try_next(), None);
        let trouble = bob.road(Road::State).trouble.unwrap_or_default();
        trouble.contains("does not know ssubscribe: needs Redis 7 or later")
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_mended_without_a_restart() {
    let mut cluster = cluster_or_skip!(
        "a_wrong_password_is_told_and_mended_without_a_restart",
        RedisCluster::start()
    );
    for master in &mut cluster.masters {
        master.command(&["CONFIG", "SET", "masterauth", "right-one"]);
        master.command(&["CONFIG", "SET", "requirepass", "right-one"]);
    }
    let wrong = RedisClusterSetup {
        password: Some(Secret::from("other-one")),
        ..setup(&cluster)
    };
    let by_url = RedisClusterSetup {
        nodes: vec![Secret::new(format!(
            "redis://:other-one@{}",
            cluster.masters[0].address
        ))],
        ..setup(&cluster)
    };
    let mut nodes = Vec::new();
    for (setup, says) in [
        (wrong, "set database.redis.cluster.username"),
        (by_url, "user and password: set adapter.cluster.nodes"),
        (
            setup(&cluster),
            "wants a password: set database.redis.cluster",
        ),
    ] {
        nodes.push(is_told(setup, says).await);
    }
    for master in &mut cluster.masters {
        master.command(&["CONFIG", "SET", "requirepass", "other-one"]);
    }
    for node in nodes.iter_mut().take(2) {
        node.is_up().await;
        assert_eq!(node.road(Road::State).trouble, None);
    }
}

#[tokio::test]
async fn a_user_who_may_not_do_all_is_told_what() {
    let mut cluster = cluster_or_skip!(
        "a_user_who_may_not_do_all_is_told_what",
        RedisCluster::start()
    );
    let all = |cluster: &mut RedisCluster, rule: &str| {
        for master in &mut cluster.masters {
            master.command(&["ACL", "SETUSER", "default", rule]);
        }
    };
    all(&mut cluster, "-cluster");
    let mut alice = is_told(setup(&cluster), "allow it HELLO, PING, CLUSTER INFO").await;
    all(&mut cluster, "+cluster");
    alice.is_up().await;

    all(&mut cluster, "resetchannels");
    let mut bob = start(&cluster);
    bob.bus.subscribe(Topic::Nodes);
    alice.publishes(Topic::Nodes, 1);
    for (node, what) in [(&mut alice, "spublish"), (&mut bob, "ssubscribe")] {
        let says = format!("does not let this user {what} on sockudo:v1:0:test:*");
        eventually(&says, || {
            while node.bus.try_next().is_some() {}
            let trouble = node.road(Road::State).trouble;
            trouble.is_some_and(|it| it.contains(&says))
        })
        .await;
    }
    assert_eq!(alice.road(Road::State).counts.publish_denied, 1);
    bob.up.extend(Road::ALL);
    all(&mut cluster, "allchannels");
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
async fn a_setup_that_can_never_work_is_refused_and_says_the_key() {
    let start = |setup: RedisClusterSetup| Bus::start(Setup::RedisCluster(setup)).map(drop);
    let named = |nodes: &[&str]| RedisClusterSetup {
        nodes: nodes.iter().map(|it| Secret::from(*it)).collect(),
        ..setup_of([])
    };
    for url in [
        "",
        "redis://u:secret@h:99999",
        "redis://u:secret@h/1",
        "http://u:secret@h",
        "rediss://u:secret@h#insecure",
    ] {
        let error = start(named(&["h", url])).expect_err(url).to_string();
        assert!(error.contains("adapter.cluster.nodes"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    assert!(matches!(start(named(&[])), Err(BusError::NoNodes { .. })));
    let braces = RedisClusterSetup {
        prefix: "{a}".to_owned(),
        ..named(&["h"])
    };
    assert!(matches!(start(braces), Err(BusError::Braces { .. })));
    start(named(&[
        "h",
        "h:7000",
        "redis://u:secret@h",
        "redis://[::1]:7000/0",
    ]))
    .expect("servers that may come");
}
