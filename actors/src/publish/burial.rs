//! Dead letters: stored before their delivery is acknowledged, and tried again until they are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::PublishActor;
use crate::message::DeadLetter;
use crate::ports::{Dependency, Failure};
use crate::shared::{Buried, Bury};
use crate::telemetry::{Outcome, Telemetry};

/// Dead letters stored at once.
const LETTERS: usize = 32;

/// Those that wait to be stored.
#[derive(Default)]
pub(super) struct Graves {
    waiting: VecDeque<Buried>,
    burying: bool,
    failures: u32,
}

impl Graves {
    /// Gives back all but one, which finds out when the dead-letter stream is there again.
    pub(super) fn hand_back(&mut self) {
        for buried in self.waiting.drain(1.min(self.waiting.len())..) {
            buried.ticket.give_back(Duration::ZERO);
        }
    }
}

impl PublishActor {
    fn run_burials(&mut self, ctx: &mut Context<Self>) {
        if self.graves.burying || self.graves.waiting.is_empty() {
            return;
        }
        self.graves.burying = true;
        let batch: Vec<Buried> = self.graves.waiting.drain(..self.graves.waiting.len().min(LETTERS)).collect();
        let letters = batch.iter().map(|buried| DeadLetter {
            delivery: Arc::clone(&buried.ticket.delivery),
            table: buried.table,
            reason: buried.reason,
            detail: buried.detail.clone(),
        });
        let (dead_letters, letters, started) =
            (Arc::clone(&self.dead_letters), letters.collect::<Vec<_>>(), self.core.clock.now());
        let call = async move {
            futures::future::join_all(letters.into_iter().map(|letter| dead_letters.store(letter))).await
        };
        ctx.spawn(call.into_actor(self).map(move |results, actor, ctx| actor.stored(batch, results, started, ctx)));
    }

    fn stored(
        &mut self,
        batch: Vec<Buried>,
        results: Vec<Result<(), Failure>>,
        started: Instant,
        ctx: &mut Context<Self>,
    ) {
        let (mut again, mut last) = (VecDeque::new(), None);
        for (buried, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => self.buried(buried),
                Err(failure) => {
                    last = Some(failure);
                    again.push_back(buried);
                }
            }
        }
        self.core.called(Dependency::DeadLetter, "store", started, last.as_ref(), false);
        again.append(&mut self.graves.waiting);
        self.graves.waiting = again;
        if last.is_none() {
            (self.graves.failures, self.graves.burying) = (0, false);
            return self.run_burials(ctx);
        }
        self.graves.failures += 1;
        ctx.run_later(self.core.delay(self.graves.failures), |actor, ctx| {
            actor.graves.burying = false;
            actor.run_burials(ctx);
        });
    }

    fn buried(&self, buried: Buried) {
        let Buried { ticket, table, reason, detail } = buried;
        let id = ticket.delivery.receipt.id;
        let subject = &ticket.delivery.subject;
        self.core.observer.observe(Telemetry::DeadLettered { id, subject, table, reason, detail: &detail });
        ticket.done(table, Outcome::DeadLettered);
    }
}

impl Handler<Bury> for PublishActor {
    type Result = ();

    fn handle(&mut self, Bury(letters): Bury, ctx: &mut Self::Context) {
        self.graves.waiting.extend(letters);
        self.run_burials(ctx);
    }
}
