//! Events as commands read them: one, an array, or each on lines of its own; bare, or with subject and headers around.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use cdc_actors::message::Headers;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::envelope::{self, Opened};

/// A subject for events that say nothing of theirs: none of Sequin's forms, so that `metadata` decides.
const NO_SUBJECT: &str = "unknown";

/// Why there are no events to be had from a text.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("cannot read the event from {from}")]
    Unreadable {
        from: String,
        #[source]
        cause: io::Error,
    },
    #[error("{from} is empty: give an event, an array of events, or one event a line")]
    Empty { from: String },
    #[error("{from} is UTF-16, and events are UTF-8: convert it, for instance with iconv -f UTF-16 -t UTF-8")]
    Utf16 { from: String },
    #[error("{from} begins as an array does, and is none")]
    NoArray {
        from: String,
        #[source]
        cause: serde_json::Error,
    },
}

/// Where an event stands among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    /// Which it is, from 1.
    pub index: usize,
    /// The line that it begins on, from 1.
    pub line: usize,
}

/// An event that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// The subject it came under.
    pub subject: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body, byte for byte.
    pub payload: Bytes,
}

/// An event as it was found: where, if it is one of several, and what it is, or why it cannot be had from what is around it.
pub(super) type Found = (Option<Place>, Result<Input, String>);

/// Reads the events of a file, or of standard input if there is none. `subject` and `headers` are those of events that come
/// without.
pub(super) fn read(file: Option<&PathBuf>, subject: Option<&str>, headers: &Headers) -> Result<Vec<Found>, InputError> {
    let from = file.map_or_else(|| "standard input".to_owned(), |file| file.display().to_string());
    let mut bytes = Vec::new();
    let read = match file {
        Some(file) => File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
        None => io::stdin().read_to_end(&mut bytes),
    };
    if let Err(cause) = read {
        return Err(InputError::Unreadable { from, cause });
    }
    if [&b"\xff\xfe"[..], b"\xfe\xff"].iter().any(|mark| bytes.starts_with(mark)) {
        return Err(InputError::Utf16 { from });
    }
    // It says how the file is written and belongs to no event.
    let text = Bytes::from(bytes);
    let text = if text.starts_with(b"\xef\xbb\xbf") { text.slice(3..) } else { text };
    match text.iter().all(u8::is_ascii_whitespace) {
        true => Err(InputError::Empty { from }),
        false => events(&text, subject, headers).map_err(|cause| InputError::NoArray { from, cause }),
    }
}

/// The events in a text: the elements of an array; JSON values that each begin on a line of their own; the lines, if there are
/// several and the first one is a JSON value by itself or another one an object, so that a line that is broken counts as one;
/// else the whole, whatever it is, unless it begins as an array does.
fn events(text: &Bytes, subject: Option<&str>, headers: &Headers) -> Result<Vec<Found>, serde_json::Error> {
    let input = |(place, slice): (Place, &[u8])| (Some(place), one(text.slice_ref(slice), subject, headers));
    let array = serde_json::from_slice::<Vec<&RawValue>>(text);
    if let Ok(array) = &array {
        return Ok(placed(text, array).into_iter().map(input).collect());
    }
    let values = serde_json::Deserializer::from_slice(text).into_iter().collect::<Result<Vec<&RawValue>, _>>();
    let is_one = values.as_ref().is_ok_and(|values| values.len() < 2);
    let values = placed(text, &values.unwrap_or_default());
    if values.len() > 1 && values.is_sorted_by(|(before, _), (after, _)| before.line < after.line) {
        return Ok(values.into_iter().map(input).collect());
    }
    let is_blank = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
    let lines: Vec<(usize, &[u8])> =
        (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, line)| !is_blank(line)).collect();
    let is_json = |line: &[u8]| serde_json::from_slice::<&RawValue>(line).is_ok();
    // Within one event that is written over several lines, or was cut off there, objects are indented.
    let is_event = |line: &[u8]| line.starts_with(b"{") && is_json(line);
    if !is_one && lines.len() > 1 && (is_json(lines[0].1) || lines[1..].iter().any(|(_, line)| is_event(line))) {
        let several = (1..).zip(lines).map(|(index, (line, bytes))| (Place { index, line }, bytes.trim_ascii_end()));
        return Ok(several.map(input).collect());
    }
    match array {
        Err(error) if text.trim_ascii_start().starts_with(b"[") => Err(error),
        _ => Ok(vec![(None, one(text.clone(), subject, headers))]),
    }
}

