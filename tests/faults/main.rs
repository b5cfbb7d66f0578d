//! The real binary against real servers that fail: what goes in comes out once, whatever happens in between.

#[path = "../support/mod.rs"]
mod support;

mod endings;
mod figures;
mod http;
mod nats;
mod redis;
mod verdicts;
