//! Reading settings and turning them into what the layers take.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sections::{Canary, Definitions, LimitSettings, Retention, Settings};
use crate::definition::Definition;
use crate::event::{Limits, time};
use crate::log::PARTITIONS_MAX;
use crate::metric::Function;
use crate::partition::Router;
use crate::run::Dimension;

/// Days that anything is kept at the most: a thousand years.
const DAYS_MAX: u32 = 366_000;
/// No file that a batch run is about to commit is younger than this when it is deleted.
const REMOVED_FILES_MIN: Duration = Duration::from_secs(6 * 3_600);

/// What the ids of the canary's entities begin with.
const CANARY_PREFIX: &str = "_reckon/";
/// Most events of a round of the canary, and the shortest time between two rounds.
const CANARY_EVENTS_MAX: u32 = 1_000_000;
const CANARY_EVERY_MIN: Duration = Duration::from_secs(1);

/// Longest `limits.event_time_ahead`.
const EVENT_TIME_AHEAD_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The text is not TOML, or has a key that is not a setting.
    #[error("the settings cannot be read: {0}")]
    Unreadable(String),
    /// A value that cannot be used.
    #[error("setting {key}: {reason}")]
    Invalid {
        /// The setting.
        key: String,
        /// Why it cannot be used.
        reason: String,
    },
}

fn invalid(key: impl Into<String>, reason: impl Into<String>) -> SettingsError {
    SettingsError::Invalid { key: key.into(), reason: reason.into() }
}

