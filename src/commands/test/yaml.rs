//! YAML as JSON text: a number stays as it is written.

use std::fmt::Display;

use serde_json::value::RawValue;
use yaml_rust2::Yaml;

/// A value that JSON has not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    /// Names and numbers on the way to it.
    at: Vec<String>,
    problem: String,
}

impl Unfit {
    /// The place in the list `cases` that it is within, from 0.
    pub(super) fn case(&self) -> Option<usize> {
        match &self.at[..] {
            [list, place, ..] if list == "cases" => place.parse().ok(),
            _ => None,
        }
    }

    /// What is wrong, and where within its case or file.
    pub(super) fn told(&self) -> String {
        let outside = if self.case().is_some() { 2 } else { 0 };
        let at = self.at[outside..].join(".");
        if at.is_empty() { self.problem.clone() } else { format!("{at}: {}", self.problem) }
    }
}

/// A document as JSON, with null where it has what JSON has not, and all of that.
pub(super) fn to_json(document: &Yaml) -> (String, Vec<Unfit>) {
    let mut writer = Writer::default();
    writer.write(document);
    (writer.text, writer.unfit)
}

#[derive(Default)]
struct Writer {
    text: String,
    at: Vec<String>,
    unfit: Vec<Unfit>,
}

impl Writer {
    fn write(&mut self, yaml: &Yaml) {
        match yaml {
            Yaml::Null => self.text.push_str("null"),
            Yaml::Boolean(value) => self.text.push_str(&value.to_string()),
            Yaml::Integer(value) => self.text.push_str(&value.to_string()),
            Yaml::Real(text) if is_number(text) => self.text.push_str(text),
            Yaml::Real(text) => self.give_up(format!("{text} is no number of JSON")),
            Yaml::String(text) => self.string(text),
            Yaml::Array(items) => {
                self.text.push('[');
                for (place, item) in items.iter().enumerate() {
                    self.member(place, |writer| writer.write(item));
                }
                self.text.push(']');
            }
            Yaml::Hash(fields) => {
                self.text.push('{');
                let named = fields.iter().filter_map(|(name, value)| Some((name.as_str()?, value)));
                for (place, (name, value)) in named.enumerate() {
                    self.field(place, name, value);
                }
                self.text.push('}');
                for name in fields.keys().filter(|name| name.as_str().is_none()) {
                    self.tell(format!("{name:?} is no text: names are texts; put it in quotes"));
                }
            }
            Yaml::Alias(_) | Yaml::BadValue => self.give_up("an alias stands for nothing".to_owned()),
        }
    }

    fn field(&mut self, place: usize, name: &str, value: &Yaml) {
        if place > 0 {
            self.text.push(',');
        }
        self.string(name);
        self.text.push(':');
        self.within(name, |writer| writer.write(value));
    }

    fn member(&mut self, place: usize, write: impl FnOnce(&mut Self)) {
        if place > 0 {
            self.text.push(',');
        }
        self.within(place, write);
    }

    fn within(&mut self, step: impl Display, write: impl FnOnce(&mut Self)) {
        self.at.push(step.to_string());
        write(self);
        self.at.pop();
    }

    fn string(&mut self, text: &str) {
        self.text.push_str(&serde_json::Value::from(text).to_string());
    }

    fn give_up(&mut self, problem: String) {
        self.text.push_str("null");
        self.tell(problem);
    }

    fn tell(&mut self, problem: String) {
        self.unfit.push(Unfit { at: self.at.clone(), problem });
    }
}

fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    begins && serde_json::from_str::<&RawValue>(text).is_ok()
}
