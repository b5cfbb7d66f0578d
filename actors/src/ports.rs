//! The ports: what the actors need from the outside, as traits that adapters implement.
//!
//! Every method that can fail because a dependency failed returns a [`Failure`]; what can never succeed is
//! told apart by type, never by text. Futures are `Send` and may be dropped at any await point without losing a delivery.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;

use crate::message::{
    Answer, Attempt, DeadLetter, Decision, Delivery, DeliveryId, EventKey, OrderKey, Record, Settlement,
};
use crate::telemetry::Telemetry;

/// What a pull may bring at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Messages, at least 1.
    pub messages: usize,
    /// Bytes of payload, subject and headers; at least one message of the largest size the server accepts.
    pub bytes: usize,
}

/// How far the consumer is behind its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Messages the consumer has yet to be given.
    pub pending: u64,
    /// Messages that it was given, through any replica, and that are not acknowledged.
    pub unacknowledged: u64,
    /// When the first unacknowledged message was stored, in nanoseconds since the Unix epoch; `None` if there is none.
    pub oldest_unacknowledged: Option<i64>,
    /// The consumer was found to stand still.
    pub stalled: Option<Stalled>,
}

/// How a consumer stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stall {
    /// It gives nothing, though messages and requests wait.
    Silent,
    /// It has passed messages of a work queue, and they are still there.
    Passed,
}

impl Stall {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Silent, Self::Passed];

    /// The name in labels and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Passed => "passed",
        }
    }
}

/// A consumer that stands still, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// How it stands still.
    pub stall: Stall,
    /// Whether it is being made anew, which brings what it owes. If not, somebody has to look.
    pub made_anew: bool,
}

impl Backlog {
    /// The age of the first unacknowledged message, `now` in nanoseconds since the Unix epoch; 0 if there is none.
    pub fn lag(&self, now: i64) -> Duration {
        let age = self.oldest_unacknowledged.map_or(0, |at| now.saturating_sub(at));
        Duration::from_nanos(u64::try_from(age).unwrap_or_default())
    }

    /// Tells an observer all that it shows, `now` in nanoseconds since the Unix epoch.
    pub fn tell(&self, observer: &dyn Observer, now: i64) {
        observer.observe(Telemetry::Backlog { pending: self.pending, lag: self.lag(now) });
        if let Some(stalled) = self.stalled {
            observer.observe(Telemetry::Stalled(stalled));
        }
    }
}

/// Which settlements a server has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Every one.
    All,
    /// A connection broke that carried some: what they settle may be delivered again.
    PerhapsNotAll,
}

/// The stream that change events come from.
pub trait Source: Send + Sync {
    /// Waits for at least one delivery and returns all that have arrived, at most `budget`. An empty batch is an idle
    /// stream: call again. Dropping the future loses nothing: what has arrived comes with the next call.
    fn pull(&self, budget: Budget) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>>;

    /// Hands settlements to the connection, in this order. A settlement of a delivery from another life of the stream, or of
    /// the consumer, is dropped. On an error none of them counts as done, and all may be handed in again.
    fn settle(&self, settlements: Vec<Settlement>) -> BoxFuture<'_, Result<(), Failure>>;

    /// Withdraws outstanding pull requests and returns what had already arrived, unsettled.
    fn stop(&self) -> BoxFuture<'_, Vec<Delivery>>;

    /// Returns once the server has received every settlement handed in before, but for those that may lately have gone down with
    /// their connection.
    fn confirm_settled(&self) -> BoxFuture<'_, Result<Heard, Failure>>;

    /// How far behind the consumer is.
    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, Failure>>;

    /// Changes whenever the connection is made anew; a source that cannot lose its connection need not say.
    fn connection_epoch(&self) -> u64 {
        0
    }
}

/// What the service does with one event: pure, and free to panic (the actors catch it).
pub trait Transform: Send + Sync + 'static {
    /// What was parsed to find the order key, handed on so that nothing is parsed twice.
    type Parsed: Send + 'static;

    /// Finds the row a delivery belongs to. Never fails: what cannot be parsed is told by [`Transform::decide`].
    fn order(&self, delivery: &Delivery) -> (OrderKey, Self::Parsed);

    /// Decides what becomes of a delivery.
    fn decide(&self, delivery: &Delivery, parsed: Self::Parsed) -> Decision;
}

/// What a check found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The generation in force.
    pub generation: u64,
    /// One entry per key asked for, in that order. A malformed record is no record.
    pub records: Vec<Result<Option<Record>, Failure>>,
}

/// The target as the publisher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// When the stream was created, in nanoseconds since the Unix epoch: tells a stream from its successor of the same name.
    pub created: i64,
    /// The last sequence the stream has given out.
    pub last_sequence: u64,
}

/// What came of holding the target against the highest sequence recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciled {
    /// The generation now in force.
    pub generation: u64,
    /// The highest sequence recorded, if the target is behind it: it has lost data, and the generation was raised.
    pub regressed_from: Option<u64>,
}

