//! Messages that a stream keeps and the client cannot read.
//!
//! Over a header block that is not as it should be the client closes its connection (async-nats 0.51, `connection.rs`), and whatever
//! came behind that message in the same read is lost with it. After `ack_wait` all of it is delivered again, the one in front. So
//! when connections end again and again while something is asked for, the first messages that wait for their
//! acknowledgement are read by the API, which answers in JSON, and those that the client would not have read are delivered from there.

use std::time::{Duration, Instant};

use async_nats::{HeaderName, StatusCode};
use bytestring::ByteString;
use cdc_actors::message::{Delivery, DeliveryId, Receipt};
use cdc_actors::ports::Failure;

use super::connection::Connection;
use super::consumers::{ConsumerInfo, ConsumerSettings, gives};
use super::reader::{StoredMessage, StreamReader};

/// Sequences that are looked through. One that cannot be read is never acknowledged, so in the end it is the first that is not.
const LOOKED_THROUGH: u64 = 1024;
/// What such a message counts as: it has been sent before.
const DELIVERIES: u64 = 2;

/// Why the client cannot read a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its subject is not UTF-8.
    #[error("its subject is not UTF-8")]
    Subject,
    /// Its header block is not UTF-8.
    #[error("its headers are not UTF-8")]
    Encoding,
    /// Its header block does not begin with `NATS/1.0`.
    #[error("its headers do not begin with NATS/1.0")]
    Version,
    /// The version is followed by something that is no status.
    #[error("its headers begin with a status that is none")]
    Status,
    /// A header line is no `name: value`.
    #[error("a line of its headers has no colon")]
    Line,
    /// A header's name has whitespace in it, or a character that is not ASCII.
    #[error("one of its headers has a name that no header may have")]
    Name,
}

impl Flaw {
    /// What the client would find in a message. `subject` is as the API gives it, with U+FFFD in place of what is not UTF-8.
    pub(super) fn of(subject: &str, block: &[u8]) -> Option<Self> {
        if subject.contains(char::REPLACEMENT_CHARACTER) {
            return Some(Self::Subject);
        }
        if block.is_empty() {
            return None;
        }
        let Ok(text) = str::from_utf8(block) else { return Some(Self::Encoding) };
        let mut lines = text.lines().peekable();
        let Some(version) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
            return Some(Self::Version);
        };
        let status = version.trim().split(' ').next().unwrap_or_default();
        if !status.is_empty() && status.parse::<StatusCode>().is_err() {
            return Some(Self::Status);
        }
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            let Some((name, _)) = line.split_once(':') else { return Some(Self::Line) };
            if name.parse::<HeaderName>().is_err() {
                return Some(Self::Name);
            }
            // A line that begins with whitespace goes on with the one before.
            while lines.next_if(|line| line.starts_with(char::is_whitespace)).is_some() {}
        }
        None
    }
}

/// Connections that ended while something was asked for.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// The connection that ended last so, and when.
    last: Option<(u64, Instant)>,
    suspicious: bool,
}

impl Cuts {
    /// The connection `epoch` has ended so. The next one within `patience` makes it suspicious.
    pub(super) fn happened(&mut self, epoch: u64, now: Instant, patience: Duration) {
        let Some((before, at)) = self.last.replace((epoch, now)) else { return };
        self.suspicious |= before != epoch && now.saturating_duration_since(at) < patience;
    }

    /// Whether something that was sent may have ended them.
    pub(super) fn are_suspicious(&self) -> bool {
        self.suspicious
    }

    /// It has been looked for.
    pub(super) fn looked(&mut self) {
        self.suspicious = false;
    }
}

/// Deliveries of what the client cannot read, among the first messages that wait for their acknowledgement, and why it cannot.
///
/// # Errors
/// A [`Failure`] if the stream could not be read.
pub(super) async fn unreadable(
    connection: &Connection,
    stream: &str,
    stream_created: i64,
    consumer: (&ConsumerSettings, &ConsumerInfo, u64),
) -> Result<Vec<(Delivery, Flaw)>, Failure> {
    let (settings, info, life) = consumer;
    let reader = StreamReader::new(connection.clone(), stream);
    let first = info.ack_floor.stream_seq + 1;
    // What was not given yet cannot have ended a connection, and must not be acknowledged.
    let last = info.delivered.stream_seq.min(first.saturating_add(LOOKED_THROUGH - 1));
    let (mut found, mut next) = (Vec::new(), Some(first));
    while let Some(from) = next {
        let chunk = reader.chunk(from, last).await?;
        next = chunk.next;
        for message in chunk.messages {
            let Some(flaw) = message.flaw.filter(|_| gives(&settings.filters, &message.subject)) else { continue };
            let id = DeliveryId { stream_created, sequence: message.sequence, timestamp: message.time };
            let reply = reply(stream, &settings.name, &message);
            found.push((delivery(message, Receipt { id, consumer: life, reply }), flaw));
        }
    }
    Ok(found)
}

/// What the message is acknowledged by: servers go by the sequence in the stream. The place among the consumer's deliveries is not
/// known, and 0 is none.
fn reply(stream: &str, consumer: &str, message: &StoredMessage) -> ByteString {
    format!("$JS.ACK.{stream}.{consumer}.{DELIVERIES}.{}.0.{}.0", message.sequence, message.time).into()
}

fn delivery(message: StoredMessage, receipt: Receipt) -> Delivery {
    Delivery {
        receipt,
        subject: message.subject.into(),
        headers: message.headers,
        payload: message.payload,
        deliveries: DELIVERIES,
        received: Instant::now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_cannot_read_is_told() {
        for (block, flaw) in [
            (&b""[..], None),
            (b"NATS/1.0\r\n\r\n", None),
            (b"NATS/1.0\r\na: b\r\nc:d\r\n e\r\n\r\n", None),
            (b"NATS/1.0 404 No Messages\r\na: b\r\n\r\n", None),
            (b"NATS/1.0\r\nFoo : bar\r\n\r\n", Some(Flaw::Name)),
            (b"NATS/1.0\r\na: b\r\nno colon\r\n\r\n", Some(Flaw::Line)),
            (b"NATS/1.0\r\na: \xe9\r\n\r\n", Some(Flaw::Encoding)),
            (b"NATS/1.0 what\r\n\r\n", Some(Flaw::Status)),
            (b"NATS/2.0\r\n\r\n", Some(Flaw::Version)),
            (b"\r\n", Some(Flaw::Version)),
        ] {
            assert_eq!(Flaw::of("a.b", block), flaw, "{:?}", String::from_utf8_lossy(block));
        }
        assert_eq!(Flaw::of("a.\u{fffd}", b""), Some(Flaw::Subject));
    }

    #[test]
    fn two_connections_that_end_within_the_time_are_suspicious() {
        let (start, patience) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut cuts = Cuts::default();
        let mut said = Vec::new();
        // Told of twice; long after; soon after that.
        for (epoch, seconds) in [(1, 0), (1, 1), (2, 100), (3, 130)] {
            cuts.happened(epoch, at(seconds), patience);
            said.push(cuts.are_suspicious());
        }
        assert_eq!(said, [false, false, false, true]);
        cuts.looked();
        assert!(!cuts.are_suspicious());
        cuts.happened(4, at(150), patience);
        assert!(cuts.are_suspicious());
    }
}
