//! Notices a consumer that stands still, from what is seen of it every few seconds.
//!
//! A server that was killed can restore a consumer that does not fit its stream: it gives nothing to requests that wait, or it
//! has passed messages that it never gave (seen with 2.9.10; reports of the like go up to 2.12). Nothing is lost by it, but
//! nothing comes either.

use std::time::{Duration, Instant};

use cdc_actors::ports::Stall;

/// A look that is older says nothing of what has been since: the process may have been paused.
const FRESH: Duration = Duration::from_secs(10);
/// Patience is doubled so often at most: from 30 s to about an hour.
const MOST_DOUBLINGS: u32 = 7;
/// So many consumers in a row that have passed the same messages are given up. A server that is killed may restore one such
/// after the other; one that does not remove what is acknowledged makes every one seem to be such.
const MOST_PASSED: u32 = 3;

/// What one look at a consumer showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// When the stream and the consumer were created: of others nothing is known yet.
    pub stream_created: i64,
    /// Likewise, as the server writes it.
    pub consumer_created: String,
    /// Messages that it has given, repeated ones counted again.
    pub given: u64,
    /// Everything up to this sequence of the stream counts as acknowledged.
    pub floor: u64,
    /// Messages and requests wait, and no bound keeps it from giving.
    pub could_give: bool,
    /// The first message of a work queue, if it counts as acknowledged and should be gone.
    pub passed: Option<u64>,
    /// Whether a consumer made anew would give what this one owes, and nothing that it has let go of.
    pub curable: bool,
}

impl Look {
    fn symptom(&self) -> Option<Symptom> {
        let passed = self.passed.map(Symptom::Passed);
        passed.or_else(|| self.could_give.then_some(Symptom::Silent { given: self.given }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symptom {
    Silent { given: u64 },
    Passed(u64),
}

/// What is to be done about a consumer that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finding {
    pub stall: Stall,
    /// Whether a consumer made anew can help. Not if it was tried again and again: then the server does not remove what is
    /// acknowledged.
    pub curable: bool,
}

/// What every look has shown since.
#[derive(Debug)]
struct Standing {
    symptom: Symptom,
    look: Look,
    since: Instant,
    seen: Instant,
}

/// The last cure.
#[derive(Debug, Clone, Copy)]
struct Cure {
    stream_created: i64,
    /// Up to here consumers have passed messages that were given up for it.
    floor: u64,
    /// How many of them in a row.
    passed: u32,
    /// Cures in a row without a sign of life in between.
    times: u32,
}

/// Compares looks.
#[derive(Debug)]
pub(super) struct StallWatch {
    patience: Option<Duration>,
    standing: Option<Standing>,
    cured: Option<Cure>,
}

impl StallWatch {
    /// A watch that tells of what has lasted for `patience`; of nothing if there is none.
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self { patience, standing: None, cured: None }
    }

    /// Nothing could be seen: what was seen before says nothing any more.
    pub(super) fn blind(&mut self) {
        self.standing = None;
    }

    /// Takes note of a look; a finding comes once in every `patience` for as long as it lasts.
    pub(super) fn saw(&mut self, look: Look, now: Instant) -> Option<Finding> {
        let before = self.standing.take();
        let patience = self.patience?;
        let Some(symptom) = look.symptom() else {
            // It gives: the next cure need not wait longer than the first.
            self.cured.iter_mut().for_each(|cure| cure.times = 0);
            return None;
        };
        let same = |standing: &Standing| {
            standing.symptom == symptom
                && now.saturating_duration_since(standing.seen) <= FRESH
                && standing.look.stream_created == look.stream_created
                && standing.look.consumer_created == look.consumer_created
        };
        let since = before.filter(same).map_or(now, |standing| standing.since);
        let lasted = now.saturating_duration_since(since) >= self.patience_now(patience);
        let finding = lasted.then(|| self.finding(symptom, &look));
        self.standing = Some(Standing { symptom, look, since: if lasted { now } else { since }, seen: now });
        finding
    }

    /// Twice as long after every cure that brought nothing.
    fn patience_now(&self, patience: Duration) -> Duration {
        let times = self.cured.map_or(0, |cure| cure.times.min(MOST_DOUBLINGS));
        patience * 2_u32.pow(times)
    }

    fn finding(&self, symptom: Symptom, look: &Look) -> Finding {
        match symptom {
            Symptom::Silent { .. } => Finding { stall: Stall::Silent, curable: look.curable },
            Symptom::Passed(sequence) => {
                let given_up = self.cure_of(look).filter(|cure| sequence <= cure.floor).map_or(0, |cure| cure.passed);
                Finding { stall: Stall::Passed, curable: look.curable && given_up < MOST_PASSED }
            }
        }
    }

    /// The last cure, if it was for the stream that was looked at.
    fn cure_of(&self, look: &Look) -> Option<Cure> {
        self.cured.filter(|cure| cure.stream_created == look.stream_created)
    }

    /// The consumer of the last finding is made anew.
    pub(super) fn cured(&mut self) {
        let Some(Standing { symptom, look, .. }) = self.standing.take() else { return };
        let before = self.cure_of(&look).map_or((0, 0), |cure| (cure.floor, cure.passed));
        let (floor, passed) = match symptom {
            Symptom::Silent { .. } => before,
            Symptom::Passed(sequence) if sequence <= before.0 => (before.0.max(look.floor), before.1 + 1),
            Symptom::Passed(_) => (look.floor, 1),
        };
        let times = self.cured.map_or(0, |cure| cure.times) + 1;
        self.cured = Some(Cure { stream_created: look.stream_created, floor, passed, times });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flowing(given: u64) -> Look {
        Look {
            stream_created: 1,
            consumer_created: "then".to_owned(),
            given,
            floor: given,
            could_give: false,
            passed: None,
            curable: true,
        }
    }

    fn silent(given: u64) -> Look {
        Look { could_give: true, ..flowing(given) }
    }

    /// What is found at the seconds at which these looks are taken.
    fn found(watch: &mut StallWatch, looks: &[(u64, Look)]) -> Vec<(u64, Stall, bool)> {
        let start = Instant::now();
        let see = |(at, look): &(u64, Look)| {
            let Finding { stall, curable } = watch.saw(look.clone(), start + *at as u32 * SECOND)?;
            Some((*at, stall, curable))
        };
        looks.iter().filter_map(see).collect()
    }

    #[test]
    fn silence_is_told_once_in_every_patience() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let looks: Vec<_> = (0..16).step_by(2).map(|at| (at, silent(7))).collect();
        assert_eq!(found(&mut watch, &looks), [(6, Stall::Silent, true), (12, Stall::Silent, true)]);
    }

    #[test]
    fn whatever_moves_is_not_still() {
        let another = Look { consumer_created: "later".to_owned(), ..silent(7) };
        let elsewhere = Look { stream_created: 2, ..silent(7) };
        for between in [silent(8), flowing(7), another, elsewhere] {
            let mut watch = StallWatch::new(Some(6 * SECOND));
            let looks = [(0, silent(7)), (4, between.clone()), (6, silent(7)), (10, silent(7)), (12, silent(7))];
            assert_eq!(found(&mut watch, &looks), [(12, Stall::Silent, true)], "{between:?}");
        }
    }

    #[test]
    fn what_was_not_seen_does_not_count() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let now = Instant::now();
        assert_eq!(watch.saw(silent(7), now), None);
        watch.blind();
        assert_eq!(watch.saw(silent(7), now + 8 * SECOND), None);
    }

    #[test]
    fn a_look_from_before_a_pause_does_not_count() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let looks = [(0, silent(7)), (60, silent(7)), (66, silent(7))];
        assert_eq!(found(&mut watch, &looks), [(66, Stall::Silent, true)]);
    }

