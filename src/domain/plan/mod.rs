//! Makes a table of a declaration, or tells everything that is wrong with it.

use std::collections::{HashMap, HashSet};

use super::column::Kind;
use super::declaration::{Declaration, Source};
use super::declared::{Column, DeclaredTable, MAX_CAPTURES, MAX_COLUMNS, Plan, Slot};
use super::edits::Edits;
use super::filter::Filter;
use super::layout::{BeyondKey, Layout, Pattern, RoutingValue, ValueSource};
use super::names::Names;
use super::path::{FieldPath, way};
use super::template::{Piece, pieces};

mod conditions;
mod names;
mod templates;

/// The longest name that PostgreSQL has, in bytes.
pub(super) const LONGEST_NAME: usize = 63;

/// Something that is wrong with a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, below the table: `routing.company_id.column`; places in a list by number, from 0.
    pub at: String,
    /// What stands there.
    pub value: String,
    /// What is allowed.
    pub expected: String,
}

/// Values that stand in front of the others in the enriched event.
const FIRST: [&str; 4] = ["company_id", "agent_id", "chat_id", "message_id"];

impl Declaration {
    /// Makes a table of it.
    ///
    /// # Errors
    /// Everything that is wrong with it, beside what could not be read.
    pub fn compile(&self) -> Result<DeclaredTable, Vec<Mistake>> {
        let mut compiler = Compiler::new(self);
        let plan = compiler.plan();
        match compiler.mistakes {
            none if none.is_empty() && self.unread.is_empty() => Ok(DeclaredTable::new(plan)),
            mistakes => Err(mistakes),
        }
    }
}

/// What a declaration has become so far. What is wrong is noted, and something harmless put in its place.
struct Compiler<'d> {
    from: &'d Declaration,
    mistakes: Vec<Mistake>,
    columns: Vec<Column>,
    /// Their places by name.
    places: HashMap<&'d str, usize>,
    slots: Vec<Slot>,
    /// Where each slot is taken from.
    paths: Vec<FieldPath>,
    /// Names of values, in the order of the enriched event.
    values: Vec<&'d str>,
    captures: u8,
}

impl<'d> Compiler<'d> {
    fn new(from: &'d Declaration) -> Self {
        let later = from.routing.iter().map(|(name, _)| name.as_str()).filter(|name| !FIRST.contains(name));
        let first = FIRST.into_iter().filter(|name| from.routing.iter().any(|(given, _)| given == name));
        Self {
            from,
            mistakes: Vec::new(),
            columns: Vec::new(),
            places: HashMap::new(),
            slots: Vec::new(),
            paths: Vec::new(),
            values: first.chain(later).collect(),
            captures: 0,
        }
    }

