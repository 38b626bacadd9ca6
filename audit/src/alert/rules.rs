//! The file of rules and receivers, TOML. `alerts.example.toml` at the root shows all of it, and a test holds it to
//! that.
//!
//! ```toml
//! repeat = "4h"
//!
//! [rules.dead-letters]
//! sql = "select reason, count(*) from dead_letters group by 1"
//!
//! [webhooks.chat]
//! url = "https://chat.example/hook"
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// Longest name of a rule or a receiver.
const NAME_BYTES_MAX: usize = 64;
/// Rules are not looked at more often.
const EVERY_MIN: Duration = Duration::from_secs(1);
/// Nothing of a rule takes longer: it would never be told.
const TIME_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why a file of rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AlertsError {
    /// It is not TOML, or has a key that means nothing.
    #[error("the alert rules cannot be read: {0}")]
    Unreadable(String),
    /// A value that cannot be used.
    #[error("alert rules, {key}: {reason}")]
    Invalid {
        /// Which.
        key: String,
        /// Why it cannot be used.
        reason: String,
    },
}

/// An error of one key.
pub(super) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> AlertsError {
    AlertsError::Invalid { key: key.into(), reason: reason.into() }
}

/// What is looked at, and who is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// How often it is told again that an alert still fires.
    #[serde(with = "humantime_serde")]
    pub repeat: Duration,
    /// The rules, by name.
    pub rules: BTreeMap<String, Rule>,
    /// Receivers over HTTP, by name.
    pub webhooks: BTreeMap<String, WebhookSettings>,
    /// Receivers by e-mail, by name.
    pub mail: BTreeMap<String, MailSettings>,
}

impl Default for AlertSettings {
    fn default() -> Self {
        Self {
            repeat: Duration::from_secs(4 * 3_600),
            rules: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            mail: BTreeMap::new(),
        }
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A query that returns rows when the alert should fire.
    pub sql: String,
    /// How often it is asked.
    #[serde(with = "humantime_serde", default = "every")]
    pub every: Duration,
    /// How long it must return rows before the alert fires.
    #[serde(with = "humantime_serde", default, rename = "for")]
    pub hold: Duration,
    /// Who is told; empty is all receivers.
    #[serde(default)]
    pub to: Vec<String>,
    /// What it means, and what to do.
    #[serde(default)]
    pub summary: String,
}

const fn every() -> Duration {
    Duration::from_secs(60)
}

/// A receiver over HTTP.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where messages are posted.
    pub url: String,
    /// More headers: `Authorization = "Bearer …"`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// Not its contents: addresses and headers may be secrets.
impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings").field("headers", &self.headers.keys()).finish_non_exhaustive()
    }
}

/// A receiver by e-mail.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// `smtps://user:password@host:465` is TLS from the start, `smtp://user:password@host:587` TLS by STARTTLS or
    /// nothing at all, `smtp+insecure://host:25` no TLS, for a server on this machine.
    pub server: String,
    /// Who it is from.
    pub from: String,
    /// Whom it goes to.
    pub to: Vec<String>,
}

/// Not the server: it may have a password.
impl fmt::Debug for MailSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailSettings").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl AlertSettings {
    /// Reads rules and receivers.
    ///
    /// # Errors
    /// Unknown keys, and the first value that makes no sense.
    pub fn from_toml(text: &str) -> Result<Self, AlertsError> {
        // The parser's own text would quote the line, which may have a password.
        let unreadable = |error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            AlertsError::Unreadable(format!("line {line}: {}", unquoted(error.message())))
        };
        let settings: Self = toml::from_str(text).map_err(unreadable)?;
        settings.validate()?;
        Ok(settings)
    }

    /// The names of all receivers.
    #[must_use]
    pub fn receivers(&self) -> BTreeSet<&str> {
        self.webhooks.keys().chain(self.mail.keys()).map(String::as_str).collect()
    }

    fn validate(&self) -> Result<(), AlertsError> {
        within("repeat", self.repeat, Duration::from_secs(60))?;
        for (kind, name) in self.names() {
            if !is_name(name) {
                let reason = format!("a name has a-z, 0-9, - and _, at most {NAME_BYTES_MAX} of them");
                return Err(invalid(format!("{kind}.{name}"), reason));
            }
        }
        if let Some(name) = self.mail.keys().find(|name| self.webhooks.contains_key(*name)) {
            return Err(invalid(format!("mail.{name}"), "a webhook has that name"));
        }
        let receivers = self.receivers();
        self.rules.iter().try_for_each(|(name, rule)| rule.validate(name, &receivers))
    }

    fn names(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let rules = self.rules.keys().map(|name| ("rules", name));
        let webhooks = self.webhooks.keys().map(|name| ("webhooks", name));
        rules.chain(webhooks).chain(self.mail.keys().map(|name| ("mail", name)))
    }
}

impl Rule {
    /// Whether it is about the process that asks: whether its query has the word `metrics` anywhere, in a text or a
    /// comment as well. To take a rule for one of a process has every node tell it, by its name; to take it for one
    /// that nodes share has nobody tell what the others count.
    #[must_use]
    pub fn is_of_process(&self) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.sql.split(|c: char| !is_part(c)).any(|word| word.eq_ignore_ascii_case("metrics"))
    }

    fn validate(&self, name: &str, receivers: &BTreeSet<&str>) -> Result<(), AlertsError> {
        if self.sql.trim().is_empty() {
            return Err(invalid(format!("rules.{name}.sql"), "must not be empty"));
        }
        within(&format!("rules.{name}.every"), self.every, EVERY_MIN)?;
        within(&format!("rules.{name}.for"), self.hold, Duration::ZERO)?;
        match self.to.iter().find(|to| !receivers.contains(to.as_str())) {
            Some(to) => Err(invalid(format!("rules.{name}.to"), format!("there is no receiver {to:?}"))),
            None => Ok(()),
        }
    }
}

