//! What the bridge's tests ask in the place of a Redis: nobody.
//!
//! Owns: `to_nobody`.
//! May depend on: `redis_commands`, `bridge::{adapter, tls}`.
//! Invariants: what a server would say is made by hand.

use super::{CommandsSetup, OneServer, Purpose, RedisCommands};
use crate::bridge::{
    adapter::redis::RedisServer,
    tls::{TlsFiles, TlsKeys},
};

/// Nobody listens there.
pub(in crate::bridge) fn to_nobody(purpose: Purpose) -> RedisCommands {
    let server = RedisServer {
        host: "127.0.0.1".to_owned(),
        port: 1,
        uses_tls: false,
        database: 0,
        username: None,
        password: None,
    };
    let one = OneServer {
        server,
        sentinels: None,
        url: None,
        tls: TlsFiles::none(TlsKeys::REDIS),
    };
    let commands = RedisCommands::start(&CommandsSetup::One(one), purpose);
    commands.expect("nothing is asked yet")
}
