//! Keeps the events of a row in order while they are published, and tells which went out late all the same.
//!
//! A lane is a row with something on the wire or waiting. As long as nothing fails its events are sent at once, pipelined.
//! After a failure nothing of the row is sent until everything on the wire has been answered; then the oldest event that
//! failed goes out alone, and when it is confirmed the rest follow in source order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};

use crate::message::{CommitPosition, Late, OrderKey};

/// So many failures of an event that was sent alone mean that its row is refused: fewer may be a server that was away.
const REFUSALS: u32 = 2;

/// The newest position handed to the connection, per row, for a bounded number of rows.
///
/// Two generations of a map stand in for an exact LRU: what is used moves to the young one, and the old one is
/// forgotten as a whole, so at least the `capacity` rows used last are remembered.
#[derive(Debug)]
pub struct RowMemory {
    capacity: usize,
    young: HashMap<OrderKey, Newest>,
    old: HashMap<OrderKey, Newest>,
}

/// What is remembered of a row.
#[derive(Debug, Clone, Copy)]
struct Newest {
    position: CommitPosition,
    /// An event of the row went out here on its first delivery. First deliveries come in source order, so nothing that
    /// another life of the service published of the row can be newer. Redeliveries alone do not tell that.
    first_hand: bool,
}

impl RowMemory {
    /// Remembers between `capacity` and twice as many rows.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&self, row: OrderKey) -> Option<Newest> {
        self.young.get(&row).or_else(|| self.old.get(&row)).copied()
    }

    /// Corrects the newest position of a row after failures: only what is or may be stored counts.
    fn correct(&mut self, row: OrderKey, floor: Option<CommitPosition>) {
        match floor {
            Some(position) => {
                let first_hand = self.get(row).is_some_and(|newest| newest.first_hand);
                self.set(row, Newest { position, first_hand });
            }
            None => {
                self.young.remove(&row);
                self.old.remove(&row);
            }
        }
    }

    fn set(&mut self, row: OrderKey, newest: Newest) {
        if let Some(known) = self.young.get_mut(&row) {
            *known = newest;
            return;
        }
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(row, newest);
    }
}

/// What came of an attempt, as far as order is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Confirmed.
    Stored,
    /// It may have been stored.
    Unknown,
    /// It was not stored.
    NotStored,
}

/// An event of a lane: what the lanes need to know of it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its row.
    pub row: OrderKey,
    /// Its place in the database's history.
    pub position: Option<CommitPosition>,
    /// The source has delivered it before.
    pub redelivered: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    place: Place,
}

#[derive(Debug)]
struct Lane<T> {
    on_wire: usize,
    /// By number of admission, which is source order within a row.
    waiting: BTreeMap<u64, Waiting<T>>,
    /// Something failed and the oldest waiting event has not been confirmed yet.
    blocked: bool,
    failures: u32,
    /// How often an event has failed that was sent alone: what is wrong concerns the row itself.
    refusals: u32,
    retry_at: Option<Instant>,
    /// The newest position that is or may be stored.
    floor: Option<CommitPosition>,
}

impl<T> Lane<T> {
    fn is_refused(&self) -> bool {
        self.refusals >= REFUSALS
    }

    fn count_refused(&self) -> usize {
        if self.is_refused() { self.waiting.len() } else { 0 }
    }
}

/// An event to hand to the connection now.
#[derive(Debug)]
pub struct Departure<T> {
    /// Its number, to be named in [`Lanes::answered`].
    pub number: u64,
    /// The event.
    pub item: T,
    /// Its place.
    pub place: Place,
    /// Whether it goes out late.
    pub late: Option<Late>,
}

/// All lanes. `T` is what travels; the lanes hold it only while it waits.
#[derive(Debug)]
pub struct Lanes<T> {
    next: u64,
    lanes: HashMap<OrderKey, Lane<T>>,
    blocked: usize,
    /// Events that wait in lanes of refused rows.
    refused: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { next: 0, lanes: HashMap::new(), blocked: 0, refused: 0 }
    }
}

