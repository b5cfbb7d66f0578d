//! How the rows of a table are identified, routed and named: plain data, of the same kind for typed rows and declarations.

use std::borrow::Cow;

use super::change::Change;
use super::edits::Edits;
use super::error::{Around, Poison};
use super::event_key::joined;
use super::filter::Filter;
use super::path::{FieldPath, Origin};
use super::subject::{Action, encode_token};
use super::table::{Id, IdColumn, RowRead};

/// What becomes of the rows of a table. Places in [`RowRead`] are slots; places in `values` are values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Where the slots are taken from: columns, or places within them.
    pub(super) slots: Vec<FieldPath>,
    /// The slots that identify a row: at least one.
    pub(super) key: Vec<usize>,
    /// The routing values, in the order of the enriched event.
    pub(super) values: Vec<RoutingValue>,
    /// The values that an event must have, in the order they are asked for.
    pub(super) required: Vec<usize>,
    /// The target subject behind its prefix.
    pub(super) subject: Vec<Token>,
    /// The event id.
    pub(super) event_id: Vec<IdPart>,
    /// The value that order is kept by; `None` keeps it by row.
    pub(super) order: Option<usize>,
    /// What is published.
    pub(super) actions: Actions,
    /// Which schemas the table is published of.
    pub(super) schema: Pattern,
    /// The value that is tied to the schema's name.
    pub(super) guard: Option<(usize, Pattern)>,
    /// Which rows are published; `None` is all.
    pub(super) filter: Option<Filter>,
    /// What a delete lacks that carries nothing but the columns of key and primary key.
    pub(super) beyond_key: BeyondKey,
    /// What is changed of a row; `None` is nothing.
    pub(super) edits: Option<Edits>,
}

/// What a table has beside its columns of key and primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum BeyondKey {
    /// No column: a delete always tells everything.
    Nothing,
    /// Columns that no filter goes by.
    #[default]
    Columns,
    /// Columns, by which the filter goes.
    Filtered,
}

/// A routing value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingValue {
    /// Its name, which is that of the enriched event's field, too; it needs no escapes in JSON.
    pub(super) name: String,
    /// Where it comes from.
    pub(super) source: ValueSource,
}

impl RoutingValue {
    /// The slot that it is taken from; `None` where the row itself does not hold it.
    fn slot(&self) -> Option<usize> {
        match self.source {
            ValueSource::Slot(slot) => Some(slot),
            ValueSource::Schema(_) | ValueSource::Constant(_) => None,
        }
    }
}

/// Where a routing value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ValueSource {
    /// A slot of the row.
    Slot(usize),
    /// What stands for the star in the schema's name.
    Schema(Pattern),
    /// The same for every row.
    Constant(String),
}

/// A token of the target subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This text: one or more legal tokens.
    Text(String),
    /// The schema's name.
    Schema,
    /// The action's name.
    Action,
    /// A routing value.
    Value(usize),
}

/// A part of the event id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdPart {
    /// This text.
    Text(String),
    /// Log sequence number of the commit, 0 if there is none.
    Lsn,
    /// Place within the transaction, 0 if there is none.
    Idx,
    /// The schema's name.
    Schema,
    /// The action's name.
    Action,
    /// The row's key.
    Key,
    /// A routing value.
    Value(usize),
}

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Actions([bool; 4]);

impl Default for Actions {
    fn default() -> Self {
        Self([true; 4])
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        let mut set = [false; 4];
        actions.into_iter().for_each(|action| set[action as usize] = true);
        Self(set)
    }
}

impl Actions {
    pub(super) fn contains(self, action: Action) -> bool {
        self.0[action as usize]
    }
}

/// A name with one star that stands for any text, or with none. By default it is the star alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    before: String,
    /// `None` where there is no star.
    after: Option<String>,
}

impl Default for Pattern {
    fn default() -> Self {
        Self::around("", "")
    }
}

impl Pattern {
    /// A star between two texts.
    pub(super) fn around(before: &str, after: &str) -> Self {
        Self { before: before.to_owned(), after: Some(after.to_owned()) }
    }

    /// A name as it is.
    pub(super) fn exactly(name: &str) -> Self {
        Self { before: name.to_owned(), after: None }
    }

    /// Whether a name fits.
    pub(super) fn fits(&self, name: &str) -> bool {
        match self.after {
            Some(_) => self.star(name).is_some(),
            None => name == self.before,
        }
    }

    /// The pattern with something in the place of its star.
    pub(super) fn written(&self, star: &str) -> String {
        match &self.after {
            Some(after) => format!("{}{star}{after}", self.before),
            None => self.before.clone(),
        }
    }

