//! The open database of a log: reading, committing, trimming. Everything here blocks.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fjall::{AbstractTree, Database, Keyspace, PersistMode};
use parking_lot::Mutex;
use uuid::Uuid;

use super::super::{LogError, Stored};
use super::aside::Aside;
use super::errors::{Failure, reading, storage};
use super::home;
use super::meta::Meta;
use super::options::Options;
use super::raw;
use super::value;

/// Full buffers of one partition that may wait to be written out. At 4 the crate itself would hold the
/// commit up, and would not notice that nobody writes them any more.
const SEALED_MAX: usize = 3;
const ROOM_WAIT: Duration = Duration::from_millis(2);

/// A value with its place.
pub(super) struct Placed {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) value: Bytes,
}

/// The database of a log and its trim points.
pub(super) struct Store {
    dir: PathBuf,
    db: Database,
    meta: Meta,
    partitions: Vec<Keyspace>,
    aside: Aside,
    trim_points: Vec<AtomicU64>,
    trimming: Mutex<()>,
    write_buffer_bytes: u64,
    disk_reserve_bytes: u64,
    _lock: File,
}

impl Store {
    /// Opens the log in `dir`, or makes one; returns its durable ends too.
    pub(super) fn open(
        dir: &Path,
        options: &Options,
        identity: impl FnOnce() -> Uuid,
    ) -> Result<(Self, Vec<u64>), LogError> {
        let lock = home::lock(dir)?;
        home::create(dir, options, identity)?;
        let db = home::open(dir, options)?;
        let meta = Meta::open(&db, dir)?;
        if meta.partitions != options.partitions {
            return Err(LogError::Mismatch(format!(
                "the log in {} has {has} partitions and the configuration asks for {asked}: \
                 set partitions to {has}, or give the new log another folder",
                dir.display(),
                has = meta.partitions,
                asked = options.partitions,
            )));
        }
        let partitions = keyspaces(&db, dir, meta.partitions)?;
        let mut trim_points = Vec::new();
        let mut ends = Vec::new();
        for (partition, keyspace) in (0..).zip(&partitions) {
            let trim_point = meta.trim_point(partition)?;
            ends.push(end(keyspace)?.max(trim_point));
            trim_points.push(AtomicU64::new(trim_point));
        }
        let aside = Aside::open(&db)?;
        let store = Self {
            dir: dir.to_owned(),
            db,
            meta,
            partitions,
            aside,
            trim_points,
            trimming: Mutex::new(()),
            write_buffer_bytes: options.write_buffer_bytes,
            disk_reserve_bytes: options.disk_reserve_bytes,
            _lock: lock,
        };
        store.finish_trims()?;
        Ok((store, ends))
    }

    pub(super) const fn identity(&self) -> Uuid {
        self.meta.identity
    }

    /// The first offset that can be read; none for a partition that does not exist.
    pub(super) fn trim_point(&self, partition: u32) -> Option<u64> {
        Some(self.trim_points.get(partition as usize)?.load(Ordering::SeqCst))
    }

    /// Reads records from `from`, which the caller found to lie in `trim point..end`.
    pub(super) fn read(&self, partition: u32, from: u64, end: u64, max_bytes: usize) -> Result<Vec<Stored>, LogError> {
        let keyspace = self.partitions.get(partition as usize).ok_or(LogError::UnknownPartition { partition })?;
        let mut records: Vec<Stored> = Vec::new();
        let mut room = max_bytes;
        for offset in from..end {
            let bytes = match self.one(keyspace, partition, offset, (!records.is_empty()).then_some(room)) {
                Ok(Found::Record(bytes)) => bytes,
                Ok(Found::TooLarge) => break,
                // Those before it are as they were written; whoever reads on from here hears of it.
                Ok(Found::Nothing) | Err(_) if !records.is_empty() => break,
                Ok(Found::Nothing) => return self.gone(partition, offset),
                Err(error) => return Err(error),
            };
            room = room.saturating_sub(bytes.len());
            records.push(Stored { offset, bytes });
            if room == 0 {
                break;
            }
        }
        Ok(records)
    }

