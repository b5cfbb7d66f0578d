//! What the source is told of its deliveries, and when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::IngestActor;
use crate::message::{Receipt, Settle, Settlement};
use crate::ports::{Dependency, Failure, Transform};
use crate::telemetry::{Outcome, Telemetry};

/// Settlements handed to the source in one go.
const SETTLEMENTS: usize = 1024;

/// What the acknowledgement of a delivery tells once it has been handed over.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub table: Option<&'static str>,
    pub outcome: Outcome,
    pub received: Instant,
}

/// A settlement, and what it tells.
type Outgoing = (Settlement, Option<Ending>);

/// Settlements that wait to be handed over, in order. Acknowledgements rest on what the target holds: while that is in doubt they wait,
/// and those that no batch has taken yet can still be taken back.
#[derive(Default)]
pub(super) struct Outbox {
    ready: VecDeque<Outgoing>,
    acknowledgements: VecDeque<Outgoing>,
}

impl Outbox {
    /// The delivery is done with, as far as the target has kept what it confirmed.
    pub(super) fn acknowledge(&mut self, receipt: Receipt, ending: Option<Ending>) {
        self.acknowledgements.push_back((Settlement { receipt, settle: Settle::Ack }, ending));
    }

    /// The delivery is to come again, here or elsewhere.
    pub(super) fn give_back(&mut self, receipt: Receipt, delay: Duration) {
        self.ready.push_back((Settlement { receipt, settle: Settle::Nak(delay) }, None));
    }

    fn report_progress(&mut self, receipts: Vec<Receipt>) {
        let progress = |receipt| (Settlement { receipt, settle: Settle::InProgress }, None);
        self.ready.extend(receipts.into_iter().map(progress));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.acknowledgements.is_empty()
    }

    pub(super) fn holds_acknowledgements(&self) -> bool {
        !self.acknowledgements.is_empty()
    }

    /// What was to be acknowledged goes back to the source: the target that had it is no more, or has lost it.
    pub(super) fn take_back_acknowledgements(&mut self) {
        for (Settlement { receipt, .. }, _) in std::mem::take(&mut self.acknowledgements) {
            self.give_back(receipt, Duration::ZERO);
        }
    }

    /// What is handed over next; acknowledgements only while the target is not in doubt.
    fn next_batch(&mut self, in_doubt: bool) -> Vec<Outgoing> {
        let mut batch: Vec<_> = self.ready.drain(..self.ready.len().min(SETTLEMENTS)).collect();
        let rest = if in_doubt { 0 } else { SETTLEMENTS - batch.len() };
        batch.extend(self.acknowledgements.drain(..self.acknowledgements.len().min(rest)));
        batch
    }

    /// Keeps what could not be handed over for another attempt.
    fn put_back(&mut self, batch: Vec<Outgoing>) {
        for item in batch.into_iter().rev() {
            match item.0.settle {
                Settle::Ack => self.acknowledgements.push_front(item),
                _ => self.ready.push_front(item),
            }
        }
    }
}

impl<T: Transform> IngestActor<T> {
    /// Hands waiting settlements to the source; one batch at a time.
    pub(super) fn settle(&mut self, ctx: &mut Context<Self>) {
        if self.settling {
            return;
        }
        let in_doubt = self.is_in_doubt();
        if in_doubt && self.outbox.holds_acknowledgements() {
            self.ask_for_look();
        }
        let batch = self.outbox.next_batch(in_doubt);
        if batch.is_empty() {
            return self.finish_draining(ctx);
        }
        self.settling = true;
        let settlements = batch.iter().map(|(settlement, _)| settlement.clone()).collect();
        let (source, started) = (Arc::clone(&self.source), self.core.clock.now());
        let call = async move { source.settle(settlements).await };
        let target = self.target;
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| {
            if result.is_err() {
                actor.outbox.put_back(batch);
                if actor.target != target {
                    actor.outbox.take_back_acknowledgements();
                }
                actor.settled(Vec::new(), result, started, ctx);
            } else {
                actor.settled(batch, result, started, ctx);
            }
        }));
    }

    fn settled(
        &mut self,
        batch: Vec<Outgoing>,
        result: Result<(), Failure>,
        started: Instant,
        ctx: &mut Context<Self>,
    ) {
        self.core.called(Dependency::Source, "settle", started, result.as_ref().err(), false);
        if result.is_err() {
            self.settle_failures += 1;
            ctx.run_later(self.core.delay(self.settle_failures), |actor, ctx| {
                actor.settling = false;
                actor.settle(ctx);
            });
            return;
        }
        (self.settle_failures, self.settling) = (0, false);
        let now = self.core.clock.now();
        for Ending { table, outcome, received } in batch.into_iter().filter_map(|(_, ending)| ending) {
            let took = now.saturating_duration_since(received);
            self.core.observer.observe(Telemetry::Settled { table, outcome, took });
        }
        self.settle(ctx);
    }

    /// Tells the source that what takes long is still being worked on.
    pub(super) fn keep_alive(&mut self, ctx: &mut Context<Self>) {
        // While nothing gets through, another round of these would only pile up.
        if self.settle_failures > 0 {
            return;
        }
        let due = self.flight.due_for_progress(self.core.clock.now(), self.core.settings.ack_wait / 3);
        if due.is_empty() {
            return;
        }
        self.outbox.report_progress(due);
        self.settle(ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::DeliveryId;

    fn receipt(sequence: u64) -> Receipt {
        Receipt { id: DeliveryId { stream_created: 1, sequence, timestamp: 0 }, consumer: 1, reply: "".into() }
    }

    /// Sequences, and whether they are acknowledged.
    fn told(batch: &[Outgoing]) -> Vec<(u64, bool)> {
        batch.iter().map(|(told, _)| (told.receipt.id.sequence, matches!(told.settle, Settle::Ack))).collect()
    }

    #[test]
    fn acknowledgements_wait_while_the_target_is_in_doubt_also_those_that_could_not_be_handed_over() {
        let mut outbox = Outbox::default();
        outbox.acknowledge(receipt(1), None);
        outbox.give_back(receipt(2), Duration::ZERO);
        outbox.acknowledge(receipt(3), None);
        assert_eq!(told(&outbox.next_batch(true)), [(2, false)]);
        outbox.give_back(receipt(4), Duration::ZERO);
        let batch = outbox.next_batch(false);
        assert_eq!(told(&batch), [(4, false), (1, true), (3, true)]);
        outbox.put_back(batch);
        assert_eq!(told(&outbox.next_batch(true)), [(4, false)]);
        outbox.acknowledge(receipt(5), None);
        assert_eq!(told(&outbox.next_batch(false)), [(1, true), (3, true), (5, true)]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_a_target_has_lost_is_not_acknowledged_however_much_was_on_its_way() {
        let many = 2 * SETTLEMENTS as u64;
        let mut outbox = Outbox::default();
        (0..many).for_each(|sequence| outbox.acknowledge(receipt(sequence), None));
        let batch = outbox.next_batch(false);
        assert_eq!(batch.len(), SETTLEMENTS);
        outbox.put_back(batch);
        assert_eq!(outbox.next_batch(true).len(), 0, "not one of them goes out before the look");
        outbox.take_back_acknowledgements();
        let batches = [outbox.next_batch(false), outbox.next_batch(false)].concat();
        let expected: Vec<_> = (0..many).map(|sequence| (sequence, false)).collect();
        assert_eq!((told(&batches), outbox.is_empty()), (expected, true));
    }
}
