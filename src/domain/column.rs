//! The types of columns, checked as they are read and kept raw.

use std::borrow::Cow;

use super::error::{Part, Poison};
use super::json;
use super::scan::Scanner;

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
                    return Err(Poison::WrongType { part: Part::Record, field: column.into(), expected, found });
                }
            },
        };
        match std::mem::replace(self, cell) {
            Self::Absent => Ok(fit),
            _ => Err(Poison::Twice { part: Part::Record, field: column.into() }),
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
    /// A day of the calendar, as PostgreSQL writes it: a string `YYYY-MM-DD`, `0044-03-15 BC` or `infinity`.
    Date, "a string YYYY-MM-DD with a day that there is", |raw| json::inner(raw).is_some_and(is_date)
}
raw_type! {
    /// A point in time: a string or a number, as the database and the sink's settings have it.
    Timestamp, "a string or a number", is_string_or_number
}
raw_type! {
    /// An id that is a number in one table and a string in another.
    Scalar, "a string or a number", is_string_or_number
}

/// The type of a declared column, or of the elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer of any size.
    Integer,
    /// The same by another name: the database keeps the range.
    Bigint,
    /// A number, or a string that holds one: producers write long decimals so.
    Numeric,
    /// A boolean.
    Boolean,
    /// A day of the calendar, as PostgreSQL writes it: `YYYY-MM-DD`, `0044-03-15 BC` or `infinity`.
    Date,
    /// A point in time, as the database and the sink's settings have it.
    Timestamp,
    /// A UUID in the usual notation.
    Uuid,
    /// Any JSON value.
    Json,
    /// A string or a number.
    Scalar,
}

impl Kind {
    /// Every name that a declaration may use.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("string", Self::Text),
        ("integer", Self::Integer),
        ("bigint", Self::Bigint),
        ("numeric", Self::Numeric),
        ("boolean", Self::Boolean),
        ("date", Self::Date),
        ("timestamp", Self::Timestamp),
        ("uuid", Self::Uuid),
        ("json", Self::Json),
        ("scalar", Self::Scalar),
    ];

    /// Its name in a declaration.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(_, kind)| *kind == self).map_or("json", |(name, _)| name)
    }

    /// What a value must be, for messages; for an array, what all of its elements must be.
    pub const fn expected(self, is_array: bool) -> &'static str {
        match (self, is_array) {
            (Self::Text, false) => Text::EXPECTED,
            (Self::Integer | Self::Bigint, false) => Integer::EXPECTED,
            (Self::Numeric, false) => "a number, or a string that holds one",
            (Self::Boolean, false) => Bool::EXPECTED,
            (Self::Date, false) => Date::EXPECTED,
            (Self::Timestamp, false) => Timestamp::EXPECTED,
            (Self::Uuid, false) => "a string with a UUID",
            (Self::Json, false) => Json::EXPECTED,
            (Self::Scalar, false) => Scalar::EXPECTED,
            (Self::Text, true) => "an array of strings",
            (Self::Integer | Self::Bigint, true) => "an array of integers",
            (Self::Numeric, true) => "an array of numbers",
            (Self::Boolean, true) => "an array of booleans",
            (Self::Date, true) => "an array of strings YYYY-MM-DD with days that there are",
            (Self::Timestamp | Self::Scalar, true) => "an array of strings or numbers",
            (Self::Uuid, true) => "an array of strings with UUIDs",
            (Self::Json, true) => "an array",
        }
    }

    /// Whether a raw JSON value, which is not null, is of this type.
    pub fn accepts(self, raw: &str) -> bool {
        match self {
            Self::Text => Text::read(raw).is_some(),
            Self::Integer | Self::Bigint => Integer::read(raw).is_some(),
            Self::Numeric => is_numeric(raw),
            Self::Boolean => Bool::read(raw).is_some(),
            Self::Date => Date::read(raw).is_some(),
            Self::Timestamp => Timestamp::read(raw).is_some(),
            Self::Uuid => json::inner(raw).is_some_and(is_uuid),
            Self::Json => true,
            Self::Scalar => Scalar::read(raw).is_some(),
        }
    }

    /// Whether a raw JSON value is an array of values of this type, or of null. An array within is one of more dimensions.
    pub fn accepts_all(self, raw: &str) -> bool {
        let mut scanner = Scanner::new(raw);
        raw.starts_with('[') && scanner.elements(|element| element == "null" || self.accepts(element)).unwrap_or(false)
    }
}

/// Levels of arrays that PostgreSQL has at most.
const DIMENSIONS: usize = 6;

impl Kind {
    /// Why a raw JSON value, which is an array, is none of values of this type: the way to the first element that is neither of
    /// this type nor null, and that element; what is nested deeper than PostgreSQL nests is told as a whole.
    pub fn stray(self, raw: &str) -> Option<(Vec<String>, &str)> {
        let (mut way, mut stray) = (Vec::new(), raw);
        while way.len() < DIMENSIONS
            && let Some((place, element)) = self.stray_element(stray)
        {
            way.push(place.to_string());
            stray = element;
        }
        (!way.is_empty()).then_some((way, stray))
    }

    fn stray_element(self, raw: &str) -> Option<(usize, &str)> {
        let (mut elements, mut stray) = (0.., None);
        let fits = |element: &str| match element {
            "null" => true,
            array if array.starts_with('[') => self.accepts_all(array),
            element => self.accepts(element),
        };
        let mut scanner = Scanner::new(raw);
        let read = scanner.array(|scanner| {
            let (element, place) = (scanner.value()?, elements.next());
            if stray.is_none() && !fits(element) {
                stray = place.map(|place| (place, element));
            }
            Ok(())
        });
        read.ok().and(stray)
    }
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
        let text = text.map_err(|source| Poison::Undecodable { part: Part::Record, field: column.into(), source })?;
        Ok(text.unwrap_or_default())
    }
}

