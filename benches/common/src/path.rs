//! The whole way of an event inside the process: the real actors, transform and metrics, on ports that answer at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdc_actors::guard::GuardSettings;
use cdc_actors::message::{
    Answer, Attempt, DeadLetter, Delivery, DeliveryId, EventKey, Record, Settle, Settlement, Stored,
};
use cdc_actors::pipeline::{self, Pipeline, Ports};
use cdc_actors::ports::{
    Backlog, Budget, Checked, DeadLetters, DedupStore, Failure, FailureClass, Heard, PublishError, Publisher,
    Reconciled, Source, SystemClock, Target,
};
use cdc_actors::retry::Backoff;
use cdc_actors::shared::Settings;
use daisi_cdc_consumer::adapters::telemetry::Telemetry;
use daisi_cdc_consumer::bootstrap::settings;
use daisi_cdc_consumer::config::Config;
use daisi_cdc_consumer::domain::{CdcTransform, TransformConfig};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use slog::{Discard, Logger, o};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

/// Deliveries in one pull.
pub const BATCH: usize = 500;
const TARGET: Target = Target { created: 1, last_sequence: 0 };
const GENERATION: u64 = 1;

/// What the ports do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Every event is new and stored.
    Happy,
    /// Every event was published before.
    Duplicate,
    /// The dedup store fails, and events go out without it (`dedup.when_unavailable: bypass`).
    DedupStoreError,
    /// Every event is refused once.
    PublishError,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(action: &'static str, class: FailureClass) -> Failure {
    Failure::new(action, class, "told to")
}

/// Gives what it was given, and counts acknowledgements.
#[derive(Default)]
struct FeedSource {
    waiting: Mutex<VecDeque<Delivery>>,
    arrived: Notify,
    outstanding: AtomicI64,
    settled: Notify,
}

impl FeedSource {
    fn take(&self, budget: Budget) -> Vec<Delivery> {
        let mut waiting = lock(&self.waiting);
        let count = waiting.len().min(budget.messages).min(BATCH);
        waiting.drain(..count).collect()
    }
}

impl Source for FeedSource {
    fn pull(&self, budget: Budget) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        async move {
            loop {
                let pulled = self.take(budget);
                if !pulled.is_empty() {
                    return Ok(pulled);
                }
                self.arrived.notified().await;
            }
        }
        .boxed()
    }

    fn settle(&self, settlements: Vec<Settlement>) -> BoxFuture<'_, Result<(), Failure>> {
        let acks = settlements.iter().filter(|settlement| settlement.settle == Settle::Ack).count();
        let acks = i64::try_from(acks).unwrap();
        if self.outstanding.fetch_sub(acks, Ordering::Relaxed) <= acks {
            self.settled.notify_one();
        }
        ready(Ok(())).boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Vec<Delivery>> {
        ready(Vec::new()).boxed()
    }

    fn confirm_settled(&self) -> BoxFuture<'_, Result<Heard, Failure>> {
        ready(Ok(Heard::All)).boxed()
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, Failure>> {
        ready(Ok(Backlog::default())).boxed()
    }
}

/// Knows all, nothing, or fails.
struct StubDedup(Case);

impl DedupStore for StubDedup {
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>> {
        let known = Record { stream_created: TARGET.created, generation: GENERATION, sequence: 1 };
        let found = (self.0 == Case::Duplicate).then_some(known);
        ready(match self.0 {
            Case::DedupStoreError => Err(failure("check", FailureClass::Unavailable)),
            _ => Ok(Checked { generation: GENERATION, records: keys.iter().map(|_| Ok(found)).collect() }),
        })
        .boxed()
    }

    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>> {
        ready(match self.0 {
            Case::DedupStoreError => Err(failure("record", FailureClass::Unavailable)),
            _ => Ok(records.iter().map(|_| Ok(())).collect()),
        })
        .boxed()
    }

    fn highest(&self, _: i64) -> BoxFuture<'_, Result<u64, Failure>> {
        ready(Ok(0)).boxed()
    }

    fn reconcile(&self, _: Target) -> BoxFuture<'_, Result<Reconciled, Failure>> {
        ready(Ok(Reconciled { generation: GENERATION, regressed_from: None })).boxed()
    }

    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>> {
        ready(Ok(vec![0; suspects.len()])).boxed()
    }

    fn set_markers(&self, _: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }
}

