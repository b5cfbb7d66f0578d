//! The IngestActor: pulls what permits allow, sends each delivery to the worker of its row, and settles it in the end.

mod apart;
mod draining;
mod settling;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::settling::{Ending, Outbox};
use crate::between::{self, Change};
use crate::flight::{Admission, Fate, Flight, Ticket};
use crate::message::{Delivery, DeliveryId, OrderKey};
use crate::ports::{DedupStore, Dependency, Failure, Source, Transform};
use crate::shared::{
    ActorKind, Apart, Core, Drain, HandBack, Intake, Life, LookAtTarget, SetTarget, Slot, Unacknowledged, beat,
};
use crate::suspects::Suspects;
use crate::telemetry::{PauseReason, Telemetry};
use crate::transform::{Job, Work, caught};

/// Fates taken in one go.
const FATES: usize = 1024;
/// Bytes of deliveries sent to a worker in one go, so that the first of large ones are on their way while others are read.
const PIECE: usize = 512 << 10;
/// Between two looks at the backlog.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(2);

/// How far the end of intake has come.
#[derive(PartialEq, Eq)]
enum Draining {
    No,
    /// Pull requests are being withdrawn.
    Stopping,
    /// Nothing more will arrive.
    Stopped,
}

/// The workers' present addresses, by index.
pub(crate) type Workers<P> = Arc<Vec<Slot<Work<P>>>>;

/// Pulls and settles; see the module.
pub struct IngestActor<T: Transform> {
    core: Arc<Core>,
    source: Arc<dyn Source>,
    dedup: Arc<dyn DedupStore>,
    transform: Arc<T>,
    workers: Workers<T::Parsed>,
    flight: Flight,
    /// Creation time and generation of the target that deliveries are finished for.
    target: Option<(i64, u64)>,
    /// The one before, which has lost what it had: of what was finished for it, word may still be on its way.
    former: Option<(i64, u64)>,
    /// The connection of the source for which the target has been held against the records.
    reconciled: Option<u64>,
    /// What was pulled over another one: neither memory nor records may be asked about it yet.
    unreconciled: Vec<Delivery>,
    fates: UnboundedSender<(DeliveryId, Fate)>,
    reported: Option<UnboundedReceiver<(DeliveryId, Fate)>>,
    paused: BTreeSet<PauseReason>,
    pulling: Option<SpawnHandle>,
    pull_failures: u32,
    /// Admitted but not yet sent to a worker: suspects, and whatever came after them.
    suspects: Suspects,
    /// The store is being asked about suspects, or told of them; one call at a time.
    calling: bool,
    call_failures: u32,
    told_suspects: bool,
    outbox: Outbox,
    settling: bool,
    settle_failures: u32,
    draining: Draining,
    /// They wait until nothing is in flight; nothing is pulled meanwhile.
    changes: Vec<Change>,
    /// The next time that what waits to be tried again is asked to make way for them.
    hurrying: Option<SpawnHandle>,
    _life: Life,
}

impl<T: Transform> IngestActor<T> {
    pub(crate) fn new(
        core: Arc<Core>,
        source: Arc<dyn Source>,
        dedup: Arc<dyn DedupStore>,
        transform: Arc<T>,
        workers: Workers<T::Parsed>,
        paused: BTreeSet<PauseReason>,
        life: Life,
    ) -> Self {
        let (fates, reported) = unbounded_channel();
        let flight = Flight::new(core.settings.in_flight, core.settings.remembered_deliveries);
        let suspects = Suspects::new(core.settings.suspect_after);
        Self {
            core,
            source,
            dedup,
            transform,
            workers,
            flight,
            target: None,
            former: None,
            reconciled: None,
            unreconciled: Vec::new(),
            fates,
            reported: Some(reported),
            paused,
            pulling: None,
            pull_failures: 0,
            suspects,
            calling: false,
            call_failures: 0,
            told_suspects: false,
            outbox: Outbox::default(),
            settling: false,
            settle_failures: 0,
            draining: Draining::No,
            changes: Vec::new(),
            hurrying: None,
            _life: life,
        }
    }

