//! Making good what an audit has found.
//!
//! What is to be done is decided here, from the findings; who does it is passed in. Raw events come first, for counts
//! are made of them. A date is recounted in place of what it has only when its raw events are known to be whole:
//! otherwise its counts may be the only record of events that are gone.

use std::collections::BTreeSet;

use async_trait::async_trait;

use crate::finding::{Class, Finding, Repair};
use crate::report::model::{RepairReport, Report};

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
    /// Files that stayed because the log no longer holds all their records, and why.
    pub kept: Vec<String>,
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
    /// Raw events to be made anew: date and log partition.
    pub rebuild: BTreeSet<(String, u32)>,
    /// Dates to be recounted in place of what they have.
    pub recount: BTreeSet<String>,
    /// Whether batch has to run at all.
    pub run: bool,
    /// What cannot be made good, and why.
    pub left: Vec<String>,
}

/// What a report's findings ask for.
#[must_use]
pub fn plan(report: &Report) -> Plan {
    let mut plan = Plan::default();
    for finding in report.findings.iter().filter(|finding| !finding.class.is_expected()) {
        let dates: Vec<String> = finding.date.iter().flat_map(|dates| dates.split(' ')).map(str::to_owned).collect();
        match finding.repair {
            Repair::NotNeeded => plan.left.push(line(finding, "nothing is to be done about it")),
            Repair::Impossible => plan.left.push(line(finding, &finding.action)),
            Repair::Rebuild => {
                let dates = if dates.is_empty() { open_dates(report).collect() } else { dates };
                // Of all partitions: a report names a thousand findings, and may leave out those of the others.
                plan.rebuild.extend(dates.iter().flat_map(|date| of_date(date, report)));
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
    if let Some(finding) = report.findings.iter().find(|finding| is_only_record(finding, report)) {
        let why = "only the stream's segments have these events, and batch would count past them: nothing is recounted";
        plan = Plan { left: plan.left, ..Plan::default() };
        plan.left.push(line(finding, why));
    }
    plan
}

impl Plan {
    /// Counts that may be the only record of events are not replaced, unless raw events can be made anew from the very
    /// beginning of the log.
    fn hold_back(&mut self, report: &Report) {
        for line in &report.dates {
            let date = &line.date;
            if line.closed {
                self.rebuild.retain(|(other, _)| other != date);
            }
            if !(self.recount.contains(date) && (line.closed || line.doubtful)) {
                continue;
            }
            if line.doubtful && report.whole_log {
                self.rebuild.extend(of_date(date, report));
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

/// The raw events of a date, of every log partition.
fn of_date(date: &str, report: &Report) -> Vec<(String, u32)> {
    report.partitions.iter().map(|state| (date.to_owned(), state.partition)).collect()
}

/// Segments above coverage that may be the only record of events: the log no longer has what the raw events lack. Would
/// batch count past them, answers would lack them, too.
fn is_only_record(finding: &Finding, report: &Report) -> bool {
    let state = finding.partition.and_then(|partition| report.partitions.get(partition as usize));
    let fewer = finding.table == "events" && finding.found < finding.expected;
    let of_segment = finding.date.is_none() && finding.class == Class::OffsetHole;
    let above = state.is_some_and(|state| finding.offset_end.is_some_and(|end| end > state.coverage));
    let gone = state.is_some_and(|state| state.log_start.is_none_or(|start| finding.offset_start < Some(start)));
    fewer && of_segment && above && gone
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
    let mut recount = plan.recount;
    for (date, partition) in &plan.rebuild {
        match repairs.rebuild(date, *partition).await {
            Ok(rebuilt) => {
                report.rebuilt.extend(rebuilt.added);
                let is_doubtful = before.dates.iter().any(|line| &line.date == date && line.doubtful);
                if is_doubtful && !rebuilt.kept.is_empty() {
                    // What they lack, if they lack something, only its counts may have.
                    recount.remove(date);
                    report.left.extend(rebuilt.kept);
                }
            }
            Err(reason) => {
                report.left.push(format!("raw events of {date}, partition {partition}: {reason}"));
                // Its counts stay what they are: they may hold what the raw events have lost.
                recount.remove(date);
            }
        }
    }
    if plan.run {
        recount_all(repairs, recount.into_iter().collect(), &mut report).await;
    }
    report
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
        let state = |partition| PartitionState { partition, ..PartitionState::default() };
        let line = |date: &str, doubtful| DateTotals { date: date.to_owned(), doubtful, ..DateTotals::default() };
        Report {
            run_id: Uuid::nil(),
            partitions: vec![state(0), state(1)],
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
        let all: BTreeSet<(String, u32)> = [0, 1].map(|partition| ("2026-01-01".to_owned(), partition)).into();
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
        report.partitions[1].log_start = Some(5);
        let held = plan(&report);
        assert!(!held.run && held.recount.is_empty() && held.rebuild.is_empty() && held.left.len() == 1, "{held:?}");
        report.partitions[1].log_start = Some(2);
        assert!(plan(&report).run, "the log still has them");
        (report.partitions[1].log_start, report.partitions[1].coverage) = (Some(5), 9);
        assert!(plan(&report).run, "batch is past them");
    }

    /// Does not rebuild the date that is unreadable, and recounts no run that has the impossible one.
    #[derive(Debug, Default)]
    struct Fake {
        kept: Vec<String>,
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
            Ok(RebuiltRaw { kept: self.kept.clone(), ..RebuiltRaw::default() })
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
        Plan { rebuild: [(dates[0].clone(), 0)].into(), recount: dates.into(), run: true, left: Vec::new() }
    }

    #[tokio::test]
    async fn one_date_that_cannot_be_recounted_does_not_keep_the_others_from_it() {
        let fake = Fake { impossible: Some("2026-01-01"), ..Fake::default() };
        let done = repair(&fake, &report(Vec::new(), false, true), two_dates()).await;
        assert_eq!((done.dates, done.left.len()), (vec!["2026-01-02".to_owned()], 1));
    }

    #[tokio::test]
    async fn a_date_whose_raw_events_could_not_all_be_made_anew_keeps_its_counts() {
        let fake = Fake { kept: vec!["an old file".to_owned()], ..Fake::default() };
        let done = repair(&fake, &report(Vec::new(), true, true), two_dates()).await;
        assert_eq!(done.dates, ["2026-01-02"]);
        assert_eq!(done.left, ["an old file"]);
        assert_eq!(*fake.recounted.lock(), [["2026-01-02"]]);
    }

    #[tokio::test]
    async fn a_date_whose_raw_events_could_not_be_made_anew_is_not_recounted() {
        let fake = Fake { unreadable: Some("2026-01-01"), ..Fake::default() };
        let done = repair(&fake, &report(Vec::new(), false, true), two_dates()).await;
        assert_eq!(done.dates, ["2026-01-02"]);
        assert_eq!(done.left, ["raw events of 2026-01-01, partition 0: a record cannot be read"]);
        assert_eq!(*fake.recounted.lock(), [["2026-01-02"]]);
    }
}