    /// The record at an offset: the one that was put in its place, if there is such a one.
    fn one(&self, keyspace: &Keyspace, partition: u32, offset: u64, room: Option<usize>) -> Result<Found, LogError> {
        match self.aside.get(partition, offset)? {
            Some(record) if room.is_some_and(|room| record.len() > room) => Ok(Found::TooLarge),
            Some(record) => Ok(Found::Record(record)),
            None => one(keyspace, partition, offset, room),
        }
    }

    /// The bytes of a record as they lie on the disk, damaged or not; none when they cannot be had.
    pub(super) fn raw(&self, partition: u32, offset: u64) -> Option<Bytes> {
        let found = raw::value(self.partitions.get(partition as usize)?, &offset.to_be_bytes())?;
        // The checksum in front is the log's, and no part of the record.
        found.get(value::HEAD_BYTES..).map(Bytes::copy_from_slice)
    }

    /// Puts a record in the place of another, durably. The caller found that one to be damaged.
    pub(super) fn set_aside(&self, partition: u32, offset: u64, record: &Bytes) -> Result<(), LogError> {
        // Not held to what is kept free of the disk: it is what lets the log be trimmed again.
        self.aside.put(&self.db, partition, offset, record)
    }

    /// A record that is not there has been trimmed in the meantime, or is lost.
    fn gone(&self, partition: u32, offset: u64) -> Result<Vec<Stored>, LogError> {
        let start = self.trim_point(partition).unwrap_or(0);
        if offset < start {
            return Err(LogError::Trimmed { partition, offset, start });
        }
        Err(LogError::Corrupt { partition, offset, reason: "the record is missing".to_owned() })
    }

    /// Stores all of `values` durably, with one sync of the journal.
    pub(super) fn commit(&self, values: Vec<Placed>) -> Result<(), Failure> {
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        for placed in values {
            let Some(keyspace) = self.partitions.get(placed.partition as usize) else {
                return Err(Failure::Storage(format!("the log has no partition {}", placed.partition)));
            };
            batch.insert(keyspace, placed.offset.to_be_bytes(), placed.value);
        }
        batch.commit().map_err(|e| Failure::from(&e))
    }

    /// Waits until there is room in memory for another commit, and looks whether there is on the disk.
    pub(super) fn make_room(&self, bytes: usize) -> Result<(), Failure> {
        // Who cannot be told takes it that there is room: a full disk is found by the write that fails.
        let free = free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free < self.disk_reserve_bytes.saturating_add(bytes as u64) {
            return Err(Failure::Full);
        }
        loop {
            let sealed = self.partitions.iter().map(|p| p.tree.sealed_memtable_count());
            let (waiting, most) = sealed.fold((0, 0), |(sum, most), n| (sum + n, n.max(most)));
            let buffered = self.db.write_buffer_size();
            if waiting == 0 && buffered > self.write_buffer_bytes / 2 {
                return self.rotate_largest().map_err(|e| Failure::from(&e));
            }
            if waiting == 0 || (most < SEALED_MAX && buffered <= self.write_buffer_bytes) {
                return Ok(());
            }
            // Fails once the crate's own thread has failed: nobody would ever make room.
            self.db.persist(PersistMode::Buffer).map_err(|e| Failure::from(&e))?;
            thread::sleep(ROOM_WAIT);
        }
    }

    /// Hands the largest buffer over to be written out, whatever its size.
    fn rotate_largest(&self) -> Result<(), fjall::Error> {
        let largest = self.partitions.iter().max_by_key(|p| p.tree.active_memtable().size());
        largest.map_or(Ok(()), |keyspace| keyspace.rotate_memtable().map(|_| ()))
    }

