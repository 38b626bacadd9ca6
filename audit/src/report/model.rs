//! What an audit says: the verdict and everything that it stands on.

use std::collections::BTreeMap;

use reckon_data::run::Granularity;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::finding::Finding;

/// Findings that a report holds; how many there were is [`Report::findings_total`].
pub const FINDINGS_MAX: usize = 1_000;

/// How an audit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every number is what it should be, but for differences that the design expects.
    Balanced,
    /// There are findings.
    Findings,
}

impl Verdict {
    /// Its name in tables and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Findings => "findings",
        }
    }
}

/// What an audit was asked to look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditRequest {
    /// These dates (`2013-02-08`); none is all.
    pub dates: Vec<String>,
    /// Make good what can be made good, and audit again.
    pub repair: bool,
}

/// The report of one audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run's id.
    pub run_id: Uuid,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended.
    pub finished_at: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What it was asked.
    pub request: AuditRequest,
    /// Version of the program.
    pub code_version: String,
    /// Version of the definition of what is counted.
    pub definition: u64,
    /// Hash of the settings, hexadecimal.
    pub configuration: String,
    /// The log's identity.
    pub log: Uuid,
    /// Where each partition stands.
    pub partitions: Vec<PartitionState>,
    /// Versions of the tables that were read.
    pub tables: Vec<TableState>,
    /// Hash over the hashes of all data files read, in the order of their paths, hexadecimal.
    pub files_hash: String,
    /// What differences are let pass, and what was sampled.
    pub thresholds: Thresholds,
    /// What each stage holds, all dates together.
    pub stages: Vec<Stage>,
    /// A line a date.
    pub dates: Vec<DateTotals>,
    /// A line an hour that has events: batch against raw. None of closed dates, for there is nothing to hold them to.
    pub hours: Vec<HourTotals>,
    /// Whether the log was read from its very beginning to what is archived, without a record that nobody can read: then it
    /// shows every raw event that there should be.
    #[serde(default)]
    pub whole_log: bool,
    /// The stream's segments.
    pub segments: SegmentTotals,
    /// What answers were asked for.
    pub served: ServedTotals,
    /// When repeats arrive.
    pub horizon: Horizon,
    /// The findings, errors first, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many there were of each class.
    pub findings_total: BTreeMap<String, u64>,
    /// What a repair did, where one was asked for.
    pub repair: Option<RepairReport>,
    /// Seconds of each part.
    pub seconds: BTreeMap<String, f64>,
    /// Most memory that the process had meanwhile, bytes; 0 where it cannot be told.
    pub memory_peak: u64,
    /// The run before: what it is chained to.
    pub previous: Option<Previous>,
}

/// The run before, as this one found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its id.
    pub run_id: Uuid,
    /// Hash of its report, hexadecimal.
    pub hash: String,
}

/// Where a partition of the log stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The partition.
    pub partition: u32,
    /// First offset that the log still holds, if it was read.
    pub log_start: Option<u64>,
    /// Its durable end, if it was read.
    pub log_end: Option<u64>,
    /// Up to which offset events are archived.
    pub archived: u64,
    /// Up to which offset segments are sealed.
    pub sealed: u64,
    /// Up to which offset batch has counted.
    pub coverage: u64,
    /// Records that had gone from the log before they were archived.
    pub gone: u64,
}

/// The version of a table that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableState {
    /// The table.
    pub table: String,
    /// Its version.
    pub version: u64,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
}

/// What the audit goes by.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Differences in a count that are let pass: always 0, said so that nobody has to ask.
    pub difference_max: u64,
    /// Entities of which answers were asked.
    pub served_entities: u64,
    /// Share of the rows that were compared one by one, column by column, 0 to 1; all others by sums that no
    /// single difference leaves alone.
    pub rows_compared: f64,
    /// Whether the raw events of every record were counted by their indexes, also of records that the log no longer has. They
    /// are not once retention has closed a date, while a file or a date cannot be held against the log, of more than four
    /// million records, and when only some dates are looked at.
    #[serde(default)]
    pub records_counted: bool,
    /// Memory that it may take, bytes.
    pub memory: u64,
}

/// One stage of the way of an event: what it holds in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// `log`, `raw`, `raw_distinct`, `stream`, `batch_minute`, `batch_hour`, `batch_day`, `served`.
    pub stage: String,
    /// What it is, for people.
    pub title: String,
    /// How many there should be.
    pub expected: u64,
    /// How many there are.
    pub found: u64,
    /// Whether the fingerprints agree too.
    pub fingerprints_agree: bool,
}

/// A date.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DateTotals {
    /// `2013-02-08`.
    pub date: String,
    /// Raw events.
    pub raw: u64,
    /// Of them, repeats of a key.
    pub repeats: u64,
    /// Distinct events below coverage: what batch should have counted.
    pub expected: u64,
    /// Distinct events that batch has not covered yet.
    pub uncovered: u64,
    /// What its minutes, hours and days hold.
    pub minute: u64,
    /// See `minute`.
    pub hour: u64,
    /// See `minute`.
    pub day: u64,
    /// Of `expected`, events of reserved entities (the canary's).
    pub reserved: u64,
    /// The finest counts that it is kept by, where finer ones have been dropped (`retention.minutes_days`): then those are 0
    /// above, and it is held against these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_up: Option<Granularity>,
    /// Whether its counts may be the only record of events that its raw events lack: then they are not replaced.
    #[serde(default)]
    pub doubtful: bool,
    /// Whether its counts were made with several definitions: then only events by entity, type and time are compared, and the
    /// raw events are not held against the log.
    #[serde(default)]
    pub coarse: bool,
    /// Whether retention has closed it: raw events may be missing, and it is only held against itself.
    pub closed: bool,
    /// Whether counts and fingerprints agree.
    pub balanced: bool,
}

