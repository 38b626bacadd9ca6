//! Whether stored audits are what was written.
//!
//! ```text
//! a row of audit_runs   report ──SHA-256──▶ hash
//!                       report ───────────▶ every other column, and all rows of audit_findings
//! row n + 1             previous_run, previous_hash ──▶ run_id, hash of row n
//! the table's log       audit/runs = how many there are
//! ```
//!
//! So whoever changes a report has to change all after it. The newest alone has none behind it yet: of that one only
//! the checksum of its file tells that somebody has changed report and hash together.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use reckon_data::table::Table;

use super::rows::{findings_batch, number, run_batch, run_date, text};
use super::seal::{Sealed, hash_of};
use crate::finding::{Class, Finding, Repair};
use crate::report::model::Report;

const ACTION: &str = "Restore the file from a backup, and find out who has written to it: the table's _delta_log says \
                      which commits there were.";

/// A row of one of the tables.
#[derive(Debug, Clone)]
pub struct Row {
    /// The file it is in.
    pub file: String,
    /// The day of its file.
    pub run_date: Option<String>,
    /// The row alone.
    pub row: RecordBatch,
}

/// A run as a link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// Its id.
    pub run_id: String,
    /// Hash of its report.
    pub hash: String,
    /// Id and hash of the run before, as far as it says them.
    pub previous: (Option<String>, Option<String>),
    /// Whether its row was read, and not only what the table's log says of it.
    pub is_read: bool,
    /// The file it is in.
    pub file: String,
}

/// All rows of one day, and what is known of those that cannot be read.
#[derive(Debug, Default)]
pub struct Day {
    /// Rows of `audit_runs`.
    pub runs: Vec<Row>,
    /// Rows of `audit_findings`.
    pub findings: Vec<Row>,
    /// Runs that cannot be read.
    pub lost_runs: BTreeSet<String>,
    /// Runs whose findings cannot be read.
    pub lost_findings: BTreeSet<String>,
}

/// Findings that name a run which is not on their day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The run that they name.
    pub run_id: String,
    /// How many there are.
    pub rows: u64,
    /// Their day.
    pub run_date: Option<String>,
    /// The file that the first one is in.
    pub file: String,
}

/// What a day has shown.
#[derive(Debug, Default)]
pub struct Checked {
    /// Its runs.
    pub links: Vec<Link>,
    /// What is wrong with them and their findings.
    pub found: Vec<Finding>,
    /// Findings of other runs: of another day, or of none.
    pub strays: Vec<Stray>,
}

/// That something was changed after it was written.
pub fn changed(table: Table, file: Option<&str>, explanation: String) -> Finding {
    Finding {
        file: file.map(str::to_owned),
        action: ACTION.to_owned(),
        repair: Repair::Impossible,
        ..Finding::new(Class::ReportChanged, table.name(), explanation)
    }
}

/// Holds each run of a day to its report, and its findings too.
pub fn day(day: &Day) -> Checked {
    let mut by_run: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &day.findings {
        by_run.entry(text(&row.row, "run_id").unwrap_or_default()).or_default().push(row);
    }
    let (mut links, mut found) = (Vec::new(), Vec::new());
    for row in &day.runs {
        let link = link_of(row);
        let (report, wrong) = run(row, &link);
        let name = format!("audit {}, run {}", link.run_id, link.number);
        if !wrong.is_empty() {
            found.push(changed(Table::AuditRuns, Some(&row.file), format!("{name}: {}", wrong.join("; "))));
        }
        let of_run = by_run.get(link.run_id.as_str()).map_or(&[] as &[&Row], Vec::as_slice);
        if let Some(report) = report.filter(|_| !day.lost_findings.contains(&link.run_id)) {
            let wrong = findings(&report, of_run);
            if !wrong.is_empty() {
                let file = of_run.first().map(|row| row.file.as_str());
                found.push(changed(Table::AuditFindings, file, format!("{name}: {}", wrong.join("; "))));
            }
        }
        links.push(link);
    }
    let strays = strays(&by_run, &links, &day.lost_runs);
    Checked { links, found, strays }
}

fn strays(by_run: &BTreeMap<&str, Vec<&Row>>, links: &[Link], lost: &BTreeSet<String>) -> Vec<Stray> {
    let own: BTreeSet<&str> = links.iter().map(|link| link.run_id.as_str()).collect();
    let others = by_run.iter().filter(|(run_id, _)| !(own.contains(*run_id) || lost.contains(**run_id)));
    let stray = |(run_id, rows): (&&str, &Vec<&Row>)| {
        let first = rows.first()?;
        let (run_id, run_date, file) = ((*run_id).to_owned(), first.run_date.clone(), first.file.clone());
        Some(Stray { run_id, rows: rows.len() as u64, run_date, file })
    };
    others.filter_map(stray).collect()
}

