//! The ports of the fakes, which hold every acknowledgement against what is stored at that moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use cdc_actors::message::{Answer, Attempt, DeadLetter, Delivery, DeliveryId, EventKey, Record, Settle, Settlement};
use cdc_actors::ports::{
    Backlog, Budget, Checked, DeadLetters, DedupStore, Failure, Heard, Observer, PublishError, Publisher, Reconciled,
    Source, Target,
};
use cdc_actors::telemetry::Telemetry;
use cdc_actors::testkit::unavailable;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::{Fakes, lock};

/// What a watched port has seen, and what it is told to do.
#[derive(Default)]
pub struct Watch {
    pub(super) panics: Mutex<HashMap<&'static str, usize>>,
    pub(super) chaos: Mutex<Option<fastrand::Rng>>,
    /// What the target regresses to right after the next look at it.
    pub(super) regression: Mutex<Option<u64>>,
    /// What was pulled and not yet acknowledged or handed back.
    pub(super) outstanding: Mutex<HashMap<DeliveryId, usize>>,
    pub(super) most: Mutex<(usize, usize)>,
    /// Acknowledgements that came too early.
    pub(super) violations: Mutex<Vec<String>>,
    pub(super) acks_without_record: Mutex<usize>,
    pub(super) pulls: Mutex<usize>,
    /// The most times that one call said of one delivery that it is being worked on.
    most_alike: Mutex<usize>,
    /// Operations that are not answered.
    held: watch::Sender<BTreeSet<&'static str>>,
    /// Pulls under way.
    pulling: Mutex<usize>,
}

/// A pull under way.
struct Pulling<'a>(&'a Watch);

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        *lock(&self.0.pulling) -= 1;
    }
}

impl Watch {
    /// The next `times` calls of `operation` panic.
    pub fn panic_next(&self, operation: &'static str, times: usize) {
        lock(&self.panics).insert(operation, times);
    }

    /// From now on `operation` (`set_markers`, `backlog`) is not answered, until [`Self::release`].
    pub fn hold(&self, operation: &'static str) {
        self.held.send_modify(|held| {
            held.insert(operation);
        });
    }

    /// Takes [`Self::hold`] back.
    pub fn release(&self, operation: &'static str) {
        self.held.send_modify(|held| {
            held.remove(operation);
        });
    }

    async fn released(&self, operation: &'static str) {
        // An error would mean that the watch is gone, and with it whoever waits here.
        drop(self.held.subscribe().wait_for(|held| !held.contains(operation)).await);
    }

    /// One pull at a time: what a second one brings was budgeted for the first.
    fn begin_pull(&self) -> Pulling<'_> {
        *lock(&self.pulls) += 1;
        *lock(&self.pulling) += 1;
        if *lock(&self.pulling) > 1 {
            lock(&self.violations).push("a pull beside another".to_owned());
        }
        Pulling(self)
    }

    /// From now on every publish ends at random: stored, refused, unanswered but stored, unanswered and not stored.
    pub fn chaos(&self, seed: Option<u64>) {
        *lock(&self.chaos) = seed.map(fastrand::Rng::with_seed);
    }

    /// The next look at the target is answered; then its server comes back with no more than `sequence`, over a new connection.
    pub fn regress_after_look(&self, sequence: u64) {
        *lock(&self.regression) = Some(sequence);
    }

    /// Whether that has happened.
    pub fn has_regressed(&self) -> bool {
        lock(&self.regression).is_none()
    }

    /// The most messages and bytes that were out at once.
    pub fn most_outstanding(&self) -> (usize, usize) {
        *lock(&self.most)
    }

    /// Messages that are out now.
    pub fn outstanding(&self) -> usize {
        lock(&self.outstanding).len()
    }

    /// Acknowledgements of events that had no record.
    pub fn acks_without_record(&self) -> usize {
        *lock(&self.acks_without_record)
    }

    /// The most times that one call said of one delivery that it is being worked on.
    pub fn most_alike(&self) -> usize {
        *lock(&self.most_alike)
    }

    fn count_alike(&self, settlements: &[Settlement]) {
        let mut alike: HashMap<DeliveryId, usize> = HashMap::new();
        for Settlement { receipt, .. } in settlements.iter().filter(|s| s.settle == Settle::InProgress) {
            *alike.entry(receipt.id).or_default() += 1;
        }
        let mut most = lock(&self.most_alike);
        *most = alike.into_values().max().unwrap_or_default().max(*most);
    }

    /// Pulls that were begun.
    pub fn pulls(&self) -> usize {
        *lock(&self.pulls)
    }

    fn enter(&self, operation: &'static str) {
        let panics = lock(&self.panics).get_mut(operation).is_some_and(|left| {
            let any = *left > 0;
            *left = left.saturating_sub(1);
            any
        });
        assert!(!panics, "told to panic in {operation}");
    }
}

