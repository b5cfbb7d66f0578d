//! What every actor shares: settings, addresses that survive a rebuild, and the messages between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::mpsc::UnboundedSender;

use crate::between::Change;
use crate::flight::Ticket;
use crate::guard::{Evidence, GuardSettings, RestartLimit};
use crate::message::{Event, OrderKey, Reason, Stored};
use crate::order::RowMemory;
use crate::ports::{Budget, Clock, Dependency, Failure, Heard, Observer, Publisher, Target};
use crate::retry::Backoff;
use crate::telemetry::{PauseReason, Telemetry};

/// How the pipeline behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// TransformActors, at least 1.
    pub workers: usize,
    /// Threads they share, at least 1; a single one has none of its own.
    pub threads: usize,
    /// The most messages one pull asks for.
    pub batch: usize,
    /// What may be in flight.
    pub in_flight: Budget,
    /// The largest message the source may hold, in bytes: nothing is pulled unless it has room.
    pub largest_message: usize,
    /// The most messages that may be unacknowledged at the source, over all replicas.
    pub max_ack_pending: usize,
    /// How long the source waits for a settlement before it delivers again.
    pub ack_wait: Duration,
    /// Deliveries from which on a message is a suspect.
    pub suspect_after: u64,
    /// How long a failing record is retried before the source is acknowledged without one.
    pub record_patience: Duration,
    /// Publish without a check while the dedup store is down.
    pub bypass_dedup: bool,
    /// Between attempts, at the start; like the next two it is asked for by [`Core::patience`].
    pub backoff: Backoff,
    /// How long one subject may be refused before its event is a dead letter.
    pub refused_for: Duration,
    /// When to give up.
    pub guard: GuardSettings,
    /// How often an actor may die.
    pub restarts: RestartLimit,
    /// How long a controlled shutdown may take.
    pub grace: Duration,
    /// Rows whose newest position is remembered.
    pub remembered_rows: usize,
    /// How many sequences back finished deliveries are remembered.
    pub remembered_deliveries: usize,
}

/// How long failures are borne: those of the settings that can be changed while the pipeline runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Between attempts.
    pub backoff: Backoff,
    /// How long one subject may be refused before its event is a dead letter.
    pub refused_for: Duration,
    /// When to give up.
    pub guard: GuardSettings,
}

impl From<&Settings> for Patience {
    fn from(settings: &Settings) -> Self {
        Self { backoff: settings.backoff, refused_for: settings.refused_for, guard: settings.guard }
    }
}

/// The actors of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActorKind {
    /// Pulls and settles.
    Ingest,
    /// Decides; one of a pool.
    Transform(usize),
    /// Checks and records.
    Dedup,
    /// Publishes.
    Publish,
    /// Watches the others.
    Supervisor,
}

impl ActorKind {
    /// The label `actor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Transform(_) => "transform",
            Self::Dedup => "dedup",
            Self::Publish => "publish",
            Self::Supervisor => "supervisor",
        }
    }
}

/// The present address of an actor, for one kind of message. Sending to nobody drops the message, and dropping what it
/// carries gives it back to the source.
#[derive(Debug)]
pub struct Slot<M: Message + Send>(RwLock<Option<Recipient<M>>>)
where
    M::Result: Send;

impl<M: Message + Send> Default for Slot<M>
where
    M::Result: Send,
{
    fn default() -> Self {
        Self(RwLock::new(None))
    }
}

impl<M: Message + Send> Slot<M>
where
    M::Result: Send,
{
    /// From now on this one is meant.
    pub fn point_to(&self, recipient: Recipient<M>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(recipient);
    }

    /// Sends without waiting.
    pub fn send(&self, message: M) {
        if let Some(recipient) = &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            recipient.do_send(message);
        }
    }
}

