//! Which rows are published: conditions on columns that always have an answer, or name the column that did not come.

use super::layout::Values;
use super::path::FieldPath;
use super::table::Id;

/// A condition on the slots of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All of these hold.
    And(Vec<Filter>),
    /// One of these holds.
    Or(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// The slot holds one of these texts. What is null is none of them.
    In {
        /// The slot.
        slot: usize,
        /// The texts.
        texts: Vec<String>,
        /// Whether small and capital letters are the same, as in a UUID.
        any_case: bool,
    },
    /// The slot is null or absent.
    IsNull(usize),
}

impl Filter {
    /// Whether it holds; the slot of a column that arrived as `unchanged_toast` if that would decide.
    pub(super) fn holds(&self, values: Values<'_>) -> Result<bool, usize> {
        match self {
            Self::And(all) => any(all, values, false).map(|found| !found),
            Self::Or(some) => any(some, values, true),
            Self::Not(inner) => inner.holds(values).map(|holds| !holds),
            Self::In { slot, .. } | Self::IsNull(slot) if *values.row.id(*slot) == Id::Unchanged => Err(*slot),
            Self::In { slot, texts, any_case } => Ok(values.slot(*slot).is_some_and(|is| match any_case {
                true => texts.iter().any(|text| text.eq_ignore_ascii_case(is)),
                false => texts.iter().any(|text| text == is),
            })),
            Self::IsNull(slot) => Ok(values.slot(*slot).is_none()),
        }
    }
}

impl Filter {
    /// The conditions on single slots that it is made of.
    pub(super) fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::And(inner) | Self::Or(inner) => inner.iter().flat_map(Self::leaves).collect(),
            Self::Not(inner) => inner.leaves(),
            Self::In { .. } | Self::IsNull(_) => vec![self],
        }
    }

    /// Those of them that are not within a negation.
    pub(super) fn asked_for(&self) -> Vec<&Self> {
        match self {
            Self::And(inner) | Self::Or(inner) => inner.iter().flat_map(Self::asked_for).collect(),
            Self::Not(_) => Vec::new(),
            Self::In { .. } | Self::IsNull(_) => vec![self],
        }
    }

    /// The condition for people, who know the slots by these names.
    pub(super) fn told(&self, slots: &[FieldPath]) -> String {
        let joined = |inner: &[Self], by: &str| {
            let inner: Vec<_> = inner.iter().map(|one| one.told(slots)).collect();
            format!("({})", inner.join(by))
        };
        match self {
            Self::And(all) => joined(all, " and "),
            Self::Or(some) => joined(some, " or "),
            Self::Not(inner) => format!("not {}", inner.told(slots)),
            Self::In { slot, texts, .. } => match &texts[..] {
                [one] => format!("{} is {one:?}", slots[*slot]),
                several => format!("{} is one of {several:?}", slots[*slot]),
            },
            Self::IsNull(slot) => format!("{} is null", slots[*slot]),
        }
    }
}

/// Whether one of the conditions comes to `wanted`, whatever the undecided ones would.
fn any(conditions: &[Filter], values: Values<'_>, wanted: bool) -> Result<bool, usize> {
    let mut undecided = None;
    for condition in conditions {
        match condition.holds(values) {
            Ok(holds) if holds == wanted => return Ok(true),
            Ok(_) => {}
            Err(slot) => undecided = undecided.or(Some(slot)),
        }
    }
    undecided.map_or(Ok(false), Err)
}
