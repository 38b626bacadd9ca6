//! Laws over random events: any split into runs comes to the same, and so does any number of threads.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use proptest::prelude::*;
use reckon_data::jobs::RunRequest;
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Table};
use reckon_tables::read::read_file;

use super::oracle::{Kept, Row};
use super::world::{DAY, MINUTE, World};
use crate::recompute::plan::of_granularity;
use crate::runs::BatchRuns;

const KEPT: Kept = Kept::COUNTRY_AND_VALUES;

fn row() -> impl Strategy<Value = Row> {
    let id = prop_oneof![3 => 0..30_u32, 1 => 0..1_000_u32];
    let time = (prop::sample::select(vec![-400, -30, -1, 0]), 0..1_440_i64);
    let value = prop::option::of(-3_000_000..3_000_000_i64);
    let country = prop::option::of(prop::sample::select(vec!["US", "DE"]));
    (id, 0..12_u32, any::<bool>(), time, value, country).prop_map(|(id, entity, like, time, value, country)| {
        let mut row = Row {
            kind: if like { "like" } else { "view" },
            value,
            country,
            ..Row::view(&format!("e{id}"), &format!("v{entity}"), DAY + time.0 * MICROS_PER_DAY + time.1 * MINUTE)
        };
        // Hashes that collide; equal keys have equal ones all the same.
        if id % 7 == 0 {
            row.hash = Some(row.key().hash() % 3);
        }
        row
    })
}

/// Records of one run each, with the partition each goes to.
fn runs() -> impl Strategy<Value = Vec<Vec<(u32, Vec<Row>)>>> {
    let record = (0..3_u32, prop::collection::vec(row(), 0..40));
    prop::collection::vec(prop::collection::vec(record, 0..6), 1..4)
}

async fn split_over_runs(runs: Vec<Vec<(u32, Vec<Row>)>>) -> Result<(), TestCaseError> {
    let (split, whole) = (World::new(3), World::new(3));
    let mut all = Vec::new();
    for records in runs {
        for (partition, rows) in records {
            all.extend(split.add(partition, rows.clone()).await);
            whole.add(partition, rows).await;
        }
        let report = split.run().await;
        prop_assert_eq!(split.counts().await, KEPT.count(&all), "{:?}", report);
    }
    whole.run_full().await;
    prop_assert_eq!(whole.counts().await, KEPT.count(&all));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_split_over_runs_comes_to_the_same(runs in runs()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(split_over_runs(runs))?;
    }
}

