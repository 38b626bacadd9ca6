//! The minute function and its relatives: which minute, hour and UTC date a time falls into.
//!
//! Times are microseconds since 1970-01-01T00:00:00Z, without leap seconds. All functions round
//! towards the past, for times before 1970 as well.

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
/// Microseconds in an hour.
pub const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;
/// Minutes in an hour.
pub const MINUTES_PER_HOUR: i64 = 60;
/// Minutes in a day.
pub const MINUTES_PER_DAY: i64 = 24 * MINUTES_PER_HOUR;

/// The minute of a time, in minutes since 1970.
#[must_use]
pub const fn minute_of(micros: i64) -> i64 {
    micros.div_euclid(MICROS_PER_MINUTE)
}

/// The UTC date of a time, in days since 1970.
///
/// Saturates at the ends of `i32`, which lie far outside what validation lets in.
#[must_use]
pub const fn date_of(micros: i64) -> i32 {
    clamp_to_i32(micros.div_euclid(MICROS_PER_DAY))
}

/// The UTC date of a minute, in days since 1970.
#[must_use]
pub const fn date_of_minute(minute: i64) -> i32 {
    clamp_to_i32(minute.div_euclid(MINUTES_PER_DAY))
}

/// The time, in microseconds, at which a minute begins.
#[must_use]
pub const fn start_of_minute(minute: i64) -> i64 {
    minute.saturating_mul(MICROS_PER_MINUTE)
}

const fn clamp_to_i32(days: i64) -> i32 {
    if days > i32::MAX as i64 {
        i32::MAX
    } else if days < i32::MIN as i64 {
        i32::MIN
    } else {
        days as i32
    }
}

/// A date as `2013-02-08`; days outside the calendar are written as a bare number of days.
#[must_use]
pub fn format_date(days: i32) -> String {
    chrono::NaiveDate::from_epoch_days(days).map_or_else(|| days.to_string(), |d| d.format("%Y-%m-%d").to_string())
}

/// The days since 1970 of a date written `2013-02-08`.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.to_epoch_days())
}

/// A time as RFC 3339 in UTC, with as many digits after the second as it needs.
#[must_use]
pub fn format_time(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros)
        .map_or_else(|| micros.to_string(), |t| t.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (time in microseconds, minute, date)
    const TABLE: &[(i64, i64, i32)] = &[
        (0, 0, 0),
        (59_999_999, 0, 0),
        (60_000_000, 1, 0),
        (-1, -1, -1),
        (-60_000_000, -1, -1),
        (-60_000_001, -2, -1),
        (86_399_999_999, 1_439, 0),
        (86_400_000_000, 1_440, 1),
        // 2013-02-08T21:29:00Z
        (1_360_358_940_000_000, 22_672_649, 15_744),
        // 2016-12-31T23:59:59Z, a second before a leap second that UTC has and this scale has not
        (1_483_228_799_000_000, 24_720_479, 17_166),
        // 2262-04-12, past what nanoseconds in an i64 can say
        (9_223_459_200_000_000, 153_724_320, 106_753),
    ];

    #[test]
    fn minutes_and_dates_of_a_table_of_times() {
        for &(micros, minute, date) in TABLE {
            assert_eq!(minute_of(micros), minute, "minute of {micros}");
            assert_eq!(date_of(micros), date, "date of {micros}");
            assert_eq!(date_of_minute(minute), date, "date of minute {minute}");
            assert!(start_of_minute(minute) <= micros && micros - start_of_minute(minute) < MICROS_PER_MINUTE);
        }
    }

    #[test]
    fn dates_are_written_and_read_back() {
        assert_eq!(format_date(15_744), "2013-02-08");
        assert_eq!(parse_date("2013-02-08"), Some(15_744));
        assert_eq!(parse_date("2013-02-30"), None);
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(format_time(1_360_358_940_000_000), "2013-02-08T21:29:00Z");
        assert_eq!(format_time(1_360_358_940_120_000), "2013-02-08T21:29:00.120Z");
    }
}
