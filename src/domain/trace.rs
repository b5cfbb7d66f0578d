//! A decision step by step, for people who ask why.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str;

use bytes::Bytes;
use cdc_actors::message::Headers;
use cdc_actors::ports::Transform;
use serde::Serialize;
use serde_json::value::RawValue;

use super::explain::{Explanation, delivery, explain, written};
use super::layout::Values;
use super::path::FieldPath;
use super::subject::SourceSubject;
use super::transform::CdcTransform;

mod place;
mod steps;

pub use place::Place;
pub use steps::{Field, Filtered, Routing, Tested};

/// What was found on the way to a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// What the subject says, if it is one of Sequin's forms.
    pub source: Option<Source>,
    /// The table, by the metadata; by the subject where they cannot be read.
    pub table: Option<String>,
    /// The fields of the row, in its order.
    pub fields: Vec<Field>,
    /// The values that identify and route.
    pub routing: Vec<Routing>,
    /// What the filter says, if there is one and the row could be read.
    pub filter: Option<Filtered>,
    /// Why the event is skipped, if it is.
    pub skipped: Option<String>,
    /// The order key: events that share it stay in order. 32 hex digits.
    pub order_key: String,
    /// What the order key is made of.
    pub order_by: String,
    /// Where the event is not as it should be, if it is a dead letter.
    pub place: Option<Place>,
}

/// What a subject says of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The database.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The action.
    pub action: &'static str,
}

/// Decides on one event and says how.
pub fn trace(
    transform: &CdcTransform,
    subject: &str,
    headers: Headers,
    payload: &Bytes,
    dead_letter_prefix: &str,
) -> (Explanation, Trace) {
    let explanation = explain(transform, subject, headers.clone(), payload.clone(), dead_letter_prefix);
    let delivery = delivery(subject, headers, payload.clone());
    let source = SourceSubject::parse(subject);
    let event = object(payload);
    let record = event.as_ref().and_then(|event| object(event.get("record")?.get().as_bytes()));
    let metadata = event.as_ref().and_then(|event| object(event.get("metadata")?.get().as_bytes()));
    let name = metadata.as_ref().and_then(|metadata| string(metadata, "table_name"));
    let name = name.or_else(|| source.map(|source| source.table.to_owned()));
    let schema = metadata.as_ref().and_then(|metadata| string(metadata, "table_schema")).unwrap_or_default();
    let found = name.as_deref().and_then(|name| transform.table(name));
    let table = found.as_ref().map(|(table, unhandled)| (&**table, *unhandled));
    let row = transform.row(&delivery);
    let values = table.zip(row.as_ref()).zip(str::from_utf8(payload).ok());
    let values = values.map(|(((table, _), (change, row)), text)| Values::new(table.layout(), change, row, text));
    let filter = values.and_then(steps::filtered);
    let skipped = (explanation.verdict == "skip").then(|| {
        let action = event.as_ref().and_then(|event| string(event, "action"));
        let named = name.as_deref().map(|name| (name, table.map(|(table, _)| table.layout())));
        steps::skipped(named, action.as_deref(), &schema, filter.as_ref())
    });
    let routing = table.zip(record.as_ref()).map(|((table, _), record)| steps::routing(table, record, &schema, values));
    let trace = Trace {
        source: source.map(|source| Source {
            database: source.database.to_owned(),
            schema: source.schema.to_owned(),
            table: source.table.to_owned(),
            action: source.action.name(),
        }),
        fields: record.map(|record| steps::fields(&record, table)).unwrap_or_default(),
        routing: routing.unwrap_or_default(),
        filter,
        skipped,
        order_key: written(transform.order(&delivery).0),
        order_by: steps::order(values),
        place: place::place(transform, &delivery, table.map(|(table, _)| table)),
        table: name,
    };
    (explanation, trace)
}

/// The routing value of this name, as the event's table takes it; the column of that name where its table is not known or
/// does not route by it. `None` if it is not there, or the event cannot be read that far.
pub fn routed(transform: &CdcTransform, subject: &str, payload: &[u8], name: &str) -> Option<String> {
    let event = object(payload)?;
    let record = object(event.get("record")?.get().as_bytes())?;
    let metadata = event.get("metadata").and_then(|metadata| object(metadata.get().as_bytes()));
    let said = |key: &str| metadata.as_ref().and_then(|metadata| string(metadata, key));
    let source = SourceSubject::parse(subject);
    let table = said("table_name").or_else(|| source.map(|source| source.table.to_owned()));
    let schema = said("table_schema").or_else(|| source.map(|source| source.schema.to_owned())).unwrap_or_default();
    let table = table.and_then(|table| transform.table(&table));
    let routing = table.map(|(table, _)| steps::routing(&*table, &record, &schema, None)).unwrap_or_default();
    match routing.into_iter().find(|routing| routing.name == name) {
        Some(routing) => routing.value,
        None => steps::sought(&record, &FieldPath::new(name, &[])),
    }
}

