//! Whatever an audit makes good, what the canary has seen stands in the report that it ends with.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use reckon_data::clock::{ManualClock, SeededNames};
use reckon_data::definition::Definition;
use reckon_data::jobs::{Audits as _, RunState};
use reckon_data::paths::Transaction;
use reckon_data::table::{Commit, Snapshot, Step, Table, TableError, Tables};
use reckon_tables::MemoryTables;

use super::*;
use crate::ledger::{LedgerOptions, LedgerParts};
use crate::repair::RebuiltRaw;
use crate::report::testing::empty;
use crate::runs::AuditRuns;

const LOG: Uuid = Uuid::from_u128(1);
const RUN: Uuid = Uuid::from_u128(2);
/// 2013-02-09T08:53:20Z
const NOW: i64 = 1_360_400_000_000_000;

/// A canary that has seen something, and sees nothing more.
#[derive(Debug)]
struct Canary(Mutex<Vec<Finding>>);

impl Findings for Canary {
    fn untold(&self) -> Untold {
        let findings = self.0.lock().clone();
        Untold { gone: 0, mark: findings.len() as u64, findings }
    }

    fn told(&self, mark: u64) {
        self.0.lock().drain(..mark as usize);
    }
}

/// Tables that can be read until somebody breaks them.
#[derive(Debug)]
struct Breakable {
    tables: Arc<MemoryTables>,
    is_broken: AtomicBool,
}

#[async_trait]
impl Tables for Breakable {
    async fn snapshot(&self, table: Table) -> Result<Snapshot, TableError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(TableError::Storage { table: table.name(), reason: "the connection broke".to_owned() });
        }
        self.tables.snapshot(table).await
    }

    async fn version(&self, table: Table) -> Result<u64, TableError> {
        self.tables.version(table).await
    }

    async fn commit(&self, commit: Commit) -> Result<u64, TableError> {
        self.tables.commit(commit).await
    }

    async fn vacuum(&self, table: Table, retention_micros: i64) -> Result<u64, TableError> {
        self.tables.vacuum(table, retention_micros).await
    }
}

/// Takes coverage back to where it may be, and perhaps breaks the tables.
#[derive(Debug)]
struct Mender {
    tables: Arc<Breakable>,
    breaks: bool,
}

#[async_trait]
impl Repairs for Mender {
    async fn rebuild(&self, _: &str, _: u32) -> Result<RebuiltRaw, String> {
        Ok(RebuiltRaw::default())
    }

    async fn recount(&self, _: &[String]) -> Result<(), String> {
        cover(&self.tables, 5, 0).await;
        self.tables.is_broken.store(self.breaks, Ordering::SeqCst);
        Ok(())
    }
}

/// Moves coverage. Nothing is archived: anything but 0 is too much.
async fn cover(tables: &Breakable, from: i64, to: i64) {
    let commit = Commit {
        table: Table::BatchCounts,
        steps: vec![Step { name: Transaction::Batch(LOG, 0).to_string(), from, to }],
        add: Vec::new(),
        remove: Vec::new(),
        data_change: false,
        token: Uuid::from_u64_pair(3, to.unsigned_abs()),
        operation: "test".to_owned(),
    };
    tables.commit(commit).await.unwrap();
}

struct World {
    auditor: Auditor,
    canary: Arc<Canary>,
    tables: Arc<Breakable>,
}

