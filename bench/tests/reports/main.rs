//! The reports of one made-up run: what a script, a person at a terminal and a browser get of it.

mod json;
mod specimen;
mod summary;
