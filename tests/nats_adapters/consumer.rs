//! The consumer: kept as it must be, whoever sets it otherwise.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::nats::{NatsServer, on_every_server};
use async_nats::HeaderMap;
use cdc_actors::ports::{Failure, FailureClass, Source};
use daisi_cdc_consumer::adapters::nats::{Connection, JetStreamSource, Note, Plan, SetupError, consumers, streams};
use serde_json::{Value, json};

use super::source::{WIDE, feed, number, pull_count, source, source_settings};
use super::{connect, connect_as};

on_every_server! {
    bodies_are_asked_for
    what_comes_without_its_body_is_not_taken
    what_has_no_body_is_taken_as_it_is
    without_the_right_to_ask_for_bodies_nothing_is_taken
    requests_keep_to_the_limits_of_the_consumer
    limits_that_some_message_would_never_fit_are_refused
    priority_groups_are_refused
    what_somebody_changes_is_changed_back
    what_an_altered_consumer_leaves_out_counts_as_waiting
    what_may_not_be_changed_back_is_not_read
    two_that_want_different_settings_do_not_go_on_about_it
}

async fn api(connection: &Connection, operation: &str, body: &Value) -> Value {
    let asked = connection.client().request(format!("$JS.API.{operation}"), body.to_string().into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&asked.payload).unwrap();
    assert_eq!(answer["error"], Value::Null);
    answer
}

/// Changes settings of the consumer, as somebody else would.
async fn alter(connection: &Connection, changes: Value) {
    let mut config = api(connection, "CONSUMER.INFO.IN.c", &json!({})).await["config"].take();
    for (setting, value) in changes.as_object().unwrap() {
        config[setting] = value.clone();
    }
    let body = json!({ "stream_name": "IN", "config": config });
    api(connection, "CONSUMER.DURABLE.CREATE.IN.c", &body).await;
}

/// Stream and consumer, the latter with other settings than the service's.
async fn existing(connection: &Connection, config: Value) {
    let settings = source_settings(Duration::from_secs(30));
    streams::ensure_stream(connection, &settings.stream).await.unwrap();
    consumers::ensure_consumer(connection, "IN", &settings.stream.subjects, &settings.consumer).await.unwrap();
    alter(connection, config).await;
}

/// What [`consumers::plan_consumer`] says of the consumer that is there.
async fn plan(connection: &Connection) -> Result<Plan, SetupError> {
    let settings = source_settings(Duration::from_secs(30));
    consumers::plan_consumer(connection, "IN", &settings.stream.subjects, &settings.consumer).await
}

