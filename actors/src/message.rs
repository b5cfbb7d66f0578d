//! What travels between actors and through the ports.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;

use crate::ports::{Failure, PublishError};

/// Which delivery of which life of the source stream: a stream deleted and created again starts its sequences over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// When the stream was created, nanoseconds since the Unix epoch.
    pub stream_created: i64,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// When the message was stored, nanoseconds since the Unix epoch.
    pub timestamp: i64,
}

/// Headers by name, in the order they came.
pub type Headers = Vec<(String, String)>;

/// What is needed to settle a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The delivery.
    pub id: DeliveryId,
    /// Which life of the consumer gave it, counted by the source: no other takes its settlement.
    pub consumer: u64,
    /// Where the source wants the settlement sent.
    pub reply: ByteString,
}

/// One message from the source.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// How to settle it.
    pub receipt: Receipt,
    /// The subject it was stored under.
    pub subject: ByteString,
    /// Its headers.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
    /// How often it has been delivered, this time included; a hint, never proof.
    pub deliveries: u64,
    /// When it was received here.
    pub received: Instant,
}

impl Delivery {
    /// Bytes it occupies: payload, subject and headers.
    pub fn size(&self) -> usize {
        self.payload.len() + self.subject.len() + self.headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>()
    }

    /// The first header of this name, compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// What becomes of a delivery at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    /// Done: never deliver it again.
    Ack,
    /// Deliver it again, after this long.
    Nak(Duration),
    /// Still at work: start ack_wait anew.
    InProgress,
}

/// A receipt and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The delivery.
    pub receipt: Receipt,
    /// Its fate.
    pub settle: Settle,
}

/// The row (database, schema, table, key) as a 128-bit hash: events with one order key stay in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderKey(pub u128);

/// The identity of an event for dedup and `Nats-Msg-Id`: printable ASCII, at most 200 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(ByteString);

impl EventKey {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 200;

    /// Takes a text that is already fit for a header and a Redis key.
    ///
    /// # Errors
    /// Gives the text back if it is empty, longer than [`Self::MAX_LEN`] or holds anything but visible ASCII.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, ByteString> {
        let text = text.into();
        // All bytes are looked at, many at once, since nearly every key is fit.
        let is_visible = text.bytes().fold(true, |all, byte| all & byte.is_ascii_graphic());
        if text.is_empty() || text.len() > Self::MAX_LEN || !is_visible {
            return Err(text);
        }
        Ok(Self(text))
    }

    /// The same key in memory of its own: what is kept for long must not keep the memory of a whole event, which a key shares.
    pub fn detached(&self) -> Self {
        Self(ByteString::from(self.as_str()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Place of a change in the database's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitPosition {
    /// Log sequence number of the commit.
    pub lsn: u64,
    /// Place within the transaction.
    pub idx: u64,
}

/// An event ready to be published. Its texts and its payload may share one piece of memory: cloning them copies nothing.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its identity; becomes `Nats-Msg-Id`, so no path can publish without it.
    pub key: EventKey,
    /// `LSN:Table:PK`, as downstream knows it.
    pub event_id: ByteString,
    /// The configured table it belongs to.
    pub table: &'static str,
    /// Where it goes.
    pub subject: ByteString,
    /// Headers beside `Nats-Msg-Id` and `Cdc-Late`.
    pub headers: Headers,
    /// The enriched event.
    pub payload: Bytes,
    /// Its place in the database's history, if known.
    pub position: Option<CommitPosition>,
    /// When it was committed, microseconds since the Unix epoch, if known.
    pub committed: Option<i64>,
}

/// What the transform noticed beside its decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Names of fields that the typed row does not know.
    pub unhandled_fields: Vec<String>,
    /// How subject and metadata contradict each other, if they do.
    pub subject_mismatch: Option<String>,
}

