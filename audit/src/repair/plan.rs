//! What a repair is to do, decided from an audit's findings.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::finding::{Class, Finding, Repair};
use crate::report::model::{DateTotals, FINDINGS_MAX, Report};

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
