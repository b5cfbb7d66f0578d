//! One message for the source, and what must become of it.

use bytes::Bytes;
use serde::Deserialize;

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

/// A message as Sequin sends it.
pub(crate) struct Envelope<'a> {
    pub record: &'a str,
    pub changes: Option<&'a str>,
    pub action: &'a str,
    pub database: &'a str,
    pub schema: &'a str,
    pub table: &'a str,
    pub committed: jiff::Timestamp,
    pub lsn: u64,
    pub idx: u64,
    /// Sequin's own identity of the change.
    pub idempotency_key: &'a str,
}

impl Envelope<'_> {
    /// Its body, record and changes byte for byte.
    pub fn body(&self) -> String {
        let Self { record, action, database, schema, table, committed, lsn, idx, idempotency_key, .. } = self;
        let changes = self.changes.unwrap_or("null");
        format!(
            r#"{{"record":{record},"changes":{changes},"action":"{action}","metadata":{{"table_schema":"{schema}","table_name":"{table}","commit_timestamp":"{committed:.6}","commit_lsn":{lsn},"commit_idx":{idx},"database_name":"{database}","idempotency_key":"{idempotency_key}","transaction_annotations":null,"consumer":{{"id":"c","name":"sink","annotations":{{}}}}}}}}"#
        )
    }
}

/// What a message tells of its change beside the row.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub table_schema: String,
    pub table_name: String,
    pub commit_lsn: u64,
    pub commit_idx: u64,
}
