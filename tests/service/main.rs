//! The whole service on real servers: the real binary, and in this process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod duplicates;
mod events;
mod limits;
mod poison;
mod reload;
mod settings;
