//! Where in the payload a dead letter is not as it should be.

use std::str;

use cdc_actors::message::Delivery;
use serde::Serialize;

use crate::domain::error::{Part, Poison};
use crate::domain::json::{element, members, text, type_of};
use crate::domain::path::{Origin, escaped, steps};
use crate::domain::scan::{Scanner, line_and_column, offset};
use crate::domain::table::Table;
use crate::domain::transform::CdcTransform;

/// A place in the payload. Line and column count within the event, wherever it stands in what it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column, in bytes from 1.
    pub column: usize,
    /// The JSON pointer; `None` where the payload is no JSON. Line and column are those of the last value on its way that is
    /// there.
    pub pointer: Option<String>,
    /// What should be there.
    pub expected: String,
}

/// Where a dead letter is not as it should be; `table` is that of its metadata.
pub(super) fn place(transform: &CdcTransform, delivery: &Delivery, table: Option<&dyn Table>) -> Option<Place> {
    let poison = transform.poison(delivery)?;
    let payload = match str::from_utf8(&delivery.payload) {
        Ok(payload) => payload,
        Err(error) => {
            let (line, column) = line_and_column(&delivery.payload[..error.valid_up_to()]);
            return Some(Place { line, column, pointer: None, expected: "UTF-8".to_owned() });
        }
    };
    if let Poison::NotJson { expected, line, column } = poison {
        return Some(Place { line, column, pointer: None, expected: expected.to_owned() });
    }
    let (pointer, expected) = expectation(&poison);
    let way: Vec<_> = steps(&pointer).collect();
    let found = found(payload, &way);
    let value = match poison {
        Poison::Twice { .. } => second(payload, &way),
        _ => found.iter().copied().find(|value| is_wrong(&poison, value, table)),
    };
    let value = value.or(found.first().copied()).unwrap_or(payload);
    let (line, column) = line_and_column(&payload.as_bytes()[..offset(payload, value.trim_ascii_start())]);
    Some(Place { line, column, pointer: Some(pointer), expected })
}

/// Which value a poison is about, as a JSON pointer, and what should be there.
fn expectation(poison: &Poison) -> (String, String) {
    let schema = || "/metadata/table_schema".to_owned();
    let origin = |origin: &Origin, expected: &str| match origin {
        Origin::Row(path) => (format!("/record{}", path.pointer()), expected.to_owned()),
        Origin::Schema(_) => (schema(), expected.to_owned()),
        Origin::Constant(name) => (String::new(), format!("{expected} as the constant {name} of the configuration")),
    };
    match poison {
        Poison::NotUtf8(_) | Poison::NotJson { .. } => (String::new(), "JSON".to_owned()),
        Poison::NotObject { part } => (pointer(*part).to_owned(), "an object".to_owned()),
        Poison::Absent { part, field } => (format!("{}/{}", pointer(*part), escaped(field)), "a value".to_owned()),
        Poison::Twice { part, field } => {
            (format!("{}{}", pointer(*part), field.pointer()), "the field once".to_owned())
        }
        Poison::NameTaken { part, field } => {
            let expected = "no such field, since a column goes out under its name".to_owned();
            (format!("{}{}", pointer(*part), field.pointer()), expected)
        }
        Poison::WrongType { part, field, expected, .. } => {
            (format!("{}{}", pointer(*part), field.pointer()), (*expected).to_owned())
        }
        Poison::Undecodable { part, field, .. } => {
            (format!("{}{}", pointer(*part), field.pointer()), "a string of Unicode characters".to_owned())
        }
        Poison::UnknownAction => ("/action".to_owned(), "insert, update, delete or read".to_owned()),
        Poison::CommitTime { .. } => {
            ("/metadata/commit_timestamp".to_owned(), "an ISO 8601 time with a zone, or microseconds".to_owned())
        }
        Poison::MissingKey { column, .. } => {
            (format!("/record{}", column.pointer()), "a value that is not empty".to_owned())
        }
        Poison::MissingRouting { value, .. } => origin(value, "a value that is not empty"),
        Poison::NotInSchema { .. } => (schema(), "a schema that fits the pattern".to_owned()),
        Poison::TenantMismatch { value, .. } => (schema(), format!("the schema of the row's own {value}")),
        Poison::ReplicaIdentity { .. } => ("/record".to_owned(), "every column: REPLICA IDENTITY FULL".to_owned()),
        Poison::UnchangedToast { column, .. } => {
            (format!("/record{}", column.pointer()), "the value: REPLICA IDENTITY FULL".to_owned())
        }
        Poison::RejectedField { field, .. } => (format!("/record/{}", escaped(field)), "no such field".to_owned()),
        Poison::IllegalToken { value, .. } => origin(value, "a legal subject token"),
        Poison::SubjectTooLong { limit, longest, .. } => {
            let expected = format!("a shorter value, so that the subject has {limit} bytes at most");
            longest.as_ref().map_or(("/record".to_owned(), expected.clone()), |longest| origin(longest, &expected))
        }
    }
}

const fn pointer(part: Part) -> &'static str {
    match part {
        Part::Envelope => "",
        Part::Record => "/record",
        Part::Changes => "/changes",
        Part::Metadata => "/metadata",
        Part::Database => "/metadata/database",
    }
}

/// Whether this value, of several under one name, is the one that a poison is about.
fn is_wrong(poison: &Poison, value: &str, table: Option<&dyn Table>) -> bool {
    match poison {
        Poison::NotObject { .. } => !value.starts_with('{') && value != "null",
        Poison::Undecodable { .. } => text(value).is_err(),
        Poison::WrongType { field, found, .. } => {
            let fits = || table.and_then(|table| table.fit(field.field(), value)).is_some_and(|(_, fits)| fits);
            type_of(value) == *found && !(field.is_whole() && fits())
        }
        _ => true,
    }
}

/// The values that are there under a name or number, in their order: several where the name comes twice.
pub(super) fn below<'a>(value: &'a str, step: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(value);
    // The payload is JSON, and a value that is neither object nor array holds nothing.
    let read = match scanner.peek() {
        Some(b'[') => element(value, step).map(|element| found.extend(element)),
        _ => members(Part::Envelope, &mut scanner, |scanner, name| {
            let value = scanner.value()?;
            if name == step {
                found.push(value);
            }
            Ok(Ok(()))
        })
        .map(drop),
    };
    read.map_or_else(|_| Vec::new(), |()| found)
}

/// The values at the end of a way; where there are none, those that lack the next step.
fn found<'a>(payload: &'a str, way: &[String]) -> Vec<&'a str> {
    let mut values = vec![payload];
    for step in way {
        let next: Vec<_> = values.iter().flat_map(|value| below(value, step)).collect();
        if next.is_empty() {
            break;
        }
        values = next;
    }
    values
}

/// The second of two values under one name in one object.
fn second<'a>(payload: &'a str, way: &[String]) -> Option<&'a str> {
    let (name, around) = way.split_last()?;
    found(payload, around).into_iter().find_map(|object| below(object, name).get(1).copied())
}
