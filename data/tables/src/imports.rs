//! The table of imports: one row for how far each file is; folded into one file as it grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use object_store::ObjectStore;
use reckon_data::clock::{Clock, Names};
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::imports::{ImportEntry, Imports};
use reckon_data::paths::{Transaction, mixed_file};
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, Tables};
use tokio::sync::Mutex;

use crate::read::read_file;
use crate::schema::file_schema;

/// Live files of the table, above which they are folded into one.
const FILES_MAX: usize = 16;

/// Errors are sentences, as whoever asks wants them.
type Result<T> = std::result::Result<T, String>;

/// The table of imports; other processes may write to it, too.
#[derive(Debug)]
pub struct ImportTable {
    tables: Arc<dyn Tables>,
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    names: Arc<dyn Names>,
    known: Mutex<Option<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The table's version that this is; none when it is that of no version.
    version: Option<u64>,
    /// (mapping hash, file hash) → the newest entry and when it was written.
    entries: BTreeMap<(String, String), (i64, ImportEntry)>,
}

impl ImportTable {
    /// The table, read when it is first asked.
    #[must_use]
    pub fn new(
        tables: Arc<dyn Tables>,
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
        names: Arc<dyn Names>,
    ) -> Self {
        Self { tables, store, clock, names, known: Mutex::new(None) }
    }

    async fn load(&self) -> Result<Known> {
        self.read(&self.tables.snapshot(Table::Imports).await.map_err(said)?).await
    }

    async fn read(&self, snapshot: &Snapshot) -> Result<Known> {
        let mut known = Known { version: Some(snapshot.version), ..Known::default() };
        for file in snapshot.files.iter() {
            for batch in read_file(Arc::clone(&self.store), Table::Imports, file).await.map_err(said)? {
                for (at, entry) in rows(&batch)? {
                    known.put(at, entry);
                }
            }
        }
        Ok(known)
    }

    /// Writes entries to the table, with all that lies there when it is folded: that of others, and what was written
    /// although it was said that it could not be. Returns the version before, and that with them.
    async fn write(&self, at: i64, entries: &[ImportEntry]) -> Result<(u64, u64)> {
        let snapshot = self.tables.snapshot(Table::Imports).await.map_err(said)?;
        let fold = snapshot.files.len() >= FILES_MAX;
        let mut written = if fold { self.read(&snapshot).await? } else { Known::default() };
        for entry in entries {
            written.put(at, entry.clone());
        }
        let rows: Vec<(i64, &ImportEntry)> = written.entries.values().map(|(at, entry)| (*at, entry)).collect();
        let file = self.write_file(&batch(&rows)?).await?;
        let version = self.tables.commit(self.commit(&snapshot, file, fold)).await.map_err(said)?;
        Ok((snapshot.version, version))
    }

    fn commit(&self, snapshot: &Snapshot, file: DataFile, fold: bool) -> Commit {
        let name = Transaction::Imports.to_string();
        let from = snapshot.transaction(&name);
        Commit {
            table: Table::Imports,
            steps: vec![Step { name, from, to: from + 1 }],
            add: vec![file],
            remove: if fold { snapshot.files.to_vec() } else { Vec::new() },
            data_change: true,
            token: self.names.fresh(),
            operation: "import".to_owned(),
        }
    }

    async fn write_file(&self, batch: &RecordBatch) -> Result<DataFile> {
        let path = mixed_file("imports", self.names.fresh());
        let store = Arc::clone(&self.store);
        let writer =
            FileWriter::create(store, Table::Imports, path, &batch.schema(), &WriteOptions::default(), BTreeMap::new());
        let mut writer = writer.map_err(said)?;
        writer.write(batch).await.map_err(said)?;
        writer.close().await.map_err(said)
    }
}

