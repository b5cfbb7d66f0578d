//! The JetStream adapters against real servers, the oldest and the newest supported alike.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use cdc_actors::message::{
    Answer, Attempt, DeadLetter, Delivery, DeliveryId, Event, EventKey, Headers, Late, Reason, Receipt, Settle,
    Settlement,
};
use cdc_actors::ports::{Budget, DeadLetters, FailureClass, PublishError, Publisher, Source};
use daisi_cdc_consumer::adapters::nats::{
    Connection, ConsumerSettings, DeadLetterSettings, JetStreamDeadLetters, JetStreamPublisher, JetStreamSource,
    NatsConfig, Plan, PublisherSettings, SetupError, SourceSettings, StreamSettings, streams,
};
use support::nats::{NatsServer, nats_servers};
use tokio::sync::mpsc;

const WIDE: Budget = Budget { messages: 1000, bytes: 64 << 20 };

async fn connect(server: &NatsServer) -> Connection {
    Connection::connect(&NatsConfig::new(vec![server.url()], 4096), |_| {}).await.unwrap()
}

fn source_settings(ack_wait: Duration) -> SourceSettings {
    SourceSettings {
        stream: StreamSettings::new("IN", vec!["in.>".to_owned()]),
        consumer: ConsumerSettings {
            name: "c".to_owned(),
            filters: vec!["in.>".to_owned()],
            ack_wait,
            max_ack_pending: 5000,
            max_deliver: None,
            batch: 500,
        },
    }
}

fn source(connection: &Connection, ack_wait: Duration) -> JetStreamSource {
    JetStreamSource::new(connection.clone(), source_settings(ack_wait), |note| panic!("{note}"))
}

/// Feeds messages `from..to` with confirmed publishes.
async fn feed(connection: &Connection, range: std::ops::Range<usize>, size: usize) {
    let context = jetstream::new(connection.client().clone());
    for i in range {
        let mut body = format!("{i};").into_bytes();
        body.resize(body.len().max(size), b'x');
        context.publish(format!("in.{}", i % 7), body.into()).await.unwrap().await.unwrap();
    }
}

fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.payload).unwrap().split(';').next().unwrap().parse().unwrap()
}

