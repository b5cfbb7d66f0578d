//! The DedupActor: drops what was published before, and records what has been.
//!
//! Checks and records each merge whatever waits into one round trip; one of each is under way at most, so events keep their order.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;

use crate::message::{EventKey, Record};
use crate::ports::{Checked, DedupStore, Dependency, Failure, Publisher};
use crate::shared::{
    ActorKind, Check, Confirmed, Core, HandBack, Life, Pending, Publish, RecordStored, SetTarget, beat,
};
use crate::telemetry::{Outcome, Telemetry};
use crate::view::View;

/// Events in one round trip at most, so that a backlog does not make one huge pipeline.
const ROUND_TRIP: usize = 1024;

/// Checks and records; see the module.
pub struct DedupActor {
    core: Arc<Core>,
    store: Arc<dyn DedupStore>,
    publisher: Arc<dyn Publisher>,
    target: Option<SetTarget>,
    /// How often the target has been looked at.
    looks: u64,
    checks: VecDeque<Pending>,
    checking: bool,
    /// The store is down, and its next check is not due yet.
    waiting: bool,
    check_failures: u32,
    records: VecDeque<Confirmed>,
    recording: bool,
    record_failures: u32,
    _life: Life,
}

impl DedupActor {
    pub(crate) fn new(
        core: Arc<Core>,
        store: Arc<dyn DedupStore>,
        publisher: Arc<dyn Publisher>,
        target: Option<SetTarget>,
        life: Life,
    ) -> Self {
        Self {
            core,
            store,
            publisher,
            target,
            looks: 0,
            checks: VecDeque::new(),
            checking: false,
            waiting: false,
            check_failures: 0,
            records: VecDeque::new(),
            recording: false,
            record_failures: 0,
            _life: life,
        }
    }

    /// Starts a check of what waits. While the store is down an empty check finds out when it is back.
    fn run_checks(&mut self, ctx: &mut Context<Self>) {
        if self.checking || (self.checks.is_empty() && self.check_failures == 0) {
            return;
        }
        self.checking = true;
        let batch: Vec<Pending> = self.checks.drain(..self.checks.len().min(ROUND_TRIP)).collect();
        let keys: Vec<EventKey> = batch.iter().map(|pending| pending.event.key.clone()).collect();
        let (store, started) = (Arc::clone(&self.store), self.core.clock.now());
        let call = async move { store.check(keys).await };
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| actor.checked(batch, result, started, ctx)));
    }

    fn checked(
        &mut self,
        batch: Vec<Pending>,
        result: Result<Checked, Failure>,
        started: Instant,
        ctx: &mut Context<Self>,
    ) {
        let failed = match result {
            Ok(checked) => self.sort_out(batch, checked),
            Err(failure) => Some((batch, failure)),
        };
        let bypass = self.core.settings.bypass_dedup;
        let failure = failed.as_ref().map(|(_, failure)| failure);
        self.core.called(Dependency::Dedup, "check", started, failure, bypass);
        let Some((unchecked, _)) = failed else {
            self.check_failures = 0;
            self.checking = false;
            return self.run_checks(ctx);
        };
        self.check_failures += 1;
        if bypass {
            self.bypass(unchecked);
        } else {
            unchecked.into_iter().rev().for_each(|pending| self.checks.push_front(pending));
        }
        let delay = if bypass && !self.checks.is_empty() {
            std::time::Duration::ZERO
        } else {
            self.core.delay(self.check_failures)
        };
        self.waiting = true;
        ctx.run_later(delay, |actor, ctx| {
            (actor.checking, actor.waiting) = (false, false);
            actor.run_checks(ctx);
        });
    }

    fn bypass(&self, unchecked: Vec<Pending>) {
        if !unchecked.is_empty() {
            self.core.observer.observe(Telemetry::DedupBypassed { events: unchecked.len() as u64 });
            self.core.publish.send(Publish(unchecked));
        }
    }

    /// Acknowledges duplicates and passes the rest on. An event whose check failed stays, and what follows in its row with it.
    fn sort_out(&mut self, batch: Vec<Pending>, checked: Checked) -> Option<(Vec<Pending>, Failure)> {
        let asked = batch.len();
        let (mut fresh, mut failed, mut last) = (Vec::with_capacity(asked), Vec::new(), None);
        let (mut stuck, mut hits) = (HashSet::new(), 0);
        if let Some(target) = &mut self.target {
            target.generation = checked.generation;
        }
        for (pending, record) in batch.into_iter().zip(checked.records) {
            match record {
                _ if stuck.contains(&pending.row) => failed.push(pending),
                Err(failure) => {
                    stuck.insert(pending.row);
                    failed.push(pending);
                    last = Some(failure);
                }
                Ok(Some(record)) if self.is_valid(record) => {
                    hits += 1;
                    let table = pending.event.table;
                    pending.ticket.done_in(self.named(), Some(table), Outcome::Duplicate);
                }
                Ok(_) => fresh.push(pending),
            }
        }
        let misses = fresh.len() as u64;
        self.core.observer.observe(Telemetry::DedupChecked { hits, misses });
        if !fresh.is_empty() {
            self.core.publish.send(Publish(fresh));
        }
        last.map(|failure| (failed, failure))
    }

    /// A record of another stream or generation says nothing about this target.
    fn is_valid(&self, record: Record) -> bool {
        self.named() == Some((record.stream_created, record.generation))
    }

    fn run_records(&mut self, ctx: &mut Context<Self>) {
        // A record must not vouch for what the target may have lost since: after a reconnect it is looked at first.
        let seen = self.target.is_none_or(|known| known.epoch == self.core.target_epoch(&*self.publisher));
        if self.recording || self.records.is_empty() || !(seen || self.core.settings.bypass_dedup) {
            return;
        }
        self.recording = true;
        let generation = self.target.map_or(0, |known| known.generation);
        let batch: Vec<Confirmed> = self.records.drain(..self.records.len().min(ROUND_TRIP)).collect();
        let records = batch.iter().map(|confirmed| {
            let stored = confirmed.stored;
            let record = Record { stream_created: stored.stream_created, generation, sequence: stored.sequence };
            (confirmed.pending.event.key.clone(), record)
        });
        let (store, records, started) = (Arc::clone(&self.store), records.collect(), self.core.clock.now());
        let call = async move { store.record(records).await };
        let then = self.view();
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| {
            actor.recorded(batch, then, result, started, ctx);
        }));
    }

    /// Creation time and generation of the target that events are finished for.
    fn named(&self) -> Option<(i64, u64)> {
        self.target.map(|known| known.identity())
    }

    fn view(&self) -> View {
        View { target: self.target.map(|known| (known.target, known.generation)), looks: self.looks }
    }

    fn recorded(
        &mut self,
        batch: Vec<Confirmed>,
        then: View,
        result: Result<Vec<Result<(), Failure>>, Failure>,
        started: Instant,
        ctx: &mut Context<Self>,
    ) {
        let results = result.unwrap_or_else(|failure| batch.iter().map(|_| Err(failure.clone())).collect());
        let (mut again, mut last, now) = (VecDeque::new(), None, self.view());
        for (confirmed, result) in batch.into_iter().zip(results) {
            if now.has_lost(confirmed.stored, &then) {
                confirmed.pending.ticket.give_back(std::time::Duration::ZERO);
                continue;
            }
            let Err(failure) = result else {
                acknowledge(confirmed, self.named());
                continue;
            };
            if self.is_out_of_patience(&confirmed) {
                let key = &confirmed.pending.event.key;
                self.core.observer.observe(Telemetry::Unrecorded { key, failure: &failure });
                acknowledge(confirmed, self.named());
            } else {
                again.push_back(confirmed);
            }
            last = Some(failure);
        }
        self.core.called(Dependency::Dedup, "record", started, last.as_ref(), self.core.settings.bypass_dedup);
        self.record_failures = if last.is_some() { self.record_failures + 1 } else { 0 };
        again.append(&mut self.records);
        self.records = again;
        if last.is_some() && self.records.is_empty() && self.check_failures == 0 {
            // Nothing is left to record, so an empty check finds out when the store is back.
            self.check_failures = 1;
            self.run_checks(ctx);
        }
        let delay = match last {
            // Patience is short: several attempts must fit into it.
            Some(_) => self.core.delay(self.record_failures).min(self.core.settings.record_patience / 4),
            None => std::time::Duration::ZERO,
        };
        if delay.is_zero() {
            self.recording = false;
            return self.run_records(ctx);
        }
        ctx.run_later(delay, |actor, ctx| {
            actor.recording = false;
            actor.run_records(ctx);
        });
    }

    fn is_out_of_patience(&self, confirmed: &Confirmed) -> bool {
        let age = self.core.clock.now().saturating_duration_since(confirmed.since);
        self.core.settings.bypass_dedup || age >= self.core.settings.record_patience
    }
}

