//! What is in flight: permits from pull to settle, and which deliveries are known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use tokio::sync::mpsc::UnboundedSender;

use crate::message::{Delivery, DeliveryId, Receipt};
use crate::ports::Budget;
use crate::telemetry::Outcome;

/// How a delivery left the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Stored, skipped or known: acknowledge.
    Done {
        /// The configured table, if it is one.
        table: Option<&'static str>,
        /// How it ended.
        outcome: Outcome,
        /// The creation time and generation of the target that has it, if it is there; void once that is another one.
        target: Option<(i64, u64)>,
    },
    /// Without a verdict: give it back to the stream, to be delivered again after this long.
    Returned(Duration),
    /// Likewise, but it has gone all the way, and the target refused it.
    Refused(Duration),
}

impl Fate {
    /// What was finished for the `former` target may be lost: it is another one by now, or of another generation.
    pub(crate) fn unless_lost(self, former: Option<(i64, u64)>) -> Self {
        match self {
            Self::Done { target: Some(target), .. } if former == Some(target) => Self::Returned(Duration::ZERO),
            fate => fate,
        }
    }
}

/// A delivery in the pipeline. Dropping it without a verdict gives it back.
#[derive(Debug)]
pub struct Ticket {
    /// The delivery.
    pub delivery: Arc<Delivery>,
    fates: UnboundedSender<(DeliveryId, Fate)>,
    settled: bool,
}

impl Ticket {
    /// A ticket that reports to `fates`.
    pub fn new(delivery: Arc<Delivery>, fates: UnboundedSender<(DeliveryId, Fate)>) -> Self {
        Self { delivery, fates, settled: false }
    }

    /// The verdict is in, and what had to be stored is stored elsewhere than in the target.
    pub fn done(mut self, table: Option<&'static str>, outcome: Outcome) {
        self.report(Fate::Done { table, outcome, target: None });
    }

    /// The target has it; the target of this creation time and generation, as far as is known.
    pub fn done_in(mut self, target: Option<(i64, u64)>, table: Option<&'static str>, outcome: Outcome) {
        self.report(Fate::Done { table, outcome, target });
    }

    /// Gives the delivery back that the target refused.
    pub fn refused(mut self, delay: Duration) {
        self.report(Fate::Refused(delay));
    }

    /// Gives the delivery back.
    pub fn give_back(mut self, delay: Duration) {
        self.report(Fate::Returned(delay));
    }

    fn report(&mut self, fate: Fate) {
        self.settled = true;
        // With the receiver gone nobody is left to settle it: the source delivers it again after ack_wait.
        let _ = self.fates.send((self.delivery.receipt.id, fate));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.settled {
            self.report(Fate::Returned(Duration::ZERO));
        }
    }
}

#[derive(Debug)]
struct Entry {
    receipt: Receipt,
    size: usize,
    received: Instant,
    progressed: Instant,
}

/// What to do with a delivery that has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Process it.
    New,
    /// It is being processed: do nothing.
    InFlight,
    /// It was finished lately: acknowledge it once more.
    Finished,
}

/// The deliveries in flight and those finished lately.
#[derive(Debug)]
pub struct Flight {
    limits: Budget,
    bytes: usize,
    entries: HashMap<DeliveryId, Entry>,
    /// By sequence, modulo their number: what is finished later takes the place of what was finished before.
    finished: Vec<Option<DeliveryId>>,
    /// The highest that was taken in of the stream's life that the last one was of.
    newest: Option<DeliveryId>,
}

impl Flight {
    /// Bounded by `limits`; remembers what was finished of the last `remember` sequences.
    pub fn new(limits: Budget, remember: usize) -> Self {
        Self { limits, bytes: 0, entries: HashMap::new(), finished: vec![None; remember.max(1)], newest: None }
    }

    /// What may be pulled now: at most `batch` messages, and nothing unless the largest message (`largest` bytes) has room.
    pub fn budget(&self, batch: usize, largest: usize) -> Option<Budget> {
        let messages = self.limits.messages.saturating_sub(self.entries.len()).min(batch);
        let bytes = self.limits.bytes.saturating_sub(self.bytes);
        (messages > 0 && bytes >= largest).then_some(Budget { messages, bytes })
    }

