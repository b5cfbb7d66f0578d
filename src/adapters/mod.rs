//! Implementations of the ports on real servers.

pub mod nats;
