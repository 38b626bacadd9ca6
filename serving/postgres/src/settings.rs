//! The settings of a session: those that clients set at their start, and Reckon's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgwire::error::PgWireResult;
use reckon_serving::query::AsOf;

use crate::errors::{error, state};

/// The version that clients are told: what they know of PostgreSQL 16 holds here, as far as it is there at all.
pub const SERVER_VERSION: &str = concat!("16.6 (Reckon ", env!("CARGO_PKG_VERSION"), ")");

/// Settings that cannot be changed, as they are shown.
const FIXED: [(&str, &str); 12] = [
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("server_encoding", "UTF8"),
    ("integer_datetimes", "on"),
    ("in_hot_standby", "off"),
    ("is_superuser", "off"),
    ("default_transaction_read_only", "on"),
    ("transaction_read_only", "on"),
    ("transaction_isolation", "repeatable read"),
    ("max_identifier_length", "63"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
];
/// Settings with their defaults.
const DEFAULTS: [(&str, &str); 14] = [
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, YMD"),
    ("default_transaction_isolation", "repeatable read"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("intervalstyle", "postgres"),
    ("lock_timeout", "0"),
    ("search_path", "public"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "UTC"),
];
/// Those that clients are told of whenever they change, as they write them.
const REPORTED: [(&str, &str); 8] = [
    ("application_name", "application_name"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("intervalstyle", "IntervalStyle"),
    ("search_path", "search_path"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
    ("is_superuser", "is_superuser"),
];
/// Settings at once that nobody knows here.
const UNKNOWN_MAX: usize = 64;
/// Longest value, bytes.
const VALUE_BYTES_MAX: usize = 1_024;

/// The settings of a session.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    set: BTreeMap<String, String>,
    as_of: Option<AsOf>,
    timeout: Option<Duration>,
    /// Those that the client began with: what is reset is these again.
    start: BTreeMap<String, String>,
}

/// What came of setting one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// What the client is told: the name as it is written, and the value.
    pub report: Option<(String, String)>,
    /// A warning.
    pub warning: Option<String>,
}

impl Settings {
    /// Which older version of batch is asked.
    pub const fn as_of(&self) -> Option<AsOf> {
        self.as_of
    }

    /// How long a statement may take, where the client says so.
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Sets one; none is its default.
    ///
    /// # Errors
    /// Of a value that makes no sense, and of a setting that cannot be changed.
    pub fn set(&mut self, name: &str, value: Option<&str>) -> PgWireResult<Changed> {
        if FIXED.iter().any(|(fixed, _)| *fixed == name) || name == "reckon.provenance" {
            return match value {
                // Whoever wants what is there anyway gets it.
                Some("on") if name.ends_with("read_only") => Ok(Changed::default()),
                Some(_) => Err(error("55P02", format!("{name} cannot be changed"))),
                None => Ok(Changed::default()),
            };
        }
        if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(error(state::BAD_VALUE, format!("{name}: a value has at most {VALUE_BYTES_MAX} bytes")));
        }
        let Some(value) = value else {
            self.forget(name);
            return Ok(Changed { report: self.report(name), warning: None });
        };
        let warning = self.check(name, value)?;
        if warning.is_none() {
            self.set.insert(name.to_owned(), value.to_owned());
        }
        Ok(Changed { report: self.report(name), warning })
    }

    /// From here on what is set is the client's beginning.
    pub fn begin(&mut self) {
        self.start.clone_from(&self.set);
    }

    fn forget(&mut self, name: &str) {
        self.set.remove(name);
        match name {
            "reckon.as_of" => self.as_of = None,
            "statement_timeout" => self.timeout = None,
            _ => {}
        }
        if let Some(value) = self.start.get(name).cloned() {
            self.set_again(name, value);
        }
    }

    /// Sets what could be set before.
    fn set_again(&mut self, name: &str, value: String) {
        if matches!(self.check(name, &value), Ok(None)) {
            self.set.insert(name.to_owned(), value);
        }
    }

    /// Looks at a value; a warning when it is not taken.
    fn check(&mut self, name: &str, value: &str) -> PgWireResult<Option<String>> {
        let folded = value.to_lowercase();
        match name {
            "reckon.as_of" => {
                let as_of = value.parse::<AsOf>();
                self.as_of = Some(as_of.map_err(|cause| error(state::BAD_VALUE, format!("reckon.{cause}")))?);
            }
            "statement_timeout" => self.timeout = timeout(&folded)?,
            "client_encoding" if !matches!(folded.as_str(), "utf8" | "utf-8" | "unicode" | "sql_ascii") => {
                let message = format!("client_encoding {value:?} is not supported; set it to UTF8");
                return Err(error(state::BAD_VALUE, message));
            }
            "timezone" if !is_utc(&folded) => {
                return Ok(Some(format!("times are shown in UTC, whatever the client's time zone: not in {value}")));
            }
            "datestyle" if !folded.starts_with("iso") => {
                return Ok(Some(format!("times are shown in the style ISO: not in {value}")));
            }
            "bytea_output" if folded != "hex" => {
                return Ok(Some(format!("bytes are shown in hexadecimal: not as {value}")));
            }
            "intervalstyle" if folded != "postgres" => {
                return Ok(Some(format!("intervals are shown in the style postgres: not in {value}")));
            }
            "standard_conforming_strings" if folded != "on" => {
                return Err(error(state::BAD_VALUE, "standard_conforming_strings is always on"));
            }
            _ if name.starts_with("reckon.") => {
                return Err(error(state::NO_SETTING, format!("there is no {name}; there is reckon.as_of")));
            }
            _ if self.set.len() >= UNKNOWN_MAX + DEFAULTS.len() => {
                return Err(error(state::TOO_MANY, "too many settings in one session"));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Everything as it was at the start of the session.
    pub fn reset(&mut self) {
        let start = std::mem::take(&mut self.start);
        *self = Self::default();
        start.iter().for_each(|(name, value)| self.set_again(name, value.clone()));
        self.start = start;
    }

    /// The value of one; none of one that nobody knows.
    pub fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.set.get(name) {
            return Some(value.clone());
        }
        if name == "reckon.as_of" {
            return Some(String::new());
        }
        let default = FIXED.iter().chain(&DEFAULTS).find(|(known, _)| *known == name);
        default.map(|(_, value)| (*value).to_owned())
    }

    /// All of them.
    pub fn all(&self) -> Vec<(String, String)> {
        let names = FIXED.iter().chain(&DEFAULTS).map(|(name, _)| (*name).to_owned());
        let names: BTreeSet<String> =
            names.chain(self.set.keys().cloned()).chain(["reckon.as_of".to_owned()]).collect();
        names.into_iter().map(|name| (name.clone(), self.get(&name).unwrap_or_default())).collect()
    }

    /// What clients are told at the start.
    pub fn reported(&self) -> Vec<(String, String)> {
        let changing = REPORTED.iter().filter_map(|(name, _)| self.report(name));
        let fixed = ["server_version", "server_encoding", "integer_datetimes", "in_hot_standby"];
        let fixed = fixed.iter().chain(&["default_transaction_read_only"]);
        changing.chain(fixed.map(|name| ((*name).to_owned(), self.get(name).unwrap_or_default()))).collect()
    }

    fn report(&self, name: &str) -> Option<(String, String)> {
        let (_, written) = REPORTED.iter().find(|(reported, _)| *reported == name)?;
        Some(((*written).to_owned(), self.get(name)?))
    }
}

fn is_utc(folded: &str) -> bool {
    matches!(folded, "utc" | "etc/utc" | "gmt" | "etc/gmt" | "z" | "zulu" | "0" | "+00" | "+00:00" | "00:00" | "local")
}

/// `500`, `500ms`, `30s`, `5min`, `1h`, `1d`; 0 is none.
fn timeout(text: &str) -> PgWireResult<Option<Duration>> {
    let text = text.replace(' ', "");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let millis = match unit {
        "" | "ms" => Some(1),
        "s" => Some(1_000),
        "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let millis = number.parse::<u64>().ok().zip(millis).and_then(|(number, unit)| number.checked_mul(unit));
    let bad = || error(state::BAD_VALUE, format!("statement_timeout {text:?}: milliseconds, or 30s, 5min, 1h"));
    let millis = millis.ok_or_else(bad)?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_statements_are_read_with_their_units() {
        let millis = |text: &str| timeout(text).unwrap().map(|time| time.as_millis());
        assert_eq!(millis("250"), Some(250));
        assert_eq!(millis("30s"), Some(30_000));
        assert_eq!(millis("5 min"), Some(300_000));
        assert_eq!(millis("0"), None);
        for text in ["", "soon", "-1", "1y", "99999999999999999999"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_session_keeps_what_it_is_told_and_says_what_it_does_not() {
        let mut settings = Settings::default();
        settings.set("reckon.as_of", Some("version:7")).unwrap();
        assert_eq!(
            (settings.as_of(), settings.get("reckon.as_of")),
            (Some(AsOf::Version(7)), Some("version:7".into()))
        );
        assert!(settings.set("reckon.as_of", Some("yesterday")).is_err());
        assert_eq!(settings.as_of(), Some(AsOf::Version(7)), "it stays as it was");
        let zone = settings.set("timezone", Some("Europe/Berlin")).unwrap();
        assert!(zone.warning.is_some());
        assert_eq!(zone.report, Some(("TimeZone".to_owned(), "UTC".to_owned())));
        settings.set("application_name", Some("psql")).unwrap();
        assert_eq!(settings.get("application_name").as_deref(), Some("psql"));
        for (name, value) in [("client_encoding", "latin1"), ("server_version", "17"), ("reckon.nothing", "1")] {
            assert!(settings.set(name, Some(value)).is_err(), "{name}");
        }
        settings.set("reckon.as_of", None).unwrap();
        assert_eq!(settings.as_of(), None);
        settings.set("reckon.as_of", Some("version:3")).unwrap();
        settings.begin();
        let one = |settings: &mut Settings| settings.set("reckon.as_of", None).map(drop).unwrap();
        let resets: [fn(&mut Settings); 2] = [one, Settings::reset];
        for reset in resets {
            settings.set("reckon.as_of", Some("version:8")).unwrap();
            reset(&mut settings);
            assert_eq!(settings.as_of(), Some(AsOf::Version(3)), "as the client began");
        }
        assert_eq!(settings.get("nothing"), None);
    }

    #[test]
    fn no_client_fills_a_session() {
        let mut settings = Settings::default();
        let refused = (0..10_000).find(|n| settings.set(&format!("a{n}"), Some("1")).is_err());
        assert!(refused.is_some_and(|n| n < 100), "{refused:?}");
        assert!(settings.set("b", Some(&"1".repeat(2_000))).is_err());
    }
}