    /// Starts the next pull if there is a reason to and room for it.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        let held_up = self.suspects.hold_up() || !self.unreconciled.is_empty() || !self.changes.is_empty();
        if self.pulling.is_some() || self.draining != Draining::No || !self.paused.is_empty() || held_up {
            return;
        }
        let settings = &self.core.settings;
        let Some(budget) = self.flight.budget(settings.batch, settings.largest_message) else {
            return;
        };
        let (source, started) = (Arc::clone(&self.source), self.core.clock.now());
        let pull = async move { source.pull(budget).await };
        let done = pull.into_actor(self).map(move |result, actor, ctx| actor.pulled(result, started, ctx));
        self.pulling = Some(ctx.spawn(done));
    }

    fn pulled(&mut self, result: Result<Vec<Delivery>, Failure>, started: Instant, ctx: &mut Context<Self>) {
        self.core.called(Dependency::Source, "pull", started, result.as_ref().err(), false);
        match result {
            Ok(deliveries) => {
                self.pulling = None;
                self.pull_failures = 0;
                self.arrived(deliveries, ctx);
                self.pump(ctx);
            }
            Err(_) => {
                self.pull_failures += 1;
                let delay = self.core.delay(self.pull_failures);
                self.pulling = Some(ctx.run_later(delay, |actor, ctx| {
                    actor.pulling = None;
                    actor.pump(ctx);
                }));
            }
        }
    }

    /// After a reconnect the target may have lost what memory and records say it holds: what arrives waits until it has
    /// been held against the records.
    fn arrived(&mut self, deliveries: Vec<Delivery>, ctx: &mut Context<Self>) {
        if deliveries.is_empty() || !self.is_in_doubt() {
            return self.admit(deliveries, ctx);
        }
        self.unreconciled.extend(deliveries);
        self.ask_for_look();
    }

    /// While the target is down there is nothing to look at: its return is looked at anyway.
    fn ask_for_look(&self) {
        if self.reconciled.is_some() && !self.paused.contains(&PauseReason::Reconcile) {
            self.core.look_at_target.send(LookAtTarget { created: None });
        }
    }

    /// Whether the target may have lost what memory and records say it holds: after a reconnect or an outage of the
    /// target, until it has been held against the records.
    fn is_in_doubt(&self) -> bool {
        self.reconciled != Some(self.source.connection_epoch()) || self.paused.contains(&PauseReason::Reconcile)
    }

    fn admit(&mut self, deliveries: Vec<Delivery>, ctx: &mut Context<Self>) {
        let mut fresh = Vec::with_capacity(deliveries.len());
        for mut delivery in deliveries {
            // A consumer that was made anew counts from one: what lies behind may have been given before, here or to another.
            if self.flight.is_behind(delivery.receipt.id) {
                delivery.deliveries = delivery.deliveries.max(2);
            }
            match self.flight.admit(&delivery) {
                Admission::New if self.suspects.concerns(&delivery) => self.suspects.hold(delivery),
                Admission::New => fresh.push(delivery),
                Admission::InFlight => {}
                Admission::Finished => self.outbox.acknowledge(delivery.receipt, None),
            }
        }
        self.tell_in_flight();
        self.dispatch(fresh);
        self.run_suspects(ctx);
        self.settle(ctx);
    }

    fn tell_in_flight(&self) {
        let (messages, bytes) = (self.flight.messages(), self.flight.bytes());
        self.core.observer.observe(Telemetry::InFlight { messages, bytes });
    }

    /// Sends deliveries to the workers of their rows, in order.
    fn dispatch(&self, deliveries: Vec<Delivery>) {
        // Rows spread evenly, and a job is too large to be moved again and again while its batch grows.
        let share = deliveries.len().div_ceil(self.workers.len());
        let room = if self.workers.len() == 1 { share } else { 2 * share };
        let mut batches: Vec<Vec<Job<T::Parsed>>> = self.workers.iter().map(|_| Vec::with_capacity(room)).collect();
        let mut sizes = vec![0; self.workers.len()];
        for delivery in deliveries {
            let delivery = Arc::new(delivery);
            let (row, parsed) = match caught(|| self.transform.order(&delivery)) {
                Ok((row, parsed)) => (row, Ok(parsed)),
                Err(panic) => (OrderKey(u128::from(delivery.receipt.id.sequence)), Err(panic)),
            };
            let worker = usize::try_from(row.0 % batches.len() as u128).unwrap_or_default();
            let (size, ticket) = (delivery.size(), Ticket::new(delivery, self.fates.clone()));
            batches[worker].push(Job { ticket, row, parsed });
            sizes[worker] += size;
            if sizes[worker] >= PIECE {
                sizes[worker] = 0;
                self.workers[worker].send(Work(std::mem::take(&mut batches[worker])));
            }
        }
        for (worker, batch) in self.workers.iter().zip(batches).filter(|(_, batch)| !batch.is_empty()) {
            worker.send(Work(batch));
        }
    }

    fn take_fates(&mut self, fates: Vec<(DeliveryId, Fate)>, ctx: &mut Context<Self>) {
        for (id, fate) in fates {
            let fate = fate.unless_lost(self.former);
            let finished = matches!(fate, Fate::Done { .. });
            let Some((receipt, received)) = self.flight.leave(id, finished) else {
                continue;
            };
            self.suspects.ended(id, !matches!(fate, Fate::Returned(_)));
            match fate {
                Fate::Done { table, outcome, .. } => {
                    self.outbox.acknowledge(receipt, Some(Ending { table, outcome, received }));
                }
                Fate::Returned(delay) | Fate::Refused(delay) => self.outbox.give_back(receipt, delay),
            }
        }
        self.tell_in_flight();
        self.run_suspects(ctx);
        self.settle(ctx);
        self.change_if_quiet(ctx);
        self.pump(ctx);
    }

    /// Makes the changes that wait if nothing is in flight. What a pull under way brings is not in flight before it is admitted.
    fn change_if_quiet(&mut self, ctx: &mut Context<Self>) {
        if self.changes.is_empty() || self.flight.messages() > 0 {
            return;
        }
        if let Some(hurrying) = self.hurrying.take() {
            ctx.cancel_future(hurrying);
        }
        self.changes.drain(..).for_each(Change::make);
        self.core.observer.observe(Telemetry::Paused { reason: PauseReason::Reload, paused: false });
    }

    /// Refused subjects that wait to be tried again must not keep a change waiting, and everybody else with it: they go back. What
    /// waits for a dependency that is down waits in place, where it keeps its order: nobody else could go on either.
    fn hurry_changes(&mut self, ctx: &mut Context<Self>) {
        if self.paused.is_empty() && self.draining == Draining::No {
            self.core.hand_back(HandBack::Change);
        }
        self.hurrying = Some(ctx.run_later(between::AGAIN, Self::hurry_changes));
    }

    /// Until intake ends: nobody acts on it then, and connections are closed without asking who looks over them.
    fn look_at_backlog(&mut self, ctx: &mut Context<Self>) {
        if self.draining != Draining::No {
            return;
        }
        // Told on every change; again here, since either of the two may have been built anew meanwhile.
        self.core.apart.send(Apart(self.told_suspects));
        let (source, started) = (Arc::clone(&self.source), self.core.clock.now());
        let call = async move { source.backlog().await };
        let done = call.into_actor(self).map(move |result, actor, ctx| {
            match &result {
                Ok(backlog) => {
                    backlog.tell(&*actor.core.observer, actor.core.clock.unix_nanos());
                    actor.core.unacknowledged.send(Unacknowledged(backlog.unacknowledged));
                }
                Err(failure) if actor.draining == Draining::No => {
                    actor.core.called(Dependency::Source, "backlog", started, Some(failure), false);
                }
                Err(_) => {}
            }
            ctx.run_later(BACKLOG_INTERVAL, Self::look_at_backlog);
        });
        ctx.spawn(done);
    }
}