/// The fate of a delivery as the transform sees it.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Publish this.
    Publish(Arc<Event>),
    /// Not for us: acknowledge and count.
    Skip {
        /// The configured table, where one was chosen: its actions, schemas or filter leave the event out.
        table: Option<&'static str>,
    },
    /// Can never succeed.
    DeadLetter {
        /// The configured table, if it is known.
        table: Option<&'static str>,
        /// Why.
        reason: Reason,
        /// Why, for people. Never contains the payload.
        detail: String,
    },
}

/// A verdict and what was noticed on the way.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// What was noticed.
    pub remarks: Remarks,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why something is a dead letter: a closed list.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }
        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The name in subjects, headers and labels.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

reasons! {
    /// Not JSON at all.
    NotJson = "not_json",
    /// JSON, but not a change event, or a column of the wrong type.
    WrongShape = "wrong_shape",
    /// The key column is empty, null or absent.
    MissingKey = "missing_key",
    /// A routing column is empty, null or absent.
    MissingRouting = "missing_routing",
    /// The row's tenant is another than its schema's, where a rule ties them together.
    TenantMismatch = "tenant_mismatch",
    /// A delete that carries its key alone: the table needs REPLICA IDENTITY FULL.
    ReplicaIdentity = "replica_identity",
    /// A routing value that is not a legal subject token, where such are rejected.
    IllegalToken = "illegal_token",
    /// The subject would be longer than 1 024 bytes.
    SubjectTooLong = "subject_too_long",
    /// The enriched event is larger than the target accepts.
    TooLarge = "too_large",
    /// A routing column arrived as `unchanged_toast`.
    UnchangedToast = "unchanged_toast",
    /// A field the typed row does not know, where such are rejected.
    RejectedField = "rejected_field",
    /// The transform panicked.
    Panic = "panic",
    /// The process died four times while this was the only message in flight.
    CrashesProcess = "crashes_process",
    /// Its subject was refused for longer than `retry.refused_for`.
    Refused = "refused",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A delivery on its way to the dead-letter stream.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The original, whole.
    pub delivery: Arc<Delivery>,
    /// The configured table, if known.
    pub table: Option<&'static str>,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub detail: String,
}

/// Whether an event comes after a newer one of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Late {
    /// A newer one was handed to the connection before.
    True,
    /// Its row is no longer remembered.
    Unknown,
}

impl Late {
    /// The value of the `Cdc-Late` header and of the label `certainty`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "true",
            Self::Unknown => "unknown",
        }
    }
}

/// One attempt at publishing an event.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Names the attempt in its answer.
    pub ticket: u64,
    /// What to publish.
    pub event: Arc<Event>,
    /// Goes into the `Cdc-Late` header.
    pub late: Option<Late>,
}

/// The target has stored an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// When the target stream was created.
    pub stream_created: i64,
    /// The event's sequence in it.
    pub sequence: u64,
    /// The target had it already within its duplicate window.
    pub duplicate: bool,
}

/// The outcome of one attempt.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The attempt's ticket.
    pub ticket: u64,
    /// What came of it.
    pub outcome: Result<Stored, PublishError>,
}

/// What the dedup store keeps of a stored event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When the target stream was created.
    pub stream_created: i64,
    /// The generation in force when it was recorded.
    pub generation: u64,
    /// The event's sequence in the target.
    pub sequence: u64,
}

impl Record {
    /// As stored: `created.generation.sequence` in decimal.
    pub fn encode(&self) -> String {
        format!("{}.{}.{}", self.stream_created, self.generation, self.sequence)
    }

    /// Reads what [`Self::encode`] wrote; anything else is no record.
    pub fn decode(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let record = Self {
            stream_created: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(record)
    }
}

/// A failure that a dependency call ended in, as it is reported to the supervisor.
pub type CallResult = Result<(), Failure>;

impl PublishError {
    /// The dependency failure behind it, if it is one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Unknown(failure) | Self::Rejected(failure) => Some(failure),
            Self::TooLarge { .. } => None,
        }
    }
}
