//! What every implementation of [`Tables`] must do; run it against each.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is what this module is for")]

use std::collections::BTreeMap;

use futures::future::join_all;
use reckon_data::clock::Names;
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, TableError, Tables};
use serde_json::json;

/// Runs the whole suite. The tables may hold commits already, but no transaction of the suite's names,
/// which all begin with `test/`.
///
/// # Panics
/// If an expectation is not met.
pub async fn conformance(tables: &dyn Tables, names: &dyn Names) {
    Box::pin(every_table_exists_when_asked_for(tables)).await;
    Box::pin(a_commit_is_seen_whole(tables, names)).await;
    Box::pin(a_stale_owner_is_fenced_even_after_reloading(tables, names)).await;
    Box::pin(one_step_out_of_place_stops_the_whole_commit(tables, names)).await;
    Box::pin(the_same_attempt_twice_commits_once(tables, names)).await;
    Box::pin(files_are_removed_once(tables, names)).await;
    Box::pin(malformed_commits_are_refused(tables, names)).await;
    Box::pin(commits_of_many_lose_nothing(tables, names)).await;
    Box::pin(of_many_with_the_same_step_one_wins(tables, names)).await;
    Box::pin(older_versions_can_be_read(tables, names)).await;
    Box::pin(versions_that_never_were_are_refused(tables)).await;
    Box::pin(a_history_is_told_from_the_newest_back(tables, names)).await;
    Box::pin(vacuum_keeps_what_is_live(tables, names)).await;
}

/// A step.
#[must_use]
pub fn step(name: &str, from: i64, to: i64) -> Step {
    Step { name: name.to_owned(), from, to }
}

/// A file of `rows` rows in the right partition of `table`, under a fresh name. It need not exist.
#[must_use]
pub fn file(table: Table, names: &dyn Names, rows: u64) -> DataFile {
    let mut partition = BTreeMap::new();
    let mut path = String::new();
    for column in table.partition_columns() {
        let value = if *column == "granularity" { "minute" } else { "2013-02-08" };
        path.push_str(&reckon_data::paths::partition_folder(column, value));
        partition.insert((*column).to_owned(), Some(value.to_owned()));
    }
    path.push_str(&reckon_data::paths::mixed_file("test", names.fresh()));
    let column = match table {
        Table::Imports => "lines",
        Table::AuditRuns | Table::AuditFindings => "number",
        _ => "log_partition",
    };
    let bounds = |value: u64| match table {
        Table::BatchCounts => BTreeMap::new(),
        _ => BTreeMap::from([(column.to_owned(), json!(value))]),
    };
    DataFile { path, bytes: 100 + rows, rows, partition, min: bounds(0), max: bounds(rows) }
}

/// A commit that adds files.
#[must_use]
pub fn adding(table: Table, names: &dyn Names, steps: Vec<Step>, add: Vec<DataFile>) -> Commit {
    Commit {
        table,
        steps,
        add,
        remove: Vec::new(),
        data_change: true,
        token: names.fresh(),
        operation: "test".to_owned(),
    }
}

fn holds(snapshot: &Snapshot, file: &DataFile) -> bool {
    snapshot.files.iter().any(|live| live == file)
}

fn fenced(result: Result<u64, TableError>) -> (i64, i64) {
    match result {
        Err(TableError::Fenced { found, expected, .. }) => (found, expected),
        other => panic!("not fenced but {other:?}"),
    }
}

async fn every_table_exists_when_asked_for(tables: &dyn Tables) {
    for table in Table::ALL {
        let snapshot = tables.snapshot(table).await.expect("a table");
        assert_eq!(snapshot.table, table);
        assert_eq!(tables.version(table).await.expect("a version"), snapshot.version);
    }
}

async fn a_commit_is_seen_whole(tables: &dyn Tables, names: &dyn Names) {
    for table in Table::ALL {
        let before = tables.snapshot(table).await.expect("a snapshot");
        let added = [file(table, names, 3), file(table, names, 4)];
        let steps = vec![step("test/whole/0", 0, 10), step("test/whole/1", 0, -7)];
        let version = tables.commit(adding(table, names, steps, added.to_vec())).await.expect("a commit");
        assert!(version > before.version, "versions rise");
        let after = tables.snapshot(table).await.expect("a snapshot");
        assert_eq!(after.version, version);
        assert_eq!(after.transaction("test/whole/0"), 10);
        assert_eq!(after.transaction("test/whole/1"), -7);
        assert_eq!(after.transaction("test/never"), 0);
        assert_eq!(after.files.len(), before.files.len() + 2);
        assert!(added.iter().all(|file| holds(&after, file)), "{:?}", after.files);
        assert!(!added.iter().any(|file| holds(&before, file)), "a snapshot does not change");
    }
}

