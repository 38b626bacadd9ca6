//! The files of one log partition that are being written, and how records go into them. Plain code,
//! heavy on CPU: it runs off the async runtime.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reckon_data::files::FileEnd;
use reckon_data::log::Stored;
use reckon_data::minute::{date_of, format_date};
use reckon_data::record::{Body, decode};
use reckon_data::table::Table;
use reckon_tables::schema::file_schema;

use super::encoder::Encoder;
use super::error::ArchiveError;
use super::properties;
use super::rows::{Origin, dead_rows, event_rows, split_by_date};

/// Up to which offset a partition is archived, in each of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Archived {
    pub(super) events: u64,
    pub(super) dead: u64,
}

impl Archived {
    /// Up to where both are.
    pub(super) fn both(self) -> u64 {
        self.events.min(self.dead)
    }

    /// Where both are after everything below `next` has been committed.
    pub(super) fn after(self, next: u64) -> Self {
        Self { events: self.events.max(next), dead: self.dead.max(next) }
    }
}

/// Which of a partition's files a row belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileKey {
    /// `events` or `dead_letters`.
    pub(super) table: Table,
    /// The value of the table's partition column, days since 1970.
    pub(super) date: i32,
}

impl FileKey {
    /// The name and the value of the table's partition column.
    pub(super) fn partition(self) -> (&'static str, String) {
        let column = self.table.partition_columns().first().copied().unwrap_or_default();
        (column, format_date(self.date))
    }
}

/// Bytes of a file, finished. The offset is that of its first row.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) key: FileKey,
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

/// A file, finished: what is left of it.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) key: FileKey,
    pub(super) start: u64,
    pub(super) end: FileEnd,
}

#[derive(Debug)]
struct OpenFile {
    encoder: Encoder,
    start: u64,
}

/// The open files of a log partition.
#[derive(Debug)]
pub(super) struct Open {
    partition: u32,
    archived: Archived,
    next: u64,
    append_time: i64,
    /// Whether a cut was read: a batch run waits for what lies before it.
    cut: bool,
    files: BTreeMap<FileKey, OpenFile>,
}

/// How large the open files are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// How many there are.
    pub(super) files: usize,
    /// Bytes of memory.
    pub(super) memory: usize,
    /// Size of the largest.
    pub(super) largest: usize,
}

/// What came of a batch of records.
#[derive(Debug, Default)]
pub(super) struct Absorbed {
    /// Bytes to be stored, in order.
    pub(super) chunks: Vec<Chunk>,
    /// The record that could not be read; everything before it was taken.
    pub(super) fault: Option<ArchiveError>,
    pub(super) decoding: Duration,
    pub(super) encoding: Duration,
}

impl Open {
    pub(super) const fn new(partition: u32, archived: Archived, next: u64) -> Self {
        Self { partition, archived, next, append_time: 0, cut: false, files: BTreeMap::new() }
    }

    /// The offset after the last record taken.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// The latest append time taken, microseconds; 0 when none.
    pub(super) const fn append_time(&self) -> i64 {
        self.append_time
    }

    /// Whether a cut was read in this round.
    pub(super) const fn has_cut(&self) -> bool {
        self.cut
    }

    /// How large the open files are.
    pub(super) fn extent(&self) -> Extent {
        let files = self.files.values().map(|file| &file.encoder);
        files.fold(Extent::default(), |sum, file| Extent {
            files: sum.files + 1,
            memory: sum.memory + file.memory(),
            largest: sum.largest.max(file.bytes()),
        })
    }

    /// Takes records in, in order, until one cannot be read or more than `files_max` files are open.
    pub(super) fn absorb(&mut self, records: &[Stored], files_max: usize) -> Result<Absorbed, ArchiveError> {
        let mut absorbed = Absorbed::default();
        for stored in records {
            if self.files.len() > files_max {
                break;
            }
            let begun = Instant::now();
            let record = match self.read(stored) {
                Ok(record) => record,
                Err(fault) => {
                    absorbed.fault = Some(fault);
                    break;
                }
            };
            let read = Instant::now();
            self.append_time = self.append_time.max(record.header.append_time);
            self.take(stored, record.header.append_time, record.body)?;
            self.next = stored.offset + 1;
            absorbed.decoding += read - begun;
            absorbed.encoding += read.elapsed();
        }
        for (key, file) in &mut self.files {
            let bytes = file.encoder.take();
            if !bytes.is_empty() {
                absorbed.chunks.push(Chunk { key: *key, start: file.start, bytes });
            }
        }
        Ok(absorbed)
    }

    /// Ends all files.
    pub(super) fn finish(&mut self) -> Result<Vec<Finished>, ArchiveError> {
        let files = std::mem::take(&mut self.files);
        let ended =
            files.into_iter().map(|(key, file)| Ok(Finished { key, start: file.start, end: file.encoder.finish()? }));
        ended.collect()
    }

    fn read(&self, stored: &Stored) -> Result<reckon_data::record::Record, ArchiveError> {
        let corrupt =
            |reason: String| ArchiveError::Corrupt { partition: self.partition, offset: stored.offset, reason };
        if stored.offset != self.next {
            return Err(corrupt(format!("the log was asked for offset {}", self.next)));
        }
        decode(&stored.bytes).map_err(|error| corrupt(error.to_string()))
    }

    fn take(&mut self, stored: &Stored, append_time: i64, body: Body) -> Result<(), ArchiveError> {
        let origin = Origin { partition: self.partition, offset: stored.offset, append_time };
        match body {
            Body::Events(events) if stored.offset >= self.archived.events => {
                let rows = events.len().max(1);
                for (date, part) in split_by_date(event_rows(events, origin)?)? {
                    // Texts and numbers alike: a part takes its share of the record.
                    let bytes = stored.bytes.len() * part.num_rows() / rows;
                    self.file(FileKey { table: Table::Events, date }, stored.offset).push(part, bytes)?;
                }
            }
            Body::Dead(letters) if stored.offset >= self.archived.dead && !letters.is_empty() => {
                let key = FileKey { table: Table::DeadLetters, date: date_of(append_time) };
                let rows = dead_rows(&letters, origin)?;
                self.file(key, stored.offset).push(rows, stored.bytes.len())?;
            }
            Body::Cut(_) => self.cut = true,
            Body::Events(_) | Body::Dead(_) => {}
        }
        Ok(())
    }

    fn file(&mut self, key: FileKey, offset: u64) -> &mut Encoder {
        let open = || {
            let options = match key.table {
                Table::DeadLetters => properties::dead_letters(),
                _ => properties::log_ordered_events(),
            };
            OpenFile { encoder: Encoder::new(file_schema(key.table), options), start: offset }
        };
        &mut self.files.entry(key).or_insert_with(open).encoder
    }
}
