//! One message for the source, and what must become of it.

use bytes::Bytes;

/// Which change of which row it is; what the target holds is known by it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Schema, table and key of the row.
    pub row: String,
    /// Log sequence number of the transaction.
    pub lsn: u64,
    /// Place in the transaction.
    pub idx: u64,
}

/// What must become of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Once in the target, under this subject.
    Target(String),
    /// In the dead letters, for this reason.
    DeadLetter(&'static str),
    /// Acknowledged, and nowhere.
    Skip,
    /// Nothing more: it is a change that was sent before.
    Repeated,
}

/// One message for the source.
#[derive(Debug, Clone)]
pub struct Change {
    /// Rises by one with every change, from 1.
    pub number: u64,
    /// The subject that it is sent under.
    pub subject: String,
    /// Its `Nats-Msg-Id`.
    pub id: String,
    /// Its body.
    pub payload: Bytes,
    /// What must become of it.
    pub expect: Expect,
    /// Which change it is.
    pub identity: Identity,
    /// The row in its body, byte for byte.
    pub record: Bytes,
    /// The old values in its body, byte for byte.
    pub changes: Option<Bytes>,
}
