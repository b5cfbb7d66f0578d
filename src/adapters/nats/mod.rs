//! NATS JetStream: where change events come from, and where enriched events and dead letters go.
//!
//! - [`Connection`]: one connection, its state, its epoch and the JetStream API.
//! - [`streams`]: creates or checks streams and the durable pull consumer.
//! - [`JetStreamSource`], [`JetStreamPublisher`], [`JetStreamDeadLetters`]: the ports.
//! - [`StreamReader`] reads any stream without a consumer; [`Letter`] is a dead letter put together again, which a
//!   [`Replayer`] brings back to the source.

mod ack;
mod api;
mod backlog;
mod claims;
mod connection;
pub mod consumers;
mod dead_letters;
mod fit;
mod headers;
mod history;
mod kept;
mod letters;
mod limit;
mod lives;
mod login;
mod progress;
mod publisher;
mod reader;
mod replay;
mod settled;
mod source;
mod stall;
pub mod streams;
mod unreadable;
mod way_back;

pub use ack::{AckSubject, NotAnAckSubject};
pub use api::{ApiError, NoJetStream};
pub use claims::Claims;
pub use connection::{ConnectError, Connection, ConnectionEvent, NatsConfig, Tls};
pub use consumers::{ConsumerSettings, Difference, Note, gives};
pub use dead_letters::{DeadLetterSettings, JetStreamDeadLetters};
pub use fit::{Misfit, Purpose, fit};
pub use headers::received;
pub use history::past;
pub use kept::Changed;
pub use letters::{Assembler, Damage, Letter, Original, Pick, read_letter};
pub use limit::SizeLimit;
pub use login::{Auth, LoginError};
pub use publisher::{JetStreamPublisher, PublisherSettings};
pub use reader::{StoredMessage, StreamReader};
pub use replay::{CannotReplay, Outcome, ReplayError, ReplaySettings, Replayer};
pub use source::{JetStreamSource, SourceSettings};
pub use streams::{Discard, Plan, Retention, SetupError, Storage, StreamSettings};
pub use unreadable::Flaw;
pub use way_back::{Barrier, WayBack, WayIn};
