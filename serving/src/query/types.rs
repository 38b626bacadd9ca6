//! Questions and their answers. Times are microseconds since 1970, UTC; `from` inclusive, `to` exclusive.
//!
//! Counts are kept per minute: a window is widened to whole minutes, and every answer tells the window
//! that it is about.

use reckon_data::filter::Filter;
use reckon_data::metric::{Answer, Function};
use reckon_data::minute::{MICROS_PER_DAY, MICROS_PER_MINUTE, date_of, format_time, minute_of, start_of_minute};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::dead::DeadLetterRow;
use super::stages::Stages;
use crate::ServingError;
use crate::times::{as_time, as_time_or_null};
use crate::view::{Missing, Provenance};

/// How often something happened to an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountQuery {
    /// What is counted.
    pub entity: String,
    /// One event type; all when none.
    pub event_type: Option<String>,
    /// From when, microseconds.
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    pub to: i64,
    /// Which events; all when none.
    pub filter: Option<Filter>,
}

/// The answer to a [`CountQuery`]; `count = batch + stream`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CountAnswer {
    /// How often.
    pub count: u64,
    /// What of it batch has counted.
    pub batch: u64,
    /// What of it the stream has counted.
    pub stream: u64,
    /// The window in whole minutes.
    pub window: Window,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// A function of an entity's counts, step by step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsQuery {
    /// What is counted.
    pub entity: String,
    /// One event type; all when none.
    pub event_type: Option<String>,
    /// What is asked of the counts.
    pub function: Function,
    /// From when, microseconds.
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    pub to: i64,
    /// How long a step is.
    pub step: Step,
    /// Which events; all when none.
    pub filter: Option<Filter>,
}

/// The answer to a [`StatsQuery`].
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct StatsAnswer {
    /// The function.
    pub function: Function,
    /// Minutes in a step.
    pub step_minutes: i64,
    /// The steps in which anything was counted, ascending. A step that lies partly outside the window
    /// holds what lies inside.
    pub points: Vec<StatsPoint>,
    /// The function of all of it.
    pub total: Answer,
    /// The window in whole minutes.
    pub window: Window,
    /// Where it comes from; its two parts are numbers of events.
    pub provenance: Provenance,
}

/// The value of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct StatsPoint {
    /// When the step starts, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub start: i64,
    /// What the function makes of it.
    pub value: Answer,
    /// How many of its events were late.
    pub late: u64,
}

/// The entities to which something happened most often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopQuery {
    /// One event type; all when none.
    pub event_type: Option<String>,
    /// How many entities, at most [`TopQuery::N_MAX`].
    pub n: usize,
    /// From when, microseconds.
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    pub to: i64,
    /// Which events; all when none.
    pub filter: Option<Filter>,
}

impl TopQuery {
    /// Most entities of a list.
    pub const N_MAX: usize = 10_000;
}

/// The answer to a [`TopQuery`]: count descending, then id ascending. Exact over the whole window.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TopAnswer {
    /// The entities.
    pub entities: Vec<TopEntity>,
    /// The window in whole minutes.
    pub window: Window,
    /// Where it comes from; its two parts are the counts of the listed entities.
    pub provenance: Provenance,
}

/// An entity of a top list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TopEntity {
    /// Its id.
    pub entity_id: String,
    /// How often.
    pub count: u64,
}

/// Where an event is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LocateAnswer {
    /// The id asked for.
    pub event_id: String,
    /// Its copies among the raw events, by key and place.
    pub copies: Vec<EventCopy>,
    /// Dead letters whose body holds the id.
    pub dead: Vec<DeadLetterRow>,
    /// Whether there were more copies or dead letters than are listed.
    pub truncated: bool,
    /// Up to where each partition's events are archived: a copy further on is in the log alone.
    pub archived: Vec<Archived>,
    /// Whether some of the log is not archived yet, so that the event may lie there.
    pub may_be_in_log: bool,
    /// What had gone from the log before it was archived: the event may have been among it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// A copy of an event in the raw events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventCopy {
    /// Whether it is the one that counts, being the first of its key in (partition, offset, index) order.
    pub verdict: Verdict,
    /// Log partition.
    pub partition: u32,
    /// Record.
    pub offset: u64,
    /// Index in the record.
    pub index: u32,
    /// When the gateway appended it, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub received_at: i64,
    /// When it happened, microseconds.
    #[serde(serialize_with = "as_time")]
    #[schema(value_type = String, format = DateTime)]
    pub event_time: i64,
    /// UTC date of that.
    pub event_date: String,
    /// What is counted.
    pub entity_id: String,
    /// What happened.
    pub event_type: String,
    /// Whether batch has counted (or dropped) it already; until then the stream has.
    pub covered: bool,
    /// Its way, stage by stage; none of the last ones of very many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<Stages>,
}

