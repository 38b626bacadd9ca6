//! The time of day: virtual time, and what operators do to clocks.

use std::sync::atomic::{AtomicI64, Ordering};

use reckon_data::clock::Clock;
use tokio::time::Instant;

/// 2026-03-28T22:00:00Z: a few hours before clocks change in Europe, and Reckon does not care.
const BEGIN: i64 = 1_774_735_200_000_000;

/// A clock that goes with virtual time and can be set.
#[derive(Debug)]
pub struct SimClock {
    origin: Instant,
    ahead: AtomicI64,
}

impl SimClock {
    /// A clock that goes right.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now(), ahead: AtomicI64::new(0) }
    }

    /// Sets it forwards or back, by so many microseconds.
    pub fn jump(&self, micros: i64) {
        self.ahead.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.origin.elapsed().as_micros()).unwrap_or(i64::MAX);
        BEGIN + elapsed + self.ahead.load(Ordering::SeqCst)
    }
}
