//! Implementations of the ports: what connects the service to the world.

pub mod http;
pub mod memory;
pub mod nats;
pub mod redis;
pub mod telemetry;
