//! Implementations of the ports: what the service talks to.

pub mod memory;
pub mod redis;
