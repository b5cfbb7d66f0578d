//! Reads a stream message by message, without a consumer: nothing is acknowledged, counted or changed, whatever the
//! stream's retention.

use std::str;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cdc_actors::message::Headers;
use cdc_actors::ports::{Failure, FailureClass};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::ApiError;
use super::connection::Connection;
use super::streams::{SetupError, StreamInfo, find_stream, parse_time};
use super::unreadable::Flaw;

/// Sequences asked for in one chunk.
const CHUNK: u64 = 128;
/// Of them at once.
const AT_ONCE: usize = 32;
/// Every subject.
const ALL: &str = ">";

/// A message as a stream holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored, nanoseconds since the Unix epoch.
    pub time: i64,
    /// Its subject.
    pub subject: String,
    /// Its headers, in the order they came.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// Why the client could not have read it, if it could not.
    pub flaw: Option<Flaw>,
}

impl StoredMessage {
    /// The first header of this name, compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What a message or its encoding is not.
#[derive(Debug, Clone, thiserror::Error)]
enum Unreadable {
    #[error("the message is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("its time is none: {0}")]
    Time(#[from] jiff::Error),
}

#[derive(Deserialize)]
struct Answer {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    subject: String,
    seq: u64,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
    time: String,
}

impl Raw {
    fn read(self) -> Result<StoredMessage, Unreadable> {
        let block = STANDARD.decode(self.hdrs)?;
        Ok(StoredMessage {
            sequence: self.seq,
            time: parse_time(&self.time)?,
            flaw: Flaw::of(&self.subject, &block),
            subject: self.subject,
            headers: headers(&block),
            payload: STANDARD.decode(self.data)?.into(),
        })
    }
}

/// Reads a header block as it is stored: the version line, then `name: value` lines.
fn headers(block: &[u8]) -> Headers {
    let text = String::from_utf8_lossy(block);
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// A part of a stream.
#[derive(Debug)]
pub struct Chunk {
    /// Its messages, in order.
    pub messages: Vec<StoredMessage>,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// Reads one stream.
#[derive(Debug, Clone)]
pub struct StreamReader {
    connection: Connection,
    stream: String,
}

impl StreamReader {
    /// A reader of `stream`.
    pub fn new(connection: Connection, stream: impl Into<String>) -> Self {
        Self { connection, stream: stream.into() }
    }

    /// The stream's name.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// The stream as it is now.
    ///
    /// # Errors
    /// [`SetupError::MissingStream`], or a failure to ask.
    pub async fn info(&self) -> Result<StreamInfo, SetupError> {
        let found = find_stream(&self.connection, &self.stream).await?;
        found.ok_or_else(|| SetupError::NoStream(self.stream.clone()))
    }

    /// The message with this sequence; `None` if it is gone.
    ///
    /// # Errors
    /// A [`Failure`] if the server cannot be asked.
    pub async fn get(&self, sequence: u64) -> Result<Option<StoredMessage>, Failure> {
        self.ask(&json!({ "seq": sequence })).await
    }

    /// The first message at or after `from` whose subject `filter` covers; `None` if there is none yet.
    ///
    /// # Errors
    /// A [`Failure`] if the server cannot be asked.
    pub async fn next(&self, from: u64, filter: &str) -> Result<Option<StoredMessage>, Failure> {
        self.ask(&json!({ "seq": from.max(1), "next_by_subj": filter })).await
    }

    async fn ask(&self, request: &Value) -> Result<Option<StoredMessage>, Failure> {
        let action = format!("read stream {}", self.stream);
        match self.connection.api::<Answer>(&action, &format!("STREAM.MSG.GET.{}", self.stream), request).await? {
            Ok(answer) => {
                let read = answer.message.read();
                read.map(Some).map_err(|cause| Failure::new(action, FailureClass::Protocol, cause))
            }
            Err(error) if error.err_code == ApiError::NO_MESSAGE => Ok(None),
            Err(error) => Err(error.into_failure(&action)),
        }
    }

    /// Messages from `from` on, up to and with `last`: some of them, and where to go on.
    ///
    /// # Errors
    /// A [`Failure`] if the server cannot be asked.
    pub async fn chunk(&self, from: u64, last: u64) -> Result<Chunk, Failure> {
        let from = from.max(1);
        if from > last {
            return Ok(Chunk { messages: Vec::new(), next: None });
        }
        let end = last.min(from.saturating_add(CHUNK - 1));
        let mut asked = futures::stream::iter(from..=end).map(|sequence| self.get(sequence)).buffered(AT_ONCE);
        let mut messages = Vec::new();
        while let Some(message) = asked.next().await {
            messages.extend(message?);
        }
        let next = (end < last).then_some(end + 1);
        match next {
            // A gap may be a long one: ask for its end.
            Some(next) if messages.is_empty() => {
                let after = self.next(next, ALL).await?.map(|message| message.sequence);
                Ok(Chunk { messages, next: after.filter(|after| *after <= last) })
            }
            next => Ok(Chunk { messages, next }),
        }
    }

    /// Deletes a message, overwriting it; `false` if it was gone already.
    ///
    /// # Errors
    /// A [`Failure`] if the server cannot be asked or does not allow it.
    pub async fn delete(&self, sequence: u64) -> Result<bool, Failure> {
        let action = format!("delete from stream {}", self.stream);
        let operation = format!("STREAM.MSG.DELETE.{}", self.stream);
        match self.connection.api::<Value>(&action, &operation, &json!({ "seq": sequence })).await? {
            Ok(_) => Ok(true),
            // Servers name a missing message in several ways; whether it is gone is the question.
            Err(error) => match self.get(sequence).await? {
                None => Ok(false),
                Some(_) => Err(error.into_failure(&action)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_block_is_read_in_order_with_repeats() {
        let block = b"NATS/1.0\r\nb: 1\r\na:2\r\nb: x: y \r\n\r\n";
        let expected = [("b", "1"), ("a", "2"), ("b", "x: y")];
        let expected: Headers = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(headers(block), expected);
        assert_eq!(headers(b""), Headers::new());
    }
}
