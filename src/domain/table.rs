//! Tables and the typed rows they are read into.

use std::fmt;
use std::ops::Range;

use super::column::{Cell, Fit, Text, is_unchanged};
use super::error::{Part, Poison};
use super::json;

/// Ids of the enriched event, in its order.
pub const ID_COLUMNS: [&str; 4] = ["company_id", "agent_id", "chat_id", "message_id"];

/// A typed row that borrows from the record.
pub trait Row<'a>: Default {
    /// Takes one field of the record.
    ///
    /// # Errors
    /// A value of the wrong type, or a column that came twice.
    fn set(&mut self, column: &str, raw: &'a str) -> Result<Fit, Poison>;

    /// The cell of a column that identifies or routes, if the row has it.
    fn id(&self, column: &str) -> Option<&Cell<Text<'a>>>;
}

/// A table that events are published of.
pub trait Table: fmt::Debug + Send + Sync {
    /// Its name in PostgreSQL, in subjects and in labels.
    fn name(&self) -> &'static str;

    /// The column whose value identifies a row.
    fn key_column(&self) -> &'static str;

    /// The columns that make up the target subject: two before the table's name, the others after it.
    fn routing_columns(&self) -> &'static [&'static str];

    /// Whether the typed row has this column.
    fn knows(&self, column: &str) -> bool;

    /// Reads a record in one pass, checking types on the way.
    ///
    /// # Errors
    /// A record of the wrong shape.
    fn read(&self, record: &str) -> Result<RowRead, Poison>;
}

/// An identifying or routing value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// Null, absent, empty, or not a column of this table.
    Missing,
    /// Arrived as `unchanged_toast`.
    Unchanged,
    /// The value.
    Value(String),
}

impl Id {
    /// The value, if there is one.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Value(value) => Some(value),
            Self::Missing | Self::Unchanged => None,
        }
    }
}

/// What is kept of a row once its record has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRead {
    ids: [Id; ID_COLUMNS.len()],
    /// Fields that the typed row does not know, in the record's order.
    pub unhandled: Vec<String>,
    /// Where these fields are in the record, each with the comma before it.
    pub unhandled_at: Vec<Range<usize>>,
    /// Fields that arrived as `unchanged_toast`, in the record's order.
    pub unchanged: Vec<String>,
    /// Whether nothing but `id`, `message_date` and the key column holds a value: all that a delete
    /// carries under the default replica identity.
    pub key_columns_alone: bool,
}

impl RowRead {
    /// The value of one of [`ID_COLUMNS`].
    pub fn id(&self, column: &str) -> &Id {
        ID_COLUMNS.iter().zip(&self.ids).find(|(name, _)| **name == column).map_or(&Id::Missing, |(_, id)| id)
    }

    /// Every id that has a value, in the order of [`ID_COLUMNS`].
    pub fn values(&self) -> impl Iterator<Item = (&'static str, &str)> {
        ID_COLUMNS.into_iter().zip(&self.ids).filter_map(|(name, id)| Some((name, id.value()?)))
    }
}

/// Reads a record into the row `R` and keeps what is needed of it.
///
/// # Errors
/// A record that is no object, a value of the wrong type, a column that comes twice.
pub fn read_row<'a, R: Row<'a>>(key_column: &str, record: &'a str) -> Result<RowRead, Poison> {
    let mut row = R::default();
    let (mut unhandled, mut unhandled_at, mut unchanged) = (Vec::new(), Vec::new(), Vec::new());
    let mut key_columns_alone = true;
    // The record starts with its brace, because the value of a member is raw without the space around it.
    let mut end = 1;
    json::members(Part::Record, record, |name, raw| {
        let start = std::mem::replace(&mut end, json::end_within(record, raw));
        let fit = row.set(name, raw)?;
        if fit == Fit::Unknown {
            unhandled.push(name.to_owned());
            unhandled_at.push(start..end);
        }
        if fit == Fit::Unchanged || (fit == Fit::Unknown && is_unchanged(raw)) {
            unchanged.push(name.to_owned());
        }
        key_columns_alone &= raw == "null" || ["id", "message_date", key_column].contains(&name);
        Ok(())
    })?;
    let [company_id, agent_id, chat_id, message_id] = ID_COLUMNS.map(|column| read_id(&row, column));
    let ids = [company_id?, agent_id?, chat_id?, message_id?];
    Ok(RowRead { ids, unhandled, unhandled_at, unchanged, key_columns_alone })
}

fn read_id<'a, R: Row<'a>>(row: &R, column: &'static str) -> Result<Id, Poison> {
    Ok(match row.id(column) {
        Some(Cell::Value(text)) => match text.decode(column)?.into_owned() {
            empty if empty.is_empty() => Id::Missing,
            value => Id::Value(value),
        },
        Some(Cell::Unchanged) => Id::Unchanged,
        Some(Cell::Absent | Cell::Null) | None => Id::Missing,
    })
}

/// Where in the object `raw` the fields are that `table` does not know, as [`RowRead::unhandled_at`].
///
/// # Errors
/// Text that is no JSON object.
pub fn unknown_fields(table: &dyn Table, raw: &str) -> Result<Vec<Range<usize>>, Poison> {
    let mut unknown = Vec::new();
    let mut end = 1;
    json::members(Part::Changes, raw, |name, value| {
        let start = std::mem::replace(&mut end, json::end_within(raw, value));
        if !table.knows(name) {
            unknown.push(start..end);
        }
        Ok(())
    })?;
    Ok(unknown)
}

/// Declares a table and its typed row.
macro_rules! table {
    (
        $(#[$doc:meta])*
        $table:ident = $name:literal, row $row:ident<$a:lifetime>,
        key $key:ident, routing [$($routing:ident),*], ids [$($id:ident),*],
        columns { $($field:ident: $type:ty = $column:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $table;

        #[doc = concat!("A row of table `", $name, "`.")]
        #[derive(Debug, Clone, Default)]
        pub struct $row<$a> {
            $(#[doc = concat!("Column `", $column, "`.")] pub $field: Cell<$type>,)*
        }

        impl<$a> Row<$a> for $row<$a> {
            fn set(&mut self, column: &str, raw: &$a str) -> Result<Fit, Poison> {
                match column {
                    $($column => self.$field.fill($column, raw),)*
                    _ => Ok(Fit::Unknown),
                }
            }

            fn id(&self, column: &str) -> Option<&Cell<Text<$a>>> {
                $(if column == stringify!($id) { return Some(&self.$id); })*
                None
            }
        }

        impl Table for $table {
            fn name(&self) -> &'static str {
                $name
            }

            fn key_column(&self) -> &'static str {
                stringify!($key)
            }

            fn routing_columns(&self) -> &'static [&'static str] {
                &[$(stringify!($routing)),*]
            }

            fn knows(&self, column: &str) -> bool {
                matches!(column, $($column)|*)
            }

            fn read(&self, record: &str) -> Result<RowRead, Poison> {
                read_row::<$row<'_>>(self.key_column(), record)
            }
        }
    };
}
pub(crate) use table;
