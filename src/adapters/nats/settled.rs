//! Which settlements the server has read, as far as that can be told.

use std::time::{Duration, Instant};

use cdc_actors::ports::Heard;

/// Settlements that no answer has confirmed yet.
#[derive(Debug, Clone, Copy)]
struct Carried {
    /// Epoch of the connection.
    by: u64,
    last: Instant,
}

/// Which settlements may have gone down with their connection.
#[derive(Debug, Default)]
pub(super) struct Settled {
    carried: Option<Carried>,
    /// When the last of those went out that an earlier connection carried.
    perhaps_lost: Option<Instant>,
}

impl Settled {
    /// More go out over this connection.
    pub(super) fn carried_by(&mut self, epoch: u64, now: Instant) {
        self.gone(epoch);
        self.carried = Some(Carried { by: epoch, last: now });
    }

    /// Whether some that no answer has confirmed went out over this connection.
    pub(super) fn are_carried_by(&self, epoch: u64) -> bool {
        self.carried.is_some_and(|carried| carried.by == epoch)
    }

    fn gone(&mut self, standing: u64) {
        if let Some(carried) = self.carried.take_if(|carried| carried.by != standing) {
            self.perhaps_lost = Some(carried.last);
        }
    }

    /// The server has read what this connection carried. What another one did is delivered again after `ack_wait`, if it was not.
    pub(super) fn heard(&mut self, standing: u64, ack_wait: Duration, now: Instant) -> Heard {
        self.gone(standing);
        self.carried = None;
        let lately = self.perhaps_lost.is_some_and(|at| now.saturating_duration_since(at) < ack_wait);
        if lately { Heard::PerhapsNotAll } else { Heard::All }
    }
}
