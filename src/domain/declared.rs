//! A declared table as it runs: the plan that a declaration was compiled into.

use std::borrow::Cow;
use std::sync::Arc;

use super::column::{Kind, is_unchanged};
use super::error::{Part, Poison};
use super::excerpt::Excerpt;
use super::json::{Read, element, is_integer, members, text, type_of};
use super::layout::Layout;
use super::names::Names;
use super::path::FieldPath;
use super::scan::Scanner;
use super::settings::UnhandledFields;
use super::table::{Id, RowRead, Table};

/// Columns that a table may declare.
pub const MAX_COLUMNS: usize = 256;
/// Columns that may identify, route or filter.
pub const MAX_CAPTURES: usize = 16;

/// A declared table. Cloning it copies nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTable(Arc<Plan>);

/// What a declaration was compiled into.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Lives as long as the process, as labels and events do that bear it.
    pub name: &'static str,
    pub enabled: bool,
    pub unhandled: UnhandledFields,
    pub layout: Layout,
    pub columns: Vec<Column>,
    /// The names of the columns.
    pub names: Names,
    /// The columns that must not be null.
    pub needed: Columns,
    pub slots: Vec<Slot>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub name: String,
    pub kind: Kind,
    pub is_array: bool,
    pub nullable: bool,
    /// Whether it must come as text: a key may not be written in two ways.
    pub as_text: bool,
    /// Whether it belongs to key or primary key.
    pub own: bool,
    /// Where its value is kept while the record is read, if it is needed.
    pub capture: Option<u8>,
}

/// Where the value of a slot comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub capture: u8,
    /// The column's place.
    pub column: u16,
    /// The names on the way to a place within a JSON column; none for the column itself.
    pub pointer: Vec<String>,
}

impl Column {
    fn expected(&self) -> &'static str {
        if self.as_text { "a string" } else { self.kind.expected(self.is_array) }
    }

    /// Its type as a declaration has it.
    fn declared(&self) -> String {
        let array = if self.is_array { "array of " } else { "" };
        let text = if self.as_text { " as text" } else { "" };
        let null = if self.nullable { "" } else { " not null" };
        format!("{array}{}{text}{null}", self.kind.name())
    }

    fn accepts(&self, raw: &str) -> bool {
        let fits = if self.is_array { self.kind.accepts_all(raw) } else { self.kind.accepts(raw) };
        fits && (!self.as_text || raw.starts_with('"'))
    }

    /// A value that is not accepted; of an array the element that is why.
    fn wrong_type(&self, raw: &str) -> Poison {
        let stray = if self.is_array { self.kind.stray(raw) } else { None };
        match stray {
            None => self.unlike(type_of(raw)),
            Some((way, element)) => Poison::WrongType {
                part: Part::Record,
                field: FieldPath::new(&self.name, &way),
                expected: self.kind.expected(false),
                found: type_of(element),
            },
        }
    }

    /// Something else than a value of its type.
    fn unlike(&self, found: &'static str) -> Poison {
        Poison::WrongType { part: Part::Record, field: self.field(), expected: self.expected(), found }
    }

    fn field(&self) -> FieldPath {
        FieldPath::new(&self.name, &[])
    }
}

/// A set of columns.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns([u64; MAX_COLUMNS / 64]);

/// Those of these columns that there may be.
impl FromIterator<usize> for Columns {
    fn from_iter<I: IntoIterator<Item = usize>>(columns: I) -> Self {
        let mut set = Self::default();
        for column in columns.into_iter().filter(|column| *column < MAX_COLUMNS) {
            set.insert(column);
        }
        set
    }
}