impl<T: Transform> Actor for IngestActor<T> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat(ctx, &self.core, ActorKind::Ingest);
        if let Some(reported) = self.reported.take() {
            ctx.add_stream(stream::unfold(reported, |mut reported| async move {
                let mut batch = Vec::new();
                (reported.recv_many(&mut batch, FATES).await > 0).then_some((batch, reported))
            }));
        }
        ctx.run_interval(self.core.settings.ack_wait / 6, Self::keep_alive);
        self.look_at_backlog(ctx);
        self.pump(ctx);
    }
}

impl<T: Transform> StreamHandler<Vec<(DeliveryId, Fate)>> for IngestActor<T> {
    fn handle(&mut self, fates: Vec<(DeliveryId, Fate)>, ctx: &mut Self::Context) {
        self.take_fates(fates, ctx);
    }
}

impl<T: Transform> Handler<Intake> for IngestActor<T> {
    type Result = ();

    fn handle(&mut self, Intake { reason, paused }: Intake, ctx: &mut Self::Context) {
        let of_target = reason == PauseReason::Dependency(Dependency::Target);
        if paused {
            self.paused.insert(reason);
            if of_target {
                self.reconciled = None;
            }
        } else if self.paused.remove(&reason) {
            if of_target {
                self.core.look_at_target.send(LookAtTarget { created: None });
            }
            self.pump(ctx);
            self.settle(ctx);
        }
    }
}

