//! Files of raw events and dead letters that were found damaged, written anew from the log while it still holds them.
//!
//! The rows of a file are those of one date and log partition that lie in a range of offsets; only where compaction has
//! sorted by entity do several files share a range, and then all of them are written anew. Their number of rows has to
//! be what it was, or nothing is replaced: a file that had quietly lost events would be worse than a damaged one.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use object_store::ObjectStore;
use reckon_data::clock::Names;
use reckon_data::damage::Damage;
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::log::{Log, Stored};
use reckon_data::minute::{date_of, parse_date};
use reckon_data::paths::{Transaction, growing_file, partition_folder};
use reckon_data::record::{Body, decode};
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, Tables};
use reckon_tables::Storage;
use reckon_tables::schema::file_schema;

use crate::archive::properties;
use crate::archive::rows::{Origin, dead_rows, event_rows, split_by_date};
use crate::commit;
use crate::maintain::MaintainError;

/// Bytes of log that are read at once.
const READ_BYTES: usize = 4 << 20;

/// What mending works with.
#[derive(Debug)]
pub struct MenderParts {
    /// The log that the raw events came from.
    pub log: Arc<dyn Log>,
    /// The tables.
    pub tables: Arc<dyn Tables>,
    /// Where their files lie: the store rooted at the tables' folder.
    pub store: Arc<dyn ObjectStore>,
    /// Which of them are damaged.
    pub damage: Arc<dyn Damage>,
    /// Names for files and commits.
    pub names: Arc<dyn Names>,
    /// About how large a file gets, in bytes.
    pub file_bytes: u64,
}

/// Writes damaged raw events anew.
#[derive(Debug)]
pub struct Mender {
    parts: MenderParts,
}

/// Files whose rows come from one range of one log partition, and from nowhere else of that date.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    table: Table,
    partition: u32,
    date: i32,
    offsets: RangeInclusive<u64>,
    files: Vec<DataFile>,
}

impl Mender {
    /// Mending with these parts.
    #[must_use]
    pub const fn new(parts: MenderParts) -> Self {
        Self { parts }
    }

    /// Writes anew what is known to be damaged and the log still holds; how many damaged files are gone now. What cannot
    /// be mended is logged and stays as it is.
    pub async fn run(&self) -> u64 {
        let mut mended = 0;
        for table in [Table::Events, Table::DeadLetters] {
            mended += self.mend_all(table).await;
        }
        mended
    }

    /// Mends the damaged files of a table, one after the other: each commit makes a version in which the next is found.
    async fn mend_all(&self, table: Table) -> u64 {
        let (mut mended, mut tried) = (0, BTreeSet::new());
        loop {
            match self.next(table, &tried).await {
                Ok(Some((snapshot, file))) => {
                    mended += u64::from(self.try_to_mend(&snapshot, &file).await);
                    tried.insert(file.path);
                }
                Ok(None) => return mended,
                Err(error) => {
                    tracing::warn!(%error, "damaged raw events are looked at again later");
                    return mended;
                }
            }
        }
    }

    async fn try_to_mend(&self, snapshot: &Snapshot, file: &DataFile) -> bool {
        let mended = self.mend(snapshot, file).await;
        match &mended {
            Ok(()) => tracing::info!(file = file.path, "a damaged file was written anew from the log"),
            Err(error) => tracing::warn!(file = file.path, %error, "a damaged file cannot be written anew"),
        }
        mended.is_ok()
    }

    /// A damaged file of the table that was not tried yet.
    async fn next(
        &self,
        table: Table,
        tried: &BTreeSet<String>,
    ) -> Result<Option<(Snapshot, DataFile)>, MaintainError> {
        let damaged: BTreeSet<String> = self.parts.damage.damaged().into_iter().map(|damaged| damaged.path).collect();
        let prefix = format!("{}/", table.name());
        if !damaged.iter().any(|path| path.strip_prefix(&prefix).is_some_and(|path| !tried.contains(path))) {
            return Ok(None);
        }
        let snapshot = self.parts.tables.snapshot(table).await?;
        let is_next = |file: &&DataFile| {
            !tried.contains(&file.path) && damaged.contains(Storage::path(table, &file.path).as_ref())
        };
        let found = snapshot.files.iter().find(is_next).cloned();
        Ok(found.map(|file| (snapshot, file)))
    }

    async fn mend(&self, snapshot: &Snapshot, damaged: &DataFile) -> Result<(), MaintainError> {
        let group = Group::around(snapshot, damaged)?;
        let add = self.rewrite(&group).await?;
        let (found, expected) = (rows_of(&add), rows_of(&group.files));
        if found != expected {
            return Err(MaintainError::Rows { table: group.table.name(), found, expected });
        }
        let name = Transaction::Maintain(group.table).to_string();
        let from = snapshot.transaction(&name);
        let commit = Commit {
            table: group.table,
            steps: vec![Step { name, from, to: from + 1 }],
            add,
            remove: group.files,
            data_change: false,
            token: self.parts.names.fresh(),
            operation: "mend".to_owned(),
        };
        commit::commit(&*self.parts.tables, &commit).await?;
        Ok(())
    }

