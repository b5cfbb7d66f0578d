//! Where in an event something stands: fields, places within their values, JSON pointers.

use std::fmt;

/// A field, or a place within its value. It is small, since every result that may be a poison has room for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Inner);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Inner {
    /// The value of a field that is known beforehand.
    Known(&'static str),
    /// A field, and the JSON pointer from its value on: empty for the value itself.
    Any(Box<(String, String)>),
}

impl FieldPath {
    /// The place that `steps` lead to from the value of a field on.
    pub(super) fn new(field: &str, steps: &[String]) -> Self {
        let within = steps.iter().map(|step| format!("/{}", escaped(step))).collect();
        Self(Inner::Any(Box::new((field.to_owned(), within))))
    }

    fn parts(&self) -> (&str, &str) {
        match &self.0 {
            Inner::Known(field) => (field, ""),
            Inner::Any(parts) => (&parts.0, &parts.1),
        }
    }

    /// The field's name.
    pub(super) fn field(&self) -> &str {
        self.parts().0
    }

    /// The names and numbers on the way from the field's value on.
    pub(super) fn steps(&self) -> impl Iterator<Item = String> {
        steps(self.parts().1)
    }

    /// Whether it is the value of a field itself.
    pub(super) fn is_whole(&self) -> bool {
        self.parts().1.is_empty()
    }

    /// The JSON pointer from the object on that has the field.
    pub(super) fn pointer(&self) -> String {
        let (field, within) = self.parts();
        format!("/{}{within}", escaped(field))
    }
}

impl From<&'static str> for FieldPath {
    fn from(field: &'static str) -> Self {
        Self(Inner::Known(field))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (field, within) = self.parts();
        let mark = if within.is_empty() { "" } else { "#" };
        write!(f, "{field}{mark}{within}")
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

/// The names and numbers on the way that a JSON pointer describes, at least one; `None` for what is no pointer.
pub fn way(pointer: &str) -> Option<Vec<String>> {
    let is_escape = |at: usize| matches!(pointer.as_bytes().get(at + 1), Some(b'0' | b'1'));
    let is_pointer = pointer.starts_with('/') && pointer.match_indices('~').all(|(at, _)| is_escape(at));
    is_pointer.then(|| steps(pointer).collect())
}
