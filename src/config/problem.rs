//! What is wrong with a configuration, all of it at once.

use std::fmt;

use super::layers::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting: `nats.url`.
    pub key: String,
    /// The value found, without any secret.
    pub value: String,
    /// Where it was found.
    pub origin: Origin,
    /// Its line, if it was found in a file.
    pub line: Option<usize>,
    /// What is allowed.
    pub expected: String,
}

impl Problem {
    pub(super) fn new(key: &str, value: impl Into<String>, origin: Origin, expected: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: value.into(), origin, line: None, expected: expected.into() }
    }

    /// The same on a line of the file.
    pub(super) fn on(self, line: Option<usize>) -> Self {
        Self { line, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin, line, expected } = self;
        match line {
            Some(line) => write!(f, "{key} = {value} ({origin}, line {line}): expected {expected}"),
            None => write!(f, "{key} = {value} ({origin}): expected {expected}"),
        }
    }
}

/// The configuration cannot be used; printed, it is one line per problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// Everything that is wrong, never empty.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
