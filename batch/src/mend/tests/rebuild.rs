//! Raw events of a date and partition, made anew whatever had become of them.

use object_store::ObjectStoreExt as _;
use reckon_data::minute::parse_date;

use super::*;
use crate::mend::rebuild::{Bounds, Plan};

/// The date and partition of a file.
fn meant(file: &DataFile) -> (i32, u32) {
    let date = parse_date(file.partition["event_date"].as_deref().unwrap()).unwrap();
    (date, u32::try_from(file.min_i64("log_partition").unwrap()).unwrap())
}

impl World {
    /// Changes the rows of a file of raw events.
    async fn falsify(&self, file: &DataFile, name: &str, change: impl Fn(&RecordBatch) -> Vec<RecordBatch>) {
        let batches = read_file(Arc::clone(&self.store), Table::Events, file).await.unwrap();
        let rows = concat_batches(&file_schema(Table::Events), &batches).unwrap();
        let changed = self.put(file, name, &change(&rows)).await;
        self.exchange(vec![changed], vec![file.clone()]).await;
    }

    /// Files of raw events of a date and partition, in the order of the log.
    async fn files_of(&self, of: (i32, u32)) -> Vec<DataFile> {
        let mut files = self.files(Table::Events).await;
        files.retain(|file| meant(file) == of);
        files.sort_by_key(|file| file.min_i64("log_offset"));
        files
    }
}