impl<T: Transform> Handler<SetTarget> for IngestActor<T> {
    type Result = ();

    /// What was finished on behalf of a target that has lost it, or that is another one by now, is not finished any more.
    fn handle(&mut self, set: SetTarget, ctx: &mut Self::Context) {
        let (now, source_epoch) = (Some(set.identity()), set.source_epoch);
        if self.target.is_some() && self.target != now {
            self.former = self.target;
            self.flight.forget_finished();
            self.outbox.take_back_acknowledgements();
        }
        self.target = now;
        self.reconciled = Some(source_epoch);
        if source_epoch != self.source.connection_epoch() {
            // The connection was made anew while the target was looked at: what arrived over this one waits for the next look.
            return self.core.look_at_target.send(LookAtTarget { created: None });
        }
        // By then it has been given to another, who may be done with it for longer than anybody remembers.
        let (now, ack_wait) = (self.core.clock.now(), self.core.settings.ack_wait);
        let is_ours = |delivery: &Delivery| now.saturating_duration_since(delivery.received) < ack_wait;
        let waiting = std::mem::take(&mut self.unreconciled).into_iter().filter(is_ours).collect();
        self.admit(waiting, ctx);
        self.pump(ctx);
    }
}

impl<T: Transform> Handler<Change> for IngestActor<T> {
    type Result = ();

    fn handle(&mut self, change: Change, ctx: &mut Self::Context) {
        self.core.observer.observe(Telemetry::Paused { reason: PauseReason::Reload, paused: true });
        self.changes.push(change);
        self.hurrying.get_or_insert_with(|| ctx.run_later(between::PATIENCE, Self::hurry_changes));
        self.change_if_quiet(ctx);
        self.pump(ctx);
    }
}

impl<T: Transform> Handler<Drain> for IngestActor<T> {
    type Result = ();

    fn handle(&mut self, _: Drain, ctx: &mut Self::Context) {
        self.drain(ctx);
    }
}

impl<T: Transform> Handler<HandBack> for IngestActor<T> {
    type Result = ();

    fn handle(&mut self, why: HandBack, ctx: &mut Self::Context) {
        self.hand_back_held();
        if why == HandBack::Leaving && self.is_in_doubt() {
            // Nobody knows whether the target still has it. Whoever it is given to next looks that up.
            self.outbox.take_back_acknowledgements();
        }
        self.run_suspects(ctx);
        self.settle(ctx);
    }
}
