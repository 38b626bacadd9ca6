//! Audits are kept as they were written, and whatever is changed afterwards is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use futures::future::join_all;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use reckon_data::clock::{ManualClock, SeededNames};
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, TableError, Tables};
use reckon_tables::{MemoryTables, Storage};
use uuid::Uuid;

use super::files::{self, Contents, Draft};
use super::seal::{hash_of, seal};
use super::{AuditStore, StoreError, rows};
use crate::finding::{Class, Finding};
use crate::report::model::{AuditRequest, DateTotals, Report, Thresholds, Verdict};

fn id(n: u64) -> Uuid {
    Uuid::from_u64_pair(9, n)
}

/// The `n`th audit, an hour after the one before, with so many findings.
fn report(n: u64, findings: usize) -> Report {
    let finding = |at: usize| Finding {
        date: Some("2013-02-08".to_owned()),
        minute: at.is_multiple_of(2).then(|| "2013-02-08T21:29:00Z".to_owned()),
        partition: Some(3),
        offset_end: Some(7),
        found: Some(-1),
        event_ids: vec!["a".to_owned(), "b".to_owned()],
        events: 2,
        ..Finding::new([Class::Lost, Class::RepeatDiffers][at % 2], "batch_counts", format!("finding {at}"))
    };
    let findings: Vec<Finding> = (0..findings).map(finding).collect();
    let mut findings_total = BTreeMap::new();
    for finding in &findings {
        *findings_total.entry(finding.class.name().to_owned()).or_insert(0) += 1;
    }
    Report {
        run_id: id(n),
        started_at: format!("2026-03-0{}T{:02}:00:00Z", 1 + n / 24, n % 24),
        finished_at: format!("2026-03-0{}T{:02}:00:01.500Z", 1 + n / 24, n % 24),
        verdict: if findings.is_empty() { Verdict::Balanced } else { Verdict::Findings },
        request: AuditRequest::default(),
        code_version: "0.1.0".to_owned(),
        definition: 1,
        configuration: "c0ffee".to_owned(),
        log: id(0),
        partitions: Vec::new(),
        tables: Vec::new(),
        files_hash: "f11e".to_owned(),
        thresholds: Thresholds { rows_compared: 0.25, ..Thresholds::default() },
        stages: Vec::new(),
        dates: vec![DateTotals { raw: 100 + n, ..DateTotals::default() }],
        hours: Vec::new(),
        whole_log: true,
        segments: Default::default(),
        served: Default::default(),
        horizon: Default::default(),
        findings,
        findings_total,
        repair: None,
        seconds: BTreeMap::from([("raw".to_owned(), 1.5)]),
        memory_peak: 0,
        previous: None,
    }
}

fn empty() -> AuditStore {
    AuditStore {
        tables: Arc::new(MemoryTables::new(Arc::new(ManualClock::at(0)))),
        store: Arc::new(InMemory::new()),
        names: Arc::new(SeededNames::new(1)),
    }
}

/// Runs 1, 2 and 3 with three, no and two findings; the last one on another day.
async fn three() -> AuditStore {
    let store = empty();
    for (n, findings) in [(1, 3), (2, 0), (24, 2)] {
        store.append(report(n, findings)).await.unwrap();
    }
    store
}

/// The file of a table that is of the `n`th audit.
async fn file(store: &AuditStore, table: Table, n: u64) -> DataFile {
    let snapshot = store.tables.snapshot(table).await.unwrap();
    files::file_of(&snapshot, &id(n).to_string()).cloned().unwrap()
}

async fn read(store: &AuditStore, table: Table, file: &DataFile) -> RecordBatch {
    match files::read(&store.store, table, file).await.unwrap() {
        Contents::Rows(batches) => batches.into_iter().next().unwrap(),
        Contents::Unreadable(reason) => panic!("{}: {reason}", file.path),
    }
}

/// Takes a file out of its table, and puts one with other rows in its place, if there are any. What the table's log
/// says of the old one it says of the new one too.
async fn exchange(store: &AuditStore, table: Table, old: DataFile, rows: Option<RecordBatch>) {
    let mut add = Vec::new();
    if let Some(rows) = rows {
        let same = ["run_id", "hash"].into_iter().filter_map(|name| Some((name, files::same(&old, name)?.clone())));
        let (run_date, what) = (old.partition["run_date"].clone().unwrap(), "changed".to_owned());
        let draft = Draft { table, run_date, what, same: same.collect(), rows };
        add.push(files::write(&store.store, draft, store.names.fresh()).await.unwrap());
    }
    commit(store, table, add, vec![old]).await;
}

