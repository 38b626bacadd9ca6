//! Exact decimals with six places, held as whole millionths.
//!
//! A value is Decimal(18,6) and fits an `i64`; a sum is Decimal(38,6) and fits an `i128`. Nothing here
//! goes through a float: float sums depend on their order, and the audit compares to the last digit.

/// Decimal places.
pub const PLACES: u32 = 6;
/// Millionths in one.
pub const MICROS_PER_ONE: i64 = 1_000_000;
/// Most digits of a value, those behind the point included.
pub const VALUE_DIGITS_MAX: u32 = 18;
/// The smallest magnitude, in millionths, that no longer is a value.
pub const VALUE_LIMIT: i64 = 1_000_000_000_000_000_000;
/// The smallest magnitude, in millionths, that no longer is a Decimal(38,6).
pub const SUM_LIMIT: i128 = 10_i128.pow(38);

/// Why a text is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// Not written as JSON writes a number.
    #[error("not a decimal number")]
    Malformed,
    /// More than six decimal places that are not zero.
    #[error("more than 6 decimal places")]
    TooManyPlaces,
    /// 10^12 or more in magnitude: more than 18 digits with six places.
    #[error("more than 18 digits in all (6 of them decimal places)")]
    TooManyDigits,
}

/// Reads a value as JSON writes numbers (sign, digits, fraction, exponent) into millionths.
///
/// # Errors
/// See [`DecimalError`]. Zeros at the end of the fraction are no places.
pub fn parse_micro(text: &str) -> Result<i64, DecimalError> {
    plain_integer(text.as_bytes()).map_or_else(|| parse_any(text.as_bytes()), Ok)
}

/// The usual case: up to twelve digits and nothing else.
fn plain_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 12 || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut whole = 0_i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        whole = whole * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -whole } else { whole } * MICROS_PER_ONE)
}

/// A number taken apart: ± `whole` `fraction` × 10^`exponent`.
struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

fn parse_any(text: &[u8]) -> Result<i64, DecimalError> {
    let parts = take_apart(text).ok_or(DecimalError::Malformed)?;
    let digits = || parts.whole.iter().chain(parts.fraction).enumerate().filter(|(_, d)| **d != b'0');
    let (Some((first, _)), Some((last, _))) = (digits().next(), digits().last()) else { return Ok(0) };
    // The digit at index i counts 10^(whole.len() - 1 - i + exponent).
    let units = (parts.whole.len() as i64).saturating_sub(1).saturating_add(parts.exponent);
    let lowest = units.saturating_sub(last as i64);
    let highest = units.saturating_sub(first as i64);
    if lowest < -i64::from(PLACES) {
        return Err(DecimalError::TooManyPlaces);
    }
    if highest >= i64::from(VALUE_DIGITS_MAX - PLACES) {
        return Err(DecimalError::TooManyDigits);
    }
    let all = parts.whole.iter().chain(parts.fraction);
    // At most 18 digits lie between the two, so this cannot overflow.
    let significant = all.skip(first).take(last - first + 1).fold(0_i64, |n, d| n * 10 + i64::from(d - b'0'));
    let scale = u32::try_from(lowest + i64::from(PLACES)).unwrap_or(0);
    let magnitude = significant * 10_i64.pow(scale);
    Ok(if parts.negative { -magnitude } else { magnitude })
}

fn take_apart(text: &[u8]) -> Option<Parts<'_>> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (whole, rest) = digits(rest)?;
    if whole.len() > 1 && whole[0] == b'0' {
        return None;
    }
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => digits(rest)?,
        rest => (&[][..], rest),
    };
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', rest @ ..] => exponent(rest)?,
        _ => return None,
    };
    Some(Parts { negative, whole, fraction, exponent })
}

fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (digits, []) = digits(rest)? else { return None };
    let magnitude = digits.iter().fold(0_i64, |n, d| n.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    Some(if negative { -magnitude } else { magnitude })
}

/// The digits at the front, at least one, and the rest.
fn digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Millionths as a plain decimal, exact, without zeros at the end of the fraction: `-0.5`, `12`, `3.000001`.
#[must_use]
pub fn format_micro(micros: i128) -> String {
    let one = u128::from(MICROS_PER_ONE.unsigned_abs());
    let magnitude = micros.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, fraction) = (magnitude / one, magnitude % one);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let mut text = format!("{sign}{whole}.{fraction:06}");
    text.truncate(text.trim_end_matches('0').len());
    text
}

