//! End to end: the release binary as a child process, seen only through its ports.
//!
//! One crate for all, so that it is linked once. Each scenario runs with one shard and with three. The number
//! after a test's name is its line in the conformance checklist of the wire contract.

#![expect(
    clippy::print_stdout,
    reason = "what a test measured is read beside its name"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "numbers of a test are its own"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each wait has a deadline; lengths of time are what is tested; endpoints are threads"
)]

#[path = "../support/bus.rs"]
mod bus;
#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/gate.rs"]
mod gate;
#[path = "../support/mariadb.rs"]
mod mariadb;
#[path = "../support/moto.rs"]
mod moto;
#[expect(dead_code, reason = "the tests of the bus use the rest")]
#[path = "../support/nats.rs"]
mod nats;
#[path = "../support/network.rs"]
mod network;
#[expect(dead_code, reason = "the tests of the stores use the rest")]
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/redis_cluster.rs"]
mod redis_cluster;
#[path = "../support/returning.rs"]
mod returning;
#[path = "../support/sentinel.rs"]
mod sentinel;
#[path = "../support/mod.rs"]
mod support;

use support::{signal, skip};

mod alerts;
mod aws_over_tls;
mod backend_counts;
mod backend_faults;
mod bench;
mod bench_table;
mod bus_servers;
mod cache;
mod client_events;
mod clients;
mod drain;
mod faults;
mod frames;
mod handshake;
mod http_api;
mod http_api_auth;
mod http_api_browsers;
mod http_api_channels;
mod http_api_limits;
mod http_api_order;
mod limits;
mod load_balancers;
mod load_test;
mod nats_logins;
mod notices;
mod operations;
mod operators;
mod presence;
mod proxy_header;
mod raw_http;
mod report;
mod scale_out;
mod shared_cache;
mod shared_rates;
mod shared_redis;
mod shared_state;
mod slow_bus;
mod stores;
mod strangers;
mod subscriptions;
mod tls;
mod unix_socket;
mod upgrade;
mod upgrade_cluster;
mod upgrade_ends;
mod users;
mod webhook_letters;
mod webhook_queue;
mod webhook_queue_apps;
mod webhook_queue_before;
mod webhook_queue_servers;
mod webhook_sqs;
mod webhooks;