/// Pulls until `count` have come, at most 20 s, going on after failures.
async fn pull_count(source: &JetStreamSource, count: usize, budget: Budget) -> Vec<Delivery> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} came", all.len());
        match source.pull(budget).await {
            Ok(batch) => {
                assert!(batch.len() <= budget.messages, "{} messages", batch.len());
                let bytes: usize = batch.iter().map(Delivery::size).sum();
                assert!(bytes <= budget.bytes, "{bytes} bytes");
                all.extend(batch);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    all
}

fn settlements(deliveries: &[Delivery], settle: Settle) -> Vec<Settlement> {
    deliveries.iter().map(|d| Settlement { receipt: d.receipt.clone(), settle }).collect()
}

/// Settles, again after failures, within 20 s.
async fn settle(source: &JetStreamSource, settlements: Vec<Settlement>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(failure) = source.settle(settlements.clone()).await {
        assert!(Instant::now() < deadline, "{failure}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

macro_rules! on_every_server {
    ($($name:ident)*) => { mod on_every_server { $(
        #[tokio::test]
        async fn $name() {
            for binary in super::nats_servers() {
                super::$name(&binary).await;
            }
        }
    )* } };
}

on_every_server! {
    pulls_stay_within_the_budget
    unacknowledged_deliveries_come_again
    settlements_do_what_they_say
    the_backlog_tells_the_oldest
    pulling_survives_a_restart
    an_abandoned_pull_loses_nothing
    a_deleted_consumer_is_built_again
    receipts_of_a_deleted_stream_are_dropped
    stopping_hands_back_what_has_arrived
    setup_creates_and_checks
    an_existing_consumer_is_brought_up_to_date
    publishes_are_pipelined_and_deduplicated
    publishing_to_a_stopped_server_fails_fast
    a_crash_leaves_no_publish_unanswered
    what_a_frozen_server_swallows_is_answered
    an_answer_that_comes_too_late_is_ignored
    too_large_events_are_told
    a_missing_target_is_a_failure
    a_full_target_is_a_failure
    a_target_created_anew_is_noticed
    a_missing_permission_is_told
    dead_letters_carry_their_story
    huge_dead_letters_are_split
}

async fn pulls_stay_within_the_budget(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    source.stop().await;
    feed(&connection, 0..300, 4000).await;
    // Room for 10 messages, then for bytes of about 4.
    let few = pull_count(&source, 100, Budget { messages: 10, bytes: 64 << 20 }).await;
    let small = pull_count(&source, 100, Budget { messages: 500, bytes: 17_000 }).await;
    let rest = 300 - few.len() - small.len();
    let rest = pull_count(&source, rest, WIDE).await;
    let all: Vec<usize> = few.iter().chain(&small).chain(&rest).map(number).collect();
    assert_eq!(all, (0..300).collect::<Vec<_>>());
    settle(&source, settlements(&few, Settle::Ack)).await;
}

async fn unacknowledged_deliveries_come_again(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(1));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..3, 0).await;
    let first = pull_count(&source, 3, WIDE).await;
    assert!(first.iter().all(|d| d.deliveries == 1));
    let again = pull_count(&source, 3, WIDE).await;
    assert!(again.iter().all(|d| d.deliveries == 2));
    assert_eq!(first[0].receipt.id, again[0].receipt.id);
}

async fn settlements_do_what_they_say(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(2));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..3, 0).await;
    let all = pull_count(&source, 3, WIDE).await;
    settle(&source, settlements(&all[..1], Settle::Ack)).await;
    settle(&source, settlements(&all[1..2], Settle::Nak(Duration::from_millis(300)))).await;
    source.confirm_settled().await.unwrap();
    let start = Instant::now();
    let back = pull_count(&source, 1, WIDE).await;
    assert_eq!(number(&back[0]), 1, "the one that was handed back, before ack_wait");
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    settle(&source, settlements(&back, Settle::Ack)).await;
    // Kept alive for longer than ack_wait, the last one does not come again.
    let alive = Instant::now();
    while alive.elapsed() < Duration::from_secs(4) {
        settle(&source, settlements(&all[2..], Settle::InProgress)).await;
        assert!(source.pull(WIDE).await.unwrap().is_empty());
    }
    settle(&source, settlements(&all[2..], Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, None).await;
}

/// Until nothing is pending and the oldest unacknowledged message is this one: the server has received acks that it has yet to
/// count.
async fn until_oldest(source: &JetStreamSource, oldest: Option<i64>) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let backlog = source.backlog().await.unwrap();
        if backlog.oldest_unacknowledged == oldest {
            assert_eq!(backlog.pending, 0);
            return;
        }
        assert!(Instant::now() < deadline, "{backlog:?}");
    }
}

async fn the_backlog_tells_the_oldest(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    assert_eq!(source.backlog().await.unwrap_err().class, FailureClass::Missing);
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..10, 0).await;
    let all = pull_count(&source, 10, WIDE).await;
    settle(&source, settlements(&all[..4], Settle::Ack)).await;
    settle(&source, settlements(&all[5..6], Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, Some(all[4].receipt.id.timestamp)).await;
}

async fn pulling_survives_a_restart(binary: &Path) {
    let mut server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..10, 0).await;
    let before = pull_count(&source, 10, WIDE).await;
    server.kill();
    let start = Instant::now();
    while source.pull(WIDE).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "the loss of the connection goes unnoticed");
    }
    let failure = source.settle(settlements(&before, Settle::Ack)).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Disconnected);
    server.restart();
    settle(&source, settlements(&before, Settle::Ack)).await;
    feed(&connection, 10..20, 0).await;
    // A killed server may have forgotten the deliveries right before, and repeat them; nothing new may be missing.
    let mut after = Vec::new();
    let new = |after: &[Delivery]| after.iter().map(number).filter(|n| *n >= 10).collect::<Vec<_>>();
    while new(&after).len() < 10 {
        after.extend(pull_count(&source, 1, WIDE).await);
    }
    assert_eq!(new(&after), (10..20).collect::<Vec<_>>());
    assert_eq!(before[0].receipt.id.stream_created, after[0].receipt.id.stream_created);
}

