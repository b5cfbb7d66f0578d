//! Small tools around JSON that stays raw.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{Part, Poison};

/// A member's name, borrowed unless it holds escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Hands every member of an object to a callback and keeps the callback's first error, so that a syntax error
/// further on still shows.
struct Members<'s, F> {
    visit: F,
    failed: &'s mut Option<Poison>,
}

impl<'de, F: FnMut(&str, &'de str) -> Result<(), Poison>> DeserializeSeed<'de> for Members<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str, &'de str) -> Result<(), Poison>> Visitor<'de> for Members<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            if self.failed.is_none() {
                *self.failed = (self.visit)(&name, value.get()).err();
            }
        }
        Ok(())
    }
}

/// Hands every member of the object `text`, name and raw value, to `visit`: one pass, nothing decoded but names.
///
/// # Errors
/// [`Poison::NotJson`] or [`Poison::NotObject`], else the first error of `visit`.
pub(crate) fn members<'a>(
    part: Part,
    text: &'a str,
    visit: impl FnMut(&str, &'a str) -> Result<(), Poison>,
) -> Result<(), Poison> {
    if !text.trim_ascii_start().starts_with('{') {
        // The parser would stop at the first value, even if what follows it is no JSON.
        return Err(match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Poison::NotObject { part },
            Err(source) => Poison::NotJson { part, source },
        });
    }
    let mut failed = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    Members { visit, failed: &mut failed }
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|source| Poison::NotJson { part, source })?;
    failed.map_or(Ok(()), Err)
}

/// Puts a field's raw value in its place.
///
/// # Errors
/// [`Poison::Twice`] if there is one already.
pub(crate) fn fill<'a>(
    slot: &mut Option<&'a str>,
    part: Part,
    field: &'static str,
    raw: &'a str,
) -> Result<(), Poison> {
    match slot.replace(raw) {
        None => Ok(()),
        Some(_) => Err(Poison::Twice { part, field }),
    }
}

/// The type of a raw value, for messages.
pub(crate) fn type_of(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        _ if is_integer(raw) => "an integer",
        _ => "a number with a fraction or an exponent",
    }
}

/// Whether a raw value is an integer of any size.
pub(crate) fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The characters between the quotes of a raw string, escapes untouched; `None` for anything but a string.
pub(crate) fn inner(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// The text of a raw string, borrowed unless it holds escapes; `None` for anything but a string.
///
/// # Errors
/// An escape that is no Unicode character (half of a surrogate pair).
pub(crate) fn text(raw: &str) -> Result<Option<Cow<'_, str>>, serde_json::Error> {
    match inner(raw) {
        None => Ok(None),
        Some(plain) if !plain.contains('\\') => Ok(Some(Cow::Borrowed(plain))),
        Some(_) => serde_json::from_str(raw).map(|text: String| Some(Cow::Owned(text))),
    }
}

/// Where the slice `part` ends within `whole`, which it was taken from.
pub(crate) fn end_within(whole: &str, part: &str) -> usize {
    // Addresses are compared, never followed; saturating and min keep a foreign slice from doing harm.
    let offset = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    offset.saturating_add(part.len()).min(whole.len())
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a str is a JSON string and writing to a Vec cannot fail");
}

/// Appends the object `raw` without the members that `cuts` cover. A cut reaches from the end of the value before
/// (or the opening brace) to the end of the member's value.
pub(crate) fn push_without(out: &mut Vec<u8>, raw: &[u8], cuts: &[Range<usize>]) {
    let Some((&brace, _)) = raw.split_first() else { return };
    out.push(brace);
    let (mut at, mut cuts) = (1, cuts);
    while let [cut, others @ ..] = cuts
        && cut.start == at
    {
        (at, cuts) = (cut.end, others);
    }
    if at > 1 {
        // Cuts at the head take the comma before the first member that stays with them.
        let rest = raw.get(at..).unwrap_or_default();
        let space = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        if rest.get(space) == Some(&b',') {
            at += space + 1;
        }
    }
    for cut in cuts {
        out.extend_from_slice(raw.get(at..cut.start).unwrap_or_default());
        at = cut.end;
    }
    out.extend_from_slice(raw.get(at..).unwrap_or_default());
}

/// A name from an event, made fit for a header and a log line: control characters escaped, at most 100 characters.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 100;
        for c in self.0.chars().take(LONGEST) {
            write!(f, "{}", c.escape_debug())?;
        }
        if self.0.chars().nth(LONGEST).is_some() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(raw: &str, gone: &[&str]) -> String {
        let (mut cuts, mut end) = (Vec::new(), 1);
        members(Part::Record, raw, |name, value| {
            let start = std::mem::replace(&mut end, end_within(raw, value));
            if gone.contains(&name) {
                cuts.push(start..end);
            }
            Ok(())
        })
        .expect("an object");
        let mut out = Vec::new();
        push_without(&mut out, raw.as_bytes(), &cuts);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn members_are_cut_out_and_all_else_stays() {
        let raw = r#"{ "a" : 1 , "b":[2, 3],"c": {"d" : ","} , "e":null }"#;
        assert_eq!(without(raw, &[]), raw);
        assert_eq!(without(raw, &["a"]), r#"{ "b":[2, 3],"c": {"d" : ","} , "e":null }"#);
        assert_eq!(without(raw, &["a", "b"]), r#"{"c": {"d" : ","} , "e":null }"#);
        assert_eq!(without(raw, &["b", "c"]), r#"{ "a" : 1 , "e":null }"#);
        assert_eq!(without(raw, &["a", "e"]), r#"{ "b":[2, 3],"c": {"d" : ","} }"#);
        assert_eq!(without(raw, &["a", "b", "c", "e"]), "{ }");
        assert_eq!(without("{}", &["a"]), "{}");
    }

    #[test]
    fn names_with_escapes_are_decoded() {
        assert_eq!(without(r#"{"\u0061":1,"b":2}"#, &["a"]), r#"{"b":2}"#);
    }

    #[test]
    fn no_json_is_told_from_no_object() {
        let told = |text| members(Part::Envelope, text, |_, _| Ok(()));
        for text in ["", " ", "{", "{\"a\":1", "123abc", "{} x", "nul", "{\"a\":tru}", "\u{feff}{}", "{\"a\" 1}"] {
            assert!(matches!(told(text), Err(Poison::NotJson { .. })), "{text}");
        }
        for text in ["1", "\"x\"", "[1,{}]", "null", " true "] {
            assert!(matches!(told(text), Err(Poison::NotObject { .. })), "{text}");
        }
        assert!(told(" {} ").is_ok());
    }

    #[test]
    fn deep_nesting_is_read_without_recursion() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(members(Part::Record, &deep, |_, _| Ok(())).is_ok());
        let open = "[".repeat(100_000);
        assert!(matches!(members(Part::Envelope, &open, |_, _| Ok(())), Err(Poison::NotJson { .. })));
    }

    #[test]
    fn shown_names_hold_no_line_breaks_and_are_short() {
        assert_eq!(Shown("a\r\nb").to_string(), "a\\r\\nb");
        assert_eq!(Shown(&"x".repeat(101)).to_string(), format!("{}…", "x".repeat(100)));
    }
}
