//! What the configuration says of NATS, as the bus wants it.
//!
//! Owns: `nats_setup`.
//! May depend on: `bridge::{adapter, tls}`, `cluster::identity`, `config`.
//! Invariants: what the driver does not do was refused with the configuration.

use std::time::Duration;

use super::{
    adapter::nats::NatsSetup,
    tls::{TlsFiles, TlsKeys},
};
use crate::{cluster::identity::NodeId, config::Config};

pub(super) fn nats_setup(config: &Config, name: &str, queue_bytes_max: usize) -> NatsSetup {
    let nats = &config.adapter.nats;
    NatsSetup {
        servers: nats.servers.clone(),
        prefix: nats.prefix.clone(),
        username: nats.username.clone(),
        password: nats.password.clone(),
        token: nats.token.clone(),
        creds_file: nats.creds_file.clone(),
        nkey_seed_file: nats.nkey_seed_file.clone(),
        tls_required: nats.tls.required,
        tls: TlsFiles {
            keys: TlsKeys::NATS,
            ca_path: nats.tls.ca_path.clone(),
            cert_path: nats.tls.cert_path.clone(),
            key_path: nats.tls.key_path.clone(),
        },
        cluster: config.cluster.name.clone().unwrap_or_default(),
        node: NodeId::of_name(name),
        queue_bytes_max,
        connect_within: Duration::from_millis(nats.connection_timeout_ms),
        timeout: Duration::from_millis(nats.request_timeout_ms),
    }
}
