//! The socket for operators.
//!
//! Owns: `admin`.
//! May depend on: the words of `keys::rows`.
//! Invariants: those of `keys`.

use crate::config::keys::rows::*;
use crate::config::shape;

/// Where the socket is, unless `admin.socket` says otherwise.
pub const ADMIN_SOCKET: &str = "/run/sockudo/admin.sock";

section! {
    pub struct Admin in "admin" {
        // `None` = the default path, where it can be had.
        /// Unix socket, mode 0600, for commands to a running node; `none`, or empty in a file: there is none.
        socket: Option<String> = text(shape::SOCKET_PATH)
            .derived("/run/sockudo/admin.sock where it can be had; demo: none").empty_counts().ours();
    }
}
