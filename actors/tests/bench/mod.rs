//! A pipeline on fakes. Every port is watched: no acknowledgement may come before what it confirms is stored.
#![allow(dead_code, reason = "each test file uses its part")]

mod watched;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdc_actors::guard::{GuardSettings, RestartLimit};
use cdc_actors::message::{
    CommitPosition, Decision, Delivery, DeliveryId, Event, EventKey, OrderKey, Reason, Remarks, Settle, Settlement,
    Verdict,
};
use cdc_actors::pipeline::{self, Changes, Pipeline, Ports};
use cdc_actors::ports::{Budget, Clock, DeadLetters, DedupStore, Dependency, Observer, Publisher, Source, Transform};
use cdc_actors::retry::Backoff;
use cdc_actors::shared::{Patience, Settings};
use cdc_actors::supervisor::Ended;
use cdc_actors::telemetry::{Outcome, PauseReason};
use cdc_actors::testkit::{
    FakeDeadLetters, FakeDedupStore, FakePublisher, FakeSource, ManualClock, Observed, RecordingObserver,
};
use watched::{Watch, Watched};

/// More calls than any test makes.
pub const FOR_EVER: usize = 1_000_000;
/// A grace of which more is left near its end than any test takes.
pub const LONG_GRACE: Duration = Duration::from_secs(1_000);
/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(20);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test inside an actix system.
pub fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

/// Reads payloads of the form `row lsn action [subject]`. What is `dated` was committed when the clock stood at its start.
pub struct Orders;

struct Parts<'a> {
    row: &'a str,
    lsn: u64,
    action: &'a str,
    subject: Option<&'a str>,
}

fn parts(payload: &[u8]) -> Parts<'_> {
    let mut words = std::str::from_utf8(payload).expect("text").split(' ');
    let mut next = || words.next();
    Parts {
        row: next().expect("a row"),
        lsn: next().and_then(|lsn| lsn.parse().ok()).expect("an lsn"),
        action: next().expect("an action"),
        subject: next(),
    }
}

fn order_key(row: &str) -> OrderKey {
    OrderKey(row.bytes().fold(7, |hash: u128, byte| hash.wrapping_mul(31).wrapping_add(u128::from(byte))))
}

/// The key under which `row lsn` is published.
pub fn key(row: &str, lsn: u64) -> EventKey {
    EventKey::new(format!("{row}:{lsn}")).expect("legal")
}

/// Tells that intake was paused for a dependency, or resumed.
pub fn paused_for(dependency: Dependency, wanted: bool) -> impl Fn(&Observed) -> bool {
    let reason_wanted = PauseReason::Dependency(dependency);
    move |event| matches!(event, Observed::Paused { reason, paused } if *reason == reason_wanted && *paused == wanted)
}

/// The delivery with this sequence, as a suspect: one that was fed before the clock moved.
pub fn suspect(sequence: u64) -> DeliveryId {
    DeliveryId { stream_created: ManualClock::EPOCH_NANOS, sequence, timestamp: ManualClock::EPOCH_NANOS }
}

impl Transform for Orders {
    type Parsed = ();

    fn order(&self, delivery: &Delivery) -> (OrderKey, ()) {
        let parts = parts(&delivery.payload);
        assert!(parts.action != "panic_order", "told to panic in order");
        (order_key(parts.row), ())
    }

    fn decide(&self, delivery: &Delivery, (): ()) -> Decision {
        let Parts { row, lsn, action, subject } = parts(&delivery.payload);
        let mut remarks = Remarks::default();
        let verdict = match action {
            "skip" => Verdict::Skip { table: None },
            "leave_out" => Verdict::Skip { table: Some("orders") },
            "poison" => {
                Verdict::DeadLetter { table: Some("orders"), reason: Reason::WrongShape, detail: "poison".to_owned() }
            }
            "panic_decide" => panic!("told to panic in decide"),
            action => {
                if action == "remark" {
                    remarks.unhandled_fields.push("extra".to_owned());
                }
                Verdict::Publish(Arc::new(Event {
                    key: key(row, lsn),
                    event_id: format!("{lsn}:orders:{row}").into(),
                    table: "orders",
                    subject: subject.map_or_else(|| format!("out.{row}").into(), Into::into),
                    headers: Vec::new(),
                    payload: delivery.payload.clone(),
                    position: Some(CommitPosition { lsn, idx: 0 }),
                    committed: (action == "dated").then_some(ManualClock::EPOCH_NANOS / 1_000),
                }))
            }
        };
        Decision { verdict, remarks }
    }
}

