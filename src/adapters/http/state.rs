//! The document behind `/status.json`: the state of this replica at one moment, made from the same metrics that are
//! scraped. Counts are since the start of the process; rates and percentiles are for the reader to make of two of them.

use std::collections::BTreeMap;

use cdc_actors::message::Reason;
use cdc_actors::ports::Dependency;
use cdc_actors::telemetry::Outcome;
use serde::Serialize;

use crate::adapters::telemetry::samples::{Sample, Samples};
use crate::adapters::telemetry::status::{NotReady, Silent};
use crate::adapters::telemetry::{Telemetry, Trouble};
use crate::config::InForce;

/// Everything the page shows.
#[derive(Serialize)]
pub(super) struct State<'a> {
    service: &'static str,
    version: &'static str,
    /// RFC 3339.
    started: String,
    now: String,
    uptime_seconds: u64,
    ready: bool,
    alive: bool,
    /// What stands against `ready`, as `/readyz` tells.
    reasons: Vec<NotReady>,
    /// Actors that make no progress, as `/healthz` tells.
    silent: Vec<Silent>,
    /// By table, then by how they ended.
    events: BTreeMap<&'a str, BTreeMap<&'static str, u64>>,
    source: Source,
    in_flight: InFlight,
    dedup: Dedup,
    target: Target,
    /// Those that there are.
    dead_letters: Vec<DeadLetters<'a>>,
    dependencies: Vec<Standing>,
    /// Why intake is paused; empty if it is not.
    paused: Vec<&'a str>,
    actor_restarts: u64,
    nats_reconnects: u64,
    latencies: Vec<Latency<'a>>,
    /// The newest first.
    troubles: Vec<Trouble>,
    settings: &'a [InForce],
}

#[derive(Serialize)]
struct Source {
    /// Messages the consumer has yet to be given; not known before the source has told.
    pending: Option<u64>,
    /// Age of the first unacknowledged message; likewise.
    lag_seconds: Option<f64>,
    redelivered: u64,
}

#[derive(Serialize)]
struct InFlight {
    messages: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Dedup {
    hits: u64,
    misses: u64,
    errors: u64,
    bypassed: u64,
    unrecorded: u64,
}

#[derive(Serialize)]
struct Target {
    publish_errors: u64,
    duplicates: u64,
    late: u64,
    regressions: u64,
}

#[derive(Serialize)]
struct DeadLetters<'a> {
    table: &'a str,
    reason: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct Standing {
    name: &'static str,
    up: bool,
    consecutive_failures: u64,
}

/// A histogram, summed over tables.
#[derive(Serialize)]
struct Latency<'a> {
    /// `processing`, `commit_to_publish`, or a dependency and its operation: `dedup check`.
    of: String,
    count: u64,
    sum_seconds: f64,
    /// Upper bounds in seconds, as text (the last is `+Inf`), and how many took at most so long.
    buckets: Vec<(&'a str, u64)>,
}

impl<'a> State<'a> {
    /// The state as `metrics`, the text of `/metrics`, and the rest of telemetry tell it.
    pub(super) fn new(telemetry: &Telemetry, metrics: &'a str, settings: &'a [InForce]) -> Self {
        let samples = Samples::read(metrics);
        let count = |name: &str, labels: &[(&str, &str)]| whole(samples.sum(&format!("cdc_consumer_{name}"), labels));
        let status = telemetry.status();
        let (readiness, liveness, life) = (status.readiness(), status.liveness(), status.life());
        Self {
            service: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            started: life.started,
            now: life.now,
            uptime_seconds: life.uptime.as_secs(),
            ready: readiness.ready,
            alive: liveness.alive,
            reasons: readiness.reasons,
            silent: liveness.silent,
            events: events(&samples),
            source: Source {
                pending: samples.one("cdc_consumer_pending").map(whole),
                lag_seconds: samples.one("cdc_consumer_lag_seconds"),
                redelivered: count("redelivered_total", &[]),
            },
            in_flight: InFlight { messages: count("in_flight", &[]), bytes: count("in_flight_bytes", &[]) },
            dedup: Dedup {
                hits: count("redis_hit_total", &[("status", "hit")]),
                misses: count("redis_hit_total", &[("status", "miss")]),
                errors: count("dedup_errors_total", &[]),
                bypassed: count("dedup_bypassed_total", &[]),
                unrecorded: count("dedup_unrecorded_total", &[]),
            },
            target: Target {
                publish_errors: count("publish_errors_total", &[]),
                duplicates: count("target_duplicates_total", &[]),
                late: count("late_total", &[]),
                regressions: count("target_regressions_total", &[]),
            },
            dead_letters: dead_letters(&samples),
            dependencies: Dependency::ALL
                .map(|dependency| Standing {
                    name: dependency.name(),
                    up: count("dependency_up", &[("dependency", dependency.name())]) > 0,
                    consecutive_failures: count("consecutive_failures", &[("dependency", dependency.name())]),
                })
                .into(),
            paused: samples.of("cdc_consumer_paused").filter(|s| s.value > 0.0).map(|s| s.label("reason")).collect(),
            actor_restarts: count("actor_restarts_total", &[]),
            nats_reconnects: count("nats_reconnects_total", &[]),
            latencies: latencies(&samples),
            troubles: telemetry.troubles(),
            settings,
        }
    }
}

fn events<'a>(samples: &Samples<'a>) -> BTreeMap<&'a str, BTreeMap<&'static str, u64>> {
    let mut tables: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for sample in samples.of("cdc_consumer_events_total") {
        if let Some(outcome) = Outcome::ALL.iter().find(|outcome| outcome.name() == sample.label("result")) {
            tables.entry(sample.label("table")).or_default().insert(outcome.name(), whole(sample.value));
        }
    }
    tables
}

