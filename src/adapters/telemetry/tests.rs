use std::sync::Mutex;
use std::time::Instant;

use cdc_actors::message::EventKey;
use cdc_actors::ports::{FailureClass, Stall, Stalled};
use serde_json::Value;

use super::metrics::{COUNTERS, FIELD_NAMES, GAUGES, HISTOGRAMS};
use super::status::HEARTBEAT_LIMIT;
use super::troubles::{KEPT, SHOWN};
use super::*;
use crate::config::{Log, LogFormat, LogLevel};
use crate::logging::tests::Buffer;
use crate::logging::{LogGuard, logger_to};

/// A clock that stands still at 2023-11-14T22:13:20Z until it is told to go on.
pub(crate) struct ManualClock {
    start: Instant,
    passed: Mutex<Duration>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self { start: Instant::now(), passed: Mutex::default() }
    }
}

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.passed.lock().unwrap() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + *self.passed.lock().unwrap()
    }
    fn unix_nanos(&self) -> i64 {
        1_700_000_000_000_000_000 + i64::try_from(self.passed.lock().unwrap().as_nanos()).unwrap()
    }
}

struct Bench {
    telemetry: Telemetry,
    clock: Arc<ManualClock>,
    buffer: Buffer,
    guard: LogGuard,
}

impl Bench {
    fn new() -> Self {
        let (clock, buffer) = (Arc::new(ManualClock::default()), Buffer::default());
        let config = Log { level: LogLevel::Info, format: LogFormat::Json };
        let (logger, guard) = logger_to(&config, buffer.clone());
        Self {
            telemetry: Telemetry::new(logger, clock.clone(), &["messages", "chats", "agents"]),
            clock,
            buffer,
            guard,
        }
    }

    fn see(&self, event: Event<'_>) {
        self.telemetry.observe(event);
    }

