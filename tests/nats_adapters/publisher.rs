//! The publisher: pipelining, deduplication, faults.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::nats::{NatsServer, on_every_server};
use async_nats::jetstream;
use bytes::Bytes;
use cdc_actors::message::{Answer, Attempt, Event, EventKey, Late};
use cdc_actors::ports::{FailureClass, PublishError, Publisher};
use daisi_cdc_consumer::adapters::nats::{
    Connection, JetStreamPublisher, NatsConfig, PublisherSettings, StreamSettings, streams,
};
use futures::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use super::connect;

/// How long anything may take that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

on_every_server! {
    publishes_are_pipelined_and_deduplicated
    publishing_to_a_stopped_server_fails_fast
    a_crash_leaves_no_publish_unanswered
    what_a_frozen_server_swallows_is_answered
    an_answer_that_comes_too_late_is_ignored
    too_large_events_are_told
    a_missing_target_is_a_failure
    a_full_target_is_a_failure
    a_target_created_anew_is_noticed
    a_target_that_goes_back_is_noticed_while_the_connection_stands
    a_missing_permission_is_told
    an_id_in_process_leaves_the_outcome_open
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

/// Waits for answers for longer than any test takes: what is answered sooner is so for another reason.
async fn patient(connection: &Connection) -> JetStreamPublisher {
    target(connection).await;
    let settings = PublisherSettings { ack_timeout: Duration::from_secs(600), ..PublisherSettings::new("OUT") };
    JetStreamPublisher::new(connection.clone(), settings).await.unwrap()
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
    let publisher = patient(&connection).await;
    let epoch = publisher.connection_epoch();
    publish(&publisher, attempts([event("before", "out.a", "x")])).await[0].outcome.as_ref().unwrap();
    let events = || (0..200).map(|i| event(&format!("k{i}"), "out.a", format!("{i}")));
    server.kill();
    let start = Instant::now();
    for answer in publish(&publisher, attempts(events())).await {
        let error = answer.outcome.unwrap_err();
        assert_eq!(error.failure().unwrap().class, FailureClass::Disconnected, "{error}");
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert!(publisher.target().await.is_err());
    server.restart();
    let deadline = Instant::now() + PATIENCE;
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
    let deadline = Instant::now() + PATIENCE;
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
    const COUNT: usize = 4000;
    let mut server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let publisher = target(&connection).await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut answers = Vec::new();
    let mut first = numbered(COUNT);
    let mut last = Some((first.split_off(COUNT - 200), sender.clone()));
    let receive = async {
        while let Some(answer) = receiver.recv().await {
            answers.push(answer);
            if answers.len() == 50 {
                // However fast it is, it does not answer these any more.
                server.stop();
                let (last, sender) = last.take().unwrap();
                publisher.publish(last, sender).await;
                server.kill();
            }
        }
    };
    let all = async { tokio::join!(publisher.publish(first, sender), receive) };
    tokio::time::timeout(PATIENCE, all).await.expect("every attempt is answered");
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
    let publisher = patient(&connection).await;
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
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
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
    let settings = PublisherSettings { ack_timeout: Duration::from_secs(2), ..PublisherSettings::new("OUT") };
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
    let deadline = Instant::now() + PATIENCE;
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
    nats.request_timeout = Duration::from_secs(2);
    let connection = Connection::connect(&nats, |_| {}).await.unwrap();
    streams::ensure_stream(&connection, &StreamSettings::new("OUT", vec!["out.>".to_owned()])).await.unwrap();
    let settings = PublisherSettings { ack_timeout: Duration::from_secs(2), ..PublisherSettings::new("OUT") };
    let publisher = JetStreamPublisher::new(connection.clone(), settings).await.unwrap();
    let answers = publish(&publisher, attempts([event("a", "out.secret", "x"), event("b", "out.a", "x")])).await;
    let error = answers[0].outcome.as_ref().unwrap_err();
    assert!(matches!(error, PublishError::Rejected(f) if f.class == FailureClass::Denied), "{error}");
    answers[1].outcome.as_ref().unwrap();
    let hidden = JetStreamPublisher::new(connection, PublisherSettings::new("HIDDEN")).await.unwrap();
    assert_eq!(hidden.target().await.unwrap_err().class, FailureClass::Denied);
}

/// As behind another server of a cluster: this one goes on as it was, and only what is confirmed tells.
async fn a_target_that_goes_back_is_noticed_while_the_connection_stands(binary: &Path) {
    let server = NatsServer::start_with(binary, "jetstream: disabled");
    let connection = connect(&server).await;
    let target = Scripted::start(&connection).await;
    let publisher = publisher(&connection).await;
    let epoch = publisher.connection_epoch();
    let confirmed = async |last: u64, duplicate: bool| {
        target.last.store(last, Ordering::SeqCst);
        target.duplicate.store(duplicate, Ordering::SeqCst);
        let answer = publish(&publisher, attempts([event("a", "out.a", "x")])).await.remove(0);
        (answer.outcome.unwrap().sequence, publisher.connection_epoch() - epoch)
    };
    for last in [1, 2, 3] {
        assert_eq!(confirmed(last, false).await, (last, 0), "nothing has happened");
    }
    assert_eq!(confirmed(2, true).await, (2, 0), "a duplicate has the sequence that it always had");
    assert_eq!(confirmed(2, false).await, (2, 1), "it has gone back");
    for last in [3, 4, 5] {
        assert_eq!(confirmed(last, false).await, (last, 1), "told once: it goes on from there");
    }
    assert_eq!(confirmed(5, false).await, (5, 2), "and back again");
    // What it has stored since does not hide it from the look that is due, but from the next.
    target.last.store(50, Ordering::SeqCst);
    assert_eq!(publisher.target().await.unwrap().last_sequence, 4);
    assert_eq!(confirmed(51, false).await, (51, 2));
    assert_eq!(publisher.target().await.unwrap().last_sequence, 51);
}

/// A replicated stream says so while an earlier publish under the same id waits for the other servers.
async fn an_id_in_process_leaves_the_outcome_open(binary: &Path) {
    let server = NatsServer::start_with(binary, "jetstream: disabled");
    let connection = connect(&server).await;
    let target = Scripted::start(&connection).await;
    let publisher = publisher(&connection).await;
    target.in_process.store(true, Ordering::SeqCst);
    let answer = publish(&publisher, attempts([event("a", "out.a", "x")])).await.remove(0);
    let error = answer.outcome.unwrap_err();
    assert!(matches!(&error, PublishError::Unknown(f) if f.class == FailureClass::Unavailable), "{error}");
    // nats-server 2.10 says it so.
    target.in_process.store(false, Ordering::SeqCst);
    target.duplicate.store(true, Ordering::SeqCst);
    let answer = publish(&publisher, attempts([event("a", "out.a", "x")])).await.remove(0);
    let error = answer.outcome.unwrap_err();
    assert!(matches!(&error, PublishError::Unknown(_)), "{error}");
}

/// A target that confirms what it is told to, at a server without JetStream of its own.
struct Scripted {
    last: Arc<AtomicU64>,
    duplicate: Arc<AtomicBool>,
    /// An earlier publish under each id is said to be in process.
    in_process: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    async fn start(connection: &Connection) -> Self {
        let client = connection.client().clone();
        let mut published = client.subscribe("out.>").await.unwrap();
        let mut asked = client.subscribe("$JS.API.STREAM.INFO.OUT").await.unwrap();
        let (last, duplicate) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (says, says_duplicate) = (Arc::clone(&last), Arc::clone(&duplicate));
        let in_process = Arc::new(AtomicBool::new(false));
        let says_in_process = Arc::clone(&in_process);
        let task = tokio::spawn(async move {
            loop {
                let (request, reply) = tokio::select! {
                    Some(message) = published.next() => {
                        let (seq, duplicate) = (says.load(Ordering::SeqCst), says_duplicate.load(Ordering::SeqCst));
                        let stored = json!({ "stream": "OUT", "seq": seq, "duplicate": duplicate });
                        let refused = json!({ "error": { "code": 409, "err_code": 10_158, "description": "" } });
                        (message, if says_in_process.load(Ordering::SeqCst) { refused } else { stored })
                    }
                    Some(message) = asked.next() => {
                        let last = says.load(Ordering::SeqCst);
                        let state = json!({ "messages": last, "bytes": 0, "first_seq": 1, "last_seq": last });
                        let config = json!({ "name": "OUT", "subjects": ["out.>"] });
                        (message, json!({ "created": "2026-01-01T00:00:00Z", "config": config, "state": state }))
                    }
                };
                client.publish(request.reply.unwrap(), reply.to_string().into()).await.unwrap();
            }
        });
        Self { last, duplicate, in_process, task }
    }
}
