//! The end of intake: what has not started goes back, what is in flight goes on, and the source confirms the rest.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::{Draining, IngestActor};
use crate::message::Delivery;
use crate::ports::Transform;
use crate::shared::Drained;

impl<T: Transform> IngestActor<T> {
    /// Gives back what has arrived but not started; what is in flight goes on.
    pub(super) fn drain(&mut self, ctx: &mut Context<Self>) {
        self.draining = Draining::Stopping;
        if let Some(pulling) = self.pulling.take() {
            ctx.cancel_future(pulling);
        }
        self.hand_back_held();
        self.run_suspects(ctx);
        let unreconciled = std::mem::take(&mut self.unreconciled);
        self.hand_back(unreconciled, ctx);
        let source = Arc::clone(&self.source);
        let stop = async move { source.stop().await };
        ctx.spawn(stop.into_actor(self).map(|arrived, actor, ctx| {
            actor.draining = Draining::Stopped;
            actor.hand_back(arrived, ctx);
        }));
    }

    /// Gives deliveries back that were never admitted.
    fn hand_back(&mut self, deliveries: Vec<Delivery>, ctx: &mut Context<Self>) {
        for delivery in deliveries {
            self.outbox.give_back(delivery.receipt, Duration::ZERO);
        }
        self.settle(ctx);
    }

    pub(super) fn finish_draining(&mut self, ctx: &mut Context<Self>) {
        let at_work = self.settling || self.flight.messages() > 0 || self.outbox.holds_acknowledgements();
        if self.draining != Draining::Stopped || at_work {
            return;
        }
        // A marker that stayed would count as a death.
        if self.calling || !self.suspects.is_settled() {
            return;
        }
        self.settling = true;
        let source = Arc::clone(&self.source);
        let call = async move { source.confirm_settled().await };
        ctx.spawn(call.into_actor(self).map(|result, actor, ctx| {
            actor.settling = false;
            match result {
                Ok(heard) if actor.outbox.is_empty() => actor.core.drained.send(Drained(heard)),
                _ => {
                    ctx.run_later(actor.core.patience().backoff.initial, Self::settle);
                }
            }
        }));
    }
}