impl Settings {
    /// Reads settings from TOML; what is absent keeps its default.
    ///
    /// # Errors
    /// Unknown keys, values of the wrong type, and values that make no sense.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text).map_err(|e| SettingsError::Unreadable(e.to_string()))?;
        settings.validate()?;
        Ok(settings)
    }

    /// Whether the settings make sense, alone and together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let must = |ok: bool, key: &str, reason: &str| if ok { Ok(()) } else { Err(invalid(key, reason)) };
        self.log()?;
        must((1..=14).contains(&self.stream.dedup_minutes), "stream.dedup_minutes", "must be 1 to 14")?;
        must(self.stream.segment_events >= 1_000, "stream.segment_events", "must be at least 1000")?;
        must(!self.stream.seal_every.is_zero(), "stream.seal_every", "must not be 0")?;
        must(!self.archive.commit_every.is_zero(), "archive.commit_every", "must not be 0")?;
        // Below, what is still being encoded would decide how large a file is.
        must(self.archive.file_size.as_u64() >= 64 << 20, "archive.file_size", "must be at least 64 MiB")?;
        must(self.gateway.body_max.as_u64() <= 1 << 30, "gateway.body_max", "must be at most 1 GiB")?;
        must(self.gateway.queue >= self.gateway.body_max, "gateway.queue", "must be at least gateway.body_max")?;
        must(self.batch.memory.as_u64() >= 64 << 20, "batch.memory", "must be at least 64 MiB")?;
        must(
            (0.0..=1.0).contains(&self.telemetry.traces_share),
            "telemetry.traces_share",
            "must be between 0 and 1, the share of requests that is traced",
        )?;
        must(self.serving.queries > 0, "serving.queries", "must be at least 1")?;
        must(
            (1..=10_000).contains(&self.serving.postgres_connections),
            "serving.postgres_connections",
            "must be 1 to 10000",
        )?;
        must(
            self.retention.covered_segments > self.serving.query_time,
            "retention.covered_segments",
            "must be longer than serving.query_time, or a query could lose its counts",
        )?;
        must(
            is_address(&self.serving.flight_sql),
            "serving.flight_sql",
            "must be an address and a port, like 127.0.0.1:7733; empty is nowhere",
        )?;
        self.retention.validate(self.serving.query_time)?;
        self.retention.validate_cold(&self.data_dir)?;
        self.limits()?;
        self.definition()?;
        self.canary.validate()?;
        if self.canary.every.is_zero() { Ok(()) } else { self.flying_canary() }
    }

    /// Whether a canary that flies goes with everything else.
    fn flying_canary(&self) -> Result<(), SettingsError> {
        let must = |ok: bool, key: &str, reason: &str| if ok { Ok(()) } else { Err(invalid(key, reason)) };
        // Not a shorter one: queries that happen to name it would read what the canary sends.
        must(
            self.definition.reserved_prefixes.iter().any(|prefix| prefix == CANARY_PREFIX),
            "canary.every",
            "must be 0 when definition.reserved_prefixes do not have _reckon/, or totals would hold what it sends",
        )?;
        must(
            self.canary.patience < Duration::from_secs(60 * u64::from(self.stream.dedup_minutes)),
            "canary.patience",
            "must be less than stream.dedup_minutes, or what it sends again would count twice",
        )?;
        must(
            usize::try_from(self.canary.events).is_ok_and(|events| events <= self.serving.rows_max),
            "canary.events",
            "must be at most serving.rows_max, or no answer could name them all",
        )
    }

    fn log(&self) -> Result<(), SettingsError> {
        let partitions = self.log.partitions;
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(invalid("log.partitions", format!("must be 1 to {PARTITIONS_MAX}")));
        }
        if self.log.replicas == 0 {
            return Err(invalid("log.replicas", "must be at least 1"));
        }
        match self.log.hot_entities.iter().find(|(_, salt)| **salt > partitions) {
            None => Ok(()),
            Some((entity, salt)) => {
                let reason = format!("{salt} partitions are more than log.partitions, {partitions}");
                Err(invalid(format!("log.hot_entities.{entity}"), reason))
            }
        }
    }

    /// The limits on events.
    ///
    /// # Errors
    /// When the earliest time is not RFC 3339, or a record could not hold an event of this size.
    pub fn limits(&self) -> Result<Limits, SettingsError> {
        let LimitSettings { event_id, entity_id, user_id, event_type, properties, event_time_min, event_time_ahead } =
            &self.limits;
        let properties_bytes = usize::try_from(properties.as_u64()).unwrap_or(usize::MAX);
        let total = [*event_id, *entity_id, *user_id, *event_type, properties_bytes]
            .iter()
            .fold(0_usize, |sum, &n| sum.saturating_add(n));
        if total > 256 * 1024 {
            return Err(invalid("limits", "an event may have 256 KiB in all at the most"));
        }
        // The counter stops at a minute that does not fit its 32 bits, so no event may get near it.
        if *event_time_ahead > EVENT_TIME_AHEAD_MAX {
            return Err(invalid("limits.event_time_ahead", "must be at most 366 days"));
        }
        Ok(Limits {
            event_id_bytes: *event_id,
            entity_id_bytes: *entity_id,
            user_id_bytes: *user_id,
            event_type_bytes: *event_type,
            properties_bytes,
            event_time_min: time::parse_rfc3339(event_time_min)
                .ok_or_else(|| invalid("limits.event_time_min", format!("{event_time_min:?} is not RFC 3339")))?,
            event_time_ahead: i64::try_from(event_time_ahead.as_micros())
                .map_err(|_| invalid("limits.event_time_ahead", "is too long"))?,
            ..Limits::default()
        })
    }

    /// What is counted.
    ///
    /// # Errors
    /// Unknown dimensions and metrics, and filters that cannot be read.
    pub fn definition(&self) -> Result<Definition, SettingsError> {
        let Definitions { dimensions, metrics, filters, reserved_prefixes } = &self.definition;
        let asked: Vec<Dimension> = parse_all("definition.dimensions", dimensions)?;
        let mut functions: Vec<Function> = parse_all("definition.metrics", metrics)?;
        if !functions.contains(&Function::Count) {
            functions.insert(0, Function::Count);
        }
        let mut named = BTreeMap::new();
        for (id, text) in filters {
            let filter = text.parse().map_err(|e| invalid(format!("definition.filters.{id}"), format!("{e}")))?;
            named.insert(id.clone(), filter);
        }
        if reserved_prefixes.iter().any(String::is_empty) {
            return Err(invalid("definition.reserved_prefixes", "an empty prefix would reserve every entity"));
        }
        Ok(Definition {
            dimensions: Dimension::ALL.into_iter().filter(|d| asked.contains(d)).collect(),
            metrics: functions,
            filters: named,
            reserved_prefixes: reserved_prefixes.clone(),
            lateness: self.stream.lateness,
        })
    }

    /// Where events go.
    #[must_use]
    pub fn router(&self) -> Router {
        Router::new(self.log.partitions, self.log.hot_entities.clone())
    }
}

