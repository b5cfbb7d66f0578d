//! The change event as Sequin sends it: `{record, changes, action, metadata}`.

use std::borrow::Cow;
use std::ops::Range;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

use super::error::{Part, Poison};
use super::excerpt::{Excerpt, Span};
use super::json::{Read, fill, has_form, inner, is_integer, members, text, type_of};
use super::scan::Scanner;
use super::subject::{Action, SourceSubject};
use super::table::{RowRead, Table};

/// The envelope, borrowed from the payload; every value raw, `None` if absent.
#[derive(Debug, Default)]
pub struct Envelope<'a> {
    payload: &'a str,
    record: Option<Record<'a>>,
    changes: Option<&'a str>,
    action: Option<&'a str>,
    metadata: Metadata<'a>,
}

/// The record of an envelope.
#[derive(Debug)]
struct Record<'a> {
    raw: &'a str,
    /// What the expected table read of it.
    row: Option<Result<RowRead, Poison>>,
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
    database: Option<Database<'a>>,
}

/// The database within the metadata.
#[derive(Debug, Default)]
struct Database<'a> {
    id: Option<&'a str>,
    name: Option<&'a str>,
}

/// A change of a row: everything but the row itself, by place in the payload.
#[derive(Debug, Clone)]
pub struct Change {
    /// The database's id, else its name, else empty.
    pub database: Excerpt,
    /// The schema.
    pub schema: Excerpt,
    /// What was done.
    pub action: Action,
    /// Log sequence number of the commit; backfills may have none.
    pub lsn: Option<u64>,
    /// Place within the transaction; older producers send none.
    pub idx: Option<u64>,
    /// Sequin's own identity of the event, kept only where there is no `idx`.
    pub idempotency_key: Option<Excerpt>,
    /// When it was committed.
    pub committed: Option<Committed>,
    /// The row, a JSON object.
    pub record: Span,
    /// Old values of an update, a JSON object.
    pub changes: Option<Span>,
}

/// When a change was committed.
#[derive(Debug, Clone, Copy)]
pub struct Committed {
    /// The time.
    pub time: Timestamp,
    /// Where it stands in the payload, if it is written there as enriched events write it.
    pub written: Option<Span>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope in one pass; fields that are not known are passed over. The record is read as a row of `expected` on
    /// the way, if a table is: the subject names it long before the metadata does.
    ///
    /// # Errors
    /// Text that is not JSON, or without the object `metadata`.
    pub fn parse(payload: &'a str, expected: Option<&dyn Table>) -> Result<Self, Poison> {
        const PART: Part = Part::Envelope;
        let (mut envelope, mut metadata) = (Self { payload, ..Self::default() }, None);
        let mut scanner = Scanner::new(payload);
        let read = members(PART, &mut scanner, |scanner, name| {
            Ok(match name {
                "record" => fill(&mut envelope.record, PART, "record", Record::read(scanner, expected)?),
                "changes" => fill(&mut envelope.changes, PART, "changes", scanner.value()?),
                "action" => fill(&mut envelope.action, PART, "action", scanner.value()?),
                "metadata" => match Metadata::read(scanner)? {
                    Ok(read) => fill(&mut metadata, PART, "metadata", read),
                    Err(poison) => Err(poison),
                },
                _ => scanner.value().map(|_| Ok(()))?,
            })
        });
        let ended = read.and_then(|read| scanner.end().map(|()| read));
        ended.map_err(|malformed| Poison::not_json(payload, malformed))??;
        envelope.metadata = metadata.flatten().ok_or(Poison::Absent { part: PART, field: "metadata".into() })?;
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
        let title = || name(metadata.database.as_ref().and_then(|database| database.name));
        let database = name(metadata.database_name).or_else(title);
        let (schema, table) = (name(metadata.table_schema), name(metadata.table_name));
        let action = name(self.action);
        subject.contradiction(database.as_deref(), schema.as_deref(), table.as_deref(), action.as_deref())
    }

    /// The record as a row of `table`; `is_expected` says that it is the table that was expected.
    ///
    /// # Errors
    /// A record that is absent, no object, or no row of this table.
    pub fn row(&mut self, table: &dyn Table, is_expected: bool) -> Result<RowRead, Poison> {
        let read = self.record.as_mut().and_then(|record| record.row.take()).filter(|_| is_expected);
        if let Some(row) = read {
            return row;
        }
        let record = self.record()?;
        let row = table.read(&mut Scanner::within(self.payload, record));
        row.map_err(|malformed| Poison::not_json(self.payload, malformed))?
    }

