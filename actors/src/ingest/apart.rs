//! What is held because it may kill the process: looked up in the store, marked there, and run apart.

use std::future::Future;
use std::sync::Arc;

use actix::prelude::*;

use super::{Draining, IngestActor};
use crate::flight::Ticket;
use crate::message::{Delivery, DeliveryId, Reason};
use crate::ports::{Dependency, Failure, Transform};
use crate::shared::{Apart, Buried, Bury};
use crate::suspects::{DEATHS_ALONE, Group, Next};
use crate::telemetry::{PauseReason, Telemetry};

/// What the failure of a call does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfFailed {
    /// Suspects cannot go on without it.
    HoldsUp,
    /// A marker that stays expires, and its message is done with or was accused before.
    DoesNotMatter,
}

impl<T: Transform> IngestActor<T> {
    /// Does what is next with what is held.
    pub(super) fn run_suspects(&mut self, ctx: &mut Context<Self>) {
        while !self.calling {
            let markers = self.suspects.take_to_set();
            if !markers.is_empty() {
                self.unmark(markers, ctx);
                break;
            }
            match self.suspects.next(self.flight.messages()) {
                Next::Wait => break,
                Next::Look(suspects) => self.look_up(suspects, ctx),
                Next::Run(group) => match group.markers() {
                    markers if markers.is_empty() => self.start(group),
                    markers => self.mark(group, markers, ctx),
                },
                Next::Convict(deliveries) => self.convict(deliveries),
            }
        }
        self.tell_suspects();
    }

    fn start(&mut self, group: Group) {
        let deliveries = self.suspects.start(group);
        self.dispatch(deliveries);
    }

    fn tell_suspects(&mut self) {
        let (reason, paused) = (PauseReason::Suspect, self.suspects.run_apart());
        if std::mem::replace(&mut self.told_suspects, paused) != paused {
            self.core.apart.send(Apart(paused));
            self.core.observer.observe(Telemetry::Paused { reason, paused });
        }
    }

    /// Asks the store about suspects or tells it of them; what comes of it is told to `then`.
    fn call<V: 'static>(
        &mut self,
        (operation, if_failed): (&'static str, IfFailed),
        call: impl Future<Output = Result<V, Failure>> + 'static,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Result<V, Failure>, &mut Context<Self>) + 'static,
    ) {
        self.calling = true;
        let started = self.core.clock.now();
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| {
            let tolerated = actor.core.settings.bypass_dedup || if_failed == IfFailed::DoesNotMatter;
            actor.core.called(Dependency::Dedup, operation, started, result.as_ref().err(), tolerated);
            actor.calling = false;
            then(actor, result, ctx);
            actor.run_suspects(ctx);
            actor.settle(ctx);
            actor.pump(ctx);
        }));
    }

    /// The store does not answer about suspects: asks again later.
    fn call_again(&mut self, ctx: &mut Context<Self>) {
        self.call_failures += 1;
        if self.draining != Draining::No {
            return self.hand_back_held();
        }
        self.calling = true;
        ctx.run_later(self.core.delay(self.call_failures), |actor, ctx| {
            actor.calling = false;
            actor.run_suspects(ctx);
            actor.pump(ctx);
        });
    }

    fn look_up(&mut self, suspects: Vec<DeliveryId>, ctx: &mut Context<Self>) {
        let (dedup, ids) = (Arc::clone(&self.dedup), suspects.clone());
        let call = async move { dedup.markers(ids).await };
        self.call(("markers", IfFailed::HoldsUp), call, ctx, move |actor, result, ctx| match result {
            Ok(markers) => {
                actor.call_failures = 0;
                actor.suspects.found(suspects.into_iter().zip(markers));
            }
            Err(_) if actor.core.settings.bypass_dedup => {
                actor.suspects.found(suspects.into_iter().map(|suspect| (suspect, 0)));
            }
            Err(_) => actor.call_again(ctx),
        });
    }

    /// Sets the markers of a group, then lets it run.
    fn mark(&mut self, group: Group, markers: Vec<(DeliveryId, u64)>, ctx: &mut Context<Self>) {
        let dedup = Arc::clone(&self.dedup);
        let call = async move { dedup.set_markers(markers).await };
        self.call(("mark", IfFailed::HoldsUp), call, ctx, move |actor, result, ctx| {
            if result.is_ok() || actor.core.settings.bypass_dedup {
                actor.call_failures = 0;
                return actor.start(group);
            }
            actor.suspects.put_back(group);
            actor.call_again(ctx);
        });
    }

    /// Takes back the markers of what has come to an orderly end.
    fn unmark(&mut self, markers: Vec<(DeliveryId, u64)>, ctx: &mut Context<Self>) {
        let dedup = Arc::clone(&self.dedup);
        let call = async move { dedup.set_markers(markers).await };
        self.call(("unmark", IfFailed::DoesNotMatter), call, ctx, |_, _, _| {});
    }

    fn convict(&self, deliveries: Vec<Delivery>) {
        let letters = deliveries.into_iter().map(|delivery| {
            let ticket = Ticket::new(Arc::new(delivery), self.fates.clone());
            let detail = format!("the process died {DEATHS_ALONE} times while this message was the only one in flight");
            Buried { ticket, table: None, reason: Reason::CrashesProcess, detail }
        });
        self.core.bury.send(Bury(letters.collect()));
    }

    pub(super) fn hand_back_held(&mut self) {
        for delivery in self.suspects.take_held() {
            drop(Ticket::new(Arc::new(delivery), self.fates.clone()));
        }
        self.tell_suspects();
    }
}
