//! One version of every table, and where each partition of the log stands in them.

use std::collections::{BTreeMap, BTreeSet};

use reckon_data::log::Log;
use reckon_data::loss::Loss;
use reckon_data::minute::parse_date;
use reckon_data::paths::Transaction;
use reckon_data::run::Granularity;
use reckon_data::table::{DataFile, Snapshot, Table, Tables};
use uuid::Uuid;

use crate::error::AuditError;
use crate::report::model::{PartitionState, TableState};

/// The tables, pinned.
#[derive(Debug)]
pub struct Pinned {
    /// The log that they are about.
    pub log: Uuid,
    /// Raw events.
    pub events: Snapshot,
    /// The stream's counts.
    pub stream: Snapshot,
    /// The batch layer's counts.
    pub counts: Snapshot,
    /// The partitions of the log.
    pub partitions: Vec<PartitionState>,
    /// Dates before this one may have lost raw events to retention.
    pub closed: i64,
}

impl Pinned {
    /// Pins the tables. Counts first, then raw events: what counts cover is archived then.
    ///
    /// # Errors
    /// When a table or the log cannot be read.
    pub async fn new(
        tables: &dyn Tables,
        log: Uuid,
        partitions: u32,
        reader: Option<&dyn Log>,
    ) -> Result<Self, AuditError> {
        let counts = tables.snapshot(Table::BatchCounts).await?;
        let stream = tables.snapshot(Table::StreamCounts).await?;
        let events = tables.snapshot(Table::Events).await?;
        let closed = events.transaction(&Transaction::Closed.to_string());
        let mut states = Vec::new();
        for partition in 0..partitions {
            let at = |snapshot: &Snapshot, transaction: Transaction| {
                u64::try_from(snapshot.transaction(&transaction.to_string())).unwrap_or(0)
            };
            let extent = match reader {
                Some(reader) => Some(reader.extent(partition).await?),
                None => None,
            };
            states.push(PartitionState {
                partition,
                log_start: extent.as_ref().map(|extent| extent.start),
                log_end: extent.map(|extent| extent.end),
                archived: at(&events, Transaction::Archive(log, partition)),
                sealed: at(&stream, Transaction::Stream(log, partition)),
                coverage: at(&counts, Transaction::Batch(log, partition)),
                gone: Loss::of(&events, log, partition).map_or(0, |loss| loss.records),
            });
        }
        Ok(Self { log, events, stream, counts, partitions: states, closed })
    }

    /// Up to which offset batch has counted, of every partition; nothing is covered that is not archived.
    #[must_use]
    pub fn coverage(&self) -> Vec<u64> {
        self.partitions.iter().map(|state| state.coverage).collect()
    }

    /// The dates that have raw events or counts, with the files of both.
    #[must_use]
    pub fn dates(&self) -> BTreeMap<i32, DateFiles> {
        let mut dates: BTreeMap<i32, DateFiles> = BTreeMap::new();
        for file in self.events.files.iter() {
            if let Some(date) = date_of_file(file) {
                dates.entry(date).or_default().events.push(file.clone());
            }
        }
        for file in self.counts.files.iter() {
            if let Some(date) = date_of_file(file) {
                dates.entry(date).or_default().counts.push(file.clone());
            }
        }
        dates
    }

    /// The dates asked for, or all.
    ///
    /// # Errors
    /// [`AuditError::Invalid`] for a text that is no date.
    pub fn asked(&self, asked: &[String]) -> Result<BTreeMap<i32, DateFiles>, AuditError> {
        let mut dates = self.dates();
        if !asked.is_empty() {
            let parse = |text: &String| {
                parse_date(text)
                    .ok_or_else(|| AuditError::Invalid(format!("{text:?} is no date: write it as 2013-02-08")))
            };
            let wanted: BTreeSet<i32> = asked.iter().map(parse).collect::<Result<_, _>>()?;
            dates.retain(|date, _| wanted.contains(date));
        }
        Ok(dates)
    }

    /// The versions that were read.
    #[must_use]
    pub fn tables(&self) -> Vec<TableState> {
        let state = |snapshot: &Snapshot| TableState {
            table: snapshot.table.name().to_owned(),
            version: snapshot.version,
            files: snapshot.files.len() as u64,
            bytes: snapshot.files.iter().map(|file| file.bytes).sum(),
            rows: snapshot.files.iter().map(|file| file.rows).sum(),
        };
        [&self.events, &self.stream, &self.counts].into_iter().map(state).collect()
    }
}

/// The files of a date.
#[derive(Debug, Clone, Default)]
pub struct DateFiles {
    /// Of raw events.
    pub events: Vec<DataFile>,
    /// Of counts.
    pub counts: Vec<DataFile>,
}

/// The date of a file; none when its partition names none.
#[must_use]
pub fn date_of_file(file: &DataFile) -> Option<i32> {
    parse_date(file.partition.get("event_date")?.as_deref()?)
}

/// The granularity of a file of counts.
#[must_use]
pub fn granularity_of(file: &DataFile) -> Option<Granularity> {
    file.partition.get("granularity")?.as_deref()?.parse().ok()
}
