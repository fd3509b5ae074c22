//! The configuration, read again while the node runs.
//!
//! Owns: the order of a reload, and how the last one went.
//! May depend on: `config`, `bridge::{link, message, port_tls, run}`.
//! Invariants: a configuration that is refused changes nothing; shards hear of the new one before its apps.

use std::sync::Arc;

use super::{
    link::ShardLink,
    message::FromBridge,
    port_tls::PortTls,
    run::{Bridge, unix_s},
};
use crate::config::{ConfigErrors, Loaded};

/// Reads the configuration again, from the same sources. Logs its notices itself.
pub type Reload = Box<dyn FnMut() -> Result<Loaded, ConfigErrors>>;

/// The last reload.
#[derive(Clone, Copy, Debug)]
pub struct Reloaded {
    pub succeeded: bool,
    /// Of the configuration in force.
    pub unix_s: u64,
}

impl Reloaded {
    pub(super) fn at_start() -> Self {
        Self {
            succeeded: true,
            unix_s: unix_s(),
        }
    }
}

impl<L: ShardLink> Bridge<L> {
    pub(super) fn reload(&mut self) {
        if self.handover.giving.is_some() {
            tracing::info!("the reload waits until the upgrade has ended");
            self.handover.reload_waits = true;
            return;
        }
        self.supervisor.reloading();
        self.read_configuration_again();
        // Also when it was refused: the node serves on with the old one.
        self.supervisor.reloaded();
    }

    fn read_configuration_again(&mut self) {
        self.reloaded.succeeded = false;
        let loaded = match (self.reload)() {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(%error, "the new configuration is refused; the old one stays");
                return;
            }
        };
        let tickets = self.tls.as_ref().map(|tls| tls.tickets().clone());
        let tickets = tickets.unwrap_or_default();
        let tls = match PortTls::read(&loaded.config.ssl, &tickets, unix_s()) {
            Ok(tls) => tls.filter(|_| self.tls.is_some()),
            Err(error) => {
                tracing::error!(%error, "the new configuration is refused; the old one stays");
                return;
            }
        };
        let keys = self.loaded.keys_that_need_a_restart(&loaded);
        let loaded = self.loaded.reloaded(loaded);
        self.webhooks.reconfigure(&loaded.config.webhooks);
        if !keys.is_empty() {
            tracing::warn!(
                keys = keys.join(" "),
                "changed keys take effect with a restart only"
            );
        }
        self.config = Arc::new(loaded.config.clone());
        self.loaded = loaded;
        self.reloaded = Reloaded {
            succeeded: true,
            unix_s: unix_s(),
        };
        let config = Arc::clone(&self.config);
        self.broadcast(|| FromBridge::Config(Arc::clone(&config)));
        if let Some(tls) = tls {
            tls.tell_doubts();
            self.broadcast(|| FromBridge::Tls(Box::new(tls.port.clone())));
            self.tls = Some(tls);
        }
        self.reload_apps();
        tracing::info!(
            node = self.node_id,
            apps = self.apps.iter().count(),
            "configuration reloaded"
        );
    }
}
