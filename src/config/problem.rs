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
    /// What is allowed.
    pub expected: String,
}

impl Problem {
    pub(super) fn new(key: &str, value: impl Into<String>, origin: Origin, expected: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: value.into(), origin, expected: expected.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} ({}): expected {}", self.key, self.value, self.origin, self.expected)
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
