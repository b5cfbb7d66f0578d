//! The dedup store, sabotaged.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use cdc_actors::message::{DeliveryId, EventKey, Record};
use cdc_actors::ports::{Checked, DedupStore, Failure, Publisher, Reconciled, Target};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::defences::Sabotage;

/// Puts the saboteur before the store.
pub fn sabotaged(
    sabotage: &Sabotage,
    inner: Arc<dyn DedupStore>,
    publisher: Arc<dyn Publisher>,
) -> Arc<dyn DedupStore> {
    let (mark_first, none, plain) =
        (sabotage.has("mark-first"), sabotage.has("no-records"), sabotage.has("plain-records"));
    Arc::new(Untrue { inner, publisher, mark_first, none, plain })
}

struct Untrue {
    inner: Arc<dyn DedupStore>,
    publisher: Arc<dyn Publisher>,
    mark_first: bool,
    none: bool,
    plain: bool,
}

impl Untrue {
    /// SETNX of every key, and then the check: whoever was first may publish, everybody else takes it for published.
    async fn mark(&self, keys: Vec<EventKey>) -> Result<Checked, Failure> {
        let marks: Vec<DeliveryId> = keys.iter().map(mark_of).collect();
        let before = self.inner.markers(marks.clone()).await?;
        self.inner.set_markers(marks.into_iter().map(|mark| (mark, 1)).collect()).await?;
        let mut checked = self.inner.check(keys).await?;
        for (record, before) in checked.records.iter_mut().zip(before) {
            *record = Ok(if before > 0 { self.valid(checked.generation).await? } else { None });
        }
        Ok(checked)
    }

    /// A record that nobody doubts.
    async fn valid(&self, generation: u64) -> Result<Option<Record>, Failure> {
        let stream_created = self.publisher.target().await?.created;
        Ok(Some(Record { stream_created, generation, sequence: 0 }))
    }
}

/// A name for the mark of an event, of the kind that the store keeps marks under.
fn mark_of(key: &EventKey) -> DeliveryId {
    let mut hasher = DefaultHasher::new();
    key.as_str().hash(&mut hasher);
    DeliveryId { stream_created: 0, sequence: hasher.finish(), timestamp: 0 }
}

impl DedupStore for Untrue {
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>> {
        async move {
            if self.mark_first {
                return self.mark(keys).await;
            }
            let mut checked = self.inner.check(keys).await?;
            for record in &mut checked.records {
                match record {
                    Ok(found) if self.none => *found = None,
                    Ok(found) if self.plain && found.is_some() => *found = self.valid(checked.generation).await?,
                    _ => {}
                }
            }
            Ok(checked)
        }
        .boxed()
    }

    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>> {
        self.inner.record(records)
    }

    fn highest(&self, stream_created: i64) -> BoxFuture<'_, Result<u64, Failure>> {
        self.inner.highest(stream_created)
    }

    fn reconcile(&self, target: Target) -> BoxFuture<'_, Result<Reconciled, Failure>> {
        self.inner.reconcile(target)
    }

    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>> {
        self.inner.markers(suspects)
    }

    fn set_markers(&self, markers: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>> {
        self.inner.set_markers(markers)
    }
}