async fn an_abandoned_pull_loses_nothing(binary: &Path) {
    const COUNT: usize = 2000;
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    // So long that nothing comes a second time within this test: what were lost would not come at all.
    let source = source(&connection, Duration::from_secs(60));
    let budget = Budget { messages: 7, ..WIDE };
    // Stream and consumer are there, and a request is open.
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    let pull = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        let (mut got, mut cut, mut patience) = (Vec::new(), 0, 0);
        while got.len() < COUNT {
            assert!(Instant::now() < deadline, "only {} of {COUNT} came", got.len());
            patience = (patience + 37) % 1000;
            match tokio::time::timeout(Duration::from_micros(patience), source.pull(budget)).await {
                Ok(batch) => got.extend(batch.unwrap()),
                Err(_) => cut += 1,
            }
        }
        (got, cut)
    };
    let ((got, cut), ()) = tokio::join!(pull, feed(&connection, 0..COUNT, 0));
    assert!(cut > 10, "only {cut} pulls were abandoned");
    assert!(got.iter().map(number).eq(0..COUNT), "each in its place");
    assert!(got.iter().all(|delivery| delivery.deliveries == 1), "each for the first time");
    settle(&source, settlements(&got, Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, None).await;
}

async fn a_deleted_consumer_is_built_again(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    source.pull(WIDE).await.unwrap();
    let context = jetstream::new(connection.client().clone());
    context.delete_consumer_from_stream("c", "IN").await.unwrap();
    feed(&connection, 0..5, 0).await;
    assert_eq!(pull_count(&source, 5, WIDE).await.len(), 5);
}

async fn receipts_of_a_deleted_stream_are_dropped(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(2));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..5, 0).await;
    let old = pull_count(&source, 5, WIDE).await;
    jetstream::new(connection.client().clone()).delete_stream("IN").await.unwrap();
    // Looks everything up again, and creates the stream anew.
    let deadline = Instant::now() + Duration::from_secs(15);
    while streams::find_stream(&connection, "IN").await.unwrap().is_none() {
        assert!(Instant::now() < deadline, "the stream is not created again");
        let _ = source.pull(WIDE).await;
    }
    feed(&connection, 100..105, 0).await;
    let new = pull_count(&source, 5, WIDE).await;
    assert_eq!(new[0].receipt.id.sequence, old[0].receipt.id.sequence);
    assert_ne!(new[0].receipt.id, old[0].receipt.id);
    settle(&source, settlements(&old, Settle::Ack)).await;
    // Were they taken for the new ones, these would not come again.
    let again = pull_count(&source, 5, WIDE).await;
    assert_eq!(again.iter().map(number).collect::<Vec<_>>(), (100..105).collect::<Vec<_>>());
}

