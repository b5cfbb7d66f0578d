//! What connects the actors' ports to the world.

pub mod http;
pub mod telemetry;
