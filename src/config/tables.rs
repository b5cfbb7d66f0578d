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

type Read = fn(At<'_>, &mut Declaration, &mut Vec<Mistake>) -> Result<(), Mistake>;

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
        |at, it, _| at.texts().map(|read| it.key = read),
        "the column, or columns, that identify a row",
    ),
    entry(
        "primary_key",
        || Shape::Texts,
        |at, it, _| at.texts().map(|read| it.primary_key = read),
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
        |at, it, _| at.texts().map(|read| it.required = read),
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
    entry("actions", || Shape::Actions, |at, it, _| at.actions().map(|read| it.actions = read), "what is published"),
    entry(
        "order_by",
        || Shape::Text,
        |at, it, _| at.text().map(|read| it.order_by = read),
        "row, or a routing value whose events stay in order",
    ),
    entry(
        "rename",
        || Shape::Names,
        |at, it, noted| at.members(noted, String::new(), |at| at.text()).map(|read| it.rename = read),
        "columns that get another name in the enriched event",
    ),
    entry(
        "drop",
        || Shape::Texts,
        |at, it, _| at.texts().map(|read| it.drop = read),
        "columns that are left out of the enriched event",
    ),
    entry(
        "redact",
        || Shape::Redactions,
        |at, it, noted| {
            let redaction = |at: At<'_>| at.choice(&Redaction::NAMES);
            at.members(noted, Redaction::Mask, redaction).map(|read| it.redact = read)
        },
        "columns whose values do not go out: a hash or three stars stand in their place",
    ),
    entry(
        "filter",
        || Shape::Condition,
        |at, it, noted| at.condition(noted).map(|read| it.filter = Some(read)),
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
    let is_known = |at: &str, mistakes: &[Mistake]| mistakes.iter().any(|known| is_within(at, &known.at));
    let compiled = match ["routing", COLUMNS].iter().any(|at| is_known(at, &mistakes)) {
        // Without any values or columns nearly everything else would be wrong, too.
        true => Err(Vec::new()),
        false => declaration.compile(),
    };
    let table = match compiled {
        Ok(table) => Some(table).filter(|_| mistakes.is_empty()),
        Err(more) => {
            // What could not be read has something harmless in its place, of which nothing is to be said.
            let more: Vec<_> = more.into_iter().filter(|mistake| !is_known(&mistake.at, &mistakes)).collect();
            mistakes.extend(more);
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

/// Whether a place is another or within it.
fn is_within(place: &str, outer: &str) -> bool {
    place.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
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
    let mut mistakes = Vec::new();
    for (entry, setting) in entries {
        if let Some(mistake) = beyond_variables(entry, setting) {
            mistakes.push(mistake);
            continue;
        }
        let value = &setting.value;
        let at = At { place: entry, value };
        let read = match ENTRIES.iter().find(|known| known.name == entry) {
            Some(_) if *value == ValueKind::Nil => continue,
            Some(known) => (known.read)(at, &mut it, &mut mistakes),
            None => Err(Mistake {
                at: entry.clone(),
                value: "(not shown)".to_owned(),
                expected: format!("a known entry of a table: {}", ENTRIES.map(|known| known.name).join(", ")),
            }),
        };
        mistakes.extend(read.err());
    }
    (it, mistakes)
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
    Some(Mistake { at: entry.to_owned(), value: "(not shown)".to_owned(), expected })
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

    fn texts(self) -> Result<Vec<String>, Mistake> {
        let items = items_of(self.value).ok_or_else(|| self.wrong("a list of texts, or one text with commas"))?;
        Ok(items.into_iter().map(str::to_owned).collect())
    }

    fn choice<T: Copy>(self, all: &[(&'static str, T)]) -> Result<T, Mistake> {
        let found = text_of(self.value).and_then(|text| all.iter().find(|(name, _)| *name == text));
        let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, choice)| *choice).ok_or_else(|| self.wrong(format!("one of {}", names())))
    }

    fn actions(self) -> Result<Vec<Action>, Mistake> {
        let actions: Option<_> = self.texts()?.iter().map(|name| Action::parse(name)).collect();
        actions.ok_or_else(|| self.wrong(format!("a list of {}", Action::ALL.map(Action::name).join(", "))))
    }

    fn columns(self, mistakes: &mut Vec<Mistake>) -> Result<Vec<(String, ColumnDeclaration)>, Mistake> {
        let ValueKind::Table(_) = self.value else {
            return Err(self.wrong("names, each with its type: `id: bigint not null`"));
        };
        self.members(mistakes, ANY_COLUMN, |at| at.column())
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
        mistakes: &mut Vec<Mistake>,
        instead: T,
        read: impl Fn(At<'_>) -> Result<T, Mistake>,
    ) -> Result<Vec<(String, T)>, Mistake> {
        let ValueKind::Table(members) = self.value else {
            return Err(self.wrong("names, each with its value: `name: value`"));
        };
        let read = |(name, node): (&String, &Value)| {
            let place = format!("{}.{name}", self.place);
            let value = read(At { place: &place, value: &node.kind }).unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                instead.clone()
            });
            (name.clone(), value)
        };
        Ok(yaml::in_order(members).into_iter().map(read).collect())
    }

    /// Reads a list of columns that bear the values' names, or names with their sources.
    fn routing(self, mistakes: &mut Vec<Mistake>) -> Result<Vec<(String, Source)>, Mistake> {
        if let ValueKind::Table(_) = self.value {
            return self.members(mistakes, Source::Constant("-".to_owned()), |at| at.source());
        }
        let named = items_of(self.value)
            .ok_or_else(|| self.wrong("a list of columns, or names with the column each comes from"))?;
        Ok(named.into_iter().map(|name| (name.to_owned(), Source::Column(name.to_owned()))).collect())
    }

    fn source(self) -> Result<Source, Mistake> {
        if let Some(column) = text_of(self.value) {
            return Ok(Source::Column(column.to_owned()));
        }
        let text = |name: &str| self.member(name).and_then(text_of).map(str::to_owned);
        let read = match (self.names().as_deref(), text("column"), text("pointer")) {
            (Some(["column", "pointer"]), Some(column), Some(pointer)) => Some(Source::Pointer { column, pointer }),
            (Some(["column"]), Some(column), _) => Some(Source::Column(column)),
            (Some(["schema"]), ..) => text("schema").map(Source::Schema),
            (Some(["constant"]), ..) => text("constant").map(Source::Constant),
            _ => None,
        };
        read.ok_or_else(|| {
            self.wrong("a column, {column: …, pointer: /…}, {schema: …} or {constant: …}, each a text in quotes")
        })
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

    /// Reads a condition. What of a list could not be read is noted, and has a condition in its place that says nothing.
    fn condition(self, mistakes: &mut Vec<Mistake>) -> Result<Condition, Mistake> {
        let column = self.member("column").and_then(text_of).map(str::to_owned);
        let place = |name: &str| format!("{}.{name}", self.place);
        let value = |name: &str| self.member(name).unwrap_or(&ValueKind::Nil);
        Ok(match (self.names().as_deref(), column) {
            (Some(&[name @ ("and" | "or")]), _) => {
                let of = if name == "and" { Condition::And } else { Condition::Or };
                At { place: &place(name), value: value(name) }.conditions(mistakes).map(of)?
            }
            (Some(["not"]), _) => {
                let inner = At { place: &place("not"), value: value("not") }.condition(mistakes)?;
                Condition::Not(Box::new(inner))
            }
            (Some(["column", "equals"]), Some(column)) => {
                let literal = At { place: &place("equals"), value: value("equals") }.literal()?;
                Condition::In { column, values: vec![literal] }
            }
            (Some(["column", "in"]), Some(column)) => {
                let (place, value) = (place("in"), value("in"));
                let ValueKind::Array(items) = value else {
                    return Err(At { place: &place, value }.wrong("a list of values"));
                };
                let literals = items.iter().map(|item| At { place: &place, value: &item.kind }.literal());
                Condition::In { column, values: literals.collect::<Result<_, _>>()? }
            }
            (Some(["column", "is_null"]), Some(column)) => {
                let is_null = Condition::IsNull { column };
                let wanted = At { place: &place("is_null"), value: value("is_null") }.flag()?;
                if wanted { is_null } else { Condition::Not(Box::new(is_null)) }
            }
            _ => {
                return Err(self.wrong(
                    "{column: …, equals: …}, {column: …, in: […]}, {column: …, is_null: true}, {and: […]}, {or: […]} or {not: …}",
                ));
            }
        })
    }

    fn conditions(self, mistakes: &mut Vec<Mistake>) -> Result<Vec<Condition>, Mistake> {
        let ValueKind::Array(items) = self.value else { return Err(self.wrong("a list of conditions")) };
        let numbered = items.iter().enumerate();
        let read = numbered.map(|(number, item)| {
            let place = format!("{}.{number}", self.place);
            let condition = At { place: &place, value: &item.kind }.condition(mistakes);
            condition.unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                Condition::And(Vec::new())
            })
        });
        Ok(read.collect())
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
