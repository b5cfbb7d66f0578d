//! The actor system of daisi-cdc-consumer: ports, delivery protocol, supervision.
//!
//! Knows nothing of NATS, Redis, Prometheus or any table: those are adapters behind [`ports`].
//!
//! A delivery travels Ingest → Transform → Dedup (check) → Publish → Dedup (record) → Ingest (ack), as a [`flight::Ticket`]
//! that gives itself back to the source when it is dropped anywhere on its way. What the actors decide stands in plain
//! types: [`flight`], [`order`], [`view`], [`retry`], [`guard`], `suspects`, `refused`, and the health of the target in `publish`.

mod between;
pub mod dedup;
pub mod flight;
pub mod guard;
pub mod ingest;
pub mod message;
pub mod order;
pub mod pipeline;
pub mod ports;
pub mod publish;
mod refused;
pub mod retry;
pub mod shared;
pub mod supervisor;
mod suspects;
pub mod telemetry;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod transform;
pub mod view;
