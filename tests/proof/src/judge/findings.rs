//! What a judge says.

use std::fmt;

use serde::Serialize;

/// How many examples of each symptom are told.
const EXAMPLES: usize = 5;

/// A way in which the promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Symptom {
    /// A change is neither in the target nor in the dead letters.
    Lost,
    /// A change is in the target more than once.
    Doubled,
    /// A row's changes are out of order, and nothing says so.
    Inverted,
    /// The source took something for done that was not stored.
    AckedEarly,
    /// Something is wrong with what was stored.
    Wrong,
}

/// A promise broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// How.
    pub symptom: Symptom,
    /// How often, and examples.
    pub text: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.symptom, self.text)
    }
}

/// Counts and examples.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Findings {
    /// Messages that the source has stored.
    pub sent: usize,
    /// Events in the target.
    pub stored: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Messages of tables that are not allowed.
    pub skipped: usize,
    /// Messages that repeat a change.
    pub repeated: usize,
    /// Inversions that carry `Cdc-Late`.
    pub late: usize,
    /// Inversions between replicas, or lives of one where there are several: allowed, and counted.
    pub inverted_across: usize,
    /// Events of which nothing tells which of several replicas stored them: their order within one is not judged.
    pub unattributed: usize,
    /// Samples of what the source took for done.
    pub samples: usize,
    /// Changes that are nowhere.
    pub lost: Examples,
    /// Changes that are in the target more than once.
    pub doubled: Examples,
    /// Inversions that nothing tells of.
    pub inverted: Examples,
    /// What the source took for done before it was stored.
    pub acked_early: Examples,
    /// What was stored and should be otherwise, or not at all.
    pub wrong: Examples,
}

/// A count with a few examples.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Examples {
    /// How many.
    pub count: usize,
    /// The first few.
    pub examples: Vec<String>,
}

impl Examples {
    /// One more.
    pub fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

impl Findings {
    fn of(&self, symptom: Symptom) -> &Examples {
        match symptom {
            Symptom::Lost => &self.lost,
            Symptom::Doubled => &self.doubled,
            Symptom::Inverted => &self.inverted,
            Symptom::AckedEarly => &self.acked_early,
            Symptom::Wrong => &self.wrong,
        }
    }

    /// Whether it shows a symptom.
    pub fn shows(&self, symptom: Symptom) -> bool {
        self.of(symptom).count > 0
    }

    /// The promises that were broken.
    pub fn broken(&self) -> Vec<Broken> {
        let all = [Symptom::Lost, Symptom::Doubled, Symptom::Inverted, Symptom::AckedEarly, Symptom::Wrong];
        let shown = all.into_iter().filter(|symptom| self.shows(*symptom));
        shown
            .map(|symptom| {
                let Examples { count, examples } = self.of(symptom);
                Broken { symptom, text: format!("{count}: {}", examples.join("; ")) }
            })
            .collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} sent, {} stored, {} dead letters, {} lost, {} doubled, {} out of order, {} late, {} across replicas, {} unattributed, {} acked early, {} wrong",
            self.sent,
            self.stored,
            self.dead_letters,
            self.lost.count,
            self.doubled.count,
            self.inverted.count,
            self.late,
            self.inverted_across,
            self.unattributed,
            self.acked_early.count,
            self.wrong.count,
        )
    }
}
