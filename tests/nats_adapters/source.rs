//! The source: pull requests, settlements, setup, faults.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::nats::{NatsServer, on_every_server};
use async_nats::jetstream;
use cdc_actors::message::{Delivery, Settle, Settlement};
use cdc_actors::ports::{Budget, FailureClass, Heard, Source, Stall, Stalled};
use daisi_cdc_consumer::adapters::nats::{
    Connection, ConsumerSettings, JetStreamSource, Note, Plan, Retention, SetupError, SourceSettings, StreamSettings,
    consumers, streams,
};

use super::{connect, connect_as};

pub const WIDE: Budget = Budget { messages: 1000, bytes: 64 << 20 };
/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn source_settings(ack_wait: Duration) -> SourceSettings {
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
        stalled_after: None,
        stale_after: Duration::from_secs(600),
    }
}

pub fn source(connection: &Connection, ack_wait: Duration) -> JetStreamSource {
    JetStreamSource::new(connection.clone(), source_settings(ack_wait), |note| panic!("{note}"))
}

/// Feeds messages `from..to` with confirmed publishes.
pub async fn feed(connection: &Connection, range: std::ops::Range<usize>, size: usize) {
    let mut context = jetstream::new(connection.client().clone());
    context.set_timeout(PATIENCE);
    for i in range {
        let mut body = format!("{i};").into_bytes();
        body.resize(body.len().max(size), b'x');
        context.publish(format!("in.{}", i % 7), body.into()).await.unwrap().await.unwrap();
    }
}

pub fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(&delivery.payload).unwrap().split(';').next().unwrap().parse().unwrap()
}

