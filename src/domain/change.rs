//! The change event as Sequin sends it: `{record, changes, action, metadata}`.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use super::error::{Part, Poison};
use super::json::{fill, is_integer, members, text, type_of};
use super::subject::{Action, SourceSubject};

/// The envelope, borrowed from the payload; every value raw, `None` if absent.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    record: Option<&'a str>,
    changes: Option<&'a str>,
    action: Option<&'a str>,
    metadata: Metadata<'a>,
}

/// What Sequin tells about the change, as far as it matters here.
#[derive(Debug, Default)]
struct Metadata<'a> {
    table_schema: Option<&'a str>,
    table_name: Option<&'a str>,
    commit_timestamp: Option<&'a str>,
    commit_lsn: Option<&'a str>,
    commit_idx: Option<&'a str>,
    database_name: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    database_id: Option<&'a str>,
    database_title: Option<&'a str>,
}

/// A change of a row: everything but the row itself. Owns what it holds; record and changes share the payload's memory.
#[derive(Debug, Clone)]
pub struct Change {
    /// The database's id, else its name, else empty.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// What was done.
    pub action: Action,
    /// Log sequence number of the commit; backfills may have none.
    pub lsn: Option<u64>,
    /// Place within the transaction; older producers send none.
    pub idx: Option<u64>,
    /// Sequin's own identity of the event, kept only where there is no `idx`.
    pub idempotency_key: Option<String>,
    /// When it was committed.
    pub committed: Option<Timestamp>,
    /// The row, a JSON object.
    pub record: Bytes,
    /// Old values of an update, a JSON object.
    pub changes: Option<Bytes>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope; fields that are not known are passed over.
    ///
    /// # Errors
    /// Text that is not JSON, or without the object `metadata`.
    pub fn parse(payload: &'a str) -> Result<Self, Poison> {
        const PART: Part = Part::Envelope;
        let (mut envelope, mut metadata) = (Self::default(), None);
        members(PART, payload, |name, raw| match name {
            "record" => fill(&mut envelope.record, PART, "record", raw),
            "changes" => fill(&mut envelope.changes, PART, "changes", raw),
            "action" => fill(&mut envelope.action, PART, "action", raw),
            "metadata" => fill(&mut metadata, PART, "metadata", raw),
            _ => Ok(()),
        })?;
        let metadata = present(metadata).ok_or(Poison::Absent { part: PART, field: "metadata" })?;
        envelope.metadata = Metadata::parse(metadata)?;
        Ok(envelope)
    }

    /// The table's name.
    ///
    /// # Errors
    /// A name that is absent or no string.
    pub fn table(&self) -> Result<Cow<'a, str>, Poison> {
        required(Part::Metadata, "table_name", self.metadata.table_name)
    }

    /// How this event contradicts the subject it came under.
    pub fn contradiction(&self, subject: &SourceSubject<'_>) -> Option<String> {
        let name = |raw: Option<&'a str>| raw.and_then(|raw| text(raw).ok().flatten());
        let metadata = &self.metadata;
        let database = name(metadata.database_name).or_else(|| name(metadata.database_title));
        let (schema, table) = (name(metadata.table_schema), name(metadata.table_name));
        let action = name(self.action);
        subject.contradiction(database.as_deref(), schema.as_deref(), table.as_deref(), action.as_deref())
    }

    /// The record as it stands in the payload.
    ///
    /// # Errors
    /// A record that is absent or no object.
    pub fn record(&self) -> Result<&'a str, Poison> {
        let record = present(self.record).ok_or(Poison::Absent { part: Part::Envelope, field: "record" })?;
        object(Part::Record, record)
    }

    /// Takes everything but the row out of the envelope, which was read from `payload`.
    ///
    /// # Errors
    /// A field that is absent or of the wrong type.
    pub fn change(&self, payload: &Bytes) -> Result<Change, Poison> {
        let metadata = &self.metadata;
        let action = Action::parse(&required(Part::Envelope, "action", self.action)?).ok_or(Poison::UnknownAction)?;
        let changes = match present(self.changes).map(|raw| object(Part::Changes, raw)).transpose()? {
            Some(raw) if action == Action::Update => Some(payload.slice_ref(raw.as_bytes())),
            _ => None,
        };
        let idx = unsigned("commit_idx", metadata.commit_idx)?;
        let idempotency_key = string(Part::Metadata, "idempotency_key", metadata.idempotency_key)?;
        Ok(Change {
            database: metadata.database()?,
            schema: required(Part::Metadata, "table_schema", metadata.table_schema)?.into_owned(),
            action,
            lsn: unsigned("commit_lsn", metadata.commit_lsn)?,
            idx,
            idempotency_key: idempotency_key.filter(|key| idx.is_none() && !key.is_empty()).map(Cow::into_owned),
            committed: commit_time(metadata.commit_timestamp)?,
            record: payload.slice_ref(self.record()?.as_bytes()),
            changes,
        })
    }
}

