//! Builds the actors, wires them, and hands out the means to stop them.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::between::Change;
use crate::dedup::DedupActor;
use crate::ingest::{IngestActor, Workers};
use crate::ports::{Clock, DeadLetters, DedupStore, Observer, Publisher, Source, Transform};
use crate::publish::PublishActor;
use crate::shared::{ActorKind, Core, Life, Patience, Settings, Slot};
use crate::supervisor::{Asked, Ended, ExitReason, Memory, Shutdown, SupervisorActor};
use crate::telemetry::PauseReason;
use crate::transform::{TransformActor, Work};

/// Everything the pipeline needs from the outside.
pub struct Ports<T> {
    /// Where events come from.
    pub source: Arc<dyn Source>,
    /// What becomes of them.
    pub transform: Arc<T>,
    /// What was published before.
    pub dedup: Arc<dyn DedupStore>,
    /// Where they go.
    pub publisher: Arc<dyn Publisher>,
    /// Where what cannot be published goes.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl<T> Clone for Ports<T> {
    fn clone(&self) -> Self {
        Self {
            source: Arc::clone(&self.source),
            transform: Arc::clone(&self.transform),
            dedup: Arc::clone(&self.dedup),
            publisher: Arc::clone(&self.publisher),
            dead_letters: Arc::clone(&self.dead_letters),
            observer: Arc::clone(&self.observer),
            clock: Arc::clone(&self.clock),
        }
    }
}

/// A running pipeline.
pub struct Pipeline {
    core: Arc<Core>,
    supervisor: Addr<SupervisorActor>,
    ended: oneshot::Receiver<Ended>,
    threads: Vec<Arbiter>,
}

impl Pipeline {
    /// Asks for the controlled shutdown.
    pub fn shutdown(&self) {
        self.supervisor.do_send(Shutdown(ExitReason::Asked));
    }

    /// How long failures are borne from now on.
    pub fn set_patience(&self, patience: Patience) {
        self.core.set_patience(patience);
    }

    /// What makes changes between events.
    pub fn changes(&self) -> Changes {
        Changes(Arc::clone(&self.core))
    }

    /// Waits for the end, which `Settings::grace` after a shutdown has begun is there at the latest.
    pub async fn ended(&mut self) -> Ended {
        let gone = || ExitReason::GuardTripped("the supervisor itself died".to_owned());
        let ended = (&mut self.ended).await.unwrap_or_else(|_| Ended { reason: gone(), drained: false });
        for thread in &self.threads {
            thread.stop();
        }
        ended
    }
}

/// Makes changes that must meet no event on its way.
pub struct Changes(Arc<Core>);

impl Changes {
    /// Makes `change` when nothing is in flight: everything pulled before is settled, or back at the source, and nothing is pulled
    /// meanwhile. It is made at once where nothing is. What is returned hears of it, or of the death of the actor that was to
    /// make it, after which it is not made; an actor that dies loses count of what is in flight.
    pub fn between_events(&self, change: impl FnOnce() + Send + 'static) -> oneshot::Receiver<()> {
        let (change, made) = Change::new(change);
        self.0.change.send(change);
        made
    }
}

/// Builds one actor, again and again.
struct Builder<T: Transform> {
    ports: Ports<T>,
    core: Arc<Core>,
    workers: Workers<T::Parsed>,
    threads: Vec<ArbiterHandle>,
    deaths: UnboundedSender<ActorKind>,
}

