//! What a run has gathered, and the report that is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hashbrown::HashMap;
use reckon_data::minute::format_time;
use reckon_data::run::Granularity;
use uuid::Uuid;

use super::datecheck::DateChecked;
use super::explain::Known;
use super::horizon::{Delays, horizon};
use super::pin::Pinned;
use super::run::Ledger;
use super::scan::FileHashes;
use crate::finding::Finding;
use crate::repair::{Plan, plan};
use crate::report::model::{
    AuditRequest, DateTotals, FINDINGS_MAX, Horizon, HourTotals, PartitionState, Report, SegmentTotals, ServedTotals,
    Stage, Thresholds, Verdict,
};

/// What a run has gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) dates: Vec<DateChecked>,
    pub(super) findings: Vec<Finding>,
    pub(super) known: Known,
    pub(super) hashes: FileHashes,
    pub(super) seconds: BTreeMap<String, f64>,
    /// From which offset on the log was read, of each partition; none: it was not.
    pub(super) log_starts: Option<BTreeMap<u32, u64>>,
    /// Records of each partition of which the log cannot say what they held.
    pub(super) unknown: BTreeMap<u32, BTreeSet<u64>>,
    pub(super) log_events: Option<u64>,
    pub(super) log_raw: u64,
    pub(super) whole_log: bool,
    /// Whether the events of every record were counted, also of those that the log no longer has.
    pub(super) records_counted: bool,
    pub(super) segments: SegmentTotals,
    pub(super) served: ServedTotals,
}

impl Gathered {
    /// From which offset of each partition on the raw events are known to be those of the log.
    pub(super) fn proven_from(&self) -> BTreeMap<u32, u64> {
        let of_raw = |finding: &Finding| finding.table == "events" || finding.table == "log";
        let differ = self.findings.iter().any(|finding| !finding.class.is_expected() && of_raw(finding));
        let all_held = self.dates.iter().all(DateChecked::is_held_against_log);
        if differ || !all_held {
            return BTreeMap::new();
        }
        let mut starts = self.log_starts.clone().unwrap_or_default();
        for (partition, start) in &mut starts {
            if let Some(last) = self.unknown.get(partition).and_then(BTreeSet::last) {
                *start = (*start).max(last + 1);
            }
        }
        starts
    }

    /// Notes that the log has let go of what lies below an offset.
    pub(super) fn log_begins(&mut self, partition: u32, offset: u64) {
        if let Some(start) = self.log_starts.as_mut().and_then(|starts| starts.get_mut(&partition)) {
            *start = (*start).max(offset);
        }
    }

    /// Whether there is a record in a range of which the log cannot say what it held.
    pub(super) fn has_unknown(&self, partition: u32, offsets: &Range<u64>) -> bool {
        self.unknown.get(&partition).is_some_and(|unknown| unknown.range(offsets.clone()).next().is_some())
    }

    /// The partitions, as they were pinned, with where the log begins by now.
    fn partitions(&self, pinned: &Pinned) -> Vec<PartitionState> {
        let mut partitions = pinned.partitions.clone();
        for state in &mut partitions {
            let read_from = self.log_starts.as_ref().and_then(|starts| starts.get(&state.partition)).copied();
            state.log_start = state.log_start.max(read_from);
        }
        partitions
    }
}

impl Ledger {
    /// The report of what was gathered, and what all of its findings ask for.
    pub(super) fn report(
        &self,
        request: &AuditRequest,
        run_id: Uuid,
        started: i64,
        pinned: &Pinned,
        mut gathered: Gathered,
    ) -> (Report, Plan) {
        let options = &self.parts.options;
        gathered.findings.sort_by_key(|finding| finding.class.is_expected());
        let mut findings_total: BTreeMap<String, u64> = BTreeMap::new();
        for finding in &gathered.findings {
            *findings_total.entry(finding.class.name().to_owned()).or_default() += 1;
        }
        let is_balanced = gathered.findings.iter().all(|finding| finding.class.is_expected());
        let stages = stages(&gathered);
        let horizon = all_delays(&gathered.dates, u64::from(options.window_minutes));
        let mut report = Report {
            run_id,
            started_at: format_time(started),
            finished_at: format_time(self.parts.clock.now()),
            verdict: if is_balanced { Verdict::Balanced } else { Verdict::Findings },
            request: request.clone(),
            code_version: options.code_version.clone(),
            definition: self.parts.definition.version(),
            configuration: options.configuration.clone(),
            log: pinned.log,
            partitions: gathered.partitions(pinned),
            tables: pinned.tables(),
            files_hash: gathered.hashes.all(),
            thresholds: Thresholds {
                difference_max: 0,
                served_entities: if self.parts.answers.is_some() { options.served_entities as u64 } else { 0 },
                rows_compared: rows_compared(&gathered.dates),
                records_counted: gathered.records_counted,
                memory: options.memory,
            },
            stages,
            hours: gathered.dates.iter().flat_map(|date| date.hours.iter().cloned()).collect::<Vec<HourTotals>>(),
            dates: gathered.dates.into_iter().map(|date| date.totals).collect::<Vec<DateTotals>>(),
            whole_log: gathered.whole_log,
            segments: gathered.segments,
            served: gathered.served,
            horizon,
            findings: gathered.findings,
            findings_total,
            repair: None,
            seconds: gathered.seconds,
            memory_peak: crate::memory::peak(),
            previous: None,
        };
        let plan = plan(&report);
        report.findings.truncate(FINDINGS_MAX);
        (report, plan)
    }
}

