//! Tables, and the typed rows that some are read into.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::column::{Cell, ColumnType, Fit, Text, is_unchanged};
use super::error::{Part, Poison};
use super::excerpt::Excerpt;
use super::json::{Read, members};
use super::layout::Layout;
use super::scan::Scanner;

/// A column whose value routes an event or identifies its row, in the order of the enriched event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdColumn {
    /// Column `company_id`: the tenant.
    Company,
    /// Column `agent_id`.
    Agent,
    /// Column `chat_id`.
    Chat,
    /// Column `message_id`.
    Message,
}

impl IdColumn {
    /// All of them, in the order of the enriched event.
    pub const ALL: [Self; 4] = [Self::Company, Self::Agent, Self::Chat, Self::Message];

    /// The column's name, which is that of the enriched event's field, too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Company => "company_id",
            Self::Agent => "agent_id",
            Self::Chat => "chat_id",
            Self::Message => "message_id",
        }
    }
}

/// A typed row that borrows from the record.
pub trait Row<'a>: Default {
    /// Takes one field of the record.
    ///
    /// # Errors
    /// A value of the wrong type, or a column that came twice.
    fn set(&mut self, column: &str, raw: &'a str) -> Result<Fit, Poison>;

    /// The cell of a column that identifies or routes, if the row has it.
    fn id(&self, column: IdColumn) -> Option<&Cell<Text<'a>>>;
}

/// A table that events are published of: a typed row, or a declaration.
pub trait Table: fmt::Debug + Send + Sync {
    /// Its name in PostgreSQL, in subjects and in labels.
    fn name(&self) -> &'static str;

    /// What becomes of its rows.
    fn layout(&self) -> &Layout;

    /// Whether the row has this column.
    fn knows(&self, column: &str) -> bool;

    /// What a column should hold and whether a raw value is so, for people; `None` for a column that the row has not.
    fn fit(&self, column: &str, raw: &str) -> Option<(Cow<'static, str>, bool)>;

    /// What is wrong with a row whose [`RowRead::lacking`] names a column.
    fn lacking(&self, _column: u16) -> Option<Poison> {
        None
    }

    /// Reads a record in one pass, checking types on the way. Places are those of the scanner's text.
    ///
    /// # Errors
    /// Text that is not JSON; within, a record of the wrong shape.
    fn read(&self, record: &mut Scanner<'_>) -> Read<RowRead>;
}

/// What stands in a slot: a value that identifies, routes or decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Id {
    /// Null, absent, or not a column of this table.
    #[default]
    Missing,
    /// Arrived as `unchanged_toast`.
    Unchanged,
    /// A place within a value of this type, which holds none.
    Within(&'static str),
    /// The value, which may be empty.
    Value(Excerpt),
}

/// Slots that need no memory of their own.
const INLINE: usize = IdColumn::ALL.len();

/// What is kept of a row once its record has been read, by place in the payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowRead {
    first: [Id; INLINE],
    others: Vec<Id>,
    /// Fields that the table does not know, in the record's order.
    pub unhandled: Vec<String>,
    /// Where these fields are in the record, each with the comma before it.
    pub unhandled_at: Vec<Range<usize>>,
    /// Fields that arrived as `unchanged_toast`, in the record's order.
    pub unchanged: Vec<String>,
    /// Whether a field holds a value beside the key and the primary key, which are all that a delete carries under the
    /// default replica identity.
    pub more_than_key_columns: bool,
    /// The first column that must not be null and is, by its place among the table's columns.
    pub lacking: Option<u16>,
}

impl RowRead {
    /// What stands in a slot.
    pub fn id(&self, slot: usize) -> &Id {
        const NOTHING: &Id = &Id::Missing;
        self.first.get(slot).or_else(|| self.others.get(slot - INLINE)).unwrap_or(NOTHING)
    }

    /// Puts something into a slot; slots are filled in order.
    pub(super) fn put(&mut self, slot: usize, id: Id) {
        match self.first.get_mut(slot) {
            Some(place) => *place = id,
            None => self.others.push(id),
        }
    }

