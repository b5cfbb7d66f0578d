//! NATS JetStream: where change events come from, and where enriched events and dead letters go.
//!
//! - [`Connection`]: one connection, its state, its epoch and the JetStream API.
//! - [`streams`]: creates or checks streams and the durable pull consumer.
//! - [`JetStreamSource`], [`JetStreamPublisher`], [`JetStreamDeadLetters`]: the ports.

mod ack;
mod api;
mod connection;
mod dead_letters;
mod headers;
mod publisher;
mod source;
pub mod streams;

pub use ack::{AckSubject, NotAnAckSubject};
pub use api::ApiError;
pub use connection::{Auth, ConnectError, Connection, ConnectionEvent, NatsConfig, Tls};
pub use dead_letters::{DeadLetterSettings, JetStreamDeadLetters};
pub use publisher::{JetStreamPublisher, PublisherSettings};
pub use source::{JetStreamSource, SourceSettings};
pub use streams::{ConsumerSettings, Discard, Note, Plan, Retention, SetupError, Storage, StreamSettings};
