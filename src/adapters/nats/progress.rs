//! Notices that a stream has gone back while the connection to it stood.
//!
//! Behind another server of a cluster a stream can lose the end of what it had confirmed, and no reconnect tells. What tells is a
//! confirmation, or a look, that names a sequence below one that was confirmed before.

use std::time::Instant;

/// How far a stream has come, as far as confirmations tell.
#[derive(Debug, Default)]
pub(super) struct Progress {
    known: Option<Known>,
    /// Where the stream has gone back to; what it has stored since must not hide that from the look that is due.
    setback: Option<Setback>,
    setbacks: u64,
}

/// What has been confirmed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// The connection, and the stream's creation time.
    of: (u64, i64),
    highest: u64,
}

impl Known {
    fn highest_of(self, epoch: u64, created: i64) -> u64 {
        if self.of == (epoch, created) { self.highest } else { 0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Setback {
    created: i64,
    to: u64,
    /// When somebody was last told.
    told: Option<Instant>,
}

impl Progress {
    /// How often the stream has gone back.
    pub(super) fn setbacks(&self) -> u64 {
        self.setbacks
    }

    /// What has been confirmed by now.
    pub(super) fn known(&self) -> Option<Known> {
        self.known
    }

    /// The highest sequence that was confirmed over this connection by the stream created then.
    pub(super) fn highest(&self, epoch: u64, created: i64) -> u64 {
        self.known.map_or(0, |known| known.highest_of(epoch, created))
    }

    /// A new message has this sequence, and was sent then.
    pub(super) fn confirmed(&mut self, epoch: u64, created: i64, sequence: u64, sent: Instant) {
        if self.highest(epoch, created) >= sequence {
            self.gone_back(created, sequence - 1);
        } else if self.setback.is_some_and(|setback| setback.told.is_some_and(|told| sent > told)) {
            // Nothing is sent before the look.
            self.setback = None;
        }
        self.known = Some(Known { of: (epoch, created), highest: sequence });
    }

    /// A look, begun when so much was known, found this last sequence: the one to go by.
    pub(super) fn seen(&mut self, epoch: u64, created: i64, then: Option<Known>, last: u64, now: Instant) -> u64 {
        if then.is_some_and(|known| last < known.highest_of(epoch, created)) {
            self.gone_back(created, last);
            // The confirmation that led to this look is yet to be told.
            self.known = None;
        }
        let Some(setback) = self.setback.as_mut().filter(|setback| setback.created == created) else { return last };
        setback.told = Some(now);
        last.min(setback.to)
    }

    fn gone_back(&mut self, created: i64, to: u64) {
        self.setbacks += 1;
        let before = self.setback.filter(|setback| setback.created == created).map_or(to, |setback| setback.to);
        self.setback = Some(Setback { created, to: to.min(before), told: None });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STREAM: i64 = 7;

    #[test]
    fn a_confirmation_that_is_not_above_the_last_tells() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        for (sequence, setbacks) in [(1, 0), (5, 0), (5, 1), (6, 1), (3, 2), (4, 2)] {
            progress.confirmed(1, STREAM, sequence, now);
            assert_eq!(progress.setbacks(), setbacks, "{sequence}");
        }
    }

    #[test]
    fn a_new_connection_or_another_stream_begins_anew() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        for (epoch, created) in [(1, STREAM), (2, STREAM), (2, STREAM + 1)] {
            progress.confirmed(epoch, created, 9, now);
            progress.confirmed(epoch, created, 10, now);
        }
        assert_eq!(progress.setbacks(), 0);
        assert_eq!((progress.highest(2, STREAM + 1), progress.highest(2, STREAM)), (10, 0));
    }

    #[test]
    fn a_look_tells_as_well() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        progress.confirmed(1, STREAM, 9, now);
        let then = progress.known();
        assert_eq!((progress.seen(1, STREAM, then, 12, now), progress.setbacks()), (12, 0), "others store as well");
        // What is confirmed while the answer is on its way does not count against it.
        progress.confirmed(1, STREAM, 13, now);
        assert_eq!((progress.seen(1, STREAM, then, 12, now), progress.setbacks()), (12, 0));
        let then = progress.known();
        assert_eq!(
            (progress.seen(2, STREAM, then, 11, now), progress.setbacks()),
            (11, 0),
            "a reconnect is told by itself"
        );
        assert_eq!((progress.seen(1, STREAM, then, 11, now), progress.setbacks()), (11, 1));
        progress.confirmed(1, STREAM, 11, now);
        assert_eq!(
            (progress.highest(1, STREAM), progress.setbacks()),
            (11, 1),
            "the confirmation that it was asked for"
        );
    }

    #[test]
    fn a_look_at_what_was_confirmed_last_tells_nothing() {
        let (mut progress, now) = (Progress::default(), Instant::now());
        progress.confirmed(1, STREAM, 9, now);
        let then = progress.known();
        assert_eq!((progress.seen(1, STREAM, then, 9, now), progress.setbacks()), (9, 0));
    }

    #[test]
    fn of_two_setbacks_the_look_is_told_the_farther_one() {
        for (created, told) in [(STREAM, 3), (STREAM + 1, 7)] {
            let (mut progress, now) = (Progress::default(), Instant::now());
            progress.confirmed(1, created, 9, now);
            progress.confirmed(1, created, 4, now);
            progress.confirmed(1, STREAM, 9, now);
            progress.confirmed(1, STREAM, 8, now);
            let then = progress.known();
            assert_eq!(progress.seen(1, STREAM, then, 20, now), told, "one of {created}, then one of {STREAM}");
        }
    }

    #[test]
    fn what_was_stored_since_does_not_hide_it_from_the_look() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        progress.confirmed(1, STREAM, 100, at(0));
        for sequence in 91..=140 {
            progress.confirmed(1, STREAM, sequence, at(0));
        }
        assert_eq!(progress.setbacks(), 1);
        let look = |progress: &mut Progress, last, when| {
            let then = progress.known();
            progress.seen(1, STREAM, then, last, at(when))
        };
        assert_eq!((look(&mut progress, 140, 1), look(&mut progress, 150, 2)), (90, 90), "a look asks twice");
        progress.confirmed(1, STREAM, 151, at(1));
        assert_eq!(look(&mut progress, 151, 3), 90, "that was on its way already");
        progress.confirmed(1, STREAM, 152, at(4));
        assert_eq!(look(&mut progress, 152, 5), 152, "sent after the look");
    }
}
