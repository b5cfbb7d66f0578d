//! Declared tables: entries as found into declarations, and declarations into tables.

use config::{Value, ValueKind};

use super::layers::{COLUMNS, Entries, Origin, Setting, TABLES};
use super::reader::{Reader, items_of, text_of};
use super::shape::Shape;
use super::values::{Choice, UnhandledFields};
use super::yaml::{self, written};
use crate::domain::column::Kind;
use crate::domain::declaration::{ColumnDeclaration, Condition, Literal, Redaction, Source};
use crate::domain::subject::Action;
use crate::domain::{Declaration, DeclaredTable, Mistake};

/// An entry that a declaration may have.
pub(super) struct Entry {
    /// Its name.
    pub name: &'static str,
    /// What it says, in a line.
    pub about: &'static str,
    /// What it may be.
    pub shape: fn() -> Shape,
    /// Reads it into the declaration; mistakes within it are noted.
    read: Read,
}

type Read = fn(At<'_>, &mut Declaration, &mut Noted) -> Result<(), Mistake>;

/// What was found wrong while a declaration was read.
#[derive(Default)]
struct Noted {
    mistakes: Vec<Mistake>,
    /// The places that could not be read.
    unread: Vec<String>,
}

impl Noted {
    /// Notes a place that could not be read.
    fn unread(&mut self, mistake: Mistake) {
        self.unread.push(mistake.at.clone());
        self.mistakes.push(mistake);
    }

    /// Notes something that keeps nothing from being read.
    fn beyond(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Notes what could not be read of a place; `nothing` says that nothing else was there.
    fn beside(&mut self, mistakes: Vec<Mistake>, nothing: bool) {
        for mistake in mistakes {
            if nothing {
                self.unread.push(mistake.at.clone());
            }
            // What is named twice is wrong twice in the same way.
            if !self.mistakes.contains(&mistake) {
                self.mistakes.push(mistake);
            }
        }
    }
}

const fn entry(name: &'static str, shape: fn() -> Shape, read: Read, about: &'static str) -> Entry {
    Entry { name, about, shape, read }
}

/// Every entry that a declaration may have.
pub(super) const ENTRIES: [Entry; 17] = [
    entry("enabled", || Shape::Flag, |at, it, _| at.flag().map(|read| it.enabled = read), "false skips the table"),
    entry(
        "unhandled_fields",
        || Shape::Choice(UnhandledFields::ALL.iter().map(|(name, _)| *name).collect()),
        |at, it, _| at.choice(UnhandledFields::ALL).map(|read| it.unhandled_fields = read.into()),
        "columns that are not declared: keep, drop or reject the event",
    ),
    entry(
        "schema",
        || Shape::Text,
        |at, it, _| at.text().map(|read| it.schema = read),
        "the schemas it is published of: a name, with one * for any text",
    ),
    entry(
        "key",
        || Shape::Texts,
        |at, it, noted| at.texts(noted).map(|read| it.key = read),
        "the column, or columns, that identify a row",
    ),
    entry(
        "primary_key",
        || Shape::Texts,
        |at, it, noted| at.texts(noted).map(|read| it.primary_key = read),
        "the columns that a delete carries under the default replica identity, where they are not the key's",
    ),
    entry(
        COLUMNS,
        || Shape::Columns,
        |at, it, noted| at.columns(noted).map(|read| it.columns = read),
        "names with types, in the order of the database; they make the declaration",
    ),
    entry(
        "routing",
        || Shape::Routing,
        |at, it, noted| at.routing(noted).map(|read| it.routing = read),
        "the values that route, and where each comes from",
    ),
    entry(
        "required",
        || Shape::Texts,
        |at, it, noted| at.texts(noted).map(|read| it.required = read),
        "values that must be there beside those of subject, event id, order and tenant guard",
    ),
    entry(
        "subject",
        || Shape::Text,
        |at, it, _| at.text().map(|read| it.subject = read),
        "where its events go: {prefix}. and tokens, with values in braces",
    ),
    entry(
        "event_id",
        || Shape::Text,
        |at, it, _| at.text().map(|read| it.event_id = read),
        "how events are called: {commit_lsn}:{table}:{key} if nothing is said",
    ),
    entry(
        "actions",
        || Shape::Actions,
        |at, it, noted| at.actions(noted).map(|read| it.actions = read),
        "what is published",
    ),
    entry(
        "order_by",
        || Shape::Text,
        |at, it, _| at.text().map(|read| it.order_by = read),
        "row, or a routing value whose events stay in order",
    ),
    entry(
        "rename",
        || Shape::Names,
        |at, it, noted| at.members(noted, String::new(), |at, _| at.text()).map(|read| it.rename = read),
        "columns that get another name in the enriched event",
    ),
    entry(
        "drop",
        || Shape::Texts,
        |at, it, noted| at.texts(noted).map(|read| it.drop = read),
        "columns that are left out of the enriched event",
    ),
    entry(
        "redact",
        || Shape::Redactions,
        |at, it, noted| {
            let redaction = |at: At<'_>, _: &mut Noted| at.choice(&Redaction::NAMES);
            at.members(noted, Redaction::Mask, redaction).map(|read| it.redact = read)
        },
        "columns whose values do not go out: a hash or three stars stand in their place",
    ),
    entry(
        "filter",
        || Shape::Condition,
        |at, it, noted| {
            it.filter = Some(at.condition(noted));
            Ok(())
        },
        "which rows are published",
    ),
    entry(
        "tenant_guard",
        || Shape::Text,
        |at, it, _| at.text().map(|read| it.tenant_guard = Some(read)),
        "what the schema is called by a routing value: daisi_{company_id}",
    ),
];

/// The names of the types of columns.
pub(super) fn column_names() -> impl Iterator<Item = &'static str> {
    Kind::NAMES.into_iter().map(|(name, _)| name)
}

/// The tables that are declared, each of which can be used; what is wrong with the others has been noted.
pub(super) fn declared(r: &mut Reader<'_>) -> Vec<DeclaredTable> {
    let declared = r.declared().clone();
    declared.into_iter().filter_map(|(name, entries)| table(r, &name, &entries)).collect()
}

fn table(r: &mut Reader<'_>, name: &str, entries: &Entries) -> Option<DeclaredTable> {
    for entry in entries.keys() {
        r.note_seen(&format!("{TABLES}.{name}.{entry}"));
    }
    let (declaration, mut mistakes) = declaration(r.kept(name), entries);
    r.note_tenant(&declaration);
    let table = match declaration.compile() {
        Ok(table) => Some(table).filter(|_| mistakes.is_empty()),
        Err(more) => {
            // Where nothing declares a table, which has been told, nothing is missing of a declaration.
            let is_declared = entries.contains_key(COLUMNS);
            let is_given = |at: &str| entries.contains_key(at.split('.').next().unwrap_or(at));
            mistakes.extend(more.into_iter().filter(|mistake| is_declared || is_given(&mistake.at)));
            None
        }
    };
    for mistake in mistakes {
        let (line, origin) = place(entries, &mistake);
        // What is missing has no line of its own.
        let line = line.or_else(|| r.line_of(name).filter(|_| origin.is_none_or(|entry| entry.line.is_some())));
        r.note_mistake(&format!("{TABLES}.{name}"), mistake, line, origin);
    }
    table
}

/// The line of a mistake, and the entry that it is in.
fn place<'e>(entries: &'e Entries, mistake: &Mistake) -> (Option<usize>, Option<&'e Setting>) {
    // What a variable says of something below an entry stands beside that entry, under its own name.
    let split = || mistake.at.split_once('.').unwrap_or((&mistake.at, ""));
    let (entry, rest) = if entries.contains_key(&mistake.at) { (mistake.at.as_str(), "") } else { split() };
    let Some(setting) = entries.get(entry) else { return (None, entries.get(COLUMNS)) };
    let line = within(&setting.value, rest, &mistake.value).or(setting.line);
    (line, Some(setting))
}

