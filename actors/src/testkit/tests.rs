//! The fakes, held to the contracts of the real things, and what only fakes can do.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tokio::sync::mpsc::unbounded_channel;

use super::contract::{
    DeadLetterBench, PublisherBench, SourceBench, dead_letters_contract, dedup_store_contract,
    malformed_records_contract, publisher_contract, source_contract,
};
use super::{
    FakeDeadLetters, FakeDedupStore, FakePublisher, FakeSource, ManualClock, Observed, RecordingObserver,
    StoredMessage, unavailable,
};
use crate::message::{EventKey, Record, Settle, Settlement};
use crate::ports::{Budget, Clock, DeadLetters, DedupStore, Observer, Publisher, Source};
use crate::telemetry::{Outcome, Telemetry};

const MINUTE: Duration = Duration::from_secs(60);

fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

struct SourceFake {
    source: FakeSource,
    clock: ManualClock,
}

impl SourceFake {
    fn new() -> Self {
        let clock = ManualClock::new();
        Self { source: FakeSource::new(clock.clone(), MINUTE), clock }
    }
}

impl SourceBench for SourceFake {
    fn source(&self) -> &dyn Source {
        &self.source
    }
    fn feed<'a>(&'a self, payload: &'a str) -> BoxFuture<'a, ()> {
        self.source.feed("changes.t", Vec::new(), payload.to_owned());
        ready(()).boxed()
    }
    fn ack_wait(&self) -> Duration {
        MINUTE
    }
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(time);
        ready(()).boxed()
    }
}

impl PublisherBench for FakePublisher {
    fn publisher(&self) -> &dyn Publisher {
        self
    }
    fn subject(&self, name: &str) -> String {
        format!("out.{name}")
    }
    fn missing_subject(&self) -> String {
        "nowhere".to_owned()
    }
    fn max_payload(&self) -> usize {
        1024 * 1024
    }
    fn stored(&self) -> BoxFuture<'_, Vec<StoredMessage>> {
        ready(FakePublisher::stored(self)).boxed()
    }
}

impl DeadLetterBench for FakeDeadLetters {
    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }
    fn payloads(&self) -> BoxFuture<'_, Vec<Bytes>> {
        ready(self.stored().iter().map(|letter| letter.delivery.payload.clone()).collect()).boxed()
    }
}

#[test]
fn the_fake_source_keeps_the_contract() {
    run(async { source_contract(&SourceFake::new()).await });
}

#[test]
fn the_fake_publisher_keeps_the_contract() {
    let publisher = FakePublisher::new(1);
    publisher.refuse("nowhere");
    run(async { publisher_contract(&publisher).await });
}

#[test]
fn the_fake_dead_letters_keep_the_contract() {
    run(async { dead_letters_contract(&FakeDeadLetters::default()).await });
}

#[test]
fn the_fake_dedup_store_keeps_the_contract() {
    let clock = ManualClock::new();
    let store = FakeDedupStore::new(clock.clone(), MINUTE);
    run(async {
        dedup_store_contract(&store, MINUTE, async |time| clock.advance(time)).await;
        malformed_records_contract(&store, async |key, text| store.plant(key, text)).await;
    });
}

#[test]
fn fakes_fail_as_often_as_they_are_told() {
    let store = FakeDedupStore::new(ManualClock::new(), MINUTE);
    let pair = |name: &str| (EventKey::new(name).unwrap(), Record { stream_created: 1, generation: 1, sequence: 1 });
    run(async {
        store.faults.fail_next("check", 2, unavailable());
        store.faults.fail_next("record key", 1, unavailable());
        assert!(store.check(Vec::new()).await.is_err());
        assert!(store.check(Vec::new()).await.is_err());
        assert!(store.check(Vec::new()).await.is_ok());
        assert_eq!(store.faults.calls("check"), 3);
        let results = store.record(vec![pair("a"), pair("b")]).await.unwrap();
        assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true], "one key fails alone");
        assert_eq!((store.get(&pair("a").0), store.get(&pair("b").0)), (None, Some(pair("b").1)));
    });
}

#[test]
fn a_lost_answer_leaves_the_event_stored() {
    let publisher = FakePublisher::new(1);
    publisher.faults.fail_next("publish unanswered", 1, unavailable());
    publisher.hold();
    run(async {
        let (sender, mut answers) = unbounded_channel();
        let event = crate::message::Event {
            key: EventKey::new("k").unwrap(),
            event_id: "k".into(),
            table: "orders",
            subject: "out".into(),
            headers: Vec::new(),
            payload: Bytes::new(),
            position: None,
            committed: None,
        };
        let attempt = crate::message::Attempt { ticket: 7, event: event.into(), late: None };
        publisher.publish(vec![attempt.clone(), attempt], sender).await;
        assert_eq!((publisher.held(), answers.try_recv().is_err()), (2, true), "answers are kept back");
        publisher.release();
        assert!(answers.recv().await.unwrap().outcome.is_err());
        assert!(answers.recv().await.unwrap().outcome.unwrap().duplicate, "the first was stored all the same");
        publisher.regress_to(0);
        assert_eq!((publisher.target().await.unwrap().last_sequence, publisher.stored().len()), (0, 0));
    });
}

#[test]
fn a_new_life_of_the_source_takes_no_old_receipts() {
    let bench = SourceFake::new();
    run(async {
        bench.feed("old").await;
        let old = bench.source.pull(Budget { messages: 1, bytes: 1 << 20 }).await.unwrap();
        bench.source.begin_new_life();
        bench.feed("new").await;
        let settlement = Settlement { receipt: old[0].receipt.clone(), settle: Settle::Ack };
        bench.source.settle(vec![settlement]).await.unwrap();
        assert_eq!(bench.source.unacknowledged(), [1], "the same sequence of the successor stays");
        bench.source.arrive_at_stop(1);
        assert_eq!(bench.source.stop().await.len(), 1);
        assert!(bench.source.stopped());
    });
}

#[test]
fn the_clock_moves_only_when_told() {
    let clock = ManualClock::new();
    let before = (clock.now(), clock.unix_nanos());
    assert_eq!((clock.now(), clock.unix_nanos()), before);
    clock.clone().advance(MINUTE);
    assert_eq!((clock.now(), clock.unix_nanos()), (before.0 + MINUTE, before.1 + 60_000_000_000));
}

#[test]
fn the_observer_remembers_in_order() {
    let observer = RecordingObserver::default();
    observer.observe(Telemetry::SubjectMismatch {
        id: crate::message::DeliveryId { stream_created: 1, sequence: 2, timestamp: 3 },
        detail: "x",
    });
    observer.observe(Telemetry::Settled { table: None, outcome: Outcome::Skipped, took: Duration::ZERO });
    assert_eq!((observer.settled(Outcome::Skipped), observer.settled(Outcome::Processed)), (1, 0));
    assert!(matches!(&observer.events()[0], Observed::SubjectMismatch { detail, .. } if detail == "x"));
    observer.clear();
    assert!(observer.events().is_empty());
}
