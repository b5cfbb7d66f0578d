//! Whether the events of a row come in order.

use std::collections::HashMap;

use crate::proxy::LifeId;

/// A change's place in the history of the source: how often that was created again before, how often it had gone back to
/// sequences of before, and the sequence.
pub(super) type Position = (u64, u64, u64);

/// What an event's place in the target does to the order of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing that is later was stored before.
    Kept,
    /// Its own life has stored a later one before.
    BrokenWithinLife,
    /// A later one was stored before, and not by its own life, as far as that is known.
    Broken,
}

/// The furthest position that was stored, by row.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    by_all: HashMap<&'a str, Position>,
    by_life: HashMap<(&'a str, LifeId), Position>,
}

impl<'a> Rows<'a> {
    /// The next event of the target.
    pub fn stored(&mut self, row: &'a str, position: Position, author: Option<LifeId>) -> Order {
        let before = raise(self.by_all.entry(row).or_default(), position);
        let before_by_life = author.is_some_and(|life| raise(self.by_life.entry((row, life)).or_default(), position));
        match (before, before_by_life) {
            (_, true) => Order::BrokenWithinLife,
            (true, false) => Order::Broken,
            (false, false) => Order::Kept,
        }
    }
}

/// Whether a position lies before the furthest, which it raises otherwise.
fn raise(furthest: &mut Position, position: Position) -> bool {
    let before = position < *furthest;
    *furthest = position.max(*furthest);
    before
}

#[cfg(test)]
mod tests {
    use super::Order::{Broken, BrokenWithinLife as Within, Kept};
    use super::*;

    #[test]
    fn the_furthest_counts_and_not_the_last() {
        let mut rows = Rows::default();
        let mut stored = |position, life| rows.stored("row", (0, 0, position), Some(LifeId(life)));
        let orders =
            [(1, 1), (4, 1), (2, 1), (3, 1), (3, 2), (6, 2), (5, 1), (5, 2)].map(|(at, life)| stored(at, life));
        assert_eq!(orders, [Kept, Kept, Within, Within, Broken, Kept, Broken, Within]);
    }

    #[test]
    fn a_source_that_begins_again_is_later_in_all_it_has() {
        let mut rows = Rows::default();
        let orders = [(0, 0, 9), (0, 1, 8), (1, 0, 1), (0, 1, 10)].map(|position| rows.stored("row", position, None));
        assert_eq!(orders, [Kept, Kept, Kept, Broken]);
    }
}