    fn wrong(&mut self, at: impl Into<String>, value: impl Into<String>, expected: impl Into<String>) {
        let mistake = Mistake { at: at.into(), value: value.into(), expected: expected.into() };
        // What is named twice is wrong twice in the same way.
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    fn plan(&mut self) -> Plan {
        let from = self.from;
        self.names();
        self.read_columns();
        let values = self.routing();
        let key = self.key();
        let mut layout = Layout { key, values, schema: self.schema(), ..Layout::default() };
        self.templates(&mut layout);
        layout.guard = self.guard();
        layout.order = self.order();
        layout.required = self.required(&layout);
        layout.actions = from.actions.iter().copied().collect();
        self.no_twice("actions", from.actions.iter().map(|action| action.name()));
        if from.actions.is_empty() && !from.is_unread("actions") {
            self.wrong("actions", "", "at least one of insert, update, delete, read");
        }
        layout.filter = self.filter();
        layout.beyond_key = self.beyond_key(layout.filter.as_ref());
        layout.edits = self.edits(&layout);
        if usize::from(self.captures) > MAX_CAPTURES {
            self.wrong("columns", "", format!("at most {MAX_CAPTURES} columns that identify, route or filter"));
        }
        layout.slots = std::mem::take(&mut self.paths);
        let columns = std::mem::take(&mut self.columns);
        // Those that are too many are no part of a table.
        let names = Names::new(columns.iter().take(MAX_COLUMNS).map(|column| column.name.as_str()));
        let needed =
            columns.iter().enumerate().filter(|(_, column)| !column.nullable).map(|(place, _)| place).collect();
        Plan {
            name: from.name,
            enabled: from.enabled,
            unhandled: from.unhandled_fields,
            layout,
            names,
            needed,
            columns,
            slots: std::mem::take(&mut self.slots),
        }
    }

    fn read_columns(&mut self) {
        let from = self.from;
        let count = from.columns.len();
        if !(1..=MAX_COLUMNS).contains(&count) && !from.is_unread("columns") {
            self.wrong("columns", count.to_string(), format!("from 1 to {MAX_COLUMNS} columns"));
        }
        // Those that are too many are declared all the same.
        for (place, (name, column)) in from.columns.iter().enumerate() {
            self.places.entry(name.as_str()).or_insert(place);
            let own = from.key.contains(name) || from.primary_key.contains(name);
            self.columns.push(Column {
                name: name.clone(),
                kind: column.kind,
                is_array: column.is_array,
                nullable: column.nullable,
                as_text: from.key.contains(name) && column.kind == Kind::Timestamp,
                own,
                capture: None,
            });
        }
        for column in &from.primary_key {
            self.place("primary_key", column);
        }
        self.no_twice("primary_key", from.primary_key.iter().map(String::as_str));
    }

    /// The place of a column that is declared.
    fn place(&mut self, at: &str, name: &str) -> Option<usize> {
        let place = self.places.get(name).copied();
        if place.is_none() && !self.from.is_unread("columns") {
            self.wrong(at, name, "a column that is declared under columns");
        }
        place
    }

    /// The type of a column, and whether it is an array; `None` where it could not be read.
    fn type_of(&self, place: usize) -> Option<(Kind, bool)> {
        let column = &self.columns[place];
        let is_unread = self.from.is_unread(&format!("columns.{}", column.name));
        (!is_unread).then_some((column.kind, column.is_array))
    }

    /// The place of a routing value.
    fn value(&self, name: &str) -> Option<usize> {
        self.values.iter().position(|known| *known == name)
    }

    /// The place of a routing value; where these could not be read, any name may be one.
    fn probable_value(&self, name: &str) -> Option<usize> {
        self.value(name).or_else(|| self.from.is_unread("routing").then_some(0))
    }

    /// The slot of a column, or of a place within it.
    fn slot(&mut self, place: usize, pointer: Vec<String>) -> usize {
        let capture = match self.columns[place].capture {
            Some(capture) => capture,
            None => {
                let capture = self.captures;
                self.captures = self.captures.saturating_add(1);
                self.columns[place].capture = Some(capture);
                capture
            }
        };
        let slot = Slot { capture, column: u16::try_from(place).unwrap_or_default(), pointer };
        if let Some(known) = self.slots.iter().position(|known| *known == slot) {
            return known;
        }
        self.paths.push(FieldPath::new(&self.columns[place].name, &slot.pointer));
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn routing(&mut self) -> Vec<RoutingValue> {
        let from = self.from;
        if from.routing.is_empty() && !from.is_unread("routing") {
            self.wrong("routing", "", "at least one value, which the subject names behind {prefix}");
        }
        let given = |name: &str| from.routing.iter().find(|(given, _)| given == name).map(|(_, source)| source);
        let names = self.values.clone();
        let sources = names.into_iter().filter_map(|name| Some((name, given(name)?)));
        sources
            .map(|(name, source)| RoutingValue { name: name.to_owned(), source: self.source(name, source) })
            .collect()
    }

    fn source(&mut self, name: &str, source: &Source) -> ValueSource {
        let at = format!("routing.{name}");
        let unknown = ValueSource::Constant(String::new());
        match source {
            Source::Column(column) => {
                let Some(place) = self.place(&at, column) else { return unknown };
                let is_one_value = self.type_of(place).is_none_or(|(kind, is_array)| !is_array && kind != Kind::Json);
                if !is_one_value && !self.from.is_unread(&at) {
                    self.wrong(&at, column, "a column that is neither json (unless with a pointer) nor an array");
                }
                ValueSource::Slot(self.slot(place, Vec::new()))
            }
            Source::Pointer { column, pointer } => {
                let way = way(pointer);
                if way.is_none() {
                    self.wrong(format!("{at}.pointer"), pointer, "a JSON pointer such as /remoteJid or /a/0");
                }
                let Some(place) = self.place(&format!("{at}.column"), column) else { return unknown };
                if self.type_of(place).is_some_and(|(kind, is_array)| is_array || kind != Kind::Json) {
                    self.wrong(format!("{at}.column"), column, "a json column, since a pointer is given");
                }
                ValueSource::Slot(self.slot(place, way.unwrap_or_default()))
            }
            Source::Schema(template) => match around(template, name) {
                Some(pattern) => {
                    self.meets_schema(format!("{at}.schema"), template, &pattern);
                    ValueSource::Schema(pattern)
                }
                None => {
                    let expected =
                        format!("a schema's name without *, with {{{name}}} in it once, such as daisi_{{{name}}}");
                    self.wrong(format!("{at}.schema"), template, expected);
                    unknown
                }
            },
            Source::Constant(text) => {
                if text.is_empty() {
                    self.wrong(format!("{at}.constant"), text, "a text that is not empty");
                }
                ValueSource::Constant(text.clone())
            }
        }
    }

    fn key(&mut self) -> Vec<usize> {
        let from = self.from;
        if from.key.is_empty() && !from.is_unread("key") {
            self.wrong("key", "", "at least one column");
        }
        self.no_twice("key", from.key.iter().map(String::as_str));
        let mut key = Vec::new();
        for name in &from.key {
            let Some(place) = self.place("key", name) else { continue };
            let in_many_ways = |(kind, is_array)| is_array || matches!(kind, Kind::Json | Kind::Numeric | Kind::Scalar);
            if self.type_of(place).is_some_and(in_many_ways) {
                let one_way = "a column whose values are written in one way: string, integer, bigint, boolean, date, timestamp or uuid";
                self.wrong("key", name, one_way);
            }
            key.push(self.slot(place, Vec::new()));
        }
        key
    }

    fn schema(&mut self) -> Pattern {
        let text = self.from.schema.as_str();
        let pattern = schemas(text);
        if text.is_empty() || text.len() > LONGEST_NAME || text.matches('*').count() > 1 {
            self.wrong("schema", text, "a schema's name, with one * for any text, such as daisi_* or *");
        }
        pattern
    }

    /// A pattern that fits none of the schemas would leave nothing that is published.
    fn meets_schema(&mut self, at: String, text: &str, pattern: &Pattern) {
        let from = self.from;
        let is_sound = !from.is_unread("schema") && !from.schema.is_empty() && from.schema.matches('*').count() < 2;
        if is_sound && !schemas(&from.schema).meets(pattern) {
            self.wrong(at, text, format!("a name that schemas which fit {} can have", from.schema));
        }
    }

    fn guard(&mut self) -> Option<(usize, Pattern)> {
        let text = self.from.tenant_guard.as_deref()?;
        let value = pieces(text).into_iter().flatten().find_map(|piece| match piece {
            Piece::Name(name) => Some(name),
            Piece::Text(_) => None,
        });
        let place = value.as_deref().and_then(|name| self.probable_value(name));
        let pattern = value.as_deref().and_then(|name| around(text, name));
        let (Some(place), Some(pattern)) = (place, pattern) else {
            self.wrong(
                "tenant_guard",
                text,
                format!("a schema's name without *, with one value in braces, of {}", self.named_values()),
            );
            return None;
        };
        let is_it = |name: &str| value.as_deref() == Some(name);
        if self.from.routing.iter().any(|(name, source)| is_it(name) && matches!(source, Source::Schema(_))) {
            self.wrong("tenant_guard", text, "a value that does not come from the schema itself");
        }
        self.meets_schema("tenant_guard".to_owned(), text, &pattern);
        Some((place, pattern))
    }

    fn order(&mut self) -> Option<usize> {
        let by = self.from.order_by.as_str();
        if by == Declaration::BY_ROW {
            return None;
        }
        let place = self.probable_value(by);
        if place.is_none() {
            self.wrong("order_by", by, format!("{} or one of {}", Declaration::BY_ROW, self.named_values()));
        }
        place
    }

    /// The values that must be there: those of the subject first, in its order.
    fn required(&mut self, layout: &Layout) -> Vec<usize> {
        let mut required: Vec<usize> = Vec::new();
        for name in &self.from.required {
            match self.probable_value(name) {
                Some(place) => required.push(place),
                None => self.wrong("required", name, format!("one of {}", self.named_values())),
            }
        }
        self.no_twice("required", self.from.required.iter().map(String::as_str));
        let guard = layout.guard.iter().map(|(place, _)| *place);
        let all =
            layout.values_of_subject().chain(layout.order).chain(guard).chain(layout.values_of_id()).chain(required);
        let mut seen = HashSet::new();
        all.filter(|place| seen.insert(*place)).collect()
    }

    /// What there is beside the columns that a delete carries under the default replica identity.
    fn beyond_key(&self, filter: Option<&Filter>) -> BeyondKey {
        let is_own = |slot: usize| self.columns[usize::from(self.slots[slot].column)].own;
        let by = filter.map(Filter::leaves).unwrap_or_default();
        let by_others = by.into_iter().any(|leaf| match leaf {
            Filter::In { slot, .. } | Filter::IsNull(slot) => !is_own(*slot),
            Filter::And(_) | Filter::Or(_) | Filter::Not(_) => false,
        });
        match self.columns.iter().all(|column| column.own) {
            true => BeyondKey::Nothing,
            false if by_others => BeyondKey::Filtered,
            false => BeyondKey::Columns,
        }
    }

    fn edits(&mut self, layout: &Layout) -> Option<Edits> {
        let from = self.from;
        let mut edits = Edits::default();
        self.no_twice("drop", from.drop.iter().map(String::as_str));
        for column in &from.drop {
            self.place("drop", column);
            edits.drop(column);
        }
        for (column, name) in &from.rename {
            self.rename(column, name);
            edits.rename(column, name);
        }
        let shown = |column: &str| {
            layout.shown_slots().any(|slot| self.columns[usize::from(self.slots[slot].column)].name == column)
        };
        let shown: Vec<bool> = from.redact.iter().map(|(column, _)| shown(column)).collect();
        for ((column, redaction), is_shown) in from.redact.iter().zip(shown) {
            let at = format!("redact.{column}");
            self.place(&at, column);
            if from.drop.contains(column) {
                self.wrong(&at, column, "a column that is not dropped as well");
            }
            if is_shown {
                self.wrong(
                    &at,
                    column,
                    "a column that is neither key nor routing value: these stand in subject, event id and ids",
                );
            }
            edits.redact(column, *redaction);
        }
        (!edits.is_empty()).then_some(edits)
    }

    fn rename(&mut self, column: &str, name: &str) {
        let from = self.from;
        let at = format!("rename.{column}");
        self.place(&at, column);
        if from.drop.iter().any(|dropped| dropped == column) {
            self.wrong(&at, name, "no new name, since the column is dropped");
        }
        let gone = |known: &str| {
            from.drop.iter().any(|dropped| dropped == known) || from.rename.iter().any(|(renamed, _)| renamed == known)
        };
        let is_taken =
            self.columns.iter().any(|known| known.name == name && (known.name == column || !gone(&known.name)));
        let twice = from.rename.iter().filter(|(_, other)| other == name).count() > 1;
        let is_wrong = name.is_empty() || name.len() > LONGEST_NAME || is_taken || twice;
        if is_wrong && !from.is_unread(&at) {
            self.wrong(&at, name, format!("a name of 1 to {LONGEST_NAME} bytes that no other column goes out under"));
        }
    }

    fn no_twice<'t>(&mut self, at: &str, names: impl Iterator<Item = &'t str>) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name) {
                self.wrong(at, name, "each entry once");
            }
        }
    }

    /// The names of the routing values, for messages.
    fn named_values(&self) -> String {
        match self.values[..] {
            [] => "the values of routing, which has none".to_owned(),
            _ => self.values.join(", "),
        }
    }

    /// These names and those of the routing values, likewise.
    fn named(&self, names: &[&str]) -> String {
        [names, &self.values].concat().join(", ")
    }
}

/// The schemas of a table.
fn schemas(text: &str) -> Pattern {
    match text.split_once('*') {
        Some((before, after)) => Pattern::around(before, after),
        None => Pattern::exactly(text),
    }
}

/// The pattern that a template with one name, `name`, describes. A star in it would be a letter like any other, and no schema has
/// it in its name.
fn around(template: &str, name: &str) -> Option<Pattern> {
    if template.contains('*') {
        return None;
    }
    let is_name = |piece: &Piece| matches!(piece, Piece::Name(found) if found == name);
    match &pieces(template)?[..] {
        [one] if is_name(one) => Some(Pattern::around("", "")),
        [Piece::Text(before), one] if is_name(one) => Some(Pattern::around(before, "")),
        [one, Piece::Text(after)] if is_name(one) => Some(Pattern::around("", after)),
        [Piece::Text(before), one, Piece::Text(after)] if is_name(one) => Some(Pattern::around(before, after)),
        _ => None,
    }
}
