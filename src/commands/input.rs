//! Events as commands read and write them: one, an array, or one a line; bare, or with subject and headers around.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use cdc_actors::message::Headers;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::demo::traffic::SourceEvent;

/// A subject for events that say nothing of theirs: none of Sequin's forms, so that `metadata` decides.
const NO_SUBJECT: &str = "unknown";

/// An event with subject and headers around it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    subject: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body, which is JSON.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    /// The body as a text, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

impl<'a> Line<'a> {
    /// A generated event.
    pub(super) fn of(event: &'a SourceEvent) -> Self {
        let json = serde_json::from_slice(&event.payload).ok();
        Self {
            subject: event.subject.clone(),
            headers: BTreeMap::from([("Nats-Msg-Id".to_owned(), event.message_id.clone())]),
            payload: json.is_none().then(|| String::from_utf8_lossy(&event.payload).into_owned()),
            event: json,
        }
    }
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

/// Reads a file, or standard input if there is none.
pub(super) fn read(file: Option<&PathBuf>) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    match file {
        Some(file) => File::open(file)?.read_to_end(&mut bytes)?,
        None => io::stdin().read_to_end(&mut bytes)?,
    };
    Ok(bytes.into())
}

/// The events in a text: the elements of an array, the lines if the first one is a JSON value by itself and there are
/// several, else the whole, whatever it is. `subject` and `headers` are those of events that come without.
pub(super) fn events(text: &Bytes, subject: Option<&str>, headers: &Headers) -> Vec<Input> {
    let input = |slice: &[u8]| one(text.slice_ref(slice), subject, headers);
    if let Ok(array) = serde_json::from_slice::<Vec<&RawValue>>(text) {
        return array.iter().map(|element| input(element.get().as_bytes())).collect();
    }
    let is_blank = |line: &&[u8]| line.iter().all(u8::is_ascii_whitespace);
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !is_blank(line)).collect();
    let is_json = |line: &[u8]| serde_json::from_slice::<&RawValue>(line).is_ok();
    if lines.len() > 1 && is_json(lines[0]) {
        return lines.into_iter().map(|line| input(line.strip_suffix(b"\r").unwrap_or(line))).collect();
    }
    vec![input(text)]
}

fn one(payload: Bytes, subject: Option<&str>, headers: &Headers) -> Input {
    if let Ok(line) = serde_json::from_slice::<Line>(&payload)
        && line.event.is_some() != line.payload.is_some()
    {
        let own = line.headers.into_iter();
        let body = match (line.event, line.payload) {
            (Some(event), _) => payload.slice_ref(event.get().as_bytes()),
            (None, text) => text.unwrap_or_default().into(),
        };
        return Input { subject: line.subject, headers: own.chain(headers.iter().cloned()).collect(), payload: body };
    }
    event(payload, subject, headers.clone())
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
        let inputs = events(&Bytes::copy_from_slice(text.as_bytes()), subject, &Headers::new());
        inputs.into_iter().map(|input| (input.subject, String::from_utf8(input.payload.to_vec()).unwrap())).collect()
    }

    fn bare(payloads: &[&str]) -> Vec<(String, String)> {
        payloads.iter().map(|payload| ("s".to_owned(), (*payload).to_owned())).collect()
    }

    #[test]
    fn one_event_an_array_or_lines() {
        assert_eq!(read("{\"a\": 1.10}\n", Some("s")), bare(&["{\"a\": 1.10}\n"]));
        assert_eq!(read("[{\"a\":1.10},\n 7 ]", Some("s")), bare(&["{\"a\":1.10}", "7"]));
        assert_eq!(read("{\"a\":1}\r\n\n{broken\n", Some("s")), bare(&["{\"a\":1}", "{broken"]));
        // Neither an event that was cut off nor a pretty one is several.
        assert_eq!(read("{\n\"a\": 1\n}", Some("s")), bare(&["{\n\"a\": 1\n}"]));
        assert_eq!(read("{\n\"a\":", Some("s")), bare(&["{\n\"a\":"]));
        assert_eq!((read("", Some("s")), read("[]", None)), (bare(&[""]), vec![]));
    }

    #[test]
    fn subjects_come_from_around_the_event_the_command_line_or_the_event() {
        let around = r#"{"subject":"own","headers":{"a":"b"},"event":{"x":  9007199254740993}}"#;
        assert_eq!(read(around, Some("s")), [("own".to_owned(), "{\"x\":  9007199254740993}".to_owned())]);
        assert_eq!(read(r#"{"subject":"own","payload":"{"}"#, None), [("own".to_owned(), "{".to_owned())]);
        let event = r#"{"action":"insert","metadata":{"database_name":"d","table_schema":"s","table_name":"t"}}"#;
        assert_eq!(read(event, None)[0].0, "sequin.d.s.t.insert");
        assert_eq!((read(event, Some("s"))[0].0.as_str(), read("{}", None)[0].0.as_str()), ("s", "unknown"));
    }

    #[test]
    fn a_generated_event_is_read_as_it_was() {
        for event in crate::demo::traffic::Traffic::new(1, 0).take(300) {
            let line = serde_json::to_vec(&Line::of(&event)).unwrap();
            let inputs = events(&line.into(), None, &Headers::new());
            assert_eq!(
                (inputs[0].subject.as_str(), &inputs[0].payload[..]),
                (event.subject.as_str(), &event.payload[..])
            );
            assert_eq!(inputs[0].headers, [("Nats-Msg-Id".to_owned(), event.message_id)]);
        }
    }
}
