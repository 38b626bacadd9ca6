//! Which minutes are settled.

use std::time::Duration;

use reckon_data::tail::Position;

/// The times that decide when a minute is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How late an event may be before its minute is called settled.
    pub lateness: Duration,
    /// A partition without records for this long does not hold back the watermark.
    pub idle: Duration,
}

/// The time before which minutes are settled: the highest event time seen less the allowed lateness, of
/// the partition that is furthest behind and not idle. When all are idle nothing holds it back but the
/// clock. Microseconds; `now` likewise.
///
/// A partition that has never seen an event holds nothing back, and one whose counter lags behind the log
/// is never idle.
#[must_use]
pub fn watermark(positions: &[Position], now: i64, patience: Patience) -> i64 {
    let lateness = micros(patience.lateness);
    let active =
        positions.iter().filter(|position| position.event_time_max > i64::MIN && !is_idle(position, now, patience));
    // Events may lie ahead of the clock: the minute that is going on is not settled by one of them.
    let lowest = active.map(|position| position.event_time_max).min().unwrap_or(now).min(now);
    lowest.saturating_sub(lateness)
}

fn is_idle(position: &Position, now: i64, patience: Patience) -> bool {
    let quiet = |log_time: i64| now.saturating_sub(log_time) > micros(patience.idle);
    position.offset >= position.durable_end && position.log_time.micros().is_none_or(quiet)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use reckon_data::logtime::LogTime;

    use super::*;

    const SECOND: i64 = 1_000_000;
    const PATIENCE: Patience = Patience { lateness: Duration::from_secs(60), idle: Duration::from_secs(30) };

    fn position(event_time_max: i64, log_time: i64) -> Position {
        Position { offset: 5, log_time: LogTime::at(log_time), event_time_max, sealed: 0, durable_end: 5 }
    }

    #[test]
    fn the_partition_that_is_furthest_behind_decides() {
        let now = 1_000 * SECOND;
        let positions = [position(990 * SECOND, now), position(900 * SECOND, now), position(i64::MIN, now)];
        assert_eq!(watermark(&positions, now, PATIENCE), 840 * SECOND);
    }

    #[test]
    fn an_event_ahead_of_the_clock_settles_nothing() {
        let now = 1_000 * SECOND;
        assert_eq!(watermark(&[position(now + 540 * SECOND, now)], now, PATIENCE), 940 * SECOND);
    }

    #[test]
    fn an_idle_partition_does_not_hold_it_back_unless_it_lags() {
        let now = 1_000 * SECOND;
        let idle = position(100 * SECOND, 900 * SECOND);
        assert_eq!(watermark(&[idle, position(990 * SECOND, now)], now, PATIENCE), 930 * SECOND);
        let lagging = Position { durable_end: 6, ..idle };
        assert_eq!(watermark(&[lagging, position(990 * SECOND, now)], now, PATIENCE), 40 * SECOND);
        assert_eq!(watermark(&[idle, idle], now, PATIENCE), 940 * SECOND);
        assert_eq!(watermark(&[], now, PATIENCE), 940 * SECOND);
    }
}
