//! Where apps are kept.
//!
//! Owns: `app_manager`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use super::app::{APP, App};
use crate::config::AppDefaults;
use crate::config::keys::rows::*;
use crate::config::settings::Settings;

section! {
    pub struct AppManager in "app_manager" {
        /// Where apps are kept.
        driver: AppStoreDriver = choice(AppStoreDriver::CHOICES).default("memory")
            .env(&["APP_MANAGER_DRIVER"]);
        /// Static apps; see the keys of an app.
        _ as "array.apps" = records(&APP).default("").reloads();
        /// The static apps of file and environment; ids and keys are unique.
        apps: Vec<App> => apps;
        /// What an app of a database takes over from the server.
        app_defaults: AppDefaults => AppDefaults::read;
        /// Keep apps of a database in memory.
        cache_enabled: bool as "cache.enabled" = flag().default("true")
            .env(&["APP_MANAGER_CACHE_ENABLED"]);
        /// How long.
        cache_ttl_s: u64 as "cache.ttl" = seconds(0).default("300")
            .env(&["APP_MANAGER_CACHE_TTL", "CACHE_TTL_SECONDS"]);
        /// How long an unknown app stays unknown.
        negative_ttl_s: u64 as "negative_ttl" = seconds(0)
            .derived("app_manager.cache.ttl, 10 at most").ours();
        /// Whether static apps are written to the database at start; the node is not ready before they are.
        seed: Seed = choice(Seed::CHOICES).default("never").ours();
        /// Make the database's table at start, or give it what it lacks; the node is not ready before that is done.
        create_schema: bool = flag().default("false").ours();
    }
}

choices! {
    pub enum AppStoreDriver {
        Memory = "memory" | "array",
        Mysql = "mysql",
        Dynamodb = "dynamodb",
        Pgsql = "pgsql" | "postgres" | "postgresql",
        Scylladb = "scylladb" | "scylla" later,
    }
}

choices! {
    /// Whether static apps are written to the database at start.
    pub enum Seed {
        Never = "never",
        IfMissing = "if_missing",
        Overwrite = "overwrite",
    }
}

fn apps(settings: &Settings) -> Vec<App> {
    let apps = settings.records("app_manager.array.apps");
    apps.iter().map(App::read).collect()
}