impl<T> Lanes<T> {
    /// Takes an event in source order: it departs at once unless its row is blocked.
    pub fn admit(&mut self, memory: &mut RowMemory, item: T, place: Place) -> Option<Departure<T>> {
        let number = self.next;
        self.next += 1;
        let lane = self.lanes.entry(place.row).or_insert_with(|| Lane {
            on_wire: 0,
            waiting: BTreeMap::new(),
            blocked: false,
            failures: 0,
            refusals: 0,
            retry_at: None,
            floor: memory.get(place.row).map(|newest| newest.position),
        });
        if lane.blocked {
            lane.waiting.insert(number, Waiting { item, place });
            self.refused += usize::from(lane.is_refused());
            return None;
        }
        Some(depart(lane, memory, number, item, place, false))
    }

    /// Whether events of this row have to wait although they were tried again and again.
    pub fn is_refused(&self, row: OrderKey) -> bool {
        self.lanes.get(&row).is_some_and(Lane::is_refused)
    }

    /// Events that wait in lanes of refused rows.
    pub fn refused(&self) -> usize {
        self.refused
    }

    /// Whether any lane is blocked.
    pub fn any_blocked(&self) -> bool {
        self.blocked > 0
    }

    /// The attempt `number` has been answered. `again` brings the event back if it is to be sent again.
    /// Returns what departs now. `delay` says how long a lane waits after so many failures.
    pub fn answered(
        &mut self,
        memory: &mut RowMemory,
        number: u64,
        place: Place,
        sent: Sent,
        again: Option<T>,
        retry_at: impl FnOnce(u32) -> Instant,
    ) -> Vec<Departure<T>> {
        let Some(lane) = self.lanes.get_mut(&place.row) else {
            return Vec::new();
        };
        lane.on_wire -= 1;
        if sent != Sent::NotStored {
            lane.floor = lane.floor.max(place.position);
        }
        if let Some(item) = again {
            if lane.is_refused() {
                self.refused += 1;
            } else if lane.retry_at.is_some() {
                lane.refusals += 1;
                self.refused += if lane.is_refused() { lane.waiting.len() + 1 } else { 0 };
            }
            lane.waiting.insert(number, Waiting { item, place });
            lane.failures += 1;
            if !lane.blocked {
                lane.blocked = true;
                self.blocked += 1;
            }
        }
        if lane.on_wire > 0 {
            return Vec::new();
        }
        if lane.blocked {
            memory.correct(place.row, lane.floor);
            let confirmed_alone = sent == Sent::Stored && lane.retry_at.take().is_some();
            if confirmed_alone || lane.waiting.is_empty() {
                self.refused -= lane.count_refused();
                lane.blocked = false;
                (lane.failures, lane.refusals) = (0, 0);
                self.blocked -= 1;
            } else {
                lane.retry_at = Some(retry_at(lane.failures));
                return Vec::new();
            }
        } else if sent == Sent::NotStored {
            // It goes back: when it comes again, nothing newer of its row is stored on its account.
            memory.correct(place.row, lane.floor);
        }
        let released = std::mem::take(&mut lane.waiting);
        let departures: Vec<_> =
            released.into_iter().map(|(number, w)| depart(lane, memory, number, w.item, w.place, true)).collect();
        if lane.on_wire == 0 {
            self.lanes.remove(&place.row);
        }
        departures
    }

    /// The oldest event of every blocked lane whose time has come departs, alone.
    pub fn due(&mut self, memory: &mut RowMemory, now: Instant) -> Vec<Departure<T>> {
        let mut departures = Vec::new();
        for lane in self.lanes.values_mut().filter(|lane| lane.blocked && lane.on_wire == 0) {
            if lane.retry_at.is_none_or(|at| at <= now)
                && let Some((number, waiting)) = lane.waiting.pop_first()
            {
                self.refused -= usize::from(lane.is_refused());
                departures.push(depart(lane, memory, number, waiting.item, waiting.place, true));
            }
        }
        departures.sort_by_key(|departure| departure.number);
        departures
    }

