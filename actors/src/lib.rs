//! The actor system of daisi-cdc-consumer: ports, delivery protocol, supervision.
//!
//! Knows nothing of NATS, Redis, Prometheus or any table: those are adapters behind [`ports`].

pub mod message;
pub mod ports;
pub mod telemetry;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
