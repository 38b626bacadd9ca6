//! Making good what an audit has found.
//!
//! What is to be done is decided here, from the findings; who does it is passed in. Raw events come first, for counts
//! are made of them. A date is recounted in place of what it has only when its raw events are known to be whole:
//! otherwise its counts may be the only record of events that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;

use crate::finding::{Class, Finding, Repair};
use crate::report::model::{DateTotals, FINDINGS_MAX, RepairReport, Report};

/// Raw events of a date and a log partition that were made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuiltRaw {
    /// Files that were replaced.
    pub removed: Vec<String>,
    /// Files in their place.
    pub added: Vec<String>,
    /// Events before, by the table.
    pub rows_before: u64,
    /// Events now.
    pub rows_after: u64,
    /// From which offset on there are those of the log now.
    pub from: u64,
    /// Files that stayed because the log no longer holds all their records.
    pub kept: Vec<KeptRaw>,
    /// Offsets of records that the log cannot say the events of.
    pub skipped: Vec<u64>,
}

/// A file of raw events that was not made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptRaw {
    /// The file.
    pub file: String,
    /// Why it stayed.
    pub why: String,
}

/// Who can make good.
#[async_trait]
pub trait Repairs: std::fmt::Debug + Send + Sync {
    /// Makes the raw events of a date and log partition anew from the log, as far as it still holds them.
    ///
    /// # Errors
    /// A sentence; nothing has changed then.
    async fn rebuild(&self, date: &str, partition: u32) -> Result<RebuiltRaw, String>;

    /// Lets batch count up to now, and recounts these dates in place of what they have.
    ///
    /// # Errors
    /// A sentence; nothing has changed then.
    async fn recount(&self, dates: &[String]) -> Result<(), String>;
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Raw events to be made anew: date and log partition, and the offsets where they are known to be wrong.
    pub rebuild: BTreeMap<(String, u32), Option<Range<u64>>>,
    /// Files of raw events that cannot be read.
    pub unreadable: BTreeSet<String>,
    /// Dates to be recounted in place of what they have.
    pub recount: BTreeSet<String>,
    /// Whether batch has to run at all.
    pub run: bool,
    /// What cannot be made good, and why.
    pub left: Vec<String>,
}

/// What a report's findings ask for. The report has to have all of them.
#[must_use]
pub fn plan(report: &Report) -> Plan {
    let mut plan = Plan::default();
    for finding in report.findings.iter().filter(|finding| !finding.class.is_expected()) {
        let dates: Vec<String> = finding.date.iter().flat_map(|dates| dates.split(' ')).map(str::to_owned).collect();
        match finding.repair {
            Repair::NotNeeded | Repair::Impossible => plan.leave(finding),
            Repair::Rebuild => {
                let dates = if dates.is_empty() { open_dates(report).collect() } else { dates };
                for date in &dates {
                    plan.rebuild_date(date, report);
                    plan.note_wrong(date, finding);
                }
                plan.recount.extend(dates);
                plan.run = true;
            }
            Repair::Recount => {
                plan.run = true;
                let all = dates.is_empty() && finding.class == Class::StaleCoverage;
                plan.recount.extend(if all { open_dates(report).collect() } else { dates });
            }
        }
    }
    plan.hold_back(report);
    if let Some(why) = why_not_to_run(&plan, report) {
        plan.run = false;
        plan.recount.clear();
        plan.left.push(why);
    }
    plan.left.truncate(FINDINGS_MAX);
    plan
}

impl Plan {
    /// Says of a finding that nothing is done about it.
    pub fn leave(&mut self, finding: &Finding) {
        let why = if finding.repair == Repair::NotNeeded { "nothing is to be done about it" } else { &finding.action };
        self.left.push(line(finding, why));
    }

    /// The raw events of a date, of every log partition: where nothing is known to be wrong something may be all the same.
    fn rebuild_date(&mut self, date: &str, report: &Report) {
        for state in &report.partitions {
            self.rebuild.entry((date.to_owned(), state.partition)).or_default();
        }
    }