/// Findings of a stored run under a day that is not its own: no audit puts them there.
///
/// Those of a run that is not stored are let be: an audit that ended between its two commits leaves them. That a run
/// was taken out shows in the numbers.
pub fn astray(strays: &[Stray], links: &[Link]) -> Vec<Finding> {
    let runs: BTreeMap<&str, u64> = links.iter().map(|link| (link.run_id.as_str(), link.number)).collect();
    let told = |Stray { run_id, rows, run_date, file }: &Stray| {
        let (number, under) = (runs.get(run_id.as_str())?, run_date.as_deref().unwrap_or("no date"));
        let explanation = format!("audit {run_id}, run {number}: {rows} findings of it lie under {under}, not its day");
        Some(changed(Table::AuditFindings, Some(file), explanation))
    };
    strays.iter().filter_map(told).collect()
}

fn link_of(Row { row, file, .. }: &Row) -> Link {
    let owned = |column: &str| text(row, column).map(str::to_owned);
    Link {
        number: number(row, "number").and_then(|number| u64::try_from(number).ok()).unwrap_or(0),
        run_id: owned("run_id").unwrap_or_default(),
        hash: owned("hash").unwrap_or_default(),
        previous: (owned("previous_run"), owned("previous_hash")),
        is_read: true,
        file: file.clone(),
    }
}

/// What a row says of its run, and what is wrong with it by itself.
fn run(row: &Row, link: &Link) -> (Option<Report>, Vec<String>) {
    let stored = text(&row.row, "report").unwrap_or_default();
    let mut wrong = Vec::new();
    if hash_of(stored) != link.hash {
        wrong.push("its report is not the one that its hash was made of".to_owned());
    }
    let report = match serde_json::from_str::<Report>(stored) {
        Ok(report) => report,
        Err(error) => {
            wrong.push(format!("its report cannot be read: {error}"));
            return (None, wrong);
        }
    };
    let sealed = Sealed { text: stored.to_owned(), hash: link.hash.clone() };
    match run_batch(&report, &sealed, link.number) {
        Ok(expected) => {
            let columns = differing(&expected, &row.row);
            if !columns.is_empty() {
                wrong.push(format!("{} do not say what its report says", columns.join(", ")));
            }
        }
        Err(error) => wrong.push(error.to_string()),
    }
    if run_date(&report).ok() != row.run_date {
        wrong.push(format!("it lies under {}", row.run_date.as_deref().unwrap_or("no date")));
    }
    (Some(report), wrong)
}

/// The columns in which two rows differ.
fn differing(expected: &RecordBatch, found: &RecordBatch) -> Vec<String> {
    let columns = expected.schema();
    let names = columns.fields().iter().map(|field| field.name());
    let is_other = |name: &&String| expected.column_by_name(name) != found.column_by_name(name);
    names.filter(is_other).cloned().collect()
}

/// What is wrong with the findings' rows of a run.
fn findings(report: &Report, found: &[&Row]) -> Vec<String> {
    let expected = match findings_batch(report) {
        Ok(expected) => expected,
        Err(error) => return vec![error.to_string()],
    };
    let mut times = vec![0_u64; expected.num_rows()];
    let (mut others, mut extra) = (BTreeSet::new(), 0_u64);
    for Row { row, .. } in found {
        let at = number(row, "number").and_then(|number| usize::try_from(number).ok());
        let Some((at, times)) = at.and_then(|at| Some((at, times.get_mut(at)?))) else {
            extra += 1;
            continue;
        };
        *times += 1;
        if !differing(&expected.slice(at, 1), row).is_empty() {
            others.insert(at);
        }
    }
    let which = |is_so: fn(u64) -> bool| (0..).zip(&times).filter(move |(_, times)| is_so(**times)).map(|(at, _)| at);
    let mut wrong = Vec::new();
    let mut note = |what: &str, which: Vec<usize>| {
        if !which.is_empty() {
            wrong.push(format!("of its {} findings {} ({}) {what}", times.len(), which.len(), some(&which)));
        }
    };
    note("are not there", which(|times| times == 0).collect());
    note("are there more than once", which(|times| times > 1).collect());
    note("are not those of its report", others.into_iter().collect());
    if extra > 0 {
        wrong.push(format!("{extra} findings are there that its report has not"));
    }
    wrong
}

