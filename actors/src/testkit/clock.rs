//! A clock that stands still until it is moved.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::lock;
use crate::ports::Clock;

/// A clock that a test moves. Clones share their time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    start: Instant,
    elapsed: Arc<Mutex<Duration>>,
    moved: watch::Sender<()>,
}

impl ManualClock {
    /// What [`Clock::unix_nanos`] says before the clock is moved: 2026-01-01T00:00:00Z.
    pub const EPOCH_NANOS: i64 = 1_767_225_600_000_000_000;

    /// A clock at its start.
    pub fn new() -> Self {
        Self { start: Instant::now(), elapsed: Arc::default(), moved: watch::Sender::new(()) }
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        *lock(&self.elapsed) += by;
        self.moved.send_replace(());
    }

    /// How far it has been moved.
    pub fn elapsed(&self) -> Duration {
        *lock(&self.elapsed)
    }

    /// Sees every move from now on.
    pub(crate) fn moves(&self) -> watch::Receiver<()> {
        self.moved.subscribe()
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn unix_nanos(&self) -> i64 {
        Self::EPOCH_NANOS + i64::try_from(self.elapsed().as_nanos()).unwrap_or(i64::MAX - Self::EPOCH_NANOS)
    }
}