    /// Notes where the raw events of a date are wrong.
    fn note_wrong(&mut self, date: &str, finding: &Finding) {
        if let Some(file) = &finding.file {
            self.unreadable.insert(file.clone());
            return;
        }
        let is_meant = |partition: u32| finding.partition.is_none_or(|of| of == partition);
        for ((of, partition), wrong) in &mut self.rebuild {
            if of == date && is_meant(*partition) {
                let (start, end) = (finding.offset_start.unwrap_or(0), finding.offset_end.unwrap_or(u64::MAX));
                let known = wrong.take().unwrap_or(start..end);
                *wrong = Some(known.start.min(start)..known.end.max(end));
            }
        }
    }

    /// Counts that may be the only record of events are not replaced, unless raw events can be made anew from the very
    /// beginning of the log.
    fn hold_back(&mut self, report: &Report) {
        for line in &report.dates {
            let date = &line.date;
            if line.closed {
                self.rebuild.retain(|(other, _), _| other != date);
            }
            if !(self.recount.contains(date) && (line.closed || line.doubtful)) {
                continue;
            }
            if line.doubtful && report.whole_log {
                self.rebuild_date(date, report);
                continue;
            }
            self.recount.remove(date);
            self.left.push(if line.closed {
                format!("{date}: retention has closed it: what it is counted from is gone")
            } else {
                format!(
                    "{date}: its counts may be the only record of events that its raw events lack, and the log does not go \
                     back to its beginning; they stay"
                )
            });
        }
    }
}

/// Why batch must not count up to now: it would put what can be counted in the place of the only record of what cannot.
fn why_not_to_run(plan: &Plan, report: &Report) -> Option<String> {
    if !plan.run {
        return None;
    }
    if let Some(finding) = report.findings.iter().find(|finding| is_only_record(finding, report)) {
        let why = "only the stream's segments have these events, and batch would count past them: nothing is recounted";
        return Some(line(finding, why));
    }
    let is_gone = |(partition, offset): &(&u32, &u64)| {
        let state = report.partitions.get(**partition as usize);
        state.is_none_or(|state| state.log_start.is_none_or(|start| start > **offset))
    };
    if let Some((partition, offset)) = report.segments.not_held_from.iter().find(is_gone) {
        return Some(format!(
            "partition {partition}: segments above what batch has counted, from offset {offset} on, cannot be held against \
             raw events, and the log no longer has them: nothing is recounted"
        ));
    }
    let kept = |date: &&DateTotals| date.doubtful && date.uncovered > 0 && !plan.recount.contains(&date.date);
    let date = report.dates.iter().find(kept)?;
    Some(format!(
        "{}: batch would replace its counts, for it has events that are not counted yet; nothing is recounted. Where its \
         raw events are made anew, repair again",
        date.date
    ))
}

/// Segments above coverage that may be the only record of events: the log no longer has what the raw events lack. Would
/// batch count past them, answers would lack them, too.
fn is_only_record(finding: &Finding, report: &Report) -> bool {
    let state = finding.partition.and_then(|partition| report.partitions.get(partition as usize));
    let fewer = finding.table == "events" && finding.found < finding.expected;
    let of_segment = finding.date.is_none();
    let above = state.is_some_and(|state| finding.offset_end.is_some_and(|end| end > state.coverage));
    let gone = state.is_some_and(|state| state.log_start.is_none_or(|start| finding.offset_start < Some(start)));
    // Raw events of dates that were not asked for are not made anew.
    let stays = gone || !report.request.dates.is_empty();
    fewer && of_segment && above && stays
}

fn open_dates(report: &Report) -> impl Iterator<Item = String> {
    report.dates.iter().filter(|date| !date.closed).map(|date| date.date.clone())
}

