//! What a table makes of a row, step by step: fields, values that route, filter, changes, order.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Object;
use super::place::below;
use crate::domain::filter::Filter;
use crate::domain::json::text;
use crate::domain::layout::{Layout, ValueSource, Values};
use crate::domain::path::FieldPath;
use crate::domain::settings::UnhandledFields;
use crate::domain::table::Table;

/// A field of the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The type of its value.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it should be; `None` for a field that the table does not know.
    pub declared: Option<String>,
    /// Whether its value is so.
    pub fits: Option<bool>,
    /// What becomes of it in the enriched event, if it does not stay as it is.
    pub edit: Option<String>,
}

/// A value that identifies or routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Routing {
    /// Its name in the enriched event.
    pub name: String,
    /// The value, if it is there.
    pub value: Option<String>,
    /// What it is taken from: `column`, `pointer`, `schema` or `constant`.
    pub source: &'static str,
    /// Where that is: a JSON pointer; `None` for a constant.
    pub from: Option<String>,
    /// The pattern by which it is taken from the schema's name.
    pub pattern: Option<String>,
}

/// A condition on rows, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// The condition.
    pub condition: String,
    /// Whether it holds; `None` where a column decides that was not sent.
    pub holds: Option<bool>,
}

/// What the filter says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filtered {
    /// The filter as a whole.
    #[serde(flatten)]
    pub whole: Tested,
    /// The conditions on single columns that it is made of.
    pub parts: Vec<Tested>,
}

/// The fields in the order they came in.
pub(super) fn fields(record: &Object<'_>, table: Option<(&dyn Table, UnhandledFields)>) -> Vec<Field> {
    let mut fields: Vec<_> = record.iter().collect();
    fields.sort_by_key(|(_, value)| value.get().as_ptr());
    let field = |(name, value): (&Cow<'_, str>, &&RawValue)| {
        let fit = table.and_then(|(table, _)| table.fit(name, value.get()));
        let (declared, fits) = fit.map_or((None, None), |(declared, fits)| (Some(declared.into_owned()), Some(fits)));
        let edit = table.and_then(|(table, unhandled)| edit(table, unhandled, name));
        Field { name: name.to_string(), kind: kind(value.get()), declared, fits, edit }
    };
    fields.into_iter().map(field).collect()
}

fn edit(table: &dyn Table, unhandled: UnhandledFields, column: &str) -> Option<String> {
    if unhandled == UnhandledFields::Drop && !table.knows(column) {
        return Some("dropped, since it is not declared".to_owned());
    }
    table.layout().edits.as_ref()?.told(column)
}

fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "boolean",
        Some(b'"') if json == "\"unchanged_toast\"" => "unchanged_toast",
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        _ if json.contains(['.', 'e', 'E']) => "number",
        _ => "integer",
    }
}

/// The values that identify and route. Those of a row that could not be read are looked for all the same.
pub(super) fn routing(
    table: &dyn Table,
    record: &Object<'_>,
    schema: &str,
    values: Option<Values<'_>>,
) -> Vec<Routing> {
    let layout = table.layout();
    let places = layout.values.iter().enumerate();
    let told = places.map(|(place, value)| {
        let name = value.name.clone();
        let read = values.map(|values| values.get(place).map(str::to_owned));
        match &value.source {
            ValueSource::Slot(slot) => {
                let path = &layout.slots[*slot];
                let value = read.unwrap_or_else(|| sought(record, path));
                let source = if path.is_whole() { "column" } else { "pointer" };
                let from = format!("/record{}", path.pointer());
                Routing { name, value, source, from: Some(from), pattern: None }
            }
            ValueSource::Schema(pattern) => {
                let value = pattern.star(schema).filter(|star| !star.is_empty()).map(str::to_owned);
                let (from, pattern) =
                    (Some("/metadata/table_schema".to_owned()), Some(pattern.written(&value_mark(&name))));
                Routing { name, value, source: "schema", from, pattern }
            }
            ValueSource::Constant(text) => {
                Routing { name, value: Some(text.clone()), source: "constant", from: None, pattern: None }
            }
        }
    });
    told.collect()
}

fn value_mark(name: &str) -> String {
    format!("{{{name}}}")
}

/// What stands at a place, where it could be a value that routes.
pub(super) fn sought(record: &Object<'_>, path: &FieldPath) -> Option<String> {
    let column = record.get(path.field())?.get();
    let raw = path.steps().try_fold(column, |raw, step| below(raw, &step).first().copied())?;
    let shown = match raw {
        "null" | "\"unchanged_toast\"" => None,
        string if string.starts_with('"') => text(string).ok().flatten().map(Cow::into_owned),
        other => Some(other.to_owned()),
    };
    shown.filter(|text| !text.is_empty())
}

/// What the filter says of a row.
pub(super) fn filtered(values: Values<'_>) -> Option<Filtered> {
    let (filter, slots) = (values.layout.filter.as_ref()?, &values.layout.slots);
    let tested = |filter: &Filter| Tested { condition: filter.told(slots), holds: filter.holds(values).ok() };
    Some(Filtered { whole: tested(filter), parts: filter.leaves().into_iter().map(tested).collect() })
}

/// What order is kept by.
pub(super) fn order(values: Option<Values<'_>>) -> String {
    match values.and_then(|values| values.order()) {
        Some((None, key)) => format!("the row with the key {key:?}"),
        Some((Some(name), value)) => format!("{name} = {value:?}"),
        None => "nothing but the delivery: the row cannot be read, or lacks what order is kept by".to_owned(),
    }
}

/// Why an event is skipped.
pub(super) fn skipped(
    table: Option<(&str, Option<&Layout>)>,
    action: Option<&str>,
    schema: &str,
    filtered: Option<&Filtered>,
) -> String {
    let Some((name, layout)) = table else { return "its table is not enabled".to_owned() };
    let Some(layout) = layout else { return format!("table {name} is not enabled") };
    let is_published = |action: &str| layout.action_names().any(|known| known == action);
    match action {
        Some(action) if !is_published(action) => {
            format!("{action} is none of the actions that are published of {name}")
        }
        _ if !layout.schema.fits(schema) => format!("schema {schema} does not fit {}", layout.schema.written("*")),
        _ if filtered.is_some_and(|filtered| filtered.whole.holds == Some(false)) => {
            "the filter does not hold".to_owned()
        }
        _ => "the table that its subject names is not enabled".to_owned(),
    }
}
