//! What the service does with one event, behind the port of the actors.

use std::borrow::Cow;
use std::str;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use cdc_actors::message::{CommitPosition, Decision, Delivery, Event, EventKey, Headers, OrderKey, Remarks, Verdict};
use cdc_actors::ports::Transform;

use super::change::{Change, Envelope};
use super::enriched::Enriched;
use super::error::Poison;
use super::event_key::{KeyParts, row_order, sha256_hex, stray_order};
use super::settings::{TableSettings, TransformConfig, UnhandledFields};
use super::subject::{self, Action, SourceSubject, SubjectRules};
use super::table::{Id, RowRead, Table};
use super::tables::{Agents, Chats, Messages};

/// Header that says how often the event was brought back from the dead letters.
pub const REPLAYS: &str = "Cdc-Replays";
/// Header with the `Nats-Msg-Id` that a replayed event had when it first came.
pub const ORIGINAL_ID: &str = "Cdc-Original-Id";

/// Source headers that travel with the event; no other is copied.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

/// Room for id, key and subject of a usual event, in bytes.
const ROOM_FOR_NAMES: usize = 320;

/// Turns change events into enriched events.
#[derive(Debug, Clone)]
pub struct CdcTransform {
    config: TransformConfig,
    /// The tables that are enabled.
    tables: Vec<Allowed>,
}

/// A table that is enabled.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    table: &'static dyn Table,
    unhandled: UnhandledFields,
}

