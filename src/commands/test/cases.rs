//! Files of cases, as users write them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cdc_actors::message::Headers;
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use yaml_rust2::{Yaml, YamlLoader};

use crate::commands::input::{self, Input};
use crate::config::{ConfigError, Origin};

/// Why a file of cases cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::commands) enum CasesError {
    #[error("{}: it cannot be read", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{}: {cause}", file.display())]
    NotYaml {
        file: PathBuf,
        #[source]
        cause: yaml_rust2::ScanError,
    },
    #[error("{}: {place}{problem}", file.display())]
    Wrong { file: PathBuf, place: String, problem: String },
    #[error("{}: {place}settings: {problems}", file.display())]
    Settings { file: PathBuf, place: String, problems: String },
}

impl CasesError {
    /// Settings of a file or of one of its cases that the configuration does not take.
    pub(super) fn settings(file: &Path, place: &str, error: &ConfigError) -> Self {
        // Where each was found is where they all stand, however they were brought in.
        let told = error.problems.iter().map(|problem| match problem.origin {
            Origin::Environment(_) => format!("{} = {}: expected {}", problem.key, problem.value, problem.expected),
            Origin::Default | Origin::File(_) => problem.to_string(),
        });
        let problems = told.collect::<Vec<_>>().join("; ");
        Self::Settings { file: file.to_owned(), place: place.to_owned(), problems }
    }
}

/// A file of cases.
#[derive(Debug)]
pub(super) struct File {
    /// Settings on top of the configuration, by name, for every case.
    pub settings: BTreeMap<String, String>,
    /// The cases, in order; one that cannot be used takes no other with it.
    pub cases: Vec<Result<Case, CasesError>>,
}

/// One event and what should become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    /// What it shows.
    pub name: String,
    /// Settings of this case alone.
    #[serde(default, deserialize_with = "as_texts")]
    pub settings: BTreeMap<String, String>,
    subject: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    event: Option<Value>,
    json: Option<String>,
    /// What should become of it.
    pub expect: Expect,
}

/// What is expected; what is not named does not matter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    pub verdict: Verdict,
    pub reason: Option<String>,
    pub detail: Option<String>,
    pub subject: Option<String>,
    pub event_id: Option<String>,
    pub event_key: Option<String>,
    pub unhandled_fields: Option<Vec<String>>,
    /// Headers by name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Values by JSON pointer.
    #[serde(default)]
    pub payload: BTreeMap<String, Value>,
    /// JSON pointers to what must not be in the payload.
    #[serde(default)]
    pub absent: Vec<String>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Publish,
    Skip,
    DeadLetter,
}

impl Verdict {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Skip => "skip",
            Self::DeadLetter => "dead_letter",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default, deserialize_with = "as_texts")]
    settings: BTreeMap<String, String>,
    cases: Vec<Value>,
}

/// Settings by name: a number or a switch is as good as its text.
fn as_texts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(from)?;
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, CasesError> {
        let text =
            std::fs::read_to_string(path).map_err(|cause| CasesError::Unreadable { file: path.to_owned(), cause })?;
        parse(path, &text)
    }
}

/// How a case is named among the others of its file.
pub(super) fn place(number: usize, name: &str) -> String {
    if name.is_empty() { format!("case {number}: ") } else { format!("case {number} ({name}): ") }
}