fn is_string(raw: &str) -> bool {
    raw.starts_with('"')
}

fn is_string_or_number(raw: &str) -> bool {
    raw.starts_with('"') || begins_a_number(raw)
}

/// Whether a JSON value is a number, by its first character.
fn begins_a_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

fn is_numeric(raw: &str) -> bool {
    match json::inner(raw) {
        None => begins_a_number(raw),
        Some("NaN" | "Infinity" | "-Infinity") => true,
        Some(text) => {
            let mut scanner = Scanner::new(text);
            begins_a_number(text) && scanner.value().is_ok_and(|value| value.len() == text.len())
        }
    }
}

fn is_uuid(text: &str) -> bool {
    const FORM: &[u8; 36] = b"00000000-0000-0000-0000-000000000000";
    json::has_form(text, FORM, u8::is_ascii_hexdigit)
}

/// Whether a text is a day of the calendar as PostgreSQL writes it: years of four digits and, from 10000 on, of more, with ` BC`
/// before the first; also `infinity` and `-infinity`.
pub(super) fn is_date(text: &str) -> bool {
    let (day, is_before_first) = text.strip_suffix(" BC").map_or((text, false), |day| (day, true));
    let Some((year, [b'-', m1, m2, b'-', d1, d2])) = day.as_bytes().split_last_chunk() else {
        return matches!(text, "infinity" | "-infinity");
    };
    let digits = [m1, m2, d1, d2];
    let is_year = year.len() == 4 || ((5..=7).contains(&year.len()) && year.first() != Some(&b'0'));
    if !is_year || !year.iter().chain(digits).all(u8::is_ascii_digit) {
        return false;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number: u32, digit| 10 * number + u32::from(digit - b'0'));
    let (year, month, day) = (number(year), number(&[*m1, *m2]), number(&[*d1, *d2]));
    // The year before the first is the first BC.
    let counted = year.wrapping_sub(u32::from(is_before_first));
    let is_leap = counted.is_multiple_of(4) && (!counted.is_multiple_of(100) || counted.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    year > 0 && (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_called_as_it_was_declared() {
        for (name, kind) in Kind::NAMES {
            assert_eq!(kind.name(), name);
        }
    }

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
    fn each_declared_type_takes_its_values_and_no_others() {
        const UUID: &str = "\"018F3a00-5b6c-7d8e-9f00-112233445566\"";
        let samples =
            ["\"x\"", "1", "-1.5e3", "\"-1.50\"", "\"NaN\"", "\"1 \"", "true", "{}", "[]", "\"2024-02-29\"", UUID];
        let taken = |kind: Kind| samples.into_iter().filter(|s| kind.accepts(s)).collect::<Vec<_>>();
        let strings = ["\"x\"", "\"-1.50\"", "\"NaN\"", "\"1 \"", "\"2024-02-29\"", UUID];
        assert_eq!(taken(Kind::Text), strings);
        assert_eq!(taken(Kind::Integer), ["1"]);
        assert_eq!(taken(Kind::Numeric), ["1", "-1.5e3", "\"-1.50\"", "\"NaN\""]);
        assert_eq!((taken(Kind::Boolean), taken(Kind::Date)), (vec!["true"], vec!["\"2024-02-29\""]));
        assert_eq!((taken(Kind::Uuid), taken(Kind::Json)), (vec![UUID], samples.to_vec()));
        for kind in [Kind::Timestamp, Kind::Scalar] {
            assert_eq!(taken(kind), [&["\"x\"", "1", "-1.5e3"], &strings[1..]].concat());
        }
    }

    #[test]
    fn arrays_hold_their_type_and_null_in_any_dimension() {
        for (kind, right, wrong) in [
            (
                Kind::Text,
                &["[]", "[ \"a\" , null]", "[[\"a,]\"],[\"b\"]]"][..],
                &["\"a\"", "{}", "[1]", "[[\"a\"],[2]]"][..],
            ),
            (Kind::Integer, &["[1,-2]"], &["[1.5]", "[\"1\"]", "1"]),
            (Kind::Json, &["[{\"a\":[1]},2]"], &["{}"]),
        ] {
            assert!(right.iter().all(|raw| kind.accepts_all(raw)), "{kind:?}");
            assert!(!wrong.iter().any(|raw| kind.accepts_all(raw)), "{kind:?}");
        }
    }

    #[test]
    fn dates_are_days_of_the_calendar_as_postgresql_writes_them() {
        for good in [
            "2024-02-29",
            "2000-02-29",
            "2023-12-31",
            "2024-04-30",
            "0001-01-01",
            "0044-03-15 BC",
            "0001-02-29 BC",
            "4713-11-24 BC",
            "10000-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
        ] {
            assert!(is_date(good), "{good}");
        }
        for bad in [
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "2024-01-32",
            "2024-1-1",
            "24-01-01",
            "2024-01-0é",
            "",
            "2026-02-29",
            "2026-02-31",
            "1900-02-29",
            "2024-04-31",
            "2026-06-31",
            "0000-01-01",
            "02024-01-01",
            "58748970-01-01",
            "-2024-01-01",
            "0044-03-15 AD",
            "0044-03-15BC",
            "0002-02-29 BC",
            "Infinity",
            " BC",
            "+infinity",
            "infinity BC",
        ] {
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