/// The fakes, watched.
#[derive(Clone)]
pub struct Fakes {
    pub clock: ManualClock,
    pub source: Arc<FakeSource>,
    pub dedup: Arc<FakeDedupStore>,
    pub publisher: Arc<FakePublisher>,
    pub dead_letters: Arc<FakeDeadLetters>,
    pub observer: Arc<RecordingObserver>,
    pub watch: Arc<Watch>,
    fed: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Fakes {
    pub fn new(ack_wait: Duration) -> Self {
        let clock = ManualClock::new();
        Self {
            source: Arc::new(FakeSource::new(clock.clone(), ack_wait)),
            dedup: Arc::new(FakeDedupStore::new(clock.clone(), Duration::from_secs(3_600))),
            publisher: Arc::new(FakePublisher::new(7)),
            dead_letters: Arc::default(),
            observer: Arc::default(),
            watch: Arc::default(),
            fed: Arc::default(),
            clock,
        }
    }

    pub fn feed(&self, payload: impl Into<String>) -> u64 {
        let payload = payload.into();
        let mut fed = lock(&self.fed);
        let sequence = self.source.feed("in.orders", Vec::new(), payload.clone());
        fed.insert(sequence, payload);
        sequence
    }

    /// Feeds changes of a row, one for each LSN.
    pub fn feed_row(&self, row: &str, lsns: RangeInclusive<u64>) {
        for lsn in lsns {
            self.feed(format!("{row} {lsn} publish"));
        }
    }

    pub fn is_stored(&self, key: &EventKey) -> bool {
        self.publisher.stored().iter().any(|message| message.header("Nats-Msg-Id") == Some(key.as_str()))
    }

    fn settled(&self, settlements: &[Settlement]) {
        for Settlement { receipt, settle } in settlements {
            if *settle == Settle::InProgress {
                continue;
            }
            lock(&self.watch.outstanding).remove(&receipt.id);
            if *settle == Settle::Ack {
                self.acknowledged(receipt.id);
            }
        }
    }

    fn acknowledged(&self, id: DeliveryId) {
        let payload = lock(&self.fed)[&id.sequence].clone();
        let Parts { row, lsn, action, .. } = parts(payload.as_bytes());
        let buried = self.dead_letters.stored().iter().any(|letter| letter.delivery.receipt.id == id);
        let key = key(row, lsn);
        let stored = self.is_stored(&key);
        if !(buried || stored || matches!(action, "skip" | "leave_out")) {
            lock(&self.watch.violations).push(format!("{payload:?} was acknowledged before it was stored"));
        }
        if stored && self.dedup.get(&key).is_none() {
            *lock(&self.watch.acks_without_record) += 1;
        }
    }

    fn pulled(&self, deliveries: &[Delivery]) {
        let mut outstanding = lock(&self.watch.outstanding);
        outstanding.extend(deliveries.iter().map(|delivery| (delivery.receipt.id, delivery.size())));
        let mut most = lock(&self.watch.most);
        *most = (most.0.max(outstanding.len()), most.1.max(outstanding.values().sum()));
    }
}

/// Settings under which everything happens within milliseconds and nothing gives up.
pub fn settings() -> Settings {
    Settings {
        workers: 3,
        threads: 2,
        batch: 50,
        in_flight: Budget { messages: 100, bytes: 100_000 },
        largest_message: 1_000,
        max_ack_pending: 1_000,
        ack_wait: Duration::from_secs(3),
        suspect_after: 5,
        record_patience: Duration::from_secs(5),
        bypass_dedup: false,
        backoff: Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(20) },
        refused_for: Duration::from_secs(60),
        guard: GuardSettings {
            max_consecutive_failures: 1_000_000,
            min_duration: Duration::from_secs(600),
            max_duration: Duration::from_secs(3_600),
        },
        restarts: RestartLimit { deaths: 5, window: Duration::from_secs(60) },
        grace: Duration::from_secs(10),
        remembered_rows: 10_000,
        remembered_deliveries: 10_000,
    }
}

/// A running pipeline on fakes.
pub struct Bench {
    pub fakes: Fakes,
    pipeline: Pipeline,
    ticking: actix_rt::task::JoinHandle<()>,
}

impl std::ops::Deref for Bench {
    type Target = Fakes;

    fn deref(&self) -> &Fakes {
        &self.fakes
    }
}

impl Bench {
    /// Starts a pipeline.
    pub fn start(settings: Settings) -> Self {
        Self::start_on(Fakes::new(settings.ack_wait), settings)
    }

