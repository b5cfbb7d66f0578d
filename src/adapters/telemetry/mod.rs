//! Metrics, log lines and state, derived in one place from what the actors say happened.

mod fields;
mod metrics;
pub mod samples;
pub mod status;
mod troubles;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cdc_actors::message::{DeliveryId, Late, Reason};
use cdc_actors::ports::{Clock, Dependency, Failure, Observer, Stall, Stalled};
use cdc_actors::telemetry::{Outcome, PauseReason, Telemetry as Event};
use slog::{Logger, crit, debug, error, info, warn};

use crate::logging::chain;
use fields::Fields;
use metrics::{Metrics, OTHER, lock};
use status::Status;
pub use troubles::Trouble;
use troubles::Troubles;

/// The [`Observer`] of the service.
pub struct Telemetry {
    logger: Logger,
    metrics: Metrics,
    fields: Fields,
    troubles: Troubles,
    status: Arc<Status>,
    /// The lag that the source told last, and when.
    lag: Mutex<Option<(Duration, Instant)>>,
    clock: Arc<dyn Clock>,
}

impl Telemetry {
    /// Registers every metric at zero but those that only the source can tell, for `tables` and the rest; the clock decides what is logged again and since when
    /// something is wrong.
    pub fn new(logger: Logger, clock: Arc<dyn Clock>, tables: &[&'static str]) -> Self {
        let metrics = Metrics::new(tables);
        metrics.start_time.set(clock.unix_nanos() as f64 / 1e9);
        Self {
            logger,
            metrics,
            fields: Fields::new(Arc::clone(&clock)),
            troubles: Troubles::new(Arc::clone(&clock)),
            status: Arc::new(Status::new(Arc::clone(&clock))),
            lag: Mutex::default(),
            clock,
        }
    }

    /// Readiness and liveness.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        // While the source does not answer, what was late grows later.
        let told = *lock(&self.lag);
        if let Some((lag, told)) = told.filter(|(lag, _)| !lag.is_zero()) {
            self.set_lag(lag + self.clock.now().saturating_duration_since(told));
        }
        self.metrics.render()
    }

    /// Keeps the memory of histograms bounded; call it every few seconds, scraped or not.
    pub fn upkeep(&self) {
        self.metrics.upkeep();
    }

    /// The connection to NATS was made anew.
    pub fn nats_reconnected(&self) {
        self.metrics.nats_reconnects.increment(1);
    }

    /// Registers the series of tables that are new. Those of tables that are gone stay.
    pub fn add_tables(&self, tables: &[&'static str]) {
        self.metrics.add_tables(tables);
    }

    /// A configuration was read again and is in force; `changed` are the keys that are another's now.
    pub fn config_applied(&self, changed: &[String]) {
        self.metrics.reloads_applied.increment(1);
        info!(self.logger, "configuration reloaded"; "changed" => changed.join(", "));
    }

    /// A configuration was read again and cannot be used, for these reasons: the one before stays.
    pub fn config_refused(&self, problems: &[String]) {
        self.metrics.reloads_refused.increment(1);
        for problem in problems {
            error!(self.logger, "configuration refused, the one in force stays"; "error" => problem);
        }
        self.troubles.note("configuration refused", "service".to_owned(), &problems.join("; "));
    }

    /// What went wrong lately, the newest first.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.troubles.list()
    }

    /// Takes note of a dependency that is waited for at the start: it is down until [`Self::reached`].
    pub fn waiting(&self, dependency: Dependency, failure: &Failure) {
        let error = chain(failure);
        warn!(self.logger, "waiting for a dependency"; "dependency" => dependency.name(), "error" => &error);
        self.troubles.note("waiting for a dependency", dependency.name().to_owned(), &error);
        self.standing(dependency, Some(error));
    }

    /// A dependency that was waited for at the start is there, or no longer waited for.
    pub fn reached(&self, dependency: Dependency) {
        self.standing(dependency, None);
    }

    /// Whether a dependency is down, and with what error, for metrics and readiness.
    fn standing(&self, dependency: Dependency, error: Option<String>) {
        if let Some(gauge) = self.metrics.dependency_up.of(dependency) {
            gauge.set(if error.is_none() { 1.0 } else { 0.0 });
        }
        self.status.dependency(dependency, error);
    }

    fn settled(&self, table: Option<&'static str>, outcome: Outcome, took: Duration) {
        if let Some(counter) = self.metrics.events.of(table).of(outcome) {
            counter.increment(1);
        }
        self.metrics.processing.of(table).record(took);
        debug!(self.logger, "event settled"; "table_name" => table, "result" => outcome.name());
    }

