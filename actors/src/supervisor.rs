//! The SupervisorActor: rebuilds what died, counts consecutive failures, pauses intake while a dependency is down, holds the
//! target against the records after every reconnect, and runs the controlled shutdown.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures::stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::guard::{Guard, Restarts, Success};
use crate::ports::{DedupStore, Dependency, Failure, Heard, Publisher, Reconciled, Source, Target};
use crate::shared::{
    ActorKind, Core, Drain, Drained, HandBack, Intake, LookAtTarget, Report, SetTarget, TryAgain, beat,
};
use crate::telemetry::{PauseReason, Telemetry};

/// Between two looks at guard, connection and pauses.
const TICK: Duration = Duration::from_millis(100);

/// Why the pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to.
    Asked,
    /// The guard tripped.
    GuardTripped(String),
}

/// How the pipeline ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: ExitReason,
    /// Everything in flight was settled and the server has heard of it. If not, what was left is delivered again.
    pub drained: bool,
}

/// Begin the controlled shutdown.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown(pub ExitReason);

/// What the supervisor knows of the target.
enum Reconciliation {
    /// Must be done; nothing is under way.
    Due,
    UnderWay,
    /// Done for this epoch of the connection.
    Done {
        epoch: u64,
    },
}

struct Leaving {
    reason: ExitReason,
    since: Instant,
}

/// Whom the supervisor asks.
pub(crate) struct Asked {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) publisher: Arc<dyn Publisher>,
    pub(crate) dedup: Arc<dyn DedupStore>,
}

/// Builds an actor anew and points its slots to it.
pub(crate) type Rebuild = Box<dyn Fn(ActorKind, &Memory)>;

/// What a rebuilt actor has to be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) target: Option<SetTarget>,
    pub(crate) paused: BTreeMap<PauseReason, Instant>,
}

/// Watches; see the module.
pub struct SupervisorActor {
    core: Arc<Core>,
    source: Arc<dyn Source>,
    publisher: Arc<dyn Publisher>,
    dedup: Arc<dyn DedupStore>,
    rebuild: Rebuild,
    deaths: Option<UnboundedReceiver<ActorKind>>,
    guard: Guard,
    restarts: HashMap<ActorKind, Restarts>,
    down: HashMap<Dependency, bool>,
    /// When a dependency was last heard of.
    heard: HashMap<Dependency, Instant>,
    memory: Memory,
    reconciliation: Reconciliation,
    reconcile_failures: u32,
    leaving: Option<Leaving>,
    ended: Option<oneshot::Sender<Ended>>,
}

