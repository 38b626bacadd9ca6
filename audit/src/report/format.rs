//! Numbers and texts as people read them.

/// A number with thousands separators: `12,345`.
#[must_use]
pub fn count(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A difference: `+12`, `-12`, and `0` where there is none.
#[must_use]
pub fn signed(number: i128) -> String {
    let sign = match number {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", count(number.unsigned_abs()))
}

/// A number that may be below 0: `12`, `-12`.
#[must_use]
pub fn whole(number: i64) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, count(number.unsigned_abs()))
}

/// What was found less what was expected.
#[must_use]
pub fn difference(expected: u64, found: u64) -> i128 {
    i128::from(found) - i128::from(expected)
}

/// So many of something: `1 finding`, `1,200 findings`.
#[must_use]
pub fn many(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// Bytes, rounded and exactly: `1.5 KiB (1,536 bytes)`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let exact = many(number, "byte", "bytes");
    if number < 1024 {
        return exact;
    }
    let mut rounded = number as f64;
    let mut unit = "";
    for name in UNITS {
        if rounded < 1024.0 {
            break;
        }
        rounded /= 1024.0;
        unit = name;
    }
    format!("{rounded:.1} {unit} ({exact})")
}

/// A time in its two largest units: `1 h 30 min`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if left >= unit {
            parts.push(format!("{} {name}", count(left / unit)));
            left %= unit;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

/// Seconds exactly and, from a minute on, as people say it: `90 s (1 min 30 s)`.
#[must_use]
pub fn exact_seconds(seconds: u64) -> String {
    let exact = format!("{} s", count(seconds));
    if seconds < 60 { exact } else { format!("{exact} ({})", duration(seconds)) }
}

/// Minutes exactly and, from an hour on, as people say it: `90 min (1 h 30 min)`.
#[must_use]
pub fn exact_minutes(minutes: u64) -> String {
    let exact = format!("{} min", count(minutes));
    if minutes < 60 { exact } else { format!("{exact} ({})", duration(minutes.saturating_mul(60))) }
}

/// Measured seconds: `1.234 s`.
#[must_use]
pub fn measured(seconds: f64) -> String {
    format!("{seconds:.3} s")
}

/// A share: `12.5 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    // Rounded to a thousandth of a percent, without the zeros behind it.
    format!("{} %", (share * 100_000.0).round() / 1_000.0)
}

/// Few characters for an axis: `1.5M`.
#[must_use]
pub fn compact(value: f64) -> String {
    const UNITS: [(f64, &str); 6] = [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let unit = UNITS.into_iter().find(|(unit, _)| value.abs() >= *unit);
    let (unit, name) = unit.unwrap_or((1.0, ""));
    format!("{}{name}", (value / unit * 100.0).round() / 100.0)
}

/// A moment without what an axis has no room for: `2013-02-08 10:00`.
#[must_use]
pub fn moment(text: &str) -> String {
    text.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// The beginning of a text that is longer than `most` characters.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A text with every character in it to be seen.
///
/// An entity's id may hold what clears a terminal, or turns the order of what is beside it.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Control characters and those that change the order of others. Joiners are left: scripts and emoji need them.
fn is_hidden(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{200b}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_after_three_digits() {
        let pairs =
            [(0, "0"), (7, "7"), (999, "999"), (1_000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")];
        for (number, text) in pairs {
            assert_eq!(count(number as u64), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn differences_have_a_sign_and_none_is_0() {
        assert_eq!(signed(0), "0");
        assert_eq!(signed(1_500), "+1,500");
        assert_eq!(signed(difference(u64::MAX, 0)), "-18,446,744,073,709,551,615");
        assert_eq!(whole(i64::MIN), "-9,223,372,036,854,775,808");
        assert_eq!(whole(1_000), "1,000");
    }

    #[test]
    fn bytes_are_said_twice() {
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(1_536), "1.5 KiB (1,536 bytes)");
        assert_eq!(bytes(u64::MAX), "16.0 EiB (18,446,744,073,709,551,615 bytes)");
    }

    #[test]
    fn times_are_said_in_two_units() {
        assert_eq!(duration(0), "0 s");
        assert_eq!(duration(5_400), "1 h 30 min");
        assert_eq!(duration(90_061), "1 d 1 h");
        assert_eq!(exact_seconds(59), "59 s");
        assert_eq!(exact_seconds(90), "90 s (1 min 30 s)");
        assert_eq!(exact_minutes(10), "10 min");
        assert_eq!(exact_minutes(1_500), "1,500 min (1 d 1 h)");
        assert_eq!(measured(1.23456), "1.235 s");
        assert_eq!(percent(0.125), "12.5 %");
        assert_eq!(percent(1.0), "100 %");
    }

    #[test]
    fn axes_get_few_characters() {
        assert_eq!(compact(0.0), "0");
        assert_eq!(compact(950.0), "950");
        assert_eq!(compact(-1_500.0), "-1.5k");
        assert_eq!(compact(2e18), "2E");
        assert_eq!(moment("2013-02-08T10:00:00Z"), "2013-02-08 10:00");
        assert_eq!(moment(""), "");
    }

    #[test]
    fn what_cannot_be_seen_is_spelled_out() {
        assert_eq!(visible("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(visible("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(visible("видео-日本-👩\u{200d}🚀"), "видео-日本-👩\u{200d}🚀");
        assert_eq!(shortened("äöü", 2), "ä…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }
}