    fn published(&self, table: &'static str, key: &str, duplicate: bool, since_commit: Option<Duration>) {
        if duplicate {
            // It was stored by an earlier attempt, at a time not known here: that is no latency to record.
            self.metrics.target_duplicates.of(Some(table)).increment(1);
        } else if let Some(since) = since_commit {
            self.metrics.commit_to_publish.of(Some(table)).record(since);
        }
        debug!(self.logger, "event stored"; "event_key" => key, "table_name" => table, "duplicate" => duplicate);
    }

    fn late(&self, table: &'static str, key: &str, certainty: Late) {
        if let Some(counter) = self.metrics.late.of(Some(table)).of(certainty) {
            counter.increment(1);
        }
        match certainty {
            Late::True => {
                warn!(self.logger, "event published after a newer one of its row";
                    "event_key" => key, "table_name" => table);
            }
            // Every redelivery after a restart is one of these: no news.
            Late::Unknown => {
                debug!(self.logger, "event published perhaps after a newer one of its row";
                    "event_key" => key, "table_name" => table);
            }
        }
    }

    fn unhandled_field(&self, table: &'static str, field: &str) {
        let seen = self.fields.count(table, field, |label| self.metrics.unhandled_field(table, label));
        if seen.worth_a_line {
            warn!(self.logger, "field that this version does not know";
                "table_name" => table, "field" => seen.shown);
        }
    }

    fn dead_lettered(&self, id: DeliveryId, subject: &str, table: Option<&'static str>, reason: Reason, detail: &str) {
        if let Some(counter) = self.metrics.dead_letters.of(table).of(reason) {
            counter.increment(1);
        }
        warn!(self.logger, "event is a dead letter";
            "table_name" => table, "subject" => subject, "stream_seq" => id.sequence,
            "reason" => reason.name(), "detail" => detail);
        let with = format!("{} {}", table.unwrap_or(OTHER), reason.name());
        self.troubles.note("event is a dead letter", with, detail);
    }

    fn called(&self, dependency: Dependency, operation: &'static str, took: Duration, failure: Option<&Failure>) {
        self.metrics.call(dependency, operation).record(took);
        let Some(failure) = failure else { return };
        if dependency == Dependency::Dedup {
            self.metrics.dedup_errors.increment(1);
        }
        let error = chain(failure);
        warn!(self.logger, "call failed";
            "dependency" => dependency.name(), "operation" => operation, "class" => ?failure.class, "error" => &error);
        self.troubles.note("call failed", format!("{} {operation}", dependency.name()), &error);
    }

    fn dependency_changed(&self, dependency: Dependency, failure: Option<&Failure>) {
        self.standing(dependency, failure.map(|failure| chain(failure)));
        match failure {
            Some(failure) => {
                error!(self.logger, "dependency is down";
                    "dependency" => dependency.name(), "error" => chain(failure));
            }
            None => info!(self.logger, "dependency is back"; "dependency" => dependency.name()),
        }
    }

    fn paused(&self, reason: PauseReason, paused: bool) {
        if let Some(gauge) = self.metrics.paused.of(reason) {
            gauge.set(if paused { 1.0 } else { 0.0 });
        }
        self.status.paused(reason, paused);
        let text = if paused { "intake paused" } else { "intake resumed" };
        info!(self.logger, "{}", text; "reason" => reason.name());
    }

    fn in_flight(&self, messages: usize, bytes: usize) {
        self.metrics.in_flight.set(messages as f64);
        self.metrics.in_flight_bytes.set(bytes as f64);
    }

    fn backlog(&self, pending: u64, lag: Duration) {
        let [waiting, _] = self.metrics.backlog();
        waiting.set(pending as f64);
        self.set_lag(lag);
        *lock(&self.lag) = Some((lag, self.clock.now()));
    }

    fn set_lag(&self, lag: Duration) {
        let [_, gauge] = self.metrics.backlog();
        gauge.set(lag.as_secs_f64());
    }

