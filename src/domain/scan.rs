//! One pass over JSON text, without copying and without recursion: what is passed over is checked as strictly as what is read.
//!
//! The service looks at a few fields and hands the rest on byte for byte, so it needs positions, not values. Parsers of values
//! visit the record twice (once to find where it ends, once for its columns); this visits every byte once. What is JSON is
//! decided as RFC 8259 and `serde_json` decide it: property tests and the fuzz target `json` hold the two against each other.

use std::borrow::Cow;

/// Text that is not JSON: where that shows, and what belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Bytes before the place.
    pub at: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl Malformed {
    /// Line and column within `text`, both from 1; the column counts bytes.
    pub fn place(&self, text: &str) -> (usize, usize) {
        line_and_column(text.as_bytes().get(..self.at).unwrap_or(text.as_bytes()))
    }
}

/// Line and column of what stands behind these bytes, both from 1; the column counts bytes.
pub(crate) fn line_and_column(before: &[u8]) -> (usize, usize) {
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (before.iter().filter(|byte| **byte == b'\n').count() + 1, before.len() - line_start + 1)
}

/// A place in JSON text, moving on as values are read.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// In front of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// In front of `part`, which was cut from `text`, and unable to go beyond it.
    pub fn within(text: &'a str, part: &str) -> Self {
        let at = offset(text, part);
        Self { text: text.get(..at + part.len()).unwrap_or(text), at }
    }

    /// The text from its very start, what was read already included.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// What was read since `start`.
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Bytes before this place.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space, without reading it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                _ => return Some(*byte),
            }
        }
        None
    }

    #[cold]
    fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { at: self.at, expected }
    }

    /// Makes sure that nothing but white space follows.
    ///
    /// # Errors
    /// Anything else.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.malformed("the end")),
        }
    }

    /// Reads a value of any type and returns it as it stands.
    ///
    /// # Errors
    /// Text that is not JSON.
    #[inline]
    pub fn value(&mut self) -> Result<&'a str, Malformed> {
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'{' | b'[') => self.nested()?,
            first => self.scalar(first)?,
        }
        Ok(self.since(start))
    }

    /// Reads an object: `member` is called behind each name and must read the value. Returns the object as it stands.
    ///
    /// # Errors
    /// Text that is not JSON, or no object.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Malformed>,
    ) -> Result<&'a str, Malformed> {
        self.take(b'{', "an object")?;
        let start = self.at - 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let (name, has_escapes) = self.name()?;
                let name = match has_escapes {
                    false => Cow::Borrowed(name),
                    true => Cow::Owned(decoded(name).ok_or_else(|| Malformed {
                        at: offset(self.text, name) - 1,
                        expected: "a name that is Unicode text",
                    })?),
                };
                member(self, name)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(b'}') => break self.at += 1,
                    _ => return Err(self.malformed("a comma or the end of the object")),
                }
            }
        }
        Ok(self.since(start))
    }

    /// Reads an array: `element` is called in front of each value and must read it.
    ///
    /// # Errors
    /// Text that is not JSON, or no array.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        self.take(b'[', "an array")?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            element(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.malformed("a comma or the end of the array")),
            }
        }
    }

    /// Goes over the values in an array, those of arrays within it included, and says whether `fits` was true of all.
    ///
    /// # Errors
    /// Text that is not JSON.
    pub fn elements(&mut self, fits: impl Fn(&'a str) -> bool) -> Result<bool, Malformed> {
        let mut all = true;
        // The text is JSON, so that brackets and commas are where they belong and need no look.
        while let Some(byte) = self.peek() {
            match byte {
                b'[' | b']' | b',' => self.at += 1,
                _ => all &= fits(self.value()?),
            }
        }
        Ok(all)
    }

    #[inline]
    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(self.malformed(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a name and its colon; returns the name between its quotes, escapes untouched, and whether there are any.
    #[inline]
    fn name(&mut self) -> Result<(&'a str, bool), Malformed> {
        if self.peek() != Some(b'"') {
            return Err(self.malformed("a name in quotes"));
        }
        let start = self.at + 1;
        let has_escapes = self.string()?;
        let name = self.text.get(start..self.at - 1).unwrap_or_default();
        self.take(b':', "a colon")?;
        Ok((name, has_escapes))
    }

    #[inline]
    fn scalar(&mut self, first: Option<u8>) -> Result<(), Malformed> {
        match first {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.malformed("a value")),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), Malformed> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(self.malformed("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a string from its opening quote to behind its closing one; tells whether it holds escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Malformed> {
        self.at += 1;
        let mut has_escapes = false;
        loop {
            self.at = plain_end(self.text.as_bytes(), self.at);
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(has_escapes);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.malformed("no control character in a string")),
                None => return Err(self.malformed("the end of the string")),
            }
        }
    }

    /// Reads an escape. Whether `\u` makes a character is seen when the string is decoded, if it ever is.
    fn escape(&mut self) -> Result<(), Malformed> {
        let bytes = self.text.as_bytes();
        let length = match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => match bytes.get(self.at + 2..self.at + 6) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 6,
                _ => return Err(self.malformed("four hex digits behind \\u")),
            },
            _ => return Err(self.malformed("an escape that JSON knows")),
        };
        self.at += length;
        Ok(())
    }

    /// Reads a number of any size.
    fn number(&mut self) -> Result<(), Malformed> {
        let byte = |scanner: &Self| scanner.text.as_bytes().get(scanner.at).copied();
        if byte(self) == Some(b'-') {
            self.at += 1;
        }
        match byte(self) {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if byte(self).is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.malformed("no digit behind a leading zero"));
        }
        if byte(self) == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = byte(self) {
            self.at += 1;
            if let Some(b'+' | b'-') = byte(self) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        match rest.iter().take_while(|byte| byte.is_ascii_digit()).count() {
            0 => Err(self.malformed("a digit")),
            count => {
                self.at += count;
                Ok(())
            }
        }
    }

    /// Reads an object or array with all that is in it.
    fn nested(&mut self) -> Result<(), Malformed> {
        let mut open = Open::default();
        loop {
            match self.peek() {
                Some(opening @ (b'{' | b'[')) => {
                    self.at += 1;
                    let is_object = opening == b'{';
                    if self.peek() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        open.push(is_object);
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                first => self.scalar(first)?,
            }
            // A value has ended, and with it what it was the last of.
            loop {
                let Some(is_object) = open.innermost() else { return Ok(()) };
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if is_object {
                            self.name()?;
                        }
                        break;
                    }
                    Some(b'}') if is_object => self.at += 1,
                    Some(b']') if !is_object => self.at += 1,
                    _ => return Err(self.malformed("a comma or the end of what is open")),
                }
                open.pop();
            }
        }
    }
}

