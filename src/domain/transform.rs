//! What the service does with one event, behind the port of the actors.

use std::borrow::Cow;
use std::str;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use bytestring::ByteString;
use cdc_actors::message::{CommitPosition, Decision, Delivery, Event, EventKey, Headers, OrderKey, Remarks, Verdict};
use cdc_actors::ports::Transform;
use foldhash::HashMap;

use super::change::{Change, Envelope};
use super::enriched::Enriched;
use super::error::Poison;
use super::event_key::{KeyParts, row_order, sha256_hex, stray_order, value_order};
use super::json::push_number;
use super::layout::{IdPart, Values};
use super::settings::{TableSettings, TransformConfig, UnhandledFields};
use super::subject::{self, Action, SourceSubject, SubjectRules};
use super::table::{RowRead, Table};
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
#[derive(Debug)]
pub struct CdcTransform {
    rules: RwLock<Arc<Rules>>,
}

/// What a transform goes by.
#[derive(Debug)]
struct Rules {
    config: TransformConfig,
    /// The tables that are enabled.
    tables: Vec<Allowed>,
    /// Their places, by name.
    places: HashMap<&'static str, usize>,
}

/// A table that is enabled.
#[derive(Debug, Clone)]
struct Allowed {
    table: Arc<dyn Table>,
    unhandled: UnhandledFields,
}

/// What [`CdcTransform::order`] read of an event. It goes back to the transform that made it, and to no other.
#[derive(Debug)]
pub struct Parsed {
    /// What it was read by, and is decided by, whatever the transform goes by meanwhile.
    rules: Arc<Rules>,
    reading: Reading,
}

#[derive(Debug)]
struct Reading {
    found: Found,
    subject_mismatch: Option<String>,
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are changes, and a box for each would cost more than moving them"
)]
enum Found {
    /// An event of a table that is not allowed, or of a schema or an action that a table which is allowed is not published of.
    NotAllowed { table: Option<&'static str> },
    /// An event that cannot be published.
    Poison { table: Option<&'static str>, poison: Poison },
    /// A change of a row, the place of its table, and what its order is kept by, if that is there.
    Change { table: usize, change: Change, row: RowRead, order: Option<OrderKey> },
}

impl Clone for CdcTransform {
    /// Goes by the same for now; what one follows later, the other does not.
    fn clone(&self) -> Self {
        Self { rules: RwLock::new(self.rules()) }
    }
}

impl CdcTransform {
    /// A transform that follows `config`.
    pub fn new(config: TransformConfig) -> Self {
        Self { rules: RwLock::new(Arc::new(Rules::new(config))) }
    }

    /// Follows `config` from now on, with whatever it is given to read; what was read before is decided as it would have been. A
    /// row may be found under another order key then, so nothing should be in flight.
    pub fn follow(&self, config: TransformConfig) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Rules::new(config));
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The names of the tables that are enabled.
    pub fn tables(&self) -> Vec<&'static str> {
        self.rules().tables.iter().map(|allowed| allowed.table.name()).collect()
    }

    /// The subjects that the tables which are enabled are published under, with wildcards for what rows decide.
    pub fn subjects(&self) -> Vec<String> {
        let rules = self.rules();
        let prefix = &rules.config.subject_prefix;
        rules.tables.iter().flat_map(|allowed| allowed.table.layout().subject_filters(prefix)).collect()
    }

    /// A table that is enabled, and what becomes of fields that it does not know.
    pub(super) fn table(&self, name: &str) -> Option<(Arc<dyn Table>, UnhandledFields)> {
        let rules = self.rules();
        rules.allowed(name).map(|place| (Arc::clone(&rules.tables[place].table), rules.tables[place].unhandled))
    }

    /// The change and the row of an event, if they could be read and are not skipped.
    pub(super) fn row(&self, delivery: &Delivery) -> Option<(Change, RowRead)> {
        match self.rules().parse(delivery).found {
            Found::Change { change, row, .. } => Some((change, row)),
            Found::NotAllowed { .. } | Found::Poison { .. } => None,
        }
    }

    /// Why an event can never be published; `None` if it can be, or is skipped.
    pub(super) fn poison(&self, delivery: &Delivery) -> Option<Poison> {
        let rules = self.rules();
        match rules.parse(delivery).found {
            Found::NotAllowed { .. } => None,
            Found::Poison { poison, .. } => Some(poison),
            Found::Change { table, change, row, .. } => rules.event(delivery, table, &change, &row).err(),
        }
    }
}