    /// Whether some name can fit both, with something in the place of the other's star.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (Some(after), Some(others)) = (&self.after, &other.after) else {
            return match self.after {
                None => other.star(&self.before).is_some_and(|star| !star.is_empty()),
                Some(_) => self.fits(&other.before),
            };
        };
        let begins = self.before.starts_with(&other.before) || other.before.starts_with(&self.before);
        begins && (after.ends_with(others) || others.ends_with(after))
    }

    /// What stands for the star, possibly nothing; `None` for a name that does not fit.
    pub(super) fn star<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_deref()?)
    }
}

impl Layout {
    /// The layout of a typed row: two routing columns before the table's name in the subject, the others behind it.
    pub(super) fn typed(table: &str, key: IdColumn, routing: &[IdColumn], ids: &[IdColumn]) -> Self {
        let place = |column: IdColumn| ids.iter().position(|id| *id == column).unwrap_or_default();
        let values =
            ids.iter().map(|id| RoutingValue { name: id.name().to_owned(), source: ValueSource::Slot(*id as usize) });
        let mut subject: Vec<_> = routing.iter().map(|column| Token::Value(place(*column))).collect();
        subject.insert(2.min(subject.len()), Token::Text(table.to_owned()));
        Self {
            slots: IdColumn::ALL.map(|column| column.name().into()).to_vec(),
            key: vec![key as usize],
            values: values.collect(),
            required: routing.iter().map(|column| place(*column)).collect(),
            subject,
            event_id: Self::usual_event_id(table),
            ..Self::default()
        }
    }

    /// `LSN:Table:PK`.
    pub(super) fn usual_event_id(table: &str) -> Vec<IdPart> {
        vec![IdPart::Lsn, IdPart::Text(format!(":{table}:")), IdPart::Key]
    }

    /// The values that the subject names, in its order.
    pub(super) fn values_of_subject(&self) -> impl Iterator<Item = usize> {
        self.subject.iter().filter_map(|token| match token {
            Token::Value(value) => Some(*value),
            Token::Text(_) | Token::Schema | Token::Action => None,
        })
    }

    /// The values that the event id names.
    pub(super) fn values_of_id(&self) -> impl Iterator<Item = usize> {
        self.event_id.iter().filter_map(|part| match part {
            IdPart::Value(value) => Some(*value),
            _ => None,
        })
    }

    /// The slots whose texts go out as they are: key and routing values.
    pub(super) fn shown_slots(&self) -> impl Iterator<Item = usize> {
        self.key.iter().copied().chain(self.values.iter().filter_map(RoutingValue::slot))
    }

    /// The subjects that rows are published under behind this prefix, with a wildcard for what rows decide.
    pub(super) fn subject_filters(&self, prefix: &str) -> Vec<String> {
        let by_action = self.subject.contains(&Token::Action);
        let actions = Action::ALL.into_iter().filter(|action| self.actions.contains(*action));
        let actions = actions.take(if by_action { Action::ALL.len() } else { 1 });
        let filter = |action: Action| {
            self.subject.iter().fold(prefix.to_owned(), |subject, token| {
                let token = match token {
                    Token::Text(text) => text.as_str().into(),
                    Token::Action => action.name().into(),
                    Token::Value(value) => match &self.values[*value].source {
                        ValueSource::Constant(text) => encode_token(text),
                        ValueSource::Slot(_) | ValueSource::Schema(_) => "*".into(),
                    },
                    Token::Schema => "*".into(),
                };
                format!("{subject}.{token}")
            })
        };
        actions.map(filter).collect()
    }

    /// The names of the actions that are published.
    pub(super) fn action_names(&self) -> impl Iterator<Item = &'static str> {
        Action::ALL.into_iter().filter(|action| self.actions.contains(*action)).map(Action::name)
    }

    /// What a value is taken from.
    pub(super) fn origin(&self, value: usize) -> Origin {
        let value = &self.values[value];
        match value.source {
            ValueSource::Slot(slot) => Origin::Row(self.slots[slot].clone()),
            ValueSource::Schema(_) => Origin::Schema(value.name.clone()),
            ValueSource::Constant(_) => Origin::Constant(value.name.clone()),
        }
    }
}

/// The values of one row.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The layout of its table.
    pub layout: &'a Layout,
    /// What was read of it.
    pub row: &'a RowRead,
    /// The schema it came from.
    pub schema: &'a str,
    /// The payload that it was read from.
    pub payload: &'a str,
}

impl<'a> Values<'a> {
    /// The values of a row that was changed.
    pub fn new(layout: &'a Layout, change: &'a Change, row: &'a RowRead, payload: &'a str) -> Self {
        Self { layout, row, schema: change.schema.within(payload), payload }
    }