impl SupervisorActor {
    pub(crate) fn new(
        core: Arc<Core>,
        Asked { source, publisher, dedup }: Asked,
        rebuild: Rebuild,
        deaths: UnboundedReceiver<ActorKind>,
        memory: Memory,
        ended: oneshot::Sender<Ended>,
    ) -> Self {
        Self {
            guard: Guard::new(core.patience().guard),
            core,
            source,
            publisher,
            dedup,
            rebuild,
            deaths: Some(deaths),
            restarts: HashMap::new(),
            down: HashMap::new(),
            heard: HashMap::new(),
            memory,
            reconciliation: Reconciliation::Due,
            reconcile_failures: 0,
            leaving: None,
            ended: Some(ended),
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.core.clock.now();
        self.guard.follow(self.core.patience().guard);
        if let Some(why) = self.guard.tripped(now) {
            self.trip(why);
        }
        self.reconcile_if_due(ctx);
        self.ask_after_silence(now, ctx);
        self.hand_back_after_long_pause(now);
        self.end_grace(now);
    }

    fn trip(&mut self, why: String) {
        if self.leaving.is_none() {
            self.core.observer.observe(Telemetry::GuardTripped { why: &why });
            self.leave(ExitReason::GuardTripped(why));
        }
    }

    fn set_paused(&mut self, reason: PauseReason, paused: bool) {
        let changed = if paused {
            let now = self.core.clock.now();
            let known = self.memory.paused.contains_key(&reason);
            self.memory.paused.entry(reason).or_insert(now);
            !known
        } else {
            self.memory.paused.remove(&reason).is_some()
        };
        if changed {
            self.core.observer.observe(Telemetry::Paused { reason, paused });
            self.core.intake.send(Intake { reason, paused });
        }
    }

    fn reported(&mut self, Report { dependency, failure, tolerated, evidence }: Report) {
        self.heard.insert(dependency, self.core.clock.now());
        let pauses = PauseReason::Dependency(dependency);
        let success = failure.is_none().then(|| self.guard.succeeded(dependency, evidence));
        if success == Some(Success::SaysNothing) {
            // As down as before, until something that is pulled now gets through.
            return self.set_paused(pauses, false);
        }
        let was_down = self.down.insert(dependency, failure.is_some()).unwrap_or(false);
        if was_down != failure.is_some() {
            self.core.observer.observe(Telemetry::DependencyChanged { dependency, failure: failure.as_ref() });
        }
        if success.is_some() {
            if success == Some(Success::Ends) {
                self.core.observer.observe(Telemetry::Streak { dependency, failures: 0 });
            }
            return self.set_paused(pauses, false);
        }
        if tolerated {
            return;
        }
        let failures = self.guard.failed(dependency, evidence, self.core.clock.now());
        self.core.observer.observe(Telemetry::Streak { dependency, failures });
        // The source finds out by pulling that it is back.
        if dependency != Dependency::Source {
            self.set_paused(pauses, true);
        }
    }

    /// After every connect: has the target lost data since the last record?
    fn reconcile_if_due(&mut self, ctx: &mut Context<Self>) {
        let epochs = (self.core.target_epoch(&*self.publisher), self.source.connection_epoch());
        let (epoch, _) = epochs;
        match self.reconciliation {
            Reconciliation::Done { epoch: known } if known == epoch => return,
            Reconciliation::UnderWay => return,
            Reconciliation::Done { .. } | Reconciliation::Due => {}
        }
        self.set_paused(PauseReason::Reconcile, true);
        self.reconciliation = Reconciliation::UnderWay;
        let (publisher, dedup, started) = (Arc::clone(&self.publisher), Arc::clone(&self.dedup), self.core.clock.now());
        let bypass = self.core.settings.bypass_dedup;
        let call = async move {
            match hold_against_records(&*publisher, &*dedup).await {
                // Without the store there are no records to hold the target against, and none are trusted either.
                Err((Dependency::Dedup, _)) if bypass => {
                    let target = publisher.target().await.map_err(|failure| (Dependency::Target, failure))?;
                    Ok((target, Reconciled { generation: 0, regressed_from: None }))
                }
                result => result,
            }
        };
        ctx.spawn(call.into_actor(self).map(move |result, actor, ctx| actor.reconciled(result, epochs, started, ctx)));
    }

    fn reconciled(
        &mut self,
        result: Result<(Target, Reconciled), (Dependency, Failure)>,
        (epoch, source_epoch): (u64, u64),
        started: Instant,
        ctx: &mut Context<Self>,
    ) {
        match result {
            Ok((target, known)) => {
                self.reconcile_failures = 0;
                self.core.called(Dependency::Target, "reconcile", started, None, false);
                // Generation 0 stands for a store that was bypassed.
                if known.generation > 0 {
                    self.core.called(Dependency::Dedup, "reconcile", started, None, false);
                }
                if let Some(recorded) = known.regressed_from {
                    let last_sequence = target.last_sequence;
                    self.core.observer.observe(Telemetry::TargetRegressed { recorded, last_sequence });
                }
                if self.core.target_epoch(&*self.publisher) != epoch {
                    // It has been away while it was looked at: what was seen says nothing any more.
                    self.reconciliation = Reconciliation::Due;
                    return self.reconcile_if_due(ctx);
                }
                let set = SetTarget { target, generation: known.generation, epoch, source_epoch };
                self.memory.target = Some(set);
                self.core.target.send(set);
                self.core.finished_for.send(set);
                self.core.publish_to.send(set);
                self.reconciliation = Reconciliation::Done { epoch };
                self.set_paused(PauseReason::Reconcile, false);
            }
            Err((dependency, failure)) => {
                self.reconcile_failures += 1;
                self.core.called(dependency, "reconcile", started, Some(&failure), false);
                ctx.run_later(self.core.delay(self.reconcile_failures), |actor, ctx| {
                    actor.reconciliation = Reconciliation::Due;
                    actor.reconcile_if_due(ctx);
                });
            }
        }
    }

    /// A replica that is cut off must not hoard what others could do.
    fn hand_back_after_long_pause(&mut self, now: Instant) {
        let limit = self.core.settings.ack_wait * 2;
        let long = self.memory.paused.iter().any(|(reason, since)| {
            matches!(reason, PauseReason::Dependency(_)) && now.saturating_duration_since(*since) >= limit
        });
        if long && self.leaving.is_none() {
            self.core.hand_back(HandBack::Away);
        }
    }

    /// Who paused intake finds out by its next call that the dependency is back. If it has no reason to make one, or died, this asks
    /// in its place.
    fn ask_after_silence(&mut self, now: Instant, ctx: &mut Context<Self>) {
        let patience = self.core.patience().backoff.max + TICK;
        for dependency in [Dependency::Target, Dependency::DeadLetter, Dependency::Dedup] {
            let paused = self.memory.paused.contains_key(&PauseReason::Dependency(dependency));
            let silent = self.heard.get(&dependency).is_none_or(|at| now.saturating_duration_since(*at) >= patience);
            if !paused || !silent {
                continue;
            }
            self.heard.insert(dependency, now);
            let (publisher, dedup, started) = (Arc::clone(&self.publisher), Arc::clone(&self.dedup), now);
            let call = async move {
                match dependency {
                    Dependency::Target => publisher.target().await.map(drop),
                    Dependency::Dedup => dedup.check(Vec::new()).await.map(drop),
                    // Only storing the next letter can tell.
                    Dependency::Source | Dependency::DeadLetter => Ok(()),
                }
            };
            ctx.spawn(call.into_actor(self).map(move |result, actor, _| {
                actor.core.called(dependency, "probe", started, result.as_ref().err(), false);
            }));
        }
    }

    fn actor_died(&mut self, kind: ActorKind) {
        if self.ended.is_none() {
            return;
        }
        self.core.observer.observe(Telemetry::ActorRestarted { actor: kind.name() });
        let (limit, now) = (self.core.settings.restarts, self.core.clock.now());
        if self.restarts.entry(kind).or_default().died(limit, now) {
            let why = format!("actor {} died more than {} times in {:?}", kind.name(), limit.deaths, limit.window);
            return self.trip(why);
        }
        (self.rebuild)(kind, &self.memory);
        if self.leaving.is_some() && kind == ActorKind::Ingest {
            self.core.drain.send(Drain);
        }
    }

    fn leave(&mut self, reason: ExitReason) {
        if self.leaving.is_some() {
            return;
        }
        self.leaving = Some(Leaving { reason, since: self.core.clock.now() });
        self.set_paused(PauseReason::Shutdown, true);
        self.core.drain.send(Drain);
    }

    /// Near the end of the grace what has not been sent goes back; at its end what is left stays unacknowledged.
    fn end_grace(&mut self, now: Instant) {
        let grace = self.core.settings.grace;
        let Some(leaving) = &self.leaving else { return };
        let age = now.saturating_duration_since(leaving.since);
        // Again and again: what is on its way between two actors, or in a call, misses the first.
        if age >= grace.mul_f64(0.8) {
            self.core.hand_back(HandBack::Leaving);
        }
        if age >= grace {
            self.end(false);
        }
    }

    fn end(&mut self, drained: bool) {
        let Some(leaving) = &self.leaving else { return };
        if let Some(ended) = self.ended.take() {
            // Nobody waiting for the end is no reason to stay.
            let _ = ended.send(Ended { reason: leaving.reason.clone(), drained });
        }
    }
}

/// Has the target lost data? What is recorded is read before the target is asked, so that events which another replica
/// stores and records in between are not taken for a loss.
async fn hold_against_records(
    publisher: &dyn Publisher,
    dedup: &dyn DedupStore,
) -> Result<(Target, Reconciled), (Dependency, Failure)> {
    let of_target = |failure| (Dependency::Target, failure);
    let of_dedup = |failure| (Dependency::Dedup, failure);
    let created = publisher.target().await.map_err(of_target)?.created;
    let recorded = dedup.highest(created).await.map_err(of_dedup)?;
    let target = publisher.target().await.map_err(of_target)?;
    if target.last_sequence < recorded {
        return Ok((target, dedup.reconcile(target).await.map_err(of_dedup)?));
    }
    let generation = dedup.check(Vec::new()).await.map_err(of_dedup)?.generation;
    Ok((target, Reconciled { generation, regressed_from: None }))
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        beat(ctx, &self.core, ActorKind::Supervisor);
        if let Some(deaths) = self.deaths.take() {
            ctx.add_stream(stream::unfold(deaths, |mut deaths| async move {
                deaths.recv().await.map(|kind| (kind, deaths))
            }));
        }
        ctx.run_interval(TICK, Self::tick);
        self.reconcile_if_due(ctx);
    }
}

impl StreamHandler<ActorKind> for SupervisorActor {
    fn handle(&mut self, kind: ActorKind, _: &mut Self::Context) {
        self.actor_died(kind);
    }
}

impl Handler<Report> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, report: Report, _: &mut Self::Context) {
        self.reported(report);
    }
}

impl Handler<LookAtTarget> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, LookAtTarget { created }: LookAtTarget, ctx: &mut Self::Context) {
        let known = self.memory.target.is_some_and(|set| Some(set.target.created) == created);
        if !known && matches!(self.reconciliation, Reconciliation::Done { .. }) {
            self.reconciliation = Reconciliation::Due;
            self.reconcile_if_due(ctx);
        }
    }
}

impl Handler<TryAgain> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, TryAgain(dependency): TryAgain, _: &mut Self::Context) {
        self.set_paused(PauseReason::Dependency(dependency), false);
    }
}

impl Handler<Shutdown> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Shutdown(reason): Shutdown, _: &mut Self::Context) {
        self.leave(reason);
    }
}

impl Handler<Drained> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Drained(heard): Drained, _: &mut Self::Context) {
        self.end(heard == Heard::All);
    }
}
