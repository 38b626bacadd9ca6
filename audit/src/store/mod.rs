//! Where audits are kept: a row a run in `audit_runs`, a row a finding in `audit_findings`.
//!
//! ```text
//! report ─▶ findings' rows ─commit─▶ audit_findings
//!        ─▶ previous, hash ─▶ row ─compare-and-set on audit/runs─▶ audit_runs   (fenced: from the newest run again)
//! ```
//!
//! Each run holds the hash of the one before, which it takes from the very version of the table that its commit
//! follows: so the runs are one chain, and who changes an old one breaks it. What the chain needs of the newest run, its
//! number, id and hash, stands in the table's log too; that a file is damaged keeps no audit from being stored.
//!
//! `seal` makes the text and the hash of a report, `rows` its rows, `check` holds what is stored to each other; these
//! do no I/O. `files` reads and writes the files.

mod check;
mod error;
mod files;
mod rows;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use object_store::ObjectStore;
use reckon_data::clock::Names;
use reckon_data::minute::format_time;
use reckon_data::offload::offload;
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, TableError, Tables};
use serde_json::{Value, json};
use uuid::Uuid;

pub use error::StoreError;

use self::check::{Day, Link, Row};
use self::files::{Contents, Draft};
use self::seal::{hash_of, seal};
use crate::finding::Finding;
use crate::report::model::{Previous, Report, RunSummary};

/// Attempts to commit while other audits are quicker.
const ATTEMPTS: u32 = 16;

/// The stored audits; any number of processes may store some.
#[derive(Debug, Clone)]
pub struct AuditStore {
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie: the store rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Names for files and commits.
    pub names: Arc<dyn Names>,
}

impl AuditStore {
    /// Stores a report behind the newest one, and returns it with its `previous`. One that is stored already, by a call
    /// that was said to have failed, stays as it is and is returned.
    ///
    /// # Errors
    /// See [`StoreError`]; after one of a table it may have been stored all the same, and it may be tried again.
    pub async fn append(&self, report: Report) -> Result<Report, StoreError> {
        self.append_findings(&report).await?;
        for _ in 0..ATTEMPTS {
            let snapshot = self.tables.snapshot(Table::AuditRuns).await?;
            if let Some(file) = files::file_of(&snapshot, &report.run_id.to_string()) {
                return self.report_in(file, Some(report.run_id)).await?.ok_or_else(|| lost(file));
            }
            let chained = Report { previous: self.newest(&snapshot).await?, ..report.clone() };
            match self.append_run(&snapshot, &chained).await {
                Err(StoreError::Table(TableError::Fenced { .. })) => {}
                other => return other.map(|()| chained),
            }
        }
        Err(StoreError::Raced { run_id: report.run_id, attempts: ATTEMPTS })
    }

    /// The newest report.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when it is not what was written; when the tables cannot be read.
    pub async fn latest(&self) -> Result<Option<Report>, StoreError> {
        let snapshot = self.tables.snapshot(Table::AuditRuns).await?;
        match files::newest_first(&snapshot).first() {
            Some(file) => self.report_in(file, None).await,
            None => Ok(None),
        }
    }

    /// The report of a run.
    ///
    /// # Errors
    /// As [`AuditStore::latest`].
    pub async fn get(&self, run_id: Uuid) -> Result<Option<Report>, StoreError> {
        let snapshot = self.tables.snapshot(Table::AuditRuns).await?;
        let text = run_id.to_string();
        // Files of which the log does not say so may hold it too.
        for file in snapshot.files.iter().filter(|file| files::run_of(file).is_none_or(|run| run == text)) {
            if let Some(report) = self.report_in(file, Some(run_id)).await? {
                return Ok(Some(report));
            }
        }
        Ok(None)
    }

