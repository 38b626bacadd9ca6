//! Tests of what is made good, and what is left.

use parking_lot::Mutex;
use uuid::Uuid;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::finding::{Class, Finding, Repair};
use crate::report::model::{DateTotals, PartitionState};
use crate::report::testing::empty;

fn report(findings: Vec<Finding>, doubtful: bool, whole_log: bool) -> Report {
    let state = |partition| PartitionState { partition, coverage: 10_000, ..PartitionState::default() };
    let line = |date: &str, doubtful| DateTotals { date: date.to_owned(), doubtful, ..DateTotals::default() };
    Report {
        run_id: Uuid::nil(),
        partitions: [0, 1].map(state).into(),
        dates: vec![line("2026-01-01", doubtful), line("2026-01-02", false)],
        findings,
        whole_log,
        ..empty()
    }
}

fn finding(class: Class, repair: Repair, date: Option<&str>, partition: Option<u32>) -> Finding {
    let mut finding = Finding::new(class, "batch_counts", String::new());
    (finding.repair, finding.partition) = (repair, partition);
    finding.date = date.map(str::to_owned);
    finding
}

#[test]
fn counts_that_may_be_the_only_record_are_not_replaced() {
    let first = finding(Class::ExtraRows, Repair::Recount, Some("2026-01-01"), None);
    // Whatever else asks for a recount, of all dates or of this one.
    for other in [
        finding(Class::OffsetHole, Repair::Rebuild, None, Some(1)),
        finding(Class::WrongKey, Repair::Rebuild, Some("2026-01-01"), Some(1)),
        finding(Class::StaleCoverage, Repair::Recount, None, Some(1)),
    ] {
        let plan = plan(&report(vec![first.clone(), other], true, false));
        assert!(!plan.recount.contains("2026-01-01"), "{plan:?}");
        assert_eq!(plan.left.len(), 1);
    }
}

#[test]
fn a_log_that_goes_back_to_its_beginning_makes_good_what_is_doubtful() {
    let plan = plan(&report(vec![finding(Class::ExtraRows, Repair::Recount, Some("2026-01-01"), None)], true, true));
    let all = BTreeMap::from([0, 1].map(|partition| (("2026-01-01".to_owned(), partition), None)));
    assert_eq!((plan.rebuild, plan.left), (all, Vec::new()));
    assert_eq!(plan.recount, BTreeSet::from(["2026-01-01".to_owned()]));
}

#[test]
fn batch_does_not_count_past_segments_that_are_the_only_record() {
    let mut hole = finding(Class::OffsetHole, Repair::Rebuild, None, Some(1));
    "events".clone_into(&mut hole.table);
    (hole.offset_start, hole.offset_end) = (Some(3), Some(9));
    (hole.expected, hole.found) = (Some(6), Some(0));
    let mut report = report(vec![hole], false, false);
    (report.partitions[1].log_start, report.partitions[1].coverage) = (Some(5), 0);
    let held = plan(&report);
    assert!(!held.run && held.recount.is_empty() && held.left.len() == 1, "{held:?}");
    assert_eq!(held.rebuild.len(), 4, "what the log has may come back");
    report.findings[0].class = Class::Lost;
    assert!(!plan(&report).run, "however it was found");
    report.partitions[1].log_start = Some(2);
    assert!(plan(&report).run, "the log still has them");
    (report.partitions[1].log_start, report.partitions[1].coverage) = (Some(5), 9);
    assert!(plan(&report).run, "batch is past them");
}

#[test]
fn batch_does_not_count_past_segments_of_which_nobody_knows_anything() {
    let mut report = report(vec![finding(Class::ServedDiffers, Repair::Recount, None, None)], false, false);
    for state in &mut report.partitions {
        (state.log_start, state.coverage) = (Some(5), 4);
    }
    assert!(plan(&report).run);
    report.segments.not_held_from = [(1, 4)].into();
    let held = plan(&report);
    assert!(!held.run && held.left.len() == 1 && held.left[0].starts_with("partition 1: "), "{held:?}");
    report.segments.not_held_from = [(1, 5)].into();
    assert!(plan(&report).run, "the log has them");
}

#[test]
fn batch_does_not_replace_counts_that_are_kept_because_there_is_more_of_their_date() {
    let other = finding(Class::WrongMinute, Repair::Recount, Some("2026-01-02"), None);
    let mut report = report(vec![other], true, false);
    assert!(plan(&report).run);
    report.dates[0].uncovered = 1;
    let held = plan(&report);
    assert!(!held.run && held.recount.is_empty() && held.left.len() == 1, "{held:?}");
    assert!(held.left[0].starts_with("2026-01-01: "), "{held:?}");
}

#[test]
fn where_raw_events_are_wrong_is_known_by_partition() {
    let mut first = finding(Class::Lost, Repair::Rebuild, Some("2026-01-01"), Some(1));
    (first.offset_start, first.offset_end) = (Some(70), Some(71));
    let mut second = first.clone();
    (second.offset_start, second.offset_end) = (Some(50), Some(60));
    second.date = Some("2026-01-01 2026-01-02".to_owned());
    let mut file = finding(Class::CorruptFile, Repair::Rebuild, Some("2026-01-02"), None);
    file.file = Some("a file".to_owned());
    let plan = plan(&report(vec![first, second, file], false, false));
    let of = |date: &str, partition| plan.rebuild.get(&(date.to_owned(), partition)).cloned();
    assert_eq!([of("2026-01-01", 0), of("2026-01-01", 1)], [Some(None), Some(Some(50..71))]);
    assert_eq!([of("2026-01-02", 0), of("2026-01-02", 1)], [Some(None), Some(Some(50..60))]);
    assert_eq!(plan.unreadable, BTreeSet::from(["a file".to_owned()]));
}