async fn stopping_hands_back_what_has_arrived(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..50, 0).await;
    let first = pull_count(&source, 1, Budget { messages: 1, bytes: 64 << 20 }).await;
    let rest = source.stop().await;
    let mut numbers: Vec<usize> = first.iter().chain(&rest).map(number).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    settle(&source, settlements(&first, Settle::Ack)).await;
    settle(&source, settlements(&rest, Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    // Nothing is stranded: what was not handed out comes with the next pull.
    if numbers.len() < 50 {
        numbers.extend(pull_count(&source, 50 - numbers.len(), WIDE).await.iter().map(number));
    }
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

async fn setup_creates_and_checks(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let mut settings = StreamSettings::new("OUT", vec!["out.>".to_owned()]);
    assert_eq!(streams::plan_stream(&connection, &settings).await.unwrap(), Plan::Create);
    settings.create = false;
    assert!(matches!(streams::ensure_stream(&connection, &settings).await, Err(SetupError::MissingStream(_))));
    assert!(streams::plan_stream(&connection, &settings).await.is_err());
    settings.create = true;
    settings.duplicate_window = Some(Duration::from_secs(59));
    let refused = streams::ensure_target(&connection, &settings, Duration::from_secs(30)).await;
    assert!(matches!(refused, Err(SetupError::DuplicateWindow { .. })), "{refused:?}");
    streams::ensure_target(&connection, &settings, Duration::from_secs(29)).await.unwrap();
    assert_eq!(streams::plan_stream(&connection, &settings).await.unwrap(), Plan::Use);
    let overlapping = StreamSettings::new("OTHER", vec!["out.x".to_owned()]);
    let refused = streams::ensure_stream(&connection, &overlapping).await;
    assert!(matches!(refused, Err(SetupError::NotCreated { .. })), "{refused:?}");
}

async fn an_existing_consumer_is_brought_up_to_date(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let SourceSettings { mut stream, mut consumer } = source_settings(Duration::from_secs(30));
    stream.subjects = vec!["a.>".to_owned(), "b.>".to_owned()];
    consumer.filters = stream.subjects.clone();
    streams::ensure_stream(&connection, &stream).await.unwrap();
    let subjects = &stream.subjects;
    assert_eq!(streams::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), Plan::Create);
    assert_eq!(streams::ensure_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), vec![]);
    assert_eq!(streams::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), Plan::Use);
    consumer.ack_wait = Duration::from_secs(17);
    consumer.max_ack_pending = 77;
    let plan = streams::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap();
    assert_eq!(plan, Plan::Update(vec!["ack_wait".to_owned(), "max_ack_pending".to_owned()]));
    assert_eq!(streams::ensure_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), vec![]);
    assert_eq!(streams::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), Plan::Use);
    // Filters other than the stream's own subjects need a server that knows several.
    consumer.filters = vec!["a.x".to_owned(), "b.x".to_owned()];
    let result = streams::ensure_consumer(&connection, "IN", subjects, &consumer).await;
    if connection.client().is_server_compatible(2, 10, 0) {
        assert_eq!(result.unwrap(), vec![]);
    } else {
        assert!(matches!(result, Err(SetupError::Filters { .. })), "{result:?}");
    }
}

fn event(key: &str, subject: &str, payload: impl Into<Bytes>) -> Arc<Event> {
    Arc::new(Event {
        key: EventKey::new(key).unwrap(),
        event_id: key.into(),
        table: "messages",
        subject: subject.into(),
        headers: vec![("traceparent".to_owned(), "00-a\r\nNats-Rollup: all".to_owned())],
        payload: payload.into(),
        position: None,
        committed: None,
    })
}

fn attempts(events: impl IntoIterator<Item = Arc<Event>>) -> Vec<Attempt> {
    (0..).zip(events).map(|(ticket, event)| Attempt { ticket, event, late: None }).collect()
}

async fn publish(publisher: &JetStreamPublisher, attempts: Vec<Attempt>) -> Vec<Answer> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let count = attempts.len();
    publisher.publish(attempts, sender).await;
    let mut answers = Vec::new();
    while let Some(answer) = receiver.recv().await {
        answers.push(answer);
    }
    assert_eq!(answers.len(), count, "each attempt is answered exactly once");
    answers.sort_by_key(|answer| answer.ticket);
    answers
}

async fn publisher(connection: &Connection) -> JetStreamPublisher {
    JetStreamPublisher::new(connection.clone(), PublisherSettings::new("OUT")).await.unwrap()
}

async fn target(connection: &Connection) -> JetStreamPublisher {
    streams::ensure_stream(connection, &StreamSettings::new("OUT", vec!["out.>".to_owned()])).await.unwrap();
    publisher(connection).await
}

async fn publishes_are_pipelined_and_deduplicated(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    // Every key twice in a row.
    let batch = attempts((0..1000).map(|i| event(&format!("k{}", i / 2), "out.a", format!("{i}"))));
    let answers = publish(&publisher, batch).await;
    let stored: Vec<_> = answers.into_iter().map(|answer| answer.outcome.unwrap()).collect();
    for (i, stored) in stored.iter().enumerate() {
        assert_eq!((stored.sequence, stored.duplicate), (i as u64 / 2 + 1, i % 2 == 1));
    }
    let target = publisher.target().await.unwrap();
    assert_eq!((target.created, target.last_sequence), (stored[0].stream_created, 500));
    let mut late = attempts([event("late", "out.a", "x")]);
    late[0].late = Some(Late::Unknown);
    publish(&publisher, late).await;
    let stream = jetstream::new(connection.client().clone()).get_stream("OUT").await.unwrap();
    let message = stream.get_raw_message(501).await.unwrap();
    assert_eq!(message.headers.get("Nats-Msg-Id").unwrap().as_str(), "late");
    assert_eq!(message.headers.get("Cdc-Late").unwrap().as_str(), "unknown");
    assert_eq!(message.headers.get("traceparent").unwrap().as_str(), "00-a  Nats-Rollup: all");
    assert!(message.headers.get("Nats-Rollup").is_none());
}

