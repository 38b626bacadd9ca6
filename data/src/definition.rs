//! What is counted: dimensions, metrics and named filters, with a version.
//!
//! Stream and batch both go by one [`Definition`]; every segment and every row carries the version it
//! was counted with, so that an answer over mixed versions can say so.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::filter::Filter;
use crate::kept::Kept;
use crate::metric::Function;
use crate::minute::minute_of;
pub use crate::run::Dimension;

/// What is counted, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Event columns kept as keys of the counts, in the order of [`Dimension::ALL`].
    pub dimensions: Vec<Dimension>,
    /// The metrics that can be asked for; `count` is always one of them.
    pub metrics: Vec<Function>,
    /// Named filters.
    pub filters: BTreeMap<String, Filter>,
    /// Entities whose ids begin so are Reckon's own: refused from outside, absent from top lists.
    pub reserved_prefixes: Vec<String>,
    /// How long after its minute an event may come without being late.
    pub lateness: Duration,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            dimensions: vec![Dimension::Country],
            metrics: vec![Function::Count, Function::Sum, Function::Min, Function::Max, Function::Avg],
            filters: BTreeMap::new(),
            reserved_prefixes: vec!["_reckon/".to_owned()],
            lateness: Duration::from_secs(60),
        }
    }
}

impl Definition {
    /// The version: a hash of everything that decides which rows are stored. Filters and prefixes
    /// only choose among stored rows, so they are no part of it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.kept().version(self.lateness_micros())
    }

    /// What is kept of the events counted.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept { dimensions: self.dimensions.clone(), values: self.has_values(), distinct: self.has_distinct() }
    }

    /// An event of a minute below this one is late when it is appended at `append_time` (microseconds): its minute had
    /// ended longer ago than [`Definition::lateness`], so it may have been called settled.
    ///
    /// A pure function of the log, unlike the watermark, which is so defined that every event that changes a settled minute
    /// is late (docs/adr/0008 names the exceptions).
    #[must_use]
    pub fn late_before(&self, append_time: i64) -> i64 {
        late_before(self.lateness_micros(), append_time)
    }

    /// [`Definition::lateness`] in microseconds.
    #[must_use]
    pub fn lateness_micros(&self) -> i64 {
        i64::try_from(self.lateness.as_micros()).unwrap_or(i64::MAX)
    }

    /// Whether aggregates of `value` are kept.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.metrics.iter().any(|function| function.is_of_value())
    }

    /// Whether sketches of distinct users are kept.
    #[must_use]
    pub fn has_distinct(&self) -> bool {
        self.metrics.contains(&Function::ApproxDistinct)
    }

    /// The index of a dimension among those kept.
    #[must_use]
    pub fn dimension_index(&self, dimension: Dimension) -> Option<usize> {
        self.dimensions.iter().position(|&kept| kept == dimension)
    }

    /// The reserved prefix that an entity id begins with.
    #[must_use]
    pub fn reserved_prefix(&self, entity_id: &str) -> Option<&str> {
        self.reserved_prefixes.iter().map(String::as_str).find(|prefix| entity_id.starts_with(prefix))
    }
}

/// The first text after all those that begin with `prefix`; none when every text after it does, too.
#[must_use]
pub fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    // The order of texts is that of their characters.
    while let Some(last) = end.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// [`Definition::late_before`] with that lateness, microseconds.
#[must_use]
pub fn late_before(lateness: i64, append_time: i64) -> i64 {
    minute_of(append_time.saturating_sub(lateness))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_follows_what_is_stored() {
        let base = Definition::default();
        let filters = BTreeMap::from([("0012".to_owned(), "country = 'US'".parse().unwrap())]);
        assert_eq!(base.version(), Definition { filters, ..base.clone() }.version());
        assert_ne!(base.version(), Definition { dimensions: vec![], ..base.clone() }.version());
        assert_ne!(base.version(), Definition { metrics: vec![Function::Count], ..base.clone() }.version());
        assert_ne!(base.version(), Definition { lateness: Duration::ZERO, ..base.clone() }.version());
    }

    #[test]
    fn an_event_is_late_once_its_minute_had_ended_longer_ago_than_the_lateness() {
        let definition = Definition { lateness: Duration::from_secs(90), ..Definition::default() };
        let second = 1_000_000;
        // Minute 7 ends at 480 s.
        assert_eq!(definition.late_before(570 * second - 1), 7);
        assert_eq!(definition.late_before(570 * second), 8);
        assert_eq!(definition.late_before(-second), -2);
        let never = Definition { lateness: Duration::MAX, ..Definition::default() };
        assert_eq!(never.late_before(570 * second), minute_of(i64::MIN + 570 * second + 1));
    }

    #[test]
    fn reserved_prefixes_are_found() {
        let definition = Definition::default();
        assert_eq!(definition.reserved_prefix("_reckon/canary-1"), Some("_reckon/"));
        assert_eq!(definition.reserved_prefix("video-1"), None);
    }

    #[test]
    fn a_prefix_ends_where_no_text_begins_with_it() {
        let last = char::MAX.to_string();
        for (prefix, end) in [
            ("_reckon/", Some("_reckon0")),
            ("a\u{7f}", Some("a\u{80}")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            (&format!("a{last}{last}"), Some("b")),
            (&last, None),
            ("", None),
        ] {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
            if let Some(end) = prefix_end(prefix) {
                assert!(format!("{prefix}{last}") < end, "{prefix:?}");
            }
        }
    }
}