    /// Notes a field that the table does not know, and where it is.
    pub(super) fn note_unknown(&mut self, name: &str, raw: &str, at: Range<usize>) {
        self.unhandled.push(name.to_owned());
        self.unhandled_at.push(at);
        if is_unchanged(raw) {
            self.unchanged.push(name.to_owned());
        }
    }
}

/// Whether a raw value is what a typed column should hold, and what that is.
pub(super) fn typed_fit<'a, T: ColumnType<'a>>(raw: &'a str) -> (Cow<'static, str>, bool) {
    (Cow::Borrowed(T::EXPECTED), raw == "null" || is_unchanged(raw) || T::read(raw).is_some())
}

/// Reads a record into the row `R` and keeps what is needed of it. `own` are the columns of key and primary key.
///
/// # Errors
/// Text that is not JSON; within, a record that is no object, a value of the wrong type, a column that comes twice.
pub fn read_row<'a, R: Row<'a>>(own: &[&str], scanner: &mut Scanner<'a>) -> Read<RowRead> {
    let (mut row, mut read) = (R::default(), RowRead::default());
    let begin = scanner.at();
    // The opening brace is read before the first member.
    let mut end = 1;
    let record = members(Part::Record, scanner, |scanner, name| {
        let raw = scanner.value()?;
        let start = std::mem::replace(&mut end, scanner.at() - begin);
        Ok(row.set(name, raw).map(|fit| {
            match fit {
                Fit::Unknown => read.note_unknown(name, raw, start..end),
                Fit::Unchanged => read.unchanged.push(name.to_owned()),
                Fit::Null | Fit::Value => {}
            }
            if raw != "null" && !read.more_than_key_columns {
                read.more_than_key_columns = !own.contains(&name);
            }
        }))
    })?;
    Ok(record.and_then(|_| {
        for column in IdColumn::ALL {
            read.put(column as usize, read_id(&row, column, scanner.text())?);
        }
        Ok(read)
    }))
}

fn read_id<'a, R: Row<'a>>(row: &R, column: IdColumn, payload: &'a str) -> Result<Id, Poison> {
    Ok(match row.id(column) {
        Some(Cell::Value(text)) => Id::Value(Excerpt::of(payload, text.decode(column.name())?)),
        Some(Cell::Unchanged) => Id::Unchanged,
        Some(Cell::Absent | Cell::Null) | None => Id::Missing,
    })
}

/// Where in the object `raw` of `payload` the fields are that `table` does not know, as [`RowRead::unhandled_at`].
///
/// # Errors
/// Text that is no JSON object.
pub fn unknown_fields(table: &dyn Table, payload: &str, raw: &str) -> Result<Vec<Range<usize>>, Poison> {
    let mut unknown = Vec::new();
    let mut end = 1;
    let read = members(Part::Changes, &mut Scanner::new(raw), |scanner, name| {
        scanner.value()?;
        let start = std::mem::replace(&mut end, scanner.at());
        if !table.knows(name) {
            unknown.push(start..end);
        }
        Ok(Ok(()))
    });
    read.map_err(|malformed| Poison::not_json_within(payload, raw, malformed))?.map(|_| unknown)
}

/// Declares a table and its typed row.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $table:ident = $name:literal, row $row:ident<$a:lifetime>,
        key $key:ident, primary [$($primary:literal),*], routing [$($routing:ident),*],
        ids [$($id:ident = $id_column:ident),*],
        columns { $($field:ident: $type:ty = $column:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $table(Layout);

        impl Default for $table {
            fn default() -> Self {
                let (routing, ids) = ([$(IdColumn::$routing),*], [$(IdColumn::$id_column),*]);
                Self(Layout::typed($name, IdColumn::$key, &routing, &ids))
            }
        }

        #[doc = concat!("A row of table `", $name, "`.")]
        #[derive(Debug, Clone, Default)]
        pub struct $row<$a> {
            $(#[doc = concat!("Column `", $column, "`.")] pub $field: Cell<$type>,)*
        }

        impl $row<'_> {
            /// The names of its columns.
            pub const COLUMNS: &'static [&'static str] = &[$($column),*];
        }

        impl<$a> Row<$a> for $row<$a> {
            fn set(&mut self, column: &str, raw: &$a str) -> Result<Fit, Poison> {
                match column {
                    $($column => self.$field.fill($column, raw),)*
                    _ => Ok(Fit::Unknown),
                }
            }

            fn id(&self, column: IdColumn) -> Option<&Cell<Text<$a>>> {
                match column {
                    $(IdColumn::$id_column => Some(&self.$id),)*
                    #[allow(unreachable_patterns, reason = "a table may have all of them")]
                    _ => None,
                }
            }
        }

        impl Table for $table {
            fn name(&self) -> &'static str {
                $name
            }

            fn layout(&self) -> &Layout {
                &self.0
            }

            fn knows(&self, column: &str) -> bool {
                matches!(column, $($column)|*)
            }

            fn fit(&self, column: &str, raw: &str) -> Option<(Cow<'static, str>, bool)> {
                fn of<$a>(column: &str, raw: &$a str) -> Option<(Cow<'static, str>, bool)> {
                    Some(match column {
                        $($column => typed_fit::<$type>(raw),)*
                        _ => return None,
                    })
                }
                of(column, raw)
            }

            fn read(&self, record: &mut Scanner<'_>) -> Read<RowRead> {
                const OWN: &[&str] = &[IdColumn::$key.name(), $($primary),*];
                read_row::<$row<'_>>(OWN, record)
            }
        }
    };
}
pub(crate) use table;
