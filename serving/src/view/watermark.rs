//! Which minutes are settled.

use std::time::Duration;

use reckon_data::minute::MICROS_PER_SECOND;
use reckon_data::tail::Position;

/// The times that decide when a minute is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How late an event may be before its minute is called settled.
    pub lateness: Duration,
    /// A partition without records for this long does not hold back the watermark.
    pub idle: Duration,
}

/// What has an append time older than this is in the log: a gateway stamps records before they are written, and two of
/// them need not be written in the order of their stamps. A disk that holds an append up for longer may have its events
/// add to a minute that was called settled already.
const IN_FLIGHT: i64 = 10 * MICROS_PER_SECOND;

/// The time before which minutes are settled: of the partition that is furthest behind and not idle, the highest event
/// time seen, or the time up to which its records have been counted where that is earlier, less the allowed lateness.
/// When all are idle nothing holds it back but the clock. Microseconds; `now` likewise.
///
/// So what is counted later and belongs to a settled minute was appended more than the lateness after it, and is late
/// ([`reckon_data::definition::Definition::late_before`]), unless a clock was set back or clocks differ by more than that.
/// `now` is from before the positions were taken.
///
/// A partition that has never seen an event holds nothing back, and one whose counter lags behind the log is never
/// idle.
#[must_use]
pub fn watermark(positions: &[Position], now: i64, patience: Patience) -> i64 {
    let active = positions.iter().filter(|position| !is_idle(position, now, patience)).map(reached);
    // Events may lie ahead of the clock: the minute that is going on is not settled by one of them.
    let lowest = active.min().unwrap_or(i64::MAX).min(now.saturating_sub(IN_FLIGHT));
    lowest.saturating_sub(micros(patience.lateness))
}

/// Up to when, about, everything of a partition has been counted.
fn reached(position: &Position) -> i64 {
    let lags = position.offset < position.durable_end;
    match position.log_time.micros() {
        // Without any event in it a partition says nothing, unless there are some that have not been counted.
        _ if position.event_time_max == i64::MIN && !lags => i64::MAX,
        None => i64::MIN,
        Some(log_time) if position.event_time_max == i64::MIN => log_time.saturating_sub(IN_FLIGHT),
        Some(log_time) => position.event_time_max.min(log_time.saturating_sub(IN_FLIGHT)),
    }
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
        let nothing = Position { offset: 0, durable_end: 0, ..position(i64::MIN, now) };
        let positions = [position(990 * SECOND, now), position(900 * SECOND, now), nothing];
        assert_eq!(watermark(&positions, now, PATIENCE), 840 * SECOND);
    }

    #[test]
    fn an_event_ahead_of_the_clock_settles_nothing() {
        let now = 1_000 * SECOND;
        assert_eq!(watermark(&[position(now + 540 * SECOND, now)], now, PATIENCE), 930 * SECOND);
    }

    #[test]
    fn an_event_ahead_of_what_was_counted_settles_nothing() {
        let now = 1_000 * SECOND;
        let lagging = Position { durable_end: 9, ..position(995 * SECOND, 700 * SECOND) };
        assert_eq!(watermark(&[lagging], now, PATIENCE), 630 * SECOND);
    }

    #[test]
    fn a_partition_that_has_counted_nothing_of_what_it_has_settles_nothing() {
        let now = 1_000 * SECOND;
        let bare = Position { offset: 0, log_time: LogTime::UNSET, ..position(i64::MIN, 0) };
        assert_eq!(watermark(&[bare, position(990 * SECOND, now)], now, PATIENCE), i64::MIN);
        let refused = Position { durable_end: 9, ..position(i64::MIN, 700 * SECOND) };
        assert_eq!(watermark(&[refused, position(990 * SECOND, now)], now, PATIENCE), 630 * SECOND);
    }

    #[test]
    fn an_idle_partition_does_not_hold_it_back_unless_it_lags() {
        let now = 1_000 * SECOND;
        let idle = position(100 * SECOND, 900 * SECOND);
        assert_eq!(watermark(&[idle, position(985 * SECOND, now)], now, PATIENCE), 925 * SECOND);
        let lagging = Position { durable_end: 6, ..idle };
        assert_eq!(watermark(&[lagging, position(990 * SECOND, now)], now, PATIENCE), 40 * SECOND);
        assert_eq!(watermark(&[idle, idle], now, PATIENCE), 930 * SECOND);
        assert_eq!(watermark(&[], now, PATIENCE), 930 * SECOND);
    }
}