async fn publishing_to_a_stopped_server_fails_fast(binary: &Path) {
    let mut server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    let epoch = publisher.connection_epoch();
    publish(&publisher, attempts([event("before", "out.a", "x")])).await[0].outcome.as_ref().unwrap();
    let events = || (0..200).map(|i| event(&format!("k{i}"), "out.a", format!("{i}")));
    server.kill();
    let start = Instant::now();
    for answer in publish(&publisher, attempts(events())).await {
        let error = answer.outcome.unwrap_err();
        assert_eq!(error.failure().unwrap().class, FailureClass::Disconnected, "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(publisher.target().await.is_err());
    server.restart();
    let deadline = Instant::now() + Duration::from_secs(20);
    while publisher.target().await.is_err() {
        assert!(Instant::now() < deadline, "no reconnect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(publisher.connection_epoch() > epoch);
    for answer in publish(&publisher, attempts(events())).await {
        answer.outcome.unwrap();
    }
    assert_eq!(publisher.target().await.unwrap().last_sequence, 201, "each is stored once");
}

/// Looks the target up until that succeeds.
async fn back(publisher: &JetStreamPublisher) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while publisher.target().await.is_err() {
        assert!(Instant::now() < deadline, "no reconnect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The `Nats-Msg-Id`s of all that is stored in OUT.
async fn stored_keys(connection: &Connection) -> Vec<String> {
    let stream = jetstream::new(connection.client().clone()).get_stream("OUT").await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut keys = Vec::new();
    for sequence in 1..=last {
        let message = stream.get_raw_message(sequence).await.unwrap();
        keys.push(message.headers.get("Nats-Msg-Id").unwrap().as_str().to_owned());
    }
    keys
}

/// Publishes again what has failed, and checks that the target then holds each of `count` events once.
async fn complete(connection: &Connection, publisher: &JetStreamPublisher, count: usize, answers: &[Answer]) {
    let before = stored_keys(connection).await;
    for answer in answers {
        match &answer.outcome {
            Ok(stored) => {
                let key = &before[usize::try_from(stored.sequence).unwrap() - 1];
                assert_eq!(*key, format!("k{}", answer.ticket), "what was confirmed is stored");
            }
            Err(PublishError::Unknown(_)) => {}
            Err(PublishError::Rejected(_)) => {
                assert!(!before.contains(&format!("k{}", answer.ticket)), "stored, though it was never sent");
            }
            Err(other) => panic!("{other}"),
        }
    }
    let failed = answers.iter().filter(|answer| answer.outcome.is_err());
    let again = failed.map(|answer| event(&format!("k{}", answer.ticket), "out.a", vec![b'x'; 300]));
    for answer in publish(publisher, attempts(again)).await {
        answer.outcome.unwrap();
    }
    let after = stored_keys(connection).await;
    assert_eq!(after.len(), count, "each is stored once");
    assert_eq!(after.into_iter().collect::<std::collections::BTreeSet<_>>().len(), count);
}

fn numbered(count: usize) -> Vec<Attempt> {
    attempts((0..count).map(|i| event(&format!("k{i}"), "out.a", vec![b'x'; 300])))
}

async fn a_crash_leaves_no_publish_unanswered(binary: &Path) {
    const COUNT: usize = 5000;
    let mut server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut answers = Vec::new();
    let receive = async {
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
            if answers.len() == 50 {
                server.kill();
            }
        }
    };
    let all = async { tokio::join!(publisher.publish(numbered(COUNT), sender), receive) };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("every attempt is answered");
    let tickets: std::collections::BTreeSet<u64> = answers.iter().map(|answer| answer.ticket).collect();
    assert_eq!((answers.len(), tickets.len()), (COUNT, COUNT), "each attempt is answered exactly once");
    let failures = answers.iter().filter_map(|answer| answer.outcome.as_ref().err());
    let classes: Vec<_> = failures.map(|error| error.failure().unwrap().class).collect();
    assert!(!classes.is_empty(), "nothing was on the wire");
    assert!(classes.iter().all(|class| *class == FailureClass::Disconnected));
    server.restart();
    back(&publisher).await;
    complete(&connection, &publisher, COUNT, &answers).await;
}

async fn what_a_frozen_server_swallows_is_answered(binary: &Path) {
    const COUNT: usize = 200;
    let mut server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    publisher.target().await.unwrap();
    // The target is known, so that nothing has to be asked for first.
    publish(&publisher, attempts([event("k0", "out.a", vec![b'x'; 300])])).await;
    server.stop();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    publisher.publish(numbered(COUNT), sender).await;
    assert!(receiver.try_recv().is_err(), "a frozen server confirms nothing");
    let start = Instant::now();
    server.kill();
    let mut answers = Vec::new();
    while let Some(answer) = receiver.recv().await {
        answers.push(answer);
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    answers.sort_by_key(|answer| answer.ticket);
    assert!(answers.iter().map(|answer| answer.ticket).eq(0..COUNT as u64), "each attempt is answered exactly once");
    for answer in &answers {
        let error = answer.outcome.as_ref().unwrap_err();
        assert!(
            matches!(error, PublishError::Unknown(failure) if failure.class == FailureClass::Disconnected),
            "the server may have stored it: {error}"
        );
    }
    server.restart();
    back(&publisher).await;
    complete(&connection, &publisher, COUNT, &answers).await;
}

async fn an_answer_that_comes_too_late_is_ignored(binary: &Path) {
    const COUNT: usize = 50;
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    target(&connection).await;
    let settings = PublisherSettings { ack_timeout: Duration::from_millis(300), ..PublisherSettings::new("OUT") };
    let publisher = JetStreamPublisher::new(connection.clone(), settings).await.unwrap();
    publish(&publisher, attempts([event("k0", "out.a", vec![b'x'; 300])])).await[0].outcome.as_ref().unwrap();
    server.stop();
    // Every attempt is answered, and the channel closed, while nothing comes from the server.
    let answers = publish(&publisher, numbered(COUNT)).await;
    for answer in &answers {
        let error = answer.outcome.as_ref().unwrap_err();
        assert!(
            matches!(error, PublishError::Unknown(failure) if failure.class == FailureClass::Timeout),
            "the server may still store it: {error}"
        );
    }
    server.cont();
    back(&publisher).await;
    // The late answers to the first attempts must not be taken for answers to these.
    let again = publish(&publisher, numbered(COUNT)).await;
    for (sequence, answer) in (1..).zip(&again) {
        let stored = answer.outcome.as_ref().unwrap();
        assert_eq!((stored.sequence, stored.duplicate), (sequence, true), "stored late, and not twice");
    }
    complete(&connection, &publisher, COUNT, &again).await;
}

async fn too_large_events_are_told(binary: &Path) {
    let mut server = NatsServer::start_with(binary, "max_payload: 100000");
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    publish(&publisher, attempts([event("fits", "out.a", vec![b'x'; 99_000])])).await[0].outcome.as_ref().unwrap();
    let answers = publish(&publisher, attempts([event("big", "out.a", vec![b'x'; 100_000])])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 100_000, .. }), "{error}");
    // The limit is lowered under us.
    let epoch = connection.epoch();
    server.reload("max_payload: 50000");
    server.restart();
    let deadline = Instant::now() + Duration::from_secs(20);
    while connection.epoch() == epoch || publisher.target().await.is_err() {
        assert!(Instant::now() < deadline, "no reconnect");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answers = publish(&publisher, attempts([event("now", "out.a", vec![b'x'; 60_000])])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 50_000, .. }), "{error}");
    // And the stream may have a limit of its own.
    let context = jetstream::new(connection.client().clone());
    let mut config = context.get_stream("OUT").await.unwrap().cached_info().config.clone();
    config.max_message_size = 1000;
    context.update_stream(&config).await.unwrap();
    let answers = publish(&publisher, attempts([event("stream", "out.a", vec![b'x'; 2000])])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { limit: 1000, .. }), "{error}");
}

async fn a_missing_target_is_a_failure(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = publisher(&connection).await;
    assert_eq!(publisher.target().await.unwrap_err().class, FailureClass::Missing);
    let answers = publish(&publisher, attempts([event("k", "out.a", "x")])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert_eq!(error.failure().unwrap().class, FailureClass::Missing, "{error}");
    let publisher = target(&connection).await;
    publisher.target().await.unwrap();
    // A subject that no stream listens on fails alone.
    let answers = publish(&publisher, attempts([event("a", "nowhere.a", "x"), event("b", "out.a", "x")])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::Rejected(f) if f.class == FailureClass::Missing), "{error}");
    answers[1].outcome.as_ref().unwrap();
}

async fn a_full_target_is_a_failure(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let mut settings = StreamSettings::new("OUT", vec!["out.>".to_owned()]);
    settings.discard = daisi_cdc_consumer::adapters::nats::Discard::New;
    settings.max_bytes = Some(5000);
    streams::ensure_stream(&connection, &settings).await.unwrap();
    let publisher = publisher(&connection).await;
    let answers =
        publish(&publisher, attempts((0..20).map(|i| event(&format!("k{i}"), "out.a", vec![b'x'; 500])))).await;
    let error = answers[19].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::Rejected(f) if f.class == FailureClass::Unavailable), "{error}");
}

