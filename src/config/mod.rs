//! Configuration: every key a Sockudo installation may have, where its value came from, and the
//! plain values that the rest of the server reads.
//!
//! Owns: the table of keys (`keys`), the sources and their order, every check of a value, and the
//! words in which a wrong value is refused.
//! May depend on: parsers of JSON, TOML and log filters, `protocol::origin`. Reads the configuration file and the
//! `--env-file`, nothing else: the environment and the flags are arguments.
//! Invariants: a `Config` in hand passed every check; no error, notice, `Debug` or `show` output
//! holds a secret; all errors of one load are reported together.

pub mod app;
pub mod backends;
mod build;
mod checks;
mod derive;
mod dotenv;
mod environment;
pub mod error;
mod json;
pub mod keys;
pub mod kind;
pub mod load;
mod origin;
mod read;
pub mod reference;
mod release;
pub mod secret;
pub mod sections;
pub mod settings;
pub mod shape;
pub mod show;
mod substitute;
mod suggest;
mod toml;
mod tree;

pub use app::App;
pub use error::{ConfigError, ConfigErrors, Level, Notice};
pub use load::{Flag, Loaded, Sources, load};
pub use origin::Origin;
pub use secret::Secret;
pub use sections::Logging;

/// The effective configuration: what holds after defaults, file, environment and flags were
/// merged and checked. Field names mirror the key tree; a unit stands last in a name.
#[derive(Clone, Debug)]
pub struct Config {
    /// No configuration at all was found: the demo app, on 127.0.0.1 only, with a welcome page.
    pub demo: bool,
    pub debug: bool,
    /// Addresses or names to listen on, without port; an IPv6 address carries no brackets.
    pub host: Vec<String>,
    /// 0 = any free port.
    pub port: u16,
    pub mode: String,
    /// "" or "/realtime": begins with a slash, never ends with one.
    pub path_prefix: String,
    pub activity_timeout_s: u64,
    pub user_authentication_timeout_s: u64,
    pub health_check_timeout_ms: u64,
    pub limits_mode: sections::LimitsMode,
    /// `None` = as many as the host's cores call for.
    pub shards: Option<u16>,
    /// `None` = chosen by the runtime.
    pub bridge_core: Option<u16>,
    pub pin: bool,
    pub websocket: sections::Websocket,
    pub net: sections::Net,
    pub admission: sections::Admission,
    pub drain: sections::Drain,
    pub cluster: sections::Cluster,
    pub cors: sections::Cors,
    pub http_api: sections::HttpApi,
    pub channel_limits: sections::ChannelLimits,
    pub metrics: sections::Metrics,
    pub webhooks: sections::Webhooks,
    pub rate_limiter: sections::RateLimiter,
    pub logging: Logging,
    pub ssl: sections::Ssl,
    pub unix_socket: sections::UnixSocket,
    pub app_manager: sections::AppManager,
    pub adapter: backends::Adapter,
    pub cache: backends::Cache,
    pub queue: backends::Queue,
    pub database: backends::Database,
    pub database_pooling: backends::DatabasePooling,
}