fn without_first(rows: &RecordBatch) -> Vec<RecordBatch> {
    vec![rows.slice(1, rows.num_rows() - 1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_lost_or_doubled_is_there_once_again() {
    for copies in [0, 2] {
        let world = World::filled().await;
        let (before, files) = (world.rows(Table::Events).await, world.files(Table::Events).await);
        let of = meant(&files[1]);
        let change = |rows: &RecordBatch| {
            // A file has as many rows as were there when the archiver's time was over.
            let at = rows.num_rows() / 2;
            let mut parts = vec![rows.slice(0, at), rows.slice(at + 1, rows.num_rows() - at - 1)];
            parts.extend((0..copies).map(|_| rows.slice(at, 1)));
            parts
        };
        world.falsify(&files[1], "false", change).await;
        let rebuilt = world.mender(1 << 20).rebuild(of.0, of.1).await.unwrap();
        assert_eq!(world.rows(Table::Events).await, before);
        assert_eq!(rebuilt.rows_after + copies, rebuilt.rows_before + 1);
        assert_eq!((rebuilt.from, rebuilt.to, rebuilt.kept.len()), (0, 16, 0));
        // Only files of that date and partition were exchanged, and all of those.
        let after = world.files(Table::Events).await;
        assert!(files.iter().all(|file| after.contains(file) != (meant(file) == of)));
        let paths: Vec<String> = world.files_of(of).await.into_iter().map(|file| file.path).collect();
        assert_eq!(rebuilt.added, paths);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_replaced_unread() {
    let world = World::filled().await;
    let (before, files) = (world.rows(Table::Events).await, world.files(Table::Events).await);
    world.store.delete(&Storage::path(Table::Events, &files[0].path)).await.unwrap();
    let (date, partition) = meant(&files[0]);
    let rebuilt = world.mender(1 << 20).rebuild(date, partition).await.unwrap();
    assert!(rebuilt.removed.contains(&files[0].path));
    assert_eq!(rebuilt.rows_after, rebuilt.rows_before);
    assert_eq!(world.rows(Table::Events).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_table_no_longer_knows_are_made_again() {
    let world = World::filled().await;
    let before = world.rows(Table::Events).await;
    let of = meant(&world.files(Table::Events).await[0]);
    for gone in [1, usize::MAX] {
        let gone: Vec<DataFile> = world.files_of(of).await.into_iter().take(gone).collect();
        world.exchange(Vec::new(), gone).await;
        assert!(world.rows(Table::Events).await.len() < before.len());
        world.mender(1).rebuild(of.0, of.1).await.unwrap();
        assert_eq!(world.rows(Table::Events).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_no_longer_holds_stays_as_it_is_and_the_rest_is_made_anew() {
    let world = World::filled().await;
    let before = world.rows(Table::Events).await;
    let of = meant(&world.files(Table::Events).await[0]);
    let files = world.files_of(of).await;
    let [first, .., last] = &files[..] else { panic!("{files:?}") };
    world.falsify(first, "first", without_first).await;
    world.falsify(last, "last", without_first).await;
    let lost: Vec<Place> = {
        let left = world.rows(Table::Events).await;
        before.keys().filter(|place| !left.contains_key(*place)).copied().collect()
    };
    assert_eq!(lost.len(), 2);
    let files = world.files_of(of).await;
    world.log.trim(of.1, 6).await.unwrap();
    let rebuilt = world.mender(1 << 20).rebuild(of.0, of.1).await.unwrap();
    let kept: Vec<&DataFile> = files.iter().filter(|file| file.min_i64("log_offset") < Some(6)).collect();
    let end = kept.iter().filter_map(|file| file.max_i64("log_offset")).max().unwrap() as u64 + 1;
    assert_eq!((rebuilt.from, rebuilt.to), (end.max(6), 16));
    let said: Vec<Kept> = kept.iter().map(|file| Kept { file: file.path.clone(), why: Why::Gone }).collect();
    assert_eq!(rebuilt.kept, said);
    let after = world.files(Table::Events).await;
    assert!(kept.iter().all(|file| after.contains(file)));
    // Of the two events the later one is there again.
    let mut expected = before;
    expected.remove(lost.iter().min().unwrap());
    assert_eq!(world.rows(Table::Events).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_leaves_everything_as_it_was() {
    let world = World::filled().await;
    let files = world.files(Table::Events).await;
    let (date, partition) = meant(&files[0]);
    world.falsify(&files[0], "false", without_first).await;
    let files = world.files(Table::Events).await;
    world.log.records.lock().insert((partition, 7));
    let error = world.mender(1 << 20).rebuild(date, partition).await.unwrap_err();
    assert!(matches!(error, MaintainError::Log(LogError::Corrupt { offset: 7, .. })), "{error}");
    assert_eq!(world.files(Table::Events).await, files);
}

fn given_up() -> Bytes {
    let letter = DeadLetter::new(&Refusal::whole(Reason::DamagedRecord, "gone".to_owned()), None, b"{}");
    encode_dead(&[letter], 1, NOW).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_given_up_is_in_the_way_of_files_that_may_have_its_rows_only() {
    let world = World::new();
    for record in [given_up(), events(0, 40), given_up(), events(50, 40), dead("unread")] {
        world.append(0, record).await;
        world.archive().await;
    }
    world.log.records.lock().insert((0, 4));
    let before = world.rows(Table::Events).await;
    let file = world.files(Table::Events).await[0].clone();
    let (date, partition) = meant(&file);
    world.falsify(&file, "false", without_first).await;
    // The second time over what the first has made: no file of that seems to have rows of the second record.
    for _ in 0..2 {
        let rebuilt = world.mender(1 << 20).rebuild(date, partition).await.unwrap();
        assert_eq!(world.rows(Table::Events).await, before);
        assert_eq!((rebuilt.from, rebuilt.to, rebuilt.kept.len()), (0, 5, 0));
        assert_eq!(rebuilt.skipped, [0, 2, 4]);
    }
    // Of files that reach past it nobody knows whether they have rows of it.
    let (date, partition) = meant(&world.files(Table::Events).await[0]);
    world.interleave().await;
    let files = world.files(Table::Events).await;
    let error = world.mender(1 << 20).rebuild(date, partition).await.unwrap_err();
    assert!(matches!(error, MaintainError::Record { offset: 2, .. }), "{error}");
    assert_eq!(world.files(Table::Events).await, files);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_both_get_there() {
    let world = World::filled().await;
    let (before, files) = (world.rows(Table::Events).await, world.files(Table::Events).await);
    let (date, partition) = meant(&files[0]);
    let (one, other) = (world.mender(1 << 20), world.mender(1));
    let (one, other) = tokio::join!(one.rebuild(date, partition), other.rebuild(date, partition));
    assert_eq!((one.unwrap().rows_after, world.rows(Table::Events).await), (other.unwrap().rows_after, before));
    let commits = world.tables.snapshot(Table::Events).await.unwrap().transaction("maintain/events");
    assert_eq!(commits, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_without_events_takes_no_commit() {
    let world = World::filled().await;
    let version = world.tables.version(Table::Events).await.unwrap();
    assert_eq!(world.mender(1).rebuild(7, 0).await.unwrap(), Rebuilt { to: 16, ..Rebuilt::default() });
    assert_eq!(world.tables.version(Table::Events).await.unwrap(), version);
    assert!(world.mender(1).rebuild(7, 2).await.is_err(), "there is no such partition");
}

fn file(path: &str, partitions: [i64; 2], offsets: [i64; 2]) -> DataFile {
    let bounds = |at: usize| {
        let of = |column: &str, values: [i64; 2]| (column.to_owned(), values[at].into());
        BTreeMap::from([of("log_partition", partitions), of("log_offset", offsets)])
    };
    DataFile { path: path.to_owned(), bytes: 1, rows: 1, partition: BTreeMap::new(), min: bounds(0), max: bounds(1) }
}

const BOUNDS: Bounds = Bounds { begin: 10, archived: 100, closed: false };

/// What is replaced, what is kept and why, and the offsets.
fn planned(files: &[DataFile], bounds: Bounds) -> (Vec<String>, Vec<(String, Why)>, [u64; 2]) {
    let plan = Plan::of(files, 1, bounds);
    let kept = plan.kept.into_iter().map(|kept| (kept.file, kept.why)).collect();
    let replaced = plan.replaced.into_iter().map(|file| file.path).collect();
    (replaced, kept, [plan.offsets.start, plan.offsets.end])
}

fn owned<const N: usize>(kept: [(&str, Why); N]) -> Vec<(String, Why)> {
    kept.into_iter().map(|(path, why)| (path.to_owned(), why)).collect()
}

#[test]
fn whatever_overlaps_a_file_that_is_kept_is_kept() {
    let files = [
        file("d", [1, 1], [41, 60]),
        file("c", [1, 1], [25, 40]),
        file("b", [1, 1], [15, 30]),
        file("a", [1, 1], [9, 20]),
        file("other", [0, 0], [0, 99]),
    ];
    let kept = owned([("a", Why::Gone), ("b", Why::Beside), ("c", Why::Beside)]);
    assert_eq!(planned(&files, BOUNDS), (vec!["d".to_owned()], kept, [41, 100]));
    assert_eq!(planned(&files[..3], BOUNDS).2, [10, 100], "nothing is kept");
}

/// It begins later and ends before: as rows are made anew only from the end of what is kept, its own would be lost.
#[test]
fn a_file_within_one_that_is_kept_is_kept() {
    let files = [file("within", [1, 1], [20, 30]), file("behind", [1, 1], [61, 70]), file("around", [1, 1], [9, 60])];
    let kept = owned([("around", Why::Gone), ("within", Why::Beside)]);
    assert_eq!(planned(&files, BOUNDS), (vec!["behind".to_owned()], kept, [61, 100]));
}

#[test]
fn a_file_of_several_partitions_is_kept_and_what_begins_below_its_end() {
    let files = [file("a", [1, 1], [10, 12]), file("mixed", [0, 2], [20, 29]), file("b", [1, 1], [30, 31])];
    let kept = owned([("mixed", Why::Mixed), ("a", Why::Beside)]);
    assert_eq!(planned(&files, BOUNDS), (vec!["b".to_owned()], kept, [30, 100]));
    let elsewhere = [file("mixed", [2, 3], [20, 29])];
    assert_eq!(planned(&elsewhere, BOUNDS), (Vec::new(), Vec::new(), [10, 100]));
}

#[test]
fn beside_a_file_that_may_hold_anything_nothing_is_made_anew() {
    let bare = DataFile { min: BTreeMap::new(), ..file("bare", [1, 1], [0, 1]) };
    let files = [file("a", [1, 1], [10, 12]), bare];
    let kept = owned([("bare", Why::Unplaced), ("a", Why::Beside)]);
    assert_eq!(planned(&files, BOUNDS), (Vec::new(), kept, [100, 100]));
}

#[test]
fn of_what_is_not_archived_by_this_log_nothing_is_removed() {
    let files = [file("a", [1, 1], [10, 12]), file("b", [1, 1], [90, 100])];
    let kept = owned([("b", Why::NotArchived), ("a", Why::Beside)]);
    assert_eq!(planned(&files, BOUNDS), (Vec::new(), kept, [100, 100]));
    let kept = owned([("a", Why::NotArchived), ("b", Why::NotArchived)]);
    assert_eq!(planned(&files, Bounds { archived: 0, ..BOUNDS }), (Vec::new(), kept, [0, 0]));
}

#[test]
fn what_retention_has_removed_does_not_come_back() {
    let closed = Bounds { closed: true, ..BOUNDS };
    let files = [file("late", [1, 1], [50, 60])];
    assert_eq!(planned(&files, closed), (vec!["late".to_owned()], Vec::new(), [50, 100]));
    assert_eq!(planned(&[], closed), (Vec::new(), Vec::new(), [100, 100]));
}