async fn a_target_created_anew_is_noticed(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    let first = publish(&publisher, attempts([event("a", "out.a", "x"), event("b", "out.a", "x")])).await;
    let first = first[1].outcome.as_ref().unwrap().stream_created;
    jetstream::new(connection.client().clone()).delete_stream("OUT").await.unwrap();
    let again = StreamSettings::new("OUT", vec!["out.>".to_owned()]);
    let created = streams::ensure_stream(&connection, &again).await.unwrap().created;
    let second = publish(&publisher, attempts([event("a", "out.a", "x")])).await;
    let second = second[0].outcome.as_ref().unwrap();
    assert_ne!(first, created);
    assert_eq!((second.stream_created, second.sequence, second.duplicate), (created, 1, false));
}

async fn a_missing_permission_is_told(binary: &Path) {
    let config = r#"authorization { users = [ { user: u, password: p, permissions: {
        publish: { deny: ["out.secret", "$JS.API.STREAM.INFO.HIDDEN"] } } } ] }"#;
    let server = NatsServer::start_with(binary, config);
    let url = server.url().replace("nats://", "nats://u:p@");
    let mut nats = NatsConfig::new(vec![url], 100);
    nats.request_timeout = Duration::from_millis(500);
    let connection = Connection::connect(&nats, |_| {}).await.unwrap();
    streams::ensure_stream(&connection, &StreamSettings::new("OUT", vec!["out.>".to_owned()])).await.unwrap();
    let settings = PublisherSettings { ack_timeout: Duration::from_millis(500), ..PublisherSettings::new("OUT") };
    let publisher = JetStreamPublisher::new(connection.clone(), settings).await.unwrap();
    let answers = publish(&publisher, attempts([event("a", "out.secret", "x"), event("b", "out.a", "x")])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::Rejected(f) if f.class == FailureClass::Denied), "{error}");
    answers[1].outcome.as_ref().unwrap();
    let hidden = JetStreamPublisher::new(connection, PublisherSettings::new("HIDDEN")).await.unwrap();
    assert_eq!(hidden.target().await.unwrap_err().class, FailureClass::Denied);
}