    #[test]
    fn a_consumer_that_is_silent_again_is_given_more_time_until_it_gives() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let silent_from = |watch: &mut StallWatch, start: Instant| {
            (0..60).map(|at| start + at * 2 * SECOND).position(|now| watch.saw(silent(7), now).is_some())
        };
        let start = Instant::now();
        let waits: Vec<_> = (0..3)
            .map(|times| {
                let waited = silent_from(&mut watch, start + times * 3_600 * SECOND);
                watch.cured();
                waited
            })
            .collect();
        assert_eq!(waits, [Some(3), Some(6), Some(12)], "looks, two seconds apart");
        assert_eq!(watch.saw(flowing(8), start + 3 * 3_600 * SECOND), None);
        assert_eq!(silent_from(&mut watch, start + 4 * 3_600 * SECOND), Some(3));
    }

    #[test]
    fn what_would_not_come_again_is_told_and_not_cured() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let looks = [0, 6].map(|at| (at, Look { curable: false, ..silent(7) }));
        assert_eq!(found(&mut watch, &looks), [(6, Stall::Silent, false)]);
    }

    #[test]
    fn without_patience_nothing_is_told() {
        assert_eq!(found(&mut StallWatch::new(None), &[(0, silent(7)), (3600, silent(7))]), []);
    }

    fn passed(sequence: u64, floor: u64) -> Look {
        Look { passed: Some(sequence), ..flowing(floor) }
    }

    /// Finds the same again and again, and has it cured where that may help: whether it might, each time.
    fn cured(watch: &mut StallWatch, start: Instant, looks: &[Look]) -> Vec<bool> {
        let mut now = start;
        let find = |look: &Look| {
            loop {
                now += 2 * SECOND;
                if let Some(finding) = watch.saw(look.clone(), now) {
                    if finding.curable {
                        watch.cured();
                    }
                    return finding.curable;
                }
            }
        };
        looks.iter().map(find).collect()
    }

    #[test]
    fn what_was_passed_again_and_again_is_left_alone_in_the_end() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let start = Instant::now();
        // The floor of one may lie below that of the one before it.
        let looks = [passed(3, 9), passed(3, 5), passed(9, 12), passed(11, 11), passed(12, 20), passed(3, 30)];
        assert_eq!(cured(&mut watch, start, &looks), [true, true, true, false, false, false]);
        let later = start + 24 * 3_600 * SECOND;
        let beyond = [passed(13, 20), silent(7), passed(20, 20), passed(20, 20), passed(20, 20)];
        assert_eq!(cured(&mut watch, later, &beyond), [true, true, true, true, false]);
        let elsewhere = Look { stream_created: 2, ..passed(3, 20) };
        assert_eq!(cured(&mut watch, later + 24 * 3_600 * SECOND, &[elsewhere]), [true], "another stream");
    }

    #[test]
    fn after_a_cure_it_takes_twice_as_long() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        assert_eq!(found(&mut watch, &[(0, passed(3, 9)), (6, passed(3, 12))]), [(6, Stall::Passed, true)]);
        watch.cured();
        let again = [8, 14, 20].map(|at| (at, passed(12, 20)));
        assert_eq!(found(&mut watch, &again), [(20, Stall::Passed, true)]);
    }
}