/// `sum` divided by `count`, in millionths, rounded half to even. The average of nothing is 0: ask only
/// when there is something.
#[must_use]
pub fn average(sum: i128, count: u64) -> i128 {
    if count == 0 {
        return 0;
    }
    let count = i128::from(count);
    let (quotient, remainder) = (sum.div_euclid(count), sum.rem_euclid(count));
    // `remainder` lies in [0, count), and count fits 64 bits, so doubling cannot overflow.
    match (remainder * 2).cmp(&count) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (quotient & 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_of_values() {
        let table = [
            ("0", 0),
            ("-0", 0),
            ("7", 7_000_000),
            ("-7", -7_000_000),
            ("12.5", 12_500_000),
            ("0.000001", 1),
            ("-0.000001", -1),
            ("1.0000000000000", 1_000_000),
            ("1e-6", 1),
            ("10E-7", 1),
            ("1.5e+3", 1_500_000_000),
            ("0e999999999999999999999", 0),
            ("0.0000000000000000000000", 0),
            ("1000000000000000000000e-15", 1_000_000_000_000),
            ("0.00000000000000000001e20", 1_000_000),
            ("999999999999", 999_999_999_999_000_000),
            ("999999999999.999999", 999_999_999_999_999_999),
            ("-999999999999.999999", -999_999_999_999_999_999),
        ];
        for (text, micros) in table {
            assert_eq!(parse_micro(text), Ok(micros), "{text}");
        }
    }

    #[test]
    fn a_table_of_refusals() {
        use DecimalError::{Malformed, TooManyDigits, TooManyPlaces};
        let table = [
            ("", Malformed),
            ("-", Malformed),
            ("+1", Malformed),
            ("01", Malformed),
            ("-01.5", Malformed),
            (".5", Malformed),
            ("5.", Malformed),
            ("1e", Malformed),
            ("1e+", Malformed),
            ("1 ", Malformed),
            (" 1", Malformed),
            ("1,5", Malformed),
            ("0x10", Malformed),
            ("NaN", Malformed),
            ("Infinity", Malformed),
            ("1_000", Malformed),
            ("٣", Malformed),
            ("0.0000001", TooManyPlaces),
            ("1.2345678", TooManyPlaces),
            ("1e-7", TooManyPlaces),
            ("1e-99999999999999999999999", TooManyPlaces),
            ("1000000000000", TooManyDigits),
            ("1e12", TooManyDigits),
            ("1e99999999999999999999999", TooManyDigits),
            ("123456789012345678901234567890", TooManyDigits),
        ];
        for (text, error) in table {
            assert_eq!(parse_micro(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_table_of_averages() {
        // (sum, count, average), ties to the even neighbour
        let table =
            [(0, 3, 0), (1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (7, 3, 2), (-7, 3, -2), (8, 3, 3)];
        for (sum, count, expected) in table {
            assert_eq!(average(sum, count), expected, "{sum} / {count}");
        }
        assert_eq!(average(i128::from(u64::MAX) * 5, u64::MAX), 5);
        assert_eq!(average(5, 0), 0);
    }

    #[test]
    fn a_table_of_texts() {
        let table = [(0, "0"), (1, "0.000001"), (-500_000, "-0.5"), (12_000_000, "12"), (100_100_000, "100.1")];
        for (micros, text) in table {
            assert_eq!(format_micro(micros), text);
        }
        assert_eq!(format_micro(i128::MIN), "-170141183460469231731687303715884.105728");
    }

    proptest! {
        #[test]
        fn every_value_is_read_back(micros in 1 - VALUE_LIMIT..VALUE_LIMIT) {
            prop_assert_eq!(parse_micro(&format_micro(micros.into())), Ok(micros));
        }

        #[test]
        fn any_way_of_writing_is_the_same(micros in -1_000_000_000_i64..1_000_000_000, zeros in 0..30_usize) {
            let text = format!("{micros}e-6");
            prop_assert_eq!(parse_micro(&text), Ok(micros));
            let padded = format!("{micros}{}e-{}", "0".repeat(zeros), 6 + zeros);
            prop_assert_eq!(parse_micro(&padded), Ok(micros));
        }

        #[test]
        fn no_text_is_a_panic(text in "[-+0-9.eE]{0,40}") {
            let _ = parse_micro(&text);
        }

        #[test]
        fn an_average_is_the_nearest(sum in -(1_i128 << 80)..1 << 80, count in 1..u64::MAX) {
            let (average, count) = (average(sum, count), i128::from(count));
            let off = (average * count - sum).abs() * 2;
            prop_assert!(off < count || (off == count && average % 2 == 0));
        }
    }
}
