//! Reading event times: RFC 3339 text or whole epoch milliseconds.

use crate::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND};

/// Microseconds since 1970 of a time in RFC 3339, with any offset.
///
/// The usual form, `2013-02-08T21:29:00.123Z`, is read here; everything else by `chrono`.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    parse_utc(text.as_bytes()).or_else(|| {
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Some(time.timestamp_micros())
    })
}

/// Epoch milliseconds in microseconds.
#[must_use]
pub const fn from_millis(millis: i64) -> Option<i64> {
    millis.checked_mul(1_000)
}

fn parse_utc(text: &[u8]) -> Option<i64> {
    let (head, tail) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| head.get(at) != Some(&byte)) {
        return None;
    }
    let number = |from: usize, to: usize| digits(head.get(from..to)?);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let fraction = match tail {
        b"Z" => 0,
        [b'.', fraction @ .., b'Z'] => micros(fraction)?,
        _ => return None,
    };
    Some(
        days_from_civil(year, month, day) * MICROS_PER_DAY
            + hour * MICROS_PER_HOUR
            + minute * MICROS_PER_MINUTE
            + second * MICROS_PER_SECOND
            + fraction,
    )
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// A fraction of a second in microseconds; digits after the sixth are cut off.
fn micros(fraction: &[u8]) -> Option<i64> {
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    digits(fraction)?;
    let kept = fraction.get(..fraction.len().min(6))?;
    Some(digits(kept)? * 10_i64.pow(6 - u32::try_from(kept.len()).ok()?))
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar, by Howard Hinnant's `days_from_civil`.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_of_times() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2013-02-08T21:29:00Z", Some(1_360_358_940_000_000)),
            ("2013-02-08T21:29:00.5Z", Some(1_360_358_940_500_000)),
            ("2013-02-08T21:29:00.1234567Z", Some(1_360_358_940_123_456)),
            ("2013-02-08T22:29:00+01:00", Some(1_360_358_940_000_000)),
            // Central Europe's clocks go forwards and back: offsets say which of two equal times is meant.
            ("2026-03-29T01:59:59+01:00", Some(1_774_745_999_000_000)),
            ("2026-03-29T03:00:00+02:00", Some(1_774_746_000_000_000)),
            ("2026-10-25T02:30:00+02:00", Some(1_792_888_200_000_000)),
            ("2026-10-25T02:30:00+01:00", Some(1_792_891_800_000_000)),
            // Microseconds since 1970 have no leap seconds: one is counted with the second after it, in the next minute.
            ("2016-12-31T23:59:59Z", Some(1_483_228_799_000_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000)),
            ("2016-12-31T23:59:60.5Z", Some(1_483_228_800_500_000)),
            ("2017-01-01T00:00:00Z", Some(1_483_228_800_000_000)),
            ("2016-12-31T23:59:61Z", None),
            // Before 1970, and past what nanoseconds can say.
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2262-04-12T00:00:00Z", Some(9_223_372_800_000_000)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000_000)),
            ("2013-02-29T00:00:00Z", None),
            ("2013-13-01T00:00:00Z", None),
            ("2013-02-08", None),
            ("2013-02-08T21:29:00", None),
            ("2013-02-08T21:29:00.Z", None),
            ("", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse_rfc3339(text), micros, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_chrono_reads(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let text = crate::minute::format_time(micros);
            prop_assert_eq!(parse_rfc3339(&text), Some(micros), "{}", text);
        }
    }
}