    fn record(&self) -> Result<&'a str, Poison> {
        let record = present(self.record.as_ref().map(|record| record.raw));
        object(Part::Record, record.ok_or(Poison::Absent { part: Part::Envelope, field: "record".into() })?)
    }

    /// Takes everything but the row out of the envelope.
    ///
    /// # Errors
    /// A field that is absent or of the wrong type.
    pub fn change(&self) -> Result<Change, Poison> {
        let (payload, metadata) = (self.payload, &self.metadata);
        let action = Action::parse(&required(Part::Envelope, "action", self.action)?).ok_or(Poison::UnknownAction)?;
        let changes = present(self.changes).map(|raw| object(Part::Changes, raw)).transpose()?;
        let idx = unsigned("commit_idx", metadata.commit_idx)?;
        let idempotency_key = string(Part::Metadata, "idempotency_key", metadata.idempotency_key)?
            .filter(|key| idx.is_none() && !key.is_empty());
        let schema = required(Part::Metadata, "table_schema", metadata.table_schema)?;
        Ok(Change {
            database: Excerpt::of(payload, metadata.database()?),
            schema: Excerpt::of(payload, schema),
            action,
            lsn: unsigned("commit_lsn", metadata.commit_lsn)?,
            idx,
            idempotency_key: idempotency_key.map(|key| Excerpt::of(payload, key)),
            committed: Committed::read(payload, metadata.commit_timestamp)?,
            record: Span::of(payload, self.record()?),
            changes: changes.filter(|_| action == Action::Update).map(|raw| Span::of(payload, raw)),
        })
    }
}

impl<'a> Record<'a> {
    fn read(scanner: &mut Scanner<'a>, expected: Option<&dyn Table>) -> Result<Self, super::scan::Malformed> {
        let Some(table) = expected.filter(|_| scanner.peek() == Some(b'{')) else {
            return Ok(Self { raw: scanner.value()?, row: None });
        };
        let start = scanner.at();
        let row = table.read(scanner)?;
        Ok(Self { raw: scanner.since(start), row: Some(row) })
    }
}

impl<'a> Metadata<'a> {
    /// Reads the metadata; `None` if they are null.
    fn read(scanner: &mut Scanner<'a>) -> Read<Option<Self>> {
        const PART: Part = Part::Metadata;
        let mut this = Self::default();
        let read = members(PART, scanner, |scanner, name| {
            Ok(match name {
                "table_schema" => fill(&mut this.table_schema, PART, "table_schema", scanner.value()?),
                "table_name" => fill(&mut this.table_name, PART, "table_name", scanner.value()?),
                "commit_timestamp" => fill(&mut this.commit_timestamp, PART, "commit_timestamp", scanner.value()?),
                "commit_lsn" => fill(&mut this.commit_lsn, PART, "commit_lsn", scanner.value()?),
                "commit_idx" => fill(&mut this.commit_idx, PART, "commit_idx", scanner.value()?),
                "database_name" => fill(&mut this.database_name, PART, "database_name", scanner.value()?),
                "idempotency_key" => fill(&mut this.idempotency_key, PART, "idempotency_key", scanner.value()?),
                "database" => match Database::read(scanner)? {
                    Ok(database) => fill(&mut this.database, PART, "database", database),
                    Err(poison) => Err(poison),
                },
                _ => scanner.value().map(|_| Ok(()))?,
            })
        })?;
        Ok(read.map(|raw| present(Some(raw)).map(|_| this)))
    }

    /// The id, else a name, else nothing: what tells databases apart that feed one stream.
    fn database(&self) -> Result<Cow<'a, str>, Poison> {
        let database = self.database.as_ref();
        let id = match database.and_then(|database| database.id) {
            Some(number) if is_integer(number) => Some(Cow::Borrowed(number)),
            id => string(Part::Database, "id", id)?,
        };
        let name = string(Part::Metadata, "database_name", self.database_name)?;
        let title = string(Part::Database, "name", database.and_then(|database| database.name))?;
        let mut given = [id, name, title].into_iter().flatten().filter(|text| !text.is_empty());
        // Nothing is a part of the payload, too, though an empty one.
        Ok(given.next().unwrap_or_default())
    }
}

