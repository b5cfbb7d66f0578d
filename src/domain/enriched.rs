//! The enriched event as JSON, written by hand around the raw record.

use std::io::Write;

use jiff::Timestamp;

use super::json::{push_string, push_without};
use super::settings::UnhandledFields;
use super::subject::Action;
use super::table::{RowRead, Table, unknown_fields};

use super::change::Change;
use super::error::Poison;

/// Room for everything but record and changes, in bytes: ids, names and numbers of a usual event.
const ROOM: usize = 512;

/// Writes the enriched event. `table` and `row` belong to `change`.
///
/// # Errors
/// None in practice: `changes` was checked to be JSON when the envelope was read, and is only read again where unhandled
/// fields are dropped from it.
pub fn payload(
    change: &Change,
    event_id: &str,
    table: &dyn Table,
    row: &RowRead,
    unhandled: UnhandledFields,
) -> Result<Vec<u8>, Poison> {
    let changes = change.changes.as_deref();
    let mut out = Vec::with_capacity(ROOM + change.record.len() + changes.map_or(0, <[u8]>::len));
    out.extend_from_slice(b"{\"event_id\":");
    push_string(&mut out, event_id);
    for (name, value) in [("table", table.name()), ("schema", &change.schema), ("action", change.action.name())] {
        push_member(&mut out, name);
        push_string(&mut out, value);
    }
    for (name, value) in row.values() {
        push_member(&mut out, name);
        push_string(&mut out, value);
    }
    push_position(&mut out, change.lsn, change.idx, change.committed);
    let drops = unhandled == UnhandledFields::Drop;
    push_member(&mut out, "row_data");
    match drops {
        true => push_without(&mut out, &change.record, &row.unhandled_at),
        false => out.extend_from_slice(&change.record),
    }
    if let Some(changes) = changes {
        push_member(&mut out, "changes");
        match std::str::from_utf8(changes) {
            Ok(text) if drops => push_without(&mut out, changes, &unknown_fields(table, text)?),
            _ => out.extend_from_slice(changes),
        }
    }
    push_unchanged(&mut out, change.action, row, drops.then_some(table));
    out.push(b'}');
    Ok(out)
}

/// Appends `,"name":`.
fn push_member(out: &mut Vec<u8>, name: &'static str) {
    out.push(b',');
    push_string(out, name);
    out.push(b':');
}

/// Appends where and when in the database's history it happened; a missing LSN prints as 0, the rest is left out.
fn push_position(out: &mut Vec<u8>, lsn: Option<u64>, idx: Option<u64>, committed: Option<Timestamp>) {
    const INFALLIBLE: &str = "writing to a Vec cannot fail";
    write!(out, ",\"commit_lsn\":{}", lsn.unwrap_or(0)).expect(INFALLIBLE);
    if let Some(idx) = idx {
        write!(out, ",\"commit_idx\":{idx}").expect(INFALLIBLE);
    }
    if let Some(committed) = committed {
        write!(out, ",\"commit_timestamp\":\"{committed:.6}\"").expect(INFALLIBLE);
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
