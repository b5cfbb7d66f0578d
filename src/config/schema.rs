//! The JSON Schema of config.yaml, for editors and for checks where the program is not at hand. It is made of what the
//! reader asks for, of the built-in defaults and of their comments, so that it says what the program does.

use std::collections::{BTreeMap, BTreeSet};

use config::ValueKind;
use serde_json::{Map, Value, json};

use super::Whereabouts;
use super::layers::{COLUMNS, DEFAULTS, Layers, Setting, TABLES};
use super::read;
use super::reader::{Asked, Reader};
use super::reload::TableNames;
use super::shape::{self, any_of};
use super::tables::ENTRIES;

/// The schema, draft 7: what editors know best. It takes whatever the program takes; what a text must be like, and what
/// settings together must be like, `check --offline` tells.
pub fn schema() -> Value {
    let mut problems = Vec::new();
    let layers = Layers::read(None, [], &mut problems);
    let mut names = TableNames::default();
    let mut reader = Reader::new(&layers, Whereabouts::There, &mut names, &mut problems);
    read::config(&mut reader);
    let mut top = Section::default();
    for (key, asked) in reader.asked() {
        if let Some(setting) = layers.defaults.get(key) {
            top.put(key, one(asked, setting));
        }
    }
    let typed = top.sections.remove(TABLES).unwrap_or_default();
    let mut whole = top.schema();
    whole["properties"][TABLES] = tables(typed, layers.declared.keys());
    whole["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    whole["title"] = json!("config.yaml of daisi-cdc-consumer");
    whole["definitions"] = json!({ "condition": shape::condition(), "table": declaration(), "new_table": new_table() });
    whole
}

/// Settings and sections by name.
#[derive(Default)]
struct Section {
    settings: BTreeMap<String, Value>,
    sections: BTreeMap<String, Section>,
}

impl Section {
    /// Puts a setting where its dotted key says.
    fn put(&mut self, key: &str, schema: Value) {
        match key.split_once('.') {
            Some((section, rest)) => self.sections.entry(section.to_owned()).or_default().put(rest, schema),
            None => drop(self.settings.insert(key.to_owned(), schema)),
        }
    }

    /// A section may be empty: every line of it may have been commented out.
    fn schema(self) -> Value {
        let sections = self.sections.into_iter().map(|(name, section)| (name, section.schema()));
        let properties: Map<_, _> = self.settings.into_iter().chain(sections).collect();
        json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
    }
}

/// The schema of a setting, with its default and the comment that stands beside it.
fn one(asked: &Asked, default: &Setting) -> Value {
    let shape = asked.shape.schema();
    let mut schema = match asked.optional {
        // An empty text is "not set".
        true => any_of([json!({ "type": "null" }), json!({ "const": "" }), shape]),
        false => shape,
    };
    if let Some(comment) = default.line.and_then(comment) {
        schema["description"] = json!(comment);
    }
    let default = match &default.value {
        ValueKind::Boolean(flag) => json!(flag),
        ValueKind::I64(number) => json!(number),
        ValueKind::String(text) => json!(text),
        _ => return schema,
    };
    schema["default"] = default;
    schema
}

/// The comment behind a setting in the built-in defaults.
fn comment(line: usize) -> Option<&'static str> {
    DEFAULTS.lines().nth(line.checked_sub(1)?)?.split_once(" # ").map(|(_, comment)| comment)
}

/// The tables: those with typed rows, which columns declare anew; those that come declared; and any other, declared in whole.
fn tables<'n>(typed: Section, declared: impl Iterator<Item = &'n String>) -> Value {
    let anew = || json!({ "type": "object", "required": [COLUMNS] });
    let new = || json!({ "$ref": "#/definitions/new_table" });
    let known = |changed: Value| json!({ "if": anew(), "then": new(), "else": changed });
    let typed = typed.sections.into_iter().map(|(name, section)| (name, known(section.schema())));
    let changed = || any_of([json!({ "type": "null" }), json!({ "$ref": "#/definitions/table" })]);
    let declared = declared.map(|name| (name.clone(), known(changed())));
    let properties: Map<_, _> = typed.chain(declared).collect();
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": new() })
}

/// The entries of a declared table, some of which may change what is declared already.
fn declaration() -> Value {
    let entry = |schema: Value, about: &str| {
        let mut schema = any_of([json!({ "type": "null" }), schema]);
        schema["description"] = json!(about);
        schema
    };
    let entries = ENTRIES.iter().map(|known| (known.name.to_owned(), entry((known.shape)().schema(), known.about)));
    let properties: Map<_, _> = entries.collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// A table that is declared in whole.
fn new_table() -> Value {
    let needed: BTreeSet<_> = ["key", "routing", "subject", COLUMNS].into();
    json!({ "allOf": [{ "$ref": "#/definitions/table" }], "required": needed })
}

#[cfg(test)]
mod tests;
