//! What befalls the server while it goes on running: its tables are away, its disk is full, its files are read-only.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::senders::Sending;
use crate::server::Server;

/// A file system with more room than that is nobody's to fill.
const FILLED_MAX: u64 = 16 << 30;
/// How long it may take to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(900);
/// Records that are behind at the end of an outage, at the least.
const LAG_MIN: u64 = 50;
/// The name of the file that fills the disk.
const BALLAST: &str = "ballast";

/// What befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Outage {
    /// Every I/O on the tables fails, as with an object store that is away.
    StoreAway,
    /// There is no room left on the file system of the folder, which has to be a small one.
    DiskFull,
    /// No folder and no file can be opened for writing.
    ReadOnly,
}

/// How the server came through an outage.
#[derive(Debug)]
pub struct Survived {
    /// How long it lasted.
    pub lasted: Duration,
    /// Resident memory before it, bytes.
    pub before: u64,
    /// The most during it and until all was caught up, bytes.
    pub peak: u64,
    /// Records of the log that were neither counted nor archived at its end.
    pub lag: u64,
    /// Requests that were refused meanwhile.
    pub refused: u64,
    /// How long it took until there were none.
    pub caught_up: Duration,
}

impl Outage {
    /// Lets it last so long, and waits until the server has caught up.
    ///
    /// # Errors
    /// When it cannot be brought about, and when the server does not come through it.
    pub async fn befall(self, server: &Server, dir: &Path, lasts: Duration, sent: &Sending) -> Result<Survived> {
        let (before, refused_before) = (server.memory()?, sent.refused());
        let begun = Instant::now();
        let mut peak = before;
        self.begin(dir)?;
        while begun.elapsed() < lasts {
            tokio::time::sleep(Duration::from_secs(1)).await;
            peak = peak.max(server.memory()?);
            if matches!(self, Self::DiskFull) {
                // What the server has freed meanwhile.
                fill(dir)?;
            }
        }
        let (lag, refused) = (server.lag().await?, sent.refused() - refused_before);
        self.end(dir)?;
        let (lasted, ended) = (begun.elapsed(), Instant::now());
        // An outage of which nothing was felt shows nothing.
        if refused == 0 && lag < LAG_MIN {
            bail!("{self:?} had no effect: {lag} records behind, no request refused");
        }
        // More comes all the time: a little is always on its way.
        while server.lag().await? > lag.min(100) / 2 + 10 {
            if ended.elapsed() > CATCH_UP_MAX {
                bail!("it has not caught up after {} s", CATCH_UP_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            peak = peak.max(server.memory()?);
        }
        Ok(Survived { lasted, before, peak, lag, refused, caught_up: ended.elapsed() })
    }

    fn begin(self, dir: &Path) -> Result<()> {
        match self {
            Self::StoreAway => {
                fs::rename(tables(dir), away(dir))?;
                // Not a folder, and none can be made in its place.
                fs::write(tables(dir), "")?;
                Ok(())
            }
            Self::DiskFull => fill(dir),
            Self::ReadOnly => each_folder(dir, 0o555),
        }
    }

    fn end(self, dir: &Path) -> Result<()> {
        match self {
            Self::StoreAway => {
                fs::remove_file(tables(dir))?;
                Ok(fs::rename(away(dir), tables(dir))?)
            }
            Self::DiskFull => Ok(fs::remove_file(dir.join(BALLAST))?),
            Self::ReadOnly => each_folder(dir, 0o755),
        }
    }
}

fn tables(dir: &Path) -> PathBuf {
    dir.join("tables")
}

fn away(dir: &Path) -> PathBuf {
    dir.join("tables.away")
}

/// Fills the file system of a folder to the last block.
fn fill(dir: &Path) -> Result<()> {
    let room = rustix::fs::statvfs(dir)?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free > FILLED_MAX {
        bail!("{} has {} GiB of room: give a folder on a small file system with --dir", dir.display(), free >> 30);
    }
    let mut ballast = File::options().create(true).append(true).open(dir.join(BALLAST))?;
    for block in [1 << 20, 4 << 10, 1] {
        let zeroes = vec![0; block];
        while ballast.write_all(&zeroes).is_ok() {}
    }
    ballast.sync_all().or(Ok(()))
}

fn each_folder(dir: &Path, mode: u32) -> Result<()> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        // First: what is made in it afterwards would be left out.
        there(fs::set_permissions(&folder, Permissions::from_mode(mode)))?;
        let Some(entries) = there(fs::read_dir(&folder)).with_context(|| folder.display().to_string())? else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                there(fs::set_permissions(entry.path(), Permissions::from_mode(mode & 0o666)))?;
            }
        }
    }
    Ok(())
}

/// Files come and go meanwhile: what is gone needs nothing.
fn there<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
