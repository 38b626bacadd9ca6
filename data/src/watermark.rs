//! The watermark: before it, minutes are called settled.

use crate::tail::Position;

/// The watermark over all partitions, microseconds: the least of what each has seen, less the lateness that
/// is allowed, idle partitions left out. None as long as a partition that is not idle has seen nothing.
///
/// A partition is idle when all of its log is counted and its last record was appended `idle` microseconds
/// before `now` or earlier, or it has none. When all are idle nothing more is on its way, and the watermark
/// goes by the clock.
#[must_use]
pub fn watermark(positions: &[Position], now: i64, lateness: i64, idle: i64) -> Option<i64> {
    let is_idle = |position: &&Position| {
        let quiet = position.log_time.micros().is_none_or(|last| now.saturating_sub(last) >= idle);
        quiet && position.offset >= position.durable_end
    };
    if positions.iter().all(|position| is_idle(&position)) {
        let seen = positions.iter().map(|position| position.event_time_max).max()?;
        return Some(seen.max(now).saturating_sub(lateness));
    }
    let busy = positions.iter().filter(|position| !is_idle(position));
    let least = busy.map(|position| position.event_time_max).min()?;
    (least != i64::MIN).then(|| least.saturating_sub(lateness))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logtime::LogTime;

    fn position(log_time: i64, event_time_max: i64, behind: u64) -> Position {
        Position { offset: 7, log_time: LogTime::at(log_time), event_time_max, sealed: 0, durable_end: 7 + behind }
    }

    #[test]
    fn the_slowest_partition_holds_it_back_unless_it_is_idle() {
        let (fast, slow) = (position(1_000, 900, 0), position(990, 500, 0));
        assert_eq!(watermark(&[fast, slow], 1_000, 10, 100), Some(490));
        let idle = position(900, 500, 0);
        assert_eq!(watermark(&[fast, idle], 1_000, 10, 100), Some(890));
    }

    #[test]
    fn who_lags_is_not_idle() {
        let (fast, behind) = (position(1_000, 900, 0), position(0, 5, 1));
        assert_eq!(watermark(&[fast, behind], 1_000, 10, 100), Some(-5));
        assert_eq!(watermark(&[fast, position(0, i64::MIN, 1)], 1_000, 10, 100), None);
    }

    #[test]
    fn with_nothing_on_its_way_it_goes_by_the_clock() {
        assert_eq!(watermark(&[position(0, 50, 0)], 1_000, 10, 100), Some(990));
        let empty = Position { log_time: LogTime::UNSET, event_time_max: i64::MIN, ..position(0, 0, 0) };
        assert_eq!(watermark(&[empty], 1_000, 10, 100), Some(990));
        assert_eq!(watermark(&[], 1_000, 10, 100), None);
    }
}
