//! How long to wait before trying again.

use std::time::{Duration, Instant};

/// Exponential backoff with full jitter: a random share of a wait that doubles with every attempt.
///
/// Full jitter spreads clients that failed at the same moment best (M. Brooker, "Exponential Backoff
/// And Jitter").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Attempts in all. Asking several servers one after another, without a wait between them, is one attempt.
    pub attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(5), attempts: 10 }
    }
}

/// The longest wait that a server may ask for.
pub(crate) const ASKED_MAX: Duration = Duration::from_secs(60);
/// Longer waits are as good as this one: some thirty years.
const FAR: Duration = Duration::from_secs(1_000_000_000);

/// The time after a wait of any length.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait.min(FAR)).unwrap_or(now)
}

impl Backoff {
    /// The wait before attempt number `attempt` (1 is the first repeat); none when there is no further
    /// attempt. `share` in [0, 1] is the jitter, `asked` the wait the server asked for at least,
    /// of which a minute is granted.
    #[must_use]
    pub fn wait(&self, attempt: u32, share: f64, asked: Option<Duration>) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let jittered = doubled.min(self.longest).min(FAR).mul_f64(share.clamp(0.0, 1.0));
        Some(asked.unwrap_or_default().min(ASKED_MAX).saturating_add(jittered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_millis(350), attempts: 5 };
        let waits: Vec<_> = (1..6).map(|attempt| backoff.wait(attempt, 1.0, None)).collect();
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(waits, [ms(100), ms(200), ms(350), ms(350), None]);
    }

    #[test]
    fn what_the_server_asks_for_comes_on_top() {
        let wait = Backoff::default().wait(1, 0.0, Some(Duration::from_secs(1)));
        assert_eq!(wait, Some(Duration::from_secs(1)));
    }

    #[test]
    fn waits_may_be_as_long_as_there_are() {
        let backoff = Backoff { first: Duration::MAX, longest: Duration::MAX, attempts: 5 };
        assert_eq!(backoff.wait(3, 1.0, Some(Duration::MAX)), Some(ASKED_MAX + FAR));
        let now = Instant::now();
        assert!(after(now, Duration::MAX) > now + ASKED_MAX);
    }

    #[test]
    fn nobody_waits_for_ever() {
        let wait = Backoff::default().wait(1, 1.0, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(wait, Some(ASKED_MAX + Duration::from_millis(100)));
    }
}
