//! Query parameters: each route names the ones it takes; any other is refused by name.

use std::collections::BTreeMap;
use std::str::FromStr;

use reckon_data::event::time;
use reckon_data::filter::Filter;
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, minute_of, start_of_minute};

use super::fail::{Failure, bad};
use crate::Serving;
use crate::query::AsOf;

/// The parameters of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads a query string, of which `known` parameters may be in it, each once.
    ///
    /// # Errors
    /// A parameter that is unknown, empty, given twice, or not readable. An empty one may be a variable of a
    /// script that was not set: taken as absent it would mean everything.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, Failure> {
        let mut params = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(bad(name.clone(), format!("{name} is no parameter here; there are {known}")));
            }
            if value.is_empty() {
                return Err(bad(name.clone(), format!("{name} is empty: leave it out or give it a value")));
            }
            if params.insert(name.clone(), value).is_some() {
                return Err(bad(name.clone(), format!("{name} is given twice")));
            }
        }
        Ok(Self(params))
    }

    /// Parameters that stood in a body, under the same rules.
    ///
    /// # Errors
    /// One that is empty.
    pub fn of<const N: usize>(given: [(&str, Option<String>); N]) -> Result<Self, Failure> {
        let mut params = BTreeMap::new();
        for (name, value) in given {
            if value.as_ref().is_some_and(String::is_empty) {
                return Err(bad(name, format!("{name} is empty: leave it out or give it a value")));
            }
            params.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(Self(params))
    }

    /// A parameter; it is not empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    /// A parameter of a type that is read from text.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, Failure>
    where
        T::Err: std::fmt::Display,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| bad(name, format!("{name}={text}: {error}")))
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// When it is none, or outside.
    pub fn number(&self, name: &str, default: usize, most: usize) -> Result<usize, Failure> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| bad(name, format!("{name}={text} is not a number from 1 to {most}")))
    }

    /// A time: RFC 3339 or epoch milliseconds.
    ///
    /// # Errors
    /// When it is neither.
    pub fn time(&self, name: &str) -> Result<Option<i64>, Failure> {
        self.text(name).map(|text| time_of(name, &text)).transpose()
    }

    /// A minute, since 1970: that of a time, which may also be written without seconds.
    ///
    /// # Errors
    /// When it is missing, or no time.
    pub fn minute(&self, name: &str) -> Result<i64, Failure> {
        let Some(text) = self.text(name) else {
            return Err(bad(name, format!("{name} is missing: RFC 3339 or epoch milliseconds")));
        };
        let whole = text.strip_suffix('Z').and_then(|minute| time::parse_rfc3339(&format!("{minute}:00Z")));
        whole.map_or_else(|| time_of(name, &text), Ok).map(minute_of)
    }

    /// Which older version of batch is meant, if one is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn as_of(&self) -> Result<Option<AsOf>, Failure> {
        self.text("as_of").map(|text| text.parse::<AsOf>()).transpose().map_err(Failure::from)
    }

    /// [from, to), from `from` and `to`, or `window`; without any of them all that there is.
    ///
    /// # Errors
    /// When one cannot be read, or `from` is after `to`.
    pub fn span(&self, now: i64) -> Result<(i64, i64), Failure> {
        let (from, to) = (self.time("from")?, self.time("to")?);
        let window = self.text("window").map(|text| window(&text)).transpose()?;
        if window.is_some() && (from.is_some() || to.is_some()) {
            return Err(bad("window", "window goes with neither from nor to"));
        }
        // The minute that is going on belongs to the window.
        let end = start_of_minute(minute_of(now).saturating_add(1));
        let (from, to) = match window {
            Some(length) => (now.saturating_sub(length), end),
            None => (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX)),
        };
        if from > to {
            return Err(bad(
                "from",
                "from is after to: from is inclusive, to exclusive, and a window has both in that order",
            ));
        }
        Ok((from, to))
    }

    /// [from, to) of a window that ends now, whose length `name` gives, or else `default`.
    ///
    /// # Errors
    /// When it is no length.
    pub fn window_of(&self, name: &str, default: &str, now: i64) -> Result<(i64, i64), Failure> {
        let text = self.text(name).unwrap_or_else(|| default.to_owned());
        let length =
            window(&text).map_err(|_| bad(name, format!("{name}={text} is not a number with a unit: 5m, 1h, 7d")))?;
        Ok((now.saturating_sub(length), start_of_minute(minute_of(now).saturating_add(1))))
    }

    /// The filter that `filter` means.
    ///
    /// # Errors
    /// When it means none.
    pub fn filter(&self, serving: &Serving) -> Result<Option<Filter>, Failure> {
        self.text("filter").map(|text| serving.filter(&text)).transpose().map_err(Failure::from)
    }
}

