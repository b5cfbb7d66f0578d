//! Dedup records in this process's memory: for one replica and for the demo. A restart forgets them, which costs duplicates beyond the
//! target's own window, never events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdc_actors::message::{DeliveryId, EventKey, Record};
use cdc_actors::ports::{Checked, Clock, DedupStore, Failure, Reconciled, SystemClock, Target};
use foldhash::{HashMap, HashMapExt};
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

/// How long a suspect's marker is kept.
const SUSPECT_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Dedup records in memory, bounded in age and number.
pub struct MemoryStore {
    ttl: Duration,
    max_entries: usize,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    generation: u64,
    /// Stream created -> highest sequence recorded.
    highest: HashMap<i64, u64>,
    records: HashMap<EventKey, Kept>,
    /// Keys in the order they were recorded: the oldest is the first to expire and the first to be evicted. One that was recorded
    /// again stands here twice until its older place is reached.
    by_age: VecDeque<(u64, EventKey)>,
    next_age: u64,
    /// Suspect -> marker and when it is forgotten.
    suspects: HashMap<DeliveryId, (u64, Instant)>,
}

struct Kept {
    record: Record,
    expires: Instant,
    age: u64,
}

impl MemoryStore {
    /// Keeps each record for `ttl`, and the `max_entries` newest (at least one).
    pub fn new(ttl: Duration, max_entries: usize) -> Self {
        Self::with_clock(ttl, max_entries, Arc::new(SystemClock))
    }

    /// The same, with a clock of the caller's.
    pub fn with_clock(ttl: Duration, max_entries: usize, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            generation: micros(clock.as_ref()),
            highest: HashMap::new(),
            records: HashMap::new(),
            by_age: VecDeque::new(),
            next_age: 0,
            suspects: HashMap::new(),
        };
        Self { ttl, max_entries: max_entries.max(1), clock, state: Mutex::new(state) }
    }

    /// Records kept now, expired ones that were not looked at since included.
    pub fn len(&self) -> usize {
        self.state().records.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic elsewhere leaves the maps whole: no method stops half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_now(&self, keys: &[EventKey]) -> Checked {
        let now = self.clock.now();
        let state = self.state();
        let find = |key| state.records.get(key).filter(|kept| kept.expires > now).map(|kept| kept.record);
        Checked { generation: state.generation, records: keys.iter().map(|key| Ok(find(key))).collect() }
    }

    fn record_now(&self, records: Vec<(EventKey, Record)>) -> Vec<Result<(), Failure>> {
        let now = self.clock.now();
        let mut state = self.state();
        let results = records.iter().map(|_| Ok(())).collect();
        for (key, record) in records {
            state.keep(key, record, now + self.ttl);
        }
        state.evict(now, self.max_entries);
        results
    }

    fn reconcile_now(&self, target: Target) -> Reconciled {
        let now = micros(self.clock.as_ref());
        let mut state = self.state();
        let recorded = state.highest.get(&target.created).copied();
        let regressed_from = recorded.filter(|highest| target.last_sequence < *highest);
        if regressed_from.is_some() {
            state.generation = now.max(state.generation + 1);
            state.highest.insert(target.created, target.last_sequence);
        }
        Reconciled { generation: state.generation, regressed_from }
    }

    fn markers_now(&self, suspects: &[DeliveryId]) -> Vec<u64> {
        let now = self.clock.now();
        let state = self.state();
        let find =
            |suspect| state.suspects.get(suspect).filter(|(_, expires)| *expires > now).map(|(marker, _)| *marker);
        suspects.iter().map(|suspect| find(suspect).unwrap_or(0)).collect()
    }

    fn set_markers_now(&self, markers: Vec<(DeliveryId, u64)>) {
        let now = self.clock.now();
        let mut state = self.state();
        state.suspects.extend(markers.into_iter().map(|(suspect, marker)| (suspect, (marker, now + SUSPECT_TTL))));
        state.suspects.retain(|_, (marker, expires)| *marker > 0 && *expires > now);
    }
}

impl State {
    fn keep(&mut self, key: EventKey, record: Record, expires: Instant) {
        let highest = self.highest.entry(record.stream_created).or_insert(0);
        *highest = record.sequence.max(*highest);
        let age = self.next_age;
        self.next_age += 1;
        // A key shares the memory of its event, which must not be kept as long as the record.
        let key = key.detached();
        self.by_age.push_back((age, key.clone()));
        self.records.insert(key, Kept { record, expires, age });
    }

    /// Forgets what has expired and, beyond `max_entries`, the oldest.
    fn evict(&mut self, now: Instant, max_entries: usize) {
        while let Some((age, key)) = self.by_age.front() {
            let kept = self.records.get(key).filter(|kept| kept.age == *age);
            let crowded = self.records.len() > max_entries || self.by_age.len() / 2 > max_entries;
            if kept.is_some_and(|kept| kept.expires > now) && !crowded {
                break;
            }
            if kept.is_some() {
                self.records.remove(key);
            }
            self.by_age.pop_front();
        }
    }
}

fn micros(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.unix_nanos() / 1_000).unwrap_or_default()
}

impl DedupStore for MemoryStore {
    fn check(&self, keys: Vec<EventKey>) -> BoxFuture<'_, Result<Checked, Failure>> {
        ready(Ok(self.check_now(&keys))).boxed()
    }

    fn record(&self, records: Vec<(EventKey, Record)>) -> BoxFuture<'_, Result<Vec<Result<(), Failure>>, Failure>> {
        ready(Ok(self.record_now(records))).boxed()
    }

    fn highest(&self, stream_created: i64) -> BoxFuture<'_, Result<u64, Failure>> {
        ready(Ok(self.state().highest.get(&stream_created).copied().unwrap_or(0))).boxed()
    }

    fn reconcile(&self, target: Target) -> BoxFuture<'_, Result<Reconciled, Failure>> {
        ready(Ok(self.reconcile_now(target))).boxed()
    }

    fn markers(&self, suspects: Vec<DeliveryId>) -> BoxFuture<'_, Result<Vec<u64>, Failure>> {
        ready(Ok(self.markers_now(&suspects))).boxed()
    }

    fn set_markers(&self, markers: Vec<(DeliveryId, u64)>) -> BoxFuture<'_, Result<(), Failure>> {
        self.set_markers_now(markers);
        ready(Ok(())).boxed()
    }
}
