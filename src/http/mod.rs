//! HTTP/1.1, server side: requests in, answers out, for the API and the health routes.
//!
//! Owns: request heads and bodies, PROXY headers, routes, parameters, the API's rules and JSON, CORS.
//! May depend on: `protocol`; `httparse`, `simdutf8`, `smallvec`, `thiserror`.
//! Invariants: no socket, clock or randomness; a request that two parsers could frame differently
//! is refused; a request is accepted whole or not at all; nothing here panics on any input.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

pub mod answer;
pub mod api;
pub mod batch;
pub mod body;
pub mod cors;
pub mod health;
pub mod info;
pub mod proxy_header;
pub mod query;
pub mod request;
pub mod response;
pub mod route;
