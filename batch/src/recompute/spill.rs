//! Sorted runs of count rows, in memory or in temporary files.
//!
//! A run is written once, in order, as Arrow IPC, and read from any entity on: the first entity of each of its
//! batches is kept in memory.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use uuid::Uuid;

use super::error::BatchError;

const PREFIX: &str = "run-";

/// A folder for the temporary files of one run, removed with everything in it when dropped.
#[derive(Debug)]
pub struct SpillDir {
    path: PathBuf,
    next: AtomicU64,
}

impl SpillDir {
    /// A folder below `parent`; those that runs which died have left there are removed.
    ///
    /// # Errors
    /// [`BatchError::Spill`].
    pub fn create(parent: &Path, run: Uuid) -> Result<Self, BatchError> {
        let path = parent.join(format!("{PREFIX}{run}"));
        let failed = |source| BatchError::Spill { path: path.clone(), source };
        fs::create_dir_all(parent).map_err(failed)?;
        for entry in fs::read_dir(parent).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                // Whatever cannot be removed takes room and does no other harm.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        fs::create_dir(&path).map_err(failed)?;
        Ok(Self { path, next: AtomicU64::new(0) })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn fresh(&self) -> PathBuf {
        self.path.join(format!("{}.arrow", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for SpillDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[derive(Debug)]
enum Batches {
    Memory(Vec<RecordBatch>),
    Disk { path: PathBuf, /* keeps the folder */ _dir: Arc<SpillDir> },
}

impl Drop for Batches {
    fn drop(&mut self) {
        if let Self::Disk { path, .. } = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// A sorted run.
#[derive(Debug)]
pub struct SortedRun {
    batches: Batches,
    /// First entity of each batch.
    firsts: Vec<Box<str>>,
    /// Rows in it.
    pub rows: u64,
    /// Events that its rows count.
    pub events: u64,
}

impl SortedRun {
    /// The first entity of each batch.
    #[must_use]
    pub fn firsts(&self) -> &[Box<str>] {
        &self.firsts
    }

    /// Its batches, from the one on in which `from` is or would be.
    ///
    /// # Errors
    /// [`BatchError::Spill`], [`BatchError::Arrow`].
    pub fn open(&self, from: Option<&str>) -> Result<RunBatches, BatchError> {
        let after = from.map_or(0, |from| self.firsts.partition_point(|first| first.as_ref() < from));
        let first = after.saturating_sub(1);
        Ok(match &self.batches {
            // A copy of pointers: the reader outlives this borrow.
            Batches::Memory(batches) => {
                let rest: Vec<_> = batches.iter().skip(first).cloned().collect();
                RunBatches::Memory(rest.into_iter())
            }
            Batches::Disk { path, .. } => {
                let file = File::open(path).map_err(|source| BatchError::Spill { path: path.clone(), source })?;
                let mut reader = FileReader::try_new_buffered(file, None)?;
                if first < reader.num_batches() {
                    reader.set_index(first)?;
                }
                RunBatches::Disk(Box::new(reader))
            }
        })
    }
}

/// The batches of a run.
#[derive(Debug)]
pub enum RunBatches {
    /// Those in memory.
    Memory(std::vec::IntoIter<RecordBatch>),
    /// Those in a file.
    Disk(Box<FileReader<std::io::BufReader<File>>>),
}

impl Iterator for RunBatches {
    type Item = Result<RecordBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Memory(batches) => batches.next().map(Ok),
            Self::Disk(reader) => reader.next().map(|batch| batch.map_err(BatchError::from)),
        }
    }
}

enum Sink {
    Memory(Vec<RecordBatch>),
    Disk(PathBuf, Arc<SpillDir>, Box<FileWriter<BufWriter<File>>>),
}

/// Writes a run.
pub struct RunWriter {
    sink: Sink,
    firsts: Vec<Box<str>>,
    rows: u64,
    events: u64,
}

impl RunWriter {
    /// A run with such columns, in a temporary file if there is a folder for it.
    ///
    /// # Errors
    /// [`BatchError::Spill`], [`BatchError::Arrow`].
    pub fn create(schema: &SchemaRef, dir: Option<&Arc<SpillDir>>) -> Result<Self, BatchError> {
        let sink = match dir {
            None => Sink::Memory(Vec::new()),
            Some(dir) => {
                let path = dir.fresh();
                let file = File::create(&path).map_err(|source| BatchError::Spill { path: path.clone(), source })?;
                let writer = FileWriter::try_new(BufWriter::with_capacity(1 << 20, file), schema)?;
                Sink::Disk(path, Arc::clone(dir), Box::new(writer))
            }
        };
        Ok(Self { sink, firsts: Vec::new(), rows: 0, events: 0 })
    }

    /// Adds a batch that begins with the entity `first` and counts `events`.
    ///
    /// # Errors
    /// [`BatchError::Arrow`].
    pub fn write(&mut self, batch: RecordBatch, first: &str, events: u64) -> Result<(), BatchError> {
        self.firsts.push(first.into());
        self.rows += batch.num_rows() as u64;
        self.events += events;
        match &mut self.sink {
            Sink::Memory(batches) => batches.push(batch),
            Sink::Disk(_, _, writer) => writer.write(&batch)?,
        }
        Ok(())
    }

    /// The run, whole.
    ///
    /// # Errors
    /// [`BatchError::Arrow`].
    pub fn finish(self) -> Result<SortedRun, BatchError> {
        let batches = match self.sink {
            Sink::Memory(batches) => Batches::Memory(batches),
            Sink::Disk(path, dir, mut writer) => {
                writer.finish()?;
                Batches::Disk { path, _dir: dir }
            }
        };
        Ok(SortedRun { batches, firsts: self.firsts, rows: self.rows, events: self.events })
    }
}