async fn a_stale_owner_is_fenced_even_after_reloading(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::StreamCounts;
    let commit = |from, to| adding(table, names, vec![step("test/owner", from, to)], vec![file(table, names, 1)]);
    tables.commit(commit(0, 10)).await.expect("the first owner commits");
    tables.commit(commit(10, 20)).await.expect("a second owner commits");
    let reloaded = tables.snapshot(table).await.expect("the first owner reloads");
    let stale = commit(10, 15);
    assert_eq!(fenced(tables.commit(stale.clone()).await), (20, 10));
    // To the same end as the other owner, too: it is not ours.
    assert_eq!(fenced(tables.commit(commit(10, 20)).await), (20, 10));
    let after = tables.snapshot(table).await.expect("a snapshot");
    assert_eq!(after, reloaded, "a fenced commit has no effect");
    assert!(!holds(&after, &stale.add[0]));
}

async fn one_step_out_of_place_stops_the_whole_commit(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::Events;
    tables.commit(adding(table, names, vec![step("test/all/0", 0, 5)], Vec::new())).await.expect("a commit");
    let before = tables.snapshot(table).await.expect("a snapshot");
    let steps = vec![step("test/all/1", 0, 5), step("test/all/0", 4, 6)];
    let refused = adding(table, names, steps, vec![file(table, names, 1)]);
    assert_eq!(fenced(tables.commit(refused).await), (5, 4));
    assert_eq!(tables.snapshot(table).await.expect("a snapshot"), before);
}

async fn the_same_attempt_twice_commits_once(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::DeadLetters;
    for (from, to) in [(0, 9), (9, 9)] {
        let commit = adding(table, names, vec![step("test/twice", from, to)], vec![file(table, names, 1)]);
        let version = tables.commit(commit.clone()).await.expect("a commit");
        let before = tables.snapshot(table).await.expect("a snapshot");
        assert_eq!(tables.commit(commit).await.expect("the same commit"), version);
        assert_eq!(tables.snapshot(table).await.expect("a snapshot"), before);
    }
}

async fn files_are_removed_once(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::BatchCounts;
    let [old, new, newer] = [file(table, names, 2), file(table, names, 2), file(table, names, 2)];
    let first = adding(table, names, vec![step("test/remove", 0, 1)], vec![old.clone()]);
    tables.commit(first).await.expect("a commit");
    let replace = |from, to, gone: &DataFile, add: &DataFile| Commit {
        remove: vec![gone.clone()],
        data_change: false,
        ..adding(table, names, vec![step("test/remove", from, to)], vec![add.clone()])
    };
    tables.commit(replace(1, 2, &old, &new)).await.expect("old becomes new");
    let after = tables.snapshot(table).await.expect("a snapshot");
    assert!(holds(&after, &new) && !holds(&after, &old));
    let again = tables.commit(replace(2, 3, &old, &newer)).await;
    assert!(matches!(again, Err(TableError::Conflict { .. })), "{again:?}");
    let live = tables.commit(adding(table, names, vec![step("test/remove", 2, 3)], vec![new])).await;
    assert!(matches!(live, Err(TableError::Conflict { .. })), "{live:?}");
    assert_eq!(tables.snapshot(table).await.expect("a snapshot"), after);
}

async fn malformed_commits_are_refused(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::Events;
    let before = tables.snapshot(table).await.expect("a snapshot");
    let good = file(table, names, 1);
    let steps = || vec![step("test/malformed", 0, 1)];
    let unpartitioned = DataFile { partition: BTreeMap::new(), ..good.clone() };
    let absolute = DataFile { path: "/etc/passwd".to_owned(), ..good.clone() };
    let above = DataFile { path: "../events.parquet".to_owned(), ..good.clone() };
    for commit in [
        adding(table, names, Vec::new(), vec![good.clone()]),
        adding(table, names, [steps(), steps()].concat(), Vec::new()),
        adding(table, names, steps(), vec![good.clone(), good.clone()]),
        adding(table, names, steps(), vec![unpartitioned]),
        adding(table, names, steps(), vec![absolute]),
        adding(table, names, steps(), vec![above]),
    ] {
        let refused = tables.commit(commit).await;
        assert!(matches!(refused, Err(TableError::Unusable { .. })), "{refused:?}");
    }
    assert_eq!(tables.snapshot(table).await.expect("a snapshot"), before);
}

async fn commits_of_many_lose_nothing(tables: &dyn Tables, names: &dyn Names) {
    const COMMITTERS: i64 = 8;
    const COMMITS: i64 = 5;
    let table = Table::Imports;
    let before = tables.snapshot(table).await.expect("a snapshot");
    let committer = |who: i64| async move {
        let mut made = Vec::new();
        for at in 0..COMMITS {
            let steps = vec![step(&format!("test/many/{who}"), at, at + 1)];
            let commit = adding(table, names, steps, vec![file(table, names, 1)]);
            made.push((tables.commit(commit.clone()).await.expect("a commit"), commit));
        }
        made
    };
    let made: Vec<(u64, Commit)> = join_all((0..COMMITTERS).map(committer)).await.into_iter().flatten().collect();
    let after = tables.snapshot(table).await.expect("a snapshot");
    let mut versions: Vec<u64> = made.iter().map(|(version, _)| *version).collect();
    versions.sort_unstable();
    let expected: Vec<u64> = (1..=(COMMITTERS * COMMITS).unsigned_abs()).map(|n| before.version + n).collect();
    assert_eq!(versions, expected, "every commit makes a version of its own");
    assert!(made.iter().all(|(_, commit)| holds(&after, &commit.add[0])), "no file is lost");
    assert!((0..COMMITTERS).all(|who| after.transaction(&format!("test/many/{who}")) == COMMITS));
}

