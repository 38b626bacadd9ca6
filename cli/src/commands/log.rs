//! `reckon log`: the embedded log, while no server has it; and what is lost of any log.

mod accept;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use reckon_batch::lock::{DirLock, LockError};
use reckon_data::clock::{Clock as _, RandomNames, SystemClock};
use reckon_data::config::Settings;
use reckon_data::damage::Damaged;
use reckon_data::log::embedded::EmbeddedLog;
use reckon_data::log::{Log as _, LogError};
use reckon_data::lost::LostRecord;
use reckon_data::minute::format_time;
use reckon_data::paths::Transaction;
use reckon_data::table::{Table, Tables as _};
use reckon_tables::{DeltaTables, MendedLog, Storage, Unmendable, is_local, local_folder};
use serde_json::json;

use accept::Accept;

use crate::node::{is_embedded, local_dir, log_folder, log_options};

/// The log.
#[derive(Debug, Args)]
pub struct Log {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give up a damaged record, so that its partition goes on: a dead letter takes its place. The server has to be stopped.
    SetAside(SetAside),
    /// Accept that records had gone from the log before they were archived, so that answers do not name them as missing any more.
    Accept(Accept),
}

/// Give up a damaged record.
#[derive(Debug, Args)]
struct SetAside {
    /// The partition of the record, as it is named in /readyz.
    #[arg(long, value_name = "NUMBER")]
    partition: u32,
    /// The offset of the record.
    #[arg(long, value_name = "NUMBER")]
    offset: u64,
    /// Do it. Without it, only what would be lost is said.
    #[arg(long)]
    yes: bool,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

impl Log {
    /// Does what was asked for.
    ///
    /// # Errors
    /// When a server has the log, and when there is nothing to do.
    pub async fn run(self, settings: Settings) -> Result<()> {
        match self.action {
            Action::SetAside(set_aside) => set_aside.run(settings).await,
            Action::Accept(accept) => accept.run(settings).await,
        }
    }
}

impl SetAside {
    async fn run(self, settings: Settings) -> Result<()> {
        if !is_embedded(&settings) {
            bail!("records of {} are not set aside here: that log has copies of its own", settings.log.url);
        }
        let dir = local_dir(&settings)?;
        if !log_folder(&dir).exists() {
            bail!("there is no log in {}: --data-dir names the folder of a server", dir.display());
        }
        let _lock = lock(&dir, "log set-aside", "a record is set aside only while nobody has the log")?;
        let log = EmbeddedLog::open(&log_folder(&dir), log_options(&settings), &RandomNames)
            .with_context(|| format!("the log in {} cannot be opened", dir.display()))?;
        let log = Arc::new(log);
        let done = self.decide(&settings, &dir, &log).await;
        log.close().await.context("the log was not closed in order")?;
        done
    }

    /// Looks at the record and, when it is to be done and is right, gives it up.
    async fn decide(&self, settings: &Settings, dir: &Path, log: &Arc<EmbeddedLog>) -> Result<()> {
        let Self { partition, offset, .. } = *self;
        let lost = LostRecord::find(log, partition, offset, SystemClock.now()).await?;
        let lost = lost.ok_or(LogError::Whole { partition, offset })?;
        let copy = other_copy(settings, log, &lost).await?;
        let mut kept = None;
        if self.yes {
            // Where the archiver is past the record nobody will list the dead letter: the file may be all there is.
            kept = keep(dir, &lost)?;
            log.set_aside(partition, offset, lost.instead()?).await?;
        }
        if self.json {
            println!("{}", self.told(&lost, &copy, kept.as_deref()));
        } else {
            self.tell(settings, &lost, &copy, kept.as_deref());
        }
        Ok(())
    }

    fn told(&self, lost: &LostRecord, copy: &str, kept: Option<&Path>) -> serde_json::Value {
        json!({
            "partition": lost.partition,
            "offset": lost.offset,
            "reason": lost.reason,
            "events": lost.header.map(|header| header.events),
            "append_time": lost.header.map(|header| format_time(header.append_time)),
            "bytes": lost.bytes.as_ref().map(bytes::Bytes::len),
            "other_copy": copy,
            "kept": kept.map(Path::to_path_buf),
            "set_aside": self.yes,
        })
    }