/// 0000-01-01T00:00:00Z, microseconds.
const TIME_MIN: i64 = -719_528 * MICROS_PER_DAY;
/// A minute before 10000-01-01T00:00:00Z, microseconds: answers write times in RFC 3339, whose years have four digits, and
/// windows are widened to whole minutes.
const TIME_END: i64 = 2_932_897 * MICROS_PER_DAY - MICROS_PER_MINUTE;

fn time_of(name: &str, text: &str) -> Result<i64, Failure> {
    // A plus sign in a query string means a space, and stands before an offset.
    let micros = time::parse_rfc3339(&text.replace(' ', "+")).or_else(|| time::from_millis(text.parse().ok()?));
    let micros =
        micros.ok_or_else(|| bad(name, format!("{name}={text} is neither RFC 3339 nor epoch milliseconds")))?;
    if (TIME_MIN..TIME_END).contains(&micros) {
        return Ok(micros);
    }
    Err(bad(name, format!("{name}={text} is not within the years 0 to 9999, which is what a time can be written in")))
}

/// The length of a window: a number and a unit.
fn window(text: &str) -> Result<i64, Failure> {
    let bad = || bad("window", format!("window={text} is not a number with a unit: 5m, 1h, 7d"));
    let unit = match text.as_bytes().last() {
        Some(b'm') => MICROS_PER_MINUTE,
        Some(b'h') => MICROS_PER_HOUR,
        Some(b'd') => MICROS_PER_DAY,
        _ => return Err(bad()),
    };
    let number: i64 = text.get(..text.len() - 1).and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or_else(bad)?;
    number.checked_mul(unit).ok_or_else(bad)
}

fn decode(text: &str) -> Result<String, Failure> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(bad(text, format!("{text}: % must be followed by two hexadecimal digits")));
                };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| bad(text, format!("{text} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["from", "to", "window", "n"];

    #[test]
    fn spans() {
        let span = |query: &str| Params::read(Some(query), KNOWN).and_then(|params| params.span(100 * MICROS_PER_HOUR));
        assert_eq!(span("from=0&to=60000").unwrap(), (0, MICROS_PER_MINUTE));
        assert_eq!(span("from=1970-01-01T00:00:00Z&to=1970-01-01T01:00:00%2B00:00").unwrap(), (0, MICROS_PER_HOUR));
        assert_eq!(span("window=1h").unwrap(), (99 * MICROS_PER_HOUR, 100 * MICROS_PER_HOUR + MICROS_PER_MINUTE));
        assert_eq!(span("").unwrap(), (i64::MIN, i64::MAX));
        for (query, field) in [
            ("from=2&to=1", "from"),
            ("from=noon", "from"),
            ("from=253402300800000", "from"),
            ("to=-62167219200001", "to"),
            ("window=soon", "window"),
            ("window=0m", "window"),
            ("window=1h&from=1", "window"),
            ("colour=red", "colour"),
            ("n=1&n=2", "n"),
            ("from=&to=1", "from"),
            ("window", "window"),
            ("from=%zz", "%zz"),
        ] {
            assert_eq!(span(query).unwrap_err().0.field.as_deref(), Some(field), "{query}");
        }
    }

    #[test]
    fn a_window_ends_with_the_minute_that_is_going_on() {
        let span = |now| Params::read(Some("window=1m"), KNOWN).and_then(|params| params.span(now)).unwrap();
        let half = MICROS_PER_MINUTE / 2;
        assert_eq!(span(5 * MICROS_PER_MINUTE + half), (4 * MICROS_PER_MINUTE + half, 6 * MICROS_PER_MINUTE));
        assert_eq!(span(5 * MICROS_PER_MINUTE), (4 * MICROS_PER_MINUTE, 6 * MICROS_PER_MINUTE));
        assert!(span(i64::MAX).1 > 0);
    }

    #[test]
    fn minutes_are_written_with_or_without_seconds() {
        let minute =
            |text: &str| Params::read(Some(&format!("from={text}")), KNOWN).and_then(|params| params.minute("from"));
        for text in ["1970-01-01T00:07Z", "1970-01-01T00:07:00Z", "1970-01-01T00:07:59.9Z", "420000", "479999"] {
            assert_eq!(minute(text).unwrap(), 7, "{text}");
        }
        assert_eq!(minute("1970-01-01T01:07:00%2B01:00").unwrap(), 7);
        for text in ["noon", "1970-01-01", "1970-01-01T00Z"] {
            assert_eq!(minute(text).unwrap_err().0.field.as_deref(), Some("from"), "{text}");
        }
        assert!(Params::read(None, KNOWN).and_then(|params| params.minute("to")).is_err());
    }

    #[test]
    fn numbers_have_bounds() {
        let number = |query| Params::read(Some(query), KNOWN).and_then(|params| params.number("n", 10, 100));
        assert_eq!(number("").unwrap(), 10);
        assert_eq!(number("n=7").unwrap(), 7);
        for query in ["n=0", "n=101", "n=-1", "n=many"] {
            assert!(number(query).is_err(), "{query}");
        }
    }
}
