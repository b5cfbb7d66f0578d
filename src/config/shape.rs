//! What a setting may be, as it is asked for; and the same as JSON Schema, for editors.

use serde_json::{Map, Value, json};

use super::tables::column_names;
use crate::domain::declaration::Redaction;
use crate::domain::declared::MAX_COLUMNS;
use crate::domain::subject::Action;

/// What a setting, or an entry of a declared table, may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds, both included.
    Integer(i128, i128),
    /// A duration: `30s`.
    Duration,
    /// A size: `64MiB`, or a number of bytes.
    Size,
    /// One of these names.
    Choice(Vec<&'static str>),
    /// A text.
    Text,
    /// Texts: a list, or one text with commas.
    Texts,
    /// Names of actions: a list, or one text with commas.
    Actions,
    /// Columns with their types.
    Columns,
    /// Routing values and where each comes from.
    Routing,
    /// Columns with a text each.
    Names,
    /// Columns with a redaction each.
    Redactions,
    /// A condition on rows.
    Condition,
}

impl Shape {
    /// The schema of such a value. It takes whatever the reader takes, which may still find something wrong with a text.
    pub(super) fn schema(&self) -> Value {
        let text = || json!({ "type": "string" });
        let texts = || json!({ "type": "array", "items": text() });
        let either = |items: Value, pattern: &str| json!({ "anyOf": [{ "type": "array", "items": items }, { "type": "string", "pattern": pattern }] });
        match self {
            Self::Flag => json!({ "enum": [true, false, "true", "false"] }),
            Self::Integer(least, most) => any_of([
                json!({ "type": "integer", "minimum": bound(*least), "maximum": bound(*most) }),
                json!({ "type": "string", "pattern": r"^\s*[+-]?[0-9]+\s*$" }),
            ]),
            Self::Duration => json!({ "type": "string", "pattern": r"^\s*[0-9][0-9a-zA-Zµ.\s]*$" }),
            Self::Size => any_of([
                json!({ "type": "string", "pattern": r"^\s*[0-9]+\s*([kKmMgGtT][iI]?)?[bB]?\s*$" }),
                json!({ "type": "integer", "minimum": 0 }),
            ]),
            Self::Choice(names) => json!({ "enum": names }),
            Self::Text => text(),
            Self::Texts => any_of([text(), texts()]),
            Self::Actions => {
                let names = Action::ALL.map(Action::name);
                let one = names.join("|");
                either(json!({ "enum": names }), &format!(r"^\s*({one})(\s*,\s*({one}))*\s*$"))
            }
            Self::Columns => json!({
                "type": "object", "minProperties": 1, "maxProperties": MAX_COLUMNS, "additionalProperties": column(),
            }),
            Self::Routing => {
                let sources = json!({ "type": "object", "minProperties": 1, "additionalProperties": source() });
                any_of([text(), texts(), sources])
            }
            Self::Names => json!({ "type": "object", "additionalProperties": text() }),
            Self::Redactions => {
                let names = Redaction::NAMES.map(|(name, _)| name);
                json!({ "type": "object", "additionalProperties": { "enum": names } })
            }
            Self::Condition => json!({ "$ref": "#/definitions/condition" }),
        }
    }
}

/// The schema of a condition, which may hold conditions.
pub(super) fn condition() -> Value {
    let inner = || Shape::Condition.schema();
    let several = || json!({ "type": "array", "minItems": 1, "items": inner() });
    let literal = || json!({ "type": ["string", "number", "boolean"] });
    let literals = json!({ "type": "array", "minItems": 1, "items": literal() });
    let of_column = |name: &str, value: Value| closed([("column", Shape::Text.schema()), (name, value)]);
    any_of([
        closed([("and", several())]),
        closed([("or", several())]),
        closed([("not", inner())]),
        of_column("equals", literal()),
        of_column("in", literals),
        of_column("is_null", Shape::Flag.schema()),
    ])
}

/// A column's type. The usual ones stand in a list, for editors to offer; the pattern lets white space be.
fn column() -> Value {
    let usual = column_names().flat_map(|name| [name.to_owned(), format!("{name} not null")]);
    let usual: Vec<_> = usual.chain(column_names().map(|name| format!("array of {name}"))).collect();
    let one = column_names().collect::<Vec<_>>().join("|");
    let pattern = format!(r"^\s*(array\s+of\s+)?({one})(\s+not\s+null)?\s*$");
    any_of([json!({ "enum": usual }), json!({ "type": "string", "pattern": pattern })])
}

/// Where a routing value comes from.
fn source() -> Value {
    let text = || Shape::Text.schema();
    any_of([
        text(),
        closed([("column", text())]),
        closed([("column", text()), ("pointer", text())]),
        closed([("schema", text())]),
        closed([("constant", text())]),
    ])
}

/// An object of exactly these members.
fn closed<const N: usize>(members: [(&str, Value); N]) -> Value {
    let names: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    let properties: Map<_, _> = members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
}

pub(super) fn any_of<const N: usize>(schemas: [Value; N]) -> Value {
    json!({ "anyOf": schemas.as_slice() })
}

/// A bound of a number, as far as JSON has it.
fn bound(number: i128) -> Value {
    i64::try_from(number).map_or(Value::Null, Value::from)
}
