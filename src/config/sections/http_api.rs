//! The HTTP API, and which pages may call it.
//!
//! Owns: `cors`, `http_api`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;
use crate::config::settings::Settings;
use crate::config::shape;

section! {
    pub struct Cors in "cors" {
        /// Allow credentials; off whenever every origin is allowed.
        _ as "credentials" = flag().default("true").env(&["CORS_CREDENTIALS"]).reloads();
        /// Off whenever every origin is allowed, or none.
        credentials: bool => credentials;
        /// Allowed origins; `*` = every.
        _ as "origin" = texts(shape::HEADER_VALUE).default("*").env(&["CORS_ORIGINS"]).reloads();
        origin: CorsOrigin => origin;
        /// Allowed methods.
        methods: Vec<String> = texts(shape::TOKEN).default("GET,POST,OPTIONS")
            .env(&["CORS_METHODS"]).reloads();
        /// Allowed request headers.
        allowed_headers: Vec<String> = texts(shape::TOKEN)
            .default("Authorization,Content-Type,X-Requested-With,Accept").env(&["CORS_HEADERS"])
            .reloads();
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    Any,
    Listed(Vec<String>),
}

fn origin(settings: &Settings) -> CorsOrigin {
    let listed: Vec<String> = settings.get("cors.origin");
    let is_any = |origin: &String| origin == "*" || origin.eq_ignore_ascii_case("any");
    if listed.iter().any(is_any) {
        CorsOrigin::Any
    } else {
        CorsOrigin::Listed(listed)
    }
}

fn credentials(settings: &Settings) -> bool {
    let is_listed = matches!(origin(settings), CorsOrigin::Listed(listed) if !listed.is_empty());
    settings.flag("cors.credentials") && is_listed
}

section! {
    pub struct HttpApi in "http_api" {
        /// Largest body; else 413.
        _ as "request_limit_in_mb" = whole(1, 1024, "megabytes").default("10")
            .env(&["HTTP_REQUEST_LIMIT_MB"]).reloads();
        /// Largest request body; a larger one is answered 413.
        request_bytes_max: u64 => request_bytes_max;
        /// Memory use above which new connections get 4100.
        memory_threshold: f64 as "accept_traffic.memory_threshold" = fraction().default("0.9")
            .env(&["HTTP_ACCEPT_TRAFFIC_MEMORY_THRESHOLD"]).reloads();
        /// Offer `/usage`.
        usage_enabled: bool = flag().default("true").ours().reloads();
    }
}

fn request_bytes_max(settings: &Settings) -> u64 {
    settings.u64("http_api.request_limit_in_mb") << 20
}
