//! Fakes of every port, and the contract suites that hold a fake and the real server to the same behaviour.
//!
//! A fake keeps what it was given, can be told to fail its next calls, and is never kinder than the real thing: whatever it does beyond
//! that is in the [`contract`] suites. Everything here is for tests, so a broken assumption panics.

pub mod contract;

mod clock;
mod dead_letters;
mod dedup;
mod faults;
mod observer;
mod publisher;
mod source;

pub use clock::ManualClock;
pub use dead_letters::FakeDeadLetters;
pub use dedup::FakeDedupStore;
pub use faults::{Faults, unavailable};
pub use observer::{Observed, RecordingObserver};
pub use publisher::{FakePublisher, StoredMessage};
pub use source::FakeSource;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a test that panicked elsewhere must not hide behind a poisoned lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
