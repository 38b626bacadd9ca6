//! The batch side of a view: one version of `batch_counts`, pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use reckon_data::loss::Loss;
use reckon_data::minute::parse_date;
use reckon_data::paths::Transaction;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Snapshot};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::meet::Missing;
use crate::ServingError;

/// The live files of one (granularity, date).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    /// How long a step of their rows is.
    pub granularity: Granularity,
    /// UTC date, days since 1970.
    pub date: i32,
    /// The files, by path.
    pub files: Vec<DataFile>,
    /// Rows in them.
    pub rows: u64,
    /// A hash of their paths: the same files, the same rows.
    pub id: u128,
    /// Definition versions that they were counted with.
    pub definitions: BTreeSet<u64>,
}

/// The file sets of a date, by granularity.
pub type DateFiles = BTreeMap<Granularity, Arc<FileSet>>;

/// One version of `batch_counts`, with the version of `stream_counts` that was newest then.
#[derive(Debug, Clone)]
pub struct BatchView {
    /// The version.
    pub version: u64,
    /// Coverage of every log partition.
    pub coverage: Vec<u64>,
    /// What had gone from the log before it was archived, and is in no count.
    losses: Vec<Loss>,
    /// How many of those records somebody has accepted, of every log partition.
    accepted: Vec<u64>,
    /// The files of every date.
    pub dates: BTreeMap<i32, DateFiles>,
    /// The version of `stream_counts`, for ranges on disk.
    pub stream: Arc<Snapshot>,
    /// Definition versions of sealed segments at or above coverage.
    stream_definitions: BTreeSet<u64>,
}

impl BatchView {
    /// Reads two snapshots; `log` is the log's identity.
    ///
    /// # Errors
    /// [`ServingError::Internal`] when a file or a transaction is not what it should be: leaving it out would
    /// be a silent hole.
    pub fn new(batch: &Snapshot, stream: Arc<Snapshot>, log: Uuid, partitions: u32) -> Result<Self, ServingError> {
        let coverage =
            (0..partitions).map(|p| offset(batch, &Transaction::Batch(log, p))).collect::<Result<Vec<_>, _>>()?;
        let mut groups: BTreeMap<i32, BTreeMap<Granularity, Vec<DataFile>>> = BTreeMap::new();
        for file in batch.files.iter() {
            let (date, granularity) = place(file)?;
            groups.entry(date).or_default().entry(granularity).or_default().push(file.clone());
        }
        let dates = groups.into_iter().map(|(date, sets)| {
            let sets = sets
                .into_iter()
                .map(|(granularity, files)| (granularity, Arc::new(FileSet::new(granularity, date, files))));
            (date, sets.collect())
        });
        let stream_definitions = stream_definitions(&stream, &coverage);
        let losses = (0..partitions).filter_map(|p| Loss::of(batch, log, p)).collect();
        let accepted = (0..partitions).map(|p| Loss::accepted(batch, log, p)).collect();
        let dates = dates.collect();
        Ok(Self { version: batch.version, coverage, losses, accepted, dates, stream, stream_definitions })
    }

    /// What answers lack because it had gone before it was archived, as far as nobody has accepted that.
    pub fn lost(&self) -> impl Iterator<Item = Missing> {
        self.losses.iter().filter_map(|loss| self.unaccepted(*loss))
    }

    /// The same of answers from a version of `events`, which may know of more.
    pub fn lost_of(&self, events: &Snapshot, log: Uuid) -> Vec<Missing> {
        let partitions = (0_u32..).zip(&self.coverage).map(|(partition, _)| partition);
        partitions.filter_map(|partition| self.unaccepted(Loss::of(events, log, partition)?)).collect()
    }

    fn unaccepted(&self, loss: Loss) -> Option<Missing> {
        let accepted = self.accepted.get(loss.partition as usize).copied().unwrap_or(0);
        (loss.records > accepted).then(|| Missing::lost(&loss))
    }

    /// The definition versions that take part in an answer about these dates.
    #[must_use]
    pub fn definitions(&self, dates: std::ops::RangeInclusive<i32>) -> BTreeSet<u64> {
        let mut versions = self.stream_definitions.clone();
        if dates.is_empty() {
            return versions;
        }
        self.dates.range(dates).flat_map(|(_, sets)| sets.values()).for_each(|set| versions.extend(&set.definitions));
        versions
    }

    /// The same with those that bounds do not show: where files tell of several versions, any other that took part in
    /// counts of any date may lie between them.
    #[must_use]
    pub fn definitions_within(&self, dates: std::ops::RangeInclusive<i32>) -> BTreeSet<u64> {
        let mut versions = self.definitions(dates.clone());
        if versions.len() < 2 || dates.is_empty() {
            return versions;
        }
        let sets = self.file_sets().flat_map(|set| set.definitions.iter().copied());
        let all: BTreeSet<u64> = sets.chain(self.stream_definitions.iter().copied()).collect();
        let within = self.dates.range(dates).flat_map(|(_, sets)| sets.values()).map(|set| &set.definitions);
        for own in within.chain([&self.stream_definitions]) {
            if let (Some(first), Some(last)) = (own.first(), own.last()) {
                versions.extend(all.range(*first..=*last));
            }
        }
        versions
    }

    /// Definition versions of sealed segments at or above coverage, as another version of `stream_counts` has them.
    #[must_use]
    pub fn sealed_definitions(&self, stream: &Snapshot) -> BTreeSet<u64> {
        stream_definitions(stream, &self.coverage)
    }