    fn tell(&self, settings: &Settings, lost: &LostRecord, copy: &str, kept: Option<&Path>) {
        let LostRecord { partition, offset, reason, .. } = lost;
        println!("the record at partition {partition}, offset {offset} is damaged: {reason}");
        println!("{}", header_of(lost));
        match &lost.bytes {
            Some(bytes) => println!("{} bytes of it are there", bytes.len()),
            None => println!("none of its bytes are there"),
        }
        println!("{copy}");
        if let Some(kept) = kept {
            println!("its bytes as they were found are kept in {}", kept.display());
        }
        if self.yes {
            println!("it is given up: a dead letter (damaged_record) stands in its place, and its partition goes on");
            return;
        }
        println!("nothing was done. To lose it, and let its partition go on:");
        println!(
            "  reckon log set-aside --data-dir {} --log-partitions {} --partition {partition} --offset {offset} --yes",
            settings.data_dir, settings.log.partitions
        );
    }
}

/// Puts the bytes of a record that is given up into a file of its own, for good; none when there are no bytes.
fn keep(dir: &Path, lost: &LostRecord) -> Result<Option<PathBuf>> {
    let Some(bytes) = &lost.bytes else { return Ok(None) };
    let folder = dir.join("set-aside");
    let path = folder.join(format!("partition-{}-offset-{}", lost.partition, lost.offset));
    let write = || -> io::Result<()> {
        fs::create_dir_all(&folder)?;
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        if cfg!(unix) {
            File::open(&folder)?.sync_all()?;
        }
        Ok(())
    };
    write().with_context(|| format!("nothing was done: its bytes cannot be kept in {}", path.display()))?;
    Ok(Some(path))
}

/// What has to be known of a record that the archiver may be past.
const NO_LETTER: &str = "Where the archiver is past the record, no dead letter of it will be listed: the file that its \
                         bytes are kept in is all there is of it";

/// What has to be known where raw events have some of a record.
const KEPT_ROWS: &str = "What the raw events have of it stays: do not send it again. Run `reckon batch` afterwards, for \
                         until then answers lack what was not sealed of it";

/// Nobody else may work in the folder, nor start to while this command does, and why.
fn lock(dir: &Path, command: &str, why: &str) -> Result<DirLock> {
    DirLock::acquire(dir, command).map_err(|error| match error {
        LockError::Held { dir, holder } => anyhow!("{dir} is in use by {holder}: stop it first, {why}"),
        other => other.into(),
    })
}

/// What the tables have of the record.
///
/// # Errors
/// When they have all of it: it is made anew from them at every read, and nothing has to be given up. When they do not
/// answer, or are not those of this log: what they have may not be given up unseen.
async fn other_copy(settings: &Settings, log: &Arc<EmbeddedLog>, lost: &LostRecord) -> Result<String> {
    let LostRecord { partition, offset, .. } = *lost;
    let dir = &settings.data_dir;
    if is_local(dir) && !local_folder(dir)?.join("tables").exists() {
        bail!("there are no tables in {dir}: is it mounted? What they have of the record may not be given up");
    }
    let storage = Storage::open_with_cold(dir, &settings.retention.cold_url).await?;
    let tables = Arc::new(DeltaTables::new(storage.clone(), Arc::new(SystemClock))?);
    let mended = MendedLog::new(Arc::clone(log) as _, Arc::clone(&tables) as _, storage.store());
    let events = tables.snapshot(Table::Events).await?;
    if let Some(other) = events.other_log("archive", log.identity()) {
        bail!("the tables in {dir} are those of another log ({other}): is it the right folder?");
    }
    let error = match mended.rebuild(partition, offset).await {
        Ok(_) => bail!(
            "the record at partition {partition}, offset {offset} is archived, and is made anew from the tables whenever it \
             is read: nothing has to be given up"
        ),
        Err(error) => error,
    };
    match error {
        Unmendable::NotArchived => {
            let archived = events.transaction(&Transaction::Archive(log.identity(), partition).to_string());
            let start = log.extent(partition).await?.start;
            if u64::try_from(archived).is_ok_and(|archived| archived < start) {
                bail!("the tables in {dir} are older than this log: is it the right folder?");
            }
            Ok("it is not archived: there is no other copy of it".to_owned())
        }
        Unmendable::Nothing => Ok(format!("there is no other copy of it: {error}. {NO_LETTER}")),
        Unmendable::Table(error) if Damaged::cause(&error).is_none() => {
            bail!("nothing was done, for the tables do not say whether they have the record: {error}")
        }
        error if Damaged::cause(&error).is_some() => Ok(format!(
            "what the tables have of it is damaged, too: {error}. {KEPT_ROWS}. {NO_LETTER}. Batch runs that need the damaged \
             file will fail"
        )),
        error => Ok(format!("whether the tables have all of it cannot be told: {error}. {KEPT_ROWS}. {NO_LETTER}")),
    }
}

fn header_of(lost: &LostRecord) -> String {
    match lost.header {
        Some(header) => format!(
            "its header, if that is right, says: {} events, appended at {}",
            header.events,
            format_time(header.append_time)
        ),
        None => "its header cannot be read: how many events it holds, nobody knows".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use reckon_data::record::{Header, Kind};

    use super::*;

    #[test]
    fn what_would_be_lost_is_said() {
        let header = Header { kind: Kind::Events, routing: 0, append_time: 0, events: 120 };
        let mut lost = LostRecord {
            partition: 1,
            offset: 7,
            reason: "a bit".to_owned(),
            bytes: None,
            header: Some(header),
            append_time: 0,
        };
        assert!(header_of(&lost).contains("120 events, appended at 1970-01-01T00:00:00Z"));
        lost.header = None;
        assert!(header_of(&lost).contains("cannot be read"));
    }

    #[test]
    fn a_server_has_to_be_stopped_first() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DirLock::acquire(dir.path(), "up").unwrap();
        let error = lock(dir.path(), "log set-aside", "nobody may have the log").unwrap_err().to_string();
        assert!(error.contains("reckon up") && error.contains("stop it first"), "{error}");
    }
}