/// The line of what stands at `path`; in a list of texts, that of the text that is wrong.
fn within(value: &ValueKind, path: &str, wrong: &str) -> Option<usize> {
    let (node, rest) = match value {
        ValueKind::Table(members) => {
            let behind = |name: &str| match path.strip_prefix(name)? {
                "" => Some(""),
                rest => rest.strip_prefix('.'),
            };
            members.iter().find_map(|(name, node)| Some((node, behind(name)?)))?
        }
        ValueKind::Array(items) => {
            let (number, rest) = path.split_once('.').unwrap_or((path, ""));
            match number.parse::<usize>() {
                Ok(number) => (items.get(number)?, rest),
                Err(_) => (items.iter().rfind(|item| written(&item.kind) == wrong)?, ""),
            }
        }
        _ => return None,
    };
    within(&node.kind, rest, wrong).or(yaml::line(node))
}

/// Reads every entry. One that cannot be read is a mistake, and left as it is when nothing is said.
fn declaration(name: &'static str, entries: &Entries) -> (Declaration, Vec<Mistake>) {
    let mut it = Declaration::new(name);
    let mut noted = Noted::default();
    for (entry, setting) in entries {
        if let Some(mistake) = beyond_variables(entry, setting) {
            // What a variable says of something below an entry leaves that as the file has it.
            let hides = if entry.contains('.') { Noted::beyond } else { Noted::unread };
            hides(&mut noted, mistake);
            continue;
        }
        let value = &setting.value;
        let at = At { place: entry, value };
        let read = match ENTRIES.iter().find(|known| known.name == entry) {
            Some(_) if *value == ValueKind::Nil => continue,
            Some(known) => (known.read)(at, &mut it, &mut noted),
            None => Err(at.wrong(format!("a known entry of a table: {}", ENTRIES.map(|known| known.name).join(", ")))),
        };
        if let Err(mistake) = read {
            noted.unread(mistake);
        }
    }
    it.unread = noted.unread;
    if !entries.contains_key(COLUMNS) {
        it.unread.push(COLUMNS.to_owned());
    }
    (it, noted.mistakes)
}

