//! Whether the service is ready and alive, as `/readyz` and `/healthz` tell.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cdc_actors::ports::{Clock, Dependency};
use cdc_actors::telemetry::PauseReason;
use jiff::Timestamp;
use serde::Serialize;

/// An actor that has not been heard of for this long is not making progress.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);

/// The name under which reasons appear that are the service's own.
const SERVICE: &str = "service";

/// Whether traffic should count on this replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// True exactly if there are no reasons against it.
    pub ready: bool,
    /// What stands against it.
    pub reasons: Vec<NotReady>,
}

/// One reason for not being ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// The dependency concerned, or `service`.
    pub dependency: &'static str,
    /// What is wrong with it.
    pub error: String,
    /// Since when, RFC 3339.
    pub since: String,
}

/// Whether the actors make progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Liveness {
    /// True exactly if no actor is silent.
    pub alive: bool,
    /// Actors that have been silent for longer than [`HEARTBEAT_LIMIT`].
    pub silent: Vec<Silent>,
}

/// An actor that does not report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    /// Its name.
    pub actor: String,
    /// For how many seconds.
    pub seconds: u64,
}

/// Since when there is a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// When it began, RFC 3339.
    pub started: String,
    /// The time by its clock, RFC 3339.
    pub now: String,
    /// How long ago it began, whatever was done to the clock since.
    pub uptime: Duration,
}

/// Why the service is not ready; the order is the order in which reasons are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    NotStarted,
    ShuttingDown,
    Reconciling,
    Down(Dependency),
    Paused(Dependency),
}

#[derive(Debug)]
struct Since {
    error: String,
    unix_nanos: i64,
}

#[derive(Debug, Default)]
struct State {
    causes: BTreeMap<Cause, Since>,
    heartbeats: BTreeMap<String, Instant>,
}

/// What is known about readiness and liveness; shared between the actors and the HTTP endpoint.
pub struct Status {
    clock: Arc<dyn Clock>,
    started: (Instant, i64),
    state: Mutex<State>,
}

impl Status {
    /// Not ready, until [`Self::set_started`] says that the start is over.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let started = (clock.now(), clock.unix_nanos());
        let status = Self { clock, started, state: Mutex::default() };
        status.set_started(false);
        status
    }

    /// Says whether the start is over: connections made, streams there, actors running.
    pub fn set_started(&self, started: bool) {
        self.set(Cause::NotStarted, (!started).then(|| "starting".to_owned()));
    }

    /// Takes note that a dependency went down (with an error) or came back.
    pub(super) fn dependency(&self, dependency: Dependency, error: Option<String>) {
        self.set(Cause::Down(dependency), error);
    }

    /// Takes note that intake was paused or resumed. A suspect running apart does not make the service unready,
    /// nor does a reload.
    pub(super) fn paused(&self, reason: PauseReason, paused: bool) {
        let (cause, error) = match reason {
            PauseReason::Dependency(dependency) => (Cause::Paused(dependency), "intake is paused"),
            PauseReason::Reconcile => (Cause::Reconciling, "the target is being held against the records"),
            PauseReason::Shutdown => (Cause::ShuttingDown, "shutting down"),
            PauseReason::Suspect | PauseReason::Reload => return,
        };
        self.set(cause, paused.then(|| error.to_owned()));
    }

    /// An actor is at work, or waiting for work, now. Its first call puts it under watch.
    pub fn heartbeat(&self, actor: &str) {
        let now = self.clock.now();
        let mut state = self.lock();
        match state.heartbeats.get_mut(actor) {
            Some(last) => *last = now,
            None => {
                state.heartbeats.insert(actor.to_owned(), now);
            }
        }
    }

    /// Ends the watch over an actor that has stopped as it should.
    pub fn forget(&self, actor: &str) {
        self.lock().heartbeats.remove(actor);
    }

    /// How long the service has been there.
    pub fn life(&self) -> Life {
        let (instant, unix_nanos) = self.started;
        Life {
            started: rfc3339(unix_nanos),
            now: rfc3339(self.clock.unix_nanos()),
            uptime: self.clock.now().saturating_duration_since(instant),
        }
    }

    /// Whether the service is ready, and why not.
    pub fn readiness(&self) -> Readiness {
        let state = self.lock();
        let told = |cause: &Cause| match cause {
            // That a dependency is down says it all.
            Cause::Paused(dependency) => !state.causes.contains_key(&Cause::Down(*dependency)),
            Cause::Reconciling => !state.causes.contains_key(&Cause::Down(Dependency::Target)),
            _ => true,
        };
        let reasons: Vec<NotReady> = state
            .causes
            .iter()
            .filter(|(cause, _)| told(cause))
            .map(|(cause, since)| NotReady {
                dependency: match cause {
                    Cause::NotStarted | Cause::ShuttingDown => SERVICE,
                    Cause::Reconciling => Dependency::Target.name(),
                    Cause::Down(dependency) | Cause::Paused(dependency) => dependency.name(),
                },
                error: since.error.clone(),
                since: rfc3339(since.unix_nanos),
            })
            .collect();
        Readiness { ready: reasons.is_empty(), reasons }
    }

    /// Whether every actor under watch has been heard of lately.
    pub fn liveness(&self) -> Liveness {
        let now = self.clock.now();
        let silent: Vec<Silent> = self
            .lock()
            .heartbeats
            .iter()
            .map(|(actor, last)| (actor, now.saturating_duration_since(*last)))
            .filter(|(_, silence)| *silence > HEARTBEAT_LIMIT)
            .map(|(actor, silence)| Silent { actor: actor.clone(), seconds: silence.as_secs() })
            .collect();
        Liveness { alive: silent.is_empty(), silent }
    }

    fn set(&self, cause: Cause, error: Option<String>) {
        let unix_nanos = self.clock.unix_nanos();
        let mut state = self.lock();
        match error {
            // The newest error is shown, with the time at which the trouble began.
            Some(error) => {
                let began = state.causes.get(&cause).map_or(unix_nanos, |since| since.unix_nanos);
                state.causes.insert(cause, Since { error, unix_nanos: began });
            }
            None => {
                state.causes.remove(&cause);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under the lock, so what a panicking thread left behind is sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A time in nanoseconds since the Unix epoch as people and machines read it.
pub(super) fn rfc3339(unix_nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_nanos)).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}