/// An error without what it quotes, which may be a password. Keys stand in backticks, and stay; values do so, too, where
/// numbers are expected to be something else.
fn unquoted(message: &str) -> String {
    let is_value = message.starts_with("invalid type") || message.starts_with("invalid value");
    let is_quote = |c: char| c == '"' || (is_value && c == '`');
    let cut = message.find(is_quote).zip(message.rfind(is_quote));
    let parts = cut.and_then(|(first, last)| Some((message.get(..first)?, message.get(last + 1..)?)));
    parts.map_or_else(|| message.to_owned(), |(before, after)| format!("{before}…{after}"))
}

fn within(key: &str, time: Duration, least: Duration) -> Result<(), AlertsError> {
    if (least..=TIME_MAX).contains(&time) {
        return Ok(());
    }
    Err(invalid(key, format!("must be {} to 366days", humantime::format_duration(least))))
}

fn is_name(name: &str) -> bool {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::receivers;

    const EXAMPLE: &str = include_str!("../../../alerts.example.toml");

    #[test]
    fn the_example_is_read_and_its_receivers_can_be_made() {
        let settings = AlertSettings::from_toml(EXAMPLE).unwrap();
        assert_eq!(settings.repeat, AlertSettings::default().repeat, "the example shows the default");
        assert_eq!(receivers(&settings).unwrap().len(), settings.receivers().len());
        assert!(settings.rules.values().all(|rule| !rule.summary.is_empty()), "{settings:?}");
    }

    #[test]
    fn the_documentation_shows_the_example() {
        let documentation = include_str!("../../../docs/operations.md");
        let rules = EXAMPLE.lines().skip_while(|line| !line.starts_with("[rules.")).collect::<Vec<_>>().join("\n");
        assert!(
            documentation.contains(rules.trim()),
            "docs/operations.md has another example than alerts.example.toml"
        );
    }

    #[test]
    fn a_rule_needs_no_more_than_its_query() {
        let settings = AlertSettings::from_toml("[rules.x]\nsql = 'select 1'").unwrap();
        let rule = &settings.rules["x"];
        assert_eq!((rule.every, rule.hold), (Duration::from_secs(60), Duration::ZERO));
        assert!(rule.to.is_empty() && rule.summary.is_empty());
    }

    #[test]
    fn rules_over_metrics_are_told_from_others() {
        let is_own = |sql: &str| {
            let settings = AlertSettings::from_toml(&format!("[rules.x]\nsql = \"{sql}\"")).unwrap();
            settings.rules["x"].is_of_process()
        };
        for sql in [
            "select 1 from metrics",
            "SELECT 1 FROM Metrics m where name = 'x'",
            "select 'it''s' from (select 1 from metrics)",
            "-- what a node doesn't tell\\nselect 1 from metrics",
            "select 1 from stats where entity_id = 'my metrics'",
        ] {
            assert!(is_own(sql), "{sql}");
        }
        for sql in ["select 1 from stats", "select old_metrics from stats"] {
            assert!(!is_own(sql), "{sql}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let rule = "[rules.x]\nsql = 'select 1'\n";
        for (text, part) in [
            ("repat = '1h'".to_owned(), "repat"),
            ("repeat = '1s'".to_owned(), "repeat"),
            ("[rules.x]".to_owned(), "sql"),
            ("[rules.x]\nsql = ' '".to_owned(), "rules.x.sql"),
            ("[rules.'X y']\nsql = 'select 1'".to_owned(), "rules.X y"),
            (format!("{rule}every = '0s'"), "rules.x.every"),
            (format!("{rule}for = '1000years'"), "rules.x.for"),
            (format!("{rule}to = ['nobody']"), "nobody"),
            (format!("{rule}two = 2"), "two"),
            ("[webhooks.a]\nurl = 'http://x'\n[mail.a]\nserver = ''\nfrom = ''\nto = []".to_owned(), "mail.a"),
        ] {
            let error = AlertSettings::from_toml(&text).expect_err(&text);
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn no_error_and_no_log_shows_a_secret() {
        for bad in [
            "[mail.a]\nserver = 'smtp://me:hush@host'\nfrom = 1\nto = []",
            "[webhooks.a]\nurl = 'http://x'\nheaders = \"Bearer hush\"",
            "[webhooks.a]\nurl = 'http://x'\nheaders = 'Bearer \"hush\" it'",
            "[webhooks]\nchat = 'https://chat.example/hush'",
            "webhooks = 'https://chat.example/hush'",
            "[mail]\noncall = 'smtp://me:hush@host'",
            "[webhooks.a]\nurl = ['http://hush']",
            "[webhooks.a]\nurl = 'http://x'\nheaders = { X-Token = ['hush'] }",
            "repeat = 'hush'",
        ] {
            let error = AlertSettings::from_toml(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
            assert!(error.to_string().contains("line "), "{error}");
        }
        let number = AlertSettings::from_toml("[webhooks.a]\nurl = 'http://x'\nheaders = { X-Token = 7183 }");
        assert!(!number.unwrap_err().to_string().contains("7183"));
        let good =
            "[mail.a]\nserver = 'smtp://me:hush@host'\nfrom = 'a@b.c'\nto = []\n[webhooks.w]\nurl = 'http://hush'";
        assert!(!format!("{:?}", AlertSettings::from_toml(good).unwrap()).contains("hush"));
    }
}