    /// The value of a series in the rendered text.
    fn value(&self, series: &str) -> f64 {
        let text = self.telemetry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series).filter(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).trim().parse().unwrap()
    }

    /// Ends logging and gives back the lines.
    fn lines(self) -> Vec<Value> {
        drop(self.telemetry);
        drop(self.guard);
        self.buffer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn failure() -> Failure {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot reach redis://:hunter2@h")]
    struct Outer(#[source] std::io::Error);
    let cause = Outer(std::io::Error::other("connection refused"));
    Failure::new("check 3 keys", FailureClass::Disconnected, cause)
}

const ID: DeliveryId = DeliveryId { stream_created: 1, sequence: 42, timestamp: 3 };
const TOOK: Duration = Duration::from_millis(3);

#[test]
fn every_series_with_known_labels_is_there_from_the_start() {
    let bench = Bench::new();
    for table in ["messages", "chats", "agents", "other"] {
        for result in ["processed", "duplicate", "skipped", "dead_lettered"] {
            let series = format!("cdc_consumer_events_total{{table=\"{table}\",result=\"{result}\"}}");
            assert_eq!(bench.value(&series), 0.0);
        }
        for reason in Reason::ALL {
            let series = format!("cdc_consumer_dead_letters_total{{table=\"{table}\",reason=\"{reason}\"}}");
            assert_eq!(bench.value(&series), 0.0);
        }
        for certainty in ["true", "unknown"] {
            let series = format!("cdc_consumer_late_total{{table=\"{table}\",certainty=\"{certainty}\"}}");
            assert_eq!(bench.value(&series), 0.0);
        }
        for name in [
            "redelivered_total",
            "target_duplicates_total",
            "processing_seconds_count",
            "commit_to_publish_seconds_count",
        ] {
            assert_eq!(bench.value(&format!("cdc_consumer_{name}{{table=\"{table}\"}}")), 0.0);
        }
    }
    for dependency in Dependency::ALL {
        assert_eq!(bench.value(&format!("cdc_consumer_dependency_up{{dependency=\"{dependency}\"}}")), 1.0);
        assert_eq!(bench.value(&format!("cdc_consumer_consecutive_failures{{dependency=\"{dependency}\"}}")), 0.0);
    }
    for reason in ["source", "target", "dead_letter", "dedup", "reconcile", "suspect", "shutdown"] {
        assert_eq!(bench.value(&format!("cdc_consumer_paused{{reason=\"{reason}\"}}")), 0.0);
    }
    for name in ["in_flight", "in_flight_bytes", "publish_errors_total", "nats_reconnects_total"] {
        assert_eq!(bench.value(&format!("cdc_consumer_{name}")), 0.0);
    }
    assert_eq!(bench.value("cdc_consumer_start_time_seconds"), 1_700_000_000.0);
}

#[test]
fn every_event_shows_in_its_metric() {
    let bench = Bench::new();
    let key = EventKey::new("1:public:2:messages:3:4").unwrap();
    let failure = failure();
    bench.see(Event::Redelivered { table: None });
    bench.see(Event::Settled { table: Some("messages"), outcome: Outcome::Duplicate, took: TOOK });
    bench.see(Event::Settled { table: Some("unheard_of"), outcome: Outcome::Skipped, took: TOOK });
    bench.see(Event::Published { table: "chats", key: &key, duplicate: false, since_commit: Some(TOOK) });
    bench.see(Event::Published { table: "chats", key: &key, duplicate: true, since_commit: Some(TOOK) });
    bench.see(Event::Late { table: "agents", key: &key, certainty: Late::True });
    bench.see(Event::Late { table: "agents", key: &key, certainty: Late::Unknown });
    bench.see(Event::DedupChecked { hits: 2, misses: 5 });
    bench.see(Event::DedupBypassed { events: 7 });
    bench.see(Event::Unrecorded { key: &key, failure: &failure });
    bench.see(Event::UnhandledField { table: "messages", field: "from_user" });
    bench.see(Event::SubjectMismatch { id: ID, detail: "chats, not messages" });
    let reason = Reason::MissingKey;
    bench.see(Event::DeadLettered { id: ID, subject: "s", table: Some("chats"), reason, detail: "no chat_id" });
    let call = |dependency, operation, failure| Event::Called { dependency, operation, took: TOOK, failure };
    bench.see(Event::PublishFailed { attempts: 1, failure: &failure });
    bench.see(call(Dependency::Target, "publish", None));
    bench.see(call(Dependency::Target, "info", Some(&failure)));
    bench.see(call(Dependency::Dedup, "check", Some(&failure)));
    bench.see(Event::Streak { dependency: Dependency::Dedup, failures: 9 });
    bench.see(Event::DependencyChanged { dependency: Dependency::Dedup, failure: Some(&failure) });
    bench.see(Event::Paused { reason: PauseReason::Reconcile, paused: true });
    bench.see(Event::InFlight { messages: 11, bytes: 12_000 });
    bench.see(Event::Backlog { pending: 13, lag: Duration::from_millis(1_500) });
    bench.see(Event::ActorRestarted { actor: "publish" });
    bench.see(Event::TargetRegressed { recorded: 20, last_sequence: 10 });
    bench.see(Event::Stalled(Stalled { stall: Stall::Passed, made_anew: true }));
    bench.telemetry.nats_reconnected();
    for (series, value) in [
        ("redelivered_total{table=\"other\"}", 1.0),
        ("events_total{table=\"messages\",result=\"duplicate\"}", 1.0),
        ("events_total{table=\"other\",result=\"skipped\"}", 1.0),
        ("processing_seconds_count{table=\"messages\"}", 1.0),
        ("processing_seconds_bucket{table=\"messages\",le=\"0.0025\"}", 0.0),
        ("processing_seconds_bucket{table=\"messages\",le=\"0.005\"}", 1.0),
        ("commit_to_publish_seconds_count{table=\"chats\"}", 1.0),
        ("commit_to_publish_seconds_sum{table=\"chats\"}", 0.003),
        ("target_duplicates_total{table=\"chats\"}", 1.0),
        ("late_total{table=\"agents\",certainty=\"true\"}", 1.0),
        ("source_stalls_total{kind=\"passed\"}", 1.0),
        ("source_stalls_total{kind=\"silent\"}", 0.0),
        ("late_total{table=\"agents\",certainty=\"unknown\"}", 1.0),
        ("redis_hit_total{status=\"hit\"}", 2.0),
        ("redis_hit_total{status=\"miss\"}", 5.0),
        ("dedup_bypassed_total", 7.0),
        ("dedup_unrecorded_total", 1.0),
        ("unhandled_fields_total{table=\"messages\",field_name=\"from_user\"}", 1.0),
        ("subject_mismatch_total", 1.0),
        ("dead_letters_total{table=\"chats\",reason=\"missing_key\"}", 1.0),
        ("publish_errors_total", 1.0),
        ("dedup_errors_total", 1.0),
        ("dependency_call_seconds_count{dependency=\"target\",op=\"publish\"}", 1.0),
        ("dependency_call_seconds_count{dependency=\"dedup\",op=\"check\"}", 1.0),
        ("consecutive_failures{dependency=\"dedup\"}", 9.0),
        ("dependency_up{dependency=\"dedup\"}", 0.0),
        ("dependency_up{dependency=\"target\"}", 1.0),
        ("paused{reason=\"reconcile\"}", 1.0),
        ("in_flight", 11.0),
        ("in_flight_bytes", 12_000.0),
        ("pending", 13.0),
        ("lag_seconds", 1.5),
        ("actor_restarts_total{actor=\"publish\"}", 1.0),
        ("target_regressions_total", 1.0),
        ("nats_reconnects_total", 1.0),
    ] {
        assert_eq!(bench.value(&format!("cdc_consumer_{series}")), value, "{series}");
    }
    let text = bench.telemetry.render();
    for (name, _) in COUNTERS.iter().chain(&GAUGES).chain(&HISTOGRAMS) {
        assert!(text.contains(&format!("# TYPE {name} ")) && text.contains(&format!("# HELP {name} ")), "{name}");
    }
    bench.see(Event::DependencyChanged { dependency: Dependency::Dedup, failure: None });
    bench.see(Event::Paused { reason: PauseReason::Reconcile, paused: false });
    assert_eq!(bench.value("cdc_consumer_dependency_up{dependency=\"dedup\"}"), 1.0);
    assert_eq!(bench.value("cdc_consumer_paused{reason=\"reconcile\"}"), 0.0);
}

#[test]
fn what_waits_is_not_known_before_the_source_has_told_and_what_is_late_grows_later_while_it_does_not() {
    let bench = Bench::new();
    let text = bench.telemetry.render();
    assert!(!text.contains("cdc_consumer_pending ") && !text.contains("cdc_consumer_lag_seconds "), "{text}");
    bench.see(Event::Backlog { pending: 13, lag: Duration::from_millis(1_500) });
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.value("cdc_consumer_lag_seconds"), 61.5);
    assert_eq!(bench.value("cdc_consumer_pending"), 13.0);
    bench.see(Event::Backlog { pending: 0, lag: Duration::ZERO });
    bench.clock.advance(Duration::from_secs(60));
    assert_eq!(bench.value("cdc_consumer_lag_seconds"), 0.0, "nothing is late");
}

#[test]
fn successes_are_silent_and_failures_are_one_line() {
    let bench = Bench::new();
    let key = EventKey::new("k").unwrap();
    bench.see(Event::Settled { table: Some("messages"), outcome: Outcome::Processed, took: TOOK });
    bench.see(Event::Published { table: "chats", key: &key, duplicate: false, since_commit: None });
    bench.see(Event::DedupChecked { hits: 1, misses: 1 });
    bench.see(Event::InFlight { messages: 1, bytes: 1 });
    let (operation, took) = ("check", TOOK);
    bench.see(Event::Called { dependency: Dependency::Dedup, operation, took, failure: None });
    bench.see(Event::Called { dependency: Dependency::Dedup, operation, took, failure: Some(&failure()) });
    let reason = Reason::NotJson;
    bench.see(Event::DeadLettered { id: ID, subject: "a.b", table: None, reason, detail: "at byte 7" });
    bench.see(Event::ActorRestarted { actor: "dedup" });
    bench.see(Event::GuardTripped { why: "dedup failed 100 times" });
    let lines = bench.lines();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert_eq!((&lines[0]["level"], &lines[0]["dependency"]), (&"warning".into(), &"dedup".into()));
    assert_eq!(lines[0]["error"], "check 3 keys: cannot reach redis://***@h: connection refused");
    assert_eq!((&lines[1]["stream_seq"], &lines[1]["subject"]), (&42.into(), &"a.b".into()));
    assert_eq!((&lines[1]["reason"], &lines[1]["detail"]), (&"not_json".into(), &"at byte 7".into()));
    assert_eq!((&lines[2]["actor"], &lines[2]["level"]), (&"dedup".into(), &"error".into()));
    assert_eq!(lines[3]["level"], "critical");
}

#[test]
fn an_unknown_field_is_logged_once_in_ten_minutes_and_always_counted() {
    let bench = Bench::new();
    let see = |field: &str| bench.see(Event::UnhandledField { table: "messages", field });
    see("a");
    see("a");
    see("b");
    bench.clock.advance(Duration::from_secs(599));
    see("a");
    bench.clock.advance(Duration::from_secs(1));
    see("a");
    bench.see(Event::UnhandledField { table: "chats", field: "a" });
    assert_eq!(bench.value("cdc_consumer_unhandled_fields_total{table=\"messages\",field_name=\"a\"}"), 4.0);
    let logged: Vec<_> = bench.lines().iter().map(|line| format!("{} {}", line["table_name"], line["field"])).collect();
    assert_eq!(logged, ["\"messages\" \"a\"", "\"messages\" \"b\"", "\"messages\" \"a\"", "\"chats\" \"a\""]);
}

#[test]
fn names_of_unknown_fields_are_bounded() {
    let bench = Bench::new();
    let long = "x".repeat(64);
    for name in (0..FIELD_NAMES + 10).map(|number| format!("field_{number}")).chain([long]) {
        bench.see(Event::UnhandledField { table: "agents", field: &name });
    }
    bench.see(Event::UnhandledField { table: "agents", field: "field_0" });
    let text = bench.telemetry.render();
    let series = text.lines().filter(|line| line.starts_with("cdc_consumer_unhandled_fields_total{")).count();
    assert_eq!(series, FIELD_NAMES + 1);
    assert_eq!(bench.value("cdc_consumer_unhandled_fields_total{table=\"agents\",field_name=\"other\"}"), 11.0);
    assert_eq!(bench.value("cdc_consumer_unhandled_fields_total{table=\"agents\",field_name=\"field_0\"}"), 2.0);
    assert_eq!(bench.lines().len(), FIELD_NAMES + 1);
}

#[test]
fn a_hostile_field_name_cannot_forge_a_series() {
    let bench = Bench::new();
    let field = "a\"} 1\ncdc_consumer_pending 99 \\";
    bench.see(Event::UnhandledField { table: "agents", field });
    let text = bench.telemetry.render();
    assert!(!text.lines().any(|line| line.starts_with("cdc_consumer_pending 99")), "{text}");
}

#[test]
fn upkeep_keeps_what_was_observed() {
    let bench = Bench::new();
    for _ in 0..10_000 {
        bench.see(Event::Settled { table: Some("chats"), outcome: Outcome::Processed, took: TOOK });
    }
    bench.telemetry.upkeep();
    assert_eq!(bench.value("cdc_consumer_processing_seconds_count{table=\"chats\"}"), 10_000.0);
}

#[test]
fn readiness_names_every_reason_with_its_beginning() {
    let bench = Bench::new();
    let status = bench.telemetry.status();
    let named = || -> Vec<_> {
        let readiness = status.readiness();
        assert_eq!(readiness.ready, readiness.reasons.is_empty());
        readiness.reasons.into_iter().map(|reason| (reason.dependency, reason.since)).collect()
    };
    let at = |time: &str| format!("2023-11-14T22:13:{time}.000Z");
    assert_eq!(named(), [("service", at("20"))]);
    status.set_started(true);
    assert_eq!(named(), []);

    let dependency = Dependency::Target;
    bench.see(Event::Paused { reason: PauseReason::Dependency(dependency), paused: true });
    assert_eq!(status.readiness().reasons[0].error, "intake is paused");
    bench.see(Event::DependencyChanged { dependency, failure: Some(&failure()) });
    bench.clock.advance(Duration::from_secs(3));
    bench.see(Event::DependencyChanged { dependency, failure: Some(&failure()) });
    assert_eq!(named(), [("target", at("20"))], "one reason, since the trouble began");
    bench.see(Event::Paused { reason: PauseReason::Reconcile, paused: true });
    assert_eq!(named(), [("target", at("20"))], "a target that is down cannot be looked at either");
    bench.see(Event::Paused { reason: PauseReason::Reconcile, paused: false });
    bench.see(Event::DependencyChanged { dependency, failure: None });
    bench.see(Event::Paused { reason: PauseReason::Dependency(dependency), paused: false });
    assert_eq!(named(), []);

    bench.see(Event::Paused { reason: PauseReason::Suspect, paused: true });
    assert_eq!(named(), [], "a suspect running apart is work");
    bench.see(Event::Paused { reason: PauseReason::Reload, paused: true });
    assert_eq!(named(), [], "a reload takes milliseconds");
    bench.see(Event::Paused { reason: PauseReason::Reconcile, paused: true });
    bench.see(Event::Paused { reason: PauseReason::Shutdown, paused: true });
    assert_eq!(named(), [("service", at("23")), ("target", at("23"))]);
}

#[test]
fn tables_that_are_added_get_series_and_none_is_taken_away() {
    let bench = Bench::new();
    let settled = |table| bench.see(Event::Settled { table: Some(table), outcome: Outcome::Processed, took: TOOK });
    let counted =
        |table: &str| bench.value(&format!(r#"cdc_consumer_events_total{{table="{table}",result="processed"}}"#));
    settled("notes");
    assert_eq!(counted("other"), 1.0);
    bench.telemetry.add_tables(&["chats", "notes"]);
    bench.telemetry.add_tables(&["notes", "calls"]);
    for table in ["chats", "notes", "calls", "calls"] {
        settled(table);
    }
    assert_eq!(["other", "chats", "notes", "calls"].map(counted), [1.0, 1.0, 1.0, 2.0]);
    assert_eq!(bench.value(r#"cdc_consumer_dead_letters_total{table="calls",reason="panic"}"#), 0.0);
    bench.telemetry.add_tables(&["messages"]);
    settled("notes");
    assert_eq!(counted("notes"), 2.0);
}

#[test]
fn reloads_are_counted_and_a_refused_one_says_why() {
    let bench = Bench::new();
    bench.telemetry.config_applied(&["log.level".to_owned(), "retry.max".to_owned()]);
    bench.telemetry.config_refused(&["one mistake".to_owned(), "another".to_owned()]);
    let counted = |result: &str| bench.value(&format!(r#"cdc_consumer_config_reloads_total{{result="{result}"}}"#));
    assert_eq!(["applied", "refused"].map(counted), [1.0, 1.0]);
    assert_eq!(bench.telemetry.troubles()[0].what, "configuration refused");
    let lines = bench.lines();
    assert_eq!(lines[0]["changed"], "log.level, retry.max");
    let errors: Vec<_> = lines[1..].iter().map(|line| (&line["level"], &line["error"])).collect();
    assert_eq!(errors, [(&"error".into(), &"one mistake".into()), (&"error".into(), &"another".into())]);
}

#[test]
fn liveness_needs_a_beat_of_every_actor_within_the_limit() {
    let bench = Bench::new();
    let status = bench.telemetry.status();
    assert!(status.liveness().alive, "nobody is under watch yet");
    status.heartbeat("ingest");
    status.heartbeat("transform-1");
    bench.clock.advance(HEARTBEAT_LIMIT);
    status.heartbeat("ingest");
    assert!(status.liveness().alive);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(
        status.liveness().silent.iter().map(|s| (s.actor.as_str(), s.seconds)).collect::<Vec<_>>(),
        [("transform-1", 31)]
    );
    status.forget("transform-1");
    assert!(status.liveness().alive);
}

#[test]
fn troubles_are_one_of_a_kind_bounded_and_the_newest_first() {
    let bench = Bench::new();
    let restarted = |actor| bench.see(Event::ActorRestarted { actor });
    restarted("ingest");
    bench.clock.advance(Duration::from_secs(1));
    bench.see(Event::GuardTripped { why: &"é".repeat(2 * SHOWN) });
    restarted("ingest");
    let troubles = bench.telemetry.troubles();
    let told: Vec<_> = troubles.iter().map(|t| (t.what, t.with.as_str(), t.times)).collect();
    assert_eq!(told, [("actor died and was built again", "ingest", 2), ("guard tripped", "service", 1)]);
    assert_eq!(troubles[0].first, "2023-11-14T22:13:20.000Z");
    assert_eq!(troubles[0].last, "2023-11-14T22:13:21.000Z");
    assert_eq!(troubles[1].error.chars().count(), SHOWN);
    for reason in Reason::ALL {
        for table in [None, Some("chats"), Some("agents")] {
            bench.see(Event::DeadLettered { id: ID, subject: "a.b", table, reason: *reason, detail: "d" });
        }
    }
    let troubles = bench.telemetry.troubles();
    assert_eq!(troubles.len(), KEPT);
    assert_eq!(troubles[0].with, "agents refused");
}

#[test]
fn waiting_at_the_start_is_logged_and_remembered_without_secrets() {
    let bench = Bench::new();
    bench.telemetry.waiting(Dependency::Source, &failure());
    let lines = bench.telemetry.troubles();
    assert_eq!((lines[0].what, lines[0].with.as_str()), ("waiting for a dependency", "source"));
    assert!(lines[0].error.contains("redis://***@h"), "{:?}", lines[0]);
    let up = "cdc_consumer_dependency_up{dependency=\"source\"}";
    let named = || -> Vec<_> {
        bench.telemetry.status().readiness().reasons.into_iter().map(|reason| reason.dependency).collect()
    };
    assert_eq!((bench.value(up), named()), (0.0, vec!["service", "source"]), "what is waited for is down");
    bench.telemetry.reached(Dependency::Source);
    assert_eq!((bench.value(up), named()), (1.0, vec!["service"]));
    assert_eq!(bench.lines()[0]["msg"], "waiting for a dependency");
}
