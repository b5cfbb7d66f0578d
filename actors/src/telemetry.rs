//! What is worth knowing about a running pipeline, as typed events.
//!
//! Actors say what happened once, here; the metrics and the log line that follow are derived by the [`Observer`](crate::ports::Observer).

use std::time::Duration;

use crate::message::{DeliveryId, EventKey, Late, Reason};
use crate::ports::{Dependency, Failure, Stalled};

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Published.
    Processed,
    /// Was published before.
    Duplicate,
    /// Not for us.
    Skipped,
    /// In the dead-letter stream.
    DeadLettered,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 4] = [Self::Processed, Self::Duplicate, Self::Skipped, Self::DeadLettered];

    /// The label `result`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Duplicate => "duplicate",
            Self::Skipped => "skipped",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Why intake is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PauseReason {
    /// A dependency is down.
    Dependency(Dependency),
    /// The target must be held against the records first.
    Reconcile,
    /// A suspect runs alone.
    Suspect,
    /// A change of the configuration waits until nothing is in flight.
    Reload,
    /// The service is shutting down.
    Shutdown,
}

impl PauseReason {
    /// The label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dependency(dependency) => dependency.name(),
            Self::Reconcile => "reconcile",
            Self::Suspect => "suspect",
            Self::Reload => "reload",
            Self::Shutdown => "shutdown",
        }
    }
}

/// One thing that happened. `table` is `None` where it is not a configured one (label `other`).
#[derive(Debug)]
#[non_exhaustive]
pub enum Telemetry<'a> {
    /// A delivery was received that had been delivered before.
    Redelivered {
        /// The table.
        table: Option<&'static str>,
    },
    /// A delivery has been settled for good; sent right after its ack was handed to the connection.
    Settled {
        /// The table.
        table: Option<&'static str>,
        /// How it ended.
        outcome: Outcome,
        /// From received to ack handed to the connection.
        took: Duration,
    },
    /// The target confirmed an event.
    Published {
        /// The table.
        table: &'static str,
        /// The event.
        key: &'a EventKey,
        /// The target had it already.
        duplicate: bool,
        /// From database commit to confirmed, if the commit time is known and not in the future.
        since_commit: Option<Duration>,
    },
    /// Attempts at publishing failed, all for the same reason or one of several.
    PublishFailed {
        /// How many.
        attempts: u64,
        /// What the last of them said.
        failure: &'a Failure,
    },
    /// An event was stored late, and says so.
    Late {
        /// The table.
        table: &'static str,
        /// The event.
        key: &'a EventKey,
        /// How sure that is.
        certainty: Late,
    },
    /// Keys were checked.
    DedupChecked {
        /// Keys with a valid record.
        hits: u64,
        /// Keys without.
        misses: u64,
    },
    /// Events went on without a check, `dedup.when_unavailable` being `bypass`.
    DedupBypassed {
        /// How many.
        events: u64,
    },
    /// A confirmed event was acknowledged without a record.
    Unrecorded {
        /// The event.
        key: &'a EventKey,
        /// Why.
        failure: &'a Failure,
    },
    /// Fields that the typed row does not know.
    UnhandledField {
        /// The table.
        table: &'static str,
        /// The field.
        field: &'a str,
    },
    /// Subject and metadata contradict each other.
    SubjectMismatch {
        /// The delivery.
        id: DeliveryId,
        /// How.
        detail: &'a str,
    },
    /// A dead letter is stored.
    DeadLettered {
        /// The delivery.
        id: DeliveryId,
        /// The subject it came under.
        subject: &'a str,
        /// The table.
        table: Option<&'static str>,
        /// Why.
        reason: Reason,
        /// Why, for people.
        detail: &'a str,
    },
    /// A call of a dependency ended.
    Called {
        /// Whom.
        dependency: Dependency,
        /// Which operation: `pull`, `settle`, `publish`, `check`, `record`, ...
        operation: &'static str,
        /// How long it took.
        took: Duration,
        /// What failed, if it did.
        failure: Option<&'a Failure>,
    },
    /// The length of a dependency's failure streak changed.
    Streak {
        /// Whose.
        dependency: Dependency,
        /// Failures without a success in between.
        failures: u64,
    },
    /// A dependency went down or came back.
    DependencyChanged {
        /// Which.
        dependency: Dependency,
        /// What failed, if it went down.
        failure: Option<&'a Failure>,
    },
    /// Intake was paused or resumed.
    Paused {
        /// Why.
        reason: PauseReason,
        /// Whether it is now paused for it.
        paused: bool,
    },
    /// An actor is alive and gets to its messages.
    Alive {
        /// Its name.
        actor: &'static str,
    },
    /// Messages and bytes in flight now.
    InFlight {
        /// Messages.
        messages: usize,
        /// Bytes.
        bytes: usize,
    },
    /// How far behind the consumer is.
    Backlog {
        /// Messages the consumer has yet to be given.
        pending: u64,
        /// Age of the first unacknowledged message; zero if none.
        lag: Duration,
    },
    /// The consumer was found to stand still.
    Stalled(Stalled),
    /// An actor died and was built again.
    ActorRestarted {
        /// Its name.
        actor: &'static str,
    },
    /// The target's last sequence is below the highest recorded: it has lost data.
    TargetRegressed {
        /// The highest sequence recorded.
        recorded: u64,
        /// The target's last sequence.
        last_sequence: u64,
    },
    /// Unpublished deliveries were handed back.
    HandedBack {
        /// How many.
        deliveries: usize,
        /// Why, for people.
        why: &'static str,
    },
    /// The guard tripped: controlled shutdown follows.
    GuardTripped {
        /// Why, for people.
        why: &'a str,
    },
}