impl Rules {
    fn new(config: TransformConfig) -> Self {
        let tables = &config.tables;
        let typed: [(Arc<dyn Table>, TableSettings); 3] = [
            (Arc::new(Messages::default()), tables.messages),
            (Arc::new(Chats::default()), tables.chats),
            (Arc::new(Agents::default()), tables.agents),
        ];
        let is_declared = |name: &str| tables.declared.iter().any(|declared| declared.name() == name);
        let typed = typed.into_iter().filter(|(table, settings)| settings.enabled && !is_declared(table.name()));
        let typed = typed.map(|(table, settings)| Allowed { table, unhandled: settings.unhandled_fields });
        let declared = tables
            .declared
            .iter()
            .filter(|declared| declared.enabled())
            .map(|declared| Allowed { table: Arc::new(declared.clone()), unhandled: declared.unhandled_fields() });
        let tables: Vec<Allowed> = typed.chain(declared).collect();
        let places = tables.iter().enumerate().map(|(place, allowed)| (allowed.table.name(), place)).collect();
        Self { config, tables, places }
    }

    /// The place of a table that is enabled.
    fn allowed(&self, table: &str) -> Option<usize> {
        self.places.get(table).copied()
    }

    fn name(&self, table: usize) -> &'static str {
        self.tables[table].table.name()
    }

    fn parse(&self, delivery: &Delivery) -> Reading {
        let subject = SourceSubject::parse(&delivery.subject);
        let hint = subject.and_then(|subject| self.allowed(subject.table));
        if subject.is_some() && hint.is_none() {
            return Reading { found: Found::NotAllowed { table: None }, subject_mismatch: None };
        }
        // Where the metadata cannot be read, the subject is the best there is to name the table by.
        let unreadable = |poison| Reading {
            found: Found::Poison { table: hint.map(|table| self.name(table)), poison },
            subject_mismatch: None,
        };
        let text = match str::from_utf8(&delivery.payload) {
            Ok(text) => text,
            Err(source) => return unreadable(Poison::NotUtf8(source)),
        };
        let envelope = match Envelope::parse(text, hint.map(|table| &*self.tables[table].table)) {
            Ok(envelope) => envelope,
            Err(poison) => return unreadable(poison),
        };
        let subject_mismatch = subject.and_then(|subject| envelope.contradiction(&subject));
        let found = match envelope.table() {
            Ok(name) => match self.allowed(&name) {
                Some(table) => self.read(table, envelope, hint == Some(table), text),
                None => Found::NotAllowed { table: None },
            },
            Err(poison) => unreadable(poison).found,
        };
        Reading { found, subject_mismatch }
    }

    /// Reads the row of an event whose table is allowed; `is_expected` says that it was read already.
    fn read(&self, table: usize, mut envelope: Envelope<'_>, is_expected: bool, payload: &str) -> Found {
        let allowed = &*self.tables[table].table;
        let poisoned = |poison| Found::Poison { table: Some(allowed.name()), poison };
        let change = match envelope.change() {
            Ok(change) => change,
            Err(poison) => return poisoned(poison),
        };
        let layout = allowed.layout();
        if !layout.actions.contains(change.action) || !layout.schema.fits(change.schema.within(payload)) {
            return Found::NotAllowed { table: Some(allowed.name()) };
        }
        match envelope.row(allowed, is_expected) {
            Ok(row) => {
                let order = order_of(allowed, Values::new(layout, &change, &row, payload), &change);
                Found::Change { table, change, row, order }
            }
            Err(poison) => poisoned(poison),
        }
    }

    /// The event to publish; `None` if its row is filtered out.
    fn event(
        &self,
        delivery: &Delivery,
        table: usize,
        change: &Change,
        row: &RowRead,
    ) -> Result<Option<Event>, Poison> {
        let Allowed { table, unhandled } = &self.tables[table];
        let (table, unhandled) = (&**table, *unhandled);
        let source = str::from_utf8(&delivery.payload).map_err(Poison::NotUtf8)?;
        let values = Values::new(table.layout(), change, row, source);
        if !is_meant(table, change, values)? {
            return Ok(None);
        }
        let key = values.check(table.name())?;
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
            schema: values.schema,
            lsn: change.lsn.unwrap_or(0),
            table: table.name(),
            key: &key,
            place: &place,
        };
        let enriched = Enriched { values, change, table, unhandled };
        // All that the event consists of stands in one piece of memory, which its parts share.
        let mut memory = Vec::with_capacity(enriched.room() + ROOM_FOR_NAMES);
        push_event_id(&mut memory, values, change, &key);
        let id_end = memory.len();
        parts.push_event_key(&mut memory);
        let key_end = memory.len();
        let rules = SubjectRules { prefix: &self.config.subject_prefix, unsafe_tokens: self.config.unsafe_tokens };
        subject::push_target(&mut memory, rules, table.name(), values, change.action)?;
        let subject_end = memory.len();
        enriched.push(&mut memory, 0..id_end)?;
        let memory = Bytes::from(memory);
        Ok(Some(Event {
            key: EventKey::new(text(memory.slice(id_end..key_end))).expect("push_event_key appends a legal key"),
            event_id: text(memory.slice(..id_end)),
            table: table.name(),
            subject: text(memory.slice(key_end..subject_end)),
            headers: trace_headers(delivery),
            payload: memory.slice(subject_end..),
            position: change.lsn.map(|lsn| CommitPosition { lsn, idx: change.idx.unwrap_or(0) }),
            committed: change.committed.map(|committed| committed.time.as_microsecond()),
        }))
    }
}

