//! One log partition in a round: reads records, has them encoded, and streams what is finished into the store.

use std::collections::BTreeMap;
use std::time::Instant as StdInstant;

use futures::{StreamExt as _, TryStreamExt as _};
use reckon_data::log::{LogError, Stored};
use reckon_data::offload::offload;
use reckon_data::paths;
use reckon_data::table::{DataFile, Table};
use tokio::time::{Instant, sleep_until};

use super::error::ArchiveError;
use super::open::{Archived, Chunk, FileKey, Finished, Open};
use super::round::{FILES_MAX, Progress, Round};
use super::shared::Shared;
use super::upload::Upload;

/// Bytes of records read at once.
const READ_BYTES: usize = 4 << 20;
/// Files of a partition that are completed at the same time.
const UPLOADS_MAX: usize = 8;

/// One log partition in a round.
#[derive(Debug)]
pub(super) struct Lane {
    /// Which of the round's.
    at: usize,
    partition: u32,
    begun: u64,
    // Away while a thread works on it; if that work is lost, so is the round.
    open: Option<Open>,
    uploads: BTreeMap<FileKey, Upload>,
}

impl Lane {
    /// A partition that is archived so far.
    pub(super) fn new(at: usize, partition: u32, archived: Archived) -> Self {
        let begun = archived.both();
        let open = Some(Open::new(partition, archived, begun));
        Self { at, partition, begun, open, uploads: BTreeMap::new() }
    }

    /// The offset after the last record taken.
    pub(super) fn next(&self) -> u64 {
        self.open.as_ref().map_or(self.begun, Open::next)
    }

    /// The latest append time taken.
    pub(super) fn append_time(&self) -> i64 {
        self.open.as_ref().map_or(0, Open::append_time)
    }

    /// Reads and encodes until the round closes. At a record that cannot be read it rests, and tries again later: what
    /// was read before is committed all the same, and so is what comes of other partitions meanwhile.
    pub(super) async fn gather(&mut self, shared: &Shared, round: &Round) -> Result<(), ArchiveError> {
        let mut closing = round.closing();
        let mut end = shared.log.watch_end(self.partition).map_err(ArchiveError::Log)?;
        loop {
            if *closing.borrow_and_update() {
                return Ok(());
            }
            let resting = shared.faults.borrow().get(&self.partition).map(|fault| fault.until);
            if let Some(until) = resting.filter(|until| *until > Instant::now()) {
                tokio::select! {
                    biased;
                    _ = closing.changed() => {}
                    () = sleep_until(until) => {}
                }
                continue;
            }
            // Marked as seen before reading: an append in between is noticed below.
            end.borrow_and_update();
            if self.step(shared, round).await? {
                continue;
            }
            tokio::select! {
                biased;
                _ = closing.changed() => return Ok(()),
                changed = end.changed() => {
                    changed.map_err(|_| ArchiveError::Log(LogError::Storage("the log was closed".to_owned())))?;
                }
            }
        }
    }

    /// Reads and encodes once; whether there may be more to read.
    async fn step(&mut self, shared: &Shared, round: &Round) -> Result<bool, ArchiveError> {
        let begun = self.next();
        let (more, fault) = match read(shared, self.partition, begun).await {
            Ok(records) if records.is_empty() => (false, None),
            Ok(records) => (true, self.absorb(shared, records).await?),
            Err(error) if error.is_of_one_partition() => (true, Some(error)),
            Err(error) => return Err(error),
        };
        let next = self.next();
        if next > begun || !more {
            shared.go_on(self.partition);
        }
        if let Some(fault) = fault {
            shared.rest(self.partition, next, fault);
        }
        if next > begun {
            round.report(self.at, self.progress());
        }
        Ok(more)
    }

