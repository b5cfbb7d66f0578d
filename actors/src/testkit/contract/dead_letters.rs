//! The contract of [`DeadLetters`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::message::{DeadLetter, Delivery, DeliveryId, Reason, Receipt};
use crate::ports::DeadLetters;

/// A dead-letter stream and a way to look into it.
pub trait DeadLetterBench {
    /// The port.
    fn dead_letters(&self) -> &dyn DeadLetters;
    /// Payloads of what is stored, in order, as they came from the source.
    fn payloads(&self) -> BoxFuture<'_, Vec<Bytes>>;
}

fn letter(sequence: u64, stream_created: i64, table: Option<&'static str>, payload: &str) -> DeadLetter {
    let delivery = Delivery {
        receipt: Receipt { id: DeliveryId { stream_created, sequence, timestamp: 1 }, consumer: 0, reply: "".into() },
        subject: "changes.db.public.t.insert".into(),
        headers: vec![("X-Origin".to_owned(), "contract".to_owned())],
        payload: Bytes::from(payload.to_owned()),
        deliveries: 1,
        received: Instant::now(),
    };
    DeadLetter {
        delivery: Arc::new(delivery),
        table,
        reason: Reason::WrongShape,
        detail: "line\r\nInjected: yes \u{e9}".to_owned(),
    }
}

/// Holds an empty dead-letter stream to the contract.
///
/// # Panics
/// Where it breaks the contract.
pub async fn dead_letters_contract(bench: &dyn DeadLetterBench) {
    let port = bench.dead_letters();
    port.store(letter(1, 1, Some("orders"), "one")).await.expect("a letter of a known table");
    assert_eq!(bench.payloads().await, ["one"], "stored when store returns");
    port.store(letter(2, 1, None, "two")).await.expect("a letter of an unknown table");
    port.store(letter(1, 1, Some("orders"), "one")).await.expect("a letter that is stored already");
    assert_eq!(bench.payloads().await, ["one", "two"], "one letter per delivery");
    port.store(letter(1, 2, Some("orders"), "three")).await.expect("a letter of another life of the source stream");
    port.store(letter(3, 1, None, "")).await.expect("an empty payload");
    assert_eq!(bench.payloads().await, ["one", "two", "three", ""]);
}
