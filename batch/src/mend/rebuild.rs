//! The raw events of a date and log partition, made anew from the log whatever the table says of them.
//!
//! ```text
//! offsets   0 ········ begin ·················· archived
//! log                    ├──────────────────────────┤
//! files     ├─ kept ─┤├─ kept ─┤├─ replaced ─┤├─ replaced ─┤
//!                              from ────────────────┤  is written anew
//! ```
//!
//! `archived` stands in the very version that the commit follows, so no row of an archiver's later commit is touched. Nothing
//! is removed that is not made anew: what begins where the log no longer does is kept, and so is every file that begins
//! below the end of one that is kept. Files are not read, so one that is missing is replaced like any other.
//!
//! A record that cannot be read, or was given up, stops it only where a file that is replaced may have rows of it. Elsewhere
//! nothing of it is removed: it is left out, and named.

use std::fmt;
use std::ops::Range;

use reckon_data::log::LogError;
use reckon_data::minute::{format_date, parse_date};
use reckon_data::paths::Transaction;
use reckon_data::table::{DataFile, Snapshot, Table, TableError};

use super::place::Place;
use super::rewrite::Rewritten;
use super::stretch::Stretch;
use super::{Change, Mender, rows_of};
use crate::maintain::MaintainError;

/// How often it is planned anew, when somebody else has committed meanwhile or the log was trimmed.
const ATTEMPTS: u32 = 5;

/// What [`Mender::rebuild`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Files of before that are gone from the table.
    pub removed: Vec<String>,
    /// Files in their place.
    pub added: Vec<String>,
    /// Rows of the files removed.
    pub rows_before: u64,
    /// Rows of the files added.
    pub rows_after: u64,
    /// From which offset on raw events were made anew.
    pub from: u64,
    /// Up to which offset; as [`Rebuilt::from`] when there was nothing that could be.
    pub to: u64,
    /// Files of before that stay.
    pub kept: Vec<Kept>,
    /// Offsets of records that cannot be read or were given up: what they held of the date, the log cannot say.
    pub skipped: Vec<u64>,
}

/// A file that was not made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The file.
    pub file: String,
    /// Why it stays.
    pub why: Why,
}

/// Why a file is not made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The log no longer has the records that its first rows come from.
    Gone,
    /// It begins below the end of a file that stays.
    Beside,
    /// It holds rows of other partitions too.
    Mixed,
    /// Its statistics do not say where its rows come from: nothing beside it can be made anew, for it may hold that too.
    Unplaced,
    /// It says to hold rows that are not archived yet.
    NotArchived,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the log no longer has the records that its first rows come from",
            Self::Beside => "it begins below the end of a file that stays",
            Self::Mixed => "it holds rows of other partitions too",
            Self::Unplaced => "its statistics do not say where its rows come from, so nothing beside it is made anew",
            Self::NotArchived => "it says to hold rows that are not archived yet",
        })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.why)
    }
}

/// What of a partition can be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The first offset that the log has.
    pub(super) begin: u64,
    /// Up to which offset the table has events.
    pub(super) archived: u64,
    /// Whether retention may have removed raw events of the date: they must not come back.
    pub(super) closed: bool,
}

/// Which files are replaced, and by which offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) offsets: Range<u64>,
    pub(super) replaced: Vec<DataFile>,
    pub(super) kept: Vec<Kept>,
}

impl Plan {
    /// For the files of a date, those of other partitions among them.
    pub(super) fn of(files: &[DataFile], partition: u32, bounds: Bounds) -> Self {
        let (mut from, mut kept, mut placed) = (bounds.begin, Vec::new(), Vec::new());
        for file in files {
            let Some(place) = Place::of(file) else {
                kept.push(Kept::new(file, Why::Unplaced));
                from = u64::MAX;
                continue;
            };
            if !place.partitions.contains(&partition) {
                continue;
            }
            let (first, end) = (*place.offsets.start(), place.offsets.end().saturating_add(1));
            let why = match place.partition() {
                None => Why::Mixed,
                Some(_) if end > bounds.archived => Why::NotArchived,
                Some(_) => {
                    placed.push((first, end, file));
                    continue;
                }
            };
            kept.push(Kept::new(file, why));
            from = from.max(end);
        }
        placed.sort_by_key(|(first, end, _)| (*first, *end));
        if bounds.closed {
            // What lies below the first file that is left, retention has removed.
            from = from.max(placed.first().map_or(bounds.archived, |(first, ..)| *first));
        }
        let mut replaced = Vec::new();
        for (first, end, file) in placed {
            if first >= from {
                replaced.push(file.clone());
                continue;
            }
            let why = if first < bounds.begin { Why::Gone } else { Why::Beside };
            kept.push(Kept::new(file, why));
            from = from.max(end);
        }
        Self { offsets: from.min(bounds.archived)..bounds.archived, replaced, kept }
    }

