//! The settings that decide what the transform does.

use serde::Deserialize;

use super::declared::DeclaredTable;

/// Everything the transform can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformConfig {
    /// First token, or tokens, of every target subject.
    pub subject_prefix: String,
    /// What becomes of routing values that are no legal subject token.
    pub unsafe_tokens: UnsafeTokens,
    /// One entry per table.
    pub tables: Tables,
}

impl Default for TransformConfig {
    fn default() -> Self {
        Self { subject_prefix: "wa".to_owned(), unsafe_tokens: UnsafeTokens::default(), tables: Tables::default() }
    }
}

/// What becomes of a routing value that is no legal subject token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnsafeTokens {
    /// It is percent-encoded, reversibly.
    #[default]
    Encode,
    /// The event is dead-lettered.
    Reject,
}

/// What becomes of fields that the table does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnhandledFields {
    /// They stay in `row_data` as they came.
    #[default]
    Keep,
    /// They are cut out of `row_data` and `changes`.
    Drop,
    /// The event is dead-lettered.
    Reject,
}

/// The settings of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSettings {
    /// Whether its events are published; if not, they are skipped.
    pub enabled: bool,
    /// What becomes of fields that the table does not know.
    pub unhandled_fields: UnhandledFields,
}

impl Default for TableSettings {
    fn default() -> Self {
        Self { enabled: true, unhandled_fields: UnhandledFields::default() }
    }
}

/// The settings of every table; by default those of typed rows are enabled, and there are no others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// Table `messages`.
    pub messages: TableSettings,
    /// Table `chats`.
    pub chats: TableSettings,
    /// Table `agents`.
    pub agents: TableSettings,
    /// The tables that are declared. One that is called as a typed row's replaces it.
    pub declared: Vec<DeclaredTable>,
}