    /// What stands in a slot, empty text included.
    pub(super) fn slot(&self, slot: usize) -> Option<&'a str> {
        match self.row.id(slot) {
            Id::Value(value) => Some(value.within(self.payload)),
            Id::Missing | Id::Unchanged | Id::Within(_) => None,
        }
    }

    /// A routing value, if the row has it; an empty one is none.
    pub(super) fn get(&self, value: usize) -> Option<&'a str> {
        let found = match &self.layout.values[value].source {
            ValueSource::Slot(slot) => self.slot(*slot)?,
            ValueSource::Schema(pattern) => pattern.star(self.schema)?,
            ValueSource::Constant(text) => text,
        };
        (!found.is_empty()).then_some(found)
    }

    /// The row's key, if all of it is there. Several columns are joined by commas, each percent-encoded, so that no two
    /// lists of values become one text.
    pub fn key(&self) -> Option<Cow<'a, str>> {
        let part = |slot: &usize| self.slot(*slot).filter(|text| !text.is_empty());
        if let [slot] = self.layout.key[..] {
            return part(&slot).map(Cow::Borrowed);
        }
        let parts: Option<Vec<&str>> = self.layout.key.iter().map(part).collect();
        Some(Cow::Owned(joined(&parts?)))
    }

    /// What order is kept by: the name of a value and the value, or the key alone; `None` if it is not there.
    pub(super) fn order(&self) -> Option<(Option<&'a str>, Cow<'a, str>)> {
        match self.layout.order {
            None => self.key().map(|key| (None, key)),
            Some(value) => Some((Some(&self.layout.values[value].name), Cow::Borrowed(self.get(value)?))),
        }
    }

    /// Why a delete that carries nothing but columns of key and primary key cannot be published, as a database would send it
    /// under the default replica identity; `None` if it can be as far as that goes.
    pub(super) fn lack_of_columns(&self) -> Option<&'static str> {
        if self.row.more_than_key_columns || self.layout.beyond_key == BeyondKey::Nothing {
            return None;
        }
        let required = self.layout.required.iter().filter_map(|value| self.layout.values[*value].slot());
        if self.layout.key.iter().copied().chain(required).any(|slot| *self.row.id(slot) == Id::Missing) {
            return Some("so its subject is unknown");
        }
        if self.layout.beyond_key == BeyondKey::Filtered {
            return Some("so nobody can tell what the filter would say of it");
        }
        self.row.lacking.map(|_| "so columns that must not be null are not there")
    }

    /// Makes sure that key and routing values are there, and returns the key.
    ///
    /// # Errors
    /// [`Poison::UnchangedToast`], [`Poison::MissingKey`], [`Poison::MissingRouting`] or [`Poison::NotInSchema`].
    pub fn check(&self, table: &'static str) -> Result<Cow<'a, str>, Poison> {
        let layout = self.layout;
        let slot_of = |value: &usize| layout.values[*value].slot();
        let mut needed = layout.key.iter().copied().chain(layout.required.iter().filter_map(slot_of));
        if let Some(slot) = needed.find(|slot| *self.row.id(*slot) == Id::Unchanged) {
            let (column, so) = (layout.slots[slot].clone(), "so the event has no identity or subject");
            return Err(Poison::UnchangedToast { table, column, so });
        }
        let Some(key) = self.key() else {
            let is_missing = |slot: &&usize| self.slot(**slot).is_none_or(str::is_empty);
            let slot = layout.key.iter().find(is_missing).or(layout.key.first()).copied().unwrap_or_default();
            return Err(Poison::MissingKey { table, column: layout.slots[slot].clone() });
        };
        if let Some(value) = layout.required.iter().find(|value| self.get(**value).is_none()) {
            return Err(match slot_of(value) {
                Some(slot) => {
                    let around = match self.row.id(slot) {
                        Id::Within(found) => Around::No(found),
                        Id::Missing | Id::Unchanged | Id::Value(_) => Around::Any,
                    };
                    Poison::MissingRouting { table, value: layout.origin(*value), around }
                }
                None => Poison::NotInSchema { table, value: layout.values[*value].name.clone() },
            });
        }
        Ok(key)
    }

    /// Whether the row is of the tenant that its schema is named after, as far as it tells its tenant.
    ///
    /// # Errors
    /// [`Poison::TenantMismatch`].
    pub fn check_tenant(&self, table: &'static str) -> Result<(), Poison> {
        let Some((value, schema)) = &self.layout.guard else { return Ok(()) };
        match self.get(*value) {
            Some(tenant) if schema.star(self.schema) != Some(tenant) => {
                Err(Poison::TenantMismatch { table, value: self.layout.values[*value].name.clone() })
            }
            _ => Ok(()),
        }
    }
}