/// What is wrong with a variable for what none can say: an entry that holds names with values, or what is below an entry.
/// Variables know neither capital letters nor dots, and columns may have both.
fn beyond_variables(entry: &str, setting: &Setting) -> Option<Mistake> {
    let Origin::Environment(_) = setting.origin else { return None };
    let (outer, is_below) = entry.split_once('.').map_or((entry, false), |(outer, _)| (outer, true));
    let shape = (ENTRIES.iter().find(|known| known.name == outer)?.shape)();
    let expected = match (shape, is_below) {
        (Shape::Columns | Shape::Names | Shape::Redactions | Shape::Condition, _) | (Shape::Routing, true) => {
            format!("{outer} in a file: a variable cannot say what is below it")
        }
        (_, true) => format!("one value: there is nothing below {outer}"),
        (_, false) => return None,
    };
    Some(At { place: entry, value: &setting.value }.wrong(expected))
}

/// What a column is taken for whose type cannot be read.
const ANY_COLUMN: ColumnDeclaration = ColumnDeclaration { kind: Kind::Text, is_array: false, nullable: true };

/// A value and its place below the table.
#[derive(Clone, Copy)]
pub(super) struct At<'v> {
    place: &'v str,
    value: &'v ValueKind,
}

impl<'v> At<'v> {
    fn wrong(self, expected: impl Into<String>) -> Mistake {
        Mistake { at: self.place.to_owned(), value: written(self.value), expected: expected.into() }
    }

    fn flag(self) -> Result<bool, Mistake> {
        let read = match self.value {
            ValueKind::Boolean(flag) => Some(*flag),
            other => text_of(other).and_then(|text| text.parse().ok()),
        };
        read.ok_or_else(|| self.wrong("true or false"))
    }

    fn text(self) -> Result<String, Mistake> {
        text_of(self.value).map(str::to_owned).ok_or_else(|| self.wrong("a text; put it in quotes"))
    }

    /// Reads a list of texts, or one with commas. What of a list is no text is noted.
    fn texts(self, noted: &mut Noted) -> Result<Vec<String>, Mistake> {
        let ValueKind::Array(items) = self.value else {
            let items = items_of(self.value).ok_or_else(|| self.wrong("a list of texts, or one text with commas"))?;
            return Ok(items.into_iter().map(str::to_owned).collect());
        };
        let (mut texts, mut others) = (Vec::new(), Vec::new());
        for item in items {
            match text_of(&item.kind) {
                Some(text) => texts.push(text.to_owned()),
                None => others.push(At { value: &item.kind, ..self }.wrong("a text; put it in quotes")),
            }
        }
        noted.beside(others, texts.is_empty());
        Ok(texts)
    }