fn dead_letters<'a>(samples: &Samples<'a>) -> Vec<DeadLetters<'a>> {
    let letters = samples.of("cdc_consumer_dead_letters_total").filter(|sample| sample.value > 0.0);
    let mut letters: Vec<_> = letters
        .filter_map(|sample| {
            let reason = Reason::ALL.iter().find(|reason| reason.name() == sample.label("reason"))?;
            Some(DeadLetters { table: sample.label("table"), reason: reason.name(), count: whole(sample.value) })
        })
        .collect();
    letters.sort_by_key(|letters| (letters.table, letters.reason));
    letters
}

fn latencies<'a>(samples: &Samples<'a>) -> Vec<Latency<'a>> {
    let called = |sample: &Sample<'_>| format!("{} {}", sample.label("dependency"), sample.label("op"));
    let mut found = histograms(samples, "processing_seconds", |_| "processing".to_owned());
    found.extend(histograms(samples, "commit_to_publish_seconds", |_| "commit_to_publish".to_owned()));
    found.extend(histograms(samples, "dependency_call_seconds", called));
    found
}

/// The histograms of one metric, summed over all series that `of` gives the same name.
fn histograms<'a>(samples: &Samples<'a>, metric: &str, of: impl Fn(&Sample<'_>) -> String) -> Vec<Latency<'a>> {
    let mut found: BTreeMap<String, Latency<'a>> = BTreeMap::new();
    let part = |suffix: &str| format!("cdc_consumer_{metric}_{suffix}");
    for sample in samples.of(&part("bucket")) {
        let name = of(sample);
        let new = || Latency { of: name.clone(), count: 0, sum_seconds: 0.0, buckets: Vec::new() };
        let buckets = &mut found.entry(name.clone()).or_insert_with(new).buckets;
        let (bound, count) = (sample.label("le"), whole(sample.value));
        match buckets.iter_mut().find(|(own, _)| *own == bound) {
            Some((_, sum)) => *sum += count,
            None => buckets.push((bound, count)),
        }
    }
    for sample in samples.of(&part("count")) {
        if let Some(latency) = found.get_mut(&of(sample)) {
            latency.count += whole(sample.value);
        }
    }
    for sample in samples.of(&part("sum")) {
        if let Some(latency) = found.get_mut(&of(sample)) {
            latency.sum_seconds += sample.value;
        }
    }
    found.into_values().collect()
}

/// Counts are whole and never negative; what is not is as good as 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as it should")]
fn whole(value: f64) -> u64 {
    value as u64
}