/// What became of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It counts.
    Counted,
    /// It repeats one that counts.
    Duplicate,
}

/// How far a partition's events are archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Archived {
    /// Log partition.
    pub partition: u32,
    /// Events below it are in the table.
    pub events: u64,
    /// Dead letters below it are in the table.
    pub dead_letters: u64,
    /// The log's durable end as last seen; none when nobody can say.
    pub durable_end: Option<u64>,
}

/// A window of whole minutes. An end that nobody named is null in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Window {
    /// From when, microseconds.
    #[serde(serialize_with = "as_bound")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub from: i64,
    /// Up to when, microseconds, exclusive.
    #[serde(serialize_with = "as_bound")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub to: i64,
}

/// Earliest and latest minute that a question may name: as far as a run can say.
const MINUTE_BOUND: i64 = i32::MAX as i64;

/// 0000-01-01T00:00:00Z, microseconds.
const YEAR_ZERO: i64 = -719_528 * MICROS_PER_DAY;

impl Window {
    /// The whole minutes around [from, to).
    ///
    /// # Errors
    /// When `to` is before `from`.
    pub fn around(from: i64, to: i64) -> Result<Self, ServingError> {
        if to < from {
            let message = format!("{} is after `to`, which is {}", format_time(from), format_time(to));
            return Err(ServingError::bad("from", message));
        }
        let up = to.checked_add(MICROS_PER_MINUTE - 1).map_or(MINUTE_BOUND, minute_of);
        let bound = |minute: i64| start_of_minute(minute.clamp(-MINUTE_BOUND, MINUTE_BOUND));
        Ok(Self { from: bound(minute_of(from)), to: bound(up) })
    }

    /// The UTC dates that it lies in, days since 1970.
    #[must_use]
    pub fn dates(&self) -> std::ops::RangeInclusive<i32> {
        let last = self.to.saturating_sub(1).max(self.from);
        date_of(self.from)..=date_of(last)
    }

    /// The window of the same length that ends where this one begins.
    ///
    /// # Errors
    /// When it has not both ends, or that window begins before the year 0, which no answer could write.
    pub fn before(&self) -> Result<Self, ServingError> {
        if !(is_bounded(self.from) && is_bounded(self.to)) {
            let message = "the period before is as long as the window: give `from` and `to`, or `window`";
            return Err(ServingError::bad("compare", message));
        }
        let length = self.to.saturating_sub(self.from);
        let from = self.from.saturating_sub(length);
        if from < YEAR_ZERO {
            return Err(ServingError::bad("compare", "the period before begins before the year 0"));
        }
        Ok(Self { from, to: self.from })
    }

    /// Its minutes.
    #[must_use]
    pub const fn minutes(&self) -> std::ops::Range<i64> {
        minute_of(self.from)..minute_of(self.to)
    }
}

/// How long a step is: whole minutes, aligned to 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step(i64);

impl Step {
    /// One minute.
    pub const MINUTE: Self = Self(1);
    /// One hour.
    pub const HOUR: Self = Self(60);
    /// One UTC day.
    pub const DAY: Self = Self(24 * 60);
    /// Most steps of an answer.
    pub const STEPS_MAX: i64 = 100_000;

    /// A step of `minutes`.
    ///
    /// # Errors
    /// When that is less than 1 or more than ten years.
    pub fn of_minutes(minutes: i64) -> Result<Self, ServingError> {
        if (1..=10 * 366 * 24 * 60).contains(&minutes) {
            Ok(Self(minutes))
        } else {
            Err(ServingError::bad("step", format!("{minutes} minutes are not between one minute and ten years")))
        }
    }

