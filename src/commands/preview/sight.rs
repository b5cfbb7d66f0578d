//! Which messages are looked at, and how they are got without a consumer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use cdc_actors::ports::{Failure, FailureClass};
use futures::StreamExt;
use futures::stream::{SelectAll, select_all};

use super::CommandError;
use crate::adapters::nats::streams::StreamInfo;
use crate::adapters::nats::{Connection, Retention, StoredMessage, StreamReader, gives, received};
use crate::cli::PreviewArgs;

/// Between two looks at a stream for what is new.
const LOOK: Duration = Duration::from_millis(50);

/// The messages that are looked at, in order.
pub(super) struct Sight {
    messages: Messages,
    filters: Vec<String>,
    /// Messages still to come at most.
    left: u64,
    ends: Option<Instant>,
    total: u64,
    passed_over: u64,
}

enum Messages {
    /// Those in the stream.
    Stored(Box<Stored>),
    /// Those on their way into a stream that lets go of what is acknowledged.
    Passing(SelectAll<Subscriber>),
}

/// Messages in the stream, up to `last`; with those to come if there is no last one.
struct Stored {
    reader: StreamReader,
    ready: VecDeque<StoredMessage>,
    next: Option<u64>,
    last: Option<u64>,
}

impl Sight {
    pub(super) async fn open(
        arguments: &PreviewArgs,
        connection: &Connection,
        reader: StreamReader,
        info: &StreamInfo,
        filters: &[String],
    ) -> Result<Self, CommandError> {
        let filters = filters.to_vec();
        let (mut left, ends) = (arguments.limit(), arguments.lasting.map(|lasting| Instant::now() + lasting));
        let stored = |next: u64, last: Option<u64>| {
            Messages::Stored(Box::new(Stored {
                reader: reader.clone(),
                ready: VecDeque::new(),
                next: Some(next),
                last,
            }))
        };
        let end = info.last_sequence;
        let (messages, there) = if arguments.live {
            let passing = info.retention != Retention::Limits && !info.subjects.is_empty();
            let messages = match passing {
                true => Messages::Passing(subscribe(connection, &info.subjects).await?),
                false => stored(end + 1, None),
            };
            (messages, left)
        } else {
            let from = match arguments.from {
                Some(from) => from.max(info.first_sequence),
                None => {
                    left = arguments.last();
                    newest(&reader, info, &filters, left).await?
                }
            };
            (stored(from, Some(end)), (end + 1).saturating_sub(from))
        };
        let total = Some(left.min(there)).filter(|total| *total < u64::MAX).unwrap_or(0);
        Ok(Self { messages, filters, left, ends, total, passed_over: 0 })
    }

    /// How many there may be; 0 if nobody knows.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Messages that were come across so far and that no filter lets through.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The next message; `None` at the end. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<StoredMessage>, CommandError> {
        // Looked at first: where messages come faster than they are read, there is always one more.
        while self.left > 0 && self.ends.is_none_or(|ends| Instant::now() < ends) {
            let next = self.messages.next();
            let message = match self.ends {
                Some(ends) => tokio::time::timeout_at(ends.into(), next).await.unwrap_or(Ok(None))?,
                None => next.await?,
            };
            let Some(message) = message else { return Ok(None) };
            if gives(&self.filters, &message.subject) {
                self.left -= 1;
                return Ok(Some(message));
            }
            self.passed_over += 1;
        }
        Ok(None)
    }
}

impl Messages {
    async fn next(&mut self) -> Result<Option<StoredMessage>, CommandError> {
        match self {
            Self::Passing(subscribers) => Ok(subscribers.next().await.map(passing)),
            Self::Stored(stored) => stored.next().await,
        }
    }
}

impl Stored {
    async fn next(&mut self) -> Result<Option<StoredMessage>, CommandError> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let Some(from) = self.next else { return Ok(None) };
            let last = match self.last {
                Some(last) => last,
                None => self.reader.info().await?.last_sequence,
            };
            if self.last.is_none() && last < from {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let chunk = self.reader.chunk(from, last).await?;
            self.ready.extend(chunk.messages);
            self.next = match self.last {
                Some(_) => chunk.next,
                None => Some(chunk.next.unwrap_or(last + 1)),
            };
        }
    }
}

async fn subscribe(connection: &Connection, subjects: &[String]) -> Result<SelectAll<Subscriber>, CommandError> {
    let mut subscribers = Vec::new();
    let failed = |cause| Failure::new("subscribe to the source's subjects", FailureClass::Disconnected, cause);
    for subject in subjects {
        subscribers.push(connection.client().subscribe(subject.clone()).await.map_err(failed)?);
    }
    // The server has the subscriptions when it answers.
    let flushed = connection.client().flush().await;
    flushed.map_err(|cause| Failure::new("subscribe to the source's subjects", FailureClass::Disconnected, cause))?;
    Ok(select_all(subscribers))
}

/// A message on its way: it has no place in the stream yet.
fn passing(message: Message) -> StoredMessage {
    let (headers, subject) = (received(message.headers.as_ref()), message.subject.to_string());
    StoredMessage { sequence: 0, time: 0, subject, headers, payload: message.payload, flaw: None }
}

/// Where the newest `count` messages that the service would be given begin.
async fn newest(reader: &StreamReader, info: &StreamInfo, filters: &[String], count: u64) -> Result<u64, CommandError> {
    let dense = info.messages == (info.last_sequence + 1).saturating_sub(info.first_sequence);
    let all = info.subjects.iter().all(|subject| filters.iter().any(|filter| filter == subject || filter == ">"));
    let first = info.first_sequence.max(1);
    if dense && all {
        return Ok((info.last_sequence + 1).saturating_sub(count).max(first));
    }
    let (mut missing, mut end, mut step) = (count, info.last_sequence, count.max(1));
    while end >= first {
        let start = end.saturating_sub(step - 1).max(first);
        let sequences = wanted_between(reader, filters, start, end).await?;
        let older = u64::try_from(sequences.len()).unwrap_or(u64::MAX);
        if let Some(surplus) = older.checked_sub(missing) {
            let place = usize::try_from(surplus).unwrap_or(usize::MAX);
            return Ok(sequences.get(place).copied().unwrap_or(start));
        }
        missing -= older;
        // Where little was found, a gap may be long.
        (end, step) = (start - 1, step.saturating_mul(2));
    }
    Ok(first)
}

/// Sequences of the messages in a part of the stream that the service would be given.
async fn wanted_between(
    reader: &StreamReader,
    filters: &[String],
    start: u64,
    end: u64,
) -> Result<Vec<u64>, CommandError> {
    let (mut found, mut next) = (Vec::new(), Some(start));
    while let Some(from) = next {
        let chunk = reader.chunk(from, end).await?;
        let wanted = chunk.messages.iter().filter(|message| gives(filters, &message.subject));
        found.extend(wanted.map(|message| message.sequence));
        next = chunk.next;
    }
    Ok(found)
}
