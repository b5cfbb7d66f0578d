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
    /// When the last one that was seen was created, nanoseconds since the Unix epoch.
    created: Option<i64>,
    /// That one is no more, or will not be for long.
    ended: bool,
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

    /// One that was created then was there when somebody looked, which may be a while ago.
    pub(super) fn saw(&self, created: i64) {
        let mut lives = self.lock();
        if lives.created.is_some_and(|known| created <= known) {
            return;
        }
        let another = lives.created.is_some() && !lives.ended;
        lives.number += u64::from(another);
        (lives.created, lives.ended) = (Some(created), false);
    }

    /// One that was created then is the present one: whoever reads it now has looked it up for that.
    pub(super) fn opened(&self, created: i64) {
        let mut lives = self.lock();
        let another = lives.created.is_some_and(|known| created != known) && !lives.ended;
        lives.number += u64::from(another);
        (lives.created, lives.ended) = (Some(created), false);
    }

    /// The present one was deleted, or is about to be.
    pub(super) fn end(&self) {
        let mut lives = self.lock();
        lives.number += u64::from(!lives.ended);
        lives.ended = true;
    }

    /// It was not deleted after all.
    pub(super) fn resume(&self) {
        let mut lives = self.lock();
        lives.number -= u64::from(lives.ended);
        lives.ended = false;
    }
}

#[cfg(test)]
mod tests {
    use super::ConsumerLives;

    #[test]
    fn a_life_ends_with_the_consumer() {
        let lives = ConsumerLives::default();
        let mut numbers = Vec::new();
        for created in [5, 5, 7, 7, 5] {
            lives.saw(created);
            numbers.push(lives.present());
        }
        assert_eq!(numbers, [0, 0, 1, 1, 1], "one that is older was seen before");
        lives.end();
        lives.end();
        assert_eq!(lives.present(), 2, "told twice");
        lives.saw(7);
        assert_eq!(lives.present(), 2, "seen before it ended");
        lives.saw(9);
        assert_eq!(lives.present(), 2, "the next one");
        lives.saw(11);
        assert_eq!(lives.present(), 3);
    }

    #[test]
    fn whoever_reads_a_consumer_knows_that_it_lives() {
        let lives = ConsumerLives::default();
        let mut numbers = Vec::new();
        // Of two servers the one that creates it anew may have the slower clock.
        for created in [5, 5, 4, 4] {
            lives.opened(created);
            numbers.push(lives.present());
        }
        assert_eq!(numbers, [0, 0, 1, 1]);
        // Said to have been deleted, and it was not.
        lives.end();
        lives.opened(4);
        assert_eq!(lives.present(), 2);
        lives.end();
        assert_eq!(lives.present(), 3, "another end is another life");
    }

    #[test]
    fn one_that_could_not_be_deleted_lives_on() {
        let lives = ConsumerLives::default();
        lives.saw(5);
        lives.end();
        lives.resume();
        lives.saw(5);
        assert_eq!(lives.present(), 0);
        lives.saw(7);
        lives.resume();
        assert_eq!(lives.present(), 1, "there was nothing to take back");
    }
}
