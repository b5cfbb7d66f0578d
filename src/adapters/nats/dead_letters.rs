//! Dead letters: the original, whole, with the reason in its headers.
//!
//! A letter that one message holds is stored as it came. What does not fit is changed in up to three steps:
//! 1. Texts and original headers that are too long, or not legal, as headers move into the body: `Cdc-Envelope: 1` says
//!    that the body starts with one line of JSON, `{"subject","detail","headers":[[name,value],…]}`, before the payload.
//! 2. A body that is still too large is compressed: `Cdc-Encoding: gzip`.
//! 3. A compressed body that is still too large is split: `Cdc-Part: 1/3`, … The parts, joined in order, are the body.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use cdc_actors::message::{Attempt, DeadLetter, Event, EventKey, Headers};
use cdc_actors::ports::{DeadLetters, Failure, FailureClass, PublishError, Publisher};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::sync::mpsc;

use super::connection::Connection;
use super::headers::{is_legal, wire_size};
use super::publisher::{JetStreamPublisher, PublisherSettings};

/// Headers may take this much of a message at most, beside what the limit of the server allows.
const HEADERS_MAX: usize = 16 * 1024;
/// The longest text that stays a header of its own.
const TEXT_MAX: usize = 1024;
/// Room for what the headers of a part add: `Cdc-Envelope`, `Cdc-Encoding`, `Cdc-Part` and the longer `Nats-Msg-Id`.
const PART_HEADERS: usize = 256;

/// The dead-letter stream.
#[derive(Debug, Clone)]
pub struct DeadLetterSettings {
    /// The stream.
    pub stream: String,
    /// What subjects start with.
    pub subject_prefix: String,
    /// The stream that letters come from, for the header `Cdc-Stream`.
    pub source_stream: String,
    /// How long an acknowledgement is waited for.
    pub ack_timeout: Duration,
}

/// The [`DeadLetters`] port on JetStream.
pub struct JetStreamDeadLetters {
    publisher: JetStreamPublisher,
    settings: DeadLetterSettings,
}

/// Why a letter could not be made or stored.
#[derive(Debug, Clone, thiserror::Error)]
enum LetterProblem {
    #[error(
        "the server's message limit of {0} bytes leaves no room for a dead letter: raise max_payload or the stream's max_msg_size"
    )]
    NoRoom(usize),
    #[error("the message limit has become smaller ({size} bytes are more than {limit}); the letter is split anew")]
    LimitChanged { size: usize, limit: usize },
    #[error("the publisher ended before the letter was confirmed")]
    Unanswered,
    #[error("the letter could not be compressed")]
    Compress(#[source] Arc<std::io::Error>),
    #[error("the identity {0:?} is no legal Nats-Msg-Id")]
    Identity(String),
}

impl JetStreamDeadLetters {
    /// Dead letters on a connection of their own or shared with the target.
    ///
    /// # Errors
    /// A [`Failure`] if the connection is closed.
    pub async fn new(connection: Connection, settings: DeadLetterSettings) -> Result<Self, Failure> {
        let publisher = PublisherSettings { stream: settings.stream.clone(), ack_timeout: settings.ack_timeout };
        Ok(Self { publisher: JetStreamPublisher::new(connection, publisher).await?, settings })
    }

    fn action(&self) -> String {
        format!("store a dead letter in {}", self.settings.stream)
    }

    async fn store_letter(&self, letter: DeadLetter) -> Result<(), Failure> {
        self.publisher.refresh().await?;
        let parts = compose(&self.settings, &letter, self.publisher.size_limit(), now())
            .map_err(|problem| Failure::new(self.action(), FailureClass::Unavailable, problem))?;
        let expected = parts.len();
        let attempts = (0..).zip(parts).map(|(ticket, part)| Attempt { ticket, event: part.into(), late: None });
        let (answers, mut answered) = mpsc::unbounded_channel();
        self.publisher.publish(attempts.collect(), answers).await;
        for _ in 0..expected {
            let Some(answer) = answered.recv().await else {
                return Err(Failure::new(self.action(), FailureClass::Disconnected, LetterProblem::Unanswered));
            };
            match answer.outcome {
                Ok(_) => {}
                Err(PublishError::Unknown(failure) | PublishError::Rejected(failure)) => return Err(failure),
                Err(PublishError::TooLarge { size, limit }) => {
                    let problem = LetterProblem::LimitChanged { size, limit };
                    return Err(Failure::new(self.action(), FailureClass::Unavailable, problem));
                }
            }
        }
        Ok(())
    }
}

