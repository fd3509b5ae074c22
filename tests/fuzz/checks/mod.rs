//! What must hold for any bytes at all: one check per fuzz target, each a plain function that panics where its property
//! is broken. `tests/corpus.rs` replays the corpus through them, `targets/` hands them to the fuzzer.
//!
//! Owns: the properties and the independent judges that they are held against.
//! May depend on: the pure rooms of `sockudo`, and the reader of answers of its bridge; `serde_json`, `tungstenite`, `hmac`, `sha2`, `md-5`.
//! Invariants: a check is a function of its bytes; it takes the code under test for no judge of itself.

pub mod api_body;
pub mod auth;
pub mod channel_name;
pub mod client_frame;
pub mod cluster_batch;
pub mod http_request;
pub mod presence;
pub mod proxy_header;
pub mod webhook_answer;
pub mod ws_codec;

mod judge;
mod pieces;
mod said;