impl<'a> Metadata<'a> {
    fn parse(raw: &'a str) -> Result<Self, Poison> {
        const PART: Part = Part::Metadata;
        let (mut this, mut database) = (Self::default(), None);
        members(PART, raw, |name, raw| match name {
            "table_schema" => fill(&mut this.table_schema, PART, "table_schema", raw),
            "table_name" => fill(&mut this.table_name, PART, "table_name", raw),
            "commit_timestamp" => fill(&mut this.commit_timestamp, PART, "commit_timestamp", raw),
            "commit_lsn" => fill(&mut this.commit_lsn, PART, "commit_lsn", raw),
            "commit_idx" => fill(&mut this.commit_idx, PART, "commit_idx", raw),
            "database_name" => fill(&mut this.database_name, PART, "database_name", raw),
            "idempotency_key" => fill(&mut this.idempotency_key, PART, "idempotency_key", raw),
            "database" => fill(&mut database, PART, "database", raw),
            _ => Ok(()),
        })?;
        if let Some(database) = present(database) {
            members(Part::Database, database, |name, raw| match name {
                "id" => fill(&mut this.database_id, Part::Database, "id", raw),
                "name" => fill(&mut this.database_title, Part::Database, "name", raw),
                _ => Ok(()),
            })?;
        }
        Ok(this)
    }

    /// The id, else a name, else nothing: what tells databases apart that feed one stream.
    fn database(&self) -> Result<String, Poison> {
        let id = match self.database_id {
            Some(number) if is_integer(number) => Some(Cow::Borrowed(number)),
            id => string(Part::Database, "id", id)?,
        };
        let name = string(Part::Metadata, "database_name", self.database_name)?;
        let title = string(Part::Database, "name", self.database_title)?;
        let mut given = [id, name, title].into_iter().flatten().filter(|text| !text.is_empty());
        Ok(given.next().map(Cow::into_owned).unwrap_or_default())
    }
}

/// A value that is neither absent nor null.
fn present(raw: Option<&str>) -> Option<&str> {
    raw.filter(|raw| *raw != "null")
}

fn object(part: Part, raw: &str) -> Result<&str, Poison> {
    if raw.starts_with('{') { Ok(raw) } else { Err(Poison::NotObject { part }) }
}

fn string<'a>(part: Part, field: &'static str, raw: Option<&'a str>) -> Result<Option<Cow<'a, str>>, Poison> {
    let Some(raw) = present(raw) else { return Ok(None) };
    match text(raw) {
        Ok(Some(text)) => Ok(Some(text)),
        Ok(None) => Err(Poison::WrongType { part, field, expected: "a string", found: type_of(raw) }),
        Err(source) => Err(Poison::Undecodable { part, field, source }),
    }
}

fn required<'a>(part: Part, field: &'static str, raw: Option<&'a str>) -> Result<Cow<'a, str>, Poison> {
    string(part, field, raw)?.ok_or(Poison::Absent { part, field })
}

fn unsigned(field: &'static str, raw: Option<&str>) -> Result<Option<u64>, Poison> {
    let Some(raw) = present(raw) else { return Ok(None) };
    raw.parse().map(Some).map_err(|_| Poison::WrongType {
        part: Part::Metadata,
        field,
        expected: "an integer from 0 to 2^64 - 1",
        found: if is_integer(raw) { "an integer out of that range" } else { type_of(raw) },
    })
}

/// Reads an ISO 8601 time with a zone, or microseconds since 1970.
fn commit_time(raw: Option<&str>) -> Result<Option<Timestamp>, Poison> {
    const FIELD: &str = "commit_timestamp";
    let Some(raw) = present(raw) else { return Ok(None) };
    let time = if is_integer(raw) {
        // What does not fit into an i64 is far out of range, too.
        Timestamp::from_microsecond(raw.parse().unwrap_or(i64::MAX))
    } else {
        let (part, expected) = (Part::Metadata, "a time as a string or an integer of microseconds");
        match string(part, FIELD, Some(raw)) {
            Ok(text) => text.unwrap_or_default().parse(),
            Err(Poison::WrongType { found, .. }) => {
                return Err(Poison::WrongType { part, field: FIELD, expected, found });
            }
            Err(other) => return Err(other),
        }
    };
    time.map(Some).map_err(|source| Poison::CommitTime { source })
}