fn line(finding: &Finding, why: &str) -> String {
    let what = finding.file.as_deref().or(finding.entity_id.as_deref()).or(finding.date.as_deref()).unwrap_or("-");
    format!("{} in {} ({what}): {why}", finding.class, finding.table)
}

/// Does what a plan says; what could not be done stands in the report.
pub async fn repair(repairs: &dyn Repairs, before: &Report, plan: Plan) -> RepairReport {
    let mut report = RepairReport {
        before: Some(before.run_id),
        errors_before: before.errors(),
        left: plan.left,
        ..RepairReport::default()
    };
    let (mut recount, mut may_run) = (plan.recount, plan.run);
    for ((date, partition), wrong) in &plan.rebuild {
        let line = before.dates.iter().find(|line| &line.date == date);
        let why = match repairs.rebuild(date, *partition).await {
            Ok(rebuilt) => {
                let is_doubtful = line.is_some_and(|line| line.doubtful);
                let why = still_wrong(&rebuilt, wrong.as_ref(), &plan.unreadable, is_doubtful);
                report.rebuilt.extend(rebuilt.added);
                why
            }
            Err(reason) => Some(reason),
        };
        if let Some(why) = why {
            // What they lack, if they lack something, only its counts may have, and the stream's segments.
            recount.remove(date);
            let coverage = before.partitions.get(*partition as usize).map_or(0, |state| state.coverage);
            // Of a date that has more than is counted, a run would also replace what is.
            may_run &= line.is_some_and(|line| line.uncovered == 0)
                && wrong.as_ref().is_none_or(|wrong| wrong.end <= coverage)
                && !before.segments.not_held_from.contains_key(partition);
            report.left.push(format!("raw events of {date}, partition {partition}: {why}; the date's counts stay"));
        }
    }
    if plan.run && !may_run {
        let why = "what could not be made anew may lie above what batch has counted, which would count past it: nothing is recounted";
        report.left.push(why.to_owned());
    }
    if may_run {
        recount_all(repairs, recount.into_iter().collect(), &mut report).await;
    }
    report
}

/// Why raw events may still lack something although they were made anew as far as that goes.
fn still_wrong(
    rebuilt: &RebuiltRaw,
    wrong: Option<&Range<u64>>,
    unreadable: &BTreeSet<String>,
    is_doubtful: bool,
) -> Option<String> {
    if let Some(kept) = rebuilt.kept.iter().find(|kept| is_doubtful || unreadable.contains(&kept.file)) {
        return Some(format!("{}: {}", kept.file, kept.why));
    }
    let may_lack = |offset: &&u64| is_doubtful || wrong.is_some_and(|wrong| wrong.contains(*offset));
    if let Some(first) = rebuilt.skipped.iter().find(may_lack) {
        let records = rebuilt.skipped.len();
        return Some(format!(
            "{records} of the log's records, that at offset {first} among them, cannot be read or were given up"
        ));
    }
    let from = rebuilt.from;
    let is_below = wrong.is_some_and(|wrong| wrong.start < from) || is_doubtful && from > 0;
    is_below.then(|| format!("below offset {from} they could not be made anew from the log"))
}

/// All dates in one run; one by one, when that is not possible because of some of them.
async fn recount_all(repairs: &dyn Repairs, dates: Vec<String>, report: &mut RepairReport) {
    match repairs.recount(&dates).await {
        Ok(()) => report.dates = dates,
        Err(reason) if dates.len() < 2 => report.left.push(format!("recount of {}: {reason}", dates.join(", "))),
        Err(_) => {
            for date in dates {
                match repairs.recount(std::slice::from_ref(&date)).await {
                    Ok(()) => report.dates.push(date),
                    Err(reason) => report.left.push(format!("recount of {date}: {reason}")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use uuid::Uuid;

    use super::*;
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
        let plan =
            plan(&report(vec![finding(Class::ExtraRows, Repair::Recount, Some("2026-01-01"), None)], true, true));
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
}
