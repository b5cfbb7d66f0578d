//! An observer that remembers.

use std::sync::Mutex;
use std::time::Duration;

use super::lock;
use crate::message::{DeliveryId, EventKey, Late, Reason};
use crate::ports::{Dependency, Failure, Observer, Stalled};
use crate::telemetry::{Outcome, PauseReason, Telemetry};

/// A [`Telemetry`] event that owns what it tells; the fields are those of its namesake.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "each variant and field is described where Telemetry defines it")]
pub enum Observed {
    Redelivered { table: Option<&'static str> },
    Settled { table: Option<&'static str>, outcome: Outcome, took: Duration },
    Published { table: &'static str, key: EventKey, duplicate: bool, since_commit: Option<Duration> },
    Late { table: &'static str, key: EventKey, certainty: Late },
    DedupChecked { hits: u64, misses: u64 },
    DedupBypassed { events: u64 },
    Unrecorded { key: EventKey, failure: Failure },
    UnhandledField { table: &'static str, field: String },
    SubjectMismatch { id: DeliveryId, detail: String },
    DeadLettered { id: DeliveryId, subject: String, table: Option<&'static str>, reason: Reason, detail: String },
    Called { dependency: Dependency, operation: &'static str, took: Duration, failure: Option<Failure> },
    Streak { dependency: Dependency, failures: u64 },
    DependencyChanged { dependency: Dependency, failure: Option<Failure> },
    Paused { reason: PauseReason, paused: bool },
    InFlight { messages: usize, bytes: usize },
    Backlog { pending: u64, lag: Duration },
    Stalled(Stalled),
    ActorRestarted { actor: &'static str },
    TargetRegressed { recorded: u64, last_sequence: u64 },
    HandedBack { deliveries: usize, why: &'static str },
    GuardTripped { why: String },
    PublishFailed { attempts: u64, failure: Failure },
    Alive { actor: &'static str },
}

impl From<Telemetry<'_>> for Observed {
    fn from(event: Telemetry<'_>) -> Self {
        match event {
            Telemetry::Redelivered { table } => Self::Redelivered { table },
            Telemetry::Settled { table, outcome, took } => Self::Settled { table, outcome, took },
            Telemetry::Published { table, key, duplicate, since_commit } => {
                Self::Published { table, key: key.clone(), duplicate, since_commit }
            }
            Telemetry::Late { table, key, certainty } => Self::Late { table, key: key.clone(), certainty },
            Telemetry::DedupChecked { hits, misses } => Self::DedupChecked { hits, misses },
            Telemetry::DedupBypassed { events } => Self::DedupBypassed { events },
            Telemetry::Unrecorded { key, failure } => Self::Unrecorded { key: key.clone(), failure: failure.clone() },
            Telemetry::UnhandledField { table, field } => Self::UnhandledField { table, field: field.to_owned() },
            Telemetry::SubjectMismatch { id, detail } => Self::SubjectMismatch { id, detail: detail.to_owned() },
            Telemetry::DeadLettered { id, subject, table, reason, detail } => {
                Self::DeadLettered { id, subject: subject.to_owned(), table, reason, detail: detail.to_owned() }
            }
            Telemetry::Called { dependency, operation, took, failure } => {
                Self::Called { dependency, operation, took, failure: failure.cloned() }
            }
            Telemetry::Streak { dependency, failures } => Self::Streak { dependency, failures },
            Telemetry::DependencyChanged { dependency, failure } => {
                Self::DependencyChanged { dependency, failure: failure.cloned() }
            }
            Telemetry::Paused { reason, paused } => Self::Paused { reason, paused },
            Telemetry::InFlight { messages, bytes } => Self::InFlight { messages, bytes },
            Telemetry::Backlog { pending, lag } => Self::Backlog { pending, lag },
            Telemetry::Stalled(stalled) => Self::Stalled(stalled),
            Telemetry::ActorRestarted { actor } => Self::ActorRestarted { actor },
            Telemetry::TargetRegressed { recorded, last_sequence } => Self::TargetRegressed { recorded, last_sequence },
            Telemetry::HandedBack { deliveries, why } => Self::HandedBack { deliveries, why },
            Telemetry::PublishFailed { attempts, failure } => {
                Self::PublishFailed { attempts, failure: failure.clone() }
            }
            Telemetry::Alive { actor } => Self::Alive { actor },
            Telemetry::GuardTripped { why } => Self::GuardTripped { why: why.to_owned() },
        }
    }
}

/// Keeps every telemetry event in the order it came.
#[derive(Debug, Default)]
pub struct RecordingObserver {
    events: Mutex<Vec<Observed>>,
}

impl RecordingObserver {
    /// Everything seen so far.
    pub fn events(&self) -> Vec<Observed> {
        lock(&self.events).clone()
    }

    /// How many of the events seen so far are such.
    pub fn count(&self, such: impl Fn(&Observed) -> bool) -> usize {
        lock(&self.events).iter().filter(|event| such(event)).count()
    }

    /// How many deliveries ended so.
    pub fn settled(&self, outcome: Outcome) -> usize {
        self.count(|event| matches!(event, Observed::Settled { outcome: ended, .. } if *ended == outcome))
    }

    /// Forgets everything seen so far.
    pub fn clear(&self) {
        lock(&self.events).clear();
    }
}

impl Observer for RecordingObserver {
    fn observe(&self, event: Telemetry<'_>) {
        lock(&self.events).push(event.into());
    }
}