/// Remembers which events are stored in the target.
pub trait DedupStore: Send + Sync {
    /// Looks up records and the generation in force.
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>>;

    /// Records events that the target has confirmed, and raises the highest sequence known of their stream. One result per record.
    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>>;

    /// The highest sequence recorded of the stream created then; 0 if none is. Read before the target is asked for its last
    /// sequence, it tells a target that is behind from one whose newest events another replica recorded in the meantime.
    fn highest(&self, stream_created: i64) -> BoxFuture<'_, Result<u64, Failure>>;

    /// Holds the target against the highest sequence recorded of it and, in one atomic step, raises the generation if the target is behind.
    /// To be called when the target was found behind what [`Self::highest`] said before the target was asked.
    fn reconcile(&self, target: Target) -> BoxFuture<'_, Result<Reconciled, Failure>>;

    /// The markers of suspect deliveries, in that order; 0 where there is none.
    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>>;

    /// Sets markers of suspect deliveries to these values, each for a day; 0 removes one. On an error any of them may be set.
    fn set_markers(&self, markers: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>>;
}

/// The stream that enriched events go to.
pub trait Publisher: Send + Sync {
    /// Sends a batch in order, pipelined, and answers each attempt exactly once through `answers`, when its outcome is known.
    /// The future ends when everything has been handed to the connection. An attempt the future was dropped on is not answered.
    fn publish(&self, batch: Vec<Attempt>, answers: UnboundedSender<Answer>) -> BoxFuture<'_, ()>;

    /// Asks the server for the target: a failure means that it is not able to store anything.
    fn target(&self) -> BoxFuture<'_, Result<Target, Failure>>;

    /// How often the connection has been made anew, or the target was found to have gone back while it stood; a change means that
    /// the target must be reconciled before more is pulled.
    fn connection_epoch(&self) -> u64;
}

/// The stream for what can never succeed.
pub trait DeadLetters: Send + Sync {
    /// Stores a dead letter and returns when the server has confirmed it.
    fn store(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Failure>>;
}

/// Receives typed telemetry; metrics and log lines are derived from it in one place.
pub trait Observer: Send + Sync {
    /// Takes note of one event. Must not block.
    fn observe(&self, event: Telemetry<'_>);
}

/// Why a dependency could not do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No answer in time; it may or may not have happened.
    Timeout,
    /// There is no connection, or it broke.
    Disconnected,
    /// The server answers, but cannot do this now (loading, read-only, out of memory, no leader, stream full).
    Unavailable,
    /// A stream or consumer that should exist does not.
    Missing,
    /// The credentials do not permit it.
    Denied,
    /// The answer makes no sense.
    Protocol,
}

/// A dependency failed. Always worth a retry.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{action}: {cause}")]
pub struct Failure {
    /// What was tried, for people: "publish to wa_stream".
    pub action: Arc<str>,
    /// What kind of failure it is.
    pub class: FailureClass,
    /// What the client or server said.
    #[source]
    pub cause: Arc<dyn StdError + Send + Sync>,
}

impl Failure {
    /// A failure of `action` with its cause.
    pub fn new(
        action: impl Into<Arc<str>>,
        class: FailureClass,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { action: action.into(), class, cause: Arc::from(cause.into()) }
    }

    /// `action` was not answered within `after`.
    pub fn timeout(action: impl Into<Arc<str>>, after: Duration) -> Self {
        Self::new(action, FailureClass::Timeout, format!("no answer within {after:?}"))
    }
}

/// Why one publish was not confirmed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Nothing was heard: it may have been stored.
    #[error("outcome unknown: {0}")]
    Unknown(#[source] Failure),
    /// The server said no, or it was never sent: it is not stored.
    #[error("not stored: {0}")]
    Rejected(#[source] Failure),
    /// The message is larger than the server or the stream accepts.
    #[error("{size} bytes are more than the {limit} that the target accepts")]
    TooLarge {
        /// Bytes of headers and payload.
        size: usize,
        /// Bytes accepted.
        limit: usize,
    },
}

/// The things the service depends on, as operators see them in metrics and `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependency {
    /// The stream that change events come from.
    Source,
    /// The stream that enriched events go to.
    Target,
    /// The dead-letter stream.
    DeadLetter,
    /// The dedup store.
    Dedup,
}

impl Dependency {
    /// Every dependency.
    pub const ALL: [Self; 4] = [Self::Source, Self::Target, Self::DeadLetter, Self::Dedup];

    /// The name in labels and logs: the section of the configuration that describes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::DeadLetter => "dead_letter",
            Self::Dedup => "dedup",
        }
    }
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A clock, so that tests decide what time it is.
pub trait Clock: Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// Nanoseconds since the Unix epoch.
    fn unix_nanos(&self) -> i64;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
    fn unix_nanos(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// Payload bytes, shared and never copied on their way.
pub type Payload = Bytes;