impl World {
    /// No events, and a canary that has seen two things.
    fn new(breaks: bool) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let memory = Arc::new(MemoryTables::new(clock.clone()));
        let tables = Arc::new(Breakable { tables: memory.clone(), is_broken: AtomicBool::new(false) });
        let (store, names) = (Arc::new(InMemory::new()), Arc::new(SeededNames::new(4)));
        let ledger = Ledger::new(LedgerParts {
            tables: tables.clone(),
            store: store.clone(),
            log: LOG,
            partitions: 1,
            reader: None,
            answers: None,
            definition: Arc::new(Definition::default()),
            clock,
            options: LedgerOptions {
                window_minutes: 10,
                memory: 1 << 20,
                served_entities: 0,
                configuration: String::new(),
                code_version: String::new(),
            },
        });
        let seen = Finding::new(Class::CanaryDiffers, "served", "two of ten".to_owned());
        let canary = Arc::new(Canary(Mutex::new(vec![seen; 2])));
        let auditor = Auditor {
            ledger,
            store: AuditStore { tables: memory, store, names: names.clone() },
            canary: Some(canary.clone()),
            repairs: Some(Arc::new(Mender { tables: tables.clone(), breaks })),
            names,
        };
        Self { auditor, canary, tables }
    }

    /// An audit of a date's counts, with repair.
    async fn repair(&self) -> Result<Report, AuditFailure> {
        let request = AuditRequest { dates: vec!["2013-02-08".to_owned()], repair: true };
        Box::pin(self.auditor.run(&request, RUN, &|_| {})).await
    }

    /// The errors of each stored report.
    async fn stored(&self) -> Vec<u64> {
        self.auditor.store.trend(9, None).await.unwrap().iter().map(|run| run.errors).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_canary_has_seen_stands_in_the_report_of_after() {
    let world = World::new(false);
    cover(&world.tables, 0, 5).await;
    let after = world.repair().await.unwrap();
    assert_eq!((after.run_id, after.verdict, after.errors()), (RUN, Verdict::Findings, 2), "{:?}", after.findings);
    let done = after.repair.unwrap();
    assert_eq!((done.errors_before, done.errors_after, done.left.len()), (1, 0, 0), "{done:?}");
    let before = world.auditor.store.get(done.before.unwrap()).await.unwrap().unwrap();
    assert_eq!((before.errors(), before.findings[0].class), (1, Class::StaleCoverage));
    assert_eq!(world.stored().await, [1, 2]);
    assert!(world.canary.0.lock().is_empty(), "a stored report holds them");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_canary_has_seen_is_nothing_to_be_made_good() {
    let world = World::new(false);
    let report = world.repair().await.unwrap();
    assert_eq!((report.verdict, report.errors(), report.repair), (Verdict::Findings, 2, None));
    assert_eq!(world.stored().await, [2], "it is audited once");
    assert!(world.canary.0.lock().is_empty(), "a stored report holds them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_nobody_can_audit_tells_of_the_canary_once() {
    let world = World::new(true);
    cover(&world.tables, 0, 5).await;
    world.repair().await.unwrap_err();
    let last = world.auditor.store.latest().await.unwrap().unwrap();
    assert_eq!((last.run_id, last.errors()), (RUN, 3), "{:?}", last.findings);
    assert_eq!(world.stored().await, [1, 3]);
    assert!(world.canary.0.lock().is_empty(), "a stored report holds them");
}

#[test]
fn what_the_canary_has_seen_stands_in_a_report_whatever_else_is_wrong() {
    let mut report = empty();
    let finding = |class, what: &str| Finding::new(class, "a table", what.to_owned());
    let wrong: Vec<Finding> =
        [Class::ReportChanged, Class::Lost].iter().flat_map(|class| vec![finding(*class, "wrong"); 900]).collect();
    add(&mut report, wrong);
    let findings = vec![finding(Class::CanaryDiffers, "first"), finding(Class::CanaryDiffers, "last")];
    add_seen(&mut report, Untold { findings, gone: 70, mark: 72 });
    let held = |class: Class| report.findings.iter().filter(|finding| finding.class == class).count();
    assert_eq!([Class::ReportChanged, Class::Lost, Class::CanaryDiffers].map(held), [900, 98, 2]);
    assert_eq!(report.findings_total[Class::CanaryDiffers.name()], 72, "what is not kept is counted");
    assert_eq!((report.verdict, report.errors()), (Verdict::Findings, 1_872));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_how_audits_ended_and_not_all_that_they_found() {
    let auditor = World::new(false).auditor;
    let runs = AuditRuns::new(auditor, Arc::new(ManualClock::at(NOW)), Arc::new(SeededNames::new(5)));
    let request = AuditRequest { dates: vec!["2013-02-08".to_owned()], repair: true };
    let report = Box::pin(runs.run_to_end(&request, &|_| {})).await.unwrap().unwrap();
    let listed = runs.list();
    let [one] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((one.id, one.state, &one.dates, one.repair), (report.run_id, RunState::Succeeded, &request.dates, true));
    assert_eq!((one.verdict.as_deref(), one.errors, one.expected), (Some("findings"), Some(2), Some(0)));
    assert!(one.finished_at.is_some() && serde_json::to_value(one).unwrap()["report"].is_null());
    let whole = runs.get(report.run_id).unwrap().report.unwrap();
    assert_eq!(whole["findings"].as_array().map(Vec::len), Some(2));
}