    /// Starts a pipeline on fakes that are prepared. Their clock goes with the machine's and can be moved on besides.
    pub fn start_on(fakes: Fakes, settings: Settings) -> Self {
        let clock = fakes.clock.clone();
        let ticking = actix_rt::spawn(async move {
            let mut last = Instant::now();
            loop {
                actix_rt::time::sleep(Duration::from_millis(2)).await;
                let now = Instant::now();
                clock.advance(now - last);
                last = now;
            }
        });
        let watched = Arc::new(Watched(fakes.clone()));
        let ports = Ports {
            source: Arc::clone(&watched) as Arc<dyn Source>,
            transform: Arc::new(Orders),
            dedup: Arc::clone(&watched) as Arc<dyn DedupStore>,
            publisher: Arc::clone(&watched) as Arc<dyn Publisher>,
            dead_letters: Arc::clone(&watched) as Arc<dyn DeadLetters>,
            observer: watched as Arc<dyn Observer>,
            clock: Arc::new(fakes.clock.clone()) as Arc<dyn Clock>,
        };
        Self { fakes, pipeline: pipeline::start(ports, settings), ticking }
    }

    /// Waits until the condition holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Fakes) -> bool) {
        let start = Instant::now();
        while !holds(&self.fakes) {
            if start.elapsed() > DEADLINE {
                let events = self.observer.events();
                let last = &events[events.len().saturating_sub(30)..];
                panic!("never came: {what}; unacknowledged {:?}; last seen {last:#?}", self.source.unacknowledged());
            }
            actix_rt::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the clock has gone on so far: for what would have happened by then.
    pub async fn until_after(&self, time: Duration) {
        let end = self.clock.elapsed() + time;
        self.until("time goes by", |fakes| fakes.clock.elapsed() >= end).await;
    }

    /// Waits until the source has nothing left.
    pub async fn until_done(&self) {
        self.until("everything is acknowledged", |fakes| fakes.source.unacknowledged().is_empty()).await;
        self.check();
    }

    /// What must hold at any time.
    pub fn check(&self) {
        assert_eq!(*lock(&self.watch.violations), Vec::<String>::new());
        self.check_stored_once();
        self.check_order();
    }

    fn check_stored_once(&self) {
        let stored = self.publisher.stored();
        let ids: BTreeSet<_> = stored.iter().map(|message| message.header("Nats-Msg-Id")).collect();
        assert_eq!(ids.len(), stored.len(), "something was stored twice");
    }

    fn check_order(&self) {
        let mut newest: HashMap<String, u64> = HashMap::new();
        for message in self.publisher.stored() {
            let Parts { row, lsn, .. } = parts(&message.payload);
            let newest = newest.entry(row.to_owned()).or_default();
            assert!(lsn > *newest || message.header("Cdc-Late").is_some(), "{row}: {lsn} after {newest}, unmarked");
            *newest = lsn.max(*newest);
        }
    }

    /// The lsns of a row in the order they were stored.
    pub fn row(&self, wanted: &str) -> Vec<u64> {
        let stored = self.publisher.stored();
        let of_row = stored.iter().map(|message| parts(&message.payload)).filter(|parts| parts.row == wanted);
        of_row.map(|parts| parts.lsn).collect()
    }

    /// Whether intake is paused for this reason now, as far as was told.
    pub fn is_paused(&self, wanted: PauseReason) -> bool {
        let events = self.observer.events();
        let told = events.iter().rev().find_map(|event| match event {
            Observed::Paused { reason, paused } if *reason == wanted => Some(*paused),
            _ => None,
        });
        told.unwrap_or(false)
    }

    pub fn restarts(&self, name: &str) -> usize {
        self.observer.count(|event| matches!(event, Observed::ActorRestarted { actor } if *actor == name))
    }

    pub fn settled(&self, outcome: Outcome) -> usize {
        self.observer.settled(outcome)
    }

    /// Naks of a sequence.
    pub fn naks(&self) -> Vec<u64> {
        let naks = self.source.settlements().into_iter().filter(|s| matches!(s.settle, Settle::Nak(_)));
        naks.map(|settlement| settlement.receipt.id.sequence).collect()
    }

    /// What makes changes between events.
    pub fn changes(&self) -> Changes {
        self.pipeline.changes()
    }

    /// How long failures are borne from now on.
    pub fn set_patience(&self, patience: Patience) {
        self.pipeline.set_patience(patience);
    }

    /// Asks for the controlled shutdown.
    pub fn ask_to_stop(&self) {
        self.pipeline.shutdown();
    }

    /// Likewise, with [`LONG_GRACE`], and goes on to near its end: what has not been sent goes back from then on.
    pub async fn ask_to_stop_and_go_on(&self) {
        self.ask_to_stop();
        self.until("intake has ended", |fakes| fakes.source.stopped()).await;
        self.clock.advance(LONG_GRACE.mul_f64(0.8));
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> Ended {
        let ended = actix_rt::time::timeout(DEADLINE, self.pipeline.ended()).await.expect("an end");
        self.ticking.abort();
        self.check();
        ended
    }

    /// Controlled shutdown, then everything must be settled.
    pub async fn stop(mut self) {
        self.ask_to_stop();
        let ended = self.ended().await;
        assert!(ended.drained, "{ended:?}");
    }
}
