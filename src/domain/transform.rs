//! What the service does with one event, behind the port of the actors.

use std::str;

use bytes::Bytes;
use cdc_actors::message::{CommitPosition, Decision, Delivery, Event, Headers, OrderKey, Remarks, Verdict};
use cdc_actors::ports::Transform;

use super::change::{Change, Envelope};
use super::enriched;
use super::error::Poison;
use super::event_key::{KeyParts, row_order, sha256_hex, stray_order};
use super::settings::{TableSettings, TransformConfig, UnhandledFields};
use super::subject::{self, Action, SourceSubject};
use super::table::{Id, RowRead, Table};
use super::tables::{Agents, Chats, Messages};

/// Header that says how often the event was brought back from the dead letters.
pub const REPLAYS: &str = "Cdc-Replays";
/// Header with the `Nats-Msg-Id` that a replayed event had when it first came.
pub const ORIGINAL_ID: &str = "Cdc-Original-Id";

/// Source headers that travel with the event; no other is copied.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

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
enum Found {
    /// An event of a table that is not allowed.
    NotAllowed,
    /// An event that cannot be published.
    Poison { table: Option<&'static str>, poison: Poison },
    /// A change of a row.
    Change { allowed: Allowed, change: Box<Change>, row: Box<RowRead> },
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
        let envelope = match Envelope::parse(text) {
            Ok(envelope) => envelope,
            Err(poison) => return unreadable(poison),
        };
        let subject_mismatch = subject.and_then(|subject| envelope.contradiction(&subject));
        let found = match envelope.table() {
            Ok(name) => match self.allowed(&name) {
                Some(allowed) => read(allowed, &envelope, &delivery.payload),
                None => Found::NotAllowed,
            },
            Err(poison) => unreadable(poison).found,
        };
        Parsed { found, subject_mismatch }
    }

    fn event(&self, delivery: &Delivery, allowed: Allowed, change: &Change, row: &RowRead) -> Result<Event, Poison> {
        let table = allowed.table;
        let key = check_ids(table, change, row)?;
        if let (UnhandledFields::Reject, Some(field)) = (allowed.unhandled, row.unhandled.first()) {
            return Err(Poison::RejectedField { table: table.name(), field: field.clone() });
        }
        let place = place(delivery, change);
        let parts = KeyParts {
            database: &change.database,
            schema: &change.schema,
            lsn: change.lsn.unwrap_or(0),
            table: table.name(),
            key,
            place: &place,
        };
        let event_id = parts.event_id();
        Ok(Event {
            key: parts.event_key(),
            table: table.name(),
            subject: subject::target(&self.config.subject_prefix, self.config.unsafe_tokens, table, row)?,
            headers: trace_headers(delivery),
            payload: Bytes::from(enriched::payload(change, &event_id, table, row, allowed.unhandled)?),
            position: change.lsn.map(|lsn| CommitPosition { lsn, idx: change.idx.unwrap_or(0) }),
            committed: change.committed.map(|time| time.as_microsecond()),
            event_id,
        })
    }
}

impl Transform for CdcTransform {
    type Parsed = Parsed;

    fn order(&self, delivery: &Delivery) -> (OrderKey, Parsed) {
        let parsed = self.parse(delivery);
        let order = match &parsed.found {
            Found::Change { allowed, change, row } => row
                .id(allowed.table.key_column())
                .value()
                .map(|key| row_order(&change.database, &change.schema, allowed.table.name(), key)),
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
                    Ok(event) => Verdict::Publish(Box::new(event)),
                    Err(poison) => dead_letter(Some(allowed.table.name()), &poison),
                };
                remarks.unhandled_fields = row.unhandled;
                verdict
            }
        };
        Decision { verdict, remarks }
    }
}

/// Reads the row of an event whose table is allowed.
fn read(allowed: Allowed, envelope: &Envelope<'_>, payload: &Bytes) -> Found {
    let change = envelope.change(payload);
    let read = change.and_then(|change| Ok((change, allowed.table.read(envelope.record()?)?)));
    match read {
        Ok((change, row)) => Found::Change { allowed, change: Box::new(change), row: Box::new(row) },
        Err(poison) => Found::Poison { table: Some(allowed.table.name()), poison },
    }
}

fn dead_letter(table: Option<&'static str>, poison: &Poison) -> Verdict {
    Verdict::DeadLetter { table, reason: poison.reason(), detail: poison.to_string() }
}

/// Makes sure that key and routing values are there, and returns the key.
fn check_ids<'r>(table: &dyn Table, change: &Change, row: &'r RowRead) -> Result<&'r str, Poison> {
    let name = table.name();
    if change.action == Action::Delete && row.key_columns_alone {
        return Err(Poison::ReplicaIdentity { table: name });
    }
    let key_column = table.key_column();
    let mut columns = std::iter::once(key_column).chain(table.routing_columns().iter().copied());
    if let Some(column) = columns.find(|column| *row.id(column) == Id::Unchanged) {
        return Err(Poison::UnchangedToast { table: name, column });
    }
    let key = row.id(key_column).value().ok_or(Poison::MissingKey { table: name, column: key_column })?;
    match table.routing_columns().iter().find(|column| *row.id(column) == Id::Missing) {
        Some(column) => Err(Poison::MissingRouting { table: name, column }),
        None => Ok(key),
    }
}

/// What tells two changes of a row in one transaction apart, by preference.
fn place(delivery: &Delivery, change: &Change) -> String {
    if let Some(idx) = change.idx {
        return idx.to_string();
    }
    // A replay comes under an id of its own; the event's key stays what it was.
    let name = if delivery.header(REPLAYS).is_some() { ORIGINAL_ID } else { "Nats-Msg-Id" };
    let source_id = || delivery.header(name).filter(|id| !id.is_empty());
    match change.idempotency_key.as_deref().or_else(source_id) {
        Some(id) => id.to_owned(),
        None => sha256_hex(&delivery.payload),
    }
}

fn trace_headers(delivery: &Delivery) -> Headers {
    let is_trace = |name: &str| TRACE_HEADERS.iter().any(|trace| name.eq_ignore_ascii_case(trace));
    delivery.headers.iter().filter(|(name, _)| is_trace(name)).cloned().collect()
}
