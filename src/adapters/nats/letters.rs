//! Dead letters as the stream holds them, put together again: the other way round of what `dead_letters.rs` does.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use cdc_actors::message::Headers;
use cdc_actors::ports::Failure;
use flate2::read::GzDecoder;
use serde::Deserialize;

use super::reader::{StoredMessage, StreamReader};

/// What a compressed letter may grow to, in bytes: more than any server accepts as one message.
const LARGEST: u64 = 256 << 20;
/// What the headers of the original start with.
const SOURCE: &str = "Cdc-Source-";

/// The message that became a dead letter, as the source had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its subject.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

impl Original {
    /// The first header of this name, compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Why the original cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Some of its parts are not in the stream.
    #[error("only {found} of its {of} parts are there")]
    Parts {
        /// Parts found.
        found: usize,
        /// Parts there should be.
        of: usize,
    },
    /// The message has none of the headers of a dead letter.
    #[error("it is no dead letter: it has no Cdc-Reason")]
    Foreign,
    /// Its encoding is none that this version knows, or does not hold what it says.
    #[error("it cannot be decoded: {0}")]
    Encoding(String),
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where it is in the stream, ascending: one sequence, or one for each part. The first one names it.
    pub sequences: Vec<u64>,
    /// When it was stored, nanoseconds since the Unix epoch.
    pub stored: i64,
    /// The subject it was stored under.
    pub subject: String,
    /// Names the delivery and the reason it was put aside for.
    pub identity: String,
    /// Why it was put aside; empty if the message says nothing of it.
    pub reason: String,
    /// Why, for people.
    pub detail: String,
    /// The stream it came from.
    pub stream: String,
    /// Its sequence there.
    pub source_sequence: Option<u64>,
    /// How often it had been delivered.
    pub deliveries: Option<u64>,
    /// When it was put aside, RFC 3339; when it was stored if it does not say.
    pub time: String,
    /// What was put aside.
    pub original: Result<Original, Damage>,
}

impl Letter {
    /// The sequence that names it.
    pub fn sequence(&self) -> u64 {
        self.sequences.first().copied().unwrap_or_default()
    }

    /// The table in its subject, `unknown` if the service could not tell.
    pub fn table(&self, subject_prefix: &str) -> &str {
        let rest = self.subject.strip_prefix(subject_prefix).and_then(|rest| rest.strip_prefix('.'));
        let table = rest.and_then(|rest| rest.rsplit_once('.')).map(|(table, _)| table);
        table.unwrap_or("unknown")
    }

    fn read(parts: &[&StoredMessage], sequences: Vec<u64>, damage: Option<Damage>) -> Option<Self> {
        let first = *parts.first()?;
        let header = |name: &str| first.header(name).unwrap_or_default().to_owned();
        let (detail, envelope) = match (damage, first.header("Cdc-Reason")) {
            (_, None) => (header("Cdc-Detail"), Err(Damage::Foreign)),
            (Some(damage), _) => (header("Cdc-Detail"), Err(damage)),
            (None, Some(_)) => match original(parts) {
                Ok((original, detail)) => (detail.unwrap_or_else(|| header("Cdc-Detail")), Ok(original)),
                Err(damage) => (header("Cdc-Detail"), Err(damage)),
            },
        };
        Some(Self {
            sequences,
            stored: first.time,
            subject: first.subject.clone(),
            identity: identity(first),
            reason: header("Cdc-Reason"),
            detail,
            stream: header("Cdc-Stream"),
            source_sequence: header("Cdc-Sequence").parse().ok(),
            deliveries: header("Cdc-Deliveries").parse().ok(),
            time: first.header("Cdc-Time").map_or_else(|| written_time(first.time), str::to_owned),
            original: envelope,
        })
    }
}

/// One letter to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Its sequences, and those of its copies.
    pub sequences: Vec<u64>,
    /// Its identity, see [`Letter::identity`].
    pub identity: String,
    /// Its reason.
    pub reason: String,
    /// The subject it came under; `None` if the original cannot be had.
    pub subject: Option<String>,
    /// Its sequence in the source.
    pub source_sequence: Option<u64>,
}

impl Pick {
    /// The letter alone.
    pub fn of(letter: &Letter) -> Self {
        Self {
            sequences: letter.sequences.clone(),
            identity: letter.identity.clone(),
            reason: letter.reason.clone(),
            subject: letter.original.as_ref().ok().map(|original| original.subject.clone()),
            source_sequence: letter.source_sequence,
        }
    }

    /// The sequence that names it.
    pub fn sequence(&self) -> u64 {
        self.sequences.first().copied().unwrap_or_default()
    }

    /// The id it is replayed under: that of its delivery, so that copies of a letter share it.
    pub(super) fn replay_id(&self, letters_created: i64) -> String {
        let delivery = self.identity.strip_suffix(&format!("-{}", self.reason)).unwrap_or(&self.identity);
        // What was not made by the service may be called anything.
        if delivery.is_empty() || !delivery.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return format!("replay-{letters_created}-{}", self.sequence());
        }
        format!("replay-{delivery}")
    }
}

