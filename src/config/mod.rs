//! Configuration: every key a Sockudo installation may have, where its value came from, and the
//! plain values that the rest of the server reads.
//!
//! A new key is a row in the file of its section below `sections/`; nothing else needs to know it.
//!
//! Owns: the keys (`sections`), the sources and their order, every check of a value, and the
//! words in which a wrong value is refused.
//! May depend on: parsers of JSON, TOML and log filters, `protocol::origin`. Reads the configuration file and the
//! `--env-file`, nothing else: the environment and the flags are arguments.
//! Invariants: a `Config` in hand passed every check; no error, notice, `Debug` or `show` output
//! holds a secret; all errors of one load are reported together.

#![cfg_attr(
    not(test),
    expect(
        clippy::wildcard_enum_match_arm,
        reason = "a value of another kind than the wanted one is treated alike, whatever its kind"
    )
)]

pub mod carry;
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
mod record;
pub mod reference;
mod release;
pub mod secret;
pub mod sections;
pub mod settings;
pub mod shape;
mod shared_redis;
pub mod show;
mod substitute;
mod suggest;
mod toml;
mod tree;

pub use error::{ConfigError, ConfigErrors, Level, Notice};
pub use load::{Flag, Loaded, Sources, load};
pub use origin::Origin;
pub use record::{
    AppDefaults, app_key, app_of_record, nearest_app_key, record_of_settings, records_of_file,
    settings_of_record,
};
pub use secret::Secret;
pub use sections::app::{self, App};
pub use sections::{Config, Logging};