fn letter(payload: Vec<u8>, headers: Headers, detail: &str) -> DeadLetter {
    let id = DeliveryId { stream_created: 1, sequence: 7, timestamp: 3 };
    let delivery = Delivery {
        receipt: Receipt { id, reply: "".into() },
        subject: "sequin.changes.db.public.messages.insert".into(),
        headers,
        payload: payload.into(),
        deliveries: 2,
        received: Instant::now(),
    };
    DeadLetter { delivery: delivery.into(), table: None, reason: Reason::NotJson, detail: detail.to_owned() }
}

async fn dead_letters(connection: &Connection) -> (JetStreamDeadLetters, jetstream::stream::Stream) {
    streams::ensure_stream(connection, &StreamSettings::new("DEAD", vec!["dead.>".to_owned()])).await.unwrap();
    let settings = DeadLetterSettings {
        stream: "DEAD".to_owned(),
        subject_prefix: "dead".to_owned(),
        source_stream: "IN".to_owned(),
        ack_timeout: Duration::from_secs(5),
    };
    let stream = jetstream::new(connection.client().clone()).get_stream("DEAD").await.unwrap();
    (JetStreamDeadLetters::new(connection.clone(), settings).await.unwrap(), stream)
}

async fn dead_letters_carry_their_story(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let (dead_letters, mut stream) = dead_letters(&connection).await;
    let headers = vec![("Nats-Msg-Id".to_owned(), "orig".to_owned()), ("x".to_owned(), "y".to_owned())];
    let letter = letter(b"{broken".to_vec(), headers, "line 1\r\nNats-Rollup: all");
    dead_letters.store(letter.clone()).await.unwrap();
    dead_letters.store(letter.clone()).await.unwrap();
    dead_letters.store(DeadLetter { reason: Reason::CrashesProcess, ..letter }).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1, "stored once, whatever a later attempt says");
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), "dead.unknown.not_json");
    assert_eq!(&message.payload[..], b"{broken");
    for (name, value) in [
        ("Cdc-Reason", "not_json"),
        ("Cdc-Detail", "line 1  Nats-Rollup: all"),
        ("Cdc-Stream", "IN"),
        ("Cdc-Sequence", "7"),
        ("Cdc-Subject", "sequin.changes.db.public.messages.insert"),
        ("Cdc-Deliveries", "2"),
        ("Cdc-Source-Nats-Msg-Id", "orig"),
        ("Cdc-Source-x", "y"),
        ("Nats-Msg-Id", "1-7-3"),
    ] {
        assert_eq!(message.headers.get(name).map(|v| v.as_str()), Some(value), "{name}");
    }
    let time = message.headers.get("Cdc-Time").unwrap().as_str();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 27, "{time}");
}

