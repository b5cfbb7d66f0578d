//! Rows that generated traffic has put into a table, to be changed and deleted later.

use fastrand::Rng;

/// Rows kept; of more, one that is no longer changed stays in its table.
const KEPT: usize = 1_000;

/// Some of the rows that a table holds.
#[derive(Debug)]
pub(super) struct Rows<R>(Vec<R>);

impl<R> Default for Rows<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R> Rows<R> {
    /// Keeps a row, if need be in the place of another.
    pub(super) fn put(&mut self, row: R, random: &mut Rng) {
        if self.0.len() < KEPT {
            return self.0.push(row);
        }
        let place = random.usize(0..KEPT);
        self.0[place] = row;
    }

    /// One of them, which is no longer kept; `None` if there is none.
    pub(super) fn take(&mut self, random: &mut Rng) -> Option<R> {
        let place = (!self.0.is_empty()).then(|| random.usize(0..self.0.len()))?;
        Some(self.0.swap_remove(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_are_kept_and_each_is_taken_once() {
        let (mut rows, mut random) = (Rows::default(), Rng::with_seed(1));
        assert_eq!(rows.take(&mut random), None);
        (0..3 * KEPT).for_each(|row| rows.put(row, &mut random));
        let mut taken: Vec<_> = std::iter::from_fn(|| rows.take(&mut random)).collect();
        assert_eq!(taken.len(), KEPT);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), KEPT);
    }
}