    /// The hash of a run's report, as the table's log says it; none when there is no such run.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn hash_of(&self, run_id: Uuid) -> Result<Option<String>, StoreError> {
        let snapshot = self.tables.snapshot(Table::AuditRuns).await?;
        Ok(link_of(&snapshot, run_id).map(|link| link.hash))
    }

    /// The `n` runs up to `last`, or the newest ones if none is named, oldest first. Those that cannot be read are left
    /// out: [`AuditStore::verify`] names them.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn trend(&self, n: usize, last: Option<Uuid>) -> Result<Vec<RunSummary>, StoreError> {
        let snapshot = self.tables.snapshot(Table::AuditRuns).await?;
        let last = last.and_then(|run_id| i64::try_from(link_of(&snapshot, run_id)?.number).ok()).unwrap_or(i64::MAX);
        let is_later = |file: &DataFile| file.min_i64("number").is_some_and(|number| number > last);
        let mut runs: Vec<(i64, RunSummary)> = Vec::new();
        for file in files::newest_first(&snapshot).into_iter().filter(|file| !is_later(file)) {
            if runs.len() >= n {
                break;
            }
            match files::read(&self.store, Table::AuditRuns, file).await? {
                Contents::Rows(batches) => {
                    let read = single_rows(&batches);
                    runs.extend(read.iter().filter_map(summary).filter(|(number, _)| *number <= last));
                }
                Contents::Unreadable(reason) => tracing::warn!(file.path, reason, "an audit cannot be read"),
            }
        }
        runs.sort_by_key(|(number, _)| *number);
        let from = runs.len().saturating_sub(n);
        Ok(runs.split_off(from).into_iter().map(|(_, run)| run).collect())
    }

    /// Holds everything that is stored to each other, and names what was changed after it was written. A file that is
    /// damaged or gone is a finding too.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn verify(&self) -> Result<Vec<Finding>, StoreError> {
        // Whoever sees a run sees its findings: they are committed before.
        let runs = self.tables.snapshot(Table::AuditRuns).await?;
        let findings = self.tables.snapshot(Table::AuditFindings).await?;
        let days: BTreeSet<Option<&str>> = runs.files.iter().chain(findings.files.iter()).map(day_of).collect();
        let (mut links, mut found, mut strays) = (Vec::new(), Vec::new(), Vec::new());
        for day in days {
            let (day, unreadable, lost) = self.read_day(day, &runs, &findings).await?;
            let checked =
                offload(move || check::day(&day)).await.map_err(|ended| StoreError::Thread(ended.to_string()))?;
            links.extend(checked.links.into_iter().chain(lost));
            found.extend(unreadable.into_iter().chain(checked.found));
            strays.extend(checked.strays);
        }
        found.extend(check::astray(&strays, &links));
        found.extend(check::chain(&links, counted(&runs)));
        Ok(found)
    }

    /// All that is stored of a day; findings about files that cannot be read, and what the table's log says of runs in
    /// such files.
    async fn read_day(
        &self,
        day: Option<&str>,
        runs: &Snapshot,
        findings: &Snapshot,
    ) -> Result<(Day, Vec<Finding>, Vec<Link>), StoreError> {
        let (mut held, mut unreadable, mut lost) = (Day::default(), Vec::new(), Vec::new());
        for file in runs.files.iter().filter(|file| day_of(file) == day) {
            match files::read(&self.store, Table::AuditRuns, file).await? {
                Contents::Rows(batches) => held.runs.extend(rows_of(file, &batches)),
                Contents::Unreadable(reason) => {
                    unreadable.push(check::changed(Table::AuditRuns, Some(&file.path), told(file, &reason)));
                    lost.extend(link_in_log(file));
                    held.lost_runs.extend(files::run_of(file).map(str::to_owned));
                }
            }
        }
        for file in findings.files.iter().filter(|file| day_of(file) == day) {
            match files::read(&self.store, Table::AuditFindings, file).await? {
                Contents::Rows(batches) => held.findings.extend(rows_of(file, &batches)),
                Contents::Unreadable(reason) => {
                    unreadable.push(check::changed(Table::AuditFindings, Some(&file.path), told(file, &reason)));
                    held.lost_findings.extend(files::run_of(file).map(str::to_owned));
                }
            }
        }
        Ok((held, unreadable, lost))
    }

    /// Commits the findings of a report, unless they are there already.
    async fn append_findings(&self, report: &Report) -> Result<(), StoreError> {
        if report.findings.is_empty() {
            return Ok(());
        }
        let run_id = report.run_id.to_string();
        let mut written = None;
        for _ in 0..ATTEMPTS {
            let snapshot = self.tables.snapshot(Table::AuditFindings).await?;
            if files::file_of(&snapshot, &run_id).is_some() {
                return Ok(());
            }
            let file = match written.take() {
                Some(file) => file,
                None => self.write_findings(report).await?,
            };
            match self.commit(&snapshot, file.clone()).await {
                Err(StoreError::Table(TableError::Fenced { .. })) => written = Some(file),
                other => return other,
            }
        }
        Err(StoreError::Raced { run_id: report.run_id, attempts: ATTEMPTS })
    }

    async fn write_findings(&self, report: &Report) -> Result<DataFile, StoreError> {
        let draft = Draft {
            table: Table::AuditFindings,
            run_date: rows::run_date(report)?,
            what: format!("findings-{}", report.run_id),
            rows: rows::findings_batch(report)?,
            same: vec![("run_id", json!(report.run_id))],
        };
        files::write(&self.store, draft, self.names.fresh()).await
    }

    /// Commits a report that is chained to the newest run of `snapshot`.
    async fn append_run(&self, snapshot: &Snapshot, report: &Report) -> Result<(), StoreError> {
        let sealed = seal(report)?;
        let number = counted(snapshot) + 1;
        let draft = Draft {
            table: Table::AuditRuns,
            run_date: rows::run_date(report)?,
            what: format!("run-{number:012}"),
            rows: rows::run_batch(report, &sealed, number)?,
            same: vec![("run_id", json!(report.run_id)), ("hash", json!(sealed.hash))],
        };
        let file = files::write(&self.store, draft, self.names.fresh()).await?;
        self.commit(snapshot, file).await
    }

    async fn commit(&self, snapshot: &Snapshot, file: DataFile) -> Result<(), StoreError> {
        let name = Transaction::AuditRuns.to_string();
        let from = snapshot.transaction(&name);
        let commit = Commit {
            table: snapshot.table,
            steps: vec![Step { name, from, to: from.saturating_add(1) }],
            add: vec![file],
            remove: Vec::new(),
            data_change: true,
            token: self.names.fresh(),
            operation: "audit".to_owned(),
        };
        self.tables.commit(commit).await?;
        Ok(())
    }

    /// What a run after this version of the table is chained to.
    async fn newest(&self, snapshot: &Snapshot) -> Result<Option<Previous>, StoreError> {
        let files = files::newest_first(snapshot);
        let Some(file) = files.first() else { return Ok(None) };
        let previous = |run_id: &str, hash: &str| -> Result<Option<Previous>, StoreError> {
            let id = Uuid::parse_str(run_id);
            let id = id.map_err(|error| not_ours(file, format!("run_id {run_id}: {error}")))?;
            Ok(Some(Previous { run_id: id, hash: hash.to_owned() }))
        };
        if let Some(link) = link_in_log(file) {
            return previous(&link.run_id, &link.hash);
        }
        let row = self.newest_row(file).await?;
        let text = |column: &str| rows::text(&row, column).unwrap_or_default();
        previous(text("run_id"), text("hash"))
    }

    /// The row with the highest number of a file.
    async fn newest_row(&self, file: &DataFile) -> Result<RecordBatch, StoreError> {
        let rows = self.rows_in(file).await?;
        rows.into_iter().max_by_key(|row| rows::number(row, "number")).ok_or_else(|| lost(file))
    }

    async fn rows_in(&self, file: &DataFile) -> Result<Vec<RecordBatch>, StoreError> {
        match files::read(&self.store, Table::AuditRuns, file).await? {
            Contents::Rows(batches) => Ok(single_rows(&batches)),
            Contents::Unreadable(reason) => Err(not_ours(file, reason)),
        }
    }

    /// The report of a run, or of the newest one, if the file has it.
    async fn report_in(&self, file: &DataFile, run_id: Option<Uuid>) -> Result<Option<Report>, StoreError> {
        let row = match run_id.map(|id| id.to_string()) {
            None => self.newest_row(file).await?,
            Some(id) => {
                let rows = self.rows_in(file).await?;
                let found = rows.into_iter().find(|row| rows::text(row, "run_id") == Some(id.as_str()));
                let Some(row) = found else { return Ok(None) };
                row
            }
        };
        let text = rows::text(&row, "report").unwrap_or_default();
        if rows::text(&row, "hash") != Some(hash_of(text).as_str()) {
            return Err(not_ours(file, "a report is not the one that its hash was made of".to_owned()));
        }
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| not_ours(file, format!("a report cannot be read: {error}")))
    }
}

