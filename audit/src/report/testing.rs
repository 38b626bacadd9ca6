//! Reports for tests.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::model::{
    AuditRequest, DateTotals, Horizon, HorizonBucket, HourTotals, PartitionState, Previous, RepairReport, Report,
    RunSummary, SegmentTotals, ServedTotals, Stage, TableState, Thresholds, Verdict,
};
use crate::finding::{Class, Finding, Repair};

/// An id of an entity that would be a script, if a page let it.
pub const SCRIPT: &str = "<script>alert('1')</script>\"&";

/// A report of an audit that found nothing to look at.
#[must_use]
pub fn empty() -> Report {
    Report {
        run_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        started_at: "2013-02-09T03:00:00Z".to_owned(),
        finished_at: "2013-02-09T03:00:07Z".to_owned(),
        verdict: Verdict::Balanced,
        request: AuditRequest::default(),
        code_version: "0.1.0".to_owned(),
        definition: 1,
        configuration: "c0ffee".to_owned(),
        log: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002),
        partitions: Vec::new(),
        tables: Vec::new(),
        files_hash: "f11e5".to_owned(),
        thresholds: Thresholds::default(),
        stages: Vec::new(),
        dates: Vec::new(),
        hours: Vec::new(),
        whole_log: true,
        segments: SegmentTotals::default(),
        served: ServedTotals::default(),
        horizon: Horizon { window_minutes: 10, ..Horizon::default() },
        findings: Vec::new(),
        findings_total: BTreeMap::new(),
        repair: None,
        seconds: BTreeMap::new(),
        memory_peak: 0,
        previous: None,
    }
}

/// A report with something of everything: four errors, and what the design expects. No two of its larger numbers
/// are the same.
#[must_use]
pub fn sample() -> Report {
    let mut report = Report {
        verdict: Verdict::Findings,
        request: AuditRequest { dates: vec!["2013-02-08".to_owned()], repair: true },
        definition: 8_123_456_789_012_345_678,
        partitions: partitions(),
        tables: tables(),
        thresholds: Thresholds {
            difference_max: 0,
            served_entities: 211,
            rows_compared: 0.125,
            records_counted: true,
            memory: 2_147_483_649,
        },
        stages: stages(),
        dates: dates(),
        hours: hours(),
        whole_log: true,
        segments: segments(),
        served: ServedTotals { asked: 2_111, equal: 2_103, incomplete: 5 },
        horizon: horizon(),
        findings: findings(),
        repair: Some(repair()),
        memory_peak: 734_003_217,
        previous: Some(previous()),
        ..empty()
    };
    report.seconds = BTreeMap::from([("raw".to_owned(), 12.3456), ("batch".to_owned(), 0.789)]);
    for finding in &report.findings {
        *report.findings_total.entry(finding.class.name().to_owned()).or_default() += 1;
    }
    // Not all of them are listed.
    report.findings_total.insert(Class::DuplicatePastWindow.name().to_owned(), 1_017);
    report
}

/// Earlier runs, one a day.
#[must_use]
pub fn trend(runs: u8) -> Vec<RunSummary> {
    let run = |number: u8| RunSummary {
        run_id: Uuid::from_u128(u128::from(number)),
        finished_at: format!("2013-01-{:02}T03:00:00Z", number % 28 + 1),
        verdict: if number.is_multiple_of(5) { Verdict::Findings } else { Verdict::Balanced },
        events: 1_000_000 + u64::from(number) * 1_001,
        errors: if number.is_multiple_of(5) { u64::from(number) } else { 0 },
        expected: u64::from(number % 7),
    };
    (0..runs).map(run).collect()
}

fn partitions() -> Vec<PartitionState> {
    vec![
        PartitionState {
            partition: 0,
            log_start: Some(10_001),
            log_end: Some(55_017),
            archived: 55_003,
            sealed: 54_901,
            coverage: 50_023,
            gone: 0,
        },
        PartitionState {
            partition: 1,
            archived: 54_007,
            sealed: 53_009,
            coverage: 49_031,
            gone: 31,
            ..Default::default()
        },
    ]
}

fn tables() -> Vec<TableState> {
    let table =
        |table: &str, version, files, bytes, rows| TableState { table: table.to_owned(), version, files, bytes, rows };
    vec![
        table("events", 4_217, 391, 7_912_345_678, 91_234_567),
        table("batch_counts", 1_873, 57, 812_345_671, 8_123_457),
    ]
}

