//! Making good what an audit has found.
//!
//! What is to be done is decided here, from the findings; who does it is passed in. Raw events come first, for counts
//! are made of them. A date is recounted in place of what it has only when its raw events are known to be whole:
//! otherwise its counts may be the only record of events that are gone.

use std::collections::{BTreeMap, BTreeSet};

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
    let partitions: Vec<u32> = report.partitions.iter().map(|state| state.partition).collect();
    let doubtful = doubtful_dates(report);
    for finding in report.findings.iter().filter(|finding| !finding.class.is_expected()) {
        let dates: Vec<String> = finding.date.iter().flat_map(|dates| dates.split(' ')).map(str::to_owned).collect();
        match finding.repair {
            Repair::NotNeeded => plan.left.push(line(finding, "nothing is to be done about it")),
            Repair::Impossible => plan.left.push(line(finding, &finding.action)),
            Repair::Rebuild => plan.rebuild_all(finding, &dates, &partitions, report),
            Repair::Recount if dates.is_empty() => {
                plan.run = true;
                if finding.class == Class::StaleCoverage {
                    plan.recount.extend(open_dates(report));
                }
            }
            Repair::Recount => {
                plan.run = true;
                for date in dates {
                    if let Some(why) = doubtful.get(&date) {
                        plan.left.push(line(finding, why));
                    } else if is_closed(report, &date) {
                        plan.left.push(line(finding, "retention has closed the date: what it is counted from is gone"));
                    } else {
                        plan.recount.insert(date);
                    }
                }
            }
        }
    }
    plan.recount.retain(|date| !is_closed(report, date));
    plan
}

impl Plan {
    fn rebuild_all(&mut self, finding: &Finding, dates: &[String], partitions: &[u32], report: &Report) {
        let named;
        let dates = if dates.is_empty() {
            named = open_dates(report).collect::<Vec<_>>();
            &named
        } else {
            dates
        };
        let chosen = finding.partition.map_or_else(|| partitions.to_vec(), |partition| vec![partition]);
        for date in dates.iter().filter(|date| !is_closed(report, date)) {
            self.rebuild.extend(chosen.iter().map(|partition| (date.clone(), *partition)));
            self.recount.insert(date.clone());
        }
        self.run = true;
    }
}

/// Dates whose counts hold more than their raw events account for, where the log no longer has all of it: the counts may be
/// right, and the raw events gone.
fn doubtful_dates(report: &Report) -> BTreeMap<String, String> {
    let whole_log = report.partitions.iter().all(|state| state.log_start == Some(0));
    if whole_log {
        return BTreeMap::new();
    }
    let is_doubtful = |finding: &&Finding| finding.class == Class::ExtraRows && finding.table == "batch_counts";
    let why = "its counts hold more than its raw events account for, and the log no longer has all of them: the counts may be \
               the only record there is";
    report
        .findings
        .iter()
        .filter(is_doubtful)
        .filter_map(|finding| Some((finding.date.clone()?, why.to_owned())))
        .collect()
}

fn open_dates(report: &Report) -> impl Iterator<Item = String> {
    report.dates.iter().filter(|date| !date.closed).map(|date| date.date.clone())
}

fn is_closed(report: &Report, date: &str) -> bool {
    report.dates.iter().any(|line| line.date == date && line.closed)
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
                report.left.extend(rebuilt.kept);
            }
            Err(reason) => {
                report.left.push(format!("raw events of {date}, partition {partition}: {reason}"));
                // Its counts stay what they are: they may hold what the raw events have lost.
                recount.remove(date);
            }
        }
    }
    let dates: Vec<String> = recount.into_iter().collect();
    if plan.run || !dates.is_empty() {
        match repairs.recount(&dates).await {
            Ok(()) => report.dates = dates,
            Err(reason) => report.left.push(format!("recount of {}: {reason}", dates.join(", "))),
        }
    }
    report
}
