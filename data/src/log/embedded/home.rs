//! The log's folder: one owner at a time, and made in one step.
//!
//! ```text
//! dir/lock        held while the log is open
//! dir/store/      the storage crate's database; appears by a rename, whole
//! dir/store.new/  a log that was being made when its process died; thrown away
//! dir/ends        the high-water mark
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fjall::config::FilterPolicy;
use fjall::{CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use uuid::Uuid;

use super::super::LogError;
use super::errors::{io_failed, storage};
use super::meta::Meta;
use super::options::Options;

/// Open files the storage crate may keep.
const FILES_MAX: usize = 128;
/// A log that was just closed in this process lets go of its lock a moment later.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Takes the folder's lock, which lasts as long as the file is open.
pub(super) fn lock(dir: &Path) -> Result<File, LogError> {
    let failed = |error: &io::Error| io_failed(&format!("locking {}", dir.display()), error);
    fs::create_dir_all(dir).map_err(|e| failed(&e))?;
    let file =
        File::options().create(true).write(true).truncate(false).open(dir.join("lock")).map_err(|e| failed(&e))?;
    for _ in 1..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(e)) => return Err(failed(&e)),
        }
    }
    Err(LogError::Storage(format!("another process has it open (the log in {})", dir.display())))
}

/// Makes a new log, unless there is one.
pub(super) fn create(dir: &Path, options: &Options, identity: impl FnOnce() -> Uuid) -> Result<(), LogError> {
    let (home, fresh) = (home(dir), dir.join("store.new"));
    let failed = |error: io::Error| io_failed(&format!("making a log in {}", dir.display()), &error);
    if home.try_exists().map_err(failed)? {
        return Ok(());
    }
    if fresh.try_exists().map_err(failed)? {
        fs::remove_dir_all(&fresh).map_err(failed)?;
    }
    let db = database(&fresh, options)?;
    for partition in 0..options.partitions {
        db.keyspace(&keyspace_name(partition), || keyspace_options(options)).map_err(|e| storage(&e))?;
    }
    Meta::create(&db, identity(), options.partitions)?;
    db.persist(PersistMode::SyncAll).map_err(|e| storage(&e))?;
    drop(db);
    fs::rename(&fresh, &home).map_err(failed)?;
    sync_folder(dir).map_err(failed)
}

/// Opens the database of an existing log.
pub(super) fn open(dir: &Path, options: &Options) -> Result<Database, LogError> {
    let home = home(dir);
    // Without its version file the crate would take the folder for an empty one, and make a database in it.
    if !home.join("version").is_file() {
        return Err(LogError::Storage(format!("the log in {} is damaged: its version file is gone", dir.display())));
    }
    database(&home, options)
}

/// The name of a partition's keyspace.
pub(super) fn keyspace_name(partition: u32) -> String {
    format!("partition-{partition:05}")
}

fn home(dir: &Path) -> PathBuf {
    dir.join("store")
}

fn database(path: &Path, options: &Options) -> Result<Database, LogError> {
    let open = || {
        Database::builder(path)
            .cache_size(options.cache_bytes)
            // One thread is enough to write buffers out; of two, the crate lets one spin while the other works.
            .worker_threads(1)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(options.journal_bytes)
            .journal_compression(CompressionType::None)
            .open()
    };
    // The crate asserts some things about its files that a damaged disk can make untrue.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(fjall::Error::Locked)) => {
            Err(LogError::Storage(format!("another process has it open (the log in {})", path.display())))
        }
        Ok(Err(error)) => Err(storage(&error)),
        Err(_) => Err(LogError::Storage(format!("the log in {} is damaged: its files do not fit", path.display()))),
    }
}

/// Offsets only grow, so buffers become files with ranges that do not overlap. Such files are never merged
/// (the FIFO strategy without a limit) and trim drops whole ones. Nothing is compressed, neither here nor in the
/// records: the log is a buffer that is read within seconds, where processor time is scarcer than space.
fn keyspace_options(options: &Options) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(options.memtable_bytes)
        .compaction_strategy(std::sync::Arc::new(fjall::compaction::Fifo::new(u64::MAX, None)))
        .filter_policy(FilterPolicy::disabled())
        .with_kv_separation(Some(KvSeparationOptions::default().compression(CompressionType::None)))
}

/// Makes a rename in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}
