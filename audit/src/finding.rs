//! Findings: what an audit has found to be different from what it should be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most event ids that a finding names.
pub const EVENT_IDS_MAX: usize = 20;

/// What kind of difference it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// An accepted event is missing.
    Lost,
    /// An event counts more than once.
    CountedTwice,
    /// The stream let a repeat through, for it came after the dedup window; batch drops it. The design expects it.
    DuplicatePastWindow,
    /// A late event that no batch run has counted yet. The design expects it.
    LateNotRecounted,
    /// An event is counted in another minute than its own.
    WrongMinute,
    /// An event is counted for another entity, type or dimension than its own.
    WrongKey,
    /// A count is right, and its sum, minimum, maximum, distinct users or late events are not.
    WrongValue,
    /// A table refers to a file that is not there.
    MissingFile,
    /// Rows that no event accounts for.
    ExtraRows,
    /// A file that is not what was written, or cannot be read.
    CorruptFile,
    /// Batch says that it has counted up to an offset, and has not; or what it says cannot be.
    StaleCoverage,
    /// Hours or days do not add up to their minutes.
    RollupMismatch,
    /// What is answered differs from what is counted.
    ServedDiffers,
    /// Offsets of the log whose records are not in the raw events.
    OffsetHole,
    /// A segment's own numbers do not add up.
    Unbalanced,
    /// A repeat of an event has other contents than the event that counts.
    RepeatDiffers,
    /// Records had gone from the log before they were archived.
    GoneFromLog,
    /// An older report is not what was written.
    ReportChanged,
    /// The canary's events were not answered as they were sent.
    CanaryDiffers,
}

impl Class {
    /// Every class there is.
    pub const ALL: [Self; 19] = [
        Self::Lost,
        Self::CountedTwice,
        Self::DuplicatePastWindow,
        Self::LateNotRecounted,
        Self::WrongMinute,
        Self::WrongKey,
        Self::WrongValue,
        Self::MissingFile,
        Self::ExtraRows,
        Self::CorruptFile,
        Self::StaleCoverage,
        Self::RollupMismatch,
        Self::ServedDiffers,
        Self::OffsetHole,
        Self::Unbalanced,
        Self::RepeatDiffers,
        Self::GoneFromLog,
        Self::ReportChanged,
        Self::CanaryDiffers,
    ];

    /// Its name in tables and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::CountedTwice => "counted_twice",
            Self::DuplicatePastWindow => "duplicate_past_window",
            Self::LateNotRecounted => "late_not_recounted",
            Self::WrongMinute => "wrong_minute",
            Self::WrongKey => "wrong_key",
            Self::WrongValue => "wrong_value",
            Self::MissingFile => "missing_file",
            Self::ExtraRows => "extra_rows",
            Self::CorruptFile => "corrupt_file",
            Self::StaleCoverage => "stale_coverage",
            Self::RollupMismatch => "rollup_mismatch",
            Self::ServedDiffers => "served_differs",
            Self::OffsetHole => "offset_hole",
            Self::Unbalanced => "unbalanced",
            Self::RepeatDiffers => "repeat_differs",
            Self::GoneFromLog => "gone_from_log",
            Self::ReportChanged => "report_changed",
            Self::CanaryDiffers => "canary_differs",
        }
    }

    /// Whether the design expects it: it is told, and does not make the verdict.
    #[must_use]
    pub const fn is_expected(self) -> bool {
        matches!(self, Self::DuplicatePastWindow | Self::LateNotRecounted | Self::RepeatDiffers)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can be done about a finding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Nothing has to be done: the next batch run does it, or it is only told.
    #[default]
    NotNeeded,
    /// The date is recounted from its raw events.
    Recount,
    /// Raw events are made anew from the log, then the date is recounted.
    Rebuild,
    /// It cannot be made good: what it would be made from is gone.
    Impossible,
}

/// A difference, as exactly as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind it is.
    pub class: Class,
    /// The table it is in; `served` for answers, `log` for the log.
    pub table: String,
    /// The file of the table, where it is one.
    pub file: Option<String>,
    /// The log partition.
    pub partition: Option<u32>,
    /// First offset.
    pub offset_start: Option<u64>,
    /// Offset after the last.
    pub offset_end: Option<u64>,
    /// UTC date of the events, `2013-02-08`.
    pub date: Option<String>,
    /// `minute`, `hour` or `day`, of the row.
    pub granularity: Option<String>,
    /// Minute, hour or day of the row, RFC 3339.
    pub minute: Option<String>,
    /// The entity.
    pub entity_id: Option<String>,
    /// The event type.
    pub event_type: Option<String>,
    /// Other dimensions, `country=US`.
    pub dimensions: Option<String>,
    /// How many there should be.
    pub expected: Option<i64>,
    /// How many there are.
    pub found: Option<i64>,
    /// Events concerned, at most [`EVENT_IDS_MAX`].
    pub event_ids: Vec<String>,
    /// How many events are concerned.
    pub events: u64,
    /// What it is, in a sentence.
    pub explanation: String,
    /// What to do about it, in a sentence.
    pub action: String,
    /// What `reckon audit --repair` can do.
    pub repair: Repair,
}

impl Finding {
    /// A finding of a class in a table (or `served`, `log`, `audit_runs`); the rest is filled in.
    #[must_use]
    pub fn new(class: Class, table: &str, explanation: String) -> Self {
        Self {
            class,
            table: table.to_owned(),
            file: None,
            partition: None,
            offset_start: None,
            offset_end: None,
            date: None,
            granularity: None,
            minute: None,
            entity_id: None,
            event_type: None,
            dimensions: None,
            expected: None,
            found: None,
            event_ids: Vec::new(),
            events: 0,
            explanation,
            action: String::new(),
            repair: Repair::NotNeeded,
        }
    }
}

/// Findings that are made all the time, and that no stored report holds yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Untold {
    /// Those that are kept, the oldest first.
    pub findings: Vec<Finding>,
    /// How many there were besides.
    pub gone: u64,
    /// How many there have been in all, told or not.
    pub mark: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_written_by_their_names() {
        for class in Class::ALL {
            assert_eq!(serde_json::to_value(class).ok(), Some(class.name().into()));
        }
    }
}
