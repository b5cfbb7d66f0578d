//! What letters came to, counted.

use serde_json::{Map, Value, json};

/// How many letters came to which outcome.
#[derive(Debug)]
pub(super) struct Tally(Vec<(&'static str, u64)>);

impl Tally {
    /// None yet; these outcomes are told of in JSON even where there are none.
    pub(super) fn of(outcomes: &[&'static str]) -> Self {
        Self(outcomes.iter().map(|outcome| (*outcome, 0)).collect())
    }

    /// Counts some letters.
    pub(super) fn add(&mut self, outcome: &'static str, letters: usize) {
        let letters = u64::try_from(letters).unwrap_or(u64::MAX);
        match self.0.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, count)) => *count += letters,
            None => self.0.push((outcome, letters)),
        }
    }

    /// How many came to it.
    pub(super) fn count(&self, outcome: &str) -> u64 {
        self.0.iter().find(|(known, _)| *known == outcome).map_or(0, |(_, count)| *count)
    }

    /// For machines.
    pub(super) fn to_json(&self) -> Value {
        let counts: Map<_, _> = self.0.iter().map(|(outcome, count)| ((*outcome).to_owned(), json!(count))).collect();
        json!({ "summary": counts })
    }

    /// For people: outcomes in these words, the first two always, the others where there are any.
    pub(super) fn to_text(&self, words: &[(&str, &str)]) -> String {
        let told = words.iter().enumerate().filter_map(|(place, (outcome, words))| {
            let count = self.count(outcome);
            (place < 2 || count > 0).then(|| format!("{count} {words}"))
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_none_of_is_told_to_machines() {
        let mut tally = Tally::of(&["replayed", "failed", "gone"]);
        tally.add("replayed", 2);
        assert_eq!(tally.to_json(), json!({"summary": {"replayed": 2, "failed": 0, "gone": 0}}));
        let words = [("replayed", "replayed"), ("failed", "stay"), ("gone", "gone")];
        assert_eq!(tally.to_text(&words), "2 replayed, 0 stay");
        tally.add("gone", 1);
        assert_eq!((tally.to_text(&words).as_str(), tally.count("gone")), ("2 replayed, 0 stay, 1 gone", 1));
    }
}
