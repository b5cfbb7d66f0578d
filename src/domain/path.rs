//! Where in an event something stands: fields, places within their values, JSON pointers.

use std::borrow::Cow;
use std::fmt;

/// A field, or a place within its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    /// The field's name.
    field: Cow<'static, str>,
    /// The JSON pointer from its value on; empty for the value itself.
    within: Box<str>,
}

impl FieldPath {
    /// The place that `steps` lead to from the value of a field on.
    pub(super) fn new(field: &str, steps: &[String]) -> Self {
        let within: String = steps.iter().map(|step| format!("/{}", escaped(step))).collect();
        Self { field: Cow::Owned(field.to_owned()), within: within.into() }
    }

    /// The field's name.
    pub(super) fn field(&self) -> &str {
        &self.field
    }

    /// The names and numbers on the way from the field's value on.
    pub(super) fn steps(&self) -> impl Iterator<Item = String> {
        steps(&self.within)
    }

    /// Whether it is the value of a field itself.
    pub(super) fn is_whole(&self) -> bool {
        self.within.is_empty()
    }

    /// The JSON pointer from the object on that has the field.
    pub(super) fn pointer(&self) -> String {
        format!("/{}{}", escaped(&self.field), self.within)
    }
}

impl From<&'static str> for FieldPath {
    fn from(field: &'static str) -> Self {
        Self { field: Cow::Borrowed(field), within: Box::default() }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_whole() { "" } else { "#" };
        write!(f, "{}{mark}{}", self.field, self.within)
    }
}

/// What a routing value is taken from. Messages call it by the column, else by the value's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The row.
    Row(FieldPath),
    /// The schema's name.
    Schema(String),
    /// The configuration.
    Constant(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row(path) => path.fmt(f),
            Self::Schema(name) | Self::Constant(name) => f.write_str(name),
        }
    }
}

/// A name as a step of a JSON pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The names and numbers on the way that a JSON pointer describes.
pub(super) fn steps(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
}
