//! `numeric`, exactly: all 38 digits that a decimal can have, in both formats.
//!
//! ```text
//! binary: digits i16 │ weight i16 │ sign i16 │ scale i16 │ digit i16, each 0 to 9999 …
//!         value = Σ digit[n] · 10000^(weight − n)
//! ```

use std::error::Error;

use bytes::{BufMut, BytesMut};
use datafusion::scalar::ScalarValue;
use pgwire::api::Type;
use pgwire::types::ToSqlText;
use pgwire::types::format::FormatOptions;
use postgres_types::{IsNull, ToSql, to_sql_checked};

const NEGATIVE: u16 = 0x4000;
const BASE: u128 = 10_000;
/// Most digits of a decimal.
const DIGITS_MAX: usize = 38;

/// `unscaled · 10^-scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numeric {
    /// The number without its point.
    pub unscaled: i128,
    /// Digits behind the point.
    pub scale: i8,
}

impl Numeric {
    fn text(self) -> String {
        let digits = self.unscaled.unsigned_abs().to_string();
        let sign = if self.unscaled < 0 { "-" } else { "" };
        let scale = usize::from(self.scale.unsigned_abs());
        if self.scale <= 0 {
            let zeros = if self.unscaled == 0 { 0 } else { scale };
            return format!("{sign}{digits}{}", "0".repeat(zeros));
        }
        let digits = format!("{digits:0>width$}", width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        format!("{sign}{whole}.{part}")
    }

    /// Digits of base 10000, the first not 0, and the weight of the first.
    fn base(self) -> (Vec<i16>, i16) {
        let text = self.text();
        let text = text.trim_start_matches('-');
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
        let part = format!("{part}{}", "0".repeat((4 - part.len() % 4) % 4));
        let groups = whole.as_bytes().chunks(4).chain(part.as_bytes().chunks(4));
        let digit = |group: &[u8]| group.iter().fold(0_i16, |sum, digit| sum * 10 + i16::from(digit - b'0'));
        let mut digits: Vec<i16> = groups.map(digit).collect();
        let mut weight = i16::try_from(whole.len() / 4).unwrap_or(0) - 1;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        weight -= i16::try_from(zeros).unwrap_or(0);
        while digits.last() == Some(&0) {
            digits.pop();
        }
        (digits, weight)
    }
}

impl ToSql for Numeric {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let (digits, weight) = self.base();
        out.put_i16(i16::try_from(digits.len())?);
        out.put_i16(if digits.is_empty() { 0 } else { weight });
        out.put_u16(if self.unscaled < 0 { NEGATIVE } else { 0 });
        out.put_i16(i16::from(self.scale.max(0)));
        digits.iter().for_each(|digit| out.put_i16(*digit));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::NUMERIC
    }

    to_sql_checked!();
}

impl ToSqlText for Numeric {
    fn to_sql_text(
        &self,
        _: &Type,
        out: &mut BytesMut,
        _: &FormatOptions,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(self.text().as_bytes());
        Ok(IsNull::No)
    }
}

/// A number as a client wrote it, `-12.50` or `1e3`; none when it is none, or has more digits than a decimal.
pub fn from_text(text: &str) -> Option<ScalarValue> {
    let text = text.trim();
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + part.len() == 0 || !whole.chars().chain(part.chars()).all(|c| c.is_ascii_digit()) {
        return None;
    }
    let scale = i32::try_from(part.len()).ok()?.checked_sub(exponent)?;
    let digits = format!("{whole}{part}");
    decimal(sign, digits.trim_start_matches('0'), scale)
}

/// As [`from_text`], of the binary format.
pub fn from_binary(bytes: &[u8]) -> Option<ScalarValue> {
    let fields: Vec<i16> = bytes.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, scale, digits @ ..] = fields.as_slice() else { return None };
    if usize::try_from(*count).ok()? != digits.len() || !bytes.len().is_multiple_of(2) {
        return None;
    }
    let negative = match sign.cast_unsigned() {
        0 => 1,
        NEGATIVE => -1,
        // Not a number, and the infinities.
        _ => return None,
    };
    let mut text = String::new();
    for digit in digits {
        let digit = u128::try_from(*digit).ok().filter(|digit| *digit < BASE)?;
        text.push_str(&format!("{digit:04}"));
    }
    // Four digits for each that stands behind the point.
    let behind = (i32::try_from(digits.len()).ok()? - 1 - i32::from(*weight)) * 4;
    let cut = behind - i32::from(*scale);
    for _ in 0..cut {
        if text.pop().is_some_and(|digit| digit != '0') {
            return None;
        }
    }
    text.extend(std::iter::repeat_n('0', usize::try_from(-cut.min(0)).ok()?));
    decimal(negative, text.trim_start_matches('0'), i32::from(*scale))
}

fn decimal(sign: i128, digits: &str, scale: i32) -> Option<ScalarValue> {
    let zeros = usize::try_from(-scale.min(0)).ok()?;
    let scale = u8::try_from(scale.max(0)).ok()?;
    if digits.len().max(usize::from(scale)) + zeros > DIGITS_MAX {
        return None;
    }
    let digits = format!("{digits}{}", "0".repeat(if digits.is_empty() { 0 } else { zeros }));
    let unscaled: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let precision = u8::try_from(digits.len()).ok()?.max(scale).max(1);
    Some(ScalarValue::Decimal128(Some(sign * unscaled), precision, i8::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(unscaled: i128, scale: i8) -> Vec<u8> {
        let mut out = BytesMut::new();
        Numeric { unscaled, scale }.to_sql(&Type::NUMERIC, &mut out).unwrap();
        out.to_vec()
    }

    fn value(scalar: &ScalarValue) -> (i128, i8) {
        match scalar {
            ScalarValue::Decimal128(Some(unscaled), _, scale) => (*unscaled, *scale),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_are_written_with_all_their_digits() {
        for (unscaled, scale, text) in [
            (0, 6, "0.000000"),
            (-1, 6, "-0.000001"),
            (150_000, 6, "0.150000"),
            (123, -2, "12300"),
            (i128::from(i64::MAX) * 1_000_000 + 1, 6, "9223372036854775807.000001"),
        ] {
            assert_eq!(Numeric { unscaled, scale }.text(), text);
        }
        // As PostgreSQL sends 12345.678.
        assert_eq!(binary(12_345_678, 3), [0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
        assert_eq!(binary(0, 2), [0, 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn numbers_are_read_exactly_or_not_at_all() {
        assert_eq!(value(&from_text("1.50").unwrap()), (150, 2));
        assert_eq!(value(&from_text("-2e3").unwrap()), (-2_000, 0));
        for text in ["", ".", "NaN", "1,5", "12 3", "1e99", &"9".repeat(39)] {
            assert_eq!(from_text(text), None, "{text}");
        }
        assert_eq!(from_binary(&[0, 0, 0, 0, 0xc0, 0, 0, 0]), None, "not a number");
        assert_eq!(from_binary(&[0, 1, 0, 0]), None, "cut off");
    }

    proptest! {
        #[test]
        fn both_formats_give_the_same_number_back(unscaled in -(10_i128.pow(30))..10_i128.pow(30), scale in 0_i8..8) {
            let text = Numeric { unscaled, scale }.text();
            prop_assert_eq!(value(&from_text(&text).unwrap()), (unscaled, scale));
            prop_assert_eq!(value(&from_binary(&binary(unscaled, scale)).unwrap()), (unscaled, scale));
        }
    }
}