/// Feeds five messages and pulls them, and nothing else.
async fn whole_messages_come(source: &JetStreamSource, connection: &Connection) {
    feed(connection, 0..5, 100).await;
    let all = pull_count(source, 5, WIDE).await;
    assert_eq!(all.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

async fn bodies_are_asked_for(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    existing(&connection, json!({ "headers_only": true })).await;
    assert_eq!(plan(&connection).await.unwrap(), Plan::Update(vec!["headers_only".to_owned()]));
    whole_messages_come(&source(&connection, Duration::from_secs(30)), &connection).await;
    assert_eq!(plan(&connection).await.unwrap(), Plan::Use);
}

/// Pulls until that fails, at most 20 s; nothing may come before.
async fn until_refused(source: &JetStreamSource) -> Failure {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match source.pull(WIDE).await {
            Ok(pulled) => assert!(pulled.is_empty(), "{pulled:?}"),
            Err(failure) => return failure,
        }
        assert!(Instant::now() < deadline, "nothing is refused");
    }
}

async fn what_comes_without_its_body_is_not_taken(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(1));
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    alter(&connection, json!({ "headers_only": true })).await;
    feed(&connection, 0..5, 100).await;
    let failure = until_refused(&source).await;
    assert_eq!(failure.class, FailureClass::Protocol, "{failure}");
    assert!(failure.to_string().contains("headers_only"), "{failure}");
    let again = pull_count(&source, 5, WIDE).await;
    assert!(again.iter().all(|delivery| delivery.deliveries > 1), "what came without its body comes again");
    assert_eq!(again.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

/// Whoever publishes can say what a server says of a body that it leaves out.
async fn what_has_no_body_is_taken_as_it_is(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let source = source(&connection, Duration::from_secs(30));
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    feed(&connection, 0..2, 0).await;
    for size in ["0", "7", "x"] {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Size", size);
        connection.client().publish_with_headers("in.1", headers, "".into()).await.unwrap();
    }
    feed(&connection, 2..4, 0).await;
    let mut all = Vec::new();
    while all.len() < 7 {
        all.extend(source.pull(WIDE).await.unwrap());
    }
    let sequences: Vec<_> = all.iter().map(|delivery| delivery.receipt.id.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7], "in their places");
    assert!(all.iter().all(|delivery| delivery.deliveries == 1), "at the first try");
}

async fn without_the_right_to_ask_for_bodies_nothing_is_taken(binary: &Path) {
    let denied = "permissions: { publish: { deny: [\"$JS.API.CONSUMER.DURABLE.CREATE.>\"] } }";
    let users = format!(
        "authorization {{ users = [{{ user: all, password: all }}, {{ user: some, password: some, {denied} }}] }}"
    );
    let server = NatsServer::start_with(binary, &users);
    let everybody = connect_as(&server, "all").await;
    existing(&everybody, json!({ "headers_only": true })).await;
    feed(&everybody, 0..5, 100).await;
    let source = source(&connect_as(&server, "some").await, Duration::from_secs(30));
    let failure = source.pull(WIDE).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Denied, "{failure}");
    assert!(failure.to_string().contains("change headers_only of consumer c of IN"), "{failure}");
    assert_eq!(source.backlog().await.unwrap().unacknowledged, 0, "nothing was asked for");
    alter(&everybody, json!({ "headers_only": false })).await;
    assert_eq!(pull_count(&source, 5, WIDE).await.len(), 5);
}

async fn requests_keep_to_the_limits_of_the_consumer(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let two_payloads = 2 * connection.client().max_payload();
    existing(&connection, json!({ "max_batch": 3, "max_expires": 500_000_000, "max_bytes": two_payloads })).await;
    assert_eq!(plan(&connection).await.unwrap(), Plan::Use);
    let source = source(&connection, Duration::from_secs(30));
    assert!(source.pull(WIDE).await.unwrap().is_empty(), "requests that expire fast are made again");
    whole_messages_come(&source, &connection).await;
    // Set while the service runs.
    alter(&connection, json!({ "max_batch": 2 })).await;
    let refused = until_refused(&source).await;
    assert!(refused.to_string().contains("MaxRequestBatch"), "{refused}");
    whole_messages_come(&source, &connection).await;
}

async fn limits_that_some_message_would_never_fit_are_refused(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    existing(&connection, json!({ "max_bytes": 2 * connection.client().max_payload() - 1 })).await;
    let refused = plan(&connection).await.unwrap_err();
    assert!(refused.to_string().contains("max_bytes"), "{refused}");
    let refused = source(&connection, Duration::from_secs(30)).pull(WIDE).await.unwrap_err();
    assert!(refused.to_string().contains("max_bytes"), "{refused}");
}

/// Servers know them since 2.11. A request that names no group is refused.
async fn priority_groups_are_refused(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    if !connection.client().is_server_compatible(2, 11, 0) {
        return;
    }
    existing(&connection, json!({ "priority_groups": ["a"], "priority_policy": "overflow" })).await;
    let refused = plan(&connection).await.unwrap_err();
    assert!(refused.to_string().contains("priority_groups"), "{refused}");
    let refused = source(&connection, Duration::from_secs(30)).pull(WIDE).await.unwrap_err();
    assert!(refused.to_string().contains("priority_groups"), "{refused}");
}

/// A source, and what it has noted.
fn noting(connection: &Connection, ack_wait: Duration) -> (JetStreamSource, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&notes);
    let on_note = move |note: Note| noted.lock().unwrap().push(note.to_string());
    (JetStreamSource::new(connection.clone(), source_settings(ack_wait), on_note), notes)
}