    /// What happens now and then: always a line.
    fn incident(&self, event: &Event<'_>) {
        match event {
            Event::Unrecorded { key, failure } => {
                self.metrics.dedup_unrecorded.increment(1);
                let (dedup, error) = (Dependency::Dedup.name(), chain(*failure));
                warn!(self.logger, "stored event acknowledged without a record: a redelivery may be published twice";
                    "event_key" => key.as_str(), "dependency" => dedup, "error" => &error);
                self.troubles.note("stored event acknowledged without a record", dedup.to_owned(), &error);
            }
            Event::SubjectMismatch { id, detail } => {
                self.metrics.subject_mismatch.increment(1);
                warn!(self.logger, "subject contradicts metadata; metadata decides";
                    "stream_seq" => id.sequence, "detail" => detail);
                self.troubles.note("subject contradicts metadata", "source".to_owned(), detail);
            }
            Event::ActorRestarted { actor } => {
                self.metrics.restarts(actor).increment(1);
                error!(self.logger, "actor died and was built again"; "actor" => actor);
                self.troubles.note("actor died and was built again", (*actor).to_owned(), "it panicked: see the log");
            }
            Event::TargetRegressed { recorded, last_sequence } => {
                self.metrics.target_regressions.increment(1);
                error!(self.logger, "the target has lost data: what is redelivered is published again, what was acknowledged is not refilled";
                    "recorded_seq" => recorded, "last_seq" => last_sequence);
                let said = format!("it ends at {last_sequence}, {recorded} is recorded");
                self.troubles.note("the target has lost data", Dependency::Target.name().to_owned(), &said);
            }
            Event::Stalled(Stalled { stall, made_anew }) => {
                if let Some(counter) = self.metrics.source_stalls.of(*stall) {
                    counter.increment(1);
                }
                let said = said_of(*stall, *made_anew);
                error!(self.logger, "the consumer stands still"; "kind" => stall.name(), "detail" => said);
                self.troubles.note("the consumer stands still", Dependency::Source.name().to_owned(), said);
            }
            Event::HandedBack { deliveries, why } => {
                info!(self.logger, "deliveries handed back"; "deliveries" => deliveries, "reason" => why);
            }
            Event::GuardTripped { why } => {
                crit!(self.logger, "guard tripped, shutting down"; "error" => why);
                self.troubles.note("guard tripped", "service".to_owned(), why);
            }
            // The remaining events are told apart by `observe`; one added later is at least not lost.
            other => debug!(self.logger, "telemetry"; "event" => ?other),
        }
    }
}

/// What a stall is and what becomes of it, for people.
fn said_of(stall: Stall, made_anew: bool) -> &'static str {
    match (stall, made_anew) {
        (Stall::Silent, true) => "it gave nothing, though messages and requests waited; it has been made anew",
        (Stall::Silent, false) => {
            "it gives nothing, though messages and requests wait: see CdcConsumerSourceStalls in the runbook"
        }
        (Stall::Passed, true) => "it passed messages that are still in the work queue; it has been made anew",
        (Stall::Passed, false) => {
            "it has passed messages that are still in the work queue: see CdcConsumerSourceStalls in the runbook"
        }
    }
}

impl Observer for Telemetry {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::Redelivered { table } => self.metrics.redelivered.of(table).increment(1),
            Event::Settled { table, outcome, took } => self.settled(table, outcome, took),
            Event::Published { table, key, duplicate, since_commit } => {
                self.published(table, key.as_str(), duplicate, since_commit);
            }
            Event::Late { table, key, certainty } => self.late(table, key.as_str(), certainty),
            Event::DedupChecked { hits, misses } => {
                self.metrics.hits.increment(hits);
                self.metrics.misses.increment(misses);
            }
            Event::DedupBypassed { events } => {
                self.metrics.dedup_bypassed.increment(events);
                debug!(self.logger, "events went on without a check"; "events" => events);
            }
            Event::UnhandledField { table, field } => self.unhandled_field(table, field),
            Event::DeadLettered { id, subject, table, reason, detail } => {
                self.dead_lettered(id, subject, table, reason, detail);
            }
            Event::Called { dependency, operation, took, failure } => {
                self.called(dependency, operation, took, failure);
            }
            Event::PublishFailed { attempts, failure } => {
                self.metrics.publish_errors.increment(attempts);
                let (target, error) = (Dependency::Target.name(), chain(failure));
                warn!(self.logger, "events could not be published";
                    "dependency" => target, "events" => attempts, "error" => &error);
                self.troubles.note("events could not be published", target.to_owned(), &error);
            }
            Event::Alive { actor } => self.status.heartbeat(actor),
            Event::Streak { dependency, failures } => {
                if let Some(gauge) = self.metrics.consecutive_failures.of(dependency) {
                    gauge.set(failures as f64);
                }
            }
            Event::DependencyChanged { dependency, failure } => self.dependency_changed(dependency, failure),
            Event::Paused { reason, paused } => self.paused(reason, paused),
            Event::InFlight { messages, bytes } => self.in_flight(messages, bytes),
            Event::Backlog { pending, lag } => self.backlog(pending, lag),
            incident => self.incident(&incident),
        }
    }
}
