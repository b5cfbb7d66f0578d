//! The types of columns, checked as they are read and kept raw.

use std::borrow::Cow;

use super::error::{Part, Poison};
use super::json;

/// What Sequin sends in place of a large value that did not change.
const UNCHANGED: &str = "\"unchanged_toast\"";

/// What a row holds in one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cell<T> {
    /// The record does not name the column.
    #[default]
    Absent,
    /// SQL null.
    Null,
    /// A large value that did not change and was not sent.
    Unchanged,
    /// A value.
    Value(T),
}

/// How a field of the record fits the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The row has no such column.
    Unknown,
    /// A column that is null.
    Null,
    /// A column that arrived as `unchanged_toast`.
    Unchanged,
    /// A column with a value of its type.
    Value,
}

/// A type that a column can have.
pub trait ColumnType<'a>: Sized {
    /// What a value must be, for messages.
    const EXPECTED: &'static str;

    /// Reads a raw JSON value that is neither null nor `unchanged_toast`; `None` if it is of another type.
    fn read(raw: &'a str) -> Option<Self>;
}

/// Whether a raw value stands for a large value that was not sent.
pub(crate) fn is_unchanged(raw: &str) -> bool {
    raw == UNCHANGED
}

impl<'a, T: ColumnType<'a>> Cell<T> {
    /// Takes the raw JSON value of `column`.
    ///
    /// # Errors
    /// [`Poison::WrongType`], or [`Poison::Twice`] if the column was filled before.
    pub fn fill(&mut self, column: &'static str, raw: &'a str) -> Result<Fit, Poison> {
        let (cell, fit) = match raw {
            "null" => (Self::Null, Fit::Null),
            UNCHANGED => (Self::Unchanged, Fit::Unchanged),
            _ => match T::read(raw) {
                Some(value) => (Self::Value(value), Fit::Value),
                None => {
                    let (expected, found) = (T::EXPECTED, json::type_of(raw));
                    return Err(Poison::WrongType { part: Part::Record, field: column, expected, found });
                }
            },
        };
        match std::mem::replace(self, cell) {
            Self::Absent => Ok(fit),
            _ => Err(Poison::Twice { part: Part::Record, field: column }),
        }
    }
}

macro_rules! raw_type {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $accepts:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name<'a>(&'a str);

        impl<'a> ColumnType<'a> for $name<'a> {
            const EXPECTED: &'static str = $expected;

            fn read(raw: &'a str) -> Option<Self> {
                let accepts: fn(&str) -> bool = $accepts;
                accepts(raw).then_some(Self(raw))
            }
        }

        impl<'a> $name<'a> {
            /// The value as it stands in the record.
            pub const fn raw(self) -> &'a str {
                self.0
            }
        }
    };
}

raw_type! {
    /// A string, not decoded until asked for.
    Text, "a string", is_string
}
raw_type! {
    /// An integer of any size.
    Integer, "an integer", json::is_integer
}
raw_type! {
    /// Any JSON value.
    Json, "any JSON value", |_| true
}
raw_type! {
    /// A day: a string `YYYY-MM-DD`.
    Date, "a string YYYY-MM-DD", |raw| json::inner(raw).is_some_and(is_date)
}
raw_type! {
    /// A point in time: a string or a number, as the database and the sink's settings have it.
    Timestamp, "a string or a number", is_string_or_number
}
raw_type! {
    /// An id that is a number in one table and a string in another.
    Scalar, "a string or a number", is_string_or_number
}

/// A boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bool(
    /// The value.
    pub bool,
);

impl ColumnType<'_> for Bool {
    const EXPECTED: &'static str = "a boolean";

    fn read(raw: &str) -> Option<Self> {
        match raw {
            "true" => Some(Self(true)),
            "false" => Some(Self(false)),
            _ => None,
        }
    }
}

impl<'a> Text<'a> {
    /// The text itself, borrowed unless it holds escapes.
    ///
    /// # Errors
    /// [`Poison::Undecodable`] naming `column` if an escape is no Unicode character.
    pub fn decode(self, column: &'static str) -> Result<Cow<'a, str>, Poison> {
        let text = json::text(self.0);
        let text = text.map_err(|source| Poison::Undecodable { part: Part::Record, field: column, source })?;
        Ok(text.unwrap_or_default())
    }
}

fn is_string(raw: &str) -> bool {
    raw.starts_with('"')
}

fn is_string_or_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else {
        return false;
    };
    let two = |tens: &u8, ones: &u8| 10 * u32::from(tens.wrapping_sub(b'0')) + u32::from(ones.wrapping_sub(b'0'));
    [y1, y2, y3, y4, m1, m2, d1, d2].into_iter().all(u8::is_ascii_digit)
        && (1..=12).contains(&two(m1, m2))
        && (1..=31).contains(&two(d1, d2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_takes_its_values_and_no_others() {
        let samples = ["\"x\"", "1", "-9223372036854775809", "1.5", "1e3", "true", "{}", "[]", "\"2024-02-29\""];
        let taken = |read: fn(&'static str) -> bool| samples.into_iter().filter(|s| read(s)).collect::<Vec<_>>();
        assert_eq!(taken(|s| Text::read(s).is_some()), ["\"x\"", "\"2024-02-29\""]);
        assert_eq!(taken(|s| Integer::read(s).is_some()), ["1", "-9223372036854775809"]);
        assert_eq!(taken(|s| Bool::read(s).is_some()), ["true"]);
        assert_eq!(taken(|s| Date::read(s).is_some()), ["\"2024-02-29\""]);
        let scalars = ["\"x\"", "1", "-9223372036854775809", "1.5", "1e3", "\"2024-02-29\""];
        assert_eq!(taken(|s| Scalar::read(s).is_some()), scalars);
        assert_eq!(taken(|s| Timestamp::read(s).is_some()), scalars);
        assert_eq!(taken(|s| Json::read(s).is_some()), samples);
    }

    #[test]
    fn dates_have_a_month_and_a_day() {
        for bad in ["2024-13-01", "2024-00-01", "2024-01-00", "2024-01-32", "2024-1-1", "24-01-01", "2024-01-0é", ""] {
            assert!(!is_date(bad), "{bad}");
        }
    }

    #[test]
    fn a_wrong_type_names_column_expectation_and_finding_but_no_value() {
        let mut cell: Cell<Integer<'_>> = Cell::default();
        let error = cell.fill("unread_count", "\"secret\"").expect_err("a string is no integer");
        assert_eq!(error.to_string(), "record: unread_count should be an integer, found a string");
    }

    #[test]
    fn a_column_is_filled_once_even_with_null() {
        let mut cell: Cell<Bool> = Cell::default();
        assert_eq!(cell.fill("is_group", "null").expect("null fits"), Fit::Null);
        assert!(matches!(cell.fill("is_group", "true"), Err(Poison::Twice { .. })));
    }

    #[test]
    fn unchanged_toast_fits_every_type() {
        let mut cell: Cell<Json<'_>> = Cell::default();
        assert_eq!(cell.fill("key", UNCHANGED).expect("fits"), Fit::Unchanged);
        assert_eq!(cell, Cell::Unchanged);
    }
}
