//! Making good what an audit has found.
//!
//! What is to be done is decided here, from the findings; who does it is passed in. Raw events come first, for counts
//! are made of them. A date is recounted in place of what it has only when its raw events are known to be whole:
//! otherwise its counts may be the only record of events that are gone.

mod plan;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use async_trait::async_trait;

use crate::report::model::{RepairReport, Report};

pub use plan::{Plan, plan};

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
