//! The IngestActor: pulls what permits allow, sends each delivery to the worker of its row, and settles it in the end.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::between::{self, Change};
use crate::flight::{Admission, Fate, Flight, Ticket};
use crate::message::{Delivery, DeliveryId, OrderKey, Reason, Settle, Settlement};
use crate::ports::{DedupStore, Dependency, Failure, Source, Transform};
use crate::shared::{
    ActorKind, Apart, Buried, Bury, Core, Drain, Drained, HandBack, Intake, Life, LookAtTarget, SetTarget, Slot,
    Unacknowledged, beat,
};
use crate::suspects::{DEATHS_ALONE, Group, Next, Suspects};
use crate::telemetry::{Outcome, PauseReason, Telemetry};
use crate::transform::{Job, Work, caught};

/// Settlements handed to the source in one go.
const SETTLEMENTS: usize = 1024;
/// Bytes of deliveries sent to a worker in one go, so that the first of large ones are on their way while others are read.
const PIECE: usize = 512 << 10;
/// Between two looks at the backlog.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(2);

/// What a final settlement tells once it has been handed over.
#[derive(Clone, Copy)]
struct Ending {
    table: Option<&'static str>,
    outcome: Outcome,
    received: Instant,
}

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
    to_settle: VecDeque<(Settlement, Option<Ending>)>,
    /// Acknowledgements, which rest on what the target holds: while that is in doubt they wait.
    to_acknowledge: VecDeque<(Settlement, Option<Ending>)>,
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
            to_settle: VecDeque::new(),
            to_acknowledge: VecDeque::new(),
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
                Admission::Finished => {
                    let settlement = Settlement { receipt: delivery.receipt, settle: Settle::Ack };
                    self.to_acknowledge.push_back((settlement, None));
                }
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

    /// Does what is next with what is held.
    fn run_suspects(&mut self, ctx: &mut Context<Self>) {
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
        operation: &'static str,
        call: impl Future<Output = Result<V, Failure>> + 'static,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Result<V, Failure>, &mut Context<Self>) + 'static,
    ) {
        self.calling = true;
        let started = self.core.clock.now();
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| {
            // A marker that stays expires, and its message is done with or was accused before.
            let tolerated = actor.core.settings.bypass_dedup || operation == "unmark";
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
        self.call("markers", call, ctx, move |actor, result, ctx| match result {
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
        self.call("mark", call, ctx, move |actor, result, ctx| {
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
        self.call("unmark", call, ctx, |_, _, _| {});
    }

    fn convict(&self, deliveries: Vec<Delivery>) {
        let letters = deliveries.into_iter().map(|delivery| {
            let ticket = Ticket::new(Arc::new(delivery), self.fates.clone());
            let detail = format!("the process died {DEATHS_ALONE} times while this message was the only one in flight");
            Buried { ticket, table: None, reason: Reason::CrashesProcess, detail }
        });
        self.core.bury.send(Bury(letters.collect()));
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
                    let settlement = Settlement { receipt, settle: Settle::Ack };
                    self.to_acknowledge.push_back((settlement, Some(Ending { table, outcome, received })));
                }
                Fate::Returned(delay) | Fate::Refused(delay) => {
                    self.to_settle.push_back((Settlement { receipt, settle: Settle::Nak(delay) }, None));
                }
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

    /// Hands waiting settlements to the source; one batch at a time.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        if self.settling {
            return;
        }
        if !self.is_in_doubt() {
            self.to_settle.append(&mut self.to_acknowledge);
        } else if !self.to_acknowledge.is_empty() {
            self.ask_for_look();
        }
        if self.to_settle.is_empty() {
            return self.finish_draining(ctx);
        }
        self.settling = true;
        let batch: Vec<_> = self.to_settle.drain(..self.to_settle.len().min(SETTLEMENTS)).collect();
        let settlements = batch.iter().map(|(settlement, _)| settlement.clone()).collect();
        let (source, started) = (Arc::clone(&self.source), self.core.clock.now());
        let call = async move { source.settle(settlements).await };
        let target = self.target;
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| {
            if result.is_err() {
                actor.unsettled(batch, target);
                actor.settled(Vec::new(), result, started, ctx);
            } else {
                actor.settled(batch, result, started, ctx);
            }
        }));
    }

    /// Keeps what could not be settled for another attempt. `target` is the one that its acknowledgements rest on.
    fn unsettled(&mut self, batch: Vec<(Settlement, Option<Ending>)>, target: Option<(i64, u64)>) {
        for item in batch.into_iter().rev() {
            match item.0.settle {
                Settle::Ack => self.to_acknowledge.push_front(item),
                _ => self.to_settle.push_front(item),
            }
        }
        if self.target != target {
            self.take_back_acknowledgements();
        }
    }

    /// What was to be acknowledged goes back to the source: the target that had it is no more, or has lost it.
    fn take_back_acknowledgements(&mut self) {
        for (Settlement { receipt, .. }, _) in std::mem::take(&mut self.to_acknowledge) {
            self.to_settle.push_back((Settlement { receipt, settle: Settle::Nak(Duration::ZERO) }, None));
        }
    }

    fn settled(
        &mut self,
        batch: Vec<(Settlement, Option<Ending>)>,
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
    fn keep_alive(&mut self, ctx: &mut Context<Self>) {
        // While nothing gets through, another round of these would only pile up.
        if self.settle_failures > 0 {
            return;
        }
        let due = self.flight.due_for_progress(self.core.clock.now(), self.core.settings.ack_wait / 3);
        if due.is_empty() {
            return;
        }
        let progress = due.into_iter().map(|receipt| (Settlement { receipt, settle: Settle::InProgress }, None));
        self.to_settle.extend(progress);
        self.settle(ctx);
    }

    fn look_at_backlog(&mut self, ctx: &mut Context<Self>) {
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
                Err(failure) => {
                    actor.core.called(Dependency::Source, "backlog", started, Some(failure), false);
                }
            }
            ctx.run_later(BACKLOG_INTERVAL, Self::look_at_backlog);
        });
        ctx.spawn(done);
    }

    /// Gives back what has arrived but not started; what is in flight goes on.
    fn drain(&mut self, ctx: &mut Context<Self>) {
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

    fn hand_back_held(&mut self) {
        for delivery in self.suspects.take_held() {
            drop(Ticket::new(Arc::new(delivery), self.fates.clone()));
        }
        self.tell_suspects();
    }

    /// Gives deliveries back that were never admitted.
    fn hand_back(&mut self, deliveries: Vec<Delivery>, ctx: &mut Context<Self>) {
        let nak = |delivery: Delivery| Settlement { receipt: delivery.receipt, settle: Settle::Nak(Duration::ZERO) };
        self.to_settle.extend(deliveries.into_iter().map(|delivery| (nak(delivery), None)));
        self.settle(ctx);
    }

    fn finish_draining(&mut self, ctx: &mut Context<Self>) {
        let at_work = self.settling || self.flight.messages() > 0 || !self.to_acknowledge.is_empty();
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
                Ok(heard) if actor.to_settle.is_empty() => actor.core.drained.send(Drained(heard)),
                _ => {
                    ctx.run_later(actor.core.patience().backoff.initial, Self::settle);
                }
            }
        }));
    }
}

impl<T: Transform> Actor for IngestActor<T> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat(ctx, &self.core, ActorKind::Ingest);
        if let Some(reported) = self.reported.take() {
            ctx.add_stream(stream::unfold(reported, |mut reported| async move {
                let mut batch = Vec::new();
                (reported.recv_many(&mut batch, SETTLEMENTS).await > 0).then_some((batch, reported))
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
            self.take_back_acknowledgements();
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
            self.take_back_acknowledgements();
        }
        self.run_suspects(ctx);
        self.settle(ctx);
    }
}