fn not_ours(file: &DataFile, reason: String) -> StoreError {
    StoreError::Changed { path: file.path.clone(), reason }
}

fn lost(file: &DataFile) -> StoreError {
    not_ours(file, "it lacks the run that the table's log says is in it".to_owned())
}

/// How many runs were stored.
fn counted(runs: &Snapshot) -> u64 {
    u64::try_from(runs.transaction(&Transaction::AuditRuns.to_string())).unwrap_or(0)
}

fn day_of(file: &DataFile) -> Option<&str> {
    file.partition.get("run_date")?.as_deref()
}

/// What is wrong with a file, and of which run it is.
fn told(file: &DataFile, reason: &str) -> String {
    let number = files::same(file, "number").and_then(Value::as_u64).filter(|_| link_in_log(file).is_some());
    let number = number.map(|number| format!(", run {number}")).unwrap_or_default();
    format!("audit {}{number}: its file cannot be read: {reason}", files::run_of(file).unwrap_or("of unknown id"))
}

/// What the table's log says of a run.
fn link_of(snapshot: &Snapshot, run_id: Uuid) -> Option<Link> {
    files::file_of(snapshot, &run_id.to_string()).and_then(link_in_log)
}

/// What the table's log says of the one run in a file.
fn link_in_log(file: &DataFile) -> Option<Link> {
    Some(Link {
        number: files::same(file, "number")?.as_u64()?,
        run_id: files::run_of(file)?.to_owned(),
        hash: files::same(file, "hash")?.as_str()?.to_owned(),
        previous: (None, None),
        is_read: false,
        file: file.path.clone(),
    })
}

fn single_rows(batches: &[RecordBatch]) -> Vec<RecordBatch> {
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| batch.slice(row, 1))).collect()
}

fn rows_of(file: &DataFile, batches: &[RecordBatch]) -> Vec<Row> {
    let row = |row| Row { file: file.path.clone(), run_date: day_of(file).map(str::to_owned), row };
    single_rows(batches).into_iter().map(row).collect()
}

/// A row's number, and what the trend shows of it.
fn summary(row: &RecordBatch) -> Option<(i64, RunSummary)> {
    let count = |column: &str| rows::number(row, column).and_then(|count| u64::try_from(count).ok());
    let summary = RunSummary {
        run_id: Uuid::parse_str(rows::text(row, "run_id")?).ok()?,
        finished_at: format_time(rows::time(row, "finished_at")?),
        verdict: serde_json::from_value(Value::from(rows::text(row, "verdict")?)).ok()?,
        events: count("events")?,
        errors: count("errors")?,
        expected: count("expected")?,
    };
    Some((rows::number(row, "number")?, summary))
}
