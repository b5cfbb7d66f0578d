//! The limit for this job: pull, publish with `Nats-Msg-Id`, wait for the ack, acknowledge, and nothing else.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::future::ready;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use super::rig::{CONSUMER, SOURCE};

/// Messages between pull and ack, as the service's default.
const IN_FLIGHT: usize = 4096;
/// Bytes in them, as the service's default: a server refuses what comes much faster than it stores.
const IN_FLIGHT_BYTES: usize = 64 << 20;
/// Messages in a pull request.
const BATCH: usize = 500;

/// Passes everything on until it is killed.
pub async fn run(url: &str) {
    let js = jetstream::new(async_nats::connect(url).await.unwrap());
    let consumer: PullConsumer = js.get_consumer_from_stream(CONSUMER, SOURCE).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(BATCH).messages().await.unwrap();
    let first = messages.next().await.unwrap().unwrap();
    let (on_wire, mut answered) = mpsc::channel(IN_FLIGHT.min(IN_FLIGHT_BYTES / first.payload.len()));
    let acknowledging = tokio::spawn(async move {
        while let Some((message, ack)) = answered.recv().await {
            let (message, ack): (jetstream::Message, jetstream::context::PublishAckFuture) = (message, ack);
            ack.await.unwrap();
            message.ack().await.unwrap();
        }
    });
    let mut messages = stream::once(ready(Ok(first))).chain(messages);
    while let Some(message) = messages.next().await {
        let message = message.unwrap();
        let sequence = message.info().unwrap().stream_sequence;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", format!("messages:{sequence}").as_str());
        let subject = format!("wa.CID1001.agent-1.messages.{}", sequence % 1_000);
        let ack = js.publish_with_headers(subject, headers, message.payload.clone()).await.unwrap();
        on_wire.send((message, ack)).await.unwrap();
    }
    acknowledging.await.unwrap();
}