    fn choice<T: Copy>(self, all: &[(&'static str, T)]) -> Result<T, Mistake> {
        let found = text_of(self.value).and_then(|text| all.iter().find(|(name, _)| *name == text));
        let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, choice)| *choice).ok_or_else(|| self.wrong(format!("one of {}", names())))
    }

    fn actions(self, noted: &mut Noted) -> Result<Vec<Action>, Mistake> {
        let (mut actions, mut others) = (Vec::new(), Vec::new());
        for name in self.texts(noted)? {
            match Action::parse(&name) {
                Some(action) => actions.push(action),
                None => {
                    let expected = format!("a list of {}", Action::ALL.map(Action::name).join(", "));
                    others.push(Mistake { at: self.place.to_owned(), value: name, expected });
                }
            }
        }
        noted.beside(others, actions.is_empty());
        Ok(actions)
    }

    fn columns(self, noted: &mut Noted) -> Result<Vec<(String, ColumnDeclaration)>, Mistake> {
        let ValueKind::Table(_) = self.value else {
            return Err(self.wrong("names, each with its type: `id: bigint not null`"));
        };
        self.members(noted, ANY_COLUMN, |at, _| at.column())
    }

    fn column(self) -> Result<ColumnDeclaration, Mistake> {
        let names = || column_names().collect::<Vec<_>>().join(", ");
        text_of(self.value).and_then(ColumnDeclaration::parse).ok_or_else(|| {
            self.wrong(format!("a type: one of {}, or `array of` one of them, perhaps with `not null`", names()))
        })
    }

    /// Reads names with what belongs to each; what cannot be read is noted, and `instead` taken for it.
    fn members<T: Clone>(
        self,
        noted: &mut Noted,
        instead: T,
        read: impl Fn(At<'_>, &mut Noted) -> Result<T, Mistake>,
    ) -> Result<Vec<(String, T)>, Mistake> {
        let ValueKind::Table(members) = self.value else {
            return Err(self.wrong("names, each with its value: `name: value`"));
        };
        let read = |(name, node): (&String, &Value)| {
            let place = format!("{}.{name}", self.place);
            let value = read(At { place: &place, value: &node.kind }, noted).unwrap_or_else(|mistake| {
                noted.unread(mistake);
                instead.clone()
            });
            (name.clone(), value)
        };
        Ok(yaml::in_order(members).into_iter().map(read).collect())
    }

    /// Reads a list of columns that bear the values' names, or names with their sources.
    fn routing(self, noted: &mut Noted) -> Result<Vec<(String, Source)>, Mistake> {
        if let ValueKind::Table(_) = self.value {
            return self.members(noted, Source::Constant("-".to_owned()), |at, noted| at.source(noted));
        }
        if !matches!(self.value, ValueKind::Array(_) | ValueKind::String(_)) {
            return Err(self.wrong("a list of columns, or names with the column each comes from"));
        }
        Ok(self.texts(noted)?.into_iter().map(|name| (name.clone(), Source::Column(name))).collect())
    }

    fn source(self, noted: &mut Noted) -> Result<Source, Mistake> {
        if let Some(column) = text_of(self.value) {
            return Ok(Source::Column(column.to_owned()));
        }
        let text = |name: &str| self.member(name).and_then(text_of).map(str::to_owned);
        let wrong =
            || self.wrong("a column, {column: …, pointer: /…}, {schema: …} or {constant: …}, each a text in quotes");
        match (self.names().as_deref(), text("column"), text("pointer")) {
            (Some(["column", "pointer"]), Some(column), Some(pointer)) => Ok(Source::Pointer { column, pointer }),
            (Some(["column"]), Some(column), _) => Ok(Source::Column(column)),
            (Some(["schema"]), ..) => text("schema").map(Source::Schema).ok_or_else(wrong),
            (Some(["constant"]), ..) => text("constant").map(Source::Constant).ok_or_else(wrong),
            (_, Some(column), _) => {
                // Whatever else is meant, the column should be there.
                noted.unread(wrong());
                Ok(Source::Column(column))
            }
            _ => Err(wrong()),
        }
    }

    /// The names in a section, in alphabetical order.
    fn names(self) -> Option<Vec<&'v str>> {
        let ValueKind::Table(members) = self.value else { return None };
        let mut names: Vec<_> = members.keys().map(String::as_str).collect();
        names.sort_unstable();
        Some(names)
    }

