//! Both implementations keep the contract, and what is reopened is what was.

use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;
use reckon_data::clock::{ManualClock, SeededNames, SystemClock};
use reckon_data::table::{Commit, DataFile, Table, TableError, Tables};
use serde_json::json;

use super::{NAMES, again, local};
use crate::conformance::{adding, conformance, file, step};
use crate::{DeltaTables, MemoryTables, Storage};

#[tokio::test]
async fn memory_conforms() {
    let tables = MemoryTables::new(Arc::new(ManualClock::at(0)));
    conformance(&tables, &SeededNames::new(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delta_in_a_folder_conforms() {
    let (_folder, tables) = local();
    conformance(&tables, &NAMES).await;
    // And once more on what is there: transactions of the suite stand elsewhere now.
    assert!(tables.snapshot(Table::Events).await.unwrap().transaction("test/whole/0") == 10);
}

#[tokio::test]
async fn delta_in_any_store_conforms_on_a_runtime_of_one_thread() {
    let storage = Storage::in_store(Arc::new(InMemory::new()));
    conformance(&DeltaTables::new(storage, Arc::new(SystemClock)).unwrap(), &NAMES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_opened_from_checkpoint_and_log_is_the_one_that_was_written() {
    let (folder, tables) = local();
    for table in Table::ALL {
        let mut live: Vec<DataFile> = Vec::new();
        for at in 0..12_i64 {
            let mut added = file(table, &NAMES, at.unsigned_abs() + 1);
            if table == Table::Events {
                added.min.insert("event_time".into(), json!(1_360_358_940_000_001_i64 + at));
                added.min.insert("entity_id".into(), json!("käse \"%20\" #1"));
            }
            let steps = vec![step("a/0", at, at + 1), step(&format!("b/{}", at % 5), at / 5, at / 5 + 1)];
            let mut commit = adding(table, &NAMES, steps, vec![added.clone()]);
            if at % 4 == 3 {
                commit.remove = live.drain(..2).collect();
            }
            tables.commit(commit).await.unwrap();
            live.push(
                tables.snapshot(table).await.unwrap().files.iter().find(|f| f.path == added.path).unwrap().clone(),
            );
            if at == 6 {
                assert_eq!(tables.checkpoint(table).await.unwrap(), 7);
            }
        }
        let followed = tables.snapshot(table).await.unwrap();
        assert_eq!(again(&folder).snapshot(table).await.unwrap(), followed, "{}", table.name());
        assert_eq!(tables.checkpoint(table).await.unwrap(), 12);
        assert_eq!(again(&folder).snapshot(table).await.unwrap(), followed, "{}", table.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_commit_beside_each_other_lose_nothing() {
    const EACH: i64 = 15;
    let (folder, tables) = local();
    let mut tasks = Vec::new();
    for process in 0..4 {
        let tables = again(&folder);
        tasks.push(tokio::spawn(async move {
            for at in 0..EACH {
                let steps = vec![step(&format!("stream/{process}"), at, at + 1)];
                let add = vec![file(Table::StreamCounts, &NAMES, 1)];
                tables.commit(adding(Table::StreamCounts, &NAMES, steps, add)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let end = tables.snapshot(Table::StreamCounts).await.unwrap();
    assert_eq!(end.version, 4 * EACH.unsigned_abs());
    assert_eq!(end.files.len(), 4 * usize::try_from(EACH).unwrap());
    assert!((0..4).all(|process| end.transaction(&format!("stream/{process}")) == EACH));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rivals_for_one_step_never_both_win() {
    let (folder, tables) = local();
    for round in 0..10 {
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let tables = again(&folder);
            tasks.push(tokio::spawn(async move {
                let add = vec![file(Table::StreamCounts, &NAMES, 1)];
                tables.commit(adding(Table::StreamCounts, &NAMES, vec![step("stream/0", round, round + 1)], add)).await
            }));
        }
        let mut won = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => won += 1,
                Err(TableError::Fenced { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(tables.snapshot(Table::StreamCounts).await.unwrap().files.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_created_once_however_many_ask_for_it() {
    let (folder, first) = local();
    let openers: Vec<DeltaTables> = (0..6).map(|_| again(&folder)).collect();
    let found = futures::future::join_all(openers.iter().map(|tables| tables.snapshot(Table::Imports))).await;
    for snapshot in found {
        assert_eq!(snapshot.unwrap().version, 0);
    }
    assert_eq!(first.version(Table::Imports).await.unwrap(), 0);
}

/// One commit of a random history: which transaction, from how far off, and which files go.
fn history() -> impl Strategy<Value = Vec<(u8, i64, bool, u8)>> {
    proptest::collection::vec((0..3_u8, -1..=1_i64, any::<bool>(), 0..6_u8), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// The model and Delta Lake agree on every verdict and on every version.
    #[test]
    fn the_model_and_delta_agree(history in history()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let model = MemoryTables::new(Arc::new(ManualClock::at(0)));
            let storage = Storage::in_store(Arc::new(InMemory::new()));
            let delta = DeltaTables::new(storage, Arc::new(ManualClock::at(0))).unwrap();
            let names = SeededNames::new(7);
            let table = Table::StreamCounts;
            let mut known: Vec<DataFile> = Vec::new();
            for (who, off, add, gone) in history {
                let name = format!("stream/{who}");
                let from = model.snapshot(table).await.unwrap().transaction(&name) + off;
                let add: Vec<DataFile> = add.then(|| file(table, &names, 1)).into_iter().collect();
                let remove = known.get(usize::from(gone)).cloned().into_iter().collect();
                known.extend(add.iter().cloned());
                let commit = Commit { remove, ..adding(table, &names, vec![step(&name, from, from + 1)], add) };
                let (one, other) = (model.commit(commit.clone()).await, delta.commit(commit).await);
                assert_eq!(format!("{one:?}"), format!("{other:?}"));
                assert_eq!(model.snapshot(table).await.unwrap(), delta.snapshot(table).await.unwrap());
            }
        });
    }
}
