//! A table as its users declare it: names and texts, of which [`super::plan`] makes a table.

use super::column::Kind;
use super::settings::UnhandledFields;
use super::subject::Action;

/// Everything that is said of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Its name in PostgreSQL, in subjects and in labels.
    pub name: &'static str,
    /// Whether its events are published; if not, they are skipped.
    pub enabled: bool,
    /// What becomes of fields that are not declared.
    pub unhandled_fields: UnhandledFields,
    /// Which schemas it is published of: a name, with one star for any text. `*` is all.
    pub schema: String,
    /// The columns that identify a row.
    pub key: Vec<String>,
    /// The columns of the primary key, where these are others: a delete carries them alone under the default replica identity.
    pub primary_key: Vec<String>,
    /// The columns with their types, in the order of the database.
    pub columns: Vec<(String, ColumnDeclaration)>,
    /// The routing values, and where each comes from.
    pub routing: Vec<(String, Source)>,
    /// Values that an event must have beside those of subject, event id, order and tenant guard.
    pub required: Vec<String>,
    /// The target subject: `{prefix}.{company_id}.{agent_id}.contacts`.
    pub subject: String,
    /// The event id: `{commit_lsn}:{table}:{key}`.
    pub event_id: String,
    /// What is published.
    pub actions: Vec<Action>,
    /// What order is kept by: [`Self::BY_ROW`] or a routing value.
    pub order_by: String,
    /// Columns that get another name in the enriched event.
    pub rename: Vec<(String, String)>,
    /// Columns that are left out of the enriched event.
    pub drop: Vec<String>,
    /// Columns whose values do not go out.
    pub redact: Vec<(String, Redaction)>,
    /// Which rows are published.
    pub filter: Option<Condition>,
    /// What a schema is called by a routing value: `daisi_{company_id}`.
    pub tenant_guard: Option<String>,
    /// Places, as of [`Mistake::at`](super::Mistake::at), that could not be read. Something else stands there, of which nothing is
    /// to be said; with any of them no table comes of it.
    pub unread: Vec<String>,
}

impl Declaration {
    /// What [`Self::order_by`] is when order is kept row by row.
    pub const BY_ROW: &str = "row";
    /// What [`Self::event_id`] is if nothing is said.
    pub const EVENT_ID: &str = "{commit_lsn}:{table}:{key}";

    /// A table that is enabled, of whose columns and values nothing has been said yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            enabled: true,
            unhandled_fields: UnhandledFields::default(),
            schema: "*".to_owned(),
            key: Vec::new(),
            primary_key: Vec::new(),
            columns: Vec::new(),
            routing: Vec::new(),
            required: Vec::new(),
            subject: String::new(),
            event_id: Self::EVENT_ID.to_owned(),
            actions: Action::ALL.to_vec(),
            order_by: Self::BY_ROW.to_owned(),
            rename: Vec::new(),
            drop: Vec::new(),
            redact: Vec::new(),
            filter: None,
            tenant_guard: None,
            unread: Vec::new(),
        }
    }

    /// Whether a place could not be read.
    pub(super) fn is_unread(&self, place: &str) -> bool {
        self.unread.iter().any(|unread| unread == place)
    }

    /// The name of the value that stands behind the prefix of every subject, which tells tenants apart; `None` where none does.
    pub fn tenant(&self) -> Option<&str> {
        let token = self.subject.strip_prefix("{prefix}.")?.split('.').next()?;
        let name = token.strip_prefix('{')?.strip_suffix('}')?;
        let is_value = name == "schema" || self.routing.iter().any(|(value, _)| value == name);
        is_value.then_some(name)
    }
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDeclaration {
    /// Its type, or that of its elements.
    pub kind: Kind,
    /// Whether it is an array.
    pub is_array: bool,
    /// Whether it may be null or absent.
    pub nullable: bool,
}

impl ColumnDeclaration {
    /// Reads `string`, `array of integer`, `uuid not null`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split_ascii_whitespace().collect();
        let (words, nullable) = match &words[..] {
            [words @ .., "not", "null"] => (words, false),
            words => (words, true),
        };
        let (name, is_array) = match words {
            ["array", "of", name] => (name, true),
            [name] => (name, false),
            _ => return None,
        };
        let (_, kind) = Kind::NAMES.into_iter().find(|(known, _)| known == name)?;
        Some(Self { kind, is_array, nullable })
    }
}

/// Where a routing value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A column.
    Column(String),
    /// A place within a JSON column.
    Pointer {
        /// The column.
        column: String,
        /// The place: a JSON pointer.
        pointer: String,
    },
    /// A part of the schema's name: `daisi_{company_id}`.
    Schema(String),
    /// The same for every row.
    Constant(String),
}

/// How a value is kept from going out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// A hash stands in its place: the same for the same value.
    Hash,
    /// Three stars stand in its place.
    Mask,
}

impl Redaction {
    /// Both, with their names.
    pub const NAMES: [(&'static str, Self); 2] = [("hash", Self::Hash), ("mask", Self::Mask)];
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// A text.
    Text(String),
    /// An integer, `true` or `false`, as it stands in a record. Who wrote it may have meant a text, which is another where it has
    /// a sign or leading zeros.
    Bare(String),
}

/// Which rows are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// All of these hold.
    And(Vec<Condition>),
    /// One of these holds.
    Or(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
    /// The column holds one of these values.
    In {
        /// The column.
        column: String,
        /// The values.
        values: Vec<Literal>,
    },
    /// The column is null or absent.
    IsNull {
        /// The column.
        column: String,
    },
    /// No condition could be made of this; what it holds are these.
    Unread(Vec<Condition>),
}