    /// Makes every blocked lane due at once: the target is back.
    pub fn hasten(&mut self, now: Instant) {
        for lane in self.lanes.values_mut().filter(|lane| lane.blocked && lane.on_wire == 0) {
            lane.retry_at = Some(now);
        }
    }

    /// How long until the next blocked lane is due.
    pub fn next_due(&self, now: Instant) -> Option<Duration> {
        let due = self.lanes.values().filter(|lane| lane.blocked && lane.on_wire == 0).filter_map(|lane| lane.retry_at);
        due.min().map(|at| at.saturating_duration_since(now))
    }

    /// Takes back everything that waits in lanes with nothing on the wire, in order of admission.
    pub fn take_waiting(&mut self) -> Vec<T> {
        self.take(|_| true)
    }

    /// Likewise, of refused rows alone.
    pub fn take_refused(&mut self) -> Vec<T> {
        self.take(Lane::is_refused)
    }

    fn take(&mut self, wanted: impl Fn(&Lane<T>) -> bool) -> Vec<T> {
        let mut taken = BTreeMap::new();
        self.lanes.retain(|_, lane| {
            if lane.on_wire > 0 || !wanted(lane) {
                return true;
            }
            self.refused -= lane.count_refused();
            taken.append(&mut lane.waiting);
            if lane.blocked {
                self.blocked -= 1;
            }
            false
        });
        taken.into_values().map(|waiting| waiting.item).collect()
    }
}

