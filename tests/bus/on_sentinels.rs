//! One Redis of several, as Sentinels name it.

use sockudo::bridge::adapter::{
    Setup,
    redis::{RedisSetup, sentinel::SentinelSetup},
};
use sockudo::cluster::topic::{Road, Topic};
use sockudo::config::Secret;

use crate::redis::Redis;
use crate::sentinel::{NAME, Sentinel, Watched};
use crate::{Node, eventually, setup, skip};

/// The host and port of `database.redis` lead nowhere.
fn watched_setup(redis: &Redis, sentinels: &[&Sentinel]) -> RedisSetup {
    let at = |it: &&Sentinel| (it.address.ip().to_string(), it.address.port());
    let mut setup = setup(redis);
    setup.server.port = 1;
    setup.sentinels = Some(SentinelSetup {
        sentinels: sentinels.iter().map(at).collect(),
        password: None,
        name: NAME.to_owned(),
    });
    setup
}

/// As happens to a master that was cut off: who stayed with it would publish to nobody.
#[tokio::test]
async fn a_server_that_is_no_master_any_more_is_left() {
    let name = "a_server_that_is_no_master_any_more_is_left";
    let Some(mut watched) = Watched::start() else {
        return skip::skip(name, "there is no redis-server; `scripts/test` installs it");
    };
    let sentinels: Vec<&Sentinel> = watched.sentinels.iter().collect();
    let setup = Setup::Redis(watched_setup(&watched.master, &sentinels));
    let (mut alice, mut bob) = (Node::with(setup.clone()), Node::with(setup));
    bob.subscribes([Topic::Nodes]).await;
    alice.is_up().await;
    bob.is_up().await;
    alice.publishes(Topic::Nodes, 1);
    assert_eq!(bob.hears_until(Topic::Nodes, 1).await, [1]);

    let other = watched.replica.address;
    let (host, port) = (other.ip().to_string(), other.port().to_string());
    // No connection is closed by that.
    watched.master.command(&["REPLICAOF", &host, &port]);
    for node in [&mut alice, &mut bob] {
        node.is_down().await;
        eventually("the reason", || {
            assert_eq!(node.bus.try_next(), None, "nothing is up");
            let trouble = node.road(Road::State).trouble;
            trouble.is_some_and(|it| it.contains("is no master: the Sentinels are asked again"))
        })
        .await;
    }
    watched.master.command(&["REPLICAOF", "NO", "ONE"]);
    alice.is_up().await;
    bob.is_up().await;
    bob.are_live([Topic::Nodes]).await;
    alice.publishes(Topic::Nodes, 2);
    assert_eq!(bob.hears_until(Topic::Nodes, 2).await, [2]);
}

#[tokio::test]
async fn sentinels_that_do_not_help_are_told_with_what_to_do() {
    let name = "sentinels_that_do_not_help_are_told_with_what_to_do";
    let Some(redis) = Redis::start() else {
        return skip::skip(name, "there is no redis-server; `scripts/test` installs it");
    };
    let start = |lines| Sentinel::start(redis.address, 1, lines).expect("a Sentinel");
    let (open, locked) = (start(""), start("requirepass right-one"));
    let mut gone = watched_setup(&redis, &[&open]);
    let sentinels = |setup: &mut RedisSetup| setup.sentinels.take().expect("it has some");
    let other = |setup: &mut RedisSetup, change: &dyn Fn(&mut SentinelSetup)| {
        let mut changed = sentinels(setup);
        change(&mut changed);
        setup.sentinels = Some(changed);
        setup.clone()
    };
    let gone = other(&mut gone, &|it| it.sentinels[0].1 = 1);
    let mut unknown = watched_setup(&redis, &[&open]);
    let unknown = other(&mut unknown, &|it| it.name = "mall".to_owned());
    let mut wrong = watched_setup(&redis, &[&locked]);
    let wrong = other(&mut wrong, &|it| {
        it.password = Some(Secret::from("other-one"))
    });
    let none = watched_setup(&redis, &[&locked]);
    // The one that does not know us comes first, the one that helps last.
    let mut helped = watched_setup(&redis, &[&locked, &open]);
    let first = other(&mut helped, &|it| {
        it.sentinels.insert(0, ("127.0.0.1".to_owned(), 1))
    });
    for (setup, says) in [
        (gone, "no Sentinel answers: Sentinel at 127."),
        (unknown, "knows no master \"mall\": set database.redis.name"),
        (
            wrong,
            "refuses this user and password: set database.redis.sentinel_password",
        ),
        (
            none,
            "wants a password: set database.redis.sentinel_password",
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
    }
    Node::with(Setup::Redis(first)).is_up().await;
}