/// Stores nothing and says so of nothing.
struct StubPublisher {
    case: Case,
    sequence: AtomicU64,
    /// Tickets below were refused before.
    refused: AtomicU64,
}

impl Publisher for StubPublisher {
    fn publish(&self, batch: Vec<Attempt>, answers: UnboundedSender<Answer>) -> BoxFuture<'_, ()> {
        for Attempt { ticket, .. } in batch {
            let refuse = self.case == Case::PublishError && ticket >= self.refused.load(Ordering::Relaxed);
            let outcome = if refuse {
                self.refused.store(ticket + 1, Ordering::Relaxed);
                // Denied concerns a subject: the target itself is well.
                Err(PublishError::Rejected(failure("publish", FailureClass::Denied)))
            } else {
                let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
                Ok(Stored { stream_created: TARGET.created, sequence, duplicate: false })
            };
            let _ = answers.send(Answer { ticket, outcome });
        }
        ready(()).boxed()
    }

    fn target(&self) -> BoxFuture<'_, Result<Target, Failure>> {
        ready(Ok(TARGET)).boxed()
    }

    fn connection_epoch(&self) -> u64 {
        0
    }
}

struct StubDeadLetters;

impl DeadLetters for StubDeadLetters {
    fn store(&self, _: DeadLetter) -> BoxFuture<'_, Result<(), Failure>> {
        ready(Ok(())).boxed()
    }
}

/// Those of the service by default, but for one worker, and for waiting and giving up, of which there is nothing here.
fn settings(case: Case) -> Settings {
    let long = Duration::from_secs(3_600);
    let usual = settings::pipeline(&Config::load(None, []).expect("the defaults are valid"), 1 << 20);
    // A row is refused at most once at a time: events behind a refused one may be handed back, and nobody brings them here.
    let messages = if case == Case::PublishError { BATCH } else { usual.in_flight.messages };
    Settings {
        workers: 1,
        threads: 1,
        batch: BATCH,
        in_flight: Budget { messages, ..usual.in_flight },
        max_ack_pending: 1_000_000,
        ack_wait: long,
        bypass_dedup: case == Case::DedupStoreError,
        backoff: Backoff { initial: Duration::ZERO, max: Duration::ZERO },
        refused_for: long,
        guard: GuardSettings { max_consecutive_failures: u64::MAX, min_duration: long, max_duration: long },
        ..usual
    }
}

/// A running pipeline on ports that answer at once.
pub struct Path {
    source: Arc<FeedSource>,
    pipeline: Pipeline,
}

impl Path {
    /// Starts it, within an actix system.
    pub fn start(case: Case) -> Self {
        let source = Arc::new(FeedSource::default());
        let clock = Arc::new(SystemClock);
        let ports = Ports {
            source: source.clone(),
            transform: Arc::new(CdcTransform::new(TransformConfig::default())),
            dedup: Arc::new(StubDedup(case)),
            publisher: Arc::new(StubPublisher { case, sequence: AtomicU64::new(1), refused: AtomicU64::new(0) }),
            dead_letters: Arc::new(StubDeadLetters),
            observer: Arc::new(Telemetry::new(
                Logger::root(Discard, o!()),
                clock.clone(),
                &["messages", "chats", "agents"],
            )),
            clock,
        };
        Self { source, pipeline: pipeline::start(ports, settings(case)) }
    }

    /// Gives the deliveries to the pipeline and waits until all of them are acknowledged. Returns how long that took.
    pub async fn pass(&self, deliveries: VecDeque<Delivery>) -> Duration {
        let count = i64::try_from(deliveries.len()).unwrap();
        let begun = Instant::now();
        self.source.outstanding.store(count, Ordering::Relaxed);
        *lock(&self.source.waiting) = deliveries;
        self.source.arrived.notify_one();
        self.source.settled.notified().await;
        begun.elapsed()
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.pipeline.shutdown();
        self.pipeline.ended().await;
    }
}
