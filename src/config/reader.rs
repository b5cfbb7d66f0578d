//! Turns settings as found into values of the right type and range, and collects what is wrong on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::ValueKind;

use super::layers::{Entries, Layers, Origin, Setting};
use super::problem::Problem;
use super::reload::{Digests, TableNames};
use super::shape::Shape;
use super::values::{self, Choice, redact_url, written_duration, written_size};
use super::yaml::{exact, written};
use super::{InForce, Whereabouts};
use crate::domain::event_key::sha256_hex;
use crate::domain::{Declaration, Mistake};
use crate::secret::Secret;

/// What the parser of one setting says: the value, or what is allowed.
type Parsed<T> = Result<T, String>;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// How a value may be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Plain,
    Redacted,
}

/// What a setting was asked for as.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// What it may be.
    pub shape: Shape,
    /// Whether it may be null.
    pub optional: bool,
}

/// Reads settings by key. A bad one is noted and replaced by its default, so that reading goes on and everything that
/// is wrong is found in one run; the replacement is never used, since a problem means that there is no `Config`.
pub(super) struct Reader<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<Problem>,
    bad: BTreeSet<String>,
    seen: BTreeSet<String>,
    asked: BTreeMap<String, Asked>,
    secret: BTreeSet<String>,
    names: &'a mut TableNames,
    tenants: Vec<Tenant>,
    whereabouts: Whereabouts,
    absent: Vec<String>,
}

/// A declared table, be it sound or not, and what tells its tenants apart.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    /// The table.
    pub table: &'static str,
    /// Whether its events are published.
    pub enabled: bool,
    /// The name of the value behind the prefix of its subjects.
    pub value: Option<String>,
}

impl<'a> Reader<'a> {
    pub fn new(
        layers: &'a Layers,
        whereabouts: Whereabouts,
        names: &'a mut TableNames,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let (bad, seen, secret) = <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
        let (asked, tenants, absent) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { layers, problems, bad, seen, asked, secret, names, tenants, whereabouts, absent }
    }

    /// Files that are not here and need not be, one sentence each.
    pub fn absent(&self) -> &[String] {
        &self.absent
    }

