//! What differs between two JSON values, place by place.

use std::io::{self, Write};

use super::exact::Exact;
use super::output::{BAD, GOOD, one_line, styled};

/// A place that differs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    /// Where: a JSON pointer, empty for the whole.
    pub pointer: String,
    /// What the first one has there.
    pub old: Option<Exact>,
    /// What the second one has there.
    pub new: Option<Exact>,
}

/// Every place where the second value is not what the first is. Objects and arrays are looked into.
pub(super) fn differences(old: &Exact, new: &Exact) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(old), Some(new), &mut found);
    found
}

fn compare(pointer: String, old: Option<&Exact>, new: Option<&Exact>, found: &mut Vec<Difference>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Exact::Object(old)), Some(Exact::Object(new))) => {
            for (name, value) in old {
                compare(child(&pointer, name), Some(value), new.get(name), found);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                compare(child(&pointer, name), None, Some(value), found);
            }
        }
        (Some(Exact::Array(old)), Some(Exact::Array(new))) => {
            for place in 0..old.len().max(new.len()) {
                compare(format!("{pointer}/{place}"), old.get(place), new.get(place), found);
            }
        }
        (old, new) => found.push(Difference { pointer, old: old.cloned(), new: new.cloned() }),
    }
}

fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Writes a difference as a diff does.
pub(super) fn write_difference(out: &mut impl Write, what: &str, difference: &Difference) -> io::Result<()> {
    let Difference { pointer, old, new } = difference;
    writeln!(out, "  {what}{}", one_line(pointer))?;
    for (sign, style, value) in [('-', BAD, old), ('+', GOOD, new)] {
        if let Some(value) = value {
            writeln!(out, "    {}", styled(style, one_line(&format!("{sign} {value}"))))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn differences_are_told_place_by_place() {
        let exact = |value: Value| Exact::from(value);
        let (old, new) = (
            exact(json!({"a": {"b/c": 1, "same": 2}, "d": [1, 2], "gone": 1})),
            exact(json!({"a": {"b/c": 2, "same": 2}, "d": [1], "new": null})),
        );
        let at = |pointer: &str, old: Option<Value>, new: Option<Value>| Difference {
            pointer: pointer.to_owned(),
            old: old.map(exact),
            new: new.map(exact),
        };
        let expected = [
            at("/a/b~1c", Some(json!(1)), Some(json!(2))),
            at("/d/1", Some(json!(2)), None),
            at("/gone", Some(json!(1)), None),
            at("/new", None, Some(json!(null))),
        ];
        assert_eq!(differences(&old, &new), expected);
        assert_eq!(differences(&old, &old), []);
        assert_eq!(differences(&exact(json!(1)), &exact(json!("1"))).len(), 1);
        let written = |text| Exact::parse(text).unwrap();
        assert_eq!(
            differences(&written("[1.10, 12345678901234567890]"), &written("[1.1, 12345678901234567891]")).len(),
            2
        );
    }
}
