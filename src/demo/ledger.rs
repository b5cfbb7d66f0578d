//! The ledger of the demo: what was fed against what came of it.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use cdc_actors::ports::Observer;
use cdc_actors::telemetry::{Outcome, Telemetry};

use super::traffic::Expected;

/// How many events ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Published.
    pub published: u64,
    /// Dropped as published before.
    pub duplicates: u64,
    /// Not ours.
    pub skipped: u64,
    /// In the dead-letter stream.
    pub dead_lettered: u64,
}

impl Counts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.published + self.duplicates + self.skipped + self.dead_lettered
    }

    /// Counts one event that was fed.
    pub fn expect(&mut self, expected: Expected) {
        match expected {
            Expected::Published => self.published += 1,
            Expected::Duplicate => self.duplicates += 1,
            Expected::Skipped => self.skipped += 1,
            Expected::DeadLettered => self.dead_lettered += 1,
        }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Processed => self.published += 1,
            Outcome::Duplicate => self.duplicates += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::DeadLettered => self.dead_lettered += 1,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, duplicates, skipped, dead_lettered } = self;
        write!(f, "{published} published + {duplicates} duplicates + {skipped} skipped + {dead_lettered} dead-lettered")
    }
}

/// Passes telemetry on, counting how events end and how long they take.
pub struct Tally {
    next: std::sync::Arc<dyn Observer>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    counts: Counts,
    latencies: Vec<Duration>,
}

impl Tally {
    /// In front of `next`.
    pub fn new(next: std::sync::Arc<dyn Observer>) -> Self {
        Self { next, seen: Mutex::new(Seen::default()) }
    }

    /// How many have ended, and how.
    pub fn counts(&self) -> Counts {
        self.seen().counts
    }

    /// The latency, received to acknowledged, that this share of the events stayed within; `None` without events.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let mut seen = self.seen();
        seen.latencies.sort_unstable();
        let last = seen.latencies.len().checked_sub(1)?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index within the list"
        )]
        let index = (last as f64 * share).round() as usize;
        seen.latencies.get(index).copied()
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Observer for Tally {
    fn observe(&self, event: Telemetry<'_>) {
        if let Telemetry::Settled { outcome, took, .. } = event {
            let mut seen = self.seen();
            seen.counts.count(outcome);
            seen.latencies.push(took);
        }
        self.next.observe(event);
    }
}

/// What stands in the streams in the end, and what should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// What was fed, by what should become of it.
    pub fed: Counts,
    /// What the service says became of it.
    pub ended: Counts,
    /// Messages in the target stream.
    pub in_target: u64,
    /// Messages in the dead-letter stream.
    pub in_dead_letters: u64,
}

impl Ledger {
    /// Every way in which it does not add up.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut hold = |what: &str, is: u64, should: u64| {
            if is != should {
                faults.push(format!("{what}: {is}, should be {should}"));
            }
        };
        hold("published", self.ended.published, self.fed.published);
        hold("duplicates", self.ended.duplicates, self.fed.duplicates);
        hold("skipped", self.ended.skipped, self.fed.skipped);
        hold("dead-lettered", self.ended.dead_lettered, self.fed.dead_lettered);
        hold("in the target stream", self.in_target, self.fed.published);
        hold("in the dead-letter stream", self.in_dead_letters, self.fed.dead_lettered);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FED: Counts = Counts { published: 5, duplicates: 2, skipped: 1, dead_lettered: 3 };

    #[test]
    fn a_ledger_that_adds_up_has_no_faults() {
        let ledger = Ledger { fed: FED, ended: FED, in_target: 5, in_dead_letters: 3 };
        assert!(ledger.faults().is_empty());
    }

    #[test]
    fn an_event_lost_or_doubled_is_named() {
        let lost = Ledger { fed: FED, ended: FED, in_target: 4, in_dead_letters: 3 };
        assert_eq!(lost.faults(), ["in the target stream: 4, should be 5"]);
        let taken_for_duplicate = Counts { published: 4, duplicates: 3, ..FED };
        let ledger = Ledger { fed: FED, ended: taken_for_duplicate, in_target: 4, in_dead_letters: 3 };
        assert_eq!(ledger.faults().len(), 3);
    }
}