    /// All file sets.
    pub fn file_sets(&self) -> impl DoubleEndedIterator<Item = &Arc<FileSet>> {
        self.dates.values().flat_map(BTreeMap::values)
    }
}

impl FileSet {
    fn new(granularity: Granularity, date: i32, mut files: Vec<DataFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        // A path holds no line break.
        let id = xxh3_128(paths.join("\n").as_bytes());
        let definitions = files.iter().flat_map(definitions_of).collect();
        Self { granularity, date, rows: files.iter().map(|file| file.rows).sum(), id, definitions, files }
    }
}

fn offset(snapshot: &Snapshot, transaction: &Transaction) -> Result<u64, ServingError> {
    let at = snapshot.transaction(&transaction.to_string());
    u64::try_from(at).map_err(|_| ServingError::internal(format!("transaction {transaction} stands at {at}")))
}

fn place(file: &DataFile) -> Result<(i32, Granularity), ServingError> {
    let value = |column: &str| file.partition.get(column).and_then(Option::as_deref);
    let date = value("event_date").and_then(parse_date);
    let granularity = value("granularity").and_then(|name| name.parse().ok());
    date.zip(granularity)
        .ok_or_else(|| ServingError::internal(format!("file {} of batch_counts lies in no partition of it", file.path)))
}

/// No definition has this version: what does not say by which it was counted was not counted by the one in force.
const UNKNOWN: u64 = 0;

/// The definition versions in a file; its smallest and largest stand for those between, which hashes have not.
fn definitions_of(file: &DataFile) -> impl Iterator<Item = u64> {
    let bound = |bound: Option<i64>| bound.map_or(UNKNOWN, i64::cast_unsigned);
    [bound(file.min_i64("definition")), bound(file.max_i64("definition"))].into_iter()
}

fn stream_definitions(stream: &Snapshot, coverage: &[u64]) -> BTreeSet<u64> {
    let above = |file: &&DataFile| {
        let partitions = file.min_i64("log_partition").zip(file.max_i64("log_partition"));
        let end = file.max_i64("segment_end").and_then(|end| u64::try_from(end).ok());
        let (Some((first, last)), Some(end)) = (partitions, end) else { return true };
        (0_i64..).zip(coverage).any(|(partition, covered)| (first..=last).contains(&partition) && end > *covered)
    };
    stream.files.iter().filter(above).flat_map(definitions_of).collect()
}

#[cfg(test)]
mod tests {
    use reckon_data::table::Table;

    use super::*;

    fn file(path: &str, partition: &[(&str, &str)]) -> DataFile {
        DataFile {
            path: path.to_owned(),
            bytes: 1,
            rows: 2,
            partition: partition.iter().map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned()))).collect(),
            min: BTreeMap::from([("definition".to_owned(), 4.into())]),
            max: BTreeMap::from([("definition".to_owned(), 5.into())]),
        }
    }

    fn snapshot(table: Table, files: Vec<DataFile>) -> Snapshot {
        let transactions = BTreeMap::from([(Transaction::Batch(Uuid::nil(), 1).to_string(), 8)]);
        Snapshot { table, version: 3, files: Arc::new(files), transactions }
    }

    #[test]
    fn files_are_sorted_into_dates_and_granularities() {
        let day = [("event_date", "1970-01-02"), ("granularity", "day")];
        let batch = snapshot(Table::BatchCounts, vec![file("b", &day), file("a", &day)]);
        let stream = Arc::new(snapshot(Table::StreamCounts, vec![]));
        let view = BatchView::new(&batch, stream, Uuid::nil(), 2).unwrap();
        assert_eq!((view.version, view.coverage.as_slice()), (3, &[0, 8][..]));
        let set = &view.dates[&1][&Granularity::Day];
        assert_eq!((set.rows, set.files[0].path.as_str()), (4, "a"));
        assert_eq!(view.definitions(0..=3), BTreeSet::from([4, 5]));
        assert_eq!(view.definitions(2..=3), BTreeSet::new());
    }

    #[test]
    fn sealed_counts_above_coverage_say_by_which_definition_they_were_counted() {
        let above = |definition: bool| {
            let mut file = file("s", &[]);
            if !definition {
                (file.min, file.max) = (BTreeMap::new(), BTreeMap::new());
            }
            for (bounds, offset) in [(&mut file.min, 5), (&mut file.max, 9)] {
                bounds.insert("log_partition".to_owned(), 1.into());
                bounds.insert("segment_end".to_owned(), offset.into());
            }
            let stream = Arc::new(snapshot(Table::StreamCounts, vec![file]));
            let batch = snapshot(Table::BatchCounts, vec![]);
            BatchView::new(&batch, stream, Uuid::nil(), 2).unwrap().definitions(0..=0)
        };
        assert_eq!(above(true), BTreeSet::from([4, 5]));
        assert_eq!(above(false), BTreeSet::from([UNKNOWN]));
    }

    #[test]
    fn a_file_in_no_partition_is_no_hole() {
        let batch = snapshot(Table::BatchCounts, vec![file("a", &[("event_date", "1970-01-02")])]);
        let stream = Arc::new(snapshot(Table::StreamCounts, vec![]));
        assert!(BatchView::new(&batch, stream, Uuid::nil(), 1).is_err());
    }
}