fn depart<T>(
    lane: &mut Lane<T>,
    memory: &mut RowMemory,
    number: u64,
    item: T,
    place: Place,
    resent: bool,
) -> Departure<T> {
    let newest = memory.get(place.row);
    let late = match (place.position, newest) {
        (Some(position), Some(newest)) if position < newest.position => Some(Late::True),
        (Some(_), Some(newest)) if place.redelivered && !newest.first_hand => Some(Late::Unknown),
        (Some(_), None) if place.redelivered || (resent && lane.floor.is_some()) => Some(Late::Unknown),
        _ => None,
    };
    if let Some(position) = place.position {
        let position = newest.map_or(position, |newest| newest.position.max(position));
        let first_hand = !place.redelivered || newest.is_some_and(|newest| newest.first_hand);
        memory.set(place.row, Newest { position, first_hand });
    }
    lane.on_wire += 1;
    Departure { number, item, place, late }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: OrderKey = OrderKey(1);

    fn place(lsn: u64) -> Place {
        Place { row: ROW, position: Some(CommitPosition { lsn, idx: 0 }), redelivered: false }
    }

    fn counted<T>(lanes: &Lanes<T>) -> usize {
        lanes.lanes.values().map(Lane::count_refused).sum()
    }

    struct Bench {
        lanes: Lanes<u64>,
        memory: RowMemory,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { lanes: Lanes::default(), memory: RowMemory::new(100), now: Instant::now() }
        }
        fn admit(&mut self, lsn: u64) -> Option<Departure<u64>> {
            self.lanes.admit(&mut self.memory, lsn, place(lsn))
        }
        fn answer(&mut self, departure: &Departure<u64>, sent: Sent) -> Vec<u64> {
            let again = (sent != Sent::Stored).then_some(departure.item);
            let now = self.now;
            let out = self.lanes.answered(&mut self.memory, departure.number, departure.place, sent, again, |_| now);
            assert_eq!(self.lanes.refused(), counted(&self.lanes));
            out.into_iter().map(|d| d.item).collect()
        }
        fn held(&self) -> usize {
            self.lanes.lanes.values().map(|lane| lane.waiting.len()).sum()
        }
        fn due(&mut self) -> Vec<Departure<u64>> {
            self.lanes.due(&mut self.memory, self.now)
        }
    }

    #[test]
    fn events_of_a_row_are_pipelined_while_nothing_fails() {
        let mut bench = Bench::new();
        let sent: Vec<_> = (1..=3).map(|lsn| bench.admit(lsn).expect("departs at once")).collect();
        assert!(sent.iter().all(|d| d.late.is_none()));
        for departure in &sent {
            assert!(bench.answer(departure, Sent::Stored).is_empty());
        }
        assert!(bench.lanes.lanes.is_empty(), "an idle row holds no lane");
    }

    #[test]
    fn after_a_failure_nothing_new_departs_until_the_wire_is_quiet_and_the_failed_one_is_stored() {
        let mut bench = Bench::new();
        let (one, two) = (bench.admit(1).expect("sent"), bench.admit(2).expect("sent"));
        assert!(bench.answer(&one, Sent::NotStored).is_empty());
        assert!(bench.admit(3).is_none(), "the row is blocked");
        assert!(bench.due().is_empty(), "two is still on the wire");
        assert!(bench.answer(&two, Sent::NotStored).is_empty());
        let again = bench.due();
        assert_eq!(again.iter().map(|d| d.item).collect::<Vec<_>>(), [1], "the oldest goes alone");
        assert_eq!(again[0].late, None, "two was not stored, so one is not late");
        assert_eq!(bench.answer(&again[0], Sent::Stored), [2, 3], "then the rest, in source order");
    }

    #[test]
    fn an_event_behind_a_stored_newer_one_is_marked_late() {
        let mut bench = Bench::new();
        let (one, two) = (bench.admit(1).expect("sent"), bench.admit(2).expect("sent"));
        bench.answer(&one, Sent::NotStored);
        bench.answer(&two, Sent::Stored);
        let again = bench.due();
        assert_eq!((again[0].item, again[0].late), (1, Some(Late::True)));
    }

    #[test]
    fn an_unknown_outcome_counts_as_stored_for_lateness() {
        let mut bench = Bench::new();
        let (one, two) = (bench.admit(1).expect("sent"), bench.admit(2).expect("sent"));
        bench.answer(&one, Sent::NotStored);
        bench.answer(&two, Sent::Unknown);
        assert_eq!(bench.due()[0].late, Some(Late::True));
    }

    #[test]
    fn a_redelivery_of_a_forgotten_row_is_of_unknown_lateness() {
        let mut bench = Bench::new();
        let redelivered = Place { redelivered: true, ..place(5) };
        let departure = bench.lanes.admit(&mut bench.memory, 5, redelivered).expect("sent");
        assert_eq!(departure.late, Some(Late::Unknown));
        let another = Place { redelivered: true, ..place(6) };
        let departure = bench.lanes.admit(&mut bench.memory, 6, another).expect("sent");
        assert_eq!(departure.late, Some(Late::Unknown), "another life may have published a newer one than either");
        assert_eq!(bench.admit(9).expect("sent").late, None, "nobody had it before");
        let between = Place { redelivered: true, ..place(8) };
        assert_eq!(bench.lanes.admit(&mut bench.memory, 8, between).expect("sent").late, Some(Late::True));
        let handed_back = Place { redelivered: true, ..place(10) };
        assert_eq!(bench.lanes.admit(&mut bench.memory, 10, handed_back).expect("sent").late, None);
    }

    #[test]
    fn a_failure_of_one_row_does_not_hold_another() {
        let mut bench = Bench::new();
        let one = bench.admit(1).expect("sent");
        bench.answer(&one, Sent::NotStored);
        let other = Place { row: OrderKey(2), ..place(1) };
        assert!(bench.lanes.admit(&mut bench.memory, 9, other).is_some());
        assert!(bench.admit(2).is_none());
        assert!(bench.lanes.admit(&mut bench.memory, 10, other).is_some());
    }

    #[test]
    fn a_row_is_refused_once_its_oldest_event_has_failed_alone_again_and_again() {
        let mut bench = Bench::new();
        let sent: Vec<_> = (1..=4).filter_map(|lsn| bench.admit(lsn)).collect();
        sent.iter().for_each(|departure| drop(bench.answer(departure, Sent::NotStored)));
        assert!(!bench.lanes.is_refused(ROW), "all of them failed at once, as when a server goes away");
        for refused in [false, true] {
            let due = bench.due();
            bench.answer(&due[0], Sent::NotStored);
            assert_eq!(bench.lanes.is_refused(ROW), refused);
        }
        assert_eq!(bench.lanes.refused(), 4);
        assert!(bench.admit(5).is_none());
        assert_eq!(bench.lanes.refused(), 5);
        let due = bench.due();
        assert_eq!(bench.lanes.refused(), 4, "one is on the wire");
        bench.answer(&due[0], Sent::Stored);
        assert_eq!((bench.lanes.refused(), bench.lanes.is_refused(ROW)), (0, false));
    }

    #[test]
    fn what_waits_in_refused_rows_is_taken_back_and_nothing_else() {
        let mut bench = Bench::new();
        let one = bench.admit(1).expect("sent");
        bench.answer(&one, Sent::NotStored);
        for _ in 0..2 {
            let due = bench.due();
            bench.answer(&due[0], Sent::NotStored);
        }
        let other = Place { row: OrderKey(2), ..place(1) };
        let innocent = bench.lanes.admit(&mut bench.memory, 9, other).expect("sent");
        bench.answer(&innocent, Sent::NotStored);
        assert_eq!(bench.lanes.take_refused(), [1]);
        assert_eq!((bench.lanes.refused(), bench.held(), bench.lanes.any_blocked()), (0, 1, true));
    }

    #[test]
    fn what_waits_is_taken_back_in_order_but_not_behind_something_on_the_wire() {
        let mut bench = Bench::new();
        let (one, two) = (bench.admit(1).expect("sent"), bench.admit(2).expect("sent"));
        bench.answer(&one, Sent::NotStored);
        assert!(bench.lanes.take_waiting().is_empty(), "two may still be stored");
        bench.answer(&two, Sent::NotStored);
        assert_eq!(bench.lanes.take_waiting(), [1, 2]);
        assert_eq!((bench.held(), bench.lanes.any_blocked()), (0, false));
    }

    #[test]
    fn an_event_that_is_sent_again_is_not_late_by_itself() {
        let mut bench = Bench::new();
        let one = bench.admit(1).expect("sent");
        bench.answer(&one, Sent::Unknown);
        assert_eq!(bench.due()[0].late, None);
    }

    #[test]
    fn what_waits_and_what_is_blocked_is_counted() {
        let mut bench = Bench::new();
        let sent: Vec<_> = (1..=3).map(|lsn| bench.admit(lsn).expect("sent")).collect();
        assert_eq!((bench.held(), bench.lanes.any_blocked()), (0, false));
        for (departure, held) in sent.iter().zip(1..) {
            bench.answer(departure, Sent::NotStored);
            assert_eq!((bench.held(), bench.lanes.any_blocked()), (held, true));
        }
        assert!(bench.admit(4).is_none());
        assert_eq!(bench.held(), 4);
        let again = bench.due();
        assert_eq!(bench.held(), 3, "one is on the wire");
        assert_eq!(bench.answer(&again[0], Sent::Stored), [2, 3, 4]);
        assert_eq!((bench.held(), bench.lanes.any_blocked()), (0, false));
    }

    #[test]
    fn failures_in_a_row_are_counted_for_the_delay_and_begin_anew_after_a_success() {
        let (mut lanes, mut memory, now) = (Lanes::default(), RowMemory::new(100), Instant::now());
        let mut departure = lanes.admit(&mut memory, 1, place(1)).expect("sent");
        let later = |failures| now + Duration::from_secs(failures);
        for round in 1..=3 {
            let (number, place) = (departure.number, departure.place);
            lanes.answered(&mut memory, number, place, Sent::NotStored, Some(1), |failures| later(failures.into()));
            assert_eq!(lanes.next_due(now), Some(Duration::from_secs(round)));
            assert!(lanes.due(&mut memory, later(round) - Duration::from_millis(1)).is_empty(), "not yet");
            departure = lanes.due(&mut memory, later(round)).pop().expect("due");
            assert_eq!(lanes.next_due(now), None, "it is on the wire");
        }
    }

    #[test]
    fn a_target_that_is_back_makes_lanes_due_but_not_those_that_still_wait_for_an_answer() {
        let (mut lanes, mut memory, now) = (Lanes::default(), RowMemory::new(100), Instant::now());
        let mut admit = |lanes: &mut Lanes<u64>, lsn, place| lanes.admit(&mut memory, lsn, place).expect("sent");
        let (one, two) = (admit(&mut lanes, 1, place(1)), admit(&mut lanes, 2, place(2)));
        let other = admit(&mut lanes, 9, Place { row: OrderKey(2), ..place(1) });
        let later = |_| now + Duration::from_secs(60);
        let mut answer = |lanes: &mut Lanes<u64>, departure: &Departure<u64>, sent, again| {
            lanes.answered(&mut memory, departure.number, departure.place, sent, again, later).len()
        };
        answer(&mut lanes, &one, Sent::NotStored, Some(1));
        answer(&mut lanes, &other, Sent::NotStored, Some(9));
        assert_eq!(lanes.next_due(now), Some(Duration::from_secs(60)), "the other row's");
        lanes.hasten(now);
        assert_eq!(lanes.next_due(now), Some(Duration::ZERO));
        assert_eq!(answer(&mut lanes, &two, Sent::Stored, None), 0, "the failed one goes alone");
        let due: Vec<_> = lanes.due(&mut RowMemory::new(1), now).into_iter().map(|departure| departure.item).collect();
        assert_eq!(due, [9]);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_was_used_last() {
        let mut memory = RowMemory::new(10);
        for row in 0..1000 {
            memory.set(OrderKey(row), Newest { position: CommitPosition { lsn: 1, idx: 0 }, first_hand: true });
        }
        assert!(memory.young.len() + memory.old.len() <= 20);
        assert!((990..1000).all(|row| memory.get(OrderKey(row)).is_some()));
    }

    /// Choices that are made again and again until every combination has been tried.
    #[derive(Default)]
    struct Choices {
        made: Vec<(usize, usize)>,
        at: usize,
    }

    impl Choices {
        fn pick(&mut self, among: usize) -> usize {
            if self.at == self.made.len() {
                self.made.push((0, among));
            }
            self.at += 1;
            self.made[self.at - 1].0
        }
        /// Goes on to the next combination; false after the last one.
        fn next(&mut self) -> bool {
            self.at = 0;
            while let Some((choice, among)) = self.made.pop() {
                if choice + 1 < among {
                    self.made.push((choice + 1, among));
                    return true;
                }
            }
            false
        }
    }

    /// Two events of each of two rows. A connection keeps the order in which they depart; up to three attempts fail, stored
    /// or not, and answers come in any order: what is stored, with its mark, in the order of storing.
    fn every_attempt(choices: &mut Choices) -> Vec<(Place, Option<Late>)> {
        let (mut lanes, mut memory, now) = (Lanes::default(), RowMemory::new(100), Instant::now());
        let (mut stored, mut wire, mut failures) = (Vec::new(), Vec::new(), 0);
        let places = [(1, 1), (2, 1), (1, 2), (2, 2)].map(|(row, lsn)| Place { row: OrderKey(row), ..place(lsn) });
        let mut departed: Vec<_> = places.iter().filter_map(|place| lanes.admit(&mut memory, *place, *place)).collect();
        while stored.len() < places.len() || !(wire.is_empty() && departed.is_empty()) {
            for departure in departed.drain(..) {
                let outcome = if failures < 3 { choices.pick(3) } else { 0 };
                failures += usize::from(outcome > 0);
                let is_new = |(place, _): &(Place, _)| {
                    place.row != departure.place.row || place.position != departure.place.position
                };
                // Confirmed, or stored and unknown; a second attempt is swallowed by the duplicate window.
                if outcome < 2 && stored.iter().all(is_new) {
                    stored.push((departure.place, departure.late));
                }
                wire.push((departure, [Sent::Stored, Sent::Unknown, Sent::NotStored][outcome]));
            }
            if wire.is_empty() {
                departed = lanes.due(&mut memory, now);
                assert!(!departed.is_empty(), "stuck: {stored:?}");
                continue;
            }
            let (departure, sent) = wire.remove(choices.pick(wire.len()));
            let again = (sent != Sent::Stored).then_some(departure.item);
            departed = lanes.answered(&mut memory, departure.number, departure.place, sent, again, |_| now);
            assert_eq!(lanes.refused(), counted(&lanes));
        }
        stored
    }

    #[test]
    fn no_inversion_is_silent_whichever_attempts_of_two_rows_fail_and_however_they_are_answered() {
        let (mut choices, mut combinations, mut inversions) = (Choices::default(), 0, 0);
        loop {
            combinations += 1;
            let stored = every_attempt(&mut choices);
            for (at, (place, late)) in stored.iter().enumerate() {
                let inverted =
                    stored[..at].iter().any(|(other, _)| other.row == place.row && other.position > place.position);
                inversions += usize::from(inverted);
                assert!(!inverted || *late == Some(Late::True), "{stored:?}");
            }
            if !choices.next() {
                break;
            }
        }
        assert!(combinations > 1_000 && inversions > 100, "{combinations} combinations, {inversions} inversions");
    }

    proptest::proptest! {
        /// Whatever fails, with what outcome: everything is stored in the end, and every inversion is marked.
        #[test]
        fn every_inversion_is_marked(outcomes in proptest::collection::vec(0_u8..3, 0..60), count in 1_u64..12) {
            let mut bench = Bench::new();
            let mut outcomes = outcomes.into_iter();
            let mut wire: Vec<Departure<u64>> = (1..=count).filter_map(|lsn| bench.admit(lsn)).collect();
            let mut stored: Vec<(u64, Option<Late>)> = Vec::new();
            let mut rounds = 0;
            while stored.iter().map(|s| s.0).collect::<std::collections::BTreeSet<_>>().len() < usize::try_from(count).expect("small") {
                rounds += 1;
                proptest::prop_assert!(rounds < 1000, "stuck");
                if wire.is_empty() {
                    wire = bench.due();
                }
                let departure = wire.remove(0);
                let sent = match outcomes.next() { Some(0) => Sent::NotStored, Some(1) => Sent::Unknown, _ => Sent::Stored };
                // An unknown outcome was in fact stored; its second attempt is swallowed by the duplicate window.
                if sent != Sent::NotStored && !stored.iter().any(|s| s.0 == departure.item) {
                    stored.push((departure.item, departure.late));
                }
                let again = (sent != Sent::Stored).then_some(departure.item);
                let now = bench.now;
                let more = bench.lanes.answered(&mut bench.memory, departure.number, departure.place, sent, again, |_| now);
                wire.extend(more);
            }
            let mut newest = 0;
            for (lsn, late) in stored {
                proptest::prop_assert!(lsn > newest || late == Some(Late::True), "{lsn} after {newest} unmarked");
                newest = newest.max(lsn);
            }
        }
    }
}