async fn huge_dead_letters_are_split(binary: &Path) {
    let server = NatsServer::start_with(binary, "max_payload: 20000");
    let connection = connect(&server).await;
    let (dead_letters, mut stream) = dead_letters(&connection).await;
    // Nothing that compresses, under headers that do not fit.
    let mut state = 88_172_645_463_325_252_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(60_000)
    .collect();
    let headers = vec![("x".to_owned(), "v".repeat(9000))];
    dead_letters.store(letter(noise.clone(), headers, "huge")).await.unwrap();
    let mut joined = Vec::new();
    let count = stream.info().await.unwrap().state.messages;
    assert!(count >= 4, "{count}");
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(message.headers.get("Cdc-Part").unwrap().as_str(), format!("{sequence}/{count}"));
        assert_eq!(message.headers.get("Cdc-Encoding").unwrap().as_str(), "gzip");
        joined.extend_from_slice(&message.payload);
    }
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&joined[..]).read_to_end(&mut body).unwrap();
    let line_end = body.iter().position(|b| *b == b'\n').unwrap();
    let envelope: serde_json::Value = serde_json::from_slice(&body[..line_end]).unwrap();
    assert_eq!(envelope["headers"][0][1], "v".repeat(9000));
    assert_eq!(&body[line_end + 1..], &noise[..]);
    // What compresses well becomes one message.
    dead_letters
        .store(DeadLetter { reason: Reason::TooLarge, ..letter(vec![b'a'; 60_000], vec![], "") })
        .await
        .unwrap();
    let message = stream.get_raw_message(count + 1).await.unwrap();
    assert!(message.headers.get("Cdc-Part").is_none() && message.headers.get("Cdc-Encoding").is_some());
}
