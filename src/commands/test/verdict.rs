//! What is expected, held against what was decided.

use serde::Serialize;
use serde_json::{Value, json};

use super::cases::Expect;
use crate::commands::difference::{Difference, differences};
use crate::commands::exact::Exact;
use crate::domain::Explanation;

/// Something that is not as expected.
pub(super) struct Mismatch {
    /// The part of the decision.
    pub what: String,
    /// Expected first, found second.
    pub difference: Difference,
}

/// A mismatch as machines get it.
#[derive(Serialize)]
pub(super) struct Told<'a> {
    what: &'a str,
    pointer: &'a str,
    expected: &'a Option<Exact>,
    found: &'a Option<Exact>,
}

impl Mismatch {
    pub(super) fn told(&self) -> Told<'_> {
        let Difference { pointer, old, new } = &self.difference;
        Told { what: &self.what, pointer, expected: old, found: new }
    }
}

/// Everything that differs.
pub(super) fn mismatches(expect: &Expect, said: &Explanation) -> Vec<Mismatch> {
    let mut found = named(expect, said);
    for (name, value) in &expect.headers {
        let is = said.headers.as_ref().and_then(|headers| headers.get(name));
        found.extend(compared(format!("header {name}"), &json!(value).into(), &json!(is).into()));
    }
    let payload = said.payload.as_deref().unwrap_or_default();
    for (pointer, expected) in &expect.payload {
        let what = format!("payload {pointer}");
        // Of a name that comes twice the last value counts for most who read it.
        match pointer.values(payload).last().and_then(|value| Exact::parse(value)) {
            Some(is) => found.extend(compared(what, expected, &is)),
            None => found.push(differs(what, Some(expected.clone()), None)),
        }
    }
    for pointer in &expect.absent {
        let there = pointer.values(payload).into_iter().filter_map(Exact::parse);
        found.extend(there.map(|is| differs(format!("payload {pointer}"), None, Some(is))));
    }
    found
}

/// What differs of the parts that have a name.
fn named(expect: &Expect, said: &Explanation) -> Vec<Mismatch> {
    let parts = [
        ("verdict", Some(json!(expect.verdict.name())), json!(said.verdict)),
        ("reason", expect.reason.as_ref().map(|text| json!(text)), json!(said.reason)),
        ("detail", expect.detail.as_ref().map(|text| json!(text)), json!(said.detail)),
        ("subject", expect.subject.as_ref().map(|text| json!(text)), json!(said.subject)),
        ("event_id", expect.event_id.as_ref().map(|text| json!(text)), json!(said.event_id)),
        ("event_key", expect.event_key.as_ref().map(|text| json!(text)), json!(said.event_key)),
        ("unhandled_fields", expect.unhandled_fields.as_ref().map(|names| json!(names)), json!(said.unhandled_fields)),
    ];
    let compare = |(what, expected, is): (&str, Option<Value>, Value)| {
        expected.map(|expected| compared(what.to_owned(), &expected.into(), &is.into())).unwrap_or_default()
    };
    parts.into_iter().flat_map(compare).collect()
}

fn compared(what: String, expected: &Exact, is: &Exact) -> Vec<Mismatch> {
    let found = differences(expected, is).into_iter();
    found.map(|difference| Mismatch { what: what.clone(), difference }).collect()
}

fn differs(what: String, expected: Option<Exact>, is: Option<Exact>) -> Mismatch {
    Mismatch { what, difference: Difference { pointer: String::new(), old: expected, new: is } }
}
