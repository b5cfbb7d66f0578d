//! The actor system of daisi-cdc-consumer: ports, delivery protocol, supervision.
//!
//! Knows nothing of NATS, Redis, Prometheus or any table: those are adapters behind [`ports`].

pub mod flight;
pub mod guard;
pub mod message;
pub mod order;
pub mod ports;
pub mod retry;
pub mod telemetry;