/// Does not rebuild the date that is unreadable, and recounts no run that has the impossible one.
#[derive(Debug, Default)]
struct Fake {
    kept: Vec<KeptRaw>,
    from: u64,
    skipped: Vec<u64>,
    unreadable: Option<&'static str>,
    impossible: Option<&'static str>,
    recounted: Mutex<Vec<Vec<String>>>,
}

#[async_trait]
impl Repairs for Fake {
    async fn rebuild(&self, date: &str, _: u32) -> Result<RebuiltRaw, String> {
        if Some(date) == self.unreadable {
            return Err("a record cannot be read".to_owned());
        }
        let (kept, skipped) = (self.kept.clone(), self.skipped.clone());
        Ok(RebuiltRaw { kept, skipped, from: self.from, ..RebuiltRaw::default() })
    }

    async fn recount(&self, dates: &[String]) -> Result<(), String> {
        if dates.iter().any(|date| Some(date.as_str()) == self.impossible) {
            return Err("its raw events are gone".to_owned());
        }
        self.recounted.lock().push(dates.to_vec());
        Ok(())
    }
}

fn two_dates() -> Plan {
    let dates = ["2026-01-01", "2026-01-02"].map(str::to_owned);
    let rebuild = [((dates[0].clone(), 0), Some(7_000..7_001))].into();
    Plan { rebuild, recount: dates.into(), run: true, ..Plan::default() }
}

#[tokio::test]
async fn one_date_that_cannot_be_recounted_does_not_keep_the_others_from_it() {
    let fake = Fake { impossible: Some("2026-01-01"), ..Fake::default() };
    let done = repair(&fake, &report(Vec::new(), false, true), two_dates()).await;
    assert_eq!((done.dates, done.left.len()), (vec!["2026-01-02".to_owned()], 1));
}

#[tokio::test]
async fn a_date_whose_raw_events_could_not_all_be_made_anew_keeps_its_counts() {
    let kept = vec![KeptRaw { file: "an old file".to_owned(), why: "the log begins in it".to_owned() }];
    let (first, other) = ("raw events of 2026-01-01, partition 0: ", "; the date's counts stay");
    for (kept, from, is_doubtful, unreadable, why) in [
        // It may lack anything.
        (kept.clone(), 0, true, None, Some("an old file: the log begins in it")),
        (Vec::new(), 1, true, None, Some("below offset 1 they could not be made anew from the log")),
        (Vec::new(), 0, true, None, None),
        // What it is known to lack lies in what stays, or does not.
        (kept.clone(), 9_000, false, None, Some("below offset 9000 they could not be made anew from the log")),
        (kept.clone(), 7_001, false, None, Some("below offset 7001 they could not be made anew from the log")),
        (kept.clone(), 7_000, false, None, None),
        (kept, 10, false, Some("an old file"), Some("an old file: the log begins in it")),
    ] {
        let fake = Fake { kept, from, ..Fake::default() };
        let plan = Plan { unreadable: unreadable.into_iter().map(str::to_owned).collect(), ..two_dates() };
        let done = repair(&fake, &report(Vec::new(), is_doubtful, true), plan).await;
        assert_eq!(done.left, why.map(|why| format!("{first}{why}{other}")).into_iter().collect::<Vec<_>>());
        let expected: &[&str] = if why.is_some() { &["2026-01-02"] } else { &["2026-01-01", "2026-01-02"] };
        assert_eq!(done.dates, expected, "{why:?}");
        assert_eq!(*fake.recounted.lock(), [expected]);
    }
}

#[tokio::test]
async fn a_date_whose_raw_events_could_not_be_made_anew_is_not_recounted() {
    let fake = Fake { unreadable: Some("2026-01-01"), ..Fake::default() };
    let done = repair(&fake, &report(Vec::new(), false, true), two_dates()).await;
    assert_eq!(done.dates, ["2026-01-02"]);
    let why = "raw events of 2026-01-01, partition 0: a record cannot be read; the date's counts stay";
    assert_eq!(done.left, [why]);
    assert_eq!(*fake.recounted.lock(), [["2026-01-02"]]);
}

#[tokio::test]
async fn a_record_that_nobody_can_read_matters_where_raw_events_lack_something() {
    for (skipped, is_doubtful, stays) in [(6_999, false, false), (7_000, false, true), (6_999, true, true)] {
        let fake = Fake { skipped: vec![3, skipped], ..Fake::default() };
        let done = repair(&fake, &report(Vec::new(), is_doubtful, true), two_dates()).await;
        assert_eq!(done.dates.len(), if stays { 1 } else { 2 }, "{skipped}");
        assert_eq!(done.left.len(), usize::from(stays), "{:?}", done.left);
    }
}

#[tokio::test]
async fn batch_does_not_count_past_what_could_not_be_made_anew() {
    let mut report = report(Vec::new(), false, true);
    for (wrong, uncovered, may_run) in [
        (Some(7_000..10_001), 0, false),
        (Some(7_000..10_000), 5, false),
        (Some(7_000..10_000), 0, true),
        (None, 1, false),
        (None, 0, true),
    ] {
        report.dates[0].uncovered = uncovered;
        let fake = Fake { unreadable: Some("2026-01-01"), ..Fake::default() };
        let rebuild = [(("2026-01-01".to_owned(), 0), wrong.clone())].into();
        let done = repair(&fake, &report, Plan { rebuild, ..two_dates() }).await;
        assert_eq!((done.dates.len(), fake.recounted.lock().len()), if may_run { (1, 1) } else { (0, 0) });
        assert_eq!(done.left.len(), if may_run { 1 } else { 2 }, "{wrong:?}, {:?}", done.left);
    }
}