async fn of_many_with_the_same_step_one_wins(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::StreamCounts;
    let before = tables.snapshot(table).await.expect("a snapshot").files.len();
    let rival =
        |to: i64| tables.commit(adding(table, names, vec![step("test/rivals", 0, to)], vec![file(table, names, 1)]));
    let results = join_all((1..=8).map(rival)).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(
        results.into_iter().filter(Result::is_err).map(fenced).filter(|(_, expected)| *expected == 0).count(),
        7
    );
    assert_eq!(tables.snapshot(table).await.expect("a snapshot").files.len(), before + 1);
}

/// Files of older versions need not exist in this suite, so only such are looked at whose files are still live.
async fn older_versions_can_be_read(tables: &dyn Tables, names: &dyn Names) {
    for table in Table::ALL {
        let before = tables.snapshot(table).await.expect("a snapshot");
        let mut seen = Vec::new();
        for at in 0..3 {
            let steps = vec![step("test/older", at, at + 1)];
            tables.commit(adding(table, names, steps, vec![file(table, names, 1)])).await.expect("a commit");
            seen.push(tables.snapshot(table).await.expect("a snapshot"));
        }
        for snapshot in std::iter::once(&before).chain(&seen) {
            let again = tables.snapshot_at(table, snapshot.version).await.expect("an older version");
            assert_eq!(&again, snapshot, "{}", table.name());
            let told = tables.entry(table, snapshot.version).await.expect("an entry");
            assert_eq!(told.map(|told| told.version), Some(snapshot.version), "{}", table.name());
        }
        assert_eq!(tables.snapshot(table).await.expect("a snapshot").version, before.version + 3, "it stays as it is");
    }
}

async fn versions_that_never_were_are_refused(tables: &dyn Tables) {
    let table = Table::Events;
    let newest = tables.version(table).await.expect("a version");
    assert!(tables.entry(table, newest + 1).await.expect("an entry").is_none());
    let refused = tables.snapshot_at(table, newest + 1).await;
    match refused {
        Err(TableError::NoVersion { version, oldest, newest: told, .. }) => {
            assert_eq!((version, told), (newest + 1, newest));
            assert!(oldest <= newest);
        }
        other => panic!("{other:?}"),
    }
}

async fn a_history_is_told_from_the_newest_back(tables: &dyn Tables, names: &dyn Names) {
    let table = Table::DeadLetters;
    let commits: Vec<Commit> = (0..3)
        .map(|at| adding(table, names, vec![step("test/history", at, at + 1)], vec![file(table, names, 1)]))
        .collect();
    for commit in &commits {
        tables.commit(commit.clone()).await.expect("a commit");
    }
    let newest = tables.version(table).await.expect("a version");
    let told = tables.history(table, 3).await.expect("a history");
    let expected: Vec<u64> = (newest - 2..=newest).rev().collect();
    assert_eq!(told.iter().map(|version| version.version).collect::<Vec<_>>(), expected);
    for ((version, commit), end) in told.iter().zip(commits.iter().rev()).zip([3, 2, 1]) {
        assert_eq!((version.token, &version.operation), (Some(commit.token), &commit.operation));
        assert_eq!(version.transactions, BTreeMap::from([("test/history".to_owned(), end)]));
    }
    assert!(told.windows(2).all(|pair| pair[0].committed_at >= pair[1].committed_at), "{told:?}");
    let all = tables.history(table, usize::MAX).await.expect("a history");
    let first = all.last().expect("the creation");
    assert_eq!((all.len() as u64, first.version, first.token), (newest + 1, 0, None));
    assert!(tables.history(table, 0).await.expect("a history").is_empty());
}

async fn vacuum_keeps_what_is_live(tables: &dyn Tables, names: &dyn Names) {
    for table in Table::ALL {
        let added = file(table, names, 1);
        let commit = adding(table, names, vec![step("test/vacuum", 0, 1)], vec![added.clone()]);
        tables.commit(commit).await.expect("a commit");
        let before = tables.snapshot(table).await.expect("a snapshot");
        tables.vacuum(table, 7 * MICROS_PER_DAY).await.expect("a vacuum");
        let after = tables.snapshot(table).await.expect("a snapshot");
        assert_eq!(after.files, before.files);
        assert_eq!(after.transactions, before.transactions);
        assert!(after.version >= before.version && holds(&after, &added));
    }
}
