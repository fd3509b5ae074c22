//! Jobs that an earlier release, or Sockudo 2.9, has left in Redis.

use std::collections::BTreeSet;

use serde_json::json;
use sockudo::bridge::queue::TargetName;

use crate::support::config::{APP_ID, KEY, SECRET};
use crate::support::eventually;
use crate::support::server::Server;
use crate::support::webhook::WebhookSink;
use crate::webhook_queue::{
    PREFIX, SlowAndPrompt, Wire, all_wait, arrive, config, occupied, puts, puts_of, redis,
};

#[test]
fn jobs_of_sockudo_2_9_are_delivered_with_our_secret() {
    let test = "jobs_of_sockudo_2_9_are_delivered_with_our_secret";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let mut sink = WebhookSink::start();
    let config = config(
        &redis,
        json!([sink.entry(&["member_added", "client_event"])]),
    );
    let old = |name: &str, more: &str| {
        format!(
            r#"{{"app_key":"k","app_id":"{APP_ID}","app_secret":"an-old-secret","payload":{{"time_ms":17,"events":[{{"name":"{name}","channel":"presence-c"{more}}}]}},"original_signature":"00"}}"#
        )
    };
    for job in [
        old("member_added", r#","user_id":"7""#),
        old("channel_occupied", ""),
        "no job at all".to_owned(),
        old(
            "client_event",
            r#","event":"client-x","data":"{\"a\":1}","socket_id":"1.2""#,
        ),
    ] {
        redis.command(&["RPUSH", PREFIX, &job]);
    }
    let node = Server::start(&config, 1);
    let first = sink.next_delivery();
    first.is_signed_with(KEY, SECRET);
    let mut events = first.events();
    while events.len() < 2 {
        events.extend(sink.next_delivery().events());
    }
    assert_eq!(first.json()["time_ms"], 17);
    assert_eq!(events[0]["user_id"], "7");
    assert_eq!(events[1]["data"], r#"{"a":1}"#);
    eventually("the old list to be empty", || {
        (redis.command(&["LLEN", PREFIX]) == ":0").then_some(())
    });
    assert!(!node.log().contains("an-old-secret"), "{}", node.log());
}

#[test]
fn the_rights_that_are_told_suffice_for_jobs_of_before_too() {
    let test = "the_rights_that_are_told_suffice_for_jobs_of_before_too";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    // As docs/backends.md has them.
    let user = "ACL SETUSER keeper on >hunter-2 resetkeys ~sockudo_queue:* resetchannels -@all +eval +evalsha +time \
                +info +@hash +@sortedset +@string +@list +ping +hello +select";
    redis.command(&user.split_whitespace().collect::<Vec<_>>());
    let job = format!(
        r#"{{"app_id":"{APP_ID}","payload":{{"time_ms":17,"events":[{{"name":"channel_occupied","channel":"c"}}]}}}}"#
    );
    // More than are moved at once.
    let jobs = vec![&*job; 250];
    redis.command(&[&["RPUSH", PREFIX][..], &*jobs].concat());
    let mut sink = WebhookSink::start();
    let login = json!({"database": {"redis": {"username": "keeper", "password": "hunter-2"}}});
    let config = config(&redis, json!([sink.entry(&["channel_occupied"])])).with(login);
    let node = Server::start(&config, 1);
    for _ in 0..250 {
        assert_eq!(sink.next()["channel"], "c");
    }
    node.client("alice").subscribes("after");
    arrive(&mut sink, ["after".to_owned()].into_iter());
    eventually("the old list to be empty", || {
        (redis.command(&["LLEN", PREFIX]) == ":0").then_some(())
    });
    // As after a Redis that evicted the jobs: what was said of their sizes is void.
    let [state, sizes] = ["state", "bytes"].map(|it| format!("{PREFIX}:v2:{it}"));
    redis.command(&["ZADD", &sizes, "5", "of-nobody"]);
    redis.command(&["HSET", &state, "bytes", "5"]);
    eventually("the sizes to be forgotten", || {
        (redis.command(&["EXISTS", &sizes]) == ":0").then_some(())
    });
    let bytes = redis.command(&["HGET", &state, "bytes"]);
    assert!(bytes.ends_with("\n0"), "{bytes}");
    node.client("bob").subscribes("after-that");
    arrive(&mut sink, ["after-that".to_owned()].into_iter());
    let denied = redis.command(&["INFO", "commandstats"]);
    assert!(!denied.contains("cmdstat_del:"), "{denied}");
}

#[test]
fn jobs_that_were_in_redis_before_are_shared_between_apps_too() {
    let test = "jobs_that_were_in_redis_before_are_shared_between_apps_too";
    let Some(mut redis) = redis(test, &[]) else {
        return;
    };
    let mut apps = SlowAndPrompt::new(&redis, 700);
    // As a node of the build before leaves them: nothing tells whose they are but their texts.
    let mut wire = Wire::to(&redis);
    for number in 0..700 {
        let target = TargetName::of(APP_ID, &apps.slow_url(number), 0);
        puts(&mut wire, number + 1, target, (0..2).map(occupied));
    }
    let target = TargetName::of("other-id", &apps.prompt.url(), 0);
    puts_of(
        ("other-id", 0),
        &mut wire,
        1_000,
        target,
        (0..50).map(occupied),
    );
    let _server = Server::start(&apps.config, 1);
    let mut missing: BTreeSet<String> = (0..50).map(|it| it.to_string()).collect();
    while !missing.is_empty() {
        missing.remove(apps.prompt.next()["channel"].as_str().expect("a name"));
    }
    all_wait(&mut redis, 1_400);
}
