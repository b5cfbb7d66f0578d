//! Actors that die on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cdc_actors::pipeline::Ports;
use cdc_actors::ports::Observer;
use cdc_actors::telemetry::Telemetry;
use tokio::signal::unix::{SignalKind, signal};

use crate::defences::Sabotage;

/// Whether an actor dies of having told this: whatever it tells, it tells from within.
type Deathly = fn(&Telemetry<'_>) -> bool;

/// Who dies, in turn, and of what.
const VICTIMS: [(&str, Deathly); 8] = [
    ("ingest, having pulled", |told| called(told, "pull")),
    ("ingest, having settled", |told| called(told, "settle")),
    ("transform, having decided", |told| matches!(told, Telemetry::UnhandledField { .. })),
    ("dedup, having checked", |told| called(told, "check")),
    ("dedup, having recorded", |told| called(told, "record")),
    ("publish, having published", |told| called(told, "publish")),
    ("publish, having stored a dead letter", |told| called(told, "store")),
    ("supervisor", |told| matches!(told, Telemetry::Alive { actor: "supervisor" })),
];
/// Nobody is to die.
const NOBODY: usize = usize::MAX;

fn called(told: &Telemetry<'_>, wanted: &str) -> bool {
    matches!(told, Telemetry::Called { operation, failure: None, .. } if *operation == wanted)
}

/// Kills the next victim, in turn, with each SIGUSR1.
pub fn listen<T>(sabotage: &Sabotage, mut ports: Ports<T>) -> Ports<T> {
    if !sabotage.has("deaths") {
        return ports;
    }
    let next = Arc::new(AtomicUsize::new(NOBODY));
    ports.observer = Arc::new(Deadly { inner: ports.observer, next: Arc::clone(&next) });
    actix_rt::spawn(async move {
        let Ok(mut orders) = signal(SignalKind::user_defined1()) else { return };
        for victim in (0..VICTIMS.len()).cycle() {
            if orders.recv().await.is_none() {
                return;
            }
            next.store(victim, Ordering::SeqCst);
        }
    });
    ports
}

/// Panics in the actor that is to die.
struct Deadly {
    inner: Arc<dyn Observer>,
    /// The victim's place in [`VICTIMS`].
    next: Arc<AtomicUsize>,
}

impl Observer for Deadly {
    fn observe(&self, event: Telemetry<'_>) {
        let next = self.next.load(Ordering::SeqCst);
        if let Some((who, of)) = VICTIMS.get(next)
            && of(&event)
            && self.next.compare_exchange(next, NOBODY, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            panic!("sabotage: death of {who}");
        }
        self.inner.observe(event);
    }
}