impl Columns {
    /// Takes a column in; `false` if it was there.
    fn insert(&mut self, column: usize) -> bool {
        let (word, bit) = (&mut self.0[column / 64], 1 << (column % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// The first that is not in another set.
    fn first_not_in(&self, others: &Self) -> Option<u16> {
        let left = self.0.iter().zip(&others.0).map(|(word, other)| word & !other);
        let (word, left) = (0..).zip(left).find(|(_, left)| *left != 0)?;
        u16::try_from(word * u64::BITS + left.trailing_zeros()).ok()
    }
}

/// What has been read of a record so far.
struct Reading<'a> {
    read: RowRead,
    seen: Columns,
    /// Columns with a value, or with one that was not sent.
    there: Columns,
    captures: [Option<&'a str>; MAX_CAPTURES],
}

impl DeclaredTable {
    pub(super) fn new(plan: Plan) -> Self {
        Self(Arc::new(plan))
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.0
    }

    /// Whether its events are published; if not, they are skipped.
    pub fn enabled(&self) -> bool {
        self.0.enabled
    }

    /// What becomes of fields that are not declared.
    pub fn unhandled_fields(&self) -> UnhandledFields {
        self.0.unhandled
    }
}

impl Plan {
    fn take<'a>(
        &self,
        now: &mut Reading<'a>,
        name: &str,
        raw: &'a str,
        at: std::ops::Range<usize>,
    ) -> Result<(), Poison> {
        let is_null = raw == "null";
        let Some(place) = self.names.place(name) else {
            now.read.note_unknown(name, raw, at);
            now.read.more_than_key_columns |= !is_null;
            return Ok(());
        };
        let column = &self.columns[place];
        if is_null {
        } else if is_unchanged(raw) {
            now.read.unchanged.push(name.to_owned());
            now.there.insert(place);
        } else if column.accepts(raw) {
            now.there.insert(place);
        } else {
            return Err(column.wrong_type(raw));
        }
        if !now.seen.insert(place) {
            return Err(Poison::Twice { part: Part::Record, field: column.field() });
        }
        if let Some(capture) = column.capture {
            now.captures[usize::from(capture)] = Some(raw);
        }
        now.read.more_than_key_columns |= !is_null && !column.own;
        Ok(())
    }

    fn finish(&self, now: Reading<'_>, payload: &str) -> Result<RowRead, Poison> {
        let mut read = now.read;
        for (place, slot) in self.slots.iter().enumerate() {
            let raw = now.captures[usize::from(slot.capture)];
            read.put(place, self.id(slot, raw, payload)?);
        }
        read.lacking = self.needed.first_not_in(&now.there);
        Ok(read)
    }

    fn id(&self, slot: &Slot, raw: Option<&str>, payload: &str) -> Result<Id, Poison> {
        let Some(raw) = raw.filter(|raw| *raw != "null") else { return Ok(Id::Missing) };
        if is_unchanged(raw) {
            return Ok(Id::Unchanged);
        }
        let column = &self.columns[usize::from(slot.column)];
        let value = match &slot.pointer[..] {
            [] => raw,
            _ => match within(raw, slot, column, payload)? {
                Ok(value) => value,
                Err(nothing) => return Ok(nothing),
            },
        };
        let field = || FieldPath::new(&column.name, &slot.pointer);
        let undecodable = |source| Poison::Undecodable { part: Part::Record, field: field(), source };
        match text(value).map_err(undecodable)? {
            Some(text) => Ok(Id::Value(Excerpt::of(payload, text))),
            // A place in a JSON column may hold anything.
            None if slot.pointer.is_empty() || is_integer(value) => {
                Ok(Id::Value(Excerpt::of(payload, Cow::Borrowed(value))))
            }
            None => Err(Poison::WrongType {
                part: Part::Record,
                field: field(),
                expected: "a string or an integer where a routing value is taken from it",
                found: type_of(value),
            }),
        }
    }
}

/// The raw value at the place of a slot within the value of its column, or why there is none.
///
/// # Errors
/// [`Poison::Twice`] where a name on the way comes twice: which value counts would be a guess.
fn within<'a>(raw: &'a str, slot: &Slot, column: &Column, payload: &str) -> Result<Result<&'a str, Id>, Poison> {
    let mut value = raw;
    for (done, step) in slot.pointer.iter().enumerate() {
        let twice = || Poison::Twice {
            part: Part::Record,
            field: FieldPath::new(&column.name, slot.pointer.get(..=done).unwrap_or_default()),
        };
        let found = match value.as_bytes().first() {
            Some(b'{') => member(value, step, twice),
            Some(b'[') => element(value, step).map(Ok),
            _ => return Ok(Err(Id::Within(type_of(value)))),
        };
        match found.map_err(|malformed| Poison::not_json_within(payload, value, malformed))?? {
            Some("null") | None => return Ok(Err(Id::Missing)),
            Some(inner) => value = inner,
        }
    }
    Ok(Ok(value))
}

/// The raw value of an object's member.
fn member<'a>(raw: &'a str, name: &str, twice: impl Fn() -> Poison) -> Read<Option<&'a str>> {
    let mut found = None;
    let read = members(Part::Record, &mut Scanner::new(raw), |scanner, own| {
        let value = scanner.value()?;
        let is_twice = own == name && found.replace(value).is_some();
        Ok(if is_twice { Err(twice()) } else { Ok(()) })
    })?;
    Ok(read.map(|_| found))
}

impl Table for DeclaredTable {
    fn name(&self) -> &'static str {
        self.0.name
    }

    fn layout(&self) -> &Layout {
        &self.0.layout
    }

    fn knows(&self, column: &str) -> bool {
        self.0.names.place(column).is_some()
    }

    fn fit(&self, column: &str, raw: &str) -> Option<(Cow<'static, str>, bool)> {
        let column = &self.0.columns[self.0.names.place(column)?];
        let fits = match raw {
            "null" => column.nullable,
            raw => is_unchanged(raw) || column.accepts(raw),
        };
        Some((Cow::Owned(column.declared()), fits))
    }

    fn lacking(&self, column: u16) -> Option<Poison> {
        self.0.columns.get(usize::from(column)).map(|column| column.unlike("null or nothing"))
    }

    fn read(&self, record: &mut Scanner<'_>) -> Read<RowRead> {
        let plan = &*self.0;
        let mut now = Reading {
            read: RowRead::default(),
            seen: Columns::default(),
            there: Columns::default(),
            captures: [None; MAX_CAPTURES],
        };
        let begin = record.at();
        // The opening brace is read before the first member.
        let mut end = 1;
        let members = members(Part::Record, record, |scanner, name| {
            let raw = scanner.value()?;
            let start = std::mem::replace(&mut end, scanner.at() - begin);
            Ok(plan.take(&mut now, name, raw, start..end))
        })?;
        Ok(members.and_then(|_| plan.finish(now, record.text())))
    }
}