fn stages() -> Vec<Stage> {
    let stage = |stage: &str, title: &str, expected, found, fingerprints_agree| Stage {
        stage: stage.to_owned(),
        title: title.to_owned(),
        expected,
        found,
        fingerprints_agree,
    };
    vec![
        stage("log", "Records of the log", 1_234_573, 1_234_573, true),
        stage("raw", "Raw events", 1_234_572, 1_234_571, false),
        stage("raw_distinct", "Raw events, repeats left out", 1_230_007, 1_230_007, true),
        stage("stream", "Counts of the stream", 1_230_009, 1_230_011, false),
        stage("batch_minute", "Minutes of batch", 1_220_003, 1_220_003, false),
        stage("batch_hour", "Hours of batch", 1_220_004, 1_220_005, false),
        stage("batch_day", "Days of batch", 1_220_006, 1_220_008, false),
        stage("served", "Answers", 2_107, 2_101, false),
    ]
}

fn dates() -> Vec<DateTotals> {
    let closed =
        DateTotals { date: "2012-11-01".to_owned(), raw: 31_013, closed: true, balanced: true, ..Default::default() };
    let open = DateTotals {
        date: "2013-02-08".to_owned(),
        raw: 1_203_559,
        repeats: 4_567,
        expected: 1_198_992,
        uncovered: 9_871,
        minute: 1_198_989,
        hour: 1_198_990,
        day: 1_198_991,
        reserved: 1_441,
        rolled_up: None,
        doubtful: false,
        coarse: false,
        closed: false,
        balanced: false,
    };
    vec![closed, open]
}

fn hours() -> Vec<HourTotals> {
    let hour = |hour: u64, expected, found, differs| HourTotals {
        hour: format!("2013-02-08T{hour:02}:00:00Z"),
        expected,
        found,
        differs,
    };
    vec![
        hour(9, 40_009, 40_009, false),
        hour(10, 41_011, 41_014, true),
        hour(11, 42_013, 42_006, true),
        hour(12, 43_017, 43_017, true),
    ]
}

fn segments() -> SegmentTotals {
    SegmentTotals {
        checked: 1_447,
        balanced: 1_446,
        accepted: 990_017,
        counted: 986_010,
        duplicate: 4_007,
        dead: 129,
        not_held_from: BTreeMap::new(),
    }
}

fn horizon() -> Horizon {
    let buckets = [(1, 3_011), (10, 1_013), (60, 307), (600, 109), (3_600, 37), (86_400, 19)];
    Horizon {
        repeats: 4_496,
        buckets: buckets.map(|(seconds, repeats)| HorizonBucket { seconds, repeats }).to_vec(),
        p99_seconds: 2_711,
        max_seconds: 80_021,
        window_minutes: 10,
        past_window: 56,
        recommended_minutes: 45,
        recommended_memory: 452_984_833,
        window_memory: 104_857_603,
    }
}

fn findings() -> Vec<Finding> {
    let of = |class, table: &str, what: &str| Finding::new(class, table, what.to_owned());
    let twice = Finding {
        date: Some("2013-02-08".to_owned()),
        granularity: Some("minute".to_owned()),
        minute: Some("2013-02-08T10:17:00Z".to_owned()),
        entity_id: Some(SCRIPT.to_owned()),
        event_type: Some("view".to_owned()),
        dimensions: Some("country=US".to_owned()),
        expected: Some(1_201),
        found: Some(1_204),
        event_ids: vec!["event-7001".to_owned(), "event-7002".to_owned()],
        events: 3,
        action: "Run reckon audit with repair.".to_owned(),
        repair: Repair::Recount,
        ..of(Class::CountedTwice, "batch_counts", "Three events count twice.")
    };
    let lost = Finding {
        minute: Some("2013-02-08T11:05:00Z".to_owned()),
        entity_id: Some("видео-日本-👩\u{200d}🚀".to_owned()),
        expected: Some(7),
        found: Some(-1_009),
        events: 7,
        ..of(Class::Lost, "batch_counts", "Seven accepted events are missing.")
    };
    let corrupt = Finding {
        file: Some("event_date=2013-02-08/part-0001.parquet".to_owned()),
        repair: Repair::Rebuild,
        ..of(Class::CorruptFile, "events", "The file is not what was written.")
    };
    let hole = Finding {
        partition: Some(1),
        offset_start: Some(20_011),
        offset_end: Some(20_033),
        repair: Repair::Impossible,
        ..of(Class::OffsetHole, "events", "Records are not in the raw events.")
    };
    let repeat = Finding {
        entity_id: Some("v1".to_owned()),
        event_ids: vec!["event-9001".to_owned()],
        events: 1,
        ..of(Class::DuplicatePastWindow, "stream_counts", "A repeat came after the dedup window.")
    };
    vec![twice, lost, corrupt, hole, repeat]
}

fn repair() -> RepairReport {
    RepairReport {
        before: Some(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0003)),
        errors_before: 9,
        errors_after: 4,
        dates: vec!["2013-02-08".to_owned()],
        rebuilt: vec!["event_date=2013-02-08/part-0002.parquet".to_owned()],
        left: vec!["offsets 20,011 to 20,033: gone from the log".to_owned()],
    }
}

fn previous() -> Previous {
    Previous { run_id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0004), hash: "ab54a98c".to_owned() }
}
