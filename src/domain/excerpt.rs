//! Parts of a payload, kept by their place in it: nothing is copied until it is written where it goes.

use std::borrow::Cow;

use super::scan::offset;

/// A stretch of the payload, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// Where `part`, which was cut from `payload`, stands in it.
    pub(crate) fn of(payload: &str, part: &str) -> Self {
        let start = offset(payload, part);
        Self { start, end: start + part.len() }
    }

    /// What stands there; nothing if it was taken of another payload.
    pub fn within(self, payload: &str) -> &str {
        payload.get(self.start..self.end).unwrap_or_default()
    }
}

/// A text of the payload: where it stands, or itself if it was written with escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Excerpt {
    /// It stands there as it is.
    At(Span),
    /// Decoded.
    Decoded(Box<str>),
}

impl Excerpt {
    /// Keeps a text that was read from `payload`.
    pub(crate) fn of(payload: &str, text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(part) => Self::At(Span::of(payload, part)),
            Cow::Owned(text) => Self::Decoded(text.into()),
        }
    }

    /// The text.
    pub fn within<'a>(&'a self, payload: &'a str) -> &'a str {
        match self {
            Self::At(span) => span.within(payload),
            Self::Decoded(text) => text,
        }
    }
}
