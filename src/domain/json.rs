//! Small tools around JSON that stays raw.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::error::{Part, Poison};
use super::scan::{Malformed, Scanner, plain_end};

/// What came of reading something: text that is not JSON ends everything, what is JSON but wrong is told when the end has been
/// seen.
pub type Read<T> = Result<Result<T, Poison>, Malformed>;

/// Reads an object or null: `visit` is called behind each name and must read the value. Its first error is kept until the end,
/// so that a syntax error further on still shows. Returns what was read as it stands.
pub(crate) fn members<'a>(
    part: Part,
    scanner: &mut Scanner<'a>,
    mut visit: impl FnMut(&mut Scanner<'a>, &str) -> Read<()>,
) -> Read<&'a str> {
    if scanner.peek() != Some(b'{') {
        let raw = scanner.value()?;
        return Ok(if raw == "null" { Ok(raw) } else { Err(Poison::NotObject { part }) });
    }
    let mut first = None;
    let raw = scanner.object(|scanner, name| {
        if let Err(poison) = visit(scanner, &name)? {
            first.get_or_insert(poison);
        }
        Ok(())
    })?;
    Ok(first.map_or(Ok(raw), Err))
}

/// Puts a field's value in its place.
///
/// # Errors
/// [`Poison::Twice`] if there is one already.
pub(crate) fn fill<T>(slot: &mut Option<T>, part: Part, field: &'static str, value: T) -> Result<(), Poison> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Poison::Twice { part, field: field.into() }),
    }
}

/// The raw element of an array at a place, which is a number in decimal.
pub(crate) fn element<'a>(raw: &'a str, place: &str) -> Result<Option<&'a str>, Malformed> {
    let Some(place) = place.parse::<usize>().ok().filter(|number| number.to_string() == place) else { return Ok(None) };
    let mut scanner = Scanner::new(raw);
    let (mut at, mut found) = (0, None);
    scanner.array(|scanner| {
        let value = scanner.value()?;
        if at == place {
            found = Some(value);
        }
        at += 1;
        Ok(())
    })?;
    Ok(found)
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

/// Whether a text is written like `form`, in which each `0` stands for a byte that `is_digit` is true of.
pub(crate) fn has_form(text: &str, form: &[u8], is_digit: fn(&u8) -> bool) -> bool {
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { is_digit(byte) } else { byte == form };
    text.len() == form.len() && text.as_bytes().iter().zip(form).all(fits)
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
        // All that ends a plain run within a string is the backslash of an escape.
        Some(plain) if plain_end(plain.as_bytes(), 0) == plain.len() => Ok(Some(Cow::Borrowed(plain))),
        Some(_) => serde_json::from_str(raw).map(|text: String| Some(Cow::Owned(text))),
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    if plain_end(text.as_bytes(), 0) == text.len() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a str is a JSON string and writing to a Vec cannot fail");
    }
}

/// Appends the text that stands at `text` in `out` as a JSON string.
pub(crate) fn push_string_within(out: &mut Vec<u8>, text: Range<usize>) {
    let bytes = out.get(text.clone()).unwrap_or_default();
    if plain_end(bytes, 0) == bytes.len() {
        out.push(b'"');
        out.extend_from_within(text);
        out.push(b'"');
    } else {
        let text = String::from_utf8_lossy(bytes).into_owned();
        push_string(out, &text);
    }
}

/// Appends `number` in decimal.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
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
        let read = members(Part::Record, &mut Scanner::new(raw), |scanner, name| {
            scanner.value()?;
            let start = std::mem::replace(&mut end, scanner.at());
            if gone.contains(&name) {
                cuts.push(start..end);
            }
            Ok(Ok(()))
        });
        assert!(matches!(read, Ok(Ok(_))));
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
        let told = |text| {
            let mut scanner = Scanner::new(text);
            let read = members(Part::Envelope, &mut scanner, |scanner, _| scanner.value().map(|_| Ok(())));
            read.and_then(|read| scanner.end().map(|()| read.is_ok()))
        };
        for text in ["", " ", "{", "{\"a\":1", "123abc", "{} x", "nul", "{\"a\":tru}", "\u{feff}{}", "{\"a\" 1}"] {
            assert!(told(text).is_err(), "{text}");
        }
        for text in ["1", "\"x\"", "[1,{}]", " true "] {
            assert_eq!(told(text), Ok(false), "{text}");
        }
        assert_eq!((told(" {} "), told("null")), (Ok(true), Ok(true)));
    }

    #[test]
    fn the_first_error_is_kept_and_a_syntax_error_behind_it_shows() {
        let told = |text| {
            members(Part::Record, &mut Scanner::new(text), |scanner, name| {
                scanner.value().map(|_| Err(Poison::RejectedField { table: "t", field: name.to_owned() }))
            })
        };
        let kept = told("{\"a\":1,\"b\":2}").expect("JSON").expect_err("rejected");
        assert!(matches!(kept, Poison::RejectedField { field, .. } if field == "a"));
        assert!(told("{\"a\":1,\"b\"}").is_err());
    }

    #[test]
    fn strings_are_written_as_serde_json_writes_them() {
        for text in ["", "plain", "é\u{2028}", "a\"b", "back\\slash", "\u{1}\n"] {
            let mut out = Vec::new();
            push_string(&mut out, text);
            assert_eq!(out, serde_json::to_vec(text).expect("a string"));
        }
    }

    #[test]
    fn shown_names_hold_no_line_breaks_and_are_short() {
        assert_eq!(Shown("a\r\nb").to_string(), "a\\r\\nb");
        assert_eq!(Shown(&"x".repeat(101)).to_string(), format!("{}…", "x".repeat(100)));
    }
}
