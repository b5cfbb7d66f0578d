//! Every metric of the service, resolved once. Nothing global: the recorder belongs to whoever made it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cdc_actors::message::{Late, Reason};
use cdc_actors::ports::{Dependency, Stall};
use cdc_actors::telemetry::{Outcome, PauseReason};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// What a label is when it is none of the names it may be.
pub(super) const OTHER: &str = "other";
/// Names of unknown fields that get a series of their own, per table.
pub(super) const FIELD_NAMES: usize = 50;
/// Longer names of fields, in bytes, do not get a series: no column of PostgreSQL is called so.
const FIELD_NAME_LEN: usize = 63;

const PROCESSING: &str = "cdc_consumer_processing_seconds";
const COMMIT: &str = "cdc_consumer_commit_to_publish_seconds";
const CALLS: &str = "cdc_consumer_dependency_call_seconds";
/// From 100 µs to 60 s.
const SHORT: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From 1 ms to a day: what was committed before an outage is published after it.
const LONG: [f64; 17] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0,
];
const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Every reason for a pause, for a series each.
const PAUSES: [PauseReason; 8] = [
    PauseReason::Dependency(Dependency::Source),
    PauseReason::Dependency(Dependency::Target),
    PauseReason::Dependency(Dependency::DeadLetter),
    PauseReason::Dependency(Dependency::Dedup),
    PauseReason::Reconcile,
    PauseReason::Suspect,
    PauseReason::Reload,
    PauseReason::Shutdown,
];

/// One thing per table. Tables can be added while it is in use; none is taken away, since counters must not vanish.
pub(super) struct PerTable<T> {
    make: fn(&Register<'_>, &'static str) -> T,
    first: Link<T>,
    others: T,
}

/// Tables that came together, and those that came later: found without a lock.
struct Link<T> {
    tables: Vec<(&'static str, T)>,
    later: OnceLock<Box<Self>>,
}

impl<T> Link<T> {
    fn of(&self, table: &str) -> Option<&T> {
        let own = self.tables.iter().find(|(known, _)| *known == table).map(|(_, own)| own);
        own.or_else(|| self.later.get()?.of(table))
    }

    fn last(&self) -> &Self {
        self.later.get().map_or(self, |later| later.last())
    }
}

impl<T> PerTable<T> {
    fn new(r: &Register<'_>, tables: &[&'static str], make: fn(&Register<'_>, &'static str) -> T) -> Self {
        let first = tables.iter().map(|table| (*table, make(r, table))).collect();
        Self { first: Link { tables: first, later: OnceLock::new() }, others: make(r, OTHER), make }
    }

    fn add(&self, r: &Register<'_>, tables: &[&'static str]) {
        let new = tables.iter().filter(|table| self.first.of(table).is_none());
        let tables: Vec<_> = new.map(|table| (*table, (self.make)(r, table))).collect();
        if !tables.is_empty() {
            self.first.last().later.get_or_init(|| Box::new(Link { tables, later: OnceLock::new() }));
        }
    }

    /// That of a configured table, else that of the rest.
    pub(super) fn of(&self, table: Option<&str>) -> &T {
        table.and_then(|table| self.first.of(table)).unwrap_or(&self.others)
    }
}

/// A small map from the values of an enum to what belongs to them.
pub(super) struct By<K, T>(Vec<(K, T)>);

impl<K: Copy + PartialEq, T> By<K, T> {
    fn new(keys: &[K], mut make: impl FnMut(K) -> T) -> Self {
        Self(keys.iter().map(|key| (*key, make(*key))).collect())
    }

    /// `None` only for a value that was added to the enum and not to the list of all values.
    pub(super) fn of(&self, key: K) -> Option<&T> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }
}

const RELOADS: &str = "cdc_consumer_config_reloads_total";
const RESTARTS: &str = "cdc_consumer_actor_restarts_total";
/// The actors that are built again when they die.
const ACTORS: [&str; 4] = ["ingest", "transform", "dedup", "publish"];

/// Every metric.
pub(super) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    pub events: PerTable<By<Outcome, Counter>>,
    pub processing: PerTable<Histogram>,
    pub commit_to_publish: PerTable<Histogram>,
    pub redelivered: PerTable<Counter>,
    pub target_duplicates: PerTable<Counter>,
    pub late: PerTable<By<Late, Counter>>,
    pub dead_letters: PerTable<By<Reason, Counter>>,
    /// Waiting messages and lag: unknown until the source has told them, and no figure is better than a wrong one.
    backlog: OnceLock<[Gauge; 2]>,
    pub in_flight: Gauge,
    pub in_flight_bytes: Gauge,
    pub hits: Counter,
    pub misses: Counter,
    pub publish_errors: Counter,
    pub dedup_errors: Counter,
    pub dedup_bypassed: Counter,
    pub dedup_unrecorded: Counter,
    pub subject_mismatch: Counter,
    pub target_regressions: Counter,
    pub source_stalls: By<Stall, Counter>,
    pub nats_reconnects: Counter,
    pub reloads_applied: Counter,
    pub reloads_refused: Counter,
    pub consecutive_failures: By<Dependency, Gauge>,
    pub dependency_up: By<Dependency, Gauge>,
    pub start_time: Gauge,
    pub paused: By<PauseReason, Gauge>,
    calls: Mutex<HashMap<(Dependency, &'static str), Histogram>>,
    restarts: Mutex<HashMap<&'static str, Counter>>,
}