/// The letter with these sequences as the stream holds it now; `None` if it is gone.
///
/// # Errors
/// A [`Failure`] if the server cannot be asked.
pub async fn read_letter(stream: &StreamReader, sequences: &[u64]) -> Result<Option<Letter>, Failure> {
    let mut assembler = Assembler::default();
    let mut found = None;
    for sequence in sequences {
        if let Some(message) = stream.get(*sequence).await? {
            found = found.or(assembler.add(message));
        }
    }
    Ok(found.or_else(|| assembler.rest().into_iter().next()))
}

/// A time as the headers write it.
fn written_time(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanos.into()).map(|time| format!("{time:.6}")).unwrap_or_default()
}

/// `i/n` of a part; `None` for a letter in one piece.
fn part(message: &StoredMessage) -> Option<(usize, usize)> {
    let (index, of) = message.header("Cdc-Part")?.split_once('/')?;
    let (index, of) = (index.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&index).then_some((index, of))
}

/// What all parts of a letter, and all copies of it, share.
fn identity(message: &StoredMessage) -> String {
    let id = message.header("Nats-Msg-Id").unwrap_or_default();
    let id = match part(message) {
        Some((index, of)) => id.strip_suffix(&format!("-{index}-{of}")).unwrap_or(id),
        None => id,
    };
    id.to_owned()
}

/// The original of a letter whose parts are all there, in order, and the whole detail if it had moved into the body.
fn original(parts: &[&StoredMessage]) -> Result<(Original, Option<String>), Damage> {
    let Some(first) = parts.first() else { return Err(Damage::Foreign) };
    let mut body = match parts {
        [one] => one.payload.clone(),
        several => several.iter().flat_map(|part| part.payload.iter().copied()).collect(),
    };
    match first.header("Cdc-Encoding") {
        None => {}
        Some("gzip") => body = unpacked(&body)?,
        Some(other) => return Err(Damage::Encoding(format!("Cdc-Encoding {other:?} is not known"))),
    }
    match first.header("Cdc-Envelope") {
        None => {
            let own = first.headers.iter();
            let headers = own.filter_map(|(name, value)| Some((name.strip_prefix(SOURCE)?.to_owned(), value.clone())));
            let subject = first.header("Cdc-Subject").unwrap_or_default().to_owned();
            Ok((Original { subject, headers: headers.collect(), payload: body }, None))
        }
        Some("1") => opened(&body),
        Some(other) => Err(Damage::Encoding(format!("Cdc-Envelope {other:?} is not known"))),
    }
}

fn unpacked(body: &[u8]) -> Result<Bytes, Damage> {
    let mut whole = Vec::new();
    let read = GzDecoder::new(body).take(LARGEST).read_to_end(&mut whole);
    read.map_err(|cause| Damage::Encoding(format!("its gzip is broken: {cause}")))?;
    Ok(whole.into())
}

/// The line of JSON that a body starts with, and the payload after it.
fn opened(body: &Bytes) -> Result<(Original, Option<String>), Damage> {
    #[derive(Deserialize)]
    struct Envelope {
        subject: String,
        detail: String,
        headers: Headers,
    }
    let no_line = || Damage::Encoding("the line of its Cdc-Envelope is missing".to_owned());
    let end = body.iter().position(|byte| *byte == b'\n').ok_or_else(no_line)?;
    let Envelope { subject, detail, headers } = serde_json::from_slice(&body[..end])
        .map_err(|cause| Damage::Encoding(format!("the line of its Cdc-Envelope cannot be read: {cause}")))?;
    Ok((Original { subject, headers, payload: body.slice(end + 1..) }, Some(detail)))
}

/// Puts letters together from the messages of a dead-letter stream, given in order.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Parts of letters that are not whole yet, by identity and number of parts.
    waiting: BTreeMap<(String, usize), Vec<StoredMessage>>,
}

impl Assembler {
    /// Takes the next message; returns the letter that is whole with it.
    pub fn add(&mut self, message: StoredMessage) -> Option<Letter> {
        let Some((_, of)) = part(&message) else {
            return Letter::read(&[&message], vec![message.sequence], None);
        };
        let key = (identity(&message), of);
        let parts = self.waiting.entry(key.clone()).or_default();
        parts.push(message);
        let letter = put_together(parts, of)?;
        self.waiting.remove(&key);
        Some(letter)
    }

    /// What is left: letters that lack parts.
    pub fn rest(self) -> Vec<Letter> {
        let lacking = self.waiting.into_iter().filter_map(|((_, of), parts)| {
            let parts: Vec<&StoredMessage> = parts.iter().collect();
            let sequences = parts.iter().map(|part| part.sequence).collect();
            let mut indexes: Vec<_> = parts.iter().filter_map(|message| part(message)).collect();
            indexes.sort_unstable();
            indexes.dedup();
            Letter::read(&parts, sequences, Some(Damage::Parts { found: indexes.len(), of }))
        });
        lacking.collect()
    }
}

/// The letter, if every part is there; a part that was stored twice counts once, and goes with the letter.
fn put_together(parts: &[StoredMessage], of: usize) -> Option<Letter> {
    let by_index: BTreeMap<usize, &StoredMessage> =
        parts.iter().rev().filter_map(|message| Some((part(message)?.0, message))).collect();
    if by_index.len() < of {
        return None;
    }
    let ordered: Vec<&StoredMessage> = by_index.into_values().collect();
    let mut sequences: Vec<u64> = parts.iter().map(|part| part.sequence).collect();
    sequences.sort_unstable();
    Letter::read(&ordered, sequences, None)
}