/// The text of a raw string's inside that holds escapes; `None` if they make no Unicode text.
fn decoded(inner: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{inner}\"")).ok()
}

/// Which of object and array is open, level by level, one bit each: the first 64 levels need no memory of their own.
#[derive(Debug, Default)]
struct Open {
    depth: usize,
    inner: u64,
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.inner = self.inner << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn innermost(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.inner & 1 == 1)
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.inner >>= 1;
        if self.depth.is_multiple_of(64)
            && let Some(outer) = self.outer.pop()
        {
            self.inner = outer;
        }
    }
}

/// Where the bytes end, from `start` on, that a JSON string can hold as they are: neither quote nor backslash nor control
/// character.
#[inline]
pub(crate) fn plain_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let special = special(u64::from_le_bytes(*chunk));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &&u8| **byte >= 0x20 && **byte != b'"' && **byte != b'\\';
    at + bytes.get(at..).unwrap_or_default().iter().take_while(is_plain).count()
}

/// The highest bit of each byte that a string cannot hold as it is. Only the lowest bit set is exact: a borrow may set some
/// above it. (Determine if a word has a byte equal to or less than n: Bit Twiddling Hacks, S. E. Anderson.)
const fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    const fn zero(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word
    }
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64)) | control) & HIGHS
}