/// Each value of a text, with its place in it.
fn placed<'a>(text: &[u8], values: &[&'a RawValue]) -> Vec<(Place, &'a [u8])> {
    let (mut read, mut line) = (0, 1);
    let place = |(index, value): (usize, &&'a RawValue)| {
        let value = value.get().as_bytes();
        let begin = value.as_ptr() as usize - text.as_ptr() as usize;
        line += text[read..begin].iter().filter(|byte| **byte == b'\n').count();
        read = begin;
        (Place { index, line }, value)
    };
    (1..).zip(values).map(place).collect()
}

fn one(payload: Bytes, subject: Option<&str>, headers: &Headers) -> Result<Input, String> {
    let Some(opened) = envelope::open(&payload) else { return Ok(event(payload, subject, headers.clone())) };
    let Opened { subject: own, headers: around, body } = opened?;
    Ok(event(body, own.as_deref().or(subject), around.into_iter().chain(headers.iter().cloned()).collect()))
}

/// An event as it is, under `subject` or, if there is none, the one that Sequin would use.
pub(super) fn event(payload: Bytes, subject: Option<&str>, headers: Headers) -> Input {
    let subject = subject.map_or_else(|| subject_of(&payload), str::to_owned);
    Input { subject, headers, payload }
}

/// The subject that Sequin would publish an event under.
fn subject_of(payload: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Event {
        action: String,
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        database_name: String,
        table_schema: String,
        table_name: String,
    }
    serde_json::from_slice(payload).map_or_else(
        |_| NO_SUBJECT.to_owned(),
        |Event { action, metadata: Metadata { database_name, table_schema, table_name } }| {
            format!("sequin.{database_name}.{table_schema}.{table_name}.{action}")
        },
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    fn read(text: &str, subject: Option<&str>) -> Vec<(String, String)> {
        let inputs = events(&Bytes::copy_from_slice(text.as_bytes()), subject, &Headers::new()).unwrap();
        inputs
            .into_iter()
            .map(|(_, input)| input.unwrap())
            .map(|input| (input.subject, String::from_utf8(input.payload.to_vec()).unwrap()))
            .collect()
    }

    fn bare(payloads: &[&str]) -> Vec<(String, String)> {
        payloads.iter().map(|payload| ("s".to_owned(), (*payload).to_owned())).collect()
    }

    #[test]
    fn one_event_an_array_or_lines() {
        assert_eq!(read("{\"a\": 1.10}\n", Some("s")), bare(&["{\"a\": 1.10}\n"]));
        assert_eq!(read("[{\"a\":1.10},\n 7 ]", Some("s")), bare(&["{\"a\":1.10}", "7"]));
        assert_eq!(read("{\"a\":1}\r\n\n{broken\n", Some("s")), bare(&["{\"a\":1}", "{broken"]));
        // A broken line is one among several, also where it is the first.
        assert_eq!(read("{broken\n{\"a\":1}\n{\"a\":2}\n", Some("s")), bare(&["{broken", "{\"a\":1}", "{\"a\":2}"]));
        assert_eq!(read("{\n\"a\": [\n  {},\n  {}\n", Some("s")), bare(&["{\n\"a\": [\n  {},\n  {}\n"]));
        assert_eq!(read("{\"a\": [\n{}\n]}", Some("s")), bare(&["{\"a\": [\n{}\n]}"]));
        // Pretty events one after the other are several; two on a line are none of these forms.
        assert_eq!(read("{\n \"a\": 1\n}\n{\n}\n", Some("s")), bare(&["{\n \"a\": 1\n}", "{\n}"]));
        assert_eq!(read("{} {}", Some("s")), bare(&["{} {}"]));
        // Neither an event that was cut off nor a pretty one is several.
        assert_eq!(read("{\n\"a\": 1\n}", Some("s")), bare(&["{\n\"a\": 1\n}"]));
        assert_eq!(read("{\n\"a\":", Some("s")), bare(&["{\n\"a\":"]));
        assert_eq!((read("", Some("s")), read("[]", None)), (bare(&[""]), vec![]));
    }

    #[test]
    fn several_events_have_places() {
        let places = |text: &'static str| -> Vec<_> {
            let events = events(&Bytes::from_static(text.as_bytes()), None, &Headers::new()).unwrap();
            events.into_iter().map(|(place, _)| place.map(|place| (place.index, place.line))).collect()
        };
        assert_eq!(places("{\n}"), [None]);
        assert_eq!(places("\n[\n{\n},\n\n{}, {}]"), [Some((1, 3)), Some((2, 6)), Some((3, 6))]);
        assert_eq!(places("[{},\n{}]"), [Some((1, 1)), Some((2, 2))]);
        assert_eq!(places("\n{}\n\n{broken\n"), [Some((1, 2)), Some((2, 4))]);
        assert_eq!(places("{\n}\n\n{\n}"), [Some((1, 1)), Some((2, 4))]);
        assert_eq!(places("[1]\n[2]"), [Some((1, 1)), Some((2, 2))]);
        let broken = events(&Bytes::from_static(b" [{},\n{\"a\"}]"), None, &Headers::new()).unwrap_err();
        assert_eq!((broken.line(), broken.column()), (2, 5));
    }

    #[test]
    fn subjects_come_from_around_the_event_the_command_line_or_the_event() {
        let around = r#"{"subject":"own","headers":{"a":"b"},"event":{"x":  9007199254740993}}"#;
        assert_eq!(read(around, Some("s")), [("own".to_owned(), "{\"x\":  9007199254740993}".to_owned())]);
        assert_eq!(read(r#"{"subject":"own","payload":"{"}"#, None), [("own".to_owned(), "{".to_owned())]);
        // As `dead-letters show` writes it.
        let letter = r#"{"sequence":7,"subject":"own","headers":{},"payload":"{","payload_base64":null,"damage":null}"#;
        assert_eq!(read(letter, Some("s")), [("own".to_owned(), "{".to_owned())]);
        let binary = r#"{"subject":"own","headers":{},"payload":null,"payload_base64":"e30="}"#;
        assert_eq!(read(binary, Some("s")), [("own".to_owned(), "{}".to_owned())]);
        let event = r#"{"action":"insert","metadata":{"database_name":"d","table_schema":"s","table_name":"t"}}"#;
        assert_eq!(read(event, None)[0].0, "sequin.d.s.t.insert");
        assert_eq!((read(event, Some("s"))[0].0.as_str(), read("{}", None)[0].0.as_str()), ("s", "unknown"));
    }

    #[test]
    fn a_generated_event_is_read_as_it_was() {
        for event in crate::demo::traffic::Traffic::new(1, 0).take(300) {
            let line = serde_json::to_vec(&envelope::Line::of(&event)).unwrap();
            let (_, input) = events(&line.into(), None, &Headers::new()).unwrap().remove(0);
            let input = input.unwrap();
            assert_eq!((input.subject.as_str(), &input.payload[..]), (event.subject.as_str(), &event.payload[..]));
            assert_eq!(input.headers, [("Nats-Msg-Id".to_owned(), event.message_id)]);
        }
    }
}