/// More than a chunk, so that runs are spilled and the merge is shared out.
pub(super) fn many() -> Vec<Row> {
    let row = |n: u64| {
        // A multiplier that scatters, to have no order in the log.
        let spread = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let entity = spread % 5_000;
        let before = ["A", "_reckon/", "v"][entity.checked_ilog10().unwrap_or(0).min(2) as usize];
        Row {
            country: [Some("US"), Some("DE"), None][(spread % 3) as usize],
            value: spread.is_multiple_of(5).then_some((spread % 1_000) as i64),
            ..Row::view(
                &format!("{}", n % 290_000),
                &format!("{before}{entity}"),
                DAY + (n % 290_000 % 1_440) as i64 * MINUTE,
            )
        }
    };
    (0..300_000).map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_threads_writes_the_same_rows() {
    let mut results = Vec::new();
    for threads in [1, 4] {
        let world = World::with(2, Default::default(), 70_000);
        let rows = many();
        let mut all = world.add(0, rows[..200_000].to_vec()).await;
        all.extend(world.add(1, rows[200_000..].to_vec()).await);
        let recompute = world.recompute(threads);
        let report = recompute.run(&RunRequest::default(), uuid::Uuid::nil(), &|_| {}).await.unwrap();
        assert_eq!(report.events, 300_000);
        let counts = world.counts().await;
        assert!(counts == KEPT.count(&all), "{threads} threads");
        results.push(counts);
        for granularity in Granularity::ALL {
            let files = in_order(&world, granularity).await;
            let (reserved, others): (Vec<_>, Vec<_>) =
                files.iter().partition(|(first, _)| first.starts_with("_reckon/"));
            assert!(reserved.iter().all(|(_, last)| last.starts_with("_reckon/")), "{reserved:?}");
            assert!(others.iter().all(|(first, last)| last.as_str() < "_reckon/" || first.as_str() > "_reckon/"));
            assert_eq!(reserved.len(), 1);
            let expected = if threads == 1 { others.len() == 2 } else { others.len() > 2 };
            assert!(expected, "{threads} threads wrote {others:?}");
        }
    }
    assert!(results[0] == results[1]);
}

type Place = (String, String, i64, Option<String>);

/// Rows lie in order over all files of a granularity: sorted in each, and no two files overlap. Returns the first and
/// the last entity of each.
async fn in_order(world: &World, granularity: Granularity) -> Vec<(String, String)> {
    let files = of_granularity(&world.snapshot(Table::BatchCounts).await.files, granularity);
    let mut ends: Vec<(Place, Place)> = Vec::new();
    for file in &files {
        let places = places(world, file).await;
        assert_eq!(places.len() as u64, file.rows);
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{granularity:?}: rows are out of order");
        let (first, last) = (places[0].clone(), places[places.len() - 1].clone());
        assert_eq!((file.min["entity_id"].as_str(), file.max["entity_id"].as_str()), (Some(&*first.0), Some(&*last.0)));
        ends.push((first, last));
    }
    ends.sort();
    // Not even an entity lies in two files.
    assert!(ends.windows(2).all(|pair| pair[0].1.0 < pair[1].0.0), "{granularity:?}: files overlap");
    ends.into_iter().map(|(first, last)| (first.0, last.0)).collect()
}

async fn places(world: &World, file: &DataFile) -> Vec<Place> {
    let mut places = Vec::new();
    for batch in read_file(Arc::clone(&world.archive.store), Table::BatchCounts, file).await.unwrap() {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let text = |name: &str| column(name).as_string::<i32>().clone();
        let (entity, kind, country) = (text("entity_id"), text("event_type"), text("country"));
        let minutes = column("minute").as_primitive::<TimestampMicrosecondType>();
        places.extend((0..batch.num_rows()).map(|row| {
            let country = country.is_valid(row).then(|| country.value(row).to_owned());
            (entity.value(row).to_owned(), kind.value(row).to_owned(), minutes.value(row), country)
        }));
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_jobs_one_at_a_time() {
    use reckon_data::jobs::{JobError, Jobs, RunState};
    let world = World::new(1);
    world.add(0, vec![Row::view("a", "v", DAY)]).await;
    let after = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = Arc::clone(&after);
    let hook: crate::runs::AfterRun = Arc::new(move |report| {
        seen.fetch_add(report.events, std::sync::atomic::Ordering::SeqCst);
        Box::pin(async {})
    });
    let runs = BatchRuns::new(world.recompute(1), world.clock.clone(), world.archive.names.clone(), None, Some(hook));
    let started = runs.start(RunRequest::default()).await.unwrap();
    assert!(matches!(runs.start(RunRequest::default()).await, Err(JobError::AlreadyRunning(id)) if id == started.id));
    assert!(runs.is_running());
    while runs.get(started.id).unwrap().state == RunState::Running {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(!runs.is_running());
    let status = runs.get(started.id).unwrap();
    assert_eq!(status.state, RunState::Succeeded, "{status:?}");
    assert_eq!(status.report.unwrap()["events"], 1);
    assert_eq!(after.load(std::sync::atomic::Ordering::SeqCst), 1);
    *world.archive.broken.lock() = Some("no disk".to_owned());
    runs.run_to_end(&RunRequest::default(), &|_| {}).await.unwrap().unwrap_err();
    let failed = &runs.list()[0];
    assert_eq!(failed.state, RunState::Failed);
    assert!(failed.error.as_ref().unwrap().contains("no disk"));
    let bad = RunRequest { dates: vec!["soon".to_owned()], ..RunRequest::default() };
    assert!(matches!(runs.start(bad).await, Err(JobError::Invalid(_))));
    let bad = RunRequest { replace: vec!["soon".to_owned()], ..RunRequest::default() };
    assert!(matches!(runs.start(bad).await, Err(JobError::Invalid(_))));
    assert_eq!(runs.list().len(), 2);
}
