//! Clock and randomness, passed in so that a simulation can hold both.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// Where a component gets the time of day from.
pub trait Clock: Debug + Send + Sync {
    /// Microseconds since 1970, UTC. May step back.
    fn now(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        }
    }
}

/// A clock that stands still until it is told otherwise.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::atomic::AtomicI64);

impl ManualClock {
    /// A clock that shows `micros`.
    #[must_use]
    pub const fn at(micros: i64) -> Self {
        Self(std::sync::atomic::AtomicI64::new(micros))
    }

    /// Sets the clock, forwards or back.
    pub fn set(&self, micros: i64) {
        self.0.store(micros, std::sync::atomic::Ordering::SeqCst);
    }

    /// Moves the clock by `micros`.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Where names that must not collide come from (file names, run ids, commit tokens).
pub trait Names: Debug + Send + Sync {
    /// A new name.
    fn fresh(&self) -> Uuid;
}

/// Names from the machine's randomness, ordered by time.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomNames;

impl Names for RandomNames {
    #[allow(clippy::disallowed_methods, reason = "the one place that draws a random name")]
    fn fresh(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// Names counted up from a seed: the same seed, the same names.
#[derive(Debug, Default)]
pub struct SeededNames {
    seed: u64,
    next: std::sync::atomic::AtomicU64,
}

impl SeededNames {
    /// Names that belong to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, next: std::sync::atomic::AtomicU64::new(0) }
    }
}

impl Names for SeededNames {
    fn fresh(&self) -> Uuid {
        Uuid::from_u64_pair(self.seed, self.next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    }
}
