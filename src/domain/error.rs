//! Why an event can never be published.

use std::borrow::Cow;
use std::fmt;

use cdc_actors::message::Reason;

use super::json::Shown;
use super::path::{FieldPath, Origin};
use super::scan::{Malformed, offset};

/// A place in an event, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The envelope `{record, changes, action, metadata}`.
    Envelope,
    /// The row.
    Record,
    /// Old values of an update.
    Changes,
    /// What Sequin tells about the change.
    Metadata,
    /// The database within the metadata.
    Database,
}

impl Part {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envelope => "the payload",
            Self::Record => "record",
            Self::Changes => "changes",
            Self::Metadata => "metadata",
            Self::Database => "metadata.database",
        }
    }
}

/// What a value that is not there should be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Around {
    /// Something that might hold it.
    Any,
    /// Something that holds no values: this.
    No(&'static str),
}

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("empty, null or absent"),
            Self::No(found) => write!(f, "sought within {found}, which is neither an object nor an array"),
        }
    }
}

/// An event that can never succeed. Its text tells operators what to do and never holds a value of the row.
#[derive(Debug, thiserror::Error)]
pub enum Poison {
    /// The payload is not text.
    #[error("the payload is not UTF-8: {0}")]
    NotUtf8(#[source] std::str::Utf8Error),
    /// The payload is not JSON.
    #[error("the payload is not JSON: expected {expected} at line {line}, column {column}")]
    NotJson {
        /// What should be there.
        expected: &'static str,
        /// The line, from 1.
        line: usize,
        /// The column, in bytes from 1.
        column: usize,
    },
    /// JSON, but no object where one is needed.
    #[error("{} is not a JSON object", part.name())]
    NotObject {
        /// Where.
        part: Part,
    },
    /// A field that must not be absent or null.
    #[error("{}: field {field} is absent or null", part.name())]
    Absent {
        /// Where.
        part: Part,
        /// The field.
        field: Cow<'static, str>,
    },
    /// One name twice in an object: which value counts would be a guess.
    #[error("{}: field {field} appears twice", part.name())]
    Twice {
        /// Where.
        part: Part,
        /// The field.
        field: FieldPath,
    },
    /// A field that is not declared and is called as a column of another name goes out.
    #[error(
        "{}: field {field} is not declared, and a column goes out under its name: rename the column to something else, or let \
         unhandled_fields be drop",
        part.name()
    )]
    NameTaken {
        /// Where.
        part: Part,
        /// The field.
        field: FieldPath,
    },
    /// A value of the wrong type.
    #[error("{}: {field} should be {expected}, found {found}", part.name())]
    WrongType {
        /// Where.
        part: Part,
        /// The field or column, or a place within it.
        field: FieldPath,
        /// The type that belongs there.
        expected: &'static str,
        /// The type that was found.
        found: &'static str,
    },
    /// A string whose escapes make no Unicode text.
    #[error("{}: {field} is a string with an escape that is no Unicode character", part.name())]
    Undecodable {
        /// Where.
        part: Part,
        /// The field or column, or a place within it.
        field: FieldPath,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// An action that Sequin does not send.
    #[error("action is none of insert, update, delete, read")]
    UnknownAction,
    /// A commit time that cannot be read.
    #[error("metadata: commit_timestamp is neither an ISO 8601 time with a zone nor microseconds since 1970 in range")]
    CommitTime {
        /// What the parser said; it quotes the input, so it is not part of the text.
        source: jiff::Error,
    },
    /// The key column holds nothing.
    #[error("key column {column} of table {table} is empty, null or absent")]
    MissingKey {
        /// The table.
        table: &'static str,
        /// Its key column.
        column: FieldPath,
    },
    /// A routing column holds nothing.
    #[error("routing column {value} of table {table} is {around}, so the event has no subject")]
    MissingRouting {
        /// The table.
        table: &'static str,
        /// The routing value.
        value: Origin,
        /// What it should be in.
        around: Around,
    },
    /// A schema that a routing value cannot be taken from.
    #[error("{value} of table {table} is taken from the schema's name, which does not fit its pattern")]
    NotInSchema {
        /// The table.
        table: &'static str,
        /// The routing value.
        value: String,
    },
    /// A row whose tenant is another than its schema's.
    #[error(
        "{value} of a row of table {table} is another than its schema's, and tables.{table}.tenant_guard ties them together: \
         the row may be another tenant's"
    )]
    TenantMismatch {
        /// The table.
        table: &'static str,
        /// The routing value.
        value: String,
    },
    /// A delete that carries key columns alone, where that is not enough.
    #[error(
        "a delete from table {table} carries its key columns alone, {so}: \
         run ALTER TABLE … REPLICA IDENTITY FULL on the table in PostgreSQL"
    )]
    ReplicaIdentity {
        /// The table.
        table: &'static str,
        /// What follows from it.
        so: &'static str,
    },
    /// A column that identifies, routes or decides, and arrived without its value.
    #[error(
        "column {column} of table {table} arrived as unchanged_toast, {so}: \
         run ALTER TABLE … REPLICA IDENTITY FULL on the table in PostgreSQL"
    )]
    UnchangedToast {
        /// The table.
        table: &'static str,
        /// The column, or the place within it.
        column: FieldPath,
        /// What follows from it.
        so: &'static str,
    },
    /// A field that is not known, where such are rejected.
    #[error(
        "table {table} has a field {} that is not known, and tables.{table}.unhandled_fields is reject",
        Shown(field)
    )]
    RejectedField {
        /// The table.
        table: &'static str,
        /// The first such field.
        field: String,
    },
    /// A routing value that is no subject token, where such are rejected.
    #[error(
        "routing column {value} of table {table} is no legal subject token (it holds a dot, a wildcard, white space or a \
         control character), and target.unsafe_tokens is reject"
    )]
    IllegalToken {
        /// The table.
        table: &'static str,
        /// The routing value.
        value: Origin,
    },
    /// The target subject is too long.
    #[error(
        "the target subject would have {length} bytes, more than the {limit} allowed: its routing values are too long"
    )]
    SubjectTooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest allowed, in bytes.
        limit: usize,
        /// The longest of its routing values.
        longest: Option<Origin>,
    },
}

