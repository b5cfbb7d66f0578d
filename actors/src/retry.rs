//! When to try again: exponential backoff with full jitter.

use std::time::Duration;

/// Bounds of the backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The ceiling of the first delay.
    pub initial: Duration,
    /// The ceiling of every later delay.
    pub max: Duration,
}

impl Backoff {
    /// The longest delay after `failures` failures in a row (1 for the first): doubles each time, up to `max`.
    pub fn ceiling(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.max)
    }

    /// A delay drawn evenly between zero and the ceiling, so that replicas do not come back all at once
    /// (Brooker, "Exponential Backoff And Jitter").
    pub fn delay(&self, failures: u32) -> Duration {
        self.ceiling(failures).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(10) };
        assert_eq!(backoff.ceiling(1), Duration::from_millis(50));
        assert_eq!(backoff.ceiling(2), Duration::from_millis(100));
        assert_eq!(backoff.ceiling(9), Duration::from_secs(10));
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(10));
    }

    #[test]
    fn jitter_stays_below_the_ceiling() {
        let backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1) };
        for failures in 1..50 {
            assert!(backoff.delay(failures) <= backoff.ceiling(failures));
        }
        let longest = (0..200).map(|_| backoff.delay(9)).max();
        assert!(longest > Some(backoff.max / 2), "drawn from the whole range: {longest:?}");
    }
}
