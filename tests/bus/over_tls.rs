//! Any bus over TLS: what is trusted, who is let in, and what is said where TLS does not come about.

use sockudo::bridge::adapter::{
    Bus, Setup, nats::NatsSetup, redis::RedisSetup, redis_cluster::RedisClusterSetup,
};
use sockudo::bridge::tls::{TlsFiles, TlsKeys};
use sockudo::cluster::topic::{Road, Topic};
use sockudo::config::Secret;

use crate::certificates::Certificates;
use crate::nats::Nats;
use crate::redis::{Redis, own_host};
use crate::redis_cluster::RedisCluster;
use crate::{Node, events, eventually, on_nats, on_redis_cluster, setup, skip};

/// Starts what it needs, or says why not and ends the test.
macro_rules! or_skip {
    ($test:literal, $start:expr) => {
        match $start {
            Some(it) => it,
            None => {
                let reason = "there is no openssl, redis-server or nats-server; `scripts/test` installs them";
                skip::skip($test, reason);
                return;
            }
        }
    };
}

/// As a client that trusts the authority and is known to it.
fn files(keys: TlsKeys, certificates: &Certificates) -> TlsFiles {
    TlsFiles {
        keys,
        ca_path: Some(certificates.certificate("ca")),
        cert_path: Some(certificates.certificate("client")),
        key_path: Some(certificates.key("client")),
    }
}

fn redis_setup(redis: &Redis, tls: TlsFiles) -> RedisSetup {
    let mut setup = RedisSetup {
        tls,
        ..setup(redis)
    };
    setup.server.uses_tls = true;
    setup.server.port = redis.tls.unwrap_or(redis.address).port();
    setup
}

fn nats_setup(scheme: &str, nats: &Nats, tls: TlsFiles) -> NatsSetup {
    NatsSetup {
        servers: vec![Secret::new(format!("{scheme}{}", nats.address))],
        tls,
        ..on_nats::setup(&[nats])
    }
}

async fn carries(what: &str, setup: Setup) {
    let (mut alice, mut bob) = (Node::with(setup.clone()), Node::with(setup));
    alice.is_up().await;
    for topic in [Topic::Nodes, events(300)] {
        bob.subscribes([topic]).await;
        for number in 0..1_000 {
            alice.publishes(topic, number);
        }
        let heard = bob.hears_until(topic, 999).await;
        assert_eq!(heard, (0..1_000).collect::<Vec<_>>(), "{what}");
    }
    for node in [&alice, &bob] {
        assert_eq!(node.road(Road::Events).trouble, None, "{what}");
        assert_eq!(node.road(Road::State).counts.connects_failed, 0, "{what}");
    }
}

#[tokio::test]
async fn a_bus_is_carried_over_tls_with_certificates_on_both_sides() {
    let name = "a_bus_is_carried_over_tls_with_certificates_on_both_sides";
    let certificates = or_skip!(
        "a_bus_is_carried_over_tls_with_certificates_on_both_sides",
        Certificates::make(own_host())
    );
    let tls = files(TlsKeys::REDIS, &certificates);
    if let Some(redis) = Redis::start_with_tls(&certificates, "server") {
        let by_keys = redis_setup(&redis, tls.clone());
        let url = redis.tls.map(|at| Secret::new(format!("rediss://{at}/0")));
        let by_url = RedisSetup {
            publisher_url: url.clone(),
            subscriber_url: url,
            tls: tls.clone(),
            ..setup(&redis)
        };
        for setup in [by_keys, by_url] {
            carries("Redis", Setup::Redis(setup)).await;
        }
    } else {
        skip::skip(name, "there is no redis-server");
    }
    if let Some(cluster) = RedisCluster::start_with_tls(&certificates) {
        let at = cluster.masters[1].tls.expect("it speaks TLS");
        let [by_url, by_key] = ["rediss://", ""].map(|scheme| RedisClusterSetup {
            nodes: vec![Secret::new(format!("{scheme}{at}"))],
            uses_tls: scheme.is_empty(),
            tls: tls.clone(),
            ..on_redis_cluster::setup(&cluster)
        });
        for setup in [by_url, by_key] {
            carries("Redis Cluster", Setup::RedisCluster(setup)).await;
        }
    }
    if let Some(nats) = Nats::start_with_tls(&certificates, "server") {
        // A server that wants it gets it, asked for or not.
        for scheme in ["tls://", "nats://", ""] {
            let tls = files(TlsKeys::NATS, &certificates);
            let setup = nats_setup(scheme, &nats, tls);
            carries("NATS", Setup::Nats(setup)).await;
        }
    } else {
        skip::skip(name, "there is no nats-server");
    }
}