impl DeadLetters for JetStreamDeadLetters {
    fn store(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Failure>> {
        self.store_letter(letter).boxed()
    }
}

fn now() -> String {
    // Always six digits, so that the size of the headers does not depend on the time.
    format!("{:.6}", jiff::Timestamp::now())
}

/// The headers of a letter, and what had to move from them into the body.
struct Head {
    headers: Headers,
    envelope: Option<Vec<u8>>,
}

fn head(settings: &DeadLetterSettings, letter: &DeadLetter, time: String, room: usize) -> Head {
    let delivery = &letter.delivery;
    let id = delivery.receipt.id;
    let fixed: Headers = vec![
        ("Cdc-Reason".to_owned(), letter.reason.name().to_owned()),
        ("Cdc-Stream".to_owned(), settings.source_stream.clone()),
        ("Cdc-Sequence".to_owned(), id.sequence.to_string()),
        ("Cdc-Deliveries".to_owned(), delivery.deliveries.to_string()),
        ("Cdc-Time".to_owned(), time),
    ];
    let detail = one_line(&letter.detail);
    let mut all = fixed.clone();
    all.push(("Cdc-Detail".to_owned(), detail.clone()));
    all.push(("Cdc-Subject".to_owned(), delivery.subject.to_string()));
    all.extend(delivery.headers.iter().map(|(name, value)| (format!("Cdc-Source-{name}"), value.clone())));
    let fits = detail.len() <= TEXT_MAX
        && delivery.subject.len() <= TEXT_MAX
        && all.iter().all(|(name, value)| is_legal(name, value))
        && size_of(&all) <= room;
    if fits {
        return Head { headers: all, envelope: None };
    }
    let line = json!({ "subject": &*delivery.subject, "detail": letter.detail, "headers": delivery.headers });
    let mut envelope = line.to_string().into_bytes();
    envelope.push(b'\n');
    let mut headers = fixed;
    // Shortened for the eye; the whole is in the envelope.
    headers.push(("Cdc-Detail".to_owned(), shortened(&detail)));
    headers.push(("Cdc-Subject".to_owned(), shortened(&one_line(&delivery.subject))));
    headers.push(("Cdc-Envelope".to_owned(), "1".to_owned()));
    Head { headers, envelope: Some(envelope) }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

fn size_of(headers: &Headers) -> usize {
    wire_size(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// One delivery, one letter: a second one, for whatever other reason, is the same to the duplicate window.
fn identity(letter: &DeadLetter) -> String {
    let id = letter.delivery.receipt.id;
    format!("{}-{}-{}", id.stream_created, id.sequence, id.timestamp)
}

/// The messages that a letter becomes: one, or several parts, none larger than `limit`.
fn compose(
    settings: &DeadLetterSettings,
    letter: &DeadLetter,
    limit: usize,
    time: String,
) -> Result<Vec<Event>, LetterProblem> {
    let Head { mut headers, envelope } = head(settings, letter, time, HEADERS_MAX.min(limit / 4));
    let id = identity(letter);
    // As if the count had all the digits it can have: a later attempt must split at the same places.
    let digits = u64::MAX.to_string().len() - letter.delivery.deliveries.to_string().len();
    let room = limit.saturating_sub(size_of(&headers) + digits + PART_HEADERS);
    if room == 0 {
        return Err(LetterProblem::NoRoom(limit));
    }
    let body = match envelope {
        None => letter.delivery.payload.clone(),
        Some(mut line) => {
            line.extend_from_slice(&letter.delivery.payload);
            Bytes::from(line)
        }
    };
    if body.len() <= room {
        return Ok(vec![event(settings, letter, &id, headers, body)?]);
    }
    let body = gzip(&body)?;
    headers.push(("Cdc-Encoding".to_owned(), "gzip".to_owned()));
    if body.len() <= room {
        return Ok(vec![event(settings, letter, &id, headers, body)?]);
    }
    let parts = body.len().div_ceil(room);
    // The reason stands in the body of a letter in parts: those of one must not take the place of another's.
    let id = format!("{id}-{}", letter.reason.name());
    (1..=parts)
        .map(|part| {
            let mut headers = headers.clone();
            headers.push(("Cdc-Part".to_owned(), format!("{part}/{parts}")));
            let slice = body.slice((part - 1) * room..(part * room).min(body.len()));
            event(settings, letter, &format!("{id}-{part}-{parts}"), headers, slice)
        })
        .collect()
}

fn event(
    settings: &DeadLetterSettings,
    letter: &DeadLetter,
    id: &str,
    headers: Headers,
    payload: Bytes,
) -> Result<Event, LetterProblem> {
    let table = letter.table.unwrap_or("unknown");
    Ok(Event {
        key: EventKey::new(id).map_err(|id| LetterProblem::Identity(id.to_string()))?,
        event_id: ByteString::new(),
        table,
        subject: format!("{}.{table}.{}", settings.subject_prefix, letter.reason.name()).into(),
        headers,
        payload,
        position: None,
        committed: None,
    })
}

fn gzip(body: &[u8]) -> Result<Bytes, LetterProblem> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::default());
    let compressed = encoder.write_all(body).and_then(|()| encoder.finish());
    compressed.map(Bytes::from).map_err(|cause| LetterProblem::Compress(cause.into()))
}