    /// Whether one with a higher sequence of the same stream was taken in before: a consumer gives in the order of the stream what
    /// it gives for the first time.
    pub fn is_behind(&self, id: DeliveryId) -> bool {
        self.newest.is_some_and(|newest| newest.stream_created == id.stream_created && id.sequence < newest.sequence)
    }

    /// Takes a delivery in.
    pub fn admit(&mut self, delivery: &Delivery) -> Admission {
        let id = delivery.receipt.id;
        if self.finished[self.place(id)] == Some(id) {
            return Admission::Finished;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.receipt = delivery.receipt.clone();
            entry.progressed = delivery.received;
            return Admission::InFlight;
        }
        if !self.is_behind(id) {
            self.newest = Some(id);
        }
        let size = delivery.size();
        self.bytes += size;
        let entry = Entry {
            receipt: delivery.receipt.clone(),
            size,
            received: delivery.received,
            progressed: delivery.received,
        };
        self.entries.insert(id, entry);
        Admission::New
    }

    /// Takes a delivery out; `finished` if it is done and not to be processed again. Returns its receipt and when it was received.
    pub fn leave(&mut self, id: DeliveryId, finished: bool) -> Option<(Receipt, Instant)> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.size;
        if finished {
            let place = self.place(id);
            self.finished[place] = Some(id);
        }
        Some((entry.receipt, entry.received))
    }

    /// Forgets what was finished: a redelivery is processed again.
    pub fn forget_finished(&mut self) {
        self.finished.fill(None);
    }

    fn place(&self, id: DeliveryId) -> usize {
        usize::try_from(id.sequence % self.finished.len() as u64).unwrap_or_default()
    }

    /// Receipts of deliveries that have not told the source for `after` that they are at work; they count as told from `now`.
    pub fn due_for_progress(&mut self, now: Instant, after: Duration) -> Vec<Receipt> {
        let due = |entry: &&mut Entry| now.saturating_duration_since(entry.progressed) >= after;
        self.entries
            .values_mut()
            .filter(due)
            .map(|entry| {
                entry.progressed = now;
                entry.receipt.clone()
            })
            .collect()
    }

    /// Messages in flight.
    pub fn messages(&self) -> usize {
        self.entries.len()
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn delivery(sequence: u64, size: usize) -> Delivery {
        let id = DeliveryId { stream_created: 1, sequence, timestamp: 1 };
        Delivery {
            receipt: Receipt { id, consumer: 0, reply: "reply".into() },
            subject: "".into(),
            headers: Vec::new(),
            payload: Bytes::from(vec![0; size]),
            deliveries: 1,
            received: Instant::now(),
        }
    }

    #[test]
    fn permits_are_held_from_pull_to_settle() {
        let mut flight = Flight::new(Budget { messages: 2, bytes: 100 }, 10);
        assert_eq!(flight.budget(500, 40), Some(Budget { messages: 2, bytes: 100 }));
        let (first, second) = (delivery(1, 30), delivery(2, 40));
        assert_eq!(flight.admit(&first), Admission::New);
        assert_eq!(flight.budget(500, 40), Some(Budget { messages: 1, bytes: 70 }));
        assert_eq!(flight.budget(500, 71), None, "the largest message would not fit");
        assert_eq!(flight.admit(&second), Admission::New);
        assert_eq!(flight.budget(500, 1), None, "no message permit is left");
        assert_eq!((flight.messages(), flight.bytes()), (2, 70));
        assert!(flight.leave(first.receipt.id, true).is_some());
        assert_eq!((flight.messages(), flight.bytes()), (1, 40));
    }

    #[test]
    fn a_redelivery_is_recognised_while_in_flight_and_after() {
        let mut flight = Flight::new(Budget { messages: 9, bytes: 900 }, 1);
        let (first, second) = (delivery(1, 1), delivery(2, 1));
        flight.admit(&first);
        assert_eq!(flight.admit(&first), Admission::InFlight);
        flight.leave(first.receipt.id, true);
        assert_eq!(flight.admit(&first), Admission::Finished);
        flight.admit(&second);
        flight.leave(second.receipt.id, true);
        assert_eq!(flight.admit(&first), Admission::New, "only so many are remembered");
    }

    #[test]
    fn what_was_finished_of_the_last_sequences_is_remembered() {
        let mut flight = Flight::new(Budget { messages: 99, bytes: 9_999 }, 4);
        for sequence in 1..=10 {
            let delivery = delivery(sequence, 1);
            flight.admit(&delivery);
            flight.leave(delivery.receipt.id, true);
        }
        for sequence in 1..=10 {
            let known = if sequence > 6 { Admission::Finished } else { Admission::New };
            assert_eq!(flight.admit(&delivery(sequence, 1)), known, "{sequence}");
        }
    }

    #[test]
    fn what_was_finished_can_be_forgotten() {
        let mut flight = Flight::new(Budget { messages: 9, bytes: 900 }, 10);
        let first = delivery(1, 1);
        flight.admit(&first);
        flight.leave(first.receipt.id, true);
        flight.forget_finished();
        assert_eq!(flight.admit(&first), Admission::New);
    }

    #[test]
    fn what_was_given_back_is_processed_again() {
        let mut flight = Flight::new(Budget { messages: 9, bytes: 900 }, 10);
        let first = delivery(1, 1);
        flight.admit(&first);
        flight.leave(first.receipt.id, false);
        assert_eq!(flight.admit(&first), Admission::New);
    }

    #[test]
    fn the_same_sequence_in_another_life_of_the_stream_is_another_delivery() {
        let mut flight = Flight::new(Budget { messages: 9, bytes: 900 }, 10);
        let first = delivery(1, 1);
        flight.admit(&first);
        flight.leave(first.receipt.id, true);
        let mut reborn = delivery(1, 1);
        reborn.receipt.id.stream_created = 2;
        assert_eq!(flight.admit(&reborn), Admission::New);
    }

    #[test]
    fn progress_is_due_once_per_interval() {
        let mut flight = Flight::new(Budget { messages: 9, bytes: 900 }, 10);
        let first = delivery(1, 1);
        flight.admit(&first);
        let (now, after) = (first.received, Duration::from_secs(10));
        assert!(flight.due_for_progress(now + Duration::from_secs(9), after).is_empty());
        assert_eq!(flight.due_for_progress(now + Duration::from_secs(10), after).len(), 1);
        assert!(flight.due_for_progress(now + Duration::from_secs(11), after).is_empty());
    }

    #[test]
    fn a_dropped_ticket_gives_its_delivery_back() {
        let (fates, mut reported) = tokio::sync::mpsc::unbounded_channel();
        let shared = Arc::new(delivery(7, 1));
        drop(Ticket::new(Arc::clone(&shared), fates.clone()));
        assert_eq!(reported.try_recv().expect("a fate").1, Fate::Returned(Duration::ZERO));
        Ticket::new(Arc::clone(&shared), fates.clone()).give_back(Duration::from_secs(3));
        assert_eq!(reported.try_recv().expect("a fate").1, Fate::Returned(Duration::from_secs(3)));
        Ticket::new(shared, fates).done(None, Outcome::Skipped);
        assert_eq!(
            reported.try_recv().expect("a fate").1,
            Fate::Done { table: None, outcome: Outcome::Skipped, target: None }
        );
        assert!(reported.try_recv().is_err(), "a settled ticket reports once");
    }

    #[test]
    fn what_a_lost_target_had_goes_back() {
        let done = |target| Fate::Done { table: None, outcome: Outcome::Processed, target };
        let there = done(Some((7, 1)));
        assert_eq!(there.unless_lost(Some((7, 1))), Fate::Returned(Duration::ZERO));
        for former in [None, Some((7, 0)), Some((6, 1))] {
            assert_eq!(there.unless_lost(former), there);
        }
        assert_eq!(done(None).unless_lost(Some((7, 1))), done(None), "what is not in the target stays as it is");
    }
}
