//! The bridge: one thread that does everything that leaves the host.
//!
//! Owns: drivers (app look-ups, the bus between nodes, webhooks, metrics and admin listener, signals)
//! and their queues.
//! May depend on: tokio, the link of `shards`, `config`, `metrics`, `protocol`, `cluster`. Not on
//! channel or connection state: it sees messages only.
//! Invariants: nothing here is called from a shard; a shard talks to it through `message`.

pub mod accounts;
pub mod adapter;
pub mod admin;
mod alarm;
mod app_source;
pub mod apps;
pub mod aws;
mod busy;
mod certificate_chain;
mod drain;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a fake node has been up for a while"
)]
mod fixture;
mod gather;
mod guests;
pub mod handover;
pub mod health;
mod kept_store;
mod largest;
pub mod link;
mod log_limit;
pub mod message;
mod nats_setup;
pub mod nodes;
pub mod notify;
mod outbox;
mod overview;
pub mod port_tls;
mod publish_hold;
pub mod queue;
pub mod queue_setup;
mod rate_store;
pub mod reach;
mod readiness;
pub mod redirect;
mod redis_cluster_setup;
pub mod redis_commands;
mod redis_setup;
pub mod refusals;
pub mod reload;
pub mod run;
pub mod signals;
pub mod socket_file;
mod stop;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "real time passes between real sockets"
)]
mod tests;
pub mod tickets;
pub mod tls;
pub mod usage;
mod view;
pub mod webhook;
pub mod webhook_event;
