//! Files of cases, as users write them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cdc_actors::message::Headers;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use yaml_rust2::YamlLoader;

use super::yaml::{self, Unfit};
use crate::commands::exact::{Exact, Pointer};
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
    event: Option<Box<RawValue>>,
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
    pub payload: BTreeMap<Pointer, Exact>,
    /// JSON pointers to what must not be in the payload.
    #[serde(default)]
    pub absent: Vec<Pointer>,
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
    cases: Vec<Box<RawValue>>,
}

/// A case of which nothing but its name matters.
#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Settings by name, as variables of the environment would give them.
fn as_texts<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Exact>::deserialize(from)?;
    let text = |(name, value): (String, Exact)| match as_text(&value) {
        Some(text) => Ok((name, text)),
        None => {
            let expected = "a text, a number, true or false, or a list of them in which no text has a comma";
            Err(serde::de::Error::custom(format!("settings: {name} = {value}: expected {expected}")))
        }
    };
    values.into_iter().map(text).collect()
}

/// A number or a switch is as good as its text, and a list as one that is joined by commas.
fn as_text(value: &Exact) -> Option<String> {
    match value {
        Exact::Plain(Value::String(text)) => Some(text.clone()),
        Exact::Plain(Value::Bool(_)) | Exact::Written(_) => Some(value.to_string()),
        Exact::Array(items) => {
            let item = |item: &Exact| match item {
                Exact::Array(_) => None,
                item => as_text(item).filter(|text| !text.contains(',')),
            };
            Some(items.iter().map(item).collect::<Option<Vec<_>>>()?.join(","))
        }
        Exact::Plain(_) | Exact::Object(_) => None,
    }
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
    let (json, unfit) = yaml::to_json(document);
    if let Some(unfit) = unfit.iter().find(|unfit| unfit.case().is_none()) {
        return Err(wrong(String::new(), unfit.told()));
    }
    let raw: RawFile = serde_json::from_str(&json).map_err(|cause| wrong(String::new(), told(&cause)))?;
    if raw.cases.is_empty() {
        // That nothing failed would say nothing.
        return Err(wrong(String::new(), "`cases` is empty: give at least one".to_owned()));
    }
    let cases = raw.cases.iter().enumerate().map(|(index, json)| {
        let of_it: Vec<_> = unfit.iter().filter(|unfit| unfit.case() == Some(index)).map(Unfit::told).collect();
        let name = serde_json::from_str(json.get()).map(|Named { name }| name).unwrap_or_default();
        let at = |problem| wrong(place(index + 1, &name), problem);
        if !of_it.is_empty() {
            return Err(at(of_it.join("; ")));
        }
        let case: Case = serde_json::from_str(json.get()).map_err(|cause| at(told(&cause)))?;
        match (&case.event, &case.json) {
            (Some(_), None) | (None, Some(_)) => Ok(case),
            _ => Err(at("it needs either `event` (a mapping) or `json` (a text, byte for byte)".to_owned())),
        }
    });
    Ok(File { cases: cases.collect(), settings: raw.settings })
}

/// What is wrong with JSON that nobody has written, and so without its place.
fn told(error: &serde_json::Error) -> String {
    let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

impl Case {
    /// The event as the service would be given it.
    pub(super) fn input(&self) -> Input {
        let payload = match (&self.json, &self.event) {
            (Some(text), _) => text.clone(),
            (None, event) => event.as_ref().map(|event| event.get().to_owned()).unwrap_or_default(),
        };
        let headers: Headers = self.headers.clone().into_iter().collect();
        input::event(Bytes::from(payload), self.subject.as_deref(), headers)
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
        let event =
            parse(Path::new(""), &case("{name: b, event: {b: 1.10, a: 1e2}, expect: {verdict: skip}}")).unwrap();
        assert_eq!(event.cases[1].as_ref().unwrap().input().payload, r#"{"b":1.10,"a":1e2}"#);
        for (text, expected) in [
            ("cases: [", "cases.yaml: "),
            ("cases: 1", "cases.yaml: invalid type"),
            ("", "one document"),
            ("cases: []", "cases.yaml: `cases` is empty"),
            (&case("{name: b, expect: {verdict: skip}}"), "case 2 (b): it needs either"),
            (&case("{name: b, event: {}, expect: {verdict: maybe}}"), "case 2 (b): unknown variant `maybe`"),
            (&case("{name: b, event: {}, expect: {verdct: skip}}"), "case 2 (b): unknown field `verdct`"),
            (&case("{event: {}, expect: {verdict: skip}}"), "case 2: missing field `name`"),
            (
                &case("{name: b, event: {a: .inf}, expect: {verdict: skip}}"),
                "case 2 (b): event.a: .inf is no number of JSON",
            ),
            (
                &case("{name: b, event: {a: [{1: a}]}, expect: {verdict: skip}}"),
                "case 2 (b): event.a.0: Integer(1) is no text: names are texts",
            ),
            ("settings: {workers: .5}\ncases: []", "cases.yaml: settings.workers: .5 is no number"),
            (
                "settings: {a: b}\ncases: []\nmore: 1",
                "cases.yaml: unknown field `more`, expected `settings` or `cases`",
            ),
        ] {
            assert!(said(text).contains(expected) && !said(text).contains(" at line"), "{text}: {}", said(text));
        }
    }
}