    /// Moves the trim point, durably, then frees what lies below. The caller found `below` not to pass the end.
    pub(super) fn trim(&self, partition: u32, below: u64) -> Result<(), LogError> {
        let slot = self.trim_points.get(partition as usize).ok_or(LogError::UnknownPartition { partition })?;
        let _one_at_a_time = self.trimming.lock();
        if below <= slot.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.db.persist(PersistMode::Buffer).map_err(|e| storage(&e))?;
        self.meta.set_trim_point(&self.db, partition, below)?;
        slot.store(below, Ordering::SeqCst);
        if self.remove_below(partition, below)? { self.meta.rotate() } else { Ok(()) }
    }

    /// Frees what trims before the last stop had no time for.
    fn finish_trims(&self) -> Result<(), LogError> {
        for (partition, trim_point) in (0..).zip(&self.trim_points) {
            self.remove_below(partition, trim_point.load(Ordering::SeqCst))?;
        }
        Ok(())
    }

    /// Drops the files whose records all lie below; whether there were any. The newest file always stays: from it
    /// the crate knows what has left the journal, and without it would keep an idle partition's journals for ever.
    fn remove_below(&self, partition: u32, below: u64) -> Result<bool, LogError> {
        let Some(keyspace) = self.partitions.get(partition as usize) else { return Ok(false) };
        let version = keyspace.tree.current_version();
        let ranges = version.iter_tables().map(|table| &table.metadata.key_range);
        let Some(newest) = ranges.map(|range| range.min()).max() else { return Ok(false) };
        let bound = below.to_be_bytes().as_slice().min(newest.as_ref()).to_vec();
        if !version.iter_tables().any(|table| table.metadata.key_range.max().as_ref() < bound.as_slice()) {
            return Ok(false);
        }
        keyspace.tree.drop_range(..bound).map_err(|e| storage(&e.into()))?;
        Ok(true)
    }

    /// Forces everything that was written to the disk.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.db.persist(PersistMode::SyncAll).map_err(|e| storage(&e))
    }

    #[cfg(test)]
    pub(super) const fn db(&self) -> &Database {
        &self.db
    }
}

fn keyspaces(db: &Database, dir: &Path, partitions: u32) -> Result<Vec<Keyspace>, LogError> {
    let there = db.list_keyspace_names();
    let open = |partition| {
        let name = home::keyspace_name(partition);
        // Asked for by name, a lost one would be made anew, empty.
        if !there.iter().any(|known| **known == *name) {
            return Err(LogError::Storage(format!(
                "the log in {} is damaged: partition {partition} is gone",
                dir.display()
            )));
        }
        db.keyspace(&name, Default::default).map_err(|e| storage(&e))
    };
    (0..partitions).map(open).collect()
}

/// What lies at an offset.
enum Found {
    Record(Bytes),
    /// A record of more bytes than there is room for.
    TooLarge,
    Nothing,
}

/// The record at an offset, if it is no larger than the room there may be.
fn one(keyspace: &Keyspace, partition: u32, offset: u64, room: Option<usize>) -> Result<Found, LogError> {
    let key = offset.to_be_bytes();
    let failed = |error| reading(&error, partition, offset);
    if let Some(room) = room {
        let size = keyspace.size_of(key).map_err(failed)?;
        if size.is_some_and(|size| size as usize > room.saturating_add(value::HEAD_BYTES)) {
            return Ok(Found::TooLarge);
        }
    }
    match keyspace.get(key).map_err(failed)? {
        Some(stored) => Ok(Found::Record(value::unwrap(&stored.into(), partition, offset)?)),
        None => Ok(Found::Nothing),
    }
}

/// The offset after the last one stored.
fn end(keyspace: &Keyspace) -> Result<u64, LogError> {
    let Some(last) = keyspace.last_key_value() else { return Ok(0) };
    let key = last.key().map_err(|e| storage(&e))?;
    match key.as_ref().try_into() {
        Ok(offset) => Ok(u64::from_be_bytes(offset) + 1),
        Err(_) => Err(LogError::Storage(format!("the log holds a key of {} bytes", key.len()))),
    }
}

#[cfg(unix)]
fn free_bytes(dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Elsewhere a full disk is found by the write that fails.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}