/// Pulls until `count` have come, going on after failures.
pub async fn pull_count(source: &JetStreamSource, count: usize, budget: Budget) -> Vec<Delivery> {
    let deadline = Instant::now() + PATIENCE;
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

/// Pulls until each of these has come, and returns how each came first: a slow machine is given some of them more than once.
async fn pull_each(source: &JetStreamSource, numbers: std::ops::Range<usize>) -> Vec<Delivery> {
    let mut first = BTreeMap::new();
    while first.len() < numbers.len() {
        for delivery in pull_count(source, 1, WIDE).await {
            first.entry(number(&delivery)).or_insert(delivery);
        }
    }
    assert!(first.keys().copied().eq(numbers), "and no other: {:?}", first.keys());
    first.into_values().collect()
}

fn settlements(deliveries: &[Delivery], settle: Settle) -> Vec<Settlement> {
    deliveries.iter().map(|d| Settlement { receipt: d.receipt.clone(), settle }).collect()
}

/// Settles, again after failures.
async fn settle(source: &JetStreamSource, settlements: Vec<Settlement>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(failure) = source.settle(settlements.clone()).await {
        assert!(Instant::now() < deadline, "{failure}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the server has heard, asked again after failures.
async fn confirm(source: &JetStreamSource) -> Heard {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.confirm_settled().await {
            Ok(heard) => return heard,
            Err(failure) => assert!(Instant::now() < deadline, "{failure}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

on_every_server! {
    pulls_stay_within_the_budget
    a_pull_takes_all_that_has_arrived
    unacknowledged_deliveries_come_again
    settlements_do_what_they_say
    the_backlog_tells_the_oldest
    pulling_survives_a_restart
    an_abandoned_pull_loses_nothing
    what_nobody_has_read_for_long_is_left_to_others
    a_deleted_consumer_is_built_again
    receipts_of_a_deleted_consumer_are_dropped
    settlements_that_went_down_with_their_connection_are_told
    what_a_consumer_passed_comes_from_one_made_anew
    what_the_server_can_no_longer_write_is_made_anew_as_well
    what_cannot_be_cured_is_told_and_left_alone
    a_consumer_that_may_not_give_does_not_stand_still
    receipts_of_a_deleted_stream_are_dropped
    stopping_hands_back_what_has_arrived
    setup_creates_and_checks
    an_existing_consumer_is_brought_up_to_date
    a_message_with_a_status_line_is_a_message
    what_the_client_cannot_read_holds_up_nobody
}

/// The client closes its connection over them, and what came behind is delivered again with them, and again.
async fn what_the_client_cannot_read_holds_up_nobody(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let on_note = {
        let notes = Arc::clone(&notes);
        move |note: Note| notes.lock().unwrap().push(note.to_string())
    };
    let source = JetStreamSource::new(connection.clone(), source_settings(Duration::from_secs(1)), on_note);
    source.pull(WIDE).await.unwrap();
    source.stop().await;
    // By its answer the server has read that nobody listens: what comes now does not close the connection that feeds.
    streams::find_stream(&connection, "IN").await.unwrap();
    let poison: [(&[u8], &[u8]); 4] = [
        (b"in.x", b"NATS/1.0\r\nFoo : bar\r\n\r\n"),
        (b"in.x", b"NATS/1.0\r\nno colon\r\n\r\n"),
        (b"in.x", b"NATS/1.0\r\na: caf\xe9\r\n\r\n"),
        (b"in.\xff", b"NATS/1.0\r\na: b\r\n\r\n"),
    ];
    for (i, (subject, headers)) in poison.iter().enumerate() {
        server.publish_raw(subject, headers, format!("{};", 10 * i).as_bytes());
        feed(&connection, 10 * i + 1..10 * i + 10, 0).await;
    }
    let (mut seen, deadline) = (BTreeSet::new(), Instant::now() + Duration::from_secs(60));
    while seen.len() < 40 {
        assert!(Instant::now() < deadline, "only {seen:?} came");
        let Ok(batch) = source.pull(WIDE).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        settle(&source, settlements(&batch, Settle::Ack)).await;
        seen.extend(batch.iter().map(number));
    }
    while source.confirm_settled().await.is_err() {
        assert!(Instant::now() < deadline, "the connection does not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until_oldest(&source, None).await;
    let notes = notes.lock().unwrap();
    assert!(notes.iter().any(|note| note.starts_with("message 1 of the source (in.x)")), "{notes:?}");
}

/// Such a line is what servers speak to clients by; a publisher may write one all the same, and the stream keeps it.
async fn a_message_with_a_status_line_is_a_message(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    source.pull(WIDE).await.unwrap();
    for (i, status) in ["404 No Messages", "409 Consumer Deleted", "100"].iter().enumerate() {
        server.publish_raw(
            b"in.x",
            format!("NATS/1.0 {status}\r\na: b\r\n\r\n").as_bytes(),
            format!("{i};").as_bytes(),
        );
    }
    feed(&connection, 3..4, 0).await;
    let all = pull_count(&source, 4, WIDE).await;
    assert_eq!(all.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    settle(&source, settlements(&all, Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, None).await;
}

/// The runtime would end a task's turn after 128 messages, and with it a pull that does not ask it not to.
async fn a_pull_takes_all_that_has_arrived(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    // Its request waits on, so that what is fed arrives before the next pull.
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    let deadline = Instant::now() + PATIENCE;
    let mut largest = 0;
    while largest <= 256 {
        assert!(Instant::now() < deadline, "{largest} messages in one pull at most");
        feed(&connection, 0..500, 0).await;
        let mut left = 500;
        while left > 0 {
            let pulled = source.pull(WIDE).await.unwrap();
            (largest, left) = (largest.max(pulled.len()), left - pulled.len());
            settle(&source, settlements(&pulled, Settle::Ack)).await;
        }
    }
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
    let mut came: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while came.len() < 3 || came.values().any(|times| times.len() < 2) {
        for delivery in pull_count(&source, 1, WIDE).await {
            came.entry(number(&delivery)).or_default().push((delivery.receipt.id, delivery.deliveries));
        }
    }
    for times in came.values() {
        assert!(
            (1..).zip(times).all(|(count, (id, deliveries))| *deliveries == count && *id == times[0].0),
            "{times:?}"
        );
    }
}

async fn settlements_do_what_they_say(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let ack_wait = Duration::from_secs(3);
    let source = source(&connection, ack_wait);
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..3, 0).await;
    let all = pull_count(&source, 3, WIDE).await;
    settle(&source, settlements(&all[..1], Settle::Ack)).await;
    let start = Instant::now();
    settle(&source, settlements(&all[1..2], Settle::Nak(Duration::from_millis(300)))).await;
    source.confirm_settled().await.unwrap();
    let back = pull_count(&source, 1, WIDE).await;
    assert_eq!(number(&back[0]), 1, "the one that was handed back, before ack_wait");
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    settle(&source, settlements(&back, Settle::Ack)).await;
    // Kept alive for longer than ack_wait, the last one does not come again.
    let alive = Instant::now();
    while alive.elapsed() < ack_wait * 3 / 2 {
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
    let deadline = Instant::now() + PATIENCE;
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
        assert!(start.elapsed() < PATIENCE, "the loss of the connection goes unnoticed");
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
    let cut = Cell::new(0);
    let pull = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        let (mut got, mut patience) = (Vec::new(), 0);
        while got.len() < COUNT {
            assert!(Instant::now() < deadline, "only {} of {COUNT} came", got.len());
            patience = (patience + 37) % 1000;
            match tokio::time::timeout(Duration::from_micros(patience), source.pull(budget)).await {
                Ok(batch) => got.extend(batch.unwrap()),
                Err(_) => cut.set(cut.get() + 1),
            }
        }
        got
    };
    let feeding = async {
        for portion in 0..20 {
            // However fast the server is: another pull has found nothing, and was abandoned.
            while cut.get() < portion {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            feed(&connection, portion * COUNT / 20..(portion + 1) * COUNT / 20, 0).await;
        }
    };
    let (got, ()) = tokio::join!(pull, feeding);
    assert!(cut.get() > 10, "only {} pulls were abandoned", cut.get());
    assert!(got.iter().map(number).eq(0..COUNT), "each in its place");
    assert!(got.iter().all(|delivery| delivery.deliveries == 1), "each for the first time");
    settle(&source, settlements(&got, Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, None).await;
}

/// Intake was paused while a request was open. What came to it has been given to others since, who may be done with it.
async fn what_nobody_has_read_for_long_is_left_to_others(binary: &Path) {
    let (ack_wait, stale_after) = (Duration::from_secs(1), Duration::from_secs(2));
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let settings = SourceSettings { stale_after, ..source_settings(ack_wait) };
    let source = JetStreamSource::new(connection.clone(), settings, |note| panic!("{note}"));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..5, 0).await;
    let deadline = Instant::now() + PATIENCE;
    // That nothing is pending says less: a consumer hears of a message a moment after it is stored.
    while source.backlog().await.unwrap().unacknowledged < 5 {
        assert!(Instant::now() < deadline, "they are not given");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(stale_after).await;
    let mut came = BTreeSet::new();
    while came.len() < 5 {
        for delivery in pull_count(&source, 1, WIDE).await {
            // Not its count of deliveries, which a server takes back where nobody listens any more.
            let place: u64 =
                delivery.receipt.reply.split("IN.c.").nth(1).unwrap().split('.').nth(2).unwrap().parse().unwrap();
            assert!(place > 5, "{} was given after the first five: {}", number(&delivery), delivery.receipt.reply);
            came.insert(number(&delivery));
        }
    }
}

async fn settlements_that_went_down_with_their_connection_are_told(binary: &Path) {
    let mut server = NatsServer::start(binary);
    let connection = connect(&server).await;
    // Longer than it takes to start the server again and to reach it.
    let ack_wait = Duration::from_secs(8);
    let source = source(&connection, ack_wait);
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..5, 0).await;
    let all = pull_count(&source, 5, WIDE).await;
    source.stop().await;
    settle(&source, settlements(&all[..3], Settle::Ack)).await;
    let epoch = source.connection_epoch();
    server.kill();
    server.restart();
    let deadline = Instant::now() + PATIENCE;
    while source.connection_epoch() == epoch {
        assert!(Instant::now() < deadline, "no new connection");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    settle(&source, settlements(&all[3..], Settle::Ack)).await;
    assert_eq!(confirm(&source).await, Heard::PerhapsNotAll);
    let deadline = Instant::now() + ack_wait + PATIENCE;
    while confirm(&source).await != Heard::All {
        assert!(Instant::now() < deadline, "what was lost has been delivered again by now");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

/// Looks until the consumer is found to stand still.
async fn until_stalled(source: &JetStreamSource) -> Stalled {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(stalled) = source.backlog().await.unwrap().stalled {
            return stalled;
        }
        assert!(Instant::now() < deadline, "the consumer is not found to stand still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A work queue in which the consumer, which looked for others at the time, has passed the first message.
async fn with_a_passed_message(connection: &Connection) -> SourceSettings {
    let mut settings = source_settings(Duration::from_secs(30));
    settings.stream.retention = Retention::WorkQueue;
    settings.stalled_after = Some(Duration::from_millis(300));
    let mut narrow = settings.clone();
    narrow.consumer.filters = vec!["in.1".to_owned()];
    let before = JetStreamSource::new(connection.clone(), narrow, |note| panic!("{note}"));
    assert!(before.pull(WIDE).await.unwrap().is_empty());
    feed(connection, 0..2, 0).await;
    let second = pull_count(&before, 1, WIDE).await;
    assert_eq!(number(&second[0]), 1);
    settle(&before, settlements(&second, Settle::Ack)).await;
    before.stop().await;
    before.confirm_settled().await.unwrap();
    settings
}

async fn what_a_consumer_passed_comes_from_one_made_anew(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let settings = with_a_passed_message(&connection).await;
    let source = JetStreamSource::new(connection.clone(), settings, |note| panic!("{note}"));
    assert!(source.pull(WIDE).await.unwrap().is_empty(), "the consumer never gives it");
    let backlog = source.backlog().await.unwrap();
    assert!(backlog.oldest_unacknowledged.is_some() && backlog.pending == 0, "but it counts as waiting: {backlog:?}");
    // What an operator has set is kept.
    let context = jetstream::new(connection.client().clone());
    let described = |description: &str| jetstream::consumer::pull::Config {
        durable_name: Some("c".to_owned()),
        description: Some(description.to_owned()),
        filter_subject: "in.>".to_owned(),
        max_ack_pending: 5000,
        ack_wait: Duration::from_secs(30),
        ..Default::default()
    };
    context.get_stream("IN").await.unwrap().create_consumer(described("ours")).await.unwrap();
    assert_eq!(until_stalled(&source).await, Stalled { stall: Stall::Passed, made_anew: true });
    let found: jetstream::consumer::PullConsumer = context.get_consumer_from_stream("c", "IN").await.unwrap();
    assert_eq!(found.cached_info().config.description.as_deref(), Some("ours"));
    let passed = pull_count(&source, 1, WIDE).await;
    assert_eq!(number(&passed[0]), 0);
    settle(&source, settlements(&passed, Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, None).await;
}

/// As nats-server 2.15.1 leaves a consumer that two replicas make anew at the same time: without its directory. It answers that it
/// cannot create it, which is not to say that it must not.
async fn what_the_server_can_no_longer_write_is_made_anew_as_well(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let settings = with_a_passed_message(&connection).await;
    let source = JetStreamSource::new(connection.clone(), settings, |note| panic!("{note}"));
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    std::fs::remove_dir_all(server.consumer_directory("IN", "c")).unwrap();
    assert_eq!(until_stalled(&source).await, Stalled { stall: Stall::Passed, made_anew: true });
    let passed = pull_count(&source, 1, WIDE).await;
    assert_eq!(number(&passed[0]), 0);
}

async fn what_cannot_be_cured_is_told_and_left_alone(binary: &Path) {
    // Who may delete it and not create it must not delete it either.
    for denied in ["$JS.API.CONSUMER.DELETE.>", "$JS.API.CONSUMER.DURABLE.CREATE.>"] {
        let some = format!(r#"{{ user: some, password: some, permissions: {{ publish: {{ deny: "{denied}" }} }} }}"#);
        let users = format!("authorization {{ users = [{{ user: all, password: all }}, {some}] }}");
        let server = NatsServer::start_with(binary, &users);
        let everybody = connect_as(&server, "all").await;
        let settings = with_a_passed_message(&everybody).await;
        consumers::ensure_consumer(&everybody, "IN", &settings.stream.subjects, &settings.consumer).await.unwrap();
        let notes = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&notes);
        let connection = connect_as(&server, "some").await;
        let source = JetStreamSource::new(connection, settings, move |note| noted.lock().unwrap().push(note));
        assert!(source.pull(WIDE).await.unwrap().is_empty());
        for _ in 0..2 {
            assert_eq!(until_stalled(&source).await, Stalled { stall: Stall::Passed, made_anew: false }, "{denied}");
        }
        let context = jetstream::new(everybody.client().clone());
        let found: Result<jetstream::consumer::PullConsumer, _> = context.get_consumer_from_stream("c", "IN").await;
        assert!(found.is_ok(), "{denied}: it is still there");
        let notes = notes.lock().unwrap();
        assert!(matches!(&notes[0], Note::NotDeleted { consumer, .. } if consumer == "c"), "{notes:?}");
        assert!(notes[0].to_string().contains("ermission"), "{}", notes[0]);
    }
}

/// Its bound is reached; or, where a server knows that, it is paused.
async fn a_consumer_that_may_not_give_does_not_stand_still(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let mut settings = source_settings(Duration::from_secs(30));
    settings.stalled_after = Some(Duration::from_millis(300));
    settings.consumer.max_ack_pending = 2;
    let source = JetStreamSource::new(connection.clone(), settings, |note| panic!("{note}"));
    feed_when_open(&source, &connection, 0..5).await;
    let bounded = pull_count(&source, 2, WIDE).await;
    assert_flows_for_a_while(&source, &connection).await;
    if !connection.client().is_server_compatible(2, 11, 0) {
        return;
    }
    let pause = r#"{"pause_until":"2100-01-01T00:00:00Z"}"#;
    connection.client().request("$JS.API.CONSUMER.PAUSE.IN.c", pause.into()).await.unwrap();
    settle(&source, settlements(&bounded, Settle::Ack)).await;
    assert_flows_for_a_while(&source, &connection).await;
}

async fn feed_when_open(source: &JetStreamSource, connection: &Connection, range: std::ops::Range<usize>) {
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    feed(connection, range, 0).await;
}

/// Messages and requests wait, and nobody says that the consumer stands still.
async fn assert_flows_for_a_while(source: &JetStreamSource, connection: &Connection) {
    let context = jetstream::new(connection.client().clone());
    let mut consumer: jetstream::consumer::PullConsumer = context.get_consumer_from_stream("c", "IN").await.unwrap();
    let looks = async {
        let enough = Instant::now() + Duration::from_secs(1);
        let mut waited = 0;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < enough || waited <= 5 {
            assert!(Instant::now() < deadline, "no request waited");
            let backlog = source.backlog().await.unwrap();
            assert_eq!(backlog.stalled, None);
            let info = consumer.info().await.unwrap();
            waited += usize::from(info.num_waiting > 0 && info.num_pending > 0);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = looks => {}
        never = async { loop { assert!(source.pull(WIDE).await.unwrap().is_empty()); } } => never,
    }
}

async fn receipts_of_a_deleted_stream_are_dropped(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(2));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..5, 0).await;
    let old = pull_each(&source, 0..5).await;
    jetstream::new(connection.client().clone()).delete_stream("IN").await.unwrap();
    // Looks everything up again, and creates the stream anew.
    let deadline = Instant::now() + PATIENCE;
    while streams::find_stream(&connection, "IN").await.unwrap().is_none() {
        assert!(Instant::now() < deadline, "the stream is not created again");
        let _ = source.pull(WIDE).await;
    }
    feed(&connection, 100..105, 0).await;
    let new = pull_each(&source, 100..105).await;
    assert_eq!(new[0].receipt.id.sequence, old[0].receipt.id.sequence);
    assert_ne!(new[0].receipt.id, old[0].receipt.id);
    settle(&source, settlements(&old, Settle::Ack)).await;
    // Were they taken for the new ones, these would not come again.
    pull_each(&source, 100..105).await;
}

/// The consumer that is there now has its name, and would take an acknowledgement for one of its own.
async fn receipts_of_a_deleted_consumer_are_dropped(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(2));
    source.pull(WIDE).await.unwrap();
    feed(&connection, 0..5, 0).await;
    let old = pull_each(&source, 0..5).await;
    let context = jetstream::new(connection.client().clone());
    context.delete_consumer_from_stream("c", "IN").await.unwrap();
    let new = pull_each(&source, 0..5).await;
    assert!(new.iter().all(|delivery| delivery.deliveries == 1), "of a new consumer");
    settle(&source, settlements(&old, Settle::Ack)).await;
    // Were they taken for the new ones, these would not come again.
    let again = pull_each(&source, 0..5).await;
    settle(&source, settlements(&again, Settle::Ack)).await;
    source.confirm_settled().await.unwrap();
    until_oldest(&source, None).await;
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
    assert_eq!(streams::plan_stream(&connection, &settings).await.unwrap().0, Plan::Create);
    settings.create = false;
    assert!(matches!(streams::ensure_stream(&connection, &settings).await, Err(SetupError::MissingStream(_))));
    assert!(streams::plan_stream(&connection, &settings).await.is_err());
    settings.create = true;
    settings.duplicate_window = Some(Duration::from_secs(59));
    let refused = streams::ensure_target(&connection, &settings, Duration::from_secs(30)).await;
    assert!(matches!(refused, Err(SetupError::DuplicateWindow { .. })), "{refused:?}");
    streams::ensure_target(&connection, &settings, Duration::from_secs(29)).await.unwrap();
    assert_eq!(streams::plan_stream(&connection, &settings).await.unwrap().0, Plan::Use);
    let overlapping = StreamSettings::new("OTHER", vec!["out.x".to_owned()]);
    let refused = streams::ensure_stream(&connection, &overlapping).await;
    assert!(matches!(refused, Err(SetupError::Overlaps { ref others, .. }) if others == "OUT"), "{refused:?}");
}

async fn an_existing_consumer_is_brought_up_to_date(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let SourceSettings { mut stream, mut consumer, .. } = source_settings(Duration::from_secs(30));
    stream.subjects = vec!["a.>".to_owned(), "b.>".to_owned()];
    consumer.filters = stream.subjects.clone();
    streams::ensure_stream(&connection, &stream).await.unwrap();
    let subjects = &stream.subjects;
    assert_eq!(consumers::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), Plan::Create);
    assert_eq!(consumers::ensure_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), vec![]);
    assert_eq!(consumers::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), Plan::Use);
    consumer.ack_wait = Duration::from_secs(17);
    consumer.max_ack_pending = 77;
    let plan = consumers::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap();
    assert_eq!(plan, Plan::Update(vec!["ack_wait".to_owned(), "max_ack_pending".to_owned()]));
    assert_eq!(consumers::ensure_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), vec![]);
    assert_eq!(consumers::plan_consumer(&connection, "IN", subjects, &consumer).await.unwrap(), Plan::Use);
    // Filters other than the stream's own subjects need a server that knows several.
    consumer.filters = vec!["a.x".to_owned(), "b.x".to_owned()];
    let result = consumers::ensure_consumer(&connection, "IN", subjects, &consumer).await;
    if connection.client().is_server_compatible(2, 10, 0) {
        assert_eq!(result.unwrap(), vec![]);
    } else {
        assert!(matches!(result, Err(SetupError::Filters { .. })), "{result:?}");
    }
}