impl Poison {
    /// Tells where `payload` stops being JSON.
    pub(crate) fn not_json(payload: &str, malformed: Malformed) -> Self {
        let (line, column) = malformed.place(payload);
        Self::NotJson { expected: malformed.expected, line, column }
    }

    /// Tells where `part`, which was cut from `payload` and read by itself, stops being JSON.
    pub(crate) fn not_json_within(payload: &str, part: &str, malformed: Malformed) -> Self {
        Self::not_json(payload, Malformed { at: offset(payload, part) + malformed.at, ..malformed })
    }

    /// The dead-letter reason.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotUtf8(_) | Self::NotJson { .. } => Reason::NotJson,
            Self::NotObject { .. }
            | Self::Absent { .. }
            | Self::Twice { .. }
            | Self::NameTaken { .. }
            | Self::WrongType { .. }
            | Self::Undecodable { .. }
            | Self::UnknownAction
            | Self::CommitTime { .. } => Reason::WrongShape,
            Self::MissingKey { .. } => Reason::MissingKey,
            Self::MissingRouting { .. } | Self::NotInSchema { .. } => Reason::MissingRouting,
            Self::TenantMismatch { .. } => Reason::TenantMismatch,
            Self::ReplicaIdentity { .. } => Reason::ReplicaIdentity,
            Self::UnchangedToast { .. } => Reason::UnchangedToast,
            Self::RejectedField { .. } => Reason::RejectedField,
            Self::IllegalToken { .. } => Reason::IllegalToken,
            Self::SubjectTooLong { .. } => Reason::SubjectTooLong,
        }
    }
}