impl DateTotals {
    /// Whether it has counts of a granularity, or should have.
    #[must_use]
    pub fn has(&self, granularity: Granularity) -> bool {
        self.rolled_up.is_none_or(|finest| granularity >= finest)
    }

    /// What its finest counts hold.
    #[must_use]
    pub const fn finest(&self) -> u64 {
        match self.rolled_up {
            None | Some(Granularity::Minute) => self.minute,
            Some(Granularity::Hour) => self.hour,
            Some(Granularity::Day) => self.day,
        }
    }
}

/// An hour of event time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourTotals {
    /// RFC 3339.
    pub hour: String,
    /// Distinct raw events below coverage.
    pub expected: u64,
    /// What batch's minutes hold, or its hours where minutes are no longer kept.
    pub found: u64,
    /// Whether the fingerprints differ.
    pub differs: bool,
}

/// The stream's segments that are still kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentTotals {
    /// How many were checked.
    pub checked: u64,
    /// Of them, those without a difference.
    pub balanced: u64,
    /// Events accepted in them.
    pub accepted: u64,
    /// Events counted.
    pub counted: u64,
    /// Repeats dropped.
    pub duplicate: u64,
    /// Events refused.
    pub dead: u64,
    /// Partitions with segments above coverage that could not be held against raw events, for some of these cannot be read;
    /// and the offset where the first of them begins.
    #[serde(default)]
    pub not_held_from: BTreeMap<u32, u64>,
}

/// Answers that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedTotals {
    /// Questions.
    pub asked: u64,
    /// Answers that were right.
    pub equal: u64,
    /// Answers that said themselves that they were not complete.
    pub incomplete: u64,
}

/// When repeats arrive after the first copy of an event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Horizon {
    /// Repeats that were looked at.
    pub repeats: u64,
    /// How many came within so many seconds, and not within those of the bucket before; ascending.
    pub buckets: Vec<HorizonBucket>,
    /// Seconds within which 99 of 100 come.
    pub p99_seconds: u64,
    /// The latest one.
    pub max_seconds: u64,
    /// The dedup window now, minutes.
    pub window_minutes: u64,
    /// Repeats that came after it, and count in the stream until batch has run.
    pub past_window: u64,
    /// The window that would have dropped all but one in a thousand of those that came within a day, minutes.
    pub recommended_minutes: u64,
    /// Memory of the dedup set with that window at the highest rate seen, bytes.
    pub recommended_memory: u64,
    /// Memory of the dedup set with the window of now at the same rate, bytes.
    pub window_memory: u64,
}

/// See [`Horizon::buckets`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HorizonBucket {
    /// Up to this many seconds.
    pub seconds: u64,
    /// Repeats.
    pub repeats: u64,
}

/// What a repair has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairReport {
    /// The audit that it followed.
    pub before: Option<Uuid>,
    /// Findings that were errors before, without the canary's: those no repair changes.
    pub errors_before: u64,
    /// Errors that are left, without the canary's.
    pub errors_after: u64,
    /// Dates recounted.
    pub dates: Vec<String>,
    /// Files of raw events made anew from the log.
    pub rebuilt: Vec<String>,
    /// What could not be made good, and why.
    pub left: Vec<String>,
}

/// An earlier run, for the trend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run.
    pub run_id: Uuid,
    /// When it ended, RFC 3339.
    pub finished_at: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Raw events looked at.
    pub events: u64,
    /// Findings that are errors.
    pub errors: u64,
    /// Findings that the design expects.
    pub expected: u64,
}

impl Report {
    /// Findings that are errors.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.findings_of(false)
    }

    /// Findings that the design expects.
    #[must_use]
    pub fn expected(&self) -> u64 {
        self.findings_of(true)
    }

    fn findings_of(&self, expected: bool) -> u64 {
        let classes = crate::finding::Class::ALL.into_iter().filter(|class| class.is_expected() == expected);
        classes
            .filter_map(|class| self.findings_total.get(class.name()))
            .fold(0, |sum: u64, of| sum.saturating_add(*of))
    }

    /// Raw events looked at.
    #[must_use]
    pub fn events(&self) -> u64 {
        // What was changed afterwards may say anything.
        self.dates.iter().fold(0, |sum, date| sum.saturating_add(date.raw))
    }

    /// What the trend shows of it.
    #[must_use]
    pub fn summary(&self) -> RunSummary {
        RunSummary {
            run_id: self.run_id,
            finished_at: self.finished_at.clone(),
            verdict: self.verdict,
            events: self.events(),
            errors: self.errors(),
            expected: self.expected(),
        }
    }
}