/// What [`CdcTransform::order`] read of an event.
#[derive(Debug)]
pub struct Parsed {
    found: Found,
    subject_mismatch: Option<String>,
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are changes, and a box for each would cost more than moving them"
)]
enum Found {
    /// An event of a table that is not allowed.
    NotAllowed,
    /// An event that cannot be published.
    Poison { table: Option<&'static str>, poison: Poison },
    /// A change of a row.
    Change { allowed: Allowed, change: Change, row: RowRead },
}

impl CdcTransform {
    /// A transform that follows `config`.
    pub fn new(config: TransformConfig) -> Self {
        let all: [(&'static dyn Table, TableSettings); 3] =
            [(&Messages, config.tables.messages), (&Chats, config.tables.chats), (&Agents, config.tables.agents)];
        let enabled = all.into_iter().filter(|(_, settings)| settings.enabled);
        let tables = enabled.map(|(table, settings)| Allowed { table, unhandled: settings.unhandled_fields }).collect();
        Self { config, tables }
    }

    fn allowed(&self, table: &str) -> Option<Allowed> {
        self.tables.iter().find(|allowed| allowed.table.name() == table).copied()
    }

    fn parse(&self, delivery: &Delivery) -> Parsed {
        let subject = SourceSubject::parse(&delivery.subject);
        let hint = subject.and_then(|subject| self.allowed(subject.table));
        if subject.is_some() && hint.is_none() {
            return Parsed { found: Found::NotAllowed, subject_mismatch: None };
        }
        // Where the metadata cannot be read, the subject is the best there is to name the table by.
        let unreadable = |poison| Parsed {
            found: Found::Poison { table: hint.map(|allowed| allowed.table.name()), poison },
            subject_mismatch: None,
        };
        let text = match str::from_utf8(&delivery.payload) {
            Ok(text) => text,
            Err(source) => return unreadable(Poison::NotUtf8(source)),
        };
        let envelope = match Envelope::parse(text, hint.map(|allowed| allowed.table)) {
            Ok(envelope) => envelope,
            Err(poison) => return unreadable(poison),
        };
        let subject_mismatch = subject.and_then(|subject| envelope.contradiction(&subject));
        let found = match envelope.table() {
            Ok(name) => match self.allowed(&name) {
                Some(allowed) => read(allowed, envelope, hint.is_some_and(|hint| hint.table.name() == name)),
                None => Found::NotAllowed,
            },
            Err(poison) => unreadable(poison).found,
        };
        Parsed { found, subject_mismatch }
    }

    /// Why an event can never be published; `None` if it can be, or is skipped.
    pub(super) fn poison(&self, delivery: &Delivery) -> Option<Poison> {
        match self.parse(delivery).found {
            Found::NotAllowed => None,
            Found::Poison { poison, .. } => Some(poison),
            Found::Change { allowed, change, row } => self.event(delivery, allowed, &change, &row).err(),
        }
    }

    fn event(&self, delivery: &Delivery, allowed: Allowed, change: &Change, row: &RowRead) -> Result<Event, Poison> {
        let Allowed { table, unhandled } = allowed;
        let source = str::from_utf8(&delivery.payload).map_err(Poison::NotUtf8)?;
        let key = check_ids(table, change, row, source)?;
        if let (UnhandledFields::Reject, Some(field)) = (unhandled, row.unhandled.first()) {
            return Err(Poison::RejectedField { table: table.name(), field: field.clone() });
        }
        let mut number = itoa::Buffer::new();
        let place = match change.idx {
            Some(idx) => Cow::Borrowed(number.format(idx)),
            None => place_without_idx(delivery, change, source),
        };
        let parts = KeyParts {
            database: change.database.within(source),
            schema: change.schema.within(source),
            lsn: change.lsn.unwrap_or(0),
            table: table.name(),
            key,
            place: &place,
        };
        let enriched = Enriched { source, change, table, row, unhandled };
        // All that the event consists of stands in one piece of memory, which its parts share.
        let mut memory = Vec::with_capacity(enriched.room() + ROOM_FOR_NAMES);
        parts.push_event_id(&mut memory);
        let id_end = memory.len();
        parts.push_event_key(&mut memory);
        let key_end = memory.len();
        let rules = SubjectRules { prefix: &self.config.subject_prefix, unsafe_tokens: self.config.unsafe_tokens };
        subject::push_target(&mut memory, rules, table, row, source)?;
        let subject_end = memory.len();
        enriched.push(&mut memory, 0..id_end)?;
        let memory = Bytes::from(memory);
        Ok(Event {
            key: EventKey::new(text(memory.slice(id_end..key_end))).expect("push_event_key appends a legal key"),
            event_id: text(memory.slice(..id_end)),
            table: table.name(),
            subject: text(memory.slice(key_end..subject_end)),
            headers: trace_headers(delivery),
            payload: memory.slice(subject_end..),
            position: change.lsn.map(|lsn| CommitPosition { lsn, idx: change.idx.unwrap_or(0) }),
            committed: change.committed.map(|committed| committed.time.as_microsecond()),
        })
    }
}

impl Transform for CdcTransform {
    type Parsed = Parsed;

    fn order(&self, delivery: &Delivery) -> (OrderKey, Parsed) {
        let parsed = self.parse(delivery);
        let order = match &parsed.found {
            Found::Change { allowed, change, row } => order_of(delivery, allowed, change, row),
            Found::NotAllowed | Found::Poison { .. } => None,
        };
        let order = order.unwrap_or_else(|| stray_order(&delivery.subject, delivery.receipt.id.sequence));
        (order, parsed)
    }

    fn decide(&self, delivery: &Delivery, parsed: Parsed) -> Decision {
        let mut remarks = Remarks { unhandled_fields: Vec::new(), subject_mismatch: parsed.subject_mismatch };
        let verdict = match parsed.found {
            Found::NotAllowed => Verdict::Skip,
            Found::Poison { table, poison } => dead_letter(table, &poison),
            Found::Change { allowed, change, row } => {
                let verdict = match self.event(delivery, allowed, &change, &row) {
                    Ok(event) => Verdict::Publish(Arc::new(event)),
                    Err(poison) => dead_letter(Some(allowed.table.name()), &poison),
                };
                remarks.unhandled_fields = row.unhandled;
                verdict
            }
        };
        Decision { verdict, remarks }
    }
}

/// Reads the row of an event whose table is allowed; `is_expected` says that it was read already.
fn read(allowed: Allowed, mut envelope: Envelope<'_>, is_expected: bool) -> Found {
    let change = envelope.change();
    let read = change.and_then(|change| Ok((change, envelope.row(allowed.table, is_expected)?)));
    match read {
        Ok((change, row)) => Found::Change { allowed, change, row },
        Err(poison) => Found::Poison { table: Some(allowed.table.name()), poison },
    }
}

/// The order key of a row whose key is there.
fn order_of(delivery: &Delivery, allowed: &Allowed, change: &Change, row: &RowRead) -> Option<OrderKey> {
    let source = str::from_utf8(&delivery.payload).ok()?;
    let key = row.value(allowed.table.key(), source)?;
    Some(row_order(change.database.within(source), change.schema.within(source), allowed.table.name(), key))
}

fn dead_letter(table: Option<&'static str>, poison: &Poison) -> Verdict {
    Verdict::DeadLetter { table, reason: poison.reason(), detail: poison.to_string() }
}

/// Makes sure that key and routing values are there, and returns the key.
fn check_ids<'r>(table: &dyn Table, change: &Change, row: &'r RowRead, source: &'r str) -> Result<&'r str, Poison> {
    let name = table.name();
    if change.action == Action::Delete && !row.more_than_key_columns {
        return Err(Poison::ReplicaIdentity { table: name });
    }
    let mut columns = std::iter::once(table.key()).chain(table.routing().iter().copied());
    if let Some(column) = columns.find(|column| *row.id(*column) == Id::Unchanged) {
        return Err(Poison::UnchangedToast { table: name, column: column.name() });
    }
    let key = row.value(table.key(), source);
    let key = key.ok_or(Poison::MissingKey { table: name, column: table.key().name() })?;
    match table.routing().iter().find(|column| *row.id(**column) == Id::Missing) {
        Some(column) => Err(Poison::MissingRouting { table: name, column: column.name() }),
        None => Ok(key),
    }
}

/// What tells two changes of a row in one transaction apart where there is no `commit_idx`, by preference.
fn place_without_idx<'a>(delivery: &'a Delivery, change: &'a Change, source: &'a str) -> Cow<'a, str> {
    // A replay comes under an id of its own; the event's key stays what it was.
    let name = if delivery.header(REPLAYS).is_some() { ORIGINAL_ID } else { "Nats-Msg-Id" };
    let source_id = || delivery.header(name).filter(|id| !id.is_empty());
    match change.idempotency_key.as_ref().map(|key| key.within(source)).or_else(source_id) {
        Some(id) => Cow::Borrowed(id),
        None => Cow::Owned(sha256_hex(&delivery.payload)),
    }
}

/// A part of an event's memory that was written as text.
fn text(part: Bytes) -> ByteString {
    ByteString::try_from(part).expect("whole texts were written to it")
}

fn trace_headers(delivery: &Delivery) -> Headers {
    let is_trace = |name: &str| TRACE_HEADERS.iter().any(|trace| name.eq_ignore_ascii_case(trace));
    delivery.headers.iter().filter(|(name, _)| is_trace(name)).cloned().collect()
}
