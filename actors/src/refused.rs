//! Where the events of refused rows wait: here, holding permits, or at the source, which delivers them again. Neither may
//! take up all the room there is, or those rows would hold up every other.

use std::collections::VecDeque;
use std::time::Instant;

/// Where the next event of a refused row waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// In its lane, which tries again.
    Here,
    /// At the source.
    Away,
    /// There is no room left.
    Nowhere,
}

/// How many wait, and how many may.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    /// How many may wait here: a quarter of what may be in flight.
    here: usize,
    /// What the source lets be unacknowledged, over all replicas.
    source: usize,
    /// Little else fits into the source: whoever waits goes, but for a few.
    crowded: bool,
    /// When those at the source come back, in this order.
    returns: VecDeque<Instant>,
}

impl WaitingRoom {
    /// A room for a service that may have `in_flight` messages in hand, and all replicas together `source` unacknowledged.
    pub(crate) fn new(in_flight: usize, source: usize) -> Self {
        Self { here: in_flight / 4, source, crowded: false, returns: VecDeque::new() }
    }

    /// So many messages are unacknowledged at the source, over all replicas: that of others can be told by nothing else.
    pub(crate) fn look(&mut self, unacknowledged: u64) {
        let most = self.source - self.source / 8;
        self.crowded = unacknowledged >= u64::try_from(most).unwrap_or(u64::MAX);
    }

    /// Where the next one waits, if `here` wait in their lanes.
    pub(crate) fn next(&mut self, here: usize, now: Instant) -> Wait {
        let away = self.away(now);
        if self.crowded && here + away >= self.source / 16 {
            return Wait::Nowhere;
        }
        if here < self.here {
            return Wait::Here;
        }
        if away < self.source / 4 { Wait::Away } else { Wait::Nowhere }
    }

    /// One was sent away, to come back at this time.
    pub(crate) fn sent_away(&mut self, until: Instant) {
        self.returns.push_back(until);
    }

    /// How many are away.
    pub(crate) fn away(&mut self, now: Instant) -> usize {
        while self.returns.front().is_some_and(|at| *at <= now) {
            self.returns.pop_front();
        }
        self.returns.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn room() -> WaitingRoom {
        WaitingRoom::new(400, 640)
    }

    #[test]
    fn a_quarter_of_what_may_be_in_flight_waits_here_and_a_quarter_of_what_the_source_allows_there() {
        let (mut room, now) = (room(), Instant::now());
        assert_eq!(room.next(99, now), Wait::Here);
        for _ in 0..160 {
            assert_eq!(room.next(100, now), Wait::Away);
            room.sent_away(now + WAIT);
        }
        assert_eq!(room.next(100, now), Wait::Nowhere);
        assert_eq!(room.next(99, now), Wait::Here, "whoever leaves makes room");
    }

    #[test]
    fn who_is_due_is_not_away_any_more() {
        let (mut room, now) = (room(), Instant::now());
        (0..160).for_each(|_| room.sent_away(now + WAIT));
        assert_eq!(room.away(now + WAIT - Duration::from_nanos(1)), 160);
        assert_eq!(room.away(now + WAIT), 0);
        assert_eq!(room.next(100, now + WAIT), Wait::Away);
    }

    #[test]
    fn in_a_crowded_source_only_a_few_wait() {
        let (mut room, now) = (room(), Instant::now());
        room.look(559);
        assert_eq!(room.next(50, now), Wait::Here);
        room.look(560);
        assert_eq!(room.next(40, now), Wait::Nowhere);
        assert_eq!(room.next(39, now), Wait::Here);
        room.sent_away(now + WAIT);
        assert_eq!(room.next(39, now), Wait::Nowhere, "those at the source are counted too");
        room.look(559);
        assert_eq!(room.next(50, now), Wait::Here);
    }
}