/// The ports of the fakes, watched.
pub struct Watched(pub Fakes);

impl Source for Watched {
    fn pull(&self, budget: Budget) -> BoxFuture<'_, Result<Vec<Delivery>, Failure>> {
        async move {
            let _under_way = self.0.watch.begin_pull();
            self.0.watch.enter("pull");
            let deliveries = self.0.source.pull(budget).await?;
            self.0.pulled(&deliveries);
            Ok(deliveries)
        }
        .boxed()
    }

    fn settle(&self, settlements: Vec<Settlement>) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.0.watch.enter("settle");
            self.0.watch.count_alike(&settlements);
            // What fails is held against nothing: it does not reach the source.
            let result = self.0.source.settle(settlements.clone()).await;
            if result.is_ok() {
                self.0.settled(&settlements);
            }
            result
        }
        .boxed()
    }

    fn stop(&self) -> BoxFuture<'_, Vec<Delivery>> {
        self.0.source.stop()
    }

    fn confirm_settled(&self) -> BoxFuture<'_, Result<Heard, Failure>> {
        self.0.source.confirm_settled()
    }

    fn backlog(&self) -> BoxFuture<'_, Result<Backlog, Failure>> {
        async move {
            self.0.watch.released("backlog").await;
            self.0.source.backlog().await
        }
        .boxed()
    }

    /// Each has a connection of its own, as in the service. What breaks the publisher's, a restart of the server, breaks this one.
    fn connection_epoch(&self) -> u64 {
        self.0.source.connection_epoch() + self.0.publisher.connection_epoch()
    }
}

impl DedupStore for Watched {
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>> {
        async move {
            // The supervisor checks nothing but the generation, which ends its look; its death is another matter.
            if !keys.is_empty() {
                self.0.watch.enter("check");
            } else if let Some(sequence) = lock(&self.0.watch.regression).take() {
                self.0.publisher.regress_to(sequence);
                self.0.publisher.reconnect();
            }
            self.0.dedup.check(keys).await
        }
        .boxed()
    }

    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>> {
        async move {
            self.0.watch.enter("record");
            self.0.dedup.record(records).await
        }
        .boxed()
    }

    fn highest(&self, stream_created: i64) -> BoxFuture<'_, Result<u64, Failure>> {
        self.0.dedup.highest(stream_created)
    }

    fn reconcile(&self, target: Target) -> BoxFuture<'_, Result<Reconciled, Failure>> {
        self.0.dedup.reconcile(target)
    }

    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>> {
        self.0.dedup.markers(suspects)
    }

    fn set_markers(&self, markers: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.0.watch.released("set_markers").await;
            self.0.dedup.set_markers(markers).await
        }
        .boxed()
    }
}

impl Publisher for Watched {
    fn publish(&self, batch: Vec<Attempt>, answers: UnboundedSender<Answer>) -> BoxFuture<'_, ()> {
        async move {
            self.0.watch.enter("publish");
            for attempt in batch {
                let ticket = attempt.ticket;
                let dice = lock(&self.0.watch.chaos).as_mut().map_or(9, |rng| rng.u8(0..10));
                let outcome = match dice {
                    0 | 1 => Err(PublishError::Rejected(unavailable())),
                    2 => Err(PublishError::Unknown(unavailable())),
                    3 => {
                        let (swallowed, _) = tokio::sync::mpsc::unbounded_channel();
                        self.0.publisher.publish(vec![attempt], swallowed).await;
                        Err(PublishError::Unknown(unavailable()))
                    }
                    _ => {
                        self.0.publisher.publish(vec![attempt], answers.clone()).await;
                        continue;
                    }
                };
                // Whoever asked may be gone by now.
                drop(answers.send(Answer { ticket, outcome }));
            }
        }
        .boxed()
    }

    fn target(&self) -> BoxFuture<'_, Result<Target, Failure>> {
        async move {
            self.0.watch.enter("target");
            self.0.publisher.target().await
        }
        .boxed()
    }

    fn connection_epoch(&self) -> u64 {
        self.0.publisher.connection_epoch()
    }
}

impl DeadLetters for Watched {
    fn store(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.0.watch.enter("store");
            self.0.dead_letters.store(letter).await
        }
        .boxed()
    }
}

impl Observer for Watched {
    fn observe(&self, event: Telemetry<'_>) {
        if matches!(event, Telemetry::UnhandledField { .. }) {
            self.0.watch.enter("remark");
        }
        self.0.observer.observe(event);
    }
}
