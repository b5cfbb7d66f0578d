//! Failures on order.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use super::lock;
use crate::ports::{Failure, FailureClass};

/// A failure of the class that most tests want.
pub fn unavailable() -> Failure {
    Failure::new("call the fake", FailureClass::Unavailable, "told to fail")
}

/// The failures that a fake was told to answer with, by operation.
#[derive(Debug, Default)]
pub struct Faults {
    queues: Mutex<HashMap<&'static str, VecDeque<Failure>>>,
    calls: Mutex<HashMap<&'static str, usize>>,
}

impl Faults {
    /// Makes the next `calls` calls of `operation` (the name of the port's method) fail with `failure`.
    pub fn fail_next(&self, operation: &'static str, calls: usize, failure: Failure) {
        lock(&self.queues).entry(operation).or_default().extend(std::iter::repeat_n(failure, calls));
    }

    /// Takes back what is left of the orders for `operation`.
    pub fn clear(&self, operation: &'static str) {
        lock(&self.queues).remove(operation);
    }

    /// How often `operation` was called, failed calls included.
    pub fn calls(&self, operation: &'static str) -> usize {
        lock(&self.calls).get(operation).copied().unwrap_or(0)
    }

    /// Counts a call and tells whether it is to fail.
    pub(crate) fn enter(&self, operation: &'static str) -> Result<(), Failure> {
        *lock(&self.calls).entry(operation).or_default() += 1;
        self.take(operation).map_or(Ok(()), Err)
    }

    /// The next failure ordered for `operation`, without counting a call.
    pub(crate) fn take(&self, operation: &'static str) -> Option<Failure> {
        lock(&self.queues).get_mut(operation).and_then(VecDeque::pop_front)
    }
}