impl<'a> Database<'a> {
    fn read(scanner: &mut Scanner<'a>) -> Read<Self> {
        const PART: Part = Part::Database;
        let mut this = Self::default();
        let read = members(PART, scanner, |scanner, name| {
            Ok(match name {
                "id" => fill(&mut this.id, PART, "id", scanner.value()?),
                "name" => fill(&mut this.name, PART, "name", scanner.value()?),
                _ => scanner.value().map(|_| Ok(()))?,
            })
        })?;
        Ok(read.map(|_| this))
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
        Ok(None) => Err(Poison::WrongType { part, field: field.into(), expected: "a string", found: type_of(raw) }),
        Err(source) => Err(Poison::Undecodable { part, field: field.into(), source }),
    }
}

fn required<'a>(part: Part, field: &'static str, raw: Option<&'a str>) -> Result<Cow<'a, str>, Poison> {
    string(part, field, raw)?.ok_or(Poison::Absent { part, field: field.into() })
}

fn unsigned(field: &'static str, raw: Option<&str>) -> Result<Option<u64>, Poison> {
    let Some(raw) = present(raw) else { return Ok(None) };
    raw.parse().map(Some).map_err(|_| Poison::WrongType {
        part: Part::Metadata,
        field: field.into(),
        expected: "an integer from 0 to 2^64 - 1",
        found: if is_integer(raw) { "an integer out of that range" } else { type_of(raw) },
    })
}

impl Committed {
    /// Reads an ISO 8601 time with a zone, or microseconds since 1970.
    fn read(payload: &str, raw: Option<&str>) -> Result<Option<Self>, Poison> {
        const FIELD: &str = "commit_timestamp";
        let Some(raw) = present(raw) else { return Ok(None) };
        if let Some((text, time)) = inner(raw).and_then(|text| Some((text, canonical(text)?))) {
            return Ok(Some(Self { time, written: Some(Span::of(payload, text)) }));
        }
        let time = if is_integer(raw) {
            // What does not fit into an i64 is far out of range, too.
            Timestamp::from_microsecond(raw.parse().unwrap_or(i64::MAX))
        } else {
            let (part, expected) = (Part::Metadata, "a time as a string or an integer of microseconds");
            match string(part, FIELD, Some(raw)) {
                Ok(text) => text.unwrap_or_default().parse(),
                Err(Poison::WrongType { found, .. }) => {
                    return Err(Poison::WrongType { part, field: FIELD.into(), expected, found });
                }
                Err(other) => return Err(other),
            }
        };
        let time = time.map_err(|source| Poison::CommitTime { source })?;
        Ok(Some(Self { time, written: None }))
    }
}

/// A time that is written as enriched events write it, `2026-01-05T08:00:00.123456Z`, which nearly all are; `None` for any other
/// and for what is no time.
fn canonical(time: &str) -> Option<Timestamp> {
    const FORM: &[u8; 27] = b"0000-00-00T00:00:00.000000Z";
    if !has_form(time, FORM, u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: Range<usize>| time.as_bytes()[digits].iter().fold(0, |n, b| 10 * n + i32::from(b - b'0'));
    let two = |at: usize| number(at..at + 2) as i8;
    let (year, nanos) = (number(0..4) as i16, 1_000 * number(20..26));
    let time = DateTime::new(year, two(5), two(8), two(11), two(14), two(17), nanos).ok()?;
    Offset::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_time_or_is_written_in_another_way_is_not_canonical() {
        for text in [
            "2026-02-30T08:00:00.000000Z",
            "2026-13-01T08:00:00.000000Z",
            "2026-01-05T24:00:00.000000Z",
            "2026-01-05T08:60:00.000000Z",
            "2016-12-31T23:59:60.000000Z",
            "2026-01-05T08:00:00.000000",
            "2026-01-05T08:00:00.00000Z",
            "2026-01-05 08:00:00.000000Z",
            "2026-01-05T08:00:00.000000z",
            "2026-01-05T08:00:00,000000Z",
            "",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_time_is_the_one_that_is_written(micros in -62_135_596_800_000_000..=253_402_207_199_999_999_i64) {
            let time = Timestamp::from_microsecond(micros).expect("in range");
            prop_assert_eq!(canonical(&format!("{time:.6}")), Some(time));
        }

        #[test]
        fn whatever_looks_like_a_canonical_time_is_read_as_any_time_is(
            text in "(0000|1972|2024|2026|9999)-(0[0-9]|1[0-3])-(0[0-9]|[12][0-9]|3[0-2])T(0[0-9]|2[0-5]):[05][0-9]:[0-6][0-9]\\.[0-9]{6}Z",
        ) {
            let leap = &text[17..19] == "60";
            prop_assert_eq!(canonical(&text), text.parse().ok().filter(|_: &Timestamp| !leap));
        }
    }
}
