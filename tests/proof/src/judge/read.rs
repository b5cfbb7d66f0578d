//! Reads target and dead letters to their ends.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer};
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

/// Reads a stream to its end; one that is not there is empty.
pub(crate) async fn each(js: &jetstream::Context, name: &str, mut take: impl FnMut(&jetstream::Message, u64)) {
    let Ok(stream) = js.get_stream(name).await else { return };
    let last = stream.cached_info().state.last_sequence;
    if stream.cached_info().state.messages == 0 {
        return;
    }
    let (mut at, deadline) = (0, Instant::now() + PATIENCE);
    while at < last {
        assert!(Instant::now() < deadline, "{name} was read to {at} of {last} only within {PATIENCE:?}");
        let config = consumer::pull::Config {
            ack_policy: consumer::AckPolicy::None,
            deliver_policy: consumer::DeliverPolicy::ByStartSequence { start_sequence: at + 1 },
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut before = None;
        // One that falls silent, as nats-server 2.9.10 can let them, is given up for another.
        while before != Some(at) && at < last {
            before = Some(at);
            let mut messages = consumer.fetch().max_messages(1_000).max_bytes(BATCH_BYTES).messages().await.unwrap();
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
