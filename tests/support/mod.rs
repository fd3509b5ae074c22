//! The vocabulary of the end-to-end tests: a server, clients, the HTTP API, a receiver of webhooks.
//!
//! Nothing here uses the server's own code, so that a mistake there is not repeated in what checks it.

pub(crate) mod api;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod server;
pub(crate) mod sign;
pub(crate) mod signal;
pub(crate) mod skip;
pub(crate) mod webhook;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything that ought to happen may take on a busy machine before the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// How long a test listens for what must not come. It follows a fence where order allows one.
pub(crate) const SILENCE: Duration = Duration::from_millis(250);

/// Polls until the condition gives a value, or fails with the name of what it waited for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Declares each listed function as two tests: on one shard and on three.
///
/// A scenario is a plain function of the shard count; one that is not listed is dead code, which the lints refuse.
#[macro_export]
macro_rules! on_one_and_three_shards {
    ($($scenario:ident),+ $(,)?) => {
        $(mod $scenario {
            #[test]
            fn on_one_shard() {
                super::$scenario(1);
            }
            #[test]
            fn on_three_shards() {
                super::$scenario(3);
            }
        })+
    };
}