    /// The name of a table, as long as the process lives.
    pub fn kept(&mut self, table: &str) -> &'static str {
        self.names.keep(table)
    }

    /// What tells whether another configuration says the same.
    pub fn digests(&self) -> Digests {
        let settings = self.layers.all().into_iter();
        Digests(settings.map(|(key, setting)| (key, sha256_hex(exact(&setting.value).as_bytes()))).collect())
    }

    /// Every key that was asked for.
    pub fn seen(&self) -> &BTreeSet<String> {
        &self.seen
    }

    /// What every setting may be, but for the entries of declared tables.
    pub fn asked(&self) -> &BTreeMap<String, Asked> {
        &self.asked
    }

    /// Takes note of what a setting is asked for as.
    fn ask(&mut self, key: &str, shape: Shape, optional: bool) {
        self.seen.insert(key.to_owned());
        self.asked.insert(key.to_owned(), Asked { shape, optional });
    }

    /// The tables that are declared.
    pub fn declared(&self) -> &'a BTreeMap<String, Entries> {
        &self.layers.declared
    }

    /// The line on which a table is declared in a file.
    pub fn line_of(&self, table: &str) -> Option<usize> {
        self.layers.lines.get(table).copied()
    }

    /// Whether a table is declared, be it in the place of a typed one.
    pub fn is_declared(&self, table: &str) -> bool {
        self.layers.declared.contains_key(table)
    }

    /// Takes note of what tells the tenants of a declared table apart.
    pub fn note_tenant(&mut self, declaration: &Declaration) {
        let value = declaration.tenant().map(str::to_owned);
        self.tenants.push(Tenant { table: declaration.name, enabled: declaration.enabled, value });
    }

    /// What tells the tenants of the declared tables apart.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.tenants.clone()
    }

    /// Takes note of a setting that was read elsewhere.
    pub fn note_seen(&mut self, key: &str) {
        self.seen.insert(key.to_owned());
    }

    /// Notes what is wrong with a declaration that stands at `section`.
    pub fn note_mistake(&mut self, section: &str, mistake: Mistake, line: Option<usize>, entry: Option<&Setting>) {
        let Mistake { at, value, expected } = mistake;
        let key = if at.is_empty() { section.to_owned() } else { format!("{section}.{at}") };
        let origin = entry.map_or(Origin::Default, |setting| setting.origin.clone());
        self.bad.insert(key.clone());
        self.problems.push(Problem::new(&key, format!("{value:?}"), origin, expected).on(line));
    }

    /// Every setting with its value as it may be shown.
    pub fn in_force(&self) -> Vec<InForce> {
        let settings = self.layers.all();
        let shown = settings.iter().map(|(key, setting)| {
            let shown = if self.secret.contains(key) { Shown::Redacted } else { Shown::Plain };
            let value = visible(key, &setting.value, shown);
            InForce { key: key.clone(), value, origin: setting.origin.to_string() }
        });
        shown.collect()
    }

    /// Whether none of these settings is wrong by itself, so that it makes sense to hold them against each other.
    pub fn sound(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.bad.contains(*key))
    }

    /// Notes that a setting, right by itself, cannot be used.
    pub fn refuse(&mut self, key: &str, expected: impl Into<String>) {
        let setting = self.layers.get(key);
        let value = setting.map_or_else(String::new, |s| show(key, &s.value, Shown::Plain));
        let origin = setting.map_or(Origin::Default, |s| s.origin.clone());
        self.bad.insert(key.to_owned());
        self.problems.push(Problem::new(key, value, origin, expected).on(setting.and_then(|s| s.line)));
    }

    /// Reads an optional setting: null and the empty variable are "not set".
    fn optional<T>(
        &mut self,
        key: &str,
        shape: Shape,
        shown: Shown,
        parse: impl Fn(&ValueKind) -> Parsed<T>,
    ) -> Option<T> {
        self.ask(key, shape, true);
        if shown == Shown::Redacted {
            self.secret.insert(key.to_owned());
        }
        let setting = self.layers.effective.get(key)?;
        match &setting.value {
            ValueKind::Nil => None,
            ValueKind::String(text) if text.is_empty() => None,
            value => match parse(value) {
                Ok(value) => Some(value),
                Err(expected) => {
                    self.bad.insert(key.to_owned());
                    let problem = Problem::new(key, show(key, value, shown), setting.origin.clone(), expected);
                    self.problems.push(problem.on(setting.line));
                    None
                }
            },
        }
    }

    /// Reads a setting that must have a value.
    fn required<T: Default>(&mut self, key: &str, shape: Shape, parse: impl Fn(&ValueKind) -> Parsed<T>) -> T {
        self.ask(key, shape, false);
        let found = self.layers.effective.get(key);
        let parsed = found.map_or(Err("a value".to_owned()), |setting| parse(&setting.value));
        parsed.unwrap_or_else(|expected| {
            self.refuse(key, expected);
            self.layers.defaults.get(key).and_then(|setting| parse(&setting.value).ok()).unwrap_or_default()
        })
    }

    pub fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        self.required(key, Shape::Duration, |value| duration_in(value, &range))
    }

    pub fn optional_duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.optional(key, Shape::Duration, Shown::Plain, |value| duration_in(value, &range))
    }

    pub fn size(&mut self, key: &str, range: RangeInclusive<u64>) -> u64 {
        self.required(key, Shape::Size, |value| size_in(value, &range))
    }

    pub fn optional_size(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.optional(key, Shape::Size, Shown::Plain, |value| size_in(value, &range))
    }

    pub fn integer<T>(&mut self, key: &str, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + TryInto<i128> + Copy + Default + PartialOrd + Display,
    {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let bound = |bound: T, instead| bound.try_into().unwrap_or(instead);
        let shape = Shape::Integer(bound(*range.start(), i128::MIN), bound(*range.end(), i128::MAX));
        self.required(key, shape, |value| {
            whole_number(value)
                .and_then(|number| T::try_from(number).ok())
                .filter(|number| range.contains(number))
                .ok_or_else(|| allowed.clone())
        })
    }

    pub fn flag(&mut self, key: &str) -> bool {
        self.required(key, Shape::Flag, |value| match value {
            ValueKind::Boolean(flag) => Ok(*flag),
            ValueKind::String(text) => text.parse().map_err(|_| "true or false".to_owned()),
            _ => Err("true or false".to_owned()),
        })
    }

    pub fn choice<T: Choice + Default>(&mut self, key: &str) -> T {
        let names: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
        self.required(key, Shape::Choice(names.clone()), |value| {
            let text = text_of(value).unwrap_or_default();
            let found = T::ALL.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| format!("one of {}", names.join(", ")))
        })
    }

    pub fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let parse = |value: &ValueKind| {
            let address = text_of(value).and_then(|text| text.parse().ok());
            address.map(Some).ok_or_else(|| "an IP address and port, such as 0.0.0.0:8080 or [::]:8080".to_owned())
        };
        self.required(key, Shape::Text, parse)
    }

    /// A text that `check` accepts.
    pub fn text(&mut self, key: &str, check: impl Fn(&str) -> Parsed<()>) -> String {
        self.required(key, Shape::Text, |value| checked_text(value, &check))
    }

    pub fn optional_text(&mut self, key: &str, check: impl Fn(&str) -> Parsed<()>) -> Option<String> {
        self.optional(key, Shape::Text, Shown::Plain, |value| checked_text(value, &check))
    }

    /// One or more texts that `check` accepts one by one.
    pub fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Parsed<T>) -> Vec<T> {
        self.required(key, Shape::Texts, |value| {
            let items = items_of(value).ok_or("a list of strings, or one string with commas")?;
            if items.is_empty() {
                return Err("at least one entry".to_owned());
            }
            items.iter().map(|item| parse(item)).collect()
        })
    }

    pub fn parsed<T: Default>(&mut self, key: &str, parse: impl Fn(&str) -> Parsed<T>) -> T {
        self.required(key, Shape::Text, |value| parse(text_of(value).ok_or("a string")?))
    }

    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        self.optional(key, Shape::Text, Shown::Redacted, |value| {
            // A bare number would have lost leading zeros and digits before it got here.
            let text = text_of(value).ok_or("a string; put it in quotes")?;
            Ok(Secret::from(text))
        })
    }

    /// Whether a setting names a file that is not here and need not be, of which note is taken. What is no absolute path may be the
    /// secret itself, in the place of its file.
    fn need_not_be_here(&mut self, key: &str) -> bool {
        let setting = self.layers.effective.get(key).filter(|_| self.whereabouts == Whereabouts::Elsewhere);
        let Some((setting, path)) = setting.and_then(|setting| Some((setting, text_of(&setting.value)?))) else {
            return false;
        };
        let is_absent = || std::fs::metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        if !Path::new(path).is_absolute() || !is_absent() {
            return false;
        }
        let shown = show(key, &setting.value, Shown::Plain);
        let line = setting.line.map(|line| format!(", line {line}")).unwrap_or_default();
        self.absent
            .push(format!("{key} = {shown} ({}{line}): there is no such file here, `run` needs it", setting.origin));
        true
    }

    /// A secret in the file that a setting names, which can be read and is not empty.
    pub fn secret_file(&mut self, key: &str) -> Option<Secret> {
        let absent = self.need_not_be_here(key);
        self.optional(key, Shape::Text, Shown::Plain, |value| {
            let secret = Secret::File(text_of(value).ok_or("the path of a file")?.into());
            match secret.read() {
                _ if absent => Ok(secret),
                Ok(_) => Ok(secret),
                Err(error) => Err(format!("a readable file that is not empty ({})", error.cause())),
            }
        })
    }

    /// The path of a file that can be read.
    pub fn file(&mut self, key: &str) -> Option<PathBuf> {
        let absent = self.need_not_be_here(key);
        self.optional(key, Shape::Text, Shown::Plain, |value| {
            let path = PathBuf::from(text_of(value).ok_or("the path of a file")?);
            match std::fs::File::open(&path).and_then(|file| file.metadata()) {
                _ if absent => Ok(path),
                Ok(found) if found.is_file() => Ok(path),
                Ok(_) => Err("a file, not a directory".to_owned()),
                Err(cause) => Err(format!("a readable file ({cause})")),
            }
        })
    }
}