/// The first few of a list, as text.
fn some(numbers: &[usize]) -> String {
    const SHOWN: usize = 5;
    let mut texts: Vec<String> = numbers.iter().take(SHOWN).map(|number| format!("no. {number}")).collect();
    if numbers.len() > SHOWN {
        texts.push("…".to_owned());
    }
    texts.join(", ")
}

/// Holds the runs to each other: `count` there were in all, numbered from 1, and each names the one before.
pub fn chain(links: &[Link], count: u64) -> Vec<Finding> {
    let mut by_number: BTreeMap<u64, Vec<&Link>> = BTreeMap::new();
    for link in links {
        by_number.entry(link.number).or_default().push(link);
    }
    let mut found: Vec<Finding> = holes(by_number.keys().copied(), count)
        .into_iter()
        .map(|(first, last)| changed(Table::AuditRuns, None, missing(first, last, count, &by_number)))
        .collect();
    for (number, same) in &by_number {
        if let [one] = same.as_slice() {
            found.extend(before(one, &by_number).map(|wrong| changed(Table::AuditRuns, Some(&one.file), wrong)));
        } else {
            let ids: Vec<&str> = same.iter().map(|link| link.run_id.as_str()).collect();
            let explanation = format!("audits {} all are run {number}", ids.join(", "));
            found.push(changed(Table::AuditRuns, same.first().map(|link| link.file.as_str()), explanation));
        }
        if *number == 0 || *number > count {
            let ids: Vec<&str> = same.iter().map(|link| link.run_id.as_str()).collect();
            let explanation = format!("audit {} is run {number}, of {count} that were stored", ids.join(", "));
            found.push(changed(Table::AuditRuns, same.first().map(|link| link.file.as_str()), explanation));
        }
    }
    found
}

/// The ranges of 1 to `count`, both included, that do not occur.
fn holes(numbers: impl Iterator<Item = u64>, count: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut next = 1;
    for number in numbers.filter(|number| (1..=count).contains(number)) {
        if number > next {
            holes.push((next, number - 1));
        }
        next = number + 1;
    }
    if next <= count {
        holes.push((next, count));
    }
    holes
}

fn missing(first: u64, last: u64, count: u64, by_number: &BTreeMap<u64, Vec<&Link>>) -> String {
    let which = if first == last { format!("run {first}") } else { format!("runs {first} to {last}") };
    // Whoever comes next knows what the last of them was, unless it was taken out before that came.
    let next = last.checked_add(1).and_then(|next| by_number.get(&next)).and_then(|same| same.first());
    let is_gone = |id: &&str| by_number.values().flatten().all(|link| link.run_id != *id);
    let named = next.and_then(|next| next.previous.0.as_deref()).filter(is_gone);
    let named = named.map(|id| format!("; the last of them was audit {id}")).unwrap_or_default();
    format!("{which} of {count} audits: no longer in the table{named}")
}

/// What is wrong with what a run says of the one before.
fn before(link: &Link, by_number: &BTreeMap<u64, Vec<&Link>>) -> Option<String> {
    let name = format!("audit {}, run {}", link.run_id, link.number);
    if !link.is_read {
        return None;
    }
    if link.number <= 1 {
        let has_one = link.previous != (None, None);
        return has_one.then(|| format!("{name}: it is the first, and names an audit before it"));
    }
    // Of one that is not there nothing can be said but that.
    let [before] = by_number.get(&(link.number - 1))?.as_slice() else { return None };
    let is_named = link.previous.0.as_ref() == Some(&before.run_id) && link.previous.1.as_ref() == Some(&before.hash);
    (!is_named).then(|| {
        let (id, hash) = (link.previous.0.as_deref().unwrap_or("none"), link.previous.1.as_deref().unwrap_or("none"));
        format!(
            "{name}: it was chained to audit {id} with hash {hash}, and before it there is audit {} with hash {}",
            before.run_id, before.hash
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_occur_are_told_as_ranges() {
        for (numbers, count, expected) in [
            (vec![1, 2, 3], 3, vec![]),
            (vec![0, 2, 5, 9], 6, vec![(1, 1), (3, 4), (6, 6)]),
            (vec![], 2, vec![(1, 2)]),
            (vec![], 0, vec![]),
            (vec![u64::MAX], 1, vec![(1, 1)]),
        ] {
            assert_eq!(holes(numbers.iter().copied(), count), expected, "{numbers:?} of {count}");
        }
    }
}