impl Retention {
    /// Whether nothing is deleted that somebody still works with; `query_time` is the longest query.
    fn validate(&self, query_time: Duration) -> Result<(), SettingsError> {
        for (key, days) in [
            ("retention.events_days", self.events_days),
            ("retention.minutes_days", self.minutes_days),
            ("retention.hours_days", self.hours_days),
            ("retention.cold_days", self.cold_days),
            ("retention.dead_letters_days", self.dead_letters_days),
        ] {
            if days.is_some_and(|days| days > DAYS_MAX) {
                return Err(invalid(key, format!("must be at most {DAYS_MAX}; absent is for ever")));
            }
        }
        self.validate_rollups()?;
        if self.removed_files < REMOVED_FILES_MIN {
            let reason = "must be at least 6h: what a long batch run has written must outlast the run";
            return Err(invalid("retention.removed_files", reason));
        }
        if self.removed_files <= query_time {
            let reason = "must be longer than serving.query_time, or a query could lose its files";
            return Err(invalid("retention.removed_files", reason));
        }
        Ok(())
    }
}

impl Retention {
    /// Whether what is coarse is kept for as long as what is finer.
    fn validate_rollups(&self) -> Result<(), SettingsError> {
        let at_least_a_day = |key: &str, days: Option<u32>| match days {
            Some(0) => Err(invalid(key, "must be at least 1: the day that goes on is counted by the minute")),
            _ => Ok(()),
        };
        at_least_a_day("retention.minutes_days", self.minutes_days)?;
        at_least_a_day("retention.hours_days", self.hours_days)?;
        match (self.minutes_days, self.hours_days) {
            (None, Some(_)) => Err(invalid(
                "retention.hours_days",
                "needs retention.minutes_days: minutes would be kept for longer than the hours that they make",
            )),
            (Some(minutes), Some(hours)) if minutes > hours => {
                Err(invalid("retention.minutes_days", format!("must be at most retention.hours_days, {hours}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether raw events have somewhere colder to go, and a time to go there.
    fn validate_cold(&self, data_dir: &str) -> Result<(), SettingsError> {
        if !self.cold_url.is_empty() && self.cold_url == data_dir {
            return Err(invalid("retention.cold_url", "is data_dir itself; it must be another folder or bucket"));
        }
        let Some(days) = self.cold_days else { return Ok(()) };
        if self.cold_url.is_empty() {
            return Err(invalid("retention.cold_days", "needs retention.cold_url: nobody says where files move to"));
        }
        if self.events_days.is_some_and(|kept| kept <= days) {
            let reason = "must be less than retention.events_days: files would be deleted before they move";
            return Err(invalid("retention.cold_days", reason));
        }
        Ok(())
    }
}

impl Canary {
    fn validate(&self) -> Result<(), SettingsError> {
        let must = |ok: bool, key: &str, reason: &str| if ok { Ok(()) } else { Err(invalid(key, reason)) };
        must(self.every.is_zero() || self.every >= CANARY_EVERY_MIN, "canary.every", "must be 0 or at least 1s")?;
        must((1..=CANARY_EVENTS_MAX).contains(&self.events), "canary.events", "must be 1 to 1000000")?;
        must(self.patience >= CANARY_EVERY_MIN, "canary.patience", "must be at least 1s")?;
        let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let targets = self.target.is_empty() || self.target.split(',').all(|url| is_url(url.trim()));
        must(targets, "canary.target", "must look like http://127.0.0.1:7700")?;
        // It stands in a header.
        let plain = self.token.bytes().all(|byte| byte.is_ascii_graphic());
        must(plain, "canary.token", "must be letters, digits and signs of ASCII, without spaces")
    }
}

/// Whether it looks like `host:port`, or is empty.
fn is_address(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    text.is_empty() || (!host.is_empty() && port.parse::<u16>().is_ok())
}

fn parse_all<T: std::str::FromStr>(key: &str, texts: &[String]) -> Result<Vec<T>, SettingsError>
where
    T::Err: std::fmt::Display,
{
    texts.iter().map(|text| text.parse().map_err(|e| invalid(key, format!("{text:?}: {e}")))).collect()
}