impl Known {
    fn put(&mut self, at: i64, entry: ImportEntry) {
        let slot = self.entries.entry(key(&entry)).or_insert_with(|| (at, entry.clone()));
        // Entries of one file only ever grow; the clock may step back.
        if (entry.bytes, entry.finished, at) >= (slot.1.bytes, slot.1.finished, slot.0) {
            *slot = (at, entry);
        }
    }
}

fn key(entry: &ImportEntry) -> (String, String) {
    (entry.mapping_hash.clone(), entry.file_hash.clone())
}

#[async_trait]
impl Imports for ImportTable {
    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>> {
        let mut known = self.known.lock().await;
        let version = self.tables.version(Table::Imports).await.map_err(said)?;
        if known.as_ref().is_none_or(|known| known.version != Some(version)) {
            *known = Some(self.load().await?);
        }
        let entries = known.iter().flat_map(|known| known.entries.values());
        Ok(entries.map(|(_, entry)| entry).filter(|entry| entry.mapping_hash == mapping_hash).cloned().collect())
    }

    async fn record_all(&self, entries: Vec<ImportEntry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut slot = self.known.lock().await;
        let at = self.clock.now();
        let (before, after) = match self.write(at, &entries).await {
            Ok(versions) => versions,
            Err(error) => {
                // It may have been written all the same: the table is read again.
                *slot = None;
                return Err(error);
            }
        };
        // What somebody else wrote in between has to be read.
        match slot.as_mut().filter(|known| known.version == Some(before)) {
            Some(known) => {
                known.version = Some(after);
                entries.into_iter().for_each(|entry| known.put(at, entry));
            }
            None => *slot = None,
        }
        Ok(())
    }
}

/// An error and all that it comes from.
fn said(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}

/// The rows of the table, in the order of its schema.
fn batch(entries: &[(i64, &ImportEntry)]) -> Result<RecordBatch> {
    let text = |get: fn(&ImportEntry) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(entries.iter().map(|(_, entry)| get(entry))))
    };
    let number = |get: fn(&ImportEntry) -> u64| -> Result<ArrayRef> {
        let numbers = entries.iter().map(|(_, entry)| i64::try_from(get(entry)).map_err(said));
        Ok(Arc::new(Int64Array::from(numbers.collect::<Result<Vec<_>>>()?)))
    };
    let times: TimestampMicrosecondArray = entries.iter().map(|(at, _)| Some(*at)).collect();
    let schema = file_schema(Table::Imports);
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "file_hash" => Ok(text(|e| &e.file_hash)),
        "mapping_hash" => Ok(text(|e| &e.mapping_hash)),
        "name" => Ok(text(|e| &e.name)),
        "bytes" => number(|e| e.bytes),
        "lines" => number(|e| e.lines),
        "finished" => Ok(Arc::new(BooleanArray::from_iter(entries.iter().map(|(_, e)| Some(e.finished)))) as ArrayRef),
        "updated_at" => Ok(Arc::new(times.clone().with_timezone("UTC")) as ArrayRef),
        "counted" => number(|e| e.accepted),
        "skipped" => number(|e| e.skipped),
        "refused" => number(|e| e.refused),
        other => Err(format!("the table of imports has a column {other}")),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<Vec<_>>>()?).map_err(said)
}

