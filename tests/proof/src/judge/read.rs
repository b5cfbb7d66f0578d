//! Reads target and dead letters to their ends.

use std::time::{Duration, Instant};

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{self, ErrorCode, consumer, stream};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::letters::{Letter, Post};
use crate::proxy::LifeId;
use crate::traffic::Identity;
use crate::traffic::hash;

/// Bytes in a batch: the server takes a client that is behind by 64 MiB for a slow consumer and closes its connection.
const BATCH_BYTES: usize = 16 << 20;
/// How long a stream may take to be read to its end.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the next message may take.
const SILENCE: Duration = Duration::from_secs(10);

/// An event in the target.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the target.
    pub sequence: u64,
    /// The subject.
    pub subject: String,
    /// What it says that it is; an error if its body is not an enriched event.
    pub told: Result<Told, String>,
    /// Its `Nats-Msg-Id`.
    pub id: Option<String>,
    /// Its `Cdc-Late`.
    pub late: Option<String>,
    /// Hash of its body.
    pub body: u64,
    /// Which life stored it; not in the stream, and known only where that is noted.
    pub author: Option<LifeId>,
}

/// What an event says of itself.
#[derive(Debug, Clone)]
pub struct Told {
    /// Which change it is.
    pub identity: Identity,
    /// insert, update, delete or read.
    pub action: String,
    /// Hash of `row_data`.
    pub record: u64,
    /// Hash of `changes`.
    pub changes: Option<u64>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Harvest {
    /// The target, in its order.
    pub stored: Vec<Stored>,
    /// The dead letters, in their order.
    pub letters: Vec<Letter>,
}

/// Reads both streams; one that is not there is empty.
pub async fn read(js: &jetstream::Context, target: &str, dead_letters: &str) -> Harvest {
    let mut harvest = Harvest::default();
    each(js, target, |message, sequence| {
        let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
        harvest.stored.push(Stored {
            sequence,
            subject: message.subject.to_string(),
            told: told(&message.payload),
            id: header("Nats-Msg-Id"),
            late: header("Cdc-Late"),
            body: hash(&message.payload),
            author: None,
        });
    })
    .await;
    let mut post = Post::default();
    each(js, dead_letters, |message, sequence| {
        post.take(message.headers.clone().unwrap_or_default(), message.payload.clone(), sequence);
    })
    .await;
    harvest.letters = post.letters();
    harvest
}

/// Whether a server says that there is no such stream; anything else says nothing of it.
pub(crate) fn is_missing(error: &GetStreamError) -> bool {
    let GetStreamErrorKind::JetStream(error) = error.kind() else { return false };
    error.error_code() == ErrorCode::STREAM_NOT_FOUND
}

/// The stream, if there is one: a server that does not tell is asked again.
async fn find(js: &jetstream::Context, name: &str, deadline: Instant) -> Option<stream::Stream> {
    loop {
        match js.get_stream(name).await {
            Ok(stream) => return Some(stream),
            Err(error) if is_missing(&error) => return None,
            Err(error) => assert!(Instant::now() < deadline, "{name} is not told of within {PATIENCE:?}: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads a stream to its end; one that is not there is empty.
pub(crate) async fn each(js: &jetstream::Context, name: &str, mut take: impl FnMut(&jetstream::Message, u64)) {
    let deadline = Instant::now() + PATIENCE;
    let Some(stream) = find(js, name, deadline).await else { return };
    let last = stream.cached_info().state.last_sequence;
    if stream.cached_info().state.messages == 0 {
        return;
    }
    let mut at = 0;
    while at < last {
        assert!(Instant::now() < deadline, "{name} was read to {at} of {last} only within {PATIENCE:?}");
        let config = consumer::pull::Config {
            ack_policy: consumer::AckPolicy::None,
            deliver_policy: consumer::DeliverPolicy::ByStartSequence { start_sequence: at + 1 },
            ..Default::default()
        };
        let Ok(consumer) = stream.create_consumer(config).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut before = None;
        // One that falls silent, as nats-server 2.9.10 can let them, is given up for another.
        while before != Some(at) && at < last {
            before = Some(at);
            let asked = consumer.fetch().max_messages(1_000).max_bytes(BATCH_BYTES).messages().await;
            let Ok(mut messages) = asked else { break };
            while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, messages.next()).await {
                at = message.info().unwrap().stream_sequence;
                take(&message, at);
            }
        }
    }
}

/// The parts of an enriched event that tell which change it is.
#[derive(Deserialize)]
struct Event<'a> {
    table: String,
    schema: String,
    action: String,
    agent_id: Option<String>,
    chat_id: Option<String>,
    message_id: Option<String>,
    commit_lsn: u64,
    commit_idx: u64,
    #[serde(borrow)]
    row_data: &'a RawValue,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
}

fn told(body: &[u8]) -> Result<Told, String> {
    let event: Event<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let key = match event.table.as_str() {
        "messages" => event.message_id,
        "chats" => event.chat_id,
        _ => event.agent_id,
    };
    let row = format!("{}/{}/{}", event.schema, event.table, key.unwrap_or_default());
    Ok(Told {
        identity: Identity { row, lsn: event.commit_lsn, idx: event.commit_idx },
        action: event.action,
        record: hash(event.row_data.get().as_bytes()),
        changes: event.changes.map(|changes| hash(changes.get().as_bytes())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::{NatsServer, nats_servers};

    #[tokio::test]
    async fn a_server_that_does_not_answer_in_time_has_no_empty_stream() {
        const ASKED_FOR: Duration = Duration::from_millis(100);
        let server = NatsServer::start(nats_servers().last().unwrap());
        let mut js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        js.set_timeout(ASKED_FOR);
        let config = stream::Config { name: "letters".to_owned(), ..Default::default() };
        js.get_or_create_stream(config).await.unwrap();
        for _ in 0..3 {
            js.publish("letters", "{}".into()).await.unwrap().await.unwrap();
        }
        server.stop();
        let reading = {
            let js = js.clone();
            tokio::spawn(async move { read(&js, "no_stream", "letters").await })
        };
        // Longer than any question may take: the first has failed when the server goes on.
        tokio::time::sleep(ASKED_FOR * 5).await;
        assert!(!reading.is_finished(), "nothing is known of the streams yet");
        server.cont();
        let harvest = reading.await.unwrap();
        assert_eq!((harvest.stored.len(), harvest.letters.len()), (0, 3));
    }
}