    /// What it comes to with these files.
    fn done(&self, add: &[DataFile]) -> Rebuilt {
        let paths = |files: &[DataFile]| files.iter().map(|file| file.path.clone()).collect();
        Rebuilt {
            removed: paths(&self.replaced),
            added: paths(add),
            rows_before: rows_of(&self.replaced),
            rows_after: rows_of(add),
            from: self.offsets.start,
            to: self.offsets.end,
            kept: self.kept.clone(),
            skipped: Vec::new(),
        }
    }
}

impl Kept {
    fn new(file: &DataFile, why: Why) -> Self {
        Self { file: file.path.clone(), why }
    }
}

impl Mender {
    /// Makes the raw events of a date (days since 1970) and log partition anew, as far as the log still holds them, and puts
    /// them in the place of the files there are, in one commit. Whether their number changes or not: rows may have been changed
    /// or exchanged.
    ///
    /// # Errors
    /// See [`MaintainError`]; nothing is changed then, unless the outcome of the commit is unknown.
    pub async fn rebuild(&self, date: i32, partition: u32) -> Result<Rebuilt, MaintainError> {
        let mut attempt = 1;
        loop {
            match self.try_to_rebuild(date, partition).await {
                Err(error) if attempt < ATTEMPTS && is_overtaken(&error) => {
                    tracing::info!(date = format_date(date), partition, %error, "raw events are made anew once more");
                    attempt += 1;
                }
                rebuilt => return rebuilt,
            }
        }
    }

    async fn try_to_rebuild(&self, date: i32, partition: u32) -> Result<Rebuilt, MaintainError> {
        let begin = self.parts.log.extent(partition).await?.start;
        let snapshot = self.parts.tables.snapshot(Table::Events).await?;
        let bounds = self.bounds(&snapshot, date, partition, begin);
        let is_meant = |file: &&DataFile| {
            file.partition.get("event_date").and_then(Option::as_deref).and_then(parse_date) == Some(date)
        };
        let files: Vec<DataFile> = snapshot.files.iter().filter(is_meant).cloned().collect();
        let plan = Plan::of(&files, partition, bounds);
        let removed = plan.replaced.iter().filter_map(Place::of).map(|place| place.offsets).collect();
        let stretch = Stretch { table: Table::Events, partition, date, offsets: plan.offsets.clone(), removed };
        let Rewritten { files: add, skipped } = self.rewrite(&stretch).await?;
        let rebuilt = Rebuilt { skipped, ..plan.done(&add) };
        if !(add.is_empty() && plan.replaced.is_empty()) {
            self.swap(&snapshot, add, plan.replaced, Change { data: true, operation: "rebuild" }).await?;
        }
        let (date, before, after) = (format_date(date), rebuilt.rows_before, rebuilt.rows_after);
        let (from, skipped) = (rebuilt.from, rebuilt.skipped.len());
        tracing::info!(date, partition, from, before, after, skipped, "raw events were made anew from the log");
        Ok(rebuilt)
    }

    fn bounds(&self, snapshot: &Snapshot, date: i32, partition: u32, begin: u64) -> Bounds {
        let archived = Transaction::Archive(self.parts.log.identity(), partition).to_string();
        Bounds {
            begin,
            archived: u64::try_from(snapshot.transaction(&archived)).unwrap_or(0),
            closed: i64::from(date) < snapshot.transaction(&Transaction::Closed.to_string()),
        }
    }
}

/// Whether it may go well the next time: somebody else has laid files out anew meanwhile, or the log begins later now.
const fn is_overtaken(error: &MaintainError) -> bool {
    matches!(
        error,
        MaintainError::Table(TableError::Fenced { .. } | TableError::Conflict { .. })
            | MaintainError::Log(LogError::Trimmed { .. })
    )
}
