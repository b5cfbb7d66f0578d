//! The contract of [`Publisher`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use crate::message::{Attempt, Event, EventKey, Late, Stored};
use crate::ports::{PublishError, Publisher};
use crate::testkit::StoredMessage;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty target with a duplicate window of a minute or more, and a way to look into it.
pub trait PublisherBench {
    /// The port.
    fn publisher(&self) -> &dyn Publisher;
    /// A subject that the target listens on, ending in `name`.
    fn subject(&self, name: &str) -> String;
    /// A subject that no stream listens on.
    fn missing_subject(&self) -> String;
    /// The largest headers and payload the target accepts, in bytes.
    fn max_payload(&self) -> usize;
    /// What the target holds, in order.
    fn stored(&self) -> BoxFuture<'_, Vec<StoredMessage>>;
}

type Outcome = Result<Stored, PublishError>;

fn attempt(ticket: u64, key: &str, subject: String, payload: impl Into<Bytes>) -> Attempt {
    let event = Event {
        key: EventKey::new(key).expect("a legal key"),
        event_id: key.into(),
        table: "orders",
        subject: subject.into(),
        headers: vec![("traceparent".to_owned(), format!("00-{key}"))],
        payload: payload.into(),
        position: None,
        committed: None,
    };
    Attempt { ticket, event: Arc::new(event), late: None }
}

/// Publishes a batch and returns the outcomes by ticket, each of which has come exactly once.
async fn publish(publisher: &dyn Publisher, batch: Vec<Attempt>) -> HashMap<u64, Outcome> {
    let expected = batch.len();
    let (sender, mut answers) = unbounded_channel();
    publisher.publish(batch, sender).await;
    let mut outcomes = HashMap::new();
    // The channel closes when the publisher has let go of the last attempt.
    while let Some(answer) = timeout(PATIENCE, answers.recv()).await.expect("every attempt is answered in time") {
        assert!(
            outcomes.insert(answer.ticket, answer.outcome).is_none(),
            "ticket {} was answered twice",
            answer.ticket
        );
    }
    assert_eq!(outcomes.len(), expected, "every attempt is answered");
    outcomes
}

fn stored(outcomes: &HashMap<u64, Outcome>, ticket: u64) -> Stored {
    *outcomes[&ticket].as_ref().unwrap_or_else(|error| panic!("ticket {ticket}: {error}"))
}

/// Holds a publisher to the contract.
///
/// # Panics
/// Where it breaks the contract.
pub async fn publisher_contract(bench: &dyn PublisherBench) {
    let publisher = bench.publisher();
    let epoch = publisher.connection_epoch();
    stores_in_order(bench).await;
    stores_a_key_once(bench).await;
    one_bad_attempt_fails_alone(bench).await;
    assert!(publish(publisher, Vec::new()).await.is_empty(), "an empty batch has no answers");
    assert_eq!(publisher.connection_epoch(), epoch, "the connection was never lost");
}

async fn stores_in_order(bench: &dyn PublisherBench) {
    let publisher = bench.publisher();
    let before = publisher.target().await.expect("target");
    let batch: Vec<_> =
        (0..300).map(|n| attempt(n, &format!("order:{n}"), bench.subject("row"), format!("p{n}"))).collect();
    let outcomes = publish(publisher, batch).await;
    for n in 0..300 {
        let expected =
            Stored { stream_created: before.created, sequence: before.last_sequence + n + 1, duplicate: false };
        assert_eq!(stored(&outcomes, n), expected, "in the order handed in");
    }
    let after = publisher.target().await.expect("target");
    assert_eq!((after.created, after.last_sequence), (before.created, before.last_sequence + 300));

    let messages = bench.stored().await;
    let third =
        messages.iter().find(|message| message.sequence == before.last_sequence + 3).expect("the third message");
    assert_eq!((third.subject.as_str(), &third.payload[..]), (bench.subject("row").as_str(), &b"p2"[..]));
    assert_eq!(third.header("Nats-Msg-Id"), Some("order:2"), "the event key is the identity");
    assert_eq!(third.header("traceparent"), Some("00-order:2"), "the event's headers go along");
    assert_eq!(third.header("Cdc-Late"), None);
}

async fn stores_a_key_once(bench: &dyn PublisherBench) {
    let publisher = bench.publisher();
    let once = |ticket| attempt(ticket, "once", bench.subject("once"), "once");
    let outcomes = publish(publisher, vec![once(1), once(2)]).await;
    let first = stored(&outcomes, 1);
    assert!(!first.duplicate);
    assert_eq!(stored(&outcomes, 2), Stored { duplicate: true, ..first }, "the second of a batch is a duplicate");
    let again = publish(publisher, vec![once(3)]).await;
    assert_eq!(stored(&again, 3), Stored { duplicate: true, ..first }, "so is one sent again later");

    for (ticket, late) in [(4, Late::True), (5, Late::Unknown)] {
        let late =
            Attempt { late: Some(late), ..attempt(ticket, &format!("late:{ticket}"), bench.subject("late"), "late") };
        publish(publisher, vec![late]).await;
    }
    let messages = bench.stored().await;
    let certainties: Vec<_> =
        messages.iter().filter(|message| message.payload == "late").map(|message| message.header("Cdc-Late")).collect();
    assert_eq!(certainties, [Some("true"), Some("unknown")]);
    assert_eq!(messages.iter().filter(|message| message.payload == "once").count(), 1);
}

async fn one_bad_attempt_fails_alone(bench: &dyn PublisherBench) {
    let huge = vec![b'x'; bench.max_payload() + 1];
    let batch = vec![
        attempt(1, "good:1", bench.subject("good"), "good"),
        attempt(2, "lost", bench.missing_subject(), "lost"),
        attempt(3, "huge", bench.subject("huge"), huge),
        attempt(4, "good:2", bench.subject("good"), "good"),
    ];
    let outcomes = publish(bench.publisher(), batch).await;
    assert!(!stored(&outcomes, 1).duplicate && !stored(&outcomes, 4).duplicate);
    assert!(
        matches!(&outcomes[&2], Err(PublishError::Rejected(_) | PublishError::Unknown(_))),
        "nobody listens there: {:?}",
        outcomes[&2]
    );
    match &outcomes[&3] {
        Err(PublishError::TooLarge { size, limit }) => assert!(size > limit, "{size} is not more than {limit}"),
        other => panic!("too large, yet {other:?}"),
    }
    let good = bench.stored().await.iter().filter(|message| message.payload == "good").count();
    assert_eq!(good, 2);
}
