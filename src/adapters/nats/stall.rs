//! Notices a consumer that stands still, from what is seen of it every few seconds.
//!
//! A server that was killed can restore a consumer that does not fit its stream: it gives nothing to requests that wait, or it
//! has passed messages that it never gave (seen with 2.9.10; reports of the like go up to 2.12). Nothing is lost by it, but
//! nothing comes either.

use std::time::{Duration, Instant};

use cdc_actors::ports::Stall;

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
    /// Whether a consumer made anew can help. Not if it was tried: then the server does not remove what is acknowledged.
    pub curable: bool,
}

/// Compares looks.
#[derive(Debug)]
pub(super) struct StallWatch {
    patience: Option<Duration>,
    /// The symptom that every look has shown since.
    since: Option<(Symptom, Look, Instant)>,
    /// The stream whose consumer was made anew, and its floor then.
    cured: Option<(i64, u64)>,
}

impl StallWatch {
    /// A watch that tells of what has lasted for `patience`; of nothing if there is none.
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self { patience, since: None, cured: None }
    }

    /// Nothing could be seen: what was seen before says nothing any more.
    pub(super) fn blind(&mut self) {
        self.since = None;
    }

    /// Takes note of a look; a finding comes once in every `patience` for as long as it lasts.
    pub(super) fn saw(&mut self, look: Look, now: Instant) -> Option<Finding> {
        let before = self.since.take();
        let (symptom, patience) = (look.symptom()?, self.patience?);
        let same = |(earlier, seen, _): &(Symptom, Look, Instant)| {
            *earlier == symptom
                && (seen.stream_created, &seen.consumer_created) == (look.stream_created, &look.consumer_created)
        };
        let since = before.filter(same).map_or(now, |(.., since)| since);
        if now.saturating_duration_since(since) < patience {
            self.since = Some((symptom, look, since));
            return None;
        }
        let (stall, curable) = match symptom {
            Symptom::Silent { .. } => (Stall::Silent, true),
            Symptom::Passed(sequence) => {
                let tried = self.cured.is_some_and(|(of, floor)| of == look.stream_created && sequence <= floor);
                (Stall::Passed, !tried)
            }
        };
        self.since = Some((symptom, look, now));
        Some(Finding { stall, curable })
    }

    /// The consumer of the last finding is made anew.
    pub(super) fn cured(&mut self) {
        if let Some((_, look, _)) = self.since.take() {
            self.cured = Some((look.stream_created, look.floor));
        }
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
    fn without_patience_nothing_is_told() {
        assert_eq!(found(&mut StallWatch::new(None), &[(0, silent(7)), (3600, silent(7))]), []);
    }

    #[test]
    fn what_comes_again_after_a_cure_is_not_cured_again() {
        let mut watch = StallWatch::new(Some(6 * SECOND));
        let passed = |sequence, floor, of| Look { passed: Some(sequence), stream_created: of, ..flowing(floor) };
        assert_eq!(found(&mut watch, &[(0, passed(3, 9, 1)), (6, passed(3, 12, 1))]), [(6, Stall::Passed, true)]);
        watch.cured();
        let again = [(8, passed(12, 20, 1)), (14, passed(12, 20, 1))];
        assert_eq!(found(&mut watch, &again), [(14, Stall::Passed, false)]);
        let beyond = [(16, passed(13, 20, 1)), (22, passed(13, 20, 1))];
        assert_eq!(found(&mut watch, &beyond), [(22, Stall::Passed, true)]);
        let elsewhere = [(24, passed(3, 20, 2)), (30, passed(3, 20, 2))];
        assert_eq!(found(&mut watch, &elsewhere), [(30, Stall::Passed, true)], "another stream");
    }
}
