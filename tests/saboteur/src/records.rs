//! The dedup store, sabotaged.

use std::sync::Arc;

use cdc_actors::message::{EventKey, Record};
use cdc_actors::ports::{Checked, DedupStore, Failure, Publisher, Reconciled, Target};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};

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
        let counts = try_join_all(keys.iter().map(|key| self.inner.mark(key.to_string()))).await?;
        let mut checked = self.inner.check(keys).await?;
        for (record, count) in checked.records.iter_mut().zip(counts) {
            *record = Ok(if count > 1 { self.valid(checked.generation).await? } else { None });
        }
        Ok(checked)
    }

    /// A record that nobody doubts.
    async fn valid(&self, generation: u64) -> Result<Option<Record>, Failure> {
        let stream_created = self.publisher.target().await?.created;
        Ok(Some(Record { stream_created, generation, sequence: 0 }))
    }
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

    fn mark(&self, suspect: String) -> BoxFuture<'_, Result<u64, Failure>> {
        self.inner.mark(suspect)
    }

    fn unmark(&self, suspect: String) -> BoxFuture<'_, Result<(), Failure>> {
        self.inner.unmark(suspect)
    }
}