impl Metrics {
    /// Registers every series whose labels are known, at zero; `tables` are those of the configuration.
    pub(super) fn new(tables: &[&'static str]) -> Self {
        let buckets: [(&str, &[f64]); 3] = [(PROCESSING, &SHORT), (CALLS, &SHORT), (COMMIT, &LONG)];
        let builder = buckets.into_iter().fold(PrometheusBuilder::new(), |builder, (name, buckets)| {
            let named = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets);
            named.expect("only an empty list is refused, and these constants are not empty")
        });
        let recorder = builder.build_recorder();
        describe(&recorder);
        let r = Register(&recorder);
        let dependency = |name: &'static str, start: f64| {
            By::new(&Dependency::ALL, |d| {
                let gauge = r.gauge(name, &[("dependency", d.name())]);
                gauge.set(start);
                gauge
            })
        };
        Self {
            handle: recorder.handle(),
            events: PerTable::new(&r, tables, |r, table| {
                By::new(&Outcome::ALL, |outcome| {
                    r.counter("cdc_consumer_events_total", &[("table", table), ("result", outcome.name())])
                })
            }),
            processing: PerTable::new(&r, tables, |r, table| r.histogram(PROCESSING, &[("table", table)])),
            commit_to_publish: PerTable::new(&r, tables, |r, table| r.histogram(COMMIT, &[("table", table)])),
            redelivered: PerTable::new(&r, tables, |r, table| {
                r.counter("cdc_consumer_redelivered_total", &[("table", table)])
            }),
            target_duplicates: PerTable::new(&r, tables, |r, table| {
                r.counter("cdc_consumer_target_duplicates_total", &[("table", table)])
            }),
            late: PerTable::new(&r, tables, |r, table| {
                By::new(&[Late::True, Late::Unknown], |certainty| {
                    r.counter("cdc_consumer_late_total", &[("table", table), ("certainty", certainty.name())])
                })
            }),
            dead_letters: PerTable::new(&r, tables, |r, table| {
                By::new(Reason::ALL, |reason| {
                    r.counter("cdc_consumer_dead_letters_total", &[("table", table), ("reason", reason.name())])
                })
            }),
            backlog: OnceLock::new(),
            in_flight: r.gauge("cdc_consumer_in_flight", &[]),
            in_flight_bytes: r.gauge("cdc_consumer_in_flight_bytes", &[]),
            hits: r.counter("cdc_consumer_redis_hit_total", &[("status", "hit")]),
            misses: r.counter("cdc_consumer_redis_hit_total", &[("status", "miss")]),
            publish_errors: r.counter("cdc_consumer_publish_errors_total", &[]),
            dedup_errors: r.counter("cdc_consumer_dedup_errors_total", &[]),
            dedup_bypassed: r.counter("cdc_consumer_dedup_bypassed_total", &[]),
            dedup_unrecorded: r.counter("cdc_consumer_dedup_unrecorded_total", &[]),
            subject_mismatch: r.counter("cdc_consumer_subject_mismatch_total", &[]),
            target_regressions: r.counter("cdc_consumer_target_regressions_total", &[]),
            source_stalls: By::new(&Stall::ALL, |stall| {
                r.counter("cdc_consumer_source_stalls_total", &[("kind", stall.name())])
            }),
            nats_reconnects: r.counter("cdc_consumer_nats_reconnects_total", &[]),
            reloads_applied: r.counter(RELOADS, &[("result", "applied")]),
            reloads_refused: r.counter(RELOADS, &[("result", "refused")]),
            consecutive_failures: dependency("cdc_consumer_consecutive_failures", 0.0),
            dependency_up: dependency("cdc_consumer_dependency_up", 1.0),
            start_time: r.gauge("cdc_consumer_start_time_seconds", &[]),
            paused: By::new(&PAUSES, |reason| r.gauge("cdc_consumer_paused", &[("reason", reason.name())])),
            calls: Mutex::default(),
            restarts: Mutex::new(ACTORS.map(|a| (a, r.counter(RESTARTS, &[("actor", a)]))).into()),
            recorder,
        }
    }

    /// How many messages wait, and the lag.
    pub(super) fn backlog(&self) -> &[Gauge; 2] {
        let gauge = |name| Register(&self.recorder).gauge(name, &[]);
        self.backlog.get_or_init(|| ["cdc_consumer_pending", "cdc_consumer_lag_seconds"].map(gauge))
    }

    /// Registers the series of tables that are new.
    pub(super) fn add_tables(&self, tables: &[&'static str]) {
        let r = Register(&self.recorder);
        self.events.add(&r, tables);
        self.processing.add(&r, tables);
        self.commit_to_publish.add(&r, tables);
        self.redelivered.add(&r, tables);
        self.target_duplicates.add(&r, tables);
        self.late.add(&r, tables);
        self.dead_letters.add(&r, tables);
    }

    /// How long calls of an operation take. The operations are known to the actors alone, so the first call makes the series.
    pub(super) fn call(&self, dependency: Dependency, operation: &'static str) -> Histogram {
        let make =
            || Register(&self.recorder).histogram(CALLS, &[("dependency", dependency.name()), ("op", operation)]);
        lock(&self.calls).entry((dependency, operation)).or_insert_with(make).clone()
    }

    /// How often an actor was built again.
    pub(super) fn restarts(&self, actor: &'static str) -> Counter {
        let make = || Register(&self.recorder).counter(RESTARTS, &[("actor", actor)]);
        lock(&self.restarts).entry(actor).or_insert_with(make).clone()
    }

    /// How often a field was met that the typed row does not know.
    pub(super) fn unhandled_field(&self, table: &'static str, field: &str) -> Counter {
        let labels = vec![Label::from_static_parts("table", table), Label::new("field_name", field.to_owned())];
        let key = Key::from_parts("cdc_consumer_unhandled_fields_total", labels);
        self.recorder.register_counter(&key, &METADATA)
    }

    /// The Prometheus text format.
    pub(super) fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds what histograms have collected into their buckets; without it they grow until somebody scrapes.
    pub(super) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// The label for a field, given how many names of its table have one already.
pub(super) fn field_label(field: &str, names: usize) -> &str {
    if names < FIELD_NAMES && field.len() <= FIELD_NAME_LEN { field } else { OTHER }
}

/// Locks what is never left half done, whatever became of the thread that held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Register<'a>(&'a PrometheusRecorder);

impl Register<'_> {
    fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
        Key::from_parts(name, labels)
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        self.0.register_counter(&Self::key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Gauge {
        self.0.register_gauge(&Self::key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Histogram {
        self.0.register_histogram(&Self::key(name, labels), &METADATA)
    }
}

/// Every metric, with what it tells.
pub(super) const COUNTERS: [(&str, &str); 17] = [
    ("cdc_consumer_events_total", "Events settled for good, by how they ended."),
    ("cdc_consumer_redis_hit_total", "Keys checked, by whether they had a valid record."),
    ("cdc_consumer_publish_errors_total", "Publish calls that failed."),
    ("cdc_consumer_dedup_errors_total", "Calls of the dedup store that failed."),
    ("cdc_consumer_dedup_bypassed_total", "Events that went on without a check."),
    ("cdc_consumer_dedup_unrecorded_total", "Stored events acknowledged without a record."),
    ("cdc_consumer_redelivered_total", "Deliveries that had been delivered before."),
    ("cdc_consumer_target_duplicates_total", "Events that the target had within its duplicate window."),
    ("cdc_consumer_late_total", "Events published after a newer one of their row, or perhaps so."),
    ("cdc_consumer_unhandled_fields_total", "Fields that the typed row does not know."),
    ("cdc_consumer_dead_letters_total", "Events in the dead-letter stream, by reason."),
    ("cdc_consumer_subject_mismatch_total", "Events whose subject contradicts their metadata."),
    ("cdc_consumer_target_regressions_total", "Times that the target had lost data."),
    ("cdc_consumer_source_stalls_total", "Times that the consumer of the source was found to stand still, by how."),
    ("cdc_consumer_nats_reconnects_total", "Connections to NATS made anew."),
    (RELOADS, "Configurations read again at SIGHUP, by what became of them."),
    (RESTARTS, "Actors that died and were built again."),
];
/// Likewise.
pub(super) const GAUGES: [(&str, &str); 8] = [
    (
        "cdc_consumer_lag_seconds",
        "Age of the first unacknowledged message; 0 if there is none; missing until the source has told.",
    ),
    ("cdc_consumer_pending", "Messages the consumer has yet to be given; missing until the source has told."),
    ("cdc_consumer_in_flight", "Messages between pull and settlement."),
    ("cdc_consumer_in_flight_bytes", "Bytes in these messages."),
    ("cdc_consumer_consecutive_failures", "Failures of a dependency without a success in between."),
    ("cdc_consumer_dependency_up", "1 if the dependency does what it is asked to, else 0."),
    ("cdc_consumer_start_time_seconds", "When the process started, in seconds since the Unix epoch."),
    ("cdc_consumer_paused", "1 if intake is paused for this reason, else 0."),
];
/// Likewise.
pub(super) const HISTOGRAMS: [(&str, &str); 3] = [
    (PROCESSING, "From received to acknowledgement handed to the connection."),
    (COMMIT, "From database commit to stored in the target."),
    (CALLS, "Duration of calls of a dependency."),
];

fn describe(recorder: &PrometheusRecorder) {
    for (name, text) in COUNTERS {
        recorder.describe_counter(name.into(), None, text.into());
    }
    for (name, text) in GAUGES {
        recorder.describe_gauge(name.into(), None, text.into());
    }
    for (name, text) in HISTOGRAMS {
        recorder.describe_histogram(name.into(), None, text.into());
    }
}