impl Transform for CdcTransform {
    type Parsed = Parsed;

    fn order(&self, delivery: &Delivery) -> (OrderKey, Parsed) {
        let rules = self.rules();
        let reading = rules.parse(delivery);
        let order = match &reading.found {
            Found::Change { order, .. } => *order,
            Found::NotAllowed { .. } | Found::Poison { .. } => None,
        };
        let order = order.unwrap_or_else(|| stray_order(&delivery.subject, delivery.receipt.id.sequence));
        (order, Parsed { rules, reading })
    }

    fn decide(&self, delivery: &Delivery, Parsed { rules, reading }: Parsed) -> Decision {
        let mut remarks = Remarks { unhandled_fields: Vec::new(), subject_mismatch: reading.subject_mismatch };
        let verdict = match reading.found {
            Found::NotAllowed { table } => Verdict::Skip { table },
            Found::Poison { table, poison } => dead_letter(table, &poison),
            Found::Change { table, change, row, .. } => {
                let verdict = match rules.event(delivery, table, &change, &row) {
                    Ok(Some(event)) => Verdict::Publish(Arc::new(event)),
                    Ok(None) => {
                        let verdict = Verdict::Skip { table: Some(rules.name(table)) };
                        return Decision { verdict, remarks };
                    }
                    Err(poison) => dead_letter(Some(rules.name(table)), &poison),
                };
                remarks.unhandled_fields = row.unhandled;
                verdict
            }
        };
        Decision { verdict, remarks }
    }
}

/// The order key of a row; `None` if what it is made of is not there.
fn order_of(table: &dyn Table, values: Values<'_>, change: &Change) -> Option<OrderKey> {
    let database = change.database.within(values.payload);
    Some(match values.order()? {
        (None, key) => row_order(database, values.schema, table.name(), &key),
        (Some(name), value) => value_order(database, values.schema, table.name(), name, &value),
    })
}

fn dead_letter(table: Option<&'static str>, poison: &Poison) -> Verdict {
    Verdict::DeadLetter { table, reason: poison.reason(), detail: poison.to_string() }
}

/// Whether the row is one of those that are published, as far as its columns say.
fn is_meant(table: &dyn Table, change: &Change, values: Values<'_>) -> Result<bool, Poison> {
    if change.action == Action::Delete
        && let Some(so) = values.lack_of_columns()
    {
        return Err(Poison::ReplicaIdentity { table: table.name(), so });
    }
    if let Some(poison) = values.row.lacking.and_then(|column| table.lacking(column)) {
        return Err(poison);
    }
    // Before the filter: that a row is of another tenant than its schema is worth knowing even of one that is not published.
    values.check_tenant(table.name())?;
    match values.layout.filter.as_ref().map_or(Ok(true), |filter| filter.holds(values)) {
        Ok(holds) => Ok(holds),
        Err(slot) => {
            let (column, so) = (values.layout.slots[slot].clone(), "so nobody can tell whether the filter holds");
            Err(Poison::UnchangedToast { table: table.name(), column, so })
        }
    }
}

/// Appends the event id, as downstream knows the event.
fn push_event_id(out: &mut Vec<u8>, values: Values<'_>, change: &Change, key: &str) {
    for part in &values.layout.event_id {
        let text = match part {
            IdPart::Text(text) => text,
            IdPart::Lsn => {
                push_number(out, change.lsn.unwrap_or(0));
                continue;
            }
            IdPart::Idx => {
                push_number(out, change.idx.unwrap_or(0));
                continue;
            }
            IdPart::Schema => values.schema,
            IdPart::Action => change.action.name(),
            IdPart::Key => key,
            IdPart::Value(value) => values.get(*value).unwrap_or_default(),
        };
        out.extend_from_slice(text.as_bytes());
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
