//! What a Linux host must be like for a Sockudo server, read and judged.
//!
//! [`Host::read`] reads `/proc`, `/sys` and the units of systemd below one root, so that a copied tree is read
//! like the live one. [`Target::needs`] computes what a number of connections asks for; [`check`] compares the
//! two. Reading and judging are apart: nothing but [`Host::read`] and [`Ring::probe`] touches the system, and
//! nothing here changes it.
//!
//! ```
//! use tuning::{Host, Target, check, report};
//! let host = Host::read("/".as_ref());
//! let target = Target { connections: 10_000, ..Target::default() };
//! let findings = check(&host, &target);
//! println!("{}", report::text(&host, &target, &findings, report::Ink::None));
//! ```

#![warn(missing_docs)]

pub mod check;
pub mod finding;
pub mod host;
pub mod plan;
pub mod report;
pub mod target;
pub mod tree;

pub use check::check;
pub use finding::{Finding, Group, Severity, verdict};
pub use host::{Host, ring::Ring};
pub use plan::{Plan, plan};
pub use target::{Needs, Target};
