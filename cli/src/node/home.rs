//! What lies on this machine, and the log, which may lie elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use object_store::path::Path;
use object_store::{Error, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions};
use reckon_data::clock::{Clock, Names};
use reckon_data::config::Settings;
use reckon_data::log::Log;
use reckon_data::log::embedded::{EmbeddedLog, Options};
use reckon_data::table::{Table, Tables};
use reckon_fluvio::{Address, FluvioLog};
use reckon_tables::{Storage, is_local, local_folder};
use uuid::Uuid;

/// The embedded log, in the settings.
const EMBEDDED: &str = "embedded";
/// The folder of the embedded log.
const LOG_FOLDER: &str = "log";
/// The folder of what is written down of the log in the data directory.
const LOG_FOLDER_SHARED: &str = "logs";
/// The object that says which log the data directory has.
const IDENTITY: &str = "identity";

/// The folder of this machine that a process works in.
///
/// # Errors
/// When the data directory is not on this machine, and nothing else is.
pub fn local_dir(settings: &Settings) -> Result<PathBuf> {
    if !settings.local_dir.is_empty() {
        return Ok(PathBuf::from(&settings.local_dir));
    }
    if !is_local(&settings.data_dir) {
        bail!(
            "--data-dir {} is not on this machine: --local-dir names a folder that is, for the lock, for temporary files and for the \
             embedded log",
            settings.data_dir
        );
    }
    Ok(local_folder(&settings.data_dir)?)
}

/// Whether the log is the one in this machine's folder.
#[must_use]
pub fn is_embedded(settings: &Settings) -> bool {
    settings.log.url == EMBEDDED
}

/// The folder of the embedded log.
#[must_use]
pub fn log_folder(local_dir: &std::path::Path) -> PathBuf {
    local_dir.join(LOG_FOLDER)
}

/// Opens the log of the settings.
///
/// # Errors
/// What stands in its way.
pub async fn open_log(
    settings: &Settings,
    local_dir: &std::path::Path,
    storage: &Storage,
    clock: &Arc<dyn Clock>,
    names: &dyn Names,
) -> Result<Arc<dyn Log>> {
    if is_embedded(settings) {
        let log = EmbeddedLog::open(&log_folder(local_dir), log_options(settings), names);
        return Ok(Arc::new(log.with_context(|| format!("the log in {} cannot be opened", local_dir.display()))?));
    }
    let options = reckon_fluvio::Options {
        address: Address::parse(&settings.log.url)?,
        partitions: settings.log.partitions,
        replicas: settings.log.replicas,
        keep: settings.log.keep,
        foreign: true,
    };
    let log = FluvioLog::open(options, storage.beside(LOG_FOLDER_SHARED)?, Arc::clone(clock), names).await;
    Ok(Arc::new(log.with_context(|| format!("the log {} cannot be opened", settings.log.url))?))
}

/// Sees to it that a data directory has one log: the first that it is opened with, for good. Two servers with logs of their
/// own would both count into the same tables.
///
/// # Errors
/// When it has another.
pub async fn claim(storage: &Storage, tables: &dyn Tables, log: Uuid) -> Result<()> {
    for (table, kind) in [(Table::Events, "archive"), (Table::StreamCounts, "stream")] {
        if let Some(other) = tables.snapshot(table).await?.other_log(kind, log) {
            bail!("the tables are those of another log ({other}), this one is {log}: is it the right data directory?");
        }
    }
    let (store, path) = (storage.beside(LOG_FOLDER_SHARED)?, Path::from(IDENTITY));
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(&path, log.to_string().into(), options).await {
        Ok(_) => return Ok(()),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
        Err(error) => return Err(error).context("the data directory does not say which log it has"),
    }
    let text = store.get(&path).await?.bytes().await?;
    let text = String::from_utf8_lossy(&text);
    if text.trim() == log.to_string() {
        return Ok(());
    }
    bail!(
        "the data directory is that of log {text}, and this one is {log}: another server works with it, or did; give this one another \
         --data-dir, or the log that it had (--local-dir, --log-url)"
    )
}

/// How the settings want the embedded log. Its share of memory: half for what waits to be written, the rest for what
/// was read.
#[must_use]
pub fn log_options(settings: &Settings) -> Options {
    let memory = settings.log.memory.as_u64();
    let defaults = Options::default();
    Options {
        partitions: settings.log.partitions,
        write_buffer_bytes: (memory / 2).max(defaults.memtable_bytes * 2),
        cache_bytes: memory / 4,
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_elsewhere_needs_a_folder_here() {
        let mut settings = Settings { data_dir: "s3://bucket/x".to_owned(), ..Settings::default() };
        assert!(local_dir(&settings).unwrap_err().to_string().contains("--local-dir"));
        settings.local_dir = "here".to_owned();
        assert_eq!(local_dir(&settings).unwrap(), PathBuf::from("here"));
        let settings = Settings { data_dir: "there".to_owned(), ..Settings::default() };
        assert_eq!(local_dir(&settings).unwrap(), PathBuf::from("there"));
    }
}