/// What all actors share. Outlives each of them.
pub struct Core {
    /// How to behave.
    pub settings: Settings,
    patience: RwLock<Patience>,
    /// Where to tell what happened.
    pub observer: Arc<dyn Observer>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The newest position handed to the connection, per row.
    pub rows: Mutex<RowMemory>,
    /// How often the target has gone away or come back.
    outages: AtomicU64,
    pub(crate) check: Slot<Check>,
    pub(crate) record: Slot<RecordStored>,
    pub(crate) target: Slot<SetTarget>,
    /// Likewise, for the memory of what was finished.
    pub(crate) finished_for: Slot<SetTarget>,
    /// Likewise, for what may be sent.
    pub(crate) publish_to: Slot<SetTarget>,
    pub(crate) look_at_target: Slot<LookAtTarget>,
    pub(crate) publish: Slot<Publish>,
    pub(crate) unacknowledged: Slot<Unacknowledged>,
    pub(crate) apart: Slot<Apart>,
    pub(crate) bury: Slot<Bury>,
    pub(crate) hand_back_held: Slot<HandBack>,
    pub(crate) hand_back_checks: Slot<HandBack>,
    pub(crate) hand_back_publishes: Slot<HandBack>,
    pub(crate) report: Slot<Report>,
    pub(crate) try_again: Slot<TryAgain>,
    pub(crate) intake: Slot<Intake>,
    pub(crate) change: Slot<Change>,
    pub(crate) drain: Slot<Drain>,
    pub(crate) drained: Slot<Drained>,
}

impl Core {
    pub(crate) fn new(settings: Settings, observer: Arc<dyn Observer>, clock: Arc<dyn Clock>) -> Self {
        let rows = Mutex::new(RowMemory::new(settings.remembered_rows));
        Self {
            patience: RwLock::new(Patience::from(&settings)),
            settings,
            observer,
            clock,
            rows,
            outages: AtomicU64::new(0),
            check: Slot::default(),
            record: Slot::default(),
            target: Slot::default(),
            finished_for: Slot::default(),
            publish_to: Slot::default(),
            look_at_target: Slot::default(),
            publish: Slot::default(),
            unacknowledged: Slot::default(),
            apart: Slot::default(),
            bury: Slot::default(),
            hand_back_held: Slot::default(),
            hand_back_checks: Slot::default(),
            hand_back_publishes: Slot::default(),
            report: Slot::default(),
            try_again: Slot::default(),
            intake: Slot::default(),
            change: Slot::default(),
            drain: Slot::default(),
            drained: Slot::default(),
        }
    }

    /// How long failures are borne now.
    pub fn patience(&self) -> Patience {
        *self.patience.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long they are borne from now on.
    pub(crate) fn set_patience(&self, patience: Patience) {
        *self.patience.write().unwrap_or_else(PoisonError::into_inner) = patience;
    }

    /// How long to wait after so many failures in a row.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        self.patience().backoff.delay(failures)
    }

    /// Changes whenever the target has to be looked at before anything rests on it again: after its connection was made anew, and
    /// after an outage. Behind another server of its cluster it can come back with less while the connection stands.
    pub(crate) fn target_epoch(&self, publisher: &dyn Publisher) -> u64 {
        publisher.connection_epoch() + self.outages.load(Ordering::Acquire)
    }

    /// The target is away, or back: what rests on it has to be looked at anew.
    pub(crate) fn doubt_target(&self) {
        self.outages.fetch_add(1, Ordering::AcqRel);
    }

    /// The newest positions, which outlive whoever holds them: no method leaves them half changed.
    pub(crate) fn lock_rows(&self) -> MutexGuard<'_, RowMemory> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every actor to give back what is unpublished; those nearest to the source last, so that a row keeps its order.
    pub(crate) fn hand_back(&self, why: HandBack) {
        self.hand_back_publishes.send(why);
        self.hand_back_checks.send(why);
        self.hand_back_held.send(why);
    }

    /// Tells metrics and supervisor how a call of a dependency ended. A `tolerated` failure does not pause intake.
    pub(crate) fn called(
        &self,
        dependency: Dependency,
        operation: &'static str,
        started: Instant,
        failure: Option<&Failure>,
        tolerated: bool,
    ) {
        let took = self.clock.now().saturating_duration_since(started);
        self.observer.observe(Telemetry::Called { dependency, operation, took, failure });
        self.report.send(Report { dependency, failure: failure.cloned(), tolerated, evidence: Evidence::Answers });
    }

    /// The same of a call that tells whether the target takes events.
    pub(crate) fn called_to_store(&self, operation: &'static str, started: Instant, failure: Option<&Failure>) {
        let (dependency, took) = (Dependency::Target, self.clock.now().saturating_duration_since(started));
        self.observer.observe(Telemetry::Called { dependency, operation, took, failure });
        let failure = failure.cloned();
        self.report.send(Report { dependency, failure, tolerated: false, evidence: Evidence::Stores });
    }
}

