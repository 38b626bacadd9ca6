//! Log time: a partition's own clock, a pure function of its log.

use crate::minute::{MICROS_PER_DAY, minute_of};

/// How far one record may move log time ahead, in microseconds.
///
/// A gateway whose clock is wrong by a year would otherwise carry log time there for good. Seven days are
/// longer than a partition is idle: were they not, log time would fall behind, catch up a step a record, and a
/// client's retry in the next record would lie a whole step after its first copy, outside the dedup window.
///
/// The price: a wrong clock may park log time up to seven days ahead. Until the other clocks get there no
/// minute begins, so the dedup set forgets nothing, and segments end by their number of events and at cuts only.
pub const LOG_TIME_JUMP_MAX: i64 = 7 * MICROS_PER_DAY;

/// The running maximum of a partition's append times, each jump ahead bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogTime(Option<i64>);

impl LogTime {
    /// The log time of a partition without records.
    pub const UNSET: Self = Self(None);

    /// Log time as it was saved, in microseconds.
    #[must_use]
    pub const fn at(micros: i64) -> Self {
        Self(Some(micros))
    }

    /// Log time after a record that was appended at `append_time`.
    #[must_use]
    pub fn after(self, append_time: i64) -> Self {
        Self(Some(match self.0 {
            None => append_time,
            Some(now) => now.max(append_time.min(now.saturating_add(LOG_TIME_JUMP_MAX))),
        }))
    }

    /// Microseconds since 1970; none before the first record.
    #[must_use]
    pub const fn micros(self) -> Option<i64> {
        self.0
    }

    /// The minute of log time; none before the first record.
    #[must_use]
    pub fn minute(self) -> Option<i64> {
        self.0.map(minute_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minute::MICROS_PER_HOUR;

    #[test]
    fn the_first_record_sets_it_and_it_never_goes_back() {
        let time = LogTime::UNSET.after(1_000);
        assert_eq!(time.micros(), Some(1_000));
        assert_eq!(time.after(900), time);
        assert_eq!(time.after(1_100).micros(), Some(1_100));
    }

    #[test]
    fn an_idle_night_is_over_with_one_record() {
        assert_eq!(LogTime::at(0).after(8 * MICROS_PER_HOUR).micros(), Some(8 * MICROS_PER_HOUR));
    }

    #[test]
    fn a_jump_ahead_is_bounded() {
        let time = LogTime::at(0).after(i64::MAX);
        assert_eq!(time.micros(), Some(LOG_TIME_JUMP_MAX));
    }
}
