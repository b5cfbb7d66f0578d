//! The enriched event as JSON, written by hand around the raw record.

use std::io::Write;
use std::ops::Range;

use super::change::{Change, Committed};
use super::error::Poison;
use super::json::{push_number, push_string, push_string_within, push_without};
use super::settings::UnhandledFields;
use super::subject::Action;
use super::table::{IdColumn, RowRead, Table, unknown_fields};

/// What an enriched event holds beyond its source, in bytes: a usual event's ids once more. Its metadata are dropped.
const ROOM: usize = 128;

/// Everything an enriched event is made of.
#[derive(Debug, Clone, Copy)]
pub struct Enriched<'a> {
    /// The payload of the change event, which the places in `change` and `row` are of.
    pub source: &'a str,
    /// The change.
    pub change: &'a Change,
    /// Its table.
    pub table: &'a dyn Table,
    /// Its row.
    pub row: &'a RowRead,
    /// What becomes of fields that the table does not know.
    pub unhandled: UnhandledFields,
}

impl Enriched<'_> {
    /// About how many bytes [`Self::push`] appends.
    pub fn room(&self) -> usize {
        ROOM + self.source.len()
    }

    /// Appends the enriched event, whose id stands at `event_id` in `out`.
    ///
    /// # Errors
    /// None in practice: `changes` was checked to be JSON when the envelope was read, and is only read again where unhandled
    /// fields are dropped from it.
    pub fn push(&self, out: &mut Vec<u8>, event_id: Range<usize>) -> Result<(), Poison> {
        let Self { source, change, table, row, unhandled } = *self;
        out.extend_from_slice(b"{\"event_id\":");
        push_string_within(out, event_id);
        let schema = change.schema.within(source);
        for (name, value) in [("table", table.name()), ("schema", schema), ("action", change.action.name())] {
            push_member(out, name);
            push_string(out, value);
        }
        for column in IdColumn::ALL {
            if let Some(value) = row.value(column, source) {
                push_member(out, column.name());
                push_string(out, value);
            }
        }
        push_position(out, change, source);
        let (drops, record) = (unhandled == UnhandledFields::Drop, change.record.within(source));
        push_member(out, "row_data");
        match drops {
            true => push_without(out, record.as_bytes(), &row.unhandled_at),
            false => out.extend_from_slice(record.as_bytes()),
        }
        if let Some(changes) = change.changes.map(|span| span.within(source)) {
            push_member(out, "changes");
            match drops {
                true => push_without(out, changes.as_bytes(), &unknown_fields(table, changes)?),
                false => out.extend_from_slice(changes.as_bytes()),
            }
        }
        push_unchanged(out, change.action, row, drops.then_some(table));
        out.push(b'}');
        Ok(())
    }
}

/// Appends `,"name":`, of a name that needs no escapes.
fn push_member(out: &mut Vec<u8>, name: &'static str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Appends where and when in the database's history it happened; a missing LSN prints as 0, the rest is left out.
fn push_position(out: &mut Vec<u8>, change: &Change, source: &str) {
    push_member(out, "commit_lsn");
    push_number(out, change.lsn.unwrap_or(0));
    if let Some(idx) = change.idx {
        push_member(out, "commit_idx");
        push_number(out, idx);
    }
    let Some(Committed { time, written }) = change.committed else { return };
    push_member(out, "commit_timestamp");
    match written {
        Some(written) => push_string(out, written.within(source)),
        None => write!(out, "\"{time:.6}\"").expect("writing to a Vec cannot fail"),
    }
}

/// Appends the names of columns that an update left out of the record; only those of `known`, if given.
fn push_unchanged(out: &mut Vec<u8>, action: Action, row: &RowRead, known: Option<&dyn Table>) {
    if action != Action::Update {
        return;
    }
    let names = row.unchanged.iter().filter(|name| known.is_none_or(|table| table.knows(name)));
    let mut separator: &[u8] = b",\"unchanged\":[";
    for name in names {
        out.extend_from_slice(separator);
        push_string(out, name);
        separator = b",";
    }
    if separator == b"," {
        out.push(b']');
    }
}