impl<T: Transform> Builder<T> {
    fn build(&self, kind: ActorKind, memory: &Memory) {
        let (core, ports, life) = (Arc::clone(&self.core), self.ports.clone(), Life::new(kind, self.deaths.clone()));
        match kind {
            ActorKind::Ingest => {
                let paused: BTreeSet<PauseReason> = memory.paused.keys().copied().collect();
                let workers = Arc::clone(&self.workers);
                let actor = IngestActor::new(core, ports.source, ports.dedup, ports.transform, workers, paused, life);
                let address = actor.start();
                self.core.intake.point_to(address.clone().recipient());
                self.core.hand_back_held.point_to(address.clone().recipient());
                self.core.finished_for.point_to(address.clone().recipient());
                memory.target.into_iter().for_each(|target| self.core.finished_for.send(target));
                self.core.change.point_to(address.clone().recipient());
                self.core.drain.point_to(address.recipient());
            }
            ActorKind::Transform(index) => {
                let actor = move || TransformActor::new(core, ports.transform, index, life);
                let address = match self.threads.len() {
                    0 => actor().start(),
                    threads => TransformActor::start_in_arbiter(&self.threads[index % threads], move |_| actor()),
                };
                self.workers[index].point_to(address.recipient::<Work<T::Parsed>>());
            }
            ActorKind::Dedup => {
                let address = DedupActor::new(core, ports.dedup, ports.publisher, memory.target, life).start();
                self.core.check.point_to(address.clone().recipient());
                self.core.record.point_to(address.clone().recipient());
                self.core.target.point_to(address.clone().recipient());
                self.core.hand_back_checks.point_to(address.recipient());
            }
            ActorKind::Publish => {
                let looked = memory.target.map(|target| target.epoch);
                let address = PublishActor::new(core, ports.publisher, ports.dead_letters, looked, life).start();
                self.core.publish.point_to(address.clone().recipient());
                self.core.unacknowledged.point_to(address.clone().recipient());
                self.core.apart.point_to(address.clone().recipient());
                self.core.publish_to.point_to(address.clone().recipient());
                self.core.bury.point_to(address.clone().recipient());
                self.core.hand_back_publishes.point_to(address.recipient());
            }
            // Its death ends the pipeline; see `Pipeline::ended`.
            ActorKind::Supervisor => {}
        }
    }
}

/// Starts the pipeline on the running actix system. Workers get threads of their own; a single one does not, since handing events
/// over to another thread and back would cost more than it takes off this one.
pub fn start<T: Transform>(ports: Ports<T>, settings: Settings) -> Pipeline {
    let (workers, threads) = (settings.workers.max(1), settings.threads.max(1));
    let core = Arc::new(Core::new(settings, Arc::clone(&ports.observer), Arc::clone(&ports.clock)));
    let (deaths, died) = unbounded_channel();
    let (end, ended) = oneshot::channel();
    let threads = if workers == 1 { 0 } else { threads.min(workers) };
    let arbiters: Vec<Arbiter> = (0..threads).map(|_| Arbiter::new()).collect();
    let builder = Builder {
        ports: ports.clone(),
        core: Arc::clone(&core),
        workers: Arc::new((0..workers).map(|_| Slot::default()).collect()),
        threads: arbiters.iter().map(Arbiter::handle).collect(),
        deaths,
    };
    // Nothing is pulled before the target has been held against the records.
    let mut memory = Memory::default();
    memory.paused.insert(PauseReason::Reconcile, ports.clock.now());
    let first = memory.clone();
    for kind in [ActorKind::Publish, ActorKind::Dedup].into_iter().chain((0..workers).map(ActorKind::Transform)) {
        builder.build(kind, &first);
    }
    builder.build(ActorKind::Ingest, &first);
    let rebuild = Box::new(move |kind, memory: &Memory| builder.build(kind, memory));
    let supervisor = SupervisorActor::create(|ctx| {
        core.report.point_to(ctx.address().recipient());
        core.look_at_target.point_to(ctx.address().recipient());
        core.try_again.point_to(ctx.address().recipient());
        core.drained.point_to(ctx.address().recipient());
        let asked = Asked { source: ports.source, publisher: ports.publisher, dedup: ports.dedup };
        SupervisorActor::new(Arc::clone(&core), asked, rebuild, died, memory, end)
    });
    Pipeline { core, supervisor, ended, threads: arbiters }
}
