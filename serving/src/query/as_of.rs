//! Which older version of batch a question is about.

use std::str::FromStr;

use reckon_data::event::time;

use crate::ServingError;

/// Which older version of batch a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsOf {
    /// The version of `batch_counts` with this number.
    Version(u64),
    /// The newest one committed at this time, microseconds, or before.
    Time(i64),
}

impl FromStr for AsOf {
    type Err = ServingError;

    /// `version:N`, a time in RFC 3339, or epoch milliseconds.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |what: &str| ServingError::bad("as_of", format!("{text:?} is {what}"));
        if let Some(number) = text.strip_prefix("version:") {
            return number.parse().map(Self::Version).map_err(|_| bad("no version:N with a number"));
        }
        // A plus sign in a query string means a space, and stands before an offset.
        let micros = time::parse_rfc3339(&text.replace(' ', "+")).or_else(|| time::from_millis(text.parse().ok()?));
        micros.map(Self::Time).ok_or_else(|| bad("neither RFC 3339, nor epoch milliseconds, nor version:N"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_times_are_told_apart() {
        for (text, expected) in [
            ("version:7", AsOf::Version(7)),
            ("60000", AsOf::Time(60_000_000)),
            ("1970-01-01T00:01:00Z", AsOf::Time(60_000_000)),
            ("1970-01-01T01:01:00 01:00", AsOf::Time(60_000_000)),
        ] {
            assert_eq!(text.parse::<AsOf>().unwrap(), expected, "{text}");
        }
        for text in ["", "version:", "version:-1", "version:latest", "yesterday", "9223372036854775807"] {
            let refused = text.parse::<AsOf>();
            assert!(matches!(refused, Err(ServingError::BadRequest { field: "as_of", .. })), "{text}: {refused:?}");
        }
    }
}
