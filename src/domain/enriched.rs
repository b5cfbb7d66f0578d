//! The enriched event as JSON, written by hand around the raw record.

use std::io::Write;
use std::ops::Range;

use super::change::{Change, Committed};
use super::error::{Part, Poison};
use super::json::{push_number, push_string, push_string_within, push_without};
use super::layout::Values;
use super::settings::UnhandledFields;
use super::subject::Action;
use super::table::{Table, unknown_fields};

/// What an enriched event holds beyond its source, in bytes: a usual event's ids once more. Its metadata are dropped.
const ROOM: usize = 128;

/// Everything an enriched event is made of.
#[derive(Debug, Clone, Copy)]
pub struct Enriched<'a> {
    /// The row's values, and the payload of the change event, which the places in `change` are of, too.
    pub values: Values<'a>,
    /// The change.
    pub change: &'a Change,
    /// Its table.
    pub table: &'a dyn Table,
    /// What becomes of fields that the table does not know.
    pub unhandled: UnhandledFields,
}

impl Enriched<'_> {
    /// About how many bytes [`Self::push`] appends.
    pub fn room(&self) -> usize {
        ROOM + self.values.payload.len()
    }

    /// Appends the enriched event, whose id stands at `event_id` in `out`.
    ///
    /// # Errors
    /// [`Poison::Twice`] where a column is renamed to what another field is called. Else none in practice: `changes` was
    /// checked to be JSON when the envelope was read, and is only read again where it is changed.
    pub fn push(&self, out: &mut Vec<u8>, event_id: Range<usize>) -> Result<(), Poison> {
        let Self { values, change, table, .. } = *self;
        let source = values.payload;
        out.extend_from_slice(b"{\"event_id\":");
        push_string_within(out, event_id);
        for (name, value) in [("table", table.name()), ("schema", values.schema), ("action", change.action.name())] {
            push_member(out, name);
            push_string(out, value);
        }
        for (place, routing) in values.layout.values.iter().enumerate() {
            if let Some(value) = values.get(place) {
                push_member(out, &routing.name);
                push_string(out, value);
            }
        }
        push_position(out, change, source);
        push_member(out, "row_data");
        self.push_object(out, Part::Record, change.record.within(source))?;
        if let Some(changes) = change.changes.map(|span| span.within(source)) {
            push_member(out, "changes");
            self.push_object(out, Part::Changes, changes)?;
        }
        self.push_unchanged(out);
        out.push(b'}');
        Ok(())
    }

    /// Appends record or changes, byte for byte unless something is to be changed.
    fn push_object(&self, out: &mut Vec<u8>, part: Part, raw: &str) -> Result<(), Poison> {
        let drops = self.unhandled == UnhandledFields::Drop;
        if let Some(edits) = &self.values.layout.edits {
            return edits.push(out, part, self.values.payload, raw, |name| !drops || self.table.knows(name));
        }
        match (drops, part) {
            (false, _) => out.extend_from_slice(raw.as_bytes()),
            (true, Part::Record) => push_without(out, raw.as_bytes(), &self.values.row.unhandled_at),
            (true, _) => push_without(out, raw.as_bytes(), &unknown_fields(self.table, self.values.payload, raw)?),
        }
        Ok(())
    }

    /// Appends the names of columns that an update left out of the record, as far as they go out.
    fn push_unchanged(&self, out: &mut Vec<u8>) {
        if self.change.action != Action::Update {
            return;
        }
        let (drops, edits) = (self.unhandled == UnhandledFields::Drop, &self.values.layout.edits);
        let kept = self.values.row.unchanged.iter().filter(|name| !drops || self.table.knows(name));
        let names = kept.filter_map(|name| match edits {
            Some(edits) => edits.name(name),
            None => Some(name.as_str()),
        });
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
}

/// Appends `,"name":`, of a name that needs no escapes.
fn push_member(out: &mut Vec<u8>, name: &str) {
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
