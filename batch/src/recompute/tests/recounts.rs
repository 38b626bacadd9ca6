//! What is counted: repeats, hashes, dimensions, values, times, cuts.

use reckon_data::clock::Names as _;
use reckon_data::definition::Definition;
use reckon_data::jobs::RunRequest;
use reckon_data::log::Log as _;
use reckon_data::loss::Loss;
use reckon_data::metric::Function;
use reckon_data::minute::MICROS_PER_DAY;
use reckon_data::paths::Transaction;
use reckon_data::run::Dimension;
use reckon_data::table::{Commit, Step, Table, Tables as _};

use super::oracle::{Kept, Placed, Row};
use super::world::{DAY, MINUTE, World};
use crate::recompute::{BatchError, Mode};

const KEPT: Kept = Kept::COUNTRY_AND_VALUES;

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_dropped_and_the_first_in_the_log_counts() {
    let world = World::new(3);
    let row = |id: &str, country| Row { country: Some(country), ..Row::view(id, "v1", DAY + MINUTE) };
    let mut all = world.add(2, vec![row("a", "US"), row("b", "US"), row("a", "FR")]).await;
    all.extend(world.add(0, vec![row("a", "DE"), row("c", "DE")]).await);
    // The same id far later in the day is the same key; with other contents it is dropped all the same.
    let far = Row { time: DAY + 1_000 * MINUTE, value: Some(5), ..row("c", "IT") };
    all.extend(world.add(1, vec![far, Row { kind: "like", ..row("c", "IT") }]).await);
    let report = world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!((report.events, report.duplicates), (7, 3));
    // The copy in partition 0 comes first.
    let key = ("minute", "v1".to_owned(), "view".to_owned(), DAY / MINUTE + 1, Some("DE".to_owned()), None);
    assert_eq!(world.counts().await[&key].count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_on_two_dates_are_two_events() {
    let world = World::new(1);
    let rows = vec![Row::view("a", "v", DAY - 1), Row::view("a", "v", DAY), Row::view("a", "v", DAY + 1)];
    let all = world.add(0, rows).await;
    let report = world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!(report.duplicates, 1);
    assert_eq!(report.dates.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_hashes_of_different_keys_both_count() {
    let world = World::new(2);
    let row = |id: &str, entity: &str| Row { hash: Some(42), ..Row::view(id, entity, DAY + MINUTE) };
    let mut all = world.add(0, vec![row("a", "v"), row("b", "v"), row("a", "w"), row("b", "v")]).await;
    all.extend(world.add(1, vec![Row { kind: "like", ..row("a", "v") }, row("a", "v")]).await);
    let report = world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!(report.duplicates, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_values_and_times_before_1970_are_counted_exactly() {
    let world = World::new(1);
    let early = -10 * MICROS_PER_DAY;
    let row = |id: &str, time, value, country| Row { value, country, ..Row::view(id, "v", early + time) };
    let most = reckon_data::decimal::VALUE_LIMIT - 1;
    let rows = vec![
        row("a", 0, Some(most), Some("US")),
        row("b", 1, Some(most), Some("US")),
        row("c", MINUTE - 1, Some(-most), None),
        row("d", MINUTE, None, None),
        row("e", -1, Some(1), Some("")),
        row("f", 61 * MINUTE, Some(0), Some("ü")),
    ];
    let all = world.add(0, rows).await;
    world.run().await;
    let counts = world.counts().await;
    assert_eq!(counts, KEPT.count(&all));
    let day = ("day", "v".to_owned(), "view".to_owned(), early / MINUTE, Some("US".to_owned()), None);
    assert_eq!(counts[&day].value, Some((2, 2 * i128::from(most), most.into(), most.into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn dimensions_metrics_and_sketches_follow_the_definition() {
    let kept = Kept { users_as_dimension: true, values: false, sketches: true };
    let definition = Definition {
        dimensions: vec![Dimension::Country, Dimension::UserId],
        metrics: vec![Function::Count, Function::ApproxDistinct],
        ..Definition::default()
    };
    let world = World::with(2, definition, usize::MAX);
    let row =
        |id: u32, user, value| Row { user, value, ..Row::view(&id.to_string(), "v", DAY + i64::from(id) * MINUTE) };
    let rows = (0..200).map(|id| row(id % 150, [Some("u1"), Some("u2"), None][id as usize % 3], Some(3))).collect();
    let all = world.add(1, rows).await;
    world.run().await;
    assert_eq!(world.counts().await, kept.count(&all));
    // Without any dimension.
    let bare = Definition { dimensions: vec![], metrics: vec![Function::Count], ..Definition::default() };
    let world = World::with(1, bare, usize::MAX);
    let rows = vec![Row { country: Some("US"), ..Row::view("a", "v", DAY) }, Row::view("b", "v", DAY)];
    world.add(0, rows).await;
    world.run().await;
    let counts = world.counts().await;
    assert_eq!(counts.len(), 3);
    assert!(counts.iter().all(|(key, count)| key.4.is_none() && count.count == 2 && count.value.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_above_the_cut_wait_for_the_next_run() {
    let world = World::new(2);
    let mut all = world.add(0, vec![Row::view("a", "v", DAY)]).await;
    let late = vec![Row::view("b", "v", DAY), Row::view("a", "v", DAY), Row::view("x", "v", DAY - 1)];
    world.archive.late.lock().push((0, late.clone()));
    let report = world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!((report.events, report.coverage_before, report.cuts), (1, vec![0, 0], vec![1, 0]));
    let report = world.run().await;
    all.extend((0..).zip(late).map(|(index, row)| Placed { partition: 0, offset: 2, index, row }));
    assert_eq!(world.counts().await, KEPT.count(&all));
    assert_eq!((report.events, report.duplicates, report.coverage_before), (4, 1, vec![1, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_new_still_moves_the_coverage() {
    let world = World::new(2);
    let all = world.add(1, vec![Row::view("a", "v", DAY)]).await;
    let first = world.run().await;
    let second = world.run().await;
    assert!(second.dates.is_empty());
    assert_eq!(second.coverage_before, first.cuts);
    assert_eq!(second.version, first.version + 1);
    assert!(second.cuts.iter().zip(&first.cuts).all(|(new, old)| new > old));
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_dies_after_its_cut_harms_nothing() {
    let world = World::new(2);
    let mut all = world.add(0, vec![Row::view("a", "v", DAY)]).await;
    *world.archive.broken.lock() = Some("no disk".to_owned());
    let error = world.try_run(&RunRequest::default()).await.unwrap_err();
    assert!(matches!(&error, BatchError::Follower(reason) if reason == "no disk"), "{error}");
    assert_eq!(world.snapshot(Table::BatchCounts).await.version, 0);
    all.extend(world.add(1, vec![Row::view("a", "v", DAY), Row::view("b", "v", DAY)]).await);
    world.run().await;
    assert_eq!(world.counts().await, KEPT.count(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_that_lags_fails_the_run() {
    #[derive(Debug)]
    struct Idle;
    #[async_trait::async_trait]
    impl reckon_data::jobs::Follower for Idle {
        async fn reach(&self, _offsets: &[u64]) -> Result<(), String> {
            Ok(())
        }
        fn committed(&self) -> Vec<u64> {
            Vec::new()
        }
    }
    let world = World::new(1);
    world.add(0, vec![Row::view("a", "v", DAY)]).await;
    let mut recompute = world.recompute(1);
    recompute.parts.followers = vec![std::sync::Arc::new(Idle)];
    let error = recompute.run(&RunRequest::default(), uuid::Uuid::nil(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BatchError::NotArchived { partition: 0, archived: 0, cut: 1 }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_date_is_refused_before_anything_happens() {
    let world = World::new(1);
    let request = RunRequest { dates: vec!["2024-02-30".to_owned()], ..RunRequest::default() };
    assert!(matches!(world.try_run(&request).await, Err(BatchError::Invalid(_))));
    let all = world.add(0, vec![Row::view("a", "v", DAY)]).await;
    world.run().await;
    // A date named is recounted though nothing is new.
    let request = RunRequest { dates: vec!["2024-01-10".to_owned()], ..RunRequest::default() };
    let report = world.try_run(&request).await.unwrap();
    assert_eq!(report.dates.iter().map(|date| date.mode).collect::<Vec<_>>(), [Mode::Full]);
    assert_eq!(world.counts().await, KEPT.count(&all));
}

/// what had gone before it was archived is told to the counts in the very commit that lacks it.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_gone_before_it_was_archived_is_carried_over() {
    let world = World::new(2);
    world.add(0, vec![Row::view("a", "v", DAY)]).await;
    world.run().await;
    let log = world.archive.log.identity();
    for (records, to) in [(3, 9), (5, 20)] {
        let before = world.snapshot(Table::Events).await;
        let step = |transaction: Transaction, to| {
            let name = transaction.to_string();
            Step { from: before.transaction(&name), name, to }
        };
        let commit = Commit {
            table: Table::Events,
            steps: vec![step(Transaction::Lost(log, 1), records), step(Transaction::LostTo(log, 1), to)],
            add: Vec::new(),
            remove: Vec::new(),
            data_change: true,
            token: world.archive.names.fresh(),
            operation: "test".to_owned(),
        };
        world.archive.tables.commit(commit).await.unwrap();
        world.run().await;
        let counts = world.snapshot(Table::BatchCounts).await;
        let expected = Loss { partition: 1, records: records as u64, to: to as u64 };
        assert_eq!(Loss::all(&counts).into_values().collect::<Vec<_>>(), [expected]);
        assert_eq!(Loss::accepted(&counts, log, 1), 0, "nobody has");
    }
}
