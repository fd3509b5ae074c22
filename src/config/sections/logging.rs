//! Logs.
//!
//! Owns: `logging`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;
use crate::config::shape;

section! {
    pub struct Logging in "logging" {
        // `None` = by whether stdout is a terminal.
        /// Colours in the human format.
        colors_enabled: Option<bool> = flag().derived("whether stdout is a terminal")
            .env(&["LOG_COLORS_ENABLED"]);
        /// The module in each line.
        include_target: bool = flag().default("true").env(&["LOG_INCLUDE_TARGET"]);
        /// Form of a line.
        format: LogFormat = choice(LogFormat::CHOICES).default("human").env(&["LOG_OUTPUT_FORMAT"])
            .ours();
        /// Log filter. `SOCKUDO_LOG_DEBUG` sets it in debug mode, `SOCKUDO_LOG_PROD` otherwise;
        /// `RUST_LOG` wins over everything.
        level: String = text(shape::LOG_FILTER).default("info").null_is_absent()
            .derived("info,sockudo=debug in debug mode").env(&["LOG_LEVEL"]).ours().reloads();
    }
}

choices! {
    pub enum LogFormat {
        Human = "human" | "pretty" | "text",
        Json = "json",
    }
}
