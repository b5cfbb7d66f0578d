//! JSON values as they are written: a number is its text, so that none is rounded where values are held against each other.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::path;
use crate::domain::scan::{Malformed, Scanner};

/// How deep values are looked into; what is deeper counts as it is written.
const DEEPEST: usize = 100;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Exact {
    /// Null, true, false or a string.
    Plain(Value),
    /// What counts as it is written: a number.
    Written(String),
    Array(Vec<Exact>),
    Object(BTreeMap<String, Exact>),
}

impl Exact {
    /// The value that a text is; `None` if it is not JSON.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value().ok()?;
        scanner.end().ok()?;
        Some(Self::of(value, DEEPEST))
    }

    /// Of JSON without white space around it.
    fn of(text: &str, levels: usize) -> Self {
        let written = || Self::Written(text.to_owned());
        match (text.as_bytes().first(), levels.checked_sub(1)) {
            (Some(b'{'), Some(levels)) => members(text).map_or_else(
                |_| written(),
                |members| {
                    Self::Object(members.into_iter().map(|(name, value)| (name, Self::of(value, levels))).collect())
                },
            ),
            (Some(b'['), Some(levels)) => elements(text).map_or_else(
                |_| written(),
                |elements| Self::Array(elements.into_iter().map(|value| Self::of(value, levels)).collect()),
            ),
            (Some(b'{' | b'[' | b'-' | b'0'..=b'9'), _) => written(),
            // Half of a surrogate pair is no text.
            _ => serde_json::from_str(text).map_or_else(|_| written(), Self::Plain),
        }
    }
}

impl From<Value> for Exact {
    fn from(value: Value) -> Self {
        match value {
            Value::Number(number) => Self::Written(number.to_string()),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.into_iter().map(|(name, value)| (name, value.into())).collect())
            }
            plain => Self::Plain(plain),
        }
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            Self::Written(text) => RawValue::from_string(text.clone()).map_err(S::Error::custom)?.serialize(serializer),
            Self::Array(items) => items.serialize(serializer),
            Self::Object(members) => members.serialize(serializer),
        }
    }
}

/// From JSON text alone, as a raw value is.
impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        Self::parse(raw.get()).ok_or_else(|| D::Error::custom("it is not JSON"))
    }
}

/// A JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pointer {
    text: String,
    way: Vec<String>,
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let way = if text.is_empty() { Some(Vec::new()) } else { path::way(&text) };
        let wrong = || {
            format!(
                "{text:?} is no JSON pointer: it begins with a slash, such as /row_data/status, with ~0 for a tilde and ~1 for a \
                 slash within a name"
            )
        };
        Ok(Self { way: way.ok_or_else(wrong)?, text })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pointer {
    /// The values that it points at in JSON: none, one, or several where a name comes twice. Where the names of an object on its
    /// way are no text, that object: nothing can be said to be absent from it.
    pub(super) fn values<'t>(&self, json: &'t str) -> Vec<&'t str> {
        let whole = Scanner::new(json).value().ok();
        self.way.iter().fold(whole.into_iter().collect(), |values: Vec<_>, step| {
            values.into_iter().flat_map(|value| below(value, step)).collect()
        })
    }
}

fn below<'t>(value: &'t str, step: &str) -> Vec<&'t str> {
    match value.as_bytes().first() {
        Some(b'{') => members(value).map_or_else(
            |_| vec![value],
            |members| members.into_iter().filter(|(name, _)| name == step).map(|(_, value)| value).collect(),
        ),
        Some(b'[') => {
            let place = step.parse::<usize>().ok().filter(|place| place.to_string() == step);
            let element = |place: usize| elements(value).ok()?.get(place).copied();
            place.and_then(element).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// The members of an object, in their order.
pub(super) fn members(object: &str) -> Result<Vec<(String, &str)>, Malformed> {
    let mut found = Vec::new();
    Scanner::new(object).object(|scanner, name| {
        found.push((name.into_owned(), scanner.value()?));
        Ok(())
    })?;
    Ok(found)
}

fn elements(array: &str) -> Result<Vec<&str>, Malformed> {
    let mut found = Vec::new();
    Scanner::new(array).array(|scanner| {
        found.push(scanner.value()?);
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_numbers() {
        let text = r#"{"a":[1.10,-0,1E5,123456789012345678901234567890],"b":{"c":null,"d":"é"}}"#;
        assert_eq!(Exact::parse(&format!(" {text}\n")).unwrap().to_string(), text);
        assert_ne!(Exact::parse("1.10"), Exact::parse("1.1"));
        assert_eq!(Exact::parse("[\"\\u0041\"]"), Some(serde_json::json!(["A"]).into()));
        assert_eq!((Exact::parse("1 2"), Exact::parse("")), (None, None));
    }

    #[test]
    fn what_is_deep_or_no_text_counts_as_it_is_written() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Exact::parse(&deep), Exact::parse(&deep));
        for text in [r#"{"\ud800":1}"#, r#"["\ud800"]"#] {
            assert_eq!(Exact::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn pointers_find_whatever_is_there() {
        let at = |pointer: &str, json| Pointer::try_from(pointer.to_owned()).unwrap().values(json);
        let json = r#" {"a/b": {"~": [1, {"c": 2}]}, "": 3, "d": {"e": 4}, "d": {"f": 5}} "#;
        assert_eq!((at("/a~1b/~0/1/c", json), at("/", json), at("", "1 ")), (vec!["2"], vec!["3"], vec!["1"]));
        assert_eq!((at("/d/e", json), at("/d", json)), (vec!["4"], vec![r#"{"e": 4}"#, r#"{"f": 5}"#]));
        for none in ["/x", "/a~1b/~0/01", "/a~1b/~0/2", "/a~1b/~0/-", "/d/e/0"] {
            assert!(at(none, json).is_empty(), "{none}");
        }
        let unreadable = r#"{"\ud800": 1}"#;
        assert_eq!(at("/a/b", &format!(r#"{{"a": {unreadable}}}"#)), [unreadable]);
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["email", "row_data/email", "a.b", "/~", "/~2", "/a~", "#/a"] {
            assert!(Pointer::try_from(text.to_owned()).is_err_and(|said| said.contains("no JSON pointer")), "{text}");
        }
    }
}
