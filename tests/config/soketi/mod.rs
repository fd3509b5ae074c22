//! What people bring from Soketi: its usual file, its variables, its units; each to its effect.

pub(super) mod in_a_file;
mod values;
pub(super) mod variables;

use sockudo::config::{App, Config, Secret};

/// What a configuration comes to, as a text.
pub(super) type Effect = fn(&Config) -> String;

fn secret(secret: &Option<Secret>) -> String {
    secret
        .as_ref()
        .map_or_else(|| "none".to_owned(), |secret| secret.expose().to_owned())
}

fn app(config: &Config) -> &App {
    &config.app_manager.apps[0]
}

pub(super) fn usual() -> &'static str {
    include_str!("../files/soketi.json")
}