fn rows_compared(dates: &[DateChecked]) -> f64 {
    let (mut rows, mut compared) = (0.0, 0.0);
    for date in dates {
        rows += date.totals.raw as f64;
        compared += date.totals.raw as f64 * f64::from(date.compared.count_ones()) / 64.0;
    }
    if rows > 0.0 { compared / rows } else { 1.0 }
}

fn all_delays(dates: &[DateChecked], window: u64) -> Horizon {
    let mut delays = Delays::default();
    dates.iter().for_each(|date| delays.merge(&date.reduced.delays));
    let peak = dates.iter().map(|date| date.reduced.peak).max().unwrap_or(0);
    horizon(&delays, window, peak)
}

fn stages(gathered: &Gathered) -> Vec<Stage> {
    let sum = |of: &dyn Fn(&DateTotals) -> u64| {
        gathered.dates.iter().fold(0_u64, |sum, date| sum.wrapping_add(of(&date.totals)))
    };
    let wrong: HashMap<&str, u64> = gathered.findings.iter().filter(|finding| !finding.class.is_expected()).fold(
        HashMap::new(),
        |mut tables, finding| {
            *tables.entry(finding.table.as_str()).or_default() += 1;
            tables
        },
    );
    let agree = |table: &str| !wrong.contains_key(table);
    let of_granularity = |granularity: Granularity| {
        let is = |finding: &&Finding| {
            finding.table == "batch_counts"
                && !finding.class.is_expected()
                && finding.granularity.as_deref().is_none_or(|found| found == granularity.name())
        };
        gathered.findings.iter().find(is).is_none()
    };
    let stage = |stage: &str, title: &str, expected: u64, found: u64, fingerprints_agree: bool| Stage {
        stage: stage.to_owned(),
        title: title.to_owned(),
        expected,
        found,
        fingerprints_agree,
    };
    let (raw, repeats) = (sum(&|date| date.raw), sum(&|date| date.repeats));
    // Of a date that is rolled up there is nothing to hold the stages against that it has lost.
    let of = |granularity: Granularity, level: &dyn Fn(&DateTotals) -> u64| {
        sum(&|date| if date.closed || !date.has(granularity) { 0 } else { level(date) })
    };
    let mut stages = Vec::new();
    if let Some(events) = gathered.log_events {
        let title = "raw events of the records that the log still holds";
        stages.push(stage("log", title, events, gathered.log_raw, agree("events")));
    }
    let distinct = sum(&|date| date.expected) + sum(&|date| date.uncovered);
    stages.push(stage("raw_distinct", "raw events less repeats", raw - repeats, distinct, agree("events")));
    let segments = &gathered.segments;
    let due = segments.accepted.saturating_sub(segments.duplicate);
    stages.push(stage("stream", "segments that are still kept", due, segments.counted, agree("stream_counts")));
    type Level<'a> = (&'a str, &'a str, Granularity, fn(&DateTotals) -> u64);
    let levels: [Level<'_>; 3] = [
        ("batch_minute", "batch, per minute", Granularity::Minute, |date| date.minute),
        ("batch_hour", "batch, per hour", Granularity::Hour, |date| date.hour),
        ("batch_day", "batch, per day", Granularity::Day, |date| date.day),
    ];
    for (name, title, granularity, found) in levels {
        let (due, found) = (of(granularity, &|date| date.expected), of(granularity, &found));
        stages.push(stage(name, title, due, found, of_granularity(granularity)));
    }
    let served = &gathered.served;
    let due = served.asked - served.incomplete;
    stages.push(stage("served", "answers that were asked for and right", due, served.equal, agree("served")));
    stages
}
