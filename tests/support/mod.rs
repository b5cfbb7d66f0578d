//! What the whole-service and adapter tests share: servers of their own.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

pub mod bench;
pub mod redis;
