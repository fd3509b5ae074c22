//! The reports of one made-up run: what a script, a person at a terminal and a browser get of it.

mod browser;
mod json;
mod look;
mod page;
mod picture;
#[path = "../../../tests/support/skip.rs"]
mod skip;
mod specimen;
mod summary;
