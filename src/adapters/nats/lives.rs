//! Which life of its consumer a delivery belongs to.
//!
//! A consumer that was deleted and created again has the name of the one before, and takes acknowledgements of that one's deliveries
//! for its own. nats-server 2.10.25 then passes everything before them, which it never gave (2.9.10, and 2.10.26 and later, do
//! not; nats-server #6469). So what the one before gave is not settled any more: it comes again, and is looked up.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts the lives of a consumer.
#[derive(Debug, Default)]
pub(super) struct ConsumerLives(Mutex<Lives>);

#[derive(Debug, Default)]
struct Lives {
    /// When the present one was created, as the server writes it; unknown until it is seen.
    created: Option<String>,
    number: u64,
}

impl ConsumerLives {
    fn lock(&self) -> MutexGuard<'_, Lives> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the present one.
    pub(super) fn present(&self) -> u64 {
        self.lock().number
    }

    /// The one that is there was created then: another one, if that is not when the present one was.
    pub(super) fn saw(&self, created: &str) {
        let mut lives = self.lock();
        if lives.created.as_deref().is_some_and(|known| known != created) {
            lives.number += 1;
        }
        lives.created = Some(created.to_owned());
    }

    /// The present one is about to be deleted.
    pub(super) fn end(&self) {
        let mut lives = self.lock();
        lives.number += 1;
        lives.created = None;
    }
}

#[cfg(test)]
mod tests {
    use super::ConsumerLives;

    #[test]
    fn a_life_ends_with_the_consumer() {
        let lives = ConsumerLives::default();
        let mut numbers = Vec::new();
        for created in ["a", "a", "b", "b"] {
            lives.saw(created);
            numbers.push(lives.present());
        }
        lives.end();
        numbers.push(lives.present());
        lives.saw("c");
        numbers.push(lives.present());
        assert_eq!(numbers, [0, 0, 1, 1, 2, 2]);
    }
}
