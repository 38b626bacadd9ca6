//! A circuit breaker: a server that keeps failing is left alone for a while.

use std::time::{Duration, Instant};

use crate::backoff::after;

/// ```text
/// closed ──failures in a row──▶ open ──rest is over──▶ one trial ──success──▶ closed
///                                ▲                          └──failure──▶ open
/// ```
#[derive(Debug)]
pub struct Breaker {
    failures_max: u32,
    rest: Duration,
    /// The longest that a trial may take.
    trial: Duration,
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// A breaker that opens after `failures_max` failures in a row, for `rest`; a request takes no longer than
    /// `timeout`.
    #[must_use]
    pub fn new(failures_max: u32, rest: Duration, timeout: Duration) -> Self {
        Self { failures_max, rest, trial: rest.max(timeout), failures: 0, open_until: None }
    }

    /// How long no request should be made still; none when one may.
    #[must_use]
    pub fn rest_left(&self, now: Instant) -> Option<Duration> {
        self.open_until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Takes leave to make a request. Of those who ask when the rest is over, one gets it; the others do when that
    /// trial has succeeded, or after so long that nobody can know what became of it.
    ///
    /// # Errors
    /// How long no request should be made still.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(left) = self.rest_left(now) {
            return Err(left);
        }
        if self.open_until.is_some() {
            self.open_until = Some(after(now, self.trial));
        }
        Ok(())
    }

    /// Notes that a request succeeded, or was refused for a reason of its own.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
        self.open_until = None;
    }

    /// Notes that the server failed.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failures_max {
            self.open_until = Some(after(now, self.rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_rests_tries_once_and_closes() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut breaker = Breaker::new(2, second, second);
        breaker.failed(now);
        assert_eq!(breaker.rest_left(now), None);
        breaker.failed(now);
        assert_eq!(breaker.rest_left(now), Some(second));
        assert_eq!(breaker.rest_left(now + second), None, "a trial");
        breaker.failed(now + second);
        assert_eq!(breaker.rest_left(now + second), Some(second), "the trial failed");
        breaker.succeeded();
        assert_eq!(breaker.rest_left(now + second), None);
    }

    #[test]
    fn one_of_many_makes_the_trial() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut breaker = Breaker::new(1, second, second);
        assert_eq!((breaker.admit(now), breaker.admit(now)), (Ok(()), Ok(())));
        breaker.failed(now);
        assert_eq!(breaker.admit(now), Err(second));
        assert_eq!(breaker.admit(now + second), Ok(()), "the trial");
        assert_eq!(breaker.admit(now + second), Err(second), "another is on trial");
        assert_eq!(breaker.admit(now + 2 * second), Ok(()), "nobody knows what became of it");
        breaker.succeeded();
        assert_eq!(breaker.admit(now + 2 * second), Ok(()));
        assert_eq!(breaker.admit(now + 2 * second), Ok(()));
    }

    #[test]
    fn a_trial_may_take_longer_than_a_rest() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut breaker = Breaker::new(1, second, 30 * second);
        breaker.failed(now);
        assert_eq!(breaker.admit(now + second), Ok(()), "the trial");
        assert_eq!(breaker.admit(now + 30 * second), Err(second), "it is under way");
        breaker.failed(now + 30 * second);
        assert_eq!(breaker.admit(now + 31 * second), Ok(()), "after a rest");
        assert_eq!(breaker.admit(now + 61 * second), Ok(()), "nobody knows what became of it");
    }

    #[test]
    fn a_rest_may_be_as_long_as_there_is() {
        let now = Instant::now();
        let mut breaker = Breaker::new(1, Duration::MAX, Duration::MAX);
        breaker.failed(now);
        assert!(breaker.admit(now + Duration::from_secs(1_000_000)).is_err());
    }
}