/// Waits for the sentence. Nothing may be up before it.
async fn is_told(setup: Setup, says: &str) {
    let mut node = Node::with(setup);
    let mut last = String::new();
    eventually(says, || {
        assert_eq!(node.bus.try_next(), None, "nothing is up: {says}");
        let trouble = node.road(Road::State).trouble.unwrap_or_default();
        if trouble != last {
            eprintln!("{trouble}");
            last.clone_from(&trouble);
        }
        trouble.contains(says)
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_tls_does_not_reach_is_told_with_what_to_do() {
    let test = "a_redis_that_tls_does_not_reach_is_told_with_what_to_do";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip::skip(test, "there is no openssl");
    };
    let (Some(redis), Some(foreign), Some(plain)) = (
        Redis::start_with_tls(&certificates, "server"),
        Redis::start_with_tls(&certificates, "foreign"),
        Redis::start(),
    ) else {
        return skip::skip(test, "there is no redis-server");
    };
    let good = files(TlsKeys::REDIS, &certificates);
    let ca_path = Some(certificates.certificate("other-ca"));
    let nobody = TlsFiles {
        ca_path: good.ca_path.clone(),
        ..TlsFiles::none(TlsKeys::REDIS)
    };
    let other_ca = TlsFiles {
        ca_path,
        ..good.clone()
    };
    let system = TlsFiles::none(TlsKeys::REDIS);
    let mut to_tls = setup(&redis);
    to_tls.server.port = redis.tls.expect("it speaks TLS").port();
    for (setup, says) in [
        (
            redis_setup(&redis, other_ca),
            "is of no CA in the file of database.redis.tls.ca_path",
        ),
        (
            redis_setup(&redis, system),
            "set database.redis.tls.ca_path to",
        ),
        (
            redis_setup(&foreign, good.clone()),
            "a certificate for another name",
        ),
        (
            redis_setup(&redis, nobody),
            "wants a client certificate: set database.redis.tls.cert_path and database.redis.tls.key_path",
        ),
        (redis_setup(&plain, good), "database.redis.tls.enabled"),
        (to_tls, "if it speaks TLS there: rediss://"),
    ] {
        is_told(Setup::Redis(setup), says).await;
    }
}

#[tokio::test]
async fn a_nats_that_tls_does_not_reach_is_told_with_what_to_do() {
    let test = "a_nats_that_tls_does_not_reach_is_told_with_what_to_do";
    let Some(certificates) = Certificates::make(own_host()) else {
        return skip::skip(test, "there is no openssl");
    };
    let (Some(server), Some(foreign), Some(plain)) = (
        Nats::start_with_tls(&certificates, "server"),
        Nats::start_with_tls(&certificates, "foreign"),
        Nats::start(),
    ) else {
        return skip::skip(test, "there is no nats-server");
    };
    let good = files(TlsKeys::NATS, &certificates);
    let ca_path = Some(certificates.certificate("other-ca"));
    let nobody = TlsFiles {
        ca_path: good.ca_path.clone(),
        ..TlsFiles::none(TlsKeys::NATS)
    };
    let other_ca = TlsFiles {
        ca_path,
        ..good.clone()
    };
    let system = TlsFiles::none(TlsKeys::NATS);
    let required = NatsSetup {
        tls_required: true,
        ..nats_setup("nats://", &plain, good.clone())
    };
    for (setup, says) in [
        (
            nats_setup("tls://", &server, other_ca),
            "is of no CA in the file of adapter.nats.tls.ca_path",
        ),
        (
            nats_setup("", &server, system),
            "set adapter.nats.tls.ca_path to",
        ),
        (
            nats_setup("", &foreign, good.clone()),
            "a certificate for another name",
        ),
        (
            nats_setup("tls://", &server, nobody),
            "wants a client certificate: set adapter.nats.tls.cert_path and adapter.nats.tls.key_path",
        ),
        (
            nats_setup("tls://", &plain, good),
            "adapter.nats.tls.required = false",
        ),
        (required, "adapter.nats.tls.required = false"),
    ] {
        is_told(Setup::Nats(setup), says).await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_at_the_start() {
    let certificates = or_skip!(
        "files_that_cannot_be_used_are_refused_at_the_start",
        Certificates::make(own_host())
    );
    let good = files(TlsKeys::REDIS, &certificates);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        Some(path.to_string_lossy().into_owned())
    };
    let text = write("text", "no certificate");
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = write("locked", locked);
    let absent = Some("/nowhere/ca.crt".to_owned());
    let other_key = Some(certificates.key("server"));
    for (tls, says) in [
        (
            TlsFiles {
                ca_path: absent,
                ..good.clone()
            },
            "database.redis.tls.ca_path = \"/nowhere/ca.crt\": cannot be read: No such file",
        ),
        (
            TlsFiles {
                ca_path: text.clone(),
                ..good.clone()
            },
            "holds no certificate in PEM",
        ),
        (
            TlsFiles {
                cert_path: text.clone(),
                ..good.clone()
            },
            "database.redis.tls.cert_path = ",
        ),
        (
            TlsFiles {
                key_path: text,
                ..good.clone()
            },
            "holds no private key in PEM",
        ),
        (
            TlsFiles {
                key_path: locked,
                ..good.clone()
            },
            "the key is encrypted",
        ),
        (
            TlsFiles {
                key_path: other_key,
                ..good.clone()
            },
            "do not belong together",
        ),
        (
            TlsFiles {
                key_path: None,
                ..good
            },
            "database.redis.tls.cert_path is set and database.redis.tls.key_path is not",
        ),
    ] {
        let url = Some(Secret::from("rediss://u:secret@h"));
        let server = sockudo::bridge::adapter::redis::RedisServer {
            host: "h".to_owned(),
            port: 1,
            uses_tls: false,
            database: 0,
            username: None,
            password: None,
        };
        let setup = RedisSetup {
            server,
            sentinels: None,
            publisher_url: url,
            subscriber_url: None,
            tls,
            prefix: "p".to_owned(),
            cluster: "c".to_owned(),
            node: sockudo::cluster::identity::NodeId::of_name("c"),
            queue_bytes_max: 1,
            timeout: std::time::Duration::from_secs(5),
        };
        let error = Bus::start(Setup::Redis(setup)).expect_err(says).to_string();
        assert!(error.contains(says), "{says}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