    /// Ends the partition's files. Returns them, durable, with their tables.
    pub(super) async fn finish(&mut self, shared: &Shared) -> Result<Vec<(Table, DataFile)>, ArchiveError> {
        let mut open = self.take_open()?;
        let (open, finished) = {
            let _turn = shared.encoders.acquire().await;
            let begun = StdInstant::now();
            let done = offload(move || {
                let finished = open.finish();
                (open, finished)
            });
            let done = done.await?;
            shared.counters.encode.add(begun.elapsed());
            done
        };
        self.open = Some(open);
        let begun = StdInstant::now();
        let mut work = Vec::new();
        for file in finished? {
            let upload = self.uploads.remove(&file.key);
            let upload = upload.unwrap_or_else(|| new_upload(shared, self.partition, file.key, file.start));
            work.push(complete(upload, file));
        }
        let files = futures::stream::iter(work).buffer_unordered(UPLOADS_MAX).try_collect().await?;
        shared.counters.store.add(begun.elapsed());
        Ok(files)
    }

    /// Gives up what was stored of unfinished files.
    pub(super) async fn abandon(self) {
        for upload in self.uploads.into_values() {
            upload.abort().await;
        }
    }

    /// Takes records in, until one cannot be decoded: why not.
    async fn absorb(&mut self, shared: &Shared, records: Vec<Stored>) -> Result<Option<ArchiveError>, ArchiveError> {
        let mut open = self.take_open()?;
        let (open, absorbed) = {
            let _turn = shared.encoders.acquire().await;
            let done = offload(move || {
                let absorbed = open.absorb(&records, FILES_MAX);
                (open, absorbed)
            });
            done.await?
        };
        self.open = Some(open);
        let absorbed = absorbed?;
        shared.counters.decode.add(absorbed.decoding);
        shared.counters.encode.add(absorbed.encoding);
        let begun = StdInstant::now();
        for Chunk { key, start, bytes } in absorbed.chunks {
            let upload = self.uploads.entry(key).or_insert_with(|| new_upload(shared, self.partition, key, start));
            upload.write(bytes).await?;
        }
        shared.counters.store.add(begun.elapsed());
        Ok(absorbed.fault)
    }

    fn progress(&self) -> Progress {
        let extent = self.open.as_ref().map(Open::extent).unwrap_or_default();
        let cut = self.open.as_ref().is_some_and(Open::has_cut);
        Progress { next: self.next(), moved: self.next() > self.begun, cut, extent }
    }

    fn take_open(&mut self) -> Result<Open, ArchiveError> {
        self.open.take().ok_or_else(|| ArchiveError::Thread("its work was lost".to_owned()))
    }
}

async fn read(shared: &Shared, partition: u32, from: u64) -> Result<Vec<Stored>, ArchiveError> {
    let begun = StdInstant::now();
    let read = shared.log.read(partition, from, READ_BYTES).await;
    shared.counters.read.add(begun.elapsed());
    read.map_err(|error| match error {
        LogError::Corrupt { partition, offset, reason } => ArchiveError::Corrupt { partition, offset, reason },
        LogError::Trimmed { partition, start, .. } => ArchiveError::Trimmed { partition, archived: from, start },
        other => ArchiveError::Log(other),
    })
}

fn new_upload(shared: &Shared, partition: u32, key: FileKey, start: u64) -> Upload {
    let (column, value) = key.partition();
    let name = paths::growing_file(partition, start, shared.names.fresh());
    Upload::new(&shared.store, key.table, paths::partition_folder(column, &value) + &name)
}

async fn complete(mut upload: Upload, file: Finished) -> Result<(Table, DataFile), ArchiveError> {
    let Finished { key, end, .. } = file;
    upload.write(end.bytes).await?;
    let (path, bytes) = upload.finish().await?;
    let (column, value) = key.partition();
    let partition = BTreeMap::from([(column.to_owned(), Some(value))]);
    Ok((key.table, DataFile { path, bytes, rows: end.rows, partition, min: end.min, max: end.max }))
}