async fn what_somebody_changes_is_changed_back(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let (source, notes) = noting(&connection, Duration::from_secs(30));
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    whole_messages_come(&source, &connection).await;
    source.backlog().await.unwrap();
    alter(
        &connection,
        json!({ "filter_subject": "in.nothing", "max_deliver": 1, "backoff": [], "description": "ours" }),
    )
    .await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while plan(&connection).await.unwrap() != Plan::Use {
        assert!(Instant::now() < deadline, "it stays as it is");
        source.backlog().await.unwrap();
        assert!(source.pull(WIDE).await.unwrap().is_empty());
    }
    whole_messages_come(&source, &connection).await;
    source.backlog().await.unwrap();
    let info = api(&connection, "CONSUMER.INFO.IN.c", &json!({})).await;
    assert_eq!(info["config"]["description"], "ours", "what it does not keep is left as it is");
    let notes = notes.lock().unwrap();
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    assert!(note.contains("max_deliver 1 instead of -1"), "{note}");
    assert!(note.contains(r#"filter_subject "in.nothing" instead of "in.>""#), "{note}");
    assert!(note.contains("is changed back"), "{note}");
    assert!(note.contains("after sequence 0"), "nothing was acknowledged: {note}");
}

async fn what_an_altered_consumer_leaves_out_counts_as_waiting(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let (source, _) = noting(&connection, Duration::from_secs(30));
    assert!(source.pull(WIDE).await.unwrap().is_empty());
    assert_eq!(source.backlog().await.unwrap().oldest_unacknowledged, None);
    alter(&connection, json!({ "filter_subject": "in.nothing" })).await;
    feed(&connection, 0..5, 0).await;
    assert!(source.backlog().await.unwrap().oldest_unacknowledged.is_some());
}

async fn what_may_not_be_changed_back_is_not_read(binary: &Path) {
    let denied = "permissions: { publish: { deny: [\"$JS.API.CONSUMER.DURABLE.CREATE.>\"] } }";
    let users = format!(
        "authorization {{ users = [{{ user: all, password: all }}, {{ user: some, password: some, {denied} }}] }}"
    );
    let server = NatsServer::start_with(binary, &users);
    let everybody = connect_as(&server, "all").await;
    existing(&everybody, json!({ "max_ack_pending": 77 })).await;
    let (source, notes) = noting(&connect_as(&server, "some").await, Duration::from_secs(30));
    whole_messages_come(&source, &everybody).await;
    source.backlog().await.unwrap();
    assert_eq!(notes.lock().unwrap().len(), 1, "what is left as it is is told once: {notes:?}");
    alter(&everybody, json!({ "max_deliver": 1 })).await;
    source.backlog().await.unwrap();
    let failure = until_refused(&source).await;
    assert_eq!(failure.class, FailureClass::Denied, "{failure}");
    assert!(failure.to_string().contains("max_deliver"), "{failure}");
}

async fn two_that_want_different_settings_do_not_go_on_about_it(binary: &Path) {
    let server = NatsServer::start(binary);
    let connection = connect(&server).await;
    let (one, notes_of_one) = noting(&connection, Duration::from_secs(30));
    let (other, notes_of_other) = noting(&connection, Duration::from_secs(31));
    let mut wanted = Vec::new();
    for _ in 0..4 {
        for source in [&one, &other] {
            source.backlog().await.ok();
            assert!(source.pull(WIDE).await.unwrap().is_empty());
        }
        wanted.push(plan(&connection).await.unwrap() == Plan::Use);
    }
    assert_eq!(wanted, [false, false, false, false], "whoever came last has it");
    let (of_one, of_other) = (notes_of_one.lock().unwrap(), notes_of_other.lock().unwrap());
    let [back, stays] = of_one.as_slice() else { panic!("{of_one:?}") };
    assert!(back.contains("is changed back") && stays.contains("stays so"), "{of_one:?}");
    let [back] = of_other.as_slice() else { panic!("{of_other:?}") };
    assert!(back.contains("is changed back"), "{of_other:?}");
}