/// Where `part`, which was cut from `whole`, begins in it.
pub(crate) fn offset(whole: &str, part: &str) -> usize {
    // Addresses are compared, never followed; saturating and min keep a foreign slice from doing harm.
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What the scanner makes of a text: the value as it stands, or where it stops.
    fn scanned(text: &str) -> Result<&str, Malformed> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value()?;
        scanner.end().map(|()| value)
    }

    fn agrees(text: &str) {
        let theirs = serde_json::from_str::<&RawValue>(text).map(RawValue::get);
        assert_eq!(scanned(text).ok(), theirs.ok(), "{text:?}");
    }

    #[test]
    fn json_is_what_serde_json_takes_for_it() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "{}",
            "[]",
            " { } ",
            "[ ]",
            "{\"a\":1}",
            "{\"a\" : [1 , 2.5e-7 ,{}]}",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "nul",
            "null",
            "nulll",
            "true",
            "false",
            "tru",
            "\"",
            "\"a",
            "\"a\"",
            "\"\\\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\u1234\"",
            "\"\\ud800\"",
            "\"\\x\"",
            "\"a\nb\"",
            "\"a\u{1f}b\"",
            "\"\u{7f}\"",
            "0",
            "-0",
            "-",
            "01",
            "-01",
            "1.",
            "1.0",
            ".1",
            "1e",
            "1e5",
            "1E+5",
            "1e-",
            "+1",
            "1 2",
            "1,2",
            "\u{feff}{}",
            "[1 2]",
            "[[[[]]]]",
            "[{\"a\":[{}]}]",
            "[}",
            "{]",
            "[{\"a\":1]",
            "\"é\u{2028}\"",
            "\"12345678\"",
            "\"1234567\\\"\"",
            "\"\u{80}\"",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn nesting_of_any_depth_is_read_without_recursion() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 100_000] {
            let (open, close) = ("[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert!(scanned(&format!("{open}1{close}")).is_ok(), "{depth}");
            assert!(scanned(&format!("{open}1{}", "]}".repeat(depth))).is_err(), "{depth}");
            assert!(scanned(&open).is_err(), "{depth}");
        }
    }

    #[test]
    fn a_place_is_told_by_line_and_column() {
        let text = "{\n \"a\" 1}";
        let malformed = scanned(text).expect_err("no colon");
        assert_eq!((malformed.expected, malformed.place(text)), ("a colon", (2, 6)));
    }

    #[test]
    fn members_are_handed_over_as_they_stand() {
        let text = "{ \"a\" : 1 , \"\\u0062\":[2, \"]\"] }";
        let mut members = Vec::new();
        let read = Scanner::new(text).object(|scanner, name| {
            members.push((name.into_owned(), scanner.value()?));
            Ok(())
        });
        assert_eq!(read, Ok(text));
        assert_eq!(members, [("a".to_owned(), "1"), ("b".to_owned(), "[2, \"]\"]")]);
        assert!(Scanner::new("{\"\\ud800\":1}").object(|scanner, _| scanner.value().map(drop)).is_err());
    }

    #[test]
    fn a_part_is_scanned_in_its_place() {
        let text = "{\"a\":{\"b\":1},\"c\":2}";
        let part = &text[5..12];
        let mut scanner = Scanner::within(text, part);
        assert_eq!((scanner.at(), scanner.value(), scanner.end()), (5, Ok(part), Ok(())));
    }

    proptest! {
        #[test]
        fn every_byte_that_ends_a_plain_run_is_found(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let expected = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(plain_end(&bytes, 0), expected.unwrap_or(bytes.len()));
        }

        #[test]
        fn random_text_is_judged_as_serde_json_judges_it(text in "[\\[\\]{}\",:\\\\ue0-9+\\-. \ntruefalsn]{0,24}") {
            agrees(&text);
        }

        #[test]
        fn damaged_json_is_judged_as_serde_json_judges_it(
            at in any::<prop::sample::Index>(), with in any::<char>(), cut in any::<bool>(),
        ) {
            let whole = r#"{"a":[1,-2.5e+10,"x\n\u00e9"],"b":{"c":null,"d":true},"e":""}"#;
            let at = at.index(whole.len());
            let damaged = match cut {
                true => whole[..at].to_owned(),
                false => format!("{}{with}{}", &whole[..at], &whole[at + 1..]),
            };
            agrees(&damaged);
        }
    }
}
