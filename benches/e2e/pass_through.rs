//! The limit for this job: pull, publish with `Nats-Msg-Id`, wait for the ack, acknowledge, and nothing else.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::StreamExt;
use tokio::sync::mpsc;

use super::rig::{CONSUMER, SOURCE};

/// Messages between pull and ack, as the service's default.
const IN_FLIGHT: usize = 4096;
/// Bytes in them, as the service's default: a server refuses what comes much faster than it stores.
const IN_FLIGHT_BYTES: u64 = 64 << 20;
/// Messages in a pull request.
const BATCH: usize = 500;
/// Bytes in it: what a server has to send to one client and cannot is bounded, too.
const BATCH_BYTES: u64 = 32 << 20;

/// Passes everything on until it is killed.
pub async fn run(url: &str) {
    let js = jetstream::new(async_nats::connect(url).await.unwrap());
    let source = js.get_stream(SOURCE).await.unwrap().cached_info().state.clone();
    let within = |bytes: u64| usize::try_from(bytes * source.messages / source.bytes).unwrap();
    let consumer: PullConsumer = js.get_consumer_from_stream(CONSUMER, SOURCE).await.unwrap();
    let pull = consumer.stream().max_messages_per_batch(BATCH.min(within(BATCH_BYTES)));
    let mut messages = pull.messages().await.unwrap();
    let (on_wire, mut answered) = mpsc::channel(IN_FLIGHT.min(within(IN_FLIGHT_BYTES)));
    let acknowledging = tokio::spawn(async move {
        while let Some((message, ack)) = answered.recv().await {
            let (message, ack): (jetstream::Message, jetstream::context::PublishAckFuture) = (message, ack);
            ack.await.unwrap();
            message.ack().await.unwrap();
        }
    });
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
