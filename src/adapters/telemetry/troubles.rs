//! What went wrong lately, for whoever opens the page: the newest of each kind, not a second log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use cdc_actors::ports::Clock;
use serde::Serialize;

use super::metrics::lock;
use super::status::rfc3339;

/// Kinds of trouble that are remembered.
pub(super) const KEPT: usize = 20;
/// Longest text of an error, in characters; servers say what they like.
pub(super) const SHOWN: usize = 400;

/// One kind of trouble: what went wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What went wrong, the same words as in the log.
    pub what: &'static str,
    /// With what: a dependency and the operation, a table and the reason, an actor.
    pub with: String,
    /// What was said the last time, without secrets.
    pub error: String,
    /// How often it happened since it was first remembered.
    pub times: u64,
    /// When it first happened, RFC 3339.
    pub first: String,
    /// When it last happened, RFC 3339.
    pub last: String,
}

/// Troubles by their last time, the newest first.
pub(super) struct Troubles {
    clock: Arc<dyn Clock>,
    newest_first: Mutex<VecDeque<Trouble>>,
}

impl Troubles {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, newest_first: Mutex::default() }
    }

    /// Remembers a trouble; one of a kind that is known takes its place.
    pub(super) fn note(&self, what: &'static str, with: String, error: &str) {
        let now = rfc3339(self.clock.unix_nanos());
        let error = error.chars().take(SHOWN).collect();
        let mut list = lock(&self.newest_first);
        let known = list.iter().position(|known| known.what == what && known.with == with);
        let (times, first) = match known.and_then(|at| list.remove(at)) {
            Some(known) => (known.times + 1, known.first),
            None => (1, now.clone()),
        };
        list.push_front(Trouble { what, with, error, times, first, last: now });
        list.truncate(KEPT);
    }

    /// All of them, the newest first.
    pub(super) fn list(&self) -> Vec<Trouble> {
        lock(&self.newest_first).iter().cloned().collect()
    }
}