fn rows(batch: &RecordBatch) -> Result<Vec<(i64, ImportEntry)>> {
    let lacks = |name: &str| format!("the table of imports lacks {name}");
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| lacks(name));
    let text = |name: &str| column(name).map(|array| array.as_string::<i32>().clone());
    let number = |name: &str| column(name).map(|array| array.as_primitive::<Int64Type>().clone());
    let (file_hash, mapping_hash, name) = (text("file_hash")?, text("mapping_hash")?, text("name")?);
    let (bytes, lines) = (number("bytes")?, number("lines")?);
    let (accepted, skipped, refused) = (number("counted")?, number("skipped")?, number("refused")?);
    let finished = column("finished")?.as_boolean().clone();
    let at = column("updated_at")?.as_primitive::<TimestampMicrosecondType>().clone();
    let at_row = |array: &Int64Array, row: usize| {
        if array.is_null(row) { 0 } else { u64::try_from(array.value(row)).unwrap_or(0) }
    };
    Ok((0..batch.num_rows())
        .map(|row| {
            let entry = ImportEntry {
                file_hash: file_hash.value(row).to_owned(),
                mapping_hash: mapping_hash.value(row).to_owned(),
                name: name.value(row).to_owned(),
                bytes: at_row(&bytes, row),
                lines: at_row(&lines, row),
                accepted: at_row(&accepted, row),
                skipped: at_row(&skipped, row),
                refused: at_row(&refused, row),
                finished: finished.value(row),
            };
            (at.value(row), entry)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::memory::InMemory;
    use reckon_data::clock::{RandomNames, SystemClock};
    use reckon_data::table::TableError;

    use super::*;
    use crate::MemoryTables;

    /// Tables whose commits are made, and nobody hears of every third.
    #[derive(Debug)]
    struct Unheard(MemoryTables, std::sync::atomic::AtomicU32);

    #[async_trait]
    impl Tables for Unheard {
        async fn snapshot(&self, table: Table) -> std::result::Result<Snapshot, TableError> {
            self.0.snapshot(table).await
        }

        async fn version(&self, table: Table) -> std::result::Result<u64, TableError> {
            self.0.version(table).await
        }

        async fn commit(&self, commit: Commit) -> std::result::Result<u64, TableError> {
            let version = self.0.commit(commit).await?;
            if self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 3 == 2 {
                let reason = "the connection broke".to_owned();
                return Err(TableError::Storage { table: Table::Imports.name(), reason });
            }
            Ok(version)
        }

        async fn vacuum(&self, table: Table, retention_micros: i64) -> std::result::Result<u64, TableError> {
            self.0.vacuum(table, retention_micros).await
        }
    }

    #[tokio::test]
    async fn what_another_process_imported_is_known() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tables: Arc<dyn Tables> = Arc::new(MemoryTables::new(Arc::clone(&clock)));
        let (store, names): (Arc<dyn ObjectStore>, Arc<dyn Names>) = (Arc::new(InMemory::new()), Arc::new(RandomNames));
        let table =
            || ImportTable::new(Arc::clone(&tables), Arc::clone(&store), Arc::clone(&clock), Arc::clone(&names));
        let (one, other) = (table(), table());
        for bytes in 1..4 {
            let (writer, reader) = if bytes == 2 { (&other, &one) } else { (&one, &other) };
            let entry = ImportEntry { file_hash: "a".to_owned(), bytes, ..ImportEntry::default() };
            writer.record(entry.clone()).await.unwrap();
            for table in [reader, writer] {
                assert_eq!(table.find("").await.unwrap(), std::slice::from_ref(&entry), "{bytes}");
            }
        }
    }

    #[tokio::test]
    async fn entries_of_others_and_of_unknown_outcome_survive_folding() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tables: Arc<dyn Tables> = Arc::new(Unheard(MemoryTables::new(Arc::clone(&clock)), 0.into()));
        let (store, names): (Arc<dyn ObjectStore>, Arc<dyn Names>) = (Arc::new(InMemory::new()), Arc::new(RandomNames));
        let table =
            || ImportTable::new(Arc::clone(&tables), Arc::clone(&store), Arc::clone(&clock), Arc::clone(&names));
        let owners = [table(), table()];
        let mut unheard = 0;
        for number in 0..3 * FILES_MAX {
            let entry = ImportEntry { file_hash: format!("{number:03}"), ..ImportEntry::default() };
            unheard += usize::from(owners[number % 2].record(entry).await.is_err());
        }
        assert!(unheard > FILES_MAX / 2);
        let mut found: Vec<String> = table().find("").await.unwrap().into_iter().map(|entry| entry.file_hash).collect();
        found.sort();
        assert_eq!(found, (0..3 * FILES_MAX).map(|number| format!("{number:03}")).collect::<Vec<_>>());
    }
}