/// Tells the supervisor when its actor is dropped, however that came about.
#[derive(Debug)]
pub(crate) struct Life {
    kind: ActorKind,
    deaths: UnboundedSender<ActorKind>,
}

impl Life {
    pub(crate) fn new(kind: ActorKind, deaths: UnboundedSender<ActorKind>) -> Self {
        Self { kind, deaths }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.deaths.send(self.kind);
    }
}

/// Beats once a second for as long as the actor gets to its messages.
pub(crate) fn beat<A: Actor<Context = Context<A>>>(ctx: &mut Context<A>, core: &Arc<Core>, kind: ActorKind) {
    let core = Arc::clone(core);
    core.observer.observe(Telemetry::Alive { actor: kind.name() });
    ctx.run_interval(Duration::from_secs(1), move |_, _| {
        core.observer.observe(Telemetry::Alive { actor: kind.name() })
    });
}

/// An event on its way to the target.
#[derive(Debug)]
pub struct Pending {
    pub(crate) ticket: Ticket,
    pub(crate) row: OrderKey,
    pub(crate) event: Arc<Event>,
    pub(crate) attempts: u32,
    pub(crate) refused_since: Option<Instant>,
    /// The outcome of an attempt is not known: it may have been stored.
    pub(crate) unheard: bool,
}

/// A stored event on its way to its record and ack.
#[derive(Debug)]
pub(crate) struct Confirmed {
    pub(crate) pending: Pending,
    pub(crate) stored: Stored,
    pub(crate) since: Instant,
}

/// A delivery on its way to the dead letters.
#[derive(Debug)]
pub(crate) struct Buried {
    pub(crate) ticket: Ticket,
    pub(crate) table: Option<&'static str>,
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// Drop what was published before, pass on the rest.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Check(pub(crate) Vec<Pending>);

/// Publish these, in this order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Publish(pub(crate) Vec<Pending>);

/// Record these and acknowledge them.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct RecordStored(pub(crate) Vec<Confirmed>);

/// So many messages are unacknowledged at the source, over all replicas.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Unacknowledged(pub(crate) u64);

/// Whether others wait for suspects to run by themselves.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Apart(pub(crate) bool);

/// Store these as dead letters and acknowledge them.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Bury(pub(crate) Vec<Buried>);

/// The target and generation that records must name from now on.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct SetTarget {
    pub(crate) target: Target,
    pub(crate) generation: u64,
    /// The publisher's connection that it was looked at over.
    pub(crate) epoch: u64,
    /// The source's connection when the look began.
    pub(crate) source_epoch: u64,
}

impl SetTarget {
    /// Creation time and generation: what is known of one target says nothing of one that differs in either.
    pub(crate) fn identity(&self) -> (i64, u64) {
        (self.target.created, self.generation)
    }
}

/// The target may be another one by now: hold it against the records.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct LookAtTarget {
    /// When the stream that answers was created; unknown if nothing has answered yet.
    pub(crate) created: Option<i64>,
}

/// Give unpublished deliveries back to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub(crate) enum HandBack {
    /// A dependency has been away for long.
    Away,
    /// A change waits until nothing is in flight.
    Change,
    /// The process is about to end.
    Leaving,
}

impl HandBack {
    /// For the log.
    pub(crate) const fn why(self) -> &'static str {
        match self {
            Self::Away => "a dependency has been away for long",
            Self::Change => "a change of the configuration waits until nothing is in flight",
            Self::Leaving => "the service is leaving",
        }
    }
}

/// How a call of a dependency ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Report {
    pub(crate) dependency: Dependency,
    pub(crate) failure: Option<Failure>,
    pub(crate) tolerated: bool,
    pub(crate) evidence: Evidence,
}

/// Resume intake although this dependency has not been seen to work: only new work can tell.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct TryAgain(pub(crate) Dependency);

/// Pause or resume intake for a reason.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Intake {
    pub(crate) reason: PauseReason,
    pub(crate) paused: bool,
}

/// Stop pulling, settle what is in flight, and say when it is done.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Drain;

/// Everything is settled, and so much of it the server has heard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub(crate) struct Drained(pub(crate) Heard);