    /// Minutes in it.
    #[must_use]
    pub const fn minutes(self) -> i64 {
        self.0
    }
}

impl std::str::FromStr for Step {
    type Err = ServingError;

    /// `minute`, `hour`, `day`, or a number with a unit: `5m`, `2h`, `7d`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ServingError::bad("step", format!("{text:?} is none of minute, hour, day, 5m, 2h, 7d"));
        match text {
            "minute" => return Ok(Self::MINUTE),
            "hour" => return Ok(Self::HOUR),
            "day" => return Ok(Self::DAY),
            _ => {}
        }
        let unit = match text.as_bytes().last() {
            Some(b'm') => 1,
            Some(b'h') => 60,
            Some(b'd') => 24 * 60,
            _ => return Err(bad()),
        };
        let number: i64 = text.get(..text.len() - 1).and_then(|number| number.parse().ok()).ok_or_else(bad)?;
        Self::of_minutes(number.checked_mul(unit).ok_or_else(bad)?)
    }
}

/// An end of a window; null at the bound, which is thousands of years away from any event.
fn as_bound<S: Serializer>(micros: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    as_time_or_null(&is_bounded(*micros).then_some(*micros), serializer)
}

/// Whether an end of a window is one that somebody named.
fn is_bounded(micros: i64) -> bool {
    (1 - MINUTE_BOUND..MINUTE_BOUND).contains(&minute_of(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_widened_to_whole_minutes() {
        // (from, to) and (first minute, minute after the last)
        let table = [
            ((0, 1), (0, 1)),
            ((59_999_999, 60_000_000), (0, 1)),
            ((60_000_000, 60_000_000), (1, 1)),
            ((-1, 0), (-1, 0)),
        ];
        for ((from, to), (first, end)) in table {
            assert_eq!(Window::around(from, to).unwrap().minutes(), first..end, "{from}..{to}");
        }
        let all = Window::around(i64::MIN, i64::MAX).unwrap().minutes();
        assert!(all.start < -1_000_000_000 && all.end > 1_000_000_000);
        let json = |from, to| serde_json::to_value(Window::around(from, to).unwrap()).unwrap();
        assert_eq!(json(i64::MIN, i64::MAX), serde_json::json!({"from": null, "to": null}));
        assert_eq!(json(0, i64::MAX), serde_json::json!({"from": "1970-01-01T00:00:00Z", "to": null}));
        assert!(matches!(Window::around(1, 0), Err(ServingError::BadRequest { field: "from", .. })));
    }

    #[test]
    fn the_period_before_is_as_long_and_ends_where_the_window_begins() {
        let minute = MICROS_PER_MINUTE;
        let before = Window::around(10 * minute, 15 * minute).unwrap().before().unwrap();
        assert_eq!(before.minutes(), 5..10);
        assert_eq!(Window { from: 0, to: 1 }.dates(), 0..=0);
        assert_eq!(Window { from: 0, to: 1_440 * minute }.dates(), 0..=0);
        let first = Window::around(YEAR_ZERO + minute, YEAR_ZERO + 2 * minute).unwrap().before().unwrap();
        assert_eq!(format_time(first.from), "0000-01-01T00:00:00Z");
        let too_early = (YEAR_ZERO + minute, YEAR_ZERO + 3 * minute);
        for (from, to) in [(i64::MIN, 0), (0, i64::MAX), (i64::MIN, i64::MAX), too_early] {
            let refused = Window::around(from, to).unwrap().before();
            assert!(matches!(refused, Err(ServingError::BadRequest { field: "compare", .. })), "{from}..{to}");
        }
    }

    #[test]
    fn steps_are_read() {
        for (text, minutes) in [("minute", 1), ("hour", 60), ("day", 1_440), ("5m", 5), ("2h", 120), ("7d", 10_080)] {
            assert_eq!(text.parse::<Step>().unwrap().minutes(), minutes, "{text}");
        }
        for text in ["", "m", "0m", "-1h", "5", "5s", "99999999999999999999d", "9223372036854775807d", "é"] {
            assert!(text.parse::<Step>().is_err(), "{text}");
        }
    }
}
