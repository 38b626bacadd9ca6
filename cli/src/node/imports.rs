//! The table of imports: one row for how far each file is; folded into one file as it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use object_store::ObjectStore;
use reckon_data::clock::{Clock, Names};
use reckon_data::files::{FileWriter, WriteOptions};
use reckon_data::imports::{ImportEntry, Imports};
use reckon_data::paths::{Transaction, mixed_file};
use reckon_data::table::{Commit, DataFile, Snapshot, Step, Table, Tables};
use reckon_tables::read::read_file;
use reckon_tables::schema::file_schema;
use tokio::sync::Mutex;

/// Live files of the table, above which they are folded into one.
const FILES_MAX: usize = 16;

/// The table of imports.
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
        let snapshot = self.tables.snapshot(Table::Imports).await?;
        let mut known = Known::default();
        for file in snapshot.files.iter() {
            for batch in read_file(Arc::clone(&self.store), Table::Imports, file).await? {
                for (at, entry) in rows(&batch)? {
                    known.put(at, entry);
                }
            }
        }
        Ok(known)
    }

    /// Remembers several at once: one commit, durable when it returns.
    ///
    /// # Errors
    /// A sentence, when it could not be written; then none of them is remembered.
    pub async fn record_all(&self, entries: Vec<ImportEntry>) -> Result<(), String> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut slot = self.known.lock().await;
        if slot.is_none() {
            *slot = Some(self.load().await.map_err(|e| format!("{e:#}"))?);
        }
        let known = slot.get_or_insert_default();
        let at = self.clock.now();
        self.write(known, at, &entries).await.map_err(|e| format!("{e:#}"))?;
        for entry in entries {
            known.put(at, entry);
        }
        Ok(())
    }

    async fn write(&self, known: &Known, at: i64, entries: &[ImportEntry]) -> Result<()> {
        let snapshot = self.tables.snapshot(Table::Imports).await?;
        let fold = snapshot.files.len() >= FILES_MAX;
        let new = entries.iter().map(|entry| (at, entry));
        let rows: Vec<(i64, &ImportEntry)> = if fold {
            let replaced: BTreeSet<_> = entries.iter().map(key).collect();
            let others = known.entries.iter().filter(|(key, _)| !replaced.contains(*key));
            others.map(|(_, (at, entry))| (*at, entry)).chain(new).collect()
        } else {
            new.collect()
        };
        let file = self.write_file(&batch(&rows)?).await?;
        let commit = self.commit(&snapshot, file, fold);
        self.tables.commit(commit).await?;
        Ok(())
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
        let mut writer = FileWriter::create(
            store,
            Table::Imports,
            path,
            &batch.schema(),
            &WriteOptions::default(),
            BTreeMap::new(),
        )?;
        writer.write(batch).await?;
        Ok(writer.close().await?)
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
    async fn find(&self, mapping_hash: &str) -> Result<Vec<ImportEntry>, String> {
        let mut known = self.known.lock().await;
        if known.is_none() {
            *known = Some(self.load().await.map_err(|e| format!("{e:#}"))?);
        }
        let entries = known.iter().flat_map(|known| known.entries.values());
        Ok(entries.map(|(_, entry)| entry).filter(|entry| entry.mapping_hash == mapping_hash).cloned().collect())
    }

    async fn record(&self, entry: ImportEntry) -> Result<(), String> {
        self.record_all(vec![entry]).await
    }
}

/// The rows of the table, in the order of its schema.
fn batch(entries: &[(i64, &ImportEntry)]) -> Result<RecordBatch> {
    let text = |get: fn(&ImportEntry) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(entries.iter().map(|(_, entry)| get(entry))))
    };
    let number = |get: fn(&ImportEntry) -> u64| -> Result<ArrayRef> {
        let numbers = entries.iter().map(|(_, entry)| i64::try_from(get(entry)));
        Ok(Arc::new(Int64Array::from(numbers.collect::<Result<Vec<_>, _>>()?)))
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
        other => Err(anyhow!("the table of imports has a column {other}")),
    });
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<Vec<_>>>()?)?)
}

fn rows(batch: &RecordBatch) -> Result<Vec<(i64, ImportEntry)>> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("the table of imports lacks {name}"));
    let text = |name: &str| column(name).map(|array| array.as_string::<i32>().clone());
    let number = |name: &str| column(name).map(|array| array.as_primitive::<Int64Type>().clone());
    let (file_hash, mapping_hash, name) = (text("file_hash")?, text("mapping_hash")?, text("name")?);
    let (bytes, lines) = (number("bytes")?, number("lines")?);
    let (accepted, skipped, refused) = (number("counted")?, number("skipped")?, number("refused")?);
    let finished = column("finished")?.as_boolean().clone();
    let at = column("updated_at")?.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone();
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