fn parse(path: &Path, text: &str) -> Result<File, CasesError> {
    let wrong = |place: String, problem: String| CasesError::Wrong { file: path.to_owned(), place, problem };
    let documents =
        YamlLoader::load_from_str(text).map_err(|cause| CasesError::NotYaml { file: path.to_owned(), cause })?;
    let [document] = documents.as_slice() else {
        return Err(wrong(String::new(), format!("one document is expected, not {}", documents.len())));
    };
    let value = to_json(document).map_err(|problem| wrong(String::new(), problem))?;
    let raw: RawFile = serde_json::from_value(value).map_err(|cause| wrong(String::new(), cause.to_string()))?;
    if raw.cases.is_empty() {
        // That nothing failed would say nothing.
        return Err(wrong(String::new(), "`cases` is empty: give at least one".to_owned()));
    }
    let cases = (1..).zip(raw.cases).map(|(number, value)| {
        let name = value["name"].as_str().unwrap_or_default().to_owned();
        let at = |problem| wrong(place(number, &name), problem);
        let case: Case = serde_json::from_value(value).map_err(|cause| at(cause.to_string()))?;
        match (&case.event, &case.json) {
            (Some(_), None) | (None, Some(_)) => Ok(case),
            _ => Err(at("it needs either `event` (a mapping) or `json` (a text, byte for byte)".to_owned())),
        }
    });
    Ok(File { cases: cases.collect(), settings: raw.settings })
}

impl Case {
    /// The event as the service would be given it.
    pub(super) fn input(&self) -> Input {
        let payload = match (&self.json, &self.event) {
            (Some(text), _) => text.clone(),
            (None, event) => event.as_ref().map(Value::to_string).unwrap_or_default(),
        };
        let headers: Headers = self.headers.clone().into_iter().collect();
        input::event(Bytes::from(payload), self.subject.as_deref(), headers)
    }
}

fn to_json(yaml: &Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Boolean(value) => Value::Bool(*value),
        Yaml::Integer(value) => Value::from(*value),
        Yaml::Real(text) => number(text)?,
        Yaml::String(text) => Value::String(text.clone()),
        Yaml::Array(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Hash(fields) => {
            let mut object = Map::new();
            for (name, value) in fields {
                let Some(name) = name.as_str() else {
                    return Err(format!("{name:?} is no text: names are texts; put it in quotes"));
                };
                object.insert(name.to_owned(), to_json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Alias(_) | Yaml::BadValue => return Err("an alias stands for nothing".to_owned()),
    })
}

/// A number that is no 64-bit integer; one that would not survive must be written as `json`.
fn number(text: &str) -> Result<Value, String> {
    if let Ok(number) = text.parse::<u64>() {
        return Ok(number.into());
    }
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    let number = number.ok_or_else(|| format!("{text} is no number of JSON"))?;
    let same = number.to_string() == text;
    if same {
        Ok(Value::Number(number))
    } else {
        Err(format!("{text} would become {number}: write the event as `json`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let usable = |file: File| file.cases.into_iter().collect::<Result<Vec<Case>, _>>();
        parse(Path::new("cases.yaml"), text)
            .and_then(usable)
            .map_or_else(|error| error.to_string(), |cases| cases.len().to_string())
    }

    #[test]
    fn mistakes_say_where_they_are() {
        let case = |rest: &str| format!("cases:\n- {{name: a, json: '{{}}', expect: {{verdict: skip}}}}\n- {rest}\n");
        assert_eq!(said(&case("{name: b, event: {}, expect: {verdict: publish, payload: {/a: 1.5}}}")), "2");
        for (text, expected) in [
            ("cases: [", "cases.yaml: "),
            ("cases: 1", "cases.yaml: invalid type"),
            ("", "one document"),
            ("cases: []", "cases.yaml: `cases` is empty"),
            (&case("{name: b, expect: {verdict: skip}}"), "case 2 (b): it needs either"),
            (&case("{name: b, event: {}, expect: {verdict: maybe}}"), "case 2 (b): unknown variant `maybe`"),
            (&case("{name: b, event: {}, expect: {verdct: skip}}"), "case 2 (b): unknown field `verdct`"),
            (&case("{event: {}, expect: {verdict: skip}}"), "case 2: missing field `name`"),
            (&case("{name: b, event: {a: 1.10}, expect: {verdict: skip}}"), "1.10 would become 1.1"),
            (&case("{name: b, event: {1: a}, expect: {verdict: skip}}"), "names are texts"),
        ] {
            assert!(said(text).contains(expected), "{text}: {}", said(text));
        }
    }
}
