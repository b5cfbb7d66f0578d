//! Whether the target as a whole is down, or refuses some subjects and stores others: decided from answers and probes alone.

use std::collections::HashSet;
use std::time::Instant;

use bytestring::ByteString;

use crate::ports::{Failure, FailureClass};

/// Failing subjects that, with no success in between, mean that the target is down and not a subject refused.
const SUBJECTS_THAT_MEAN_DOWN: usize = 2;

/// What is known of the target's health.
#[derive(Default)]
pub(super) struct Health {
    /// Probes that failed in a row.
    failures: u32,
    /// The supervisor has been told that the target is down.
    reported_down: bool,
    /// Subjects that failed since the last success.
    failing: HashSet<ByteString>,
    last_failure: Option<Failure>,
    last_success: Option<Instant>,
    /// When the newest of those that were stored had been handed over.
    stored_handed: Option<Instant>,
    /// Since when there have always been rows that are refused.
    refusing_since: Option<Instant>,
    /// An attempt was refused that had been handed over after another that was stored meanwhile: the target as a whole is
    /// neither down nor just back.
    selective: bool,
    /// Events that were refused since one was stored.
    refused_in_a_row: usize,
}

/// What the answer to a probe means.
pub(super) struct Probed {
    /// The target has gone away or come back.
    pub turned: bool,
    /// Why it counts as down.
    pub failure: Option<Failure>,
    /// Whether that is news to the supervisor.
    pub tell: bool,
}

impl Health {
    /// Whether probes fail.
    pub(super) fn is_away(&self) -> bool {
        self.failures > 0
    }

    /// Probes that failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether its probes succeed although nothing gets through.
    pub(super) fn is_reported_down(&self) -> bool {
        self.reported_down
    }

    /// Whether events wait for the target, and not for its opinion of them.
    pub(super) fn is_down(&self) -> bool {
        self.is_away() || self.reported_down
    }

    /// Some were stored; `newest` is when the last of them had been handed over.
    pub(super) fn succeeded(&mut self, newest: Option<Instant>, now: Instant) {
        self.stored_handed = self.stored_handed.max(newest);
        self.last_success = Some(now);
        self.refused_in_a_row = 0;
        self.failing.clear();
        self.failures = 0;
        self.reported_down = false;
    }

    /// An attempt failed that had been handed over at this time.
    pub(super) fn failed(&mut self, subject: &ByteString, class: FailureClass, handed: Instant) {
        // Nobody listening and no permission concern the subject alone for as long as the target itself answers: to pause
        // intake for them would keep away the very events that could be stored.
        let of_subject = matches!(class, FailureClass::Missing | FailureClass::Denied);
        // Nor does a failure say anything of the target if others were stored since it was handed over: time-outs come late,
        // and many at once.
        let outlived = self.last_success.is_some_and(|at| at > handed);
        if !of_subject && !outlived && self.failing.len() < SUBJECTS_THAT_MEAN_DOWN {
            // A copy: the subject shares the memory of its event.
            self.failing.insert(ByteString::from(&**subject));
        }
    }

    /// The last of several attempts that failed.
    pub(super) fn failed_of(&mut self, failure: Failure) {
        self.last_failure = Some(failure);
    }

    /// What failed so far does not count: it may be those subjects alone.
    pub(super) fn forgive(&mut self) {
        self.failing.clear();
    }

    /// An attempt was refused while the target answers; `first` of its event.
    pub(super) fn refused(&mut self, first: bool, handed: Instant, now: Instant) {
        self.refused_in_a_row += usize::from(first);
        let since = *self.refusing_since.get_or_insert(now);
        self.selective |= self.others_were_stored(since, handed);
    }

    /// One that had been refused was stored.
    pub(super) fn accepted_after_all(&mut self) {
        self.selective = false;
    }

    /// No row is refused any more.
    pub(super) fn nothing_refused(&mut self) {
        (self.refusing_since, self.selective) = (None, false);
    }

    /// Whether an event was stored that had been handed over after one time and before another. What was refused at both is
    /// refused by a target that stores others.
    pub(super) fn others_were_stored(&self, after: Instant, before: Instant) -> bool {
        self.stored_handed.is_some_and(|at| at > after && at < before)
    }

    /// Whether the target refuses some and stores others. Who once did so may be down as a whole by now: then nothing else
    /// comes between those that are refused, which are more than `most` in a row.
    pub(super) fn is_selective(&self, most: usize) -> bool {
        self.selective && self.refused_in_a_row <= most
    }

    /// A probe was answered: the target could store something, or why not.
    pub(super) fn probed(&mut self, answer: Result<(), Failure>) -> Probed {
        let was_away = self.is_away();
        let failure = match answer {
            Err(failure) => {
                self.failures += 1;
                Some(failure)
            }
            Ok(()) => {
                let nothing_gets_through = self.failing.len() >= SUBJECTS_THAT_MEAN_DOWN;
                self.failures = 0;
                if was_away {
                    self.failing.clear();
                }
                self.last_failure.clone().filter(|_| nothing_gets_through && !was_away)
            }
        };
        let tell = failure.is_some() || self.reported_down;
        self.reported_down = failure.is_some();
        Probed { turned: was_away != self.is_away(), failure, tell }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure() -> Failure {
        Failure::new("publish", FailureClass::Unavailable, "no")
    }

    fn failing(health: &mut Health, subjects: &[&'static str], class: FailureClass, handed: Instant) {
        for subject in subjects {
            health.failed(&ByteString::from_static(subject), class, handed);
        }
        health.failed_of(failure());
    }

    #[test]
    fn two_subjects_without_a_success_mean_that_the_target_is_down() {
        let now = Instant::now();
        let probed = |subjects: &[&'static str], class| {
            let mut health = Health::default();
            failing(&mut health, subjects, class, now);
            (health.probed(Ok(())).failure.is_some(), health.is_down(), health.is_away())
        };
        assert_eq!(probed(&["a", "a"], FailureClass::Timeout), (false, false, false));
        assert_eq!(probed(&["a", "b"], FailureClass::Timeout), (true, true, false));
        // They say something of the subject alone.
        assert_eq!(probed(&["a", "b"], FailureClass::Denied), (false, false, false));
        let mut health = Health::default();
        health.succeeded(None, now);
        failing(&mut health, &["a", "b"], FailureClass::Timeout, now - Duration::from_secs(1));
        assert!(health.probed(Ok(())).failure.is_none(), "others were stored since they were handed over");
    }

    #[test]
    fn a_target_turns_once_each_way_and_is_told_of_until_it_is_back() {
        let mut health = Health::default();
        let mut said = Vec::new();
        for answer in [Err(failure()), Err(failure()), Ok(()), Ok(())] {
            let Probed { turned, failure, tell } = health.probed(answer);
            said.push((turned, failure.is_some(), tell, health.failures()));
        }
        assert_eq!(
            said,
            [(true, true, true, 1), (false, true, true, 2), (true, false, true, 0), (false, false, false, 0)]
        );
    }

    #[test]
    fn a_target_is_selective_if_it_stored_what_came_between() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::default();
        health.refused(true, at(0), at(1));
        assert!(!health.is_selective(9));
        health.succeeded(Some(at(2)), at(3));
        health.refused(false, at(3), at(4));
        assert!(health.is_selective(9));
        health.refused(true, at(4), at(5));
        health.refused(true, at(4), at(5));
        assert!(!health.is_selective(1), "two in a row, and nothing else between them");
        health.accepted_after_all();
        assert!(!health.is_selective(9));
    }
}