    fn member(self, name: &str) -> Option<&'v ValueKind> {
        let ValueKind::Table(members) = self.value else { return None };
        members.get(name).map(|node| &node.kind)
    }

    /// Reads a condition. What cannot be read is noted.
    fn condition(self, noted: &mut Noted) -> Condition {
        let column = self.member("column").and_then(text_of).map(str::to_owned);
        let place = |name: &str| format!("{}.{name}", self.place);
        let value = |name: &str| self.member(name).unwrap_or(&ValueKind::Nil);
        match (self.names().as_deref(), column) {
            (Some(["and"]), _) => self.conditions("and", noted),
            (Some(["or"]), _) => self.conditions("or", noted),
            (Some(["not"]), _) => {
                Condition::Not(Box::new(At { place: &place("not"), value: value("not") }.condition(noted)))
            }
            (Some(["column", "equals"]), Some(column)) => {
                let values = At { place: &place("equals"), value: value("equals") }.literals(noted, false);
                Condition::In { column, values }
            }
            (Some(["column", "in"]), Some(column)) => {
                let values = At { place: &place("in"), value: value("in") }.literals(noted, true);
                Condition::In { column, values }
            }
            (Some(["column", "is_null"]), Some(column)) => {
                let is_null = Condition::IsNull { column };
                match (At { place: &place("is_null"), value: value("is_null") }).flag() {
                    Ok(true) => is_null,
                    Ok(false) => Condition::Not(Box::new(is_null)),
                    Err(mistake) => {
                        noted.unread(mistake);
                        is_null
                    }
                }
            }
            (_, column) => {
                noted.unread(self.wrong(
                    "{column: …, equals: …}, {column: …, in: […]}, {column: …, is_null: true}, {and: […]}, {or: […]} or {not: …}",
                ));
                self.parts(column, noted)
            }
        }
    }

    /// What there is of a condition that cannot be read: conditions within it, and the column.
    fn parts(self, column: Option<String>, noted: &mut Noted) -> Condition {
        let mut parts: Vec<_> = column.map(|column| Condition::IsNull { column }).into_iter().collect();
        for name in ["and", "or"] {
            if let Some(ValueKind::Array(_)) = self.member(name) {
                parts.push(self.conditions(name, noted));
            }
        }
        if let Some(value @ ValueKind::Table(_)) = self.member("not") {
            let place = format!("{}.not", self.place);
            parts.push(Condition::Not(Box::new(At { place: &place, value }.condition(noted))));
        }
        Condition::Unread(parts)
    }

    /// Reads the conditions under `and` or `or`.
    fn conditions(self, name: &str, noted: &mut Noted) -> Condition {
        let place = format!("{}.{name}", self.place);
        let value = self.member(name).unwrap_or(&ValueKind::Nil);
        let ValueKind::Array(items) = value else {
            noted.unread(At { place: &place, value }.wrong("a list of conditions"));
            return Condition::Unread(Vec::new());
        };
        let mut conditions = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let place = format!("{place}.{number}");
            conditions.push(At { place: &place, value: &item.kind }.condition(noted));
        }
        if name == "and" { Condition::And(conditions) } else { Condition::Or(conditions) }
    }

    /// Reads one value to compare with, or a list of them; those that cannot be are noted.
    fn literals(self, noted: &mut Noted, is_list: bool) -> Vec<Literal> {
        let mut literals = Vec::new();
        let mut take = |read: Result<Literal, Mistake>| match read {
            Ok(literal) => literals.push(literal),
            Err(mistake) => noted.unread(mistake),
        };
        match self.value {
            ValueKind::Array(items) if is_list => {
                items.iter().for_each(|item| take(At { value: &item.kind, ..self }.literal()));
            }
            _ if is_list => take(Err(self.wrong("a list of values"))),
            _ => take(self.literal()),
        }
        literals
    }

    /// A value to compare with.
    fn literal(self) -> Result<Literal, Mistake> {
        match self.value {
            ValueKind::Nil => Err(self.wrong("a value; null is {column: …, is_null: true}")),
            ValueKind::Array(_) | ValueKind::Table(_) => Err(self.wrong("a text, a number, true or false")),
            ValueKind::String(text) => Ok(Literal::Text(text.clone())),
            bare => Ok(Literal::Bare(written(bare))),
        }
    }
}