async fn commit(store: &AuditStore, table: Table, add: Vec<DataFile>, remove: Vec<DataFile>) {
    let name = Transaction::Maintain(table).to_string();
    let from = store.tables.snapshot(table).await.unwrap().transaction(&name);
    let commit = Commit {
        table,
        steps: vec![Step { name, from, to: from + 1 }],
        add,
        remove,
        data_change: true,
        token: store.names.fresh(),
        operation: "test".to_owned(),
    };
    store.tables.commit(commit).await.unwrap();
}

fn with(batch: &RecordBatch, column: &str, values: ArrayRef) -> RecordBatch {
    let mut columns = batch.columns().to_vec();
    columns[batch.schema().index_of(column).unwrap()] = values;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

fn texts(text: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

fn text(batch: &RecordBatch, column: &str) -> String {
    rows::text(batch, column).unwrap().to_owned()
}

/// What is found, each of the right class and with something to do.
async fn found(store: &AuditStore) -> Vec<String> {
    let found = store.verify().await.unwrap();
    assert!(
        found.iter().all(|finding| finding.class == Class::ReportChanged && !finding.action.is_empty()),
        "{found:?}"
    );
    found.into_iter().map(|finding| finding.explanation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn audits_are_kept_in_a_chain() {
    let store = empty();
    assert_eq!(store.latest().await.unwrap(), None);
    assert!(store.trend(5, None).await.unwrap().is_empty());
    assert_eq!(found(&store).await, [""; 0]);
    let mut stored: Vec<Report> = Vec::new();
    for (n, findings) in [(1, 3), (2, 0), (24, 2)] {
        let appended = store.append(report(n, findings)).await.unwrap();
        let previous = appended.previous.clone().map(|previous| (previous.run_id, previous.hash));
        let expected = stored.last().map(|before| (before.run_id, seal(before).unwrap().hash));
        assert_eq!(previous, expected, "audit {n}");
        assert_eq!(store.latest().await.unwrap().as_ref(), Some(&appended));
        stored.push(appended);
    }
    for report in &stored {
        assert_eq!(store.get(report.run_id).await.unwrap().as_ref(), Some(report));
    }
    assert_eq!(store.get(id(7)).await.unwrap(), None);
    let summaries: Vec<_> = stored.iter().map(Report::summary).collect();
    assert_eq!(store.trend(9, None).await.unwrap(), summaries);
    assert_eq!(store.trend(2, None).await.unwrap(), summaries[1..]);
    assert!(store.trend(0, None).await.unwrap().is_empty());
    assert_eq!(store.trend(9, Some(id(2))).await.unwrap(), summaries[..2]);
    assert_eq!(store.trend(1, Some(id(2))).await.unwrap(), summaries[1..2]);
    assert_eq!(found(&store).await, [""; 0]);
    let row = read(&store, Table::AuditRuns, &file(&store, Table::AuditRuns, 24).await).await;
    assert_eq!((text(&row, "verdict"), text(&row, "previous_run")), ("findings".to_owned(), id(2).to_string()));
    assert_eq!((rows::number(&row, "number"), rows::number(&row, "errors")), (Some(3), Some(1)));
    assert_eq!(hash_of(&text(&row, "report")), text(&row, "hash"));
}

/// What somebody may have done to the row of an audit, and what is said of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_changed_is_found() {
    type Change = fn(&RecordBatch) -> RecordBatch;
    let rewritten: Change = |row| with(row, "report", texts(&text(row, "report").replace("\"raw\":10", "\"raw\":99")));
    // With the hash that goes with it: then only the next one tells.
    let forged: Change = |row| {
        let other = text(row, "report").replace("c0ffee", "tea");
        let row = with(row, "configuration", texts("tea"));
        with(&with(&row, "hash", texts(&hash_of(&other))), "report", texts(&other))
    };
    let changes: [(&str, Change, &[&str]); 7] = [
        ("the report", rewritten, &["not the one that its hash", "events do not say"]),
        ("the verdict", |row| with(row, "verdict", texts("balanced")), &["verdict do not say"]),
        ("the hash", |row| with(row, "hash", texts("0")), &["not the one that its hash", "chained to audit"]),
        (
            "the number",
            |row| with(row, "number", Arc::new(Int64Array::from(vec![7]))),
            &["run 1 of 3", "is run 7, of 3"],
        ),
        ("the previous", |row| with(row, "previous_hash", texts("0")), &["previous_hash do not say", "names an audit"]),
        ("no report at all", |row| with(row, "report", texts("{}")), &["cannot be read"]),
        ("all of it", forged, &["chained to audit"]),
    ];
    for (what, change, expected) in changes {
        let store = three().await;
        let old = file(&store, Table::AuditRuns, 1).await;
        let row = change(&read(&store, Table::AuditRuns, &old).await);
        exchange(&store, Table::AuditRuns, old, Some(row)).await;
        let told = found(&store).await.join("\n");
        assert!(expected.iter().all(|expected| told.contains(expected)), "{what}: {told:?}");
        assert!(told.contains(&id(1).to_string()), "{what}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_its_hash_was_not_made_of_is_not_handed_out() {
    let store = three().await;
    for n in [1, 24] {
        let old = file(&store, Table::AuditRuns, n).await;
        let row = read(&store, Table::AuditRuns, &old).await;
        let other = text(&row, "report").replace("c0ffee", "tea");
        exchange(&store, Table::AuditRuns, old, Some(with(&row, "report", texts(&other)))).await;
    }
    for (n, got) in [(1, store.get(id(1)).await), (24, store.get(id(24)).await), (24, store.latest().await)] {
        let path = file(&store, Table::AuditRuns, n).await.path;
        let why = "a report is not the one that its hash was made of";
        let refused = format!("file {path} is not what the audit has written: {why}");
        assert_eq!(got.map_err(|error| error.to_string()), Err(refused));
    }
    // The one between them is as it was written.
    assert_eq!(store.get(id(2)).await.unwrap().map(|report| report.run_id), Some(id(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_taken_out_is_missed() {
    for (n, number) in [(1, 1), (2, 2), (24, 3)] {
        let store = three().await;
        exchange(&store, Table::AuditRuns, file(&store, Table::AuditRuns, n).await, None).await;
        let told = found(&store).await;
        assert!(matches!(&told[..], [one] if one.starts_with(&format!("run {number} of 3"))), "{told:?}");
        // Who comes after it knows its name.
        assert_eq!(told[0].contains(&id(n).to_string()), n != 24, "{told:?}");
        // Audits go on, and it stays missed.
        store.append(report(25, 1)).await.unwrap();
        let later = found(&store).await;
        assert!(matches!(&later[..], [one] if one.starts_with(&format!("run {number} of 4"))), "{later:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_changed_places_are_found() {
    let store = three().await;
    for (n, number) in [(1, 2), (2, 1)] {
        let old = file(&store, Table::AuditRuns, n).await;
        let row = read(&store, Table::AuditRuns, &old).await;
        let row = with(&row, "number", Arc::new(Int64Array::from(vec![number])));
        exchange(&store, Table::AuditRuns, old, Some(row)).await;
    }
    let places = found(&store).await.join("\n");
    assert!(places.contains("names an audit before it") && places.contains("chained to audit none"), "{places}");
    // Their reports alone: each has the hash of the other.
    let store = three().await;
    let olds = [file(&store, Table::AuditRuns, 1).await, file(&store, Table::AuditRuns, 2).await];
    let rows = [read(&store, Table::AuditRuns, &olds[0]).await, read(&store, Table::AuditRuns, &olds[1]).await];
    for (at, old) in olds.into_iter().enumerate() {
        let row = with(&rows[at], "report", texts(&text(&rows[1 - at], "report")));
        exchange(&store, Table::AuditRuns, old, Some(row)).await;
    }
    let reports = found(&store).await;
    assert_eq!(reports.iter().filter(|found| found.contains("hash was made of")).count(), 2, "{reports:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_that_were_changed_are_found() {
    type Change = fn(&RecordBatch) -> Option<RecordBatch>;
    let changes: [(&str, Change, &str); 6] = [
        (
            "the class",
            |rows| Some(with(rows, "class", Arc::new(StringArray::from(vec!["lost"; 3])))),
            "1 (no. 1) are not",
        ),
        (
            "whether it is an error",
            |rows| Some(with(rows, "is_error", Arc::new(BooleanArray::from(vec![true; 3])))),
            "1 (no. 1) are not",
        ),
        ("a row less", |rows| Some(rows.slice(0, 2)), "1 (no. 2) are not there"),
        ("none at all", |_| None, "3 (no. 0, no. 1, no. 2) are not there"),
        (
            "one twice",
            |rows| Some(with(rows, "number", Arc::new(Int64Array::from(vec![0, 1, 1])))),
            "1 (no. 1) are there more than once",
        ),
        (
            "one of nobody",
            |rows| Some(with(rows, "number", Arc::new(Int64Array::from(vec![0, 1, 3])))),
            "1 findings are there that its report has not",
        ),
    ];
    for (what, change, expected) in changes {
        let store = three().await;
        let old = file(&store, Table::AuditFindings, 1).await;
        let rows = change(&read(&store, Table::AuditFindings, &old).await);
        exchange(&store, Table::AuditFindings, old, rows).await;
        let told = found(&store).await;
        assert!(matches!(&told[..], [one] if one.contains(expected)), "{what}: {told:?}");
        assert!(told[0].contains(&id(1).to_string()), "{what}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_of_a_run_under_a_day_that_is_not_its_own_are_found() {
    let under = [(1, "2026-03-02"), (2, "2026-03-02"), (24, "2026-03-01"), (24, "2026-03-07"), (7, "2026-03-02")];
    for (n, run_date) in under {
        let store = three().await;
        let rows = read(&store, Table::AuditFindings, &file(&store, Table::AuditFindings, 1).await).await;
        let rows = with(&rows, "run_id", Arc::new(StringArray::from(vec![id(n).to_string(); 3])));
        let (table, what, run_date) = (Table::AuditFindings, "added".to_owned(), run_date.to_owned());
        let draft = Draft { table, run_date, what, same: Vec::new(), rows };
        let added = files::write(&store.store, draft, store.names.fresh()).await.unwrap();
        commit(&store, table, vec![added], Vec::new()).await;
        let told = found(&store).await;
        if n == 7 {
            assert_eq!(told, [""; 0], "an audit ended between its two commits");
            continue;
        }
        let run = format!("audit {}, run", id(n));
        assert!(matches!(&told[..], [one] if one.starts_with(&run) && one.contains("3 findings of it")), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_damaged_or_gone_is_a_finding_and_audits_go_on() {
    for table in [Table::AuditRuns, Table::AuditFindings] {
        for (n, number) in [(1, 1), (24, 3)] {
            for bytes in [None, Some("no parquet")] {
                let store = three().await;
                let path = Storage::path(table, &file(&store, table, n).await.path);
                match bytes {
                    Some(bytes) => drop(store.store.put(&path, bytes.into()).await.unwrap()),
                    None => store.store.delete(&path).await.unwrap(),
                }
                let told = found(&store).await;
                assert!(matches!(&told[..], [one] if one.contains(&id(n).to_string())), "{told:?}");
                assert_eq!(told[0].contains(&format!("run {number}")), table == Table::AuditRuns, "{told:?}");
                let next = store.append(report(25, 1)).await.unwrap();
                assert_eq!(next.previous.unwrap().run_id, id(24), "what it was chained to is known all the same");
                assert_eq!(found(&store).await.len(), 1, "and it is the same that is wrong");
                assert_eq!(store.trend(9, None).await.unwrap().len(), if table == Table::AuditRuns { 3 } else { 4 });
                let got = store.get(id(n)).await;
                assert_eq!(matches!(got, Err(StoreError::Changed { .. })), table == Table::AuditRuns, "{got:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audits_that_end_at_once_make_one_chain() {
    let store = empty();
    let others = [store.clone(), store.clone()];
    let appended = join_all((0..8).map(|n| others[n % 2].append(report(n as u64, n % 3)))).await;
    assert!(appended.iter().all(Result::is_ok), "{appended:?}");
    assert_eq!(found(&store).await, [""; 0]);
    assert_eq!(store.trend(100, None).await.unwrap().len(), 8);
    let firsts = appended.iter().flatten().filter(|report| report.previous.is_none());
    assert_eq!(firsts.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_stored_once_however_often_it_is_tried() {
    let store = three().await;
    let again = store.append(report(24, 2)).await.unwrap();
    assert_eq!(Some(again), store.latest().await.unwrap());
    assert_eq!((store.trend(9, None).await.unwrap().len(), found(&store).await.len()), (3, 0));
}

/// Tables of which nobody can commit to one.
#[derive(Debug)]
struct Closed(Arc<dyn Tables>, Table);

#[async_trait]
impl Tables for Closed {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        self.0.snapshot(table).await
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        self.0.version(table).await
    }

    async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        if commit.table == self.1 {
            return Err(TableError::Storage { table: self.1.name(), reason: "the connection broke".to_owned() });
        }
        self.0.commit(commit).await
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        self.0.vacuum(table, retention_micros).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_without_their_run_are_used_when_it_is_tried_again() {
    let store = three().await;
    let closed = AuditStore { tables: Arc::new(Closed(store.tables.clone(), Table::AuditRuns)), ..store.clone() };
    closed.append(report(25, 4)).await.unwrap_err();
    assert_eq!(found(&store).await, [""; 0], "an audit ended between its two commits");
    store.append(report(25, 4)).await.unwrap();
    assert_eq!(found(&store).await, [""; 0], "its findings are there once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_could_not_be_read_again_is_refused_by_name() {
    let store = empty();
    let mut no_number = report(1, 0);
    no_number.thresholds.rows_compared = f64::NAN;
    let no_time = Report { finished_at: "now".to_owned(), ..report(2, 0) };
    for (refused, name) in [(no_number, "f64"), (no_time, "finished_at")] {
        let error = store.append(refused).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unfit { reason, .. } if reason.contains(name)), "{error}");
    }
    assert_eq!(store.latest().await.unwrap(), None);
}