/// A value in an error message: text is in quotes, since white space may be what is wrong with it.
fn show(key: &str, value: &ValueKind, shown: Shown) -> String {
    let visible = visible(key, value, shown);
    if matches!(value, ValueKind::String(_)) && visible != HIDDEN { format!("{visible:?}") } else { visible }
}

/// A value without its secrets.
fn visible(key: &str, value: &ValueKind, shown: Shown) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let hidden = shown == Shown::Redacted || matches!(name, "password" | "token");
    let safe = |text: &str| match name {
        "url" => redact_url(text),
        // Somebody may have put the secret itself in the place of its file.
        _ if name.ends_with("_file") && !text.starts_with(['/', '.']) => "*** (no path)".to_owned(),
        _ => text.to_owned(),
    };
    match value {
        ValueKind::Nil => "null".to_owned(),
        _ if hidden => HIDDEN.to_owned(),
        ValueKind::String(text) => safe(text),
        ValueKind::Array(items) => items.iter().map(|item| safe(&written(&item.kind))).collect::<Vec<_>>().join(","),
        other => safe(&written(other)),
    }
}

pub(super) fn text_of(value: &ValueKind) -> Option<&str> {
    match value {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

fn checked_text(value: &ValueKind, check: impl Fn(&str) -> Parsed<()>) -> Parsed<String> {
    let text = text_of(value).ok_or("a string; put it in quotes")?;
    check(text).map(|()| text.to_owned())
}

pub(super) fn items_of(value: &ValueKind) -> Option<Vec<&str>> {
    match value {
        ValueKind::String(text) if text.trim().is_empty() => Some(Vec::new()),
        ValueKind::String(text) => Some(text.split(',').map(str::trim).collect()),
        ValueKind::Array(items) => items.iter().map(|item| text_of(&item.kind)).collect(),
        _ => None,
    }
}

fn whole_number(value: &ValueKind) -> Option<i64> {
    match value {
        ValueKind::I64(number) => Some(*number),
        ValueKind::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn duration_in(value: &ValueKind, range: &RangeInclusive<Duration>) -> Parsed<Duration> {
    let parsed = text_of(value).and_then(|text| humantime::parse_duration(text).ok());
    parsed.filter(|duration| range.contains(duration)).ok_or_else(|| {
        let (least, most) = (written_duration(*range.start()), written_duration(*range.end()));
        format!("a duration from {least} to {most}, such as 500ms, 30s, 2m or 7d")
    })
}

fn size_in(value: &ValueKind, range: &RangeInclusive<u64>) -> Parsed<u64> {
    let parsed = match value {
        ValueKind::String(text) => values::size(text),
        other => whole_number(other).and_then(|number| u64::try_from(number).ok()),
    };
    parsed.filter(|size| range.contains(size)).ok_or_else(|| {
        let (least, most) = (written_size(*range.start()), written_size(*range.end()));
        format!("a size from {least} to {most}, such as 64MiB, 64MB or a number of bytes")
    })
}
