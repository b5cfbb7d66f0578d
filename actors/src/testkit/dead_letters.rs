//! A dead-letter stream, in memory.

use std::sync::Mutex;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{Faults, lock};
use crate::message::DeadLetter;
use crate::ports::{DeadLetters, Failure};

/// Keeps dead letters, one per delivery of the source.
#[derive(Debug, Default)]
pub struct FakeDeadLetters {
    /// Orders to fail: `store`.
    pub faults: Faults,
    letters: Mutex<Vec<DeadLetter>>,
}

impl FakeDeadLetters {
    /// What it has stored, in order.
    pub fn stored(&self) -> Vec<DeadLetter> {
        lock(&self.letters).clone()
    }

    fn store_now(&self, letter: DeadLetter) -> Result<(), Failure> {
        self.faults.enter("store")?;
        let mut letters = lock(&self.letters);
        let id = letter.delivery.receipt.id;
        if letters.iter().all(|stored| stored.delivery.receipt.id != id) {
            letters.push(letter);
        }
        Ok(())
    }
}

impl DeadLetters for FakeDeadLetters {
    fn store(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), Failure>> {
        ready(self.store_now(letter)).boxed()
    }
}