    /// The group's rows from the log, in new files. They are durable, and not committed; what is left of them after a
    /// failure, vacuum finds.
    async fn rewrite(&self, group: &Group) -> Result<Vec<DataFile>, MaintainError> {
        let (mut at, mut files, mut current) = (*group.offsets.start(), Vec::new(), None);
        while at <= *group.offsets.end() {
            let records = self.parts.log.read(group.partition, at, READ_BYTES).await?;
            let Some(last) = records.last().map(|record| record.offset) else { break };
            for record in records.iter().filter(|record| group.offsets.contains(&record.offset)) {
                let Some(rows) = group.rows(record)? else { continue };
                let mut writer: FileWriter = match current.take() {
                    Some(writer) => writer,
                    None => self.create(group, record.offset)?,
                };
                writer.write(&rows).await?;
                if writer.file_bytes() as u64 >= self.parts.file_bytes {
                    files.push(writer.close().await?);
                } else {
                    current = Some(writer);
                }
            }
            at = last + 1;
        }
        if let Some(writer) = current {
            files.push(writer.close().await?);
        }
        Ok(files)
    }

    fn create(&self, group: &Group, start: u64) -> Result<FileWriter, MaintainError> {
        let values: BTreeMap<String, Option<String>> = group.values().clone();
        let folder: String = values
            .iter()
            .map(|(column, value)| partition_folder(column, value.as_deref().unwrap_or_default()))
            .collect();
        let path = folder + &growing_file(group.partition, start, self.parts.names.fresh());
        let (store, schema) = (Arc::clone(&self.parts.store), file_schema(group.table));
        Ok(FileWriter::create(store, group.table, path, &schema, &group.options(), values)?)
    }
}

fn rows_of(files: &[DataFile]) -> u64 {
    files.iter().map(|file| file.rows).sum()
}

impl Group {
    /// The damaged file and all that share offsets with it, directly or through others.
    fn around(snapshot: &Snapshot, damaged: &DataFile) -> Result<Self, MaintainError> {
        let table = snapshot.table;
        let place = |file: &DataFile| {
            let range = |column| Some((file.min_i64(column)?, file.max_i64(column)?));
            let ((first, last), (low, high)) = (range("log_partition")?, range("log_offset")?);
            let whole = (u32::try_from(first).ok()?, u64::try_from(low).ok()?..=u64::try_from(high).ok()?);
            (first == last).then_some(whole)
        };
        let unknown = || MaintainError::Place { table: table.name(), file: damaged.path.clone() };
        let (partition, mut offsets) = place(damaged).ok_or_else(unknown)?;
        let date = table.partition_columns().first().and_then(|column| damaged.partition.get(*column)?.as_deref());
        let date = date.and_then(parse_date).ok_or_else(unknown)?;
        loop {
            let mut files = Vec::new();
            let mut all = offsets.clone();
            for file in snapshot.files.iter().filter(|file| file.partition == damaged.partition) {
                let (of, range) = place(file).ok_or_else(unknown)?;
                if of == partition && range.start() <= offsets.end() && offsets.start() <= range.end() {
                    all = *all.start().min(range.start())..=*all.end().max(range.end());
                    files.push(file.clone());
                }
            }
            if all == offsets {
                return Ok(Self { table, partition, date, offsets, files });
            }
            offsets = all;
        }
    }

    /// The values of the table's partition columns.
    fn values(&self) -> &BTreeMap<String, Option<String>> {
        static NONE: BTreeMap<String, Option<String>> = BTreeMap::new();
        self.files.first().map_or(&NONE, |file| &file.partition)
    }

    fn options(&self) -> WriteOptions {
        match self.table {
            Table::DeadLetters => properties::dead_letters(),
            _ => properties::log_ordered_events(),
        }
    }

    /// The rows of a record that belong to the table and the date.
    fn rows(&self, stored: &Stored) -> Result<Option<RecordBatch>, MaintainError> {
        let unreadable =
            |reason: String| MaintainError::Record { partition: self.partition, offset: stored.offset, reason };
        let record = decode(&stored.bytes).map_err(|error| unreadable(error.to_string()))?;
        let append_time = record.header.append_time;
        let origin = Origin { partition: self.partition, offset: stored.offset, append_time };
        let rows = match (self.table, record.body) {
            (Table::Events, Body::Events(events)) => event_rows(events, origin).and_then(split_by_date),
            (Table::DeadLetters, Body::Dead(letters)) if !letters.is_empty() => {
                dead_rows(&letters, origin).map(|rows| vec![(date_of(append_time), rows)])
            }
            _ => return Ok(None),
        };
        let rows = rows.map_err(|error| unreadable(error.to_string()))?;
        Ok(rows.into_iter().find(|(date, _)| *date == self.date).map(|(_, rows)| rows))
    }
}
