//! So many a second, and no more.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Spreads turns evenly over time.
#[derive(Debug)]
pub struct Pace {
    every: Option<Duration>,
    begun: Instant,
    taken: u32,
}

impl Pace {
    /// `rate` turns a second; as fast as they are asked for if there is none.
    pub fn new(rate: Option<NonZeroU32>) -> Self {
        Self { every: rate.map(|rate| Duration::from_secs(1) / rate.get()), begun: Instant::now(), taken: 0 }
    }

    /// Waits for the next turn.
    pub async fn turn(&mut self) {
        let Some(every) = self.every else { return };
        tokio::time::sleep_until((self.begun + every * self.taken).into()).await;
        match self.taken.checked_add(1) {
            Some(taken) => self.taken = taken,
            None => (self.begun, self.taken) = (Instant::now(), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread() {
        let started = Instant::now();
        actix_rt::System::new().block_on(async {
            let mut pace = Pace::new(NonZeroU32::new(100));
            for _ in 0..6 {
                pace.turn().await;
            }
        });
        assert!(started.elapsed() >= Duration::from_millis(50), "{:?}", started.elapsed());
    }
}
