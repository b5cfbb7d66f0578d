//! A dedup store that keeps text, as a real one does.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{Faults, ManualClock, lock};
use crate::message::{DeliveryId, EventKey, Record};
use crate::ports::{Checked, Clock, DedupStore, Failure, Reconciled, Target};

/// A dedup store that keeps encoded records until its clock says that they have expired.
#[derive(Debug)]
pub struct FakeDedupStore {
    /// Orders to fail: `check`, `record`, `highest`, `reconcile`, `markers`, `set_markers`, and `check key` and
    /// `record key` for single keys within a call.
    pub faults: Faults,
    clock: ManualClock,
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    highest: HashMap<i64, u64>,
    values: HashMap<EventKey, (String, Instant)>,
    suspects: HashMap<DeliveryId, u64>,
}

impl FakeDedupStore {
    /// An empty store of generation 1.
    pub fn new(clock: ManualClock, ttl: Duration) -> Self {
        let state = State { generation: 1, highest: HashMap::new(), values: HashMap::new(), suspects: HashMap::new() };
        Self { faults: Faults::default(), clock, ttl, state: Mutex::new(state) }
    }

    /// Puts any text where a record would be.
    pub fn plant(&self, key: &EventKey, text: &str) {
        let expires = self.clock.now() + self.ttl;
        lock(&self.state).values.insert(key.clone(), (text.to_owned(), expires));
    }

    /// Forgets every record and marker, as a flushed server does. The generation stays.
    pub fn flush(&self) {
        let mut state = lock(&self.state);
        state.values.clear();
        state.suspects.clear();
        state.highest.clear();
    }

    /// The record under `key`, if there is one that has not expired.
    pub fn get(&self, key: &EventKey) -> Option<Record> {
        let now = self.clock.now();
        let state = lock(&self.state);
        state.values.get(key).filter(|(_, expires)| *expires > now).and_then(|(text, _)| Record::decode(text))
    }

    /// A marker; 0 if there is none.
    pub fn marker(&self, suspect: DeliveryId) -> u64 {
        lock(&self.state).suspects.get(&suspect).copied().unwrap_or(0)
    }

    /// Sets a marker, as a process that died would have left it.
    pub fn mark(&self, suspect: DeliveryId, marker: u64) {
        lock(&self.state).suspects.insert(suspect, marker);
    }

    fn check_now(&self, keys: &[EventKey]) -> Result<Checked, Failure> {
        self.faults.enter("check")?;
        let generation = lock(&self.state).generation;
        let look = |key| self.faults.take("check key").map_or_else(|| Ok(self.get(key)), Err);
        Ok(Checked { generation, records: keys.iter().map(look).collect() })
    }

    fn record_now(&self, records: &[(EventKey, Record)]) -> Result<Vec<Result<(), Failure>>, Failure> {
        self.faults.enter("record")?;
        let results = records.iter().map(|(key, record)| {
            if let Some(failure) = self.faults.take("record key") {
                return Err(failure);
            }
            self.plant(key, &record.encode());
            let mut state = lock(&self.state);
            let highest = state.highest.entry(record.stream_created).or_insert(0);
            *highest = record.sequence.max(*highest);
            Ok(())
        });
        Ok(results.collect())
    }

    fn highest_now(&self, stream_created: i64) -> Result<u64, Failure> {
        self.faults.enter("highest")?;
        Ok(lock(&self.state).highest.get(&stream_created).copied().unwrap_or(0))
    }

    fn reconcile_now(&self, target: Target) -> Result<Reconciled, Failure> {
        self.faults.enter("reconcile")?;
        let mut state = lock(&self.state);
        let recorded = state.highest.get(&target.created).copied();
        let regressed_from = recorded.filter(|highest| target.last_sequence < *highest);
        if regressed_from.is_some() {
            state.generation += 1;
            state.highest.insert(target.created, target.last_sequence);
        }
        Ok(Reconciled { generation: state.generation, regressed_from })
    }

    fn markers_now(&self, suspects: &[DeliveryId]) -> Result<Vec<u64>, Failure> {
        self.faults.enter("markers")?;
        Ok(suspects.iter().map(|suspect| self.marker(*suspect)).collect())
    }

    fn set_markers_now(&self, markers: &[(DeliveryId, u64)]) -> Result<(), Failure> {
        self.faults.enter("set_markers")?;
        let mut state = lock(&self.state);
        state.suspects.extend(markers.iter().copied());
        state.suspects.retain(|_, marker| *marker > 0);
        Ok(())
    }
}

impl DedupStore for FakeDedupStore {
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>> {
        ready(self.check_now(&keys)).boxed()
    }

    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>> {
        ready(self.record_now(&records)).boxed()
    }

    fn highest(&self, stream_created: i64) -> BoxFuture<'_, Result<u64, Failure>> {
        ready(self.highest_now(stream_created)).boxed()
    }

    fn reconcile(&self, target: Target) -> BoxFuture<'_, Result<Reconciled, Failure>> {
        ready(self.reconcile_now(target)).boxed()
    }

    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>> {
        ready(self.markers_now(&suspects)).boxed()
    }

    fn set_markers(&self, markers: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>> {
        ready(self.set_markers_now(&markers)).boxed()
    }
}