type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn object(json: &[u8]) -> Option<Object<'_>> {
    serde_json::from_slice(json).ok()
}

/// The text of a member.
fn string(object: &Object<'_>, name: &str) -> Option<String> {
    serde_json::from_str(object.get(name)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(payload: &str) -> Trace {
        explained(payload).1
    }

    fn explained(payload: &str) -> (Explanation, Trace) {
        let subject = "sequin.d.s.messages.insert";
        let transform = CdcTransform::new(crate::domain::TransformConfig::default());
        trace(&transform, subject, Headers::new(), &Bytes::copy_from_slice(payload.as_bytes()), "dl")
    }

    fn event(record: &str) -> String {
        let metadata =
            r#"{"table_schema":"s","table_name":"messages","commit_lsn":1,"commit_idx":0,"database_name":"d"}"#;
        format!("{{\"record\":{record},\n \"changes\":null,\"action\":\"insert\",\"metadata\":{metadata}}}")
    }

    #[test]
    fn steps_are_told() {
        let trace = traced(&event(
            r#"{"message_id":"m","chat_id":"c.1","agent_id":"a","company_id":"co","id":7,"is_deleted":true,"key":{},"message_obj":"unchanged_toast","status":null,"added":1.5}"#,
        ));
        assert_eq!(trace.source.map(|source| (source.database, source.action)), Some(("d".to_owned(), "insert")));
        assert_eq!((trace.table.as_deref(), trace.place, trace.order_key.len()), (Some("messages"), None, 32));
        let kinds: Vec<_> = trace.fields.iter().map(|field| format!("{} {}", field.name, field.kind)).collect();
        assert_eq!(kinds[..2], ["message_id string", "chat_id string"]);
        for kind in [
            "id integer",
            "is_deleted boolean",
            "key object",
            "message_obj unchanged_toast",
            "status null",
            "added number",
        ] {
            assert!(kinds.iter().any(|is| is == kind), "{kind} is not in {kinds:?}");
        }
        let chat = trace.routing.iter().find(|routing| routing.name == "chat_id").unwrap();
        assert_eq!((chat.value.as_deref(), chat.from.as_deref()), (Some("c.1"), Some("/record/chat_id")));
        assert_eq!((chat.source, trace.order_by.as_str()), ("column", "the row with the key \"m\""));
        let field = |name: &str| trace.fields.iter().find(|field| field.name == name).unwrap();
        assert_eq!((field("id").declared.as_deref(), field("id").fits), (Some("a string or a number"), Some(true)));
        assert_eq!((&field("added").declared, field("added").fits), (&None, None));
    }

    #[test]
    fn a_routing_value_is_found_also_in_what_cannot_be_published() {
        let transform = CdcTransform::new(crate::domain::TransformConfig::default());
        let company =
            |payload: &str| routed(&transform, "sequin.d.s.messages.insert", payload.as_bytes(), "company_id");
        let event = event(r#"{"message_id":"m","company_id":"co","is_deleted":"no"}"#);
        assert_eq!(company(&event).as_deref(), Some("co"));
        // A table that nobody knows is taken to have a column of that name.
        assert_eq!(company(&event.replace("messages", "invoices")).as_deref(), Some("co"));
        assert_eq!(company(&event.replace("\"co\"", "7")).as_deref(), Some("7"));
        assert_eq!(company(&event.replace("\"co\"", "null")), None);
        assert_eq!((company("{"), company("{\"record\":1}")), (None, None));
    }

    #[test]
    fn the_place_of_a_dead_letter_is_exact() {
        let place = |payload: &str| traced(payload).place.map(|p| (p.line, p.column, p.pointer, p.expected));
        let found = place(&event("{\"message_id\":\"m\",\n\"is_deleted\": \"no\"}"));
        assert_eq!(found, Some((2, 15, Some("/record/is_deleted".to_owned()), "a boolean".to_owned())));
        // What is absent should be in its object.
        let found = place(&event(r#"{"message_id":"m","agent_id":"a","company_id":"co"}"#));
        assert_eq!(found, Some((1, 11, Some("/record/chat_id".to_owned()), "a value that is not empty".to_owned())));
        let found = place("{\n  nothing").unwrap();
        assert_eq!((found.0, found.1, &found.2), (2, 3, &None));
        let told = explained("{\n  nothing").0.detail.unwrap();
        assert!(told.contains(&format!("expected {} at line 2, column 3", found.3)), "{told}: one place, told alike");
        let found = place(&event(r#"{"message_id":"m"}"#).replace("insert", "upsert"));
        assert_eq!(found.map(|found| (found.0, found.2)), Some((2, Some("/action".to_owned()))));
    }
}