fn acknowledge(confirmed: Confirmed, target: Option<(i64, u64)>) {
    let Confirmed { pending, stored, .. } = confirmed;
    // A duplicate on a retry is our own first attempt, whose answer was lost.
    let outcome = if stored.duplicate && pending.attempts == 0 { Outcome::Duplicate } else { Outcome::Processed };
    pending.ticket.done_in(target, Some(pending.event.table), outcome);
}

impl Actor for DedupActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat(ctx, &self.core, ActorKind::Dedup);
    }
}

impl Handler<Check> for DedupActor {
    type Result = ();

    fn handle(&mut self, Check(events): Check, ctx: &mut Self::Context) {
        if self.waiting && self.checks.is_empty() && self.core.settings.bypass_dedup {
            return self.bypass(events);
        }
        self.checks.extend(events);
        self.run_checks(ctx);
    }
}

impl Handler<RecordStored> for DedupActor {
    type Result = ();

    fn handle(&mut self, RecordStored(confirmed): RecordStored, ctx: &mut Self::Context) {
        self.records.extend(confirmed);
        self.run_records(ctx);
    }
}

impl Handler<SetTarget> for DedupActor {
    type Result = ();

    /// What was confirmed and not yet recorded must not be recorded as held by a target that has lost it. After a reconnect
    /// that cannot be told by the sequence, so all of it goes back: what the target still has it recognises.
    fn handle(&mut self, target: SetTarget, ctx: &mut Self::Context) {
        let then = self.view();
        self.target = Some(target);
        self.looks += 1;
        let now = self.view();
        for confirmed in std::mem::take(&mut self.records) {
            if now.has_lost(confirmed.stored, &then) {
                confirmed.pending.ticket.give_back(std::time::Duration::ZERO);
            } else {
                self.records.push_back(confirmed);
            }
        }
        self.run_records(ctx);
    }
}

impl Handler<HandBack> for DedupActor {
    type Result = ();

    fn handle(&mut self, why: HandBack, _: &mut Self::Context) {
        if self.checks.is_empty() {
            return;
        }
        let (deliveries, why) = (self.checks.len(), why.why());
        self.core.observer.observe(Telemetry::HandedBack { deliveries, why });
        for pending in self.checks.drain(..) {
            pending.ticket.give_back(std::time::Duration::ZERO);
        }
    }
}
